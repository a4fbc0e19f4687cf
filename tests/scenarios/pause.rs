//! What a worker tells of its calls, how it keeps to a narrow way, and how it answers a probe.

use std::time::Duration;

use nightshift_core::control::{Cause, Control, Entry, Phase};
use nightshift_core::cost::Price;
use nightshift_core::failure::FailureReason;
use nightshift_core::limits::Limits;
use nightshift_core::metric::{HandBackCause, Outcome};
use nightshift_core::model::FailureClass;
use nightshift_core::sentinel::Calls;
use nightshift_core::spend::UtcDay;
use nightshift_ports::{Clock, LedgerWatch};
use nightshift_tests::memory::{START_MS, Says, again};
use nightshift_worker::Message;
use tokio::time::Instant;

use crate::stage::{Stage, TIMEOUT_MS, failed_with, good, handed_back, invoke, output};

fn tickets(stage: &Stage, count: usize) -> Vec<Message> {
    (0..count).map(|n| stage.message(&format!("m-{n}"), &format!("ticket {n}"))).collect()
}

fn in_phase(phase: Phase) -> Control {
    let entry = Entry::paused(START_MS, "why", "the sentinel").in_phase(phase, START_MS);
    Control::default().with(Cause::Outage, entry)
}

fn outage(stage: &Stage) -> Option<Phase> {
    stage.world.control_record().entries.get(&Cause::Outage).map(|entry| entry.phase)
}

#[tokio::test(start_paused = true)]
async fn a_stack_whose_calls_are_answered_tells_the_sentinel_nothing() {
    let stage = Stage::new(|_, _| good());
    assert_eq!(stage.invoke(tickets(&stage, 10)).await.outcomes, vec![Outcome::Succeeded; 10]);
    assert_eq!(stage.world.told(), Calls::default());
}

#[tokio::test(start_paused = true)]
async fn calls_that_fail_are_told_within_seconds_and_a_reached_limit_is_not() {
    for (class, told) in [(FailureClass::Transient, true), (FailureClass::Account, false)] {
        let stage = Stage::new(move |_, _| Says::Fails(class, None));
        let work = stage.invoke(tickets(&stage, 10));
        // Long before the invocation ends.
        let _ = tokio::time::timeout(Duration::from_secs(15), work).await;
        assert_eq!(stage.world.told().failed > 0, told, "{class:?}: {:?}", stage.world.told());
    }
}

#[tokio::test(start_paused = true)]
async fn a_worker_pauses_the_stack_when_different_jobs_are_refused_for_the_account_after_each_other() {
    for (jobs, paused_by) in [(1, None), (2, None), (3, Some(2)), (10, Some(2))] {
        let stage = Stage::new(|_, _| Says::Fails(FailureClass::Account, None));
        let mut messages = tickets(&stage, jobs);
        for batch in 1..=3 {
            let report = stage.invoke(messages.clone()).await;
            assert_eq!(report.outcomes, vec![handed_back(HandBackCause::Account); jobs]);
            messages = messages.iter().map(again).collect();
            let control = stage.world.control_record();
            let entry = control.entries.get(&Cause::Account);
            let is_paused = paused_by.is_some_and(|paused_by| batch >= paused_by);
            assert_eq!(entry.map(|entry| entry.phase), is_paused.then_some(Phase::Paused), "{jobs} {batch}");
            let task = entry.and_then(|entry| entry.task.as_deref());
            assert_eq!(task, is_paused.then_some("categorize_ticket"), "a probe asks as they did");
            assert_eq!(
                control.version,
                u64::from(is_paused),
                "one entry is one write, however many are refused"
            );
            tokio::time::advance(Duration::from_secs(30)).await;
        }
        // Nobody is called for any more, in this environment and in others.
        let calls = stage.calls();
        assert_eq!(calls, jobs * paused_by.unwrap_or(3), "{jobs}");
        if paused_by.is_some() {
            invoke(&stage.world.worker(Limits::default()), vec![stage.message("m-next", "another ticket")])
                .await;
            assert_eq!(stage.calls(), calls, "{jobs}");
        }
        assert!(stage.world.letters().is_empty());
    }
}

