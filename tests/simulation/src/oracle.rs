//! The promises, checked at each event and at the end.
//!
//! The oracle knows what was injected and what took effect; it uses none of the worker's decisions.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use nightshift_core::failure::FailureReason;
use nightshift_core::metric::{HandBackCause, Outcome};
use nightshift_core::next_step::RECEIVES_KEPT;
use nightshift_core::record::{Expect, Record, RecordWrite, State as Standing};
use nightshift_worker::BatchReport;

use crate::plan::{Away, CALL_MICRO_USD_MAX, HOUR, Plan};
use crate::queue::Place;
use crate::work::{Kind, is_right};
use crate::world::{BEGINNING_MS, Invocation, State};

/// What is promised, in the words of the summary.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Promise {
    /// Each accepted message ends as a result or a dead letter, and is acknowledged only then.
    NothingLost,
    /// No call without need.
    NotPaidTwice,
    /// Nothing invalid is stored.
    OnlyValidated,
    /// Each dead letter has the reason that the injected history gives it.
    Explained,
    /// Each record of an invocation is counted once, as what it was.
    Conserved,
    /// Calls, re-asks, money, and what is open at once.
    Budgets,
    /// Who lost its claim changes nothing, and nobody loses it while it lives.
    Fenced,
    /// A message sent after a settlement is work; one sent before it is not.
    RedriveOrDuplicate,
    /// The provider's word is kept, and waits are spread.
    Paced,
    /// A failure of one record is that record's alone.
    Isolated,
    /// An invocation ends by itself before its timeout.
    InTime,
    /// When faults stop, the queue drains.
    Progress,
}

impl Promise {
    /// All of them.
    pub const ALL: [Self; 12] = [
        Self::NothingLost,
        Self::NotPaidTwice,
        Self::OnlyValidated,
        Self::Explained,
        Self::Conserved,
        Self::Budgets,
        Self::Fenced,
        Self::RedriveOrDuplicate,
        Self::Paced,
        Self::Isolated,
        Self::InTime,
        Self::Progress,
    ];
}

impl fmt::Display for Promise {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::NothingLost => "nothing is lost",
            Self::NotPaidTwice => "nothing is paid twice without need",
            Self::OnlyValidated => "nothing unvalidated is stored",
            Self::Explained => "each dead letter is explained",
            Self::Conserved => "records and metrics add up",
            Self::Budgets => "budgets are kept",
            Self::Fenced => "only the claim's holder changes the record",
            Self::RedriveOrDuplicate => "a redrive is work and a duplicate is not",
            Self::Paced => "the provider is not hammered",
            Self::Isolated => "a bad record fails alone",
            Self::InTime => "no invocation reaches its timeout",
            Self::Progress => "when faults stop, the queue drains",
        })
    }
}

/// A broken promise.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Violation {
    /// Which.
    pub promise: Promise,
    /// Whose.
    pub input: Option<u32>,
    /// Virtual time.
    pub at_ms: u64,
    /// How.
    pub what: String,
}

/// What became of a call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CallEnd {
    /// It is open.
    Open,
    /// Its worker died, or cut it off.
    Dropped,
    /// The worker has a valid answer.
    Valid,
    /// The worker has an answer that its task does not accept.
    Invalid,
    /// The worker has a refusal.
    Refused,
    /// The worker has a cut-off answer.
    Truncated,
    /// The worker was told of a failure that may have been billed.
    Transient,
    /// The worker was told that there is no capacity.
    Capacity,
    /// The worker was told that the account is the cause.
    Account,
    /// The worker was told that the request can never work.
    Rejected,
}

/// One call of the present epoch.
#[derive(Debug, Clone, Copy)]
pub struct Call {
    pub id: u32,
    pub invocation: u64,
    pub end: CallEnd,
    /// Whatever it answered could not be kept, because of a kill or a fault of the ledger.
    pub excused: bool,
    /// A fault made the model break its schema.
    pub lied: bool,
}

/// What happened to an input since it last started afresh.
#[derive(Debug, Default)]
pub struct Epoch {
    pub calls: Vec<Call>,
    pub calls_in_claim: u32,
    pub reasks: u32,
    /// Since when every call met missing capacity.
    pub capacity_since_ms: Option<u64>,
    pub panics: u32,
    /// Panics while the record was neither done nor failed.
    pub panics_unsettled: u32,
    /// Workers that died with it.
    pub deaths: u32,
    /// Workers that died with nothing else, and claims that ended just as if they had.
    pub deaths_alone: u32,
    /// The worker of the present claim ended it without a word, and lived.
    pub unreleased: bool,
    /// Claims that stood until their lease ended, because their release was prevented by a fault.
    pub abandoned: u32,
    /// Attempts at the ledger that a fault met.
    pub ledger_faults: u32,
    /// Those that met a write which counts a crash: the SDK repeats it, and when another worker has counted one in
    /// between, nobody can tell that the first attempt took effect, so that one crash counts twice.
    pub unsure_crashes: u32,
    /// Claims that took effect.
    pub claims: u32,
    /// The token of a claim that was told not to try again.
    pub no_retry: Option<String>,
    /// When a transient failure without advice was received, and how many there were in a row.
    pub failed_at: Option<(u64, u32)>,
}

impl Epoch {
    fn may_be_paid(&self) -> u32 {
        let unpaid = [CallEnd::Capacity, CallEnd::Account];
        self.calls.iter().filter(|call| !unpaid.contains(&call.end)).count() as u32
    }

