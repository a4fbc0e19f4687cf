//! Any body: a job, or a rejection. A job means the same however it is written, and no two ids share a key.
#![no_main]

use std::sync::LazyLock;

use libfuzzer_sys::fuzz_target;
use nightshift_core::failure::FailureReason;
use nightshift_core::input_hash::{InputHash, canonical_json};
use nightshift_core::job::{self, Job, REFERENCE_BYTES_MAX, TASK_BYTES_MAX};
use nightshift_core::json::{self, EXACT_INTEGER_MAX};
use nightshift_core::limits::Limits;
use nightshift_core::task::Tasks;
use nightshift_tasks::Registry;
use serde_json::{Value, json};

/// Made once: deriving the schemas takes longer than a run.
static TASKS: LazyLock<Registry> = LazyLock::new(nightshift_tasks::registry);
/// A detail goes into a dead letter's attribute; it may quote a name or a number, never a document.
const DETAIL_BYTES_MAX: usize = 1_024;
/// Decimal digits that a double always tells apart.
const EXACT_DIGITS: usize = 15;

fuzz_target!(|body: &str| {
    let body_bytes_max = Limits::default().body_bytes_max;
    let job = match job::parse(body, body_bytes_max) {
        Ok(job) => job,
        Err(rejection) => {
            assert_eq!(rejection.reason, FailureReason::InvalidMessage);
            assert!(!rejection.detail.is_empty() && rejection.detail.len() <= DETAIL_BYTES_MAX);
            return;
        }
    };
    assert!((1..=TASK_BYTES_MAX).contains(&job.task.len()));
    assert!(job.reference.as_ref().is_none_or(|reference| reference.len() <= REFERENCE_BYTES_MAX));
    numbers_are_told_apart(&job.input);

    let key = InputHash::of_job(&job.task, &job.input);
    assert_ne!(key, InputHash::of_body(body));

    // The canonical form is a JSON text of the same key and is its own canonical form.
    let asked = canonical_json(&json!({"task": job.task, "input": job.input}));
    let mut again = json::parse(&asked).expect("a canonical form is JSON");
    assert_eq!(canonical_json(&again), asked);
    assert_eq!(InputHash::of_job(&job.task, &again["input"].take()), key);

    // Written by another serializer, with white space and its own order, it is the same job.
    let rewritten = serde_json::to_string_pretty(&json!({
        "reference": job.reference, "input": job.input, "task": job.task,
    }))
    .expect("a job can be written");
    if rewritten.len() <= body_bytes_max {
        let read: Job = job::parse(&rewritten, body_bytes_max).expect("a rewritten job is a job");
        assert_eq!(read, job);
        assert_eq!(InputHash::of_job(&read.task, &read.input), key);
    }

    // Any input gets a prompt or a list of what is wrong with it.
    for name in TASKS.names() {
        if let Some(task) = TASKS.find(name) {
            match task.prompt(&job.input) {
                Ok(prompt) => assert!(!prompt.system.is_empty() && !prompt.user.is_empty()),
                Err(violations) => assert!(!violations.0.is_empty()),
            }
        }
    }
});

/// An integer beyond ±(2^53 − 1) was written with few digits and an exponent, or it would have been refused.
fn numbers_are_told_apart(value: &Value) {
    match value {
        Value::Number(number) => {
            let double = number.as_f64().expect("a number is a double");
            if double.abs() > EXACT_INTEGER_MAX as f64 {
                let shortest = format!("{double:e}");
                let mantissa = shortest.split('e').next().unwrap_or_default();
                assert!(mantissa.bytes().filter(u8::is_ascii_digit).count() <= EXACT_DIGITS, "{number}");
            } else if let Some(integer) = number.as_i64() {
                assert!(integer.unsigned_abs() <= EXACT_INTEGER_MAX, "{number}");
            }
        }
        Value::Array(items) => items.iter().for_each(numbers_are_told_apart),
        Value::Object(members) => members.values().for_each(numbers_are_told_apart),
        _ => {}
    }
}
