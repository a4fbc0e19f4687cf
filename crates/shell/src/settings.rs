//! The environment, in groups: one struct per concern, each readable by a function that needs only some.
//!
//! Every variable that is missing, cannot be read or contradicts another is reported together with the others, by
//! name and with what to set: who fixes a deployment wants one round, not ten.

mod function;
mod job;
mod ledger;
mod limits;
mod model;
mod queues;
mod spend;
mod stack;
mod watch;

pub use function::FunctionSettings;
pub use job::JobSettings;
pub use ledger::LedgerSettings;
pub use limits::limits;
pub use model::{KeySettings, ModelSettings, ProviderName, ProviderSettings};
pub use queues::{QueueSettings, crashed_url, worker_function};
pub use spend::{PRICES, price};
pub use stack::StackSettings;
pub use watch::WatchSettings;

/// What is wrong with the environment; one sentence for each fault.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("the environment is not usable: {}", .0.join(" "))]
pub struct SettingsError(pub Vec<String>);

/// The environment while it is read: collects faults instead of stopping at the first. What could not be read has a
/// stand-in, which nobody sees, since a fault anywhere means that no settings are given out.
pub struct Environment<'a> {
    lookup: &'a dyn Fn(&str) -> Option<String>,
    faults: Vec<String>,
    contradictions: Vec<String>,
}

impl Environment<'_> {
    /// Reads groups through `lookup`, which is `std::env::var` in a program and a table in tests.
    ///
    /// # Errors
    /// With every fault of all groups at once.
    pub fn read<C>(
        lookup: &dyn Fn(&str) -> Option<String>,
        groups: impl FnOnce(&mut Environment<'_>) -> C,
    ) -> Result<C, SettingsError> {
        let mut environment = Environment { lookup, faults: Vec::new(), contradictions: Vec::new() };
        let settings = groups(&mut environment);
        // A number that was not read would contradict others that are right.
        let faults =
            if environment.faults.is_empty() { environment.contradictions } else { environment.faults };
        if faults.is_empty() { Ok(settings) } else { Err(SettingsError(faults)) }
    }

    /// Two groups may read the same variable, and its fault is told once.
    fn fault(&mut self, fault: impl Into<String>) {
        let fault = fault.into();
        if !self.faults.contains(&fault) {
            self.faults.push(fault);
        }
    }

    /// An empty variable is an absent one: that is how Terraform and shells leave one out.
    fn optional(&self, name: &str) -> Option<String> {
        (self.lookup)(name).map(|value| value.trim().to_owned()).filter(|value| !value.is_empty())
    }

    fn required(&mut self, name: &str, advice: &str) -> String {
        self.optional(name).unwrap_or_else(|| {
            self.fault(format!("{name} is missing: {advice}."));
            String::new()
        })
    }

    fn url(&mut self, name: &str, advice: &str) -> String {
        let url = self.required(name, advice);
        if !(url.is_empty() || url.starts_with("https://") || url.starts_with("http://")) {
            self.fault(format!("{name} is {url:?}, which is not a URL: {advice}."));
        }
        url
    }

    fn number<T: std::str::FromStr + std::fmt::Display>(&mut self, name: &str, number: &mut T) {
        let Some(text) = self.optional(name) else { return };
        match text.parse() {
            Ok(read) => *number = read,
            Err(_) => self.fault(format!("{name} is {text:?}: set a whole number; the default is {number}.")),
        }
    }
}

#[cfg(test)]
mod tests;
