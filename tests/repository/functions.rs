//! Each function's role and settings, compared with what its code calls and reads.

use std::collections::{BTreeMap, BTreeSet};

use nightshift_core::limits::Limits;
use nightshift_shell::settings::{Environment, ModelSettings, ProviderName, limits};

use crate::code::{self, packages, reached, sources};
use crate::{read, terraform_files, words};

/// What Lambda does in the name of a function's role, beside what the code calls.
type ByLambda = &'static [&'static str];

/// The event source mapping acts as the function's role (Lambda Developer Guide, "Creating and configuring an Amazon
/// SQS event source mapping").
const TAKES_FROM_A_QUEUE: ByLambda = &["sqs:ReceiveMessage", "sqs:DeleteMessage", "sqs:GetQueueAttributes"];
/// Lambda writes the log as the role (Lambda Developer Guide).
const WRITES_A_LOG: ByLambda = &["logs:CreateLogStream", "logs:PutLogEvents"];
/// In a VPC Lambda makes the interfaces as the role: AWSLambdaVPCAccessExecutionRole.
const JOINS_A_NETWORK: ByLambda = &[
    "ec2:AssignPrivateIpAddresses",
    "ec2:CreateNetworkInterface",
    "ec2:DeleteNetworkInterface",
    "ec2:DescribeNetworkInterfaces",
    "ec2:DescribeSubnets",
    "ec2:UnassignPrivateIpAddresses",
];

/// The functions: a name stands for the package `nightshift-<name>-function`, the file `terraform/<name>.tf`, and in it
/// `<name>_statements` and `<name>_environment`.
const FUNCTIONS: [(&str, &[ByLambda]); 3] = [
    ("worker", &[TAKES_FROM_A_QUEUE, WRITES_A_LOG, JOINS_A_NETWORK]),
    ("redrive", &[WRITES_A_LOG, JOINS_A_NETWORK]),
    ("sentinel", &[WRITES_A_LOG, JOINS_A_NETWORK]),
];

/// What IAM calls an operation, by the Service Authorization Reference.
const ACTIONS: [(&str, &str); 19] = [
    ("update_item", "dynamodb:UpdateItem"),
    ("get_item", "dynamodb:GetItem"),
    // A transaction is allowed by the actions that it is made of; ours are updates.
    ("transact_write_items", "dynamodb:UpdateItem"),
    ("query", "dynamodb:Query"),
    ("batch_get_item", "dynamodb:BatchGetItem"),
    ("send_message", "sqs:SendMessage"),
    // A batch is allowed by the action that it is made of.
    ("send_message_batch", "sqs:SendMessage"),
    ("delete_message_batch", "sqs:DeleteMessage"),
    ("change_message_visibility_batch", "sqs:ChangeMessageVisibility"),
    ("receive_message", "sqs:ReceiveMessage"),
    ("get_queue_attributes", "sqs:GetQueueAttributes"),
    ("change_message_visibility", "sqs:ChangeMessageVisibility"),
    ("put_metric_data", "cloudwatch:PutMetricData"),
    ("get_secret_value", "secretsmanager:GetSecretValue"),
    ("get_parameter", "ssm:GetParameter"),
    // The API's name of it is another than IAM's.
    ("invoke", "lambda:InvokeFunction"),
    ("get_event_source_mapping", "lambda:GetEventSourceMapping"),
    ("update_event_source_mapping", "lambda:UpdateEventSourceMapping"),
    ("get_alias", "lambda:GetAlias"),
];

/// Read on one machine only: Terraform never sets a key.
const NOT_FROM_TERRAFORM: [&str; 1] = ["NIGHTSHIFT_MODEL_KEY"];

fn package(function: &str) -> String {
    format!("nightshift-{function}-function")
}

/// A local of a function's Terraform file, up to the end of its value.
fn local(function: &str, what: &str) -> String {
    let file = format!("terraform/{function}.tf");
    let name = format!("\n  {function}_{what} = ");
    let text = read(&file);
    let value = text.split_once(&name).unwrap_or_else(|| panic!("{file} has no local {function}_{what}")).1;
    value.split("\n  }\n").next().unwrap().split("\n  )\n").next().unwrap().to_owned()
}

