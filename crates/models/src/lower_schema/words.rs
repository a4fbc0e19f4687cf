//! What of a schema is said in words, since the provider does not take it otherwise.

use serde_json::{Map, Value};

/// The description, followed by what could not be said otherwise.
pub(super) fn describe(node: &Map<String, Value>, notes: Vec<String>, out: &mut Map<String, Value>) {
    let said = node.get("description").and_then(Value::as_str).unwrap_or_default().trim();
    let notes = notes.join("; ");
    let description = match (said.is_empty(), notes.is_empty()) {
        (true, true) => return,
        (false, true) => said.to_owned(),
        (true, false) => capitalised(&notes),
        (false, false) => format!("{} {}.", ended(said), capitalised(&notes)),
    };
    out.insert("description".to_owned(), Value::String(description));
}

fn ended(sentence: &str) -> String {
    if sentence.ends_with(['.', '!', '?', ':']) { sentence.to_owned() } else { format!("{sentence}.") }
}

fn capitalised(text: &str) -> String {
    let mut chars = text.chars();
    chars.next().map(|first| first.to_uppercase().chain(chars).collect()).unwrap_or_default()
}
