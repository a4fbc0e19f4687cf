//! Who pauses for what, and the gentle way back: what is known now → the next entries of the control record, and whether
//! jobs are to reach the worker.
//!
//! **Invariant:** nothing is remembered outside the control record, but for how long the sentinel has looked at a version
//! without a gap, so that a run that is skipped, killed or doubled does no harm: the next one decides by what stands.
//! **Invariant:** an operator's entry is neither written nor removed here, and changed only where nobody said when it began.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::blame::JOBS_IN_A_ROW;
use crate::control::{Cause, Control, Entry, Phase};
use crate::model::{FailureClass, ModelFailure};
use crate::spend::UtcDay;

use super::deaths::{DeadClaims, Watch};
use super::snapshot::{Calls, Snapshot, StackLimits};

const MINUTE_MS: u64 = 60_000;
const DAY_MS: u64 = 24 * 60 * MINUTE_MS;

/// Who the entries are written by.
const WHO: &str = "the sentinel";
/// By whom that of the account is begun, so that it takes seconds.
const WORKER: &str = "a worker";
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
/// Two runs are a minute apart, and so much less where the schedule is uneven.
const UNEVEN_MS: u64 = 10_000;
const STEP_MS: u64 = MINUTE_MS - UNEVEN_MS;
/// Where nothing is heard at all, the width grows after this time: a call and the end of its invocation take five minutes,
/// and a stack whose jobs need no call would wait for an answer for ever.
const UNHEARD_MS: u64 = 10 * MINUTE_MS;
/// Messages of claims that died are hidden for so long, by the default visibility timeout. Where they are hidden for longer, or
/// are always taken at once and never answered, a way widens all the same.
const HIDDEN_MS: u64 = 30 * MINUTE_MS;
/// Fewer failed calls in the window are no outage: what comes in ones and twos costs little, and shows little.
const FAILED_MIN: u64 = 20;
/// Of a hundred calls so many have failed in an outage: a provider that answers every tenth is slow work, and still work.
const FAILED_PERCENT: u64 = 95;
/// What is told of calls is of this minute and the last.
const CALLS_MS: u64 = 2 * MINUTE_MS;
/// An answer within this time says that the provider works for somebody.
const ANSWER_FRESH_MS: u64 = MINUTE_MS;
/// SQS delivers nothing beyond 120,000 messages in flight, without an error ("Amazon SQS quotas"): half of that is too near,
/// beside what is at work where everybody works.
const IN_FLIGHT_MAX: u64 = 60_000;
/// So many beside those at work are handed back, and hidden, or their claims died.
const IN_FLIGHT_BESIDE_WORK_MAX: u64 = 30_000;
/// When the oldest job is this near to its deletion, workers must see it: they explain what SQS would delete. A quarter of
/// the retention where that is shorter: a pause is to hold back more than it shows.
const LAST_CHANCE_MS: u64 = DAY_MS;
/// Where fewer jobs wait, those that the cap refuses cost little, and whoever comes next may be cheaper than they.
const HELD_MIN: u64 = 20;
/// A probe, as the sentinel asks the worker's function for one.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProbeAsk {
    /// For which cause.
    pub probe: Cause,
}

/// What is known of the money of this UTC day, in millionths of a dollar.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Money {
    /// The dearest call that there is room for.
    pub room_micro_usd: u64,
    /// All that the day may cost.
    pub cap_micro_usd: u64,
    /// The cheapest call that the cap has refused in the last two minutes.
    pub refused_micro_usd: Option<u64>,
}

