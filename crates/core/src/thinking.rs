//! Takes off what a model thinks aloud, so that only what it answers is left.
//!
//! Servers that know a model's frames move its thinking into a member of its own; others leave it in the text. A draft
//! within it is not the answer, however well it parses.
//!
//! **Invariant:** what stands in a string of a JSON object is data. A tag there opens and closes nothing.
//!
//! Sources: "Reasoning Outputs" (vLLM docs) and "Reasoning Parser" (SGLang docs) for the tags of DeepSeek R1, Qwen,
//! Seed-OSS, Kimi, Magistral, Hunyuan and Granite, and for answers that only close their thinking; "OpenAI harmony
//! response format" (OpenAI cookbook) for channels; the model cards of Command A Reasoning (Cohere), OpenThinker,
//! Apertus and Apriel for theirs.

use std::borrow::Cow;

use crate::json;

/// What is left where something was taken off: a line of its own, and no JSON, so that the text before and after never
/// grow together into an object that the model did not write.
const TAKEN_OFF: &str = "\n…\n";

/// A tag's name is about thinking when it holds one of these.
const THINKING_WORDS: [&str; 8] =
    ["think", "thought", "reason", "reflect", "analysis", "scratchpad", "monologue", "draft"];

/// Names of tags that stand around an answer.
const ANSWER_NAMES: [&str; 6] =
    ["answer", "final_answer", "response", "final_response", "solution", "output"];

/// Tokens that end a message, where a server lets them through.
const END_TOKENS: [&str; 7] =
    ["<|end|>", "<|return|>", "<|call|>", "<|im_end|>", "<|eot_id|>", "<|endoftext|>", "</s>"];

/// Frames that have no form in common with others: how each opens, and how it closes.
const ODD_FRAMES: [(&str, &str); 2] =
    [("<|channel>", "<channel|>"), ("<|inner_prefix|>", "<|inner_suffix|>")];

/// Sentences with which thinking begins (Granite, Apriel).
const THINKING_STARTS: [&str; 3] =
    ["here is my thought process:", "here's my thought process:", "here are my reasoning steps:"];

/// What stands between thinking and answer, whatever was before it (Granite, Apriel, harmony without its tokens).
const ANSWER_STARTS: [&str; 4] =
    ["here is my response:", "here's my response:", "[begin final response]", "assistantfinal"];

/// Longest name of a tag or a channel, and longest attributes of one, in bytes: what is longer is text.
const NAME_BYTES_MAX: usize = 40;
const ATTRIBUTES_BYTES_MAX: usize = 200;

/// Something that is neither thinking nor answer, but says which of the two begins or ends.
enum Marker {
    Open(String),
    Close(String),
    /// Whatever was said before is not the answer.
    AnswerStarts,
    /// Around an answer, or at its end.
    AroundAnswer,
}

/// The text without thinking and its frames.
///
/// Thinking that only ends (`…</think>`) began with the text: templates often open it in the prompt.
///
/// # Errors
/// One sentence, when the text ends within thinking: it then holds no answer.
pub fn without_thinking(answer: &str) -> Result<Cow<'_, str>, String> {
    let start = answer.len() - answer.trim_start().len();
    let marker = |at: usize, open: &[String]| marker(answer.get(at..)?, at == start, open);
    if !answer.char_indices().any(|(at, _)| marker(at, &[]).is_some()) {
        return Ok(Cow::Borrowed(answer));
    }
    let mut said = String::with_capacity(answer.len());
    let mut open: Vec<String> = Vec::new();
    let mut at = 0;
    while let Some(rest) = answer.get(at..).filter(|rest| !rest.is_empty()) {
        if rest.starts_with('{')
            && let Ok((_, length)) = json::parse_prefix(rest)
        {
            if open.is_empty() {
                said.push_str(rest.get(..length).unwrap_or_default());
            }
            at += length;
            continue;
        }
        let Some((marker, length)) = marker(at, &open) else {
            let next = rest.chars().next().unwrap_or_default();
            if open.is_empty() {
                said.push(next);
            }
            at += next.len_utf8();
            continue;
        };
        at += length;
        match marker {
            // Tokens do not nest; a second one of the same name is the model speaking of the first.
            Marker::Open(name) if open.contains(&name) => {}
            Marker::Open(name) => open.push(name),
            Marker::Close(name) => match open.iter().position(|opened| *opened == name) {
                Some(outermost) => open.truncate(outermost),
                None if open.is_empty() => said.clear(),
                None => {}
            },
            Marker::AnswerStarts => {
                open.clear();
                said.clear();
            }
            Marker::AroundAnswer => {}
        }
        if open.is_empty() {
            said.push_str(TAKEN_OFF);
        }
    }
    if open.is_empty() {
        Ok(Cow::Owned(said))
    } else {
        Err("The answer ends within its thinking, so there is no answer: think less, and answer with the JSON object."
            .to_owned())
    }
}

