//! The numbers of one invocation, and the check that no record was forgotten.

use std::collections::BTreeMap;

use strum::{IntoStaticStr, VariantArray};

use crate::cost::usd;
use crate::failure::FailureReason;
use crate::model::Usage;

/// CloudWatch namespace.
pub const NAMESPACE: &str = "Nightshift";
/// Distinct values of one datum that `PutMetricData` accepts (API reference: MetricDatum, Values).
pub const VALUES_MAX: usize = 150;
/// What stands for the task of a record whose body could not be parsed.
pub const NO_TASK: &str = "none";

/// How a record of an invocation ended: exactly one of these.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Outcome {
    /// A result was stored.
    Succeeded,
    /// A fallback was stored for a person to look at.
    NeedsReview,
    /// The input was already settled.
    Duplicate,
    /// Returned to SQS.
    HandedBack(HandBackCause),
    /// Sent to `dead-letters`.
    DeadLettered(FailureReason),
}

/// Why a record was handed back.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, VariantArray, IntoStaticStr)]
#[strum(serialize_all = "snake_case")]
pub enum HandBackCause {
    /// The provider has no capacity.
    Capacity,
    /// Calls failed; another delivery tries again.
    CallFailed,
    /// The account is the cause.
    Account,
    /// The stack is paused.
    Paused,
    /// The provider answers nobody, and the stack waits until it does.
    Outage,
    /// The day's money is spent or reserved.
    SpendCap,
    /// Another worker has the job.
    HeldByOther,
    /// Not enough time left.
    Deadline,
    /// Waits to run alone.
    Suspect,
    /// The ledger did not do what it was asked.
    Ledger,
    /// The record, or the pause, is in words that this release does not know: a newer one wrote it.
    Unreadable,
    /// The dead letter could not be sent.
    DeadLetterUnsent,
    /// Another worker took the claim over.
    LostClaim,
    /// The code panicked.
    Panic,
}

impl HandBackCause {
    /// All of them.
    pub const ALL: &'static [Self] = <Self as VariantArray>::VARIANTS;

    /// The word in metrics and in the demo.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        self.into()
    }
}

/// What is counted: the sum over an invocation is published.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, VariantArray, IntoStaticStr)]
#[allow(missing_docs)] // DESIGN's list; each name is its own description.
pub enum Metric {
    JobsReceived,
    JobsSucceeded,
    JobsDuplicate,
    JobsHandedBack,
    JobsNeedingReview,
    DeadLetters,
    ModelCalls,
    ModelRetries,
    ModelThrottled,
    ModelErrors,
    AccountFailures,
    OutputRejections,
    InputTokens,
    OutputTokens,
    CostUsd,
    WastedCostUsd,
    LedgerErrors,
    RecordsUnreadable,
}

impl Metric {
    /// All of them.
    pub const ALL: &'static [Self] = <Self as VariantArray>::VARIANTS;

    /// The name in CloudWatch.
    #[must_use]
    pub fn name(self) -> &'static str {
        self.into()
    }

    /// The unit in CloudWatch, which has none for money.
    fn unit(self) -> &'static str {
        match self {
            Self::CostUsd | Self::WastedCostUsd => "None",
            Self::JobsReceived
            | Self::JobsSucceeded
            | Self::JobsDuplicate
            | Self::JobsHandedBack
            | Self::JobsNeedingReview
            | Self::DeadLetters
            | Self::ModelCalls
            | Self::ModelRetries
            | Self::ModelThrottled
            | Self::ModelErrors
            | Self::AccountFailures
            | Self::OutputRejections
            | Self::InputTokens
            | Self::OutputTokens
            | Self::LedgerErrors
            | Self::RecordsUnreadable => "Count",
        }
    }

    /// Whether alarms divide by it, or it must be seen to be zero: published in every invocation.
    fn is_published_as_zero(self) -> bool {
        match self {
            Self::JobsReceived
            | Self::JobsSucceeded
            | Self::JobsDuplicate
            | Self::JobsHandedBack
            | Self::JobsNeedingReview
            | Self::DeadLetters
            | Self::ModelCalls
            | Self::ModelThrottled
            | Self::ModelErrors
            | Self::AccountFailures
            | Self::OutputRejections
            | Self::LedgerErrors => true,
            Self::ModelRetries
            | Self::InputTokens
            | Self::OutputTokens
            | Self::CostUsd
            | Self::WastedCostUsd
            | Self::RecordsUnreadable => false,
        }
    }
}

