//! Alarms that were seen to fire: faults and healthy days, over the plan's own alarms.
//!
//! Read `drills` for what goes wrong and what must be seen of it, `world`, `queue` and `function` for where it happens, `run` for one
//! drill, and `check` for what is demanded of it.

// As in the simulation: what cannot be must stop at once.
#![allow(clippy::indexing_slicing, clippy::panic, clippy::expect_used, clippy::unwrap_used)]
#![allow(missing_docs)]

pub mod dashboard;
pub mod defects;
pub mod drills;
pub mod queue;
pub mod report;
pub mod run;
pub mod world;
