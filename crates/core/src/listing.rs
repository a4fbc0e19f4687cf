//! What operating asks the ledger: which records are not settled or wait for a person, a page at a time.
//!
//! They stand in a sparse index, in the order in which workers first received them. The index may be spread over several
//! keys, so that none of them is too hot; a page is then merged from all of them ([`merge`]).

use serde::{Deserialize, Serialize};

use crate::failure::FailureReason;
use crate::input_hash::InputHash;
use crate::record::{Done, Record, State};

/// Why a record stands in the index.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Unsettled {
    /// It was handed back.
    Open,
    /// A worker has it, or had it and died.
    Claimed,
    /// It cannot succeed.
    Failed,
    /// It has a result that a person should look at.
    NeedsReview,
}

impl Unsettled {
    /// All of them.
    pub const ALL: [Self; 4] = [Self::Open, Self::Claimed, Self::Failed, Self::NeedsReview];

    /// The word that stands in the index.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Open => "open",
            Self::Claimed => "claimed",
            Self::Failed => "failed",
            Self::NeedsReview => "needs_review",
        }
    }

    /// Why a record in this state stands there; a result that nobody need look at does not.
    #[must_use]
    pub fn of(state: &State) -> Option<Self> {
        match state {
            State::Open => Some(Self::Open),
            State::Claimed { .. } => Some(Self::Claimed),
            State::Failed(_) => Some(Self::Failed),
            State::Erased => None,
            State::Done(done) => (done.needs_review && !done.reviewed).then_some(Self::NeedsReview),
        }
    }
}

/// Which records are asked for. An empty list asks for all.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Selection {
    /// Those that stand in the index for this.
    pub unsettled: Unsettled,
    /// Those that failed for one of these reasons.
    pub reasons: Vec<FailureReason>,
    /// Those of one of these tasks, at most 100: DynamoDB's limit for a list in a condition.
    pub tasks: Vec<String>,
    /// Those that failed at this time or later, in milliseconds since 1970.
    pub failed_after_ms: Option<u64>,
    /// Those that failed before this time.
    pub failed_before_ms: Option<u64>,
}

impl Selection {
    /// All that stand there for this.
    #[must_use]
    pub fn all(unsettled: Unsettled) -> Self {
        Self { unsettled, reasons: vec![], tasks: vec![], failed_after_ms: None, failed_before_ms: None }
    }

    /// Whether a record is one of those; what the table evaluates, for the stores that we hold in memory.
    #[must_use]
    pub fn matches(&self, record: &Record) -> bool {
        let failed = match &record.state {
            State::Failed(failed) => Some(failed),
            _ => None,
        };
        let at = |holds: &dyn Fn(u64) -> bool| failed.is_some_and(|failed| holds(failed.failed_at_ms));
        Unsettled::of(&record.state) == Some(self.unsettled)
            && (self.reasons.is_empty() || failed.is_some_and(|failed| self.reasons.contains(&failed.reason)))
            && (self.tasks.is_empty() || record.task.as_ref().is_some_and(|task| self.tasks.contains(task)))
            && self.failed_after_ms.is_none_or(|after_ms| at(&|ms| ms >= after_ms))
            && self.failed_before_ms.is_none_or(|before_ms| at(&|ms| ms < before_ms))
    }
}

/// How a result stands with reviewers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Review {
    /// A person should look at it.
    Needed,
    /// A person has.
    Done,
    /// Nobody need.
    None,
}

impl Review {
    /// How this result stands.
    #[must_use]
    pub fn of(done: &Done) -> Self {
        match (done.reviewed, done.needs_review) {
            (true, _) => Self::Done,
            (false, true) => Self::Needed,
            (false, false) => Self::None,
        }
    }
}

/// Which results are asked for. An empty list asks for all.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ResultSelection {
    /// Those of one of these tasks, at most 100: DynamoDB's limit for a list in a condition.
    pub tasks: Vec<String>,
    /// Those that were finished at this time or later, in milliseconds since 1970.
    pub finished_after_ms: Option<u64>,
    /// Those that were finished before this time.
    pub finished_before_ms: Option<u64>,
    /// Those that this revision made.
    pub revision: Option<String>,
    /// Those that stand so with reviewers.
    pub review: Option<Review>,
}

