//! `redrive`, `redrive list`, `show`, `watch`, `stop`: the redrive function is asked, and watched.

use std::time::Duration;

use clap::{Args, Subcommand, ValueEnum};
use nightshift_core::failure::FailureReason;
use nightshift_core::input_hash::InputHash;
use nightshift_core::redrive::{
    Answer, Ask, Canary, Count, End, Ended, Event, Redrive, Request, Source, Stepped,
};
use serde::Serialize;
use serde_json::Value;

use crate::Context;
use crate::caller;
use crate::commands::dead_letters::reason;
use crate::confirm;
use crate::error::Failure;
use crate::functions;
use crate::ledger;
use crate::render::{Cell, Row, say};
use crate::stack::Stack;
use crate::text::{counted, dollars};
use crate::times;

/// The longest wait between two steps: what is said meanwhile is not older than this.
const WAIT_MS_MAX: u64 = 15_000;
/// What was not answered is asked again after so many seconds, without a word: a throttle of the ledger is over by then.
const ASKED_AGAIN_AFTER_S: [u64; 2] = [1, 3];
/// How long to wait after each step that was not answered, in seconds, before the watching ends. What the failed one has
/// locked is busy meanwhile, which says nothing.
const WAITS_S: [u64; 3] = [2, 5, 15];

/// Why nothing is sent for a while though little is left.
const WAITS_FOR_HIDDEN: &str =
    "; waits for what others have received and not deleted, which comes back when they do";

/// The function's name after the prefix.
const FUNCTION: &str = "redrive";

/// Puts dead letters back on the jobs queue, or looks after those that are under way.
#[derive(Debug, Args)]
#[command(
    args_conflicts_with_subcommands = true,
    after_help = "\
It says first how many, of what, at what cost, and whether anything has changed since they failed; --dry-run ends there.
The canary is sent first, and the rest follows only where enough of it succeeds. Closing the terminal, or Ctrl-C, stops \
the watching and nothing else: the sentinel goes on with it, a step a minute, and `nightshift redrive stop` ends it. The \
exit code is 3 where it ended otherwise than asked for.

Examples:
  nightshift redrive --failure invalid_output --task weekly_report --dry-run --reason 'new prompt'
  nightshift redrive --failure capacity_timeout --since yesterday --canary 5% --rate 10 --reason 'INC-42 is over'
  nightshift redrive --from crashed --limit 1 --reason 'to see whether it still crashes'
  nightshift redrive list"
)]
pub struct Arguments {
    #[command(subcommand)]
    command: Option<Command>,
    #[command(flatten)]
    start: StartArguments,
}

/// What is under way, and what was.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// The redrives that are not over, or all that are remembered.
    #[command(after_help = "\
Examples:
  nightshift redrive list
  nightshift redrive list --all")]
    List {
        /// Those that are over, too.
        #[arg(long)]
        all: bool,
    },
    /// One redrive, with its history.
    #[command(after_help = "\
Examples:
  nightshift redrive show ID     with an id from nightshift redrive list --all")]
    Show {
        /// Its name.
        id: String,
    },
    /// Goes on with a redrive whose terminal was closed.
    #[command(after_help = "\
Examples:
  nightshift redrive watch ID    with an id from nightshift redrive list")]
    Watch {
        /// Its name.
        id: String,
    },
    /// Ends a redrive; what it did not send stays where it is.
    #[command(after_help = "\
Examples:
  nightshift redrive stop ID --reason 'INC-42 is not over'    with an id from nightshift redrive list")]
    Stop {
        /// Its name.
        id: String,
        #[command(flatten)]
        consent: confirm::Consent,
    },
}

