//! Any event: every record is worked on, handed back or counted, and what is odd about one is no other's.
#![no_main]

use libfuzzer_sys::fuzz_target;
use nightshift_core::message::AttributeValue;
use serde_json::Value;

#[path = "../../../crates/worker-function/src/event.rs"]
#[allow(dead_code, missing_docs)]
mod event;

const NOW_MS: u64 = 1_795_478_400_000;

fuzz_target!(|event: &str| {
    let Ok(batch) = event::read(event, NOW_MS) else { return };
    for message in &batch.messages {
        assert!(!message.message_id.is_empty());
        for (_, attribute) in &message.attributes {
            let empty = match &attribute.value {
                AttributeValue::Text(text) => text.is_empty(),
                AttributeValue::Bytes(bytes) => bytes.is_empty(),
            };
            assert!(!empty, "SQS takes no empty attribute back");
        }
    }
    assert!(batch.unreadable_ids.iter().all(|id| !id.is_empty()));

    // A whole reading of the same text sees the same records and the same bodies.
    let Ok(whole) = serde_json::from_str::<Value>(event) else { return };
    let records = whole["Records"].as_array().expect("a batch has a list of records");
    assert_eq!(records.len(), batch.messages.len() + batch.unreadable_ids.len() + batch.without_id);
    let id = |record: &Value| record["messageId"].as_str().filter(|id| !id.is_empty()).map(str::to_owned);
    let bodies: Vec<(String, String)> = records
        .iter()
        .filter_map(|record| Some((id(record)?, record["body"].as_str()?.to_owned())))
        .collect();
    let read: Vec<(String, String)> =
        batch.messages.iter().map(|message| (message.message_id.clone(), message.body.clone())).collect();
    assert_eq!(read, bodies);
    let unreadable: Vec<String> =
        records.iter().filter(|record| !record["body"].is_string()).filter_map(id).collect();
    assert_eq!(batch.unreadable_ids, unreadable);

    // A neighbour that is nothing at all changes nothing.
    let mut beside = whole.clone();
    beside["Records"].as_array_mut().expect("a list").insert(0, Value::Null);
    let with_neighbour = event::read(&beside.to_string(), NOW_MS).expect("still a batch");
    assert_eq!(with_neighbour.messages, batch.messages);
    assert_eq!(with_neighbour.without_id, batch.without_id + 1);
});