    /// The last first.
    fn answers(&self) -> impl Iterator<Item = &Call> {
        let answers = [CallEnd::Valid, CallEnd::Invalid, CallEnd::Refused, CallEnd::Truncated];
        self.calls.iter().rev().filter(move |call| answers.contains(&call.end))
    }

    fn last_answer(&self) -> Option<CallEnd> {
        self.answers().next().map(|call| call.end)
    }

    /// The last answer was not the first of its conversation, and no fault spoiled it.
    fn last_answer_was_free(&self) -> bool {
        let mut answers = self.answers();
        let last = answers.next();
        last.is_some_and(|last| !last.lied && answers.any(|other| other.invocation == last.invocation))
    }
}

/// Two clocks differ by at most twice the skew, and timers by a few milliseconds.
fn tolerance_ms(plan: &Plan) -> u64 {
    2 * plan.faults.skew_ms + 50
}

impl State {
    // ------------------------------------------------------------------------------------------------ the ledger

    /// A write reaches the table: the condition is evaluated, and each change that takes effect is judged.
    /// Returns whether it took effect.
    pub fn ledger_write(&mut self, now_ms: u64, write: &RecordWrite, invocation: u64, plan: &Plan) -> bool {
        let Some(&n) = self.by_key.get(&write.record.key) else {
            self.violate(now_ms, Promise::NothingLost, None, "a record under a key that no input has");
            return false;
        };
        self.stats.ledger_writes += 1;
        let allowed = write.allowed(self.inputs[n as usize].record.as_deref());
        self.note(now_ms, n, || {
            let word = if allowed { "written" } else { "refused" };
            format!(
                "ledger: {} v{} by invocation {invocation} ({:?}, calls {}, crashes {}): {word}",
                describe(&write.record),
                write.record.version,
                write.expect,
                write.record.budget.calls,
                write.record.budget.crashes
            )
        });
        if !allowed {
            self.judge_refusal(now_ms, n, write);
            return false;
        }
        self.judge_write(now_ms, n, write, invocation, plan);
        let input = &mut self.inputs[n as usize];
        input.record = Some(Box::new(write.record.clone()));
        true
    }

    /// The last word of a claim's owner must not be refused for something that the owner wrote before.
    fn judge_refusal(&mut self, now_ms: u64, n: u32, write: &RecordWrite) {
        let Some(standing) = self.inputs[n as usize].record.as_deref() else { return };
        let claimed = |record: &Record| matches!(record.state, Standing::Claimed { .. });
        if standing.token == write.record.token && claimed(standing) && !claimed(&write.record) {
            let what = "the owner's last word was refused because of its own earlier write";
            self.violate(now_ms, Promise::Fenced, Some(n), what);
        }
    }

