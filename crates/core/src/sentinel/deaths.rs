//! Claims that die: whether the version that is live kills them.
//!
//! A claim whose lease has ended looks the same whether its worker was killed, or lived and could neither settle nor release
//! it because DynamoDB was away. Against a version count only claims that began since the sentinel looks at it without a gap
//! (while DynamoDB is away, no run can look), since work was let through, and since a call was last answered. Where no claim
//! was made since, nothing dies, and a pause would protect nothing.
//!
//! What was claimed under a longer timeout than the present one looks younger by the difference.

use serde::{Deserialize, Serialize};

use crate::control::{Cause, Control, Phase};

/// The key of the document that holds the [`Watch`].
pub const WATCH_KEY: &str = "sentinel#watch";

const MINUTE_MS: u64 = 60_000;
/// The index is eventually consistent: a claim whose lease ended less than this ago may be settled and not yet show it.
pub(super) const INDEX_LAG_MS: u64 = MINUTE_MS;
/// So many claims that died, one after the other, are a deploy that kills.
const CLAIMS_MIN: usize = 10;
/// Of so many invocations at least: one that is killed takes a whole batch along, and says nothing of the next.
const INVOCATIONS_MIN: usize = 3;
/// A claim that died longer ago than this says nothing of what is deployed now: its message may have gone to `crashed`.
const FRESH_MS: u64 = 20 * MINUTE_MS;
/// Two looks that are further apart than this have a gap: a run that is a minute after the last one, by an uneven schedule.
const GAP_MS: u64 = 100_000;

/// How long a version has been looked at.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Watch {
    /// The version of the worker's function.
    pub function_version: u64,
    /// Since when without a gap, in milliseconds since 1970.
    pub since_ms: u64,
    /// When the last look was.
    pub seen_at_ms: u64,
}

impl Watch {
    /// As it stands after a look that could read all that counts.
    #[must_use]
    pub fn after(standing: Option<Self>, function_version: u64, now_ms: u64) -> Self {
        let goes_on = |watch: &Self| {
            watch.function_version == function_version
                && watch.since_ms <= watch.seen_at_ms
                && watch.seen_at_ms.abs_diff(now_ms) <= GAP_MS
        };
        let since_ms = standing.filter(goes_on).map_or(now_ms, |watch| watch.since_ms);
        Self { function_version, since_ms, seen_at_ms: now_ms }
    }

    /// As its document says it; `None`: in another form, of another release.
    #[must_use]
    pub fn from_json(json: &str) -> Option<Self> {
        serde_json::from_str(json).ok()
    }

    /// For its document.
    #[must_use]
    pub fn to_json(&self) -> String {
        serde_json::json!(self).to_string()
    }
}

/// Claims whose worker has neither settled nor released them before their lease ended.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct DeadClaims {
    /// When their leases ended, in milliseconds since 1970. The claims of one invocation end together.
    pub ended_ms: Vec<u64>,
    /// The longest that a lease lasts: the worker's timeout and the margin, in milliseconds.
    pub lease_ms_max: u64,
}

impl DeadClaims {
    /// Whether so many died, of so many invocations, that it is the version.
    #[must_use]
    pub fn are_many(&self) -> bool {
        let mut ended = self.ended_ms.clone();
        ended.sort_unstable();
        ended.dedup();
        self.ended_ms.len() >= CLAIMS_MIN && ended.len() >= INVOCATIONS_MIN
    }

    /// Those that began after this time and died of late.
    #[must_use]
    pub(super) fn that_count(&self, since_ms: u64, now_ms: u64) -> Self {
        let counts = |ended_ms: &u64| {
            *ended_ms > since_ms.saturating_add(self.lease_ms_max)
                && now_ms.saturating_sub(*ended_ms) <= FRESH_MS
        };
        Self { ended_ms: self.ended_ms.iter().copied().filter(counts).collect(), ..*self }
    }

    /// How long after its beginning a claim that died is seen by a run.
    #[must_use]
    pub(super) fn seen_after_ms(&self) -> u64 {
        self.lease_ms_max.saturating_add(INDEX_LAG_MS).saturating_add(MINUTE_MS)
    }
}

impl Control {
    /// From when claims count against the version that is live.
    pub(super) fn claims_count_since_ms(&self, watched_since_ms: u64, answered_at_ms: Option<u64>) -> u64 {
        let is_tried = |phase| matches!(phase, Phase::Reopening { .. } | Phase::Open);
        let tried = self.entries.get(&Cause::Deaths).filter(|entry| is_tried(entry.phase));
        let times = [tried.map(|entry| entry.phase_since_ms), self.opened_at_ms, answered_at_ms];
        times.into_iter().flatten().fold(watched_since_ms, u64::max)
    }
}

#[cfg(test)]
mod tests;
