//! The rules, each a function from a task to what is wrong with it and what to do.

use std::collections::BTreeSet;

use nightshift_core::task::{Task, Tasks, VIOLATIONS_LISTED_MAX};
use nightshift_models::lower_schema::{Target, lower};
use nightshift_tasks::{Description, Registry};
use serde_json::{Map, Value, json};

/// Keywords of JSON Schema that an adapter either sends or says in words ("crates/models/src/lower_schema/").
const KEYWORDS: [&str; 17] = [
    "additionalProperties",
    "anyOf",
    "const",
    "description",
    "enum",
    "examples",
    "items",
    "maxItems",
    "maxLength",
    "maximum",
    "minItems",
    "minLength",
    "minimum",
    "pattern",
    "properties",
    "required",
    "type",
];

/// What Anthropic takes in one request ("Structured outputs", Claude API docs, schema complexity limits).
const OPTIONAL_MEMBERS_MAX: usize = 24;
const UNIONS_MAX: usize = 16;

/// Characters of English in a token, about ("Glossary", Claude API docs: 3.5); more, so that nothing is refused that
/// may fit.
const CHARS_PER_TOKEN: usize = 4;

/// A sentence that is longer was not written for a list of ten.
const VIOLATION_BYTES_MAX: usize = 300;

/// A value that no rule of a task is likely to accept everywhere, and that nobody's message holds by chance.
const SECRET: &str = "hunter2";

/// What is wrong with one task.
type Rule = fn(&dyn Task, &Description) -> Vec<String>;

/// One line for each rule that a task of the registry breaks.
pub fn broken(tasks: &Registry) -> Vec<String> {
    let mut broken = Vec::new();
    let mut names = BTreeSet::new();
    for name in tasks.names() {
        if !names.insert(name) {
            broken.push(format!(
                "{name}: two tasks have this NAME, and jobs would reach only one of them. Give yours another one."
            ));
            continue;
        }
        let (Some(task), Some(described)) = (tasks.find(name), tasks.describe(name)) else { continue };
        let of_one: [Rule; 8] =
            [examples, same_prompt, keywords, bounds, unchecked, providers, room, violations];
        broken.extend(
            of_one.iter().flat_map(|rule| rule(task, &described)).map(|what| format!("{name}: {what}")),
        );
    }
    broken
}

/// The example is what stand-ins of a model answer with, and what a model sees as a good answer.
fn examples(task: &dyn Task, described: &Description) -> Vec<String> {
    let mut broken = Vec::new();
    if let Err(violations) = task.prompt(&described.example_job["input"]) {
        broken.push(format!(
            "the input of its example() breaks the rules of Input: {} Change the example or the rules.",
            violations.0.join(" ")
        ));
    }
    match task.accept(described.example_output.clone()) {
        Err(violations) => broken.push(format!(
            "the output of its example() breaks the rules of Output: {} Change the example or the rules.",
            violations.0.join(" ")
        )),
        Ok(stored) if stored != described.example_output => broken.push(
            "the output of its example() is written otherwise once it was read back. Let serde's attributes on \
             Output mean the same in both directions."
                .to_owned(),
        ),
        Ok(_) => {}
    }
    broken
}

/// The same input is the same record, so it must be the same question.
fn same_prompt(task: &dyn Task, described: &Description) -> Vec<String> {
    let input = &described.example_job["input"];
    if (0..20).all(|_| task.prompt(input) == task.prompt(input)) {
        return Vec::new();
    }
    vec![
        "two prompts of the same input differ. Let blocks() depend on the input alone: no clock, no randomness, no \
         order of a HashMap (use a BTreeMap)."
            .to_owned(),
    ]
}

