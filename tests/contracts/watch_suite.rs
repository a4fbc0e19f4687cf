//! What the sentinel reads of the ledger, whatever it is made of.

use nightshift_core::input_hash::InputHash;
use nightshift_core::listing::Unsettled;
use nightshift_core::record::{Expect, Record, RecordWrite, State};
use nightshift_core::spend::{SpendChange, SpendKind, UtcDay};
use nightshift_ports::{Ledger, LedgerWatch};

use crate::ledger_suite;

/// Later than whatever else stands in the table.
const LATER_MS: u64 = 5_000_000_000_000;

pub async fn watch(ledger: &dyn Ledger, watch: &dyn LedgerWatch) {
    the_oldest_come_first_and_no_more_than_asked_for(ledger, watch).await;
    money_that_counts_against_the_cap(ledger, watch).await;
}

async fn the_oldest_come_first_and_no_more_than_asked_for(ledger: &dyn Ledger, watch: &dyn LedgerWatch) {
    let mut keys = Vec::new();
    for n in 0..5 {
        let key = InputHash::of_body(&format!("watched {n} {}", std::process::id()));
        let lease_until_ms = LATER_MS + 100 * n;
        let state = if n == 4 { State::Open } else { State::Claimed { lease_until_ms, alone: false } };
        let first_received_ms = LATER_MS + n;
        let record = Record { first_received_ms, state, ..ledger_suite::a_record(&key, "t", 1) };
        ledger.write(&RecordWrite { record, expect: Expect::Absent }).await.unwrap();
        keys.push(key);
    }
    for (unsettled, since, limit, expected) in [
        (Unsettled::Claimed, 0, 1_000, 0..4),
        (Unsettled::Claimed, 0, 3, 0..3),
        (Unsettled::Claimed, 2, 1_000, 2..4),
        (Unsettled::Claimed, 9, 1_000, 0..0),
        (Unsettled::Open, 0, 1_000, 4..5),
    ] {
        let found = watch.oldest(unsettled, LATER_MS + since, limit).await.unwrap();
        let found: Vec<_> = found.into_iter().map(|entry| (entry.key, entry.lease_until_ms)).collect();
        let lease = |n: usize| (n < 4).then_some(LATER_MS + 100 * n as u64);
        let expected: Vec<_> = expected.map(|n| (keys[n].clone(), lease(n))).collect();
        assert_eq!(found, expected, "{unsettled:?} since {since}, {limit} at most");
    }
    keys.push(InputHash::of_body("nobody has seen this"));
    let records = watch.records(&keys).await.unwrap();
    let times: Vec<_> = records.iter().map(|record| record.first_received_ms - LATER_MS).collect();
    assert_eq!(times, [0, 1, 2, 3, 4], "what does not stand is left out");
    assert!(watch.records(&[]).await.unwrap().is_empty());
}

async fn money_that_counts_against_the_cap(ledger: &dyn Ledger, watch: &dyn LedgerWatch) {
    let day = UtcDay::of(LATER_MS);
    assert_eq!(watch.committed_micro_usd(day).await.unwrap(), 0, "a day that nothing was spent on");
    let id = "watched".to_owned();
    for (kind, committed) in [
        (SpendKind::Reserve { micro_usd: 30, cap_micro_usd: 100 }, 30),
        (SpendKind::Settle { reserved_micro_usd: 30, spent_micro_usd: 12 }, 12),
    ] {
        ledger.spend(&SpendChange { id: id.clone(), day, kind }).await.unwrap();
        assert_eq!(watch.committed_micro_usd(day).await.unwrap(), committed);
    }
}