    fn judge_write(&mut self, now_ms: u64, n: u32, write: &RecordWrite, invocation: u64, plan: &Plan) {
        self.stats.checks += 1;
        let new = &write.record;
        let tolerance_ms = tolerance_ms(plan);
        let input = &self.inputs[n as usize];
        let old = input.record.as_deref();
        let same_claim = old.is_some_and(|old| old.token == new.token);
        if write.expect == Expect::Fence && !same_claim {
            self.violate(now_ms, Promise::Fenced, Some(n), "a write under a stale token took effect");
            return;
        }
        let back = old.is_some_and(|old| same_claim && old.version >= new.version);
        let reopened =
            old.is_some_and(|old| same_claim && matches!(old.state, Standing::Done(_) | Standing::Failed(_)));
        if back || reopened {
            self.violate(
                now_ms,
                Promise::Fenced,
                Some(n),
                "an old write of the claim's own took effect late",
            );
            return;
        }
        let settled = |old: &Record| matches!(old.state, Standing::Done(_) | Standing::Failed(_));
        let gone = |old: &Record| old.expires_at_ms <= now_ms + tolerance_ms && new.budget.claims == 1;
        let fresh = !same_claim && old.is_none_or(|old| settled(old) || gone(old));
        if !same_claim {
            let sent_after = new.sent_at_ms + tolerance_ms > input.settled_ms;
            let expired = old.is_some_and(|old| old.expires_at_ms <= now_ms + tolerance_ms);
            let fault = match old.map(|old| &old.state) {
                Some(Standing::Done(done)) if !expired => {
                    let newer = revision_of(&done.revision) < revision_of_writer(self, invocation);
                    if done.reviewed {
                        Some("a reviewed result was worked on again")
                    } else if !sent_after {
                        Some("a duplicate sent before the finish was worked on again")
                    } else if !newer {
                        Some("a result of this revision or a newer one was worked on again")
                    } else {
                        None
                    }
                }
                Some(Standing::Failed(_)) if !expired && !sent_after => {
                    Some("a duplicate sent before the failure was worked on again")
                }
                _ => None,
            };
            if let Some(what) = fault {
                self.violate(now_ms, Promise::RedriveOrDuplicate, Some(n), what);
                return;
            }
            let holder = input.holder;
            let taken_from_living = matches!(old.map(|old| &old.state), Some(Standing::Claimed { .. }))
                && holder != invocation
                && self.invocations.contains_key(&holder);
            if taken_from_living {
                self.violate(
                    now_ms,
                    Promise::Fenced,
                    Some(n),
                    format!("the claim of invocation {holder}, which still runs, was taken over"),
                );
                return;
            }
        }
        if let Standing::Claimed { alone: true, .. } = new.state
            && !same_claim
            && let Some(running) = self.invocations.get(&invocation)
        {
            let beside = running.claimed.iter().find(|other| {
                **other != n
                    && self.inputs[**other as usize].holder == invocation
                    && self.inputs[**other as usize]
                        .record
                        .as_deref()
                        .is_some_and(|record| matches!(record.state, Standing::Claimed { .. }))
            });
            if let Some(beside) = beside.copied() {
                // A claim whose release was prevented by a fault is not open in the worker any more.
                if self.inputs[beside as usize].epoch.ledger_faults == 0 {
                    self.violate(
                        now_ms,
                        Promise::Isolated,
                        Some(n),
                        format!("claimed as alone beside input {beside}"),
                    );
                    return;
                }
            }
        }
        if fresh {
            // A panic in the prompt, or a fault, comes before the claim that it belongs to.
            let epoch = &mut self.inputs[n as usize].epoch;
            *epoch = Epoch {
                panics: epoch.panics,
                ledger_faults: epoch.ledger_faults,
                unsure_crashes: epoch.unsure_crashes,
                ..Epoch::default()
            };
        }
        if !same_claim {
            let old = self.inputs[n as usize].record.as_deref();
            if let Some(Standing::Claimed { alone: true, lease_until_ms }) = old.map(|old| &old.state) {
                // Back only when SQS gave it back by itself, or by another message: nobody can tell that from a death.
                let limits = &plan.limits;
                let begun_ms = lease_until_ms - limits.function_timeout_ms - limits.lease_margin_ms;
                let kept_ms = limits.visibility_timeout_ms - 2 * limits.function_timeout_ms;
                let other = old.is_some_and(|old| old.message_id != new.message_id);
                let epoch = &mut self.inputs[n as usize].epoch;
                if epoch.unreleased && (other || now_ms + tolerance_ms > begun_ms + kept_ms) {
                    epoch.deaths_alone += 1;
                }
            }
            let input = &mut self.inputs[n as usize];
            input.epoch.unreleased = false;
            input.holder = invocation;
            input.epoch.claims += 1;
            input.epoch.calls_in_claim = 0;
            input.epoch.failed_at = None;
            match self.invocations.get_mut(&invocation) {
                Some(running) => running.claimed.push(n),
                // It takes effect after its worker's end.
                None => {
                    let epoch = &mut self.inputs[n as usize].epoch;
                    (epoch.abandoned, epoch.unreleased) = (epoch.abandoned + 1, true);
                }
            }
        }
        match &new.state {
            Standing::Done(done) => {
                let kind = self.inputs[n as usize].effective_kind();
                // A mended input may still be answered for as it was, by a worker that began before.
                let original = self.inputs[n as usize].kind;
                if !is_right(kind, n, &done.output, done.needs_review)
                    && !is_right(original, n, &done.output, done.needs_review)
                {
                    self.violate(
                        now_ms,
                        Promise::OnlyValidated,
                        Some(n),
                        "a result that does not validate was stored",
                    );
                }
                let last = self.inputs[n as usize].epoch.last_answer();
                if !done.needs_review && last != Some(CallEnd::Valid) {
                    let what = format!("a result was stored, and the last answer was {last:?}");
                    self.violate(now_ms, Promise::OnlyValidated, Some(n), what);
                }
                self.settled(now_ms, n);
                self.stats.results += 1;
            }
            Standing::Failed(failed) => {
                if let Some(why) = self.unexplained(now_ms, n, failed.reason, new, plan) {
                    self.violate(now_ms, Promise::Explained, Some(n), format!("{}: {why}", failed.reason));
                }
                self.settled(now_ms, n);
            }
            Standing::Open | Standing::Claimed { .. } => {}
        }
    }

    fn settled(&mut self, now_ms: u64, n: u32) {
        let input = &mut self.inputs[n as usize];
        input.settled_ms = now_ms;
        (input.epoch.panics, input.epoch.panics_unsettled) = (0, 0);
        (input.epoch.ledger_faults, input.epoch.unsure_crashes) = (0, 0);
    }

