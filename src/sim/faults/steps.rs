//! The executor, the shim and the proxy as files and processes would be: the marks of every attempt outlive
//! the daemon, and what they mean is decided by the daemon's own code.

use std::collections::BTreeMap;

use super::source::Ms;
use crate::domain::attempt::Marks;
use crate::domain::plan::{AttemptId, StepEnd};
use crate::domain::switch::{ServiceName, Slot};
use crate::domain::time::Timestamp;

/// What a step does when it runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Does {
    Works,
    /// Works, but not at once.
    Slow,
    Fails,
    MovesAndFails,
    /// Exit code 0 and nothing moved.
    Lies,
    Hangs,
    /// Moves the traffic and is gone without a result.
    MovesAndVanishes,
    Vanishes,
}

impl Does {
    pub const ALL: [Does; 8] = [
        Does::Works,
        Does::Slow,
        Does::Fails,
        Does::MovesAndFails,
        Does::Lies,
        Does::Hangs,
        Does::MovesAndVanishes,
        Does::Vanishes,
    ];

    pub fn moves(self) -> bool {
        matches!(self, Does::Works | Does::Slow | Does::MovesAndFails | Does::MovesAndVanishes)
    }

    /// How it ends, if it leaves a result at all.
    pub fn end(self) -> Option<StepEnd> {
        match self {
            Does::Works | Does::Slow | Does::Lies => Some(StepEnd::Exited(0)),
            Does::Fails | Does::MovesAndFails => Some(StepEnd::Exited(1)),
            Does::Hangs => Some(StepEnd::TimedOut),
            Does::MovesAndVanishes | Does::Vanishes => None,
        }
    }

    /// When it moves the traffic and when it ends, after its start; `limit` is its time limit.
    pub fn times(self, limit: Ms) -> (Ms, Ms) {
        match self {
            Does::Works | Does::Fails | Does::MovesAndFails | Does::Lies => (150, 400),
            Does::Slow => (6_000.min(limit), 7_000.min(limit)),
            Does::Hangs => (limit, limit),
            Does::MovesAndVanishes | Does::Vanishes => (150, 300),
        }
    }
}

/// One attempt's directory.
#[derive(Debug, Clone)]
pub struct Dir {
    pub service: ServiceName,
    pub to: Slot,
    pub marks: Marks,
    /// On the wall clock, as the shim is told.
    pub start_by: Timestamp,
    pub deadline: Timestamp,
    pub lock: String,
    pub started_at: Option<Ms>,
    pub ended_at: Option<Ms>,
    pub end: Option<StepEnd>,
    /// How often the step itself was run: the promise says once.
    pub runs: u32,
}

/// Everything below the state directory that is not the journal.
#[derive(Debug, Default)]
pub struct Files {
    pub dirs: BTreeMap<AttemptId, Dir>,
    pub all_disarmed: bool,
    pub disarmed: Vec<ServiceName>,
}

impl Files {
    pub fn is_disarmed(&self, service: &ServiceName) -> bool {
        self.all_disarmed || self.disarmed.contains(service)
    }

    /// Another step that touches the same thing is under way.
    pub fn is_busy(&self, lock: &str, but: &AttemptId) -> bool {
        self.dirs.iter().any(|(id, dir)| id != but && dir.lock == lock && dir.marks.locked && dir.marks.started)
    }
}
