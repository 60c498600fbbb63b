//! What the marks of an attempt's directory mean: the decisions of the write-ahead protocol, apart from the
//! files. The shim asks whether it may start, the daemon what became of an attempt.

use super::time::Timestamp;
use crate::planted::{self, Bug};

/// The files of an attempt, as one look finds them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Marks {
    /// The shim or the step holds the lock.
    pub locked: bool,
    /// On disk before the fork: from then on it may have run.
    pub started: bool,
    /// It may never start.
    pub cancelled: bool,
    pub result: bool,
}

/// What became of an attempt.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Found {
    /// The result is to be adopted.
    Ended,
    /// Wait for it.
    Running,
    /// Mark it as cancelled, durably, under the lock; then it is as if it had never been.
    NeverStarted,
    Cancelled,
    /// It started, left no result and runs no more: only a probe can tell.
    Ambiguous,
}

impl Found {
    /// Whether it must be marked as cancelled before anybody counts on its never having run.
    pub fn must_be_sealed(self) -> bool {
        self == Found::NeverStarted && !planted::has(Bug::NoCancelMark)
    }
}

impl Marks {
    pub fn found(self) -> Found {
        if self.result {
            Found::Ended
        } else if self.locked && !planted::has(Bug::IgnoreLock) {
            Found::Running
        } else if self.started {
            Found::Ambiguous
        } else if self.cancelled {
            Found::Cancelled
        } else {
            Found::NeverStarted
        }
    }

    /// Whether the shim, which holds the lock, may start the step.
    ///
    /// `Err(Some(why))`: it must mark the attempt as cancelled; `Err(None)`: an attempt runs once.
    pub fn may_start(self, now: Timestamp, start_by: Timestamp, disarmed: bool) -> Result<(), Option<String>> {
        if self.started || self.cancelled || self.result {
            return Err(None);
        }
        if now > start_by && !planted::has(Bug::IgnoreStartBy) {
            return Err(Some(format!("not started by {start_by}: its preflight is out of date")));
        }
        if disarmed && !planted::has(Bug::ShimIgnoresDisarm) {
            return Err(Some("disarmed before it began".into()));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_combination_of_marks_has_one_meaning() {
        for bits in 0u8..16 {
            let bit = |n: u8| bits & (1 << n) != 0;
            let marks = Marks { locked: bit(0), started: bit(1), cancelled: bit(2), result: bit(3) };
            let expected = match marks {
                Marks { result: true, .. } => Found::Ended,
                Marks { locked: true, .. } => Found::Running,
                Marks { started: true, .. } => Found::Ambiguous,
                Marks { cancelled: true, .. } => Found::Cancelled,
                Marks { .. } => Found::NeverStarted,
            };
            assert_eq!(marks.found(), expected, "{marks:?}");
            let may = marks.may_start(Timestamp::from_millis(5), Timestamp::from_millis(5), false);
            assert_eq!(may.is_ok(), !marks.started && !marks.cancelled && !marks.result, "{marks:?}");
        }
    }

    #[test]
    fn late_or_disarmed_is_cancelled_with_its_reason() {
        let fresh = Marks::default();
        let at = Timestamp::from_millis;
        assert!(fresh.may_start(at(6), at(5), false).unwrap_err().unwrap().contains("out of date"));
        assert!(fresh.may_start(at(5), at(5), true).unwrap_err().unwrap().contains("disarmed"));
    }
}