    /// Why the injected history does not give this input this reason; `None`: it does.
    fn unexplained(
        &self,
        now_ms: u64,
        n: u32,
        reason: FailureReason,
        record: &Record,
        plan: &Plan,
    ) -> Option<String> {
        let input = &self.inputs[n as usize];
        let epoch = &input.epoch;
        let limits = &plan.limits;
        let kind = input.kind;
        let last = epoch.last_answer();
        let has = |end: CallEnd| epoch.calls.iter().any(|call| call.end == end);
        let calls_spent = record.budget.calls >= limits.paid_call_limit;
        let last_chance =
            record.message_id.parse::<u32>().is_ok_and(|message| self.is_last_chance(now_ms, message, plan));
        let ok = match reason {
            FailureReason::InvalidMessage => matches!(kind, Kind::NoJob | Kind::Oversized),
            FailureReason::UnknownTask => kind == Kind::UnknownTask,
            FailureReason::InvalidInput => kind == Kind::InvalidInput,
            FailureReason::RequestRejected => has(CallEnd::Rejected),
            FailureReason::Refused => last == Some(CallEnd::Refused),
            FailureReason::Truncated => last == Some(CallEnd::Truncated),
            FailureReason::InvalidOutput => {
                let tried = epoch.reasks >= limits.reask_limit
                    || record.budget.reasks >= limits.reask_limit
                    || calls_spent
                    || epoch.calls_in_claim >= limits.call_limit;
                // It obeys as soon as it is told what was wrong.
                let not_told = kind == Kind::Stubborn && epoch.last_answer_was_free();
                last == Some(CallEnd::Invalid) && kind != Kind::Guarded && tried && !not_told
            }
            FailureReason::AttemptsExhausted => {
                // A claim that ended without a word may have been billed for the call that it announced.
                let maybe = epoch.may_be_paid() + epoch.deaths + epoch.abandoned + epoch.panics;
                (calls_spent && maybe >= limits.paid_call_limit) || last_chance
            }
            FailureReason::CapacityTimeout => {
                let waited_ms = epoch.capacity_since_ms.map_or(0, |since| now_ms - since);
                waited_ms + tolerance_ms(plan) > limits.capacity_wait_ms_max || last_chance
            }
            FailureReason::ResultTooLarge => kind == Kind::TooLarge,
            // Deaths and panics are counted together; the last one gives the word.
            FailureReason::Poison => {
                let crashes = epoch.deaths_alone + epoch.panics + epoch.unsure_crashes;
                epoch.deaths_alone > 0 && crashes >= limits.crash_limit
            }
            FailureReason::Internal => {
                let crashes = epoch.panics + epoch.deaths_alone + epoch.unsure_crashes;
                (epoch.panics > 0 && crashes >= limits.crash_limit) || last_chance
            }
        };
        (!ok).then(|| {
            format!(
                "{kind:?} with {} deaths ({} alone), {} abandoned claims, {} panics, {} calls that may be billed, last answer {last:?}, last chance {last_chance}",
                epoch.deaths, epoch.deaths_alone, epoch.abandoned, epoch.panics, epoch.may_be_paid()
            )
        })
    }

    /// SQS would delete or move this message before another delivery could explain it.
    fn is_last_chance(&self, now_ms: u64, message: u32, plan: &Plan) -> bool {
        let Some(message) = self.queue.messages.get(message as usize) else { return false };
        let limits = &plan.limits;
        let receives_left = limits.receive_count_max.saturating_sub(message.receive_count);
        let left_ms = (message.sent_at_ms + limits.retention_ms).saturating_sub(now_ms);
        // The longest delay that a message can be given stands between it and its next chance.
        receives_left <= RECEIVES_KEPT || left_ms <= 12 * HOUR + 2 * limits.visibility_timeout_ms
    }

    // ------------------------------------------------------------------------------------------------- the calls

    /// A call begins. Returns its id, or nothing when it must not begin.
    pub fn call_begins(
        &mut self,
        now_ms: u64,
        n: u32,
        invocation: u64,
        timeout_ms: u64,
        told_until_ms: u64,
        plan: &Plan,
    ) -> u32 {
        self.stats.calls += 1;
        self.stats.checks += 1;
        self.provider.calls += 1;
        let id = self.provider.calls;
        let limits = &plan.limits;
        self.note(now_ms, n, || format!("call begins in invocation {invocation}"));
        let input = &self.inputs[n as usize];
        let record = input.record.as_deref();
        let mut broken: Option<(Promise, String)> = None;
        let mut check = |bad: bool, promise: Promise, what: &str| {
            if bad && broken.is_none() {
                broken = Some((promise, what.to_owned()));
            }
        };
        let claimed = record.is_some_and(|record| matches!(record.state, Standing::Claimed { .. }));
        check(
            !claimed || input.holder != invocation,
            Promise::NotPaidTwice,
            "a call by a worker that does not hold the claim",
        );
        let paid_already = input.epoch.calls.iter().any(|call| call.end == CallEnd::Valid && !call.excused);
        check(
            paid_already,
            Promise::NotPaidTwice,
            "a call after a valid answer that nothing prevented from being stored",
        );
        check(
            input.epoch.may_be_paid() >= limits.paid_call_limit,
            Promise::Budgets,
            "more calls than paid_call_limit",
        );
        check(
            input.epoch.calls_in_claim >= limits.call_limit,
            Promise::Budgets,
            "more calls in a claim than call_limit",
        );
        let reask = input.epoch.calls_in_claim > 0
            && input.epoch.calls.last().is_some_and(|call| call.end == CallEnd::Invalid);
        check(
            reask && input.epoch.reasks >= limits.reask_limit,
            Promise::Budgets,
            "more re-asks than reask_limit",
        );
        let stubborn = record.is_some_and(|record| input.epoch.no_retry.as_ref() == Some(&record.token));
        check(stubborn, Promise::Paced, "a retry in a claim that was told not to retry");
        let early = now_ms < told_until_ms;
        let early_ms = told_until_ms.saturating_sub(now_ms);
        check(
            early,
            Promise::Paced,
            &format!("a call {early_ms} ms earlier than the provider told this environment"),
        );
        if let Some(message) = record
            .and_then(|record| record.message_id.parse::<usize>().ok())
            .and_then(|id| self.queue.messages.get(id))
        {
            // Of a second delivery that began meanwhile, nobody could know.
            let knows = !message.delivered_twice;
            check(
                knows && now_ms < message.not_before_ms,
                Promise::Paced,
                "a call earlier than the provider told this job",
            );
        }
        if let Some(running) = self.invocations.get(&invocation) {
            check(
                running.open_calls >= limits.batch_size,
                Promise::Budgets,
                "more open calls than the batch has records",
            );
            let latest_ms = running.ends_ms.saturating_sub(limits.deadline_margin_ms);
            check(
                now_ms + timeout_ms > latest_ms + 5,
                Promise::InTime,
                "a call that may end after the deadline",
            );
            // Read once per invocation, believed for five seconds, and read within three.
            let began_ms = running.began_ms - BEGINNING_MS;
            let paused_long = [began_ms.saturating_sub(6_000), began_ms, began_ms + 3_000]
                .iter()
                .all(|at_ms| began_ms >= 6_000 && plan.away(Away::Paused, *at_ms));
            check(
                paused_long && !running.control_read_failed,
                Promise::Budgets,
                "a call while the stack was paused",
            );
        } else {
            check(true, Promise::InTime, "a call by an invocation that has ended");
        }
        if let Some((promise, what)) = broken {
            self.violate(now_ms, promise, Some(n), what);
        }
        if let Some(running) = self.invocations.get_mut(&invocation) {
            running.open_calls += 1;
        }
        let input = &mut self.inputs[n as usize];
        if reask {
            input.epoch.reasks += 1;
        }
        if let Some((failed_ms, row)) = input.epoch.failed_at.take() {
            let step_ms = limits.backoff_base_ms.saturating_mul(1 << row.min(20)).min(limits.backoff_ms_max);
            let ratio = (now_ms - failed_ms) as f32 / step_ms as f32;
            self.backoffs.push(ratio);
        }
        let input = &mut self.inputs[n as usize];
        input.epoch.calls_in_claim += 1;
        input.epoch.calls.push(Call { id, invocation, end: CallEnd::Open, excused: false, lied: false });
        id
    }

