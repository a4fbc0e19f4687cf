//! `doctor`: what is wrong with a stack, and what to do.

use std::time::Duration;

use clap::Args;
use nightshift_core::doctor::{Alarm, Facts, Finding, Page, Topic, findings};
use nightshift_ports::ControlRecord as _;
use serde::Serialize;

use crate::Context;
use crate::alarms;
use crate::clock;
use crate::confirm;
use crate::error::{self, Failure};
use crate::examine;
use crate::ledger;
use crate::render::{Cell, Row, say};
use crate::stack::Stack;
use crate::{caller, commands::key, onward, times, trace};

/// SNS's metrics come within five minutes ("Monitoring Amazon SNS topics using CloudWatch").
const DELIVERY_LOOKS_MAX: u32 = 30;
/// Between two of these looks.
const LOOK_EVERY: Duration = Duration::from_secs(10);

/// Says what is wrong with the stack, and what to do about each.
#[derive(Debug, Args)]
#[command(after_help = "\
It looks at the credentials and the clock here, at what is deployed, the event source, the queue, the model key, the \
account's quota, the alarms and who is told by them; nothing is changed. The exit code is 3 where it finds something.
--call makes one smallest model call, --page raises one alarm on purpose; both say first what they will do, and ask.

Examples:
  nightshift doctor
  nightshift doctor --output json | jq -r 'select(.severity == \"fault\") | .remedy'
  nightshift doctor --call
  nightshift doctor --page --reason 'new pager'")]
pub struct Arguments {
    /// Also ask the provider, by one call, whether it accepts the key and the model; it reads the key.
    #[arg(long)]
    call: bool,
    /// Also raise one alarm, and see whether SNS delivers it.
    #[arg(long, requires = "reason")]
    page: bool,
    /// Why the alarm is raised, for whoever reads the trace.
    #[arg(long, value_name = "TEXT", value_parser = confirm::reason, requires = "page")]
    reason: Option<String>,
    /// Do not ask before the call and the alarm.
    #[arg(long)]
    yes: bool,
}

#[derive(Serialize)]
#[serde(transparent)]
struct Found(Finding);

impl Row for Found {
    const COLUMNS: &'static [&'static str] = &["SEVERITY", "FINDING", "WHAT", "REMEDY"];

    fn cells(&self) -> Vec<Cell> {
        let Self(found) = self;
        vec![
            Cell::ours(found.severity.as_str()),
            Cell::ours(found.code),
            Cell::said(&*found.what),
            Cell::said(&*found.remedy),
        ]
    }
}

pub async fn run(arguments: &Arguments, context: &Context) -> Result<(), Failure> {
    let stack = context.stack().await?;
    let caller = caller::of(&stack).await?;
    say(&format!("Looks at {} in account {} as {}.", stack.named(), caller.account, caller.arn));
    let mut unseen = Vec::new();
    let (mut facts, told) = look(&stack, &mut unseen).await;
    if arguments.call {
        facts.refusal = key::refusal(&stack, arguments.yes).await?;
    }
    if let (true, Some(reason)) = (arguments.page, &arguments.reason) {
        facts.page = Some(page(&stack, &facts, &told, reason, arguments.yes, context).await?);
    }
    let mut found = findings(&facts);
    found.extend(unseen.iter().map(|failure| {
        let sentence = failure.sentence().unwrap_or_default();
        let (what, remedy) = sentence.split_once(": ").unwrap_or((sentence, "try again"));
        Finding::warning("not_looked_at", what, remedy)
    }));
    let left_out: Vec<_> = [
        (
            built_at_ms() == 0,
            "whether what is deployed is older than this build, which was made without git's history",
        ),
        (!arguments.call, "whether the provider accepts the key now (--call)"),
        (!arguments.page, "whether an alarm reaches anybody (--page)"),
    ]
    .iter()
    .filter_map(|(is_so, what)| is_so.then_some(*what))
    .collect();
    if !left_out.is_empty() {
        say(&format!("Not looked at: {}.", left_out.join(", ")));
    }
    let count = found.len();
    if count == 0 {
        say("Nothing is wrong.");
        return if context.out.is_json() { context.out.all(Vec::<Found>::new()) } else { Ok(()) };
    }
    let complete = |found: Finding| Found(Finding { remedy: onward::complete(&found.remedy), ..found });
    context.out.before_verdict().all(found.into_iter().map(complete))?;
    let findings = if count == 1 { "finding" } else { "findings" };
    Err(Failure::no(format!("{count} {findings}: each says what to do.")))
}

