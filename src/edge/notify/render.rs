//! A notice in words: subject, text and HTML from the same facts.
//!
//! The first lines answer what broke, how sure, what was done, whether it worked and what to do now.

use minijinja::syntax::SyntaxConfig;
use minijinja::{AutoEscape, Environment, UndefinedBehavior};
use serde::Serialize;

use super::drill;
use super::words::{advice, command, explains, headline, status};
use crate::domain::baseline::Quality;
use crate::domain::notice::{Notice, NoticeReason, Severity};
use crate::domain::plan::{AttemptState, StepOutcome, StepRecord};
use crate::domain::signal::Signal;
use crate::domain::switch::Kind;
use crate::domain::time::{Span, Timestamp};
use crate::domain::verdict::{Evidence, Outcome, SignalState};
use crate::domain::view::{TimelineEvent, WatchView};

/// A query that shows a signal, and where to look at it.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct ShownQuery {
    #[serde(skip)]
    pub signal: Signal,
    pub name: String,
    pub query: String,
    pub link: Option<String>,
}

#[derive(Debug, Clone, PartialEq)]
pub struct Rendered {
    pub subject: String,
    pub text: String,
    pub html: String,
}

/// Output of a step that a mail carries: the end of it says what went wrong.
const OUTPUT_LINES: usize = 20;
const OUTPUT_CHARS: usize = 2048;

/// A mail is read at night: the rest is one link away.
const CHANGES_SHOWN: usize = 12;

/// A subject is read on a telephone's lock screen.
const SUBJECT_CHARS: usize = 180;

#[derive(Serialize)]
struct Page {
    subject: String,
    colour: &'static str,
    headline: String,
    answers: Vec<(String, String)>,
    signals: Vec<SignalRow>,
    facts: Vec<(String, String)>,
    steps: Vec<StepRow>,
    timeline: Vec<(String, String)>,
    queries: Vec<ShownQuery>,
    command: String,
    runbook: Option<String>,
    footer: String,
}

#[derive(Serialize)]
struct SignalRow {
    name: String,
    state: String,
    bad: bool,
    /// `10.0 % now`, `limit 5.00 %`, ...: what there is, in this order.
    numbers: Vec<String>,
    remark: String,
}

#[derive(Serialize)]
struct StepRow {
    title: String,
    command: String,
    output: Option<String>,
}

/// Never fails: should a template not render (a fault of ours), the facts go out as plain text.
pub fn render(notice: &Notice, queries: &[ShownQuery], host: &str) -> Rendered {
    let page = page(notice, queries, host);
    let mut env = Environment::new();
    env.set_undefined_behavior(UndefinedBehavior::Strict);
    if let Ok(syntax) = SyntaxConfig::builder().trim_blocks(true).lstrip_blocks(true).build() {
        env.set_syntax(syntax);
    }
    env.set_auto_escape_callback(|name| if name.ends_with(".html") { AutoEscape::Html } else { AutoEscape::None });
    let fill = |env: &mut Environment<'static>, name: &'static str, source: &'static str| {
        env.add_template(name, source)?;
        env.get_template(name)?.render(minijinja::Value::from(minijinja::value::Serde(&page)))
    };
    let text = fill(&mut env, "notice.txt", include_str!("templates/notice.txt"));
    let html = fill(&mut env, "notice.html", include_str!("templates/notice.html"));
    let plain = || {
        let mut lines = vec![page.headline.clone(), String::new()];
        lines.extend(page.answers.iter().map(|(q, a)| format!("{q}: {a}")));
        lines.extend(page.facts.iter().map(|(q, a)| format!("{q}: {a}")));
        lines.push(format!("Next: {}", page.command));
        lines.join("\n")
    };
    let text = text.unwrap_or_else(|error| {
        tracing::error!(%error, "the mail's text template does not render");
        plain()
    });
    let html = html.unwrap_or_else(|error| {
        tracing::error!(%error, "the mail's HTML template does not render");
        String::new()
    });
    Rendered { subject: page.subject, text, html }
}

fn page(notice: &Notice, queries: &[ShownQuery], host: &str) -> Page {
    let w = &notice.watch;
    let evidence = w.breach.as_ref().map_or(&w.evidence, |b| &b.evidence);
    let breached: Vec<&Evidence> = evidence.iter().filter(|e| e.state == SignalState::Breached).collect();
    Page {
        subject: subject(notice, &breached),
        colour: match notice.reason.severity() {
            Severity::Info => "#1a7f37",
            Severity::Warning => "#9a6700",
            Severity::Page => "#cf222e",
        },
        headline: headline(notice),
        answers: answers(notice, &breached),
        // A drill reads nothing.
        signals: if w.is_drill() { Vec::new() } else { evidence.iter().map(|e| signal_row(e, w)).collect() },
        facts: if w.is_drill() { Vec::new() } else { facts(w) },
        steps: w.steps.iter().map(step_row).collect(),
        timeline: w.timeline.iter().rev().take(25).rev().map(|e| (e.at.to_string(), told(e))).collect(),
        queries: queries
            .iter()
            .filter(|_| !w.is_drill())
            .map(|q| ShownQuery { name: tame(&q.name, 80), query: tame(&q.query, 2000), ..q.clone() })
            .collect(),
        command: command(notice),
        runbook: w.runbook.clone(),
        footer: format!("flipback on {}, notice {} of {}, {}", tame(host, 100), notice.key.n, w.id, notice.at),
    }
}

