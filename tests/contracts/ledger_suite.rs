//! What every ledger must do, whatever it is made of: DynamoDB, or the memory of the scenarios and the simulation.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use async_trait::async_trait;
use nightshift_core::blame::Refusals;
use nightshift_core::control::{Cause, Control, Entry, Phase};
use nightshift_core::failure::FailureReason;
use nightshift_core::input_hash::InputHash;
use nightshift_core::kept::{KeepAnswer, PART_BYTES_MAX, Part};
use nightshift_core::model::Usage;
use nightshift_core::record::{
    Budget, Done, Expect, Failed, PastFailure, Record, RecordWrite, Revision, State,
};
use nightshift_core::spend::Shards;
use nightshift_core::spend::{SpendAnswer, SpendChange, SpendKey, SpendKind, UtcDay};
use nightshift_ports::{ControlAnswer, Ledger, PortErrorKind, WriteAnswer};
use serde_json::{Value, json};

/// What the port itself does not show.
#[async_trait]
pub trait Inspect: Send + Sync {
    /// How many further messages were counted on a record; `None` when there is no record.
    async fn duplicates(&self, key: &InputHash) -> Option<u64>;
    /// Writes or takes away the pause of the control record, as releases of before its entries do: reason and time.
    async fn pause_in_old_form(&self, pause: Option<(&str, u64)>);
    /// What is reserved and what is spent on a day, in millionths of a dollar.
    async fn spend(&self, day: UtcDay) -> (u64, u64);
}

/// A fresh key for each record of the suite, so that cases do not meet.
fn key() -> InputHash {
    static NEXT: AtomicU64 = AtomicU64::new(0);
    InputHash::of_job("contract", &json!([std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed)]))
}

fn record(key: &InputHash, token: &str, version: u64, state: State) -> Record {
    Record {
        key: key.clone(),
        task: Some("summarize_email".to_owned()),
        reference: None,
        version,
        token: token.to_owned(),
        state,
        message_id: "m-1".to_owned(),
        sent_at_ms: 1_795_500_000_000,
        first_received_ms: 1_795_500_000_100,
        last_claimed_ms: 1_795_500_000_200,
        budget: Budget::default(),
        redrives: 0,
        previous: None,
        history: Vec::new(),
        letter_version: None,
        erased: None,
        kept: None,
        reviewed: None,
        // 2100: the table may delete what is expired while a test looks at it.
        expires_at_ms: 4_102_444_800_000,
    }
}

fn claimed(key: &InputHash, token: &str, version: u64) -> Record {
    record(key, token, version, State::Claimed { lease_until_ms: 1_795_500_310_000, alone: false })
}

fn done(output: Value) -> State {
    State::Done(Box::new(Done {
        output,
        needs_review: true,
        reviewed: false,
        revision: Revision { hash: "r".to_owned(), built_at_ms: 5, function_version: 7 },
        model: "model-1".to_owned(),
        finished_at_ms: 1_795_500_002_000,
    }))
}

fn failed(excerpt: Option<&str>) -> State {
    State::Failed(Box::new(Failed {
        reason: FailureReason::InvalidOutput,
        detail: "The member label is missing.".to_owned(),
        failed_at_ms: 1_795_500_003_000,
        request_id: Some("req_1".to_owned()),
        excerpt: excerpt.map(str::to_owned),
        revision: Revision { hash: "r".to_owned(), built_at_ms: 5, function_version: 7 },
    }))
}

fn absent(record: Record) -> RecordWrite {
    RecordWrite { record, expect: Expect::Absent }
}

fn fence(record: Record) -> RecordWrite {
    RecordWrite { record, expect: Expect::Fence }
}

fn takeover(record: Record, version: u64, token: &str) -> RecordWrite {
    RecordWrite { record, expect: Expect::Exactly { version, token: token.to_owned() } }
}

