//! The model, and the key that opens it.

use async_trait::async_trait;
use nightshift_core::model::{ModelFailure, ModelReply, ModelRequest};

use crate::PortError;

/// The model, behind one provider.
#[async_trait]
pub trait Model: Send + Sync {
    /// Makes exactly one call, within `request.timeout_ms`. No retries here.
    async fn call(&self, request: &ModelRequest) -> Result<ModelReply, ModelFailure>;
}

/// The secret that opens the provider.
#[async_trait]
pub trait ModelKey: Send + Sync {
    /// The current key, from the cache where one is held.
    async fn get(&self) -> Result<secrecy::SecretString, PortError>;
    /// Forgets the cached key, so that the next `get` reads the store again. Called after a 401.
    fn forget(&self);
}
