//! What holds all workers back: one entry for each cause, in one record under one version.
//!
//! **A record lives longer than a deploy.** Workers and commands of before the entries know one pause, its reason and its
//! time. So `told` stands beside the entries whenever one of them holds work back, and is read as follows:
//! it is gone, or it never was: an older `resume`, or a person with the AWS CLI, lifted everything, whatever entries were
//! left behind; it is not what was written with the entries: somebody paused in the old form, which is an operator's.
//! An entry in words that are not known here is kept as it is, and holds everything back.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use strum::{IntoStaticStr, VariantArray};

use crate::metric::HandBackCause;

const JUST_SHUT_MS: u64 = 4 * 60_000;
/// AWS refuses requests by clocks that are further apart ("Troubleshoot signed requests for AWS APIs").
const CLOCKS_MS: u64 = 5 * 60_000;
/// In so long what waited in a pause is worked off, or `oldest-job-too-old` has called long since.
const BACKLOG_MS: u64 = 24 * 3_600_000;

/// Why work is held back. The order is that in which one is named where several stand.
#[derive(
    Debug,
    Clone,
    Copy,
    PartialEq,
    Eq,
    PartialOrd,
    Ord,
    Hash,
    VariantArray,
    IntoStaticStr,
    Serialize,
    Deserialize,
)]
#[serde(rename_all = "snake_case")]
#[strum(serialize_all = "snake_case")]
pub enum Cause {
    /// A person paused, and a person resumes.
    Operator,
    /// The account is refused: its key, its credit, its access to the model.
    Account,
    /// The provider answers nobody.
    Outage,
    /// The day's money is spent.
    SpendCap,
    /// Claims die, one after the other, and no invocation says that a call was over.
    Deaths,
    /// SQS is near the 120,000 messages in flight beyond which it delivers nothing, without an error.
    InFlight,
}

impl Cause {
    /// All of them.
    pub const ALL: &'static [Self] = <Self as VariantArray>::VARIANTS;

    /// The word in the record, in metrics and on the screen.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        self.into()
    }

    /// As what the messages are handed back that a worker receives all the same.
    #[must_use]
    pub fn of_hand_back(self) -> HandBackCause {
        match self {
            Self::Operator | Self::Deaths | Self::InFlight => HandBackCause::Paused,
            Self::Account => HandBackCause::Account,
            Self::Outage => HandBackCause::Outage,
            Self::SpendCap => HandBackCause::SpendCap,
        }
    }
}

/// How far the way back is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Phase {
    /// Nothing is called.
    Paused,
    /// One smallest call is on its way.
    Probing,
    /// So many calls of jobs may be open at once, in all environments together.
    Reopening {
        /// At least 1.
        width: u32,
    },
    /// Nothing is held back; the entry stands for a while, so that a relapse is seen as one.
    Open,
}

/// One cause.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Entry {
    /// Where it stands.
    pub phase: Phase,
    /// When it was written first, by the clock of whoever did, in milliseconds since 1970; 0: a person who typed it in left it
    /// out, and the sentinel writes when it saw it.
    pub since_ms: u64,
    /// When its phase began.
    pub phase_since_ms: u64,
    /// Why, for people.
    pub reason: String,
    /// Who wrote it.
    pub who: String,
    /// How often it came back within ten minutes of its end.
    #[serde(default)]
    pub relapses: u32,
    /// The task whose job met it; a probe asks with its schema.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub task: Option<String>,
    /// What ends it, in the words of its cause: the function's version under which claims died, the UTC day and the cap
    /// that was reached.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub until_other_than: Option<String>,
    /// What another release added.
    #[serde(flatten)]
    pub more: Map<String, Value>,
}

impl Entry {
    /// A pause that begins.
    #[must_use]
    pub fn paused(now_ms: u64, reason: impl Into<String>, who: impl Into<String>) -> Self {
        Self {
            phase: Phase::Paused,
            since_ms: now_ms,
            phase_since_ms: now_ms,
            reason: reason.into(),
            who: who.into(),
            relapses: 0,
            task: None,
            until_other_than: None,
            more: Map::new(),
        }
    }

    /// Why, and by whom.
    #[must_use]
    pub fn said(&self) -> String {
        if self.who.is_empty() { self.reason.clone() } else { format!("{} (by {})", self.reason, self.who) }
    }

