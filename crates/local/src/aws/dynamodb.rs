//! DynamoDB: its JSON protocol over tables in memory.
//!
//! **Why our own:** the in-process crate that we looked at first (winterbaume-dynamodb 0.3) evaluates a condition and writes in two steps, so that two claims of one job can both succeed, and reads `ReturnValuesOnConditionCheckFailure` without acting on it.
//! The claim rests on exactly these two.
//! Here each request is one step under one lock.
//!
//! Left out, and refused rather than ignored: local indexes, streams, PartiQL, the parameters that expressions replaced, consumed capacity.
//! Different from DynamoDB: every read sees every write, indexes included; nothing is throttled; items are never expired (DynamoDB's own expiry is late by up to days, so nobody may rely on it).

mod expression;
mod reserved;
mod table;
mod value;

use std::collections::{BTreeMap, HashMap, HashSet};
use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::{Mutex, PoisonError};

use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::{Map, Value as Json, json};

use self::expression::{Condition, Placeholders, Projection, Update};
use self::table::{Index, IndexProjection, Key, KeyAttribute, KeySchema, KeyValue, Table};
pub use self::value::{Item, Value, item_to_json};
use self::value::{item_bytes, item_from_json};
use crate::clock::now_ms;
use crate::http::HttpResponse;

/// One page of a query or a scan (Developer Guide, "Quotas": 1 MB).
const PAGE_BYTES_MAX: usize = 1024 * 1024;
/// Actions in one transaction, and their size together (API Reference, "TransactWriteItems").
const TRANSACTION_ITEMS_MAX: usize = 100;
const TRANSACTION_BYTES_MAX: usize = 4 * 1024 * 1024;
const BATCH_WRITE_MAX: usize = 25;
const BATCH_GET_MAX: usize = 100;
/// How long a repeated `ClientRequestToken` is recognised (API Reference, "TransactWriteItems").
const TOKEN_MS: i64 = 10 * 60 * 1000;

/// A refusal in the form of the wire.
#[derive(Debug)]
struct Refusal {
    code: &'static str,
    message: String,
    /// Members that only some errors have.
    more: Map<String, Json>,
}

impl Refusal {
    fn new(code: &'static str, message: impl Into<String>) -> Self {
        Refusal { code, message: message.into(), more: Map::new() }
    }

    fn condition_failed(old: Option<&Item>) -> Self {
        let mut refusal = Refusal::new("ConditionalCheckFailedException", CONDITION_FAILED);
        if let Some(old) = old {
            refusal.more.insert("Item".to_owned(), item_to_json(old));
        }
        refusal
    }
}

/// A message alone is a validation error, the most common refusal.
impl From<String> for Refusal {
    fn from(message: String) -> Self {
        Refusal::new("ValidationException", message)
    }
}

impl From<&str> for Refusal {
    fn from(message: &str) -> Self {
        message.to_owned().into()
    }
}

const CONDITION_FAILED: &str = "The conditional request failed";

/// DynamoDB as one account sees it in one region.
#[derive(Debug)]
pub(super) struct DynamoDb {
    region: String,
    account: String,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    tables: BTreeMap<String, Table>,
    /// Tokens of transactions that were carried out: when, and a digest of the request.
    tokens: HashMap<String, (i64, u64)>,
}

impl State {
    fn table(&self, name: &str) -> Result<&Table, Refusal> {
        self.tables.get(name).ok_or_else(no_such_table)
    }

    fn table_mut(&mut self, name: &str) -> Result<&mut Table, Refusal> {
        self.tables.get_mut(name).ok_or_else(no_such_table)
    }
}

fn no_such_table() -> Refusal {
    Refusal::new("ResourceNotFoundException", "Requested resource not found")
}

impl DynamoDb {
    pub(super) fn new(region: &str, account: &str) -> Self {
        DynamoDb { region: region.to_owned(), account: account.to_owned(), state: Mutex::default() }
    }

