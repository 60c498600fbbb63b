//! How a watch stands, in a badge and a sentence.

use super::Meter;
use crate::domain::switch::Kind;
use crate::domain::time::Timestamp;
use crate::domain::verdict::{Outcome, Verdict, Withheld};
use crate::domain::view::{PhaseWord, WatchView};
use crate::words::numbers::{duration, one_in};

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Standing {
    pub badge: &'static str,
    /// `good`, `warn`, `bad`, `busy` or `quiet`.
    pub tone: &'static str,
    pub sentence: String,
}

/// `checkout blue → green (v1.3)`, `checkout flag new-flow off → on`, `drill of checkout`.
pub fn title(w: &WatchView) -> String {
    if w.is_drill() {
        return format!("Drill of {}, {} → {} and home", w.switch.service, w.switch.new, w.switch.old);
    }
    format!("{} {}", w.switch.service, what(w))
}

/// The same without the service.
pub fn what(w: &WatchView) -> String {
    let version = w.switch.version.as_ref().map_or(String::new(), |v| format!(" ({v})"));
    let share = w.share_percent.map_or(String::new(), |share| format!(", {share}"));
    let flag = match &w.switch.kind {
        Kind::Traffic => String::new(),
        Kind::Flag(flag) => format!("flag {flag} "),
    };
    if w.is_drill() {
        return format!("drill {} → {} and home", w.switch.new, w.switch.old);
    }
    format!("{flag}{} → {}{version}{share}", w.switch.old, w.switch.new)
}

pub fn of(w: &WatchView) -> Standing {
    match &w.outcome {
        Some(outcome) => ended(w, outcome),
        None => open(w),
    }
}

fn open(w: &WatchView) -> Standing {
    let (new, back) = (&w.switch.new, &w.back_to);
    let (badge, tone, sentence) = match (w.phase, w.verdict) {
        _ if w.paused.is_some() => ("PAUSED", "warn", format!("A person paused it: nobody judges {new} for now.")),
        (PhaseWord::CuttingOver, _) => ("CUTTING OVER", "busy", format!("Waiting for {new} to have the traffic.")),
        (PhaseWord::Asking, _) => ("APPROVE?", "bad", format!("{new} is broken. May flipback go back to {back}?")),
        (PhaseWord::RollingBack, _) => ("ROLLING BACK", "bad", format!("{new} is broken: going back to {back} now.")),
        (PhaseWord::Healing, _) => ("HEALING", "bad", format!("A remedy was applied: is {new} well now?")),
        (PhaseWord::Recovering, _) => {
            ("RECOVERING", "warn", format!("The traffic is back on {back}: does it serve well?"))
        }
        (PhaseWord::Concluding, _) => ("PASSED", "good", format!("{new} passed its soak; its last steps run.")),
        (PhaseWord::Drilling, _) => ("DRILL", "busy", "The way back is practised.".into()),
        (PhaseWord::Soaking | PhaseWord::Ended, verdict) => match verdict {
            Verdict::Healthy => ("SOAKING", "busy", format!("{new} is watched; no limit is broken.")),
            Verdict::Breached => ("BREACHED", "bad", format!("{new} is broken.")),
            Verdict::Thin => {
                ("THIN", "warn", format!("{new} has too little traffic to say much; health checks go on."))
            }
            Verdict::Blind => ("BLIND", "warn", format!("flipback cannot see {new}: it says neither yes nor no.")),
        },
    };
    Standing { badge, tone, sentence }
}

