//! Everything that exists in a run, behind one lock: one thread runs it, so that the lock is never waited for.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet, VecDeque};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use nightshift_core::control::{Cause, Stored};
use nightshift_core::dead_letter::DeadLetter;
use nightshift_core::failure::FailureReason;
use nightshift_core::input_hash::InputHash;
use nightshift_core::kept::Part;
use nightshift_core::listing::Unsettled;
use nightshift_core::metric::{HandBackCause, MetricBatch};
use nightshift_core::record::Record;
use nightshift_core::sentinel::Calls;
use nightshift_core::spend::{SpendKey, Spent, UtcDay};
use nightshift_ports::Document;
use tokio::sync::Notify;
use tokio::time::{Duration, Instant};

use crate::oracle::{Epoch, Heard, Pauses, Promise, Seen, Violation};
use crate::plan::{Faults, Plan};
use crate::queue::Queue;
use crate::redriver::Running;
use crate::rng::Rng;
use crate::sentinel::Mapping;
use crate::units::Units;
use crate::work::Kind;

/// When a run begins, in milliseconds since 1970: a Monday in 2026.
pub const BEGINNING_MS: u64 = 1_780_272_000_000;

/// One run's world.
pub struct World {
    /// What is meant to happen.
    pub plan: Plan,
    began: Instant,
    state: Mutex<State>,
    /// A message may be ready.
    pub work: Notify,
    /// The time of the next visible message changed.
    pub visibility: Notify,
    /// The sentinel has asked for a probe.
    pub probe: Notify,
    /// Something happened that may end the run.
    pub progress: Notify,
    quiet: Faults,
}

/// Everything that changes.
pub struct State {
    pub inputs: Vec<Input>,
    pub by_key: HashMap<InputHash, u32>,
    /// The sparse index: under each word, by the time of the first receive.
    pub unsettled: BTreeMap<&'static str, BTreeSet<(u64, u32)>>,
    pub queue: Queue,
    pub queue_rng: Rng,
    pub provider: Provider,
    pub letters: Vec<Letter>,
    /// Messages in `crashed`.
    pub crashed_letters: Vec<Letter>,
    /// The redrive that runs, the records of all, and the drivers that are at work.
    pub redrive: Option<Running>,
    pub documents: BTreeMap<String, Document>,
    pub at_work: BTreeSet<u64>,
    /// Those that run now.
    /// In order: people go through it, and a seed repeats a run.
    pub invocations: BTreeMap<u64, Invocation>,
    pub invocations_begun: u64,
    pub environments_begun: u32,
    /// The one that is live, the one that was live before, and how many there are.
    pub revision: u32,
    pub revision_before: u32,
    pub revisions: u32,
    /// Revisions that kill their workers.
    pub deadly: BTreeSet<u32>,
    pub control: Stored,
    pub mapping: Mapping,
    /// What environments told of their calls, by minute.
    pub told: BTreeMap<u64, Calls>,
    /// What the sentinel asks the worker's function to probe.
    pub probes: VecDeque<Cause>,
    /// What the oracle knows of causes and pauses.
    pub pauses: Pauses,
    pub spend: BTreeMap<UtcDay, DaySpend>,
    /// Until when a transaction is under way on a day's record.
    pub transacted: BTreeMap<UtcDay, u64>,
    /// When each environment last found a day full.
    pub full_ms: BTreeMap<u32, u64>,
    /// What DynamoDB was asked for, where its limits are simulated.
    pub units: Units,
    pub producing: bool,
    pub operating: bool,
    pub redriving: bool,
    pub erasing: bool,
    pub reviewing: bool,
    pub stats: Stats,
    pub violation: Option<Violation>,
    pub trace: Option<u32>,
    pub history: Vec<String>,
    pub digest: u64,
    pub hand_back_delays: BTreeMap<(u32, u32), u32>,
    pub backoffs: Vec<f32>,
    /// What each environment has heard of its calls.
    pub heard: BTreeMap<u32, Heard>,
    /// When inputs were settled, calls of jobs and invocations begun, and everybody shut out, in the order of time.
    pub settlements_ms: Vec<u64>,
    pub calls_ms: Vec<u64>,
    pub invocations_ms: Vec<u64>,
    pub shut_ms: Vec<u64>,
    /// When which cause began to hold all back, in virtual time since the beginning.
    pub held_ms: Vec<(Cause, u64)>,
}

