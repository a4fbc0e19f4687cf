//! Who tests a stack: one at a time, by a lease in the ledger that its holder renews.
//!
//! It stands from before the first job is sent until the last trace of all is gone. A test that was killed leaves it, and
//! whoever takes it over removes first what that test left. Times are AWS's, since two machines may differ.
//!
//! **Invariant:** its holder takes it for lost before anybody else may: a machine that slept finds somebody else at work.

use std::collections::HashMap;
use std::future::poll_fn;
use std::task::Poll;
use std::time::Duration;

use aws_sdk_dynamodb::Client;
use aws_sdk_dynamodb::operation::put_item::builders::PutItemFluentBuilder;
use aws_sdk_dynamodb::types::AttributeValue;
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::{Instant, MissedTickBehavior};

use crate::clock::Clock;
use crate::error::{self, Failure};
use crate::stack::Stack;
use crate::times;
use crate::trace;

/// The key of the lease.
const ID: &str = "load-test";
/// A holder renews it this often.
const RENEWED_EVERY: Duration = Duration::from_secs(15);
/// Not renewed for so long, it is nobody's: eight times as long, in milliseconds.
const ENDS_AFTER_MS: u64 = 120_000;
/// Its holder believes in it for so long after it asked for the last renewal that was granted: clocks may differ, and a
/// request that was on its way arrives.
pub const HELD_FOR: Duration = Duration::from_secs(90);
/// How often its age is looked at where nothing else happens.
const LOOKED_AT_EVERY: Duration = Duration::from_secs(1);

/// A lease that ended without its holder.
#[derive(Debug, Clone)]
pub struct Left {
    /// Whether a test is known to have left something; a clean-up that nothing was left to, leaves nothing.
    pub known: bool,
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
    let left = Left::of(&mut item);
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

impl Left {
    fn of(item: &mut HashMap<String, AttributeValue>) -> Self {
        // Commands of before write no such word.
        let known = item.get("known").and_then(|known| known.as_bool().ok()).is_none_or(|known| *known);
        let mut taken = |name: &str| item.remove(name).unwrap_or(AttributeValue::Null(true));
        Self { known, run: taken("run"), alive_ms: taken("alive_ms") }
    }
}

/// Whether a test is known to have left something to whoever finds this.
pub fn is_known(left: Option<&Left>) -> bool {
    left.is_some_and(|left| left.known)
}

/// The lease, as long as this lives.
pub struct Lease {
    client: Client,
    table: String,
    run: String,
    renewing: JoinHandle<()>,
    /// `None`: it was refused.
    granted: watch::Receiver<Option<Granted>>,
}

/// When a grant was asked for, by two clocks: one goes on while the machine sleeps, and nobody sets the other one.
#[derive(Debug, Clone, Copy)]
struct Granted {
    wall_ms: u64,
    at: Instant,
}

impl Granted {
    fn now() -> Self {
        Self { wall_ms: times::now_ms(), at: Instant::now() }
    }

    fn is_old(self) -> bool {
        let by_wall = Duration::from_millis(times::now_ms().saturating_sub(self.wall_ms));
        by_wall.max(self.at.elapsed()) > HELD_FOR
    }
}

/// Whether the lease is not known to be the holder's any more.
fn is_over(granted: Option<Granted>) -> bool {
    granted.is_none_or(Granted::is_old)
}

impl Lease {
    /// Takes it for a test of this name, over the one that was left behind. `sends`: it is a test, and not a clean-up.
    ///
    /// # Errors
    /// When somebody else took it meanwhile.
    pub async fn take(
        stack: &Stack,
        clock: Clock,
        run: &str,
        left: Option<Left>,
        sends: bool,
    ) -> Result<Self, Failure> {
        let known = sends || is_known(left.as_ref());
        let client = Client::new(&stack.sdk);
        let asked = Granted::now();
        let first = put(&client, &stack.ledger_table, run, clock, known);
        // The SDK asks again where an answer is lost, and then it is ours already.
        let first = match left {
            None => first.condition_expression("attribute_not_exists(id) OR run = :own"),
            Some(Left { run, alive_ms, .. }) => first
                .condition_expression("run = :own OR (run = :left AND alive_ms = :alive_ms)")
                .expression_attribute_values(":left", run)
                .expression_attribute_values(":alive_ms", alive_ms),
        };
        let first = first.expression_attribute_values(":own", trace::text(run));
        if !is_written(first).await? {
            return Err(Failure::failed("Another load test has just begun on this stack: wait for it."));
        }
        let (tell, granted) = watch::channel(Some(asked));
        let renewing = tokio::spawn({
            let (client, table, run) = (client.clone(), stack.ledger_table.clone(), run.to_owned());
            async move {
                loop {
                    tokio::time::sleep(RENEWED_EVERY).await;
                    if is_over(*tell.borrow()) {
                        return;
                    }
                    let asked = Granted::now();
                    let again = put(&client, &table, &run, clock, known)
                        .condition_expression("run = :run")
                        .expression_attribute_values(":run", trace::text(&run));
                    match is_written(again).await {
                        Ok(true) => drop(tell.send_replace(Some(asked))),
                        Ok(false) => {
                            tell.send_replace(None);
                            return;
                        }
                        // It is tried again, for as long as the last grant is believed.
                        Err(_) => {}
                    }
                }
            }
        });
        Ok(Self { client, table: stack.ledger_table.clone(), run: run.to_owned(), renewing, granted })
    }

