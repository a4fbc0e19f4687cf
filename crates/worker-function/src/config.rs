//! Which settings the worker needs.

use nightshift_core::cost::Price;
use nightshift_core::limits::Limits;
use nightshift_shell::settings::{
    Environment, LedgerSettings, ModelSettings, QueueSettings, StackSettings, limits, price,
};

/// Everything that the worker is told from outside, beside what every function is.
#[derive(Debug, Clone)]
pub struct Config {
    /// The stack.
    pub stack: StackSettings,
    /// The queues.
    pub queues: QueueSettings,
    /// The ledger.
    pub ledger: LedgerSettings,
    /// The model.
    pub model: ModelSettings,
    /// What the model costs.
    pub price: Price,
    /// All limits; they agree with each other.
    pub limits: Limits,
}

impl Config {
    /// Reads it.
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
