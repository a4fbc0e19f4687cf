//! How well inputs did against a model, and how that differs from others: what `task try` shows.

use std::collections::{BTreeMap, BTreeSet};

use serde::Serialize;
use serde_json::Value;

use crate::text::cut;

/// Differences of one output that a cell tells: more are read in JSON.
const DIFFERENCES_TOLD_MAX: usize = 4;
/// The longest value in a cell, in characters.
const VALUE_CHARS_MAX: usize = 40;
/// What a cell shows of the beginning that two long values share, in characters: enough to find the place.
const ALIKE_CHARS_MAX: usize = 10;
/// The longest path in a cell, in characters.
const MEMBER_CHARS_MAX: usize = 60;

/// What became of one input, as far as it is compared.
#[derive(Debug, Clone, PartialEq)]
pub struct Case {
    /// The line of the file.
    pub line: u64,
    /// It ended as a result that nobody need look at; with an expected output: as that.
    pub passed: bool,
    /// The validated output.
    pub output: Option<Value>,
    /// Millionths of a dollar.
    pub cost_micro_usd: u64,
    /// Until it was settled.
    pub took_ms: u64,
}

/// All of them.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub struct Summary {
    /// How many.
    pub cases: u64,
    /// How many of them passed.
    pub passed: u64,
    /// Millionths of a dollar.
    pub cost_micro_usd: u64,
    /// The middle one, the lower of two.
    pub median_ms: u64,
}

impl Summary {
    /// Of these.
    #[must_use]
    pub fn of(cases: &[Case]) -> Self {
        let mut times: Vec<_> = cases.iter().map(|case| case.took_ms).collect();
        times.sort_unstable();
        Self {
            cases: cases.len() as u64,
            passed: cases.iter().filter(|case| case.passed).count() as u64,
            cost_micro_usd: cases.iter().map(|case| case.cost_micro_usd).sum(),
            median_ms: times.get(times.len().saturating_sub(1) / 2).copied().unwrap_or_default(),
        }
    }

    /// In percent; of no cases none passed.
    #[must_use]
    pub fn pass_percent(&self) -> f64 {
        if self.cases == 0 { 0.0 } else { self.passed as f64 * 100.0 / self.cases as f64 }
    }

    /// Whether at least this share passed, compared exactly where both are whole.
    #[must_use]
    pub fn reaches(&self, least_percent: f64) -> bool {
        self.cases > 0 && self.passed as f64 * 100.0 >= least_percent * self.cases as f64
    }
}

/// A member that two outputs do not have alike.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Difference {
    /// Where it stands in the output: `category`, `tags[2].name`, `["a.b"].c`; empty where the whole output differs.
    pub member: String,
    /// What it is in ours; `None` where ours has no such member.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ours: Option<Value>,
    /// What it is in theirs.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub theirs: Option<Value>,
}

/// The outputs that differ, by line and in order, each with its differences. Who has no output for a line differs from who
/// has one.
#[must_use]
pub fn differing(ours: &[Case], theirs: &[Case]) -> BTreeMap<u64, Vec<Difference>> {
    let outputs = |cases: &[Case]| -> BTreeMap<u64, Value> {
        cases.iter().filter_map(|case| Some((case.line, case.output.clone()?))).collect()
    };
    let (ours, theirs) = (outputs(ours), outputs(theirs));
    let lines: BTreeSet<u64> = ours.keys().chain(theirs.keys()).copied().collect();
    lines
        .into_iter()
        .filter_map(|line| {
            let mut found = Vec::new();
            differences(String::new(), ours.get(&line), theirs.get(&line), &mut found);
            (!found.is_empty()).then_some((line, found))
        })
        .collect()
}

