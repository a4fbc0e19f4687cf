//! Which stack this is, and where.

use super::Environment;

/// Which stack this is, and where.
#[derive(Debug, Clone)]
pub struct StackSettings {
    /// The stack's name, the dimension `Stack` of every metric.
    pub name: String,
    /// The AWS region.
    pub region: String,
}

impl StackSettings {
    /// Reads them.
    pub fn read(environment: &mut Environment<'_>) -> Self {
        let name = environment.required("NIGHTSHIFT_STACK", "set the prefix of the stack");
        if name.len() > 255 || name.bytes().any(|b| !b.is_ascii_graphic()) {
            environment.fault("NIGHTSHIFT_STACK must be 1 to 255 visible ASCII characters, as CloudWatch wants of a dimension.");
        }
        let region = environment.required("AWS_REGION", "set the region that the stack is in");
        Self { name, region }
    }
}
