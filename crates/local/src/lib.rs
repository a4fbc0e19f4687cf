//! Everything that stands in for AWS and the model on one machine.
