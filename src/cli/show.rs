//! `status`, `show`, `history`: from the daemon, or from its state directory when it is down.

use comfy_table::{Cell, Color, ContentArrangement, Table};

use super::client::{Client, Trouble};
use super::{Global, Output, exit, print, print_json};
use crate::account::explain::baseline_lines;
use crate::domain::plan::{AttemptState, StepOutcome};
use crate::domain::signal::Signal;
use crate::domain::switch::Kind;
use crate::domain::switch::{ServiceName, SwitchId};
use crate::domain::time::{Span, Timestamp};
use crate::domain::verdict::{Evidence, Outcome};
use crate::domain::view::WatchView;
use crate::edge::api::types::Status;
use crate::face::standing::{self, Standing};
use crate::face::terminal::state;
use crate::journal::{Reader, WatchFilter};
use crate::words::numbers::{counted, one_in};
use crate::words::safe::{path_part, tame};

pub fn status(global: &Global) -> i32 {
    let asked: Result<Status, Trouble> = Client::new(global).and_then(|client| client.get("/api/v1/status"));
    let status = match asked {
        Ok(status) => status,
        Err(trouble) if trouble.unreachable => {
            let filter = WatchFilter { open_only: true, limit: 1000, ..WatchFilter::default() };
            return match from_disk(global, &trouble, |reader| reader.watches(&filter)) {
                Ok(watches) => {
                    list(global, &watches);
                    exit::UNREACHABLE
                }
                Err(code) => code,
            };
        }
        Err(trouble) => return trouble.tell(),
    };
    if global.output == Output::Json {
        print_json(&status);
        return exit::OK;
    }
    let armed = if status.armed { "armed" } else { "DISARMED" };
    let undelivered = usize::try_from(status.undelivered_notices).unwrap_or(0);
    let mut out = format!(
        "flipback {} up since {}, {armed}, {} undelivered\n\n",
        status.version,
        Timestamp::from_millis(status.started_at),
        counted(undelivered, "notice")
    );
    let mut table = new_table(&["service", "guard", "live slot", "last switch", "stands", "normal", "shows errors of"]);
    for s in &status.services {
        let guard = if s.armed && status.armed { s.mode.clone() } else { "DISARMED".to_owned() };
        let tone = match guard.as_str() {
            "DISARMED" => "bad",
            "observe" => "warn",
            _ => "good",
        };
        let (what, stands) = s.last.as_ref().map_or(("–", "–"), |last| (&last.what, &last.stands));
        let normal = format!("{}: {}", s.normal, s.normal_detail);
        table.add_row([
            Cell::new(&s.name),
            toned(&guard, tone),
            Cell::new(s.live.as_deref().unwrap_or("not known")),
            Cell::new(what),
            Cell::new(stands),
            toned(&normal, if s.normal == "good" { "" } else { "warn" }),
            Cell::new(s.detectable.map_or("–".into(), |ratio| format!("{ratio:.1}× and more"))),
        ]);
    }
    out.push_str(&format!("{}\n\n", trimmed(&table)));
    print(&out);
    list(global, &status.watches);
    exit::OK
}

#[derive(clap::Args)]
pub struct HistoryArgs {
    #[arg(long)]
    service: Option<String>,
    /// How it ended: passed, rolled_back_recovered, withheld ...
    #[arg(long, value_parser = clap::builder::PossibleValuesParser::new(Outcome::WORDS))]
    outcome: Option<String>,
    /// Opened from then on: 2026-11-21, 2026-11-21T14:00:00Z, or so long ago (7d)
    #[arg(long, value_parser = instant)]
    since: Option<Timestamp>,
    /// Opened before then
    #[arg(long, value_parser = instant)]
    until: Option<Timestamp>,
    /// Only open ones
    #[arg(long, conflicts_with = "ended")]
    open: bool,
    /// Only ended ones
    #[arg(long)]
    ended: bool,
    #[arg(long, default_value_t = 20, value_parser = clap::value_parser!(u32).range(1..=1000))]
    limit: u32,
}

/// A day, an instant with its zone, or how long ago.
pub(super) fn instant(text: &str) -> Result<Timestamp, String> {
    if let Ok(ago) = Span::parse(text) {
        return Ok(super::wait::now() - ago);
    }
    let whole = if text.len() == 10 { format!("{text}T00:00:00Z") } else { text.to_owned() };
    match chrono::DateTime::parse_from_rfc3339(&whole) {
        Ok(at) => Ok(Timestamp::from_millis(at.timestamp_millis())),
        Err(_) => Err("write a day (2026-11-21), an instant (2026-11-21T14:00:00Z) or how long ago (7d)".into()),
    }
}

