//! The worker's function, from outside.

use async_trait::async_trait;
use nightshift_core::sentinel::{ProbeAsk, Switch};

use crate::PortError;

/// Which worker jobs reach.
#[async_trait]
pub trait LiveVersion: Send + Sync {
    /// The version that the alias `live` points to.
    async fn live_version(&self) -> Result<u64, PortError>;
}

/// What leads jobs to the worker, and which worker.
#[async_trait]
pub trait WorkerFunction: LiveVersion {
    /// How the event source mapping stands.
    async fn switch(&self) -> Result<Switch, PortError>;
    /// Turns it; Lambda takes up to a minute or two over it. Safe to repeat.
    async fn turn(&self, on: bool) -> Result<(), PortError>;
    /// Asks for a probe, and does not wait for it; its answer stands in the control record.
    async fn ask_for_probe(&self, ask: &ProbeAsk) -> Result<(), PortError>;
}
