//! Commands that read the ledger: dead letters, jobs, results, and what became of what was enqueued.

use std::process::Stdio;

use nightshift_aws::DynamoLedger;
use nightshift_core::failure::FailureReason;
use nightshift_core::input_hash::InputHash;
use nightshift_core::record::{Budget, Done, Expect, Failed, Record, RecordWrite, Revision, State};
use nightshift_ports::Ledger;
use serde_json::{Value, json};

use crate::support::{LEDGER, Ran, Stand, write};

const HOUR_MS: u64 = 3_600_000;
/// Late in 2026, and not on the hour.
const FAILED_MS: u64 = 1_795_500_123_456;

pub fn record(text: &str, state: State) -> Record {
    Record {
        key: InputHash::of_job("categorize_ticket", &json!({ "text": text })),
        task: Some("categorize_ticket".to_owned()),
        reference: Some(format!("ref {text}\u{1b}[2J")),
        version: 1,
        token: "t".to_owned(),
        state,
        previous: None,
        message_id: "m".to_owned(),
        sent_at_ms: FAILED_MS - 2_000,
        first_received_ms: FAILED_MS - 1_000,
        last_claimed_ms: FAILED_MS - 1_000,
        budget: Budget { claims: 1, calls: 2, cost_micro_usd: 1_500, ..Budget::default() },
        redrives: 0,
        history: Vec::new(),
        letter_version: None,
        erased: None,
        kept: None,
        reviewed: None,
        expires_at_ms: 4_000_000_000_000,
    }
}

pub fn failed(reason: FailureReason, failed_at_ms: u64) -> State {
    State::Failed(Box::new(Failed {
        reason,
        detail: "=HYPERLINK(\"x\") is what it said.".to_owned(),
        failed_at_ms,
        request_id: Some("req_1".to_owned()),
        excerpt: Some("an answer of the model".to_owned()),
        revision: Revision { hash: "abc".to_owned(), ..Revision::default() },
    }))
}

fn done(output: Value, needs_review: bool, finished_at_ms: u64) -> State {
    State::Done(Box::new(Done {
        output,
        needs_review,
        reviewed: false,
        revision: Revision { hash: "abc".to_owned(), ..Revision::default() },
        model: "claude-haiku-4-5".to_owned(),
        finished_at_ms,
    }))
}

impl Stand {
    pub async fn put(&self, record: Record) -> String {
        let ledger = DynamoLedger::new(&self.sdk(), LEDGER);
        let key = record.key.to_string();
        ledger.write(&RecordWrite { record, expect: Expect::Absent }).await.unwrap();
        key
    }
}

