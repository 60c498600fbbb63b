//! What a step does and how a probe looks: commands, HAProxy, files, nginx, HTTP.

use std::collections::BTreeMap;
use std::path::PathBuf;

use toml::de::DeValue;

use super::read::{absolute_path, credential_path, refuse_inline};
use super::service::SECOND;
use super::slots::argv;
use super::step::{by_slot, command, for_every_slot, known_variables, one_of, plain_name, slots_of};
use super::table::{At, Table};
use crate::domain::action::{
    Action, FileSet, Haproxy, HttpCall, HttpLook, HttpTarget, Look, Nginx, SecretHeader, Shows, SocketAddress,
    TakenOut, VARIABLES,
};
use crate::domain::plan::{Expect, Probe};
use crate::domain::service::Slots;
use crate::domain::switch::Slot;
use crate::domain::time::Span;
use crate::edge::secret::is_this_host;

/// A request's body is a few lines of JSON.
const BODY_MAX: usize = 64 * 1024;

#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    Exec,
    Haproxy,
    File,
    Nginx,
    Http,
}

const ACTIONS: [(&str, Kind); 5] = [
    ("exec", Kind::Exec),
    ("haproxy", Kind::Haproxy),
    ("nginx", Kind::Nginx),
    ("http", Kind::Http),
    ("file", Kind::File),
];

const LOOKS: [(&str, Kind); 4] =
    [("exec", Kind::Exec), ("haproxy", Kind::Haproxy), ("http", Kind::Http), ("file", Kind::File)];

/// The action, and the probe that comes with it.
pub(super) fn read(
    table: &Table<'_, '_>,
    slots: Option<&Slots>,
    words: Option<&BTreeMap<Slot, String>>,
) -> Option<(Action, Option<Probe>)> {
    let run_as_at = table.get("run_as");
    let as_unit = run_as_at.as_ref().and_then(|at| at.word(&[("daemon", false), ("unit", true)])).unwrap_or(false);
    let (kind, at) = one_of(table, &ACTIONS, "exec = [\"/usr/local/bin/switch-traffic\", \"$old\"]")?;
    if let (true, Some(place)) = (as_unit && kind != Kind::Exec, &run_as_at) {
        place.problem("is for exec only", Some("what flipback does itself runs in its own sandbox"));
    }
    let slot_probe = |look| Some(Probe { look, expect: Expect::SlotName, timeout: Span::from_secs(5) });
    match kind {
        Kind::Exec => {
            let exec = command(&at)?;
            Some((if as_unit { Action::Unit(exec) } else { Action::Exec(exec) }, None))
        }
        Kind::Haproxy => {
            let haproxy = haproxy(at.table()?, slots)?;
            Some((Action::Haproxy(haproxy.clone()), slot_probe(Look::Haproxy(haproxy))))
        }
        Kind::File => {
            let set = file(&at.table()?, true, slots)?;
            let probe = Probe { look: Look::File(set.clone()), expect: shown_by(&set), timeout: Span::from_secs(5) };
            Some((Action::File(set), Some(probe)))
        }
        Kind::Nginx => {
            let words = words.cloned().unwrap_or_default();
            let nginx = nginx(at.table()?, slots, words.clone())?;
            let expect = if words.is_empty() { Expect::SlotName } else { Expect::Words(words) };
            let look = Look::Http(nginx.served.clone());
            Some((Action::Nginx(nginx), Some(Probe { look, expect, timeout: Span::from_secs(5) })))
        }
        Kind::Http => {
            let table = at.table()?;
            let methods = ["POST", "PUT", "PATCH", "DELETE"].map(|m| (m, m));
            let method = table.get("method").map_or(Some("POST"), |at| at.word(&methods));
            Some((Action::Http(call(table, method, &VARIABLES)?), None))
        }
    }
}

pub(super) fn look(table: &Table<'_, '_>, slots: Option<&Slots>) -> Option<Look> {
    let (kind, at) = one_of(table, &LOOKS, "exec = [\"/usr/local/bin/active-slot\"]")?;
    match kind {
        Kind::Exec => command(&at).map(Look::Exec),
        Kind::Haproxy => haproxy(at.table()?, slots).map(Look::Haproxy),
        Kind::File => file(&at.table()?, true, slots).map(Look::File),
        Kind::Http | Kind::Nginx => http_look(at.table()?).map(Look::Http),
    }
}

