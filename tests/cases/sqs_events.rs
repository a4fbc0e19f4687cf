//! Events as Lambda delivers them, and as it should not, through the function's own handler.

use std::path::Path;
use std::sync::Arc;

use nightshift_core::limits::Limits;
use nightshift_shell::runtime::Handler as _;
use nightshift_tests::cases;
use nightshift_tests::memory::{Says, World};
use nightshift_worker_function::handler::{BatchHandler, InvocationError};
use serde_json::{Value, json};

/// What the handler answered, and the world it left.
struct Handled {
    answer: Result<Vec<String>, InvocationError>,
    world: Arc<World>,
}

impl Handled {
    fn letter_bodies(&self) -> Vec<String> {
        self.world.letters().into_iter().map(|letter| letter.body).collect()
    }
}

async fn handle(event: &str) -> Handled {
    let world = World::new(|_, _| Says::Text(nightshift_tests::ticket_answer().to_string()));
    let handler = BatchHandler::new(world.worker(Limits::default()), world.clone(), None);
    let deadline_ms = nightshift_tests::memory::START_MS + 300_000;
    let answer = handler.handle("request-1", deadline_ms, event).await.map(|response| {
        let answer = serde_json::to_value(&response).unwrap();
        let failures = answer["batchItemFailures"].as_array().unwrap().clone();
        failures.iter().map(|failure| failure["itemIdentifier"].as_str().unwrap().to_owned()).collect()
    });
    Handled { answer, world }
}

fn records(event: &str) -> Vec<Value> {
    let event: Value = serde_json::from_str(event).unwrap();
    event.get("Records").and_then(Value::as_array).cloned().unwrap_or_default()
}

/// Envelopes that are no SQS batch, though their names say so.
const NOT_A_BATCH: [&str; 4] = [
    "example-sqs-api-event-obj.json",
    "example-sqs-batch-response.json",
    "getting_started_sqs_response.json",
    "kinesisFirehoseSQSEvent.json",
];

fn events(folder: &Path) -> Vec<(String, String)> {
    let mut events = Vec::new();
    for source in ["powertools", "rust_runtime"] {
        for (name, bytes) in cases::files(&folder.join(source)) {
            if name.ends_with(".json") {
                events.push((name, String::from_utf8(bytes).unwrap()));
            }
        }
    }
    assert_eq!(events.len(), 15);
    events
}

#[tokio::test(start_paused = true)]
async fn foreign_bodies_are_explained_one_by_one_and_no_model_is_called() {
    let Some(folder) = cases::folder("sqs_events") else { return };
    for (name, event) in events(&folder) {
        let handled = handle(&event).await;
        assert_eq!(handled.world.calls().len(), 0, "{name}");
        if NOT_A_BATCH.contains(&name.as_str()) {
            assert!(
                matches!(handled.answer, Err(InvocationError::NotABatch(_))),
                "{name}: {:?}",
                handled.answer
            );
            continue;
        }
        let records = records(&event);
        assert!(!records.is_empty(), "{name}");
        let reported = handled.answer.as_ref().unwrap_or_else(|error| panic!("{name}: {error}")).clone();
        let letters = handled.letter_bodies();
        for record in &records {
            let (id, body) = (record["messageId"].as_str().unwrap(), record["body"].as_str().unwrap());
            let explained = letters.iter().filter(|letter| *letter == body).count();
            assert!(explained > 0 || reported.iter().any(|r| r == id), "{name}: {id} is lost");
        }
        assert_eq!(letters.len() + reported.len(), records.len(), "{name}: each record is settled once");
        assert!(handled.world.stored().is_empty(), "{name}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_foreign_record_never_fails_a_good_neighbour() {
    let Some(folder) = cases::folder("sqs_events") else { return };
    for (name, event) in events(&folder) {
        let mut batch = records(&event);
        let foreign = batch.len();
        let mut good = json!({
            "messageId": "good-1",
            "receiptHandle": "handle-good",
            "body": json!({"task": "categorize_ticket", "input": {"text": name}}).to_string(),
            "attributes": {"ApproximateReceiveCount": "1", "SentTimestamp": "1767225600000"},
            "messageAttributes": {},
            "eventSource": "aws:sqs",
        });
        batch.insert(foreign / 2, good.clone());
        good["messageId"] = json!("good-2");
        batch.push(good);
        let handled = handle(&json!({"Records": batch}).to_string()).await;
        let reported = handled.answer.unwrap_or_else(|error| panic!("{name}: {error}"));
        assert!(!reported.iter().any(|id| id.starts_with("good")), "{name}: {reported:?}");
        assert_eq!(handled.world.stored().len(), 1, "{name}");
        assert_eq!(handled.world.calls().len(), 1, "{name}: the two good ones are one input");
    }
}
