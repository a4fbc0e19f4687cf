//! What the queues and the documents must do for a redrive.

use std::time::Duration;

use nightshift_core::message::{Attribute, AttributeValue};
use nightshift_core::redrive::Depth;
use nightshift_ports::{
    Document, DocumentAnswer, Documents, JobsQueue, Letter, PortErrorKind, Waiting, WaitingQueue,
};

fn letter(body: &str) -> Letter {
    let text = |value: &str| AttributeValue::Text(value.to_owned());
    let attribute = |data_type: &str, value| Attribute { data_type: data_type.to_owned(), value };
    Letter {
        body: body.to_owned(),
        attributes: vec![
            ("FailureContext".to_owned(), attribute("String", text("{\"record_version\":7}"))),
            ("Sender.Binary".to_owned(), attribute("Binary.png", AttributeValue::Bytes(vec![0, 128, 255]))),
            ("Sender-Number".to_owned(), attribute("Number", text("12345678901234567890.5"))),
        ],
        group: Some("tenant-1".to_owned()),
    }
}

/// All that there is, in as many receives as the server likes.
async fn receive_all(queue: &dyn WaitingQueue, count: usize, hidden_s: u32) -> Vec<Waiting> {
    let mut all = Vec::new();
    for _ in 0..20 {
        all.extend(queue.receive(10, 1, hidden_s).await.unwrap());
        if all.len() >= count {
            break;
        }
    }
    all
}

/// Sent, received, hidden, sent on and deleted: nothing of a message changes on the way.
/// `keeps_groups`: whether this server does what SQS does with a `MessageGroupId`.
pub async fn a_message_goes_through_as_it_is(
    queue: &dyn WaitingQueue,
    send: &dyn JobsQueue,
    keeps_groups: bool,
) {
    let before = queue.depth().await.unwrap();
    assert_eq!(before, Depth { visible: 0, hidden: 0 });
    let large = format!("\"{}\"", "x".repeat(600 * 1_024));
    // Two large ones do not fit into one request.
    let letters: Vec<_> =
        ["one", " \t\r\n two \u{202e}ünï 👩‍👩‍👧", &large, &large].map(letter).into_iter().collect();
    let sent = send.send(&letters.iter().collect::<Vec<_>>()).await.unwrap();
    let ids: Vec<_> = sent.into_iter().map(Result::unwrap).collect();
    assert!(ids.len() == 4 && ids.iter().all(|id| !id.is_empty()), "{ids:?}");
    assert_eq!(queue.depth().await.unwrap().total(), 4);
    let received = receive_all(queue, 4, 60).await;
    assert_eq!(queue.depth().await.unwrap(), Depth { visible: 0, hidden: 4 });
    let mut bodies: Vec<_> = received.iter().map(|message| message.letter.clone()).collect();
    let mut expected = letters.clone();
    bodies.sort_by(|a, b| a.body.cmp(&b.body));
    expected.sort_by(|a, b| a.body.cmp(&b.body));
    for (received, expected) in bodies.iter().zip(&expected) {
        let mut expected = expected.clone();
        expected.attributes.sort_by(|(a, _), (b, _)| a.cmp(b));
        expected.group = expected.group.filter(|_| keeps_groups);
        assert_eq!(received, &expected);
    }
    assert!(received.iter().all(|message| message.sent_at_ms > 1_700_000_000_000));
    let again = send.send(&[&received[0].letter]).await.unwrap();
    assert!(again[0].is_ok(), "what was received can be sent as it is: {again:?}");

    let handles: Vec<_> = received.iter().map(|message| message.receipt_handle.clone()).collect();
    let deleted = queue.delete(&handles).await.unwrap();
    assert!(deleted.iter().all(Result::is_ok), "{deleted:?}");
    // A repeat is harmless; ElasticMQ says that there is no such handle, and SQS nothing.
    queue.delete(&handles).await.unwrap();
    let copy = receive_all(queue, 1, 60).await;
    assert_eq!(copy.len(), 1);
    assert_eq!(copy[0].letter, received[0].letter);
    queue.delete(&[copy[0].receipt_handle.clone()]).await.unwrap();
}

