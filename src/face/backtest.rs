//! A backtest: a row for each past switch, and how each rule did over all of them.

use serde::Serialize;

use super::report::Drawn;
use crate::account::backtest::{After, Backtest, Cost, Row, Tally, Would};
use crate::account::rivals::Rival;
use crate::account::switches::Kind;
use crate::domain::time::Timestamp;
use crate::words::numbers::{duration, thousands};
use crate::words::safe::tame;

pub const TALLY_HEADER: [&str; 4] = ["rule", "spoke up", "of the bad ones", "of the others"];

#[derive(Debug, Clone, Serialize)]
pub struct Page {
    pub service: String,
    pub from: String,
    pub to: String,
    pub found_by: String,
    pub made_at: String,
    pub build: &'static str,
    pub header: Vec<String>,
    pub rows: Vec<PageRow>,
    pub tally_header: [&'static str; 4],
    pub tallies: Vec<[String; 4]>,
    pub notes: Vec<String>,
    pub style: &'static str,
}

#[derive(Debug, Clone, Serialize)]
pub struct PageRow {
    pub anchor: String,
    pub cells: Vec<Toned>,
    pub title: String,
    /// A line for each policy.
    pub plays: Vec<String>,
    pub charts: Vec<Drawn>,
}

#[derive(Debug, Clone, Serialize)]
pub struct Toned {
    pub text: String,
    pub tone: &'static str,
}

/// Each switch has some 100 KiB of charts: a report of more than that nobody opens.
const CHARTS_FOR_MAX: usize = 60;

impl Page {
    pub fn new(b: &Backtest, made_at: Timestamp) -> Page {
        // The ones that somebody spoke up against are looked at first; the others have charts while there is room.
        let mut order: Vec<usize> = (0..b.rows.len()).collect();
        order.sort_by_key(|i| !b.rows.get(*i).is_some_and(|row| row.plays.iter().any(|p| p.would.accuses())));
        order.truncate(CHARTS_FOR_MAX);
        let rows = b.rows.iter().enumerate().map(|(i, row)| page_row(b, i, row, order.contains(&i)));
        Page {
            service: b.service.clone(),
            from: b.from.to_string(),
            to: b.to.to_string(),
            found_by: tame(&b.found_by, 200),
            made_at: made_at.to_string(),
            build: env!("CARGO_PKG_VERSION"),
            header: header(b),
            rows: rows.collect(),
            tally_header: TALLY_HEADER,
            tallies: b.tallies().iter().map(tally).collect(),
            notes: b.notes.iter().cloned().chain(cost(&b.cost)).collect(),
            style: super::html::STYLE,
        }
    }
}

fn page_row(b: &Backtest, i: usize, row: &Row, drawn: bool) -> PageRow {
    let tones: Vec<&str> = row.plays.iter().map(|play| tone(&play.would)).collect();
    let cells = cells(b, row).into_iter().enumerate().map(|(column, text)| {
        let tone = column.checked_sub(FIXED).and_then(|i| tones.get(i)).copied().unwrap_or("");
        Toned { text, tone }
    });
    let plays = b.policies.iter().zip(&row.plays).map(|(name, play)| {
        let why = play.would.why();
        let why = if why.is_empty() { String::new() } else { format!(": {why}") };
        let shows = play.detectable.map_or(String::new(), |d| format!("; this soak could show {d:.1}×"));
        tame(&format!("{name}: {}{why}; normal {}{shows}", play.would.word(), play.baseline), 800)
    });
    // One policy's charts: the newest opinion where there are several (of the journal, the one by today's policy).
    let account = row.plays.iter().rev().find_map(|play| play.account.as_ref()).filter(|_| drawn);
    PageRow {
        anchor: format!("s{}", i + 1),
        cells: cells.collect(),
        title: format!("{} {}", row.at, what(row)),
        plays: plays.collect(),
        charts: account.map_or_else(Vec::new, |account| Drawn::all_of(account)),
    }
}

fn tone(would: &Would) -> &'static str {
    match would {
        Would::RollBack { .. } | Would::Page { .. } => "bad",
        Would::Pass { .. } => "good",
        Would::NoVerdict { .. } | Would::NotPlayed { .. } => "warn",
        Would::CutShort { .. } => "quiet",
    }
}

/// Columns before the policies'.
const FIXED: usize = 3;

pub fn header(b: &Backtest) -> Vec<String> {
    let fixed = ["switch", "what", "afterwards"].map(str::to_owned);
    let rivals = Rival::ALL.map(|rival| rival.name().to_owned());
    fixed.into_iter().chain(b.policies.iter().cloned()).chain(rivals).collect()
}

/// In the order of the header.
pub fn cells(b: &Backtest, row: &Row) -> Vec<String> {
    let columns = FIXED + b.policies.len() + Rival::ALL.len();
    let truth = match row.truth {
        Some(crate::account::backtest::Truth::Good) => "good, ",
        Some(crate::account::backtest::Truth::Bad) => "bad, ",
        None => "",
    };
    let after = match row.after {
        After::Reverted { after_s } => format!("{truth}moved back after {}", duration(after_s as f64)),
        After::Overtaken { after_s } => format!("{truth}next one after {}", duration(after_s as f64)),
        After::Kept => format!("{truth}stayed"),
    };
    let mut cells = vec![row.at.to_string(), what(row)];
    if row.kind == Kind::Revert {
        cells.push("by hand: not played".into());
        cells.resize(columns, String::new());
        return cells;
    }
    cells.push(after);
    cells.extend(row.plays.iter().map(|play| play.would.word()));
    cells.extend(row.rivals.iter().map(|r| r.after_s.map_or("–".into(), duration)));
    cells
}

fn what(row: &Row) -> String {
    let version = row.version.as_ref().map_or(String::new(), |v| format!(" ({v})"));
    if row.old == row.new {
        format!("in {}{version}", row.new)
    } else {
        format!("{} → {}{version}", row.old, row.new)
    }
}

pub fn tally(t: &Tally) -> [String; 4] {
    [
        t.rule.clone(),
        format!("{} of {}", t.accused, t.played),
        format!("{} of {}", t.found, t.bad),
        format!("{} of {}", t.wrongly, t.good),
    ]
}

/// Why each one was accused, or could not be judged.
pub fn reasons(b: &Backtest) -> Vec<String> {
    let many = b.policies.len() > 1;
    let of_row = |row: &Row| -> Vec<String> {
        let plays = b.policies.iter().zip(&row.plays).filter(|(_, play)| !play.would.why().is_empty());
        plays
            .map(|(name, play)| {
                let by = if many { format!(" by {name}") } else { String::new() };
                let line = format!("{} {}{by}: {}: {}", row.at, what(row), play.would.word(), play.would.why());
                tame(&line, 500)
            })
            .collect()
    };
    b.rows.iter().flat_map(of_row).collect()
}

pub fn cost(cost: &Cost) -> Option<String> {
    (cost.queries > 0).then(|| {
        format!(
            "Prometheus was asked {} range queries in {}, and left alone for {} between them; {} KiB of answers.",
            thousands(cost.queries as f64),
            duration(cost.asked_ms as f64 / 1000.0),
            duration(cost.rested_ms as f64 / 1000.0),
            thousands((cost.answers_bytes / 1024) as f64)
        )
    })
}

#[derive(Serialize)]
pub struct WholeBacktest<'a> {
    #[serde(flatten)]
    backtest: &'a Backtest,
    tallies: Vec<Tally>,
}

/// For programs.
pub fn whole(backtest: &Backtest) -> WholeBacktest<'_> {
    WholeBacktest { backtest, tallies: backtest.tallies() }
}
