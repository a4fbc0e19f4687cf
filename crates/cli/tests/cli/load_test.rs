use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Child, Stdio};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use aws_sdk_dynamodb::types::AttributeValue;
use aws_sdk_sqs::types::{MessageSystemAttributeName, QueueAttributeName, SendMessageBatchRequestEntry};
use aws_smithy_types::DateTime;
use aws_smithy_types::date_time::Format;
use nightshift_aws::DynamoLedger;
use nightshift_core::input_hash::InputHash;
use nightshift_core::job;
use nightshift_core::record::{Budget, Done, Expect, Record, RecordWrite, Revision, State};
use nightshift_core::spend::UtcDay;
use nightshift_ports::Ledger;
use serde_json::{Value, json};
use tokio::task::JoinHandle;

use crate::support::{ACCOUNT, LEDGER, REGION, Ran, Stand};

#[allow(clippy::disallowed_methods)] // What stands in for the worker dates its records.
fn now_ms() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_millis() as u64
}

async fn stand() -> Stand {
    let stand = Stand::start().await;
    stand.set("NIGHTSHIFT_PROVIDER", "rehearsal");
    stand.set("NIGHTSHIFT_MODEL", "seed=1");
    let function = json!({"Timeout": 300, "LastModified": "2099-11-26T10:00:00.000+0000"});
    stand.say("lambda:GetFunction", json!({"Configuration": function}));
    stand.say("lambda:ListVersionsByFunction", json!({"Versions": [{"Version": "7"}]}));
    runs_at_once(&stand, 1_000);
    stand.say("cloudwatch:DescribeAlarms", raised(&[]));
    stand.say("cloudwatch:GetMetricData", json!({"MetricDataResults": []}));
    hide_for(&stand, "1800").await;
    stand
}

/// So many functions may run at once that nobody has reserved.
fn runs_at_once(stand: &Stand, unreserved: u32) {
    let limit = json!({"ConcurrentExecutions": 1_000, "UnreservedConcurrentExecutions": unreserved});
    stand.say("lambda:GetAccountSettings", json!({"AccountLimit": limit}));
}

/// Alarms of these stacks that are raised.
fn raised(prefixes: &[&str]) -> Value {
    let alarm = |prefix: &&str| {
        json!({
            "AlarmName": format!("{prefix}-no-progress"),
            "AlarmDescription": "Nothing moves. Runbook: https://git.example/runbook/no-progress.md",
            "StateValue": "ALARM", "AlarmActions": ["arn:aws:sns:eu-central-1:000000000000:page"],
        })
    };
    json!({"MetricAlarms": prefixes.iter().map(alarm).collect::<Vec<_>>(), "CompositeAlarms": []})
}

/// Sets the visibility timeout of the jobs queue, in seconds.
async fn hide_for(stand: &Stand, seconds: &str) {
    let queue = aws_sdk_sqs::Client::new(&stand.sdk()).set_queue_attributes();
    let queue = queue.queue_url(stand.aws.queue_url("nightshift-jobs"));
    queue.attributes(QueueAttributeName::VisibilityTimeout, seconds).send().await.unwrap();
}

/// A worker that gives each job a result at once.
fn worker(stand: &Stand) -> JoinHandle<()> {
    worker_of(stand, usize::MAX, 0)
}

/// One that does so for the first jobs alone, by a clock that is so far behind.
fn worker_of(stand: &Stand, mut jobs: usize, behind_ms: u64) -> JoinHandle<()> {
    let (sdk, url) = (stand.sdk(), stand.aws.queue_url("nightshift-jobs"));
    tokio::spawn(async move {
        let (sqs, ledger) = (aws_sdk_sqs::Client::new(&sdk), DynamoLedger::new(&sdk, LEDGER));
        loop {
            let most = i32::try_from(jobs.min(10)).unwrap();
            if most == 0 {
                return;
            }
            let got = sqs.receive_message().queue_url(&url).max_number_of_messages(most).wait_time_seconds(1);
            for message in got.send().await.unwrap().messages() {
                let job = job::parse(message.body().unwrap(), usize::MAX).unwrap();
                let key = InputHash::of_job(&job.task, &job.input);
                let done = done(key, &job.task, job.reference.as_deref(), now_ms() - behind_ms);
                ledger.write(&RecordWrite { record: done, expect: Expect::Absent }).await.unwrap();
                let handle = message.receipt_handle().unwrap();
                sqs.delete_message().queue_url(&url).receipt_handle(handle).send().await.unwrap();
                jobs -= 1;
            }
        }
    })
}

