//! Tells an answer from a copy of the example that stands in the prompt.
//!
//! Small models repeat the example, whole or in part, whatever they were asked; each rule of the task accepts it. So a
//! text that repeats the example's is refused, unless it may be right: the input or the task's own words say it too, or
//! the input is the example's. Whoever means the same can say it in other words, so no answer is made impossible; and
//! what has no text (choices, numbers, short names) is never judged, because any of its values may be right.
//!
//! Compared is what a reader would call the same: letters and digits, without case, white space and punctuation;
//! numbers by their value; members in any order.

use serde_json::Value;

use crate::json::quotable;

/// A text of the example is told apart from a coincidence from so many characters on, about eight words. Two writers of
/// their own do not choose the same eight.
pub const TEXT_CHARS_MIN: usize = 40;

/// All texts of a whole output together, from so many characters on: less can be chance in a whole output too, as with
/// two names or a title.
pub const WHOLE_CHARS_MIN: usize = 20;

/// A character of Chinese, Japanese or Korean says about as much as three letters.
const DENSE_FROM: char = '\u{2e80}';
const DENSE_CHARS: usize = 3;

/// The example of a task's prompt, ready to compare with.
#[derive(Debug, Clone)]
pub struct ExampleOfPrompt {
    output: Value,
    /// The texts of its input that are long enough to know it by.
    input_texts: Vec<String>,
    /// The texts of its output that the rest of the prompt does not say.
    own_texts: Vec<String>,
}

impl ExampleOfPrompt {
    /// `prescribed`: everything else of the prompt (instructions, schema). What it says, an answer may repeat.
    #[must_use]
    pub fn new(input: &Value, output: Value, prescribed: &[&str]) -> Self {
        let prescribed: Vec<String> = prescribed.iter().map(|text| folded(text)).collect();
        let mut input_texts = texts(input);
        input_texts.retain(|text| weight(text) >= WHOLE_CHARS_MIN);
        let mut own_texts = texts(&output);
        own_texts.retain(|text| !prescribed.iter().any(|said| said.contains(text)));
        Self { output, input_texts, own_texts }
    }

    /// What in the output is the example's and cannot be of this input: one sentence each, without the text.
    #[must_use]
    pub fn copied_by(&self, input: &Value, output: &Value) -> Vec<String> {
        // The input may be long, and is read only where something depends on it.
        if self.own_texts.is_empty() || !self.is_repeated_in(output) {
            return Vec::new();
        }
        let said = texts(input).concat();
        let is_of_example =
            !self.input_texts.is_empty() && self.input_texts.iter().all(|text| said.contains(text));
        if is_of_example {
            return Vec::new();
        }
        let own: Vec<&str> =
            self.own_texts.iter().map(String::as_str).filter(|text| !said.contains(text)).collect();
        if alike(output, &self.output)
            && own.iter().map(|text| weight(text)).sum::<usize>() >= WHOLE_CHARS_MIN
        {
            return vec![
                "The answer repeats the example of the schema, which is about another input: answer about this input."
                    .to_owned(),
            ];
        }
        let mut found = Vec::new();
        each_text(output, &mut "$".to_owned(), &mut |path, text| {
            let text = folded(text);
            if own.iter().any(|own| is_copy(own, &text)) && !said.contains(&text) {
                found.push(format!(
                    "The value at {path} repeats the example of the schema, which is about another input: write it about this input, in words of its own."
                ));
            }
        });
        found
    }

    /// Whether the output, or a text in it, is the example's, whatever its input says.
    fn is_repeated_in(&self, output: &Value) -> bool {
        alike(output, &self.output)
            || texts(output).iter().any(|text| self.own_texts.iter().any(|own| is_copy(own, text)))
    }
}

/// Whether one of two folded texts holds the other, which is too long for chance.
fn is_copy(own: &str, text: &str) -> bool {
    (weight(own) >= TEXT_CHARS_MIN && text.contains(own))
        || (weight(text) >= TEXT_CHARS_MIN && own.contains(text))
}