    pub(super) fn handle(&self, action: &str, body: &[u8]) -> HttpResponse {
        // Every change is prepared in full before it is made, so a panic in between leaves whole items behind.
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        match self.act(&mut state, action, body) {
            Ok(answer) => HttpResponse::new(200, CONTENT_TYPE, answer.to_string()),
            Err(refusal) => {
                let mut members = refusal.more;
                let code = format!("com.amazonaws.dynamodb.v20120810#{}", refusal.code);
                members.insert("__type".to_owned(), code.into());
                members.insert("message".to_owned(), refusal.message.into());
                HttpResponse::new(400, CONTENT_TYPE, Json::from(members).to_string())
            }
        }
    }

    /// All items of a table; none when there is no such table.
    pub(super) fn items(&self, table: &str) -> Vec<Item> {
        let state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let table = state.tables.get(table);
        table.map(|table| table.items().cloned().collect()).unwrap_or_default()
    }

    fn act(&self, state: &mut State, action: &str, body: &[u8]) -> Result<Json, Refusal> {
        match action {
            "CreateTable" => self.create_table(state, parse(body)?),
            "DescribeTable" => {
                let input: TableName = parse(body)?;
                let table = state.table(&input.table_name)?;
                Ok(json!({ "Table": self.describe(&input.table_name, table) }))
            }
            "DeleteTable" => {
                let input: TableName = parse(body)?;
                let table = state.tables.remove(&input.table_name).ok_or_else(no_such_table)?;
                Ok(json!({ "TableDescription": self.describe(&input.table_name, &table) }))
            }
            "ListTables" => Ok(json!({ "TableNames": state.tables.keys().collect::<Vec<_>>() })),
            "UpdateTimeToLive" => update_time_to_live(state, parse(body)?),
            "DescribeTimeToLive" => {
                let input: TableName = parse(body)?;
                let attribute = &state.table(&input.table_name)?.expiry_attribute;
                let status = if attribute.is_some() { "ENABLED" } else { "DISABLED" };
                Ok(
                    json!({ "TimeToLiveDescription": { "TimeToLiveStatus": status, "AttributeName": attribute } }),
                )
            }
            "GetItem" => get_item(state, parse(body)?),
            "PutItem" => put_item(state, parse(body)?),
            "UpdateItem" => update_item(state, parse(body)?),
            "DeleteItem" => delete_item(state, parse(body)?),
            "Query" => query(state, parse(body)?),
            "Scan" => scan(state, parse(body)?),
            "BatchGetItem" => batch_get(state, parse(body)?),
            "BatchWriteItem" => batch_write(state, parse(body)?),
            "TransactWriteItems" => transact_write(state, body),
            "TransactGetItems" => transact_get(state, parse(body)?),
            _ => Err(Refusal::new(
                "UnknownOperationException",
                format!("{action} is not part of this stand-in for DynamoDB"),
            )),
        }
    }

    fn create_table(&self, state: &mut State, input: CreateTable) -> Result<Json, Refusal> {
        if state.tables.contains_key(&input.table_name) {
            return Err(Refusal::new(
                "ResourceInUseException",
                format!("Table already exists: {}", input.table_name),
            ));
        }
        let keys = key_schema(&input.key_schema, &input.attribute_definitions)?;
        let mut indexes = BTreeMap::new();
        for index in input.global_secondary_indexes {
            let projection = match index.projection.projection_type.as_str() {
                "ALL" => IndexProjection::All,
                "KEYS_ONLY" => IndexProjection::KeysOnly,
                "INCLUDE" => IndexProjection::Include(index.projection.non_key_attributes),
                other => return Err(format!("Unknown ProjectionType: {other}").into()),
            };
            let keys = key_schema(&index.key_schema, &input.attribute_definitions)?;
            indexes.insert(index.index_name, Index { keys, projection });
        }
        let all_keys: HashSet<&str> = std::iter::once(&keys)
            .chain(indexes.values().map(|index| &index.keys))
            .flat_map(KeySchema::attributes)
            .map(|attribute| attribute.name.as_str())
            .collect();
        if all_keys.len() != input.attribute_definitions.len() {
            return Err("One or more parameter values were invalid: Number of attributes in KeySchema does not exactly match number of attributes defined in AttributeDefinitions".into());
        }
        let table = Table::new(keys, indexes, now_ms() / 1000);
        let description = self.describe(&input.table_name, &table);
        state.tables.insert(input.table_name, table);
        Ok(json!({ "TableDescription": description }))
    }

