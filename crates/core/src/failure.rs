//! Why a job cannot succeed: one word each, the same in dead letters, metrics, alarms and runbook pages.

use std::fmt;

/// The reason of a dead letter. Each names one stage.
#[derive(
    Debug,
    Clone,
    Copy,
    PartialEq,
    Eq,
    Hash,
    PartialOrd,
    Ord,
    serde::Serialize,
    serde::Deserialize,
    strum::VariantArray,
    strum::IntoStaticStr,
)]
#[serde(rename_all = "snake_case")]
#[strum(serialize_all = "snake_case")]
pub enum FailureReason {
    /// The body is not a job.
    InvalidMessage,
    /// No such task is deployed.
    UnknownTask,
    /// The input fails its type or its rules.
    InvalidInput,
    /// The provider says that this request can never work.
    RequestRejected,
    /// The provider or the model declined.
    Refused,
    /// The answer did not fit into the token limit.
    Truncated,
    /// The answers failed validation until the budget was spent.
    InvalidOutput,
    /// The paid calls of the job are spent.
    AttemptsExhausted,
    /// No capacity within the time that a job may wait.
    CapacityTimeout,
    /// The output does not fit into the ledger.
    ResultTooLarge,
    /// Workers died of this job.
    Poison,
    /// Our own fault: a bug or a broken record.
    Internal,
    /// A person rejected the result.
    ReviewRejected,
}

impl FailureReason {
    /// All of them, in the order of the path of a job.
    pub const ALL: &'static [Self] = <Self as strum::VariantArray>::VARIANTS;

    /// The word.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        self.into()
    }

    /// The stage that it names.
    #[must_use]
    pub fn stage(self) -> Stage {
        match self {
            Self::InvalidMessage | Self::UnknownTask | Self::InvalidInput => Stage::Parse,
            Self::RequestRejected | Self::AttemptsExhausted | Self::CapacityTimeout => Stage::Call,
            Self::Refused | Self::Truncated | Self::InvalidOutput => Stage::Validate,
            Self::ResultTooLarge => Stage::Store,
            Self::Poison | Self::Internal => Stage::Work,
            Self::ReviewRejected => Stage::Review,
        }
    }
}

impl fmt::Display for FailureReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// Where on the path of a job something ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Stage {
    /// Reading the message.
    Parse,
    /// Calling the model.
    Call,
    /// Checking what it answered.
    Validate,
    /// Writing the result.
    Store,
    /// The worker itself.
    Work,
    /// A person's decision on a result.
    Review,
}

/// A job refused before any work: the reason and a detail for its sender.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{reason}: {detail}")]
pub struct Rejection {
    /// The word.
    pub reason: FailureReason,
    /// Full sentences that say what to change.
    pub detail: String,
}

impl Rejection {
    /// A rejection.
    #[must_use]
    pub fn new(reason: FailureReason, detail: impl Into<String>) -> Self {
        Self { reason, detail: detail.into() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reason_is_the_same_word_in_metrics_and_in_json() {
        for reason in FailureReason::ALL {
            assert_eq!(serde_json::to_value(reason).unwrap(), reason.as_str());
        }
    }
}
