//! Lambda in memory: pollers, environments that outlive their invocations, timeouts, kills, and lost responses.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use nightshift_core::cost::Price;
use nightshift_core::spend::UtcDay;
use nightshift_core::spread::Spread;
use nightshift_ports::Clock;
use nightshift_worker::paid_call::PaidModel;
use nightshift_worker::{BatchReport, Deployment, Message, Ports, Worker};
use tokio::time::{sleep, sleep_until};

use crate::oracle::{Promise, Seen};
use crate::ports::SimPorts;
use crate::queue::Received;
use crate::rng::Rng;
use crate::work::{TestTasks, model_of};
use crate::world::{BEGINNING_MS, Environment, Invocation, World};

/// What a token costs in the simulation.
pub const PRICE: Price = Price::flat(1_000_000, 5_000_000);
/// Lambda's own work between its clock's start and the handler's.
const OVERHEAD_MS: u64 = 5;
/// An environment of an old revision is used no longer than this after a deploy.
const OLD_KEPT_MS: u64 = 20 * 60 * 1_000;

/// A worker of a bad deploy lives no longer.
const DEADLY_MS: u64 = 150;

/// One environment with its worker.
struct Warm {
    environment: Arc<Environment>,
    ports: Arc<SimPorts>,
    worker: Arc<Worker>,
}

/// All environments that are idle.
pub struct Fleet {
    world: Arc<World>,
    idle: Mutex<Vec<Warm>>,
    rng: Mutex<Rng>,
    deployed_ms: AtomicU64,
}

/// How an invocation ended for Lambda.
enum End<T> {
    Done(T),
    Killed,
    TimedOut,
}

impl Fleet {
    /// A fleet with no environment.
    #[must_use]
    pub fn new(world: &Arc<World>) -> Arc<Self> {
        Arc::new(Self {
            world: Arc::clone(world),
            idle: Mutex::default(),
            rng: Mutex::new(Rng::new(world.plan.seed, "lambda", 0)),
            deployed_ms: AtomicU64::new(0),
        })
    }

    /// A new revision is live, or the one before is again, unless it kills; environments of the other stay for a while.
    pub fn deploy(&self, back: bool) {
        let mut state = self.world.lock();
        let live = state.revision;
        if back && !state.deadly.contains(&state.revision_before) {
            state.revision = state.revision_before;
        } else {
            state.revisions += 1;
            state.revision = state.revisions;
        }
        state.revision_before = live;
        drop(state);
        self.deployed_ms.store(self.world.elapsed_ms(), Ordering::Relaxed);
    }

    fn draw<T>(&self, from: impl FnOnce(&mut Rng) -> T) -> T {
        from(&mut self.rng.lock().unwrap_or_else(PoisonError::into_inner))
    }

