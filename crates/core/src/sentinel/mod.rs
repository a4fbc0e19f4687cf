//! What no single invocation can see: a snapshot of the stack, and what follows from it.

mod deaths;
mod gauges;
mod pause;
mod snapshot;

pub use deaths::{DeadClaims, WATCH_KEY, Watch};
pub use pause::{Decision, Money, ProbeAsk, Signs, probe_task, probe_works};
pub use snapshot::{BEGUN_MAX, Calls, ENTRIES_MAX, Snapshot, StackLimits, Switch};