    /// The provider has decided what comes of a call, and charges for it whether or not anybody will hear of it.
    pub fn call_is_billed(&mut self, now_ms: u64, n: u32, id: u32, micro_usd: u64, lied: bool, plan: &Plan) {
        let calls = &mut self.inputs[n as usize].epoch.calls;
        let Some(call) = calls.iter_mut().find(|call| call.id == id) else { return };
        call.lied = lied;
        let Some(running) = self.invocations.get(&call.invocation).filter(|_| micro_usd > 0) else { return };
        let day = running.day.clone();
        let spend = self.spend.entry(day.clone()).or_default();
        self.stats.days_billed += u64::from(spend.billed_micro_usd == 0);
        spend.billed_micro_usd += micro_usd;
        self.judge_day(now_ms, Some(n), &day, plan);
    }

    /// The calls of the invocations that began on a day cost no more than its record holds, nor than the cap: not
    /// almost, but at every moment, whatever was killed or lost, because no call costs more than was reserved for it.
    /// Between two midnights more may be billed, by what began before the first and ends within a function's timeout.
    pub fn judge_day(&mut self, now_ms: u64, n: Option<u32>, day: &str, plan: &Plan) {
        self.stats.checks += 1;
        let Some(spend) = self.spend.get(day) else { return };
        let (billed, committed) = (spend.billed_micro_usd, spend.committed_micro_usd());
        let cap = plan.limits.spend_cap_micro_usd;
        if billed > cap {
            let what =
                format!("the calls of {day} cost {billed} millionths of a dollar, and the cap is {cap}");
            self.violate(now_ms, Promise::Budgets, n, what);
        } else if i128::from(billed) > committed {
            let what = format!(
                "the calls of {day} cost {billed} millionths of a dollar, and its record holds {committed}"
            );
            self.violate(now_ms, Promise::Budgets, n, what);
        }
    }

    /// A call ends, as its worker sees it; `excused`: the worker is dead.
    pub fn call_ends(&mut self, now_ms: u64, n: u32, id: u32, end: CallEnd) {
        self.note(now_ms, n, || format!("call ends: {end:?}"));
        let input = &mut self.inputs[n as usize];
        let Some(call) = input.epoch.calls.iter_mut().find(|call| call.id == id) else { return };
        call.end = end;
        let invocation = call.invocation;
        match end {
            CallEnd::Capacity => {
                input.epoch.capacity_since_ms.get_or_insert(now_ms);
            }
            CallEnd::Valid | CallEnd::Invalid | CallEnd::Refused | CallEnd::Truncated => {
                input.epoch.capacity_since_ms = None;
            }
            _ => {}
        }
        if let Some(running) = self.invocations.get_mut(&invocation) {
            running.open_calls -= 1;
        }
    }

    /// A fault of the ledger meets a write: what it would have stored may have to be paid for again.
    pub fn ledger_fault(&mut self, now_ms: u64, write: &RecordWrite, invocation: u64, what: &str) {
        self.stats.ledger_faults += 1;
        let Some(&n) = self.by_key.get(&write.record.key) else { return };
        self.note(now_ms, n, || {
            format!("ledger: {} by invocation {invocation}: {what}", describe(&write.record))
        });
        let epoch = &mut self.inputs[n as usize].epoch;
        epoch.ledger_faults += 1;
        let unclaims = !matches!(write.record.state, Standing::Claimed { .. } | Standing::Done(_));
        epoch.unsure_crashes += u32::from(unclaims && write.record.budget.crashes > 0);
        if matches!(write.record.state, Standing::Done(_) | Standing::Failed(_)) {
            for call in epoch.calls.iter_mut().filter(|call| call.invocation == invocation) {
                call.excused = true;
            }
        }
    }

