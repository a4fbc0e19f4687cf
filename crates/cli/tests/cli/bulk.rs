//! What large files take: time, memory and requests, against the stand-ins of `crates/local`, which answer from memory. Nothing
//! is asserted of time or memory: `scripts/bench` prints it.

use std::io::Write as _;
use std::time::Duration;

use futures_util::StreamExt as _;
use nightshift_aws::DynamoLedger;
use nightshift_core::record::{Done, Expect, Record, RecordWrite, Revision, State};
use nightshift_ports::Ledger as _;
use serde_json::json;

use crate::reading::record;
use crate::support::{LEDGER, Stand};

/// Runs the command to its end, and says how long it took and how much memory it had at most.
fn measured(stand: &Stand, args: &[&str]) -> String {
    let began = tokio::time::Instant::now();
    let mut child = stand.command(args).spawn().unwrap();
    let status = format!("/proc/{}/status", child.id());
    let mut peak = String::new();
    let ended = loop {
        // The kernel keeps the highest that it was.
        let told = std::fs::read_to_string(&status).unwrap_or_default();
        if let Some(line) = told.lines().find_map(|line| line.strip_prefix("VmHWM:")) {
            peak = line.trim().trim_end_matches(" kB").to_owned();
        }
        if let Some(ended) = child.try_wait().unwrap() {
            break ended;
        }
        std::thread::sleep(Duration::from_millis(20));
    };
    assert!(ended.success(), "{args:?}: {ended}");
    let peak_mb = peak.parse::<f64>().unwrap() / 1_024.0;
    format!("{:.1} s, {peak_mb:.0} MB of memory at most", began.elapsed().as_secs_f64())
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "scripts/bench runs it: a hundred thousand messages"]
async fn enqueue_of_100_000_lines() {
    let stand = Stand::start().await;
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("jobs.jsonl");
    let mut file = std::io::BufWriter::new(std::fs::File::create(&path).unwrap());
    for n in 0..100_000 {
        let text = format!(
            "Ticket {n}: {}",
            "My parcel has not arrived, and the tracking page is empty. ".repeat(6)
        );
        writeln!(file, "{}", json!({"task": "categorize_ticket", "input": {"text": text}})).unwrap();
    }
    file.flush().unwrap();
    let path = path.display().to_string();
    let took = tokio::task::block_in_place(|| measured(&stand, &["enqueue", &path, "--yes"]));
    let visible = stand.aws.depth("nightshift-jobs").unwrap().visible;
    assert_eq!(visible, 100_000);
    let sent = stand.aws.requests().into_iter().filter(|(action, _)| action.contains("SendMessage"));
    println!("enqueue of 100,000 lines: {took}; requests: {:?}", sent.collect::<Vec<_>>());
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "scripts/bench runs it: a million records, three gigabytes of this process's memory"]
async fn export_of_1_000_000_results() {
    const RESULTS: u32 = 1_000_000;
    let stand = Stand::start().await;
    let ledger = DynamoLedger::new(&stand.sdk(), LEDGER);
    let done = || {
        State::Done(Box::new(Done {
            output: json!({"category": "delivery", "priority": "normal", "reason": "A parcel is late."}),
            needs_review: false,
            reviewed: false,
            revision: Revision { hash: "abc".to_owned(), ..Revision::default() },
            model: "claude-haiku-4-5".to_owned(),
            finished_at_ms: 1_795_500_123_456,
        }))
    };
    let writes = (0..RESULTS).map(|n| {
        let record = Record { reference: None, ..record(&n.to_string(), done()) };
        let write = RecordWrite { record, expect: Expect::Absent };
        let ledger = &ledger;
        async move { ledger.write(&write).await.unwrap() }
    });
    futures_util::stream::iter(writes).buffer_unordered(64).for_each(|_| async {}).await;
    let folder = tempfile::tempdir().unwrap();
    let to = folder.path().join("results.jsonl");
    let name = to.display().to_string();
    let took = tokio::task::block_in_place(|| measured(&stand, &["results", "export", "--to", &name]));
    let lines = std::io::BufRead::lines(std::io::BufReader::new(std::fs::File::open(&to).unwrap())).count();
    assert_eq!(lines, RESULTS as usize);
    let scans = stand.aws.requests().get("DynamoDB.Scan").copied();
    println!(
        "export of 1,000,000 results: {took}; {scans:?} scans of a megabyte, {} bytes",
        to.metadata().unwrap().len()
    );
}