fn keywords(task: &dyn Task, described: &Description) -> Vec<String> {
    fn walk(schema: &Value, at: &str, whose: &str, broken: &mut Vec<String>) {
        let Some(members) = schema.as_object() else { return };
        for (keyword, value) in members {
            match (keyword.as_str(), value) {
                ("properties", Value::Object(properties)) => {
                    for (name, schema) in properties {
                        walk(schema, &format!("{at}.{name}"), whose, broken);
                    }
                }
                ("anyOf", Value::Array(schemas)) => {
                    schemas.iter().for_each(|schema| walk(schema, at, whose, broken));
                }
                ("items", schema) => walk(schema, &format!("{at}[]"), whose, broken),
                _ => {}
            }
            // Only the output's schema goes to a provider.
            if whose == "Output" && !KEYWORDS.contains(&keyword.as_str()) {
                broken.push(format!(
                    "the schema of Output says `{keyword}` at {at}, which no provider is sent. Say it with a plain \
                     type, a rule in #[validate(…)] and a doc comment for the model."
                ));
            }
        }
        let is_object = members.get("type").is_some_and(|kind| kind == "object");
        if is_object && members.get("additionalProperties") != Some(&Value::Bool(false)) {
            broken.push(format!(
                "{whose} takes members at {at} that nobody reads. Put #[serde(deny_unknown_fields)] on the struct; \
                 instead of a map, use a list of structs."
            ));
        }
    }
    let mut broken = Vec::new();
    walk(task.schema(), "$", "Output", &mut broken);
    walk(&described.input_schema, "$", "Input", &mut broken);
    if described.input_schema["type"] != "object" {
        broken.push("Input is no object. Make it a struct with named members.".to_owned());
    }
    broken
}

/// What has no limit is as long as a model or a sender likes: the store, its readers and the price are the owner's.
fn bounds(task: &dyn Task, described: &Description) -> Vec<String> {
    fn walk(schema: &Value, at: &str, whose: &str, broken: &mut Vec<String>) {
        let is = |kind: &str| match &schema["type"] {
            Value::Array(kinds) => kinds.iter().any(|one| one == kind),
            one => one == kind,
        };
        let lacks = |limits: &[&str]| limits.iter().all(|limit| schema.get(limit).is_none());
        if is("string") && lacks(&["maxLength", "enum", "const", "pattern", "format"]) {
            let mend = if at.ends_with("[]") {
                "An attribute of the list says nothing of its items: make them of nightshift_tasks::Line<200> with \
                 #[validate(nested)] on the list, or of an enum."
            } else {
                "Give it #[validate(length(max = …))], or make it an enum."
            };
            broken.push(format!("the text at {at} of {whose} may be of any length. {mend}"));
        }
        if is("array") && lacks(&["maxItems"]) {
            broken.push(format!(
                "the list at {at} of {whose} may have any number of items. Give it #[validate(length(max = …))]."
            ));
        }
        for (name, member) in schema["properties"].as_object().into_iter().flatten() {
            walk(member, &format!("{at}.{name}"), whose, broken);
        }
        schema["anyOf"].as_array().into_iter().flatten().for_each(|one| walk(one, at, whose, broken));
        schema.get("items").into_iter().for_each(|items| walk(items, &format!("{at}[]"), whose, broken));
    }
    let mut broken = Vec::new();
    walk(task.schema(), "$", "Output", &mut broken);
    walk(&described.input_schema, "$", "Input", &mut broken);
    broken
}

/// A rule that stands in the schema and is not checked: of a type within a type it is, where `nested` says so.
fn unchecked(task: &dyn Task, described: &Description) -> Vec<String> {
    let input = &described.example_job["input"];
    let of_input = beyond(&described.input_schema, input, "$").into_iter();
    let of_output = beyond(task.schema(), &described.example_output, "$").into_iter();
    let taken = of_input
        .filter_map(|(at, why, value)| task.prompt(&value).is_ok().then_some(("Input", at, why)))
        .chain(
            of_output
                .filter_map(|(at, why, value)| task.accept(value).is_ok().then_some(("Output", at, why))),
        );
    let mut found: Vec<(&str, String, Vec<&str>)> = Vec::new();
    for (whose, at, why) in taken {
        match found.last_mut().filter(|(last, place, _)| *last == whose && *place == at) {
            Some((.., whys)) => whys.push(why),
            None => found.push((whose, at, vec![why])),
        }
    }
    let told = found.into_iter().map(|(whose, at, whys)| {
        format!(
            "{whose} takes at {at} what its schema forbids ({}), since nobody checks it there. Put #[validate(nested)] on each \
             member whose type has rules of its own, lists and options included.",
            whys.join(", ")
        )
    });
    told.collect()
}

