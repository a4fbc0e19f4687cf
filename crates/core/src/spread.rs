//! Over how many keys are the index and a day's money spread, and which record of the day is asked next?
//!
//! DynamoDB takes 1,000 writes a second of one key. Each job comes into the index and goes out; each invocation takes money
//! before its first call and gives back what it did not need after its last. So where many environments work, a word of the
//! index stands under several keys, and an invocation takes from one of several shards, which take from the day in blocks.
//!
//! **Invariant:** what a shard holds was taken from the day's own record before. That record alone keeps the cap, for workers
//! of a release that knows no shards, too; and what is lost on the way counts as spent. What a shard holds was taken under
//! the cap of its time: before an environment takes from one, the day has said that it is within the cap of now.

use crate::input_hash::InputHash;
use crate::spend::{SHARDS_MAX, Shards, SpendAnswer, SpendKey, SpendKind, UtcDay};

/// Environments that share a record: with calls of a second, two writes of one unit for each invocation are 100 units a
/// second, a tenth of what DynamoDB gives one key ("Best practices for designing and using partition keys effectively in
/// DynamoDB").
const ENVIRONMENTS_PER_SHARD: u32 = 50;
/// The share of a shard in the cap pays for so many of the dearest calls at least.
const CALLS_PER_SHARD: u64 = 20;
/// A shard takes enough for so many invocations at a time,
const INVOCATIONS_PER_BLOCK: u64 = 10;
/// and at most this part of its share in the cap: what is lost on the way counts as spent.
const BLOCKS: u64 = 10;

/// How long an environment believes that the day is within its cap: an older version beside it may take under another one, and
/// an environment whose version is live again knows nothing of the meantime.
pub const WITHIN_CAP_FOR_MS: u64 = 60_000;

/// How long an environment believes that a day is full. What others give back comes at the end of an invocation.
pub const FULL_FOR_MS: u64 = 5_000;

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
    block_micro_usd_max: u64,
}

impl Spread {
    /// For so many environments at most, under this cap, where no call costs more than this. Calls that cost nothing take
    /// nothing.
    #[must_use]
    pub fn over(environments: u32, cap_micro_usd: u64, dearest_micro_usd: u64) -> Self {
        let wanted = environments.div_ceil(ENVIRONMENTS_PER_SHARD).min(SHARDS_MAX);
        let least_micro_usd = dearest_micro_usd.saturating_mul(CALLS_PER_SHARD);
        let paid_for = cap_micro_usd.checked_div(least_micro_usd).unwrap_or_default();
        let paid_for = u32::try_from(paid_for).unwrap_or(u32::MAX);
        let shards = wanted.min(paid_for);
        Self::in_shards(shards, cap_micro_usd / u64::from(shards).saturating_mul(BLOCKS).max(1))
    }

    /// Over so many, which are none where one would do, and which are filled by no more than this at a time.
    #[must_use]
    pub fn in_shards(shards: u32, block_micro_usd_max: u64) -> Self {
        if shards < 2 {
            Self::default()
        } else {
            Self { shards: shards.min(SHARDS_MAX), block_micro_usd_max }
        }
    }

    /// Whether a day has shards at all.
    #[must_use]
    pub fn has_shards(self) -> bool {
        self.shards > 0
    }

    /// The record from which an invocation takes at first.
    #[must_use]
    pub fn key_of(self, invocation_id: &str) -> SpendKey {
        match self.shards {
            0 => SpendKey::Day,
            shards => SpendKey::Shard(InputHash::of_body(invocation_id).shard(shards)),
        }
    }

    /// Begins to reserve; `within_cap`: this environment was told of late that the day is within this cap.
    #[must_use]
    pub fn reserve(
        self,
        invocation_id: &str,
        micro_usd: u64,
        cap_micro_usd: u64,
        within_cap: bool,
    ) -> Reserving {
        let block_micro_usd = micro_usd.saturating_mul(INVOCATIONS_PER_BLOCK).min(self.block_micro_usd_max);
        let own = self.key_of(invocation_id);
        let at = match own {
            SpendKey::Day => At::Day,
            SpendKey::Shard(shard) => At::Shard(shard),
        };
        Reserving {
            own,
            block_micro_usd,
            micro_usd,
            cap_micro_usd,
            within_cap,
            the_day_says: None,
            at,
            others: Shards::default(),
            left_micro_usd: 0,
        }
    }
}

/// Where an invocation settles: a shard holds nothing that the day has not given it, so what came from the day itself, and what
/// was spent beyond a reservation, which leaves everybody less, is the day's.
#[must_use]
pub fn settled_at(taken_from: Option<SpendKey>, reserved_micro_usd: u64, spent_micro_usd: u64) -> SpendKey {
    taken_from.filter(|_| spent_micro_usd <= reserved_micro_usd).unwrap_or(SpendKey::Day)
}

