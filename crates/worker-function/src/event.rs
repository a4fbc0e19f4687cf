//! From what Lambda delivers to the worker's messages, record by record.
//!
//! **Invariant:** what is odd about one record is that record's alone: the batch is split first, and each record is
//! read for itself. No error here quotes a body.

use std::collections::BTreeMap;

use aws_smithy_types::base64;
use nightshift_core::message::{Attribute, AttributeValue};
use nightshift_worker::Message;
use serde::de::DeserializeOwned;
use serde_json::value::RawValue;

/// A delivered batch, read.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Batch {
    /// The records that can be worked on, in their order.
    pub messages: Vec<Message>,
    /// Ids of records that cannot even be dead letters, because they have no readable body: handed back as they are.
    pub unreadable_ids: Vec<String>,
    /// Records without an id: they cannot be reported one by one.
    pub without_id: usize,
}

/// What was delivered is no batch of SQS records.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "the event is not an SQS batch: {0}; the function is to be started by an SQS event source mapping, and by the sentinel for a probe"
)]
pub struct NotABatch(&'static str);

/// Splits an event into messages. `now_ms` stands in for a time that a record lacks.
///
/// # Errors
/// When the event has no list `Records`.
pub fn read(event: &str, now_ms: u64) -> Result<Batch, NotABatch> {
    let members: Members<'_> =
        serde_json::from_str(event).map_err(|_| NotABatch("it is not an object that could hold Records"))?;
    let records = members.get("Records").ok_or(NotABatch("it has no Records"))?;
    let records: Vec<&RawValue> =
        serde_json::from_str(records.get()).map_err(|_| NotABatch("its Records are not a list"))?;
    let mut batch = Batch::default();
    for record in records {
        match read_record(record, now_ms) {
            Ok(message) => batch.messages.push(message),
            Err(Some(id)) => batch.unreadable_ids.push(id),
            Err(None) => batch.without_id += 1,
        }
    }
    Ok(batch)
}

/// An object's members, unread; one that names a member twice is read by its last.
/// Unlike a struct of serde's, it is never read from a list.
type Members<'a> = BTreeMap<String, &'a RawValue>;

/// The message, or the id of a record that has one but no body that can be read.
fn read_record(record: &RawValue, now_ms: u64) -> Result<Message, Option<String>> {
    let members: Members<'_> = serde_json::from_str(record.get()).map_err(|_| None)?;
    let message_id = member::<String>(&members, "messageId").filter(|id| !id.is_empty()).ok_or(None)?;
    let Some(body) = member::<String>(&members, "body") else { return Err(Some(message_id)) };
    let system: Members<'_> =
        members.get("attributes").and_then(|raw| serde_json::from_str(raw.get()).ok()).unwrap_or_default();
    Ok(Message {
        message_id,
        // Without a handle the visibility cannot be changed; the record then comes back after the queue's own timeout.
        receipt_handle: member(&members, "receiptHandle").unwrap_or_default(),
        body,
        // SQS always sets it. A record of another origin counts as sent now: not as a duplicate of anything.
        sent_at_ms: count(&system, "SentTimestamp").unwrap_or(now_ms),
        receive_count: count(&system, "ApproximateReceiveCount")
            .map_or(1, |count| u32::try_from(count).unwrap_or(u32::MAX)),
        attributes: sender_attributes(&members),
        group: member::<String>(&system, "MessageGroupId").filter(|group| !group.is_empty()),
    })
}

fn member<T: DeserializeOwned>(members: &Members<'_>, name: &str) -> Option<T> {
    serde_json::from_str(members.get(name)?.get()).ok()
}

/// SQS writes its numbers as strings; some stand-ins do not.
fn count(members: &Members<'_>, name: &str) -> Option<u64> {
    let raw = members.get(name)?.get();
    raw.trim_matches('"').parse().ok()
}

/// The sender's attributes as SQS would take them back.
/// What it would not take (no value, bytes that are not Base64) cannot have come from it and would only make the dead
/// letter impossible to send.
fn sender_attributes(members: &Members<'_>) -> Vec<(String, Attribute)> {
    let raw: Members<'_> = members
        .get("messageAttributes")
        .and_then(|raw| serde_json::from_str(raw.get()).ok())
        .unwrap_or_default();
    let attribute = |raw: &RawValue| {
        let members: Members<'_> = serde_json::from_str(raw.get()).ok()?;
        let data_type: String = member(&members, "dataType")?;
        let value = if data_type.starts_with("Binary") {
            let bytes = base64::decode(member::<String>(&members, "binaryValue")?).ok()?;
            AttributeValue::Bytes(Some(bytes).filter(|bytes| !bytes.is_empty())?)
        } else {
            AttributeValue::Text(member::<String>(&members, "stringValue").filter(|text| !text.is_empty())?)
        };
        Some(Attribute { data_type, value })
    };
    raw.into_iter().filter_map(|(name, raw)| Some((name, attribute(raw)?))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    const NOW_MS: u64 = 1_795_500_000_000;

    fn record(id: &str) -> Value {
        json!({
            "messageId": id,
            "receiptHandle": "handle",
            "body": "{\"task\":\"t\"}",
            "attributes": {
                "ApproximateReceiveCount": "3",
                "SentTimestamp": "1545082649183",
                "SenderId": "s",
                "ApproximateFirstReceiveTimestamp": "1545082649185",
            },
            "messageAttributes": {},
            "md5OfBody": "e4e68fb7bd0e697a0ae8f1bb342846b3",
            "eventSource": "aws:sqs",
            "eventSourceARN": "arn:aws:sqs:us-east-2:123456789012:my-queue",
            "awsRegion": "us-east-2",
        })
    }

    fn message(id: &str) -> Message {
        Message {
            message_id: id.to_owned(),
            receipt_handle: "handle".to_owned(),
            body: "{\"task\":\"t\"}".to_owned(),
            sent_at_ms: 1_545_082_649_183,
            receive_count: 3,
            attributes: Vec::new(),
            group: None,
        }
    }

    #[test]
    fn a_batch_becomes_messages_in_its_order() {
        let event = json!({"Records": [record("b"), record("a")]}).to_string();
        let expected = Batch { messages: vec![message("b"), message("a")], ..Batch::default() };
        assert_eq!(read(&event, NOW_MS), Ok(expected));
        assert_eq!(read(r#"{"Records":[]}"#, NOW_MS), Ok(Batch::default()));
    }

    #[test]
    fn what_is_no_batch_is_refused() {
        for event in [
            "null",
            "5",
            r#""Records""#,
            "[]",
            r#"[{"messageId":"a","body":"b"}]"#,
            "{}",
            r#"{"records":[]}"#,
            r#"{"Records":null}"#,
            "[[]]",
            r#"{"Records":{}}"#,
            r#"{"Records":"none"}"#,
            r#"{"Messages":[{"MessageId":"a","Body":"b"}]}"#,
            "",
            "{",
            &"[".repeat(100_000),
        ] {
            assert!(read(event, NOW_MS).is_err(), "{event}");
        }
    }

    #[test]
    fn one_odd_record_never_fails_its_neighbours() {
        let with = |change: &dyn Fn(&mut Value)| {
            let mut odd = record("odd");
            change(&mut odd);
            odd.to_string()
        };
        let without = |name: &'static str| with(&move |r| drop(r.as_object_mut().unwrap().remove(name)));
        let set = |name: &'static str, value: Value| with(&move |r| r[name] = value.clone());
        let read_as = |change: &dyn Fn(&mut Message)| {
            let mut odd = message("odd");
            change(&mut odd);
            Ok(odd)
        };
        let unreadable = || Err(Some("odd".to_owned()));
        let no_id = || Err(None);
        for (odd, expected) in [
            (without("messageId"), no_id()),
            (set("messageId", json!(7)), no_id()),
            (set("messageId", json!("")), no_id()),
            ("5".to_owned(), no_id()),
            ("null".to_owned(), no_id()),
            ("[]".to_owned(), no_id()),
            ("[".repeat(90) + &"]".repeat(90), no_id()),
            (without("body"), unreadable()),
            (set("body", json!(null)), unreadable()),
            (set("body", json!({"task": "t"})), unreadable()),
            (r#"{"messageId":"odd","body":"\ud800"}"#.to_owned(), unreadable()),
            (r#"{"messageId":"odd","size":1e999}"#.to_owned(), unreadable()),
            (without("receiptHandle"), read_as(&|m| m.receipt_handle = String::new())),
            (
                without("attributes"),
                read_as(&|m| {
                    m.sent_at_ms = NOW_MS;
                    m.receive_count = 1;
                }),
            ),
            (
                set("attributes", json!({"SentTimestamp": 9, "ApproximateReceiveCount": "many"})),
                read_as(&|m| {
                    m.sent_at_ms = 9;
                    m.receive_count = 1;
                }),
            ),
            (
                set("attributes", json!({"SentTimestamp": "-1", "ApproximateReceiveCount": "99999999999"})),
                read_as(&|m| {
                    m.sent_at_ms = NOW_MS;
                    m.receive_count = u32::MAX;
                }),
            ),
            (
                set("attributes", json!({"SentTimestamp": "9", "MessageGroupId": "tenant-1"})),
                read_as(&|m| {
                    m.sent_at_ms = 9;
                    m.receive_count = 1;
                    m.group = Some("tenant-1".to_owned());
                }),
            ),
            (
                set("attributes", json!({"SentTimestamp": "9", "MessageGroupId": ""})),
                read_as(&|m| {
                    m.sent_at_ms = 9;
                    m.receive_count = 1;
                }),
            ),
            (set("messageAttributes", json!("none")), read_as(&|_| ())),
            (set("aFutureMember", json!([1, {"a": null}])), read_as(&|_| ())),
            (set("body", json!("")), read_as(&|m| m.body = String::new())),
        ] {
            let event = format!("{{\"Records\":[{},{odd},{}]}}", record("first"), record("last"));
            let batch = read(&event, NOW_MS).unwrap();
            let (mut messages, mut unreadable_ids, mut without_id) = (vec![message("first")], Vec::new(), 0);
            match expected {
                Ok(message) => messages.push(message),
                Err(Some(id)) => unreadable_ids.push(id),
                Err(None) => without_id = 1,
            }
            messages.push(message("last"));
            assert_eq!(batch, Batch { messages, unreadable_ids, without_id }, "{odd}");
        }
    }

    #[test]
    fn attributes_are_kept_as_sqs_would_take_them_back() {
        let mut odd = record("a");
        odd["messageAttributes"] = json!({
            "Text": {"stringValue": "v", "stringListValues": [], "dataType": "String"},
            "Number": {"stringValue": "100", "binaryValue": "base64Str", "dataType": "Number"},
            "Labelled": {"binaryValue": "MTEwMA==", "dataType": "Binary.png"},
            "Empty": {"stringValue": "", "dataType": "String"},
            "NoValue": {"dataType": "String"},
            "NotBase64": {"binaryValue": "?", "dataType": "Binary"},
            "NoType": {"stringValue": "v"},
            "Foreign": 5,
        });
        let batch = read(&json!({"Records": [odd]}).to_string(), NOW_MS).unwrap();
        let text = |data_type: &str, value: &str| Attribute {
            data_type: data_type.to_owned(),
            value: AttributeValue::Text(value.to_owned()),
        };
        assert_eq!(
            batch.messages[0].attributes,
            [
                (
                    "Labelled".to_owned(),
                    Attribute {
                        data_type: "Binary.png".to_owned(),
                        value: AttributeValue::Bytes(b"1100".to_vec())
                    }
                ),
                ("Number".to_owned(), text("Number", "100")),
                ("Text".to_owned(), text("String", "v")),
            ]
        );
    }

    #[test]
    fn a_body_arrives_byte_for_byte() {
        for body in
            ["", " \n\t", "\u{0}\u{1f}\u{7f}", "ünï 👩‍👩‍👧 \u{202e}rtl", "{\"a\":\"\\ud83d\\ude00\"}", "\"\\"]
        {
            let mut record = record("a");
            record["body"] = json!(body);
            let batch = read(&json!({"Records": [record]}).to_string(), NOW_MS).unwrap();
            assert_eq!(batch.messages[0].body, body);
        }
    }
}
