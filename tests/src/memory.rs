//! The smallest world that a worker runs in: one table, two queues' worth of lists, and a model that says what it is
//! told to say. Every write goes through the core's own condition, and any port can be made to fail.
//!
//! The simulation has a larger world of its own, with time, fleets and kills.

use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use nightshift_core::control::{Control, Stored};
use nightshift_core::cost::Price;
use nightshift_core::dead_letter::DeadLetter;
use nightshift_core::input_hash::InputHash;
use nightshift_core::kept::{KeepAnswer, PARTS_MAX, Part, part_id};
use nightshift_core::limits::Limits;
use nightshift_core::listing::{
    Counted, Entry, Look, Lookup, Order, Page, Place, Position, ResultSelection, Scanned, Selection,
    Standing, TableSize, Unsettled, merge,
};
use nightshift_core::metric::MetricBatch;
use nightshift_core::model::{
    Answer, FailureClass, Headroom, ModelFailure, ModelReply, ModelRequest, ReportedUsage, RetryAdvice, Usage,
};
use nightshift_core::record::{Record, RecordWrite, State};
use nightshift_core::sentinel::Calls;
use nightshift_core::spend::Shards;
use nightshift_core::spend::{SpendAnswer, SpendChange, SpendKey, SpendKind, Spent, UtcDay};
use nightshift_core::spread::Spread;
use nightshift_ports::{
    Clock, ControlAnswer, ControlRecord, DeadLetters, Entropy, Ledger, LedgerReader, LedgerWatch, Metrics,
    Model, PortError, PortErrorKind, Tombstones, Visibility, WriteAnswer,
};
use nightshift_worker::paid_call::PaidModel;
use nightshift_worker::{Deployment, Message, Ports, Worker};
use tokio::time::Instant;

/// The first moment of every scenario: 2026-01-01, 00:00 UTC.
pub const START_MS: u64 = 1_767_225_600_000;

/// What happens to one request to the ledger instead of what was asked.
#[derive(Debug, Clone)]
pub enum LedgerFault {
    /// It does nothing and says so.
    Fails(PortErrorKind),
    /// It does what it was asked, the answer is lost, and the SDK's last attempt fails in this way.
    ReplyLost(PortErrorKind),
    /// It does what it was asked, the answer is lost, and the SDK asks again.
    RepeatedBySdk,
    /// The condition fails, and what it failed on is gone when it is read.
    Gone,
    /// Before it is carried out, the record becomes this.
    FindsInstead(Box<Record>),
}

/// What the model does about one call.
#[derive(Debug, Clone)]
pub enum Says {
    /// A finished answer.
    Text(String),
    /// A finished answer, and a count of its tokens.
    Counted(String, ReportedUsage),
    /// Any other answer.
    Answer(Answer),
    /// No answer, and the advice of a `retry-after` in seconds.
    Fails(FailureClass, Option<u32>),
    /// A refusal under this status, in words that leave open whose fault it is.
    Refuses(u16),
    /// It panics inside the adapter.
    Panics,
    /// It never answers, and the adapter does not keep its timeout either.
    Hangs,
    /// First this time passes.
    After(Duration, Box<Says>),
}

/// What an invocation does when its records have ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LastStep {
    /// Its numbers go to CloudWatch.
    Publication,
    /// What it spent goes into the day's record.
    Settlement,
}

/// Decides about the next write, which is the n-th from 0.
pub type OnWrite = Box<dyn FnMut(usize, &RecordWrite) -> Option<LedgerFault> + Send>;
/// Decides what is said to the next call, which is the n-th from 0.
pub type OnCall = Box<dyn FnMut(usize, &ModelRequest) -> Says + Send>;

/// Everything that outlives a worker.
pub struct World {
    started: Instant,
    state: Mutex<WorldState>,
    tokens: AtomicU64,
    frozen_ms: AtomicU64,
}

