//! The loop over ports: one invocation, one record, and how fast.
//!
//! From the top: `probe` (no record, one call), `batch` (the records of one invocation, in which order) → `record` (one of them, from its message to
//! its settlement) → `claim`, `calls`, `panic` → `settle` → `job` (who works on what, its writes and its log) →
//! `invocation` (what all records of one invocation share) and `message` → `worker` (what lives as long as the
//! environment) → `flow`, `paid_call`, `book`. No file knows one to its left.

mod batch;
mod book;
mod calls;
mod claim;
pub mod flow;
mod invocation;
mod job;
mod message;
pub mod paid_call;
mod panic;
mod probe;
mod record;
mod settle;
mod spend;
mod worker;

pub use batch::BatchReport;
pub use message::Message;
pub use worker::{Deployment, Ports, Worker};
