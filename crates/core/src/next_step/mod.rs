//! What to do next with a job: at its claim, before and after each model call, after a panic, and when its message is
//! handed back.
//!
//! The worker performs these answers and adds none of its own.

mod calls;
mod claim;
mod hand_back;
mod panic;
mod settle;
mod why;

pub use calls::{AfterCall, BeforeCall, JobRun, TimeLeft, Work};
pub use claim::{ClaimAsk, ClaimStep};
pub use hand_back::{HandBack, RECEIVES_KEPT, hand_back};
pub use panic::{AfterPanic, PanicStep, Panicked};
pub use settle::{Settlement, admits_work, after_own_part, after_own_write};
pub use why::UNSURE_WHOSE_FAULT;

use crate::dead_letter::DETAIL_CHARS_MAX;
use crate::failure::Rejection;
use crate::limits::Limits;
use crate::record::{Failed, Record, Revision, State};
use crate::text::cut;

/// The record of a job that cannot succeed.
fn failed(
    mut record: Record,
    rejection: &Rejection,
    now_ms: u64,
    revision: &Revision,
    limits: &Limits,
    request_id: Option<String>,
    excerpt: Option<String>,
) -> Record {
    record.state = State::Failed(Box::new(Failed {
        reason: rejection.reason,
        detail: cut(&rejection.detail, DETAIL_CHARS_MAX),
        failed_at_ms: now_ms,
        request_id,
        excerpt,
        revision: revision.clone(),
    }));
    // Later only where a result of before stands on it.
    record.expires_at_ms = record.expires_at_ms.max(now_ms + limits.failure_expiry_ms);
    record
}
