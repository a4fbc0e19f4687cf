use super::*;

const LIVE: &str = "arn:aws:lambda:eu-central-1:1:function:s-worker:live";

fn healthy() -> Facts {
    let limits = Limits::default();
    Facts {
        stack: "s".to_owned(),
        built_at_ms: 1_000,
        clock_ahead_ms: Some(-2_000),
        worker: Some(Function {
            live: 7,
            newest: 7,
            deployed_at_ms: 2_000,
            timeout_ms: 300_000,
            says_stack: "s".to_owned(),
            ledger: "s-ledger".to_owned(),
            reserved: None,
        }),
        executions: Some(Executions { all: 1_000, unreserved: 12 }),
        sources: Some(vec![EventSource {
            function: LIVE.to_owned(),
            state: "Enabled".to_owned(),
            batch_size: 10,
            concurrency_max: 10,
            reports_failures: true,
            problem: None,
        }]),
        paused: Some(None),
        queue: Some(Queue {
            visibility_ms: limits.visibility_timeout_ms,
            retention_ms: limits.retention_ms,
            receive_count_max: 100,
            gives_up_to: "s-crashed".to_owned(),
        }),
        limits: Some(Ok(limits)),
        key: Some(Key { place: "secret s-model-key".to_owned(), is_set: true }),
        account_failures: Some(0),
        refusal: None,
        alarms: Some(vec![Alarm {
            name: "s-no-progress".to_owned(),
            raised: false,
            actions_on: true,
            actions: vec!["arn:aws:sns:eu-central-1:1:s-page".to_owned()],
            actions_after: Vec::new(),
        }]),
        page: None,
        topics: Some(vec![Topic {
            arn: "arn:aws:sns:eu-central-1:1:s-page".to_owned(),
            confirmed: 1,
            pending: vec![],
        }]),
    }
}

type Breaks = fn(&mut Facts);

fn source(facts: &mut Facts) -> &mut EventSource {
    &mut facts.sources.as_mut().unwrap()[0]
}

#[test]
fn a_healthy_stack_and_one_that_nobody_looked_at_have_no_findings() {
    assert_eq!(findings(&healthy()), []);
    assert_eq!(findings(&Facts::default()), []);
}

