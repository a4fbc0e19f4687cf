//! The ledger on DynamoDB.
//!
//! The table has one partition key, `id` (string): the input hash of a record, `control`, or `spend#YYYY-MM-DD`.

use std::collections::HashMap;

use async_trait::async_trait;
use aws_sdk_dynamodb::Client;
use aws_sdk_dynamodb::config::retry::{ClassifyRetry, RetryAction};
use aws_sdk_dynamodb::error::SdkError;
use aws_sdk_dynamodb::operation::transact_write_items::TransactWriteItemsError;
use aws_sdk_dynamodb::operation::update_item::UpdateItemError;
use aws_sdk_dynamodb::types::{
    CancellationReason, ReturnValuesOnConditionCheckFailure, TransactWriteItem, Update,
};
use aws_smithy_runtime_api::client::interceptors::context::InterceptorContext;
use aws_smithy_types::date_time::Format;
use nightshift_core::input_hash::{InputHash, hex};
use nightshift_core::record::{Control, Expect, Pause, RecordWrite, SpendAnswer, SpendChange, SpendKind};
use nightshift_ports::{Ledger, PortError, PortErrorKind, WriteAnswer};
use sha2::{Digest, Sha256};

use crate::clients::SdkConfig;
use crate::error::{port_error, service_kind};
use crate::item::{self, EXPIRES_AT, ID, Item, Reader, Unreadable, number, text};

const SERVICE: &str = "DynamoDB";
const UPDATE: &str = "UpdateItem";
const GET: &str = "GetItem";
const TRANSACT: &str = "TransactWriteItems";

/// The key of the control record.
const CONTROL_ID: &str = "control";
/// How long a day's spend is kept: a quarter, for whoever compares it with a bill.
const SPEND_KEPT_S: i64 = 90 * 24 * 60 * 60;

/// The ledger in one DynamoDB table.
#[derive(Debug, Clone)]
pub struct DynamoLedger {
    client: Client,
    table: String,
}

impl DynamoLedger {
    /// The ledger in this table.
    #[must_use]
    pub fn new(sdk: &SdkConfig, table: impl Into<String>) -> Self {
        let config =
            aws_sdk_dynamodb::config::Builder::from(sdk).retry_classifier(TransactionConflicts).build();
        Self { client: Client::from_conf(config), table: table.into() }
    }

    async fn update(&self, key: &str, change: Change) -> Result<(), SdkError<UpdateItemError>> {
        self.client
            .update_item()
            .table_name(&self.table)
            .key(ID, text(key))
            .update_expression(change.update)
            .condition_expression(change.condition)
            .set_expression_attribute_names(Some(change.names))
            .set_expression_attribute_values(Some(change.values))
            .return_values_on_condition_check_failure(ReturnValuesOnConditionCheckFailure::AllOld)
            .send()
            .await
            .map(drop)
    }
}

/// One conditional update.
struct Change {
    update: String,
    condition: String,
    names: HashMap<String, String>,
    values: Item,
}

impl Change {
    /// A whole record: sets every attribute that it has and removes every one that it lacks.
    /// What else stands in the item, the count of duplicates above all, is left alone.
    fn of_record(write: &RecordWrite) -> Self {
        let mut set = Vec::new();
        let mut remove = Vec::new();
        let mut names = HashMap::new();
        let mut values = HashMap::new();
        for (name, value) in item::attributes(&write.record) {
            // Placeholders for all: `token`, `state` and others are reserved words, and the list of those grows.
            names.insert(format!("#{name}"), name.to_owned());
            match value {
                Some(value) => {
                    set.push(format!("#{name} = :{name}"));
                    values.insert(format!(":{name}"), value);
                }
                None => remove.push(format!("#{name}")),
            }
        }
        let condition = match &write.expect {
            Expect::Absent => format!("attribute_not_exists({ID})"),
            Expect::Version(version) => {
                values.insert(":expected_version".to_owned(), number(version));
                "#version = :expected_version".to_owned()
            }
            Expect::Fence => "#token = :token AND #version < :version".to_owned(),
        };
        let update = format!("SET {} REMOVE {}", set.join(", "), remove.join(", "));
        Self { update, condition, names, values }
    }

