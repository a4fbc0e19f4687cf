//! What is looked at while a load test runs: the queue, the alarms, its money, and at its end what CloudWatch counted.

use std::collections::HashMap;
use std::convert::Infallible;
use std::time::Duration;

use nightshift_core::load_test::{
    ALARMS_AFTER_MS, AlarmLooks, Alarms, Measured, Observed, Plan, grouped, next_minute_ms,
};
use nightshift_core::metric::{HandBackCause, NAMESPACE};

use crate::again::again;
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
    alarms: AlarmLooks,
    /// How it stood when that was last said.
    said: Option<String>,
    /// What CloudWatch had counted in the minute in which it begins, say of the test before.
    counted: HashMap<String, f64>,
    /// Whether nobody waited for what comes late.
    is_cut: bool,
}

/// What is asked of CloudWatch beside the causes of hand-backs, as the ids of the questions.
const METRICS: [(&str, &str); 3] =
    [("throttled", "ModelThrottled"), ("calls", "ModelCalls"), ("handed_back", "JobsHandedBack")];

impl<'a> Watch<'a> {
    /// Of a test that begins now. `another`: it sent another load before this one, of which CloudWatch may be behind.
    pub async fn new(
        stack: &'a Stack,
        plan: &'a Plan,
        clock: Clock,
        budget: Option<Budget>,
        interrupt: &'a Interrupt,
        another: bool,
    ) -> Self {
        if another && stack.is_aws() {
            tokio::select! {
                () = interrupt.asked() => {}
                () = tokio::time::sleep(Duration::from_millis(next_minute_ms(clock.now_ms()))) => {}
            }
        }
        let now_ms = clock.now_ms();
        let counted = again(async || sums(stack, now_ms, now_ms).await).await.unwrap_or_default();
        let raised = again(async || alarms::raised(stack).await).await.ok();
        let began_ms = clock.now_ms();
        let alarms = AlarmLooks::new(raised, began_ms);
        Self { stack, plan, clock, budget, interrupt, began_ms, alarms, said: None, counted, is_cut: false }
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

    /// Looks on until the alarms have seen what the last jobs did, and CloudWatch has counted it, or somebody stops it; whether
    /// it was not stopped.
    pub async fn look_after(&mut self) -> bool {
        if !self.stack.is_aws() {
            return true;
        }
        let after_ms = Duration::from_millis(ALARMS_AFTER_MS);
        say(&format!("Looks at the alarms for {} more.", times::length(ALARMS_AFTER_MS)));
        let interrupt = self.interrupt;
        tokio::select! {
            () = interrupt.asked() => {
                self.alarms.cut_short();
                self.is_cut = true;
                false
            }
            () = tokio::time::sleep(after_ms) => true,
            never = self.keep_looking() => match never {},
        }
    }

    /// Looks at the alarms, the queue and the money, and says how it stands.
    pub async fn look(&mut self) {
        let (stack, plan) = (self.stack, self.plan);
        let (raised, depth) = tokio::join!(alarms::raised(stack), letters::look(stack, &stack.jobs_url));
        let raised = self.alarms.look(raised.ok(), self.clock.now_ms());
        raised.iter().for_each(tell);
        let after_ms = self.after_ms();
        let waiting = depth.map_or_else(|_| "an unknown number".to_owned(), |depth| grouped(depth.messages));
        let (due, jobs) = (grouped(plan.due(after_ms)), grouped(plan.jobs()));
        let stands = format!("{due} of {jobs} jobs due, {waiting} in the queue.");
        if self.said.as_ref() != Some(&stands) {
            say(&format!("{}: {stands}", times::length(after_ms)));
            self.said = Some(stands);
        }
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

    /// What was seen, and what CloudWatch counted: nothing that is known where nobody waited for it, since what it counts late
    /// may be what was refused.
    pub async fn observed(self, measured: &Measured) -> Observed {
        let (stack, clock, began_ms) = (self.stack, self.clock, self.began_ms);
        let counts = if self.is_cut {
            Observed::default()
        } else {
            match again(async || sums(stack, began_ms, clock.now_ms()).await).await {
                Ok(counted) => observed_of(&counted, &self.counted).unless_behind(measured),
                Err(failure) => {
                    say(failure.sentence().unwrap_or_default());
                    Observed::default()
                }
            }
        };
        // The last look counts: what could not be read then may be raised.
        let raised = again(async || alarms::raised(stack).await).await.ok();
        let (new, raised) = self.alarms.end(raised, clock.now_ms());
        new.iter().for_each(tell);
        Observed { alarms: raised.map_or(Alarms::Unread, Alarms::Raised), ..counts }
    }
}

/// What was counted since `before`.
fn observed_of(counted: &HashMap<String, f64>, before: &HashMap<String, f64>) -> Observed {
    let before = |id: &str| before.get(id).copied().unwrap_or_default();
    let sum = |id: &str| counted.get(id).map(|all| (all - before(id)).max(0.0));
    let causes = HandBackCause::ALL.iter().map(|cause| cause.as_str());
    let causes = causes.filter_map(|cause| Some((cause.to_owned(), sum(cause).filter(|n| *n > 0.0)?)));
    Observed {
        throttled: sum("throttled"),
        calls: sum("calls"),
        handed_back: sum("handed_back"),
        causes: causes.collect(),
        alarms: Alarms::Unread,
    }
}

/// Says that an alarm is raised.
fn tell(name: &String) {
    say(&format!("{name} is raised."));
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