/// The records of one day's money.
#[derive(Default)]
struct Day {
    micro_usd: BTreeMap<SpendKey, u64>,
    shards: BTreeSet<u32>,
    answered_at_ms: Option<u64>,
    called_at_ms: Option<u64>,
    reserved_at_ms: Option<u64>,
}

impl Day {
    fn spent(&self) -> Spent {
        let taken = self.micro_usd.get(&SpendKey::Day).copied().unwrap_or_default();
        let shards = self.micro_usd.iter().filter(|(key, _)| **key != SpendKey::Day);
        let shards: Vec<u64> = shards.map(|(_, held)| *held).collect();
        let spent = Spent::of(taken, &shards, self.answered_at_ms);
        Spent { called_at_ms: self.called_at_ms, reserved_at_ms: self.reserved_at_ms, ..spent }
    }
}

struct WorldState {
    records: HashMap<InputHash, Record>,
    parts: HashMap<String, Part>,
    parts_meet: Option<LedgerFault>,
    /// The sparse index: under each word, by the time of the first receive.
    unsettled: BTreeMap<&'static str, BTreeSet<(u64, InputHash)>>,
    writes: Vec<RecordWrite>,
    duplicates: BTreeMap<String, Vec<String>>,
    letters: Vec<DeadLetter>,
    visibility: Vec<(String, u32)>,
    calls: Vec<ModelRequest>,
    metrics: Vec<MetricBatch>,
    told: BTreeMap<u64, Calls>,
    spent: HashMap<UtcDay, Day>,
    control: Stored,
    on_write: OnWrite,
    on_call: OnCall,
    letters_fail: bool,
    reservations_left: Option<usize>,
    settlements_fail: bool,
    shards_get_nothing: bool,
    hangs: Option<LastStep>,
    visibility_fails: bool,
    price: Price,
}

impl World {
    /// An empty world in which nothing fails, and whose model says this.
    #[must_use]
    pub fn new(on_call: impl FnMut(usize, &ModelRequest) -> Says + Send + 'static) -> Arc<Self> {
        Arc::new(Self {
            started: Instant::now(),
            state: Mutex::new(WorldState {
                records: HashMap::new(),
                parts: HashMap::new(),
                parts_meet: None,
                unsettled: BTreeMap::new(),
                writes: Vec::new(),
                duplicates: BTreeMap::new(),
                letters: Vec::new(),
                visibility: Vec::new(),
                calls: Vec::new(),
                metrics: Vec::new(),
                told: BTreeMap::new(),
                spent: HashMap::new(),
                control: Stored::default(),
                on_write: Box::new(|_, _| None),
                on_call: Box::new(on_call),
                letters_fail: false,
                reservations_left: None,
                settlements_fail: false,
                shards_get_nothing: false,
                hangs: None,
                visibility_fails: false,
                price: Price::flat(1_000_000, 5_000_000),
            }),
            tokens: AtomicU64::new(0),
            frozen_ms: AtomicU64::new(0),
        })
    }

    /// A worker of a fresh environment in this world, with the tasks of the project.
    #[must_use]
    pub fn worker(self: &Arc<Self>, limits: Limits) -> Worker {
        self.worker_with(limits, self.clone())
    }

    /// The same, with a model of its own.
    #[must_use]
    pub fn worker_with(self: &Arc<Self>, limits: Limits, model: Arc<dyn Model>) -> Worker {
        self.worker_of(Box::new(nightshift_tasks::registry()), limits, model, 0)
    }

    /// The same, with tasks of its own and the time it was built at.
    #[must_use]
    pub fn worker_of(
        self: &Arc<Self>,
        tasks: Box<dyn nightshift_core::task::Tasks>,
        limits: Limits,
        model: Arc<dyn Model>,
        built_at_ms: u64,
    ) -> Worker {
        let ports = Ports {
            ledger: self.clone(),
            dead_letters: self.clone(),
            visibility: self.clone(),
            model: PaidModel::new(model),
            metrics: self.clone(),
            clock: self.clone(),
            entropy: self.clone(),
        };
        let deployment = Deployment {
            stack: "scenario".to_owned(),
            model: "model-1".to_owned(),
            price: self.state().price,
            spread: Spread::over(limits.concurrency_max, limits.spend_cap_micro_usd, 1),
            limits,
            built_at_ms,
            function_version: built_at_ms,
        };
        Worker::new(ports, tasks, deployment)
    }

