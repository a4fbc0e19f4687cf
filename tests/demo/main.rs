//! The main job, end to end: what a newcomer's first command prints, writes and leaves behind.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, clippy::panic, missing_docs)] // a test

#[path = "../kills/binaries.rs"]
mod binaries;

use std::collections::{BTreeMap, BTreeSet};
use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::sync::OnceLock;

use nightshift_core::failure::FailureReason;
use nightshift_core::job;
use nightshift_core::limits::Limits;
use nightshift_core::task::Tasks;
use serde_json::{Value, json};

/// The jobs that the demo brings along.
const BUILT_IN: &str = include_str!("../../crates/demo/jobs.jsonl");
/// The key that the function is given in a run with the stub.
const KEY: &str = "demo-key";
/// A text of the customer or the model of at least this many characters must not be in the log; shorter ones occur by chance.
const TELLING_CHARS_MIN: usize = 12;

fn programs() -> &'static [PathBuf; 2] {
    static PROGRAMS: OnceLock<[PathBuf; 2]> = OnceLock::new();
    PROGRAMS.get_or_init(|| ["nightshift-demo", "nightshift-worker-function"].map(binaries::build))
}

fn demo(arguments: &[&str]) -> Command {
    let [demo, function] = programs();
    let mut command = Command::new(demo);
    command
        .arg("--function")
        .arg(function)
        .args(arguments)
        .env_remove("ANTHROPIC_API_KEY")
        .env_remove("OPENAI_API_KEY")
        .stdin(Stdio::null());
    command
}

fn out(output: &Output) -> String {
    String::from_utf8(output.stdout.clone()).unwrap()
}

fn err(output: &Output) -> String {
    String::from_utf8(output.stderr.clone()).unwrap()
}

/// A file of this test's own; it goes away with the folder.
struct Folder(PathBuf);

impl Folder {
    fn new(name: &str) -> Self {
        let folder = std::env::temp_dir().join(format!("nightshift-demo-{name}-{}", std::process::id()));
        std::fs::create_dir_all(&folder).unwrap();
        Self(folder)
    }

    fn file(&self, name: &str) -> String {
        self.0.join(name).to_str().unwrap().to_owned()
    }

