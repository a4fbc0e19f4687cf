//! The worker's ports on the simulated world. Before and after each effect the worker may die.

use std::future::pending;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use nightshift_core::control::Control;
use nightshift_core::dead_letter::{CONTEXT_ATTRIBUTE, DeadLetter, HASH_ATTRIBUTE, REASON_ATTRIBUTE};
use nightshift_core::failure::FailureReason;
use nightshift_core::input_hash::InputHash;
use nightshift_core::kept::{KeepAnswer, Part};
use nightshift_core::message::AttributeValue;
use nightshift_core::metric::MetricBatch;
use nightshift_core::model::{
    Answer, FailureClass, Headroom, ModelFailure, ModelReply, ModelRequest, ReportedUsage, RetryAdvice,
    TokenLimit, Turn, Usage, Window,
};
use nightshift_core::output_validation::REASK_BYTES_MAX;
use nightshift_core::record::{Record, RecordWrite, State as Standing};
use nightshift_core::sentinel::Calls;
use nightshift_core::spend::Shards;
use nightshift_core::spend::{SpendAnswer, SpendChange, SpendKey, SpendKind};
use nightshift_ports::{
    Clock, ControlAnswer, ControlRecord, DeadLetters, Entropy, Ledger, Metrics, Model, PortError,
    PortErrorKind, Visibility, WriteAnswer,
};
use serde_json::{Value, json};
use tokio::time::sleep;

use crate::oracle::{ArrivedLetter, Asked, CallEnd, Promise, Writer};
use crate::plan::{Away, CALL_MICRO_USD_MAX, HOUR, Plan};
use crate::queue::{HandleAnswer, why_refused};
use crate::units::Hot;
use crate::work::{
    CHECK_IS_WRONG, CutOff, Kind, OUTPUT_TOKENS_MAX, OVERHEAD_BYTES, check_of, cut_off, oversize,
};
use crate::world::{Environment, Failures, Letter, State, World};

/// Attempts of the SDK at one operation, and how long it waits for one (crates/aws, clients).
const ATTEMPTS_MAX: u32 = 3;
const ATTEMPT_TIMEOUT_MS: u64 = 1_200;
pub(crate) const OPERATION_TIMEOUT_MS: u64 = 2_500;

/// How long a transaction on a day's record keeps others from it.
const TRANSACTION_MS: u64 = 20;
/// What a transaction takes for one small item: twice what a plain write does ("DynamoDB read and write operations").
const TRANSACTION_UNITS: u32 = 2;

/// What was told of older minutes, nobody reads.
const TOLD_MINUTES: usize = 10;

/// All ports of one environment.
pub struct SimPorts {
    pub world: Arc<World>,
    pub environment: Arc<Environment>,
    /// The invocation that runs in this environment.
    pub invocation: AtomicU64,
}

/// What meets one attempt at DynamoDB.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Fate {
    Works,
    Throttled,
    Away,
    ReplyLost,
    Delayed,
}

/// When the SDK sends a request again that failed.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Repeats {
    Always,
    /// Not while it may have been carried out.
    WhereRefused,
}

impl SimPorts {
    /// Whether this worker is of a release that knows nothing of letters that were sent, and keeps no message.
    fn is_older(&self) -> bool {
        self.environment.revision < self.world.plan.newer_attributes_from
    }

    fn invocation(&self) -> u64 {
        self.invocation.load(Ordering::Relaxed)
    }

    /// A dead worker gets no further, and a living one may die here.
    async fn gate(&self) {
        if self.dies_here() {
            pending::<()>().await;
        }
    }

    fn dies_here(&self) -> bool {
        if self.environment.is_dead() {
            return true;
        }
        let dies = self.environment.draw(|rng| rng.chance(self.world.faults().kill_at_port));
        if dies {
            self.environment.die();
        }
        dies
    }

    async fn takes(&self, low_ms: u64, high_ms: u64) {
        let ms = self.environment.draw(|rng| rng.range(low_ms, high_ms));
        sleep(Duration::from_millis(ms)).await;
    }

    fn fate(&self) -> (Fate, u64) {
        let faults = self.world.faults();
        let away = self.world.plan.away(Away::Ledger, self.world.elapsed_ms());
        self.environment.draw(|rng| {
            let draw = rng.fraction();
            let slow = rng.chance(faults.ledger_slow);
            let latency_ms = if slow { rng.range(300, 1_000) } else { rng.range(2, 8) };
            let throttled = faults.ledger_throttled;
            let lost = throttled + faults.ledger_reply_lost;
            let delayed = lost + faults.ledger_delayed;
            let fate = match draw {
                // Even an outage lets something through, and loses the reply to something.
                _ if away && draw < 0.97 => Fate::Away,
                _ if away => Fate::ReplyLost,
                draw if draw < throttled => Fate::Throttled,
                draw if draw < lost => Fate::ReplyLost,
                draw if draw < delayed => Fate::Delayed,
                _ => Fate::Works,
            };
            (fate, latency_ms)
        })
    }

