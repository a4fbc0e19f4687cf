//! The real SDK clients against the stand-in, over HTTP.

use std::collections::HashMap;
use std::time::Duration;

use aws_sdk_dynamodb::error::SdkError;
use aws_sdk_dynamodb::operation::update_item::UpdateItemError;
use aws_sdk_dynamodb::types::{
    AttributeDefinition, AttributeValue as Dynamo, BillingMode, GlobalSecondaryIndex, KeySchemaElement,
    KeyType, Projection, ProjectionType, ReturnValue, ReturnValuesOnConditionCheckFailure,
    ScalarAttributeType,
};
use aws_sdk_sqs::types::{
    MessageAttributeValue, MessageSystemAttributeName, QueueAttributeName, SendMessageBatchRequestEntry,
};

use super::*;

const REGION: &str = "eu-central-1";

macro_rules! client {
    ($sdk:ident, $aws:expr) => {
        $sdk::Client::from_conf(
            $sdk::Config::builder()
                .behavior_version($sdk::config::BehaviorVersion::latest())
                .region($sdk::config::Region::new(REGION))
                .credentials_provider($sdk::config::Credentials::new("local", "local", None, None, "test"))
                .endpoint_url($aws.endpoint_url())
                .http_client(aws_smithy_http_client::Builder::new().build_http())
                .build(),
        )
    };
}

async fn sqs_with_queue(
    attributes: &[(QueueAttributeName, &str)],
) -> (LocalAws, aws_sdk_sqs::Client, String) {
    let aws = LocalAws::start(REGION).await.unwrap();
    let sqs = client!(aws_sdk_sqs, aws);
    let mut create = sqs.create_queue().queue_name("jobs");
    for (name, value) in attributes {
        create = create.attributes(name.clone(), *value);
    }
    let url = create.send().await.unwrap().queue_url.unwrap();
    assert_eq!(url, aws.queue_url("jobs"));
    (aws, sqs, url)
}

fn text_attribute(value: &str) -> MessageAttributeValue {
    MessageAttributeValue::builder().data_type("String").string_value(value).build().unwrap()
}

#[tokio::test]
async fn a_message_travels_with_body_attributes_and_digests() {
    let (aws, sqs, url) = sqs_with_queue(&[]).await;
    let body = "{\"text\":\"Grüße, 東京 \u{1F680}\\n\"}";
    let sent = sqs
        .send_message()
        .queue_url(&url)
        .message_body(body)
        .message_attributes("Origin", text_attribute("mail"))
        .send()
        .await
        .unwrap();

    let received = sqs
        .receive_message()
        .queue_url(&url)
        .max_number_of_messages(10)
        .message_system_attribute_names(MessageSystemAttributeName::All)
        .message_attribute_names("All")
        .send()
        .await
        .unwrap();
    let message = &received.messages()[0];
    assert_eq!(message.body(), Some(body));
    assert_eq!(message.message_id(), sent.message_id());
    assert_eq!(message.md5_of_body(), sent.md5_of_message_body());
    assert_eq!(message.md5_of_message_attributes(), sent.md5_of_message_attributes());
    assert_eq!(message.message_attributes().unwrap()["Origin"].string_value(), Some("mail"));
    let system = message.attributes().unwrap();
    assert_eq!(system[&MessageSystemAttributeName::ApproximateReceiveCount], "1");
    for name in [
        MessageSystemAttributeName::SentTimestamp,
        MessageSystemAttributeName::ApproximateFirstReceiveTimestamp,
    ] {
        assert!(system[&name].parse::<i64>().unwrap() > 1_600_000_000_000);
    }
    assert_eq!(aws.depth("jobs").unwrap().in_flight, 1);
    assert_eq!(aws.messages("jobs")[0].body, body);

    let handle = message.receipt_handle().unwrap();
    sqs.delete_message().queue_url(&url).receipt_handle(handle).send().await.unwrap();
    assert_eq!(aws.depth("jobs").unwrap().total(), 0);
    assert_eq!(aws.requests()["SQS.DeleteMessage"], 1);
}

