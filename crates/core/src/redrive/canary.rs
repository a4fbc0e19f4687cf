//! The canary: what the first messages came to, and whether the rest follows.
//!
//! An outcome is read from the ledger by the id that SQS returned for the message that was sent. Once it is known it
//! stands here, so that whatever happens to the record later changes nothing.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::choose::Letter;
use super::request::{CANARY_MAX, Canary, Source};
use crate::input_hash::InputHash;
use crate::record::{Record, State};

/// How long to wait between two looks at what is not known yet, in milliseconds.
const LOOK_EVERY_MS: u64 = 10_000;

/// A message of the canary whose outcome is not known yet.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CanarySent {
    /// Its record.
    pub key: InputHash,
    /// SQS's id of the message that was sent.
    pub message_id: String,
    /// The record's version just before; 0: there was none.
    pub version_before: u64,
}

/// What one of them came to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum CanaryOutcome {
    /// Its result is stored.
    Succeeded,
    /// It failed again, for this reason.
    Failed(String),
    /// Nothing yet.
    Pending,
    /// Somebody else worked on it: that says nothing of this redrive.
    LeftOut,
}

impl CanarySent {
    /// A message that was sent, by the record that stood just before; `None` where it will say nothing: its job is worked
    /// on or done by another message, or it is a second copy, which is acknowledged without a call.
    #[must_use]
    pub fn of(
        letter: &Letter,
        source: Source,
        standing: Option<&Record>,
        message_id: String,
        now_ms: u64,
    ) -> Option<Self> {
        let tells = match standing.filter(|record| record.expires_at_ms > now_ms) {
            None => true,
            Some(record) => match &record.state {
                State::Failed(_) => letter.version.is_none_or(|version| version == record.version),
                // It was reset for this message.
                State::Open => source == Source::Crashed,
                State::Claimed { .. } | State::Done(_) | State::Erased => false,
            },
        };
        let version_before = standing.map_or(0, |record| record.version);
        tells.then(|| Self { key: letter.key.clone(), message_id, version_before })
    }

    /// What its record, read strongly consistently, says.
    #[must_use]
    pub fn outcome(&self, record: Option<&Record>) -> CanaryOutcome {
        match record {
            None if self.version_before == 0 => CanaryOutcome::Pending,
            None => CanaryOutcome::LeftOut,
            Some(record) if record.message_id == self.message_id => match &record.state {
                State::Done(_) => CanaryOutcome::Succeeded,
                State::Failed(failed) => CanaryOutcome::Failed(failed.reason.to_string()),
                State::Open | State::Claimed { .. } => CanaryOutcome::Pending,
                State::Erased => CanaryOutcome::LeftOut,
            },
            Some(record) if record.version == self.version_before => CanaryOutcome::Pending,
            Some(_) => CanaryOutcome::LeftOut,
        }
    }
}

/// The canary of a redrive, as far as it has come.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct CanaryRun {
    /// How many messages it takes.
    pub count: u32,
    /// Those that are not known yet.
    #[serde(default)]
    pub pending: Vec<CanarySent>,
    /// How many succeeded.
    #[serde(default)]
    pub succeeded: u32,
    /// How many failed again, by reason.
    #[serde(default)]
    pub failed: BTreeMap<String, u32>,
    /// How many say nothing, because somebody else worked on them; others are sent in their place.
    #[serde(default)]
    pub left_out: u32,
    /// When the last one was sent.
    #[serde(default)]
    pub last_sent_ms: u64,
    /// When to look next.
    #[serde(default)]
    pub look_at_ms: u64,
    /// It has succeeded, and the rest follows.
    #[serde(default)]
    pub passed: bool,
}

/// What follows from a look at the canary.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdict {
    /// The rest follows.
    Passed,
    /// The redrive stops; a sentence that says why.
    Failed(String),
    /// Too few are left that say anything: send more.
    More,
    /// Look again later.
    Wait,
}

impl CanaryRun {
    /// How many more it takes.
    #[must_use]
    pub fn missing(&self) -> u32 {
        self.count.saturating_sub(self.telling())
    }

