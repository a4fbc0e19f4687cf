//! What lives as long as the environment.

use std::collections::HashMap;
use std::sync::atomic::AtomicU32;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use nightshift_core::blame::Evidence;
use nightshift_core::control::Admits;
use nightshift_core::control::Control;
use nightshift_core::cost::Price;
use nightshift_core::heard::Heard;
use nightshift_core::limits::Limits;
use nightshift_core::pace::share_of_width;
use nightshift_core::record::Revision;
use nightshift_core::spend::UtcDay;
use nightshift_core::spread::{FullDay, Spread, WITHIN_CAP_FOR_MS};
use nightshift_core::task::{Tasks, revision_hash};
use nightshift_ports::{Clock, DeadLetters, Entropy, Ledger, Metrics, PortError, Visibility};
use tokio::time::Instant;

use crate::flow::FlowControl;
use crate::paid_call::PaidModel;

/// How long a control record is believed before it is read again.
const CONTROL_CACHE: Duration = Duration::from_secs(5);

/// The world, as the worker sees it.
#[derive(Clone)]
#[allow(missing_docs)] // each port is documented where it is defined
pub struct Ports {
    pub ledger: Arc<dyn Ledger>,
    pub dead_letters: Arc<dyn DeadLetters>,
    pub visibility: Arc<dyn Visibility>,
    pub model: PaidModel,
    pub metrics: Arc<dyn Metrics>,
    pub clock: Arc<dyn Clock>,
    pub entropy: Arc<dyn Entropy>,
}

/// What is deployed.
#[derive(Debug, Clone)]
pub struct Deployment {
    /// The stack's name, the dimension `Stack`.
    pub stack: String,
    /// The model's name.
    pub model: String,
    /// What a token of that model costs.
    pub price: Price,
    /// How many calls, bytes, dollars and milliseconds a job may have.
    pub limits: Limits,
    /// Over how many records a day's money is spread.
    pub spread: Spread,
    /// When the worker was built, in milliseconds since 1970.
    pub built_at_ms: u64,
    /// The function's version; 0 outside Lambda.
    pub function_version: u64,
}

/// The worker of one environment; lives as long as the environment.
pub struct Worker {
    pub(crate) ports: Ports,
    pub(crate) tasks: Box<dyn Tasks>,
    pub(crate) deployment: Deployment,
    pub(crate) flow: FlowControl,
    /// What became of the calls of this environment's jobs: whose fault a refusal is.
    pub(crate) evidence: Mutex<Evidence>,
    /// The day, where it had no room of late.
    full_day: Mutex<Option<FullDay>>,
    /// The last day that said that it was within the cap, and when.
    day_within_cap: Mutex<Option<(UtcDay, u64)>>,
    /// What the sentinel is told of them.
    heard: Mutex<Heard>,
    revisions: HashMap<&'static str, Revision>,
    revision_of_none: Revision,
    control: Mutex<Option<(Instant, Control)>>,
    /// Errors after the numbers of their invocation were on their way.
    pub(crate) late_ledger_errors: AtomicU32,
    /// When the last invocation ended, by both clocks.
    last_ended: Mutex<Option<(Instant, u64)>>,
}

impl Worker {
    /// A worker with everything that it needs.
    #[must_use]
    pub fn new(ports: Ports, tasks: Box<dyn Tasks>, deployment: Deployment) -> Self {
        let revisions = tasks
            .names()
            .into_iter()
            .filter_map(|name| {
                let task = tasks.find(name)?;
                Some((name, revision(&deployment, &revision_hash(task, &deployment.model))))
            })
            .collect();
        let flow = FlowControl::new(&deployment.limits);
        let revision_of_none = revision(&deployment, "");
        Self {
            ports,
            tasks,
            deployment,
            flow,
            evidence: Mutex::new(Evidence::default()),
            full_day: Mutex::default(),
            day_within_cap: Mutex::default(),
            heard: Mutex::default(),
            revisions,
            revision_of_none,
            control: Mutex::new(None),
            late_ledger_errors: AtomicU32::new(0),
            last_ended: Mutex::new(None),
        }
    }

    /// What is deployed for a task; of an unknown one, only when.
    pub(crate) fn revision(&self, task: &str) -> &Revision {
        self.revisions.get(task).unwrap_or(&self.revision_of_none)
    }

