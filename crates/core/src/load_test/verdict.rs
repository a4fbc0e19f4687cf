//! Whether what was measured is good enough, and why.

use serde::Serialize;

use super::headroom::{Headroom, How};
use super::measure::{Measured, Observed};
use super::steps::{Above, Step};
use super::strain::{Finding, Holds, Thresholds, finding, offered, strain};
use super::{Plan, grouped, grouped_to};
use crate::limits::Limits;

/// The answer.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Verdict {
    /// Whether everything that was measured holds.
    pub passed: bool,
    /// Everything that was asked.
    pub findings: Vec<Finding>,
    /// At which load the stack would fail.
    pub headroom: Headroom,
}

impl Verdict {
    /// Those that do not hold.
    pub fn reasons(&self) -> impl Iterator<Item = &Finding> {
        self.findings.iter().filter(|finding| finding.holds == Holds::No)
    }
}

/// Judges a test of a stack with these limits. `above`: the loads above its own that were tried after it, and why no more.
#[must_use]
pub fn judge(
    plan: &Plan,
    measured: &Measured,
    observed: &Observed,
    limits: &Limits,
    thresholds: &Thresholds,
    above: Above,
) -> Verdict {
    let tested = Step::of(plan, measured, observed, limits, thresholds);
    let Above { steps: above, ended, cut_usd, why } = above;
    let steps = [vec![tested], above].concat();
    let headroom = Headroom::of(measured, limits, steps, ended);
    let mut findings = vec![complete(plan, measured), offered(plan, measured, thresholds)];
    findings.extend(strain(measured, observed, thresholds));
    findings.extend([
        cost(measured, &headroom, cut_usd, thresholds),
        room(plan, &headroom, why.as_deref()),
        settings(limits),
    ]);
    Verdict { passed: findings.iter().all(|finding| finding.holds != Holds::No), findings, headroom }
}

fn complete(plan: &Plan, measured: &Measured) -> Finding {
    let words = if measured.stopped_early {
        format!(
            "The test was stopped when {} of {} jobs had been due; all else is about those.",
            grouped(measured.offered),
            grouped(plan.jobs())
        )
    } else {
        format!("The test ran to its end, with {} jobs.", grouped(measured.offered))
    };
    let unread = match measured.unread {
        0 => None,
        unread => Some(format!(
            "The records of {} jobs could not be read, which count as waiting.",
            grouped(unread)
        )),
    };
    let words = [words].into_iter().chain(measured.troubles.iter().cloned()).chain(unread);
    finding("complete", !measured.stopped_early, words.collect::<Vec<_>>().join(" "))
}

fn cost(measured: &Measured, headroom: &Headroom, cut_usd: Option<f64>, thresholds: &Thresholds) -> Finding {
    let spent = measured.cost.usd;
    let above: f64 = headroom.steps.iter().skip(1).map(|step| step.cost_usd).sum();
    let above = above + cut_usd.unwrap_or_default();
    let is_all = cut_usd.is_some() && measured.unread == 0;
    let (holds, asked) = match thresholds.cost_usd_max {
        Some(most) if spent + above > most => (Holds::No, format!("; it should be at most {most} USD")),
        Some(most) if is_all => (Holds::Yes, format!("; it should be at most {most} USD")),
        Some(most) => (Holds::Unknown, format!("; it should be at most {most} USD")),
        None => (Holds::Yes, String::new()),
    };
    let unknown = if is_all { "" } else { " What others cost is not known." };
    let per_thousand = match measured.cost.usd_per_job * 1_000.0 {
        // No job has ended.
        each if each == 0.0 && spent > 0.0 => String::new(),
        each => format!(", {} for 1,000 jobs", grouped_to(each, 4)),
    };
    let steps = match above {
        0.0 => String::new(),
        above => format!(", and {} those of the loads above", grouped_to(above, 4)),
    };
    let spent = grouped_to(spent, 4);
    let words = format!("The calls cost {spent} USD{per_thousand}{steps}{asked}.{unknown}");
    Finding { what: "cost", holds, words }
}

