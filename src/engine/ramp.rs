//! What is said of a switch after its watch was opened: the next step of a ramp, and what a later word adds.

use super::watch::{Phase, Turn, Watch};
use crate::domain::notice::NoticeReason;
use crate::domain::switch::{Announcement, Percent, RollbackSafety};
use crate::domain::time::Timestamp;

impl Watch {
    /// The part of the traffic that the new slot is meant to have now.
    pub(super) fn share(&self) -> Percent {
        self.share
    }

    /// Where the present stretch of the soak began: the cut-over, or the last step of the ramp.
    pub(super) fn stage_began(&self) -> Option<Timestamp> {
        self.stage_at.or(self.cut_over_at)
    }

    /// Another share of the same release: one watch, one baseline, one chance of error; each step is watched
    /// for as long as a switch is.
    pub(super) fn ramp(&mut self, a: &Announcement, turn: &mut Turn<'_>) {
        let before = std::mem::replace(&mut self.share, a.share());
        let at = a.switched_at.unwrap_or(turn.now).min(turn.now).max(self.opened_at);
        self.take_in(a);
        let said = format!("{before} → {} of the traffic to {}, announced by {}", self.share, a.new, a.source);
        match self.phase {
            Phase::CuttingOver { .. } => {
                self.record(turn.now, "ramp", said);
                let deadline = turn.now + self.service.policy.confirm_within;
                self.phase = Phase::CuttingOver { deadline };
            }
            Phase::Soaking { .. } => {
                let policy = &self.service.policy;
                let ends_at = at + policy.phases().whole() + self.longer;
                let gives_up_at = ends_at.max(turn.now) + policy.extend_max;
                self.phase = Phase::Soaking { ends_at, gives_up_at, extended: false };
                self.stage_at = Some(at);
                self.fast_passed = false;
                self.tick = self.service.policy.tick.max(self.clock.scrape_interval.unwrap_or_default());
                self.next_tick = self.next_tick.min(self.next_grid_instant(turn.now));
                self.record(turn.now, "ramp", format!("{said}; the soak goes on until {ends_at}"));
                self.say_what_can_be_shown(turn);
            }
            Phase::Asking { .. }
            | Phase::RollingBack(_)
            | Phase::Recovering(_)
            | Phase::Rehearsing { .. }
            | Phase::Ended { .. } => {
                self.record(turn.now, "ramp", said);
            }
        }
        self.warn_of_the_old_slots_end(turn);
    }

    /// A second word about the same switch: what it says more counts.
    pub(super) fn adopt(&mut self, a: &Announcement, turn: &mut Turn<'_>) {
        let before = self.announcement.clone();
        self.take_in(a);
        if self.announcement != before {
            let version = a.version.as_ref().map_or(String::new(), |v| format!(" of {v}"));
            self.record(turn.now, "told_more", format!("announced{version} by {}", a.source));
            self.warn_of_the_old_slots_end(turn);
        }
    }

    fn take_in(&mut self, a: &Announcement) {
        let mine = &mut self.announcement;
        let missing = |mine: &mut Option<_>, theirs: &Option<_>| *mine = mine.take().or_else(|| theirs.clone());
        missing(&mut mine.version, &a.version);
        missing(&mut mine.old_version, &a.old_version);
        mine.old_until = a.old_until.or(mine.old_until);
        mine.about.fill_from(&a.about);
        if a.rollback == RollbackSafety::Unsafe {
            // Whoever knows of a reason not to go back is believed, whenever the word comes.
            mine.rollback = RollbackSafety::Unsafe;
        }
    }

    /// There is no way back to a slot that is gone: people are told while there is time to keep it.
    pub(super) fn warn_of_the_old_slots_end(&mut self, turn: &mut Turn<'_>) {
        let Some(until) = self.announcement.old_until.filter(|_| !self.old_end_told) else { return };
        let ends_at = self.stage_began().unwrap_or(self.opened_at) + self.service.policy.phases().whole();
        if until < ends_at {
            self.old_end_told = true;
            let old = self.way_back().clone();
            self.record(turn.now, "old_ends_early", format!("{old} ends at {until}, the soak at {ends_at}"));
            self.notify(NoticeReason::OldEndsEarly, turn);
        }
    }
}