    /// Between two invocations Lambda freezes the process, and monotonic time stands still: whatever waits for it is
    /// told how long that was by the wall clock.
    pub(crate) fn wake(&self, now: Instant, now_ms: u64) {
        let last_ended = self.last_ended.lock().unwrap_or_else(PoisonError::into_inner).take();
        let Some((ended, ended_ms)) = last_ended else { return };
        let passed = Duration::from_millis(now_ms.saturating_sub(ended_ms));
        let frozen = passed.saturating_sub(now.saturating_duration_since(ended));
        self.flow.skip(frozen);
        let mut control = self.control.lock().unwrap_or_else(PoisonError::into_inner);
        *control =
            control.take().and_then(|(read_at, control)| Some((read_at.checked_sub(frozen)?, control)));
    }

    /// The invocation ends, and the process may be frozen.
    pub(crate) fn rest(&self) {
        *self.last_ended.lock().unwrap_or_else(PoisonError::into_inner) =
            Some((Instant::now(), self.ports.clock.now_ms()));
    }

    /// The control record, as it was read within `CONTROL_CACHE`.
    pub(crate) async fn control(&self) -> Result<Control, PortError> {
        {
            let mut cached = self.control.lock().unwrap_or_else(PoisonError::into_inner);
            // What is too old is forgotten, so that nobody goes by it where it cannot be read again.
            cached.take_if(|(read_at, _)| read_at.elapsed() >= CONTROL_CACHE);
            if let Some((_, control)) = &*cached {
                return Ok(control.clone());
            }
        }
        let control = self.ports.ledger.control().await?;
        self.knows(&control);
        Ok(control)
    }

    /// When a pause last gave way, as this invocation has read it. Where it could not, that may be now: a job is not failed
    /// for a wait that may have been a pause's.
    pub(crate) fn opened_at_ms(&self) -> u64 {
        match &*self.control.lock().unwrap_or_else(PoisonError::into_inner) {
            Some((_, control)) => control.opened_at_ms.unwrap_or_default(),
            None => self.ports.clock.now_ms(),
        }
    }

    /// Keeps a control record that was just read or written.
    pub(crate) fn knows(&self, control: &Control) {
        if control.is_shut() {
            self.evidence.lock().unwrap_or_else(PoisonError::into_inner).forget_account();
        }
        *self.control.lock().unwrap_or_else(PoisonError::into_inner) =
            Some((Instant::now(), control.clone()));
    }

    pub(crate) fn full_day(&self) -> Option<FullDay> {
        *self.full_day.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn found_full(&self, day: FullDay) {
        *self.full_day.lock().unwrap_or_else(PoisonError::into_inner) = Some(day);
    }

    /// Whether a day said of late that it was within the cap.
    pub(crate) fn is_within_cap(&self, day: UtcDay, now_ms: u64) -> bool {
        let said = *self.day_within_cap.lock().unwrap_or_else(PoisonError::into_inner);
        said.is_some_and(|(of, at_ms)| of == day && now_ms.abs_diff(at_ms) < WITHIN_CAP_FOR_MS)
    }

    pub(crate) fn heard_of_the_cap(&self, day: UtcDay, is_within: bool, now_ms: u64) {
        *self.day_within_cap.lock().unwrap_or_else(PoisonError::into_inner) =
            is_within.then_some((day, now_ms));
    }

    /// Changes what the sentinel is told of this environment's calls.
    pub(crate) fn heard<T>(&self, change: impl FnOnce(&mut Heard) -> T) -> T {
        change(&mut self.heard.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Keeps to what may be done, and to this environment's share of a width.
    pub(crate) fn narrow(&self, admits: Admits) {
        let fraction = self.ports.entropy.fraction();
        let environments = self.deployment.limits.concurrency_max;
        self.flow.narrow(match admits {
            Admits::Width(width, cause) => {
                Admits::Width(share_of_width(width, environments, fraction), cause)
            }
            other => other,
        });
    }
}

fn revision(deployment: &Deployment, hash: &str) -> Revision {
    Revision {
        hash: hash.to_owned(),
        built_at_ms: deployment.built_at_ms,
        function_version: deployment.function_version,
    }
}
