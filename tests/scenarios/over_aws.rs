//! The batch and idempotency scenarios once more, with SQS's and DynamoDB's protocols in between: the function's own
//! handler and the real AWS adapters, before the project's stand-in for AWS.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use aws_credential_types::Credentials;
use aws_sdk_dynamodb::types::AttributeValue;
use aws_sdk_sqs::types::MessageSystemAttributeName;
use nightshift_aws::clients::{Region, SdkConfig, TimeoutConfig, loader};
use nightshift_aws::ledger::table;
use nightshift_aws::system::log_line;
use nightshift_aws::{
    CloudWatchMetrics, DynamoLedger, OsEntropy, SqsDeadLetters, SqsVisibility, SystemClock,
};
use nightshift_core::cost::Price;
use nightshift_core::failure::FailureReason;
use nightshift_core::input_hash::InputHash;
use nightshift_core::limits::Limits;
use nightshift_core::metric::{HandBackCause, Outcome};
use nightshift_core::spread::Spread;
use nightshift_local::aws::LocalAws;
use nightshift_ports::{Clock as _, Entropy as _};
use nightshift_shell::runtime::Handler as _;
use nightshift_tests::memory::{START_MS, Says, World, message};
use nightshift_tests::records;
use nightshift_worker::paid_call::PaidModel;
use nightshift_worker::{Deployment, Message, Ports, Worker};
use nightshift_worker_function::handler::BatchHandler;
use serde_json::{Value, json};

use crate::stage::{FAILS, TIMEOUT_MS, by_text, good, key, ticket, world};

const REGION: &str = "eu-west-1";
const LEDGER: &str = "scenarios-ledger";

struct Account {
    aws: LocalAws,
    sdk: SdkConfig,
    sqs: aws_sdk_sqs::Client,
    dynamodb: aws_sdk_dynamodb::Client,
    jobs_url: String,
    letters_url: String,
}

impl Account {
    async fn open() -> Self {
        let aws = LocalAws::start(REGION).await.unwrap();
        let sdk = loader()
            .endpoint_url(aws.endpoint_url())
            .region(Region::new(REGION))
            .credentials_provider(Credentials::from_keys("local", "local", None))
            // A busy machine takes its time; the function's own limits have tests of their own.
            .timeout_config(TimeoutConfig::builder().operation_timeout(Duration::from_secs(30)).build())
            .load()
            .await;
        let sqs = aws_sdk_sqs::Client::new(&sdk);
        let dynamodb = aws_sdk_dynamodb::Client::new(&sdk);
        let mut urls = Vec::new();
        for name in ["scenarios-jobs", "scenarios-dead-letters"] {
            urls.extend(sqs.create_queue().queue_name(name).send().await.unwrap().queue_url);
        }
        table::create(&dynamodb, LEDGER).await.unwrap();
        let [jobs_url, letters_url] = urls.try_into().unwrap();
        Self { aws, sdk, sqs, dynamodb, jobs_url, letters_url }
    }

    /// A fresh environment of the function; the model is the world's.
    fn environment(&self, world: &Arc<World>) -> BatchHandler {
        let ports = Ports {
            ledger: Arc::new(DynamoLedger::new(&self.sdk, LEDGER)),
            dead_letters: Arc::new(SqsDeadLetters::new(&self.sdk, &self.letters_url)),
            visibility: Arc::new(SqsVisibility::new(&self.sdk, &self.jobs_url)),
            model: PaidModel::new(world.clone()),
            metrics: Arc::new(CloudWatchMetrics::new(&self.sdk, Box::new(log_line))),
            clock: Arc::new(SystemClock),
            entropy: Arc::new(OsEntropy),
        };
        let deployment = Deployment {
            stack: "scenarios".to_owned(),
            model: "model-1".to_owned(),
            price: Price::flat(1_000_000, 5_000_000),
            // Real time passes here.
            spread: Spread::default(),
            limits: Limits {
                backoff_base_ms: 1,
                backoff_ms_max: 5,
                hand_back_base_ms: 1_000,
                hand_back_ms_max: 1_000,
                ..Limits::default()
            },
            built_at_ms: 0,
            function_version: 0,
        };
        let worker = Worker::new(ports, Box::new(nightshift_tasks::registry()), deployment);
        BatchHandler::new(worker, Arc::new(SystemClock), None)
    }

    async fn send(&self, body: &str) -> String {
        let sent = self.sqs.send_message().queue_url(&self.jobs_url).message_body(body).send().await.unwrap();
        sent.message_id.unwrap()
    }

