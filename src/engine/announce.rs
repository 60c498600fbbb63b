//! What an announcement means: a new watch, a repeat, somebody's rollback, our own hand, or a mistake.

use super::brakes::Book;
use super::ladder::Course;
use super::message::{Answer, Command, CommandId};
use super::watch::{Phase, Turn, Watch};
use super::{Echo, Engine, Live, REMEMBERED_PER_SERVICE};
use crate::domain::baseline::Baseline;
use crate::domain::notice::NoticeReason;
use crate::domain::service::{Service, Slots};
use crate::domain::switch::{Announcement, FlagName, Kind, Lane, ServiceName, Slot, SwitchId};
use crate::domain::time::{Span, Timestamp};
use crate::domain::verdict::Outcome;
use crate::planted::{self, Bug};

/// A repeat without an id within this time is the same switch.
const REPEAT_WITHIN: Span = Span::from_mins(5);

/// The deploy tool's hook after our rollback comes within this time.
const OWN_HAND_WITHIN: Span = Span::from_mins(10);

/// Open watches at most: each costs memory and readings.
const OPEN_MAX: usize = 10_000;

impl Engine {
    pub(super) fn announced(&mut self, now: Timestamp, a: &Announcement, commands: &mut Vec<Command>) -> Answer {
        let answer = self.meaning(now, a, commands);
        // What a watch of another event answered for as well.
        let taken_for = match &answer {
            Answer::Known { switch } => a.event_id.is_some() && !self.was_announced_as(switch, a),
            Answer::OwnHand { .. } | Answer::Reverted { .. } | Answer::Stepped { .. } => true,
            _ => false,
        };
        if taken_for {
            let echoes = &mut self.memory.entry(a.lane()).or_default().echoes;
            if !echoes.iter().any(|echo| echo.announcement == *a) {
                echoes.push_back(Echo { at: now, announcement: a.clone(), answer: answer.clone() });
            }
            if echoes.len() > REMEMBERED_PER_SERVICE {
                echoes.pop_front();
            }
        }
        answer
    }

    /// Why what flipback knows of the traffic speaks against it.
    fn contradicts_live(&self, a: &Announcement) -> Option<String> {
        let live = self.memory.get(&a.lane())?.live.as_ref()?;
        // What a detector saw may be this very switch, made before flipback looked for the first time.
        let made = live.watch.is_none() && live.slot == a.new;
        if live.slot == a.old || made || a.assume_old {
            return None;
        }
        let from = live.watch.as_ref().map_or("seen by its detector".to_owned(), |id| format!("watch {id}"));
        Some(format!(
            "{} is on {} as far as flipback knows ({from}), not on {}; if it was moved without an announcement, announce again with assume_old (--assume-old)",
            a.lane(),
            live.slot,
            a.old
        ))
    }

    /// The service as this switch is to be watched, and for a flag the slot that is read for it.
    pub(super) fn to_watch(&self, service: Service, a: &Announcement) -> Result<(Service, Option<Slot>), Answer> {
        let Kind::Flag(flag) = &a.kind else { return Ok((service, None)) };
        let plan = service.flags.get(flag).cloned().unwrap_or_default();
        let lane = Lane::traffic(&a.service);
        let open = self.watches.values().find(|w| w.announcement.lane() == lane).map(|w| &w.announcement.new);
        let only = match &service.slots {
            Slots::Named(named) if named.len() == 1 => named.keys().next(),
            Slots::Named(_) | Slots::Versions => None,
        };
        let serves = open.or_else(|| self.live_slot(&a.service)).or(only).cloned();
        if serves.is_none() && service.metrics.by_slot() {
            let text = format!(
                "which slot of {} has the traffic is not known yet: its first switch tells, or a detector ([[service.detect]])",
                a.service
            );
            return Err(Answer::Refused { field: "service".into(), text });
        }
        Ok((Service { plan, ..service }, serves))
    }