/// What to put back, and how.
#[derive(Debug, Args)]
pub struct StartArguments {
    /// Where the messages are.
    #[arg(long, value_enum, default_value = "dead-letters")]
    from: From,
    /// Only what failed for this reason; may be given more than once.
    #[arg(long = "failure", value_name = "REASON", value_parser = reason)]
    failures: Vec<FailureReason>,
    /// Only jobs of this task; may be given more than once.
    #[arg(long = "task", value_name = "TASK")]
    tasks: Vec<String>,
    /// Only what failed at this time or later.
    #[arg(long, value_name = "TIME", value_parser = times::argument)]
    since: Option<u64>,
    /// Only what failed before this time.
    #[arg(long, value_name = "TIME", value_parser = times::argument)]
    until: Option<u64>,
    /// Only this job, by its key; may be given more than once.
    #[arg(long = "key", value_name = "KEY", value_parser = ledger::key)]
    keys: Vec<InputHash>,
    /// Only jobs with this reference; may be given more than once.
    #[arg(long = "reference", value_name = "TEXT")]
    references: Vec<String>,
    /// At most so many, those of crashed included that are deleted because they are settled.
    #[arg(long, value_name = "N")]
    limit: Option<u64>,
    /// Messages a second, on average.
    #[arg(long, value_name = "N", default_value_t = 5.0)]
    rate: f64,
    /// So many, or this share (5%), are sent first and decide on the rest.
    #[arg(long, value_name = "N|N%", value_parser = share)]
    canary: Option<Share>,
    /// Percent of the canary that must succeed.
    #[arg(long, value_name = "PERCENT", default_value_t = 90, requires = "canary")]
    canary_success: u32,
    /// Seconds to wait for the canary after its last message was sent.
    #[arg(long, value_name = "SECONDS", default_value_t = 600, requires = "canary")]
    canary_wait: u64,
    /// Only count, and say what it would cost.
    #[arg(long)]
    dry_run: bool,
    /// Do not ask; without a terminal nothing is begun unless this is given.
    #[arg(long)]
    yes: bool,
    /// Why, for whoever reads its record: a ticket, an incident, a sentence.
    // Only what begins a redrive needs one, and clap would ask for it beside `list` too.
    #[arg(long, value_name = "TEXT", value_parser = confirm::reason)]
    reason: Option<String>,
}

/// Which queue.
#[derive(Debug, Clone, Copy, ValueEnum)]
pub enum From {
    /// The worker put them there and says why.
    DeadLetters,
    /// SQS put them there, and nobody knows why.
    Crashed,
}

/// Some messages, or a share of them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Share {
    messages: Option<u32>,
    percent: Option<u32>,
}

fn share(text: &str) -> Result<Share, String> {
    let number =
        |text: &str| text.parse().map_err(|_| "write a number of messages, or a share such as 5%".to_owned());
    Ok(match text.strip_suffix('%') {
        Some(percent) => Share { messages: None, percent: Some(number(percent)?) },
        None => Share { messages: Some(number(text)?), percent: None },
    })
}

impl StartArguments {
    fn request(&self, reason: &str, caller: &str) -> Request {
        let source = match self.from {
            From::DeadLetters => Source::DeadLetters,
            From::Crashed => Source::Crashed,
        };
        Request {
            reasons: self.failures.clone(),
            tasks: self.tasks.clone(),
            failed_after_ms: self.since,
            failed_before_ms: self.until,
            keys: self.keys.clone(),
            references: self.references.clone(),
            limit: self.limit,
            rate: self.rate,
            canary: self.canary.map(|share| Canary {
                messages: share.messages,
                percent: share.percent,
                success_percent: self.canary_success,
                wait_s: self.canary_wait,
            }),
            ..Request::all(source, reason, caller)
        }
    }
}

impl Row for Count {
    const COLUMNS: &'static [&'static str] = &["REASON", "TASK", "MESSAGES"];

    fn cells(&self) -> Vec<Cell> {
        vec![Cell::said(&*self.reason), Cell::maybe_said(self.task.as_deref()), Cell::ours(self.messages)]
    }
}

#[derive(Debug, Serialize)]
struct Shown {
    id: String,
    source: &'static str,
    state: String,
    began_at: Option<String>,
    matching: Option<u64>,
    sent: Option<u64>,
    could_not_send: Option<u64>,
    deleted_as_settled: Option<u64>,
    canary: Option<String>,
    last_failure: Option<String>,
    reason: Option<String>,
    caller: Option<String>,
}

