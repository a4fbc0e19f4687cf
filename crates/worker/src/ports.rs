//! What the worker needs from the world. Each port has one adapter on AWS and one in the simulation.
//!
//! **Invariant:** a port performs and reports; it takes no decision and retries nothing that its documentation does not name.

use std::fmt;
use std::time::Duration;

use async_trait::async_trait;
use nightshift_core::dead_letter::DeadLetter;
use nightshift_core::input_hash::InputHash;
use nightshift_core::metric::MetricBatch;
use nightshift_core::model::{ModelFailure, ModelReply, ModelRequest};
use nightshift_core::record::{Control, Record, RecordWrite, SpendAnswer, SpendChange};

/// A call to AWS that did not do what it was asked, after the SDK's own attempts.
/// Whether it took effect is unknown: each write is safe to repeat.
#[derive(Debug, Clone, thiserror::Error)]
#[error("{service} did not carry out {operation}: {kind}: {message}")]
pub struct PortError {
    /// `DynamoDB`, `SQS`, `CloudWatch`, `Secrets Manager`, `SSM`.
    pub service: &'static str,
    /// The API operation.
    pub operation: &'static str,
    /// What kind of failure.
    pub kind: PortErrorKind,
    /// The service's code and message; never a body.
    pub message: String,
}

/// Why a port failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PortErrorKind {
    /// Throttled.
    Throttled,
    /// No answer, a 5xx, a broken connection.
    Unavailable,
    /// Not allowed, or no such resource: somebody must change the deployment.
    Misconfigured,
    /// What was read does not parse as one of our records.
    Unreadable,
    /// The service refuses this very request (too large, forbidden characters).
    Refused,
}

impl PortErrorKind {
    /// Whether the request may have done what it was asked, although it failed. This is the error of the last attempt
    /// alone: before a throttle, an earlier attempt may have arrived and lost its reply. What refuses a request for what
    /// it is refused each attempt.
    #[must_use]
    pub fn may_have_taken_effect(self) -> bool {
        match self {
            Self::Unavailable | Self::Throttled => true,
            Self::Misconfigured | Self::Unreadable | Self::Refused => false,
        }
    }
}

impl fmt::Display for PortErrorKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Throttled => "throttled",
            Self::Unavailable => "unavailable",
            Self::Misconfigured => "misconfigured",
            Self::Unreadable => "unreadable",
            Self::Refused => "refused",
        })
    }
}

/// The answer to a conditional write.
#[derive(Debug, Clone)]
pub enum WriteAnswer {
    /// It took effect.
    Written,
    /// The condition did not hold; this is what stands there, read by the refused write itself.
    /// `None`: there is no record (it expired or was deleted in between).
    Refused(Option<Box<Record>>),
}

/// The table of records.
#[async_trait]
pub trait Ledger: Send + Sync {
    /// Writes a whole record under its condition, in one request. Safe to repeat: see `RecordWrite`.
    async fn write(&self, write: &RecordWrite) -> Result<WriteAnswer, PortError>;
    /// Counts a further message with the same input, at most once per message in direct repetition.
    async fn count_duplicate(&self, key: &InputHash, message_id: &str) -> Result<(), PortError>;
    /// Notes that the dead letter of the record that failed at this version is sent; nothing where it stands at another.
    async fn note_letter_sent(&self, key: &InputHash, version: u64) -> Result<(), PortError>;
    /// Reads the control record; a missing one is the default.
    async fn control(&self) -> Result<Control, PortError>;
    /// Reserves or settles in the day's spend record. Safe to repeat with the same `change.id`.
    async fn spend(&self, change: &SpendChange) -> Result<SpendAnswer, PortError>;
}

/// The `dead-letters` queue.
#[async_trait]
pub trait DeadLetters: Send + Sync {
    /// Sends one dead letter. A repeat sends a second copy, which readers recognise by its `InputHash`.
    async fn send(&self, letter: &DeadLetter) -> Result<(), PortError>;
}

/// The visibility of the messages in the jobs queue.
#[async_trait]
pub trait Visibility: Send + Sync {
    /// Makes a received message visible again after `delay_s` seconds (0 to 43,200).
    async fn change(&self, receipt_handle: &str, delay_s: u32) -> Result<(), PortError>;
}

/// The model, behind one provider.
#[async_trait]
pub trait Model: Send + Sync {
    /// Makes exactly one call, within `request.timeout_ms`. No retries here.
    async fn call(&self, request: &ModelRequest) -> Result<ModelReply, ModelFailure>;
}

/// Where the numbers of an invocation go.
#[async_trait]
pub trait Metrics: Send + Sync {
    /// Publishes once; on failure, or when it is not done within this time, the adapter writes the same numbers to the
    /// log. Never fails its caller.
    async fn publish(&self, batch: &MetricBatch, within: Duration);
}

/// The wall clock, as this worker sees it; may be wrong by a little.
pub trait Clock: Send + Sync {
    /// Milliseconds since 1970, UTC.
    fn now_ms(&self) -> u64;
}

/// Randomness: jitter and claim tokens.
pub trait Entropy: Send + Sync {
    /// Uniform in `[0, 1)`.
    fn fraction(&self) -> f64;
    /// 128 random bits as 32 hex characters.
    fn token(&self) -> String;
}

/// The secret that opens the provider.
#[async_trait]
pub trait ModelKey: Send + Sync {
    /// The current key, from the cache where one is held.
    async fn get(&self) -> Result<secrecy::SecretString, PortError>;
    /// Forgets the cached key, so that the next `get` reads the store again. Called after a 401.
    fn forget(&self);
}
