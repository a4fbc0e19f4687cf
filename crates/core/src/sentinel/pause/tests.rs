use super::*;
use crate::control::Stored;
use crate::sentinel::Switch;

const NOW_MS: u64 = 100 * DAY_MS;

const HOUR_MS: u64 = 60 * MINUTE_MS;
const LEASE_MS: u64 = 310_000;

fn watched(since_ms: u64) -> Watch {
    Watch { function_version: 7, since_ms, seen_at_ms: NOW_MS, lease_ms_max: LEASE_MS }
}

fn healthy() -> Signs {
    Signs {
        now_ms: NOW_MS,
        calls: Some(Calls { answered: 100, ..Calls::default() }),
        answered_at_ms: Some(NOW_MS - 1_000),
        called_at_ms: None,
        reserved_at_ms: Some(NOW_MS - 2_000),
        dead: Some(dead(Vec::new())),
        many_are_dead: Some(false),
        watch: Some(watched(NOW_MS - DAY_MS)),
        waiting: Some(50),
        in_flight: Some(50),
        oldest_job_ms: Some(MINUTE_MS),
        money: Some(Money { room_micro_usd: 990, cap_micro_usd: 1_000, refused_micro_usd: None }),
        function_version: Some(7),
        retention_ms: 7 * DAY_MS,
        full_width: 100,
    }
}

fn in_outage() -> Signs {
    Signs {
        calls: Some(Calls { failed: 200, ..Calls::default() }),
        answered_at_ms: Some(NOW_MS - 2 * MINUTE_MS),
        ..healthy()
    }
}

fn entry(phase: Phase, for_ms: u64) -> Entry {
    Entry::paused(NOW_MS - DAY_MS, "why", "who").in_phase(phase, NOW_MS - for_ms)
}

/// The phase of this cause after one run.
fn phase(signs: &Signs, cause: Cause, standing: Entry) -> Option<Phase> {
    signs.decide(&Control::default().with(cause, standing)).entries.get(&cause).map(|entry| entry.phase)
}

#[test]
fn only_what_nobody_recovers_from_by_itself_pauses() {
    let calls = |answered, failed, ago_ms| Signs {
        calls: Some(Calls { answered, failed, ..Calls::default() }),
        answered_at_ms: Some(NOW_MS - ago_ms),
        ..healthy()
    };
    let failing = |since_ms, until_ms: Option<u64>| {
        let (failing_since_ms, failing_until_ms) = (Some(NOW_MS - since_ms), until_ms.map(|ms| NOW_MS - ms));
        Signs {
            calls: Some(Calls { failed: 200, failing_since_ms, failing_until_ms, ..Calls::default() }),
            ..calls(0, 0, DAY_MS)
        }
    };
    let ahead = |since_ms| {
        let (failing_since_ms, failing_until_ms) = (Some(NOW_MS - since_ms), Some(NOW_MS + 5 * MINUTE_MS));
        Signs {
            calls: Some(Calls { failed: 200, failing_since_ms, failing_until_ms, ..Calls::default() }),
            ..calls(0, 0, DAY_MS)
        }
    };
    let money = |left: u64, refused_micro_usd, ago_ms| Signs {
        money: Some(Money { room_micro_usd: left, cap_micro_usd: 1_000, refused_micro_usd }),
        answered_at_ms: Some(NOW_MS - ago_ms),
        reserved_at_ms: Some(NOW_MS - ago_ms),
        ..healthy()
    };
    for (signs, expected) in [
        (healthy(), None),
        (in_outage(), Some(Cause::Outage)),
        (Signs { answered_at_ms: None, ..in_outage() }, Some(Cause::Outage)),
        // Every second call fails; every tenth works; a few fail; somebody was answered just now.
        (calls(100, 100, 3 * MINUTE_MS), None),
        (calls(20, 180, 3 * MINUTE_MS), None),
        (calls(0, 19, 3 * MINUTE_MS), None),
        (calls(0, 200, 59_000), None),
        // After an idle hour, what is refused in the first seconds is not all that was called for, and a slow provider has
        // answered none of the rest two minutes later.
        (failing(STEP_MS - 1, Some(0)), None),
        (failing(STEP_MS, Some(0)), Some(Cause::Outage)),
        (failing(2 * MINUTE_MS, Some(2 * MINUTE_MS - STEP_MS + 1)), None),
        (failing(2 * MINUTE_MS, Some(2 * MINUTE_MS - STEP_MS)), Some(Cause::Outage)),
        // Who is told to come back in five minutes does not call until then.
        (ahead(STEP_MS - 1), None),
        (ahead(STEP_MS), Some(Cause::Outage)),
        // A release that does not say until when.
        (failing(STEP_MS - 1, None), None),
        (failing(STEP_MS, None), Some(Cause::Outage)),
        // A limit that is merely reached: refusals for it are no failures.
        (calls(0, 0, DAY_MS), None),
        (Signs { calls: None, ..in_outage() }, None),
        (Signs { in_flight: Some(60_001), ..healthy() }, Some(Cause::InFlight)),
        (Signs { in_flight: Some(60_000), ..healthy() }, None),
        (money(5, Some(6), UNHEARD_MS), Some(Cause::SpendCap)),
        // What is reserved may come back; what is left pays a call; nobody was refused.
        (money(5, Some(6), UNHEARD_MS - 1), None),
        (money(6, Some(6), UNHEARD_MS), None),
        // Nobody was answered for a night, and calls that have just begun hold all the money.
        (Signs { reserved_at_ms: Some(NOW_MS - UNHEARD_MS + 1), ..money(5, Some(6), DAY_MS) }, None),
        (Signs { reserved_at_ms: None, ..money(5, Some(6), UNHEARD_MS) }, Some(Cause::SpendCap)),
        (money(0, None, UNHEARD_MS), None),
        // One dear job that is refused at night: those that come next may be cheaper.
        (Signs { waiting: Some(1), in_flight: Some(18), ..money(5, Some(6), UNHEARD_MS) }, None),
        (
            Signs { waiting: Some(1), in_flight: Some(19), ..money(5, Some(6), UNHEARD_MS) },
            Some(Cause::SpendCap),
        ),
        (Signs { in_flight: None, ..money(5, Some(6), UNHEARD_MS) }, None),
        // A stack whose work alone may hold so many.
        (Signs { in_flight: Some(90_000), full_width: 60_000, ..healthy() }, None),
        (Signs { in_flight: Some(90_001), full_width: 60_000, ..healthy() }, Some(Cause::InFlight)),
    ] {
        let decision = signs.decide(&Control::default());
        assert_eq!(decision.entries.keys().next().copied(), expected, "{signs:?}");
        let control = Control::default().with_all(decision.entries, NOW_MS);
        assert_eq!(signs.leads_jobs(&control), expected.is_none(), "{signs:?}");
        assert_eq!(signs.probe(&control), None, "a pause waits before it is probed");
    }
}