impl Row for Shown {
    const COLUMNS: &'static [&'static str] = &[
        "REDRIVE",
        "FROM",
        "STATE",
        "BEGAN",
        "MATCHING",
        "SENT",
        "COULD NOT SEND",
        "DELETED AS SETTLED",
        "LAST FAILURE",
        "CANARY",
        "REASON",
        "CALLER",
    ];

    fn cells(&self) -> Vec<Cell> {
        vec![
            Cell::ours(&self.id),
            Cell::ours(self.source),
            Cell::said(&*self.state),
            Cell::maybe(self.began_at.as_ref()),
            Cell::maybe(self.matching),
            Cell::maybe(self.sent),
            Cell::maybe(self.could_not_send),
            Cell::maybe(self.deleted_as_settled),
            Cell::maybe_said(self.last_failure.as_deref()),
            Cell::maybe(self.canary.as_ref()),
            Cell::maybe_said(self.reason.as_deref()),
            Cell::maybe_said(self.caller.as_deref()),
        ]
    }
}

impl Shown {
    fn of(redrive: &Redrive) -> Self {
        let canary = redrive.canary.as_ref().map(|canary| {
            let failed: u32 = canary.failed.values().sum();
            format!("{} of {} succeeded, {failed} failed", canary.succeeded, canary.count)
        });
        Self {
            id: redrive.id.clone(),
            source: redrive.request.source.as_str(),
            state: state(redrive),
            began_at: Some(times::shown(redrive.began_ms)),
            matching: Some(redrive.matching),
            sent: Some(redrive.progress.sent),
            could_not_send: redrive.scan.as_ref().map(|scan| scan.left.total()),
            deleted_as_settled: Some(redrive.progress.settled),
            canary,
            last_failure: redrive
                .last_failure
                .as_ref()
                .map(|failure| format!("{}: {}", times::shown(failure.at_ms), failure.what)),
            reason: Some(redrive.request.reason.clone()),
            caller: Some(redrive.request.caller.clone()),
        }
    }
}

/// Whether somebody has to do something, in a few words.
fn state(redrive: &Redrive) -> String {
    match (&redrive.end, &redrive.lock) {
        (Some(end), _) => match serde_json::to_value(&end.how) {
            Ok(Value::String(word)) => word,
            _ => "over".to_owned(),
        },
        (None, Some(lock)) if lock.until_ms > times::now_ms() => "running".to_owned(),
        (None, _) => "goes on each minute".to_owned(),
    }
}

pub async fn run(arguments: Arguments, context: &Context) -> Result<(), Failure> {
    let Arguments { command, start } = arguments;
    if command.is_none() && start.reason.is_none() {
        return Err(Failure::usage("Say why with --reason, or what to look at: list, show, watch or stop."));
    }
    let stack = context.stack().await?;
    match command {
        Some(Command::List { all }) => list(&stack, all, context).await,
        Some(Command::Show { id }) => show(&stack, &id, context).await,
        Some(Command::Watch { id }) => watch(&stack, &id, context).await,
        Some(Command::Stop { id, consent }) => stop(&stack, &id, &consent, context).await,
        None => begin(&stack, &start, context).await,
    }
}

async fn begin(stack: &Stack, start: &StartArguments, context: &Context) -> Result<(), Failure> {
    let caller = caller::of(stack).await?;
    let request = start.request(start.reason.as_deref().unwrap_or_default(), &caller.arn);
    let faults = request.faults();
    if !faults.is_empty() {
        return Err(Failure::usage(faults.join(" ")));
    }
    let asked = Ask::Start(Box::new(Request { dry_run: true, ..request.clone() }));
    let Answer::Report(report) = ask(stack, &asked).await? else {
        return Err(unexpected());
    };
    if start.dry_run {
        context.out.all(report.counts)?;
    }
    for warning in &report.warnings {
        say(warning);
    }
    let probable =
        report.cost_usd_probable.map_or_else(String::new, |usd| format!("probably {} USD, ", dollars(usd)));
    let instead = match request.source {
        Source::Crashed => {
            " What has its result, was erased, or has failed and has its dead letter is deleted instead."
        }
        Source::DeadLetters => "",
    };
    let intent = format!(
        "Puts {} of {} back on the jobs queue of {}, in {} or more.{instead} It costs {probable}at most {} USD: all calls of the longest jobs, or the caps of the days that it may take.",
        counted(report.matching, "message"),
        request.source.as_str(),
        stack.named(),
        times::length(report.sending_s.saturating_mul(1_000)),
        dollars(report.cost_usd_max)
    );
    if start.dry_run {
        say(&format!("Would do: {intent}"));
        return Ok(());
    }
    if report.matching == 0 {
        say("Nothing matches, and nothing was begun.");
        return Ok(());
    }
    confirm::ask(start.yes, &intent).await?;
    context.interrupt.handle("`nightshift redrive list` says whether it has begun, and how far it is");
    let began = functions::invoke(stack, FUNCTION, &Ask::Start(Box::new(request))).await;
    let may_have = "it may have begun all the same, and `nightshift redrive list` says whether it has";
    match said(
        &began.map_err(|failure| if failure.may_pass() { failure.although(may_have) } else { failure })?,
    )? {
        Answer::Redrive(redrive) => {
            say(&format!("Redrive {} has begun.", redrive.id));
            watch(stack, &redrive.id, context).await
        }
        _ => Err(unexpected()),
    }
}

