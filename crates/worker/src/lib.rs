//! The loop over ports: one job, one batch, and how fast.

pub mod ports;
