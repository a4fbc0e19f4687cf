//! What the calls of a load test may cost, and what the ledger says that they have.

use nightshift_core::spend::UtcDay;
use nightshift_ports::LedgerWatch as _;

use crate::error::{self, Failure};
use crate::ledger;
use crate::stack::Stack;

/// What was spent since it began, at most so much.
#[derive(Debug, Clone, Copy)]
pub struct Budget {
    most_micro_usd: u64,
    began: UtcDay,
    before_micro_usd: u64,
}

impl Budget {
    /// From now on. `now_ms`: by AWS's clock, since workers count by it.
    pub async fn begin(stack: &Stack, most_usd: f64, now_ms: u64) -> Result<Self, Failure> {
        let began = UtcDay::of(now_ms);
        let before_micro_usd = committed_micro_usd(stack, began).await?;
        Ok(Self { most_micro_usd: (most_usd * 1_000_000.0) as u64, began, before_micro_usd })
    }

    /// Whether the ledger says that all of it is spent, or reserved for calls that are under way.
    pub async fn is_spent(&self, stack: &Stack, now_ms: u64) -> Result<bool, Failure> {
        let (mut day, today) = (self.began, UtcDay::of(now_ms));
        let mut sum_micro_usd = committed_micro_usd(stack, day).await?;
        while day < today {
            day = day.next();
            sum_micro_usd = sum_micro_usd.saturating_add(committed_micro_usd(stack, day).await?);
        }
        Ok(sum_micro_usd.saturating_sub(self.before_micro_usd) > self.most_micro_usd)
    }
}

async fn committed_micro_usd(stack: &Stack, day: UtcDay) -> Result<u64, Failure> {
    let spent = ledger::of(stack).spent(day).await.map_err(|e| error::of_port(&e))?;
    Ok(spent.committed_micro_usd)
}