#[test]
fn each_fault_is_named_with_its_remedy() {
    let rows: &[(&str, Breaks, &str, &str)] = &[
        ("clock_skew", |f| f.clock_ahead_ms = Some(-61_000), "61 s behind AWS's", "Set the clock"),
        ("clock_skew", |f| f.clock_ahead_ms = Some(61_000), "61 s ahead of AWS's", "Set the clock"),
        (
            "settings_unreadable",
            |f| f.limits = Some(Err("X is missing.".to_owned())),
            "X is missing",
            "of the release that is deployed",
        ),
        ("older_build", |f| f.built_at_ms = 3_000, "older than this build", "scripts/deploy"),
        (
            "rolled_back",
            |f| f.worker.as_mut().unwrap().newest = 8,
            "Version 7 works, and 8 is the newest",
            "roll-back.md",
        ),
        (
            "timeout_differs",
            |f| f.worker.as_mut().unwrap().timeout_ms = 60_000,
            "after 60 s, and the worker is told 300 s",
            "deploy",
        ),
        (
            "stack_differs",
            |f| f.worker.as_mut().unwrap().says_stack = "t".to_owned(),
            "to the stack \"t\"",
            "NIGHTSHIFT_STACK",
        ),
        (
            "ledger_differs",
            |f| f.worker.as_mut().unwrap().ledger = "t-ledger".to_owned(),
            "to the ledger t-ledger, not to s-ledger",
            "state",
        ),
        (
            "quota_too_low",
            |f| f.executions.as_mut().unwrap().unreserved = 11,
            "10 times at once, and the account lets it run 9",
            "L-B99A9384",
        ),
        (
            "quota_too_low",
            |f| f.worker.as_mut().unwrap().reserved = Some(5),
            "its own reserved concurrency lets it run 5",
            "undoes what was set by hand",
        ),
        ("no_event_source", |f| f.sources = Some(vec![]), "Nothing leads", "Deploy"),
        (
            "two_stacks_on_one_queue",
            |f| {
                f.sources.as_mut().unwrap().push(EventSource {
                    function: LIVE.replace("s-worker", "t-worker"),
                    ..EventSource::default()
                })
            },
            "function:t-worker:live takes jobs from this queue too",
            "a state of its own",
        ),
        (
            "event_source_off",
            |f| source(f).state = "Disabled".to_owned(),
            "nobody wrote why",
            "nightshift resume",
        ),
        ("paused", |f| f.paused = Some(Some("INC-42".to_owned())), "paused: INC-42", "nightshift resume"),
        (
            "no_partial_failures",
            |f| source(f).reports_failures = false,
            "ReportBatchItemFailures",
            "nightshift pause",
        ),
        (
            "event_source_differs",
            |f| source(f).batch_size = 1,
            "batch size of 1, and the worker is told 10",
            "deploy",
        ),
        ("event_source_differs", |f| source(f).concurrency_max = 0, "maximum concurrency of 0", "deploy"),
        (
            "event_source_problem",
            |f| source(f).problem = Some("Access denied".to_owned()),
            "Access denied",
            "role",
        ),
        (
            "queue_differs",
            |f| f.queue.as_mut().unwrap().visibility_ms = 30_000,
            "visibility timeout of 30 s, and the worker is told 1800",
            "deploy",
        ),
        (
            "queue_differs",
            |f| f.queue.as_mut().unwrap().receive_count_max = 3,
            "maxReceiveCount of 3",
            "deploy",
        ),
        (
            "no_crashed_queue",
            |f| f.queue.as_mut().unwrap().gives_up_to.clear(),
            "goes nowhere",
            "redrive policy",
        ),
        (
            "crashed_queue_differs",
            |f| f.queue.as_mut().unwrap().gives_up_to = "t-crashed".to_owned(),
            "goes to t-crashed",
            "prefix",
        ),
        (
            "key_absent",
            |f| f.key.as_mut().unwrap().is_set = false,
            "secret s-model-key has no value",
            "nightshift key set",
        ),
        (
            "account_refused",
            |f| f.account_failures = Some(3),
            "3 times within the last hour",
            "model-account.md",
        ),
        (
            "account_refused",
            |f| f.refusal = Some("401 invalid key".to_owned()),
            "401 invalid key",
            "nightshift key check",
        ),
        ("no_alarms", |f| f.alarms = Some(vec![]), "nobody is told", "Deploy"),
        (
            "alarm_silent",
            |f| f.alarms.as_mut().unwrap()[0].actions_on = false,
            "s-no-progress are off",
            "enable-alarm-actions --alarm-names s-no-progress",
        ),
        ("alarm_without_action", |f| f.alarms.as_mut().unwrap()[0].actions.clear(), "tells nobody", "topic"),
        (
            "alarm_raised",
            |f| f.alarms.as_mut().unwrap()[0].raised = true,
            "s-no-progress is raised",
            "runbook/no-progress.md",
        ),
        (
            "nobody_is_told",
            |f| f.topics.as_mut().unwrap()[0].confirmed = 0,
            "s-page has no confirmed subscriber",
            "page_emails",
        ),
        (
            "page_not_delivered",
            |f| f.page = Some(Page { topic: "s-page".to_owned(), expected: 2, delivered: 1 }),
            "Of 2 subscribers of s-page, SNS counts 1",
            "endpoints",
        ),
        (
            "subscriber_unconfirmed",
            |f| f.topics.as_mut().unwrap()[0].pending = vec!["a@b.c".to_owned()],
            "a@b.c has not confirmed",
            "three days",
        ),
    ];
    for (code, breaks, what, remedy) in rows {
        let mut facts = healthy();
        breaks(&mut facts);
        let found = findings(&facts);
        assert_eq!(found.len(), 1, "{code}: {found:?}");
        assert_eq!(found[0].code, *code);
        assert!(found[0].what.contains(what) && found[0].remedy.contains(remedy), "{found:?}");
    }
}

#[test]
fn a_page_that_reached_everybody_is_no_finding() {
    let page = Page { topic: "s-page".to_owned(), expected: 2, delivered: 2 };
    assert_eq!(findings(&Facts { page: Some(page), ..healthy() }), []);
}

#[test]
fn what_the_worker_is_told_is_compared_with_nothing_where_it_could_not_be_read() {
    let unlike = Facts {
        worker: healthy().worker.map(|worker| Function { timeout_ms: 60_000, ..worker }),
        queue: healthy().queue.map(|queue| Queue { visibility_ms: 30_000, receive_count_max: 3, ..queue }),
        executions: Some(Executions { all: 10, unreserved: 2 }),
        sources: Some(vec![EventSource {
            batch_size: 1,
            concurrency_max: 2,
            ..source(&mut healthy()).clone()
        }]),
        ..healthy()
    };
    assert_eq!(findings(&Facts { limits: None, ..unlike.clone() }), []);
    let unreadable = findings(&Facts { limits: Some(Err("X is missing.".to_owned())), ..unlike });
    assert_eq!(unreadable.iter().map(|finding| finding.code).collect::<Vec<_>>(), ["settings_unreadable"]);
}

#[test]
fn the_worst_comes_first() {
    let mut facts = healthy();
    (facts.built_at_ms, facts.account_failures) = (3_000, Some(1));
    let severities: Vec<_> = findings(&facts).iter().map(|finding| finding.severity.as_str()).collect();
    assert_eq!(severities, ["fault", "warning"]);
}

#[test]
fn a_pause_keeps_its_alarms_quiet_and_is_named_once() {
    let mut facts = healthy();
    facts.paused = Some(Some("INC-42".to_owned()));
    source(&mut facts).state = "Disabled".to_owned();
    facts.alarms.as_mut().unwrap()[0].actions_on = false;
    let codes: Vec<_> = findings(&facts).iter().map(|finding| finding.code).collect();
    assert_eq!(codes, ["paused"]);
}
