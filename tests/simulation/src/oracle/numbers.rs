//! The published numbers of an invocation, against what happened in it.

use std::collections::{BTreeMap, BTreeSet};

use nightshift_core::metric::{Datum, HandBackCause, MetricBatch, Outcome};
use nightshift_core::model::Usage;
use nightshift_core::record::Record;
use nightshift_worker::BatchReport;

use super::history::CallEnd;
use super::{Promise, tolerance_ms};
use crate::plan::Plan;
use crate::work::Kind;
use crate::world::{Invocation, State};

/// Timers are of whole milliseconds.
const TIMER_MS: f64 = 2.0;

/// What an invocation did, as the world saw it.
#[derive(Debug, Default)]
pub struct Seen {
    /// When its handler began, by its own clock.
    pub starts_ms: u64,
    /// Calls that ended while their worker listened, and how.
    pub calls: u32,
    pub throttled: u32,
    pub account: u32,
    /// Refusals that what was heard of others may have made the account's, or not.
    pub account_unsure: u32,
    pub errors: u32,
    /// Calls that followed a failed one of the same claim.
    pub retries: u32,
    /// Answers that break their schema, and those among them over which the task's code may have panicked.
    pub rejections: u32,
    pub rejections_unsure: u32,
    pub input_tokens: u64,
    pub output_tokens: u64,
    /// What each answer cost, in the order in which they came.
    pub answers: Vec<(u32, u64)>,
    pub model_latency_ms: Vec<f64>,
    /// Of each result that was stored: since the input was first received, and since its message was sent.
    pub job_latency_ms: Vec<f64>,
    pub end_to_end_ms: Vec<f64>,
    /// Operations at the ledger that failed for good.
    pub ledger_errors: u64,
    /// Of them, records in words that its release does not know.
    pub unreadable: u64,
    /// Messages whose visibility it tried to change, and for how many seconds.
    pub hidden: BTreeMap<u32, u32>,
    /// Messages that it counted on a record as further ones.
    pub duplicates: BTreeSet<u32>,
}

/// The price of a token of the simulated model, in millionths of a dollar: read and written.
const TOKEN_MICRO_USD: (u64, u64) = (1, 5);

impl State {
    /// The worker knows what became of a call. `heard`: what an answer used, and how long it took.
    pub fn call_is_counted(
        &mut self,
        now_ms: u64,
        n: u32,
        invocation: u64,
        end: CallEnd,
        heard: Option<(Usage, u64)>,
        plan: &Plan,
    ) {
        let may_panic = self.inputs[n as usize].kind == Kind::PanicsInAccept;
        let environment = self.invocations.get(&invocation).map(|running| running.environment);
        let Some(environment) = environment else { return };
        let took_ms = heard.map_or(0, |(_, took_ms)| took_ms);
        let unsure = self.hear(now_ms, n, environment, end, took_ms, plan);
        self.must_tell_of_account(environment, invocation);
        let Some(running) = self.invocations.get_mut(&invocation) else { return };
        let seen = &mut running.seen;
        seen.account_unsure += u32::from(unsure);
        seen.calls += 1;
        match end {
            CallEnd::Capacity => seen.throttled += 1,
            CallEnd::Account => seen.account += 1,
            CallEnd::Transient | CallEnd::Rejected | CallEnd::Unclear | CallEnd::Forbidden => {
                seen.errors += 1
            }
            CallEnd::Invalid => {
                seen.rejections += 1;
                seen.rejections_unsure += u32::from(may_panic);
            }
            _ => {}
        }
        if let Some((usage, took_ms)) = heard {
            let (read, written) = TOKEN_MICRO_USD;
            seen.input_tokens += usage.input_tokens;
            seen.output_tokens += usage.output_tokens;
            seen.answers.push((n, usage.input_tokens * read + usage.output_tokens * written));
            seen.model_latency_ms.push(took_ms as f64);
        }
    }

