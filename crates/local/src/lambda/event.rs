//! The event that Lambda makes of SQS messages, and what it makes of the answer.

use std::collections::BTreeMap;

use aws_sdk_sqs::types::{Message, MessageAttributeValue};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use bytes::Bytes;
use serde::Deserialize;
use serde_json::{Map, Value, json};

/// A record's share of the payload beside its body, roughly: ids, handle, attributes.
const RECORD_OVERHEAD_BYTES: usize = 1024;

/// The bytes that a message adds to the payload, roughly.
pub(super) fn record_bytes(message: &Message) -> usize {
    message.body().map_or(0, str::len) + RECORD_OVERHEAD_BYTES
}

/// The event for a batch (Developer Guide, "Using Lambda with Amazon SQS", example event).
pub(super) fn sqs_event(batch: &[Message], queue_arn: &str, region: &str) -> Bytes {
    // The region stands in the ARN; servers that put something else there get the one that requests are signed for.
    let arn_region = queue_arn.split(':').nth(3).unwrap_or_default();
    let region = if arn_region.contains('-') { arn_region } else { region };
    let records: Vec<Value> = batch.iter().map(|message| record(message, queue_arn, region)).collect();
    Bytes::from(json!({ "Records": records }).to_string())
}

fn record(message: &Message, queue_arn: &str, region: &str) -> Value {
    let attributes: BTreeMap<&str, &str> = message
        .attributes()
        .into_iter()
        .flatten()
        .map(|(name, value)| (name.as_str(), value.as_str()))
        .collect();
    let message_attributes: Map<String, Value> = message
        .message_attributes()
        .into_iter()
        .flatten()
        .map(|(name, value)| (name.clone(), message_attribute(value)))
        .collect();
    let mut record = json!({
        "messageId": message.message_id(),
        "receiptHandle": message.receipt_handle(),
        "body": message.body(),
        "attributes": attributes,
        "messageAttributes": message_attributes,
        "md5OfBody": message.md5_of_body(),
        "eventSource": "aws:sqs",
        "eventSourceARN": queue_arn,
        "awsRegion": region,
    });
    if let (Some(md5), Some(record)) = (message.md5_of_message_attributes(), record.as_object_mut()) {
        record.insert("md5OfMessageAttributes".to_owned(), md5.into());
    }
    record
}

