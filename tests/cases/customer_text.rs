//! Real customers' questions and hostile strings as jobs: distinct inputs have distinct keys, and equal ones share one.

use std::collections::{HashMap, HashSet};

use nightshift_core::input_hash::InputHash;
use nightshift_core::job;
use nightshift_core::task::Tasks as _;
use nightshift_tests::cases;
use serde_json::{Value, json};

/// The column `text` of the questions; fields are quoted as in RFC 4180.
fn questions(csv: &str) -> Vec<String> {
    let mut rows = Vec::new();
    let (mut fields, mut field, mut quoted) = (Vec::new(), String::new(), false);
    let mut chars = csv.chars().peekable();
    while let Some(c) = chars.next() {
        match c {
            '"' if quoted && chars.peek() == Some(&'"') => field.extend(chars.next()),
            '"' => quoted = !quoted,
            ',' if !quoted => fields.push(std::mem::take(&mut field)),
            '\n' if !quoted => {
                fields.push(std::mem::take(&mut field));
                rows.push(std::mem::take(&mut fields));
            }
            '\r' if !quoted => {}
            c => field.push(c),
        }
    }
    assert_eq!(rows.remove(0), ["text", "category"]);
    rows.into_iter().map(|row| row.into_iter().next().unwrap()).collect()
}

/// Every text as a job's body, read back, hashed: as many keys as there are texts.
fn check(texts: &[String]) {
    let registry = nightshift_tasks::registry();
    let task = registry.find("categorize_ticket").unwrap();
    let mut texts_of_key: HashMap<InputHash, &str> = HashMap::new();
    for (nth, text) in texts.iter().enumerate() {
        let body =
            json!({"task": "categorize_ticket", "input": {"text": text}, "reference": nth.to_string()});
        let job = job::parse(&body.to_string(), 900 * 1_024).unwrap_or_else(|r| panic!("{text:?}: {r}"));
        assert_eq!(job.input["text"].as_str(), Some(text.as_str()), "not a byte is lost on the way");
        // Another way to write the same job: members turned round, everything outside ASCII escaped.
        let other = nightshift_core::text::ascii_json(&format!(
            "{{ \"reference\":null,\"input\" :{{\"text\":{}}} ,\"task\":\"categorize_ticket\"}}\n",
            Value::String(text.clone())
        ));
        let key = InputHash::of_job(&job.task, &job.input);
        let other = job::parse(&other, 900 * 1_024).unwrap_or_else(|r| panic!("{text:?}: {r}"));
        assert_eq!(InputHash::of_job(&other.task, &other.input), key, "{text:?}");
        let first = texts_of_key.entry(key).or_insert(text);
        assert_eq!(first, text, "two texts share a key");
        match task.prompt(&job.input) {
            Ok(prompt) => assert!(prompt.user.contains(text.as_str()), "{text:?} is not in its prompt"),
            Err(violations) => assert!(text.is_empty(), "{text:?}: {violations:?}"),
        }
    }
    assert_eq!(texts_of_key.len(), texts.iter().collect::<HashSet<_>>().len());
}

#[test]
fn ten_thousand_questions_have_as_many_keys_as_there_are_questions() {
    let Some(folder) = cases::folder("customer_text") else { return };
    let questions = questions(&cases::text(&folder, "banking77_train.csv"));
    assert_eq!(questions.len(), 10_003);
    assert!(questions.iter().any(|text| text.contains('\n')), "quoted line ends are part of the text");
    check(&questions);
}

#[test]
fn naughty_strings_have_keys_of_their_own() {
    let Some(folder) = cases::folder("customer_text") else { return };
    let lines = cases::text(&folder, "naughty_strings.jsonl");
    let strings: Vec<String> = lines
        .lines()
        .map(|line| serde_json::from_str::<Value>(line).unwrap()["text"].as_str().unwrap().to_owned())
        .collect();
    assert!(strings.len() >= 90, "{}", strings.len());
    check(&strings);
}