impl ResultSelection {
    /// Whether a record is one of those; what the table evaluates, for the stores that we hold in memory.
    #[must_use]
    pub fn matches(&self, record: &Record) -> bool {
        let State::Done(done) = &record.state else { return false };
        (self.tasks.is_empty() || record.task.as_ref().is_some_and(|task| self.tasks.contains(task)))
            && self.finished_after_ms.is_none_or(|after_ms| done.finished_at_ms >= after_ms)
            && self.finished_before_ms.is_none_or(|before_ms| done.finished_at_ms < before_ms)
            && self.revision.as_ref().is_none_or(|revision| done.revision.hash == *revision)
            && self.review.is_none_or(|review| Review::of(done) == review)
    }
}

/// In which order.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Order {
    /// What was received first comes first.
    OldestFirst,
    /// What was received last comes first.
    NewestFirst,
}

impl Order {
    /// Whether the first of two times comes before the second.
    fn is_before(self, a_ms: u64, b_ms: u64) -> bool {
        match self {
            Self::OldestFirst => a_ms < b_ms,
            Self::NewestFirst => a_ms > b_ms,
        }
    }
}

/// What the index says of a record; the rest of it is read by its key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// Of the record in the table.
    pub key: InputHash,
    /// Its task; `None` when the body could not be parsed.
    pub task: Option<String>,
    /// When a worker first received it, in milliseconds since 1970.
    pub first_received_ms: u64,
    /// Why it failed, in the word of whichever release.
    pub reason: Option<String>,
    /// When it failed or was finished.
    pub settled_at_ms: Option<u64>,
    /// Until when its claim holds.
    pub lease_until_ms: Option<u64>,
}

impl Entry {
    /// The entry of a record, for the stores that we hold in memory.
    #[must_use]
    pub fn of(record: &Record) -> Self {
        let (reason, settled_at_ms, lease_until_ms) = match &record.state {
            State::Open => (None, None, None),
            State::Claimed { lease_until_ms, .. } => (None, None, Some(*lease_until_ms)),
            State::Done(done) => (None, Some(done.finished_at_ms), None),
            State::Failed(failed) => (Some(failed.reason.to_string()), Some(failed.failed_at_ms), None),
            State::Erased => (None, record.erased.map(|erasure| erasure.at_ms), None),
        };
        Self {
            key: record.key.clone(),
            task: record.task.clone(),
            first_received_ms: record.first_received_ms,
            reason,
            settled_at_ms,
            lease_until_ms,
        }
    }
}

/// How far one key of the index has been looked through.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Place {
    /// Not at all.
    Start,
    /// Up to this record, whether it was one of those asked for or not.
    After {
        /// When a worker first received it.
        first_received_ms: u64,
        /// Decides between records that were received in the same millisecond.
        key: InputHash,
    },
    /// To the end.
    End,
}

/// Where the next page begins: a place for each key of the index.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Position(Vec<Place>);

impl Position {
    /// The beginning of an index of so many keys.
    #[must_use]
    pub fn start(keys: usize) -> Self {
        Self(vec![Place::Start; keys])
    }

    /// Where the next page begins, unless all keys are at their end.
    #[must_use]
    pub fn next(places: Vec<Place>) -> Option<Self> {
        places.iter().any(|place| *place != Place::End).then_some(Self(places))
    }

    /// The places, in the order of the index's keys.
    #[must_use]
    pub fn places(&self) -> &[Place] {
        &self.0
    }
}

/// What a look at one key of the index found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Look {
    /// What was asked for, in order.
    pub entries: Vec<Entry>,
    /// How far it got.
    pub place: Place,
}

/// One page of all keys of the index: what can be said to come next, in order, and where the next page begins (`None`:
/// there is none). What one key has beyond the place that another one got to waits for the next page.
///
/// Each page gets further, since the key that got least far gives all that it has. Entries that were received in the same
/// millisecond come in any order.
#[must_use]
pub fn merge(order: Order, from: &Position, looks: Vec<Look>) -> (Vec<Entry>, Option<Position>) {
    let reached = looks.iter().filter_map(|look| match &look.place {
        Place::After { first_received_ms, .. } => Some(*first_received_ms),
        Place::Start | Place::End => None,
    });
    let bound_ms = reached.reduce(|a, b| if order.is_before(b, a) { b } else { a });
    let mut page = Vec::new();
    let mut places = Vec::new();
    for (look, from) in looks.into_iter().zip(&from.0) {
        let waits = |entry: &Entry| bound_ms.is_some_and(|ms| order.is_before(ms, entry.first_received_ms));
        let ready = look.entries.iter().take_while(|entry| !waits(entry)).count();
        places.push(match look.entries.get(..ready).and_then(<[_]>::last) {
            _ if ready == look.entries.len() => look.place,
            None => from.clone(),
            Some(last) => Place::After { first_received_ms: last.first_received_ms, key: last.key.clone() },
        });
        page.extend(look.entries.into_iter().take(ready));
    }
    match order {
        Order::OldestFirst => page.sort_by_key(|entry| entry.first_received_ms),
        Order::NewestFirst => page.sort_by_key(|entry| std::cmp::Reverse(entry.first_received_ms)),
    }
    (page, Position::next(places))
}