/// Whatever serves Lambda is a function, and has its line here, its role and its file.
#[test]
fn every_function_is_compared() {
    let here: BTreeSet<String> = FUNCTIONS.iter().map(|(name, _)| (*name).to_owned()).collect();
    let mut crates = BTreeSet::new();
    for (name, of) in packages() {
        let serves = of.folder.join("src/main.rs").exists()
            && sources(&of.folder.join("src")).iter().any(|item| item.code.contains("runtime::run("));
        let named = name.strip_prefix("nightshift-").and_then(|name| name.strip_suffix("-function"));
        assert_eq!(
            serves,
            named.is_some(),
            "{name}: a function is named nightshift-…-function and serves Lambda"
        );
        crates.extend(named.map(str::to_owned));
    }
    let mut resources = BTreeSet::new();
    for (_, text) in terraform_files() {
        let functions = text.split("\nresource \"aws_lambda_function\" \"").skip(1);
        resources.extend(functions.map(|rest| rest.split('"').next().unwrap().to_owned()));
    }
    assert_eq!(crates, here, "crates that are functions, and FUNCTIONS of this test");
    assert_eq!(resources, here, "functions of Terraform, and FUNCTIONS of this test");
}

#[test]
fn a_role_allows_what_the_code_calls_and_no_more() {
    let actions = BTreeMap::from(ACTIONS);
    let packages = packages();
    // Whoever knows no SDK, not even by way of another package, has methods of its own by such names.
    let knows_an_sdk = |name: &String| {
        let known = code::depended_on(name, &packages);
        known.iter().any(|of| packages[of].dependencies.iter().any(|name| name.starts_with("aws-sdk-")))
    };
    let with_clients: Vec<_> =
        packages.iter().filter(|(name, _)| knows_an_sdk(name)).map(|(_, of)| &of.folder).collect();
    for (function, by_lambda) in FUNCTIONS {
        let mut called: BTreeSet<String> = BTreeSet::new();
        for item in reached(&package(function)) {
            let has_clients = with_clients.iter().any(|folder| item.path.starts_with(folder));
            for operation in code::operations(&item.code).into_iter().filter(|_| has_clients) {
                let action = actions.get(operation.as_str()).unwrap_or_else(|| {
                    panic!("{} calls {operation}: name its IAM action in ACTIONS", item.path.display())
                });
                called.insert((*action).to_owned());
            }
            // Converse is allowed by InvokeModel (Amazon Bedrock API Reference, Converse). Only who has the port calls it;
            // the name of the provider is in a price, too.
            if item.code.contains("impl Model for Bedrock") {
                called.insert("bedrock:InvokeModel".to_owned());
            }
        }
        assert!(called.len() > 2, "the scan finds the calls of {function}: {called:?}");
        called.extend(by_lambda.concat().into_iter().map(str::to_owned));
        let statements = local(function, "statements");
        let allowed: BTreeSet<String> = statements
            .lines()
            .filter(|line| line.trim_start().starts_with("Action"))
            .flat_map(|line| line.split('"').skip(1).step_by(2))
            .map(str::to_owned)
            .collect();
        let missing: Vec<_> = called.difference(&allowed).collect();
        let spare: Vec<_> = allowed.difference(&called).collect();
        assert!(missing.is_empty(), "the role of {function} lacks what its code calls: {missing:?}");
        assert!(spare.is_empty(), "the role of {function} allows what nothing calls: {spare:?}");
    }
}

#[test]
fn a_role_has_the_one_policy_that_is_compared_with_its_code() {
    let terraform: String = terraform_files().into_iter().map(|(_, text)| text).collect();
    let policies: Vec<&str> = terraform.split("\nresource \"aws_iam_role_policy").skip(1).collect();
    for (function, _) in FUNCTIONS {
        let role = format!("aws_iam_role.{function}.");
        let of_role = policies.iter().filter(|policy| policy.split("\n}\n").next().unwrap().contains(&role));
        assert_eq!(of_role.count(), 1, "policies of the role of {function}");
    }
}

