//! Which file of a crate knows which other, by the paths that it writes.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use proc_macro2::{TokenStream, TokenTree};
use syn::visit::Visit;
use syn::{Item, UseTree};

use crate::code::{files, packages};

/// A module's path from its crate's root.
type Module = Vec<String>;

/// What stands in one file, without its tests.
struct File {
    /// Names that it makes its own: what it defines.
    defines: BTreeSet<String>,
    /// Names that it hands on from elsewhere; and modules all of whose names it hands on.
    hands_on: BTreeMap<String, Vec<String>>,
    hands_on_all: Vec<Vec<String>>,
    /// Paths that it writes, beside what it hands on.
    names: BTreeSet<Vec<String>>,
    /// What it has imported, by the name that it uses here.
    imports: BTreeMap<String, Vec<String>>,
}

pub fn of_tests(attributes: &[syn::Attribute]) -> bool {
    attributes.iter().any(|attribute| match &attribute.meta {
        syn::Meta::List(list) => list.path.is_ident("cfg") && list.tokens.to_string().contains("test"),
        meta => meta.path().is_ident("test"),
    })
}

/// Each path of a `use`, with the name that it has here; `*` for all.
fn imported(tree: &UseTree, before: &[String], found: &mut Vec<(String, Vec<String>)>) {
    let with = |name: &syn::Ident| before.iter().cloned().chain([name.to_string()]).collect::<Vec<_>>();
    match tree {
        UseTree::Path(path) => imported(&path.tree, &with(&path.ident), found),
        UseTree::Name(name) if name.ident == "self" => {
            found.extend(before.last().map(|last| (last.clone(), before.to_vec())));
        }
        UseTree::Name(name) => found.push((name.ident.to_string(), with(&name.ident))),
        UseTree::Rename(rename) => found.push((rename.rename.to_string(), with(&rename.ident))),
        UseTree::Glob(_) => found.push(("*".to_owned(), before.to_vec())),
        UseTree::Group(group) => group.items.iter().for_each(|tree| imported(tree, before, found)),
    }
}

#[derive(Default)]
struct Paths(BTreeSet<Vec<String>>);

impl Paths {
    /// The paths in a macro's arguments: `a::b` is a name, two colons, a name.
    fn of_tokens(&mut self, tokens: TokenStream) {
        let mut path: Vec<String> = Vec::new();
        let mut colons = 0;
        for token in tokens {
            match token {
                TokenTree::Punct(punct) if punct.as_char() == ':' => {
                    colons += 1;
                    continue;
                }
                TokenTree::Ident(name) => {
                    if colons != 2 {
                        self.0.insert(std::mem::take(&mut path));
                    }
                    path.push(name.to_string());
                }
                other => {
                    self.0.insert(std::mem::take(&mut path));
                    if let TokenTree::Group(group) = other {
                        self.of_tokens(group.stream());
                    }
                }
            }
            colons = 0;
        }
        self.0.insert(path);
    }
}

impl<'ast> Visit<'ast> for Paths {
    fn visit_path(&mut self, path: &'ast syn::Path) {
        self.0.insert(path.segments.iter().map(|segment| segment.ident.to_string()).collect());
        syn::visit::visit_path(self, path);
    }
    fn visit_macro(&mut self, of: &'ast syn::Macro) {
        self.of_tokens(of.tokens.clone());
        syn::visit::visit_macro(self, of);
    }
    fn visit_attribute(&mut self, attribute: &'ast syn::Attribute) {
        // `#[serde(with = "module")]`
        if let syn::Meta::List(list) = &attribute.meta {
            for token in list.tokens.clone() {
                if let TokenTree::Literal(text) = token {
                    let text = text.to_string();
                    self.0.insert(text.trim_matches('"').split("::").map(str::to_owned).collect());
                }
            }
        }
    }
    fn visit_item_mod(&mut self, module: &'ast syn::ItemMod) {
        if !of_tests(&module.attrs) {
            syn::visit::visit_item_mod(self, module);
        }
    }
    fn visit_item_fn(&mut self, function: &'ast syn::ItemFn) {
        if !of_tests(&function.attrs) {
            syn::visit::visit_item_fn(self, function);
        }
    }
    fn visit_item_use(&mut self, of: &'ast syn::ItemUse) {
        // Within a function; at the margin the file does it.
        let mut found = Vec::new();
        imported(&of.tree, &[], &mut found);
        self.0.extend(found.into_iter().map(|(_, path)| path));
    }
}

