//! One switch's life: a [`Phase`], one function per phase, and what every open phase shares: ticks,
//! health checks, sight.

use serde::{Deserialize, Serialize};

use super::brakes::Book;
use super::control::Neighbour;
use super::ladder;
use super::message::{Command, CommandId};
use super::rollback::{self, Rollback};
use super::sight::{Cursor, Sight};
use crate::domain::baseline::Baseline;
use crate::domain::notice::NoticeReason;
use crate::domain::plan::{HealthReading, ProbeReading, StepRecord};
use crate::domain::service::Service;
use crate::domain::signal::{Observation, Signal, SourceClock};
use crate::domain::switch::{Announcement, Kind, Percent, Slot, SwitchId};
use crate::domain::time::{Span, Timestamp};
use crate::domain::verdict::{Evidence, Outcome, Withheld};
use crate::domain::view::{Breach, Pause, Recovery, TimelineEvent};
use crate::judge::Rule;
use crate::judge::alive::Alive;
use crate::judge::threshold::Threshold;

/// A first answer's stretch may be off by this much and still be the switch's.
const SKEW_TOLD_MS: i64 = 1000;

/// A phase holds exactly its own data.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Phase {
    CuttingOver {
        deadline: Timestamp,
    },
    Soaking {
        ends_at: Timestamp,
        gives_up_at: Timestamp,
        extended: bool,
    },
    Asking {
        deadline: Timestamp,
    },
    /// A plan is run: the way back, a drill, or what follows a passed soak.
    RollingBack(Rollback),
    Recovering(Box<Recovering>),
    /// A dry drill is under way.
    Rehearsing {
        id: CommandId,
        deadline: Timestamp,
    },
    Ended {
        at: Timestamp,
        outcome: Outcome,
    },
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(super) struct Recovering {
    pub deadline: Timestamp,
    /// After a remedy it is the new slot that must be well, and this goes on if it is not.
    pub healing: Option<Rollback>,
    /// Judges the old slot by the same limits, from fresh counts.
    pub rule: Threshold,
    /// What must be below its limit again: the error rate, and what the rollback was for. A slot that
    /// had no traffic for a while is slow at first; that is told, and no reason to call it "still bad".
    pub hurt: Vec<Signal>,
    pub seen: Recovery,
    pub last_health: Option<HealthReading>,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum BaselineState {
    Asked(CommandId),
    Chosen(Box<Baseline>),
    Missing(String),
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Watch {
    pub(super) id: SwitchId,
    pub(super) announcement: Announcement,
    /// Frozen: a reload changes only later watches.
    pub(super) service: Service,
    /// The slot that is read for a flag's watch: the traffic stays there.
    pub(super) serves: Option<Slot>,
    /// Where a rollback goes, or why nowhere.
    pub(super) target: Result<Slot, String>,
    /// The part of the traffic that the new slot is meant to have now, and since when (a ramp's last step).
    pub(super) share: Percent,
    pub(super) stage_at: Option<Timestamp>,
    pub(super) old_end_told: bool,
    /// An outside judge's word that is allowed to act.
    pub(super) accusation: Option<Evidence>,
    pub(super) paused: Option<Pause>,
    /// How much longer than planned the soak is, by pauses and by an operator's word.
    pub(super) longer: Span,
    /// How the soak was passed, while its last steps run.
    pub(super) by_checks_only: bool,
    /// Not a switch but an exercise, and whether it was the schedule that began it.
    pub(super) drill: Option<Drill>,
    pub(super) opened_at: Timestamp,
    pub(super) phase: Phase,
    pub(super) cut_over_at: Option<Timestamp>,
    pub(super) baseline: BaselineState,
    pub(super) rule: Rule,
    /// The same rule over the old slot, for as long as it serves: what shows there is not the switch's.
    pub(super) control: Rule,
    pub(super) neighbours: Vec<Neighbour>,
    /// The smallest ratio that this soak can show, once it is known.
    pub(super) detectable: Option<f64>,
    /// The fast phase is over and was good: the release may be gone back to.
    pub(super) fast_passed: bool,
    pub(super) new_alive: Alive,
    pub(super) old_alive: Alive,
    pub(super) new_cursor: Cursor,
    pub(super) old_cursor: Cursor,
    pub(super) clock: SourceClock,
    /// Whether it was measured already.
    pub(super) met_clock: bool,
    pub(super) tick: Span,
    pub(super) next_tick: Timestamp,
    pub(super) next_health: Timestamp,
    pub(super) new_health_asked: Option<Asked>,
    pub(super) old_health_asked: Option<Asked>,
    pub(super) probe_asked: Option<CommandId>,
    pub(super) last_probe: Option<ProbeReading>,
    pub(super) sight: Sight,
    /// How long the new slot has been without a request, and whether people were told.
    pub(super) idle: Span,
    pub(super) idle_told: bool,
    pub(super) ticks: u32,
    pub(super) breach: Option<Breach>,
    pub(super) steps: Vec<StepRecord>,
    pub(super) recovery: Option<Recovery>,
    pub(super) timeline: Vec<TimelineEvent>,
    pub(super) command_n: u64,
    pub(super) notice_n: u32,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Drill {
    pub scheduled: bool,
    /// Whether it is known which slot has the traffic; a dry drill can do without.
    pub knows_live: bool,
}

/// A health check under way, and until when its answer is waited for.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(super) struct Asked {
    pub id: CommandId,
    pub until: Timestamp,
}

/// One call into the engine: its instant and the commands it yields.
pub(super) struct Turn<'a> {
    pub now: Timestamp,
    pub armed: bool,
    pub brakes: &'a mut Book,
    pub commands: &'a mut Vec<Command>,
}

impl Watch {
    /// The state before anything was asked.
    pub(super) fn new(
        now: Timestamp,
        id: SwitchId,
        announcement: Announcement,
        service: Service,
        serves: Option<Slot>,
        target: Result<Slot, String>,
    ) -> Watch {
        // Whatever the announcer's clock says: nothing was switched in the future.
        let announcement = Announcement { switched_at: announcement.switched_at.map(|at| at.min(now)), ..announcement };
        let begins = announcement.switched_at.unwrap_or(now);
        let policy = &service.policy;
        let clock = SourceClock { skew_ms: 0, settle: Span::from_millis(1500), scrape_interval: None };
        Watch {
            serves,
            target,
            share: announcement.share(),
            stage_at: None,
            old_end_told: false,
            accusation: None,
            paused: None,
            longer: Span::ZERO,
            by_checks_only: false,
            drill: None,
            opened_at: now,
            phase: Phase::CuttingOver { deadline: now + policy.confirm_within },
            cut_over_at: announcement.switched_at,
            baseline: BaselineState::Missing("not asked yet".into()),
            rule: Rule::new(policy),
            control: Rule::new(policy),
            neighbours: Vec::new(),
            detectable: None,
            fast_passed: false,
            new_alive: Alive::default(),
            old_alive: Alive::default(),
            new_cursor: Cursor::at(begins),
            old_cursor: Cursor::at(begins),
            clock,
            met_clock: false,
            tick: policy.tick,
            next_tick: now,
            next_health: now,
            new_health_asked: None,
            old_health_asked: None,
            probe_asked: None,
            last_probe: None,
            sight: Sight::new(now),
            idle: Span::ZERO,
            idle_told: false,
            ticks: 0,
            breach: None,
            steps: Vec::new(),
            recovery: None,
            timeline: Vec::new(),
            command_n: 0,
            notice_n: 0,
            id,
            announcement,
            service,
        }
    }

    pub(super) fn open(
        id: SwitchId,
        announcement: Announcement,
        service: Service,
        serves: Option<Slot>,
        target: Result<Slot, String>,
        inherited: Option<Baseline>,
        turn: &mut Turn<'_>,
    ) -> Watch {
        let now = turn.now;
        let mut watch = Watch::new(now, id, announcement, service, serves, target);
        let a = &watch.announcement;
        let version = a.version.as_ref().map_or(String::new(), |v| format!(", {v}"));
        let flag = if let Kind::Flag(flag) = &a.kind { format!(", flag {flag}") } else { String::new() };
        let part = if a.share().is_all() { String::new() } else { format!(", {} of the traffic", a.share()) };
        let (kind, verb) = if a.detected { ("detected", "seen") } else { ("announced", "announced") };
        let text = format!("{}{flag} {} → {}{version}{part}, {verb} by {}", a.service, a.old, a.new, a.source);
        watch.record(now, kind, text);
        if let Err(why) = &watch.target {
            let text = format!("no rollback is possible: {why}");
            watch.record(now, "no_target", text);
        }
        match inherited {
            Some(baseline) => watch.take_baseline(baseline, turn),
            None => watch.ask_baseline(turn),
        }
        if watch.service.policy.notify_opened {
            watch.notify(NoticeReason::Opened, turn);
        }
        watch.next_tick = watch.next_grid_instant(now);
        let in_place = watch.announcement.old == watch.announcement.new;
        if in_place || (watch.first_probe().is_none() && !watch.tells_slots_apart()) {
            // Nothing to ask: the announcement is all there is.
            watch.confirm(now, "taken from the announcement: nothing tells the slots apart", turn);
        }
        watch.warn_of_the_old_slots_end(turn);
        watch
    }

    pub(super) fn is_open(&self) -> bool {
        !matches!(self.phase, Phase::Ended { .. })
    }

    pub(super) fn next_deadline(&self) -> Option<Timestamp> {
        let own = match &self.phase {
            Phase::Ended { .. } => return None,
            Phase::CuttingOver { deadline } | Phase::Asking { deadline } => *deadline,
            // The end of a soak is noticed by the tick that covers it; the last look may be under way.
            Phase::Soaking { gives_up_at, .. } => (*gives_up_at).max(self.next_tick.min(self.next_health)),
            Phase::RollingBack(rollback) => rollback.next_deadline(),
            Phase::Recovering(recovering) => recovering.deadline,
            Phase::Rehearsing { deadline, .. } => *deadline,
        };
        if self.drill.is_some() {
            return Some(own);
        }
        let own = match (&self.phase, &self.paused) {
            // Nothing is due but the pause's end and the readings.
            (Phase::CuttingOver { .. } | Phase::Soaking { .. }, Some(pause)) => pause.until,
            _ => own,
        };
        Some(own.min(self.next_tick).min(self.next_health))
    }

    // ------------------------------------------------------------------ inputs

    pub(super) fn on_timer(&mut self, turn: &mut Turn<'_>) {
        if !self.is_open() {
            return;
        }
        // A drill judges nothing: its plan says all.
        if self.drill.is_none() {
            if turn.now >= self.next_health {
                self.ask_health(turn);
            }
            if turn.now >= self.next_tick {
                self.ask_readings(turn);
            }
            self.wake_from_pause(turn);
            self.check_sight(turn);
        }
        match &self.phase {
            Phase::CuttingOver { deadline } => {
                if turn.now >= *deadline && self.paused.is_none() {
                    self.settle_cut_over(turn);
                }
            }
            Phase::Soaking { gives_up_at, .. } => {
                // After a pause (the process was away, the machine slept) a last look comes first: what
                // the gap held may be a breach.
                if turn.now >= *gives_up_at && !self.new_cursor.asked_since(*gives_up_at) {
                    self.finish_soak(turn);
                }
            }
            Phase::Asking { deadline } => {
                if turn.now >= *deadline {
                    self.not_answered(turn);
                }
            }
            Phase::RollingBack(_) => rollback::on_timer(self, turn),
            Phase::Recovering(recovering) => {
                if turn.now >= recovering.deadline {
                    self.finish_recovery(turn);
                }
            }
            Phase::Rehearsing { deadline, .. } => {
                if turn.now >= *deadline {
                    let why = "the checks of the drill gave no answer".to_owned();
                    self.end(Outcome::DrillFailed { why }, NoticeReason::DrillFailed, turn);
                }
            }
            Phase::Ended { .. } => {}
        }
    }

    pub(super) fn on_baseline(&mut self, id: &CommandId, chosen: &Result<Baseline, String>, turn: &mut Turn<'_>) {
        if self.on_neighbours_normal(id, chosen, turn.now) || self.baseline != BaselineState::Asked(id.clone()) {
            return;
        }
        match chosen {
            Ok(baseline) => self.take_baseline(baseline.clone(), turn),
            Err(why) => {
                self.baseline = BaselineState::Missing(why.clone());
                self.rule.without_baseline();
                self.control.without_baseline();
                self.record(turn.now, "baseline", format!("none: {why}; absolute limits and health checks only"));
                self.notify(NoticeReason::LittleBaseline, turn);
            }
        }
    }

    pub(super) fn on_observed(
        &mut self,
        id: &CommandId,
        observation: &Observation,
        clock: Option<SourceClock>,
        turn: &mut Turn<'_>,
    ) {
        if self.on_neighbour(id, observation) {
            return;
        }
        let is_new = self.new_cursor.answered(id);
        if !is_new && !self.old_cursor.answered(id) {
            return; // late: a newer question is under way, or none
        }
        if let Some(clock) = clock {
            let first = !self.met_clock;
            self.take_clock(clock, turn);
            if first && clock.skew_ms.abs() > SKEW_TOLD_MS {
                // Asked by our clock, it covers another stretch than the switch's: asked anew by the right one.
                self.new_cursor.forget_question();
                self.old_cursor.forget_question();
                self.next_tick = turn.now;
                return;
            }
        }
        if is_new {
            self.on_new_slot(observation, turn);
            if self.is_open() && clock.is_some() {
                self.next_tick = self.next_grid_instant(turn.now);
            }
        } else {
            self.on_old_slot(observation, turn);
        }
    }

    pub(super) fn on_health(&mut self, id: &CommandId, reading: &HealthReading, turn: &mut Turn<'_>) {
        if let Phase::RollingBack(_) = self.phase
            && rollback::on_health(self, id, reading, turn)
        {
            return;
        }
        if self.new_health_asked.as_ref().is_some_and(|asked| asked.id == *id) {
            self.new_health_asked = None;
            self.new_alive.checked(turn.now, reading);
            if let Phase::Recovering(recovering) = &mut self.phase
                && let Some(rollback) = &recovering.healing
            {
                recovering.last_health = Some(reading.clone());
                if self.new_alive.down(self.service.policy.limits.ticks) {
                    // It died meanwhile: no remedy is waited for.
                    let rollback = rollback.clone();
                    return ladder::not_healed(self, rollback, turn);
                }
            }
            self.judge_alive(turn);
        } else if self.old_health_asked.as_ref().is_some_and(|asked| asked.id == *id) {
            self.old_health_asked = None;
            self.old_alive.checked(turn.now, reading);
            if let Phase::Recovering(recovering) = &mut self.phase
                && recovering.healing.is_none()
            {
                recovering.last_health = Some(reading.clone());
            }
            self.judge_alive(turn);
        }
    }

    pub(super) fn on_probed(&mut self, id: &CommandId, reading: &ProbeReading, turn: &mut Turn<'_>) {
        if let Phase::RollingBack(_) = self.phase
            && rollback::on_probed(self, id, reading, turn)
        {
            return;
        }
        if self.probe_asked.as_ref() != Some(id) {
            return;
        }
        self.probe_asked = None;
        self.last_probe = Some(reading.clone());
        match &self.phase {
            Phase::CuttingOver { .. } => {
                if self.probe_shows(&self.announcement.new) {
                    let text = format!("the probe shows {}", self.announcement.new);
                    self.confirm(turn.now, &text, turn);
                    // What breached before the cut-over was confirmed may act now.
                    self.judge(turn);
                }
            }
            Phase::Soaking { .. }
            | Phase::Asking { .. }
            | Phase::RollingBack(_)
            | Phase::Recovering(_)
            | Phase::Rehearsing { .. }
            | Phase::Ended { .. } => {}
        }
    }

    pub(super) fn on_answered(&mut self, approve: bool, by: &str, turn: &mut Turn<'_>) -> Result<String, String> {
        match &self.phase {
            Phase::Asking { .. } if approve => {
                self.record(turn.now, "approved", by.to_owned());
                self.start_rollback(turn);
                Ok(format!("{}: approved, rolling back", self.id))
            }
            Phase::Asking { .. } => {
                self.withhold(Withheld::Declined { by: by.strip_prefix("by ").unwrap_or(by).to_owned() }, turn);
                Ok(format!("{}: declined, nothing is moved", self.id))
            }
            Phase::CuttingOver { .. } | Phase::Soaking { .. } => {
                Err(format!("{} asks nothing: it is {}", self.id, self.phase_word().as_str()))
            }
            Phase::RollingBack(_) | Phase::Recovering(_) | Phase::Rehearsing { .. } => {
                Err(format!("{} asks nothing: it is {}", self.id, self.phase_word().as_str()))
            }
            Phase::Ended { outcome, .. } => Err(format!("{} has ended: {outcome}", self.id)),
        }
    }

    /// The process came up again: what was under way in the last one is asked again.
    pub(super) fn on_started(&mut self, turn: &mut Turn<'_>) {
        if !self.is_open() {
            return;
        }
        if self.drill.is_some() {
            self.record(turn.now, "restarted", "flipback came up again; the drill goes on".into());
            match self.phase {
                Phase::Rehearsing { .. } => self.rehearse(turn),
                _ => rollback::on_started(self, turn),
            }
            return;
        }
        self.record(turn.now, "restarted", "flipback came up again; the watch goes on with its counts".into());
        self.new_cursor.forget_question();
        self.old_cursor.forget_question();
        self.forget_neighbours_questions();
        self.ask_neighbours_normal(turn);
        (self.new_health_asked, self.old_health_asked, self.probe_asked) = (None, None, None);
        (self.next_tick, self.next_health) = (turn.now, turn.now);
        self.sight.woke(turn.now);
        if matches!(self.baseline, BaselineState::Asked(_)) {
            self.ask_baseline(turn);
        }
        if matches!(self.phase, Phase::RollingBack(_)) {
            rollback::on_started(self, turn);
        }
    }
}
