use super::*;

/// What each target makes of a schema: Bedrock, an endpoint like OpenAI's, Bedrock tool.
fn check(schema: Value, anthropic: Value, openai: Value, tool: Value) {
    assert_eq!(lower(&schema, Target::Bedrock).unwrap(), anthropic, "Bedrock");
    assert_eq!(lower(&schema, Target::OpenAiCompatible).unwrap(), openai, "like OpenAI");
    assert_eq!(lower(&schema, Target::BedrockTool).unwrap(), tool, "Bedrock tool");
}

fn object(properties: Value, required: Value) -> Value {
    json!({"type": "object", "properties": properties, "required": required, "additionalProperties": false})
}

fn tool(properties: Value, required: Value) -> Value {
    json!({"type": "object", "properties": properties, "required": required})
}

#[test]
fn ranges_and_lengths_move_into_the_description() {
    let s = json!({"type": "string", "description": "A short summary. At most 200 characters."});
    let n = json!({"type": "integer", "description": "At least 0; at most 5"});
    let properties = json!({"s": s, "n": n});
    check(
        json!({
            "$schema": "https://json-schema.org/draft/2020-12/schema", "title": "Out", "type": "object",
            "properties": {
                "s": {"type": "string", "description": "A short summary", "maxLength": 200, "title": "S"},
                "n": {"type": "integer", "format": "uint8", "minimum": 0, "maximum": 5}
            },
            "required": ["s", "n"]
        }),
        object(properties.clone(), json!(["s", "n"])),
        object(properties.clone(), json!(["s", "n"])),
        tool(properties, json!(["s", "n"])),
    );
}

#[test]
fn optional_members_stay_optional_or_become_nullable() {
    check(
        json!({"type": "object", "properties": {
            "a": {"type": "string"},
            "b": {"type": ["string", "null"]},
            "c": {"type": "array", "items": {"type": "string"}, "default": []},
            "d": {"type": "string", "enum": ["x"]},
            "e": {"type": "integer", "default": null}
        }, "required": []}),
        object(
            json!({
                "a": {"type": "string"}, "b": {"type": ["string", "null"]},
                "c": {"type": "array", "items": {"type": "string"}}, "d": {"type": "string", "enum": ["x"]},
                "e": {"type": "integer"}
            }),
            json!([]),
        ),
        object(
            json!({
                "a": {"type": ["string", "null"]}, "b": {"type": ["string", "null"]},
                "c": {"type": "array", "items": {"type": "string"}},
                "d": {"type": ["string", "null"], "enum": ["x", null]}, "e": {"type": ["integer", "null"]}
            }),
            json!(["a", "b", "c", "d", "e"]),
        ),
        tool(
            json!({
                "a": {"type": "string"}, "b": {"type": ["string", "null"]},
                "c": {"type": "array", "items": {"type": "string"}}, "d": {"type": "string", "enum": ["x"]},
                "e": {"type": "integer"}
            }),
            json!([]),
        ),
    );
}

#[test]
fn numbers_of_items_and_formats() {
    let described =
        |description: &str| json!({"type": "array", "items": {"type": "string"}, "description": description});
    check(
        json!({"type": "object", "properties": {
            "l": {"type": "array", "items": {"type": "string"}, "minItems": 1, "maxItems": 5},
            "m": {"type": "array", "items": {"type": "string"}, "minItems": 2},
            "d": {"type": "string", "format": "date"},
            "u": {"type": "string", "format": "uri"},
            "p": {"type": "string", "pattern": "^[a-z]+$"}
        }, "required": ["l", "m", "d", "u", "p"]}),
        object(
            json!({
                "l": {"type": "array", "items": {"type": "string"}, "minItems": 1, "description": "At most 5 items"},
                "m": {"type": "array", "items": {"type": "string"}, "minItems": 1, "description": "At least 2 items"},
                "d": {"type": "string", "format": "date"},
                "u": {"type": "string", "format": "uri"},
                "p": {"type": "string", "description": "Matching the regular expression ^[a-z]+$"}
            }),
            json!(["l", "m", "d", "u", "p"]),
        ),
        object(
            json!({
                "l": described("1 to 5 items"), "m": described("At least 2 items"),
                "d": {"type": "string", "format": "date"},
                "u": {"type": "string", "description": "Format uri"},
                "p": {"type": "string", "description": "Matching the regular expression ^[a-z]+$"}
            }),
            json!(["l", "m", "d", "u", "p"]),
        ),
        tool(
            json!({
                "l": described("1 to 5 items"), "m": described("At least 2 items"),
                "d": {"type": "string", "description": "Format date"},
                "u": {"type": "string", "description": "Format uri"},
                "p": {"type": "string", "description": "Matching the regular expression ^[a-z]+$"}
            }),
            json!(["l", "m", "d", "u", "p"]),
        ),
    );
}