#[test]
fn the_way_back_is_a_probe_and_then_a_width_that_doubles_while_jobs_succeed() {
    use Phase::{Open, Paused, Probing, Reopening};
    let quiet = Signs { calls: None, answered_at_ms: None, ..healthy() };
    let idle = Signs { waiting: Some(0), in_flight: Some(0), ..quiet.clone() };
    for (signs, standing, for_ms, expected) in [
        (in_outage(), Paused, STEP_MS - 1, Some(Paused)),
        (in_outage(), Paused, STEP_MS, Some(Probing)),
        // The answer is on its way; its worker was killed.
        (in_outage(), Probing, PROBE_LOST_MS - 1, Some(Probing)),
        (quiet.clone(), Reopening { width: 1 }, STEP_MS, Some(Reopening { width: 1 })),
        (healthy(), Reopening { width: 1 }, STEP_MS, Some(Reopening { width: 2 })),
        (healthy(), Reopening { width: 1 }, STEP_MS - 1, Some(Reopening { width: 1 })),
        (idle, Reopening { width: 8 }, STEP_MS, Some(Reopening { width: 16 })),
        // Jobs that need no call are answered by nobody.
        (quiet, Reopening { width: 8 }, UNHEARD_MS, Some(Reopening { width: 16 })),
        (healthy(), Reopening { width: 64 }, STEP_MS, Some(Open)),
        // What failed before the way was opened says nothing.
        (in_outage(), Reopening { width: 1 }, STEP_MS - 1, Some(Reopening { width: 1 })),
        (in_outage(), Reopening { width: 1 }, STEP_MS, Some(Paused)),
        (in_outage(), Reopening { width: 2 }, STEP_MS - 1, Some(Paused)),
        (in_outage(), Reopening { width: 8 }, STEP_MS, Some(Paused)),
        (in_outage(), Open, MINUTE_MS, Some(Paused)),
        (healthy(), Open, RELAPSE_MS - 1, Some(Open)),
        (healthy(), Open, RELAPSE_MS, None),
    ] {
        let found = phase(&signs, Cause::Outage, entry(standing, for_ms));
        assert_eq!(found, expected, "{standing:?} for {for_ms} ms");
    }
    let lost = Control::default().with(Cause::Account, entry(Probing, PROBE_LOST_MS));
    let again = healthy().next(&lost).unwrap();
    let ask = ProbeAsk { probe: Cause::Account };
    assert_eq!(healthy().probe(&again), Some(ask), "it is asked for again");
    let later = Signs { now_ms: NOW_MS + 1, ..healthy() };
    assert_eq!(later.probe(&again), None, "once");
    // The wait for the next probe began when this one was asked.
    for (works, expected) in [(true, (Reopening { width: 1 }, NOW_MS)), (false, (Paused, NOW_MS - 7))] {
        let probed = entry(Probing, 7).probed(works, NOW_MS);
        assert_eq!((probed.phase, probed.phase_since_ms), expected);
    }
}

