//! The only way to the model, and what a call takes with it: the money that was reserved for it.
//!
//! **Invariant:** a call consumes a reservation. One that was refused gives it back; one that was answered gives back
//! what it did not cost; of one that may have been billed, that panicked or that was cut off, nothing comes back.
//!
//! ```compile_fail,E0382
//! # use nightshift_core::model::ModelRequest;
//! # use nightshift_worker::paid_call::{PaidModel, Reservation};
//! async fn twice(model: &PaidModel, reservation: Reservation<'_>, request: &ModelRequest) {
//!     let _ = model.call(reservation, request).await;
//!     let _ = model.call(reservation, request).await;
//! }
//! ```
//!
//! What compiles:
//!
//! ```
//! # use nightshift_core::model::ModelRequest;
//! # use nightshift_worker::paid_call::{PaidModel, Reservation};
//! async fn again(model: &PaidModel, reservation: Reservation<'_>, request: &ModelRequest) {
//!     let first = model.call(reservation, request).await;
//!     if let Some(unused) = first.unused {
//!         let _ = model.call(unused, request).await;
//!     }
//! }
//! ```

use std::sync::{Arc, Mutex, PoisonError};

use nightshift_core::model::{ModelFailure, ModelReply, ModelRequest};
use nightshift_core::spend::{CallPrice, Counted};

use crate::book::Book;
use nightshift_ports::Model;

/// The most that one call can cost, reserved in the day's record. Dropped, it is given back.
#[derive(Debug)]
#[must_use = "what is reserved is for a call"]
pub struct Reservation<'a> {
    book: &'a Mutex<Book>,
    price: CallPrice,
    /// The request is on its way, and nobody knows yet what it costs.
    is_sent: bool,
}

impl<'a> Reservation<'a> {
    /// For the book alone, which counts it.
    pub(crate) fn of_book(book: &'a Mutex<Book>, price: CallPrice) -> Self {
        Self { book, price, is_sent: false }
    }

    /// What it holds, in millionths of a dollar.
    pub(crate) fn micro_usd(&self) -> u64 {
        self.price.most_micro_usd()
    }

    fn count_instead(&self, micro_usd: u64) {
        let mut book = self.book.lock().unwrap_or_else(PoisonError::into_inner);
        book.count_instead(self.micro_usd(), micro_usd);
    }
}

impl Drop for Reservation<'_> {
    fn drop(&mut self) {
        if !self.is_sent {
            self.count_instead(0);
        }
    }
}

/// A model that is called for a reservation.
#[derive(Clone)]
pub struct PaidModel(Arc<dyn Model>);

/// How a call ended.
#[derive(Debug)]
pub struct Called<'a> {
    /// The answer and what it counts as, or why there is none.
    pub result: Result<(ModelReply, Counted), ModelFailure>,
    /// The reservation of a call that was refused: nobody is billed for it.
    pub unused: Option<Reservation<'a>>,
}

impl PaidModel {
    /// The model behind a port.
    #[must_use]
    pub fn new(model: Arc<dyn Model>) -> Self {
        Self(model)
    }

    /// Makes one call. Dropped while it is open, it counts as what was reserved for it.
    pub async fn call<'a>(&self, mut reservation: Reservation<'a>, request: &ModelRequest) -> Called<'a> {
        reservation.is_sent = true;
        match self.0.call(request).await {
            Ok(reply) => {
                let counted = reservation.price.count(&reply);
                reservation.count_instead(counted.micro_usd);
                Called { result: Ok((reply, counted)), unused: None }
            }
            Err(failure) if failure.may_be_billed() => Called { result: Err(failure), unused: None },
            Err(failure) => {
                reservation.is_sent = false;
                Called { result: Err(failure), unused: Some(reservation) }
            }
        }
    }
}
