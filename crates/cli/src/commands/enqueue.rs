//! `enqueue`: jobs from a file onto the queue.

use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::Args;
use nightshift_core::cost::usd;
use nightshift_core::input_hash::InputHash;
use nightshift_core::job;
use nightshift_core::ready::ready;
use nightshift_tasks::Registry;
use serde::Serialize;

use crate::Context;
use crate::confirm;
use crate::error::Failure;
use crate::files;
use crate::jobs_file::{Draft, Lines, Source};
use crate::looked_at::{Again, LookedAt};
use crate::receipt::{self, Before, Entry, Receipt};
use crate::render::{Cell, Row, progress, say};
use crate::sender::{Outgoing, Rate, Sender, Sent, Tried};
use crate::stack::{Stack, Worker};
use crate::text::{agreeing, counted, dollars};
use crate::times;

/// Bad lines that are told one by one.
const BAD_LINES_TOLD: u64 = 20;
/// Lines between two looks at whether somebody wants to stop.
const LINES_AT_A_TIME: u64 = 256;
/// The slowest and the fastest rate, in messages a second.
const RATES: std::ops::RangeInclusive<f64> = 0.01..=100_000.0;

/// Sends the jobs of a file.
#[derive(Debug, Args)]
#[command(after_help = "\
Each line is checked as the worker would; what would be a dead letter at once is left out and told by its line.
The receipt says which line became which message: after Ctrl-C, a kill or a failure the same command goes on where it \
stopped, and `nightshift reconcile` says what became of each line. The exit code is 3 where lines were left out.

Examples:
  nightshift enqueue jobs.jsonl
  nightshift enqueue tickets.csv --task categorize_ticket --map text=Body --reference Id --group Customer
  nightshift enqueue tickets.csv --delimiter ';' --task categorize_ticket --map text=Body
  zcat jobs.jsonl.gz | nightshift enqueue - --receipt jobs.receipt --rate 50 --yes")]
pub struct Arguments {
    #[command(flatten)]
    source: Source,
    /// Where the receipt is; by default beside the file, with .receipt after its name.
    #[arg(long, value_name = "FILE")]
    receipt: Option<PathBuf>,
    /// Messages a second, at most; by default as fast as SQS takes them.
    #[arg(long, value_name = "N", value_parser = rate)]
    rate: Option<f64>,
    /// Do not ask; without a terminal nothing is sent unless this is given.
    #[arg(long)]
    yes: bool,
}

fn rate(text: &str) -> Result<f64, String> {
    let rate: f64 = text.parse().map_err(|_| "write a number of messages a second, such as 50".to_owned())?;
    if RATES.contains(&rate) { Ok(rate) } else { Err(format!("from {} to {}", RATES.start(), RATES.end())) }
}

#[derive(Debug, Serialize)]
struct Summary {
    sent: u64,
    sent_before: u64,
    perhaps_sent_twice: u64,
    left_out: u64,
    cost_usd_max: f64,
    receipt: String,
}

impl Row for Summary {
    const COLUMNS: &'static [&'static str] =
        &["SENT", "SENT BEFORE", "PERHAPS SENT TWICE", "LEFT OUT", "COST USD MAX", "RECEIPT"];

    fn cells(&self) -> Vec<Cell> {
        vec![
            Cell::ours(self.sent),
            Cell::ours(self.sent_before),
            Cell::ours(self.perhaps_sent_twice),
            Cell::ours(self.left_out),
            Cell::ours(dollars(self.cost_usd_max)),
            Cell::said(&*self.receipt),
        ]
    }
}

