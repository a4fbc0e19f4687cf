//! Why a port failed, and what that means to a job.

use std::fmt;

use crate::metric::HandBackCause;

/// Why a port failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PortErrorKind {
    /// AWS asks for less: a throttle, a limit of its own.
    Throttled,
    /// No answer, a 5xx, a broken connection.
    Unavailable,
    /// Not allowed, or no such resource: somebody must change the deployment.
    Misconfigured,
    /// What was read does not parse as one of our records.
    Unreadable,
    /// The service refuses this very request (too large, forbidden characters).
    Refused,
}

impl PortErrorKind {
    /// Whether the request may have done what it was asked, although it failed. This is the error of the last attempt
    /// alone: before a throttle, an earlier attempt may have arrived and lost its reply. What refuses a request for what
    /// it is refused each attempt.
    #[must_use]
    pub fn may_have_taken_effect(self) -> bool {
        match self {
            Self::Unavailable | Self::Throttled => true,
            Self::Misconfigured | Self::Unreadable | Self::Refused => false,
        }
    }

    /// Of the ledger: why the message is handed back.
    #[must_use]
    pub fn of_ledger(self) -> HandBackCause {
        match self {
            Self::Unreadable => HandBackCause::Unreadable,
            Self::Throttled | Self::Unavailable | Self::Misconfigured | Self::Refused => {
                HandBackCause::Ledger
            }
        }
    }
}

impl fmt::Display for PortErrorKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Throttled => "throttled",
            Self::Unavailable => "unavailable",
            Self::Misconfigured => "misconfigured",
            Self::Unreadable => "unreadable",
            Self::Refused => "refused",
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failure_is_told_by_a_word_of_its_own() {
        use PortErrorKind::{Misconfigured, Refused, Throttled, Unavailable, Unreadable};
        let kinds = [Throttled, Unavailable, Misconfigured, Unreadable, Refused];
        for (place, kind) in kinds.iter().enumerate() {
            let word = kind.to_string();
            assert!(!word.is_empty(), "{kind:?}");
            assert!(kinds[..place].iter().all(|other| other.to_string() != word), "{kind:?}");
        }
    }
}
