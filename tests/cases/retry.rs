//! When a call is made again: what the headers say, and how long we wait when they say nothing.

use nightshift_core::cost::Price;
use nightshift_core::input_hash::InputHash;
use nightshift_core::limits::Limits;
use nightshift_core::message::Delivery;
use nightshift_core::model::{FailureClass, Headroom, ModelFailure, RetryAdvice};
use nightshift_core::next_step::{AfterCall, ClaimAsk, JobRun, TimeLeft, Work};
use nightshift_core::record::Revision;
use nightshift_core::retry::{advised_wait_ms, full_jitter_ms};
use nightshift_core::spend::CallPrice;
use nightshift_core::task::Tasks as _;
use nightshift_models::classify::advice;
use nightshift_tests::cases;
use reqwest::header::{HeaderMap, HeaderName, HeaderValue};
use serde_json::Value;

/// What a run of calls answers to one failure after the other.
struct Run {
    run: JobRun,
    limits: Limits,
}

impl Run {
    fn new(limits: Limits, now_ms: u64) -> Self {
        let registry = nightshift_tasks::registry();
        let (input, revision) = (example("categorize_ticket"), Revision::default());
        let key = InputHash::of_job("categorize_ticket", &input);
        let delivery = Delivery {
            message_id: "m".to_owned(),
            sent_at_ms: now_ms,
            receive_count: 1,
            received_at_ms: now_ms,
            redrive_of: None,
        };
        let ask = ClaimAsk {
            key: &key,
            task: Some("categorize_ticket"),
            reference: None,
            delivery: &delivery,
            token: "token",
            now_ms,
            lease_until_ms: now_ms + 310_000,
            alone: true,
            revision: &revision,
            limits: &limits,
        };
        let prompt = registry.find("categorize_ticket").unwrap().prompt(&input).unwrap();
        Self { run: JobRun::new(ask.first().record, &prompt), limits }
    }

    fn fails(&mut self, class: FailureClass, advice: RetryAdvice, now_ms: u64, fraction: f64) -> AfterCall {
        let registry = nightshift_tasks::registry();
        let work = Work {
            task: registry.find("categorize_ticket").unwrap(),
            input: &example("categorize_ticket"),
            limits: &self.limits,
            price: CallPrice::new(Price::flat(1, 1), 1_000, 100),
            model: "model-1",
            revision: &Revision::default(),
            opened_at_ms: 0,
        };
        let failure = ModelFailure {
            class,
            status: Some(429),
            error_type: "rate_limit_error".to_owned(),
            message: String::new(),
            request_id: None,
            advice,
            headroom: Headroom::default(),
            oversize: None,
        };
        let time = TimeLeft { left_ms: 250_000, usual_call_ms: 10_000 };
        self.run.after_failure(work, &failure, now_ms, time, fraction)
    }
}

fn example(task: &str) -> Value {
    nightshift_tasks::registry().describe(task).unwrap().example_job["input"].clone()
}

#[test]
fn every_form_of_retry_after_leads_to_the_wait_that_it_means() {
    let Some(folder) = cases::folder("retry") else { return };
    let cases = cases::text(&folder, "retry_after_headers.jsonl");
    let mut seen = 0;
    for line in cases.lines() {
        let case: Value = serde_json::from_str(line).unwrap();
        let name = case["name"].as_str().unwrap();
        let now_ms = case["now_epoch_s"].as_u64().unwrap() * 1_000;
        let mut headers = HeaderMap::new();
        for header in case["headers"].as_array().unwrap() {
            headers.append(
                HeaderName::from_bytes(header[0].as_str().unwrap().as_bytes()).unwrap(),
                HeaderValue::from_str(header[1].as_str().unwrap()).unwrap(),
            );
        }
        let advice = advice(&headers);
        let wait_s = case["rfc_wait_s"].as_f64().or(case["sdk_wait_s"].as_f64());
        let wait_ms = (wait_s.unwrap_or(0.0) * 1_000.0).ceil() as u64;
        let advised_ms = advised_wait_ms(&advice, now_ms);
        for fraction in [0.0, 0.5, 1.0] {
            let step = Run::new(Limits::default(), now_ms).fails(
                FailureClass::Capacity,
                advice.clone(),
                now_ms,
                fraction,
            );
            let label = format!("{name}: {step:?}");
            match (case["rule"].as_str().unwrap(), &step) {
                // At least the wait; not more than that and our own backoff, so that nobody stalls.
                ("wait", AfterCall::CallAgain { delay_ms }) => {
                    assert!((wait_ms..=wait_ms.max(1_000)).contains(delay_ms), "{label}");
                    assert_eq!(advised_ms, Some(wait_ms), "{label}");
                }
                ("backoff", AfterCall::CallAgain { delay_ms }) => {
                    assert_eq!(*delay_ms, (1_000.0 * fraction) as u64, "{label}");
                    assert!(advised_ms.unwrap_or(0) == 0, "{label}");
                }
                ("wait_or_requeue", AfterCall::CallAgain { delay_ms: given })
                | ("wait_or_requeue", AfterCall::HandBack { at_least_ms: given, .. }) => {
                    assert!(*given >= wait_ms, "{label}");
                    assert_eq!(advised_ms, Some(wait_ms), "{label}");
                }
                // Read as RFC 9110 has it, or not believed; never a stall.
                ("wait_or_backoff" | "backoff_or_requeue", AfterCall::CallAgain { delay_ms }) => {
                    assert!(*delay_ms <= wait_ms.max(30_000), "{label}");
                }
                ("no_retry", AfterCall::HandBack { .. }) => {}
                (rule, _) => panic!("{rule} is broken by {label}"),
            }
        }
        seen += 1;
    }
    assert!(seen >= 35, "{seen}");
}