fn name_of(item: &Item) -> Option<String> {
    Some(
        match item {
            Item::Const(of) => &of.ident,
            Item::Enum(of) => &of.ident,
            Item::Fn(of) => &of.sig.ident,
            Item::Macro(of) => of.ident.as_ref()?,
            Item::Static(of) => &of.ident,
            Item::Struct(of) => &of.ident,
            Item::Trait(of) => &of.ident,
            Item::Type(of) => &of.ident,
            _ => return None,
        }
        .to_string(),
    )
}

impl File {
    fn read(text: &str) -> Self {
        let mut file = Self {
            defines: BTreeSet::new(),
            hands_on: BTreeMap::new(),
            hands_on_all: Vec::new(),
            names: BTreeSet::new(),
            imports: BTreeMap::new(),
        };
        let mut paths = Paths::default();
        for item in syn::parse_file(text).unwrap().items {
            match &item {
                Item::Use(of) if of_tests(&of.attrs) => {}
                Item::Use(of) => {
                    let mut found = Vec::new();
                    imported(&of.tree, &[], &mut found);
                    let handed_on = !matches!(of.vis, syn::Visibility::Inherited);
                    for (name, path) in found {
                        match (handed_on, name.as_str()) {
                            (true, "*") => file.hands_on_all.push(path),
                            (true, _) => drop(file.hands_on.insert(name, path)),
                            (false, "*") => drop(file.names.insert(path)),
                            (false, _) => {
                                file.names.insert(path.clone());
                                file.imports.insert(name, path);
                            }
                        }
                    }
                }
                item => {
                    file.defines.extend(name_of(item));
                    paths.visit_item(item);
                }
            }
        }
        file.names.extend(paths.0);
        file
    }
}

struct Crate(BTreeMap<Module, (PathBuf, File)>);

impl Crate {
    fn read(source: &Path) -> Self {
        let of_tests =
            |path: &Path| path.file_stem().is_some_and(|stem| stem.to_string_lossy().ends_with("tests"));
        Self::of(source, files(source).into_iter().filter(|(path, _)| !of_tests(path)))
    }

    fn of(source: &Path, files: impl Iterator<Item = (PathBuf, String)>) -> Self {
        Self(
            files
                .map(|(path, text)| {
                    let inner = path.strip_prefix(source).unwrap().with_extension("");
                    let mut module: Module =
                        inner.iter().map(|part| part.to_string_lossy().into_owned()).collect();
                    if module.last().is_some_and(|last| ["lib", "main", "mod"].contains(&last.as_str())) {
                        module.pop();
                    }
                    (module, (path, File::read(&text)))
                })
                .collect(),
        )
    }

    /// The file in which what a path names stands, as far as it is one of ours; `depth` ends what hands itself on.
    fn stands_in(&self, from: &Module, path: &[String], depth: usize) -> Option<Module> {
        let (first, rest) = path.split_first()?;
        let here = &self.0.get(from)?.1;
        if depth > 20 {
            return None;
        }
        let mut at = match first.as_str() {
            "crate" => Vec::new(),
            "self" => from.clone(),
            "super" => from[..from.len().checked_sub(1)?].to_vec(),
            name => {
                let child: Module = from.iter().cloned().chain([name.to_owned()]).collect();
                if self.0.contains_key(&child) {
                    child
                } else {
                    let path = here.imports.get(name).or_else(|| here.hands_on.get(name))?;
                    let longer: Vec<String> = path.iter().chain(rest).cloned().collect();
                    // An import of a name by itself, from another crate.
                    return (path[0] != name).then(|| self.stands_in(from, &longer, depth + 1)).flatten();
                }
            }
        };
        let mut rest = rest;
        while let Some((next, more)) = rest.split_first() {
            if next == "super" {
                at.pop();
            } else {
                let child: Module = at.iter().cloned().chain([next.clone()]).collect();
                if !self.0.contains_key(&child) {
                    break;
                }
                at = child;
            }
            rest = more;
        }
        let Some(name) = rest.first() else { return Some(at) };
        let file = &self.0.get(&at)?.1;
        if file.defines.contains(name) {
            return Some(at);
        }
        let handed =
            file.hands_on.get(name).map(|path| path.iter().chain(&rest[1..]).cloned().collect::<Vec<_>>());
        let all =
            || file.hands_on_all.iter().map(|path| path.iter().chain(rest).cloned().collect::<Vec<_>>());
        handed.into_iter().chain(all()).find_map(|path| self.stands_in(&at, &path, depth + 1)).or(Some(at))
    }

    /// Which file knows which. That a file knows the one of its folder is left out: that one is made of what stands in the
    /// folder, and says what all of it share.
    fn arrows(&self) -> BTreeMap<&Module, BTreeSet<Module>> {
        let known = |module: &Module, file: &File| {
            let all = file.names.iter().filter_map(|path| self.stands_in(module, path, 0));
            all.filter(|other| !module.starts_with(other)).collect()
        };
        self.0.iter().map(|(module, (_, file))| (module, known(module, file))).collect()
    }

