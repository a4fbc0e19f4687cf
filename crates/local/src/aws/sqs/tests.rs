//! Queues over a time of their own.

use super::message::MESSAGE_BYTES_MAX;
use super::*;

const SECOND: i64 = 1000;

fn queues(settings: &[(&str, &str)]) -> Queues {
    let mut queues = Queues::new("eu-central-1", "000000000000");
    queues.create("dead", &BTreeMap::new(), 0).unwrap();
    let settings = settings.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
    queues.create("jobs", &settings, 0).unwrap();
    queues
}

fn text(body: &str) -> Outgoing {
    Outgoing { body: body.to_owned(), delay_s: None, attributes: BTreeMap::new() }
}

fn bodies(received: &[Received]) -> Vec<&str> {
    received.iter().map(|message| message.body.as_str()).collect()
}

#[test]
fn a_received_message_is_hidden_until_its_timeout_and_then_counted_again() {
    let mut queues = queues(&[("VisibilityTimeout", "5")]);
    queues.send("jobs", text("a"), 0).unwrap();

    let first = queues.receive("jobs", 10, None, 10).unwrap();
    assert_eq!((first[0].receive_count, first[0].first_received_ms), (1, 10));
    assert!(queues.receive("jobs", 10, None, 10 + 5 * SECOND - 1).unwrap().is_empty());

    let second = queues.receive("jobs", 10, None, 10 + 5 * SECOND).unwrap();
    assert_eq!((second[0].receive_count, second[0].first_received_ms), (2, 10));
    assert_ne!(first[0].receipt_handle, second[0].receipt_handle);
    assert_eq!(first[0].message_id, second[0].message_id);
}

#[test]
fn a_stale_handle_deletes_nothing_and_changes_nothing() {
    let mut queues = queues(&[("VisibilityTimeout", "1")]);
    queues.send("jobs", text("a"), 0).unwrap();
    let stale = queues.receive("jobs", 1, None, 0).unwrap().remove(0);
    let current = queues.receive("jobs", 1, None, SECOND).unwrap().remove(0);

    queues.delete("jobs", &stale.receipt_handle).unwrap();
    let error = queues.change_visibility("jobs", &stale.receipt_handle, 0, SECOND).unwrap_err();
    assert_eq!(error.code, "InvalidParameterValue");
    assert_eq!(queues.depth("jobs", SECOND).unwrap().in_flight, 1);

    queues.delete("jobs", &current.receipt_handle).unwrap();
    assert_eq!(queues.depth("jobs", SECOND).unwrap().total(), 0);
    queues.delete("jobs", &current.receipt_handle).unwrap();
}

#[test]
fn a_handle_whose_timeout_ran_out_still_deletes_if_nobody_received_since() {
    let mut queues = queues(&[("VisibilityTimeout", "1")]);
    queues.send("jobs", text("a"), 0).unwrap();
    let handle = queues.receive("jobs", 1, None, 0).unwrap().remove(0).receipt_handle;
    assert!(queues.change_visibility("jobs", &handle, 10, 2 * SECOND).is_err());
    queues.delete("jobs", &handle).unwrap();
    assert!(queues.receive("jobs", 1, None, 2 * SECOND).unwrap().is_empty());
}

#[test]
fn visibility_can_be_changed_to_now_and_up_to_twelve_hours_from_the_receipt() {
    let mut queues = queues(&[]);
    queues.send("jobs", text("a"), 0).unwrap();
    let handle = queues.receive("jobs", 1, None, 0).unwrap().remove(0).receipt_handle;
    assert!(queues.change_visibility("jobs", &handle, 43_200, SECOND).is_err());
    queues.change_visibility("jobs", &handle, 43_199, SECOND).unwrap();
    queues.change_visibility("jobs", &handle, 0, SECOND).unwrap();
    assert_eq!(queues.receive("jobs", 1, None, SECOND).unwrap().len(), 1);
}

#[test]
fn a_visibility_of_zero_returns_each_message_once_per_receive() {
    let mut queues = queues(&[]);
    queues.send("jobs", text("a"), 0).unwrap();
    queues.send("jobs", text("b"), 0).unwrap();
    assert_eq!(bodies(&queues.receive("jobs", 10, Some(0), 0).unwrap()), ["a", "b"]);
    assert_eq!(queues.depth("jobs", 0).unwrap().visible, 2);
}

