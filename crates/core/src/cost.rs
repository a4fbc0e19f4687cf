//! What calls cost, in millionths of a dollar: integers, so that sums never drift.

use crate::model::Usage;

/// What a million tokens cost.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rates {
    /// For a million tokens read.
    pub input_micro_usd_per_mtok: u64,
    /// For a million tokens written.
    pub output_micro_usd_per_mtok: u64,
}

/// Rates that depend on how long the prompt is: the whole request costs more, not only what is over.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LongPrompt {
    /// A prompt of more tokens than this costs `rates`.
    pub over_input_tokens: u64,
    /// What it costs then.
    pub rates: Rates,
}

/// The price of a model.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Price {
    /// What ordinary requests cost.
    pub ordinary: Rates,
    /// What requests with long prompts cost, where that differs.
    pub long_prompt: Option<LongPrompt>,
}

impl Price {
    /// A price that is the same for every prompt.
    #[must_use]
    pub const fn flat(input_micro_usd_per_mtok: u64, output_micro_usd_per_mtok: u64) -> Self {
        Self { ordinary: Rates { input_micro_usd_per_mtok, output_micro_usd_per_mtok }, long_prompt: None }
    }

    /// What this usage costs, rounded up.
    #[must_use]
    pub fn of(self, usage: Usage) -> u64 {
        let rates = match self.long_prompt {
            Some(long) if usage.input_tokens > long.over_input_tokens => long.rates,
            _ => self.ordinary,
        };
        let cost = (u128::from(usage.input_tokens) * u128::from(rates.input_micro_usd_per_mtok))
            .saturating_add(u128::from(usage.output_tokens) * u128::from(rates.output_micro_usd_per_mtok));
        u64::try_from(cost.div_ceil(1_000_000)).unwrap_or(u64::MAX)
    }
}

/// Millionths of a dollar as dollars, for people and metrics.
#[must_use]
pub fn usd(micro_usd: u64) -> f64 {
    micro_usd as f64 / 1e6
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn costs_are_rounded_up_and_never_overflow() {
        let price = Price::flat(3_000_000, 15_000_000);
        for (input_tokens, output_tokens, micro_usd) in [
            (0, 0, 0),
            (1, 0, 3),
            (0, 1, 15),
            (1_000_000, 1_000_000, 18_000_000),
            (u64::MAX, u64::MAX, u64::MAX),
        ] {
            assert_eq!(price.of(Usage { input_tokens, output_tokens }), micro_usd);
        }
        let cheap = Price::flat(1, 1);
        assert_eq!(cheap.of(Usage { input_tokens: 1, output_tokens: 0 }), 1);
        let rates = Rates { input_micro_usd_per_mtok: 6_000_000, output_micro_usd_per_mtok: 30_000_000 };
        let tiered = Price { long_prompt: Some(LongPrompt { over_input_tokens: 1_000, rates }), ..price };
        for (input_tokens, micro_usd) in [(1_000, 3_150), (1_001, 6_306)] {
            assert_eq!(tiered.of(Usage { input_tokens, output_tokens: 10 }), micro_usd, "the whole request");
        }
    }
}
