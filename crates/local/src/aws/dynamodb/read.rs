//! Reads: items by their keys, pages of queries and scans.

use std::collections::BTreeMap;

use serde::Deserialize;
use serde_json::{Map, Value as Json, json};

use super::expression::{Condition, Placeholders, Projection};
use super::table::{Index, Key, KeyValue, Table};
use super::value::{Item, item_bytes, item_from_json, item_to_json};
use super::{Refusal, State, placeholders, refuse};

/// One page of a query or a scan (Developer Guide, "Quotas": 1 MB).
const PAGE_BYTES_MAX: usize = 1024 * 1024;

const BATCH_GET_MAX: usize = 100;

pub(super) fn get_item(state: &State, input: GetItem) -> Result<Json, Refusal> {
    input.reading.refuse_the_rest()?;
    let placeholders = input.reading.placeholders()?;
    let projection = input.reading.projection(&placeholders)?;
    placeholders.check_all_used()?;
    let table = state.table(&input.table_name)?;
    let key = table.exact_key(&item_from_json(&input.key)?)?;
    Ok(match table.get(&key) {
        Some(item) => json!({ "Item": show(item, projection.as_ref()) }),
        None => json!({}),
    })
}

fn show(item: &Item, projection: Option<&Projection>) -> Json {
    match projection {
        Some(projection) => item_to_json(&projection.apply(item)),
        None => item_to_json(item),
    }
}

/// What a query or scan found, and where it stopped.
struct Page {
    items: Vec<Item>,
    scanned: usize,
    bytes: usize,
    last: Option<Item>,
}

pub(super) fn query(state: &State, input: Search) -> Result<Json, Refusal> {
    input.reading.refuse_what_no_search_has()?;
    let table = state.table(&input.table_name)?;
    let index = find_index(table, &input)?;
    let keys = index.map_or(&table.keys, |index| &index.keys);
    let placeholders = input.reading.placeholders()?;
    let text = input.key_condition_expression.as_deref().ok_or(
        "Either the KeyConditions or KeyConditionExpression parameter must be specified in the request.",
    )?;
    let condition = Condition::parse(text, &placeholders)
        .map_err(|error| format!("Invalid KeyConditionExpression: {error}"))?;
    let partition = condition
        .equality(&keys.partition.name)
        .ok_or_else(|| format!("Query condition missed key schema element: {}", keys.partition.name))?
        .clone();
    if let Some(name) = condition
        .attributes()
        .into_iter()
        .find(|name| !keys.attributes().any(|attribute| attribute.name == *name))
    {
        return Err(format!("Query key condition not supported: {name} is not part of the key").into());
    }
    let mut rows = match index {
        Some(index) => table.indexed(index, Some(&partition)),
        None => table.partition(&partition),
    };
    if input.scan_index_forward == Some(false) {
        rows = Box::new(rows.rev());
    }
    let rows = rows.filter(|(_, item)| condition.holds(item));
    let page = page(table, index, rows, &input, &placeholders)?;
    answer_page(page, &input)
}

pub(super) fn scan(state: &State, input: Search) -> Result<Json, Refusal> {
    input.reading.refuse_what_no_search_has()?;
    if input.key_condition_expression.is_some() {
        return Err("KeyConditionExpression is not a parameter of Scan".into());
    }
    let table = state.table(&input.table_name)?;
    let index = find_index(table, &input)?;
    let placeholders = input.reading.placeholders()?;
    let segment = input.segment.zip(input.total_segments);
    let rows = match (index, &input.exclusive_start_key) {
        (Some(index), _) => table.indexed(index, None),
        // The place of a row tells its segment.
        (None, Some(start)) if segment.is_none() => table.rows_from(&table.key_of(&item_from_json(start)?)?),
        (None, _) => table.rows(),
    };
    let rows = rows
        .zip(0_u64..)
        .filter(|(_, place)| segment.is_none_or(|(segment, total)| place % total.max(1) == segment));
    let rows = rows.map(|(row, _)| row);
    let page = page(table, index, rows, &input, &placeholders)?;
    answer_page(page, &input)
}

fn find_index<'table>(table: &'table Table, input: &Search) -> Result<Option<&'table Index>, Refusal> {
    let Some(name) = &input.index_name else {
        return Ok(None);
    };
    if input.reading.consistent_read == Some(true) {
        return Err("Consistent reads are not supported on global secondary indexes".into());
    }
    let index = table
        .indexes
        .get(name)
        .ok_or_else(|| format!("The table does not have the specified index: {name}"))?;
    Ok(Some(index))
}

fn page<'table>(
    table: &'table Table,
    index: Option<&Index>,
    rows: impl Iterator<Item = (&'table Key, &'table Item)>,
    input: &Search,
    placeholders: &Placeholders,
) -> Result<Page, Refusal> {
    let filter = input
        .filter_expression
        .as_deref()
        .map(|text| {
            Condition::parse(text, placeholders).map_err(|error| format!("Invalid FilterExpression: {error}"))
        })
        .transpose()?;
    let projection = input.reading.projection(placeholders)?;
    placeholders.check_all_used()?;
    let position = |item: &Item| -> Result<(Option<KeyValue>, Key), String> {
        match index {
            Some(index) => table.index_position(index, item),
            None => Ok((None, table.key_of(item)?)),
        }
    };
    let start = input.exclusive_start_key.as_ref().map(|key| position(&item_from_json(key)?)).transpose()?;
    let backwards = input.scan_index_forward == Some(false);
    let limit = input.limit.unwrap_or(usize::MAX);
    if limit == 0 {
        return Err("Limit must be greater than or equal to 1".into());
    }
    let mut page = Page { items: Vec::new(), scanned: 0, bytes: 0, last: None };
    for (key, item) in rows {
        if let Some(start) = &start {
            let here = match index {
                Some(index) => table.index_position(index, item)?.cmp(start),
                None => key.cmp(&start.1),
            };
            if !(if backwards { here.is_lt() } else { here.is_gt() }) {
                continue;
            }
        }
        let seen = index.map_or_else(|| item.clone(), |index| table.project(index, item));
        page.scanned += 1;
        page.bytes += item_bytes(&seen);
        if filter.as_ref().is_none_or(|filter| filter.holds(&seen)) {
            page.items
                .push(projection.as_ref().map_or_else(|| seen.clone(), |projection| projection.apply(&seen)));
        }
        if page.scanned >= limit || page.bytes >= PAGE_BYTES_MAX {
            let keys =
                table.keys.attributes().chain(index.into_iter().flat_map(|index| index.keys.attributes()));
            page.last = Some(
                keys.filter_map(|attribute| item.get_key_value(&attribute.name))
                    .map(|(name, value)| (name.clone(), value.clone()))
                    .collect(),
            );
            break;
        }
    }
    Ok(page)
}

