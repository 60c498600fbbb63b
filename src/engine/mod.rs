//! Verbs: pure and deterministic. Time is an argument; commands are values; nothing here touches the
//! world.

mod announce;
mod asking;
mod brakes;
mod control;
mod drills;
mod guard;
mod holds;
mod intent;
mod ladder;
pub mod message;
mod orders;
mod ramp;
mod readings;
mod rollback;
mod sight;
mod sighted;
mod telling;
#[cfg(test)]
pub(crate) mod timelines;
mod verdicts;
mod view;
mod watch;

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use serde::{Deserialize, Serialize};

use crate::domain::service::Service;
use crate::domain::switch::{Announcement, Lane, ServiceName, Sighting, Slot, SwitchId, Version};
use crate::domain::time::Timestamp;
use crate::domain::verdict::Outcome;
use crate::domain::view::WatchView;
use crate::planted::{self, Bug};
use message::{Answer, Command, CommandId, Input, Job, RecordAsk};
use watch::{Turn, Watch};

/// Ended watches that are remembered per service, to know a repeated announcement and our own hand.
const REMEMBERED_PER_SERVICE: usize = 64;

/// The whole deciding state. It serialises: that is the snapshot.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub struct Engine {
    services: BTreeMap<ServiceName, Service>,
    memory: BTreeMap<Lane, Memory>,
    watches: BTreeMap<SwitchId, Watch>,
    /// Exercises under way: apart, since they are no switches.
    #[serde(default)]
    drills: BTreeMap<SwitchId, Watch>,
    /// Ever given out; an id is never used twice.
    switches: u64,
    /// `disarm` without a service.
    disarmed_all: bool,
    /// The journal's disk is nearly full: nothing new is taken.
    space_low: bool,
    brakes: brakes::Book,
    /// What is looked after since its rollback.
    guards: BTreeMap<SwitchId, guard::Guard>,
    #[serde(skip)]
    touched: BTreeSet<SwitchId>,
    /// Ended in the present turn: their last view is still to be fetched.
    #[serde(skip)]
    ended: Vec<WatchView>,
}

/// What outlives the watches of a lane.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
struct Memory {
    /// Of a service: its flags go with it.
    disarmed: bool,
    /// Where the traffic is, as far as flipback knows.
    live: Option<Live>,
    /// What its detectors saw last, by the detector's name.
    sighted: BTreeMap<String, Sighting>,
    /// The version that a detector saw last.
    version: Option<Version>,
    past: VecDeque<Past>,
    /// When a drill last came home.
    #[serde(default)]
    drilled_at: Option<Timestamp>,
    /// Events that opened no watch of their own: a repeat gets the same answer.
    echoes: VecDeque<Echo>,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
struct Live {
    slot: Slot,
    /// The watch that left it there; `None`: a detector saw it.
    watch: Option<SwitchId>,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
struct Echo {
    at: Timestamp,
    announcement: Announcement,
    answer: Answer,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
struct Past {
    switch: SwitchId,
    announcement: Announcement,
    /// Where a rollback would have gone.
    back_to: Slot,
    announced_at: Timestamp,
    ended_at: Timestamp,
    outcome: Outcome,
}

impl Engine {
    pub fn new() -> Engine {
        Engine::default()
    }

