//! One message about a watch, with its reason.

use std::fmt;

use serde::{Deserialize, Serialize};

use super::switch::SwitchId;
use super::time::Timestamp;
use super::view::WatchView;

/// The key of a notice: stable over restarts and retries, so that a duplicate carries the same Message-ID.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct NoticeKey {
    pub switch: SwitchId,
    pub n: u32,
}

impl fmt::Display for NoticeKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.n{}", self.switch, self.n)
    }
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Notice {
    pub key: NoticeKey,
    pub at: Timestamp,
    pub reason: NoticeReason,
    /// The watch as it stood when the notice was decided.
    pub watch: WatchView,
}

/// Why people are told. A decision carries its reason.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum NoticeReason {
    /// Breached; the rollback begins.
    BreachedActing,
    /// The watch began.
    Opened,
    /// A person ordered the rollback; it begins.
    OrderedActing,
    /// Breached in `ask` mode: approve or decline.
    ApprovalWanted,
    /// Breached; nothing is moved (the outcome says why).
    Withheld,
    RolledBackRecovered,
    RolledBackNotRecovered,
    RolledBackUnseen,
    RollbackFailed,
    /// A remedy made it well; the traffic stays.
    Healed,
    /// A drill went well, or the way back has rotted.
    Drilled,
    DrillFailed,
    /// The soak was passed; what was to follow it was not done.
    AfterPassedFailed,
    /// A person paused the watch: nothing is judged until it goes on.
    Paused,
    /// A step about which only a person can decide.
    Stuck,
    /// After a rollback the probe shows something else again: somebody or something undid it.
    Drift,
    /// This version was rolled back too often: whatever it shows, a person must act.
    Quarantined,
    /// No readings; it neither passes nor rolls back.
    Blind,
    /// Readings are back.
    SeesAgain,
    /// Too little baseline: ratios are not judged.
    LittleBaseline,
    /// This traffic cannot show the ratio that was asked for.
    Thin,
    /// The old slot will be gone before the soak is over: there will be no way back.
    OldEndsEarly,
    /// The new slot lost its traffic although it is alive.
    TrafficLost,
    Unconfirmed,
    Unjudged,
    Superseded,
    Cancelled,
    Passed,
}

/// What a notice means for whoever was woken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Standing {
    /// Something is wrong and stands until another notice says otherwise.
    Stands,
    /// What stood is over.
    Settles,
    /// Said once; nobody waits for more.
    Tells,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Severity {
    Info,
    Warning,
    /// Wakes people.
    Page,
}

impl NoticeReason {
    /// In the order of a switch's life.
    pub const ALL: [NoticeReason; 28] = [
        Self::Opened,
        Self::LittleBaseline,
        Self::Thin,
        Self::OldEndsEarly,
        Self::Quarantined,
        Self::Unconfirmed,
        Self::Blind,
        Self::SeesAgain,
        Self::TrafficLost,
        Self::Paused,
        Self::ApprovalWanted,
        Self::BreachedActing,
        Self::OrderedActing,
        Self::Withheld,
        Self::Healed,
        Self::RolledBackRecovered,
        Self::RolledBackNotRecovered,
        Self::RolledBackUnseen,
        Self::RollbackFailed,
        Self::Stuck,
        Self::Drift,
        Self::Unjudged,
        Self::Superseded,
        Self::Cancelled,
        Self::Passed,
        Self::AfterPassedFailed,
        Self::Drilled,
        Self::DrillFailed,
    ];

    pub fn standing(self) -> Standing {
        match self {
            Self::RolledBackRecovered
            | Self::Healed
            | Self::SeesAgain
            | Self::Passed
            | Self::Superseded
            | Self::Cancelled
            | Self::Drilled => Standing::Settles,
            // Whoever was woken, or told that the traffic is on its way, waits for the end of it.
            Self::BreachedActing | Self::OrderedActing => Standing::Stands,
            _ if self.severity() == Severity::Page => Standing::Stands,
            _ => Standing::Tells,
        }
    }

    pub fn severity(self) -> Severity {
        match self {
            Self::Opened | Self::Passed | Self::SeesAgain | Self::Superseded | Self::Cancelled | Self::Drilled => {
                Severity::Info
            }
            Self::LittleBaseline
            | Self::Thin
            | Self::OldEndsEarly
            | Self::Paused
            | Self::Healed
            | Self::AfterPassedFailed
            | Self::RolledBackRecovered
            | Self::BreachedActing
            | Self::OrderedActing => Severity::Warning,
            Self::ApprovalWanted
            | Self::Withheld
            | Self::RolledBackNotRecovered
            | Self::RolledBackUnseen
            | Self::RollbackFailed
            | Self::DrillFailed
            | Self::Stuck
            | Self::Drift
            | Self::Quarantined
            | Self::Blind
            | Self::TrafficLost
            | Self::Unconfirmed
            | Self::Unjudged => Severity::Page,
        }
    }

    pub fn word(self) -> &'static str {
        match self {
            Self::BreachedActing => "breached_acting",
            Self::Opened => "opened",
            Self::OrderedActing => "ordered_acting",
            Self::ApprovalWanted => "approval_wanted",
            Self::Withheld => "withheld",
            Self::RolledBackRecovered => "rolled_back_recovered",
            Self::RolledBackNotRecovered => "rolled_back_not_recovered",
            Self::RolledBackUnseen => "rolled_back_unseen",
            Self::RollbackFailed => "rollback_failed",
            Self::Healed => "healed",
            Self::Drilled => "drilled",
            Self::DrillFailed => "drill_failed",
            Self::AfterPassedFailed => "after_passed_failed",
            Self::Paused => "paused",
            Self::Stuck => "stuck",
            Self::Drift => "drift",
            Self::Quarantined => "quarantined",
            Self::Blind => "blind",
            Self::SeesAgain => "sees_again",
            Self::LittleBaseline => "little_baseline",
            Self::Thin => "thin",
            Self::OldEndsEarly => "old_ends_early",
            Self::TrafficLost => "traffic_lost",
            Self::Unconfirmed => "unconfirmed",
            Self::Unjudged => "unjudged",
            Self::Superseded => "superseded",
            Self::Cancelled => "cancelled",
            Self::Passed => "passed",
        }
    }
}
