//! After a rollback: does what was moved stay where it is? A proxy that restarts may forget it.
//!
//! The watch has ended and told its outcome; its probes go on until the soak would have ended.

use serde::{Deserialize, Serialize};

use super::message::{Command, CommandId};
use super::rollback::resolve_probe;
use super::watch::Watch;
use crate::domain::notice::{Notice, NoticeKey, NoticeReason};
use crate::domain::plan::{Probe, ProbeReading, StepOutcome};
use crate::domain::switch::{Lane, SwitchId};
use crate::domain::time::{Span, Timestamp};
use crate::domain::view::{TimelineEvent, WatchView};
use crate::planted::{self, Bug};

/// Looked after for at least this long, however little of the soak is left: a proxy is often reloaded
/// or restarted by whoever comes to look.
const GUARD_MIN: Span = Span::from_mins(5);

/// A probe is a process; one a service and so many seconds is little beside the checks of a soak.
const EVERY_MIN: Span = Span::from_secs(5);
const EVERY_MAX: Span = Span::from_secs(60);

/// One strange answer may be of a reload.
const WRONG_MIN: u8 = 2;
/// What cannot be read is not drift, but not to be believed for ever either.
const UNREADABLE_MAX: u8 = 10;

/// An answer that does not come is asked for again.
const ANSWER_SLACK: Span = Span::from_secs(5);

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(super) struct Guard {
    view: WatchView,
    looks: Vec<Look>,
    turn: usize,
    every: Span,
    next: Timestamp,
    until: Timestamp,
    asked: Option<(CommandId, Timestamp)>,
    command_n: u64,
    notice_n: u32,
}

/// One step's probe and what it must go on showing.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
struct Look {
    step: String,
    probe: Probe,
    word: String,
    wrong: u8,
    unreadable: u8,
    told: bool,
}

impl Guard {
    /// For a watch that has just ended with its rollback proven; `None` where nothing can be read back.
    pub fn of(watch: &Watch, now: Timestamp) -> Option<Guard> {
        let old = watch.way_back();
        let looks: Vec<Look> = watch
            .service
            .plan
            .steps
            .iter()
            // Only what was done is looked after: a rung that was left out left nothing behind.
            .filter(|step| watch.steps.iter().any(|r| r.name == step.name && r.outcome == Some(StepOutcome::Done)))
            .filter_map(|step| {
                let probe = resolve_probe(watch, step, step.probe.as_ref()?);
                let word = probe.expect.word(old).to_owned();
                Some(Look { step: step.name.clone(), probe, word, wrong: 0, unreadable: 0, told: false })
            })
            .collect();
        let view = watch.view();
        (!looks.is_empty() && !planted::has(Bug::NoGuard)).then(|| Guard {
            until: view.soak_ends_at.max(now + GUARD_MIN),
            view,
            looks,
            turn: 0,
            every: watch.service.policy.tick.clamp(EVERY_MIN, EVERY_MAX),
            next: now,
            asked: None,
            command_n: watch.command_n,
            notice_n: watch.notice_n,
        })
    }

    pub fn lane(&self) -> Lane {
        self.view.switch.lane()
    }

    pub fn next_deadline(&self) -> Timestamp {
        self.next.min(self.until)
    }

    /// True when it is over; its last words are in the view then.
    pub fn on_timer(&mut self, now: Timestamp, commands: &mut Vec<Command>) -> bool {
        if now >= self.until {
            let drifted = self.looks.iter().any(|look| look.told);
            let text = if drifted { "the probe shows something else" } else { "the probe went on showing it" };
            self.record(now, "guarded", format!("until {}: {text}", self.until));
            return true;
        }
        if now < self.next {
            return false;
        }
        self.next = now + self.every;
        if self.asked.as_ref().is_some_and(|(_, until)| now < *until) {
            return false;
        }
        if let Some(look) = self.looks.get(self.turn) {
            self.command_n += 1;
            let id = CommandId { switch: self.view.id.clone(), n: self.command_n };
            self.asked = Some((id.clone(), now + look.probe.timeout + ANSWER_SLACK));
            commands.push(Command::Probe { id, probe: look.probe.clone() });
        }
        false
    }

    /// True when there is something new to be kept.
    pub fn on_probed(
        &mut self,
        now: Timestamp,
        id: &CommandId,
        reading: &ProbeReading,
        commands: &mut Vec<Command>,
    ) -> bool {
        if self.asked.as_ref().is_none_or(|(asked, _)| asked != id) {
            return false;
        }
        self.asked = None;
        let next = (self.turn + 1) % self.looks.len().max(1);
        let Some(look) = self.looks.get_mut(self.turn) else { return false };
        self.turn = next;
        let (step, word) = (&look.step, &look.word);
        let said = match reading {
            ProbeReading::Shows(line) if line == word => {
                (look.wrong, look.unreadable) = (0, 0);
                let back = std::mem::take(&mut look.told);
                back.then(|| ("drift_gone", format!("step {step}: the probe shows {line:?} again")))
            }
            ProbeReading::Shows(line) => {
                (look.wrong, look.unreadable) = (look.wrong.saturating_add(1), 0);
                (look.wrong >= WRONG_MIN && !look.told)
                    .then(|| ("drift", format!("step {step}: the probe shows {line:?} now, flipback left {word:?}")))
            }
            ProbeReading::Unreadable(why) => {
                look.unreadable = look.unreadable.saturating_add(1);
                (look.unreadable >= UNREADABLE_MAX && !look.told)
                    .then(|| ("drift", format!("step {step}: the probe cannot be read any more: {why}")))
            }
        };
        let Some((kind, text)) = said else { return false };
        look.told = kind == "drift";
        let told = look.told;
        self.record(now, kind, text);
        if told {
            self.notice_n += 1;
            let key = NoticeKey { switch: self.view.id.clone(), n: self.notice_n };
            let notice = Notice { key, at: now, reason: NoticeReason::Drift, watch: self.view.clone() };
            commands.push(Command::Notify { notice: Box::new(notice) });
        }
        true
    }

    /// The process came up again: answers of the last one never come.
    pub fn on_started(&mut self, now: Timestamp) {
        self.asked = None;
        self.next = now;
    }

    pub fn view(&self) -> WatchView {
        self.view.clone()
    }

    pub fn id(&self) -> &SwitchId {
        &self.view.id
    }

    fn record(&mut self, at: Timestamp, kind: &str, text: String) {
        self.view.timeline.push(TimelineEvent { at, kind: kind.to_owned(), text });
    }
}