    /// Files that know each other, whichever way round: each group once.
    fn circles(&self) -> Vec<BTreeSet<Module>> {
        let arrows = self.arrows();
        let reaches = |from: &Module| {
            let (mut reached, mut todo) = (BTreeSet::new(), vec![from.clone()]);
            while let Some(next) = todo.pop() {
                for other in arrows.get(&next).into_iter().flatten() {
                    if reached.insert(other.clone()) {
                        todo.push(other.clone());
                    }
                }
            }
            reached
        };
        let reached: BTreeMap<&Module, BTreeSet<Module>> =
            self.0.keys().map(|of| (of, reaches(of))).collect();
        let mut groups: Vec<BTreeSet<Module>> = Vec::new();
        for (module, of) in &reached {
            if of.contains(*module) && !groups.iter().any(|group| group.contains(*module)) {
                groups.push(of.iter().filter(|other| reached[other].contains(*module)).cloned().collect());
            }
        }
        groups
    }
}

/// A simulated world knows who lives in it, and they know it: one room, in several files for their length.
const ONE_ROOM: &str = "nightshift-simulation";

/// Whoever reads one of two files that know each other has to read both.
#[test]
fn no_two_files_know_each_other() {
    let (mut files, mut arrows) = (0, 0);
    for (name, of) in packages() {
        let of = Crate::read(&of.folder.join("src"));
        let known = of.arrows();
        files += known.len();
        arrows += known.values().map(BTreeSet::len).sum::<usize>();
        let mut lines = Vec::new();
        let circles = of.circles();
        if name == ONE_ROOM {
            assert!(!circles.is_empty(), "{name} is no exception any more");
            continue;
        }
        for circle in circles {
            for module in &circle {
                let others: Vec<String> =
                    known[module].intersection(&circle).map(|other| other.join("::")).collect();
                lines.push(format!("{} knows {}", of.0[module].0.display(), others.join(", ")));
            }
        }
        assert!(
            lines.is_empty(),
            "{name} has files that know each other: move what both need into one that knows neither, or join them\n{}",
            lines.join("\n")
        );
    }
    assert!(files > 150 && arrows > 300, "the scan finds the files and what they know: {files}, {arrows}");
}

#[test]
fn a_path_leads_to_the_file_where_it_stands() {
    let text = [
        ("lib", "pub mod a;\nmod b;\npub use b::inner::Thing as Renamed;"),
        ("a/mod", "mod one;\nmod two;\npub use one::*;\npub use two::Two;\npub struct Own;"),
        ("a/one", "use super::two;\npub struct One;\nfn f() { two::make() }"),
        ("a/two", "pub struct Two;\npub fn make() {}"),
        ("b/mod", "pub mod inner;\n#[cfg(test)]\nmod tests { use crate::a::One; }"),
        (
            "b/inner",
            "use crate::a::{Own, One};\npub struct Thing;\nfn f() { assert_eq!(1, crate::a::Two::N); }",
        ),
    ];
    let files = text.map(|(path, text)| (PathBuf::from(format!("{path}.rs")), text.to_owned()));
    let of = Crate::of(Path::new(""), files.into_iter());
    let arrows = of.arrows();
    let known = |module: &str| -> Vec<String> {
        let module: Module = module.split("::").map(str::to_owned).collect();
        arrows[&module].iter().map(|of| of.join("::")).collect()
    };
    assert_eq!(known("a::one"), ["a::two"]);
    assert_eq!(known("a::two"), [""; 0]);
    assert_eq!(known("b"), [""; 0]);
    assert_eq!(known("b::inner"), ["a", "a::one", "a::two"]);
    assert!(of.circles().is_empty());
}

#[test]
fn a_circle_is_found_over_a_third_file_and_in_a_macro() {
    let text = [
        ("a", "use crate::b::B;\npub struct A;"),
        ("b", "pub struct B(crate::c::C);"),
        ("c", "pub struct C;\nfn f() { vec![super::a::A] }"),
        ("d", "use crate::a::A;"),
        ("lib", "mod a;"),
    ];
    let files = text.map(|(path, text)| (PathBuf::from(format!("{path}.rs")), text.to_owned()));
    let circles = Crate::of(Path::new(""), files.into_iter()).circles();
    let named: Vec<String> = circles.into_iter().flatten().map(|module| module.join("::")).collect();
    assert_eq!(named, ["a", "b", "c"]);
}
