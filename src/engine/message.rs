//! The two closed enums between the engine and the world: [`Input`] in, [`Command`] out.
//!
//! Failures of the outside world are inputs like any other. Commands are values: everything that is
//! needed to carry one out is in it, so dispatch needs no configuration and a replay needs no world.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

use crate::domain::action::Action;
use crate::domain::baseline::{Baseline, BaselineAsk};
use crate::domain::brakes::Brakes;
use crate::domain::counts::Cell;
use crate::domain::drill::{Rehearsal, Tried};
use crate::domain::notice::Notice;
use crate::domain::plan::{AttemptId, AttemptState, HealthCheck, HealthReading, Probe, ProbeReading};
use crate::domain::service::{Metrics, Service, SlotSpec};
use crate::domain::signal::{Observation, SourceClock};
use crate::domain::switch::{Alert, Announcement, ServiceName, Sighting, Slot, SwitchId};
use crate::domain::time::{Span, Timestamp};
use crate::domain::verdict::Outcome;

/// A caller that waits for an answer; lives only in the process that took the call.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct RequestId(pub u64);

/// Names one command of one switch; answers carry it, and an answer to anything but the newest
/// question of its kind is late and ignored.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct CommandId {
    pub switch: SwitchId,
    pub n: u64,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Input {
    /// The configuration, whole; at start and after each accepted reload.
    Configured {
        services: Vec<Service>,
        brakes: Brakes,
    },
    /// The process came up; `Input`s before this one were another process's.
    Started,
    /// A deadline passed.
    Timer,
    Announced {
        request: RequestId,
        announcement: Announcement,
    },
    /// What a detector sees now, and did not see before: where the traffic is, or which version runs.
    Sighted {
        service: ServiceName,
        by: String,
        seen: Sighting,
    },
    /// An outside judge says that a service is bad.
    Accused {
        request: RequestId,
        service: ServiceName,
        by: String,
        alerts: Vec<Alert>,
        /// The operator lets these alerts move traffic; otherwise they are only noted.
        acts: bool,
    },
    /// `approve` or `decline` of an open question.
    Answered {
        request: RequestId,
        switch: SwitchId,
        approve: bool,
        by: String,
        #[serde(default)]
        why: String,
    },
    /// A watch is paused, goes on, or lasts longer.
    Held {
        request: RequestId,
        switch: SwitchId,
        hold: Hold,
        by: String,
        why: String,
    },
    /// A person asks for a drill.
    DrillAsked {
        request: RequestId,
        service: ServiceName,
        /// Traffic is moved, there and back.
        real: bool,
        by: String,
        why: String,
    },
    /// What a dry drill found.
    Rehearsed {
        id: CommandId,
        tried: Vec<Tried>,
    },
    /// `arm` or `disarm`; no service means all.
    Armed {
        request: RequestId,
        service: Option<ServiceName>,
        armed: bool,
        by: String,
        #[serde(default)]
        why: String,
    },
    /// An operator ends a watch without judgement.
    Cancelled {
        request: RequestId,
        switch: SwitchId,
        by: String,
        why: String,
    },
    /// A person orders a rollback: of an open watch, or over one that moved nothing.
    Ordered {
        request: RequestId,
        switch: SwitchId,
        by: String,
        why: String,
    },
    /// Whether the journal's disk has room for new events.
    Space {
        low: bool,
    },
    BaselineChosen {
        id: CommandId,
        baseline: Result<Baseline, String>,
    },
    Observed {
        id: CommandId,
        observation: Observation,
        clock: Option<SourceClock>,
    },
    HealthChecked {
        id: CommandId,
        reading: HealthReading,
    },
    Probed {
        id: CommandId,
        reading: ProbeReading,
    },
    StepEnded {
        attempt: AttemptId,
        state: AttemptState,
    },
    /// A cron job came due.
    Cron {
        job: Job,
    },
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Job {
    RecordBaseline,
    Prune,
    /// A dry drill of every service that has a way back.
    Drill,
}

/// What an operator does to a watch that soaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Hold {
    Pause { lasts: Span },
    Resume,
    Extend { longer: Span },
}

