//! Over how many keys are the index and a day's money spread, and which record of the day is asked next?
//!
//! DynamoDB takes 1,000 writes a second of one key. Each job comes into the index and goes out. Each invocation takes money and
//! gives it back: before its first call and after its
//! last. So where many environments work, each invocation takes from one of several shards, and a shard takes from the day in
//! blocks.
//!
//! **Invariant:** what a shard holds was taken from the day's own record before. That record alone keeps the cap, for workers
//! of a release that knows no shards, too; and what is lost on the way counts as spent.

use crate::input_hash::InputHash;
use crate::spend::{SpendAnswer, SpendKey, SpendKind};

/// Environments that share a record: with calls of a second, two writes of one unit for each invocation are 100 units a
/// second, a tenth of what DynamoDB gives one key ("Best practices for designing and using partition keys effectively in
/// DynamoDB").
const ENVIRONMENTS_PER_SHARD: u32 = 50;
/// The most shards of a day: for 1,000 environments, the most that an event source starts ("Configuring scaling behavior for
/// SQS event source mappings"). Readers look at as many.
pub const SHARDS_MAX: u32 = 20;
/// The share of a shard in the cap pays for so many of the dearest calls at least.
const CALLS_PER_SHARD: u64 = 20;
/// A shard takes its share of the cap in so many blocks: what it holds and nobody needs is no more than that.
const BLOCKS: u64 = 10;

/// Environments that share a key of the index of what is unsettled: with batches of ten and a second for a call, their jobs
/// come in and go out with 400 write units a second, and with half of what DynamoDB gives one key where many come at once.
const ENVIRONMENTS_PER_INDEX_KEY: u32 = 20;
/// The most keys over which a word of the index is spread: for 1,000 environments.
const INDEX_KEYS_MAX: u32 = 50;

/// Over how many keys each word of the index of what is unsettled is spread for so many environments.
#[must_use]
pub fn index_keys(environments: u32) -> u32 {
    environments.div_ceil(ENVIRONMENTS_PER_INDEX_KEY).clamp(1, INDEX_KEYS_MAX)
}

/// Over how many shards a day's money is spread; none: everybody takes from the day's own record.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Spread {
    shards: u32,
    block_micro_usd: u64,
}

impl Spread {
    /// For so many environments at most, under this cap, where no call costs more than this.
    #[must_use]
    pub fn over(environments: u32, cap_micro_usd: u64, dearest_micro_usd: u64) -> Self {
        let wanted = environments.div_ceil(ENVIRONMENTS_PER_SHARD).min(SHARDS_MAX);
        let least_micro_usd = dearest_micro_usd.saturating_mul(CALLS_PER_SHARD).max(1);
        let paid_for = u32::try_from(cap_micro_usd / least_micro_usd).unwrap_or(u32::MAX);
        let shards = wanted.min(paid_for);
        Self::in_shards(shards, cap_micro_usd / u64::from(shards).saturating_mul(BLOCKS).max(1))
    }

    /// Over so many, which are none where one would do, and which are filled by so much at a time.
    #[must_use]
    pub fn in_shards(shards: u32, block_micro_usd: u64) -> Self {
        if shards < 2 { Self::default() } else { Self { shards: shards.min(SHARDS_MAX), block_micro_usd } }
    }

    /// The record from which an invocation takes, and to which it gives back.
    #[must_use]
    pub fn key_of(self, invocation_id: &str) -> SpendKey {
        match self.shards {
            0 => SpendKey::Day,
            shards => SpendKey::Shard(InputHash::of_body(invocation_id).shard(shards)),
        }
    }

    /// Where what an invocation reserved is settled: what it spent beyond that leaves everybody less.
    #[must_use]
    pub fn settled_at(self, invocation_id: &str, reserved_micro_usd: u64, spent_micro_usd: u64) -> SpendKey {
        if spent_micro_usd > reserved_micro_usd { SpendKey::Day } else { self.key_of(invocation_id) }
    }

