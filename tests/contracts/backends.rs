//! A table and two queues on any endpoint that speaks AWS's protocols, seen from the other side of the ports.

use async_trait::async_trait;
use aws_sdk_dynamodb::types as dynamo;
use aws_sdk_sqs::types as sqs;
use nightshift_aws::clients::SdkConfig;
use nightshift_aws::ledger::table;
use nightshift_core::input_hash::InputHash;
use nightshift_core::message::{Attribute, AttributeValue};
use nightshift_core::spend::SHARDS_MAX;
use nightshift_core::spend::UtcDay;
use nightshift_tests::records::Item;

use crate::ledger_suite::Inspect;
use crate::queue_suite::{Queues, Received};

pub const TABLE: &str = "contract-ledger";

pub struct Table(pub aws_sdk_dynamodb::Client);

impl Table {
    pub async fn create(sdk: &SdkConfig) -> Self {
        let client = aws_sdk_dynamodb::Client::new(sdk);
        table::create(&client, TABLE).await.unwrap();
        Self(client)
    }

    pub async fn item(&self, id: &str) -> Option<Item> {
        let key = dynamo::AttributeValue::S(id.to_owned());
        let get = self.0.get_item().table_name(TABLE).key("id", key).consistent_read(true);
        get.send().await.unwrap().item
    }

    /// Ids of what the sparse index lists under a state.
    pub async fn unsettled(&self, state: &str) -> Vec<String> {
        let found = self
            .0
            .query()
            .table_name(TABLE)
            .index_name("unsettled")
            .key_condition_expression("unsettled = :state")
            .expression_attribute_values(":state", dynamo::AttributeValue::S(state.to_owned()))
            .send()
            .await
            .unwrap();
        found.items().iter().map(|item| item["id"].as_s().unwrap().clone()).collect()
    }

    /// Puts a whole item.
    pub async fn put(&self, item: &Item) {
        self.0.put_item().table_name(TABLE).set_item(Some(item.clone())).send().await.unwrap();
    }

    /// Puts an item that is not one of ours.
    pub async fn put_foreign(&self, id: &str) {
        let id = dynamo::AttributeValue::S(id.to_owned());
        let odd = dynamo::AttributeValue::S("not a version".to_owned());
        self.0.put_item().table_name(TABLE).item("id", id).item("version", odd).send().await.unwrap();
    }
}

fn whole(value: Option<&dynamo::AttributeValue>) -> u64 {
    value.map_or(0, |value| value.as_n().unwrap().parse().unwrap())
}

#[async_trait]
impl Inspect for Table {
    async fn duplicates(&self, key: &InputHash) -> Option<u64> {
        Some(whole(self.item(key.as_str()).await?.get("duplicates")))
    }

    async fn pause_in_old_form(&self, pause: Option<(&str, u64)>) {
        let id = dynamo::AttributeValue::S("control".to_owned());
        let update = self.0.update_item().table_name(TABLE).key("id", id);
        let update = match pause {
            Some((reason, since_ms)) => update
                .update_expression("SET paused_reason = :reason, paused_since_ms = :since_ms")
                .expression_attribute_values(":reason", dynamo::AttributeValue::S(reason.to_owned()))
                .expression_attribute_values(":since_ms", dynamo::AttributeValue::N(since_ms.to_string())),
            None => update.update_expression("REMOVE paused_reason, paused_since_ms"),
        };
        update.send().await.unwrap();
    }

    async fn spend(&self, day: UtcDay) -> (u64, u64) {
        let item = self.item(&format!("spend#{day}")).await.unwrap_or_default();
        let (reserved, spent) = (whole(item.get("reserved_micro_usd")), whole(item.get("spent_micro_usd")));
        let taken = whole(item.get("committed_micro_usd"));
        assert_eq!(taken, reserved + spent);
        let mut held = 0;
        for shard in 0..SHARDS_MAX {
            let shard = self.item(&format!("spend#{day}#{shard}")).await.unwrap_or_default();
            held += whole(shard.get("left_micro_usd"));
        }
        (taken, held)
    }
}

/// The two queues that the worker speaks to, and one in which messages wait for a redrive.
pub struct TwoQueues {
    client: aws_sdk_sqs::Client,
    pub jobs_url: String,
    pub dead_letters_url: String,
    pub redrive_url: String,
}

impl TwoQueues {
    pub async fn create(sdk: &SdkConfig) -> Self {
        let client = aws_sdk_sqs::Client::new(sdk);
        let mut urls = Vec::new();
        for name in ["contract-jobs", "contract-dead-letters", "contract-redrive"] {
            let create = client
                .create_queue()
                .queue_name(name)
                .attributes(sqs::QueueAttributeName::VisibilityTimeout, "60")
                .attributes(sqs::QueueAttributeName::MaximumMessageSize, "1048576");
            urls.push(create.send().await.unwrap().queue_url.unwrap());
        }
        let redrive_url = urls.pop().unwrap();
        let dead_letters_url = urls.pop().unwrap();
        Self { client, jobs_url: urls.pop().unwrap(), dead_letters_url, redrive_url }
    }

    async fn receive(&self, url: &str, wait_s: i32) -> Option<Received> {
        // Longer than the adapters' read timeout would allow in one request, so asked again instead.
        for _ in 0..=wait_s * 4 {
            let receive = self
                .client
                .receive_message()
                .queue_url(url)
                .message_attribute_names("All")
                .message_system_attribute_names(sqs::MessageSystemAttributeName::ApproximateReceiveCount);
            if let Some(message) = receive.send().await.unwrap().messages.unwrap_or_default().pop() {
                let attributes =
                    message.message_attributes.unwrap_or_default().into_iter().map(|(name, value)| {
                        let data_type = value.data_type().to_owned();
                        let value = match value.binary_value() {
                            Some(bytes) => AttributeValue::Bytes(bytes.as_ref().to_vec()),
                            None => AttributeValue::Text(value.string_value().unwrap().to_owned()),
                        };
                        (name, Attribute { data_type, value })
                    });
                let count = sqs::MessageSystemAttributeName::ApproximateReceiveCount;
                return Some(Received {
                    receive_count: message.attributes.unwrap()[&count].parse().unwrap(),
                    handle: message.receipt_handle.unwrap(),
                    body: message.body.unwrap(),
                    attributes: attributes.collect(),
                });
            }
            if wait_s > 0 {
                tokio::time::sleep(std::time::Duration::from_millis(250)).await;
            }
        }
        None
    }

    async fn delete(&self, url: &str, handle: &str) {
        self.client.delete_message().queue_url(url).receipt_handle(handle).send().await.unwrap();
    }
}

#[async_trait]
impl Queues for TwoQueues {
    async fn send_job(&self, body: &str) {
        self.client.send_message().queue_url(&self.jobs_url).message_body(body).send().await.unwrap();
    }

    async fn receive_job(&self, wait_s: i32) -> Option<Received> {
        self.receive(&self.jobs_url, wait_s).await
    }

    async fn delete_job(&self, handle: &str) {
        self.delete(&self.jobs_url, handle).await;
    }

    async fn take_dead_letter(&self) -> Option<Received> {
        let received = self.receive(&self.dead_letters_url, 5).await?;
        self.delete(&self.dead_letters_url, &received.handle).await;
        Some(received)
    }
}
