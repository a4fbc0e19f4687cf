use crate::support::{Stand, run_with};

#[tokio::test(flavor = "multi_thread")]
async fn a_key_comes_from_standard_input_and_is_shown_nowhere() {
    const KEY: &str = "sk-ant-very-secret";
    let stand = Stand::start().await;
    let mut command = stand.command(&["key", "set", "--reason", "rotation", "--yes"]);
    let set = run_with(&mut command, format!("{KEY}\n").as_bytes()).ok();
    assert!(set.out.is_empty(), "{set:?}");
    assert!(
        set.err.contains("secret nightshift-model-key of account 000000000000 at http://"),
        "where it goes is said first: {set:?}"
    );
    assert!(set.err.contains("has a new key (version v2)"), "{set:?}");
    let asked = stand.asked();
    let (_, written) = asked.iter().find(|(action, _)| action == "secretsmanager:PutSecretValue").unwrap();
    assert_eq!(written["SecretString"], KEY);
    let trace = &stand.items("trace#")[0];
    assert_eq!([&trace["command"], &trace["outcome"]], ["key set", "v2"]);
    assert!(!format!("{set:?}{trace}").contains(KEY));
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_no_key_is_refused_before_anything_is_written() {
    let stand = Stand::start().await;
    for (given, sentence) in [
        ("", "What was given is empty"),
        ("two words", "has blanks or line breaks within it"),
        ("{\"key\":\"x\"}", "holds JSON without a string api_key"),
        (&"x".repeat(5_000), "more than 4096 bytes"),
    ] {
        let set = run_with(&mut stand.command(&["key", "set", "--reason", "r", "--yes"]), given.as_bytes());
        assert_eq!(set.code, 2, "{set:?}");
        assert!(set.err.contains(sentence), "{set:?}");
    }
    let unasked = run_with(&mut stand.command(&["key", "set", "--reason", "r"]), b"sk-1");
    assert_eq!(unasked.code, 2, "{unasked:?}");
    assert!(!stand.asked().iter().any(|(action, _)| action.starts_with("secretsmanager")));
    assert!(stand.items("trace#").is_empty());

    stand.set("NIGHTSHIFT_PROVIDER", "rehearsal");
    stand.set("NIGHTSHIFT_MODEL", "latency=1");
    let nowhere = run_with(&mut stand.command(&["key", "set", "--reason", "r", "--yes"]), b"sk-1");
    assert_eq!(nowhere.code, 1, "{nowhere:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_check_says_what_it_costs_and_what_the_provider_says() {
    let stand = Stand::start().await;
    stand.set("NIGHTSHIFT_MODEL_BASE_URL", stand.rest_url());
    let unasked = stand.run(&["key", "check"]);
    assert_eq!(unasked.code, 2, "{unasked:?}");
    assert!(unasked.err.contains("Makes one call of claude-haiku-4-5 at http://127.0.0.1"), "{unasked:?}");

    let accepted = stand.run(&["key", "check", "--yes"]).ok();
    assert!(accepted.err.contains("accepts the key"), "{accepted:?}");
    stand.refuse("model:Call", "authentication_error");
    let refused = stand.run(&["key", "check", "--yes"]);
    assert_eq!(refused.code, 3, "{refused:?}");
    assert!(
        refused.err.contains("The provider refuses") && !refused.err.contains("sk-stored"),
        "{refused:?}"
    );

    stand.refuse("secretsmanager:GetSecretValue", "AccessDeniedException");
    let unreadable = stand.run(&["key", "check", "--yes"]);
    assert_eq!(unreadable.code, 4, "{unreadable:?}");
    assert!(unreadable.err.contains("may not secretsmanager:GetSecretValue"), "{unreadable:?}");
}
