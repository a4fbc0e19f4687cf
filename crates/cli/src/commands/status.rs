//! `status`: one screen of how the stack stands.

use std::collections::BTreeMap;
use std::time::Duration;

use aws_sdk_sqs::types::QueueAttributeName;
use clap::Args;
use nightshift_aws::DynamoLedger;
use nightshift_core::listing::{Order, Selection, Unsettled};
use nightshift_core::metric::NAMESPACE;
use nightshift_core::redrive::{DIRECTORY_KEY, Directory};
use nightshift_core::spend::UtcDay;
use nightshift_ports::{ControlRecord as _, Documents as _, LedgerReader as _, LedgerWatch as _};
use serde::Serialize;

use crate::Context;
use crate::alarms;
use crate::control::{self, Pause};
use crate::error::{self, Failure};
use crate::ledger::{self, Entries};
use crate::mapping::Mapping;
use crate::metrics;
use crate::render::{Cell, Row, say};
use crate::stack::Stack;
use crate::times;

/// The last hour.
const WINDOW_S: i64 = 3_600;
/// The sums are put together from values of five minutes each.
const PERIOD_S: i32 = 300;
/// Of what is to be as it is now, in seconds: each of these is published once a minute.
const NEWEST_S: i32 = 60;
/// Failures that are counted by reason, at most: a screen that is looked at again and again must stay cheap.
const FAILED_MAX: u64 = 5_000;
const DAY_MS: u64 = 24 * 3_600_000;
/// Between two looks of `--watch`: CloudWatch has a new point each minute.
const WATCH_EVERY: Duration = Duration::from_secs(15);

/// Shows how the stack stands.
#[derive(Debug, Args)]
#[command(after_help = "\
What cannot be read is said to be unknown, and the exit code tells why; the rest is shown all the same.

Examples:
  nightshift status
  nightshift status --watch
  nightshift status --output json | jq .jobs_waiting")]
pub struct Arguments {
    /// Look again each 15 seconds, until Ctrl-C.
    #[arg(long)]
    watch: bool,
}

pub async fn run(arguments: &Arguments, context: &Context) -> Result<(), Failure> {
    let stack = context.stack().await?;
    loop {
        let (status, unknown) = look(&stack).await;
        if arguments.watch {
            context.out.clear()?;
        }
        show(&status, context)?;
        if !arguments.watch {
            return match unknown {
                None => Ok(()),
                Some(first) => Err(first),
            };
        }
        tokio::time::sleep(WATCH_EVERY).await;
    }
}

/// How a stack stands; what could not be read is `None`.
#[derive(Debug, Default, Serialize)]
struct Status {
    stack: String,
    region: String,
    worker_version: String,
    /// Every cause that holds work back.
    pauses: Option<Vec<Pause>>,
    event_source: Option<String>,
    jobs_waiting: Option<u64>,
    jobs_in_flight: Option<u64>,
    oldest_job_s: Option<f64>,
    dead_letters_waiting: Option<u64>,
    crashed_waiting: Option<u64>,
    failed_by_reason: Option<BTreeMap<String, u64>>,
    failed_more: bool,
    reviews_waiting: Option<u64>,
    redrives_running: Option<Vec<String>>,
    spent_usd_today: Option<f64>,
    /// What was spent, and what workers hold for calls to come: the cap is for both.
    taken_usd_today: Option<f64>,
    cap_usd_per_day: Option<f64>,
    succeeded_last_hour: Option<f64>,
    dead_lettered_last_hour: Option<f64>,
    handed_back_last_hour: Option<f64>,
    cost_usd_last_hour: Option<f64>,
    alarms: Option<Vec<String>>,
}

#[derive(Serialize)]
struct Line {
    what: &'static str,
    now: String,
    /// A sender or an operator wrote part of it.
    #[serde(skip)]
    said: bool,
}

