//! Pauses: each has its cause and its owner, and ends in time, by a probe and a narrow way.
//!
//! What is injected and heard is known here, and nothing of how the sentinel decides. Where late writes or lost words could
//! make it see things otherwise, it is left either way.

use std::collections::{BTreeMap, VecDeque};

use nightshift_core::control::{Cause, Control, Entry, Phase};
use nightshift_core::sentinel::Switch;
use nightshift_core::spend::UtcDay;
use nightshift_ports::ControlAnswer;

use super::Promise;
use super::blame::Heard;
use super::history::CallEnd;
use crate::plan::{Away, CALL_MICRO_USD_MAX, DAY, HOUR, MINUTE, Plan, SECOND};
use crate::world::{BEGINNING_MS, State};

/// Who writes the control record.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Writer {
    Operator,
    Worker,
    Sentinel,
}

/// What is known of causes and pauses.
#[derive(Debug, Default)]
pub struct Pauses {
    /// Since when the record lets nobody call.
    pub shut_since_ms: Option<u64>,
    /// When it last began or ceased to let nobody call.
    changed_ms: u64,
    /// When it let work through where something had held it back.
    opened_ms: Vec<u64>,
    /// When an environment last heard of different jobs in a row that may have been refused for the account.
    account_ms: u64,
    /// When the cap last refused a call.
    cap_ms: u64,
    /// When a call was last answered.
    answered_ms: u64,
    /// Calls of each minute: answered, and failed otherwise than for a limit.
    calls: BTreeMap<u64, (u64, u64)>,
    /// Of those that failed, the last ones with no answer between them.
    failed_in_row: u64,
    /// Claims that were left behind by their workers.
    left: Vec<Left>,
    /// When the last probes began.
    probes: VecDeque<u64>,
    /// When there was last anything to pause for.
    trouble_ms: u64,
    /// When the last two runs of the sentinel began that did all that they had to do.
    whole_runs_ms: [u64; 2],
}

/// A claim that its worker left behind.
#[derive(Debug, Clone, Copy)]
struct Left {
    at_ms: u64,
    began_ms: u64,
    invocation: u64,
}

/// What an environment knows may reach the sentinel this much later.
const LATE_MS: u64 = 5 * MINUTE;
/// Claims that die are trouble for so long: until their lease ends, and for a quarter of an hour.
const LEFT_MS: u64 = 25 * MINUTE;
/// Fewer calls that fail, or claims that are left behind, are nothing to pause for.
const SIGNS_MIN: u64 = 10;
/// With nothing to pause for, everything is open again after this time: the longest wait for a probe, one that is lost, and
/// a way that widens with nothing heard; and runs that are skipped and killed meanwhile.
const OPEN_AFTER_MS: u64 = 4 * HOUR;
/// With nothing heard, a narrow way stays as narrow for so long.
const UNHEARD_MS: u64 = 9 * MINUTE;
/// The switch follows the record within this time, whatever is skipped and killed.
const SWITCH_AFTER_MS: u64 = 30 * MINUTE;

impl Pauses {
    /// A worker has heard of its call; `limited`: it was refused for a rate limit.
    pub fn heard(&mut self, now_ms: u64, end: CallEnd, limited: bool) {
        let minute = self.calls.entry(now_ms / MINUTE).or_default();
        let has_failed = match end {
            CallEnd::Transient => true,
            CallEnd::Capacity if limited => return,
            // The provider is there, or a firewall before it: no answer, and no sign.
            CallEnd::Rejected | CallEnd::Unclear | CallEnd::Forbidden => return,
            CallEnd::Capacity => true,
            CallEnd::Account => return,
            _ => false,
        };
        if has_failed {
            minute.1 += 1;
            self.failed_in_row += 1;
        } else {
            minute.0 += 1;
            self.failed_in_row = 0;
            self.answered_ms = now_ms;
        }
        if self.failed_in_row >= SIGNS_MIN || is_outage(minute) {
            self.trouble_ms = now_ms;
        }
        if self.calls.len() > 10 {
            self.calls.pop_first();
        }
    }

