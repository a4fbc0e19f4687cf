//! The ledger, as the sentinel watches it.

use async_trait::async_trait;
use nightshift_core::input_hash::InputHash;
use nightshift_core::listing::{Entry, Unsettled};
use nightshift_core::record::Record;
use nightshift_core::sentinel::Calls;
use nightshift_core::spend::{Spent, UtcDay};

use crate::PortError;

/// Bounded reads of the ledger, whatever it holds.
#[async_trait]
pub trait LedgerWatch: Send + Sync {
    /// The first `limit` entries (1 to 1,000) that stand in the sparse index for this and were received at `since_ms` or
    /// later, the oldest first: one request for each key of the index. Eventually consistent.
    async fn oldest(&self, unsettled: Unsettled, since_ms: u64, limit: u32) -> Result<Vec<Entry>, PortError>;
    /// Those of these records (100 at most) that stand and that this release can read, strongly consistent.
    async fn records(&self, keys: &[InputHash]) -> Result<Vec<Record>, PortError>;
    /// What environments told of their calls in this minute since 1970.
    async fn calls(&self, minute: u64) -> Result<Calls, PortError>;
    /// What the day's record says; of a day that has none, nothing.
    async fn spent(&self, day: UtcDay) -> Result<Spent, PortError>;
}
