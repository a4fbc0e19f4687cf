//! The world of a drill: the real worker between queues, a Lambda, a ledger and a provider that do what is asked of them.
//!
//! Smaller than the simulation's, which knows kills at any await and an oracle for each promise: here whole nights are
//! evaluated minute by minute, and only what becomes a metric counts.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, LazyLock, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use nightshift_alarms::data::{Data, MetricKey, Minute};
use nightshift_core::control::{Cause, Control};
use nightshift_core::cost::Price;
use nightshift_core::dead_letter::DeadLetter;
use nightshift_core::input_hash::InputHash;
use nightshift_core::kept::{KeepAnswer, Part};
use nightshift_core::limits::Limits;
use nightshift_core::listing::{Entry, Unsettled};
use nightshift_core::metric::{MetricBatch, NAMESPACE};
use nightshift_core::model::{
    Answer, FailureClass, Headroom, ModelFailure, ModelReply, ModelRequest, RetryAdvice, Usage,
};
use nightshift_core::record::{Record, RecordWrite, WriteAnswer};
use nightshift_core::redrive::{Depth, Directory, Redrive, Request, Source};
use nightshift_core::sentinel::{Calls, ProbeAsk, StackLimits, Switch, WATCH_KEY};
use nightshift_core::spend::{SpendAnswer, SpendChange, Spent, UtcDay};
use nightshift_core::split_mix::SplitMix64;
use nightshift_core::spread::Spread;
use nightshift_ports::{
    Clock, ControlAnswer, ControlRecord, DeadLetters, Document, DocumentAnswer, Documents, Entropy, Ledger,
    LedgerWatch, LiveVersion, Metrics, Model, PortError, PortErrorKind, QueueDepth, RedriveSteps, Visibility,
    WorkerFunction,
};
use nightshift_sentinel::{Sentinel, Stack};
use nightshift_tests::memory::{self, START_MS};
use nightshift_worker::paid_call::PaidModel;
use nightshift_worker::{Deployment, Message, Ports, Worker};
use tokio::time::Instant;

use crate::queue::{Held, Queue};

const MINUTE_MS: u64 = 60_000;
/// A process that is blocked still ends, 3 s before Lambda would kill it.
const BLOCKED_UNTIL_MS: u64 = 297_000;
/// The multiples of it, without their whole parts, lie evenly in any stretch, in no pattern that a job's tries could meet:
/// a share of the calls is that share of any few of them, and no alarm hangs by luck.
const GOLDEN_RATIO: f64 = 1.618_033_988_749_895;
/// Lambda tries a throttled invocation again about this often.
const THROTTLED_TRY_S: u64 = 20;

static GOOD_ANSWER: LazyLock<String> = LazyLock::new(|| nightshift_tests::ticket_answer().to_string());

/// What is wrong just now; nothing, at first.
#[derive(Debug, Clone)]
pub struct Conditions {
    pub model: ModelIs,
    /// Invocations die after this long,
    pub dies_after_ms: Option<u64>,
    /// this share of them.
    pub dying: f64,
    /// Invocations do not end when they are done.
    pub blocked: bool,
    /// Lambda refuses invocations.
    pub throttled: bool,
    /// Lambda takes from the queue.
    pub polled: bool,
    /// The share of ledger requests that fails.
    pub ledger_fails: f64,
    /// Steps of a redrive fail, each minute.
    pub redrive_fails: bool,
    /// The sentinel does not run.
    pub sentinel_off: bool,
    /// It may not invoke the redrive, and one is under way.
    pub sentinel_refused: bool,
    /// The pipe may not send its events, and gives one up each minute.
    pub events_refused: bool,
    /// What the pipe of large results tries fails, and nothing is given up yet.
    pub large_events_fail: bool,
    /// Jobs are of the task whose fallback waits for a review.
    pub reports: bool,
}

/// What the provider does, as shares of the calls; the rest is answered well.
#[derive(Debug, Clone)]
pub struct ModelIs {
    pub latency_ms: u64,
    pub refusing: f64,
    pub invalid: f64,
    pub throttling: f64,
    pub failing: f64,
    pub account: f64,
}

