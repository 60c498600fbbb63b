//! `[[receiver]]`, `[route]`, `[fallback]`, `[notify]`, `[links]` and `[digest]`: who is told what, and how.

use super::read::{absolute_path, addresses, http_url, plain_name, refuse_inline, secret_path};
use super::settings::{
    ChannelSettings, EmailSettings, FallbackSettings, LinkSettings, NotifySettings, ReceiverSettings,
};
use super::slots::argv;
use super::table::{At, Table, slip_or_all};
use crate::domain::time::Span;
use crate::edge::notify::channel::safe_url;
use crate::edge::notify::desk::{LINK_VARIABLES, filled};
use crate::edge::notify::route::{Matcher, Route};

/// One for each team.
const RECEIVERS_MAX: usize = 100;

/// A tree that a person can still follow.
const ROUTES_MAX: usize = 200;
const DEPTH_MAX: usize = 6;

/// Alertmanager's own default.
const REPEAT: Span = Span::from_mins(4 * 60);

const PAGERDUTY: &str = "https://events.pagerduty.com/v2/enqueue";

/// The receiver that `[email] to` is.
const EMAIL: &str = "email";

pub(super) fn notify(root: &Table<'_, '_>, email: Option<&EmailSettings>) -> Option<NotifySettings> {
    let fallback = root.get("fallback").map(|at| at.table().and_then(fallback));
    let (mut templates, mut links) = (None, LinkSettings::default());
    if let Some(table) = root.get("notify").and_then(|at| at.table()) {
        templates = table.get("templates").and_then(|at| absolute_path(&at));
        table.finish();
    }
    if let Some(table) = root.get("links").and_then(|at| at.table()) {
        links.grafana = table.get("grafana").and_then(|at| link(&at));
        links.status_page = table.get("status_page").and_then(|at| link(&at));
        table.finish();
    }
    let mut receivers: Vec<ReceiverSettings> = Vec::new();
    if let Some(email) = email.filter(|email| !email.to.is_empty()) {
        let channels = vec![ChannelSettings::Email { to: email.to.clone() }];
        receivers.push(ReceiverSettings { name: EMAIL.into(), channels, send_resolved: true });
    }
    let mut complete = true;
    let receiver_at = root.get("receiver");
    for at in receiver_at.as_ref().map_or(Some(Vec::new()), |at| at.list())? {
        match at.table().and_then(|table| receiver(table, email.is_some())) {
            Some(found) => {
                if receivers.iter().any(|known| known.name == found.name) {
                    let help =
                        if found.name == EMAIL { "[email] to is a receiver of that name" } else { "names are unique" };
                    at.problem(format!("the receiver {} is there twice", found.name), Some(help));
                }
                receivers.push(found);
            }
            None => complete = false,
        }
    }
    if receivers.len() > RECEIVERS_MAX
        && let Some(at) = &receiver_at
    {
        at.problem(format!("has more than {RECEIVERS_MAX} receivers"), Some("a receiver can be a mailing list"));
    }
    let route_at = root.get("route");
    let route = match &route_at {
        Some(at) => {
            let mut count = 0;
            let names: Vec<&str> = receivers.iter().map(|r| r.name.as_str()).collect();
            Some(at.table().and_then(|table| route(table, &names, None, 0, &mut count)))
        }
        None => None,
    };
    if let (None, Some(at)) = (&route_at, &receiver_at) {
        at.problem("has no [route] that names one of them", Some("a table [route] with receiver = \"oncall\""));
    }
    let mails = receivers.iter().flat_map(|r| &r.channels).any(|c| matches!(c, ChannelSettings::Email { .. }));
    if let (Some(_), Some(at), false, true) = (email, root.get("email"), mails, complete) {
        at.problem("names nobody who gets mails", Some("to = [\"oncall@example.org\"], or a [[receiver]] with email"));
    }
    if !complete {
        return None;
    }
    let route = match route {
        Some(route) => Some(route?),
        None => receivers.first().map(|receiver| Route::to(&receiver.name, Some(REPEAT))),
    };
    Some(NotifySettings { receivers, route, fallback: fallback.map_or(Some(None), |f| f.map(Some))?, templates, links })
}