#[test]
fn references_are_kept_where_they_can_be() {
    let item = object(json!({"t": {"type": "string"}}), json!(["t"]));
    let kept = |required: Value, properties: Value| {
        let mut top = object(properties, required);
        top["$defs"] = json!({"Item": item});
        top
    };
    let mut with_description = item.clone();
    with_description["description"] = json!("The first");
    check(
        json!({
            "type": "object",
            "properties": {
                "all": {"type": "array", "items": {"$ref": "#/$defs/Item"}},
                "first": {"$ref": "#/$defs/Item", "description": "The first"}
            },
            "required": ["all", "first"],
            "$defs": {
                "Item": {"type": "object", "properties": {"t": {"type": "string"}}, "required": ["t"]},
                "Unused": {"type": "object", "additionalProperties": {"type": "string"}}
            }
        }),
        kept(
            json!(["all", "first"]),
            json!({"all": {"type": "array", "items": {"$ref": "#/$defs/Item"}}, "first": with_description}),
        ),
        kept(
            json!(["all", "first"]),
            json!({"all": {"type": "array", "items": {"$ref": "#/$defs/Item"}}, "first": with_description}),
        ),
        tool(
            json!({"all": {"type": "array", "items": item}, "first": with_description}),
            json!(["all", "first"]),
        ),
    );
}

#[test]
fn choices_of_constants_become_enums_with_their_meanings() {
    let lowered = json!({
        "type": "string", "enum": ["low", "high"],
        "description": "How urgent. `low`: can wait; `high`: cannot."
    });
    check(
        json!({"type": "object", "required": ["u"], "properties": {"u": {"description": "How urgent", "oneOf": [
            {"const": "low", "type": "string", "description": "can wait."},
            {"const": "high", "type": "string", "description": "cannot"}
        ]}}}),
        object(json!({"u": lowered}), json!(["u"])),
        object(json!({"u": lowered}), json!(["u"])),
        tool(json!({"u": lowered}), json!(["u"])),
    );
}

#[test]
fn other_choices_become_any_of_and_all_of_is_merged() {
    let schema = json!({"type": "object", "required": ["v"], "properties": {
        "v": {"oneOf": [{"type": "string", "maxLength": 3}, {"type": "null"}]},
        "w": {"allOf": [{"$ref": "#/$defs/W"}], "description": "own"}
    }, "$defs": {"W": {"type": "object", "properties": {"x": {"type": "boolean"}}, "required": ["x"]}}});
    let w = json!({"type": "object", "properties": {"x": {"type": "boolean"}}, "required": ["x"],
        "additionalProperties": false, "description": "own"});
    let mut nullable_w = w.clone();
    nullable_w["type"] = json!(["object", "null"]);
    let v = json!({"anyOf": [{"type": "string", "description": "At most 3 characters"}, {"type": "null"}]});
    check(
        schema,
        object(json!({"v": v, "w": w}), json!(["v"])),
        object(json!({"v": v, "w": nullable_w}), json!(["v", "w"])),
        tool(json!({"v": v, "w": w}), json!(["v"])),
    );
}

