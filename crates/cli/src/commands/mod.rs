//! The commands, a file each. To add one: its file, its line in `Command`, and its line in `run`.

mod completions;
mod pause;
mod task;

use clap::Subcommand;

use crate::Context;
use crate::error::Failure;

/// What `nightshift` can do.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// The kinds of work that this build knows: list, describe, check inputs.
    #[command(subcommand)]
    Task(task::Command),
    Pause(pause::PauseArguments),
    Resume(pause::ResumeArguments),
    /// Prints the script that lets a shell complete this command.
    Completions(completions::Arguments),
}

/// Does what was asked.
pub async fn run(command: Command, context: &Context) -> Result<(), Failure> {
    match command {
        Command::Task(command) => task::run(command, context).await,
        Command::Pause(arguments) => pause::pause(&arguments, context).await,
        Command::Resume(arguments) => pause::resume(&arguments, context).await,
        Command::Completions(arguments) => completions::run(&arguments, context),
    }
}