pub async fn run(arguments: &Arguments, context: &Context) -> Result<(), Failure> {
    let receipt_path = receipt_path(arguments)?;
    let tasks = my_tasks::registry();
    let file = at_hand(&arguments.source).await?;
    let stack = context.stack().await?;
    let worker = stack.worker()?;
    let mut head = receipt::head(&stack.jobs_url, file.sha256.clone(), times::now_ms());
    head.read_as = Some(arguments.source.read_as());
    let before = Receipt::peek(&receipt_path, &head)?;
    let surveyed = survey(&arguments.source, &file, &tasks, &worker, &before).await;
    let survey = surveyed.map_err(|failure| before_a_receipt(failure, &file))?;
    head.lines = survey.lines;
    if survey.unsent == 0 {
        let why = nothing_to_send(&survey, &before, &arguments.source, &receipt_path);
        say(&format!("Nothing to send: {why}."));
        return left_out(survey.bad);
    }
    confirm::ask(arguments.yes, &intent(&survey, &before, &worker, &stack, &arguments.source)).await?;

    // What was saved while the question waited is seen before a receipt of the file as it was begins.
    file.check().await.map_err(|error| before_a_receipt(unread_again(&error), &file))?;
    let (mut receipt, before) = Receipt::open(&receipt_path, &head)?;
    // From now on Ctrl-C lets what is open come back, and the receipt is complete.
    context
        .interrupt
        .handle("the receipt says which jobs were sent or may have been, so run the same command again");
    let bar = progress(survey.unsent, "{bar:30} {human_pos} of {human_len} sent, {per_sec}, {eta} left");
    let client = aws_sdk_sqs::Client::new(&stack.sdk);
    let (sent, ended) = {
        let mut sender = Sender {
            client: &client,
            queue_url: &stack.jobs_url,
            receipt: &mut receipt,
            rate: arguments.rate.map_or(Rate::Any, Rate::AtMost),
            out_of_reach_max: Duration::ZERO,
            now_ms: &times::now_ms,
            interrupt: &context.interrupt,
            may_send: &|| Ok(()),
        };
        match lines(&arguments.source, &file, &tasks, &before) {
            Ok(lines) => {
                let mut reading = Reading { lines, tasks: &tasks, worker: &worker, before: &before };
                sender.send(|receipt| reading.next(receipt), |more| bar.inc(more)).await
            }
            Err(failure) => (Sent::default(), Err(failure)),
        }
    };
    bar.finish_and_clear();
    ended.map_err(|failure| failure.after(&until_then(sent, &survey, &file, &receipt_path)))?;
    let shown = context.out.before_verdict().one(&Summary {
        sent: sent.sent,
        sent_before: before.sent(),
        perhaps_sent_twice: survey.perhaps + sent.perhaps_twice,
        left_out: survey.bad + sent.refused,
        cost_usd_max: usd(survey.most_micro_usd),
        receipt: receipt_path.display().to_string(),
    });
    shown.map_err(|e| {
        let sent = counted(sent.sent, "job") + agreeing(sent.sent, " was", " were");
        e.although(&format!("{sent} sent, as {} says", receipt_path.display()))
    })?;
    left_out(survey.bad + sent.refused)
}

fn before_a_receipt(failure: Failure, file: &LookedAt) -> Failure {
    if file.is_changed() { failure.after("nothing was sent, so run the same command again") } else { failure }
}

fn unread_again(error: &io::Error) -> Failure {
    Failure::failed(format!("The file cannot be read again: {error}."))
}

/// What was done until a failure, and how it is gone on with.
fn until_then(sent: Sent, survey: &Survey, file: &LookedAt, receipt_path: &Path) -> String {
    let go_on = if file.is_changed() {
        "put the file back as it was and run the same command again, or enqueue the lines that are missing as a file of their own"
    } else {
        "run the same command again to go on"
    };
    let unnoted = match sent.unnoted {
        0 => String::new(),
        unnoted => format!(", and that {unnoted} more may have been, all of which SQS took"),
    };
    format!(
        "{} of {} {} sent, and {} says which{unnoted}: {go_on}",
        sent.sent - sent.unnoted,
        counted(survey.unsent, "job"),
        agreeing(survey.unsent, "was", "were"),
        receipt_path.display()
    )
}

