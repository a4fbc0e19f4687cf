//! What no single invocation can see: a snapshot of the stack, and what follows from it.

mod gauges;
mod pause;

pub use gauges::{BEGUN_MAX, ENTRIES_MAX, Snapshot, StackLimits};
pub use pause::{Calls, Dead, Decision, Money, ProbeAsk, Signs, Switch, probe_task, probe_works};
