//! The alarms of a stack.

use aws_sdk_cloudwatch::Client;
use aws_sdk_cloudwatch::types::AlarmType;
use nightshift_core::doctor::Alarm;

use crate::error::{self, Failure};
use crate::stack::Stack;

/// The names of the alarms that are raised now.
pub async fn raised(stack: &Stack) -> Result<Vec<String>, Failure> {
    let all = all(stack).await?.into_iter();
    let mut names: Vec<_> = all.filter(|alarm| alarm.raised).map(|alarm| alarm.name).collect();
    names.sort_unstable();
    Ok(names)
}

/// The stack's alarms, without the parts of composite ones. Another stack whose prefix begins like this one's has alarms
/// that begin so too; each alarm's description names its page, and its name is the prefix and the page.
pub async fn all(stack: &Stack) -> Result<Vec<Alarm>, Failure> {
    let mut pages = Client::new(&stack.sdk)
        .describe_alarms()
        .alarm_name_prefix(format!("{}-", stack.prefix))
        .set_alarm_types(Some(vec![AlarmType::MetricAlarm, AlarmType::CompositeAlarm]))
        .into_paginator()
        .send();
    let mut alarms = Vec::new();
    while let Some(page) = pages.next().await {
        let page = page.map_err(|e| error::of_aws("cloudwatch:DescribeAlarms", &e))?;
        let own = |name: Option<&str>, description: Option<&str>| {
            page_in(description.unwrap_or_default())
                .is_some_and(|page| name == Some(format!("{}-{page}", stack.prefix).as_str()))
        };
        let metric = page.metric_alarms().iter().filter(|a| own(a.alarm_name(), a.alarm_description()));
        alarms.extend(metric.map(|alarm| Alarm {
            name: alarm.alarm_name().unwrap_or_default().to_owned(),
            raised: alarm.state_value().is_some_and(|state| state.as_str() == "ALARM"),
            actions_on: alarm.actions_enabled().unwrap_or(true),
            actions: alarm.alarm_actions().to_vec(),
            actions_after: alarm.ok_actions().to_vec(),
        }));
        let composite = page.composite_alarms().iter().filter(|a| own(a.alarm_name(), a.alarm_description()));
        alarms.extend(composite.map(|alarm| Alarm {
            name: alarm.alarm_name().unwrap_or_default().to_owned(),
            raised: alarm.state_value().is_some_and(|state| state.as_str() == "ALARM"),
            actions_on: alarm.actions_enabled().unwrap_or(true),
            actions: alarm.alarm_actions().to_vec(),
            actions_after: alarm.ok_actions().to_vec(),
        }));
    }
    Ok(alarms)
}

/// The runbook page that an alarm's description names, in one of the two ways of `alarms.tf`.
fn page_in(description: &str) -> Option<&str> {
    let (_, named) = description.rsplit_once("Runbook: ")?;
    match named.strip_prefix("the page ") {
        Some(page) => page.split(' ').next(),
        None => named.strip_suffix(".md")?.rsplit('/').next(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_alarm_is_of_the_stack_whose_prefix_and_page_make_its_name() {
        for (description, page) in [
            (
                "Nothing moves. Runbook: the page no-progress in the folder runbook/ of the repository that this stack was deployed from.",
                Some("no-progress"),
            ),
            ("Nothing moves. Runbook: https://git.example/runbook/no-progress.md", Some("no-progress")),
            ("somebody else's", None),
        ] {
            assert_eq!(page_in(description), page);
        }
    }
}
