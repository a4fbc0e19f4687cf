//! What CloudWatch has counted.

use std::collections::HashMap;

use aws_sdk_cloudwatch::types::{Dimension, Metric, MetricDataQuery, MetricStat};
use aws_smithy_types::DateTime;

use crate::error::{self, Failure};
use crate::stack::Stack;

/// A question for one metric of one dimension, a value for each period.
pub fn query(
    id: &str,
    namespace: &str,
    metric: &str,
    (dimension, value): (&str, &str),
    period_s: i32,
    statistic: &str,
) -> MetricDataQuery {
    let dimension = Dimension::builder().name(dimension).value(value).build();
    let metric = Metric::builder().namespace(namespace).metric_name(metric).dimensions(dimension).build();
    let stat = MetricStat::builder().metric(metric).period(period_s).stat(statistic).build();
    MetricDataQuery::builder().id(id).metric_stat(stat).build()
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