    /// The SDK's attempts at an operation whose effect is `apply`.
    async fn attempts<T>(
        &self,
        operation: &'static str,
        fault: impl FnMut(&'static str),
        later: impl FnMut(),
        apply: impl FnMut() -> T,
    ) -> Result<T, PortError> {
        self.attempts_as(Repeats::Always, operation, |_| true, fault, later, apply).await
    }

    async fn attempts_as<T>(
        &self,
        repeats: Repeats,
        operation: &'static str,
        takes: impl Fn(&mut State) -> bool,
        mut fault: impl FnMut(&'static str),
        mut later: impl FnMut(),
        mut apply: impl FnMut() -> T,
    ) -> Result<T, PortError> {
        let mut spent_ms = 0;
        let mut kind = PortErrorKind::Unavailable;
        for attempt in 0..ATTEMPTS_MAX {
            if self.dies_here() {
                // What is on its way may still arrive.
                if self.environment.draw(|rng| rng.chance(0.3)) {
                    later();
                }
                pending::<()>().await;
            }
            let (mut fate, latency_ms) = self.fate();
            let reaches = !matches!(fate, Fate::Throttled | Fate::Away);
            if reaches && !takes(&mut self.world.lock()) {
                fate = Fate::Throttled;
            }
            spent_ms += match fate {
                Fate::Works => {
                    sleep(Duration::from_millis(latency_ms)).await;
                    if self.environment.is_dead() {
                        pending::<()>().await;
                    }
                    let answer = apply();
                    self.gate().await;
                    return Ok(answer);
                }
                Fate::ReplyLost => {
                    fault("the reply is lost");
                    kind = PortErrorKind::Unavailable;
                    sleep(Duration::from_millis(latency_ms)).await;
                    if self.environment.is_dead() {
                        pending::<()>().await;
                    }
                    apply();
                    self.gate().await;
                    latency_ms
                }
                Fate::Delayed => {
                    fault("the attempt takes effect later");
                    kind = PortErrorKind::Unavailable;
                    later();
                    sleep(Duration::from_millis(ATTEMPT_TIMEOUT_MS)).await;
                    ATTEMPT_TIMEOUT_MS
                }
                Fate::Throttled | Fate::Away => {
                    fault(if fate == Fate::Away { "DynamoDB is away" } else { "throttled" });
                    kind = if fate == Fate::Throttled {
                        PortErrorKind::Throttled
                    } else {
                        PortErrorKind::Unavailable
                    };
                    sleep(Duration::from_millis(latency_ms)).await;
                    latency_ms
                }
            };
            if repeats == Repeats::WhereRefused && fate != Fate::Throttled {
                break;
            }
            let backoff_ms = self.environment.draw(|rng| rng.range(0, 50 << attempt));
            sleep(Duration::from_millis(backoff_ms)).await;
            spent_ms += backoff_ms;
            if spent_ms >= OPERATION_TIMEOUT_MS {
                break;
            }
        }
        self.gate().await;
        Err(self.ledger_error(operation, kind))
    }

    fn ledger_error(&self, operation: &'static str, kind: PortErrorKind) -> PortError {
        if let Some(running) = self.world.lock().invocations.get_mut(&self.invocation()) {
            match running.published {
                None => {
                    running.seen.ledger_errors += 1;
                    running.seen.unreadable += u64::from(kind == PortErrorKind::Unreadable);
                }
                Some(_) => _ = self.environment.late_ledger_errors.fetch_add(1, Ordering::Relaxed),
            }
        }
        PortError { service: "DynamoDB", operation, kind, message: "simulated".to_owned() }
    }

    /// What is on its way takes effect within a minute, whatever becomes of its sender.
    fn later(&self, effect: impl FnOnce(&World) + Send + 'static) {
        let delay_ms = self.environment.draw(|rng| match rng.range(0, 3) {
            0 => rng.range(0, 100),
            1 | 2 => rng.range(0, 3_000),
            _ => rng.range(0, 60_000),
        });
        let world = Arc::clone(&self.world);
        tokio::spawn(async move {
            sleep(Duration::from_millis(delay_ms)).await;
            effect(&world);
        });
    }
}

/// What the table answers, and what a worker of this revision can make of it: a newer release has words of its own, and
/// to an older one a record that holds them is unreadable.
fn record_write(
    state: &mut State,
    world: &World,
    asked: Asked<'_>,
    revision: u32,
) -> Result<WriteAnswer, PortErrorKind> {
    let write = asked.write;
    let now_ms = world.now_ms();
    if state.by_key.contains_key(&write.record.key) {
        expire(state, world, now_ms, write);
    }
    let n = state.by_key.get(&write.record.key).copied();
    let readable_from = n.map_or(0, |n| state.inputs[n as usize].readable_from);
    let is_older = revision < world.plan.newer_attributes_from;
    let by_older;
    let asked = if is_older {
        let standing = n.and_then(|n| state.inputs[n as usize].record.as_deref());
        by_older = RecordWrite { record: with_newer(&write.record, standing), expect: write.expect.clone() };
        Asked { write: &by_older, ..asked }
    } else {
        asked
    };
    let kept_none = n.map(|n| std::mem::replace(&mut state.inputs[n as usize].keeps_no_message, is_older));
    let written = state.ledger_write(now_ms, asked, &world.plan);
    if let (Some(n), Some(kept_none), false) = (n, kept_none, written) {
        state.inputs[n as usize].keeps_no_message = kept_none;
    }
    let Some(n) = n else { return Ok(WriteAnswer::Refused(None)) };
    if revision < readable_from && !written {
        return Err(PortErrorKind::Unreadable);
    }
    if written {
        if revision < readable_from {
            let what = "a record in words that its writer does not know was overwritten";
            state.violate(now_ms, Promise::NothingLost, Some(n), what);
        }
        let newer_words = match &write.record.state {
            Standing::Failed(_) => n % 3 == 0,
            Standing::Done(done) => done.needs_review,
            _ => false,
        };
        let newer_words = newer_words && revision >= world.plan.newer_words_from;
        state.inputs[n as usize].readable_from = if newer_words { world.plan.newer_words_from } else { 0 };
        return Ok(WriteAnswer::Written);
    }
    let standing = state.inputs[n as usize].record.clone();
    Ok(WriteAnswer::Refused(if is_older {
        standing.map(|record| Box::new(with_newer(&record, None)))
    } else {
        standing
    }))
}

/// A record as an older worker leaves it: what it does not know is as it stood, whatever the worker says; and as it reads it,
/// where nothing stood.
fn with_newer(record: &Record, standing: Option<&Record>) -> Record {
    Record {
        letter_version: standing.and_then(|standing| standing.letter_version),
        kept: standing.and_then(|standing| standing.kept),
        reviewed: standing.and_then(|standing| standing.reviewed.clone()),
        ..record.clone()
    }
}

/// DynamoDB deletes what has expired whenever it likes.
fn expire(state: &mut State, world: &World, now_ms: u64, write: &RecordWrite) {
    let Some(&n) = state.by_key.get(&write.record.key) else { return };
    let input = &mut state.inputs[n as usize];
    let expired = input.record.as_deref().is_some_and(|record| record.expires_at_ms + 1_000 <= now_ms);
    if expired && state.queue_rng.chance(world.plan.faults.expired_deleted) {
        (input.failures, input.readable_from) = (Failures::default(), 0);
        input.duplicates = (0, None);
        state.stand(n, None);
        state.note(now_ms, n, || "DynamoDB deletes the expired record".to_owned());
    }
}

#[async_trait]
impl ControlRecord for SimPorts {
    async fn control(&self) -> Result<Control, PortError> {
        let answer = self.read_control().await;
        let mut state = self.world.lock();
        let state = &mut *state;
        if let Some(running) = state.invocations.get_mut(&self.invocation()) {
            running.control_read_failed |= answer.is_err();
            // Who reads that nobody may call, for whatever cause, begins its row of refusals anew.
            if answer.as_ref().is_ok_and(Control::is_shut) {
                state.heard.entry(running.environment).or_default().forget_account();
            }
        }
        answer
    }

    async fn control_now(&self) -> Result<Control, PortError> {
        self.tries_to_tell();
        self.read_control().await
    }

    async fn put_control(&self, next: &Control, over: &Control) -> Result<ControlAnswer, PortError> {
        let later = || {
            let (next, over) = (next.clone(), over.clone());
            self.later(move |world| _ = control_write(world, &next, &over));
        };
        let apply = || control_write(&self.world, next, over);
        self.attempts("UpdateItem", |_| (), later, apply).await
    }
}

impl SimPorts {
    async fn read_control(&self) -> Result<Control, PortError> {
        let read = || Control::read(self.world.lock().control.clone());
        self.attempts("GetItem", |_| (), || (), read).await
    }

    /// Who changes the record reads it first; whatever comes of that, its environment has tried to say what it knows.
    fn tries_to_tell(&self) {
        if let Some(heard) = self.world.lock().heard.get_mut(&self.environment.id) {
            heard.untold_of = None;
        }
    }
}

fn control_write(world: &World, next: &Control, over: &Control) -> ControlAnswer {
    world.lock().control_write(world.now_ms(), next, over, Writer::Worker, &world.plan)
}

#[async_trait]
impl Ledger for SimPorts {
    async fn put(&self, write: &RecordWrite) -> Result<WriteAnswer, PortError> {
        let invocation = self.invocation();
        let world = &self.world;
        let asked_ms = world.now_ms();
        let revision = self.environment.revision;
        let index_keys = world.plan.index_keys;
        self.attempts_as(
            Repeats::Always,
            "UpdateItem",
            |state| self.has_units(state, &state.index_units(write, index_keys)),
            |what| world.lock().ledger_fault(world.now_ms(), write, invocation, what),
            || {
                let write = write.clone();
                self.later(move |world| {
                    let asked = Asked { write: &write, invocation, asked_ms };
                    let _ = record_write(&mut world.lock(), world, asked, revision);
                });
            },
            || record_write(&mut world.lock(), world, Asked { write, invocation, asked_ms }, revision),
        )
        .await
        .and_then(|answer| answer.map_err(|kind| self.ledger_error("UpdateItem", kind)))
        .inspect(|answer| {
            let is_written = matches!(write.answered((*answer).clone()), WriteAnswer::Written);
            if is_written && matches!(write.record.state, Standing::Done(_)) {
                world.lock().result_is_written(self.now_ms(), invocation, &write.record);
            }
        })
    }

    async fn keep(&self, part: &Part, now_ms: u64) -> Result<KeepAnswer, PortError> {
        let world = &self.world;
        if self.is_older() {
            return Ok(KeepAnswer::Kept);
        }
        self.attempts(
            "UpdateItem",
            |_| (),
            || {
                let part = part.clone();
                self.later(move |world| _ = world.lock().part_is_written(world.now_ms(), &part, now_ms));
            },
            || world.lock().part_is_written(world.now_ms(), part, now_ms),
        )
        .await
    }

    async fn count_duplicate(&self, key: &InputHash, message_id: &str) -> Result<(), PortError> {
        let (world, invocation) = (&self.world, self.invocation());
        self.attempts(
            "UpdateItem",
            |_| (),
            || (),
            || {
                let mut state = world.lock();
                let Some(&n) = state.by_key.get(key) else { return };
                if let Some(running) = state.invocations.get_mut(&invocation) {
                    running.seen.duplicates.extend(message_id.parse::<u32>());
                }
                let input = &mut state.inputs[n as usize];
                let (count, last) = &mut input.duplicates;
                if input.record.is_none() || last.as_deref() == Some(message_id) {
                    return;
                }
                (*count, *last) = (*count + 1, Some(message_id.to_owned()));
                state.note(world.now_ms(), n, || format!("message {message_id} counted as a duplicate"));
            },
        )
        .await
    }

    async fn note_letter_sent(&self, key: &InputHash, version: u64) -> Result<(), PortError> {
        let world = &self.world;
        if self.is_older() {
            return Ok(());
        }
        self.attempts(
            "UpdateItem",
            |_| (),
            || (),
            || {
                let mut state = world.lock();
                let Some(&n) = state.by_key.get(key) else { return };
                if state.inputs[n as usize].letter_is_noted(version) {
                    state.note(world.now_ms(), n, || format!("the letter of v{version} is noted as sent"));
                }
            },
        )
        .await
    }

    async fn tell_calls(&self, minute: u64, calls: &Calls) -> Result<(), PortError> {
        let add = move |world: &World, calls: Calls| {
            let mut state = world.lock();
            let told = state.told.entry(minute).or_default();
            *told = told.and(calls);
            while state.told.len() > TOLD_MINUTES {
                state.told.pop_first();
            }
        };
        let (world, calls) = (&self.world, *calls);
        let later = || self.later(move |world| add(world, calls));
        let takes = |state: &mut State| self.has_units(state, &[(Hot::Calls, 1)]);
        self.attempts_as(Repeats::Always, "UpdateItem", takes, |_| (), later, || add(world, calls)).await
    }

    async fn spend(&self, change: &SpendChange) -> Result<SpendAnswer, PortError> {
        let invocation = self.invocation();
        let change = *change;
        if self.environment.revision < self.world.plan.shards_from {
            return self.spend_by_transaction(change).await;
        }
        let repeats = if change.kind.gives() { Repeats::WhereRefused } else { Repeats::Always };
        let is_read = matches!(change.kind, SpendKind::Check { .. });
        let hot = if is_read { Hot::SpendReads } else { Hot::Spend(change.key) };
        self.attempts_as(
            repeats,
            if is_read { "GetItem" } else { "UpdateItem" },
            |state| {
                let meets = !is_read && change.key == SpendKey::Day && self.meets_transaction(state, &change);
                !meets && self.has_units(state, &[(hot, 1)])
            },
            |_| (),
            || self.later(move |world| _ = spend(&mut world.lock(), world, &change, invocation)),
            || spend(&mut self.world.lock(), &self.world, &change, invocation),
        )
        .await
    }
}

impl SimPorts {
    fn has_units(&self, state: &mut State, keys: &[(Hot, u32)]) -> bool {
        self.world.plan.index_keys == 0 || state.units.take(self.world.now_ms(), keys)
    }

    /// Releases of before the shards take from the day's own record, and each of their changes is a transaction of one under a
    /// token, so that it counts once however often it is sent.
    async fn spend_by_transaction(&self, change: SpendChange) -> Result<SpendAnswer, PortError> {
        let invocation = self.invocation();
        let is_counted: Arc<AtomicBool> = Arc::default();
        let once = move |is_counted: &AtomicBool, world: &World| {
            if is_counted.load(Ordering::Relaxed) {
                return SpendAnswer::Counted;
            }
            let answer = spend(&mut world.lock(), world, &change, invocation);
            is_counted.store(answer == SpendAnswer::Counted, Ordering::Relaxed);
            answer
        };
        self.attempts_as(
            Repeats::Always,
            "TransactWriteItems",
            |state| {
                let is_taken = !self.meets_transaction(state, &change)
                    && self.has_units(state, &[(Hot::Spend(change.key), TRANSACTION_UNITS)]);
                if is_taken {
                    state.transacted.insert(change.day, self.world.now_ms() + TRANSACTION_MS);
                }
                is_taken
            },
            |_| (),
            || {
                let is_counted = Arc::clone(&is_counted);
                self.later(move |world| _ = once(&is_counted, world));
            },
            || once(&is_counted, &self.world),
        )
        .await
    }

    /// While a transaction is under way on an item, DynamoDB refuses whatever else would change it.
    fn meets_transaction(&self, state: &mut State, change: &SpendChange) -> bool {
        let until_ms = state.transacted.get(&change.day).copied().unwrap_or_default();
        let meets = self.world.now_ms() < until_ms;
        state.stats.conflicts += u64::from(meets);
        meets
    }
}

/// A change of one of the day's records reaches the table.
fn spend(state: &mut State, world: &World, change: &SpendChange, invocation: u64) -> SpendAnswer {
    let day = state.spend.entry(change.day).or_default();
    let mut over = None;
    // A shard that nobody has taken money for is not there.
    let mut nothing = 0;
    let held = match change.key {
        SpendKey::Day => &mut day.taken_micro_usd,
        SpendKey::Shard(shard) => match change.kind {
            SpendKind::Draw { .. } => day.shards_micro_usd.get_mut(&shard).unwrap_or(&mut nothing),
            _ => day.shards_micro_usd.entry(shard).or_default(),
        },
    };
    match change.kind {
        SpendKind::Reserve { micro_usd, cap_micro_usd, shard } => {
            let left = i128::from(cap_micro_usd) - *held;
            if i128::from(micro_usd) > left {
                return no_room(state, world, change, invocation, left);
            }
            *held += i128::from(micro_usd);
            if let Some(shard) = shard {
                day.shards_micro_usd.entry(shard).or_default();
            }
        }
        SpendKind::Check { cap_micro_usd } => {
            let left = i128::from(cap_micro_usd) - *held;
            return if left < 0 {
                SpendAnswer::NoRoom { left_micro_usd: 0, shards: Shards::default() }
            } else {
                SpendAnswer::Counted
            };
        }
        SpendKind::Draw { micro_usd } => {
            let left = *held;
            if i128::from(micro_usd) > left {
                return no_room(state, world, change, invocation, left);
            }
            *held -= i128::from(micro_usd);
        }
        SpendKind::Fund { micro_usd } => *held += i128::from(micro_usd),
        SpendKind::Settle { reserved_micro_usd, spent_micro_usd, answered_at_ms, called_at_ms } => {
            let spent = i128::from(spent_micro_usd) - i128::from(reserved_micro_usd);
            *held += if change.key == SpendKey::Day { spent } else { -spent };
            day.answered_at_ms = answered_at_ms.or(day.answered_at_ms);
            day.called_at_ms = called_at_ms.or(day.called_at_ms);
            let running = state.invocations.get(&invocation);
            let calls_micro_usd = running.map(|running| running.calls_micro_usd);
            let of_another = running.and_then(|running| running.day).filter(|day| *day != change.day);
            over = of_another.map(|day| format!("an invocation of {day} was settled on {}", change.day));
            let dear =
                calls_micro_usd.filter(|calls_micro_usd| spent_micro_usd > *calls_micro_usd).map(|calls| {
                    format!(
                        "{spent_micro_usd} millionths of a dollar were settled for calls of at most {calls}"
                    )
                });
            over = over.or(dear);
        }
    }
    day.changed_ms = world.now_ms();
    let left = match change.key {
        SpendKey::Day => i128::from(world.plan.limits.spend_cap_micro_usd) - day.taken_micro_usd,
        SpendKey::Shard(shard) => day.shards_micro_usd.get(&shard).copied().unwrap_or_default(),
    };
    let taken = change.kind.takes();
    day.reserved_at_ms = taken.map(|_| change.at_ms).or(day.reserved_at_ms);
    if let Some(micro_usd) = taken
        && let Some(running) = state.invocations.get_mut(&invocation)
    {
        // What others gave back since a refusal, it cannot know; and what it was told of, it asks for once.
        running.no_room.entry(change.key).or_insert((0, u64::MAX));
        for (_, left_micro_usd) in running.no_room.values_mut() {
            *left_micro_usd = left_micro_usd.saturating_sub(micro_usd);
        }
        if let Some((_, left_micro_usd)) = running.no_room.get_mut(&change.key) {
            *left_micro_usd = (*left_micro_usd).min(u64::try_from(left).unwrap_or_default());
        }
    }
    if let Some(what) = over {
        state.violate(world.now_ms(), Promise::Budgets, None, what);
    }
    state.judge_day(world.now_ms(), None, change.day, &world.plan);
    SpendAnswer::Counted
}

fn no_room(
    state: &mut State,
    world: &World,
    change: &SpendChange,
    invocation: u64,
    left: i128,
) -> SpendAnswer {
    let left_micro_usd = u64::try_from(left).unwrap_or_default();
    let day = state.spend.get(&change.day);
    let room_micro_usd = state.room_micro_usd(change.day, &world.plan);
    let shards = match change.key {
        SpendKey::Day => Shards::of(day.into_iter().flat_map(|day| day.shards_micro_usd.keys().copied())),
        SpendKey::Shard(_) => Shards::default(),
    };
    if let Some(running) = state.invocations.get_mut(&invocation) {
        let (times, known_micro_usd) = running.no_room.entry(change.key).or_default();
        (*times, *known_micro_usd) = (*times + 1, left_micro_usd);
        let mut others = day.into_iter().flat_map(|day| day.shards_micro_usd.keys());
        let refused = |key| running.no_room.get(&key).is_some_and(|(times, _)| *times > 0);
        let is_full = refused(SpendKey::Day) && others.all(|shard| refused(SpendKey::Shard(*shard)));
        if world.plan.spreads.iter().any(|spread| spread.has_shards()) && is_full {
            state.full_ms.insert(running.environment, world.now_ms());
        }
    }
    // A shard that is empty says nothing of the day.
    if room_micro_usd < CALL_MICRO_USD_MAX {
        state.pauses.heard_of_cap(world.now_ms());
    }
    SpendAnswer::NoRoom { left_micro_usd, shards }
}

#[async_trait]
impl DeadLetters for SimPorts {
    async fn send(&self, letter: &DeadLetter) -> Result<(), PortError> {
        self.gate().await;
        self.takes(3, 20).await;
        let world = &self.world;
        let fails = self.environment.draw(|rng| rng.chance(world.faults().letter_fails))
            || world.plan.away(Away::Letters, world.elapsed_ms());
        let sent_all_the_same = self.environment.draw(|rng| rng.chance(0.3));
        if self.environment.is_dead() {
            pending::<()>().await;
        }
        if let Some(why) = why_refused(letter) {
            world.violate(Promise::NothingLost, None, format!("a dead letter that SQS refuses: {why}"));
            return Err(PortError {
                service: "SQS",
                operation: "SendMessage",
                kind: PortErrorKind::Refused,
                message: why.to_owned(),
            });
        }
        if !fails || sent_all_the_same {
            let (of, version) = self.letter_arrives(letter);
            let now_ms = world.now_ms();
            world.lock().letters.push(Letter::coming(now_ms, now_ms, letter.clone(), of, version));
        }
        self.gate().await;
        if !fails {
            return Ok(());
        }
        {
            let mut state = world.lock();
            let state = &mut *state;
            if let Some(running) = state.invocations.get(&self.invocation()) {
                for (message, _) in &running.batch {
                    state.queue.messages[*message as usize].prevented += 1;
                }
            }
        }
        Err(PortError {
            service: "SQS",
            operation: "SendMessage",
            kind: PortErrorKind::Unavailable,
            message: "simulated".to_owned(),
        })
    }
}

impl SimPorts {
    /// Judges a dead letter; returns the input that it says, and the reference of its message; and the version of the
    /// failed record that it tells of.
    pub(crate) fn letter_arrives(&self, letter: &DeadLetter) -> (Option<(u32, u32)>, Option<u64>) {
        let world = &self.world;
        let now_ms = world.now_ms();
        let text = |name: &str| {
            letter.attributes.iter().find(|(of, _)| of == name).and_then(|(_, a)| match &a.value {
                AttributeValue::Text(text) => Some(text.as_str()),
                AttributeValue::Bytes(_) => None,
            })
        };
        let context: Value = text(CONTEXT_ATTRIBUTE)
            .and_then(|context| serde_json::from_str(context).ok())
            .unwrap_or_default();
        let of_context = |name: &str| context.get(name).and_then(Value::as_str);
        let reason = text(REASON_ATTRIBUTE).or_else(|| of_context("reason"));
        let hash = text(HASH_ATTRIBUTE).or_else(|| of_context("input_hash"));
        let message = of_context("source_message_id").and_then(|id| id.parse::<u32>().ok());
        let (reason, hash) = (reason.map(str::to_owned), hash.map(str::to_owned));
        let mut state = world.lock();
        let reason: Option<FailureReason> =
            reason.and_then(|reason| serde_json::from_value(Value::from(reason)).ok());
        let n = hash.and_then(|hash| state.by_key.get(&InputHash::from_stored(&hash)).copied());
        let (Some(reason), Some(n), Some(message)) = (reason, n, message) else {
            state.violate(
                now_ms,
                Promise::Explained,
                n,
                "a dead letter that does not say why, which or whose",
            );
            return (None, None);
        };
        let version = context.get("record_version").and_then(Value::as_u64);
        let queued = &state.queue.messages[message as usize];
        let body_is_original =
            queued.input == n && letter.body == state.inputs[n as usize].kind.body(n, queued.reference);
        let reference = queued.reference;
        let arrived =
            ArrivedLetter { n, reason, message, version, body_is_original, letter: letter.clone(), context };
        state.letter_arrives(now_ms, &arrived, self.invocation(), &world.plan);
        (Some((n, reference)), version)
    }
}

#[async_trait]
impl Visibility for SimPorts {
    async fn change(&self, receipt_handle: &str, delay_s: u32) -> Result<(), PortError> {
        self.gate().await;
        self.takes(3, 15).await;
        let world = &self.world;
        let fails = self.environment.draw(|rng| rng.chance(world.faults().visibility_fails));
        let lost = self.environment.draw(|rng| rng.chance(0.5));
        if self.environment.is_dead() {
            pending::<()>().await;
        }
        let mut answer = HandleAnswer::Stale;
        {
            let mut state = world.lock();
            let now_ms = world.now_ms();
            let id = receipt_handle.split('/').next().and_then(|id| id.parse::<usize>().ok());
            if !fails || lost {
                answer = state.queue.change_visibility(receipt_handle, u64::from(delay_s) * 1_000, now_ms);
            }
            if let (Some(running), Some(id)) = (state.invocations.get_mut(&self.invocation()), id) {
                running.seen.hidden.insert(id as u32, delay_s);
            }
            if let Some(message) = id.and_then(|id| state.queue.messages.get_mut(id)) {
                let (n, receives) = (message.input, message.receive_count);
                if answer != HandleAnswer::Ok {
                    // It comes back when its visibility ends, whatever the provider said.
                    message.not_before_ms = 0;
                }
                if (receives == 1 || receives > 6) && delay_s <= 900 {
                    *state.hand_back_delays.entry((receives.min(7), delay_s)).or_default() += 1;
                }
                state
                    .note(now_ms, n, || format!("message {receipt_handle} away for {delay_s} s: {answer:?}"));
                if answer == HandleAnswer::TooLong {
                    state.violate(now_ms, Promise::Paced, Some(n), "a visibility beyond SQS's 12 hours");
                }
            }
        }
        world.visibility.notify_one();
        self.gate().await;
        if !fails && answer == HandleAnswer::Ok {
            return Ok(());
        }
        Err(PortError {
            service: "SQS",
            operation: "ChangeMessageVisibility",
            kind: PortErrorKind::Refused,
            message: "simulated".to_owned(),
        })
    }
}

#[async_trait]
impl Metrics for SimPorts {
    async fn publish(&self, batch: &MetricBatch, _within: Duration) {
        self.gate().await;
        if let Some(running) = self.world.lock().invocations.get_mut(&self.invocation()) {
            running.published = Some(batch.clone());
        }
        self.takes(3, 30).await;
        self.gate().await;
    }
}

impl Clock for SimPorts {
    fn now_ms(&self) -> u64 {
        self.world.now_ms().saturating_add_signed(self.environment.skew_ms)
    }
}

impl Entropy for SimPorts {
    fn fraction(&self) -> f64 {
        self.environment.draw(crate::rng::Rng::fraction)
    }

    fn token(&self) -> String {
        self.environment.draw(|rng| format!("{:016x}{:016x}", rng.bits(), rng.bits()))
    }
}

// ---------------------------------------------------------------------------------------------------------------
// The model

/// What will come of a call.
struct Verdict {
    end: CallEnd,
    result: Result<ModelReply, ModelFailure>,
    after_ms: u64,
    /// What the provider charges; 0 where it did not answer.
    micro_usd: u64,
    /// What the answer counts as: what the provider says, or the most that it can be where that cannot be right.
    told: Usage,
    lied: bool,
    /// The adapter notices nothing.
    hangs: bool,
    dies: bool,
}

/// Tells the oracle when a call is dropped.
struct OpenCall<'a> {
    world: &'a World,
    n: u32,
    id: u32,
    invocation: u64,
    began_ms: u64,
    timeout_ms: u64,
    ended: bool,
}

impl Drop for OpenCall<'_> {
    fn drop(&mut self) {
        if !self.ended {
            let now_ms = self.world.now_ms();
            let mut state = self.world.lock();
            // Cut off for its time, it is a failed call; dropped before, it is none that anybody heard of.
            if now_ms > self.began_ms + self.timeout_ms {
                state.pauses.heard(now_ms, CallEnd::Transient, false);
                state.call_is_counted(
                    now_ms,
                    self.n,
                    self.invocation,
                    CallEnd::Transient,
                    None,
                    &self.world.plan,
                );
            }
            state.call_ends(now_ms, self.n, self.id, CallEnd::Dropped);
        }
    }
}