/// What the pauses are decided by; `None`: it could not be read, and nothing follows from it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Signs {
    /// The sentinel's clock, in milliseconds since 1970.
    pub now_ms: u64,
    /// How calls went in the last minutes.
    pub calls: Option<Calls>,
    /// When a call was last answered.
    pub answered_at_ms: Option<u64>,
    /// When a call was last over, answered or not, and its invocation lived.
    pub called_at_ms: Option<u64>,
    /// When money was last taken for calls.
    pub reserved_at_ms: Option<u64>,
    /// Claims whose worker died.
    pub dead: Option<DeadClaims>,
    /// Whether those are many, whenever they died, and whatever of.
    pub many_are_dead: Option<bool>,
    /// How long the version that is live has been looked at.
    pub watch: Option<Watch>,
    /// Messages that wait in the jobs queue.
    pub waiting: Option<u64>,
    /// Messages that are in flight.
    pub in_flight: Option<u64>,
    /// The age of the oldest job.
    pub oldest_job_ms: Option<u64>,
    /// What the day can still pay.
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

impl Signs {
    /// The next entries, and what they ask for.
    #[must_use]
    pub fn decide(&self, control: &Control) -> Decision {
        let signs = Self { dead: self.dead_that_count(control), ..self.clone() };
        Decision { entries: signs.next_entries(control) }
    }

    fn next_entries(&self, control: &Control) -> BTreeMap<Cause, Entry> {
        // What a newer release says of a cause is its own.
        let known = Cause::ALL.iter().filter(|cause| !control.foreign.contains_key(cause.as_str()));
        let next = known.filter_map(|cause| {
            let entry = match control.entries.get(cause) {
                // A narrow way that nobody may take shows nothing.
                Some(standing) if control.is_shut() && matches!(standing.phase, Phase::Reopening { .. }) => {
                    Some(standing.clone())
                }
                // A probe is paid for, too.
                Some(standing) if is_shut_for_money(control) && is_probed(*cause, standing) => {
                    Some(standing.clone())
                }
                // What is held for another cause is not heard of.
                Some(standing) if *cause == Cause::Outage && control.is_shut() => {
                    Self { calls: None, ..self.clone() }.go_on(*cause, standing)
                }
                Some(standing) => self.go_on(*cause, standing),
                None if *cause == Cause::Outage && self.was_silent(control) => None,
                None => self.begins(*cause).map(|reason| self.pause(*cause, reason)),
            };
            entry.map(|entry| (*cause, entry))
        });
        next.collect()
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
        let changes = entries != control.entries || control.was_lifted();
        changes.then(|| control.with_all(entries, self.now_ms))
    }

    /// Whether jobs are to reach the worker, by what stands in the record.
    #[must_use]
    pub fn leads_jobs(&self, control: &Control) -> bool {
        !control.is_shut() || self.is_last_chance(control)
    }

