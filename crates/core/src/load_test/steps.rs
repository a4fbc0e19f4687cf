//! Loads above the tested one, tried one after the other until something gives, and what it was.

use serde::Serialize;

use super::limit::{Limit, Limited, computed};
use super::measure::{Measured, Observed};
use super::strain::{Finding, Holds, Thresholds, offered, strain};
use super::{JOBS_MAX, Plan, grouped};
use crate::limits::Limits;
use crate::metric::HandBackCause;

/// Each step is so many times the one before: of what holds, at least two thirds are known.
const STEP_FACTOR: f64 = 1.5;
/// Steps above the tested load, at most: the last is 25 times as much.
const STEPS_MAX: usize = 8;
/// Share of a limit of the provider at which jobs must have ended for it to be what they waited for, in percent.
const USED_PERCENT: f64 = 80.0;
/// Deliveries that were handed back for a cause, as a share of the jobs in percent, from which on it is what gave.
const HANDED_BACK_PERCENT: f64 = 1.0;

/// A load that was tried.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Step {
    /// Jobs an hour that were sent.
    pub per_hour: f64,
    /// How many in all.
    pub jobs: u64,
    /// 95 % of them ended within this time of when they were due.
    pub p95_ms: u64,
    /// The most that had not ended at one time.
    pub backlog_max: u64,
    /// What its calls cost, in dollars.
    pub cost_usd: f64,
    /// What gave; `None`: the stack held it.
    pub gave: Option<Gave>,
}

/// What gave at a load, and how that shows.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Gave {
    /// The limit that came first.
    pub limited: Limited,
    /// How it shows, in sentences.
    pub because: String,
}

/// Why no further load was tried.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Ended {
    /// Nobody asked for one.
    NotAsked,
    /// The last one was too much.
    Gave,
    /// Somebody stopped it.
    Stopped,
    /// Whether the load of the test itself was held is not known: CloudWatch did not count its calls.
    NotCounted,
    /// It could not be sent or seen to its end from here.
    Failed,
    /// So many more jobs may not be sent, or cost too much.
    Dear,
    /// The stack held the last step.
    Held,
}

/// The loads above its own that were tried after a test.
#[derive(Debug, Clone, PartialEq)]
pub struct Above {
    /// Those that ran to their end.
    pub steps: Vec<Step>,
    /// Why there are no more of them.
    pub ended: Ended,
    /// What the calls of one that was cut short cost, in dollars, which says nothing of its load; `None`: that is not known.
    pub cut_usd: Option<f64>,
    /// Why no more could be said of the last one, in a sentence.
    pub why: Option<String>,
}

impl Above {
    /// Nobody asked for any.
    #[must_use]
    pub fn not_asked() -> Self {
        Self { steps: Vec::new(), ended: Ended::NotAsked, cut_usd: Some(0.0), why: None }
    }
}

impl Gave {
    /// What it means that this gave at the load of the test itself, in a sentence.
    #[must_use]
    pub fn at_once(&self) -> String {
        match self.limited {
            Limited::Sender => "The stack saw a lower load than this one, and whether it stands this one is not known.".to_owned(),
            Limited::Job => "A job takes longer in the worker than is asked; a smaller load shows whether the load is why.".to_owned(),
            limited => format!("This load was too much for {}.", limited.as_str()),
        }
    }
}

impl Step {
    /// A load by its test.
    #[must_use]
    pub fn of(
        plan: &Plan,
        measured: &Measured,
        observed: &Observed,
        limits: &Limits,
        thresholds: &Thresholds,
    ) -> Self {
        Self {
            per_hour: plan.per_hour(),
            jobs: measured.offered,
            p95_ms: measured.latency.p95_ms,
            backlog_max: measured.backlog_max,
            cost_usd: measured.cost.usd,
            gave: gave(plan, measured, observed, limits, thresholds),
        }
    }

    /// Why it cannot be said that the stack held it, although nothing gave, in a sentence: what the provider refused is known
    /// from CloudWatch alone. `None`: it was held, or something gave.
    #[must_use]
    pub fn why_unknown(&self, observed: &Observed) -> Option<String> {
        if self.gave.is_some() || observed.calls.is_some() && observed.throttled.is_some() {
            return None;
        }
        Some(format!(
            "CloudWatch could not be read, or has not counted the calls at {} an hour yet, so whether the provider refused some of them, and the stack held that load, is not known.",
            grouped(self.per_hour)
        ))
    }
}