    /// What a repeat says more than the first word of a switch is taken into its watch.
    fn adopt(&mut self, now: Timestamp, switch: &SwitchId, a: &Announcement, commands: &mut Vec<Command>) {
        self.with(now, &CommandId { switch: switch.clone(), n: 0 }, commands, |watch, turn| watch.adopt(a, turn));
    }

    fn was_announced_as(&self, switch: &SwitchId, a: &Announcement) -> bool {
        let open = self.watches.get(switch).map(|w| &w.announcement);
        let past = self.memory.get(&a.lane()).and_then(|m| m.past.iter().find(|p| p.switch == *switch));
        open.or(past.map(|p| &p.announcement)).is_some_and(|known| known.event_id == a.event_id)
    }

    fn meaning(&mut self, now: Timestamp, a: &Announcement, commands: &mut Vec<Command>) -> Answer {
        let Some(service) = self.services.get(&a.service).cloned() else {
            return Answer::NotFound { text: self.no_service(&a.service) };
        };
        let fits = match &a.kind {
            Kind::Traffic => fits_slots(&service, a),
            Kind::Flag(flag) => fits_flags(&service, flag, a),
        };
        if let Err(refused) = fits {
            return refused;
        }
        if let Some(answer) = self.known_event(now, a).filter(|_| !planted::has(Bug::ForgetEvents)) {
            if let Answer::Known { switch } = &answer {
                self.adopt(now, switch, a, commands);
            }
            return answer;
        }
        let (service, serves) = match self.to_watch(service, a) {
            Ok(found) => found,
            Err(refused) => return refused,
        };
        if let Some(answer) = self.meets_drill(now, a, commands) {
            return answer;
        }
        let open = self.watches.values().find(|w| w.is_open() && w.announcement.lane() == a.lane());
        let open = open.map(|w| w.id.clone());
        let (inherited, target) = match open {
            None => {
                if let Some(answer) = self.own_hand_in_past(now, a) {
                    return answer;
                }
                if let Some(text) = self.contradicts_live(a) {
                    return Answer::Conflict { text };
                }
                (None, way_back(a))
            }
            Some(id) => match self.meet_open(now, &id, a, commands) {
                Met::Answer(answer) => return answer,
                Met::Superseded { baseline, target } => (baseline.map(|b| *b), target),
            },
        };
        if self.space_low {
            return Answer::NoRoom {
                text: "the journal's disk is nearly full: nothing new is watched until there is room".into(),
            };
        }
        if self.watches.len() >= OPEN_MAX {
            return Answer::Conflict { text: format!("{OPEN_MAX} watches are open already") };
        }
        let id = match self.new_id(&a.service) {
            Ok(id) => id,
            Err(text) => return Answer::Refused { field: "service".into(), text },
        };
        let armed = self.is_armed(&a.service);
        let quarantine = self.brakes.quarantine(now, a);
        let mut turn = Turn { now, armed, brakes: &mut self.brakes, commands };
        let mut watch = Watch::open(id.clone(), a.clone(), service, serves, target, inherited, &mut turn);
        if let Some(why) = quarantine {
            watch.record(now, "quarantined", why);
            watch.notify(NoticeReason::Quarantined, &mut turn);
        }
        for name in &watch.service.controls.clone() {
            let mut turn = Turn { now, armed, brakes: &mut Book::default(), commands };
            match self.control(name) {
                Ok((neighbour, slots)) => {
                    slots.into_iter().for_each(|slot| watch.add_neighbour(neighbour, slot, &mut turn));
                }
                Err(why) => watch.record(now, "control", format!("{name} is no control: {why}")),
            }
        }
        for (other, watch) in &mut self.watches {
            if watch.drop_neighbour(&a.service, now) {
                self.touched.insert(other.clone());
            }
        }
        // What was looked after until now is this switch's to move.
        self.guards.retain(|_, guard| guard.lane() != a.lane());
        self.touched.insert(id.clone());
        self.watches.insert(id.clone(), watch);
        Answer::Accepted { switch: id }
    }

