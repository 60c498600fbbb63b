//! `flipback announce`: for any deploy script.

use clap::{Args, ValueEnum};
use serde_json::{Map, Value, json};

use super::client::Client;
use super::{Global, Output, exit, print, print_json, wait};
use crate::domain::time::Span;
use crate::edge::api::types::Announced;

#[derive(Args)]
pub struct AnnounceArgs {
    service: String,
    /// The slot that the traffic came from
    #[arg(long)]
    old: String,
    /// The slot that it goes to
    #[arg(long)]
    new: String,
    /// What runs in the new slot
    #[arg(long)]
    version: Option<String>,
    /// What runs in the old slot
    #[arg(long)]
    old_version: Option<String>,
    /// unsafe: this release must not be rolled back; flipback only alerts
    #[arg(long, value_enum, default_value_t = Rollback::Safe)]
    rollback: Rollback,
    /// When the traffic moved, RFC 3339, at most an hour ago
    #[arg(long)]
    switched_at: Option<String>,
    /// Your own id of this event: a repeat with the same id is the same switch
    #[arg(long)]
    id: Option<String>,
    /// --old is right although flipback remembers another live slot
    #[arg(long)]
    assume_old: bool,
    /// Wait for the outcome: exit 0 passed, 1 rolled back or withheld, 3 no verdict
    #[arg(long)]
    wait: bool,
    /// With --wait: give up after this long (exit code 3); the watch goes on
    #[arg(long, value_parser = super::span, requires = "wait")]
    wait_timeout: Option<Span>,
}

#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Rollback {
    Safe,
    Unsafe,
}

pub fn run(global: &Global, args: &AnnounceArgs) -> i32 {
    let mut body = Map::new();
    body.insert("service".into(), json!(args.service));
    body.insert("old".into(), json!(args.old));
    body.insert("new".into(), json!(args.new));
    let optional = [
        ("version", &args.version),
        ("old_version", &args.old_version),
        ("switched_at", &args.switched_at),
        ("id", &args.id),
    ];
    for (key, value) in optional {
        if let Some(value) = value {
            body.insert(key.into(), json!(value));
        }
    }
    if args.rollback == Rollback::Unsafe {
        body.insert("rollback".into(), json!("unsafe"));
    }
    if args.assume_old {
        body.insert("assume_old".into(), json!(true));
    }
    let announced: Result<Announced, _> =
        Client::new(global).and_then(|client| client.post("/api/v1/switches", &Value::Object(body)));
    let announced = match announced {
        Ok(announced) => announced,
        Err(trouble) => return trouble.tell(),
    };
    let told = match announced.result.as_str() {
        "accepted" => format!("{} is watched", announced.id),
        "known" => format!("{} watches this switch already", announced.id),
        "own_hand" => format!("this is flipback's own rollback ({}): nothing new is watched", announced.id),
        "reverted" => format!("{} ended: its switch was reverted", announced.id),
        other => format!("{}: {other}", announced.id),
    };
    eprintln!("flipback: {told}");
    if global.output == Output::Json {
        print_json(&announced);
    } else {
        print(&format!("{}\n", announced.id));
    }
    let has_outcome = matches!(announced.result.as_str(), "accepted" | "known");
    if args.wait && has_outcome { wait::run(global, &announced.id, args.wait_timeout) } else { exit::OK }
}
