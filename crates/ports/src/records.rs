//! The ledger, as those read it who operate the stack.

use async_trait::async_trait;
use nightshift_core::input_hash::InputHash;
use nightshift_core::record::Record;

use crate::PortError;

/// Reads what stands in the ledger under one input's hash.
#[async_trait]
pub trait SingleRecords: Send + Sync {
    /// Reads one, strongly consistently.
    async fn read(&self, key: &InputHash) -> Result<Option<Record>, PortError>;
}

/// Some of the failed records, in no order.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct FailedPage {
    /// Those that this release can read.
    pub records: Vec<Record>,
    /// How many it cannot, because a newer one wrote them.
    pub unreadable: u64,
    /// Where to go on; `None` at the end.
    pub next: Option<String>,
}

/// All records that stand failed.
#[async_trait]
pub trait FailedRecords: Send + Sync {
    /// Reads the next ones, eventually consistently; `None` begins.
    async fn page(&self, after: Option<String>) -> Result<FailedPage, PortError>;
}
