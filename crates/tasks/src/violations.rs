//! Broken rules as sentences: one each, with the path of the member, and never with its value.

use nightshift_core::task::{VIOLATIONS_LISTED_MAX, Violations};
use nightshift_core::text::cut;
use serde_json::Value;
use validator::{ValidationError, ValidationErrors, ValidationErrorsKind};

/// The member under which a rule about a whole value files its error; the name is validator's own.
pub(crate) const WHOLE: &str = "__all__";

/// The longest member name that a path or a sentence repeats, in characters: names may come from outside too.
const NAME_CHARS_MAX: usize = 64;

/// The root of every path.
pub(crate) const ROOT: &str = "$";

/// The sentences for what `validate` found, sorted by member, so that the same fault always reads the same.
pub(crate) fn of_rules(errors: &ValidationErrors) -> Violations {
    let mut sentences = Vec::new();
    collect(errors, ROOT, &mut sentences);
    bounded(sentences)
}

/// At most `VIOLATIONS_LISTED_MAX` sentences; the last one tells how many are left out.
fn bounded(mut sentences: Vec<String>) -> Violations {
    if sentences.len() > VIOLATIONS_LISTED_MAX {
        let listed = VIOLATIONS_LISTED_MAX - 1;
        let left_out = sentences.len() - listed;
        sentences.truncate(listed);
        sentences.push(format!("{left_out} more violations are not listed."));
    }
    Violations(sentences)
}

fn collect(errors: &ValidationErrors, path: &str, sentences: &mut Vec<String>) {
    let mut members: Vec<_> = errors.errors().iter().collect();
    members.sort_by_key(|(name, _)| *name);
    for (name, kind) in members {
        let path = if name == WHOLE { path.to_owned() } else { format!("{path}{}", member(name)) };
        match kind {
            ValidationErrorsKind::Field(errors) => {
                sentences.extend(errors.iter().map(|error| sentence(&path, &predicate(error))));
            }
            ValidationErrorsKind::Struct(errors) => collect(errors, &path, sentences),
            ValidationErrorsKind::List(items) => {
                for (index, errors) in items {
                    collect(errors, &format!("{path}[{index}]"), sentences);
                }
            }
        }
    }
}

/// "The value at $.member must be …."
pub(crate) fn sentence(path: &str, predicate: &str) -> String {
    format!("The value at {path} {}.", predicate.trim_end_matches('.'))
}

/// A member as a step of a JSONPath.
pub(crate) fn member(name: &str) -> String {
    let plain = !name.is_empty()
        && name.len() <= NAME_CHARS_MAX
        && name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_')
        && !name.starts_with(|c: char| c.is_ascii_digit());
    if plain { format!(".{name}") } else { format!("[{}]", quoted(name)) }
}

/// A member name for a sentence: bounded, on one line, and with nothing invisible in it.
pub(crate) fn quoted(name: &str) -> String {
    format!("\"{}\"", cut(name, NAME_CHARS_MAX).escape_debug())
}

/// What the value must do, for validator's own rules; custom rules bring their own words.
fn predicate(error: &ValidationError) -> String {
    if let Some(message) = &error.message {
        return message.clone().into_owned();
    }
    let parameter = |name: &str| error.params.get(name);
    match error.code.as_ref() {
        "length" => {
            let (unit, has) = match parameter("value") {
                Some(Value::String(text)) => ("character", Some(text.chars().count())),
                Some(Value::Array(items)) => ("item", Some(items.len())),
                _ => ("element", None),
            };
            let must = match (parameter("equal"), parameter("min"), parameter("max")) {
                (Some(equal), ..) => format!("exactly {equal}"),
                (_, Some(min), Some(max)) => format!("{min} to {max}"),
                (_, Some(min), None) => format!("at least {min}"),
                (_, None, Some(max)) => format!("at most {max}"),
                (_, None, None) => "another number of".to_owned(),
            };
            let must = format!("must have {must} {unit}{}", if must.ends_with(" 1") { "" } else { "s" });
            has.map_or(must.clone(), |has| format!("has {has} and {must}"))
        }
        "range" => {
            let limits = [
                ("min", "at least"),
                ("exclusive_min", "more than"),
                ("max", "at most"),
                ("exclusive_max", "less than"),
            ];
            let must: Vec<String> = limits
                .iter()
                .filter_map(|(name, words)| parameter(name).map(|limit| format!("{words} {limit}")))
                .collect();
            format!("must be {}", must.join(" and "))
        }
        "email" => "must be an e-mail address".to_owned(),
        "url" => "must be a URL".to_owned(),
        "ip" => "must be an IP address".to_owned(),
        "required" => "must be given".to_owned(),
        "regex" => "must have the form that its schema describes".to_owned(),
        "contains" => "must contain what its rule asks for".to_owned(),
        "does_not_contain" => "contains what its rule forbids".to_owned(),
        "must_match" => "must be the same as the member that repeats it".to_owned(),
        "non_control_character" => "must not contain control characters".to_owned(),
        code => format!("breaks the rule {code}"),
    }
}

