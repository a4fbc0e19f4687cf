//! Writes to a record: the whole of it under its condition, a further message, a letter that is sent.

use std::collections::HashMap;

use aws_sdk_dynamodb::error::SdkError;
use aws_sdk_dynamodb::operation::put_item::PutItemError;
use aws_sdk_dynamodb::operation::update_item::UpdateItemError;
use aws_sdk_dynamodb::operation::update_item::builders::UpdateItemFluentBuilder;
use aws_sdk_dynamodb::types::ReturnValuesOnConditionCheckFailure;
use nightshift_core::input_hash::InputHash;
use nightshift_core::record::{Expect, RecordWrite};
use nightshift_ports::{PortError, WriteAnswer};

use super::item::{self, Item, number, text};
use super::table::ID;
use super::{Change, DynamoLedger, SERVICE, map, unreadable};
use crate::error::port_error;

pub(super) const UPDATE: &str = "UpdateItem";
const PUT: &str = "PutItem";
/// About as long as the expression of a whole record is.
const EXPRESSION_BYTES: usize = 1_536;

/// Writes a whole record, and reads what stands where its condition does not hold, in one request.
pub(super) async fn record(ledger: &DynamoLedger, write: &RecordWrite) -> Result<WriteAnswer, PortError> {
    let refused =
        match update(ledger, write.record.key.as_str(), Change::of_record(write, ledger.known_index_keys()))
            .await
        {
            Ok(()) => return Ok(WriteAnswer::Written),
            Err(error) => refused_by(error)?,
        };
    standing(UPDATE, refused)
}

fn standing(operation: &'static str, refused: Option<Item>) -> Result<WriteAnswer, PortError> {
    let standing =
        refused.map(|old| item::record(&old)).transpose().map_err(|e| unreadable(operation, &e))?;
    Ok(WriteAnswer::Refused(standing.map(Box::new)))
}

/// Puts a whole record in place of a whole item, as `record` writes it into one.
pub(super) async fn tombstone(ledger: &DynamoLedger, write: &RecordWrite) -> Result<WriteAnswer, PortError> {
    let attributes = item::attributes(&write.record, ledger.known_index_keys()).into_iter();
    let known = attributes.filter_map(|(name, value)| Some((name.to_owned(), value?)));
    let item = known.chain([(ID.to_owned(), text(write.record.key.as_str()))]).collect();
    let (condition, values) = condition(write);
    let names = ["version", "token"].map(|name| (["#", name].concat(), name.to_owned()));
    let is_named = !matches!(write.expect, Expect::Absent);
    let put = ledger
        .client
        .put_item()
        .table_name(&ledger.table)
        .set_item(Some(item))
        .condition_expression(condition)
        .return_values_on_condition_check_failure(ReturnValuesOnConditionCheckFailure::AllOld)
        .set_expression_attribute_names(is_named.then(|| HashMap::from(names)))
        .set_expression_attribute_values(is_named.then_some(values));
    match put.send().await {
        Ok(_) => Ok(WriteAnswer::Written),
        Err(SdkError::ServiceError(context)) if context.err().is_conditional_check_failed_exception() => {
            match context.into_err() {
                PutItemError::ConditionalCheckFailedException(refusal) => standing(PUT, refusal.item),
                _ => standing(PUT, None),
            }
        }
        Err(error) => Err(port_error(SERVICE, PUT, &error)),
    }
}

/// What a write asks of what stands, over the names `#version` and `#token`, and the values that it asks for.
fn condition(write: &RecordWrite) -> (String, Item) {
    match &write.expect {
        Expect::Absent => (format!("attribute_not_exists({ID})"), Item::new()),
        Expect::Exactly { version, token } => (
            "#version = :expected_version AND #token = :expected_token".to_owned(),
            map([(":expected_version", number(version)), (":expected_token", text(token))]),
        ),
        Expect::Fence => (
            "#token = :token AND #version < :version".to_owned(),
            map([(":token", text(&write.record.token)), (":version", number(write.record.version))]),
        ),
    }
}

/// Counts a further message.
pub(super) async fn duplicate(
    ledger: &DynamoLedger,
    key: &InputHash,
    message_id: &str,
) -> Result<(), PortError> {
    match update(ledger, key.as_str(), Change::of_duplicate(message_id)).await {
        Ok(()) => Ok(()),
        // Counted already, or there is no record any more.
        Err(error) => refused_by(error).map(drop),
    }
}

/// Notes that the letter of this version is sent.
pub(super) async fn letter_sent(
    ledger: &DynamoLedger,
    key: &InputHash,
    version: u64,
) -> Result<(), PortError> {
    match update(ledger, key.as_str(), Change::of_letter(version)).await {
        Ok(()) => Ok(()),
        // It was begun afresh, or it is gone.
        Err(error) => refused_by(error).map(drop),
    }
}

/// One write; a refusal by its condition, where it has one, returns what stands.
pub(super) async fn update(
    ledger: &DynamoLedger,
    key: &str,
    change: Change,
) -> Result<(), SdkError<UpdateItemError>> {
    request(ledger, key, change).send().await.map(drop)
}

/// The same, still to be sent.
pub(super) fn request(ledger: &DynamoLedger, key: &str, change: Change) -> UpdateItemFluentBuilder {
    let condition = (!change.condition.is_empty()).then_some(change.condition);
    let on_refusal = condition.is_some().then_some(ReturnValuesOnConditionCheckFailure::AllOld);
    ledger
        .client
        .update_item()
        .table_name(&ledger.table)
        .key(ID, text(key))
        .update_expression(change.update)
        .set_condition_expression(condition)
        .set_return_values_on_condition_check_failure(on_refusal)
        .set_expression_attribute_names(Some(change.names))
        .set_expression_attribute_values(Some(change.values))
}

