//! What one call may cost, and what an answered one counts as.
//!
//! **Invariant:** what nobody can know counts as the most that it can be, never as nothing.

use std::fmt;

use crate::cost::Price;
use crate::model::{Answer, ModelReply, Usage};

/// The most tokens beside those that we send or allow which a provider may charge for, each way: its own instructions
/// before our prompt, and thoughts that the limit of the answer does not bound. The longest answers of today's models,
/// thoughts included, have 128,000 tokens ("Models overview", Claude API docs). A count beyond this is a mistake and no
/// bill.
pub const UNASKED_TOKENS_MAX: u64 = 200_000;

const DAY_MS: u64 = 24 * 60 * 60 * 1_000;

/// What one call for a job may take, and at which price.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CallPrice {
    price: Price,
    most: Usage,
}

/// What an answered call counts as.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Counted {
    /// Its tokens; where the provider's count is missing or cannot be right, the most that it can be.
    pub usage: Usage,
    /// What they cost, in millionths of a dollar. More than was reserved where the provider counted more.
    pub micro_usd: u64,
    /// The provider's own count, as it is.
    pub as_reported: bool,
}

impl CallPrice {
    /// A token is at least one byte of the prompt, and a job that is asked again sends the answer that was not accepted
    /// back.
    #[must_use]
    pub fn new(price: Price, prompt_bytes: usize, output_tokens_max: u32) -> Self {
        let output_tokens = u64::from(output_tokens_max);
        let prompt_tokens = u64::try_from(prompt_bytes).unwrap_or(u64::MAX);
        let most = Usage { input_tokens: prompt_tokens.saturating_add(output_tokens), output_tokens };
        Self { price, most }
    }

    /// What is reserved for a call: the most that it can cost, in millionths of a dollar.
    #[must_use]
    pub fn most_micro_usd(self) -> u64 {
        self.price.of(self.most)
    }

    /// What an answer costs.
    #[must_use]
    pub fn count(self, reply: &ModelReply) -> Counted {
        // No prompt is empty, and no text has no tokens: some servers that do not count say 0.
        let says_something = match &reply.answer {
            Answer::Text(_) => true,
            Answer::Refused { text, .. } | Answer::Truncated { text, .. } => !text.is_empty(),
            Answer::Unusable { .. } => false,
        };
        let output_tokens_min = u64::from(says_something);
        let input_tokens = credible(reply.usage.input_tokens, 1, self.most.input_tokens);
        let output_tokens = credible(reply.usage.output_tokens, output_tokens_min, self.most.output_tokens);
        let usage = Usage {
            input_tokens: input_tokens.unwrap_or(self.most.input_tokens),
            output_tokens: output_tokens.unwrap_or(self.most.output_tokens),
        };
        let as_reported = input_tokens.is_some() && output_tokens.is_some();
        Counted { usage, micro_usd: self.price.of(usage), as_reported }
    }
}

/// A day, by UTC: dollars per day are counted from midnight to midnight there. Shown as `YYYY-MM-DD`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct UtcDay {
    days_since_1970: u64,
}

impl UtcDay {
    /// The day of a moment, in milliseconds since 1970.
    #[must_use]
    pub fn of(now_ms: u64) -> Self {
        Self { days_since_1970: now_ms / DAY_MS }
    }

    /// Its midnight, in milliseconds since 1970.
    #[must_use]
    pub fn begins_ms(self) -> u64 {
        self.days_since_1970.saturating_mul(DAY_MS)
    }
}

impl fmt::Display for UtcDay {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Civil-from-days over the proleptic Gregorian calendar, in years that start in March.
        let days = self.days_since_1970.saturating_add(719_468);
        let era = days / 146_097;
        let day_of_era = days % 146_097;
        let year_of_era =
            (day_of_era - day_of_era / 1_460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
        let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
        let shifted_month = (5 * day_of_year + 2) / 153;
        let day = day_of_year - (153 * shifted_month + 2) / 5 + 1;
        let month = if shifted_month < 10 { shifted_month + 3 } else { shifted_month - 9 };
        let year = era * 400 + year_of_era + u64::from(month <= 2);
        write!(f, "{year:04}-{month:02}-{day:02}")
    }
}

/// A change of the day's spend record.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SpendChange {
    /// Idempotency token: the same change twice counts once.
    pub id: String,
    /// Whose record it changes.
    pub day: UtcDay,
    /// Whether it takes room or gives back what it did not need.
    pub kind: SpendKind,
}

/// Reserve before the first call, settle after the last.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SpendKind {
    /// Adds the worst case, unless spent and reserved would then exceed the cap.
    Reserve {
        /// The most that the call can cost.
        micro_usd: u64,
        /// The day's cap.
        cap_micro_usd: u64,
    },
    /// Gives the reservation back and adds what was spent.
    Settle {
        /// What the invocation reserved in all.
        reserved_micro_usd: u64,
        /// What its calls cost, or may still cost.
        spent_micro_usd: u64,
        /// When its last call was answered that was, by the worker's clock, in milliseconds since 1970.
        answered_at_ms: Option<u64>,
    },
}