    fn state(&self) -> MutexGuard<'_, WorldState> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// From now on this decides about writes; the count starts again.
    pub fn on_write(&self, decide: impl FnMut(usize, &RecordWrite) -> Option<LedgerFault> + Send + 'static) {
        let mut state = self.state();
        state.on_write = Box::new(decide);
        state.writes.clear();
    }

    /// From now on this decides what the model says; the count starts again.
    pub fn on_call(&self, decide: impl FnMut(usize, &ModelRequest) -> Says + Send + 'static) {
        let mut state = self.state();
        state.on_call = Box::new(decide);
        state.calls.clear();
    }

    /// Lambda freezes the process for this long: the wall clock goes on, and monotonic time does not.
    pub fn freeze(&self, frozen: Duration) {
        self.frozen_ms.fetch_add(u64::try_from(frozen.as_millis()).unwrap_or(u64::MAX), Ordering::Relaxed);
    }

    /// What the model costs for the workers that start from now on.
    pub fn set_price(&self, price: Price) {
        self.state().price = price;
    }

    /// Pauses or resumes the stack.
    pub fn set_control(&self, control: &Control) {
        self.state().control = control.stored();
    }

    /// What meets each part of a kept message that is written; nothing, at first.
    pub fn parts_meet(&self, fault: Option<LedgerFault>) {
        self.state().parts_meet = fault;
    }

    /// Puts a part of a kept message there, as another worker would.
    pub fn put_part(&self, part: Part) {
        self.state().parts.insert(part.id(), part);
    }

    /// The parts that stand beside a key, in their order.
    #[must_use]
    pub fn kept_parts(&self, key: &InputHash) -> Vec<Part> {
        let state = self.state();
        (0..PARTS_MAX).filter_map(|index| state.parts.get(&part_id(key, index)).cloned()).collect()
    }

    /// Whether dead letters can be sent.
    pub fn fail_letters(&self, fail: bool) {
        self.state().letters_fail = fail;
    }

    /// How many more reservations can be written; `None`: all.
    pub fn fail_reservations_after(&self, left: Option<usize>) {
        self.state().reservations_left = left;
    }

    /// From now on no shard of a day gets what was taken for it.
    pub fn fund_no_shards(&self) {
        self.state().shards_get_nothing = true;
    }

    /// Whether what was spent can be written instead of what was reserved.
    pub fn fail_settlements(&self, fail: bool) {
        self.state().settlements_fail = fail;
    }

    /// What an invocation does at its end, and never comes to the end of.
    pub fn hang(&self, step: LastStep) {
        self.state().hangs = Some(step);
    }

    async fn hang_at(&self, step: LastStep) {
        if self.state().hangs == Some(step) {
            std::future::pending::<()>().await;
        }
    }

    /// Whether the visibility can be changed.
    pub fn fail_visibility(&self, fail: bool) {
        self.state().visibility_fails = fail;
    }

    /// Puts a record there, as if it had been written long ago.
    pub fn put(&self, record: Record) {
        self.state().stand(record);
    }

    /// What stands under a key now, as a strongly consistent read has it.
    #[must_use]
    pub fn record(&self, key: &InputHash) -> Option<Record> {
        self.state().records.get(key).cloned()
    }

    /// How many records there are.
    #[must_use]
    pub fn record_count(&self) -> usize {
        self.state().records.len()
    }