/// One distinct input and its record.
pub struct Input {
    pub kind: Kind,
    /// The operator mended what was wrong with it.
    pub fixed: bool,
    pub key: InputHash,
    pub record: Option<Box<Record>>,
    /// Further messages that were counted on the record, and the last of them.
    pub duplicates: (u64, Option<String>),
    /// The last failure whose letter was noted as sent: its version, and when it was.
    pub failed_for_good: Option<(u64, u64)>,
    /// The last result that was stored: its version, and when it was made. It may be remade meanwhile.
    pub done: Option<(u64, u64)>,
    /// True time at which the record was last done or failed, and the earliest at which that was decided.
    pub settled_ms: u64,
    pub decided_ms: u64,
    /// The invocation of the last claim that took effect.
    pub holder: u64,
    pub epoch: Epoch,
    /// Of claims that an erasure ended: their invocations, and what they may go on with until they notice.
    pub ended: Vec<(u64, Epoch)>,
    pub letters: u32,
    pub failures: Failures,
    /// Its record holds words that only this revision and newer ones know.
    pub readable_from: u32,
    /// Its record was written last by a release that keeps no message of what waits for review.
    pub keeps_no_message: bool,
    pub redrives: u32,
    /// Messages of it in `crashed`.
    pub crashed: u32,
    /// When a person erased it, and the version of the tombstone.
    pub erased: Option<(u64, u64)>,
    /// The parts of a kept message beside the record.
    pub parts: Vec<Part>,
}

impl Input {
    fn new(kind: Kind, key: InputHash) -> Self {
        Self {
            kind,
            fixed: false,
            key,
            record: None,
            duplicates: (0, None),
            failed_for_good: None,
            done: None,
            settled_ms: 0,
            decided_ms: 0,
            holder: 0,
            epoch: Epoch::default(),
            ended: Vec::new(),
            letters: 0,
            failures: Failures::default(),
            readable_from: 0,
            keeps_no_message: false,
            redrives: 0,
            crashed: 0,
            erased: None,
            parts: Vec::new(),
        }
    }
}

impl Input {
    /// What an invocation works on: the present epoch, but for one whose claim an erasure ended.
    pub fn epoch_of(&mut self, invocation: u64) -> &mut Epoch {
        let ended = self.ended.iter_mut().find(|(of, _)| *of == invocation);
        ended.map_or(&mut self.epoch, |(_, epoch)| epoch)
    }

    /// The epoch that a call belongs to.
    pub fn epoch_of_call(&mut self, id: u32) -> &mut Epoch {
        let has = |epoch: &Epoch| epoch.calls.iter().any(|call| call.id == id);
        let ended = self.ended.iter_mut().map(|(_, epoch)| epoch).find(|epoch| has(epoch));
        ended.unwrap_or(&mut self.epoch)
    }
}

/// The failures of one record, by the versions at which they stood.
#[derive(Debug, Default)]
pub struct Failures {
    /// All of them, the last at the end.
    pub versions: Vec<u64>,
    /// Those whose dead letter arrived.
    pub told: HashSet<u64>,
}

/// The provider's true state.
#[derive(Debug)]
pub struct Provider {
    pub rng: Rng,
    pub requests: f64,
    pub tokens: f64,
    pub filled_ms: u64,
    pub calls: u32,
    /// What it granted so far: calls, and their tokens.
    pub granted: (u64, u64),
}

/// A message in one of the queues for what failed.
#[derive(Debug, Clone)]
pub struct Letter {
    pub letter: DeadLetter,
    /// The input that it says, and the reference of its message; `None` where it does not say so.
    pub of: Option<(u32, u32)>,
    /// The version of the failed record that it tells of.
    pub version: Option<u64>,
    /// `SentTimestamp`, and when it came into this queue.
    pub sent_at_ms: u64,
    pub came_ms: u64,
    /// Hidden until then, or visible since.
    pub visible_at_ms: u64,
    pub receives: u32,
    /// When a redrive last received it.
    pub received_ms: u64,
    /// How often a redrive has sent it.
    pub sent: u32,
    /// It is in this queue no more.
    pub moved_back: bool,
}

impl Letter {
    /// One that comes into its queue now.
    #[must_use]
    pub fn coming(
        now_ms: u64,
        sent_at_ms: u64,
        letter: DeadLetter,
        of: Option<(u32, u32)>,
        version: Option<u64>,
    ) -> Self {
        Self {
            letter,
            of,
            version,
            sent_at_ms,
            came_ms: now_ms,
            visible_at_ms: now_ms,
            receives: 0,
            received_ms: 0,
            sent: 0,
            moved_back: false,
        }
    }
}

