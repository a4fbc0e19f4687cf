//! `nightshift`, the operator's command.
//!
//! A command is a file of `commands`: its arguments, what it asks of the library, what it renders. Nothing is decided in
//! it; what a command and a function both need lives in a library crate.
//!
//! **Invariant:** standard output carries what was asked for and nothing else; all that is said to a person goes to
//! standard error.

mod again;
mod alarms;
mod batches;
mod budget;
mod caller;
mod checkout;
mod child;
mod clock;
mod commands;
mod confirm;
mod control;
mod editor;
mod error;
mod examine;
mod export;
mod files;
mod functions;
mod interrupt;
mod jobs_file;
mod ledger;
mod letters;
mod load_run;
mod load_watch;
mod looked_at;
mod mapping;
mod metrics;
mod onward;
mod other_build;
#[cfg(test)]
mod pages;
mod receipt;
mod render;
mod sender;
mod stack;
mod test_jobs;
mod test_lease;
mod text;
mod times;
mod trace;
mod trial;
mod trial_model;

use std::io::IsTerminal;
use std::process::ExitCode;

use clap::{CommandFactory as _, FromArgMatches as _, Parser};
use console::Term;

use crate::commands::Command;
use crate::error::Failure;
use crate::interrupt::Interrupt;
use crate::render::{Output, say};
use crate::stack::{Place, Stack};

/// Operates one Nightshift stack: send jobs, see what became of them, put right what failed.
///
/// The stack is found by its prefix and region, and asked what is deployed. Which account, the AWS SDK's own variables
/// and profiles say (AWS_PROFILE, AWS_ACCESS_KEY_ID, ...); AWS_ENDPOINT_URL leads to the stack on one machine.
#[derive(Debug, Parser)]
#[command(name = "nightshift", version, after_help = AFTER_HELP)]
struct Arguments {
    #[command(flatten)]
    place: Place,
    #[command(flatten)]
    form: render::Form,
    #[command(subcommand)]
    command: Command,
}

const AFTER_HELP: &str = "\
Exit codes: 0 done, 1 failed, 2 usage, 3 the answer is no, 4 credentials or permission, 5 not found, 130 interrupted.
Times are written as 2h (ago), yesterday, 2026-11-26, or RFC 3339.

Examples:
  nightshift task list
  nightshift --region eu-central-1 status
  nightshift completions bash > ~/.local/share/bash-completion/completions/nightshift";

/// Columns of a help text, where the terminal is no narrower.
const HELP_WIDTH_MAX: usize = 100;

/// The same command, whose examples can be copied from a terminal of this width; clap would break them anywhere.
fn with_whole_examples(command: clap::Command, width: usize) -> clap::Command {
    let whole = |line: &str| {
        if line.starts_with("  ") { text::command_lines(line, width) } else { line.to_owned() }
    };
    let command = match command.get_after_help().map(ToString::to_string) {
        Some(help) => command.after_help(help.lines().map(whole).collect::<Vec<_>>().join("\n")),
        None => command,
    };
    command.mut_subcommands(|command| with_whole_examples(command, width))
}

/// What every command is given.
struct Context {
    place: Place,
    out: Output,
    interrupt: Interrupt,
}

impl Context {
    /// The stack that is meant, as it is deployed.
    async fn stack(&self) -> Result<Stack, Failure> {
        Stack::find(&self.place).await
    }
}

fn main() -> ExitCode {
    // Help may be on its way into a pager.
    let columns = render::columns(&Term::stdout()).or_else(|| render::columns(&Term::stderr()));
    let width = columns.map_or(HELP_WIDTH_MAX, |columns| usize::from(columns).min(HELP_WIDTH_MAX));
    let mut arguments = with_whole_examples(Arguments::command().term_width(width), width);
    let matches = arguments.get_matches_mut();
    onward::remember(&matches);
    let Arguments { place, form, command } = match Arguments::from_arg_matches(&matches) {
        Ok(arguments) => arguments,
        Err(error) => error.format(&mut arguments).exit(),
    };
    // One thread: what waits does so on the network.
    let runtime = match tokio::runtime::Builder::new_current_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => return told(Err(Failure::failed(format!("The program cannot start: {error}.")))),
    };
    let ended = runtime.block_on(async {
        let interrupt = Interrupt::listen();
        let context = Context { place, out: Output::new(form), interrupt: interrupt.clone() };
        tokio::select! {
            ended = commands::run(command, &context) => ended,
            () = interrupt.unhandled() => {
                if std::io::stderr().is_terminal() {
                    // Below the ^C that the terminal shows.
                    say("");
                }
                Err(interrupt.failure())
            }
        }
    });
    // A read of standard input that still waits must not keep the program.
    runtime.shutdown_background();
    told(ended)
}

/// Says why a command failed, and its exit code.
fn told(ended: Result<(), Failure>) -> ExitCode {
    let Err(failure) = ended else { return ExitCode::SUCCESS };
    if let Some(sentence) = failure.sentence() {
        say(&format!("nightshift: {sentence}"));
    }
    ExitCode::from(failure.exit_code())
}
