//! The message of a result that waits for review, kept beside its record: without it nobody could judge the result,
//! validate an edit, or send the job on.
//!
//! It stands in parts of their own, since an item of the ledger is smaller than a message, and is written before the
//! record that says so. A part says under which claim it was written: one of a later claim, or of an erasure, is never
//! written over by a worker that lost its claim, and is never taken for its own.

use serde::{Deserialize, Serialize};

use crate::input_hash::InputHash;
use crate::message::{Attribute, AttributeValue, Original};
use crate::record::{Kept, Record, RecordWrite};

/// Bytes of one part. DynamoDB allows 400 KB for an item with its names ("Service, account, and table quotas"); what else
/// stands in a part takes some hundred.
pub const PART_BYTES_MAX: usize = 384 * 1_024;
/// Parts of the largest message: body and attributes have 1 MiB together, and what tells them apart a few kilobytes.
pub const PARTS_MAX: u32 = 3;
/// How the key of a part begins.
pub const PART_PREFIX: &str = "body#";

/// One part of a kept message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Part {
    /// The key of the record that it is of.
    pub key: InputHash,
    /// Which part, from 0.
    pub index: u32,
    /// The claim under which it is written, or the version of a tombstone.
    pub claim_version: u64,
    /// The token of that claim.
    pub token: String,
    /// Its share of the message, at most `PART_BYTES_MAX`; none where an erasure stands.
    pub bytes: Vec<u8>,
    /// When it counts as gone, in milliseconds since 1970: with its record.
    pub expires_at_ms: u64,
}

impl Part {
    /// The key of the item that it stands in.
    #[must_use]
    pub fn id(&self) -> String {
        part_id(&self.key, self.index)
    }

    /// Whether it may be written over what stands there at `now_ms`: over nothing, what has expired, what was written
    /// under an earlier claim, or itself. What the table evaluates, for the stores that we hold in memory.
    #[must_use]
    pub fn allowed(&self, standing: Option<&Self>, now_ms: u64) -> bool {
        standing.is_none_or(|standing| {
            standing.expires_at_ms <= now_ms
                || standing.claim_version < self.claim_version
                || (standing.claim_version == self.claim_version && standing.token == self.token)
        })
    }
}

/// The key of the item of one part.
#[must_use]
pub fn part_id(key: &InputHash, index: u32) -> String {
    format!("{PART_PREFIX}{key}#{index}")
}

/// The key of the record that the part under this key is of.
#[must_use]
pub fn record_of_part(id: &str) -> Option<&str> {
    id.strip_prefix(PART_PREFIX)?.rsplit_once('#').map(|(key, _)| key)
}

/// What became of a part that was written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum KeepAnswer {
    /// It stands.
    Kept,
    /// One of a later claim, or of an erasure, stands there: the claim is lost.
    Refused,
}

/// A message as its sender sent it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KeptMessage {
    /// Its body, byte for byte.
    pub body: String,
    /// SQS's id of it.
    pub message_id: String,
    /// The sender's, by name, in the order in which they came.
    pub attributes: Vec<(String, Attribute)>,
    /// Its `MessageGroupId`.
    pub group: Option<String>,
}

impl KeptMessage {
    /// What a dead letter takes over from it.
    #[must_use]
    pub fn original(&self) -> Original<'_> {
        Original {
            body: &self.body,
            message_id: &self.message_id,
            attributes: &self.attributes,
            group: self.group.as_deref(),
        }
    }
}

/// What stands before the values and the body, on one line: names, types and lengths.
#[derive(Serialize, Deserialize)]
struct Head {
    message_id: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    group: Option<String>,
    attributes: Vec<HeadAttribute>,
}

#[derive(Serialize, Deserialize)]
struct HeadAttribute {
    name: String,
    data_type: String,
    binary: bool,
    bytes: usize,
}

/// Lets the write of a result say where its message is kept, and makes the parts that are written before it.
#[must_use]
pub fn keep(write: &mut RecordWrite, original: Original<'_>) -> Vec<Part> {
    let record = &mut write.record;
    // The owner's last write stands one version below.
    let claim_version = record.version.saturating_sub(1);
    let parts: Vec<Part> = pack(original)
        .chunks(PART_BYTES_MAX)
        .zip(0..)
        .map(|(bytes, index)| Part {
            key: record.key.clone(),
            index,
            claim_version,
            token: record.token.clone(),
            bytes: bytes.to_vec(),
            expires_at_ms: record.expires_at_ms,
        })
        .collect();
    let count = u32::try_from(parts.len()).unwrap_or(u32::MAX);
    record.kept = Some(Kept { version: record.version, claim_version, parts: count });
    parts
}

