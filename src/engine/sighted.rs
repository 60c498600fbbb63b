//! What was noticed without an announcement: a detector sees where the traffic is, an outside judge calls a
//! service bad. Detectors tell states; what is a switch is decided here, against what is known already.

use super::message::{Answer, Command, CommandId};
use super::watch::{Phase, Turn, Watch};
use super::{Engine, Live};
use crate::domain::service::Slots;
use crate::domain::signal::Signal;
use crate::domain::switch::{Alert, Announcement, Lane, Percent, ServiceName, Sighting, Slot, SwitchId, Version};
use crate::domain::time::Timestamp;
use crate::domain::verdict::{Evidence, SignalState};

/// Shares that differ by less are the same: weights are whole numbers, and rates are rounded.
const SHARE_NOISE: f64 = 0.01;

/// Detectors of one service at most: each has a name in the configuration.
const DETECTORS_MAX: usize = 16;

impl Engine {
    pub(super) fn sighted(
        &mut self,
        now: Timestamp,
        service: &ServiceName,
        by: &str,
        seen: &Sighting,
        commands: &mut Vec<Command>,
    ) {
        let before = self.memory.get(&Lane::traffic(service)).and_then(|memory| memory.sighted.get(by)).cloned();
        self.seen(now, service, by, seen, before.as_ref(), commands);
    }

    /// `before`: what this detector saw before. What it goes on seeing (after a restart, a reload) tells nothing new:
    /// one that lags behind must not undo what was announced.
    fn seen(
        &mut self,
        now: Timestamp,
        service: &ServiceName,
        by: &str,
        seen: &Sighting,
        before: Option<&Sighting>,
        commands: &mut Vec<Command>,
    ) {
        let Some(known) = self.services.get(service) else { return };
        // A detector's own configuration names slots; what it cannot mean is not seen.
        let seen = Sighting {
            shares: seen
                .shares
                .iter()
                .filter(|(slot, _)| known.slots.knows(slot))
                .map(|(s, p)| (s.clone(), *p))
                .collect(),
            version: seen.version.clone(),
        };
        let versions = matches!(known.slots, Slots::Versions);
        let lane = Lane::traffic(service);
        let memory = self.memory.entry(lane.clone()).or_default();
        if memory.sighted.len() < DETECTORS_MAX || memory.sighted.contains_key(by) {
            memory.sighted.insert(by.to_owned(), seen.clone());
        }
        if self.seen_of_drill(now, &lane) {
            return; // our own hand, on its way home
        }
        if let Some(open) = self.watches.values().find(|w| w.is_open() && w.announcement.lane() == lane) {
            let id = open.id.clone();
            return self.sighted_in_open(now, &id, by, &seen, before, commands);
        }
        let Some(live) = self.live_slot(service).cloned() else {
            // The first look of all: whatever was switched before it is over.
            if let Some(slot) = seen.most().cloned() {
                self.memory.entry(lane.clone()).or_default().live = Some(Live { slot, watch: None });
            }
            self.note_version(&lane, &seen);
            return;
        };
        if before == Some(&seen) {
            return;
        }
        let (to, share) = match target_of(&seen, &live) {
            Some(found) => found,
            None => {
                let was = self.note_version(&lane, &seen);
                // In place: the slot stays, its version is another.
                let (Some(old_version), Some(version), false) = (was, seen.version.clone(), versions) else { return };
                if old_version != version {
                    let source = format!("detector {by}");
                    let place = Announcement::of(service.clone(), live.clone(), live, source);
                    let (old_version, version) = (Some(old_version), Some(version));
                    self.detected(now, Announcement { old_version, version, ..place }, commands);
                }
                return;
            }
        };
        self.note_version(&lane, &seen);
        let found = Announcement::of(service.clone(), live, to, format!("detector {by}"));
        self.detected(now, Announcement { share_percent: share, version: seen.version, ..found }, commands);
    }

    /// There is room again: what was seen meanwhile, and could not be watched, is a switch now.
    pub(super) fn look_again(&mut self, now: Timestamp, commands: &mut Vec<Command>) {
        let services: Vec<ServiceName> = self.services.keys().cloned().collect();
        for service in services {
            let seen = self.memory.get(&Lane::traffic(&service)).map(|m| m.sighted.clone()).unwrap_or_default();
            seen.iter().for_each(|(by, seen)| self.seen(now, &service, by, seen, None, commands));
        }
    }

    /// A switch that nobody announced takes the way of any other.
    fn detected(&mut self, now: Timestamp, found: Announcement, commands: &mut Vec<Command>) {
        let lane = found.lane();
        let to = found.new.clone();
        let answer = self.announced(now, &Announcement { detected: true, assume_old: true, ..found }, commands);
        if let Answer::OwnHand { .. } | Answer::Reverted { .. } = answer {
            // No watch will end and tell where the traffic is.
            let watch = answer.switch().cloned();
            self.memory.entry(lane).or_default().live = Some(Live { slot: to, watch });
        }
    }

