//! What a table is: its keys, its indexes, its expiry.

use std::collections::{BTreeMap, HashSet};

use serde::Deserialize;
use serde_json::{Value as Json, json};

use super::table::{Index, IndexProjection, KeyAttribute, KeySchema, Table};
use super::{DynamoDb, Refusal, State};
use crate::clock::now_ms;

impl DynamoDb {
    pub(super) fn create_table(&self, state: &mut State, input: CreateTable) -> Result<Json, Refusal> {
        if state.tables.contains_key(&input.table_name) {
            return Err(Refusal::new(
                "ResourceInUseException",
                format!("Table already exists: {}", input.table_name),
            ));
        }
        let keys = key_schema(&input.key_schema, &input.attribute_definitions)?;
        let mut indexes = BTreeMap::new();
        for index in input.global_secondary_indexes {
            let projection = match index.projection.projection_type.as_str() {
                "ALL" => IndexProjection::All,
                "KEYS_ONLY" => IndexProjection::KeysOnly,
                "INCLUDE" => IndexProjection::Include(index.projection.non_key_attributes),
                other => return Err(format!("Unknown ProjectionType: {other}").into()),
            };
            let keys = key_schema(&index.key_schema, &input.attribute_definitions)?;
            indexes.insert(index.index_name, Index::new(keys, projection));
        }
        let all_keys: HashSet<&str> = std::iter::once(&keys)
            .chain(indexes.values().map(|index| &index.keys))
            .flat_map(KeySchema::attributes)
            .map(|attribute| attribute.name.as_str())
            .collect();
        if all_keys.len() != input.attribute_definitions.len() {
            return Err("One or more parameter values were invalid: Number of attributes in KeySchema does not exactly match number of attributes defined in AttributeDefinitions".into());
        }
        let table = Table::new(keys, indexes, now_ms() / 1000);
        let description = self.describe(&input.table_name, &table);
        state.tables.insert(input.table_name, table);
        Ok(json!({ "TableDescription": description }))
    }

    pub(super) fn describe(&self, name: &str, table: &Table) -> Json {
        let schema = |keys: &KeySchema| {
            let mut elements = vec![json!({ "AttributeName": keys.partition.name, "KeyType": "HASH" })];
            if let Some(sort) = &keys.sort {
                elements.push(json!({ "AttributeName": sort.name, "KeyType": "RANGE" }));
            }
            elements
        };
        let indexes: Vec<Json> = table
            .indexes
            .iter()
            .map(|(name, index)| {
                let projection = match &index.projection {
                    IndexProjection::All => json!({ "ProjectionType": "ALL" }),
                    IndexProjection::KeysOnly => json!({ "ProjectionType": "KEYS_ONLY" }),
                    IndexProjection::Include(names) => {
                        json!({ "ProjectionType": "INCLUDE", "NonKeyAttributes": names })
                    }
                };
                json!({
                    "IndexName": name,
                    "IndexStatus": "ACTIVE",
                    "KeySchema": schema(&index.keys),
                    "Projection": projection,
                })
            })
            .collect();
        let definitions: BTreeMap<&str, &str> = std::iter::once(&table.keys)
            .chain(table.indexes.values().map(|index| &index.keys))
            .flat_map(KeySchema::attributes)
            .map(|attribute| (attribute.name.as_str(), attribute.kind.as_str()))
            .collect();
        let definitions: Vec<Json> = definitions
            .into_iter()
            .map(|(name, kind)| json!({ "AttributeName": name, "AttributeType": kind }))
            .collect();
        json!({
            "TableName": name,
            "TableArn": format!("arn:aws:dynamodb:{}:{}:table/{name}", self.region, self.account),
            "TableStatus": "ACTIVE",
            "CreationDateTime": table.created_s,
            "ItemCount": table.len(),
            "KeySchema": schema(&table.keys),
            "AttributeDefinitions": definitions,
            "BillingModeSummary": { "BillingMode": "PAY_PER_REQUEST" },
            "GlobalSecondaryIndexes": indexes,
        })
    }
}

fn key_schema(elements: &[KeyElement], definitions: &[AttributeDefinition]) -> Result<KeySchema, Refusal> {
    let attribute = |wanted: &str| {
        let Some(element) = elements.iter().find(|element| element.key_type == wanted) else {
            return Ok(None);
        };
        let definition = definitions
            .iter()
            .find(|definition| definition.attribute_name == element.attribute_name)
            .filter(|definition| matches!(definition.attribute_type.as_str(), "S" | "N" | "B"))
            .ok_or_else(|| {
                format!(
                    "One or more parameter values were invalid: Some index key attributes are not defined in AttributeDefinitions. Keys: [{}]",
                    element.attribute_name
                )
            })?;
        Ok::<_, String>(Some(KeyAttribute {
            name: definition.attribute_name.clone(),
            kind: definition.attribute_type.clone(),
        }))
    };
    Ok(KeySchema {
        partition: attribute("HASH")?
            .ok_or("No Hash Key specified in schema. All Dynamo DB tables must have exactly one hash key")?,
        sort: attribute("RANGE")?,
    })
}

pub(super) fn update_time_to_live(state: &mut State, input: UpdateTimeToLive) -> Result<Json, Refusal> {
    let table = state.table_mut(&input.table_name)?;
    let specification = input.time_to_live_specification;
    table.expiry_attribute = specification.enabled.then(|| specification.attribute_name.clone());
    Ok(json!({ "TimeToLiveSpecification": {
        "Enabled": specification.enabled,
        "AttributeName": specification.attribute_name,
    } }))
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct KeyElement {
    attribute_name: String,
    key_type: String,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct AttributeDefinition {
    attribute_name: String,
    attribute_type: String,
}

/// Settings that change nothing here (throughput, encryption, tags, protection) are accepted by name.
#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
pub(super) struct CreateTable {
    table_name: String,
    key_schema: Vec<KeyElement>,
    attribute_definitions: Vec<AttributeDefinition>,
    #[serde(default)]
    global_secondary_indexes: Vec<CreateIndex>,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct CreateIndex {
    index_name: String,
    key_schema: Vec<KeyElement>,
    projection: ProjectionInput,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct ProjectionInput {
    projection_type: String,
    #[serde(default)]
    non_key_attributes: Vec<String>,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
pub(super) struct UpdateTimeToLive {
    table_name: String,
    time_to_live_specification: TimeToLive,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct TimeToLive {
    enabled: bool,
    attribute_name: String,
}