/// What is measured: each value is published, in milliseconds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, VariantArray, IntoStaticStr)]
#[allow(missing_docs)] // DESIGN's list; each name is its own description.
pub enum Latency {
    ModelLatency,
    JobLatency,
    EndToEndLatency,
    QueueWait,
}

impl Latency {
    /// All of them.
    pub const ALL: &'static [Self] = <Self as VariantArray>::VARIANTS;

    /// The name in CloudWatch.
    #[must_use]
    pub fn name(self) -> &'static str {
        self.into()
    }
}

/// What the sentinel reads off the stack each minute: always published, zeroes included.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, VariantArray, IntoStaticStr)]
#[allow(missing_docs)] // DESIGN's list; `sentinel::gauges` says what each one means.
pub enum Gauge {
    JobsWaiting,
    JobsInFlight,
    DeadLettersWaiting,
    CrashedWaiting,
    ReviewsWaiting,
    OldestJobAge,
    OldestDeadLetterAge,
    DeadClaims,
    SpendToday,
    SpendLeftPercent,
    Paused,
    RedrivesRunning,
    Heartbeat,
}

impl Gauge {
    /// All of them.
    pub const ALL: &'static [Self] = <Self as VariantArray>::VARIANTS;

    /// The name in CloudWatch.
    #[must_use]
    pub fn name(self) -> &'static str {
        self.into()
    }

    /// The unit in CloudWatch, which has none for money.
    fn unit(self) -> &'static str {
        match self {
            Self::OldestJobAge | Self::OldestDeadLetterAge => "Seconds",
            Self::SpendLeftPercent => "Percent",
            Self::SpendToday => "None",
            Self::JobsWaiting
            | Self::JobsInFlight
            | Self::DeadLettersWaiting
            | Self::CrashedWaiting
            | Self::ReviewsWaiting
            | Self::DeadClaims
            | Self::Paused
            | Self::RedrivesRunning
            | Self::Heartbeat => "Count",
        }
    }

    /// One reading of it, for the stack or for what `split` names.
    #[must_use]
    pub fn datum(self, stack: &str, split: Option<(&'static str, &str)>, value: f64) -> Datum {
        let mut dimensions = vec![("Stack", stack.to_owned())];
        dimensions.extend(split.map(|(name, value)| (name, value.to_owned())));
        Datum { name: self.name(), unit: self.unit(), dimensions, values: vec![value], counts: vec![1.0] }
    }
}

/// One datum of `PutMetricData`: values and how often each occurred.
#[derive(Debug, Clone, PartialEq)]
pub struct Datum {
    /// The metric.
    pub name: &'static str,
    /// CloudWatch's unit.
    pub unit: &'static str,
    /// Dimensions, `Stack` first.
    pub dimensions: Vec<(&'static str, String)>,
    /// Distinct values, at most `VALUES_MAX`.
    pub values: Vec<f64>,
    /// How often each of them occurred.
    pub counts: Vec<f64>,
}

/// What one invocation publishes.
#[derive(Debug, Clone, PartialEq)]
pub struct MetricBatch {
    /// When, in milliseconds since 1970.
    pub at_ms: u64,
    /// One for each metric and set of dimensions.
    pub data: Vec<Datum>,
}

/// Collects the numbers of one invocation.
#[derive(Debug, Default)]
pub struct InvocationMetrics {
    received: u64,
    outcomes: BTreeMap<Outcome, u64>,
    per_task: BTreeMap<String, TaskNumbers>,
}

#[derive(Debug, Default)]
struct TaskNumbers {
    sums: BTreeMap<Metric, f64>,
    samples: BTreeMap<Latency, Vec<u64>>,
    reasons: BTreeMap<FailureReason, f64>,
    causes: BTreeMap<HandBackCause, f64>,
}

/// The records of an invocation do not add up: a bug, never a state of the world.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "{received} records were received and {settled} were settled: report this as a bug of the worker, with the request id"
)]
pub struct ConservationError {
    /// Records that came in.
    pub received: u64,
    /// Records with an outcome.
    pub settled: u64,
}

