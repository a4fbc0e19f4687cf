//! What is looked at while a load test runs: the queue, the alarms, its money, and at its end what CloudWatch counted.

use std::collections::HashMap;
use std::convert::Infallible;
use std::time::Duration;

use nightshift_core::load_test::{Observed, Plan};
use nightshift_core::metric::{HandBackCause, NAMESPACE};
use tokio::time::Instant;

use crate::alarms;
use crate::budget::Budget;
use crate::clock::Clock;
use crate::error::Failure;
use crate::interrupt::Interrupt;
use crate::letters;
use crate::metrics;
use crate::render::say;
use crate::stack::Stack;
use crate::times;

/// Between two looks.
const LOOK_EVERY: Duration = Duration::from_secs(5);
/// For so long the alarms may go unread: one that is raised stays so for a minute at least, until it is evaluated again.
const UNREAD_MAX: Duration = Duration::from_secs(60);

/// What is looked at while a test runs.
pub struct Watch<'a> {
    stack: &'a Stack,
    plan: &'a Plan,
    clock: Clock,
    /// What the calls may cost; `None`: it is no matter.
    budget: Option<Budget>,
    /// To be asked for an end where it is spent.
    interrupt: &'a Interrupt,
    /// When the first job was due, in milliseconds since 1970.
    began_ms: u64,
    /// Raised before it began; `None`: it cannot be known.
    before: Option<Vec<String>>,
    raised: Vec<String>,
    read_at: Instant,
    /// Whether the alarms could not be read for so long that one may have been missed.
    missed: bool,
    /// What CloudWatch had counted in the minute in which it begins, say of the test before.
    counted: HashMap<String, f64>,
}

/// What is asked of CloudWatch beside the causes of hand-backs, as the ids of the questions.
const METRICS: [(&str, &str); 3] =
    [("throttled", "ModelThrottled"), ("calls", "ModelCalls"), ("handed_back", "JobsHandedBack")];

impl<'a> Watch<'a> {
    /// Of a test that begins now.
    pub async fn new(
        stack: &'a Stack,
        plan: &'a Plan,
        clock: Clock,
        budget: Option<Budget>,
        interrupt: &'a Interrupt,
    ) -> Self {
        let now_ms = clock.now_ms();
        let before = alarms::raised(stack).await.ok();
        let counted = sums(stack, now_ms, now_ms).await.unwrap_or_default();
        let (raised, read_at, missed) = (Vec::new(), Instant::now(), false);
        let began_ms = clock.now_ms();
        Self { stack, plan, clock, budget, interrupt, began_ms, before, raised, read_at, missed, counted }
    }

    /// When the first job was due, in milliseconds since 1970, by AWS's clock.
    pub fn began_ms(&self) -> u64 {
        self.began_ms
    }

    /// How long ago that was, in milliseconds.
    pub fn after_ms(&self) -> u64 {
        self.clock.now_ms().saturating_sub(self.began_ms)
    }

    /// Looks again and again, beside whatever else is done.
    pub async fn keep_looking(&mut self) -> Infallible {
        loop {
            tokio::time::sleep(LOOK_EVERY).await;
            self.look().await;
        }
    }

    /// Looks at the alarms, the queue and the money, and says how it stands.
    pub async fn look(&mut self) {
        let (stack, plan) = (self.stack, self.plan);
        let (raised, depth) = tokio::join!(alarms::raised(stack), letters::look(stack, &stack.jobs_url));
        self.note(raised);
        let after_ms = self.after_ms();
        let waiting =
            depth.map_or_else(|_| "an unknown number".to_owned(), |depth| depth.messages.to_string());
        say(&format!(
            "{}: {} of {} jobs due, {waiting} in the queue.",
            times::length(after_ms),
            plan.due(after_ms),
            plan.jobs()
        ));
        if let Some(budget) = &self.budget
            && !self.interrupt.is_asked()
        {
            match budget.is_spent(stack, self.clock.now_ms()).await {
                Ok(false) => {}
                Ok(true) => {
                    say(
                        "What --budget-usd allows is spent, or reserved for calls that are under way: no more is sent.",
                    );
                    self.interrupt.ask();
                }
                Err(failure) => say(failure.sentence().unwrap_or_default()),
            }
        }
    }

    fn note(&mut self, raised: Result<Vec<String>, Failure>) {
        self.missed |= self.read_at.elapsed() > UNREAD_MAX;
        let Ok(raised) = raised else { return };
        self.read_at = Instant::now();
        let before = self.before.as_deref().unwrap_or_default();
        for name in raised {
            if !before.contains(&name) && !self.raised.contains(&name) {
                say(&format!("{name} is raised."));
                self.raised.push(name);
            }
        }
    }

    /// What was seen, and what CloudWatch counted until now.
    pub async fn observed(mut self) -> Observed {
        let raised = alarms::raised(self.stack).await;
        // The last look counts: what could not be read then may be raised.
        let unread = raised.is_err();
        self.note(raised);
        let is_known = self.before.is_some() && !self.missed && !unread;
        let alarms = (is_known || !self.raised.is_empty()).then_some(self.raised);
        match sums(self.stack, self.began_ms, self.clock.now_ms()).await {
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