    /// The task's code panicked once more.
    pub fn panicked(&mut self, now_ms: u64, n: u32, plan: &Plan) {
        self.stats.checks += 1;
        let input = &mut self.inputs[n as usize];
        let settled = input
            .record
            .as_deref()
            .is_some_and(|record| matches!(record.state, Standing::Done(_) | Standing::Failed(_)));
        let epoch = &mut input.epoch;
        epoch.panics += 1;
        epoch.panics_unsettled += u32::from(!settled);
        for call in &mut epoch.calls {
            call.excused = true;
        }
        // A fault of the ledger, or a death before the panic was counted, may hide a panic from the count.
        let allowed = plan.limits.crash_limit + epoch.ledger_faults + epoch.deaths + HIDDEN_PANICS_MAX;
        if epoch.panics_unsettled > allowed {
            let panics = epoch.panics_unsettled;
            self.violate(
                now_ms,
                Promise::Budgets,
                Some(n),
                format!("{panics} panics of one job, and it is still tried"),
            );
        }
    }

    // ------------------------------------------------------------------------------------------- the dead letters

    /// A dead letter arrives in its queue.
    pub fn letter_arrives(&mut self, now_ms: u64, letter: &ArrivedLetter, invocation: u64, plan: &Plan) {
        self.stats.checks += 1;
        let ArrivedLetter { n, reason, message, body_is_original } = *letter;
        self.note(now_ms, n, || {
            format!("dead letter for message {message}: {reason} by invocation {invocation}")
        });
        let last_chance = self.is_last_chance(now_ms, message, plan);
        let input = &self.inputs[n as usize];
        // Or said so until the job was begun afresh, a moment ago.
        let in_ledger = input.record.as_deref().is_some_and(|record| match &record.state {
            Standing::Failed(failed) => failed.reason == reason,
            _ => record.history.last().is_some_and(|past| past.reason == reason),
        });
        if !body_is_original {
            self.violate(
                now_ms,
                Promise::NothingLost,
                Some(n),
                "the body of the dead letter is not the message's",
            );
        } else if !in_ledger && !last_chance {
            self.violate(
                now_ms,
                Promise::Explained,
                Some(n),
                format!("{reason}: the dead letter was sent before the ledger said so"),
            );
        }
        *self.stats.letters.entry(reason.as_str().to_owned()).or_default() += 1;
        self.inputs[n as usize].letters += 1;
        if let Some(running) = self.invocations.get_mut(&invocation) {
            running.letters.push((message, reason));
        }
    }

    // --------------------------------------------------------------------------------------------- the invocation

    /// An invocation died: by a kill, or by the function's timeout.
    pub fn invocation_died(&mut self, now_ms: u64, id: u64) {
        let Some(running) = self.invocations.remove(&id) else { return };
        self.stats.kills += 1;
        for (message, _) in &running.batch {
            let message = &mut self.queue.messages[*message as usize];
            message.prevented += 1;
            // Nobody lives to hand it back as late as the provider said.
            message.not_before_ms = 0;
        }
        for n in distinct(&running.claimed) {
            let input = &mut self.inputs[n as usize];
            for call in input.epoch.calls.iter_mut().filter(|call| call.invocation == id) {
                call.excused = true;
            }
            if input.holder != id {
                continue;
            }
            if let Some(Standing::Claimed { alone, .. }) = input.record.as_deref().map(|record| &record.state)
            {
                input.epoch.deaths += 1;
                if *alone {
                    input.epoch.deaths_alone += 1;
                }
                let alone = *alone;
                self.note(now_ms, n, || format!("its worker died, invocation {id}, alone: {alone}"));
            }
        }
        self.check_expired(now_ms, &running, &[]);
    }

    /// An invocation ended by itself: what it says must be what it did.
    pub fn invocation_ended(&mut self, now_ms: u64, id: u64, report: &BatchReport, plan: &Plan) {
        let Some(running) = self.invocations.remove(&id) else { return };
        self.stats.checks += 1;
        if now_ms > running.ends_ms - 500 {
            self.violate(
                now_ms,
                Promise::InTime,
                None,
                format!(
                    "invocation {id} ended {} ms before its timeout",
                    running.ends_ms.saturating_sub(now_ms)
                ),
            );
        }
        if running.open_calls > 0 {
            self.violate(
                now_ms,
                Promise::InTime,
                None,
                format!("{} calls outlived invocation {id}", running.open_calls),
            );
        }
        for n in distinct(&running.claimed) {
            let input = &mut self.inputs[n as usize];
            let stands = input.holder == id
                && matches!(input.record.as_deref().map(|r| &r.state), Some(Standing::Claimed { .. }));
            if stands {
                input.epoch.abandoned += 1;
                input.epoch.unreleased = true;
                let faults = input.epoch.ledger_faults;
                self.note(now_ms, n, || format!("invocation {id} ended and its claim still stands"));
                if faults == 0 {
                    self.violate(
                        now_ms,
                        Promise::Fenced,
                        Some(n),
                        "a claim was neither settled nor released, and nothing prevented it",
                    );
                }
            }
        }
        if report.outcomes.len() != running.batch.len() {
            self.violate(now_ms, Promise::Conserved, None, "not one outcome per record");
            return;
        }
        let failed: BTreeSet<&str> = report.failed_message_ids.iter().map(String::as_str).collect();
        for ((message, _), outcome) in running.batch.iter().zip(&report.outcomes) {
            let back = failed.contains(message.to_string().as_str());
            if back != matches!(outcome, Outcome::HandedBack(_)) {
                self.violate(
                    now_ms,
                    Promise::Conserved,
                    None,
                    format!("message {message} is reported and counted differently"),
                );
            }
            let n = self.queue.messages[*message as usize].input;
            self.note(now_ms, n, || format!("message {message} leaves invocation {id}: {outcome:?}"));
            if matches!(outcome, Outcome::HandedBack(HandBackCause::SpendCap)) {
                self.stats.capped += 1;
                // Refused twice, it met others who reserve, and may leave the room to them.
                if running.cap_left_micro_usd >= CALL_MICRO_USD_MAX && running.cap_refusals < 2 {
                    let what = "handed back for the spend cap, which left room for a call";
                    self.violate(now_ms, Promise::Progress, Some(n), what);
                }
            }
            if let Outcome::HandedBack(HandBackCause::Panic) = outcome
                && !matches!(self.inputs[n as usize].kind, Kind::PanicsInPrompt | Kind::PanicsInAccept)
            {
                self.violate(
                    now_ms,
                    Promise::Isolated,
                    Some(n),
                    "handed back for a panic that it did not have",
                );
            }
            if !back {
                self.judge_acknowledgement(now_ms, *message, *outcome, &running, plan);
            }
        }
        self.judge_metrics(now_ms, id, &running, report);
        let acknowledged: Vec<u32> = running
            .batch
            .iter()
            .map(|(message, _)| *message)
            .filter(|message| !failed.contains(message.to_string().as_str()))
            .collect();
        self.check_expired(now_ms, &running, &acknowledged);
    }