#[test]
fn the_wait_doubles_as_in_the_sdks_vectors() {
    let Some(folder) = cases::folder("retry") else { return };
    let case: Value = serde_json::from_str(&cases::text(&folder, "aws_standard_2_1.json")).unwrap();
    let vector = &case["backoff_rand_1"];
    let attempts = vector["attempts"].as_array().unwrap();
    assert_eq!(attempts.len(), 11);
    for (attempt, delay_s) in attempts.iter().zip(vector["delays"].as_array().unwrap()) {
        let failures = u32::try_from(attempt.as_u64().unwrap() - 1).unwrap();
        let delay_ms = (delay_s.as_f64().unwrap() * 1_000.0).round() as u64;
        assert_eq!(full_jitter_ms(50, 20_000, failures, 1.0), delay_ms, "attempt {attempt}");
        for hundredth in 0..100_u32 {
            let drawn_ms = full_jitter_ms(50, 20_000, failures, f64::from(hundredth) / 100.0);
            assert!(drawn_ms <= delay_ms, "attempt {attempt} at 0.{hundredth:02}: {drawn_ms}");
        }
    }
}

/// The SDK's retry quota (a token bucket per client) has no counterpart here: what it protects the provider from is
/// the business of flow control and of the hand-back. Its two cases without a first retry are left out by name.
const ABOUT_THE_QUOTA: [&str; 2] = ["quota reached after a single retry", "no retry when quota is 0"];

#[test]
fn a_run_of_failures_waits_and_ends_as_in_the_sdks_cases() {
    let Some(folder) = cases::folder("retry") else { return };
    let cases: Value = serde_json::from_str(&cases::text(&folder, "aws_standard_2_0.json")).unwrap();
    let mut left_out = Vec::new();
    for case in cases["cases"].as_array().unwrap() {
        let name = case["name"].as_str().unwrap();
        if ABOUT_THE_QUOTA.contains(&name) {
            left_out.push(name);
            continue;
        }
        let number = |member: &str, default: u64| case[member].as_u64().unwrap_or(default);
        let limits = Limits {
            backoff_base_ms: 1_000,
            backoff_ms_max: number("max_backoff", 20) * 1_000,
            call_limit: u32::try_from(number("max_attempts", 3)).unwrap(),
            paid_call_limit: 100,
            ..Limits::default()
        };
        let mut run = Run::new(limits, 0);
        for (nth, step) in case["steps"].as_array().unwrap().iter().enumerate() {
            if step["status"] == 200 {
                break;
            }
            let after = run.fails(FailureClass::Transient, RetryAdvice::default(), 0, 1.0);
            match step["delay"].as_f64() {
                Some(delay_s) => {
                    let delay_ms = (delay_s * 1_000.0) as u64;
                    assert_eq!(after, AfterCall::CallAgain { delay_ms }, "{name}, step {nth}");
                }
                None => assert!(matches!(after, AfterCall::HandBack { .. }), "{name}, step {nth}: {after:?}"),
            }
        }
    }
    assert_eq!(left_out, ABOUT_THE_QUOTA);
}
