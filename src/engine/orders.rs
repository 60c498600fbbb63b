//! A person orders a rollback: of an open watch, or of one that ended without moving anything.

use super::Engine;
use super::ladder::Course;
use super::message::{Answer, Command};
use super::rollback;
use super::watch::{Phase, Turn, Watch};
use crate::domain::notice::NoticeReason;
use crate::domain::switch::{Announcement, SwitchId};
use crate::domain::time::Timestamp;
use crate::domain::verdict::Outcome;

impl Engine {
    pub(super) fn ordered(
        &mut self,
        now: Timestamp,
        switch: &SwitchId,
        by: &str,
        why: &str,
        commands: &mut Vec<Command>,
    ) -> Answer {
        let said = super::said(by, why);
        if self.watches.contains_key(switch) {
            return self.order_open(now, switch, &said, commands);
        }
        let found = self.memory.values().find_map(|memory| {
            let past = memory.past.iter().find(|p| p.switch == *switch)?;
            Some((past.clone(), memory.past.back().is_some_and(|last| last.switch == *switch)))
        });
        let Some((past, is_last)) = found else { return Answer::NotFound { text: self.no_watch(switch) } };
        let name = &past.announcement.service;
        let conflict = |text: String| Answer::Conflict { text };
        let Some(service) = self.services.get(name).cloned() else {
            return Answer::NotFound { text: self.no_service(name) };
        };
        let (service, serves) = match self.to_watch(service, &past.announcement) {
            Ok(found) => found,
            Err(refused) => return refused,
        };
        let lane = past.announcement.lane();
        if let Some(open) = self.watches.values().find(|w| w.announcement.lane() == lane) {
            return conflict(format!("{name} was switched again since ({}): order that one back", open.id));
        }
        if !is_last {
            return conflict(format!("{name} was switched again since {switch}: see flipback history"));
        }
        match &past.outcome {
            Outcome::RolledBackRecovered | Outcome::RolledBackNotRecovered | Outcome::RolledBackUnseen => {
                return conflict(format!("{switch} was rolled back already: {}", past.outcome));
            }
            Outcome::Superseded | Outcome::Cancelled { .. } => {
                return conflict(format!("{switch} ended without its traffic being known: {}", past.outcome));
            }
            // No watch that is remembered: drills are not.
            Outcome::Drilled { .. } | Outcome::DrillFailed { .. } => {
                return Answer::NotFound { text: self.no_watch(switch) };
            }
            Outcome::Passed { .. }
            | Outcome::Healed { .. }
            | Outcome::RollbackFailed { .. }
            | Outcome::Withheld { .. }
            | Outcome::Unjudged { .. }
            | Outcome::Unconfirmed { .. } => {}
        }
        if let Some(drill) = self.drill_of(&lane) {
            return conflict(format!(
                "a drill of {name} is under way ({}): order it again when it has ended",
                drill.id
            ));
        }
        if past.announcement.old == past.announcement.new {
            return conflict(format!("{switch} was in place: there is no other slot to go back to"));
        }
        if service.plan.steps.is_empty() {
            return conflict(format!("{name} has no rollback steps: move the traffic by hand"));
        }
        if !self.is_armed(name) {
            return conflict(format!("{name} is disarmed: flipback arm {name} first"));
        }
        let id = match self.new_id(name) {
            Ok(id) => id,
            Err(text) => return conflict(text),
        };
        let announcement =
            Announcement { event_id: None, source: format!("order over {switch}"), ..past.announcement.clone() };
        let mut turn = Turn { now, armed: true, brakes: &mut self.brakes, commands };
        let back_to = Ok(past.back_to.clone());
        let mut watch = Watch::open(id.clone(), announcement, service, serves, back_to, None, &mut turn);
        start(&mut watch, &format!("{said}, over {switch} ({})", past.outcome), &mut turn);
        self.guards.retain(|_, guard| guard.lane() != lane);
        self.touched.insert(id.clone());
        self.watches.insert(id.clone(), watch);
        Answer::Done { text: format!("{id}: rolling back {name} to {}, over {switch}", past.back_to) }
    }

    fn order_open(&mut self, now: Timestamp, switch: &SwitchId, said: &str, commands: &mut Vec<Command>) -> Answer {
        self.upon(now, switch, commands, |watch, turn| {
            let name = &watch.service.name;
            let refusal = match (&watch.phase, &watch.target) {
                (Phase::Recovering(recovering), Ok(_)) if recovering.healing.is_some() && turn.armed => None,
                (Phase::RollingBack(rollback), _) if rollback.course == Course::After => {
                    Some(format!("{switch} has passed, and its last steps run; order it when it has ended"))
                }
                (Phase::RollingBack(_) | Phase::Recovering(_) | Phase::Rehearsing { .. }, _) => {
                    Some(format!("{switch} is being rolled back already"))
                }
                (Phase::Ended { outcome, .. }, _) => Some(format!("{switch} has ended: {outcome}")),
                (_, Err(why)) => Some(format!("there is no way back for {switch}: {why}")),
                _ if watch.service.plan.steps.is_empty() => {
                    Some(format!("{name} has no rollback steps: move the traffic by hand"))
                }
                _ if !turn.armed => Some(format!("{name} is disarmed: flipback arm {name} first")),
                (Phase::CuttingOver { .. } | Phase::Soaking { .. } | Phase::Asking { .. }, Ok(_)) => None,
            };
            match refusal {
                Some(text) => Err(text),
                None => {
                    start(watch, said, turn);
                    Ok(format!("{switch}: rolling back to {}", watch.way_back()))
                }
            }
        })
    }
}

fn start(watch: &mut Watch, said: &str, turn: &mut Turn<'_>) {
    watch.record(turn.now, "ordered", said.to_owned());
    rollback::start(watch, NoticeReason::OrderedActing, turn);
}
