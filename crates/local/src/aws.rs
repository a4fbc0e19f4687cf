//! SQS, DynamoDB and CloudWatch's `PutMetricData` on one endpoint of this machine.
//!
//! Start it, give [`LocalAws::endpoint_url`] to a process as `AWS_ENDPOINT_URL` (with any credentials and the region of [`LocalAws::region`]), and its SDK clients work against it.
//! Queues and tables are made through the same protocols; what tests and the demo want to see without disturbing it (depths, items, metrics, requests) is on the handle.
//!
//! Requests must be signed, as in an account, but the signature is not verified.

mod cbor;
mod cloudwatch;
mod dynamodb;
mod sqs;
mod sqs_api;

use std::collections::BTreeMap;
use std::io;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use self::cloudwatch::CloudWatch;
pub use self::cloudwatch::Sample;
use self::dynamodb::DynamoDb;
pub use self::dynamodb::{Item, Value, item_to_json};
pub use self::sqs::{AttributeValue, Depth, MessageAttribute, MessageAttributes};
use self::sqs_api::Sqs;
use crate::http::{Answer, HttpRequest, HttpResponse, Server};

/// The account that all ARNs and queue URLs name.
pub const ACCOUNT: &str = "000000000000";

/// A running stand-in for AWS; it stops when it is dropped.
#[derive(Debug)]
pub struct LocalAws {
    server: Server,
    services: Arc<Services>,
}

#[derive(Debug)]
struct Services {
    region: String,
    endpoint: OnceLock<String>,
    sqs: Sqs,
    dynamodb: DynamoDb,
    cloudwatch: CloudWatch,
    requests: Mutex<BTreeMap<String, u64>>,
}

/// A message as it lies in a queue.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoredMessage {
    /// The body, as it was sent.
    pub body: String,
    /// The attributes, as they were sent.
    pub attributes: MessageAttributes,
}

impl LocalAws {
    /// Starts on 127.0.0.1, on a free port, with no queue and no table.
    ///
    /// # Errors
    /// When no port can be bound.
    pub async fn start(region: &str) -> io::Result<LocalAws> {
        let services = Arc::new(Services {
            region: region.to_owned(),
            endpoint: OnceLock::new(),
            sqs: Sqs::new(region, ACCOUNT),
            dynamodb: DynamoDb::new(region, ACCOUNT),
            cloudwatch: CloudWatch::default(),
            requests: Mutex::default(),
        });
        let handler = Arc::clone(&services);
        let server = Server::start(0, move |request| {
            let services = Arc::clone(&handler);
            async move { Answer::Respond(services.handle(request).await) }
        })
        .await?;
        services.endpoint.get_or_init(|| format!("http://{}", server.address()));
        Ok(LocalAws { server, services })
    }

    /// What `AWS_ENDPOINT_URL` must be.
    pub fn endpoint_url(&self) -> &str {
        self.services.endpoint()
    }

    /// The region of every ARN here; signatures of another region are accepted too.
    pub fn region(&self) -> &str {
        &self.services.region
    }

    /// The URL of a queue, whether it exists or not.
    pub fn queue_url(&self, name: &str) -> String {
        format!("{}/{ACCOUNT}/{name}", self.endpoint_url())
    }

    /// How many messages a queue holds; `None` if it does not exist.
    pub fn depth(&self, queue: &str) -> Option<Depth> {
        self.services.sqs.depth(queue)
    }

    /// All messages of a queue, oldest first, without receiving them.
    pub fn messages(&self, queue: &str) -> Vec<StoredMessage> {
        let messages = self.services.sqs.with(|queues| queues.peek(queue));
        let stored = messages.into_iter().map(|(body, attributes)| StoredMessage { body, attributes });
        stored.collect()
    }

    /// All items of a table in the order of their keys; none if the table does not exist.
    pub fn items(&self, table: &str) -> Vec<Item> {
        self.services.dynamodb.items(table)
    }

    /// Stores items as they are, without a request and what it would be checked for.
    ///
    /// # Errors
    /// When there is no such table, or an item has no key; those before it are stored.
    pub fn put(&self, table: &str, items: impl IntoIterator<Item = Item>) -> Result<(), String> {
        self.services.dynamodb.put(table, items)
    }

    /// All published metrics, in the order of their arrival.
    pub fn metrics(&self) -> Vec<Sample> {
        self.services.cloudwatch.samples()
    }

    /// How many requests arrived since the start, by service and action, such as `DynamoDB.UpdateItem`.
    pub fn requests(&self) -> BTreeMap<String, u64> {
        self.services.requests.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Stops the server and waits for it; everything that it held is gone.
    pub async fn stop(self) {
        self.server.stop().await;
    }
}

impl Services {
    fn endpoint(&self) -> &str {
        self.endpoint.get().map_or("", String::as_str)
    }

    async fn handle(&self, request: HttpRequest) -> HttpResponse {
        let Some((service, action)) = route(&request) else {
            return refusal(
                404,
                "UnknownOperationException",
                "no service of this stand-in has such a request",
            );
        };
        if !request.header("authorization").is_some_and(|value| value.starts_with("AWS4-HMAC-SHA256")) {
            return refusal(
                403,
                "MissingAuthenticationTokenException",
                "Request is missing Authentication Token",
            );
        }
        self.count(service, &action);
        match service {
            Service::Sqs => self.sqs.handle(&action, &request.body, self.endpoint(), ACCOUNT).await,
            Service::DynamoDb => self.dynamodb.handle(&action, &request.body),
            Service::CloudWatch => self.cloudwatch.handle(&action, &request),
        }
    }

    fn count(&self, service: Service, action: &str) {
        let name = match service {
            Service::Sqs => "SQS",
            Service::DynamoDb => "DynamoDB",
            Service::CloudWatch => "CloudWatch",
        };
        let mut requests = self.requests.lock().unwrap_or_else(PoisonError::into_inner);
        *requests.entry(format!("{name}.{action}")).or_default() += 1;
    }
}

#[derive(Debug, Clone, Copy)]
enum Service {
    Sqs,
    DynamoDb,
    CloudWatch,
}

/// The service and the action: named by a header, or by the path where the protocol is `rpc-v2-cbor`.
fn route(request: &HttpRequest) -> Option<(Service, String)> {
    let (service, action) = match request.header("x-amz-target") {
        Some(target) => target.split_once('.')?,
        None => request.path.strip_prefix("/service/")?.split_once("/operation/")?,
    };
    let service = match service {
        "AmazonSQS" => Service::Sqs,
        "DynamoDB_20120810" => Service::DynamoDb,
        "GraniteServiceVersion20100801" => Service::CloudWatch,
        _ => return None,
    };
    Some((service, action.to_owned()))
}

fn refusal(status: u16, code: &str, message: &str) -> HttpResponse {
    HttpResponse::new(
        status,
        "application/x-amz-json-1.0",
        serde_json::json!({ "__type": code, "message": message }).to_string(),
    )
}

/// A fresh id in the form of a UUID.
pub(crate) fn uuid() -> String {
    sqs::uuid_from(sqs::random())
}

#[cfg(test)]
mod tests;