    /// Waits until somebody else has it, or may have it; for ever, as it should be. Each poll looks, so that nothing that
    /// is polled behind it goes on with a lease that is lost.
    pub async fn lost(&self) -> Failure {
        let mut looks = tokio::time::interval(LOOKED_AT_EVERY);
        looks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        poll_fn(|context| {
            if let Err(failure) = self.held() {
                return Poll::Ready(failure);
            }
            while looks.poll_tick(context).is_ready() {}
            Poll::Pending
        })
        .await
    }

    /// Asked before anything is sent or deleted.
    ///
    /// # Errors
    /// When somebody else has it, or may have it.
    pub fn held(&self) -> Result<(), Failure> {
        if !is_over(*self.granted.borrow()) {
            return Ok(());
        }
        Err(Failure::failed(format!(
            "The load test {} was taken for dead, or may have been, since it could not say in time that it lives, and another one then removes its jobs: it stops. Run it again, which removes first what is left.",
            crate::text::shown(&self.run)
        )))
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

fn put(client: &Client, table: &str, run: &str, clock: Clock, known: bool) -> PutItemFluentBuilder {
    let put = client.put_item().table_name(table).item("id", trace::text(ID)).item("run", trace::text(run));
    put.item("known", AttributeValue::Bool(known))
        .item("alive_ms", AttributeValue::N(clock.now_ms().to_string()))
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

#[cfg(test)]
mod tests {
    use super::*;

    fn ago(by_wall: Duration, by_the_other: Duration) -> Option<Granted> {
        let now = Granted::now();
        let wall_ms = now.wall_ms - by_wall.as_millis() as u64;
        Some(Granted { wall_ms, at: now.at.checked_sub(by_the_other).unwrap() })
    }

    #[test]
    fn a_lease_says_whether_a_test_left_something_and_one_of_before_says_so_by_being_there() {
        for (known, expected) in [
            (None, true),
            (Some(AttributeValue::Bool(true)), true),
            (Some(AttributeValue::Bool(false)), false),
        ] {
            let mut item: HashMap<_, _> =
                known.map(|known| ("known".to_owned(), known)).into_iter().collect();
            assert_eq!(is_known(Some(&Left::of(&mut item))), expected);
        }
        assert!(!is_known(None));
    }

    #[test]
    fn a_grant_is_believed_until_either_clock_says_that_others_may_soon_take_it_over() {
        let (fresh, old) = (Duration::from_secs(80), Duration::from_secs(91));
        for (granted, over) in [
            (ago(fresh, fresh), false),
            // The machine slept.
            (ago(old, fresh), true),
            // Somebody set its clock back.
            (ago(Duration::ZERO, old), true),
            (None, true),
        ] {
            assert_eq!(is_over(granted), over, "{granted:?}");
        }
    }

    #[tokio::test]
    async fn what_is_polled_behind_a_lease_that_grew_old_in_a_sleep_does_not_go_on() {
        let sdk = aws_config::SdkConfig::builder()
            .behavior_version(aws_config::BehaviorVersion::v2026_01_12())
            .build();
        let (tell, granted) = watch::channel(Some(Granted::now()));
        let (run, table) = ("r".to_owned(), "t".to_owned());
        let lease =
            Lease { client: Client::new(&sdk), table, run, renewing: tokio::spawn(async {}), granted };
        let work = poll_fn(|_| {
            // Frozen here, and awake again.
            if tell.borrow().is_none_or(|granted| !granted.is_old()) {
                tell.send_replace(ago(Duration::from_secs(300), Duration::ZERO));
                return Poll::Pending;
            }
            Poll::Ready(())
        });
        lease.held().unwrap();
        tokio::select! {
            biased;
            failure = lease.lost() => assert!(failure.sentence().unwrap().contains("taken for dead")),
            () = work => panic!("it went on"),
        }
        assert!(lease.held().is_err());
    }
}
