//! Drills: the way back is practised before it is needed. A dry one tries all that can be tried without moving
//! traffic; a real one goes there and back by the same steps, attempts and probes as a rollback.
//!
//! A drill is no switch: it has a watch's story and journal, but the traffic's memory knows nothing of it.

use std::collections::BTreeMap;

use super::Engine;
use super::ladder::{self, Course};
use super::message::{Answer, Command, CommandId};
use super::rollback::Rollback;
use super::watch::{Drill, Phase, Turn, Watch};
use crate::domain::drill::{Found, Rehearsal, Tried};
use crate::domain::notice::NoticeReason;
use crate::domain::service::{Service, Slots};
use crate::domain::switch::{Announcement, Lane, ServiceName, Slot};
use crate::domain::time::{Span, Timestamp};
use crate::domain::verdict::Outcome;

/// Sixteen steps with their probes at a minute each are done by then; a drill that is not is told as failed.
const REHEARSAL_LIMIT: Span = Span::from_mins(20);

/// Detectors that look rarely may tell of a drill's traffic when it is home again.
const ECHO_WITHIN: Span = Span::from_mins(2);

impl Engine {
    pub(super) fn drill(
        &mut self,
        now: Timestamp,
        name: &ServiceName,
        real: bool,
        said: &str,
        scheduled: bool,
        commands: &mut Vec<Command>,
    ) -> Answer {
        let Some(service) = self.services.get(name).cloned() else {
            return Answer::NotFound { text: self.no_service(name) };
        };
        let (live, other) = match self.drill_way(now, &service, real) {
            Ok(way) => way,
            Err(text) => return Answer::Conflict { text },
        };
        let id = match self.new_id(name) {
            Ok(id) => id,
            Err(text) => return Answer::Conflict { text },
        };
        let announcement = Announcement::of(name.clone(), other.clone(), live.clone(), "drill");
        let mut watch = Watch::new(now, id.clone(), announcement, service, None, Ok(other.clone()));
        watch.drill = Some(Drill { scheduled, knows_live: self.live_slot(name).is_some() });
        let armed = self.is_armed(name);
        let mut turn = Turn { now, armed, brakes: &mut self.brakes, commands };
        let kind = if real { "for real" } else { "dry" };
        watch.record(now, "drill", format!("{kind}, {live} → {other} and home, {said}"));
        if real {
            watch.phase = Phase::RollingBack(Rollback::new(Course::DrillThere, false));
            ladder::go_on(&mut watch, 0, &mut turn);
        } else {
            watch.rehearse(&mut turn);
        }
        self.touched.insert(id.clone());
        self.drills.insert(id.clone(), watch);
        if real {
            // What was looked after until now is the drill's to move, and it comes home.
            self.guards.retain(|_, guard| guard.lane() != Lane::traffic(name));
        }
        Answer::Accepted { switch: id }
    }

    /// Every service that has a way back, as far as nothing else is going on there.
    pub(super) fn drill_all(&mut self, now: Timestamp, commands: &mut Vec<Command>) {
        let names: Vec<ServiceName> =
            self.services.values().filter(|s| !s.plan.steps.is_empty()).map(|s| s.name.clone()).collect();
        for name in names {
            // A service that is being watched is practised tomorrow.
            let _refused = self.drill(now, &name, false, "by the schedule", true, commands);
        }
    }

    /// The slot that has the traffic and the one that it would go to, or why there can be no drill now.
    fn drill_way(&self, now: Timestamp, service: &Service, real: bool) -> Result<(Slot, Slot), String> {
        let name = &service.name;
        if service.plan.steps.is_empty() {
            return Err(format!("{name} has no rollback steps: there is nothing to practise"));
        }
        let lane = Lane::traffic(name);
        if let Some(open) = self.watches.values().find(|w| w.announcement.lane() == lane) {
            return Err(format!("{name} is being watched ({}): a drill would be in its way", open.id));
        }
        if let Some(open) = self.drill_of(&lane) {
            return Err(format!("a drill of {name} is under way already ({})", open.id));
        }
        if real && !self.is_armed(name) {
            return Err(format!("{name} is disarmed: flipback arm {name} first"));
        }
        let live = self.live_slot(name).cloned();
        if real && live.is_none() {
            return Err(format!(
                "which slot of {name} has the traffic is not known yet: its first switch tells, or a detector ([[service.detect]])"
            ));
        }
        let before = || {
            let past = self.memory.get(&lane)?.past.back()?;
            let a = &past.announcement;
            [&a.old, &a.new].into_iter().find(|slot| Some(*slot) != live.as_ref()).cloned()
        };
        let (live, other) = match &service.slots {
            Slots::Named(named) => {
                let live = live.clone().or_else(|| named.keys().next().cloned());
                let other = before().filter(|slot| named.contains_key(slot));
                let other = other.or_else(|| named.keys().find(|slot| Some(*slot) != live.as_ref()).cloned());
                (live, other)
            }
            Slots::Versions => (live.clone(), before()),
        };
        match (live, other) {
            (Some(live), Some(other)) => Ok((live, other)),
            _ => Err(format!("{name} has had no switch yet: there is no other slot to practise with (at {now})")),
        }
    }