#[test]
fn what_cannot_be_said_is_refused_with_its_place() {
    for (schema, target, path, what) in [
        (
            json!({"type": "object", "additionalProperties": {"type": "string"}}),
            Target::Anthropic,
            "",
            "an object with free keys",
        ),
        (
            json!({"type": "object", "properties": {"a": {"type": "array", "prefixItems": [{"type": "string"}]}}}),
            Target::OpenAiStrict,
            "/properties/a",
            "a tuple",
        ),
        (
            json!({"type": "object", "properties": {"a": true}}),
            Target::Anthropic,
            "/properties/a",
            "a value of any type",
        ),
        (
            json!({"type": "object", "properties": {"a": {}}}),
            Target::Anthropic,
            "/properties/a",
            "a value of any type",
        ),
        (json!({"$ref": "https://x.example/s"}), Target::Anthropic, "", "a reference out of the document"),
        (
            json!({"type": "object", "properties": {"n": {"$ref": "#/$defs/N"}}, "$defs":
                {"N": {"type": "object", "properties": {"n": {"$ref": "#/$defs/N"}}}}}),
            Target::Anthropic,
            "/$defs/N/properties/n",
            "a recursive type",
        ),
        (json!({"type": "string"}), Target::OpenAiStrict, "", "the top of the schema is not one object"),
        (
            json!({"type": "object", "properties": {"a": {"type": "string"}}, "additionalProperties": {"type": "string"}}),
            Target::Anthropic,
            "",
            "an object with free keys",
        ),
        (
            json!({"type": "object", "properties": {}, "required": ["a"]}),
            Target::Anthropic,
            "",
            "a required member",
        ),
        (
            json!({"type": "object", "properties": {"a": {"type": "string"}}, "oneOf": [
                {"properties": {"b": {"type": "string"}}}, {"properties": {"c": {"type": "string"}}}]}),
            Target::OpenAiStrict,
            "",
            "the top of the schema is not one object",
        ),
        (
            json!({"type": "object", "properties": {"a": {"enum": [[1]]}}}),
            Target::Anthropic,
            "/properties/a",
            "an enum of arrays or objects",
        ),
    ] {
        let refused = lower(&schema, target).unwrap_err();
        assert_eq!(refused.path, path, "{schema}");
        assert!(refused.what.starts_with(what), "{schema}: {refused}");
    }
}

#[test]
fn bounds_go_to_those_who_take_them() {
    use Target::{Anthropic, Bedrock, BedrockTool, OpenAiCompatible, OpenAiStrict, OwnServer};
    for (member, taken_by) in [
        (json!({"type": "string", "minLength": 1, "maxLength": 300}), vec![OwnServer]),
        (json!({"type": ["string", "null"], "maxLength": 300}), vec![OwnServer]),
        // Too many repetitions for llama.cpp.
        (json!({"type": "string", "maxLength": 2000}), vec![]),
        (json!({"type": "integer", "minimum": 1, "maximum": 5}), vec![OpenAiStrict, OwnServer]),
        (json!({"type": "number", "minimum": 0.0, "exclusiveMaximum": 1.5}), vec![OpenAiStrict]),
        (json!({"type": "integer", "multipleOf": 5}), vec![OpenAiStrict]),
        (
            json!({"type": "array", "items": {"type": "boolean"}, "minItems": 2, "maxItems": 5}),
            vec![OpenAiStrict, OwnServer],
        ),
        (
            json!({"type": "array", "items": {"type": "boolean"}, "minItems": 1}),
            vec![Anthropic, Bedrock, OpenAiStrict, OwnServer],
        ),
        (
            json!({"type": "string", "pattern": "^[a-z]{2,3}(-[A-Z]{2})?$"}),
            vec![Anthropic, OpenAiStrict, OwnServer],
        ),
        // Engines differ over these.
        (json!({"type": "string", "pattern": "[a-z]"}), vec![]),
        (json!({"type": "string", "pattern": "^a|b$"}), vec![]),
        (json!({"type": "string", "pattern": "^(?=a)\\w+.$"}), vec![]),
        (
            json!({"type": "string", "format": "date"}),
            vec![Anthropic, Bedrock, OpenAiStrict, OwnServer, OpenAiCompatible],
        ),
        (
            json!({"type": "string", "format": "email"}),
            vec![Anthropic, Bedrock, OpenAiStrict, OpenAiCompatible],
        ),
        (
            json!({"type": "boolean"}),
            vec![Anthropic, Bedrock, OpenAiStrict, OwnServer, OpenAiCompatible, BedrockTool],
        ),
    ] {
        for target in Target::ALL {
            let schema = json!({"type": "object", "properties": {"m": member}, "required": ["m"]});
            let lowered = &lower(&schema, target).unwrap()["properties"]["m"];
            assert_eq!(*lowered == member, taken_by.contains(&target), "{target:?}: {member} as {lowered}");
            assert!(
                *lowered == member || lowered["description"].is_string(),
                "{target:?}: {lowered} says the rest"
            );
        }
    }
}

