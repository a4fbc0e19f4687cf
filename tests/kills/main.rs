//! Kills the real function binary with SIGKILL in mid-call, again and again, against servers that outlive it.
//!
//! Promise 1: every job ends as a valid result, or as a dead letter with a reason and its body byte for byte.
//! Promise 2: a kill in mid-call costs at most one more call for each input whose call it cut off.
//!
//! A seed decides the faults of the model and the schedule of the kills; what the operating system does in between it does
//! not, so a failing seed is a strong hint and no replay. `NIGHTSHIFT_SEED` sets another.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, clippy::panic, missing_docs)] // a test

mod binaries;
mod books;
mod jobs;
mod lane;
mod stack;

use std::collections::{BTreeMap, BTreeSet};
use std::io::Write;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use aws_sdk_sqs::types::Message;
use nightshift_core::failure::FailureReason;
use nightshift_core::split_mix::SplitMix64;
use nightshift_core::task::Tasks;
use nightshift_local::aws::LocalAws;
use nightshift_local::lambda::LambdaStats;
use nightshift_local::model_stub::ModelStub;
use nightshift_tests::servers::{NoServer, Server};
use tokio::time::{Instant, sleep};

use books::{Books, Counts, add, of};
use jobs::{Jobs, key};
use lane::{Lane, Plan, VISIBILITY_S};
use stack::{Endpoints, Item, REGION, Stack, text};

/// Processes at one time.
const LANES: u64 = 3;
/// Far more than a run takes; a run that takes this long has lost something or stands still.
const RUN_MAX: Duration = Duration::from_secs(240);

fn seed() -> u64 {
    std::env::var("NIGHTSHIFT_SEED")
        .map_or(1, |seed| seed.parse().expect("NIGHTSHIFT_SEED must be a whole number"))
}

/// Not `println`, which the test harness keeps to itself while a test passes.
fn say(line: &str) {
    let _ = writeln!(std::io::stderr(), "{line}");
}

/// Says which seed failed, whatever it was that failed.
struct SayOnFailure(u64);

