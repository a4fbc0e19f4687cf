//! Which inputs and outputs each task takes, and what it says about the others.

use nightshift_core::task::Tasks;
use nightshift_tasks::registry;
use serde_json::{Value, json};

/// A valid value with members replaced, added or (by `REMOVED`) taken away, and the sentences it must earn.
type Row = (Value, &'static [&'static str]);

const REMOVED: &str = "(removed)";

fn changed(mut value: Value, change: &Value) -> Value {
    let members = value.as_object_mut().unwrap();
    for (name, new) in change.as_object().unwrap() {
        if new == REMOVED {
            members.remove(name).unwrap();
        } else {
            members.insert(name.clone(), new.clone());
        }
    }
    value
}

#[track_caller]
fn check_inputs(name: &str, rows: Vec<Row>) {
    let (tasks, example) = (registry(), registry().describe(name).unwrap().example_job["input"].clone());
    for (change, expected) in rows {
        let found = tasks.find(name).unwrap().prompt(&changed(example.clone(), &change)).err();
        assert_eq!(
            found.map(|violations| violations.0).unwrap_or_default(),
            expected,
            "{name} {change:.300}"
        );
    }
}

#[track_caller]
fn check_outputs(name: &str, rows: Vec<Row>) {
    let (tasks, example) = (registry(), registry().describe(name).unwrap().example_output);
    for (change, expected) in rows {
        let answer = changed(example.clone(), &change);
        match tasks.find(name).unwrap().accept(answer.clone()) {
            Ok(value) => {
                assert!(expected.is_empty(), "accepted: {name} {change}");
                assert_eq!(value, answer, "stored as it was answered");
            }
            Err(violations) => assert_eq!(violations.0, expected, "{name} {change:.300}"),
        }
    }
}

#[test]
fn what_is_no_object_is_no_input_and_no_output() {
    for name in registry().names() {
        let tasks = registry();
        let task = tasks.find(name).unwrap();
        for (value, kind) in [
            (json!(0), "a number"),
            (json!(0.5), "a number"),
            (json!(false), "a boolean"),
            (json!(""), "a string"),
            (json!([]), "an array"),
            (json!(null), "null"),
            (json!(["a", "b", "c"]), "an array"),
        ] {
            for violations in [task.prompt(&value).unwrap_err(), task.accept(value.clone()).unwrap_err()] {
                let start = format!("The value at $ is {kind} and must be an object with the members ");
                assert!(
                    matches!(violations.0.as_slice(), [one] if one.starts_with(&start)),
                    "{violations:?}"
                );
            }
        }
    }
}

#[test]
fn an_empty_object_is_told_what_it_lacks() {
    for (name, input, output) in [
        ("summarize_email", "body", "summary"),
        ("categorize_ticket", "text", "category"),
        ("weekly_report", "team", "headline"),
    ] {
        let tasks = registry();
        let task = tasks.find(name).unwrap();
        let lacks = |member: &str| vec![format!("The value at $ lacks the member {member}.")];
        assert_eq!(task.prompt(&json!({})).unwrap_err().0, lacks(input));
        assert_eq!(task.accept(json!({})).unwrap_err().0, lacks(output));
    }
}

#[test]
fn summarize_email_inputs() {
    check_inputs(
        "summarize_email",
        vec![
            (json!({}), &[]),
            (json!({"subject": REMOVED, "from": REMOVED}), &[]),
            (json!({"subject": null, "from": null}), &[]),
            (json!({"subject": "", "from": "", "body": ""}), &[]),
            (json!({"body": " \n"}), &[]),
            (json!({"body": "ü".repeat(200_000)}), &[]),
            (
                json!({"body": "ü".repeat(200_001)}),
                &["The value at $.body has 200001 and must have at most 200000 characters."],
            ),
            (
                json!({"subject": "s".repeat(999), "from": "f".repeat(501)}),
                &[
                    "The value at $.from has 501 and must have at most 500 characters.",
                    "The value at $.subject has 999 and must have at most 998 characters.",
                ],
            ),
            (json!({"body": REMOVED}), &["The value at $ lacks the member body."]),
            (json!({"body": null}), &["The value at $.body is null and must be a string."]),
            (json!({"body": 0}), &["The value at $.body is a number and must be a string."]),
            (json!({"body": false}), &["The value at $.body is a boolean and must be a string."]),
            (json!({"body": []}), &["The value at $.body is an array and must be a string."]),
            (json!({"body": {}}), &["The value at $.body is an object and must be a string."]),
            (json!({"subject": 7}), &["The value at $.subject is a number and must be a string."]),
            (
                json!({"text": "private"}),
                &["The value at $ has the unknown member \"text\"; it may have subject, from, body."],
            ),
        ],
    );
}