fn differences(member: String, ours: Option<&Value>, theirs: Option<&Value>, found: &mut Vec<Difference>) {
    match (ours, theirs) {
        (ours, theirs) if ours == theirs => {}
        (Some(Value::Object(ours)), Some(Value::Object(theirs))) => {
            for name in ours.keys().chain(theirs.keys().filter(|name| !ours.contains_key(*name))) {
                differences(within(&member, name), ours.get(name), theirs.get(name), found);
            }
        }
        (Some(Value::Array(ours)), Some(Value::Array(theirs))) => {
            for at in 0..ours.len().max(theirs.len()) {
                differences(format!("{member}[{at}]"), ours.get(at), theirs.get(at), found);
            }
        }
        (ours, theirs) => {
            found.push(Difference { member, ours: ours.cloned(), theirs: theirs.cloned() });
        }
    }
}

/// The path of a member. A name that could be read as a path itself is quoted, as JSON is.
fn within(path: &str, name: &str) -> String {
    let is_plain = !name.is_empty() && name.chars().all(|c| c.is_alphanumeric() || matches!(c, '_' | '-'));
    if !is_plain {
        return format!("{path}[{}]", Value::from(name));
    }
    let dot = if path.is_empty() { "" } else { "." };
    format!("{path}{dot}{name}")
}

/// For a cell of a table: `category: billing → technical`, the first ones of many, and of long values the part where they
/// begin to differ.
#[must_use]
pub fn in_short(differences: &[Difference]) -> String {
    let mut told: Vec<String> =
        differences.iter().take(DIFFERENCES_TOLD_MAX).map(Difference::in_short).collect();
    let more = differences.len() - told.len();
    if more > 0 {
        told.push(format!("{more} more"));
    }
    told.join("; ")
}