    /// Takes one input at one instant and says what is to be done about it.
    #[must_use = "a command that is dropped is never carried out"]
    pub fn handle(&mut self, now: Timestamp, input: &Input) -> Vec<Command> {
        let mut commands = Vec::new();
        match input {
            Input::Configured { services, brakes } => {
                self.services = services.iter().map(|s| (s.name.clone(), s.clone())).collect();
                self.brakes.set_limits(*brakes);
                if planted::has(Bug::PolicyNotFrozen) {
                    self.watches.values_mut().for_each(|w| {
                        w.service = self.services.get(&w.service.name).unwrap_or(&w.service).clone();
                    });
                }
            }
            Input::Started => {
                // The new process looks at its disk itself.
                self.space_low = false;
                commands.push(self.marks());
                self.each(now, &mut commands, Watch::on_started);
                self.guards.values_mut().for_each(|guard| guard.on_started(now));
            }
            Input::Timer => {
                self.each_due(now, &mut commands);
                self.guard(now, &mut commands);
            }
            Input::Space { low } => {
                self.space_low = *low;
                if !low {
                    self.look_again(now, &mut commands);
                }
            }
            Input::Announced { request, announcement } => {
                let answer = self.announced(now, announcement, &mut commands);
                commands.push(Command::Reply { request: *request, answer });
            }
            Input::Sighted { service, by, seen } => self.sighted(now, service, by, seen, &mut commands),
            Input::Accused { request, service, by, alerts, acts } => {
                let answer = self.accused(now, service, by, alerts, *acts, &mut commands);
                commands.push(Command::Reply { request: *request, answer });
            }
            Input::Held { request, switch, hold, by, why } => {
                let answer = self.held(now, switch, *hold, &said(by, why), &mut commands);
                commands.push(Command::Reply { request: *request, answer });
            }
            Input::DrillAsked { request, service, real, by, why } => {
                let answer = self.drill(now, service, *real, &said(by, why), false, &mut commands);
                commands.push(Command::Reply { request: *request, answer });
            }
            Input::Rehearsed { id, tried } => {
                self.with(now, id, &mut commands, |watch, turn| watch.on_rehearsed(id, tried, turn));
            }
            Input::Answered { request, switch, approve, by, why } => {
                let answer = self.answered(now, switch, *approve, &said(by, why), &mut commands);
                commands.push(Command::Reply { request: *request, answer });
            }
            Input::Armed { request, service, armed, by, why } => {
                let answer = self.arm(now, service.as_ref(), *armed, &said(by, why), &mut commands);
                commands.push(Command::Reply { request: *request, answer });
            }
            Input::Cancelled { request, switch, by, why } => {
                let answer = self.cancel(now, switch, by, why, &mut commands);
                commands.push(Command::Reply { request: *request, answer });
            }
            Input::Ordered { request, switch, by, why } => {
                let answer = self.ordered(now, switch, by, why, &mut commands);
                commands.push(Command::Reply { request: *request, answer });
            }
            Input::BaselineChosen { id, baseline } => {
                self.with(now, id, &mut commands, |watch, turn| watch.on_baseline(id, baseline, turn));
            }
            Input::Observed { id, observation, clock } => {
                self.with(now, id, &mut commands, |watch, turn| watch.on_observed(id, observation, *clock, turn));
            }
            Input::HealthChecked { id, reading } => {
                self.with(now, id, &mut commands, |watch, turn| watch.on_health(id, reading, turn));
            }
            Input::Probed { id, reading } if self.guards.contains_key(&id.switch) => {
                if let Some(guard) = self.guards.get_mut(&id.switch)
                    && guard.on_probed(now, id, reading, &mut commands)
                {
                    self.ended.push(guard.view());
                }
            }
            Input::Probed { id, reading } => {
                self.with(now, id, &mut commands, |watch, turn| watch.on_probed(id, reading, turn));
            }
            Input::StepEnded { attempt, state } => {
                let id = CommandId { switch: attempt.switch.clone(), n: 0 };
                self.with(now, &id, &mut commands, |watch, turn| rollback::on_step_ended(watch, attempt, state, turn));
            }
            Input::Cron { job: Job::RecordBaseline } => {
                let services = self.services.values().map(record_ask).collect();
                commands.push(Command::RecordBaseline { services });
            }
            Input::Cron { job: Job::Prune } => commands.push(Command::Prune),
            Input::Cron { job: Job::Drill } => self.drill_all(now, &mut commands),
        }
        self.bury(now);
        commands
    }

    /// When `Input::Timer` is due next.
    pub fn next_deadline(&self) -> Option<Timestamp> {
        let watches = self.watches.values().chain(self.drills.values()).filter_map(Watch::next_deadline);
        watches.chain(self.guards.values().map(guard::Guard::next_deadline)).min()
    }

