use serde_json::{Value, json};

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

    assert_eq!([&shown["failed_by_reason"], &shown["reviews_waiting"]], [&json!({}), &json!(0)]);

    assert_eq!([&shown["spent_usd_today"], &shown["cap_usd_per_day"]], [&json!(0.0), &json!(50.0)]);
    assert_eq!(shown["redrives_running"], json!([]));

    let table = stand.run(&["status"]);
    assert!(table.out.contains("spent today\t0.0000 of 50.00 USD, 100.0 % left\n"), "{table:?}");
    assert!(table.out.contains("redrives running\tnone\n"), "{table:?}");
    assert!(table.out.contains("state\tpaused: ") && table.out.contains("alarms\tunknown"), "{table:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_hour_without_data_is_an_hour_with_nothing_in_it() {
    let stand = Stand::start().await;
    stand.say("cloudwatch:GetMetricData", json!({"MetricDataResults": []}));
    let table = stand.run(&["status"]);
    assert!(table.out.contains("0") && !table.out.contains("-0"), "{table:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_oldest_job_is_also_one_that_was_received_too_often_for_sqs_to_tell() {
    let stand = Stand::start().await;
    for (sqs, begun, oldest) in [(30.0, 7_200.0, 7_200.0), (30.0, 0.0, 30.0)] {
        let value = |id: &str, newest: f64| json!({"Id": id, "Values": [newest, 90_000.0]});
        stand.say(
            "cloudwatch:GetMetricData",
            json!({"MetricDataResults": [value("oldest", sqs), value("oldest_begun", begun)]}),
        );
        let status = stand.run(&["status", "--output", "json"]);
        let shown: Value = serde_json::from_str(&status.out).unwrap();
        assert_eq!(shown["oldest_job_s"], oldest, "{status:?}");
    }
}
