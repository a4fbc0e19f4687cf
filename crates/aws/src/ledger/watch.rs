//! Bounded reads for the sentinel.

use async_trait::async_trait;
use futures_util::stream::{self, StreamExt as _, TryStreamExt as _};
use nightshift_core::input_hash::InputHash;
use nightshift_core::listing::{Entry, Lookup, Unsettled};
use nightshift_core::record::Record;
use nightshift_core::sentinel::Calls;
use nightshift_core::spend::{SpendKey, Spent, UtcDay};
use nightshift_ports::{LedgerWatch, PortError};

use super::item::{Item, Reader, number, text};
use super::query::{BATCH_GET, entry, read_all, read_items};
use super::spend::{
    ANSWERED_AT_MS, CALLED_AT_MS, COMMITTED, LEFT, RESERVED_AT_MS, micro_usd, shards, spend_id,
};
use super::table::{FIRST_RECEIVED_MS, INDEX, UNSETTLED, index_key};
use super::{DynamoLedger, SERVICE, calls, unreadable};
use crate::error::port_error;

const QUERY: &str = "Query";
/// Keys of the index that are asked at once, for each word. A stack of 1,000 environments has fifty: one after the other, full
/// pages would take the sentinel longer than it has.
const KEYS_AT_ONCE: usize = 10;

#[async_trait]
impl LedgerWatch for DynamoLedger {
    async fn oldest(&self, unsettled: Unsettled, since_ms: u64, limit: u32) -> Result<Vec<Entry>, PortError> {
        let keys = 0..self.index_keys().await?;
        let mut pages = stream::iter(keys)
            .map(|key| oldest_of(self, index_key(unsettled, key), since_ms, limit))
            .buffered(KEYS_AT_ONCE);
        let mut entries: Vec<Entry> = Vec::new();
        while let Some(page) = pages.try_next().await? {
            entries.extend(page);
            entries.sort_by_key(|entry| entry.first_received_ms);
            entries.truncate(usize::try_from(limit).unwrap_or(usize::MAX));
        }
        Ok(entries)
    }

    async fn records(&self, keys: &[InputHash]) -> Result<Vec<Record>, PortError> {
        let found = read_all(self, keys).await?.into_iter();
        Ok(found
            .filter_map(|lookup| match lookup {
                Lookup::Found(standing) => Some(standing.record),
                Lookup::Absent | Lookup::Unreadable(_) => None,
            })
            .collect())
    }

    async fn calls(&self, minute: u64) -> Result<Calls, PortError> {
        calls::read(self, minute).await
    }

    async fn spent(&self, day: UtcDay) -> Result<Spent, PortError> {
        let own = read_items(self, &[spend_id(day, SpendKey::Day)], false).await?.pop().unwrap_or_default();
        let keys: Vec<_> = shards(&own).iter().map(|shard| spend_id(day, SpendKey::Shard(shard))).collect();
        let parts = read_items(self, &keys, false).await?;
        let amount = |item: &Item, name| micro_usd(item, name).map_err(|e| unreadable(BATCH_GET, &e));
        let held = parts.iter().map(|item| amount(item, LEFT)).collect::<Result<Vec<_>, _>>()?;
        let latest = |name| {
            let times = parts.iter().chain([&own]).map(|item| Reader(item).optional(name, Reader::number));
            let times = times.collect::<Result<Vec<_>, _>>().map_err(|e| unreadable(BATCH_GET, &e))?;
            Ok::<_, PortError>(times.into_iter().flatten().max())
        };
        let spent = Spent::of(amount(&own, COMMITTED)?, &held, latest(ANSWERED_AT_MS)?);
        Ok(Spent { called_at_ms: latest(CALLED_AT_MS)?, reserved_at_ms: latest(RESERVED_AT_MS)?, ..spent })
    }
}

/// Those under one key of the index.
async fn oldest_of(
    ledger: &DynamoLedger,
    key: String,
    since_ms: u64,
    limit: u32,
) -> Result<Vec<Entry>, PortError> {
    let query = ledger
        .client
        .query()
        .table_name(&ledger.table)
        .index_name(INDEX)
        .key_condition_expression("#key = :key AND #received >= :since")
        .expression_attribute_names("#key", UNSETTLED)
        .expression_attribute_names("#received", FIRST_RECEIVED_MS)
        .expression_attribute_values(":key", text(&key))
        .expression_attribute_values(":since", number(since_ms))
        .limit(i32::try_from(limit).unwrap_or(i32::MAX));
    let found = query.send().await.map_err(|e| port_error(SERVICE, QUERY, &e))?;
    let read = found.items().iter().map(entry).collect::<Result<Vec<_>, _>>();
    read.map_err(|e| unreadable(QUERY, &e))
}
