//! How long a message that is not settled stays away.

use crate::failure::{FailureReason, Rejection};
use crate::limits::{Limits, VISIBILITY_MS_MAX};
use crate::message::Delivery;
use crate::metric::HandBackCause;
use crate::retry::{equal_jitter_ms, full_jitter_ms};

/// Receives that are kept for a message's last chance: so many workers in a row must be prevented from sending its dead
/// letter before SQS moves it to `crashed`.
pub const RECEIVES_KEPT: u32 = 3;

/// What to do with a message that is not settled in this invocation.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum HandBack {
    /// Make it visible again after this time.
    Return {
        /// 0 to 43,200.
        delay_s: u32,
    },
    /// SQS would soon delete it or move it away without a reason: give it a reason while we can.
    GiveUp(Rejection),
}

/// How long a message stays away, or that this is its last chance to be explained.
#[must_use]
pub fn hand_back(
    cause: HandBackCause,
    at_least_ms: u64,
    delivery: &Delivery,
    now_ms: u64,
    fraction: f64,
    limits: &Limits,
) -> HandBack {
    let returns = delivery.receive_count.saturating_sub(1);
    let exponent = match cause {
        // Nothing failed; the message is only early.
        HandBackCause::Deadline | HandBackCause::Suspect | HandBackCause::HeldByOther => 0,
        _ => returns,
    };
    // Many messages meet one floor at one moment; without a spread behind it, they would come back at one moment too.
    let floored_ms = at_least_ms.saturating_add(full_jitter_ms(
        limits.hand_back_base_ms,
        limits.hand_back_ms_max,
        0,
        fraction,
    ));
    let jittered_ms = match cause {
        HandBackCause::HeldByOther => floored_ms,
        _ => {
            let step_ms =
                equal_jitter_ms(limits.hand_back_base_ms, limits.hand_back_ms_max, exponent, fraction);
            if at_least_ms > 0 { step_ms.max(floored_ms) } else { step_ms }
        }
    };
    let gone_at_ms = delivery.sent_at_ms.saturating_add(limits.retention_ms);
    let left_ms = gone_at_ms.saturating_sub(now_ms);
    let receives_left = limits.receive_count_max.saturating_sub(delivery.receive_count);
    // The receives that are left must last for the time that is left.
    let stretched_ms = if is_patient(cause) && delivery.receive_count > limits.receive_count_max / 2 {
        left_ms / u64::from(receives_left.max(1))
    } else {
        0
    };
    let held_ms = now_ms.saturating_sub(delivery.received_at_ms);
    let longest_ms = VISIBILITY_MS_MAX.saturating_sub(held_ms).saturating_sub(60_000);
    let delay_ms = jittered_ms.max(stretched_ms).min(longest_ms);
    // Some receives and two visibility timeouts are kept, in case the dead letter cannot be sent or its worker dies.
    let last_chance = receives_left <= RECEIVES_KEPT
        || left_ms <= delay_ms.saturating_add(limits.visibility_timeout_ms.saturating_mul(2));
    if last_chance {
        return HandBack::GiveUp(given_up(cause, delivery, now_ms));
    }
    HandBack::Return { delay_s: u32::try_from(delay_ms.div_ceil(1_000)).unwrap_or(u32::MAX) }
}

/// Whether nobody's job is at fault, so that it may take days.
fn is_patient(cause: HandBackCause) -> bool {
    match cause {
        HandBackCause::Account
        | HandBackCause::Paused
        | HandBackCause::Outage
        | HandBackCause::SpendCap
        | HandBackCause::Unreadable => true,
        HandBackCause::Capacity
        | HandBackCause::CallFailed
        | HandBackCause::HeldByOther
        | HandBackCause::Deadline
        | HandBackCause::Suspect
        | HandBackCause::Ledger
        | HandBackCause::DeadLetterUnsent
        | HandBackCause::LostClaim
        | HandBackCause::Panic => false,
    }
}

/// What the dead letter says of a message that SQS would soon delete or move.
fn given_up(cause: HandBackCause, delivery: &Delivery, now_ms: u64) -> Rejection {
    let reason = match cause {
        HandBackCause::Capacity
        | HandBackCause::Account
        | HandBackCause::Paused
        | HandBackCause::Outage
        | HandBackCause::SpendCap => FailureReason::CapacityTimeout,
        HandBackCause::CallFailed => FailureReason::AttemptsExhausted,
        HandBackCause::HeldByOther
        | HandBackCause::Deadline
        | HandBackCause::Suspect
        | HandBackCause::Ledger
        | HandBackCause::Unreadable
        | HandBackCause::DeadLetterUnsent
        | HandBackCause::LostClaim
        | HandBackCause::Panic => FailureReason::Internal,
    };
    Rejection::new(
        reason,
        format!(
            "SQS would soon delete or move the message without a reason, after {} receives and {} hours of hand-backs; last cause: {}. {}",
            delivery.receive_count,
            now_ms.saturating_sub(delivery.sent_at_ms) / 3_600_000,
            cause.as_str(),
            match cause {
                HandBackCause::Unreadable =>
                    "The ledger's record of this input is as it was, in words of a newer release: deploy that one, then send the job again.",
                _ => "When that is over, send the job again.",
            }
        ),
    )
}