    /// What Lambda's poller hands to the function: all that is visible, up to ten, waiting a little for it.
    async fn receive(&self) -> Vec<Value> {
        let request = self.sqs.receive_message().queue_url(&self.jobs_url).max_number_of_messages(10);
        let request = request
            .message_system_attribute_names(MessageSystemAttributeName::All)
            .message_attribute_names("All")
            .visibility_timeout(1_800);
        let received = request.send().await.unwrap().messages.unwrap_or_default();
        let record = |message: aws_sdk_sqs::types::Message| {
            let attributes: HashMap<_, _> = message
                .attributes
                .unwrap_or_default()
                .into_iter()
                .map(|(name, value)| (name.as_str().to_owned(), value))
                .collect();
            json!({
                "messageId": message.message_id, "receiptHandle": message.receipt_handle,
                "body": message.body, "attributes": attributes, "messageAttributes": {},
                "eventSource": "aws:sqs",
            })
        };
        received.into_iter().map(record).collect()
    }

    /// One invocation; what is not reported is deleted, as Lambda does. Returns the reported ids.
    async fn invoke(&self, environment: &BatchHandler, records: Vec<Value>) -> Vec<String> {
        let event = json!({"Records": records}).to_string();
        let deadline_ms = SystemClock.now_ms() + TIMEOUT_MS;
        // Each invocation has an id of its own: the day's spend counts the same change twice as one.
        let request_id = OsEntropy.token();
        let response = environment.handle(&request_id, deadline_ms, &event).await.unwrap();
        let response = serde_json::to_value(response).unwrap();
        let reported: Vec<String> = response["batchItemFailures"]
            .as_array()
            .unwrap()
            .iter()
            .map(|failure| failure["itemIdentifier"].as_str().unwrap().to_owned())
            .collect();
        for record in records {
            if !reported.iter().any(|id| record["messageId"] == *id) {
                let delete = self.sqs.delete_message().queue_url(&self.jobs_url);
                delete.receipt_handle(record["receiptHandle"].as_str().unwrap()).send().await.unwrap();
            }
        }
        reported
    }

