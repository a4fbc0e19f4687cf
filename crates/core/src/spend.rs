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

/// A text with more bytes than this for each token that was counted was not read whole. English has about four
/// characters a token ("What are tokens and how to count them?", OpenAI help center); four times as many leave room for
/// scripts of three bytes a letter.
const BYTES_PER_TOKEN_MAX: u64 = 16;

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

/// Whether a count of tokens says that the model cannot have read all of a text of so many bytes: some servers cut what is
/// longer than their context, and answer what is left of it.
#[must_use]
pub fn was_cut(text_bytes: usize, input_tokens: Option<u64>) -> bool {
    let text_bytes = u64::try_from(text_bytes).unwrap_or(u64::MAX);
    input_tokens.is_some_and(|tokens| tokens.saturating_mul(BYTES_PER_TOKEN_MAX) < text_bytes)
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

    /// The day after it.
    #[must_use]
    pub fn next(self) -> Self {
        Self { days_since_1970: self.days_since_1970.saturating_add(1) }
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

/// One of the records over which a day's money is spread.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum SpendKey {
    /// The day's own, which keeps the cap.
    Day,
    /// One that has taken its money from the day's.
    Shard(u32),
}

/// The most shards of a day: for 1,000 environments, the most that an event source starts ("Configuring scaling behavior for
/// SQS event source mappings").
pub const SHARDS_MAX: u32 = 20;
/// A set of shards.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Shards(u32);

impl Shards {
    /// All of these that there can be.
    #[must_use]
    pub fn of(shards: impl IntoIterator<Item = u32>) -> Self {
        let bits = shards.into_iter().filter(|shard| *shard < SHARDS_MAX).map(|shard| 1 << shard);
        Self(bits.fold(0, |all: u32, bit: u32| all | bit))
    }

    /// Each of them, in order.
    pub fn iter(self) -> impl Iterator<Item = u32> {
        (0..SHARDS_MAX).filter(move |shard| self.0 & (1 << shard) != 0)
    }
}

/// A change of one of a day's spend records.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SpendChange {
    /// Of which day.
    pub day: UtcDay,
    /// Which of its records.
    pub key: SpendKey,
    /// What changes.
    pub kind: SpendKind,
    /// When, by the worker's clock, in milliseconds since 1970.
    pub at_ms: u64,
}

/// Money is taken before a call, and comes back after the last.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SpendKind {
    /// Takes it from the day, unless what was taken would then exceed the cap.
    Reserve {
        /// How much.
        micro_usd: u64,
        /// The day's cap.
        cap_micro_usd: u64,
        /// The shard that it is for: the day remembers which ones hold money.
        shard: Option<u32>,
    },
    /// Takes nothing, and asks the day whether what was taken is within the cap.
    Check {
        /// The day's cap.
        cap_micro_usd: u64,
    },
    /// Takes it from a shard that holds as much.
    Draw {
        /// How much.
        micro_usd: u64,
    },
    /// Gives a shard what was taken from the day for it.
    Fund {
        /// How much.
        micro_usd: u64,
    },
    /// Gives back what was taken, less what was spent.
    Settle {
        /// What the invocation reserved in all.
        reserved_micro_usd: u64,
        /// What its calls cost, or may still cost.
        spent_micro_usd: u64,
        /// When its last call was answered that was, by the worker's clock, in milliseconds since 1970.
        answered_at_ms: Option<u64>,
        /// When its last call was over, answered or not.
        called_at_ms: Option<u64>,
    },
}

impl SpendKind {
    /// What it takes for calls.
    #[must_use]
    pub fn takes(self) -> Option<u64> {
        match self {
            Self::Reserve { micro_usd, .. } | Self::Draw { micro_usd } => Some(micro_usd),
            Self::Check { .. } | Self::Fund { .. } | Self::Settle { .. } => None,
        }
    }

    /// Whether it gives money back. Taken twice, money counts too much, which keeps the cap; given twice, it would be spent
    /// twice: so this is not sent again while nobody knows whether it was carried out.
    #[must_use]
    pub fn gives(self) -> bool {
        match self {
            Self::Reserve { .. } | Self::Check { .. } | Self::Draw { .. } => false,
            Self::Fund { .. } => true,
            Self::Settle { reserved_micro_usd, spent_micro_usd, .. } => spent_micro_usd < reserved_micro_usd,
        }
    }
}

/// What a day's records say.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Spent {
    /// What counts against the cap, in millionths of a dollar: what was billed, and what is reserved.
    pub committed_micro_usd: u64,
    /// What all shards hold for calls to come.
    pub in_shards_micro_usd: u64,
    /// The most that one of them holds.
    pub in_one_shard_micro_usd: u64,
    /// When a call was last answered, in milliseconds since 1970; as much earlier as an invocation is long, where one that
    /// was answered before settled after.
    pub answered_at_ms: Option<u64>,
    /// When a call was last over, answered or not, in an invocation that lived to say so; `None`: never, or only by releases
    /// that do not say so.
    pub called_at_ms: Option<u64>,
    /// When money was last taken for calls, in milliseconds since 1970; `None`: never, or only by releases that do not say so.
    pub reserved_at_ms: Option<u64>,
}

