//! The stack's functions, invoked by each other.

use std::fmt;

use async_trait::async_trait;
use aws_sdk_lambda::Client;
use aws_sdk_lambda::primitives::Blob;
use aws_sdk_lambda::types::InvocationType;
use nightshift_core::redrive::Ask;
use nightshift_ports::{PortError, PortErrorKind, RedriveSteps};

use crate::clients::SdkConfig;
use crate::error::port_error;

const SERVICE: &str = "Lambda";
const INVOKE: &str = "Invoke";

/// The redrive's function.
pub struct RedriveFunction {
    client: Client,
    name: String,
}

impl fmt::Debug for RedriveFunction {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RedriveFunction").field("name", &self.name).finish_non_exhaustive()
    }
}

impl RedriveFunction {
    /// The function of this name.
    #[must_use]
    pub fn new(sdk: &SdkConfig, name: impl Into<String>) -> Self {
        Self { client: Client::new(sdk), name: name.into() }
    }
}

#[async_trait]
impl RedriveSteps for RedriveFunction {
    async fn ask_for_step(&self, id: &str) -> Result<(), PortError> {
        let payload = serde_json::to_vec(&Ask::Step { id: id.to_owned() }).map_err(|error| PortError {
            service: SERVICE,
            operation: INVOKE,
            kind: PortErrorKind::Refused,
            message: error.to_string(),
        })?;
        self.client
            .invoke()
            .function_name(&self.name)
            .invocation_type(InvocationType::Event)
            .payload(Blob::new(payload))
            .send()
            .await
            .map(drop)
            .map_err(|e| port_error(SERVICE, INVOKE, &e))
    }
}