/// No stand-in for IAM and no plan tells one queue's ARN from another's: what a role may do with which resource is read here,
/// and again by whoever changes it.
#[test]
fn a_role_names_the_resources_that_its_function_is_told_of() {
    for (function, _) in FUNCTIONS {
        let statements = local(function, "statements");
        let of_line = |line: &str, what: &str| {
            line.trim_start().strip_prefix(what)?.trim_start().strip_prefix("= ").map(str::to_owned)
        };
        let mut rows = Vec::new();
        for line in statements.lines().map(|line| line.split(" # ").next().unwrap()) {
            if let Some(sid) = of_line(line, "Sid") {
                rows.push(sid);
            }
            for what in ["Action", "Resource", "\"ForAllValues:StringEquals\""] {
                if let (Some(value), Some(row)) = (of_line(line, what), rows.last_mut()) {
                    *row += &format!(": {value}");
                }
            }
        }
        insta::assert_snapshot!(format!("role_of_{function}"), rows.join("\n"));
        let environment = local(function, "environment");
        let queues = |text: &str, end: &str| -> BTreeSet<String> {
            let named = text.split("aws_sqs_queue.").skip(1).filter_map(|rest| rest.split_once('.'));
            named.filter(|(_, rest)| rest.starts_with(end)).map(|(queue, _)| queue.to_owned()).collect()
        };
        assert_eq!(queues(&statements, "arn"), queues(&environment, "url"), "the queues of {function}");
    }
}

#[test]
fn terraform_sets_the_variables_that_a_function_reads_and_no_others() {
    for (function, _) in FUNCTIONS {
        let read: BTreeSet<String> =
            reached(&package(function)).iter().flat_map(|item| code::variables(&item.code)).collect();
        let environment = local(function, "environment");
        let set: BTreeSet<String> = environment
            .lines()
            .filter_map(|line| line.trim_start().split(' ').next())
            .filter(|name| name.starts_with("NIGHTSHIFT_"))
            .map(str::to_owned)
            .collect();
        assert!(set.len() > 2, "the scan finds the variables of {function}: {set:?}");
        let unread: Vec<_> = set.difference(&read).collect();
        let unset: Vec<_> =
            read.difference(&set).filter(|name| !NOT_FROM_TERRAFORM.contains(&name.as_str())).collect();
        assert!(unread.is_empty(), "terraform/{function}.tf sets what {function} does not read: {unread:?}");
        assert!(unset.is_empty(), "terraform/{function}.tf does not set what {function} reads: {unset:?}");
    }
}

/// A limit that nobody sets is the one that the core's tests and the simulation prove, whether the worker is told of it or not.
#[test]
fn the_defaults_of_terraform_are_those_of_the_core() {
    let variables = read("terraform/variables.tf");
    let default = |variable: &str, member: &str| {
        let block = variables.split_once(&format!("\nvariable \"{variable}\" {{")).unwrap().1;
        let line = block.split("\n}\n").next().unwrap().lines().find_map(|line| {
            let (name, kind) = line.split_once(" = ")?;
            (name.trim() == member).then_some(kind.trim().strip_prefix("optional(number, ")?)
        });
        line.map(|rest| rest.trim_end_matches(')').parse::<f64>().unwrap())
    };
    let mut told = BTreeMap::new();
    for line in local("worker", "environment").lines() {
        let Some((name, value)) = line.split_once(" = var.") else { continue };
        let mut factors = value.split(" * ");
        let Some((variable, member)) = factors.next().unwrap().split_once('.') else { continue };
        // What has no number for a default is no limit.
        let Some(default) = default(variable, member) else { continue };
        let number = |factor: &str| if factor == "local.day_s" { 86_400.0 } else { factor.parse().unwrap() };
        told.insert(
            name.trim().to_owned(),
            factors.map(number).fold(default, |all, factor| all * factor).to_string(),
        );
    }
    assert!(told.len() > 20, "the scan finds the defaults: {told:?}");
    let by_terraform = |name: &str| told.get(name).cloned();
    let limits = Environment::read(&by_terraform, limits).unwrap();
    assert_eq!(limits, Limits::default(), "terraform/variables.tf, and Limits::default()");
}

