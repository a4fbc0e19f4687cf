//! The worker's Lambda shell: what it needs, the event's translation, the handler.
//!
//! **Invariant:** the function decides nothing about a job. It turns an SQS event into messages, hands them to the
//! worker, and turns the worker's report into a partial batch response.

pub mod config;
pub mod event;
pub mod handler;