/// Drives a redrive step by step until it is over, and says how far it is.
async fn watch(stack: &Stack, id: &str, context: &Context) -> Result<(), Failure> {
    context.interrupt.handle("`nightshift redrive list` says how far it is");
    let mut said = None;
    let mut waits_s = WAITS_S.into_iter();
    loop {
        let stepped = step(stack, id, &mut waits_s, context).await?;
        let at_ms = match stepped {
            Stepped::Over(redrive) => return over(&redrive, context),
            Stepped::Again { at_ms, redrive } => {
                waits_s = WAITS_S.into_iter();
                let shown = Shown::of(&redrive);
                let canary = shown.canary.map_or_else(String::new, |canary| format!("; canary: {canary}"));
                let settled = settled(&redrive).map_or_else(String::new, |settled| format!("; {settled}"));
                let rests = redrive.scan.as_ref().is_some_and(|scan| scan.rest_until_ms > times::now_ms());
                let rests = if rests { WAITS_FOR_HIDDEN } else { "" };
                let progress =
                    format!("{} of {} sent{settled}{canary}{rests}", redrive.progress.sent, redrive.matching);
                if said.as_ref() != Some(&progress) {
                    say(&progress);
                    said = Some(progress);
                }
                at_ms
            }
            Stepped::Busy { until_ms } => until_ms,
        };
        let wait_ms = at_ms.saturating_sub(times::now_ms()).min(WAIT_MS_MAX);
        tokio::select! {
            () = tokio::time::sleep(Duration::from_millis(wait_ms)) => {}
            () = context.interrupt.asked() => return Err(left(id)),
        }
        if context.interrupt.is_asked() {
            return Err(left(id));
        }
    }
}

/// One step. It is short, so that one that has begun is waited for; one that was not answered is asked for again, for as long
/// as there are waits left since the last that did something.
async fn step(
    stack: &Stack,
    id: &str,
    waits_s: &mut impl Iterator<Item = u64>,
    context: &Context,
) -> Result<Stepped, Failure> {
    loop {
        let failure = match functions::invoke(stack, FUNCTION, &Ask::Step { id: id.to_owned() }).await {
            Ok(answer) => match said(&answer)? {
                Answer::Stepped(stepped) => return Ok(stepped),
                _ => return Err(unexpected()),
            },
            Err(failure) => failure,
        };
        let all_the_same = format!("redrive {id} {}", goes_on(id));
        if !failure.may_pass() {
            return Err(failure.after(&all_the_same));
        }
        let Some(wait_s) = waits_s.next() else { return Err(failure.although(&all_the_same)) };
        say(&format!("{} It is asked again in {wait_s} s.", failure.sentence().unwrap_or_default()));
        tokio::select! {
            () = tokio::time::sleep(Duration::from_secs(wait_s)) => {}
            () = context.interrupt.asked() => return Err(left(id)),
        }
    }
}

fn left(id: &str) -> Failure {
    Failure::interrupted(format!("The watching has stopped, and redrive {id} {}.", goes_on(id)))
}

/// What becomes of a redrive that nobody watches.
fn goes_on(id: &str) -> String {
    format!(
        "goes on by itself, a step a minute: `nightshift redrive watch {id}` shows it, `nightshift redrive stop {id}` ends it"
    )
}

/// Of `crashed`.
fn settled(redrive: &Redrive) -> Option<String> {
    let settled = redrive.progress.settled;
    (settled > 0).then(|| format!("{settled} deleted: settled already"))
}

