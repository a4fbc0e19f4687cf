//! Tasks with one mistake each, and what their author is told.

use std::borrow::Cow;
use std::collections::{BTreeMap, HashMap};

use nightshift_tasks::{Block, Example, Line, Registry, TaskDefinition};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use validator::{Validate, ValidationError};

use crate::rules;

#[derive(Deserialize, Serialize, Validate, JsonSchema)]
#[serde(deny_unknown_fields)]
struct Text {
    #[validate(length(min = 1, max = 100))]
    text: String,
}

#[derive(Deserialize, Serialize, Validate, JsonSchema)]
#[serde(deny_unknown_fields)]
struct Gist {
    #[validate(length(min = 1, max = 40))]
    gist: String,
}

/// A task of these types; the example is what they are at their simplest.
macro_rules! task {
    ($task:ident, $name:literal, $input:ty = $in:expr, $output:ty = $out:expr, $tokens:literal, $blocks:expr) => {
        struct $task;
        impl TaskDefinition for $task {
            const NAME: &'static str = $name;
            const OUTPUT_TOKENS_MAX: u32 = $tokens;
            const INSTRUCTIONS: &'static str = "Say it in fewer words.";
            type Input = $input;
            type Output = $output;
            fn blocks(input: &Self::Input) -> Vec<Block<'_>> {
                let blocks: fn(&Self::Input) -> Vec<Block<'_>> = $blocks;
                blocks(input)
            }
            fn example() -> Example<Self::Input, Self::Output> {
                Example { input: $in, output: $out }
            }
        }
    };
    ($task:ident, $name:literal, $output:ty = $out:expr) => {
        task!($task, $name, Text = text("long words"), $output = $out, 500, |_| Vec::new());
    };
}

fn text(text: &str) -> Text {
    Text { text: text.to_owned() }
}

fn gist(gist: &str) -> Gist {
    Gist { gist: gist.to_owned() }
}

task!(Good, "good", Gist = gist("words"));
task!(BadInput, "bad_input", Text = text(""), Gist = gist("words"), 500, |_| Vec::new());
task!(BadOutput, "bad_output", Gist = gist(""));
task!(
    Cramped,
    "cramped",
    Text = text("long words"),
    Gist = gist("forty characters would not fit into this"),
    9,
    |_| { Vec::new() }
);

#[derive(Deserialize, Serialize, Validate, JsonSchema)]
#[serde(deny_unknown_fields)]
struct OneWay {
    #[serde(
        rename(serialize = "gist", deserialize = "gist"),
        default,
        skip_serializing_if = "String::is_empty"
    )]
    #[validate(length(max = 40))]
    gist: String,
    #[serde(skip_deserializing)]
    more: u8,
}
task!(WrittenOtherwise, "written_otherwise", OneWay = OneWay { gist: String::new(), more: 7 });

#[derive(Deserialize, Serialize, Validate, JsonSchema)]
#[serde(deny_unknown_fields)]
struct Labels {
    labels: HashMap<String, String>,
}
task!(
    Unordered,
    "unordered",
    Labels = Labels { labels: (0..9).map(|n| (n.to_string(), format!("label {n}"))).collect() },
    Gist = gist("words"),
    500,
    |input| {
        // As many orders as there are copies, as if it were read from the network each time.
        let copy: HashMap<&String, &String> = input.labels.iter().collect();
        copy.values().map(|label| Block::new("label", label)).collect()
    }
);

#[derive(Deserialize, Serialize, Validate, JsonSchema)]
struct Open {
    #[validate(length(max = 40))]
    gist: String,
}
task!(Unread, "unread", Open = Open { gist: "words".to_owned() });

#[derive(Deserialize, Serialize, Validate, JsonSchema)]
#[serde(deny_unknown_fields)]
struct FreeKeys {
    by_name: BTreeMap<String, String>,
}
task!(Mapped, "mapped", FreeKeys = FreeKeys { by_name: BTreeMap::from([("a".to_owned(), "b".to_owned())]) });

