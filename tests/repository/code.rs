//! What of the code a program reaches, as far as it can be seen without compiling.
//!
//! The code is cut into what stands at the left margin: types, constants, functions, `impl` blocks. One is reached when
//! what is reached names it; an `impl` of a port when both the port and the type are named, so that an adapter of two
//! ports counts with what each program needs. What is made with it demands equality: an item too many or too few is a
//! failure, never a silence.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

use proc_macro2::{Delimiter, TokenStream, TokenTree};
use serde_json::Value;

use crate::root;

/// One of our packages.
pub struct Package {
    pub folder: PathBuf,
    /// The names of its normal dependencies, ours and others'.
    pub dependencies: BTreeSet<String>,
}

fn metadata(option: &str) -> Value {
    let output = Command::new(env!("CARGO"))
        .args(["metadata", "--format-version", "1", option])
        .current_dir(root())
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    serde_json::from_slice(&output.stdout).unwrap()
}

pub fn packages() -> BTreeMap<String, Package> {
    let metadata = metadata("--no-deps");
    let package = |package: &Value| {
        let dependencies = package["dependencies"].as_array().unwrap().iter();
        // What a build needs, it knows as well.
        let normal = dependencies.filter(|d| d["kind"] != "dev").map(|d| d["name"].as_str().unwrap());
        let folder = Path::new(package["manifest_path"].as_str().unwrap()).parent().unwrap().to_owned();
        let dependencies = normal.map(str::to_owned).collect();
        (package["name"].as_str().unwrap().to_owned(), Package { folder, dependencies })
    };
    metadata["packages"].as_array().unwrap().iter().map(package).collect()
}

/// What stands at the left margin of a file, without comments and tests.
pub struct Item {
    pub path: PathBuf,
    pub code: String,
    is: Is,
    /// Whether other files may name it.
    public: bool,
    words: BTreeSet<String>,
    calls: BTreeSet<String>,
}

enum Is {
    /// A function of this name.
    Function(String),
    /// A type, a trait, a constant or a macro of this name; or what belongs to a type.
    Named(String),
    /// A trait (first) for a type.
    Impl(String, String),
    /// What a file needs of others, and what stands in other files.
    Import,
}

fn is_name(c: char) -> bool {
    c.is_ascii_alphanumeric() || c == '_'
}

fn first_name(text: &str) -> String {
    text.trim_start_matches(|c| !is_name(c)).chars().take_while(|c| is_name(*c)).collect()
}

/// The last name of a path, without its arguments: `Reader` of `<T: Clock> ports::Reader<T>`.
fn type_name(text: &str) -> String {
    let (mut depth, mut flat) = (0, String::new());
    for c in text.chars() {
        match c {
            '<' => depth += 1,
            '>' => depth -= 1,
            c if depth == 0 => flat.push(c),
            _ => {}
        }
    }
    flat.split_whitespace().next().unwrap_or_default().rsplit("::").next().unwrap_or_default().to_owned()
}

impl Is {
    /// What a line begins, if it begins something.
    fn beginning(line: &str) -> Option<(Self, bool)> {
        let (item, public) = match line.strip_prefix("pub") {
            Some(rest) => (rest.split_once(' ')?.1, true),
            None => (line, false),
        };
        if let Some(of) = item.strip_prefix("impl") {
            let header = of.trim_end_matches('{');
            let header = header.split(" where ").next().unwrap_or(header);
            return Some((
                match header.split_once(" for ") {
                    Some((port, by)) => Self::Impl(type_name(port), type_name(by)),
                    None => Self::Named(type_name(header)),
                },
                true,
            ));
        }
        let mut words = item.split(' ');
        Some((
            match words.next()? {
                "use" | "mod" | "extern" => Self::Import,
                "fn" => Self::Function(first_name(words.next()?)),
                "async" | "const" if item.contains(" fn ") => {
                    Self::Function(first_name(item.split_once("fn ")?.1))
                }
                "struct" | "enum" | "trait" | "type" | "const" | "static" | "macro_rules!" => {
                    Self::Named(first_name(words.next()?))
                }
                _ => return None,
            },
            public,
        ))
    }
}

impl Item {
    fn new(path: &Path, is: Is, public: bool, code: String) -> Self {
        let (mut words, mut calls) = (BTreeSet::new(), BTreeSet::new());
        if !matches!(is, Is::Import) {
            let mut at = 0;
            for word in code.split(|c| !is_name(c)) {
                let (before, after) = (&code[..at], &code[at + word.len()..]);
                at += word.len() + after.chars().next().map_or(0, char::len_utf8);
                // Called or handed on, and neither a method nor a definition nor a member.
                let free = !before.ends_with('.') && !before.ends_with("fn ");
                if free && (after.starts_with('(') || before.ends_with("::")) {
                    calls.insert(word.to_owned());
                }
                words.insert(word.to_owned());
            }
        }
        Self { path: path.to_owned(), code, is, public, words, calls }
    }

