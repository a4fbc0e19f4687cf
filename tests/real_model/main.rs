//! A real language model, small and on this machine: the demo works on real jobs through the real function, against
//! llama.cpp's server. What so small a model answers is worth nothing; that every outcome is right is what counts.
//!
//! Nothing here depends on how fast the machine is: what must happen in the middle of something is done when the server
//! says that it is there, and each run must end with all its jobs in a result or a dead letter of an allowed reason.
//! `scripts/test real-model` runs it; it takes minutes and two packages of 130 MB.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, clippy::panic, missing_docs)] // a test
#![allow(clippy::disallowed_methods)] // real processes take real time, and the table tells it

#[path = "../kills/binaries.rs"]
mod binaries;

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::io::{Read, Write as _};
use std::net::{TcpListener, TcpStream};
use std::os::unix::process::ExitStatusExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

/// Tokens of a slot: a prompt of ours has up to 1,500, and what is left bounds an answer that does not end.
const CONTEXT_TOKENS: &str = "2560";
/// What an answer of a model of this size may end as. `request_rejected` and the reasons of waiting are not among them.
const ANSWERED: [&str; 3] = ["invalid_output", "truncated", "refused"];
/// What `scripts/servers` ends with where something is not installed.
const MISSING: i32 = 3;
/// How often a server may have loaded its model before the first call arrived.
const LOADED_TOO_EARLY_MAX: u32 = 5;
const POLL: Duration = Duration::from_millis(5);
/// `SIGILL`.
const ILLEGAL_INSTRUCTION: i32 = 4;

struct Server {
    child: Child,
    port: u16,
}

impl Server {
    /// Returns when it listens, which is long before its model is loaded; `None`: it is not installed.
    fn start(port: u16) -> Option<Self> {
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap();
        let child = Command::new(root.join("scripts/servers"))
            .args(["llama", &port.to_string(), "--ctx-size", CONTEXT_TOKENS, "--parallel", "1"])
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let mut server = Self { child, port };
        while server.get("/health").is_none() {
            if let Some(status) = server.child.try_wait().unwrap() {
                assert_eq!(status.code(), Some(MISSING), "the server ended with {status}");
                return None;
            }
            sleep(POLL);
        }
        Some(server)
    }

    /// Status and body; `None`: nobody listens.
    fn get(&self, path: &str) -> Option<(u16, String)> {
        let mut stream = TcpStream::connect(("127.0.0.1", self.port)).ok()?;
        write!(stream, "GET {path} HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: close\r\n\r\n").ok()?;
        let mut text = String::new();
        stream.read_to_string(&mut text).ok()?;
        let (head, body) = text.split_once("\r\n\r\n")?;
        Some((head.split(' ').nth(1)?.parse().ok()?, body.to_owned()))
    }

    fn is_loaded(&self) -> bool {
        self.get("/health").is_some_and(|(status, _)| status == 200)
    }

    /// A number of its own account; while the model loads there is none.
    fn metric(&self, name: &str) -> Option<u64> {
        let (_, text) = self.get("/metrics")?;
        let line = text.lines().find_map(|line| line.strip_prefix(&format!("llamacpp:{name} ")))?;
        Some(line.trim().parse::<f64>().unwrap() as u64)
    }
}

impl Drop for Server {
    /// With SIGKILL: `scripts/servers` has replaced itself by the server.
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Why there is no real model on this machine; `None`: there is one.
fn cannot_run(port: u16) -> Option<&'static str> {
    let Some(mut server) = Server::start(port) else {
        return Some("no llama.cpp or no model (scripts/tools model installs both)");
    };
    while !server.is_loaded() {
        if let Some(status) = server.child.try_wait().unwrap() {
            assert_eq!(status.signal(), Some(ILLEGAL_INSTRUCTION), "the server ended with {status}");
            return Some(
                "llama.cpp of that package has instructions that this processor lacks, and was killed (SIGILL)",
            );
        }
        sleep(POLL);
    }
    None
}

fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

fn tickets(from: usize, count: usize) -> Vec<Value> {
    let text = |n| format!("I was charged twice for order {n}.");
    (from..from + count).map(|n| json!({"task": "categorize_ticket", "input": {"text": text(n)}})).collect()
}

fn one_of_each_task() -> Vec<Value> {
    let tasks = my_tasks::registry();
    let names = ["categorize_ticket", "summarize_email", "weekly_report"];
    names.iter().map(|name| tasks.describe(name).unwrap().example_job).collect()
}

