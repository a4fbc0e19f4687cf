//! What it means that a port failed.

use std::error::Error;

use nightshift_core::port_error::PortErrorKind;

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
