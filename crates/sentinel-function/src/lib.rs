//! The sentinel's Lambda shell.

pub mod config;
pub mod handler;
