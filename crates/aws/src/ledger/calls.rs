//! What environments tell of their calls: an item for each minute.

use nightshift_core::sentinel::Calls;
use nightshift_ports::PortError;

use super::item::{Item, Reader, number, text};
use super::table::{EXPIRES_AT, ID};
use super::write::{self, UPDATE};
use super::{Change, DynamoLedger, SERVICE, map, unreadable};
use crate::error::port_error;

const GET: &str = "GetItem";
/// An hour, for whoever looks; the sentinel reads three minutes.
const KEPT_S: u64 = 3_600;
const FAILING_SINCE_MS: &str = "failing_since_ms";
const FAILING_UNTIL_MS: &str = "failing_until_ms";

pub(super) async fn tell(ledger: &DynamoLedger, minute: u64, calls: &Calls) -> Result<(), PortError> {
    let mut expression = "ADD #answered :answered, #failed :failed SET #expires_at = :expires_at".to_owned();
    let mut update = ledger
        .client
        .update_item()
        .table_name(&ledger.table)
        .key(ID, text(&calls_id(minute)))
        .expression_attribute_names("#answered", "answered")
        .expression_attribute_names("#failed", "failed")
        .expression_attribute_names("#expires_at", EXPIRES_AT)
        .expression_attribute_values(":answered", number(calls.answered))
        .expression_attribute_values(":failed", number(calls.failed))
        .expression_attribute_values(":expires_at", number(minute * 60 + KEPT_S));
    if let Some(at_ms) = calls.failing_since_ms {
        expression.push_str(", #failing_since = if_not_exists(#failing_since, :failing_since)");
        update = update
            .expression_attribute_names("#failing_since", FAILING_SINCE_MS)
            .expression_attribute_values(":failing_since", number(at_ms));
    }
    if let Some(at_ms) = calls.failing_until_ms {
        expression.push_str(", #failing_until = :failing_until");
        update = update
            .expression_attribute_names("#failing_until", FAILING_UNTIL_MS)
            .expression_attribute_values(":failing_until", number(at_ms));
    }
    update.update_expression(expression).send().await.map_err(|e| port_error(SERVICE, UPDATE, &e))?;
    let Some(refused_micro_usd) = calls.refused_micro_usd else { return Ok(()) };
    match write::update(ledger, &calls_id(minute), Change::of_refusal(refused_micro_usd)).await {
        Ok(()) => Ok(()),
        // A cheaper one was refused.
        Err(error) => write::refused_by(error).map(drop),
    }
}

pub(super) async fn read(ledger: &DynamoLedger, minute: u64) -> Result<Calls, PortError> {
    let get = ledger.client.get_item().table_name(&ledger.table).key(ID, text(&calls_id(minute)));
    let item = get.send().await.map_err(|e| port_error(SERVICE, GET, &e))?.item.unwrap_or_default();
    let read = Reader(&item);
    let count = |name| read.optional(name, Reader::number).map_err(|e| unreadable(GET, &e));
    Ok(Calls {
        answered: count("answered")?.unwrap_or_default(),
        failed: count("failed")?.unwrap_or_default(),
        failing_since_ms: count(FAILING_SINCE_MS)?,
        failing_until_ms: count(FAILING_UNTIL_MS)?,
        refused_micro_usd: count("refused_micro_usd")?,
    })
}

fn calls_id(minute: u64) -> String {
    format!("calls#{minute}")
}

impl Change {
    pub(super) fn of_refusal(micro_usd: u64) -> Self {
        Self {
            update: "SET #refused = :refused".to_owned(),
            condition: "attribute_not_exists(#refused) OR #refused > :refused".to_owned(),
            names: map([("#refused", "refused_micro_usd".to_owned())]),
            values: Item::from([(":refused".to_owned(), number(micro_usd))]),
        }
    }
}
