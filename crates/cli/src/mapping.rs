//! The event source mapping of the worker: the switch between the jobs queue and its function.

use std::time::Duration;

use aws_sdk_lambda::Client;
use aws_sdk_lambda::operation::update_event_source_mapping::UpdateEventSourceMappingError;
use aws_sdk_lambda::types::EventSourceMappingConfiguration;

use aws_smithy_runtime_api::client::orchestrator::HttpResponse;
use aws_smithy_runtime_api::client::result::SdkError;
use nightshift_ports::ControlRecord;

use crate::error::{self, Failure};
use crate::render::say;
use crate::stack::Stack;

const ACTION: &str = "lambda:UpdateEventSourceMapping";
/// Together longer than Lambda takes to turn it.
const ASKED_AGAIN: u32 = 50;
const ASKED_AFTER: Duration = Duration::from_secs(3);

/// What became of a turn of the switch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Turned {
    /// It is there, or on its way.
    AsAsked,
    /// Somebody else paused or resumed in the meantime.
    Overtaken,
}

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

    /// Turns the switch, unless it is on its way there; Lambda takes up to a minute or two over it, refuses another turn
    /// meanwhile, and is asked again for as long. Somebody who changes the record while this waits wants it otherwise, and is
    /// left to it.
    pub async fn turn(&self, on: bool, record: &dyn ControlRecord) -> Result<Turned, Failure> {
        let goes_there: &[&str] = if on { &["Enabled", "Enabling"] } else { &["Disabled", "Disabling"] };
        if goes_there.contains(&self.state.as_str()) {
            return Ok(Turned::AsAsked);
        }
        for asked in 0..ASKED_AGAIN {
            if record.control_now().await.map_err(|e| error::of_port(&e))?.is_shut() == on {
                return Ok(Turned::Overtaken);
            }
            match self.set(on).await {
                Err(error) if error.as_service_error().is_some_and(is_turning) => {
                    if asked == 0 {
                        say(
                            "Lambda is turning the event source, and takes another change in a minute or two: waiting for that.",
                        );
                    }
                    tokio::time::sleep(ASKED_AFTER).await;
                }
                turned => {
                    return turned.map(|()| Turned::AsAsked).map_err(|e| error::of_aws(ACTION, &e));
                }
            }
        }
        Err(Failure::failed(format!(
            "{ACTION} failed: Lambda has been turning the event source for minutes."
        )))
    }

    async fn set(&self, on: bool) -> Result<(), SdkError<UpdateEventSourceMappingError, HttpResponse>> {
        self.client.update_event_source_mapping().uuid(&self.uuid).enabled(on).send().await.map(drop)
    }
}

fn is_turning(error: &UpdateEventSourceMappingError) -> bool {
    error.is_resource_in_use_exception() || error.is_resource_conflict_exception()
}

fn is_from(mapping: &EventSourceMappingConfiguration, queue: &str) -> bool {
    mapping.event_source_arn().and_then(|arn| arn.rsplit(':').next()) == Some(queue)
}
