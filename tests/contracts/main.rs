//! Each adapter against servers that others wrote, by one suite per port: what the simulation assumes is what they do.
//!
//! | server | ports |
//! | --- | --- |
//! | the scenarios' memory | the ledger's records, and their reader |
//! | the simulation's own | ledger, queues |
//! | our stand-in (`nightshift-local`) | ledger without its reader, queues, metrics |
//! | DynamoDB Local | ledger |
//! | ElasticMQ | queues |
//! | MiniStack | ledger, queues, metrics, model key |
//!
//! Where a server is known to differ from AWS, the line that leaves a case out says how.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::unreachable,
    missing_docs
)] // a test

mod backends;
mod ledger_suite;
mod queue_suite;
mod reader_suite;
mod redrive_suite;
mod simulated;
mod watch_suite;
mod wire;

use std::io::Write;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use aws_sdk_dynamodb::types::AttributeValue;
use nightshift_aws::clients::SdkConfig;
use nightshift_aws::ledger::table::index_key;
use nightshift_aws::{
    CloudWatchMetrics, DynamoLedger, SqsDeadLetters, SqsQueue, SqsVisibility, StoredModelKey,
};
use nightshift_core::erase::tombstone;
use nightshift_core::input_hash::InputHash;
use nightshift_core::listing::{Lookup, Order, Selection, Unsettled};
use nightshift_core::metric::{InvocationMetrics, Latency, MetricBatch, Outcome};
use nightshift_core::record::{Expect, Record, RecordWrite};
use nightshift_core::spend::{SpendAnswer, SpendChange, SpendKey, SpendKind, UtcDay};
use nightshift_local::aws::LocalAws;
use nightshift_ports::{
    ControlRecord as _, DeadLetters, FailedRecords, Ledger, LedgerReader, LedgerWatch, Metrics, ModelKey,
    PortErrorKind, SingleRecords, Tombstones as _, Visibility, WriteAnswer,
};
use nightshift_tests::memory::World;
use nightshift_tests::records;
use nightshift_tests::servers::{NoServer, Server};
use secrecy::ExposeSecret;

use backends::{TABLE, Table, TwoQueues};
use ledger_suite::Inspect;
use queue_suite::Queues;
use simulated::Simulated;
use wire::{REGION, sdk, sdk_on_wire};

const TEN_SECONDS: Duration = Duration::from_secs(10);

/// The server, or `None` and a line in the log where it is not installed.
fn server(name: &str) -> Option<Server> {
    match Server::start(name) {
        Ok(server) => Some(server),
        Err(NoServer::Missing(why)) => {
            // Not `println`, which the test harness keeps to itself while a test passes.
            let _ = writeln!(std::io::stderr(), "skipped: {name} ({why})");
            None
        }
        Err(NoServer::Failed(why)) => panic!("{why}"),
    }
}

/// How what stands in for DynamoDB is known to differ.
#[derive(Default)]
struct LedgerDifferences {
    /// Items of more than 400 KB are stored.
    no_size_limit: bool,
    /// An answer of BatchGetItem may hold more than 16 MB.
    answers_of_any_size: bool,
}

/// The whole port, whatever it is made of.
async fn ledger_port(ledger: Arc<dyn Ledger>, inspect: &dyn Inspect, differences: LedgerDifferences) {
    ledger_suite::records(&*ledger).await;
    ledger_suite::concurrent_claims(ledger.clone()).await;
    if !differences.no_size_limit {
        ledger_suite::an_item_that_is_too_large_is_refused(&*ledger).await;
    }
    ledger_suite::parts(&*ledger).await;
    ledger_suite::duplicates(&*ledger, inspect).await;
    ledger_suite::control(&*ledger, inspect).await;
    ledger_suite::spend(&*ledger, inspect).await;
    ledger_suite::concurrent_reservations(ledger, inspect).await;
}

/// The port over DynamoDB's protocol, and what only a server shows.
async fn ledger(url: &str, differences: LedgerDifferences) {
    let (sdk, wire) = sdk_on_wire(url).await;
    let table = Table::create(&sdk).await;
    let ledger = Arc::new(DynamoLedger::new(&sdk, TABLE));
    ledger_port(ledger.clone(), &table, differences).await;
    requests(&ledger, &wire, &table).await;
    the_index_lists_what_is_not_settled(&*ledger, &table).await;
    what_is_not_a_record_is_unreadable(&*ledger, &table).await;
    what_other_releases_wrote_is_taken_over_and_kept(&*ledger, &table).await;
    an_erasure_takes_the_place_of_all_that_stood(&ledger, &table).await;
    a_word_of_a_newer_release_is_left_as_it_is(&*ledger, &table).await;
    a_missing_table_is_a_fault_of_the_deployment(&sdk).await;
    redrive_suite::documents(&*ledger).await;
}

