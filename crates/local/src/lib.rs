//! What the demo and the fast tests ask of AWS and of a model, on one machine. Never deployed.
//!
//! **The scope is frozen.** It speaks what these ask and refuses the rest by name: standard queues, single items
//! with the expressions of the ledger, `PutMetricData`, Lambda's SQS poller and Runtime API, Anthropic's
//! Messages API. It is no second AWS: whatever else a test wants is asked of the servers that others wrote (MiniStack,
//! DynamoDB Local, ElasticMQ), where `tests/contracts` runs the same adapters.
//!
//! Three servers, each on 127.0.0.1 and a port of the system's choice, that speak the real protocols, so that the real
//! function binary with the real SDK clients runs against them unchanged:
//!
//! - [`aws`]: SQS, DynamoDB and CloudWatch's `PutMetricData` behind one endpoint URL;
//! - [`lambda`]: Lambda's SQS poller and its Runtime API, with one process per environment;
//! - [`model_stub`]: Anthropic's Messages API, with faults that a seed decides.
//!
//! **Invariant:** this crate knows protocols and nothing of Nightshift's own: no job, task or ledger record.
//! What it answers can therefore never be bent to what the worker happens to expect.

pub mod aws;
mod clock;
mod http;
pub mod lambda;
pub mod model_stub;
