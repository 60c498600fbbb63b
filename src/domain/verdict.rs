//! What one signal says, what the watch says, and how it ended.

use std::fmt;

use serde::{Deserialize, Serialize};

use super::signal::Signal;
use super::time::Timestamp;

/// What a human is shown of one signal.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Evidence {
    pub signal: Signal,
    /// Since the cut-over, or since the run above the limit began; `None` while there is no reading.
    pub value: Option<f64>,
    pub baseline: Option<f64>,
    pub limit: Option<f64>,
    /// `value / baseline`, where both are there and the baseline is not zero.
    pub ratio: Option<f64>,
    /// Requests (or checks) that the value rests on.
    pub requests: f64,
    pub bad: f64,
    /// Begin of the unbroken run above the limit.
    pub since: Option<Timestamp>,
    /// Length of that run in ticks, and how long it must be.
    pub ticks_above: u32,
    pub ticks_needed: u32,
    pub state: SignalState,
    /// Why this signal says nothing, or what limit it broke: one line for people.
    pub remark: Option<String>,
    /// What the evidence rule says of it; the plain rule has none.
    pub proof: Option<Proof>,
}

/// Anytime-valid evidence against "no breach".
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Proof {
    /// The chance of seeing this without a breach is at most one in so many. Not "the probability that
    /// the release is fine".
    pub one_in: f64,
    /// A rollback needs one in so many, all signals together.
    pub needed: f64,
    pub ln_e: f64,
    /// Ratio to the normal over the whole soak, at 95 %, valid at any time.
    pub interval: Option<(f64, f64)>,
    /// Bad requests per independent event in the normal.
    pub burstiness: f64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum SignalState {
    /// Below its limit.
    Fine,
    /// Above its limit, not yet for long enough.
    Above,
    Breached,
    /// Too little to say anything.
    Thin,
    /// Nothing could be read.
    Blind,
    /// Not judged (warm-up, no baseline).
    NotJudged,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Verdict {
    Healthy,
    Breached,
    /// Too little traffic to tell.
    Thin,
    /// Cannot see.
    Blind,
}

impl Verdict {
    pub fn as_str(self) -> &'static str {
        match self {
            Verdict::Healthy => "healthy",
            Verdict::Breached => "breached",
            Verdict::Thin => "thin",
            Verdict::Blind => "blind",
        }
    }
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// How a watch ended. A different word each in log, metric, mail and API.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Outcome {
    Passed {
        by_checks_only: bool,
    },
    RolledBackRecovered,
    RolledBackNotRecovered,
    /// Moved back, but no traffic to tell whether users are served.
    RolledBackUnseen,
    RollbackFailed {
        why: String,
    },
    /// Breached, and well again by a remedy: the traffic stayed.
    Healed {
        by: String,
    },
    /// A drill showed a way back that works; dry: as far as can be tried without moving traffic.
    Drilled {
        dry: bool,
    },
    DrillFailed {
        why: String,
    },
    /// Breached, and nothing was moved.
    Withheld {
        why: Withheld,
    },
    Unjudged {
        why: String,
    },
    Unconfirmed {
        why: String,
    },
    Superseded,
    Cancelled {
        why: String,
    },
}

/// Why a breach was not acted on.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Withheld {
    ObserveMode,
    Disarmed,
    RollbackUnsafe,
    NoPlan,
    Declined {
        by: String,
    },
    NotApproved,
    /// The old slot is not fit to take the traffic.
    NoSafeTarget {
        why: String,
    },
    /// The probe does not show the new slot active, or cannot be read.
    Preflight {
        why: String,
    },
    /// A slot or service that should not have changed shows a regression of like size.
    ControlToo {
        why: String,
    },
    /// The baseline itself was an incident.
    TargetWasBad {
        why: String,
    },
    /// Too many automatic rollbacks already: of this service, of this version, or over all.
    Brake {
        why: String,
    },
}

impl fmt::Display for Withheld {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Withheld::ObserveMode => f.write_str("mode is observe: it would have been rolled back"),
            Withheld::Disarmed => f.write_str("flipback is disarmed"),
            Withheld::RollbackUnsafe => f.write_str("the switch was announced as unsafe to roll back"),
            Withheld::NoPlan => f.write_str("the service has no rollback steps"),
            Withheld::Declined { by } => write!(f, "declined by {by}"),
            Withheld::NotApproved => f.write_str("nobody approved it in time"),
            Withheld::NoSafeTarget { why } => write!(f, "no safe target: {why}"),
            Withheld::Preflight { why } => write!(f, "preflight refused: {why}"),
            Withheld::ControlToo { why } => write!(f, "the switch is not the cause: {why}"),
            Withheld::Brake { why } => f.write_str(why),
            Withheld::TargetWasBad { why } => write!(f, "the old release was already bad: {why}"),
        }
    }
}

impl Outcome {
    /// Every outcome's word.
    pub const WORDS: [&'static str; 13] = [
        "passed",
        "rolled_back_recovered",
        "rolled_back_not_recovered",
        "rolled_back_unseen",
        "rollback_failed",
        "healed",
        "withheld",
        "unjudged",
        "unconfirmed",
        "superseded",
        "cancelled",
        "drilled",
        "drill_failed",
    ];

    /// The outcome's one word.
    pub fn word(&self) -> &'static str {
        match self {
            Outcome::Passed { .. } => "passed",
            Outcome::RolledBackRecovered => "rolled_back_recovered",
            Outcome::RolledBackNotRecovered => "rolled_back_not_recovered",
            Outcome::RolledBackUnseen => "rolled_back_unseen",
            Outcome::RollbackFailed { .. } => "rollback_failed",
            Outcome::Healed { .. } => "healed",
            Outcome::Drilled { .. } => "drilled",
            Outcome::DrillFailed { .. } => "drill_failed",
            Outcome::Withheld { .. } => "withheld",
            Outcome::Unjudged { .. } => "unjudged",
            Outcome::Unconfirmed { .. } => "unconfirmed",
            Outcome::Superseded => "superseded",
            Outcome::Cancelled { .. } => "cancelled",
        }
    }

    /// The reason behind the word, where it has one.
    pub fn detail(&self) -> Option<String> {
        match self {
            Outcome::Passed { by_checks_only: true } => Some("by health checks only".into()),
            Outcome::Passed { by_checks_only: false }
            | Outcome::RolledBackRecovered
            | Outcome::RolledBackNotRecovered
            | Outcome::RolledBackUnseen
            | Outcome::Superseded => None,
            Outcome::Withheld { why } => Some(why.to_string()),
            Outcome::Healed { by } => Some(format!("by {by}; the traffic stays")),
            Outcome::Drilled { dry: true } => Some("dry: nothing was moved".into()),
            Outcome::Drilled { dry: false } => Some("there and back".into()),
            Outcome::DrillFailed { why }
            | Outcome::RollbackFailed { why }
            | Outcome::Unjudged { why }
            | Outcome::Unconfirmed { why }
            | Outcome::Cancelled { why } => Some(why.clone()),
        }
    }
}

impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.detail() {
            Some(detail) => write!(f, "{} ({detail})", self.word()),
            None => f.write_str(self.word()),
        }
    }
}
