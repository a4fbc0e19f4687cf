//! The published numbers of an invocation, against what happened in it.

use std::collections::BTreeMap;

use nightshift_core::metric::Outcome;
use nightshift_worker::BatchReport;

use super::Promise;
use crate::world::{Invocation, State};

impl State {
    pub(super) fn judge_metrics(&mut self, now_ms: u64, id: u64, running: &Invocation, report: &BatchReport) {
        let Some(sums) = &running.metrics else { return };
        let mut expected: BTreeMap<&str, f64> = BTreeMap::new();
        for outcome in &report.outcomes {
            let name = match outcome {
                Outcome::Succeeded => "JobsSucceeded",
                Outcome::NeedsReview => "JobsNeedingReview",
                Outcome::Duplicate => "JobsDuplicate",
                Outcome::HandedBack(_) => "JobsHandedBack",
                Outcome::DeadLettered(_) => "DeadLetters",
            };
            *expected.entry(name).or_default() += 1.0;
            *expected.entry("JobsReceived").or_default() += 1.0;
        }
        for name in [
            "JobsReceived",
            "JobsSucceeded",
            "JobsNeedingReview",
            "JobsDuplicate",
            "JobsHandedBack",
            "DeadLetters",
        ] {
            let (said, is) =
                (sums.get(name).copied().unwrap_or(-1.0), expected.get(name).copied().unwrap_or(0.0));
            if said != is {
                self.violate(
                    now_ms,
                    Promise::Conserved,
                    None,
                    format!("invocation {id} published {name} {said}, and it was {is}"),
                );
                return;
            }
        }
    }
}
