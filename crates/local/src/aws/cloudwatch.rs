//! CloudWatch: takes what `PutMetricData` publishes, checks it as CloudWatch does, and remembers it.

use std::collections::BTreeMap;
use std::io::Read;
use std::sync::{Mutex, PoisonError};

use serde::Deserialize;
use serde_json::Value as Json;

use super::cbor;
use crate::clock::now_ms;
use crate::http::{HttpRequest, HttpResponse};

/// Limits of one request (API Reference, "PutMetricData", and User Guide, "CloudWatch metrics quotas").
const METRICS_MAX: usize = 1000;
const REQUEST_BYTES_MAX: usize = 1024 * 1024;
const VALUES_MAX: usize = 150;
const DIMENSIONS_MAX: usize = 30;
/// A timestamp may lie two weeks back and two hours ahead (API Reference, "MetricDatum").
const PAST_S_MAX: f64 = 14.0 * 24.0 * 3600.0;
const FUTURE_S_MAX: f64 = 2.0 * 3600.0;
/// Samples that are remembered; beyond it the oldest requests' samples are dropped, so that a long run does not fill the memory.
const SAMPLES_MAX: usize = 1_000_000;

/// One published number with how often it occurred.
#[derive(Debug, Clone, PartialEq)]
pub struct Sample {
    /// Under which it was published; ours is `Nightshift`.
    pub namespace: String,
    /// Name of the metric.
    pub name: String,
    /// Dimensions, by name.
    pub dimensions: BTreeMap<String, String>,
    /// Unit, `None` if none was given.
    pub unit: Option<String>,
    /// The number itself.
    pub value: f64,
    /// How often it occurred.
    pub count: f64,
    /// Milliseconds since the epoch: the given timestamp, or when the request arrived.
    pub at_ms: i64,
}

#[derive(Debug, Default)]
pub(super) struct CloudWatch {
    samples: Mutex<Vec<Sample>>,
}

