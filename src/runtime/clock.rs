//! The one reader of time.
//!
//! The daemon's time begins with the wall clock and then goes on by the machine's own count of seconds, sleep
//! included: when somebody steps the wall clock, no deadline comes early, none is missed, and time never
//! goes back. Prometheus's clock is measured against this one, so a step is only another skew. While nothing
//! is watched, and at a restart, it is set by the wall clock again.

use std::sync::{Mutex, PoisonError};
use std::time::{SystemTime, UNIX_EPOCH};

use crate::domain::time::{Span, Timestamp};
use crate::planted::{self, Bug};

/// A difference below this is the wall clock's own slewing and the two readings' distance.
const STEP_MIN_MS: i64 = 1000;

/// Wall time as of one instant of the machine's count.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Steady {
    base: Timestamp,
    since: Span,
}

impl Steady {
    /// Begins at the wall clock, or at `not_before` if that is later: a state that was written down is never
    /// in the future of its reader.
    pub fn begin(wall: Timestamp, count: Span, not_before: Timestamp) -> Steady {
        Steady { base: wall.max(not_before), since: count }
    }

    /// Now, given both clocks.
    pub fn now(&self, wall: Timestamp, count: Span) -> Timestamp {
        if planted::has(Bug::FollowWallClock) {
            return wall;
        }
        self.base + count.saturating_sub(self.since)
    }

    /// How far the wall clock is ahead of (or behind) this one, in milliseconds.
    pub fn stepped_ms(&self, wall: Timestamp, count: Span) -> i64 {
        wall.as_millis() - self.now(wall, count).as_millis()
    }
}

static STEADY: Mutex<Option<Steady>> = Mutex::new(None);

/// Now, in UTC, on the daemon's steady clock.
pub fn now() -> Timestamp {
    let (wall, count) = (wall(), count());
    with(|steady| steady.get_or_insert_with(|| Steady::begin(wall, count, wall)).now(wall, count))
}

/// How far the wall clock was stepped since the steady one began.
pub fn stepped_ms() -> i64 {
    let (wall, count) = (wall(), count());
    with(|steady| steady.map_or(0, |s| s.stepped_ms(wall, count)))
}

/// Sets the steady clock by the wall clock, no earlier than `not_before`. Says by how much it moved, where
/// that is worth a word.
pub fn set(not_before: Timestamp) -> Option<i64> {
    let (wall, count) = (wall(), count());
    with(|steady| {
        let before = steady.replace(Steady::begin(wall, count, not_before));
        before.map(|s| s.stepped_ms(wall, count)).filter(|ms| ms.abs() >= STEP_MIN_MS)
    })
}

/// What the wall clock says, stepped or not: for other processes and for people.
#[allow(clippy::disallowed_methods, reason = "this is the one place that reads the clock")]
pub fn wall() -> Timestamp {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    Timestamp::from_millis(0) + Span::from_millis(u64::try_from(since.as_millis()).unwrap_or(u64::MAX))
}

/// The machine's count since its start, sleep included.
fn count() -> Span {
    let t = rustix::time::clock_gettime(rustix::time::ClockId::Boottime);
    let ms = t.tv_sec.saturating_mul(1000).saturating_add(t.tv_nsec / 1_000_000);
    Span::from_millis(u64::try_from(ms).unwrap_or(0))
}

fn with<T>(act: impl FnOnce(&mut Option<Steady>) -> T) -> T {
    act(&mut STEADY.lock().unwrap_or_else(PoisonError::into_inner))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(s: i64) -> Timestamp {
        Timestamp::from_millis(1_800_000_000_000 + s * 1000)
    }

    #[test]
    fn a_stepped_wall_clock_moves_nothing() {
        let steady = Steady::begin(at(0), Span::from_secs(50), at(0));
        assert_eq!(steady.now(at(-3600), Span::from_secs(60)), at(10));
        assert_eq!(steady.now(at(7200), Span::from_secs(61)), at(11));
        assert_eq!(steady.stepped_ms(at(-3600), Span::from_secs(60)), -3_610_000);
    }

    #[test]
    fn a_new_process_never_begins_before_what_was_written_down() {
        let steady = Steady::begin(at(0), Span::from_secs(5), at(90));
        assert_eq!(steady.now(at(1), Span::from_secs(6)), at(91));
    }

    #[test]
    fn it_runs_with_the_wall_clock_where_nobody_steps_it() {
        let (a, b) = (now(), wall());
        assert!(b.since(a) < Span::from_secs(2) && stepped_ms().abs() < STEP_MIN_MS);
    }
}