    /// Views of the watches that the last inputs touched, ended ones included; fetching them forgets them.
    pub fn take_views(&mut self) -> Vec<WatchView> {
        let touched = std::mem::take(&mut self.touched);
        let mut views = std::mem::take(&mut self.ended);
        views.extend(
            touched.iter().filter_map(|id| self.watches.get(id).or_else(|| self.drills.get(id))).map(Watch::view),
        );
        views
    }

    pub fn open_watches(&self) -> usize {
        self.watches.len()
    }

    /// Nothing is open, and nothing is looked after: no timestamp of the state is waited for.
    pub fn is_idle(&self) -> bool {
        self.watches.is_empty() && self.guards.is_empty() && self.drills.is_empty()
    }

    pub fn services(&self) -> impl Iterator<Item = &Service> {
        self.services.values()
    }

    /// Whether flipback as a whole is armed.
    pub fn is_armed_at_all(&self) -> bool {
        !self.disarmed_all
    }

    pub fn is_armed(&self, service: &ServiceName) -> bool {
        !self.disarmed_all && !self.is_disarmed(service)
    }

    fn is_disarmed(&self, service: &ServiceName) -> bool {
        self.memory.get(&Lane::traffic(service)).is_some_and(|memory| memory.disarmed)
    }

    /// For a planted bug.
    #[cfg(test)]
    pub(crate) fn forget_brakes(&mut self) {
        self.brakes.forget();
    }

    /// Where the service's traffic is, as far as flipback knows.
    pub fn live_slot(&self, service: &ServiceName) -> Option<&Slot> {
        self.memory.get(&Lane::traffic(service))?.live.as_ref().map(|live| &live.slot)
    }

    // ------------------------------------------------------------------ plumbing

