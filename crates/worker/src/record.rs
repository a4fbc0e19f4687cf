//! The path of one record, from its message to its settlement.

use nightshift_core::failure::Rejection;
use nightshift_core::job;
use nightshift_core::metric::Outcome;
use nightshift_core::next_step::Work;
use nightshift_core::ready::{Ready, ready};

use crate::claim::Claim;
use crate::job::Job;
use crate::paid_call::Reservation;

/// How a record left its path.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Ended {
    /// It is settled, or handed back.
    With(Outcome),
    /// It is a suspect, and waits until nothing else is open.
    AsSuspect,
}

impl From<Outcome> for Ended {
    fn from(outcome: Outcome) -> Self {
        Self::With(outcome)
    }
}

impl<'a> Job<'a> {
    /// Works on the record; a panic over it is its own.
    pub(crate) async fn process(&self, alone: bool, reservation: Option<Reservation<'a>>) -> Ended {
        let token = self.ports().entropy.token();
        self.catch(&token, self.refuse_or_work(&token, alone, reservation)).await
    }

    async fn refuse_or_work(&self, token: &str, alone: bool, reservation: Option<Reservation<'a>>) -> Ended {
        let ready = self.prepare();
        let record = match self.claim(token, alone, ready.as_ref().err()).await {
            Claim::Granted(record) => *record,
            Claim::RunAlone => return Ended::AsSuspect,
            Claim::Ended(outcome) => return outcome.into(),
        };
        // Before any call: if this worker dies of the job, the line says which one it was.
        tracing::info!(attempt = record.budget.claims, crashes = record.budget.crashes, alone, "claimed");
        let outcome = match ready {
            Ok((job, Ready { task, price, prompt })) => {
                let work = Work {
                    task,
                    input: &job.input,
                    limits: self.limits(),
                    price,
                    model: &self.worker().deployment.model,
                    revision: self.revision(),
                    opened_at_ms: self.worker().opened_at_ms(),
                };
                self.work_on(work, record, &prompt, reservation).await
            }
            Err(_) => self.bury(&record).await,
        };
        outcome.into()
    }

    /// The job with its task and prompt, or why there will be none.
    fn prepare(&self) -> Result<(&'a job::Job, Ready<'a>), Rejection> {
        let job = self.item.job.as_ref().map_err(Clone::clone)?;
        let worker = self.worker();
        let (price, cap_micro_usd) = (worker.deployment.price, self.limits().spend_cap_micro_usd);
        let body_bytes = self.item.message.body.len();
        Ok((job, ready(job, body_bytes, &*worker.tasks, price, cap_micro_usd)?))
    }
}