    fn write(&self, name: &str, content: &[u8]) -> String {
        std::fs::write(self.0.join(name), content).unwrap();
        self.file(name)
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

/// What `--results` wrote: results and dead letters.
fn results(path: &str) -> (Vec<Value>, Vec<Value>) {
    let text = std::fs::read_to_string(path).unwrap();
    let lines = text.lines().map(|line| serde_json::from_str::<Value>(line).unwrap());
    lines.partition(|line| line.get("result").is_some())
}

fn check_results(results: &[Value]) {
    let tasks = my_tasks::registry();
    for result in results {
        let task = tasks.find(result["task"].as_str().unwrap()).unwrap();
        assert!(task.accept(result["result"].clone()).is_ok(), "{result}");
        assert_eq!(result["input_hash"].as_str().unwrap().len(), 64);
    }
}

fn check_dead_letters(letters: &[Value], sent: &BTreeSet<&str>) {
    for letter in letters {
        let reason = letter["dead_letter"].as_str().unwrap();
        assert!(FailureReason::ALL.iter().any(|known| known.as_str() == reason), "{letter}");
        assert!(sent.contains(letter["body"].as_str().unwrap()), "{letter}");
    }
}

/// The number in front of a word of the report's line that begins like this.
fn number_before(report: &str, line: &str, word: &str) -> usize {
    let line = report
        .lines()
        .find(|l| l.starts_with(line))
        .unwrap_or_else(|| panic!("no line {line:?} in: {report}"));
    let before = line.split(word).next().unwrap();
    before.split_whitespace().next_back().unwrap().parse().unwrap()
}

#[test]
fn the_built_in_jobs_end_as_promised_and_a_second_pass_calls_nothing_for_what_is_done() {
    let folder = Folder::new("twice");
    let file = folder.file("results.jsonl");
    let output = demo(&["--faults", "some", "--seed", "1", "--twice", "--results", &file]).output().unwrap();
    let (report, said) = (out(&output), err(&output));
    assert!(output.status.success(), "{report}{said}");
    // Nobody watches: no progress bar, and without --verbose no log, on either stream.
    assert_eq!(said, "");
    for line in report.lines() {
        assert!(!line.starts_with('{') || line == "{", "a log line in the report: {line}");
        assert!(
            !line.contains('\r') && !line.contains('\u{1b}'),
            "a terminal's control characters: {line:?}"
        );
        assert!(!line.contains("settled"), "progress in the report: {line}");
    }
    assert!(!report.contains("BROKEN"), "{report}");

    let sent: BTreeSet<&str> = BUILT_IN.lines().collect();
    let (done, letters) = results(&file);
    check_results(&done);
    check_dead_letters(&letters, &sent);
    let jobs = BUILT_IN.lines().count();
    let duplicates = number_before(&report, &format!("{jobs} jobs ="), " duplicates");
    assert_eq!(jobs, done.len() + letters.len() + duplicates, "{report}");
    assert!(report.contains(&format!(
        "{jobs} jobs = {} results + {} dead letters + {duplicates} duplicates",
        done.len(),
        letters.len()
    )));

    // The second pass sends what has a result; what failed would be a new request.
    assert_eq!(number_before(&report, "pass 2:", " model calls"), 0, "{report}");
    let second_duplicates = number_before(&report, "pass 2:", " duplicates");
    assert!(second_duplicates >= done.len(), "{report}");
}

#[test]
fn the_stub_says_what_a_model_might_say_and_the_report_says_that_it_is_a_stub() {
    let folder = Folder::new("answers");
    let file = folder.file("results.jsonl");
    let output = demo(&["--faults", "none", "--results", &file]).output().unwrap();
    let report = out(&output);
    assert!(output.status.success(), "{report}{}", err(&output));
    assert!(report.contains("The answers are a stub's, not a model's"), "{report}");
    let variables = include_str!("../../terraform/variables.tf");
    let deployed =
        variables.split("= optional(string, \"claude-").nth(1).and_then(|rest| rest.split('"').next());
    let price = format!("at the price of claude-{},", deployed.unwrap());
    assert!(report.contains(&price), "the model that is deployed where nobody names one: {price}\n{report}");
    let written = include_str!("../../crates/demo/answers.jsonl").lines();
    let written: BTreeMap<String, Value> = written
        .map(|line| serde_json::from_str::<Value>(line).unwrap())
        .map(|line| (line["reference"].as_str().unwrap().to_owned(), line["output"].clone()))
        .collect();
    let (done, _) = results(&file);
    assert_eq!(done.len(), written.len(), "{report}");
    for result in done {
        // Of two jobs with the same input, either may be the one whose name is kept.
        let reference = result["reference"].as_str().unwrap_or_default();
        assert!(written.values().any(|output| *output == result["result"]), "{reference}: {result}");
        if let Some(output) = written.get(reference) {
            assert_eq!(result["result"], *output, "{reference}");
        }
    }
}

#[test]
fn without_faults_a_second_pass_calls_nothing_at_all() {
    let output = demo(&["--faults", "none", "--seed", "7", "--twice"]).output().unwrap();
    let report = out(&output);
    assert!(output.status.success(), "{report}{}", err(&output));
    assert!(number_before(&report, "pass 1:", " model calls") > 30, "{report}");
    assert_eq!(number_before(&report, "pass 2:", " model calls"), 0, "{report}");
}

#[test]
fn bad_lines_of_a_file_are_reported_by_number_and_the_rest_goes_on() {
    let folder = Folder::new("jobs");
    let ticket = |text: &str| {
        json!({"task": "categorize_ticket", "input": {"text": text}, "reference": text}).to_string()
    };
    let mut content = Vec::new();
    content.extend_from_slice(ticket("Where is my card?").as_bytes()); // 1
    content.extend_from_slice(b"\n\nnot json\n"); // 2 is empty, 3 is bad
    content.extend_from_slice(ticket("Grüße, 検収書").as_bytes()); // 4
    content.extend_from_slice(b"\r\n{\"task\":\"categorize_ticket\",\"input\":{},\"priority\":1}\n"); // 5 is bad
    content.extend_from_slice(b"\"\xff\xfe\"\n"); // 6 is not UTF-8
    content.extend_from_slice(b"{\"task\":\"no_such_task\",\"input\":{}}\n"); // 7 is a job, of a task that is not there
    content.extend_from_slice(ticket("The last line has no end.").as_bytes()); // 8
    let (jobs, file) = (folder.write("jobs.jsonl", &content), folder.file("results.jsonl"));
    let output = demo(&["--faults", "none", "--jobs", &jobs, "--results", &file]).output().unwrap();
    let (report, said) = (out(&output), err(&output));
    assert!(output.status.success(), "{report}{said}");
    let reported: Vec<&str> = said.lines().collect();
    assert_eq!(reported.len(), 3, "{said}");
    for (line, number, why) in
        [(reported[0], 3, "cannot be read"), (reported[1], 5, "priority"), (reported[2], 6, "UTF-8")]
    {
        assert!(line.starts_with(&format!("line {number} is not sent: ")) && line.contains(why), "{line}");
    }
    assert!(report.contains("3 lines of the file were not sent"), "{report}");
    let (done, letters) = results(&file);
    check_results(&done);
    let references: BTreeSet<&str> =
        done.iter().map(|result| result["reference"].as_str().unwrap()).collect();
    assert_eq!(
        references,
        BTreeSet::from(["Where is my card?", "Grüße, 検収書", "The last line has no end."])
    );
    assert_eq!(letters.len(), 1);
    assert_eq!((&letters[0]["line"], &letters[0]["dead_letter"]), (&json!(7), &json!("unknown_task")));
    assert_eq!(letters[0]["body"], "{\"task\":\"no_such_task\",\"input\":{}}");
}

#[test]
fn a_storm_loses_nothing() {
    let folder = Folder::new("storm");
    let file = folder.file("results.jsonl");
    let output = demo(&["--faults", "storm", "--seed", "3", "--results", &file]).output().unwrap();
    let report = out(&output);
    assert!(output.status.success(), "{report}{}", err(&output));
    let (done, letters) = results(&file);
    check_results(&done);
    check_dead_letters(&letters, &BUILT_IN.lines().collect());
    // A storm that nobody noticed was none.
    assert!(report.contains("called again"), "{report}");
}

#[test]
fn ctrl_c_stops_soon_and_leaves_no_process() {
    let mut child = demo(&["--faults", "storm", "--seed", "2", "--verbose"])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    // In the middle of the work: the function has written something.
    let mut log = BufReader::new(child.stderr.take().unwrap()).lines();
    log.next().unwrap().unwrap();
    let children = children_of(child.id());
    assert!(
        !children.is_empty(),
        "no process of the function was found, so that the end would prove nothing"
    );
    let interrupt = Command::new("sh").args(["-c", &format!("kill -INT {}", child.id())]).status().unwrap();
    assert!(interrupt.success());
    // Drained, or the demo would wait for us.
    let rest = std::thread::spawn(move || log.map_while(Result::ok).collect::<Vec<_>>());
    let mut report = String::new();
    child.stdout.take().unwrap().read_to_string(&mut report).unwrap();
    let status = child.wait().unwrap();
    let rest = rest.join().unwrap();
    assert_eq!(status.code(), Some(130), "{report}");
    assert!(report.contains("stopped early"), "{report}");
    assert!(rest.iter().any(|line| line.starts_with("stopping: ")), "{rest:?}");
    for process in children {
        assert!(
            !Path::new(&format!("/proc/{process}")).exists(),
            "process {process} of the function still lives"
        );
    }
}

/// The processes that this one started, as Linux lists them.
fn children_of(process: u32) -> Vec<u32> {
    let mut children = Vec::new();
    let threads = std::fs::read_dir(format!("/proc/{process}/task")).unwrap();
    for thread in threads.flatten() {
        let listed = std::fs::read_to_string(thread.path().join("children")).unwrap_or_default();
        children.extend(listed.split_whitespace().map(|id| id.parse::<u32>().unwrap()));
    }
    children
}

#[test]
fn what_cannot_start_says_what_to_do() {
    let folder = Folder::new("errors");
    let missing = folder.file("no-such-file.jsonl");
    let empty = folder.write("empty.jsonl", b"\n\n");
    let table = folder.write("tickets.csv", b"text\nWhere is it?\n");
    for (arguments, code, expected) in [
        (vec!["--jobs", &missing], 5, vec!["no-such-file.jsonl", "give --jobs a file with one job a line"]),
        (vec!["--jobs", &empty], 2, vec!["holds no job", r#"{"task":"#]),
        (vec!["--jobs", &table], 2, vec!["tickets.csv is a table", "`nightshift enqueue`", r#"{"task":"#]),
        (vec!["--provider", "anthropic"], 4, vec!["ANTHROPIC_API_KEY", "--base-url"]),
        (vec!["--provider", "openai", "--model", "gpt-5-mini"], 4, vec!["OPENAI_API_KEY", "--base-url"]),
        (vec!["--provider", "openai"], 2, vec!["--model"]),
        (
            vec!["--results", "/nonexistent/results.jsonl"],
            5,
            vec!["/nonexistent/results.jsonl", "another file"],
        ),
        (vec!["--model", "unheard-of"], 2, vec!["no list has the price of \"unheard-of\"", "--price IN/OUT"]),
        (vec!["--price", "1/5"], 2, vec!["is known: leave --price out"]),
        (vec!["--price", "cheap"], 2, vec!["such as 0.8/4"]),
        (vec!["--faults", "rain"], 2, vec!["none, some, storm"]),
        (vec!["--base-url", "http://127.0.0.1:1/v1"], 2, vec!["--provider"]),
        (vec!["--structured-output", "tool"], 2, vec!["--provider"]),
        (vec!["--provider", "anthropic", "--faults", "storm"], 2, vec!["--faults", "model stub"]),
        (
            vec!["--provider", "anthropic", "--base-url", "http://127.0.0.1:1"],
            1,
            vec!["nobody answers at http://127.0.0.1:1", "start the server first"],
        ),
        (vec!["--provider", "anthropic", "--base-url", "there"], 2, vec!["there is no URL", "http://"]),
    ] {
        let output = demo(&arguments).output().unwrap();
        let said = err(&output);
        assert_eq!(output.status.code(), Some(code), "{arguments:?}: {said}");
        assert_eq!(out(&output), "", "{arguments:?}");
        for part in expected {
            assert!(said.contains(part), "{arguments:?}: {said}");
        }
        assert!(!said.contains("panicked"), "{said}");
    }
}

#[test]
fn the_jobs_are_not_replaced_by_their_results() {
    let folder = Folder::new("replaced");
    let file = folder.write("jobs.jsonl", b"{}\n");
    let output = demo(&["--jobs", &file, "--results", &file]).output().unwrap();
    assert_eq!(output.status.code(), Some(2));
    assert!(err(&output).contains("name another one"), "{}", err(&output));
    assert_eq!(std::fs::read_to_string(&file).unwrap(), "{}\n");
}

#[test]
fn a_key_that_is_refused_is_said_at_once() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    // It ends with this process.
    std::thread::spawn(move || {
        for connection in listener.incoming() {
            let mut connection = connection.unwrap();
            let mut request = [0; 64 * 1_024];
            let _ = connection.read(&mut request);
            let body = r#"{"error":{"message":"Invalid API Key","type":"authentication_error","code":401}}"#;
            let length = body.len();
            let _ = write!(
                connection,
                "HTTP/1.1 401 Unauthorized\r\nconnection: close\r\ncontent-type: application/json\r\ncontent-length: {length}\r\n\r\n{body}"
            );
        }
    });
    for (provider, base_url) in
        [("openai", format!("http://{address}/v1")), ("anthropic", format!("http://{address}"))]
    {
        let arguments = ["--provider", provider, "--base-url", &base_url, "--model", "m"];
        let output = demo(&arguments).output().unwrap();
        let said = err(&output);
        assert_eq!(output.status.code(), Some(4), "{provider}");
        assert_eq!(out(&output), "", "{provider}");
        let variable = format!("check the key in {}_API_KEY", provider.to_uppercase());
        for part in ["authentication_error (HTTP 401)", &variable] {
            assert!(said.contains(part), "{provider}: {said}");
        }
    }
}

#[test]
fn a_server_that_answers_nothing_is_said_while_it_is_waited_for() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let base_url = format!("https://{}/v1", listener.local_addr().unwrap());
    // It speaks no TLS. It ends with this process.
    std::thread::spawn(move || listener.incoming().for_each(drop));
    let folder = Folder::new("unanswered");
    let job =
        |n: u32| json!({"task": "categorize_ticket", "input": {"text": n.to_string()}}).to_string() + "\n";
    let jobs = folder.write("jobs.jsonl", (0..10).map(job).collect::<String>().as_bytes());
    let mut child = demo(&["--provider", "openai", "--base-url", &base_url, "--model", "m", "--jobs", &jobs])
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut said = BufReader::new(child.stderr.take().unwrap()).lines().map_while(Result::ok);
    let line = said.find(|line| line.contains("calls in a row failed"));
    let rest = std::thread::spawn(move || said.count());
    // Twice: at once.
    for _ in 0..2 {
        let _ = Command::new("sh").args(["-c", &format!("kill -INT {}", child.id())]).status();
    }
    child.wait().unwrap();
    rest.join().unwrap();
    assert!(line.is_some_and(|line| line.contains("https:// where it speaks http://")));
}

#[test]
fn a_server_that_hangs_is_said_to_within_seconds() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let base_url = format!("http://{}/v1", listener.local_addr().unwrap());
    // It takes each call and answers none. It ends with this process.
    std::thread::spawn(move || listener.incoming().collect::<Vec<_>>());
    let folder = Folder::new("hanging");
    let job = r#"{"task":"categorize_ticket","input":{"text":"x"}}"#;
    let jobs = folder.write("jobs.jsonl", job.as_bytes());
    let mut child = demo(&["--provider", "openai", "--base-url", &base_url, "--model", "m", "--jobs", &jobs])
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut said = BufReader::new(child.stderr.take().unwrap()).lines().map_while(Result::ok);
    let line = said.next().unwrap_or_default();
    let rest = std::thread::spawn(move || said.count());
    // Twice: at once.
    for _ in 0..2 {
        let _ = Command::new("sh").args(["-c", &format!("kill -INT {}", child.id())]).status();
    }
    child.wait().unwrap();
    rest.join().unwrap();
    for part in ["no answer from the model for ", "1 job was received", "given up after 120 s"] {
        assert!(line.contains(part), "{line}");
    }
}

#[test]
fn no_line_of_the_log_has_a_customers_text_an_answer_or_the_key() {
    let folder = Folder::new("log");
    let file = folder.file("results.jsonl");
    let output =
        demo(&["--faults", "storm", "--seed", "5", "--verbose", "--results", &file]).output().unwrap();
    assert!(output.status.success(), "{}{}", out(&output), err(&output));
    let log = err(&output);
    let lines = log
        .lines()
        .map(|line| serde_json::from_str::<Value>(line).unwrap_or_else(|_| panic!("not JSON: {line}")));
    // All there is of text in each line, with its escapes taken off, and the line itself.
    let written: Vec<String> = lines.map(|line| format!("{line}\n{}", strings(&line).join("\n"))).collect();
    assert!(written.len() > 100, "the log has {} lines only, so that it proves nothing", written.len());

    let mut secrets = BTreeSet::from([KEY.to_owned()]);
    for body in BUILT_IN.lines() {
        secrets.insert(body.to_owned());
        match job::parse(body, Limits::default().body_bytes_max) {
            Ok(job) => secrets.extend(strings(&job.input)),
            // Whatever is quoted in it.
            Err(_) => secrets.extend(body.split('"').map(str::to_owned)),
        }
    }
    let (done, letters) = results(&file);
    for result in &done {
        secrets.extend(strings(&result["result"]));
    }
    for letter in &letters {
        secrets.extend(letter["context"]["excerpt"].as_str().map(str::to_owned));
    }
    // A text is found by its pieces too, should a line cut it off.
    let pieces: BTreeSet<String> = secrets
        .iter()
        .filter(|text| text.chars().count() >= TELLING_CHARS_MIN || *text == KEY)
        .filter(|text| !tasks_and_members().contains(text.as_str()))
        .flat_map(|text| {
            let start: String = text.chars().take(24).collect();
            [text.clone(), start]
        })
        .filter(|piece| !piece.trim().is_empty())
        .collect();
    assert!(pieces.len() > 200, "{} texts only", pieces.len());
    for line in &written {
        for piece in &pieces {
            assert!(!line.contains(piece.as_str()), "{piece:?} is in the log: {line}");
        }
    }
}

/// Words of ours that occur in bodies and may be logged.
fn tasks_and_members() -> BTreeSet<&'static str> {
    let mut words: BTreeSet<&str> = my_tasks::registry().names().into_iter().collect();
    words.insert("translate_poem");
    words
}

/// All strings in a value, values of members only.
fn strings(value: &Value) -> Vec<String> {
    match value {
        Value::String(text) => vec![text.clone()],
        Value::Array(items) => items.iter().flat_map(strings).collect(),
        Value::Object(members) => members.values().flat_map(strings).collect(),
        Value::Null | Value::Bool(_) | Value::Number(_) => Vec::new(),
    }
}
