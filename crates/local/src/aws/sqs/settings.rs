//! The settings of a queue.

use std::collections::BTreeMap;

use super::SqsError;
use super::message::MESSAGE_BYTES_MAX;

/// What a queue does with a message that was received too often.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::aws) struct Redrive {
    pub(in crate::aws) target_arn: String,
    pub(in crate::aws) max_receive_count: u32,
}

/// The settings of a queue, in SQS's own units.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::aws) struct Settings {
    pub(in crate::aws) visibility_timeout_s: u32,
    pub(in crate::aws) delay_s: u32,
    pub(in crate::aws) retention_s: u32,
    pub(in crate::aws) message_bytes_max: usize,
    pub(in crate::aws) receive_wait_s: u32,
    pub(in crate::aws) redrive: Option<Redrive>,
    /// Attributes that are kept and given back but change nothing here (policies, encryption).
    pub(in crate::aws) others: BTreeMap<String, String>,
}

impl Default for Settings {
    fn default() -> Self {
        Settings {
            visibility_timeout_s: 30,
            delay_s: 0,
            retention_s: 4 * 24 * 60 * 60,
            message_bytes_max: MESSAGE_BYTES_MAX,
            receive_wait_s: 0,
            redrive: None,
            others: BTreeMap::new(),
        }
    }
}

impl Settings {
    /// Takes over the attributes of `CreateQueue` or `SetQueueAttributes`, or refuses them all.
    pub(in crate::aws) fn apply(&mut self, attributes: &BTreeMap<String, String>) -> Result<(), SqsError> {
        for (name, value) in attributes {
            match name.as_str() {
                "VisibilityTimeout" => self.visibility_timeout_s = seconds(name, value, 0..=43_200)?,
                "DelaySeconds" => self.delay_s = seconds(name, value, 0..=900)?,
                "MessageRetentionPeriod" => self.retention_s = seconds(name, value, 60..=1_209_600)?,
                "ReceiveMessageWaitTimeSeconds" => self.receive_wait_s = seconds(name, value, 0..=20)?,
                "MaximumMessageSize" => {
                    self.message_bytes_max = seconds(name, value, 1_024..=1_048_576)? as usize;
                }
                "RedrivePolicy" => self.redrive = redrive(value)?,
                "FifoQueue" if value == "true" => {
                    return Err(SqsError::new(
                        "UnsupportedOperation",
                        "FIFO queues are not part of this stand-in",
                    ));
                }
                _ => {
                    self.others.insert(name.clone(), value.clone());
                }
            }
        }
        Ok(())
    }
}

fn seconds(name: &str, value: &str, range: std::ops::RangeInclusive<u32>) -> Result<u32, SqsError> {
    value.parse().ok().filter(|number| range.contains(number)).ok_or_else(|| {
        SqsError::new("InvalidAttributeValue", format!("Invalid value for the parameter {name}."))
    })
}

pub(super) fn redrive(policy: &str) -> Result<Option<Redrive>, SqsError> {
    if policy.is_empty() {
        return Ok(None);
    }
    let invalid = || SqsError::new("InvalidAttributeValue", "Invalid value for the parameter RedrivePolicy.");
    let policy: serde_json::Value = serde_json::from_str(policy).map_err(|_| invalid())?;
    let target_arn =
        policy.get("deadLetterTargetArn").and_then(serde_json::Value::as_str).ok_or_else(invalid)?;
    // Both spellings occur: a number, and a number in a string.
    let count = policy.get("maxReceiveCount").ok_or_else(invalid)?;
    let max_receive_count = count
        .as_u64()
        .or_else(|| count.as_str().and_then(|count| count.parse().ok()))
        .and_then(|count| u32::try_from(count).ok())
        .filter(|count| (1..=1000).contains(count))
        .ok_or_else(invalid)?;
    Ok(Some(Redrive { target_arn: target_arn.to_owned(), max_receive_count }))
}