impl InvocationMetrics {
    /// An invocation with this many records.
    #[must_use]
    pub fn new(received: usize) -> Self {
        Self { received: u64::try_from(received).unwrap_or(u64::MAX), ..Self::default() }
    }

    /// Adds to a sum.
    pub fn add(&mut self, task: &str, metric: Metric, amount: f64) {
        *self.task(task).sums.entry(metric).or_default() += amount;
    }

    /// Adds one measured time.
    pub fn sample_ms(&mut self, task: &str, latency: Latency, ms: u64) {
        self.task(task).samples.entry(latency).or_default().push(ms);
    }

    /// Adds the tokens and the cost of an answered call.
    pub fn usage(&mut self, task: &str, usage: Usage, cost_micro_usd: u64) {
        self.add(task, Metric::InputTokens, usage.input_tokens as f64);
        self.add(task, Metric::OutputTokens, usage.output_tokens as f64);
        self.add(task, Metric::CostUsd, usd(cost_micro_usd));
    }

    /// Settles one record.
    pub fn settle(&mut self, task: &str, outcome: Outcome) {
        *self.outcomes.entry(outcome).or_default() += 1;
        let metric = match outcome {
            Outcome::Succeeded => Metric::JobsSucceeded,
            Outcome::NeedsReview => Metric::JobsNeedingReview,
            Outcome::Duplicate => Metric::JobsDuplicate,
            Outcome::HandedBack(cause) => {
                *self.task(task).causes.entry(cause).or_default() += 1.0;
                Metric::JobsHandedBack
            }
            Outcome::DeadLettered(reason) => {
                *self.task(task).reasons.entry(reason).or_default() += 1.0;
                Metric::DeadLetters
            }
        };
        self.add(task, Metric::JobsReceived, 1.0);
        self.add(task, metric, 1.0);
    }

    /// Every record that was received has exactly one outcome.
    ///
    /// # Errors
    /// When one has none, or one has two.
    pub fn conserved(&self) -> Result<(), ConservationError> {
        let settled = self.outcomes.values().sum();
        if settled == self.received {
            Ok(())
        } else {
            Err(ConservationError { received: self.received, settled })
        }
    }

    fn task(&mut self, task: &str) -> &mut TaskNumbers {
        if !self.per_task.contains_key(task) {
            self.per_task.insert(task.to_owned(), TaskNumbers::default());
        }
        self.per_task.entry(task.to_owned()).or_default()
    }