/// What an environment knows of a day that had no room: with a thousand of them, asking each record again for each batch would
/// be more than DynamoDB takes.
#[derive(Debug, Clone, Copy)]
pub struct FullDay {
    /// Of which the rest is true; on another one nothing is known.
    pub day: UtcDay,
    /// The most that a record had left.
    pub left_micro_usd: u64,
    /// When that was, in milliseconds since 1970.
    pub at_ms: u64,
}

impl FullDay {
    /// Whether there is no room for this, as far as is known.
    #[must_use]
    pub fn holds(&self, day: UtcDay, micro_usd: u64, now_ms: u64) -> bool {
        self.day == day && micro_usd > self.left_micro_usd && now_ms.abs_diff(self.at_ms) < FULL_FOR_MS
    }
}

/// A reservation under way: its own shard, then a block of the day for that, then the day, then what other shards hold.
#[derive(Debug)]
pub struct Reserving {
    own: SpendKey,
    block_micro_usd: u64,
    micro_usd: u64,
    cap_micro_usd: u64,
    within_cap: bool,
    the_day_says: Option<bool>,
    at: At,
    /// Those that hold money, and are to be asked.
    others: Shards,
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
    Taken(SpendKey),
    NoRoom,
}

/// How a reservation ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reserved {
    /// It was taken from this record.
    From(SpendKey),
    /// No record can pay it.
    NoRoom {
        /// The most that one of them had left.
        left_micro_usd: u64,
    },
}

impl Reserving {
    /// The next change.
    ///
    /// # Errors
    /// How it ended, where there is nothing more to ask.
    pub fn next(&self) -> Result<(SpendKey, SpendKind), Reserved> {
        let (micro_usd, cap_micro_usd) = (self.micro_usd, self.cap_micro_usd);
        let from_day =
            |micro_usd, shard| (SpendKey::Day, SpendKind::Reserve { micro_usd, cap_micro_usd, shard });
        match self.at {
            // A cap that was lowered within the day stops what shards hold, too.
            At::Shard(_) if !self.within_cap => Ok((SpendKey::Day, SpendKind::Check { cap_micro_usd })),
            At::Shard(shard) => Ok((SpendKey::Shard(shard), SpendKind::Draw { micro_usd })),
            At::Block(shard) => Ok(from_day(self.block_micro_usd, Some(shard))),
            At::Fund(shard) => {
                let micro_usd = self.block_micro_usd.saturating_sub(micro_usd);
                Ok((SpendKey::Shard(shard), SpendKind::Fund { micro_usd }))
            }
            At::Day => Ok(from_day(micro_usd, None)),
            At::Taken(key) => Err(Reserved::From(key)),
            At::NoRoom => Err(Reserved::NoRoom { left_micro_usd: self.left_micro_usd }),
        }
    }

    /// Whether the day is within the cap, where it was asked.
    #[must_use]
    pub fn is_within_cap(&self) -> Option<bool> {
        self.the_day_says
    }

    /// What was asked for last was answered.
    pub fn answered(&mut self, answer: SpendAnswer) {
        let asked_for_the_cap = matches!(self.at, At::Shard(_)) && !self.within_cap;
        if asked_for_the_cap || matches!(self.at, At::Block(_) | At::Day) {
            // Whether what it refuses would be too much, or it already is, it does not say.
            self.within_cap = answer == SpendAnswer::Counted;
            self.the_day_says = Some(self.within_cap);
        }
        self.at = match (self.at, answer) {
            (at, SpendAnswer::Counted) if asked_for_the_cap => at,
            (_, SpendAnswer::NoRoom { .. }) if asked_for_the_cap => At::NoRoom,
            (At::Shard(shard) | At::Fund(shard), SpendAnswer::Counted) => At::Taken(SpendKey::Shard(shard)),
            (At::Block(shard), SpendAnswer::Counted) => At::Fund(shard),
            (At::Day, SpendAnswer::Counted) => At::Taken(SpendKey::Day),
            (at, SpendAnswer::NoRoom { left_micro_usd, shards }) => {
                self.left_micro_usd = self.left_micro_usd.max(left_micro_usd);
                self.after_refusal(at, left_micro_usd, shards)
            }
            (at @ (At::Taken(_) | At::NoRoom), SpendAnswer::Counted) => at,
        };
    }

