//! The day's spend: reserved and settled in one item, by increments.

use aws_sdk_dynamodb::config::retry::{ClassifyRetry, RetryAction};
use aws_sdk_dynamodb::operation::transact_write_items::TransactWriteItemsError;
use aws_sdk_dynamodb::types::{
    CancellationReason, ReturnValuesOnConditionCheckFailure, TransactWriteItem, Update,
};
use aws_smithy_runtime_api::client::interceptors::context::InterceptorContext;
use nightshift_core::input_hash::hex;
use nightshift_core::spend::{SpendAnswer, SpendChange, SpendKind, UtcDay};
use nightshift_ports::{PortError, PortErrorKind};
use sha2::{Digest, Sha256};

use super::item::{Item, Reader, number, text};
use super::table::{EXPIRES_AT, ID};
use super::{Change, DynamoLedger, SERVICE, map, unbuilt, unreadable};
use crate::error::{port_error, service_kind};

const TRANSACT: &str = "TransactWriteItems";

/// When a call was last answered.
pub(super) const ANSWERED_AT_MS: &str = "answered_at_ms";

/// How long a day's spend is kept: a quarter, for whoever compares it with a bill.
const SPEND_KEPT_S: u64 = 90 * 24 * 60 * 60;

/// Counts a reservation or a settlement, once however often it is asked.
pub(super) async fn count(ledger: &DynamoLedger, change: &SpendChange) -> Result<SpendAnswer, PortError> {
    let Change { update, condition, names, values } = Change::of_spend(change);
    let update = Update::builder()
        .table_name(&ledger.table)
        .key(ID, text(&spend_id(change.day)))
        .update_expression(update)
        .set_condition_expression((!condition.is_empty()).then_some(condition))
        .set_expression_attribute_names(Some(names))
        .set_expression_attribute_values(Some(values))
        .return_values_on_condition_check_failure(ReturnValuesOnConditionCheckFailure::AllOld)
        .build()
        .map_err(|e| unbuilt(TRANSACT, &e))?;
    // A transaction of one: DynamoDB remembers its token for ten minutes, and an increment has no other way of
    // being safe to repeat.
    let sent = ledger
        .client
        .transact_write_items()
        .client_request_token(idempotency_token(change))
        .transact_items(TransactWriteItem::builder().update(update).build())
        .send()
        .await;
    match sent {
        Ok(_) => Ok(SpendAnswer::Counted),
        Err(error) => match error.as_service_error().and_then(cancelled_because) {
            Some(CancellationReason { code: Some(code), item, .. }) if code == "ConditionalCheckFailed" => {
                Ok(SpendAnswer::CapReached { left_micro_usd: left_micro_usd(change, item.as_ref())? })
            }
            Some(reason) => Err(PortError {
                service: SERVICE,
                operation: TRANSACT,
                kind: cancellation_kind(reason.code().unwrap_or_default()),
                message: format!("the transaction was cancelled: {}", reason.code().unwrap_or("no reason")),
            }),
            None => Err(port_error(SERVICE, TRANSACT, &error)),
        },
    }
}

/// The key of a day's record.
pub(super) fn spend_id(day: UtcDay) -> String {
    format!("spend#{day}")
}

impl Change {
    pub(super) fn of_spend(change: &SpendChange) -> Self {
        let mut names = map([
            ("#reserved", "reserved_micro_usd".to_owned()),
            ("#committed", "committed_micro_usd".to_owned()),
            ("#expires_at", EXPIRES_AT.to_owned()),
        ]);
        let mut values = map([(":expires_at", number(spend_expires_at_s(change.day)))]);
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
            SpendKind::Settle { reserved_micro_usd, spent_micro_usd, answered_at_ms } => {
                let (reserved, spent) = (i128::from(reserved_micro_usd), i128::from(spent_micro_usd));
                names.insert("#spent".to_owned(), "spent_micro_usd".to_owned());
                values.insert(":given_back".to_owned(), number(-reserved));
                values.insert(":spent".to_owned(), number(spent));
                values.insert(":difference".to_owned(), number(spent - reserved));
                if let Some(answered_at_ms) = answered_at_ms {
                    names.insert("#answered_at".to_owned(), ANSWERED_AT_MS.to_owned());
                    values.insert(":answered_at".to_owned(), number(answered_at_ms));
                }
                (
                    if answered_at_ms.is_some() {
                        "ADD #reserved :given_back, #spent :spent, #committed :difference SET #expires_at = :expires_at, #answered_at = :answered_at"
                    } else {
                        "ADD #reserved :given_back, #spent :spent, #committed :difference SET #expires_at = :expires_at"
                    },
                    "",
                )
            }
        };
        Self { update: update.to_owned(), condition: condition.to_owned(), names, values }
    }
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
pub(super) struct TransactionConflicts;

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

/// Seconds since 1970 at the day's midnight and `SPEND_KEPT_S` more.
fn spend_expires_at_s(day: UtcDay) -> u64 {
    day.begins_ms() / 1_000 + SPEND_KEPT_S
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    #[test]
    fn spend_never_asks_for_what_the_cap_cannot_hold() {
        let change = |micro_usd, cap_micro_usd| SpendChange {
            id: "i".to_owned(),
            day: UtcDay::of(1_795_478_400_000),
            kind: SpendKind::Reserve { micro_usd, cap_micro_usd },
        };
        assert_eq!(Change::of_spend(&change(11, 10)).condition, "#committed <= :room");
        assert_eq!(Change::of_spend(&change(10, 10)).values[":room"], number(0));
        let settle = SpendChange {
            kind: SpendKind::Settle {
                reserved_micro_usd: u64::MAX,
                spent_micro_usd: 0,
                answered_at_ms: None,
            },
            ..change(0, 0)
        };
        assert_eq!(Change::of_spend(&settle).values[":difference"], number(-i128::from(u64::MAX)));
    }

    #[test]
    fn a_token_is_short_and_its_own_for_each_change() {
        let change =
            |id: &str, day_ms, kind| SpendChange { id: id.to_owned(), day: UtcDay::of(day_ms), kind };
        let (today, tomorrow) = (1_795_478_400_000, 1_795_564_800_000);
        let reserve = SpendKind::Reserve { micro_usd: 1, cap_micro_usd: 2 };
        let settle = SpendKind::Settle { reserved_micro_usd: 1, spent_micro_usd: 1, answered_at_ms: None };
        let tokens: BTreeSet<_> = [
            change("a", today, reserve),
            change("b", today, reserve),
            change("a", tomorrow, reserve),
            change("a", today, settle),
            change(&"long".repeat(100), today, settle),
        ]
        .iter()
        .map(idempotency_token)
        .collect();
        assert_eq!(tokens.len(), 5);
        assert!(tokens.iter().all(|token| token.len() == 32));
    }

    #[test]
    fn a_days_spend_is_kept_for_ninety_days() {
        assert_eq!(spend_expires_at_s(UtcDay::of(86_400_000)), 91 * 86_400);
        assert_eq!(spend_expires_at_s(UtcDay::of(1_795_478_400_000)), 1_795_478_400 + 90 * 86_400);
    }
}
