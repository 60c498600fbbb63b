//! What a watch tells: its story, its notices, and what it knows of its normal.

use super::message::Command;
use super::watch::{BaselineState, Turn, Watch};
use crate::domain::baseline::{Baseline, Quality};
use crate::domain::notice::{Notice, NoticeKey, NoticeReason};
use crate::domain::switch::Slot;
use crate::domain::time::Timestamp;
use crate::domain::view::TimelineEvent;

/// Lines kept of a watch's story. A 48 h soak writes some dozens; more is a flapping source.
const TIMELINE_MAX: usize = 400;

impl Watch {
    pub(super) fn take_baseline(&mut self, baseline: Baseline, turn: &mut Turn<'_>) {
        self.rule.with_baseline(&baseline);
        self.control.with_baseline(&baseline);
        let p = &baseline.provenance;
        let rate = baseline.counts.rate().map_or("no requests".into(), |r| format!("{:.3} % errors", r * 100.0));
        self.record(
            turn.now,
            "baseline",
            format!(
                "{:.0} requests of {} from {} to {}, {rate}, {} cells",
                baseline.counts.requests(),
                p.slot,
                p.from,
                p.to,
                baseline.cells
            ),
        );
        let little = match &baseline.quality {
            Quality::Good => None,
            Quality::TooLittle { why } | Quality::Incident { why } => Some(why.clone()),
        };
        self.baseline = BaselineState::Chosen(Box::new(baseline));
        if let Some(why) = little {
            self.record(turn.now, "little_baseline", why);
            self.notify(NoticeReason::LittleBaseline, turn);
        } else {
            self.say_what_can_be_shown(turn);
        }
        // What was kept until now is judged at once.
        self.judge(turn);
    }

    /// How small a regression this traffic can show at all, said before anybody relies on it.
    pub(super) fn say_what_can_be_shown(&mut self, turn: &mut Turn<'_>) {
        let policy = &self.service.policy;
        let whole = policy.phases().whole();
        let expected = self.baseline().map_or(0.0, Baseline::rate) * whole.as_secs_f64();
        if self.rule.ln_e().is_none() {
            return; // the plain rule states no chance of error
        }
        let expected = expected * self.share().fraction();
        self.detectable = self.rule.detectable(expected);
        let wanted = policy.limits.must_detect.get();
        let text = match self.detectable {
            Some(ratio) => format!(
                "within {whole} about {expected:.0} requests can show an error rate of {:.2} %, {ratio:.1}× the normal",
                self.rule.share_at(ratio).unwrap_or(1.0) * 100.0
            ),
            None => format!("within {whole} about {expected:.0} requests can not even show a total outage"),
        };
        self.record(turn.now, "detectable", text);
        // The first steps of a ramp can show little: that is what the next ones are for.
        if self.share().is_all() && self.detectable.is_none_or(|ratio| ratio > wanted) {
            self.notify(NoticeReason::Thin, turn);
        }
    }

    pub(super) fn baseline(&self) -> Option<&Baseline> {
        match &self.baseline {
            BaselineState::Chosen(baseline) => Some(baseline),
            BaselineState::Asked(_) | BaselineState::Missing(_) => None,
        }
    }

    /// The evidence of all signals together, as "one in so many".
    pub(super) fn one_in(&self) -> Option<f64> {
        self.rule.ln_e().map(|ln_e| libm::exp(ln_e.clamp(0.0, 300.0)))
    }

    /// Where a rollback goes (or would go).
    pub(super) fn way_back(&self) -> &Slot {
        self.target.as_ref().unwrap_or(&self.announcement.old)
    }

    pub(super) fn target_spec(&self) -> Option<&crate::domain::service::SlotSpec> {
        self.target.as_ref().ok().and_then(|slot| self.service.slots.spec(slot))
    }

    pub(super) fn record(&mut self, at: Timestamp, kind: &str, text: String) {
        if self.timeline.len() >= TIMELINE_MAX {
            // The beginning tells how it came about: the middle goes first.
            self.timeline.remove(TIMELINE_MAX / 2);
        }
        self.timeline.push(TimelineEvent { at, kind: kind.to_owned(), text });
    }

    pub(super) fn notify(&mut self, reason: NoticeReason, turn: &mut Turn<'_>) {
        self.notice_n += 1;
        let notice = Notice {
            key: NoticeKey { switch: self.id.clone(), n: self.notice_n },
            at: turn.now,
            reason,
            watch: self.view(),
        };
        turn.commands.push(Command::Notify { notice: Box::new(notice) });
    }
}
