//! What models really answered, well-formed or not.

use nightshift_core::output_validation::{extract, validate};
use nightshift_core::task::Tasks as _;
use nightshift_tests::cases;
use serde_json::Value;

fn replies() -> Option<Vec<Value>> {
    let folder = cases::folder("model_replies")?;
    let lines = cases::text(&folder, "replies.jsonl");
    let replies: Vec<Value> = lines.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert!(replies.len() >= 150, "{}", replies.len());
    Some(replies)
}

#[test]
fn one_whole_object_is_found_and_nothing_is_repaired() {
    let Some(replies) = replies() else { return };
    let mut wrong = Vec::new();
    for reply in replies {
        let name = &reply["name"];
        let text = reply["text"].as_str().unwrap();
        let extracted = extract(text);
        let right = match reply["expect"].as_str().unwrap() {
            "accept" => extracted.as_ref() == Ok(&reply["value"]),
            "reject" => extracted.is_err(),
            // A stated choice, and never a wrong value: what is taken stands in the text as it is.
            "either" => match &extracted {
                Ok(value) => stands_in(value, text),
                Err(_) => true,
            },
            other => panic!("{other}"),
        };
        if !right {
            wrong.push(format!("{name}: {} but {extracted:?}", reply["expect"]));
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}

/// Whether some part of the text is exactly this value, by a decoder that knows nothing of ours.
fn stands_in(value: &Value, text: &str) -> bool {
    text.match_indices('{').any(|(start, _)| {
        let mut values = serde_json::Deserializer::from_str(&text[start..]).into_iter::<Value>();
        matches!(values.next(), Some(Ok(found)) if found == *value)
    })
}

#[test]
fn in_the_same_wrappings_every_tasks_output_is_accepted_or_rejected_alike() {
    let Some(replies) = replies() else { return };
    let registry = nightshift_tasks::registry();
    let mut checked = 0;
    for name in registry.names() {
        let task = registry.find(name).unwrap();
        let output = registry.describe(name).unwrap().example_output;
        let input = &registry.describe(name).unwrap().example_job["input"];
        let payload = output.to_string();
        // Cut inside a string, as a token limit does.
        let truncated = &payload[..payload.rfind(|c: char| c.is_ascii_lowercase()).unwrap()];
        let single_quoted = payload.replace('"', "'");
        for reply in &replies {
            let Some(template) = reply["template"].as_str() else { continue };
            let text = template
                .replace("{{PAYLOAD}}", &payload)
                .replace("{{PAYLOAD_TRUNCATED}}", truncated)
                .replace("{{PAYLOAD_SINGLE_QUOTED}}", &single_quoted);
            assert!(!text.contains("{{PAYLOAD"), "{}: an unknown template", reply["name"]);
            let stored = validate(task, input, &text);
            let label = format!("{name} in {}: {stored:?}", reply["name"]);
            match reply["expect"].as_str().unwrap() {
                "accept" => assert_eq!(stored.as_ref(), Ok(&output), "{label}"),
                "reject" => assert!(stored.is_err(), "{label}"),
                _ => assert!(stored.is_err() || stored.as_ref() == Ok(&output), "{label}"),
            }
            checked += 1;
        }
    }
    assert!(checked >= 90, "{checked}");
}

#[test]
fn what_is_rejected_is_stored_for_no_task() {
    let Some(replies) = replies() else { return };
    let registry = nightshift_tasks::registry();
    for name in registry.names() {
        let task = registry.find(name).unwrap();
        for reply in replies.iter().filter(|reply| reply["expect"] == "reject") {
            let stored = validate(task, &Value::Null, reply["text"].as_str().unwrap());
            assert!(stored.is_err(), "{name}: {}", reply["name"]);
        }
    }
}