#[tokio::test]
async fn a_long_poll_ends_when_a_message_arrives_or_becomes_visible() {
    let (_aws, sqs, url) = sqs_with_queue(&[]).await;
    let poll = |sqs: aws_sdk_sqs::Client, url: String, hidden_s: i32| async move {
        let poll = sqs.receive_message().queue_url(url).wait_time_seconds(20).visibility_timeout(hidden_s);
        poll.send().await.unwrap().messages()[0].receipt_handle().unwrap().to_owned()
    };
    let waiting = tokio::spawn(poll(sqs.clone(), url.clone(), 1));
    tokio::time::sleep(Duration::from_millis(50)).await;
    sqs.send_message().queue_url(&url).message_body("a").send().await.unwrap();
    // Both waits end long before the poll's 20 s; the test would hang otherwise.
    let first = tokio::time::timeout(Duration::from_secs(10), waiting).await.unwrap().unwrap();
    let again = poll(sqs.clone(), url.clone(), 600);
    let again = tokio::time::timeout(Duration::from_secs(10), again).await.unwrap();
    assert_ne!(first, again);

    // Handed back by its holder: visible at once for a poll that is under way.
    let waiting = tokio::spawn(poll(sqs.clone(), url.clone(), 600));
    tokio::time::sleep(Duration::from_millis(50)).await;
    sqs.change_message_visibility()
        .queue_url(&url)
        .receipt_handle(again)
        .visibility_timeout(0)
        .send()
        .await
        .unwrap();
    tokio::time::timeout(Duration::from_secs(10), waiting).await.unwrap().unwrap();
}

#[tokio::test]
async fn an_abandoned_long_poll_takes_no_message() {
    let (aws, sqs, url) = sqs_with_queue(&[]).await;
    let poll = sqs.receive_message().queue_url(&url).wait_time_seconds(20).send();
    assert!(tokio::time::timeout(Duration::from_millis(100), poll).await.is_err());
    // The connection is closed by the dropped future; the server sees it before the next request arrives.
    tokio::time::sleep(Duration::from_millis(100)).await;
    sqs.send_message().queue_url(&url).message_body("a").send().await.unwrap();
    tokio::time::sleep(Duration::from_millis(50)).await;
    assert_eq!(aws.depth("jobs").unwrap().visible, 1);
}

#[tokio::test]
async fn a_bad_entry_of_a_batch_fails_alone() {
    let (aws, sqs, url) = sqs_with_queue(&[]).await;
    let entry = |id: &str, body: &str| {
        SendMessageBatchRequestEntry::builder().id(id).message_body(body).build().unwrap()
    };
    let sent = sqs
        .send_message_batch()
        .queue_url(&url)
        .entries(entry("good", "a"))
        .entries(entry("bad", "\u{1}"))
        .send()
        .await
        .unwrap();
    assert_eq!(sent.successful()[0].id(), "good");
    assert_eq!((sent.failed()[0].id(), sent.failed()[0].code()), ("bad", "InvalidMessageContents"));
    assert_eq!(aws.depth("jobs").unwrap().visible, 1);
}

#[tokio::test]
async fn refusals_arrive_as_the_errors_that_the_sdk_knows() {
    let (aws, sqs, url) = sqs_with_queue(&[]).await;
    let absent = sqs.receive_message().queue_url(aws.queue_url("absent")).send().await.unwrap_err();
    assert!(absent.into_service_error().is_queue_does_not_exist());
    let nonsense = sqs.delete_message().queue_url(&url).receipt_handle("x").send().await.unwrap_err();
    assert!(nonsense.into_service_error().is_receipt_handle_is_invalid());
    let queue = sqs.create_queue().queue_name("jobs").attributes(QueueAttributeName::DelaySeconds, "5");
    assert!(queue.send().await.unwrap_err().into_service_error().is_queue_name_exists());
}

async fn dynamodb_with_table() -> (LocalAws, aws_sdk_dynamodb::Client) {
    let aws = LocalAws::start(REGION).await.unwrap();
    let dynamodb = client!(aws_sdk_dynamodb, aws);
    let attribute = |name: &str, kind: ScalarAttributeType| {
        AttributeDefinition::builder().attribute_name(name).attribute_type(kind).build().unwrap()
    };
    let key = |name: &str, kind: KeyType| {
        KeySchemaElement::builder().attribute_name(name).key_type(kind).build().unwrap()
    };
    dynamodb
        .create_table()
        .table_name("things")
        .billing_mode(BillingMode::PayPerRequest)
        .attribute_definitions(attribute("id", ScalarAttributeType::S))
        .attribute_definitions(attribute("shelf", ScalarAttributeType::S))
        .attribute_definitions(attribute("placed_at", ScalarAttributeType::N))
        .key_schema(key("id", KeyType::Hash))
        .global_secondary_indexes(
            GlobalSecondaryIndex::builder()
                .index_name("shelf")
                .key_schema(key("shelf", KeyType::Hash))
                .key_schema(key("placed_at", KeyType::Range))
                .projection(
                    Projection::builder()
                        .projection_type(ProjectionType::Include)
                        .non_key_attributes("task")
                        .build(),
                )
                .build()
                .unwrap(),
        )
        .send()
        .await
        .unwrap();
    (aws, dynamodb)
}

