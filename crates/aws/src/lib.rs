//! The ports on AWS: an adapter per port, no decisions.
//!
//! **Invariant:** what a write means, whether it took effect and what follows from an answer is decided in the core
//! and the worker; an adapter builds one request, sends it, and translates what comes back.

pub mod clients;
pub mod dead_letters;
mod error;
pub mod functions;
pub mod ledger;
pub mod metrics;
pub mod queues;
pub mod secrets;
pub mod system;
pub mod visibility;

pub use dead_letters::SqsDeadLetters;
pub use functions::{LiveWorker, RedriveFunction, WorkerAlias};
pub use ledger::DynamoLedger;
pub use metrics::CloudWatchMetrics;
pub use queues::SqsQueue;
pub use secrets::StoredModelKey;
pub use system::{OsEntropy, SystemClock};
pub use visibility::SqsVisibility;
