//! `TransactWriteItems`: all or nothing, and once for a token.

use std::hash::{DefaultHasher, Hash, Hasher};

use serde::Deserialize;
use serde_json::{Value as Json, json};

use super::write::{
    DeleteItem, PutItem, UpdateItem, prepare_check, prepare_delete, prepare_put, prepare_update,
    refuse_repeated_items,
};
use super::{CONDITION_FAILED, Refusal, State, parse};
use crate::clock::now_ms;

/// Actions in one transaction, and their size together (API Reference, "TransactWriteItems").
const TRANSACTION_ITEMS_MAX: usize = 100;

const TRANSACTION_BYTES_MAX: usize = 4 * 1024 * 1024;

/// How long a repeated `ClientRequestToken` is recognised (API Reference, "TransactWriteItems").
const TOKEN_MS: i64 = 10 * 60 * 1000;

pub(super) fn transact_write(state: &mut State, body: &[u8]) -> Result<Json, Refusal> {
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

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
pub(super) struct TransactWrite {
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
