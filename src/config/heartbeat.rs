//! `[heartbeat]`: who notices that flipback itself is gone.

use super::read::{http_url, refuse_inline, secret_path};
use super::settings::{HeartbeatSettings, HeartbeatTo};
use super::table::Table;
use crate::domain::time::Span;

pub(super) fn heartbeat(table: Table<'_, '_>) -> Option<HeartbeatSettings> {
    let url = table.get("url").map(|at| http_url(&at).map(HeartbeatTo::Url));
    let file = table.get("url_file").map(|at| secret_path(&at).map(HeartbeatTo::File));
    refuse_inline(&table, "token", "url_file");
    let to = match (url, file) {
        (Some(url), None) => url,
        (None, Some(file)) => file,
        _ => {
            table.problem(
                "heartbeat",
                "needs one of url and url_file",
                Some("url_file = \"/etc/flipback/heartbeat.url\" where the address is a secret".into()),
            );
            None
        }
    };
    let every = table.get("every").and_then(|at| {
        let why = "a service that waits for it is told of trouble within minutes, and is not asked all the time";
        at.duration(Span::from_secs(1)..=Span::from_mins(60), why)
    });
    table.finish();
    Some(HeartbeatSettings { to: to?, every: every.unwrap_or(Span::from_mins(1)) })
}