/// What became of the jobs of one run.
#[derive(Debug)]
struct Run {
    jobs: usize,
    results: usize,
    reasons: BTreeMap<String, usize>,
    details: Vec<String>,
    /// Calls that were not answered, as the worker names them.
    failed_calls: BTreeMap<String, usize>,
    report: String,
    took: Duration,
}

struct Started {
    child: Child,
    jobs: usize,
    results: PathBuf,
    log: PathBuf,
    at: Instant,
}

impl Started {
    /// Waits until the server works on a call of this run.
    fn until_in_call(&mut self, server: &Server) {
        while server.metric("requests_processing").is_none_or(|calls| calls == 0) {
            assert!(self.child.try_wait().unwrap().is_none(), "the run ended before its first call was seen");
            sleep(POLL);
        }
    }

    fn end(self) -> Run {
        let output = self.child.wait_with_output().unwrap();
        let report = String::from_utf8(output.stdout).unwrap();
        let log = std::fs::read_to_string(&self.log).unwrap();
        // The demo itself checks that nothing is lost and that each result is valid.
        assert!(output.status.success(), "{report}{log}");
        let mut run = Run {
            jobs: self.jobs,
            results: 0,
            reasons: BTreeMap::new(),
            details: Vec::new(),
            failed_calls: BTreeMap::new(),
            report,
            took: self.at.elapsed(),
        };
        for line in std::fs::read_to_string(&self.results).unwrap().lines() {
            let line: Value = serde_json::from_str(line).unwrap();
            match line["dead_letter"].as_str() {
                None => run.results += 1,
                Some(reason) => {
                    *run.reasons.entry(reason.to_owned()).or_default() += 1;
                    run.details.push(line["context"]["detail"].as_str().unwrap_or_default().to_owned());
                }
            }
        }
        for line in log.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok()) {
            if line["message"] == "model call failed" {
                let word = |name: &str| line[name].as_str().unwrap_or_default().to_owned();
                let status = line["status"].as_u64().map_or(String::new(), |status| format!("{status} "));
                let failure = format!("{} {status}{}", word("class"), word("error_type"));
                *run.failed_calls.entry(failure).or_default() += 1;
            }
        }
        assert_eq!(run.results + run.reasons.values().sum::<usize>(), run.jobs, "{}", run.report);
        run
    }
}

impl Run {
    /// Dead letters have these reasons alone, and calls failed in these ways alone.
    fn only(&self, reasons: &[&str], failures: &[&str]) {
        for reason in self.reasons.keys() {
            assert!(reasons.contains(&reason.as_str()), "{reason}: {:?}\n{}", self.details, self.report);
        }
        for failure in self.failed_calls.keys() {
            assert!(failures.iter().any(|begin| failure.starts_with(begin)), "{failure}\n{}", self.report);
        }
    }

    /// Whether a call failed in a way that begins so.
    fn saw(&self, failure: &str) -> bool {
        self.failed_calls.keys().any(|seen| seen.starts_with(failure))
    }

    /// Input and output tokens, as the server's answers said.
    fn tokens(&self) -> (u64, u64) {
        let line = self.report.lines().find(|line| line.contains(" input tokens, ")).unwrap();
        let mut numbers = line.split_whitespace().filter_map(|word| word.parse().ok());
        (numbers.next().unwrap(), numbers.next().unwrap())
    }

    fn row(&self, what: &str) -> String {
        let counted = |counts: &BTreeMap<String, usize>| {
            counts.iter().map(|(name, count)| format!("{count} {name}")).collect::<Vec<_>>().join(", ")
        };
        let (input, output) = self.tokens();
        format!(
            "| {what} | {} | {} | {} | {} | {input} + {output} | {} |",
            self.jobs,
            self.results,
            counted(&self.reasons),
            counted(&self.failed_calls),
            self.took.as_secs()
        )
    }
}

struct Programs {
    demo: PathBuf,
    function: PathBuf,
    folder: PathBuf,
}

impl Programs {
    fn start(&self, arguments: &[&str], jobs: &[Value]) -> Started {
        let [file, results, log] = ["jobs.jsonl", "results.jsonl", "log"].map(|name| self.folder.join(name));
        let lines: String = jobs.iter().map(|job| format!("{job}\n")).collect();
        std::fs::write(&file, lines).unwrap();
        let _ = std::fs::remove_file(&results);
        let child = Command::new(&self.demo)
            .arg("--function")
            .arg(&self.function)
            .args(["--model", "smollm2", "--verbose", "--jobs"])
            .arg(&file)
            .arg("--results")
            .arg(&results)
            .args(arguments)
            .env_remove("ANTHROPIC_API_KEY")
            .env_remove("OPENAI_API_KEY")
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(std::fs::File::create(&log).unwrap())
            .spawn()
            .unwrap();
        Started { child, jobs: jobs.len(), results, log, at: Instant::now() }
    }

