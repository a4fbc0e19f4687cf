//! What a load can be too much for.

use serde::Serialize;

use super::measure::{Alarms, Measured, Observed};
use super::{Plan, grouped};

/// What is good enough. Each has a default that suits work which nobody waits for at a screen.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Thresholds {
    /// Share of jobs that must end with a result, in percent.
    pub success_percent_min: f64,
    /// 95 % of the jobs must end within this time of their scheduled send, in seconds.
    pub p95_s_max: f64,
    /// 99 % of them.
    pub p99_s_max: f64,
    /// All must have ended this long after the last send, in seconds.
    pub drain_s_max: f64,
    /// 99 % of the jobs must have been taken by SQS within this time of their scheduled send, in seconds: sent later, the load
    /// was a lower one. `None`: a twentieth of the test's length, from 1 to 30 s.
    pub send_delay_s_max: Option<f64>,
    /// Share of calls that the provider may refuse for its limits, in percent.
    pub throttled_percent_max: f64,
    /// Alarms that may be raised.
    pub alarms_max: u64,
    /// What the calls may cost, in dollars; `None`: not asked.
    pub cost_usd_max: Option<f64>,
}

impl Default for Thresholds {
    fn default() -> Self {
        Self {
            success_percent_min: 99.0,
            p95_s_max: 60.0,
            p99_s_max: 300.0,
            drain_s_max: 300.0,
            send_delay_s_max: None,
            throttled_percent_max: 5.0,
            alarms_max: 0,
            cost_usd_max: None,
        }
    }
}

/// The least share of the offered jobs that SQS must have taken for the test to be one of that load, in percent.
const ACCEPTED_PERCENT_MIN: f64 = 99.0;
/// The share of a test's length by which its jobs may be late: that much lower was the load, if they came later and later.
const SEND_DELAY_SHARE_MAX: f64 = 0.05;
/// It is no less than this in a short test, and no more than that in a long one, in seconds.
const SEND_DELAY_S: (f64, f64) = (1.0, 30.0);

impl Thresholds {
    /// How late jobs may be taken in a test of this plan, in seconds.
    #[must_use]
    pub fn send_delay_s_max(&self, plan: &Plan) -> f64 {
        let length_s = plan.duration_ms() as f64 / 1_000.0;
        let (least_s, most_s) = SEND_DELAY_S;
        self.send_delay_s_max.unwrap_or_else(|| (length_s * SEND_DELAY_SHARE_MAX).clamp(least_s, most_s))
    }
}

/// Whether something holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Holds {
    /// It does.
    Yes,
    /// It does not.
    No,
    /// It could not be measured, and is neither for nor against.
    Unknown,
}

/// One thing that was asked.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Finding {
    /// What, in a word.
    pub what: &'static str,
    /// Whether it holds.
    pub holds: Holds,
    /// The number and what it was to be, in a sentence.
    pub words: String,
}

/// What a load can be too much for.
pub(super) fn strain(measured: &Measured, observed: &Observed, thresholds: &Thresholds) -> [Finding; 7] {
    [
        lost(measured),
        success(measured, thresholds),
        latency(measured, "latency p95", 95, measured.latency.p95_ms, thresholds.p95_s_max),
        latency(measured, "latency p99", 99, measured.latency.p99_ms, thresholds.p99_s_max),
        drained(measured, thresholds),
        throttled(observed, thresholds),
        alarms(observed, thresholds),
    ]
}

/// Whether the load was what it was to be.
pub(super) fn offered(plan: &Plan, measured: &Measured, thresholds: &Thresholds) -> Finding {
    let percent = measured.accepted as f64 / measured.offered.max(1) as f64 * 100.0;
    let delay_s = measured.send_delay.p99_ms as f64 / 1_000.0;
    let most_s = thresholds.send_delay_s_max(plan);
    let holds = measured.offered > 0 && percent >= ACCEPTED_PERCENT_MIN && delay_s <= most_s;
    let advice = if holds {
        String::new()
    } else {
        format!(
            " It should take {ACCEPTED_PERCENT_MIN} %, within {most_s} s: this machine or its network is too slow for the load, so the stack saw a lower one."
        )
    };
    finding(
        "offered load",
        holds,
        format!(
            "SQS took {} of {} jobs, 99 % of them within {delay_s:.1} s of when they were due.{advice}",
            grouped(measured.accepted),
            grouped(measured.offered),
        ),
    )
}