fn s(value: &str) -> Dynamo {
    Dynamo::S(value.to_owned())
}

fn n(value: i64) -> Dynamo {
    Dynamo::N(value.to_string())
}

fn claim(
    dynamodb: &aws_sdk_dynamodb::Client,
    token: &str,
) -> aws_sdk_dynamodb::operation::update_item::builders::UpdateItemFluentBuilder {
    dynamodb
        .update_item()
        .table_name("things")
        .key("id", s("1"))
        .update_expression("SET #token = :token, attempts = if_not_exists(attempts, :zero) + :one")
        .condition_expression("attribute_not_exists(id) OR lease_until_ms < :now")
        .expression_attribute_names("#token", "token")
        .expression_attribute_values(":token", s(token))
        .expression_attribute_values(":zero", n(0))
        .expression_attribute_values(":one", n(1))
        .expression_attribute_values(":now", n(1000))
        .return_values_on_condition_check_failure(ReturnValuesOnConditionCheckFailure::AllOld)
}

#[tokio::test]
async fn of_many_claims_at_once_one_wins_and_the_others_see_the_winner() {
    let (aws, dynamodb) = dynamodb_with_table().await;
    let claims: Vec<_> = (0..20)
        .map(|worker| {
            tokio::spawn(claim(&dynamodb, &worker.to_string()).return_values(ReturnValue::AllNew).send())
        })
        .collect();
    let mut winners = Vec::new();
    let mut seen = Vec::new();
    for claim in claims {
        match claim.await.unwrap() {
            Ok(output) => winners.push(output.attributes().unwrap()["token"].clone()),
            Err(SdkError::ServiceError(error)) => match error.into_err() {
                UpdateItemError::ConditionalCheckFailedException(error) => {
                    seen.push(error.item().unwrap()["token"].clone());
                }
                other => panic!("{other:?}"),
            },
            Err(other) => panic!("{other:?}"),
        }
    }
    assert_eq!(winners.len(), 1);
    assert_eq!(seen, vec![winners[0].clone(); 19]);
    assert_eq!(aws.items("things")[0]["attempts"].as_number().as_deref(), Some("1"));
    assert_eq!(aws.requests()["DynamoDB.UpdateItem"], 20);
}

#[tokio::test]
async fn a_refused_write_without_the_wish_returns_no_item() {
    let (_aws, dynamodb) = dynamodb_with_table().await;
    claim(&dynamodb, "a").send().await.unwrap();
    let refused = claim(&dynamodb, "b")
        .return_values_on_condition_check_failure(ReturnValuesOnConditionCheckFailure::None)
        .send()
        .await
        .unwrap_err()
        .into_service_error();
    let UpdateItemError::ConditionalCheckFailedException(error) = refused else { panic!("{refused:?}") };
    assert!(error.item().is_none());
}

#[tokio::test]
async fn the_sparse_index_lists_what_has_its_keys_in_order_and_in_pages() {
    let (_aws, dynamodb) = dynamodb_with_table().await;
    for number in 0..10_i64 {
        let mut put = dynamodb
            .put_item()
            .table_name("things")
            .item("id", s(&number.to_string()))
            .item("task", s("t"))
            .item("secret", s("not in the index"))
            // Descending, and of different length, so that neither text order nor insertion order passes.
            .item("placed_at", n(100 - number * 10));
        if number % 2 == 0 {
            put = put.item("shelf", s("open"));
        }
        put.send().await.unwrap();
    }
    let mut found = Vec::new();
    let mut start: Option<HashMap<String, Dynamo>> = None;
    loop {
        let page = dynamodb
            .query()
            .table_name("things")
            .index_name("shelf")
            .key_condition_expression("shelf = :open AND placed_at < :limit")
            .expression_attribute_values(":open", s("open"))
            .expression_attribute_values(":limit", n(100))
            .limit(3)
            .set_exclusive_start_key(start)
            .send()
            .await
            .unwrap();
        found.extend(page.items().iter().map(|item| {
            assert!(item.contains_key("task") && !item.contains_key("secret"));
            item["placed_at"].as_n().unwrap().clone()
        }));
        start = page.last_evaluated_key;
        if start.is_none() {
            break;
        }
    }
    assert_eq!(found, ["20", "40", "60", "80"]);

    let scanned = dynamodb.scan().table_name("things").limit(4).into_paginator().items().send();
    assert_eq!(scanned.collect::<Result<Vec<_>, _>>().await.unwrap().len(), 10);
}

