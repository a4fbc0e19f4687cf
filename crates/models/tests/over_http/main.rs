//! The real adapters over real HTTP: documented replies, and everything that a wire can do.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::print_stdout,
    clippy::disallowed_methods,
    missing_docs,
    reason = "helpers of tests, which the lints do not recognise as such outside of test functions"
)]

mod documented_errors;
mod error_kinds;
mod replies;
mod support;
mod wire;