impl Drop for SayOnFailure {
    fn drop(&mut self) {
        if std::thread::panicking() {
            say(&format!("failed with NIGHTSHIFT_SEED={}", self.0));
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn kills_lose_nothing_on_elasticmq_and_dynamodb_local() {
    let start = |name: &'static str| tokio::task::spawn_blocking(move || Server::start(name));
    let (sqs, dynamodb) = tokio::join!(start("elasticmq"), start("dynamodb-local"));
    let (sqs, dynamodb) = match (sqs.unwrap(), dynamodb.unwrap()) {
        (Ok(sqs), Ok(dynamodb)) => (sqs, dynamodb),
        (Err(NoServer::Missing(why)), _) | (_, Err(NoServer::Missing(why))) => {
            say(&format!("skipped: no Java (ElasticMQ and DynamoDB Local need it): {why}"));
            return;
        }
        (Err(NoServer::Failed(why)), _) | (_, Err(NoServer::Failed(why))) => panic!("{why}"),
    };
    let cloudwatch = LocalAws::start(REGION).await.unwrap();
    let endpoints = Endpoints {
        sqs: sqs.url().to_owned(),
        dynamodb: dynamodb.url().to_owned(),
        cloudwatch: cloudwatch.endpoint_url().to_owned(),
    };
    let kills = killed_again_and_again("ElasticMQ and DynamoDB Local", endpoints, 150, 30).await;
    assert!(kills >= 25, "only {kills} kills in mid-call: the schedule found too little to kill");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn kills_lose_nothing_on_the_stand_in() {
    let aws = LocalAws::start(REGION).await.unwrap();
    let url = aws.endpoint_url().to_owned();
    let endpoints = Endpoints { sqs: url.clone(), dynamodb: url.clone(), cloudwatch: url };
    let kills = killed_again_and_again("the stand-in", endpoints, 45, 10).await;
    assert!(kills >= 8, "only {kills} kills in mid-call: the schedule found too little to kill");
}

/// Works on the jobs while processes are killed, and checks every promise; returns the kills.
async fn killed_again_and_again(on: &str, endpoints: Endpoints, valid_jobs: usize, kills: u64) -> u64 {
    let seed = seed();
    let _say = SayOnFailure(seed);
    let program =
        tokio::task::spawn_blocking(|| binaries::build("nightshift-worker-function")).await.unwrap();
    let stack = Stack::create(endpoints, VISIBILITY_S).await;
    let jobs = Arc::new(Jobs::new(valid_jobs));
    let books = Arc::new(Mutex::new(Books::default()));
    let started = Instant::now();
    stack.send(&jobs.bodies).await;
    let (stubs, lambda) = work(&program, &stack, &jobs, &books, seed, kills).await;
    let took = started.elapsed();

    let mut records = BTreeMap::new();
    for key in jobs.messages_by_key.keys() {
        let record = stack.record(key).await.unwrap_or_else(|| panic!("{key} is lost: it has no record"));
        records.insert(key.clone(), record);
    }
    let letters = stack.dead_letters().await;
    let account = std::mem::take(&mut *books.lock().unwrap());
    check_ends(&stack, &jobs, &records, &letters, account.kills + account.timeouts).await;
    let calls = check_calls(&jobs, &records, &stubs, &account);
    assert_eq!(account.odd_lines, Vec::<String>::new(), "lines of the log that are not JSON");
    let kills = account.kills;
    let done = records.values().filter(|record| text(record, "state") == "done").count();
    say(&format!(
        "{on}, seed {seed}: {} messages, {} inputs, {} kills in mid-call ({} calls were open, {} answers on their way), {} \
         timeouts, {} processes, {} invocations: {done} results, {} dead letters, {calls} calls, in {:.0} s",
        jobs.bodies.len(),
        records.len(),
        account.kills,
        account.open_at_kills.values().sum::<u64>(),
        account.lost_answers.values().sum::<u64>(),
        account.timeouts,
        lambda.iter().map(|stats| stats.environments).sum::<u64>(),
        lambda.iter().map(|stats| stats.invocations).sum::<u64>(),
        letters.len(),
        took.as_secs_f64(),
    ));

    // What is stored is never paid for again, killed or not.
    let stored = |body: &&String| text(&records[&key(body)], "state") == "done";
    let again: Vec<String> = jobs.bodies.iter().filter(stored).cloned().collect();
    stack.send(&again).await;
    let (stubs, _) = work(&program, &stack, &jobs, &Arc::new(Mutex::new(Books::default())), seed, 0).await;
    let calls: u64 = stubs.iter().map(|stub| stub.stats().calls).sum();
    assert_eq!(calls, 0, "the model was called for inputs whose results were stored");
    for (key, before) in records.iter().filter(|(_, record)| text(record, "state") == "done") {
        let now = stack.record(key).await.unwrap();
        assert_eq!(now.get("output"), before.get("output"), "{key}: a repeat changed the result");
    }
    kills
}

/// Runs the function until the queue is empty, killing as planned.
async fn work(
    program: &std::path::Path,
    stack: &Stack,
    jobs: &Arc<Jobs>,
    books: &Arc<Mutex<Books>>,
    seed: u64,
    kills: u64,
) -> (Vec<Arc<ModelStub>>, Vec<LambdaStats>) {
    let plan = Arc::new(Plan { seed, kills, killed: AtomicU64::new(0), stop: AtomicBool::new(false) });
    let mut stubs = Vec::new();
    let mut lanes = tokio::task::JoinSet::new();
    for number in 0..LANES {
        // One seed for all stubs: an input that a model always refuses is refused by each of them.
        let lane = Lane::start(program, stack, jobs, books, plan.seed).await;
        stubs.push(Arc::clone(&lane.stub));
        lanes.spawn(lane.run(Arc::clone(&plan), SplitMix64::new(seed.wrapping_mul(1_000_003) + number)));
    }
    let started = Instant::now();
    let mut empty = 0;
    // Twice: a count of SQS is approximate, and a message may be between two states.
    while empty < 2 {
        sleep(Duration::from_millis(250)).await;
        let depth = stack.depth(&stack.jobs_url).await;
        empty = if depth == 0 { empty + 1 } else { 0 };
        if started.elapsed() > RUN_MAX {
            let warnings = &books.lock().unwrap().warnings;
            panic!(
                "after {RUN_MAX:?} {depth} messages are still in the queue; the log warns of: {warnings:#?}"
            );
        }
        if let Some(ended) = lanes.try_join_next() {
            // A lane ends before it is told to only by a failed check.
            ended.unwrap();
            panic!("a lane ended too soon");
        }
    }
    plan.stop.store(true, Ordering::SeqCst);
    (stubs, lanes.join_all().await)
}

/// Every message ended as a valid result or as a dead letter with a reason; none was given up by SQS.
async fn check_ends(
    stack: &Stack,
    jobs: &Jobs,
    records: &BTreeMap<String, Item>,
    letters: &[Message],
    kills: u64,
) {
    assert_eq!(stack.depth(&stack.crashed_url).await, 0, "messages in `crashed`");
    let tasks = nightshift_tasks::registry();
    let bodies: BTreeSet<&str> = jobs.bodies.iter().map(String::as_str).collect();
    let reasons: Vec<&str> = FailureReason::ALL.iter().map(|reason| reason.as_str()).collect();
    let mut letters_by_key = Counts::new();
    for letter in letters {
        let body = letter.body().unwrap();
        assert!(bodies.contains(body), "a dead letter with another body: {body}");
        let attribute = |name: &str| {
            let value = letter.message_attributes().and_then(|attributes| attributes.get(name));
            value.and_then(|value| value.string_value()).unwrap_or_default()
        };
        let key = key(body);
        assert_eq!(attribute("InputHash"), key);
        let record = &records[&key];
        assert_eq!(text(record, "state"), "failed", "a dead letter of {key}, which did not fail: {body}");
        assert!(reasons.contains(&attribute("FailureReason")), "{:?}", attribute("FailureReason"));
        assert_eq!(attribute("FailureReason"), text(record, "reason"));
        assert_ne!(
            attribute("FailureReason"),
            FailureReason::Poison.as_str(),
            "no job here is poison: {body}"
        );
        assert!(serde_json::from_str::<serde_json::Value>(attribute("FailureContext")).is_ok());
        add(&mut letters_by_key, key, 1);
    }
    let mut sent_again = 0;
    for (key, messages) in &jobs.messages_by_key {
        let record = &records[key];
        match text(record, "state") {
            "done" => {
                let task = tasks.find(text(record, "task")).unwrap();
                let output = serde_json::from_str(text(record, "output")).unwrap();
                assert!(task.accept(output).is_ok(), "{key}: a result that does not validate");
            }
            "failed" => {
                let letters = of(&letters_by_key, key);
                assert!(letters >= *messages, "{key}: {messages} messages and only {letters} dead letters");
                sent_again += letters - messages;
            }
            state => panic!("{key} is neither done nor failed but {state}"),
        }
    }
    // A process that died between a dead letter and its acknowledgement leaves one more; of one batch, several.
    assert!(sent_again <= 5 * kills, "{sent_again} dead letters too many after {kills} kills");
}

/// No call was made that neither a kill nor the retry policy explains; returns how many were made.
fn check_calls(
    jobs: &Jobs,
    records: &BTreeMap<String, Item>,
    stubs: &[Arc<ModelStub>],
    books: &Books,
) -> u64 {
    let mut all = 0;
    for (prompt, key) in &jobs.key_by_prompt {
        let (mut calls, mut answers, mut valid, mut cut_off) = (0, 0, 0, 0);
        for request in stubs.iter().flat_map(|stub| stub.requests()).filter(|request| request.text == *prompt)
        {
            assert_eq!(request.open, 0, "{key}: a call outlived its process");
            calls += request.calls;
            answers += request.answers;
            valid += request.valid_answers;
            cut_off += request.abandoned;
        }
        all += calls;
        let failed = calls - valid - cut_off;
        let (open_at_kills, lost) = (of(&books.open_at_kills, prompt), of(&books.lost_answers, prompt));
        let (given_up, timed_out) = (of(&books.given_up, key), of(&books.timed_out, key));
        let seen = format!(
            "{key}: {calls} calls: {valid} valid answers, {failed} failed, {cut_off} cut off; {open_at_kills} were open at \
             kills, {lost} valid answers were lost in kills, {given_up} were given up by the worker"
        );
        assert!(calls <= 1 + open_at_kills + lost + failed + given_up, "{seen}");
        assert!(cut_off <= open_at_kills + given_up, "{seen}");
        // Once an answer is stored, no other is asked for.
        assert!(valid <= 1 + lost + timed_out, "{seen}");
        if text(&records[key], "state") == "done" {
            // Not `valid`: the stub breaks a schema without knowing the task, which may accept what is left.
            assert!(answers >= 1, "{seen}");
        }
    }
    let prompts: BTreeSet<String> =
        stubs.iter().flat_map(|stub| stub.requests()).map(|request| request.text).collect();
    assert!(
        prompts.iter().all(|prompt| jobs.key_by_prompt.contains_key(prompt)),
        "a prompt that no job makes"
    );
    all
}
