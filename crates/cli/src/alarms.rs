//! The alarms that a pause would raise: their notifications go off with it, and on again with its end.

use aws_sdk_cloudwatch::Client;

use crate::error::{self, Failure};
use crate::stack::Stack;

/// A stack that is paused makes no progress and its jobs grow old, which is meant and calls nobody.
const RAISED_BY_A_PAUSE: [&str; 2] = ["no-progress", "oldest-job-too-old"];

/// Lets these alarms notify, or not.
pub async fn let_notify(stack: &Stack, on: bool) -> Result<(), Failure> {
    let client = Client::new(&stack.sdk);
    let names = Some(RAISED_BY_A_PAUSE.map(|page| format!("{}-{page}", stack.prefix)).to_vec());
    if on {
        let enabled = client.enable_alarm_actions().set_alarm_names(names).send().await;
        enabled.map(drop).map_err(|e| error::of_aws("cloudwatch:EnableAlarmActions", &e))
    } else {
        let disabled = client.disable_alarm_actions().set_alarm_names(names).send().await;
        disabled.map(drop).map_err(|e| error::of_aws("cloudwatch:DisableAlarmActions", &e))
    }
}
