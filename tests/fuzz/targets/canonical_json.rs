//! Any text: strict JSON accepts what serde_json accepts, less what it names; a canonical form is a fixed point.
#![no_main]

use libfuzzer_sys::fuzz_target;
use nightshift_core::input_hash::canonical_json;
use nightshift_core::json::{self, JsonFault, QUOTABLE_CHARS_MAX};
use serde_json::Value;

fuzz_target!(|text: &str| {
    let lenient: Option<Value> = serde_json::from_str(text).ok();
    let strict = match (json::parse(text), &lenient) {
        (Ok(strict), Some(_)) => strict,
        (Ok(strict), None) => panic!("accepted, though it is not JSON: {strict}"),
        // serde_json stops by itself at a depth that we stop before.
        (Err(JsonFault::TooDeep), _) => return,
        (Err(JsonFault::DuplicateMember { name }), _) => {
            assert!(name.chars().count() <= QUOTABLE_CHARS_MAX);
            return;
        }
        (Err(fault), lenient) => {
            assert!(lenient.is_none(), "refused, though it is JSON: {fault}");
            return;
        }
    };
    assert_eq!(Some(&strict), lenient.as_ref());
    // Both speak of the text alone and must not panic; an exact number is an exact integer.
    if json::exact_numbers(text).is_ok() {
        assert!(json::exact_integers(text).is_ok());
    }

    let canonical = canonical_json(&strict);
    let again = json::parse(&canonical).expect("a canonical form is strict JSON");
    assert_eq!(canonical_json(&again), canonical);
    assert!(no_white_space(&canonical), "{canonical}");
    sorted(&canonical, &again);

    // The same value with its members in another order has the same canonical form.
    assert_eq!(canonical_json(&reversed(&strict)), canonical);
});

/// Outside of strings there is no white space, and inside them every control character is escaped.
fn no_white_space(canonical: &str) -> bool {
    let (mut quoted, mut escaped) = (false, false);
    canonical.chars().all(|c| {
        let allowed = if quoted { c >= ' ' } else { !c.is_whitespace() };
        match (quoted, escaped, c) {
            (true, true, _) => escaped = false,
            (true, false, '\\') => escaped = true,
            (_, _, '"') => quoted = !quoted,
            _ => {}
        }
        allowed
    })
}

/// The members of the outermost object stand in the order of their UTF-16 code units.
fn sorted(canonical: &str, value: &Value) {
    let Value::Object(members) = value else { return };
    let mut names: Vec<Vec<u16>> = members.keys().map(|name| name.encode_utf16().collect()).collect();
    names.sort();
    let mut rest = canonical.strip_prefix('{').expect("an object begins with a brace");
    for name in names {
        let name = String::from_utf16(&name).expect("it was a string");
        let member = format!("{}:", Value::String(name.clone()));
        rest = rest.strip_prefix(member.as_str()).expect("the next member is the next in order");
        rest = rest.strip_prefix(canonical_json(&members[&name]).as_str()).expect("its value follows");
        rest = rest.strip_prefix(',').unwrap_or(rest);
    }
    assert_eq!(rest, "}");
}

fn reversed(value: &Value) -> Value {
    match value {
        Value::Array(items) => Value::Array(items.iter().map(reversed).collect()),
        Value::Object(members) => {
            let members = members.iter().rev();
            Value::Object(members.map(|(name, value)| (name.clone(), reversed(value))).collect())
        }
        other => other.clone(),
    }
}