    /// A result stands, and its worker knows it; `clock_ms`: by its own clock.
    pub fn result_is_written(&mut self, clock_ms: u64, invocation: u64, record: &Record) {
        let Some(&n) = self.by_key.get(&record.key) else { return };
        let first_received_ms = self.inputs[n as usize].epoch.first_received_ms;
        let Some(running) = self.invocations.get_mut(&invocation) else { return };
        let since = |ms: u64| clock_ms.saturating_sub(ms) as f64;
        running.seen.job_latency_ms.push(since(first_received_ms));
        running.seen.end_to_end_ms.push(since(record.sent_at_ms));
    }

    pub(super) fn judge_numbers(
        &mut self,
        now_ms: u64,
        id: u64,
        running: &Invocation,
        report: &BatchReport,
        plan: &Plan,
    ) {
        self.stats.checks += 1;
        let fault = match &running.published {
            None => Some("published nothing".to_owned()),
            Some(batch) => self.wrong_number(batch, running, report, plan),
        };
        if let Some(what) = fault {
            self.violate(now_ms, Promise::Conserved, None, format!("invocation {id} {what}"));
        }
    }

    /// The first number that is not what was seen.
    fn wrong_number(
        &self,
        batch: &MetricBatch,
        running: &Invocation,
        report: &BatchReport,
        plan: &Plan,
    ) -> Option<String> {
        let seen = &running.seen;
        let of_all: Vec<&Datum> = batch.data.iter().filter(|datum| datum.dimensions.len() == 1).collect();
        let sum = |name: &str| sum_of(of_all.iter().copied().filter(|datum| datum.name == name));
        let count = |of: fn(&Outcome) -> bool| report.outcomes.iter().filter(|o| of(o)).count() as f64;
        let cost_micro_usd: u64 = seen.answers.iter().map(|(_, cost)| cost).sum();
        let exact = [
            ("JobsReceived", report.outcomes.len() as f64),
            ("JobsSucceeded", count(|o| *o == Outcome::Succeeded)),
            ("JobsNeedingReview", count(|o| *o == Outcome::NeedsReview)),
            ("JobsDuplicate", count(|o| *o == Outcome::Duplicate)),
            ("JobsHandedBack", count(|o| matches!(o, Outcome::HandedBack(_)))),
            ("DeadLetters", count(|o| matches!(o, Outcome::DeadLettered(_)))),
            ("ModelCalls", f64::from(seen.calls)),
            ("ModelThrottled", f64::from(seen.throttled)),
            ("LedgerErrors", seen.ledger_errors as f64),
            ("RecordsUnreadable", seen.unreadable as f64),
            ("InputTokens", seen.input_tokens as f64),
            ("OutputTokens", seen.output_tokens as f64),
            ("CostUsd", cost_micro_usd as f64 / 1e6),
        ];
        let rejections = f64::from(seen.rejections);
        let failed = f64::from(seen.throttled + seen.errors);
        let mut ranges: Vec<(&str, f64, f64)> = exact.into_iter().map(|(name, is)| (name, is, is)).collect();
        let (account, unsure, errors) =
            (f64::from(seen.account), f64::from(seen.account_unsure), f64::from(seen.errors));
        ranges.push(("AccountFailures", account, account + unsure));
        // What is not the account's is an error.
        let errors = errors - (sum("AccountFailures") - account);
        ranges.push(("ModelErrors", errors, errors));
        ranges.push(("OutputRejections", rejections - f64::from(seen.rejections_unsure), rejections));
        // A retry that is decided may meet the deadline, the cap or a hold before it is made.
        ranges.push(("ModelRetries", f64::from(seen.retries), failed));
        if let Some(useful_micro_usd) = self.useful_micro_usd(running, report) {
            let wasted = (cost_micro_usd - useful_micro_usd) as f64 / 1e6;
            ranges.push(("WastedCostUsd", wasted, wasted));
        }
        for (name, least, most) in ranges {
            let said = sum(name);
            if said < least - 1e-9 || said > most + 1e-9 {
                return Some(format!("published {name} {said}, and it was {least} to {most}"));
            }
        }
        let waits = running.batch.iter().map(|(message, _)| {
            seen.starts_ms.saturating_sub(self.queue.messages[*message as usize].sent_at_ms) as f64
        });
        // Another worker's clock says when an input was first received.
        let clocks_ms = tolerance_ms(plan) as f64 + super::ledger::DECIDED_BEFORE_MS_MAX as f64;
        let samples = [
            ("QueueWait", waits.collect(), TIMER_MS),
            ("ModelLatency", seen.model_latency_ms.clone(), TIMER_MS),
            ("EndToEndLatency", seen.end_to_end_ms.clone(), TIMER_MS),
            ("JobLatency", seen.job_latency_ms.clone(), clocks_ms),
        ];
        for (name, mut are, by_ms) in samples {
            let mut said = values(of_all.iter().copied().filter(|datum| datum.name == name));
            said.sort_unstable_by(f64::total_cmp);
            are.sort_unstable_by(f64::total_cmp);
            let alike = said.len() == are.len() && said.iter().zip(&are).all(|(a, b)| (a - b).abs() <= by_ms);
            if !alike {
                return Some(format!("published {name} {said:?}, and they were {are:?}"));
            }
        }
        uneven(batch, &of_all, report)
    }

