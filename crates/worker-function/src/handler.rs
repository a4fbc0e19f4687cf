//! One invocation: translate, delegate, answer.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use aws_lambda_events::sqs::SqsBatchResponse;
use lambda_runtime::Diagnostic;
use nightshift_core::sentinel::ProbeAsk;
use nightshift_models::Http;
use nightshift_ports::Clock;
use nightshift_shell::runtime::Handler;
use nightshift_worker::Worker;

use crate::event::{self, Batch, NotABatch};

/// After a pause of this length between two invocations the model's connections are given up: Lambda froze the process,
/// and time stood still for the client that should have closed them itself.
const IDLE_MS_MAX: u64 = nightshift_models::http::IDLE_MS_MAX;

/// Everything that one environment keeps between invocations.
pub struct BatchHandler {
    worker: Worker,
    clock: Arc<dyn Clock>,
    /// The connections to the model's provider; `None` where there are none.
    http: Option<Http>,
    last_ended_ms: AtomicU64,
}

/// Why a whole invocation fails, so that all of its records come back.
#[derive(Debug, thiserror::Error)]
pub enum InvocationError {
    /// Not an SQS event.
    #[error(transparent)]
    NotABatch(#[from] NotABatch),
    /// Some records have no id, so that only the whole batch can be handed back.
    /// The others are settled by now: they are recognised and acknowledged when they return.
    #[error("{0} records have no messageId and can only come back with their whole batch")]
    RecordsWithoutId(usize),
}

impl From<InvocationError> for Diagnostic {
    fn from(error: InvocationError) -> Self {
        let error_type = match error {
            InvocationError::NotABatch(_) => "NotABatch",
            InvocationError::RecordsWithoutId(_) => "RecordsWithoutId",
        };
        Self { error_type: error_type.to_owned(), error_message: error.to_string() }
    }
}

impl BatchHandler {
    /// A handler around a worker.
    #[must_use]
    pub fn new(worker: Worker, clock: Arc<dyn Clock>, http: Option<Http>) -> Self {
        Self { worker, clock, http, last_ended_ms: AtomicU64::new(u64::MAX) }
    }
}

impl Handler for BatchHandler {
    type Answer = SqsBatchResponse;
    type Error = InvocationError;

    /// Settles the records of one event, or makes the probe that the sentinel asks for.
    ///
    /// # Errors
    /// When the event is neither, or holds records that cannot be reported one by one.
    async fn handle(
        &self,
        request_id: &str,
        deadline_ms: u64,
        event: &str,
    ) -> Result<SqsBatchResponse, InvocationError> {
        let now_ms = self.clock.now_ms();
        if now_ms.saturating_sub(self.last_ended_ms.load(Ordering::Relaxed)) > IDLE_MS_MAX
            && let Some(http) = &self.http
        {
            http.drop_idle();
        }
        let time_left_ms = deadline_ms.saturating_sub(now_ms);
        let Batch { messages, unreadable_ids, without_id } = match event::read(event, now_ms) {
            Ok(batch) => batch,
            Err(not_a_batch) => {
                let ask: ProbeAsk = serde_json::from_str(event).map_err(|_| not_a_batch)?;
                self.worker.probe(request_id, time_left_ms, ask.probe).await;
                self.last_ended_ms.store(self.clock.now_ms(), Ordering::Relaxed);
                return Ok(SqsBatchResponse::default());
            }
        };
        let report = self.worker.process_batch(request_id, time_left_ms, messages).await;
        self.last_ended_ms.store(self.clock.now_ms(), Ordering::Relaxed);
        if !unreadable_ids.is_empty() {
            tracing::error!(
                message_ids = ?unreadable_ids,
                "records without a readable body are handed back; SQS moves them to the crashed queue in the end"
            );
        }
        if without_id > 0 {
            return Err(InvocationError::RecordsWithoutId(without_id));
        }
        let mut response = SqsBatchResponse::default();
        for message_id in report.failed_message_ids.into_iter().chain(unreadable_ids) {
            response.add_failure(message_id);
        }
        Ok(response)
    }
}