impl Change {
    /// A whole record: sets every attribute that it has and removes every one that it lacks, where one can stand.
    /// What else stands in the item, the count of duplicates above all, is left alone.
    pub(super) fn of_record(write: &RecordWrite, index_keys: u32) -> Self {
        let attributes = item::attributes(&write.record, index_keys);
        let mut names = HashMap::with_capacity(attributes.len());
        let mut values = HashMap::with_capacity(attributes.len() + 1);
        // Put together by hand: each job has two of these, and formatting them took a tenth of its CPU.
        let (mut set, mut remove) = (String::with_capacity(EXPRESSION_BYTES), String::new());
        for (name, value) in attributes {
            let (expression, begin) = match &value {
                Some(_) => (&mut set, "SET #"),
                None if write.expect == Expect::Absent => continue,
                None => (&mut remove, " REMOVE #"),
            };
            expression.push_str(if expression.is_empty() { begin } else { ", #" });
            expression.push_str(name);
            // Placeholders for all: `token`, `state` and others are reserved words, and the list of those grows.
            names.insert(["#", name].concat(), name.to_owned());
            if let Some(value) = value {
                set.push_str(" = :");
                set.push_str(name);
                values.insert([":", name].concat(), value);
            }
        }
        let (condition, expected) = condition(write);
        values.extend(expected);
        set.push_str(&remove);
        Self { update: set, condition, names, values }
    }

    pub(super) fn of_duplicate(message_id: &str) -> Self {
        Self {
            update: "ADD #duplicates :one SET #last = :message_id".to_owned(),
            condition: format!(
                "attribute_exists({ID}) AND (attribute_not_exists(#last) OR #last <> :message_id)"
            ),
            names: map([
                ("#duplicates", "duplicates".to_owned()),
                ("#last", "last_duplicate_message".to_owned()),
            ]),
            values: map([(":one", number(1)), (":message_id", text(message_id))]),
        }
    }

    pub(super) fn of_letter(version: u64) -> Self {
        Self {
            update: "SET #letter_version = :version".to_owned(),
            condition: "#version = :version".to_owned(),
            names: map([
                ("#letter_version", item::LETTER_VERSION.to_owned()),
                ("#version", "version".to_owned()),
            ]),
            values: map([(":version", number(version))]),
        }
    }
}

/// The old item of a refused condition; every other error stays one.
pub(super) fn refused_by(error: SdkError<UpdateItemError>) -> Result<Option<Item>, PortError> {
    match error {
        SdkError::ServiceError(context) if context.err().is_conditional_check_failed_exception() => {
            match context.into_err() {
                UpdateItemError::ConditionalCheckFailedException(refusal) => Ok(refusal.item),
                _ => Ok(None),
            }
        }
        error => Err(port_error(SERVICE, UPDATE, &error)),
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    pub(in crate::ledger) use crate::ledger::item::tests::open;
    use aws_sdk_dynamodb::types::AttributeValue;
    use nightshift_core::record::{Done, Record, Revision, State};
    use serde_json::{Value, json};
    use std::collections::BTreeMap;

    fn plain(value: &AttributeValue) -> Value {
        match value {
            AttributeValue::S(text) => json!({ "S": text }),
            AttributeValue::N(number) => json!({ "N": number }),
            AttributeValue::Bool(flag) => json!({ "BOOL": flag }),
            other => panic!("{other:?}"),
        }
    }

    fn shown(change: &Change) -> Value {
        json!({
            "update": change.update.replace(", ", ",\n  ").replace(" REMOVE ", "\nREMOVE "),
            "condition": change.condition,
            "names": change.names.iter().collect::<BTreeMap<_, _>>(),
            "values": change.values.iter().map(|(k, v)| (k, plain(v))).collect::<BTreeMap<_, _>>(),
        })
    }

    pub(in crate::ledger) fn done() -> Record {
        Record {
            version: 2,
            state: State::Done(Box::new(Done {
                output: json!({"label": "billing"}),
                needs_review: false,
                reviewed: false,
                revision: Revision { hash: "r1".to_owned(), built_at_ms: 5, function_version: 7 },
                model: "m".to_owned(),
                finished_at_ms: 9,
            })),
            ..open()
        }
    }

    #[test]
    fn a_result_is_stored_by_its_owner_in_one_update() {
        insta::assert_json_snapshot!(shown(&Change::of_record(
            &RecordWrite { record: done(), expect: Expect::Fence },
            1
        )));
    }

    #[test]
    fn what_cannot_stand_is_not_removed() {
        for (expect, removes) in
            [(Expect::Absent, false), (Expect::exactly(&open()), true), (Expect::Fence, true)]
        {
            let Change { update, names, .. } = Change::of_record(&RecordWrite { record: open(), expect }, 1);
            assert_eq!(update.contains(" REMOVE #"), removes, "{update}");
            assert_eq!(names.contains_key("#previous_result"), removes);
        }
    }

    #[test]
    fn each_expectation_is_a_condition() {
        for (expect, condition) in [
            (Expect::Absent, "attribute_not_exists(id)"),
            (Expect::exactly(&open()), "#version = :expected_version AND #token = :expected_token"),
            (Expect::Fence, "#token = :token AND #version < :version"),
        ] {
            let change = Change::of_record(&RecordWrite { record: open(), expect }, 1);
            assert_eq!(change.condition, condition);
        }
    }
}
