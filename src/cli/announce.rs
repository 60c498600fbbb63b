//! `flipback announce`: for any deploy script.

use clap::{Args, ValueEnum};
use serde_json::{Map, Value, json};

use super::client::Client;
use super::{Global, Output, exit, print, print_json, wait};
use crate::edge::api::types::Announced;

#[derive(Args)]
pub struct AnnounceArgs {
    service: String,
    /// The slot that the traffic came from (of a flag: its variation before)
    #[arg(long)]
    old: String,
    /// The slot that it goes to (of a flag: its variation now)
    #[arg(long)]
    new: String,
    /// A flag of the service changed, not its traffic
    #[arg(long)]
    flag: Option<String>,
    /// A step of a ramp: the part of the traffic that the new slot has now, like 5 or 5%
    #[arg(long, value_name = "PERCENT", value_parser = percent)]
    share: Option<f64>,
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
    /// When the old slot will be torn down, RFC 3339: it is told at once if that is before the soak's end
    #[arg(long)]
    old_until: Option<String>,
    /// Who is responsible: shown in every notice
    #[arg(long)]
    owner: Option<String>,
    /// A link shown in every notice (several are possible)
    #[arg(long)]
    link: Vec<String>,
    /// One change of this release, shown in every notice (several are possible)
    #[arg(long)]
    change: Vec<String>,
    /// Wait for the fast phase (--soak: the whole soak): exit 0 passed, 1 rolled back or withheld, 3 no verdict,
    /// 4 superseded or cancelled, 75 flipback is away, 124 timeout
    #[arg(long)]
    wait: bool,
    #[command(flatten)]
    waiting: wait::WaitArgs,
}

fn percent(text: &str) -> Result<f64, String> {
    let number = text.trim().trim_end_matches('%').trim_end();
    number.parse().map_err(|_| format!("{text:?} is no part of the traffic; write 5 or 5%"))
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
        ("flag", &args.flag),
        ("old_until", &args.old_until),
        ("owner", &args.owner),
    ];
    for (key, value) in optional {
        if let Some(value) = value {
            body.insert(key.into(), json!(value));
        }
    }
    if args.rollback == Rollback::Unsafe {
        body.insert("rollback".into(), json!("unsafe"));
    }
    for (key, list) in [("links", &args.link), ("changes", &args.change)] {
        if !list.is_empty() {
            body.insert(key.into(), json!(list));
        }
    }
    if let Some(share) = args.share {
        body.insert("share_percent".into(), json!(share));
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
        "step" => format!("{} goes on with this step", announced.id),
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
    match announced.result.as_str() {
        "accepted" | "known" | "step" if args.wait => wait::run(global, &announced.id, &args.waiting),
        // Somebody went back: what was announced is over, and no release is on its way.
        _ => exit::OK,
    }
}