#[test]
fn after_the_last_allowed_receive_a_message_moves_to_the_dead_letter_queue() {
    let policy =
        r#"{"deadLetterTargetArn":"arn:aws:sqs:eu-central-1:000000000000:dead","maxReceiveCount":"2"}"#;
    let mut queues = queues(&[("RedrivePolicy", policy), ("VisibilityTimeout", "1")]);
    let sent = queues.send("jobs", text("a"), 7).unwrap();
    assert_eq!(queues.receive("jobs", 1, None, SECOND).unwrap().len(), 1);
    assert_eq!(queues.receive("jobs", 1, None, 2 * SECOND).unwrap().len(), 1);
    assert!(queues.receive("jobs", 1, None, 3 * SECOND).unwrap().is_empty());

    let dead = queues.receive("dead", 1, None, 3 * SECOND).unwrap().remove(0);
    assert_eq!(dead.message_id, sent.message_id);
    assert_eq!((dead.sent_ms, dead.first_received_ms, dead.receive_count), (7, SECOND, 3));
    assert_eq!(dead.dead_letter_source.as_deref(), Some("arn:aws:sqs:eu-central-1:000000000000:jobs"));
    assert_eq!(queues.depth("jobs", 3 * SECOND).unwrap().total(), 0);
    assert_eq!(queues.sources_of("dead").unwrap(), ["jobs"]);
}

#[test]
fn a_message_stays_when_its_dead_letter_queue_is_gone() {
    let policy =
        r#"{"deadLetterTargetArn":"arn:aws:sqs:eu-central-1:000000000000:dead","maxReceiveCount":1}"#;
    let mut queues = queues(&[("RedrivePolicy", policy), ("VisibilityTimeout", "0")]);
    queues.send("jobs", text("a"), 0).unwrap();
    queues.delete_queue("dead").unwrap();
    queues.receive("jobs", 1, None, 0).unwrap();
    queues.receive("jobs", 1, None, 0).unwrap();
    assert_eq!(queues.depth("jobs", 0).unwrap().total(), 1);
}

#[test]
fn delayed_messages_wait_and_old_messages_expire_even_when_in_flight() {
    let mut queues = queues(&[("MessageRetentionPeriod", "60")]);
    let mut delayed = text("later");
    delayed.delay_s = Some(30);
    queues.send("jobs", delayed, 0).unwrap();
    queues.send("jobs", text("now"), 0).unwrap();
    assert_eq!(bodies(&queues.receive("jobs", 10, Some(600), 0).unwrap()), ["now"]);
    let depth = Depth { visible: 0, in_flight: 1, delayed: 1 };
    assert_eq!(queues.depth("jobs", SECOND).unwrap(), depth);
    assert_eq!(queues.depth("jobs", 60 * SECOND).unwrap().total(), 0);
}

#[test]
fn settings_and_messages_outside_of_the_limits_are_refused() {
    let refused = |attributes: &[(&str, &str)]| {
        let attributes =
            attributes.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
        queues(&[]).create("other", &attributes, 0).unwrap_err().code
    };
    assert_eq!(refused(&[("VisibilityTimeout", "43201")]), "InvalidAttributeValue");
    assert_eq!(refused(&[("RedrivePolicy", r#"{"maxReceiveCount":3}"#)]), "InvalidAttributeValue");
    assert_eq!(
        refused(&[("RedrivePolicy", r#"{"deadLetterTargetArn":"arn:aws:sqs:x:y:z","maxReceiveCount":3}"#)]),
        "InvalidParameterValue"
    );

    let mut queues = queues(&[]);
    assert_eq!(queues.send("jobs", text(""), 0).unwrap_err().code, "MissingParameter");
    assert_eq!(queues.send("jobs", text("a\u{1}"), 0).unwrap_err().code, "InvalidMessageContents");
    assert!(queues.send("jobs", text(&"x".repeat(MESSAGE_BYTES_MAX)), 0).is_ok());
    assert_eq!(
        queues.send("jobs", text(&"x".repeat(MESSAGE_BYTES_MAX + 1)), 0).unwrap_err().code,
        "InvalidParameterValue"
    );
    assert_eq!(queues.send("absent", text("a"), 0).unwrap_err().code, "QueueDoesNotExist");
    assert_eq!(queues.delete("jobs", "nonsense").unwrap_err().code, "ReceiptHandleIsInvalid");
}

#[test]
fn the_digest_of_attributes_is_that_of_aws() {
    // Attributes and digest as AWS answered them, kept in the tests of another SQS server (moto, "test_send_message_with_attributes").
    let attributes = MessageAttributes::from([(
        "timestamp".to_owned(),
        MessageAttribute {
            data_type: "Number".to_owned(),
            value: AttributeValue::Text("1493147359900".to_owned()),
        },
    )]);
    assert_eq!(attributes_md5(&attributes).as_deref(), Some("235c5c510d26fb653d073faed50ae77c"));
    assert_eq!(attributes_md5(&MessageAttributes::new()), None);
}