macro_rules! optional_members {
    ($($member:ident)*) => {
        #[derive(Default, Deserialize, Serialize, Validate, JsonSchema)]
        #[serde(deny_unknown_fields)]
        struct Members { $(#[validate(length(max = 40))] $member: Option<String>),* }
    };
}
optional_members!(a b c d e f g h i j k l m n o p q r s t u v w x y);
task!(Manifold, "manifold", Members = Members::default());

#[derive(Deserialize, Serialize, Validate, JsonSchema)]
#[serde(deny_unknown_fields)]
struct Quoting {
    #[validate(length(max = 40), custom(function = quotes))]
    gist: String,
}

fn quotes(gist: &str) -> Result<(), ValidationError> {
    if gist == "words" {
        return Ok(());
    }
    Err(ValidationError::new("quotes").with_message(Cow::Owned(format!("must not be {gist:.40}"))))
}
task!(Indiscreet, "indiscreet", Quoting = Quoting { gist: "words".to_owned() });

#[derive(Deserialize, Serialize, Validate, JsonSchema)]
#[serde(deny_unknown_fields)]
struct Endless {
    gist: String,
    points: Option<Vec<String>>,
    language: Option<Language>,
}

#[derive(Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
enum Language {
    German,
    English,
}

task!(
    Unbounded,
    "unbounded",
    Endless = Endless {
        gist: "words".to_owned(),
        points: Some(vec!["one".to_owned()]),
        language: Some(Language::German)
    }
);

task!(
    UnboundedInput,
    "unbounded_input",
    Endless = Endless { gist: "words".to_owned(), points: None, language: None },
    Gist = gist("words"),
    500,
    |_| Vec::new()
);

#[derive(Deserialize, Serialize, Validate, JsonSchema)]
#[serde(deny_unknown_fields)]
struct Mute {
    #[validate(length(max = 40), custom(function = no_words))]
    gist: String,
}

fn no_words(gist: &str) -> Result<(), ValidationError> {
    if gist == "words" { Ok(()) } else { Err(ValidationError::new("words")) }
}

task!(Wordless, "wordless", Mute = Mute { gist: "words".to_owned() });

#[derive(Deserialize, Serialize, Validate, JsonSchema)]
#[serde(deny_unknown_fields)]
struct Owned {
    owner: Gist,
    second: Option<Gist>,
    #[validate(length(max = 3))]
    labels: Vec<Line<20>>,
    #[validate(nested)]
    checked: Gist,
    #[validate(nested)]
    also_checked: Option<Gist>,
    #[validate(nested, length(min = 1, max = 3))]
    checked_too: Vec<Line<20>>,
}

fn owned() -> Owned {
    Owned {
        owner: gist("a"),
        second: Some(gist("b")),
        labels: vec!["c".into()],
        checked: gist("d"),
        also_checked: Some(gist("e")),
        checked_too: vec!["f".into()],
    }
}

task!(Unchecked, "unchecked", Owned = owned());
task!(UncheckedInput, "unchecked_input", Owned = owned(), Gist = gist("words"), 500, |_| Vec::new());

#[track_caller]
fn check(tasks: Registry, expected: &[&str]) {
    let broken = rules::broken(&tasks);
    assert_eq!(broken.len(), expected.len(), "{broken:#?}");
    for (line, part) in broken.iter().zip(expected) {
        assert!(line.contains(part), "{part:?} is not in {line:?}");
    }
}

#[test]
fn a_task_with_a_mistake_is_told_what_to_do() {
    fn one<D: TaskDefinition>() -> Registry {
        Registry::default().with::<D>()
    }
    check(one::<Good>(), &[]);
    check(one::<Good>().with::<Good>(), &["good: two tasks have this NAME"]);
    check(
        one::<BadInput>(),
        &[
            "bad_input: the input of its example() breaks the rules of Input: The value at $.text has 0 and must have 1 to 100 characters. Change",
        ],
    );
    check(
        one::<BadOutput>(),
        &["bad_output: the output of its example() breaks the rules of Output: The value at $.gist"],
    );
    check(one::<WrittenOtherwise>(), &["written_otherwise: the output of its example()"]);
    check(
        one::<Unordered>(),
        &["unordered: two prompts of the same input differ", "unordered: Input takes members at $.labels"],
    );
    check(
        one::<Unread>(),
        &["unread: Output takes members at $ that nobody reads. Put #[serde(deny_unknown_fields)]"],
    );
    check(
        one::<Mapped>(),
        &[
            "mapped: Output takes members at $.by_name that nobody reads",
            "mapped: the schema of Output cannot be sent as structured output: at \"/properties/by_name\": an object with free keys: use a list",
        ],
    );
    check(
        one::<Manifold>(),
        &[
            "manifold: the schema of Output has 25 optional members",
            "for \"none\" (OpenAiStrict, OwnServer, OpenAiCompatible).",
        ],
    );
    check(one::<Cramped>(), &["cramped: its own example needs about 13 tokens, and OUTPUT_TOKENS_MAX is 9"]);
    check(
        one::<Unbounded>(),
        &[
            "unbounded: the text at $.gist of Output may be of any length. Give it",
            "unbounded: the list at $.points of Output may have any number of items. Give it",
            "unbounded: the text at $.points[] of Output may be of any length.",
        ],
    );
    check(
        one::<UnboundedInput>(),
        &[
            "unbounded_input: the text at $.gist of Input may be of any length. Give it",
            "unbounded_input: the list at $.points of Input may have any number",
            "unbounded_input: the text at $.points[] of Input may be",
        ],
    );
    let of =
        |whose: &str, at: &str, what: &str| format!("{whose} takes at {at} what its schema forbids ({what})");
    for (tasks, whose) in [(one::<Unchecked>(), "Output"), (one::<UncheckedInput>(), "Input")] {
        let expected = [
            of(whose, "$.owner.gist", "maxLength, minLength"),
            of(whose, "$.second.gist", "maxLength, minLength"),
            of(whose, "$.labels[]", "maxLength, minLength"),
        ];
        check(tasks, &expected.each_ref().map(String::as_str));
    }
    check(
        one::<Wordless>(),
        &["wordless: a rule has no words: \"The value at $.gist breaks the rule words.\" Give its error a"],
    );
    check(one::<Indiscreet>(), &["indiscreet: a message of its rules quotes the value"]);
}