    /// The keys of the stored results.
    #[must_use]
    pub fn stored(&self) -> Vec<InputHash> {
        let state = self.state();
        let done = state.records.values().filter(|record| matches!(record.state, State::Done(_)));
        done.map(|record| record.key.clone()).collect()
    }

    /// Every write that was asked for, in order, since `on_write`.
    #[must_use]
    pub fn writes(&self) -> Vec<RecordWrite> {
        self.state().writes.clone()
    }

    /// Every call that the model got, since `on_call`.
    #[must_use]
    pub fn calls(&self) -> Vec<ModelRequest> {
        self.state().calls.clone()
    }

    /// Every dead letter that was sent.
    #[must_use]
    pub fn letters(&self) -> Vec<DeadLetter> {
        self.state().letters.clone()
    }

    /// Every change of a visibility: the handle and the delay in seconds.
    #[must_use]
    pub fn visibility(&self) -> Vec<(String, u32)> {
        self.state().visibility.clone()
    }

    /// The same, and forgets them.
    #[must_use]
    pub fn take_visibility(&self) -> Vec<(String, u32)> {
        std::mem::take(&mut self.state().visibility)
    }

    /// What workers told of their calls, of all minutes.
    #[must_use]
    pub fn told(&self) -> Calls {
        self.state().told.values().fold(Calls::default(), |sum, calls| sum.and(*calls))
    }

    /// What stands in the control record.
    #[must_use]
    pub fn control_record(&self) -> Control {
        Control::read(self.state().control.clone())
    }

    /// What the day's record says: what was spent, and what is reserved.
    #[must_use]
    pub fn committed_micro_usd(&self) -> u64 {
        self.state().spent.values().map(|day| day.spent().committed_micro_usd).sum()
    }

    /// What each invocation published.
    #[must_use]
    pub fn metrics(&self) -> Vec<MetricBatch> {
        self.state().metrics.clone()
    }

    /// The messages that were counted as duplicates of a key.
    #[must_use]
    pub fn duplicates(&self, key: &InputHash) -> Vec<String> {
        self.state().duplicates.get(key.as_str()).cloned().unwrap_or_default()
    }

    fn failed(operation: &'static str, kind: PortErrorKind) -> PortError {
        PortError { service: "memory", operation, kind, message: "as the scenario wants".to_owned() }
    }
}

impl WorldState {
    /// What the table does: the condition, the write, and what a refused write reads.
    fn carry_out(&mut self, write: &RecordWrite) -> WriteAnswer {
        let standing = self.records.get(&write.record.key);
        if write.allowed(standing) {
            self.stand(write.record.clone());
            return WriteAnswer::Written;
        }
        WriteAnswer::Refused(standing.map(|record| Box::new(record.clone())))
    }

    fn carry_out_part(&mut self, part: &Part, now_ms: u64) -> KeepAnswer {
        if !part.allowed(self.parts.get(&part.id()), now_ms) {
            return KeepAnswer::Refused;
        }
        self.parts.insert(part.id(), part.clone());
        KeepAnswer::Kept
    }

    fn stand(&mut self, record: Record) {
        let place = |record: &Record| (record.first_received_ms, record.key.clone());
        let new = Unsettled::of(&record.state).map(|word| (word, place(&record)));
        let old = self.records.insert(record.key.clone(), record);
        if let Some((old, word)) = old.and_then(|old| Some((place(&old), Unsettled::of(&old.state)?))) {
            self.unsettled.entry(word.as_str()).or_default().remove(&old);
        }
        if let Some((word, place)) = new {
            self.unsettled.entry(word.as_str()).or_default().insert(place);
        }
    }

    /// What the sparse index holds under a word, oldest first.
    fn unsettled(&self, unsettled: Unsettled) -> impl Iterator<Item = &Record> {
        let places = self.unsettled.get(unsettled.as_str()).into_iter().flatten();
        places.filter_map(|(_, key)| self.records.get(key))
    }

