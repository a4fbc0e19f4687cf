//! Seeded randomness, one stream per actor: taking one kind of fault away leaves the draws of all other actors alone,
//! which is what makes a failure shrink.

use nightshift_core::split_mix::SplitMix64;

/// The draws of one actor.
#[derive(Debug, Clone)]
pub struct Rng(SplitMix64);

impl Rng {
    /// The stream of one actor of one run.
    #[must_use]
    pub fn new(seed: u64, actor: &str, index: u64) -> Self {
        let mut state = seed ^ 0x6e69_6768_7473_6869;
        for byte in actor.bytes() {
            state = SplitMix64::new(state).bits() ^ u64::from(byte);
        }
        state = SplitMix64::new(state).bits() ^ index;
        Self(SplitMix64::new(SplitMix64::new(state).bits()))
    }

    /// 64 uniform bits.
    pub fn bits(&mut self) -> u64 {
        self.0.bits()
    }

    /// Uniform in `[0, 1)`.
    pub fn fraction(&mut self) -> f64 {
        self.0.fraction()
    }

    /// True with this probability. A probability of 0 draws too, so that switching a fault off moves nothing else.
    pub fn chance(&mut self, probability: f64) -> bool {
        self.fraction() < probability
    }

    /// Uniform in `low..=high`.
    pub fn range(&mut self, low: u64, high: u64) -> u64 {
        low + self.bits() % (high.saturating_sub(low) + 1)
    }

    pub fn pick<T: Copy>(&mut self, of: &[T]) -> T {
        of[self.range(0, of.len() as u64 - 1) as usize]
    }
}