/// What is written over every part of an erased input: no worker from before writes one again.
#[must_use]
pub fn erased_parts(tombstone: &Record) -> Vec<Part> {
    let empty = |index| Part {
        key: tombstone.key.clone(),
        index,
        claim_version: tombstone.version,
        token: tombstone.token.clone(),
        bytes: Vec::new(),
        expires_at_ms: tombstone.expires_at_ms,
    };
    (0..PARTS_MAX).map(empty).collect()
}

/// The message of these parts; `None` where one is missing, or is of another claim than the record says.
#[must_use]
pub fn message(kept: Kept, mut parts: Vec<Part>) -> Option<KeptMessage> {
    parts.retain(|part| part.claim_version == kept.claim_version && part.index < kept.parts);
    parts.sort_by_key(|part| part.index);
    if !parts.iter().map(|part| part.index).eq(0..kept.parts) {
        return None;
    }
    let bytes: Vec<u8> = parts.into_iter().flat_map(|part| part.bytes).collect();
    unpack(&bytes)
}

fn pack(original: Original<'_>) -> Vec<u8> {
    let value = |attribute: &Attribute| match &attribute.value {
        AttributeValue::Text(text) => text.as_bytes().to_vec(),
        AttributeValue::Bytes(bytes) => bytes.clone(),
    };
    let attributes = original.attributes.iter().map(|(name, attribute)| HeadAttribute {
        name: name.clone(),
        data_type: attribute.data_type.clone(),
        binary: matches!(attribute.value, AttributeValue::Bytes(_)),
        bytes: value(attribute).len(),
    });
    let head = Head {
        message_id: original.message_id.to_owned(),
        group: original.group.map(str::to_owned),
        attributes: attributes.collect(),
    };
    // A plain struct of strings and numbers always serialises, and on one line.
    let mut bytes = serde_json::to_vec(&head).unwrap_or_default();
    bytes.push(b'\n');
    bytes.extend(original.attributes.iter().flat_map(|(_, attribute)| value(attribute)));
    bytes.extend_from_slice(original.body.as_bytes());
    bytes
}

