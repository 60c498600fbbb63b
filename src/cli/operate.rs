//! Verbs that ask for one thing and print what was done.

use clap::Args;
use serde_json::{Value, json};

use super::client::Client;
use super::{Global, Output, exit, print, print_json};
use crate::edge::api::types::Done;
use crate::words::safe::path_part;

#[derive(Args)]
#[group(required = true)]
pub struct Which {
    /// One service
    service: Option<String>,
    /// flipback as a whole
    #[arg(long, conflicts_with = "service")]
    all: bool,
    #[arg(long, default_value = "")]
    why: String,
}

pub fn arm(global: &Global, which: &Which, armed: bool) -> i32 {
    let path = if armed { "/api/v1/arm" } else { "/api/v1/disarm" };
    let body = match &which.service {
        Some(service) => json!({ "service": service, "why": which.why }),
        None => json!({ "why": which.why }),
    };
    post(global, path, Some(body))
}

/// A verb upon one watch.
pub fn upon(global: &Global, id: &str, verb: &str, body: Value) -> i32 {
    post(global, &format!("/api/v1/watches/{}/{verb}", path_part(id)), Some(body))
}

pub fn post(global: &Global, path: &str, body: Option<Value>) -> i32 {
    let done: Result<Done, _> =
        Client::new(global).and_then(|client| client.post(path, &body.unwrap_or_else(|| json!({}))));
    match done {
        Ok(done) if global.output == Output::Json => {
            print_json(&done);
            exit::OK
        }
        Ok(done) => {
            print(&format!("{}\n", done.text));
            exit::OK
        }
        Err(trouble) => trouble.tell(),
    }
}
