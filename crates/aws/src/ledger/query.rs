//! Reads for whoever operates the stack: pages of the sparse index, records by their keys, and scans.

use std::collections::HashMap;
use std::time::Duration;

use async_trait::async_trait;
use aws_sdk_dynamodb::operation::query::QueryOutput;
use aws_sdk_dynamodb::operation::query::builders::QueryFluentBuilder;
use aws_sdk_dynamodb::types::{AttributeValue, KeysAndAttributes, ReturnConsumedCapacity, Select};
use nightshift_core::input_hash::InputHash;
use nightshift_core::kept::Part;
use nightshift_core::listing::{
    Counted, Entry, Look, Lookup, Order, Page, Place, Position, ResultSelection, Review, Scanned, Selection,
    Standing, TableSize, Unsettled, merge,
};
use nightshift_core::record::{Record, State};
use nightshift_ports::{FailedPage, FailedRecords, LedgerReader, PortError, PortErrorKind, SingleRecords};

use super::item::{self, Item, Reader, Unreadable, number, text};
use super::table::{FIRST_RECEIVED_MS, ID, INDEX, UNSETTLED, index_key};
use super::{DynamoLedger, SERVICE, kept, map, unbuilt, unreadable};
use crate::error::port_error;

pub(super) const BATCH_GET: &str = "BatchGetItem";
const DESCRIBE: &str = "DescribeTable";
const QUERY: &str = "Query";
const SCAN: &str = "Scan";

/// Keys of one BatchGetItem (DynamoDB API Reference, `BatchGetItem`).
const KEYS_MAX: usize = 100;
/// Failed records of one page: one BatchGetItem, and at most 40 MB, though a failure is rarely more than some kilobytes.
const FAILED_PAGE: u32 = 100;
/// How long to wait when DynamoDB gives back all keys unread, one wait after the other; then it is a throttle.
/// AWS asks for an exponential backoff there (DynamoDB API Reference, `BatchGetItem`).
const UNREAD_WAITS: [Duration; 5] = [
    Duration::from_millis(50),
    Duration::from_millis(100),
    Duration::from_millis(200),
    Duration::from_millis(400),
    Duration::from_millis(800),
];

#[async_trait]
impl LedgerReader for DynamoLedger {
    async fn list(
        &self,
        selection: &Selection,
        order: Order,
        after: Option<&Position>,
        limit: u32,
    ) -> Result<Page, PortError> {
        list_page(self, selection, order, after, limit).await
    }

    async fn count(&self, selection: &Selection, after: Option<&Position>) -> Result<Counted, PortError> {
        let from = position(self.index_keys().await?, after)?;
        let (mut records, mut read_units, mut places) = (0_u64, 0.0, Vec::new());
        for (place, key) in from.places().iter().zip(0..) {
            if *place == Place::End {
                places.push(Place::End);
                continue;
            }
            let query = query(self, selection, key, place).select(Select::Count);
            let found = query.send().await.map_err(|e| port_error(SERVICE, QUERY, &e))?;
            records = records.saturating_add(u64::try_from(found.count).unwrap_or_default());
            read_units += units(found.consumed_capacity());
            places.push(reached(&found)?);
        }
        Ok(Counted { records, next: Position::next(places), read_units })
    }

    async fn get_many(&self, keys: &[InputHash]) -> Result<Vec<Lookup>, PortError> {
        read_all(self, keys).await
    }

    async fn parts(&self, key: &InputHash) -> Result<Vec<Part>, PortError> {
        kept::parts(self, key).await
    }

    async fn scan_for_reference(
        &self,
        reference: &str,
        after: Option<&InputHash>,
    ) -> Result<Scanned, PortError> {
        let mut filter = Filter::default();
        filter.one_of("reference", [reference].into_iter());
        scan(self, filter, after).await
    }

    async fn scan_for_erasure(
        &self,
        reference: &str,
        after: Option<&InputHash>,
    ) -> Result<Scanned, PortError> {
        let mut filter = Filter::default();
        filter.names.insert("#state".to_owned(), "state".to_owned());
        filter.holds(
            "reference",
            "(#reference = :reference OR #state = :erased)".to_owned(),
            [
                (":reference".to_owned(), text(reference)),
                (":erased".to_owned(), text(State::Erased.as_str())),
            ],
        );
        scan(self, filter, after).await
    }

