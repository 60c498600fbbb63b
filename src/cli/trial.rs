//! `flipback test`: what is configured, tried with samples.

use clap::Subcommand;
use serde_json::json;

use super::client::{Client, Trouble};
use super::{Global, Output, exit, print, print_json};
use crate::edge::api::types::TestNotified;

#[derive(Subcommand)]
pub enum Verb {
    /// Send samples to a receiver, or to all of them, as the daemon would
    Notify {
        receiver: Option<String>,
        /// A kind of notice, or all; without it one that opens an incident and the one that ends it
        #[arg(long)]
        kind: Option<String>,
    },
}

pub fn run(global: &Global, verb: &Verb) -> i32 {
    let Verb::Notify { receiver, kind } = verb;
    let body = json!({ "receiver": receiver, "kind": kind });
    let answer: Result<TestNotified, Trouble> =
        Client::new(global).and_then(|client| client.post("/api/v1/test/notify", &body));
    let answer = match answer {
        Ok(answer) => answer,
        Err(trouble) => return trouble.tell(),
    };
    if global.output == Output::Json {
        print_json(&answer);
    } else {
        let width = answer.tried.iter().map(|t| t.channel.len()).max().unwrap_or(0);
        for tried in &answer.tried {
            let said = tried.error.as_ref().map_or("taken".to_owned(), |why| format!("NOT TAKEN: {why}"));
            print(&format!("{:width$}  {}: {said}\n", tried.channel, tried.kind));
        }
    }
    if answer.tried.iter().all(|t| t.error.is_none()) { exit::OK } else { exit::FAILED }
}