/// One request for each operation; and what a reply that was lost on the way makes the SDK repeat, changes nothing.
async fn requests(ledger: &DynamoLedger, wire: &wire::Wire, table: &Table) {
    let key = InputHash::of_body("requests");
    let of_one = Expect::Exactly { version: 2, token: "one".to_owned() };
    let writes = [
        RecordWrite { record: ledger_suite::a_record(&key, "one", 1), expect: Expect::Absent },
        RecordWrite { record: ledger_suite::a_record(&key, "one", 2), expect: Expect::Fence },
        RecordWrite { record: ledger_suite::a_record(&key, "two", 3), expect: of_one.clone() },
        RecordWrite { record: ledger_suite::a_record(&key, "late", 4), expect: of_one.clone() },
    ];
    wire.sent();
    for (write, taken) in writes.iter().zip([true, true, true, false]) {
        let answer = ledger.write(write).await.unwrap();
        assert_eq!(matches!(answer, WriteAnswer::Written), taken, "{answer:?}");
        assert_eq!(wire.sent(), 1, "a write is one request, also when it is refused and reads what stands");
    }
    for message_id in ["m-1", "m-1"] {
        ledger.count_duplicate(&key, message_id).await.unwrap();
        assert_eq!(wire.sent(), 1);
    }
    ledger.control().await.unwrap();
    assert_eq!(wire.sent(), 1);

    let key = InputHash::of_body("lost replies");
    for write in [
        RecordWrite { record: ledger_suite::a_record(&key, "one", 1), expect: Expect::Absent },
        RecordWrite { record: ledger_suite::a_record(&key, "one", 2), expect: Expect::Fence },
        RecordWrite { record: ledger_suite::a_record(&key, "two", 3), expect: of_one.clone() },
    ] {
        wire.lose_replies(1);
        let answer = ledger.write(&write).await.unwrap();
        assert!(matches!(answer, WriteAnswer::Written), "{answer:?}");
        assert_eq!(wire.sent(), 2, "the SDK sent it again");
    }
    wire.lose_replies(2);
    ledger.count_duplicate(&key, "m-1").await.unwrap();
    assert_eq!((wire.sent(), table.duplicates(&key).await), (3, Some(1)));
    wire.sent();

    // 2126-12-24
    let day = UtcDay::of(4_953_744_000_000);
    let spend = |key, kind| SpendChange { day, key, kind, at_ms: ledger_suite::AT_MS };
    let reserve =
        spend(SpendKey::Day, SpendKind::Reserve { micro_usd: 20, cap_micro_usd: 100, shard: Some(1) });
    wire.lose_replies(2);
    assert_eq!(ledger.spend(&reserve).await.unwrap(), SpendAnswer::Counted);
    assert_eq!((wire.sent(), table.spend(day).await), (3, (60, 0)), "taken three times, which keeps the cap");
    let (reserved_micro_usd, answered_at_ms, called_at_ms) = (20, None, None);
    for (key, kind, stands) in [
        (SpendKey::Shard(1), SpendKind::Fund { micro_usd: 20 }, (60, 20)),
        (
            SpendKey::Day,
            SpendKind::Settle { reserved_micro_usd, spent_micro_usd: 5, answered_at_ms, called_at_ms },
            (45, 20),
        ),
    ] {
        wire.sent();
        wire.lose_replies(1);
        let error = ledger.spend(&spend(key, kind)).await.unwrap_err();
        assert_eq!(error.kind, PortErrorKind::Unavailable, "{error}");
        assert_eq!((wire.sent(), table.spend(day).await), (1, stands), "what gives money back is given once");
    }
    wire.sent();
    wire.lose_replies(usize::MAX);
    let error = ledger.control().await.unwrap_err();
    assert_eq!(error.kind, PortErrorKind::Unavailable, "{error}");
    assert_eq!(wire.sent(), usize::try_from(nightshift_aws::clients::ATTEMPTS_MAX).unwrap());
    wire.lose_replies(0);
}

async fn the_index_lists_what_is_not_settled(ledger: &dyn Ledger, table: &Table) {
    let keys = ledger_suite::one_record_in_each_state(ledger).await;
    for (state, key) in keys {
        // The index follows the table; none of these servers takes longer than an instant.
        let listed = table.unsettled(state).await.contains(&key.to_string());
        assert_eq!(listed, state != "done", "{state}");
    }
}

