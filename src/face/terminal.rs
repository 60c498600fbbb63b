//! One watch on a terminal: lines of pieces with a tone each. Widths are the reader's; colours are put on outside.

use super::Meter;
use super::standing::{self, Standing};
use super::watch::{plan, story};
use crate::account::charts;
use crate::domain::account::Account;
use crate::domain::time::Timestamp;
use crate::domain::verdict::{Evidence, SignalState};
use crate::domain::view::WatchView;
use crate::words::numbers::number;
use crate::words::safe::tame;

/// A piece of a line: its text, and its tone (`good`, `warn`, `bad`, `busy`, `quiet`, `strong` or empty).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Piece {
    pub text: String,
    pub tone: &'static str,
}

pub type Line = Vec<Piece>;

fn piece(text: impl Into<String>, tone: &'static str) -> Piece {
    Piece { text: text.into(), tone }
}

/// Below this there is no room for bars and blocks beside the words.
const NARROW: usize = 72;

/// The longest bar and row of blocks: wider is not clearer.
const BAR_MAX: usize = 40;

/// The whole screen: `rows` lines at most; the newest of the story fill what is left.
pub fn screen(account: &Account, now: Timestamp, columns: usize, rows: usize) -> Vec<Line> {
    let w = &account.view;
    let Standing { badge, tone, sentence } = standing::of(w);
    let mut lines = vec![
        vec![piece(standing::title(w), "strong"), piece(format!("  {}", w.id), "quiet")],
        vec![piece(badge, tone), piece(format!("  {}", tame(&sentence, 300)), "")],
    ];
    lines.extend(standing::meters(w, now).iter().flat_map(|meter| bar(meter, columns)));
    let pictures = charts::of_watch(account);
    if !w.is_drill() && !w.evidence.is_empty() {
        lines.push(Vec::new());
        let evidence = w.telling();
        let wide = evidence.iter().map(|e| e.signal.to_string().chars().count()).max().unwrap_or(0);
        for e in evidence {
            let title = charts::title(w, &e.signal);
            let chart = pictures.iter().find(|chart| chart.title == title);
            let room = columns.saturating_sub(wide + 44).min(BAR_MAX);
            let blocks = chart.filter(|_| columns >= NARROW && room >= 8).map(|chart| chart.blocks(room));
            lines.push(signal(e, wide, blocks));
        }
    }
    let steps = plan(w);
    if !steps.is_empty() {
        lines.push(Vec::new());
        for step in steps {
            lines.push(vec![
                piece("step ", "quiet"),
                piece(format!("{} ", step.name), ""),
                piece(step.state, step.tone),
                piece(if step.remark.is_empty() { String::new() } else { format!("  {}", step.remark) }, "quiet"),
            ]);
        }
    }
    lines.push(Vec::new());
    let left = rows.saturating_sub(lines.len()).max(3);
    let skipped = w.timeline.len().saturating_sub(left);
    lines.extend(w.timeline.iter().skip(skipped).map(|e| {
        let row = story(e);
        vec![piece(format!("{} ", row.clock), "quiet"), piece(format!("{}: ", row.kind), row.tone), piece(row.text, "")]
    }));
    lines
}

fn bar(meter: &Meter, columns: usize) -> Vec<Line> {
    let name = piece(format!("{:<9}", meter.name), "quiet");
    let text = piece(meter.text.clone(), "");
    if columns < NARROW {
        return vec![vec![name, text]];
    }
    let room = BAR_MAX.min(columns / 3);
    let full = (meter.value as usize * room).div_ceil(1000).min(room);
    let bar = piece("█".repeat(full), meter.tone);
    vec![vec![name, bar, piece("░".repeat(room - full), "quiet"), piece("  ", ""), text]]
}

fn signal(e: &Evidence, wide: usize, blocks: Option<String>) -> Line {
    let shown = |v: Option<f64>| v.map_or("–".to_owned(), |v| number(&e.signal, v));
    let (state, tone) = state(e.state);
    let name = e.signal.to_string();
    let pad = " ".repeat(wide.saturating_sub(name.chars().count()));
    let limit = e.limit.map_or(String::new(), |_| format!("limit {}", shown(e.limit)));
    let ratio = e.ratio.map_or(String::new(), |r| format!("{r:.1}×"));
    let mut line = vec![
        piece(format!("{name}{pad}  "), ""),
        piece(format!("{:>9}  ", shown(e.value)), "strong"),
        piece(format!("{limit:<15} {ratio:>6}  "), "quiet"),
    ];
    line.extend(blocks.map(|blocks| piece(format!("{blocks}  "), "busy")));
    line.push(piece(state, tone));
    line
}

/// A signal's state in a word, and its tone.
pub fn state(state: SignalState) -> (&'static str, &'static str) {
    match state {
        SignalState::Fine => ("fine", "good"),
        SignalState::Above => ("above", "warn"),
        SignalState::Breached => ("BREACHED", "bad"),
        SignalState::Thin => ("thin", "warn"),
        SignalState::Blind => ("no reading", "warn"),
        SignalState::NotJudged => ("not judged", "quiet"),
    }
}

/// How it stands, in one line of plain text.
pub fn line(w: &WatchView, now: Timestamp) -> String {
    let Standing { badge, sentence, .. } = standing::of(w);
    let meters = standing::meters(w, now);
    let bars: Vec<String> = meters.iter().map(|m| format!("{} {}", m.name.to_lowercase(), m.text)).collect();
    let bars = if bars.is_empty() { String::new() } else { format!(" {}", bars.join("; ")) };
    format!("{}: {badge}: {}{bars}", w.id, tame(&sentence, 300))
}
