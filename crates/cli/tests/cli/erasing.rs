//! `results delete`: nothing of what was erased stands in the ledger or its queues, and nothing else is gone.

use aws_sdk_dynamodb::types::AttributeValue;
use aws_sdk_sqs::types::MessageAttributeValue;
use nightshift_aws::DynamoLedger;
use nightshift_core::failure::FailureReason;
use nightshift_core::input_hash::InputHash;
use nightshift_core::listing::Lookup;
use nightshift_core::record::{Record, State};
use nightshift_ports::LedgerReader as _;
use serde_json::{Value, json};

use crate::reading::{failed, record};
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

#[tokio::test(flavor = "multi_thread")]
async fn what_somebody_else_holds_meanwhile_is_told_and_a_copy_of_it_is_from_before_the_erasure() {
    let stand = Stand::start().await;
    stand.letter("crashed", "theirs", 1).await;
    let sqs = aws_sdk_sqs::Client::new(&stand.sdk());
    let held = sqs.receive_message().queue_url(stand.aws.queue_url("nightshift-crashed"));
    held.visibility_timeout(600).send().await.unwrap();
    let named = key("theirs");
    let delete = ["results", "delete", named.as_str(), "--reason", "r", "--output", "json", "--yes"];
    let deleted = stand.run(&delete);
    assert_eq!(deleted.code, 3, "{deleted:?}");
    assert!(deleted.err.contains("1 message was hidden or taken by somebody else"), "{deleted:?}");
    assert!(deleted.err.contains("run the same command again"), "{deleted:?}");
    // Once before the queues are looked through, and once after.
    let Lookup::Found(standing) = stand.stands("theirs").await else { panic!("no tombstone") };
    let erasure = standing.record.erased.unwrap();
    assert_eq!(erasure.version, 2, "it is put twice: {erasure:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_newer_release_wrote_beside_a_record_is_erased_with_it() {
    let stand = Stand::start().await;
    let key = stand.put(record("theirs", failed(FailureReason::Refused, 9_000))).await;
    let newer = aws_sdk_dynamodb::Client::new(&stand.sdk())
        .update_item()
        .table_name(LEDGER)
        .key("id", AttributeValue::S(key.clone()))
        .update_expression("SET output_v2 = :text")
        .expression_attribute_values(":text", AttributeValue::S("what theirs says".to_owned()));
    newer.send().await.unwrap();
    let deleted = stand.run(&["results", "delete", &key, "--reason", "r", "--yes"]).ok();
    assert!(!deleted.err.contains("No record stood"), "{deleted:?}");
    let stands = stand.items(&key);
    assert!(stands[0]["state"] == "erased" && stands[0].get("output_v2").is_none(), "{stands:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_erasure_of_what_nobody_has_says_that_nothing_stood_there() {
    let stand = Stand::start().await;
    let unknown = key("nobody's");
    let delete = ["results", "delete", unknown.as_str(), "--reason", "r", "--yes"];
    let deleted = stand.run(&delete).ok();
    assert!(deleted.err.contains(&format!("No record stood under {unknown}")), "{deleted:?}");
    assert_eq!(stand.stands("nobody's").await.record().unwrap().state, State::Erased);
    let again = stand.run(&delete).ok();
    assert!(!again.err.contains("No record stood"), "its tombstone stood: {again:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_erasure_by_reference_can_be_repeated() {
    let stand = Stand::start().await;
    let failed = failed(FailureReason::Refused, 9_000);
    stand.put(Record { reference: Some("customer 7".to_owned()), ..record("theirs", failed) }).await;
    let delete = [
        "results",
        "delete",
        "--reference",
        "customer 7",
        "--reason",
        "request 12",
        "--output",
        "json",
        "--yes",
    ];
    let first = stand.run(&delete).ok();
    assert!(first.out.contains(&key("theirs").to_string()), "{first:?}");
    assert!(first.out.contains("\"messages_deleted\":0"), "{first:?}");

    // A worker that had failed it sends its letter after the walk; and the tombstone has no reference.
    stand.letter("dead-letters", "theirs", 1).await;
    stand.letter("dead-letters", "another's", 1).await;
    let second = stand.run(&delete).ok();
    assert!(second.out.contains("\"messages_deleted\":1"), "{second:?}");
    assert!(second.err.contains("what was erased before"), "{second:?}");
    assert_eq!(stand.bodies("dead-letters").await, [body("another's")]);
    // Nothing is left of it, and a reference that was never there is still unknown.
    assert_eq!(stand.run(&delete).ok().out, "");
    let fresh = Stand::start().await;
    assert_eq!(fresh.run(&delete).code, 5);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_too_large_for_the_worker_is_erased_as_it_keyed_it() {
    let stand = Stand::start().await;
    let folder = tempfile::tempdir().unwrap();
    let job = write(folder.path(), "job.json", &body("theirs"));
    stand.set("NIGHTSHIFT_BODY_BYTES_MAX", "20");
    // The worker took it for no job.
    let by_body = InputHash::of_body(&body("theirs"));
    stand.letter("dead-letters", "theirs", 1).await;
    let by_key = ["results", "delete", by_body.as_str(), "--reason", "r", "--output", "json", "--yes"];
    let deleted = stand.run(&by_key).ok();
    assert!(deleted.out.contains("\"messages_deleted\":1"), "{deleted:?}");

    stand.letter("dead-letters", "theirs", 1).await;
    let by_job = ["results", "delete", "--job", &job, "--reason", "r", "--output", "json", "--yes"];
    let deleted = stand.run(&by_job).ok();
    assert_eq!(deleted.out.matches("\"erased_at\"").count(), 2, "both records that it can have: {deleted:?}");
    assert_eq!(stand.bodies("dead-letters").await, [""; 0]);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_erasure_is_dated_by_the_clock_of_aws() {
    let stand = Stand::start().await;
    stand.date("Thu, 26 Nov 2020 10:00:00 GMT");
    let delete = ["results", "delete", key("theirs").as_str(), "--reason", "r", "--yes"].map(str::to_owned);
    stand.run(&delete.each_ref().map(String::as_str)).ok();
    let erased = stand.stands("theirs").await.record().unwrap().erased.unwrap();
    // Six years after that by this machine's.
    assert!(erased.at_ms.abs_diff(1_606_384_800_000) < 60_000, "{erased:?}");
}
