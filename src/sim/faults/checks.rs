//! The promises, by number, as they can be checked from outside.

use super::BEGAN;
use super::model;
use super::plan::{MINUTE, SECOND};
use super::world::World;
use crate::domain::notice::NoticeReason;
use crate::domain::plan::AttemptId;
use crate::domain::policy::Mode;
use crate::domain::switch::{Announcement, SwitchId};
use crate::domain::time::Span;
use crate::domain::verdict::Outcome;
use crate::domain::view::PhaseWord;

/// Blindness is told within two minutes; a look of ours comes so much later.
const BLIND_LIMIT: u64 = 2 * MINUTE + 20 * SECOND;

/// A preflight's answers are this old at most when the step runs.
const FRESH: u64 = 40 * SECOND;

impl World {
    /// A caller was told that its event is taken.
    pub fn acknowledge(&mut self, a: &Announcement, switch: &SwitchId, opened: bool) {
        let Some(id) = a.event_id.clone() else { return };
        if let Some(known) = self.acknowledged.get(&id).filter(|known| *known != switch) {
            let what = format!("event {id} was given {known}, and now {switch}");
            return self.violated(2, what);
        }
        if opened && self.acknowledged.contains_key(&id) {
            return self.violated(2, format!("event {id} opened a watch twice"));
        }
        self.acknowledged.insert(id, switch.clone());
    }

    /// After each commit: what became durable.
    pub fn committed(&mut self) {
        for key in std::mem::take(&mut self.store.noticed) {
            let reason = self.store.outbox.get(&key).map_or("", |row| row.notice.reason.word());
            self.tell(|| format!("notice {key}: {reason}"));
            self.notices_at.entry(key).or_insert(self.now);
        }
        for id in std::mem::take(&mut self.store.changed) {
            self.check_view(&id);
        }
    }

    fn check_view(&mut self, id: &SwitchId) {
        let Some(view) = self.store.views.get(id).cloned() else { return };
        let now = self.now;
        let site = self.site_of(&view.switch.service).unwrap_or(0);
        let current = format!("e{site}-{}", self.sites[site].release);
        let old_news = view.switch.event_id.as_ref().is_some_and(|e| e.as_str() != current);
        let disturbed = self.sites[site].is_disturbed()
            || self.store.full
            || self.wall_ms != 0
            || old_news
            || *self.sites[site].truth.routed() != view.switch.new;
        let facts = self.facts.entry(id.clone()).or_default();
        if facts.soak.is_zero() {
            (facts.site, facts.soak, facts.opened, facts.last_sight) = (site, view.soak, now, now);
            facts.disturbed |= disturbed;
            let told = view.switch.switched_at.map_or(now, |at| at.since(BEGAN).as_millis());
            facts.bad_from = now.min(told).saturating_sub(6 * MINUTE);
        }
        let (soak, first_end) = (facts.soak, view.outcome.is_some() && facts.ended.is_none());
        if first_end {
            facts.ended = Some(now);
            facts.superseded |= view.outcome == Some(Outcome::Superseded);
        }
        let just_proven = view.recovery.is_some() && !std::mem::replace(&mut facts.proven, view.recovery.is_some());
        facts.ordered |= view.timeline.iter().any(|e| e.kind == "ordered");
        // The proof was a reading: the traffic was on the old slot a moment ago.
        if just_proven && !self.sites[site].truth.ever_routed(&view.back_to, now.saturating_sub(10 * SECOND)) {
            return self.violated(1, format!("{id} counts as moved, and the traffic was not on {}", view.back_to));
        }
        if view.soak != soak {
            return self.violated(13, format!("{id}: the soak was {soak} and is {} now", view.soak));
        }
        if view.outcome.is_none() {
            let name = &view.switch.service;
            let open = self.store.views.values().filter(|v| v.outcome.is_none() && v.switch.service == *name);
            let open: Vec<&str> = open.map(|v| v.id.as_str()).collect();
            if open.len() > 1 {
                let what = format!("{name} has two open watches: {open:?}");
                return self.violated(9, what);
            }
        }
        if first_end {
            self.check_ended(id);
        }
    }