#[test]
fn a_probe_works_where_jobs_may_be_answered_again() {
    use FailureClass::{Account, Capacity, Refused, Rejected, Transient, Unclear};
    let failure = |class, status| ModelFailure {
        class,
        status: Some(status),
        error_type: String::new(),
        message: String::new(),
        request_id: None,
        advice: Default::default(),
        headroom: Default::default(),
        oversize: None,
    };
    for (class, status, after_account, after_outage) in [
        (Account, 401, false, false),
        (Transient, 500, false, false),
        (Capacity, 529, false, false),
        (Capacity, 429, true, true),
        // Three jobs in a row were refused in such words: so is the fourth.
        (Unclear, 400, false, true),
        (Rejected, 400, false, true),
        (Refused, 400, true, true),
    ] {
        let failed = failure(class, status);
        assert_eq!(probe_works(Cause::Account, Some(&failed)), after_account, "{class:?}");
        assert_eq!(probe_works(Cause::Outage, Some(&failed)), after_outage, "{class:?}");
    }
    assert!(probe_works(Cause::Account, None) && probe_works(Cause::Outage, None));
}

#[test]
fn a_worker_pauses_for_the_account_where_nothing_says_so_yet() {
    use Phase::{Open, Paused, Probing, Reopening};
    let began_ms = NOW_MS - 1_000;
    for (standing, for_ms, expected) in [
        (None, 0, Some((Paused, 0))),
        (Some(Paused), MINUTE_MS, None),
        (Some(Probing), MINUTE_MS, None),
        // What came of a call that was made before says nothing of the way that was opened since.
        (Some(Reopening { width: 1 }), 1_000, None),
        (Some(Reopening { width: 1 }), 1_001, Some((Paused, 1))),
        (Some(Open), 999, None),
        (Some(Open), MINUTE_MS, Some((Paused, 1))),
    ] {
        let control = standing.map_or_else(Control::default, |phase| {
            Control::default().with(Cause::Account, entry(phase, for_ms))
        });
        let next = control.account_refused("t", began_ms, "401 x", NOW_MS);
        let found = next.as_ref().and_then(|next| next.entries.get(&Cause::Account));
        assert_eq!(found.map(|entry| (entry.phase, entry.relapses)), expected, "{standing:?} {for_ms}");
        if let Some(entry) = found {
            assert_eq!((entry.task.as_deref(), entry.phase_since_ms), (Some("t"), NOW_MS));
            assert!(entry.said().ends_with("for the account: 401 x (by a worker)"), "{}", entry.said());
        }
    }
    let operator = Control::paused_by_operator(1, "r", "w");
    let both = operator.account_refused("t", began_ms, "x", NOW_MS).unwrap();
    assert_eq!(both.entries.get(&Cause::Operator), operator.entries.get(&Cause::Operator));
    assert_eq!(operator.resumed(began_ms).account_refused("t", began_ms, "x", NOW_MS), None);
    let mut newer = Control::default();
    newer.foreign.insert("account".to_owned(), serde_json::json!({ "phase": "dreaming" }));
    assert_eq!(newer.account_refused("t", began_ms, "x", NOW_MS), None);
}

#[test]
fn a_probe_asks_as_the_job_did_and_of_the_account_now_and_then_as_another_one() {
    let deployed = ["a", "b", "c", "d"];
    for (cause, named, fraction, expected) in [
        (Cause::Outage, Some("c"), 0.99, Some("c")),
        (Cause::Outage, None, 0.99, Some("a")),
        (Cause::Outage, Some("gone"), 0.0, Some("a")),
        (Cause::Account, Some("c"), 0.0, Some("c")),
        (Cause::Account, Some("c"), 0.499, Some("c")),
        (Cause::Account, Some("c"), 0.5, Some("a")),
        (Cause::Account, Some("c"), 0.63, Some("b")),
        (Cause::Account, Some("c"), 0.999_999, Some("d")),
        (Cause::Account, Some("c"), 1.0, Some("c")),
    ] {
        assert_eq!(probe_task(cause, named, &deployed, fraction), expected, "{cause:?} {fraction}");
    }
    assert_eq!(probe_task(Cause::Account, Some("c"), &[], 0.7), None);
    assert_eq!(probe_task(Cause::Account, Some("a"), &["a"], 0.7), Some("a"));
}

#[test]
fn each_relapse_doubles_the_wait_up_to_a_quarter_of_an_hour() {
    for (relapses, minutes) in [(0, 1), (1, 2), (2, 4), (3, 8), (4, 15), (5, 15), (u32::MAX, 15)] {
        assert_eq!(probe_wait_ms(relapses), minutes * MINUTE_MS, "{relapses} relapses");
    }
    let open = Control::default().with(Cause::Outage, entry(Phase::Open, MINUTE_MS));
    let relapsed = &in_outage().decide(&open).entries[&Cause::Outage];
    assert_eq!((relapsed.relapses, relapsed.phase), (1, Phase::Paused));
}