/// The marker with which the rest of a text starts, and its length. `open` are the frames that stand open.
fn marker(rest: &str, is_first: bool, open: &[String]) -> Option<(Marker, usize)> {
    let is_open = |name: &str| open.iter().any(|opened| opened == name);
    match rest.chars().next()? {
        '<' => channel(rest)
            .or_else(|| odd_frame(rest))
            .or_else(|| end_token(rest, is_open("channel")))
            .or_else(|| tag(rest, is_open("details"))),
        '[' => starts_with_any(rest, &ANSWER_STARTS)
            .map(|length| (Marker::AnswerStarts, length))
            .or_else(|| starts_with_any(rest, &["[end final response]"]).map(|n| (Marker::AroundAnswer, n)))
            .or_else(|| plain_tag(rest, '[', ']')),
        '◁' => plain_tag(rest, '◁', '▷'),
        '`' if is_open("```") => rest.starts_with("```").then(|| (Marker::Close("```".to_owned()), 3)),
        '`' => fence(rest),
        'h' | 'H' => starts_with_any(rest, &THINKING_STARTS)
            .map(|length| (Marker::Open("sentence".to_owned()), length))
            .or_else(|| starts_with_any(rest, &ANSWER_STARTS).map(|n| (Marker::AnswerStarts, n))),
        // Harmony whose tokens were left out of the text: `analysis…assistantfinal…`.
        'a' if is_first => {
            rest.starts_with("analysis").then(|| (Marker::Open("analysis".to_owned()), "analysis".len()))
        }
        'a' if is_open("analysis") => {
            starts_with_any(rest, &ANSWER_STARTS).map(|length| (Marker::AnswerStarts, length))
        }
        _ => None,
    }
}

/// The length of the one with which the text starts, in whatever case.
fn starts_with_any(text: &str, starts: &[&str]) -> Option<usize> {
    starts
        .iter()
        .find(|start| text.get(..start.len()).is_some_and(|head| head.eq_ignore_ascii_case(start)))
        .map(|start| start.len())
}

/// Harmony: `<|channel|>analysis<|message|>`; only the channel `final` is the answer.
fn channel(rest: &str) -> Option<(Marker, usize)> {
    const START: &str = "<|channel|>";
    const MESSAGE: &str = "<|message|>";
    let header = rest.strip_prefix(START)?;
    let thinking = |length| Some((Marker::Open("channel".to_owned()), length));
    let end = header
        .char_indices()
        .map(|(at, _)| at)
        .take_while(|at| *at <= NAME_BYTES_MAX)
        .find(|at| header.get(*at..).is_some_and(|rest| rest.starts_with(MESSAGE)));
    let Some(end) = end else {
        return thinking(START.len());
    };
    let length = START.len() + end + MESSAGE.len();
    if header.trim_start().starts_with("final") {
        Some((Marker::AnswerStarts, length))
    } else {
        thinking(length)
    }
}

fn odd_frame(rest: &str) -> Option<(Marker, usize)> {
    ODD_FRAMES.iter().find_map(|(opens, closes)| {
        if rest.starts_with(opens) {
            return Some((Marker::Open((*opens).to_owned()), opens.len()));
        }
        rest.starts_with(closes).then(|| (Marker::Close((*opens).to_owned()), closes.len()))
    })
}

fn end_token(rest: &str, in_channel: bool) -> Option<(Marker, usize)> {
    let token = END_TOKENS.iter().find(|token| rest.starts_with(**token))?;
    let marker = if in_channel { Marker::Close("channel".to_owned()) } else { Marker::AroundAnswer };
    Some((marker, token.len()))
}

/// `<think>`, `</seed:think>`, `<|begin_of_thought|>`, `<|END_THINKING|>`, `<thinking effort="low">`,
/// `<details type="reasoning">`, and the same for answers.
fn tag(rest: &str, in_details: bool) -> Option<(Marker, usize)> {
    let end = find_near(rest, '>', NAME_BYTES_MAX + ATTRIBUTES_BYTES_MAX)?;
    let inner = rest.get(1..end)?;
    let length = end + 1;
    let (inner, closes) = inner.strip_prefix('/').map_or((inner, false), |inner| (inner, true));
    let inner = inner.trim_matches('|').to_ascii_lowercase();
    let (name, attributes) = inner.split_once(char::is_whitespace).unwrap_or((inner.as_str(), ""));
    if !is_name(name) {
        return None;
    }
    if name == "details" {
        return match closes {
            true => in_details.then(|| (Marker::Close("details".to_owned()), length)),
            false => is_thinking(attributes).then(|| (Marker::Open("details".to_owned()), length)),
        };
    }
    let without = |prefixes: [&str; 2]| prefixes.into_iter().find_map(|prefix| name.strip_prefix(prefix));
    let (name, closes) = match (without(["end_of_", "end_"]), without(["begin_of_", "start_"])) {
        (Some(name), _) => (name, true),
        (_, Some(name)) => (name, closes),
        _ => (name, closes),
    };
    framed(name, closes, length)
}

