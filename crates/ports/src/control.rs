//! The control record: what holds all workers back.

use async_trait::async_trait;
use nightshift_core::control::Control;

use crate::{PortError, PortErrorKind};

/// So often a change is decided anew because somebody else wrote in between: each round somebody got through.
const ROUNDS_MAX: u32 = 8;

/// The answer to a write of the control record.
#[derive(Debug, Clone, PartialEq)]
pub enum ControlAnswer {
    /// It took effect.
    Written,
    /// Another one stands, read by the refused write itself. It may be the write's own, whose reply was lost.
    Refused(Box<Control>),
}

/// The control record, which workers read and whose entries their owners write.
#[async_trait]
pub trait ControlRecord: Send + Sync {
    /// Reads it; a missing one is the default. May be some seconds old: workers hold it for seconds anyway.
    async fn control(&self) -> Result<Control, PortError>;
    /// Reads it, strongly consistently.
    async fn control_now(&self) -> Result<Control, PortError>;
    /// Writes the next record over the one that was read, and over no other.
    async fn put_control(&self, next: &Control, over: &Control) -> Result<ControlAnswer, PortError>;
    /// Changes it as `change` says, decided anew over whatever stands; `None` leaves it. Returns what stands then.
    async fn change_control(
        &self,
        change: &(dyn for<'a> Fn(&'a Control) -> Option<Control> + Sync),
    ) -> Result<Control, PortError> {
        let mut standing = self.control_now().await?;
        for _ in 0..ROUNDS_MAX {
            let Some(next) = change(&standing) else { return Ok(standing) };
            match self.put_control(&next, &standing).await? {
                ControlAnswer::Written => return Ok(next.written()),
                ControlAnswer::Refused(other) if next.stands_as(&other) => return Ok(*other),
                ControlAnswer::Refused(other) => standing = *other,
            }
        }
        Err(PortError {
            service: "DynamoDB",
            operation: "UpdateItem",
            kind: PortErrorKind::Throttled,
            message: format!("the control record changed {ROUNDS_MAX} times while it was written"),
        })
    }
}