async fn what_is_not_a_record_is_unreadable(ledger: &dyn Ledger, table: &Table) {
    let key = InputHash::of_body("foreign");
    table.put_foreign(key.as_str()).await;
    let write = RecordWrite { record: ledger_suite::a_record(&key, "one", 1), expect: Expect::Absent };
    let error = ledger.write(&write).await.unwrap_err();
    assert_eq!(error.kind, PortErrorKind::Unreadable);
    assert_eq!(
        error.to_string(),
        "DynamoDB did not carry out UpdateItem: unreadable: the attribute state is missing"
    );
}

/// 2100: the table deletes what is expired while a test looks at it, and DynamoDB Local does so within seconds.
fn far_away() -> AttributeValue {
    AttributeValue::N("4102444800".to_owned())
}

/// Puts a record of another release with attributes that this one does not know, and that never expires.
async fn put_with_unknown(table: &Table, item: &mut records::Item) -> (String, InputHash) {
    item.extend(records::unknown());
    item.insert("expires_at".to_owned(), far_away());
    table.put(item).await;
    let id = item["id"].as_s().unwrap().clone();
    let key = InputHash::from_stored(id.clone());
    (id, key)
}

/// Every record of every release is read, taken over, finished, begun again, failed and explained; and whatever this
/// release does not know of it stands all the while as it stood.
async fn what_other_releases_wrote_is_taken_over_and_kept(ledger: &dyn Ledger, table: &Table) {
    for (name, mut item) in records::released() {
        let (id, key) = put_with_unknown(table, &mut item).await;
        let mut standing = ledger_suite::standing(ledger, &key).await.unwrap();
        assert_eq!(standing.version.to_string(), *item["version"].as_n().unwrap(), "{name}");
        assert!(name.starts_with(standing.state.as_str()), "{name}: {}", standing.state.as_str());
        for (step, state) in ledger_suite::a_life().into_iter().enumerate() {
            let takes_over = state.as_str() == "claimed";
            let expect = if takes_over { Expect::exactly(&standing) } else { Expect::Fence };
            let token = if takes_over { format!("worker {step}") } else { standing.token.clone() };
            let record = Record { version: standing.version + 1, token, state, ..standing };
            let answer = ledger.write(&RecordWrite { record: record.clone(), expect }).await.unwrap();
            assert!(matches!(answer, WriteAnswer::Written), "{name}, step {step}: {answer:?}");
            assert_eq!(
                ledger_suite::standing(ledger, &key).await,
                Some(record.clone()),
                "{name}, step {step}"
            );
            ledger.note_letter_sent(&key, record.version).await.unwrap();
            standing = ledger_suite::standing(ledger, &key).await.unwrap();
            assert!(standing.letter_is_sent());
            let stands = table.item(&id).await.unwrap();
            for (attribute, value) in records::unknown() {
                assert_eq!(stands.get(&attribute), Some(&value), "{name}, step {step}: {attribute}");
            }
            assert_eq!(stands.get("duplicates"), item.get("duplicates"), "{name}, step {step}");
        }
    }
}

/// An erasure leaves nothing of what this release does not know, and stands in its place under its condition alone.
async fn an_erasure_takes_the_place_of_all_that_stood(ledger: &DynamoLedger, table: &Table) {
    for (name, mut item) in records::released() {
        let (id, key) = put_with_unknown(table, &mut item).await;
        let standing = ledger_suite::standing(ledger, &key).await.unwrap();
        let late = Record { version: standing.version + 1, ..standing.clone() };
        // 2090: the table may delete what is expired while a test looks at it.
        let erased = |record: &Record| tombstone(&key, Some(record), "eraser", 3_800_000_000_000);
        let refused = ledger.put_tombstone(&erased(&late)).await.unwrap();
        assert!(matches!(refused, WriteAnswer::Refused(Some(stands)) if *stands == standing), "{name}");
        for _ in 0..2 {
            let standing = ledger_suite::standing(ledger, &key).await.unwrap();
            let write = erased(&standing);
            let answer = ledger.put_tombstone(&write).await.unwrap();
            assert!(matches!(answer, WriteAnswer::Written), "{name}: {answer:?}");
            assert_eq!(ledger_suite::standing(ledger, &key).await, Some(write.record), "{name}");
        }
        let nothing = tombstone(&key, None, "late", 3_800_000_000_000);
        let refused = ledger.put_tombstone(&nothing).await.unwrap();
        assert!(matches!(refused, WriteAnswer::Refused(Some(_))), "{name}: {refused:?}");
        let stands = table.item(&id).await.unwrap();
        let left: Vec<_> =
            records::unknown().into_keys().filter(|known| stands.contains_key(known)).collect();
        assert!(left.is_empty() && !stands.contains_key("duplicates"), "{name}: {stands:?}");
    }
}

