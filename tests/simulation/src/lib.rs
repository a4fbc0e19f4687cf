//! The real worker over in-memory ports on virtual time, with the promises of the design as the oracle.
//!
//! Read `plan` for what can go wrong, `queue`, `fleet` and `ports` for the world in which it does, `people` for who acts
//! on it, `redriver` and `sentinel` for what else runs, and `oracle` for what must hold all the same. Everything comes from one seed.

// A simulation that meets the impossible must stop at once, and its indices are its own.
#![allow(
    clippy::indexing_slicing,
    clippy::panic,
    clippy::expect_used,
    clippy::unreachable,
    clippy::unwrap_used
)]
#![allow(missing_docs)]

/// A line on standard output; a reader that has seen enough (`| head`) is no failure.
#[macro_export]
macro_rules! println {
    ($($said:tt)*) => {{
        use std::io::Write as _;
        let _ = writeln!(std::io::stdout(), $($said)*);
    }};
}

pub mod environments;
pub mod eraser;
pub mod fleet;
pub mod oracle;
pub mod people;
pub mod plan;
pub mod ports;
pub mod process;
pub mod queue;
pub mod redriver;
pub mod reviewer;
pub mod rng;
pub mod run;
pub mod sentinel;
pub mod shrink;
pub mod situations;
pub mod units;
pub mod work;
pub mod world;
