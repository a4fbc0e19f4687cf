//! What a type accepts, its lowered schema accepts: for types as people write them, and for schemas that nobody would.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::string_slice,
    missing_docs,
    reason = "helpers of tests"
)]

use std::collections::BTreeSet;

use nightshift_models::lower_schema::{Target, lower};
use proptest::prelude::*;
use schemars::JsonSchema;
use schemars::generate::SchemaSettings;
use serde::Serialize;
use serde_json::{Map, Value, json};

#[derive(Serialize, JsonSchema)]
struct Place {
    city: String,
    zip: Option<String>,
}

#[derive(Serialize, JsonSchema)]
enum External {
    Unknown,
    At(Place),
    Named { name: String, near: Option<Place> },
}

#[derive(Serialize, JsonSchema)]
#[serde(tag = "kind", rename_all = "snake_case")]
enum Internal {
    Nothing,
    At(Place),
    Named { name: String },
}

#[derive(Serialize, JsonSchema)]
#[serde(tag = "kind", content = "of")]
enum Adjacent {
    Nothing,
    At(Place),
}

#[derive(Serialize, JsonSchema)]
#[serde(untagged)]
enum Untagged {
    Text(String),
    Number { number: i32 },
    At(Place),
}

/// A choice beside members, and two of them.
#[derive(Serialize, JsonSchema)]
struct Flattened {
    id: u8,
    #[serde(flatten)]
    place: Place,
    #[serde(flatten)]
    internal: Internal,
}

#[derive(Serialize, JsonSchema)]
struct FlattenedTwice {
    id: u8,
    #[serde(flatten)]
    external: External,
    #[serde(flatten)]
    untagged: Body,
}

#[derive(Serialize, JsonSchema)]
#[serde(untagged)]
enum Body {
    Long { body: String },
    Short { gist: String },
}

#[derive(Serialize, JsonSchema)]
struct Nested {
    reasons: Vec<Untagged>,
    internal: Internal,
    maybe: Option<Adjacent>,
    nothing: Adjacent,
    flattened: Vec<Flattened>,
    twice: FlattenedTwice,
    external: External,
}

fn place() -> Place {
    Place { city: "Ulm".to_owned(), zip: None }
}

fn nested(external: External, internal: Internal, body: Body) -> Nested {
    Nested {
        reasons: vec![Untagged::Text("a".to_owned()), Untagged::Number { number: 1 }, Untagged::At(place())],
        internal: Internal::Named { name: "n".to_owned() },
        maybe: Some(Adjacent::At(place())),
        nothing: Adjacent::Nothing,
        flattened: vec![
            Flattened { id: 1, place: place(), internal },
            Flattened { id: 2, place: place(), internal: Internal::Nothing },
        ],
        twice: FlattenedTwice { id: 1, external, untagged: body },
        external: External::Unknown,
    }
}

fn accepts(schema: &Value, value: &Value) -> bool {
    jsonschema::validator_for(schema).unwrap_or_else(|error| panic!("{error}: {schema}")).is_valid(value)
}

#[test]
fn whatever_a_type_writes_its_lowered_schema_accepts() {
    let values = [
        nested(External::At(place()), Internal::At(place()), Body::Long { body: "b".to_owned() }),
        nested(
            External::Named { name: "n".to_owned(), near: Some(place()) },
            Internal::Nothing,
            Body::Short { gist: "g".to_owned() },
        ),
    ];
    for inline_subschemas in [true, false] {
        let settings =
            SchemaSettings::draft2020_12().with(|settings| settings.inline_subschemas = inline_subschemas);
        let schema = settings.into_generator().into_root_schema_for::<Nested>().to_value();
        for target in Target::ALL {
            let lowered =
                lower(&schema, target).unwrap_or_else(|error| panic!("{target:?}: {error}: {schema}"));
            for value in &values {
                let value = serde_json::to_value(value).unwrap();
                assert!(accepts(&schema, &value), "{value}");
                assert!(accepts(&lowered, &value), "{target:?}: {value}: {lowered:#}");
            }
            // The neighbours of a choice are not lost, either.
            let mut without = serde_json::to_value(&values[0]).unwrap();
            without["flattened"][0].as_object_mut().unwrap().shift_remove("id");
            assert!(!accepts(&lowered, &without), "{target:?}");
        }
    }
}