#[async_trait]
impl Model for SimPorts {
    async fn call(&self, request: &ModelRequest) -> Result<ModelReply, ModelFailure> {
        self.gate().await;
        let world = &self.world;
        let is_probe =
            world.lock().invocations.get(&self.invocation()).is_some_and(|running| running.is_probe);
        if is_probe {
            return self.probed(request).await;
        }
        let n = request.turns.first().and_then(|turn| match turn {
            Turn::User(text) => text.strip_prefix("n=")?.lines().next()?.parse::<u32>().ok(),
            Turn::Assistant(_) => None,
        });
        let Some(n) = n else {
            world.violate(Promise::OnlyValidated, None, "a prompt that is no input's");
            return pending().await;
        };
        let invocation = self.invocation();
        let told_until_ms = self.environment.told_until_ms.load(Ordering::Relaxed);
        let (id, verdict) = {
            let mut state = world.lock();
            let now_ms = world.now_ms();
            let id = state.call_begins(now_ms, n, invocation, request, told_until_ms, &world.plan);
            let mut verdict = verdict(&mut state, world, n, request);
            let request_id = Some(format!("req-{id}"));
            match &mut verdict.result {
                Ok(reply) => reply.request_id = request_id,
                // Where nobody answered, nobody gave it an id.
                Err(failure) => failure.request_id = request_id.filter(|_| failure.status.is_some()),
            }
            let told_micro_usd = crate::fleet::PRICE.of(verdict.told);
            state.call_is_billed(
                now_ms,
                n,
                id,
                (verdict.micro_usd, told_micro_usd),
                verdict.lied,
                &world.plan,
            );
            (id, verdict)
        };
        let began_ms = world.now_ms();
        let timeout_ms = request.timeout_ms;
        let mut open = OpenCall { world, n, id, invocation, began_ms, timeout_ms, ended: false };
        if verdict.dies {
            sleep(Duration::from_millis(verdict.after_ms)).await;
            self.environment.die();
            return pending().await;
        }
        if verdict.hangs {
            return pending().await;
        }
        let timed_out = verdict.after_ms > request.timeout_ms;
        sleep(Duration::from_millis(verdict.after_ms.min(request.timeout_ms))).await;
        if self.environment.is_dead() {
            return pending().await;
        }
        let (end, result) = if timed_out {
            // Before the head of the answer, or in the middle of its body.
            let status = (id % 2 == 0).then_some(200);
            (CallEnd::Transient, Err(failure(FailureClass::Transient, status, "timeout")))
        } else {
            (verdict.end, verdict.result)
        };
        self.gate().await;
        open.ended = true;
        let heard = result.is_ok().then(|| (verdict.told, world.now_ms() - began_ms));
        let limited = matches!(&result, Err(failure) if failure.status == Some(429));
        {
            let mut state = world.lock();
            state.pauses.heard(world.now_ms(), end, limited);
            state.call_is_counted(world.now_ms(), n, invocation, end, heard, &world.plan);
        }
        self.received(n, id, invocation, end, &result);
        result
    }
}

