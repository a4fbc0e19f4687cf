//! The sentinel: the real loop, each virtual minute, killed between any two awaits, two at once, skipped, its replies lost;
//! and the event source mapping, which it turns.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use nightshift_core::control::Control;
use nightshift_core::input_hash::InputHash;
use nightshift_core::listing::{Entry, Unsettled};
use nightshift_core::metric::MetricBatch;
use nightshift_core::record::Record;
use nightshift_core::redrive::{Depth, Source};
use nightshift_core::sentinel::{Calls, ProbeAsk, StackLimits, Switch, WATCH_KEY, Watch};
use nightshift_core::spend::{Spent, UtcDay};
use nightshift_ports::{
    LedgerWatch, LiveVersion, Metrics, PortError, PortErrorKind, QueueDepth, RedriveSteps, WorkerFunction,
};
use nightshift_sentinel::{Ports, Sentinel, Stack};
use tokio::time::sleep;

use crate::plan::{Away, DAY, MINUTE, SECOND};
use crate::process::{Process, error};
use crate::redriver::SimQueue;
use crate::rng::Rng;
use crate::world::{DaySpend, State, World};

/// The function's timeout.
const RUN_MS_MAX: u64 = 50 * SECOND;
/// A run that changes nothing is worth its time in the simulation now and then.
const RUN_ANYWAY: u64 = 30;

/// What leads jobs to the worker. Lambda takes its time to turn it, and refuses changes meanwhile.
#[derive(Debug)]
pub struct Mapping {
    on: bool,
    turning: Option<(u64, bool)>,
}

impl Default for Mapping {
    fn default() -> Self {
        Self { on: true, turning: None }
    }
}

impl Mapping {
    /// How it stands.
    pub fn switch(&mut self, now_ms: u64) -> Switch {
        if let Some((_, on)) = self.turning.take_if(|(until_ms, _)| *until_ms <= now_ms) {
            self.on = on;
        }
        match (self.turning, self.on) {
            (Some(_), _) => Switch::Turning,
            (None, true) => Switch::On,
            (None, false) => Switch::Off,
        }
    }

    /// Whether jobs reach the worker: until it is off.
    pub fn leads(&mut self, now_ms: u64) -> bool {
        self.switch(now_ms);
        self.on
    }

    /// Turns it; `false`: not while it turns.
    pub fn turn(&mut self, now_ms: u64, on: bool, for_ms: u64) -> bool {
        let may = self.switch(now_ms) != Switch::Turning;
        if may && self.on != on {
            self.turning = Some((now_ms + for_ms, on));
        }
        may
    }
}

/// Who polls looks again when the switch is turned.
pub fn wake_pollers(world: &Arc<World>, after_ms: u64) {
    let world = Arc::clone(world);
    tokio::spawn(async move {
        sleep(Duration::from_millis(after_ms)).await;
        world.work.notify_one();
    });
}

/// The jobs queue, as one run sees it.
struct JobsDepth(Arc<Process>);

#[async_trait]
impl QueueDepth for JobsDepth {
    async fn depth(&self) -> Result<Depth, PortError> {
        let depth = |state: &mut State, now_ms| {
            let (visible, hidden) = state.queue.depth(now_ms);
            Depth { visible: visible as u64, hidden: hidden as u64 }
        };
        self.0.does("GetQueueAttributes", 0.0, depth).await
    }
}

#[async_trait]
impl LedgerWatch for Process {
    async fn oldest(&self, unsettled: Unsettled, since_ms: u64, limit: u32) -> Result<Vec<Entry>, PortError> {
        self.does("Query", self.ledger_fails(), |state, _| {
            let inputs = &state.inputs;
            let places = state.unsettled.get(unsettled.as_str()).into_iter();
            let records = places
                .flat_map(|places| places.range((since_ms, 0)..))
                .filter_map(|(_, n)| inputs[*n as usize].record.as_deref())
                .filter(|record| Unsettled::of(&record.state) == Some(unsettled));
            records.take(limit as usize).map(Entry::of).collect()
        })
        .await
    }

    async fn records(&self, keys: &[InputHash]) -> Result<Vec<Record>, PortError> {
        self.does("BatchGetItem", self.ledger_fails(), |state, _| {
            let numbers = keys.iter().filter_map(|key| state.by_key.get(key));
            numbers.filter_map(|n| state.inputs[*n as usize].record.as_deref().cloned()).collect()
        })
        .await
    }

    async fn calls(&self, minute: u64) -> Result<Calls, PortError> {
        self.does("GetItem", self.ledger_fails(), |state, _| {
            state.told.get(&minute).copied().unwrap_or_default()
        })
        .await
    }

    async fn spent(&self, day: UtcDay) -> Result<Spent, PortError> {
        self.does("GetItem", self.ledger_fails(), |state, _| {
            state.spend.get(&day).map_or_else(Spent::default, DaySpend::spent)
        })
        .await
    }
}

#[async_trait]
impl LiveVersion for Process {
    async fn live_version(&self) -> Result<u64, PortError> {
        self.does("GetAlias", self.world.faults().visibility_fails, |state, _| u64::from(state.revision))
            .await
    }
}

#[async_trait]
impl WorkerFunction for Process {
    async fn switch(&self) -> Result<Switch, PortError> {
        let fails = self.world.faults().visibility_fails;
        self.does("GetEventSourceMapping", fails, |state, now_ms| state.mapping.switch(now_ms)).await
    }