    /// No more can be sent: those that say anything are all of it.
    pub fn is_all(&mut self) {
        self.count = self.telling().max(1);
    }

    /// Whether any of its messages says, or will say, something.
    #[must_use]
    pub fn tells(&self) -> bool {
        self.telling() > 0
    }

    fn failures(&self) -> u32 {
        self.failed.values().sum()
    }

    fn telling(&self) -> u32 {
        let pending = u32::try_from(self.pending.len()).unwrap_or(u32::MAX);
        self.succeeded.saturating_add(self.failures()).saturating_add(pending)
    }

    /// Takes note of what the pending ones came to, in their order, and says what follows.
    pub fn judge(&mut self, asked: &Canary, outcomes: &[CanaryOutcome], now_ms: u64) -> Verdict {
        self.look_at_ms = now_ms.saturating_add(LOOK_EVERY_MS);
        let pending = std::mem::take(&mut self.pending);
        for (index, sent) in pending.into_iter().enumerate() {
            match outcomes.get(index) {
                Some(CanaryOutcome::Succeeded) => self.succeeded += 1,
                Some(CanaryOutcome::Failed(reason)) => *self.failed.entry(reason.clone()).or_default() += 1,
                Some(CanaryOutcome::LeftOut) => self.left_out += 1,
                Some(CanaryOutcome::Pending) | None => self.pending.push(sent),
            }
        }
        let total = self.count.max(self.telling());
        let needed = needed(total, asked.success_percent);
        if self.succeeded >= needed {
            self.passed = true;
            return Verdict::Passed;
        }
        if self.failures() > total - needed {
            return Verdict::Failed(self.failed_because(needed, total, ""));
        }
        if self.missing() > 0 {
            return if self.left_out < CANARY_MAX {
                Verdict::More
            } else {
                Verdict::Failed(format!(
                    "The canary says nothing: others worked on {} of its messages meanwhile. Stop what else redrives them, or give each its own keys.",
                    self.left_out
                ))
            };
        }
        if now_ms >= self.last_sent_ms.saturating_add(asked.wait_s.saturating_mul(1_000)) {
            let late = format!(
                ", {} not settled within {} s of the last one that was sent",
                self.pending.len(),
                asked.wait_s
            );
            return Verdict::Failed(self.failed_because(needed, total, &late));
        }
        Verdict::Wait
    }

    fn failed_because(&self, needed: u32, total: u32, late: &str) -> String {
        let reasons: Vec<_> = self.failed.iter().map(|(reason, count)| format!("{reason} {count}")).collect();
        let reasons = if reasons.is_empty() { "none failed".to_owned() } else { reasons.join(", ") };
        format!(
            "The canary failed: {} of {total} succeeded and {needed} were needed; {reasons}{late}. The rest is where it was: mend the cause, then redrive again.",
            self.succeeded
        )
    }
}

