//! What is looked at while a load test runs: the queue, the alarms, and at its end what CloudWatch counted.

use std::collections::HashMap;

use nightshift_core::load_test::{Observed, Plan};
use nightshift_core::metric::{HandBackCause, NAMESPACE};
use tokio::time::Instant;

use crate::alarms;
use crate::error::Failure;
use crate::letters;
use crate::metrics;
use crate::render::say;
use crate::stack::Stack;
use crate::test_jobs;
use crate::times;

/// What is looked at while a test runs.
pub struct Watch {
    /// Raised before it began; `None`: it cannot be known.
    before: Option<Vec<String>>,
    raised: Vec<String>,
    /// What CloudWatch had counted in the minute in which it begins, say of the test before.
    counted: HashMap<String, f64>,
    noted: Instant,
}

/// What is asked of CloudWatch beside the causes of hand-backs, as the ids of the questions.
const METRICS: [(&str, &str); 3] =
    [("throttled", "ModelThrottled"), ("calls", "ModelCalls"), ("handed_back", "JobsHandedBack")];

impl Watch {
    /// Before the first job is sent.
    pub async fn new(stack: &Stack) -> Self {
        let now_ms = times::now_ms();
        Self {
            before: alarms::raised(stack).await.ok(),
            raised: Vec::new(),
            counted: sums(stack, now_ms, now_ms).await.unwrap_or_default(),
            noted: Instant::now(),
        }
    }

    /// Looks at the alarms and the queue, says how it stands, and notes that the test lives.
    pub async fn look(&mut self, stack: &Stack, plan: &Plan, run: &str, began_ms: u64) {
        let (raised, depth) = tokio::join!(alarms::raised(stack), letters::look(stack, &stack.jobs_url));
        let before = self.before.as_deref().unwrap_or_default();
        for name in raised.unwrap_or_default() {
            if !before.contains(&name) && !self.raised.contains(&name) {
                say(&format!("{name} is raised."));
                self.raised.push(name);
            }
        }
        let after_ms = times::now_ms().saturating_sub(began_ms);
        let waiting =
            depth.map_or_else(|_| "an unknown number".to_owned(), |depth| depth.messages.to_string());
        say(&format!(
            "{}: {} of {} jobs due, {waiting} in the queue.",
            times::length(after_ms),
            plan.due(after_ms),
            plan.jobs()
        ));
        if self.noted.elapsed() >= test_jobs::ALIVE_EVERY {
            self.noted = Instant::now();
            if let Err(failure) = test_jobs::note(stack, run, true).await {
                say(failure.sentence().unwrap_or_default());
            }
        }
    }

    /// What was seen, and what CloudWatch counted.
    pub async fn observed(self, stack: &Stack, began_ms: u64, ended_ms: u64) -> Observed {
        let alarms = self.before.map(|_| self.raised);
        match sums(stack, began_ms, ended_ms).await {
            Ok(counted) => {
                let before = |id: &str| self.counted.get(id).copied().unwrap_or_default();
                let sum = |id: &str| counted.get(id).map(|all| (all - before(id)).max(0.0));
                let causes = HandBackCause::ALL.iter().map(|cause| cause.as_str());
                let causes =
                    causes.filter_map(|cause| Some((cause.to_owned(), sum(cause).filter(|n| *n > 0.0)?)));
                Observed {
                    throttled: sum("throttled"),
                    calls: sum("calls"),
                    handed_back: sum("handed_back"),
                    causes: causes.collect(),
                    alarms,
                }
            }
            Err(failure) => {
                say(failure.sentence().unwrap_or_default());
                Observed { alarms, ..Observed::default() }
            }
        }
    }
}

/// Sums over the minutes of the test.
async fn sums(stack: &Stack, began_ms: u64, ended_ms: u64) -> Result<HashMap<String, f64>, Failure> {
    const MINUTE_S: u64 = 60;
    let of_stack = ("Stack", stack.prefix.as_str());
    let totals = METRICS.map(|(id, metric)| metrics::query(id, NAMESPACE, metric, &[of_stack], 60, "Sum"));
    let by_cause = HandBackCause::ALL.iter().map(|cause| {
        let dimensions = [of_stack, ("Cause", cause.as_str())];
        metrics::query(cause.as_str(), NAMESPACE, "JobsHandedBack", &dimensions, 60, "Sum")
    });
    let queries = totals.into_iter().chain(by_cause).collect();
    let minute_s = |minute: u64| i64::try_from(minute * MINUTE_S).unwrap_or_default();
    let between = (minute_s(began_ms / 1_000 / MINUTE_S), minute_s(ended_ms / 1_000 / MINUTE_S + 1));
    let counted = metrics::values(stack, queries, between).await?;
    Ok(counted.into_iter().map(|(id, values)| (id, metrics::sum(values))).collect())
}
