//! Each write to the table: who may change a record, and into what.

use nightshift_core::record::{Expect, Record, RecordWrite, State as Standing};

use super::history::{CallEnd, Epoch};
use super::{Promise, tolerance_ms};
use crate::plan::Plan;
use crate::ports::OPERATION_TIMEOUT_MS;
use crate::work::{is_right, model_of, work_of};
use crate::world::{BEGINNING_MS, State};

/// A write and who asked for it.
#[derive(Debug, Clone, Copy)]
pub struct Asked<'a> {
    pub write: &'a RecordWrite,
    pub invocation: u64,
    /// When the worker asked; it takes effect then or later.
    pub asked_ms: u64,
}

/// A claim is decided at its beginning and then written, in up to four rounds of which each takes at most this long.
pub(super) const DECIDED_BEFORE_MS_MAX: u64 = 3 * OPERATION_TIMEOUT_MS;

impl State {
    /// A write reaches the table: the condition is evaluated, and each change that takes effect is judged.
    /// Returns whether it took effect.
    pub fn ledger_write(&mut self, now_ms: u64, asked: Asked<'_>, plan: &Plan) -> bool {
        let Asked { write, invocation, .. } = asked;
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
        self.judge_write(now_ms, n, asked, plan);
        self.stand(n, Some(write.record.clone()));
        self.judge_kept_message(now_ms, n);
        true
    }

    /// The last word of a claim's owner must not be refused for something that the owner wrote before. What was to come first
    /// of all, and comes late, is none.
    fn judge_refusal(&mut self, now_ms: u64, n: u32, write: &RecordWrite) {
        let Some(standing) = self.inputs[n as usize].record.as_deref() else { return };
        let claimed = |record: &Record| matches!(record.state, Standing::Claimed { .. });
        let is_first = write.expect == Expect::Absent;
        if standing.token == write.record.token && claimed(standing) && !claimed(&write.record) && !is_first {
            let what = "the owner's last word was refused because of its own earlier write";
            self.violate(now_ms, Promise::Fenced, Some(n), what);
        }
    }

