//! Can this job be worked on at all, and what may a call for it cost? Asked by the worker of what it received, and by
//! the command of what it is about to send.

use crate::cost::{Price, usd};
use crate::failure::{FailureReason, Rejection};
use crate::job::Job;
use crate::model::Prompt;
use crate::output_validation::REASK_BYTES_MAX;
use crate::spend::CallPrice;
use crate::task::{Task, Tasks};

/// A job that can be worked on.
pub struct Ready<'a> {
    /// The deployed one that the job named.
    pub task: &'a dyn Task,
    /// What one call for it may take and cost.
    pub price: CallPrice,
    /// What the model is asked.
    pub prompt: Prompt,
}

/// What one call for a job with a body of this size may take and cost.
#[must_use]
pub fn call_price(task: &dyn Task, body_bytes: usize, price: Price) -> CallPrice {
    CallPrice::new(price, task.overhead_bytes() + body_bytes + REASK_BYTES_MAX, task.output_tokens_max())
}

/// What the dearest call for any job may take and cost, in millionths of a dollar.
#[must_use]
pub fn dearest_call_micro_usd(tasks: &dyn Tasks, body_bytes_max: usize, price: Price) -> u64 {
    let tasks = tasks.names().into_iter().filter_map(|name| tasks.find(name));
    tasks.map(|task| call_price(task, body_bytes_max, price).most_micro_usd()).max().unwrap_or_default()
}

/// The job with its task and prompt.
///
/// # Errors
/// Why it would be a dead letter without a call: `unknown_task`, or `invalid_input`.
pub fn ready<'a>(
    job: &Job,
    body_bytes: usize,
    tasks: &'a dyn Tasks,
    price: Price,
    spend_cap_micro_usd: u64,
) -> Result<Ready<'a>, Rejection> {
    let task = tasks.find(&job.task).ok_or_else(|| {
        let known = tasks.names().join(", ");
        Rejection::new(
            FailureReason::UnknownTask,
            format!("No task of this name is deployed; there are: {known}."),
        )
    })?;
    let price = call_price(task, body_bytes, price);
    if price.most_micro_usd() > spend_cap_micro_usd {
        return Err(Rejection::new(
            FailureReason::InvalidInput,
            format!(
                "One call may cost {:.2} USD and the cap of a day is {:.2} USD: shorten the input, or raise the cap and send the job again.",
                usd(price.most_micro_usd()),
                usd(spend_cap_micro_usd)
            ),
        ));
    }
    let prompt = task
        .prompt(&job.input)
        .map_err(|violations| Rejection::new(FailureReason::InvalidInput, violations.0.join(" ")))?;
    Ok(Ready { task, price, prompt })
}