#[test]
fn causes_end_by_what_ends_them() {
    let paused =
        |until: &str| Entry { until_other_than: Some(until.to_owned()), ..entry(Phase::Paused, DAY_MS) };
    let today = healthy().pause(Cause::SpendCap, String::new()).until_other_than.unwrap();
    let room = |room_micro_usd| Signs {
        money: Some(Money { room_micro_usd, cap_micro_usd: 1_000, refused_micro_usd: Some(6) }),
        ..healthy()
    };
    let no_room = room(5).pause(Cause::SpendCap, String::new()).until_other_than.unwrap();
    let raised = Money { room_micro_usd: 1_990, cap_micro_usd: 2_000, refused_micro_usd: None };
    let tomorrow = Signs { now_ms: NOW_MS + DAY_MS, ..healthy() };
    for (signs, cause, standing, expected) in [
        (healthy(), Cause::SpendCap, paused(&today), Some(Phase::Paused)),
        (tomorrow.clone(), Cause::SpendCap, paused(&today), Some(Phase::Open)),
        (Signs { money: Some(raised), ..healthy() }, Cause::SpendCap, paused(&today), Some(Phase::Open)),
        // What a long invocation had reserved comes back; a release that did not say what was refused.
        (room(5), Cause::SpendCap, paused(&no_room), Some(Phase::Paused)),
        (room(6), Cause::SpendCap, paused(&no_room), Some(Phase::Open)),
        (
            Signs { waiting: Some(4), in_flight: Some(6), ..room(5) },
            Cause::SpendCap,
            paused(&no_room),
            Some(Phase::Paused),
        ),
        (
            Signs { waiting: Some(4), in_flight: Some(5), ..room(5) },
            Cause::SpendCap,
            paused(&no_room),
            Some(Phase::Open),
        ),
        (Signs { waiting: None, ..room(5) }, Cause::SpendCap, paused(&no_room), Some(Phase::Paused)),
        (room(6), Cause::SpendCap, paused(no_room.trim_end_matches(" 6")), Some(Phase::Paused)),
        (healthy(), Cause::SpendCap, entry(Phase::Open, CAPPED_AGAIN_MS - 1), Some(Phase::Open)),
        (healthy(), Cause::SpendCap, entry(Phase::Open, CAPPED_AGAIN_MS), None),
        (healthy(), Cause::SpendCap, entry(Phase::Open, 24 * HOUR_MS), Some(Phase::Open)),
        (Signs { money: None, ..tomorrow }, Cause::SpendCap, paused(&today), Some(Phase::Paused)),
        (healthy(), Cause::Deaths, paused("7"), Some(Phase::Paused)),
        (healthy(), Cause::Deaths, paused("6"), Some(Phase::Reopening { width: 1 })),
        (Signs { function_version: None, ..healthy() }, Cause::Deaths, paused("6"), Some(Phase::Paused)),
        (Signs { in_flight: Some(30_000), ..healthy() }, Cause::InFlight, paused(""), Some(Phase::Paused)),
        (Signs { in_flight: Some(29_999), ..healthy() }, Cause::InFlight, paused(""), None),
        (Signs { in_flight: None, ..healthy() }, Cause::InFlight, paused(""), Some(Phase::Paused)),
        // Beside so many, 60,000 that are at work would be paused at once.
        (
            Signs { in_flight: Some(30_000), full_width: 60_000, ..healthy() },
            Cause::InFlight,
            paused(""),
            Some(Phase::Paused),
        ),
    ] {
        assert_eq!(phase(&signs, cause, standing), expected, "{cause:?} {signs:?}");
    }
}

#[test]
fn nothing_is_probed_while_nothing_may_be_paid_for() {
    let due = |cause| Control::default().with(cause, entry(Phase::Paused, DAY_MS));
    for (cause, beside, expected) in [
        (Cause::Outage, Cause::Deaths, Phase::Probing),
        (Cause::Outage, Cause::Operator, Phase::Paused),
        (Cause::Account, Cause::SpendCap, Phase::Paused),
        (Cause::Account, Cause::Deaths, Phase::Probing),
    ] {
        let until_other_than = healthy().pause(beside, "").until_other_than;
        let shut = Entry { until_other_than, ..entry(Phase::Paused, DAY_MS) };
        let decided = healthy().decide(&due(cause).with(beside, shut)).entries;
        assert_eq!(decided[&cause].phase, expected, "{cause:?} beside {beside:?}");
    }
    // One that counts as lost is not asked for again.
    let lost = Control::default().with(Cause::Outage, entry(Phase::Probing, DAY_MS));
    let control = lost.with(Cause::Operator, entry(Phase::Paused, MINUTE_MS));
    assert_eq!(healthy().decide(&control).entries[&Cause::Outage], control.entries[&Cause::Outage]);
}

#[test]
fn a_short_retention_is_no_last_chance_from_the_beginning() {
    for (days, paused_ms, leads) in [
        (7, 60 * HOUR_MS - 1, false),
        (7, 60 * HOUR_MS, true),
        (2, 12 * HOUR_MS - 1, false),
        (2, 12 * HOUR_MS, true),
        (1, 6 * HOUR_MS - 1, false),
        (1, 6 * HOUR_MS, true),
    ] {
        let signs = Signs { retention_ms: days * DAY_MS, ..healthy() };
        let control = Control::paused_by_operator(NOW_MS - paused_ms, "INC-42", "somebody");
        assert_eq!(signs.leads_jobs(&control), leads, "{days} days, paused for {paused_ms} ms");
    }
}