    fn sighted_in_open(
        &mut self,
        now: Timestamp,
        id: &SwitchId,
        by: &str,
        seen: &Sighting,
        before: Option<&Sighting>,
        commands: &mut Vec<Command>,
    ) {
        let Some(watch) = self.watches.get(id) else { return };
        if matches!(watch.phase, Phase::RollingBack(_) | Phase::Recovering(_)) {
            return; // our own hand; the probes tell how it goes
        }
        let moving = matches!(watch.phase, Phase::CuttingOver { .. });
        if before == Some(seen) && !moving {
            return;
        }
        let a = watch.announcement.clone();
        let of_new = seen.shares.get(&a.new).copied();
        let source = format!("detector {by}");
        let another = seen.shares.keys().find(|slot| **slot != a.new && **slot != a.old).cloned();
        if let Some(third) = another {
            let next = Announcement::of(a.service.clone(), a.new, third.clone(), source);
            let share_percent = seen.shares.get(&third).copied().filter(|p| !p.is_all());
            return self.detected(now, Announcement { share_percent, ..next }, commands);
        }
        match of_new {
            // In place there is nothing but the version to see.
            _ if a.old == a.new => {
                let (Some(version), Some(known)) = (&seen.version, &a.version) else { return };
                if version != known && a.detected {
                    let (old_version, version) = (a.version.clone(), Some(version.clone()));
                    let next = Announcement::of(a.service.clone(), a.new.clone(), a.new, source);
                    self.detected(now, Announcement { old_version, version, ..next }, commands);
                }
            }
            Some(share) => {
                let stepped = (share.fraction() - watch.share().fraction()).abs() >= SHARE_NOISE;
                // On the way to what was announced is no step back: only a detector's own switch follows its looks.
                if stepped && (a.detected || share > watch.share()) {
                    let share_percent = (!share.is_all()).then_some(share);
                    let next = Announcement { share_percent, version: seen.version.clone(), source, ..bare(&a) };
                    return self.with(now, &CommandId { switch: id.clone(), n: 0 }, commands, |watch, turn| {
                        watch.ramp(&next, turn);
                        watch.confirm_by_sight(by, turn);
                    });
                }
                self.with(now, &CommandId { switch: id.clone(), n: 0 }, commands, |watch, turn| {
                    watch.confirm_by_sight(by, turn);
                });
            }
            // Somebody went back, if this detector had seen it there: one that lags has not.
            None if seen.shares.contains_key(&a.old) && before.is_some_and(|b| b.shares.contains_key(&a.new)) => {
                let back = Announcement::of(a.service.clone(), a.new, a.old, source);
                self.detected(now, back, commands);
            }
            None => {}
        }
    }

    /// Remembers the version that is seen; the one before it.
    fn note_version(&mut self, lane: &Lane, seen: &Sighting) -> Option<Version> {
        let memory = self.memory.entry(lane.clone()).or_default();
        let was = memory.version.clone();
        if seen.version.is_some() {
            memory.version.clone_from(&seen.version);
        }
        was
    }

    pub(super) fn accused(
        &mut self,
        now: Timestamp,
        service: &ServiceName,
        by: &str,
        alerts: &[Alert],
        acts: bool,
        commands: &mut Vec<Command>,
    ) -> Answer {
        if !self.services.contains_key(service) {
            return Answer::NotFound { text: self.no_service(service) };
        }
        let open: Vec<SwitchId> =
            self.watches.values().filter(|w| w.is_open() && w.service.name == *service).map(|w| w.id.clone()).collect();
        for id in &open {
            self.with(now, &CommandId { switch: id.clone(), n: 0 }, commands, |watch, turn| {
                alerts.iter().for_each(|alert| watch.accuse(by, alert, acts, turn));
            });
        }
        let text = match open.as_slice() {
            [] => format!("no watch of {service} is open: nothing is done"),
            ids => format!("told to {}", ids.iter().map(SwitchId::as_str).collect::<Vec<_>>().join(", ")),
        };
        Answer::Done { text }
    }
}

/// The slot that traffic went to besides the live one, and its part.
fn target_of(seen: &Sighting, live: &Slot) -> Option<(Slot, Option<Percent>)> {
    let (to, share) = seen.shares.iter().filter(|(slot, _)| *slot != live).max_by_key(|(_, share)| **share)?;
    let all = share.is_all() || !seen.shares.contains_key(live);
    Some((to.clone(), (!all).then_some(*share)))
}

/// The switch itself, without what was said of it.
fn bare(a: &Announcement) -> Announcement {
    Announcement::of(a.service.clone(), a.old.clone(), a.new.clone(), "")
}

impl Watch {
    /// A detector sees the new slot where the announcement said.
    fn confirm_by_sight(&mut self, by: &str, turn: &mut Turn<'_>) {
        if matches!(self.phase, Phase::CuttingOver { .. }) {
            let text = format!("detector {by} sees {} of the traffic on {}", self.share(), self.announcement.new);
            self.confirm(turn.now, &text, turn);
            self.judge(turn);
        }
    }

    /// An alert fires. One that fired before the switch is not the switch's.
    fn accuse(&mut self, by: &str, alert: &Alert, acts: bool, turn: &mut Turn<'_>) {
        let summary = alert.summary.as_deref().map_or(String::new(), |s| format!(": {s}"));
        let said = format!("{} since {}{summary} (from {by})", alert.name, alert.began_at);
        let began = self.cut_over_at.unwrap_or(self.opened_at);
        if alert.began_at < began {
            return self.record(
                turn.now,
                "alert",
                format!("{said}; it fired before the switch and is not held against it"),
            );
        }
        if self.timeline.iter().any(|e| e.kind == "alert" && e.text.starts_with(&said)) {
            return; // Alertmanager repeats itself
        }
        self.record(turn.now, "alert", said.clone());
        if acts && self.accusation.is_none() {
            self.accusation = Some(Evidence {
                signal: Signal::Custom(format!("alert {}", alert.name)),
                value: None,
                baseline: None,
                limit: None,
                ratio: None,
                requests: 0.0,
                bad: 0.0,
                since: Some(alert.began_at),
                ticks_above: 0,
                ticks_needed: 0,
                state: SignalState::Breached,
                remark: Some(said),
                proof: None,
            });
            self.judge(turn);
        }
    }
}
