//! How large a file and a function may be, and what a comment must say.

use proc_macro2::Span;
use syn::spanned::Spanned;
use syn::visit::{self, Visit};

use crate::circles::of_tests;
use crate::code::{files, packages};
use crate::root;

/// Lines of a function, its signature included and its comment not.
const FUNCTION_LINES_MAX: usize = 80;
/// Lines of a file, without its tests.
const FILE_LINES_MAX: usize = 600;

/// What a reader could not hold, or would learn nothing from.
#[derive(Default)]
struct Rooms {
    lines_of_tests: usize,
    long: Vec<String>,
    empty_comments: Vec<String>,
}

fn lines(of: Span) -> usize {
    of.end().line - of.start().line + 1
}

/// The words of a name or a comment, without those that join others and without the plural.
fn words(text: &str) -> Vec<String> {
    const JOINING: [&str; 13] =
        ["a", "an", "and", "by", "for", "in", "is", "it", "its", "of", "one", "the", "this"];
    let mut apart = String::new();
    for c in text.replace("'s", "").chars() {
        if c.is_uppercase() {
            apart.push(' ');
        }
        apart.extend(if c.is_alphanumeric() { c } else { ' ' }.to_lowercase());
    }
    let words = apart.split_whitespace().filter(|word| !JOINING.contains(word));
    words.map(|word| word.trim_end_matches('s').to_owned()).collect()
}

impl Rooms {
    fn function(&mut self, of: &syn::Signature, to: Span) {
        let (from, name) = (of.fn_token.span.start().line, &of.ident);
        let lines = to.end().line - from + 1;
        if lines > FUNCTION_LINES_MAX {
            self.long.push(format!("{from}: `{name}` has {lines} lines"));
        }
    }

    /// A comment that says what the name says: `/// The body.` over `body`.
    fn comment(&mut self, attributes: &[syn::Attribute], name: &syn::Ident) {
        let text = |attribute: &syn::Attribute| match &attribute.meta {
            syn::Meta::NameValue(pair) if pair.path.is_ident("doc") => match &pair.value {
                syn::Expr::Lit(syn::ExprLit { lit: syn::Lit::Str(text), .. }) => Some(text.value()),
                _ => None,
            },
            _ => None,
        };
        let comment: String = attributes.iter().filter_map(text).collect();
        let named = words(&name.to_string());
        let said = words(&comment);
        if !said.is_empty() && said.iter().all(|word| named.contains(word)) {
            self.empty_comments.push(format!("{}: `{name}`:{comment}", name.span().start().line));
        }
    }
}

impl<'ast> Visit<'ast> for Rooms {
    fn visit_item_mod(&mut self, of: &'ast syn::ItemMod) {
        if of_tests(&of.attrs) {
            self.lines_of_tests += lines(of.span());
        } else {
            visit::visit_item_mod(self, of);
        }
    }
    fn visit_item_fn(&mut self, of: &'ast syn::ItemFn) {
        self.function(&of.sig, of.span());
        self.comment(&of.attrs, &of.sig.ident);
        visit::visit_item_fn(self, of);
    }
    fn visit_impl_item_fn(&mut self, of: &'ast syn::ImplItemFn) {
        self.function(&of.sig, of.span());
        self.comment(&of.attrs, &of.sig.ident);
        visit::visit_impl_item_fn(self, of);
    }
    fn visit_trait_item_fn(&mut self, of: &'ast syn::TraitItemFn) {
        self.function(&of.sig, of.span());
        self.comment(&of.attrs, &of.sig.ident);
        visit::visit_trait_item_fn(self, of);
    }
    fn visit_item_struct(&mut self, of: &'ast syn::ItemStruct) {
        self.comment(&of.attrs, &of.ident);
        visit::visit_item_struct(self, of);
    }
    fn visit_item_enum(&mut self, of: &'ast syn::ItemEnum) {
        self.comment(&of.attrs, &of.ident);
        visit::visit_item_enum(self, of);
    }
    fn visit_item_trait(&mut self, of: &'ast syn::ItemTrait) {
        self.comment(&of.attrs, &of.ident);
        visit::visit_item_trait(self, of);
    }
    fn visit_item_const(&mut self, of: &'ast syn::ItemConst) {
        self.comment(&of.attrs, &of.ident);
    }
    fn visit_field(&mut self, of: &'ast syn::Field) {
        if let Some(name) = &of.ident {
            self.comment(&of.attrs, name);
        }
    }
    fn visit_variant(&mut self, of: &'ast syn::Variant) {
        self.comment(&of.attrs, &of.ident);
        visit::visit_variant(self, of);
    }
}

fn look_at(text: &str) -> Rooms {
    let mut rooms = Rooms::default();
    rooms.visit_file(&syn::parse_file(text).unwrap());
    rooms
}

#[test]
fn a_reader_can_hold_each_function_and_each_file_and_no_comment_repeats_a_name() {
    let mut faults = Vec::new();
    let mut seen = 0;
    for (package, of) in packages() {
        // What stands in for AWS speaks its protocols: a request of SQS is a long table of names.
        if package == "nightshift-local" || of.folder.starts_with(root().join("tests")) {
            continue;
        }
        for (path, text) in files(&of.folder.join("src")) {
            let name = path.strip_prefix(root()).unwrap().display().to_string();
            if name.ends_with("/tests.rs") || name.contains("/tests/") {
                continue;
            }
            seen += 1;
            let rooms = look_at(&text);
            let lines = text.lines().count() - rooms.lines_of_tests;
            if lines > FILE_LINES_MAX {
                faults.push(format!("{name}: {lines} lines without its tests, of {FILE_LINES_MAX}"));
            }
            let long = rooms.long.iter().map(|what| format!("{name}:{what}, of {FUNCTION_LINES_MAX}"));
            let empty =
                rooms.empty_comments.iter().map(|what| format!("{name}:{what} says what the name says"));
            faults.extend(long.chain(empty));
        }
    }
    assert!(seen > 200, "only {seen} files were looked at");
    assert!(
        faults.is_empty(),
        "cut these by concern, and say in a comment what a name does not:\n{}",
        faults.join("\n")
    );
}

#[test]
fn what_is_too_long_or_says_nothing_is_found() {
    let long = |lines: usize| format!("impl A {{ fn long() {{\n{}}} }}", "call();\n".repeat(lines - 2));
    assert_eq!(look_at(&long(FUNCTION_LINES_MAX)).long, [""; 0]);
    assert_eq!(look_at(&long(FUNCTION_LINES_MAX + 1)).long, ["1: `long` has 81 lines"]);
    for (code, empty) in [
        ("/// The body.\nfn body() {}", true),
        ("struct A {\n/// Its keys' names.\nkey_name: u8 }", true),
        ("/// One cell.\nenum Cell {}", true),
        ("/// The body, as the sender wrote it.\nfn body() {}", false),
        ("/// Its price, in dollars.\nconst PRICE: u8 = 1;", false),
        ("fn body() {}", false),
    ] {
        assert_eq!(!look_at(code).empty_comments.is_empty(), empty, "{code}");
    }
    let with_tests = "fn a() {}\n#[cfg(test)]\nmod tests {\nfn b() {}\n}\n";
    assert_eq!(look_at(with_tests).lines_of_tests, 4);
}
