//! What a user does to add a task, done here: one definition, as it would stand in its own file, and one line.

use nightshift_core::output_validation;
use nightshift_core::task::Tasks;
use nightshift_tasks::{Block, Example, Line, Registry, TaskDefinition, registry};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use validator::Validate;

/// A definition with everything that may change exposed as a parameter, so that a test can change it.
pub struct TranslateTitles<const TOKENS_MAX: u32 = 500, const REVISION: u8 = 0>;

#[derive(Deserialize, Serialize, Validate, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Titles {
    #[validate(length(min = 1))]
    pub titles: Vec<String>,
}

#[derive(Deserialize, Serialize, Validate, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Translations {
    /// One English title for each.
    #[validate(length(min = 1, max = 3), nested)]
    pub english: Vec<Line<20>>,
}

impl<const TOKENS_MAX: u32, const REVISION: u8> TaskDefinition for TranslateTitles<TOKENS_MAX, REVISION> {
    const NAME: &'static str = "translate_titles";
    const OUTPUT_TOKENS_MAX: u32 = TOKENS_MAX;
    const INSTRUCTIONS: &'static str =
        if REVISION == 1 { "Translate each title, in rhyme." } else { "Translate each title." };
    type Input = Titles;
    type Output = Translations;

    fn blocks(input: &Titles) -> Vec<Block<'_>> {
        let name = if REVISION == 2 { "heading" } else { "title" };
        Block::numbered(name, input.titles.iter().map(String::as_str)).collect()
    }

    fn fallback(input: &Titles) -> Option<Translations> {
        (input.titles.len() < 5).then(|| Translations {
            english: input.titles.iter().map(|title| title.as_str().into()).collect(),
        })
    }

    fn example() -> Example<Titles, Translations> {
        Example {
            input: Titles { titles: vec!["Der Zauberberg".to_owned()] },
            output: Translations { english: vec!["The Magic Mountain".into()] },
        }
    }
}

pub fn with_titles() -> Registry {
    registry().with::<TranslateTitles>()
}

#[test]
fn one_definition_and_one_line_make_a_task() {
    let tasks = with_titles();
    let mut names = registry().names();
    names.push("translate_titles");
    names.sort_unstable();
    assert_eq!(tasks.names(), names);
    let task = tasks.find("translate_titles").unwrap();
    assert_eq!((task.name(), task.output_tokens_max()), ("translate_titles", 500));

    let titles = json!({"titles": ["Effi Briest", "Ödipus"]});
    let prompt = task.prompt(&titles).unwrap();
    assert!(prompt.system.contains("# The task\nTranslate each title.\n"), "{}", prompt.system);
    assert!(prompt.system.contains("One English title for each."), "the model sees descriptions");
    assert!(prompt.system.contains("\"maxLength\":20"), "and limits: {}", prompt.system);
    assert!(!prompt.system.contains("Briest"));
    assert_eq!(
        crate::blocks_of(&prompt.user),
        [("title-1", "Effi Briest"), ("title-2", "Ödipus")].map(|(n, t)| (n.to_owned(), t.to_owned()))
    );

    let answer = "Sure:\n```json\n{\"english\": [\"Effi Briest\", \"Oedipus\"]}\n```";
    assert_eq!(
        output_validation::validate(task, &titles, answer),
        Ok(json!({"english": ["Effi Briest", "Oedipus"]})),
        "through core's own path"
    );
    assert_eq!(
        output_validation::validate(
            task,
            &titles,
            r#"{"english": ["ok", " ", "longer than it may ever be"]}"#
        )
        .unwrap_err()
        .0,
        [
            "The value at $.english[1] must not be blank.",
            "The value at $.english[2] has 26 and must have 1 to 20 characters."
        ]
    );
}

#[test]
fn a_fallback_goes_through_the_same_rules() {
    let tasks = with_titles();
    let task = tasks.find("translate_titles").unwrap();
    let titles = |titles: &[&str]| task.fallback(&json!({"titles": titles}));
    assert_eq!(titles(&["a", "b"]), Some(json!({"english": ["a", "b"]})));
    assert_eq!(titles(&["a", "b", "c", "d"]), None, "four are more than an output may have");
    assert_eq!(titles(&["longer than a title may be"]), None);
    assert_eq!(titles(&["a"; 5]), None, "the definition offers none");
    assert_eq!(task.fallback(&json!({"titles": 7})), None, "an invalid input has none");
}

