//! The sentinel over ports: what it reads, publishes and drives in one run.
//!
//! Everything that is decided stands in `nightshift_core::sentinel`. A run remembers nothing but when it looked, so that one
//! that fails, is skipped or meets another does no harm: gauges of one minute are read as their highest, and a redrive's step
//! takes a lock.
//!
//! **Invariant:** gauges and heartbeat go out before anything else is done.
//! **Invariant:** the event source mapping follows the control record as it stands then, and nothing else: whatever a run
//! that was killed left behind, the next one puts right.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use nightshift_core::input_hash::InputHash;
use nightshift_core::listing::{self, Unsettled};
use nightshift_core::record::Record;
use nightshift_core::redrive::{DIRECTORY_KEY, Directory, Unreadable};
use nightshift_core::sentinel::{BEGUN_MAX, Calls, ENTRIES_MAX, Snapshot, StackLimits, WATCH_KEY, Watch};
use nightshift_core::spend::{Spent, UtcDay};
use nightshift_ports::{
    Clock, ControlRecord, Document, Documents, LedgerWatch, Metrics, PortError, QueueDepth, RedriveSteps,
    WorkerFunction,
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
    pub worker: Arc<dyn WorkerFunction>,
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
    /// How many calls may be open at once with nothing held back.
    pub full_width: u32,
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
        let (snapshot, standing) = self.look(&mut faults).await;
        let gauges = snapshot.gauges(&self.stack.name, &self.stack.limits);
        self.ports.metrics.publish(&gauges, PUBLISH_WITHIN).await;
        if let Some(watch) = snapshot.watch.filter(|_| snapshot.dead_are_known())
            && let Err(error) = self.remember(&watch, standing.as_ref()).await
        {
            faults.push(error.to_string());
        }
        faults.extend(self.pause_or_open(&snapshot).await.into_iter().map(|error| error.to_string()));
        for id in snapshot.redrives.iter().flatten() {
            if let Err(error) = self.ports.redrives.ask_for_step(id).await {
                faults.push(format!("the redrive {id}: {error}"));
            }
        }
        if faults.is_empty() { Ok(snapshot) } else { Err(Incomplete(faults)) }
    }

    /// Writes what follows into the control record, and turns the switch to where the record then wants it: an operator
    /// who paused or resumed since the snapshot is obeyed.
    async fn pause_or_open(&self, snapshot: &Snapshot) -> Vec<PortError> {
        let signs = snapshot.signs(&self.stack.limits, self.stack.full_width);
        let control = match self.ports.control.change_control(&|standing| signs.next(standing)).await {
            Ok(control) => control,
            Err(error) => return vec![error],
        };
        let turned = snapshot.switch.and_then(|switch| switch.turned(signs.leads_jobs(&control)));
        let mut faults = Vec::new();
        // A probe that the record says is under way is asked for, whatever becomes of the switch.
        if let Some(ask) = signs.probe(&control) {
            faults.extend(self.ports.worker.ask_for_probe(&ask).await.err());
        }
        if let Some(on) = turned {
            tracing::info!(
                on,
                because = control.in_old_form().map(|(why, _)| why),
                "turning the event source"
            );
            faults.extend(self.ports.worker.turn(on).await.err());
        }
        faults
    }

    /// Of two runs at once, one writes.
    async fn remember(&self, watch: &Watch, standing: Option<&Document>) -> Result<(), PortError> {
        let expect = standing.map(|document| document.version);
        let document = Document {
            key: WATCH_KEY.to_owned(),
            version: expect.unwrap_or_default() + 1,
            json: watch.to_json(),
            expires_at_s: None,
        };
        self.ports.documents.write(&document, expect).await.map(drop)
    }

    /// Reads the stack, as much as possible of it at the same time, and what the last run remembered.
    ///
    /// Asking a queue for its depth also keeps it reporting: CloudWatch takes it for active for six hours after any call
    /// ("Monitoring Amazon SQS with CloudWatch").
    async fn look(&self, faults: &mut Vec<String>) -> (Snapshot, Option<Document>) {
        let ports = &self.ports;
        let at_ms = ports.clock.now_ms();
        let letters_since_ms = at_ms.saturating_sub(self.stack.limits.letter_retention_ms);
        let (
            jobs,
            dead_letters,
            crashed,
            switch,
            live_version,
            calls,
            control,
            spent,
            redrives,
            begun,
            reviews,
            failed,
            watch,
        ) = tokio::join!(
            ports.jobs.depth(),
            ports.dead_letters.depth(),
            ports.crashed.depth(),
            ports.worker.switch(),
            ports.worker.live_version(),
            self.calls(at_ms),
            ports.control.control_now(),
            self.spent(at_ms),
            self.redrives(),
            self.begun(at_ms),
            ports.watch.oldest(Unsettled::NeedsReview, 0, ENTRIES_MAX),
            ports.watch.oldest(Unsettled::Failed, letters_since_ms, BEGUN_MAX),
            ports.documents.read(WATCH_KEY),
        );
        let (claimed, begun) = begun.map_or_else(
            |error| (None, known(Err(error), faults)),
            |(claimed, begun)| (Some(claimed), Some(begun)),
        );
        let mut snapshot = Snapshot {
            at_ms,
            jobs: known(jobs, faults),
            dead_letters: known(dead_letters, faults),
            crashed: known(crashed, faults),
            control: known(control, faults),
            spent: known(spent, faults),
            calls: known(calls, faults),
            switch: known(switch, faults),
            live_version: known(live_version, faults),
            redrives: known(redrives, faults),
            claimed,
            watch: None,
            remembers: false,
            counted: None,
            reviews: known(reviews, faults),
            begun,
            failed: known(failed, faults),
        };
        let standing = known(watch, faults);
        if let (Some(standing), Some(version)) = (&standing, snapshot.live_version) {
            let standing = standing.as_ref().and_then(|document| Watch::from_json(&document.json));
            snapshot.remembers = standing.is_some_and(|watch| watch.is_kept(at_ms));
            let lease_ms_max = self.stack.limits.lease_ms_max;
            snapshot.watch = Some(Watch::after(standing, version, lease_ms_max, at_ms));
        }
        let counted = match snapshot.claims_to_count_since_ms(&self.stack.limits) {
            Some(since_ms) => ports.watch.oldest(Unsettled::Claimed, since_ms, ENTRIES_MAX).await,
            None => Ok(Vec::new()),
        };
        snapshot.counted = known(counted, faults);
        (snapshot, standing.flatten())
    }

    /// What was told in this minute and the last; since when calls fail, also in the one before: what fails once a minute, as
    /// where a provider says when to come back, is told of anew in each. Where it said a later time than now, nobody has
    /// called since, and what was told then still stands.
    async fn calls(&self, at_ms: u64) -> Result<Calls, PortError> {
        let minute = at_ms / 60_000;
        let calls = |ago: u64| self.ports.watch.calls(minute.saturating_sub(ago));
        let (now, before, earlier) = tokio::try_join!(calls(0), calls(1), calls(2))?;
        let still_stands = earlier.failing_until_ms.is_some_and(|until_ms| until_ms > at_ms);
        let since = Calls { failing_since_ms: earlier.failing_since_ms, ..Calls::default() };
        Ok(now.and(before).and(if still_stands { earlier } else { since }))
    }

    /// The day's record. After midnight UTC the last call and its answer stand in that of the day before.
    async fn spent(&self, at_ms: u64) -> Result<Spent, PortError> {
        let today = UtcDay::of(at_ms);
        let spent = self.ports.watch.spent(today).await?;
        if spent.answered_at_ms.is_some() {
            return Ok(spent);
        }
        let before = self.ports.watch.spent(UtcDay::of(today.begins_ms().saturating_sub(1))).await?;
        let called_at_ms = spent.called_at_ms.or(before.called_at_ms);
        Ok(Spent { answered_at_ms: before.answered_at_ms, called_at_ms, ..spent })
    }

    async fn redrives(&self) -> Result<Vec<String>, Unread> {
        let Some(document) = self.ports.documents.read(DIRECTORY_KEY).await? else { return Ok(Vec::new()) };
        let directory = Directory::from_json(&document.json)?;
        Ok(directory.unfinished().map(str::to_owned).collect())
    }

    /// The claims, and the records of the jobs that were begun first: of all, and of those whose first message SQS can still
    /// have. Records without a message stand in front of both for weeks.
    async fn begun(&self, at_ms: u64) -> Result<(Vec<listing::Entry>, Vec<Record>), PortError> {
        let watch = &self.ports.watch;
        let kept_since_ms = at_ms.saturating_sub(self.stack.limits.retention_ms);
        let (claimed, claimed_lately, open, open_lately) = tokio::try_join!(
            watch.oldest(Unsettled::Claimed, 0, ENTRIES_MAX),
            watch.oldest(Unsettled::Claimed, kept_since_ms, BEGUN_MAX),
            watch.oldest(Unsettled::Open, 0, BEGUN_MAX),
            watch.oldest(Unsettled::Open, kept_since_ms, BEGUN_MAX),
        )?;
        let keys = [&claimed, &claimed_lately, &open, &open_lately]
            .into_iter()
            .flat_map(|entries| entries.iter().take(BEGUN_MAX as usize))
            .map(|entry| entry.key.clone());
        let keys: Vec<InputHash> = BTreeSet::from_iter(keys).into_iter().collect();
        let records = watch.records(&keys).await?;
        Ok((claimed, records))
    }
}

/// What was read; why it was not is remembered.
fn known<T, E: std::fmt::Display>(read: Result<T, E>, faults: &mut Vec<String>) -> Option<T> {
    read.map_err(|error| faults.push(error.to_string())).ok()
}

#[cfg(test)]
mod pause_tests;
#[cfg(test)]
mod tests;
