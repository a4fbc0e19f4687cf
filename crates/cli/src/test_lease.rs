//! Who tests a stack: one at a time, by a lease in the ledger that its holder renews.
//!
//! It stands from before the first job is sent until the last trace of all is gone. A test that was killed leaves it, and
//! whoever takes it over removes first what that test left. Times are AWS's, since two machines may differ.

use std::time::Duration;

use aws_sdk_dynamodb::Client;
use aws_sdk_dynamodb::operation::put_item::builders::PutItemFluentBuilder;
use aws_sdk_dynamodb::types::AttributeValue;
use tokio::sync::watch;
use tokio::task::JoinHandle;

use crate::clock::Clock;
use crate::error::{self, Failure};
use crate::stack::Stack;
use crate::trace;

/// The key of the lease.
const ID: &str = "load-test";
/// A holder renews it this often.
const RENEWED_EVERY: Duration = Duration::from_secs(15);
/// Not renewed for so long, it is nobody's: eight times as long, in milliseconds.
const ENDS_AFTER_MS: u64 = 120_000;

/// A lease that ended without its holder.
#[derive(Debug, Clone)]
pub struct Left {
    /// As they were read, to take over this one and no other.
    run: AttributeValue,
    alive_ms: AttributeValue,
}

/// Whose test did not end here; `None`: nobody's.
///
/// # Errors
/// When it still runs.
pub async fn left_behind(stack: &Stack, clock: Clock) -> Result<Option<Left>, Failure> {
    let got = Client::new(&stack.sdk)
        .get_item()
        .table_name(&stack.ledger_table)
        .key("id", trace::text(ID))
        .consistent_read(true)
        .send()
        .await;
    let Some(mut item) = got.map_err(|e| error::of_aws("dynamodb:GetItem", &e))?.item else {
        return Ok(None);
    };
    let mut taken = |name: &str| item.remove(name).unwrap_or(AttributeValue::Null(true));
    let left = Left { run: taken("run"), alive_ms: taken("alive_ms") };
    let renewed_ms = left.alive_ms.as_n().ok().and_then(|ms| ms.parse().ok()).unwrap_or_default();
    if clock.now_ms().saturating_sub(renewed_ms) < ENDS_AFTER_MS {
        return Err(Failure::failed(format!(
            "The load test {} runs on {}, or was killed within the last two minutes: wait for it, or try again in two minutes.",
            crate::text::shown(left.run.as_s().map(String::as_str).unwrap_or_default()),
            stack.named()
        )));
    }
    Ok(Some(left))
}

/// The lease, as long as this lives.
pub struct Lease {
    client: Client,
    table: String,
    run: String,
    renewing: JoinHandle<()>,
    lost: watch::Receiver<bool>,
}

impl Lease {
    /// Takes it for a test of this name, over the one that was left behind.
    ///
    /// # Errors
    /// When somebody else took it meanwhile.
    pub async fn take(stack: &Stack, clock: Clock, run: &str, left: Option<Left>) -> Result<Self, Failure> {
        let client = Client::new(&stack.sdk);
        let first = put(&client, &stack.ledger_table, run, clock);
        // The SDK asks again where an answer is lost, and then it is ours already.
        let first = match left {
            None => first.condition_expression("attribute_not_exists(id) OR run = :own"),
            Some(Left { run, alive_ms }) => first
                .condition_expression("run = :own OR (run = :left AND alive_ms = :alive_ms)")
                .expression_attribute_values(":left", run)
                .expression_attribute_values(":alive_ms", alive_ms),
        };
        let first = first.expression_attribute_values(":own", trace::text(run));
        if !is_written(first).await? {
            return Err(Failure::failed("Another load test has just begun on this stack: wait for it."));
        }
        let (tell, lost) = watch::channel(false);
        let renewing = tokio::spawn({
            let (client, table, run) = (client.clone(), stack.ledger_table.clone(), run.to_owned());
            async move {
                loop {
                    tokio::time::sleep(RENEWED_EVERY).await;
                    let again = put(&client, &table, &run, clock)
                        .condition_expression("run = :run")
                        .expression_attribute_values(":run", trace::text(&run));
                    // What failed otherwise is tried again, and the next one tells whether it came too late.
                    if matches!(is_written(again).await, Ok(false)) {
                        tell.send_replace(true);
                        return;
                    }
                }
            }
        });
        Ok(Self { client, table: stack.ledger_table.clone(), run: run.to_owned(), renewing, lost })
    }

    /// Waits until somebody else has it; for ever, as it should be.
    pub async fn lost(&self) -> Failure {
        let mut lost = self.lost.clone();
        if lost.wait_for(|lost| *lost).await.is_err() {
            std::future::pending::<()>().await;
        }
        Failure::failed(format!(
            "The load test {} was taken for dead, since it could not say for two minutes that it lives, and another one removed its jobs: there is no verdict. Run it again when that one has ended.",
            crate::text::shown(&self.run)
        ))
    }

    /// Gives it back: nothing of the test is left.
    pub async fn end(self) -> Result<(), Failure> {
        self.renewing.abort();
        let delete = self.client.delete_item().table_name(&self.table).key("id", trace::text(ID));
        let delete = delete
            .condition_expression("run = :run")
            .expression_attribute_values(":run", trace::text(&self.run));
        match delete.send().await {
            Ok(_) => Ok(()),
            // It is somebody else's, who sees to it.
            Err(e) if e.as_service_error().is_some_and(|e| e.is_conditional_check_failed_exception()) => {
                Ok(())
            }
            Err(e) => Err(error::of_aws("dynamodb:DeleteItem", &e)),
        }
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        self.renewing.abort();
    }
}

fn put(client: &Client, table: &str, run: &str, clock: Clock) -> PutItemFluentBuilder {
    let put = client.put_item().table_name(table).item("id", trace::text(ID)).item("run", trace::text(run));
    put.item("alive_ms", AttributeValue::N(clock.now_ms().to_string()))
}

/// Whether its condition held.
async fn is_written(put: PutItemFluentBuilder) -> Result<bool, Failure> {
    match put.send().await {
        Ok(_) => Ok(true),
        Err(e) if e.as_service_error().is_some_and(|e| e.is_conditional_check_failed_exception()) => {
            Ok(false)
        }
        Err(e) => Err(error::of_aws("dynamodb:PutItem", &e)),
    }
}