fn answer_page(page: Page, input: &Search) -> Result<Json, Refusal> {
    let mut answer = Map::new();
    answer.insert("Count".to_owned(), page.items.len().into());
    answer.insert("ScannedCount".to_owned(), page.scanned.into());
    match input.select.as_deref() {
        Some("COUNT") => {}
        None | Some("ALL_ATTRIBUTES" | "ALL_PROJECTED_ATTRIBUTES" | "SPECIFIC_ATTRIBUTES") => {
            answer.insert("Items".to_owned(), page.items.iter().map(item_to_json).collect());
        }
        Some(other) => return Err(format!("Unknown Select: {other}").into()),
    }
    if let Some(last) = &page.last {
        answer.insert("LastEvaluatedKey".to_owned(), item_to_json(last));
    }
    if input.reading.wants_capacity() {
        // A unit for each 4 KB that was looked at, half of one where the read is eventually consistent (DynamoDB Developer
        // Guide, "DynamoDB read and write operations").
        let blocks = page.bytes.div_ceil(4_096).max(1) as f64;
        let units = if input.reading.consistent_read == Some(true) { blocks } else { blocks / 2.0 };
        let consumed = json!({ "TableName": input.table_name, "CapacityUnits": units });
        answer.insert("ConsumedCapacity".to_owned(), consumed);
    }
    Ok(answer.into())
}

pub(super) fn batch_get(state: &State, input: BatchGet) -> Result<Json, Refusal> {
    let count: usize = input.request_items.values().map(|request| request.keys.len()).sum();
    if !(1..=BATCH_GET_MAX).contains(&count) {
        return Err("Too many items requested for the BatchGetItem call".into());
    }
    let mut responses = Map::new();
    for (name, request) in &input.request_items {
        request.reading.refuse_the_rest()?;
        let placeholders = request.reading.placeholders()?;
        let projection = request.reading.projection(&placeholders)?;
        placeholders.check_all_used()?;
        let table = state.table(name)?;
        let mut found = Vec::new();
        for key in &request.keys {
            let key = table.exact_key(&item_from_json(key)?)?;
            found.extend(table.get(&key).map(|item| show(item, projection.as_ref())));
        }
        responses.insert(name.clone(), found.into());
    }
    Ok(json!({ "Responses": responses, "UnprocessedKeys": {} }))
}

/// What all reads have in common; what is left over is refused.
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Reading {
    projection_expression: Option<String>,
    expression_attribute_names: Option<BTreeMap<String, String>>,
    expression_attribute_values: Option<Json>,
    consistent_read: Option<bool>,
    return_consumed_capacity: Option<String>,
    #[serde(flatten)]
    rest: BTreeMap<String, Json>,
}

impl Reading {
    /// Queries and scans say what they consumed, as a total.
    fn refuse_what_no_search_has(&self) -> Result<(), Refusal> {
        let unknown = self.return_consumed_capacity.as_deref().filter(|wanted| *wanted != "TOTAL");
        refuse(&self.rest, unknown)
    }

    fn wants_capacity(&self) -> bool {
        self.return_consumed_capacity.as_deref() == Some("TOTAL")
    }

    fn refuse_the_rest(&self) -> Result<(), Refusal> {
        refuse(&self.rest, self.return_consumed_capacity.as_deref())
    }

    fn placeholders(&self) -> Result<Placeholders, Refusal> {
        placeholders(self.expression_attribute_names.as_ref(), self.expression_attribute_values.as_ref())
    }

    fn projection(&self, placeholders: &Placeholders) -> Result<Option<Projection>, Refusal> {
        let Some(text) = &self.projection_expression else {
            return Ok(None);
        };
        let projection = Projection::parse(text, placeholders)
            .map_err(|error| format!("Invalid ProjectionExpression: {error}"))?;
        Ok(Some(projection))
    }
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub(super) struct GetItem {
    table_name: String,
    key: Json,
    #[serde(flatten)]
    reading: Reading,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub(super) struct Search {
    table_name: String,
    index_name: Option<String>,
    key_condition_expression: Option<String>,
    filter_expression: Option<String>,
    exclusive_start_key: Option<Json>,
    limit: Option<usize>,
    scan_index_forward: Option<bool>,
    select: Option<String>,
    segment: Option<u64>,
    total_segments: Option<u64>,
    #[serde(flatten)]
    reading: Reading,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
pub(super) struct BatchGet {
    request_items: BTreeMap<String, BatchGetTable>,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct BatchGetTable {
    keys: Vec<Json>,
    #[serde(flatten)]
    reading: Reading,
}
