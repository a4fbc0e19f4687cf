//! Who is asking, by STS: it needs no permission, and shows at once whether the credentials are any good.

use crate::error::{self, Failure};
use crate::stack::Stack;

/// Whose credentials these are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Caller {
    pub account: String,
    /// The user, or the role with its session.
    pub arn: String,
}

/// Asks STS.
pub async fn of(stack: &Stack) -> Result<Caller, Failure> {
    let client = aws_sdk_sts::Client::new(&stack.sdk);
    let identity = client.get_caller_identity().send().await;
    let identity = identity.map_err(|e| error::of_aws("sts:GetCallerIdentity", &e))?;
    Ok(Caller {
        account: identity.account.unwrap_or_default(),
        arn: identity.arn.unwrap_or_else(|| "unknown".to_owned()),
    })
}
