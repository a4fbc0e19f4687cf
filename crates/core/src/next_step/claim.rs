//! What a claim means, over the record that stands.

use crate::failure::{FailureReason, Rejection};
use crate::input_hash::InputHash;
use crate::limits::Limits;
use crate::message::Delivery;
use crate::next_step::failed;
use crate::port_error::PortErrorKind;
use crate::record::{Budget, Erasure, Expect, Failed, PastFailure, Record, RecordWrite, Revision, State};

/// Everything that a claim is decided by, but the record that already stands.
#[derive(Debug, Clone)]
pub struct ClaimAsk<'a> {
    /// Which record is claimed.
    pub key: &'a InputHash,
    /// `None` when the body could not be parsed.
    pub task: Option<&'a str>,
    /// The sender's reference.
    pub reference: Option<&'a str>,
    /// The message.
    pub delivery: &'a Delivery,
    /// The fresh fencing token of this claim.
    pub token: &'a str,
    /// The worker's clock.
    pub now_ms: u64,
    /// The end of this invocation plus the lease margin.
    pub lease_until_ms: u64,
    /// Nothing else is open in this worker.
    pub alone: bool,
    /// What is deployed.
    pub revision: &'a Revision,
    /// How many deaths, calls and waiting a job may have.
    pub limits: &'a Limits,
}

/// What a refused claim means.
#[derive(Debug, Clone, PartialEq)]
pub enum ClaimStep {
    /// It is ours: the reply to our own write was lost.
    Held(Box<Record>),
    /// Write this; it is a claim if granted.
    TakeOver(Box<RecordWrite>),
    /// Write this failure, then send its dead letter.
    Fail(Box<RecordWrite>),
    /// Its last worker died: ask again when nothing else is open.
    RunAlone,
    /// Acknowledge.
    AlreadyDone {
        /// The message is not the one that the result was made for: count it.
        another_message: bool,
    },
    /// Send its dead letter, then acknowledge.
    AlreadyFailed(Box<Record>),
    /// Acknowledge: a person erased the data of this input after the message was sent.
    AlreadyErased,
    /// Acknowledge: a dead letter that was sent back twice, and what the other copy came to has a letter of its own.
    AlreadyRedriven,
    /// Hand back until then.
    HeldByOther {
        /// By the other worker's clock.
        until_ms: u64,
    },
}

