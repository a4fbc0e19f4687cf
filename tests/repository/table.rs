//! The ledger's table has one definition, in `crates/aws`: everything that stands in for DynamoDB gets it from there, and
//! what Terraform makes on AWS is compared with it here.

use std::collections::BTreeMap;

use nightshift_aws::ledger::table;
use nightshift_core::input_hash::InputHash;
use nightshift_core::kept::PART_PREFIX;
use nightshift_core::sentinel::WATCH_KEY;
use serde_json::{Map, Value, json};

use crate::terraform_files;

/// A block of HCL as `terraform fmt` writes it, one argument a line; the values of arguments as they stand there.
#[derive(Default)]
struct Block {
    arguments: BTreeMap<String, String>,
    blocks: Vec<(String, Block)>,
}

/// The rest of a block, up to its closing brace.
fn block<'a>(lines: &mut impl Iterator<Item = &'a str>) -> Block {
    let mut read = Block::default();
    while let Some(line) = lines.next().map(str::trim) {
        if line == "}" {
            return read;
        } else if line.is_empty() || line.starts_with('#') {
            continue;
        } else if let Some(name) = line.strip_suffix(" {") {
            read.blocks.push((name.to_owned(), block(lines)));
        } else {
            let argument = line.split_once('=').unwrap_or_else(|| panic!("no argument and no block: {line}"));
            read.arguments.insert(argument.0.trim().to_owned(), argument.1.trim().to_owned());
        }
    }
    panic!("the block does not end");
}

/// As JSON: an argument is its value, blocks of one name are a list.
fn as_json(block: Block) -> Value {
    let mut json = Map::new();
    for (name, value) in block.arguments {
        let value =
            serde_json::from_str(&value).unwrap_or_else(|_| panic!("{name} = {value} is no constant"));
        json.insert(name, value);
    }
    for (name, inner) in block.blocks {
        let all = json.entry(name).or_insert_with(|| json!([]));
        all.as_array_mut().unwrap().push(as_json(inner));
    }
    Value::Object(json)
}

/// Our definition, in Terraform's words.
fn defined() -> Value {
    let table = table::definition("any").unwrap().build().unwrap();
    let attributes = table.attribute_definitions().iter();
    let attributes =
        attributes.map(|a| json!({"name": a.attribute_name(), "type": a.attribute_type().as_str()}));
    let indexes = table.global_secondary_indexes().iter().map(|index| {
        let projection = index.projection().unwrap();
        let keys = index.key_schema().iter();
        let keys =
            keys.map(|k| json!({"attribute_name": k.attribute_name(), "key_type": k.key_type().as_str()}));
        json!({
            "name": index.index_name(),
            "key_schema": keys.collect::<Vec<_>>(),
            "projection_type": projection.projection_type().unwrap().as_str(),
            "non_key_attributes": projection.non_key_attributes(),
        })
    });
    let mut defined = json!({
        "billing_mode": table.billing_mode().unwrap().as_str(),
        "attribute": attributes.collect::<Vec<_>>(),
        "global_secondary_index": indexes.collect::<Vec<_>>(),
        "ttl": [{"attribute_name": table::EXPIRES_AT, "enabled": true}],
    });
    for key in table.key_schema() {
        let argument = format!("{}_key", key.key_type().as_str().to_lowercase());
        defined[argument] = key.attribute_name().into();
    }
    defined
}

#[test]
fn terraform_makes_the_table_that_everything_else_uses() {
    let terraform = super::read("terraform/ledger.tf");
    let resource = terraform.split_once("resource \"aws_dynamodb_table\" \"ledger\" {\n").unwrap().1;
    // What is a deployment's own choice. All else is compared, what nobody thought of yet included.
    let own = [
        "name",
        "region",
        "tags",
        "deletion_protection_enabled",
        "stream_enabled",
        "stream_view_type",
        "point_in_time_recovery",
        "server_side_encryption",
        "lifecycle",
    ];
    let mut made = block(&mut resource.lines());
    for name in own {
        let blocks = made.blocks.len();
        made.blocks.retain(|(block, _)| block != name);
        let stood = made.arguments.remove(name).is_some() || made.blocks.len() < blocks;
        assert!(stood, "terraform/ledger.tf has no {name} any more: take it from this list");
    }
    assert_eq!(as_json(made), defined());
}

/// What stands in for DynamoDB makes the one table, and what reads a key reads it there.
#[test]
fn there_is_one_table() {
    let resources = |text: &str| text.matches("\nresource \"aws_dynamodb_table\"").count();
    let tables: usize = terraform_files().iter().map(|(_, text)| resources(text)).sum();
    assert_eq!(tables, 1, "a second table has no definition, no fixtures and no price in README");
}

/// No server on one machine checks this condition: another word would be refused, or allowed, on AWS alone.
#[test]
fn policies_tell_records_apart_by_the_keys_that_the_code_gives_them() {
    let traces = "trace#*";
    assert!(super::read("crates/cli/src/trace.rs").contains("let id = format!(\"trace#{"));
    let kept = format!("{PART_PREFIX}*");
    let not_jobs = || vec!["*#*", table::CONTROL_ID];
    for key in [WATCH_KEY, PART_PREFIX, traces] {
        assert!(key.contains('#'), "{key} would be taken for a job's");
    }
    let of_a_job = InputHash::of_job("any", &json!({}));
    assert!(!of_a_job.as_str().contains('#') && of_a_job.as_str() != table::CONTROL_ID);
    let mut expected = BTreeMap::from([
        ("EraseRecords", ("StringNotLike", not_jobs())),
        ("Decide", ("StringNotLike", not_jobs())),
        ("EraseKeptMessages", ("StringLike", vec![kept.as_str()])),
        ("Trace", ("StringLike", vec![traces])),
        ("ControlAndTrace", ("StringLike", vec![table::CONTROL_ID, traces])),
        ("Control", ("StringEquals", vec![table::CONTROL_ID, WATCH_KEY])),
    ]);
    for (_, text) in terraform_files() {
        for statement in text.split("Sid ").skip(1).filter(|statement| statement.contains("LeadingKeys")) {
            let sid = statement.split('"').nth(1).unwrap();
            let (how, keys) = expected.remove(sid).unwrap_or_else(|| panic!("{sid} has no row here"));
            let condition =
                format!("\"ForAllValues:{how}\" = {{ \"dynamodb:LeadingKeys\" = {} }}", json!(keys));
            let stands = statement.replace(", \"", ",\"");
            assert!(stands.contains(&condition), "{sid} is not {condition}");
        }
    }
    assert!(expected.is_empty(), "no statement is called {:?}", expected.keys());
}
