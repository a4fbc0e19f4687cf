//! What a running stand-in tells of itself.

use std::process::ExitStatus;
use std::time::Duration;

/// What happened, in the order in which it happened.
#[derive(Debug, Clone)]
pub enum LambdaEvent {
    /// A process was started.
    Started {
        /// Number of the environment, counted from 1.
        environment: u64,
        /// Its process.
        pid: u32,
    },
    /// The function wrote a line.
    Log(LogLine),
    /// An invocation ended.
    Invocation(InvocationReport),
    /// A process ended.
    Ended {
        /// Number of the environment.
        environment: u64,
        /// Its process.
        pid: u32,
        /// Why.
        cause: Ended,
    },
    /// Something of Lambda's own did not work (a poll, a delete, a process that did not start); it goes on.
    Trouble(String),
}

/// How an invocation went.
#[derive(Debug, Clone)]
pub struct InvocationReport {
    /// The request id, which the function knows too.
    pub request_id: String,
    /// Number of the environment.
    pub environment: u64,
    /// Messages of the batch.
    pub records: usize,
    /// Messages that were deleted.
    pub deleted: usize,
    /// How it ended.
    pub result: InvocationResult,
    /// From the hand-over to the end.
    pub duration: Duration,
}

/// The end of an invocation.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum InvocationResult {
    /// The function answered, with this many failed records.
    Answered {
        /// Number of `batchItemFailures`.
        failures: usize,
    },
    /// The function answered something that Lambda takes for a complete failure.
    InvalidAnswer(String),
    /// The handler returned an error.
    FunctionError(String),
    /// Killed at the function's timeout.
    TimedOut,
    /// The process ended in mid-invocation.
    Crashed,
    /// The process ended, or said so, before it asked for its first invocation.
    InitFailed(String),
}

/// Counts since the start.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct LambdaStats {
    /// Environments started.
    pub environments: u64,
    /// Invocations begun.
    pub invocations: u64,
    /// Invocations that were answered in a way that Lambda understands.
    pub answered: u64,
    /// Invocations that ended with an error of the handler or an invalid answer.
    pub errors: u64,
    /// Invocations killed at the timeout.
    pub timeouts: u64,
    /// Invocations whose process ended.
    pub crashes: u64,
    /// Environments that failed before their first invocation.
    pub init_failures: u64,
    /// Messages handed to the function, repeats included.
    pub records: u64,
    /// Messages deleted after an answer.
    pub deleted: u64,
    /// Messages reported as failed.
    pub reported: u64,
    /// Messages whose delete failed; they come back.
    pub delete_failures: u64,
    /// Events that nobody read in time.
    pub events_dropped: u64,
}

/// An environment as it is now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct EnvironmentStatus {
    /// Number of the environment, counted from 1.
    pub environment: u64,
    /// Its process.
    pub pid: u32,
    /// Whether it has an invocation.
    pub busy: bool,
}

/// A line that the function wrote.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LogLine {
    /// Number of the environment.
    pub environment: u64,
    /// Where it wrote.
    pub stream: Stream,
    /// The line without its end; what is not UTF-8 is replaced.
    pub line: String,
}

/// Where a line was written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stream {
    /// Standard output.
    Stdout,
    /// Standard error.
    Stderr,
}

/// Why a process ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Ended {
    /// By itself, or by somebody else's signal.
    ByItself(Option<ExitStatus>),
    /// Killed from here: by [`super::Lambda::kill`], at a timeout, or at the end.
    Killed,
}
