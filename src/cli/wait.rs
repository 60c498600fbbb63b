//! `flipback wait`: the outcome as an exit code.

use std::time::{Duration, Instant};

use super::client::{Client, Trouble, path_part};
use super::{Global, exit};
use crate::domain::time::Span;
use crate::domain::verdict::Outcome;
use crate::domain::view::WatchView;

const EVERY: Duration = Duration::from_millis(700);

/// The daemon may be restarted meanwhile (an upgrade, a reboot): it is waited for this long.
const DOWN_MAX: Duration = Duration::from_secs(300);

pub fn run(global: &Global, id: &str, timeout: Option<Span>) -> i32 {
    let began = Instant::now();
    let mut down_since: Option<Instant> = None;
    let mut last = String::new();
    loop {
        let view: Result<WatchView, Trouble> =
            Client::new(global).and_then(|client| client.get(&format!("/api/v1/watches/{}", path_part(id))));
        match view {
            Ok(view) => {
                if down_since.take().is_some() {
                    eprintln!("flipback: it is back");
                }
                if let Some(outcome) = &view.outcome {
                    eprintln!("flipback: {id} {outcome}");
                    return code(outcome);
                }
                let line = format!("{} ({})", view.phase.as_str(), view.verdict);
                if line != last {
                    eprintln!("flipback: {id} {line}; the soak ends at {}", view.soak_ends_at);
                    last = line;
                }
            }
            Err(trouble) if trouble.unreachable => {
                let since = *down_since.get_or_insert_with(|| {
                    eprintln!("flipback: {}; waiting for it", trouble.text);
                    Instant::now()
                });
                if since.elapsed() > DOWN_MAX {
                    return trouble.tell();
                }
            }
            Err(trouble) => return trouble.tell(),
        }
        if timeout.is_some_and(|limit| began.elapsed() >= limit.to_std()) {
            eprintln!("flipback: {id} has not ended yet; the watch goes on without this command");
            return exit::NO_VERDICT;
        }
        std::thread::sleep(EVERY);
    }
}

fn code(outcome: &Outcome) -> i32 {
    match outcome {
        Outcome::Passed { .. } => exit::OK,
        Outcome::RolledBackRecovered
        | Outcome::RolledBackNotRecovered
        | Outcome::RolledBackUnseen
        | Outcome::RollbackFailed { .. }
        | Outcome::Withheld { .. } => exit::FAILED,
        Outcome::Unjudged { .. } | Outcome::Unconfirmed { .. } | Outcome::Superseded | Outcome::Cancelled { .. } => {
            exit::NO_VERDICT
        }
    }
}
