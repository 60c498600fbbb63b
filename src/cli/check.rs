//! `flipback check`: a file offline, or what the daemon sees.

use std::path::{Path, PathBuf};

use clap::Args;
use serde_json::json;

use super::client::Client;
use super::{Global, Output, exit, print, print_json};
use crate::config::service::missing_for_auto;
use crate::config::{self, Overrides, Settings};
use crate::domain::action::Action;
use crate::domain::plan::When;
use crate::domain::policy::RuleKind;
use crate::domain::service::{Service, Slots};
use crate::edge::actuators::rehearse::runnable;
use crate::edge::api::types::Findings;
use crate::edge::notify::route::Route;
use crate::edge::notify::templates::{NAMES, Templates};
use crate::edge::notify::{Message, sample};
use crate::edge::sources::Level;

#[derive(Args)]
pub struct CheckArgs {
    /// The file to check; with --live: the service (all, if left away)
    target: Option<String>,
    /// Ask the running daemon: every signal, health check and probe, as it sees them
    #[arg(long)]
    live: bool,
}

pub fn run(global: &Global, args: &CheckArgs, overrides: &Overrides) -> i32 {
    if args.live {
        return live(global, args.target.as_deref());
    }
    let path = PathBuf::from(args.target.as_deref().unwrap_or("/etc/flipback/flipback.toml"));
    offline(&path, overrides)
}

fn offline(path: &Path, overrides: &Overrides) -> i32 {
    match config::load(path, overrides) {
        Err(problems) => {
            eprint!("{problems}");
            exit::FAILED
        }
        Ok(settings) => {
            let mut out = format!("{}: good\n", path.display());
            for service in &settings.services {
                out.push('\n');
                out.push_str(&summary(service));
            }
            out.push_str(&told(&settings));
            let wrong = templates(&settings);
            print(&out);
            wrong.iter().for_each(|why| eprintln!("{}: {why}", path.display()));
            if wrong.is_empty() { exit::OK } else { exit::FAILED }
        }
    }
}

/// Who is told of anything at all.
fn told(settings: &Settings) -> String {
    let receivers = &settings.notify.receivers;
    if receivers.is_empty() {
        return "\nno [email] and no [[receiver]]: notices go to the log only\n".into();
    }
    let mut out = String::from("\nreceivers:\n");
    let routed = settings.notify.route.as_ref().map(Route::receivers).unwrap_or_default();
    for receiver in receivers {
        let channels: Vec<&str> = receiver.channels.iter().map(|c| c.word()).collect();
        let idle = if routed.contains(&receiver.name.as_str()) { "" } else { " (no route leads there)" };
        out.push_str(&format!("  {}: {}{idle}\n", receiver.name, channels.join(", ")));
    }
    out
}

/// What is wrong with the operator's templates, tried with every kind of notice.
fn templates(settings: &Settings) -> Vec<String> {
    let Some(dir) = &settings.notify.templates else { return Vec::new() };
    let templates = match Templates::with(dir) {
        Ok(templates) => templates,
        Err(why) => return vec![format!("[notify] templates: {why}")],
    };
    let mut wrong: Vec<String> = Vec::new();
    for letter in sample::letters() {
        let enclosed = sample::enclosed(&letter, Vec::new());
        let page = Message::new(&letter, 0, enclosed, &Templates::ours(), "host").page;
        for name in NAMES {
            if let Err(why) = templates.try_fill(name, &page)
                && !wrong.contains(&why)
            {
                wrong.push(format!("[notify] templates, with a notice of kind {}: {why}", page.kind));
                return wrong; // one at a time: the next kinds say the same
            }
        }
    }
    wrong
}

/// A service in words: what it is judged by, and what flipback cannot do for it.
fn summary(service: &Service) -> String {
    let p = &service.policy;
    let l = &p.limits;
    let slots = match &service.slots {
        Slots::Named(named) => named.keys().map(ToString::to_string).collect::<Vec<_>>().join(", "),
        Slots::Versions => "versions, as announced".into(),
    };
    let mut lines = vec![
        format!("{}: mode {}, slots {slots}", service.name, p.mode),
        format!(
            "  soak {} with ticks of {}{}, extended by up to {}",
            p.soak,
            p.tick,
            if p.long.is_zero() { String::new() } else { format!(", then {} with ticks of {}", p.long, p.long_tick) },
            p.extend_max
        ),
        match p.rule {
            RuleKind::Threshold => format!(
                "  breach: {} × the recorded normal (never below {} %), or {} % errors over 30 s; {} ticks in a row over at least 10 s, {} bad requests",
                l.ratio.get(),
                l.floor.get() * 100.0,
                l.error_rate_or_default().get() * 100.0,
                l.ticks,
                l.min_events
            ),
            RuleKind::Evidence | RuleKind::Either => format!(
                "  breach: evidence of 1 in {:.0} against {} × the recorded normal (never below {} %), {} bad requests{}",
                1.0 / l.alpha.get(),
                l.ratio.get(),
                l.floor.get() * 100.0,
                l.min_events,
                if p.rule == RuleKind::Either { "; or the plain rule, whichever speaks first" } else { "" }
            ),
        },
    ];
    let mut blind = Vec::new();
    if service.metrics.errors.is_none() {
        blind.push("errors (no errors selector)");
    }
    if service.metrics.latency.is_none() {
        blind.push("latency (no latency selector)");
    }
    if !service.metrics.by_slot() {
        blind.push("the slots apart (no $slot in the selectors): before and after are compared by time alone");
    }
    for what in blind {
        lines.push(format!("  cannot see {what}"));
    }
    for (kind, steps) in [("rollback", &service.plan.steps), ("after passed", &service.after_passed.steps)] {
        for step in steps {
            let ladder = match (step.heals_within, step.when) {
                (Some(within), _) => format!(" (a remedy: {within} to help before the next step)"),
                (None, When::AfterFailure) => " (only if the one before failed)".to_owned(),
                (None, When::Always) => String::new(),
            };
            lines.push(format!("  {kind} step {}: {}{ladder}", step.name, step.action));
            // As whoever runs this check; the daemon's own sandbox is asked by --live and by drills.
            if let Action::Exec(exec) = &step.action
                && let Err(why) = runnable(&exec.argv[0])
            {
                lines.push(format!("  step {} COULD NOT RUN here: {why}", step.name));
            }
        }
    }
    for missing in missing_for_auto(service) {
        lines.push(format!("  {missing}"));
    }
    lines.join("\n") + "\n"
}

fn live(global: &Global, service: Option<&str>) -> i32 {
    let body = service.map_or_else(|| json!({}), |service| json!({ "service": service }));
    let found: Result<Findings, _> = Client::new(global).and_then(|client| client.post("/api/v1/check", &body));
    let findings = match found {
        Ok(found) => found.findings,
        Err(trouble) => return trouble.tell(),
    };
    let worst = findings.iter().map(|f| f.level).max().unwrap_or(Level::Ok);
    if global.output == Output::Json {
        print_json(&findings);
    } else {
        let mut out = String::new();
        for f in &findings {
            let mark = match f.level {
                Level::Ok => "ok     ",
                Level::Warning => "warning",
                Level::Error => "ERROR  ",
            };
            out.push_str(&format!("{mark}  {}: {}\n", f.subject, f.text));
        }
        print(&out);
    }
    if worst == Level::Error { exit::FAILED } else { exit::OK }
}
