//! The spread of waits over a whole run.

use std::collections::BTreeMap;

use super::Promise;
use crate::plan::Plan;
use crate::world::State;

/// Fewer waits than this say nothing about their spread.
const SPREAD_SAMPLES: u32 = 40;

impl State {
    /// Waits that were chosen under the same circumstances must differ.
    pub(super) fn judge_spread(&mut self, now_ms: u64, plan: &Plan) {
        let mut by_receive: BTreeMap<u32, (u32, u32)> = BTreeMap::new();
        for ((receives, _), count) in &self.hand_back_delays {
            let (sum, most) = by_receive.entry(*receives).or_default();
            *sum += count;
            *most = (*most).max(*count);
        }
        let alike =
            by_receive.into_iter().find(|(_, (sum, most))| *sum >= SPREAD_SAMPLES && *most * 2 > *sum);
        if let Some((receives, (sum, most))) = alike {
            self.violate(
                now_ms,
                Promise::Paced,
                None,
                format!("{most} of {sum} messages were handed back for the same time at receive {receives}"),
            );
        }
        // What a provider asks for, and a place that is not free, make most waits longer in some runs; without jitter, none is
        // shorter.
        let early = self.backoffs.iter().filter(|ratio| **ratio < 0.95).count();
        let paced = plan.requests_per_minute > 0 || plan.limits.requests_per_minute > 0;
        if !paced && self.backoffs.len() >= SPREAD_SAMPLES as usize && early * 10 < self.backoffs.len() {
            let all = self.backoffs.len();
            self.violate(
                now_ms,
                Promise::Paced,
                None,
                format!(
                    "{early} of {all} retries came before the whole step of the backoff: there is no jitter"
                ),
            );
        }
    }
}