fn message_attribute(value: &MessageAttributeValue) -> Value {
    let mut attribute = json!({
        "stringListValues": [],
        "binaryListValues": [],
        "dataType": value.data_type(),
    });
    if let Some(members) = attribute.as_object_mut() {
        if let Some(text) = value.string_value() {
            members.insert("stringValue".to_owned(), text.into());
        }
        if let Some(binary) = value.binary_value() {
            members.insert("binaryValue".to_owned(), BASE64.encode(binary).into());
        }
    }
    attribute
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Answer {
    batch_item_failures: Option<Vec<ItemFailure>>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct ItemFailure {
    item_identifier: String,
}

/// The ids of the records that failed; `Err` for what Lambda treats as a complete failure.
///
/// Nothing, `null`, an empty object and an empty or absent list are a complete success; invalid JSON, another shape, an empty or unknown identifier are a complete failure (Developer Guide, "Handling errors for an SQS event source in Lambda").
pub(super) fn failures(body: &[u8], batch: &[Message]) -> Result<Vec<String>, String> {
    if body.is_empty() {
        return Ok(Vec::new());
    }
    let answer: Option<Answer> = serde_json::from_slice(body).map_err(|error| error.to_string())?;
    let listed = answer.and_then(|answer| answer.batch_item_failures).unwrap_or_default();
    let mut failures = Vec::new();
    for failure in listed {
        let id = failure.item_identifier;
        if !batch.iter().any(|message| message.message_id() == Some(id.as_str())) {
            return Err(format!("'{id}' is not the id of a record of this batch"));
        }
        if !failures.contains(&id) {
            failures.push(id);
        }
    }
    Ok(failures)
}

#[cfg(test)]
mod tests {
    use super::*;
    use aws_sdk_sqs::types::MessageSystemAttributeName;

    fn batch() -> Vec<Message> {
        ["a", "b"].map(|id| Message::builder().message_id(id).build()).to_vec()
    }

    #[test]
    fn answers_are_judged_as_lambda_judges_them() {
        let failed = |ids: &[&str]| Ok(ids.iter().map(|id| (*id).to_owned()).collect::<Vec<_>>());
        for (answer, expected) in [
            ("", failed(&[])),
            ("null", failed(&[])),
            ("{}", failed(&[])),
            (r#"{"batchItemFailures":null}"#, failed(&[])),
            (r#"{"batchItemFailures":[]}"#, failed(&[])),
            (r#"{"batchItemFailures":[{"itemIdentifier":"b"}]}"#, failed(&["b"])),
            (r#"{"batchItemFailures":[{"itemIdentifier":"b"},{"itemIdentifier":"b"}]}"#, failed(&["b"])),
        ] {
            assert_eq!(failures(answer.as_bytes(), &batch()), expected, "{answer}");
        }
        for answer in [
            "{",
            "\"fine\"",
            r#"{"batchItemFailures":[{"itemIdentifier":""}]}"#,
            r#"{"batchItemFailures":[{"itemIdentifier":null}]}"#,
            r#"{"batchItemFailures":[{"itemIdentifier":"c"}]}"#,
            r#"{"batchItemFailures":[{"id":"a"}]}"#,
            r#"{"batchItemFailures":["a"]}"#,
        ] {
            assert!(failures(answer.as_bytes(), &batch()).is_err(), "{answer}");
        }
    }

    #[test]
    fn an_event_has_the_shape_of_a_recorded_one() {
        let message = Message::builder()
            .message_id("db37cc61")
            .receipt_handle("AQEB")
            .body("hello world")
            .md5_of_body("6a204bd89f3c8348afd5c77c717a097a")
            .md5_of_message_attributes("582c92c5")
            .attributes(MessageSystemAttributeName::ApproximateReceiveCount, "2")
            .message_attributes(
                "Origin",
                MessageAttributeValue::builder().data_type("String").string_value("mail").build().unwrap(),
            )
            .message_attributes(
                "Raw",
                MessageAttributeValue::builder()
                    .data_type("Binary")
                    .binary_value(aws_sdk_sqs::primitives::Blob::new([49, 49, 48, 48]))
                    .build()
                    .unwrap(),
            )
            .build();
        let event = sqs_event(&[message], "arn:aws:sqs:eu-central-1:123456789012:jobs", "us-east-1");
        let event: Value = serde_json::from_slice(&event).unwrap();
        assert_eq!(
            event,
            json!({ "Records": [{
                "messageId": "db37cc61",
                "receiptHandle": "AQEB",
                "body": "hello world",
                "attributes": { "ApproximateReceiveCount": "2" },
                "messageAttributes": {
                    "Origin": { "stringValue": "mail", "stringListValues": [], "binaryListValues": [], "dataType": "String" },
                    "Raw": { "binaryValue": "MTEwMA==", "stringListValues": [], "binaryListValues": [], "dataType": "Binary" },
                },
                "md5OfBody": "6a204bd89f3c8348afd5c77c717a097a",
                "md5OfMessageAttributes": "582c92c5",
                "eventSource": "aws:sqs",
                "eventSourceARN": "arn:aws:sqs:eu-central-1:123456789012:jobs",
                "awsRegion": "eu-central-1",
            }] })
        );
        let elsewhere = sqs_event(&batch(), "arn:aws:sqs:elasticmq:000000000000:jobs", "eu-west-1");
        let elsewhere: Value = serde_json::from_slice(&elsewhere).unwrap();
        assert_eq!(elsewhere["Records"][0]["awsRegion"], "eu-west-1");
    }
}
