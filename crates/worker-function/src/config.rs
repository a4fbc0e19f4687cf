//! Which settings the worker needs.

use nightshift_core::cost::Price;
use nightshift_core::limits::Limits;
use nightshift_shell::settings::{
    Environment, LedgerSettings, ModelSettings, QueueSettings, StackSettings, limits, price,
};

/// Everything that the worker is told from outside, beside what every function is.
#[derive(Debug, Clone)]
pub struct Config {
    /// Prefix and region, for logs and metrics.
    pub stack: StackSettings,
    /// Where jobs come from, and dead letters go.
    pub queues: QueueSettings,
    /// Where records, money and the control record stand.
    pub ledger: LedgerSettings,
    /// Who is asked, at which address, with which key.
    pub model: ModelSettings,
    /// What the model costs.
    pub price: Price,
    /// All limits; they agree with each other.
    pub limits: Limits,
}

impl Config {
    /// What is missing or wrong is kept by the environment, which tells all of it at once.
    pub fn read(environment: &mut Environment<'_>) -> Self {
        Self {
            stack: StackSettings::read(environment),
            queues: QueueSettings::read(environment),
            ledger: LedgerSettings::read(environment),
            model: ModelSettings::read(environment),
            price: price(environment),
            limits: limits(environment),
        }
    }
}
