//! Which settings the sentinel needs.

use nightshift_shell::settings::{
    Environment, LedgerSettings, QueueSettings, StackSettings, WatchSettings, crashed_url,
};

/// Everything that the sentinel is told from outside, beside what every function is.
#[derive(Debug, Clone)]
pub struct Config {
    /// Prefix and region, for logs and metrics.
    pub stack: StackSettings,
    /// Which it counts, and touches so that SQS keeps reporting them.
    pub queues: QueueSettings,
    /// URL of the queue of what SQS gave up on.
    pub crashed_url: String,
    /// Where ages, deaths, money and the control record stand.
    pub ledger: LedgerSettings,
    /// What it watches by.
    pub watch: WatchSettings,
}

impl Config {
    /// What is missing or wrong is kept by the environment, which tells all of it at once.
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
