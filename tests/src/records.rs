//! The records that earlier releases wrote, as items of the table.

use std::collections::HashMap;
use std::path::Path;

use aws_sdk_dynamodb::types::AttributeValue;
use serde_json::Value;

/// An item of the table.
pub type Item = HashMap<String, AttributeValue>;

/// The records of all releases, by the name of their file: the state, and what is special about it.
#[must_use]
#[allow(clippy::unwrap_used)] // Files of the repository.
pub fn released() -> Vec<(String, Item)> {
    let releases = Path::new(env!("CARGO_MANIFEST_DIR")).join("../crates/aws/tests/records");
    let mut records = Vec::new();
    for release in std::fs::read_dir(releases).unwrap() {
        for file in std::fs::read_dir(release.unwrap().path()).unwrap() {
            let path = file.unwrap().path();
            let name = path.file_stem().unwrap().to_string_lossy().into_owned();
            let item: HashMap<String, Value> =
                serde_json::from_str(&std::fs::read_to_string(&path).unwrap()).unwrap();
            records.push((name, item.iter().map(|(name, typed)| (name.clone(), attribute(typed))).collect()));
        }
    }
    records.sort_by(|(a, _), (b, _)| a.cmp(b));
    records
}

/// Attributes that no release of today knows: of every type, and one that looks like a part of each state.
#[must_use]
pub fn unknown() -> Item {
    let text = |text: &str| AttributeValue::S(text.to_owned());
    let map = HashMap::from([("version".to_owned(), AttributeValue::N("3".to_owned()))]);
    [
        ("review", AttributeValue::M(map)),
        ("tags", AttributeValue::Ss(vec!["a".to_owned(), "b".to_owned()])),
        ("cached_input_tokens", AttributeValue::N("17".to_owned())),
        ("failure_tier", text("flex")),
        ("paused", AttributeValue::Bool(true)),
        ("nothing", AttributeValue::Null(true)),
        ("trail", AttributeValue::L(vec![text("ann"), text("bob")])),
    ]
    .into_iter()
    .map(|(name, value)| (name.to_owned(), value))
    .collect()
}

#[allow(clippy::panic)]
fn attribute(typed: &Value) -> AttributeValue {
    let one = typed.as_object().and_then(|typed| typed.iter().next());
    match one.map(|(kind, value)| (kind.as_str(), value)) {
        Some(("S", Value::String(text))) => AttributeValue::S(text.clone()),
        Some(("N", Value::String(digits))) => AttributeValue::N(digits.clone()),
        Some(("BOOL", Value::Bool(flag))) => AttributeValue::Bool(*flag),
        other => panic!("{other:?}"),
    }
}