fn left_out(lines: u64) -> Result<(), Failure> {
    match lines {
        0 => Ok(()),
        lines => Err(Failure::no(format!(
            "{} left out, because no worker could work on {}: mend {1} (`nightshift task check` lists all), and enqueue {1} as a file of {} own.",
            counted(lines, "line") + agreeing(lines, " was", " were"),
            agreeing(lines, "it", "them"),
            agreeing(lines, "its", "their"),
        ))),
    }
}

fn receipt_path(arguments: &Arguments) -> Result<PathBuf, Failure> {
    match &arguments.receipt {
        Some(path) => Ok(path.clone()),
        None if arguments.source.is_stdin() => Err(Failure::usage(
            "Standard input has no name that a receipt could stand beside: name one with --receipt.",
        )),
        None => {
            let mut name = arguments.source.file.clone().into_os_string();
            name.push(".receipt");
            Ok(PathBuf::from(name))
        }
    }
}

fn nothing_to_send(survey: &Survey, before: &Before, source: &Source, receipt_path: &Path) -> String {
    let lines = counted(survey.lines, "line");
    match (survey.lines, before.sent()) {
        (0, _) => format!("there is no line in {}", named(source)),
        (_, 0) => format!("no worker could work on any of {lines}"),
        (_, sent) => format!(
            "of {lines} {sent} {} sent before, as {} says",
            agreeing(sent, "was", "were"),
            receipt_path.display()
        ),
    }
}

fn named(source: &Source) -> String {
    if source.is_stdin() { "standard input".to_owned() } else { source.file.display().to_string() }
}

fn intent(survey: &Survey, before: &Before, worker: &Worker, stack: &Stack, source: &Source) -> String {
    let mut text = format!(
        "Sends {} of {} to {}. A call for each costs at most {} USD in all; the cap of a day is {:.2} USD.",
        counted(survey.unsent, "job"),
        named(source),
        stack.named(),
        dollars(usd(survey.most_micro_usd)),
        usd(worker.limits.spend_cap_micro_usd),
    );
    if before.sent() > 0 {
        text.push_str(&match before.sent() {
            1 => " 1 was sent before and is not sent again.".to_owned(),
            sent => format!(" {sent} were sent before and are not sent again."),
        });
    }
    if survey.perhaps > 0 {
        text.push_str(&format!(
            " {} may have been sent when the command was stopped, and {} sent again: {}.",
            survey.perhaps,
            agreeing(survey.perhaps, "is", "are"),
            receipt::SECOND_COPY
        ));
    }
    if survey.bad > 0 {
        text.push_str(&format!(
            " {} {} left out.",
            counted(survey.bad, "line"),
            agreeing(survey.bad, "is", "are")
        ));
    }
    text
}

/// The file, or standard input put into a file that has no name and goes with this process: it is read for its
/// fingerprint, for what it costs, once it is agreed to, and to be sent.
async fn at_hand(source: &Source) -> Result<LookedAt, Failure> {
    let file = if source.is_stdin() { standard_input().await? } else { files::open(&source.file)? };
    if file.metadata().is_ok_and(|metadata| !metadata.is_file()) {
        return Err(Failure::usage(format!(
            "{} is no regular file, and it has to be read more than once: pipe it in, with - as the file.",
            source.file.display()
        )));
    }
    LookedAt::read(file).await.map_err(|error| Failure::failed(format!("The file cannot be read: {error}.")))
}

async fn standard_input() -> Result<File, Failure> {
    let copied = tokio::task::spawn_blocking(|| {
        let mut file = tempfile::tempfile()?;
        io::copy(&mut io::stdin().lock(), &mut file)?;
        Ok::<_, io::Error>(file)
    });
    match copied.await {
        Ok(copied) => copied.map_err(|error| Failure::of_path(&std::env::temp_dir(), "written", &error)),
        Err(_) => Err(Failure::failed("Standard input could not be read.")),
    }
}

