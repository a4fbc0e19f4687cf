//! Each dead letter as it arrives in its queue.

use nightshift_core::failure::FailureReason;
use nightshift_core::record::State as Standing;

use super::Promise;
use crate::plan::Plan;
use crate::world::State;

/// A dead letter as it arrives.
#[derive(Debug, Clone, Copy)]
pub struct ArrivedLetter {
    pub n: u32,
    pub reason: FailureReason,
    pub message: u32,
    pub body_is_original: bool,
}

impl State {
    /// A dead letter arrives in its queue.
    pub fn letter_arrives(&mut self, now_ms: u64, letter: &ArrivedLetter, invocation: u64, plan: &Plan) {
        self.stats.checks += 1;
        let ArrivedLetter { n, reason, message, body_is_original } = *letter;
        self.note(now_ms, n, || {
            format!("dead letter for message {message}: {reason} by invocation {invocation}")
        });
        let last_chance = self.is_last_chance(now_ms, message, plan);
        let input = &self.inputs[n as usize];
        // Or said so until the job was begun afresh, a moment ago.
        let in_ledger = input.record.as_deref().is_some_and(|record| match &record.state {
            Standing::Failed(failed) => failed.reason == reason,
            _ => record.history.last().is_some_and(|past| past.reason == reason),
        });
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
        }
        *self.stats.letters.entry(reason.as_str().to_owned()).or_default() += 1;
        self.inputs[n as usize].letters += 1;
        if let Some(running) = self.invocations.get_mut(&invocation) {
            running.letters.push((message, reason));
        }
    }
}