fn receiver(table: Table<'_, '_>, has_email: bool) -> Option<ReceiverSettings> {
    let name = table
        .need("name", "name = \"oncall\"")
        .and_then(|at| plain_name(&at, "is not a receiver's name: letters, digits and . _ -"));
    let send_resolved = table.get("send_resolved").and_then(|at| at.boolean()).unwrap_or(true);
    let mut channels = Vec::new();
    let mut complete = true;
    let mut take = |channel: Option<ChannelSettings>| match channel {
        Some(channel) => channels.push(channel),
        None => complete = false,
    };
    if let Some(at) = table.get("email") {
        if !has_email {
            at.problem("needs the server that takes mails", Some("[email]\nsmarthost = \"127.0.0.1:25\"\nfrom = …"));
        }
        take(at.table().and_then(|t| {
            let to = t.need("to", "to = [\"oncall@example.org\"]").and_then(|at| addresses(&at));
            t.finish();
            Some(ChannelSettings::Email { to: to? })
        }));
    }
    if let Some(at) = table.get("slack") {
        take(at.table().and_then(|t| {
            let url_file = secret_file(&t, "url", "url_file");
            let channel = t.get("channel").and_then(|at| at.string().map(str::to_owned));
            t.finish();
            Some(ChannelSettings::Slack { url_file: url_file?, channel })
        }));
    }
    if let Some(at) = table.get("teams") {
        take(at.table().and_then(|t| {
            let url_file = secret_file(&t, "url", "url_file");
            t.finish();
            Some(ChannelSettings::Teams { url_file: url_file? })
        }));
    }
    if let Some(at) = table.get("pagerduty") {
        take(at.table().and_then(|t| {
            let routing_key_file = secret_file(&t, "routing_key", "routing_key_file");
            let url = t.get("url").map_or(Some(PAGERDUTY.to_owned()), |at| {
                let url = http_url(&at)?;
                if let Err(why) = safe_url(&url) {
                    at.problem(why, Some("the routing key goes there"));
                    return None;
                }
                Some(url)
            });
            t.finish();
            Some(ChannelSettings::Pagerduty { routing_key_file: routing_key_file?, url: url? })
        }));
    }
    if let Some(at) = table.get("alertmanager") {
        take(at.table().and_then(|t| {
            let url = t.need("url", "url = \"http://127.0.0.1:9093\"").and_then(|at| http_url(&at));
            t.finish();
            Some(ChannelSettings::Alertmanager { url: url? })
        }));
    }
    if let Some(at) = table.get("webhook") {
        take(at.table().and_then(|t| {
            let url = t.need("url", "url = \"https://incidents.example.org/flipback\"").and_then(|at| http_url(&at));
            let secret_file = secret_file(&t, "secret", "secret_file");
            t.finish();
            Some(ChannelSettings::Webhook { url: url?, secret_file: secret_file? })
        }));
    }
    if let Some(at) = table.get("command") {
        take(at.table().and_then(|t| {
            let exec = t.need("exec", "exec = [\"/usr/local/bin/tell\"]").and_then(|at| argv(&at, &[]));
            let timeout = timeout(&t);
            t.finish();
            Some(ChannelSettings::Command { exec: exec?, timeout })
        }));
    }
    if complete && channels.is_empty() {
        let help = "email, slack, teams, pagerduty, alertmanager, webhook or command: email = { to = [\"…\"] }";
        table.problem(&table.path, "tells nobody", Some(help.into()));
        complete = false;
    }
    table.finish();
    complete.then_some(())?;
    Some(ReceiverSettings { name: name?, channels, send_resolved })
}

/// The path of a file with a secret; the secret itself is refused.
fn secret_file(table: &Table<'_, '_>, inline: &'static str, key: &'static str) -> Option<std::path::PathBuf> {
    refuse_inline(table, inline, key);
    table
        .need(key, "put the secret into a file that only flipback can read, and name it")
        .and_then(|at| secret_path(&at))
}

