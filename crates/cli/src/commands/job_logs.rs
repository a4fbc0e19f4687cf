//! `jobs logs`: what the worker's log says of one job.

use clap::Args;
use nightshift_core::input_hash::InputHash;
use serde::Serialize;
use serde_json::Value;

use crate::Context;
use crate::error::{self, Failure};
use crate::ledger;
use crate::render::{Cell, Row};
use crate::times;

/// What is looked through by default.
const SINCE: &str = "7d";
/// More lines are more than one job makes in its retention, and than anybody reads.
const LINES_MAX: usize = 10_000;

/// Which job, and since when.
#[derive(Debug, Args)]
pub struct Arguments {
    /// The key of its record: the input hash.
    #[arg(value_parser = ledger::key)]
    key: InputHash,
    /// Lines of this time or later.
    #[arg(long, value_name = "TIME", value_parser = times::argument, default_value = SINCE)]
    since: u64,
}

#[derive(Serialize)]
struct Line {
    at: String,
    level: String,
    said: Value,
}

impl Row for Line {
    const COLUMNS: &'static [&'static str] = &["AT", "LEVEL", "SAID"];

    fn cells(&self) -> Vec<Cell> {
        let said = self.said.as_str().map_or_else(|| self.said.to_string(), str::to_owned);
        vec![Cell::ours(&self.at), Cell::said(&*self.level), Cell::said(said)]
    }
}

pub async fn run(arguments: &Arguments, context: &Context) -> Result<(), Failure> {
    let stack = context.stack().await?;
    let group = format!("/aws/lambda/{}", stack.worker_function());
    let mut pages = aws_sdk_cloudwatchlogs::Client::new(&stack.sdk)
        .filter_log_events()
        .log_group_name(&group)
        // A quoted term: each line of a job has its key, and a key is in no other.
        .filter_pattern(format!("\"{}\"", arguments.key))
        .start_time(i64::try_from(arguments.since).unwrap_or(i64::MAX))
        .into_paginator()
        .send();
    let (mut rows, mut count) = (context.out.rows(), 0_usize);
    while let Some(page) = pages.next().await {
        let page = page.map_err(|e| error::of_aws("logs:FilterLogEvents", &e))?;
        for event in page.events() {
            count += 1;
            if count > LINES_MAX {
                rows.end()?;
                return Err(Failure::failed(format!(
                    "Only the first {LINES_MAX} lines are shown: ask with a later --since."
                )));
            }
            rows.write(&line(event.timestamp().unwrap_or_default(), event.message().unwrap_or_default()))?;
        }
    }
    if count == 0 {
        return Err(Failure::not_found(format!(
            "No line of {group} since {} has this key: ask with an earlier --since, or look with `nightshift jobs show`.",
            times::shown(arguments.since)
        )));
    }
    rows.end()
}

fn line(at_ms: i64, message: &str) -> Line {
    let said: Value = serde_json::from_str(message).unwrap_or_else(|_| Value::from(message.trim_end()));
    let level = said.get("level").and_then(Value::as_str).unwrap_or_default().to_owned();
    Line { at: times::shown(u64::try_from(at_ms).unwrap_or_default()), level, said }
}