impl SimPorts {
    /// The worker has its answer.
    fn received(
        &self,
        n: u32,
        id: u32,
        invocation: u64,
        end: CallEnd,
        result: &Result<ModelReply, ModelFailure>,
    ) {
        let now_ms = self.world.now_ms();
        let mut state = self.world.lock();
        state.call_ends(now_ms, n, id, end);
        state.call_is_heard(n, id, result);
        let Err(failure) = result else { return };
        let told_ms = failure
            .advice
            .retry_after_ms
            .as_deref()
            .and_then(|ms| ms.parse::<u64>().ok())
            .or_else(|| failure.advice.retry_after.as_deref()?.parse::<u64>().ok().map(|s| s * 1_000));
        let input = &mut state.inputs[n as usize];
        let record = input.record.clone();
        let record = record.as_deref();
        let epoch = input.epoch_of(invocation);
        if failure.advice.should_retry == Some(false) {
            epoch.no_retry = record.map(|record| record.token.clone());
        }
        if failure.class == FailureClass::Transient && told_ms.is_none() {
            let in_row = epoch.calls.iter().rev();
            let row = in_row
                .take_while(|call| {
                    call.invocation == invocation
                        && matches!(call.end, CallEnd::Transient | CallEnd::Capacity)
                })
                .count()
                .min(epoch.calls_in_claim as usize);
            epoch.failed_at = Some((now_ms, row.saturating_sub(1) as u32));
        }
        if let Some(told_ms) = told_ms {
            // Seven hours is what a claim, a visibility and its jitter can honour for sure.
            let until_ms = now_ms + told_ms.min(7 * HOUR);
            let message = record.and_then(|record| record.message_id.parse::<usize>().ok());
            if let Some(message) = message.and_then(|id| state.queue.messages.get_mut(id)) {
                message.not_before_ms = until_ms;
            }
            if failure.class == FailureClass::Capacity {
                self.environment.told_until_ms.fetch_max(until_ms, Ordering::Relaxed);
            }
        }
    }
}