#[test]
fn summarize_email_outputs() {
    let item = |change: Value| changed(json!({"action": "Call.", "owner": null, "due": null}), &change);
    check_outputs(
        "summarize_email",
        vec![
            (json!({}), &[]),
            (json!({"key_points": [], "action_items": [], "empty": true, "language": "und"}), &[]),
            (json!({"suspicious": true, "language": "zh-Hant"}), &[]),
            (json!({"summary": "x".repeat(1_200), "key_points": vec!["k"; 10]}), &[]),
            (json!({"action_items": [item(json!({})), item(json!({"owner": "a", "due": "b"}))]}), &[]),
            (json!({"summary": ""}), &["The value at $.summary has 0 and must have 1 to 1200 characters."]),
            (json!({"summary": " \n\t"}), &["The value at $.summary must not be blank."]),
            (
                json!({"summary": "日".repeat(1_201)}),
                &["The value at $.summary has 1201 and must have 1 to 1200 characters."],
            ),
            (
                json!({"key_points": vec!["k"; 11]}),
                &["The value at $.key_points has 11 and must have at most 10 items."],
            ),
            (
                json!({"key_points": ["k", "", "k".repeat(301)]}),
                &[
                    "The value at $.key_points[1] has 0 and must have 1 to 300 characters.",
                    "The value at $.key_points[2] has 301 and must have 1 to 300 characters.",
                ],
            ),
            (
                json!({"action_items": [item(json!({})), item(json!({"action": "", "owner": " ", "due": ""}))]}),
                &[
                    "The value at $.action_items[1].action has 0 and must have 1 to 300 characters.",
                    "The value at $.action_items[1].due has 0 and must have 1 to 120 characters.",
                    "The value at $.action_items[1].owner must not be blank.",
                ],
            ),
            (
                json!({"action_items": ["Call."]}),
                &[
                    "The value at $.action_items[0] is a string and must be an object with the members action, owner, due.",
                ],
            ),
            (
                json!({"action_items": [item(json!({"who": "private"}))]}),
                &[
                    "The value at $.action_items[0] has the unknown member \"who\"; it may have action, owner, due.",
                ],
            ),
            (
                json!({"language": "English"}),
                &[
                    "The value at $.language must be a language code such as en, pt-BR or zh-Hant, or und for none.",
                ],
            ),
            (json!({"empty": "false"}), &["The value at $.empty is a string and must be a boolean."]),
            (json!({"empty": null}), &["The value at $.empty is null and must be a boolean."]),
            (
                json!({"empty": true}),
                &["The value at $ must have no key_points and no action_items when empty is true."],
            ),
            (
                json!({"confidence": 1}),
                &[
                    "The value at $ has the unknown member \"confidence\"; it may have summary, key_points, action_items, language, empty, suspicious.",
                ],
            ),
        ],
    );
}

#[test]
fn what_an_optional_member_lacks_is_stored_as_null() {
    let mut answer = registry().describe("summarize_email").unwrap().example_output;
    answer["action_items"] = json!([{"action": "Call."}]);
    let stored = registry().find("summarize_email").unwrap().accept(answer).unwrap();
    assert_eq!(stored["action_items"], json!([{"action": "Call.", "owner": null, "due": null}]));
}

#[test]
fn categorize_ticket_inputs() {
    check_inputs(
        "categorize_ticket",
        vec![
            (json!({}), &[]),
            (json!({"subject": REMOVED, "text": "?"}), &[]),
            (json!({"text": " "}), &[]),
            (json!({"text": "\u{200b}"}), &[]),
            (json!({"text": "ü".repeat(50_000)}), &[]),
            (json!({"text": ""}), &["The value at $.text has 0 and must have 1 to 50000 characters."]),
            (
                json!({"text": "ü".repeat(50_001)}),
                &["The value at $.text has 50001 and must have 1 to 50000 characters."],
            ),
            (json!({"text": ["private"]}), &["The value at $.text is an array and must be a string."]),
            (
                json!({"priority": "urgent"}),
                &["The value at $ has the unknown member \"priority\"; it may have subject, text."],
            ),
        ],
    );
}