async fn written(ledger: &dyn Ledger, write: &RecordWrite) {
    let answer = ledger.write(write).await.unwrap();
    assert!(matches!(answer, WriteAnswer::Written), "{answer:?} to {write:?}");
}

async fn refused(ledger: &dyn Ledger, write: &RecordWrite) -> Option<Record> {
    match ledger.write(write).await.unwrap() {
        WriteAnswer::Refused(standing) => standing.map(|record| *record),
        WriteAnswer::Written => panic!("written, but should not have been: {write:?}"),
    }
}

/// What stands, read by a write that nobody could be allowed.
pub async fn standing(ledger: &dyn Ledger, key: &InputHash) -> Option<Record> {
    refused(ledger, &takeover(claimed(key, "a look", 1), u64::MAX, "nobody's")).await
}

/// The conditions of writes and what refusals say.
pub async fn records(ledger: &dyn Ledger) {
    only_the_first_claim_of_an_input_is_written(ledger).await;
    a_takeover_needs_exactly_what_was_read(ledger).await;
    the_owner_writes_and_nobody_else(ledger).await;
    a_takeover_ends_the_right_of_the_one_before(ledger).await;
    a_write_whose_reply_was_lost_is_recognised_when_repeated(ledger).await;
    an_older_write_that_arrives_late_changes_nothing(ledger).await;
    a_write_replaces_the_whole_record(ledger).await;
    a_sent_letter_is_noted_on_the_failure_that_it_tells_of(ledger).await;
    what_is_read_back_is_what_was_written(ledger).await;
}

/// The parts of a kept message: which is written over which.
pub async fn parts(ledger: &dyn Ledger) {
    const NOW_MS: u64 = 1_795_500_000_000;
    let key = key();
    let part = |claim_version, token: &str, expires_at_ms| Part {
        key: key.clone(),
        index: 0,
        claim_version,
        token: token.to_owned(),
        bytes: vec![0, 255, b'\n'],
        expires_at_ms,
    };
    // DynamoDB knows expiry in whole seconds, and 2100 is not yet.
    let (later_ms, over_ms) = (4_102_444_800_000, NOW_MS - 1_000);
    let mut standing: Option<Part> = None;
    for new in [
        part(4, "one", later_ms),
        part(4, "one", later_ms),
        part(4, "two", later_ms),
        part(3, "two", later_ms),
        part(5, "two", later_ms),
        part(4, "one", later_ms),
        part(6, "three", over_ms),
        part(1, "a new life", later_ms),
        part(1, "another", later_ms),
    ] {
        let allowed = new.allowed(standing.as_ref(), NOW_MS);
        let answer = ledger.keep(&new, NOW_MS).await.unwrap();
        assert_eq!(answer == KeepAnswer::Kept, allowed, "{new:?} over {standing:?}");
        if allowed {
            standing = Some(new);
        }
    }
    assert_eq!(standing.unwrap().token, "a new life");
    // One of full size fits into an item, and stands by itself.
    let largest = Part { index: 1, bytes: vec![b'x'; PART_BYTES_MAX], ..part(4, "one", later_ms) };
    assert_eq!(ledger.keep(&largest, NOW_MS).await.unwrap(), KeepAnswer::Kept);
}

async fn only_the_first_claim_of_an_input_is_written(ledger: &dyn Ledger) {
    let key = key();
    assert_eq!(standing(ledger, &key).await, None);
    written(ledger, &absent(claimed(&key, "one", 1))).await;
    assert_eq!(refused(ledger, &absent(claimed(&key, "two", 1))).await, Some(claimed(&key, "one", 1)));
}

