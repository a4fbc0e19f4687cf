//! The redrive's Lambda shell.

pub mod config;
pub mod handler;