    /// Begins to reserve.
    #[must_use]
    pub fn reserve(self, invocation_id: &str, micro_usd: u64, cap_micro_usd: u64) -> Reserving {
        let own = self.key_of(invocation_id);
        let at = match own {
            SpendKey::Day => At::Day,
            SpendKey::Shard(shard) => At::Shard(shard),
        };
        Reserving { spread: self, own, micro_usd, cap_micro_usd, at, left_micro_usd: 0 }
    }
}

/// A reservation under way: its own shard, then a block of the day for that, then the day, then what other shards hold.
#[derive(Debug)]
pub struct Reserving {
    spread: Spread,
    own: SpendKey,
    micro_usd: u64,
    cap_micro_usd: u64,
    at: At,
    /// The most that one of those had left which were asked.
    left_micro_usd: u64,
}

/// Who is asked.
#[derive(Debug, Clone, Copy)]
enum At {
    Shard(u32),
    Block(u32),
    Fund(u32),
    Day,
    Done(SpendAnswer),
}

impl Reserving {
    /// The next change; or how it ended.
    ///
    /// # Errors
    /// What has become of it, where there is nothing more to ask: money, or for how much there was room in one record.
    pub fn next(&self) -> Result<(SpendKey, SpendKind), SpendAnswer> {
        let micro_usd = self.micro_usd;
        let from_day = |micro_usd| SpendKind::Reserve { micro_usd, cap_micro_usd: self.cap_micro_usd };
        match self.at {
            At::Shard(shard) => Ok((SpendKey::Shard(shard), SpendKind::Draw { micro_usd })),
            At::Block(_) => Ok((SpendKey::Day, from_day(self.block_micro_usd()))),
            At::Fund(shard) => {
                let micro_usd = self.block_micro_usd().saturating_sub(micro_usd);
                Ok((SpendKey::Shard(shard), SpendKind::Fund { micro_usd }))
            }
            At::Day => Ok((SpendKey::Day, from_day(micro_usd))),
            At::Done(answer) => Err(answer),
        }
    }

    /// What was asked for last was answered.
    pub fn answered(&mut self, answer: SpendAnswer) {
        self.at = match (self.at, answer) {
            (At::Block(shard), SpendAnswer::Counted) if self.block_micro_usd() > self.micro_usd => {
                At::Fund(shard)
            }
            (At::Done(answer), _) => At::Done(answer),
            (_, SpendAnswer::Counted) => At::Done(SpendAnswer::Counted),
            (at, SpendAnswer::NoRoom { left_micro_usd }) => {
                self.left_micro_usd = self.left_micro_usd.max(left_micro_usd);
                self.after_refusal(at, left_micro_usd)
            }
        };
    }

    fn after_refusal(&self, at: At, left_micro_usd: u64) -> At {
        let no_room = At::Done(SpendAnswer::NoRoom { left_micro_usd: self.left_micro_usd });
        let SpendKey::Shard(own) = self.own else { return no_room };
        let after = |shard: u32| shard.saturating_add(1).checked_rem(self.spread.shards).unwrap_or_default();
        match at {
            At::Shard(shard) if shard == own => At::Block(own),
            At::Block(_) if left_micro_usd >= self.micro_usd => At::Day,
            At::Block(_) | At::Day => At::Shard(after(own)),
            At::Shard(shard) if after(shard) != own => At::Shard(after(shard)),
            At::Shard(_) | At::Fund(_) | At::Done(_) => no_room,
        }
    }

