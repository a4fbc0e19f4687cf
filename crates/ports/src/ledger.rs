//! The ledger, as the worker writes it.

use async_trait::async_trait;
use nightshift_core::input_hash::InputHash;
use nightshift_core::kept::{KeepAnswer, Part};
use nightshift_core::record::{RecordWrite, WriteAnswer};
use nightshift_core::sentinel::Calls;
use nightshift_core::spend::{SpendAnswer, SpendChange};

use crate::{ControlRecord, PortError};

/// The table of records.
#[async_trait]
pub trait Ledger: ControlRecord {
    /// Puts a whole record under its condition to the table, in one request, and says what the table answered.
    async fn put(&self, write: &RecordWrite) -> Result<WriteAnswer, PortError>;
    /// Writes a whole record under its condition. Safe to repeat: a refusal of our own write, whose reply was lost, is none.
    async fn write(&self, write: &RecordWrite) -> Result<WriteAnswer, PortError> {
        self.put(write).await.map(|answer| write.answered(answer))
    }
    /// Writes a part of a kept message, where `Part::allowed` says so at `now_ms`. Safe to repeat.
    async fn keep(&self, part: &Part, now_ms: u64) -> Result<KeepAnswer, PortError>;
    /// Counts a further message with the same input, at most once per message in direct repetition.
    async fn count_duplicate(&self, key: &InputHash, message_id: &str) -> Result<(), PortError>;
    /// Notes that the dead letter of the record that failed at this version is sent; nothing where it stands at another.
    async fn note_letter_sent(&self, key: &InputHash, version: u64) -> Result<(), PortError>;
    /// Adds to what all environments tell of their calls in this minute since 1970. Repeated, it counts twice, which is no
    /// harm: shares and thresholds are read from it.
    async fn tell_calls(&self, minute: u64, calls: &Calls) -> Result<(), PortError>;
    /// Changes one of a day's spend records. What gives money back is carried out once or not at all; what takes it may be
    /// counted twice where a reply is lost.
    async fn spend(&self, change: &SpendChange) -> Result<SpendAnswer, PortError>;
}
