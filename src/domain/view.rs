//! A watch as people and programs see it: what `status` prints, a notice carries and the API returns.

use serde::{Deserialize, Serialize};

use super::baseline::Baseline;
use super::plan::StepRecord;
use super::policy::{AskDefault, Mode, Policy, RuleKind};
use super::service::Metrics;
use super::signal::{Signal, SourceClock};
use super::switch::{Announcement, Percent, Slot, SwitchId};
use super::time::{Span, Timestamp};
use super::verdict::{Evidence, Outcome, Verdict};

/// Everything known of one watch, free of the engine's inner state.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct WatchView {
    pub id: SwitchId,
    pub switch: Announcement,
    /// The part of the traffic that the new slot is meant to have by now (a ramp).
    #[serde(default)]
    pub share_percent: Option<Percent>,
    /// Where a rollback goes: the old slot, or the one before it after a switch that was superseded.
    pub back_to: Slot,
    pub mode: Mode,
    pub metrics: Metrics,
    pub phase: PhaseWord,
    pub verdict: Verdict,
    pub opened_at: Timestamp,
    pub cut_over_at: Option<Timestamp>,
    /// Planned end of the soak.
    pub soak_ends_at: Timestamp,
    pub rule: RuleKind,
    /// The fast phase, and the long one after it.
    pub soak: Span,
    pub long: Span,
    pub tick: Span,
    pub ticks: u32,
    /// The fast phase is over and was good.
    #[serde(default)]
    pub fast_passed: bool,
    pub ended_at: Option<Timestamp>,
    pub outcome: Option<Outcome>,
    /// What the watch is judged by; `None` until it was chosen, or where there is none at all.
    pub baseline: Option<Baseline>,
    pub evidence: Vec<Evidence>,
    /// All signals together say "one in so many" (evidence rule only).
    pub one_in: Option<f64>,
    /// The smallest multiple of the normal error rate that this traffic can show within the soak.
    pub detectable: Option<f64>,
    /// The signals that broke, as they stood when the breach was decided.
    pub breach: Option<Breach>,
    pub steps: Vec<StepRecord>,
    /// What a rollback tries before it moves traffic.
    #[serde(default)]
    pub remedies: Vec<String>,
    /// Nothing is judged until then, by whom and why.
    #[serde(default)]
    pub paused: Option<Pause>,
    /// A question that stands.
    #[serde(default)]
    pub asked: Option<Asked>,
    /// The old slot after the rollback.
    pub recovery: Option<Recovery>,
    pub timeline: Vec<TimelineEvent>,
    /// Absolute link of the runbook.
    pub runbook: Option<String>,
    /// What it is judged by, frozen when it opened.
    #[serde(default)]
    pub policy: Option<Policy>,
    /// The way back, step by step, as it is (or would be) run for this switch.
    #[serde(default)]
    pub plan: Vec<Planned>,
    /// What the source said of itself last.
    #[serde(default)]
    pub clock: Option<SourceClock>,
}

impl WatchView {
    /// When the traffic moved, as far as is known.
    pub fn began(&self) -> Timestamp {
        self.cut_over_at.unwrap_or(self.opened_at)
    }

    /// The signals that people are shown: as they broke, where they did.
    pub fn telling(&self) -> &Vec<Evidence> {
        self.breach.as_ref().map_or(&self.evidence, |breach| &breach.evidence)
    }

    /// An exercise, not a switch.
    pub fn is_drill(&self) -> bool {
        let ended = matches!(self.outcome, Some(Outcome::Drilled { .. } | Outcome::DrillFailed { .. }));
        self.phase == PhaseWord::Drilling || ended
    }
}

/// A step of the plan with everything in its place.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Planned {
    pub name: String,
    pub command: String,
    pub probe: Option<String>,
    /// The traffic stays where it is.
    pub remedy: bool,
    /// Only in the place of one that failed.
    pub after_failure: bool,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Breach {
    pub at: Timestamp,
    /// When the signal first rose above its limit in the run that led here.
    pub since: Timestamp,
    pub evidence: Vec<Evidence>,
    /// All signals together, at that instant.
    pub one_in: Option<f64>,
    /// Interval of Prometheus's clock that the evidence covers, for links.
    pub from: Timestamp,
    pub to: Timestamp,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Pause {
    pub since: Timestamp,
    pub until: Timestamp,
    pub by: String,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Asked {
    pub until: Timestamp,
    pub default: AskDefault,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Recovery {
    pub proven_at: Timestamp,
    pub ticks_fine: u32,
    pub requests: f64,
    pub error_rate: Option<f64>,
    /// Signals that the rollback was for and that stand above their limits still.
    #[serde(default)]
    pub above: Vec<Signal>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum PhaseWord {
    CuttingOver,
    Soaking,
    Asking,
    RollingBack,
    Recovering,
    /// A remedy was applied: do the signals recover?
    Healing,
    /// The soak was passed; its last steps run.
    Concluding,
    /// A drill.
    Drilling,
    Ended,
}

impl PhaseWord {
    pub fn as_str(self) -> &'static str {
        match self {
            PhaseWord::CuttingOver => "cutting_over",
            PhaseWord::Soaking => "soaking",
            PhaseWord::Asking => "asking",
            PhaseWord::RollingBack => "rolling_back",
            PhaseWord::Recovering => "recovering",
            PhaseWord::Healing => "healing",
            PhaseWord::Concluding => "concluding",
            PhaseWord::Drilling => "drilling",
            PhaseWord::Ended => "ended",
        }
    }
}

/// One line of a watch's story.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TimelineEvent {
    pub at: Timestamp,
    /// `announced`, `cut_over`, `breached`, `step_started` ...: bounded, for filters.
    pub kind: String,
    pub text: String,
}