impl Default for Conditions {
    fn default() -> Self {
        let model = ModelIs {
            latency_ms: 5_000,
            refusing: 0.0,
            invalid: 0.0,
            throttling: 0.0,
            failing: 0.0,
            account: 0.0,
        };
        Self {
            model,
            dies_after_ms: None,
            dying: 1.0,
            blocked: false,
            throttled: false,
            polled: true,
            ledger_fails: 0.0,
            redrive_fails: false,
            sentinel_off: false,
            sentinel_refused: false,
            events_refused: false,
            large_events_fail: false,
            reports: false,
        }
    }
}

/// Names that the plan and the metrics share.
#[derive(Debug, Clone)]
pub struct Names {
    pub stack: String,
}

pub struct World {
    pub names: Names,
    /// The table, and the wall clock.
    table: Arc<memory::World>,
    limits: Limits,
    state: Mutex<State>,
    tokens: AtomicU64,
}

struct State {
    conditions: Conditions,
    jobs: Queue,
    dead_letters: Queue,
    crashed: Queue,
    events_failed: Queue,
    data: Data,
    rng: SplitMix64,
    /// Environments that wait, of the version that is deployed.
    idle: Vec<Arc<Worker>>,
    version: u64,
    price_times: u64,
    /// The event source mapping, as the sentinel turns it.
    switched_on: bool,
    running: u32,
    invocations: u64,
    calls: u64,
    /// Jobs that are due and not yet sent, in parts.
    due: f64,
    written: u64,
    /// What a run of the sentinel remembers for the next one.
    remembered: Option<Document>,
}