    /// A neighbour and where it is to be looked at, or why it cannot be a control now.
    fn control(&self, name: &ServiceName) -> Result<(&Service, Vec<Slot>), String> {
        let service = self.services.get(name).ok_or("it is in no configuration any more")?;
        if self.watches.values().any(|w| w.is_open() && w.service.name == *name) {
            return Err("it is being switched itself".into());
        }
        Ok((service, super::control::slots_of(service, self.live_slot(name))?))
    }

    /// The original answer for an event that was taken before.
    fn known_event(&self, now: Timestamp, a: &Announcement) -> Option<Answer> {
        let open = self
            .watches
            .values()
            .filter(|w| w.announcement.lane() == a.lane())
            .map(|w| (&w.id, &w.announcement, w.opened_at, true));
        let past = self
            .memory
            .get(&a.lane())
            .into_iter()
            .flat_map(|m| &m.past)
            .map(|p| (&p.switch, &p.announcement, p.announced_at, false));
        let echoes = self.memory.get(&a.lane()).into_iter().flat_map(|m| &m.echoes);
        for echo in echoes {
            let known = &echo.announcement;
            let by_id = a.event_id.is_some() && known.event_id == a.event_id;
            let by_likeness = a.event_id.is_none() && known.event_id.is_none() && now.since(echo.at) < REPEAT_WITHIN;
            match (by_id, same_switch(known, a)) {
                (true, false) => return Some(used_for_another(a, echo.answer.switch())),
                (_, true) if by_id || by_likeness => return Some(echo.answer.clone()),
                _ => {}
            }
        }
        let all: Vec<_> = open.chain(past).collect();
        // An id says more than likeness: first whoever was given it.
        for (id, known, ..) in &all {
            let same = same_switch(known, a);
            if a.event_id.is_some() && known.event_id == a.event_id {
                return Some(if same {
                    Answer::Known { switch: (*id).clone() }
                } else {
                    used_for_another(a, Some(id))
                });
            }
        }
        for (id, known, at, is_open) in all {
            let same = same_switch(known, a);
            let no_ids = a.event_id.is_none() || known.event_id.is_none();
            // A repeat is of the switch under way or of the last one; a switch that was undone since
            // and is tried again is a new one.
            let fresh = now.since(at) < REPEAT_WITHIN && (is_open || self.is_last(a, id));
            let fresh = fresh || (is_open && (known.detected || a.detected));
            if no_ids && (same || told_after(known, a)) && fresh {
                return Some(Answer::Known { switch: id.clone() });
            }
        }
        None
    }

    fn is_last(&self, a: &Announcement, id: &SwitchId) -> bool {
        let Some(memory) = self.memory.get(&a.lane()) else { return false };
        // With a newer switch under way the same words mean that somebody went back.
        let newer = self.watches.values().any(|w| w.announcement.lane() == a.lane());
        !newer
            && memory.past.back().is_some_and(|p| {
                p.switch == *id
                    && matches!(p.outcome, Outcome::Passed { .. } | Outcome::Withheld { .. } | Outcome::Unjudged { .. })
            })
    }

    fn own_hand_in_past(&self, now: Timestamp, a: &Announcement) -> Option<Answer> {
        let past = self.memory.get(&a.lane())?.past.back()?;
        let rolled_back = matches!(
            past.outcome,
            Outcome::RolledBackRecovered
                | Outcome::RolledBackNotRecovered
                | Outcome::RolledBackUnseen
                | Outcome::RollbackFailed { .. }
        );
        let recent = now.since(past.ended_at) < OWN_HAND_WITHIN;
        (rolled_back && recent && swaps(&past.announcement, a)).then(|| Answer::OwnHand { switch: past.switch.clone() })
    }