    fn judge_write(&mut self, now_ms: u64, n: u32, asked: Asked<'_>, plan: &Plan) {
        self.stats.checks += 1;
        let Asked { write, invocation, asked_ms } = asked;
        let new = &write.record;
        let tolerance_ms = tolerance_ms(plan);
        let input = &self.inputs[n as usize];
        let old = input.record.as_deref();
        let same_claim = old.is_some_and(|old| old.token == new.token);
        if write.expect == Expect::Fence && !same_claim {
            self.violate(now_ms, Promise::Fenced, Some(n), "a write under a stale token took effect");
            return;
        }
        if self.is_from_before_erasure(n, &new.message_id) {
            let what = "a message from before an erasure changed the record after it";
            self.violate(now_ms, Promise::Erased, Some(n), what);
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
        let settled =
            |old: &Record| matches!(old.state, Standing::Done(_) | Standing::Failed(_) | Standing::Erased);
        let gone = |old: &Record| old.expires_at_ms <= now_ms + tolerance_ms && new.budget.claims == 1;
        let fresh = !same_claim && old.is_none_or(|old| settled(old) || gone(old));
        if !same_claim {
            let redrive_of = self.redrive_of(&new.message_id);
            let sent_after = new.sent_at_ms + tolerance_ms > input.decided_ms;
            let expired = old.is_some_and(|old| old.expires_at_ms <= now_ms + tolerance_ms);
            let fault = match old.map(|old| &old.state) {
                Some(Standing::Done(done)) if !expired => {
                    let newer =
                        work_of(revision_of(&done.revision)) < work_of(revision_of_writer(self, invocation));
                    if redrive_of.is_some() {
                        Some("a redriven letter was worked on over a result")
                    } else if done.reviewed {
                        Some("a reviewed result was worked on again")
                    } else if !sent_after {
                        Some("a duplicate sent before the finish was worked on again")
                    } else if !newer {
                        Some("a result of this revision or a newer one was worked on again")
                    } else {
                        None
                    }
                }
                // Whatever the clocks say.
                Some(Standing::Failed(_)) if !expired && redrive_of.is_some() => {
                    let stands = old.map(|old| old.version);
                    if redrive_of != stands {
                        let what = "the second copy of a redriven letter was worked on";
                        self.violate(now_ms, Promise::NotPaidTwice, Some(n), what);
                        return;
                    }
                    None
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
                // A claim whose release was prevented by a fault is not open in the worker any more; and one that
                // takes effect late may come when its worker has handed the job back, and goes on with another.
                let met_by_fault = |n: u32| self.inputs[n as usize].epoch.ledger_faults > 0;
                if !met_by_fault(beside) && !met_by_fault(n) {
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
        if let Some(what) = unkept(old, new, now_ms + tolerance_ms, plan) {
            self.violate(now_ms, Promise::NothingLost, Some(n), what);
            return;
        }
        if let Some((promise, what)) = self.wrong_record(n, new, plan) {
            self.violate(now_ms, promise, Some(n), what);
            return;
        }
        if fresh {
            // A panic in the prompt, or a fault, comes before the claim that it belongs to.
            let epoch = &mut self.inputs[n as usize].epoch;
            *epoch = Epoch {
                panics: epoch.panics,
                ledger_faults: epoch.ledger_faults,
                unsure_crashes: epoch.unsure_crashes,
                first_received_ms: asked_ms,
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
            input.epoch.cost_before_micro_usd = new.budget.cost_micro_usd;
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
                let (bytes, most) = (done.output.to_string().len(), plan.limits.output_bytes_max);
                if bytes > most {
                    let what = format!("a result of {bytes} bytes was stored, and the limit is {most}");
                    self.violate(now_ms, Promise::Budgets, Some(n), what);
                }
                let revision = revision_of(&done.revision);
                if done.model != model_of(revision) {
                    let what = format!("a result of revision {revision} is said to be by {}", done.model);
                    self.violate(now_ms, Promise::RedriveOrDuplicate, Some(n), what);
                }
                let last = self.inputs[n as usize].epoch.last_answer();
                if !done.needs_review && last != Some(CallEnd::Valid) {
                    let what = format!("a result was stored, and the last answer was {last:?}");
                    self.violate(now_ms, Promise::OnlyValidated, Some(n), what);
                }
                self.settled(now_ms, n, asked_ms, done.finished_at_ms, plan);
                self.inputs[n as usize].done = Some((new.version, done.finished_at_ms));
                self.redriven_succeeded(&new.message_id);
                self.stats.results += 1;
            }
            Standing::Failed(failed) => {
                if let Some(why) = self.unexplained(now_ms, n, failed.reason, new, plan) {
                    self.violate(now_ms, Promise::Explained, Some(n), format!("{}: {why}", failed.reason));
                }
                self.settled(now_ms, n, asked_ms, failed.failed_at_ms, plan);
                self.inputs[n as usize].failures.versions.push(new.version);
            }
            Standing::Open | Standing::Claimed { .. } | Standing::Erased => {}
        }
    }

    /// The version of the failed record that a message tells of, where it is a dead letter that was moved back.
    fn redrive_of(&self, message_id: &str) -> Option<u64> {
        message_id.parse::<usize>().ok().and_then(|id| self.queue.messages.get(id)?.redrive_of)
    }

    /// `dated_ms`: what the record says of when it was settled, by its worker's clock.
    ///
    /// A write that takes effect late dates itself before it, and nobody can know that when it is written: a message that
    /// was sent in between may be taken for either.
    fn settled(&mut self, now_ms: u64, n: u32, asked_ms: u64, dated_ms: u64, plan: &Plan) {
        let decided_ms = asked_ms.saturating_sub(DECIDED_BEFORE_MS_MAX);
        let tolerance_ms = tolerance_ms(plan);
        if dated_ms + tolerance_ms < decided_ms || dated_ms > asked_ms + tolerance_ms {
            let what = format!("a settlement of {asked_ms} is dated {dated_ms}");
            self.violate(now_ms, Promise::RedriveOrDuplicate, Some(n), what);
        }
        let input = &mut self.inputs[n as usize];
        (input.decided_ms, input.settled_ms) = (decided_ms, now_ms);
        self.settlements_ms.push(now_ms - BEGINNING_MS);
        let input = &mut self.inputs[n as usize];
        (input.epoch.panics, input.epoch.panics_unsettled) = (0, 0);
        (input.epoch.ledger_faults, input.epoch.unsure_crashes) = (0, 0);
    }

    /// A fault of the ledger meets a write: what it would have stored may have to be paid for again.
    pub fn ledger_fault(&mut self, now_ms: u64, write: &RecordWrite, invocation: u64, what: &str) {
        self.stats.ledger_faults += 1;
        let Some(&n) = self.by_key.get(&write.record.key) else { return };
        self.note(now_ms, n, || {
            format!("ledger: {} by invocation {invocation}: {what}", describe(&write.record))
        });
        let epoch = self.inputs[n as usize].epoch_of(invocation);
        epoch.ledger_faults += 1;
        let unclaims = !matches!(write.record.state, Standing::Claimed { .. } | Standing::Done(_));
        epoch.unsure_crashes += u32::from(unclaims && write.record.budget.crashes > 0);
        if matches!(write.record.state, Standing::Done(_) | Standing::Failed(_)) {
            for call in epoch.calls.iter_mut().filter(|call| call.invocation == invocation) {
                call.excused = true;
            }
        }
    }
}

/// What a write takes away before its time: a result that stands while it is made again, or the record itself.
fn unkept(old: Option<&Record>, new: &Record, now_ms: u64, plan: &Plan) -> Option<&'static str> {
    let (dated_ms, kept_ms) = match &new.state {
        Standing::Done(done) => (done.finished_at_ms, plan.limits.result_expiry_ms),
        Standing::Failed(failed) => (failed.failed_at_ms, plan.limits.failure_expiry_ms),
        Standing::Open | Standing::Claimed { .. } | Standing::Erased => {
            (new.last_claimed_ms, plan.limits.failure_expiry_ms)
        }
    };
    if new.expires_at_ms < dated_ms + kept_ms {
        return Some("a record expires before its time");
    }
    let old = old.filter(|old| old.expires_at_ms > now_ms)?;
    let result = match &old.state {
        Standing::Done(done) => Some(done.to_json()),
        _ => old.previous.clone(),
    };
    match (&result, &new.state) {
        (None, _) | (_, Standing::Done(_)) => None,
        (Some(_), _) if new.previous != result => Some("a result is gone while it is made again"),
        (Some(_), _) if new.expires_at_ms < old.expires_at_ms => {
            Some("a result expires earlier because it is made again")
        }
        _ => None,
    }
}

/// Revisions are numbered by the function's version.
pub(super) fn revision_of(revision: &nightshift_core::record::Revision) -> u32 {
    revision.function_version as u32
}

fn revision_of_writer(state: &State, invocation: u64) -> u32 {
    state.invocations.get(&invocation).map_or(u32::MAX - 1, |running| running.revision)
}

fn describe(record: &Record) -> String {
    match &record.state {
        Standing::Open => "open".to_owned(),
        Standing::Erased => "erased".to_owned(),
        Standing::Claimed { alone, .. } => format!("claimed{}", if *alone { " alone" } else { "" }),
        Standing::Done(done) => format!("done{}", if done.needs_review { " for review" } else { "" }),
        Standing::Failed(failed) => format!("failed as {}", failed.reason),
    }
}