#[test]
fn the_readme_says_the_defaults_of_the_limits() {
    // No `..`: whoever adds a limit decides whether the table tells of it.
    let Limits {
        body_bytes_max,
        output_bytes_max,
        call_limit,
        reask_limit,
        paid_call_limit,
        call_timeout_ms,
        function_timeout_ms,
        capacity_wait_ms_max,
        spend_cap_micro_usd,
        result_expiry_ms,
        failure_expiry_ms,
        crash_limit: _,
        backoff_base_ms: _,
        backoff_ms_max: _,
        hand_back_base_ms: _,
        hand_back_ms_max: _,
        lease_margin_ms: _,
        deadline_margin_ms: _,
        visibility_timeout_ms: _,
        retention_ms: _,
        receive_count_max: _,
        batch_size: _,
        concurrency_max: _,
        requests_per_minute: _,
        tokens_per_minute: _,
    } = Limits::default();
    let (kib, s, h, days) = (1_024, 1_000, 3_600_000, 86_400_000);
    let readme = read("README.md");
    let table = readme.split_once("\n## Limits\n").unwrap().1.split_once("\n- ").unwrap().0;
    let said = |what: &str| {
        let row = table.lines().find(|line| line.starts_with(&format!("| {what}")));
        row.unwrap_or_else(|| panic!("no row for {what}")).split(" | ").nth(1).unwrap().to_owned()
    };
    for (what, default) in [
        ("body of a message", format!("{} KiB,", body_bytes_max / kib)),
        ("output", format!("{} KiB;", output_bytes_max / kib)),
        (
            "model calls per delivery, re-asks per job, paid calls per job",
            format!("{}, {}, {}", call_limit, reask_limit, paid_call_limit),
        ),
        (
            "one model call, the whole invocation",
            format!("{} s, {} s", call_timeout_ms / s, function_timeout_ms / s),
        ),
        ("waiting for the provider's capacity", format!("{} h,", capacity_wait_ms_max / h)),
        ("dollars per day", (spend_cap_micro_usd / 1_000_000).to_string()),
        (
            "results, failures are kept",
            format!("{} d, {} d", result_expiry_ms / days, failure_expiry_ms / days),
        ),
    ] {
        let said = said(what);
        assert!(
            said.starts_with(&default),
            "README, Limits, {what}: {said}, and {default} by Limits::default()"
        );
    }
}

/// What Terraform refuses never reaches the function, and what it lets through must not stop it.
#[test]
fn terraform_knows_the_providers_that_the_functions_know() {
    let variables = read("terraform/variables.tf");
    let listed = listed_before(&variables, ", var.model.provider)");
    let known: BTreeSet<&str> = ProviderName::ALL.iter().map(|provider| provider.as_str()).collect();
    assert_eq!(listed, known, "terraform/variables.tf, model.provider; and the shell's ProviderName");
    let said = variables.split_once("\n    provider: ").unwrap().1.split_once('\n').unwrap().0;
    let refused = variables.split_once("\"model.provider must be ").unwrap().1.split_once('\n').unwrap().0;
    for provider in known {
        assert!(said.contains(provider), "terraform/variables.tf describes no provider {provider}");
        assert!(
            refused.contains(provider),
            "terraform/variables.tf refuses others and does not name {provider}"
        );
    }
}

/// What Terraform's `contains([…` lists before these words.
fn listed_before<'a>(terraform: &'a str, words: &str) -> BTreeSet<&'a str> {
    let (listed, _) = terraform.split_once(words).unwrap();
    listed.rsplit_once("contains([").unwrap().1.split('"').skip(1).step_by(2).collect()
}

/// One that Terraform takes for keyless gets no secret, and its function then starts nowhere.
#[test]
fn terraform_gives_a_key_to_the_providers_that_do_not_start_without_one() {
    let starts = |provider: &ProviderName| {
        let lookup = |name: &str| match name {
            "NIGHTSHIFT_PROVIDER" => Some(provider.as_str().to_owned()),
            "NIGHTSHIFT_MODEL" => Some("rehearsal".to_owned()),
            _ => None,
        };
        Environment::read(&lookup, ModelSettings::read).is_ok()
    };
    let need_one: BTreeSet<&str> =
        ProviderName::ALL.iter().filter(|provider| !starts(provider)).map(|p| p.as_str()).collect();
    assert!(need_one.len() > 1, "{need_one:?}");
    // A URL of plain HTTP is refused for the same ones.
    for (file, operator) in [("terraform/secret.tf", "&& "), ("terraform/variables.tf", "|| !")] {
        let text = read(file);
        let behind = format!("], var.model.provider) {operator}var.model.needs_key");
        assert_eq!(
            listed_before(&text, &behind),
            need_one,
            "{file}, and the providers that the shell asks a key of"
        );
    }
}

