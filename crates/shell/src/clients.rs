//! What the AWS clients of a program share.

use nightshift_aws::clients::{self, Region, SdkConfig};

use crate::settings::StackSettings;

/// One HTTP client, one retry policy and one set of timeouts, in the stack's region; credentials and, where something
/// stands in for AWS, the address are the SDK's own to find. See [`nightshift_aws::clients`].
pub async fn sdk(stack: &StackSettings) -> SdkConfig {
    clients::loader().region(Region::new(stack.region.clone())).load().await
}
