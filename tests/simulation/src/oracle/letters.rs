//! Each dead letter as it arrives in its queue.

use nightshift_core::dead_letter::DeadLetter;
use nightshift_core::failure::FailureReason;
use nightshift_core::message::Attribute;
use nightshift_core::record::{Failed, Record, State as Standing};
use serde_json::Value;

use super::Promise;
use super::history::CallEnd;
use crate::plan::Plan;
use crate::queue::{Place, group_of};
use crate::work::{CutOff, Kind, cut_off, oversize};
use crate::world::State;

/// Of ten attributes that SQS allows, one is always ours.
const SENDERS_MAX: usize = 9;
const OURS: [&str; 3] = ["FailureReason", "InputHash", "FailureContext"];

/// A dead letter as it arrives.
#[derive(Debug, Clone)]
pub struct ArrivedLetter {
    pub n: u32,
    pub reason: FailureReason,
    pub message: u32,
    /// The version of the failed record that it says it tells of.
    pub version: Option<u64>,
    pub body_is_original: bool,
    pub letter: DeadLetter,
    pub context: Value,
}

impl State {
    /// A dead letter arrives in its queue.
    pub fn letter_arrives(&mut self, now_ms: u64, letter: &ArrivedLetter, invocation: u64, plan: &Plan) {
        self.stats.checks += 1;
        let ArrivedLetter { n, reason, message, version, body_is_original, .. } = *letter;
        self.note(now_ms, n, || {
            format!("dead letter for message {message}: {reason} by invocation {invocation}")
        });
        let last_chance = self.is_last_chance(now_ms, message, plan);
        let input = &self.inputs[n as usize];
        // Or said so until the job was begun afresh, a moment ago.
        let in_ledger = input.record.as_deref().is_some_and(|record| match &record.state {
            Standing::Failed(failed) => failed.reason == reason,
            _ => record.history.last().is_some_and(|past| past.reason == reason.as_str()),
        });
        let began_ms = self.invocations.get(&invocation).map_or(0, |running| running.began_ms);
        let erased_since = input.erased.is_some_and(|(at_ms, _)| began_ms <= at_ms);
        let in_ledger = in_ledger || erased_since;
        let is_from_before = self.is_from_before_erasure(n, &message.to_string());
        let of_a_failure = input.failures.versions.iter().any(|failed| Some(*failed) == version);
        if let Some(what) = self.lost_from(letter) {
            self.violate(now_ms, Promise::Explained, Some(n), format!("{reason}: {what}"));
        }
        if is_from_before && !erased_since && !last_chance {
            let what = "a worker that began after the erasure sent a dead letter of what was erased";
            self.violate(now_ms, Promise::Erased, Some(n), what);
        }
        if !body_is_original {
            self.violate(
                now_ms,
                Promise::NothingLost,
                Some(n),
                "the body of the dead letter is not the message's",
            );
        } else if !in_ledger && !last_chance {
            self.violate(
                now_ms,
                Promise::Explained,
                Some(n),
                format!("{reason}: the dead letter was sent before the ledger said so"),
            );
        } else if !of_a_failure
            && (!last_chance || version != self.queue.messages[message as usize].redrive_of)
        {
            self.violate(
                now_ms,
                Promise::Explained,
                Some(n),
                format!("{reason}: the dead letter tells of version {version:?}, which did not fail"),
            );
        }
        self.inputs[n as usize].failures.told.extend(version);
        *self.stats.letters.entry(reason.as_str().to_owned()).or_default() += 1;
        self.inputs[n as usize].letters += 1;
        self.queue.messages[message as usize].told = true;
        if let Some(running) = self.invocations.get_mut(&invocation) {
            running.letters.push((message, reason));
        }
    }