/// The least number of successes, rounded up: half a job does not succeed.
fn needed(total: u32, success_percent: u32) -> u32 {
    let needed = u64::from(total).saturating_mul(u64::from(success_percent)).div_ceil(100);
    u32::try_from(needed).unwrap_or(total).min(total)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::failure::FailureReason;
    use crate::redrive::reset::tests::{done, failed, open, record};
    use proptest::prelude::*;

    fn asked(success_percent: u32) -> Canary {
        Canary { messages: Some(10), percent: None, success_percent, wait_s: 60 }
    }

    fn sent(n: u32) -> CanarySent {
        CanarySent { key: InputHash::of_body("x"), message_id: format!("m-{n}"), version_before: 4 }
    }

    fn run(count: u32, pending: u32) -> CanaryRun {
        CanaryRun { count, pending: (0..pending).map(sent).collect(), ..CanaryRun::default() }
    }

    #[test]
    fn an_outcome_is_what_the_ledger_says_of_the_message_that_was_sent() {
        let at = |mut record: Record, version: u64, message: &str| {
            (record.version, record.message_id) = (version, message.to_owned());
            record
        };
        let refused = || failed(FailureReason::Refused);
        for (record, outcome) in [
            (Some(at(done(), 6, "m-1")), CanaryOutcome::Succeeded),
            (Some(at(refused(), 6, "m-1")), CanaryOutcome::Failed("refused".to_owned())),
            (Some(at(open(), 6, "m-1")), CanaryOutcome::Pending),
            // Not begun: it stands as it did.
            (Some(at(refused(), 4, "m-0")), CanaryOutcome::Pending),
            // Another redrive, another sender, or an erasure.
            (Some(at(refused(), 6, "m-7")), CanaryOutcome::LeftOut),
            (Some(at(done(), 6, "m-7")), CanaryOutcome::LeftOut),
            (Some(at(open(), 5, "m-7")), CanaryOutcome::LeftOut),
            (Some(at(record(State::Erased), 6, "m-1")), CanaryOutcome::LeftOut),
            (None, CanaryOutcome::LeftOut),
        ] {
            assert_eq!(sent(1).outcome(record.as_ref()), outcome, "{record:?}");
        }
        let unknown = CanarySent { version_before: 0, ..sent(1) };
        assert_eq!(unknown.outcome(None), CanaryOutcome::Pending);
        assert_eq!(unknown.outcome(Some(&at(done(), 2, "m-1"))), CanaryOutcome::Succeeded);
        assert_eq!(unknown.outcome(Some(&at(done(), 2, "m-7"))), CanaryOutcome::LeftOut);
    }

    #[test]
    fn a_message_whose_job_another_one_has_says_nothing() {
        let letter = |version| Letter {
            key: InputHash::of_body("x"),
            task: None,
            reference: None,
            reason: None,
            failed_at_ms: 1,
            version,
        };
        let refused = || Some(failed(FailureReason::Refused));
        let claimed = || Some(record(State::Claimed { lease_until_ms: 9, alone: false }));
        for (source, version, standing, version_before) in [
            (Source::DeadLetters, Some(4), refused(), Some(4)),
            (Source::DeadLetters, None, refused(), Some(4)),
            // A second copy: the first one failed again.
            (Source::DeadLetters, Some(2), refused(), None),
            (Source::DeadLetters, Some(2), Some(open()), None),
            (Source::DeadLetters, Some(2), claimed(), None),
            (Source::DeadLetters, Some(2), Some(done()), None),
            (Source::DeadLetters, Some(2), None, Some(0)),
            // What has expired is not there any more.
            (Source::DeadLetters, Some(2), Some(Record { expires_at_ms: 50, ..done() }), Some(4)),
            (Source::Crashed, None, None, Some(0)),
            (Source::Crashed, None, Some(open()), Some(4)),
            (Source::Crashed, None, refused(), Some(4)),
            (Source::Crashed, None, Some(done()), None),
        ] {
            let sent = CanarySent::of(&letter(version), source, standing.as_ref(), "m".to_owned(), 50);
            assert_eq!(sent.map(|sent| sent.version_before), version_before, "{version:?} {standing:?}");
        }
    }

    #[test]
    fn a_verdict_falls_as_soon_as_it_is_certain() {
        use CanaryOutcome::{LeftOut, Pending, Succeeded};
        let bad = || CanaryOutcome::Failed("refused".to_owned());
        let of = |succeeded: usize, failed: usize, left_out: usize, pending: usize| {
            let mut outcomes = vec![Succeeded; succeeded];
            outcomes.extend(vec![bad(); failed]);
            outcomes.extend(vec![LeftOut; left_out]);
            outcomes.extend(vec![Pending; pending]);
            outcomes
        };
        let failed = |says: &str| Verdict::Failed(says.to_owned());
        // The last one was sent at 0, and a minute is waited for them.
        for (outcomes, now_ms, verdict) in [
            (of(0, 0, 0, 10), 59_999, Verdict::Wait),
            (of(7, 2, 0, 1), 59_999, Verdict::Wait),
            (of(8, 2, 0, 0), 0, Verdict::Passed),
            (of(8, 0, 0, 2), 0, Verdict::Passed),
            (of(8, 0, 2, 0), 0, Verdict::Passed),
            (of(7, 0, 1, 2), 0, Verdict::More),
            (of(7, 0, 1, 2), 60_000, Verdict::More),
            (
                of(0, 3, 0, 7),
                0,
                failed(
                    "The canary failed: 0 of 10 succeeded and 8 were needed; refused 3. The rest is where it was: mend the cause, then redrive again.",
                ),
            ),
            (
                of(7, 1, 0, 2),
                60_000,
                failed(
                    "The canary failed: 7 of 10 succeeded and 8 were needed; refused 1, 2 not settled within 60 s of the last one that was sent. The rest is where it was: mend the cause, then redrive again.",
                ),
            ),
            (
                of(0, 0, 0, 10),
                60_000,
                failed(
                    "The canary failed: 0 of 10 succeeded and 8 were needed; none failed, 10 not settled within 60 s of the last one that was sent. The rest is where it was: mend the cause, then redrive again.",
                ),
            ),
        ] {
            let mut canary = run(10, 10);
            assert_eq!(canary.judge(&asked(80), &outcomes, now_ms), verdict, "{outcomes:?} at {now_ms}");
            assert_eq!(canary.passed, verdict == Verdict::Passed);
            assert_eq!(canary.pending.len(), outcomes.iter().filter(|one| **one == Pending).count());
        }
    }

    #[test]
    fn what_was_seen_once_stands_and_what_says_nothing_is_replaced() {
        let mut canary = run(2, 2);
        let first = [CanaryOutcome::Succeeded, CanaryOutcome::LeftOut];
        assert_eq!(canary.judge(&asked(100), &first, 0), Verdict::More);
        assert_eq!((canary.missing(), canary.succeeded, canary.left_out), (1, 1, 1));
        canary.pending.push(sent(3));
        assert_eq!(canary.judge(&asked(100), &[CanaryOutcome::Pending], 0), Verdict::Wait);
        assert_eq!(canary.judge(&asked(100), &[CanaryOutcome::Succeeded], 0), Verdict::Passed);
    }

    #[test]
    fn a_canary_that_others_keep_working_on_ends() {
        let mut canary = CanaryRun { left_out: CANARY_MAX - 1, ..run(1, 1) };
        let Verdict::Failed(why) = canary.judge(&asked(100), &[CanaryOutcome::LeftOut], 0) else { panic!() };
        assert!(why.starts_with("The canary says nothing: others worked on 200"), "{why}");
    }

    proptest! {
        /// Whatever comes in whatever order: it passes only with enough successes, and fails only without.
        #[test]
        fn a_verdict_is_never_against_the_numbers(
            outcomes in prop::collection::vec(0u8..4, 1..30), success_percent in 1u32..=100, looks in 1usize..4,
        ) {
            let count = outcomes.len() as u32;
            let mut canary = run(count, count);
            let asked = asked(success_percent);
            let (mut good, mut bad) = (0u32, 0u32);
            for look in 0..looks {
                let seen: Vec<_> = canary.pending.iter().map(|sent| {
                    let n: usize = sent.message_id.trim_start_matches("m-").parse().unwrap();
                    match outcomes[n] {
                        0 => CanaryOutcome::Succeeded,
                        1 => CanaryOutcome::Failed("refused".to_owned()),
                        2 => CanaryOutcome::LeftOut,
                        _ => CanaryOutcome::Pending,
                    }
                }).collect();
                good += seen.iter().filter(|one| **one == CanaryOutcome::Succeeded).count() as u32;
                bad += seen.iter().filter(|one| matches!(one, CanaryOutcome::Failed(_))).count() as u32;
                match canary.judge(&asked, &seen, look as u64) {
                    Verdict::Passed => prop_assert!(good * 100 >= success_percent * count),
                    Verdict::Failed(_) => prop_assert!((count - bad) * 100 < success_percent * count),
                    Verdict::More | Verdict::Wait => {
                        prop_assert!(good * 100 < success_percent * count);
                        prop_assert!((count - bad) * 100 >= success_percent * count);
                    }
                }
            }
        }
    }
}
