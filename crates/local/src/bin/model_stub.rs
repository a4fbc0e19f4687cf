//! The model stub as a server of its own.
fn main() {}
