//! Putting dead letters back: which ones, how fast, and when to stop.
//!
//! A redrive is a record ([`Redrive`]) that lives in the ledger. Whoever drives it (a command, the sentinel, a person)
//! takes its lock, asks [`Redrive::next`] what to do, does it, and writes the record back; everything that matters after
//! a kill stands there.
//!
//! **Invariant:** a message is sent before it is deleted, so that it is in at least one queue whatever is killed. It may
//! then be in both; the version of the failed record that it carries makes the second copy harmless, and for one from
//! `crashed`, which carries none, what its record came to since the redrive began.
//! **Invariant:** what is sent is what was received: body, attributes and `MessageGroupId`.

mod ask;
mod canary;
mod choose;
mod directory;
mod record;
mod report;
mod request;
mod reset;
mod scan;

pub use ask::{Answer, Ask, DENIED, Entry, Stepped};
pub use canary::{CanaryOutcome, CanaryRun, CanarySent, Verdict};
pub use choose::{Choice, Letter};
pub use directory::{DIRECTORY_KEY, DIRECTORY_MAX, Directory, KEY_PREFIX, Listed};
pub use record::{Depth, End, Ended, Event, Left, Lock, Progress, Redrive, Scan, Stop, Unreadable};
pub use report::{Count, Deployed, JobCost, Report, Resumed, Tally};
pub use request::{Canary, Request, Source};
pub use reset::{BeforeSending, Received};
pub use scan::{Finish, Next, PAGE_MAX};

/// How long one received page is hidden while it is decided on: longer than a page takes, AWS's timeouts included, and so
/// short that what a killed step had received is soon back.
pub const HOLD_S: u32 = 120;
/// How long one step works at most before it returns; well under a minute, so that a schedule of one a minute never
/// meets itself.
pub const STEP_MS_MAX: u64 = 30_000;
/// How long a lock holds after the last sign of life of its step.
pub const LEASE_MS: u64 = 120_000;
/// How long one empty receive waits.
pub const POLL_S: u32 = 3;
/// How long the record of a redrive is kept after it began: as long as results by default, for whoever asks who did it.
pub const KEPT_MS: u64 = 90 * 24 * 60 * 60 * 1_000;
