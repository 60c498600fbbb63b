//! What a dry drill tried, and what it found.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::plan::{HealthCheck, Step};
use super::switch::{ServiceName, Slot};
use super::time::Span;

/// The way back as it would be gone now, with every variable in its place.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Rehearsal {
    pub service: ServiceName,
    /// The slot that has the traffic, as far as is known.
    pub live: Option<Slot>,
    pub to: Slot,
    pub health: BTreeMap<Slot, HealthCheck>,
    pub steps: Vec<Step>,
}

/// One thing that was tried.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Tried {
    /// `step haproxy: probe`
    pub what: String,
    pub took: Span,
    pub found: Found,
    pub text: String,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Found {
    Good,
    /// Works, and somebody should know of it.
    Warning,
    /// A rollback would not get past it.
    Broken,
}
