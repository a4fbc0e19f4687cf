//! What holds all workers back.

/// What the operator, or the sentinel, tells all workers.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Control {
    /// Set: hand every record back without a call.
    pub paused: Option<Pause>,
}

/// Why nothing is being worked on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pause {
    /// What whoever paused it says about it, for people.
    pub reason: String,
    /// When it was paused, by the clock of whoever did.
    pub since_ms: u64,
}
