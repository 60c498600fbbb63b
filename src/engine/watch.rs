//! One switch's life: a [`Phase`], one function per phase, and what every open phase shares: ticks,
//! health checks, sight.

use serde::{Deserialize, Serialize};

use super::control::Neighbour;
use super::message::{Command, CommandId, ObserveAsk};
use super::rollback::{self, Rollback};
use super::sight::{Cursor, Sight};
use crate::domain::baseline::{Baseline, BaselineAsk, Quality};
use crate::domain::notice::{Notice, NoticeKey, NoticeReason};
use crate::domain::plan::{HealthReading, ProbeReading, StepRecord};
use crate::domain::policy::{Mode, Policy, RuleKind};
use crate::domain::service::Service;
use crate::domain::signal::{Observation, Reading, SlotCell, SourceClock};
use crate::domain::switch::{Announcement, RollbackSafety, Slot, SwitchId};
use crate::domain::time::{Span, Timestamp};
use crate::domain::verdict::{Evidence, Outcome, SignalState, Verdict, Withheld};
use crate::domain::view::{Breach, Recovery, TimelineEvent};
use crate::judge::alive::Alive;
use crate::judge::{Rule, Tick};

/// A dead slot must be found within seconds whatever the tick is: health is asked at least this often.
const HEALTH_EVERY_MAX: Span = Span::from_secs(5);

/// A check's own time limit may be overrun by a busy machine.
const HEALTH_SLACK: Span = Span::from_secs(1);

/// Prometheus answers a tick within this, or the tick has failed (and less, where the tick is shorter).
const OBSERVE_TIMEOUT: Span = Span::from_secs(5);

/// Lines kept of a watch's story. A 48 h soak writes some dozens; more is a flapping source.
const TIMELINE_MAX: usize = 400;

/// A slot that was promised traffic and gets none for this long has lost it.
const TRAFFIC_LOST_AFTER: Span = Span::from_secs(60);

/// Traffic is only missed where the baseline would have brought this many requests meanwhile.
const TRAFFIC_MISSED_MIN: f64 = 30.0;

/// `passed` needs this share of the soak to have been seen.
const VALID_SHARE_MIN: f64 = 0.9;

/// "Passed, by checks only" rests on at least this many good health checks, and this share of them.
const GOOD_CHECKS_MIN: u32 = 20;
const GOOD_CHECKS_SHARE_MIN: f64 = 0.95;

/// So many ticks at which all was well are "recovered".
const RECOVERED_TICKS: u32 = 3;

/// A phase holds exactly its own data.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Phase {
    CuttingOver { deadline: Timestamp },
    Soaking { ends_at: Timestamp, gives_up_at: Timestamp, extended: bool },
    Asking { deadline: Timestamp },
    RollingBack(Rollback),
    Recovering(Box<Recovering>),
    Ended { at: Timestamp, outcome: Outcome },
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(super) struct Recovering {
    pub deadline: Timestamp,
    /// Judges the old slot by the same limits, from fresh counts.
    pub rule: Rule,
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
    /// Where a rollback goes, or why nowhere.
    pub(super) target: Result<Slot, String>,
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

/// A health check under way, and until when its answer is waited for.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(super) struct Asked {
    id: CommandId,
    until: Timestamp,
}

/// One call into the engine: its instant and the commands it yields.
pub(super) struct Turn<'a> {
    pub now: Timestamp,
    pub armed: bool,
    pub commands: &'a mut Vec<Command>,
}

impl Watch {
    pub(super) fn open(
        id: SwitchId,
        announcement: Announcement,
        service: Service,
        target: Result<Slot, String>,
        inherited: Option<Baseline>,
        turn: &mut Turn<'_>,
    ) -> Watch {
        let now = turn.now;
        let begins = announcement.switched_at.unwrap_or(now);
        let policy = &service.policy;
        let clock = SourceClock { skew_ms: 0, settle: Span::from_millis(1500), scrape_interval: None };
        let mut watch = Watch {
            target,
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
        };
        let a = &watch.announcement;
        let version = a.version.as_ref().map_or(String::new(), |v| format!(", {v}"));
        let text = format!("{} {} → {}{version}, announced by {}", a.service, a.old, a.new, a.source);
        watch.record(now, "announced", text);
        if let Err(why) = &watch.target {
            let text = format!("no rollback is possible: {why}");
            watch.record(now, "no_target", text);
        }
        match inherited {
            Some(baseline) => watch.take_baseline(baseline, turn),
            None => watch.ask_baseline(turn),
        }
        watch.next_tick = watch.next_grid_instant(now);
        if watch.service.plan.steps.is_empty() && !watch.service.metrics.by_slot() {
            // In place and nothing to ask: the announcement is all there is.
            watch.confirm(now, "taken from the announcement: nothing tells the slots apart", turn);
        }
        watch
    }

