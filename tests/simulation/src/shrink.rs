//! From a failing plan to the smallest one that still breaks the same promise.

use crate::plan::{Plan, REMOVABLE};
use crate::run::{Outcome, run};

/// Runs that a shrink may cost: seconds, not minutes.
const RUNS_MAX: u32 = 80;

/// Takes jobs and kinds of trouble away for as long as the same promise breaks.
#[must_use]
pub fn shrink(plan: &Plan, outcome: &Outcome) -> (Plan, Outcome) {
    let Some(violation) = &outcome.violation else { return (plan.clone(), outcome.clone()) };
    let promise = violation.promise;
    let mut best = (plan.clone(), outcome.clone());
    let mut runs = 0;
    let mut attempt = |best: &mut (Plan, Outcome), candidate: Plan| {
        if runs >= RUNS_MAX {
            return false;
        }
        runs += 1;
        let outcome = run(&candidate, None);
        let same = outcome.violation.as_ref().is_some_and(|found| found.promise == promise);
        if same {
            *best = (candidate, outcome);
        }
        same
    };
    for _ in 0..2 {
        for what in REMOVABLE {
            if !best.0.without.iter().any(|gone| gone == what) {
                let candidate = best.0.clone().without(what);
                attempt(&mut best, candidate);
            }
        }
        while best.0.jobs > 1 {
            let half = best.0.jobs / 2;
            let fewer = [half, best.0.jobs - best.0.jobs / 4, best.0.jobs - 1];
            let smaller = fewer.into_iter().any(|jobs| {
                let candidate = Plan { jobs, ..best.0.clone() };
                jobs < best.0.jobs && attempt(&mut best, candidate)
            });
            if !smaller {
                break;
            }
        }
        for (concurrency_max, batch_size) in [(1, best.0.limits.batch_size), (1, 1)] {
            let mut candidate = best.0.clone();
            candidate.limits.concurrency_max = concurrency_max;
            candidate.limits.batch_size = batch_size;
            attempt(&mut best, candidate);
        }
    }
    best
}