    /// The same entry in another phase.
    #[must_use]
    pub fn in_phase(&self, phase: Phase, now_ms: u64) -> Self {
        Self { phase, phase_since_ms: now_ms, ..self.clone() }
    }

    /// It came back: the wait for the next probe doubles.
    #[must_use]
    pub fn relapsed(&self, now_ms: u64, reason: impl Into<String>, who: impl Into<String>) -> Self {
        Self {
            relapses: self.relapses.saturating_add(1),
            reason: reason.into(),
            who: who.into(),
            ..self.in_phase(Phase::Paused, now_ms)
        }
    }
}

/// What a worker may do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Admits {
    /// Work.
    All,
    /// Work on so many calls at once, in all environments together; what does not fit is handed back for the cause.
    Width(u32, HandBackCause),
    /// Hand everything back.
    Nothing(HandBackCause),
}

/// What is told to all workers.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Control {
    /// Grows with every write; 0: none of ours was written yet.
    pub version: u64,
    /// By cause.
    pub entries: BTreeMap<Cause, Entry>,
    /// Entries in words that are not known here, under their names.
    pub foreign: Map<String, Value>,
    /// When work was last let through where something had held it back, by the clock of whoever did, in milliseconds since
    /// 1970; `None`: never, or only by releases that do not say so.
    pub opened_at_ms: Option<u64>,
    /// When the first of the pauses began in which jobs may have waited that wait still; it outlives them, and the next pause
    /// has it where it begins within a day of their end. `None`: there was none, or none that a release knew which says so.
    remembered_since_ms: Option<u64>,
    /// The pause in the old form, as it was read: a write is only over what was read.
    told: Option<String>,
    /// Whether it was taken away in the old form.
    lifted: bool,
}

/// The record as it stands in the table.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Stored {
    /// Grows with each write, which names the one that it has read; none in records older than versions.
    pub version: Option<u64>,
    /// `entries`: a JSON object of them, by cause.
    pub entries: Option<String>,
    /// `paused_reason`: the old form.
    pub paused_reason: Option<String>,
    /// `paused_since_ms`: the old form; a person who typed the pause in may have left it out.
    pub paused_since_ms: Option<u64>,
    /// `paused_told`: the old form's reason as it was written together with the entries.
    pub paused_told: Option<String>,
    /// `opened_at_ms`: older releases leave it as it is.
    pub opened_at_ms: Option<u64>,
    /// `waited_since_ms`: the same.
    pub waited_since_ms: Option<u64>,
}

impl Control {
    /// A record with one pause, as an operator writes it.
    #[must_use]
    pub fn paused_by_operator(now_ms: u64, reason: &str, who: &str) -> Self {
        Self::default().with(Cause::Operator, Entry::paused(now_ms, reason, who))
    }

    /// What an item says. Whatever stands there has a meaning, so that no record locks a stack.
    #[must_use]
    pub fn read(stored: Stored) -> Self {
        let version = stored.version.unwrap_or_default();
        let told = stored.paused_reason.clone();
        let Stored { opened_at_ms, waited_since_ms: remembered_since_ms, .. } = stored;
        let mut control = Self { version, told, opened_at_ms, remembered_since_ms, ..Self::default() };
        let Ok(entries) =
            serde_json::from_str::<Map<String, Value>>(stored.entries.as_deref().unwrap_or("{}"))
        else {
            // Another form of all of it: kept, and obeyed.
            control.foreign.insert("entries".to_owned(), stored.entries.into());
            return control;
        };
        for (word, value) in entries {
            let cause = Cause::ALL.iter().find(|cause| cause.as_str() == word);
            match cause.and_then(|cause| Some((*cause, serde_json::from_value(value.clone()).ok()?))) {
                Some((cause, entry)) => {
                    control.entries.insert(cause, entry);
                }
                None => {
                    control.foreign.insert(word, value);
                }
            }
        }
        match &stored.paused_reason {
            None => {
                control.lifted = !control.is_open();
                control.remembered_since_ms = control.waited_since_ms();
                control.entries.retain(|_, entry| entry.phase == Phase::Open);
                control.foreign.clear();
            }
            Some(reason) if stored.paused_told.as_ref() != Some(reason) => {
                let typed = Entry::paused(stored.paused_since_ms.unwrap_or_default(), reason, "");
                let entry = control.going_on(Cause::Operator, typed);
                control.entries.insert(Cause::Operator, entry);
            }
            Some(_) => {}
        }
        control
    }

