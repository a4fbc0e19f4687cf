//! Which settings the sentinel needs.

use nightshift_shell::settings::{
    Environment, LedgerSettings, QueueSettings, StackSettings, WatchSettings, crashed_url,
};

/// Everything that the sentinel is told from outside, beside what every function is.
#[derive(Debug, Clone)]
pub struct Config {
    /// The stack.
    pub stack: StackSettings,
    /// The queues.
    pub queues: QueueSettings,
    /// URL of the queue of what SQS gave up on.
    pub crashed_url: String,
    /// The ledger.
    pub ledger: LedgerSettings,
    /// What it watches by.
    pub watch: WatchSettings,
}

impl Config {
    /// Reads it.
    pub fn read(environment: &mut Environment<'_>) -> Self {
        Self {
            stack: StackSettings::read(environment),
            queues: QueueSettings::read(environment),
            crashed_url: crashed_url(environment),
            ledger: LedgerSettings::read(environment),
            watch: WatchSettings::read(environment),
        }
    }
}