    async fn scan_for_results(
        &self,
        selection: &ResultSelection,
        after: Option<&InputHash>,
    ) -> Result<Scanned, PortError> {
        scan(self, Filter::of_results(selection), after).await
    }

    async fn size(&self) -> Result<TableSize, PortError> {
        let described = self.client.describe_table().table_name(&self.table).send().await;
        let table = described.map_err(|e| port_error(SERVICE, DESCRIBE, &e))?.table;
        let whole =
            |count: Option<i64>| count.and_then(|count| u64::try_from(count).ok()).unwrap_or_default();
        Ok(TableSize {
            items: whole(table.as_ref().and_then(|table| table.item_count)),
            bytes: whole(table.as_ref().and_then(|table| table.table_size_bytes)),
        })
    }
}

#[async_trait]
impl SingleRecords for DynamoLedger {
    async fn read(&self, key: &InputHash) -> Result<Option<Record>, PortError> {
        match read_all(self, std::slice::from_ref(key)).await?.pop().unwrap_or(Lookup::Absent) {
            Lookup::Absent => Ok(None),
            Lookup::Found(standing) => Ok(Some(standing.record)),
            Lookup::Unreadable(message) => Err(PortError {
                service: SERVICE,
                operation: BATCH_GET,
                kind: PortErrorKind::Unreadable,
                message,
            }),
        }
    }
}

#[async_trait]
impl FailedRecords for DynamoLedger {
    async fn page(&self, after: Option<String>) -> Result<FailedPage, PortError> {
        let position = after.map(|text| serde_json::from_str(&text)).transpose();
        let position: Option<Position> = position.map_err(|_| PortError {
            service: SERVICE,
            operation: QUERY,
            kind: PortErrorKind::Refused,
            message: "this is no position of a list: begin again".to_owned(),
        })?;
        let all = Selection::all(Unsettled::Failed);
        let listed = list_page(self, &all, Order::OldestFirst, position.as_ref(), FAILED_PAGE).await?;
        let keys: Vec<_> = listed.entries.into_iter().map(|entry| entry.key).collect();
        let mut page = FailedPage::default();
        for lookup in read_all(self, &keys).await? {
            match lookup {
                // The index may be a moment behind.
                Lookup::Found(standing) if matches!(standing.record.state, State::Failed(_)) => {
                    page.records.push(standing.record);
                }
                Lookup::Found(_) | Lookup::Absent => {}
                Lookup::Unreadable(_) => page.unreadable += 1,
            }
        }
        // A position is plain data, which always serialises.
        page.next = listed.next.and_then(|next| serde_json::to_string(&next).ok());
        Ok(page)
    }
}

/// One page of the index.
async fn list_page(
    ledger: &DynamoLedger,
    selection: &Selection,
    order: Order,
    after: Option<&Position>,
    limit: u32,
) -> Result<Page, PortError> {
    let index_keys = ledger.index_keys().await?;
    let from = position(index_keys, after)?;
    // Each of several keys gives its share of the page.
    let limit = limit.div_ceil(index_keys).max(1);
    let mut read_units = 0.0;
    let mut looks = Vec::new();
    for (place, key) in from.places().iter().zip(0..) {
        if *place == Place::End {
            looks.push(Look { entries: Vec::new(), place: Place::End });
            continue;
        }
        let query = query(ledger, selection, key, place).limit(i32::try_from(limit).unwrap_or(i32::MAX));
        let query = query.scan_index_forward(order == Order::OldestFirst);
        let found = query.send().await.map_err(|e| port_error(SERVICE, QUERY, &e))?;
        read_units += units(found.consumed_capacity());
        let entries = found.items().iter().map(entry).collect::<Result<_, _>>();
        looks.push(Look { entries: entries.map_err(|e| unreadable(QUERY, &e))?, place: reached(&found)? });
    }
    let (entries, next) = merge(order, &from, looks);
    Ok(Page { entries, next, read_units })
}