    /// What the item is to say.
    #[must_use]
    pub fn stored(&self) -> Stored {
        let entries = self.entries.iter().map(|(cause, entry)| {
            (cause.as_str().to_owned(), serde_json::to_value(entry).unwrap_or_default())
        });
        let mut all: Map<String, Value> = self.foreign.clone();
        all.extend(entries);
        let told = self.in_old_form();
        Stored {
            version: Some(self.version),
            entries: Some(Value::Object(all).to_string()),
            paused_reason: told.as_ref().map(|(reason, _)| reason.clone()),
            paused_since_ms: told.as_ref().map(|(_, since_ms)| *since_ms),
            paused_told: told.map(|(reason, _)| reason),
            opened_at_ms: self.opened_at_ms,
            waited_since_ms: self.remembered_since_ms,
        }
    }

    /// The old form's reason as it was read.
    #[must_use]
    pub fn told(&self) -> Option<&str> {
        self.told.as_deref()
    }

    /// What older releases are told, and people on one line: every cause that holds work back, and since when.
    #[must_use]
    pub fn in_old_form(&self) -> Option<(String, u64)> {
        let held: Vec<(Cause, &Entry)> = self.holding().collect();
        let words = held.iter().map(|(cause, entry)| format!("{}: {}", cause.as_str(), entry.said()));
        let foreign = self.foreign.keys().map(|word| format!("{word} (of a newer release)"));
        let words: Vec<String> = words.chain(foreign).collect();
        let since_ms = held.iter().map(|(_, entry)| entry.since_ms).min().unwrap_or_default();
        (!words.is_empty()).then(|| (words.join("; "), since_ms))
    }

    /// The known causes that hold work back.
    pub fn holding(&self) -> impl Iterator<Item = (Cause, &Entry)> {
        self.entries
            .iter()
            .filter(|(_, entry)| entry.phase != Phase::Open)
            .map(|(cause, entry)| (*cause, entry))
    }

    /// Whether somebody took a pause away in the old form, without saying when.
    #[must_use]
    pub fn was_lifted(&self) -> bool {
        self.lifted
    }

    /// Whether anything holds work back.
    #[must_use]
    pub fn is_open(&self) -> bool {
        self.holding().next().is_none() && self.foreign.is_empty()
    }

    /// Whether no job may be called for at all.
    #[must_use]
    pub fn is_shut(&self) -> bool {
        matches!(self.admits(), Admits::Nothing(_))
    }

    /// Whether nobody may call, and so short a time that the event source may still lead jobs to workers: two runs of the
    /// sentinel, and the two minutes that Lambda takes to turn it. Later, they see jobs because SQS would delete them, or because
    /// no sentinel runs.
    #[must_use]
    pub fn is_just_shut(&self, now_ms: u64) -> bool {
        let shuts = |entry: &&Entry| matches!(entry.phase, Phase::Paused | Phase::Probing);
        let last = self.entries.values().filter(shuts).map(|entry| entry.since_ms).max();
        // A relapse keeps the time of its first pause, and comes after the way was opened.
        let last = last.map(|since_ms| since_ms.max(self.opened_at_ms.unwrap_or_default()));
        last.is_some_and(|since_ms| now_ms.abs_diff(since_ms) < JUST_SHUT_MS)
    }

    /// What a worker may do: the narrowest of what the causes allow.
    #[must_use]
    pub fn admits(&self) -> Admits {
        let mut admits = Admits::All;
        for (cause, entry) in self.holding() {
            match (entry.phase, admits) {
                (Phase::Paused | Phase::Probing, _) => return Admits::Nothing(cause.of_hand_back()),
                (Phase::Reopening { width }, Admits::Width(other, _)) if other <= width => {}
                (Phase::Reopening { width }, _) => admits = Admits::Width(width, cause.of_hand_back()),
                (Phase::Open, _) => {}
            }
        }
        if self.foreign.is_empty() { admits } else { Admits::Nothing(HandBackCause::Paused) }
    }

