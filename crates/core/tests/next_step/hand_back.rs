//! How long a message stays away, and when it gets its reason instead.

use nightshift_core::limits::Limits;
use nightshift_core::message::Delivery;
use nightshift_core::metric::HandBackCause;
use nightshift_core::next_step::{HandBack, hand_back};

use crate::support::*;

use HandBackCause::*;

const ALL: [HandBackCause; 13] = [
    Capacity,
    CallFailed,
    Account,
    Paused,
    SpendCap,
    HeldByOther,
    Deadline,
    Suspect,
    Ledger,
    Unreadable,
    DeadLetterUnsent,
    LostClaim,
    Panic,
];

fn decide(
    cause: HandBackCause,
    at_least_ms: u64,
    fraction: f64,
    change: impl FnOnce(&mut Delivery),
) -> HandBack {
    let mut delivery = delivery();
    change(&mut delivery);
    hand_back(cause, at_least_ms, &delivery, NOW, fraction, &Limits::default())
}

fn check(
    cause: HandBackCause,
    at_least_ms: u64,
    fraction: f64,
    change: impl FnOnce(&mut Delivery),
    expected: &str,
) {
    let decided = show_hand_back(&decide(cause, at_least_ms, fraction, change));
    assert_eq!(decided, expected, "{cause:?}");
}

#[test]
fn the_delay_doubles_with_each_receive_and_is_spread_over_its_upper_half() {
    for cause in [Capacity, CallFailed, Account, Paused, SpendCap, Ledger, DeadLetterUnsent, LostClaim, Panic]
    {
        for (receive_count, shortest_s, longest_s) in [
            (0, 15, 30),
            (1, 15, 30),
            (2, 30, 60),
            (3, 60, 120),
            (4, 120, 240),
            (5, 240, 480),
            (6, 450, 900),
            (7, 450, 900),
            (40, 450, 900),
        ] {
            let received = |d: &mut Delivery| d.receive_count = receive_count;
            check(cause, 0, 0.0, received, &format!("return in {shortest_s} s"));
            check(cause, 0, 1.0, received, &format!("return in {longest_s} s"));
        }
    }
}

#[test]
fn what_was_only_early_comes_back_soon_however_often() {
    for cause in [Deadline, Suspect] {
        for receive_count in [1, 5, 40] {
            check(cause, 0, 0.0, |d| d.receive_count = receive_count, "return in 15 s");
            check(cause, 0, 1.0, |d| d.receive_count = receive_count, "return in 30 s");
        }
    }
}

#[test]
fn what_another_worker_holds_comes_back_when_its_lease_has_ended() {
    for (at_least_ms, fraction, expected) in [
        (0, 0.0, "return in 0 s"),
        (0, 1.0, "return in 30 s"),
        (310_000, 0.0, "return in 310 s"),
        (310_000, 1.0, "return in 340 s"),
        (310_001, 0.0, "return in 311 s"),
    ] {
        for receive_count in [1, 40] {
            check(HeldByOther, at_least_ms, fraction, |d| d.receive_count = receive_count, expected);
        }
    }
}

#[test]
fn the_providers_word_is_a_floor_up_to_what_sqs_allows() {
    for (at_least_ms, fraction, held_s, expected) in [
        (20_000, 0.0, 0, "return in 20 s"),
        (31_000, 0.0, 0, "return in 31 s"),
        (31_001, 0.0, 0, "return in 32 s"),
        // Spread behind the floor: many jobs are told the same at the same moment.
        (20_000, 1.0, 0, "return in 50 s"),
        (31_000, 0.5, 0, "return in 46 s"),
        // 12 hours from the receive, less a minute for the way there.
        (86_400_000, 1.0, 0, "return in 43140 s"),
        (86_400_000, 1.0, 300, "return in 42840 s"),
        (u64::MAX, 1.0, 0, "return in 43140 s"),
        (86_400_000, 1.0, 50_000, "return in 0 s"),
    ] {
        for cause in [Capacity, Account, CallFailed] {
            check(cause, at_least_ms, fraction, |d| d.received_at_ms = NOW - held_s * SECOND, expected);
        }
    }
}

