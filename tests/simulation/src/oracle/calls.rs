//! Each call of the model: whether it was needed, allowed and in time.

use std::hash::{DefaultHasher, Hash, Hasher};

use nightshift_core::model::{Answer, ModelFailure, ModelReply, ModelRequest};
use nightshift_core::record::State as Standing;

use super::Promise;
use super::history::{Call, CallEnd};
use super::pauses::READ_MS;
use crate::plan::{CALL_MICRO_USD_MAX, Plan};
use crate::world::{BEGINNING_MS, State};

/// A number that stands for what this says, word for word.
pub(super) fn number_of(words: &impl std::fmt::Debug) -> u64 {
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
        self.calls_ms.push(now_ms - BEGINNING_MS);
        self.provider.calls += 1;
        let id = self.provider.calls;
        let limits = &plan.limits;
        self.note(now_ms, n, || format!("call begins in invocation {invocation}"));
        let input = &mut self.inputs[n as usize];
        let (holder, erased) = (input.holder, input.erased);
        let record = input.record.clone();
        let record = record.as_deref();
        let epoch = input.epoch_of(invocation);
        let mut broken: Option<(Promise, String)> = None;
        let mut check = |bad: bool, promise: Promise, what: &str| {
            if bad && broken.is_none() {
                broken = Some((promise, what.to_owned()));
            }
        };
        let claimed = record.is_some_and(|record| matches!(record.state, Standing::Claimed { .. }));
        let began_ms = self.invocations.get(&invocation).map_or(0, |running| running.began_ms);
        // Its claim was granted, and then the input was erased: nobody can call it back.
        let erased_since = erased.is_some_and(|(at_ms, _)| began_ms <= at_ms);
        check(
            (!claimed || holder != invocation) && !erased_since,
            Promise::NotPaidTwice,
            "a call by a worker that does not hold the claim",
        );
        // One may have been counted before; every one after that is counted first, and refused.
        let calls_again = erased.is_some_and(|(at_ms, _)| epoch.paid().any(|call| call.began_ms >= at_ms));
        check(
            erased_since && calls_again,
            Promise::NotPaidTwice,
            "a further call by a worker whose claim an erasure had ended",
        );
        let paid_already = epoch.calls.iter().any(|call| call.end == CallEnd::Valid && !call.excused);
        check(
            paid_already,
            Promise::NotPaidTwice,
            "a call after a valid answer that nothing prevented from being stored",
        );
        check(
            epoch.paid().count() as u32 >= limits.paid_call_limit,
            Promise::Budgets,
            "more calls than paid_call_limit",
        );
        check(
            epoch.calls_in_claim >= limits.call_limit,
            Promise::Budgets,
            "more calls in a claim than call_limit",
        );
        let reask =
            epoch.calls_in_claim > 0 && epoch.calls.last().is_some_and(|call| call.end == CallEnd::Invalid);
        check(reask && epoch.reasks >= limits.reask_limit, Promise::Budgets, "more re-asks than reask_limit");
        let refused = [CallEnd::Account, CallEnd::Rejected, CallEnd::Unclear, CallEnd::Forbidden];
        check(
            epoch.calls_of_claim().next().is_some_and(|call| refused.contains(&call.end)),
            Promise::Paced,
            "a further call in a claim, after a refusal that no wait helps against",
        );
        let answered_already =
            epoch.calls_of_claim().any(|call| call.end == CallEnd::Invalid && call.asked == asked);
        check(
            answered_already,
            Promise::NotPaidTwice,
            "a request that was answered before in this claim, word for word",
        );
        let stubborn = record.is_some_and(|record| epoch.no_retry.as_ref() == Some(&record.token));
        check(stubborn, Promise::Paced, "a retry in a claim that was told not to retry");
        let early = now_ms < told_until_ms;
        let early_ms = told_until_ms.saturating_sub(now_ms);
        check(
            early,
            Promise::Paced,
            &format!("a call {early_ms} ms earlier than the provider told this environment"),
        );
        // Who has lost its claim knows nothing of the message that the next one came with.
        if let Some(message) = record
            .filter(|_| holder == invocation)
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
            let shut_since_ms = self.pauses.shut_since_ms;
            let is_known = shut_since_ms.is_some_and(|since_ms| since_ms + READ_MS <= running.began_ms);
            check(
                is_known && !running.control_read_failed,
                Promise::Paused,
                "a call while the stack was paused",
            );
            let heard = self.heard.get(&running.environment);
            check(
                heard.and_then(|heard| heard.untold_of).is_some_and(|heard_in| heard_in < invocation),
                Promise::Paused,
                "a call by an environment that knows that everybody is refused for the account, and pauses nothing",
            );
        } else {
            check(true, Promise::InTime, "a call by an invocation that has ended");
        }
        if let Some((promise, what)) = broken {
            self.violate(now_ms, promise, Some(n), what);
        }
        let epoch = self.inputs[n as usize].epoch_of(invocation);
        // A call that hung was dropped, by who went on without it.
        let failed = [CallEnd::Capacity, CallEnd::Transient, CallEnd::Dropped];
        let retry =
            epoch.calls_in_claim > 0 && epoch.calls.last().is_some_and(|call| failed.contains(&call.end));
        if let Some(running) = self.invocations.get_mut(&invocation) {
            running.open_calls += 1;
            running.seen.retries += u32::from(retry);
        }
        if reask {
            epoch.reasks += 1;
        }
        if let Some((failed_ms, row)) = epoch.failed_at.take() {
            let step_ms = limits.backoff_base_ms.saturating_mul(1 << row.min(20)).min(limits.backoff_ms_max);
            let ratio = (now_ms - failed_ms) as f32 / step_ms as f32;
            self.backoffs.push(ratio);
        }
        let epoch = self.inputs[n as usize].epoch_of(invocation);
        epoch.calls_in_claim += 1;
        epoch.calls.push(Call {
            id,
            invocation,
            began_ms: now_ms,
            end: CallEnd::Open,
            excused: false,
            lied: false,
            told_micro_usd: 0,
            asked,
            answered: None,
            said: None,
            is_named: false,
        });
        id
    }

    /// The worker has an answer, or is told why there is none.
    pub fn call_is_heard(&mut self, n: u32, id: u32, result: &Result<ModelReply, ModelFailure>) {
        let calls = &mut self.inputs[n as usize].epoch_of_call(id).calls;
        let Some(call) = calls.iter_mut().find(|call| call.id == id) else { return };
        match result {
            Ok(ModelReply { answer, request_id, .. }) => {
                let text = match answer {
                    Answer::Text(text) | Answer::Refused { text, .. } | Answer::Truncated { text, .. } => {
                        Some(text)
                    }
                    Answer::Unusable { .. } => None,
                };
                call.answered = Some(number_of(answer));
                call.said = text.filter(|text| !text.is_empty()).map(number_of);
                call.is_named = request_id.is_some();
            }
            Err(failure) => call.is_named = failure.request_id.is_some(),
        }
    }

    /// A call ends, as its worker sees it; `excused`: the worker is dead.
    pub fn call_ends(&mut self, now_ms: u64, n: u32, id: u32, end: CallEnd) {
        self.note(now_ms, n, || format!("call ends: {end:?}"));
        let epoch = self.inputs[n as usize].epoch_of_call(id);
        let Some(call) = epoch.calls.iter_mut().find(|call| call.id == id) else { return };
        call.end = end;
        let (invocation, told_micro_usd) = (call.invocation, call.told_micro_usd);
        match end {
            CallEnd::Capacity => {
                epoch.capacity_since_ms.get_or_insert(now_ms);
            }
            CallEnd::Valid | CallEnd::Invalid | CallEnd::Refused | CallEnd::Truncated => {
                epoch.capacity_since_ms = None;
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
