//! What no single invocation can see: a snapshot of the stack, and what follows from it.

mod deaths;
mod gauges;
mod pause;

pub use deaths::{DeadClaims, WATCH_KEY, Watch};
pub use gauges::{BEGUN_MAX, ENTRIES_MAX, Snapshot, StackLimits};
pub use pause::{Calls, Decision, Money, ProbeAsk, Signs, Switch, probe_task, probe_works};
