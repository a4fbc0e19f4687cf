//! The poller and the Runtime API with real processes: this test binary, started again as a function on the real runtime client.

use std::collections::BTreeMap;
use std::time::Duration;

use aws_lambda_events::sqs::{BatchItemFailure, SqsBatchResponse, SqsEvent};
use aws_sdk_sqs::types::QueueAttributeName;
use lambda_runtime::{LambdaEvent as Invocation, service_fn};
use tokio::sync::mpsc::Receiver;

use super::*;
use crate::aws::LocalAws;

const REGION: &str = "eu-central-1";
/// No test waits longer for what it expects.
const PATIENCE: Duration = Duration::from_secs(30);

/// Not a test: what the other tests start as the function. What it does with a message stands in the body.
#[test]
#[ignore = "the function that the tests of this module start"]
fn the_function() {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    if std::env::var("MODE").as_deref() == Ok("broken") {
        std::process::exit(7);
    }
    runtime.block_on(async {
        lambda_runtime::run(service_fn(|invocation: Invocation<SqsEvent>| async move {
            let mut response = SqsBatchResponse::default();
            for record in invocation.payload.records {
                let body = record.body.unwrap_or_default();
                let (what, argument) = body.split_once(':').unwrap_or((&body, ""));
                match what {
                    "fail" => response.batch_item_failures.push({
                        let mut failure = BatchItemFailure::default();
                        failure.item_identifier = record.message_id.unwrap_or_default();
                        failure
                    }),
                    "error" => return Err("on purpose".into()),
                    "crash" => std::process::exit(3),
                    "sleep" => tokio::time::sleep(Duration::from_millis(argument.parse()?)).await,
                    // The first time it is received.
                    "hang" if record.attributes["ApproximateReceiveCount"] == "1" => {
                        println!("hanging");
                        std::future::pending::<()>().await;
                    }
                    _ => {}
                }
                println!("{{\"body\":\"{body}\",\"id\":\"{}\"}}", invocation.context.request_id);
            }
            Ok::<_, lambda_runtime::Error>(response)
        }))
        .await
        .unwrap();
    });
}

fn function() -> Function {
    let mut function = Function::new("worker", std::env::current_exe().unwrap());
    function.arguments =
        ["--ignored", "--exact", "lambda::tests::the_function", "--nocapture"].map(Into::into).into();
    function.timeout = Duration::from_secs(5);
    function
}

struct Account {
    aws: LocalAws,
    sqs: aws_sdk_sqs::Client,
    source: EventSource,
}

/// A queue whose messages come back after `visibility_s`, and its mapping.
async fn account(visibility_s: u32) -> Account {
    let aws = LocalAws::start(REGION).await.unwrap();
    let source = EventSource {
        endpoint_url: aws.endpoint_url().to_owned(),
        region: REGION.to_owned(),
        queue_url: aws.queue_url("jobs"),
        batch_size: 10,
        window: Duration::ZERO,
        maximum_concurrency: 2,
    };
    let sqs = sqs_client(&source);
    sqs.create_queue()
        .queue_name("jobs")
        .attributes(QueueAttributeName::VisibilityTimeout, visibility_s.to_string())
        .send()
        .await
        .unwrap();
    Account { aws, sqs, source }
}

impl Account {
    async fn send(&self, body: &str) {
        let send = self.sqs.send_message().queue_url(&self.source.queue_url).message_body(body);
        send.send().await.unwrap();
    }

