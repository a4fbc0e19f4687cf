//! What waits for a person: its message stands beside it, whole and as it was sent.

use nightshift_core::kept::{KeepAnswer, Part, message};
use nightshift_core::record::State as Standing;

use super::Promise;
use crate::queue::Place;
use crate::world::State;

impl State {
    /// A part of a kept message reaches the table. Returns what the table answers.
    pub fn part_is_written(&mut self, now_ms: u64, part: &Part, asked_ms: u64) -> KeepAnswer {
        let Some(&n) = self.by_key.get(&part.key) else { return KeepAnswer::Refused };
        let parts = &mut self.inputs[n as usize].parts;
        let standing = parts.iter().position(|standing| standing.index == part.index);
        let answer = if part.allowed(standing.map(|at| &parts[at]), asked_ms) {
            match standing {
                Some(at) => parts[at] = part.clone(),
                None => parts.push(part.clone()),
            }
            KeepAnswer::Kept
        } else {
            KeepAnswer::Refused
        };
        self.note(now_ms, n, || format!("part {} of claim v{}: {answer:?}", part.index, part.claim_version));
        self.judge_kept_message(now_ms, n);
        answer
    }

    /// Called whenever a record or a part changes.
    pub(super) fn judge_kept_message(&mut self, now_ms: u64, n: u32) {
        let input = &self.inputs[n as usize];
        let Some(record) = input.record.as_deref() else { return };
        let Standing::Done(done) = &record.state else { return };
        if !done.needs_review || done.reviewed || record.expires_at_ms <= now_ms {
            return;
        }
        if input.keeps_no_message && record.kept_message().is_none() {
            return;
        }
        let kept = record.kept_message().and_then(|kept| message(kept, input.parts.clone()));
        let sent = record.message_id.parse::<usize>().ok().and_then(|id| self.queue.messages.get(id));
        let is_whole = kept.zip(sent).is_some_and(|(kept, sent)| {
            kept.body == input.kind.body(n, sent.reference)
                && kept.message_id == record.message_id
                // Of a message that is deleted, the queue keeps none.
                && (kept.attributes == sent.attributes || sent.place == Place::Deleted)
                && kept.group == sent.group
        });
        if !is_whole {
            let what = "a result waits for review without the message that it was made for";
            self.violate(now_ms, Promise::Reviewable, Some(n), what);
        }
    }
}