/// One page of a list.
#[derive(Debug, Clone, PartialEq)]
pub struct Page {
    /// What was asked for, in order. A page may be empty, and others follow: what was looked at was something else.
    pub entries: Vec<Entry>,
    /// Where the next page begins; `None`: there is none.
    pub next: Option<Position>,
    /// What reading it took, in DynamoDB's read units; 0 where nobody counts.
    pub read_units: f64,
}

/// One page of a count.
#[derive(Debug, Clone, PartialEq)]
pub struct Counted {
    /// How many of those that were looked at were asked for.
    pub records: u64,
    /// Where to go on; `None`: all were looked at.
    pub next: Option<Position>,
    /// What reading it took, in DynamoDB's read units; 0 where nobody counts.
    pub read_units: f64,
}

/// A record, and what stands beside it.
#[derive(Debug, Clone, PartialEq)]
pub struct Standing {
    /// The record. It may be expired: DynamoDB deletes late.
    pub record: Record,
    /// How many further messages with the same input were counted.
    pub duplicates: u64,
}

/// What stands under a key.
#[derive(Debug, Clone, PartialEq)]
pub enum Lookup {
    /// Nothing.
    Absent,
    /// A record.
    Found(Box<Standing>),
    /// Something that this release cannot read; why, without its values.
    Unreadable(String),
}

impl Lookup {
    /// The record, if there is one that can be read.
    #[must_use]
    pub fn record(&self) -> Option<&Record> {
        match self {
            Self::Found(standing) => Some(&standing.record),
            Self::Absent | Self::Unreadable(_) => None,
        }
    }
}

/// One page of a scan of the whole table.
#[derive(Debug, Clone, PartialEq)]
pub struct Scanned {
    /// What was asked for, in no order.
    pub found: Vec<(InputHash, Lookup)>,
    /// The key after which to go on; `None`: all were looked at.
    pub next: Option<InputHash>,
    /// How many items were looked at.
    pub looked_at: u64,
    /// What reading it took, in DynamoDB's read units; 0 where nobody counts.
    pub read_units: f64,
}

/// How large the table is, as DynamoDB last counted: about every six hours (DynamoDB API Reference, `TableDescription`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TableSize {
    /// Items, the few that are no records included.
    pub items: u64,
    /// Of all items together, the index apart.
    pub bytes: u64,
}

