//! DynamoDB: its JSON protocol over tables in memory.
//!
//! **Why our own:** the in-process crate that we looked at first (winterbaume-dynamodb 0.3) evaluates a condition and writes in two steps, so that two claims of one job can both succeed, and reads `ReturnValuesOnConditionCheckFailure` without acting on it.
//! The claim rests on exactly these two.
//! Here each request is one step under one lock.
//!
//! Left out, and refused rather than ignored: local indexes, streams, PartiQL, the parameters that expressions replaced, consumed capacity but of queries and scans.
//! Different from DynamoDB: every read sees every write, indexes included; nothing is throttled; items are never expired (DynamoDB's own expiry is late by up to days, so nobody may rely on it).

mod definition;
mod expression;
mod read;
mod reserved;
mod table;
mod value;
mod write;

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};

use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::{Map, Value as Json, json};

use self::definition::update_time_to_live;
use self::expression::Placeholders;
use self::read::{batch_get, get_item, query, scan};
use self::table::Table;
use self::value::item_from_json;
pub use self::value::{Item, Value, item_to_json};
use self::write::{batch_write, delete_item, put_item, update_item};
use crate::http::HttpResponse;

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

    pub(super) fn put(&self, table: &str, items: impl IntoIterator<Item = Item>) -> Result<(), String> {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let table = state.tables.get_mut(table).ok_or_else(|| format!("there is no table {table}"))?;
        for item in items {
            table.put(table.key_of(&item)?, item);
        }
        Ok(())
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
            _ => Err(Refusal::new(
                "UnknownOperationException",
                format!("{action} is not part of this stand-in for DynamoDB"),
            )),
        }
    }
}

const CONTENT_TYPE: &str = "application/x-amz-json-1.0";

fn parse<T: DeserializeOwned>(body: &[u8]) -> Result<T, Refusal> {
    serde_json::from_slice(body).map_err(|error| Refusal::new("ValidationException", error.to_string()))
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct TableName {
    table_name: String,
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
