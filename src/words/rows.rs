//! Rows of a watch for people: its signals, its facts, its steps, its story. Everything in them is harmless text:
//! bounded, one line where it is meant to be one, without control characters.

use serde::Serialize;

use super::numbers::{large, number, percent, thousands};
use super::safe::{tail, tame};
use crate::domain::baseline::Quality;
use crate::domain::plan::{AttemptState, StepRecord};
use crate::domain::signal::Signal;
use crate::domain::time::{Span, Timestamp};
use crate::domain::verdict::{Evidence, SignalState};
use crate::domain::view::{TimelineEvent, WatchView};

/// A mail is read at night: the rest is one link away.
const CHANGES_SHOWN: usize = 12;

#[derive(Debug, Clone, Serialize)]
pub struct SignalRow {
    pub name: String,
    pub state: String,
    pub bad: bool,
    /// `10.0 % now`, `limit 5.00 %`, ...: what there is, in this order.
    pub numbers: Vec<String>,
    pub remark: String,
}

#[derive(Debug, Clone, Serialize)]
pub struct StepRow {
    pub title: String,
    pub command: String,
    pub output: Option<String>,
}

/// A line of the story with its kind in words: `rolling back: to blue`.
pub fn told(e: &TimelineEvent) -> String {
    format!("{}: {}", tame(&e.kind.replace('_', " "), 40), tame(&e.text, 400))
}

/// `error rate 0.93 % vs 0.10 % recorded (limit 0.15 %): 9.3×, 93 bad of 10,000 requests`.
pub fn sentence(e: &Evidence) -> String {
    if e.signal == Signal::Alive {
        let why = e.remark.clone().unwrap_or_else(|| "its health check fails".into());
        return format!("slot down: {why}, {} answers in a row", e.ticks_above);
    }
    if let (None, None, Some(said)) = (e.value, e.limit, &e.remark) {
        return said.clone(); // an alert, in its own words
    }
    let mut line = format!("{} {}", e.signal, e.value.map_or("no reading".into(), |v| number(&e.signal, v)));
    if let Some(b) = e.baseline {
        line.push_str(&format!(" vs {} recorded", number(&e.signal, b)));
    }
    if let Some(l) = e.limit {
        line.push_str(&format!(" (limit {})", number(&e.signal, l)));
    }
    if let Some(r) = e.ratio {
        line.push_str(&format!(": {r:.1}×"));
    }
    match e.signal {
        Signal::ErrorRate => {
            line.push_str(&format!(", {} bad of {} requests", thousands(e.bad), thousands(e.requests)))
        }
        Signal::Latency(_) => line.push_str(&format!(
            ", {} slower than the limit of {} requests",
            thousands(e.bad),
            thousands(e.requests)
        )),
        Signal::Traffic | Signal::Alive | Signal::Custom(_) => {}
    }
    line
}

/// `error rate 9.3×`, `slot down`.
pub fn short(e: &Evidence) -> String {
    match (&e.signal, e.ratio, e.value) {
        (Signal::Alive, ..) => "slot down".into(),
        (signal, None, None) if e.remark.is_some() => signal.to_string(),
        (signal, Some(ratio), _) => format!("{signal} {ratio:.1}×"),
        (signal, None, Some(value)) => format!("{signal} {}", number(signal, value)),
        (signal, None, None) => signal.to_string(),
    }
}

pub fn signal_row(e: &Evidence, w: &WatchView) -> SignalRow {
    SignalRow {
        name: tame(&e.signal.to_string(), 60),
        state: match e.state {
            SignalState::Fine => "fine",
            SignalState::Above => "above its limit, not for long enough",
            SignalState::Breached => "BREACHED",
            SignalState::Thin => "too little traffic",
            SignalState::Blind => "no reading",
            SignalState::NotJudged => "not judged",
        }
        .into(),
        bad: e.state == SignalState::Breached,
        numbers: [
            Some(e.value.map_or("no reading".into(), |v| format!("{} now", number(&e.signal, v)))),
            e.baseline.map(|v| format!("{} recorded", number(&e.signal, v))),
            e.limit.map(|v| format!("limit {}", number(&e.signal, v))),
            e.ratio.map(|r| format!("{r:.1}×")),
            match e.signal {
                Signal::Alive => Some(format!("{} checks", thousands(e.requests))),
                Signal::ErrorRate | Signal::Latency(_) => Some(format!("{} requests counted", thousands(e.requests))),
                Signal::Traffic | Signal::Custom(_) => None,
            },
            e.proof.map(|p| match p.one_in {
                one_in if one_in < 1.5 => "no evidence against it".to_owned(),
                one_in => format!("evidence 1 in {}", large(one_in)),
            }),
            e.since.map(|at| format!("since {}", after_cut_over(at, w))),
        ]
        .into_iter()
        .flatten()
        .collect(),
        remark: tame(e.remark.as_deref().unwrap_or(""), 200),
    }
}

