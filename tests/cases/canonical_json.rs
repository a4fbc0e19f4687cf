//! The input hash stands on RFC 8785.

use nightshift_core::input_hash::{InputHash, canonical_json, hex};
use nightshift_core::{job, json};
use nightshift_tests::cases;
use serde_json::{Number, Value};

#[test]
fn the_published_vectors_come_out_byte_for_byte() {
    let Some(folder) = cases::folder("canonical_json") else { return };
    let inputs = cases::files(&folder.join("input"));
    assert_eq!(inputs.len(), 6);
    for (name, input) in inputs {
        let canonical = canonical_json(&json::parse(std::str::from_utf8(&input).unwrap()).unwrap());
        assert_eq!(canonical, cases::text(&folder.join("output"), &name), "{name}");
        let bytes = cases::text(&folder.join("outhex"), &name.replace(".json", ".txt"));
        let bytes: Vec<_> = bytes.split_whitespace().collect();
        assert_eq!(hex(canonical.as_bytes()), bytes.concat(), "{name}");
        // What is canonical stays as it is.
        assert_eq!(canonical_json(&json::parse(&canonical).unwrap()), canonical, "{name}");
    }
}

#[test]
fn ten_thousand_numbers_print_as_ecmascript_prints_them() {
    let Some(folder) = cases::folder("canonical_json") else { return };
    let lines = cases::text(&folder, "es6_numbers_10000.txt");
    let mut count = 0;
    for line in lines.lines() {
        let (bits, expected) = line.split_once(',').unwrap();
        let number = f64::from_bits(u64::from_str_radix(bits, 16).unwrap());
        let value = Value::Number(Number::from_f64(number).unwrap());
        assert_eq!(canonical_json(&value), expected, "{bits}");
        // Read back, it is the same number and prints the same.
        assert_eq!(canonical_json(&json::parse(expected).unwrap()), expected, "{bits}");
        count += 1;
    }
    assert_eq!(count, 10_000);
}

#[test]
fn no_number_is_not_a_number() {
    for (text, what) in
        [("NaN", "expected value"), ("Infinity", "expected value"), ("-Infinity", "invalid number")]
    {
        let fault = json::parse(text).unwrap_err().to_string();
        assert!(fault.ends_with(what), "{text}: {fault}");
    }
    assert_eq!(json::parse("1e400").unwrap_err().to_string().split(": ").last(), Some("number out of range"));
}

#[test]
fn inputs_that_are_equal_share_a_key_and_others_do_not() {
    let Some(folder) = cases::folder("canonical_json") else { return };
    let mut seen = 0;
    for line in cases::text(&folder, "key_relations.jsonl").lines() {
        let case: Value = serde_json::from_str(line).unwrap();
        let text = |name: &str| case[name].as_str().unwrap().to_owned();
        let name = text("name");
        // Cases that have a task of their own are jobs; all others are inputs of one task.
        let key = |json: &str| {
            let parsed: Value = serde_json::from_str(json).unwrap();
            let body = if parsed.get("task").is_some() {
                json.to_owned()
            } else {
                format!("{{\"task\":\"t\",\"input\":{json}}}")
            };
            let job = job::parse(&body, 900 * 1_024).unwrap_or_else(|r| panic!("{name}: {r}"));
            InputHash::of_job(&job.task, &job.input)
        };
        let same = key(&text("a")) == key(&text("b"));
        assert_eq!(same, text("relation") == "same", "{name}");
        if name == "utf16_key_order" {
            let canonical = canonical_json(&json::parse(&text("a")).unwrap());
            assert!(canonical.starts_with("{\"😀\""), "members sort by UTF-16 code units: {canonical}");
        }
        seen += 1;
    }
    assert_eq!(seen, 31);
}