/// How long it is until a minute begins in which CloudWatch has counted nothing yet, in milliseconds, by any of two clocks that
/// agree within seconds: what it counts late of the load before is of the minutes before.
#[must_use]
pub fn next_minute_ms(now_ms: u64) -> u64 {
    const MINUTE_MS: u64 = 60_000;
    const CLOCKS_DIFFER_MS: u64 = 3_000;
    MINUTE_MS - now_ms % MINUTE_MS + CLOCKS_DIFFER_MS
}

/// The load to try after these, the first of which was the test itself, for so many minutes. `jobs_left`: how many may still
/// be sent; none is above what a test sends in all.
///
/// # Errors
/// Why there is none.
pub fn next(tested: &Plan, minutes: f64, steps: &[Step], jobs_left: u64) -> Result<Plan, Ended> {
    if steps.last().is_none_or(|step| step.gave.is_some()) {
        return Err(Ended::Gave);
    }
    if steps.len() > STEPS_MAX {
        return Err(Ended::Held);
    }
    let factor = tested.factor * STEP_FACTOR.powi(i32::try_from(steps.len()).unwrap_or(i32::MAX));
    let plan = Plan { factor, minutes, warm_up_s: 0, ..tested.clone() };
    if plan.jobs() > jobs_left.min(JOBS_MAX) { Err(Ended::Dear) } else { Ok(plan) }
}

/// What gave, if anything that a load can strain does not hold. What the stack itself says comes first, then the first
/// limit that lies below the load by what one job takes; what is left is that jobs grew old, or a cause that nothing tells.
fn gave(
    plan: &Plan,
    measured: &Measured,
    observed: &Observed,
    limits: &Limits,
    thresholds: &Thresholds,
) -> Option<Gave> {
    // What came later or not at all strained the stack less, whatever else is seen.
    let offered = offered(plan, measured, thresholds);
    if offered.holds == Holds::No {
        return Some(Gave { limited: Limited::Sender, because: offered.words });
    }
    let strained: Vec<_> = strain(measured, observed, thresholds)
        .into_iter()
        .filter(|finding| finding.holds == Holds::No)
        .collect();
    // What waits has no result either; that it waits says more.
    let aged = strained.iter().find(|finding| is_of_age(finding));
    let first = aged.or(strained.first())?;
    let computed = computed(measured, limits);
    // A day's money cannot be spent by the rate of some minutes: that it was is said by the stack.
    let below = |among: &[Limited]| {
        let mut known = computed.iter().filter(|limit| among.contains(&limit.limited));
        known.find(|limit| limit.per_hour <= plan.per_hour())
    };
    let provider = below(&[Limited::ProviderRequests, Limited::ProviderTokens]);
    // Workers keep to a limit that they were told, and a job's time then holds its waiting: only the rate at which jobs end
    // tells the provider from too few workers.
    let used = |limit: &&Limit| measured.ended_per_hour >= limit.per_hour * USED_PERCENT / 100.0;
    let told = told(measured, observed, thresholds);
    let reached = provider.filter(used).or_else(|| below(&[Limited::Concurrency, Limited::Ledger]));
    let (limited, why) = match (told, provider, reached) {
        (Some((Limited::Provider, words)), Some(limit), _) => {
            (limit.limited, format!("{words} The limit is {}.", limit.because))
        }
        (Some((limited, words)), _, _) => (limited, words),
        // Last of all that is strained: nothing else is.
        (None, _, _) if first.what == "alarms" => (Limited::Alarm, String::new()),
        (None, _, Some(limit)) => {
            let at = grouped(limit.per_hour);
            (limit.limited, format!("It is reached at {at} an hour: {}.", limit.because))
        }
        (None, _, None) if aged.is_some_and(|finding| is_of_job(finding, measured, thresholds)) => {
            (Limited::Job, "The time in the worker alone is more than that.".to_owned())
        }
        (None, _, None) if aged.is_some() => (Limited::QueueAge, String::new()),
        (None, _, None) => (Limited::Unexplained, String::new()),
    };
    let raised = strained.iter().find(|finding| finding.what == "alarms" && finding.what != first.what);
    let raised = raised.map(|finding| format!(" {}", finding.words)).unwrap_or_default();
    let because = format!("{} {why}{raised}", first.words);
    Some(Gave { limited, because: because.trim_end().to_owned() })
}

