//! Each `nightshift …` of README and runbook, read by the definition of the command: a page that names what is not there
//! fails here, and not when somebody was woken up.

mod lines;

use std::collections::BTreeSet;
use std::path::Path;

use clap::error::{ContextKind, ContextValue, ErrorKind};
use clap::parser::ValueSource;
use clap::{ArgMatches, CommandFactory, Error};
use nightshift_core::task::Tasks as _;

use self::lines::{Kind, Line, lines, lines_of, pages, root, sources, words};
use crate::Arguments;

/// What stands for a value that the reader puts there; the first that the argument takes is tried.
const SAMPLES: [&str; 4] =
    ["1", "2026-11-26", "x", "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa"];

/// What the reader puts something else for: `KEY`, `$id`, `…`.
fn is_placeholder(word: &str) -> bool {
    let capitals = |word: &str| word.bytes().all(|b| b.is_ascii_uppercase() || b == b'_');
    word.contains(['$', '…']) || (!word.is_empty() && capitals(word))
}

fn invalid_value(error: &Error) -> Option<&str> {
    match error.get(ContextKind::InvalidValue) {
        Some(ContextValue::String(value)) => Some(value),
        _ => None,
    }
}

fn parse(words: &[String]) -> Result<ArgMatches, Error> {
    let name = std::iter::once("nightshift");
    Arguments::command().try_get_matches_from(name.chain(words.iter().map(String::as_str)))
}

/// As `parse`, with a sample for each placeholder that is no value of its argument.
fn parse_with_samples(mut words: Vec<String>) -> Result<ArgMatches, Error> {
    let error = match parse(&words) {
        Err(error) if invalid_value(&error).is_some_and(is_placeholder) => error,
        parsed => return parsed,
    };
    let placeholder = invalid_value(&error).unwrap_or_default().to_owned();
    let at = words.iter().position(|word| word.ends_with(&placeholder)).unwrap();
    let stood = words[at].clone();
    for sample in SAMPLES {
        words[at] = stood.replace(&placeholder, sample);
        let refused = parse(&words).err();
        if refused.as_ref().and_then(invalid_value) != Some(sample) {
            return parse_with_samples(words);
        }
    }
    Err(error)
}

/// The arguments of the innermost subcommand, with those that hold everywhere.
fn innermost(matches: &ArgMatches) -> &ArgMatches {
    matches.subcommand().map_or(matches, |(_, inner)| innermost(inner))
}

/// What is wrong with a line, and what to do.
fn wrong(line: &Line, in_runbook: bool) -> Option<String> {
    use ErrorKind::{
        DisplayHelp, DisplayHelpOnMissingArgumentOrSubcommand, DisplayVersion, MissingRequiredArgument,
        MissingSubcommand,
    };
    let matches = match parse_with_samples(line.words.clone()) {
        Ok(matches) => matches,
        Err(error) => {
            return match error.kind() {
                DisplayHelp | DisplayVersion => None,
                MissingRequiredArgument | MissingSubcommand | DisplayHelpOnMissingArgumentOrSubcommand
                    if line.kind == Kind::Mention =>
                {
                    None
                }
                _ => Some(error.to_string()),
            };
        }
    };
    let given = innermost(&matches);
    let registry = my_tasks::registry();
    let named = |id| given.try_get_many::<String>(id).ok().flatten().into_iter().flatten();
    let mut named = named("tasks").chain(named("task"));
    if let Some(task) = named.find(|task| !is_placeholder(task) && registry.find(task).is_none()) {
        return Some(format!("there is no task {task}: say one of `nightshift task list`"));
    }
    let prefix = given.get_one::<String>("prefix").map(String::as_str);
    let said = given.value_source("prefix") == Some(ValueSource::CommandLine);
    let own_stack = line.place.contains("load-test.md") && prefix == Some("load-test");
    let any_stack = said && (prefix == Some("$PREFIX") || own_stack);
    (in_runbook && line.kind == Kind::Block && !any_stack)
        .then(|| "it would ask another stack than the page is about: add --prefix \"$PREFIX\"".to_owned())
}

