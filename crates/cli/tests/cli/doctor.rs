//! `doctor` over what AWS says of a stack that is well, and of broken ones.

use serde_json::{Value, json};

use crate::support::{ACCOUNT, LEDGER, REGION, Ran, Stand, run};

const PAGE: &str = "arn:aws:sns:eu-central-1:000000000000:nightshift-page";

fn mapping(change: fn(&mut Value)) -> Value {
    let mut mapping = json!({
        "UUID": "11111111-2222-3333-4444-555555555555",
        "EventSourceArn": format!("arn:aws:sqs:{REGION}:{ACCOUNT}:nightshift-jobs"),
        "FunctionArn": format!("arn:aws:lambda:{REGION}:{ACCOUNT}:function:nightshift-worker:live"),
        "State": "Enabled",
        "BatchSize": 10,
        "ScalingConfig": {"MaximumConcurrency": 10},
        "FunctionResponseTypes": ["ReportBatchItemFailures"],
        "LastProcessingResult": "OK",
    });
    change(&mut mapping);
    json!({"EventSourceMappings": [mapping]})
}

fn alarms(name: &str, actions_on: bool, state: &str) -> Value {
    let alarm = |name: &str, page: &str| {
        json!({
            "AlarmName": name,
            "AlarmDescription": format!("Nothing moves. Runbook: https://git.example/runbook/{page}.md"),
            "ActionsEnabled": actions_on,
            "StateValue": state,
            "AlarmActions": [PAGE],
        })
    };
    // The last one is of a stack called nightshift-test, and none of ours.
    let other = alarm("nightshift-test-no-progress", "no-progress");
    json!({"MetricAlarms": [alarm(name, "no-progress"), other], "CompositeAlarms": []})
}

fn subscribers(arns: &[&str]) -> Value {
    let members: String = arns
        .iter()
        .map(|arn| {
            format!(
                "<member><SubscriptionArn>{arn}</SubscriptionArn><Owner>{ACCOUNT}</Owner><Protocol>email</Protocol>\
                 <Endpoint>ann@example.org</Endpoint><TopicArn>{PAGE}</TopicArn></member>"
            )
        })
        .collect();
    Value::from(format!(
        "<ListSubscriptionsByTopicResponse xmlns=\"http://sns.amazonaws.com/doc/2010-03-31/\"><ListSubscriptionsByTopicResult>\
         <Subscriptions>{members}</Subscriptions></ListSubscriptionsByTopicResult>\
         <ResponseMetadata><RequestId>r</RequestId></ResponseMetadata></ListSubscriptionsByTopicResponse>"
    ))
}

fn queue(visibility_s: &str, gives_up_to: &str) -> Value {
    json!({"Attributes": {
        "VisibilityTimeout": visibility_s,
        "MessageRetentionPeriod": "604800",
        "QueueArn": format!("arn:aws:sqs:{REGION}:{ACCOUNT}:nightshift-jobs"),
        "RedrivePolicy": json!({
            "deadLetterTargetArn": format!("arn:aws:sqs:{REGION}:{ACCOUNT}:{gives_up_to}"),
            "maxReceiveCount": 100,
        }).to_string(),
    }})
}

fn counted(sum: u64) -> Value {
    json!({"MetricDataResults": [{"Id": "sum", "Values": [sum]}]})
}

async fn well() -> Stand {
    let stand = Stand::start().await;
    assert_eq!(LEDGER, "nightshift-ledger");
    stand.say(
        "lambda:GetFunction",
        json!({"Configuration": {"Timeout": 300, "LastModified": "2099-11-26T10:00:00.000+0000"}}),
    );
    stand.say(
        "lambda:ListVersionsByFunction",
        json!({"Versions": [{"Version": "$LATEST"}, {"Version": "7"}]}),
    );
    stand.say(
        "lambda:GetAccountSettings",
        json!({"AccountLimit": {"ConcurrentExecutions": 1000, "UnreservedConcurrentExecutions": 1000}}),
    );
    stand.say("lambda:ListEventSourceMappings", mapping(|_| {}));
    stand.say("secretsmanager:DescribeSecret", json!({"VersionIdsToStages": {"v1": ["AWSCURRENT"]}}));
    stand.say("AmazonSQS:GetQueueAttributes", queue("1800", "nightshift-crashed"));
    stand.say("cloudwatch:GetMetricData", counted(0));
    stand.say("cloudwatch:DescribeAlarms", alarms("nightshift-no-progress", true, "OK"));
    stand.say("cloudwatch:SetAlarmState", Value::Null);
    stand.say("sns:ListSubscriptionsByTopic", subscribers(&["arn:aws:sns:x"]));
    stand
}

fn doctor(stand: &Stand, more: &[&str]) -> Ran {
    let mut command = stand.command(&[&["doctor", "--output", "json"], more].concat());
    run(command.env("AWS_ENDPOINT_URL_SQS", stand.rest_url()))
}

