//! What `nightshift` asks of AWS, compared with the policies of those who use it.

use std::collections::BTreeSet;
use std::path::Path;

use crate::code::files;
use crate::{read, root};

/// The files that a producer's commands are made of; all else of the command is an operator's.
const PRODUCER: [&str; 4] = ["stack.rs", "caller.rs", "sender.rs", "commands/enqueue.rs"];
/// What a load test makes and removes on a stack of its own: whoever made that stack may do anything there.
const ADMINISTRATOR: [&str; 2] = ["test_jobs.rs", "test_lease.rs"];
/// Anybody may ask who they are (AWS STS API Reference, GetCallerIdentity).
const OF_ANYBODY: &str = "sts:GetCallerIdentity";

/// The actions that a file names, as IAM calls them; each request to AWS names its own where it fails.
fn actions(source: &str) -> BTreeSet<String> {
    let is_action = |text: &&str| {
        text.split_once(':').is_some_and(|(service, operation)| {
            !service.is_empty()
                && service.bytes().all(|b| b.is_ascii_lowercase())
                && operation.starts_with(|c: char| c.is_ascii_uppercase())
                && operation.bytes().all(|b| b.is_ascii_alphanumeric())
        })
    };
    let code = source.split("#[cfg(test)]").next().unwrap();
    code.split('"').filter(is_action).map(str::to_owned).collect()
}

fn sources() -> Vec<(String, String)> {
    let folder = root().join("crates/cli/src");
    let name = |path: &Path| path.strip_prefix(&folder).unwrap().to_str().unwrap().to_owned();
    files(&folder).into_iter().map(|(path, text)| (name(&path), text)).collect()
}

fn policy(role: &str) -> String {
    let policies = read("terraform/policies.tf");
    let after = policies.split_once(&format!("\n    {role} = {{")).unwrap().1;
    let statements = after.split("\n    }\n").next().unwrap();
    let found = policies.split_once("find_the_stack = {").unwrap().1.split("\n  }\n").next().unwrap();
    assert!(statements.contains("find_the_stack") || statements.contains("lambda:GetFunctionConfiguration"));
    format!("{statements}{found}")
}

#[test]
fn whoever_uses_the_command_may_do_what_it_asks() {
    let (producer, operator) = (policy("producer"), policy("operator"));
    let mut seen = 0;
    for (name, source) in sources().into_iter().filter(|(name, _)| !ADMINISTRATOR.contains(&name.as_str())) {
        for action in actions(&source).into_iter().filter(|action| action != OF_ANYBODY) {
            seen += 1;
            let quoted = format!("\"{action}\"");
            assert!(
                operator.contains(&quoted),
                "crates/cli/src/{name} asks for {action}, and terraform/policies.tf allows it to no operator"
            );
            if PRODUCER.contains(&name.as_str()) {
                assert!(
                    producer.contains(&quoted),
                    "crates/cli/src/{name} asks for {action}, and terraform/policies.tf allows it to no producer"
                );
            }
        }
    }
    assert!(seen >= 10, "the scan finds the actions: {seen}");
}

/// A request whose failure nobody names would not be seen by the test above.
#[test]
fn every_request_of_the_command_names_its_action() {
    for (name, source) in sources() {
        let code = source.split("#[cfg(test)]").next().unwrap();
        // A paginator asks page by page, and its first failure is named like any other.
        let requests = code.matches(".send()").count();
        let named = code.matches("of_aws(").count();
        assert!(requests <= named, "crates/cli/src/{name}: {requests} requests, {named} of them named");
    }
}

/// What `nightshift review` asks through ports, and the action of each.
const REVIEWER: [(&str, &str); 8] = [
    ("Entries::new(", "dynamodb:Query"),
    ("ledger::record(", "dynamodb:BatchGetItem"),
    ("ledger.get(", "dynamodb:BatchGetItem"),
    ("ledger.parts(", "dynamodb:GetItem"),
    ("ledger.write(", "dynamodb:UpdateItem"),
    ("ledger.note_letter_sent(", "dynamodb:UpdateItem"),
    ("trace::begin(", "dynamodb:PutItem"),
    ("queue.send(", "sqs:SendMessage"),
];

#[test]
fn whoever_reviews_may_do_what_it_asks_and_no_more() {
    let source = read("crates/cli/src/commands/review.rs");
    // A port's method that is not in the table would be a request that this test does not see.
    for part in source.split(['&', ' ', '(', '\n']).filter(|part| part.starts_with("ledger.")) {
        let known = REVIEWER.iter().any(|(asks, _)| asks.trim_end_matches('(') == part);
        assert!(known, "review.rs asks {part}: name its action in REVIEWER");
    }
    let mut asked: BTreeSet<String> = REVIEWER
        .iter()
        .map(|(asks, action)| {
            assert!(
                source.contains(asks),
                "review.rs does not ask {asks} any longer: take it out of REVIEWER"
            );
            (*action).to_owned()
        })
        .collect();
    asked.extend(
        ["stack.rs", "trace.rs"].iter().flat_map(|file| actions(&read(&format!("crates/cli/src/{file}")))),
    );
    let mut allowed = actions(&policy("reviewer"));
    // The key of a condition looks like an action.
    allowed.remove("dynamodb:LeadingKeys");
    assert_eq!(asked, allowed, "asked, and allowed by the policy `reviewer`");
}
