//! What no single invocation can see: a snapshot of the stack, and what follows from it.

mod gauges;

pub use gauges::{BEGUN_MAX, ENTRIES_MAX, Snapshot, StackLimits};