async fn a_word_of_a_newer_release_is_left_as_it_is(ledger: &dyn Ledger, table: &Table) {
    let mut left = 0;
    for (name, mut item) in records::released() {
        let unknown = AttributeValue::S("a word of a newer release".to_owned());
        let attribute = if name.starts_with("failed") { "reason" } else { "state" };
        item.insert(attribute.to_owned(), unknown);
        item.insert("expires_at".to_owned(), far_away());
        table.put(&item).await;
        let id = item["id"].as_s().unwrap();
        let key = InputHash::from_stored(id.clone());
        let claim = ledger_suite::a_record(&key, "one", 1);
        let error = ledger.write(&RecordWrite { record: claim, expect: Expect::Absent }).await.unwrap_err();
        assert_eq!(error.kind, PortErrorKind::Unreadable, "{name}: {error}");
        assert!(!error.kind.may_have_taken_effect());
        assert_eq!(table.item(id).await, Some(item.clone()), "{name}");
        left += 1;
    }
    assert!(left >= 30, "{left} records");
}

async fn a_missing_table_is_a_fault_of_the_deployment(sdk: &SdkConfig) {
    let error = DynamoLedger::new(sdk, "no-such-table").control().await.unwrap_err();
    assert_eq!(error.kind, PortErrorKind::Misconfigured, "{error}");
}

/// The reader over DynamoDB's protocol, beside what else stands in the table, and what only a server shows.
async fn reader(url: &str, differences: LedgerDifferences) {
    let (sdk, wire) = sdk_on_wire(url).await;
    let table = Table(aws_sdk_dynamodb::Client::new(&sdk));
    let ledger = DynamoLedger::new(&sdk, TABLE);
    reader_suite::reader(&ledger, &ledger).await;
    watch_suite::watch(&ledger, &ledger).await;
    what_cannot_be_read_hides_nothing_else(&ledger, &table).await;
    a_redrive_reads_every_failed_record(&ledger, &table).await;
    reading_says_what_it_took(&ledger, &wire).await;
    if !differences.answers_of_any_size {
        more_than_one_answer_holds_is_asked_for_again(&ledger, &wire).await;
    }
    an_index_of_several_keys_is_one_list(&ledger, &table, url).await;
}

async fn what_cannot_be_read_hides_nothing_else(ledger: &DynamoLedger, table: &Table) {
    let (foreign, readable) = (InputHash::of_body("foreign"), InputHash::of_body("readable"));
    table.put_foreign(foreign.as_str()).await;
    let record = ledger_suite::a_record(&readable, "one", 1);
    let write = RecordWrite { record: record.clone(), expect: Expect::Absent };
    ledger.write(&write).await.unwrap();
    let found = ledger.get_many(&[foreign, readable]).await.unwrap();
    assert_eq!(found[0], Lookup::Unreadable("the attribute state is missing".to_owned()));
    assert_eq!(found[1].record(), Some(&record));
}

/// Beside those of the suites, which are more than one page holds, one of a newer release.
async fn a_redrive_reads_every_failed_record(ledger: &DynamoLedger, table: &Table) {
    let (_, mut newer) = records::released().into_iter().find(|(name, _)| name == "failed-refused").unwrap();
    let key = InputHash::of_body("a newer release");
    newer.insert("id".to_owned(), AttributeValue::S(key.to_string()));
    newer.insert("reason".to_owned(), AttributeValue::S("a word of a newer release".to_owned()));
    newer.insert("expires_at".to_owned(), far_away());
    table.put(&newer).await;
    assert_eq!(SingleRecords::read(ledger, &key).await.unwrap_err().kind, PortErrorKind::Unreadable);

    let failed = Selection::all(Unsettled::Failed);
    let (mut counted, mut after) = (0, None);
    loop {
        let page = ledger.count(&failed, after.as_ref()).await.unwrap();
        (counted, after) = (counted + page.records, page.next);
        if after.is_none() {
            break;
        }
    }
    let (mut records, mut unreadable, mut pages, mut after) = (Vec::new(), 0, 0, None);
    loop {
        let page = FailedRecords::page(ledger, after).await.unwrap();
        records.extend(page.records);
        (unreadable, pages, after) = (unreadable + page.unreadable, pages + 1, page.next);
        if after.is_none() {
            break;
        }
    }
    assert!(pages > 1 && unreadable > 0, "{pages} pages, {unreadable} unreadable");
    assert_eq!(records.len() as u64 + unreadable, counted);
    assert_eq!(SingleRecords::read(ledger, &records[0].key).await.unwrap().as_ref(), Some(&records[0]));
    let nonsense = FailedRecords::page(ledger, Some("nonsense".to_owned())).await.unwrap_err();
    assert_eq!(nonsense.kind, PortErrorKind::Refused, "{nonsense}");
}