/// `[THINK]`, `[/THINK]`, `◁think▷`, `◁/think▷`.
fn plain_tag(rest: &str, open: char, close: char) -> Option<(Marker, usize)> {
    let inner = rest.strip_prefix(open)?;
    let end = find_near(inner, close, NAME_BYTES_MAX)?;
    let name = inner.get(..end)?;
    let length = open.len_utf8() + end + close.len_utf8();
    let (name, closes) = name.strip_prefix('/').map_or((name, false), |name| (name, true));
    if is_name(name) { framed(&name.to_ascii_lowercase(), closes, length) } else { None }
}

/// Looks no further than that: a long text with many beginnings of tags is read once, not once for each of them.
fn find_near(text: &str, what: char, bytes_max: usize) -> Option<usize> {
    text.char_indices().take_while(|(at, _)| *at <= bytes_max).find(|(_, c)| *c == what).map(|(at, _)| at)
}

fn framed(name: &str, closes: bool, length: usize) -> Option<(Marker, usize)> {
    if is_thinking(name) {
        let marker = if closes { Marker::Close } else { Marker::Open };
        return Some((marker(name.to_owned()), length));
    }
    ANSWER_NAMES.contains(&name).then_some((Marker::AroundAnswer, length))
}

/// A fence whose language says that thinking is in it.
fn fence(rest: &str) -> Option<(Marker, usize)> {
    let language = rest.strip_prefix("```")?;
    let end = find_near(language, '\n', NAME_BYTES_MAX)?;
    let name = language.get(..end)?.trim().to_ascii_lowercase();
    (is_name(&name) && is_thinking(&name)).then(|| (Marker::Open("```".to_owned()), 3 + end))
}

fn is_name(text: &str) -> bool {
    !text.is_empty()
        && text.len() <= NAME_BYTES_MAX
        && text.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '_' | ':' | '-' | '.'))
}

