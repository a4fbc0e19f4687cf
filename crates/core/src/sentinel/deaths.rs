//! Claims that die: whether the version that is live kills them.
//!
//! A claim whose lease has ended looks the same whether its worker was killed, or lived and could neither settle nor release
//! it because DynamoDB was away. Against a version count only claims that began since the sentinel looks at it without a gap
//! (a DynamoDB that is away for three minutes makes one), since work was let through, and since an invocation last lived to
//! say that its call was over, answered or not: while a provider refuses everybody for a night, that alone tells a DynamoDB
//! that was away for seconds from a deploy that kills.
//! Where no claim was made since, nothing dies, and a pause would protect nothing.

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
/// What died longer ago than this keeps no way narrow: its message may have gone to `crashed`, and never come back.
const FRESH_MS: u64 = 20 * MINUTE_MS;
/// Two looks that are further apart than this have a gap: one run may be missed, by an uneven schedule.
const GAP_MS: u64 = 150_000;
/// Lambda's longest timeout and a margin: no lease is longer.
const LEASE_MS_MAX: u64 = 16 * MINUTE_MS;
/// A look that nobody remembers for so long was not written, or no sentinel ran.
const KEPT_MS: u64 = 5 * MINUTE_MS;

/// How long a version has been looked at.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Watch {
    /// The version of the worker's function.
    pub function_version: u64,
    /// From when claims can be its own, in milliseconds since 1970: since when it was looked at without a gap, and later by as
    /// much as leases have become shorter with it, since those of before look younger by that.
    pub since_ms: u64,
    /// When the last look was.
    pub seen_at_ms: u64,
    /// The longest that a lease lasts, in milliseconds.
    pub lease_ms_max: u64,
}

impl Watch {
    /// As it stands after a look that could read all that counts.
    #[must_use]
    pub fn after(standing: Option<Self>, function_version: u64, lease_ms_max: u64, now_ms: u64) -> Self {
        let goes_on = |watch: &Self| {
            watch.function_version == function_version && watch.seen_at_ms.abs_diff(now_ms) <= GAP_MS
        };
        // The version and what is known of its leases may change in either order.
        let shorter_ms = standing.map_or(0, |watch| watch.lease_ms_max.saturating_sub(lease_ms_max));
        let since_ms = match standing {
            Some(watch) if goes_on(&watch) && shorter_ms == 0 => watch.since_ms,
            Some(watch) => now_ms.saturating_add(shorter_ms).max(watch.since_ms.min(now_ms + LEASE_MS_MAX)),
            None => now_ms,
        };
        Self { function_version, since_ms, seen_at_ms: now_ms, lease_ms_max }
    }

    /// Whether the last look is not long ago: what is seen can be remembered.
    #[must_use]
    pub fn is_kept(&self, now_ms: u64) -> bool {
        self.seen_at_ms.abs_diff(now_ms) <= KEPT_MS
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
    /// Those that began after this time.
    pub since_ms: u64,
    /// The longest that a lease lasts, in milliseconds: the timeout of the worker that Terraform deployed last, and the margin.
    pub lease_ms_max: u64,
    /// Whether all were read: of more than are, any may have died.
    pub are_all: bool,
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

    /// Those that began after this time.
    #[must_use]
    pub(super) fn that_began_after(&self, since_ms: u64) -> Self {
        let counts = |ended_ms: &u64| *ended_ms > since_ms.saturating_add(self.lease_ms_max);
        Self { ended_ms: self.ended_ms.iter().copied().filter(counts).collect(), since_ms, ..*self }
    }

    /// Whether none has died of late, and one that was made at the beginning would be seen by now.
    #[must_use]
    pub(super) fn none_of_late(&self, now_ms: u64) -> bool {
        let seen_after_ms = self.lease_ms_max.saturating_add(INDEX_LAG_MS).saturating_add(MINUTE_MS);
        let is_fresh = |ended_ms: &u64| now_ms.saturating_sub(*ended_ms) <= FRESH_MS;
        let is_seen = self.are_all && now_ms.saturating_sub(self.since_ms) >= seen_after_ms;
        is_seen && !self.ended_ms.iter().any(is_fresh)
    }
}

impl Control {
    /// From when claims count against the version that is live.
    pub(super) fn claims_count_since_ms(&self, watch: &Watch, called_at_ms: Option<u64>) -> u64 {
        let is_tried = |phase| matches!(phase, Phase::Reopening { .. } | Phase::Open);
        let tried = self.entries.get(&Cause::Deaths).filter(|entry| is_tried(entry.phase));
        let lifted_ms = self.was_lifted().then_some(watch.seen_at_ms);
        let times = [tried.map(|entry| entry.phase_since_ms), self.opened_at_ms, lifted_ms, called_at_ms];
        times.into_iter().flatten().fold(watch.since_ms, u64::max)
    }
}

#[cfg(test)]
mod tests;
