//! The command as its users meet it: the binary, its output and its exit codes, over stand-ins for AWS.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::string_slice,
    missing_docs
)] // a test

mod bulk;
mod doctor;
mod enqueue;
mod erasing;
mod every_command;
mod failures;
mod hostile;
mod key;
mod load_test;
mod pause;
mod reading;
mod redrive;
mod reviewing;
mod status;
mod support;
mod task;
mod terminal;