impl Spent {
    /// From what the day's own record has given away, and from what each shard of it still holds.
    #[must_use]
    pub fn of(taken_micro_usd: u64, shards_micro_usd: &[u64], answered_at_ms: Option<u64>) -> Self {
        let in_shards_micro_usd = shards_micro_usd.iter().fold(0_u64, |sum, held| sum.saturating_add(*held));
        Self {
            committed_micro_usd: taken_micro_usd.saturating_sub(in_shards_micro_usd),
            in_shards_micro_usd,
            in_one_shard_micro_usd: shards_micro_usd.iter().copied().max().unwrap_or_default(),
            answered_at_ms,
            called_at_ms: None,
            reserved_at_ms: None,
        }
    }

    /// The dearest call that some record can pay under this cap. Where the day has given away more than a cap that was lowered
    /// since, what shards hold is for nobody.
    #[must_use]
    pub fn room_micro_usd(&self, cap_micro_usd: u64) -> u64 {
        let of_the_day = cap_micro_usd.checked_sub(self.taken_micro_usd());
        of_the_day.map_or(0, |left_micro_usd| left_micro_usd.max(self.in_one_shard_micro_usd))
    }

    /// What is left of this cap for all calls to come.
    #[must_use]
    pub fn left_micro_usd(&self, cap_micro_usd: u64) -> u64 {
        let of_the_day = cap_micro_usd.checked_sub(self.taken_micro_usd());
        of_the_day.map_or(0, |left_micro_usd| left_micro_usd.saturating_add(self.in_shards_micro_usd))
    }

    /// What the day has given away, in millionths of a dollar: what counts against the cap, and what shards hold for calls to
    /// come.
    #[must_use]
    pub fn taken_micro_usd(&self) -> u64 {
        self.committed_micro_usd.saturating_add(self.in_shards_micro_usd)
    }
}

/// The answer to a change of a spend record.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SpendAnswer {
    /// It counts.
    Counted,
    /// There is no room for this.
    NoRoom {
        /// For how much there is; 0 where the ledger does not say.
        left_micro_usd: u64,
        /// Which shards have taken money from the day, where it was the day that had no room.
        shards: Shards,
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
    fn a_text_of_which_few_tokens_were_counted_was_cut() {
        for (text_bytes, input_tokens, cut) in [
            (16_000, Some(1_000), false),
            (16_001, Some(1_000), true),
            (70_000, Some(4_096), true),
            (0, Some(0), false),
            (1, Some(0), true),
            (70_000, None, false),
            (usize::MAX, Some(u64::MAX), false),
        ] {
            assert_eq!(was_cut(text_bytes, input_tokens), cut, "{text_bytes} {input_tokens:?}");
        }
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
    fn there_is_room_where_the_day_or_a_shard_has_it() {
        for (taken, shards, committed, room, left) in [
            (0, vec![], 0, 100, 100),
            (60, vec![], 60, 40, 40),
            (60, vec![30, 10], 20, 40, 80),
            (90, vec![30, 10], 50, 30, 50),
            (100, vec![0, 7, 5], 88, 7, 12),
            (130, vec![], 130, 0, 0),
            (101, vec![30, 10], 61, 0, 0),
            // A shard is funded while the day's record is read.
            (10, vec![20], 0, 80, 100),
        ] {
            let spent = Spent::of(taken, &shards, None);
            let found = (spent.committed_micro_usd, spent.room_micro_usd(100), spent.left_micro_usd(100));
            assert_eq!(found, (committed, room, left), "{spent:?}");
        }
    }

    #[test]
    fn only_what_gives_money_back_must_not_be_sent_again() {
        let settle = |spent_micro_usd| SpendKind::Settle {
            reserved_micro_usd: 5,
            spent_micro_usd,
            answered_at_ms: None,
            called_at_ms: None,
        };
        for (kind, gives, takes) in [
            (SpendKind::Reserve { micro_usd: 1, cap_micro_usd: 2, shard: None }, false, Some(1)),
            (SpendKind::Check { cap_micro_usd: 2 }, false, None),
            (SpendKind::Draw { micro_usd: 3 }, false, Some(3)),
            (SpendKind::Fund { micro_usd: 1 }, true, None),
            (settle(4), true, None),
            (settle(5), false, None),
            (settle(6), false, None),
        ] {
            assert_eq!((kind.gives(), kind.takes()), (gives, takes), "{kind:?}");
        }
    }

    #[test]
    fn a_text_that_was_cut_is_paid_for_and_a_dear_job_keeps_no_cheaper_one_from_the_rest() {
        let cut = Answer::Truncated { text: "x".to_owned(), by: crate::model::TokenLimit::Answer };
        assert_eq!(CALL().count(&reply(cut, Some(10), Some(0))).usage.output_tokens, 100);
        let dear = CallPrice::new(Price::flat(3_000_000, 15_000_000), 9_000, 100);
        assert_eq!(
            Fit::into(4_800, &[Some(dear), None, Some(CALL())]),
            Fit { fits: vec![false, true, true], sum_micro_usd: 4_800 }
        );
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
            // A hundredth year without the day, and a four hundredth with it.
            (4_107_456_000_000, "2100-02-28"),
            (4_107_542_400_000, "2100-03-01"),
            (13_574_563_200_000, "2400-02-29"),
        ] {
            let found = UtcDay::of(now_ms);
            assert_eq!(found.to_string(), day, "{now_ms}");
            assert!(found.begins_ms() <= now_ms && now_ms - found.begins_ms() < DAY_MS, "{now_ms}");
        }
    }
}