impl Row for Line {
    const COLUMNS: &'static [&'static str] = &["WHAT", "NOW"];

    fn cells(&self) -> Vec<Cell> {
        let now = if self.said { Cell::said(&*self.now) } else { Cell::ours(&self.now) };
        vec![Cell::ours(self.what), now]
    }
}

fn show(status: &Status, context: &Context) -> Result<(), Failure> {
    if context.out.is_json() {
        return context.out.document(status);
    }
    let number = |n: Option<u64>| n.map_or_else(|| "unknown".to_owned(), |n| n.to_string());
    let count = |n: Option<f64>| n.map_or_else(|| "unknown".to_owned(), |n| format!("{n:.0}"));
    let state = state(status.pauses.as_deref(), status.event_source.as_deref());
    let alarms = match &status.alarms {
        None => "unknown".to_owned(),
        Some(raised) if raised.is_empty() => "none raised".to_owned(),
        Some(raised) => {
            let page = |name: &String| {
                let page = name.strip_prefix(&format!("{}-", status.stack)).unwrap_or(name);
                format!("{name} (runbook/{page}.md)")
            };
            raised.iter().map(page).collect::<Vec<_>>().join(", ")
        }
    };
    let oldest = status.oldest_job_s.map_or_else(
        || "unknown".to_owned(),
        |seconds| {
            times::length(
                std::time::Duration::from_secs_f64(seconds.max(0.0))
                    .as_millis()
                    .try_into()
                    .unwrap_or(u64::MAX),
            )
        },
    );
    let reasons = match &status.failed_by_reason {
        None => "unknown".to_owned(),
        Some(reasons) if reasons.is_empty() => "none".to_owned(),
        Some(reasons) => {
            let counts = reasons.iter().map(|(reason, count)| format!("{reason} {count}"));
            let counts = counts.collect::<Vec<_>>().join(", ");
            if status.failed_more { format!("of the newest {FAILED_MAX}: {counts}") } else { counts }
        }
    };
    let line = |what, now| Line { what, now, said: false };
    context.out.all([
        line(
            "stack",
            format!("{} in {}, worker version {}", status.stack, status.region, status.worker_version),
        ),
        Line { what: "state", now: state, said: true },
        line("jobs waiting", number(status.jobs_waiting)),
        line("jobs in flight", number(status.jobs_in_flight)),
        line("oldest job", oldest),
        line("dead letters", number(status.dead_letters_waiting)),
        line("crashed", number(status.crashed_waiting)),
        line("failed, by reason", reasons),
        line("reviews waiting", number(status.reviews_waiting)),
        line("redrives running", redrives(status.redrives_running.as_deref())),
        line("spent today", money(status, times::now_ms())),
        line("succeeded, last hour", count(status.succeeded_last_hour)),
        line("dead letters, last hour", count(status.dead_lettered_last_hour)),
        line("success rate, last hour", rate(status.succeeded_last_hour, status.dead_lettered_last_hour)),
        line("handed back, last hour", count(status.handed_back_last_hour)),
        line(
            "model cost, last hour",
            status.cost_usd_last_hour.map_or_else(|| "unknown".to_owned(), |usd| format!("{usd:.4} USD")),
        ),
        line("alarms", alarms),
    ])
}

fn redrives(running: Option<&[String]>) -> String {
    match running {
        None => "unknown".to_owned(),
        Some([]) => "none".to_owned(),
        Some(ids) => format!("{} (`nightshift redrive watch ID`)", ids.join(", ")),
    }
}

/// Of what was settled for good.
fn rate(succeeded: Option<f64>, dead_lettered: Option<f64>) -> String {
    let (Some(succeeded), Some(dead)) = (succeeded, dead_lettered) else { return "unknown".to_owned() };
    if succeeded + dead > 0.0 {
        format!("{:.1} %", 100.0 * succeeded / (succeeded + dead))
    } else {
        "no job was settled".to_owned()
    }
}

