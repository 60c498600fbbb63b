//! A message's contents, as templates get them.

use serde::Serialize;

use super::five::{Five, told};
use super::words::{command, headline, status};
use crate::domain::baseline::Quality;
use crate::domain::notice::{Notice, NoticeReason, Severity};
use crate::domain::plan::{AttemptState, StepRecord};
use crate::domain::signal::Signal;
use crate::domain::switch::Kind;
use crate::domain::time::{Span, Timestamp};
use crate::domain::verdict::{Evidence, SignalState};
use crate::domain::view::WatchView;
use crate::words::numbers::{large, number, percent, thousands};
use crate::words::safe::{tail, tame};

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
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Link {
    pub name: String,
    pub url: String,
}

/// A mail is read at night: the rest is one link away.
const CHANGES_SHOWN: usize = 12;

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
    let evidence = w.breach.as_ref().map_or(&w.evidence, |b| &b.evidence);
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

fn signal_row(e: &Evidence, w: &WatchView) -> SignalRow {
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

fn facts(w: &WatchView) -> Vec<(String, String)> {
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

fn step_row(s: &StepRecord) -> StepRow {
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