    fn run(&self, arguments: &[&str], jobs: &[Value]) -> Run {
        self.start(arguments, jobs).end()
    }
}

#[test]
#[ignore = "the stage real-model runs it"]
fn every_outcome_with_a_real_model_is_right() {
    let port = free_port();
    if let Some(why) = cannot_run(port) {
        println!("skipped: {why}");
        return;
    }
    let folder = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join("real-model");
    std::fs::create_dir_all(&folder).unwrap();
    let [demo, function] = ["nightshift-demo", "nightshift-worker-function"].map(binaries::build);
    let programs = Programs { demo, function, folder };
    let mut table = String::from(
        "| what | jobs | results | dead letters | calls that failed | tokens in + out | s |\n\
         | --- | --- | --- | --- | --- | --- | --- |\n",
    );
    let mut row = |what: &str, run: &Run| {
        let row = run.row(what);
        println!("{row}");
        writeln!(table, "{row}").unwrap();
    };
    let url = format!("http://127.0.0.1:{port}");
    let v1 = format!("{url}/v1");
    let openai = ["--provider", "openai", "--base-url", v1.as_str(), "--in-flight"];
    let with = |more: &[&'static str]| openai.iter().chain(more).copied().collect::<Vec<&str>>();
    let anthropic = ["--provider", "anthropic", "--base-url", url.as_str(), "--in-flight", "1"];

    // A call that a model that loads refuses waits for it, and spends no attempt.
    let mut loaded_too_early = 0;
    let mut server = loop {
        let server = Server::start(port).unwrap();
        let run = programs.run(&with(&["1"]), &tickets(loaded_too_early as usize, 1));
        run.only(&ANSWERED, &["Capacity 503"]);
        if run.saw("Capacity 503") {
            row("begun while the model loads", &run);
            break server;
        }
        loaded_too_early += 1;
        assert!(loaded_too_early < LOADED_TOO_EARLY_MAX, "no call met a model that loads");
    };

    let predicted = server.metric("tokens_predicted_total").unwrap();
    let run = programs.run(&with(&["1"]), &one_of_each_task());
    run.only(&ANSWERED, &["Transient timeout"]);
    let (input, output) = run.tokens();
    assert!(input > 3_000, "usage was not read: {}", run.report);
    if run.failed_calls.is_empty() {
        let by_its_own_account = server.metric("tokens_predicted_total").unwrap() - predicted;
        assert_eq!(output, by_its_own_account, "usage was not read: {}", run.report);
    }
    row("all tasks", &run);

    let run = programs.run(&with(&["4"]), &tickets(10, 4));
    run.only(&ANSWERED, &["Transient timeout"]);
    row("four calls at one slot", &run);

    for (word, what) in [("tool", "schema as a tool"), ("off", "no schema")] {
        let run = programs.run(&with(&["1", "--structured-output", word]), &tickets(20, 1));
        run.only(&ANSWERED, &["Transient timeout"]);
        row(what, &run);
    }

    let run = programs.run(&anthropic, &tickets(30, 1));
    run.only(&ANSWERED, &["Transient timeout"]);
    let (input, output) = run.tokens();
    assert!(input > 100 && output > 0, "usage was not read: {}", run.report);
    row("Anthropic's protocol", &run);

    let long = [json!({"task": "categorize_ticket", "input": {"text": "late again ".repeat(1_500)}})];
    for (what, arguments) in
        [("a context too small", with(&["1"])), ("the same in Anthropic's protocol", anthropic.to_vec())]
    {
        let run = programs.run(&arguments, &long);
        run.only(&["request_rejected"], &["Rejected 400"]);
        assert_eq!((run.results, run.failed_calls.values().sum::<usize>()), (0, 1), "{}", run.report);
        assert!(run.details[0].contains(CONTEXT_TOKENS), "the limit is not named: {:?}", run.details);
        row(what, &run);
    }

    let mut started = programs.start(&with(&["2"]), &tickets(40, 3));
    started.until_in_call(&server);
    drop(server);
    server = Server::start(port).unwrap();
    let run = started.end();
    run.only(&ANSWERED, &["Transient", "Capacity connect", "Capacity 503"]);
    assert!(run.saw("Transient reset"), "no call broke off: {:?}\n{}", run.failed_calls, run.report);
    row("server killed in a call, and back", &run);

    assert!(server.is_loaded());
    drop(server);
    let _ = std::fs::remove_dir_all(&programs.folder);
    println!("\n{table}");
}
