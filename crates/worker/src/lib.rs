//! The loop over ports: one job, one batch, and how fast.
//!
//! Read `process_job` for the path of one job, `process_batch` for what the records of an invocation share.

pub mod flow_control;
pub mod paid_call;
mod process_batch;
mod process_job;
mod spend;

pub use process_batch::{BatchReport, Deployment, Message, Ports, Worker};
