//! A stack that is too small fails its load test for the reason that it is too small for, with the real worker.

use nightshift_core::limits::Limits;
use nightshift_core::load_test::{Limited, Plan, Thresholds};
use nightshift_load::{Load, test};
use nightshift_load_report::Report;

/// 7,200 jobs an hour for five minutes, to a stack of the default size.
fn load() -> Load {
    let plan = Plan { expected_per_hour: 3_600, factor: 2.0, minutes: 5.0, warm_up_s: 30 };
    // The money of a day at this rate: it is not what most of these are about.
    let limits = Limits { spend_cap_micro_usd: 500_000_000, ..Limits::default() };
    let thresholds = Thresholds::default();
    Load { plan, limits, thresholds, requests_per_minute: 0, seed: 1 }
}

/// What does not hold.
fn broken(report: &Report) -> Vec<&'static str> {
    report.verdict.reasons().map(|finding| finding.what).collect()
}

#[test]
fn a_stack_of_the_default_size_stands_the_default_load() {
    let report = test(&load()).unwrap();
    assert_eq!(broken(&report), [""; 0], "{:?}", report.verdict);
    assert_eq!((report.measured.accepted, report.measured.outcomes.results), (660, 660));
    assert!(report.page().contains("<svg"));
}

#[test]
fn what_is_too_small_is_what_the_verdict_names() {
    type Change = fn(&mut Load);
    let cases: [(Change, Limited, &str); 5] = [
        (
            |load| {
                load.plan.expected_per_hour *= 5;
                load.limits.concurrency_max = 2;
            },
            Limited::Concurrency,
            "2 batches of 10 at one time",
        ),
        // The provider's limit is told to the stack, and never exceeded.
        (
            |load| {
                load.limits.requests_per_minute = 60;
                load.requests_per_minute = 60;
            },
            Limited::ProviderRequests,
            "60 requests a minute",
        ),
        // Nobody told it.
        (|load| load.requests_per_minute = 60, Limited::Provider, "calls"),
        (
            |load| load.limits.spend_cap_micro_usd = 300_000,
            Limited::SpendCap,
            "deliveries were handed back for it",
        ),
        (|load| load.thresholds.p95_s_max = 0.1, Limited::Job, "at most 0.1 s"),
    ];
    for (change, limited, words) in cases {
        let mut load = load();
        change(&mut load);
        let report = test(&load).unwrap();
        let headroom = &report.verdict.headroom;
        let gave = headroom.steps.first().and_then(|step| step.gave.as_ref());
        assert!(!report.verdict.passed, "{limited:?}");
        assert_eq!(gave.map(|gave| gave.limited), Some(limited), "{:?}", report.verdict);
        let at_once = gave.map(|gave| gave.at_once()).unwrap_or_default();
        assert!(headroom.words().starts_with(&at_once), "{}", headroom.words());
        assert!(headroom.words().contains(words), "{}", headroom.words());
        // It waits, and is not lost.
        assert_eq!(report.measured.outcomes.missing, 0, "{:?}", report.measured.outcomes);
    }
}

#[test]
fn a_visibility_timeout_that_is_too_short_fails_by_itself() {
    let mut load = load();
    load.limits.visibility_timeout_ms = 60_000;
    let report = test(&load).unwrap();
    assert_eq!(broken(&report), ["settings"]);
    let words = report.verdict.reasons().next().map(|finding| finding.words.clone()).unwrap();
    assert!(words.contains("VISIBILITY_TIMEOUT_MS (60000) must be at least"), "{words}");
}

#[test]
fn an_impossible_threshold_fails_a_fleet_that_stands_the_load() {
    let mut load = load();
    load.thresholds.success_percent_min = 100.1;
    assert_eq!(broken(&test(&load).unwrap()), ["success"]);
}