#[test]
fn an_operators_pause_is_the_operators_whatever_is_seen() {
    for signs in
        [healthy(), in_outage(), Signs { now_ms: NOW_MS + 8 * DAY_MS, ..healthy() }, Signs::default()]
    {
        let control = Control::paused_by_operator(NOW_MS, "INC-42", "somebody");
        let decision = signs.decide(&control);
        assert_eq!(
            decision.entries.get(&Cause::Operator),
            control.entries.get(&Cause::Operator),
            "{signs:?}"
        );
    }
}

#[test]
fn jobs_reach_the_worker_while_nothing_is_shut_or_the_oldest_one_would_be_deleted_in_a_day() {
    use Phase::{Open, Paused, Probing, Reopening};
    let old = |age_ms| Signs { oldest_job_ms: Some(age_ms), ..healthy() };
    for (signs, phase, expected) in [
        (healthy(), Paused, false),
        (healthy(), Probing, false),
        (healthy(), Reopening { width: 1 }, true),
        (healthy(), Open, true),
        (old(6 * DAY_MS - 1), Paused, false),
        (old(6 * DAY_MS), Paused, true),
        (Signs { oldest_job_ms: None, ..healthy() }, Paused, false),
    ] {
        let standing = Entry { since_ms: NOW_MS - 1, ..entry(phase, 1) };
        let control = Control::default().with(Cause::Account, standing);
        assert_eq!(signs.leads_jobs(&control), expected, "{phase:?}");
    }
    // Whoever paused, and of jobs that nobody has begun: half of the retention, less a day.
    for (age_ms, paused_ms, expected) in [
        (0, 2 * DAY_MS, false),
        (0, 2 * DAY_MS + DAY_MS / 2 - 1, false),
        (0, 2 * DAY_MS + DAY_MS / 2, true),
        (0, 8 * DAY_MS, true),
        (6 * DAY_MS, 0, true),
    ] {
        let operator = Control::paused_by_operator(NOW_MS - paused_ms, "r", "w");
        assert_eq!(old(age_ms).leads_jobs(&operator), expected, "{age_ms} {paused_ms}");
    }
}

#[test]
fn a_last_chance_counts_from_the_cause_that_began_first() {
    let both = Control::paused_by_operator(NOW_MS - 3 * DAY_MS, "r", "w")
        .with(Cause::Outage, entry(Phase::Paused, 0));
    assert!(Signs { oldest_job_ms: None, ..healthy() }.leads_jobs(&both));
}

/// What waited in the first pause may wait still in the second.
#[test]
fn a_last_chance_counts_from_the_pause_before_where_its_backlog_may_be_left() {
    const HOUR_MS: u64 = 60 * MINUTE_MS;
    let first =
        |ended_ms| Control::paused_by_operator(NOW_MS - 5 * DAY_MS, "r", "w").resumed(ended_ms).written();
    let account =
        |control: &Control, at_ms| control.with(Cause::Account, Entry::paused(at_ms, "r", "w")).written();
    let leads = |control: &Control| Signs { oldest_job_ms: None, ..healthy() }.leads_jobs(control);
    for (ago_ms, gap_ms, expected) in [
        (MINUTE_MS, 1, true),
        (MINUTE_MS, 23 * HOUR_MS, true),
        (MINUTE_MS, DAY_MS, false),
        (DAY_MS, 2 * DAY_MS, false),
    ] {
        let second = account(&first(NOW_MS - ago_ms - gap_ms), NOW_MS - ago_ms);
        assert_eq!(leads(&second), expected, "{ago_ms} {gap_ms}");
    }
    // It goes on where a third follows, and where one that stood beside the other ends.
    let second = account(&first(NOW_MS - 3 * HOUR_MS), NOW_MS - 2 * HOUR_MS);
    assert!(leads(&account(&second.resumed(NOW_MS - HOUR_MS).written(), NOW_MS - MINUTE_MS)));
    let beside = account(&Control::paused_by_operator(NOW_MS - 5 * DAY_MS, "r", "w"), NOW_MS - MINUTE_MS);
    let alone = beside.entries.iter().filter(|(cause, _)| **cause == Cause::Account);
    let alone =
        beside.with_all(alone.map(|(cause, entry)| (*cause, entry.clone())).collect(), NOW_MS).written();
    assert!(leads(&alone));
    // Somebody who took it away in the old form took nothing of that.
    let lifted = Control::read(Stored { paused_reason: None, ..beside.stored() });
    assert!(leads(&account(
        &lifted.with_all(BTreeMap::new(), NOW_MS - HOUR_MS).written(),
        NOW_MS - MINUTE_MS
    )));
}

