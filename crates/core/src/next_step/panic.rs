//! What follows from a panic of the task's code or of ours.

use crate::failure::{FailureReason, Rejection};
use crate::limits::Limits;
use crate::next_step::failed;
use crate::record::{Expect, Record, RecordWrite, Revision, State};

/// What follows from a panic while the job was worked on: the claim counts it as a crash, and the job is given up when
/// there were too many.
#[must_use]
pub fn after_panic(standing: &Record, now_ms: u64, revision: &Revision, limits: &Limits) -> RecordWrite {
    let record = Record { version: standing.version + 1, ..standing.clone() };
    crashed(RecordWrite { record, expect: Expect::Fence }, now_ms, revision, limits)
}

/// The same for a panic before the claim: what the claim would have written, without the call that it announces.
#[must_use]
pub fn after_panic_unclaimed(
    mut claim: RecordWrite,
    now_ms: u64,
    revision: &Revision,
    limits: &Limits,
) -> RecordWrite {
    claim.record.budget.calls = claim.record.budget.calls.saturating_sub(1);
    crashed(claim, now_ms, revision, limits)
}

fn crashed(mut write: RecordWrite, now_ms: u64, revision: &Revision, limits: &Limits) -> RecordWrite {
    write.record.budget.crashes += 1;
    if write.record.budget.crashes >= limits.crash_limit {
        let rejection = Rejection::new(
            FailureReason::Internal,
            format!(
                "The worker panicked {} times over this job: look for `panicked` in its log.",
                write.record.budget.crashes
            ),
        );
        write.record = failed(write.record, &rejection, now_ms, revision, limits, None, None);
    } else {
        write.record.state = State::Open;
    }
    write
}