    fn after_refusal(&mut self, at: At, left_micro_usd: u64, shards: Shards) -> At {
        match at {
            At::Shard(shard) if SpendKey::Shard(shard) == self.own => {
                if self.block_micro_usd > self.micro_usd { At::Block(shard) } else { At::Day }
            }
            At::Block(_) if left_micro_usd >= self.micro_usd => At::Day,
            At::Block(_) | At::Day => {
                let own = self.own;
                self.others = Shards::of(shards.iter().filter(|shard| SpendKey::Shard(*shard) != own));
                self.next_other(None)
            }
            At::Shard(shard) => self.next_other(Some(shard)),
            At::Fund(_) | At::Taken(_) | At::NoRoom => At::NoRoom,
        }
    }

    fn next_other(&self, after: Option<u32>) -> At {
        let next = self.others.iter().find(|shard| after.is_none_or(|after| *shard > after));
        next.map_or(At::NoRoom, At::Shard)
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
    struct Records {
        micro_usd: BTreeMap<SpendKey, u64>,
        shards: BTreeSet<u32>,
    }

    impl Records {
        fn change(&mut self, key: SpendKey, kind: SpendKind) -> SpendAnswer {
            let shards = Shards::of(self.shards.iter().copied());
            let held = self.micro_usd.entry(key).or_default();
            match kind {
                SpendKind::Reserve { micro_usd, cap_micro_usd, .. } if *held + micro_usd > cap_micro_usd => {
                    return SpendAnswer::NoRoom {
                        left_micro_usd: cap_micro_usd.saturating_sub(*held),
                        shards,
                    };
                }
                SpendKind::Check { cap_micro_usd } if *held > cap_micro_usd => {
                    return SpendAnswer::NoRoom { left_micro_usd: 0, shards: Shards::default() };
                }
                SpendKind::Draw { micro_usd } if *held < micro_usd => {
                    return SpendAnswer::NoRoom { left_micro_usd: *held, shards: Shards::default() };
                }
                SpendKind::Reserve { micro_usd, shard, .. } => {
                    *held += micro_usd;
                    self.shards.extend(shard);
                }
                SpendKind::Check { .. } => {}
                SpendKind::Fund { micro_usd } => *held += micro_usd,
                SpendKind::Draw { micro_usd } => *held -= micro_usd,
                SpendKind::Settle { reserved_micro_usd, spent_micro_usd, .. } => {
                    *held = match key {
                        SpendKey::Day => *held + spent_micro_usd - reserved_micro_usd,
                        SpendKey::Shard(_) => *held + reserved_micro_usd - spent_micro_usd,
                    };
                }
            }
            SpendAnswer::Counted
        }

        fn spent(&self) -> Spent {
            let day = self.micro_usd.get(&SpendKey::Day).copied().unwrap_or_default();
            let shards = self.micro_usd.iter().filter(|(key, _)| **key != SpendKey::Day);
            Spent::of(day, &shards.map(|(_, held)| *held).collect::<Vec<_>>(), None)
        }

        fn reserve(
            &mut self,
            mut reserving: Reserving,
        ) -> (Reserved, Vec<(SpendKey, SpendKind)>, Option<bool>) {
            let mut asked = Vec::new();
            loop {
                match reserving.next() {
                    Ok((key, kind)) => {
                        asked.push((key, kind));
                        reserving.answered(self.change(key, kind));
                    }
                    Err(ended) => return (ended, asked, reserving.is_within_cap()),
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
            (u32::MAX, u64::MAX, 1, 20),
            // Each pays for twenty of the dearest calls.
            (1_000, 1_000_000, 2_500, 20),
            (1_000, 1_000_000, 2_501, 19),
            (1_000, 1_000_000, 25_000, 2),
            (1_000, 1_000_000, 25_001, 0),
            (1_000, 1_000_000, u64::MAX, 0),
            (1_000, 1_000_000, 0, 0),
            (1_000, 0, 1, 0),
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
            assert_eq!(spread.has_shards(), shards > 0);
        }
    }

    #[test]
    fn a_word_of_the_index_has_as_many_keys_as_environments_ask_for() {
        for (environments, keys) in [(0, 1), (1, 1), (20, 1), (21, 2), (1_000, 50), (u32::MAX, 50)] {
            assert_eq!(index_keys(environments), keys, "{environments}");
        }
    }

    #[test]
    fn a_set_of_shards_knows_all_that_there_can_be() {
        assert_eq!(Shards::of([19, 0, 3, 3, 20, u32::MAX]).iter().collect::<Vec<_>>(), [0, 3, 19]);
        assert_eq!(Shards::default().iter().count(), 0);
    }

    #[test]
    fn a_shard_is_asked_then_the_day_then_the_others() {
        use SpendKey::{Day, Shard};
        let reserve = |micro_usd, shard| (Day, SpendKind::Reserve { micro_usd, cap_micro_usd: 600, shard });
        let (block, exactly) =
            (|micro_usd| reserve(micro_usd, Some(1)), |micro_usd| reserve(micro_usd, None));
        let check = (Day, SpendKind::Check { cap_micro_usd: 600 });
        let draw = |shard, micro_usd| (Shard(shard), SpendKind::Draw { micro_usd });
        let fund = |micro_usd| (Shard(1), SpendKind::Fund { micro_usd });
        let no_room = |left_micro_usd| Reserved::NoRoom { left_micro_usd };
        let from = Reserved::From;
        let spread = Spread::in_shards(3, 20);
        let id = id_at(spread, Shard(1));
        for (day, shards, micro_usd, ended, asked) in [
            // Enough for ten, and at most a block.
            (0, [0, 0, 0], 1, from(Shard(1)), vec![draw(1, 1), block(10), fund(9)]),
            (0, [0, 0, 0], 7, from(Shard(1)), vec![draw(1, 7), block(20), fund(13)]),
            (20, [0, 13, 0], 7, from(Shard(1)), vec![draw(1, 7)]),
            // What no block pays is the day's.
            (20, [0, 13, 0], 20, from(Day), vec![draw(1, 20), exactly(20)]),
            (20, [0, 13, 0], 50, from(Day), vec![draw(1, 50), exactly(50)]),
            (590, [0, 3, 0], 7, from(Day), vec![draw(1, 7), block(20), exactly(7)]),
            (593, [0, 3, 0], 7, from(Day), vec![draw(1, 7), block(20), exactly(7)]),
            // What the day has refused, it may have given away beyond a cap that was lowered.
            (595, [8, 3, 0], 7, from(Shard(0)), vec![draw(1, 7), block(20), check, draw(0, 7)]),
            (595, [0, 3, 7], 7, from(Shard(2)), vec![draw(1, 7), block(20), check, draw(0, 7), draw(2, 7)]),
            (595, [4, 3, 6], 7, no_room(6), vec![draw(1, 7), block(20), check, draw(0, 7), draw(2, 7)]),
            (
                595,
                [30, 3, 30],
                40,
                no_room(30),
                vec![draw(1, 40), exactly(40), check, draw(0, 40), draw(2, 40)],
            ),
            (600, [0, 0, 0], 1, no_room(0), vec![draw(1, 1), block(10), check, draw(0, 1), draw(2, 1)]),
        ] {
            let held = (0..).zip(shards).map(|(shard, held)| (Shard(shard), held));
            let micro_usds = held.chain([(Day, day)]).collect();
            let mut records = Records { micro_usd: micro_usds, shards: (0..3).collect() };
            let found = records.reserve(spread.reserve(&id, micro_usd, 600, true));
            assert_eq!((found.0, found.1), (ended, asked), "{day} {micro_usd}");
        }
        // Whose settings know of no shards finds what others hold all the same.
        let alone = Spread::default();
        for (day, shards, ended, asked) in [
            (593, [8, 3], from(Day), vec![exactly(7)]),
            (594, [8, 3], from(Shard(0)), vec![exactly(7), check, draw(0, 7)]),
            (594, [3, 3], no_room(6), vec![exactly(7), check, draw(0, 7), draw(1, 7)]),
        ] {
            let held = (0..).zip(shards).map(|(shard, held)| (Shard(shard), held));
            let mut records =
                Records { micro_usd: held.chain([(Day, day)]).collect(), shards: [0, 1].into() };
            let found = records.reserve(alone.reserve(&id, 7, 600, true));
            assert_eq!((found.0, found.1), (ended, asked), "{day}");
        }
    }

    #[test]
    fn what_came_from_the_day_and_what_was_spent_beyond_a_reservation_is_the_days() {
        let shard = SpendKey::Shard(2);
        for (taken_from, reserved, spent, at) in [
            (Some(shard), 5, 5, shard),
            (Some(shard), 5, 0, shard),
            (Some(shard), 5, 6, SpendKey::Day),
            (Some(SpendKey::Day), 5, 0, SpendKey::Day),
            (None, 0, 0, SpendKey::Day),
        ] {
            assert_eq!(settled_at(taken_from, reserved, spent), at, "{taken_from:?} {reserved} {spent}");
        }
    }

    #[test]
    fn a_full_day_is_believed_for_some_seconds() {
        let day = UtcDay::of(0);
        let full = FullDay { day, left_micro_usd: 6, at_ms: 10_000 };
        for (of, micro_usd, now_ms, holds) in [
            (day, 7, 10_000, true),
            (day, 7, 14_999, true),
            (day, 7, 15_000, false),
            (day, 7, 5_000, false),
            (day, 6, 10_000, false),
            (UtcDay::of(86_400_000), 7, 10_000, false),
        ] {
            assert_eq!(full.holds(of, micro_usd, now_ms), holds, "{of} {micro_usd} {now_ms}");
        }
    }

    #[test]
    fn what_shards_hold_is_for_nobody_while_the_day_is_beyond_a_cap_that_was_lowered() {
        use SpendKey::{Day, Shard};
        let spread = Spread::in_shards(3, 20);
        let id = id_at(spread, Shard(1));
        let check = (Day, SpendKind::Check { cap_micro_usd: 600 });
        let draw = |shard, micro_usd| (Shard(shard), SpendKind::Draw { micro_usd });
        let exactly = (Day, SpendKind::Reserve { micro_usd: 7, cap_micro_usd: 600, shard: None });
        let from = Reserved::From;
        let no_room = Reserved::NoRoom { left_micro_usd: 0 };
        for (spread, day, ended, asked) in [
            (spread, 600, from(Shard(1)), vec![check, draw(1, 7)]),
            (spread, 601, no_room, vec![check]),
            (Spread::default(), 600, from(Shard(1)), vec![exactly, check, draw(1, 7)]),
            (Spread::default(), 601, no_room, vec![exactly, check]),
        ] {
            let micro_usd = [(Shard(1), 9), (Day, day)].into();
            let mut records = Records { micro_usd, shards: [1].into() };
            let found = records.reserve(spread.reserve(&id, 7, 600, false));
            assert_eq!(found, (ended, asked, Some(day == 600)), "{day} {spread:?}");
        }
        // What the day itself pays shows that it is within the cap.
        let mut reserving = Spread::default().reserve(&id, 7, 600, false);
        assert_eq!(reserving.next(), Ok(exactly));
        reserving.answered(SpendAnswer::Counted);
        assert_eq!(reserving.is_within_cap(), Some(true));
    }

    proptest! {
        /// Whatever the shards of each of them, with some of them under way beside each other, and whatever cap was deployed
        /// last: another cap comes with other environments, which know nothing of the day.
        #[test]
        fn the_cap_holds_and_its_last_call_is_found(
            steps in prop::collection::vec(
                (0_u32..40, 0_u32..6, 0_u64..300, 1_u64..60, 0_u64..60, any::<bool>(), 0_usize..12), 1..120,
            ),
        ) {
            let (mut records, mut committed, mut under_way) = (Records::default(), 0, Vec::new());
            let (mut cap, mut within_cap) = (1_000, BTreeSet::new());
            for (invocation, shards, block_micro_usd, reserved_micro_usd, spent_micro_usd, settles, other) in steps {
                if let Some(deployed) = [500, 1_000, 1_500].get(other) {
                    (cap, within_cap) = (*deployed, BTreeSet::new());
                }
                let spread = Spread::in_shards(shards, block_micro_usd);
                let spent_micro_usd = spent_micro_usd.min(reserved_micro_usd);
                let room = records.spent().room_micro_usd(cap);
                let id = format!("i-{invocation}");
                let environment = invocation % 5;
                let reserving =
                    spread.reserve(&id, reserved_micro_usd, cap, within_cap.contains(&environment));
                let (ended, _, is_within) = records.reserve(reserving);
                match is_within {
                    Some(true) => _ = within_cap.insert(environment),
                    Some(false) => _ = within_cap.remove(&environment),
                    None => {}
                }
                match ended {
                    Reserved::From(key) => {
                        committed += reserved_micro_usd;
                        prop_assert!(committed <= cap);
                        under_way.push((key, reserved_micro_usd, spent_micro_usd));
                    }
                    Reserved::NoRoom { left_micro_usd } => {
                        prop_assert!(reserved_micro_usd > room, "{} of {}", reserved_micro_usd, room);
                        prop_assert_eq!(left_micro_usd, room);
                    }
                }
                if settles && !under_way.is_empty() {
                    let (key, reserved_micro_usd, spent_micro_usd) = under_way.remove(0);
                    let key = settled_at(Some(key), reserved_micro_usd, spent_micro_usd);
                    let kind = SpendKind::Settle {
                        reserved_micro_usd,
                        spent_micro_usd,
                        answered_at_ms: None,
                        called_at_ms: None,
                    };
                    records.change(key, kind);
                    committed = committed + spent_micro_usd - reserved_micro_usd;
                }
                let now = records.spent();
                prop_assert_eq!(now.committed_micro_usd, committed);
            }
        }
    }
}
