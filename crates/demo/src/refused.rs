//! Why a run ends without a report, as scripts tell it.

use std::fmt::{Display, Formatter};

/// What keeps the demo from working; all else that goes wrong is a failure, 1.
#[derive(Debug, PartialEq, Eq)]
pub enum Refused {
    /// What was asked cannot be meant.
    Usage(String),
    /// A key is missing, or refused.
    NotAllowed(String),
    /// What was named is not there.
    NotFound(String),
    /// Somebody pressed Ctrl-C twice.
    Interrupted(String),
}

impl Refused {
    /// The exit code, as `nightshift` has it.
    pub fn exit_code(&self) -> u8 {
        match self {
            Self::Usage(_) => 2,
            Self::NotAllowed(_) => 4,
            Self::NotFound(_) => 5,
            Self::Interrupted(_) => 130,
        }
    }
}

impl Display for Refused {
    fn fmt(&self, out: &mut Formatter<'_>) -> std::fmt::Result {
        let (Self::Usage(words) | Self::NotAllowed(words) | Self::NotFound(words) | Self::Interrupted(words)) =
            self;
        out.write_str(words)
    }
}

impl std::error::Error for Refused {}
