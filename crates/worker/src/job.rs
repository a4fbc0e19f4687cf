//! The work on one record: who works on what, its writes, its log and its numbers.

use nightshift_core::kept::{KeepAnswer, Part};
use nightshift_core::limits::Limits;
use nightshift_core::metric::Metric;
use nightshift_core::next_step::ClaimAsk;
use nightshift_core::port_error::PortErrorKind;
use nightshift_core::record::{RecordWrite, Revision, WriteAnswer};
use nightshift_ports::PortError;

use crate::invocation::Invocation;
use crate::message::Item;
use crate::worker::{Ports, Worker};

/// The work on one record of an invocation. Its log lines are in the span of the record (`batch`), which names it.
#[derive(Clone, Copy)]
pub(crate) struct Job<'a> {
    pub(crate) invocation: &'a Invocation<'a>,
    pub(crate) item: &'a Item,
}

impl<'a> Job<'a> {
    pub(crate) fn worker(&self) -> &'a Worker {
        self.invocation.worker
    }

    pub(crate) fn ports(&self) -> &'a Ports {
        &self.worker().ports
    }

    pub(crate) fn limits(&self) -> &'a Limits {
        &self.worker().deployment.limits
    }

    pub(crate) fn revision(&self) -> &'a Revision {
        self.worker().revision(self.item.task)
    }

    pub(crate) fn now_ms(&self) -> u64 {
        self.ports().clock.now_ms()
    }

    /// A claim under this token.
    pub(crate) fn ask<'b>(
        &'b self,
        token: &'b str,
        now_ms: u64,
        lease_until_ms: u64,
        alone: bool,
    ) -> ClaimAsk<'b> {
        let job = self.item.job.as_ref().ok();
        ClaimAsk {
            key: &self.item.key,
            task: job.map(|job| job.task.as_str()),
            reference: job.and_then(|job| job.reference.as_deref()),
            delivery: &self.item.delivery,
            token,
            now_ms,
            lease_until_ms,
            alone,
            revision: self.revision(),
            limits: self.limits(),
        }
    }

    /// Writes to the ledger; an error is counted and logged here.
    pub(crate) async fn write(&self, write: &RecordWrite) -> Result<WriteAnswer, PortErrorKind> {
        self.ports().ledger.write(write).await.map_err(|error| self.ledger_error(&error))
    }

    /// Writes a part of a kept message; an error is counted and logged here.
    pub(crate) async fn keep(&self, part: &Part) -> Result<KeepAnswer, PortErrorKind> {
        let kept = self.ports().ledger.keep(part, self.now_ms()).await;
        kept.map_err(|error| self.ledger_error(&error))
    }

    /// Counts and logs an error of the ledger.
    pub(crate) fn ledger_error(&self, error: &PortError) -> PortErrorKind {
        self.invocation.count_ledger_error(self.item.task, error.kind);
        tracing::warn!(%error, "ledger error");
        error.kind
    }

    /// Adds to a sum.
    pub(crate) fn add(&self, metric: Metric, value: f64) {
        self.invocation.numbers(|n| n.add(self.item.task, metric, value));
    }
}