    /// Different jobs in a row were refused for the account, or in words that are taken for it.
    pub fn heard_of_account(&mut self, now_ms: u64) {
        (self.account_ms, self.trouble_ms) = (now_ms, now_ms);
    }

    /// The cap refused a call.
    pub fn heard_of_cap(&mut self, now_ms: u64) {
        (self.cap_ms, self.trouble_ms) = (now_ms, now_ms);
    }

    /// An invocation left so many claims behind.
    pub fn left_behind(&mut self, now_ms: u64, began_ms: u64, invocation: u64, claims: usize) {
        self.left.extend(std::iter::repeat_n(Left { at_ms: now_ms, began_ms, invocation }, claims));
        let of_late = self.left.iter().nth_back(SIGNS_MIN as usize - 1);
        if of_late.is_some_and(|left| left.at_ms + LEFT_MS >= now_ms) {
            self.trouble_ms = now_ms;
        }
    }

    /// A run of the sentinel did all that it had to do.
    pub fn ran_whole(&mut self, began_ms: u64) {
        self.whole_runs_ms = [self.whole_runs_ms[1], began_ms];
    }

    /// Whether an invocation that began then may have read that nobody may call.
    pub(super) fn was_shut_since(&self, began_ms: u64) -> bool {
        self.shut_since_ms.is_some() || self.changed_ms + READ_MS >= began_ms
    }

    /// When the way was last opened, as an invocation that is still under way must have read it.
    pub(super) fn opened_ms(&self, now_ms: u64) -> u64 {
        let known = self.opened_ms.iter().filter(|at_ms| **at_ms + 2 * LATE_MS < now_ms);
        known.max().copied().unwrap_or_default()
    }

    /// `room_micro_usd`: the dearest call that some record of the day could pay all the time of late; `healthy_ms`: when the
    /// ledger was last away, or a call was answered, as far as the ledger knows.
    fn is_justified(&self, cause: Cause, room_micro_usd: u64, healthy_ms: u64, now_ms: u64) -> bool {
        match cause {
            Cause::Operator => false,
            Cause::Account => self.account_ms + LATE_MS >= now_ms,
            Cause::SpendCap => self.cap_ms + LATE_MS >= now_ms && room_micro_usd < CALL_MICRO_USD_MAX,
            Cause::InFlight => true,
            Cause::Outage => {
                let from = (now_ms - LATE_MS) / MINUTE;
                let mut minutes = self.calls.range(from..);
                self.failed_in_row >= SIGNS_MIN || minutes.any(|(_, minute)| is_outage(minute))
            }
            Cause::Deaths => {
                let opened_ms = self.opened_ms.last().copied().unwrap_or_default();
                let since_ms = healthy_ms.max(opened_ms).saturating_sub(MINUTE);
                let (mut claims, mut invocations) = (0, Vec::new());
                // However long ago: with little to do it takes its time until ten have died, and nobody has lived since.
                for left in self.left.iter().filter(|left| left.began_ms >= since_ms) {
                    claims += 1;
                    if !invocations.contains(&left.invocation) {
                        invocations.push(left.invocation);
                    }
                }
                // Of a claim that took effect late, nothing is known here.
                claims >= SIGNS_MIN / 2 && invocations.len() >= 2
            }
        }
    }
}

impl State {
    /// A change of the control record reaches the table.
    pub fn control_write(
        &mut self,
        now_ms: u64,
        next: &Control,
        over: &Control,
        by: Writer,
        plan: &Plan,
    ) -> ControlAnswer {
        let standing = Control::read(self.control.clone());
        if (standing.version, standing.told()) != (over.version, over.told()) {
            return ControlAnswer::Refused(Box::new(standing));
        }
        if by != Writer::Operator {
            self.judge_control(now_ms, &standing, next, plan);
        }
        self.control = next.stored();
        if next.entries.contains_key(&Cause::Account) {
            self.heard.values_mut().for_each(Heard::forget_account);
        }
        let is_shut = next.is_shut();
        if !standing.is_open() && !is_shut {
            self.pauses.opened_ms.push(now_ms);
        }
        if is_shut != self.pauses.shut_since_ms.is_some() {
            self.pauses.shut_since_ms = is_shut.then_some(now_ms);
            self.pauses.changed_ms = now_ms;
            if is_shut {
                self.shut_ms.push(now_ms - BEGINNING_MS);
            }
        }
        ControlAnswer::Written
    }

