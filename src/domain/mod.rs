//! Nouns: values and their invariants. Nothing here reads a clock, a file or a socket.
//!
//! The types derive serde so that the journal can keep them; the shape on disk is guarded by the
//! journal's record version and a fixture per version, not by a second copy of every type.

pub mod access;
pub mod account;
pub mod action;
pub mod attempt;
pub mod baseline;
pub mod brakes;
pub mod counts;
pub mod digest;
pub mod drill;
pub mod letter;
pub mod notice;
pub mod origin;
pub mod plan;
pub mod policy;
pub mod service;
pub mod signal;
pub mod switch;
pub mod time;
pub mod verdict;
pub mod view;