/// The value with one bound of its schema broken: where, which, and the whole. Of a list, its first item stands for all.
fn beyond(schema: &Value, value: &Value, at: &str) -> Vec<(String, &'static str, Value)> {
    let number = |keyword: &str| schema[keyword].as_u64().and_then(|n| usize::try_from(n).ok());
    let here = |why, value| (at.to_owned(), why, value);
    let mut all = Vec::new();
    match value {
        Value::String(_) => {
            all.extend(number("maxLength").map(|max| here("maxLength", json!("x".repeat(max + 1)))));
            let short = number("minLength").filter(|min| *min > 0);
            all.extend(short.map(|min| here("minLength", json!("x".repeat(min - 1)))));
            all.extend(schema.get("pattern").map(|_| here("pattern", json!("\u{1}"))));
        }
        Value::Number(_) => {
            all.extend(schema["maximum"].as_f64().map(|max| here("maximum", whole(max.floor() + 1.0))));
            all.extend(schema["minimum"].as_f64().map(|min| here("minimum", whole(min.ceil() - 1.0))));
        }
        Value::Object(members) => {
            for (name, member) in members {
                let found = beyond(&schema["properties"][name], member, &format!("{at}.{name}"));
                all.extend(
                    found.into_iter().map(|(at, why, new)| (at, why, with_member(members, name, new))),
                );
            }
        }
        Value::Array(items) => {
            let Some(first) = items.first() else { return all };
            let many = |count| Value::Array(vec![first.clone(); count]);
            all.extend(number("maxItems").map(|max| here("maxItems", many(max + 1))));
            let few = number("minItems").filter(|min| *min > 0);
            all.extend(few.map(|min| here("minItems", many(min - 1))));
            let found = beyond(&schema["items"], first, &format!("{at}[]"));
            all.extend(found.into_iter().map(|(at, why, new)| (at, why, with_item(items, 0, new))));
        }
        Value::Null | Value::Bool(_) => {}
    }
    // What one of several forms forbids, another may allow.
    let forms = schema["anyOf"].as_array().into_iter().flatten().filter(|form| form["type"] != "null");
    if let [form] = forms.collect::<Vec<_>>()[..] {
        all.extend(beyond(form, value, at));
    }
    all
}

/// A number without a fraction, as a type of whole numbers reads it.
fn whole(number: f64) -> Value {
    #[allow(clippy::cast_possible_truncation)] // bounds of a schema are small
    let exact = number as i64;
    json!(exact)
}

fn providers(task: &dyn Task, _: &Description) -> Vec<String> {
    /// Counts members that are optional and nodes that are unions.
    fn count(node: &Value, optional: &mut usize, unions: &mut usize) {
        if let Value::Object(members) = node {
            if let Some(Value::Object(properties)) = members.get("properties") {
                let required = members.get("required").and_then(Value::as_array).map_or(0, Vec::len);
                *optional += properties.len().saturating_sub(required);
            }
            *unions += usize::from(
                members.contains_key("anyOf") || members.get("type").is_some_and(Value::is_array),
            );
            members.values().for_each(|value| count(value, optional, unions));
        }
        if let Value::Array(items) = node {
            items.iter().for_each(|item| count(item, optional, unions));
        }
    }
    // What several providers refuse alike is said once.
    let mut broken: Vec<(String, Vec<String>)> = Vec::new();
    let mut add = |what: String, target: Target| {
        let target = format!("{target:?}");
        match broken.iter_mut().find(|(said, _)| *said == what) {
            Some((_, targets)) => targets.push(target),
            None => broken.push((what, vec![target])),
        }
    };
    for target in Target::ALL {
        match lower(task.schema(), target) {
            Err(error) => add(
                format!(
                    "the schema of Output cannot be sent as structured output: {error}. Use structs with named \
                     members, enums, lists, strings, numbers and booleans"
                ),
                target,
            ),
            Ok(lowered) => {
                let (mut optional, mut unions) = (0, 0);
                count(&lowered, &mut optional, &mut unions);
                if optional > OPTIONAL_MEMBERS_MAX || unions > UNIONS_MAX {
                    add(
                        format!(
                            "the schema of Output has {optional} optional members and {unions} unions; providers \
                             refuse more than {OPTIONAL_MEMBERS_MAX} and {UNIONS_MAX}. Make members required, with an \
                             empty string or list for \"none\""
                        ),
                        target,
                    );
                }
            }
        }
    }
    broken.into_iter().map(|(what, targets)| format!("{what} ({}).", targets.join(", "))).collect()
}