/// What stands under each of these keys, in their order.
pub(super) async fn read_all(ledger: &DynamoLedger, keys: &[InputHash]) -> Result<Vec<Lookup>, PortError> {
    let mut distinct: Vec<&str> = keys.iter().map(InputHash::as_str).collect();
    // DynamoDB refuses a key that is asked for twice.
    distinct.sort_unstable();
    distinct.dedup();
    let items = read_items(ledger, &distinct, true).await?;
    let found = items.iter().map(lookup).collect::<Result<HashMap<_, _>, _>>();
    let found = found.map_err(|e| unreadable(BATCH_GET, &e))?;
    // A key may be asked for twice.
    Ok(keys.iter().map(|key| found.get(key).cloned().unwrap_or(Lookup::Absent)).collect())
}

/// The items that stand under these keys, of which each is asked for once; in no order. `consistent`: as they stand now, for
/// twice the price.
pub(super) async fn read_items(
    ledger: &DynamoLedger,
    keys: &[impl AsRef<str>],
    consistent: bool,
) -> Result<Vec<Item>, PortError> {
    let mut found = Vec::new();
    let mut unread: Vec<Item> = keys.iter().map(|key| map([(ID, text(key.as_ref()))])).collect();
    let mut waits = UNREAD_WAITS.iter();
    while !unread.is_empty() {
        let rest = unread.split_off(unread.len().min(KEYS_MAX));
        let (items, left) = get_batch(ledger, unread, consistent).await?;
        // An answer holds 16 MB, so that a part may be left although nothing is wrong.
        if items.is_empty() && !left.is_empty() {
            let Some(wait) = waits.next() else { return Err(still_unread(left.len() + rest.len())) };
            tokio::time::sleep(*wait).await;
        } else {
            waits = UNREAD_WAITS.iter();
        }
        found.extend(items);
        unread = left;
        unread.extend(rest);
    }
    Ok(found)
}

/// Where to begin. A position of an index that was spread otherwise leads nowhere.
fn position(index_keys: u32, after: Option<&Position>) -> Result<Position, PortError> {
    let keys = usize::try_from(index_keys).unwrap_or(usize::MAX);
    match after {
        None => Ok(Position::start(keys)),
        Some(position) if position.places().len() == keys => Ok(position.clone()),
        Some(position) => Err(PortError {
            service: SERVICE,
            operation: QUERY,
            kind: PortErrorKind::Refused,
            message: format!(
                "the position is of an index of {} keys, and this one has {keys}: begin again",
                position.places().len()
            ),
        }),
    }
}

/// A query of one key of the index, from this place on.
fn query(ledger: &DynamoLedger, selection: &Selection, key: u32, place: &Place) -> QueryFluentBuilder {
    let key = index_key(selection.unsettled, key);
    let start = match place {
        Place::After { first_received_ms, key: id } => Some(map([
            (ID, text(id.as_str())),
            (UNSETTLED, text(&key)),
            (FIRST_RECEIVED_MS, number(first_received_ms)),
        ])),
        Place::Start | Place::End => None,
    };
    let Filter { expression, mut names, mut values } = Filter::of(selection);
    names.insert("#key".to_owned(), UNSETTLED.to_owned());
    values.insert(":key".to_owned(), text(&key));
    ledger
        .client
        .query()
        .table_name(&ledger.table)
        .index_name(INDEX)
        .key_condition_expression("#key = :key")
        .set_filter_expression(expression)
        .set_expression_attribute_names(Some(names))
        .set_expression_attribute_values(Some(values))
        .set_exclusive_start_key(start)
        .return_consumed_capacity(ReturnConsumedCapacity::Total)
}