    fn lookup(&self, key: &InputHash) -> Lookup {
        self.records.get(key).map_or(Lookup::Absent, |record| {
            let duplicates = self.duplicates.get(key.as_str()).map_or(0, Vec::len) as u64;
            Lookup::Found(Box::new(Standing { record: record.clone(), duplicates }))
        })
    }
}

#[async_trait]
impl ControlRecord for World {
    async fn control(&self) -> Result<Control, PortError> {
        self.control_now().await
    }

    async fn control_now(&self) -> Result<Control, PortError> {
        tokio::task::yield_now().await;
        Ok(Control::read(self.state().control.clone()))
    }

    async fn put_control(&self, next: &Control, over: &Control) -> Result<ControlAnswer, PortError> {
        tokio::task::yield_now().await;
        let mut state = self.state();
        let standing = Control::read(state.control.clone());
        if (standing.version, standing.told()) != (over.version, over.told()) {
            return Ok(ControlAnswer::Refused(Box::new(standing)));
        }
        state.control = next.stored();
        Ok(ControlAnswer::Written)
    }
}

#[async_trait]
impl Ledger for World {
    async fn put(&self, write: &RecordWrite) -> Result<WriteAnswer, PortError> {
        // Others may run between any two requests.
        tokio::task::yield_now().await;
        let mut state = self.state();
        let nth = state.writes.len();
        state.writes.push(write.clone());
        let fault = (state.on_write)(nth, write);
        match fault {
            None => Ok(state.carry_out(write)),
            Some(LedgerFault::Fails(kind)) => Err(Self::failed("write", kind)),
            Some(LedgerFault::ReplyLost(kind)) => {
                state.carry_out(write);
                Err(Self::failed("write", kind))
            }
            Some(LedgerFault::RepeatedBySdk) => {
                state.carry_out(write);
                Ok(state.carry_out(write))
            }
            Some(LedgerFault::Gone) => Ok(WriteAnswer::Refused(None)),
            Some(LedgerFault::FindsInstead(record)) => {
                state.stand(*record);
                Ok(state.carry_out(write))
            }
        }
    }

    async fn keep(&self, part: &Part, now_ms: u64) -> Result<KeepAnswer, PortError> {
        tokio::task::yield_now().await;
        let mut state = self.state();
        match state.parts_meet.clone() {
            Some(LedgerFault::Fails(kind)) => Err(Self::failed("keep", kind)),
            Some(LedgerFault::ReplyLost(kind)) => {
                state.carry_out_part(part, now_ms);
                Err(Self::failed("keep", kind))
            }
            Some(LedgerFault::RepeatedBySdk) => {
                state.carry_out_part(part, now_ms);
                Ok(state.carry_out_part(part, now_ms))
            }
            Some(LedgerFault::Gone | LedgerFault::FindsInstead(_)) | None => {
                Ok(state.carry_out_part(part, now_ms))
            }
        }
    }

    async fn count_duplicate(&self, key: &InputHash, message_id: &str) -> Result<(), PortError> {
        tokio::task::yield_now().await;
        self.state().duplicates.entry(key.to_string()).or_default().push(message_id.to_owned());
        Ok(())
    }

    async fn note_letter_sent(&self, key: &InputHash, version: u64) -> Result<(), PortError> {
        tokio::task::yield_now().await;
        let mut state = self.state();
        if let Some(record) = state.records.get_mut(key).filter(|record| record.version == version) {
            record.letter_version = Some(version);
        }
        Ok(())
    }

    async fn tell_calls(&self, minute: u64, calls: &Calls) -> Result<(), PortError> {
        tokio::task::yield_now().await;
        let mut state = self.state();
        let told = state.told.entry(minute).or_default();
        *told = told.and(*calls);
        Ok(())
    }

