//! What moves traffic and reads it back: steps, probes, health checks.

pub mod command;
pub mod exec;
pub mod health;
pub mod native;
pub mod probe;
pub mod rehearse;