fn codes(ran: &Ran) -> Vec<String> {
    let findings = ran.out.lines().map(|line| serde_json::from_str::<Value>(line).unwrap());
    findings.map(|finding| finding["code"].as_str().unwrap().to_owned()).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stack_that_is_well_has_no_findings_and_nothing_is_changed() {
    let stand = well().await;
    let ran = doctor(&stand, &[]).ok();
    assert!(ran.out.is_empty() && ran.err.contains("Nothing is wrong."), "{ran:#?}");
    assert!(ran.err.contains("Not looked at: whether the provider accepts the key now (--call)"), "{ran:#?}");
    let changes = [":Set", ":Put", ":Update", ":Invoke", "model:Call"];
    let asked = stand.asked();
    assert!(
        !asked.iter().any(|(action, _)| changes.iter().any(|change| action.contains(change))),
        "{asked:?}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stack_that_was_deployed_before_this_build_is_told_wherever_the_build_knows_its_age() {
    let stand = well().await;
    let configuration = json!({"Timeout": 300, "LastModified": "2020-11-26T10:00:00.000+0000"});
    stand.say("lambda:GetFunction", json!({ "Configuration": configuration }));
    let ran = doctor(&stand, &[]);
    let log = std::process::Command::new("git")
        .args(["-C", env!("CARGO_MANIFEST_DIR"), "log", "-1", "--format=%ct"])
        .output()
        .unwrap();
    if log.status.success() {
        assert_eq!(codes(&ran), ["older_build"], "{ran:#?}");
    } else {
        assert!(ran.err.contains("which was made without git's history"), "{ran:#?}");
        assert!(codes(&ran).is_empty(), "{ran:#?}");
    }
}

type Breaks = fn(&Stand);

#[tokio::test(flavor = "multi_thread")]
async fn broken_stacks_name_each_fault_and_its_remedy() {
    let rows: &[(&str, &str, Breaks)] = &[
        ("clock_skew", "Set the clock", |s| s.date("Thu, 26 Nov 2020 10:00:00 GMT")),
        ("rolled_back", "roll-back.md", |s| {
            s.say("lambda:ListVersionsByFunction", json!({"Versions": [{"Version": "9"}]}))
        }),
        ("timeout_differs", "deploy", |s| {
            s.say("lambda:GetFunction", json!({"Configuration": {"Timeout": 3}}))
        }),
        ("stack_differs", "NIGHTSHIFT_STACK", |s| s.set("NIGHTSHIFT_STACK", "other")),
        ("settings_unreadable", "release that is deployed", |s| s.set("NIGHTSHIFT_CALL_LIMIT", "many")),
        ("quota_too_low", "L-B99A9384", |s| {
            s.say(
                "lambda:GetAccountSettings",
                json!({"AccountLimit": {"ConcurrentExecutions": 10, "UnreservedConcurrentExecutions": 10}}),
            );
        }),
        ("no_event_source", "Deploy", |s| {
            s.say("lambda:ListEventSourceMappings", json!({"EventSourceMappings": []}))
        }),
        ("two_stacks_on_one_queue", "", |s| {
            let mut both = mapping(|_| {});
            let mut other = both["EventSourceMappings"][0].clone();
            other["FunctionArn"] =
                format!("arn:aws:lambda:{REGION}:{ACCOUNT}:function:other-worker:live").into();
            both["EventSourceMappings"].as_array_mut().unwrap().push(other);
            s.say("lambda:ListEventSourceMappings", both);
        }),
        ("event_source_differs", "deploy", |s| {
            s.say("lambda:ListEventSourceMappings", mapping(|m| m["BatchSize"] = 3.into()));
        }),
        ("paused", "nightshift resume", |s| {
            s.run(&["pause", "--reason", "INC-42", "--yes"]).ok();
        }),
        ("event_source_off", "nightshift resume", |s| {
            s.say("lambda:ListEventSourceMappings", mapping(|m| m["State"] = "Disabled".into()))
        }),
        ("no_partial_failures", "nightshift pause", |s| {
            s.say("lambda:ListEventSourceMappings", mapping(|m| m["FunctionResponseTypes"] = json!([])));
        }),
        ("event_source_problem", "permissions", |s| {
            s.say(
                "lambda:ListEventSourceMappings",
                mapping(|m| m["LastProcessingResult"] = "PROBLEM: Function call failed".into()),
            );
        }),
        ("queue_differs", "deploy", |s| {
            s.say("AmazonSQS:GetQueueAttributes", queue("30", "nightshift-crashed"))
        }),
        ("crashed_queue_differs", "prefix", |s| {
            s.say("AmazonSQS:GetQueueAttributes", queue("1800", "other-crashed"))
        }),
        ("no_crashed_queue", "Deploy", |s| {
            let mut without = queue("1800", "nightshift-crashed");
            without["Attributes"].as_object_mut().unwrap().remove("RedrivePolicy");
            s.say("AmazonSQS:GetQueueAttributes", without);
        }),
        ("key_absent", "nightshift key set", |s| {
            s.say("secretsmanager:DescribeSecret", json!({"Name": "k"}))
        }),
        ("account_refused", "model-account.md", |s| s.say("cloudwatch:GetMetricData", counted(4))),
        ("alarm_silent", "enable-alarm-actions", |s| {
            s.say("cloudwatch:DescribeAlarms", alarms("nightshift-no-progress", false, "OK"))
        }),
        ("alarm_without_action", "topic", |s| {
            let mut silent = alarms("nightshift-no-progress", true, "OK");
            silent["MetricAlarms"][0]["AlarmActions"] = json!([]);
            s.say("cloudwatch:DescribeAlarms", silent);
        }),
        ("alarm_raised", "runbook/no-progress.md", |s| {
            s.say("cloudwatch:DescribeAlarms", alarms("nightshift-no-progress", true, "ALARM"))
        }),
        ("no_alarms", "Deploy", |s| {
            s.say("cloudwatch:DescribeAlarms", alarms("nightshift-unheard", true, "OK"))
        }),
        ("nobody_is_told", "page_emails", |s| s.say("sns:ListSubscriptionsByTopic", subscribers(&[]))),
        ("subscriber_unconfirmed", "three days", |s| {
            s.say("sns:ListSubscriptionsByTopic", subscribers(&["arn:aws:sns:x", "PendingConfirmation"]));
        }),
        ("not_looked_at", "managed policies", |s| {
            s.refuse("lambda:GetAccountSettings", "AccessDeniedException")
        }),
    ];
    for (code, remedy, breaks) in rows {
        let stand = well().await;
        breaks(&stand);
        let ran = doctor(&stand, &[]);
        assert_eq!((ran.code, codes(&ran)), (3, vec![(*code).to_owned()]), "{ran:#?}");
        assert!(ran.out.contains(remedy), "{ran:#?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_call_on_request_says_what_the_provider_says() {
    let stand = well().await;
    stand.set("NIGHTSHIFT_MODEL_BASE_URL", stand.rest_url());
    assert_eq!(doctor(&stand, &["--call"]).code, 2, "without a terminal and --yes there is no call");
    doctor(&stand, &["--call", "--yes"]).ok();
    stand.refuse("model:Call", "authentication_error");
    let refused = doctor(&stand, &["--call", "--yes"]);
    assert_eq!((refused.code, codes(&refused)), (3, vec!["account_refused".to_owned()]), "{refused:#?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_test_alarm_says_whom_it_tells_and_what_sns_counts() {
    let stand = well().await;
    let unasked = doctor(&stand, &["--page", "--reason", "new pager"]);
    assert_eq!(unasked.code, 2, "{unasked:#?}");
    assert!(unasked.err.contains("Raises the alarm nightshift-no-progress"), "{unasked:#?}");
    assert!(unasked.err.contains("It tells: email ann@example.org."), "{unasked:#?}");
    assert!(!stand.asked().iter().any(|(action, _)| action == "cloudwatch:SetAlarmState"));

    // The account's failures, then deliveries: before the alarm, and after it.
    stand.say("cloudwatch:GetMetricData", json!([counted(0), counted(2), counted(3)]));
    let told = doctor(&stand, &["--page", "--reason", "new pager", "--yes"]).ok();
    assert!(told.err.contains("1 of 1 subscribers of nightshift-page as reached. A mail counts as delivered when it is handed over"), "{told:#?}");
    let trace = &stand.items("trace#")[0];
    assert_eq!(
        [&trace["command"], &trace["reason"], &trace["outcome"]],
        ["doctor --page nightshift-no-progress", "new pager", "delivered to 1 of 1"]
    );
    assert_eq!(doctor(&stand, &["--page"]).code, 2, "a change needs a reason");
}

/// The topic is told of an alarm's end, too: whoever reached one of two subscribers counts it twice by then.
#[tokio::test(flavor = "multi_thread")]
async fn an_alarm_that_is_over_again_was_told_of_twice() {
    let stand = well().await;
    let mut told_of_both = alarms("nightshift-no-progress", true, "OK");
    told_of_both["MetricAlarms"][0]["OKActions"] = json!([PAGE]);
    stand.say("cloudwatch:DescribeAlarms", told_of_both);
    stand.say("sns:ListSubscriptionsByTopic", subscribers(&["arn:aws:sns:x", "arn:aws:sns:y"]));
    // Before the alarm; two deliveries of the one that works; and two of the other one.
    stand.say("cloudwatch:GetMetricData", json!([counted(0), counted(2), counted(4), counted(6)]));
    let told = doctor(&stand, &["--page", "--reason", "new pager", "--yes"]).ok();
    assert!(told.err.contains("2 of 2 subscribers of nightshift-page as reached"), "{told:#?}");
    let looks = stand.asked().iter().filter(|(action, _)| action == "cloudwatch:GetMetricData").count();
    assert_eq!(looks, 4, "two deliveries were not enough");
}
