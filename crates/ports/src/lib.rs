//! What the world must offer, a file per port. Each port has one adapter on AWS and one in the simulation.
//!
//! **Invariant:** a port performs and reports; it takes no decision and retries nothing that its documentation does not name.

mod control;
mod dead_letters;
mod documents;
mod erase;
mod error;
mod ledger;
mod ledger_reader;
mod ledger_watch;
mod metrics;
mod model;
mod queues;
mod records;
mod redrive_steps;
mod system;
mod visibility;
mod worker_function;

pub use control::{ControlAnswer, ControlRecord};
pub use dead_letters::DeadLetters;
pub use documents::{Document, DocumentAnswer, Documents};
pub use erase::{Tombstones, erase};
pub use error::{PortError, chain};
pub use ledger::Ledger;
pub use ledger_reader::LedgerReader;
pub use ledger_watch::LedgerWatch;
pub use metrics::Metrics;
pub use model::{Model, ModelKey};
pub use nightshift_core::port_error::PortErrorKind;
pub use nightshift_core::record::WriteAnswer;
pub use queues::{JobsQueue, Letter, QueueDepth, Waiting, WaitingQueue};
pub use records::{FailedPage, FailedRecords, SingleRecords};
pub use redrive_steps::RedriveSteps;
pub use system::{Clock, Entropy};
pub use visibility::Visibility;
pub use worker_function::{LiveVersion, WorkerFunction};