#[test]
fn of_the_built_in_tasks_a_report_falls_back_to_its_notes() {
    for name in ["categorize_ticket", "summarize_email", "weekly_report"] {
        let example = registry().describe(name).unwrap().example_job;
        let fallback = registry().find(name).unwrap().fallback(&example["input"]);
        assert_eq!(fallback.is_some(), name == "weekly_report", "{name}");
    }
    let registry = registry();
    let report = registry.find("weekly_report").unwrap();
    let of = |entries: &[String]| {
        let notes = json!({"team": "Checkout", "week": "2026-W47", "entries": entries});
        // What the rules refuse would be no fallback, and the job a dead letter.
        report.fallback(&notes).and_then(|output| report.accept(output).ok()).unwrap()
    };
    let one = of(&["Shipped it.".to_owned()]);
    assert_eq!(one["headline"], "Not written: one note waits for a person to report it.");
    assert_eq!(one["highlights"], json!(["Shipped it."]));
    let most = of(&vec!["é".repeat(2_000); 200]);
    assert_eq!(most["highlights"].as_array().unwrap().len(), 10);
    assert!(most["highlights"][9].as_str().unwrap().ends_with("é…"));
    let edge = of(&["é".repeat(300)]);
    assert_eq!(edge["highlights"], json!(["é".repeat(300)]));
}

#[test]
fn the_fingerprint_changes_with_whatever_may_change_results() {
    fn of<D: TaskDefinition>() -> String {
        Registry::default().with::<D>().find(D::NAME).unwrap().fingerprint().to_owned()
    }
    let plain = of::<TranslateTitles>();
    assert_eq!(plain.len(), 64);
    assert_eq!(of::<TranslateTitles>(), plain, "the same each time");
    assert_ne!(of::<TranslateTitles<501>>(), plain, "the limit");
    assert_ne!(of::<TranslateTitles<500, 1>>(), plain, "the instructions");
    assert_ne!(of::<TranslateTitles<500, 2>>(), plain, "the rendering of the input");
    assert_ne!(of::<Shorter>(), plain, "the schema");
}

/// `TranslateTitles` with another output type and nothing else.
struct Shorter;

#[derive(Deserialize, Serialize, Validate, JsonSchema)]
#[serde(deny_unknown_fields)]
struct ShortTranslations {
    /// One English title for each.
    #[validate(length(min = 1, max = 3), nested)]
    english: Vec<Line<19>>,
}

impl TaskDefinition for Shorter {
    const NAME: &'static str = "translate_titles";
    const OUTPUT_TOKENS_MAX: u32 = 500;
    const INSTRUCTIONS: &'static str = "Translate each title.";
    type Input = Titles;
    type Output = ShortTranslations;

    fn blocks(input: &Titles) -> Vec<Block<'_>> {
        TranslateTitles::<500>::blocks(input)
    }

    fn example() -> Example<Titles, ShortTranslations> {
        Example {
            input: TranslateTitles::<500>::example().input,
            output: ShortTranslations { english: vec!["The Magic Mountain".into()] },
        }
    }
}

#[test]
fn names_are_unique_sorted_and_fit_for_a_provider() {
    let names = registry().names();
    let mut sorted = names.clone();
    sorted.sort_unstable();
    sorted.dedup();
    assert_eq!(names, sorted);
    assert!(registry().find("").is_none());
    assert!(registry().find("Summarize_Email").is_none());
    assert!(registry().find("no_such_task").is_none());
}

#[test]
fn every_example_passes_the_rules_of_its_task() {
    for name in registry().names() {
        let (tasks, described) = (registry(), registry().describe(name).unwrap());
        let task = tasks.find(name).unwrap();
        assert_eq!(described.example_job["task"], name);
        assert!(task.prompt(&described.example_job["input"]).is_ok(), "{name}");
        assert_eq!(
            task.schema()["examples"],
            json!([described.example_output]),
            "a stand-in for a model finds it"
        );
        assert_eq!(task.accept(described.example_output.clone()), Ok(described.example_output), "{name}");
        assert_eq!(described.input_schema["type"], "object", "{name}");
    }
    assert_eq!(registry().describe("no_such_task"), None);
}

#[test]
fn a_prompt_is_a_pure_function_of_its_input() {
    for name in registry().names() {
        let input = registry().describe(name).unwrap().example_job["input"].clone();
        let shuffled: Value = serde_json::from_str(&input.to_string()).unwrap();
        assert_eq!(
            registry().find(name).unwrap().prompt(&input),
            registry().find(name).unwrap().prompt(&shuffled)
        );
    }
}

#[test]
fn the_example_is_an_answer_to_its_own_input_only() {
    for name in registry().names() {
        let (tasks, described) = (registry(), registry().describe(name).unwrap());
        let task = tasks.find(name).unwrap();
        let (own, output) = (&described.example_job["input"], described.example_output);
        let answer = output.to_string();
        assert_eq!(output_validation::validate(task, own, &answer), Ok(output), "{name}");
        let other = json!({"text": "Where is my parcel?", "body": "", "entries": ["Nothing new."]});
        let refused = output_validation::validate(task, &other, &answer.to_uppercase().to_lowercase());
        assert!(
            refused.is_err_and(|violations| violations.0.iter().any(|what| what.contains("example"))),
            "{name}: a copy of the example"
        );
    }
}