impl Difference {
    fn in_short(&self) -> String {
        let (ours, theirs) = match (&self.ours, &self.theirs) {
            // Only where both are texts, or `1` and `"1"` would read the same.
            (Some(Value::String(ours)), Some(Value::String(theirs))) => (ours.clone(), theirs.clone()),
            (ours, theirs) => {
                let text = |value: &Option<Value>| value.as_ref().map_or("none".to_owned(), Value::to_string);
                (text(ours), text(theirs))
            }
        };
        let alike = ours.chars().zip(theirs.chars()).take_while(|(a, b)| a == b).count();
        let is_long = |text: &str| text.chars().nth(VALUE_CHARS_MAX).is_some();
        let skipped =
            if is_long(&ours) || is_long(&theirs) { alike.saturating_sub(ALIKE_CHARS_MAX) } else { 0 };
        let from = |text: &str| {
            let mark = if skipped > 0 { "…" } else { "" };
            cut(&format!("{mark}{}", text.chars().skip(skipped).collect::<String>()), VALUE_CHARS_MAX)
        };
        let member = if self.member.is_empty() { "output" } else { &self.member };
        format!("{}: {} → {}", cut(member, MEMBER_CHARS_MAX), from(&ours), from(&theirs))
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn case(line: u64, passed: bool, output: Value, took_ms: u64) -> Case {
        Case { line, passed, output: Some(output), cost_micro_usd: 5, took_ms }
    }

    #[test]
    fn a_threshold_is_reached_by_the_share_that_passed() {
        let of = |passed: u64, cases: u64| Summary { passed, cases, ..Summary::default() };
        for (summary, percent, least, reaches) in [
            (of(19, 20), 95.0, 95.0, true),
            (of(18, 20), 90.0, 95.0, false),
            (of(20, 20), 100.0, 100.0, true),
            (of(999, 1_000), 99.9, 100.0, false),
            (of(1, 4), 25.0, 25.1, false),
            (of(0, 20), 0.0, 0.0, true),
            (of(0, 0), 0.0, 0.0, false),
        ] {
            assert_eq!(summary.pass_percent(), percent, "{summary:?}");
            assert_eq!(summary.reaches(least), reaches, "{summary:?} {least}");
        }
    }

    #[test]
    fn outputs_are_compared_as_values() {
        let ours = [
            case(1, true, json!({"a": 1, "b": 2}), 30),
            case(2, true, json!(1), 10),
            case(4, false, json!(1), 20),
        ];
        let theirs = [
            case(1, true, json!({"b": 2, "a": 1}), 1),
            case(2, true, json!(2), 1),
            case(3, true, json!(1), 1),
        ];
        let differing = differing(&ours, &theirs);
        assert_eq!(differing.keys().collect::<Vec<_>>(), [&2, &3, &4]);
        let whole = |ours, theirs| vec![Difference { member: String::new(), ours, theirs }];
        assert_eq!(differing[&2], whole(Some(json!(1)), Some(json!(2))));
        assert_eq!(differing[&3], whole(None, Some(json!(1))));
        let summary = Summary::of(&ours);
        assert_eq!(
            (summary.cases, summary.passed, summary.cost_micro_usd, summary.median_ms),
            (3, 2, 15, 20)
        );
    }

    #[test]
    fn no_two_members_have_one_path() {
        for (output, member) in [
            (json!({"a": {"b": 1}}), "a.b"),
            (json!({"a.b": 1}), r#"["a.b"]"#),
            (json!({"a": {"b.c": {"d": 1}}}), r#"a["b.c"].d"#),
            (json!({"a": [1]}), "a[0]"),
            (json!({"a[0]": 1}), r#"["a[0]"]"#),
            (json!({"[\"a\"]": 1}), r#"["[\"a\"]"]"#),
            (json!({"": 1}), r#"[""]"#),
            (json!({"": {"": 1}}), r#"[""][""]"#),
            (json!({"a": {"": 1}}), r#"a[""]"#),
            (json!([{"first name": 1}]), r#"[0]["first name"]"#),
            (json!({"line\nbreak": 1}), r#"["line\nbreak"]"#),
            (json!({"Größe_in-cm": 1}), "Größe_in-cm"),
        ] {
            let other = output.to_string().replace('1', "2");
            let other = serde_json::from_str(&other).unwrap();
            let differing = differing(&[case(1, true, output, 1)], &[case(1, true, other, 1)]);
            let members: Vec<_> = differing[&1].iter().map(|difference| &difference.member).collect();
            assert_eq!(members, [member]);
        }
    }

    #[test]
    fn a_difference_is_told_by_its_member_and_where_it_begins() {
        let long = "The customer asks for the third time where the invoice of October is";
        for (ours, theirs, told) in [
            (
                json!({"a": 1, "category": "billing"}),
                json!({"category": "technical", "a": 1}),
                "category: billing → technical",
            ),
            (
                json!({"a": {"b": [1, {"c": null}]}}),
                json!({"a": {"b": [1, {"c": false}]}}),
                "a.b[1].c: null → false",
            ),
            (json!({"n": 1}), json!({"n": "1"}), "n: 1 → \"1\""),
            (json!({"a": [1, 2]}), json!({"a": [1], "b": {}}), "a[1]: 2 → none; b: none → {}"),
            (json!([]), json!({}), "output: [] → {}"),
            (
                json!([1, 2, 3, 4, 5, 6]),
                json!([0, 0, 0, 0, 0, 0]),
                "[0]: 1 → 0; [1]: 2 → 0; [2]: 3 → 0; [3]: 4 → 0; 2 more",
            ),
            (
                json!({"text": format!("{long} today.")}),
                json!({"text": format!("{long} not here.")}),
                "text: …ctober is today. → …ctober is not here.",
            ),
            (
                json!({"text": long}),
                json!({"text": "Invoice."}),
                "text: The customer asks for the third time wh… → Invoice.",
            ),
            (
                json!({"text": long}),
                json!({"text": "The customer asks for the third time."}),
                "text: …third time where the invoice of Octobe… → …third time.",
            ),
            (json!({"x".repeat(80): 1}), json!({}), &format!("{}…: 1 → none", "x".repeat(59))),
        ] {
            let differing = differing(&[case(1, true, ours, 1)], &[case(1, true, theirs, 1)]);
            assert_eq!(in_short(&differing[&1]), told);
        }
    }
}