/// A line of the story with its kind in words: `rolling back: to blue`.
fn told(e: &TimelineEvent) -> String {
    format!("{}: {}", tame(&e.kind.replace('_', " "), 40), tame(&e.text, 400))
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
    let what = breached.first().map_or(String::new(), |e| format!(": {}", short(e)));
    let line = format!("[flipback] {} {way}{}{what}", status(notice.reason), versioned(w));
    tame(&line, SUBJECT_CHARS)
}

/// `error rate 9.3×`, `slot down`.
fn short(e: &Evidence) -> String {
    match (&e.signal, e.ratio, e.value) {
        (Signal::Alive, ..) => "slot down".into(),
        (signal, None, None) if e.remark.is_some() => signal.to_string(),
        (signal, Some(ratio), _) => format!("{signal} {ratio:.1}×"),
        (signal, None, Some(value)) => format!("{signal} {}", number(signal, value)),
        (signal, None, None) => signal.to_string(),
    }
}

fn answers(notice: &Notice, breached: &[&Evidence]) -> Vec<(String, String)> {
    let w = &notice.watch;
    let mut out = Vec::new();
    let mut say = |q: &str, a: String| out.push((q.to_owned(), tame(&a, 600)));
    let drift = w.timeline.iter().rev().find(|e| e.kind == "drift").filter(|_| notice.reason == NoticeReason::Drift);
    if let Some(last) = drift {
        say("What happened", told(last));
    }
    if !breached.is_empty() {
        say(
            if drift.is_some() { "What broke before" } else { "What broke" },
            breached.iter().map(|e| sentence(e)).collect::<Vec<_>>().join("; "),
        );
        let mut sure: Vec<String> = breached.iter().map(|e| how_sure(e)).collect();
        if let Some(one_in) =
            w.breach.as_ref().and_then(|b| b.one_in).filter(|_| breached.iter().any(|e| e.proof.is_some()))
        {
            let needed = breached.iter().find_map(|e| e.proof).map_or(0.0, |p| p.needed);
            sure.insert(
                0,
                format!("all signals together 1 in {} (rollback at 1 in {})", large(one_in), thousands(needed)),
            );
        }
        say("How sure", format!("{}; since {}", sure.join("; "), w.breach.as_ref().map_or(notice.at, |b| b.since)));
    } else if drift.is_none()
        && let Some(last) = w.timeline.iter().rev().find(|e| explains(notice.reason, &e.kind))
    {
        say("What happened", told(last));
    }
    match &w.outcome {
        Some(Outcome::Withheld { why }) => say("What was done", format!("nothing was moved: {why}")),
        Some(Outcome::RollbackFailed { why }) => {
            say("What was done", done(w));
            say("Did it work", format!("no: {why}"));
        }
        Some(outcome) if drift.is_some() => {
            say("What was done", done(w));
            say("Did it work", format!("it did ({}), until it was undone", outcome.word()));
        }
        Some(Outcome::Healed { by }) => {
            say("What was done", format!("{by}; no traffic was moved"));
            say("Did it work", format!("yes: {}", recovery(w)));
        }
        Some(Outcome::Drilled { .. }) => say("What was done", drill::done(w)),
        Some(Outcome::DrillFailed { why }) => {
            say("What was done", drill::done(w));
            say("Did it work", format!("no: {why}"));
        }
        Some(Outcome::RolledBackRecovered) => {
            say("What was done", done(w));
            say("Did it work", format!("yes: {}", recovery(w)));
        }
        Some(Outcome::RolledBackNotRecovered) => {
            say("What was done", done(w));
            say("Did it work", format!("the traffic moved, but {} is not well: {}", w.back_to, recovery(w)));
        }
        Some(Outcome::RolledBackUnseen) => {
            say("What was done", done(w));
            say(
                "Did it work",
                format!("the probe shows {}, but no traffic could confirm it: {}", w.back_to, recovery(w)),
            );
        }
        Some(outcome) => {
            if let Some(detail) = outcome.detail() {
                say("Why", detail);
            }
        }
        None if matches!(notice.reason, NoticeReason::BreachedActing | NoticeReason::OrderedActing) => {
            let what = match (w.remedies.is_empty(), notice.reason) {
                (false, NoticeReason::BreachedActing) => "the ladder has begun; which rung helped".to_owned(),
                _ => format!("the rollback to {} has begun; its result", w.back_to),
            };
            say("What is done", format!("{what} follows in this thread"));
        }
        None => {}
    }
    say("What now", advice(notice));
    out
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

/// A number of any size, in as many digits as it deserves.
fn large(n: f64) -> String {
    if n >= 1e7 { format!("10^{:.0}", n.log10().floor()) } else { thousands(n) }
}

fn done(w: &WatchView) -> String {
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
    if steps.is_empty() {
        "no step was run".into()
    } else {
        let proven = w.recovery.is_some();
        let what = if proven { "moved back" } else { "tried to move back" };
        format!("{what} to {}: {}", w.back_to, steps.join(", "))
    }
}

fn recovery(w: &WatchView) -> String {
    let Some(r) = &w.recovery else { return "nothing was read after it".into() };
    let since = match &w.outcome {
        Some(Outcome::Healed { .. }) => format!("in force since {}", r.proven_at),
        _ => format!("the probe shows {} since {}", w.back_to, r.proven_at),
    };
    match (r.ticks_fine, r.error_rate) {
        (0, Some(rate)) => format!("{since}; {} errors in the last tick", percent(rate)),
        (0, None) => format!("{since}; no request was counted after that"),
        (ticks, rate) => {
            let rate = rate.map_or("no error rate".into(), |rate| format!("{} errors", percent(rate)));
            format!("{since}; after that {rate} over {} requests in {ticks} good ticks", thousands(r.requests))
        }
    }
}

/// `error rate 0.93 % vs 0.10 % recorded (limit 0.15 %): 9.3×, 93 bad of 10,000 requests`.
fn sentence(e: &Evidence) -> String {
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

/// The end of an output, harmless: no control characters, no escape sequences, few lines.
fn tail(output: &str) -> String {
    let mut clean = String::new();
    let mut escape = false;
    for c in output.chars() {
        match c {
            '\u{1b}' => escape = true,
            c if escape => escape = !(c.is_ascii_alphabetic() || c == '\n'),
            '\n' => clean.push('\n'),
            '\t' => clean.push(' '),
            c if unruly(c) => {}
            c => clean.push(c),
        }
    }
    let lines: Vec<&str> = clean.lines().map(str::trim_end).filter(|l| !l.is_empty()).collect();
    let kept = lines[lines.len().saturating_sub(OUTPUT_LINES)..].join("\n");
    let skip = kept.chars().count().saturating_sub(OUTPUT_CHARS);
    kept.chars().skip(skip).collect()
}

/// One line of bounded length without control characters.
fn tame(text: &str, max: usize) -> String {
    let line: String = text.chars().map(|c| if unruly(c) { ' ' } else { c }).collect();
    if line.chars().count() > max { line.chars().take(max - 1).chain(['…']).collect() } else { line }
}

/// Control characters, and those that turn the order of letters round.
fn unruly(c: char) -> bool {
    c.is_control() || matches!(c, '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

fn number(signal: &Signal, v: f64) -> String {
    match signal {
        Signal::ErrorRate => percent(v),
        Signal::Latency(_) if v < 0.01 => format!("{:.1} ms", v * 1000.0),
        Signal::Latency(_) => format!("{} ms", thousands(v * 1000.0)),
        Signal::Alive => if v > 0.0 { "alive" } else { "down" }.into(),
        Signal::Traffic => format!("{v:.1}/s"),
        Signal::Custom(_) => format!("{v}"),
    }
}

fn percent(rate: f64) -> String {
    let p = rate * 100.0;
    if p == 0.0 {
        "0 %".into()
    } else if p < 0.01 {
        format!("{p:.4} %")
    } else if p < 10.0 {
        format!("{p:.2} %")
    } else {
        format!("{p:.1} %")
    }
}

fn thousands(n: f64) -> String {
    let digits = format!("{:.0}", n.abs());
    let mut out = String::new();
    for (i, c) in digits.chars().enumerate() {
        if i > 0 && (digits.len() - i) % 3 == 0 {
            out.push(',');
        }
        out.push(c);
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_for_people() {
        assert_eq!(thousands(1_234_567.0), "1,234,567");
        assert_eq!((percent(0.0), percent(0.0093), percent(0.5)), ("0 %".into(), "0.93 %".into(), "50.0 %".into()));
    }

    #[test]
    fn a_hostile_output_is_harmless() {
        let output = format!("{}\u{1b}[31mred\u{1b}[0m\0\r\n<script>\n", "line\n".repeat(500));
        let shown = tail(&output);
        assert!(
            shown.lines().count() <= OUTPUT_LINES && shown.contains("red") && !shown.contains(['\u{1b}', '\0', '\r'])
        );
    }
}
