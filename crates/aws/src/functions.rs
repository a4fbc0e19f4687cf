//! The stack's functions, as they see each other.

use std::fmt;

use async_trait::async_trait;
use aws_sdk_lambda::Client;
use aws_sdk_lambda::primitives::Blob;
use aws_sdk_lambda::types::InvocationType;
use nightshift_core::redrive::Ask;
use nightshift_core::sentinel::{ProbeAsk, Switch};
use nightshift_ports::{LiveVersion, PortError, PortErrorKind, RedriveSteps, WorkerFunction};
use serde::Serialize;

use crate::clients::SdkConfig;
use crate::error::port_error;

const SERVICE: &str = "Lambda";
const INVOKE: &str = "Invoke";
const GET_MAPPING: &str = "GetEventSourceMapping";
const UPDATE_MAPPING: &str = "UpdateEventSourceMapping";
const GET_ALIAS: &str = "GetAlias";

/// The alias that jobs reach the worker by.
const LIVE: &str = "live";

/// Starts steps of redrives without waiting for them.
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
        invoke(&self.client, &self.name, &Ask::Step { id: id.to_owned() }).await
    }
}

/// Asynchronously: nobody waits for what becomes of it.
async fn invoke(client: &Client, function: &str, ask: &impl Serialize) -> Result<(), PortError> {
    let payload = serde_json::to_vec(ask).map_err(|error| PortError {
        service: SERVICE,
        operation: INVOKE,
        kind: PortErrorKind::Refused,
        message: error.to_string(),
    })?;
    client
        .invoke()
        .function_name(function)
        .invocation_type(InvocationType::Event)
        .payload(Blob::new(payload))
        .send()
        .await
        .map(drop)
        .map_err(|e| port_error(SERVICE, INVOKE, &e))
}

/// The alias of the worker's function.
pub struct WorkerAlias {
    client: Client,
    function: String,
}

impl fmt::Debug for WorkerAlias {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("WorkerAlias").field("function", &self.function).finish_non_exhaustive()
    }
}

impl WorkerAlias {
    /// Of the function of this name.
    #[must_use]
    pub fn new(sdk: &SdkConfig, function: impl Into<String>) -> Self {
        Self { client: Client::new(sdk), function: function.into() }
    }
}

#[async_trait]
impl LiveVersion for WorkerAlias {
    async fn live_version(&self) -> Result<u64, PortError> {
        let got = self.client.get_alias().function_name(&self.function).name(LIVE).send().await;
        let alias = got.map_err(|e| port_error(SERVICE, GET_ALIAS, &e))?;
        alias.function_version().and_then(|version| version.parse().ok()).ok_or_else(|| PortError {
            service: SERVICE,
            operation: GET_ALIAS,
            kind: PortErrorKind::Unreadable,
            message: format!("the alias {LIVE} of {} points to no number", self.function),
        })
    }
}

/// The worker's function and its event source mapping.
pub struct LiveWorker {
    client: Client,
    alias: WorkerAlias,
    mapping: String,
}

impl fmt::Debug for LiveWorker {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LiveWorker")
            .field("alias", &self.alias)
            .field("mapping", &self.mapping)
            .finish_non_exhaustive()
    }
}

impl LiveWorker {
    /// The function of this name, and the mapping of this UUID.
    #[must_use]
    pub fn new(sdk: &SdkConfig, function: impl Into<String>, mapping: impl Into<String>) -> Self {
        Self { client: Client::new(sdk), alias: WorkerAlias::new(sdk, function), mapping: mapping.into() }
    }
}

#[async_trait]
impl WorkerFunction for LiveWorker {
    async fn switch(&self) -> Result<Switch, PortError> {
        let got = self.client.get_event_source_mapping().uuid(&self.mapping).send().await;
        Ok(switch(got.map_err(|e| port_error(SERVICE, GET_MAPPING, &e))?.state()))
    }

    async fn turn(&self, on: bool) -> Result<(), PortError> {
        let turned = self.client.update_event_source_mapping().uuid(&self.mapping).enabled(on).send().await;
        turned.map(drop).map_err(|e| port_error(SERVICE, UPDATE_MAPPING, &e))
    }

    async fn ask_for_probe(&self, ask: &ProbeAsk) -> Result<(), PortError> {
        invoke(&self.client, &format!("{}:{LIVE}", self.alias.function), ask).await
    }
}

#[async_trait]
impl LiveVersion for LiveWorker {
    async fn live_version(&self) -> Result<u64, PortError> {
        self.alias.live_version().await
    }
}

/// The states of a mapping (Lambda API Reference, `EventSourceMappingConfiguration`).
fn switch(state: Option<&str>) -> Switch {
    match state {
        Some("Enabled") => Switch::On,
        Some("Disabled") => Switch::Off,
        _ => Switch::Turning,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mapping_is_on_or_off_or_on_its_way() {
        for (state, expected) in [
            (Some("Enabled"), Switch::On),
            (Some("Disabled"), Switch::Off),
            (Some("Creating"), Switch::Turning),
            (Some("Enabling"), Switch::Turning),
            (Some("Disabling"), Switch::Turning),
            (Some("Updating"), Switch::Turning),
            (Some("Deleting"), Switch::Turning),
            (None, Switch::Turning),
        ] {
            assert_eq!(switch(state), expected, "{state:?}");
        }
    }
}
