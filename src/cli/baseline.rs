//! `flipback baseline`: see, record, exclude and pin the recorded normal.

use clap::Subcommand;
use serde_json::json;

use super::client::Client;
use super::{Global, Output, exit, operate, print, print_json};
use crate::edge::api::types::BaselineAnswer;
use crate::words::safe::path_part;

#[derive(Subcommand)]
pub enum Verb {
    /// What a switch would be judged by now, and where it comes from
    Show { service: String },
    /// Bring the record up to now
    Record { service: String },
    /// A range that must not count as normal
    Invalidate {
        service: String,
        /// Begin, RFC 3339
        #[arg(long)]
        from: String,
        /// End, RFC 3339
        #[arg(long)]
        to: String,
        #[arg(long, default_value = "")]
        why: String,
    },
    /// Judge by this range until unpinned
    Pin {
        service: String,
        #[arg(long)]
        from: String,
        #[arg(long)]
        to: String,
        #[arg(long, default_value = "")]
        why: String,
    },
    /// Choose by the usual rules again
    Unpin { service: String },
}

pub fn run(global: &Global, verb: &Verb) -> i32 {
    let path = |service: &str, verb: &str| format!("/api/v1/baseline/{}{verb}", path_part(service));
    match verb {
        Verb::Show { service } => {
            let answer: Result<BaselineAnswer, _> =
                Client::new(global).and_then(|client| client.get(&path(service, "")));
            match answer {
                Ok(answer) if global.output == Output::Json => {
                    print_json(&answer);
                    exit::OK
                }
                Ok(answer) => {
                    print(&text(&answer));
                    exit::OK
                }
                Err(trouble) => trouble.tell(),
            }
        }
        Verb::Record { service } => operate::post(global, &path(service, "/record"), None),
        Verb::Invalidate { service, from, to, why } => {
            operate::post(global, &path(service, "/invalidate"), Some(json!({ "from": from, "to": to, "why": why })))
        }
        Verb::Pin { service, from, to, why } => {
            operate::post(global, &path(service, "/pin"), Some(json!({ "from": from, "to": to, "why": why })))
        }
        Verb::Unpin { service } => operate::post(global, &path(service, "/unpin"), None),
    }
}

fn text(answer: &BaselineAnswer) -> String {
    let mut out = match (&answer.baseline, &answer.why) {
        (Some(baseline), _) => crate::account::explain::baseline_lines(baseline).join("\n"),
        (None, Some(why)) => format!("no baseline: {why}"),
        (None, None) => "no baseline".to_owned(),
    };
    if let Some(range) = &answer.pin {
        out.push_str(&format!("\npinned: {} to {} by {}", range.from, range.to, range.by));
    }
    for range in &answer.invalid {
        out.push_str(&format!("\nnot counted: {} to {} by {} {}", range.from, range.to, range.by, range.why));
    }
    out.push('\n');
    out
}
