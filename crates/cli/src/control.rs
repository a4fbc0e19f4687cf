//! The control record, which every worker reads: today one pause for all causes.

use aws_sdk_dynamodb::Client;
use aws_sdk_dynamodb::types::AttributeValue;

use crate::error::{self, Failure};
use crate::stack::Stack;

const ID: &str = "control";

/// A pause that stands.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub struct Pause {
    /// What whoever paused wrote.
    pub reason: String,
    /// Since when, in milliseconds since 1970; 0 where nobody wrote it.
    pub since_ms: u64,
}

/// Reads it, strongly consistent: a person asks right after a change.
pub async fn read(stack: &Stack) -> Result<Option<Pause>, Failure> {
    let got = Client::new(&stack.sdk)
        .get_item()
        .table_name(&stack.ledger_table)
        .key("id", text(ID))
        .consistent_read(true)
        .send()
        .await;
    let item = got.map_err(|e| error::of_aws("dynamodb:GetItem", &e))?.item.unwrap_or_default();
    let reason = item.get("paused_reason").and_then(|value| value.as_s().ok()).cloned();
    let since = item.get("paused_since_ms").and_then(|value| value.as_n().ok()).and_then(|n| n.parse().ok());
    Ok(reason.map(|reason| Pause { reason, since_ms: since.unwrap_or_default() }))
}

/// Writes a pause, or takes it away.
pub async fn write(stack: &Stack, pause: Option<&Pause>) -> Result<(), Failure> {
    let update = Client::new(&stack.sdk).update_item().table_name(&stack.ledger_table).key("id", text(ID));
    let update = match pause {
        Some(pause) => update
            .update_expression("SET paused_reason = :reason, paused_since_ms = :since_ms")
            .expression_attribute_values(":reason", text(&pause.reason))
            .expression_attribute_values(":since_ms", AttributeValue::N(pause.since_ms.to_string())),
        None => update.update_expression("REMOVE paused_reason, paused_since_ms"),
    };
    update.send().await.map(drop).map_err(|e| error::of_aws("dynamodb:UpdateItem", &e))
}

fn text(text: &str) -> AttributeValue {
    AttributeValue::S(text.to_owned())
}
