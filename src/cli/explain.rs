//! `flipback explain`: why a watch was judged as it was.

use super::show::{new_table, of_watch, trimmed};
use super::{Global, Output, exit, print, print_json};
use crate::face::explained::Explained;

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
        let shown = if every_tick { usize::MAX } else { TICKS_SHOWN };
        print(&text(account.view.id.as_str(), &Explained::new(explanation, shown)));
    }
    exit::OK
}

fn text(id: &str, x: &Explained) -> String {
    let mut out = format!("{id}: {}\n", x.verdict);
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
    section("TICK BY TICK (evidence up to the tick; → decides)", &ticks(x));
    let what_if: Vec<String> = x.what_if.iter().map(|w| format!("{}: {}", w.change, w.text)).collect();
    section("WHAT WOULD HAVE CHANGED IT", &what_if);
    let mut table = new_table(&["rule", "on the same counts", "which is"]);
    x.rivals.iter().for_each(|r| {
        table.add_row([r.name.as_str(), r.text.as_str(), r.rule.as_str()]);
    });
    if !x.rivals.is_empty() {
        section("RULES OF OTHER TOOLS", &lines_of(&trimmed(&table)));
    }
    out
}

fn lines_of(text: &str) -> Vec<String> {
    text.lines().map(str::to_owned).collect()
}

fn ticks(x: &Explained) -> Vec<String> {
    if x.ticks.is_empty() {
        return Vec::new();
    }
    let mut header = vec!["", "tick", "after", "bad of requests", "rate"];
    header.extend(x.names.iter().map(String::as_str));
    header.push("together");
    let mut table = new_table(&header);
    for tick in &x.ticks {
        let mut cells = vec![
            if tick.decides { "→".to_owned() } else { String::new() },
            tick.tick.to_string(),
            tick.after.clone(),
            format!("{} of {}", tick.bad, tick.requests),
            tick.rate.clone(),
        ];
        cells.extend(tick.one_in.iter().cloned());
        cells.push(tick.together.clone());
        table.add_row(cells);
    }
    let mut lines = lines_of(&trimmed(&table));
    if x.left_out > 0 {
        lines.push(format!("… {} more: --ticks shows all of them", x.left_out));
    }
    lines
}