fn done(key: InputHash, task: &str, reference: Option<&str>, now_ms: u64) -> Record {
    Record {
        key,
        task: Some(task.to_owned()),
        reference: reference.map(str::to_owned),
        version: 2,
        token: "t".to_owned(),
        state: State::Done(Box::new(Done {
            output: Value::from(1),
            needs_review: false,
            reviewed: false,
            revision: Revision::default(),
            model: "rehearsal".to_owned(),
            finished_at_ms: now_ms,
        })),
        previous: None,
        message_id: "m".to_owned(),
        sent_at_ms: now_ms,
        first_received_ms: now_ms,
        last_claimed_ms: now_ms,
        budget: Budget { calls: 1, ..Budget::default() },
        redrives: 0,
        history: Vec::new(),
        letter_version: None,
        erased: None,
        kept: None,
        reviewed: None,
        expires_at_ms: now_ms + 1_000_000,
    }
}

/// Four jobs a second for three seconds. A machine that is slow to send them is no part of these tests.
const SMALL: [&str; 10] = [
    "load-test",
    "--expected-per-hour",
    "7200",
    "--minutes",
    "0.05",
    "--warm-up-s",
    "0",
    "--send-delay-s",
    "600",
    "--yes",
];

fn run(stand: &Stand, more: &[&str]) -> Ran {
    stand.run(&[SMALL.as_slice(), more].concat())
}

/// One that runs until it is stopped or thinks better of it.
fn long(stand: &Stand, more: &[&str]) -> Child {
    let flags = [
        "load-test",
        "--expected-per-hour",
        "36000",
        "--warm-up-s",
        "0",
        "--p95-s",
        "600",
        "--send-delay-s",
        "600",
        "--yes",
    ];
    let mut command = stand.command(&[flags.as_slice(), more].concat());
    command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap()
}

fn ended(child: Child) -> Ran {
    Ran::of(tokio::task::block_in_place(|| child.wait_with_output().unwrap()))
}

/// As if the lease had not been renewed for two minutes.
async fn lease_ends(stand: &Stand) {
    let lease = aws_sdk_dynamodb::Client::new(&stand.sdk()).update_item().table_name(LEDGER);
    let lease = lease
        .key("id", AttributeValue::S("load-test".to_owned()))
        .update_expression("SET alive_ms = :long_ago");
    lease.expression_attribute_values(":long_ago", AttributeValue::N("0".to_owned())).send().await.unwrap();
}

