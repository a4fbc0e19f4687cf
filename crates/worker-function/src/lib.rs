//! The worker's Lambda shell: settings, the event's translation, the handler.
//!
//! **Invariant:** the shell decides nothing about a job. It reads the environment once, turns an SQS event into
//! messages, hands them to the worker, and turns the worker's report into a partial batch response.

pub mod event;
pub mod handler;
pub mod settings;
pub mod telemetry;
