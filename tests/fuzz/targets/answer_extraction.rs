//! Any answer of a model: exactly one object that needs no repair, or one sentence; what a task accepts it accepts again.
#![no_main]

use std::sync::LazyLock;

use libfuzzer_sys::fuzz_target;
use nightshift_core::json;
use nightshift_core::output_validation::{extract, reask_text, validate};
use nightshift_core::task::{Tasks, Violations};
use nightshift_core::thinking::without_thinking;
use nightshift_tasks::Registry;
use serde_json::Value;

/// Made once: deriving the schemas takes longer than a run.
static TASKS: LazyLock<Registry> = LazyLock::new(nightshift_tasks::registry);
/// What no example says.
const INPUT: Value = Value::Null;

fuzz_target!(|answer: &str| {
    match extract(answer) {
        Ok(value) => accepted(answer, &value),
        Err(what) => {
            assert!(!what.is_empty() && what.len() <= 1_024, "{what}");
            assert!(!what.contains('\n'), "one sentence: {what}");
        }
    }
    for name in TASKS.names() {
        let Some(task) = TASKS.find(name) else { continue };
        match validate(task, &INPUT, answer) {
            Ok(output) => {
                // What is stored is valid by itself, and stays so when it is read back.
                assert_eq!(task.accept(output.clone()), Ok(output.clone()));
                assert_eq!(validate(task, &INPUT, &output.to_string()), Ok(output));
            }
            Err(Violations(list)) => {
                assert!(!list.is_empty());
                assert!(reask_text(&Violations(list)).contains("- "));
            }
        }
    }
});

fn accepted(answer: &str, value: &Value) {
    assert!(value.is_object());
    let answer = &*without_thinking(answer).expect("what was accepted has an answer");
    // It stands in what is not thinking as it is: from the first brace to where it ends, with no bracket outside of it.
    let start = answer.find(['{', '[', '}', ']']).expect("an object has a brace");
    let (read, length) = json::parse_prefix(&answer[start..]).expect("what was accepted needs no repair");
    assert_eq!(&read, value);
    let object = &answer[start..start + length];
    assert_eq!(json::parse(object).as_ref(), Ok(value));
    assert!(!answer[start + length..].contains(['{', '[', '}', ']']));
    // Written again, bare or in a fence, it is the same object.
    let written = value.to_string();
    assert_eq!(extract(&written).as_ref(), Ok(value));
    assert_eq!(extract(&format!("Here it is:\n```json\n{written}\n```\n")).as_ref(), Ok(value));
    // In unfinished thinking it is none, and after finished thinking it is the answer, whatever was thought.
    assert!(extract(&format!("<think>{written}")).is_err());
    assert_eq!(extract(&format!("{written}</think>\n{written}")).as_ref(), Ok(value));
    // Two of them are none.
    assert!(extract(&format!("{written}\n{written}")).is_err());
}