/// What the stack itself says that it was held back by.
fn told(measured: &Measured, observed: &Observed, thresholds: &Thresholds) -> Option<(Limited, String)> {
    let least = measured.accepted as f64 * HANDED_BACK_PERCENT / 100.0;
    let handed_back = |causes: &[HandBackCause], limited| {
        let count: f64 = causes.iter().filter_map(|cause| observed.causes.get(cause.as_str())).sum();
        let words = || format!("{} deliveries were handed back for it.", grouped(count));
        (count > 0.0 && count >= least).then(|| (limited, words()))
    };
    let throttled = observed.throttled.zip(observed.calls).and_then(|(throttled, calls)| {
        let percent = throttled / calls.max(1.0) * 100.0;
        let words = || format!("It refused {} of {} calls.", grouped(throttled), grouped(calls));
        (percent > thresholds.throttled_percent_max).then(|| (Limited::Provider, words()))
    });
    handed_back(&[HandBackCause::SpendCap], Limited::SpendCap)
        .or_else(|| handed_back(&[HandBackCause::Ledger], Limited::Ledger))
        .or(throttled)
        .or_else(|| handed_back(&[HandBackCause::Capacity, HandBackCause::Outage], Limited::Provider))
}

fn is_of_age(finding: &Finding) -> bool {
    ["latency p95", "latency p99", "backlog"].contains(&finding.what)
}

