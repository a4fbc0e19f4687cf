//! The numbers of an invocation: to CloudWatch, or to the log when CloudWatch does not take them.

use std::fmt;
use std::time::Duration;

use async_trait::async_trait;
use aws_sdk_cloudwatch::Client;
use aws_sdk_cloudwatch::primitives::DateTime;
use aws_sdk_cloudwatch::types::{Dimension, MetricDatum, StandardUnit};
use nightshift_core::metric::{Datum, MetricBatch, NAMESPACE};
use nightshift_ports::{Metrics, PortError};
use serde_json::{Map, Value, json};
use tokio::time::Instant;

use crate::clients::SdkConfig;
use crate::error::port_error;

/// Data that one `PutMetricData` takes (API reference: PutMetricData). An invocation has far fewer.
pub const DATA_MAX: usize = 1_000;
/// Metrics of one line, and values of one metric in it (Specification: Embedded metric format).
pub const EMF_LIST_MAX: usize = 100;

/// Writes one line to the log, unwrapped: CloudWatch finds an embedded metric only at the root of a JSON line.
pub type LogLine = Box<dyn Fn(&str) + Send + Sync>;

/// Metrics to CloudWatch, with embedded metrics in the log as the fallback.
pub struct CloudWatchMetrics {
    client: Client,
    log_line: LogLine,
}

impl fmt::Debug for CloudWatchMetrics {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CloudWatchMetrics").finish_non_exhaustive()
    }
}

impl CloudWatchMetrics {
    /// Metrics to CloudWatch, and to `log_line` when it does not take them.
    #[must_use]
    pub fn new(sdk: &SdkConfig, log_line: LogLine) -> Self {
        Self { client: Client::new(sdk), log_line }
    }

    async fn put(&self, at_ms: u64, data: &[Datum]) -> Result<(), PortError> {
        self.client
            .put_metric_data()
            .namespace(NAMESPACE)
            .set_metric_data(Some(metric_data(at_ms, data)))
            .send()
            .await
            .map(drop)
            .map_err(|e| port_error("CloudWatch", "PutMetricData", &e))
    }
}

#[async_trait]
impl Metrics for CloudWatchMetrics {
    async fn publish(&self, batch: &MetricBatch, within: Duration) {
        let until = Instant::now() + within;
        for data in batch.data.chunks(DATA_MAX) {
            let why = match tokio::time::timeout_at(until, self.put(batch.at_ms, data)).await {
                Ok(Ok(())) => continue,
                Ok(Err(error)) => error.to_string(),
                Err(_) => "the invocation has no time left".to_owned(),
            };
            tracing::warn!(why, "metrics go to the log instead; they may count double");
            for line in emf_lines(batch.at_ms, data) {
                (self.log_line)(&line);
            }
        }
    }
}

/// What CloudWatch is asked to take, in its own form.
#[must_use]
pub fn metric_data(at_ms: u64, data: &[Datum]) -> Vec<MetricDatum> {
    data.iter().map(|datum| metric_datum(at_ms, datum)).collect()
}

fn metric_datum(at_ms: u64, datum: &Datum) -> MetricDatum {
    let dimensions =
        datum.dimensions.iter().map(|(name, value)| Dimension::builder().name(*name).value(value).build());
    MetricDatum::builder()
        .metric_name(datum.name)
        .unit(StandardUnit::from(datum.unit))
        .timestamp(DateTime::from_millis(i64::try_from(at_ms).unwrap_or(i64::MAX)))
        .set_dimensions(Some(dimensions.collect()))
        .set_values(Some(datum.values.clone()))
        .set_counts(Some(datum.counts.clone()))
        .build()
}

