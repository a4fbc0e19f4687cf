//! `review`: what waits for a person is decided on once, checked like any other output, and never lost.

use std::os::unix::fs::MetadataExt as _;
use std::process::Stdio;

use aws_sdk_sqs::types::Message;
use nightshift_aws::DynamoLedger;
use nightshift_core::input_hash::InputHash;
use nightshift_core::kept;
use nightshift_core::limits::Limits;
use nightshift_core::message::Original;
use nightshift_core::message::{Attribute, AttributeValue};
use nightshift_core::record::{Budget, Done, Expect, Record, RecordWrite, Revision, State};
use nightshift_core::review::{Rejecting, Reviewer};
use nightshift_ports::{Ledger as _, LedgerReader as _};
use serde_json::{Value, json};

use crate::support::{CALLER, LEDGER, Ran, Stand, run, write};

pub const REPORT: &str = r#"{"headline":"Shipped.","highlights":["It shipped."],"risks":[],"next_steps":[],"nothing_to_report":false}"#;

fn input(notes: &str) -> Value {
    json!({"team": "Checkout", "week": "2026-W47", "entries": [notes]})
}

fn body(notes: &str) -> String {
    format!("{{\"task\" : \"weekly_report\", \"input\":{}}}", input(notes))
}

fn waiting(notes: &str) -> Record {
    let done = Done {
        output: json!({"headline": "Not written", "highlights": [notes], "risks": [], "next_steps": [], "nothing_to_report": false}),
        needs_review: true,
        reviewed: false,
        revision: Revision { hash: "abc".to_owned(), ..Revision::default() },
        model: "claude-haiku-4-5".to_owned(),
        finished_at_ms: 1_795_500_123_456,
    };
    Record {
        key: InputHash::of_job("weekly_report", &input(notes)),
        task: Some("weekly_report".to_owned()),
        reference: None,
        version: 3,
        token: "worker".to_owned(),
        state: State::Done(Box::new(done)),
        previous: None,
        message_id: "m-1".to_owned(),
        sent_at_ms: 1,
        first_received_ms: 2,
        last_claimed_ms: 2,
        budget: Budget { claims: 1, calls: 3, ..Budget::default() },
        redrives: 0,
        history: Vec::new(),
        letter_version: None,
        erased: None,
        kept: None,
        reviewed: None,
        expires_at_ms: 4_000_000_000_000,
    }
}

impl Stand {
    fn reviewed_ledger(&self) -> DynamoLedger {
        DynamoLedger::new(&self.sdk(), LEDGER)
    }

    /// A result that waits for review, as a worker leaves it.
    pub async fn waits(&self, notes: &str) -> String {
        let ledger = self.reviewed_ledger();
        let mut write = RecordWrite { record: waiting(notes), expect: Expect::Absent };
        let tenant =
            Attribute { data_type: "String".to_owned(), value: AttributeValue::Text("t-1".to_owned()) };
        let (attributes, body) = ([("tenant".to_owned(), tenant)], body(notes));
        let original =
            Original { body: &body, message_id: "m-1", attributes: &attributes, group: Some("t-1") };
        for part in kept::keep(&mut write, original) {
            ledger.keep(&part, 0).await.unwrap();
        }
        ledger.write(&write).await.unwrap();
        write.record.key.to_string()
    }

    pub async fn stood(&self, notes: &str) -> Record {
        let lookup = self.reviewed_ledger().get(&waiting(notes).key).await.unwrap();
        lookup.record().unwrap().clone()
    }

    async fn letters(&self) -> Vec<Message> {
        let sqs = aws_sdk_sqs::Client::new(&self.sdk());
        let queue = self.aws.queue_url("nightshift-dead-letters");
        let request = sqs.receive_message().queue_url(queue).max_number_of_messages(10);
        let request = request.visibility_timeout(0).message_attribute_names("All");
        request.send().await.unwrap().messages.unwrap_or_default()
    }
}

