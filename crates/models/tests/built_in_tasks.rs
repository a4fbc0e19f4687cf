//! The schemas that are deployed: each provider is sent something that it takes, and a rehearsal passes validation.

#![allow(clippy::unwrap_used, clippy::panic, missing_docs, reason = "helpers of tests")]

use std::sync::Arc;

use nightshift_core::model::{Answer, ModelRequest, Turn};
use nightshift_core::task::Tasks as _;
use nightshift_models::lower_schema::{Target, lower};
use nightshift_models::{Rehearsal, RehearsalSpec};
use nightshift_worker::ports::Model as _;
use serde_json::Value;

/// Counts members that are optional and nodes that are unions, of which Anthropic takes 24 and 16 in a request
/// ("Structured outputs", Claude API docs, schema complexity limits).
fn count(node: &Value, optional: &mut usize, unions: &mut usize) {
    if let Value::Object(members) = node {
        if let Some(Value::Object(properties)) = members.get("properties") {
            let required = members.get("required").and_then(Value::as_array).map_or(0, Vec::len);
            *optional += properties.len() - required;
        }
        *unions +=
            usize::from(members.contains_key("anyOf") || members.get("type").is_some_and(Value::is_array));
        members.values().for_each(|value| count(value, optional, unions));
    }
    if let Value::Array(items) = node {
        items.iter().for_each(|item| count(item, optional, unions));
    }
}

#[test]
fn every_task_can_be_sent_to_every_provider() {
    let tasks = nightshift_tasks::registry();
    for name in tasks.names() {
        let schema = tasks.find(name).unwrap().schema();
        for target in [Target::Anthropic, Target::OpenAiStrict, Target::BedrockTool] {
            let lowered =
                lower(schema, target).unwrap_or_else(|error| panic!("{name} for {target:?}: {error}"));
            let (mut optional, mut unions) = (0, 0);
            count(&lowered, &mut optional, &mut unions);
            assert!(
                optional <= 24 && unions <= 16,
                "{name} for {target:?}: {optional} optional, {unions} unions"
            );
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_rehearsed_answer_passes_the_validation_of_its_task() {
    let tasks = nightshift_tasks::registry();
    let model = Rehearsal::new(RehearsalSpec::parse("rehearsal").unwrap()).checked_by(|name, value| {
        let tasks = nightshift_tasks::registry();
        tasks.find(name).is_some_and(|task| task.accept(value.clone()).is_ok())
    });
    for name in tasks.names() {
        let task = tasks.find(name).unwrap();
        for job in 0..100 {
            let request = ModelRequest {
                system: name.to_owned(),
                turns: vec![Turn::User(format!("job {job}"))],
                schema_name: name.to_owned(),
                schema: Arc::clone(task.schema()),
                output_tokens_max: task.output_tokens_max(),
                timeout_ms: 60_000,
            };
            let Answer::Text(text) = model.call(&request).await.unwrap().answer else { panic!("no text") };
            if let Err(violations) = task.accept(serde_json::from_str(&text).unwrap()) {
                panic!("{name}: {violations:?}: {text}");
            }
        }
    }
}
