//! An operator holds a watch: paused, it judges nothing; extended, it goes on for longer.

use super::Engine;
use super::message::{Answer, Command, Hold};
use super::watch::{Phase, Turn, Watch};
use crate::domain::notice::NoticeReason;
use crate::domain::switch::SwitchId;
use crate::domain::time::{Span, Timestamp};
use crate::domain::view::Pause;

/// A watch that judges nothing for longer is forgotten: it goes on by itself.
pub const PAUSE_MAX: Span = Span::from_mins(4 * 60);

/// As long as the longest soak; extended once more if need be.
pub const EXTEND_MAX: Span = Span::from_mins(48 * 60);

impl Engine {
    pub(super) fn held(
        &mut self,
        now: Timestamp,
        switch: &SwitchId,
        hold: Hold,
        said: &str,
        commands: &mut Vec<Command>,
    ) -> Answer {
        self.upon(now, switch, commands, |watch, turn| match hold {
            Hold::Pause { lasts } => watch.pause(lasts, said, turn),
            Hold::Resume => watch.resume(said, turn),
            Hold::Extend { longer } => watch.extend(longer, said, turn),
        })
    }
}

impl Watch {
    fn pause(&mut self, lasts: Span, said: &str, turn: &mut Turn<'_>) -> Result<String, String> {
        self.must_soak("paused")?;
        let since = self.paused.as_ref().map_or(turn.now, |pause| pause.since);
        let until = turn.now + lasts.min(PAUSE_MAX);
        self.paused = Some(Pause { since, until, by: said.to_owned() });
        self.record(turn.now, "paused", format!("until {until}, {said}; nothing is judged meanwhile"));
        // Whoever reads along must know that nobody watches.
        self.notify(NoticeReason::Paused, turn);
        Ok(format!("{} judges nothing until {until}; flipback resume {} ends that", self.id, self.id))
    }

    fn resume(&mut self, said: &str, turn: &mut Turn<'_>) -> Result<String, String> {
        if self.paused.is_none() {
            return Err(format!("{} is not paused: it is {}", self.id, self.phase_word().as_str()));
        }
        self.go_on_after_pause(said, turn);
        Ok(format!("{} goes on", self.id))
    }

    /// A pause that nobody ends is over at its time.
    pub(super) fn wake_from_pause(&mut self, turn: &mut Turn<'_>) {
        if self.paused.as_ref().is_some_and(|pause| turn.now >= pause.until) {
            self.go_on_after_pause("its time is over", turn);
        }
    }

    fn go_on_after_pause(&mut self, said: &str, turn: &mut Turn<'_>) {
        let Some(pause) = self.paused.take() else { return };
        let lasted = turn.now.since(pause.since);
        match &mut self.phase {
            // What was not judged is watched later.
            Phase::Soaking { ends_at, gives_up_at, .. } => {
                (*ends_at, *gives_up_at) = (*ends_at + lasted, *gives_up_at + lasted);
                self.longer = self.longer + lasted;
            }
            Phase::CuttingOver { deadline } => *deadline = *deadline + lasted,
            Phase::Asking { .. }
            | Phase::RollingBack(_)
            | Phase::Recovering(_)
            | Phase::Rehearsing { .. }
            | Phase::Ended { .. } => {}
        }
        self.sight.woke(turn.now);
        self.record(turn.now, "resumed", format!("after {lasted}, {said}; the soak is longer by that"));
    }

    fn extend(&mut self, longer: Span, said: &str, turn: &mut Turn<'_>) -> Result<String, String> {
        self.must_soak("extended")?;
        let longer = longer.min(EXTEND_MAX);
        self.longer = self.longer + longer;
        if let Phase::Soaking { ends_at, gives_up_at, .. } = &mut self.phase {
            (*ends_at, *gives_up_at) = (*ends_at + longer, *gives_up_at + longer);
        }
        self.record(turn.now, "extended", format!("by {longer}, {said}"));
        self.warn_of_the_old_slots_end(turn);
        Ok(format!("{}: the soak is longer by {longer}, until {}", self.id, self.soak_ends_at()))
    }

    fn must_soak(&self, what: &str) -> Result<(), String> {
        match &self.phase {
            Phase::CuttingOver { .. } | Phase::Soaking { .. } => Ok(()),
            Phase::Ended { outcome, .. } => Err(format!("{} has ended: {outcome}", self.id)),
            _ => Err(format!("{} cannot be {what}: it is {}", self.id, self.phase_word().as_str())),
        }
    }

    /// The planned end of the soak.
    pub(super) fn soak_ends_at(&self) -> Timestamp {
        match &self.phase {
            Phase::Soaking { ends_at, .. } => *ends_at,
            _ => self.stage_began().unwrap_or(self.opened_at) + self.service.policy.phases().whole() + self.longer,
        }
    }
}