    async fn turn(&self, on: bool) -> Result<(), PortError> {
        let (fails, for_ms) =
            (self.world.faults().visibility_fails, self.draw(|rng| rng.range(2 * SECOND, 90 * SECOND)));
        let turned = self
            .does("UpdateEventSourceMapping", fails, |state, now_ms| state.mapping.turn(now_ms, on, for_ms))
            .await?;
        wake_pollers(&self.world, for_ms);
        turned.then_some(()).ok_or_else(|| error("UpdateEventSourceMapping", PortErrorKind::Refused))
    }

    async fn ask_for_probe(&self, ask: &ProbeAsk) -> Result<(), PortError> {
        let faults = self.world.faults();
        // Lambda may deliver an event twice.
        let times = self.draw(|rng| 1 + usize::from(rng.chance(faults.delivered_twice)));
        self.does("Invoke", faults.visibility_fails, |state, _| {
            state.probes.extend(std::iter::repeat_n(ask.probe, times));
        })
        .await?;
        self.world.probe.notify_one();
        Ok(())
    }
}

#[async_trait]
impl RedriveSteps for Process {
    async fn ask_for_step(&self, _: &str) -> Result<(), PortError> {
        // Those who drive redrives here wait for nobody.
        self.does("Invoke", 0.0, |_, _| ()).await
    }
}

#[async_trait]
impl Metrics for Process {
    async fn publish(&self, _: &MetricBatch, _within: Duration) {
        let _ = self.does("PutMetricData", 0.0, |_, _| ()).await;
    }
}

impl Process {
    fn sentinel(self: &Arc<Self>) -> Sentinel {
        let queue = |source| Arc::new(SimQueue { driver: Arc::clone(self), source });
        let ports = Ports {
            jobs: Arc::new(JobsDepth(Arc::clone(self))),
            dead_letters: queue(Source::DeadLetters),
            crashed: queue(Source::Crashed),
            control: self.clone(),
            watch: self.clone(),
            documents: self.clone(),
            redrives: self.clone(),
            worker: self.clone(),
            metrics: self.clone(),
            clock: self.clone(),
        };
        let limits = &self.world.plan.limits;
        let stack_limits = StackLimits {
            retention_ms: limits.retention_ms,
            letter_retention_ms: 14 * DAY,
            spend_cap_micro_usd: limits.spend_cap_micro_usd,
            lease_ms_max: limits.function_timeout_ms + limits.lease_margin_ms,
        };
        let stack = Stack {
            name: "simulated".to_owned(),
            limits: stack_limits,
            full_width: self.world.plan.full_width(),
        };
        Sentinel::new(ports, stack)
    }
}

/// Runs the sentinel each minute, for as long as the run lasts.
pub async fn watch(world: Arc<World>) {
    let mut rng = Rng::new(world.plan.seed, "sentinel", 0);
    for nth in 0.. {
        sleep(Duration::from_millis(rng.range(55 * SECOND, 65 * SECOND))).await;
        let now_ms = world.now_ms();
        let worth_it = {
            let mut state = world.lock();
            state.judge_pauses(now_ms, &world.plan);
            nth % RUN_ANYWAY == 0 || state.has_something_to_pause_for(now_ms)
        };
        let faults = world.faults();
        let is_away = |what| world.plan.away(what, world.elapsed_ms());
        if !worth_it && !is_away(Away::Sentinel) && !is_away(Away::Ledger) {
            world.lock().looked(now_ms);
        }
        if !worth_it || world.plan.away(Away::Sentinel, world.elapsed_ms()) || rng.chance(faults.run_skipped)
        {
            continue;
        }
        let id = 1_000_000_000 + 2 * nth;
        if rng.chance(faults.run_twice) {
            let other_later_ms = rng.range(0, 200);
            let other = async {
                sleep(Duration::from_millis(other_later_ms)).await;
                run(&world, id + 1).await;
            };
            tokio::join!(run(&world, id), other);
        } else {
            run(&world, id).await;
        }
    }
}

async fn run(world: &Arc<World>, id: u64) {
    let process = Process::new(world, id);
    let sentinel = process.sentinel();
    world.lock().stats.sentinel_runs += 1;
    let began_ms = world.now_ms();
    let killed = tokio::select! {
        biased;
        () = process.killed.notified() => true,
        ran = sentinel.run() => {
            if ran.is_ok() {
                world.lock().pauses.ran_whole(began_ms);
            }
            false
        }
        () = sleep(Duration::from_millis(RUN_MS_MAX)) => true,
    };
    if killed {
        process.die();
        world.lock().stats.sentinel_kills += 1;
    }
}

impl State {
    /// What a run that finds nothing to act on would remember.
    fn looked(&mut self, now_ms: u64) {
        let Some(document) = self.documents.get_mut(WATCH_KEY) else { return };
        if let Some(watch) = Watch::from_json(&document.json) {
            document.json = Watch { seen_at_ms: now_ms, ..watch }.to_json();
        }
    }

    /// Whether a run could find anything to act on. A run that finds nothing changes nothing else, and most of a virtual
    /// day's would be such.
    fn has_something_to_pause_for(&mut self, now_ms: u64) -> bool {
        let minute = now_ms / MINUTE;
        let told = self.told.range(minute.saturating_sub(2)..).next().is_some();
        let control = Control::read(self.control.clone());
        let claimed = self.unsettled.get(Unsettled::Claimed.as_str());
        let died = claimed.is_some_and(|places| {
            places.iter().any(|(_, n)| {
                let lease = self.inputs[*n as usize].record.as_deref().map(|record| &record.state);
                matches!(lease, Some(nightshift_core::record::State::Claimed { lease_until_ms, .. }) if *lease_until_ms < now_ms)
            })
        });
        told || died
            || !control.entries.is_empty()
            || !control.foreign.is_empty()
            || self.mapping.switch(now_ms) != Switch::On
            || self.queue.live > 50_000
    }
}