/// The day's money, what open calls may still cost included, and when there is more. Under a cap that was lowered within the
/// day, what workers took ahead is for nobody.
fn money(status: &Status, now_ms: u64) -> String {
    let (Some(spent), Some(taken), Some(cap)) =
        (status.spent_usd_today, status.taken_usd_today, status.cap_usd_per_day)
    else {
        return "unknown".to_owned();
    };
    let said = format!("{spent:.4} of {cap:.2} USD");
    let is_over = taken > cap;
    if spent < cap && !is_over {
        return format!("{said}, {:.1} % left", 100.0 * (cap - spent) / cap);
    }
    let ahead = taken - spent;
    let why = if is_over && ahead > 0.0 {
        format!(" and {ahead:.4} taken ahead, more than the cap that was lowered")
    } else {
        String::new()
    };
    let midnight_ms = UtcDay::of(now_ms + DAY_MS).begins_ms();
    let wait = times::length(midnight_ms.saturating_sub(now_ms));
    format!("{said}{why}, nothing left for {wait} (midnight, UTC)")
}

/// Whether it works, and what holds it back.
fn state(pauses: Option<&[Pause]>, event_source: Option<&str>) -> String {
    match (pauses, event_source) {
        (None, _) | (_, None) => "unknown".to_owned(),
        (Some([]), Some("Enabled")) => "working".to_owned(),
        (Some([]), Some("Disabled")) => "paused: the event source is off, and nobody wrote why".to_owned(),
        (Some([]), Some(other)) => format!("changing: the event source is {other}"),
        (Some(pauses), _) => {
            let reopening = pauses.iter().all(|pause| pause.width.is_some());
            let lines: Vec<String> = pauses.iter().map(Pause::line).collect();
            format!("{}: {}", if reopening { "reopening" } else { "paused" }, lines.join("; "))
        }
    }
}

/// Everything that can be read, and the first reason why something could not.
async fn look(stack: &Stack) -> (Status, Option<Failure>) {
    let crashed_url = stack.crashed_url();
    let ledger = ledger::of(stack);
    let today = UtcDay::of(times::now_ms());
    let (paused, mapping, jobs, letters, crashed, failed, reviews, running, spent, numbers, alarms) = tokio::join!(
        ledger.control_now(),
        Mapping::find(stack),
        depth(stack, &stack.jobs_url),
        depth(stack, &stack.dead_letters_url),
        depth(stack, &crashed_url),
        failed(stack),
        reviews(stack),
        running(&ledger),
        ledger.spent(today),
        numbers(stack),
        alarms::raised(stack),
    );
    let mut unknown = None;
    let spent = known(spent.map_err(|e| error::of_port(&e)), &mut unknown);
    let jobs = known(jobs, &mut unknown);
    let waiting = |depth: Depth| depth.waiting + depth.in_flight;
    let numbers = known(numbers, &mut unknown).unwrap_or_default();
    let failed = known(failed, &mut unknown);
    let status = Status {
        failed_more: failed.as_ref().is_some_and(|(_, more)| *more),
        failed_by_reason: failed.map(|(reasons, _)| reasons),
        reviews_waiting: known(reviews, &mut unknown),
        redrives_running: known(running, &mut unknown),
        spent_usd_today: spent.map(|spent| usd(spent.committed_micro_usd)),
        taken_usd_today: spent.map(|spent| usd(spent.taken_micro_usd())),
        cap_usd_per_day: known(stack.worker(), &mut unknown)
            .map(|worker| usd(worker.limits.spend_cap_micro_usd)),
        stack: stack.prefix.clone(),
        region: stack.region.clone(),
        worker_version: stack.worker_version.clone(),
        pauses: known(paused.map_err(|e| error::of_port(&e)), &mut unknown)
            .map(|control| control::pauses(&control)),
        event_source: known(mapping, &mut unknown).map(|mapping| mapping.state),
        jobs_waiting: jobs.map(|depth| depth.waiting),
        jobs_in_flight: jobs.map(|depth| depth.in_flight),
        dead_letters_waiting: known(letters, &mut unknown).map(waiting),
        crashed_waiting: known(crashed, &mut unknown).map(waiting),
        oldest_job_s: numbers.oldest_job_s,
        succeeded_last_hour: numbers.succeeded,
        dead_lettered_last_hour: numbers.dead_lettered,
        handed_back_last_hour: numbers.handed_back,
        cost_usd_last_hour: numbers.cost_usd,
        alarms: known(alarms, &mut unknown),
    };
    (status, unknown)
}