#[test]
fn every_line_of_a_page_is_one_that_the_command_takes() {
    let lines = lines();
    let count = |kind| lines.iter().filter(|line| line.kind == kind).count();
    let counts = [Kind::Block, Kind::Session, Kind::Mention].map(count);
    assert!(counts.iter().all(|count| *count > 12), "the scan finds the lines: {counts:?}");
    let wrong: Vec<String> = lines
        .iter()
        .filter_map(|line| {
            let said = wrong(line, line.place.starts_with("runbook/"))?;
            Some(format!("{}: nightshift {}\n{said}", line.place, line.words.join(" ")))
        })
        .collect();
    assert!(wrong.is_empty(), "correct the page, or the command:\n{}", wrong.join("\n"));
}

fn flags(command: &clap::Command, into: &mut BTreeSet<String>) {
    for argument in command.get_arguments() {
        into.extend(
            argument.get_long_and_visible_aliases().into_iter().flatten().map(|long| format!("--{long}")),
        );
    }
    for inner in command.get_subcommands() {
        flags(inner, into);
    }
}

fn all_text(folder: &Path) -> String {
    let mut text = String::new();
    for entry in std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()) {
        text += &if entry.is_dir() {
            all_text(&entry)
        } else {
            std::fs::read_to_string(entry).unwrap_or_default()
        };
    }
    text
}

/// `--flag` alone, in a table or a sentence, is of `nightshift`, of a script, or of the demo.
#[test]
fn every_flag_that_a_page_names_alone_is_one() {
    let scripts = all_text(&root().join("scripts"));
    let demo = std::fs::read_to_string(root().join("crates/demo/src/main.rs")).unwrap();
    let words = scripts.split(|c: char| !c.is_ascii_alphanumeric() && c != '-');
    let mut known: BTreeSet<String> = words.map(str::to_owned).collect();
    flags(&Arguments::command(), &mut known);
    let is_known = |flag: &str| {
        let member = format!(" {}: ", flag.trim_start_matches('-').replace('-', "_"));
        known.contains(flag) || demo.contains(&member)
    };
    let mut seen = 0;
    for (page, text) in pages() {
        for (number, line) in (1..).zip(text.lines()) {
            for span in line.split('`').skip(1).step_by(2).filter(|span| span.starts_with("--")) {
                let flag = span.split([' ', '=']).next().unwrap();
                seen += 1;
                assert!(is_known(flag), "{page}:{number}: nothing has the flag {flag}: correct the page");
            }
        }
    }
    assert!(seen > 30, "the scan finds the flags: {seen}");
}

/// `dead-letters list`, `show`: what stands alone belongs to what stands before it.
#[test]
fn the_readmes_table_names_commands_that_there_are() {
    let (_, readme) = pages().swap_remove(0);
    let table = readme.split_once("\n| command | what |\n").unwrap().1.lines();
    let rows = table.skip(1).take_while(|line| line.starts_with("| "));
    let (mut seen, mut group) = (0, String::new());
    for row in rows {
        let cell = row.split(" | ").next().unwrap();
        for span in cell.split('`').skip(1).step_by(2) {
            let alone = Arguments::command().find_subcommand(span.split(' ').next().unwrap()).is_none();
            let command = if alone { format!("{group} {span}") } else { span.to_owned() };
            group = command.split(' ').next().unwrap().to_owned();
            seen += 1;
            let words = words(&command);
            let line = Line { place: "README.md".to_owned(), kind: Kind::Mention, words };
            let said = wrong(&line, false);
            assert!(
                said.is_none(),
                "README.md, the table of commands: {command}\n{}",
                said.unwrap_or_default()
            );
        }
    }
    assert!(seen > 30, "the scan finds the commands: {seen}");
}

