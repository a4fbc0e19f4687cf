//! A panic over a record fails that record alone.

use std::future::Future;
use std::panic::AssertUnwindSafe;

use futures_util::FutureExt;
use nightshift_core::metric::Outcome;
use nightshift_core::next_step::{AfterPanic, PanicStep, Panicked};
use nightshift_core::record::{RecordWrite, WriteAnswer};

use crate::job::Job;

impl Job<'_> {
    /// Carries out the work; a panic in it is settled, as what was claimed under this token.
    pub(crate) async fn catch<T: From<Outcome>>(&self, token: &str, work: impl Future<Output = T>) -> T {
        match AssertUnwindSafe(work).catch_unwind().await {
            Ok(ended) => ended,
            Err(_) => {
                tracing::error!("panicked");
                self.settle_panic(token).await.into()
            }
        }
    }

    /// After a panic the claim, if there was one, is still ours: count it, and hand the job back or give it up.
    async fn settle_panic(&self, claim_token: &str) -> Outcome {
        let own_token = self.ports().entropy.token();
        let ask = self.ask(&own_token, self.now_ms(), self.invocation.lease_until_ms, true);
        let panicked = Panicked { ask, claim_token };
        let first = panicked.first();
        let after = match self.write(&first).await {
            Ok(WriteAnswer::Written) => AfterPanic::counted(first.record),
            Ok(WriteAnswer::Refused(standing)) => match panicked.refused_by(standing.as_deref()) {
                PanicStep::Count(write) => self.count_panic(*write).await,
                PanicStep::Then(after) => after,
            },
            Err(_) => AfterPanic::HAND_BACK,
        };
        match after {
            AfterPanic::Bury(record) => self.bury(&record).await,
            AfterPanic::AlreadySettled => Outcome::Duplicate,
            AfterPanic::HandBack { cause, at_least_ms } => self.return_unclaimed(cause, at_least_ms).await,
        }
    }

    async fn count_panic(&self, write: RecordWrite) -> AfterPanic {
        match self.write(&write).await {
            Ok(WriteAnswer::Written) => AfterPanic::counted(write.record),
            Ok(WriteAnswer::Refused(_)) | Err(_) => AfterPanic::HAND_BACK,
        }
    }
}