fn output(record: &Record) -> (&Value, bool) {
    match &record.state {
        State::Done(done) => (&done.output, done.reviewed),
        other => panic!("{other:?}"),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_waits_is_shown_with_its_job_and_accepted_once() {
    let stand = Stand::start().await;
    let key = stand.waits("Shipped it.\u{1b}[2J").await;
    let listed = stand.run(&["review", "list", "--task", "weekly_report", "--output", "json"]).ok();
    assert!(listed.out.lines().count() == 1 && listed.out.contains(&key), "{listed:?}");
    assert!(!listed.out.contains("Shipped"), "a list shows no answer: {listed:?}");
    let shown = stand.run(&["review", "show", &key, "--output", "json"]).ok();
    let document: Value = serde_json::from_str(&shown.out).unwrap();
    assert_eq!(
        (&document["version"], &document["body"]),
        (&json!(3), &json!(body("Shipped it.\u{1b}[2J"))),
        "{shown:?}"
    );
    assert!(!shown.out.contains('\u{1b}'));

    let accept = ["review", "accept", &key, "--reason", "read it"];
    let asked = stand.run(&accept);
    assert!(asked.code == 2 && asked.err.contains("Not written"), "{asked:?}");
    assert!(!asked.err.contains('\u{1b}'), "{asked:?}");
    let stale = stand.run(&[&accept[..], &["--yes", "--version", "2"]].concat());
    assert!(stale.code == 1 && stale.err.contains("version 3"), "{stale:?}");
    assert_eq!(stand.stood("Shipped it.\u{1b}[2J").await.version, 3, "nothing is done without a yes");

    stand.run(&[&accept[..], &["--yes", "--version", "3"]].concat()).ok();
    let record = stand.stood("Shipped it.\u{1b}[2J").await;
    assert!(output(&record).1);
    let review = record.review().unwrap();
    assert_eq!(
        (review.by.as_str(), review.decision.as_str(), review.reason.as_str()),
        (CALLER, "accepted", "read it")
    );
    assert!(review.at_ms > 1_700_000_000_000);
    let again = stand.run(&[&accept[..], &["--yes"]].concat());
    assert!(again.code == 1 && again.err.contains(CALLER), "{again:?}");
    assert_eq!(stand.run(&["review", "list", "--output", "json"]).ok().out, "");
    let trace = stand.items("trace#");
    assert!(trace.len() == 1 && trace[0]["outcome"] == "version 4 is done", "{trace:?}");
    assert!(!trace[0].to_string().contains("Shipped"), "{trace:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_edit_is_stored_only_when_the_task_accepts_it() {
    let stand = Stand::start().await;
    let folder = tempfile::tempdir().unwrap();
    let key = stand.waits("notes").await;
    for (wrong, said) in [
        ("no JSON", "holds no JSON object"),
        (r#"{"headline":"x"}"#, "lacks the member highlights"),
        (&REPORT.replace("Shipped.", " "), "must not be blank"),
        (&REPORT.replace("\"nothing_to_report\":false", "\"nothing_to_report\":true"), "nothing_to_report"),
        (&format!("{REPORT}{REPORT}"), "more than one"),
    ] {
        let file = write(folder.path(), "wrong.json", wrong);
        let refused = stand.run(&["review", "edit", &key, "--from", &file, "--yes", "--reason", "mine"]);
        assert!(refused.code == 3 && refused.err.contains(said), "{wrong}: {refused:?}");
    }
    let same = write(folder.path(), "same.json", &output(&waiting("notes")).0.to_string());
    let same = stand.run(&["review", "edit", &key, "--from", &same, "--yes", "--reason", "mine"]);
    assert!(same.code == 1 && same.err.contains("review accept"), "{same:?}");
    assert_eq!(stand.stood("notes").await.version, 3, "nothing of that was stored");
    assert!(stand.items("trace#").is_empty());

    // An editor with an argument, which tells of its copy what others may do with it.
    let told = folder.path().join("told");
    let script = format!(
        "stat -c '%a %n' \"$2\" \"$(dirname \"$2\")\" > {told}; printf '%s' '{REPORT}' > \"$2\"\n",
        told = told.display()
    );
    let editor = format!("sh {} --wait", write(folder.path(), "editor", &script));
    let edit = ["review", "edit", &key, "--yes", "--reason", "wrote it"];
    run(stand.command(&edit).env("EDITOR", &editor)).ok();
    let record = stand.stood("notes").await;
    assert_eq!(output(&record), (&serde_json::from_str(REPORT).unwrap(), true));
    assert_eq!(record.review().unwrap().decision, "edited");
    let told = std::fs::read_to_string(told).unwrap();
    let copies: Vec<_> = told.lines().map(|line| line.split_once(' ').unwrap()).collect();
    assert_eq!([copies[0].0, copies[1].0], ["600", "700"]);
    assert!(copies.iter().all(|(_, path)| !std::path::Path::new(path).exists()), "{told}");

    let key = stand.waits("others").await;
    let edit = ["review", "edit", &key, "--yes", "--reason", "wrote it"];
    let failed = run(stand.command(&edit).env("EDITOR", "false"));
    assert!(failed.code == 1 && failed.err.contains("EDITOR"), "{failed:?}");
    assert_eq!(stand.stood("others").await.version, 3);
}

#[tokio::test(flavor = "multi_thread")]
async fn no_signal_leaves_the_copy_that_was_edited_behind() {
    let stand = Stand::start().await;
    let key = stand.waits("notes of a customer").await;
    for signal in ["HUP", "QUIT", "TERM", "INT"] {
        let copies = tempfile::tempdir().unwrap();
        let mut command = stand.command(&["review", "edit", &key, "--reason", "x", "--yes"]);
        command.env("TMPDIR", copies.path()).env("EDITOR", format!("kill -{signal} $PPID; sleep 0.1; true"));
        let ran = run(&mut command);
        assert!(ran.code > 0 && ran.err.contains("nothing was changed"), "{signal}: {ran:?}");
        assert_eq!(std::fs::read_dir(copies.path()).unwrap().count(), 0, "{signal}: {ran:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_typed_and_is_not_stored_is_kept_for_who_typed_it() {
    let stand = Stand::start().await;
    let (folder, copies) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let key = stand.waits("notes").await;
    let accept = format!("{} review accept {key} --yes --reason x", env!("CARGO_BIN_EXE_nightshift"));
    for (typed, before) in [("{\"headline\":", "true"), (REPORT, "true"), (REPORT, accept.as_str())] {
        let script = format!("{before} > /dev/null 2>&1; printf '%s' '{typed}' > \"$1\"\n");
        let editor = format!("sh {}", write(folder.path(), "editor", &script));
        let consent: &[&str] = if before == "true" { &[] } else { &["--yes"] };
        let args = [&["review", "edit", &key, "--reason", "x"], consent].concat();
        let ran = run(stand.command(&args).env("TMPDIR", copies.path()).env("EDITOR", &editor));
        assert!(ran.code == 1 || ran.code == 2, "{ran:?}");
        let kept: Vec<_> =
            std::fs::read_dir(copies.path()).unwrap().map(|entry| entry.unwrap().path()).collect();
        assert_eq!(kept.len(), 1, "{ran:?}");
        let file = kept[0].join("output.json");
        assert!(ran.err.contains(&format!("what you wrote is in {}", file.display())), "{ran:?}");
        assert_eq!(std::fs::read_to_string(&file).unwrap(), typed);
        let mode = |path| std::fs::metadata(path).unwrap().mode() & 0o777;
        assert_eq!((mode(&file), mode(&kept[0])), (0o600, 0o700));
        std::fs::remove_dir_all(&kept[0]).unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_output_that_is_longer_than_what_is_read_is_refused_whole() {
    let stand = Stand::start().await;
    let folder = tempfile::tempdir().unwrap();
    let key = stand.waits("notes").await;
    let text = REPORT.to_owned() + &" ".repeat(1_048_576) + "} and this is no JSON {";
    let file = write(folder.path(), "out.json", &text);
    let refused = stand.run(&["review", "edit", &key, "--from", &file, "--reason", "r", "--yes"]);
    assert!(refused.code == 3 && refused.err.contains("more than 1048576 bytes"), "{refused:?}");
    assert_eq!(stand.stood("notes").await.version, 3);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_rejection_beside_an_erasure_says_that_its_dead_letter_is_still_to_be_erased() {
    let stand = Stand::start().await;
    let key = stand.waits("notes").await;
    let action = "AmazonSQS:SendMessage";
    stand.hang(Some(action));
    let mut command = stand.command(&["review", "reject", &key, "--reason", "r", "--yes"]);
    let child = command.stderr(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    tokio::task::block_in_place(|| {
        while !stand.asked().iter().any(|(asked, _)| asked == action) {
            std::thread::sleep(std::time::Duration::from_millis(2));
        }
    });
    let erase = ["results", "delete", &key, "--reason", "request 12", "--yes", "--output", "json"];
    stand.run(&erase).ok();
    stand.hang(None);
    let rejected = Ran::of(tokio::task::block_in_place(|| child.wait_with_output().unwrap()));
    assert!(rejected.code == 1 && rejected.out.is_empty(), "{rejected:?}");
    assert!(rejected.err.contains(&format!("nightshift results delete {key}")), "{rejected:?}");
    let erased = stand.run(&erase).ok();
    assert!(erased.out.contains("\"messages_deleted\":1"), "{erased:?}");
    assert!(stand.letters().await.is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_decision_is_dated_by_the_clock_of_aws() {
    let stand = Stand::start().await;
    let key = stand.waits("notes").await;
    // 2020-11-26T10:00:00Z: the clock here is years ahead.
    stand.date("Thu, 26 Nov 2020 10:00:00 GMT");
    stand.run(&["review", "reject", &key, "--yes", "--reason", "of another team"]).ok();
    let record = stand.stood("notes").await;
    let State::Failed(failed) = &record.state else { panic!("{record:?}") };
    let hour_ms = 3_600_000;
    assert_eq!(failed.failed_at_ms / hour_ms, 1_606_384_800_000 / hour_ms, "{failed:?}");
    assert_eq!(record.reviewed.map(|reviewed| reviewed.at_ms), Some(failed.failed_at_ms));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_rejection_is_a_dead_letter_as_it_was_sent_whatever_is_killed() {
    let stand = Stand::start().await;
    let key = stand.waits("notes").await;
    let reject = ["review", "reject", &key, "--yes", "--reason", "of another team"];
    stand.run(&reject).ok();
    let record = stand.stood("notes").await;
    let State::Failed(failed) = &record.state else { panic!("{record:?}") };
    assert_eq!(failed.reason.as_str(), "review_rejected");
    assert!(failed.detail.contains(CALLER) && failed.detail.contains("of another team"), "{failed:?}");
    assert!(record.letter_is_sent());
    let letters = stand.letters().await;
    let attribute = |name: &str| {
        let attributes = letters[0].message_attributes.as_ref().unwrap();
        attributes.get(name).and_then(|value| value.string_value.clone())
    };
    assert_eq!((letters.len(), letters[0].body.as_deref()), (1, Some(body("notes").as_str())));
    assert_eq!(
        (attribute("FailureReason").as_deref(), attribute("tenant").as_deref()),
        (Some("review_rejected"), Some("t-1"))
    );
    let again = stand.run(&reject).ok();
    assert!(again.err.contains("is sent"), "{again:?}");
    assert_eq!(stand.letters().await.len(), 1);
    let shown = stand.run(&["dead-letters", "show", &key, "--body", "--output", "json"]).ok();
    let document: Value = serde_json::from_str(&shown.out).unwrap();
    assert_eq!(document["body"], json!(body("notes")), "{shown:?}");

    // Killed between the ledger and the queue: whoever comes next sends it.
    let key = stand.waits("killed").await;
    let reviewer = Reviewer { by: "ann", reason: "no", token: "review", now_ms: 1_795_500_200_000 };
    let standing = stand.stood("killed").await;
    let Ok(Rejecting::Write(write)) = reviewer.reject(&standing, None, &Limits::default()) else { panic!() };
    stand.reviewed_ledger().write(&write).await.unwrap();
    stand.run(&["review", "reject", &key, "--yes", "--reason", "again"]).ok();
    let record = stand.stood("killed").await;
    assert_eq!((record.version, record.review().unwrap().by.as_str()), (4, "ann"), "it was decided once");
    let letters = stand.letters().await;
    assert!(letters.iter().any(|letter| letter.body.as_deref() == Some(&body("killed"))), "{letters:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn without_a_kept_message_nothing_is_rejected_and_the_rest_goes_on() {
    let stand = Stand::start().await;
    // As a release of before left it.
    let old = RecordWrite { record: waiting("old"), expect: Expect::Absent };
    stand.reviewed_ledger().write(&old).await.unwrap();
    let key = old.record.key.to_string();
    let refused = stand.run(&["review", "reject", &key, "--yes", "--reason", "no"]);
    assert!(refused.code == 1 && refused.err.contains("accept or edit"), "{refused:?}");
    assert_eq!(stand.stood("old").await, old.record);
    let folder = tempfile::tempdir().unwrap();
    let file = write(folder.path(), "report.json", REPORT);
    stand.run(&["review", "edit", &key, "--from", &file, "--yes", "--reason", "mine"]).ok();
    assert!(output(&stand.stood("old").await).1);
    let nothing = stand.run(&["review", "show", &"ab".repeat(32)]);
    assert_eq!(nothing.code, 5, "{nothing:?}");
}
