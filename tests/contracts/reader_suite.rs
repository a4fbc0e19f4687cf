//! What every reader of the ledger must do, whatever it is made of. The readers here follow their table at once, as
//! DynamoDB's own index does not.

use std::sync::atomic::{AtomicU64, Ordering};

use nightshift_core::erase::tombstone;
use nightshift_core::failure::FailureReason;
use nightshift_core::input_hash::InputHash;
use nightshift_core::listing::{Entry, Lookup, Order, Page, ResultSelection, Review, Selection, Unsettled};
use nightshift_core::record::{Done, Expect, Failed, Record, RecordWrite, Revision, State};
use nightshift_ports::{Ledger, LedgerReader};
use serde_json::json;

use crate::ledger_suite;

/// A task for each case, so that cases choose their own records out of a table that others fill.
fn task() -> String {
    static NEXT: AtomicU64 = AtomicU64::new(0);
    format!("task {}", NEXT.fetch_add(1, Ordering::Relaxed))
}

fn failed(reason: FailureReason, failed_at_ms: u64) -> State {
    State::Failed(Box::new(Failed {
        reason,
        detail: "It says why.".to_owned(),
        failed_at_ms,
        request_id: None,
        excerpt: None,
        revision: Revision::default(),
    }))
}

fn done(needs_review: bool, reviewed: bool) -> State {
    State::Done(Box::new(Done {
        output: json!({"a": 1}),
        needs_review,
        reviewed,
        revision: Revision::default(),
        model: "m".to_owned(),
        finished_at_ms: 77,
    }))
}

fn record(task: &str, n: u64, state: State) -> Record {
    let key = InputHash::of_job(task, &json!([std::process::id(), n]));
    // Of different lengths, so that an order of text would show; and two at a time in the same millisecond.
    let first_received_ms = 999_990 + n / 2 * 2;
    let any = ledger_suite::a_record(&key, "t", 1);
    Record { task: Some(task.to_owned()), first_received_ms, state, ..any }
}

async fn stand(ledger: &dyn Ledger, records: &[Record]) {
    for record in records {
        ledger.write(&RecordWrite { record: record.clone(), expect: Expect::Absent }).await.unwrap();
    }
}

fn of(task: &str, unsettled: Unsettled) -> Selection {
    Selection { tasks: vec![task.to_owned()], ..Selection::all(unsettled) }
}

/// All pages of a list, each of which looks at so many.
async fn pages(reader: &dyn LedgerReader, selection: &Selection, order: Order, limit: u32) -> Vec<Page> {
    let mut pages: Vec<Page> = Vec::new();
    loop {
        let after = pages.last().and_then(|page| page.next.clone());
        pages.push(reader.list(selection, order, after.as_ref(), limit).await.unwrap());
        if pages.last().unwrap().next.is_none() {
            return pages;
        }
    }
}

async fn all(reader: &dyn LedgerReader, selection: &Selection, order: Order, limit: u32) -> Vec<Entry> {
    let pages = pages(reader, selection, order, limit).await;
    assert!(pages.iter().all(|page| page.entries.len() <= limit as usize));
    pages.into_iter().flat_map(|page| page.entries).collect()
}

fn sorted(entries: &[Entry]) -> Vec<Entry> {
    let mut sorted = entries.to_vec();
    sorted.sort_by(|a, b| a.key.cmp(&b.key));
    sorted
}

/// The whole port, over a ledger that may hold other records.
pub async fn reader(ledger: &dyn Ledger, reader: &dyn LedgerReader) {
    a_list_is_in_order_and_in_pages(ledger, reader).await;
    a_list_holds_what_is_asked_for(ledger, reader).await;
    what_is_settled_leaves_the_list(ledger, reader).await;
    keys_are_read_in_their_order_and_as_they_stand_now(ledger, reader).await;
    a_reference_is_found_by_looking_at_everything(ledger, reader).await;
    results_are_found_by_what_their_selection_says(ledger, reader).await;
}

async fn a_list_is_in_order_and_in_pages(ledger: &dyn Ledger, reader: &dyn LedgerReader) {
    let task = task();
    let records: Vec<_> =
        (0..25).map(|n| record(&task, n, failed(FailureReason::Refused, 5_000 + n))).collect();
    stand(ledger, &records).await;
    let expected: Vec<Entry> = records.iter().map(Entry::of).collect();
    let selection = of(&task, Unsettled::Failed);
    for limit in [3, 7, 1_000] {
        let oldest = all(reader, &selection, Order::OldestFirst, limit).await;
        let newest = all(reader, &selection, Order::NewestFirst, limit).await;
        for (list, order) in [(&oldest, "oldest"), (&newest, "newest")] {
            assert_eq!(sorted(list), sorted(&expected), "{order} first, {limit} at a time");
        }
        assert!(oldest.is_sorted_by_key(|entry| entry.first_received_ms), "{limit} at a time");
        assert!(newest.iter().rev().is_sorted_by_key(|entry| entry.first_received_ms), "{limit} at a time");
    }
    let mut counted = 0;
    let mut next = None;
    loop {
        let page = reader.count(&selection, next.as_ref()).await.unwrap();
        counted += page.records;
        next = page.next;
        if next.is_none() {
            break;
        }
    }
    assert_eq!(counted, 25);
}

