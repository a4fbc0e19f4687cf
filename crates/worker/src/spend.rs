//! The day's spend: what a call can cost at most is reserved before it is made; at the end of the invocation what was
//! spent takes the place of what was reserved.
//!
//! **Invariant:** no call that may be billed is made without a reservation, and what nobody settled stays reserved: as
//! long as a call costs at most its reservation, what is billed to a day never exceeds its cap. A day is the UTC day on
//! which the invocation began.

use std::sync::atomic::Ordering;

use nightshift_core::metric::{HandBackCause, Metric, NO_TASK};
use nightshift_core::output_validation::REASK_BYTES_MAX;
use nightshift_core::record::{SpendAnswer, SpendChange, SpendKind};

use crate::ports::PortError;
use crate::process_batch::{Invocation, Item, Worker};

/// What one invocation has written into the day's record.
#[derive(Debug)]
pub(crate) struct Book {
    /// The day on which it began, UTC, `YYYY-MM-DD`.
    day: String,
    reservations: u32,
    reserved_micro_usd: u64,
    /// The most that calls cost which may have been billed, though no answer said so.
    unanswered_micro_usd: u64,
}

impl Book {
    pub(crate) fn new(day: String) -> Self {
        Self { day, reservations: 0, reserved_micro_usd: 0, unanswered_micro_usd: 0 }
    }
}

impl Worker {
    /// The most that one call for this record can cost; 0 where there will be none.
    pub(crate) fn call_cost_max_micro_usd(&self, item: &Item) -> u64 {
        let task = item.job.as_ref().ok().and_then(|job| self.tasks.find(&job.task));
        task.map_or(0, |task| {
            let prompt_bytes = task.overhead_bytes() + item.message.body.len() + REASK_BYTES_MAX;
            self.deployment.price.worst_case(prompt_bytes, task.output_tokens_max())
        })
    }

    /// Reserves the first call of each record, or of as many as the day has room for; says which must wait, and why.
    pub(crate) async fn reserve_first_calls(
        &self,
        invocation: &Invocation<'_>,
        items: &[Item],
    ) -> Vec<Option<HandBackCause>> {
        let cap_micro_usd = self.deployment.limits.spend_cap_micro_usd;
        // What no day could pay is refused before any call.
        let affordable = |cost: u64| if cost > cap_micro_usd { 0 } else { cost };
        let costs: Vec<u64> =
            items.iter().map(|item| affordable(self.call_cost_max_micro_usd(item))).collect();
        let all = |cause| costs.iter().map(|cost| (*cost > 0).then_some(cause)).collect();
        let mut room_micro_usd = cap_micro_usd;
        for _ in 0..2 {
            let mut sum_micro_usd = 0_u64;
            let waits = costs
                .iter()
                .map(|cost| match sum_micro_usd.saturating_add(*cost) {
                    sum if sum <= room_micro_usd => {
                        sum_micro_usd = sum;
                        None
                    }
                    _ => Some(HandBackCause::SpendCap),
                })
                .collect();
            if sum_micro_usd == 0 {
                return waits;
            }
            match self.reserve(invocation, sum_micro_usd).await {
                Ok(SpendAnswer::Counted) => return waits,
                Ok(SpendAnswer::CapReached { left_micro_usd }) => room_micro_usd = left_micro_usd,
                Err(_) => return all(HandBackCause::Ledger),
            }
        }
        all(HandBackCause::SpendCap)
    }

    /// Reserves one more call for a record whose last one was, or may have been, billed.
    pub(crate) async fn reserve_call(
        &self,
        invocation: &Invocation<'_>,
        item: &Item,
    ) -> Result<(), HandBackCause> {
        match self.reserve(invocation, self.call_cost_max_micro_usd(item)).await {
            Ok(SpendAnswer::Counted) => Ok(()),
            Ok(SpendAnswer::CapReached { .. }) => Err(HandBackCause::SpendCap),
            Err(_) => Err(HandBackCause::Ledger),
        }
    }

    async fn reserve(&self, invocation: &Invocation<'_>, micro_usd: u64) -> Result<SpendAnswer, PortError> {
        let change = invocation.book(|book| {
            book.reservations += 1;
            SpendChange {
                id: format!("{}-{}", invocation.id, book.reservations),
                day: book.day.clone(),
                kind: SpendKind::Reserve {
                    micro_usd,
                    cap_micro_usd: self.deployment.limits.spend_cap_micro_usd,
                },
            }
        });
        let answer = self.ports.ledger.spend(&change).await;
        match &answer {
            Ok(SpendAnswer::Counted) => {
                invocation.book(|book| {
                    book.reserved_micro_usd = book.reserved_micro_usd.saturating_add(micro_usd);
                });
            }
            Ok(SpendAnswer::CapReached { left_micro_usd }) => tracing::warn!(
                request_id = invocation.id,
                day = change.day,
                wanted_micro_usd = micro_usd,
                left_micro_usd,
                "the day's spend cap leaves no room"
            ),
            Err(error) => {
                tracing::warn!(request_id = invocation.id, %error, "the spend record could not be written: handing back");
                invocation.numbers(|n| n.add(NO_TASK, Metric::LedgerErrors, 1.0));
            }
        }
        answer
    }

    /// A call for this record ended without an answer and may have been billed: it counts as its worst case.
    pub(crate) fn may_have_cost(&self, invocation: &Invocation<'_>, item: &Item) {
        let most_micro_usd = self.call_cost_max_micro_usd(item);
        invocation.book(|book| {
            book.unanswered_micro_usd = book.unanswered_micro_usd.saturating_add(most_micro_usd);
        });
    }

    /// On failure the whole reservation stays counted, which errs on the safe side. The numbers of this invocation are on
    /// their way by then, so that the error is counted in the next ones.
    pub(crate) async fn settle_spend(&self, invocation_id: &str, book: Book, answered_micro_usd: u64) {
        if book.reserved_micro_usd == 0 {
            return;
        }
        let change = SpendChange {
            id: invocation_id.to_owned(),
            day: book.day,
            kind: SpendKind::Settle {
                reserved_micro_usd: book.reserved_micro_usd,
                spent_micro_usd: answered_micro_usd.saturating_add(book.unanswered_micro_usd),
            },
        };
        if let Err(error) = self.ports.ledger.spend(&change).await {
            tracing::warn!(request_id = invocation_id, %error, "the spend record could not be settled");
            self.late_ledger_errors.fetch_add(1, Ordering::Relaxed);
        }
    }
}
