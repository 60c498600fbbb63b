//! How often flipback may act by itself before a person must look.

use std::fmt;

use serde::{Deserialize, Serialize};

use super::time::Span;

/// At most so many automatic rollbacks within a sliding span.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Brake {
    pub most: u32,
    pub within: Span,
}

impl fmt::Display for Brake {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} within {}", self.most, self.within)
    }
}

/// The three brakes. Rollbacks that a person approved or ordered neither count nor are held back.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Brakes {
    /// Loop breaker: a deploy tool that puts a bad release back again and again must not be fought.
    pub per_service: Brake,
    /// Fleet brake: many services that break at once have one cause, and it is not their releases.
    pub fleet: Brake,
    /// Quarantine: a version that was rolled back so often needs a person, not another try.
    pub per_version: Brake,
}

impl Default for Brakes {
    fn default() -> Self {
        Brakes {
            per_service: Brake { most: 1, within: Span::from_mins(30) },
            fleet: Brake { most: 3, within: Span::from_mins(10) },
            per_version: Brake { most: 2, within: Span::from_mins(24 * 60) },
        }
    }
}