impl TableSize {
    /// About how many read units a scan of all of it takes, eventually consistent: half a unit for each 4 KB (DynamoDB
    /// Developer Guide, "DynamoDB read and write operations").
    #[must_use]
    pub fn scan_read_units(&self) -> u64 {
        self.bytes.div_ceil(8 * 1_024)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::record::{Budget, Failed, Revision};
    use serde_json::json;

    fn record(state: State) -> Record {
        Record {
            key: InputHash::of_body("x"),
            task: Some("a".to_owned()),
            reference: None,
            version: 1,
            token: "t".to_owned(),
            state,
            previous: None,
            message_id: "m".to_owned(),
            sent_at_ms: 1,
            first_received_ms: 2,
            last_claimed_ms: 3,
            budget: Budget::default(),
            redrives: 0,
            history: Vec::new(),
            letter_version: None,
            erased: None,
            kept: None,
            reviewed: None,
            expires_at_ms: 9_000,
        }
    }

    fn done(needs_review: bool, reviewed: bool) -> State {
        State::Done(Box::new(Done {
            output: json!(1),
            needs_review,
            reviewed,
            revision: Revision::default(),
            model: "m".to_owned(),
            finished_at_ms: 7,
        }))
    }

    fn failed(reason: FailureReason, failed_at_ms: u64) -> State {
        State::Failed(Box::new(Failed {
            reason,
            detail: String::new(),
            failed_at_ms,
            request_id: None,
            excerpt: None,
            revision: Revision::default(),
        }))
    }

    #[test]
    fn what_is_not_settled_and_what_a_person_should_see_stands_in_the_index() {
        for (state, unsettled) in [
            (State::Open, Some(Unsettled::Open)),
            (State::Claimed { lease_until_ms: 1, alone: false }, Some(Unsettled::Claimed)),
            (failed(FailureReason::Refused, 1), Some(Unsettled::Failed)),
            (done(false, false), None),
            (done(true, false), Some(Unsettled::NeedsReview)),
            (done(true, true), None),
            (done(false, true), None),
            (State::Erased, None),
        ] {
            assert_eq!(Unsettled::of(&state), unsettled, "{state:?}");
        }
    }

    #[test]
    fn a_selection_of_results_is_all_of_its_parts() {
        let all = ResultSelection::default;
        let result = record(done(true, false));
        for (selection, record, matches) in [
            (all(), &result, true),
            (all(), &record(State::Open), false),
            (ResultSelection { tasks: vec!["a".to_owned()], ..all() }, &result, true),
            (ResultSelection { tasks: vec!["b".to_owned()], ..all() }, &result, false),
            (ResultSelection { finished_after_ms: Some(7), ..all() }, &result, true),
            (ResultSelection { finished_after_ms: Some(8), ..all() }, &result, false),
            (ResultSelection { finished_before_ms: Some(8), ..all() }, &result, true),
            (ResultSelection { finished_before_ms: Some(7), ..all() }, &result, false),
            (ResultSelection { revision: Some(String::new()), ..all() }, &result, true),
            (ResultSelection { revision: Some("x".to_owned()), ..all() }, &result, false),
            (ResultSelection { review: Some(Review::Needed), ..all() }, &result, true),
            (ResultSelection { review: Some(Review::None), ..all() }, &result, false),
            (ResultSelection { review: Some(Review::Done), ..all() }, &record(done(true, true)), true),
            (ResultSelection { review: Some(Review::None), ..all() }, &record(done(false, false)), true),
        ] {
            assert_eq!(selection.matches(record), matches, "{selection:?}");
        }
    }

    #[test]
    fn a_selection_is_all_of_its_parts() {
        let all = || Selection::all(Unsettled::Failed);
        let refused = record(failed(FailureReason::Refused, 50));
        let nameless = Record { task: None, ..refused.clone() };
        for (selection, record, matches) in [
            (all(), &refused, true),
            (Selection::all(Unsettled::Open), &refused, false),
            (Selection { reasons: vec![FailureReason::Refused], ..all() }, &refused, true),
            (
                Selection { reasons: vec![FailureReason::Poison, FailureReason::Refused], ..all() },
                &refused,
                true,
            ),
            (Selection { reasons: vec![FailureReason::Poison], ..all() }, &refused, false),
            (Selection { tasks: vec!["a".to_owned()], ..all() }, &refused, true),
            (Selection { tasks: vec!["b".to_owned()], ..all() }, &refused, false),
            (Selection { tasks: vec!["a".to_owned()], ..all() }, &nameless, false),
            (Selection { failed_after_ms: Some(50), ..all() }, &refused, true),
            (Selection { failed_after_ms: Some(51), ..all() }, &refused, false),
            (Selection { failed_before_ms: Some(51), ..all() }, &refused, true),
            (Selection { failed_before_ms: Some(50), ..all() }, &refused, false),
            // What has not failed has no such time.
            (
                Selection { failed_after_ms: Some(0), ..Selection::all(Unsettled::Open) },
                &record(State::Open),
                false,
            ),
        ] {
            assert_eq!(selection.matches(record), matches, "{selection:?}");
        }
    }

    fn entry(name: &str, first_received_ms: u64) -> Entry {
        let record = Record { first_received_ms, key: InputHash::of_body(name), ..record(State::Open) };
        Entry::of(&record)
    }

    /// An index of several keys, looked through `step` entries at a time, of which those with an even time are asked for.
    fn walk(order: Order, keys: &[Vec<Entry>], step: usize) -> Vec<Entry> {
        let before = |a: &Entry, b: &Entry| match order {
            Order::OldestFirst => a.first_received_ms < b.first_received_ms,
            Order::NewestFirst => a.first_received_ms > b.first_received_ms,
        };
        let mut position = Some(Position::start(keys.len()));
        let mut walked: Vec<Entry> = Vec::new();
        let mut pages = 0;
        while let Some(from) = position {
            let looks = keys.iter().zip(from.places()).map(|(entries, place)| {
                let at = match place {
                    Place::Start => 0,
                    Place::After { key, .. } => {
                        entries.iter().position(|entry| entry.key == *key).unwrap() + 1
                    }
                    Place::End => entries.len(),
                };
                let seen = &entries[at..(at + step).min(entries.len())];
                let place = match seen.last() {
                    Some(last) if at + seen.len() < entries.len() => {
                        Place::After { first_received_ms: last.first_received_ms, key: last.key.clone() }
                    }
                    _ => Place::End,
                };
                let asked = seen.iter().filter(|entry| entry.first_received_ms.is_multiple_of(2));
                Look { entries: asked.cloned().collect(), place }
            });
            let (page, next) = merge(order, &from, looks.collect());
            for entry in page {
                assert!(!walked.last().is_some_and(|last| before(&entry, last)), "out of order");
                walked.push(entry);
            }
            assert_ne!(next, Some(from), "a page that gets nowhere");
            position = next;
            pages += 1;
            assert!(pages < 1_000, "it does not end");
        }
        walked
    }

    #[test]
    fn pages_of_several_keys_are_one_list_in_which_nothing_is_twice_or_missing() {
        // Spread evenly, all in one key, one key far behind the others, many at the same time.
        let spreads: [&dyn Fn(u64) -> usize; 4] = [
            &|n| usize::try_from(n % 3).unwrap(),
            &|_| 1,
            &|n| usize::from(n > 40) + usize::from(n > 50),
            &|n| usize::try_from(n * n % 3).unwrap(),
        ];
        for (which, spread) in spreads.iter().enumerate() {
            for order in [Order::OldestFirst, Order::NewestFirst] {
                for step in [1, 2, 7, 100] {
                    let mut keys = vec![Vec::new(), Vec::new(), Vec::new()];
                    for n in 0..60 {
                        let at_ms = if which == 3 { n / 10 * 2 } else { n };
                        keys[spread(n)].push(entry(&n.to_string(), at_ms));
                    }
                    if order == Order::NewestFirst {
                        keys.iter_mut().for_each(|entries| entries.reverse());
                    }
                    let mut expected: Vec<_> = keys
                        .iter()
                        .flatten()
                        .filter(|entry| entry.first_received_ms.is_multiple_of(2))
                        .collect();
                    let walked = walk(order, &keys, step);
                    let mut walked: Vec<_> = walked.iter().collect();
                    walked.sort_by_key(|entry| &entry.key);
                    expected.sort_by_key(|entry| &entry.key);
                    assert_eq!(walked, expected, "spread {which}, {order:?}, {step} at a time");
                }
            }
        }
    }

    #[test]
    fn a_position_outlives_the_process_that_got_to_it() {
        let place = Place::After { first_received_ms: 5, key: InputHash::of_body("x") };
        let position = Position::next(vec![Place::Start, place, Place::End]).unwrap();
        let text = serde_json::to_string(&position).unwrap();
        assert_eq!(serde_json::from_str::<Position>(&text).unwrap(), position);
        assert_eq!(Position::next(vec![Place::End, Place::End]), None);
    }

    #[test]
    fn a_scan_reads_eight_kilobytes_with_a_unit() {
        for (bytes, units) in [(0, 0), (1, 1), (8_192, 1), (8_193, 2), (3_000_000_000, 366_211)] {
            assert_eq!(TableSize { items: 1, bytes }.scan_read_units(), units, "{bytes}");
        }
    }

    #[test]
    fn only_what_can_be_read_is_a_record() {
        let standing = Standing { record: record(State::Open), duplicates: 0 };
        assert_eq!(Lookup::Found(Box::new(standing.clone())).record(), Some(&standing.record));
        for nothing in [Lookup::Absent, Lookup::Unreadable("version 9".to_owned())] {
            assert_eq!(nothing.record(), None);
        }
    }

    #[test]
    fn each_state_has_its_word_in_the_index() {
        assert_eq!(Unsettled::ALL.map(Unsettled::as_str), ["open", "claimed", "failed", "needs_review"]);
    }

    #[test]
    fn an_entry_says_when_its_record_was_settled_and_until_when_it_is_claimed() {
        for (state, reason, settled_at_ms, lease_until_ms) in [
            (State::Open, None, None, None),
            (State::Claimed { lease_until_ms: 5, alone: false }, None, None, Some(5)),
            (failed(FailureReason::Refused, 6), Some("refused"), Some(6), None),
            (done(true, false), None, Some(7), None),
        ] {
            let entry = Entry::of(&record(state));
            assert_eq!((entry.task.as_deref(), entry.first_received_ms), (Some("a"), 2));
            assert_eq!(entry.reason.as_deref(), reason, "{entry:?}");
            assert_eq!((entry.settled_at_ms, entry.lease_until_ms), (settled_at_ms, lease_until_ms));
        }
    }
}
