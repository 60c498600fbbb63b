//! `flipback explain`: why a watch was judged as it was.

use super::show::{new_table, of_watch};
use super::{Global, Output, exit, print, print_json};
use crate::account::explain::{Explanation, TickRow};
use crate::words::numbers::{duration, one_in, percent, thousands};

/// Ticks that are listed around what matters; `--ticks` lists all.
const TICKS_SHOWN: usize = 12;

pub fn run(global: &Global, id: &str, every_tick: bool) -> i32 {
    let account = match of_watch(global, id, "/account", |reader, id| reader.account(id)) {
        Ok(account) => account,
        Err(code) => return code,
    };
    let explanation = crate::account::explain::of(&account);
    if global.output == Output::Json {
        print_json(&explanation);
    } else {
        print(&text(&explanation, every_tick));
    }
    exit::OK
}

fn text(x: &Explanation, every_tick: bool) -> String {
    let mut out = format!("{}: {}\n", x.switch, x.verdict);
    let mut section = |title: &str, lines: &[String]| {
        if !lines.is_empty() {
            out.push_str(&format!("\n{title}\n"));
            lines.iter().for_each(|line| out.push_str(&format!("  {line}\n")));
        }
    };
    section("NOTES", &x.notes);
    section("BASELINE", &x.baseline);
    section("RULE", &x.rule);
    for s in &x.signals {
        let title = format!("{}{}", s.signal.to_uppercase(), if s.broke { " (BREACHED)" } else { "" });
        section(&title, &s.lines);
    }
    section("ALL SIGNALS TOGETHER", &x.together);
    if !x.ticks.is_empty() {
        section("TICK BY TICK (evidence up to the tick; → decides)", &ticks(&x.ticks, every_tick));
    }
    let what_if: Vec<String> = x.what_if.iter().map(|w| format!("{}: {}", w.change, w.text)).collect();
    section("WHAT WOULD HAVE CHANGED IT", &what_if);
    let mut table = new_table(&["rule", "on the same counts", "which is"]);
    x.rivals.iter().for_each(|r| {
        table.add_row([r.name.as_str(), r.text.as_str(), r.rule.as_str()]);
    });
    if !x.rivals.is_empty() {
        section(
            "RULES OF OTHER TOOLS",
            &table.to_string().lines().map(|l| l.trim_end().to_owned()).collect::<Vec<_>>(),
        );
    }
    out
}

fn ticks(rows: &[TickRow], every: bool) -> Vec<String> {
    let mut header = vec!["".to_owned(), "tick".into(), "after".into(), "bad of requests".into(), "rate".into()];
    header.extend(
        rows.last().map(|row| row.one_in.iter().map(|(name, _)| name.clone()).collect::<Vec<_>>()).unwrap_or_default(),
    );
    header.push("together".into());
    let mut table = new_table(&header);
    let decides = rows.iter().position(|row| row.decides).unwrap_or(rows.len().saturating_sub(1));
    // What led there matters more than what followed.
    let first = (decides + 3).saturating_sub(TICKS_SHOWN);
    let shown = |i: usize| every || (first..first + TICKS_SHOWN).contains(&i);
    for (_, row) in rows.iter().enumerate().filter(|(i, _)| shown(*i)) {
        let rate = if row.requests > 0.0 { percent(row.bad / row.requests) } else { "–".into() };
        let mut cells = vec![
            if row.decides { "→".to_owned() } else { String::new() },
            row.tick.to_string(),
            duration(row.after_cut_over_s),
            format!("{} of {}", thousands(row.bad), thousands(row.requests)),
            rate,
        ];
        let said = |n: Option<f64>| n.map_or("–".to_owned(), one_in);
        cells.extend(row.one_in.iter().map(|(_, n)| said(*n)));
        cells.push(said(row.together));
        table.add_row(cells);
    }
    let mut lines: Vec<String> = table.to_string().lines().map(|l| l.trim_end().to_owned()).collect();
    let left = rows.len() - rows.iter().enumerate().filter(|(i, _)| shown(*i)).count();
    if left > 0 {
        lines.push(format!("… {left} more: --ticks shows all of them"));
    }
    lines
}