pub fn history(global: &Global, args: &HistoryArgs) -> i32 {
    let mut path = format!("/api/v1/watches?limit={}&open={}&ended={}", args.limit, args.open, args.ended);
    let mut field = |name: &str, text: Option<String>| {
        path.extend(text.map(|text| format!("&{name}={}", path_part(&text))));
    };
    field("service", args.service.clone());
    field("outcome", args.outcome.clone());
    field("since", args.since.map(|at| at.to_string()));
    field("until", args.until.map(|at| at.to_string()));
    let asked: Result<Vec<WatchView>, Trouble> = Client::new(global).and_then(|client| client.get(&path));
    let found = match asked {
        Ok(watches) => Ok(watches),
        Err(trouble) if trouble.unreachable => {
            let service = match args.service.as_deref().map(ServiceName::try_new).transpose() {
                Ok(service) => service,
                Err(why) => {
                    eprintln!("flipback: {why}");
                    return exit::USAGE;
                }
            };
            let filter = WatchFilter {
                service,
                open_only: args.open,
                ended_only: args.ended,
                outcome: args.outcome.clone(),
                since: args.since,
                until: args.until,
                limit: args.limit,
                before: None,
                ..WatchFilter::default()
            };
            from_disk(global, &trouble, |reader| reader.watches(&filter))
        }
        Err(trouble) => return trouble.tell(),
    };
    match found {
        Ok(watches) => {
            list(global, &watches);
            exit::OK
        }
        Err(code) => code,
    }
}

pub fn one(global: &Global, id: &str) -> i32 {
    match of_watch(global, id, "", |reader, id| reader.watch(id)) {
        Ok(view) => {
            if global.output == Output::Json {
                print_json(&view);
            } else {
                print(&text(&view));
            }
            exit::OK
        }
        Err(code) => code,
    }
}

/// One watch's route, or the same from disk when the daemon is down. What is wrong was said already.
pub(super) fn of_watch<T: serde::de::DeserializeOwned>(
    global: &Global,
    id: &str,
    route: &str,
    read: impl FnOnce(&Reader, &SwitchId) -> Result<Option<T>, crate::journal::JournalError>,
) -> Result<T, i32> {
    let path = format!("/api/v1/watches/{}{route}", path_part(id));
    match Client::new(global).and_then(|client| client.get(&path)) {
        Ok(found) => Ok(found),
        Err(trouble) if trouble.unreachable => {
            let parsed = SwitchId::try_new(id).map_err(|why| {
                eprintln!("flipback: {why}");
                exit::USAGE
            })?;
            match from_disk(global, &trouble, |reader| read(reader, &parsed))? {
                Some(found) => Ok(found),
                None => {
                    eprintln!("flipback: there is no watch {parsed}");
                    Err(exit::USAGE)
                }
            }
        }
        Err(trouble) => Err(trouble.tell()),
    }
}

/// The state directory, read-only, with a word that the daemon is down.
fn from_disk<T>(
    global: &Global,
    trouble: &Trouble,
    read: impl FnOnce(&Reader) -> Result<T, crate::journal::JournalError>,
) -> Result<T, i32> {
    match Reader::open(&global.state_dir).and_then(|reader| read(&reader)) {
        Ok(found) => {
            eprintln!("flipback: {}", trouble.text);
            eprintln!("flipback: this is what {} held last; nothing is being watched now", global.state_dir.display());
            Ok(found)
        }
        Err(error) => {
            eprintln!("flipback: {}", trouble.text);
            eprintln!("flipback: {error}");
            Err(exit::UNREACHABLE)
        }
    }
}

pub(super) fn new_table<S: AsRef<str>>(header: &[S]) -> Table {
    let mut table = Table::new();
    *table.style_mut() = comfy_table::presets::NOTHING;
    table.set_content_arrangement(ContentArrangement::Dynamic);
    table.set_header(header.iter().map(|h| h.as_ref().to_uppercase()));
    table
}

fn list(global: &Global, watches: &[WatchView]) {
    if global.output == Output::Json {
        return print_json(&watches);
    }
    if watches.is_empty() {
        return print("no watches\n");
    }
    let mut table = new_table(&["id", "switch", "opened", "stands", "detail"]);
    for w in watches {
        let Standing { badge, tone, sentence } = standing::of(w);
        let detail = w.outcome.as_ref().map_or(sentence, |outcome| outcome.detail().unwrap_or_default());
        table.add_row([
            Cell::new(&w.id),
            Cell::new(standing::title(w)),
            Cell::new(w.opened_at),
            toned(badge, tone),
            Cell::new(tame(&detail, 120)),
        ]);
    }
    print(&format!("{}\n", trimmed(&table)));
}

/// A cell with its colour, where colours are wanted.
fn toned(text: &str, tone: &str) -> Cell {
    let cell = Cell::new(text);
    match tone {
        _ if !super::colours() => cell,
        "good" => cell.fg(Color::Green),
        "warn" => cell.fg(Color::Yellow),
        "bad" => cell.fg(Color::Red),
        "busy" => cell.fg(Color::Cyan),
        _ => cell,
    }
}

/// Without the blanks at the ends of its lines.
pub(super) fn trimmed(table: &Table) -> String {
    table.to_string().lines().map(str::trim_end).collect::<Vec<_>>().join("\n")
}

/// ` flag new-flow:`, where a flag was switched.
fn flag_of(w: &WatchView) -> String {
    match &w.switch.kind {
        Kind::Flag(flag) => format!(" flag {flag}:"),
        Kind::Traffic => String::new(),
    }
}