    fn pause(&self, cause: Cause, reason: impl Into<String>) -> Entry {
        let until_other_than = match cause {
            Cause::SpendCap => self.money.map(|money| self.spent_for(money)),
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
                // What others have reserved comes back when their invocations end, and most of those have ended.
                let settled =
                    self.answered_before(UNHEARD_MS) && self.is_past(self.reserved_at_ms, UNHEARD_MS);
                (settled && self.held()? >= HELD_MIN && money.room_micro_usd < money.refused_micro_usd?)
                    .then(|| "the day's spend cap leaves no room for a call".to_owned())
            }
            Cause::Deaths => self.is_dying().then(|| {
                "claims die, one after the other: deploy a version that works, or resume by hand".to_owned()
            }),
            Cause::InFlight => self
                .in_flight
                .filter(|in_flight| *in_flight > self.in_flight_max())
                .map(|in_flight| format!("{in_flight} messages are in flight; SQS stops at 120,000")),
        }
    }

    /// The next form of an entry that stands; `None`: it is over.
    fn go_on(&self, cause: Cause, entry: &Entry) -> Option<Entry> {
        match cause {
            Cause::Operator => Some(self.dated(entry)),
            Cause::InFlight => self.go_on_flooded(entry),
            Cause::SpendCap => self.go_on_capped(entry),
            Cause::Account | Cause::Outage | Cause::Deaths => self.come_back(cause, entry),
        }
    }

    /// A pause of 1970 would be a job's last chance from its first minute on.
    fn dated(&self, entry: &Entry) -> Entry {
        match entry.since_ms {
            0 => Entry { since_ms: self.now_ms, phase_since_ms: self.now_ms, ..entry.clone() },
            _ => entry.clone(),
        }
    }

    /// Where a deploy that kills left so much in flight, the next ones that it takes are to be few.
    fn go_on_flooded(&self, entry: &Entry) -> Option<Entry> {
        let narrow = || entry.in_phase(Phase::Reopening { width: 1 }, self.now_ms);
        match entry.phase {
            Phase::Reopening { .. } | Phase::Open => self.come_back(Cause::InFlight, entry),
            Phase::Paused | Phase::Probing
                // While it lasts nobody works, and those who will are to find room.
                if self.in_flight.is_some_and(|in_flight| in_flight < IN_FLIGHT_BESIDE_WORK_MAX) =>
            {
                match self.many_are_dead {
                    Some(true) => Some(narrow()),
                    Some(false) => None,
                    None => Some(entry.clone()),
                }
            }
            Phase::Paused | Phase::Probing => Some(entry.clone()),
        }
    }

    /// A day's money that is spent again the next day is one long pause of old jobs: it keeps the time when it began.
    fn go_on_capped(&self, entry: &Entry) -> Option<Entry> {
        let for_ms = self.now_ms.saturating_sub(entry.phase_since_ms);
        if entry.phase != Phase::Open {
            let over = self.money.is_some_and(|money| self.is_spent_no_more(money, entry))
                // Those that there was no room for may be gone, and with the gap nothing flaps.
                || self.held().is_some_and(|held| held < HELD_MIN / 2);
            return Some(if over { entry.in_phase(Phase::Open, self.now_ms) } else { entry.clone() });
        }
        if let Some(reason) = self.begins(Cause::SpendCap) {
            return Some(self.relapsed(Cause::SpendCap, entry, reason));
        }
        (for_ms < CAPPED_AGAIN_MS).then(|| entry.clone())
    }

    fn relapsed(&self, cause: Cause, entry: &Entry, reason: String) -> Entry {
        let until_other_than = self.pause(cause, "").until_other_than;
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
            Phase::Paused if for_ms + UNEVEN_MS >= probe_wait_ms(entry.relapses) => to(Phase::Probing),
            Phase::Probing if for_ms >= PROBE_LOST_MS => to(Phase::Probing),
            Phase::Paused | Phase::Probing => standing(),
            Phase::Reopening { .. } | Phase::Open if let Some(reason) = self.relapses(cause, entry) => {
                Some(self.relapsed(cause, entry, reason))
            }
            Phase::Reopening { width } if for_ms >= STEP_MS && self.may_widen(cause, entry, for_ms) => {
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
        // Of claims, none counts that began before.
        let too_early = cause != Cause::Deaths
            && matches!(entry.phase, Phase::Reopening { width: 1 })
            && for_ms < STEP_MS;
        if too_early { None } else { self.begins(cause) }
    }

    fn may_widen(&self, cause: Cause, entry: &Entry, for_ms: u64) -> bool {
        let answered = self.answered_at_ms.is_some_and(|at_ms| at_ms > entry.phase_since_ms);
        let idle = self.waiting == Some(0) && self.in_flight == Some(0);
        // Where claims die, nobody is answered, either; and where messages are hidden, nobody tries another version.
        let none_died = self.dead.as_ref().is_some_and(|dead| dead.none_of_late(self.now_ms));
        let waits = self.waiting.is_some_and(|waiting| waiting > 0);
        let can_be_tried = cause != Cause::Deaths || waits || for_ms >= HIDDEN_MS;
        answered || idle || (for_ms >= UNHEARD_MS && none_died && can_be_tried)
    }

    /// Whether nobody may call, or might not for a part of the time that [`Self::calls`] is of: the last failures before that
    /// look like an outage.
    fn was_silent(&self, control: &Control) -> bool {
        let opened_lately = |at_ms: u64| self.now_ms.abs_diff(at_ms) < CALLS_MS;
        control.is_shut() || control.opened_at_ms.is_some_and(opened_lately)
    }

    fn is_outage(&self, calls: Calls) -> bool {
        let all = calls.failed.saturating_add(calls.answered);
        calls.failed >= FAILED_MIN
            && calls.failed.saturating_mul(100) >= all.saturating_mul(FAILED_PERCENT)
            && self.have_failed_for(calls, STEP_MS)
            && self.answered_before(ANSWER_FRESH_MS)
    }

    /// Whether calls have failed for so long, those that hang included. What is refused at once, as where a burst meets a slow
    /// provider, shows nothing however long the answers beside it take.
    fn have_failed_for(&self, calls: Calls, ms: u64) -> bool {
        let until_ms = calls.failing_until_ms.map_or(self.now_ms, |until_ms| until_ms.min(self.now_ms));
        calls.failing_since_ms.is_none_or(|since_ms| since_ms.saturating_add(ms) <= until_ms)
    }

    /// Of a version that is not known, no other one would be told.
    fn is_dying(&self) -> bool {
        self.function_version.is_some() && self.dead.as_ref().is_some_and(DeadClaims::are_many)
    }

    fn dead_that_count(&self, control: &Control) -> Option<DeadClaims> {
        let since_ms =
            control.claims_count_since_ms(self.watch.as_ref()?, self.answered_at_ms.max(self.called_at_ms));
        self.dead.as_ref().map(|dead| dead.that_began_after(since_ms))
    }

    /// Whether no call was answered within this time.
    fn answered_before(&self, ms: u64) -> bool {
        self.is_past(self.answered_at_ms, ms)
    }

    /// Whether this is as long ago, or never was.
    fn is_past(&self, at_ms: Option<u64>, ms: u64) -> bool {
        at_ms.is_none_or(|at_ms| at_ms.saturating_add(ms) <= self.now_ms)
    }

    /// The day, the cap, and what there was no room for.
    fn spent_for(&self, money: Money) -> String {
        let refused = money.refused_micro_usd.unwrap_or(u64::MAX);
        format!("{} {} {refused}", UtcDay::of(self.now_ms), money.cap_micro_usd)
    }

    /// Another day, another cap, or what was reserved has come back: an invocation may be longer than anybody waited for.
    fn is_spent_no_more(&self, money: Money, entry: &Entry) -> bool {
        let until = entry.until_other_than.as_deref().unwrap_or_default();
        let mut words = until.split(' ');
        let is_same = words.next() == Some(UtcDay::of(self.now_ms).to_string().as_str())
            && words.next() == Some(money.cap_micro_usd.to_string().as_str());
        let refused = words.next().and_then(|word| word.parse().ok());
        !is_same || refused.is_some_and(|refused: u64| refused <= money.room_micro_usd)
    }

    /// Jobs that wait, whoever holds them back.
    fn held(&self) -> Option<u64> {
        Some(self.waiting?.saturating_add(self.in_flight?))
    }

    fn in_flight_max(&self) -> u64 {
        IN_FLIGHT_MAX.max(u64::from(self.full_width).saturating_add(IN_FLIGHT_BESIDE_WORK_MAX))
    }

    /// Nobody knows how old a job is that no worker has begun: SQS tells it of none that was received three times
    /// ("Available CloudWatch metrics for Amazon SQS"). When the pause began, or the one before it whose jobs may
    /// wait still, it was under half of the retention, or `jobs-expiring` has called.
    fn is_last_chance(&self, control: &Control) -> bool {
        let paused_ms = control.waited_since_ms().map_or(0, |since_ms| self.now_ms.saturating_sub(since_ms));
        let unseen_ms = paused_ms.saturating_add(self.retention_ms / 2);
        let oldest_ms = self.oldest_job_ms.unwrap_or_default().max(unseen_ms);
        oldest_ms >= self.retention_ms.saturating_sub(LAST_CHANCE_MS.min(self.retention_ms / 4))
    }
}

