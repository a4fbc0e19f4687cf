//! The alarms of a stack: which are raised, and those that a pause would raise, whose notifications go off with it and on
//! again with its end.

use aws_sdk_cloudwatch::Client;
use aws_sdk_cloudwatch::types::StateValue;

use crate::error::{self, Failure};
use crate::stack::Stack;

/// A stack that is paused makes no progress and its jobs grow old, which is meant and calls nobody.
const RAISED_BY_A_PAUSE: [&str; 2] = ["no-progress", "oldest-job-too-old"];

/// Lets these alarms notify, or not.
pub async fn let_notify(stack: &Stack, on: bool) -> Result<(), Failure> {
    let client = Client::new(&stack.sdk);
    let names = Some(RAISED_BY_A_PAUSE.map(|page| format!("{}-{page}", stack.prefix)).to_vec());
    if on {
        let enabled = client.enable_alarm_actions().set_alarm_names(names).send().await;
        enabled.map(drop).map_err(|e| error::of_aws("cloudwatch:EnableAlarmActions", &e))
    } else {
        let disabled = client.disable_alarm_actions().set_alarm_names(names).send().await;
        disabled.map(drop).map_err(|e| error::of_aws("cloudwatch:DisableAlarmActions", &e))
    }
}

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