    pub(super) fn drill_of(&self, lane: &Lane) -> Option<&Watch> {
        self.drills.values().find(|w| w.announcement.lane() == *lane)
    }

    /// A switch comes while a drill is under way. `Some`: it is answered by that.
    pub(super) fn meets_drill(
        &mut self,
        now: Timestamp,
        a: &Announcement,
        commands: &mut Vec<Command>,
    ) -> Option<Answer> {
        let lane = a.lane();
        let drill = self.drill_of(&lane)?;
        let (id, mine) = (drill.id.clone(), drill.announcement.clone());
        if matches!(drill.phase, Phase::Rehearsing { .. }) {
            let why = format!("a switch came: {} → {}", a.old, a.new);
            self.with(now, &CommandId { switch: id, n: 0 }, commands, |watch, turn| {
                watch.end(Outcome::Cancelled { why }, NoticeReason::Cancelled, turn);
            });
            self.bury(now);
            return None;
        }
        let ours = [(&mine.old, &mine.new), (&mine.new, &mine.old)].contains(&(&a.old, &a.new));
        Some(if ours {
            Answer::OwnHand { switch: id }
        } else {
            Answer::Conflict { text: format!("{id} is a drill under way; announce after it has ended") }
        })
    }

    /// Whether what a detector sees may be a drill's doing.
    pub(super) fn seen_of_drill(&self, now: Timestamp, lane: &Lane) -> bool {
        let running = self.drill_of(lane).is_some_and(|w| !matches!(w.phase, Phase::Rehearsing { .. }));
        let lately = self.memory.get(lane).and_then(|m| m.drilled_at).is_some_and(|at| now.since(at) < ECHO_WITHIN);
        running || lately
    }
}

impl Watch {
    /// Has everything tried that can be tried without moving traffic.
    pub(super) fn rehearse(&mut self, turn: &mut Turn<'_>) {
        let id = self.command_id();
        self.phase = Phase::Rehearsing { id: id.clone(), deadline: turn.now + REHEARSAL_LIMIT };
        let health: BTreeMap<_, _> = match &self.service.slots {
            Slots::Named(named) => {
                named.iter().filter_map(|(slot, spec)| Some((slot.clone(), spec.health.clone()?))).collect()
            }
            Slots::Versions => BTreeMap::new(),
        };
        let steps = self.service.plan.steps.iter().map(|step| step.resolve(&ladder::variables(self, step))).collect();
        let ask = Rehearsal {
            service: self.service.name.clone(),
            live: self.drill.is_some_and(|drill| drill.knows_live).then(|| self.announcement.new.clone()),
            to: self.way_back().clone(),
            health,
            steps,
        };
        turn.commands.push(Command::Rehearse { id, ask: Box::new(ask) });
    }

    pub(super) fn on_rehearsed(&mut self, id: &CommandId, tried: &[Tried], turn: &mut Turn<'_>) {
        if !matches!(&self.phase, Phase::Rehearsing { id: asked, .. } if asked == id) {
            return;
        }
        for one in tried {
            let word = match one.found {
                Found::Good => "tried",
                Found::Warning => "tried_warning",
                Found::Broken => "tried_broken",
            };
            self.record(turn.now, word, format!("{}: {} ({})", one.what, one.text, one.took));
        }
        let broken: Vec<String> = tried
            .iter()
            .filter(|one| one.found == Found::Broken)
            .map(|one| format!("{}: {}", one.what, one.text))
            .collect();
        if broken.is_empty() {
            self.end(Outcome::Drilled { dry: true }, NoticeReason::Drilled, turn);
        } else {
            self.end(Outcome::DrillFailed { why: broken.join("; ") }, NoticeReason::DrillFailed, turn);
        }
    }
}
