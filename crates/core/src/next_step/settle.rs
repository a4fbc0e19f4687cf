//! How a claimed job leaves its worker, and what keeps a batch from being worked on at all.

use super::{AfterCall, JobRun, Work};
use crate::control::{Admits, Control};
use crate::kept::{KeepAnswer, Part, keep};
use crate::message::Original;
use crate::metric::HandBackCause;
use crate::port_error::PortErrorKind;
use crate::record::{RecordWrite, WriteAnswer};

/// How a claimed job leaves its worker.
#[derive(Debug, Clone, PartialEq)]
pub enum Settlement {
    /// Write the result, then acknowledge.
    Store {
        /// The result.
        write: Box<RecordWrite>,
        /// Of one that waits for review: its message, which is written before the result.
        parts: Vec<Part>,
        /// It is the task's fallback.
        needs_review: bool,
    },
    /// Write the failure, then send its dead letter, then acknowledge.
    Fail(Box<RecordWrite>),
    /// Decide by [`super::hand_back`] whether there is another delivery to come.
    HandBack {
        /// Why.
        cause: HandBackCause,
        /// The message stays away at least as long.
        at_least_ms: u64,
    },
}

impl JobRun {
    /// How the job that `original` brought leaves after its last step. A result that is too large is a failure.
    #[must_use]
    pub fn settlement(
        &self,
        work: Work<'_>,
        last: AfterCall,
        original: Original<'_>,
        now_ms: u64,
    ) -> Settlement {
        let rejection = match last {
            AfterCall::Store { output, needs_review } => {
                match self.store(work, output, needs_review, now_ms) {
                    Ok(mut write) => {
                        let parts = if needs_review { keep(&mut write, original) } else { Vec::new() };
                        return Settlement::Store { write: Box::new(write), parts, needs_review };
                    }
                    Err(rejection) => rejection,
                }
            }
            AfterCall::Fail(rejection) => rejection,
            AfterCall::HandBack { cause, at_least_ms } => {
                return Settlement::HandBack { cause, at_least_ms };
            }
            AfterCall::CallAgain { delay_ms } => {
                return Settlement::HandBack { cause: HandBackCause::CallFailed, at_least_ms: delay_ms };
            }
        };
        Settlement::Fail(Box::new(self.fail(&rejection, now_ms, work.revision, work.limits)))
    }

    /// The write that gives the claim back before a hand-back, where there is one to give: a lost claim is another's, and
    /// what is unreadable was written by another worker since.
    #[must_use]
    pub fn release_before(&self, cause: HandBackCause) -> Option<RecordWrite> {
        let is_ours = !matches!(cause, HandBackCause::LostClaim | HandBackCause::Unreadable);
        is_ours.then(|| self.release())
    }
}

/// What the answer to a write under the claim's own token says of the claim.
///
/// # Errors
/// The cause with which the message is handed back: another worker has taken the claim over, or the ledger did not do what
/// it was asked.
pub fn after_own_write(answer: &Result<WriteAnswer, PortErrorKind>) -> Result<(), HandBackCause> {
    match answer {
        Ok(WriteAnswer::Written) => Ok(()),
        Ok(WriteAnswer::Refused(_)) => Err(HandBackCause::LostClaim),
        Err(kind) => Err(kind.of_ledger()),
    }
}

/// The same of a part of a kept message.
///
/// # Errors
/// The cause with which the message is handed back.
pub fn after_own_part(answer: &Result<KeepAnswer, PortErrorKind>) -> Result<(), HandBackCause> {
    match answer {
        Ok(KeepAnswer::Kept) => Ok(()),
        Ok(KeepAnswer::Refused) => Err(HandBackCause::LostClaim),
        Err(kind) => Err(kind.of_ledger()),
    }
}

/// What a batch may do, by what the control record says, or by why it could not be read. Not being able to read the pause is
/// no pause: the claims will tell whether the ledger works. Words of another release may be one.
#[must_use]
pub fn admits_work(control: Result<&Control, PortErrorKind>) -> Admits {
    match control.map(Control::admits) {
        Ok(admits) => admits,
        Err(PortErrorKind::Unreadable) => Admits::Nothing(HandBackCause::Unreadable),
        Err(_) => Admits::All,
    }
}
