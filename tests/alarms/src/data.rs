//! What was published: samples by metric and minute, and the statistics over them.

use std::collections::{BTreeMap, VecDeque};
use std::fmt;

/// A minute since the beginning of a drill.
pub type Minute = i64;

/// A metric: CloudWatch treats each set of dimensions as one of its own.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct MetricKey {
    /// `Nightshift`, or AWS's, such as `AWS/Lambda`.
    pub namespace: String,
    /// As published, such as `JobsReceived`.
    pub name: String,
    /// By name; none is a metric of its own too.
    pub dimensions: BTreeMap<String, String>,
}

impl MetricKey {
    /// A metric of one namespace, name and set of dimensions.
    #[must_use]
    pub fn new(namespace: &str, name: &str, dimensions: &[(&str, &str)]) -> Self {
        let dimensions =
            dimensions.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
        Self { namespace: namespace.to_owned(), name: name.to_owned(), dimensions }
    }
}

impl fmt::Display for MetricKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{} {:?}", self.namespace, self.name, self.dimensions)
    }
}

/// A statistic over the samples of a period.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Statistic {
    /// Their sum.
    Sum,
    /// The largest.
    Maximum,
    /// The smallest.
    Minimum,
    /// Their mean.
    Average,
    /// How many there are.
    SampleCount,
    /// `pNN`: a share in 0 … 1 exclusive.
    Percentile(f64),
}

impl Statistic {
    /// The statistic of this name, as an alarm writes it; `None`: unknown here.
    #[must_use]
    pub fn of_name(name: &str) -> Option<Self> {
        Some(match name {
            "Sum" => Self::Sum,
            "Maximum" => Self::Maximum,
            "Minimum" => Self::Minimum,
            "Average" => Self::Average,
            "SampleCount" => Self::SampleCount,
            percentile => {
                let percent: f64 = percentile.strip_prefix('p')?.parse().ok()?;
                (percent > 0.0 && percent < 100.0).then_some(Self::Percentile(percent / 100.0))?
            }
        })
    }

    /// Fewer samples than this in a period are a low sample count. ("Percentile-based alarms and low data samples")
    #[must_use]
    pub fn samples_least(self) -> Option<f64> {
        match self {
            Self::Percentile(p) if p >= 0.5 => Some((10.0 / (1.0 - p)).round()),
            Self::Percentile(p) => Some((10.0 / p).round()),
            _ => None,
        }
    }
}

/// The samples of one minute of one metric.
#[derive(Debug, Clone, Default)]
struct Samples {
    /// `(value, how often)`.
    values: Vec<(f64, f64)>,
    /// Over all of them.
    count: f64,
    sum: f64,
    largest: f64,
    smallest: f64,
}

impl Samples {
    fn add(&mut self, value: f64, count: f64) {
        let first = self.values.is_empty();
        self.largest = if first { value } else { self.largest.max(value) };
        self.smallest = if first { value } else { self.smallest.min(value) };
        self.count += count;
        self.sum += value * count;
        self.values.push((value, count));
    }
}

/// All that was published.
#[derive(Debug, Clone, Default)]
pub struct Data {
    metrics: BTreeMap<MetricKey, Published>,
}

/// What was published of one metric.
#[derive(Debug, Clone, Default)]
pub struct Published {
    /// The first minute that is held.
    first: Minute,
    /// Each minute since then.
    minutes: VecDeque<Samples>,
}

/// The statistic of one period, with the number of samples behind it.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Value {
    /// The statistic.
    pub value: f64,
    /// How many were published in the period; percentiles need enough of them.
    pub samples: f64,
}

impl Data {
    /// Publishes a value that was seen `count` times, under the minute that its timestamp names.
    pub fn publish(&mut self, metric: &MetricKey, minute: Minute, value: f64, count: f64) {
        match self.metrics.get_mut(metric) {
            Some(published) => published.add(minute, value, count),
            None => self.metrics.entry(metric.clone()).or_default().add(minute, value, count),
        }
    }

    /// The metrics that have ever had data.
    pub fn metrics(&self) -> impl Iterator<Item = &MetricKey> {
        self.metrics.keys()
    }

    /// One of them; `None`: it has never had data.
    #[must_use]
    pub fn published(&self, metric: &MetricKey) -> Option<&Published> {
        self.metrics.get(metric)
    }

    /// The statistic over the minutes `from..to`; `None` where there are no samples.
    #[must_use]
    pub fn statistic(
        &self,
        metric: &MetricKey,
        from: Minute,
        to: Minute,
        statistic: Statistic,
    ) -> Option<Value> {
        self.published(metric)?.statistic(from, to, statistic)
    }
}

impl Published {
    fn add(&mut self, minute: Minute, value: f64, count: f64) {
        if self.minutes.is_empty() {
            self.first = minute;
        }
        while minute < self.first {
            self.first -= 1;
            self.minutes.push_front(Samples::default());
        }
        let at = usize::try_from(minute - self.first).unwrap_or_default();
        if at >= self.minutes.len() {
            self.minutes.resize(at + 1, Samples::default());
        }
        if let Some(samples) = self.minutes.get_mut(at) {
            samples.add(value, count);
        }
    }

    /// The statistic over the minutes `from..to`; `None` where there are no samples.
    #[must_use]
    pub fn statistic(&self, from: Minute, to: Minute, statistic: Statistic) -> Option<Value> {
        let at = |minute: Minute| {
            usize::try_from((minute - self.first).max(0)).unwrap_or_default().min(self.minutes.len())
        };
        let (from, to) = (at(from), at(to));
        let within = || self.minutes.range(from..to.max(from)).filter(|one| one.count > 0.0);
        let samples: f64 = within().map(|one| one.count).sum();
        if samples <= 0.0 {
            return None;
        }
        let sum: f64 = within().map(|one| one.sum).sum();
        let value = match statistic {
            Statistic::Sum => sum,
            Statistic::Average => sum / samples,
            Statistic::SampleCount => samples,
            Statistic::Maximum => within().map(|one| one.largest).fold(f64::NEG_INFINITY, f64::max),
            Statistic::Minimum => within().map(|one| one.smallest).fold(f64::INFINITY, f64::min),
            Statistic::Percentile(share) => {
                let mut values: Vec<(f64, f64)> =
                    within().flat_map(|one| one.values.iter().copied()).collect();
                values.sort_by(|a, b| a.0.total_cmp(&b.0));
                let rank = share * samples;
                let mut seen = 0.0;
                let at = values.iter().find(|(_, count)| {
                    seen += count;
                    seen >= rank
                });
                at.or(values.last())?.0
            }
        };
        Some(Value { value, samples })
    }
}
