//! The whole daemon in a made world with faults: the real engine, the loop's own wheel and its recovery, on a
//! virtual clock, with everything around them made up from a seed.
//!
//! A run has a safety phase, in which anything may fail, and a liveness phase, in which the world heals and
//! every watch must end; then a bad release must be dealt with as on a quiet day. What is checked are the
//! promises of the design, by number, and a model of the outcomes that is simpler than the engine.

mod checks;
mod model;
mod plan;
mod process;
mod source;
mod steps;
mod store;
#[cfg(test)]
mod tests;
mod world;

use serde::Serialize;

use crate::domain::time::Timestamp;

/// Every world begins here; its own time is counted from this instant.
pub(super) const BEGAN: Timestamp = Timestamp::from_millis(1_795_269_600_000);

/// A promise that did not hold.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Violation {
    /// Its number in the design; 0: the world healed and something did not end, or the model says otherwise.
    pub promise: u8,
    /// Seconds of the world's own time.
    pub at_s: u64,
    pub what: String,
}

/// What one seed brought.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Report {
    pub seed: u64,
    /// SHA-256 over everything that went to the store, in its order: the same seed, the same hash.
    pub hash: String,
    pub virtual_s: u64,
    pub inputs: u64,
    pub watches: u64,
    pub rollbacks: u64,
    pub steps_run: u64,
    pub crashes: u64,
    pub notices: u64,
    pub violation: Option<Violation>,
    /// What happened, line by line; only where it was asked for.
    pub story: Vec<String>,
}

/// Plays one seed. With `story` every event is told.
pub fn run(seed: u64, story: bool) -> Report {
    world::World::new(seed, story).play()
}