    fn block_micro_usd(&self) -> u64 {
        self.spread.block_micro_usd.max(self.micro_usd)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::spend::Spent;
    use proptest::prelude::*;
    use std::collections::{BTreeMap, BTreeSet};

    /// A day's records, as a ledger keeps them.
    #[derive(Default)]
    struct Records(BTreeMap<SpendKey, u64>);

    impl Records {
        fn change(&mut self, key: SpendKey, kind: SpendKind) -> SpendAnswer {
            let held = self.0.entry(key).or_default();
            let left = match kind {
                SpendKind::Reserve { micro_usd, cap_micro_usd } if *held + micro_usd > cap_micro_usd => {
                    cap_micro_usd - *held
                }
                SpendKind::Draw { micro_usd } if *held < micro_usd => *held,
                SpendKind::Reserve { micro_usd, .. } | SpendKind::Fund { micro_usd } => {
                    *held += micro_usd;
                    return SpendAnswer::Counted;
                }
                SpendKind::Draw { micro_usd } => {
                    *held -= micro_usd;
                    return SpendAnswer::Counted;
                }
                SpendKind::Settle { reserved_micro_usd, spent_micro_usd, .. } => {
                    *held = match key {
                        SpendKey::Day => *held + spent_micro_usd - reserved_micro_usd,
                        SpendKey::Shard(_) => *held + reserved_micro_usd - spent_micro_usd,
                    };
                    return SpendAnswer::Counted;
                }
            };
            SpendAnswer::NoRoom { left_micro_usd: left }
        }

        fn spent(&self) -> Spent {
            let (day, shards): (Vec<_>, Vec<_>) = self.0.iter().partition(|(key, _)| **key == SpendKey::Day);
            let shards: Vec<u64> = shards.into_iter().map(|(_, held)| *held).collect();
            Spent::of(day.first().map_or(0, |(_, held)| **held), &shards, None)
        }

        fn reserve(&mut self, mut reserving: Reserving) -> (SpendAnswer, Vec<(SpendKey, SpendKind)>) {
            let mut asked = Vec::new();
            loop {
                match reserving.next() {
                    Ok((key, kind)) => {
                        asked.push((key, kind));
                        reserving.answered(self.change(key, kind));
                    }
                    Err(answer) => return (answer, asked),
                }
            }
        }
    }

    /// An invocation whose record is this one.
    fn id_at(spread: Spread, key: SpendKey) -> String {
        (0..).map(|n| format!("i-{n}")).find(|id| spread.key_of(id) == key).unwrap()
    }

    #[test]
    fn there_are_as_many_shards_as_environments_and_money_ask_for() {
        for (environments, cap, dearest, shards) in [
            (10, 1_000_000, 1, 0),
            (50, 1_000_000, 1, 0),
            (51, 1_000_000, 1, 2),
            (1_000, 1_000_000, 1, 20),
            (u32::MAX, u64::MAX, 0, 20),
            // Each pays for twenty of the dearest calls.
            (1_000, 1_000_000, 2_500, 20),
            (1_000, 1_000_000, 2_501, 19),
            (1_000, 1_000_000, 25_000, 2),
            (1_000, 1_000_000, 25_001, 0),
            (1_000, 1_000_000, u64::MAX, 0),
            (1_000, 0, 0, 0),
        ] {
            let spread = Spread::over(environments, cap, dearest);
            let block = cap / (u64::from(shards) * BLOCKS).max(1);
            assert_eq!(spread, Spread::in_shards(shards, block), "{environments} {cap} {dearest}");
            let keys: BTreeSet<_> = (0..500).map(|n| spread.key_of(&format!("i-{n}"))).collect();
            let expected: BTreeSet<_> = match shards {
                0 => [SpendKey::Day].into(),
                shards => (0..shards).map(SpendKey::Shard).collect(),
            };
            assert_eq!(keys, expected, "{environments} {cap} {dearest}");
        }
    }

    #[test]
    fn a_shard_is_asked_then_the_day_then_the_others() {
        use SpendKey::{Day, Shard};
        let reserve = |micro_usd| (Day, SpendKind::Reserve { micro_usd, cap_micro_usd: 600 });
        let draw = |shard, micro_usd| (Shard(shard), SpendKind::Draw { micro_usd });
        let fund = |shard, micro_usd| (Shard(shard), SpendKind::Fund { micro_usd });
        let no_room = |left_micro_usd| SpendAnswer::NoRoom { left_micro_usd };
        let spread = Spread::in_shards(3, 20);
        let id = id_at(spread, Shard(1));
        for (day, shards, micro_usd, answer, asked) in [
            (0, [0, 0, 0], 7, SpendAnswer::Counted, vec![draw(1, 7), reserve(20), fund(1, 13)]),
            (20, [0, 13, 0], 7, SpendAnswer::Counted, vec![draw(1, 7)]),
            (20, [0, 13, 0], 20, SpendAnswer::Counted, vec![draw(1, 20), reserve(20)]),
            (20, [0, 13, 0], 50, SpendAnswer::Counted, vec![draw(1, 50), reserve(50)]),
            (590, [0, 3, 0], 7, SpendAnswer::Counted, vec![draw(1, 7), reserve(20), reserve(7)]),
            (595, [8, 3, 0], 7, SpendAnswer::Counted, vec![draw(1, 7), reserve(20), draw(2, 7), draw(0, 7)]),
            (595, [8, 3, 7], 7, SpendAnswer::Counted, vec![draw(1, 7), reserve(20), draw(2, 7)]),
            (595, [4, 3, 6], 7, no_room(6), vec![draw(1, 7), reserve(20), draw(2, 7), draw(0, 7)]),
            (600, [0, 0, 0], 1, no_room(0), vec![draw(1, 1), reserve(20), draw(2, 1), draw(0, 1)]),
        ] {
            let shards = (0..).zip(shards).map(|(shard, held)| (Shard(shard), held));
            let mut records = Records(shards.chain([(Day, day)]).collect());
            let found = records.reserve(spread.reserve(&id, micro_usd, 600));
            assert_eq!(found, (answer, asked), "{day} {micro_usd}");
        }
        let alone = Spread::default();
        for (day, answer) in [(593, SpendAnswer::Counted), (594, no_room(6))] {
            let mut records = Records([(Day, day)].into());
            assert_eq!(records.reserve(alone.reserve(&id, 7, 600)), (answer, vec![reserve(7)]), "{day}");
        }
    }

    #[test]
    fn what_was_spent_beyond_a_reservation_is_the_days() {
        let spread = Spread::in_shards(3, 20);
        let id = id_at(spread, SpendKey::Shard(2));
        assert_eq!(spread.settled_at(&id, 5, 5), SpendKey::Shard(2));
        assert_eq!(spread.settled_at(&id, 5, 6), SpendKey::Day);
        assert_eq!(Spread::default().settled_at(&id, 5, 5), SpendKey::Day);
    }

    proptest! {
        #[test]
        fn the_cap_holds_and_its_last_call_is_found(
            shards in 0_u32..6,
            block_micro_usd in 0_u64..300,
            steps in prop::collection::vec((0_u32..40, 1_u64..60, 0_u64..60), 1..120),
        ) {
            const CAP: u64 = 1_000;
            let spread = Spread::in_shards(shards, block_micro_usd);
            let (mut records, mut spent) = (Records::default(), 0);
            for (invocation, reserved_micro_usd, spent_micro_usd) in steps {
                let id = format!("i-{invocation}");
                let spent_micro_usd = spent_micro_usd.min(reserved_micro_usd);
                let room = records.spent().room_micro_usd(CAP);
                let (answer, _) = records.reserve(spread.reserve(&id, reserved_micro_usd, CAP));
                if answer == SpendAnswer::Counted {
                    let key = spread.settled_at(&id, reserved_micro_usd, spent_micro_usd);
                    let kind = SpendKind::Settle { reserved_micro_usd, spent_micro_usd, answered_at_ms: None };
                    records.change(key, kind);
                    spent += spent_micro_usd;
                } else {
                    prop_assert!(reserved_micro_usd > room, "{} of {}", reserved_micro_usd, room);
                    prop_assert_eq!(answer, SpendAnswer::NoRoom { left_micro_usd: room });
                }
                let now = records.spent();
                prop_assert_eq!(now.committed_micro_usd, spent);
                prop_assert!(now.committed_micro_usd + now.in_shards_micro_usd <= CAP);
            }
        }
    }
}