/// A choice at the top, as a flattened enum makes it.
#[test]
fn a_choice_at_the_top_is_sent_or_refused_and_never_cut() {
    let schema =
        SchemaSettings::draft2020_12().into_generator().into_root_schema_for::<FlattenedTwice>().to_value();
    let value = serde_json::to_value(
        nested(External::At(place()), Internal::Nothing, Body::Long { body: "b".to_owned() }).twice,
    )
    .unwrap();
    for target in Target::ALL {
        match lower(&schema, target) {
            Ok(lowered) => assert!(accepts(&lowered, &value), "{target:?}: {lowered:#}"),
            Err(refused) => assert!(refused.what.contains("a member of its own"), "{target:?}: {refused}"),
        }
    }
}

const NAMES: [&str; 4] = ["a", "b", "c", "d"];

fn leaf() -> impl Strategy<Value = Value> {
    prop_oneof![
        Just(json!({"type": "string"})),
        Just(json!({"type": "string", "minLength": 1, "maxLength": 3})),
        Just(json!({"type": "string", "pattern": "^[a-z]{1,3}$"})),
        Just(json!({"type": "integer", "minimum": 0, "maximum": 5})),
        Just(json!({"type": "number", "exclusiveMinimum": -1.5})),
        Just(json!({"type": "boolean"})),
        Just(json!({"type": ["string", "null"]})),
        Just(json!({"type": ["integer", "null"], "minimum": 2})),
        Just(json!({"enum": ["x", "y"]})),
        Just(json!({"enum": [1, 2, "x", null]})),
        Just(json!({"const": "x"})),
        Just(json!({"oneOf": [{"const": "x", "description": "X"}, {"const": "y"}]})),
        Just(json!({"$ref": "#/$defs/Text"})),
        Just(json!({"$ref": "#/$defs/Thing", "description": "a thing"})),
    ]
}

/// Schemas of values, with whatever may stand beside each other.
fn schema() -> impl Strategy<Value = Value> {
    leaf().prop_recursive(4, 40, 4, |inner| {
        let object = (prop::collection::vec((prop::sample::select(&NAMES[..]), inner.clone(), any::<bool>()), 0..4), any::<bool>())
            .prop_map(|(members, closed)| object_of(members, closed));
        let variants = prop::collection::vec(prop_oneof![3 => object.clone(), 1 => inner.clone()], 1..4);
        prop_oneof![
            3 => object.clone(),
            1 => (inner.clone(), 0_u64..3).prop_map(|(items, least)| json!({"type": "array", "items": items, "minItems": least, "maxItems": 3})),
            2 => (variants.clone(), any::<bool>()).prop_map(|(variants, one)| json!({(if one { "oneOf" } else { "anyOf" }): variants})),
            3 => (object.clone(), variants.clone(), any::<bool>()).prop_map(|(object, variants, one)| with(object, if one { "oneOf" } else { "anyOf" }, json!(variants))),
            2 => (object.clone(), prop::collection::vec(object.clone(), 1..3)).prop_map(|(object, parts)| with(object, "allOf", json!(parts))),
            2 => object.clone().prop_map(|object| with(object, "$ref", json!("#/$defs/Thing"))),
            1 => (variants.clone(), variants).prop_map(|(a, b)| json!({"anyOf": a, "oneOf": b})),
        ]
    })
}