    /// Receives until something is visible again.
    async fn receive_again(&self) -> Vec<Value> {
        for _ in 0..100 {
            let records = self.receive().await;
            if !records.is_empty() {
                return records;
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        panic!("nothing came back in ten seconds")
    }

    async fn item(&self, key: &InputHash) -> HashMap<String, AttributeValue> {
        let get = self.dynamodb.get_item().table_name(LEDGER).consistent_read(true);
        let item = get.key("id", AttributeValue::S(key.to_string())).send().await.unwrap().item;
        item.unwrap_or_else(|| panic!("no record of {key}"))
    }
}

#[tokio::test]
async fn b1_b2_b4_b6_b7_i14_i17_each_record_of_a_batch_is_settled_for_itself() {
    let account = Account::open().await;
    let world = world(by_text);
    let environment = account.environment(&world);
    let failing = format!("four {FAILS}");
    let sns = json!({"Type": "Notification", "Message": ticket("inside")}).to_string();
    account.send(&ticket("one")).await;
    account.send(&ticket("two")).await;
    account.send("{ \"input\":{\"text\":\"one\"},\"task\":\"categorize_ticket\" }").await;
    account.send(&sns).await;
    account.send(&json!({"task": "categorize_ticket", "input": {"text": 7}}).to_string()).await;
    let failing_id = account.send(&ticket(&failing)).await;
    let records = account.receive().await;
    assert_eq!(records.len(), 6);
    assert_eq!(account.invoke(&environment, records).await, [failing_id.as_str()]);
    assert_eq!(world.calls().len(), 2 + 5, "two inputs, and five calls that failed");
    let letters: Vec<_> =
        account.aws.messages("scenarios-dead-letters").into_iter().map(|letter| letter.body).collect();
    assert_eq!(letters.len(), 2);
    assert!(letters.contains(&sns), "byte for byte");
    // What failed comes back by itself, and is stored when the model is well.
    world.on_call(|_, _| good());
    let records = account.receive_again().await;
    assert_eq!(records.len(), 1);
    assert_eq!(records[0]["messageId"], failing_id);
    assert_eq!(account.invoke(&environment, records).await, [""; 0]);
    assert_eq!(world.calls().len(), 1);
    for text in ["one", "two", failing.as_str()] {
        let item = account.item(&key(text)).await;
        assert!(item.values().any(|value| value.as_s().is_ok_and(|s| s == "done")), "{text}: {item:?}");
    }
    assert_eq!(account.aws.depth("scenarios-jobs").unwrap().total(), 0);
}

#[tokio::test]
async fn i1_i2_a_completed_input_took_two_writes_and_takes_no_call_again() {
    let account = Account::open().await;
    let world = world(by_text);
    account.send(&ticket("one")).await;
    let records = account.receive().await;
    assert_eq!(account.invoke(&account.environment(&world), records.clone()).await, [""; 0]);
    let requests = account.aws.requests();
    let writes = requests.get("DynamoDB.UpdateItem");
    assert_eq!(writes, Some(&4), "money taken, the claim, the result, money given back: {requests:?}");
    let item = account.item(&key("one")).await;
    // The acknowledgement was lost, and later the same is sent once more; each to a fresh environment.
    assert_eq!(account.invoke(&account.environment(&world), records).await, [""; 0]);
    assert_eq!(account.item(&key("one")).await, item, "a redelivery changes nothing");
    account.send(&ticket("one")).await;
    let records = account.receive().await;
    assert_eq!(account.invoke(&account.environment(&world), records).await, [""; 0]);
    assert_eq!(world.calls().len(), 1);
    let after = account.item(&key("one")).await;
    let changed: Vec<_> = after.iter().filter(|(name, value)| item.get(*name) != Some(value)).collect();
    assert!(
        changed.iter().all(|(name, _)| name.contains("duplicate")),
        "only the count of duplicates changes: {changed:?}"
    );
}

#[tokio::test]
async fn i5_two_parallel_invocations_of_one_input_make_one_call() {
    let account = Account::open().await;
    let world = world(|_, _| Says::After(Duration::from_millis(700), Box::new(good())));
    let (first, second) = (account.environment(&world), account.environment(&world));
    account.send(&ticket("one")).await;
    account.send(&ticket("one")).await;
    let mut records = account.receive().await;
    assert_eq!(records.len(), 2);
    let (a, b) = (records.remove(0), records.remove(0));
    let (a, b) = tokio::join!(account.invoke(&first, vec![a]), account.invoke(&second, vec![b]));
    assert_eq!(a.len() + b.len(), 1, "one is reported: {a:?} {b:?}");
    assert_eq!(world.calls().len(), 1);
    assert_eq!(
        account.aws.depth("scenarios-jobs").unwrap().total(),
        1,
        "and comes back when the lease has ended"
    );
}

/// What the worker makes of each record that an earlier release wrote: when its own message comes back, and when the
/// same is asked for once more.
#[tokio::test]
async fn every_record_of_an_earlier_release_is_worked_on_as_what_it_is() {
    let account = Account::open().await;
    let world = world(by_text);
    let ports = Ports {
        ledger: Arc::new(DynamoLedger::new(&account.sdk, LEDGER)),
        dead_letters: world.clone(),
        visibility: world.clone(),
        model: PaidModel::new(world.clone()),
        metrics: world.clone(),
        // The records are of the hours before its first moment.
        clock: world.clone(),
        entropy: Arc::new(OsEntropy),
    };
    let deployment = Deployment {
        stack: "scenarios".to_owned(),
        model: "model-1".to_owned(),
        price: Price::flat(1_000_000, 5_000_000),
        spread: Spread::default(),
        limits: Limits::default(),
        built_at_ms: START_MS,
        function_version: 8,
    };
    let worker = Worker::new(ports, Box::new(nightshift_tasks::registry()), deployment);
    let mut seen = 0;
    for (name, mut item) in records::released() {
        item.extend(records::unknown());
        let put = account.dynamodb.put_item().table_name(LEDGER).set_item(Some(item.clone()));
        put.send().await.unwrap();
        let body = if name.contains("unparsed") { name.clone() } else { ticket(&name) };
        let sent_at_ms = item["sent_at_ms"].as_n().unwrap().parse().unwrap();
        let of_record = item["message_id"].as_s().unwrap();
        let back = Message { sent_at_ms, receive_count: 2, ..message(&world, of_record, body.clone()) };
        let once_more = message(&world, &format!("{of_record}-new"), body);
        let failed = |reason: &str| {
            FailureReason::ALL
                .iter()
                .copied()
                .find(|r| r.as_str() == reason)
                .map(Outcome::DeadLettered)
                .unwrap()
        };
        let reason = item.get("reason").map(|reason| failed(reason.as_s().unwrap()));
        let (first, second) = match (name.split('-').next().unwrap(), reason) {
            ("claimed", _) if name == "claimed" => {
                let held = Outcome::HandedBack(HandBackCause::HeldByOther);
                (held, held)
            }
            ("open" | "claimed", _) => (Outcome::Succeeded, Outcome::Duplicate),
            // What is deployed is newer than what made it, unless a person has looked at it.
            ("done", _) if ["done-reviewed", "done-decided"].contains(&name.as_str()) => {
                (Outcome::Duplicate, Outcome::Duplicate)
            }
            ("done", _) => (Outcome::Duplicate, Outcome::Succeeded),
            ("erased", _) => (Outcome::Duplicate, Outcome::Succeeded),
            ("failed", Some(reason)) if name.contains("unparsed") => (reason, reason),
            ("failed", Some(reason)) => (reason, Outcome::Succeeded),
            other => panic!("{other:?}"),
        };
        for (message, outcome) in [(back, first), (once_more, second)] {
            // An id of its own, as above.
            let report = worker.process_batch(&OsEntropy.token(), TIMEOUT_MS, vec![message.clone()]).await;
            assert_eq!(report.outcomes, [outcome], "{name}, by message {}", message.message_id);
        }
        let key = InputHash::from_stored(item["id"].as_s().unwrap().clone());
        let stands = account.item(&key).await;
        for (attribute, value) in records::unknown() {
            assert_eq!(stands.get(&attribute), Some(&value), "{name}: {attribute}");
        }
        seen += 1;
    }
    assert!(seen >= 30, "{seen} records");
}
