//! What CloudWatch has counted.

use std::collections::HashMap;

use aws_sdk_cloudwatch::types::{Dimension, Metric, MetricDataQuery, MetricStat};
use aws_smithy_types::DateTime;

use crate::error::{self, Failure};
use crate::stack::Stack;

/// A question for one metric of these dimensions, a value for each period.
pub fn query(
    id: &str,
    namespace: &str,
    metric: &str,
    dimensions: &[(&str, &str)],
    period_s: i32,
    statistic: &str,
) -> MetricDataQuery {
    let dimensions = dimensions
        .iter()
        .map(|(name, value)| Dimension::builder().name(*name).value(*value).build())
        .collect();
    let metric =
        Metric::builder().namespace(namespace).metric_name(metric).set_dimensions(Some(dimensions)).build();
    let stat = MetricStat::builder().metric(metric).period(period_s).stat(statistic).build();
    MetricDataQuery::builder().id(id).metric_stat(stat).build()
}

/// Their sum, which is 0 of none: the standard library's is -0, and is shown so.
pub fn sum(values: impl IntoIterator<Item = f64>) -> f64 {
    values.into_iter().fold(0.0, |sum, value| sum + value)
}

/// The values of each question between two times in seconds since 1970, the newest first; by its id.
pub async fn values(
    stack: &Stack,
    queries: Vec<MetricDataQuery>,
    (from_s, until_s): (i64, i64),
) -> Result<HashMap<String, Vec<f64>>, Failure> {
    let got = aws_sdk_cloudwatch::Client::new(&stack.sdk)
        .get_metric_data()
        .set_metric_data_queries(Some(queries))
        .start_time(DateTime::from_secs(from_s))
        .end_time(DateTime::from_secs(until_s))
        .send()
        .await
        .map_err(|e| error::of_aws("cloudwatch:GetMetricData", &e))?;
    let mut values = HashMap::<String, Vec<f64>>::new();
    for result in got.metric_data_results() {
        values.entry(result.id().unwrap_or_default().to_owned()).or_default().extend(result.values());
    }
    Ok(values)
}
