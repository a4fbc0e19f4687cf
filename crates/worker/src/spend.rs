//! The day's spend: what a call can cost at most is reserved before it is made; at the end of the invocation what was
//! spent takes the place of what was reserved.
//!
//! **Invariant:** no call is made without a reservation (see `paid_call`), and what nobody settled stays reserved: as
//! long as a call costs at most its reservation, what is billed to a day never exceeds its cap. What a provider bills
//! beyond a reservation is counted all the same, and leaves less room for the next one. A day is the UTC day on which
//! the invocation began.

use std::sync::atomic::Ordering;

use nightshift_core::metric::{HandBackCause, Metric, NO_TASK};
use nightshift_core::ready::call_price;
use nightshift_core::spend::{CallPrice, Fit, SpendAnswer, SpendChange, SpendKey, SpendKind, UtcDay};
use nightshift_core::spread::{FullDay, Reserved, settled_at};
use nightshift_core::task::Task;

use crate::book::Book;
use crate::invocation::Invocation;
use crate::message::Item;
use crate::paid_call::Reservation;
use crate::worker::{Deployment, Worker};
use nightshift_ports::PortError;

/// What is reserved for the first call of a record.
pub(crate) enum FirstCall<'a> {
    /// The call; `None` where there will be none.
    Reserved(Option<Reservation<'a>>),
    /// It must wait.
    HandBack(HandBackCause),
}

impl Worker {
    /// What one call for this record may take and cost.
    pub(crate) fn call_price(&self, item: &Item, task: &dyn Task) -> CallPrice {
        call_price(task, item.message.body.len(), self.deployment.price)
    }

    /// On failure the whole reservation stays counted, which errs on the safe side. The numbers of this invocation are on
    /// their way by then, so that the error is counted in the next ones.
    pub(crate) async fn settle_spend(&self, invocation_id: &str, book: Book) {
        // A model that costs nothing reserves nothing; that it was called is told all the same.
        if book.reserved_micro_usd == 0 && book.counted_micro_usd == 0 && book.called_at_ms.is_none() {
            return;
        }
        let (reserved_micro_usd, spent_micro_usd) = (book.reserved_micro_usd, book.counted_micro_usd);
        let change = SpendChange {
            day: book.day,
            key: settled_at(book.taken_from, reserved_micro_usd, spent_micro_usd),
            kind: SpendKind::Settle {
                reserved_micro_usd,
                spent_micro_usd,
                answered_at_ms: book.answered_at_ms,
                called_at_ms: book.called_at_ms,
            },
            at_ms: self.ports.clock.now_ms(),
        };
        if let Err(error) = self.ports.ledger.spend(&change).await {
            tracing::warn!(request_id = invocation_id, %error, "the spend record could not be settled");
            self.late_ledger_errors.fetch_add(1, Ordering::Relaxed);
        }
    }
}