    fn check_ended(&mut self, id: &SwitchId) {
        let (Some(view), Some(facts)) = (self.store.views.get(id).cloned(), self.facts.get(id).cloned()) else {
            return;
        };
        let Some(outcome) = &view.outcome else { return };
        if let Outcome::Passed { by_checks_only } = outcome {
            // Promise 6: from what was really read, not from the time that passed.
            let planned = view.soak.as_millis();
            let seen = facts.covered_ms as f64 / planned.max(1) as f64;
            let slack = (2 * view.tick.as_millis() + 3000) as f64 / planned.max(1) as f64;
            if seen + slack < 0.9 {
                let what = format!("{id} passed with {:.0} % of its soak seen, tick {}", seen * 100.0, view.tick);
                return self.violated(6, what);
            }
            if *by_checks_only && facts.good_checks < 20 || !*by_checks_only && facts.requests < 1.0 {
                return self.violated(6, format!("{id} passed without requests or checks"));
            }
        }
        if let Err(what) = model::check(self, &view, &facts) {
            self.tell(|| format!("{:#?}", (&view.breach, &view.evidence, &view.timeline)));
            self.violated(0, what);
        }
    }

    /// A step begins to run.
    pub fn check_run(&mut self, attempt: &AttemptId) {
        let Some(dir) = self.files.dirs.get(attempt).cloned() else { return };
        let now = self.now;
        if dir.runs > 1 {
            return self.violated(1, format!("{attempt} ran {} times", dir.runs));
        }
        let Some(view) = self.store.views.get(&attempt.switch).cloned() else {
            return self.violated(1, format!("{attempt} runs, and no watch of that name is on disk"));
        };
        let intended = view.steps.iter().any(|s| s.attempt == *attempt);
        if !intended {
            return self.violated(1, format!("{attempt} runs, and its intent is not on disk"));
        }
        let told = view.steps.iter().find(|s| s.attempt == *attempt).and_then(|s| s.result.clone());
        if let Some(state) = told {
            return self.violated(1, format!("{attempt} runs, after it was taken for {state:?}"));
        }
        if self.wall() > dir.start_by {
            return self.violated(7, format!("{attempt} runs after {}: its preflight is out of date", dir.start_by));
        }
        let Some(i) = self.site_of(&dir.service) else { return };
        // Promise 1: no second attempt while the first may run, nor without a look that shows "not applied".
        let earlier: Vec<_> = self
            .files
            .dirs
            .iter()
            .filter(|(id, _)| id.switch == attempt.switch && id.step == attempt.step && id.attempt < attempt.attempt)
            .filter_map(|(id, d)| Some((id.clone(), d.marks.locked, d.started_at?, d.ended_at)))
            .collect();
        let shown = self.heard[i].shown.get(&view.switch.new).copied();
        for (id, locked, started, ended) in earlier {
            if locked {
                return self.violated(1, format!("{attempt} runs while {id} still does"));
            }
            if shown.is_none_or(|at| at < ended.unwrap_or(started)) {
                return self.violated(1, format!("{attempt} runs without a look whether {id} was applied"));
            }
        }
        // Promise 7: the new slot was seen active, the old one well, a moment ago.
        if shown.is_none_or(|at| at + FRESH < now) {
            return self.violated(7, format!("{attempt} runs, and the probe did not show {} before", view.switch.new));
        }
        let well = self.heard[i].well.get(&view.back_to).copied();
        if well.is_none_or(|(_, before)| before + FRESH < now || before == 0) {
            return self.violated(7, format!("{attempt} runs, and {} was not seen well twice before", view.back_to));
        }
        if !self.sites[i].truth.ever_alive(&view.back_to, now.saturating_sub(FRESH)) {
            return self.violated(7, format!("{attempt} moves the traffic to a dead slot"));
        }
        if dir.to != view.back_to {
            return self.violated(8, format!("{attempt} sets {} active, not {}", dir.to, view.back_to));
        }
        if self.disarmed_all || self.disarmed.contains(&i) {
            return self.violated(14, format!("{attempt} runs though an operator was told that it is disarmed"));
        }
        let facts = self.facts_of(&attempt.switch).clone();
        let by_hand = facts.ordered || view.mode == Mode::Ask;
        if !by_hand && !self.sites[i].truth.ever_bad(&view.switch.new, facts.bad_from) {
            let evidence = view.breach.as_ref().map(|b| b.evidence.clone());
            return self.violated(5, format!("{attempt} runs, and {} was never bad: {evidence:?}", view.switch.new));
        }
        if view.mode == Mode::Observe && !facts.ordered {
            return self.violated(5, format!("{attempt} runs though the mode is observe"));
        }
        let disarm_race = view.breach.is_none() && !facts.ordered;
        if disarm_race {
            return self.violated(5, format!("{attempt} runs without a breach and without an order"));
        }
        if !by_hand {
            self.check_brakes(attempt, i);
        }
    }