pub(super) fn finding(what: &'static str, holds: bool, words: String) -> Finding {
    Finding { what, holds: if holds { Holds::Yes } else { Holds::No }, words }
}

fn unknown(what: &'static str, why: &str) -> Finding {
    Finding { what, holds: Holds::Unknown, words: why.to_owned() }
}

const UNREAD: &str = "CloudWatch could not be read, or has not counted all of it yet, so this is not known.";
const NOT_SIMULATED: &str = "Alarms are not simulated: `scripts/drill` shows which of them fire, and when.";

fn lost(measured: &Measured) -> Finding {
    let of = grouped(measured.accepted);
    let (holds, words) = match (measured.outcomes.missing, measured.unread + measured.untraced) {
        (0, 0) => (Holds::Yes, format!("Each of {of} jobs has a result, a dead letter, or still waits.")),
        (0, unseen) => (
            Holds::Unknown,
            format!(
                "What became of {} of {of} jobs could not be seen: nothing says that they were lost, and nothing that they wait.",
                grouped(unseen)
            ),
        ),
        (missing, _) => {
            let missing = grouped(missing);
            (Holds::No, format!("{missing} of {of} jobs left no record, and no queue holds them."))
        }
    };
    Finding { what: "nothing lost", holds, words }
}

fn success(measured: &Measured, thresholds: &Thresholds) -> Finding {
    let least = thresholds.success_percent_min;
    let letters = measured.outcomes.dead_letters.iter();
    let letters: Vec<_> = letters.map(|(reason, count)| format!("{reason} {}", grouped(count))).collect();
    let why =
        if letters.is_empty() { String::new() } else { format!(" Dead letters: {}.", letters.join(", ")) };
    finding(
        "success",
        measured.latency.count > 0 && measured.success_percent >= least,
        format!(
            "{:.2} % of the jobs ended with a result; at least {least} % should.{why}",
            measured.success_percent
        ),
    )
}

fn latency(measured: &Measured, what: &'static str, percent: u64, ms: u64, most_s: f64) -> Finding {
    let seconds = ms as f64 / 1_000.0;
    let aged = if measured.drain_s.is_some() { "" } else { " What had not ended counts with its age." };
    finding(
        what,
        seconds <= most_s,
        format!(
            "{percent} % of the jobs ended within {seconds:.1} s of when they were due; it should be at most {most_s} s.{aged}"
        ),
    )
}

fn drained(measured: &Measured, thresholds: &Thresholds) -> Finding {
    let most_s = thresholds.drain_s_max;
    let words = match measured.drain_s {
        Some(drain_s) => format!(
            "The last job ended {drain_s:.1} s after the last one was due, {} waited at most; it should be at most {most_s} s.",
            grouped(measured.backlog_max)
        ),
        None => format!(
            "{} jobs had not ended when the test stopped looking; all should within {most_s} s.",
            grouped(measured.outcomes.waiting + measured.outcomes.missing)
        ),
    };
    finding("backlog", measured.drain_s.is_some_and(|drain_s| drain_s <= most_s), words)
}

fn throttled(observed: &Observed, thresholds: &Thresholds) -> Finding {
    let (Some(throttled), Some(calls)) = (observed.throttled, observed.calls) else {
        return unknown("throttles", UNREAD);
    };
    let percent = throttled / calls.max(1.0) * 100.0;
    let most = thresholds.throttled_percent_max;
    finding(
        "throttles",
        percent <= most,
        format!(
            "The provider refused {} of {} calls ({percent:.1} %) for its limits; it should be at most {most} %.",
            grouped(throttled),
            grouped(calls)
        ),
    )
}

fn alarms(observed: &Observed, thresholds: &Thresholds) -> Finding {
    let raised = match &observed.alarms {
        Alarms::Raised(raised) => raised,
        Alarms::Unread => return unknown("alarms", UNREAD),
        Alarms::NotSimulated => return unknown("alarms", NOT_SIMULATED),
    };
    let words = if raised.is_empty() {
        "No alarm was raised.".to_owned()
    } else {
        format!("Raised during the test: {}.", raised.join(", "))
    };
    finding("alarms", raised.len() as u64 <= thresholds.alarms_max, words)
}