async fn until(holds: impl Fn() -> bool) {
    while !holds() {
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

/// Whether any trace of a test is there.
fn is_clean(stand: &Stand) -> bool {
    let queues = ["nightshift-jobs", "nightshift-dead-letters", "nightshift-crashed"];
    queues.iter().all(|queue| stand.aws.messages(queue).is_empty())
        && stand.items("").iter().all(|item| item["id"].as_str().is_some_and(|id| id.starts_with("trace#")))
}

/// Whether the ledger has neither a lease nor a record.
fn is_clean_of_tests(stand: &Stand) -> bool {
    stand.items("").iter().all(|item| item["id"].as_str().is_some_and(|id| id.starts_with("trace#")))
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stack_that_stands_the_load_gets_a_yes_and_a_page_and_keeps_nothing() {
    let stand = stand().await;
    let worker = worker(&stand);
    let folder = tempfile::tempdir().unwrap();
    let page = folder.path().join("report.html");
    // Slow machines are no part of this test.
    let ran = run(&stand, &["--p95-s", "600", "--page", page.to_str().unwrap(), "--output", "json"]).ok();
    worker.abort();
    let report: Value = serde_json::from_str(&ran.out).unwrap();
    assert_eq!(
        (&report["verdict"]["passed"], &report["measured"]["accepted"]),
        (&json!(true), &json!(12)),
        "{ran:?}"
    );
    assert_eq!(report["measured"]["outcomes"]["results"], 12);
    // To be looked at.
    std::fs::copy(&page, concat!(env!("CARGO_TARGET_TMPDIR"), "/load-test.html")).unwrap();
    let page = std::fs::read_to_string(page).unwrap();
    assert_eq!(page.matches("<svg").count(), 3);
    for outside in ["http:", "https:", "src=", "url(", "@import", "<script", "<link"] {
        assert!(!page.contains(outside), "the page needs {outside}");
    }
    assert!(is_clean(&stand), "{:?}", stand.items(""));
    let trace = &stand.items("trace#")[0];
    assert_eq!(trace["outcome"], "the verdict is yes");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stack_that_does_not_work_and_an_impossible_threshold_get_a_no_and_keep_nothing() {
    let stand = stand().await;
    let stuck = run(&stand, &["--drain-s", "1"]);
    assert_eq!(stuck.code, 3, "{stuck:?}");
    assert!(stuck.out.contains("backlog\tNO\t12 jobs had not ended"), "{stuck:?}");
    assert!(is_clean(&stand), "{:?}", stand.items(""));

    let worker = worker(&stand);
    let impossible = run(&stand, &["--p95-s", "600", "--success-percent", "100.1"]);
    worker.abort();
    assert_eq!(impossible.code, 3, "{impossible:?}");
    assert!(impossible.out.contains("success\tNO\t100.00 %"), "{impossible:?}");
    assert_eq!(impossible.out.matches("\tNO\t").count(), 1, "{impossible:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_verdict_is_about_the_queue_and_the_event_source_as_they_are_and_not_as_the_worker_is_told() {
    let stand = stand().await;
    hide_for(&stand, "30").await;
    stand.say(
        "lambda:ListEventSourceMappings",
        json!({"EventSourceMappings": [{
            "FunctionArn": format!("arn:aws:lambda:{REGION}:{ACCOUNT}:function:nightshift-worker:live"),
            "EventSourceArn": format!("arn:aws:sqs:{REGION}:{ACCOUNT}:nightshift-jobs"), "UUID": "u",
            "State": "Enabled", "BatchSize": 3, "ScalingConfig": {"MaximumConcurrency": 2},
        }]}),
    );
    let worker = worker(&stand);
    let ran = run(&stand, &["--p95-s", "600", "--output", "json"]);
    worker.abort();
    let report: Value = serde_json::from_str(&ran.out).unwrap();
    let findings = report["verdict"]["findings"].as_array().unwrap();
    let no: Vec<_> = findings.iter().filter(|finding| finding["holds"] == "no").collect();
    assert!(
        matches!(no.as_slice(), [only] if only["words"].as_str().unwrap().contains("VISIBILITY_TIMEOUT_MS (30000)")),
        "{no:?}"
    );
    let settings = report["tested"]["settings"].to_string();
    for setting in
        [r#"["maximum concurrency","2"]"#, r#"["batch size","3"]"#, r#"["visibility timeout","30 s"]"#]
    {
        assert!(settings.contains(setting), "{settings}");
    }
    assert!(ran.code == 3 && ran.err.contains("nightshift doctor"), "{ran:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_load_is_raised_in_steps_until_something_gives_and_the_verdict_is_about_the_test() {
    let stand = stand().await;
    // 12 of the test and 18 of the first step; of the second one's 27, three.
    let worker = worker_of(&stand, 33, 0);
    let steps = ["--step-minutes", "0.05", "--p95-s", "600", "--drain-s", "8", "--output", "json"];
    let ran = run(&stand, &steps).ok();
    worker.abort();
    let report: Value = serde_json::from_str(&ran.out).unwrap();
    let headroom = &report["verdict"]["headroom"];
    let tried: Vec<_> = headroom["steps"].as_array().unwrap().iter().map(|step| &step["per_hour"]).collect();
    assert_eq!(tried, [14_400.0, 21_600.0, 32_400.0], "{headroom}");
    assert_eq!(
        (&headroom["ended"], &headroom["first"]["how"]),
        (&json!("gave"), &json!("tested")),
        "{headroom}"
    );
    let first = (&headroom["first"]["per_hour"], &headroom["first"]["limited"]);
    assert_eq!(first, (&json!(32_400.0), &json!("queue_age")), "{headroom}");
    assert_eq!((&report["measured"]["accepted"], &report["plan"]["factor"]), (&json!(12), &json!(2.0)));
    assert!(is_clean(&stand), "{:?}", stand.items(""));
}

#[tokio::test(flavor = "multi_thread")]
async fn other_peoples_jobs_and_a_real_model_without_a_budget_are_refused() {
    let stand = stand().await;
    let sqs = aws_sdk_sqs::Client::new(&stand.sdk());
    let url = stand.aws.queue_url("nightshift-dead-letters");
    sqs.send_message().queue_url(&url).message_body("{}").send().await.unwrap();
    let folder = tempfile::tempdir().unwrap();
    let page = folder.path().join("report.html");
    let message = run(&stand, &["--page", page.to_str().unwrap()]);
    assert!(
        message.code == 1 && message.err.contains("nightshift-dead-letters holds 1 message"),
        "{message:?}"
    );
    assert!(!page.exists(), "it would be in the way of the next one");
    stand.empty("nightshift-dead-letters").await;

    let ledger = DynamoLedger::new(&stand.sdk(), LEDGER);
    let record = done(InputHash::of_body("theirs"), "t", Some("ticket-1"), now_ms());
    ledger.write(&RecordWrite { record, expect: Expect::Absent }).await.unwrap();
    let record = run(&stand, &[]);
    assert!(record.code == 1 && record.err.contains("its ledger has the record"), "{record:?}");

    stand.set("NIGHTSHIFT_PROVIDER", "anthropic");
    stand.set("NIGHTSHIFT_MODEL", "claude-haiku-4-5");
    let real = run(&stand, &[]);
    assert!(real.code == 2 && real.err.contains("--budget-usd"), "{real:?}");
    let dear = run(&stand, &["--budget-usd", "0.000001"]);
    assert!(dear.code == 2 && dear.err.contains("more than --budget-usd"), "{dear:?}");
    assert!(stand.aws.messages("nightshift-jobs").is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_killed_test_left_is_removed_by_the_next_one() {
    let stand = stand().await;
    let mut killed = long(&stand, &[]);
    until(|| stand.aws.messages("nightshift-jobs").len() >= 5).await;
    killed.kill().unwrap();
    killed.wait().unwrap();
    let worker = worker(&stand);
    let soon = run(&stand, &[]);
    assert!(soon.code == 1 && soon.err.contains("was killed within the last two minutes"), "{soon:?}");

    lease_ends(&stand).await;
    let again = run(&stand, &["--p95-s", "600", "--output", "json"]).ok();
    worker.abort();
    let report: Value = serde_json::from_str(&again.out).unwrap();
    assert_eq!(report["measured"]["accepted"], 12, "the killed test's jobs are in nobody's numbers");
    assert!(is_clean(&stand), "{:?}", stand.items(""));
    // A removal is in the trace before it begins.
    let asked = stand.asked();
    let first = |action: &str, key: &str| {
        asked.iter().position(|(did, body)| did.ends_with(action) && body.to_string().contains(key))
    };
    let (traced, removes) = (first(":PutItem", "trace#").unwrap(), first(":ReceiveMessage", "").unwrap());
    assert!(traced < removes, "{traced} {removes}");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_left_without_a_lease_is_removed_by_whoever_asks_for_it() {
    let stand = stand().await;
    let (sdk, url) = (stand.sdk(), stand.aws.queue_url("nightshift-jobs"));
    let body = json!({"task": "t", "input": "x", "reference": "nightshift-load-test/r/1"}).to_string();
    aws_sdk_sqs::Client::new(&sdk).send_message().queue_url(&url).message_body(body).send().await.unwrap();
    let record = done(InputHash::of_body("late"), "t", Some("nightshift-load-test/r/2"), now_ms());
    let record = RecordWrite { record, expect: Expect::Absent };
    DynamoLedger::new(&sdk, LEDGER).write(&record).await.unwrap();
    let refused = run(&stand, &[]);
    assert!(refused.code == 1 && refused.err.contains("load-test --clean-up` removes those"), "{refused:?}");
    let removed = stand.run(&["load-test", "--clean-up", "--yes"]).ok();
    assert!(removed.err.contains("Removed 1 message and 1 record of load tests."), "{removed:?}");
    assert!(is_clean(&stand), "{:?}", stand.items(""));
    let nothing = stand.run(&["load-test", "--clean-up", "--yes"]).ok();
    assert!(nothing.err.contains("Nothing of a load test was left."), "{nothing:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_clean_up_of_a_stack_that_works_for_others_ends_and_costs_their_jobs_next_to_nothing() {
    let stand = stand().await;
    let (sdk, url) = (stand.sdk(), stand.aws.queue_url("nightshift-jobs"));
    let sqs = aws_sdk_sqs::Client::new(&sdk);
    let arrivals = tokio::spawn({
        let (sqs, url) = (sqs.clone(), url.clone());
        async move {
            for job in 0_u64.. {
                let entry = |n: u64| {
                    let body = json!({"task": "t", "input": job * 10 + n}).to_string();
                    let entry = SendMessageBatchRequestEntry::builder().id(n.to_string()).message_body(body);
                    entry.build().unwrap()
                };
                let entries = Some((0..4).map(entry).collect());
                sqs.send_message_batch().queue_url(&url).set_entries(entries).send().await.unwrap();
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        }
    });
    until(|| !stand.aws.messages("nightshift-jobs").is_empty()).await;
    // A worker has one.
    let got = sqs.receive_message().queue_url(&url).visibility_timeout(600).send().await.unwrap();
    assert_eq!(got.messages().len(), 1);
    let refused = run(&stand, &[]);
    assert!(refused.code == 1 && refused.err.contains("other people's jobs"), "{refused:?}");
    assert!(!refused.err.contains("--clean-up"), "no test was here: {refused:?}");
    let reference = "nightshift-load-test/r/1";
    let record = done(InputHash::of_body(reference), "t", Some(reference), now_ms());
    let record = RecordWrite { record, expect: Expect::Absent };
    DynamoLedger::new(&sdk, LEDGER).write(&record).await.unwrap();
    let refused = run(&stand, &[]);
    assert!(refused.err.contains("load-test --clean-up` removes those"), "{refused:?}");

    let mut command = stand.command(&["load-test", "--clean-up", "--yes"]);
    let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let ends = async {
        while child.try_wait().unwrap().is_none() {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    };
    let in_time = tokio::time::timeout(Duration::from_secs(60), ends).await;
    arrivals.abort();
    if in_time.is_err() {
        child.kill().unwrap();
    }
    let ran = Ran::of(child.wait_with_output().unwrap());
    assert!(in_time.is_ok(), "it never ends: {ran:?}");
    for words in ["not known to be a test's: other people's jobs stay", "Removed 0 messages and 1 record"] {
        assert!(ran.code == 0 && ran.err.contains(words), "{ran:?}");
    }
    assert!(is_clean_of_tests(&stand), "{:?}", stand.items(""));
    let (mut seen, mut most) = (0, 0);
    loop {
        let count = MessageSystemAttributeName::ApproximateReceiveCount;
        let got = sqs.receive_message().queue_url(&url).max_number_of_messages(10).visibility_timeout(600);
        let got = got.message_system_attribute_names(count.clone()).send().await.unwrap();
        for message in got.messages() {
            let count: u32 = message.attributes().unwrap()[&count].parse().unwrap();
            // This one is a receive, too.
            most = most.max(count - 1);
            seen += 1;
        }
        if got.messages().is_empty() {
            break;
        }
    }
    assert_eq!(seen + 1, stand.aws.messages("nightshift-jobs").len(), "all others are given back");
    assert!(seen > 0 && most <= 3, "{most} receives");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_clean_up_that_was_interrupted_is_no_test_that_left_something() {
    let stand = stand().await;
    let (sdk, url) = (stand.sdk(), stand.aws.queue_url("nightshift-jobs"));
    let sqs = aws_sdk_sqs::Client::new(&sdk);
    sqs.send_message().queue_url(&url).message_body(r#"{"task": "t", "input": 1}"#).send().await.unwrap();
    // A worker has it.
    sqs.receive_message().queue_url(&url).visibility_timeout(600).send().await.unwrap();
    stand.hang(Some("AmazonSQS:ReceiveMessage"));
    let mut command = stand.command(&["load-test", "--clean-up", "--yes"]);
    let mut killed = command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
    until(|| stand.asked().iter().any(|(action, _)| action == "AmazonSQS:ReceiveMessage")).await;
    killed.kill().unwrap();
    killed.wait().unwrap();
    stand.hang(None);
    lease_ends(&stand).await;
    let refused = run(&stand, &[]);
    assert!(refused.code == 1 && refused.err.contains("other people's jobs"), "{refused:?}");
    let again = stand.run(&["load-test", "--clean-up", "--yes"]).ok();
    assert!(again.err.contains("not known to be a test's: other people's jobs stay"), "{again:?}");
    assert!(is_clean_of_tests(&stand), "{:?}", stand.items(""));
}

#[tokio::test(flavor = "multi_thread")]
async fn what_cannot_be_is_told_without_a_stack_to_whoever_only_checks() {
    let stand = stand().await;
    let folder = tempfile::tempdir().unwrap();
    let page = folder.path().join("report.html");
    let no_folder = folder.path().join("none/report.html");
    let (page, no_folder) = (page.to_str().unwrap(), no_folder.to_str().unwrap());
    let check = |more: &[&str]| stand.run(&[&["load-test", "--check"], more].concat());
    for (more, code, said) in [
        (vec!["--expected-per-hour", "60", "--page", page], 0, ""),
        (vec!["--factor", "2"], 2, "--expected-per-hour"),
        (vec!["--expected-per-hour", "60", "--minutes", "x"], 2, "--minutes"),
        (vec!["--expected-per-hour", "99999999999"], 2, "are more than a test sends"),
        (vec!["--expected-per-hour", "60", "--task", "nobodys"], 2, "There is no task nobodys"),
        (vec!["--expected-per-hour", "60", "--page", no_folder], 5, "report.html"),
    ] {
        let ran = check(&more);
        assert!(ran.code == code && ran.err.contains(said), "{more:?}: {ran:?}");
    }
    assert!(!Path::new(page).exists() && stand.asked().is_empty(), "{:?}", stand.asked());
}

#[tokio::test(flavor = "multi_thread")]
async fn whoever_has_no_stack_is_told_what_makes_one_and_takes_it_away() {
    let stand = stand().await;
    let ran = stand.run(&["--prefix", "load-test", "load-test", "--expected-per-hour", "60", "--yes"]);
    let said = "There is no stack load-test in eu-central-1 in this account: check --prefix, --region and AWS_PROFILE, or have \
                `scripts/load-test` in the repository make one, test it and take it away.";
    assert!(ran.code == 5 && ran.err.contains(said), "{ran:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn ctrl_c_gives_a_verdict_on_what_was_sent() {
    let stand = stand().await;
    let worker = worker(&stand);
    let child = long(&stand, &[]);
    until(|| stand.items("").iter().filter(|item| item["state"] == "done").count() >= 5).await;
    rustix::process::kill_process(rustix::process::Pid::from_child(&child), rustix::process::Signal::INT)
        .unwrap();
    let Ran { code, out, .. } = ended(child);
    worker.abort();
    assert_eq!(code, 3, "{out}");
    assert!(out.contains("complete\tNO\tThe test was stopped when"), "{out}");
    assert_eq!(out.matches("\tNO\t").count(), 1, "{out}");
    assert!(is_clean(&stand), "{:?}", stand.items(""));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_second_ctrl_c_leaves_no_page_in_the_way_of_the_next_test() {
    let stand = stand().await;
    let folder = tempfile::tempdir().unwrap();
    let page = folder.path().join("report.html");
    let test = long(&stand, &["--page", page.to_str().unwrap()]);
    until(|| !stand.aws.messages("nightshift-jobs").is_empty() && page.exists()).await;
    let stop = || {
        let pid = rustix::process::Pid::from_child(&test);
        rustix::process::kill_process(pid, rustix::process::Signal::INT).unwrap();
    };
    let looks = || times(&stand, "AmazonSQS:GetQueueAttributes");
    stop();
    // It waits for what was sent, which nobody works on.
    let before = looks();
    until(|| looks() > before + 4).await;
    stop();
    let ran = ended(test);
    assert!(ran.code == 130 && !page.exists(), "{ran:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn ctrl_c_while_the_alarms_are_looked_at_leaves_them_unknown_and_the_verdict_incomplete() {
    let stand = stand().await;
    // As on AWS, where alarms come late.
    let queue = |name: &str| format!("https://sqs.{REGION}.amazonaws.com/{ACCOUNT}/{name}");
    stand.set("NIGHTSHIFT_JOBS_URL", &queue("nightshift-jobs"));
    stand.set("NIGHTSHIFT_DEAD_LETTERS_URL", &queue("nightshift-dead-letters"));
    let worker = worker(&stand);
    let mut test = long(&stand, &["--minutes", "0.05"]);
    let mut told = BufReader::new(test.stderr.take().unwrap());
    let mut err = String::new();
    tokio::task::block_in_place(|| {
        while !err.contains("Looks at the alarms for") && told.read_line(&mut err).unwrap() > 0 {}
    });
    let stop = || {
        let pid = rustix::process::Pid::from_child(&test);
        rustix::process::kill_process(pid, rustix::process::Signal::INT).unwrap();
    };
    stop();
    // The queues are looked at for two minutes before the test's end.
    tokio::task::block_in_place(|| {
        while !err.contains("what may be left") && told.read_line(&mut err).unwrap() > 0 {}
    });
    stop();
    let Ran { code, out, .. } = ended(test);
    worker.abort();
    assert!(code == 130 && out.contains("alarms\tunknown\t"), "{out} {err}");
    let complete = out.lines().find(|line| line.starts_with("complete\tNO\t")).unwrap_or_default();
    assert!(complete.contains("before the alarms had seen what its last jobs did"), "{out} {err}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_test_whose_lease_another_one_took_over_gives_no_verdict() {
    let stand = stand().await;
    let folder = tempfile::tempdir().unwrap();
    let page = folder.path().join("report.html");
    let first = long(&stand, &["--page", page.to_str().unwrap()]);
    until(|| stand.aws.messages("nightshift-jobs").len() >= 5).await;
    // The machine slept, and somebody else saw a test that was dead.
    lease_ends(&stand).await;
    stand.run(&["load-test", "--clean-up", "--yes"]).ok();
    let first = ended(first);
    assert!(first.code == 1 && first.err.contains("was taken for dead"), "{first:?}");
    assert!(!first.out.contains("success"), "{first:?}");
    assert!(!page.exists(), "it is told to run it again");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_clock_that_is_ahead_makes_no_latency_small() {
    let stand = stand().await;
    let behind_ms = 600_000;
    stand.date(&DateTime::from_millis((now_ms() - behind_ms) as i64).fmt(Format::HttpDate).unwrap());
    let worker = worker_of(&stand, usize::MAX, behind_ms);
    let ran = run(&stand, &["--p95-s", "600", "--output", "json"]).ok();
    worker.abort();
    let report: Value = serde_json::from_str(&ran.out).unwrap();
    let latency = &report["measured"]["latency"];
    let p50_ms = latency["p50_ms"].as_u64().unwrap();
    assert!((1..behind_ms / 2).contains(&p50_ms), "{latency}");
}

#[tokio::test(flavor = "multi_thread")]
async fn alarms_count_that_are_this_stacks_and_where_none_could_be_read_nothing_is_known() {
    let stand = stand().await;
    let worker = worker(&stand);
    let alarms = |ran: &Ran| {
        let line = ran.out.lines().find(|line| line.starts_with("alarms\t")).map(str::to_owned);
        line.unwrap_or_else(|| panic!("{ran:?}"))
    };
    stand.say("cloudwatch:DescribeAlarms", Value::from(vec![raised(&[]), raised(&["nightshift-2"])]));
    let other = run(&stand, &["--p95-s", "600"]).ok();
    assert_eq!(alarms(&other), "alarms\tyes\tNo alarm was raised.");
    stand.say("cloudwatch:DescribeAlarms", Value::from(vec![raised(&[]), raised(&["nightshift"])]));
    let own = run(&stand, &["--p95-s", "600"]);
    assert_eq!(
        (own.code, alarms(&own).as_str()),
        (3, "alarms\tNO\tRaised during the test: nightshift-no-progress.")
    );
    // One that ended and came back.
    stand.say(
        "cloudwatch:DescribeAlarms",
        Value::from(vec![raised(&["nightshift"]), raised(&[]), raised(&["nightshift"])]),
    );
    let back = run(&stand, &["--p95-s", "600"]);
    assert_eq!(alarms(&back), "alarms\tNO\tRaised during the test: nightshift-no-progress.");
    stand.refuse("cloudwatch:DescribeAlarms", "AccessDenied");
    let unread = run(&stand, &["--p95-s", "600"]).ok();
    worker.abort();
    assert!(alarms(&unread).starts_with("alarms\tunknown\t"), "{unread:?}");
}

/// An error of AWS's that may pass.
const FAILS: &str = "InternalFailure";

/// How often this was asked.
fn times(stand: &Stand, action: &str) -> usize {
    stand.asked().iter().filter(|(asked, _)| asked == action).count()
}

#[tokio::test(flavor = "multi_thread")]
async fn what_fails_for_a_moment_costs_no_verdict() {
    let stand = stand().await;
    let worker = worker(&stand);
    let test = long(&stand, &["--minutes", "0.05"]);
    for (action, of_the_test) in [
        ("AmazonSQS:SendMessageBatch", "AmazonSQS:SendMessageBatch"),
        // Before a test is begun and after it, too; and what became of the jobs is read once all is sent.
        ("AmazonSQS:GetQueueAttributes", "AmazonSQS:SendMessageBatch"),
        ("DynamoDB_20120810:BatchGetItem", "AmazonSQS:SendMessageBatch"),
    ] {
        until(|| times(&stand, of_the_test) > 2).await;
        stand.refuse(action, FAILS);
        let before = times(&stand, action);
        until(|| times(&stand, action) > before).await;
        stand.allow(action);
    }
    let ran = ended(test).ok();
    worker.abort();
    assert!(ran.out.contains("complete\tyes\tThe test ran to its end, with 60 jobs."), "{ran:?}");
    assert!(ran.err.contains("Does it stand ") && ran.err.contains(" minutes? Yes."), "{ran:?}");
    assert!(is_clean(&stand), "{:?}", stand.items(""));
}

#[tokio::test(flavor = "multi_thread")]
async fn what_fails_for_good_ends_the_sending_with_a_verdict_on_what_was_sent() {
    let stand = stand().await;
    let worker = worker(&stand);
    let test = long(&stand, &[]);
    until(|| times(&stand, "AmazonSQS:SendMessageBatch") > 5).await;
    stand.refuse("AmazonSQS:SendMessageBatch", FAILS);
    let ran = ended(test);
    worker.abort();
    let complete = ran.out.lines().find(|line| line.starts_with("complete\tNO\t")).unwrap_or_default();
    for words in ["The test was stopped when", "sqs:SendMessage failed: InternalFailure"] {
        assert!(complete.contains(words), "{ran:?}");
    }
    assert!(ran.code == 3 && ran.out.contains("nothing lost\tyes"), "{ran:?}");
    assert!(is_clean(&stand), "{:?}", stand.items(""));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_step_that_fails_here_leaves_the_verdict_of_the_test() {
    let stand = stand().await;
    let worker = worker(&stand);
    let steps = ["--step-minutes", "0.05", "--p95-s", "600", "--output", "json"];
    let mut command = stand.command(&[SMALL.as_slice(), &steps].concat());
    let test = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    // Twelve of the test, a batch each.
    until(|| times(&stand, "AmazonSQS:SendMessageBatch") > 12).await;
    stand.refuse("AmazonSQS:SendMessageBatch", FAILS);
    let ran = ended(test).ok();
    worker.abort();
    let report: Value = serde_json::from_str(&ran.out).unwrap();
    let (headroom, passed) = (&report["verdict"]["headroom"], &report["verdict"]["passed"]);
    assert_eq!((passed, &headroom["ended"]), (&json!(true), &json!("failed")), "{headroom}");
    assert!(is_clean(&stand), "{:?}", stand.items(""));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stack_that_is_paused_is_not_tested() {
    let stand = stand().await;
    stand.run(&["pause", "--reason", "INC-42", "--yes"]).ok();
    let ran = run(&stand, &[]);
    assert!(ran.code == 1 && ran.err.contains("INC-42") && ran.err.contains("resume"), "{ran:?}");
    assert!(
        stand.aws.messages("nightshift-jobs").is_empty() && stand.items("load-test").is_empty(),
        "{ran:?}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_message_of_somebody_else_stays_and_is_in_nobodys_way() {
    let stand = stand().await;
    let worker = worker(&stand);
    let test = long(&stand, &["--minutes", "0.05"]);
    // Before that it would be refused.
    until(|| times(&stand, "AmazonSQS:SendMessageBatch") > 0).await;
    let sqs = aws_sdk_sqs::Client::new(&stand.sdk());
    let url = stand.aws.queue_url("nightshift-dead-letters");
    sqs.send_message().queue_url(&url).message_body("{}").send().await.unwrap();
    let ran = ended(test).ok();
    worker.abort();
    assert!(ran.err.contains("1 message of nightshift-dead-letters is not a test's, and stays."), "{ran:?}");
    assert_eq!(stand.aws.messages("nightshift-dead-letters").len(), 1);
    assert!(stand.items("load-test").is_empty() && stand.aws.messages("nightshift-jobs").is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn no_more_is_sent_once_the_budget_is_spent() {
    let stand = stand().await;
    stand.set("NIGHTSHIFT_PROVIDER", "anthropic");
    stand.set("NIGHTSHIFT_MODEL", "claude-haiku-4-5");
    let worker = worker(&stand);
    let test = long(&stand, &["--budget-usd", "1000"]);
    until(|| stand.items("").iter().any(|item| item["state"] == "done")).await;
    // Each job takes more calls than one.
    let spend = aws_sdk_dynamodb::Client::new(&stand.sdk()).put_item().table_name(LEDGER);
    let spend = spend.item("id", AttributeValue::S(format!("spend#{}", UtcDay::of(now_ms()))));
    spend.item("committed_micro_usd", AttributeValue::N("1000000001".to_owned())).send().await.unwrap();
    let ran = ended(test);
    worker.abort();
    assert!(ran.code == 3 && ran.err.contains("What --budget-usd allows is spent"), "{ran:?}");
    assert!(ran.out.contains("complete\tNO\tThe test was stopped when"), "{ran:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_the_account_runs_at_once_is_a_limit_of_the_stack() {
    let stand = stand().await;
    runs_at_once(&stand, 2);
    let worker = worker(&stand);
    let ran = run(&stand, &["--p95-s", "600", "--output", "json"]);
    worker.abort();
    let report: Value = serde_json::from_str(&ran.out).unwrap();
    assert!(report["tested"]["settings"].to_string().contains(r#"["maximum concurrency","2"]"#), "{ran:?}");
}