    fn describe(&self, name: &str, table: &Table) -> Json {
        let schema = |keys: &KeySchema| {
            let mut elements = vec![json!({ "AttributeName": keys.partition.name, "KeyType": "HASH" })];
            if let Some(sort) = &keys.sort {
                elements.push(json!({ "AttributeName": sort.name, "KeyType": "RANGE" }));
            }
            elements
        };
        let indexes: Vec<Json> = table
            .indexes
            .iter()
            .map(|(name, index)| {
                let projection = match &index.projection {
                    IndexProjection::All => json!({ "ProjectionType": "ALL" }),
                    IndexProjection::KeysOnly => json!({ "ProjectionType": "KEYS_ONLY" }),
                    IndexProjection::Include(names) => {
                        json!({ "ProjectionType": "INCLUDE", "NonKeyAttributes": names })
                    }
                };
                json!({
                    "IndexName": name,
                    "IndexStatus": "ACTIVE",
                    "KeySchema": schema(&index.keys),
                    "Projection": projection,
                })
            })
            .collect();
        let definitions: BTreeMap<&str, &str> = std::iter::once(&table.keys)
            .chain(table.indexes.values().map(|index| &index.keys))
            .flat_map(KeySchema::attributes)
            .map(|attribute| (attribute.name.as_str(), attribute.kind.as_str()))
            .collect();
        let definitions: Vec<Json> = definitions
            .into_iter()
            .map(|(name, kind)| json!({ "AttributeName": name, "AttributeType": kind }))
            .collect();
        json!({
            "TableName": name,
            "TableArn": format!("arn:aws:dynamodb:{}:{}:table/{name}", self.region, self.account),
            "TableStatus": "ACTIVE",
            "CreationDateTime": table.created_s,
            "ItemCount": table.len(),
            "KeySchema": schema(&table.keys),
            "AttributeDefinitions": definitions,
            "BillingModeSummary": { "BillingMode": "PAY_PER_REQUEST" },
            "GlobalSecondaryIndexes": indexes,
        })
    }
}

const CONTENT_TYPE: &str = "application/x-amz-json-1.0";

fn parse<T: DeserializeOwned>(body: &[u8]) -> Result<T, Refusal> {
    serde_json::from_slice(body).map_err(|error| Refusal::new("ValidationException", error.to_string()))
}

fn key_schema(elements: &[KeyElement], definitions: &[AttributeDefinition]) -> Result<KeySchema, Refusal> {
    let attribute = |wanted: &str| {
        let Some(element) = elements.iter().find(|element| element.key_type == wanted) else {
            return Ok(None);
        };
        let definition = definitions
            .iter()
            .find(|definition| definition.attribute_name == element.attribute_name)
            .filter(|definition| matches!(definition.attribute_type.as_str(), "S" | "N" | "B"))
            .ok_or_else(|| {
                format!(
                    "One or more parameter values were invalid: Some index key attributes are not defined in AttributeDefinitions. Keys: [{}]",
                    element.attribute_name
                )
            })?;
        Ok::<_, String>(Some(KeyAttribute {
            name: definition.attribute_name.clone(),
            kind: definition.attribute_type.clone(),
        }))
    };
    Ok(KeySchema {
        partition: attribute("HASH")?
            .ok_or("No Hash Key specified in schema. All Dynamo DB tables must have exactly one hash key")?,
        sort: attribute("RANGE")?,
    })
}

fn update_time_to_live(state: &mut State, input: UpdateTimeToLive) -> Result<Json, Refusal> {
    let table = state.table_mut(&input.table_name)?;
    let specification = input.time_to_live_specification;
    table.expiry_attribute = specification.enabled.then(|| specification.attribute_name.clone());
    Ok(json!({ "TimeToLiveSpecification": {
        "Enabled": specification.enabled,
        "AttributeName": specification.attribute_name,
    } }))
}

