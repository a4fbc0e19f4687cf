//! Numbers that follow from a seed and from what they are drawn for.

use sha2::{Digest, Sha256};

/// A sequence of numbers, the same for the same arguments.
#[derive(Debug, Clone)]
pub(super) struct Dice {
    state: Sha256,
    count: u64,
}

impl Dice {
    /// Dice for one purpose in one call of one request.
    pub(super) fn new(seed: u64, identity: &str, call: u64, purpose: &str) -> Self {
        let state = Sha256::new()
            .chain_update(seed.to_be_bytes())
            .chain_update(identity.as_bytes())
            .chain_update(call.to_be_bytes())
            .chain_update(purpose.as_bytes());
        Dice { state, count: 0 }
    }

    pub(super) fn next(&mut self) -> u64 {
        self.count += 1;
        let digest = self.state.clone().chain_update(self.count.to_be_bytes()).finalize();
        let first = digest.iter().take(8);
        first.fold(0, |number, byte| number << 8 | u64::from(*byte))
    }

    /// A number below `limit`; 0 when the limit is 0.
    pub(super) fn below(&mut self, limit: u64) -> u64 {
        self.next().checked_rem(limit).unwrap_or(0)
    }

    /// True with a probability in thousandths.
    pub(super) fn chance(&mut self, per_mille: u64) -> bool {
        self.below(1000) < per_mille
    }

    /// One of several, or nothing when there are none.
    pub(super) fn pick<'list, T>(&mut self, list: &'list [T]) -> Option<&'list T> {
        let index = usize::try_from(self.below(list.len() as u64)).unwrap_or(0);
        list.get(index)
    }
}
