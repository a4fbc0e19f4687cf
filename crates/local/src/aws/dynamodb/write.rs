//! Writes: each is prepared in full, checked, and then made.

use std::collections::BTreeMap;

use serde::Deserialize;
use serde_json::{Value as Json, json};

use super::expression::{Condition, Placeholders, Update};
use super::table::Key;
use super::value::{Item, item_from_json, item_to_json};
use super::{Refusal, State, placeholders, refuse};

const BATCH_WRITE_MAX: usize = 25;

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

pub(super) fn put_item(state: &mut State, input: PutItem) -> Result<Json, Refusal> {
    let prepared = prepare_put(state, &input)?;
    finish(state, prepared, &input.writing, &[], &["NONE", "ALL_OLD"])
}

pub(super) fn delete_item(state: &mut State, input: DeleteItem) -> Result<Json, Refusal> {
    let prepared = prepare_delete(state, &input)?;
    finish(state, prepared, &input.writing, &[], &["NONE", "ALL_OLD"])
}

pub(super) fn update_item(state: &mut State, input: UpdateItem) -> Result<Json, Refusal> {
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
        Change::Remove => None,
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

pub(super) fn batch_write(state: &mut State, input: BatchWrite) -> Result<Json, Refusal> {
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

#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub(super) struct PutItem {
    table_name: String,
    item: Json,
    #[serde(flatten)]
    writing: Writing,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub(super) struct UpdateItem {
    table_name: String,
    key: Json,
    update_expression: Option<String>,
    #[serde(flatten)]
    writing: Writing,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub(super) struct DeleteItem {
    table_name: String,
    key: Json,
    #[serde(flatten)]
    writing: Writing,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
pub(super) struct BatchWrite {
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
