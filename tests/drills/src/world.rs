//! The world of a drill: the real worker between queues, a Lambda, a ledger and a provider that do what is asked of them.
//!
//! Smaller than the simulation's, which knows kills at any await and an oracle for each promise: here whole nights are
//! evaluated minute by minute, and only what becomes a metric counts.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use nightshift_alarms::data::{Data, MetricKey, Minute};
use nightshift_core::control::Control;
use nightshift_core::cost::Price;
use nightshift_core::dead_letter::DeadLetter;
use nightshift_core::input_hash::InputHash;
use nightshift_core::limits::Limits;
use nightshift_core::metric::{MetricBatch, NAMESPACE};
use nightshift_core::model::{
    Answer, FailureClass, Headroom, ModelFailure, ModelReply, ModelRequest, RetryAdvice, Usage,
};
use nightshift_core::record::{RecordWrite, WriteAnswer};
use nightshift_core::sentinel::{Snapshot, StackLimits};
use nightshift_core::spend::{SpendAnswer, SpendChange};
use nightshift_core::split_mix::SplitMix64;
use nightshift_ports::{
    Clock, ControlAnswer, ControlRecord, DeadLetters, Entropy, Ledger, Metrics, Model, PortError,
    PortErrorKind, Visibility,
};
use nightshift_tests::memory::{self, START_MS};
use nightshift_worker::paid_call::PaidModel;
use nightshift_worker::{Deployment, Message, Ports, Worker};

use crate::queue::{Held, Queue};

const MINUTE_MS: u64 = 60_000;
/// A process that is blocked still ends, 3 s before Lambda would kill it.
const BLOCKED_UNTIL_MS: u64 = 297_000;
/// Lambda tries a throttled invocation again about this often.
const THROTTLED_TRY_S: u64 = 20;

