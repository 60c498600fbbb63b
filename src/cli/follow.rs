//! `flipback follow`: a watch as it goes on. A screen that is drawn anew on a terminal, lines everywhere else.

use std::time::{Duration, Instant};

use console::{Term, measure_text_width, style, truncate_str};

use super::client::{Client, Trouble};
use super::wait::now;
use super::{Global, Output, exit, print};
use crate::domain::account::Account;
use crate::domain::view::WatchView;
use crate::face::terminal::{Line, Piece, line, screen};
use crate::words::safe::{path_part, tame};

/// A tick is a second at least.
const EVERY: Duration = Duration::from_millis(700);

/// Where nothing is new, a line now and then says that it goes on.
const LINE_EVERY: Duration = Duration::from_secs(30);

pub fn run(global: &Global, id: Option<&str>) -> i32 {
    let runtime = match tokio::runtime::Builder::new_current_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => {
            eprintln!("flipback: the runtime does not start: {error}");
            return exit::UNREACHABLE;
        }
    };
    let mut face = Face::new(global);
    let code = follow(global, id, &mut face, &runtime);
    face.end();
    code
}

fn follow(global: &Global, id: Option<&str>, face: &mut Face, runtime: &tokio::runtime::Runtime) -> i32 {
    let mut seen: Option<Account> = None;
    let mut waiting = false;
    loop {
        match look(global, id, seen.take()) {
            Ok(Some(account)) => {
                face.show(&account);
                if account.view.outcome.is_some() {
                    return exit::OK;
                }
                seen = Some(account);
            }
            Ok(None) => {
                if !waiting {
                    waiting = true;
                    eprintln!("flipback: no watch is open; waiting for one");
                }
            }
            Err(trouble) => {
                face.end();
                return trouble.tell();
            }
        }
        let interrupted = runtime.block_on(async {
            tokio::select! {
                _ = tokio::signal::ctrl_c() => true,
                () = tokio::time::sleep(EVERY) => false,
            }
        });
        if interrupted {
            return exit::INTERRUPTED;
        }
    }
}

/// What is new of a watch; without an id of the one that was opened last.
fn look(global: &Global, id: Option<&str>, seen: Option<Account>) -> Result<Option<Account>, Trouble> {
    let client = Client::new(global)?;
    let id = match (&seen, id) {
        (Some(seen), _) => seen.view.id.to_string(),
        (None, Some(id)) => id.to_owned(),
        (None, None) => {
            let open: Vec<WatchView> = client.get("/api/v1/watches?open=true&limit=1")?;
            match open.first() {
                Some(view) => view.id.to_string(),
                None => return Ok(None),
            }
        }
    };
    let after = seen.as_ref().map(|seen| {
        let read = seen.readings.last().map(|read| read.seq);
        read.max(seen.judged.last().map(|judged| judged.seq)).unwrap_or(0)
    });
    let path = match after {
        Some(after) => format!("/api/v1/watches/{}/account?after={after}", path_part(&id)),
        None => format!("/api/v1/watches/{}/account", path_part(&id)),
    };
    let fresh: Account = client.get(&path)?;
    Ok(Some(match seen {
        None => fresh,
        Some(mut known) => {
            known.readings.extend(fresh.readings);
            known.judged.extend(fresh.judged);
            Account { view: fresh.view, ..known }
        }
    }))
}

enum Face {
    /// The terminal, and how many lines of it were drawn.
    Screen { term: Term, drawn: usize },
    /// Lines of the story so far, the last word on how it stands, and when.
    Lines { told: usize, said: String, said_at: Option<Instant> },
    /// One object for each change.
    Json { said: String },
}

impl Face {
    fn new(global: &Global) -> Face {
        if global.output == Output::Json {
            return Face::Json { said: String::new() };
        }
        if !super::on_screen() {
            return Face::Lines { told: 0, said: String::new(), said_at: None };
        }
        console::set_colors_enabled(super::colours());
        let term = Term::stdout();
        let _ = term.hide_cursor();
        Face::Screen { term, drawn: 0 }
    }

    fn show(&mut self, account: &Account) {
        let now = now();
        match self {
            Face::Screen { term, drawn } => {
                let (rows, columns) = term.size();
                let (rows, columns) = (usize::from(rows).max(8), usize::from(columns).max(20));
                // One row stays free: the last line's end must not scroll the first one away.
                let lines = screen(account, now, columns, rows - 1);
                let lines: Vec<String> = lines.iter().take(rows - 1).map(|line| painted(line, columns)).collect();
                let _ = term.clear_last_lines(*drawn);
                let _ = term.write_line(&lines.join("\n"));
                *drawn = lines.len();
            }
            Face::Lines { told, said, said_at } => {
                let w = &account.view;
                let mut out = String::new();
                for e in w.timeline.iter().skip(*told) {
                    out.push_str(&format!("{} {}: {}\n", e.at, e.kind.replace('_', " "), tame(&e.text, 1000)));
                }
                *told = w.timeline.len();
                let stands = format!("{} {}", w.phase.as_str(), w.verdict);
                if stands != *said || said_at.is_none_or(|at| at.elapsed() >= LINE_EVERY) {
                    out.push_str(&format!("{now} {}\n", line(w, now)));
                    (*said, *said_at) = (stands, Some(instant()));
                }
                print(&out);
            }
            Face::Json { said } => {
                let text = serde_json::to_string(&account.view).unwrap_or_default();
                if text != *said {
                    print(&format!("{text}\n"));
                    *said = text;
                }
            }
        }
    }

    fn end(&mut self) {
        if let Face::Screen { term, .. } = self {
            let _ = term.show_cursor();
        }
    }
}

#[allow(clippy::disallowed_methods, reason = "how often a line is printed is for a person's clock")]
fn instant() -> Instant {
    Instant::now()
}

/// A line with its colours, no wider than the terminal: letters may be two columns wide.
fn painted(line: &Line, columns: usize) -> String {
    let mut out = String::new();
    let mut left = columns.saturating_sub(1);
    for Piece { text, tone } in line {
        let cut = truncate_str(text, left, "…");
        left -= measure_text_width(&cut).min(left);
        let styled = match *tone {
            "good" => style(cut).green(),
            "warn" => style(cut).yellow(),
            "bad" => style(cut).red().bold(),
            "busy" => style(cut).cyan(),
            "quiet" => style(cut).dim(),
            "strong" => style(cut).bold(),
            _ => style(cut),
        };
        out.push_str(&styled.to_string());
        if left == 0 {
            break;
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_never_is_wider_than_the_terminal() {
        let line = vec![
            Piece { text: "支払い ".repeat(10), tone: "strong" },
            Piece { text: "waiting for the traffic".into(), tone: "" },
        ];
        for columns in [20, 21, 40, 80, 200] {
            assert!(measure_text_width(&painted(&line, columns)) < columns, "{columns}");
        }
    }
}
