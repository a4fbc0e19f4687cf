//! The ledger, as whoever operates the stack reads it.

use async_trait::async_trait;
use nightshift_core::input_hash::InputHash;
use nightshift_core::kept::Part;
use nightshift_core::listing::{
    Counted, Lookup, Order, Page, Position, ResultSelection, Scanned, Selection, TableSize,
};

use crate::PortError;

/// Reads of the table of records. Nothing here counts a receive, hides a message or changes anything; and of bodies,
/// there are here only those of results that wait for review: that of a job that failed is in its queue.
#[async_trait]
pub trait LedgerReader: Send + Sync {
    /// One page of what is not settled, from the sparse index: a request for each of its keys, whatever the table holds.
    /// Looks at about `limit` records (1 to 1,000) after this position, or from the beginning.
    ///
    /// Eventually consistent: a change may show a moment later, and a record that changes its state between two pages may
    /// be on both or on neither.
    async fn list(
        &self,
        selection: &Selection,
        order: Order,
        after: Option<&Position>,
        limit: u32,
    ) -> Result<Page, PortError>;

    /// Counts what [`list`](Self::list) would show, a megabyte of the index at a time, so that its caller can stop in
    /// between: some 5,000 records.
    async fn count(&self, selection: &Selection, after: Option<&Position>) -> Result<Counted, PortError>;

    /// What stands under each of these keys, in their order, strongly consistent: what was written before is seen.
    /// Holds all of them in memory, up to 400 KB each, so ask for some hundred at a time.
    async fn get_many(&self, keys: &[InputHash]) -> Result<Vec<Lookup>, PortError>;

    /// What stands under one key, strongly consistent.
    async fn get(&self, key: &InputHash) -> Result<Lookup, PortError> {
        Ok(self.get_many(std::slice::from_ref(key)).await?.pop().unwrap_or(Lookup::Absent))
    }

    /// The parts of a kept message that stand beside this key, strongly consistent, whichever claim wrote them: up to a
    /// megabyte.
    async fn parts(&self, key: &InputHash) -> Result<Vec<Part>, PortError>;

    /// Looks through a megabyte of the whole table for records with this reference (the first sender's), after this key or
    /// from the beginning. There is no index over references: each page is paid for what was looked at, not for what was
    /// found. [`size`](Self::size) says before what all of it takes.
    async fn scan_for_reference(
        &self,
        reference: &str,
        after: Option<&InputHash>,
    ) -> Result<Scanned, PortError>;

    /// The same for records with this reference and for all tombstones, which have none: whoever erases by a reference again
    /// finds what was erased before.
    async fn scan_for_erasure(
        &self,
        reference: &str,
        after: Option<&InputHash>,
    ) -> Result<Scanned, PortError>;

    /// Looks through a megabyte of the whole table for results, after this key or from the beginning; paid for like
    /// [`scan_for_reference`](Self::scan_for_reference).
    async fn scan_for_results(
        &self,
        selection: &ResultSelection,
        after: Option<&InputHash>,
    ) -> Result<Scanned, PortError>;

    /// How large the table is, as far as DynamoDB knows.
    async fn size(&self) -> Result<TableSize, PortError>;
}
