//! What the test suites of peers expect of any worker like this one, restated for ours: given, when, then.
//!
//! Each test carries the name of its scenario: B, F and C are about batches, I about idempotency, L about model calls.
//! Where a scenario cannot be meant for a standard queue (F1 to F3), its test says what holds instead.
//! The worker is the real one; the world around it is `nightshift_tests::memory`, and for L the real adapters over HTTP.
//! `blame`, about whose fault a refusal is, and `erasing` have no names of that kind.
//! `over_aws` repeats those that protocols could change over the real AWS adapters.

// A test says what must hold by panicking; clippy's allowances for tests reach only `#[test]` functions themselves.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::string_slice,
    missing_docs
)]

mod batch;
mod blame;
mod erasing;
mod idempotency;
mod model_call;
mod numbers;
mod over_aws;
mod panics;
mod pause;
mod redrives;
mod reviews;
mod stage;