/// The calls of a batch have the key that was held before the first one was refused.
#[tokio::test(start_paused = true)]
async fn a_key_that_is_changed_and_read_again_pauses_nothing() {
    let stage = Stage::new(|nth, _| match nth {
        0..10 => Says::Fails(FailureClass::Account, None),
        _ => good(),
    });
    let messages = tickets(&stage, 10);
    stage.invoke(messages.clone()).await;
    tokio::time::advance(Duration::from_secs(30)).await;
    let report = stage.invoke(messages.iter().map(again).collect()).await;
    assert_eq!(report.outcomes, vec![Outcome::Succeeded; 10]);
    assert_eq!(stage.world.control_record(), Control::default());
}

#[tokio::test(start_paused = true)]
async fn one_job_that_is_refused_again_and_again_and_jobs_beside_others_that_are_answered_pause_nothing() {
    let alone = Stage::new(|_, _| Says::Fails(FailureClass::Account, None));
    for _ in 0..5 {
        alone.invoke(vec![alone.message("m-1", "ticket 1")]).await;
    }
    assert_eq!(alone.world.control_record(), Control::default());
    let every_second = Stage::new(|nth, _| match nth % 2 {
        0 => good(),
        _ => Says::Fails(FailureClass::Account, None),
    });
    for message in tickets(&every_second, 20) {
        every_second.invoke(vec![message]).await;
    }
    assert_eq!((every_second.calls(), every_second.world.control_record()), (20, Control::default()));
}

#[tokio::test(start_paused = true)]
async fn an_account_that_is_refused_on_the_narrow_way_is_a_relapse() {
    let stage = Stage::new(|_, _| Says::Fails(FailureClass::Account, None));
    let narrow =
        Entry::paused(START_MS, "why", "a worker").in_phase(Phase::Reopening { width: 30 }, START_MS);
    stage.world.set_control(&Control::default().with(Cause::Account, narrow));
    for _ in 0..2 {
        tokio::time::advance(Duration::from_secs(60)).await;
        stage.invoke(tickets(&stage, 10)).await;
    }
    let entry = stage.world.control_record().entries[&Cause::Account].clone();
    assert_eq!((entry.phase, entry.relapses, entry.since_ms), (Phase::Paused, 1, START_MS));
}

