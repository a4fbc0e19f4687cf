//! The ledger, as the worker writes it.

use async_trait::async_trait;
use nightshift_core::control::Control;
use nightshift_core::input_hash::InputHash;
use nightshift_core::record::{Record, RecordWrite};
use nightshift_core::spend::{SpendAnswer, SpendChange};

use crate::PortError;

/// The answer to a conditional write.
#[derive(Debug, Clone)]
pub enum WriteAnswer {
    /// It took effect.
    Written,
    /// The condition did not hold; this is what stands there, read by the refused write itself.
    /// `None`: there is no record (it expired or was deleted in between).
    Refused(Option<Box<Record>>),
}

/// The table of records.
#[async_trait]
pub trait Ledger: Send + Sync {
    /// Writes a whole record under its condition, in one request. Safe to repeat: see `RecordWrite`.
    async fn write(&self, write: &RecordWrite) -> Result<WriteAnswer, PortError>;
    /// Counts a further message with the same input, at most once per message in direct repetition.
    async fn count_duplicate(&self, key: &InputHash, message_id: &str) -> Result<(), PortError>;
    /// Notes that the dead letter of the record that failed at this version is sent; nothing where it stands at another.
    async fn note_letter_sent(&self, key: &InputHash, version: u64) -> Result<(), PortError>;
    /// Reads the control record; a missing one is the default.
    async fn control(&self) -> Result<Control, PortError>;
    /// Reserves or settles in the day's spend record. Safe to repeat with the same `change.id`.
    async fn spend(&self, change: &SpendChange) -> Result<SpendAnswer, PortError>;
}