#[test]
fn a_pause_by_hand_of_which_nobody_said_when_began_when_the_sentinel_saw_it() {
    let by_hand = Stored { paused_reason: Some("INC-42".to_owned()), ..Stored::default() };
    let at = |days| Signs { now_ms: NOW_MS + days * DAY_MS, ..healthy() };
    let seen = at(0).next(&Control::read(by_hand)).unwrap().written();
    let entry = &seen.entries[&Cause::Operator];
    assert_eq!(*entry, Entry::paused(NOW_MS, "INC-42", ""));
    for (days, expected) in [(0, false), (2, false), (3, true)] {
        assert_eq!(at(days).next(&seen), None, "after {days} days");
        assert_eq!(at(days).leads_jobs(&seen), expected, "after {days} days");
    }
}

/// What is handed back for the cap before its claim stands in no record: day after day, its age is that of the first.
#[test]
fn a_cap_that_is_reached_day_after_day_lets_workers_see_old_jobs() {
    let mut control = Control::default();
    let mut led = Vec::new();
    for hour in 0..5 * 24 {
        let now_ms = NOW_MS + hour * 60 * MINUTE_MS;
        let spent = Money { room_micro_usd: 1, cap_micro_usd: 1_000, refused_micro_usd: Some(5) };
        // An hour of work after each midnight.
        let money = Some(Money { room_micro_usd: if hour % 24 == 0 { 1_000 } else { 1 }, ..spent });
        let signs = Signs { now_ms, money, oldest_job_ms: None, ..healthy() };
        control = signs.next(&control).unwrap_or(control);
        led.push(signs.leads_jobs(&control));
    }
    assert!(!led[2] && !led[26], "the queue keeps what is young");
    assert!(led[61..].iter().all(|led| *led), "{led:?}");
}

#[test]
fn the_switch_is_turned_where_it_stands_otherwise_and_left_while_it_turns() {
    for (switch, on, expected) in [
        (Switch::On, true, None),
        (Switch::On, false, Some(false)),
        (Switch::Off, true, Some(true)),
        (Switch::Off, false, None),
        (Switch::Turning, true, None),
        (Switch::Turning, false, None),
    ] {
        assert_eq!(switch.turned(on), expected, "{switch:?} {on}");
    }
}

fn dead(ended_ms: Vec<u64>) -> DeadClaims {
    DeadClaims { ended_ms, since_ms: 0, lease_ms_max: LEASE_MS, are_all: true }
}

/// So many claims of three invocations began so long ago, and died; nobody was answered since.
fn dying(claims: u64, began_ago_ms: u64) -> Signs {
    let ended_ms = (0..claims).map(|n| NOW_MS - began_ago_ms + LEASE_MS + n % 3).collect();
    Signs { dead: Some(dead(ended_ms)), answered_at_ms: None, ..healthy() }
}

#[test]
fn a_version_is_paused_for_the_claims_that_it_kills_and_for_no_others() {
    let began_ago_ms = 8 * MINUTE_MS;
    let (before_ms, after_ms) = (NOW_MS - began_ago_ms - 1, NOW_MS - began_ago_ms + 2);
    let opened = |at_ms| Control::paused_by_operator(1, "r", "w").resumed(at_ms);
    let untouched = Control::default();
    let paused = Control::default().with(Cause::Deaths, entry(Phase::Paused, MINUTE_MS)).stored();
    let lifted = Control::read(Stored { paused_reason: None, ..paused });
    let many = || dying(10, began_ago_ms);
    for (label, signs, control, expected) in [
        ("they die, one after the other", many(), &untouched, true),
        ("too few", dying(9, began_ago_ms), &untouched, false),
        ("an answer before", Signs { answered_at_ms: Some(before_ms), ..many() }, &untouched, true),
        ("an answer since", Signs { answered_at_ms: Some(after_ms), ..many() }, &untouched, false),
        (
            "a call that was refused before",
            Signs { called_at_ms: Some(before_ms), ..many() },
            &untouched,
            true,
        ),
        // A night without answers, and DynamoDB was away for seconds: the version lives.
        (
            "a call that was refused since",
            Signs { called_at_ms: Some(after_ms), ..many() },
            &untouched,
            false,
        ),
        (
            "answered before, refused since",
            Signs { answered_at_ms: Some(before_ms), called_at_ms: Some(after_ms), ..many() },
            &untouched,
            false,
        ),
        ("watched since before", Signs { watch: Some(watched(before_ms)), ..many() }, &untouched, true),
        // DynamoDB was away, or another version is live.
        ("watched since later", Signs { watch: Some(watched(after_ms)), ..many() }, &untouched, false),
        ("not watched", Signs { watch: None, ..many() }, &untouched, false),
        ("not read", Signs { dead: None, ..many() }, &untouched, false),
        ("no version to be better than", Signs { function_version: None, ..many() }, &untouched, false),
        ("opened before", many(), &opened(before_ms), true),
        // Nobody was to be answered while it was shut.
        ("opened since", many(), &opened(after_ms), false),
        ("resumed in the old form", many(), &lifted, false),
    ] {
        let entries = signs.decide(control).entries;
        assert_eq!(entries.contains_key(&Cause::Deaths), expected, "{label}");
        let Some(entry) = entries.get(&Cause::Deaths) else { continue };
        assert_eq!((entry.phase, entry.until_other_than.as_deref()), (Phase::Paused, Some("7")), "{label}");
    }
}

