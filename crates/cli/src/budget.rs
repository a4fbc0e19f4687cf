//! What the calls of a load test may cost, and what the ledger says that they have.

use nightshift_core::spend::UtcDay;
use nightshift_ports::LedgerWatch as _;

use crate::error::{self, Failure};
use crate::ledger;
use crate::stack::Stack;

/// A day, in milliseconds.
const DAY_MS: u64 = 86_400_000;

/// What was spent since it began, at most so much.
#[derive(Debug, Clone, Copy)]
pub struct Budget {
    most_micro_usd: u64,
    began_ms: u64,
    before_micro_usd: u64,
}

impl Budget {
    /// From now on. `now_ms`: by AWS's clock, since workers count by it.
    pub async fn begin(stack: &Stack, most_usd: f64, now_ms: u64) -> Result<Self, Failure> {
        let before_micro_usd = committed_micro_usd(stack, now_ms).await?;
        Ok(Self { most_micro_usd: (most_usd * 1_000_000.0) as u64, began_ms: now_ms, before_micro_usd })
    }

    /// Whether the ledger says that all of it is spent, or reserved for calls that are under way.
    pub async fn is_spent(&self, stack: &Stack, now_ms: u64) -> Result<bool, Failure> {
        let mut sum_micro_usd = committed_micro_usd(stack, self.began_ms).await?;
        let mut day = UtcDay::of(self.began_ms);
        while day < UtcDay::of(now_ms) {
            let next_ms = day.begins_ms() + DAY_MS;
            sum_micro_usd = sum_micro_usd.saturating_add(committed_micro_usd(stack, next_ms).await?);
            day = UtcDay::of(next_ms);
        }
        Ok(sum_micro_usd.saturating_sub(self.before_micro_usd) > self.most_micro_usd)
    }
}

/// Of the day of a moment.
async fn committed_micro_usd(stack: &Stack, at_ms: u64) -> Result<u64, Failure> {
    let spent = ledger::of(stack).spent(UtcDay::of(at_ms)).await;
    Ok(spent.map_err(|e| error::of_port(&e))?.committed_micro_usd)
}
