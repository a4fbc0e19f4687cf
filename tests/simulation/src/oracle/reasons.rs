//! Whether what was injected gives a failure its reason.

use nightshift_core::failure::FailureReason;
use nightshift_core::next_step::RECEIVES_KEPT;
use nightshift_core::record::Record;

use super::history::CallEnd;
use super::tolerance_ms;
use crate::plan::{HOUR, Plan};
use crate::work::Kind;
use crate::world::State;

impl State {
    /// Why the injected history does not give this input this reason; `None`: it does.
    pub(super) fn unexplained(
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
        let calls_spent = record.budget.calls >= limits.paid_call_limit;
        let last_chance =
            record.message_id.parse::<u32>().is_ok_and(|message| self.is_last_chance(now_ms, message, plan));
        let ok = match reason {
            FailureReason::InvalidMessage => matches!(kind, Kind::NoJob | Kind::Oversized),
            FailureReason::UnknownTask => kind == Kind::UnknownTask,
            FailureReason::InvalidInput => kind == Kind::InvalidInput,
            FailureReason::RequestRejected => epoch.may_be_rejected,
            FailureReason::Refused => last == Some(CallEnd::Refused),
            FailureReason::Truncated => last == Some(CallEnd::Truncated),
            FailureReason::InvalidOutput => {
                let tried = epoch.reasks >= limits.reask_limit
                    || record.budget.reasks >= limits.reask_limit
                    || calls_spent
                    || epoch.calls_in_claim >= limits.call_limit
                    || epoch.last_answer_was_given_before();
                // It obeys as soon as it is told what was wrong.
                let not_told = kind == Kind::Stubborn && epoch.last_answer_was_free();
                last == Some(CallEnd::Invalid) && kind != Kind::Guarded && tried && !not_told
            }
            FailureReason::AttemptsExhausted => {
                // A claim that ended without a word may have been billed for the call that it announced.
                let maybe = epoch.paid().count() as u32 + epoch.deaths + epoch.abandoned + epoch.panics;
                (calls_spent && maybe >= limits.paid_call_limit) || last_chance
            }
            FailureReason::CapacityTimeout => {
                // Whoever was paused did not wait for capacity.
                let opened_ms = self.pauses.opened_ms(now_ms);
                let waited_ms =
                    epoch.capacity_since_ms.map_or(0, |since_ms| now_ms - since_ms.max(opened_ms));
                waited_ms + tolerance_ms(plan) > limits.capacity_wait_ms_max || last_chance
            }
            FailureReason::ResultTooLarge => kind == Kind::TooLarge,
            // Deaths and panics are counted together; the last one gives the word.
            FailureReason::Poison => {
                let crashes = epoch.deaths_alone + epoch.panics + epoch.unsure_crashes;
                epoch.deaths_alone > 0 && crashes >= limits.crash_limit
            }
            // A person decides it, and no worker.
            FailureReason::ReviewRejected => false,
            FailureReason::Internal => {
                let crashes = epoch.panics + epoch.deaths_alone + epoch.unsure_crashes;
                (epoch.panics > 0 && crashes >= limits.crash_limit) || last_chance
            }
        };
        (!ok).then(|| {
            format!(
                "{kind:?} with {} deaths ({} alone), {} abandoned claims, {} panics, {} calls that may be billed, last answer {last:?}, last chance {last_chance}",
                epoch.deaths, epoch.deaths_alone, epoch.abandoned, epoch.panics, epoch.paid().count() as u32
            )
        })
    }

    /// SQS would delete or move this message before another delivery could explain it.
    pub(super) fn is_last_chance(&self, now_ms: u64, message: u32, plan: &Plan) -> bool {
        let Some(message) = self.queue.messages.get(message as usize) else { return false };
        let limits = &plan.limits;
        let receives_left = limits.receive_count_max.saturating_sub(message.receive_count);
        let left_ms = (message.sent_at_ms + limits.retention_ms).saturating_sub(now_ms);
        // The longest delay that a message can be given stands between it and its next chance.
        receives_left <= RECEIVES_KEPT || left_ms <= 12 * HOUR + 2 * limits.visibility_timeout_ms
    }
}