    /// Whether `other` names it.
    fn named_by(&self, other: &Self) -> bool {
        (self.public || self.path == other.path)
            && match &self.is {
                Is::Function(name) => other.calls.contains(name),
                Is::Named(name) => other.words.contains(name),
                Is::Impl(..) | Is::Import => false,
            }
    }
}

/// The items of a file.
fn items(path: &Path, text: &str) -> Vec<Item> {
    let text = text.split("#[cfg(test)]\nmod tests").next().unwrap();
    let text = text.split("#[cfg(test)]\npub(super) mod tests").next().unwrap();
    let mut items = Vec::new();
    let (mut is, mut public, mut code) = (Is::Import, false, String::new());
    for line in text.lines().filter(|line| !line.trim_start().starts_with("//")) {
        if let Some((begins, is_public)) = Is::beginning(line) {
            items.push(Item::new(path, is, public, std::mem::take(&mut code)));
            (is, public) = (begins, is_public);
        }
        code.push_str(line);
        code.push('\n');
    }
    items.push(Item::new(path, is, public, code));
    items
}

/// The Rust files of a folder and of the folders in it, with their texts.
pub fn files(folder: &Path) -> Vec<(PathBuf, String)> {
    let (mut found, mut folders) = (Vec::new(), vec![folder.to_owned()]);
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                let text = std::fs::read_to_string(&path).unwrap();
                found.push((path, text));
            }
        }
    }
    found
}

/// The items of a folder and of the folders in it; files that hold only tests are left out.
pub fn sources(folder: &Path) -> Vec<Item> {
    let files = files(folder).into_iter().filter(|(path, _)| !path.ends_with("tests.rs"));
    files.flat_map(|(path, text)| items(&path, &text)).collect()
}

/// A package, and those of ours that it depends on, by way of others too.
pub fn depended_on(name: &str, packages: &BTreeMap<String, Package>) -> BTreeSet<String> {
    let mut closure = BTreeSet::from([name.to_owned()]);
    let mut todo = vec![name.to_owned()];
    while let Some(next) = todo.pop() {
        let package = packages.get(&next).unwrap_or_else(|| panic!("there is no package {next}"));
        for ours in package.dependencies.iter().filter(|name| packages.contains_key(*name)) {
            if closure.insert(ours.clone()) {
                todo.push(ours.clone());
            }
        }
    }
    closure
}

/// What a program reaches: all of its own, and what this needs of what it depends on.
pub fn reached(program: &str) -> Vec<Item> {
    let packages = packages();
    let mut closure = depended_on(program, &packages);
    closure.remove(program);
    let roots = sources(&packages[program].folder.join("src"));
    let rest = closure.iter().flat_map(|name| sources(&packages[name].folder.join("src"))).collect();
    reach(roots, rest)
}

fn reach(roots: Vec<Item>, mut rest: Vec<Item>) -> Vec<Item> {
    let mut reached = roots;
    loop {
        let named = |word: &String| reached.iter().any(|item| item.words.contains(word));
        let (more, others): (Vec<Item>, Vec<Item>) = rest.into_iter().partition(|item| match &item.is {
            Is::Impl(port, by) => named(port) && named(by),
            _ => reached.iter().any(|by| item.named_by(by)),
        });
        if more.is_empty() {
            return reached;
        }
        reached.extend(more);
        rest = others;
    }
}

/// The operations of all SDKs in use, by the files in which they make them.
fn sdk_operations() -> &'static BTreeSet<String> {
    static OPERATIONS: OnceLock<BTreeSet<String>> = OnceLock::new();
    OPERATIONS.get_or_init(|| {
        let metadata = metadata("--locked");
        let mut operations = BTreeSet::new();
        for package in metadata["packages"].as_array().unwrap() {
            if package["name"].as_str().unwrap().starts_with("aws-sdk-") {
                let folder =
                    Path::new(package["manifest_path"].as_str().unwrap()).with_file_name("src/client");
                operations.extend(
                    std::fs::read_dir(folder).unwrap().map(|entry| {
                        entry.unwrap().path().file_stem().unwrap().to_string_lossy().into_owned()
                    }),
                );
            }
        }
        // How a call is changed before it is sent.
        operations.remove("customize");
        assert!(operations.len() > 100, "the SDKs have operations: {operations:?}");
        operations
    })
}

/// Every operation that an SDK client is asked for, whatever the client is called or got from: `….get_item()`, or
/// `Client::get_item(…)`.
pub fn operations(code: &str) -> Vec<String> {
    let mut found = Vec::new();
    operations_in(code.parse().unwrap_or_else(|error| panic!("{error}: {code}")), &mut found);
    found
}