    /// Each metric per task and once without it, for the alarms; `DeadLetters` also by reason, `JobsHandedBack` by
    /// cause.
    #[must_use]
    pub fn into_batch(self, stack: &str, at_ms: u64) -> MetricBatch {
        let mut all = TaskNumbers::default();
        for metric in Metric::ALL.iter().filter(|metric| metric.is_published_as_zero()) {
            all.sums.insert(*metric, 0.0);
        }
        for numbers in self.per_task.values() {
            for (metric, amount) in &numbers.sums {
                *all.sums.entry(*metric).or_default() += amount;
            }
            for (metric, values) in &numbers.samples {
                all.samples.entry(*metric).or_default().extend(values);
            }
            for (reason, amount) in &numbers.reasons {
                *all.reasons.entry(*reason).or_default() += amount;
            }
            for (cause, amount) in &numbers.causes {
                *all.causes.entry(*cause).or_default() += amount;
            }
        }
        let stack_only = vec![("Stack", stack.to_owned())];
        let mut data = all.data(&stack_only);
        let split = |name, value: &str| vec![("Stack", stack.to_owned()), (name, value.to_owned())];
        for (reason, amount) in &all.reasons {
            data.push(sum(Metric::DeadLetters, *amount, split("Reason", reason.as_str())));
        }
        for (cause, amount) in &all.causes {
            data.push(sum(Metric::JobsHandedBack, *amount, split("Cause", cause.as_str())));
        }
        for (task, numbers) in self.per_task {
            let mut dimensions = stack_only.clone();
            dimensions.push(("Task", task));
            data.extend(numbers.data(&dimensions));
        }
        MetricBatch { at_ms, data }
    }
}

