//! What the queues must do for dead letters and hand-backs.

use std::time::Duration;

use async_trait::async_trait;
use nightshift_core::dead_letter::DeadLetter;
use nightshift_core::message::{ATTRIBUTES_MAX, Attribute, AttributeValue};
use nightshift_ports::{DeadLetters, PortError, PortErrorKind, Visibility};
use tokio::time::Instant;

/// A received message: its handle, body and attributes in the order of their names.
#[derive(Debug, Clone, PartialEq)]
pub struct Received {
    pub handle: String,
    pub body: String,
    pub attributes: Vec<(String, Attribute)>,
    /// How often it was received, with this time.
    pub receive_count: u32,
}

/// The other side of the queues.
#[async_trait]
pub trait Queues: Send + Sync {
    /// Puts a message into the jobs queue.
    async fn send_job(&self, body: &str);
    /// Receives from the jobs queue, waiting up to a time for a message.
    async fn receive_job(&self, wait_s: i32) -> Option<Received>;
    /// Deletes from the jobs queue.
    async fn delete_job(&self, handle: &str);
    /// Receives from the dead-letters queue and deletes.
    async fn take_dead_letter(&self) -> Option<Received>;
}

fn text(data_type: &str, value: &str) -> Attribute {
    Attribute { data_type: data_type.to_owned(), value: AttributeValue::Text(value.to_owned()) }
}

fn letter(body: &str, attributes: Vec<(String, Attribute)>) -> DeadLetter {
    DeadLetter { body: body.to_owned(), attributes, group: Some("tenant-1".to_owned()) }
}

/// A body comes out as it went in, byte for byte.
pub async fn bodies(dead_letters: &dyn DeadLetters, queues: &dyn Queues) {
    let large = format!("{{\"task\":\"t\",\"input\":\"{}\"}}", "x".repeat(900 * 1_024));
    for body in [
        "{\"task\": \"t\", \"input\": {}}",
        " \t\r\n leading and trailing \r\n ",
        "ünï 👩‍👩‍👧 \u{202e}rtl\u{202c} \u{85}\u{2028}\u{d7ff}\u{e000}\u{fffd}\u{10000}\u{10ffff}",
        "\"\\u0000\\ud800\" \\ / & < > ' % + = ?",
        "not JSON at all {",
        &large,
    ] {
        dead_letters.send(&letter(body, Vec::new())).await.unwrap();
        let received = queues.take_dead_letter().await.expect("the dead letter");
        assert_eq!(received.body, body);
        assert_eq!(received.attributes, []);
    }
}

/// Attributes keep their names, types, labels and values; ten of them fit.
pub async fn attributes(dead_letters: &dyn DeadLetters, queues: &dyn Queues) {
    let mut attributes = vec![
        ("FailureContext".to_owned(), text("String", "{\"detail\":\"\\u00fc \\\"quoted\\\" \\n\"}")),
        ("FailureReason".to_owned(), text("String", "invalid_output")),
        ("InputHash".to_owned(), text("String", &"a".repeat(64))),
        (
            "Sender.Binary".to_owned(),
            Attribute {
                data_type: "Binary.png".to_owned(),
                value: AttributeValue::Bytes(vec![0, 1, 127, 128, 255]),
            },
        ),
        ("Sender-Number".to_owned(), text("Number", "12345678901234567890.5")),
        ("Sender_Label".to_owned(), text("String.json", "[1]")),
        ("Sender_Odd".to_owned(), text("String", "ünï 👩‍👩‍👧 \u{202e}rtl \r\n\t")),
    ];
    for n in attributes.len()..ATTRIBUTES_MAX {
        attributes.push((format!("Filler{n}"), text("String", "x")));
    }
    dead_letters.send(&letter("b", attributes.clone())).await.unwrap();
    let mut received = queues.take_dead_letter().await.expect("the dead letter").attributes;
    let by_name = |attributes: &mut Vec<(String, Attribute)>| attributes.sort_by(|(a, _), (b, _)| a.cmp(b));
    by_name(&mut received);
    by_name(&mut attributes);
    assert_eq!(received, attributes);
}

/// What SQS does not take is told, not swallowed. `refuses` says whether this server does what SQS does.
pub async fn letters_that_cannot_be(dead_letters: &dyn DeadLetters, refuses: impl Fn(&str) -> bool) {
    for (what, refused) in [
        ("a control character", letter("a\u{1}b", Vec::new())),
        ("an empty body", letter("", Vec::new())),
        ("more than 1 MiB", letter(&"x".repeat(1_048_577), Vec::new())),
        ("an attribute without a value", letter("b", vec![("A".to_owned(), text("String", ""))])),
    ] {
        check_refusal(what, dead_letters.send(&refused).await, &refuses);
    }
}

fn check_refusal(what: &str, answer: Result<(), PortError>, refuses: impl Fn(&str) -> bool) {
    match answer {
        Err(error) => {
            assert!(refuses(what), "{what}: it is refused after all, so it is no known difference any more");
            assert_eq!(error.kind, PortErrorKind::Refused, "{what}: {error}");
            assert!(error.to_string().len() < 500, "{what}: the message is not quoted");
        }
        Ok(()) => assert!(!refuses(what), "{what}: taken"),
    }
}

/// A message that is handed back comes when it was told to.
pub async fn hand_backs(visibility: &dyn Visibility, queues: &dyn Queues) {
    queues.send_job("handed back").await;
    let first = queues.receive_job(5).await.expect("the job");
    assert_eq!(first.receive_count, 1);
    assert_eq!(queues.receive_job(0).await, None, "it is hidden while it is worked on");

    visibility.change(&first.handle, 0).await.unwrap();
    let second = queues.receive_job(5).await.expect("at once");
    assert_eq!((second.body.as_str(), second.receive_count), ("handed back", 2));

    let changed = Instant::now();
    visibility.change(&second.handle, 2).await.unwrap();
    let mut third = queues.receive_job(0).await;
    if third.is_none() {
        tokio::time::sleep(Duration::from_millis(900)).await;
        third = queues.receive_job(0).await;
    }
    // On a busy machine it may be over by now.
    assert!(third.is_none() || changed.elapsed() >= Duration::from_secs(2), "not before its delay");
    let third = match third {
        Some(third) => third,
        None => queues.receive_job(10).await.expect("after its delay"),
    };
    assert_eq!(third.receive_count, 3, "a receive that finds nothing counts for nothing");
    queues.delete_job(&third.handle).await;
    assert_eq!(queues.receive_job(0).await, None, "it is gone");
}

/// Hand-backs that SQS refuses.
pub async fn hand_backs_that_cannot_be(
    visibility: &dyn Visibility,
    queues: &dyn Queues,
    refuses: impl Fn(&str) -> bool,
) {
    check_refusal("a handle that is none", visibility.change("no such handle", 5).await, &refuses);
    queues.send_job("too long").await;
    let job = queues.receive_job(5).await.expect("the job");
    check_refusal("a delay beyond twelve hours", visibility.change(&job.handle, 43_201).await, &refuses);
}

pub async fn send_one(dead_letters: &dyn DeadLetters) -> Result<(), PortError> {
    dead_letters.send(&letter("b", Vec::new())).await
}
