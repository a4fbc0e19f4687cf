use serde_json::{Value, json};

use crate::support::{CALLER, DENIED, Stand, UNANSWERED};
use crate::terminal::on_a_terminal;

pub fn report(matching: u64) -> Value {
    json!({"report": {
        "source": "dead-letters", "matching": matching, "queue": {"visible": matching, "hidden": 0}, "sending_s": 4,
        "counts": [{"reason": "refused", "task": "categorize_ticket", "messages": matching}],
        "cost_usd_max": 1.5, "cost_usd_probable": 0.0025,
        "warnings": ["Nothing that could help has changed since 20 of them failed."],
    }})
}

fn redrive(sent: u64, end: Option<(&str, &str)>) -> Value {
    let mut redrive = json!({
        "id": "r-1", "version": 1, "began_ms": 1_795_500_000_000_u64, "matching": 20,
        "request": {"source": "dead-letters", "reasons": ["refused"], "reason": "INC-42", "caller": CALLER},
        "progress": {"sent": sent},
        "history": [{"at_ms": 1_795_500_000_000_u64, "what": "It began."}],
    });
    if let Some((how, detail)) = end {
        redrive["end"] = json!({"at_ms": 1_795_500_060_000_u64, "how": how, "detail": detail});
    }
    redrive
}

