//! What it means that a port failed.

use std::error::Error;
use std::fmt;

/// A call to AWS that did not do what it was asked, after the SDK's own attempts.
/// Whether it took effect is unknown: each write is safe to repeat.
#[derive(Debug, Clone, thiserror::Error)]
#[error("{service} did not carry out {operation}: {kind}: {message}")]
pub struct PortError {
    /// `DynamoDB`, `SQS`, `CloudWatch`, `Secrets Manager`, `SSM`.
    pub service: &'static str,
    /// The API operation.
    pub operation: &'static str,
    /// What kind of failure.
    pub kind: PortErrorKind,
    /// The service's code and message; never a body.
    pub message: String,
}

/// Why a port failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PortErrorKind {
    /// Throttled.
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

/// An error and its causes in one line; a cause that the line ends with already is not said twice.
#[must_use]
pub fn chain(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        let said = cause.to_string();
        if !text.ends_with(&said) {
            text.push_str(": ");
            text.push_str(&said);
        }
        source = cause.source();
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, thiserror::Error)]
    enum Failure {
        #[error("{0}")]
        Alone(&'static str),
        #[error("{0}")]
        Because(&'static str, #[source] Box<Failure>),
    }

    #[test]
    fn a_chain_says_each_cause_once() {
        let because = |what, cause| Failure::Because(what, Box::new(cause));
        for (error, line) in [
            (Failure::Alone("a"), "a"),
            (because("a", because("b", Failure::Alone("c"))), "a: b: c"),
            (because("a: b", because("b", Failure::Alone("c"))), "a: b: c"),
        ] {
            assert_eq!(chain(&error), line);
        }
    }
}