fn after_cut_over(at: Timestamp, w: &WatchView) -> String {
    match w.cut_over_at {
        Some(cut) if at >= cut => format!("{at} ({} after the cut-over)", whole_seconds(at.since(cut))),
        _ => at.to_string(),
    }
}

fn whole_seconds(span: Span) -> Span {
    Span::from_secs(span.as_millis() / 1000)
}

pub fn facts(w: &WatchView) -> Vec<(String, String)> {
    let version =
        |v: &Option<crate::domain::switch::Version>| v.as_ref().map_or("version not said".into(), ToString::to_string);
    let mut out = vec![
        ("Old slot".to_owned(), format!("{} ({})", w.switch.old, version(&w.switch.old_version))),
        ("New slot".to_owned(), format!("{} ({})", w.switch.new, version(&w.switch.version))),
        (
            if w.switch.detected { "Detected" } else { "Announced" }.to_owned(),
            format!("{} by {}", w.opened_at, tame(&w.switch.source, 80)),
        ),
        ("Cut-over".to_owned(), w.cut_over_at.map_or("not confirmed".into(), |at| at.to_string())),
        ("Soak".to_owned(), format!("{} with ticks of {}, mode {}, {} ticks so far", w.soak, w.tick, w.mode, w.ticks)),
    ];
    let about = &w.switch.about;
    if let Some(share) = w.share_percent {
        out.push(("Share".to_owned(), format!("{share} of the traffic, a step of a ramp")));
    }
    if let Some(until) = w.switch.old_until {
        out.push(("Old slot until".to_owned(), until.to_string()));
    }
    out.extend(about.owner.iter().map(|owner| ("Owner".to_owned(), tame(owner, 128))));
    out.extend(about.links.iter().map(|link| ("Link".to_owned(), tame(link, 500))));
    out.extend(about.changes.iter().take(CHANGES_SHOWN).map(|change| ("Change".to_owned(), tame(change, 200))));
    if about.changes.len() > CHANGES_SHOWN {
        out.push(("Change".to_owned(), format!("… and {} more", about.changes.len() - CHANGES_SHOWN)));
    }
    let baseline = match &w.baseline {
        None => "none".to_owned(),
        Some(b) => {
            let p = &b.provenance;
            let mut line = format!(
                "{} requests of {} in {} cells, {} to {}",
                thousands(b.counts.requests()),
                p.slot,
                b.cells,
                p.from,
                p.to
            );
            if let Some(rate) = b.counts.rate() {
                line.push_str(&format!(", {} errors", percent(rate)));
            }
            if p.previous_release_used {
                line.push_str("; the release before stands in");
            }
            if p.pinned {
                line.push_str("; pinned");
            }
            match &b.quality {
                Quality::Good => {}
                Quality::TooLittle { why } | Quality::Incident { why } => line.push_str(&format!("; {why}")),
            }
            for excluded in p.excluded.iter().take(4) {
                line.push_str(&format!("; without {excluded}"));
            }
            line
        }
    };
    out.push(("Baseline".to_owned(), tame(&baseline, 900)));
    out
}

pub fn step_row(s: &StepRecord) -> StepRow {
    let (took, output) = match &s.result {
        Some(AttemptState::Ended(r)) => {
            (format!("{} after {}", r.ended, r.ended_at.since(r.started_at)), Some(tail(&r.output)))
        }
        Some(AttemptState::Cancelled(why)) => (format!("never started: {}", tame(why, 200)), None),
        Some(AttemptState::Ambiguous) => ("left no result".into(), None),
        None => ("running".into(), None),
    };
    let proven = s.proven_at.map_or(String::new(), |at| format!("; proven by its probe at {at}"));
    StepRow {
        title: format!("{} (try {}), {}: {took}{proven}", tame(&s.name, 60), s.attempt.attempt, s.intended_at),
        command: tame(&s.command, 400),
        output: output.filter(|o| !o.is_empty()),
    }
}
