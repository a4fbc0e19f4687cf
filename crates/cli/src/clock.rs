//! AWS's time: a machine's clock may be wrong, and what AWS and the workers date is by theirs.

use std::sync::{Arc, Mutex, PoisonError};

use aws_smithy_runtime_api::box_error::BoxError;
use aws_smithy_runtime_api::client::interceptors::Intercept;
use aws_smithy_runtime_api::client::interceptors::context::BeforeDeserializationInterceptorContextRef;
use aws_smithy_runtime_api::client::runtime_components::RuntimeComponents;
use aws_smithy_types::DateTime;
use aws_smithy_types::config_bag::ConfigBag;
use aws_smithy_types::date_time::Format;
use rustix::time::{ClockId, clock_gettime};

use crate::error::{self, Failure};
use crate::stack::Stack;
use crate::times;

/// What a clock may differ by and be believed, in milliseconds: AWS says whole seconds, and the answer was on its way.
const BELIEVED_MS: i64 = 2_000;

/// Nobody sets this clock, and it goes on while the machine sleeps; elsewhere than on Linux it stands still then.
#[cfg(target_os = "linux")]
const STEADY: ClockId = ClockId::Boottime;
#[cfg(not(target_os = "linux"))]
const STEADY: ClockId = ClockId::Monotonic;

/// AWS's clock: as it was when it was asked, and what has gone by since. Somebody may set this machine's meanwhile.
#[derive(Debug, Clone, Copy)]
pub struct Clock {
    asked_ms: u64,
    steady_ms: u64,
}

impl Clock {
    /// Asks AWS for its time.
    pub async fn of_aws(stack: &Stack) -> Result<Self, Failure> {
        let ahead_ms = ahead_ms(stack).await?.filter(|ahead_ms| ahead_ms.abs() > BELIEVED_MS);
        Ok(Self::from(times::now_ms().saturating_add_signed(-ahead_ms.unwrap_or_default())))
    }

    fn from(now_ms: u64) -> Self {
        Self { asked_ms: now_ms, steady_ms: steady_ms() }
    }

    /// The time, in milliseconds since 1970.
    pub fn now_ms(self) -> u64 {
        self.asked_ms + steady_ms().saturating_sub(self.steady_ms)
    }
}

impl nightshift_ports::Clock for Clock {
    fn now_ms(&self) -> u64 {
        Self::now_ms(*self)
    }
}

/// Milliseconds since some moment before this program began.
fn steady_ms() -> u64 {
    let now = clock_gettime(STEADY);
    u64::try_from(now.tv_sec * 1_000 + now.tv_nsec / 1_000_000).unwrap_or_default()
}

/// How far the clock here is ahead of AWS's, in milliseconds, by the date of an answer of STS; `None`: it gave none.
pub async fn ahead_ms(stack: &Stack) -> Result<Option<i64>, Failure> {
    let date = AnswerDate::default();
    let asked = aws_sdk_sts::Client::new(&stack.sdk)
        .get_caller_identity()
        .customize()
        .interceptor(date.clone())
        .send()
        .await;
    asked.map_err(|e| error::of_aws("sts:GetCallerIdentity", &e))?;
    let said_ms = *date.0.lock().unwrap_or_else(PoisonError::into_inner);
    let here_ms = i64::try_from(times::now_ms()).unwrap_or(i64::MAX);
    Ok(said_ms.map(|said_ms| here_ms.saturating_sub(said_ms)))
}

/// Keeps the `Date` of an answer.
#[derive(Debug, Clone, Default)]
struct AnswerDate(Arc<Mutex<Option<i64>>>);

#[aws_smithy_runtime_api::client::interceptors::dyn_dispatch_hint]
impl Intercept for AnswerDate {
    fn name(&self) -> &'static str {
        "AnswerDate"
    }

    fn read_before_deserialization(
        &self,
        context: &BeforeDeserializationInterceptorContextRef<'_>,
        _: &RuntimeComponents,
        _: &mut ConfigBag,
    ) -> Result<(), BoxError> {
        let date = context.response().headers().get("date");
        let date = date.and_then(|date| DateTime::from_str(date, Format::HttpDate).ok());
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = date.and_then(|date| date.to_millis().ok());
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_clock_goes_on_from_what_aws_said_wherever_this_machines_is_set() {
        let steady_ms = steady_ms();
        let clock = |asked_ms, ago_ms| Clock { asked_ms, steady_ms: steady_ms.saturating_sub(ago_ms) };
        for (asked_ms, ago_ms) in [(5_000, 0), (5_000, 1_000), (times::now_ms() * 2, 1_000)] {
            let now_ms = clock(asked_ms, ago_ms).now_ms();
            assert!(now_ms >= asked_ms + ago_ms && now_ms < asked_ms + times::now_ms() / 2, "{now_ms}");
        }
    }
}
