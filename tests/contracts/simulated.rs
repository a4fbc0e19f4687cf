//! The simulation's own table and queues, seen from the other side of its ports: on a calm day without inputs, so that
//! everything in them is the suites'. Its oracle judges what the worker may do; it changes no answer, and is not asked.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use nightshift_core::control::{Control, Stored};
use nightshift_core::dead_letter::DeadLetter;
use nightshift_core::input_hash::InputHash;
use nightshift_core::kept::{KeepAnswer, Part};
use nightshift_core::record::RecordWrite;
use nightshift_core::sentinel::Calls;
use nightshift_core::spend::{SpendAnswer, SpendChange, UtcDay};
use nightshift_ports::{
    ControlAnswer, ControlRecord, DeadLetters, Ledger, PortError, Visibility, WriteAnswer,
};
use nightshift_simulation::plan::{Plan, Profile};
use nightshift_simulation::ports::SimPorts;
use nightshift_simulation::queue::Received as Delivered;
use nightshift_simulation::world::{Environment, World};

use crate::ledger_suite::Inspect;
use crate::queue_suite::{Queues, Received};

/// A minute, as `backends` makes its queues.
const VISIBILITY_MS: u64 = 60_000;

/// The ports of one simulated environment.
pub struct Simulated {
    ports: SimPorts,
    /// The simulation makes a body from its input whenever it delivers a message; the suite's stand beside it.
    bodies: Mutex<HashMap<u32, String>>,
    letters_taken: AtomicUsize,
}

impl Simulated {
    pub fn new() -> Arc<Self> {
        let plan = Plan::of_seed(0, Some(Profile::Calm)).with_jobs(0);
        let environment = Arc::new(Environment::new(0, 1, &plan));
        let ports = SimPorts { world: World::new(plan, None), environment, invocation: AtomicU64::new(0) };
        Arc::new(Self { ports, bodies: Mutex::default(), letters_taken: AtomicUsize::new(0) })
    }

    fn world(&self) -> &World {
        &self.ports.world
    }
}

#[async_trait]
impl ControlRecord for Simulated {
    async fn control(&self) -> Result<Control, PortError> {
        self.ports.control().await
    }

    async fn control_now(&self) -> Result<Control, PortError> {
        self.ports.control_now().await
    }

    async fn put_control(&self, next: &Control, over: &Control) -> Result<ControlAnswer, PortError> {
        self.ports.put_control(next, over).await
    }
}

#[async_trait]
impl Ledger for Simulated {
    async fn put(&self, write: &RecordWrite) -> Result<WriteAnswer, PortError> {
        // Its table has a place for each input, and for no other key.
        self.world().lock().adopt(&write.record.key);
        self.ports.put(write).await
    }

    async fn keep(&self, part: &Part, now_ms: u64) -> Result<KeepAnswer, PortError> {
        self.world().lock().adopt(&part.key);
        self.ports.keep(part, now_ms).await
    }

    async fn count_duplicate(&self, key: &InputHash, message_id: &str) -> Result<(), PortError> {
        self.ports.count_duplicate(key, message_id).await
    }

    async fn note_letter_sent(&self, key: &InputHash, version: u64) -> Result<(), PortError> {
        self.ports.note_letter_sent(key, version).await
    }

    async fn tell_calls(&self, minute: u64, calls: &Calls) -> Result<(), PortError> {
        self.ports.tell_calls(minute, calls).await
    }

    async fn spend(&self, change: &SpendChange) -> Result<SpendAnswer, PortError> {
        self.ports.spend(change).await
    }
}

#[async_trait]
impl Inspect for Simulated {
    async fn duplicates(&self, key: &InputHash) -> Option<u64> {
        let state = self.world().lock();
        let input = &state.inputs[*state.by_key.get(key)? as usize];
        input.record.as_ref().map(|_| input.duplicates.0)
    }

    async fn pause_in_old_form(&self, paused: Option<(&str, u64)>) {
        let mut state = self.world().lock();
        let (reason, since_ms) = paused.unzip();
        let (paused_reason, paused_since_ms) = (reason.map(str::to_owned), since_ms);
        state.control = Stored { paused_reason, paused_since_ms, ..state.control.clone() };
    }

    async fn spend(&self, day: UtcDay) -> (u64, u64) {
        let state = self.world().lock();
        let whole = |micro_usd: i128| u64::try_from(micro_usd).unwrap();
        state
            .spend
            .get(&day)
            .map_or((0, 0), |day| (whole(day.taken_micro_usd), whole(day.shards_micro_usd.values().sum())))
    }
}

#[async_trait]
impl DeadLetters for Simulated {
    async fn send(&self, letter: &DeadLetter) -> Result<(), PortError> {
        self.ports.send(letter).await
    }
}

#[async_trait]
impl Visibility for Simulated {
    async fn change(&self, receipt_handle: &str, delay_s: u32) -> Result<(), PortError> {
        self.ports.change(receipt_handle, delay_s).await
    }
}

#[async_trait]
impl Queues for Simulated {
    async fn send_job(&self, body: &str) {
        let world = self.world();
        let id = world.lock().queue.send(0, 0, world.now_ms(), Vec::new(), None);
        self.bodies.lock().unwrap().insert(id, body.to_owned());
    }

    async fn receive_job(&self, wait_s: i32) -> Option<Received> {
        let world = self.world();
        for _ in 0..=wait_s * 4 {
            {
                let mut state = world.lock();
                let state = &mut *state;
                let limit = world.plan.limits.receive_count_max;
                let now_ms = world.now_ms();
                let delivered = state.queue.receive(now_ms, VISIBILITY_MS, limit, 0.0, &mut state.queue_rng);
                if let Some(Delivered::Message(id)) = delivered {
                    return Some(Received {
                        handle: state.queue.handle(id),
                        body: self.bodies.lock().unwrap()[&id].clone(),
                        attributes: Vec::new(),
                        receive_count: state.queue.messages[id as usize].receive_count,
                    });
                }
            }
            tokio::time::sleep(Duration::from_millis(250)).await;
        }
        None
    }

    async fn delete_job(&self, handle: &str) {
        self.world().lock().queue.delete(handle);
    }

    async fn take_dead_letter(&self) -> Option<Received> {
        let place = self.letters_taken.fetch_add(1, Ordering::Relaxed);
        let letter = self.world().lock().letters.get(place)?.letter.clone();
        Some(Received {
            handle: String::new(),
            body: letter.body,
            attributes: letter.attributes,
            receive_count: 1,
        })
    }
}
