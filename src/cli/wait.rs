//! `flipback wait`: for pipelines. How far it is, and the outcome as an exit code.

use std::fmt::Write as _;
use std::io::IsTerminal;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use clap::Args;
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

use super::client;
use super::{Global, Output, exit, print_json};
use crate::domain::time::{Span, Timestamp};
use crate::domain::verdict::Outcome;
use crate::domain::view::{PhaseWord, WatchView};
use crate::words::numbers::one_in;

/// A tick is a second at least.
const EVERY: Duration = Duration::from_millis(700);

/// Where nobody can watch a bar, a line so often: pipelines end jobs that say nothing.
const LINE_EVERY: Duration = Duration::from_secs(30);

#[derive(Args, Clone)]
pub struct WaitArgs {
    /// Wait for the whole soak, not only for its fast phase
    #[arg(long)]
    pub soak: bool,
    /// Give up after this long (exit code 124); the watch goes on
    #[arg(long, value_parser = super::span)]
    pub timeout: Option<Span>,
    /// How long the daemon may be away (an upgrade, a reboot) before it is given up (exit code 75)
    #[arg(long, value_parser = super::span, default_value = "5m")]
    pub patience: Span,
}

pub fn run(global: &Global, id: &str, args: &WaitArgs) -> i32 {
    let runtime = match tokio::runtime::Builder::new_current_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => {
            eprintln!("flipback: the runtime does not start: {error}");
            return exit::UNREACHABLE;
        }
    };
    let mut face = Face::new(id);
    let (code, last) = follow(global, id, args, &mut face, &runtime);
    face.end();
    if let Some(view) = &last {
        face.conclude(view, code);
        if global.output == Output::Json {
            print_json(view);
        }
    }
    code
}

/// Until there is an exit code; with the last that was seen.
fn follow(
    global: &Global,
    id: &str,
    args: &WaitArgs,
    face: &mut Face,
    runtime: &tokio::runtime::Runtime,
) -> (i32, Option<WatchView>) {
    let began = Instant::now();
    let mut down_since: Option<Instant> = None;
    loop {
        let view = client::watch(global, id);
        match view {
            Ok(view) => {
                if down_since.take().is_some() {
                    face.say("flipback is back");
                }
                face.show(&view, args.soak);
                if let Some(code) = settled(&view, args.soak) {
                    return (code, Some(view));
                }
            }
            Err(trouble) if trouble.unreachable => {
                let since = *down_since.get_or_insert_with(|| {
                    face.say(&format!("{}; waiting for it", trouble.text));
                    Instant::now()
                });
                if since.elapsed() > args.patience.to_std() {
                    face.say(&format!("{} for {}; the watch goes on when it is up again", trouble.text, args.patience));
                    return (exit::UNREACHABLE, None);
                }
            }
            Err(trouble) => {
                face.say(&trouble.text);
                return (trouble.code, None);
            }
        }
        if args.timeout.is_some_and(|limit| began.elapsed() >= limit.to_std()) {
            face.say(&format!("{id} has not ended yet; the watch goes on without this command"));
            return (exit::TIMEOUT, None);
        }
        let interrupted = runtime.block_on(async {
            tokio::select! {
                _ = tokio::signal::ctrl_c() => true,
                () = tokio::time::sleep(EVERY) => false,
            }
        });
        if interrupted {
            face.say(&format!("interrupted; {id} is watched on, see: flipback show {id}"));
            return (exit::INTERRUPTED, None);
        }
    }
}

/// The exit code, once it is known: of the outcome, or of the fast phase.
fn settled(view: &WatchView, soak: bool) -> Option<i32> {
    match &view.outcome {
        Some(outcome) => Some(code(outcome)),
        None if view.fast_passed && !soak => Some(exit::OK),
        None => None,
    }
}