/// What is wrong just now; nothing, at first.
#[derive(Debug, Clone)]
pub struct Conditions {
    pub model: ModelIs,
    /// Invocations die after this long.
    pub dies_after_ms: Option<u64>,
    /// Invocations do not end when they are done.
    pub blocked: bool,
    /// Lambda refuses invocations.
    pub throttled: bool,
    /// The event source is on.
    pub polled: bool,
    /// The share of ledger requests that fails.
    pub ledger_fails: f64,
    /// Steps of a redrive fail, each minute.
    pub redrive_fails: bool,
    /// The sentinel does not run.
    pub sentinel_off: bool,
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
            blocked: false,
            throttled: false,
            polled: true,
            ledger_fails: 0.0,
            redrive_fails: false,
            sentinel_off: false,
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
    data: Data,
    rng: SplitMix64,
    idle: Vec<Arc<Worker>>,
    running: u32,
    invocations: u64,
    /// Jobs that are due and not yet sent, in parts.
    due: f64,
    written: u64,
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
                data: Data::default(),
                rng: SplitMix64::new(7),
                idle: Vec::new(),
                running: 0,
                invocations: 0,
                due: 0.0,
                written: 0,
            }),
            tokens: AtomicU64::new(0),
        })
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn minute(at_ms: u64) -> Minute {
        ((at_ms - START_MS) / MINUTE_MS) as Minute
    }

    /// Something begins or ends.
    pub fn change(&self, change: impl FnOnce(&mut Conditions)) {
        change(&mut self.lock().conditions);
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
        let body = serde_json::json!({"task": "categorize_ticket", "input": {"text": text}});
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

    /// One second: what is due is sent, and what is ready is worked on.
    pub fn second(self: &Arc<Self>, nth: u64, jobs_per_minute: f64) {
        let due = {
            let mut state = self.lock();
            state.due += jobs_per_minute / 60.0;
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
        if conditions.polled {
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
        let worker = self.lock().idle.pop().unwrap_or_else(|| Arc::new(self.worker()));
        let timeout_ms = self.limits.function_timeout_ms;
        let messages = batch.iter().map(message).collect();
        let id = {
            let mut state = self.lock();
            state.invocations += 1;
            format!("invocation-{}", state.invocations)
        };
        // A text that kills whoever reads it, before anything can be written of it.
        let killer = batch.iter().any(|message| message.body.contains("KILLS"));
        let lives_ms = if killer { 0 } else { conditions.dies_after_ms.unwrap_or(timeout_ms) };
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
        state.idle.push(worker);
    }

    fn worker(self: &Arc<Self>) -> Worker {
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
            price: Price::flat(1_000_000, 5_000_000),
            limits: self.limits.clone(),
            built_at_ms: START_MS - 1,
            function_version: 1,
        };
        Worker::new(ports, Box::new(nightshift_tasks::registry()), deployment)
    }

    fn lambda(&self, function: &str, at_ms: u64, name: &str, value: f64) {
        let function = format!("{}-{function}", self.names.stack);
        let key = MetricKey::new("AWS/Lambda", name, &[("FunctionName", &function)]);
        self.lock().data.publish(&key, Self::minute(at_ms), value, 1.0);
    }

    /// One run of the sentinel: the core's own gauges over what the queues hold. It is shown no record that was begun, so
    /// that the age of the oldest job is that of SQS alone here.
    pub async fn sentinel(&self) {
        if self.lock().conditions.sentinel_off {
            return;
        }
        // The numbers are of the minute that ends.
        let now_ms = self.table.now_ms() - 1;
        let snapshot = {
            let mut state = self.lock();
            Snapshot {
                at_ms: now_ms,
                jobs: Some(state.jobs.depth(now_ms)),
                dead_letters: Some(state.dead_letters.depth(now_ms)),
                crashed: Some(state.crashed.depth(now_ms)),
                control: Some(Control::default()),
                committed_micro_usd: Some(self.table.committed_micro_usd()),
                redrives: Some(Vec::new()),
                claimed: Some(Vec::new()),
                reviews: Some(Vec::new()),
                begun: Some(Vec::new()),
                failed: Some(Vec::new()),
            }
        };
        let limits = StackLimits {
            retention_ms: self.limits.retention_ms,
            letter_retention_ms: 2 * self.limits.retention_ms,
            spend_cap_micro_usd: self.limits.spend_cap_micro_usd,
        };
        let gauges = snapshot.gauges(&self.names.stack, &limits);
        Metrics::publish(self, &gauges, Duration::from_secs(1)).await;
    }

    /// What AWS publishes by itself at the end of a minute.
    pub fn minute_ends(&self, minute: Minute) {
        let now_ms = self.table.now_ms();
        if self.lock().conditions.redrive_fails {
            self.lambda("redrive", now_ms - 1, "Errors", 1.0);
        }
        let mut guard = self.lock();
        let state = &mut *guard;
        if state.conditions.polled {
            state.jobs.touch(now_ms);
        }
        let queues = [
            ("jobs", &mut state.jobs),
            ("dead-letters", &mut state.dead_letters),
            ("crashed", &mut state.crashed),
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
        if self.draw() < share {
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
            let minute = Self::minute(at_ms.map_or(batch.at_ms, |at_ms| at_ms.unsigned_abs()));
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
        let mut draw = self.draw();
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
            Answer::Text(nightshift_tests::ticket_answer().to_string())
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

#[async_trait]
impl Ledger for World {
    async fn put(&self, write: &RecordWrite) -> Result<WriteAnswer, PortError> {
        self.ledger_answers()?;
        Ledger::put(self.table.as_ref(), write).await
    }

    async fn count_duplicate(&self, key: &InputHash, message_id: &str) -> Result<(), PortError> {
        self.ledger_answers()?;
        self.table.count_duplicate(key, message_id).await
    }

    async fn note_letter_sent(&self, key: &InputHash, version: u64) -> Result<(), PortError> {
        self.ledger_answers()?;
        self.table.note_letter_sent(key, version).await
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