fn rows(text: &str) -> Vec<Value> {
    text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn dead_letters_are_counted_listed_shown_and_exported_from_the_ledger() {
    let stand = Stand::start().await;
    let refused = stand.put(record("a", failed(FailureReason::Refused, FAILED_MS))).await;
    stand.put(record("b", failed(FailureReason::Refused, FAILED_MS + 1_000))).await;
    stand.put(record("c", failed(FailureReason::InvalidOutput, FAILED_MS + HOUR_MS))).await;
    stand.put(record("d", done(json!({}), false, FAILED_MS))).await;

    let groups = stand.run(&["dead-letters", "list", "--output", "json"]).ok();
    let counts: Vec<_> =
        rows(&groups.out).iter().map(|g| (g["reason"].clone(), g["count"].clone())).collect();
    assert_eq!(counts, [(json!("invalid_output"), json!(1)), (json!("refused"), json!(2))]);
    let filtered = stand
        .run(&[
            "dead-letters",
            "list",
            "--each",
            "--reason",
            "refused",
            "--until",
            "2026-11-24T06:02:04Z",
            "--output",
            "json",
        ])
        .ok();
    assert!(rows(&filtered.out).len() <= 2, "{filtered:?}");

    let shown = stand.run(&["dead-letters", "show", &refused]).ok();
    assert!(
        shown.out.contains("REFERENCE\tref a\\u{1b}[2J\n") && !shown.out.contains("an answer of the model"),
        "{shown:?}"
    );
    let shown = stand.run(&["dead-letters", "show", &refused, "--excerpt"]).ok();
    assert!(shown.out.contains("EXCERPT\tan answer of the model\n"), "{shown:?}");
    assert_eq!(stand.run(&["dead-letters", "show", &"0".repeat(64)]).code, 5);

    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("failed.csv");
    let exported =
        stand.run(&["dead-letters", "export", "--output", "csv", "--to", file.to_str().unwrap()]).ok();
    assert!(exported.out.is_empty() && exported.err.contains("3 failures exported"), "{exported:?}");
    let csv = std::fs::read_to_string(&file).unwrap();
    assert!(csv.contains("\"'=HYPERLINK(\"\"x\"\") is what it said.\""), "{csv}");
    let again = stand.run(&["dead-letters", "export", "--to", file.to_str().unwrap()]);
    assert!(again.code == 1 && again.err.contains("nothing is overwritten"), "{again:?}");
    let status = stand.run(&["status"]);
    assert!(status.out.contains("failed, by reason\tinvalid_output 1, refused 2\n"), "{status:?}");
    // No message was received for any of it.
    assert!(!stand.aws.requests().contains_key("SQS.ReceiveMessage"));
}

#[tokio::test(flavor = "multi_thread")]
async fn an_export_that_fails_says_that_its_file_is_incomplete() {
    let stand = Stand::start().await;
    let folder = tempfile::tempdir().unwrap();
    let to = folder.path().join("failures.jsonl").display().to_string();
    stand.set("NIGHTSHIFT_LEDGER_TABLE", "gone");
    let ran = stand.run(&["dead-letters", "export", "--to", &to]);
    assert_eq!(ran.code, 1, "{ran:?}");
    assert!(ran.err.contains(&format!("{to} is incomplete, so remove it first")), "{ran:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_job_is_found_by_its_key_its_body_and_its_reference() {
    let stand = Stand::start().await;
    let key = stand.put(record("a", failed(FailureReason::Refused, FAILED_MS))).await;
    let folder = tempfile::tempdir().unwrap();
    let job = write(
        folder.path(),
        "job.json",
        "{ \"input\": {\"text\": \"a\"}, \"task\": \"categorize_ticket\" }\n",
    );
    for args in [
        &["jobs", "show", &key][..],
        &["jobs", "show", "--job", &job],
        &["jobs", "show", "--reference", "ref a\u{1b}[2J", "--yes"],
    ] {
        let shown = stand.run(&[args, &["--output", "json"]].concat()).ok();
        let shown = &rows(&shown.out)[0];
        assert_eq!(
            [&shown["key"], &shown["state"], &shown["reason"]],
            [&json!(key), &json!("failed"), &json!("refused")]
        );
        assert!(shown.get("excerpt").is_none());
    }
    let unasked = stand.run(&["jobs", "show", "--reference", "x"]);
    assert!(unasked.code == 2 && unasked.err.contains("Looks through the whole ledger"), "{unasked:?}");
    assert_eq!(stand.run(&["jobs", "show", "--reference", "x", "--yes"]).code, 5);
    assert_eq!(stand.run(&["jobs", "show", &"0".repeat(64)]).code, 5);
    assert_eq!(stand.run(&["jobs", "show"]).code, 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn results_are_shown_and_exported_as_they_are_asked_for() {
    let stand = Stand::start().await;
    let key = stand.put(record("a", done(json!({"category": "=1+1\u{9b}"}), false, FAILED_MS))).await;
    stand.put(record("b", done(json!("x"), true, FAILED_MS + 1))).await;
    stand.put(Record { expires_at_ms: 1_000, ..record("c", done(json!("gone"), false, FAILED_MS)) }).await;
    stand.put(record("d", failed(FailureReason::Refused, FAILED_MS))).await;

    let got = stand.run(&["results", "get", &key, "--output", "json"]).ok();
    assert_eq!(rows(&got.out)[0]["output"], json!({"category": "=1+1\u{9b}"}));
    assert!(!got.out.contains('\u{9b}'), "escaped, and the same to a parser");
    assert_eq!(stand.run(&["results", "get", &"0".repeat(64)]).code, 5);

    let all = stand.run(&["results", "export", "--output", "json"]).ok();
    assert_eq!(rows(&all.out).len(), 2, "{all:?}");
    assert!(
        all.err.contains("Looks through the whole ledger") && all.err.contains("2 results exported"),
        "{all:?}"
    );
    for (args, expected) in [
        (&["--review", "needed"][..], 1),
        (&["--review", "none"], 1),
        (&["--review", "done"], 0),
        (&["--task", "summarize_email"], 0),
        (&["--task", "categorize_ticket", "--revision", "abc"], 2),
        (&["--revision", "def"], 0),
        (&["--since", "2026-11-01", "--until", "2027-11-01"], 2),
        (&["--since", "2027-11-01"], 0),
    ] {
        let args = [&["results", "export", "--output", "json"][..], args].concat();
        assert_eq!(rows(&stand.run(&args).ok().out).len(), expected, "{args:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn each_line_that_was_enqueued_is_accounted_for() {
    let stand = Stand::start().await;
    let folder = tempfile::tempdir().unwrap();
    let job = |text: &str| json!({"task": "categorize_ticket", "input": {"text": text}}).to_string() + "\n";
    // A bad line is told of at once, those before it when their batch has come back.
    let lines = job("a") + &job("b") + "nonsense\n" + &job("c") + &job("d");
    let file = write(folder.path(), "jobs.jsonl", &lines);
    assert_eq!(stand.run(&["enqueue", &file, "--yes"]).code, 3);
    let receipt = format!("{file}.receipt");
    let fates = |ran: crate::support::Ran| -> Vec<(u64, String)> {
        let row = |row: &Value| (row["line"].as_u64().unwrap(), row["fate"].as_str().unwrap().to_owned());
        rows(&ran.out).iter().map(row).collect()
    };
    let now_ms = 3_900_000_000_000;
    stand.put(record("a", done(json!({}), false, now_ms))).await;
    stand.put(record("b", failed(FailureReason::Refused, now_ms))).await;
    stand.put(record("c", done(json!({}), true, now_ms))).await;
    let args = ["reconcile", &receipt, "--all", "--output", "json"];
    let ran = stand.run(&args);
    assert_eq!(ran.code, 3, "{ran:?}");
    assert!(
        ran.err.contains("1 result, 1 dead letter, 1 to review, 1 waiting, 0 missing, 1 not sent"),
        "{ran:?}"
    );
    let of = |fate_of_d: &str| {
        [(1, "result"), (2, "dead_letter"), (3, "not_sent"), (4, "review"), (5, fate_of_d)]
            .map(|(line, fate)| (line, fate.to_owned()))
    };
    assert_eq!(fates(ran), of("waiting"));

    stand.empty("nightshift-jobs").await;
    let ran = stand.run(&args);
    assert!(ran.err.contains("1 missing"), "{ran:?}");
    assert_eq!(fates(ran), of("missing"));

    let wrong = stand.run(&["reconcile", &file]);
    assert!(wrong.code == 2 && wrong.err.contains("is no receipt"), "{wrong:?}");
}

/// Enqueues jobs of these texts, and says where the receipt is.
fn enqueued(stand: &Stand, folder: &std::path::Path, texts: &[&str]) -> (String, String) {
    let job = |text: &&str| json!({"task": "categorize_ticket", "input": {"text": text}}).to_string() + "\n";
    let file = write(folder, "jobs.jsonl", &texts.iter().map(job).collect::<String>());
    stand.run(&["enqueue", &file, "--yes"]).ok();
    let receipt = format!("{file}.receipt");
    (file, receipt)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_line_that_an_older_build_left_out_is_accounted_for_by_what_became_of_it_later() {
    let stand = Stand::start().await;
    let folder = tempfile::tempdir().unwrap();
    let (file, receipt) = enqueued(&stand, folder.path(), &["a", "b"]);
    let whole = std::fs::read_to_string(&receipt).unwrap();
    let kept: String = whole
        .lines()
        .filter(|line| !line.starts_with("{\"line\":2,"))
        .map(|line| line.to_owned() + "\n")
        .collect();
    std::fs::write(&receipt, kept + "{\"line\":2,\"not_sent\":\"invalid_input\"}\n").unwrap();
    let left_out = stand.run(&["jobs", "show", "--receipt", &receipt, "--line", "2"]);
    assert!(
        left_out.code == 5 && left_out.err.contains("Line 2 was not sent: invalid_input"),
        "{left_out:?}"
    );

    stand.run(&["enqueue", &file, "--yes"]).ok();
    let now_ms = 3_900_000_000_000;
    stand.put(record("a", done(json!({}), false, now_ms))).await;
    let key = stand.put(record("b", done(json!({}), false, now_ms))).await;
    let shown = stand.run(&["jobs", "show", "--receipt", &receipt, "--line", "2", "--output", "json"]).ok();
    assert_eq!(rows(&shown.out)[0]["key"], json!(key));
    let ran = stand.run(&["reconcile", &receipt]).ok();
    assert!(ran.err.contains("2 results") && ran.err.contains("0 not sent"), "{ran:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_enqueue_that_was_killed_is_reconciled_by_what_it_noted() {
    let stand = Stand::start().await;
    let folder = tempfile::tempdir().unwrap();
    let texts: Vec<_> = (1..=14).map(|n| format!("Ticket {n}")).collect();
    let texts: Vec<_> = texts.iter().map(String::as_str).collect();
    let (file, receipt) = enqueued(&stand, folder.path(), &texts);
    // The second batch was never begun, and of the first one answer was written.
    let whole = std::fs::read_to_string(&receipt).unwrap();
    let is_kept = |line: &&str| {
        line.starts_with("{\"receipt\"")
            || line.starts_with("{\"sending\":[1,")
            || line.starts_with("{\"line\":1,")
    };
    let kept: String = whole.lines().filter(is_kept).map(|line| line.to_owned() + "\n").collect();
    std::fs::write(&receipt, kept + "{\"line\":2,\"key\":\"ab").unwrap();
    stand.put(record("Ticket 1", done(json!({}), false, 3_900_000_000_000))).await;

    let ran = stand.run(&["reconcile", &receipt, "--all", "--output", "json"]);
    assert_eq!(ran.code, 3, "{ran:?}");
    assert!(
        ran.err.contains(
            "4 lines were not sent yet, and 9 may have been: run the same `nightshift enqueue` again"
        ) && ran.err.contains("1 result, 0 dead letters, 0 to review, 0 waiting, 0 missing, 13 not sent"),
        "{ran:?}"
    );
    assert_eq!(rows(&ran.out).len(), 1, "{ran:?}");

    stand.run(&["enqueue", &file, "--yes"]).ok();
    let ran = stand.run(&["reconcile", &receipt]);
    assert!(
        ran.err.contains("1 result") && ran.err.contains("13 waiting") && !ran.err.contains("again"),
        "{ran:?}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn an_audit_says_what_stands_in_one_of_the_two_alone_and_gives_all_messages_back() {
    let stand = Stand::start().await;
    let now_ms = 3_900_000_000_000;
    stand.put(record("a", failed(FailureReason::Refused, now_ms))).await;
    let no_letter = stand.put(record("b", failed(FailureReason::Refused, now_ms))).await;
    let no_record = InputHash::of_body("nonsense").to_string();
    let sqs = aws_sdk_sqs::Client::new(&stand.sdk());
    for body in [&json!({"task": "categorize_ticket", "input": {"text": "a"}}).to_string(), "nonsense"] {
        let url = stand.aws.queue_url("nightshift-dead-letters");
        sqs.send_message().queue_url(url).message_body(body).send().await.unwrap();
    }
    let unasked = stand.run(&["dead-letters", "audit"]);
    assert!(unasked.code == 2 && unasked.err.contains("Receives all messages of stack nightshift in eu-central-1 in the dead-letters queue (about 2)"), "{unasked:?}");
    assert!(!stand.aws.requests().contains_key("SQS.ReceiveMessage"));

    let audit = stand.run(&["dead-letters", "audit", "--yes", "--output", "json"]);
    assert_eq!(audit.code, 3, "{audit:?}");
    let found: Vec<_> =
        rows(&audit.out).iter().map(|row| (row["key"].clone(), row["found"].clone())).collect();
    assert_eq!(
        found,
        [(json!(no_letter), json!("only in the ledger")), (json!(no_record), json!("only in the queue"))]
    );
    let depth = stand.aws.depth("nightshift-dead-letters").unwrap();
    assert_eq!(stand.aws.messages("nightshift-dead-letters").len(), 2, "{depth:?}");
    let again = stand.run(&["dead-letters", "audit", "--yes"]);
    assert!(again.err.contains("Ledger and queue differ in 2 jobs"), "visible again at once: {again:?}");
    assert!(!again.err.contains("not seen"), "{again:?}");

    // A redrive holds one of them: it stands in the queue, and nobody sees it.
    let held = sqs.receive_message().queue_url(stand.aws.queue_url("nightshift-dead-letters"));
    held.max_number_of_messages(1).visibility_timeout(600).send().await.unwrap();
    let beside = stand.run(&["dead-letters", "audit", "--yes"]);
    assert_eq!(beside.code, 3, "{beside:?}");
    assert!(beside.err.contains("About 1 message was not seen, because somebody else"), "{beside:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_job_that_fails_while_an_audit_looks_is_no_finding() {
    let stand = Stand::start().await;
    let action = "DynamoDB_20120810:Query";
    stand.hang(Some(action));
    let mut command = stand.command(&["dead-letters", "audit", "--yes", "--output", "json"]);
    let child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    tokio::task::block_in_place(|| {
        while !stand.asked().iter().any(|(asked, _)| asked == action) {
            std::thread::sleep(std::time::Duration::from_millis(5));
        }
    });
    stand.put(record("a", failed(FailureReason::Refused, 3_900_000_000_000))).await;
    let letter = json!({"task": "categorize_ticket", "input": {"text": "a"}}).to_string();
    let url = stand.aws.queue_url("nightshift-dead-letters");
    let sqs = aws_sdk_sqs::Client::new(&stand.sdk());
    sqs.send_message().queue_url(url).message_body(letter).send().await.unwrap();
    stand.hang(None);
    let audit = Ran::of(tokio::task::block_in_place(|| child.wait_with_output().unwrap())).ok();
    assert_eq!(audit.out, "", "{audit:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_log_of_a_job_is_found_by_its_key_and_obeyed_by_nobody() {
    let stand = Stand::start().await;
    let key = "a".repeat(64);
    let message =
        serde_json::json!({"level": "WARN", "message": "odd \u{1b}[31mred", "key": key}).to_string();
    let events = serde_json::json!({"events": [
        {"timestamp": 1_795_687_200_000_u64, "message": message},
        {"timestamp": 1_795_687_201_000_u64, "message": "plain \u{1b}]0;title\u{7}"},
    ]});
    stand.say("Logs_20140328:FilterLogEvents", events);
    let logs = stand.run(&["jobs", "logs", &key]).ok();
    assert!(logs.out.starts_with("AT\tLEVEL\tSAID\n2026-11-26T10:00:00Z\tWARN\t"), "{logs:#?}");
    assert!(!logs.out.contains('\u{1b}') && logs.out.contains("plain "), "{logs:#?}");
    let asked = stand.asked();
    let (_, asked) = asked.iter().find(|(action, _)| action.ends_with("FilterLogEvents")).unwrap();
    assert_eq!(asked["filterPattern"], format!("\"{key}\""));
    assert_eq!(asked["logGroupName"], "/aws/lambda/nightshift-worker");
    stand.say("Logs_20140328:FilterLogEvents", serde_json::json!({"events": []}));
    let none = stand.run(&["jobs", "logs", &key]);
    assert_eq!(none.code, 5, "{none:#?}");
    assert!(none.err.contains("ask with an earlier --since"), "{none:#?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_body_is_looked_for_in_the_queue_on_request_and_every_message_is_given_back() {
    let stand = Stand::start().await;
    let body = |text: &str| json!({ "task" : "categorize_ticket", "input": {"text": text}}).to_string();
    let key = stand.put(record("a", failed(FailureReason::Refused, FAILED_MS))).await;
    let gone = stand.put(record("b", failed(FailureReason::Refused, FAILED_MS))).await;
    let sqs = aws_sdk_sqs::Client::new(&stand.sdk());
    for text in ["c", "a", "d"] {
        let url = stand.aws.queue_url("nightshift-dead-letters");
        sqs.send_message().queue_url(url).message_body(body(text)).send().await.unwrap();
    }
    let unasked = stand.run(&["dead-letters", "show", &key, "--body"]);
    assert!(unasked.code == 2 && unasked.err.contains("Receives all messages of stack nightshift in eu-central-1 in the dead-letters queue (about 3)"), "{unasked:?}");
    assert!(!stand.aws.requests().contains_key("SQS.ReceiveMessage"));
    for _ in 0..2 {
        // Visible again at once: the second look finds it too.
        let shown = stand.run(&["dead-letters", "show", &key, "--body", "--yes", "--output", "json"]).ok();
        let document: Value = serde_json::from_str(&shown.out).unwrap();
        assert_eq!(document["body"], json!(body("a")), "{shown:?}");
    }
    let missing = stand.run(&["dead-letters", "show", &gone, "--body", "--yes"]);
    assert!(missing.code == 5 && missing.err.contains("not in the dead-letters queue"), "{missing:?}");
    assert_eq!(stand.aws.messages("nightshift-dead-letters").len(), 3);
    assert_eq!(stand.aws.depth("nightshift-dead-letters").unwrap().visible, 3);
}