#[must_use = "a command that is dropped is never carried out"]
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Command {
    Reply {
        request: RequestId,
        answer: Answer,
    },
    /// Read the slot's counts from `ask.from` to the newest settled grid instant.
    Observe {
        id: CommandId,
        ask: ObserveAsk,
    },
    CheckHealth {
        id: CommandId,
        slot: Slot,
        check: HealthCheck,
    },
    Probe {
        id: CommandId,
        probe: Probe,
    },
    /// Choose and freeze a baseline for the slot, from what was recorded before `before`.
    ChooseBaseline {
        id: CommandId,
        ask: BaselineAsk,
    },
    RunStep {
        run: Box<StepRun>,
    },
    /// Try everything of the way back that moves no traffic.
    Rehearse {
        id: CommandId,
        ask: Box<Rehearsal>,
    },
    /// After a restart: find out what became of an attempt that was under way.
    RecoverStep {
        attempt: AttemptId,
        deadline: Timestamp,
    },
    Notify {
        notice: Box<Notice>,
    },
    /// Make the marks beside the steps match what is disarmed: the last thing that a step's shim looks at.
    MarkDisarmed {
        all: bool,
        services: BTreeSet<ServiceName>,
    },
    /// The watch ended; the store derives its history row and baseline exclusions from it.
    End {
        switch: SwitchId,
        outcome: Outcome,
    },
    /// Bring the recorded baseline of these services up to now.
    RecordBaseline {
        services: Vec<RecordAsk>,
    },
    Prune,
}

/// One slot's question to a source.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ObserveAsk {
    pub service: ServiceName,
    pub slot: Slot,
    pub spec: SlotSpec,
    pub metrics: Metrics,
    /// End of the last good tick on Prometheus's clock; the counts begin here.
    pub from: Timestamp,
    /// Ticks lie on multiples of this.
    pub grid: Span,
    /// Ten times the baseline's peak request rate, in requests per second: a born or reset series may
    /// bring at most this. `None` without a baseline.
    pub plausible_rate: Option<f64>,
    /// The answer counts as failed after this long.
    pub timeout: Span,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct RecordAsk {
    pub service: ServiceName,
    pub metrics: Metrics,
    /// Slots to record; empty where the slots are versions (then all values of the slot label count).
    pub slots: BTreeMap<Slot, SlotSpec>,
}

/// One attempt, ready to run.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct StepRun {
    pub attempt: AttemptId,
    pub service: ServiceName,
    /// The step's name.
    pub step: String,
    pub action: Action,
    /// The slot that the traffic goes to.
    pub to: Slot,
    /// FLIPBACK_… variables for the child: all it gets besides PATH.
    pub env: BTreeMap<String, String>,
    /// An attempt that has not started by then must not start at all.
    pub start_by: Timestamp,
    pub deadline: Timestamp,
    pub lock: String,
}

/// What a caller is told, and with which standing.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Answer {
    /// A watch was opened.
    Accepted {
        switch: SwitchId,
    },
    /// The same switch is being (or was) watched already.
    Known {
        switch: SwitchId,
    },
    /// flipback's own rollback announced by the deploy tool: nothing to watch.
    OwnHand {
        switch: SwitchId,
    },
    /// Somebody else moved the traffic back: the open watch ended.
    Reverted {
        switch: SwitchId,
    },
    /// The next step of a ramp: the open watch goes on with it.
    Stepped {
        switch: SwitchId,
    },
    Done {
        text: String,
    },
    /// 404
    NotFound {
        text: String,
    },
    /// 409
    Conflict {
        text: String,
    },
    /// 507: nothing new is taken until there is room on the journal's disk.
    NoRoom {
        text: String,
    },
    /// 400: the field and what is wrong with it.
    Refused {
        field: String,
        text: String,
    },
}

impl Answer {
    /// The switch that it names.
    pub fn switch(&self) -> Option<&SwitchId> {
        match self {
            Answer::Accepted { switch }
            | Answer::Known { switch }
            | Answer::OwnHand { switch }
            | Answer::Reverted { switch }
            | Answer::Stepped { switch } => Some(switch),
            Answer::Done { .. }
            | Answer::NotFound { .. }
            | Answer::Conflict { .. }
            | Answer::NoRoom { .. }
            | Answer::Refused { .. } => None,
        }
    }
}

/// Recorded cells of one slot: what the recorder hands to the store.
#[derive(Debug, Clone, PartialEq)]
pub struct RecordedCells {
    pub service: ServiceName,
    pub slot: Slot,
    pub cells: Vec<Cell>,
}