    async fn until_empty(&self) {
        let empty = async {
            while self.aws.depth("jobs").unwrap().total() > 0 {
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        };
        tokio::time::timeout(PATIENCE, empty).await.expect("the queue is not empty in time");
    }
}

async fn next_report(events: &mut Receiver<LambdaEvent>) -> InvocationReport {
    let report = async {
        loop {
            if let LambdaEvent::Invocation(report) = events.recv().await.unwrap() {
                return report;
            }
        }
    };
    tokio::time::timeout(PATIENCE, report).await.expect("no invocation ended in time")
}

#[tokio::test]
async fn messages_are_worked_on_deleted_and_logged() {
    let account = account(30).await;
    for number in 0..25 {
        account.send(&format!("ok:{number}")).await;
    }
    let (lambda, mut events) = Lambda::start(function(), account.source.clone()).await.unwrap();
    account.until_empty().await;
    assert!(lambda.environments().len() <= 2);
    let stats = lambda.stop().await;
    assert_eq!((stats.records, stats.deleted, stats.answered), (25, 25, stats.invocations));
    assert_eq!((stats.errors, stats.crashes, stats.timeouts, stats.reported), (0, 0, 0, 0));

    let mut bodies = Vec::new();
    let mut logged: BTreeMap<String, usize> = BTreeMap::new();
    let mut reported: BTreeMap<String, usize> = BTreeMap::new();
    while let Ok(event) = events.try_recv() {
        match event {
            LambdaEvent::Log(line) if line.line.starts_with("{\"body\"") => {
                let line: serde_json::Value = serde_json::from_str(&line.line).unwrap();
                bodies.push(line["body"].as_str().unwrap().to_owned());
                *logged.entry(line["id"].as_str().unwrap().to_owned()).or_default() += 1;
            }
            LambdaEvent::Invocation(report) => {
                reported.insert(report.request_id, report.records);
            }
            _ => {}
        }
    }
    assert_eq!(logged, reported);
    bodies.sort();
    let mut expected: Vec<String> = (0..25).map(|number| format!("ok:{number}")).collect();
    expected.sort();
    assert_eq!(bodies, expected);
}

#[tokio::test]
async fn only_the_reported_message_comes_back() {
    let account = account(30).await;
    account.send("ok").await;
    account.send("fail").await;
    let (lambda, mut events) = Lambda::start(function(), account.source.clone()).await.unwrap();
    let report = next_report(&mut events).await;
    assert_eq!((report.records, report.deleted), (2, 1));
    assert_eq!(report.result, InvocationResult::Answered { failures: 1 });
    assert_eq!(account.aws.messages("jobs")[0].body, "fail");
    lambda.stop().await;
}

#[tokio::test]
async fn an_error_of_the_handler_deletes_nothing_and_keeps_the_environment() {
    let account = account(30).await;
    account.send("ok").await;
    account.send("error").await;
    let (lambda, mut events) = Lambda::start(function(), account.source.clone()).await.unwrap();
    let report = next_report(&mut events).await;
    assert!(matches!(report.result, InvocationResult::FunctionError(error) if error.contains("on purpose")));
    assert_eq!(account.aws.depth("jobs").unwrap().in_flight, 2);
    account.send("ok").await;
    assert_eq!(next_report(&mut events).await.environment, report.environment);
    assert_eq!(lambda.stop().await.environments, 1);
}

#[tokio::test]
async fn a_crash_and_a_timeout_replace_the_environment() {
    let account = account(30).await;
    let (lambda, mut events) = Lambda::start(function(), account.source.clone()).await.unwrap();
    account.send("crash").await;
    assert_eq!(next_report(&mut events).await.result, InvocationResult::Crashed);
    account.send("sleep:60000").await;
    assert_eq!(next_report(&mut events).await.result, InvocationResult::TimedOut);
    account.send("ok").await;
    let last = next_report(&mut events).await;
    assert_eq!((last.environment, last.result), (3, InvocationResult::Answered { failures: 0 }));
    assert_eq!(account.aws.depth("jobs").unwrap().in_flight, 2);
    let stats = lambda.stop().await;
    assert_eq!((stats.crashes, stats.timeouts, stats.environments), (1, 1, 3));
}

#[tokio::test]
async fn a_killed_process_gives_its_messages_back_when_their_visibility_ends() {
    let account = account(10).await;
    let mut function = function();
    function.timeout = Duration::from_secs(10);
    let (lambda, mut events) = Lambda::start(function, account.source.clone()).await.unwrap();
    account.send("hang").await;
    let victim = async {
        loop {
            match events.recv().await.unwrap() {
                LambdaEvent::Log(line) if line.line == "hanging" => return line.environment,
                _ => {}
            }
        }
    };
    let victim = tokio::time::timeout(PATIENCE, victim).await.unwrap();
    assert!(lambda.kill(victim));
    let crashed = async {
        // Where the message came back before that, its own invocation may have ended before.
        while next_report(&mut events).await.result != InvocationResult::Crashed {}
    };
    tokio::time::timeout(PATIENCE, crashed).await.unwrap();
    assert!(!lambda.kill(victim));
    account.until_empty().await;
    let stats = lambda.stop().await;
    assert_eq!((stats.crashes, stats.records, stats.deleted), (1, 2, 1));
}

#[tokio::test]
async fn a_frozen_environment_works_again_when_it_is_invoked() {
    let account = account(30).await;
    let mut function = function();
    function.freeze = true;
    let (lambda, mut events) = Lambda::start(function, account.source.clone()).await.unwrap();
    for _ in 0..3 {
        account.send("ok").await;
        assert_eq!(next_report(&mut events).await.deleted, 1);
        // It asks for the next invocation, and is stopped.
        let pid = lambda.environments()[0].pid;
        let stopped = async {
            loop {
                let status = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
                if status.rsplit(')').next().unwrap().trim().starts_with('T') {
                    break;
                }
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        tokio::time::timeout(PATIENCE, stopped).await.expect("it was not stopped in time");
    }
    assert_eq!(lambda.stop().await.environments, 1);
}

#[tokio::test]
async fn a_function_that_does_not_start_is_reported_and_loses_nothing() {
    let account = account(30).await;
    account.send("ok").await;
    let function = function().with_variable("MODE", "broken");
    let (lambda, mut events) = Lambda::start(function, account.source.clone()).await.unwrap();
    assert!(matches!(next_report(&mut events).await.result, InvocationResult::InitFailed(_)));
    assert_eq!(account.aws.depth("jobs").unwrap().total(), 1);
    lambda.stop().await;
}

#[tokio::test]
async fn a_batch_over_ten_needs_a_window_and_then_gathers() {
    let account = account(30).await;
    let mut source = account.source.clone();
    source.batch_size = 11;
    let refused = Lambda::start(function(), source.clone()).await.unwrap_err();
    assert!(matches!(refused, LambdaError::BatchNeedsWindow { batch_size: 11 }));

    for number in 0..15 {
        account.send(&format!("ok:{number}")).await;
    }
    source.batch_size = 15;
    source.window = Duration::from_secs(2);
    let (lambda, mut events) = Lambda::start(function(), source).await.unwrap();
    assert_eq!(next_report(&mut events).await.records, 15);
    lambda.stop().await;
}

#[tokio::test]
async fn what_lambda_refuses_is_refused() {
    let account = account(4).await;
    let refused = Lambda::start(function(), account.source.clone()).await.unwrap_err();
    assert!(matches!(refused, LambdaError::VisibilityTooShort { visibility_s: 4, timeout_s: 5 }));
    let mut elsewhere = account.source.clone();
    elsewhere.queue_url = account.aws.queue_url("absent");
    assert!(matches!(Lambda::start(function(), elsewhere).await.unwrap_err(), LambdaError::Queue { .. }));
    let absent = Function::new("worker", "/nowhere/bootstrap");
    assert!(matches!(
        Lambda::start(absent, account.source.clone()).await.unwrap_err(),
        LambdaError::NoProgram(_)
    ));
    let mut none = account.source.clone();
    none.maximum_concurrency = 0;
    assert!(matches!(Lambda::start(function(), none).await.unwrap_err(), LambdaError::OutOfRange { .. }));
}

#[tokio::test]
async fn dropping_lambda_kills_what_it_started_idle_or_busy() {
    let account = account(30).await;
    let mut source = account.source.clone();
    source.batch_size = 1;
    let (lambda, mut events) = Lambda::start(function(), source).await.unwrap();
    account.send("ok").await;
    next_report(&mut events).await;
    account.send("sleep:60000").await;
    account.send("ok").await;
    next_report(&mut events).await;
    let started = lambda.environments();
    assert_eq!(started.iter().filter(|environment| environment.busy).count(), 1);
    drop(lambda);
    let mut left: Vec<u32> = started.iter().map(|environment| environment.pid).collect();
    let ended = async {
        while !left.is_empty() {
            if let LambdaEvent::Ended { pid, cause, .. } = events.recv().await.unwrap() {
                assert_eq!(cause, Ended::Killed);
                left.retain(|other| *other != pid);
            }
        }
    };
    tokio::time::timeout(PATIENCE, ended).await.unwrap();
}
