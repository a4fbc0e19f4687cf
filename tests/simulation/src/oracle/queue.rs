//! What SQS does by itself to a message that nobody settles, and what must hold when the queue is empty.

use nightshift_core::dead_letter::DeadLetter;
use nightshift_core::record::State as Standing;

use super::Promise;
use crate::plan::Plan;
use crate::queue::Place;
use crate::world::{Invocation, Letter, State};

impl State {
    /// A message that grew too old while it was in flight is lost, unless that delivery settled it.
    pub(super) fn check_expired(&mut self, now_ms: u64, running: &Invocation, acknowledged: &[u32]) {
        for (message, _) in &running.batch {
            if self.queue.messages[*message as usize].place == Place::Expired
                && !acknowledged.contains(message)
            {
                self.expired(now_ms, *message);
            }
        }
    }

    /// SQS deleted a message for its age: it is lost, unless its dead letter is in its queue. The letter counts whatever the
    /// worker was told: one that was told of a failed send leaves the message, to send the letter again.
    pub fn expired(&mut self, now_ms: u64, message: u32) {
        let queued = &self.queue.messages[message as usize];
        let n = queued.input;
        if queued.told {
            return;
        }
        self.violate(
            now_ms,
            Promise::NothingLost,
            Some(n),
            format!("SQS deleted message {message} for its age"),
        );
    }

    /// Whether a message is in a batch that is being worked on.
    #[must_use]
    pub fn in_flight(&self, message: u32) -> bool {
        self.invocations.values().any(|running| running.batch.iter().any(|(of, _)| *of == message))
    }

    /// SQS moved a message away after too many receives. Only what prevented its last deliveries excuses that.
    pub fn crashed(&mut self, now_ms: u64, message: u32) {
        self.stats.crashed += 1;
        let queued = &self.queue.messages[message as usize];
        let (n, prevented) = (queued.input, queued.prevented);
        let body = self.inputs[n as usize].kind.body(n, queued.reference);
        let letter = Letter::coming(
            now_ms,
            queued.sent_at_ms,
            DeadLetter { body, attributes: queued.attributes.clone(), group: queued.group.clone() },
            Some((n, queued.reference)),
            queued.redrive_of,
        );
        self.crashed_letters.push(letter);
        self.inputs[n as usize].crashed += 1;
        self.note(now_ms, n, || {
            format!("message {message} moved to crashed, {prevented} deliveries prevented")
        });
        if prevented < 2 {
            self.violate(
                now_ms,
                Promise::NothingLost,
                Some(n),
                format!("message {message} was moved to crashed, and nothing forced it"),
            );
        }
    }

    /// What must hold when all is over.
    pub fn judge_the_end(&mut self, now_ms: u64, plan: &Plan) {
        for n in 0..self.inputs.len() as u32 {
            self.stats.checks += 1;
            let input = &self.inputs[n as usize];
            let has_result = input
                .record
                .as_deref()
                .is_some_and(|record| matches!(record.state, Standing::Done(_)) || record.previous.is_some());
            let erased = input.erased.is_some()
                && input.record.as_deref().is_none_or(|record| record.state == Standing::Erased);
            let settled = has_result || input.letters > 0 || input.crashed > 0 || erased;
            if !settled {
                self.violate(
                    now_ms,
                    Promise::NothingLost,
                    Some(n),
                    "the queue is empty, and there is neither a result nor a dead letter",
                );
                return;
            }
        }
        self.judge_erased_letters(now_ms);
        self.judge_spread(now_ms, plan);
        self.judge_use(now_ms, plan);
    }
}