/// What is hidden stays so until then, and what is released is back at once; each for itself.
pub async fn messages_are_hidden_one_by_one(queue: &dyn WaitingQueue, send: &dyn JobsQueue) {
    let letters: Vec<_> = ["a", "b"].map(letter).into_iter().collect();
    send.send(&letters.iter().collect::<Vec<_>>()).await.unwrap();
    let received = receive_all(queue, 2, 4).await;
    let handle = |body: &str| {
        let found = received.iter().find(|message| message.letter.body == body).unwrap();
        found.receipt_handle.clone()
    };
    let changes = [(handle("a"), 40), ("no such handle".to_owned(), 40), (handle("b"), 0)];
    let changed = queue.hide(&changes).await.unwrap();
    assert!(changed[0].is_ok() && changed[2].is_ok(), "{changed:?}");
    assert!(changed[1].is_err(), "{changed:?}");
    tokio::time::sleep(Duration::from_millis(4_500)).await;
    let back = receive_all(queue, 1, 60).await;
    let bodies: Vec<_> = back.iter().map(|message| message.letter.body.as_str()).collect();
    assert_eq!(bodies, ["b"], "the other one is hidden for longer than it was received for");
    queue.delete(&[back[0].receipt_handle.clone(), handle("a")]).await.unwrap();
}

/// What SQS does not take fails alone.
pub async fn a_letter_that_cannot_be_fails_alone(queue: &dyn WaitingQueue, send: &dyn JobsQueue) {
    let (good, bad) = (letter("good"), letter("a\u{1}b"));
    let sent = send.send(&[&good, &bad]).await.unwrap();
    let kinds: Vec<_> = sent.iter().map(|one| one.as_ref().map(drop).map_err(|error| error.kind)).collect();
    // Some servers refuse the whole batch for it, and are asked for each alone.
    assert_eq!(kinds, [Ok(()), Err(PortErrorKind::Refused)]);
    let received = receive_all(queue, 1, 60).await;
    assert_eq!(received.len(), 1);
    for message in received {
        queue.delete(&[message.receipt_handle]).await.unwrap();
    }
}

fn document(version: u64, json: &str) -> Document {
    Document {
        key: "redrive#one".to_owned(),
        version,
        json: json.to_owned(),
        expires_at_s: Some(4_102_444_801),
    }
}

/// A document is written over exactly the version that its writer knows.
pub async fn documents(documents: &dyn Documents) {
    assert_eq!(documents.read("redrive#one").await.unwrap(), None);
    let (first, second) = (document(1, "{\"a\":1}"), document(2, "{\"b\":\"ü\"}"));
    let written = DocumentAnswer::Written;
    assert_eq!(
        documents.write(&second, Some(1)).await.unwrap(),
        DocumentAnswer::Refused(None),
        "there is none"
    );
    assert_eq!(documents.write(&first, None).await.unwrap(), written);
    assert_eq!(documents.read("redrive#one").await.unwrap(), Some(first.clone()));
    assert_eq!(
        documents.write(&first, None).await.unwrap(),
        DocumentAnswer::Refused(Some(first)),
        "a repeat finds itself"
    );
    assert_eq!(documents.write(&second, Some(1)).await.unwrap(), written);
    let third = Document { expires_at_s: None, ..document(3, "{}") };
    assert_eq!(
        documents.write(&third, Some(1)).await.unwrap(),
        DocumentAnswer::Refused(Some(second)),
        "somebody else was faster"
    );
    assert_eq!(documents.write(&third, Some(2)).await.unwrap(), written);
    assert_eq!(documents.read("redrive#one").await.unwrap(), Some(third));
}
