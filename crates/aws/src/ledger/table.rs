//! The table itself: its keys, its sparse index, its expiry.
//!
//! On AWS `terraform/ledger.tf` makes it, and a test compares the two attribute by attribute. Whatever stands in for
//! DynamoDB gets it from here.

use aws_sdk_dynamodb::Client;
use aws_sdk_dynamodb::error::BuildError;
use aws_sdk_dynamodb::operation::create_table::builders::CreateTableInputBuilder;
use aws_sdk_dynamodb::types::{
    AttributeDefinition, BillingMode, GlobalSecondaryIndex, KeySchemaElement, KeyType, Projection,
    ProjectionType, ScalarAttributeType, TimeToLiveSpecification,
};
use nightshift_core::input_hash::InputHash;
use nightshift_core::listing::Unsettled;
use nightshift_ports::PortError;

use super::{SERVICE, unbuilt};
use crate::error::port_error;

const CREATE: &str = "CreateTable";
const EXPIRE: &str = "UpdateTimeToLive";

/// The partition key of every item in the table.
pub const ID: &str = "id";
/// The control record's.
pub const CONTROL_ID: &str = "control";
/// The partition key of the sparse index: `Unsettled`'s word, absent from results that nobody need look at.
pub const UNSETTLED: &str = "unsettled";
/// The sort key of that index: when a worker first received the input, in milliseconds since 1970.
pub const FIRST_RECEIVED_MS: &str = "first_received_ms";
/// DynamoDB's time to live, in whole seconds since 1970. It deletes late, by days; code compares the time itself.
pub const EXPIRES_AT: &str = "expires_at";

/// The sparse index. It answers what is open, what failed, what waits for a person, and since when.
pub const INDEX: &str = "unsettled";
/// What an entry of the index has beside its keys: what it is listed and chosen by. Each is set with a state and stays as
/// long as the state does, so that the calls of a job cost no write of the index.
pub const INDEX_ATTRIBUTES: [&str; 5] =
    ["failed_at_ms", "finished_at_ms", "lease_until_ms", "reason", "task"];
/// The partition key of the index under which a record of this word stands, of so many.
pub(super) fn index_key_of(unsettled: Unsettled, of: &InputHash, index_keys: u32) -> String {
    index_key(unsettled, of.shard(index_keys))
}

/// The partition key of the index under which a word stands, of so many: the word itself for the first.
#[must_use]
pub fn index_key(unsettled: Unsettled, key: u32) -> String {
    let word = unsettled.as_str();
    if key == 0 { word.to_owned() } else { format!("{word}#{key}") }
}

/// The table of this name. On demand: jobs come in bursts, and an idle table costs its storage only.
///
/// # Errors
/// When a part lacks what DynamoDB asks for, which none does.
pub fn definition(name: &str) -> Result<CreateTableInputBuilder, BuildError> {
    let attribute =
        |name, kind| AttributeDefinition::builder().attribute_name(name).attribute_type(kind).build();
    let key = |name, kind| KeySchemaElement::builder().attribute_name(name).key_type(kind).build();
    let index = GlobalSecondaryIndex::builder()
        .index_name(INDEX)
        .key_schema(key(UNSETTLED, KeyType::Hash)?)
        .key_schema(key(FIRST_RECEIVED_MS, KeyType::Range)?)
        .projection(
            Projection::builder()
                .projection_type(ProjectionType::Include)
                .set_non_key_attributes(Some(INDEX_ATTRIBUTES.map(str::to_owned).to_vec()))
                .build(),
        )
        .build()?;
    Ok(CreateTableInputBuilder::default()
        .table_name(name)
        .billing_mode(BillingMode::PayPerRequest)
        .attribute_definitions(attribute(ID, ScalarAttributeType::S)?)
        .attribute_definitions(attribute(UNSETTLED, ScalarAttributeType::S)?)
        .attribute_definitions(attribute(FIRST_RECEIVED_MS, ScalarAttributeType::N)?)
        .key_schema(key(ID, KeyType::Hash)?)
        .global_secondary_indexes(index))
}

/// Makes the table where something stands in for DynamoDB: there it can be used at once, as on AWS it could not.
///
/// # Errors
/// When there is such a table, or the server does not carry it out.
pub async fn create(client: &Client, name: &str) -> Result<(), PortError> {
    let table = definition(name).map_err(|e| unbuilt(CREATE, &e))?;
    table.send_with(client).await.map_err(|e| port_error(SERVICE, CREATE, &e))?;
    let expiry = TimeToLiveSpecification::builder().attribute_name(EXPIRES_AT).enabled(true).build();
    let expiry = expiry.map_err(|e| unbuilt(EXPIRE, &e))?;
    let expiry = client.update_time_to_live().table_name(name).time_to_live_specification(expiry);
    expiry.send().await.map_err(|e| port_error(SERVICE, EXPIRE, &e))?;
    Ok(())
}