#[cfg(test)]
mod tests {
    use serde::{Deserialize, Serialize};
    use validator::Validate;

    use super::*;

    #[derive(Deserialize, Serialize, Validate)]
    struct Outer {
        #[validate(length(min = 2, max = 3))]
        word: String,
        #[validate(length(min = 1))]
        list: Vec<u8>,
        #[validate(length(max = 2), nested)]
        inner: Vec<Inner>,
        #[validate(range(min = 0.0, max = 1.5))]
        share: f64,
        #[validate(range(exclusive_min = 2, exclusive_max = 4))]
        three: u8,
        #[validate(length(equal = 2))]
        pair: Option<String>,
        #[validate(length(max = 1))]
        letter: String,
        #[validate(email)]
        mail: Option<String>,
        #[validate(nested)]
        one: Option<Inner>,
    }

    #[derive(Deserialize, Serialize, Validate)]
    #[validate(schema(function = agrees))]
    struct Inner {
        #[validate(custom(function = even))]
        even: u8,
        half: u8,
    }

    fn even(n: u8) -> Result<(), validator::ValidationError> {
        if n.is_multiple_of(2) { Ok(()) } else { Err(validator::ValidationError::new("even")) }
    }

    fn agrees(inner: &Inner) -> Result<(), validator::ValidationError> {
        if inner.half * 2 == inner.even {
            return Ok(());
        }
        Err(validator::ValidationError::new("agrees").with_message("must have half of even in half.".into()))
    }

    fn check(change: &str, expected: &[&str]) {
        let mut value: Value = serde_json::from_str(
            r#"{"word":"ab","list":[1],"inner":[],"share":1,"three":3,"pair":null,"letter":"","mail":null,"one":null}"#,
        )
        .unwrap();
        let change: Value = serde_json::from_str(change).unwrap();
        value.as_object_mut().unwrap().extend(change.as_object().unwrap().clone());
        let outer: Outer = serde_json::from_value(value).unwrap();
        let found = outer.validate().err().map_or(vec![], |errors| of_rules(&errors).0);
        assert_eq!(found, expected, "{change}");
    }

    #[test]
    fn every_broken_rule_is_one_sentence_with_a_path_and_without_the_value() {
        check("{}", &[]);
        check(r#"{"word":"日"}"#, &["The value at $.word has 1 and must have 2 to 3 characters."]);
        check(r#"{"list":[]}"#, &["The value at $.list has 0 and must have at least 1 item."]);
        check(r#"{"letter":"secret"}"#, &["The value at $.letter has 6 and must have at most 1 character."]);
        check(r#"{"pair":"a"}"#, &["The value at $.pair has 1 and must have exactly 2 characters."]);
        check(r#"{"share":-0.1}"#, &["The value at $.share must be at least 0.0 and at most 1.5."]);
        check(r#"{"three":4}"#, &["The value at $.three must be more than 2 and less than 4."]);
        check(r#"{"mail":"secret"}"#, &["The value at $.mail must be an e-mail address."]);
        check(r#"{"one":{"even":1,"half":0}}"#, &["The value at $.one.even breaks the rule even."]);
        check(r#"{"one":{"even":2,"half":2}}"#, &["The value at $.one must have half of even in half."]);
        check(
            r#"{"inner":[{"even":2,"half":1},{"even":3,"half":1},{"even":4,"half":1}],"word":""}"#,
            &[
                "The value at $.inner has 3 and must have at most 2 items.",
                "The value at $.word has 0 and must have 2 to 3 characters.",
            ],
        );
        check(
            r#"{"inner":[{"even":3,"half":1},{"even":4,"half":1}]}"#,
            &[
                "The value at $.inner[0].even breaks the rule even.",
                "The value at $.inner[1] must have half of even in half.",
            ],
        );
    }

    #[test]
    fn long_lists_of_violations_say_how_much_is_left_out() {
        let many = |n: usize| bounded((0..n).map(|i| i.to_string()).collect()).0;
        assert_eq!(many(VIOLATIONS_LISTED_MAX).len(), VIOLATIONS_LISTED_MAX);
        let listed = many(VIOLATIONS_LISTED_MAX + 5);
        assert_eq!(listed.len(), VIOLATIONS_LISTED_MAX);
        assert_eq!(listed.last().unwrap(), "6 more violations are not listed.");
    }

    #[test]
    fn names_from_outside_are_quoted_bounded_and_visible() {
        for (name, expected) in [
            ("summary", ".summary"),
            ("two words", "[\"two words\"]"),
            ("", "[\"\"]"),
            ("a\"\n\u{202e}b", "[\"a\\\"\\n\\u{202e}b\"]"),
            ("7th", "[\"7th\"]"),
        ] {
            assert_eq!(member(name), expected);
        }
        assert_eq!(quoted(&"x".repeat(100)).chars().count(), NAME_CHARS_MAX + 2);
    }
}