    fn meet_open(&mut self, now: Timestamp, id: &SwitchId, a: &Announcement, commands: &mut Vec<Command>) -> Met {
        let Some(watch) = self.watches.get(id) else {
            return Met::Superseded { baseline: None, target: Ok(a.old.clone()) };
        };
        let (first_old, first_new) = (watch.announcement.old.clone(), watch.announcement.new.clone());
        let acting = matches!(watch.phase, Phase::RollingBack(_) | Phase::Recovering(_));
        let concluding = matches!(&watch.phase, Phase::RollingBack(r) if r.course == Course::After);
        if concluding {
            // Its last steps may be taking the old slot away at this very moment.
            let text = format!("{id} has passed, and its last steps run; announce after it has ended");
            return Met::Answer(Answer::Conflict { text });
        }
        if acting && swaps(&watch.announcement, a) {
            return Met::Answer(Answer::OwnHand { switch: id.clone() });
        }
        if !acting && self.is_reverse(&watch.announcement, a) {
            self.end_open(now, id, commands, |watch, turn| {
                let why = format!("reverted: {} announced {} → {}", a.source, a.old, a.new);
                watch.end(Outcome::Cancelled { why }, NoticeReason::Cancelled, turn);
            });
            let live = Live { slot: a.new.clone(), watch: Some(id.clone()) };
            self.memory.entry(a.lane()).or_default().live = Some(live);
            return Met::Answer(Answer::Reverted { switch: id.clone() });
        }
        if acting {
            return Met::Answer(Answer::Conflict {
                text: format!("{id} is being rolled back to {first_old}; announce after it has ended"),
            });
        }
        if steps(&watch.announcement, a) && watch.share() == a.share() {
            // The same once more, late or with another id: nothing moved, and nothing begins anew.
            self.adopt(now, id, a, commands);
            return Met::Answer(Answer::Known { switch: id.clone() });
        }
        if steps(&watch.announcement, a) {
            self.with(now, &CommandId { switch: id.clone(), n: 0 }, commands, |watch, turn| watch.ramp(a, turn));
            return Met::Answer(Answer::Stepped { switch: id.clone() });
        }
        if a.old != first_new {
            return Met::Answer(Answer::Conflict {
                text: format!("{} is on {first_new} (watch {id} is open), not on {}", a.service, a.old),
            });
        }
        let Some(watch) = self.watches.get(id) else {
            return Met::Superseded { baseline: None, target: Ok(a.old.clone()) };
        };
        // Once B's fast phase was good, B is the normal and the way back. Before that C is judged by A's
        // baseline and goes back to A, where A still is.
        let baseline = if watch.fast_passed { None } else { watch.baseline().cloned().map(Box::new) };
        let target = match &watch.target {
            _ if watch.fast_passed => Ok(first_new.clone()),
            Err(why) => Err(why.clone()),
            Ok(back) if *back == a.new => {
                Err(format!("{back} was overwritten by this release, and {first_new} had not passed its soak"))
            }
            Ok(back) if watch.old_alive.good_now() == Some(false) => {
                Err(format!("{back} is not alive, and {first_new} had not passed its soak"))
            }
            Ok(back) => Ok(back.clone()),
        };
        if planted::has(Bug::KeepSuperseded) {
            return Met::Superseded { baseline, target };
        }
        self.end_open(now, id, commands, |watch, turn| {
            let text = format!("by {} → {}", a.old, a.new);
            watch.record(turn.now, "superseded", text);
            watch.end(Outcome::Superseded, NoticeReason::Superseded, turn);
        });
        Met::Superseded { baseline, target }
    }

    /// Back where it came from. A version that is named must be the one that was there before: a new
    /// release put into the old slot is not a way back, and must be watched.
    fn is_reverse(&self, first: &Announcement, second: &Announcement) -> bool {
        let Some(version) = &second.version else { return swaps(first, second) };
        let before = first.old_version.as_ref().or_else(|| {
            let past = self.memory.get(&first.lane())?.past.iter().rev();
            past.map(|p| &p.announcement).find(|a| a.new == first.old)?.version.as_ref()
        });
        swaps(first, second) && before == Some(version)
    }