/// What the function was asked.
fn asked(stand: &Stand) -> Vec<Value> {
    let asked = stand.asked().into_iter().filter(|(action, _)| action == "lambda:InvokeFunction");
    asked.map(|(_, body)| body).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_dry_run_counts_and_warns_and_begins_nothing() {
    let stand = Stand::start().await;
    stand.answer([report(20)]);
    let ran = stand.run(&["redrive", "--failure", "refused", "--dry-run", "--reason", "INC-42"]).ok();
    assert_eq!(ran.out, "REASON\tTASK\tMESSAGES\nrefused\tcategorize_ticket\t20\n");
    assert!(
        ran.err.contains("Would do: Puts 20 messages of dead-letters back")
            && ran.err.contains("It costs probably 0.0025 USD, at most 1.50 USD: "),
        "{ran:?}"
    );
    assert!(ran.err.contains("Nothing that could help has changed"), "{ran:?}");
    let asked = asked(&stand);
    assert_eq!(asked.len(), 1);
    assert_eq!([&asked[0]["start"]["dry_run"], &asked[0]["start"]["caller"]], [&json!(true), &json!(CALLER)]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_redrive_is_asked_for_begun_and_driven_to_its_end() {
    let stand = Stand::start().await;
    let args = ["redrive", "--failure", "refused", "--canary", "5%", "--limit", "20", "--reason", "INC-42"];
    stand.answer([report(20)]);
    let unasked = stand.run(&args);
    assert!(unasked.code == 2 && unasked.err.contains("add --yes"), "{unasked:?}");
    assert_eq!(asked(&stand).len(), 1, "only the dry run");

    stand.answer([
        report(20),
        json!({"redrive": redrive(0, None)}),
        json!({"stepped": {"again": {"at_ms": 0, "redrive": redrive(10, None)}}}),
        json!({"stepped": {"busy": {"until_ms": 0}}}),
        json!({"stepped": {"over": redrive(20, Some(("finished", "All that matched was sent.")))}}),
    ]);
    let ran = stand.run(&[&args[..], &["--yes"]].concat()).ok();
    assert!(ran.err.contains("10 of 20 sent") && ran.err.contains("All that matched was sent."), "{ran:?}");
    assert!(ran.out.contains("STATE\tfinished\n") && ran.out.contains("SENT\t20\n"), "{ran:?}");
    let asked = asked(&stand);
    let start = &asked[2]["start"];
    assert_eq!(
        [&start["canary"]["percent"], &start["limit"], &start["reasons"][0]],
        [&json!(5), &json!(20), &json!("refused")]
    );
    assert_eq!(asked[3], json!({"step": {"id": "r-1"}}));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_step_that_is_not_answered_is_asked_for_again_and_ends_no_watching() {
    let stand = Stand::start().await;
    stand.answer([
        json!(UNANSWERED),
        json!({"stepped": {"over": redrive(20, Some(("finished", "All that matched was sent.")))}}),
    ]);
    let ran = stand.run(&["redrive", "watch", "r-1"]).ok();
    assert!(ran.err.contains("ServiceException") && ran.err.contains("asked again in 2 s"), "{ran:?}");
    assert!(ran.err.contains("All that matched was sent."), "{ran:?}");
}

/// A step that fails for good leaves its lock, and the next ones are busy until that ends.
#[tokio::test(flavor = "multi_thread")]
async fn steps_that_fail_again_and_again_end_the_watching_though_others_between_them_are_busy() {
    let stand = Stand::start().await;
    let busy = json!({"stepped": {"busy": {"until_ms": 0}}});
    let failed_and_busy = std::iter::repeat_n([json!(UNANSWERED), busy], 6).flatten();
    stand.answer(failed_and_busy);
    let ran = stand.run(&["redrive", "watch", "r-1"]);
    assert_eq!(ran.code, 1, "{ran:?}");
    assert!(ran.err.contains("r-1 goes on by itself") && ran.err.contains("ServiceException"), "{ran:?}");
}

/// Between two failures it does what needs no permission, and looks as if it went on.
#[tokio::test(flavor = "multi_thread")]
async fn a_refusal_that_stays_ends_the_watching_at_once() {
    let stand = Stand::start().await;
    let again = json!({"stepped": {"again": {"at_ms": 0, "redrive": redrive(0, None)}}});
    stand.answer([again, json!(DENIED), json!("asked too often")]);
    let ran = stand.run(&["redrive", "watch", "r-1"]);
    assert_eq!(ran.code, 4, "{ran:?}");
    let sentence = ran.err.lines().last().unwrap();
    for says in
        ["The function nightshift-redrive itself may not do this", "AccessDenied", "redrive r-1 goes on"]
    {
        assert!(sentence.contains(says), "{says}: {ran:?}");
    }
    assert_eq!(asked(&stand).len(), 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_list_shows_why_a_step_last_failed() {
    let stand = Stand::start().await;
    let mut failing = redrive(3, None);
    failing["last_failure"] =
        json!({"at_ms": 1_795_500_030_000_u64, "what": "SQS did not carry out ReceiveMessage"});
    let entry = json!({"redrives": [{"id": "r-1", "source": "dead-letters", "redrive": failing}]});
    stand.answer([entry.clone(), entry]);
    let list = stand.run(&["redrive", "list"]).ok();
    assert!(
        list.out.contains("LAST FAILURE") && list.out.contains("did not carry out ReceiveMessage"),
        "{list:?}"
    );
    let list = stand.run(&["redrive", "list", "--output", "json"]).ok();
    let shown: Value = serde_json::from_str(&list.out).unwrap();
    assert!(shown["last_failure"].as_str().unwrap().ends_with("did not carry out ReceiveMessage"), "{shown}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_redrive_that_is_over_says_its_end_once() {
    let stand = Stand::start().await;
    let mut over = redrive(20, Some(("finished", "All that matched was sent.")));
    let end = json!({"at_ms": over["end"]["at_ms"], "what": over["end"]["detail"]});
    over["history"].as_array_mut().unwrap().push(end);
    stand.answer([json!({"redrive": over})]);
    let ran = stand.run(&["redrive", "show", "r-1"]).ok();
    assert_eq!(ran.err.matches("All that matched was sent.").count(), 1, "{ran:?}");
    assert!(ran.err.contains("It began."), "{ran:?}");
}

/// What is pasted from a message asks the stack that was asked.
#[tokio::test(flavor = "multi_thread")]
async fn a_command_that_is_named_has_the_prefix_and_the_region_that_were_given() {
    let stand = Stand::start().await;
    let id = "r-1";
    stand.refuse("lambda:InvokeFunction", "ExpiredTokenException");
    let named = |args: &[&str], more: &[(&str, &str)]| {
        let mut command = stand.command(args);
        command.envs(more.iter().copied());
        crate::support::run(&mut command).err
    };
    let prefix = ["--prefix", "nightshift"];
    let region = ["--region", crate::support::REGION];
    let watch = ["redrive", "watch", id];
    let plain = named(&watch, &[]);
    assert!(plain.contains("`nightshift redrive stop r-1` ends it"), "{plain}");
    let environment = named(&watch, &[("NIGHTSHIFT_PREFIX", "nightshift")]);
    assert!(environment.contains("`nightshift redrive stop r-1` ends it"), "{environment}");
    let before = named(&[&prefix[..], &watch].concat(), &[]);
    assert!(before.contains("`nightshift --prefix nightshift redrive watch r-1` shows it"), "{before}");
    let after = named(&[&watch[..], &region, &prefix].concat(), &[]);
    let whole = "`nightshift --prefix nightshift --region eu-central-1 redrive stop r-1` ends it";
    assert!(after.contains(whole), "{after}");
}

#[tokio::test(flavor = "multi_thread")]
async fn who_may_not_watch_any_more_is_told_that_the_redrive_goes_on() {
    let stand = Stand::start().await;
    stand.refuse("lambda:InvokeFunction", "ExpiredTokenException");
    let ran = stand.run(&["redrive", "watch", "r-1"]);
    assert_eq!(ran.code, 4, "{ran:?}");
    for says in ["sign in again", "r-1 goes on by itself", "`nightshift redrive stop r-1` ends it"] {
        assert!(ran.err.contains(says), "{says}: {ran:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_begin_that_is_not_answered_may_have_begun() {
    let stand = Stand::start().await;
    stand.answer([report(20), json!(UNANSWERED)]);
    let ran = stand.run(&["redrive", "--failure", "refused", "--reason", "INC-42", "--yes"]);
    assert_eq!(ran.code, 1, "{ran:?}");
    assert!(
        ran.err.contains("it may have begun all the same, and `nightshift redrive list` says"),
        "{ran:?}"
    );
    assert!(!ran.err.contains("again in"), "{ran:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_end_that_was_not_asked_for_is_told_by_the_exit_code() {
    let stand = Stand::start().await;
    stand.answer([json!({"stepped": {"over": redrive(1, Some(("canary_failed", "0 of 1 succeeded: invalid_output.")))}})]);
    let ran = stand.run(&["redrive", "watch", "r-1"]);
    assert_eq!(ran.code, 3, "{ran:?}");
    assert!(
        ran.out.contains("STATE\tcanary_failed\n") && ran.err.contains("0 of 1 succeeded: invalid_output."),
        "{ran:?}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn what_could_not_be_sent_is_called_so_and_what_was_deleted_is_told() {
    let stand = Stand::start().await;
    let with = |settled: u64, end: Option<(&str, &str)>| {
        let mut with = redrive(15, end);
        with["progress"]["settled"] = json!(settled);
        with["scan"] = json!({"left": {"unreadable": 2, "refused": 1}});
        with
    };
    let ended = with(2, Some(("incomplete", "15 sent; 3 that match are left where they were.")));
    stand.answer([
        json!({"stepped": {"again": {"at_ms": 0, "redrive": with(0, None)}}}),
        json!({"stepped": {"again": {"at_ms": 0, "redrive": with(1, None)}}}),
        json!({"stepped": {"over": &ended}}),
    ]);
    let watched = stand.run(&["redrive", "watch", "r-1"]);
    assert_eq!(watched.code, 3, "{watched:?}");
    assert!(watched.out.contains("COULD NOT SEND\t3\nDELETED AS SETTLED\t2\n"), "{watched:?}");
    let told: Vec<_> = watched.err.lines().collect();
    assert_eq!(
        told,
        [
            "15 of 20 sent",
            "15 of 20 sent; 1 deleted: settled already",
            "nightshift: 15 sent; 3 that match are left where they were. 2 deleted: settled already.",
        ]
    );
    stand.answer([
        json!({"redrive": ended}),
        json!({"redrives": [{"id": "r-1", "source": "crashed", "redrive": ended}]}),
    ]);
    let shown = stand.run(&["redrive", "show", "r-1"]).ok();
    assert!(shown.err.contains("left where they were. 2 deleted: settled already."), "{shown:?}");
    let listed = stand.run(&["redrive", "list", "--all", "--output", "json"]).ok();
    let listed: Value = serde_json::from_str(&listed.out).unwrap();
    assert_eq!([&listed["could_not_send"], &listed["deleted_as_settled"]], [3, 2]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_list_that_is_too_wide_for_the_terminal_breaks_no_word() {
    let stand = Stand::start().await;
    for columns in [80, 220] {
        stand.answer([json!({"redrives": [
            {"id": "r-1", "source": "dead-letters", "redrive": redrive(20, Some(("finished", "20 sent.")))},
            {"id": "r-1", "source": "dead-letters", "redrive": redrive(20, Some(("finished", "20 sent.")))},
        ]})]);
        let mut command = stand.command(&["redrive", "list", "--all"]);
        let (shown, code) = tokio::task::block_in_place(|| on_a_terminal(columns, &mut command));
        assert_eq!(code, 0, "{shown}");
        let (lines, words): (Vec<_>, Vec<_>) = (shown.lines().collect(), shown.split_whitespace().collect());
        assert!(
            ["dead-letters", "finished", "MATCHING", "2026-11-24T06:00:00Z"]
                .iter()
                .all(|word| words.contains(word)),
            "{shown}"
        );
        assert_eq!(lines.len(), if columns == 80 { 9 + 1 + 9 } else { 1 + 2 }, "{shown}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn redrives_are_listed_shown_and_stopped_by_name() {
    let stand = Stand::start().await;
    stand.answer([json!({"redrives": [{"id": "r-1", "source": "dead-letters", "redrive": redrive(3, None)}, {"id": "r-0", "source": "crashed", "redrive": null}]})]);
    let listed = stand.run(&["redrive", "list"]).ok();
    assert!(listed.out.contains("r-1\tdead-letters\tgoes on each minute\t"), "{listed:?}");
    assert!(listed.out.contains("r-0\tcrashed\tunknown: a newer release wrote it\t-"), "{listed:?}");
    stand.answer([json!(UNANSWERED), json!({"redrive": redrive(3, None)})]);
    let shown = stand.run(&["redrive", "show", "r-1"]).ok();
    assert!(shown.err.contains("It began."), "{shown:?}");
    stand.answer([json!({"redrive": redrive(3, Some(("stopped", "Stopped.")))})]);
    let stopped = stand.run(&["redrive", "stop", "r-1", "--reason", "wrong one", "--yes"]).ok();
    assert!(stopped.out.contains("STATE\tstopped\n"), "{stopped:?}");
    assert_eq!(asked(&stand).last().unwrap()["stop"]["reason"], "wrong one");

    stand.answer([json!({"refused": "There is no redrive r-2: nightshift redrive list --all shows them."})]);
    let refused = stand.run(&["redrive", "show", "r-2"]);
    assert!(refused.code == 1 && refused.err.contains("There is no redrive r-2"), "{refused:?}");
    let older = stand.run(&["redrive", "list"]);
    assert!(older.code == 5 && older.err.contains("There is no function nightshift-redrive"), "{older:?}");
}
