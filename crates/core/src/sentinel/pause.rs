//! Who pauses for what, and the gentle way back: what is known now → the next entries of the control record, and whether
//! jobs are to reach the worker.
//!
//! **Invariant:** nothing is remembered outside the control record, so that a run that is skipped, killed or doubled does
//! no harm: the next one decides by what stands.
//! **Invariant:** an operator's entry is neither written, changed nor removed here.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::control::{Cause, Control, Entry, Phase};
use crate::model::{FailureClass, ModelFailure};
use crate::spend::UtcDay;

use super::gauges::{Snapshot, StackLimits};

const MINUTE_MS: u64 = 60_000;
const DAY_MS: u64 = 24 * 60 * MINUTE_MS;

/// Who the entries are written by.
const WHO: &str = "the sentinel";
/// The first wait for a probe; each relapse doubles it.
const PROBE_WAIT_MS: u64 = MINUTE_MS;
/// The longest wait for a probe.
const PROBE_WAIT_MS_MAX: u64 = 15 * MINUTE_MS;
/// A probe that says nothing for so long was killed: longer than one call with its timeout and its start.
const PROBE_LOST_MS: u64 = 3 * MINUTE_MS;
/// What comes back within this time after its end is a relapse.
const RELAPSE_MS: u64 = 10 * MINUTE_MS;
/// A cap that is reached again within this time after its end is reached day after day.
const CAPPED_AGAIN_MS: u64 = DAY_MS + 60 * MINUTE_MS;
/// Two runs are a minute apart, and a little less where the schedule is uneven.
const STEP_MS: u64 = 50_000;
/// Where nothing is heard at all, the width grows after this time: a call and the end of its invocation take five minutes,
/// and a stack whose jobs need no call would wait for an answer for ever.
const UNHEARD_MS: u64 = 10 * MINUTE_MS;
/// Fewer failed calls in the window are no outage: what comes in ones and twos costs little, and shows little.
const FAILED_MIN: u64 = 20;
/// Of a hundred calls so many have failed in an outage: a provider that answers every tenth is slow work, and still work.
const FAILED_PERCENT: u64 = 95;
/// An answer within this time says that the provider works for somebody.
const ANSWER_FRESH_MS: u64 = MINUTE_MS;
/// So many dead claims with nothing answered beside them are a deploy that kills.
const DEAD_CLAIMS_MIN: u64 = 10;
/// Of so many invocations at least: one that is killed takes a whole batch along, and says nothing of the next.
const DEAD_INVOCATIONS_MIN: u64 = 3;
/// SQS delivers nothing beyond 120,000 messages in flight, without an error ("Amazon SQS quotas"): half of that is too near.
const IN_FLIGHT_MAX: u64 = 60_000;
/// Below it the way is free again; the gap keeps the pause from flapping.
const IN_FLIGHT_LOW: u64 = 30_000;
/// When the oldest job is this near to its deletion, workers must see it: they explain what SQS would delete.
const LAST_CHANCE_MS: u64 = DAY_MS;
/// A claim that died longer ago than this says nothing of what is deployed now: its message may have gone to `crashed`.
/// Three times the longest function timeout, so that a wave of claims that die one after the other is seen as one.
const DEAD_FRESH_MS: u64 = 15 * MINUTE_MS;

/// The calls of this minute and the last, of all environments, as far as they were told of. A refusal for a rate limit is neither: the pace adapts to it.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Calls {
    /// Answered, whatever they said.
    pub answered: u64,
    /// Not answered: errors, timeouts, broken connections, overload.
    pub failed: u64,
    /// The cheapest that the cap has refused, in millionths of a dollar.
    pub refused_micro_usd: Option<u64>,
}

impl Calls {
    /// Both.
    #[must_use]
    pub fn and(self, other: Self) -> Self {
        Self {
            answered: self.answered.saturating_add(other.answered),
            failed: self.failed.saturating_add(other.failed),
            refused_micro_usd: [self.refused_micro_usd, other.refused_micro_usd].into_iter().flatten().min(),
        }
    }
}

/// A probe, as the sentinel asks the worker's function for one.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProbeAsk {
    /// For which cause.
    pub probe: Cause,
}

/// What is known of the money of this UTC day, in millionths of a dollar.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Money {
    /// Reserved and spent.
    pub committed_micro_usd: u64,
    /// The cap.
    pub cap_micro_usd: u64,
    /// The cheapest call that the cap has refused in the last two minutes.
    pub refused_micro_usd: Option<u64>,
}