fn text(w: &WatchView) -> String {
    let mut out = String::new();
    let mut line = |text: String| {
        out.push_str(&text);
        out.push('\n');
    };
    let version = w.switch.version.as_ref().map_or(String::new(), |v| format!(" ({v})"));
    line(format!("{}: {}{} {} → {}{version}", w.id, w.switch.service, flag_of(w), w.switch.old, w.switch.new));
    match &w.outcome {
        Some(outcome) => line(format!("outcome: {outcome}")),
        None => line(format!("phase {}, verdict {}; the soak ends at {}", w.phase.as_str(), w.verdict, w.soak_ends_at)),
    }
    line(format!("mode {}, {} ticks of {}", w.mode, w.ticks, w.tick));
    if let Some(pause) = &w.paused {
        line(format!("PAUSED since {} until {}, {}: nothing is judged", pause.since, pause.until, pause.by));
    }
    if let Some(share) = w.share_percent {
        line(format!("ramp: {share} of the traffic"));
    }
    if let Some(until) = w.switch.old_until {
        line(format!("{} will be gone at {until}", w.switch.old));
    }
    let about = &w.switch.about;
    about.owner.iter().for_each(|owner| line(format!("owner: {owner}")));
    about.links.iter().for_each(|link| line(format!("link: {link}")));
    about.changes.iter().for_each(|change| line(format!("change: {change}")));
    line("\nTIMELINE (UTC)".into());
    for event in &w.timeline {
        line(format!("  {}  {:<14} {}", event.at, event.kind, event.text));
    }
    let (title, evidence) = match &w.breach {
        Some(breach) => ("\nSIGNALS AT THE BREACH", &breach.evidence),
        None => ("\nSIGNALS", &w.evidence),
    };
    line(title.into());
    let mut table = new_table(&["signal", "state", "value", "recorded", "limit", "ratio", "counted", "evidence"]);
    for e in evidence {
        table.add_row(evidence_row(e));
    }
    line(table.to_string());
    let all = w.breach.as_ref().map_or(w.one_in, |b| b.one_in);
    if let (Some(all), Some(proof)) = (all, evidence.iter().find_map(|e| e.proof)) {
        let (all, needed) = (one_in(all), one_in(proof.needed));
        line(format!("all signals together: {all} (a rollback needs {needed})"));
    }
    if let Some(detectable) = w.detectable {
        line(format!("this traffic can show errors of {detectable:.1}× the normal within the soak"));
    }
    line("\nBASELINE".into());
    match &w.baseline {
        Some(baseline) => baseline_lines(baseline).into_iter().for_each(|l| line(format!("  {l}"))),
        None => line("  none".into()),
    }
    if !w.steps.is_empty() {
        line("\nROLLBACK".into());
    }
    for s in &w.steps {
        let ended = match &s.result {
            Some(AttemptState::Ended(r)) => format!("{} after {}", r.ended, r.ended_at.since(r.started_at)),
            Some(AttemptState::Cancelled(why)) => format!("never started: {why}"),
            Some(AttemptState::Ambiguous) => "left no result".into(),
            None => "running".into(),
        };
        let outcome = match &s.outcome {
            Some(StepOutcome::Done) => "done".into(),
            Some(StepOutcome::Failed(why)) => format!("failed: {why}"),
            Some(StepOutcome::Stuck(why)) => format!("STUCK: {why}"),
            None => "open".into(),
        };
        line(format!("  {} (try {}): {ended}; {outcome}", s.name, s.attempt.attempt));
        line(format!("    $ {}", s.command));
        if let Some(AttemptState::Ended(r)) = &s.result {
            for output in r.output.lines().rev().take(10).collect::<Vec<_>>().into_iter().rev() {
                line(format!("    {}", output.chars().filter(|c| !c.is_control()).take(200).collect::<String>()));
            }
        }
    }
    out
}

fn evidence_row(e: &Evidence) -> [String; 8] {
    let number = |v: f64| match e.signal {
        Signal::ErrorRate => format!("{:.2} %", v * 100.0),
        Signal::Latency(_) => format!("{:.1} ms", v * 1000.0),
        Signal::Alive => if v > 0.0 { "alive" } else { "down" }.into(),
        Signal::Traffic | Signal::Custom(_) => format!("{v}"),
    };
    let shown = |v: Option<f64>| v.map_or("–".into(), number);
    let (state, _) = state(e.state);
    [
        e.signal.to_string(),
        state.into(),
        shown(e.value),
        shown(e.baseline),
        shown(e.limit),
        match (e.ratio, e.proof.and_then(|p| p.interval)) {
            (Some(ratio), Some((low, high))) => format!("{ratio:.1}× [{low:.1}, {high:.1}]"),
            (Some(ratio), None) => format!("{ratio:.1}×"),
            (None, _) => "–".into(),
        },
        format!("{:.0}", e.requests),
        match e.proof {
            Some(proof) => one_in(proof.one_in),
            None => format!("{} of {} ticks", e.ticks_above, e.ticks_needed),
        },
    ]
}
