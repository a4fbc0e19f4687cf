//! Which settings the redrive needs.

use nightshift_core::cost::Price;
use nightshift_shell::settings::{
    Environment, JobSettings, LedgerSettings, QueueSettings, StackSettings, crashed_url, price,
    worker_function,
};

/// Everything that the redrive is told from outside, beside what every function is.
#[derive(Debug, Clone)]
pub struct Config {
    /// Prefix and region, for logs and metrics.
    pub stack: StackSettings,
    /// Where it takes dead letters from, and sends them to.
    pub queues: QueueSettings,
    /// URL of the queue of what SQS gave up on.
    pub crashed_url: String,
    /// Name of the worker's function.
    pub worker_function: String,
    /// Where failures and the redrive's own record stand.
    pub ledger: LedgerSettings,
    /// What the worker does with a job.
    pub job: JobSettings,
    /// What the model costs.
    pub price: Price,
}

impl Config {
    /// What is missing or wrong is kept by the environment, which tells all of it at once.
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