/// What was read; otherwise a person is told, and the first failure is kept.
fn known<T>(read: Result<T, Failure>, unknown: &mut Option<Failure>) -> Option<T> {
    match read {
        Ok(value) => Some(value),
        Err(failure) => {
            // The first one ends the command with its sentence.
            if unknown.is_some() {
                say(failure.sentence().unwrap_or_default());
            } else {
                *unknown = Some(failure);
            }
            None
        }
    }
}

/// How many of the newest failures there are for each reason, and whether there are more.
async fn failed(stack: &Stack) -> Result<(BTreeMap<String, u64>, bool), Failure> {
    let reader = ledger::of(stack);
    let mut entries = Entries::new(&reader, Selection::all(Unsettled::Failed), Order::NewestFirst);
    let (mut reasons, mut seen) = (BTreeMap::new(), 0);
    while let Some(page) = entries.page().await? {
        for entry in page {
            if seen == FAILED_MAX {
                return Ok((reasons, true));
            }
            seen += 1;
            *reasons.entry(entry.reason.unwrap_or_else(|| "unknown".to_owned())).or_default() += 1;
        }
    }
    Ok((reasons, false))
}

fn usd(micro_usd: u64) -> f64 {
    micro_usd as f64 / 1e6
}

/// The redrives that are not known to be over.
async fn running(ledger: &DynamoLedger) -> Result<Vec<String>, Failure> {
    let Some(document) = ledger.read(DIRECTORY_KEY).await.map_err(|e| error::of_port(&e))? else {
        return Ok(Vec::new());
    };
    let directory = Directory::from_json(&document.json)
        .map_err(|fault| Failure::failed(format!("The directory of the redrives cannot be read: {fault}")))?;
    Ok(directory.unfinished().map(str::to_owned).collect())
}

async fn reviews(stack: &Stack) -> Result<u64, Failure> {
    let reader = ledger::of(stack);
    let (selection, mut waiting, mut after) = (Selection::all(Unsettled::NeedsReview), 0, None);
    loop {
        let page = reader.count(&selection, after.as_ref()).await.map_err(|e| error::of_port(&e))?;
        waiting += page.records;
        after = page.next;
        if after.is_none() {
            return Ok(waiting);
        }
    }
}

#[derive(Debug, Clone, Copy)]
struct Depth {
    waiting: u64,
    in_flight: u64,
}

async fn depth(stack: &Stack, queue_url: &str) -> Result<Depth, Failure> {
    use QueueAttributeName::{
        ApproximateNumberOfMessages as Visible, ApproximateNumberOfMessagesDelayed as Delayed,
        ApproximateNumberOfMessagesNotVisible as NotVisible,
    };
    let asked = aws_sdk_sqs::Client::new(&stack.sdk)
        .get_queue_attributes()
        .queue_url(queue_url)
        .set_attribute_names(Some(vec![Visible, Delayed, NotVisible]))
        .send()
        .await;
    let attributes =
        asked.map_err(|e| error::of_aws("sqs:GetQueueAttributes", &e))?.attributes.unwrap_or_default();
    let number = |name: &QueueAttributeName| attributes.get(name).and_then(|n| n.parse().ok()).unwrap_or(0);
    Ok(Depth { waiting: number(&Visible) + number(&Delayed), in_flight: number(&NotVisible) })
}

