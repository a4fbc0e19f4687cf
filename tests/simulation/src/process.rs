//! A short-lived process beside the workers, a step of a redrive or a run of the sentinel: killed between any two awaits,
//! its replies lost.

use std::future::pending;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use nightshift_core::control::Control;
use nightshift_ports::{
    Clock, ControlAnswer, ControlRecord, Document, DocumentAnswer, Documents, Entropy, PortError,
    PortErrorKind,
};
use tokio::sync::Notify;
use tokio::time::sleep;

use crate::oracle::Writer;
use crate::plan::Away;
use crate::rng::Rng;
use crate::world::{State, World};

/// How often it is killed at a port, as a multiple of what a worker is.
pub const KILLS: f64 = 8.0;

pub struct Process {
    pub world: Arc<World>,
    pub id: u64,
    skew_ms: i64,
    dead: AtomicBool,
    pub killed: Notify,
    rng: Mutex<Rng>,
    /// Pages of a redrive that it knows to be sent, and has not noted in the record.
    pub unnoted: AtomicU64,
}

pub fn error(operation: &'static str, kind: PortErrorKind) -> PortError {
    PortError { service: "simulated", operation, kind, message: "simulated".to_owned() }
}

impl Process {
    pub fn new(world: &Arc<World>, id: u64) -> Arc<Self> {
        let mut rng = Rng::new(world.plan.seed, "driver", id);
        let skew_ms = world.plan.faults.skew_ms;
        let skew_ms = rng.range(0, 2 * skew_ms) as i64 - skew_ms as i64;
        Arc::new(Self {
            world: Arc::clone(world),
            id,
            skew_ms,
            dead: AtomicBool::new(false),
            killed: Notify::new(),
            rng: Mutex::new(rng),
            unnoted: AtomicU64::new(0),
        })
    }

    pub fn draw<T>(&self, from: impl FnOnce(&mut Rng) -> T) -> T {
        from(&mut self.rng.lock().unwrap_or_else(PoisonError::into_inner))
    }

    pub fn die(&self) {
        if !self.dead.swap(true, Ordering::Relaxed) {
            self.killed.notify_one();
        }
    }

    /// A dead process gets no further, and a living one may die here.
    async fn gate(&self) {
        if self.draw(|rng| rng.chance(self.world.faults().kill_at_port * KILLS)) {
            self.die();
        }
        if self.dead.load(Ordering::Relaxed) {
            pending::<()>().await;
        }
    }

    /// The way there, the effect, and the way back; with this probability it fails, before the effect or after it.
    pub async fn does<T>(
        &self,
        operation: &'static str,
        fails: f64,
        effect: impl FnOnce(&mut State, u64) -> T,
    ) -> Result<T, PortError> {
        self.gate().await;
        sleep(Duration::from_millis(self.draw(|rng| rng.range(3, 20)))).await;
        let (fails, after) = self.draw(|rng| (rng.chance(fails), rng.chance(0.5)));
        if fails && !after {
            self.gate().await;
            return Err(error(operation, PortErrorKind::Throttled));
        }
        let done = effect(&mut self.world.lock(), self.world.now_ms());
        self.world.visibility.notify_one();
        self.gate().await;
        if fails { Err(error(operation, PortErrorKind::Unavailable)) } else { Ok(done) }
    }

    /// How likely an operation of the SDK at DynamoDB fails in all of its attempts.
    pub fn ledger_fails(&self) -> f64 {
        let away = self.world.plan.away(Away::Ledger, self.world.elapsed_ms());
        if away { 0.97 } else { self.world.faults().ledger_throttled * 0.1 }
    }
}

#[async_trait]
impl Documents for Process {
    async fn read(&self, key: &str) -> Result<Option<Document>, PortError> {
        self.does("GetItem", self.ledger_fails(), |state, _| state.documents.get(key).cloned()).await
    }

    async fn write(&self, document: &Document, expect: Option<u64>) -> Result<DocumentAnswer, PortError> {
        let apply = |state: &mut State, _| {
            let standing = state.documents.get(&document.key);
            if standing.map(|standing| standing.version) == expect {
                state.documents.insert(document.key.clone(), document.clone());
                if let Some(running) = &mut state.redrive {
                    running.unknown_pages -= self.unnoted.swap(0, Ordering::Relaxed);
                }
                return DocumentAnswer::Written;
            }
            DocumentAnswer::Refused(standing.cloned())
        };
        // The SDK repeats what lost its reply.
        if self.draw(|rng| rng.chance(self.world.faults().ledger_reply_lost * KILLS)) {
            self.does("UpdateItem", 0.0, apply).await?;
        }
        self.does("UpdateItem", self.ledger_fails(), apply).await
    }
}

#[async_trait]
impl ControlRecord for Process {
    async fn control(&self) -> Result<Control, PortError> {
        self.control_now().await
    }

    async fn control_now(&self) -> Result<Control, PortError> {
        self.does("GetItem", self.ledger_fails(), |state, _| Control::read(state.control.clone())).await
    }

    async fn put_control(&self, next: &Control, over: &Control) -> Result<ControlAnswer, PortError> {
        let apply = |state: &mut State, now_ms| {
            state.control_write(now_ms, next, over, Writer::Sentinel, &self.world.plan)
        };
        if self.draw(|rng| rng.chance(self.world.faults().ledger_reply_lost * KILLS)) {
            self.does("UpdateItem", 0.0, apply).await?;
        }
        self.does("UpdateItem", self.ledger_fails(), apply).await
    }
}

impl Clock for Process {
    fn now_ms(&self) -> u64 {
        self.world.now_ms().saturating_add_signed(self.skew_ms)
    }
}

impl Entropy for Process {
    fn fraction(&self) -> f64 {
        self.draw(Rng::fraction)
    }

    fn token(&self) -> String {
        self.draw(|rng| format!("{:016x}{:016x}", rng.bits(), rng.bits()))
    }
}
