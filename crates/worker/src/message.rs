//! A message, as SQS delivered it and as it was read.

use std::panic::AssertUnwindSafe;

use nightshift_core::dead_letter::redrive_of;
use nightshift_core::failure::{FailureReason, Rejection};
use nightshift_core::input_hash::InputHash;
use nightshift_core::job;
use nightshift_core::message::Original;
use nightshift_core::message::{Attribute, Delivery};
use nightshift_core::metric::NO_TASK;

use crate::worker::Worker;

/// One record of a batch, as SQS delivered it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Message {
    /// SQS's id.
    pub message_id: String,
    /// The handle of this delivery.
    pub receipt_handle: String,
    /// As the sender wrote it: nothing is known of it yet.
    pub body: String,
    /// `SentTimestamp`, in milliseconds since 1970.
    pub sent_at_ms: u64,
    /// `ApproximateReceiveCount`, from 1.
    pub receive_count: u32,
    /// The sender's attributes.
    pub attributes: Vec<(String, Attribute)>,
    /// The sender's `MessageGroupId`, in a fair queue.
    pub group: Option<String>,
}

/// A message, read.
pub(crate) struct Item {
    pub(crate) message: Message,
    pub(crate) delivery: Delivery,
    pub(crate) key: InputHash,
    pub(crate) job: Result<job::Job, Rejection>,
    /// The name of the deployed task, or `NO_TASK`: a sender's own word is no dimension of a metric.
    pub(crate) task: &'static str,
}

impl Item {
    /// Reads a message that was received at `now_ms`. A panic over it is its own rejection.
    pub(crate) fn read(worker: &Worker, message: Message, now_ms: u64) -> Self {
        let read = AssertUnwindSafe(|| {
            let job = job::parse(&message.body, worker.deployment.limits.body_bytes_max)?;
            let key = InputHash::of_job(&job.task, &job.input);
            let task = worker.tasks.find(&job.task).map_or(NO_TASK, |task| task.name());
            Ok((job, key, task))
        });
        let read = std::panic::catch_unwind(read).unwrap_or_else(|_| {
            Err(Rejection::new(
                FailureReason::Internal,
                "The worker panicked when it read the message: look for `panicked` in its log.",
            ))
        });
        let (job, key, task) = match read {
            Ok((job, key, task)) => (Ok(job), key, task),
            Err(rejection) => (Err(rejection), InputHash::of_body(&message.body), NO_TASK),
        };
        let delivery = Delivery {
            message_id: message.message_id.clone(),
            sent_at_ms: message.sent_at_ms,
            receive_count: message.receive_count,
            received_at_ms: now_ms,
            redrive_of: redrive_of(&message.attributes, &key),
        };
        Self { message, delivery, key, job, task }
    }

    /// What a dead letter takes over from it.
    pub(crate) fn original(&self) -> Original<'_> {
        let message = &self.message;
        Original {
            body: &message.body,
            message_id: &message.message_id,
            attributes: &message.attributes,
            group: message.group.as_deref(),
        }
    }
}