async fn a_takeover_needs_exactly_what_was_read(ledger: &dyn Ledger) {
    let key = key();
    assert_eq!(
        refused(ledger, &takeover(claimed(&key, "two", 2), 1, "one")).await,
        None,
        "nothing to take over"
    );
    written(ledger, &absent(claimed(&key, "one", 1))).await;
    for (version, token) in [(0, "one"), (2, "one"), (3, "one"), (1, "one that has expired"), (1, "two")] {
        assert_eq!(
            refused(ledger, &takeover(claimed(&key, "two", 4), version, token)).await,
            Some(claimed(&key, "one", 1)),
            "{version} of {token}"
        );
    }
    written(ledger, &takeover(claimed(&key, "two", 2), 1, "one")).await;
    assert_eq!(standing(ledger, &key).await, Some(claimed(&key, "two", 2)));
}

async fn the_owner_writes_and_nobody_else(ledger: &dyn Ledger) {
    let key = key();
    assert_eq!(refused(ledger, &fence(claimed(&key, "one", 2))).await, None, "an owner of nothing");
    written(ledger, &absent(claimed(&key, "one", 1))).await;
    assert_eq!(refused(ledger, &fence(claimed(&key, "two", 2))).await, Some(claimed(&key, "one", 1)));
    written(ledger, &fence(claimed(&key, "one", 2))).await;
    written(ledger, &fence(record(&key, "one", 5, done(json!({"a": 1}))))).await;
    assert_eq!(standing(ledger, &key).await, Some(record(&key, "one", 5, done(json!({"a": 1})))));
}

async fn a_takeover_ends_the_right_of_the_one_before(ledger: &dyn Ledger) {
    let key = key();
    written(ledger, &absent(claimed(&key, "one", 1))).await;
    written(ledger, &takeover(claimed(&key, "two", 2), 1, "one")).await;
    for late in [
        fence(record(&key, "one", 2, done(json!(1)))),
        fence(record(&key, "one", 9, done(json!(1)))),
        fence(record(&key, "one", 9, State::Open)),
        takeover(claimed(&key, "one", 2), 1, "one"),
        absent(claimed(&key, "one", 1)),
    ] {
        assert_eq!(refused(ledger, &late).await, Some(claimed(&key, "two", 2)), "{late:?}");
    }
}

async fn a_write_whose_reply_was_lost_is_recognised_when_repeated(ledger: &dyn Ledger) {
    let key = key();
    for write in [
        absent(claimed(&key, "one", 1)),
        fence(claimed(&key, "one", 2)),
        takeover(claimed(&key, "two", 3), 2, "one"),
        fence(record(&key, "two", 4, failed(Some("said")))),
    ] {
        written(ledger, &write).await;
        written(ledger, &write).await;
        assert_eq!(standing(ledger, &key).await, Some(write.record));
    }
}

async fn an_older_write_that_arrives_late_changes_nothing(ledger: &dyn Ledger) {
    let key = key();
    let result = record(&key, "one", 3, done(json!({"a": 1})));
    let second = fence(claimed(&key, "one", 2));
    for write in [absent(claimed(&key, "one", 1)), second.clone(), fence(result.clone())] {
        written(ledger, &write).await;
    }
    // It did take effect once, so it is not refused; but what stands is what came after it.
    written(ledger, &second).await;
    written(ledger, &absent(claimed(&key, "one", 1))).await;
    assert_eq!(standing(ledger, &key).await, Some(result));
}

async fn a_write_replaces_the_whole_record(ledger: &dyn Ledger) {
    let key = key();
    let mut full = claimed(&key, "t", 1);
    full.reference = Some("ticket 1".to_owned());
    full.budget.waiting_since_ms = Some(5);
    full.budget.refusals = Some(Refusals { times: 2, since_ms: 4 });
    full.history = vec![PastFailure {
        reason: "refused".to_owned(),
        failed_at_ms: 1,
        calls: 2,
        message_id: "m-0".to_owned(),
        more: serde_json::Map::new(),
    }];
    written(ledger, &absent(full.clone())).await;
    assert_eq!(standing(ledger, &key).await, Some(full));
    for (number, state) in [
        failed(Some("excerpt")),
        failed(None),
        State::Open,
        State::Claimed { lease_until_ms: 1, alone: true },
        done(json!({"a": [1]})),
        State::Open,
    ]
    .into_iter()
    .enumerate()
    {
        let mut next = record(&key, "t", 2 + number as u64, state);
        next.task = None;
        written(ledger, &fence(next.clone())).await;
        assert_eq!(standing(ledger, &key).await, Some(next), "nothing of an earlier state is left");
    }
}

