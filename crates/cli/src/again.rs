//! A request that failed is made again, for as long as a network is away for a moment.

use std::time::Duration;

use crate::error::Failure;

/// How often it is made again; the SDK's own attempts are inside each.
const AGAIN: u32 = 5;
/// What is waited before each.
const AFTER: Duration = Duration::from_secs(5);

/// Asks until it is answered, or refused for good, or has failed too often.
///
/// # Errors
/// The last failure.
pub async fn again<T>(ask: impl AsyncFnMut() -> Result<T, Failure>) -> Result<T, Failure> {
    again_after(AFTER, ask).await
}

async fn again_after<T>(
    after: Duration,
    mut ask: impl AsyncFnMut() -> Result<T, Failure>,
) -> Result<T, Failure> {
    for _ in 0..AGAIN {
        match ask().await {
            Err(failure) if failure.may_pass() => tokio::time::sleep(after).await,
            ended => return ended,
        }
    }
    ask().await
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn what_may_pass_is_asked_again_within_reason_and_what_is_refused_is_not() {
        for (failures, failure, asked, ends_well) in [
            (0, Failure::failed("x"), 1, true),
            (3, Failure::failed("x"), 4, true),
            (9, Failure::failed("x"), 6, false),
            (9, Failure::not_allowed("x"), 1, false),
        ] {
            let mut times = 0;
            let ended = again_after(Duration::ZERO, async || {
                times += 1;
                if times > failures { Ok(()) } else { Err(failure.clone()) }
            })
            .await;
            assert_eq!((times, ended.is_ok()), (asked, ends_well), "{failures} {failure:?}");
        }
    }
}