fn code(outcome: &Outcome) -> i32 {
    match outcome {
        Outcome::Passed { .. } | Outcome::Drilled { .. } => exit::OK,
        Outcome::RolledBackRecovered
        | Outcome::RolledBackNotRecovered
        | Outcome::RolledBackUnseen
        | Outcome::RollbackFailed { .. }
        // The release is not what it was meant to be: a pipeline must not go on with it.
        | Outcome::Healed { .. }
        | Outcome::DrillFailed { .. }
        | Outcome::Withheld { .. } => exit::FAILED,
        Outcome::Unjudged { .. } | Outcome::Unconfirmed { .. } => exit::NO_VERDICT,
        Outcome::Superseded | Outcome::Cancelled { .. } => exit::OVERTAKEN,
    }
}

/// When what is waited for can be over at the earliest, and when it began.
fn stretch(view: &WatchView, soak: bool) -> (Timestamp, Timestamp) {
    let began = view.began();
    let ends = if soak { view.soak_ends_at } else { view.soak_ends_at - view.long };
    (began, ends)
}

fn progress(view: &WatchView, soak: bool, now: Timestamp) -> (f64, Span) {
    let (began, ends) = stretch(view, soak);
    let whole = ends.since(began).as_secs_f64().max(1.0);
    let part = (now.since(began).as_secs_f64() / whole).clamp(0.0, 1.0);
    (part, Span::from_secs(ends.since(now).as_millis().div_ceil(1000)))
}

/// Phase, verdict and evidence in one line.
fn state(view: &WatchView) -> String {
    let mut line = format!("{} ({})", view.phase.as_str(), view.verdict);
    if let Some(share) = view.share_percent {
        let _ = write!(line, ", {share} of the traffic");
    }
    let _ = write!(line, ", {} ticks", view.ticks);
    let strongest =
        view.evidence.iter().filter_map(|e| Some((&e.signal, e.proof?))).max_by(|a, b| a.1.ln_e.total_cmp(&b.1.ln_e));
    match (strongest, view.one_in) {
        (Some((_, proof)), _) if proof.one_in < 1.5 => line.push_str(", no evidence against it"),
        (Some((signal, proof)), Some(all)) => {
            let (all, needed) = (one_in(all), one_in(proof.needed));
            let _ = write!(line, ", evidence {all} of {needed}, most from {signal}");
        }
        _ => {}
    }
    line
}

/// Where the log of a pipeline folds.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Fold {
    None,
    Github,
    Gitlab,
}

/// What is shown while waiting: a bar for people, lines for logs. All of it is talk: stderr.
struct Face {
    bar: Option<ProgressBar>,
    fold: Fold,
    id: String,
    said: String,
    said_at: Instant,
}

impl Face {
    fn new(id: &str) -> Face {
        let set = |name: &str| std::env::var_os(name).is_some_and(|value| !value.is_empty());
        let terminal = std::io::stderr().is_terminal() && std::env::var_os("TERM").is_none_or(|term| term != "dumb");
        let bar = terminal.then(|| {
            let bar = ProgressBar::with_draw_target(Some(1000), ProgressDrawTarget::stderr_with_hz(4));
            let colour = if set("NO_COLOR") { "{wide_bar}" } else { "{wide_bar:.cyan}" };
            let style =
                ProgressStyle::with_template(&format!("{{prefix}} [{colour}] {{percent:>3}} %\n  {{wide_msg}}"));
            if let Ok(style) = style {
                bar.set_style(style.progress_chars("=> "));
            }
            bar.set_prefix(id.to_owned());
            bar
        });
        let fold = match terminal {
            true => Fold::None,
            false if set("GITHUB_ACTIONS") => Fold::Github,
            false if set("GITLAB_CI") => Fold::Gitlab,
            false => Fold::None,
        };
        match fold {
            Fold::None => {}
            Fold::Github => eprintln!("::group::flipback watches {id}"),
            Fold::Gitlab => {
                eprint!("\x1b[0Ksection_start:{}:flipback_wait\r\x1b[0Kflipback watches {id}\n", unix_s());
            }
        }
        Face { bar, fold, id: id.to_owned(), said: String::new(), said_at: Instant::now() }
    }

