//! What the test targets share.

pub mod cases;
pub mod http;
pub mod memory;
pub mod records;

pub mod servers;