impl World {
    #[must_use]
    pub fn new(stack: &str, limits: Limits) -> Arc<Self> {
        Arc::new(Self {
            names: Names { stack: stack.to_owned() },
            table: memory::World::new(|_, _| memory::Says::Hangs),
            limits,
            state: Mutex::new(State {
                conditions: Conditions::default(),
                jobs: Queue::default(),
                dead_letters: Queue::default(),
                crashed: Queue::default(),
                events_failed: Queue::default(),
                data: Data::default(),
                rng: SplitMix64::new(7),
                idle: Vec::new(),
                version: 1,
                price_times: 1,
                switched_on: true,
                running: 0,
                invocations: 0,
                calls: 0,
                due: 0.0,
                written: 0,
                remembered: None,
            }),
            tokens: AtomicU64::new(0),
        })
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn minute_of(at_ms: u64) -> Minute {
        ((at_ms - START_MS) / MINUTE_MS) as Minute
    }

    /// Something begins or ends.
    pub fn change(&self, change: impl FnOnce(&mut Conditions)) {
        change(&mut self.lock().conditions);
    }

    /// Another version of the worker, whose model costs so many times as much as the first one's.
    pub fn deploy(&self, price_times: u64) {
        let mut state = self.lock();
        state.version += 1;
        state.price_times = price_times;
        state.idle.clear();
    }

    /// Somebody pauses the stack, as the control record says it.
    pub fn pause(&self) {
        self.table.set_control(&Control::paused_by_operator(
            self.table.now_ms(),
            "as the drill wants",
            "drill",
        ));
    }

    /// Nothing pauses the stack any more.
    pub fn resume(&self) {
        self.table.set_control(&Control::default());
    }

    /// What was published.
    pub fn read<T>(&self, read: impl FnOnce(&Data) -> T) -> T {
        read(&self.lock().data)
    }

    /// A job is sent; `text` is its input.
    pub fn send(&self, text: &str) {
        let now_ms = self.table.now_ms();
        let mut state = self.lock();
        state.written += 1;
        let text = format!("{text} ({})", state.written);
        let body = if state.conditions.reports {
            let input = serde_json::json!({"team": "Checkout", "week": "2026-W47", "entries": [text]});
            serde_json::json!({"task": "weekly_report", "input": input})
        } else {
            serde_json::json!({"task": "categorize_ticket", "input": {"text": text}})
        };
        state.jobs.send(now_ms, body.to_string(), Vec::new());
    }

    /// Somebody receives dead letters to look at them, and hides them for half a minute.
    pub fn look_at_letters(&self) {
        let now_ms = self.table.now_ms();
        self.lock().dead_letters.receive(now_ms, 10, 30_000);
    }

    /// All dead letters go back, as a redrive sends them: body and attributes as they are.
    pub fn redrive_all(&self) {
        let now_ms = self.table.now_ms();
        let mut guard = self.lock();
        let state = &mut *guard;
        for queue in [&mut state.dead_letters, &mut state.crashed] {
            queue.touch(now_ms);
            let held: Vec<Held> = queue.held().cloned().collect();
            for letter in held {
                queue.delete(&letter.handle());
                state.jobs.send(now_ms, letter.body, letter.attributes);
            }
        }
    }

    /// Somebody empties the queue of what the pipe gave up.
    pub fn purge_events_failed(&self) {
        let now_ms = self.table.now_ms();
        let queue = &mut self.lock().events_failed;
        let held: Vec<Held> = queue.receive(now_ms, usize::MAX, 0);
        held.iter().for_each(|message| drop(queue.delete(&message.handle())));
    }

    /// Somebody throws away what is in `crashed`.
    pub fn throw_away_crashed(&self) {
        self.lock().crashed = Queue::default();
    }

    /// One minute: what is due is sent, and what is ready is worked on, each second.
    pub async fn minute(self: &Arc<Self>, jobs_per_minute: f64) {
        let began = Instant::now();
        for second in 0..60 {
            let rest = (60 - second) as f64 * jobs_per_minute / 60.0;
            if self.nothing_happens(rest) {
                self.lock().due += rest;
                break;
            }
            self.second(second, jobs_per_minute / 60.0);
            tokio::time::sleep_until(began + Duration::from_secs(second + 1)).await;
        }
        tokio::time::sleep_until(began + Duration::from_millis(MINUTE_MS)).await;
    }

    /// Nothing in the rest of a minute in which so many jobs become due, in parts.
    fn nothing_happens(&self, due: f64) -> bool {
        let state = self.lock();
        state.running == 0 && state.due + due < 1.0 && !state.jobs.is_ready(self.table.now_ms() + MINUTE_MS)
    }

    fn second(self: &Arc<Self>, nth: u64, jobs: f64) {
        let due = {
            let mut state = self.lock();
            state.due += jobs;
            let due = state.due.floor();
            state.due -= due;
            due as u64
        };
        (0..due).for_each(|_| self.send("I was charged twice for October."));
        let now_ms = self.table.now_ms();
        let conditions = self.lock().conditions.clone();
        if conditions.throttled {
            if nth.is_multiple_of(THROTTLED_TRY_S) && self.lock().jobs.is_ready(now_ms) {
                self.lambda("worker", now_ms, "Throttles", 1.0);
            }
            return;
        }
        if conditions.polled && self.lock().switched_on {
            let batches = std::iter::from_fn(|| Some(self.receive(now_ms)).filter(|batch| !batch.is_empty()));
            batches.for_each(|batch| drop(tokio::spawn(Arc::clone(self).invoke(batch))));
        }
    }

    fn receive(&self, now_ms: u64) -> Vec<Held> {
        let mut state = self.lock();
        if state.running >= self.limits.concurrency_max {
            return Vec::new();
        }
        let most = self.limits.batch_size as usize;
        let received = state.jobs.receive(now_ms, most, self.limits.visibility_timeout_ms);
        let (gone, batch): (Vec<Held>, Vec<Held>) =
            received.into_iter().partition(|message| message.receives > self.limits.receive_count_max);
        for message in gone {
            state.jobs.delete(&message.handle());
            state.crashed.send(now_ms, message.body, message.attributes);
        }
        if !batch.is_empty() {
            state.running += 1;
        }
        batch
    }

    async fn invoke(self: Arc<Self>, batch: Vec<Held>) {
        let began_ms = self.table.now_ms();
        let conditions = self.lock().conditions.clone();
        let (worker, version) = self.environment();
        let running = self.lock().running;
        self.lambda("worker", began_ms, "ConcurrentExecutions", f64::from(running));
        let timeout_ms = self.limits.function_timeout_ms;
        let messages = batch.iter().map(message).collect();
        let (id, is_dying) = {
            let mut state = self.lock();
            state.invocations += 1;
            let share = (state.invocations as f64 * GOLDEN_RATIO).fract();
            (format!("invocation-{}", state.invocations), share < conditions.dying)
        };
        // A text that kills whoever reads it, before anything can be written of it.
        let killer = batch.iter().any(|message| message.body.contains("KILLS"));
        let dies_after_ms = conditions.dies_after_ms.filter(|_| is_dying);
        let lives_ms = if killer { 0 } else { dies_after_ms.unwrap_or(timeout_ms) };
        let work = worker.process_batch(&id, timeout_ms, messages);
        let report = tokio::time::timeout(Duration::from_millis(lives_ms), work).await.ok();
        if conditions.blocked && report.is_some() {
            let ran_ms = self.table.now_ms() - began_ms;
            tokio::time::sleep(Duration::from_millis(BLOCKED_UNTIL_MS.saturating_sub(ran_ms))).await;
        }
        let ended_ms = self.table.now_ms();
        // Lambda stamps all of them with the time of the invocation. ("Types of metrics for Lambda functions")
        self.lambda("worker", began_ms, "Invocations", 1.0);
        self.lambda("worker", began_ms, "Duration", (ended_ms - began_ms) as f64);
        self.lambda("worker", began_ms, "Errors", if report.is_some() { 0.0 } else { 1.0 });
        let mut state = self.lock();
        state.running -= 1;
        let Some(report) = report else { return };
        for message in &batch {
            if !report.failed_message_ids.contains(&message.id.to_string()) {
                state.jobs.delete(&message.handle());
            }
        }
        if version == state.version {
            state.idle.push(worker);
        }
    }

    /// One that waits, or a new one, and its version.
    fn environment(self: &Arc<Self>) -> (Arc<Worker>, u64) {
        let (idle, version, price_times) = {
            let mut state = self.lock();
            (state.idle.pop(), state.version, state.price_times)
        };
        (idle.unwrap_or_else(|| Arc::new(self.worker(version, price_times))), version)
    }

    /// The probe that the sentinel asks for, in an environment of its own.
    pub(crate) async fn probe(self: Arc<Self>, cause: Cause) {
        let dies = self.lock().conditions.dies_after_ms.is_some();
        if !dies {
            let (worker, _) = self.environment();
            worker.probe("probe", self.limits.function_timeout_ms, cause).await;
        }
    }

    pub(crate) fn is_switched_on(&self) -> bool {
        self.lock().switched_on
    }

    pub(crate) fn switch(&self, on: bool) {
        self.lock().switched_on = on;
    }

    pub(crate) fn version(&self) -> u64 {
        self.lock().version
    }

    fn worker(self: &Arc<Self>, version: u64, price_times: u64) -> Worker {
        let ports = Ports {
            ledger: self.clone(),
            dead_letters: self.clone(),
            visibility: self.clone(),
            model: PaidModel::new(self.clone()),
            metrics: self.clone(),
            clock: self.table.clone(),
            entropy: self.clone(),
        };
        let deployment = Deployment {
            stack: self.names.stack.clone(),
            model: "model-1".to_owned(),
            price: Price::flat(price_times * 1_000_000, price_times * 5_000_000),
            spread: Spread::default(),
            limits: self.limits.clone(),
            built_at_ms: START_MS - 1,
            function_version: version,
        };
        Worker::new(ports, Box::new(nightshift_tasks::registry()), deployment)
    }

    fn lambda(&self, function: &str, at_ms: u64, name: &str, value: f64) {
        let function = format!("{}-{function}", self.names.stack);
        let key = MetricKey::new("AWS/Lambda", name, &[("FunctionName", &function)]);
        self.lock().data.publish(&key, Self::minute_of(at_ms), value, 1.0);
    }

    /// One run of the sentinel, as its function makes one.
    pub async fn sentinel(self: &Arc<Self>) {
        if self.lock().conditions.sentinel_off {
            return;
        }
        let depth = |queue: fn(&mut State) -> &mut Queue| Arc::new(DepthOf { world: self.clone(), queue });
        let ports = nightshift_sentinel::Ports {
            jobs: depth(|state| &mut state.jobs),
            dead_letters: depth(|state| &mut state.dead_letters),
            crashed: depth(|state| &mut state.crashed),
            control: self.clone(),
            watch: self.clone(),
            documents: self.clone(),
            redrives: self.clone(),
            worker: Arc::new(Function(self.clone())),
            metrics: self.clone(),
            clock: self.table.clone(),
        };
        let limits = StackLimits {
            retention_ms: self.limits.retention_ms,
            letter_retention_ms: 2 * self.limits.retention_ms,
            spend_cap_micro_usd: self.limits.spend_cap_micro_usd,
            lease_ms_max: self.limits.function_timeout_ms + self.limits.lease_margin_ms,
        };
        let full_width = self.limits.concurrency_max * self.limits.batch_size;
        let stack = Stack { name: self.names.stack.clone(), limits, full_width };
        let began_ms = self.table.now_ms();
        // What it could not read is in what it did not publish, too.
        if Sentinel::new(ports, stack).run().await.is_err() {
            self.lambda("sentinel", began_ms, "Errors", 1.0);
        }
    }

    /// What AWS publishes by itself at the end of a minute.
    pub fn minute_ends(&self, minute: Minute) {
        let now_ms = self.table.now_ms();
        let mut guard = self.lock();
        let state = &mut *guard;
        let conditions = &state.conditions;
        for (fails, pipe) in
            [(conditions.events_refused, "results"), (conditions.large_events_fail, "results-large")]
        {
            if fails {
                let pipe = format!("{}-{pipe}", self.names.stack);
                let failed =
                    MetricKey::new("AWS/EventBridge/Pipes", "ExecutionFailed", &[("PipeName", &pipe)]);
                state.data.publish(&failed, minute, 1.0, 1.0);
            }
        }
        if state.conditions.events_refused {
            state.events_failed.send(now_ms, "{}".to_owned(), Vec::new());
        }
        if state.conditions.polled && state.switched_on {
            state.jobs.touch(now_ms);
        }
        let queues = [
            ("jobs", &mut state.jobs),
            ("dead-letters", &mut state.dead_letters),
            ("crashed", &mut state.crashed),
            ("events-failed", &mut state.events_failed),
        ];
        for (name, queue) in queues {
            let name = format!("{}-{name}", self.names.stack);
            for (metric, value) in queue.metrics(now_ms) {
                let key = MetricKey::new("AWS/SQS", metric, &[("QueueName", &name)]);
                state.data.publish(&key, minute, value, 1.0);
            }
        }
        drop(guard);
        // It remembers each write, for tests that are shorter than a night.
        self.table.on_write(|_, _| None);
    }

    fn draw(&self) -> f64 {
        self.lock().rng.fraction()
    }

    fn ledger_answers(&self) -> Result<(), PortError> {
        let share = self.lock().conditions.ledger_fails;
        if share > 0.0 && self.draw() < share {
            let message = "as the drill wants".to_owned();
            let kind = PortErrorKind::Unavailable;
            return Err(PortError { service: "DynamoDB", operation: "any", kind, message });
        }
        Ok(())
    }
}

fn message(held: &Held) -> Message {
    Message {
        message_id: held.id.to_string(),
        receipt_handle: held.handle(),
        body: held.body.clone(),
        sent_at_ms: held.sent_ms,
        receive_count: held.receives,
        attributes: held.attributes.clone(),
        group: None,
    }
}

#[async_trait]
impl Metrics for World {
    /// As CloudWatch reads the adapter's own request.
    async fn publish(&self, batch: &MetricBatch, _within: Duration) {
        let mut state = self.lock();
        for datum in nightshift_aws::metrics::metric_data(batch.at_ms, &batch.data) {
            let dimensions: Vec<(&str, &str)> = datum
                .dimensions()
                .iter()
                .map(|one| (one.name().unwrap_or_default(), one.value().unwrap_or_default()))
                .collect();
            let key = MetricKey::new(NAMESPACE, datum.metric_name().unwrap_or_default(), &dimensions);
            let at_ms = datum.timestamp().and_then(|at| at.to_millis().ok());
            let minute = Self::minute_of(at_ms.map_or(batch.at_ms, |at_ms| at_ms.unsigned_abs()));
            for (value, count) in datum.values().iter().zip(datum.counts()) {
                state.data.publish(&key, minute, *value, *count);
            }
        }
    }
}

#[async_trait]
impl Model for World {
    async fn call(&self, _: &ModelRequest) -> Result<ModelReply, ModelFailure> {
        let model = self.lock().conditions.model.clone();
        let latency_ms = (model.latency_ms as f64 * (0.5 + self.draw())) as u64;
        let mut draw = {
            let mut state = self.lock();
            state.calls += 1;
            (state.calls as f64 * GOLDEN_RATIO).fract()
        };
        let mut is = |share: f64| {
            draw -= share;
            draw < 0.0
        };
        if is(model.throttling) {
            return Err(failure(FailureClass::Capacity, 429));
        }
        if is(model.account) {
            return Err(failure(FailureClass::Account, 401));
        }
        if is(model.failing) {
            return Err(failure(FailureClass::Transient, 500));
        }
        let answer = if is(model.refusing) {
            Answer::Refused { why: "refusal".to_owned(), text: String::new() }
        } else if is(model.invalid) {
            Answer::Text(format!("I think that it is about billing, {latency_ms}."))
        } else {
            Answer::Text(GOOD_ANSWER.clone())
        };
        tokio::time::sleep(Duration::from_millis(latency_ms)).await;
        Ok(ModelReply {
            answer,
            usage: Usage { input_tokens: 100, output_tokens: 20 }.into(),
            request_id: None,
            headroom: Headroom::default(),
        })
    }
}

fn failure(class: FailureClass, status: u16) -> ModelFailure {
    ModelFailure {
        class,
        status: Some(status),
        error_type: format!("http_{status}"),
        message: "as the drill wants".to_owned(),
        request_id: None,
        advice: RetryAdvice::default(),
        headroom: Headroom::default(),
        oversize: None,
    }
}

#[async_trait]
impl Visibility for World {
    async fn change(&self, receipt_handle: &str, delay_s: u32) -> Result<(), PortError> {
        let now_ms = self.table.now_ms();
        self.lock().jobs.hide(now_ms, receipt_handle, u64::from(delay_s) * 1_000);
        Ok(())
    }
}

#[async_trait]
impl DeadLetters for World {
    async fn send(&self, letter: &DeadLetter) -> Result<(), PortError> {
        let now_ms = self.table.now_ms();
        self.lock().dead_letters.send(now_ms, letter.body.clone(), letter.attributes.clone());
        Ok(())
    }
}

#[async_trait]
impl ControlRecord for World {
    async fn control(&self) -> Result<Control, PortError> {
        self.ledger_answers()?;
        self.table.control().await
    }

