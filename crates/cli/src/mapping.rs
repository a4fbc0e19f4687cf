//! The event source mapping of the worker: the switch between the jobs queue and its function.

use aws_sdk_lambda::Client;
use aws_sdk_lambda::types::EventSourceMappingConfiguration;

use crate::error::{self, Failure};
use crate::stack::Stack;

/// The switch, and how it stands.
#[derive(Debug, Clone)]
pub struct Mapping {
    client: Client,
    uuid: String,
    /// `Enabled`, `Disabled`, or on the way to one of them.
    pub state: String,
}

impl Mapping {
    /// The mapping of this stack's worker.
    pub async fn find(stack: &Stack) -> Result<Self, Failure> {
        let client = Client::new(&stack.sdk);
        let function = stack.worker_function();
        let mut pages = client
            .list_event_source_mappings()
            .function_name(format!("{function}:live"))
            .into_paginator()
            .send();
        let queue = stack.jobs_queue();
        while let Some(page) = pages.next().await {
            let page = page.map_err(|e| error::of_aws("lambda:ListEventSourceMappings", &e))?;
            let found = page.event_source_mappings().iter().find(|mapping| is_from(mapping, queue));
            if let Some(uuid) = found.and_then(|mapping| mapping.uuid.clone()) {
                let state = found.and_then(|mapping| mapping.state.clone()).unwrap_or_default();
                return Ok(Self { client, uuid, state });
            }
        }
        Err(Failure::not_found(format!(
            "Nothing leads from the queue {queue} to {function}:live: deploy, which makes the event source mapping anew."
        )))
    }

    /// Whether jobs reach the worker, or are about to.
    pub fn is_on(&self) -> bool {
        !matches!(self.state.as_str(), "Disabled" | "Disabling")
    }

    /// Turns the switch; Lambda takes up to a minute or two over it.
    pub async fn set(&self, on: bool) -> Result<(), Failure> {
        let turned = self.client.update_event_source_mapping().uuid(&self.uuid).enabled(on).send().await;
        turned.map(drop).map_err(|e| error::of_aws("lambda:UpdateEventSourceMapping", &e))
    }
}

fn is_from(mapping: &EventSourceMappingConfiguration, queue: &str) -> bool {
    mapping.event_source_arn().and_then(|arn| arn.rsplit(':').next()) == Some(queue)
}