/// An outcome's badge and its tone.
pub fn badge(outcome: &Outcome) -> (&'static str, &'static str) {
    match outcome {
        Outcome::Passed { .. } => ("PASSED", "good"),
        Outcome::RolledBackRecovered => ("ROLLED BACK", "bad"),
        Outcome::RolledBackNotRecovered => ("ROLLED BACK, STILL BAD", "bad"),
        Outcome::RolledBackUnseen => ("ROLLED BACK, UNSEEN", "bad"),
        Outcome::RollbackFailed { .. } => ("ROLLBACK FAILED", "bad"),
        Outcome::Healed { .. } => ("HEALED", "warn"),
        Outcome::Drilled { .. } => ("DRILL PASSED", "good"),
        Outcome::DrillFailed { .. } => ("DRILL FAILED", "bad"),
        Outcome::Withheld { why: Withheld::ObserveMode } => ("WOULD HAVE ROLLED BACK", "warn"),
        Outcome::Withheld { .. } => ("NOT ROLLED BACK", "bad"),
        Outcome::Unjudged { .. } => ("UNJUDGED", "warn"),
        Outcome::Unconfirmed { .. } => ("UNCONFIRMED", "warn"),
        Outcome::Superseded => ("SUPERSEDED", "quiet"),
        Outcome::Cancelled { .. } => ("CANCELLED", "quiet"),
    }
}

fn ended(w: &WatchView, outcome: &Outcome) -> Standing {
    let (new, back) = (&w.switch.new, &w.back_to);
    let (badge, tone) = badge(outcome);
    let broken = if w.breach.is_some() { format!("{new} was broken; ") } else { String::new() };
    let sentence = match outcome {
        Outcome::Passed { by_checks_only: false } => format!("{new} passed its soak."),
        Outcome::Passed { by_checks_only: true } => format!("{new} passed by health checks alone."),
        Outcome::RolledBackRecovered => format!("{broken}{back} has the traffic again and serves well."),
        Outcome::RolledBackNotRecovered => format!("{broken}{back} has the traffic again, and is not well either."),
        Outcome::RolledBackUnseen => format!("{broken}{back} has the traffic again, and no request came to show it."),
        Outcome::RollbackFailed { why } => format!("{broken}going back to {back} FAILED: {why}."),
        Outcome::Healed { by } => format!("{broken}{by} made it well, and the traffic stays."),
        Outcome::Drilled { dry: true } => "The way back works, as far as can be tried without traffic.".into(),
        Outcome::Drilled { dry: false } => "The way back works: there and back.".into(),
        Outcome::DrillFailed { why } => format!("The way back does not work: {why}."),
        Outcome::Withheld { why } => format!("{broken}nothing was moved: {why}."),
        Outcome::Unjudged { why } => format!("No verdict was reached: {why}."),
        Outcome::Unconfirmed { why } => format!("The traffic did not move: {why}."),
        Outcome::Superseded => "A newer switch took its place.".into(),
        Outcome::Cancelled { why } => format!("It was ended before its verdict: {why}."),
    };
    Standing { badge, tone, sentence }
}

/// How far the soak is, and how far the evidence.
pub fn meters(w: &WatchView, now: Timestamp) -> Vec<Meter> {
    if w.is_drill() {
        return Vec::new();
    }
    let mut all = Vec::new();
    let began = w.began();
    if w.outcome.is_none() && matches!(w.phase, PhaseWord::CuttingOver | PhaseWord::Soaking | PhaseWord::Asking) {
        let whole = w.soak_ends_at.since(began).as_secs_f64().max(1.0);
        let gone = now.since(began).as_secs_f64();
        let left = w.soak_ends_at.since(now).as_secs_f64();
        let text = match left {
            left if left > 0.0 => format!("{} of {}, until {}", duration(gone), duration(whole), w.soak_ends_at),
            _ => "over its time, until it has shown enough".into(),
        };
        all.push(Meter::new("Soak", gone / whole, text, "busy"));
    }
    let evidence = w.telling();
    let said = w.breach.as_ref().map_or(w.one_in, |b| b.one_in);
    if let (Some(said), Some(proof)) = (said, evidence.iter().find_map(|e| e.proof)) {
        let part = libm::log(said.max(1.0)) / libm::log(proof.needed.max(2.0));
        let tone = if part >= 1.0 {
            "bad"
        } else if part >= 0.33 {
            "warn"
        } else {
            "good"
        };
        let text = format!("{} against it; {} acts", one_in(said), one_in(proof.needed));
        all.push(Meter::new("Evidence", part, text, tone));
    }
    all
}
