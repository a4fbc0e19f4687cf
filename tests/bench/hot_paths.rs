//! The core's hot paths, by criterion: what every job pays in CPU before and after its model call.
#![allow(clippy::unwrap_used, missing_docs)] // a bench stops where it cannot go on

use std::hint::black_box;

use criterion::{Criterion, criterion_group, criterion_main};
use nightshift_core::failure::{FailureReason, Rejection};
use nightshift_core::input_hash::{InputHash, canonical_json};
use nightshift_core::job;
use nightshift_core::json;
use nightshift_core::limits::Limits;
use nightshift_core::message::Delivery;
use nightshift_core::next_step::ClaimAsk;
use nightshift_core::output_validation::{extract, validate};
use nightshift_core::record::Revision;
use nightshift_core::task::Tasks;
use serde_json::{Value, json};

/// An ordinary email, in characters.
const TEXT_CHARS: usize = 2_000;
const NOW_MS: u64 = 1_795_478_400_000;

fn body() -> String {
    let text = "Ünïcode, \"quotes\" and a line\r\n".chars().cycle().take(TEXT_CHARS).collect::<String>();
    json!({"task": "summarize_email", "input": {"subject": "My card", "body": text}, "reference": "T-1"})
        .to_string()
}

fn parse_and_hash(c: &mut Criterion) {
    let (body, limit) = (body(), Limits::default().body_bytes_max);
    c.bench_function("parse a body and hash its job", |b| {
        b.iter(|| {
            let job = job::parse(black_box(&body), limit).unwrap();
            InputHash::of_job(&job.task, &job.input)
        });
    });
    let large = json!({"task": "summarize_email", "input": {"body": "x".repeat(900_000)}}).to_string();
    c.bench_function("the same, 900 kB", |b| {
        b.iter(|| {
            let job = job::parse(black_box(&large), limit).unwrap();
            InputHash::of_job(&job.task, &job.input)
        });
    });
}

fn canonical(c: &mut Criterion) {
    let members: serde_json::Map<String, Value> = (0..100)
        .map(|n| {
            (
                format!("member {}", (n * 37) % 100),
                json!([n, f64::from(n) / 7.0, "é\n", {"z": null, "a": true}]),
            )
        })
        .collect();
    let value = Value::Object(members);
    c.bench_function("canonical form of 100 nested members", |b| {
        b.iter(|| canonical_json(black_box(&value)))
    });
    let text = value.to_string();
    c.bench_function("strict parse of the same", |b| b.iter(|| json::parse(black_box(&text)).unwrap()));
}

fn answers(c: &mut Criterion) {
    let registry = nightshift_tasks::registry();
    let task = registry.find("categorize_ticket").unwrap();
    let described = registry.describe("categorize_ticket").unwrap();
    let input = described.example_job.get("input").unwrap_or(&Value::Null);
    let output = described.example_output;
    let answer = format!("Here it is:\n\n```json\n{}\n```\n", serde_json::to_string_pretty(&output).unwrap());
    c.bench_function("extract an answer", |b| b.iter(|| extract(black_box(&answer)).unwrap()));
    c.bench_function("extract and validate an answer", |b| {
        b.iter(|| validate(task, input, black_box(&answer)).unwrap())
    });
}

fn claims(c: &mut Criterion) {
    let limits = Limits::default();
    let key = InputHash::of_job("t", &Value::Null);
    let delivery = Delivery {
        message_id: "00000000-0000-4000-8000-000000000000".to_owned(),
        sent_at_ms: NOW_MS - 1_000,
        receive_count: 1,
        received_at_ms: NOW_MS,
        redrive_of: None,
    };
    let revision = Revision { hash: "0123456789abcdef".to_owned(), built_at_ms: 1, function_version: 1 };
    let ask = ClaimAsk {
        key: &key,
        task: Some("t"),
        reference: Some("T-1"),
        delivery: &delivery,
        token: "0123456789abcdef0123456789abcdef",
        now_ms: NOW_MS,
        lease_until_ms: NOW_MS + 310_000,
        alone: false,
        revision: &revision,
        limits: &limits,
    };
    c.bench_function("first claim", |b| b.iter(|| black_box(&ask).first()));
    let other = ClaimAsk { token: "fedcba9876543210fedcba9876543210", ..ask };
    let held = other.first().record;
    c.bench_function("claim of a held record", |b| b.iter(|| ask.refused_by(black_box(&held))));
    let rejection = Rejection::new(FailureReason::InvalidInput, "text is missing".to_owned());
    let failed = other.refuse(other.first(), &rejection).record;
    c.bench_function("claim of a failed record", |b| b.iter(|| ask.refused_by(black_box(&failed))));
}

criterion_group!(benches, parse_and_hash, canonical, answers, claims);
criterion_main!(benches);