/// Whether a job breaks this threshold by its time in the worker, without what it waited before.
fn is_of_job(finding: &Finding, measured: &Measured, thresholds: &Thresholds) -> bool {
    let (work_ms, most_s) = match finding.what {
        "latency p95" => (measured.work.p95_ms, thresholds.p95_s_max),
        "latency p99" => (measured.work.p99_ms, thresholds.p99_s_max),
        _ => return false,
    };
    work_ms as f64 / 1_000.0 > most_s
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;
    use crate::failure::FailureReason;
    use crate::load_test::{Alarms, Sample, measure};
    use crate::reconcile::Fate;

    /// 7,200 an hour.
    fn plan() -> Plan {
        Plan { expected_per_hour: 3_600, factor: 2.0, minutes: 1.0, warm_up_s: 0 }
    }

    /// A test of jobs that take a second each and end so long after they were due.
    fn measured(ended_after_ms: u64, fate: Fate) -> Measured {
        let samples: Vec<_> = (0..plan().jobs()).map(|job| sample(job, ended_after_ms, fate)).collect();
        measure(&plan(), &samples, plan().jobs(), 400_000)
    }

    fn sample(job: u64, ended_after_ms: u64, fate: Fate) -> Sample {
        let scheduled_ms = plan().scheduled_ms(job);
        Sample {
            accepted_ms: Some(scheduled_ms),
            fate,
            settled_ms: fate.is_settled().then_some(scheduled_ms + ended_after_ms),
            work_ms: Some(1_000),
            calls: 1,
            tokens: 1_000,
            cost_micro_usd: 100,
        }
    }

    fn told_of(causes: &[(&str, f64)], throttled: f64) -> Observed {
        let causes =
            causes.iter().map(|(cause, count)| ((*cause).to_owned(), *count)).collect::<BTreeMap<_, _>>();
        Observed { throttled: Some(throttled), calls: Some(120.0), causes, ..Observed::default() }
    }

    #[test]
    fn what_gave_is_what_the_stack_says_or_the_first_limit_below_the_load() {
        const LATE: u64 = 100_000;
        let roomy = Limits::default();
        let narrow = Limits { concurrency_max: 1, batch_size: 1, ..roomy.clone() };
        let slow = Limits { requests_per_minute: 100, ..roomy.clone() };
        let few_tokens = Limits { tokens_per_minute: 100_000, requests_per_minute: 110, ..roomy.clone() };
        let both = Limits { requests_per_minute: 30, ..narrow.clone() };
        let refused = Fate::DeadLetter(FailureReason::Refused);
        let (result, quiet) = (Fate::Result, told_of(&[], 0.0));
        for (ended_after_ms, fate, observed, limits, expected) in [
            (2_000, result, &quiet, &roomy, None),
            // What is refused or handed back without harm is no limit that was reached.
            (2_000, result, &told_of(&[("spend_cap", 50.0)], 1.0), &narrow, None),
            (
                LATE,
                result,
                &told_of(&[("spend_cap", 50.0), ("capacity", 50.0)], 50.0),
                &narrow,
                Some(Limited::SpendCap),
            ),
            (LATE, result, &told_of(&[("ledger", 2.0)], 50.0), &narrow, Some(Limited::Ledger)),
            (LATE, result, &told_of(&[("ledger", 1.0)], 50.0), &narrow, Some(Limited::Provider)),
            (LATE, result, &told_of(&[("capacity", 9.0)], 0.0), &narrow, Some(Limited::Provider)),
            (LATE, result, &told_of(&[("outage", 9.0)], 0.0), &slow, Some(Limited::ProviderRequests)),
            // What it refused within the threshold is not what jobs waited for.
            (LATE, result, &told_of(&[], 1.0), &roomy, Some(Limited::QueueAge)),
            (LATE, result, &told_of(&[], 6.0), &roomy, Some(Limited::QueueAge)),
            // A refused share above the threshold is too much by itself.
            (2_000, result, &told_of(&[], 50.0), &roomy, Some(Limited::Provider)),
            (LATE, result, &quiet, &narrow, Some(Limited::Concurrency)),
            (LATE, result, &quiet, &slow, Some(Limited::ProviderRequests)),
            (LATE, result, &quiet, &few_tokens, Some(Limited::ProviderTokens)),
            (LATE, result, &quiet, &both, Some(Limited::ProviderRequests)),
            (LATE, result, &Observed::default(), &narrow, Some(Limited::Concurrency)),
            (LATE, result, &told_of(&[("deadline", 50.0)], 0.0), &roomy, Some(Limited::QueueAge)),
            (2_000, Fate::Waiting, &quiet, &roomy, Some(Limited::QueueAge)),
            (2_000, refused, &quiet, &roomy, Some(Limited::Unexplained)),
        ] {
            let step =
                Step::of(&plan(), &measured(ended_after_ms, fate), observed, limits, &Thresholds::default());
            assert_eq!(step.gave.as_ref().map(|gave| gave.limited), expected, "{step:?}");
        }
    }

    #[test]
    fn an_alarm_that_is_raised_at_a_load_means_that_it_was_not_held_and_is_named() {
        let raised = |names: &[&str]| {
            let alarms = names.iter().map(|name| (*name).to_owned()).collect();
            Observed { alarms: Alarms::Raised(alarms), ..told_of(&[], 0.0) }
        };
        for (names, alarms_max, ended_after_ms, expected) in [
            (vec![], 0, 2_000, None),
            (vec!["a-slow"], 1, 2_000, None),
            (vec!["a-slow"], 0, 2_000, Some(Limited::Alarm)),
            (vec!["a-slow", "b-late"], 1, 2_000, Some(Limited::Alarm)),
            (vec!["a-slow"], 0, 100_000, Some(Limited::QueueAge)),
        ] {
            let thresholds = Thresholds { alarms_max, ..Thresholds::default() };
            let measured = measured(ended_after_ms, Fate::Result);
            let step = Step::of(&plan(), &measured, &raised(&names), &Limits::default(), &thresholds);
            assert_eq!(step.gave.as_ref().map(|gave| gave.limited), expected, "{step:?}");
            let named_once = |gave: Gave| names.iter().all(|name| gave.because.matches(name).count() == 1);
            assert!(step.gave.is_none_or(named_once), "{names:?}");
        }
    }

    #[test]
    fn what_could_not_be_sent_was_neither_held_nor_too_much_for_the_stack() {
        for (accepted, late_ms, expected) in
            [(120, 0, None), (118, 0, Some(Limited::Sender)), (120, 5_000, Some(Limited::Sender))]
        {
            // And what was seen of the stack meanwhile was too much for it, or well.
            for ended_after_ms in [6_000, 100_000] {
                let samples: Vec<_> = (0..plan().jobs())
                    .map(|job| Sample {
                        accepted_ms: (job < accepted).then_some(plan().scheduled_ms(job) + late_ms),
                        ..sample(job, ended_after_ms, Fate::Result)
                    })
                    .collect();
                let measured = measure(&plan(), &samples, plan().jobs(), 400_000);
                let (quiet, limits) = (told_of(&[], 0.0), Limits::default());
                let step = Step::of(&plan(), &measured, &quiet, &limits, &Thresholds::default());
                let expected = expected.or((ended_after_ms > 60_000).then_some(Limited::QueueAge));
                assert_eq!(step.gave.as_ref().map(|gave| gave.limited), expected, "{step:?}");
            }
        }
    }

    #[test]
    fn a_threshold_that_a_job_breaks_by_its_time_in_the_worker_is_the_jobs() {
        let told = told_of(&[], 0.0);
        let narrow = Limits { concurrency_max: 1, batch_size: 1, ..Limits::default() };
        for (p95_s_max, p99_s_max, limits, expected) in [
            (0.1, 300.0, Limits::default(), Limited::Job),
            (60.0, 0.1, Limits::default(), Limited::Job),
            (1.5, 300.0, Limits::default(), Limited::QueueAge),
            (60.0, 1.0, Limits::default(), Limited::QueueAge),
            (0.1, 300.0, narrow, Limited::Concurrency),
        ] {
            let thresholds = Thresholds { p95_s_max, p99_s_max, ..Thresholds::default() };
            let step = Step::of(&plan(), &measured(2_000, Fate::Result), &told, &limits, &thresholds);
            assert_eq!(step.gave.as_ref().map(|gave| gave.limited), Some(expected), "{step:?}");
        }
    }

    #[test]
    fn a_load_whose_calls_were_not_counted_is_not_one_that_was_held() {
        let step = |observed: &Observed, ended_after_ms| {
            let measured = measured(ended_after_ms, Fate::Result);
            Step::of(&plan(), &measured, observed, &Limits::default(), &Thresholds::default())
        };
        let (counted, unread) = (told_of(&[], 0.0), Observed::default());
        assert_eq!(step(&counted, 2_000).why_unknown(&counted), None);
        let unknown = step(&unread, 2_000).why_unknown(&unread);
        assert!(unknown.is_some_and(|why| why.contains("7,200 an hour yet") && why.contains("not known")));
        for half_read in
            [Observed { throttled: None, ..counted.clone() }, Observed { calls: None, ..counted.clone() }]
        {
            assert!(step(&half_read, 2_000).why_unknown(&half_read).is_some(), "{half_read:?}");
        }
        // That jobs are late is seen without it.
        assert_eq!(step(&unread, 100_000).why_unknown(&unread), None);
    }

    #[test]
    fn the_next_load_begins_in_a_minute_of_its_own() {
        for (now_ms, after_ms) in [(0, 63_000), (59_999, 3_001), (90_000, 33_000)] {
            assert_eq!(next_minute_ms(now_ms), after_ms);
        }
    }

    #[test]
    fn too_few_workers_are_not_taken_for_a_provider_that_they_never_reached() {
        let limits =
            Limits { requests_per_minute: 100, concurrency_max: 1, batch_size: 1, ..Limits::default() };
        let told = told_of(&[], 0.0);
        for (ended_per_hour, expected) in
            [(3_000.0, Limited::Concurrency), (5_900.0, Limited::ProviderRequests)]
        {
            let measured = Measured { ended_per_hour, ..measured(100_000, Fate::Result) };
            let step = Step::of(&plan(), &measured, &told, &limits, &Thresholds::default());
            assert_eq!(step.gave.map(|gave| gave.limited), Some(expected));
        }
    }

    #[test]
    fn it_is_raised_by_half_until_something_gives_or_it_is_dear() {
        let held = Step { per_hour: 0.0, jobs: 0, p95_ms: 0, backlog_max: 0, cost_usd: 0.0, gave: None };
        let gave = Gave { limited: Limited::Concurrency, because: String::new() };
        let broken = Step { gave: Some(gave), ..held.clone() };
        let after = |held_steps: usize, last: &[Step], jobs_left| {
            let steps = [vec![held.clone(); held_steps], last.to_vec()].concat();
            next(&plan(), 2.0, &steps, jobs_left).map(|plan| (plan.per_hour(), plan.jobs()))
        };
        for (found, expected) in [
            (after(1, &[], u64::MAX), Ok((10_800.0, 360))),
            (after(2, &[], u64::MAX), Ok((16_200.0, 540))),
            (after(1, &[], 360), Ok((10_800.0, 360))),
            (after(1, &[], 359), Err(Ended::Dear)),
            (after(0, std::slice::from_ref(&broken), u64::MAX), Err(Ended::Gave)),
            (after(2, std::slice::from_ref(&broken), u64::MAX), Err(Ended::Gave)),
            (after(STEPS_MAX + 1, &[], u64::MAX), Err(Ended::Held)),
        ] {
            assert_eq!(found, expected);
        }
        assert!(after(STEPS_MAX, &[], u64::MAX).is_ok());
        // What the test itself warmed up is warm.
        let warmed_up = Plan { warm_up_s: 60, ..plan() };
        assert_eq!(next(&warmed_up, 2.0, &[held], u64::MAX).map(|plan| plan.jobs()), Ok(360));
    }
}
