//! The end of an invocation: what it says must be what it did.

use std::collections::BTreeSet;

use nightshift_core::metric::{HandBackCause, Outcome};
use nightshift_core::record::State as Standing;
use nightshift_worker::BatchReport;

use super::ledger::revision_of;
use super::{Promise, tolerance_ms};
use crate::plan::{CALL_MICRO_USD_MAX, Plan};
use crate::work::{Kind, work_of};
use crate::world::{Invocation, State};

/// Panics that a worker may not have been able to count: beside others, or under another delivery's claim.
const HIDDEN_PANICS_MAX: u32 = 4;

impl State {
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
        let mut left = 0;
        for n in distinct(&running.claimed) {
            let input = &mut self.inputs[n as usize];
            for call in input.epoch_of(id).calls.iter_mut().filter(|call| call.invocation == id) {
                call.excused = true;
            }
            if input.holder != id {
                continue;
            }
            if let Some(Standing::Claimed { alone, .. }) = input.record.as_deref().map(|record| &record.state)
            {
                input.epoch.deaths += 1;
                left += 1;
                if *alone {
                    input.epoch.deaths_alone += 1;
                }
                let alone = *alone;
                self.note(now_ms, n, || format!("its worker died, invocation {id}, alone: {alone}"));
            }
        }
        self.pauses.left_behind(now_ms, running.began_ms, id, left);
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
                self.pauses.left_behind(now_ms, running.began_ms, id, 1);
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
            if let Outcome::HandedBack(cause) = outcome {
                *self.stats.handed_back.entry(*cause).or_default() += 1;
            }
            if matches!(outcome, Outcome::HandedBack(HandBackCause::SpendCap)) {
                self.stats.capped += 1;
                let is_paused = self.pauses.was_shut_since(running.began_ms);
                let known_micro_usd = self.room_as_known_to(&running, plan);
                if known_micro_usd >= CALL_MICRO_USD_MAX && !is_paused {
                    let what = "handed back for the spend cap, which left room for a call";
                    self.violate(now_ms, Promise::Progress, Some(n), what);
                }
            }
            if *outcome == Outcome::HandedBack(HandBackCause::Unreadable) && running.seen.unreadable == 0 {
                let what = "handed back for a record in unknown words, and there was none";
                self.violate(now_ms, Promise::Progress, Some(n), what);
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
        self.judge_numbers(now_ms, id, &running, report, plan);
        self.judge_waits(now_ms, id, &running, report, plan);
        self.judge_causes(now_ms, &running, report, plan);
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
        let (n, sent_at_ms, redrive_of) = (queued.input, queued.sent_at_ms, queued.redrive_of);
        let input = &self.inputs[n as usize];
        let version = input.record.as_deref().map(|record| record.version);
        // Where the record was deleted in between, its versions begin anew, and its own failure may have the same.
        let own = input.record.as_deref().is_some_and(|record| record.message_id == message.to_string());
        // Or a neighbour's, in this very invocation.
        let stood = input.settled_ms < running.began_ms;
        let told = input.failures.versions.last().is_some_and(|last| input.failures.told.contains(last));
        let letter = running.letters.iter().find(|(of, _)| *of == message).map(|(_, reason)| *reason);
        let after_settlement = sent_at_ms > input.settled_ms + tolerance_ms(plan);
        let wrong_duplicate = self.wrong_duplicate(message, running, plan);
        let fault = match (outcome, input.record.as_deref().map(|record| &record.state)) {
            (Outcome::DeadLettered(reason), _) if letter != Some(reason) => {
                Some((Promise::NothingLost, "acknowledged as a dead letter that was not sent"))
            }
            // A redriven letter's own failure must have gone by; clocks say nothing of it.
            (Outcome::DeadLettered(reason), Some(Standing::Failed(failed))) if redrive_of.is_some() => {
                let taken = failed.reason == reason && redrive_of == version && !own && stood;
                (taken && !self.is_last_chance(now_ms, message, plan))
                    .then_some((Promise::RedriveOrDuplicate, "a redriven letter was taken for a duplicate"))
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
            _ if self.is_from_before_erasure(n, &message.to_string()) => None,
            (Outcome::Duplicate, _) if wrong_duplicate.is_some() => wrong_duplicate,
            (Outcome::Succeeded | Outcome::NeedsReview | Outcome::Duplicate, Some(Standing::Done(done))) => {
                let older =
                    redrive_of.is_none() && work_of(revision_of(&done.revision)) < work_of(running.revision);
                (outcome == Outcome::Duplicate && after_settlement && older && !done.reviewed).then_some((
                    Promise::RedriveOrDuplicate,
                    "a message sent after an older revision's result was taken for a duplicate",
                ))
            }
            (Outcome::Duplicate, Some(Standing::Failed(_)))
                if redrive_of.is_some() && redrive_of == version && stood =>
            {
                Some((Promise::RedriveOrDuplicate, "a redriven letter was taken for a second copy"))
            }
            // What the other copy came to has its own letter; nobody but this message may be left to send it.
            (Outcome::Duplicate, Some(_)) if redrive_of.is_some() && told => None,
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
}

fn distinct(claimed: &[u32]) -> Vec<u32> {
    let mut distinct = claimed.to_vec();
    distinct.sort_unstable();
    distinct.dedup();
    distinct
}