/// The claims of the version that killed are seen for a while beside the first job of the one that may not.
#[test]
fn another_version_is_tried_by_one_job_and_not_blamed_for_the_claims_of_the_one_before() {
    let reopening = |width| Phase::Reopening { width };
    let answered = |signs| Signs { answered_at_ms: Some(NOW_MS - 1), ..signs };
    let unheard = || Signs { answered_at_ms: None, ..healthy() };
    let long_ms = 15 * MINUTE_MS;
    let long_lease = || {
        let dead = DeadClaims { lease_ms_max: long_ms, ..dead(Vec::new()) };
        Signs { dead: Some(dead), ..unheard() }
    };
    let missed = || Signs { watch: Some(watched(NOW_MS - 5 * MINUTE_MS)), ..unheard() };
    let hidden = || Signs { waiting: Some(0), ..unheard() };
    for (label, signs, standing, for_ms, expected) in [
        ("of before", dying(100, 8 * MINUTE_MS), reopening(1), 7 * MINUTE_MS, Some(reopening(1))),
        ("its own", dying(10, 7 * MINUTE_MS), reopening(1), 8 * MINUTE_MS, Some(Phase::Paused)),
        ("its own, of all calls", dying(10, 7 * MINUTE_MS), Phase::Open, 8 * MINUTE_MS, Some(Phase::Paused)),
        ("it answers", answered(dying(100, 8 * MINUTE_MS)), reopening(1), STEP_MS, Some(reopening(2))),
        // Its messages are hidden, and nobody is answered.
        ("no call", unheard(), reopening(1), UNHEARD_MS - 1, Some(reopening(1))),
        ("no call for ten minutes", unheard(), reopening(1), UNHEARD_MS, Some(reopening(2))),
        ("one that died", dying(1, 7 * MINUTE_MS), reopening(1), UNHEARD_MS, Some(reopening(1))),
        ("not read", Signs { dead: None, ..unheard() }, reopening(1), UNHEARD_MS, Some(reopening(1))),
        // Runs were missed, and a claim that was made since would not be seen yet.
        ("not looked at", missed(), reopening(1), UNHEARD_MS, Some(reopening(1))),
        ("no message to try it", hidden(), reopening(1), 30 * MINUTE_MS - 1, Some(reopening(1))),
        ("none for as long as one is hidden", hidden(), reopening(1), 30 * MINUTE_MS, Some(reopening(2))),
        ("a long lease", long_lease(), reopening(1), long_ms + 2 * MINUTE_MS - 1, Some(reopening(1))),
        ("a long lease is over", long_lease(), reopening(1), long_ms + 2 * MINUTE_MS, Some(reopening(2))),
        ("over", healthy(), Phase::Open, RELAPSE_MS, None),
    ] {
        assert_eq!(phase(&signs, Cause::Deaths, entry(standing, for_ms)), expected, "{label}");
    }
}

#[test]
fn where_claims_died_what_was_in_flight_comes_back_by_a_narrow_way() {
    let reopening = |width| Phase::Reopening { width };
    let low = |many| Signs { in_flight: Some(29_999), many_are_dead: Some(many), ..healthy() };
    let flooded = Signs { in_flight: Some(60_001), ..low(true) };
    let unheard = Signs { answered_at_ms: None, ..low(true) };
    for (signs, standing, for_ms, expected) in [
        (low(false), Phase::Paused, MINUTE_MS, None),
        (low(true), Phase::Paused, MINUTE_MS, Some(reopening(1))),
        (Signs { in_flight: Some(30_000), ..low(true) }, Phase::Paused, MINUTE_MS, Some(Phase::Paused)),
        (Signs { many_are_dead: None, ..low(true) }, Phase::Paused, MINUTE_MS, Some(Phase::Paused)),
        (low(true), reopening(1), STEP_MS, Some(reopening(2))),
        (unheard, reopening(1), STEP_MS, Some(reopening(1))),
        (flooded, reopening(4), STEP_MS, Some(Phase::Paused)),
        (low(false), reopening(64), STEP_MS, Some(Phase::Open)),
        (low(false), Phase::Open, RELAPSE_MS, None),
    ] {
        let found = phase(&signs, Cause::InFlight, entry(standing, for_ms));
        assert_eq!(found, expected, "{standing:?} {signs:?}");
    }
}