fn is_thinking(lower: &str) -> bool {
    THINKING_WORDS.iter().any(|word| lower.contains(word))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use crate::output_validation::extract;

    const DRAFT: &str = r#"{"a":"draft"}"#;
    const ANSWER: &str = r#"{"a":"answer"}"#;

    /// How models frame their thinking: what stands before it, and between it and the answer.
    const FRAMES: [(&str, &str); 24] = [
        ("<think>\n", "\n</think>\n\n"),
        ("<think>", "</think>"),
        ("", "\n</think>\n\n"),
        ("", "</seed:think>"),
        ("<thinking>", "</thinking>\n"),
        ("<thinking effort=\"low\">", "</thinking>\n"),
        ("<antThinking>", "</antThinking>"),
        ("<thought>", "</thought>"),
        ("<reasoning>", "</reasoning>"),
        ("<reflection>", "</reflection>"),
        ("<think><reflection>wait</reflection>", "</think>"),
        ("<seed:think>", "</seed:think>"),
        ("[THINK]", "[/THINK]"),
        ("◁think▷", "◁/think▷"),
        ("<|channel|>analysis<|message|>", "<|end|><|start|>assistant<|channel|>final<|message|>"),
        (
            "<|channel|>commentary<|message|>",
            "<|end|><|start|>assistant<|channel|>final <|constrain|>json<|message|>",
        ),
        ("<|channel>thought\n", "<channel|>"),
        ("analysisThe user wants an object. ", "assistantfinal"),
        ("<|START_THINKING|>", "<|END_THINKING|><|START_RESPONSE|>"),
        ("<|begin_of_thought|>\n", "\n<|end_of_thought|>\n\n<|begin_of_solution|>\n"),
        ("<|inner_prefix|>", "<|inner_suffix|>"),
        ("Here is my thought process:\n", "\nHere is my response:\n"),
        ("Here are my reasoning steps:\n", "\n[BEGIN FINAL RESPONSE]\n"),
        ("```thinking\n", "\n```\n"),
    ];

    #[test]
    fn a_draft_in_any_frame_is_not_the_answer() {
        let details = ("<details type=\"reasoning\" done=\"true\">\n", "\n</details>\n");
        for (before, between) in FRAMES.into_iter().chain([details]) {
            for thought in [
                DRAFT,
                "",
                "Perhaps {a: draft}? [1] or \"}\" … < 3",
                "{\"a\":\"draft\"} or {\"a\":\"second\"}",
                "{\"a\":\"cut",
            ] {
                for (ending, ended) in [("", ""), ("\n", ""), ("\n```\n", "```json\n")] {
                    let text = format!("{before}{thought}{between}{ended}{ANSWER}{ending}");
                    assert_eq!(extract(&text), Ok(json!({"a": "answer"})), "{text}");
                }
            }
        }
    }

    #[test]
    fn thinking_that_does_not_end_has_no_answer() {
        for (before, _) in FRAMES.into_iter().filter(|(before, _)| !before.is_empty()) {
            let text = format!("{before}{DRAFT}");
            let said = extract(&text).unwrap_err();
            assert!(said.starts_with("The answer ends within its thinking"), "{text}: {said}");
        }
        // A frame in a frame, of which only the inner one ends; and one that another frame's end would close.
        for text in [
            format!("<think><reflection>so</reflection>{DRAFT}"),
            format!("<think>hm</reflection>{DRAFT}"),
            format!("{ANSWER}\n<think>but"),
        ] {
            assert!(extract(&text).unwrap_err().starts_with("The answer ends within"), "{text}");
        }
    }

    #[test]
    fn what_stands_around_an_answer_is_taken_off() {
        for (before, after) in [
            ("<answer>", "</answer>"),
            ("<think>x</think><answer>\n", "\n</answer>"),
            ("<|begin_of_solution|>", "<|end_of_solution|>"),
            ("<|START_RESPONSE|>", "<|END_RESPONSE|>"),
            ("<|channel|>final<|message|>", "<|return|>"),
            ("[BEGIN FINAL RESPONSE]", "[END FINAL RESPONSE]"),
            ("", "<|im_end|>"),
            ("", "<|end|>"),
            ("<details>\n", "\n</details>"),
            ("\n analysisHm. assistantfinal", ""),
            ("", "\n<think>hm</reflection></think>"),
            ("", "\n<think>was that right? {\"a\":\"draft\"}</think>"),
        ] {
            let text = format!("{before}{ANSWER}{after}");
            assert_eq!(extract(&text), Ok(json!({"a": "answer"})), "{text}");
        }
    }

    #[test]
    fn a_tag_in_a_string_of_the_answer_is_data() {
        for text in FRAMES
            .iter()
            .flat_map(|(before, between)| [*before, *between])
            .chain(["</think>", "<answer>", "<|end|>"])
        {
            for before in ["", "<think>hm</think>", "Sure:\n"] {
                let value = json!({"a": text, "b": [text]});
                assert_eq!(extract(&format!("{before}{value}")), Ok(value), "{before}{text}");
            }
        }
    }

    #[test]
    fn nothing_grows_together_around_what_is_taken_off() {
        for text in [
            r#"{"a":<think>hm</think>1}"#,
            r#"{"a":"x"<answer>}"#,
            r#"{"a":1,<|end|>"b":2}"#,
            r#"{<reflection>{"a":1}</reflection>}"#,
        ] {
            assert!(extract(text).is_err(), "{text}");
        }
    }

    #[test]
    fn prose_that_only_looks_like_a_frame_stays_prose() {
        let (long_tag, long_name) =
            (format!("<think {}>\n", "of it ".repeat(50)), format!("<{}>\n", "think-".repeat(8)));
        for before in [
            "",
            "x < y, and z > w:\n",
            "Analysis: fine.\n",
            "My reasoning: none.\n",
            "An analysis of it follows.\n",
            "<b>Result</b>\n",
            "<think,then-write>\n",
            "```json, as I think\n",
            &long_tag,
            &long_name,
        ] {
            assert_eq!(extract(&format!("{before}{ANSWER}")), Ok(json!({"a": "answer"})), "{before}");
        }
        assert!(extract(&format!("{DRAFT}\n{ANSWER}")).is_err(), "two values are none, as before");
        assert!(extract(&format!("{DRAFT}\n<answer>{ANSWER}</answer>")).is_err(), "which one is a guess");
    }

    #[test]
    fn a_long_text_of_unfinished_frames_is_read_once() {
        // Quadratic, each of these would take minutes.
        for start in ["<", "[", "◁", "<|channel|>", "```", "{", "{\"a\":[", "{\"a\":\"", "<think>", "    a"]
        {
            assert!(extract(&start.repeat(100_000 / start.len())).is_err(), "{start}");
        }
    }

    proptest! {
        #[test]
        fn no_text_makes_it_panic(text in "(<think>|</think>|<\\|channel\\|>|\\[/?THINK\\]|◁|```|analysis|[{}\":a◁▷<>|/ \n]){0,30}") {
            let _ = super::without_thinking(&text);
        }
    }

    #[test]
    fn nothing_of_a_frame_is_left() {
        for (before, between) in FRAMES {
            let text = format!("{before}hm{between}{ANSWER}");
            let left = super::without_thinking(&text).unwrap().replace(['…', '\n', ' '], "");
            assert_eq!(left, ANSWER, "{text}");
        }
    }
}
