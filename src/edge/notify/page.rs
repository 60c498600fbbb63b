//! A message's contents, as templates get them.

use serde::Serialize;

use super::five::Five;
use super::words::{command, headline, status};
use crate::domain::notice::{Notice, NoticeReason, Severity};
use crate::domain::signal::Signal;
use crate::domain::switch::Kind;
use crate::domain::verdict::{Evidence, SignalState};
use crate::domain::view::WatchView;
use crate::words::numbers::percent;
use crate::words::rows::{SignalRow, StepRow, facts, short, signal_row, step_row, told};
use crate::words::safe::tame;

/// A query that shows a signal, and where to look at it.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct ShownQuery {
    #[serde(skip)]
    pub signal: Signal,
    pub name: String,
    pub query: String,
    pub link: Option<String>,
}

/// Where to look further.
pub use crate::face::watch::Link;

/// A subject is read on a telephone's lock screen.
const SUBJECT_CHARS: usize = 180;

/// The newest lines of the story.
const TIMELINE_SHOWN: usize = 25;

/// Steps of a ladder with its attempts; the last ones say how it ended.
const STEPS_SHOWN: usize = 12;

/// What templates may use. Everything in it is harmless text: bounded, one line where it is meant to be one, without
/// control characters; HTML templates escape it.
#[derive(Debug, Clone, Serialize)]
pub struct Page {
    pub subject: String,
    /// `rolled_back_recovered`, `blind` ...
    pub kind: &'static str,
    /// `info`, `warning` or `page`.
    pub severity: &'static str,
    pub colour: &'static str,
    /// The outcome in capitals, as in the subject.
    pub status: String,
    pub headline: String,
    /// Question and answer; always these five.
    pub answers: Vec<(&'static str, String)>,
    pub charts: Vec<ChartRef>,
    pub signals: Vec<SignalRow>,
    pub facts: Vec<(String, String)>,
    /// Title of the steps that follow.
    pub steps_title: &'static str,
    pub steps: Vec<StepRow>,
    pub timeline: Vec<(String, String)>,
    pub queries: Vec<ShownQuery>,
    pub links: Vec<Link>,
    pub sections: Vec<Section>,
    pub command: String,
    pub footer: String,
    pub service: String,
    pub switch: String,
    pub at: String,
}

/// A picture of a signal.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct ChartRef {
    /// The part of the mail that it is in.
    pub cid: String,
    /// What it shows, in words.
    pub alt: String,
    /// The same as a line of blocks, for text.
    pub sparkline: String,
    pub width: u32,
    pub height: u32,
    /// Whether there is a picture at all.
    pub picture: bool,
}

/// A list with a title: what a digest is made of.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Section {
    pub title: String,
    pub lines: Vec<String>,
}

pub fn severity_word(severity: Severity) -> &'static str {
    match severity {
        Severity::Info => "info",
        Severity::Warning => "warning",
        Severity::Page => "page",
    }
}

pub fn colour(severity: Severity) -> &'static str {
    match severity {
        Severity::Info => "#1a7f37",
        Severity::Warning => "#9a6700",
        Severity::Page => "#cf222e",
    }
}

pub fn page(notice: &Notice, queries: &[ShownQuery], links: &[Link], host: &str) -> Page {
    let w = &notice.watch;
    let evidence = w.telling();
    let breached: Vec<&Evidence> = evidence.iter().filter(|e| e.state == SignalState::Breached).collect();
    let severity = notice.reason.severity();
    let mut links: Vec<Link> =
        links.iter().map(|l| Link { name: tame(&l.name, 60), url: tame(&l.url, 1000) }).collect();
    links.extend(w.runbook.iter().map(|url| Link { name: "Runbook".into(), url: tame(url, 500) }));
    Page {
        subject: subject(notice, &breached),
        kind: notice.reason.word(),
        severity: severity_word(severity),
        colour: colour(severity),
        status: status(notice).to_owned(),
        headline: tame(&headline(notice), 400),
        answers: Five::of(notice, &breached).rows().map(|(q, a)| (q, a.to_owned())).to_vec(),
        charts: Vec::new(),
        // A drill reads nothing.
        signals: if w.is_drill() { Vec::new() } else { evidence.iter().map(|e| signal_row(e, w)).collect() },
        facts: if w.is_drill() { Vec::new() } else { facts(w) },
        steps_title: match notice.reason {
            NoticeReason::Drilled | NoticeReason::DrillFailed => "Steps of the drill",
            NoticeReason::AfterPassedFailed | NoticeReason::Passed => "Steps after the soak",
            _ => "Rollback steps",
        },
        steps: w.steps.iter().rev().take(STEPS_SHOWN).rev().map(step_row).collect(),
        timeline: w.timeline.iter().rev().take(TIMELINE_SHOWN).rev().map(|e| (e.at.to_string(), told(e))).collect(),
        queries: queries
            .iter()
            .filter(|_| !w.is_drill())
            .map(|q| ShownQuery {
                signal: q.signal.clone(),
                name: tame(&q.name, 80),
                query: tame(&q.query, 2000),
                link: q.link.as_ref().map(|link| tame(link, 4000)),
            })
            .collect(),
        links,
        sections: Vec::new(),
        command: command(notice),
        footer: format!("flipback on {}, notice {} of {}, {}", tame(host, 100), notice.key.n, w.id, notice.at),
        service: w.switch.service.to_string(),
        switch: w.id.to_string(),
        at: notice.at.to_string(),
    }
}

/// `checkout`, or `checkout flag new-flow`.
fn subject_of(w: &WatchView) -> String {
    match &w.switch.kind {
        Kind::Traffic => w.switch.service.to_string(),
        Kind::Flag(flag) => format!("{} flag {flag}", w.switch.service),
    }
}

fn way(w: &WatchView) -> String {
    if w.is_drill() {
        return format!("{} {} → {} and home", subject_of(w), w.switch.new, w.switch.old);
    }
    format!("{} {} → {}", subject_of(w), w.switch.old, w.switch.new)
}

fn versioned(w: &WatchView) -> String {
    w.switch.version.as_ref().map_or(String::new(), |v| format!(" ({v})"))
}

fn subject(notice: &Notice, breached: &[&Evidence]) -> String {
    let w = &notice.watch;
    let rolled = matches!(
        notice.reason,
        NoticeReason::RolledBackRecovered | NoticeReason::RolledBackNotRecovered | NoticeReason::RolledBackUnseen
    );
    let way = if rolled { format!("{} {} → {}", subject_of(w), w.switch.new, w.back_to) } else { way(w) };
    let still = match (notice.reason, w.recovery.as_ref()) {
        // What is wrong now, and where; what was wrong before is in the answers.
        (NoticeReason::RolledBackNotRecovered, Some(r)) => r.above.first().map(|signal| match (signal, r.error_rate) {
            (Signal::ErrorRate, Some(rate)) => format!(": {} {} errors", w.back_to, percent(rate)),
            _ => format!(": {signal} of {}", w.back_to),
        }),
        _ => None,
    };
    let what = still.or_else(|| breached.first().map(|e| format!(": {}", short(e)))).unwrap_or_default();
    let line = format!("[flipback] {} {way}{}{what}", status(notice), versioned(w));
    tame(&line, SUBJECT_CHARS)
}
