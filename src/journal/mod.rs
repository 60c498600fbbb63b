//! The durable log of inputs and decisions. Nothing outside this module knows that it is SQLite.

pub mod write;

pub use write::Write;
