//! The decisions of Nightshift.
//!
//! **Invariant:** nothing here knows a clock, randomness, the network, AWS, an async runtime or the environment;
//! time, deadline and jitter are arguments.

pub mod blame;
pub mod control;
pub mod conversation;
pub mod copied_example;
pub mod cost;
pub mod dead_letter;
pub mod doctor;
pub mod erase;
pub mod failure;
pub mod heard;
pub mod input_hash;
pub mod job;
pub mod json;
pub mod kept;
pub mod limits;
pub mod listing;
pub mod load_test;
pub mod message;
pub mod metric;
pub mod model;
pub mod next_step;
pub mod output_validation;
pub mod pace;
pub mod port_error;
pub mod ready;
pub mod reconcile;
pub mod record;
pub mod redrive;
pub mod retry;
pub mod review;
pub mod sentinel;
pub mod spend;
pub mod split_mix;
pub mod spread;
pub mod task;
pub mod text;
pub mod thinking;
pub mod trial;
