//! The alarms of a stack: which are raised.

use aws_sdk_cloudwatch::Client;
use aws_sdk_cloudwatch::types::StateValue;

use crate::error::{self, Failure};
use crate::stack::Stack;

/// The names of the alarms that are raised now.
pub async fn raised(stack: &Stack) -> Result<Vec<String>, Failure> {
    use aws_sdk_cloudwatch::types::AlarmType::{CompositeAlarm, MetricAlarm};
    let mut pages = Client::new(&stack.sdk)
        .describe_alarms()
        .alarm_name_prefix(format!("{}-", stack.prefix))
        .set_alarm_types(Some(vec![MetricAlarm, CompositeAlarm]))
        .state_value(StateValue::Alarm)
        .into_paginator()
        .send();
    let mut names = Vec::new();
    while let Some(page) = pages.next().await {
        let page = page.map_err(|e| error::of_aws("cloudwatch:DescribeAlarms", &e))?;
        let metric = page.metric_alarms().iter().filter(|alarm| !alarm.alarm_actions().is_empty());
        names.extend(metric.filter_map(|alarm| alarm.alarm_name().map(str::to_owned)));
        names
            .extend(page.composite_alarms().iter().filter_map(|alarm| alarm.alarm_name().map(str::to_owned)));
    }
    names.sort_unstable();
    names.dedup();
    Ok(names)
}
