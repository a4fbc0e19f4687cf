//! Every decision of `next_step` as rows of a table, and what must hold for all of them.
//!
//! Read `support` for the job that all tables start from.

// A test says what must hold by panicking; clippy's allowances for tests reach only `#[test]` functions themselves.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::unreachable,
    missing_docs
)]

mod calls;
mod claim;
mod hand_back;
mod invariants;
mod panic;
mod prices;
mod records;
mod settle;
mod support;