/// One page of the whole table.
async fn scan(
    ledger: &DynamoLedger,
    filter: Filter,
    after: Option<&InputHash>,
) -> Result<Scanned, PortError> {
    let Filter { expression, names, values } = filter;
    let scan = ledger
        .client
        .scan()
        .table_name(&ledger.table)
        .set_filter_expression(expression)
        .set_expression_attribute_names(Some(names))
        .set_expression_attribute_values(Some(values))
        .set_exclusive_start_key(after.map(|key| map([(ID, text(key.as_str()))])))
        .return_consumed_capacity(ReturnConsumedCapacity::Total);
    let page = scan.send().await.map_err(|e| port_error(SERVICE, SCAN, &e))?;
    let found = page.items().iter().map(lookup).collect::<Result<_, _>>();
    let next = page.last_evaluated_key().map(|key| Reader(key).text(ID)).transpose();
    Ok(Scanned {
        found: found.map_err(|e| unreadable(SCAN, &e))?,
        next: next.map_err(|e| unreadable(SCAN, &e))?.map(InputHash::from_stored),
        looked_at: u64::try_from(page.scanned_count).unwrap_or_default(),
        read_units: units(page.consumed_capacity()),
    })
}

/// One request: what it read, and the keys that it gave back unread.
async fn get_batch(
    ledger: &DynamoLedger,
    keys: Vec<Item>,
    consistent: bool,
) -> Result<(Vec<Item>, Vec<Item>), PortError> {
    let asked = KeysAndAttributes::builder().set_keys(Some(keys)).consistent_read(consistent).build();
    let asked = asked.map_err(|e| unbuilt(BATCH_GET, &e))?;
    let got = ledger.client.batch_get_item().request_items(&ledger.table, asked).send().await;
    let got = got.map_err(|e| port_error(SERVICE, BATCH_GET, &e))?;
    let items = got.responses.and_then(|mut tables| tables.remove(&ledger.table)).unwrap_or_default();
    let left = got.unprocessed_keys.and_then(|mut tables| tables.remove(&ledger.table));
    Ok((items, left.map(|left| left.keys).unwrap_or_default()))
}

fn still_unread(keys: usize) -> PortError {
    PortError {
        service: SERVICE,
        operation: BATCH_GET,
        kind: PortErrorKind::Throttled,
        message: format!("{keys} keys were given back unread, again and again"),
    }
}

/// What of a selection DynamoDB evaluates, `Selection::matches` and `ResultSelection::matches` in its words.
#[derive(Default)]
struct Filter {
    expression: Option<String>,
    names: HashMap<String, String>,
    values: Item,
}

impl Filter {
    fn of(selection: &Selection) -> Self {
        let mut filter = Self::default();
        filter.one_of("reason", selection.reasons.iter().map(|reason| reason.as_str()));
        filter.one_of("task", selection.tasks.iter().map(String::as_str));
        if let Some(after_ms) = selection.failed_after_ms {
            filter.holds(
                "failed_at_ms",
                "#failed_at_ms >= :after".to_owned(),
                [(":after".to_owned(), number(after_ms))],
            );
        }
        if let Some(before_ms) = selection.failed_before_ms {
            filter.holds(
                "failed_at_ms",
                "#failed_at_ms < :before".to_owned(),
                [(":before".to_owned(), number(before_ms))],
            );
        }
        filter
    }

    fn of_results(selection: &ResultSelection) -> Self {
        let mut filter = Self::default();
        filter.one_of("state", ["done"].into_iter());
        filter.one_of("task", selection.tasks.iter().map(String::as_str));
        filter.one_of("revision_hash", selection.revision.iter().map(String::as_str));
        let times =
            [("after", ">=", selection.finished_after_ms), ("before", "<", selection.finished_before_ms)];
        for (name, relation, ms) in times {
            let Some(ms) = ms else { continue };
            filter.holds(
                "finished_at_ms",
                format!("#finished_at_ms {relation} :{name}"),
                [(format!(":{name}"), number(ms))],
            );
        }
        let flags: &[(&str, bool)] = match selection.review {
            None => &[],
            Some(Review::Done) => &[("reviewed", true)],
            Some(Review::Needed) => &[("reviewed", false), ("needs_review", true)],
            Some(Review::None) => &[("reviewed", false), ("needs_review", false)],
        };
        for (attribute, flag) in flags {
            let value = (format!(":{attribute}"), AttributeValue::Bool(*flag));
            filter.holds(attribute, format!("#{attribute} = :{attribute}"), [value]);
        }
        filter
    }

