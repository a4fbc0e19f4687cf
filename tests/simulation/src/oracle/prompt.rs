//! What waits without need: beside others in a batch, for a visibility timeout, or before a provider that has room.

use nightshift_core::metric::{HandBackCause, Outcome};
use nightshift_worker::BatchReport;

use super::Promise;
use crate::plan::{MINUTE, Plan, Profile};
use crate::world::{Invocation, State};

/// What an invocation takes beside its calls, at most, when nothing goes wrong.
const BESIDE_CALLS_MS: u64 = 1_000;

/// A job that must wait for its turn is away for a minute and up to a quarter more.
const HAND_BACK_MS: u64 = MINUTE * 5 / 4;

/// Refusals for a hundred granted calls, beside two of each environment: where the limit is told, by the settings or by
/// the provider's headers, and where it must be guessed. Most fleets stay below 3 and 100.
const REFUSED_PERCENT_MAX: (u64, u64) = (10, 1_200);

impl State {
    pub(super) fn judge_waits(
        &mut self,
        now_ms: u64,
        id: u64,
        running: &Invocation,
        report: &BatchReport,
        plan: &Plan,
    ) {
        self.stats.checks += 1;
        for ((message, _), outcome) in running.batch.iter().zip(&report.outcomes) {
            // What the deadline met is reported as it is, and the last chance has no further delivery.
            let cut_off = [HandBackCause::Deadline, HandBackCause::Suspect];
            let returned = matches!(outcome, Outcome::HandedBack(cause) if !cut_off.contains(cause));
            if returned
                && !running.seen.hidden.contains_key(message)
                && !self.is_last_chance(now_ms, *message, plan)
            {
                let n = self.queue.messages[*message as usize].input;
                let what = format!("message {message}, {outcome:?}, comes back only when SQS says so");
                self.violate(now_ms, Promise::Prompt, Some(n), what);
            }
        }
        if plan.profile == Profile::Calm {
            let mut inputs: Vec<u32> = running
                .batch
                .iter()
                .map(|(message, _)| self.queue.messages[*message as usize].input)
                .collect();
            inputs.sort_unstable();
            // Equal inputs come after each other.
            let distinct = inputs.windows(2).all(|pair| pair[0] != pair[1]);
            let took_ms = now_ms - running.began_ms;
            let most_ms = u64::from(1 + plan.limits.reask_limit) * plan.latency_ms.1 + BESIDE_CALLS_MS;
            if distinct && took_ms > most_ms {
                let what = format!(
                    "invocation {id} took {took_ms} ms for {} jobs, and each alone takes {most_ms} ms",
                    running.batch.len()
                );
                self.violate(now_ms, Promise::Prompt, None, what);
            }
        }
    }

    /// A fleet that its provider's limit holds back uses that limit: nine tenths of what was to be done are done in not
    /// much more time than the limit, the arrivals and the calls themselves need for all of it. Most fleets need less than
    /// that, and the slowest of a thousand a third more. Nor does it knock at the limit all the time.
    pub(super) fn judge_use(&mut self, now_ms: u64, plan: &Plan) {
        if !matches!(plan.profile, Profile::Calm | Profile::Throttled) {
            return;
        }
        self.stats.checks += 1;
        let (calls, tokens) = self.provider.granted;
        let minutes = |amount: u64, per_minute: u64| (amount * MINUTE).checked_div(per_minute).unwrap_or(0);
        let side_by_side = u64::from(plan.limits.concurrency_max * plan.limits.batch_size);
        let needed_ms = [
            plan.arrival_ms,
            minutes(calls, plan.requests_per_minute),
            minutes(tokens, plan.tokens_per_minute),
            calls * plan.latency_ms.1 / side_by_side,
        ];
        let needed_ms = needed_ms.into_iter().max().unwrap_or(0);
        let done = self.settlements_ms.len();
        let Some(took_ms) = self.settlements_ms.get(done * 9 / 10).copied() else { return };
        let most_percent = if plan.profile == Profile::Calm { 110 } else { 200 };
        if took_ms > needed_ms * most_percent / 100 + HAND_BACK_MS {
            let what = format!(
                "nine tenths of {done} settlements took {} s, and the limits ask for {} s",
                took_ms / 1_000,
                needed_ms / 1_000
            );
            self.violate(now_ms, Promise::Prompt, None, what);
        }
        let (told, guessed) = REFUSED_PERCENT_MAX;
        let most_percent = if plan.headers || plan.limits.requests_per_minute > 0 { told } else { guessed };
        let most = calls * most_percent / 100 + 2 * u64::from(plan.limits.concurrency_max);
        if self.stats.throttled > most {
            let what = format!("for {calls} calls, {} were refused by a rate limit", self.stats.throttled);
            self.violate(now_ms, Promise::Paced, None, what);
        }
    }
}