    /// The next version, with this entry for its cause, written when the entry's phase begins. Where the cause holds work
    /// back already, it goes on, and began when it did.
    #[must_use]
    pub fn with(&self, cause: Cause, entry: Entry) -> Self {
        let now_ms = entry.phase_since_ms;
        let (mut entries, mut foreign) = (self.entries.clone(), self.foreign.clone());
        foreign.remove(cause.as_str());
        entries.insert(cause, self.going_on(cause, entry));
        self.next(entries, foreign, now_ms)
    }

    /// Jobs have waited since the first pause, whose beginning says when SQS would delete them.
    fn going_on(&self, cause: Cause, entry: Entry) -> Entry {
        let standing = self.entries.get(&cause).filter(|standing| standing.phase != Phase::Open);
        let begins = [standing.map_or(0, |standing| standing.since_ms), entry.since_ms];
        let since_ms = begins.into_iter().filter(|since_ms| *since_ms > 0).min().unwrap_or_default();
        Entry { since_ms, ..entry }
    }

    /// The next version in which nothing holds: an operator lets the work go on.
    #[must_use]
    pub fn resumed(&self, now_ms: u64) -> Self {
        self.next(BTreeMap::new(), Map::new(), now_ms)
    }

    /// The next version with these entries of the known causes.
    #[must_use]
    pub fn with_all(&self, entries: BTreeMap<Cause, Entry>, now_ms: u64) -> Self {
        self.next(entries, self.foreign.clone(), now_ms)
    }

    /// The record as whoever reads it now that it is written.
    #[must_use]
    pub fn written(&self) -> Self {
        Self::read(self.stored())
    }

    /// Whether a refusal that found this record is that of our own write, whose reply was lost.
    #[must_use]
    pub fn stands_as(&self, standing: &Self) -> bool {
        self.stored() == standing.stored()
    }

    /// Each step to a wider way opens it anew: whoever waits for a turn on a narrow way still waits for the pause. That is not
    /// before a step which stands, by clocks that are minutes apart; what is written much later than now is a mistake.
    fn next(&self, entries: BTreeMap<Cause, Entry>, foreign: Map<String, Value>, now_ms: u64) -> Self {
        let mut next = Self { version: self.version + 1, entries, foreign, lifted: false, ..self.clone() };
        if next.width() > self.width() || self.lifted {
            let steps = self.entries.values().map(|entry| entry.phase_since_ms).chain(self.opened_at_ms);
            let soon = |at_ms: &u64| *at_ms <= now_ms.saturating_add(CLOCKS_MS);
            next.opened_at_ms = Some(steps.filter(soon).fold(now_ms, u64::max));
        }
        next.remembered_since_ms = match (self.waited_since_ms(), next.held_since_ms()) {
            (before, None) => before,
            (before, Some(since_ms)) => {
                let goes_on = self.held_since_ms().is_some()
                    || self.opened_at_ms.is_some_and(|at_ms| now_ms.saturating_sub(at_ms) < BACKLOG_MS);
                Some(before.filter(|_| goes_on).map_or(since_ms, |before| before.min(since_ms)))
            }
        };
        next
    }

    /// Since when jobs may have waited in pauses, the one that holds included.
    #[must_use]
    pub fn waited_since_ms(&self) -> Option<u64> {
        self.remembered_since_ms.into_iter().chain(self.held_since_ms()).min()
    }

    fn held_since_ms(&self) -> Option<u64> {
        self.holding().map(|(_, entry)| entry.since_ms).filter(|since_ms| *since_ms > 0).min()
    }