    fn end_open(
        &mut self,
        now: Timestamp,
        id: &SwitchId,
        commands: &mut Vec<Command>,
        act: impl FnOnce(&mut Watch, &mut Turn<'_>),
    ) {
        self.with(now, &CommandId { switch: id.clone(), n: 0 }, commands, act);
        self.bury(now);
    }
}

enum Met {
    Answer(Answer),
    Superseded { baseline: Option<Box<Baseline>>, target: Result<Slot, String> },
}

fn used_for_another(a: &Announcement, id: Option<&SwitchId>) -> Answer {
    let event = a.event_id.as_ref().map_or("", |e| e.as_str());
    let id = id.map_or("", |id| id.as_str());
    Answer::Conflict { text: format!("event id {event} was used for another switch ({id})") }
}

/// Same lane, slots, version and share. An id of its own does not make it another switch.
fn same_switch(a: &Announcement, b: &Announcement) -> bool {
    a.lane() == b.lane() && a.old == b.old && a.new == b.new && a.version == b.version && a.share() == b.share()
}

/// A switch that a detector saw, announced afterwards with more to say (or the other way round).
fn told_after(known: &Announcement, a: &Announcement) -> bool {
    let versions = known.version.is_none() || a.version.is_none() || known.version == a.version;
    (known.detected || a.detected)
        && known.lane() == a.lane()
        && (&known.old, &known.new) == (&a.old, &a.new)
        && versions
        && known.share() == a.share()
}

/// Another share of the same release's traffic.
fn steps(open: &Announcement, a: &Announcement) -> bool {
    let versions = a.version.is_none() || open.version.is_none() || open.version == a.version;
    (&open.old, &open.new) == (&a.old, &a.new) && open.old != open.new && versions
}

/// Where a rollback of it goes.
fn way_back(a: &Announcement) -> Result<Slot, String> {
    if a.old == a.new {
        return Err(format!("in place: {} is overwritten, there is no other slot to go back to", a.old));
    }
    Ok(a.old.clone())
}

fn fits_slots(service: &Service, a: &Announcement) -> Result<(), Answer> {
    for (field, slot) in [("old", &a.old), ("new", &a.new)] {
        if !service.slots.knows(slot) {
            let text = match &service.slots {
                Slots::Named(named) => {
                    let known: Vec<_> = named.keys().map(Slot::as_str).collect();
                    format!("{} has no slot {slot}; its slots are {}", a.service, known.join(", "))
                }
                Slots::Versions => format!("{} has no slot {slot}", a.service),
            };
            return Err(Answer::Refused { field: field.into(), text });
        }
    }
    if a.old == a.new && (a.version.is_none() || a.version == a.old_version) {
        let text = "old and new are the same slot: an in-place release needs a new version".into();
        return Err(Answer::Refused { field: "version".into(), text });
    }
    Ok(())
}

fn fits_flags(service: &Service, flag: &FlagName, a: &Announcement) -> Result<(), Answer> {
    if !service.flags.contains_key(flag) {
        let known: Vec<_> = service.flags.keys().map(FlagName::as_str).collect();
        let known = if known.is_empty() { "none".to_owned() } else { known.join(", ") };
        let text = format!("{} has no flag {flag} in the configuration; known: {known}", a.service);
        return Err(Answer::Refused { field: "flag".into(), text });
    }
    if a.old == a.new {
        let text = format!("old and new are the same variation of {flag}");
        return Err(Answer::Refused { field: "new".into(), text });
    }
    Ok(())
}

/// The slots are each other's. After flipback moved the traffic back nobody switches away from the
/// bad slot: such an announcement is the deploy tool's echo of our own hand, whatever version it names.
fn swaps(first: &Announcement, second: &Announcement) -> bool {
    first.old == second.new && first.new == second.old && first.old != first.new
}
