//! `results delete`: nothing of what was erased stands in the ledger or its queues, and nothing else is gone.

use aws_sdk_sqs::types::MessageAttributeValue;
use nightshift_aws::DynamoLedger;
use nightshift_core::input_hash::InputHash;
use nightshift_core::listing::Lookup;
use nightshift_core::record::State;
use nightshift_ports::LedgerReader as _;
use serde_json::{Value, json};

use crate::support::{LEDGER, Stand, write};

fn body(text: &str) -> String {
    json!({"task": "categorize_ticket", "input": {"text": text}}).to_string()
}

fn key(text: &str) -> InputHash {
    InputHash::of_job("categorize_ticket", &json!({ "text": text }))
}

impl Stand {
    /// Puts the letter of a failure at this version into a queue.
    async fn letter(&self, queue: &str, text: &str, version: u64) {
        let context = format!("{{\"record_version\":{version},\"input_hash\":\"{}\"}}", key(text));
        let context = MessageAttributeValue::builder().data_type("String").string_value(context);
        let sqs = aws_sdk_sqs::Client::new(&self.sdk());
        let request = sqs
            .send_message()
            .queue_url(self.aws.queue_url(&format!("nightshift-{queue}")))
            .message_body(body(text));
        request.message_attributes("FailureContext", context.build().unwrap()).send().await.unwrap();
    }

    async fn bodies(&self, queue: &str) -> Vec<String> {
        let sqs = aws_sdk_sqs::Client::new(&self.sdk());
        let request = sqs
            .receive_message()
            .queue_url(self.aws.queue_url(&format!("nightshift-{queue}")))
            .max_number_of_messages(10);
        let received = request.visibility_timeout(0).send().await.unwrap().messages.unwrap_or_default();
        let mut bodies: Vec<_> = received.into_iter().map(|message| message.body.unwrap()).collect();
        bodies.sort();
        bodies
    }

    async fn stands(&self, text: &str) -> Lookup {
        DynamoLedger::new(&self.sdk(), LEDGER).get(&key(text)).await.unwrap()
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_erased_is_gone_from_ledger_and_queues_and_all_else_stays() {
    let stand = Stand::start().await;
    let folder = tempfile::tempdir().unwrap();
    let job = write(folder.path(), "job.json", &body("theirs"));
    for queue in ["dead-letters", "crashed"] {
        stand.letter(queue, "theirs", 0).await;
        stand.letter(queue, "another's", 0).await;
    }
    let delete = ["results", "delete", "--job", &job, "--reason", "request 12", "--output", "json"];
    let asked = stand.run(&delete);
    assert!(asked.code == 2 && asked.err.contains("backups of the ledger"), "{asked:?}");
    assert!(matches!(stand.stands("theirs").await, Lookup::Absent), "nothing is done without a yes");

    let yes: Vec<&str> = delete.iter().copied().chain(["--yes"]).collect();
    let deleted = stand.run(&yes).ok();
    let shown: Value = serde_json::from_str(deleted.out.lines().next().unwrap()).unwrap();
    assert_eq!(
        (&shown["key"], &shown["messages_deleted"]),
        (&json!(key("theirs")), &json!(2)),
        "{deleted:?}"
    );
    for queue in ["dead-letters", "crashed"] {
        assert_eq!(stand.bodies(queue).await, [body("another's")], "{queue}");
    }
    let tombstone = stand.stands("theirs").await;
    assert_eq!(tombstone.record().unwrap().state, State::Erased);
    let trace = stand.items("trace#");
    assert!(trace.len() == 1 && trace[0]["outcome"] == "1 erased", "{trace:?}");
    assert!(!trace[0].to_string().contains("theirs"), "{trace:?}");

    // What a worker in flight sent since is found by the same command; a letter of a later failure is nobody's business.
    stand.letter("dead-letters", "theirs", 1).await;
    stand.letter("dead-letters", "theirs", 9).await;
    let deleted = stand.run(&yes).ok();
    assert!(deleted.out.contains("\"messages_deleted\":1"), "{deleted:?}");
    assert_eq!(stand.bodies("dead-letters").await.len(), 2);
}