fn get_item(state: &State, input: GetItem) -> Result<Json, Refusal> {
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

/// A write that was checked and only needs to be made.
struct Prepared {
    table: String,
    key: Key,
    old: Option<Item>,
    change: Change,
}

enum Change {
    Put(Item),
    Remove,
    Nothing,
}

impl Prepared {
    fn carry_out(self, state: &mut State) -> Result<(), Refusal> {
        let table = state.table_mut(&self.table)?;
        match self.change {
            Change::Put(item) => {
                table.put(self.key, item);
            }
            Change::Remove => {
                table.remove(&self.key);
            }
            Change::Nothing => {}
        }
        Ok(())
    }
}

/// The condition of a write; a refusal carries the old item if the request asked for it.
fn check_condition(
    writing: &Writing,
    placeholders: &Placeholders,
    old: Option<&Item>,
) -> Result<(), Refusal> {
    let Some(text) = &writing.condition_expression else {
        return Ok(());
    };
    let condition = Condition::parse(text, placeholders)
        .map_err(|error| format!("Invalid ConditionExpression: {error}"))?;
    placeholders.check_all_used()?;
    if condition.holds(old.unwrap_or(&Item::new())) {
        return Ok(());
    }
    let wants_old = writing.return_values_on_condition_check_failure.as_deref() == Some("ALL_OLD");
    Err(Refusal::condition_failed(old.filter(|_| wants_old)))
}

fn prepare_put(state: &State, input: &PutItem) -> Result<Prepared, Refusal> {
    input.writing.refuse_the_rest()?;
    let table = state.table(&input.table_name)?;
    let item = item_from_json(&input.item)?;
    let key = table.key_of(&item)?;
    table.check(&item)?;
    let old = table.get(&key).cloned();
    let placeholders = input.writing.placeholders()?;
    check_condition(&input.writing, &placeholders, old.as_ref())?;
    placeholders.check_all_used()?;
    Ok(Prepared { table: input.table_name.clone(), key, old, change: Change::Put(item) })
}

fn prepare_delete(state: &State, input: &DeleteItem) -> Result<Prepared, Refusal> {
    input.writing.refuse_the_rest()?;
    let table = state.table(&input.table_name)?;
    let key = table.exact_key(&item_from_json(&input.key)?)?;
    let old = table.get(&key).cloned();
    let placeholders = input.writing.placeholders()?;
    check_condition(&input.writing, &placeholders, old.as_ref())?;
    placeholders.check_all_used()?;
    Ok(Prepared { table: input.table_name.clone(), key, old, change: Change::Remove })
}

fn prepare_check(state: &State, input: &DeleteItem) -> Result<Prepared, Refusal> {
    if input.writing.condition_expression.is_none() {
        return Err("ConditionCheck needs a ConditionExpression".into());
    }
    let prepared = prepare_delete(state, input)?;
    Ok(Prepared { change: Change::Nothing, ..prepared })
}

/// A prepared update, with the names of the attributes that it touches.
fn prepare_update(state: &State, input: &UpdateItem) -> Result<(Prepared, Vec<String>), Refusal> {
    input.writing.refuse_the_rest()?;
    let table = state.table(&input.table_name)?;
    let key_attributes = item_from_json(&input.key)?;
    let key = table.exact_key(&key_attributes)?;
    let placeholders = input.writing.placeholders()?;
    let update = match &input.update_expression {
        Some(text) => Update::parse(text, &placeholders)
            .map_err(|error| format!("Invalid UpdateExpression: {error}"))?,
        None => Update::default(),
    };
    let touched: Vec<String> = update.attributes().map(str::to_owned).collect();
    if let Some(name) = touched.iter().find(|name| key_attributes.contains_key(*name)) {
        return Err(format!(
            "One or more parameter values were invalid: Cannot update attribute {name}. This attribute is part of the key"
        )
        .into());
    }
    let old = table.get(&key).cloned();
    check_condition(&input.writing, &placeholders, old.as_ref())?;
    placeholders.check_all_used()?;
    let new = update.apply(old.as_ref().unwrap_or(&key_attributes))?;
    table.check(&new)?;
    let prepared = Prepared { table: input.table_name.clone(), key, old, change: Change::Put(new) };
    Ok((prepared, touched))
}

fn put_item(state: &mut State, input: PutItem) -> Result<Json, Refusal> {
    let prepared = prepare_put(state, &input)?;
    finish(state, prepared, &input.writing, &[], &["NONE", "ALL_OLD"])
}

fn delete_item(state: &mut State, input: DeleteItem) -> Result<Json, Refusal> {
    let prepared = prepare_delete(state, &input)?;
    finish(state, prepared, &input.writing, &[], &["NONE", "ALL_OLD"])
}

fn update_item(state: &mut State, input: UpdateItem) -> Result<Json, Refusal> {
    let (prepared, touched) = prepare_update(state, &input)?;
    let allowed = ["NONE", "ALL_OLD", "UPDATED_OLD", "ALL_NEW", "UPDATED_NEW"];
    finish(state, prepared, &input.writing, &touched, &allowed)
}

/// Carries out a write and returns the attributes that the request asked for.
fn finish(
    state: &mut State,
    prepared: Prepared,
    writing: &Writing,
    touched: &[String],
    allowed: &[&str],
) -> Result<Json, Refusal> {
    let wanted = writing.return_values.as_deref().unwrap_or("NONE");
    if !allowed.contains(&wanted) {
        return Err(format!("Return values set to invalid value: {wanted}").into());
    }
    let new = match &prepared.change {
        Change::Put(item) => Some(item),
        Change::Remove | Change::Nothing => None,
    };
    let only_touched = |item: Option<&Item>| {
        let mut item = item.cloned().unwrap_or_default();
        item.retain(|name, _| touched.contains(name));
        item
    };
    let attributes = match wanted {
        "ALL_OLD" => prepared.old.clone(),
        "ALL_NEW" => new.cloned(),
        "UPDATED_OLD" => Some(only_touched(prepared.old.as_ref())),
        "UPDATED_NEW" => Some(only_touched(new)),
        _ => None,
    };
    prepared.carry_out(state)?;
    Ok(match attributes.filter(|attributes| !attributes.is_empty()) {
        Some(attributes) => json!({ "Attributes": item_to_json(&attributes) }),
        None => json!({}),
    })
}

/// What a query or scan found, and where it stopped.
struct Page {
    items: Vec<Item>,
    scanned: usize,
    bytes: usize,
    last: Option<Item>,
}

fn query(state: &State, input: Search) -> Result<Json, Refusal> {
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
    rows.retain(|(_, item)| condition.holds(item));
    if input.scan_index_forward == Some(false) {
        rows.reverse();
    }
    let page = page(table, index, rows, &input, &placeholders)?;
    answer_page(page, &input)
}

fn scan(state: &State, input: Search) -> Result<Json, Refusal> {
    input.reading.refuse_what_no_search_has()?;
    if input.key_condition_expression.is_some() {
        return Err("KeyConditionExpression is not a parameter of Scan".into());
    }
    let table = state.table(&input.table_name)?;
    let index = find_index(table, &input)?;
    let placeholders = input.reading.placeholders()?;
    let mut rows: Vec<(&Key, &Item)> = match index {
        Some(index) => table.indexed(index, None),
        None => table.rows(),
    };
    if let (Some(segment), Some(total)) = (input.segment, input.total_segments) {
        let mut place = 0_u64;
        rows.retain(|_| {
            place += 1;
            (place - 1) % total.max(1) == segment
        });
    }
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

fn page(
    table: &Table,
    index: Option<&Index>,
    rows: Vec<(&Key, &Item)>,
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
    for (_, item) in rows {
        if let Some(start) = &start {
            let here = position(item)?;
            let before = if backwards { here >= *start } else { here <= *start };
            if before {
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

fn batch_get(state: &State, input: BatchGet) -> Result<Json, Refusal> {
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

fn batch_write(state: &mut State, input: BatchWrite) -> Result<Json, Refusal> {
    let count: usize = input.request_items.values().map(Vec::len).sum();
    if !(1..=BATCH_WRITE_MAX).contains(&count) {
        return Err("Too many items requested for the BatchWriteItem call".into());
    }
    let mut prepared = Vec::new();
    for (name, requests) in input.request_items {
        for request in requests {
            prepared.push(match request {
                WriteRequest { put_request: Some(put), delete_request: None } => prepare_put(
                    state,
                    &PutItem { table_name: name.clone(), item: put.item, writing: Writing::default() },
                )?,
                WriteRequest { put_request: None, delete_request: Some(delete) } => prepare_delete(
                    state,
                    &DeleteItem { table_name: name.clone(), key: delete.key, writing: Writing::default() },
                )?,
                _ => return Err("A write request is either a put or a delete".into()),
            });
        }
    }
    refuse_repeated_items(&prepared, "Provided list of item keys contains duplicates")?;
    for write in prepared {
        write.carry_out(state)?;
    }
    Ok(json!({ "UnprocessedItems": {} }))
}

fn refuse_repeated_items(prepared: &[Prepared], message: &str) -> Result<(), Refusal> {
    let mut seen = std::collections::BTreeSet::new();
    for write in prepared {
        if !seen.insert((&write.table, &write.key)) {
            return Err(message.into());
        }
    }
    Ok(())
}

fn transact_write(state: &mut State, body: &[u8]) -> Result<Json, Refusal> {
    let input: TransactWrite = parse(body)?;
    if !(1..=TRANSACTION_ITEMS_MAX).contains(&input.transact_items.len()) {
        return Err("1 validation error detected: Value at 'transactItems' failed to satisfy constraint: Member must have length less than or equal to 100".into());
    }
    if body.len() > TRANSACTION_BYTES_MAX {
        return Err("Transaction size exceeds the limit of 4 MB".into());
    }
    let now_ms = now_ms();
    state.tokens.retain(|_, (at_ms, _)| now_ms - *at_ms < TOKEN_MS);
    let digest = {
        // The SDK writes maps in a random order.
        let mut sorted: Json = parse(body)?;
        sorted.sort_all_objects();
        let mut hasher = DefaultHasher::new();
        sorted.to_string().hash(&mut hasher);
        hasher.finish()
    };
    if let Some((_, before)) = input.client_request_token.as_ref().and_then(|token| state.tokens.get(token)) {
        // The same request again was carried out already: its reply was lost.
        return if *before == digest {
            Ok(json!({}))
        } else {
            Err(Refusal::new(
                "IdempotentParameterMismatchException",
                "The token was used with other parameters",
            ))
        };
    }

    let mut prepared = Vec::new();
    let mut reasons = Vec::new();
    let mut cancelled = false;
    for action in &input.transact_items {
        let outcome = match action {
            TransactAction { put: Some(put), .. } => prepare_put(state, put),
            TransactAction { update: Some(update), .. } => {
                prepare_update(state, update).map(|(prepared, _)| prepared)
            }
            TransactAction { delete: Some(delete), .. } => prepare_delete(state, delete),
            TransactAction { condition_check: Some(check), .. } => prepare_check(state, check),
            _ => {
                return Err(
                    "A transaction's action must be one of Put, Update, Delete, ConditionCheck".into()
                );
            }
        };
        match outcome {
            Ok(write) => {
                prepared.push(write);
                reasons.push(json!({ "Code": "None" }));
            }
            Err(refusal) if refusal.code == "ConditionalCheckFailedException" => {
                cancelled = true;
                let mut reason = refusal.more;
                reason.insert("Code".to_owned(), "ConditionalCheckFailed".into());
                reason.insert("Message".to_owned(), CONDITION_FAILED.into());
                reasons.push(reason.into());
            }
            Err(refusal) => return Err(refusal),
        }
    }
    refuse_repeated_items(&prepared, "Transaction request cannot include multiple operations on one item")?;
    if cancelled {
        let codes: Vec<&str> =
            reasons.iter().filter_map(|reason| reason.get("Code").and_then(Json::as_str)).collect();
        let mut refusal = Refusal::new(
            "TransactionCanceledException",
            format!(
                "Transaction cancelled, please refer cancellation reasons for specific reasons [{}]",
                codes.join(", ")
            ),
        );
        refusal.more.insert("CancellationReasons".to_owned(), reasons.into());
        return Err(refusal);
    }
    for write in prepared {
        write.carry_out(state)?;
    }
    if let Some(token) = input.client_request_token {
        state.tokens.insert(token, (now_ms, digest));
    }
    Ok(json!({}))
}

fn transact_get(state: &State, input: TransactGet) -> Result<Json, Refusal> {
    let mut responses = Vec::new();
    for action in input.transact_items {
        responses.push(get_item(state, action.get)?);
    }
    Ok(json!({ "Responses": responses }))
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct TableName {
    table_name: String,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct KeyElement {
    attribute_name: String,
    key_type: String,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct AttributeDefinition {
    attribute_name: String,
    attribute_type: String,
}

/// Settings that change nothing here (throughput, encryption, tags, protection) are accepted by name.
#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct CreateTable {
    table_name: String,
    key_schema: Vec<KeyElement>,
    attribute_definitions: Vec<AttributeDefinition>,
    #[serde(default)]
    global_secondary_indexes: Vec<CreateIndex>,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct CreateIndex {
    index_name: String,
    key_schema: Vec<KeyElement>,
    projection: ProjectionInput,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct ProjectionInput {
    projection_type: String,
    #[serde(default)]
    non_key_attributes: Vec<String>,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct UpdateTimeToLive {
    table_name: String,
    time_to_live_specification: TimeToLive,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct TimeToLive {
    enabled: bool,
    attribute_name: String,
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

/// What all writes have in common; what is left over is refused.
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Writing {
    condition_expression: Option<String>,
    expression_attribute_names: Option<BTreeMap<String, String>>,
    expression_attribute_values: Option<Json>,
    return_values: Option<String>,
    return_values_on_condition_check_failure: Option<String>,
    return_consumed_capacity: Option<String>,
    #[serde(flatten)]
    rest: BTreeMap<String, Json>,
}

impl Writing {
    fn refuse_the_rest(&self) -> Result<(), Refusal> {
        refuse(&self.rest, self.return_consumed_capacity.as_deref())
    }

    fn placeholders(&self) -> Result<Placeholders, Refusal> {
        placeholders(self.expression_attribute_names.as_ref(), self.expression_attribute_values.as_ref())
    }
}

fn refuse(rest: &BTreeMap<String, Json>, capacity: Option<&str>) -> Result<(), Refusal> {
    if let Some(name) = rest.keys().next() {
        return Err(format!("The parameter {name} is not part of this stand-in for DynamoDB").into());
    }
    match capacity {
        None | Some("NONE") => Ok(()),
        Some(_) => Err("ReturnConsumedCapacity is not part of this stand-in for DynamoDB".into()),
    }
}

fn placeholders(
    names: Option<&BTreeMap<String, String>>,
    values: Option<&Json>,
) -> Result<Placeholders, Refusal> {
    let values = values.map(item_from_json).transpose()?.unwrap_or_default();
    Ok(Placeholders::new(names.cloned().unwrap_or_default(), values))
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
struct GetItem {
    table_name: String,
    key: Json,
    #[serde(flatten)]
    reading: Reading,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
struct PutItem {
    table_name: String,
    item: Json,
    #[serde(flatten)]
    writing: Writing,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
struct UpdateItem {
    table_name: String,
    key: Json,
    update_expression: Option<String>,
    #[serde(flatten)]
    writing: Writing,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
struct DeleteItem {
    table_name: String,
    key: Json,
    #[serde(flatten)]
    writing: Writing,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Search {
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
struct BatchGet {
    request_items: BTreeMap<String, BatchGetTable>,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct BatchGetTable {
    keys: Vec<Json>,
    #[serde(flatten)]
    reading: Reading,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct BatchWrite {
    request_items: BTreeMap<String, Vec<WriteRequest>>,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct WriteRequest {
    put_request: Option<PutRequest>,
    delete_request: Option<DeleteRequest>,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct PutRequest {
    item: Json,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct DeleteRequest {
    key: Json,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct TransactWrite {
    transact_items: Vec<TransactAction>,
    client_request_token: Option<String>,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct TransactAction {
    put: Option<PutItem>,
    update: Option<UpdateItem>,
    delete: Option<DeleteItem>,
    condition_check: Option<DeleteItem>,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct TransactGet {
    transact_items: Vec<TransactGetAction>,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct TransactGetAction {
    get: GetItem,
}
