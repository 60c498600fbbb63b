//! `flipback drill`: the way back is practised, and timed.

use std::io::{BufRead, IsTerminal, Write};
use std::time::{Duration, Instant};

use clap::Args;
use serde_json::json;

use super::client::{self, Client, Trouble};
use super::{Global, Output, exit, print, print_json};
use crate::domain::plan::{AttemptState, StepOutcome};
use crate::domain::verdict::Outcome;
use crate::domain::view::WatchView;
use crate::edge::api::types::Announced;
use crate::words::safe::path_part;

const EVERY: Duration = Duration::from_millis(300);

/// The daemon gives up a dry drill after twenty minutes, and sixteen steps of a real one take no longer.
const PATIENCE: Duration = Duration::from_secs(40 * 60);

#[derive(Args)]
pub struct DrillArgs {
    service: String,
    /// Move the traffic to the other slot and home again
    #[arg(long)]
    for_real: bool,
    /// With --for-real: do not ask
    #[arg(long, requires = "for_real")]
    yes: bool,
    #[arg(long, default_value = "")]
    why: String,
}

pub fn run(global: &Global, args: &DrillArgs) -> i32 {
    if args.for_real && !args.yes && !confirmed(&args.service) {
        eprintln!("flipback: nothing was moved");
        return exit::USAGE;
    }
    let path = format!("/api/v1/services/{}/drill", path_part(&args.service));
    let body = json!({ "real": args.for_real, "why": args.why });
    let begun: Result<Announced, Trouble> = Client::new(global).and_then(|client| client.post(&path, &body));
    let id = match begun {
        Ok(begun) => begun.id,
        Err(trouble) => return trouble.tell(),
    };
    eprintln!("flipback: {id} is under way");
    let began = Instant::now();
    loop {
        let view = client::watch(global, &id);
        match view {
            Ok(view) if view.outcome.is_some() => return tell(global, &view),
            // The daemon may be starting anew: the drill goes on with it.
            Err(trouble) if !trouble.unreachable => return trouble.tell(),
            _ if began.elapsed() > PATIENCE => {
                eprintln!("flipback: {id} has not ended yet: flipback show {id}");
                return exit::TIMEOUT;
            }
            _ => std::thread::sleep(EVERY),
        }
    }
}

fn confirmed(service: &str) -> bool {
    if !std::io::stdin().is_terminal() {
        eprintln!("flipback: this moves the traffic of {service} there and back; say --yes where nobody can be asked");
        return false;
    }
    eprint!("This moves the traffic of {service} to the other slot and back. Type its name to go ahead: ");
    let _ = std::io::stderr().flush();
    let mut line = String::new();
    std::io::stdin().lock().read_line(&mut line).is_ok() && line.trim() == service
}

fn tell(global: &Global, view: &WatchView) -> i32 {
    if global.output == Output::Json {
        print_json(view);
    } else {
        print(&text(view));
    }
    match &view.outcome {
        Some(Outcome::Drilled { .. }) => exit::OK,
        Some(Outcome::Cancelled { .. }) => exit::OVERTAKEN,
        _ => exit::FAILED,
    }
}

fn text(view: &WatchView) -> String {
    let mut out = String::new();
    for event in &view.timeline {
        let mark = match event.kind.as_str() {
            "tried" => "ok     ",
            "tried_warning" => "warning",
            "tried_broken" => "BROKEN ",
            _ => continue,
        };
        out.push_str(&format!("{mark}  {}\n", event.text));
    }
    for step in &view.steps {
        let ran = match &step.result {
            Some(AttemptState::Ended(result)) => {
                format!(
                    "begun after {}, ran {}",
                    result.started_at.since(step.intended_at),
                    result.ended_at.since(result.started_at)
                )
            }
            Some(AttemptState::Cancelled(why)) => format!("never started: {why}"),
            Some(AttemptState::Ambiguous) => "left no result".into(),
            None => "no result".into(),
        };
        let proven = step
            .proven_at
            .map_or(String::new(), |at| format!(", proven {} after its intent", at.since(step.intended_at)));
        let mark = match &step.outcome {
            Some(StepOutcome::Done) => "ok     ",
            Some(StepOutcome::Failed(_) | StepOutcome::Stuck(_)) | None => "FAILED ",
        };
        out.push_str(&format!("{mark}  {} ({}): {ran}{proven}\n", step.name, step.attempt));
    }
    if let Some(outcome) = &view.outcome {
        out.push_str(&format!("{}: {outcome}\n", view.id));
    }
    out
}
