//! Which settings the redrive needs.

use nightshift_core::cost::Price;
use nightshift_shell::settings::{
    Environment, JobSettings, LedgerSettings, QueueSettings, StackSettings, crashed_url, price,
    worker_function,
};

/// Everything that the redrive is told from outside, beside what every function is.
#[derive(Debug, Clone)]
pub struct Config {
    /// The stack.
    pub stack: StackSettings,
    /// The queues.
    pub queues: QueueSettings,
    /// URL of the queue of what SQS gave up on.
    pub crashed_url: String,
    /// Name of the worker's function.
    pub worker_function: String,
    /// The ledger.
    pub ledger: LedgerSettings,
    /// What the worker does with a job.
    pub job: JobSettings,
    /// What the model costs.
    pub price: Price,
}

impl Config {
    /// Reads it.
    pub fn read(environment: &mut Environment<'_>) -> Self {
        Self {
            stack: StackSettings::read(environment),
            queues: QueueSettings::read(environment),
            crashed_url: crashed_url(environment),
            worker_function: worker_function(environment),
            ledger: LedgerSettings::read(environment),
            job: JobSettings::read(environment),
            price: price(environment),
        }
    }
}
