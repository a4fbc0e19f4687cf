//! Seeded randomness, one stream per actor: taking one kind of fault away leaves the draws of all other actors alone,
//! which is what makes a failure shrink.

/// SplitMix64 ("Fast splittable pseudorandom number generators", Steele, Lea, Flood): small, and the same everywhere.
#[derive(Debug, Clone)]
pub struct Rng(u64);

impl Rng {
    /// The stream of one actor of one run.
    #[must_use]
    pub fn new(seed: u64, actor: &str, index: u64) -> Self {
        let mut state = Self(seed ^ 0x6e69_6768_7473_6869);
        for byte in actor.bytes() {
            state.0 = state.bits() ^ u64::from(byte);
        }
        state.0 = state.bits() ^ index;
        state.0 = state.bits();
        state
    }

    /// 64 uniform bits.
    pub fn bits(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// Uniform in `[0, 1)`.
    pub fn fraction(&mut self) -> f64 {
        (self.bits() >> 11) as f64 / (1_u64 << 53) as f64
    }

    /// True with this probability. A probability of 0 draws too, so that switching a fault off moves nothing else.
    pub fn chance(&mut self, probability: f64) -> bool {
        self.fraction() < probability
    }

    /// Uniform in `low..=high`.
    pub fn range(&mut self, low: u64, high: u64) -> u64 {
        low + self.bits() % (high.saturating_sub(low) + 1)
    }

    /// One of them.
    pub fn pick<T: Copy>(&mut self, of: &[T]) -> T {
        of[self.range(0, of.len() as u64 - 1) as usize]
    }
}