/// One invocation that runs.
#[derive(Debug, Default)]
pub struct Invocation {
    pub environment: u32,
    pub revision: u32,
    /// The UTC day on which it began, by its own clock; `None` until it has read that.
    pub day: Option<UtcDay>,
    /// How often each of a day's records that it asked had no room, and what that had left, less what was taken since.
    pub no_room: BTreeMap<SpendKey, (u32, u64)>,
    /// The most that its calls can have cost, as far as it was told.
    pub calls_micro_usd: u64,
    pub began_ms: u64,
    pub ends_ms: u64,
    /// It is asked for one call that is no job's.
    pub is_probe: bool,
    /// Message and handle.
    pub batch: Vec<(u32, String)>,
    /// Inputs that it claimed.
    pub claimed: Vec<u32>,
    pub control_read_failed: bool,
    pub letters: Vec<(u32, FailureReason)>,
    pub published: Option<MetricBatch>,
    pub seen: Seen,
    pub open_calls: u32,
}

/// One UTC day's money.
#[derive(Debug, Default)]
pub struct DaySpend {
    /// What the day's own record has given away or counts as spent.
    pub taken_micro_usd: i128,
    /// When any of that changed.
    pub changed_ms: u64,
    /// What each shard holds.
    pub shards_micro_usd: BTreeMap<u32, i128>,
    /// When money was last taken for calls, as the workers say.
    pub reserved_at_ms: Option<u64>,
    /// When a call was last answered, as the workers say.
    pub answered_at_ms: Option<u64>,
    /// When a call was last over, as the workers say.
    pub called_at_ms: Option<u64>,
    /// What the provider charges for the calls of the invocations that began on this day; no worker knows it.
    pub billed_micro_usd: u64,
}

impl DaySpend {
    /// What was spent, or is reserved.
    #[must_use]
    pub fn committed_micro_usd(&self) -> i128 {
        self.taken_micro_usd - self.shards_micro_usd.values().sum::<i128>()
    }

    /// As the sentinel reads it.
    #[must_use]
    pub fn spent(&self) -> Spent {
        let whole = |micro_usd: i128| u64::try_from(micro_usd).unwrap_or_default();
        let shards: Vec<u64> = self.shards_micro_usd.values().map(|held| whole(*held)).collect();
        let spent = Spent::of(whole(self.taken_micro_usd), &shards, self.answered_at_ms);
        Spent { called_at_ms: self.called_at_ms, reserved_at_ms: self.reserved_at_ms, ..spent }
    }
}

/// Numbers for the summary.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Stats {
    pub messages: u64,
    pub invocations: u64,
    pub kills: u64,
    pub calls: u64,
    pub throttled: u64,
    pub results: u64,
    pub letters: BTreeMap<String, u64>,
    pub crashed: u64,
    /// Hand-backs because of the spend cap.
    pub capped: u64,
    /// Changes of a day's record that DynamoDB refused because a transaction was under way on it.
    pub conflicts: u64,
    /// All of them, by cause.
    pub handed_back: BTreeMap<HandBackCause, u64>,
    /// UTC days on which something was billed.
    pub days_billed: u64,
    pub redrives: u64,
    /// Of them, second copies of a letter that was moved back before.
    pub copies: u64,
    /// Inputs that a person erased.
    pub erasures: u64,
    /// Decisions of a person on results.
    pub reviews: u64,
    /// Pauses that a worker or the sentinel began, by cause; runs of the sentinel, those that were killed, and probes.
    pub pauses: BTreeMap<String, u64>,
    pub sentinel_runs: u64,
    pub sentinel_kills: u64,
    pub probes: u64,
    /// Redrives of the real loop, the messages that they sent, their steps that were killed, and how they ended.
    pub redrives_begun: u64,
    pub redriven: u64,
    pub redrive_kills: u64,
    pub redrives_ended: BTreeMap<String, u64>,
    pub remade_unfinished: u64,
    pub ledger_writes: u64,
    pub ledger_faults: u64,
    pub checks: u64,
    pub virtual_ms: u64,
}

/// One execution environment of the function.
pub struct Environment {
    pub id: u32,
    pub revision: u32,
    pub skew_ms: i64,
    dead: AtomicBool,
    pub killed: Notify,
    rng: Mutex<Rng>,
    /// The provider told it to wait until then; for the oracle.
    pub told_until_ms: AtomicU64,
    /// Errors of the ledger after the numbers of their invocation were on their way; for the oracle.
    pub late_ledger_errors: AtomicU64,
}