/// Claims whose worker died.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Dead {
    /// How many.
    pub claims: u64,
    /// Of how many invocations.
    pub invocations: u64,
}

/// What the pauses are decided by; `None`: it could not be read, and nothing follows from it.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Signs {
    /// The sentinel's clock, in milliseconds since 1970.
    pub now_ms: u64,
    /// The calls.
    pub calls: Option<Calls>,
    /// When a call was last answered.
    pub answered_at_ms: Option<u64>,
    /// Claims whose worker died of late.
    pub dead: Option<Dead>,
    /// Messages that wait in the jobs queue.
    pub waiting: Option<u64>,
    /// Messages that are in flight.
    pub in_flight: Option<u64>,
    /// The age of the oldest job.
    pub oldest_job_ms: Option<u64>,
    /// The money.
    pub money: Option<Money>,
    /// The version of the worker's function that is live.
    pub function_version: Option<u64>,
    /// How long SQS keeps a job.
    pub retention_ms: u64,
    /// Calls that may be open at once with nothing held back.
    pub full_width: u32,
}

/// What follows.
#[derive(Debug, Clone, PartialEq)]
pub struct Decision {
    /// All entries of the known causes as they are to stand.
    pub entries: BTreeMap<Cause, Entry>,
}

/// The event source mapping, through which jobs reach the worker.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Switch {
    /// Jobs reach it.
    On,
    /// They wait in the queue.
    Off,
    /// Lambda is about to change it, and refuses further changes meanwhile.
    Turning,
}

impl Switch {
    /// How it is to be turned; `None`: it stands as wanted, or the next run will see.
    #[must_use]
    pub fn turned(self, on: bool) -> Option<bool> {
        match (self, on) {
            (Self::On, false) | (Self::Off, true) => Some(on),
            (Self::On | Self::Off | Self::Turning, _) => None,
        }
    }
}

impl Signs {
    /// The next entries, and what they ask for.
    #[must_use]
    pub fn decide(&self, control: &Control) -> Decision {
        // What a newer release says of a cause is its own.
        let known = Cause::ALL.iter().filter(|cause| !control.foreign.contains_key(cause.as_str()));
        let next = known.filter_map(|cause| {
            let entry = match control.entries.get(cause) {
                Some(standing) => self.go_on(*cause, standing),
                None => self.begins(*cause).map(|reason| self.pause(*cause, reason)),
            };
            entry.map(|entry| (*cause, entry))
        });
        let entries: BTreeMap<Cause, Entry> = next.collect();
        Decision { entries }
    }

    /// The probe that is to be asked for, by what this run has written. One at a time: for another cause it is asked for
    /// again when it counts as lost.
    #[must_use]
    pub fn probe(&self, control: &Control) -> Option<ProbeAsk> {
        let begins = |entry: &Entry| entry.phase == Phase::Probing && entry.phase_since_ms == self.now_ms;
        control.entries.iter().find(|(_, entry)| begins(entry)).map(|(cause, _)| ProbeAsk { probe: *cause })
    }

    /// The next version of the record, where it changes.
    #[must_use]
    pub fn next(&self, control: &Control) -> Option<Control> {
        let entries = self.decide(control).entries;
        (entries != control.entries).then(|| control.with_all(entries, self.now_ms))
    }

    /// Whether jobs are to reach the worker, by what stands in the record.
    #[must_use]
    pub fn leads_jobs(&self, control: &Control) -> bool {
        !control.is_shut() || self.is_last_chance(control)
    }

    fn pause(&self, cause: Cause, reason: String) -> Entry {
        let until_other_than = match cause {
            Cause::SpendCap => self.money.map(|money| self.day_and_cap(money)),
            Cause::Deaths => self.function_version.map(|version| version.to_string()),
            _ => None,
        };
        Entry { until_other_than, ..Entry::paused(self.now_ms, reason, WHO) }
    }