fn object_of(members: Vec<(&str, Value, bool)>, closed: bool) -> Value {
    let required: BTreeSet<&str> = members.iter().filter(|member| member.2).map(|member| member.0).collect();
    let properties: Map<String, Value> =
        members.into_iter().map(|(name, schema, _)| (name.to_owned(), schema)).collect();
    let mut object = json!({"type": "object", "properties": properties, "required": required});
    if closed {
        object["additionalProperties"] = json!(false);
    }
    object
}

fn with(mut object: Value, keyword: &str, value: Value) -> Value {
    object[keyword] = value;
    object
}

fn defs() -> Value {
    json!({
        "Text": {"type": "string", "maxLength": 4},
        "Thing": {"type": "object", "properties": {"t": {"$ref": "#/$defs/Text"}, "n": {"type": "integer"}}, "required": ["t"]},
    })
}

/// Values that come near to what the schemas ask for.
fn value() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(json!("x")),
        Just(json!("abc")),
        Just(json!("")),
        Just(json!(2)),
        Just(json!(0.5)),
        Just(json!(true)),
        Just(Value::Null),
    ];
    leaf.prop_recursive(4, 30, 4, |inner| {
        let names = prop::sample::select(&["a", "b", "c", "d", "t", "n"][..]);
        prop_oneof![
            3 => prop::collection::vec((names, inner.clone()), 0..5).prop_map(|members| {
                Value::Object(members.into_iter().map(|(name, value)| (name.to_owned(), value)).collect())
            }),
            1 => prop::collection::vec(inner, 0..3).prop_map(Value::Array),
        ]
    })
}

/// A value that the schema accepts, found by following it; `None` where it was not found.
fn follow(root: &Value, schema: &Value, seed: u64, depth: usize) -> Option<Value> {
    if depth > 24 {
        return None;
    }
    let pick = |list: &[Value]| list.get((seed as usize / 7 + depth) % list.len().max(1)).cloned();
    if let Some(constant) = schema.get("const") {
        return Some(constant.clone());
    }
    if let Some(values) = schema.get("enum").and_then(Value::as_array) {
        return pick(values);
    }
    let mut parts: Vec<Value> = Vec::new();
    if let Some(reference) = schema.get("$ref").and_then(Value::as_str) {
        parts.push(root.pointer(reference.strip_prefix('#')?)?.clone());
    }
    parts.extend(schema.get("allOf").and_then(Value::as_array).into_iter().flatten().cloned());
    for choice in ["oneOf", "anyOf"] {
        parts.extend(schema.get(choice).and_then(Value::as_array).and_then(|list| pick(list)));
    }
    let mut made = match schema.get("type") {
        Some(Value::Array(kinds)) => {
            follow(root, &with(schema.clone(), "type", pick(kinds)?), seed / 3, depth + 1)?
        }
        Some(Value::String(kind)) => match kind.as_str() {
            "string" => json!("abc"),
            "integer" => json!(3),
            "number" => json!(0.5),
            "boolean" => json!(true),
            "null" => Value::Null,
            "array" => Value::Array(vec![follow(root, &schema["items"], seed / 5, depth + 1)?; 2]),
            _ => {
                let mut members = Map::new();
                for (index, (name, member)) in schema.get("properties")?.as_object()?.iter().enumerate() {
                    members.insert(
                        name.clone(),
                        follow(root, member, seed.rotate_right(index as u32 + 1), depth + 1)?,
                    );
                }
                Value::Object(members)
            }
        },
        _ => follow(root, parts.first()?, seed / 2, depth + 1)?,
    };
    for part in parts {
        if let (Value::Object(made), Some(Value::Object(more))) =
            (&mut made, follow(root, &part, seed / 2, depth + 1))
        {
            made.extend(more);
        }
    }
    Some(made)
}

