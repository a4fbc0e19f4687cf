//! Each call of the model: whether it was needed, allowed and in time.

use std::hash::{DefaultHasher, Hash, Hasher};

use nightshift_core::model::{Answer, ModelRequest};
use nightshift_core::record::State as Standing;

use super::Promise;
use super::history::{Call, CallEnd};
use crate::plan::{Away, CALL_MICRO_USD_MAX, Plan};
use crate::world::{BEGINNING_MS, State};

/// A number that stands for what this says, word for word.
fn number_of(words: &impl std::fmt::Debug) -> u64 {
    let mut hasher = DefaultHasher::new();
    format!("{words:?}").hash(&mut hasher);
    hasher.finish()
}

impl State {
    /// A call begins. Returns its id, or nothing when it must not begin.
    pub fn call_begins(
        &mut self,
        now_ms: u64,
        n: u32,
        invocation: u64,
        request: &ModelRequest,
        told_until_ms: u64,
        plan: &Plan,
    ) -> u32 {
        let (asked, timeout_ms) = (number_of(&request.turns), request.timeout_ms);
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
        let began_ms = self.invocations.get(&invocation).map_or(0, |running| running.began_ms);
        // Its claim was granted, and then the input was erased: nobody can call it back.
        let erased_since = input.erased.is_some_and(|(at_ms, _)| began_ms <= at_ms);
        check(
            (!claimed || input.holder != invocation) && !erased_since,
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
        let answered_already =
            input.epoch.calls_of_claim().any(|call| call.end == CallEnd::Invalid && call.asked == asked);
        check(
            answered_already,
            Promise::NotPaidTwice,
            "a request that was answered before in this claim, word for word",
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
        let input = &mut self.inputs[n as usize];
        // A call that hung was dropped, by who went on without it.
        let failed = [CallEnd::Capacity, CallEnd::Transient, CallEnd::Dropped];
        let retry = input.epoch.calls_in_claim > 0
            && input.epoch.calls.last().is_some_and(|call| failed.contains(&call.end));
        if let Some(running) = self.invocations.get_mut(&invocation) {
            running.open_calls += 1;
            running.seen.retries += u32::from(retry);
        }
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
        input.epoch.calls.push(Call {
            id,
            invocation,
            end: CallEnd::Open,
            excused: false,
            lied: false,
            told_micro_usd: 0,
            asked,
            answered: None,
        });
        id
    }

    /// The worker has an answer.
    pub fn call_is_answered(&mut self, n: u32, id: u32, answer: &Answer) {
        if let Some(call) = self.inputs[n as usize].epoch.calls.iter_mut().find(|call| call.id == id) {
            call.answered = Some(number_of(answer));
        }
    }

    /// A call ends, as its worker sees it; `excused`: the worker is dead.
    pub fn call_ends(&mut self, now_ms: u64, n: u32, id: u32, end: CallEnd) {
        self.note(now_ms, n, || format!("call ends: {end:?}"));
        let input = &mut self.inputs[n as usize];
        let Some(call) = input.epoch.calls.iter_mut().find(|call| call.id == id) else { return };
        call.end = end;
        let (invocation, told_micro_usd) = (call.invocation, call.told_micro_usd);
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
            running.calls_micro_usd += match end {
                CallEnd::Valid | CallEnd::Invalid | CallEnd::Refused | CallEnd::Truncated => told_micro_usd,
                CallEnd::Transient | CallEnd::Dropped => CALL_MICRO_USD_MAX,
                CallEnd::Open
                | CallEnd::Capacity
                | CallEnd::Account
                | CallEnd::Rejected
                | CallEnd::Unclear
                | CallEnd::Forbidden => 0,
            };
        }
    }
}