    /// Why a cause begins to hold, where it does. What an account refuses, its worker writes itself.
    fn begins(&self, cause: Cause) -> Option<String> {
        match cause {
            Cause::Operator | Cause::Account => None,
            Cause::Outage => self.calls.filter(|calls| self.is_outage(*calls)).map(|calls| {
                format!("{} of {} calls failed in two minutes", calls.failed, calls.failed + calls.answered)
            }),
            Cause::SpendCap => {
                let money = self.money?;
                let left_micro_usd = money.cap_micro_usd.saturating_sub(money.committed_micro_usd);
                // What others have reserved comes back when their invocations end, and those have all ended.
                let settled = self.answered_before(UNHEARD_MS);
                (settled && left_micro_usd < money.refused_micro_usd?)
                    .then(|| "the day's spend cap leaves no room for a call".to_owned())
            }
            Cause::Deaths => self.is_dying().then(|| {
                "claims die, one after the other: deploy a version that works, or resume by hand".to_owned()
            }),
            Cause::InFlight => self
                .in_flight
                .filter(|in_flight| *in_flight > IN_FLIGHT_MAX)
                .map(|in_flight| format!("{in_flight} messages are in flight; SQS stops at 120,000")),
        }
    }

    /// The next form of an entry that stands; `None`: it is over.
    fn go_on(&self, cause: Cause, entry: &Entry) -> Option<Entry> {
        match cause {
            Cause::Operator => Some(entry.clone()),
            Cause::InFlight => {
                let over = self.in_flight.is_some_and(|in_flight| in_flight < IN_FLIGHT_LOW);
                (!over).then(|| entry.clone())
            }
            Cause::SpendCap => self.go_on_capped(entry),
            Cause::Account | Cause::Outage | Cause::Deaths => self.come_back(cause, entry),
        }
    }

    /// A day's money that is spent again the next day is one long pause of old jobs: it keeps the time when it began.
    fn go_on_capped(&self, entry: &Entry) -> Option<Entry> {
        let for_ms = self.now_ms.saturating_sub(entry.phase_since_ms);
        if entry.phase != Phase::Open {
            let now = self.money.map(|money| self.day_and_cap(money));
            let over = now.is_some_and(|now| entry.until_other_than.as_ref() != Some(&now));
            return Some(if over { entry.in_phase(Phase::Open, self.now_ms) } else { entry.clone() });
        }
        if let Some(reason) = self.begins(Cause::SpendCap) {
            return Some(self.relapsed(Cause::SpendCap, entry, reason));
        }
        (for_ms < CAPPED_AGAIN_MS).then(|| entry.clone())
    }

    fn relapsed(&self, cause: Cause, entry: &Entry, reason: String) -> Entry {
        let until_other_than = self.pause(cause, String::new()).until_other_than;
        Entry { until_other_than, ..entry.relapsed(self.now_ms, reason, WHO) }
    }

    fn come_back(&self, cause: Cause, entry: &Entry) -> Option<Entry> {
        let for_ms = self.now_ms.saturating_sub(entry.phase_since_ms);
        let standing = || Some(entry.clone());
        let to = |phase| Some(entry.in_phase(phase, self.now_ms));
        match entry.phase {
            // Only a job shows whether a deploy kills, and only another version may be better.
            Phase::Paused | Phase::Probing if cause == Cause::Deaths => {
                let live = self.function_version.map(|version| version.to_string());
                let is_new = live.is_some() && live != entry.until_other_than;
                if is_new { to(Phase::Reopening { width: 1 }) } else { standing() }
            }
            Phase::Paused if for_ms >= probe_wait_ms(entry.relapses) => to(Phase::Probing),
            Phase::Probing if for_ms >= PROBE_LOST_MS => to(Phase::Probing),
            Phase::Paused | Phase::Probing => standing(),
            Phase::Reopening { .. } | Phase::Open if let Some(reason) = self.relapses(cause, entry) => {
                Some(self.relapsed(cause, entry, reason))
            }
            Phase::Reopening { width } if for_ms >= STEP_MS && self.may_widen(entry, for_ms) => {
                let wider = width.saturating_mul(2);
                to(if wider >= self.full_width { Phase::Open } else { Phase::Reopening { width: wider } })
            }
            Phase::Open if for_ms >= RELAPSE_MS => None,
            Phase::Reopening { .. } | Phase::Open => standing(),
        }
    }

    /// Signs that reach back to before the way was opened say nothing of it.
    fn relapses(&self, cause: Cause, entry: &Entry) -> Option<String> {
        let for_ms = self.now_ms.saturating_sub(entry.phase_since_ms);
        let too_early = match cause {
            // The claims that died before are still seen, and the first job that lives takes its time.
            Cause::Deaths => for_ms < UNHEARD_MS,
            _ => matches!(entry.phase, Phase::Reopening { width: 1 }) && for_ms < STEP_MS,
        };
        if too_early { None } else { self.begins(cause) }
    }