#[tokio::test]
async fn items_over_400_kb_and_wrong_index_keys_are_refused() {
    let (_aws, dynamodb) = dynamodb_with_table().await;
    let put = |bytes: usize| {
        dynamodb
            .put_item()
            .table_name("things")
            .item("id", s("1"))
            .item("output", s(&"x".repeat(bytes)))
            .send()
    };
    // "id", "1" and "output" are nine bytes.
    put(400 * 1024 - 9).await.unwrap();
    assert!(put(400 * 1024 - 8).await.is_err());
    let wrong = dynamodb.put_item().table_name("things").item("id", s("2")).item("placed_at", s("1"));
    assert!(wrong.send().await.is_err());
}

#[tokio::test]
async fn metrics_are_remembered_also_from_compressed_requests() {
    use aws_sdk_cloudwatch::types::{Dimension, MetricDatum, StandardUnit};
    let aws = LocalAws::start(REGION).await.unwrap();
    let cloudwatch = client!(aws_sdk_cloudwatch, aws);
    let datum = |name: &str| {
        MetricDatum::builder()
            .metric_name(name)
            .dimensions(Dimension::builder().name("Stack").value("demo").build())
            .unit(StandardUnit::Milliseconds)
            .values(12.5)
            .values(7.0)
            .counts(2.0)
            .counts(1.0)
            .timestamp(aws_sdk_cloudwatch::primitives::DateTime::from_millis(crate::clock::now_ms()))
            .build()
    };
    // Two hundred metrics make a request that the SDK compresses, one metric one that it does not.
    let put = |data: Vec<MetricDatum>| {
        cloudwatch.put_metric_data().namespace("Nightshift").set_metric_data(Some(data)).send()
    };
    put((0..200).map(|number| datum(&format!("Metric{number}"))).collect()).await.unwrap();
    put(vec![datum("ModelLatency")]).await.unwrap();
    let metrics = aws.metrics();
    assert_eq!(metrics.len(), 402);
    let last = metrics.last().unwrap();
    assert_eq!((last.name.as_str(), last.value, last.count), ("ModelLatency", 7.0, 1.0));
    assert_eq!(last.dimensions["Stack"], "demo");
    assert_eq!(last.unit.as_deref(), Some("Milliseconds"));

    let too_many = MetricDatum::builder().metric_name("Many").set_values(Some(vec![1.0; 151])).build();
    let refused = put(vec![too_many]).await.unwrap_err();
    assert!(refused.into_service_error().meta().message().unwrap().contains("150"));
}

#[tokio::test]
async fn an_unsigned_or_unknown_request_is_refused() {
    let aws = LocalAws::start(REGION).await.unwrap();
    let http = crate::http::test_client();
    let post =
        |target: &'static str| http.post(aws.endpoint_url()).header("x-amz-target", target).body("{}").send();
    assert_eq!(post("AmazonSQS.ListQueues").await.unwrap().status(), 403);
    assert_eq!(post("Kinesis_20131202.ListStreams").await.unwrap().status(), 404);
}

/// Prints how long it takes; run it by hand with `--release --ignored --nocapture`.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "a measurement, not a check"]
async fn measure_ten_thousand_messages() {
    let (aws, sqs, url) = sqs_with_queue(&[]).await;
    let started = tokio::time::Instant::now();
    for batch in 0..1_000 {
        let entries = (0..10).map(|number| {
            let id = format!("{batch}-{number}");
            SendMessageBatchRequestEntry::builder().id(&id).message_body(&id).build().unwrap()
        });
        sqs.send_message_batch().queue_url(&url).set_entries(Some(entries.collect())).send().await.unwrap();
    }
    println!("sent 10,000 in {:?}", started.elapsed());
    let started = tokio::time::Instant::now();
    while aws.depth("jobs").unwrap().total() > 0 {
        let received = sqs.receive_message().queue_url(&url).max_number_of_messages(10).send().await.unwrap();
        let entries = received.messages().iter().enumerate().map(|(number, message)| {
            aws_sdk_sqs::types::DeleteMessageBatchRequestEntry::builder()
                .id(number.to_string())
                .receipt_handle(message.receipt_handle().unwrap())
                .build()
                .unwrap()
        });
        sqs.delete_message_batch().queue_url(&url).set_entries(Some(entries.collect())).send().await.unwrap();
    }
    println!("received and deleted 10,000 in {:?}", started.elapsed());
    let (_aws, dynamodb) = dynamodb_with_table().await;
    let started = tokio::time::Instant::now();
    for number in 0..10_000 {
        for _ in 0..2 {
            dynamodb
                .update_item()
                .table_name("things")
                .key("id", s(&number.to_string()))
                .update_expression("ADD attempts :one")
                .expression_attribute_values(":one", n(1))
                .send()
                .await
                .unwrap();
        }
    }
    println!("wrote 20,000 updates in {:?}", started.elapsed());
}
