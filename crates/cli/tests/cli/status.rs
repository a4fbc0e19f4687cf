use serde_json::Value;

use crate::support::Stand;

#[tokio::test(flavor = "multi_thread")]
async fn what_can_be_read_is_shown_and_what_cannot_is_said_to_be_unknown() {
    let stand = Stand::start().await;
    stand.run(&["pause", "--reason", "INC-42", "--yes"]).ok();
    let status = stand.run(&["status", "--output", "json"]);
    assert_eq!(status.code, 1, "the stand-in has no GetMetricData: {status:?}");
    let shown: Value = serde_json::from_str(&status.out).unwrap();
    assert_eq!([&shown["jobs_waiting"], &shown["crashed_waiting"]], [0, 0]);
    assert!(shown["pauses"][0]["reason"].as_str().unwrap().starts_with("INC-42"), "{shown}");
    assert_eq!([&shown["event_source"], &shown["worker_version"]], ["Disabled", "7"]);
    assert_eq!([&shown["alarms"], &shown["succeeded_last_hour"]], [&Value::Null; 2]);
    assert!(status.err.contains("cloudwatch:GetMetricData"), "{status:?}");

    assert_eq!(
        [&shown["failed_by_reason"], &shown["reviews_waiting"]],
        [&serde_json::json!({}), &serde_json::json!(0)]
    );

    let table = stand.run(&["status"]);
    assert!(table.out.contains("state\tpaused: ") && table.out.contains("alarms\tunknown"), "{table:?}");
}