async fn a_sent_letter_is_noted_on_the_failure_that_it_tells_of(ledger: &dyn Ledger) {
    let key = key();
    ledger.note_letter_sent(&key, 1).await.unwrap();
    assert_eq!(standing(ledger, &key).await, None, "noting makes no record");
    written(ledger, &absent(record(&key, "t", 1, failed(None)))).await;
    for other in [0, 2] {
        ledger.note_letter_sent(&key, other).await.unwrap();
        assert_eq!(standing(ledger, &key).await, Some(record(&key, "t", 1, failed(None))), "{other}");
    }
    let noted = Record { letter_version: Some(1), ..record(&key, "t", 1, failed(None)) };
    for _ in 0..2 {
        ledger.note_letter_sent(&key, 1).await.unwrap();
        assert_eq!(standing(ledger, &key).await, Some(noted.clone()));
    }
    written(ledger, &takeover(claimed(&key, "two", 2), 1, "t")).await;
    ledger.note_letter_sent(&key, 1).await.unwrap();
    assert_eq!(standing(ledger, &key).await, Some(claimed(&key, "two", 2)), "it was begun afresh");
}

async fn what_is_read_back_is_what_was_written(ledger: &dyn Ledger) {
    let odd = "ünï 👩‍👩‍👧 \u{202e}rtl\u{0} \u{1}\u{7f}\u{85}\u{2028}\u{feff}\"\\/ \r\n\t end ";
    let members: BTreeMap<String, Value> = (0..40)
        .map(|n| (format!("{odd}{n}"), json!({"n": [n, null, true, odd, -n, u64::MAX, i64::MIN]})))
        .collect();
    let mut all = record(&key(), odd, 9_007_199_254_740_993, done(json!(members)));
    all.task = Some(odd.to_owned());
    all.reference = Some(String::new());
    all.message_id = odd.to_owned();
    all.budget = Budget {
        claims: u32::MAX,
        calls: 1,
        reasks: 2,
        crashes: 3,
        waiting_since_ms: Some(u64::MAX),
        refusals: Some(Refusals { times: u32::MAX, since_ms: u64::MAX }),
        usage: Usage { input_tokens: u64::MAX, output_tokens: 0 },
        cost_micro_usd: u64::MAX,
    };
    all.redrives = u32::MAX;
    all.history = vec![
        PastFailure {
            reason: odd.to_owned(),
            failed_at_ms: u64::MAX,
            calls: u32::MAX,
            message_id: odd.to_owned(),
            more: serde_json::Map::from_iter([("more".to_owned(), json!(odd))]),
        };
        10
    ];
    written(ledger, &absent(all.clone())).await;
    assert_eq!(standing(ledger, &all.key).await, Some(all));

    // As large as an output may be, once in ASCII and once in characters of four bytes.
    for text in ["x".repeat(300 * 1_024), "𝄞".repeat(75 * 1_024)] {
        let large = record(&key(), "t", 1, done(json!({ "text": text })));
        written(ledger, &absent(large.clone())).await;
        assert_eq!(standing(ledger, &large.key).await, Some(large));
    }
}