    /// What a dead letter leaves out: the sender's own attributes, or what the record says of the failure.
    fn lost_from(&self, arrived: &ArrivedLetter) -> Option<String> {
        let ArrivedLetter { n, reason, message, letter, context, .. } = arrived;
        let queued = &self.queue.messages[*message as usize];
        if letter.group != group_of(*n) {
            return Some(format!("its sender's group was {:?}, and is {:?}", group_of(*n), letter.group));
        }
        // Once a message is deleted, nobody knows what it carried.
        if queued.place == Place::InQueue {
            let kept = senders(&letter.attributes);
            let sent = senders(&queued.attributes);
            if kept.iter().ne(sent.iter().take(SENDERS_MAX)) {
                return Some(format!("of the sender's {} attributes, it carries {}", sent.len(), kept.len()));
            }
        }
        let input = &self.inputs[*n as usize];
        let record = input.record.as_deref()?;
        let Standing::Failed(failed) = &record.state else { return None };
        let number = |name: &str| context.get(name).and_then(Value::as_u64);
        // Two deliveries may fail alike within one millisecond: the letter of the first is not the second's.
        let of_another = arrived.version != Some(record.version)
            && input.failures.versions.iter().any(|failed| Some(*failed) == arrived.version);
        if of_another || failed.reason != *reason || number("failed_at_ms") != Some(failed.failed_at_ms) {
            return None;
        }
        let numbers = [
            ("attempts", u64::from(record.budget.claims)),
            ("model_calls", u64::from(record.budget.calls)),
            ("crashes", u64::from(record.budget.crashes)),
            ("first_received_ms", record.first_received_ms),
            ("redrives", u64::from(record.redrives)),
            ("record_version", record.version),
        ];
        let other = numbers.into_iter().find(|(name, is)| number(name) != Some(*is));
        if let Some((name, is)) = other {
            return Some(format!("it says {name} {:?}, and the ledger {is}", number(name)));
        }
        if let Some(name) = untold(record, failed, context) {
            return Some(format!("its {name} is not the ledger's"));
        }
        let detail = context.get("detail").and_then(Value::as_str).unwrap_or_default();
        if detail != failed.detail || detail.is_empty() {
            return Some("it does not say what the ledger says happened".to_owned());
        }
        let input = &self.inputs[*n as usize];
        // In words that do not say why, by a deployment that everybody is refused for: the size was never named.
        let is_unclear = input.epoch.calls.last().is_some_and(|call| call.end == CallEnd::Unclear);
        if is_unclear && detail.starts_with("Perhaps not this job's fault.") {
            return None;
        }
        wrong_advice(input.kind, *n, *reason, detail)
    }
}

/// Which of its words is not what the record says.
fn untold(record: &Record, failed: &Failed, context: &Value) -> Option<&'static str> {
    let text = |name: &str| context.get(name).and_then(Value::as_str);
    let words = [
        ("stage", Some(stage_of(failed.reason))),
        ("task", record.task.as_deref()),
        ("task_revision", Some(failed.revision.hash.as_str())),
        ("provider_request_id", failed.request_id.as_deref()),
        ("excerpt", failed.excerpt.as_deref()),
    ];
    let cost_usd = context.get("cost_usd").and_then(Value::as_f64);
    let cost_is_told =
        cost_usd.is_some_and(|usd| (usd - record.budget.cost_micro_usd as f64 / 1e6).abs() < 1e-9);
    let other = words.into_iter().find(|(name, is)| text(name) != *is).map(|(name, _)| name);
    other.or_else(|| (!cost_is_told).then_some("cost_usd"))
}

fn stage_of(reason: FailureReason) -> &'static str {
    match reason {
        FailureReason::InvalidMessage | FailureReason::UnknownTask | FailureReason::InvalidInput => "parse",
        FailureReason::RequestRejected
        | FailureReason::AttemptsExhausted
        | FailureReason::CapacityTimeout => "call",
        FailureReason::Refused | FailureReason::Truncated | FailureReason::InvalidOutput => "validate",
        FailureReason::ResultTooLarge => "store",
        FailureReason::Poison | FailureReason::Internal => "work",
        FailureReason::ReviewRejected => "review",
    }
}

/// What a detail says that is of no use, or leaves out.
fn wrong_advice(kind: Kind, n: u32, reason: FailureReason, detail: &str) -> Option<String> {
    let says = |words: &str| detail.contains(words);
    let useful = match (kind, reason) {
        (Kind::Truncates, FailureReason::Truncated) => match cut_off(n) {
            CutOff::Limit => says("raise") && !says("fill the model's context"),
            CutOff::Context | CutOff::ContextUnsaid => !says("raise") && says("shorten the input"),
        },
        (Kind::Rejected, FailureReason::RequestRejected) => {
            let oversize = oversize(n);
            let named = |size: Option<u64>| size.is_none_or(|size| says(&size.to_string()));
            says("too large") && named(oversize.requested) && named(oversize.limit)
        }
        _ => true,
    };
    (!useful).then(|| format!("its advice is of no use: {detail}"))
}

fn senders(attributes: &[(String, Attribute)]) -> Vec<&(String, Attribute)> {
    attributes.iter().filter(|(name, _)| !OURS.contains(&name.as_str())).collect()
}