impl ClaimAsk<'_> {
    /// The claim of an input that nobody has seen: the one write with which a job begins.
    /// It counts the first call, which is about to be made.
    #[must_use]
    pub fn first(&self) -> RecordWrite {
        RecordWrite { record: self.fresh(0, Vec::new(), 0), expect: Expect::Absent }
    }

    /// Turns a claim into the failure of a job that is refused before any work: one write instead of two. Neither makes the
    /// call that a claim announces.
    #[must_use]
    pub fn refuse(&self, mut claim: RecordWrite, rejection: &Rejection) -> RecordWrite {
        claim.record.budget.calls = claim.record.budget.calls.saturating_sub(1);
        claim.record = failed(claim.record, rejection, self.now_ms, self.revision, self.limits, None, None);
        claim
    }

    /// The claim of a job whose refusal is written next: whatever kills the worker in between, it is not the job, and no
    /// call is made.
    #[must_use]
    pub fn before_refusal(&self, mut claim: RecordWrite) -> RecordWrite {
        claim.record.budget.calls = claim.record.budget.calls.saturating_sub(1);
        claim.record.state = State::Claimed { lease_until_ms: self.lease_until_ms, alone: false };
        claim
    }

    /// What to write when the answer to a write of this claim is an error: a claim that nobody knows of would hold the job
    /// back until its lease ends, and count a call. A refusal in its place is found, and sent, by the next delivery.
    #[must_use]
    pub fn after_error(&self, mut write: RecordWrite, kind: PortErrorKind) -> Option<RecordWrite> {
        match write.record.state {
            State::Claimed { .. } => kind.may_have_taken_effect().then(|| self.take_back(write)),
            // Either it stands or the claim below it does: at the same version, only one of both takes the claim's place.
            State::Failed(_) if write.expect == Expect::Fence => {
                write.record.state = State::Open;
                Some(write)
            }
            _ => None,
        }
    }

    /// The next write of a record that this claim holds.
    #[must_use]
    pub fn over_own(&self, mut held: Record) -> RecordWrite {
        held.version += 1;
        RecordWrite { record: held, expect: Expect::Fence }
    }

    /// Gives a claim back: without the call that it announces.
    fn take_back(&self, claim: RecordWrite) -> RecordWrite {
        let mut write = self.over_own(claim.record);
        write.record.budget.calls = write.record.budget.calls.saturating_sub(1);
        write.record.state = State::Open;
        write
    }

    /// What to do about the record that stands.
    #[must_use]
    pub fn refused_by(&self, standing: &Record) -> ClaimStep {
        if standing.token == self.token {
            return ClaimStep::Held(Box::new(standing.clone()));
        }
        if standing.expires_at_ms <= self.now_ms {
            return self.take_over(standing, self.fresh(standing.version, Vec::new(), 0));
        }
        if standing.erased.is_some_and(|erasure| self.is_erased_by(standing, erasure)) {
            return ClaimStep::AlreadyErased;
        }
        match &standing.state {
            State::Erased => self.take_over(standing, self.fresh(standing.version, Vec::new(), 0)),
            State::Done(done) => {
                // A redrive asks for an end to a failure, and there is one.
                let asked_again =
                    self.delivery.redrive_of.is_none() && self.sent_after(standing, done.finished_at_ms);
                if asked_again && !done.reviewed && done.revision.is_older_than(self.revision) {
                    let mut record =
                        self.fresh(standing.version, standing.history.clone(), standing.redrives);
                    record.previous = Some(done.to_json());
                    record.expires_at_ms = record.expires_at_ms.max(standing.expires_at_ms);
                    self.take_over(standing, record)
                } else {
                    ClaimStep::AlreadyDone {
                        another_message: self.delivery.message_id != standing.message_id,
                    }
                }
            }
            State::Failed(failed) => match self.delivery.redrive_of {
                // Its own failure, whose letter may be unsent, comes before anything that the message says of another.
                Some(version) if self.delivery.message_id != standing.message_id => {
                    if version == standing.version {
                        self.begin_afresh(standing, failed)
                    } else if version < standing.version && standing.letter_is_sent() {
                        ClaimStep::AlreadyRedriven
                    } else {
                        // SQS gives a message from `crashed` a new id: this may be the last that can send the letter. And of
                        // a letter that is newer than the record, a ledger that was restored knows nothing.
                        ClaimStep::AlreadyFailed(Box::new(standing.clone()))
                    }
                }
                None if self.sent_after(standing, failed.failed_at_ms) => self.begin_afresh(standing, failed),
                _ => ClaimStep::AlreadyFailed(Box::new(standing.clone())),
            },
            State::Open => self.go_on(standing, false, 0),
            State::Claimed { lease_until_ms, .. } if *lease_until_ms > self.now_ms => {
                ClaimStep::HeldByOther { until_ms: *lease_until_ms }
            }
            State::Claimed { lease_until_ms, .. } if self.was_handed_back(standing, *lease_until_ms) => {
                self.go_on(standing, false, 0)
            }
            State::Claimed { alone, .. } => self.go_on(standing, true, u32::from(*alone)),
        }
    }

    fn begin_afresh(&self, standing: &Record, failed: &Failed) -> ClaimStep {
        let history = standing.history_with(failed.reason.as_str(), failed.failed_at_ms);
        let mut record = self.fresh(standing.version, history, standing.redrives + 1);
        keep_previous(&mut record, standing);
        self.take_over(standing, record)
    }

    /// Whether the message is from before the erasure. A letter is as old as the failure that it tells of, whenever it was
    /// sent back; and what the tombstone was put over is known by its id, whatever the clocks say.
    fn is_erased_by(&self, standing: &Record, erasure: Erasure) -> bool {
        let was_worked_on =
            standing.state == State::Erased && self.delivery.message_id == standing.message_id;
        was_worked_on
            || erasure.covers(self.delivery.sent_at_ms)
            || self.delivery.redrive_of.is_some_and(|version| version < erasure.version)
    }

    /// A redelivery has its first id; a new request has a new one and a later time.
    fn sent_after(&self, standing: &Record, settled_at_ms: u64) -> bool {
        self.delivery.message_id != standing.message_id && self.delivery.sent_at_ms > settled_at_ms
    }

    /// Whether the worker of an ended claim lived, and only its release did not reach the ledger.
    ///
    /// SQS keeps what a dead worker had for a whole visibility timeout, so a message that is back earlier was handed back.
    /// Lambda may have held it for a while before it started the function; twice the function's timeout is left for that.
    fn was_handed_back(&self, standing: &Record, lease_until_ms: u64) -> bool {
        let limits = self.limits;
        let begun_ms = lease_until_ms.saturating_sub(limits.function_timeout_ms + limits.lease_margin_ms);
        let kept_ms = limits.visibility_timeout_ms.saturating_sub(2 * limits.function_timeout_ms);
        standing.message_id == self.delivery.message_id && self.now_ms < begun_ms.saturating_add(kept_ms)
    }

    /// Goes on with a job that another worker began, and of which it may have died.
    fn go_on(&self, standing: &Record, died: bool, new_crashes: u32) -> ClaimStep {
        let crashes = standing.budget.crashes + new_crashes;
        let mut record = self.claimed(standing.version);
        record.task = standing.task.clone();
        record.reference = standing.reference.clone();
        record.first_received_ms = standing.first_received_ms;
        record.redrives = standing.redrives;
        keep_previous(&mut record, standing);
        self.keep_erasure(&mut record, standing);
        record.history = standing.history.clone();
        record.budget = Budget { claims: standing.budget.claims + 1, crashes, ..standing.budget };
        let failure = if crashes >= self.limits.crash_limit {
            Some(Rejection::new(
                FailureReason::Poison,
                format!(
                    "{crashes} workers died or panicked over this job: look for `panicked` in the log, and for what in its input kills them."
                ),
            ))
        } else if standing.budget.calls >= self.limits.paid_call_limit {
            Some(Rejection::new(
                FailureReason::AttemptsExhausted,
                format!(
                    "{} calls were made or may have been billed, the limit of a job, and no worker lived to store an answer: look for what ended them in the log.",
                    standing.budget.calls
                ),
            ))
        } else {
            None
        };
        if let Some(rejection) = failure {
            let record = failed(record, &rejection, self.now_ms, self.revision, self.limits, None, None);
            return ClaimStep::Fail(Box::new(RecordWrite { record, expect: Expect::exactly(standing) }));
        }
        if (died || crashes > 0) && !self.alone {
            return ClaimStep::RunAlone;
        }
        record.budget.calls += 1;
        self.take_over(standing, record)
    }

    fn take_over(&self, standing: &Record, mut record: Record) -> ClaimStep {
        self.keep_erasure(&mut record, standing);
        ClaimStep::TakeOver(Box::new(RecordWrite { record, expect: Expect::exactly(standing) }))
    }

    /// What was erased stays so while a message from before may come.
    fn keep_erasure(&self, record: &mut Record, standing: &Record) {
        record.erased = standing.erased.filter(|erasure| erasure.until_ms > self.now_ms);
        if let Some(erasure) = record.erased {
            record.expires_at_ms = record.expires_at_ms.max(erasure.until_ms);
        }
    }

    fn fresh(&self, standing_version: u64, history: Vec<PastFailure>, redrives: u32) -> Record {
        let mut record = self.claimed(standing_version);
        record.budget = Budget { claims: 1, calls: 1, ..Budget::default() };
        record.history = history;
        record.redrives = redrives;
        record
    }

    fn claimed(&self, standing_version: u64) -> Record {
        Record {
            key: self.key.clone(),
            task: self.task.map(str::to_owned),
            reference: self.reference.map(str::to_owned),
            version: standing_version + 1,
            token: self.token.to_owned(),
            state: State::Claimed { lease_until_ms: self.lease_until_ms, alone: self.alone },
            previous: None,
            message_id: self.delivery.message_id.clone(),
            sent_at_ms: self.delivery.sent_at_ms,
            first_received_ms: self.now_ms,
            last_claimed_ms: self.now_ms,
            budget: Budget::default(),
            redrives: 0,
            history: Vec::new(),
            letter_version: None,
            erased: None,
            kept: None,
            reviewed: None,
            expires_at_ms: self.now_ms + self.limits.failure_expiry_ms,
        }
    }
}

/// A result that is being made again stands as long as it would have.
fn keep_previous(record: &mut Record, standing: &Record) {
    record.previous = standing.previous.clone();
    if record.previous.is_some() {
        record.expires_at_ms = record.expires_at_ms.max(standing.expires_at_ms);
    }
}
