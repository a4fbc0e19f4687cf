//! The trace of changes: who, what, why, and how it ended, as items of the ledger's table (`trace#...`), without bodies.
//!
//! It is written before the change, so that nothing is done that nobody could have seen, and again after it. CloudTrail's
//! data events are the proof; this is what colleagues read.

use aws_sdk_dynamodb::Client;
use aws_sdk_dynamodb::types::AttributeValue;
use nightshift_aws::OsEntropy;
use nightshift_ports::Entropy;

use crate::caller::{self, Caller};
use crate::error::{self, Failure};
use crate::render::say;
use crate::stack::Stack;
use crate::times;

/// A year: longer than anything that a change can be the cause of.
const KEPT_S: u64 = 365 * 24 * 60 * 60;

/// A change that has begun.
#[derive(Debug)]
pub struct Trace {
    client: Client,
    table: String,
    id: String,
    /// Who makes the change.
    pub caller: Caller,
}

/// Writes that `what` (a command, and what it acts on) begins, and why.
pub async fn begin(stack: &Stack, what: &str, why: &str) -> Result<Trace, Failure> {
    let caller = caller::of(stack).await?;
    let began_ms = times::now_ms();
    let client = Client::new(&stack.sdk);
    // By time; the token tells two of one millisecond apart.
    let id = format!("trace#{began_ms}#{}", OsEntropy.token());
    let written = client
        .put_item()
        .table_name(&stack.ledger_table)
        .item("id", text(&id))
        .item("caller", text(&caller.arn))
        .item("command", text(what))
        .item("reason", text(why))
        .item("began_ms", number(began_ms))
        .item("expires_at", number(began_ms / 1_000 + KEPT_S))
        .send()
        .await;
    written.map_err(|e| error::of_aws("dynamodb:PutItem", &e))?;
    Ok(Trace { client, table: stack.ledger_table.clone(), id, caller })
}

impl Trace {
    /// Writes how the change ended. Where that fails the change stands all the same, and a person is told.
    pub async fn end(self, ended: &Result<String, Failure>) {
        let outcome = match ended {
            Ok(done) => done.clone(),
            Err(failure) => failure.sentence().unwrap_or("ended early").to_owned(),
        };
        let written = self
            .client
            .update_item()
            .table_name(&self.table)
            .key("id", text(&self.id))
            .update_expression("SET outcome = :outcome, ended_ms = :ended_ms")
            .expression_attribute_values(":outcome", text(&outcome))
            .expression_attribute_values(":ended_ms", number(times::now_ms()))
            .send()
            .await;
        if let Err(error) = written {
            let why = error::of_aws("dynamodb:UpdateItem", &error);
            say(&format!(
                "The trace of this change does not say how it ended: {}",
                why.sentence().unwrap_or_default()
            ));
        }
    }
}

/// A text, as an attribute of an item.
pub fn text(text: &str) -> AttributeValue {
    AttributeValue::S(text.to_owned())
}

fn number(number: u64) -> AttributeValue {
    AttributeValue::N(number.to_string())
}
