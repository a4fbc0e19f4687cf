//! What a person erased: not worked on again, and nothing of it left.

use super::Promise;
use crate::world::State;

impl State {
    /// Whether a message is from before the last erasure of its input: sent before it, or the letter of a failure before it.
    pub(super) fn is_from_before_erasure(&self, n: u32, message_id: &str) -> bool {
        let Some((at_ms, version)) = self.inputs[n as usize].erased else { return false };
        let message = message_id.parse::<usize>().ok().and_then(|id| self.queue.messages.get(id));
        message.is_some_and(|message| {
            message.sent_at_ms <= at_ms || message.redrive_of.is_some_and(|told| told < version)
        })
    }

    /// At the end no dead letter of a failure before an erasure is left.
    pub(super) fn judge_erased_letters(&mut self, now_ms: u64) {
        let left = self.letters.iter().filter(|letter| !letter.moved_back).find_map(|letter| {
            let (n, _) = letter.of?;
            let (_, version) = self.inputs[n as usize].erased?;
            (letter.version? < version).then_some(n)
        });
        if let Some(n) = left {
            self.violate(now_ms, Promise::Erased, Some(n), "a dead letter of what was erased is left");
        }
    }
}
