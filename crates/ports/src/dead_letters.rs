//! Where dead letters are sent.

use async_trait::async_trait;
use nightshift_core::dead_letter::DeadLetter;

use crate::PortError;

/// The `dead-letters` queue.
#[async_trait]
pub trait DeadLetters: Send + Sync {
    /// Sends one dead letter. A repeat sends a second copy, which readers recognise by its `InputHash`.
    async fn send(&self, letter: &DeadLetter) -> Result<(), PortError>;
}