    /// What the answers cost that became results; `None` where a panic or the deadline took the account of a claim away.
    fn useful_micro_usd(&self, running: &Invocation, report: &BatchReport) -> Option<u64> {
        let panics =
            |n: u32| matches!(self.inputs[n as usize].kind, Kind::PanicsInAccept | Kind::PanicsInPrompt);
        let mut useful_micro_usd = 0;
        for ((message, _), outcome) in running.batch.iter().zip(&report.outcomes) {
            let n = self.queue.messages[*message as usize].input;
            if panics(n) || *outcome == Outcome::HandedBack(HandBackCause::Deadline) {
                return None;
            }
            if *outcome == Outcome::Succeeded {
                let last = running.seen.answers.iter().rev().find(|(of, _)| *of == n);
                useful_micro_usd += last.map_or(0, |(_, cost)| *cost);
            }
        }
        Some(useful_micro_usd)
    }
}

/// What is published per task adds up to what is published for all of them; dead letters per reason as well, and hand-backs
/// per cause.
fn uneven(batch: &MetricBatch, of_all: &[&Datum], report: &BatchReport) -> Option<String> {
    let with = |dimension: &'static str| {
        batch.data.iter().filter(move |datum| datum.dimensions.iter().any(|(name, _)| *name == dimension))
    };
    let names: BTreeSet<&str> = of_all.iter().map(|datum| datum.name).collect();
    for name in names {
        let all = sum_of(of_all.iter().copied().filter(|datum| datum.name == name));
        let tasks = sum_of(with("Task").filter(|datum| datum.name == name));
        if (all - tasks).abs() > 1e-6 {
            return Some(format!("published {name} {all}, and {tasks} by task"));
        }
    }
    let mut by_word: BTreeMap<(&str, String), f64> = BTreeMap::new();
    for outcome in &report.outcomes {
        let word = match outcome {
            Outcome::DeadLettered(reason) => ("Reason", reason.to_string()),
            Outcome::HandedBack(cause) => ("Cause", cause.as_str().to_owned()),
            Outcome::Succeeded | Outcome::NeedsReview | Outcome::Duplicate => continue,
        };
        *by_word.entry(word).or_default() += 1.0;
    }
    let said: BTreeMap<(&str, String), f64> = ["Reason", "Cause"]
        .into_iter()
        .flat_map(|split| with(split).map(move |datum| (split, datum)))
        .filter_map(|(split, datum)| {
            let (_, word) = datum.dimensions.iter().find(|(name, _)| *name == split)?;
            Some(((split, word.clone()), sum_of(std::iter::once(datum))))
        })
        .collect();
    (said != by_word).then(|| format!("published {said:?}, and it was {by_word:?}"))
}

fn values<'a>(data: impl Iterator<Item = &'a Datum>) -> Vec<f64> {
    data.flat_map(|datum| {
        datum.values.iter().zip(&datum.counts).flat_map(|(value, count)| vec![*value; *count as usize])
    })
    .collect()
}

fn sum_of<'a>(data: impl Iterator<Item = &'a Datum>) -> f64 {
    data.flat_map(|datum| datum.values.iter().zip(&datum.counts)).map(|(value, count)| value * count).sum()
}
