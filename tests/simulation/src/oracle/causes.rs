//! Why a message is handed back, and what was counted of one that is acknowledged.

use nightshift_core::metric::{HandBackCause, Outcome};
use nightshift_core::record::State as Standing;
use nightshift_worker::BatchReport;

use super::{Promise, tolerance_ms};
use crate::plan::{Plan, SECOND};
use crate::work::Kind;
use crate::world::{Invocation, State};

impl State {
    /// Where only time was short, or a job waits to run alone, nobody asked for a longer wait than the first step.
    pub(super) fn judge_causes(
        &mut self,
        now_ms: u64,
        running: &Invocation,
        report: &BatchReport,
        plan: &Plan,
    ) {
        self.stats.checks += 1;
        for ((message, _), outcome) in running.batch.iter().zip(&report.outcomes) {
            let seen = &running.seen;
            let away_ms = seen.hidden.get(message).map_or(0, |delay_s| u64::from(*delay_s) * SECOND);
            let wrong = match outcome {
                Outcome::HandedBack(HandBackCause::Deadline | HandBackCause::Suspect) => {
                    away_ms > plan.limits.hand_back_base_ms
                }
                Outcome::HandedBack(HandBackCause::CallFailed) => seen.errors == 0,
                Outcome::HandedBack(HandBackCause::Ledger) => seen.ledger_errors == 0,
                _ => false,
            };
            if wrong {
                let n = self.queue.messages[*message as usize].input;
                let what =
                    format!("message {message}, {outcome:?}, stays away for {away_ms} ms: that is not why");
                self.violate(now_ms, Promise::Conserved, Some(n), what);
            }
        }
    }

    /// A message that is acknowledged for a result which stood before its invocation began: the result is still good, and
    /// counts each message but its own.
    pub(super) fn wrong_duplicate(
        &self,
        message: u32,
        running: &Invocation,
        plan: &Plan,
    ) -> Option<(Promise, &'static str)> {
        let input = &self.inputs[self.queue.messages[message as usize].input as usize];
        let record = input.record.as_deref().filter(|record| matches!(record.state, Standing::Done(_)))?;
        if input.settled_ms >= running.began_ms || input.kind == Kind::PanicsInPrompt {
            return None;
        }
        if record.expires_at_ms + tolerance_ms(plan) < running.began_ms {
            let what = "taken for a duplicate of a result that had expired";
            return Some((Promise::RedriveOrDuplicate, what));
        }
        let is_counted = running.seen.duplicates.contains(&message);
        let is_another = record.message_id != message.to_string();
        match (is_another, is_counted) {
            (false, true) => {
                Some((Promise::Conserved, "its own message was counted on a result as another one"))
            }
            (true, false) if running.seen.ledger_errors == 0 => {
                Some((Promise::Conserved, "another message of a result was not counted on it"))
            }
            _ => None,
        }
    }
}
