use aws_sdk_dynamodb::types::AttributeValue;

use crate::support::{CALLER, LEDGER, Stand};

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
    assert!(
        paused.err.contains("may not lambda:UpdateEventSourceMapping")
            && paused.err.contains("it is paused all the same"),
        "{paused:?}"
    );
    assert!(stand.items("control")[0].get("paused_reason").is_some());
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

#[tokio::test(flavor = "multi_thread")]
async fn a_switch_that_lambda_is_turning_is_waited_for() {
    let stand = Stand::start().await;
    stand.refuse("lambda:UpdateEventSourceMapping", "ResourceInUseException");
    let paused = std::thread::scope(|scope| {
        let paused = scope.spawn(|| stand.run(&["pause", "--reason", "INC-42", "--yes"]));
        while !stand.asked().iter().any(|(action, _)| action == "lambda:UpdateEventSourceMapping") {
            std::thread::sleep(std::time::Duration::from_millis(20));
        }
        stand.allow("lambda:UpdateEventSourceMapping");
        paused.join().unwrap()
    });
    let paused = paused.ok();
    assert!(paused.err.contains("Lambda is turning the event source"), "{paused:?}");
    assert!(!stand.is_on());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pause_that_came_behind_the_question_is_not_taken_away() {
    let stand = Stand::start().await;
    stand.run(&["pause", "--reason", "INC-42", "--yes"]).ok();
    // After the question, and before the record is written.
    stand.hang(Some("sts:GetCallerIdentity"));
    let seen = stand.asked().len();
    let resume = |stand: &Stand| stand.run(&["resume", "--reason", "over", "--yes"]);
    let resumed = std::thread::scope(|scope| {
        let resumed = scope.spawn(|| resume(&stand));
        while !stand.asked().iter().skip(seen).any(|(action, _)| action == "sts:GetCallerIdentity") {
            std::thread::sleep(std::time::Duration::from_millis(20));
        }
        tokio::task::block_in_place(|| tokio::runtime::Handle::current().block_on(paused_anew(&stand)));
        stand.hang(None);
        resumed.join().unwrap()
    });
    assert_eq!(resumed.code, 1, "{resumed:?}");
    assert!(resumed.err.contains("paused in the meantime") && resumed.err.contains("INC-43"), "{resumed:?}");
    assert!(!stand.is_on());
    let again = resume(&stand).ok();
    assert!(again.err.contains("INC-43"), "{again:?}");
    assert!(stand.is_on());
}

/// Somebody else's pause, over the one that stands.
async fn paused_anew(stand: &Stand) {
    let control = &stand.items("control")[0];
    let version: u64 = control["version"].as_str().unwrap().parse().unwrap();
    let update = aws_sdk_dynamodb::Client::new(&stand.sdk())
        .update_item()
        .table_name(LEDGER)
        .key("id", AttributeValue::S(control["id"].as_str().unwrap().to_owned()))
        .update_expression("SET entries = :entries, version = :version")
        .expression_attribute_values(
            ":entries",
            AttributeValue::S(control["entries"].as_str().unwrap().replace("INC-42", "INC-43")),
        )
        .expression_attribute_values(":version", AttributeValue::N((version + 1).to_string()));
    update.send().await.unwrap();
}