/// Where HAProxy's runtime API is.
pub(super) fn socket(table: &Table<'_, '_>) -> Option<SocketAddress> {
    match (table.get("socket"), table.get("tcp")) {
        (Some(at), None) => absolute_path(&at).map(|path: PathBuf| SocketAddress::Unix(path)),
        (None, Some(at)) => at.string().and_then(|text| match text.parse::<std::net::SocketAddr>() {
            Ok(address) => Some(SocketAddress::Tcp(address.to_string())),
            Err(_) => {
                at.problem("is not an address with a port", Some("tcp = \"127.0.0.1:9999\""));
                None
            }
        }),
        _ => {
            let help = Some("socket = \"/run/haproxy/admin.sock\"".into());
            table.problem(&table.path, "needs exactly one of socket and tcp", help);
            None
        }
    }
}

fn haproxy(table: Table<'_, '_>, slots: Option<&Slots>) -> Option<Haproxy> {
    let address = socket(&table);
    let backend = table.need("backend", "backend = \"app\"").and_then(|at| plain_name(&at));
    let servers_at = table.get("servers");
    let servers = match &servers_at {
        Some(at) => servers(at, slots),
        // A server for each slot, by its name.
        None => match slots {
            Some(Slots::Named(known)) => Some(known.keys().map(|s| (s.clone(), vec![s.to_string()])).collect()),
            _ => {
                table.problem(
                    &table.path,
                    "needs servers",
                    Some("servers = { blue = [\"app1\"], green = [\"app2\"] }".into()),
                );
                None
            }
        },
    };
    let kinds = [("maint", TakenOut::Maint), ("drain", TakenOut::Drain), ("weight", TakenOut::Weight)];
    let others = table.get("others").and_then(|at| at.word(&kinds)).unwrap_or(TakenOut::Maint);
    let end_sessions_after = table
        .get("end_sessions_after")
        .and_then(|at| at.duration(Span::ZERO..=Span::from_mins(5), "the step waits for it, within its timeout"));
    let state_file = table.get("state_file").map(|at| absolute_path(&at));
    table.finish();
    Some(Haproxy {
        address: address?,
        backend: backend?,
        servers: servers?,
        others,
        end_sessions_after,
        state_file: state_file.map_or(Some(None), |f| f.map(Some))?,
    })
}

fn servers(at: &At<'_, '_>, slots: Option<&Slots>) -> Option<BTreeMap<Slot, Vec<String>>> {
    let mut all: BTreeMap<Slot, Vec<String>> = BTreeMap::new();
    for (slot, place) in slots_of(at, slots)? {
        let names: Vec<String> = match place.value.as_str() {
            Some(_) => plain_name(&place).into_iter().collect(),
            None => place.list()?.iter().filter_map(plain_name).collect(),
        };
        if names.is_empty() {
            place.problem("names no server", None);
        }
        for name in &names {
            if all.values().flatten().any(|known| known == name) {
                place.problem(format!("{name} is a server of two slots"), None);
            }
        }
        all.insert(slot, names);
    }
    for_every_slot(at, slots, &all).then_some(all)
}

/// `content` makes a file, `target` a link: a text for each slot, or one for all.
fn file(table: &Table<'_, '_>, whole: bool, slots: Option<&Slots>) -> Option<FileSet> {
    let path = table.need("path", "path = \"/etc/nginx/checkout-upstream.conf\"").and_then(|at| absolute_path(&at));
    let (content, target) = (table.get("content"), table.get("target"));
    let (at, link) = match (&content, &target) {
        (Some(at), None) => (at, false),
        (None, Some(at)) => (at, true),
        _ => {
            let help = "content = { blue = \"server 127.0.0.1:9001;\", green = \"...\" }";
            table.problem(&table.path, "needs exactly one of content and target", Some(help.into()));
            return None;
        }
    };
    let holds = match (at.value.as_str(), slots) {
        // The same whatever the slot: a flag.
        (Some(text), Some(Slots::Named(known))) => known.keys().map(|s| (s.clone(), text.to_owned())).collect(),
        (Some(_), _) => {
            at.problem(
                "needs slots with names",
                Some("use exec or http where slots are versions or a flag's variations"),
            );
            return None;
        }
        (None, _) => {
            let holds = by_slot(at, slots, false)?;
            for_every_slot(at, slots, &holds).then_some(holds)?
        }
    };
    if let Some((slot, _)) = holds.iter().find(|(_, text)| text.trim().is_empty()) {
        at.problem(format!("is empty for {slot}"), None);
    }
    if whole {
        table.tell_unknown();
    }
    Some(FileSet { path: path?, holds, link })
}