impl Control {
    /// The next version of the record where different jobs in a row were refused for the account, of which the last one of
    /// this task was called for at `began_ms`; `None`: it says so already, or a newer release speaks for the account.
    #[must_use]
    pub fn account_refused(&self, task: &str, began_ms: u64, why: &str, now_ms: u64) -> Option<Self> {
        // What was called for before the way was opened says nothing of it.
        if began_ms <= self.opened_at_ms.unwrap_or_default() {
            return None;
        }
        let reason = format!("{JOBS_IN_A_ROW} different jobs in a row were refused for the account: {why}");
        let entry = match self.entries.get(&Cause::Account) {
            None if self.foreign.contains_key(Cause::Account.as_str()) => return None,
            None => Entry::paused(now_ms, reason, WORKER),
            Some(entry) => match entry.phase {
                Phase::Paused | Phase::Probing => return None,
                Phase::Reopening { .. } | Phase::Open if began_ms <= entry.phase_since_ms => return None,
                Phase::Reopening { .. } | Phase::Open => entry.relapsed(now_ms, reason, WORKER),
            },
        };
        Some(self.with(Cause::Account, Entry { task: Some(task.to_owned()), ..entry }))
    }
}

/// With which task's schema a probe asks: with that of the job which met the cause. A probe of the account asks with any
/// every other time: what is refused may be the one schema, and the jobs of other tasks are not to wait for it.
#[must_use]
pub fn probe_task(
    cause: Cause,
    named: Option<&str>,
    deployed: &[&'static str],
    fraction: f64,
) -> Option<&'static str> {
    let named = named.and_then(|named| deployed.iter().find(|task| **task == named)).or(deployed.first());
    if cause != Cause::Account || fraction < 0.5 {
        return named.copied();
    }
    let place = ((2.0 * fraction - 1.0) * deployed.len() as f64) as usize;
    deployed.get(place).or(named).copied()
}