fn unpack(bytes: &[u8]) -> Option<KeptMessage> {
    let end = bytes.iter().position(|byte| *byte == b'\n')?;
    let head: Head = serde_json::from_slice(bytes.get(..end)?).ok()?;
    let mut rest = bytes.get(end + 1..)?;
    let mut attributes = Vec::with_capacity(head.attributes.len());
    for HeadAttribute { name, data_type, binary, bytes } in head.attributes {
        let (value, after) = rest.split_at_checked(bytes)?;
        rest = after;
        let value = if binary {
            AttributeValue::Bytes(value.to_vec())
        } else {
            AttributeValue::Text(String::from_utf8(value.to_vec()).ok()?)
        };
        attributes.push((name, Attribute { data_type, value }));
    }
    let body = String::from_utf8(rest.to_vec()).ok()?;
    Some(KeptMessage { body, message_id: head.message_id, attributes, group: head.group })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::erase::tombstone;
    use crate::message::MESSAGE_BYTES_MAX;
    use crate::record::Expect;

    fn claimed(version: u64, token: &str) -> RecordWrite {
        let mut record = tombstone(&InputHash::of_body("x"), None, token, 1_000).record;
        record.version = version + 1;
        RecordWrite { record, expect: Expect::Fence }
    }

    fn attribute(name: &str, value: AttributeValue) -> (String, Attribute) {
        (name.to_owned(), Attribute { data_type: "String.label".to_owned(), value })
    }

    fn kept(write: &mut RecordWrite, body: &str, attributes: &[(String, Attribute)]) -> Vec<Part> {
        keep(write, Original { body, message_id: "m-1", attributes, group: Some("tenant\n1") })
    }

    #[test]
    fn a_message_comes_back_as_it_was_sent_whatever_its_size() {
        let odd = [
            attribute("text", AttributeValue::Text("ä\n\"{}".to_owned())),
            attribute("bytes", AttributeValue::Bytes(vec![0, 255, b'\n'])),
            attribute("empty", AttributeValue::Text(String::new())),
        ];
        let long: Vec<_> = (0..10)
            .map(|n| attribute(&format!("{n}{}", "n".repeat(255)), AttributeValue::Text("\"".repeat(90_000))))
            .collect();
        let long_bytes: usize = long.iter().map(|(name, value)| value.bytes(name)).sum();
        for (body, attributes, parts) in [
            (String::new(), &odd[..0], 1),
            ("{\"task\": \"tödlich\"}\r\n\u{0}".to_owned(), &odd[..], 1),
            ("\"".repeat(900 * 1_024), &odd[..], 3),
            ("b".repeat(PART_BYTES_MAX), &odd[..], 2),
            ("b".repeat(MESSAGE_BYTES_MAX), &odd[..0], 3),
            ("é".repeat((MESSAGE_BYTES_MAX - long_bytes) / 2), &long[..], 3),
        ] {
            let mut write = claimed(4, "a");
            let mut made = kept(&mut write, &body, attributes);
            assert_eq!(made.len(), parts);
            assert!(made.len() <= PARTS_MAX as usize && made.iter().all(|p| p.bytes.len() <= PART_BYTES_MAX));
            assert!(made.iter().all(|part| part.expires_at_ms == write.record.expires_at_ms));
            made.reverse();
            let message = message(write.record.kept.unwrap(), made).unwrap();
            assert_eq!(message.original().attributes, attributes);
            assert_eq!((message.message_id.as_str(), message.group.as_deref()), ("m-1", Some("tenant\n1")));
            assert!(message.body == body);
        }
    }

    #[test]
    fn a_message_is_whole_and_of_the_claim_that_the_record_names_or_there_is_none() {
        let body = "b".repeat(2 * PART_BYTES_MAX);
        let mut write = claimed(4, "a");
        let whole = kept(&mut write, &body, &[]);
        let said = write.record.kept.unwrap();
        assert_eq!((said.version, said.claim_version, said.parts), (5, 4, 3));
        let without = |index| whole.iter().filter(|part| part.index != index).cloned().collect();
        let of_another = || {
            let part = |part: &Part| Part { claim_version: 4 - u64::from(part.index == 1), ..part.clone() };
            whole.iter().map(part).collect()
        };
        // Left by a longer message of before.
        let beyond = Part { index: 3, ..whole[0].clone() };
        let mut cut = whole.clone();
        cut[0].bytes.truncate(3);
        for (parts, is_whole) in [
            (whole.clone(), true),
            ([whole.clone(), vec![beyond]].concat(), true),
            (without(0), false),
            (without(2), false),
            (of_another(), false),
            (cut, false),
            (erased_parts(&write.record), false),
            (vec![], false),
        ] {
            assert_eq!(message(said, parts).is_some(), is_whole);
        }
    }

    #[test]
    fn a_part_is_written_over_what_came_before_it_and_over_nothing_else() {
        let part = |claim_version, token: &str, expires_at_ms| Part {
            key: InputHash::of_body("x"),
            index: 0,
            claim_version,
            token: token.to_owned(),
            bytes: vec![],
            expires_at_ms,
        };
        let new = part(5, "a", 9_000);
        for (standing, allowed) in [
            (None, true),
            (Some(part(5, "a", 9_000)), true),
            (Some(part(4, "b", 9_000)), true),
            (Some(part(5, "b", 9_000)), false),
            (Some(part(6, "b", 9_000)), false),
            (Some(part(6, "a", 9_000)), false),
            (Some(part(6, "b", 1_000)), true),
        ] {
            assert_eq!(new.allowed(standing.as_ref(), 1_000), allowed, "{standing:?}");
        }
    }

    #[test]
    fn no_worker_of_before_writes_a_part_over_an_erasure() {
        let mut late = claimed(4, "worker");
        let parts = kept(&mut late, "body", &[]);
        let standing = Record { version: 4, ..late.record.clone() };
        let erased = erased_parts(&tombstone(&standing.key, Some(&standing), "eraser", 2_000).record);
        assert_eq!(erased.len(), PARTS_MAX as usize);
        assert!(erased[0].allowed(Some(&parts[0]), 3_000), "it goes over what the worker wrote");
        assert!(!parts[0].allowed(Some(&erased[0]), 3_000), "and stays there");
        let mut anew = claimed(erased[0].claim_version + 1, "next");
        assert!(kept(&mut anew, "body", &[])[0].allowed(Some(&erased[0]), 3_000), "a new request may");
    }

    #[test]
    fn each_part_stands_in_an_item_of_its_own_that_says_whose_it_is() {
        let mut write = claimed(4, "a");
        let parts = kept(&mut write, &"b".repeat(2 * PART_BYTES_MAX), &[]);
        let ids: std::collections::BTreeSet<_> = parts.iter().map(Part::id).collect();
        assert_eq!(ids.len(), 3, "{ids:?}");
        let key = write.record.key.as_str();
        for id in &ids {
            assert_eq!(record_of_part(id), Some(key));
        }
        for id in [key, "body#", "spend#2026-01-01#0", ""] {
            assert_eq!(record_of_part(id), None, "{id}");
        }
    }
}
