//! What a record says beside its state: what it carries on from what stood before, and what it adds up.

use nightshift_core::record::{Budget, HISTORY_MAX, PastFailure, Record, State as Standing};
use serde_json::Map;

use super::history::CallEnd;
use super::{Promise, tolerance_ms};
use crate::fleet::PRICE;
use crate::plan::Plan;
use crate::work::Kind;
use crate::world::State;

impl State {
    /// A claim, or a write under one, is about to stand. Returns what it leaves out or makes up.
    pub(super) fn wrong_record(&self, n: u32, new: &Record, plan: &Plan) -> Option<(Promise, String)> {
        let input = &self.inputs[n as usize];
        let old = input.record.as_deref();
        let same_claim = old.is_some_and(|old| old.token == new.token);
        let not_carried = match old {
            Some(old) if same_claim || goes_on(old, new) => not_carried_on(old, new, same_claim),
            _ => not_begun_afresh(old, new),
        };
        if not_carried.is_some() {
            return not_carried;
        }
        let crashes = new.budget.crashes;
        if crashes >= plan.limits.crash_limit && !matches!(new.state, Standing::Failed(_)) {
            return Some((Promise::Budgets, format!("after {crashes} crashes it is not given up")));
        }
        // Whoever panicked over a job has lost what was said to it.
        let panics = matches!(input.kind, Kind::PanicsInAccept | Kind::PanicsInPrompt);
        if panics || matches!(new.state, Standing::Claimed { .. }) {
            return None;
        }
        self.waits_since_too_long(n, new, same_claim, plan)
            .or_else(|| self.miscounted_cost(n, new, same_claim))
            .map(|what| (Promise::Conserved, what))
            .or_else(|| self.mistold(n, new, same_claim).map(|what| (Promise::Explained, what)))
    }

    /// Whoever was answered has waited for no capacity before that.
    fn waits_since_too_long(&self, n: u32, new: &Record, same_claim: bool, plan: &Plan) -> Option<String> {
        let since_ms = new.budget.waiting_since_ms.filter(|_| same_claim)?;
        let answered = self.inputs[n as usize].epoch.calls_of_claim().find(|call| call.is_answered())?;
        (since_ms + tolerance_ms(plan) < answered.began_ms)
            .then(|| format!("it waits since {since_ms}, and a call of {} was answered", answered.began_ms))
    }

    /// The calls of this claim that were answered, on top of what was spent before it.
    fn miscounted_cost(&self, n: u32, new: &Record, same_claim: bool) -> Option<String> {
        let epoch = &self.inputs[n as usize].epoch;
        let spent: u64 =
            epoch.calls_of_claim().filter(|call| call.is_answered()).map(|c| c.told_micro_usd).sum();
        let told = new.budget.cost_micro_usd;
        let cost = epoch.cost_before_micro_usd + spent;
        let tokens = PRICE.of(new.budget.usage);
        (same_claim && (told != cost || tokens != cost)).then(|| {
            format!("the record says that {told} and tokens for {tokens} millionths of a dollar were spent, and it was {cost}")
        })
    }

    /// What a failure says of the last call: the provider's id of it, and what was answered that was not accepted.
    fn mistold(&self, n: u32, new: &Record, same_claim: bool) -> Option<String> {
        let Standing::Failed(failed) = &new.state else { return None };
        let epoch = &self.inputs[n as usize].epoch;
        let calls = || epoch.calls_of_claim().filter(|_| same_claim);
        let request_id = calls().find(|call| call.is_named).map(|call| call.request_id());
        if failed.request_id != request_id {
            return Some(format!(
                "it names the call {:?}, and the last was {request_id:?}",
                failed.request_id
            ));
        }
        let said = calls().find(|call| call.is_answered() && call.end != CallEnd::Valid);
        let said = said.and_then(|call| call.said);
        let excerpt = failed.excerpt.as_ref().map(super::calls::number_of);
        (excerpt != said).then(|| format!("{:?} is not what the model said last", failed.excerpt))
    }
}

/// Whether a takeover of this record goes on with the job that it is of. By its worker's own clock: nobody else's says
/// whether it had expired.
fn goes_on(old: &Record, new: &Record) -> bool {
    let begun = matches!(old.state, Standing::Open | Standing::Claimed { .. });
    begun && old.expires_at_ms > new.last_claimed_ms
}

fn not_carried_on(old: &Record, new: &Record, same_claim: bool) -> Option<(Promise, String)> {
    let claims = old.budget.claims + u32::from(!same_claim);
    let spent = |budget: &Budget| (budget.usage.total(), budget.cost_micro_usd);
    let kept = [
        ("task", Promise::Conserved, old.task == new.task),
        ("reference", Promise::Conserved, old.reference == new.reference),
        ("first_received_ms", Promise::Conserved, old.first_received_ms == new.first_received_ms),
        ("redrives", Promise::Conserved, old.redrives == new.redrives),
        ("history", Promise::Conserved, old.history == new.history),
        ("claims", Promise::Budgets, claims == new.budget.claims),
        ("reasks", Promise::Budgets, old.budget.reasks <= new.budget.reasks),
        ("crashes", Promise::Budgets, old.budget.crashes <= new.budget.crashes),
        ("cost", Promise::Budgets, same_claim || spent(&old.budget) == spent(&new.budget)),
    ];
    let (name, promise, _) = kept.into_iter().find(|(_, _, is_kept)| !is_kept)?;
    Some((promise, format!("a job that goes on does not keep its {name}")))
}

/// A failure that is begun afresh is remembered; what had expired, or a person erased, is not.
fn not_begun_afresh(old: Option<&Record>, new: &Record) -> Option<(Promise, String)> {
    let (redrives, history) = match old.filter(|old| old.expires_at_ms > new.last_claimed_ms) {
        Some(old) => match &old.state {
            Standing::Failed(failed) => {
                (old.redrives + 1, with_one_more(old, failed.reason.as_str(), failed.failed_at_ms))
            }
            Standing::Erased => (0, Vec::new()),
            _ => (old.redrives, old.history.clone()),
        },
        None => (0, Vec::new()),
    };
    let spent = Budget { claims: 0, calls: 0, crashes: 0, ..new.budget };
    if new.redrives != redrives {
        let what = format!("begun afresh {redrives} times, it says {}", new.redrives);
        Some((Promise::Conserved, what))
    } else if new.history != history {
        Some((Promise::Conserved, format!("its history is {:?}, and should be {history:?}", new.history)))
    } else if spent != Budget::default() {
        Some((Promise::Budgets, format!("it begins afresh with {spent:?} spent")))
    } else {
        None
    }
}

/// The history of a record with the failure that was its last state.
pub(super) fn with_one_more(old: &Record, reason: &str, failed_at_ms: u64) -> Vec<PastFailure> {
    let last = PastFailure {
        reason: reason.to_owned(),
        failed_at_ms,
        calls: old.budget.calls,
        message_id: old.message_id.clone(),
        more: Map::new(),
    };
    let mut history = old.history.clone();
    history.push(last);
    history.split_off(history.len().saturating_sub(HISTORY_MAX))
}