impl Invocation<'_> {
    /// Reserves the first call of each record, or of as many as the day has room for, as one sum.
    pub(crate) async fn reserve_first_calls<'a>(
        &'a self,
        items: impl Iterator<Item = &Item>,
    ) -> Vec<FirstCall<'a>> {
        let cap_micro_usd = self.worker.deployment.limits.spend_cap_micro_usd;
        let price = |item: &Item| {
            let task = self.worker.tasks.find(&item.job.as_ref().ok()?.task)?;
            // What no day could pay is refused before any call.
            Some(self.worker.call_price(item, task)).filter(|price| price.most_micro_usd() <= cap_micro_usd)
        };
        let prices: Vec<Option<CallPrice>> = items.map(price).collect();
        let first_calls = |fit: &Fit, otherwise: HandBackCause| {
            let first_call = |(price, fits): (&Option<CallPrice>, &bool)| match price {
                None => FirstCall::Reserved(None),
                Some(price) if *fits => FirstCall::Reserved(Some(self.reservation(*price))),
                Some(_) => FirstCall::HandBack(otherwise),
            };
            prices.iter().zip(&fit.fits).map(first_call).collect()
        };
        let mut room_micro_usd = cap_micro_usd;
        for _ in 0..2 {
            let fit = Fit::into(room_micro_usd, &prices);
            match self.reserve(fit.sum_micro_usd).await {
                Ok(Reserved::From(_)) => return first_calls(&fit, HandBackCause::SpendCap),
                Ok(Reserved::NoRoom { left_micro_usd }) => {
                    let cheapest = prices.iter().flatten().map(|price| price.most_micro_usd()).min();
                    if let Some(cheapest) = cheapest.filter(|cheapest| *cheapest > left_micro_usd) {
                        self.refused_by_cap(cheapest).await;
                    }
                    room_micro_usd = left_micro_usd;
                }
                Err(_) => return first_calls(&Fit::none(&prices), HandBackCause::Ledger),
            }
        }
        first_calls(&Fit::none(&prices), HandBackCause::SpendCap)
    }

    /// Reserves one more call for a record, whose last one was, or may have been, billed.
    ///
    /// # Errors
    /// The cause with which the record is handed back.
    pub(crate) async fn reserve_call(&self, price: CallPrice) -> Result<Reservation<'_>, HandBackCause> {
        let micro_usd = price.most_micro_usd();
        if self.book(|book| book.take_left(micro_usd)) {
            return Ok(self.reservation(price));
        }
        match self.reserve(micro_usd).await {
            Ok(Reserved::From(_)) => Ok(self.reservation(price)),
            Ok(Reserved::NoRoom { .. }) => {
                self.refused_by_cap(micro_usd).await;
                Err(HandBackCause::SpendCap)
            }
            Err(_) => Err(HandBackCause::Ledger),
        }
    }

    async fn refused_by_cap(&self, micro_usd: u64) {
        let now_ms = self.worker.ports.clock.now_ms();
        self.worker.heard(|heard| heard.refused_by_cap(micro_usd, now_ms));
        self.tell_calls().await;
    }

    async fn reserve(&self, micro_usd: u64) -> Result<Reserved, PortError> {
        if micro_usd == 0 {
            return Ok(Reserved::From(SpendKey::Day));
        }
        let day = self.book(|book| book.day);
        let answer = self.take(day, micro_usd).await;
        match &answer {
            Ok(Reserved::From(key)) => self.book(|book| book.take(micro_usd, *key)),
            Ok(Reserved::NoRoom { left_micro_usd }) => tracing::warn!(
                request_id = self.id,
                %day,
                wanted_micro_usd = micro_usd,
                left_micro_usd,
                "the day's spend cap leaves no room"
            ),
            Err(error) => {
                tracing::warn!(request_id = self.id, %error, "the spend record could not be written: handing back");
                self.numbers(|n| n.add(NO_TASK, Metric::LedgerErrors, 1.0));
            }
        }
        answer
    }

    async fn take(&self, day: UtcDay, micro_usd: u64) -> Result<Reserved, PortError> {
        let Deployment { spread, limits, .. } = &self.worker.deployment;
        let now_ms = || self.worker.ports.clock.now_ms();
        if let Some(full) = self.worker.full_day().filter(|full| full.holds(day, micro_usd, now_ms())) {
            return Ok(Reserved::NoRoom { left_micro_usd: full.left_micro_usd });
        }
        let within_cap = self.worker.is_within_cap(day, now_ms());
        let mut reserving = spread.reserve(self.id, micro_usd, limits.spend_cap_micro_usd, within_cap);
        let ended = loop {
            let (key, kind) = match reserving.next() {
                Ok(next) => next,
                Err(ended) => break ended,
            };
            let answer = match self
                .worker
                .ports
                .ledger
                .spend(&SpendChange { day, key, kind, at_ms: now_ms() })
                .await
            {
                // The day has paid; what its shard does not get stays counted.
                Err(error) if kind.gives() => {
                    tracing::warn!(request_id = self.id, %error, "a shard of the day's spend was not funded");
                    self.numbers(|n| n.add(NO_TASK, Metric::LedgerErrors, 1.0));
                    SpendAnswer::Counted
                }
                answer => answer?,
            };
            reserving.answered(answer);
        };
        if let Some(is_within) = reserving.is_within_cap() {
            self.worker.heard_of_the_cap(day, is_within, now_ms());
        }
        if let Reserved::NoRoom { left_micro_usd } = ended
            && spread.has_shards()
        {
            self.worker.found_full(FullDay { day, left_micro_usd, at_ms: now_ms() });
        }
        Ok(ended)
    }
}
