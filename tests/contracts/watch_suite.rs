//! What the sentinel reads of the ledger, whatever it is made of.

use nightshift_core::input_hash::InputHash;
use nightshift_core::listing::Unsettled;
use nightshift_core::record::{Expect, Record, RecordWrite, State};
use nightshift_core::sentinel::Calls;
use nightshift_core::spend::{SpendChange, SpendKey, SpendKind, Spent, UtcDay};
use nightshift_ports::{Ledger, LedgerWatch};

use crate::ledger_suite;

/// Later than whatever else stands in the table.
const LATER_MS: u64 = 5_000_000_000_000;

pub async fn watch(ledger: &dyn Ledger, watch: &dyn LedgerWatch) {
    the_oldest_come_first_and_no_more_than_asked_for(ledger, watch).await;
    money_that_counts_against_the_cap(ledger, watch).await;
    calls_that_environments_tell_of(ledger, watch).await;
}

async fn calls_that_environments_tell_of(ledger: &dyn Ledger, watch: &dyn LedgerWatch) {
    let minute = LATER_MS / 60_000;
    assert_eq!(watch.calls(minute).await.unwrap(), Calls::default(), "a minute of which nothing was told");
    let calls = |answered, failed, failing: Option<(u64, u64)>, refused_micro_usd| Calls {
        answered,
        failed,
        failing_since_ms: failing.map(|(since_ms, _)| since_ms),
        failing_until_ms: failing.map(|(_, until_ms)| until_ms),
        refused_micro_usd,
    };
    for told in [
        calls(1, 0, None, None),
        calls(0, 2, Some((LATER_MS, LATER_MS + 2)), None),
        calls(0, 3, Some((LATER_MS + 1, LATER_MS + 3)), Some(7)),
        calls(0, 0, None, Some(9)),
    ] {
        ledger.tell_calls(minute, &told).await.unwrap();
    }
    assert_eq!(watch.calls(minute).await.unwrap(), calls(1, 5, Some((LATER_MS, LATER_MS + 3)), Some(7)));
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
    assert_eq!(watch.spent(day).await.unwrap(), Spent::default(), "a day that nothing was spent on");
    let settle = |reserved_micro_usd, spent_micro_usd, answered_at_ms| SpendKind::Settle {
        reserved_micro_usd,
        spent_micro_usd,
        answered_at_ms,
        called_at_ms: answered_at_ms,
    };
    let reserve = |micro_usd, shard| SpendKind::Reserve { micro_usd, cap_micro_usd: 100, shard };
    let (earlier_ms, mut reserved_at_ms) = (Some(LATER_MS - 5), None);
    for (at_ms, (key, kind, taken, shards, answered_at_ms)) in (1..).zip([
        (SpendKey::Day, reserve(30, None), 30, [0, 0], None),
        (SpendKey::Day, settle(30, 12, earlier_ms), 12, [0, 0], earlier_ms),
        // Nothing was answered in this one, and what others were told stands.
        (SpendKey::Day, settle(0, 1, None), 13, [0, 0], earlier_ms),
        (SpendKey::Day, reserve(20, Some(0)), 33, [0, 0], earlier_ms),
        (SpendKey::Day, reserve(30, Some(19)), 63, [0, 0], earlier_ms),
        (SpendKey::Shard(0), SpendKind::Fund { micro_usd: 20 }, 63, [20, 0], earlier_ms),
        (SpendKey::Shard(19), SpendKind::Fund { micro_usd: 30 }, 63, [20, 30], earlier_ms),
        (SpendKey::Shard(0), SpendKind::Draw { micro_usd: 15 }, 63, [5, 30], earlier_ms),
        (SpendKey::Shard(0), settle(15, 3, Some(LATER_MS)), 63, [17, 30], Some(LATER_MS)),
    ]) {
        ledger.spend(&SpendChange { day, key, kind, at_ms }).await.unwrap();
        let found = watch.spent(day).await.unwrap();
        if kind.takes().is_some() {
            reserved_at_ms = Some(at_ms);
        }
        let called_at_ms = answered_at_ms;
        let expected = Spent { called_at_ms, reserved_at_ms, ..Spent::of(taken, &shards, answered_at_ms) };
        assert_eq!(found, expected, "{key:?} {kind:?}");
    }
}
