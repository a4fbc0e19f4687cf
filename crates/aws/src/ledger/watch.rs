//! Bounded reads for the sentinel.

use async_trait::async_trait;
use nightshift_core::input_hash::InputHash;
use nightshift_core::listing::{Entry, Lookup, Unsettled};
use nightshift_core::record::Record;
use nightshift_core::sentinel::Calls;
use nightshift_core::spend::{SpendKey, Spent, UtcDay};
use nightshift_ports::{LedgerWatch, PortError};

use super::item::{Item, Reader, number, text};
use super::query::{BATCH_GET, entry, read_all, read_items};
use super::spend::{ANSWERED_AT_MS, COMMITTED, LEFT, RESERVED_AT_MS, micro_usd, shards, spend_id};
use super::table::{FIRST_RECEIVED_MS, INDEX, UNSETTLED, index_key};
use super::{DynamoLedger, SERVICE, calls, unreadable};
use crate::error::port_error;

const QUERY: &str = "Query";

#[async_trait]
impl LedgerWatch for DynamoLedger {
    async fn oldest(&self, unsettled: Unsettled, since_ms: u64, limit: u32) -> Result<Vec<Entry>, PortError> {
        let mut entries: Vec<Entry> = Vec::new();
        for key in 0..self.index_keys().await? {
            let query = self
                .client
                .query()
                .table_name(&self.table)
                .index_name(INDEX)
                .key_condition_expression("#key = :key AND #received >= :since")
                .expression_attribute_names("#key", UNSETTLED)
                .expression_attribute_names("#received", FIRST_RECEIVED_MS)
                .expression_attribute_values(":key", text(&index_key(unsettled, key)))
                .expression_attribute_values(":since", number(since_ms))
                .limit(i32::try_from(limit).unwrap_or(i32::MAX));
            let found = query.send().await.map_err(|e| port_error(SERVICE, QUERY, &e))?;
            let read = found.items().iter().map(entry).collect::<Result<Vec<_>, _>>();
            entries.extend(read.map_err(|e| unreadable(QUERY, &e))?);
        }
        entries.sort_by_key(|entry| entry.first_received_ms);
        entries.truncate(usize::try_from(limit).unwrap_or(usize::MAX));
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
        Ok(Spent { reserved_at_ms: latest(RESERVED_AT_MS)?, ..spent })
    }
}