    /// The worker says that SQS may delete this message: a result or a dead letter must be durable.
    fn judge_acknowledgement(
        &mut self,
        now_ms: u64,
        message: u32,
        outcome: Outcome,
        running: &Invocation,
        plan: &Plan,
    ) {
        self.stats.checks += 1;
        let queued = &self.queue.messages[message as usize];
        let (n, sent_at_ms) = (queued.input, queued.sent_at_ms);
        let input = &self.inputs[n as usize];
        let letter = running.letters.iter().find(|(of, _)| *of == message).map(|(_, reason)| *reason);
        let after_settlement = sent_at_ms > input.settled_ms + tolerance_ms(plan);
        let fault = match (outcome, input.record.as_deref().map(|record| &record.state)) {
            (Outcome::DeadLettered(reason), _) if letter != Some(reason) => {
                Some((Promise::NothingLost, "acknowledged as a dead letter that was not sent"))
            }
            // The settlement that the letter tells of must have come after the message; the last chance has none.
            (Outcome::DeadLettered(reason), Some(Standing::Failed(failed)))
                if failed.reason == reason && after_settlement =>
            {
                Some((
                    Promise::RedriveOrDuplicate,
                    "a message sent after the failure was taken for a duplicate",
                ))
            }
            (Outcome::DeadLettered(_), _) => None,
            (Outcome::Succeeded | Outcome::NeedsReview | Outcome::Duplicate, Some(Standing::Done(done))) => {
                let older = revision_of(&done.revision) < running.revision;
                (outcome == Outcome::Duplicate && after_settlement && older && !done.reviewed).then_some((
                    Promise::RedriveOrDuplicate,
                    "a message sent after an older revision's result was taken for a duplicate",
                ))
            }
            // A second delivery of this very message, to a newer revision, has begun to make the result anew.
            // Should that worker die, nobody may be left to finish; but the earlier result stands.
            (Outcome::Duplicate, Some(Standing::Claimed { .. } | Standing::Open))
                if input.record.as_deref().is_some_and(|record| record.previous.is_some()) =>
            {
                self.stats.remade_unfinished += 1;
                None
            }
            // It was done when it was looked at, and somebody has begun it afresh since.
            (Outcome::Duplicate | Outcome::Succeeded | Outcome::NeedsReview, _)
                if input.settled_ms >= running.began_ms =>
            {
                None
            }
            (Outcome::Duplicate, Some(_))
                if input.settled_ms > 0 && letter.is_none() && sent_at_ms <= input.settled_ms =>
            {
                None
            }
            _ => Some((Promise::NothingLost, "acknowledged with neither a result nor a dead letter")),
        };
        if let Some((promise, what)) = fault {
            self.violate(now_ms, promise, Some(n), format!("message {message}, {outcome:?}: {what}"));
        }
    }

    fn judge_metrics(&mut self, now_ms: u64, id: u64, running: &Invocation, report: &BatchReport) {
        let Some(sums) = &running.metrics else { return };
        let mut expected: BTreeMap<&str, f64> = BTreeMap::new();
        for outcome in &report.outcomes {
            let name = match outcome {
                Outcome::Succeeded => "JobsSucceeded",
                Outcome::NeedsReview => "JobsNeedingReview",
                Outcome::Duplicate => "JobsDuplicate",
                Outcome::HandedBack(_) => "JobsHandedBack",
                Outcome::DeadLettered(_) => "DeadLetters",
            };
            *expected.entry(name).or_default() += 1.0;
            *expected.entry("JobsReceived").or_default() += 1.0;
        }
        for name in [
            "JobsReceived",
            "JobsSucceeded",
            "JobsNeedingReview",
            "JobsDuplicate",
            "JobsHandedBack",
            "DeadLetters",
        ] {
            let (said, is) =
                (sums.get(name).copied().unwrap_or(-1.0), expected.get(name).copied().unwrap_or(0.0));
            if said != is {
                self.violate(
                    now_ms,
                    Promise::Conserved,
                    None,
                    format!("invocation {id} published {name} {said}, and it was {is}"),
                );
                return;
            }
        }
    }