/// One claim wins, however many are made at the same time.
pub async fn concurrent_claims(ledger: Arc<dyn Ledger>) {
    let key = key();
    let claims: Vec<_> = (0..8)
        .map(|n| {
            let (ledger, key) = (Arc::clone(&ledger), key.clone());
            tokio::spawn(async move {
                ledger.write(&absent(claimed(&key, &format!("worker {n}"), 1))).await.unwrap()
            })
        })
        .collect();
    let mut winners = 0;
    let mut seen = Vec::new();
    for claim in claims {
        match claim.await.unwrap() {
            WriteAnswer::Written => winners += 1,
            WriteAnswer::Refused(standing) => seen.push(standing.expect("the winner's record")),
        }
    }
    assert_eq!(winners, 1);
    let stands = standing(&*ledger, &key).await.unwrap();
    assert!(seen.iter().all(|record| **record == stands));
}

/// DynamoDB's limit of 400 KB for an item: refused, and nothing is left of it.
pub async fn an_item_that_is_too_large_is_refused(ledger: &dyn Ledger) {
    let large = record(&key(), "t", 1, done(json!({"text": "x".repeat(400 * 1_024)})));
    let error = ledger.write(&absent(large.clone())).await.unwrap_err();
    assert_eq!(error.kind, PortErrorKind::Refused, "{error}");
    assert!(error.to_string().len() < 500, "the item is not quoted: {error}");
    assert_eq!(standing(ledger, &large.key).await, None);
}

/// Further messages with the same input.
pub async fn duplicates(ledger: &dyn Ledger, inspect: &dyn Inspect) {
    let key = key();
    ledger.count_duplicate(&key, "m-1").await.unwrap();
    assert_eq!(inspect.duplicates(&key).await, None, "counting makes no record");
    assert_eq!(standing(ledger, &key).await, None);

    written(ledger, &absent(claimed(&key, "t", 1))).await;
    assert_eq!(inspect.duplicates(&key).await, Some(0));
    for (message_id, counted) in [("m-2", 1), ("m-2", 1), ("m-3", 2), ("m-3", 2), ("m-2", 3)] {
        ledger.count_duplicate(&key, message_id).await.unwrap();
        assert_eq!(inspect.duplicates(&key).await, Some(counted), "{message_id}");
    }
    assert_eq!(standing(ledger, &key).await, Some(claimed(&key, "t", 1)), "the record is as it was");
    written(ledger, &fence(record(&key, "t", 2, done(json!(1))))).await;
    assert_eq!(inspect.duplicates(&key).await, Some(3), "a write of the record leaves the count alone");
}

/// The control record.
pub async fn control(ledger: &dyn Ledger, inspect: &dyn Inspect) {
    let none = ledger.control_now().await.unwrap();
    assert_eq!(none, Control::default(), "there is none yet");
    let entry = |reason: &str, phase| Entry::paused(1_795_500_000_000, reason, "who").in_phase(phase, 5);
    let causes = |control: &Control| control.entries.keys().copied().collect::<Vec<_>>();
    // Each over what was read, and over nothing else.
    let outage = none.with(Cause::Outage, entry("no answer — 503", Phase::Paused));
    assert_eq!(ledger.put_control(&outage, &none).await.unwrap(), ControlAnswer::Written);
    let standing = ledger.control_now().await.unwrap();
    assert_eq!(standing, outage.written());
    let late = none.with(Cause::Account, entry("401", Phase::Paused));
    let refused = ControlAnswer::Refused(Box::new(standing.clone()));
    assert_eq!(ledger.put_control(&late, &none).await.unwrap(), refused);
    // A repeat of our own write finds itself.
    let ControlAnswer::Refused(own) = ledger.put_control(&outage, &none).await.unwrap() else {
        panic!("written twice")
    };
    assert!(outage.stands_as(&own));
    // Older releases pause and resume in their own form, and know no version: nobody's word is lost.
    inspect.pause_in_old_form(Some(("INC-42", 7))).await;
    let reopening = standing.with(Cause::Outage, entry("no answer", Phase::Reopening { width: 4 }));
    let ControlAnswer::Refused(paused) = ledger.put_control(&reopening, &standing).await.unwrap() else {
        panic!("the operator's pause is overwritten")
    };
    assert_eq!(causes(&paused), [Cause::Operator, Cause::Outage]);
    let reopen = |standing: &Control| {
        Some(standing.with(Cause::Outage, entry("no answer", Phase::Reopening { width: 4 })))
    };
    let reopened = ledger.change_control(&reopen).await.unwrap();
    assert_eq!(causes(&reopened), [Cause::Operator, Cause::Outage]);
    inspect.pause_in_old_form(None).await;
    assert!(ledger.control_now().await.unwrap().is_open());
    let resumed = ledger.change_control(&|standing| Some(standing.resumed(9))).await.unwrap();
    assert!(resumed.entries.is_empty() && resumed.version > reopening.version);
    assert_eq!(ledger.control_now().await.unwrap(), resumed);
    // When the way was opened outlives a pause and a resume by somebody who does not know of it.
    let narrow = ledger.change_control(&reopen).await.unwrap();
    ledger.change_control(&|_| Some(narrow.resumed(10))).await.unwrap();
    for pause in [Some(("INC-43", 11)), None] {
        inspect.pause_in_old_form(pause).await;
        assert_eq!(ledger.control_now().await.unwrap().opened_at_ms, Some(10), "{pause:?}");
    }
}