    async fn spend(&self, change: &SpendChange) -> Result<SpendAnswer, PortError> {
        if matches!(change.kind, SpendKind::Settle { .. }) {
            self.hang_at(LastStep::Settlement).await;
        }
        tokio::task::yield_now().await;
        let mut state = self.state();
        if state.settlements_fail && matches!(change.kind, SpendKind::Settle { .. }) {
            return Err(Self::failed("spend", PortErrorKind::Throttled));
        }
        if state.shards_get_nothing && matches!(change.kind, SpendKind::Fund { .. }) {
            return Err(Self::failed("spend", PortErrorKind::Throttled));
        }
        if let (SpendKind::Reserve { .. } | SpendKind::Check { .. } | SpendKind::Draw { .. }, Some(left)) =
            (change.kind, &mut state.reservations_left)
        {
            match left.checked_sub(1) {
                Some(fewer) => *left = fewer,
                None => return Err(Self::failed("spend", PortErrorKind::Throttled)),
            }
        }
        let day = state.spent.entry(change.day).or_default();
        let held = day.micro_usd.entry(change.key).or_default();
        match change.kind {
            SpendKind::Reserve { micro_usd, cap_micro_usd, .. } if *held + micro_usd > cap_micro_usd => {
                let left_micro_usd = cap_micro_usd.saturating_sub(*held);
                return Ok(SpendAnswer::NoRoom {
                    left_micro_usd,
                    shards: Shards::of(day.shards.iter().copied()),
                });
            }
            SpendKind::Check { cap_micro_usd } if *held > cap_micro_usd => {
                return Ok(SpendAnswer::NoRoom { left_micro_usd: 0, shards: Shards::default() });
            }
            SpendKind::Draw { micro_usd } if micro_usd > *held => {
                return Ok(SpendAnswer::NoRoom { left_micro_usd: *held, shards: Shards::default() });
            }
            SpendKind::Reserve { micro_usd, shard, .. } => {
                *held += micro_usd;
                day.shards.extend(shard);
            }
            SpendKind::Check { .. } => {}
            SpendKind::Fund { micro_usd } => *held += micro_usd,
            SpendKind::Draw { micro_usd } => *held -= micro_usd,
            SpendKind::Settle { reserved_micro_usd, spent_micro_usd, answered_at_ms, called_at_ms } => {
                let (more, less) = match change.key {
                    SpendKey::Day => (spent_micro_usd, reserved_micro_usd),
                    SpendKey::Shard(_) => (reserved_micro_usd, spent_micro_usd),
                };
                *held = (*held + more).saturating_sub(less);
                day.answered_at_ms = day.answered_at_ms.max(answered_at_ms);
                day.called_at_ms = day.called_at_ms.max(called_at_ms);
            }
        }
        if change.kind.takes().is_some() {
            day.reserved_at_ms = Some(change.at_ms);
        }
        Ok(SpendAnswer::Counted)
    }
}

#[async_trait]
impl Tombstones for World {
    async fn put_tombstone(&self, write: &RecordWrite) -> Result<WriteAnswer, PortError> {
        let answer = Ledger::put(self, write).await?;
        if matches!(answer, WriteAnswer::Written) {
            self.state().duplicates.remove(write.record.key.as_str());
        }
        Ok(answer)
    }
}

#[async_trait]
impl LedgerReader for World {
    async fn list(
        &self,
        selection: &Selection,
        order: Order,
        after: Option<&Position>,
        limit: u32,
    ) -> Result<Page, PortError> {
        let from = after.cloned().unwrap_or_else(|| Position::start(1));
        let state = self.state();
        let mut rest: Vec<&Record> = state.unsettled(selection.unsettled).collect();
        if order == Order::NewestFirst {
            rest.reverse();
        }
        match from.places().first() {
            Some(Place::After { key, .. }) => {
                let seen = rest.iter().position(|record| record.key == *key).map_or(0, |at| at + 1);
                rest.drain(..seen);
            }
            Some(Place::End) => rest.clear(),
            Some(Place::Start) | None => {}
        }
        let limit = usize::try_from(limit).unwrap_or(usize::MAX);
        let ends = rest.len() <= limit;
        rest.truncate(limit);
        let place = match rest.last() {
            Some(last) if !ends => {
                Place::After { first_received_ms: last.first_received_ms, key: last.key.clone() }
            }
            _ => Place::End,
        };
        let entries = rest.into_iter().filter(|record| selection.matches(record)).map(Entry::of).collect();
        let (entries, next) = merge(order, &from, vec![Look { entries, place }]);
        Ok(Page { entries, next, read_units: 0.0 })
    }