    async fn control_now(&self) -> Result<Control, PortError> {
        self.ledger_answers()?;
        self.table.control_now().await
    }

    async fn put_control(&self, next: &Control, over: &Control) -> Result<ControlAnswer, PortError> {
        self.ledger_answers()?;
        self.table.put_control(next, over).await
    }
}

/// One queue, as the sentinel asks for it.
struct DepthOf {
    world: Arc<World>,
    queue: fn(&mut State) -> &mut Queue,
}

#[async_trait]
impl QueueDepth for DepthOf {
    async fn depth(&self) -> Result<Depth, PortError> {
        let now_ms = self.world.table.now_ms();
        Ok((self.queue)(&mut self.world.lock()).depth(now_ms))
    }
}

#[async_trait]
impl LedgerWatch for World {
    async fn oldest(&self, unsettled: Unsettled, since_ms: u64, limit: u32) -> Result<Vec<Entry>, PortError> {
        self.ledger_answers()?;
        self.table.oldest(unsettled, since_ms, limit).await
    }

    async fn records(&self, keys: &[InputHash]) -> Result<Vec<Record>, PortError> {
        self.ledger_answers()?;
        self.table.records(keys).await
    }

    async fn calls(&self, minute: u64) -> Result<Calls, PortError> {
        self.ledger_answers()?;
        LedgerWatch::calls(self.table.as_ref(), minute).await
    }

