//! The lines of `nightshift` on README and runbook, as a shell would read them.

use std::path::{Path, PathBuf};

pub fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}

/// README and the runbook, by their path from the root.
pub fn pages() -> Vec<(String, String)> {
    let mut pages = vec!["README.md".to_owned()];
    for folder in ["runbook", "runbook/procedures"] {
        let entries = std::fs::read_dir(root().join(folder)).unwrap();
        let names = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap());
        pages.extend(names.filter(|name| name.ends_with(".md")).map(|name| format!("{folder}/{name}")));
    }
    pages.sort();
    let read = |page: String| {
        let text = std::fs::read_to_string(root().join(&page)).unwrap();
        (page, text)
    };
    pages.into_iter().map(read).collect()
}

/// The files of all crates that are no tests, by their path from the root.
pub fn sources() -> Vec<(String, String)> {
    let mut folders: Vec<_> = std::fs::read_dir(root().join("crates"))
        .unwrap()
        .map(|entry| entry.unwrap().path().join("src"))
        .collect();
    let mut sources = Vec::new();
    while let Some(folder) = folders.pop() {
        for path in std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()) {
            let is_test = ["pages", "tests", "tests.rs"].iter().any(|name| path.ends_with(name));
            if path.is_dir() && !is_test {
                folders.push(path);
            } else if !is_test {
                sources.push((path.display().to_string(), std::fs::read_to_string(path).unwrap()));
            }
        }
    }
    sources
}

/// Where a `nightshift …` stands.
#[derive(Clone, Copy, PartialEq)]
pub enum Kind {
    /// In a block that is pasted into a shell.
    Block,
    /// In what somebody typed, with what was answered.
    Session,
    /// In a sentence, where it need not be complete.
    Mention,
}

pub struct Line {
    pub place: String,
    pub kind: Kind,
    pub words: Vec<String>,
}

/// The words of the command that begins here, as a shell would read them; expansions as they stand, redirections left out.
pub fn words(text: &str) -> Vec<String> {
    let (mut words, mut word) = (Vec::new(), None::<String>);
    let (mut quote, mut depth, mut to_file) = (None, 0_usize, false);
    let mut finish = |word: Option<String>, to_file: &mut bool| {
        words.extend(word.filter(|_| !std::mem::take(to_file)));
    };
    let mut chars = text.chars().chain(['\n']);
    while let Some(c) = chars.next() {
        let expands = c == '(' && word.as_deref().is_some_and(|word| word.ends_with('$'));
        if depth > 0 || expands {
            depth = if c == '(' { depth + 1 } else { depth - usize::from(c == ')') };
            word.get_or_insert_default().push(c);
        } else if quote == Some(c) {
            quote = None;
        } else if c == '\\' && quote != Some('\'') {
            if let Some(escaped) = chars.next().filter(|escaped| *escaped != '\n') {
                word.get_or_insert_default().push(escaped);
            }
        } else if quote.is_some() {
            word.get_or_insert_default().push(c);
        } else if matches!(c, '\'' | '"') {
            quote = Some(c);
            word.get_or_insert_default();
        } else if matches!(c, '<' | '>') {
            finish(word.take().filter(|word| !word.bytes().all(|b| b.is_ascii_digit())), &mut to_file);
            to_file = true;
        } else if matches!(c, '\n' | '|' | ';' | '&' | ')') || (c == '#' && word.is_none()) {
            finish(word.take(), &mut to_file);
            break;
        } else if !c.is_whitespace() {
            word.get_or_insert_default().push(c);
        } else if word.is_some() {
            finish(word.take(), &mut to_file);
        }
    }
    words
}

/// Each `nightshift …` of a text, with the number of its line in it.
fn commands(text: &str) -> Vec<(usize, Vec<String>)> {
    let inside = |c: char| c.is_ascii_alphanumeric() || "_-/.$`{\"".contains(c);
    let found = text.match_indices("nightshift ");
    let around = found.map(|(at, name)| (text.split_at(at).0, text.split_at(at + name.len()).1));
    let begins = around.filter(|(before, _)| !before.ends_with(inside));
    begins.map(|(before, after)| (before.matches('\n').count(), words(after))).collect()
}

pub fn lines_of(page: &str, text: &str) -> Vec<Line> {
    let mut found = Vec::new();
    let (mut fence, mut block, mut begins) = (None, String::new(), 0);
    for (number, line) in (1..).zip(text.lines()) {
        let add = |found: &mut Vec<Line>, kind, number, words| {
            found.push(Line { place: format!("{page}:{number}"), kind, words });
        };
        match (fence, line.strip_prefix("```")) {
            (Some(kind), Some(_)) => {
                for (after, words) in commands(&block) {
                    add(&mut found, kind, begins + after, words);
                }
                fence = None;
            }
            (None, Some(language)) => {
                fence = Some(if language == "console" { Kind::Session } else { Kind::Block });
                (block, begins) = (String::new(), number + 1);
            }
            (Some(Kind::Session), None) => {
                let typed = line.strip_prefix("$ ").or(block.ends_with("\\\n").then_some(line));
                block += typed.unwrap_or_default();
                block.push('\n');
            }
            (Some(_), None) => {
                block += line;
                block.push('\n');
            }
            (None, None) => {
                for span in line.split('`').skip(1).step_by(2) {
                    for (_, words) in commands(span) {
                        add(&mut found, Kind::Mention, number, words);
                    }
                }
            }
        }
    }
    found
}

pub fn lines() -> Vec<Line> {
    pages().iter().flat_map(|(page, text)| lines_of(page, text)).collect()
}