fn operations_in(tokens: TokenStream, found: &mut Vec<String>) {
    let tokens: Vec<TokenTree> = tokens.into_iter().collect();
    let is = |at: Option<usize>, mark: char| {
        let token = at.and_then(|at| tokens.get(at));
        matches!(token, Some(TokenTree::Punct(punct)) if punct.as_char() == mark)
    };
    for (at, token) in tokens.iter().enumerate() {
        match token {
            TokenTree::Group(group) => operations_in(group.stream(), found),
            TokenTree::Ident(name) => {
                let Some(TokenTree::Group(arguments)) = tokens.get(at + 1) else { continue };
                let of_a_client = is(at.checked_sub(1), '.') && arguments.stream().is_empty();
                let with_a_client = is(at.checked_sub(1), ':')
                    && matches!(at.checked_sub(3).and_then(|at| tokens.get(at)), Some(TokenTree::Ident(of)) if of.to_string().starts_with(char::is_uppercase));
                let is_call =
                    arguments.delimiter() == Delimiter::Parenthesis && (of_a_client || with_a_client);
                if is_call && sdk_operations().contains(&name.to_string()) {
                    found.push(name.to_string());
                }
            }
            TokenTree::Punct(dollar) if dollar.as_char() == '$' && is(at.checked_sub(1), '.') => {
                let Some(TokenTree::Group(arguments)) = tokens.get(at + 2) else { continue };
                assert!(
                    !arguments.stream().is_empty() || arguments.delimiter() != Delimiter::Parenthesis,
                    "a macro calls what its user names, which no scan sees: {}",
                    tokens
                        .iter()
                        .skip(at.saturating_sub(3))
                        .take(6)
                        .map(ToString::to_string)
                        .collect::<String>()
                );
            }
            _ => {}
        }
    }
}

/// Every variable of ours that is read when the program runs.
pub fn variables(code: &str) -> BTreeSet<String> {
    let literals = code.split('"').collect::<Vec<_>>();
    let pairs = literals.windows(2).filter(|pair| !pair[0].ends_with("option_env!("));
    pairs
        .map(|pair| pair[1])
        .filter(|literal| literal.strip_prefix("NIGHTSHIFT_").is_some_and(|name| !name.is_empty()))
        .filter(|literal| literal.chars().all(|c| c.is_ascii_uppercase() || c.is_ascii_digit() || c == '_'))
        .map(str::to_owned)
        .collect()
}

#[test]
fn a_program_reaches_what_it_names_and_no_more() {
    let file = |path: &str, text: &str| items(Path::new(path), text);
    let main =
        "fn main() {\n    DynamoLedger::new(&sdk);\n    settings::limits(&env)\n}\nstruct S(dyn Ledger);";
    let rest = [
        ("ledger", "pub struct DynamoLedger;\nimpl DynamoLedger {\n    client.get_item()\n}"),
        (
            "write",
            "#[async_trait]\nimpl Ledger for DynamoLedger {\n    update();\n}\nfn update() {\n    client.update_item()\n}",
        ),
        ("query", "impl<T: Clock> ports::Reader<T> for DynamoLedger {\n    client.query()\n}"),
        ("table", "pub const ID: &str = \"id\";\npub async fn create() {\n    client.create_table()\n}"),
        ("limits", "pub(crate) fn limits(env: &E) {\n    ID\n}\nfn unused() {\n    client.scan()\n}"),
        ("price", "// unused()\npub fn env() {\n    client.sleep()\n}\n#[cfg(test)]\nmod tests { unused() }"),
    ];
    let rest = rest.iter().flat_map(|(path, text)| file(path, text)).collect();
    let mut reached: Vec<_> =
        reach(file("main", main), rest).iter().flat_map(|item| operations(&item.code)).collect();
    reached.sort();
    assert_eq!(reached, ["get_item", "update_item"]);
}

#[test]
fn an_operation_is_seen_however_it_is_called() {
    for (code, called) in [
        ("client.get_item().send()", &["get_item"][..]),
        ("self\n    .client()\n    .purge_queue()", &["purge_queue"]),
        ("Queue::purge_queue(&client)", &["purge_queue"]),
        ("match x { _ => { f(|c| c.send_message()) } }", &["send_message"]),
        ("let all = retry!(client.query(), 3);", &["query"]),
        // Ours: a port's method has arguments, a function no type before it.
        ("store.get_item(key); ledger::query(&client); query();", &[]),
        ("client.sleep()", &[]),
    ] {
        assert_eq!(operations(code), called, "{code}");
    }
}

#[test]
#[should_panic(expected = "which no scan sees")]
fn a_macro_that_calls_what_it_is_told_is_refused() {
    operations("macro_rules! call { ($op:ident) => { client.$op().send() } }");
}
