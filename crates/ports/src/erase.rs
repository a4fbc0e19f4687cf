//! Putting a tombstone over a record, and empty parts over its message.

use async_trait::async_trait;
use nightshift_core::erase::tombstone;
use nightshift_core::input_hash::InputHash;
use nightshift_core::kept::erased_parts;
use nightshift_core::listing::Lookup;
use nightshift_core::record::{Erasure, RecordWrite, WriteAnswer};

use crate::{Clock, Entropy, Ledger, LedgerReader, PortError, PortErrorKind};

/// How often a record may change while a tombstone is put over it.
const ROUNDS_MAX: u32 = 8;

/// The table of records, for whoever erases: no function does.
#[async_trait]
pub trait Tombstones: Ledger + LedgerReader {
    /// Puts a tombstone under its condition in place of the whole item, in one request, and says what the table answered. What
    /// a newer release wrote beside what this one knows, and every other write leaves alone, is erased with it.
    async fn put_tombstone(&self, write: &RecordWrite) -> Result<WriteAnswer, PortError>;
}

/// Erases what the ledger knows of an input; repeated, it moves the time of the erasure to now.
///
/// The parts of a kept message first: whoever erases by reference finds a record that still stands when this was cut short,
/// and a tombstone has no reference. A worker that writes its parts in between has claimed the record, which refuses the
/// tombstone, and both are written anew.
///
/// # Errors
/// Of kind `Unreadable` where a newer release wrote the record, and `Throttled` where it changes all the time; what the
/// ports say. Something may be erased by then: repeat it.
pub async fn erase<L: Tombstones + ?Sized>(
    ledger: &L,
    key: &InputHash,
    clock: &(dyn Clock + '_),
    entropy: &(dyn Entropy + '_),
) -> Result<Erasure, PortError> {
    let error = |operation, kind, message| PortError { service: "DynamoDB", operation, kind, message };
    for _ in 0..ROUNDS_MAX {
        let standing = ledger.get(key).await?;
        if let Lookup::Unreadable(why) = standing {
            return Err(error("GetItem", PortErrorKind::Unreadable, why));
        }
        let write = tombstone(key, standing.record(), &entropy.token(), clock.now_ms());
        for part in erased_parts(&write.record) {
            // Refused, a later request has written it, which the tombstone finds too.
            ledger.keep(&part, clock.now_ms()).await?;
        }
        let answer = write.answered(ledger.put_tombstone(&write).await?);
        if let (WriteAnswer::Written, Some(erasure)) = (answer, write.record.erased) {
            return Ok(erasure);
        }
    }
    let message = format!("the record changed {ROUNDS_MAX} times while it was erased; erase it again");
    Err(error("UpdateItem", PortErrorKind::Throttled, message))
}
