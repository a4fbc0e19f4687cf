//! `task list`, `schema`, `check` (and `try`, which has a file of its own): the kinds of work, and whether inputs are what they ask for.

use clap::{Args, Subcommand};
use nightshift_core::cost::Price;
use nightshift_core::job;
use nightshift_core::limits::Limits;
use nightshift_core::ready::ready;
use nightshift_core::task::Tasks;
use serde::Serialize;

use crate::Context;
use crate::commands::enqueue::UNREADABLE;
use crate::commands::task_try;
use crate::error::Failure;
use crate::jobs_file::Source;
use crate::render::{Cell, Row, say};
use crate::text::{agreeing, counted};

/// The kinds of work.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// The tasks of this build.
    #[command(after_help = "\
Examples:
  nightshift task list
  nightshift task list --output json | jq -r .name")]
    List,
    /// The JSON Schemas of a task's input and output, with an example.
    #[command(after_help = "\
Examples:
  nightshift task schema categorize_ticket
  nightshift task schema categorize_ticket | jq .input_schema")]
    Schema(SchemaArguments),
    /// Checks jobs, or inputs of one task, as the worker would; nothing is sent, and no model is called.
    #[command(after_help = "\
Lists by line number what would become a dead letter at once, and what holds no job that could be sent (`unreadable`); the \
exit code is 3 where there is any.

Examples:
  nightshift task check jobs.jsonl
  nightshift task check --task categorize_ticket --map text=Body tickets.csv")]
    Check(CheckArguments),
    /// Tries jobs, or inputs of one task, on a model now: prompt, answer, violations, tokens and cost of each.
    #[command(after_help = "\
It asks and judges as the worker does, with the model and the limits of the stack, and stores nothing; its calls are in \
no metric and in no cap but its own. The key is read for it, which the policy of operators does not allow. Another build \
runs without AWS credentials, and is handed the model key in its environment.

Examples:
  nightshift task try --provider rehearsal --task categorize_ticket inputs.jsonl
  nightshift task try --provider server --base-url http://127.0.0.1:8080/v1 --model smollm2 jobs.jsonl
  nightshift task try jobs.jsonl --cap 0.50 --least 95%
  nightshift task try jobs.jsonl --against model:claude-sonnet-4-5
  nightshift task try jobs.jsonl --against build:../before/target/release/nightshift
  nightshift task try jobs.jsonl --against file:expected.jsonl --least 100%")]
    Try(Box<task_try::Arguments>),
}

/// Which task.
#[derive(Debug, Args)]
pub struct SchemaArguments {
    /// The task's name.
    name: String,
}

/// What to check.
#[derive(Debug, Args)]
pub struct CheckArguments {
    #[command(flatten)]
    source: Source,
}

#[derive(Debug, Serialize)]
struct Listed {
    name: &'static str,
    output_tokens_max: u32,
    fingerprint: String,
}

impl Row for Listed {
    const COLUMNS: &'static [&'static str] = &["TASK", "OUTPUT TOKENS MAX", "FINGERPRINT"];

    fn cells(&self) -> Vec<Cell> {
        let short = self.fingerprint.get(..16).unwrap_or(&self.fingerprint);
        vec![Cell::ours(self.name), Cell::ours(self.output_tokens_max), Cell::ours(short)]
    }
}

#[derive(Debug, Serialize)]
struct Schemas {
    task: String,
    input_schema: serde_json::Value,
    output_schema: serde_json::Value,
    example_job: serde_json::Value,
    example_output: serde_json::Value,
}

#[derive(Debug, Serialize)]
struct BadLine {
    line: u64,
    reason: String,
    detail: String,
}

impl Row for BadLine {
    const COLUMNS: &'static [&'static str] = &["LINE", "REASON", "DETAIL"];

    fn cells(&self) -> Vec<Cell> {
        vec![Cell::ours(self.line), Cell::ours(&self.reason), Cell::said(&*self.detail)]
    }
}

pub async fn run(command: Command, context: &Context) -> Result<(), Failure> {
    match command {
        Command::List => list(context),
        Command::Schema(arguments) => schema(&arguments, context),
        Command::Check(arguments) => check(&arguments, context),
        Command::Try(arguments) => task_try::run(&arguments, context).await,
    }
}

fn list(context: &Context) -> Result<(), Failure> {
    let tasks = my_tasks::registry();
    let tasks = tasks.names().into_iter().filter_map(|name| tasks.find(name));
    context.out.all(tasks.map(|task| Listed {
        name: task.name(),
        output_tokens_max: task.output_tokens_max(),
        fingerprint: task.fingerprint().to_owned(),
    }))
}

fn schema(arguments: &SchemaArguments, context: &Context) -> Result<(), Failure> {
    let tasks = my_tasks::registry();
    let (Some(task), Some(description)) = (tasks.find(&arguments.name), tasks.describe(&arguments.name))
    else {
        let known = tasks.names().join(", ");
        return Err(Failure::not_found(format!(
            "There is no task {:?}; there are: {known}.",
            arguments.name
        )));
    };
    context.out.document(&Schemas {
        task: task.name().to_owned(),
        input_schema: description.input_schema,
        output_schema: (**task.schema()).clone(),
        example_job: description.example_job,
        example_output: description.example_output,
    })
}

fn check(arguments: &CheckArguments, context: &Context) -> Result<(), Failure> {
    let tasks = my_tasks::registry();
    let limits = Limits::default();
    let mut lines = arguments.source.lines(arguments.source.open()?, &tasks)?;
    let mut rows = context.out.before_verdict().rows();
    let (mut checked, mut letters, mut unreadable) = (0_u64, 0_u64, 0_u64);
    while let Some((line, draft)) = lines.next()? {
        checked += 1;
        let draft = match draft {
            Ok(draft) => draft,
            Err(detail) => {
                unreadable += 1;
                rows.write(&BadLine { line, reason: UNREADABLE.to_owned(), detail })?;
                continue;
            }
        };
        let job = job::parse(&draft.body, limits.body_bytes_max);
        // What a call may cost is the stack's; `enqueue` asks it.
        let judged =
            job.and_then(|job| ready(&job, draft.body.len(), &tasks, Price::flat(0, 0), u64::MAX).map(drop));
        if let Err(rejection) = judged {
            letters += 1;
            rows.write(&BadLine { line, reason: rejection.reason.to_string(), detail: rejection.detail })?;
        }
    }
    if letters + unreadable == 0 {
        say(&match checked {
            0 => "There is no line in it, and nothing was checked.".to_owned(),
            1 => "1 line, a job that a worker would work on.".to_owned(),
            checked => format!("{checked} lines, all of them jobs that a worker would work on."),
        });
        return Ok(());
    }
    rows.end()?;
    let parts = [
        (
            letters,
            format!("{letters} would be {} at once", agreeing(letters, "a dead letter", "dead letters")),
        ),
        (
            unreadable,
            format!("{unreadable} {} no job that could be sent", agreeing(unreadable, "holds", "hold")),
        ),
    ];
    let told: Vec<_> = parts.into_iter().filter_map(|(count, part)| (count > 0).then_some(part)).collect();
    Err(Failure::no(format!("Of {} {}.", counted(checked, "line"), told.join(", and "))))
}