async fn a_list_holds_what_is_asked_for(ledger: &dyn Ledger, reader: &dyn LedgerReader) {
    let (task, other) = (task(), task());
    let refused = record(&task, 1, failed(FailureReason::Refused, 100));
    let poison = record(&task, 2, failed(FailureReason::Poison, 200));
    let elsewhere = record(&other, 3, failed(FailureReason::Refused, 300));
    let nameless = Record { task: None, ..record(&other, 4, failed(FailureReason::InvalidMessage, 400)) };
    let open = record(&task, 5, State::Open);
    let claimed = record(&task, 6, State::Claimed { lease_until_ms: 600, alone: false });
    let to_review = record(&task, 7, done(true, false));
    let rest = [record(&task, 8, done(true, true)), record(&task, 9, done(false, false))];
    for record in [&refused, &poison, &elsewhere, &nameless, &open, &claimed, &to_review, &rest[0], &rest[1]]
    {
        stand(ledger, std::slice::from_ref(record)).await;
    }
    let failed = || of(&task, Unsettled::Failed);
    let both = || Selection { tasks: vec![other.clone(), task.clone()], ..failed() };
    let reasons = |reasons: &[FailureReason]| Selection { reasons: reasons.to_vec(), ..failed() };
    let between = |after, before| Selection { failed_after_ms: after, failed_before_ms: before, ..both() };
    for (selection, expected) in [
        (failed(), vec![&refused, &poison]),
        (both(), vec![&refused, &poison, &elsewhere]),
        (reasons(&[FailureReason::Refused]), vec![&refused]),
        (reasons(&[FailureReason::Refused, FailureReason::Poison]), vec![&refused, &poison]),
        (reasons(&[FailureReason::Internal]), vec![]),
        (between(Some(200), None), vec![&poison, &elsewhere]),
        (between(None, Some(200)), vec![&refused]),
        (between(Some(100), Some(300)), vec![&refused, &poison]),
        (of(&task, Unsettled::Open), vec![&open]),
        (of(&task, Unsettled::Claimed), vec![&claimed]),
        (of(&task, Unsettled::NeedsReview), vec![&to_review]),
    ] {
        let expected: Vec<Entry> = expected.into_iter().map(Entry::of).collect();
        let found = all(reader, &selection, Order::OldestFirst, 50).await;
        assert_eq!(sorted(&found), sorted(&expected), "{selection:?}");
        assert_eq!(
            reader.count(&selection, None).await.unwrap().records,
            expected.len() as u64,
            "{selection:?}"
        );
    }
    let everything = all(reader, &Selection::all(Unsettled::Failed), Order::OldestFirst, 1_000).await;
    assert!(everything.contains(&Entry::of(&nameless)), "what could not be parsed has no task");
}

async fn what_is_settled_leaves_the_list(ledger: &dyn Ledger, reader: &dyn LedgerReader) {
    let task = task();
    let mut record = record(&task, 1, State::Open);
    stand(ledger, std::slice::from_ref(&record)).await;
    for state in [
        failed(FailureReason::Refused, 1),
        State::Claimed { lease_until_ms: 9, alone: true },
        done(true, false),
        done(true, true),
        State::Open,
        done(false, false),
    ] {
        let version = record.version;
        record = Record { version: version + 1, state, ..record };
        ledger.write(&RecordWrite { record: record.clone(), expect: Expect::Fence }).await.unwrap();
        for unsettled in Unsettled::ALL {
            let stands = Unsettled::of(&record.state) == Some(unsettled);
            let expected = stands.then(|| Entry::of(&record)).into_iter().collect::<Vec<_>>();
            let found = all(reader, &of(&task, unsettled), Order::NewestFirst, 50).await;
            assert_eq!(found, expected, "{} while {:?}", unsettled.as_str(), record.state);
        }
    }
}