    fn check_out(&self) -> Warm {
        let world = &self.world;
        let (id, live, before) = {
            let state = world.lock();
            (state.environments_begun, state.revision, state.revision_before)
        };
        let since_ms = world.elapsed_ms() - self.deployed_ms.load(Ordering::Relaxed);
        let mut idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner);
        if since_ms > OLD_KEPT_MS {
            idle.retain(|warm| warm.environment.revision == live);
        }
        if !idle.is_empty() {
            let place = self.draw(|rng| rng.range(0, idle.len() as u64 - 1));
            return idle.swap_remove(place as usize);
        }
        drop(idle);
        world.lock().environments_begun += 1;
        let plan = &world.plan;
        // While both exist, Lambda may still start an old one.
        let old = before != live && since_ms <= OLD_KEPT_MS && self.draw(|rng| rng.chance(0.3));
        let revision = if old { before } else { live };
        let environment = Arc::new(Environment::new(id, revision, plan));
        let ports = Arc::new(SimPorts {
            world: Arc::clone(world),
            environment: Arc::clone(&environment),
            invocation: AtomicU64::new(0),
        });
        let [spread, of_another] = plan.spreads;
        let spread = match revision {
            revision if revision < plan.shards_from => Spread::default(),
            revision if revision % 2 == 0 => of_another,
            _ => spread,
        };
        let deployment = Deployment {
            stack: "simulated".to_owned(),
            model: model_of(revision),
            price: PRICE,
            limits: plan.limits.clone(),
            spread,
            built_at_ms: BEGINNING_MS - 1_000_000 + u64::from(revision),
            function_version: u64::from(revision),
        };
        let all = Ports {
            ledger: ports.clone(),
            dead_letters: ports.clone(),
            visibility: ports.clone(),
            model: PaidModel::new(ports.clone()),
            metrics: ports.clone(),
            clock: ports.clone(),
            entropy: ports.clone(),
        };
        let tasks = Box::new(TestTasks::new(world, revision));
        let worker = Arc::new(Worker::new(all, tasks, deployment));
        Warm { environment, ports, worker }
    }

    /// One of the pollers, for as long as the run lasts.
    pub async fn poll(self: Arc<Self>) {
        loop {
            let leads = self.world.lock().mapping.leads(self.world.now_ms());
            let batch = if leads { self.receive() } else { Vec::new() };
            if batch.is_empty() {
                self.world.work.notified().await;
                continue;
            }
            self.invoke(batch).await;
        }
    }

    fn receive(&self) -> Vec<(u32, String)> {
        let world = &self.world;
        let limits = &world.plan.limits;
        let many = world.plan.jobs > 5_000;
        let most = self.draw(|rng| rng.range(1, u64::from(limits.batch_size)));
        let most =
            if many || most * 2 > u64::from(limits.batch_size) { limits.batch_size } else { most as u32 };
        let mut state = world.lock();
        let state = &mut *state;
        let now_ms = world.now_ms();
        let mut batch: Vec<(u32, String)> = Vec::new();
        while batch.len() < most as usize {
            let received = state.queue.receive(
                now_ms,
                limits.visibility_timeout_ms,
                limits.receive_count_max,
                world.faults().delivered_twice,
                &mut state.queue_rng,
            );
            match received {
                Some(Received::Message(id)) => {
                    let n = state.queue.messages[id as usize].input;
                    state.note(now_ms, n, || format!("message {id} received"));
                    // SQS never gives one message twice in one receive.
                    if batch.iter().any(|(of, _)| *of == id) {
                        continue;
                    }
                    batch.push((id, state.queue.handle(id)));
                }
                Some(Received::Crashed(id)) => {
                    state.crashed(now_ms, id);
                    world.progress.notify_one();
                }
                None => break,
            }
        }
        if state.queue.has_ready(now_ms) {
            world.work.notify_one();
        }
        world.visibility.notify_one();
        batch
    }

    async fn invoke(&self, batch: Vec<(u32, String)>) {
        let world = &self.world;
        let plan = &world.plan;
        let warm = self.check_out();
        let messages = {
            let state = world.lock();
            let messages = batch.iter().map(|(message, handle)| {
                let queued = &state.queue.messages[*message as usize];
                Message {
                    message_id: message.to_string(),
                    receipt_handle: handle.clone(),
                    body: state.inputs[queued.input as usize].kind.body(queued.input, queued.reference),
                    sent_at_ms: queued.sent_at_ms,
                    receive_count: queued.receive_count,
                    attributes: queued.attributes.clone(),
                    group: queued.group.clone(),
                }
            });
            messages.collect()
        };
        let running = Invocation {
            batch: batch.clone(),
            seen: Seen {
                ledger_errors: warm.environment.late_ledger_errors.swap(0, Ordering::Relaxed),
                ..Seen::default()
            },
            ..Invocation::default()
        };
        let id = self.begin(&warm, running).await;
        let invocation_id = format!("invocation-{id}");
        let work = warm.worker.process_batch(&invocation_id, self.time_left_ms(), messages);
        match self.run(&warm, work).await {
            End::Done(report) => {
                world.lock().invocation_ended(world.now_ms(), id, &report, plan);
                self.acknowledge(&batch, &report).await;
                self.check_in(warm);
            }
            End::Killed => world.lock().invocation_died(world.now_ms(), id),
            End::TimedOut => {
                self.timed_out();
                world.lock().invocation_died(world.now_ms(), id);
            }
        }
        world.progress.notify_one();
    }

    /// Answers what the sentinel asks for, for as long as the run lasts.
    pub async fn answer_probes(self: Arc<Self>) {
        let world = &self.world;
        loop {
            let Some(cause) = world.lock().probes.pop_front() else {
                world.probe.notified().await;
                continue;
            };
            let warm = self.check_out();
            let id = self.begin(&warm, Invocation { is_probe: true, ..Invocation::default() }).await;
            let invocation_id = format!("probe-{id}");
            let end = self.run(&warm, warm.worker.probe(&invocation_id, self.time_left_ms(), cause)).await;
            world.lock().invocations.remove(&id);
            match end {
                End::Done(()) => self.check_in(warm),
                End::Killed => {}
                End::TimedOut => self.timed_out(),
            }
            world.progress.notify_one();
        }
    }

    /// An invocation begins in this environment.
    async fn begin(&self, warm: &Warm, running: Invocation) -> u64 {
        let world = &self.world;
        let began_ms = world.now_ms();
        let id = {
            let mut state = world.lock();
            state.invocations_begun += 1;
            state.stats.invocations += 1;
            state.invocations_ms.push(began_ms - BEGINNING_MS);
            let id = state.invocations_begun;
            let running = Invocation {
                environment: warm.environment.id,
                revision: warm.environment.revision,
                began_ms,
                ends_ms: began_ms + world.plan.limits.function_timeout_ms,
                ..running
            };
            state.invocations.insert(id, running);
            id
        };
        warm.ports.invocation.store(id, Ordering::Relaxed);
        sleep(Duration::from_millis(OVERHEAD_MS)).await;
        let day = UtcDay::of(warm.ports.now_ms());
        if let Some(running) = world.lock().invocations.get_mut(&id) {
            running.day = Some(day);
            running.seen.starts_ms = warm.ports.now_ms();
        }
        id
    }

    fn time_left_ms(&self) -> u64 {
        self.world.plan.limits.function_timeout_ms - OVERHEAD_MS
    }

    fn timed_out(&self) {
        self.world.violate(Promise::InTime, None, "an invocation ran into its timeout");
    }

    fn check_in(&self, warm: Warm) {
        if !warm.environment.is_dead() && !self.draw(|rng| rng.chance(self.world.faults().recycle)) {
            self.idle.lock().unwrap_or_else(PoisonError::into_inner).push(warm);
        }
    }

    /// Runs one invocation; whatever ends it, its future is gone when this returns.
    async fn run<T>(&self, warm: &Warm, work: impl Future<Output = T>) -> End<T> {
        let time_left_ms = self.time_left_ms();
        let timeout = tokio::time::Instant::now() + Duration::from_millis(time_left_ms);
        let is_deadly = self.world.lock().deadly.contains(&warm.environment.revision);
        let killed_after_ms = warm.environment.draw(|rng| {
            let killed = rng.chance(self.world.faults().kill_at_time);
            // Most invocations are much shorter than their timeout.
            let after_ms = rng.range(0, rng.clone().pick(&[100, 2_000, 10_000, time_left_ms]));
            if is_deadly { Some(after_ms.min(DEADLY_MS)) } else { killed.then_some(after_ms) }
        });
        let killed_at = tokio::time::Instant::now()
            + Duration::from_millis(killed_after_ms.unwrap_or(u64::from(u32::MAX)));
        tokio::select! {
            biased;
            () = warm.environment.killed.notified() => End::Killed,
            done = work => End::Done(done),
            () = sleep_until(killed_at) => {
                warm.environment.die();
                End::Killed
            }
            () = sleep_until(timeout) => End::TimedOut,
        }
    }

    /// The poller deletes what was not reported, if the response reaches it and SQS obeys.
    async fn acknowledge(&self, batch: &[(u32, String)], report: &BatchReport) {
        let world = &self.world;
        if self.draw(|rng| rng.chance(world.faults().response_lost)) {
            let mut state = world.lock();
            for (message, _) in batch {
                state.queue.messages[*message as usize].prevented += 1;
            }
            return;
        }
        sleep(Duration::from_millis(self.draw(|rng| rng.range(2, 20)))).await;
        for (message, handle) in batch {
            if report.failed_message_ids.iter().any(|id| *id == message.to_string()) {
                continue;
            }
            if self.draw(|rng| rng.chance(world.faults().delete_fails)) {
                world.lock().queue.messages[*message as usize].prevented += 1;
                continue;
            }
            world.lock().queue.delete(handle);
        }
        world.visibility.notify_one();
    }
}