#[test]
fn vllm_takes_a_length_or_a_pattern() {
    let schema = json!({"type": "object", "properties": {"m": {"type": "string", "pattern": "^[a-z]+$", "maxLength": 9}}});
    let lowered = lower(&schema, Target::OwnServer).unwrap();
    let member = &lowered["properties"]["m"];
    assert_eq!((&member["pattern"], member.get("maxLength")), (&json!("^[a-z]+$"), None));
    assert_eq!(member["description"], "At most 9 characters");
}

#[test]
fn members_keep_their_order() {
    let properties =
        json!({"reason": {"type": "string"}, "zeal": {"type": "boolean"}, "about": {"type": "boolean"}});
    for target in Target::ALL {
        let schema =
            json!({"type": "object", "properties": properties, "required": ["about", "zeal", "reason"]});
        let lowered = lower(&schema, target).unwrap();
        let names: Vec<&String> = lowered["properties"].as_object().unwrap().keys().collect();
        assert_eq!(names, ["reason", "zeal", "about"], "{target:?}");
    }
}

#[test]
fn openai_takes_recursion() {
    let schema = json!({"type": "object", "required": ["n"], "properties": {"n": {"$ref": "#/$defs/N"}}, "$defs":
        {"N": {"type": "object", "properties": {"n": {"$ref": "#/$defs/N"}}}}});
    let lowered = lower(&schema, Target::OpenAiStrict).unwrap();
    assert_eq!(
        lowered["$defs"]["N"],
        object(json!({"n": {"anyOf": [{"$ref": "#/$defs/N"}, {"type": "null"}]}}), json!(["n"])),
    );
}

#[test]
fn no_keyword_that_a_provider_refuses_survives_anywhere() {
    let schema = json!({
        "$schema": "s", "$id": "i", "type": "object", "minProperties": 1, "unevaluatedProperties": false,
        "properties": {"a": {"type": "array", "uniqueItems": true, "contains": {"type": "string"}, "items":
            {"type": "object", "examples": [1], "if": {}, "then": {}, "not": {}, "dependentRequired": {}, "properties":
                {"x": {"type": "number", "exclusiveMinimum": 0.5, "multipleOf": 0.5, "deprecated": true}}}}},
        "required": ["a"]
    });
    fn keys(value: &Value, in_properties: bool, found: &mut Vec<String>) {
        if let Value::Object(map) = value {
            for (key, value) in map {
                if !in_properties {
                    found.push(key.clone());
                }
                keys(value, !in_properties && matches!(key.as_str(), "properties" | "$defs"), found);
            }
        }
    }
    for target in [Target::Bedrock, Target::OpenAiCompatible, Target::BedrockTool] {
        let lowered = lower(&schema, target).unwrap();
        let mut found = Vec::new();
        keys(&lowered, false, &mut found);
        for key in found {
            assert!(
                [
                    "type",
                    "properties",
                    "required",
                    "additionalProperties",
                    "items",
                    "description",
                    "enum",
                    "anyOf",
                    "$ref",
                    "$defs",
                    "format",
                    "minItems"
                ]
                .contains(&key.as_str()),
                "{target:?} kept {key}"
            );
        }
        assert_eq!(lowered["required"], json!(["a"]));
    }
}
