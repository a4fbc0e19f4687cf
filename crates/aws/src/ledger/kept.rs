//! The parts of a kept message, each an item of its own (`body#`, the key of its record, and its number).

use aws_sdk_dynamodb::primitives::Blob;
use aws_sdk_dynamodb::types::AttributeValue;
use nightshift_core::input_hash::InputHash;
use nightshift_core::kept::{KeepAnswer, PARTS_MAX, Part, part_id};
use nightshift_ports::PortError;

use super::item::{Item, Reader, Unreadable, number, text};
use super::table::{EXPIRES_AT, ID};
use super::write::{refused_by, update};
use super::{Change, DynamoLedger, SERVICE, map, unreadable};
use crate::error::port_error;

const GET: &str = "GetItem";

/// Writes one part, where `Part::allowed` says so.
pub(super) async fn keep(ledger: &DynamoLedger, part: &Part, now_ms: u64) -> Result<KeepAnswer, PortError> {
    match update(ledger, &part.id(), Change::of_part(part, now_ms)).await {
        Ok(()) => Ok(KeepAnswer::Kept),
        Err(error) => refused_by(error).map(|_| KeepAnswer::Refused),
    }
}

/// All parts beside a key.
pub(super) async fn parts(ledger: &DynamoLedger, key: &InputHash) -> Result<Vec<Part>, PortError> {
    let mut parts = Vec::new();
    for index in 0..PARTS_MAX {
        let id = part_id(key, index);
        let get = ledger.client.get_item().table_name(&ledger.table).key(ID, text(&id)).consistent_read(true);
        let item = get.send().await.map_err(|e| port_error(SERVICE, GET, &e))?.item;
        let part = item.map(|item| part(key, index, &item)).transpose();
        parts.extend(part.map_err(|e| unreadable(GET, &e))?);
    }
    Ok(parts)
}

fn part(key: &InputHash, index: u32, item: &Item) -> Result<Part, Unreadable> {
    let read = Reader(item);
    Ok(Part {
        key: key.clone(),
        index,
        claim_version: read.number("claim_version")?,
        token: read.text("token")?,
        bytes: read.bytes("bytes")?,
        expires_at_ms: read.number::<u64>(EXPIRES_AT)?.saturating_mul(1_000),
    })
}

impl Change {
    pub(super) fn of_part(part: &Part, now_ms: u64) -> Self {
        Self {
            update: "SET #claim = :claim, #token = :token, #bytes = :bytes, #expires_at = :expires_at"
                .to_owned(),
            condition: format!(
                "attribute_not_exists({ID}) OR #expires_at <= :now OR #claim < :claim OR (#claim = :claim AND #token = :token)"
            ),
            names: map([
                ("#claim", "claim_version".to_owned()),
                ("#token", "token".to_owned()),
                ("#bytes", "bytes".to_owned()),
                ("#expires_at", EXPIRES_AT.to_owned()),
            ]),
            values: map([
                (":claim", number(part.claim_version)),
                (":token", text(&part.token)),
                (":bytes", AttributeValue::B(Blob::new(part.bytes.clone()))),
                (":expires_at", number(part.expires_at_ms.div_ceil(1_000))),
                (":now", number(now_ms / 1_000)),
            ]),
        }
    }
}
