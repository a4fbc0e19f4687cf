//! What senders, customers and models write, through the commands that send and show it: a terminal obeys none of it, a
//! spreadsheet runs none of it, and JSON is exact.

use std::collections::BTreeSet;
use std::io::Write as _;
use std::path::PathBuf;

use nightshift_core::failure::FailureReason;
use nightshift_core::input_hash::InputHash;
use nightshift_core::record::{Done, Failed, Record, Revision, State};
use serde_json::{Value, json};

use crate::reading::record;
use crate::support::{Ran, Stand, write};
use crate::terminal::on_a_terminal;

/// What the cases leave out: formulas, and sequences that a terminal obeys.
const OWN: &[&str] = &[
    "=HYPERLINK(\"http://x\";\"y\")",
    "+1+cmd|' /C calc'!A0",
    "-2+3",
    "@SUM(1)",
    "\t=1",
    "\r=1",
    "\u{202e}=1",
    "\u{200b}=1",
    "a\tb\r\nc,\"d\";e",
    "\u{1b}[2J\u{1b}]0;title\u{7}",
    "\u{9b}31mred",
    "\u{1b}]8;;http://x\u{1b}\\link",
    "\\u{1b}[2J",
    "${HOME} $(id) `id` %s {0}",
];

/// With those of the cases, where the folder of cases is: it is not part of the project, and only CI must have it.
fn texts() -> Vec<String> {
    let mut texts: Vec<String> = OWN.iter().map(|text| (*text).to_owned()).collect();
    let beside = || PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../../shared/cases");
    let folder = std::env::var_os("NIGHTSHIFT_CASES").map_or_else(beside, PathBuf::from);
    if !folder.is_dir() {
        assert_ne!(
            std::env::var("CI").as_deref(),
            Ok("true"),
            "CI has the cases folder: {}",
            folder.display()
        );
        // Not `println`, which the test harness keeps to itself while a test passes.
        drop(writeln!(std::io::stderr(), "skipped: no cases folder, but for strings of our own"));
        return texts;
    }
    let lines = std::fs::read_to_string(folder.join("customer_text/naughty_strings.jsonl")).unwrap();
    let cases = lines.lines().map(|line| serde_json::from_str::<Value>(line).unwrap());
    texts.extend(cases.map(|case| case["text"].as_str().unwrap().to_owned()));
    assert!(texts.len() >= 100, "{}", texts.len());
    texts
}

