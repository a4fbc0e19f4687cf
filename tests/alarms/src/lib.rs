//! CloudWatch's alarm evaluation by its documented rules, over the alarms of Terraform's plan. For tests alone.
//!
//! It starts with [`plan`] (which alarms there are), reads [`data`] (what was published), computes metric [`math`],
//! [`decide`]s the state of one alarm from one row of points, combines states by a [`composite`] rule, and [`watch`]es
//! a whole stack minute by minute. What the documentation leaves open is a [`readings::Reading`]: an alarm must behave
//! under all of them.
//!
//! **Invariant:** what is not known is an error, never a guess: an unknown function, statistic or comparison, an alarm
//! that watches no metric.

pub mod composite;
pub mod data;
pub mod decide;
pub mod math;
pub mod plan;
pub mod readings;
pub mod watch;
