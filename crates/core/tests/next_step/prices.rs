//! What a call may cost before it is made, and which results another deployment would make differently.

use nightshift_core::cost::Price;
use nightshift_core::failure::FailureReason;
use nightshift_core::job::Job;
use nightshift_core::output_validation::REASK_BYTES_MAX;
use nightshift_core::ready::{call_price, dearest_call_micro_usd, ready};
use nightshift_core::task::{Task, Tasks, revision_hash};
use serde_json::json;

use crate::support::*;

/// Three tasks, of which the second has the longest instructions.
struct Three([Digit; 3]);

impl Three {
    fn new() -> Self {
        let mut long = Digit::new(None);
        long.overhead_bytes = 900;
        Self([Digit::new(None), long, Digit::new(None)])
    }
}

impl Tasks for Three {
    fn find(&self, name: &str) -> Option<&dyn Task> {
        let at = self.names().iter().position(|known| *known == name)?;
        Some(&self.0[at])
    }
    fn names(&self) -> Vec<&'static str> {
        vec!["digit", "long", "short"]
    }
}

/// A dollar for a million tokens that are read, each of which is a byte at worst, and nothing for those that are written.
const PER_BYTE: Price = Price::flat(1_000_000, 0);

/// Ten bytes of instructions, the body, what a re-ask adds, and an answer of 64 tokens that is sent back.
#[test]
fn a_call_is_priced_by_all_that_it_may_carry() {
    let price = call_price(&Digit::new(None), 500, PER_BYTE);
    assert_eq!(price.most_micro_usd(), 10 + 500 + REASK_BYTES_MAX as u64 + 64);
}

#[test]
fn the_dearest_call_is_that_of_the_longest_body_and_instructions() {
    let dearest = dearest_call_micro_usd(&Three::new(), 5_000, PER_BYTE);
    assert_eq!(dearest, 900 + 5_000 + REASK_BYTES_MAX as u64 + 64);
}

#[test]
fn a_call_may_cost_the_cap_of_a_day_and_not_more() {
    let tasks = Three::new();
    let job = Job { task: "digit".to_owned(), input: json!("seven"), reference: None };
    let cost = call_price(&tasks.0[0], 500, PER_BYTE).most_micro_usd();
    for (cap, refused) in [(cost + 1, None), (cost, None), (cost - 1, Some(FailureReason::InvalidInput))] {
        let found = ready(&job, 500, &tasks, PER_BYTE, cap).err().map(|rejection| rejection.reason);
        assert_eq!(found, refused, "a cap of {cap}, a call of {cost}");
    }
}

#[test]
fn a_revision_is_another_with_another_prompt_or_model() {
    let mut changed = Digit::new(None);
    changed.fingerprint = "digit-2";
    let hash = revision_hash(&Digit::new(None), "model-1");
    assert_eq!(hash, revision_hash(&Digit::new(None), "model-1"));
    assert_ne!(hash, revision_hash(&Digit::new(None), "model-2"));
    assert_ne!(hash, revision_hash(&changed, "model-1"));
    assert_eq!(hash.len(), 16);
}
