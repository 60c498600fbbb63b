//! Verbs: pure and deterministic.
pub mod message;
