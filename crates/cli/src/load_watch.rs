//! What is looked at while a load test runs: the queue, the alarms, and at its end what CloudWatch counted.

use aws_sdk_cloudwatch::types::{Dimension, Metric, MetricDataQuery, MetricStat};
use aws_smithy_types::DateTime;
use nightshift_core::load_test::{Observed, Plan};
use nightshift_core::metric::NAMESPACE;
use tokio::time::Instant;

use crate::alarms;
use crate::error::{self, Failure};
use crate::letters;
use crate::render::say;
use crate::stack::Stack;
use crate::test_jobs;
use crate::times;

/// What is looked at while a test runs.
pub struct Watch {
    /// Raised before it began; `None`: it cannot be known.
    before: Option<Vec<String>>,
    raised: Vec<String>,
    noted: Instant,
}

impl Watch {
    /// Before the first job is sent.
    pub async fn new(stack: &Stack) -> Self {
        Self { before: alarms::raised(stack).await.ok(), raised: Vec::new(), noted: Instant::now() }
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
            Ok([throttled, calls, handed_back]) => Observed {
                throttled: Some(throttled),
                calls: Some(calls),
                handed_back: Some(handed_back),
                alarms,
            },
            Err(failure) => {
                say(failure.sentence().unwrap_or_default());
                Observed { alarms, ..Observed::default() }
            }
        }
    }
}

/// Sums over the minutes of the test: calls that were throttled, all calls, hand-backs.
async fn sums(stack: &Stack, began_ms: u64, ended_ms: u64) -> Result<[f64; 3], Failure> {
    const METRICS: [(&str, &str); 3] =
        [("throttled", "ModelThrottled"), ("calls", "ModelCalls"), ("handed_back", "JobsHandedBack")];
    const MINUTE_S: u64 = 60;
    let queries = METRICS.map(|(id, metric)| {
        let dimension = Dimension::builder().name("Stack").value(&stack.prefix).build();
        let metric = Metric::builder().namespace(NAMESPACE).metric_name(metric).dimensions(dimension).build();
        let stat = MetricStat::builder().metric(metric).period(60).stat("Sum").build();
        MetricDataQuery::builder().id(id).metric_stat(stat).build()
    });
    let seconds = |s: u64| DateTime::from_secs(i64::try_from(s).unwrap_or_default());
    let got = aws_sdk_cloudwatch::Client::new(&stack.sdk)
        .get_metric_data()
        .set_metric_data_queries(Some(queries.to_vec()))
        .start_time(seconds(began_ms / 1_000 / MINUTE_S * MINUTE_S))
        .end_time(seconds((ended_ms / 1_000 / MINUTE_S + 1) * MINUTE_S))
        .send()
        .await;
    let results = got
        .map_err(|e| error::of_aws("cloudwatch:GetMetricData", &e))?
        .metric_data_results
        .unwrap_or_default();
    Ok(METRICS.map(|(id, _)| {
        results.iter().filter(|result| result.id() == Some(id)).flat_map(|result| result.values()).sum()
    }))
}
