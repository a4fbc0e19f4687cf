//! The queues, as a redrive sees them: messages that wait in one, and are sent to another.

use async_trait::async_trait;
use nightshift_core::message::Attribute;
use nightshift_core::redrive::Depth;

use crate::PortError;

/// What a sender gave a message, and what stays as it is when it is sent again.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Letter {
    /// The body, byte for byte.
    pub body: String,
    /// The attributes, at most ten.
    pub attributes: Vec<(String, Attribute)>,
    /// `MessageGroupId`: whose turn it is in a fair queue.
    pub group: Option<String>,
}

impl Letter {
    /// What SQS counts of it: the body, and name, type and value of each attribute.
    #[must_use]
    pub fn bytes(&self) -> usize {
        let attributes = self.attributes.iter().map(|(name, attribute)| attribute.bytes(name));
        self.body.len() + attributes.sum::<usize>()
    }
}

/// A message that was received.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Waiting {
    /// The handle of this receive.
    pub receipt_handle: String,
    /// `SentTimestamp`, in milliseconds since 1970, by SQS's clock. SQS keeps it when it moves a message by itself.
    pub sent_at_ms: u64,
    /// What it holds.
    pub letter: Letter,
}

/// How much a queue holds.
#[async_trait]
pub trait QueueDepth: Send + Sync {
    /// How many messages there are, by SQS's own approximate counters. Receives and hides nothing.
    async fn depth(&self) -> Result<Depth, PortError>;
}

/// A queue in which messages wait for somebody.
#[async_trait]
pub trait WaitingQueue: QueueDepth {
    /// Receives up to ten messages and hides them for `hidden_s` seconds (at most 43,200); waits up to `wait_s` seconds
    /// (at most 20) when there are none.
    async fn receive(&self, messages_max: u32, wait_s: u32, hidden_s: u32)
    -> Result<Vec<Waiting>, PortError>;
    /// Hides received messages for so many seconds from now, each by its handle; says of which it was done.
    async fn hide(&self, handles: &[(String, u32)]) -> Result<Vec<Result<(), PortError>>, PortError>;
    /// Deletes received messages; says of which it was done. A repeat is harmless.
    async fn delete(&self, handles: &[String]) -> Result<Vec<Result<(), PortError>>, PortError>;
}

/// The queue that the worker receives from.
#[async_trait]
pub trait JobsQueue: Send + Sync {
    /// Sends up to ten messages, as they are, in one request or as many as their size asks for; returns SQS's id of
    /// each, in their order. What failed may have been sent all the same.
    async fn send(&self, letters: &[&Letter]) -> Result<Vec<Result<String, PortError>>, PortError>;
}