    fn show(&mut self, view: &WatchView, soak: bool) {
        let now = now();
        let (part, left) = progress(view, soak, now);
        let state = state(view);
        let what = if soak || view.long.is_zero() { "the soak" } else { "the fast phase" };
        let running = matches!(view.phase, PhaseWord::Soaking | PhaseWord::CuttingOver);
        let until = match (running, left.is_zero()) {
            (false, _) => String::new(),
            (true, false) => format!(", {what} has {left} left"),
            (true, true) => format!(", {what} goes on until it has shown enough"),
        };
        match &self.bar {
            Some(bar) => {
                bar.set_position((part * 1000.0) as u64);
                bar.set_message(format!("{state}{until}"));
            }
            None => {
                // What changed is said at once, what only went on now and then.
                let kind = format!("{} {} {:?}", view.phase.as_str(), view.verdict, view.share_percent);
                if kind != self.said || self.said_at.elapsed() >= LINE_EVERY {
                    eprintln!("flipback: {} {:>3.0} %, {state}{until}", self.id, part * 100.0);
                    (self.said, self.said_at) = (kind, Instant::now());
                }
            }
        }
    }

    fn say(&self, text: &str) {
        match &self.bar {
            Some(bar) => bar.suspend(|| eprintln!("flipback: {text}")),
            None => eprintln!("flipback: {text}"),
        }
    }

    fn end(&self) {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
        match self.fold {
            Fold::None => {}
            Fold::Github => eprintln!("::endgroup::"),
            Fold::Gitlab => eprint!("\x1b[0Ksection_end:{}:flipback_wait\r\x1b[0K\n", unix_s()),
        }
    }

    /// The outcome, why, and where to look.
    fn conclude(&self, view: &WatchView, code: i32) {
        let id = &self.id;
        let head = match &view.outcome {
            Some(outcome) => format!("{id} {outcome}"),
            None if view.long.is_zero() => format!("{id} passed its soak"),
            None => format!("{id} passed its fast phase; the long phase goes on until {}", view.soak_ends_at),
        };
        eprintln!("flipback: {head}");
        let why = view.timeline.iter().rev().find(|e| e.kind == "breached").map(|e| printable(&e.text));
        if let Some(why) = &why {
            eprintln!("flipback: {why}");
        }
        if code != exit::OK {
            eprintln!("flipback: everything about it: flipback show {id}");
            if self.fold == Fold::Github {
                let why = why.map_or(String::new(), |why| format!(": {why}"));
                eprintln!("::error title=flipback::{head}{why}");
            }
        }
    }
}

/// No control characters: a line of a log is one line, and commands nothing.
fn printable(text: &str) -> String {
    text.chars().map(|c| if c.is_control() { ' ' } else { c }).collect()
}

/// The same as an instant.
pub(super) fn now() -> Timestamp {
    Timestamp::from_millis(unix_s().saturating_mul(1000))
}

/// The wall clock is only shown by: what is decided is decided by the daemon.
#[allow(clippy::disallowed_methods, reason = "a progress bar is drawn for a person's clock")]
fn unix_s() -> i64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| i64::try_from(since.as_secs()).unwrap_or(0))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_outcome_has_its_exit_code() {
        let why = String::new;
        let withheld = crate::domain::verdict::Withheld::ObserveMode;
        for (outcome, wanted) in [
            (Outcome::Passed { by_checks_only: false }, 0),
            (Outcome::RolledBackRecovered, 1),
            (Outcome::RolledBackNotRecovered, 1),
            (Outcome::RolledBackUnseen, 1),
            (Outcome::RollbackFailed { why: why() }, 1),
            (Outcome::Withheld { why: withheld }, 1),
            (Outcome::Unjudged { why: why() }, 3),
            (Outcome::Unconfirmed { why: why() }, 3),
            (Outcome::Superseded, 4),
            (Outcome::Cancelled { why: why() }, 4),
        ] {
            assert_eq!(code(&outcome), wanted, "{outcome}");
        }
    }
}