    fn check_brakes(&mut self, attempt: &AttemptId, service: usize) {
        let Some(view) = self.store.views.get(&attempt.switch).cloned() else { return };
        let Some(at) = view.breach.as_ref().map(|b| b.at) else { return };
        if self.automatic.iter().any(|(.., id)| *id == attempt.switch) {
            return;
        }
        let brakes = self.brakes();
        let version = view.switch.version.clone();
        let before = |within: Span, same: &dyn Fn(usize, &Option<crate::domain::switch::Version>) -> bool| {
            self.automatic.iter().filter(|(t, s, v, _)| at.since(*t) < within && same(*s, v)).count()
        };
        let of_service = before(brakes.per_service.within, &|s, _| s == service);
        let all = before(brakes.fleet.within, &|_, _| true);
        let of_version = before(brakes.per_version.within, &|s, v| s == service && version.is_some() && *v == version);
        for (n, brake, name) in [
            (of_service, brakes.per_service, "loop breaker"),
            (all, brakes.fleet, "fleet brake"),
            (of_version, brakes.per_version, "quarantine"),
        ] {
            if n >= brake.most as usize {
                return self
                    .violated(9, format!("{attempt}: {name}: {n} automatic rollbacks before it, at most {brake}"));
            }
        }
        self.automatic.push((at, service, version, attempt.switch.clone()));
    }

    /// From time to time: blindness must be loud.
    pub fn inspect(&mut self) {
        let Some(up) = self.process.as_ref().map(|p| p.up_since) else { return };
        let blind: Vec<SwitchId> = self
            .store
            .views
            .values()
            .filter(|v| matches!(v.phase, PhaseWord::CuttingOver | PhaseWord::Soaking | PhaseWord::Asking))
            .filter(|v| {
                let Some(facts) = self.facts.get(&v.id) else { return false };
                let since = facts.last_sight.max(up).max(facts.opened);
                let told = self.store.outbox.values().any(|row| {
                    row.notice.key.switch == v.id
                        && row.notice.reason == NoticeReason::Blind
                        && self.notices_at.get(&row.notice.key).is_some_and(|at| *at >= facts.last_sight)
                });
                self.now >= since + BLIND_LIMIT && !told
            })
            .map(|v| v.id.clone())
            .collect();
        if let Some(id) = blind.first() {
            self.violated(15, format!("{id} has seen nothing for two minutes, and nobody was told"));
        }
    }

    /// After everything ended.
    pub fn check_end(&mut self) {
        let lost = self.acknowledged.iter().find(|(_, switch)| !self.store.views.contains_key(*switch));
        if let Some((event, switch)) = lost.map(|(e, s)| (e.clone(), s.clone())) {
            return self.violated(2, format!("event {event} was acknowledged as {switch}, and there is no such watch"));
        }
        for view in self.store.views.values().cloned().collect::<Vec<_>>() {
            let told = |reasons: &[NoticeReason]| {
                self.store
                    .outbox
                    .values()
                    .find(|row| row.notice.key.switch == view.id && reasons.contains(&row.notice.reason))
                    .cloned()
            };
            let Some(outcome) = &view.outcome else { continue };
            let Some(row) = told(&model::notices_of(outcome)) else {
                return self.violated(3, format!("{} ended as {outcome}, and there is no notice of it", view.id));
            };
            if self.people.get(&row.notice.key).is_none_or(|n| *n == 0) {
                return self.violated(3, format!("{} was never delivered, and counts as such", row.notice.key));
            }
            // Promise 10: a breach is acted on or told within two ticks.
            if let Some(breach) = &view.breach {
                let acted = [NoticeReason::BreachedActing, NoticeReason::Withheld, NoticeReason::ApprovalWanted];
                let limit = breach.at + view.tick.times(2);
                if told(&acted).is_none_or(|row| row.notice.at > limit) {
                    return self.violated(10, format!("{}: its breach was neither acted on nor told in time", view.id));
                }
            }
        }
        let undelivered = self.store.outbox.keys().find(|key| !self.people.contains_key(*key)).cloned();
        if let Some(key) = undelivered {
            self.violated(3, format!("{key} never reached anybody"));
        }
    }
}
