//! The claim of a record: one conditional write, and what a refusal of it means.

use nightshift_core::failure::Rejection;
use nightshift_core::metric::{HandBackCause, Outcome};
use nightshift_core::next_step::{ClaimAsk, ClaimStep};
use nightshift_core::port_error::PortErrorKind;
use nightshift_core::record::{Record, RecordWrite, State, WriteAnswer};

use crate::job::Job;

/// How often a record is written to claim it: anew because it changed in between. Once it is ours, what follows is written all
/// the same, or the claim would stand.
const CLAIM_ROUNDS_MAX: u32 = 4;

/// What a claim led to.
pub(crate) enum Claim {
    /// Ours; or, of a job that is refused before any work, the failure that we wrote.
    Granted(Box<Record>),
    /// A suspect, which waits until nothing else is open.
    RunAlone,
    /// Settled, or not for us.
    Ended(Outcome),
}

/// What follows a write.
enum Next {
    Ours(Box<Record>),
    Write(Box<RecordWrite>),
    /// The same, over a failure that stands.
    WriteOverFailure(Box<RecordWrite>),
    End(Claim),
}

impl Job<'_> {
    /// Claims the record, or writes the rejection at once; both in one write where nobody has seen the input.
    ///
    /// Over a failure the claim comes first all the same: who acts on the table's stream is told of changes of state, and of
    /// two failures in a row would hear of one.
    pub(crate) async fn claim(&self, token: &str, alone: bool, rejection: Option<&Rejection>) -> Claim {
        // A job that is refused before any work cannot kill its worker, so it need not wait to be alone.
        let alone = alone || rejection.is_some();
        let ask = self.ask(token, self.now_ms(), self.invocation.lease_until_ms, alone);
        let mut write = ask.first();
        let mut over_failure = false;
        for round in 1.. {
            let intended = match rejection {
                Some(_) if over_failure => ask.before_refusal(write),
                Some(rejection) => ask.refuse(write, rejection),
                None => write,
            };
            let next = match self.write(&intended).await {
                Ok(WriteAnswer::Written) => Next::Ours(Box::new(intended.record)),
                // It was deleted between the condition and the read of it.
                Ok(WriteAnswer::Refused(None)) => Next::Write(Box::new(ask.first())),
                Ok(WriteAnswer::Refused(Some(standing))) => self.refused(&ask, &standing).await,
                Err(kind) => return self.claim_unknown(&ask, intended, kind).await,
            };
            (write, over_failure) = match next {
                Next::Ours(record) if rejection.is_some() && !matches!(record.state, State::Failed(_)) => {
                    (ask.over_own(*record), false)
                }
                Next::Ours(record) => return Claim::Granted(record),
                Next::End(claim) => return claim,
                Next::Write(_) | Next::WriteOverFailure(_) if round >= CLAIM_ROUNDS_MAX => break,
                Next::Write(write) => (*write, false),
                Next::WriteOverFailure(write) => (*write, true),
            };
        }
        Claim::Ended(self.return_unclaimed(HandBackCause::HeldByOther, 0).await)
    }

    async fn refused(&self, ask: &ClaimAsk<'_>, standing: &Record) -> Next {
        let outcome = match ask.refused_by(standing) {
            ClaimStep::Held(record) => return Next::Ours(record),
            ClaimStep::TakeOver(write) if matches!(standing.state, State::Failed(_)) => {
                return Next::WriteOverFailure(write);
            }
            ClaimStep::TakeOver(write) => return Next::Write(write),
            ClaimStep::RunAlone => return Next::End(Claim::RunAlone),
            ClaimStep::Fail(write) => self.fail(*write).await,
            ClaimStep::AlreadyDone { another_message } => {
                if another_message {
                    self.count_duplicate().await;
                }
                Outcome::Duplicate
            }
            ClaimStep::AlreadyFailed(record) => self.bury(&record).await,
            ClaimStep::AlreadyRedriven | ClaimStep::AlreadyErased => Outcome::Duplicate,
            ClaimStep::HeldByOther { until_ms } => {
                let at_least_ms = until_ms.saturating_sub(ask.now_ms);
                self.return_unclaimed(HandBackCause::HeldByOther, at_least_ms).await
            }
        };
        Next::End(Claim::Ended(outcome))
    }

    /// Nobody knows whether the claim was written.
    async fn claim_unknown(&self, ask: &ClaimAsk<'_>, intended: RecordWrite, kind: PortErrorKind) -> Claim {
        if let Some(take_back) = ask.after_error(intended, kind) {
            let _ = self.write(&take_back).await;
        }
        Claim::Ended(self.return_unclaimed(kind.of_ledger(), 0).await)
    }

    /// The count is for people: without it the result stands all the same.
    async fn count_duplicate(&self) {
        let (key, message_id) = (&self.item.key, &self.item.message.message_id);
        if let Err(error) = self.ports().ledger.count_duplicate(key, message_id).await {
            self.ledger_error(&error);
        }
    }
}
