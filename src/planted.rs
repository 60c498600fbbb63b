//! Bugs that the fault simulator must find. Each stands beside the guard that it removes, and exists only
//! in this crate's own unit tests: everywhere else [`has`] is `false` at compile time.

/// One removed guard.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[cfg_attr(not(test), allow(dead_code, reason = "constructed by the simulator's tests only"))]
pub enum Bug {
    /// A step runs before its intent is on disk.
    ActBeforeCommit,
    /// A caller is answered before its event is on disk.
    AnswerBeforeCommit,
    /// Notices are written a turn after their cause.
    NoticeLater,
    /// The last input before a crash is not replayed.
    ReplayDropsLast,
    /// A snapshot is taken before its turn's last input.
    SnapshotEarly,
    /// A restart runs the step under way anew.
    RecoverRunsAgain,
    /// What did not start yet is not marked as cancelled.
    NoCancelMark,
    /// The shim starts however late it is.
    IgnoreStartBy,
    /// The shim starts although flipback was disarmed.
    ShimIgnoresDisarm,
    /// An attempt that still runs is taken for ended.
    IgnoreLock,
    /// A new attempt without a look whether the last one was applied.
    RetryWithoutLook,
    /// Exit code 0 is taken for success.
    TrustExitCode,
    /// No probe before a step.
    NoPreflightProbe,
    /// No health checks before a step.
    NoPreflightHealth,
    /// Steps run though disarmed.
    IgnoreDisarm,
    /// The step goes to the slot that the traffic is not on, whichever that is.
    Toggle,
    NoLoopBreaker,
    NoFleetBrake,
    NoQuarantine,
    /// A rollback is not entered in the book.
    NoDebit,
    /// The book does not outlive the process.
    ForgetBrakes,
    /// What cannot be read is a breach.
    BreachOnAbsence,
    /// Time alone passes a release.
    PassByTime,
    /// Nobody is told that nothing can be seen.
    SilentBlind,
    /// A repeated event opens another watch.
    ForgetEvents,
    /// A newer switch leaves the older watch open.
    KeepSuperseded,
    /// Nobody looks after what was moved.
    NoGuard,
    /// An undelivered notice is given up at its first failure.
    GiveUpEarly,
    /// A notice that failed counts as delivered.
    MarkUnsent,
    /// An open soak takes the reloaded policy.
    PolicyNotFrozen,
    /// Timers go by the wall clock.
    FollowWallClock,
}

#[cfg(test)]
impl Bug {
    pub const ALL: [Bug; 31] = [
        Bug::ActBeforeCommit,
        Bug::AnswerBeforeCommit,
        Bug::NoticeLater,
        Bug::ReplayDropsLast,
        Bug::SnapshotEarly,
        Bug::RecoverRunsAgain,
        Bug::NoCancelMark,
        Bug::IgnoreStartBy,
        Bug::ShimIgnoresDisarm,
        Bug::IgnoreLock,
        Bug::RetryWithoutLook,
        Bug::TrustExitCode,
        Bug::NoPreflightProbe,
        Bug::NoPreflightHealth,
        Bug::IgnoreDisarm,
        Bug::Toggle,
        Bug::NoLoopBreaker,
        Bug::NoFleetBrake,
        Bug::NoQuarantine,
        Bug::NoDebit,
        Bug::ForgetBrakes,
        Bug::BreachOnAbsence,
        Bug::PassByTime,
        Bug::SilentBlind,
        Bug::ForgetEvents,
        Bug::KeepSuperseded,
        Bug::NoGuard,
        Bug::GiveUpEarly,
        Bug::MarkUnsent,
        Bug::PolicyNotFrozen,
        Bug::FollowWallClock,
    ];
}

#[cfg(not(test))]
#[inline]
pub const fn has(_: Bug) -> bool {
    false
}

#[cfg(test)]
pub use planting::{has, with};

#[cfg(test)]
mod planting {
    use std::cell::Cell;

    use super::Bug;

    thread_local! {
        static PLANTED: Cell<Option<Bug>> = const { Cell::new(None) };
    }

    pub fn has(bug: Bug) -> bool {
        PLANTED.get() == Some(bug)
    }

    /// Does something with a bug in the code, on this thread only.
    pub fn with<T>(bug: Bug, act: impl FnOnce() -> T) -> T {
        PLANTED.set(Some(bug));
        let done = act();
        PLANTED.set(None);
        done
    }
}