/// How old this build's source is, as `build.rs` says; 0 where nobody knows.
fn built_at_ms() -> u64 {
    option_env!("NIGHTSHIFT_BUILT_AT_MS").and_then(|told| told.parse().ok()).unwrap_or_default()
}

/// Keeps why something could not be read.
fn seen<T>(read: Result<T, Failure>, unseen: &mut Vec<Failure>) -> Option<T> {
    read.map_err(|failure| unseen.push(failure)).ok()
}

/// All that can be read, and who is told by each topic.
async fn look(stack: &Stack, unseen: &mut Vec<Failure>) -> (Facts, Vec<(String, Vec<String>)>) {
    let read = stack.worker();
    let provider = read.as_ref().ok().map(|worker| worker.model.provider.clone());
    let key = async {
        match &provider {
            Some(provider) => examine::key(stack, provider).await,
            None => Ok(None),
        }
    };
    let intake = async {
        let (queue, arn) = examine::queue(stack).await?;
        Ok((queue, examine::sources(stack, &arn).await))
    };
    let ledger = ledger::of(stack);
    let (clock, worker, executions, intake, key, failures, alarms, paused) = tokio::join!(
        clock::ahead_ms(stack),
        examine::worker(stack),
        examine::executions(stack),
        intake,
        key,
        examine::account_failures(stack),
        alarms::all(stack),
        ledger.control_now(),
    );
    let (queue, sources) = match seen(intake, unseen) {
        Some((queue, sources)) => (Some(queue), seen(sources, unseen)),
        None => (None, None),
    };
    let alarms = seen(alarms, unseen);
    let actions = alarms.iter().flatten().flat_map(|alarm| &alarm.actions);
    let mut arns: Vec<_> = actions.filter(|action| action.contains(":sns:")).collect();
    arns.sort_unstable();
    arns.dedup();
    let (mut topics, mut told) = (Vec::<Topic>::new(), Vec::new());
    for arn in arns {
        if let Some((topic, addresses)) = seen(examine::topic(stack, arn).await, unseen) {
            topics.push(topic);
            told.push((arn.clone(), addresses));
        }
    }
    let facts = Facts {
        stack: stack.prefix.clone(),
        built_at_ms: built_at_ms(),
        clock_ahead_ms: seen(clock, unseen).flatten(),
        limits: Some(
            read.map(|worker| worker.limits)
                .map_err(|failure| failure.sentence().unwrap_or_default().to_owned()),
        ),
        worker: seen(worker, unseen),
        executions: seen(executions, unseen),
        sources,
        paused: seen(paused.map_err(|e| error::of_port(&e)), unseen)
            .map(|control| control.in_old_form().map(|(why, _)| why)),
        queue,
        key: seen(key, unseen).flatten(),
        account_failures: seen(failures, unseen),
        refusal: None,
        alarms,
        topics: Some(topics),
        page: None,
    };
    (facts, told)
}

