//! The demo's jobs stay in step with the tasks: which lines are jobs, which are refused and why, which are the same.

use std::collections::{BTreeMap, BTreeSet};

use nightshift_core::input_hash::InputHash;
use nightshift_core::job;
use nightshift_core::task::Tasks;
use nightshift_tasks::registry;

/// The default limit of a body, 900 KiB.
const BODY_BYTES_MAX: usize = 921_600;

const JOBS: &str = include_str!("../../../demo/jobs.jsonl");

/// What becomes of one line before any model is called: the name of its task, or the reason of its dead letter.
fn outcome(line: &str) -> (Option<InputHash>, String) {
    let job = match job::parse(line, BODY_BYTES_MAX) {
        Ok(job) => job,
        Err(rejection) => return (None, rejection.reason.to_string()),
    };
    let key = Some(InputHash::of_job(&job.task, &job.input));
    match registry().find(&job.task).map(|task| task.prompt(&job.input)) {
        None => (key, "unknown_task".to_owned()),
        Some(Err(_)) => (key, "invalid_input".to_owned()),
        Some(Ok(_)) => (key, job.task),
    }
}

#[test]
fn the_demo_shows_every_outcome_that_needs_no_model() {
    let mut counts = BTreeMap::<String, usize>::new();
    let mut distinct = BTreeSet::new();
    let mut duplicates = 0;
    for line in JOBS.lines() {
        let (key, outcome) = outcome(line);
        if registry().find(&outcome).is_some() && !distinct.insert(key.unwrap()) {
            duplicates += 1;
        }
        *counts.entry(outcome).or_default() += 1;
    }
    insta::assert_debug_snapshot!((counts, distinct.len(), duplicates));
}

#[test]
fn the_demo_can_be_sent_as_it_is() {
    for (number, line) in JOBS.lines().enumerate() {
        let number = number + 1;
        assert!(!line.trim().is_empty(), "line {number}: SQS takes no empty body");
        // The characters that SQS accepts, from the API reference of SendMessage.
        let allowed = |c: char| matches!(c, '\t' | '\u{20}'..='\u{fffd}' | '\u{10000}'..='\u{10ffff}');
        assert!(line.chars().all(allowed), "line {number}");
        for address in line.split_whitespace().filter(|word| word.contains('@')) {
            let fictional =
                ["example.com", "example.org", "example.net"].iter().any(|name| address.contains(name));
            assert!(fictional, "line {number}: {address}");
        }
    }
    assert!(JOBS.ends_with('\n'));
}