fn failure(class: FailureClass, status: Option<u16>, error_type: &str) -> ModelFailure {
    ModelFailure {
        class,
        status,
        error_type: error_type.to_owned(),
        message: "simulated".to_owned(),
        request_id: None,
        advice: RetryAdvice::default(),
        headroom: Headroom::default(),
        oversize: None,
    }
}

/// How the adapters report an answer that was made, and of which they did not get the whole: each form of
/// `faults_of_the_wire_are_told_apart` (crates/models/tests/over_http/wire.rs), and a gateway that did not wait for it.
const LOST_REPLIES: [(Option<u16>, &str); 7] = [
    (None, "reset"),
    (None, "timeout"),
    (Some(200), "reset"),
    (Some(200), "timeout"),
    (Some(200), "reply_too_large"),
    (Some(200), "unreadable_reply"),
    (Some(504), "http_504"),
];

/// Decides at its beginning what a call will come to.
fn verdict(state: &mut State, world: &World, n: u32, request: &ModelRequest) -> Verdict {
    let plan = &world.plan;
    let faults = world.faults();
    let elapsed_ms = world.elapsed_ms();
    let kind = state.inputs[n as usize].effective_kind();
    let headroom = fill(state, world, elapsed_ms);
    let rng = &mut state.provider.rng;
    let quick_ms = rng.range(30, 150);
    let usual_ms = rng.range(plan.latency_ms.0, plan.latency_ms.1);
    let draw = rng.fraction();
    let coin = rng.fraction();
    let far = rng.range(request.timeout_ms / 2, request.timeout_ms * 2);
    let verdict = |end, result, after_ms| Verdict {
        end,
        result,
        after_ms,
        micro_usd: 0,
        told: Usage::default(),
        lied: false,
        hangs: false,
        dies: false,
    };
    // A token is at least one byte.
    let asked = request.turns.iter().map(|turn| match turn {
        Turn::User(text) | Turn::Assistant(text) => text.len() as u64,
    });
    let asked_again_tokens = asked.sum::<u64>() - format!("n={n}").len() as u64;
    // A re-ask costs nearly all that is reserved for one.
    let reask_tokens = if asked_again_tokens > 0 { asked_again_tokens + 3_500 } else { 0 };
    let input_tokens = 500 + u64::from(n % 200) + reask_tokens;
    let usage = |output_tokens: u64| Usage { input_tokens, output_tokens };
    let unheard_micro_usd = crate::fleet::PRICE.of(usage(40 + (coin * 400.0) as u64));
    if kind == Kind::Poison {
        let result = Err(failure(FailureClass::Transient, None, "poison"));
        let micro_usd = unheard_micro_usd;
        return Verdict { dies: true, micro_usd, ..verdict(CallEnd::Dropped, result, usual_ms) };
    }
    if let Some((end, failed)) = refuses_all(plan, elapsed_ms) {
        return verdict(end, Err(failed), quick_ms);
    }
    if kind == Kind::Forbidden {
        let result = Err(failure(FailureClass::Unclear, Some(403), "http_403"));
        return verdict(CallEnd::Forbidden, result, quick_ms);
    }
    let edges = [
        faults.model_fails,
        faults.model_overloaded,
        faults.model_hangs,
        faults.model_slow,
        faults.model_reply_lost,
        faults.model_lies,
    ];
    let mut edge = 0.0;
    let fault = edges.iter().position(|share| {
        edge += share;
        draw < edge
    });
    if plan.away(Away::Provider, elapsed_ms) {
        return verdict(CallEnd::Capacity, Err(overloaded(coin)), quick_ms);
    }
    if plan.away(Away::Backend, elapsed_ms) {
        return verdict(CallEnd::Transient, Err(broke_down()), quick_ms);
    }
    if plan.away(Away::Answers, elapsed_ms) {
        let result = Err(failure(FailureClass::Transient, None, "timeout"));
        return Verdict { micro_usd: unheard_micro_usd, ..verdict(CallEnd::Transient, result, u64::MAX) };
    }
    if plan.away(Away::Limit, elapsed_ms) {
        let mut failed = failure(FailureClass::Capacity, Some(429), "rate_limit_error");
        failed.advice.retry_after = Some(format!("{}", 1 + (coin * 60.0) as u64));
        return verdict(CallEnd::Capacity, Err(failed), quick_ms);
    }
    if let Some(wait_s) = short_of(state, plan) {
        let mut failed = failure(FailureClass::Capacity, Some(429), "rate_limit_error");
        failed.headroom = headroom;
        if coin < 0.8 {
            failed.advice.retry_after = Some(wait_s.to_string());
        }
        state.stats.throttled += 1;
        return verdict(CallEnd::Capacity, Err(failed), quick_ms);
    }
    match fault {
        Some(0) => {
            let mut failed = broke_down();
            if coin < 0.2 {
                failed.advice.should_retry = Some(false);
            }
            // Some fail before they have done the work, and some after it.
            let micro_usd = if coin < 0.5 { unheard_micro_usd } else { 0 };
            return Verdict { micro_usd, ..verdict(CallEnd::Transient, Err(failed), usual_ms) };
        }
        Some(1) => return verdict(CallEnd::Capacity, Err(overloaded(coin)), quick_ms),
        Some(2) => {
            let result = Err(failure(FailureClass::Transient, None, "timeout"));
            let micro_usd = unheard_micro_usd;
            return Verdict { hangs: coin < 0.5, micro_usd, ..verdict(CallEnd::Transient, result, u64::MAX) };
        }
        Some(4) => {
            let form = (coin * LOST_REPLIES.len() as f64) as usize;
            let (status, error_type) = LOST_REPLIES[form.min(LOST_REPLIES.len() - 1)];
            let result = Err(failure(FailureClass::Transient, status, error_type));
            let micro_usd = unheard_micro_usd;
            return Verdict { micro_usd, ..verdict(CallEnd::Transient, result, usual_ms) };
        }
        _ => {}
    }
    let after_ms = if fault == Some(3) { far } else { usual_ms };
    let lies = fault == Some(5);
    let told = request
        .turns
        .last()
        .is_some_and(|turn| matches!(turn, Turn::User(text) if text.contains(CHECK_IS_WRONG)));
    let (end, answer) = answer(kind, n, lies, coin, told);
    let full_unsaid = end == CallEnd::Truncated && cut_off(n) == CutOff::ContextUnsaid;
    let usage = usage(match end {
        CallEnd::Truncated if cut_off(n) == CutOff::Limit => u64::from(OUTPUT_TOKENS_MAX),
        // Who does not obey says more than was asked.
        CallEnd::Invalid => 40 + (coin * 400.0) as u64,
        _ => 40,
    });
    // Of an answer that was cut off, the count is all that tells by what.
    let miscounts = state.provider.rng.chance(faults.model_miscounts) && !full_unsaid;
    let says_something = !matches!(answer, Some(Answer::Unusable { .. }));
    let reported = if miscounts { miscounted(usage, says_something, coin) } else { usage.into() };
    let most = most_of_a_call(state, n);
    let told = Usage {
        input_tokens: reported.input_tokens.filter(|n| *n == usage.input_tokens).unwrap_or(most.input_tokens),
        output_tokens: reported
            .output_tokens
            .filter(|n| *n == usage.output_tokens)
            .unwrap_or(most.output_tokens),
    };
    let tokens = usage.input_tokens + usage.output_tokens;
    state.provider.requests -= 1.0;
    state.provider.tokens -= tokens as f64;
    let (calls, all_tokens) = &mut state.provider.granted;
    (*calls, *all_tokens) = (*calls + 1, *all_tokens + tokens);
    match answer {
        Some(answer) => Verdict {
            micro_usd: crate::fleet::PRICE.of(usage),
            told,
            lied: lies,
            ..verdict(end, Ok(ModelReply { answer, usage: reported, request_id: None, headroom }), after_ms)
        },
        None => {
            let mut failed = failure(FailureClass::Rejected, Some(400), "invalid_request_error");
            failed.oversize = Some(oversize(n));
            verdict(CallEnd::Rejected, Err(failed), quick_ms)
        }
    }
}

