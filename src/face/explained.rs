//! An explanation as pages and reports show it.

use serde::Serialize;

use crate::account::explain::{Explanation, RivalSays, SignalExplained, TickRow, WhatIf};
use crate::words::numbers::{duration, one_in, percent, thousands};

/// A page shows so many ticks around the one that decided; a report all of them.
pub const TICKS_SHOWN: usize = 40;

#[derive(Debug, Clone, Serialize)]
pub struct Explained {
    pub verdict: String,
    pub notes: Vec<String>,
    pub baseline: Vec<String>,
    pub rule: Vec<String>,
    pub signals: Vec<SignalExplained>,
    pub together: Vec<String>,
    /// Signals, as the columns of the ticks.
    pub names: Vec<String>,
    pub ticks: Vec<Tick>,
    pub left_out: usize,
    pub what_if: Vec<WhatIf>,
    pub rivals: Vec<RivalSays>,
}

#[derive(Debug, Clone, Serialize)]
pub struct Tick {
    pub tick: u32,
    pub decides: bool,
    pub after: String,
    pub bad: String,
    pub requests: String,
    pub rate: String,
    pub one_in: Vec<String>,
    pub together: String,
}

/// The places of the ticks that are shown: what led to the decision matters more than what followed.
pub fn window(rows: &[TickRow], max: usize) -> std::ops::Range<usize> {
    let decides = rows.iter().position(|row| row.decides).unwrap_or(rows.len().saturating_sub(1));
    let end = (decides + 4).min(rows.len());
    let begin = end.saturating_sub(max);
    begin..begin.saturating_add(max).min(rows.len())
}

impl Explained {
    pub fn new(x: Explanation, max: usize) -> Explained {
        let shown = window(&x.ticks, max);
        let left_out = x.ticks.len() - shown.len();
        let names = x.ticks.last().map(|row| row.one_in.iter().map(|(name, _)| name.clone()).collect());
        let ticks = x.ticks[shown].iter().map(Tick::of).collect();
        let names = names.unwrap_or_default();
        let Explanation { verdict, notes, baseline, rule, signals, together, what_if, rivals, .. } = x;
        Explained { verdict, notes, baseline, rule, signals, together, names, ticks, left_out, what_if, rivals }
    }
}

impl Tick {
    pub fn of(row: &TickRow) -> Tick {
        let said = |n: Option<f64>| n.map_or("–".to_owned(), one_in);
        Tick {
            tick: row.tick,
            decides: row.decides,
            after: duration(row.after_cut_over_s),
            bad: thousands(row.bad),
            requests: thousands(row.requests),
            rate: if row.requests > 0.0 { percent(row.bad / row.requests) } else { "–".into() },
            one_in: row.one_in.iter().map(|(_, n)| said(*n)).collect(),
            together: said(row.together),
        }
    }
}