    /// How many calls may be open at once, in all environments together.
    fn width(&self) -> u32 {
        match self.admits() {
            Admits::Nothing(_) => 0,
            Admits::Width(width, _) => width,
            Admits::All => u32::MAX,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn old(reason: &str) -> Stored {
        Stored { paused_reason: Some(reason.to_owned()), paused_since_ms: Some(5), ..Stored::default() }
    }

    fn in_phase(phase: Phase) -> Entry {
        Entry::paused(7, "why", "who").in_phase(phase, 8)
    }

    #[test]
    fn a_record_is_read_as_it_was_written() {
        let control = Control::default()
            .with(Cause::Account, in_phase(Phase::Reopening { width: 4 }))
            .with(Cause::Outage, Entry { task: Some("t".to_owned()), ..in_phase(Phase::Probing) });
        let written = control.written();
        assert_eq!((&written.entries, written.version), (&control.entries, 2));
        assert_eq!(written.told(), control.stored().paused_reason.as_deref());
        assert_eq!(
            control.stored().paused_reason.as_deref(),
            Some("account: why (by who); outage: why (by who)")
        );
        assert_eq!(control.stored().paused_since_ms, Some(7));
    }

    #[test]
    fn the_pause_of_older_releases_is_the_operators_and_their_resume_lifts_everything() {
        let account = Control::default().with(Cause::Account, in_phase(Phase::Paused)).stored();
        let causes = |stored| Control::read(stored).entries.into_keys().collect::<Vec<_>>();
        for (stored, expected) in [
            (Stored::default(), vec![]),
            (old("bad deploy"), vec![Cause::Operator]),
            (Stored { paused_since_ms: None, ..old("by hand") }, vec![Cause::Operator]),
            (account.clone(), vec![Cause::Account]),
            // An older `pause` over an entry, and an older `resume`.
            (
                Stored { paused_reason: Some("INC-42".to_owned()), ..account.clone() },
                vec![Cause::Operator, Cause::Account],
            ),
            (Stored { paused_reason: None, paused_since_ms: None, ..account }, vec![]),
        ] {
            assert_eq!(causes(stored.clone()), expected, "{stored:?}");
        }
    }

    #[test]
    fn words_of_a_newer_release_are_kept_and_obeyed() {
        for entries in [
            r#"{"weather":{"phase":"paused"}}"#,
            r#"{"outage":{"phase":"dreaming","since_ms":1}}"#,
            r#"["another form"]"#,
        ] {
            let stored = Stored {
                version: Some(3),
                entries: Some(entries.to_owned()),
                paused_reason: Some("x".to_owned()),
                paused_told: Some("x".to_owned()),
                paused_since_ms: Some(1),
                opened_at_ms: Some(2),
                waited_since_ms: None,
            };
            let control = Control::read(stored);
            assert_eq!(control.admits(), Admits::Nothing(HandBackCause::Paused), "{entries}");
            let next = control.with(Cause::SpendCap, in_phase(Phase::Paused));
            assert_eq!(Control::read(next.stored()).foreign, control.foreign, "{entries}");
            assert_eq!(Control::read(next.stored()).opened_at_ms, Some(2), "{entries}");
            assert!(Control::read(control.resumed(9).stored()).is_open(), "{entries}");
        }
        let added = r#"{"outage":{"phase":"paused","since_ms":1,"phase_since_ms":1,"reason":"r","who":"w","mood":7}}"#;
        let stored = Stored { entries: Some(added.to_owned()), ..old("x") };
        let kept = Control::read(stored).entries[&Cause::Outage].in_phase(Phase::Probing, 2);
        assert_eq!(kept.more["mood"], 7);
    }

    #[test]
    fn the_narrowest_entry_decides_what_workers_may_do() {
        use Phase::{Open, Paused, Probing, Reopening};
        for (entries, expected) in [
            (vec![], Admits::All),
            (vec![(Cause::Outage, Open)], Admits::All),
            (vec![(Cause::Operator, Paused)], Admits::Nothing(HandBackCause::Paused)),
            (vec![(Cause::Account, Paused)], Admits::Nothing(HandBackCause::Account)),
            (vec![(Cause::Account, Probing)], Admits::Nothing(HandBackCause::Account)),
            (vec![(Cause::Outage, Paused)], Admits::Nothing(HandBackCause::Outage)),
            (vec![(Cause::SpendCap, Paused)], Admits::Nothing(HandBackCause::SpendCap)),
            (vec![(Cause::Deaths, Paused)], Admits::Nothing(HandBackCause::Paused)),
            (vec![(Cause::InFlight, Paused)], Admits::Nothing(HandBackCause::Paused)),
            (vec![(Cause::Outage, Reopening { width: 8 })], Admits::Width(8, HandBackCause::Outage)),
            (
                vec![(Cause::Account, Reopening { width: 2 }), (Cause::Outage, Reopening { width: 8 })],
                Admits::Width(2, HandBackCause::Account),
            ),
            (
                vec![(Cause::Account, Reopening { width: 8 }), (Cause::Outage, Reopening { width: 2 })],
                Admits::Width(2, HandBackCause::Outage),
            ),
            (
                vec![(Cause::Account, Reopening { width: 2 }), (Cause::SpendCap, Paused)],
                Admits::Nothing(HandBackCause::SpendCap),
            ),
        ] {
            let control = entries
                .iter()
                .fold(Control::default(), |control, (cause, phase)| control.with(*cause, in_phase(*phase)));
            assert_eq!(control.admits(), expected, "{entries:?}");
            // Older workers know no width, and wait until all is open.
            assert_eq!(control.stored().paused_reason.is_some(), expected != Admits::All, "{entries:?}");
        }
    }

    #[test]
    fn a_pause_is_young_for_four_minutes_whatever_its_probes() {
        const FOUR_MINUTES_MS: u64 = 240_000;
        let at = |phase, since_ms| Entry { since_ms, ..in_phase(phase) };
        let control = |phase, since_ms| Control::default().with(Cause::Outage, at(phase, since_ms));
        let narrow = at(Phase::Reopening { width: 1 }, 10);
        let opened = control(Phase::Paused, 10)
            .with(Cause::Outage, Entry { phase_since_ms: 900_000, ..narrow.clone() });
        let relapsed = opened.with(Cause::Outage, narrow.relapsed(900_005, "why", "who"));
        for (control, now_ms, expected) in [
            (Control::default(), 0, false),
            (control(Phase::Paused, 10), 10, true),
            (control(Phase::Paused, 10), FOUR_MINUTES_MS + 9, true),
            (control(Phase::Paused, 10), FOUR_MINUTES_MS + 10, false),
            (control(Phase::Probing, 10), FOUR_MINUTES_MS + 10, false),
            // A clock that is ahead.
            (control(Phase::Paused, FOUR_MINUTES_MS + 10), 10, false),
            (relapsed.clone(), 900_010, true),
            (relapsed, 900_010 + FOUR_MINUTES_MS, false),
            (control(Phase::Reopening { width: 1 }, 10), 10, false),
            (control(Phase::Open, 10), 10, false),
            // Whoever pauses over an older pause does it just now.
            (control(Phase::Paused, 10).with(Cause::Operator, at(Phase::Paused, 900_000)), 900_001, true),
        ] {
            assert_eq!(control.is_just_shut(now_ms), expected, "{control:?} {now_ms}");
        }
    }

    /// The jobs have waited since the first one, and SQS counts their days.
    #[test]
    fn whoever_pauses_again_what_is_paused_changes_the_reason_and_not_the_beginning() {
        let paused = |since_ms| Control::paused_by_operator(since_ms, "first", "one");
        let again = Entry::paused(90, "still", "other");
        let by_hand = |control: Control, since_ms| {
            let paused_reason = Some("still".to_owned());
            Control::read(Stored { paused_reason, paused_since_ms: since_ms, ..control.stored() })
        };
        let standing = paused(10);
        for (label, control, expected) in [
            ("paused again", standing.with(Cause::Operator, again.clone()), 10),
            ("by a clock that is behind", standing.with(Cause::Operator, Entry::paused(5, "still", "")), 5),
            ("by hand", by_hand(standing.clone(), Some(90)), 10),
            ("by hand, and without a time", by_hand(standing.clone(), None), 10),
            ("of which nobody said when it began", paused(0).with(Cause::Operator, again.clone()), 90),
            ("after a resume", standing.resumed(20).with(Cause::Operator, again.clone()), 90),
            ("after a resume by hand", by_hand(standing.resumed(20), Some(90)), 90),
        ] {
            let entry = &control.entries[&Cause::Operator];
            assert_eq!((entry.since_ms, entry.reason.as_str()), (expected, "still"), "{label}");
        }
        assert_eq!(standing.with(Cause::Operator, again).entries[&Cause::Operator].phase_since_ms, 90);
    }

    #[test]
    fn only_what_says_all_that_we_wrote_stands_as_our_own_write() {
        let ours = Control::default().with(Cause::Outage, in_phase(Phase::Paused));
        assert!(ours.stands_as(&ours.written()));
        for other in [Control::default(), Control::default().with(Cause::Account, in_phase(Phase::Paused))] {
            assert!(!ours.stands_as(&other), "{other:?}");
        }
    }

    #[test]
    fn an_operators_resume_ends_every_cause() {
        let all = Cause::ALL
            .iter()
            .fold(Control::default(), |control, cause| control.with(*cause, in_phase(Phase::Paused)));
        let resumed = all.resumed(9);
        assert!(resumed.is_open() && resumed.version == all.version + 1);
        assert_eq!((resumed.entries, resumed.opened_at_ms), (BTreeMap::new(), Some(9)));
    }

    #[test]
    fn whatever_lets_work_through_after_a_pause_says_when() {
        use Phase::{Open, Paused, Probing, Reopening};
        let at = |cause, phase, now_ms| {
            move |control: &Control| {
                control.with(cause, Entry::paused(1, "why", "who").in_phase(phase, now_ms))
            }
        };
        let outage = |phase, now_ms| at(Cause::Outage, phase, now_ms);
        let operator_of = |now_ms| at(Cause::Operator, Paused, now_ms);
        let operator = operator_of(20);
        let none = Control::default();
        assert_eq!(none.opened_at_ms, None);
        assert_eq!(none.resumed(5).opened_at_ms, None, "nothing had held it");
        let paused = outage(Paused, 10)(&none);
        let narrow = outage(Reopening { width: 1 }, 30)(&paused);
        for (label, control, expected) in [
            ("paused", paused.clone(), None),
            ("probing", outage(Probing, 12)(&paused), None),
            ("narrow", narrow.clone(), Some(30)),
            ("wider", outage(Reopening { width: 2 }, 31)(&narrow), Some(31)),
            (
                "narrower",
                outage(Reopening { width: 1 }, 33)(&outage(Reopening { width: 2 }, 31)(&narrow)),
                Some(31),
            ),
            (
                "as narrow, for another cause",
                outage(Open, 32)(&at(Cause::Account, Reopening { width: 1 }, 31)(&narrow)),
                Some(30),
            ),
            ("by a clock that is behind", outage(Reopening { width: 2 }, 20)(&narrow), Some(30)),
            ("after one that was hours ahead", operator_of(3 * 60 * 60_000)(&none).resumed(37), Some(37)),
            ("by one that AWS still takes", operator_of(300_037)(&none).resumed(37), Some(300_037)),
            ("by one that AWS refuses", operator_of(300_038)(&none).resumed(37), Some(37)),
            ("as narrow", outage(Reopening { width: 1 }, 31)(&narrow), Some(30)),
            ("something else is looked at", at(Cause::Deaths, Open, 31)(&narrow), Some(30)),
            ("open", outage(Open, 32)(&narrow), Some(32)),
            ("open for ten minutes", outage(Open, 32)(&narrow).with_all(BTreeMap::new(), 33), Some(32)),
            ("relapsed", outage(Paused, 34)(&narrow), Some(30)),
            ("over without a word", paused.with_all(BTreeMap::new(), 35), Some(35)),
            ("resumed by an operator", paused.resumed(36), Some(36)),
            ("an operator's pause, resumed", operator(&none).resumed(37), Some(37)),
            (
                "an operator's pause stands beside it",
                outage(Reopening { width: 1 }, 38)(&operator(&paused)),
                None,
            ),
        ] {
            assert_eq!(control.written().opened_at_ms, expected, "{label}");
        }
        // A pause in the old form and its end keep what stands.
        let stored = narrow.resumed(40).stored();
        let paused = Stored { paused_reason: Some("INC-42".to_owned()), ..stored.clone() };
        assert_eq!(Control::read(paused.clone()).opened_at_ms, Some(40));
        assert_eq!(Control::read(paused).resumed(50).opened_at_ms, Some(50));
    }

    #[test]
    fn an_entry_that_is_open_outlives_the_word_for_older_releases() {
        let control = Control::default().with(Cause::Outage, in_phase(Phase::Open));
        assert_eq!(Control::read(control.stored()).entries, control.entries);
    }
}