    // -------------------------------------------------------------------------------------------------- the queue

    /// A message that grew too old while it was in flight is lost, unless that delivery settled it.
    fn check_expired(&mut self, now_ms: u64, running: &Invocation, acknowledged: &[u32]) {
        for (message, _) in &running.batch {
            if self.queue.messages[*message as usize].place == Place::Expired
                && !acknowledged.contains(message)
            {
                self.expired(now_ms, *message);
            }
        }
    }

    /// SQS deleted a message for its age.
    pub fn expired(&mut self, now_ms: u64, message: u32) {
        let n = self.queue.messages[message as usize].input;
        self.violate(
            now_ms,
            Promise::NothingLost,
            Some(n),
            format!("SQS deleted message {message} for its age"),
        );
    }

    /// Whether a message is in a batch that is being worked on.
    #[must_use]
    pub fn in_flight(&self, message: u32) -> bool {
        self.invocations.values().any(|running| running.batch.iter().any(|(of, _)| *of == message))
    }

    /// SQS moved a message away after too many receives. Only what prevented its last deliveries excuses that.
    pub fn crashed(&mut self, now_ms: u64, message: u32) {
        self.stats.crashed += 1;
        let queued = &self.queue.messages[message as usize];
        let (n, prevented) = (queued.input, queued.prevented);
        self.inputs[n as usize].crashed = true;
        self.note(now_ms, n, || {
            format!("message {message} moved to crashed, {prevented} deliveries prevented")
        });
        if prevented < 2 {
            self.violate(
                now_ms,
                Promise::NothingLost,
                Some(n),
                format!("message {message} was moved to crashed, and nothing forced it"),
            );
        }
    }

    /// What must hold when all is over.
    pub fn judge_the_end(&mut self, now_ms: u64, plan: &Plan) {
        for n in 0..self.inputs.len() as u32 {
            self.stats.checks += 1;
            let input = &self.inputs[n as usize];
            let has_result = input
                .record
                .as_deref()
                .is_some_and(|record| matches!(record.state, Standing::Done(_)) || record.previous.is_some());
            let settled = has_result || input.letters > 0 || input.crashed;
            if !settled {
                self.violate(
                    now_ms,
                    Promise::NothingLost,
                    Some(n),
                    "the queue is empty, and there is neither a result nor a dead letter",
                );
                return;
            }
        }
        self.judge_spread(now_ms, plan);
    }

    /// Waits that were chosen under the same circumstances must differ.
    fn judge_spread(&mut self, now_ms: u64, plan: &Plan) {
        let mut by_receive: BTreeMap<u32, (u32, u32)> = BTreeMap::new();
        for ((receives, _), count) in &self.hand_back_delays {
            let (sum, most) = by_receive.entry(*receives).or_default();
            *sum += count;
            *most = (*most).max(*count);
        }
        let alike =
            by_receive.into_iter().find(|(_, (sum, most))| *sum >= SPREAD_SAMPLES && *most * 2 > *sum);
        if let Some((receives, (sum, most))) = alike {
            self.violate(
                now_ms,
                Promise::Paced,
                None,
                format!("{most} of {sum} messages were handed back for the same time at receive {receives}"),
            );
        }
        let early = self.backoffs.iter().filter(|ratio| **ratio < 0.95).count();
        let paced = plan.requests_per_minute > 0 || plan.limits.requests_per_minute > 0;
        if !paced && self.backoffs.len() >= SPREAD_SAMPLES as usize && early * 5 < self.backoffs.len() {
            let all = self.backoffs.len();
            self.violate(
                now_ms,
                Promise::Paced,
                None,
                format!(
                    "{early} of {all} retries came before the whole step of the backoff: there is no jitter"
                ),
            );
        }
    }
}

/// Fewer waits than this say nothing about their spread.
const SPREAD_SAMPLES: u32 = 40;
/// Panics that a worker may not have been able to count: beside others, or under another delivery's claim.
const HIDDEN_PANICS_MAX: u32 = 4;

/// A dead letter as it arrives.
#[derive(Debug, Clone, Copy)]
pub struct ArrivedLetter {
    pub n: u32,
    pub reason: FailureReason,
    pub message: u32,
    pub body_is_original: bool,
}

fn distinct(claimed: &[u32]) -> Vec<u32> {
    let mut distinct = claimed.to_vec();
    distinct.sort_unstable();
    distinct.dedup();
    distinct
}

/// Revisions are numbered by the function's version.
fn revision_of(revision: &nightshift_core::record::Revision) -> u32 {
    revision.function_version as u32
}

fn revision_of_writer(state: &State, invocation: u64) -> u32 {
    state.invocations.get(&invocation).map_or(u32::MAX, |running| running.revision)
}

fn describe(record: &Record) -> String {
    match &record.state {
        Standing::Open => "open".to_owned(),
        Standing::Claimed { alone, .. } => format!("claimed{}", if *alone { " alone" } else { "" }),
        Standing::Done(done) => format!("done{}", if done.needs_review { " for review" } else { "" }),
        Standing::Failed(failed) => format!("failed as {}", failed.reason),
    }
}

impl crate::world::Input {
    /// What it is now that it may have been mended.
    #[must_use]
    pub fn effective_kind(&self) -> Kind {
        if self.fixed { Kind::Good } else { self.kind }
    }
}
