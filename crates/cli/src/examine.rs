//! What AWS says of a stack, for `doctor`: it asks, and `nightshift_core::doctor` judges; and for `load-test`, the limits that
//! a load meets.

use aws_sdk_sqs::types::QueueAttributeName as Attribute;
use nightshift_core::doctor::{EventSource, Executions, Function, Key, Queue, Topic};
use nightshift_core::limits::Limits;
use nightshift_core::metric::NAMESPACE;
use nightshift_shell::settings::{KeySettings, ProviderSettings};
use serde_json::Value;

use crate::error::{self, Failure};
use crate::metrics;
use crate::stack::Stack;
use crate::times;

/// An hour.
const WINDOW_S: i64 = 3_600;

/// The worker's function.
pub async fn worker(stack: &Stack) -> Result<Function, Failure> {
    let name = stack.worker_function();
    let client = aws_sdk_lambda::Client::new(&stack.sdk);
    let live = client.get_function().function_name(&name).qualifier("live").send().await;
    let live = live.map_err(|e| error::of_aws("lambda:GetFunction", &e))?;
    let mut newest = 0;
    let mut pages = client.list_versions_by_function().function_name(&name).into_paginator().send();
    while let Some(page) = pages.next().await {
        let page = page.map_err(|e| error::of_aws("lambda:ListVersionsByFunction", &e))?;
        // One of them is `$LATEST`, which is no number.
        let versions = page.versions().iter().filter_map(|version| version.version()?.parse::<u64>().ok());
        newest = versions.fold(newest, u64::max);
    }
    let configuration = live.configuration();
    let deployed = configuration.and_then(|configuration| configuration.last_modified());
    let deployed = deployed.and_then(|at| at.parse::<jiff::Timestamp>().ok().or_else(|| lambda_time(at)));
    let said = |name: &str| stack.environment.get(name).cloned().unwrap_or_default();
    Ok(Function {
        live: stack.worker_version.parse().unwrap_or_default(),
        newest,
        deployed_at_ms: deployed.and_then(|at| at.as_millisecond().try_into().ok()).unwrap_or(u64::MAX),
        timeout_ms: u64::from(configuration.and_then(|c| c.timeout()).unwrap_or_default().unsigned_abs())
            * 1_000,
        says_stack: said("NIGHTSHIFT_STACK"),
        ledger: stack.ledger_table.clone(),
        reserved: live.concurrency().and_then(|c| c.reserved_concurrent_executions()).map(i32::unsigned_abs),
    })
}

/// Lambda writes an offset without a colon (GetFunctionConfiguration, "LastModified": `YYYY-MM-DDThh:mm:ss.sTZD`).
fn lambda_time(at: &str) -> Option<jiff::Timestamp> {
    jiff::fmt::strtime::parse("%Y-%m-%dT%H:%M:%S%.f%z", at).ok()?.to_timestamp().ok()
}

/// How much may run at once in the account.
pub async fn executions(stack: &Stack) -> Result<Executions, Failure> {
    let asked = aws_sdk_lambda::Client::new(&stack.sdk).get_account_settings().send().await;
    let asked = asked.map_err(|e| error::of_aws("lambda:GetAccountSettings", &e))?;
    let limit = asked.account_limit();
    Ok(Executions {
        all: limit.map(|limit| limit.concurrent_executions()).unwrap_or_default().unsigned_abs(),
        unreserved: limit
            .and_then(|limit| limit.unreserved_concurrent_executions())
            .unwrap_or_default()
            .unsigned_abs(),
    })
}

/// What takes messages from the jobs queue.
pub async fn sources(stack: &Stack, queue_arn: &str) -> Result<Vec<EventSource>, Failure> {
    let client = aws_sdk_lambda::Client::new(&stack.sdk);
    let mut pages = client.list_event_source_mappings().event_source_arn(queue_arn).into_paginator().send();
    let mut sources = Vec::new();
    while let Some(page) = pages.next().await {
        let page = page.map_err(|e| error::of_aws("lambda:ListEventSourceMappings", &e))?;
        sources.extend(page.event_source_mappings().iter().map(|mapping| {
            let problem = mapping.last_processing_result().filter(|said| said.starts_with("PROBLEM"));
            EventSource {
                function: mapping.function_arn().unwrap_or_default().to_owned(),
                state: mapping.state().unwrap_or_default().to_owned(),
                batch_size: mapping.batch_size().unwrap_or_default().unsigned_abs(),
                concurrency_max: mapping
                    .scaling_config()
                    .and_then(|scaling| scaling.maximum_concurrency())
                    .unwrap_or_default()
                    .unsigned_abs(),
                reports_failures: mapping
                    .function_response_types()
                    .iter()
                    .any(|kind| kind.as_str() == "ReportBatchItemFailures"),
                problem: problem.map(str::to_owned),
            }
        }));
    }
    Ok(sources)
}