/// Control characters, escape sequences included, and what turns the direction of a line (UAX #9).
fn is_obeyed(c: char) -> bool {
    c.is_control()
        || matches!(c, '\u{61c}' | '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

#[track_caller]
fn is_harmless(shown: &str, layout: &[char]) {
    let obeyed = shown.lines().find(|line| line.chars().any(|c| is_obeyed(c) && !layout.contains(&c)));
    assert_eq!(obeyed, None);
}

impl Stand {
    /// What the command says in columns and on a terminal, each of which must be harmless; in JSON, whose meaning is left to
    /// the caller.
    #[track_caller]
    fn shows(&self, args: &[&str]) -> Ran {
        let columns = self.run(args).ok();
        is_harmless(&columns.out, &['\n', '\t']);
        is_harmless(&columns.err, &['\n']);
        let (terminal, code) =
            tokio::task::block_in_place(|| on_a_terminal(100, self.command(args).env("NO_COLOR", "1")));
        assert_eq!(code, 0);
        is_harmless(&terminal, &['\r', '\n']);
        let json = self.run(&[args, &["--output", "json"]].concat()).ok();
        is_harmless(&json.out, &['\n']);
        json
    }

    /// The cells of the rows that the command writes as CSV, without its header.
    #[track_caller]
    fn cells(&self, args: &[&str]) -> Vec<csv::StringRecord> {
        let ran = self.run(&[args, &["--output", "csv"]].concat()).ok();
        let rows: Vec<_> =
            csv::Reader::from_reader(ran.out.as_bytes()).records().map(Result::unwrap).collect();
        for cell in rows.iter().flatten() {
            assert!(!cell.starts_with(['=', '+', '-', '@', '\t', '\r']), "{cell:?}");
        }
        rows
    }
}

fn rows(ran: &Ran) -> Vec<Value> {
    ran.out.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

/// Of each row, or of the only one.
fn members(rows: &[Value], path: &str) -> BTreeSet<String> {
    rows.iter().map(|row| row.pointer(path).unwrap().as_str().unwrap().to_owned()).collect()
}

fn of(texts: &[String]) -> BTreeSet<String> {
    texts.iter().cloned().collect()
}

fn answered(text: &str, needs_review: bool) -> State {
    State::Done(Box::new(Done {
        output: json!({ "reason": text, text: 1 }),
        needs_review,
        reviewed: false,
        revision: Revision { hash: "abc".to_owned(), ..Revision::default() },
        model: text.to_owned(),
        finished_at_ms: 1_795_500_123_456,
    }))
}

fn failed(text: &str) -> State {
    State::Failed(Box::new(Failed {
        reason: FailureReason::InvalidOutput,
        detail: text.to_owned(),
        failed_at_ms: 1_795_500_123_456,
        request_id: Some(text.to_owned()),
        excerpt: Some(text.to_owned()),
        revision: Revision::default(),
    }))
}

/// The record of a job whose sender wrote this.
fn of_sender(text: &str, state: State) -> Record {
    Record { reference: Some(text.to_owned()), task: Some(text.to_owned()), ..record(text, state) }
}

/// Those that matter most where a command shows one record: what is obeyed, what a spreadsheet runs, and all at once.
fn one_by_one(texts: &[String]) -> Vec<String> {
    let matters = |text: &&String| {
        text.starts_with(['=', '+', '-', '@', '\t', '\r'])
            || text.chars().filter(|c| is_obeyed(*c)).count() > 1
    };
    texts.iter().filter(matters).cloned().chain([texts.join("\n")]).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn what_senders_write_is_sent_as_it_is_and_shown_without_harm() {
    let stand = Stand::start().await;
    let folder = tempfile::tempdir().unwrap();
    let mut texts = texts();
    texts.retain(|text| !text.is_empty());
    let job =
        |text: &String| json!({"task": "categorize_ticket", "input": {"text": text}, "reference": text});
    let lines: Vec<String> = texts.iter().map(|text| job(text).to_string()).collect();
    let file = write(folder.path(), "jobs.jsonl", &lines.join("\n"));
    let sent = stand.run(&["enqueue", &file, "--yes"]);
    is_harmless(&sent.out, &['\n', '\t']);
    is_harmless(&sent.err, &['\n']);
    let bodies: Vec<Value> = stand
        .aws
        .messages("nightshift-jobs")
        .iter()
        .map(|m| serde_json::from_str(&m.body).unwrap())
        .collect();
    let left_out = sent.err.matches("line ").count();
    assert_eq!(bodies.len() + left_out, texts.len(), "{sent:#?}");
    assert!(left_out < 10, "hardly any breaks a rule: {sent:#?}");
    for body in &bodies {
        let text = body["reference"].as_str().unwrap().to_owned();
        assert_eq!(*body, job(&text));
    }

    // What is wrong with a line is told with the words of whoever wrote it.
    let wrong = |text: &String| {
        [json!({"task": text, "input": {}}), json!({"task": "categorize_ticket", "input": {text: 1}})]
    };
    let lines: Vec<String> = texts.iter().flat_map(wrong).map(|job| job.to_string()).collect();
    let file = write(folder.path(), "wrong.jsonl", &lines.join("\n"));
    for args in [&["task", "check", &file][..], &["enqueue", &file, "--yes"]] {
        let told = stand.run(args);
        assert_ne!(told.code, 0, "{told:#?}");
        is_harmless(&told.out, &['\n', '\t']);
        is_harmless(&told.err, &['\n']);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_models_answer_is_exported_exactly_and_shown_without_harm() {
    let stand = Stand::start().await;
    let texts = texts();
    for text in &texts {
        stand.put(of_sender(text, answered(text, false))).await;
    }
    let exported = rows(&stand.shows(&["results", "export"]));
    for path in ["/reference", "/output/reason", "/model"] {
        assert_eq!(members(&exported, path), of(&texts), "{path}");
    }
    let cells = stand.cells(&["results", "export"]);
    assert_eq!(cells.len(), texts.len());
    let exact = stand.run(&["results", "export", "--output", "csv", "--exact"]).ok();
    let exact =
        csv::Reader::from_reader(exact.out.as_bytes()).records().map(Result::unwrap).collect::<Vec<_>>();
    assert_eq!(exact.iter().map(|row| row[2].to_owned()).collect::<BTreeSet<_>>(), of(&texts));

    for text in one_by_one(&texts) {
        let key = match stand.run(&["jobs", "show", &key(&text)]).code {
            0 => key(&text),
            _ => stand.put(of_sender(&text, answered(&text, false))).await,
        };
        for command in ["jobs", "results"] {
            let verb = if command == "jobs" { "show" } else { "get" };
            let shown: Value = serde_json::from_str(&stand.shows(&[command, verb, &key]).out).unwrap();
            assert_eq!(shown["reference"], text, "{command}");
            stand.cells(&[command, verb, &key]);
        }
    }
}

fn key(text: &str) -> String {
    InputHash::of_job("categorize_ticket", &json!({ "text": text })).to_string()
}

#[tokio::test(flavor = "multi_thread")]
async fn what_failed_and_what_waits_for_a_person_is_shown_without_harm() {
    let stand = Stand::start().await;
    let texts = texts();
    for text in &texts {
        stand.put(of_sender(text, failed(text))).await;
    }
    let listed = rows(&stand.shows(&["dead-letters", "list", "--each"]));
    assert_eq!(members(&listed, "/task"), of(&texts));
    stand.shows(&["dead-letters", "list"]);
    for args in
        [&["dead-letters", "list"][..], &["dead-letters", "list", "--each"], &["dead-letters", "export"]]
    {
        assert_eq!(stand.cells(args).len(), texts.len(), "{args:?}");
    }
    let exported = rows(&stand.shows(&["dead-letters", "export"]));
    assert_eq!(members(&exported, "/detail"), of(&texts));

    for text in one_by_one(&texts) {
        if !texts.contains(&text) {
            stand.put(of_sender(&text, failed(&text))).await;
        }
        let show = ["dead-letters", "show", &key(&text), "--excerpt"];
        let shown: Value = serde_json::from_str(&stand.shows(&show).out).unwrap();
        assert_eq!((&shown["detail"], &shown["excerpt"]), (&json!(text), &json!(text)));
        stand.cells(&show);

        let waits = stand.waits(&text).await;
        let show = ["review", "show", &waits];
        let shown: Value = serde_json::from_str(&stand.shows(&show).out).unwrap();
        assert_eq!(shown["output"]["highlights"][0], text);
        let body: Value = serde_json::from_str(shown["body"].as_str().unwrap()).unwrap();
        assert_eq!(body["input"]["entries"][0], text);
        stand.cells(&show);
    }
    stand.shows(&["review", "list"]);
    stand.cells(&["review", "list"]);
}