async fn reading_says_what_it_took(ledger: &DynamoLedger, wire: &wire::Wire) {
    wire.sent();
    let failed = Selection::all(Unsettled::Failed);
    let page = ledger.list(&failed, Order::NewestFirst, None, 10).await.unwrap();
    assert_eq!((wire.sent(), page.entries.len()), (1, 10), "a page is one request");
    assert!(page.read_units > 0.0, "{}", page.read_units);
    assert!(ledger.count(&failed, None).await.unwrap().read_units > 0.0);
    assert!(ledger.scan_for_reference("nobody's", None).await.unwrap().read_units > 0.0);
    assert!(ledger.size().await.unwrap().items > 0);
    wire.sent();
    ledger.get_many(&(0..100).map(|n| InputHash::of_body(&n.to_string())).collect::<Vec<_>>()).await.unwrap();
    assert_eq!(wire.sent(), 1, "a hundred keys are one request");
}

/// An answer of BatchGetItem holds 16 MB, and gives back unread what does not fit.
async fn more_than_one_answer_holds_is_asked_for_again(ledger: &DynamoLedger, wire: &wire::Wire) {
    let records: Vec<_> = (0..60)
        .map(|n| {
            let record = ledger_suite::a_record(&InputHash::of_body(&format!("large {n}")), "one", 1);
            Record { previous: Some("x".repeat(300 * 1_024)), ..record }
        })
        .collect();
    for record in &records {
        ledger.write(&RecordWrite { record: record.clone(), expect: Expect::Absent }).await.unwrap();
    }
    let keys: Vec<_> = records.iter().map(|record| record.key.clone()).collect();
    wire.sent();
    let found = ledger.get_many(&keys).await.unwrap();
    assert!(wire.sent() > 1, "this server holds no more in an answer than it must");
    assert!(found.iter().zip(&records).all(|(lookup, record)| lookup.record() == Some(record)));
}

/// The words of the index are spread for all who come, and what stood under one key is found beside the rest.
async fn an_index_of_several_keys_is_one_list(ledger: &DynamoLedger, table: &Table, url: &str) {
    let (task, other) = ("spread", DynamoLedger::new(&sdk(url).await, TABLE));
    let mut expected = Vec::new();
    for number in 0..30_u32 {
        let key = InputHash::of_body(&format!("spread {number}"));
        let record = Record {
            task: Some(task.to_owned()),
            first_received_ms: number.into(),
            ..ledger_suite::a_record(&key, "t", 1)
        };
        let by = match number {
            0..10 => ledger,
            10 => {
                ledger.spread_index(21).await.unwrap();
                // Another process, which has read nothing yet.
                other.spread_index(41).await.unwrap();
                other.spread_index(1).await.unwrap();
                &other
            }
            11..20 => &other,
            _ => {
                ledger.control().await.unwrap();
                ledger
            }
        };
        by.put(&RecordWrite { record, expect: Expect::Absent }).await.unwrap();
        expected.push(key);
    }
    for key in 0..3 {
        let word = index_key(Unsettled::Claimed, key);
        let here = table.unsettled(&word).await;
        assert!(expected.iter().any(|key| here.contains(&key.to_string())), "{word}");
    }
    let (on_wire, wire) = sdk_on_wire(url).await;
    let spread = DynamoLedger::new(&on_wire, TABLE);
    let selection = Selection { tasks: vec![task.to_owned()], ..Selection::all(Unsettled::Claimed) };
    let oldest = spread.oldest(Unsettled::Claimed, 0, 10).await.unwrap();
    assert_eq!(oldest.into_iter().map(|entry| entry.key).collect::<Vec<_>>(), expected[..10]);
    assert_eq!(wire.most_at_once(), 3, "the keys are read side by side");
    for limit in [1, 3, 10, 1_000] {
        let (mut found, mut next) = (Vec::new(), None);
        loop {
            let page = spread.list(&selection, Order::OldestFirst, next.as_ref(), limit).await.unwrap();
            assert!(page.entries.len() <= limit.max(3) as usize, "{limit}: {}", page.entries.len());
            found.extend(page.entries.into_iter().map(|entry| entry.key));
            next = page.next;
            if next.is_none() {
                break;
            }
        }
        assert_eq!(found, expected, "{limit} at a time");
    }
    let oldest = spread.oldest(Unsettled::Claimed, 8, 30).await.unwrap();
    let oldest: Vec<_> =
        oldest.into_iter().map(|entry| entry.key).filter(|key| expected.contains(key)).collect();
    assert_eq!(oldest, expected[8..], "those of each key");
    assert_eq!(spread.count(&selection, None).await.unwrap().records, 30);
    let all_of = async |of: &DynamoLedger| {
        of.list(&selection, Order::OldestFirst, None, 1_000).await.unwrap().entries.len()
    };
    assert_eq!(
        all_of(ledger).await,
        30,
        "what others have spread since its start is learnt with the control record"
    );

    let page = spread.list(&selection, Order::OldestFirst, None, 3).await.unwrap();
    let late = DynamoLedger::new(&sdk(url).await, TABLE);
    late.control().await.unwrap();
    spread.spread_index(81).await.unwrap();
    let error = spread.list(&selection, Order::OldestFirst, page.next.as_ref(), 3).await.unwrap_err();
    assert_eq!(error.kind, PortErrorKind::Refused, "{error}");
    late.spread_index(61).await.unwrap();
    let page = late.list(&selection, Order::OldestFirst, None, 3).await.unwrap();
    let fresh = DynamoLedger::new(&sdk(url).await, TABLE);
    let error = fresh.list(&selection, Order::OldestFirst, page.next.as_ref(), 3).await.unwrap_err();
    assert!(error.message.contains("this one has 5"), "never over fewer again: {error}");
    // A read that comes late.
    table.put(&[("id".to_owned(), AttributeValue::S("control".to_owned()))].into()).await;
    spread.control().await.unwrap();
    assert_eq!(all_of(&spread).await, 30);
}