#[test]
fn the_last_receives_are_kept_to_give_the_message_its_reason() {
    for cause in ALL {
        let reason = match cause {
            Capacity | Account | Paused | SpendCap => "capacity_timeout",
            CallFailed => "attempts_exhausted",
            _ => "internal",
        };
        for (receive_count, last) in
            [(1, false), (50, false), (96, false), (97, true), (100, true), (101, true)]
        {
            let decided = decide(cause, 0, 0.5, |d| d.receive_count = receive_count);
            if last {
                assert_eq!(
                    show_hand_back(&decided),
                    format!("give up {reason}"),
                    "{cause:?} {receive_count}"
                );
            } else {
                assert!(matches!(decided, HandBack::Return { .. }), "{cause:?} {receive_count}: {decided:?}");
            }
        }
    }
}

#[test]
fn a_message_that_would_outlive_its_retention_gets_its_reason() {
    // The delay of 30 s and two visibility timeouts of 1,800 s must still fit.
    let kept_s = 30 + 2 * 1_800;
    for (left_s, expected) in [
        (kept_s + 1, "return in 30 s"),
        (kept_s, "give up capacity_timeout"),
        (0, "give up capacity_timeout"),
    ] {
        let sent_at_ms = NOW - 7 * DAY + left_s * SECOND;
        check(Capacity, 0, 1.0, |d| d.sent_at_ms = sent_at_ms, expected);
    }
    // Already overdue, or sent in the future by a clock ahead of ours.
    check(Ledger, 0, 1.0, |d| d.sent_at_ms = NOW - 8 * DAY, "give up internal");
    check(Ledger, 0, 1.0, |d| d.sent_at_ms = NOW + DAY, "return in 30 s");
    // A wait that the retention cannot hold is the last chance too.
    check(Account, 11 * HOUR, 1.0, |d| d.sent_at_ms = NOW - 7 * DAY + 11 * HOUR, "give up capacity_timeout");
}

#[test]
fn while_no_job_is_at_fault_the_receives_that_are_left_last_for_the_time_that_is_left() {
    let half_gone = |d: &mut Delivery| {
        d.receive_count = 51;
        d.sent_at_ms = NOW - 2 * DAY;
    };
    let stretched_s = 5 * DAY / SECOND / 49;
    for cause in [Account, Paused, SpendCap] {
        check(cause, 0, 1.0, half_gone, &format!("return in {} s", stretched_s + 1));
        check(
            cause,
            0,
            1.0,
            |d| {
                half_gone(d);
                d.receive_count = 50;
            },
            "return in 900 s",
        );
    }
    for cause in [Capacity, CallFailed, Ledger, Panic] {
        check(cause, 0, 1.0, half_gone, "return in 900 s");
    }
}

#[test]
fn an_outage_of_the_account_is_survived_until_the_retention_ends() {
    // One delivery after the other, each received the moment it is visible, with the longest and the shortest delays.
    for fraction in [0.0, 1.0] {
        let limits = Limits::default();
        let sent_at_ms = NOW;
        let mut now_ms = NOW;
        let mut receive_count = 0;
        let given_up_at_ms = loop {
            receive_count += 1;
            assert!(receive_count < limits.receive_count_max, "SQS moved it away without a reason");
            let delivery =
                Delivery { sent_at_ms, receive_count, received_at_ms: now_ms, ..crate::support::delivery() };
            match hand_back(Account, 0, &delivery, now_ms, fraction, &limits) {
                HandBack::Return { delay_s } => now_ms += u64::from(delay_s) * SECOND,
                HandBack::GiveUp(_) => break now_ms,
            }
            assert!(now_ms < sent_at_ms + limits.retention_ms, "SQS deleted it without a word");
        };
        assert!(given_up_at_ms - sent_at_ms > 6 * DAY, "{} hours", (given_up_at_ms - sent_at_ms) / HOUR);
    }
}