    fn judge_control(&mut self, now_ms: u64, before: &Control, next: &Control, plan: &Plan) {
        self.stats.checks += 1;
        let operator = |control: &Control| control.entries.get(&Cause::Operator).cloned();
        if operator(before) != operator(next) {
            self.violate(now_ms, Promise::Paused, None, "a machine has changed an operator's pause");
        }
        for cause in Cause::ALL.iter().filter(|cause| **cause != Cause::Operator) {
            let (was, is) = (before.entries.get(cause), next.entries.get(cause));
            if was == is {
                continue;
            }
            let phase = |entry: Option<&Entry>| entry.map(|entry| entry.phase);
            let relapses = |entry: Option<&Entry>| entry.map_or(0, |entry| entry.relapses);
            let begins = !holds_all(phase(was)) && holds_all(phase(is));
            if begins {
                *self.stats.pauses.entry(cause.as_str().to_owned()).or_default() += 1;
                self.held_ms.push((*cause, now_ms - BEGINNING_MS));
            }
            let answered_ms = self.spend.values().filter_map(|day| day.answered_at_ms).max();
            let ledger_ms = plan.last_ended_ms(now_ms - BEGINNING_MS, &|what| what == Away::Ledger);
            let ledger_ms = ledger_ms.map_or(now_ms, |ms| BEGINNING_MS + ms);
            let healthy_ms = answered_ms.unwrap_or_default().max(ledger_ms);
            let room_micro_usd = self.room_of_late(now_ms, plan);
            if begins && !self.pauses.is_justified(*cause, room_micro_usd, healthy_ms, now_ms) {
                let what = format!("{cause:?} pauses, and there is nothing to pause for: {is:?}");
                self.violate(now_ms, Promise::Paused, None, what);
            } else if begins && *cause == Cause::Deaths {
                self.pauses.trouble_ms = now_ms;
            }
            if relapses(is) > relapses(was) + 1 {
                self.violate(now_ms, Promise::Paused, None, format!("one relapse of {cause:?} counts twice"));
            }
            if let Some(was) = was
                && phase(is).is_some_and(|is| is_wider(was.phase, is))
                && self.pauses.answered_ms + MINUTE < was.phase_since_ms
                && was.phase_since_ms + UNHEARD_MS > now_ms
                && self.queue.oldest_sent_ms().is_some_and(|sent_ms| sent_ms + 2 * MINUTE < now_ms)
            {
                let what = format!("the way of {cause:?} widens, and nobody was answered on it: {was:?}");
                self.violate(now_ms, Promise::Reopens, None, what);
            }
            if !is_gentle(*cause, phase(was), phase(is), plan.full_width()) {
                let what = format!("{cause:?} goes from {:?} to {:?}", phase(was), phase(is));
                self.violate(now_ms, Promise::Reopens, None, what);
            }
        }
    }

    /// The dearest call that some record of this day can pay, where that was so for a minute.
    fn room_of_late(&self, now_ms: u64, plan: &Plan) -> u64 {
        let today = UtcDay::of(now_ms);
        let changed_ms = self.spend.get(&today).map_or(today.begins_ms(), |day| day.changed_ms);
        if changed_ms + MINUTE < now_ms { self.room_micro_usd(today, plan) } else { 0 }
    }

    /// A probe's call begins.
    pub fn probe_begins(&mut self, now_ms: u64) {
        self.stats.checks += 1;
        self.stats.probes += 1;
        let probes = &mut self.pauses.probes;
        probes.push_back(now_ms);
        while probes.front().is_some_and(|at_ms| at_ms + 10 * MINUTE < now_ms) {
            probes.pop_front();
        }
        // One a minute, by a schedule that is uneven, and one or two that Lambda delivers twice.
        if probes.len() > 13 {
            let what = format!("{} probes in ten minutes", probes.len());
            self.violate(now_ms, Promise::Paced, None, what);
        }
    }