/// What everybody is told while the account or a gateway refuses everything.
fn refuses_all(plan: &Plan, elapsed_ms: u64) -> Option<(CallEnd, ModelFailure)> {
    if plan.away(Away::Account, elapsed_ms) {
        return Some((CallEnd::Account, failure(FailureClass::Account, Some(401), "authentication_error")));
    }
    plan.away(Away::Gateway, elapsed_ms)
        .then(|| (CallEnd::Unclear, failure(FailureClass::Unclear, Some(400), "bad_request")))
}

fn broke_down() -> ModelFailure {
    failure(FailureClass::Transient, Some(500), "api_error")
}

fn overloaded(coin: f64) -> ModelFailure {
    let mut failed = failure(FailureClass::Capacity, Some(529), "overloaded_error");
    if coin < 0.3 {
        failed.advice.retry_after = Some(format!("{}", 1 + (coin * 300.0) as u64));
    } else if coin < 0.4 {
        failed.advice.retry_after_ms = Some(format!("{}", 1 + (coin * 9_000.0) as u64));
    }
    failed
}

impl SimPorts {
    /// A call that is no job's: answered as the provider answers everybody now, and paid for.
    async fn probed(&self, request: &ModelRequest) -> Result<ModelReply, ModelFailure> {
        let world = &self.world;
        let (elapsed_ms, faults) = (world.elapsed_ms(), world.faults());
        let (result, after_ms) = {
            let mut state = world.lock();
            state.probe_begins(world.now_ms());
            let headroom = fill(&mut state, world, elapsed_ms);
            let rng = &mut state.provider.rng;
            let (quick_ms, coin) = (rng.range(30, 150), rng.fraction());
            let usual_ms = rng.range(world.plan.latency_ms.0, world.plan.latency_ms.1);
            let fails = rng.chance(faults.model_fails + faults.model_hangs)
                || world.plan.away(Away::Answers, elapsed_ms);
            let limited = world.plan.away(Away::Limit, elapsed_ms) || short_of(&state, &world.plan).is_some();
            if let Some((_, failed)) = refuses_all(&world.plan, elapsed_ms) {
                (Err(failed), quick_ms)
            } else if world.plan.away(Away::Provider, elapsed_ms) {
                (Err(overloaded(coin)), quick_ms)
            } else if limited {
                (Err(failure(FailureClass::Capacity, Some(429), "rate_limit_error")), quick_ms)
            } else {
                let usage = Usage { input_tokens: 200, output_tokens: 10 };
                state.provider.requests -= 1.0;
                state.probe_is_billed(
                    world.now_ms(),
                    self.invocation(),
                    crate::fleet::PRICE.of(usage),
                    &world.plan,
                );
                let answer = Answer::Text("{}".to_owned());
                let reply = ModelReply { answer, usage: usage.into(), request_id: None, headroom };
                if world.plan.away(Away::Backend, elapsed_ms) {
                    (Err(broke_down()), quick_ms)
                } else if fails {
                    (Err(failure(FailureClass::Transient, None, "timeout")), request.timeout_ms)
                } else {
                    (Ok(reply), usual_ms)
                }
            }
        };
        sleep(Duration::from_millis(after_ms)).await;
        self.gate().await;
        result
    }
}