#[tokio::test(start_paused = true)]
async fn an_invocation_whose_call_was_refused_says_that_it_lived_and_one_that_was_killed_says_nothing() {
    for (says, lives) in [(Says::Fails(FailureClass::Capacity, None), true), (Says::Hangs, false)] {
        let label = format!("{says:?}");
        let stage = Stage::new(move |_, _| says.clone());
        let invoked = stage.invoke(vec![stage.message("m-1", "ticket 1")]);
        let _ = tokio::time::timeout(Duration::from_secs(30), invoked).await;
        let spent = stage.world.spent(UtcDay::of(START_MS)).await.unwrap();
        assert_eq!((spent.called_at_ms.is_some(), spent.answered_at_ms), (lives, None), "{label}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_model_without_a_price_is_heard_as_one_with_a_price() {
    for (says, answers) in [(good(), true), (Says::Fails(FailureClass::Capacity, None), false)] {
        let label = format!("{says:?}");
        let stage = Stage::new(move |_, _| says.clone());
        stage.world.set_price(Price::flat(0, 0));
        let worker = stage.world.worker(Limits::default());
        invoke(&worker, vec![stage.message("m-1", "ticket 1")]).await;
        let spent = stage.world.spent(UtcDay::of(START_MS)).await.unwrap();
        let heard = (spent.called_at_ms.is_some(), spent.answered_at_ms.is_some());
        assert_eq!(heard, (true, answers), "{label}");
        assert_eq!(spent.committed_micro_usd, 0, "{label}");
    }
}

/// Neither money nor its turn in a long queue is what the provider lacks.
#[tokio::test(start_paused = true)]
async fn a_job_that_nobody_worked_on_did_not_wait_for_capacity() {
    let stage = Stage::new(|_, _| Says::Fails(FailureClass::Capacity, None));
    let job = stage.message("m-1", "ticket 1");
    assert_eq!(stage.invoke(vec![job.clone()]).await.outcomes, [handed_back(HandBackCause::Capacity)]);
    tokio::time::advance(Duration::from_secs(16 * 3_600)).await;
    assert_eq!(stage.invoke(vec![again(&job)]).await.outcomes, [handed_back(HandBackCause::Capacity)]);
    stage.world.on_call(|_, _| good());
    assert_eq!(stage.invoke(vec![again(&again(&job))]).await.outcomes, [Outcome::Succeeded]);
}

/// Something was told a moment ago, so that what comes now would wait; but nothing else is open that would tell it later. Three
/// are told so within ten seconds, and whatever comes then is told with what comes after them.
#[tokio::test(start_paused = true)]
async fn the_failure_of_the_last_open_call_is_told_at_once() {
    let stage = Stage::new(|_, _| Says::Fails(FailureClass::Transient, None));
    let worker = stage.world.worker(Limits { call_limit: 1, ..Limits::default() });
    for (n, later_s, told) in [(1, 0, 1), (2, 1, 2), (3, 1, 3), (4, 1, 3), (5, 10, 5)] {
        tokio::time::advance(Duration::from_secs(later_s)).await;
        invoke(&worker, vec![stage.message(&format!("m-{n}"), &format!("ticket {n}"))]).await;
        assert_eq!((stage.calls(), stage.world.told().failed), (n, told));
    }
}

#[tokio::test(start_paused = true)]
async fn the_cheapest_call_that_the_cap_refused_is_told() {
    // An invocation that was killed in mid-call leaves what it reserved.
    let stage = Stage::new(|_, _| Says::Hangs);
    let killed = stage.invoke(vec![stage.message("m-1", "ticket 1")]);
    let _ = tokio::time::timeout(Duration::from_secs(1), killed).await;
    let one_call = stage.world.committed_micro_usd();
    let limits = Limits { spend_cap_micro_usd: one_call * 3 / 2, ..Limits::default() };
    let dearer = stage.message("m-3", "ticket 3, of more words");
    let report = invoke(&stage.world.worker(limits), vec![dearer, stage.message("m-2", "ticket 2")]).await;
    assert_eq!(report.outcomes, [handed_back(HandBackCause::SpendCap); 2]);
    assert_eq!(stage.world.told().refused_micro_usd, Some(one_call));
}

#[tokio::test(start_paused = true)]
async fn on_a_narrow_way_an_environment_has_no_more_calls_open_than_its_share() {
    let takes = Duration::from_secs(2);
    for (width, at_once) in [(10, 1), (20, 2), (50, 5)] {
        let stage = Stage::new(move |_, _| Says::After(takes, Box::new(good())));
        stage.world.set_control(&in_phase(Phase::Reopening { width }));
        let began = Instant::now();
        let report = stage.invoke(tickets(&stage, 10)).await;
        assert_eq!(report.outcomes, vec![Outcome::Succeeded; 10], "{width}");
        // Ten environments at most: each has a tenth.
        let rounds = 10_u32.div_ceil(at_once);
        assert!(began.elapsed() >= takes * rounds, "{width}: {:?}", began.elapsed());
        assert!(began.elapsed() < takes * (rounds + 1), "{width}: {:?}", began.elapsed());
    }
}

#[tokio::test(start_paused = true)]
async fn jobs_that_wait_on_a_narrow_way_go_on_as_soon_as_it_is_open() {
    let stage = Stage::new(|_, _| good());
    // No environment's share but by chance, and this one draws none.
    stage.world.set_control(&in_phase(Phase::Reopening { width: 1 }));
    let opens = async {
        tokio::time::sleep(Duration::from_secs(30)).await;
        assert_eq!(stage.calls(), 0);
        stage.world.set_control(&in_phase(Phase::Open));
    };
    let (report, ()) = tokio::join!(stage.invoke(tickets(&stage, 10)), opens);
    assert_eq!(report.outcomes, vec![Outcome::Succeeded; 10]);
}

#[tokio::test(start_paused = true)]
async fn jobs_that_are_received_in_a_pause_wait_a_little_and_go_on_where_it_ends() {
    for (opens_after, expected) in [
        (Some(Duration::from_secs(10)), Outcome::Succeeded),
        (Some(Duration::from_secs(60)), handed_back(HandBackCause::Outage)),
        (None, handed_back(HandBackCause::Outage)),
    ] {
        let stage = Stage::new(|_, _| good());
        stage.world.set_control(&in_phase(Phase::Paused));
        let opens = async {
            if let Some(after) = opens_after {
                tokio::time::sleep(after).await;
                stage.world.set_control(&in_phase(Phase::Open));
            }
        };
        let began = Instant::now();
        let invoked = async { (stage.invoke(tickets(&stage, 10)).await, began.elapsed()) };
        let ((report, took), ()) = tokio::join!(invoked, opens);
        assert_eq!(report.outcomes, vec![expected; 10], "{opens_after:?}");
        // Handed back at once, all that waits would be received again and again until nothing leads to the worker.
        assert!(took >= Duration::from_secs(20), "{opens_after:?}: {took:?}");
    }
    // What workers see of a longer pause, they see because SQS would delete it: nothing keeps them from the next.
    let stage = Stage::new(|_, _| good());
    stage.world.set_control(&in_phase(Phase::Paused));
    tokio::time::advance(Duration::from_secs(600)).await;
    let began = Instant::now();
    stage.invoke(tickets(&stage, 10)).await;
    assert!(began.elapsed() < Duration::from_secs(1), "{:?}", began.elapsed());
    // An invocation with little time hands back in time.
    let stage = Stage::new(|_, _| good());
    stage.world.set_control(&in_phase(Phase::Paused));
    let report = stage.worker.process_batch("request", 15_000, tickets(&stage, 10)).await;
    assert_eq!(report.outcomes, vec![handed_back(HandBackCause::Outage); 10]);
}

#[tokio::test(start_paused = true)]
async fn a_relapse_lets_no_job_through_that_waited_on_the_narrow_way() {
    let stage = Stage::new(|_, _| good());
    stage.world.set_control(&in_phase(Phase::Reopening { width: 1 }));
    let shuts = async {
        tokio::time::sleep(Duration::from_secs(30)).await;
        stage.world.set_control(&in_phase(Phase::Paused));
    };
    let began = Instant::now();
    let invoked = async { (stage.invoke(tickets(&stage, 10)).await, began.elapsed()) };
    let ((report, took), ()) = tokio::join!(invoked, shuts);
    // For what holds them back, which may take days, and not for want of time.
    assert_eq!(report.outcomes, vec![handed_back(HandBackCause::Outage); 10]);
    assert!(took <= Duration::from_secs(60), "whoever waits for a turn waits in vain: {took:?}");
    assert_eq!(stage.calls(), 0);
    assert!(stage.world.letters().is_empty());
}

#[tokio::test(start_paused = true)]
async fn what_has_no_turn_on_the_narrow_way_is_handed_back_for_what_narrows_it() {
    let stage = Stage::new(|_, _| good());
    stage.world.set_control(&in_phase(Phase::Reopening { width: 1 }));
    let report = stage.invoke(tickets(&stage, 10)).await;
    assert_eq!(report.outcomes, vec![handed_back(HandBackCause::Outage); 10]);
}

#[tokio::test(start_paused = true)]
async fn a_probe_is_one_paid_call_whose_end_stands_in_the_control_record() {
    let fails = |class| Says::Fails(class, None);
    for (says, expected) in [
        (good(), Phase::Reopening { width: 1 }),
        // It is an answer, whatever it says.
        (Says::Text("no JSON".to_owned()), Phase::Reopening { width: 1 }),
        (fails(FailureClass::Transient), Phase::Paused),
        (fails(FailureClass::Account), Phase::Paused),
        (Says::Hangs, Phase::Paused),
    ] {
        let label = format!("{says:?}");
        let stage = Stage::new(move |_, _| says.clone());
        stage.world.set_control(&in_phase(Phase::Probing));
        // Lambda may deliver an event twice.
        for _ in 0..2 {
            stage.worker.probe("request", TIMEOUT_MS, Cause::Outage).await;
        }
        assert_eq!((stage.calls(), outage(&stage)), (1, Some(expected)), "{label}");
        let request = stage.world.calls().remove(0);
        assert_eq!(request.schema_name, "categorize_ticket", "{label}: the first task where none is named");
        assert!(!request.system.is_empty(), "Bedrock takes no empty one");
        let may_be_billed = !label.contains("Account");
        assert_eq!(stage.world.committed_micro_usd() > 0, may_be_billed, "{label}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_probe_asks_as_the_job_did_that_met_the_cause() {
    let stage = Stage::new(|_, _| Says::Text(output().to_string()));
    let mut entry = in_phase(Phase::Probing).entries[&Cause::Outage].clone();
    entry.task = Some("weekly_report".to_owned());
    stage.world.set_control(&Control::default().with(Cause::Outage, entry));
    stage.worker.probe("request", TIMEOUT_MS, Cause::Outage).await;
    assert_eq!(stage.world.calls().remove(0).schema_name, "weekly_report");
}

#[tokio::test(start_paused = true)]
async fn a_probe_changes_nothing_that_an_operator_has_ended_or_paused_meanwhile() {
    let takes = Duration::from_secs(2);
    for resumes in [true, false] {
        let stage = Stage::new(move |_, _| Says::After(takes, Box::new(good())));
        stage.world.set_control(&in_phase(Phase::Probing));
        let operates = async {
            tokio::time::sleep(takes / 2).await;
            let standing = stage.world.control_record();
            let pause = Entry::paused(START_MS, "INC-42", "somebody");
            let next =
                if resumes { standing.resumed(START_MS) } else { standing.with(Cause::Operator, pause) };
            stage.world.set_control(&next);
        };
        tokio::join!(stage.worker.probe("request", TIMEOUT_MS, Cause::Outage), operates);
        let control = stage.world.control_record();
        assert_eq!(control.is_open(), resumes, "{control:?}");
        assert_eq!(control.entries.contains_key(&Cause::Operator), !resumes);
    }
}

#[tokio::test(start_paused = true)]
async fn a_probe_that_the_cap_leaves_no_room_for_is_not_made() {
    let stage = Stage::new(|_, _| good());
    stage.world.set_control(&in_phase(Phase::Probing));
    let worker = stage.world.worker(Limits { spend_cap_micro_usd: 1, ..Limits::default() });
    worker.probe("request", TIMEOUT_MS, Cause::Outage).await;
    assert_eq!((stage.calls(), outage(&stage)), (0, Some(Phase::Probing)), "the sentinel asks again");
}

#[tokio::test(start_paused = true)]
async fn no_time_in_a_pause_counts_as_waiting_for_capacity() {
    type End<'a> = &'a dyn Fn(&Stage);
    const HOUR: Duration = Duration::from_secs(3_600);
    let write = |stage: &Stage, cause, phase| {
        let entry = Entry::paused(stage.world.now_ms(), "why", "who").in_phase(phase, stage.world.now_ms());
        stage.world.set_control(&stage.world.control_record().with(cause, entry));
    };
    // How each pause ends, and how the way is when the job is called for again.
    let resumes = |stage: &Stage| {
        let next = stage.world.control_record().resumed(stage.world.now_ms());
        stage.world.set_control(&next);
    };
    let narrows = |stage: &Stage| write(stage, Cause::Outage, Phase::Reopening { width: 10 });
    let opens = |stage: &Stage| write(stage, Cause::Outage, Phase::Open);
    let ends = |stage: &Stage| {
        let next = stage.world.control_record().with_all(Default::default(), stage.world.now_ms());
        stage.world.set_control(&next);
    };
    let cases: [(&str, Cause, End<'_>); 5] = [
        ("an operator's, resumed", Cause::Operator, &resumes),
        ("an outage, resumed by an operator", Cause::Outage, &resumes),
        ("an outage, on the narrow way", Cause::Outage, &narrows),
        ("an outage, open", Cause::Outage, &opens),
        ("messages in flight, over", Cause::InFlight, &ends),
    ];
    for (label, cause, end) in cases {
        let stage = Stage::new(|_, _| Says::Fails(FailureClass::Capacity, None));
        let mut message = stage.message("m-1", "ticket 1");
        let mut again = async || {
            let ended = stage.invoke(vec![message.clone()]).await.outcomes;
            message.receive_count += 1;
            ended
        };
        assert_eq!(again().await, [handed_back(HandBackCause::Capacity)], "{label}");
        write(&stage, cause, Phase::Paused);
        tokio::time::advance(48 * HOUR).await;
        assert_eq!(again().await, [handed_back(cause.of_hand_back())], "{label}");
        end(&stage);
        // Twelve hours after it, and not before, the wait that begins then ends as any other.
        for _ in 0..23 {
            tokio::time::advance(HOUR / 2).await;
            assert_eq!(again().await, [handed_back(HandBackCause::Capacity)], "{label}");
        }
        assert!(stage.world.letters().is_empty(), "{label}");
        tokio::time::advance(HOUR).await;
        again().await;
        assert_eq!(failed_with(&stage.record("ticket 1")), Some(FailureReason::CapacityTimeout), "{label}");
    }
}