    /// Each minute: what holds, holds for something; and the switch follows the record.
    pub fn judge_pauses(&mut self, now_ms: u64, plan: &Plan) {
        self.stats.checks += 1;
        let control = Control::read(self.control.clone());
        let switch = self.mapping.switch(now_ms);
        let ended = |what: &dyn Fn(Away) -> bool| plan.last_ended_ms(now_ms - BEGINNING_MS, what);
        let Some(world_ms) = ended(&|_| true) else { return };
        let quiet_since_ms = self.pauses.trouble_ms.max(BEGINNING_MS + world_ms);
        let held = control.holding().find(|(cause, entry)| {
            let ends_by_itself = *cause == Cause::SpendCap && entry.phase_since_ms + 26 * HOUR > now_ms;
            *cause != Cause::Operator && !ends_by_itself && entry.phase_since_ms + OPEN_AFTER_MS / 2 < now_ms
        });
        if let Some((cause, entry)) = held.filter(|_| quiet_since_ms + OPEN_AFTER_MS < now_ms) {
            let what = format!(
                "{cause:?} holds work back for {} minutes after the last trouble: {entry:?}",
                (now_ms - quiet_since_ms) / MINUTE
            );
            self.violate(now_ms, Promise::Reopens, None, what);
        }
        let Some(sentinel_ms) = ended(&|what| matches!(what, Away::Sentinel | Away::Ledger)) else { return };
        let since_ms = self.pauses.changed_ms.max(BEGINNING_MS + sentinel_ms);
        // One may have met a switch that was turning the other way.
        let was_seen = self.pauses.whole_runs_ms.iter().all(|began_ms| *began_ms > since_ms)
            || since_ms + OPEN_AFTER_MS < now_ms;
        if since_ms + SWITCH_AFTER_MS > now_ms || switch == Switch::Turning || !was_seen {
            return;
        }
        let is_on = switch == Switch::On;
        if self.pauses.shut_since_ms.is_none() && !is_on {
            self.violate(now_ms, Promise::Reopens, None, "nothing is paused, and no job reaches the worker");
        }
        // From when the oldest jobs may be near to their deletion, workers are to see them.
        let near_ms = (plan.limits.retention_ms / 2).saturating_sub(DAY + HOUR);
        let began_ms = control.waited_since_ms().unwrap_or(now_ms);
        let age_ms = self.queue.oldest_sent_ms().map_or(0, |sent_ms| now_ms - sent_ms);
        let is_early = began_ms + near_ms > now_ms && age_ms + DAY + HOUR < plan.limits.retention_ms;
        if self.pauses.shut_since_ms.is_some() && is_on && is_early {
            self.violate(now_ms, Promise::Paused, None, "a pause stands, and jobs reach the worker in vain");
        }
    }
}

/// More of the minute's calls have failed than were answered.
fn is_outage((answered, failed): &(u64, u64)) -> bool {
    *failed >= SIGNS_MIN && failed > answered
}

/// Whether a narrow way is wider then.
fn is_wider(from: Phase, to: Phase) -> bool {
    match (from, to) {
        (Phase::Reopening { width }, Phase::Reopening { width: wider }) => wider > width,
        (from, to) => matches!(from, Phase::Reopening { .. }) && to == Phase::Open,
    }
}

fn holds_all(phase: Option<Phase>) -> bool {
    matches!(phase, Some(Phase::Paused | Phase::Probing))
}

/// Whether a machine may take a cause from one phase to another. The two that end with what they are for need no probe.
fn is_gentle(cause: Cause, from: Option<Phase>, to: Option<Phase>, full_width: u32) -> bool {
    use Phase::{Open, Paused, Probing, Reopening};
    match (from, to) {
        (_, Some(Paused | Probing)) => true,
        (_, None | Some(Open)) if matches!(cause, Cause::SpendCap | Cause::InFlight) => true,
        (Some(Paused | Probing), Some(Reopening { width })) => width == 1,
        (Some(Reopening { width }), Some(Reopening { width: wider })) => wider <= 2 * width,
        (Some(Reopening { width }), Some(Open)) => 2 * width >= full_width,
        (Some(Open), None) => true,
        _ => false,
    }
}

/// How long a worker may go by what it has read: cached, and on its way.
pub(super) const READ_MS: u64 = 6 * SECOND;