impl Environment {
    /// A fresh environment.
    #[must_use]
    pub fn new(id: u32, revision: u32, plan: &Plan) -> Self {
        let mut rng = Rng::new(plan.seed, "environment", u64::from(id));
        let skew_ms = rng.range(0, 2 * plan.faults.skew_ms) as i64 - plan.faults.skew_ms as i64;
        Self {
            id,
            revision,
            skew_ms,
            dead: AtomicBool::new(false),
            killed: Notify::new(),
            rng: Mutex::new(rng),
            told_until_ms: AtomicU64::new(0),
            late_ledger_errors: AtomicU64::new(0),
        }
    }

    /// Kills it: from now on none of its futures gets any further.
    pub fn die(&self) {
        if !self.dead.swap(true, Ordering::Relaxed) {
            self.killed.notify_one();
        }
    }

    /// Whether it was killed.
    #[must_use]
    pub fn is_dead(&self) -> bool {
        self.dead.load(Ordering::Relaxed)
    }

    /// Draws from the environment's own stream.
    pub fn draw<T>(&self, from: impl FnOnce(&mut Rng) -> T) -> T {
        from(&mut self.rng.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

impl World {
    /// The world of a plan, with all its inputs and nothing sent.
    #[must_use]
    pub fn new(plan: Plan, trace: Option<u32>) -> Arc<Self> {
        let mut rng = Rng::new(plan.seed, "inputs", 0);
        let mut by_key = HashMap::with_capacity(plan.jobs as usize);
        let inputs = (0..plan.jobs)
            .map(|n| {
                let kind = kind(&plan, &mut rng);
                let key = key(kind, n);
                by_key.insert(key.clone(), n);
                Input::new(kind, key)
            })
            .collect();
        let provider = Provider {
            rng: Rng::new(plan.seed, "provider", 0),
            requests: 0.0,
            tokens: 0.0,
            filled_ms: 0,
            calls: 0,
            granted: (0, 0),
        };
        let state = State {
            inputs,
            by_key,
            unsettled: BTreeMap::new(),
            queue: Queue::default(),
            queue_rng: Rng::new(plan.seed, "queue", 0),
            provider,
            letters: Vec::new(),
            crashed_letters: Vec::new(),
            redrive: None,
            documents: BTreeMap::new(),
            at_work: BTreeSet::new(),
            invocations: BTreeMap::new(),
            invocations_begun: 0,
            environments_begun: 0,
            revision: 1,
            revision_before: 1,
            revisions: 1,
            deadly: BTreeSet::new(),
            control: Stored::default(),
            mapping: Mapping::default(),
            told: BTreeMap::new(),
            probes: VecDeque::new(),
            pauses: Pauses::default(),
            spend: BTreeMap::new(),
            transacted: BTreeMap::new(),
            full_ms: BTreeMap::new(),
            units: Units::default(),
            producing: true,
            operating: plan.operator_every_ms > 0,
            redriving: plan.redrives_max > 0,
            erasing: plan.erasures > 0,
            reviewing: plan.reviews > 0,
            stats: Stats::default(),
            violation: None,
            trace,
            history: Vec::new(),
            digest: 0,
            hand_back_delays: BTreeMap::new(),
            backoffs: Vec::new(),
            heard: BTreeMap::new(),
            settlements_ms: Vec::new(),
            calls_ms: Vec::new(),
            invocations_ms: Vec::new(),
            shut_ms: Vec::new(),
            held_ms: Vec::new(),
        };
        let quiet = Faults { skew_ms: plan.faults.skew_ms, ..Faults::default() };
        Arc::new(Self {
            plan,
            began: Instant::now(),
            state: Mutex::new(state),
            work: Notify::new(),
            visibility: Notify::new(),
            probe: Notify::new(),
            progress: Notify::new(),
            quiet,
        })
    }

    /// Everything that changes.
    pub fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Virtual time since the beginning.
    #[must_use]
    pub fn elapsed_ms(&self) -> u64 {
        self.began.elapsed().as_millis() as u64
    }

    /// True time, which is SQS's.
    #[must_use]
    pub fn now_ms(&self) -> u64 {
        BEGINNING_MS + self.elapsed_ms()
    }

    /// The moment of a virtual time.
    #[must_use]
    pub fn instant(&self, elapsed_ms: u64) -> Instant {
        self.began + Duration::from_millis(elapsed_ms)
    }

    /// The rates that hold now.
    #[must_use]
    pub fn faults(&self) -> &Faults {
        if self.elapsed_ms() < self.plan.faults_end_ms { &self.plan.faults } else { &self.quiet }
    }

    /// A promise is broken: the first one ends the run.
    pub fn violate(&self, promise: Promise, input: Option<u32>, what: impl Into<String>) {
        self.lock().violate(self.now_ms(), promise, input, what);
        self.progress.notify_one();
    }

    /// The task's code of an input runs: the place of a panic.
    pub fn task_code_runs(&self, n: u64, place: Kind) {
        let now_ms = self.now_ms();
        let panics = {
            let mut state = self.lock();
            let Some(input) = usize::try_from(n).ok().and_then(|n| state.inputs.get_mut(n)) else { return };
            let panics = input.kind == place && !input.fixed;
            if panics {
                state.note(now_ms, n as u32, || "the task's code panics".to_owned());
                state.panicked(now_ms, n as u32, &self.plan);
            }
            panics
        };
        assert!(!panics, "{SIMULATED_PANIC}");
    }
}

/// The message of a panic that is part of the simulation.
pub const SIMULATED_PANIC: &str = "simulated panic";

impl State {
    /// Makes an input of any key, so that the table knows it.
    pub fn adopt(&mut self, key: &InputHash) {
        if !self.by_key.contains_key(key) {
            self.by_key.insert(key.clone(), self.inputs.len() as u32);
            self.inputs.push(Input::new(Kind::Good, key.clone()));
        }
    }

    /// A record stands from now on, or none.
    pub fn stand(&mut self, n: u32, record: Option<Record>) {
        let input = &mut self.inputs[n as usize];
        let old = std::mem::replace(&mut input.record, record.map(Box::new));
        let place =
            |record: &Record| Some((Unsettled::of(&record.state)?.as_str(), record.first_received_ms));
        let (old, new) = (old.as_deref().and_then(place), input.record.as_deref().and_then(place));
        if old == new {
            return;
        }
        if let Some((word, at_ms)) = old {
            self.unsettled.entry(word).or_default().remove(&(at_ms, n));
        }
        if let Some((word, at_ms)) = new {
            self.unsettled.entry(word).or_default().insert((at_ms, n));
        }
    }

    /// See [`World::violate`].
    pub fn violate(&mut self, now_ms: u64, promise: Promise, input: Option<u32>, what: impl Into<String>) {
        if self.violation.is_none() {
            let what = what.into();
            if let Some(input) = input {
                self.note(now_ms, input, || format!("BROKEN: {what}"));
            }
            self.violation = Some(Violation { promise, input, at_ms: now_ms - BEGINNING_MS, what });
        }
    }

    /// A line in the history of the input that is traced.
    pub fn note(&mut self, now_ms: u64, input: u32, what: impl FnOnce() -> String) {
        self.digest = (self.digest ^ now_ms ^ (u64::from(input) << 40)).wrapping_mul(0x0100_0000_01b3);
        if self.trace == Some(input) {
            self.history.push(format!("{:>12.3} s  {}", (now_ms - BEGINNING_MS) as f64 / 1e3, what()));
        }
    }
}

fn kind(plan: &Plan, rng: &mut Rng) -> Kind {
    let draw = rng.range(0, 999);
    let choice = rng.bits();
    let shares = &plan.shares;
    let mut edge = 0;
    let groups: [(u64, &[Kind]); 7] = [
        (shares.invalid, &[Kind::NoJob, Kind::UnknownTask, Kind::InvalidInput, Kind::Oversized]),
        (
            shares.unanswerable,
            &[Kind::Refuses, Kind::Truncates, Kind::NeverValid, Kind::TooLarge, Kind::Rejected],
        ),
        (shares.guarded, &[Kind::Guarded]),
        (shares.stubborn, &[Kind::Stubborn]),
        (shares.poison, &[Kind::Poison]),
        (shares.panics, &[Kind::PanicsInPrompt, Kind::PanicsInAccept]),
        (shares.forbidden, &[Kind::Forbidden]),
    ];
    for (share, kinds) in groups {
        edge += share;
        if draw < edge {
            return kinds[(choice % kinds.len() as u64) as usize];
        }
    }
    Kind::Good
}

fn key(kind: Kind, n: u32) -> InputHash {
    let body = kind.body(n, 0);
    match kind {
        Kind::NoJob | Kind::Oversized => InputHash::of_body(&body),
        Kind::InvalidInput => InputHash::of_job(kind.task(), &serde_json::json!({"n": n, "more": 1})),
        _ => InputHash::of_job(kind.task(), &serde_json::json!({"n": n})),
    }
}