    fn one_of<'a>(&mut self, attribute: &str, words: impl Iterator<Item = &'a str>) {
        let values: Vec<_> =
            words.enumerate().map(|(n, word)| (format!(":{attribute}_{n}"), text(word))).collect();
        if !values.is_empty() {
            let list: Vec<_> = values.iter().map(|(name, _)| name.as_str()).collect();
            self.holds(attribute, format!("#{attribute} IN ({})", list.join(", ")), values);
        }
    }

    fn holds(
        &mut self,
        attribute: &str,
        condition: String,
        values: impl IntoIterator<Item = (String, AttributeValue)>,
    ) {
        self.names.insert(format!("#{attribute}"), attribute.to_owned());
        self.values.extend(values);
        self.expression = Some(match self.expression.take() {
            Some(others) => format!("{others} AND {condition}"),
            None => condition,
        });
    }
}

/// How far a query got.
fn reached(found: &QueryOutput) -> Result<Place, PortError> {
    let Some(last) = found.last_evaluated_key() else { return Ok(Place::End) };
    let read = Reader(last);
    let place = || {
        Ok(Place::After {
            first_received_ms: read.number(FIRST_RECEIVED_MS)?,
            key: InputHash::from_stored(read.text(ID)?),
        })
    };
    place().map_err(|e: Unreadable| unreadable(QUERY, &e))
}

pub(super) fn entry(item: &Item) -> Result<Entry, Unreadable> {
    let read = Reader(item);
    let failed_at_ms = read.optional("failed_at_ms", Reader::number)?;
    let finished_at_ms = read.optional("finished_at_ms", Reader::number)?;
    Ok(Entry {
        key: InputHash::from_stored(read.text(ID)?),
        task: read.optional("task", Reader::text)?,
        first_received_ms: read.number(FIRST_RECEIVED_MS)?,
        reason: read.optional("reason", Reader::text)?,
        settled_at_ms: failed_at_ms.or(finished_at_ms),
        lease_until_ms: read.optional("lease_until_ms", Reader::number)?,
    })
}

/// What stands in an item, and its key. One that cannot be read hides no other.
fn lookup(item: &Item) -> Result<(InputHash, Lookup), Unreadable> {
    let key = InputHash::from_stored(Reader(item).text(ID)?);
    let standing = || {
        let duplicates = Reader(item).optional("duplicates", Reader::number)?.unwrap_or_default();
        Ok(Standing { record: item::record(item)?, duplicates })
    };
    let lookup = standing().map_or_else(
        |fault: Unreadable| Lookup::Unreadable(fault.to_string()),
        |standing| Lookup::Found(Box::new(standing)),
    );
    Ok((key, lookup))
}

fn units(consumed: Option<&aws_sdk_dynamodb::types::ConsumedCapacity>) -> f64 {
    consumed.and_then(|consumed| consumed.capacity_units).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;
    use nightshift_core::failure::FailureReason;
    use std::collections::BTreeSet;

    #[test]
    fn a_filter_says_what_the_selection_does_and_uses_what_it_declares() {
        let all = || Selection::all(Unsettled::Failed);
        let all_parts = Selection {
            reasons: vec![FailureReason::Refused, FailureReason::Poison],
            tasks: vec!["a".to_owned()],
            failed_after_ms: Some(1),
            failed_before_ms: Some(2),
            ..all()
        };
        for (selection, expression) in [
            (all(), ""),
            (Selection { tasks: vec!["a".to_owned()], ..all() }, "#task IN (:task_0)"),
            (Selection { failed_before_ms: Some(2), ..all() }, "#failed_at_ms < :before"),
            (
                all_parts,
                "#reason IN (:reason_0, :reason_1) AND #task IN (:task_0) AND #failed_at_ms >= :after AND #failed_at_ms < :before",
            ),
        ] {
            let filter = Filter::of(&selection);
            let text = filter.expression.unwrap_or_default();
            assert_eq!(text, expression);
            let used = |c: char| {
                text.split(|d: char| !(d.is_alphanumeric() || "#:_".contains(d)))
                    .filter(move |word| word.starts_with(c))
                    .map(str::to_owned)
                    .collect::<BTreeSet<_>>()
            };
            assert_eq!(used('#'), filter.names.keys().cloned().collect());
            assert_eq!(used(':'), filter.values.keys().cloned().collect());
        }
    }
}
