//! One smallest call that asks whether jobs may be answered again.

use std::sync::Arc;

use nightshift_core::control::{Cause, Control, Phase};
use nightshift_core::metric::Metric;
use nightshift_core::model::{ModelRequest, Turn};
use nightshift_core::ready::call_price;
use nightshift_core::sentinel::{probe_task, probe_works};

use crate::invocation::Invocation;
use crate::worker::Worker;

/// What it asks; the schema and the limits are those of a job. No provider has to take an empty system prompt (Bedrock's
/// Converse refuses one).
const SYSTEM: &str = "Answer with JSON.";
const PROBE: &str = "A probe of the service: the shortest JSON that the schema allows.";

impl Worker {
    /// Makes the call that the sentinel asks for, and writes into the control record whether jobs may be answered again. Where
    /// that waits for no probe, it makes none: Lambda may deliver an event twice. Dropping the future is the same as being
    /// killed: the sentinel asks again.
    pub async fn probe(&self, invocation_id: &str, time_left_ms: u64, cause: Cause) {
        let invocation = Invocation::begin(self, invocation_id, time_left_ms, 0);
        if let Err(error) = invocation.probe(cause).await {
            tracing::warn!(request_id = invocation_id, cause = cause.as_str(), error, "the probe has no end");
        }
        invocation.publish().await;
        self.rest();
    }
}

impl Invocation<'_> {
    async fn probe(&self, cause: Cause) -> Result<(), String> {
        let ports = &self.worker.ports;
        let control = ports.ledger.control_now().await.map_err(|error| error.to_string())?;
        let entry = control.entries.get(&cause).filter(|entry| entry.phase == Phase::Probing);
        let entry = entry.ok_or("none is asked for")?;
        let tasks = &self.worker.tasks;
        let name = probe_task(cause, entry.task.as_deref(), &tasks.names(), ports.entropy.fraction());
        let task = name.and_then(|name| tasks.find(name)).ok_or("no task is deployed")?;
        let price = call_price(task, SYSTEM.len() + PROBE.len(), self.worker.deployment.price);
        let reservation = self.reserve_call(price).await.map_err(|cause| cause.as_str())?;
        let request = ModelRequest {
            system: SYSTEM.to_owned(),
            turns: vec![Turn::User(PROBE.to_owned())],
            schema_name: task.name().to_owned(),
            schema: Arc::clone(task.schema()),
            output_tokens_max: task.output_tokens_max(),
            timeout_ms: self.worker.deployment.limits.call_timeout_ms,
        };
        let call = ports.model.call(reservation, &request);
        let called = tokio::time::timeout_at(self.deadline(), call).await;
        let works = called.is_ok_and(|called| match &called.result {
            Ok((_, counted)) => {
                self.numbers(|n| {
                    n.add(task.name(), Metric::ModelCalls, 1.0);
                    n.usage(task.name(), counted.usage, counted.micro_usd);
                });
                probe_works(cause, None)
            }
            Err(failure) => {
                self.count_failure(task.name(), failure);
                probe_works(cause, Some(failure))
            }
        });
        tracing::info!(request_id = self.id, cause = cause.as_str(), works, "probed");
        let now_ms = ports.clock.now_ms();
        let change = |control: &Control| {
            let entry = control.entries.get(&cause).filter(|entry| entry.phase == Phase::Probing)?;
            Some(control.with(cause, entry.probed(works, now_ms)))
        };
        let stands = ports.ledger.change_control(&change).await.map_err(|error| error.to_string())?;
        self.worker.knows(&stands);
        Ok(())
    }
}