    pub(super) fn is_open(&self) -> bool {
        !matches!(self.phase, Phase::Ended { .. })
    }

    pub(super) fn next_deadline(&self) -> Option<Timestamp> {
        let own = match &self.phase {
            Phase::Ended { .. } => return None,
            Phase::CuttingOver { deadline } | Phase::Asking { deadline } => *deadline,
            // The end of a soak is noticed by the tick that covers it.
            Phase::Soaking { gives_up_at, .. } => *gives_up_at,
            Phase::RollingBack(rollback) => rollback.next_deadline(),
            Phase::Recovering(recovering) => recovering.deadline,
        };
        Some(own.min(self.next_tick).min(self.next_health))
    }

    // ------------------------------------------------------------------ inputs

    pub(super) fn on_timer(&mut self, turn: &mut Turn<'_>) {
        if !self.is_open() {
            return;
        }
        if turn.now >= self.next_health {
            self.ask_health(turn);
        }
        if turn.now >= self.next_tick {
            self.ask_readings(turn);
        }
        self.check_sight(turn);
        match &self.phase {
            Phase::CuttingOver { deadline } => {
                if turn.now >= *deadline {
                    self.settle_cut_over(turn);
                }
            }
            Phase::Soaking { gives_up_at, .. } => {
                if turn.now >= *gives_up_at {
                    self.finish_soak(turn);
                }
            }
            Phase::Asking { deadline } => {
                if turn.now >= *deadline {
                    self.withhold(Withheld::NotApproved, turn);
                }
            }
            Phase::RollingBack(_) => rollback::on_timer(self, turn),
            Phase::Recovering(recovering) => {
                if turn.now >= recovering.deadline {
                    self.finish_recovery(turn);
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
            self.take_clock(clock, turn);
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
            self.judge_alive(turn);
        } else if self.old_health_asked.as_ref().is_some_and(|asked| asked.id == *id) {
            self.old_health_asked = None;
            self.old_alive.checked(turn.now, reading);
            if let Phase::Recovering(recovering) = &mut self.phase {
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
            | Phase::Ended { .. } => {}
        }
    }

    pub(super) fn on_answered(&mut self, approve: bool, by: &str, turn: &mut Turn<'_>) -> Result<String, String> {
        match &self.phase {
            Phase::Asking { .. } if approve => {
                self.record(turn.now, "approved", format!("by {by}"));
                self.start_rollback(turn);
                Ok(format!("{}: approved, rolling back", self.id))
            }
            Phase::Asking { .. } => {
                self.withhold(Withheld::Declined { by: by.to_owned() }, turn);
                Ok(format!("{}: declined, nothing is moved", self.id))
            }
            Phase::CuttingOver { .. } | Phase::Soaking { .. } => {
                Err(format!("{} asks nothing: it is {}", self.id, self.phase_word().as_str()))
            }
            Phase::RollingBack(_) | Phase::Recovering(_) => Err(format!("{} is being rolled back already", self.id)),
            Phase::Ended { outcome, .. } => Err(format!("{} has ended: {outcome}", self.id)),
        }
    }

    /// The process came up again: what was under way in the last one is asked again.
    pub(super) fn on_started(&mut self, turn: &mut Turn<'_>) {
        if !self.is_open() {
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

    // ------------------------------------------------------------------ asking

    pub(super) fn command_id(&mut self) -> CommandId {
        self.command_n += 1;
        CommandId { switch: self.id.clone(), n: self.command_n }
    }

    fn ask_baseline(&mut self, turn: &mut Turn<'_>) {
        let id = self.command_id();
        self.baseline = BaselineState::Asked(id.clone());
        let policy = &self.service.policy;
        let slots = match &self.service.slots {
            crate::domain::service::Slots::Named(named) => named.clone(),
            crate::domain::service::Slots::Versions => Default::default(),
        };
        turn.commands.push(Command::ChooseBaseline {
            id,
            ask: BaselineAsk {
                service: self.service.name.clone(),
                slot: self.announcement.old.clone(),
                other: self.announcement.new.clone(),
                metrics: self.service.metrics.clone(),
                before: self.announcement.switched_at.unwrap_or(self.opened_at),
                soak: policy.soak,
                whole_day: !policy.long.is_zero(),
                cells_min: policy.baseline_cells_min,
                requests_min: policy.baseline_requests_min,
                slots,
            },
        });
    }

    fn ask_readings(&mut self, turn: &mut Turn<'_>) {
        // The next tick is set by the answer; this is the time by which one must have come.
        self.next_tick = turn.now + self.tick.max(Span::from_secs(1));
        let timeout = OBSERVE_TIMEOUT.min(self.tick.max(Span::from_secs(2)));
        for is_new in [true, false] {
            let cursor = if is_new { &self.new_cursor } else { &self.old_cursor };
            if cursor.asked_within(turn.now, timeout) {
                continue; // one question in flight per slot
            }
            let id = self.command_id();
            let slot = match (is_new, &self.phase) {
                (true, _) => &self.announcement.new,
                // After the rollback it is the target that must be well; before, the share of the
                // traffic is between the two slots of the switch.
                (false, Phase::Recovering(_)) => self.way_back(),
                (false, _) => &self.announcement.old,
            };
            let slot = &slot.clone();
            let cursor = if is_new { &mut self.new_cursor } else { &mut self.old_cursor };
            cursor.ask(id.clone(), turn.now);
            let plausible_rate = match &self.baseline {
                BaselineState::Chosen(baseline) => Some(baseline.peak_rate * 10.0),
                BaselineState::Asked(_) | BaselineState::Missing(_) => None,
            };
            turn.commands.push(Command::Observe {
                id,
                ask: ObserveAsk {
                    service: self.service.name.clone(),
                    slot: slot.clone(),
                    spec: self.service.slots.spec(slot).cloned().unwrap_or_default(),
                    metrics: self.service.metrics.clone(),
                    from: cursor.from,
                    grid: self.tick,
                    plausible_rate,
                    timeout,
                },
            });
        }
        if matches!(self.phase, Phase::CuttingOver { .. } | Phase::Soaking { .. }) {
            self.ask_neighbours(timeout, turn);
        }
    }

    fn ask_health(&mut self, turn: &mut Turn<'_>) {
        self.next_health = turn.now + self.tick.min(HEALTH_EVERY_MAX);
        for is_new in [true, false] {
            let slot = if is_new { &self.announcement.new } else { self.way_back() };
            let Some(check) = self.service.slots.spec(slot).and_then(|spec| spec.health.clone()) else { continue };
            let slot = slot.clone();
            // A slow answer is an answer: it is waited for, or a slot that hangs would never be heard.
            let asked = if is_new { &self.new_health_asked } else { &self.old_health_asked };
            if asked.as_ref().is_some_and(|asked| turn.now < asked.until) {
                continue;
            }
            let id = self.command_id();
            let asked = Asked { id: id.clone(), until: turn.now + check.timeout() + HEALTH_SLACK };
            *(if is_new { &mut self.new_health_asked } else { &mut self.old_health_asked }) = Some(asked);
            turn.commands.push(Command::CheckHealth { id, slot, check });
        }
        if matches!(self.phase, Phase::CuttingOver { .. })
            && let Some(probe) = self.first_probe()
        {
            let id = self.command_id();
            self.probe_asked = Some(id.clone());
            turn.commands.push(Command::Probe { id, probe });
        }
    }

    /// The first step's probe, resolved for this switch.
    fn first_probe(&self) -> Option<crate::domain::plan::Probe> {
        self.service.plan.steps.iter().find_map(|step| step.probe.as_ref()).map(|p| rollback::resolve_probe(self, p))
    }

    fn probe_shows(&self, slot: &Slot) -> bool {
        let expect = self.service.plan.steps.iter().find_map(|step| step.probe.as_ref()).map(|p| &p.expect);
        match (&self.last_probe, expect) {
            (Some(ProbeReading::Shows(line)), Some(expect)) => expect.word(slot) == line,
            _ => false,
        }
    }

    /// Local time of the next tick: a grid instant of Prometheus's clock plus the settling time.
    fn next_grid_instant(&self, now: Timestamp) -> Timestamp {
        let settled = now.shifted(self.clock.skew_ms) - self.clock.settle;
        let next = settled.floor_to(self.tick) + self.tick;
        (next + self.clock.settle).shifted(-self.clock.skew_ms).max(now + Span::from_millis(1))
    }

    fn take_clock(&mut self, clock: SourceClock, turn: &mut Turn<'_>) {
        self.clock = clock;
        let Some(interval) = clock.scrape_interval else { return };
        if interval > self.tick {
            let text = format!("tick raised from {} to the scrape interval of {interval}", self.tick);
            self.tick = interval;
            self.record(turn.now, "tick", text);
            return;
        }
        // Scrapes became more frequent; the long phase's ticks are coarse because they should be.
        let asked = self.service.policy.tick.max(interval);
        if asked < self.tick && !self.is_long(turn.now) {
            let text = format!("tick back from {} to {asked}: scrapes now come every {interval}", self.tick);
            self.tick = asked;
            self.record(turn.now, "tick", text);
        }
    }

    /// Whether the fast phase is over and a long one goes on.
    fn is_long(&self, now: Timestamp) -> bool {
        let policy = &self.service.policy;
        !policy.long.is_zero() && self.cut_over_at.is_some_and(|at| now >= at + policy.soak)
    }

    // ------------------------------------------------------------------ readings

    fn on_new_slot(&mut self, observation: &Observation, turn: &mut Turn<'_>) {
        match observation {
            Observation::Cell(cell) => self.on_new_cell(cell, turn),
            Observation::Empty { targets, .. } => {
                self.hear_targets(targets, true, turn.now);
                self.sight.empty(turn.now, self.tick.max(self.clock.scrape_interval.unwrap_or_default()));
                self.judge_alive(turn);
            }
            Observation::Absent { targets, .. } => {
                self.hear_targets(targets, true, turn.now);
                self.new_cursor.rate = None;
                self.sight.missing("no series of the new slot");
                self.judge_alive(turn);
            }
            Observation::Failed(failure) => self.sight.missing(&failure.to_string()),
        }
    }

    fn on_new_cell(&mut self, cell: &SlotCell, turn: &mut Turn<'_>) {
        for remark in &cell.remarks {
            self.record(turn.now, "remark", remark.clone());
        }
        self.hear_targets(&cell.targets, true, turn.now);
        let Some(counts) = cell.counts.value() else {
            let why = match &cell.counts {
                Reading::Failed(failure) => failure.to_string(),
                Reading::Absent | Reading::Value(_) => "no series of the new slot".to_owned(),
            };
            self.sight.missing(&why);
            return self.judge_alive(turn);
        };
        self.new_cursor.advance(cell.to, counts.requests());
        self.ticks += 1;
        let longest = self.tick.max(self.clock.scrape_interval.unwrap_or_default()).times(2);
        if self.sight.saw(turn.now, cell.to.since(cell.from).min(longest)) {
            self.record(turn.now, "sees_again", "readings are back; the counts of the gap are in".into());
            self.notify(NoticeReason::SeesAgain, turn);
        }
        self.note_traffic(counts.requests(), cell, turn);
        let cut_over = self.cut_over_at.unwrap_or(self.opened_at).shifted(self.clock.skew_ms);
        let custom: Vec<_> = cell.custom.iter().map(|(name, r)| (name.clone(), r.value().copied())).collect();
        self.rule.tick(&Tick {
            from: cell.from,
            to: cell.to,
            since_cut_over: cell.to.since(cut_over),
            counts: Some(*counts),
            latency: cell.latency.value(),
            custom: &custom,
        });
        self.confirm_by_traffic(turn);
        self.judge_alive(turn);
        self.judge(turn);
        if matches!(self.phase, Phase::Soaking { .. }) {
            self.finish_soak(turn);
        }
    }

    fn on_old_slot(&mut self, observation: &Observation, turn: &mut Turn<'_>) {
        match observation {
            Observation::Cell(cell) => {
                self.hear_targets(&cell.targets, false, turn.now);
                let Some(counts) = cell.counts.value() else { return };
                self.old_cursor.advance(cell.to, counts.requests());
                if let Phase::Recovering(recovering) = &mut self.phase {
                    recovering.rule.tick(&Tick {
                        from: cell.from,
                        to: cell.to,
                        // The old release is warm: it is judged in full from the first tick.
                        since_cut_over: Span::from_millis(u64::MAX),
                        counts: Some(*counts),
                        latency: cell.latency.value(),
                        custom: &[],
                    });
                    let seen = &mut recovering.seen;
                    if recovering.rule.any_above() {
                        (seen.ticks_fine, seen.requests) = (0, 0.0);
                        seen.error_rate = counts.rate().or(seen.error_rate);
                    } else if counts.requests() > 0.0 {
                        let bad_before = seen.error_rate.unwrap_or(0.0) * seen.requests;
                        seen.ticks_fine += 1;
                        seen.requests += counts.requests();
                        seen.error_rate = Some((bad_before + counts.bad()) / seen.requests);
                    }
                    self.recovery = Some(seen.clone());
                    self.check_recovery(turn);
                } else {
                    self.control.tick(&Tick {
                        from: cell.from,
                        to: cell.to,
                        since_cut_over: cell.to.since(self.cut_over_at.unwrap_or(self.opened_at)),
                        counts: Some(*counts),
                        latency: cell.latency.value(),
                        custom: &[],
                    });
                    self.confirm_by_traffic(turn);
                }
            }
            Observation::Empty { targets, .. } | Observation::Absent { targets, .. } => {
                self.hear_targets(targets, false, turn.now);
            }
            Observation::Failed(_) => {}
        }
    }

    fn hear_targets(&mut self, targets: &Reading<crate::domain::signal::Targets>, of_new: bool, now: Timestamp) {
        // A superseded switch goes back to another slot than the one it came from.
        let another =
            !of_new && !matches!(self.phase, Phase::Recovering(_)) && *self.way_back() != self.announcement.old;
        if let (Reading::Value(targets), false) = (targets, another) {
            (if of_new { &mut self.new_alive } else { &mut self.old_alive }).scraped(now, *targets);
        }
    }

    fn note_traffic(&mut self, requests: f64, cell: &SlotCell, turn: &mut Turn<'_>) {
        if requests > 0.0 || !matches!(self.phase, Phase::Soaking { .. }) {
            self.idle = Span::ZERO;
            if requests > 0.0 {
                self.idle_told = false;
            }
            return;
        }
        self.idle = self.idle + cell.to.since(cell.from);
        let missed = self.baseline().map_or(0.0, Baseline::rate) * self.idle.as_secs_f64();
        if self.idle >= TRAFFIC_LOST_AFTER && missed >= TRAFFIC_MISSED_MIN && !self.idle_told {
            self.idle_told = true;
            let text = format!(
                "{} has had no request for {} where about {missed:.0} were to be expected",
                self.announcement.new, self.idle
            );
            self.record(turn.now, "traffic_lost", text);
            self.notify(NoticeReason::TrafficLost, turn);
        }
    }

    fn check_sight(&mut self, turn: &mut Turn<'_>) {
        let step = self.tick.max(self.clock.scrape_interval.unwrap_or_default());
        if matches!(self.phase, Phase::CuttingOver { .. } | Phase::Soaking { .. } | Phase::Asking { .. })
            && let Some(why) = self.sight.goes_blind(turn.now, step)
        {
            self.record(turn.now, "blind", why);
            self.notify(NoticeReason::Blind, turn);
        }
    }

    // ------------------------------------------------------------------ cut-over

    fn confirm_by_traffic(&mut self, turn: &mut Turn<'_>) {
        if !matches!(self.phase, Phase::CuttingOver { .. }) || !self.service.metrics.by_slot() {
            return;
        }
        let (Some(new), Some(old)) = (self.new_cursor.rate, self.old_cursor.rate) else { return };
        if new > 0.0 && new > old {
            let share = 100.0 * new / (new + old);
            let text = format!("{share:.0} % of the requests go to {}", self.announcement.new);
            // It moved within the tick that shows it, not when the answer came; no earlier than was told.
            let tick_began = (self.new_cursor.from - self.tick).shifted(-self.clock.skew_ms);
            self.confirm(tick_began.max(self.opened_at).min(turn.now), &text, turn);
        }
    }

    fn confirm(&mut self, at: Timestamp, how: &str, turn: &mut Turn<'_>) {
        let cut_over = *self.cut_over_at.get_or_insert(at);
        let policy = &self.service.policy;
        let whole = policy.phases().whole();
        let ends_at = cut_over + whole;
        // A switch announced late has been seen only since then: its soak may take as long as any.
        let gives_up_at = ends_at.max(self.opened_at + whole) + policy.extend_max;
        self.phase = Phase::Soaking { ends_at, gives_up_at, extended: false };
        self.record(turn.now, "cut_over", format!("confirmed: {how}; the soak ends at {ends_at}"));
        let on_their_clock = cut_over.shifted(self.clock.skew_ms);
        self.rule.begin(on_their_clock);
        self.begin_controls(on_their_clock);
    }

    /// The time to confirm is over.
    fn settle_cut_over(&mut self, turn: &mut Turn<'_>) {
        let within = self.service.policy.confirm_within;
        let old_keeps = self.old_cursor.rate.is_some_and(|old| old > 0.0 && self.new_cursor.rate.unwrap_or(0.0) < old);
        match &self.last_probe {
            Some(ProbeReading::Shows(line)) => {
                let why = format!("the probe still shows {line:?} after {within}, not {}", self.announcement.new);
                self.end(Outcome::Unconfirmed { why }, NoticeReason::Unconfirmed, turn);
            }
            Some(ProbeReading::Unreadable(_)) | None if old_keeps && self.service.metrics.by_slot() => {
                let why = format!("{} still has the traffic after {within}", self.announcement.old);
                self.end(Outcome::Unconfirmed { why }, NoticeReason::Unconfirmed, turn);
            }
            Some(ProbeReading::Unreadable(why)) => {
                let text = format!("not seen (probe unreadable: {why}); taken from the announcement");
                self.confirm(self.opened_at, &text, turn);
            }
            None => self.confirm(self.opened_at, "not seen, no traffic to tell; taken from the announcement", turn),
        }
    }

    // ------------------------------------------------------------------ verdicts

    pub(super) fn verdict(&self) -> Verdict {
        if self.breach.is_some() || self.rule.breached_since().is_some() {
            Verdict::Breached
        } else if self.sight.is_blind() {
            Verdict::Blind
        } else if self.is_thin() {
            Verdict::Thin
        } else {
            Verdict::Healthy
        }
    }

    /// At the present rate the soak will not have brought the requests it needs.
    fn is_thin(&self) -> bool {
        let policy = &self.service.policy;
        let valid_s = self.sight.valid().as_secs_f64();
        let needed = self.rule.requests_needed();
        valid_s >= policy.warm_up.errors.as_secs_f64()
            && self.rule.requests() < needed
            && self.rule.requests() / valid_s.max(1.0) * policy.phases().whole().as_secs_f64() < needed
    }

    /// Whether anything breached is acted upon in this phase.
    fn may_judge(&self) -> bool {
        match self.phase {
            Phase::Soaking { .. } => true,
            // Before the cut-over is confirmed only where the probe says that the new slot is active;
            // and that confirms it.
            Phase::CuttingOver { .. }
            | Phase::Asking { .. }
            | Phase::RollingBack(_)
            | Phase::Recovering(_)
            | Phase::Ended { .. } => false,
        }
    }

    fn judge(&mut self, turn: &mut Turn<'_>) {
        if !self.may_judge() {
            return;
        }
        if let Some(since) = self.rule.breached_since() {
            self.on_breach(since, turn);
        }
    }

    fn judge_alive(&mut self, turn: &mut Turn<'_>) {
        let ticks = self.service.policy.limits.ticks;
        if self.may_judge() && self.new_alive.down(ticks) {
            let since = self.new_alive.since().unwrap_or(turn.now);
            self.on_breach(since, turn);
        }
    }

    fn on_breach(&mut self, since: Timestamp, turn: &mut Turn<'_>) {
        let ticks = self.service.policy.limits.ticks;
        let mut evidence = self.rule.evidence();
        evidence.push(self.new_alive.evidence(ticks));
        let broken: Vec<String> =
            evidence.iter().filter(|e| e.state == SignalState::Breached).map(super::view::one_line).collect();
        let broken_signals: Vec<Evidence> =
            evidence.iter().filter(|e| e.state == SignalState::Breached).cloned().collect();
        let one_in = self.one_in();
        let to = self.new_cursor.from.max(since);
        self.breach = Some(Breach { at: turn.now, since, evidence, one_in, from: since, to });
        self.record(turn.now, "breached", broken.join("; "));
        let policy = &self.service.policy;
        let withheld = if self.announcement.rollback == RollbackSafety::Unsafe {
            Some(Withheld::RollbackUnsafe)
        } else if self.service.plan.steps.is_empty() {
            Some(Withheld::NoPlan)
        } else if let Err(why) = &self.target {
            Some(Withheld::NoSafeTarget { why: why.clone() })
        } else if let Some(Baseline { quality: Quality::Incident { why }, .. }) = self.baseline() {
            Some(Withheld::TargetWasBad { why: why.clone() })
        } else if let Some(why) = self.control_too(&broken_signals) {
            Some(Withheld::ControlToo { why })
        } else if self.old_alive.good_now() == Some(false) {
            let why = format!(
                "{} does not answer either: {}",
                self.way_back(),
                self.old_alive.last_bad().unwrap_or("its health check fails")
            );
            Some(Withheld::NoSafeTarget { why })
        } else if policy.mode == Mode::Observe {
            Some(Withheld::ObserveMode)
        } else if !turn.armed {
            Some(Withheld::Disarmed)
        } else {
            None
        };
        match withheld {
            Some(why) => self.withhold(why, turn),
            None if policy.mode == Mode::Ask => {
                let deadline = turn.now + policy.ask_timeout;
                self.phase = Phase::Asking { deadline };
                self.record(turn.now, "asked", format!("waits for approve or decline until {deadline}"));
                self.notify(NoticeReason::ApprovalWanted, turn);
            }
            None => self.start_rollback(turn),
        }
    }

    fn start_rollback(&mut self, turn: &mut Turn<'_>) {
        if !turn.armed {
            return self.withhold(Withheld::Disarmed, turn);
        }
        rollback::start(self, turn);
    }

    pub(super) fn withhold(&mut self, why: Withheld, turn: &mut Turn<'_>) {
        self.end(Outcome::Withheld { why }, NoticeReason::Withheld, turn);
    }

    // ------------------------------------------------------------------ ends

    /// Whether a soak of this length has shown what it must (and then whether only by health checks), or
    /// why not.
    fn has_shown(&self, planned: Span) -> Result<bool, String> {
        // What was not seen is soaked longer: the extension makes up for gaps in the planned length.
        let planned = planned.as_secs_f64();
        // The last ticks of a soak are still settling; two of them are no gap.
        let slack = (self.tick.times(2) + self.clock.settle).as_secs_f64();
        let seen = self.sight.valid().as_secs_f64();
        let checks = self.new_alive.good_checks() >= GOOD_CHECKS_MIN
            && self.new_alive.good_share().is_some_and(|share| share >= GOOD_CHECKS_SHARE_MIN);
        let (requests, needed) = (self.rule.requests(), self.rule.requests_needed());
        if self.sight.is_blind() {
            Err(format!("readings are missing ({})", self.sight.why()))
        } else if (seen + slack) / planned.max(1.0) < VALID_SHARE_MIN {
            Err(format!("only {:.0} % of the soak was seen", 100.0 * seen / planned.max(1.0)))
        } else if self.rule.any_above() {
            Err("a signal is above its limit, not yet with enough to act on".to_owned())
        } else if self.new_alive.good_now() == Some(false) {
            Err("the last health check failed".to_owned())
        } else if requests >= needed {
            Ok(false)
        } else if checks {
            // Without traffic the checks stand for it: counts there were, but too few of them.
            Ok(true)
        } else {
            Err(format!(
                "{requests:.0} requests are too few: {needed:.0} are needed to have shown a ratio of {}",
                self.service.policy.limits.must_detect.get()
            ))
        }
    }

    fn finish_soak(&mut self, turn: &mut Turn<'_>) {
        let Phase::Soaking { ends_at, gives_up_at, extended } = self.phase else { return };
        self.enter_long_phase(turn);
        if turn.now < ends_at {
            return;
        }
        let why = match self.has_shown(self.service.policy.phases().whole()) {
            Ok(by_checks_only) => return self.pass(by_checks_only, turn),
            Err(why) => why,
        };
        if turn.now >= gives_up_at {
            return self.end(Outcome::Unjudged { why }, NoticeReason::Unjudged, turn);
        }
        if !extended {
            self.phase = Phase::Soaking { ends_at, gives_up_at, extended: true };
            self.record(turn.now, "extended", format!("{why}; goes on until {gives_up_at} at the latest"));
        }
    }

    /// After the fast phase: coarser ticks, and the release is one to go back to if it was good.
    fn enter_long_phase(&mut self, turn: &mut Turn<'_>) {
        if !self.is_long(turn.now) {
            return;
        }
        let policy = &self.service.policy;
        let (soak, tick) = (policy.soak, policy.long_tick.max(self.clock.scrape_interval.unwrap_or_default()));
        if self.tick < tick {
            self.tick = tick;
            self.record(turn.now, "long_phase", format!("the fast phase of {soak} is over; ticks of {tick} from here"));
        }
        if !self.fast_passed && self.has_shown(soak).is_ok() {
            self.fast_passed = true;
            self.record(turn.now, "fast_passed", "the fast phase was good".into());
        }
    }

    fn pass(&mut self, by_checks_only: bool, turn: &mut Turn<'_>) {
        self.end(Outcome::Passed { by_checks_only }, NoticeReason::Passed, turn);
    }

    /// The plan is done and proven: is the old slot well?
    pub(super) fn start_recovery(&mut self, turn: &mut Turn<'_>) {
        let policy = &self.service.policy;
        // Whether users are served again is no question of evidence: the plain rule, from fresh counts.
        let mut rule = Rule::new(&Policy { rule: RuleKind::Threshold, ..policy.clone() });
        if let Some(baseline) = self.baseline() {
            rule.with_baseline(baseline);
        }
        let seen = Recovery { proven_at: turn.now, ticks_fine: 0, requests: 0.0, error_rate: None };
        // Three good ticks must fit in, whatever was configured: time that is too short proves nothing.
        let least = self.tick.times(u64::from(RECOVERED_TICKS) + 2) + self.clock.settle;
        let deadline = turn.now + policy.recover_within.max(least);
        self.recovery = Some(seen.clone());
        self.phase = Phase::Recovering(Box::new(Recovering { deadline, rule, seen, last_health: None }));
        // Only what the old slot served after the proof counts.
        self.old_cursor = Cursor::at(turn.now.shifted(self.clock.skew_ms));
        self.record(turn.now, "recovering", format!("watching {} until {deadline}", self.way_back()));
        self.next_health = turn.now;
    }

    fn check_recovery(&mut self, turn: &mut Turn<'_>) {
        /// "Recovered" rests on at least this much traffic.
        const REQUESTS_MIN: f64 = 20.0;
        let Phase::Recovering(recovering) = &self.phase else { return };
        let has_check = self.target_spec().is_some_and(|spec| spec.health.is_some());
        let healthy = !has_check || recovering.last_health == Some(HealthReading::Good);
        if healthy && recovering.seen.ticks_fine >= RECOVERED_TICKS && recovering.seen.requests >= REQUESTS_MIN {
            self.end(Outcome::RolledBackRecovered, NoticeReason::RolledBackRecovered, turn);
        }
    }

    fn finish_recovery(&mut self, turn: &mut Turn<'_>) {
        let Phase::Recovering(recovering) = &self.phase else { return };
        let sick = matches!(recovering.last_health, Some(HealthReading::Bad(_)));
        if recovering.rule.requests() < 20.0 && !sick {
            self.end(Outcome::RolledBackUnseen, NoticeReason::RolledBackUnseen, turn);
        } else {
            self.end(Outcome::RolledBackNotRecovered, NoticeReason::RolledBackNotRecovered, turn);
        }
    }

    pub(super) fn end(&mut self, outcome: Outcome, reason: NoticeReason, turn: &mut Turn<'_>) {
        self.record(turn.now, "ended", outcome.to_string());
        let told = reason != NoticeReason::Passed || self.service.policy.notify_passed;
        self.phase = Phase::Ended { at: turn.now, outcome: outcome.clone() };
        turn.commands.push(Command::End { switch: self.id.clone(), outcome });
        if told {
            self.notify(reason, turn);
        }
    }

    // ------------------------------------------------------------------ telling

    fn take_baseline(&mut self, baseline: Baseline, turn: &mut Turn<'_>) {
        self.rule.with_baseline(&baseline);
        self.control.with_baseline(&baseline);
        let p = &baseline.provenance;
        let rate = baseline.counts.rate().map_or("no requests".into(), |r| format!("{:.3} % errors", r * 100.0));
        self.record(
            turn.now,
            "baseline",
            format!(
                "{:.0} requests of {} from {} to {}, {rate}, {} cells",
                baseline.counts.requests(),
                p.slot,
                p.from,
                p.to,
                baseline.cells
            ),
        );
        let little = match &baseline.quality {
            Quality::Good => None,
            Quality::TooLittle { why } | Quality::Incident { why } => Some(why.clone()),
        };
        self.baseline = BaselineState::Chosen(Box::new(baseline));
        if let Some(why) = little {
            self.record(turn.now, "little_baseline", why);
            self.notify(NoticeReason::LittleBaseline, turn);
        } else {
            self.say_what_can_be_shown(turn);
        }
        // What was kept until now is judged at once.
        self.judge(turn);
    }

    /// How small a regression this traffic can show at all, said before anybody relies on it.
    fn say_what_can_be_shown(&mut self, turn: &mut Turn<'_>) {
        let policy = &self.service.policy;
        let whole = policy.phases().whole();
        let expected = self.baseline().map_or(0.0, Baseline::rate) * whole.as_secs_f64();
        if self.rule.ln_e().is_none() {
            return; // the plain rule states no chance of error
        }
        self.detectable = self.rule.detectable(expected);
        let wanted = policy.limits.must_detect.get();
        let text = match self.detectable {
            Some(ratio) => format!(
                "within {whole} about {expected:.0} requests can show an error rate of {ratio:.1}× the recorded one"
            ),
            None => format!("within {whole} about {expected:.0} requests can not even show a total outage"),
        };
        self.record(turn.now, "detectable", text);
        if self.detectable.is_none_or(|ratio| ratio > wanted) {
            self.notify(NoticeReason::Thin, turn);
        }
    }

    pub(super) fn baseline(&self) -> Option<&Baseline> {
        match &self.baseline {
            BaselineState::Chosen(baseline) => Some(baseline),
            BaselineState::Asked(_) | BaselineState::Missing(_) => None,
        }
    }

    /// The evidence of all signals together, as "one in so many".
    pub(super) fn one_in(&self) -> Option<f64> {
        self.rule.ln_e().map(|ln_e| libm::exp(ln_e.clamp(0.0, 300.0)))
    }

    /// Where a rollback goes (or would go).
    pub(super) fn way_back(&self) -> &Slot {
        self.target.as_ref().unwrap_or(&self.announcement.old)
    }

    fn target_spec(&self) -> Option<&crate::domain::service::SlotSpec> {
        self.target.as_ref().ok().and_then(|slot| self.service.slots.spec(slot))
    }

    pub(super) fn record(&mut self, at: Timestamp, kind: &str, text: String) {
        if self.timeline.len() >= TIMELINE_MAX {
            // The beginning tells how it came about: the middle goes first.
            self.timeline.remove(TIMELINE_MAX / 2);
        }
        self.timeline.push(TimelineEvent { at, kind: kind.to_owned(), text });
    }

    pub(super) fn notify(&mut self, reason: NoticeReason, turn: &mut Turn<'_>) {
        self.notice_n += 1;
        let notice = Notice {
            key: NoticeKey { switch: self.id.clone(), n: self.notice_n },
            at: turn.now,
            reason,
            watch: self.view(),
        };
        turn.commands.push(Command::Notify { notice: Box::new(notice) });
    }
}
