//! What the model is given, whole, for a reviewer: a change here is a change of what is bought.

use nightshift_core::input_hash::canonical_json;
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
        let schema = canonical_json(task.schema());
        assert_eq!(prompt.system.matches(&schema).count(), 1, "the schema is part of the prompt");
        let system = prompt.system.replace(&schema, "(the schema)");
        insta::assert_snapshot!(
            format!("{name}_prompt"),
            format!("{system}\n======== user\n{}", prompt.user)
        );
    }
}

#[test]
fn schemas_use_only_keywords_that_adapters_know_how_to_lower() {
    const KNOWN: [&str; 17] = [
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
    fn walk(schema: &serde_json::Value, at: &str) {
        let Some(members) = schema.as_object() else { return };
        for (keyword, value) in members {
            assert!(KNOWN.contains(&keyword.as_str()), "{keyword} at {at}");
            match (keyword.as_str(), value) {
                ("properties", serde_json::Value::Object(properties)) => {
                    properties.iter().for_each(|(name, schema)| walk(schema, &format!("{at}.{name}")));
                }
                ("anyOf", serde_json::Value::Array(schemas)) => {
                    schemas.iter().for_each(|schema| walk(schema, at))
                }
                ("items", schema) => walk(schema, at),
                _ => {}
            }
        }
        if members.get("type").is_some_and(|t| t == "object") {
            assert_eq!(members["additionalProperties"], false, "{at}");
        }
    }
    for name in registry().names() {
        walk(registry().find(name).unwrap().schema(), name);
    }
}
