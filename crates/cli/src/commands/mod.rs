//! The commands, a file each. To add one: its file, its line in `Command`, and its line in `run`.

mod completions;
mod dead_letters;
mod doctor;
pub mod enqueue;
mod job_logs;
mod jobs;
mod key;
pub mod load_test;
mod pause;
mod reconcile;
mod redrive;
mod results;
mod results_delete;
mod review;
mod status;
mod task;
mod task_try;

use clap::Subcommand;

use crate::Context;
use crate::error::Failure;

/// What `nightshift` can do.
#[derive(Debug, Subcommand)]
pub enum Command {
    Enqueue(enqueue::Arguments),
    Status(status::Arguments),
    #[command(subcommand)]
    Jobs(jobs::Command),
    #[command(subcommand)]
    Results(results::Command),
    #[command(subcommand)]
    DeadLetters(dead_letters::Command),
    Redrive(redrive::Arguments),
    #[command(subcommand)]
    Review(review::Command),
    Reconcile(reconcile::Arguments),
    /// The kinds of work that this build knows: list, describe, check inputs, try them on a model.
    #[command(subcommand)]
    Task(task::Command),
    #[command(subcommand)]
    Key(key::Command),
    Doctor(doctor::Arguments),
    Pause(pause::PauseArguments),
    Resume(pause::ResumeArguments),
    LoadTest(load_test::Arguments),
    /// Prints the script that lets a shell complete this command.
    Completions(completions::Arguments),
}

/// Does what was asked.
pub async fn run(command: Command, context: &Context) -> Result<(), Failure> {
    match command {
        Command::Enqueue(arguments) => enqueue::run(&arguments, context).await,
        Command::Status(arguments) => status::run(&arguments, context).await,
        Command::Jobs(command) => jobs::run(command, context).await,
        Command::Results(command) => results::run(command, context).await,
        Command::DeadLetters(command) => dead_letters::run(command, context).await,
        Command::Redrive(arguments) => redrive::run(arguments, context).await,
        Command::Review(command) => review::run(command, context).await,
        Command::Reconcile(arguments) => reconcile::run(&arguments, context).await,
        Command::Key(command) => key::run(command, context).await,
        Command::Task(command) => task::run(command, context).await,
        Command::Doctor(arguments) => doctor::run(&arguments, context).await,
        Command::Pause(arguments) => pause::pause(&arguments, context).await,
        Command::Resume(arguments) => pause::resume(&arguments, context).await,
        Command::LoadTest(arguments) => load_test::run(&arguments, context).await,
        Command::Completions(arguments) => completions::run(&arguments, context),
    }
}