fn room(plan: &Plan, headroom: &Headroom, why: Option<&str>) -> Finding {
    let holds = match &headroom.first {
        None => Holds::Unknown,
        // What gave at a higher load does not fail a test of this one.
        Some(first) if first.how == How::Tested || first.limit.per_hour >= plan.per_hour() => Holds::Yes,
        Some(_) => Holds::No,
    };
    // Where one below the load is left over, it is the first, and the answer is no.
    let computed_below =
        headroom.limits.iter().find(|limit| holds != Holds::No && limit.per_hour < plan.per_hour());
    let held = computed_below.map(|limit| {
        let (what, at) = (limit.limited.as_str(), grouped(limit.per_hour));
        format!(" By computation {what} gives at {at} an hour already, and jobs ended as fast as they came all the same: a longer test shows whether that lasts.")
    });
    let words = format!(
        "{}{}{} Sent were {} an hour, expected are {}.",
        headroom.words(),
        held.unwrap_or_default(),
        why.map(|why| format!(" {why}")).unwrap_or_default(),
        grouped(plan.per_hour()),
        grouped(plan.expected_per_hour)
    );
    Finding { what: "headroom", holds, words }
}

fn settings(limits: &Limits) -> Finding {
    let contradictions = limits.contradictions();
    let words = match contradictions.as_slice() {
        [] => "The settings of the stack agree with each other.".to_owned(),
        contradictions => contradictions.join(" "),
    };
    finding("settings", contradictions.is_empty(), words)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::failure::FailureReason;
    use crate::load_test::{Alarms, Ended, Limited, Outcomes, Sample, measure};
    use crate::reconcile::Fate;

    /// 7,200 jobs an hour, expected are half of it.
    fn plan() -> Plan {
        Plan { expected_per_hour: 3_600, factor: 2.0, minutes: 1.0, warm_up_s: 0 }
    }

    fn observed() -> Observed {
        Observed {
            throttled: Some(0.0),
            calls: Some(120.0),
            handed_back: Some(0.0),
            alarms: Alarms::Raised(vec![]),
            ..Observed::default()
        }
    }

    type Change = fn(&mut Thresholds);
    type Mishap<'a> = (&'a dyn Fn(u64, &mut Sample), &'a [&'static str]);

    /// A test in which each job takes two seconds, but for what `change` says.
    fn measured(change: impl Fn(u64, &mut Sample)) -> Measured {
        let samples: Vec<_> = (0..plan().jobs())
            .map(|job| {
                let scheduled_ms = plan().scheduled_ms(job);
                let mut sample = Sample {
                    accepted_ms: Some(scheduled_ms),
                    fate: Fate::Result,
                    settled_ms: Some(scheduled_ms + 2_000),
                    work_ms: Some(2_000),
                    calls: 1,
                    tokens: 1_000,
                    cost_micro_usd: 100,
                };
                change(job, &mut sample);
                sample
            })
            .collect();
        measure(&plan(), &samples, plan().jobs(), 400_000)
    }

    fn broken(
        measured: &Measured,
        observed: &Observed,
        limits: &Limits,
        thresholds: &Thresholds,
    ) -> Vec<&'static str> {
        let verdict = judge(&plan(), measured, observed, limits, thresholds, Above::not_asked());
        let reasons: Vec<_> = verdict.reasons().map(|finding| finding.what).collect();
        assert_eq!(verdict.passed, reasons.is_empty());
        reasons
    }

    #[test]
    fn a_test_in_which_all_goes_well_passes() {
        assert!(
            broken(&measured(|_, _| {}), &observed(), &Limits::default(), &Thresholds::default()).is_empty()
        );
    }

    #[test]
    fn each_impossible_threshold_fails_a_test_that_went_well() {
        let impossible: [(Change, &str); 7] = [
            (|t| t.success_percent_min = 100.1, "success"),
            (|t| t.p95_s_max = -1.0, "latency p95"),
            (|t| t.p99_s_max = -1.0, "latency p99"),
            (|t| t.drain_s_max = -1.0, "backlog"),
            (|t| t.throttled_percent_max = -1.0, "throttles"),
            (|t| t.cost_usd_max = Some(-1.0), "cost"),
            (|t| t.alarms_max = 0, "alarms"),
        ];
        let raised =
            Observed { alarms: Alarms::Raised(vec!["nightshift-no-progress".to_owned()]), ..observed() };
        for (change, what) in impossible {
            let mut thresholds = Thresholds { alarms_max: 1, ..Thresholds::default() };
            change(&mut thresholds);
            assert_eq!(broken(&measured(|_, _| {}), &raised, &Limits::default(), &thresholds), [what]);
        }
    }

    #[test]
    fn what_goes_wrong_is_named_and_nothing_else_is() {
        let letter = Fate::DeadLetter(FailureReason::Refused);
        let cases: [Mishap<'_>; 8] = [
            // Sent late, and worked on at once: by more than a twentieth of the minute.
            (
                &|job, sample| {
                    if job > 110 {
                        sample.accepted_ms = sample.accepted_ms.map(|ms| ms + 3_100);
                        sample.settled_ms = sample.settled_ms.map(|ms| ms + 3_100)
                    }
                },
                &["offered load"],
            ),
            (
                &|job, sample| {
                    if job > 110 {
                        sample.accepted_ms = sample.accepted_ms.map(|ms| ms + 2_900);
                        sample.settled_ms = sample.settled_ms.map(|ms| ms + 2_900)
                    }
                },
                &[],
            ),
            (
                &|job, sample| {
                    if job < 2 {
                        sample.fate = letter
                    }
                },
                &["success"],
            ),
            (
                &|job, sample| {
                    if job == 9 {
                        sample.fate = Fate::Missing;
                        sample.settled_ms = None
                    }
                },
                &["nothing lost", "backlog"],
            ),
            (
                &|job, sample| {
                    if job > 110 {
                        sample.settled_ms = sample.settled_ms.map(|ms| ms + 100_000)
                    }
                },
                &["latency p95"],
            ),
            (
                &|_, sample| sample.settled_ms = sample.settled_ms.map(|ms| ms + 301_000),
                &["latency p95", "latency p99", "backlog"],
            ),
            (
                &|job, sample| {
                    if job > 110 {
                        sample.fate = Fate::Waiting;
                        sample.settled_ms = None
                    }
                },
                &["success", "latency p95", "latency p99", "backlog"],
            ),
            (
                &|job, sample| {
                    if job > 110 {
                        sample.accepted_ms = None
                    }
                },
                &["offered load"],
            ),
        ];
        for (change, expected) in cases {
            assert_eq!(
                broken(&measured(change), &observed(), &Limits::default(), &Thresholds::default()),
                expected
            );
        }
    }

    #[test]
    fn jobs_may_be_late_by_a_twentieth_of_the_test_within_bounds_or_by_what_is_asked() {
        let asked = Thresholds { send_delay_s_max: Some(7.0), ..Thresholds::default() };
        for (minutes, thresholds, most_s) in [
            (0.05, Thresholds::default(), 1.0),
            (1.0, Thresholds::default(), 3.0),
            (10.0, Thresholds::default(), 30.0),
            (60.0, Thresholds::default(), 30.0),
            (60.0, asked, 7.0),
        ] {
            assert_eq!(thresholds.send_delay_s_max(&Plan { minutes, ..plan() }), most_s, "{minutes}");
        }
    }

    #[test]
    fn the_loads_above_are_paid_from_the_same_budget() {
        let above = |cost_usd| Step {
            per_hour: 10_800.0,
            jobs: 180,
            p95_ms: 2_000,
            backlog_max: 5,
            cost_usd,
            gave: None,
        };
        // The test itself costs 0.012.
        let thresholds = Thresholds { cost_usd_max: Some(0.03), ..Thresholds::default() };
        use Holds::{No, Unknown, Yes};
        for (step_usd, cut_usd, unread, holds) in [
            (0.017, Some(0.0), 0, Yes),
            (0.019, Some(0.0), 0, No),
            // The last one was stopped by the budget, or by something else.
            (0.007, Some(0.010), 0, Yes),
            (0.007, Some(0.012), 0, No),
            (0.017, None, 0, Unknown),
            (0.019, None, 0, No),
            (0.017, Some(0.0), 1, Unknown),
        ] {
            let above = Above { steps: vec![above(step_usd)], ended: Ended::Stopped, cut_usd, why: None };
            let measured = Measured { unread, ..measured(|_, _| {}) };
            let verdict = judge(&plan(), &measured, &observed(), &Limits::default(), &thresholds, above);
            let cost = verdict.findings.iter().find(|finding| finding.what == "cost").unwrap();
            assert_eq!(cost.holds, holds, "{cost:?}");
            assert_eq!(cost.words.contains("is not known"), cut_usd.is_none() || unread > 0, "{cost:?}");
        }
    }

    #[test]
    fn what_became_of_a_job_that_was_not_seen_is_neither_lost_nor_kept() {
        for (unread, untraced, missing, holds) in [
            (0, 0, 0, Holds::Yes),
            (0, 1, 0, Holds::Unknown),
            (1, 0, 0, Holds::Unknown),
            (0, 1, 1, Holds::No),
        ] {
            let measured = measured(|_, _| {});
            let outcomes = Outcomes { missing, ..measured.outcomes.clone() };
            let measured = Measured { unread, untraced, outcomes, ..measured };
            let (limits, thresholds) = (Limits::default(), Thresholds::default());
            let verdict = judge(&plan(), &measured, &observed(), &limits, &thresholds, Above::not_asked());
            let lost = verdict.findings.iter().find(|finding| finding.what == "nothing lost").unwrap();
            assert_eq!(lost.holds, holds, "{lost:?}");
        }
    }

    #[test]
    fn what_failed_here_is_said() {
        let troubles = vec!["sqs:SendMessage failed.".to_owned()];
        let cut = Measured { stopped_early: true, troubles, unread: 2, ..measured(|_, _| {}) };
        let verdict = judge(
            &plan(),
            &cut,
            &observed(),
            &Limits::default(),
            &Thresholds::default(),
            Above {
                steps: vec![],
                ended: Ended::Failed,
                cut_usd: Some(0.0),
                why: Some("It was late.".to_owned()),
            },
        );
        let complete = verdict.reasons().next().unwrap();
        for words in
            ["all else is about those. sqs:SendMessage failed.", "records of 2 jobs could not be read"]
        {
            assert!(complete.words.contains(words), "{complete:?}");
        }
        let room = verdict.findings.iter().find(|finding| finding.what == "headroom").unwrap();
        assert!(room.words.contains(" It was late. Sent were"), "{room:?}");
    }

    #[test]
    fn a_stack_that_is_too_small_fails_for_its_first_limit_unless_it_held_the_load() {
        let base = Limits::default();
        let fast = measured(|_, _| {});
        // 7,200 came an hour.
        let slow = Measured { ended_per_hour: 6_950.0, ..fast.clone() };
        let fast = Measured { ended_per_hour: 7_000.0, ..fast };
        for (limits, what, word) in [
            // Three batches of one at one time, two seconds each: 5,400 an hour.
            (
                Limits { concurrency_max: 3, batch_size: 1, ..base.clone() },
                "headroom",
                "first limit is concurrency, at 5,400",
            ),
            (Limits { requests_per_minute: 100, ..base.clone() }, "headroom", "requests a minute, at 6,000"),
            (Limits { tokens_per_minute: 50_000, ..base.clone() }, "headroom", "tokens a minute, at 3,000"),
            (Limits { spend_cap_micro_usd: 1_000_000, ..base.clone() }, "headroom", "the spend cap, at 417"),
            (Limits { visibility_timeout_ms: 60_000, ..base.clone() }, "settings", "VISIBILITY_TIMEOUT_MS"),
        ] {
            let judged = |measured| {
                judge(&plan(), measured, &observed(), &limits, &Thresholds::default(), Above::not_asked())
            };
            let verdict = judged(&slow);
            let reasons: Vec<_> = verdict.reasons().collect();
            assert!(
                matches!(reasons.as_slice(), [only] if only.what == what && only.words.contains(word)),
                "{reasons:?}"
            );
            // A day's money, settings and what a rehearsal has not are tried by no load; that enough was at work at once was
            // seen where jobs ended as fast as they came.
            let verdict = judged(&fast);
            let is_tried = word.contains("concurrency");
            assert_eq!(verdict.passed, is_tried, "{word}");
            let room = verdict.findings.iter().find(|finding| finding.what == "headroom").unwrap();
            assert_eq!(room.words.contains("jobs ended as fast as they came"), is_tried, "{room:?}");
        }
        let roomy = judge(
            &plan(),
            &measured(|_, _| {}),
            &observed(),
            &base,
            &Thresholds::default(),
            Above::not_asked(),
        );
        let order: Vec<_> = roomy.headroom.limits.iter().map(|limit| limit.limited).collect();
        assert_eq!(order, [Limited::SpendCap, Limited::Concurrency, Limited::Ledger]);
    }

    #[test]
    fn what_was_not_measured_is_unknown_and_a_test_that_was_stopped_is_no_yes() {
        let verdict = judge(
            &plan(),
            &measured(|_, _| {}),
            &Observed::default(),
            &Limits::default(),
            &Thresholds::default(),
            Above::not_asked(),
        );
        let unknown: Vec<_> =
            verdict.findings.iter().filter(|f| f.holds == Holds::Unknown).map(|f| f.what).collect();
        assert_eq!((unknown, verdict.passed), (vec!["throttles", "alarms"], true));
        // A fleet without alarms has no CloudWatch that could not be read.
        for (alarms, words) in [
            (Alarms::Unread, "CloudWatch could not be read"),
            (Alarms::NotSimulated, "Alarms are not simulated"),
        ] {
            let observed = Observed { alarms, ..observed() };
            let (limits, thresholds) = (Limits::default(), Thresholds::default());
            let verdict =
                judge(&plan(), &measured(|_, _| {}), &observed, &limits, &thresholds, Above::not_asked());
            let finding = verdict.findings.iter().find(|finding| finding.what == "alarms").unwrap();
            assert!(finding.holds == Holds::Unknown && finding.words.starts_with(words), "{finding:?}");
        }
        let stopped = Measured { offered: 60, accepted: 60, stopped_early: true, ..measured(|_, _| {}) };
        assert_eq!(broken(&stopped, &observed(), &Limits::default(), &Thresholds::default()), ["complete"]);
        let nothing = measure(&plan(), &[], 0, 1_000);
        assert!(
            broken(&nothing, &observed(), &Limits::default(), &Thresholds::default())
                .contains(&"offered load")
        );
    }

    #[test]
    fn calls_that_cost_nothing_are_within_any_budget() {
        let free = measured(|_, sample| sample.cost_micro_usd = 0);
        let thresholds = Thresholds { cost_usd_max: Some(0.0), ..Thresholds::default() };
        assert!(broken(&free, &observed(), &Limits::default(), &thresholds).is_empty());
    }

    #[test]
    fn what_a_thousand_jobs_cost_is_said_unless_none_has_ended() {
        let free = measured(|_, sample| sample.cost_micro_usd = 0);
        let begun = measured(|_, sample| (sample.fate, sample.settled_ms) = (Fate::Waiting, None));
        for (measured, said) in [
            (measured(|_, _| {}), "cost 0.0120 USD, 0.1000 for 1,000 jobs."),
            (free, "cost 0.0000 USD, 0.0000 for 1,000 jobs."),
            (begun, "cost 0.0120 USD."),
        ] {
            let (limits, thresholds) = (Limits::default(), Thresholds::default());
            let verdict = judge(&plan(), &measured, &observed(), &limits, &thresholds, Above::not_asked());
            let cost = verdict.findings.iter().find(|finding| finding.what == "cost").unwrap();
            assert!(cost.words.ends_with(said), "{cost:?}");
        }
    }
}
