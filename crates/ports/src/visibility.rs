//! When a received message comes back.

use async_trait::async_trait;

use crate::PortError;

/// The visibility of the messages in the jobs queue.
#[async_trait]
pub trait Visibility: Send + Sync {
    /// Makes a received message visible again after `delay_s` seconds (0 to 43,200).
    async fn change(&self, receipt_handle: &str, delay_s: u32) -> Result<(), PortError>;
}