    fn may_widen(&self, entry: &Entry, for_ms: u64) -> bool {
        let answered = self.answered_at_ms.is_some_and(|at_ms| at_ms > entry.phase_since_ms);
        let idle = self.waiting == Some(0) && self.in_flight == Some(0);
        answered || idle || for_ms >= UNHEARD_MS
    }

    fn is_outage(&self, calls: Calls) -> bool {
        let all = calls.failed.saturating_add(calls.answered);
        calls.failed >= FAILED_MIN
            && calls.failed.saturating_mul(100) >= all.saturating_mul(FAILED_PERCENT)
            && self.answered_before(ANSWER_FRESH_MS)
    }

    fn is_dying(&self) -> bool {
        // Of a version that is not known, no other one would be told.
        self.function_version.is_some()
            && self.dead.is_some_and(|dead| {
                dead.claims >= DEAD_CLAIMS_MIN && dead.invocations >= DEAD_INVOCATIONS_MIN
            })
            && self.answered_before(UNHEARD_MS)
    }

    /// Whether no call was answered within this time.
    fn answered_before(&self, ms: u64) -> bool {
        self.answered_at_ms.is_none_or(|at_ms| at_ms.saturating_add(ms) <= self.now_ms)
    }

    fn day_and_cap(&self, money: Money) -> String {
        format!("{} {}", UtcDay::of(self.now_ms), money.cap_micro_usd)
    }

    /// Nobody knows how old a job is that no worker has begun: SQS tells it of none that was received three times
    /// ("Available CloudWatch metrics for Amazon SQS"). When the pause began it was under half of the retention, or
    /// `jobs-expiring` has called.
    fn is_last_chance(&self, control: &Control) -> bool {
        let since_ms = control.holding().map(|(_, entry)| entry.since_ms).min();
        let paused_ms = since_ms.map_or(0, |since_ms| self.now_ms.saturating_sub(since_ms));
        let unseen_ms = paused_ms.saturating_add(self.retention_ms / 2);
        let oldest_ms = self.oldest_job_ms.unwrap_or_default().max(unseen_ms);
        oldest_ms >= self.retention_ms.saturating_sub(LAST_CHANCE_MS)
    }
}

fn probe_wait_ms(relapses: u32) -> u64 {
    PROBE_WAIT_MS.saturating_mul(2_u64.saturating_pow(relapses)).min(PROBE_WAIT_MS_MAX)
}

impl Snapshot {
    /// What pauses are decided by; `full_width`: how many calls may be open at once with nothing held back.
    #[must_use]
    pub fn signs(&self, limits: &StackLimits, full_width: u32) -> Signs {
        let spent = self.spent;
        Signs {
            now_ms: self.at_ms,
            calls: self.calls,
            answered_at_ms: spent.and_then(|spent| spent.answered_at_ms),
            // Without the day's record nobody knows whether others were answered meanwhile.
            dead: spent.and(self.claims_that_died_within(DEAD_FRESH_MS)),
            waiting: self.jobs.map(|depth| depth.visible),
            in_flight: self.jobs.map(|depth| depth.hidden),
            oldest_job_ms: self.oldest_job_ms(limits),
            money: spent.map(|spent| Money {
                committed_micro_usd: spent.committed_micro_usd,
                cap_micro_usd: limits.spend_cap_micro_usd,
                refused_micro_usd: self.calls.and_then(|calls| calls.refused_micro_usd),
            }),
            function_version: self.live_version,
            retention_ms: limits.retention_ms,
            full_width,
        }
    }
}

impl Entry {
    /// What the answer to a probe makes of a cause that was probed: work for one call, or the same wait again.
    #[must_use]
    pub fn probed(&self, works: bool, now_ms: u64) -> Self {
        self.in_phase(if works { Phase::Reopening { width: 1 } } else { Phase::Paused }, now_ms)
    }
}