    async fn count(&self, selection: &Selection, _: Option<&Position>) -> Result<Counted, PortError> {
        let records = self.state().records.values().filter(|record| selection.matches(record)).count();
        Ok(Counted { records: u64::try_from(records).unwrap_or(u64::MAX), next: None, read_units: 0.0 })
    }

    async fn get_many(&self, keys: &[InputHash]) -> Result<Vec<Lookup>, PortError> {
        let state = self.state();
        Ok(keys.iter().map(|key| state.lookup(key)).collect())
    }

    async fn parts(&self, key: &InputHash) -> Result<Vec<Part>, PortError> {
        Ok(self.kept_parts(key))
    }

    async fn scan_for_reference(&self, reference: &str, _: Option<&InputHash>) -> Result<Scanned, PortError> {
        let state = self.state();
        let found = state.records.values().filter(|record| record.reference.as_deref() == Some(reference));
        let found = found.map(|record| (record.key.clone(), state.lookup(&record.key))).collect();
        Ok(Scanned { found, next: None, looked_at: state.records.len() as u64, read_units: 0.0 })
    }

    async fn scan_for_erasure(&self, reference: &str, _: Option<&InputHash>) -> Result<Scanned, PortError> {
        let state = self.state();
        let found = state
            .records
            .values()
            .filter(|record| record.reference.as_deref() == Some(reference) || record.state == State::Erased);
        let found = found.map(|record| (record.key.clone(), state.lookup(&record.key))).collect();
        Ok(Scanned { found, next: None, looked_at: state.records.len() as u64, read_units: 0.0 })
    }

    async fn scan_for_results(
        &self,
        selection: &ResultSelection,
        _: Option<&InputHash>,
    ) -> Result<Scanned, PortError> {
        let state = self.state();
        let found = state.records.values().filter(|record| selection.matches(record));
        let found = found.map(|record| (record.key.clone(), state.lookup(&record.key))).collect();
        Ok(Scanned { found, next: None, looked_at: state.records.len() as u64, read_units: 0.0 })
    }

    async fn size(&self) -> Result<TableSize, PortError> {
        let items = self.state().records.len() as u64;
        // Any size will do that grows with what it holds.
        Ok(TableSize { items, bytes: items * 1_024 })
    }
}

#[async_trait]
impl LedgerWatch for World {
    async fn oldest(&self, unsettled: Unsettled, since_ms: u64, limit: u32) -> Result<Vec<Entry>, PortError> {
        let state = self.state();
        let since = state.unsettled(unsettled).skip_while(|record| record.first_received_ms < since_ms);
        Ok(since.take(limit as usize).map(Entry::of).collect())
    }

    async fn records(&self, keys: &[InputHash]) -> Result<Vec<Record>, PortError> {
        let state = self.state();
        Ok(keys.iter().filter_map(|key| state.records.get(key)).cloned().collect())
    }

    async fn calls(&self, minute: u64) -> Result<Calls, PortError> {
        Ok(self.state().told.get(&minute).copied().unwrap_or_default())
    }

    async fn spent(&self, day: UtcDay) -> Result<Spent, PortError> {
        Ok(self.state().spent.get(&day).map_or_else(Spent::default, Day::spent))
    }
}

#[async_trait]
impl DeadLetters for World {
    async fn send(&self, letter: &DeadLetter) -> Result<(), PortError> {
        tokio::task::yield_now().await;
        let mut state = self.state();
        if state.letters_fail {
            return Err(Self::failed("send", PortErrorKind::Throttled));
        }
        state.letters.push(letter.clone());
        Ok(())
    }
}

