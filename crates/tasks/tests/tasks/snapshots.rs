//! What the model is given, whole, for a reviewer: a change here is a change of what is bought.

use nightshift_core::task::Tasks;
use nightshift_tasks::registry;

#[test]
fn schemas_of_outputs() {
    insta::with_settings!({sort_maps => true}, {
        for name in registry().names() {
            insta::assert_json_snapshot!(format!("{name}_output"), registry().find(name).unwrap().schema().as_ref());
        }
    });
}

#[test]
fn schemas_of_inputs() {
    insta::with_settings!({sort_maps => true}, {
        for name in registry().names() {
            insta::assert_json_snapshot!(format!("{name}_input"), registry().describe(name).unwrap().input_schema);
        }
    });
}

#[test]
fn prompts() {
    for name in registry().names() {
        let tasks = registry();
        let task = tasks.find(name).unwrap();
        let prompt = task.prompt(&tasks.describe(name).unwrap().example_job["input"]).unwrap();
        let schema = task.schema().to_string();
        assert_eq!(prompt.system.matches(&schema).count(), 1, "the schema is part of the prompt");
        let system = prompt.system.replace(&schema, "(the schema)");
        insta::assert_snapshot!(
            format!("{name}_prompt"),
            format!("{system}\n======== user\n{}", prompt.user)
        );
    }
}