/// Equal but for what a reader would not call a difference.
fn alike(a: &Value, b: &Value) -> bool {
    match (a, b) {
        (Value::String(a), Value::String(b)) => {
            let (a_folded, b_folded) = (folded(a), folded(b));
            // Of signs alone, the signs are what counts.
            if a_folded.is_empty() && b_folded.is_empty() {
                a.trim() == b.trim()
            } else {
                a_folded == b_folded
            }
        }
        (Value::Number(a), Value::Number(b)) => a.as_f64() == b.as_f64(),
        (Value::Array(a), Value::Array(b)) => a.len() == b.len() && a.iter().zip(b).all(|(a, b)| alike(a, b)),
        (Value::Object(a), Value::Object(b)) => {
            a.len() == b.len() && a.iter().all(|(name, a)| b.get(name).is_some_and(|b| alike(a, b)))
        }
        _ => a == b,
    }
}

fn folded(text: &str) -> String {
    text.chars().filter(|c| c.is_alphanumeric()).flat_map(char::to_lowercase).collect()
}

/// The length of a folded text, in letters.
fn weight(folded: &str) -> usize {
    folded.chars().map(|c| if c >= DENSE_FROM { DENSE_CHARS } else { 1 }).sum()
}

/// All texts of a value, folded; none is empty.
fn texts(value: &Value) -> Vec<String> {
    let mut found = Vec::new();
    each_text(value, &mut String::new(), &mut |_, text| found.push(folded(text)));
    found.retain(|text| !text.is_empty());
    found
}