/// Whether nothing is to be paid for: an operator says so, or the day's money is spent.
fn is_shut_for_money(control: &Control) -> bool {
    let is_shut = |cause| control.entries.get(&cause).is_some_and(|entry| entry.phase == Phase::Paused);
    is_shut(Cause::Operator) || is_shut(Cause::SpendCap)
}

fn is_probed(cause: Cause, entry: &Entry) -> bool {
    matches!(cause, Cause::Account | Cause::Outage) && matches!(entry.phase, Phase::Paused | Phase::Probing)
}

fn probe_wait_ms(relapses: u32) -> u64 {
    PROBE_WAIT_MS.saturating_mul(2_u64.saturating_pow(relapses)).min(PROBE_WAIT_MS_MAX)
}

impl Snapshot {
    /// What pauses are decided by; `full_width`: how many calls may be open at once with nothing held back.
    #[must_use]
    pub fn signs(&self, limits: &StackLimits, full_width: u32) -> Signs {
        // Without the day's record nobody knows whether others were answered meanwhile.
        let spent = self.spent;
        let dead = spent.and_then(|_| self.dead_claims(limits));
        Signs {
            now_ms: self.at_ms,
            calls: spent.and(self.calls),
            answered_at_ms: spent.and_then(|spent| spent.answered_at_ms),
            called_at_ms: spent.and_then(|spent| spent.called_at_ms),
            reserved_at_ms: spent.and_then(|spent| spent.reserved_at_ms),
            many_are_dead: dead.as_ref().map(DeadClaims::are_many),
            dead,
            watch: self.watch,
            waiting: self.jobs.map(|depth| depth.visible),
            in_flight: self.jobs.map(|depth| depth.hidden),
            oldest_job_ms: self.oldest_job_ms(limits),
            money: spent.map(|spent| Money {
                room_micro_usd: spent.room_micro_usd(limits.spend_cap_micro_usd),
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
    /// What the answer to a probe makes of a cause that was probed: work for one call, or the same wait again, from when it was
    /// asked, since a provider that hangs lets it wait long enough.
    #[must_use]
    pub fn probed(&self, works: bool, now_ms: u64) -> Self {
        if works {
            self.in_phase(Phase::Reopening { width: 1 }, now_ms)
        } else {
            Self { phase: Phase::Paused, ..self.clone() }
        }
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
mod tests;