fn ending(end: &End, redrive: &Redrive) -> String {
    settled(redrive).map_or_else(|| end.detail.clone(), |settled| format!("{} {settled}.", end.detail))
}

fn over(redrive: &Redrive, context: &Context) -> Result<(), Failure> {
    let shown = context.out.before_verdict().one(&Shown::of(redrive));
    shown.map_err(|e| {
        e.although(&format!("redrive {0} is over, and `nightshift redrive show {0}` says how", redrive.id))
    })?;
    match &redrive.end {
        Some(end) if matches!(end.how, Ended::Finished | Ended::LimitReached) => {
            say(&ending(end, redrive));
            Ok(())
        }
        Some(end) => Err(Failure::no(ending(end, redrive))),
        None => Err(unexpected()),
    }
}

async fn list(stack: &Stack, all: bool, context: &Context) -> Result<(), Failure> {
    match ask(stack, &Ask::List { all }).await? {
        Answer::Redrives(entries) => context.out.all(entries.into_iter().map(|entry| match &entry.redrive {
            Some(redrive) => Shown::of(redrive),
            None => Shown {
                id: entry.id,
                source: entry.source.as_str(),
                state: "unknown: a newer release wrote it".to_owned(),
                began_at: None,
                matching: None,
                sent: None,
                could_not_send: None,
                deleted_as_settled: None,
                canary: None,
                last_failure: None,
                reason: None,
                caller: None,
            },
        })),
        _ => Err(unexpected()),
    }
}

async fn show(stack: &Stack, id: &str, context: &Context) -> Result<(), Failure> {
    let Answer::Redrive(redrive) = ask(stack, &Ask::Show { id: id.to_owned() }).await? else {
        return Err(unexpected());
    };
    if context.out.is_json() {
        return context.out.document(&redrive);
    }
    context.out.one(&Shown::of(&redrive))?;
    // The last line of a history is the end, which is said with what it counts.
    let is_end = |event: &Event| {
        redrive.end.as_ref().is_some_and(|end| end.at_ms == event.at_ms && end.detail == event.what)
    };
    for event in redrive.history.iter().filter(|event| !is_end(event)) {
        say(&format!("{} {}", times::shown(event.at_ms), event.what));
    }
    if let Some(end) = &redrive.end {
        say(&format!("{} {}", times::shown(end.at_ms), ending(end, &redrive)));
    }
    Ok(())
}

async fn stop(stack: &Stack, id: &str, consent: &confirm::Consent, context: &Context) -> Result<(), Failure> {
    confirm::ask(
        consent.yes,
        &format!("Ends redrive {id} of {}; what it did not send stays where it is.", stack.named()),
    )
    .await?;
    let caller = caller::of(stack).await?;
    context.interrupt.handle("`nightshift redrive list --all` says whether it has ended");
    let asked = Ask::Stop { id: id.to_owned(), caller: caller.arn, reason: consent.reason.clone() };
    match ask(stack, &asked).await? {
        Answer::Redrive(redrive) => {
            context.out.one(&Shown::of(&redrive)).map_err(|e| e.although(&format!("redrive {id} has ended")))
        }
        _ => Err(unexpected()),
    }
}

/// Asks what may be asked twice.
async fn ask(stack: &Stack, asked: &Ask) -> Result<Answer, Failure> {
    for wait_s in ASKED_AGAIN_AFTER_S {
        match functions::invoke(stack, FUNCTION, asked).await {
            Err(failure) if failure.may_pass() => tokio::time::sleep(Duration::from_secs(wait_s)).await,
            answered => return said(&answered?),
        }
    }
    said(&functions::invoke(stack, FUNCTION, asked).await?)
}

fn said(answer: &str) -> Result<Answer, Failure> {
    match serde_json::from_str(answer) {
        Ok(Answer::NotFound(why)) => Err(Failure::not_found(why)),
        Ok(Answer::Refused(why)) => Err(Failure::failed(why)),
        Ok(answer) => Ok(answer),
        Err(_) => Err(unexpected()),
    }
}

fn unexpected() -> Failure {
    Failure::failed(
        "The redrive function answered what this build does not know, so one of the two is older: deploy, or take the build that is deployed.",
    )
}