/// The data as lines of the embedded metric format: one for each set of dimensions, and a further one where a set has
/// more metrics or values than a line holds. The format has no counts, so a value is repeated as often as it occurred.
#[must_use]
pub fn emf_lines(at_ms: u64, data: &[Datum]) -> Vec<String> {
    let mut lines: Vec<EmfLine<'_>> = Vec::new();
    for datum in data {
        let repeated: Vec<f64> = datum
            .values
            .iter()
            .zip(&datum.counts)
            // Counts are whole numbers of at most the samples of one invocation.
            .flat_map(|(value, count)| std::iter::repeat_n(*value, *count as usize))
            .collect();
        for values in repeated.chunks(EMF_LIST_MAX) {
            let room = lines.iter_mut().find(|line| line.has_room(datum));
            match room {
                Some(line) => line.metrics.push((datum, values.to_vec())),
                None => lines
                    .push(EmfLine { dimensions: &datum.dimensions, metrics: vec![(datum, values.to_vec())] }),
            }
        }
    }
    lines.iter().map(|line| line.json(at_ms)).collect()
}

struct EmfLine<'a> {
    dimensions: &'a [(&'static str, String)],
    metrics: Vec<(&'a Datum, Vec<f64>)>,
}

impl EmfLine<'_> {
    fn has_room(&self, datum: &Datum) -> bool {
        self.dimensions == datum.dimensions
            && self.metrics.len() < EMF_LIST_MAX
            && self.metrics.iter().all(|(standing, _)| standing.name != datum.name)
    }

    fn json(&self, at_ms: u64) -> String {
        let names: Vec<_> = self.dimensions.iter().map(|(name, _)| *name).collect();
        let definitions: Vec<_> =
            self.metrics.iter().map(|(datum, _)| json!({"Name": datum.name, "Unit": datum.unit})).collect();
        let mut root = Map::new();
        root.insert(
            "_aws".to_owned(),
            json!({
                "Timestamp": at_ms,
                "CloudWatchMetrics": [{"Namespace": NAMESPACE, "Dimensions": [names], "Metrics": definitions}],
            }),
        );
        for (name, value) in self.dimensions {
            root.insert((*name).to_owned(), json!(value));
        }
        for (datum, values) in &self.metrics {
            let target = match values.as_slice() {
                [one] => json!(one),
                many => json!(many),
            };
            root.insert(datum.name.to_owned(), target);
        }
        Value::Object(root).to_string()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use nightshift_core::failure::FailureReason;
    use nightshift_core::metric::{HandBackCause, InvocationMetrics, Latency, Outcome};
    use nightshift_core::model::Usage;
    use std::collections::{BTreeMap, BTreeSet};

    fn batch() -> MetricBatch {
        let mut metrics = InvocationMetrics::new(3);
        metrics.settle("summarize_email", Outcome::Succeeded);
        metrics.settle("summarize_email", Outcome::HandedBack(HandBackCause::Capacity));
        metrics.settle("weekly_report", Outcome::DeadLettered(FailureReason::Refused));
        metrics.usage("summarize_email", Usage { input_tokens: 1_200, output_tokens: 80 }, 4_800);
        for ms in [900, 900, 1_250] {
            metrics.sample_ms("summarize_email", Latency::ModelLatency, ms);
        }
        metrics.into_batch("prod", 1_795_500_000_000)
    }

    /// The rules of "Specification: Embedded metric format" that a line of ours can break.
    /// Returns what the line declares: each metric with its dimensions and its values.
    fn check(line: &str) -> Vec<(String, BTreeMap<String, String>, Vec<f64>)> {
        assert!(line.len() < 256 * 1_024, "the older limit of a log event");
        assert!(!line.contains('\n'));
        let root: Value = serde_json::from_str(line).expect("a JSON object and nothing around it");
        let root = root.as_object().unwrap();
        let meta = root["_aws"].as_object().unwrap();
        assert_eq!(meta.keys().collect::<Vec<_>>(), ["Timestamp", "CloudWatchMetrics"]);
        assert!(meta["Timestamp"].is_u64());
        let mut declared = Vec::new();
        for directive in meta["CloudWatchMetrics"].as_array().unwrap() {
            let directive = directive.as_object().unwrap();
            assert_eq!(directive.keys().collect::<Vec<_>>(), ["Namespace", "Dimensions", "Metrics"]);
            let namespace = directive["Namespace"].as_str().unwrap();
            assert!((1..=1_024).contains(&namespace.len()));
            let sets = directive["Dimensions"].as_array().unwrap();
            assert_eq!(sets.len(), 1);
            let set = sets[0].as_array().unwrap();
            assert!((1..=30).contains(&set.len()));
            let dimensions: BTreeMap<_, _> = set
                .iter()
                .map(|name| {
                    let name = name.as_str().unwrap();
                    let value = root[name].as_str().expect("a dimension's target is a string");
                    assert!((1..=1_024).contains(&value.len()) && value.is_ascii());
                    (name.to_owned(), value.to_owned())
                })
                .collect();
            let metrics = directive["Metrics"].as_array().unwrap();
            assert!((1..=100).contains(&metrics.len()));
            for metric in metrics {
                let metric = metric.as_object().unwrap();
                assert_eq!(metric.keys().collect::<Vec<_>>(), ["Name", "Unit"]);
                let name = metric["Name"].as_str().unwrap();
                assert!(matches!(metric["Unit"].as_str(), Some("Count" | "Milliseconds" | "None")));
                let values = match &root[name] {
                    Value::Array(values) => {
                        assert!((1..=100).contains(&values.len()));
                        values.iter().map(|v| v.as_f64().unwrap()).collect()
                    }
                    value => vec![value.as_f64().expect("a metric's target is a number")],
                };
                declared.push((name.to_owned(), dimensions.clone(), values));
            }
        }
        let expected_members = 1 + declared.len() + declared[0].1.len();
        assert_eq!(root.len(), expected_members, "two metrics of one name would hide each other");
        declared
    }

    #[test]
    fn what_the_log_gets_is_what_cloudwatch_would_have_got() {
        let batch = batch();
        let lines = emf_lines(batch.at_ms, &batch.data);
        let sets: BTreeSet<_> = batch.data.iter().map(|d| d.dimensions.clone()).collect();
        assert_eq!(lines.len(), sets.len(), "one line per set of dimensions");
        let declared: Vec<_> = lines.iter().flat_map(|line| check(line)).collect();
        assert_eq!(declared.len(), batch.data.len());
        for datum in &batch.data {
            let dimensions: BTreeMap<_, _> =
                datum.dimensions.iter().map(|(k, v)| ((*k).to_owned(), v.clone())).collect();
            let (_, _, values) =
                declared.iter().find(|(name, set, _)| *name == datum.name && *set == dimensions).unwrap();
            let sent: f64 = datum.values.iter().zip(&datum.counts).map(|(v, c)| v * c).sum();
            assert_eq!(values.iter().sum::<f64>(), sent, "{}", datum.name);
            assert_eq!(values.len() as f64, datum.counts.iter().sum::<f64>(), "{}", datum.name);
        }
        insta::assert_snapshot!(lines.join("\n"));
    }

    #[test]
    fn more_samples_than_a_line_holds_go_to_further_lines() {
        let mut metrics = InvocationMetrics::new(0);
        for ms in 0..400 {
            metrics.sample_ms("a", Latency::JobLatency, ms % 40);
        }
        let batch = metrics.into_batch("s", 1);
        let mut samples: Vec<f64> = emf_lines(1, &batch.data)
            .iter()
            .flat_map(|line| check(line))
            .filter(|(name, set, _)| name == "JobLatency" && set.len() == 1)
            .flat_map(|(_, _, values)| values)
            .collect();
        samples.sort_by(f64::total_cmp);
        assert_eq!(samples.len(), 400);
        assert_eq!(samples.iter().sum::<f64>(), (0..400).map(|ms| f64::from(ms % 40)).sum::<f64>());
    }

    #[test]
    fn a_datum_keeps_its_values_counts_dimensions_and_unit() {
        let batch = batch();
        let latency = batch.data.iter().find(|d| d.name == "ModelLatency").unwrap();
        let datum = metric_datum(batch.at_ms, latency);
        assert_eq!(datum.metric_name(), Some("ModelLatency"));
        assert_eq!(datum.unit(), Some(&StandardUnit::Milliseconds));
        assert_eq!((datum.values(), datum.counts()), (&[900.0, 1_250.0][..], &[2.0, 1.0][..]));
        assert_eq!(datum.timestamp().and_then(|at| at.to_millis().ok()), Some(1_795_500_000_000));
        assert_eq!(datum.dimensions()[0].name(), Some("Stack"));
        assert_eq!(datum.dimensions()[0].value(), Some("prod"));
    }
}