/// What its own probe is to show.
fn shown_by(set: &FileSet) -> Expect {
    match set.holds.values().next() {
        Some(first) if set.holds.len() > 1 && set.holds.values().all(|text| text == first) => {
            Expect::Fixed(first.lines().next().unwrap_or_default().trim().to_owned())
        }
        _ => Expect::SlotName,
    }
}

fn nginx(table: Table<'_, '_>, slots: Option<&Slots>, words: BTreeMap<Slot, String>) -> Option<Nginx> {
    let set = file(&table, false, slots);
    let test = match table.get("test") {
        None => Some(Some(crate::domain::action::Exec::new(["/usr/sbin/nginx", "-t"]))),
        Some(at) if at.value.as_str() == Some("none") => Some(None),
        Some(at) => argv(&at, &[]).map(Some),
    };
    let reload = match table.get("reload") {
        None => Some(crate::domain::action::Exec::new(["/usr/bin/systemctl", "reload", "nginx.service"])),
        Some(at) => argv(&at, &[]),
    };
    let help = "served = { url = \"http://127.0.0.1/flipback-slot\" }, which answers with the slot that is served";
    let served = table.need("served", help).and_then(|at| at.table()).and_then(http_look);
    let live_within = table
        .get("live_within")
        .and_then(|at| at.duration(SECOND..=Span::from_mins(2), "a reload takes no longer"))
        .unwrap_or(Span::from_secs(5));
    table.finish();
    Some(Nginx { file: set?, test: test?, reload: reload?, served: served?, live_within, words })
}

/// A request, with its method read already.
pub(super) fn call(table: Table<'_, '_>, method: Option<&str>, variables: &[&str]) -> Option<HttpCall> {
    let mut target = target(&table, variables);
    let (body_at, json_at) = (table.get("body"), table.get("json"));
    let body = match (&body_at, &json_at) {
        (Some(_), Some(at)) => {
            at.problem("is there beside body", Some("keep one of them"));
            None
        }
        (Some(at), None) => at.string().map(|text| Some(text.to_owned())),
        (None, Some(at)) => Some(Some(json(at.value).to_string())),
        (None, None) => Some(None),
    };
    if let (Some(at), Some(Some(text))) = (body_at.as_ref().or(json_at.as_ref()), &body) {
        known_variables(at, text, variables);
        if text.len() > BODY_MAX {
            at.problem("is longer than 64 KiB", None);
        }
    }
    if let (Some(target), Some(_)) = (&mut target, &json_at)
        && !target.headers.keys().any(|name| name.eq_ignore_ascii_case("content-type"))
    {
        target.headers.insert("Content-Type".into(), "application/json".into());
    }
    let status = |at: &At<'_, '_>| at.whole(100..=599, "an HTTP status").and_then(|n| u16::try_from(n).ok());
    let expect_status = match table.get("expect_status") {
        None => Some(Vec::new()),
        Some(at) => at.list().map(|all| all.iter().filter_map(status).collect()),
    };
    table.finish();
    Some(HttpCall { method: method?.to_owned(), target: target?, body: body?, expect_status: expect_status? })
}

pub(super) fn http_look(table: Table<'_, '_>) -> Option<HttpLook> {
    let target = target(&table, &VARIABLES);
    let (header, pointer_at) = (table.get("header"), table.get("pointer"));
    let shows = match (&header, &pointer_at) {
        (Some(_), Some(at)) => {
            at.problem("is there beside header", Some("keep one of them"));
            None
        }
        (Some(at), None) => header_name(at).map(Shows::Header),
        (None, Some(at)) => at.string().and_then(|text| pointer(at, text)).map(Shows::Pointer),
        (None, None) => Some(Shows::Body),
    };
    let mut require = BTreeMap::new();
    if let Some(at) = table.get("require") {
        for (name, _, place) in at.table()?.entries() {
            let value = match json(place.value) {
                serde_json::Value::String(text) => text,
                value @ (serde_json::Value::Bool(_) | serde_json::Value::Number(_)) => value.to_string(),
                _ => {
                    place.problem("must be a text, a number, true or false", None);
                    continue;
                }
            };
            if let Some(pointer) = pointer(&place, &name) {
                require.insert(pointer, value);
            }
        }
    }
    table.finish();
    Some(HttpLook { target: target?, shows: shows?, require })
}