async fn keys_are_read_in_their_order_and_as_they_stand_now(ledger: &dyn Ledger, reader: &dyn LedgerReader) {
    let task = task();
    let records: Vec<_> = (0..130).map(|n| record(&task, n, failed(FailureReason::Refused, n))).collect();
    stand(ledger, &records).await;
    let absent = InputHash::of_body("nothing stands here");
    // More than one request holds, one that nothing stands under, and one twice.
    let mut keys: Vec<_> = records.iter().rev().map(|record| record.key.clone()).collect();
    keys.insert(50, absent.clone());
    keys.push(records[3].key.clone());
    let found = reader.get_many(&keys).await.unwrap();
    assert_eq!(found.len(), keys.len());
    for (key, lookup) in keys.iter().zip(&found) {
        let expected = records.iter().find(|record| record.key == *key);
        assert_eq!(lookup.record(), expected);
    }
    assert_eq!(reader.get_many(&[]).await.unwrap(), vec![]);
    assert_eq!(reader.get(&absent).await.unwrap(), Lookup::Absent);

    let next = Record { version: 2, state: done(false, false), ..records[0].clone() };
    ledger.write(&RecordWrite { record: next.clone(), expect: Expect::Fence }).await.unwrap();
    ledger.count_duplicate(&next.key, "m-2").await.unwrap();
    ledger.count_duplicate(&next.key, "m-3").await.unwrap();
    let Lookup::Found(standing) = reader.get(&next.key).await.unwrap() else { panic!("it stands") };
    assert_eq!((standing.record, standing.duplicates), (next, 2));
}

async fn a_reference_is_found_by_looking_at_everything(ledger: &dyn Ledger, reader: &dyn LedgerReader) {
    let task = task();
    let reference = format!("ticket of {task}");
    let named = |n, state| Record { reference: Some(reference.clone()), ..record(&task, n, state) };
    let wanted = [named(1, State::Open), named(2, done(false, false))];
    stand(ledger, &wanted).await;
    stand(ledger, &[Record { reference: Some("ticket".to_owned()), ..record(&task, 3, State::Open) }]).await;
    let (mut found, mut looked_at, mut next) = (Vec::new(), 0, None);
    loop {
        let page = reader.scan_for_reference(&reference, next.as_ref()).await.unwrap();
        found.extend(page.found.iter().map(|(_, lookup)| lookup.record().unwrap().clone()));
        looked_at += page.looked_at;
        next = page.next;
        if next.is_none() {
            break;
        }
    }
    found.sort_by_key(|record| record.first_received_ms);
    assert_eq!(found, wanted);
    assert!(looked_at >= 3, "{looked_at}");

    // Who erases by it finds what was erased before, whosever it was.
    let standing = wanted[0].clone();
    let erased = tombstone(&standing.key, Some(&standing), "t", 5_000).record;
    ledger.write(&tombstone(&standing.key, Some(&standing), "t", 5_000)).await.unwrap();
    let (mut found, mut next) = (Vec::new(), None);
    loop {
        let page = reader.scan_for_erasure(&reference, next.as_ref()).await.unwrap();
        let of_this_test = page.found.iter().map(|(_, lookup)| lookup.record().unwrap().clone());
        found.extend(of_this_test.filter(|record| record.task.as_deref() == Some(task.as_str())));
        next = page.next;
        if next.is_none() {
            break;
        }
    }
    found.sort_by_key(|record| std::cmp::Reverse(record.state == State::Erased));
    assert_eq!(found, [erased, wanted[1].clone()]);
}

async fn results_are_found_by_what_their_selection_says(ledger: &dyn Ledger, reader: &dyn LedgerReader) {
    let task = task();
    let records = [
        record(&task, 1, done(false, false)),
        record(&task, 2, done(true, false)),
        record(&task, 3, done(true, true)),
        record(&task, 4, failed(FailureReason::Refused, 77)),
        record(&task, 5, State::Open),
    ];
    stand(ledger, &records).await;
    let all = || ResultSelection { tasks: vec![task.clone()], ..ResultSelection::default() };
    for selection in [
        all(),
        ResultSelection { review: Some(Review::Needed), ..all() },
        ResultSelection { review: Some(Review::Done), ..all() },
        ResultSelection { review: Some(Review::None), ..all() },
        ResultSelection { finished_after_ms: Some(77), finished_before_ms: Some(78), ..all() },
        ResultSelection { finished_after_ms: Some(78), ..all() },
        ResultSelection { finished_before_ms: Some(77), ..all() },
        ResultSelection { revision: Some(String::new()), ..all() },
        ResultSelection { revision: Some("another".to_owned()), ..all() },
        ResultSelection { tasks: vec!["another".to_owned(), task.clone()], ..all() },
    ] {
        let (mut found, mut next) = (Vec::new(), None);
        loop {
            let page = reader.scan_for_results(&selection, next.as_ref()).await.unwrap();
            found.extend(page.found.iter().map(|(_, lookup)| lookup.record().unwrap().clone()));
            next = page.next;
            if next.is_none() {
                break;
            }
        }
        found.sort_by_key(|record| (record.first_received_ms, record.key.clone()));
        let mut wanted: Vec<_> = records.iter().filter(|record| selection.matches(record)).cloned().collect();
        wanted.sort_by_key(|record| (record.first_received_ms, record.key.clone()));
        assert_eq!(found, wanted, "{selection:?}");
    }
}