#[async_trait]
impl Visibility for World {
    async fn change(&self, receipt_handle: &str, delay_s: u32) -> Result<(), PortError> {
        tokio::task::yield_now().await;
        let mut state = self.state();
        if state.visibility_fails {
            return Err(Self::failed("change", PortErrorKind::Throttled));
        }
        state.visibility.push((receipt_handle.to_owned(), delay_s));
        Ok(())
    }
}

#[async_trait]
impl Model for World {
    #[allow(clippy::panic)] // A panic of the adapter is what some scenarios are about.
    async fn call(&self, request: &ModelRequest) -> Result<ModelReply, ModelFailure> {
        let mut says = {
            let mut state = self.state();
            let nth = state.calls.len();
            state.calls.push(request.clone());
            (state.on_call)(nth, request)
        };
        let mut waits = VecDeque::new();
        while let Says::After(wait, then) = says {
            waits.push_back(wait);
            says = *then;
        }
        for wait in waits {
            tokio::time::sleep(wait).await;
        }
        let usage = Usage { input_tokens: 100, output_tokens: 20 }.into();
        let (answer, usage) = match says {
            Says::Text(text) => (Answer::Text(text), usage),
            Says::Counted(text, usage) => (Answer::Text(text), usage),
            Says::Answer(answer) => (answer, usage),
            Says::Fails(class, retry_after_s) => {
                return Err(ModelFailure {
                    class,
                    status: Some(500),
                    error_type: "scripted".to_owned(),
                    message: "as the scenario wants".to_owned(),
                    request_id: Some("req-scripted".to_owned()),
                    advice: RetryAdvice {
                        retry_after: retry_after_s.map(|s| s.to_string()),
                        ..RetryAdvice::default()
                    },
                    headroom: Headroom::default(),
                    oversize: None,
                });
            }
            Says::Refuses(status) => {
                return Err(ModelFailure {
                    class: FailureClass::Unclear,
                    status: Some(status),
                    error_type: format!("http_{status}"),
                    message: "no".to_owned(),
                    request_id: None,
                    advice: RetryAdvice::default(),
                    headroom: Headroom::default(),
                    oversize: None,
                });
            }
            Says::Panics => panic!("as the scenario wants"),
            Says::Hangs | Says::After(..) => std::future::pending().await,
        };
        Ok(ModelReply {
            answer,
            usage,
            request_id: Some("req-scripted".to_owned()),
            headroom: Headroom::default(),
        })
    }
}

#[async_trait]
impl Metrics for World {
    async fn publish(&self, batch: &MetricBatch, _within: Duration) {
        self.hang_at(LastStep::Publication).await;
        self.state().metrics.push(batch.clone());
    }
}

impl Clock for World {
    fn now_ms(&self) -> u64 {
        let ran_ms = u64::try_from(self.started.elapsed().as_millis()).unwrap_or(u64::MAX);
        START_MS + self.frozen_ms.load(Ordering::Relaxed) + ran_ms
    }
}

impl Entropy for World {
    fn fraction(&self) -> f64 {
        0.5
    }
    fn token(&self) -> String {
        format!("{:032x}", self.tokens.fetch_add(1, Ordering::Relaxed))
    }
}

/// A message as SQS delivers it for the first time, sent just now.
#[must_use]
pub fn message(world: &World, id: &str, body: impl Into<String>) -> Message {
    Message {
        message_id: id.to_owned(),
        receipt_handle: format!("handle-{id}"),
        body: body.into(),
        sent_at_ms: world.now_ms(),
        receive_count: 1,
        attributes: Vec::new(),
        group: None,
    }
}

/// The same message, delivered again.
#[must_use]
pub fn again(message: &Message) -> Message {
    Message { receive_count: message.receive_count + 1, ..message.clone() }
}
