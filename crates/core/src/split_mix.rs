//! Numbers that follow from a seed: for what must look random and be the same each time.

/// SplitMix64 (Steele, Lea and Flood, "Fast Splittable Pseudorandom Number Generators"): small, and the same everywhere.
/// Nothing for secrets: who sees a few numbers knows all that follow.
#[derive(Debug, Clone)]
pub struct SplitMix64(u64);

impl SplitMix64 {
    /// What the state grows by with each number.
    const STEP: u64 = 0x9e37_79b9_7f4a_7c15;

    /// The sequence of a seed.
    #[must_use]
    pub fn new(seed: u64) -> Self {
        Self(seed)
    }

    /// The sequence of seed 0 from its n-th number on, counted from 0.
    #[must_use]
    pub fn nth(n: u64) -> Self {
        Self(n.wrapping_mul(Self::STEP))
    }

    /// 64 uniform bits.
    pub fn bits(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(Self::STEP);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// Uniform in `[0, 1)`.
    pub fn fraction(&mut self) -> f64 {
        (self.bits() >> 11) as f64 / (1_u64 << 53) as f64
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_numbers_are_those_of_the_reference() {
        // The first ones of seed 0, as Vigna's splitmix64.c prints them.
        let reference = [0xe220_a839_7b1d_cdaf, 0x6e78_9e6a_a1b9_65f4, 0x06c4_5d18_8009_454f];
        let mut sequence = SplitMix64::new(0);
        for (n, expected) in (0..).zip(reference) {
            assert_eq!(sequence.bits(), expected);
            assert_eq!(SplitMix64::nth(n).bits(), expected);
        }
        let fraction = SplitMix64::new(0).fraction();
        assert!((fraction - 0.883_3).abs() < 0.000_1, "{fraction}");
    }
}