/// Whether a probe's end shows that jobs may be answered again. A limit that is reached is kept to by the narrow way.
#[must_use]
pub fn probe_works(cause: Cause, failure: Option<&ModelFailure>) -> bool {
    let Some(failure) = failure else { return true };
    match (cause, failure.class) {
        (_, FailureClass::Capacity) => !failure.is_sign_of_outage(),
        (_, FailureClass::Account | FailureClass::Transient) => false,
        // The provider is there, and says no to this text: an outage is over, and whose fault it is a job will show.
        (_, FailureClass::Refused) => true,
        (cause, FailureClass::Rejected | FailureClass::Unclear) => cause != Cause::Account,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW_MS: u64 = 100 * DAY_MS;

    fn healthy() -> Signs {
        Signs {
            now_ms: NOW_MS,
            calls: Some(Calls { answered: 100, ..Calls::default() }),
            answered_at_ms: Some(NOW_MS - 1_000),
            dead: Some(Dead::default()),
            waiting: Some(50),
            in_flight: Some(50),
            oldest_job_ms: Some(MINUTE_MS),
            money: Some(Money { committed_micro_usd: 10, cap_micro_usd: 1_000, refused_micro_usd: None }),
            function_version: Some(7),
            retention_ms: 7 * DAY_MS,
            full_width: 100,
        }
    }

    fn in_outage() -> Signs {
        Signs {
            calls: Some(Calls { failed: 200, ..Calls::default() }),
            answered_at_ms: Some(NOW_MS - 2 * MINUTE_MS),
            ..healthy()
        }
    }

    fn entry(phase: Phase, for_ms: u64) -> Entry {
        Entry::paused(NOW_MS - DAY_MS, "why", "who").in_phase(phase, NOW_MS - for_ms)
    }

    /// The phase of this cause after one run.
    fn phase(signs: Signs, cause: Cause, standing: Entry) -> Option<Phase> {
        signs.decide(&Control::default().with(cause, standing)).entries.get(&cause).map(|entry| entry.phase)
    }

    #[test]
    fn only_what_nobody_recovers_from_by_itself_pauses() {
        let calls = |answered, failed, ago_ms| Signs {
            calls: Some(Calls { answered, failed, refused_micro_usd: None }),
            answered_at_ms: Some(NOW_MS - ago_ms),
            ..healthy()
        };
        let money = |left: u64, refused_micro_usd, ago_ms| Signs {
            money: Some(Money { committed_micro_usd: 1_000 - left, cap_micro_usd: 1_000, refused_micro_usd }),
            answered_at_ms: Some(NOW_MS - ago_ms),
            ..healthy()
        };
        let dying = |claims, invocations, ago_ms| Signs {
            dead: Some(Dead { claims, invocations }),
            answered_at_ms: Some(NOW_MS - ago_ms),
            ..healthy()
        };
        for (signs, expected) in [
            (healthy(), None),
            (in_outage(), Some(Cause::Outage)),
            (Signs { answered_at_ms: None, ..in_outage() }, Some(Cause::Outage)),
            // Every second call fails; every tenth works; a few fail; somebody was answered just now.
            (calls(100, 100, 3 * MINUTE_MS), None),
            (calls(20, 180, 3 * MINUTE_MS), None),
            (calls(0, 19, 3 * MINUTE_MS), None),
            (calls(0, 200, 59_000), None),
            // A limit that is merely reached: refusals for it are no failures.
            (calls(0, 0, DAY_MS), None),
            (Signs { calls: None, ..in_outage() }, None),
            (dying(10, 3, UNHEARD_MS), Some(Cause::Deaths)),
            (dying(10, 3, UNHEARD_MS - 1), None),
            (dying(9, 9, UNHEARD_MS), None),
            // One batch, or two, at the end of a night.
            (dying(20, 2, UNHEARD_MS), None),
            (Signs { function_version: None, ..dying(10, 3, DAY_MS) }, None),
            (Signs { in_flight: Some(60_001), ..healthy() }, Some(Cause::InFlight)),
            (Signs { in_flight: Some(60_000), ..healthy() }, None),
            (money(5, Some(6), UNHEARD_MS), Some(Cause::SpendCap)),
            // What is reserved may come back; what is left pays a call; nobody was refused.
            (money(5, Some(6), UNHEARD_MS - 1), None),
            (money(6, Some(6), UNHEARD_MS), None),
            (money(0, None, UNHEARD_MS), None),
        ] {
            let decision = signs.decide(&Control::default());
            assert_eq!(decision.entries.keys().next().copied(), expected, "{signs:?}");
            let control = Control::default().with_all(decision.entries, NOW_MS);
            assert_eq!(signs.leads_jobs(&control), expected.is_none(), "{signs:?}");
            assert_eq!(signs.probe(&control), None, "a pause waits before it is probed");
        }
    }

    #[test]
    fn the_way_back_is_a_probe_and_then_a_width_that_doubles_while_jobs_succeed() {
        use Phase::{Open, Paused, Probing, Reopening};
        let quiet = Signs { calls: None, answered_at_ms: None, ..healthy() };
        let idle = Signs { waiting: Some(0), in_flight: Some(0), ..quiet };
        for (signs, standing, for_ms, expected) in [
            (in_outage(), Paused, MINUTE_MS - 1, Some(Paused)),
            (in_outage(), Paused, MINUTE_MS, Some(Probing)),
            // The answer is on its way; its worker was killed.
            (in_outage(), Probing, PROBE_LOST_MS - 1, Some(Probing)),
            (quiet, Reopening { width: 1 }, STEP_MS, Some(Reopening { width: 1 })),
            (healthy(), Reopening { width: 1 }, STEP_MS, Some(Reopening { width: 2 })),
            (healthy(), Reopening { width: 1 }, STEP_MS - 1, Some(Reopening { width: 1 })),
            (idle, Reopening { width: 8 }, STEP_MS, Some(Reopening { width: 16 })),
            // Jobs that need no call are answered by nobody.
            (quiet, Reopening { width: 8 }, UNHEARD_MS, Some(Reopening { width: 16 })),
            (healthy(), Reopening { width: 64 }, STEP_MS, Some(Open)),
            // What failed before the way was opened says nothing.
            (in_outage(), Reopening { width: 1 }, STEP_MS - 1, Some(Reopening { width: 1 })),
            (in_outage(), Reopening { width: 8 }, STEP_MS, Some(Paused)),
            (in_outage(), Open, MINUTE_MS, Some(Paused)),
            (healthy(), Open, RELAPSE_MS - 1, Some(Open)),
            (healthy(), Open, RELAPSE_MS, None),
        ] {
            let found = phase(signs, Cause::Outage, entry(standing, for_ms));
            assert_eq!(found, expected, "{standing:?} for {for_ms} ms");
        }
        let lost = Control::default().with(Cause::Account, entry(Probing, PROBE_LOST_MS));
        let again = healthy().next(&lost).unwrap();
        let ask = ProbeAsk { probe: Cause::Account };
        assert_eq!(healthy().probe(&again), Some(ask), "it is asked for again");
        let later = Signs { now_ms: NOW_MS + 1, ..healthy() };
        assert_eq!(later.probe(&again), None, "once");
        for (works, expected) in [(true, Reopening { width: 1 }), (false, Paused)] {
            assert_eq!(entry(Probing, 1).probed(works, NOW_MS).phase, expected);
        }
    }

    #[test]
    fn a_probe_works_where_jobs_may_be_answered_again() {
        use FailureClass::{Account, Capacity, Refused, Rejected, Transient, Unclear};
        let failure = |class, status| ModelFailure {
            class,
            status: Some(status),
            error_type: String::new(),
            message: String::new(),
            request_id: None,
            advice: Default::default(),
            headroom: Default::default(),
            oversize: None,
        };
        for (class, status, after_account, after_outage) in [
            (Account, 401, false, false),
            (Transient, 500, false, false),
            (Capacity, 529, false, false),
            (Capacity, 429, true, true),
            // Three jobs in a row were refused in such words: so is the fourth.
            (Unclear, 400, false, true),
            (Rejected, 400, false, true),
            (Refused, 400, true, true),
        ] {
            let failed = failure(class, status);
            assert_eq!(probe_works(Cause::Account, Some(&failed)), after_account, "{class:?}");
            assert_eq!(probe_works(Cause::Outage, Some(&failed)), after_outage, "{class:?}");
        }
        assert!(probe_works(Cause::Account, None) && probe_works(Cause::Outage, None));
    }

    #[test]
    fn each_relapse_doubles_the_wait_up_to_a_quarter_of_an_hour() {
        for (relapses, minutes) in [(0, 1), (1, 2), (2, 4), (3, 8), (4, 15), (5, 15), (u32::MAX, 15)] {
            assert_eq!(probe_wait_ms(relapses), minutes * MINUTE_MS, "{relapses} relapses");
        }
        let open = Control::default().with(Cause::Outage, entry(Phase::Open, MINUTE_MS));
        let relapsed = &in_outage().decide(&open).entries[&Cause::Outage];
        assert_eq!((relapsed.relapses, relapsed.phase), (1, Phase::Paused));
    }

    #[test]
    fn causes_end_by_what_ends_them() {
        let paused =
            |until: &str| Entry { until_other_than: Some(until.to_owned()), ..entry(Phase::Paused, DAY_MS) };
        let today = healthy().pause(Cause::SpendCap, String::new()).until_other_than.unwrap();
        let raised = Money { committed_micro_usd: 10, cap_micro_usd: 2_000, refused_micro_usd: None };
        let tomorrow = Signs { now_ms: NOW_MS + DAY_MS, ..healthy() };
        for (signs, cause, standing, expected) in [
            (healthy(), Cause::SpendCap, paused(&today), Some(Phase::Paused)),
            (tomorrow, Cause::SpendCap, paused(&today), Some(Phase::Open)),
            (Signs { money: Some(raised), ..healthy() }, Cause::SpendCap, paused(&today), Some(Phase::Open)),
            (healthy(), Cause::SpendCap, entry(Phase::Open, CAPPED_AGAIN_MS - 1), Some(Phase::Open)),
            (healthy(), Cause::SpendCap, entry(Phase::Open, CAPPED_AGAIN_MS), None),
            (Signs { money: None, ..tomorrow }, Cause::SpendCap, paused(&today), Some(Phase::Paused)),
            (healthy(), Cause::Deaths, paused("7"), Some(Phase::Paused)),
            (healthy(), Cause::Deaths, paused("6"), Some(Phase::Reopening { width: 1 })),
            (Signs { function_version: None, ..healthy() }, Cause::Deaths, paused("6"), Some(Phase::Paused)),
            (
                Signs { in_flight: Some(30_000), ..healthy() },
                Cause::InFlight,
                paused(""),
                Some(Phase::Paused),
            ),
            (Signs { in_flight: Some(29_999), ..healthy() }, Cause::InFlight, paused(""), None),
            (Signs { in_flight: None, ..healthy() }, Cause::InFlight, paused(""), Some(Phase::Paused)),
        ] {
            assert_eq!(phase(signs, cause, standing), expected, "{cause:?} {signs:?}");
        }
    }

    #[test]
    fn an_operators_pause_is_the_operators_whatever_is_seen() {
        for signs in
            [healthy(), in_outage(), Signs { now_ms: NOW_MS + 8 * DAY_MS, ..healthy() }, Signs::default()]
        {
            let control = Control::paused_by_operator(NOW_MS, "INC-42", "somebody");
            let decision = signs.decide(&control);
            assert_eq!(
                decision.entries.get(&Cause::Operator),
                control.entries.get(&Cause::Operator),
                "{signs:?}"
            );
        }
    }

    #[test]
    fn jobs_reach_the_worker_while_nothing_is_shut_or_the_oldest_one_would_be_deleted_in_a_day() {
        use Phase::{Open, Paused, Probing, Reopening};
        let old = |age_ms| Signs { oldest_job_ms: Some(age_ms), ..healthy() };
        for (signs, phase, expected) in [
            (healthy(), Paused, false),
            (healthy(), Probing, false),
            (healthy(), Reopening { width: 1 }, true),
            (healthy(), Open, true),
            (old(6 * DAY_MS - 1), Paused, false),
            (old(6 * DAY_MS), Paused, true),
            (Signs { oldest_job_ms: None, ..healthy() }, Paused, false),
        ] {
            let standing = Entry { since_ms: NOW_MS - 1, ..entry(phase, 1) };
            let control = Control::default().with(Cause::Account, standing);
            assert_eq!(signs.leads_jobs(&control), expected, "{phase:?}");
        }
        // Whoever paused, and of jobs that nobody has begun: half of the retention, less a day.
        for (age_ms, paused_ms, expected) in [
            (0, 2 * DAY_MS, false),
            (0, 2 * DAY_MS + DAY_MS / 2 - 1, false),
            (0, 2 * DAY_MS + DAY_MS / 2, true),
            (0, 8 * DAY_MS, true),
            (6 * DAY_MS, 0, true),
        ] {
            let operator = Control::paused_by_operator(NOW_MS - paused_ms, "r", "w");
            assert_eq!(old(age_ms).leads_jobs(&operator), expected, "{age_ms} {paused_ms}");
        }
    }

    /// What is handed back for the cap before its claim stands in no record: day after day, its age is that of the first.
    #[test]
    fn a_cap_that_is_reached_day_after_day_lets_workers_see_old_jobs() {
        let mut control = Control::default();
        let mut led = Vec::new();
        for hour in 0..5 * 24 {
            let now_ms = NOW_MS + hour * 60 * MINUTE_MS;
            let spent = Money { committed_micro_usd: 999, cap_micro_usd: 1_000, refused_micro_usd: Some(5) };
            // An hour of work after each midnight.
            let money = Some(Money { committed_micro_usd: if hour % 24 == 0 { 0 } else { 999 }, ..spent });
            let signs = Signs { now_ms, money, oldest_job_ms: None, ..healthy() };
            control = signs.next(&control).unwrap_or(control);
            led.push(signs.leads_jobs(&control));
        }
        assert!(!led[2] && !led[26], "the queue keeps what is young");
        assert!(led[61..].iter().all(|led| *led), "{led:?}");
    }

    #[test]
    fn the_switch_is_turned_where_it_stands_otherwise_and_left_while_it_turns() {
        for (switch, on, expected) in [
            (Switch::On, true, None),
            (Switch::On, false, Some(false)),
            (Switch::Off, true, Some(true)),
            (Switch::Off, false, None),
            (Switch::Turning, true, None),
            (Switch::Turning, false, None),
        ] {
            assert_eq!(switch.turned(on), expected, "{switch:?} {on}");
        }
    }

    /// The claims of the version that killed are seen for a while beside the first job of the one that may not.
    #[test]
    fn another_version_has_ten_minutes_to_show_that_it_does_not_kill() {
        let dead = Some(Dead { claims: 100, invocations: 10 });
        let dying = Signs { dead, answered_at_ms: Some(NOW_MS - DAY_MS), ..healthy() };
        let lives = Signs { answered_at_ms: Some(NOW_MS - 1), ..dying };
        let reopening = Phase::Reopening { width: 1 };
        for (signs, standing, for_ms, expected) in [
            (dying, reopening, UNHEARD_MS - 1, Some(reopening)),
            (dying, reopening, UNHEARD_MS, Some(Phase::Paused)),
            (lives, reopening, STEP_MS, Some(Phase::Reopening { width: 2 })),
            // An operator's resume leaves it open.
            (dying, Phase::Open, UNHEARD_MS - 1, Some(Phase::Open)),
            (dying, Phase::Open, UNHEARD_MS, Some(Phase::Paused)),
            (lives, Phase::Open, RELAPSE_MS, None),
        ] {
            let found = phase(signs, Cause::Deaths, entry(standing, for_ms));
            assert_eq!(found, expected, "{standing:?} for {for_ms} ms");
        }
    }

    #[test]
    fn a_cause_in_words_of_a_newer_release_is_neither_begun_nor_changed() {
        let mut control = Control::default();
        control.foreign.insert("outage".to_owned(), serde_json::json!({ "phase": "dreaming" }));
        assert_eq!(in_outage().next(&control), None);
    }

    /// From any state of the record a healthy stack is open again within the longest wait, a lost probe and the widening.
    #[test]
    fn nothing_that_a_kill_leaves_behind_stays_locked() {
        for relapses in [0, 3, 100] {
            for begun in [Phase::Paused, Phase::Probing, Phase::Reopening { width: 1 }, Phase::Open] {
                let standing = Entry { relapses, ..entry(begun, 0) };
                let mut control = Control::default().with(Cause::Outage, standing);
                let mut opened = None;
                for minute in 1..60 {
                    let now_ms = NOW_MS + minute * MINUTE_MS;
                    let signs = Signs { now_ms, answered_at_ms: Some(now_ms), ..healthy() };
                    control = signs.next(&control).unwrap_or(control);
                    if let (Some(ask), true) = (signs.probe(&control), minute % 2 == 0) {
                        // Every second probe is lost.
                        let probed = control.entries[&ask.probe].probed(true, now_ms);
                        control = control.with(ask.probe, probed);
                    }
                    if control.is_open() {
                        opened = Some(minute);
                        break;
                    }
                }
                assert!(opened.is_some_and(|minute| minute <= 30), "{begun:?}, {relapses}: {opened:?}");
            }
        }
    }
}