#[test]
fn categorize_ticket_outputs() {
    check_outputs(
        "categorize_ticket",
        vec![
            (json!({}), &[]),
            (json!({"confidence": 0.0}), &[]),
            (json!({"confidence": 1.0, "needs_human": true, "priority": "urgent"}), &[]),
            (json!({"language": "mul", "sentiment": "positive", "category": "account_access"}), &[]),
            (
                json!({"confidence": -0.01}),
                &["The value at $.confidence must be at least 0.0 and at most 1.0."],
            ),
            (json!({"confidence": 92}), &["The value at $.confidence must be at least 0.0 and at most 1.0."]),
            (json!({"confidence": "0.9"}), &["The value at $.confidence is a string and must be a number."]),
            (
                json!({"category": "Billing"}),
                &[
                    "The value at $.category must be one of account_access, billing, payment, delivery, defect, question, feature_request, cancellation, security, spam, other.",
                ],
            ),
            (
                json!({"category": ["billing", "payment"]}),
                &[
                    "The value at $.category is an array and must be one of account_access, billing, payment, delivery, defect, question, feature_request, cancellation, security, spam, other.",
                ],
            ),
            (
                json!({"category": {"billing": null}}),
                &["The value at $.category is an object and must be a string."],
            ),
            (
                json!({"priority": "critical"}),
                &["The value at $.priority must be one of low, normal, high, urgent."],
            ),
            (
                json!({"priority": null}),
                &["The value at $.priority is null and must be one of low, normal, high, urgent."],
            ),
            (
                json!({"priority": "urgent"}),
                &["The value at $ must have needs_human true when priority is urgent."],
            ),
            (
                json!({"reason": "r".repeat(401)}),
                &["The value at $.reason has 401 and must have 1 to 400 characters."],
            ),
            (json!({"reason": REMOVED}), &["The value at $ lacks the member reason."]),
            (
                json!({"reason": "", "confidence": 2, "language": "en_US"}),
                &[
                    "The value at $.confidence must be at least 0.0 and at most 1.0.",
                    "The value at $.language must be a language code such as en, pt-BR or zh-Hant, or und for none.",
                    "The value at $.reason has 0 and must have 1 to 400 characters.",
                ],
            ),
        ],
    );
}

#[test]
fn weekly_report_inputs() {
    check_inputs(
        "weekly_report",
        vec![
            (json!({}), &[]),
            (json!({"week": "2026-W53", "entries": vec!["e"; 200]}), &[]),
            (json!({"entries": ["e".repeat(2_000)]}), &[]),
            (
                json!({"week": "2025-W53"}),
                &["The value at $.week names week 53 of a year that has only 52 ISO weeks."],
            ),
            (
                json!({"week": "last week"}),
                &["The value at $.week must be an ISO 8601 week such as 2026-W47."],
            ),
            (json!({"week": 47}), &["The value at $.week is a number and must be a string."]),
            (json!({"team": " "}), &["The value at $.team must not be blank."]),
            (json!({"entries": []}), &["The value at $.entries has 0 and must have 1 to 200 items."]),
            (
                json!({"entries": vec!["e"; 201]}),
                &["The value at $.entries has 201 and must have 1 to 200 items."],
            ),
            (json!({"entries": "did things"}), &["The value at $.entries is a string and must be an array."]),
            (json!({"entries": ["a", 0]}), &["The value at $.entries[1] is a number and must be a string."]),
            (
                json!({"entries": ["a", "", " ", "e".repeat(2_001)]}),
                &[
                    "The value at $.entries[1] has 0 and must have 1 to 2000 characters.",
                    "The value at $.entries[2] must not be blank.",
                    "The value at $.entries[3] has 2001 and must have 1 to 2000 characters.",
                ],
            ),
        ],
    );
}

#[test]
fn weekly_report_outputs() {
    check_outputs(
        "weekly_report",
        vec![
            (json!({}), &[]),
            (json!({"highlights": [], "risks": [], "next_steps": []}), &[]),
            (json!({"highlights": [], "risks": [], "next_steps": [], "nothing_to_report": true}), &[]),
            (
                json!({"nothing_to_report": true}),
                &[
                    "The value at $ must have no highlights, risks or next_steps when nothing_to_report is true.",
                ],
            ),
            (
                json!({"headline": "h".repeat(161)}),
                &["The value at $.headline has 161 and must have 1 to 160 characters."],
            ),
            (
                json!({"risks": [{"risk": "r", "severity": "severe", "mitigation": null}]}),
                &["The value at $.risks[0].severity must be one of low, medium, high."],
            ),
            (
                json!({"risks": [{"risk": "r", "severity": "low", "mitigation": ""}], "next_steps": [{"step": " "}]}),
                &[
                    "The value at $.next_steps[0].step must not be blank.",
                    "The value at $.risks[0].mitigation has 0 and must have 1 to 300 characters.",
                ],
            ),
            (
                json!({"next_steps": {"step": "s"}}),
                &["The value at $.next_steps is an object and must be an array."],
            ),
        ],
    );
}