fn pointer(at: &At<'_, '_>, text: &str) -> Option<String> {
    if !(text.is_empty() || text.starts_with('/')) {
        at.problem("is no JSON pointer", Some("it begins with /, like /spec/selector/slot"));
        return None;
    }
    Some(text.to_owned())
}

/// Whom a request goes to, and what it takes to be let in.
pub(super) fn target(table: &Table<'_, '_>, variables: &[&str]) -> Option<HttpTarget> {
    let url_at = table.need("url", "url = \"http://127.0.0.1:8080/admin/active\"");
    let url = url_at.as_ref().and_then(super::read::checked_url).map(str::to_owned);
    if let (Some(at), Some(url)) = (&url_at, &url) {
        known_variables(at, url, variables);
    }
    let mut headers = BTreeMap::new();
    let mut good = true;
    if let Some(at) = table.get("headers") {
        for (name, span, place) in at.table()?.entries() {
            if !is_header(&name) {
                place.source.problem(span, &place.path, "is no header's name", None);
                good = false;
            } else if name.eq_ignore_ascii_case("authorization") {
                place.problem(
                    "is a secret in the configuration",
                    Some("bearer_token_file, or secret_header with a file"),
                );
                good = false;
            } else if let Some(value) = place.string() {
                if value.chars().any(char::is_control) {
                    place.problem("holds a control character", None);
                    good = false;
                }
                known_variables(&place, value, variables);
                headers.insert(name, value.to_owned());
            }
        }
    }
    refuse_inline(table, "bearer_token", "bearer_token_file");
    let bearer = table.get("bearer_token_file").and_then(|at| credential_path(&at)).map(|file| SecretHeader {
        name: "Authorization".into(),
        prefix: "Bearer ".into(),
        file,
    });
    let one = |t: Table<'_, '_>| {
        let name = t.need("name", "name = \"X-Api-Key\"").and_then(|at| header_name(&at));
        let prefix = t.get("prefix").and_then(|at| at.string().map(str::to_owned)).unwrap_or_default();
        let file = t.need("file", "file = \"/etc/flipback/api.key\"").and_then(|at| credential_path(&at));
        t.finish();
        Some(SecretHeader { name: name?, prefix, file: file? })
    };
    let other = table.get("secret_header").and_then(|at| at.table()).and_then(one);
    let list = table.get("secret_headers").and_then(|at| at.list()).unwrap_or_default();
    let mut secrets = bearer.into_iter().chain(other).chain(list.iter().filter_map(|at| one(at.table()?)));
    let secret = secrets.next();
    let more_secrets = secrets.collect();
    let ca_file = table.get("ca_file").map(|at| absolute_path(&at));
    if let (Some(at), Some(url), Some(_)) = (&url_at, &url, &secret)
        && !is_safe(url)
    {
        at.problem("would send a secret in the clear", Some("https, or a loopback address"));
    }
    good.then_some(())?;
    let ca_file = ca_file.map_or(Some(None), |f| f.map(Some))?;
    Some(HttpTarget { url: url?, headers, secret, more_secrets, ca_file })
}

fn is_safe(url: &str) -> bool {
    reqwest::Url::parse(url)
        .is_ok_and(|url| url.scheme() == "https" || is_this_host(url.host_str().unwrap_or_default()))
}

pub(super) fn is_header(name: &str) -> bool {
    !name.is_empty() && name.len() <= 64 && name.chars().all(|c| c.is_ascii_alphanumeric() || c == '-' || c == '_')
}

fn header_name(at: &At<'_, '_>) -> Option<String> {
    let text = at.string()?;
    if !is_header(text) {
        at.problem("is no header's name", None);
        return None;
    }
    Some(text.to_owned())
}

/// TOML's values are JSON's, but for dates, which become texts.
fn json(value: &DeValue<'_>) -> serde_json::Value {
    match value {
        DeValue::String(text) => serde_json::Value::String(text.to_string()),
        DeValue::Integer(n) => n.as_str().parse::<i64>().map_or(serde_json::Value::Null, Into::into),
        DeValue::Float(n) => n.as_str().parse::<f64>().map_or(serde_json::Value::Null, Into::into),
        DeValue::Boolean(truth) => (*truth).into(),
        DeValue::Datetime(at) => serde_json::Value::String(at.to_string()),
        DeValue::Array(all) => all.iter().map(|item| json(item.get_ref())).collect(),
        DeValue::Table(table) => {
            let pairs = table.iter().map(|(key, item)| (key.get_ref().to_string(), json(item.get_ref())));
            serde_json::Value::Object(pairs.collect())
        }
    }
}
