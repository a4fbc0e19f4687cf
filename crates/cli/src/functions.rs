//! The stack's functions, asked by hand.

use std::time::Duration;

use aws_config::retry::RetryConfig;
use aws_config::timeout::TimeoutConfig;
use aws_sdk_lambda::primitives::Blob;
use nightshift_core::redrive::DENIED;
use nightshift_core::text::cut;
use serde::Serialize;
use serde_json::Value;

use crate::error::{self, Failure};
use crate::stack::Stack;
use crate::text;

/// Longer than any step: a redrive's ends within half a minute, and its function after one.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(120);
/// The longest message of a function that is passed on, in characters.
const MESSAGE_CHARS_MAX: usize = 400;

/// Invokes the function with this name after the prefix, and waits for its answer.
pub async fn invoke(stack: &Stack, name: &str, asked: &impl Serialize) -> Result<String, Failure> {
    let function = format!("{}-{name}", stack.prefix);
    let payload = serde_json::to_vec(asked)
        .map_err(|error| Failure::failed(format!("{function} cannot be asked: {error}.")))?;
    let timeouts = TimeoutConfig::builder()
        .operation_attempt_timeout(ANSWER_TIMEOUT)
        .operation_timeout(ANSWER_TIMEOUT)
        .build();
    let answered = aws_sdk_lambda::Client::new(&stack.sdk)
        .invoke()
        .function_name(&function)
        .payload(Blob::new(payload))
        .customize()
        // A second attempt would ask a second time, while the first one is still at work.
        .config_override(
            aws_sdk_lambda::config::Builder::default()
                .timeout_config(timeouts)
                .retry_config(RetryConfig::disabled()),
        )
        .send()
        .await;
    let answered = answered.map_err(|error| {
        let missing = error.as_service_error().is_some_and(|e| e.is_resource_not_found_exception());
        if missing {
            Failure::not_found(format!("There is no function {function}: deploy this release, which has it."))
        } else {
            error::of_aws("lambda:InvokeFunction", &error)
        }
    })?;
    let payload = answered.payload.map(Blob::into_inner).unwrap_or_default();
    let payload = String::from_utf8_lossy(&payload).into_owned();
    if answered.function_error.is_some() {
        let fault = serde_json::from_str::<Value>(&payload).unwrap_or_default();
        let said = |member| fault.get(member).and_then(Value::as_str);
        let message = cut(&text::shown(said("errorMessage").unwrap_or("no message")), MESSAGE_CHARS_MAX);
        if said("errorType") == Some(DENIED) {
            return Err(Failure::not_allowed(format!(
                "The function {function} itself may not do this, and no repetition helps: deploy, which sets what it may do ({message})."
            )));
        }
        return Err(Failure::failed(format!(
            "The function {function} failed, its log group has more ({message})."
        )));
    }
    Ok(payload)
}