    fn with(
        &mut self,
        now: Timestamp,
        id: &CommandId,
        commands: &mut Vec<Command>,
        act: impl FnOnce(&mut Watch, &mut Turn<'_>),
    ) {
        // An answer to a watch that has ended is late: nobody waits for it.
        let Some(watch) = self.watches.get_mut(&id.switch).or_else(|| self.drills.get_mut(&id.switch)) else { return };
        let lane = Lane::traffic(&watch.service.name);
        let armed = !self.disarmed_all && !self.memory.get(&lane).is_some_and(|memory| memory.disarmed);
        let before = watch.shown();
        act(watch, &mut Turn { now, armed, brakes: &mut self.brakes, commands });
        if watch.shown() != before {
            self.touched.insert(id.switch.clone());
        }
    }

    fn each(&mut self, now: Timestamp, commands: &mut Vec<Command>, act: fn(&mut Watch, &mut Turn<'_>)) {
        let ids: Vec<_> = self.watches.keys().chain(self.drills.keys()).cloned().collect();
        for switch in ids {
            self.with(now, &CommandId { switch, n: 0 }, commands, act);
        }
    }

    fn each_due(&mut self, now: Timestamp, commands: &mut Vec<Command>) {
        let due: Vec<_> = self
            .watches
            .iter()
            .chain(&self.drills)
            .filter(|(_, watch)| watch.next_deadline().is_some_and(|at| at <= now))
            .map(|(id, _)| id.clone())
            .collect();
        for switch in due {
            self.with(now, &CommandId { switch, n: 0 }, commands, Watch::on_timer);
        }
    }

    /// The probes of what was rolled back.
    fn guard(&mut self, now: Timestamp, commands: &mut Vec<Command>) {
        let mut over = Vec::new();
        for guard in self.guards.values_mut() {
            if guard.on_timer(now, commands) {
                over.push(guard.id().clone());
            }
        }
        for id in over {
            self.ended.extend(self.guards.remove(&id).map(|guard| guard.view()));
        }
    }

    fn marks(&self) -> Command {
        // Of services that are in the configuration no more as well: a step of theirs may be under way.
        let named = self.memory.iter().filter(|(_, m)| m.disarmed).map(|(lane, _)| lane.to_string());
        let disarmed = named.filter_map(|name| ServiceName::try_new(name).ok()).collect();
        Command::MarkDisarmed { all: self.disarmed_all, services: disarmed }
    }

    /// Takes ended watches out of the open ones and remembers what must outlive them.
    fn bury(&mut self, now: Timestamp) {
        let drilled: Vec<_> = self.drills.iter().filter(|(_, w)| !w.is_open()).map(|(id, _)| id.clone()).collect();
        for id in drilled {
            let Some(drill) = self.drills.remove(&id) else { continue };
            self.touched.remove(&id);
            self.ended.push(drill.view());
            let memory = self.memory.entry(drill.announcement.lane()).or_default();
            if !drill.steps.is_empty() {
                memory.drilled_at = Some(now);
            }
            if !drill.steps.is_empty() && !matches!(drill.ended(), Some((_, Outcome::Drilled { .. }))) {
                // It may be anywhere now: whatever a detector sees next counts.
                memory.live = memory.seen_live();
            }
        }
        let ended: Vec<_> = self.watches.iter().filter(|(_, w)| !w.is_open()).map(|(id, _)| id.clone()).collect();
        for id in ended {
            let Some(watch) = self.watches.remove(&id) else { continue };
            self.touched.remove(&id);
            self.ended.push(watch.view());
            let Some((ended_at, outcome)) = watch.ended().map(|(at, o)| (at, o.clone())) else { continue };
            let share = watch.share();
            let memory = self.memory.entry(watch.announcement.lane()).or_default();
            let old = watch.target.as_ref().unwrap_or(&watch.announcement.old);
            match &outcome {
                Outcome::RolledBackRecovered | Outcome::RolledBackNotRecovered | Outcome::RolledBackUnseen => {
                    memory.live = Some(Live { slot: old.clone(), watch: Some(id.clone()) });
                    if let Some(guard) = guard::Guard::of(&watch, now) {
                        self.guards.insert(id.clone(), guard);
                    }
                }
                Outcome::Healed { .. } => {
                    memory.live = Some(Live { slot: watch.announcement.new.clone(), watch: Some(id.clone()) });
                    if let Some(guard) = guard::Guard::of(&watch, now) {
                        self.guards.insert(id.clone(), guard);
                    }
                }
                Outcome::Passed { .. } | Outcome::Withheld { .. } | Outcome::Unjudged { .. } => {
                    // A ramp that stopped half-way left most of the traffic where it was.
                    let most = if share.fraction() > 0.5 { &watch.announcement.new } else { old };
                    memory.live = Some(Live { slot: most.clone(), watch: Some(id.clone()) });
                }
                // A cancelled watch was reverted (its caller sets where the traffic is) or given up by
                // a person; a failed rollback may be anywhere; an unconfirmed switch as well.
                Outcome::Superseded | Outcome::Drilled { .. } | Outcome::DrillFailed { .. } => {}
                Outcome::Cancelled { .. } => memory.live = memory.seen_live().or(memory.live.take()),
                Outcome::RollbackFailed { .. } | Outcome::Unconfirmed { .. } => memory.live = memory.seen_live(),
            }
            memory.past.push_back(Past {
                switch: id,
                back_to: watch.way_back().clone(),
                announced_at: watch.opened_at,
                announcement: watch.announcement,
                ended_at,
                outcome,
            });
            if memory.past.len() > REMEMBERED_PER_SERVICE {
                memory.past.pop_front();
            }
        }
    }

    fn answered(
        &mut self,
        now: Timestamp,
        switch: &SwitchId,
        approve: bool,
        by: &str,
        commands: &mut Vec<Command>,
    ) -> Answer {
        self.upon(now, switch, commands, |watch, turn| watch.on_answered(approve, by, turn))
    }

    fn arm(
        &mut self,
        now: Timestamp,
        service: Option<&ServiceName>,
        armed: bool,
        by: &str,
        commands: &mut Vec<Command>,
    ) -> Answer {
        let word = if armed { "armed" } else { "disarmed" };
        let what = match service {
            None => {
                self.disarmed_all = !armed;
                "flipback".to_owned()
            }
            Some(name) if self.services.contains_key(name) => {
                self.memory.entry(Lane::traffic(name)).or_default().disarmed = !armed;
                name.to_string()
            }
            Some(name) => return Answer::NotFound { text: self.no_service(name) },
        };
        commands.push(self.marks());
        let text = format!("{what} {word} {by}");
        let open: Vec<_> = self.watches.iter().map(|(id, w)| (id.clone(), w.service.name.clone())).collect();
        for (switch, name) in open {
            if service.is_none_or(|s| *s == name) {
                self.with(now, &CommandId { switch, n: 0 }, commands, |watch, turn| {
                    watch.record(turn.now, word, text.clone());
                });
            }
        }
        let still = match (armed, service) {
            (true, Some(_)) if self.disarmed_all => "; flipback as a whole is still disarmed (flipback arm --all)",
            (true, None) if self.memory.values().any(|m| m.disarmed) => "; some services are still disarmed",
            _ => "",
        };
        Answer::Done { text: format!("{text}{still}") }
    }

    fn cancel(
        &mut self,
        now: Timestamp,
        switch: &SwitchId,
        by: &str,
        why: &str,
        commands: &mut Vec<Command>,
    ) -> Answer {
        self.upon(now, switch, commands, |watch, turn| {
            if watch.drill.is_some() && matches!(watch.phase, watch::Phase::RollingBack(_)) {
                return Err(format!("{switch} moves traffic: it goes home first; disarm stops it where it is"));
            }
            if matches!(watch.phase, watch::Phase::RollingBack(_)) {
                return Err(format!("{switch} is being rolled back: disarm stops it before its next step"));
            }
            if matches!(&watch.phase, watch::Phase::Recovering(recovering) if recovering.healing.is_none()) {
                return Err(format!("{switch} was rolled back already; whether it recovers is known within minutes"));
            }
            let why = said(by, why);
            watch.end(Outcome::Cancelled { why }, crate::domain::notice::NoticeReason::Cancelled, turn);
            Ok(format!("{switch} cancelled; no traffic was moved"))
        })
    }

    /// A person's word upon one open watch or drill: what was done, or why not.
    fn upon(
        &mut self,
        now: Timestamp,
        switch: &SwitchId,
        commands: &mut Vec<Command>,
        act: impl FnOnce(&mut Watch, &mut Turn<'_>) -> Result<String, String>,
    ) -> Answer {
        let mut answer = Answer::NotFound { text: self.no_watch(switch) };
        self.with(now, &CommandId { switch: switch.clone(), n: 0 }, commands, |watch, turn| {
            answer = match act(watch, turn) {
                Ok(text) => Answer::Done { text },
                Err(text) => Answer::Conflict { text },
            };
        });
        answer
    }

    /// An id that was never given out.
    fn new_id(&mut self, service: &ServiceName) -> Result<SwitchId, String> {
        self.switches += 1;
        let id = SwitchId::try_new(format!("{service}-{}", self.switches));
        id.map_err(|_| "the name is too long for a switch id".to_owned())
    }

    fn no_watch(&self, switch: &SwitchId) -> String {
        let past = self.memory.values().flat_map(|m| &m.past).find(|p| p.switch == *switch);
        match past {
            Some(past) => format!("{switch} has ended: {}", past.outcome),
            None => format!("there is no watch {switch}; see flipback status"),
        }
    }

    fn no_service(&self, name: &ServiceName) -> String {
        let known: Vec<_> = self.services.keys().map(ServiceName::as_str).collect();
        format!("there is no service {name} in the configuration; known: {}", known.join(", "))
    }
}

impl Memory {
    /// Where its detectors see the traffic.
    fn seen_live(&self) -> Option<Live> {
        let slot = self.sighted.values().find_map(|seen| seen.most())?;
        Some(Live { slot: slot.clone(), watch: None })
    }
}

/// Who, and why where they said it.
fn said(by: &str, why: &str) -> String {
    if why.is_empty() { format!("by {by}") } else { format!("by {by}: {why}") }
}

fn record_ask(service: &Service) -> RecordAsk {
    RecordAsk { service: service.name.clone(), metrics: service.metrics.clone(), slots: service.slots.specs() }
}