/// The jobs queue's settings, and its ARN.
pub async fn queue(stack: &Stack) -> Result<(Queue, String), Failure> {
    let wanted = [
        Attribute::VisibilityTimeout,
        Attribute::MessageRetentionPeriod,
        Attribute::RedrivePolicy,
        Attribute::QueueArn,
    ];
    let asked = aws_sdk_sqs::Client::new(&stack.sdk)
        .get_queue_attributes()
        .queue_url(&stack.jobs_url)
        .set_attribute_names(Some(wanted.to_vec()))
        .send()
        .await;
    let attributes =
        asked.map_err(|e| error::of_aws("sqs:GetQueueAttributes", &e))?.attributes.unwrap_or_default();
    let text = |name: &Attribute| attributes.get(name).map(String::as_str).unwrap_or_default();
    let ms = |name: &Attribute| text(name).parse::<u64>().unwrap_or_default() * 1_000;
    let policy: Value = serde_json::from_str(text(&Attribute::RedrivePolicy)).unwrap_or_default();
    let member = |name: &str| policy.get(name).cloned().unwrap_or_default();
    // A number, or one within a text: both are accepted, and given back as they were set.
    let receives = member("maxReceiveCount");
    let receives = receives.as_u64().or_else(|| receives.as_str()?.parse().ok()).unwrap_or_default();
    let target = member("deadLetterTargetArn");
    let queue = Queue {
        visibility_ms: ms(&Attribute::VisibilityTimeout),
        retention_ms: ms(&Attribute::MessageRetentionPeriod),
        receive_count_max: receives.try_into().unwrap_or(u32::MAX),
        gives_up_to: target.as_str().and_then(|arn| arn.rsplit(':').next()).unwrap_or_default().to_owned(),
    };
    Ok((queue, text(&Attribute::QueueArn).to_owned()))
}

/// What the worker is told, but for what the queue and the event source say themselves: somebody may have changed those by
/// hand, and a load meets them as they are.
pub async fn limits(stack: &Stack, told: &Limits) -> Result<Limits, Failure> {
    let (queue, arn) = queue(stack).await?;
    let own = format!(":function:{}:live", stack.worker_function());
    let sources = sources(stack, &arn).await?;
    let source = sources.into_iter().find(|source| source.function.ends_with(&own)).unwrap_or_default();
    // An event source without a number of its own has none that could be compared.
    let or = |is: u32, told: u32| if is == 0 { told } else { is };
    let runs_at_once = runs_at_once(stack).await?;
    Ok(Limits {
        visibility_timeout_ms: queue.visibility_ms,
        batch_size: or(source.batch_size, told.batch_size),
        concurrency_max: or(source.concurrency_max, told.concurrency_max).min(runs_at_once),
        ..told.clone()
    })
}

/// How many of the worker may run at once for all that its event source says: what is reserved for it, or else what nobody
/// has reserved in the account.
async fn runs_at_once(stack: &Stack) -> Result<u32, Failure> {
    let (function, executions) = tokio::try_join!(worker(stack), executions(stack))?;
    // No account has none.
    let unreserved = Some(executions.unreserved).filter(|unreserved| *unreserved > 0);
    Ok(function.reserved.or(unreserved).unwrap_or(u32::MAX))
}

/// Whether the model key is there; `None`: none is needed, or operators may not see it (a parameter).
pub async fn key(stack: &Stack, provider: &ProviderSettings) -> Result<Option<Key>, Failure> {
    let Some(KeySettings::Secret(id)) = provider.key() else { return Ok(None) };
    let asked = aws_sdk_secretsmanager::Client::new(&stack.sdk).describe_secret().secret_id(id).send().await;
    let asked = asked.map_err(|e| error::of_aws("secretsmanager:DescribeSecret", &e))?;
    let is_set = asked.version_ids_to_stages().is_some_and(|versions| !versions.is_empty());
    Ok(Some(Key { place: format!("secret {id}"), is_set }))
}

/// How often the provider refused the account within the last hour.
pub async fn account_failures(stack: &Stack) -> Result<u64, Failure> {
    let since_s = i64::try_from(times::now_ms() / 1_000).unwrap_or_default() - WINDOW_S;
    sum(stack, NAMESPACE, "AccountFailures", ("Stack", &stack.prefix), since_s).await
}

/// The sum of a metric since a time, in seconds since 1970.
pub async fn sum(
    stack: &Stack,
    namespace: &str,
    metric: &str,
    dimension: (&str, &str),
    since_s: i64,
) -> Result<u64, Failure> {
    let query = metrics::query("sum", namespace, metric, &[dimension], 60, "Sum");
    let now_s = i64::try_from(times::now_ms() / 1_000).unwrap_or_default();
    let counted = metrics::values(stack, vec![query], (since_s, now_s + 60)).await?;
    Ok(metrics::sum(counted.into_values().flatten()) as u64)
}

/// Those whom a topic tells, and their addresses.
pub async fn topic(stack: &Stack, arn: &str) -> Result<(Topic, Vec<String>), Failure> {
    let client = aws_sdk_sns::Client::new(&stack.sdk);
    let mut pages = client.list_subscriptions_by_topic().topic_arn(arn).into_paginator().send();
    let mut topic = Topic { arn: arn.to_owned(), ..Topic::default() };
    let mut told = Vec::new();
    while let Some(page) = pages.next().await {
        let page = page.map_err(|e| error::of_aws("sns:ListSubscriptionsByTopic", &e))?;
        for subscription in page.subscriptions() {
            let address = subscription.endpoint().unwrap_or_default().to_owned();
            // "PendingConfirmation" stands where the ARN would (SNS API Reference, ListSubscriptionsByTopic).
            match subscription.subscription_arn().unwrap_or_default() {
                arn if arn.starts_with("arn:") => {
                    topic.confirmed += 1;
                    told.push(format!("{} {address}", subscription.protocol().unwrap_or_default()));
                }
                "PendingConfirmation" => topic.pending.push(address),
                _ => {}
            }
        }
    }
    Ok((topic, told))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_time_of_a_deploy_is_read_as_lambda_writes_it() {
        assert_eq!(lambda_time("2026-11-26T10:00:00.000+0000").unwrap().as_second(), 1_795_687_200);
    }
}