/// The most tokens that one call can take: as many as the request has bytes, an answer that is sent back, and an answer.
fn most_of_a_call(state: &State, n: u32) -> Usage {
    let input = &state.inputs[n as usize];
    let message = input.record.as_deref().and_then(|record| record.message_id.parse::<usize>().ok());
    let reference =
        message.and_then(|id| state.queue.messages.get(id)).map_or(0, |message| message.reference);
    let bytes = OVERHEAD_BYTES + input.kind.body(n, reference).len() + REASK_BYTES_MAX;
    let output_tokens = u64::from(OUTPUT_TOKENS_MAX);
    Usage { input_tokens: bytes as u64 + output_tokens, output_tokens }
}

/// A count of tokens that cannot be right.
fn miscounted(usage: Usage, says_something: bool, coin: f64) -> ReportedUsage {
    let (input_tokens, output_tokens) = (Some(usage.input_tokens), Some(usage.output_tokens));
    match (coin * 6.0) as u32 {
        0 => ReportedUsage::default(),
        1 => ReportedUsage { input_tokens: None, output_tokens },
        2 => ReportedUsage { input_tokens, output_tokens: None },
        3 if says_something => Usage::default().into(),
        4 => ReportedUsage { input_tokens, output_tokens: Some(u64::MAX) },
        _ => ReportedUsage { input_tokens: Some(1_000_000_000), output_tokens },
    }
}