/// How what stands in for SQS is known to differ.
#[derive(Default)]
struct QueueDifferences {
    /// What SQS would refuse, by the words of the suite.
    takes: &'static [&'static str],
    /// The `MessageGroupId` of a standard queue is lost.
    loses_groups: bool,
}

/// Both ports, whatever they are made of.
async fn queue_ports(
    dead_letters: &dyn DeadLetters,
    visibility: &dyn Visibility,
    queues: &dyn Queues,
    differences: QueueDifferences,
) {
    queue_suite::bodies(dead_letters, queues).await;
    queue_suite::attributes(dead_letters, queues).await;
    let refuses = |what: &str| !differences.takes.contains(&what);
    queue_suite::letters_that_cannot_be(dead_letters, refuses).await;
    queue_suite::hand_backs(visibility, queues).await;
    queue_suite::hand_backs_that_cannot_be(visibility, queues, refuses).await;
}

/// The ports over SQS's protocol, and what only a server shows.
async fn queues(url: &str, differences: QueueDifferences) {
    let keeps_groups = !differences.loses_groups;
    let sdk = sdk(url).await;
    let queues = TwoQueues::create(&sdk).await;
    let dead_letters = SqsDeadLetters::new(&sdk, &queues.dead_letters_url);
    let visibility = SqsVisibility::new(&sdk, &queues.jobs_url);
    queue_ports(&dead_letters, &visibility, &queues, differences).await;
    let queue = SqsQueue::new(&sdk, &queues.redrive_url);
    redrive_suite::a_message_goes_through_as_it_is(&queue, &queue, keeps_groups).await;
    redrive_suite::messages_are_hidden_one_by_one(&queue, &queue).await;
    redrive_suite::a_letter_that_cannot_be_fails_alone(&queue, &queue).await;
    let nowhere = queues.dead_letters_url.replace("contract-dead-letters", "no-such-queue");
    let error = queue_suite::send_one(&SqsDeadLetters::new(&sdk, nowhere)).await.unwrap_err();
    assert_eq!(error.kind, PortErrorKind::Misconfigured, "{error}");
}

fn batch(at_ms: u64) -> MetricBatch {
    let mut metrics = InvocationMetrics::new(2);
    metrics.settle("summarize_email", Outcome::Succeeded);
    metrics.settle("summarize_email", Outcome::Duplicate);
    for ms in 0..300 {
        metrics.sample_ms("summarize_email", Latency::ModelLatency, ms);
    }
    metrics.into_batch("contract", at_ms)
}

type Lines = Arc<Mutex<Vec<String>>>;

async fn metrics_adapter(url: &str) -> (CloudWatchMetrics, Lines) {
    let lines = Lines::default();
    let log = Arc::clone(&lines);
    let adapter = CloudWatchMetrics::new(
        &sdk(url).await,
        Box::new(move |line| log.lock().unwrap().push(line.to_owned())),
    );
    (adapter, lines)
}

#[tokio::test]
async fn ledger_of_the_scenarios() {
    // SingleRecords only: for the scenarios it keeps every duplicate and every change of the spend, repeated or not.
    let world = World::new(|_, _| unreachable!("no model is called"));
    ledger_suite::records(&*world).await;
    ledger_suite::concurrent_claims(world.clone()).await;
    reader_suite::reader(&*world, &*world).await;
}

