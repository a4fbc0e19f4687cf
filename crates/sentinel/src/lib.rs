//! The sentinel over ports: what it reads, publishes and drives in one run.
//!
//! Everything that is decided stands in `nightshift_core::sentinel`. A run remembers nothing, so that one that fails, is
//! skipped or meets another does no harm: gauges of one minute are read as their highest, and a redrive's step takes a lock.
//!
//! **Invariant:** gauges and heartbeat go out before anything else is done.

use std::sync::Arc;
use std::time::Duration;

use nightshift_core::input_hash::InputHash;
use nightshift_core::listing::{Entry, Unsettled};
use nightshift_core::record::Record;
use nightshift_core::redrive::{DIRECTORY_KEY, Directory, Unreadable};
use nightshift_core::sentinel::{BEGUN_MAX, ENTRIES_MAX, Snapshot, StackLimits};
use nightshift_core::spend::UtcDay;
use nightshift_ports::{
    Clock, ControlRecord, Documents, LedgerWatch, Metrics, PortError, QueueDepth, RedriveSteps,
};

/// How long CloudWatch may take for the gauges; then they go to the log.
const PUBLISH_WITHIN: Duration = Duration::from_secs(10);

/// The world, as the sentinel sees it.
#[derive(Clone)]
#[allow(missing_docs)] // each port is documented where it is defined
pub struct Ports {
    pub jobs: Arc<dyn QueueDepth>,
    pub dead_letters: Arc<dyn QueueDepth>,
    pub crashed: Arc<dyn QueueDepth>,
    pub control: Arc<dyn ControlRecord>,
    pub watch: Arc<dyn LedgerWatch>,
    pub documents: Arc<dyn Documents>,
    pub redrives: Arc<dyn RedriveSteps>,
    pub metrics: Arc<dyn Metrics>,
    pub clock: Arc<dyn Clock>,
}

/// What the sentinel must know of the stack.
#[derive(Debug, Clone)]
pub struct Stack {
    /// Its prefix.
    pub name: String,
    /// What the gauges are measured by.
    pub limits: StackLimits,
}

/// The sentinel of one stack.
pub struct Sentinel {
    ports: Ports,
    stack: Stack,
}

/// What one run did not do. What it could do is done; the next run tries again.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("the run is not complete: {}", .0.join("; "))]
pub struct Incomplete(pub Vec<String>);

/// Why something could not be read.
#[derive(Debug, thiserror::Error)]
enum Unread {
    #[error(transparent)]
    Port(#[from] PortError),
    #[error("the directory of the redrives: {0}")]
    Directory(#[from] Unreadable),
}

impl Sentinel {
    /// The sentinel of a stack.
    #[must_use]
    pub fn new(ports: Ports, stack: Stack) -> Self {
        Self { ports, stack }
    }

    /// One run.
    ///
    /// # Errors
    /// When something could not be read or asked for; all else was done.
    pub async fn run(&self) -> Result<Snapshot, Incomplete> {
        let mut faults = Vec::new();
        let snapshot = self.look(&mut faults).await;
        let gauges = snapshot.gauges(&self.stack.name, &self.stack.limits);
        self.ports.metrics.publish(&gauges, PUBLISH_WITHIN).await;
        for id in snapshot.redrives.iter().flatten() {
            if let Err(error) = self.ports.redrives.ask_for_step(id).await {
                faults.push(format!("the redrive {id}: {error}"));
            }
        }
        if faults.is_empty() { Ok(snapshot) } else { Err(Incomplete(faults)) }
    }

    /// Reads the stack, all of it at the same time. Asking a queue for its depth also keeps it reporting: CloudWatch takes it
    /// for active for six hours after any call ("Monitoring Amazon SQS with CloudWatch").
    async fn look(&self, faults: &mut Vec<String>) -> Snapshot {
        let ports = &self.ports;
        let at_ms = ports.clock.now_ms();
        let letters_since_ms = at_ms.saturating_sub(self.stack.limits.letter_retention_ms);
        let (jobs, dead_letters, crashed, control, spent, redrives, begun, reviews, failed) = tokio::join!(
            ports.jobs.depth(),
            ports.dead_letters.depth(),
            ports.crashed.depth(),
            ports.control.control_now(),
            ports.watch.committed_micro_usd(UtcDay::of(at_ms)),
            self.redrives(),
            self.begun(),
            ports.watch.oldest(Unsettled::NeedsReview, 0, ENTRIES_MAX),
            ports.watch.oldest(Unsettled::Failed, letters_since_ms, BEGUN_MAX),
        );
        let (claimed, begun) = begun.map_or_else(
            |error| (None, known(Err(error), faults)),
            |(claimed, begun)| (Some(claimed), Some(begun)),
        );
        Snapshot {
            at_ms,
            jobs: known(jobs, faults),
            dead_letters: known(dead_letters, faults),
            crashed: known(crashed, faults),
            control: known(control, faults),
            committed_micro_usd: known(spent, faults),
            redrives: known(redrives, faults),
            claimed,
            reviews: known(reviews, faults),
            begun,
            failed: known(failed, faults),
        }
    }

    async fn redrives(&self) -> Result<Vec<String>, Unread> {
        let Some(document) = self.ports.documents.read(DIRECTORY_KEY).await? else { return Ok(Vec::new()) };
        let directory = Directory::from_json(&document.json)?;
        Ok(directory.unfinished().map(str::to_owned).collect())
    }

    /// The claims, and the records of the jobs that were begun first.
    async fn begun(&self) -> Result<(Vec<Entry>, Vec<Record>), PortError> {
        let watch = &self.ports.watch;
        let (claimed, open) = tokio::try_join!(
            watch.oldest(Unsettled::Claimed, 0, ENTRIES_MAX),
            watch.oldest(Unsettled::Open, 0, BEGUN_MAX),
        )?;
        let first = BEGUN_MAX as usize;
        let keys: Vec<InputHash> = claimed
            .iter()
            .take(first)
            .chain(open.iter().take(first))
            .map(|entry| entry.key.clone())
            .collect();
        let records = watch.records(&keys).await?;
        Ok((claimed, records))
    }
}

/// What was read; why it was not is remembered.
fn known<T, E: std::fmt::Display>(read: Result<T, E>, faults: &mut Vec<String>) -> Option<T> {
    read.map_err(|error| faults.push(error.to_string())).ok()
}

#[cfg(test)]
mod tests;
