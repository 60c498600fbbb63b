//! `flipback token`: access for pipelines and people over TCP.

use std::collections::BTreeSet;

use clap::Subcommand;
use serde_json::json;

use super::client::Client;
use super::show::{new_table, trimmed};
use super::{Global, Output, exit, operate, print, print_json};
use crate::edge::api::token_verbs::{TokenList, TokenMade};
use crate::words::safe::path_part;

#[derive(Subcommand)]
pub enum Verb {
    /// Make a token; it is printed once, and kept nowhere
    Create {
        /// What it is for: ci, grafana, ann
        name: String,
        /// read; report (announces too); operate (orders too); admin (makes tokens too)
        #[arg(long, value_parser = ["read", "report", "operate", "admin"])]
        role: String,
        /// Only for this service (several are possible)
        #[arg(long = "service", value_name = "SERVICE")]
        services: Vec<String>,
        /// How long it is good: 90d if left away; or never
        #[arg(long, value_name = "TIME")]
        expires: Option<String>,
    },
    /// Take a token back, by its name (all of that name) or its id
    Revoke { which: String },
    /// All tokens, without what is secret of them
    List,
}

pub fn run(global: &Global, verb: &Verb) -> i32 {
    match verb {
        Verb::Create { name, role, services, expires } => {
            let mut body = json!({ "name": name, "role": role, "services": services });
            if let Some(expires) = expires {
                body["expires"] = json!(expires);
            }
            match Client::new(global).and_then(|client| client.post::<TokenMade>("/api/v1/tokens", &body)) {
                Ok(made) if global.output == Output::Json => print_json(&made),
                Ok(TokenMade { token, made }) => {
                    let until =
                        made.expires_at.map_or("it does not expire".to_owned(), |at| format!("good until {at}"));
                    eprintln!(
                        "flipback: token {} ({}), {} over {}, {until}; shown this once:",
                        made.name,
                        made.id,
                        made.role,
                        over(&made.services)
                    );
                    print(&format!("{token}\n"));
                }
                Err(trouble) => return trouble.tell(),
            }
            exit::OK
        }
        Verb::Revoke { which } => operate::post(global, &format!("/api/v1/tokens/{}/revoke", path_part(which)), None),
        Verb::List => match Client::new(global).and_then(|client| client.get::<TokenList>("/api/v1/tokens")) {
            Ok(list) => {
                if global.output == Output::Json {
                    print_json(&list);
                } else {
                    table(&list);
                }
                exit::OK
            }
            Err(trouble) => trouble.tell(),
        },
    }
}

fn over(services: &BTreeSet<crate::domain::switch::ServiceName>) -> String {
    crate::domain::access::Reach::of(services.clone()).to_string()
}

fn table(list: &TokenList) {
    if list.tokens.is_empty() {
        print("no tokens: flipback token create NAME --role report\n");
        return;
    }
    let mut table = new_table(&["ID", "NAME", "ROLE", "OVER", "EXPIRES", "MADE BY"]);
    for t in &list.tokens {
        let expires = match (&t.expires_at, t.expired) {
            (Some(at), true) => format!("EXPIRED {at}"),
            (Some(at), false) => at.clone(),
            (None, _) => "never".into(),
        };
        table.add_row([&t.id, &t.name, t.role.as_str(), &over(&t.services), &expires, &t.by]);
    }
    print(&format!("{}\n", trimmed(&table)));
}