/// What a day's record says.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Spent {
    /// What counts against the cap, in millionths of a dollar: what was billed, and what is reserved.
    pub committed_micro_usd: u64,
    /// When a call was last answered, in milliseconds since 1970; as much earlier as an invocation is long, where one that
    /// was answered before settled after.
    pub answered_at_ms: Option<u64>,
}

/// The answer to a change of the spend record.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SpendAnswer {
    /// It counts.
    Counted,
    /// The cap leaves no room for this reservation.
    CapReached {
        /// What it does leave; 0 where the ledger does not say.
        left_micro_usd: u64,
    },
}

/// A count that a bill can show.
fn credible(tokens: Option<u64>, least: u64, most: u64) -> Option<u64> {
    tokens.filter(|tokens| (least..=most.saturating_add(UNASKED_TOKENS_MAX)).contains(tokens))
}

/// Which of some first calls a day's room pays for, in their order: a dear one that does not fit leaves room for others.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fit {
    /// For each call, whether it fits; what is no call (`None`) needs no room.
    pub fits: Vec<bool>,
    /// What those that fit cost at most.
    pub sum_micro_usd: u64,
}

impl Fit {
    /// As many as the room pays for.
    #[must_use]
    pub fn into(room_micro_usd: u64, calls: &[Option<CallPrice>]) -> Self {
        let mut sum_micro_usd = 0_u64;
        let fits = calls.iter().map(|price| {
            let sum = sum_micro_usd.saturating_add(price.map_or(0, CallPrice::most_micro_usd));
            let fits = sum <= room_micro_usd;
            if fits {
                sum_micro_usd = sum;
            }
            fits
        });
        Self { fits: fits.collect(), sum_micro_usd }
    }

    /// None of them.
    #[must_use]
    pub fn none(calls: &[Option<CallPrice>]) -> Self {
        Self { fits: vec![false; calls.len()], sum_micro_usd: 0 }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{Headroom, ReportedUsage};

    /// A call of at most 1,100 tokens in and 100 out, at 3 and 15 millionths of a dollar each: 4,800 in all.
    const CALL: fn() -> CallPrice = || CallPrice::new(Price::flat(3_000_000, 15_000_000), 1_000, 100);

    fn reply(answer: Answer, input_tokens: Option<u64>, output_tokens: Option<u64>) -> ModelReply {
        let usage = ReportedUsage { input_tokens, output_tokens };
        ModelReply { answer, usage, request_id: None, headroom: Headroom::default() }
    }

    #[test]
    fn what_is_reserved_is_the_prompt_an_answer_that_is_sent_back_and_the_answer() {
        assert_eq!(CALL().most_micro_usd(), 4_800);
        let endless = CallPrice::new(Price::flat(u64::MAX, u64::MAX), usize::MAX, u32::MAX);
        assert_eq!(endless.most_micro_usd(), u64::MAX);
    }

    #[test]
    fn what_is_missing_or_cannot_be_right_counts_as_the_most_that_it_can_be() {
        let text = || Answer::Text("{}".to_owned());
        let declined = || Answer::Refused { why: "refusal".to_owned(), text: "No.".to_owned() };
        let silent = || Answer::Refused { why: "refusal".to_owned(), text: String::new() };
        for (answer, input, output, counted, as_reported) in [
            (text(), Some(10), Some(7), (10, 7), true),
            (text(), None, Some(7), (1_100, 7), false),
            (text(), Some(10), None, (10, 100), false),
            (text(), None, None, (1_100, 100), false),
            (text(), Some(0), Some(7), (1_100, 7), false),
            (text(), Some(10), Some(0), (10, 100), false),
            (silent(), Some(10), Some(0), (10, 0), true),
            (declined(), Some(10), Some(0), (10, 100), false),
            // More than was reserved is believed as far as a provider can count what we do not see.
            (text(), Some(1_101), Some(7), (1_101, 7), true),
            (text(), Some(10), Some(128_000), (10, 128_000), true),
            (text(), Some(201_100), Some(200_100), (201_100, 200_100), true),
            (text(), Some(201_101), Some(7), (1_100, 7), false),
            (text(), Some(10), Some(200_101), (10, 100), false),
            (text(), Some(u64::MAX), Some(u64::MAX), (1_100, 100), false),
        ] {
            let label = format!("{answer:?} {input:?} {output:?}");
            let usage = Usage { input_tokens: counted.0, output_tokens: counted.1 };
            let micro_usd = 3 * counted.0 + 15 * counted.1;
            let found = CALL().count(&reply(answer, input, output));
            assert_eq!(found, Counted { usage, micro_usd, as_reported }, "{label}");
        }
    }

    #[test]
    fn a_day_is_utc() {
        for (now_ms, day) in [
            (0, "1970-01-01"),
            (951_782_399_999, "2000-02-28"),
            (951_782_400_000, "2000-02-29"),
            (1_709_251_199_999, "2024-02-29"),
            (1_709_251_200_000, "2024-03-01"),
            (1_795_478_399_999, "2026-11-23"),
            (1_798_761_600_000, "2027-01-01"),
        ] {
            let found = UtcDay::of(now_ms);
            assert_eq!(found.to_string(), day, "{now_ms}");
            assert!(found.begins_ms() <= now_ms && now_ms - found.begins_ms() < DAY_MS, "{now_ms}");
        }
    }
}