#[tokio::test(start_paused = true)]
async fn ledger_of_the_simulation() {
    let simulated = Simulated::new();
    // Its outputs are bounded at 2 KiB, long before an item is too large.
    ledger_port(
        simulated.clone(),
        &*simulated,
        LedgerDifferences { no_size_limit: true, ..LedgerDifferences::default() },
    )
    .await;
}

#[tokio::test(start_paused = true)]
async fn queues_of_the_simulation() {
    let simulated = Simulated::new();
    queue_ports(&*simulated, &*simulated, &*simulated, QueueDifferences::default()).await;
}

#[tokio::test]
async fn ledger_on_our_stand_in() {
    let aws = LocalAws::start(REGION).await.unwrap();
    ledger(aws.endpoint_url(), LedgerDifferences::default()).await;
    aws.stop().await;
}

#[tokio::test]
async fn ledger_on_dynamodb_local() {
    let Some(server) = server("dynamodb-local") else { return };
    ledger(server.url(), LedgerDifferences::default()).await;
    reader(server.url(), LedgerDifferences::default()).await;
}

#[tokio::test]
async fn queues_on_our_stand_in() {
    let aws = LocalAws::start(REGION).await.unwrap();
    queues(aws.endpoint_url(), QueueDifferences { loses_groups: true, ..QueueDifferences::default() }).await;
    aws.stop().await;
}

#[tokio::test]
async fn queues_on_elasticmq() {
    let Some(server) = server("elasticmq") else { return };
    queues(
        server.url(),
        QueueDifferences { takes: &["a delay beyond twelve hours"], ..QueueDifferences::default() },
    )
    .await;
}

#[tokio::test]
async fn everything_on_ministack() {
    let Some(server) = server("ministack") else { return };
    ledger(server.url(), LedgerDifferences::default()).await;
    reader(server.url(), LedgerDifferences { answers_of_any_size: true, ..LedgerDifferences::default() })
        .await;
    let takes = &["an attribute without a value", "a delay beyond twelve hours"];
    queues(server.url(), QueueDifferences { takes, ..QueueDifferences::default() }).await;
    model_keys(server.url()).await;
    metrics_on_ministack(server.url()).await;
}

#[tokio::test]
async fn metrics_on_our_stand_in() {
    let aws = LocalAws::start(REGION).await.unwrap();
    let (adapter, lines) = metrics_adapter(aws.endpoint_url()).await;
    adapter.publish(&batch(1_795_500_000_000), TEN_SECONDS).await;
    assert_eq!(*lines.lock().unwrap(), Vec::<String>::new(), "nothing goes to the log as well");
    assert_eq!(aws.requests().get("CloudWatch.PutMetricData"), Some(&1), "one request for an invocation");
    let latency = aws.metrics().into_iter().filter(|s| s.name == "ModelLatency").collect::<Vec<_>>();
    assert_eq!(latency.len(), 600, "300 values, with and without the task");
    aws.stop().await;
}

#[tokio::test]
async fn metrics_that_cloudwatch_does_not_take_in_time_go_to_the_log() {
    let aws = LocalAws::start(REGION).await.unwrap();
    for (url, within) in [("http://127.0.0.1:1", TEN_SECONDS), (aws.endpoint_url(), Duration::ZERO)] {
        let (adapter, lines) = metrics_adapter(url).await;
        let batch = batch(1_795_500_000_000);
        adapter.publish(&batch, within).await;
        let expected = nightshift_aws::metrics::emf_lines(batch.at_ms, &batch.data);
        assert!(!expected.is_empty());
        assert_eq!(*lines.lock().unwrap(), expected, "within {within:?}");
    }
    aws.stop().await;
}

#[tokio::test]
async fn a_function_without_credentials_is_a_fault_of_the_deployment() {
    let sdk = wire::sdk_without_credentials().await;
    let error = DynamoLedger::new(&sdk, TABLE).control().await.unwrap_err();
    assert_eq!(error.kind, PortErrorKind::Misconfigured, "{error}");
}

