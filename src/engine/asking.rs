//! What a watch asks for, and when: readings, health checks, the probe, its baseline.

use super::message::{Command, CommandId, ObserveAsk};
use super::rollback;
use super::watch::{Asked, BaselineState, Phase, Turn, Watch};
use crate::domain::plan::{Probe, ProbeReading, Step};
use crate::domain::signal::SourceClock;
use crate::domain::switch::Slot;
use crate::domain::time::{Span, Timestamp};

/// A dead slot must be found within seconds whatever the tick is: health is asked at least this often.
const HEALTH_EVERY_MAX: Span = Span::from_secs(5);

/// A check's own time limit may be overrun by a busy machine.
const HEALTH_SLACK: Span = Span::from_secs(1);

/// Prometheus answers a tick within this, or the tick has failed (and less, where the tick is shorter).
const OBSERVE_TIMEOUT: Span = Span::from_secs(5);

impl Watch {
    pub(super) fn command_id(&mut self) -> CommandId {
        self.command_n += 1;
        CommandId { switch: self.id.clone(), n: self.command_n }
    }

    pub(super) fn ask_baseline(&mut self, turn: &mut Turn<'_>) {
        let id = self.command_id();
        self.baseline = BaselineState::Asked(id.clone());
        let slot = self.serves.clone().unwrap_or_else(|| self.announcement.old.clone());
        let other = self.serves.clone().unwrap_or_else(|| self.announcement.new.clone());
        let before = self.announcement.switched_at.unwrap_or(self.opened_at);
        let ask = self.service.baseline_ask(slot, other, before);
        turn.commands.push(Command::ChooseBaseline { id, ask });
    }

    pub(super) fn ask_readings(&mut self, turn: &mut Turn<'_>) {
        // The next tick is set by the answer; this is the time by which one must have come.
        self.next_tick = turn.now + self.tick.max(Span::from_secs(1));
        let usual = OBSERVE_TIMEOUT.min(self.tick.max(Span::from_secs(2)));
        let timeout = self.service.metrics.from.answers_within().unwrap_or(usual);
        for is_new in [true, false] {
            if !is_new && !self.tells_slots_apart() && !matches!(self.phase, Phase::Recovering(_)) {
                continue; // the same series once more would be a control of itself
            }
            let cursor = if is_new { &self.new_cursor } else { &self.old_cursor };
            if cursor.asked_within(turn.now, timeout) {
                continue; // one question in flight per slot
            }
            let id = self.command_id();
            let slot = match (is_new, &self.phase) {
                _ if self.serves.is_some() => self.serves.as_ref().unwrap_or(&self.announcement.new),
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

    pub(super) fn ask_health(&mut self, turn: &mut Turn<'_>) {
        self.next_health = turn.now + self.tick.min(HEALTH_EVERY_MAX);
        for is_new in [true, false] {
            let slot = match &self.serves {
                Some(_) if !is_new => continue,
                Some(serves) => serves,
                None if is_new => &self.announcement.new,
                None => self.way_back(),
            };
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

    /// Whether the series of the new and of the old side are not the same.
    pub(super) fn tells_slots_apart(&self) -> bool {
        self.service.metrics.by_slot() && self.serves.is_none() && self.announcement.old != self.announcement.new
    }

    /// The first probe that shows which slot has the traffic; what shows a flag does not.
    fn slot_probe(&self) -> Option<(&Step, &Probe)> {
        let with_probe = |step| Some((step, Step::probe_of_slots(step)?));
        self.service.plan.steps.iter().find_map(with_probe)
    }

    /// The first step's probe, resolved for this switch.
    pub(super) fn first_probe(&self) -> Option<Probe> {
        self.slot_probe().map(|(step, probe)| rollback::resolve_probe(self, step, probe))
    }

    pub(super) fn probe_shows(&self, slot: &Slot) -> bool {
        let expect = self.slot_probe().map(|(_, probe)| &probe.expect);
        match (&self.last_probe, expect) {
            (Some(ProbeReading::Shows(line)), Some(expect)) => expect.word(slot) == line,
            _ => false,
        }
    }

    /// Local time of the next tick: a grid instant of Prometheus's clock plus the settling time.
    pub(super) fn next_grid_instant(&self, now: Timestamp) -> Timestamp {
        let settled = now.shifted(self.clock.skew_ms) - self.clock.settle;
        let next = settled.floor_to(self.tick) + self.tick;
        (next + self.clock.settle).shifted(-self.clock.skew_ms).max(now + Span::from_millis(1))
    }

    /// Prometheus's clock is known at last: what was set by ours is set by it.
    fn meet_clock(&mut self, skew_ms: i64) {
        self.new_cursor.set_by(skew_ms);
        self.old_cursor.set_by(skew_ms);
        self.set_neighbours_by(skew_ms);
        if let (Some(cut_over), false) = (self.cut_over_at, matches!(self.phase, Phase::CuttingOver { .. })) {
            self.rule.begin(cut_over.shifted(skew_ms));
            self.begin_controls(cut_over.shifted(skew_ms));
        }
    }

    pub(super) fn take_clock(&mut self, clock: SourceClock, turn: &mut Turn<'_>) {
        if !self.met_clock {
            self.met_clock = true;
            self.meet_clock(clock.skew_ms);
        }
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
    pub(super) fn is_long(&self, now: Timestamp) -> bool {
        let policy = &self.service.policy;
        !policy.long.is_zero() && self.stage_began().is_some_and(|at| now >= at + policy.soak)
    }
}