    async fn spent(&self, day: UtcDay) -> Result<Spent, PortError> {
        self.ledger_answers()?;
        self.table.spent(day).await
    }
}

/// The directory of the redrives: one is under way while its steps fail, or may not be asked for.
#[async_trait]
impl Documents for World {
    async fn read(&self, key: &str) -> Result<Option<Document>, PortError> {
        self.ledger_answers()?;
        if key == WATCH_KEY {
            return Ok(self.lock().remembered.clone());
        }
        let is_under_way = |conditions: &Conditions| conditions.redrive_fails || conditions.sentinel_refused;
        if !is_under_way(&self.lock().conditions) {
            return Ok(None);
        }
        let mut directory = Directory::default();
        let request = Request::all(Source::DeadLetters, "as the drill wants", "drill");
        let begun = Redrive::begin("r-1".to_owned(), request, START_MS, Depth::default(), 1);
        directory.add(&begun.expect("an empty queue is not too large"));
        Ok(Some(Document { key: key.to_owned(), version: 1, json: directory.to_json(), expires_at_s: None }))
    }

    async fn write(&self, document: &Document, expect: Option<u64>) -> Result<DocumentAnswer, PortError> {
        self.ledger_answers()?;
        assert_eq!(document.key, WATCH_KEY, "the sentinel writes no redrive");
        let mut state = self.lock();
        if state.remembered.as_ref().map(|standing| standing.version) != expect {
            return Ok(DocumentAnswer::Refused(state.remembered.clone()));
        }
        state.remembered = Some(document.clone());
        Ok(DocumentAnswer::Written)
    }
}

#[async_trait]
impl RedriveSteps for World {
    async fn ask_for_step(&self, _: &str) -> Result<(), PortError> {
        if self.lock().conditions.sentinel_refused {
            let (operation, message) = ("Invoke", "as the drill wants".to_owned());
            return Err(PortError {
                service: "Lambda",
                operation,
                kind: PortErrorKind::Misconfigured,
                message,
            });
        }
        let now_ms = self.table.now_ms();
        self.lambda("redrive", now_ms, "Errors", 1.0);
        Ok(())
    }
}

#[async_trait]
impl Ledger for World {
    async fn put(&self, write: &RecordWrite) -> Result<WriteAnswer, PortError> {
        self.ledger_answers()?;
        Ledger::put(self.table.as_ref(), write).await
    }