/// The schema for values with nothing in them that it does not describe, along one variant of each choice: lowered
/// objects are closed, and a member that only another variant knows is one that the type would ignore.
fn described(schema: &Value, is_place: bool) -> Value {
    let Value::Object(keywords) = schema else { return schema.clone() };
    let each =
        |list: &Value| list.as_array().unwrap().iter().map(|one| described(one, false)).collect::<Vec<_>>();
    let places = |members: &Value, is_place| {
        let members = members.as_object().unwrap();
        members.iter().map(|(name, one)| (name.clone(), described(one, is_place))).collect::<Map<_, _>>()
    };
    let mut out = Map::new();
    let mut all = Vec::new();
    for (keyword, value) in keywords {
        match keyword.as_str() {
            "properties" => out.insert(keyword.clone(), Value::Object(places(value, true))),
            "$defs" => out.insert(keyword.clone(), Value::Object(places(value, false))),
            "items" => out.insert(keyword.clone(), described(value, true)),
            "oneOf" | "anyOf" => {
                all.push(json!({"oneOf": each(value)}));
                None
            }
            "allOf" => {
                all.extend(each(value));
                None
            }
            _ => out.insert(keyword.clone(), value.clone()),
        };
    }
    if !all.is_empty() {
        out.insert("allOf".to_owned(), Value::Array(all));
    }
    if is_place {
        out.insert("unevaluatedProperties".to_owned(), json!(false));
    }
    Value::Object(out)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 512, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn whatever_a_schema_accepts_the_lowered_one_accepts(
        member in schema(),
        others in prop::collection::vec(value(), 8),
        seeds in prop::collection::vec(any::<u64>(), 8),
    ) {
        let schema = json!({"type": "object", "properties": {"m": member}, "required": ["m"], "$defs": defs()});
        let validator = jsonschema::validator_for(&described(&schema, true)).unwrap();
        let followed = seeds.iter().filter_map(|seed| follow(&schema, &schema["properties"]["m"], *seed, 0));
        let values: Vec<Value> = followed.chain(others).map(|value| json!({"m": value})).filter(|value| validator.is_valid(value)).collect();
        for target in Target::ALL {
            // A refusal is said, and costs the provider's grammar only.
            let Ok(lowered) = lower(&schema, target) else { continue };
            let accepted = jsonschema::validator_for(&lowered).unwrap();
            for value in &values {
                // Where all members are required, an absent one is written as null; that is another value.
                let all_there = !matches!(target, Target::OpenAiStrict | Target::OwnServer | Target::OpenAiCompatible);
                let fits = accepted.is_valid(value) || (!all_there && accepted.is_valid(&filled(value, &lowered, &lowered)));
                prop_assert!(fits, "{target:?}\n{schema:#}\n{lowered:#}\n{value}");
            }
        }
    }
}

/// The value with `null` for each member that is absent, along the first variant that then fits.
fn filled(value: &Value, lowered: &Value, root: &Value) -> Value {
    if let Some(reference) = lowered.get("$ref").and_then(Value::as_str) {
        return filled(value, root.pointer(&reference[1..]).unwrap(), root);
    }
    if let Some(variants) = lowered.get("anyOf").and_then(Value::as_array) {
        let fits = |variant: &Value, value: &Value| {
            let mut variant = variant.clone();
            if let Some(defs) = root.get("$defs") {
                variant["$defs"] = defs.clone();
            }
            accepts(&variant, value)
        };
        return variants
            .iter()
            .map(|variant| (variant, filled(value, variant, root)))
            .find(|(variant, value)| fits(variant, value))
            .map_or_else(|| value.clone(), |(_, value)| value);
    }
    match value {
        Value::Object(members) => {
            let Some(known) = lowered.get("properties").and_then(Value::as_object) else {
                return value.clone();
            };
            let mut all = members.clone();
            for (name, schema) in known {
                let member = members.get(name).map_or(Value::Null, |member| filled(member, schema, root));
                all.insert(name.clone(), member);
            }
            Value::Object(all)
        }
        Value::Array(items) => Value::Array(
            items
                .iter()
                .map(|item| filled(item, lowered.get("items").unwrap_or(&Value::Null), root))
                .collect(),
        ),
        other => other.clone(),
    }
}