/// When a worker takes money.
pub const AT_MS: u64 = 1_795_500_000_000;

fn day() -> UtcDay {
    static NEXT: AtomicU64 = AtomicU64::new(0);
    // Days of 2126, of which the record is not expired yet: the table deletes what is.
    UtcDay::of(4_922_899_200_000 + NEXT.fetch_add(1, Ordering::Relaxed) * 86_400_000)
}

fn reserve(micro_usd: u64, cap_micro_usd: u64) -> (SpendKey, SpendKind) {
    (SpendKey::Day, SpendKind::Reserve { micro_usd, cap_micro_usd, shard: None })
}

fn settle(key: SpendKey, reserved_micro_usd: u64, spent_micro_usd: u64) -> (SpendKey, SpendKind) {
    let (answered_at_ms, called_at_ms) = (None, None);
    (key, SpendKind::Settle { reserved_micro_usd, spent_micro_usd, answered_at_ms, called_at_ms })
}

/// The day's spend: what its own record has given away, and what its shards hold.
pub async fn spend(ledger: &dyn Ledger, inspect: &dyn Inspect) {
    use SpendAnswer::Counted;
    use SpendKey::{Day, Shard};
    let draw = |shard, micro_usd| (Shard(shard), SpendKind::Draw { micro_usd });
    let fund = |shard, micro_usd| (Shard(shard), SpendKind::Fund { micro_usd });
    let check = |cap_micro_usd| (Day, SpendKind::Check { cap_micro_usd });
    let block =
        |shard, micro_usd| (Day, SpendKind::Reserve { micro_usd, cap_micro_usd: 100, shard: Some(shard) });
    let no_room = |left_micro_usd| SpendAnswer::NoRoom { left_micro_usd, shards: Shards::default() };
    let full = |left_micro_usd, shards: &[u32]| SpendAnswer::NoRoom {
        left_micro_usd,
        shards: Shards::of(shards.iter().copied()),
    };
    let day = day();
    for (step, ((key, kind), answer, stands)) in [
        (check(0), Counted, (0, 0)),
        (reserve(101, 100), no_room(100), (0, 0)),
        (reserve(60, 100), Counted, (60, 0)),
        (reserve(41, 100), no_room(40), (60, 0)),
        (reserve(101, 100), no_room(40), (60, 0)),
        (reserve(40, 100), Counted, (100, 0)),
        (reserve(1, 100), no_room(0), (100, 0)),
        (settle(Day, 60, 7), Counted, (47, 0)),
        (reserve(53, 100), Counted, (100, 0)),
        (settle(Day, 53, 60), Counted, (107, 0)),
        (reserve(1, 100), no_room(0), (107, 0)),
        (settle(Day, 40, 0), Counted, (67, 0)),
        // A shard that nobody has funded has nothing.
        (draw(3, 1), no_room(0), (67, 0)),
        (block(3, 20), Counted, (87, 0)),
        (block(17, 5), Counted, (92, 0)),
        (block(3, 5), Counted, (97, 0)),
        (reserve(4, 100), full(3, &[3, 17]), (97, 0)),
        (block(5, 4), full(3, &[3, 17]), (97, 0)),
        (fund(3, 30), Counted, (97, 30)),
        (draw(3, 31), no_room(30), (97, 30)),
        (draw(3, 12), Counted, (97, 18)),
        (draw(4, 1), no_room(0), (97, 18)),
        (draw(3, 18), Counted, (97, 0)),
        (draw(3, 1), no_room(0), (97, 0)),
        (settle(Shard(3), 30, 11), Counted, (97, 19)),
        // Where nobody has drawn, one may settle, too.
        (settle(Shard(19), 5, 5), Counted, (97, 19)),
        (settle(Shard(19), 3, 0), Counted, (97, 22)),
        (draw(19, 3), Counted, (97, 19)),
        // Under a cap that was lowered, the day says that it has given away too much.
        (check(97), Counted, (97, 19)),
        (check(96), no_room(0), (97, 19)),
    ]
    .into_iter()
    .enumerate()
    {
        let change = SpendChange { day, key, kind, at_ms: AT_MS };
        assert_eq!(ledger.spend(&change).await.unwrap(), answer, "step {step}: {change:?}");
        assert_eq!(inspect.spend(day).await, stands, "step {step}: {change:?}");
    }
}