/// What the model says; `told`: the request says what was wrong with its last answer. `None`: the provider rejects it.
fn answer(kind: Kind, n: u32, lies: bool, coin: f64, told: bool) -> (CallEnd, Option<Answer>) {
    let right = json!({"n": n, "check": check_of(n.into())});
    let text = |value: &Value| Some(Answer::Text(value.to_string()));
    let wrong_check = json!({"n": n, "check": 1_000_004});
    let wrong = |coin: f64| match (coin * 5.0) as u32 {
        0 => Answer::Text(wrong_check.to_string()),
        1 => Answer::Text(format!("{{\"n\":{n},\"check\":")),
        2 => Answer::Text(format!("{right}{right}")),
        3 => Answer::Text("I would rather not say.".to_owned()),
        _ => Answer::Unusable { why: "no text".to_owned() },
    };
    match kind {
        Kind::Rejected => (CallEnd::Rejected, None),
        Kind::Refuses => (
            CallEnd::Refused,
            // What was said looks like a result, and is none.
            Some(Answer::Refused { why: "refusal".to_owned(), text: right.to_string() }),
        ),
        Kind::Truncates => {
            let by = match cut_off(n) {
                CutOff::Context => TokenLimit::Context,
                CutOff::ContextUnsaid | CutOff::Limit => TokenLimit::Answer,
            };
            (CallEnd::Truncated, Some(Answer::Truncated { text: right.to_string(), by }))
        }
        Kind::NeverValid | Kind::Guarded => (CallEnd::Invalid, Some(wrong(coin))),
        Kind::Stubborn if lies || !told => (CallEnd::Invalid, text(&wrong_check)),
        Kind::TooLarge => {
            let pad = "x".repeat(4_000);
            (CallEnd::Valid, text(&json!({"n": n, "check": check_of(n.into()), "pad": pad})))
        }
        _ if lies => (CallEnd::Invalid, Some(wrong(coin))),
        _ => (CallEnd::Valid, text(&right)),
    }
}

/// Refills the buckets; what they hold is what the headers say.
fn fill(state: &mut State, world: &World, elapsed_ms: u64) -> Headroom {
    let plan = &world.plan;
    let provider = &mut state.provider;
    let minutes = (elapsed_ms - provider.filled_ms) as f64 / 60_000.0;
    provider.filled_ms = elapsed_ms;
    let share = if plan.away(Away::NineTenths, elapsed_ms) { 0.1 } else { 1.0 };
    let (requests, tokens) = (share * plan.requests_per_minute as f64, share * plan.tokens_per_minute as f64);
    provider.requests = (provider.requests + minutes * requests).min(requests);
    provider.tokens = (provider.tokens + minutes * tokens).min(tokens);
    let window = |limit: u64, left: f64| Window {
        limit: (limit > 0).then_some(limit),
        remaining: (limit > 0).then_some(left.max(0.0) as u64),
        reset_ms: None,
    };
    if !plan.headers {
        return Headroom::default();
    }
    Headroom {
        requests: window(requests as u64, provider.requests),
        tokens: window(tokens as u64, provider.tokens),
    }
}

/// For how many seconds a bucket is empty.
fn short_of(state: &State, plan: &Plan) -> Option<u64> {
    let provider = &state.provider;
    let wait_s = |missing: f64, per_minute: u64| (missing * 60.0 / per_minute as f64).ceil().max(1.0) as u64;
    if plan.requests_per_minute > 0 && provider.requests < 1.0 {
        return Some(wait_s(1.0 - provider.requests, plan.requests_per_minute));
    }
    if plan.tokens_per_minute > 0 && provider.tokens < 700.0 {
        return Some(wait_s(700.0 - provider.tokens, plan.tokens_per_minute));
    }
    None
}
