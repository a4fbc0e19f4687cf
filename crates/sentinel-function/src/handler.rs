//! One invocation: one run. Whoever invokes it says nothing; the event is not read.

use lambda_runtime::Diagnostic;
use nightshift_sentinel::{Incomplete, Sentinel};
use nightshift_shell::runtime::Handler;

/// Why an invocation fails, so that Lambda's `Errors` counts it.
#[derive(Debug, thiserror::Error)]
#[error(transparent)]
pub struct RunError(Incomplete);

impl From<RunError> for Diagnostic {
    fn from(error: RunError) -> Self {
        Self { error_type: "Incomplete".to_owned(), error_message: error.to_string() }
    }
}

/// Answers one event at a time.
pub struct RunHandler {
    sentinel: Sentinel,
}

impl RunHandler {
    /// A handler around the sentinel of a stack.
    #[must_use]
    pub fn new(sentinel: Sentinel) -> Self {
        Self { sentinel }
    }
}

impl Handler for RunHandler {
    type Answer = ();
    type Error = RunError;

    async fn handle(&self, _: &str, _: u64, _: &str) -> Result<(), RunError> {
        self.sentinel.run().await.map(drop).map_err(RunError)
    }
}
