//! The clock and the randomness of this process.

/// The wall clock, as this worker sees it; may be wrong by a little.
pub trait Clock: Send + Sync {
    /// Milliseconds since 1970, UTC.
    fn now_ms(&self) -> u64;
}

/// Randomness: jitter and claim tokens.
pub trait Entropy: Send + Sync {
    /// Uniform in `[0, 1)`.
    fn fraction(&self) -> f64;
    /// 128 random bits as 32 hex characters.
    fn token(&self) -> String;
}