fn timeout(table: &Table<'_, '_>) -> Span {
    table
        .get("timeout")
        .and_then(|at| at.duration(Span::from_secs(1)..=Span::from_mins(5), "the next notice waits for it"))
        .unwrap_or(Span::from_secs(30))
}

fn route(
    table: Table<'_, '_>,
    receivers: &[&str],
    parent: Option<&Route>,
    depth: usize,
    count: &mut usize,
) -> Option<Route> {
    *count += 1;
    if depth > DEPTH_MAX || *count > ROUTES_MAX {
        if *count == ROUTES_MAX + 1 || depth == DEPTH_MAX + 1 {
            let text = format!("is deeper than {DEPTH_MAX}, or has more than {ROUTES_MAX} routes");
            table.problem(&table.path, text, Some("a receiver can be a mailing list".into()));
        }
        return None;
    }
    let named = |at: At<'_, '_>| {
        let name = at.string()?;
        if !receivers.contains(&name) {
            let help = slip_or_all(name, "receivers", receivers.iter().copied());
            let shown: String = name.chars().take(60).collect();
            at.problem(format!("there is no receiver {shown:?}"), Some(&help));
            return None;
        }
        Some(name.to_owned())
    };
    let receiver = match (table.get("receiver"), parent) {
        (Some(at), _) => named(at),
        (None, Some(parent)) => Some(parent.receiver.clone()),
        (None, None) => table.need("receiver", "receiver = \"oncall\"").and_then(named),
    };
    let mut matchers = Some(Vec::new());
    if let Some(at) = table.get("matchers") {
        if parent.is_none() {
            at.problem("cannot narrow the first route: it takes what no other does", Some("[[route.routes]]"));
        }
        matchers = at.strings().map(|all| {
            let mut found = Vec::new();
            for (text, at) in all {
                match Matcher::parse(text) {
                    Ok(matcher) => found.push(matcher),
                    Err(why) => at.problem(why, Some("matchers = ['severity=\"page\"', 'service=~\"pay.*\"']")),
                }
            }
            found
        });
    }
    let go_on = table.get("continue").and_then(|at| at.boolean()).unwrap_or(false);
    let repeat = match table.get("repeat_interval") {
        None => parent.map_or(Some(REPEAT), |parent| parent.repeat),
        Some(at) if at.string() == Some("none") => None,
        Some(at) => at.duration(Span::from_mins(5)..=Span::from_mins(72 * 60), "or \"none\": told once"),
    };
    let mut node = Route { receiver: receiver?, matchers: matchers?, go_on, repeat, routes: Vec::new() };
    let mut complete = true;
    for at in table.get("routes").map_or(Some(Vec::new()), |at| at.list())? {
        match at.table().and_then(|child| self::route(child, receivers, Some(&node), depth + 1, count)) {
            Some(child) => node.routes.push(child),
            None => complete = false,
        }
    }
    table.finish();
    complete.then_some(node)
}

fn fallback(table: Table<'_, '_>) -> Option<FallbackSettings> {
    let exec = table.need("exec", "exec = [\"/usr/local/bin/page-somebody\"]").and_then(|at| argv(&at, &[]));
    let after = table
        .get("after")
        .and_then(|at| at.duration(Span::from_secs(10)..=Span::from_mins(24 * 60), "a page must be seen the same day"))
        .unwrap_or(Span::from_mins(5));
    let timeout = timeout(&table);
    table.finish();
    Some(FallbackSettings { exec: exec?, after, timeout })
}

/// An address with `{{ variables }}`.
fn link(at: &At<'_, '_>) -> Option<String> {
    let text = at.string()?;
    let plain = filled(text, |_| "x".into());
    if plain.contains("{{") || plain.contains("}}") {
        let help = format!("{{{{ NAME }}}} with one of {}", LINK_VARIABLES.join(", "));
        at.problem("has a variable that is not known", Some(&help));
        return None;
    }
    let good = reqwest::Url::parse(&plain).is_ok_and(|url| ["http", "https"].contains(&url.scheme()));
    if !good {
        at.problem(
            "is no http(s) address",
            Some("grafana = \"https://grafana.example.org/d/abc?var-service={{ service }}\""),
        );
        return None;
    }
    Some(text.to_owned())
}