fn each_text(value: &Value, path: &mut String, visit: &mut impl FnMut(&str, &str)) {
    let length = path.len();
    match value {
        Value::String(text) => visit(path, text),
        Value::Array(items) => {
            for (index, item) in items.iter().enumerate() {
                path.push_str(&format!("[{index}]"));
                each_text(item, path, visit);
                path.truncate(length);
            }
        }
        Value::Object(members) => {
            for (name, member) in members {
                path.push('.');
                path.push_str(&quotable(name));
                each_text(member, path, visit);
                path.truncate(length);
            }
        }
        Value::Null | Value::Bool(_) | Value::Number(_) => {}
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    const REASON: &str = "An invoice was charged twice, and the customer asks for a refund of the second.";
    const TICKET: &str = "I was charged twice for October. Please refund the second one.";

    fn example() -> ExampleOfPrompt {
        ExampleOfPrompt::new(
            &json!({"subject": "Twice??", "text": TICKET}),
            json!({"category": "billing", "confidence": 0.9, "human": false, "reason": REASON, "tags": ["refund"],
                "note": "Nothing can be said about this text, because it is empty."}),
            &["Write \"Nothing can be said about this text, because it is empty\" where there is none."],
        )
    }

    #[test]
    fn a_copy_is_told_whatever_its_form() {
        let whole = |change: &dyn Fn(&mut Value)| {
            let mut output = example().output;
            change(&mut output);
            output
        };
        let short_of_tags = |output: &mut Value| output["tags"] = json!(["other"]);
        for (output, at) in [
            (whole(&|_| {}), "The answer"),
            (
                whole(&|o| o["reason"] = json!(REASON.to_uppercase().replace(' ', "  \n").replace(',', ""))),
                "The answer",
            ),
            (whole(&|o| o["confidence"] = json!(0.900)), "The answer"),
            (whole(&|o| o["tags"] = json!(["Refund!"])), "The answer"),
            (serde_json::from_str(&whole(&|_| {}).to_string()).unwrap(), "The answer"),
            (whole(&short_of_tags), "The value at $.reason"),
            (json!({"reason": format!("Summary: {REASON} Thanks.")}), "The value at $.reason"),
            (
                json!({"list": [{"a": "x"}, {"a": "an invoice was charged twice and the customer asks for a refund"}]}),
                "The value at $.list[1].a",
            ),
        ] {
            let found = example().copied_by(&json!({"text": "Where is my parcel?"}), &output);
            assert_eq!(found.len(), 1, "{output}: {found:?}");
            assert!(found[0].starts_with(at), "{output}: {found:?}");
            assert!(!found[0].contains("invoice"), "no text is quoted: {found:?}");
        }
    }

    #[test]
    fn a_number_is_compared_by_its_value_and_signs_alone_by_what_they_are() {
        let example = ExampleOfPrompt::new(
            &json!({"text": TICKET}),
            json!({"reason": REASON, "score": 1, "mark": "!?", "list": [1, 2]}),
            &[],
        );
        for (score, mark, list, at) in [
            (json!(1.0), " !?", json!([1, 2.0]), "The answer"),
            (json!(2), "!?", json!([1, 2]), "The value at $.reason"),
            (json!("1"), "!?", json!([1, 2]), "The value at $.reason"),
            (json!(1), "?!", json!([1, 2]), "The value at $.reason"),
            (json!(1), "a", json!([1, 2]), "The value at $.reason"),
            (json!(1), "!?", json!([1, 2, 3]), "The value at $.reason"),
        ] {
            let output = json!({"reason": REASON, "score": score, "mark": mark, "list": list});
            let found = example.copied_by(&json!({"text": "Where is my parcel?"}), &output);
            assert!(found.len() == 1 && found[0].starts_with(at), "{output}: {found:?}");
        }
    }

    #[test]
    fn what_may_be_right_is_accepted() {
        let other = json!({"text": "Where is my parcel?"});
        let copy = example().output;
        for (input, output) in [
            // Of the example's own input, however it is written, the example is the answer.
            (json!({"text": TICKET, "subject": "Twice??"}), copy.clone()),
            (json!({"text": format!("> {}\n\nSent from my phone", TICKET.to_lowercase())}), copy.clone()),
            // What stands in the input may be repeated.
            (json!({"text": format!("They wrote: {REASON}")}), copy.clone()),
            (
                other.clone(),
                json!({"reason": "A parcel is late, and the customer asks where it is.", "category": "billing"}),
            ),
            // Choices, numbers and short texts say nothing.
            (
                other.clone(),
                json!({"category": "billing", "confidence": 0.9, "human": false, "tags": ["refund"]}),
            ),
            (other.clone(), json!({"reason": "The customer asks for a refund."})),
            // What the prompt prescribes.
            (
                json!({"text": "…"}),
                json!({"note": "Nothing can be said about this text, because it is empty."}),
            ),
            (other.clone(), json!({})),
            (other, json!({"reason": "", "tags": ["", "…", "!"]})),
        ] {
            assert_eq!(example().copied_by(&input, &output), Vec::<String>::new(), "{input} {output}");
        }
    }

    #[test]
    fn an_example_without_texts_of_its_own_refuses_nothing() {
        for output in
            [json!({"category": "billing", "score": 3}), json!({"title": "The Magic Mountain"}), json!([])]
        {
            let example = ExampleOfPrompt::new(&json!({"text": "x"}), output.clone(), &[]);
            assert_eq!(example.copied_by(&json!({"text": "y"}), &output), Vec::<String>::new(), "{output}");
        }
    }

    #[test]
    fn dense_scripts_say_more_in_fewer_characters() {
        let text = "請求書が二重に請求され、返金を求めています。";
        let example = ExampleOfPrompt::new(&json!("x"), json!({"reason": text, "n": 1}), &[]);
        assert_eq!(example.copied_by(&json!("荷物はどこですか"), &json!({"reason": text, "n": 2})).len(), 1);
        assert_eq!(
            example.copied_by(&json!("荷物はどこですか"), &json!({"reason": "返金を求めています"})),
            Vec::<String>::new()
        );
    }

    proptest! {
        #[test]
        fn texts_of_their_own_pass(
            words in prop::collection::vec("[a-z]{1,9}|請求|Ünlü|[0-9]{1,4}", 0..40),
            category in "billing|other",
            confidence in 0.0..1.0_f64,
        ) {
            // Eight words in a row that are the example's are not drawn by chance.
            let output = json!({"category": category, "confidence": confidence, "reason": words.join(" "), "tags": words});
            prop_assert_eq!(example().copied_by(&json!({"text": "Where is my parcel?"}), &output), Vec::<String>::new());
        }

        #[test]
        fn what_the_input_says_may_be_said(text in ".{0,200}") {
            let example = ExampleOfPrompt::new(&json!("x"), json!({"a": text.clone()}), &[]);
            prop_assert_eq!(example.copied_by(&json!({"t": ["so", text.clone()]}), &json!({"a": text})), Vec::<String>::new());
        }

        #[test]
        fn a_copy_of_any_long_text_is_told(words in prop::collection::vec("[a-zäéñ]{3,9}", 15..40)) {
            let text = words.join(" ");
            let example = ExampleOfPrompt::new(&json!("x"), json!({"a": text.clone(), "b": 1}), &[]);
            prop_assert_eq!(example.copied_by(&json!("y"), &json!({"a": text.to_uppercase(), "b": 2})).len(), 1);
        }
    }
}