    fn of_duplicate(message_id: &str) -> Self {
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

    fn of_letter(version: u64) -> Self {
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

    fn of_spend(change: &SpendChange) -> Self {
        let mut names = map([
            ("#reserved", "reserved_micro_usd".to_owned()),
            ("#committed", "committed_micro_usd".to_owned()),
            ("#expires_at", EXPIRES_AT.to_owned()),
        ]);
        let mut values = map([(":expires_at", number(spend_expires_at_s(&change.day)))]);
        let (update, condition) = match change.kind {
            SpendKind::Reserve { micro_usd, cap_micro_usd } => {
                values.insert(":amount".to_owned(), number(micro_usd));
                let room = i128::from(cap_micro_usd) - i128::from(micro_usd);
                values.insert(":room".to_owned(), number(room));
                (
                    "ADD #reserved :amount, #committed :amount SET #expires_at = :expires_at",
                    // What exceeds the cap by itself is refused on a fresh day too: without the attribute nothing holds.
                    if room < 0 {
                        "#committed <= :room"
                    } else {
                        "attribute_not_exists(#committed) OR #committed <= :room"
                    },
                )
            }
            SpendKind::Settle { reserved_micro_usd, spent_micro_usd } => {
                let (reserved, spent) = (i128::from(reserved_micro_usd), i128::from(spent_micro_usd));
                names.insert("#spent".to_owned(), "spent_micro_usd".to_owned());
                values.insert(":given_back".to_owned(), number(-reserved));
                values.insert(":spent".to_owned(), number(spent));
                values.insert(":difference".to_owned(), number(spent - reserved));
                (
                    "ADD #reserved :given_back, #spent :spent, #committed :difference SET #expires_at = :expires_at",
                    "",
                )
            }
        };
        Self { update: update.to_owned(), condition: condition.to_owned(), names, values }
    }
}

#[async_trait]
impl Ledger for DynamoLedger {
    async fn write(&self, write: &RecordWrite) -> Result<WriteAnswer, PortError> {
        let refused = match self.update(write.record.key.as_str(), Change::of_record(write)).await {
            Ok(()) => return Ok(WriteAnswer::Written),
            Err(error) => refused_by(UPDATE, error)?,
        };
        let standing =
            refused.map(|old| item::record(&old)).transpose().map_err(|e| unreadable(UPDATE, &e))?;
        Ok(match standing {
            Some(record) if write.took_effect(&record) => WriteAnswer::Written,
            standing => WriteAnswer::Refused(standing.map(Box::new)),
        })
    }

    async fn count_duplicate(&self, key: &InputHash, message_id: &str) -> Result<(), PortError> {
        match self.update(key.as_str(), Change::of_duplicate(message_id)).await {
            Ok(()) => Ok(()),
            // Counted already, or there is no record any more.
            Err(error) => refused_by(UPDATE, error).map(drop),
        }
    }

    async fn note_letter_sent(&self, key: &InputHash, version: u64) -> Result<(), PortError> {
        match self.update(key.as_str(), Change::of_letter(version)).await {
            Ok(()) => Ok(()),
            // It was begun afresh, or it is gone.
            Err(error) => refused_by(UPDATE, error).map(drop),
        }
    }

    async fn control(&self) -> Result<Control, PortError> {
        // Eventually consistent: half the price, and workers hold the answer for seconds anyway.
        let got = self.client.get_item().table_name(&self.table).key(ID, text(CONTROL_ID)).send().await;
        let item = got.map_err(|e| port_error(SERVICE, GET, &e))?.item.unwrap_or_default();
        control(&item).map_err(|e| unreadable(GET, &e))
    }

    async fn spend(&self, change: &SpendChange) -> Result<SpendAnswer, PortError> {
        let Change { update, condition, names, values } = Change::of_spend(change);
        let update = Update::builder()
            .table_name(&self.table)
            .key(ID, text(&format!("spend#{}", change.day)))
            .update_expression(update)
            .set_condition_expression((!condition.is_empty()).then_some(condition))
            .set_expression_attribute_names(Some(names))
            .set_expression_attribute_values(Some(values))
            .return_values_on_condition_check_failure(ReturnValuesOnConditionCheckFailure::AllOld)
            .build()
            .map_err(|e| PortError {
                service: SERVICE,
                operation: TRANSACT,
                kind: PortErrorKind::Refused,
                message: e.to_string(),
            })?;
        // A transaction of one: DynamoDB remembers its token for ten minutes, and an increment has no other way of
        // being safe to repeat.
        let sent = self
            .client
            .transact_write_items()
            .client_request_token(idempotency_token(change))
            .transact_items(TransactWriteItem::builder().update(update).build())
            .send()
            .await;
        match sent {
            Ok(_) => Ok(SpendAnswer::Counted),
            Err(error) => match error.as_service_error().and_then(cancelled_because) {
                Some(CancellationReason { code: Some(code), item, .. })
                    if code == "ConditionalCheckFailed" =>
                {
                    Ok(SpendAnswer::CapReached { left_micro_usd: left_micro_usd(change, item.as_ref())? })
                }
                Some(reason) => Err(PortError {
                    service: SERVICE,
                    operation: TRANSACT,
                    kind: cancellation_kind(reason.code().unwrap_or_default()),
                    message: format!(
                        "the transaction was cancelled: {}",
                        reason.code().unwrap_or("no reason")
                    ),
                }),
                None => Err(port_error(SERVICE, TRANSACT, &error)),
            },
        }
    }
}

/// The old item of a refused condition; every other error stays one.
fn refused_by(operation: &'static str, error: SdkError<UpdateItemError>) -> Result<Option<Item>, PortError> {
    match error {
        SdkError::ServiceError(context) if context.err().is_conditional_check_failed_exception() => {
            match context.into_err() {
                UpdateItemError::ConditionalCheckFailedException(refusal) => Ok(refusal.item),
                _ => Ok(None),
            }
        }
        error => Err(port_error(SERVICE, operation, &error)),
    }
}

fn control(item: &Item) -> Result<Control, Unreadable> {
    let read = Reader(item);
    let Some(reason) = read.optional("paused_reason", Reader::text)? else { return Ok(Control::default()) };
    // A pause that a person typed in by hand may lack its time; it is a pause all the same.
    let since_ms = read.optional("paused_since_ms", Reader::number)?.unwrap_or_default();
    Ok(Control { paused: Some(Pause { reason, since_ms }) })
}

/// What the cap leaves beside what stands in the day's record.
fn left_micro_usd(change: &SpendChange, standing: Option<&Item>) -> Result<u64, PortError> {
    let SpendKind::Reserve { cap_micro_usd, .. } = change.kind else { return Ok(0) };
    let committed = standing.map(|item| Reader(item).optional("committed_micro_usd", Reader::number));
    let committed = committed.transpose().map_err(|e| unreadable(TRANSACT, &e))?.flatten();
    Ok(cap_micro_usd.saturating_sub(committed.unwrap_or_default()))
}

/// The one reason why a transaction of one was cancelled.
fn cancelled_because(error: &TransactWriteItemsError) -> Option<&CancellationReason> {
    match error {
        TransactWriteItemsError::TransactionCanceledException(cancelled) => {
            cancelled.cancellation_reasons().first()
        }
        _ => None,
    }
}

/// The reasons have names of their own (TransactWriteItems, "Cancellation reason codes").
fn cancellation_kind(reason: &str) -> PortErrorKind {
    match reason {
        "TransactionConflict" | "ThrottlingError" | "ProvisionedThroughputExceeded" => {
            PortErrorKind::Throttled
        }
        other => service_kind(other, 400),
    }
}

/// Lets the SDK's retries cover what it leaves out: two workers at the day's record at the same moment.
#[derive(Debug)]
struct TransactionConflicts;

impl ClassifyRetry for TransactionConflicts {
    fn classify_retry(&self, context: &InterceptorContext) -> RetryAction {
        let error =
            context.output_or_error().and_then(|answer| answer.err()).and_then(|e| e.as_operation_error());
        let error = error.and_then(|e| e.downcast_ref::<TransactWriteItemsError>());
        match error.and_then(cancelled_because).and_then(CancellationReason::code) {
            Some("TransactionConflict" | "ThrottlingError" | "ProvisionedThroughputExceeded") => {
                RetryAction::throttling_error()
            }
            _ => RetryAction::NoActionIndicated,
        }
    }

    fn name(&self) -> &'static str {
        "transactions that met another"
    }
}

/// At most 36 characters are allowed, so the id is hashed, with all else that makes a change a different one.
fn idempotency_token(change: &SpendChange) -> String {
    let kind = match change.kind {
        SpendKind::Reserve { .. } => "reserve",
        SpendKind::Settle { .. } => "settle",
    };
    let digest = Sha256::digest(format!("{kind}\n{}\n{}", change.day, change.id));
    hex(&digest).chars().take(32).collect()
}

/// Seconds since 1970 at the day's midnight and `SPEND_KEPT_S` more. What is no day gets a time long past, which
/// DynamoDB leaves alone (it expires nothing that is more than five years old).
fn spend_expires_at_s(day: &str) -> i64 {
    let midnight = aws_smithy_types::DateTime::from_str(&format!("{day}T00:00:00Z"), Format::DateTime);
    midnight.map_or(0, |midnight| midnight.secs()) + SPEND_KEPT_S
}

fn unreadable(operation: &'static str, fault: &Unreadable) -> PortError {
    PortError { service: SERVICE, operation, kind: PortErrorKind::Unreadable, message: fault.to_string() }
}

fn map<V, const N: usize>(entries: [(&str, V); N]) -> HashMap<String, V> {
    entries.into_iter().map(|(name, value)| (name.to_owned(), value)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::item::tests::open;
    use aws_sdk_dynamodb::types::AttributeValue;
    use nightshift_core::record::{Done, Record, Revision, State};
    use serde_json::{Value, json};
    use std::collections::{BTreeMap, BTreeSet};

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

    fn done() -> Record {
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
        insta::assert_json_snapshot!(shown(&Change::of_record(&RecordWrite {
            record: done(),
            expect: Expect::Fence
        })));
    }

    #[test]
    fn each_expectation_is_a_condition() {
        for (expect, condition) in [
            (Expect::Absent, "attribute_not_exists(id)"),
            (Expect::Version(7), "#version = :expected_version"),
            (Expect::Fence, "#token = :token AND #version < :version"),
        ] {
            let change = Change::of_record(&RecordWrite { record: open(), expect });
            assert_eq!(change.condition, condition);
        }
    }

    #[test]
    fn an_update_mentions_each_name_and_value_that_it_declares() {
        // DynamoDB refuses a request with an unused placeholder.
        let records = [open(), done()];
        let changes = records.into_iter().flat_map(|record| {
            [Expect::Absent, Expect::Version(7), Expect::Fence]
                .map(|expect| Change::of_record(&RecordWrite { record: record.clone(), expect }))
        });
        let spend = |kind| SpendChange { id: "i".to_owned(), day: "2026-11-24".to_owned(), kind };
        let others = [
            Change::of_duplicate("m"),
            Change::of_letter(7),
            Change::of_spend(&spend(SpendKind::Reserve { micro_usd: 1, cap_micro_usd: 2 })),
            Change::of_spend(&spend(SpendKind::Settle { reserved_micro_usd: 1, spent_micro_usd: 2 })),
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

    #[test]
    fn spend_never_asks_for_what_the_cap_cannot_hold() {
        let change = |micro_usd, cap_micro_usd| SpendChange {
            id: "i".to_owned(),
            day: "2026-11-24".to_owned(),
            kind: SpendKind::Reserve { micro_usd, cap_micro_usd },
        };
        assert_eq!(Change::of_spend(&change(11, 10)).condition, "#committed <= :room");
        assert_eq!(Change::of_spend(&change(10, 10)).values[":room"], number(0));
        let settle = SpendChange {
            kind: SpendKind::Settle { reserved_micro_usd: u64::MAX, spent_micro_usd: 0 },
            ..change(0, 0)
        };
        assert_eq!(Change::of_spend(&settle).values[":difference"], number(-i128::from(u64::MAX)));
    }

    #[test]
    fn a_token_is_short_and_its_own_for_each_change() {
        let change = |id: &str, day: &str, kind| SpendChange { id: id.to_owned(), day: day.to_owned(), kind };
        let reserve = SpendKind::Reserve { micro_usd: 1, cap_micro_usd: 2 };
        let settle = SpendKind::Settle { reserved_micro_usd: 1, spent_micro_usd: 1 };
        let tokens: BTreeSet<_> = [
            change("a", "2026-11-24", reserve),
            change("b", "2026-11-24", reserve),
            change("a", "2026-11-25", reserve),
            change("a", "2026-11-24", settle),
            change(&"long".repeat(100), "2026-11-24", settle),
        ]
        .iter()
        .map(idempotency_token)
        .collect();
        assert_eq!(tokens.len(), 5);
        assert!(tokens.iter().all(|token| token.len() == 32));
    }

    #[test]
    fn a_days_spend_is_kept_for_ninety_days() {
        assert_eq!(spend_expires_at_s("1970-01-02"), 91 * 86_400);
        assert_eq!(spend_expires_at_s("2026-11-24"), 1_795_478_400 + 90 * 86_400);
    }

    #[test]
    fn a_pause_needs_a_reason_and_nothing_else() {
        let paused = |reason: &str, since_ms| {
            Ok(Control { paused: Some(Pause { reason: reason.to_owned(), since_ms }) })
        };
        for (item, expected) in [
            (map([]), Ok(Control::default())),
            (map([("paused_since_ms", number(5))]), Ok(Control::default())),
            (
                map([("paused_reason", text("bad deploy")), ("paused_since_ms", number(5))]),
                paused("bad deploy", 5),
            ),
            (map([("paused_reason", text("by hand"))]), paused("by hand", 0)),
        ] {
            assert_eq!(control(&item), expected);
        }
        let mistyped = control(&map([("paused_reason", number(1))])).unwrap_err();
        assert_eq!(mistyped.to_string(), "the attribute paused_reason is not a string");
    }
}
