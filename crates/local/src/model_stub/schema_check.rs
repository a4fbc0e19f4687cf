//! What structured output refuses in a schema ("Structured outputs", JSON Schema limitations, Claude API docs).

use serde_json::Value;

/// Keywords that are refused wherever they stand.
const REFUSED: [&str; 15] = [
    "minimum",
    "maximum",
    "exclusiveMinimum",
    "exclusiveMaximum",
    "multipleOf",
    "minLength",
    "maxLength",
    "maxItems",
    "uniqueItems",
    "contains",
    "minProperties",
    "maxProperties",
    "patternProperties",
    "if",
    "not",
];

/// Deeper schemas are refused; recursion would be infinitely deep.
const DEPTH_MAX: usize = 32;

/// Refuses a schema that the API would not compile, with the place and the reason.
pub(super) fn check(schema: &Value) -> Result<(), String> {
    node(schema, schema, "#", 0)
}

fn node(root: &Value, schema: &Value, path: &str, depth: usize) -> Result<(), String> {
    let members = schema.as_object().ok_or_else(|| format!("{path}: must be an object"))?;
    if depth > DEPTH_MAX {
        return Err(format!("{path}: recursive schemas are not supported"));
    }
    if let Some(keyword) = REFUSED.iter().find(|keyword| members.contains_key(**keyword)) {
        return Err(format!("{path}: property '{keyword}' is not supported"));
    }
    if members.get("minItems").is_some_and(|least| !matches!(least.as_u64(), Some(0 | 1))) {
        return Err(format!("{path}: 'minItems' values other than 0 or 1 are not supported"));
    }
    if members
        .get("enum")
        .and_then(Value::as_array)
        .is_some_and(|values| values.iter().any(|value| value.is_object() || value.is_array()))
    {
        return Err(format!("{path}: complex types in enums are not supported"));
    }
    if let Some(reference) = members.get("$ref") {
        let target = reference
            .as_str()
            .and_then(|reference| reference.strip_prefix('#'))
            .and_then(|pointer| root.pointer(pointer))
            .ok_or_else(|| format!("{path}: '$ref' must point into the schema"))?;
        node(root, target, path, depth + 1)?;
    }
    let is_object = members.get("type").is_some_and(|kind| {
        kind == "object" || kind.as_array().is_some_and(|kinds| kinds.iter().any(|kind| kind == "object"))
    });
    if is_object && members.get("additionalProperties") != Some(&Value::Bool(false)) {
        return Err(format!(
            "{path}: for 'object' type, 'additionalProperties' must be explicitly set to false"
        ));
    }
    for (name, property) in members.get("properties").and_then(Value::as_object).into_iter().flatten() {
        node(root, property, &format!("{path}/properties/{name}"), depth + 1)?;
    }
    if let Some(items) = members.get("items") {
        node(root, items, &format!("{path}/items"), depth + 1)?;
    }
    for keyword in ["anyOf", "allOf", "oneOf"] {
        for (index, option) in
            members.get(keyword).and_then(Value::as_array).into_iter().flatten().enumerate()
        {
            node(root, option, &format!("{path}/{keyword}/{index}"), depth + 1)?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn what_can_be_compiled_passes_and_the_rest_is_refused_by_name() {
        let object = |property: Value| json!({ "type": "object", "properties": { "a": property }, "required": ["a"], "additionalProperties": false });
        for passes in [
            object(json!({ "type": "string", "format": "date", "description": "at most 3 characters" })),
            object(json!({ "type": "array", "items": { "type": "integer" }, "minItems": 1 })),
            object(json!({ "anyOf": [{ "type": "null" }, { "enum": ["x", "y"] }] })),
            json!({ "$ref": "#/$defs/a", "$defs": { "a": object(json!({ "type": "boolean" })) } }),
        ] {
            assert_eq!(check(&passes), Ok(()), "{passes}");
        }
        for (refused, word) in [
            (object(json!({ "type": "string", "maxLength": 3 })), "maxLength"),
            (object(json!({ "type": "number", "minimum": 0 })), "minimum"),
            (object(json!({ "type": "array", "items": { "type": "string" }, "minItems": 2 })), "minItems"),
            (object(json!({ "enum": [{}] })), "enums"),
            (object(json!({ "type": "object", "properties": {} })), "additionalProperties"),
            (object(json!({ "$ref": "https://example.com" })), "$ref"),
            (json!({ "$ref": "#" }), "recursive"),
            (json!(true), "object"),
        ] {
            let reason = check(&refused).unwrap_err();
            assert!(reason.contains(word), "{reason}");
        }
    }
}
