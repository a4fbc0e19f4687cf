//! A rehearsal of the tasks that come with Nightshift passes their validation.

#![allow(clippy::unwrap_used, clippy::panic, missing_docs, reason = "helpers of tests")]

use std::sync::Arc;

use nightshift_core::model::{Answer, ModelRequest, Turn};
use nightshift_core::task::Tasks as _;
use nightshift_models::{Rehearsal, RehearsalSpec};
use nightshift_ports::Model as _;

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