/// The lines of a file, as they were read before where some of them were sent.
fn lines<'a>(
    source: &Source,
    file: &'a LookedAt,
    tasks: &Registry,
    before: &Before,
) -> Result<Lines<Again<'a>>, Failure> {
    let again = file.again().map_err(|error| unread_again(&error))?;
    let lines = source.lines(again, tasks)?;
    Ok(if before.is_begun() { lines.without_header() } else { lines })
}

/// What is in a file, before anything is sent.
#[derive(Debug, Default)]
struct Survey {
    /// Lines, without blank ones.
    lines: u64,
    /// Jobs that are not yet sent.
    unsent: u64,
    /// Those of them that may have been sent.
    perhaps: u64,
    /// Lines that no worker could work on.
    bad: u64,
    /// What a call for each costs at most.
    most_micro_usd: u64,
}

async fn survey(
    source: &Source,
    file: &LookedAt,
    tasks: &Registry,
    worker: &Worker,
    before: &Before,
) -> Result<Survey, Failure> {
    let mut survey = Survey::default();
    let mut lines = lines(source, file, tasks, before)?;
    while let Some((line, draft)) = lines.next()? {
        if line % LINES_AT_A_TIME == 0 {
            tokio::task::yield_now().await;
        }
        survey.lines += 1;
        if before.is_sent(line) {
            continue;
        }
        match judge(draft, tasks, worker) {
            Ok((_, _, most_micro_usd)) => {
                survey.unsent += 1;
                survey.perhaps += u64::from(before.may_be_sent(line));
                survey.most_micro_usd = survey.most_micro_usd.saturating_add(most_micro_usd);
            }
            Err((reason, detail)) => {
                survey.bad += 1;
                if survey.bad <= BAD_LINES_TOLD {
                    say(&format!("line {line}: {reason}: {detail}"));
                }
            }
        }
    }
    if survey.bad > BAD_LINES_TOLD {
        let more = counted(survey.bad - BAD_LINES_TOLD, "line");
        say(&format!("and {more} more: `nightshift task check` lists all."));
    }
    Ok(survey)
}

/// The lines again, now to be sent.
struct Reading<'a> {
    lines: Lines<Again<'a>>,
    tasks: &'a Registry,
    worker: &'a Worker,
    before: &'a Before,
}

impl Reading<'_> {
    fn next(&mut self, receipt: &mut Receipt) -> Result<Option<Outgoing>, Failure> {
        while let Some((line, draft)) = self.lines.next()? {
            if self.before.is_sent(line) {
                continue;
            }
            match judge(draft, self.tasks, self.worker) {
                Ok((draft, key, _)) => {
                    let tried = Tried::not_yet(self.before.may_be_sent(line));
                    return Ok(Some(Outgoing { line, key: key.to_string(), draft, tried }));
                }
                Err((reason, _)) if !self.before.is_bad(line) => {
                    receipt.write(&[Entry::Bad { line, not_sent: reason }])?;
                }
                Err(_) => {}
            }
        }
        Ok(None)
    }
}

/// Why a line is not sent that holds no job.
pub const UNREADABLE: &str = "unreadable";

/// The key of a draft and what a call for it costs at most, or why no worker could work on it, in a word and in a
/// sentence.
pub fn judge(
    draft: Result<Draft, String>,
    tasks: &Registry,
    worker: &Worker,
) -> Result<(Draft, InputHash, u64), (String, String)> {
    let draft = draft.map_err(|detail| (UNREADABLE.to_owned(), detail))?;
    let limits = &worker.limits;
    let judged = job::parse(&draft.body, limits.body_bytes_max).and_then(|job| {
        let ready = ready(&job, draft.body.len(), tasks, worker.price, limits.spend_cap_micro_usd)?;
        Ok((InputHash::of_job(&job.task, &job.input), ready.price.most_micro_usd()))
    });
    let (key, most_micro_usd) =
        judged.map_err(|rejection| (rejection.reason.to_string(), rejection.detail))?;
    Ok((draft, key, most_micro_usd))
}