impl TaskNumbers {
    fn data(&self, dimensions: &[(&'static str, String)]) -> Vec<Datum> {
        let sums = self.sums.iter().map(|(metric, amount)| sum(*metric, *amount, dimensions.to_vec()));
        let samples = self.samples.iter().flat_map(|(latency, values)| {
            let mut counted: BTreeMap<u64, f64> = BTreeMap::new();
            for value in values {
                *counted.entry(*value).or_default() += 1.0;
            }
            let counted: Vec<_> = counted.into_iter().collect();
            counted
                .chunks(VALUES_MAX)
                .map(|chunk| Datum {
                    name: latency.name(),
                    unit: "Milliseconds",
                    dimensions: dimensions.to_vec(),
                    values: chunk.iter().map(|(value, _)| *value as f64).collect(),
                    counts: chunk.iter().map(|(_, count)| *count).collect(),
                })
                .collect::<Vec<_>>()
        });
        sums.chain(samples).collect()
    }
}

fn sum(metric: Metric, amount: f64, dimensions: Vec<(&'static str, String)>) -> Datum {
    Datum { name: metric.name(), unit: metric.unit(), dimensions, values: vec![amount], counts: vec![1.0] }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn value(batch: &MetricBatch, name: &str, dimensions: &[(&'static str, &str)]) -> Option<f64> {
        let wanted: Vec<_> = dimensions.iter().map(|(k, v)| (*k, (*v).to_owned())).collect();
        let datum = batch.data.iter().find(|d| d.name == name && d.dimensions == wanted)?;
        Some(datum.values.iter().zip(&datum.counts).map(|(v, c)| v * c).sum())
    }

    /// Of the API Reference's ("MetricDatum"), those that are used; PutMetricData refuses others.
    #[test]
    fn every_unit_is_known_to_cloudwatch() {
        let units =
            Metric::ALL.iter().map(|metric| metric.unit()).chain(Gauge::ALL.iter().map(|gauge| gauge.unit()));
        for unit in units {
            assert!(["Count", "Milliseconds", "None", "Percent", "Seconds"].contains(&unit), "{unit}");
        }
    }

    /// Alarms compare with numbers in these units.
    #[test]
    fn a_name_says_its_unit() {
        let all = Metric::ALL.iter().map(|metric| (metric.name(), metric.unit()));
        for (name, unit) in all.chain(Gauge::ALL.iter().map(|gauge| (gauge.name(), gauge.unit()))) {
            let expected = match name {
                name if name.ends_with("Age") => "Seconds",
                name if name.ends_with("Percent") => "Percent",
                name if name.ends_with("Usd") || name == "SpendToday" => "None",
                _ => "Count",
            };
            assert_eq!(unit, expected, "{name}");
        }
    }

    #[test]
    fn each_record_is_counted_exactly_once() {
        let mut metrics = InvocationMetrics::new(3);
        metrics.settle("a", Outcome::Succeeded);
        metrics.settle("a", Outcome::DeadLettered(FailureReason::Refused));
        assert_eq!(metrics.conserved(), Err(ConservationError { received: 3, settled: 2 }));
        metrics.settle(NO_TASK, Outcome::HandedBack(HandBackCause::Deadline));
        assert_eq!(metrics.conserved(), Ok(()));
    }

    #[test]
    fn metrics_are_published_per_task_and_for_the_stack_and_zeroes_are_published_too() {
        let mut metrics = InvocationMetrics::new(5);
        metrics.settle("a", Outcome::Succeeded);
        metrics.settle("b", Outcome::DeadLettered(FailureReason::Poison));
        metrics.settle("a", Outcome::HandedBack(HandBackCause::Paused));
        metrics.settle("b", Outcome::HandedBack(HandBackCause::Paused));
        metrics.settle("b", Outcome::HandedBack(HandBackCause::SpendCap));
        metrics.usage("a", Usage { input_tokens: 10, output_tokens: 5 }, 1_500);
        for ms in [7, 7, 9] {
            metrics.sample_ms("a", Latency::ModelLatency, ms);
        }
        let batch = metrics.into_batch("prod", 1);
        for (name, dimensions, expected) in [
            ("JobsReceived", vec![("Stack", "prod")], Some(5.0)),
            ("JobsSucceeded", vec![("Stack", "prod"), ("Task", "a")], Some(1.0)),
            ("JobsSucceeded", vec![("Stack", "prod"), ("Task", "b")], None),
            ("DeadLetters", vec![("Stack", "prod"), ("Reason", "poison")], Some(1.0)),
            ("JobsHandedBack", vec![("Stack", "prod")], Some(3.0)),
            ("JobsHandedBack", vec![("Stack", "prod"), ("Cause", "paused")], Some(2.0)),
            ("JobsHandedBack", vec![("Stack", "prod"), ("Cause", "spend_cap")], Some(1.0)),
            ("JobsHandedBack", vec![("Stack", "prod"), ("Cause", "capacity")], None),
            ("AccountFailures", vec![("Stack", "prod")], Some(0.0)),
            ("CostUsd", vec![("Stack", "prod")], Some(0.0015)),
            ("ModelLatency", vec![("Stack", "prod")], Some(23.0)),
        ] {
            assert_eq!(value(&batch, name, &dimensions), expected, "{name} {dimensions:?}");
        }
        let latency = batch.data.iter().find(|d| d.name == "ModelLatency").unwrap();
        assert_eq!(
            (latency.values.as_slice(), latency.counts.as_slice()),
            (&[7.0, 9.0][..], &[2.0, 1.0][..])
        );
    }

    #[test]
    fn more_values_than_a_datum_holds_are_split() {
        let mut metrics = InvocationMetrics::new(0);
        for ms in 0..400 {
            metrics.sample_ms("a", Latency::JobLatency, ms);
        }
        let batch = metrics.into_batch("s", 1);
        let sizes: Vec<_> = batch
            .data
            .iter()
            .filter(|d| d.name == "JobLatency" && d.dimensions.len() == 1)
            .map(|d| d.values.len())
            .collect();
        assert_eq!(sizes, [150, 150, 100]);
    }

    /// A series that nothing divides by costs a month's price for each zero.
    #[test]
    fn an_invocation_without_work_publishes_the_zeroes_that_are_asked_for_and_no_more() {
        let batch = InvocationMetrics::new(0).into_batch("s", 1);
        let names: Vec<_> = batch.data.iter().map(|datum| datum.name).collect();
        let zeroes = [
            "JobsReceived",
            "JobsSucceeded",
            "JobsDuplicate",
            "JobsHandedBack",
            "JobsNeedingReview",
            "DeadLetters",
            "ModelCalls",
            "ModelThrottled",
            "ModelErrors",
            "AccountFailures",
            "OutputRejections",
            "LedgerErrors",
        ];
        assert_eq!(names, zeroes);
        assert!(batch.data.iter().all(|datum| datum.values.iter().all(|value| *value == 0.0)));
    }
}
