//! What a panic over a job leaves to do: the worker lives, so it counts the panic like a crash, and hands the job back or
//! gives it up.

use super::{ClaimAsk, ClaimStep, failed};
use crate::failure::{FailureReason, Rejection};
use crate::metric::HandBackCause;
use crate::record::{Expect, Record, RecordWrite, State};

/// A job over which its worker panicked, before its claim or after it.
#[derive(Debug, Clone)]
pub struct Panicked<'a> {
    /// What it would be claimed with, under a token of its own: under the claim's, whatever stands would be taken for
    /// the count of the panic.
    pub ask: ClaimAsk<'a>,
    /// The token of the claim, if there was one.
    pub claim_token: &'a str,
}

/// What to do where the first count is refused.
#[derive(Debug, Clone, PartialEq)]
pub enum PanicStep {
    /// Write this, which counts it; if that is refused too, hand the message back.
    Count(Box<RecordWrite>),
    /// There is nothing to count.
    Then(AfterPanic),
}

/// What follows from a panic, counted or not.
#[derive(Debug, Clone, PartialEq)]
pub enum AfterPanic {
    /// Send the dead letter of this failed record, then acknowledge.
    Bury(Box<Record>),
    /// Acknowledge: the job was settled by another message, or is by its own.
    AlreadySettled,
    /// Hand the message back.
    HandBack {
        /// Why.
        cause: HandBackCause,
        /// The message stays away at least as long.
        at_least_ms: u64,
    },
}

impl AfterPanic {
    /// The message comes back, and its next delivery finds what stands.
    pub const HAND_BACK: Self = Self::HandBack { cause: HandBackCause::Panic, at_least_ms: 0 };

    /// What follows when the panic is counted.
    #[must_use]
    pub fn counted(record: Record) -> Self {
        match record.state {
            State::Failed(_) => Self::Bury(Box::new(record)),
            _ => Self::HAND_BACK,
        }
    }
}

impl Panicked<'_> {
    /// The count of a panic before any claim; refused where there is a record, and then [`Panicked::refused_by`] decides.
    #[must_use]
    pub fn first(&self) -> RecordWrite {
        self.unclaimed(self.ask.first())
    }

    /// What follows when the first count is refused over this record.
    #[must_use]
    pub fn refused_by(&self, standing: Option<&Record>) -> PanicStep {
        let Some(standing) = standing else { return PanicStep::Then(AfterPanic::HAND_BACK) };
        if standing.token == self.claim_token {
            return match &standing.state {
                State::Claimed { .. } => PanicStep::Count(Box::new(self.claimed(standing))),
                State::Failed(_) => PanicStep::Then(AfterPanic::Bury(Box::new(standing.clone()))),
                State::Open | State::Done(_) | State::Erased => PanicStep::Then(AfterPanic::HAND_BACK),
            };
        }
        PanicStep::Then(match self.ask.refused_by(standing) {
            ClaimStep::TakeOver(claim) if matches!(standing.state, State::Failed(_)) => {
                return PanicStep::Count(Box::new(self.over_failure(*claim)));
            }
            ClaimStep::TakeOver(claim) => return PanicStep::Count(Box::new(self.unclaimed(*claim))),
            ClaimStep::Fail(write) => return PanicStep::Count(write),
            ClaimStep::AlreadyFailed(record) => AfterPanic::Bury(record),
            ClaimStep::AlreadyDone { .. } | ClaimStep::AlreadyRedriven | ClaimStep::AlreadyErased => {
                AfterPanic::AlreadySettled
            }
            ClaimStep::HeldByOther { until_ms } => AfterPanic::HandBack {
                cause: HandBackCause::HeldByOther,
                at_least_ms: until_ms.saturating_sub(self.ask.now_ms),
            },
            ClaimStep::Held(_) | ClaimStep::RunAlone => AfterPanic::HAND_BACK,
        })
    }

    /// The claim counts the panic as a crash, and the job is given up when there were too many.
    fn claimed(&self, standing: &Record) -> RecordWrite {
        let record = Record { version: standing.version + 1, ..standing.clone() };
        self.crashed(RecordWrite { record, expect: Expect::Fence })
    }

    /// What the claim would have written, without the call that it announces.
    fn unclaimed(&self, mut claim: RecordWrite) -> RecordWrite {
        claim.record.budget.calls = claim.record.budget.calls.saturating_sub(1);
        self.crashed(claim)
    }

    /// The same over a failure that stands, which no failure may follow at once: who acts on the table's stream is told of
    /// changes of state. A job that has no panic left is given up by its next delivery.
    fn over_failure(&self, claim: RecordWrite) -> RecordWrite {
        let mut write = self.unclaimed(claim);
        write.record.state = State::Open;
        write
    }

    fn crashed(&self, mut write: RecordWrite) -> RecordWrite {
        let ClaimAsk { now_ms, revision, limits, .. } = self.ask;
        write.record.budget.crashes += 1;
        if write.record.budget.crashes >= limits.crash_limit {
            let rejection = too_many(write.record.budget.crashes);
            write.record = failed(write.record, &rejection, now_ms, revision, limits, None, None);
        } else {
            write.record.state = State::Open;
        }
        write
    }
}

fn too_many(panics: u32) -> Rejection {
    Rejection::new(
        FailureReason::Internal,
        format!("The worker panicked {panics} times over this job: look for `panicked` in its log."),
    )
}