/// A member that nothing reads is a promise: Terraform checks it, and it changes nothing.
#[test]
fn terraform_uses_every_setting_and_the_readme_names_its_variable() {
    let variables = read("terraform/variables.tf");
    let elsewhere = terraform_files().into_iter().filter(|(path, _)| !path.ends_with("variables.tf"));
    let elsewhere: String = elsewhere.map(|(_, text)| text).collect();
    let members_read: BTreeSet<&str> = elsewhere
        .split('.')
        .skip(1)
        .filter_map(|rest| words(rest, |c| c.is_ascii_alphanumeric() || c == '_').next())
        .collect();
    let readme = read("README.md");
    let settings = readme.split_once("### Settings").unwrap().1.split_once("\n## ").unwrap().0;
    let mut members = 0;
    for variable in variables.split("\nvariable \"").skip(1) {
        let name = variable.split('"').next().unwrap();
        assert!(settings.contains(&format!("`{name}`")), "README.md, \"Settings\", does not name {name}");
        for (member, _) in variable.lines().filter_map(|line| line.split_once(" = optional(")) {
            members += 1;
            let member = member.trim();
            assert!(members_read.contains(member), "nothing in terraform/ reads {name}.{member}");
        }
    }
    assert!(members > 50, "the scan finds the members: {members}");
}

/// Everything below the shells is told what it needs to know.
#[test]
fn the_environment_is_read_where_a_program_starts() {
    let programs_of_their_own =
        ["nightshift-cli", "nightshift-demo", "nightshift-local", "nightshift-alarms"];
    let tests =
        ["nightshift-tests", "nightshift-simulation", "nightshift-drills", "nightshift-load", "my-tasks"];
    let mut files = 0;
    for (name, of) in packages() {
        if programs_of_their_own.contains(&name.as_str()) || tests.contains(&name.as_str()) {
            continue;
        }
        for source in sources(&of.folder.join("src")) {
            files += 1;
            let starts = source.path.ends_with("crates/shell/src/runtime.rs");
            assert!(
                starts || !source.code.contains("env::var"),
                "{} reads the environment: take a group of the shell's settings",
                source.path.display()
            );
        }
    }
    assert!(files > 50, "the scan finds the sources: {files}");
}

/// The scan of the variables sees whole names with our prefix: another one, or one that is put together, it would miss.
#[test]
fn a_variable_is_named_whole_and_with_our_prefix() {
    let is_name = |text: &str| {
        text.contains('_') && text.chars().all(|c| c.is_ascii_uppercase() || c.is_ascii_digit() || c == '_')
    };
    let mut names = 0;
    for source in sources(&packages()["nightshift-shell"].folder.join("src")) {
        let shown = source.path.display();
        assert!(!source.code.contains("concat!("), "{shown} puts a name together: write it whole");
        for literal in source.code.split('"').skip(1).step_by(2) {
            let ours = literal.starts_with("NIGHTSHIFT_");
            // The core says what contradicts without our prefix.
            let begins = literal.split_once('{').map(|(before, _)| before);
            let is_put_together = ours && begins.is_some_and(is_name) && literal != "NIGHTSHIFT_{fault}";
            assert!(!is_put_together, "{shown} puts {literal:?} together: write it whole");
            if is_name(literal) {
                names += 1;
                assert!(
                    (ours && !literal.ends_with('_')) || literal.starts_with("AWS_"),
                    "{shown} reads {literal}: a variable of ours begins with NIGHTSHIFT_"
                );
            }
        }
    }
    assert!(names > 40, "the scan finds the names: {names}");
}
