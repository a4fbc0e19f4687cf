//! The function that drives redrives.

use async_trait::async_trait;

use crate::PortError;

/// Where steps of redrives are asked for.
#[async_trait]
pub trait RedriveSteps: Send + Sync {
    /// Asks for one step of this redrive, and does not wait for it. Two steps at once do no harm: one of them has the lock.
    async fn ask_for_step(&self, id: &str) -> Result<(), PortError>;
}