/// What was certainly not carried out is sent again, also where money is given back.
#[tokio::test]
async fn a_gift_that_was_refused_is_given_again() {
    let sent = Arc::new(AtomicUsize::new(0));
    let counter = Arc::clone(&sent);
    let refused = [
        "com.amazonaws.dynamodb.v20120810#ProvisionedThroughputExceededException",
        "com.amazonaws.dynamodb.v20120810#TransactionConflictException",
    ];
    let server = nightshift_tests::http::Server::start(move |_| {
        let answer = refused
            .get(counter.fetch_add(1, Ordering::Relaxed))
            .map(|kind| (400, Vec::new(), format!(r#"{{"__type":"{kind}","message":"m"}}"#)));
        Some(answer.unwrap_or_else(|| (200, Vec::new(), "{}".to_owned())))
    });
    let server = server.await;
    let (day, key, kind) = (UtcDay::of(0), SpendKey::Shard(1), SpendKind::Fund { micro_usd: 1 });
    let change = SpendChange { day, key, kind, at_ms: ledger_suite::AT_MS };
    let answer = DynamoLedger::new(&sdk(&server.url()).await, TABLE).spend(&change).await;
    assert_eq!((answer.unwrap(), sent.load(Ordering::Relaxed)), (SpendAnswer::Counted, 3));
}

/// A busy table gives back all keys unread, which none of the servers does.
#[tokio::test]
async fn keys_that_are_given_back_unread_are_asked_for_again_until_that_is_a_throttle() {
    for (times, requests) in [(2, 3), (usize::MAX, 6)] {
        let sent = Arc::new(AtomicUsize::new(0));
        let counter = Arc::clone(&sent);
        let server = nightshift_tests::http::Server::start(move |request| {
            let asked: serde_json::Value = serde_json::from_str(&request.body).unwrap();
            let left = counter.fetch_add(1, Ordering::Relaxed) < times;
            let unread = if left { asked["RequestItems"].clone() } else { serde_json::json!({}) };
            let body = serde_json::json!({ "Responses": {}, "UnprocessedKeys": unread });
            Some((200, Vec::new(), body.to_string()))
        });
        let server = server.await;
        let found = DynamoLedger::new(&sdk(&server.url()).await, TABLE).get(&InputHash::of_body("a")).await;
        match found {
            Ok(found) => assert_eq!((found, times), (Lookup::Absent, 2)),
            Err(error) => assert_eq!((error.kind, times), (PortErrorKind::Throttled, usize::MAX), "{error}"),
        }
        assert_eq!(sent.load(Ordering::Relaxed), requests);
    }
}

async fn metrics_on_ministack(url: &str) {
    let client = aws_sdk_cloudwatch::Client::new(&sdk(url).await);
    let (adapter, lines) = metrics_adapter(url).await;
    let now = std::time::SystemTime::UNIX_EPOCH.elapsed().unwrap().as_millis();
    adapter.publish(&batch(u64::try_from(now).unwrap()), TEN_SECONDS).await;
    assert_eq!(*lines.lock().unwrap(), Vec::<String>::new(), "nothing goes to the log as well");
    let listed =
        client.list_metrics().namespace("Nightshift").metric_name("ModelLatency").send().await.unwrap();
    assert_eq!(listed.metrics().len(), 2, "with and without the task");
}

async fn model_keys(url: &str) {
    let sdk = sdk(url).await;
    let secrets = aws_sdk_secretsmanager::Client::new(&sdk);
    let parameters = aws_sdk_ssm::Client::new(&sdk);
    secrets.create_secret().name("stack/model-key").secret_string("sk-one\n").send().await.unwrap();
    secrets.create_secret().name("json").secret_string(r#"{"api_key":"sk-json"}"#).send().await.unwrap();
    secrets.create_secret().name("empty").secret_string(" ").send().await.unwrap();
    let secure = aws_sdk_ssm::types::ParameterType::SecureString;
    parameters.put_parameter().name("/stack/key").r#type(secure).value("sk-ssm").send().await.unwrap();

    let key = StoredModelKey::secret(&sdk, "stack/model-key");
    assert_eq!(key.get().await.unwrap().expose_secret(), "sk-one");
    secrets.put_secret_value().secret_id("stack/model-key").secret_string("sk-two").send().await.unwrap();
    assert_eq!(key.get().await.unwrap().expose_secret(), "sk-one", "it is held");
    key.forget();
    assert_eq!(key.get().await.unwrap().expose_secret(), "sk-two", "it is read again after a 401");

    for (key, expected) in [
        (StoredModelKey::secret(&sdk, "json"), "sk-json"),
        (StoredModelKey::parameter(&sdk, "/stack/key"), "sk-ssm"),
    ] {
        assert_eq!(key.get().await.unwrap().expose_secret(), expected);
    }
    for key in [
        StoredModelKey::secret(&sdk, "empty"),
        StoredModelKey::secret(&sdk, "none"),
        StoredModelKey::parameter(&sdk, "/none"),
    ] {
        let error = key.get().await.unwrap_err();
        assert_eq!(error.kind, PortErrorKind::Misconfigured, "{error}");
    }
}
