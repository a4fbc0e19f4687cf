//! The ledger on DynamoDB.
//!
//! The table has one partition key, `id` (string): the input hash of a record, `body#` with that and a number for a part of
//! its message, `control`, `spend#YYYY-MM-DD`, that with a shard's number, `calls#` and a minute, or `redrive#` and the name
//! of a redrive.

mod calls;
mod control;
mod document;
mod item;
mod kept;
mod query;
mod spend;
pub mod table;
mod watch;
mod write;

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::AtomicU32;

use async_trait::async_trait;
use aws_sdk_dynamodb::Client;
use aws_sdk_dynamodb::error::BuildError;
use nightshift_core::input_hash::InputHash;
use nightshift_core::kept::{KeepAnswer, Part};
use nightshift_core::record::RecordWrite;
use nightshift_core::sentinel::Calls;
use nightshift_core::spend::{SpendAnswer, SpendChange};
use nightshift_ports::{Ledger, PortError, PortErrorKind, Tombstones, WriteAnswer};

use self::item::{Item, Unreadable};
use crate::clients::SdkConfig;

const SERVICE: &str = "DynamoDB";

/// The ledger in one DynamoDB table.
#[derive(Debug, Clone)]
pub struct DynamoLedger {
    client: Client,
    table: String,
    /// Over how many keys each word of the sparse index is spread, as the control record said last; 0: it was not read yet.
    index_keys: Arc<AtomicU32>,
}

impl DynamoLedger {
    /// The ledger in this table.
    #[must_use]
    pub fn new(sdk: &SdkConfig, table: impl Into<String>) -> Self {
        Self { client: Client::new(sdk), table: table.into(), index_keys: Arc::default() }
    }
}

#[async_trait]
impl Ledger for DynamoLedger {
    async fn put(&self, write: &RecordWrite) -> Result<WriteAnswer, PortError> {
        write::record(self, write).await
    }

    async fn keep(&self, part: &Part, now_ms: u64) -> Result<KeepAnswer, PortError> {
        kept::keep(self, part, now_ms).await
    }

    async fn count_duplicate(&self, key: &InputHash, message_id: &str) -> Result<(), PortError> {
        write::duplicate(self, key, message_id).await
    }

    async fn note_letter_sent(&self, key: &InputHash, version: u64) -> Result<(), PortError> {
        write::letter_sent(self, key, version).await
    }

    async fn tell_calls(&self, minute: u64, calls: &Calls) -> Result<(), PortError> {
        calls::tell(self, minute, calls).await
    }

    async fn spend(&self, change: &SpendChange) -> Result<SpendAnswer, PortError> {
        spend::change(self, change).await
    }
}

#[async_trait]
impl Tombstones for DynamoLedger {
    async fn put_tombstone(&self, write: &RecordWrite) -> Result<WriteAnswer, PortError> {
        write::tombstone(self, write).await
    }
}

/// One conditional update.
#[derive(Default)]
struct Change {
    update: String,
    condition: String,
    names: HashMap<String, String>,
    values: Item,
}

fn unreadable(operation: &'static str, fault: &Unreadable) -> PortError {
    PortError { service: SERVICE, operation, kind: PortErrorKind::Unreadable, message: fault.to_string() }
}

/// A request that lacks what it needs, which no request of ours does.
fn unbuilt(operation: &'static str, error: &BuildError) -> PortError {
    PortError { service: SERVICE, operation, kind: PortErrorKind::Refused, message: error.to_string() }
}

fn map<V, const N: usize>(entries: [(&str, V); N]) -> HashMap<String, V> {
    entries.into_iter().map(|(name, value)| (name.to_owned(), value)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ledger::write::tests::{done, open};
    use nightshift_core::control::Control;
    use nightshift_core::kept::erased_parts;
    use nightshift_core::record::Expect;
    use nightshift_core::spend::{SpendKey, SpendKind, UtcDay};
    use std::collections::BTreeSet;

    #[test]
    fn an_update_mentions_each_name_and_value_that_it_declares() {
        // DynamoDB refuses a request with an unused placeholder.
        let records = [open(), done()];
        let changes = records.into_iter().flat_map(|record| {
            [Expect::Absent, Expect::exactly(&open()), Expect::Fence]
                .map(|expect| Change::of_record(&RecordWrite { record: record.clone(), expect }, 1))
        });
        let paused = Control::paused_by_operator(1, "r", "w");
        let (day, shard) = (UtcDay::of(1_795_478_400_000), SpendKey::Shard(3));
        let spend = |key, kind| Change::of_spend(&SpendChange { day, key, kind, at_ms: 1 });
        let settle = |answered_at_ms| SpendKind::Settle {
            reserved_micro_usd: 1,
            spent_micro_usd: 2,
            answered_at_ms,
            called_at_ms: answered_at_ms,
        };
        let others = [
            Change::of_duplicate("m"),
            Change::of_letter(7),
            Change::of_part(&erased_parts(&open())[0], 1),
            Change::of_refusal(7),
            Change::of_index_keys(40),
            Change::of_control(&Control::default().resumed(9), &Control::default()),
            Change::of_control(&paused, &paused.written()),
            spend(SpendKey::Day, SpendKind::Reserve { micro_usd: 1, cap_micro_usd: 2, shard: None }),
            spend(SpendKey::Day, SpendKind::Reserve { micro_usd: 3, cap_micro_usd: 2, shard: Some(7) }),
            spend(shard, SpendKind::Draw { micro_usd: 1 }),
            spend(shard, SpendKind::Fund { micro_usd: 1 }),
            spend(SpendKey::Day, settle(None)),
            spend(SpendKey::Day, settle(Some(3))),
            spend(shard, settle(None)),
            spend(shard, settle(Some(3))),
        ];
        for change in changes.chain(others) {
            let text = format!("{} {}", change.update, change.condition);
            let used = |c: char| {
                text.split(|d: char| !(d.is_alphanumeric() || "#:_".contains(d)))
                    .filter(move |w| w.starts_with(c))
                    .map(str::to_owned)
                    .collect::<BTreeSet<_>>()
            };
            assert_eq!(used('#'), change.names.keys().cloned().collect());
            assert_eq!(used(':'), change.values.keys().cloned().collect());
        }
    }
}
