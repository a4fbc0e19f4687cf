//! What every function and the command share: the environment in groups, the AWS clients' configuration, the model's
//! adapter, the log, and the loop that serves Lambda.
//!
//! A function says in its `config` which groups of settings it needs, builds in its `main` what those settings name,
//! and answers in its `handler`.
//!
//! **Invariant:** the shell decides nothing about a job, and a function starts with nothing that it does not need: each
//! group is read, and each client made, only where a function asks for it.

pub mod clients;
pub mod model;
pub mod runtime;
pub mod settings;
mod telemetry;
