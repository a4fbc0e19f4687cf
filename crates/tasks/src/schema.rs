//! The JSON Schema of a type, in the few keywords that all providers read.

use schemars::generate::SchemaSettings;
use schemars::transform::transform_subschemas;
use schemars::{JsonSchema, Schema};
use serde_json::Value;

/// JSON Schema (draft 2020-12) of a type: self-contained, without the names of Rust types.
pub(crate) fn of<T: JsonSchema>() -> Value {
    let settings = SchemaSettings::draft2020_12().with(|settings| {
        // One tree without references reads better in a prompt, and is less for an adapter to lower.
        settings.inline_subschemas = true;
        settings.meta_schema = None;
    });
    let mut schema = settings.into_generator().into_root_schema_for::<T>();
    schema.remove("title");
    tidy(&mut schema);
    schema.to_value()
}

fn tidy(schema: &mut Schema) {
    transform_subschemas(&mut tidy, schema);
    // `double` or `uint8` say how Rust stores a number, which is no format of JSON Schema.
    let names_a_rust_type = |format: &str| {
        matches!(format, "double" | "float") || format.trim_start_matches('u').starts_with("int")
    };
    if schema.get("format").and_then(Value::as_str).is_some_and(names_a_rust_type) {
        schema.remove("format");
    }
    if let Some(Value::String(text)) = schema.get_mut("description") {
        *text = unwrapped(text);
    }
    plain_enum(schema);
}

/// A doc comment is broken where the line is full, which means nothing to the model; its paragraphs do.
fn unwrapped(text: &str) -> String {
    let paragraphs = text.split("\n\n").map(|lines| lines.split_whitespace().collect::<Vec<_>>().join(" "));
    paragraphs.collect::<Vec<_>>().join("\n")
}

/// Words with descriptions of their own come as `oneOf` constants, which not every provider takes. The same as `enum`,
/// with the descriptions in one text, is understood by all.
fn plain_enum(schema: &mut Schema) {
    let Some(Value::Array(variants)) = schema.get("oneOf") else { return };
    let Some(words): Option<Vec<(String, &str)>> = variants
        .iter()
        .map(|variant| {
            let word = variant.get("const")?.as_str()?;
            let description = variant.get("description").and_then(Value::as_str).unwrap_or_default();
            Some((word.to_owned(), description))
        })
        .collect()
    else {
        return;
    };
    let list: String = words
        .iter()
        .filter(|(_, description)| !description.is_empty())
        .map(|(word, description)| format!("\n`{word}`: {description}"))
        .collect();
    let before = schema.get("description").and_then(Value::as_str).unwrap_or_default().to_owned();
    let words: Vec<Value> = words.into_iter().map(|(word, _)| Value::String(word)).collect();
    schema.remove("oneOf");
    schema.insert("type".to_owned(), "string".into());
    schema.insert("enum".to_owned(), Value::Array(words));
    schema.insert("description".to_owned(), format!("{before}{list}").trim_start().into());
}
