//! Whose fault a refusal may be taken for, by what its environment has heard of others.
//!
//! It only knows what was injected and heard. Where two clocks or a late write could make the worker see it otherwise, it
//! leaves the worker either way.

use std::collections::{BTreeMap, BTreeSet};

use nightshift_core::control::{Cause, Control};

use super::history::CallEnd;
use super::tolerance_ms;
use crate::plan::{MINUTE, Plan, SECOND};
use crate::world::State;

/// Different jobs in a row that may be taken for the deployment's fault, and that must be.
const MAY_BE_THE_DEPLOYMENT: usize = 3;
const MUST_BE_THE_DEPLOYMENT: usize = 5;
/// Different inputs in a row that must pause the stack, and within which time: of more than twice as many as are asked for, one
/// row of the worker's has enough, wherever its rows begin.
const MUST_PAUSE: usize = 8;
const ACCOUNT_ROW_MS: u64 = 9 * MINUTE;
/// Refusals of a job after which it may be given up: beside answers, and with nothing heard of others.
const BESIDE_ANSWERS: u32 = 3;
const ALONE: u32 = 5;

/// What one environment has heard.
#[derive(Debug, Default)]
pub struct Heard {
    /// The inputs that were refused since their task was last answered, by kind of refusal.
    refused: BTreeMap<RefusedAs, BTreeSet<u32>>,
    /// When the last answered call of a task began, in true time.
    answered_ms: BTreeMap<&'static str, u64>,
    /// The inputs that were refused for the account since anybody was answered: in words that say so, and in any that may
    /// be taken for it.
    account: BTreeSet<u32>,
    account_since_ms: u64,
    perhaps_account: BTreeSet<u32>,
    /// The invocation that has heard enough of them to pause, while nothing is written that says so.
    pub untold_of: Option<u64>,
}

impl Heard {
    /// The control record says something of the account, or that nobody may call.
    pub fn forget_account(&mut self) {
        self.account.clear();
        self.untold_of = None;
    }
}

/// The kinds of refusal that the provider knows.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum RefusedAs {
    Rejected,
    Unclear,
    Forbidden,
}

impl State {
    /// A call of an answered task cuts the row; a refused one makes it longer. Returns whether a refusal may be counted as
    /// the account's.
    pub(super) fn hear(
        &mut self,
        now_ms: u64,
        n: u32,
        environment: u32,
        end: CallEnd,
        took_ms: u64,
        plan: &Plan,
    ) -> bool {
        if self.hear_of_account(now_ms, n, environment, end) {
            self.pauses.heard_of_account(now_ms);
        }
        let heard = self.heard.entry(environment).or_default();
        let input = &mut self.inputs[n as usize];
        let task = input.kind.task();
        let kind = match end {
            CallEnd::Valid | CallEnd::Invalid | CallEnd::Refused | CallEnd::Truncated => {
                let inputs = &self.inputs;
                for row in heard.refused.values_mut() {
                    row.retain(|of| inputs[*of as usize].kind.task() != task);
                }
                let last_ms = heard.answered_ms.entry(task).or_default();
                *last_ms = (*last_ms).max(now_ms - took_ms);
                let epoch = &mut self.inputs[n as usize].epoch;
                (epoch.refusals, epoch.may_be_rejected) = (0, false);
                (epoch.refused_since_ms, epoch.counted_since_ms) = (None, None);
                return false;
            }
            CallEnd::Rejected => RefusedAs::Rejected,
            CallEnd::Unclear => RefusedAs::Unclear,
            CallEnd::Forbidden => RefusedAs::Forbidden,
            _ => return false,
        };
        // What a worker could not write of an earlier refusal, the next one does not know.
        let is_first = input.record.as_deref().is_none_or(|record| record.budget.refusals.is_none());
        let epoch = &mut input.epoch;
        epoch.counted_since_ms.take_if(|_| is_first);
        let since_ms = *epoch.refused_since_ms.get_or_insert(now_ms);
        epoch.refusals += 1;
        let answered_ms = heard.answered_ms.get(task).copied();
        let tolerance_ms = tolerance_ms(plan);
        let perhaps_beside = epoch.refusals > 1 && answered_ms.is_some_and(|at| at + tolerance_ms > since_ms);
        let surely_beside = epoch
            .counted_since_ms
            .zip(answered_ms)
            .is_some_and(|(since_ms, at_ms)| at_ms > since_ms + tolerance_ms);
        epoch.counted_since_ms.get_or_insert(now_ms);
        let row = heard.refused.entry(kind).or_default();
        if !surely_beside {
            row.insert(n);
        }
        let alike = row.len();
        let alone = epoch.refusals >= ALONE && kind == RefusedAs::Unclear && alike < MUST_BE_THE_DEPLOYMENT;
        // Once decided, it may be written late.
        epoch.may_be_rejected |=
            kind == RefusedAs::Rejected || alone || (perhaps_beside && epoch.refusals >= BESIDE_ANSWERS);
        let forbidden = kind == RefusedAs::Forbidden && epoch.refusals > 1;
        let deployment = alike >= MAY_BE_THE_DEPLOYMENT;
        if deployment && !surely_beside {
            epoch.counted_since_ms = None;
        }
        !surely_beside && (deployment || forbidden)
    }

    /// Whether this call shows different inputs in a row that may be taken for refused for the account.
    fn hear_of_account(&mut self, now_ms: u64, n: u32, environment: u32, end: CallEnd) -> bool {
        let began_ms = self.inputs[n as usize].epoch.calls.last().map_or(now_ms, |call| call.began_ms);
        let heard = self.heard.entry(environment).or_default();
        match end {
            CallEnd::Valid | CallEnd::Invalid | CallEnd::Refused | CallEnd::Truncated => {
                heard.forget_account();
                heard.perhaps_account.clear();
            }
            CallEnd::Account | CallEnd::Rejected | CallEnd::Unclear | CallEnd::Forbidden => {
                heard.perhaps_account.insert(n);
                if heard.account.is_empty() || heard.account_since_ms + ACCOUNT_ROW_MS < now_ms {
                    heard.account.clear();
                    heard.account_since_ms = now_ms;
                }
                let is_later = heard.account.is_empty() || began_ms > heard.account_since_ms + SECOND;
                if end == CallEnd::Account && is_later {
                    heard.account.insert(n);
                }
                return heard.perhaps_account.len() >= MAY_BE_THE_DEPLOYMENT;
            }
            _ => {}
        }
        false
    }

    /// An environment must pause the stack, where nothing of the account stands.
    pub(super) fn must_tell_of_account(&mut self, environment: u32, invocation: u64) {
        let control = Control::read(self.control.clone());
        let is_free =
            !control.entries.contains_key(&Cause::Account) && !control.foreign.contains_key("account");
        let heard = self.heard.entry(environment).or_default();
        if !is_free {
            heard.forget_account();
        } else if heard.account.len() >= MUST_PAUSE {
            heard.untold_of.get_or_insert(invocation);
        }
    }
}