/// The cap holds when workers reserve at the same time. Who met another too often is told so, and has reserved nothing.
pub async fn concurrent_reservations(ledger: Arc<dyn Ledger>, inspect: &dyn Inspect) {
    let day = day();
    let reservations: Vec<_> = (0..10)
        .map(|_| {
            let (ledger, (key, kind)) = (Arc::clone(&ledger), reserve(10, 50));
            tokio::spawn(async move { ledger.spend(&SpendChange { day, key, kind, at_ms: AT_MS }).await })
        })
        .collect();
    let mut counted = 0;
    for reservation in reservations {
        match reservation.await.unwrap() {
            Ok(SpendAnswer::Counted) => counted += 1,
            Ok(SpendAnswer::NoRoom { .. }) => {}
            Err(error) => assert_eq!(error.kind, PortErrorKind::Throttled, "{error}"),
        }
    }
    assert!((1..=5).contains(&counted), "{counted} reservations of 10 under a cap of 50");
    assert_eq!(inspect.spend(day).await, (counted * 10, 0));
}

/// A claimed record, for tests that need any.
pub fn a_record(key: &InputHash, token: &str, version: u64) -> Record {
    claimed(key, token, version)
}

/// The states of a job that succeeds, is begun again, and fails.
pub fn a_life() -> [State; 4] {
    let claim = || State::Claimed { lease_until_ms: 1_795_500_310_000, alone: true };
    [claim(), done(json!({"a": 1})), claim(), failed(None)]
}

/// One record in each state, by the state's word.
pub async fn one_record_in_each_state(ledger: &dyn Ledger) -> Vec<(&'static str, InputHash)> {
    let mut keys = Vec::new();
    let claim = State::Claimed { lease_until_ms: 1, alone: false };
    for state in [State::Open, claim, failed(None), done(json!(1))] {
        let (key, word) = (key(), state.as_str());
        // Each was unsettled before, so that leaving the index is seen too.
        written(ledger, &absent(claimed(&key, "t", 1))).await;
        written(ledger, &fence(record(&key, "t", 2, state))).await;
        keys.push((word, key));
    }
    keys
}