/// Where a literal names a command, outside of help and comments: what stands before it, and it with what follows.
fn named(source: &str) -> Vec<(&str, &str)> {
    let code = source.split("#[cfg(test)]").next().unwrap();
    let groups = Arguments::command();
    let is_command = |after: &str| {
        let word = after.split(|c: char| !c.is_ascii_alphanumeric() && c != '-').next().unwrap();
        word == "--prefix" || groups.find_subcommand(word).is_some()
    };
    let lines = code.lines().filter(|line| !line.trim_start().starts_with("//"));
    // An example of a help stands alone on its line.
    let lines = lines.filter(|line| !line.starts_with("  nightshift ") && !line.contains(" | nightshift "));
    let found = lines.flat_map(|line| {
        line.match_indices("nightshift ")
            .map(move |(at, name)| (line.split_at(at).0, line.split_at(at + name.len()).1))
    });
    found.filter(|(_, after)| is_command(after)).collect()
}

/// `onward` completes what stands in backticks, and nothing else.
#[test]
fn every_command_that_a_message_names_is_one_and_is_made_complete() {
    let mut seen = 0;
    for (path, source) in sources() {
        for (before, after) in named(&source) {
            let said = after.split(['`', '"']).next().unwrap();
            // It says to whom CloudWatch owes an alarm, and nobody is to run it.
            if said.starts_with("doctor --page:") {
                continue;
            }
            seen += 1;
            assert!(
                before.ends_with('`') && after.contains('`'),
                "{path}: `nightshift {said}` stands without backticks, and would ask another stack"
            );
            let words = words(&said.replace("{}", "X").replace("{id}", "X").replace("{0}", "X"));
            let line = Line { place: path.clone(), kind: Kind::Mention, words };
            assert_eq!(wrong(&line, false), None, "{path}: nightshift {said}");
        }
    }
    assert!(seen > 30, "the scan finds the commands: {seen}");
    let found = named(
        "  \"x nightshift status\"\n  nightshift doctor\n  // nightshift pause\n  \"the nightshift of\"",
    );
    assert_eq!(found, [("  \"x ", "status\"")], "what has no backticks is seen");
}

/// What the reader of a page would trip over, and what they would not.
#[test]
fn a_defect_of_a_line_is_seen() {
    let judged = |block: &str| {
        let lines = lines_of("runbook/p.md", &format!("```sh\n{block}\n```\n"));
        assert_eq!(lines.len(), 1, "{block}");
        wrong(&lines[0], true)
    };
    for right in [
        "nightshift --prefix \"$PREFIX\" redrive --failure refused --rate 5 --canary 10% --reason 'it''s mended' | cat",
        "x=$(nightshift --prefix \"$PREFIX\" review show \"$KEY\" 2>/dev/null) && echo \"$x\"",
        "nightshift --prefix \"$PREFIX\" pause \\\n  --reason \"since $(date) (really)\" # now",
        "nightshift --prefix \"$PREFIX\" results export --task weekly_report > out.jsonl --since 24h",
    ] {
        assert_eq!(judged(right), None, "{right}");
    }
    for wrong in [
        "nightshift --prefix \"$PREFIX\" redrives list",
        "nightshift --prefix \"$PREFIX\" redrive --reasons x",
        "nightshift --prefix \"$PREFIX\" redrive --failure refuse --reason x",
        "nightshift --prefix \"$PREFIX\" redrive --from crash --reason x",
        "nightshift --prefix \"$PREFIX\" redrive --rate fast --reason x",
        "nightshift --prefix \"$PREFIX\" redrive list now",
        "nightshift --prefix \"$PREFIX\" pause",
        "nightshift --prefix \"$PREFIX\" review show $KEY $KEY",
        "nightshift --prefix \"$PREFIX\" results export --task weekly_reports",
        "nightshift --prefix \"$PREFIX\" results export --since $(date +%s) --out json > x",
        "nightshift status",
        "nightshift --prefix \"$PREFX\" status",
    ] {
        assert!(judged(wrong).is_some(), "{wrong}");
    }
}
