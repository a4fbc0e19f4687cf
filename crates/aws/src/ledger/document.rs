//! Items that are one JSON document under a version.

use async_trait::async_trait;
use aws_sdk_dynamodb::error::SdkError;
use aws_sdk_dynamodb::operation::update_item::UpdateItemError;
use aws_sdk_dynamodb::types::ReturnValuesOnConditionCheckFailure;
use nightshift_ports::{Document, DocumentAnswer, Documents, PortError};

use super::item::{Item, Reader, Unreadable, number, text};
use super::table::{EXPIRES_AT, ID};
use super::{DynamoLedger, SERVICE, unreadable};
use crate::error::port_error;

const GET: &str = "GetItem";
const UPDATE: &str = "UpdateItem";

#[async_trait]
impl Documents for DynamoLedger {
    async fn read(&self, key: &str) -> Result<Option<Document>, PortError> {
        let get = self.client.get_item().table_name(&self.table).key(ID, text(key)).consistent_read(true);
        let item = get.send().await.map_err(|e| port_error(SERVICE, GET, &e))?.item;
        item.map(|item| document(&item)).transpose().map_err(|e| unreadable(GET, &e))
    }

    async fn write(&self, document: &Document, expect: Option<u64>) -> Result<DocumentAnswer, PortError> {
        let expiry = match document.expires_at_s {
            Some(_) => "SET #version = :version, #document = :document, #expires_at = :expires_at",
            None => "SET #version = :version, #document = :document REMOVE #expires_at",
        };
        let condition = match expect {
            None => format!("attribute_not_exists({ID})"),
            Some(_) => "#version = :expected".to_owned(),
        };
        let sent = self
            .client
            .update_item()
            .table_name(&self.table)
            .key(ID, text(&document.key))
            .update_expression(expiry)
            .condition_expression(condition)
            .expression_attribute_names("#version", "version")
            .expression_attribute_names("#document", "document")
            .expression_attribute_names("#expires_at", EXPIRES_AT)
            .expression_attribute_values(":version", number(document.version))
            .expression_attribute_values(":document", text(&document.json))
            .return_values_on_condition_check_failure(ReturnValuesOnConditionCheckFailure::AllOld);
        let sent = match document.expires_at_s {
            Some(s) => sent.expression_attribute_values(":expires_at", number(s)),
            None => sent,
        };
        let sent = match expect {
            Some(version) => sent.expression_attribute_values(":expected", number(version)),
            None => sent,
        };
        match sent.send().await {
            Ok(_) => Ok(DocumentAnswer::Written),
            Err(SdkError::ServiceError(context)) if context.err().is_conditional_check_failed_exception() => {
                let standing = match context.into_err() {
                    UpdateItemError::ConditionalCheckFailedException(refusal) => refusal.item,
                    _ => None,
                };
                let standing = standing.map(|item| self::document(&item)).transpose();
                Ok(DocumentAnswer::Refused(standing.map_err(|e| unreadable(UPDATE, &e))?))
            }
            Err(error) => Err(port_error(SERVICE, UPDATE, &error)),
        }
    }
}

fn document(item: &Item) -> Result<Document, Unreadable> {
    let read = Reader(item);
    Ok(Document {
        key: read.text(ID)?,
        version: read.number("version")?,
        json: read.text("document")?,
        expires_at_s: read.optional(EXPIRES_AT, Reader::number::<u64>)?,
    })
}