#[derive(Debug, Default)]
struct Numbers {
    succeeded: Option<f64>,
    dead_lettered: Option<f64>,
    handed_back: Option<f64>,
    cost_usd: Option<f64>,
    oldest_job_s: Option<f64>,
}

/// The sums of the last hour; a metric without data in it is 0.
async fn numbers(stack: &Stack) -> Result<Numbers, Failure> {
    let ours =
        |id, metric| metrics::query(id, NAMESPACE, metric, &[("Stack", &stack.prefix)], PERIOD_S, "Sum");
    let queue = ("QueueName", stack.jobs_queue());
    let age = "ApproximateAgeOfOldestMessage";
    let queries = vec![
        ours("succeeded", "JobsSucceeded"),
        ours("dead_lettered", "DeadLetters"),
        ours("handed_back", "JobsHandedBack"),
        ours("cost_usd", "CostUsd"),
        metrics::query("oldest", "AWS/SQS", age, &[queue], NEWEST_S, "Maximum"),
        // SQS's age leaves out what was received three times.
        metrics::query(
            "oldest_begun",
            NAMESPACE,
            "OldestJobAge",
            &[("Stack", &stack.prefix)],
            NEWEST_S,
            "Maximum",
        ),
    ];
    let now_s = i64::try_from(times::now_ms() / 1_000).unwrap_or_default();
    let counted = metrics::values(stack, queries, (now_s - WINDOW_S, now_s)).await?;
    let values = |id: &str| counted.get(id).map(Vec::as_slice).unwrap_or_default();
    // The newest point; a queue that nobody uses has none, and nothing waits in it.
    let newest = |id: &str| values(id).first().copied().unwrap_or_default();
    let sum = |id: &str| Some(metrics::sum(values(id).iter().copied()));
    Ok(Numbers {
        succeeded: sum("succeeded"),
        dead_lettered: sum("dead_lettered"),
        handed_back: sum("handed_back"),
        cost_usd: sum("cost_usd"),
        oldest_job_s: Some(newest("oldest").max(newest("oldest_begun"))),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn money_is_told_with_what_is_left_or_when_there_is_more() {
        let eight = 1_795_478_400_000 + 8 * 3_600_000;
        for (spent, ahead, cap, expected) in [
            (Some(0.0), 0.0, Some(50.0), "0.0000 of 50.00 USD, 100.0 % left"),
            (Some(40.0), 5.0, Some(50.0), "40.0000 of 50.00 USD, 20.0 % left"),
            (
                Some(40.0),
                5.0,
                Some(42.0),
                "40.0000 of 42.00 USD and 5.0000 taken ahead, more than the cap that was lowered, nothing left for 16 h (midnight, UTC)",
            ),
            (Some(49.9), 0.0, Some(50.0), "49.9000 of 50.00 USD, 0.2 % left"),
            (Some(50.0), 0.0, Some(50.0), "50.0000 of 50.00 USD, nothing left for 16 h (midnight, UTC)"),
            (Some(0.0), 0.0, Some(0.0), "0.0000 of 0.00 USD, nothing left for 16 h (midnight, UTC)"),
            (None, 0.0, Some(50.0), "unknown"),
            (Some(1.0), 0.0, None, "unknown"),
        ] {
            let status = Status {
                spent_usd_today: spent,
                taken_usd_today: spent.map(|spent| spent + ahead),
                cap_usd_per_day: cap,
                ..Status::default()
            };
            assert_eq!(money(&status, eight), expected);
        }
    }

    #[test]
    fn the_rate_is_of_what_was_settled() {
        for (succeeded, dead, expected) in [
            (Some(0.0), Some(0.0), "no job was settled"),
            (Some(999.0), Some(1.0), "99.9 %"),
            (Some(0.0), Some(1.0), "0.0 %"),
            (None, Some(1.0), "unknown"),
        ] {
            assert_eq!(rate(succeeded, dead), expected);
        }
    }
}