/// Raises one alarm, after saying whom it will tell, and waits for what SNS counts.
async fn page(
    stack: &Stack,
    facts: &Facts,
    told: &[(String, Vec<String>)],
    reason: &str,
    yes: bool,
    context: &Context,
) -> Result<Page, Failure> {
    let urgent = format!(":{}-page", stack.prefix);
    let quiet = facts.alarms.iter().flatten().filter(|alarm| alarm.actions_on && !alarm.raised);
    let mut ways =
        quiet.filter_map(|alarm| Some((alarm, alarm.actions.iter().find(|a| a.ends_with(&urgent))?)));
    let (alarm, topic) = ways.next().ok_or_else(|| {
        Failure::failed("There is no alarm to raise: none that is quiet now tells the topic of pages. See the findings without --page.")
    })?;
    let addresses =
        told.iter().find(|(arn, _)| arn == topic).map(|(_, told)| told.as_slice()).unwrap_or_default();
    let others = alarm.actions.len().saturating_sub(1);
    confirm::ask(
        yes,
        &format!(
            "Raises the alarm {} for a minute or so. It tells: {}{}.",
            alarm.name,
            if addresses.is_empty() { "nobody".to_owned() } else { addresses.join(", ") },
            if others > 0 { format!(", and {others} further actions") } else { String::new() },
        ),
    )
    .await?;
    context
        .interrupt
        .leaves("the alarm may be raised, and CloudWatch takes it back with its next evaluation");
    let name = topic.rsplit(':').next().unwrap_or(topic).to_owned();
    let trace = trace::begin(stack, &format!("doctor --page {}", alarm.name), reason).await?;
    let expected = addresses.len().try_into().unwrap_or(u32::MAX);
    let page = Page { topic: name, expected, delivered: 0 };
    let ended = raise(stack, alarm, reason, page, alarm.actions_after.contains(topic)).await;
    let outcome = ended.as_ref().map(|page| format!("delivered to {} of {}", page.delivered, page.expected));
    trace.end(&outcome.map_err(Clone::clone)).await;
    let page = ended?;
    let mail = if addresses.iter().any(|address| address.starts_with("email")) {
        " A mail counts as delivered when it is handed over: ask whether it came."
    } else {
        ""
    };
    say(&format!(
        "SNS counts {} of {} subscribers of {} as reached.{mail}",
        page.delivered, page.expected, page.topic
    ));
    Ok(page)
}

/// `tells_after`: the topic is told of the alarm's end as well, which CloudWatch sees with its next evaluation.
async fn raise(
    stack: &Stack,
    alarm: &Alarm,
    reason: &str,
    mut page: Page,
    tells_after: bool,
) -> Result<Page, Failure> {
    let since_s = i64::try_from(times::now_ms() / 60_000 * 60).unwrap_or_default();
    let topic = page.topic.clone();
    let delivered =
        || examine::sum(stack, "AWS/SNS", "NumberOfNotificationsDelivered", ("TopicName", &topic), since_s);
    // What else was told in this minute is none of ours.
    let before = delivered().await?;
    let raised = aws_sdk_cloudwatch::Client::new(&stack.sdk)
        .set_alarm_state()
        .alarm_name(&alarm.name)
        .state_value(aws_sdk_cloudwatch::types::StateValue::Alarm)
        .state_reason(format!("nightshift doctor --page: {reason}"))
        .send()
        .await;
    raised.map_err(|e| error::of_aws("cloudwatch:SetAlarmState", &e))?;
    for look in 1..=DELIVERY_LOOKS_MAX {
        let since = delivered().await?.saturating_sub(before);
        // Read after the deliveries: an alarm that is still raised has told of nothing but that, and whoever was told of its
        // end as well counts twice.
        let times = if tells_after && !is_raised(stack, &alarm.name).await? { 2 } else { 1 };
        page.delivered = u32::try_from(since / times).unwrap_or(u32::MAX).min(page.expected);
        if page.delivered >= page.expected || look == DELIVERY_LOOKS_MAX {
            break;
        }
        tokio::time::sleep(LOOK_EVERY).await;
    }
    Ok(page)
}

async fn is_raised(stack: &Stack, name: &str) -> Result<bool, Failure> {
    Ok(alarms::all(stack).await?.iter().any(|alarm| alarm.name == name && alarm.raised))
}
