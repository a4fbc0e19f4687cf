use crate::support::{CALLER, Stand};

#[tokio::test(flavor = "multi_thread")]
async fn a_pause_is_asked_for_done_and_traced() {
    let stand = Stand::start().await;
    let unasked = stand.run(&["pause", "--reason", "INC-42"]);
    assert_eq!(unasked.code, 2, "{unasked:?}");
    assert!(
        unasked.err.contains("Pauses stack nightshift in eu-central-1") && unasked.err.contains("add --yes"),
        "{unasked:?}"
    );
    assert!(stand.is_on() && stand.items("").is_empty(), "nothing was changed");

    let paused = stand.run(&["pause", "--reason", "INC-42", "--yes"]).ok();
    assert!(paused.out.is_empty(), "{paused:?}");
    assert!(!stand.is_on());
    let quiet = |stand: &Stand| stand.asked().iter().all(|(action, _)| !action.contains("AlarmActions"));
    assert!(
        quiet(&stand),
        "no alarm is switched off: what a pause does not mean to raise does not look at it"
    );
    let control = &stand.items("control")[0];
    assert_eq!(control["paused_reason"], format!("operator: INC-42 (by {CALLER})"));
    let trace = &stand.items("trace#")[0];
    assert_eq!(
        [&trace["caller"], &trace["command"], &trace["reason"], &trace["outcome"]],
        [CALLER, "pause", "INC-42", "paused"]
    );

    let resumed = stand.run(&["resume", "--reason", "over", "--yes"]).ok();
    assert!(
        resumed.err.contains("What holds it back now: operator (paused) since ")
            && resumed.err.contains("INC-42"),
        "{resumed:?}"
    );
    assert!(stand.is_on());
    assert!(quiet(&stand));
    assert!(stand.items("control")[0].get("paused_reason").is_none());
    let again = stand.run(&["resume", "--reason", "over", "--yes"]).ok();
    assert!(again.err.contains("Nothing to do"), "{again:?}");
    assert_eq!(stand.items("trace#").len(), 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_second_pause_says_whose_pause_stands_and_goes_on_with_it() {
    let stand = Stand::start().await;
    stand.run(&["pause", "--reason", "INC-42", "--yes"]).ok();
    let first = stand.items("control")[0]["paused_since_ms"].clone();
    for arguments in [&["pause", "--reason", "still"][..], &["pause", "--reason", "still", "--yes"]] {
        let again = stand.run(arguments);
        assert!(
            again.err.contains("Somebody has paused it already: operator (paused) since ")
                && again.err.contains(&format!("INC-42 (by {CALLER}). The reason is replaced")),
            "{again:?}"
        );
    }
    let control = &stand.items("control")[0];
    assert_eq!(control["paused_reason"], format!("operator: still (by {CALLER})"));
    assert_eq!(control["paused_since_ms"], first);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pause_that_fails_half_way_says_so_and_is_traced() {
    let stand = Stand::start().await;
    stand.refuse("lambda:UpdateEventSourceMapping", "AccessDeniedException");
    let paused = stand.run(&["pause", "--reason", "INC-42", "--yes"]);
    assert_eq!(paused.code, 4, "{paused:?}");
    assert!(paused.err.contains("may not lambda:UpdateEventSourceMapping"), "{paused:?}");
    let outcome = stand.items("trace#")[0]["outcome"].as_str().unwrap().to_owned();
    assert!(outcome.contains("may not lambda:UpdateEventSourceMapping"), "{outcome}");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_cannot_be_traced_is_not_done() {
    let stand = Stand::start().await;
    stand.refuse("DynamoDB_20120810:PutItem", "AccessDeniedException");
    let paused = stand.run(&["pause", "--reason", "INC-42", "--yes"]);
    assert!(paused.code == 4 && paused.err.contains("may not dynamodb:PutItem"), "{paused:?}");
    assert!(stand.is_on() && stand.items("").is_empty());
}
