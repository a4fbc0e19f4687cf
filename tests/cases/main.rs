//! The real cases, folder by folder; each module is named after its folder.
//!
//! Where the folder of cases is absent, each test says so and returns: see `nightshift_tests::cases`.

// A test says what must hold by panicking; clippy's allowances for tests reach only `#[test]` functions themselves.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::string_slice,
    missing_docs
)]

mod canonical_json;
mod customer_text;
mod emails;
mod json_test_suite;
mod model_replies;
mod retry;
mod retry_aws;
mod sqs_events;
