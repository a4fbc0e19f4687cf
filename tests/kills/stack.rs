//! The queues and the table, on servers that outlive every process of the function.

use std::collections::HashMap;

use aws_credential_types::Credentials;
use aws_credential_types::provider::SharedCredentialsProvider;
use aws_sdk_dynamodb::types::AttributeValue;
use aws_sdk_sqs::types::{Message, QueueAttributeName, SendMessageBatchRequestEntry};
use nightshift_aws::clients::{self, Region};
use nightshift_aws::ledger::table;

/// The region that every request is signed for.
pub const REGION: &str = "eu-west-1";
/// Receives after which SQS would give up on a message.
pub const MAX_RECEIVE_COUNT: u32 = 100;

const LEDGER: &str = "kills-ledger";

/// An item as DynamoDB returns it.
pub type Item = HashMap<String, AttributeValue>;

/// Where the servers are.
#[derive(Debug, Clone)]
pub struct Endpoints {
    pub sqs: String,
    pub dynamodb: String,
    pub cloudwatch: String,
}

/// The stack, seen by its operators.
#[derive(Debug, Clone)]
pub struct Stack {
    sqs: aws_sdk_sqs::Client,
    dynamodb: aws_sdk_dynamodb::Client,
    pub endpoints: Endpoints,
    pub jobs_url: String,
    pub dead_letters_url: String,
    pub crashed_url: String,
}

impl Stack {
    /// Makes the queues and the table.
    pub async fn create(endpoints: Endpoints, visibility_s: u64) -> Self {
        let sdk = |url: String| async move {
            clients::loader()
                .endpoint_url(url)
                .region(Region::new(REGION))
                // DynamoDB Local keeps the tables of each key apart: this is the one that the function is given.
                .credentials_provider(SharedCredentialsProvider::new(Credentials::from_keys(
                    "local", "local", None,
                )))
                // The function's own timeouts are for a busy account, not for a JVM that starts beside a compiler.
                .timeout_config(
                    clients::TimeoutConfig::builder()
                        .operation_timeout(std::time::Duration::from_secs(30))
                        .build(),
                )
                .load()
                .await
        };
        let sqs = aws_sdk_sqs::Client::new(&sdk(endpoints.sqs.clone()).await);
        let dynamodb = aws_sdk_dynamodb::Client::new(&sdk(endpoints.dynamodb.clone()).await);
        let crashed_url = create_queue(&sqs, "kills-crashed", HashMap::new()).await;
        let dead_letters_url = create_queue(&sqs, "kills-dead-letters", HashMap::new()).await;
        let attributes = sqs
            .get_queue_attributes()
            .queue_url(&crashed_url)
            .attribute_names(QueueAttributeName::QueueArn)
            .send()
            .await
            .unwrap();
        let arn = &attributes.attributes().unwrap()[&QueueAttributeName::QueueArn];
        let redrive =
            serde_json::json!({"deadLetterTargetArn": arn, "maxReceiveCount": MAX_RECEIVE_COUNT}).to_string();
        let jobs_attributes = HashMap::from([
            (QueueAttributeName::VisibilityTimeout, visibility_s.to_string()),
            (QueueAttributeName::RedrivePolicy, redrive),
        ]);
        let jobs_url = create_queue(&sqs, "kills-jobs", jobs_attributes).await;
        table::create(&dynamodb, LEDGER).await.unwrap();
        Self { sqs, dynamodb, endpoints, jobs_url, dead_letters_url, crashed_url }
    }

    /// The name of the ledger's table.
    pub fn ledger(&self) -> &'static str {
        LEDGER
    }

    pub async fn send(&self, bodies: &[String]) {
        for batch in bodies.chunks(10) {
            let entries = batch.iter().enumerate().map(|(index, body)| {
                SendMessageBatchRequestEntry::builder()
                    .id(index.to_string())
                    .message_body(body)
                    .build()
                    .unwrap()
            });
            let request = self.sqs.send_message_batch().queue_url(&self.jobs_url);
            let answer = request.set_entries(Some(entries.collect())).send().await.unwrap();
            assert!(answer.failed().is_empty(), "{:?}", answer.failed());
        }
    }

    /// Messages of a queue, whether visible, in flight or delayed.
    pub async fn depth(&self, url: &str) -> u64 {
        let names = [
            QueueAttributeName::ApproximateNumberOfMessages,
            QueueAttributeName::ApproximateNumberOfMessagesNotVisible,
            QueueAttributeName::ApproximateNumberOfMessagesDelayed,
        ];
        let request =
            self.sqs.get_queue_attributes().queue_url(url).set_attribute_names(Some(names.to_vec()));
        let answer = request.send().await.unwrap();
        let attributes = answer.attributes().unwrap();
        names.iter().map(|name| attributes[name].parse::<u64>().unwrap()).sum()
    }

    /// Takes everything out of `dead-letters`.
    pub async fn dead_letters(&self) -> Vec<Message> {
        let mut letters = Vec::new();
        while self.depth(&self.dead_letters_url).await > 0 {
            let request =
                self.sqs.receive_message().queue_url(&self.dead_letters_url).max_number_of_messages(10);
            let answer = request.message_attribute_names("All").send().await.unwrap();
            for letter in answer.messages.unwrap_or_default() {
                let delete = self.sqs.delete_message().queue_url(&self.dead_letters_url);
                delete.receipt_handle(letter.receipt_handle().unwrap()).send().await.unwrap();
                letters.push(letter);
            }
        }
        letters
    }

    /// A record of the ledger, as it stands.
    pub async fn record(&self, key: &str) -> Option<Item> {
        let get = self.dynamodb.get_item().table_name(LEDGER).consistent_read(true);
        get.key("id", AttributeValue::S(key.to_owned())).send().await.unwrap().item
    }
}

/// A member of a record that is a string.
pub fn text<'a>(item: &'a Item, name: &str) -> &'a str {
    item.get(name).and_then(|value| value.as_s().ok()).map_or("", String::as_str)
}

async fn create_queue(
    sqs: &aws_sdk_sqs::Client,
    name: &str,
    attributes: HashMap<QueueAttributeName, String>,
) -> String {
    let request = sqs.create_queue().queue_name(name).set_attributes(Some(attributes));
    request.send().await.unwrap().queue_url.unwrap()
}
