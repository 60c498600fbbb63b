//! The five answers that every notice gives: what broke, how sure, what was done, whether it worked, what to do now.

use super::drill;
use super::words::{advice, explains};
use crate::domain::notice::{Notice, NoticeReason};
use crate::domain::plan::StepOutcome;
use crate::domain::signal::Signal;
use crate::domain::verdict::{Evidence, Outcome};
use crate::domain::view::{PhaseWord, WatchView};
use crate::words::numbers::{large, percent, thousands};
use crate::words::rows::sentence;
use crate::words::safe::tame;

/// An answer is a sentence or two.
const ANSWER_CHARS: usize = 600;

/// All five, always: what is not known is said to be so.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Five {
    pub broke: String,
    pub sure: String,
    pub done: String,
    pub worked: String,
    pub now: String,
}

impl Five {
    pub fn rows(&self) -> [(&'static str, &str); 5] {
        [
            ("What broke", &self.broke),
            ("How sure", &self.sure),
            ("What was done", &self.done),
            ("Did it work", &self.worked),
            ("What now", &self.now),
        ]
    }

    pub fn of(notice: &Notice, breached: &[&Evidence]) -> Five {
        let tamed = |text: String| tame(&text, ANSWER_CHARS);
        Five {
            broke: tamed(broke(notice, breached)),
            sure: tamed(sure(notice, breached)),
            done: tamed(acted(notice)),
            worked: tamed(worked(notice)),
            now: tamed(advice(notice)),
        }
    }
}

fn broke(notice: &Notice, breached: &[&Evidence]) -> String {
    let w = &notice.watch;
    let said = w.timeline.iter().rev().find(|e| explains(notice.reason, &e.kind)).map(|e| e.text.clone());
    let signals = breached.iter().map(|e| sentence(e)).collect::<Vec<_>>().join("; ");
    match notice.reason {
        NoticeReason::Drift => {
            let undone = said.unwrap_or_else(|| "the probe shows something else".into());
            if signals.is_empty() { undone } else { format!("{undone}; before that: {signals}") }
        }
        _ if !signals.is_empty() => signals,
        NoticeReason::OrderedActing => {
            format!("nothing that flipback judged; ordered {}", said.unwrap_or_else(|| "by a person".into()))
        }
        NoticeReason::Paused => format!("nothing is judged {}", said.unwrap_or_else(|| "for now".into())),
        NoticeReason::Blind => format!("flipback's sight: {}", said.unwrap_or_else(|| "no readings".into())),
        NoticeReason::SeesAgain => "nothing any more: the readings are back".into(),
        NoticeReason::LittleBaseline => {
            format!("nothing; too little normal is recorded: {}", said.unwrap_or_else(|| "none".into()))
        }
        NoticeReason::Thin => format!("nothing; {}", said.unwrap_or_else(|| "there is little traffic".into())),
        NoticeReason::Unjudged | NoticeReason::Unconfirmed => match w.outcome.as_ref().and_then(Outcome::detail) {
            Some(why) => format!("nothing is known to be: {why}"),
            None => "nothing is known to be".into(),
        },
        NoticeReason::Passed => "nothing".into(),
        NoticeReason::Superseded | NoticeReason::Cancelled => "nothing, as far as it was watched".into(),
        NoticeReason::Opened => "nothing so far".into(),
        NoticeReason::Drilled => "nothing: it was a drill".into(),
        NoticeReason::DrillFailed => match w.outcome.as_ref().and_then(Outcome::detail) {
            Some(why) => format!("the way back: {why}"),
            None => "the way back".into(),
        },
        _ => said.unwrap_or_else(|| "no signal is above its limit".into()),
    }
}

fn sure(notice: &Notice, breached: &[&Evidence]) -> String {
    let w = &notice.watch;
    if !breached.is_empty() {
        let mut sure: Vec<String> = breached.iter().map(|e| how_sure(e)).collect();
        let proven = breached.iter().any(|e| e.proof.is_some());
        if let Some(one_in) = w.breach.as_ref().and_then(|b| b.one_in).filter(|_| proven) {
            let needed = breached.iter().find_map(|e| e.proof).map_or(0.0, |p| p.needed);
            let all = format!("all signals together 1 in {} (rollback at 1 in {})", large(one_in), thousands(needed));
            sure.insert(0, all);
        }
        let since = w.breach.as_ref().map_or(notice.at, |b| b.since);
        return format!("{}; since {since}", sure.join("; "));
    }
    match notice.reason {
        NoticeReason::Blind => "there is no verdict: without readings flipback says neither good nor bad".into(),
        NoticeReason::Unjudged => "not at all: the evidence did not suffice for a verdict".into(),
        NoticeReason::Unconfirmed => "the traffic and the probe did not show the new slot".into(),
        NoticeReason::LittleBaseline => "ratios cannot be judged; absolute limits and health checks are".into(),
        NoticeReason::Thin => match w.detectable {
            Some(ratio) => format!("only an error rate of {ratio:.1}× the normal or more can be shown by this traffic"),
            None => "this traffic cannot even show a total outage; health checks can".into(),
        },
        NoticeReason::Passed => match &w.outcome {
            Some(Outcome::Passed { by_checks_only: true }) => {
                "health checks only: there was too little traffic to judge by".into()
            }
            _ => passed_sure(w),
        },
        NoticeReason::Drift => "the probe was read three times".into(),
        NoticeReason::Drilled | NoticeReason::DrillFailed => "as sure as what was tried: see the checks below".into(),
        NoticeReason::SeesAgain => "the counts of the gap are in, none is lost".into(),
        NoticeReason::TrafficLost => "its health checks pass, and no request is counted".into(),
        NoticeReason::Paused => "not judged while the watch is paused".into(),
        NoticeReason::Opened => "the soak has begun; nothing is judged yet".into(),
        NoticeReason::OldEndsEarly => "the announcement says so".into(),
        NoticeReason::Superseded | NoticeReason::Cancelled => "it ended before a verdict".into(),
        NoticeReason::Quarantined => "the journal has these rollbacks".into(),
        NoticeReason::AfterPassedFailed => "the step's own end says so: see its output".into(),
        NoticeReason::Stuck => "the step may or may not have been applied".into(),
        _ => "a person decided it, not the evidence".into(),
    }
}

/// What a soak that was passed had to show.
fn passed_sure(w: &WatchView) -> String {
    let shown = w
        .detectable
        .map_or(String::new(), |ratio| format!("; an error rate of {ratio:.1}× the normal would have been seen"));
    match w.evidence.iter().find(|e| e.signal == Signal::ErrorRate) {
        Some(e) => format!("{} over {} ticks{shown}", sentence(e), w.ticks),
        None => format!("{} ticks were judged{shown}", w.ticks),
    }
}

fn acted(notice: &Notice) -> String {
    let w = &notice.watch;
    match (&w.outcome, notice.reason) {
        (_, NoticeReason::AfterPassedFailed) => format!("the soak was passed; then: {}", steps(w)),
        (Some(Outcome::Withheld { why }), _) => format!("nothing was moved: {why}"),
        (Some(Outcome::Healed { by }), _) => format!("{by}; no traffic was moved"),
        (Some(Outcome::Drilled { .. } | Outcome::DrillFailed { .. }), _) => drill::done(w),
        (
            Some(
                Outcome::RolledBackRecovered
                | Outcome::RolledBackNotRecovered
                | Outcome::RolledBackUnseen
                | Outcome::RollbackFailed { .. },
            ),
            _,
        ) => done(w),
        (Some(Outcome::Passed { .. }), _) if !w.steps.is_empty() => steps(w),
        (Some(Outcome::Cancelled { why }), _) => format!("the watch was ended: {why}"),
        (Some(Outcome::Superseded), _) => "the newer switch is watched instead".into(),
        (Some(outcome), _) => match outcome.detail() {
            Some(_) | None => "nothing was moved".into(),
        },
        (None, NoticeReason::BreachedActing | NoticeReason::OrderedActing) => {
            match (w.remedies.is_empty(), notice.reason) {
                (false, NoticeReason::BreachedActing) => {
                    format!("the ladder has begun with {}", w.remedies.join(", then "))
                }
                _ => format!("the rollback to {} has begun", w.back_to),
            }
        }
        (None, NoticeReason::ApprovalWanted) => "nothing yet: mode is ask".into(),
        (None, NoticeReason::Paused) => match &w.paused {
            Some(p) => format!("paused {} until {}", p.by, p.until),
            None => "paused".into(),
        },
        (None, NoticeReason::Stuck) => done(w),
        (None, _) => match w.phase {
            PhaseWord::CuttingOver | PhaseWord::Soaking => "nothing was moved; the watch goes on".into(),
            _ => "nothing more than the steps below".into(),
        },
    }
}

fn worked(notice: &Notice) -> String {
    let w = &notice.watch;
    match (&w.outcome, notice.reason) {
        (Some(outcome), NoticeReason::Drift) => format!("it did ({}), until it was undone", outcome.word()),
        (Some(Outcome::RollbackFailed { why }), NoticeReason::Stuck) => format!("not known: {why}"),
        (_, NoticeReason::AfterPassedFailed) => "no; the release itself is good".into(),
        (Some(Outcome::RollbackFailed { why } | Outcome::DrillFailed { why }), _) => format!("no: {why}"),
        (Some(Outcome::Healed { .. } | Outcome::RolledBackRecovered), _) => format!("yes: {}", recovery(w)),
        (Some(Outcome::Drilled { dry: true }), _) => "yes, as far as can be tried without moving traffic".into(),
        (Some(Outcome::Drilled { dry: false }), _) => "yes: there and back".into(),
        (Some(Outcome::RolledBackNotRecovered), _) => {
            format!("the traffic moved, but {} is not well: {}", w.back_to, recovery(w))
        }
        (Some(Outcome::RolledBackUnseen), _) => {
            format!("the probe shows {}, but no traffic could confirm it: {}", w.back_to, recovery(w))
        }
        (Some(Outcome::Withheld { .. }), _) => format!("{} serves on as it is", w.switch.new),
        (Some(Outcome::Unjudged { .. } | Outcome::Unconfirmed { .. }), _) => "nothing was tried".into(),
        (Some(Outcome::Passed { .. } | Outcome::Superseded | Outcome::Cancelled { .. }), _) => {
            "nothing had to be undone".into()
        }
        (None, NoticeReason::BreachedActing | NoticeReason::OrderedActing) => {
            "not known yet; the result follows in this thread".into()
        }
        (None, NoticeReason::Stuck) => "not known: that is why a person must look".into(),
        (None, _) => "nothing was tried".into(),
    }
}

/// How much one signal's verdict rests on.
fn how_sure(e: &Evidence) -> String {
    let Some(p) = &e.proof else {
        if e.value.is_none() && e.ticks_needed == 0 {
            return format!("{}: another system's judgement, not flipback's", e.signal);
        }
        return format!(
            "{}: {} ticks in a row above its limit, {} are needed",
            e.signal, e.ticks_above, e.ticks_needed
        );
    };
    let interval = match p.interval {
        None => String::new(),
        // A normal without errors bounds the ratio from below only.
        Some((low, high)) if high > 1000.0 => format!(", at least {low:.1}× at 95 %"),
        Some((low, high)) => format!(", {low:.1} to {high:.1}× at 95 %"),
    };
    format!(
        "{}: evidence 1 in {}{interval}; {} of {} last ticks above the limit; burstiness {:.2}",
        e.signal,
        large(p.one_in),
        e.ticks_above,
        e.ticks_needed,
        p.burstiness
    )
}

/// The steps with what became of each.
fn steps(w: &WatchView) -> String {
    let steps: Vec<String> = w
        .steps
        .iter()
        .map(|s| match &s.outcome {
            Some(StepOutcome::Done) => format!("{} done", s.name),
            Some(StepOutcome::Failed(_)) => format!("{} failed (try {})", s.name, s.attempt.attempt),
            Some(StepOutcome::Stuck(_)) => format!("{} stuck", s.name),
            None => format!("{} begun", s.name),
        })
        .collect();
    if steps.is_empty() { "no step was run".into() } else { steps.join(", ") }
}

fn done(w: &WatchView) -> String {
    let what = if w.recovery.is_some() { "moved back" } else { "tried to move back" };
    if w.steps.is_empty() { steps(w) } else { format!("{what} to {}: {}", w.back_to, steps(w)) }
}

fn recovery(w: &WatchView) -> String {
    let Some(r) = &w.recovery else { return "nothing was read after it".into() };
    let since = match &w.outcome {
        Some(Outcome::Healed { .. }) => format!("in force since {}", r.proven_at),
        _ => format!("the probe shows {} since {}", w.back_to, r.proven_at),
    };
    match (r.ticks_fine, r.error_rate) {
        (0, Some(rate)) => {
            let above: Vec<String> = r.above.iter().map(ToString::to_string).collect();
            let above =
                if above.is_empty() { String::new() } else { format!("{} above the limit, ", above.join(", ")) };
            format!("{since}; {above}{} errors in the last tick", percent(rate))
        }
        (0, None) => format!("{since}; no request was counted after that"),
        (ticks, rate) => {
            let rate = rate.map_or("no error rate".into(), |rate| format!("{} errors", percent(rate)));
            format!("{since}; after that {rate} over {} requests in {ticks} good ticks", thousands(r.requests))
        }
    }
}
