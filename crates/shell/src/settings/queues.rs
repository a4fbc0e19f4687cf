//! Which queues.

use super::Environment;

/// The queues of the stack.
#[derive(Debug, Clone)]
pub struct QueueSettings {
    /// URL of the jobs queue.
    pub jobs_url: String,
    /// URL of the dead-letters queue.
    pub dead_letters_url: String,
}

impl QueueSettings {
    /// Reads them.
    pub fn read(environment: &mut Environment<'_>) -> Self {
        Self {
            jobs_url: environment.url("NIGHTSHIFT_JOBS_URL", "set the URL of the jobs queue"),
            dead_letters_url: environment
                .url("NIGHTSHIFT_DEAD_LETTERS_URL", "set the URL of the dead-letters queue"),
        }
    }
}

/// Reads the name of the worker's function.
pub fn worker_function(environment: &mut Environment<'_>) -> String {
    environment.required("NIGHTSHIFT_WORKER_FUNCTION", "set the name of the worker's function")
}

/// Reads the URL of the queue to which SQS moves what it gives up on.
pub fn crashed_url(environment: &mut Environment<'_>) -> String {
    environment.url("NIGHTSHIFT_CRASHED_URL", "set the URL of the crashed queue")
}