#[test]
fn a_narrow_way_is_left_as_it_is_while_something_else_is_shut_and_while_claims_die() {
    let (shut, narrow) =
        (entry(Phase::Paused, MINUTE_MS), entry(Phase::Reopening { width: 2 }, 60 * MINUTE_MS));
    for cause in [Cause::Account, Cause::Outage, Cause::Deaths] {
        let control = Control::default().with(cause, narrow.clone());
        let beside = control.with(Cause::SpendCap, Entry { until_other_than: None, ..shut.clone() });
        let capped = Signs { money: None, ..healthy() };
        let phase = |signs: &Signs, control: &Control| signs.decide(control).entries[&cause].phase;
        assert_eq!(phase(&capped, &beside), narrow.phase, "{cause:?}");
        assert_eq!(phase(&capped, &control), Phase::Reopening { width: 4 }, "{cause:?}");
        let died = Signs { calls: None, ..dying(5, 30 * MINUTE_MS) };
        let later = control.with(cause, entry(narrow.phase, 31 * MINUTE_MS));
        assert_eq!(phase(&died, &later), Phase::Reopening { width: 4 }, "{cause:?}: of long ago");
        let dying = Signs { calls: None, ..dying(5, 20 * MINUTE_MS) };
        assert_eq!(phase(&dying, &later), narrow.phase, "{cause:?}");
    }
}

#[test]
fn where_nobody_may_call_silence_is_no_outage() {
    let operator = Control::paused_by_operator(NOW_MS - DAY_MS, "INC-42", "somebody");
    let opened = |ago_ms| operator.resumed(NOW_MS - ago_ms);
    for (control, expected) in [
        (Control::default(), true),
        (operator.clone(), false),
        (Control::default().with(Cause::Account, entry(Phase::Probing, MINUTE_MS)), false),
        (opened(2 * MINUTE_MS - 1), false),
        (opened(2 * MINUTE_MS), true),
        // By a clock that is ahead.
        (operator.resumed(NOW_MS + DAY_MS), true),
    ] {
        let begins = in_outage().decide(&control).entries.contains_key(&Cause::Outage);
        assert_eq!(begins, expected, "{control:?}");
    }
    for (beside, expected) in [(None, Phase::Paused), (Some(Cause::Account), Phase::Open)] {
        let open = Control::default().with(Cause::Outage, entry(Phase::Open, MINUTE_MS));
        let control = beside.map_or(open.clone(), |cause| open.with(cause, entry(Phase::Paused, MINUTE_MS)));
        assert_eq!(in_outage().decide(&control).entries[&Cause::Outage].phase, expected, "{beside:?}");
    }
}

#[test]
fn a_cause_in_words_of_a_newer_release_is_neither_begun_nor_changed() {
    let mut control = Control::default();
    control.foreign.insert("outage".to_owned(), serde_json::json!({ "phase": "dreaming" }));
    assert_eq!(in_outage().next(&control), None);
}

/// From any state of the record a healthy stack is open again within the longest wait, a lost probe and the widening.
#[test]
fn nothing_that_a_kill_leaves_behind_stays_locked() {
    for relapses in [0, 3, 100] {
        for begun in [Phase::Paused, Phase::Probing, Phase::Reopening { width: 1 }, Phase::Open] {
            let standing = Entry { relapses, ..entry(begun, 0) };
            let mut control = Control::default().with(Cause::Outage, standing);
            let mut opened = None;
            for minute in 1..60 {
                let now_ms = NOW_MS + minute * MINUTE_MS;
                let signs = Signs { now_ms, answered_at_ms: Some(now_ms), ..healthy() };
                control = signs.next(&control).unwrap_or(control);
                if let (Some(ask), true) = (signs.probe(&control), minute % 2 == 0) {
                    // Every second probe is lost.
                    let probed = control.entries[&ask.probe].probed(true, now_ms);
                    control = control.with(ask.probe, probed);
                }
                if control.is_open() {
                    opened = Some(minute);
                    break;
                }
            }
            assert!(opened.is_some_and(|minute| minute <= 30), "{begun:?}, {relapses}: {opened:?}");
        }
    }
}

/// In seconds, up to which nothing changes.
#[test]
fn the_way_back_takes_as_long_as_operators_are_told() {
    use Phase::{Open, Paused, Probing, Reopening};
    let quiet = Signs { calls: None, answered_at_ms: None, ..healthy() };
    for (label, signs, cause, standing, seconds, expected) in [
        ("a minute to the first probe", in_outage(), Cause::Outage, Paused, 50, Some(Probing)),
        ("three to the next where it was lost", in_outage(), Cause::Outage, Probing, 180, Some(Probing)),
        (
            "a minute to a wider way",
            healthy(),
            Cause::Outage,
            Reopening { width: 1 },
            50,
            Some(Reopening { width: 2 }),
        ),
        (
            "ten where nobody is heard",
            quiet,
            Cause::Outage,
            Reopening { width: 1 },
            600,
            Some(Reopening { width: 2 }),
        ),
        ("ten in which it comes back as a relapse", healthy(), Cause::Outage, Open, 600, None),
        ("a day and an hour for a cap", healthy(), Cause::SpendCap, Open, 25 * 3_600, None),
    ] {
        let after = |for_ms| {
            let before = entry(standing, for_ms);
            let next = signs.decide(&Control::default().with(cause, before.clone())).entries.remove(&cause);
            (next.as_ref() != Some(&before)).then_some(next.map(|next| next.phase))
        };
        assert_eq!(after(seconds * 1_000 - 1), None, "{label}");
        assert_eq!(after(seconds * 1_000), Some(expected), "{label}");
    }
}