    async fn keep(&self, part: &Part, now_ms: u64) -> Result<KeepAnswer, PortError> {
        self.ledger_answers()?;
        self.table.keep(part, now_ms).await
    }

    async fn count_duplicate(&self, key: &InputHash, message_id: &str) -> Result<(), PortError> {
        self.ledger_answers()?;
        self.table.count_duplicate(key, message_id).await
    }

    async fn note_letter_sent(&self, key: &InputHash, version: u64) -> Result<(), PortError> {
        self.ledger_answers()?;
        self.table.note_letter_sent(key, version).await
    }

    async fn tell_calls(&self, minute: u64, calls: &Calls) -> Result<(), PortError> {
        self.table.tell_calls(minute, calls).await
    }

    async fn spend(&self, change: &SpendChange) -> Result<SpendAnswer, PortError> {
        self.ledger_answers()?;
        self.table.spend(change).await
    }
}

impl Entropy for World {
    fn fraction(&self) -> f64 {
        self.draw()
    }
    fn token(&self) -> String {
        format!("{:032x}", self.tokens.fetch_add(1, Ordering::Relaxed))
    }
}

/// The worker's function of this world, as the sentinel handles it.
struct Function(Arc<World>);

#[async_trait]
impl LiveVersion for Function {
    async fn live_version(&self) -> Result<u64, PortError> {
        Ok(self.0.version())
    }
}

#[async_trait]
impl WorkerFunction for Function {
    async fn switch(&self) -> Result<Switch, PortError> {
        Ok(if self.0.is_switched_on() { Switch::On } else { Switch::Off })
    }

    async fn turn(&self, on: bool) -> Result<(), PortError> {
        self.0.switch(on);
        Ok(())
    }

    async fn ask_for_probe(&self, ask: &ProbeAsk) -> Result<(), PortError> {
        tokio::spawn(Arc::clone(&self.0).probe(ask.probe));
        Ok(())
    }
}