fn room(task: &dyn Task, described: &Description) -> Vec<String> {
    let needed = described.example_output.to_string().chars().count().div_ceil(CHARS_PER_TOKEN);
    let given = task.output_tokens_max();
    if usize::try_from(given).unwrap_or(usize::MAX) >= needed {
        return Vec::new();
    }
    vec![format!(
        "its own example needs about {needed} tokens, and OUTPUT_TOKENS_MAX is {given}: answers would be cut off, \
         `truncated`. Raise it to what the longest valid answer needs."
    )]
}

/// Violations are logged, put on dead letters and sent to the model again.
fn violations(task: &dyn Task, described: &Description) -> Vec<String> {
    let mut broken = BTreeSet::new();
    let long = SECRET.repeat(30_000);
    let of_any_kind =
        [json!(true), json!(false), json!(0), json!(1), json!(1_000_000_000), json!(-1), json!("")];
    let quoted = [json!(SECRET), json!(long), json!([SECRET]), json!({"a": SECRET}), json!(vec![""; 300])];
    for new in quoted.into_iter().chain(of_any_kind) {
        let inputs = replaced(&described.example_job["input"], &new);
        let outputs = replaced(&described.example_output, &new);
        let refusals = inputs
            .iter()
            .filter_map(|input| task.prompt(input).err())
            .chain(outputs.into_iter().filter_map(|output| task.accept(output).err()));
        for sentence in refusals.flat_map(|refused| {
            let listed = refused.0.len();
            assert!((1..=VIOLATIONS_LISTED_MAX).contains(&listed), "{listed} violations are listed");
            refused.0
        }) {
            if let Some((start, _)) = sentence.split_once(SECRET) {
                broken.insert(format!(
                    "a message of its rules quotes the value, which would put customers' text into logs: \"{start}…\". \
                     Say what is wanted, not what was found."
                ));
            } else if sentence.contains(" breaks the rule ") {
                broken.insert(format!(
                    "a rule has no words: \"{sentence}\" Give its error a .with_message(\"must …\".into()), which is \
                     what the model is told."
                ));
            } else if sentence.len() > VIOLATION_BYTES_MAX {
                broken.insert(format!(
                    "a message of its rules is {} bytes long; {VIOLATION_BYTES_MAX} are enough: {sentence:.60?}…",
                    sentence.len()
                ));
            }
        }
    }
    broken.into_iter().collect()
}

/// The value with each of its leaves and branches in turn replaced.
fn replaced(value: &Value, new: &Value) -> Vec<Value> {
    let mut all = vec![new.clone()];
    match value {
        Value::Object(members) => {
            for (name, member) in members {
                all.extend(replaced(member, new).into_iter().map(|new| with_member(members, name, new)));
            }
        }
        Value::Array(items) => {
            for (index, item) in items.iter().enumerate() {
                all.extend(replaced(item, new).into_iter().map(|new| with_item(items, index, new)));
            }
        }
        _ => {}
    }
    all
}

/// The object with another value for one of its members.
fn with_member(members: &Map<String, Value>, name: &str, new: Value) -> Value {
    let mut members = members.clone();
    members.insert(name.to_owned(), new);
    Value::Object(members)
}

/// The list with another value for one of its items.
fn with_item(items: &[Value], index: usize, new: Value) -> Value {
    let mut items = items.to_vec();
    items[index] = new;
    Value::Array(items)
}