impl CloudWatch {
    pub(super) fn samples(&self) -> Vec<Sample> {
        self.samples.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    pub(super) fn handle(&self, action: &str, request: &HttpRequest) -> HttpResponse {
        let answer = match action {
            "PutMetricData" => self.put_metric_data(request),
            _ => Err(("InvalidAction", format!("{action} is not part of this stand-in for CloudWatch"))),
        };
        let speaks_cbor = request.header("smithy-protocol").is_some();
        match answer {
            Ok(()) if speaks_cbor => cbor_response(200, vec![0xa0]),
            Ok(()) => HttpResponse::new(200, "application/x-amz-json-1.0", "{}"),
            Err((code, message)) if speaks_cbor => cbor_response(400, cbor::error(code, &message)),
            Err((code, message)) => HttpResponse::new(
                400,
                "application/x-amz-json-1.0",
                serde_json::json!({ "__type": code, "message": message }).to_string(),
            ),
        }
    }

    fn put_metric_data(&self, request: &HttpRequest) -> Result<(), (&'static str, String)> {
        let invalid = |message: String| ("InvalidParameterValue", message);
        // The SDK compresses requests of 10 KiB and more.
        let mut unpacked = Vec::new();
        let body: &[u8] = match request.header("content-encoding") {
            Some("gzip") => {
                flate2::read::GzDecoder::new(&*request.body)
                    .take(REQUEST_BYTES_MAX as u64 + 1)
                    .read_to_end(&mut unpacked)
                    .map_err(|error| invalid(error.to_string()))?;
                &unpacked
            }
            _ => &request.body,
        };
        if body.len() > REQUEST_BYTES_MAX {
            return Err(("RequestEntityTooLarge", "The request is larger than 1 MB".to_owned()));
        }
        let json: Json = if request.header("smithy-protocol").is_some() {
            cbor::decode(body).map_err(invalid)?
        } else {
            serde_json::from_slice(body).map_err(|error| invalid(error.to_string()))?
        };
        let input: PutMetricData =
            serde_json::from_value(json).map_err(|error| invalid(error.to_string()))?;
        let mut samples = input.samples(now_ms()).map_err(invalid)?;
        let mut all = self.samples.lock().unwrap_or_else(PoisonError::into_inner);
        all.append(&mut samples);
        let surplus = all.len().saturating_sub(SAMPLES_MAX);
        all.drain(..surplus);
        Ok(())
    }
}

fn cbor_response(status: u16, body: Vec<u8>) -> HttpResponse {
    HttpResponse::new(status, "application/cbor", body).with_header("smithy-protocol", "rpc-v2-cbor")
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct PutMetricData {
    namespace: String,
    #[serde(default)]
    metric_data: Vec<MetricDatum>,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct MetricDatum {
    metric_name: String,
    #[serde(default)]
    dimensions: Vec<Dimension>,
    timestamp: Option<f64>,
    value: Option<f64>,
    values: Option<Vec<f64>>,
    counts: Option<Vec<f64>>,
    statistic_values: Option<Json>,
    unit: Option<String>,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Dimension {
    name: String,
    value: String,
}

impl PutMetricData {
    fn samples(self, now_ms: i64) -> Result<Vec<Sample>, String> {
        if self.namespace.is_empty() || self.namespace.starts_with("AWS/") {
            return Err("The value for parameter Namespace is invalid.".to_owned());
        }
        if !(1..=METRICS_MAX).contains(&self.metric_data.len()) {
            return Err(format!(
                "The collection MetricData must have between 1 and {METRICS_MAX} elements, not {}.",
                self.metric_data.len()
            ));
        }
        let mut samples = Vec::new();
        for datum in self.metric_data {
            samples.extend(datum.samples(&self.namespace, now_ms)?);
        }
        Ok(samples)
    }
}

impl MetricDatum {
    fn samples(self, namespace: &str, now_ms: i64) -> Result<Vec<Sample>, String> {
        let name = self.metric_name;
        let wrong = |what: &str| format!("{name}: {what}");
        if name.is_empty() || name.len() > 255 {
            return Err(wrong("the name must have 1 to 255 characters"));
        }
        if self.dimensions.len() > DIMENSIONS_MAX {
            return Err(wrong("more than 30 dimensions"));
        }
        if self.dimensions.iter().any(|dimension| dimension.name.is_empty() || dimension.value.is_empty()) {
            return Err(wrong("a dimension must have a name and a value"));
        }
        if self.statistic_values.is_some() {
            return Err(wrong("StatisticValues are not part of this stand-in for CloudWatch"));
        }
        if self.unit.as_deref().is_some_and(|unit| !UNITS.contains(&unit)) {
            return Err(wrong("unknown unit"));
        }
        let at_s = self.timestamp.unwrap_or(now_ms as f64 / 1000.0);
        let age_s = now_ms as f64 / 1000.0 - at_s;
        if !(-FUTURE_S_MAX..=PAST_S_MAX).contains(&age_s) {
            return Err(wrong("the timestamp must lie within two weeks before and two hours after now"));
        }
        let (values, counts) = match (self.value, self.values) {
            (Some(value), None) => (vec![value], vec![1.0]),
            (None, Some(values)) => {
                let counts = self.counts.unwrap_or_else(|| vec![1.0; values.len()]);
                (values, counts)
            }
            _ => return Err(wrong("exactly one of Value and Values is needed")),
        };
        if !(1..=VALUES_MAX).contains(&values.len()) || values.len() != counts.len() {
            return Err(wrong("needs 1 to 150 values, and as many counts"));
        }
        // A number beyond 2^360 is refused, as are NaN and infinities.
        if values.iter().chain(&counts).any(|number| !number.is_finite() || number.abs() > 2_f64.powi(360)) {
            return Err(wrong("a value is not a number that CloudWatch stores"));
        }
        let dimensions: BTreeMap<String, String> =
            self.dimensions.into_iter().map(|dimension| (dimension.name, dimension.value)).collect();
        Ok(values
            .into_iter()
            .zip(counts)
            .map(|(value, count)| Sample {
                namespace: namespace.to_owned(),
                name: name.clone(),
                dimensions: dimensions.clone(),
                unit: self.unit.clone(),
                value,
                count,
                at_ms: (at_s * 1000.0) as i64,
            })
            .collect())
    }
}

/// API Reference, "MetricDatum".
const UNITS: [&str; 27] = [
    "Seconds",
    "Microseconds",
    "Milliseconds",
    "Bytes",
    "Kilobytes",
    "Megabytes",
    "Gigabytes",
    "Terabytes",
    "Bits",
    "Kilobits",
    "Megabits",
    "Gigabits",
    "Terabits",
    "Percent",
    "Count",
    "Bytes/Second",
    "Kilobytes/Second",
    "Megabytes/Second",
    "Gigabytes/Second",
    "Terabytes/Second",
    "Bits/Second",
    "Kilobits/Second",
    "Megabits/Second",
    "Gigabits/Second",
    "Terabits/Second",
    "Count/Second",
    "None",
];
