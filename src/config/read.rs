//! From a parsed file to [`Settings`]: the top tables.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;

use toml::de::DeTable;

use super::api::{api, default_api};
use super::brakes;
use super::heartbeat::heartbeat;
use super::judging::judging;
use super::notify;
use super::problem::{Problem, Problems};
use super::prometheus::prometheus;
use super::service::{self, custom_limits_exist};
use super::settings::{
    ApiSettings, DetectorSettings, DigestSettings, EmailSettings, LogFormat, LogSettings, Look, MailLogin, MailTls,
    Settings,
};
use super::table::{At, Source, Table, slip_or_all};
use super::webhook;
use crate::domain::brakes::Brakes;
use crate::domain::policy::Policy;
use crate::domain::service::{Metrics, Service};
use crate::domain::switch::Slot;
use crate::domain::time::Span;
use crate::edge::secret::is_this_host;

pub const STATE_DIR: &str = "/var/lib/flipback";
pub const SOCKET: &str = "/run/flipback/control.sock";

/// Every day, in the morning of most who can mend what it finds.
const DRILLS: &str = "0 17 9 * * *";

const SECOND: Span = Span::from_secs(1);

/// Reads one text. All problems come together.
pub fn parse(file: &str, text: &str) -> Result<Settings, Problems> {
    read(file, text, settings)
}

/// The tables and keys that the code knows, by reading a text in which all are used.
pub(super) fn known_keys(text: &str) -> Result<BTreeSet<(String, &'static str)>, String> {
    let asked = |root: &Table<'_, '_>, source: &Source<'_>| settings(root, source).map(|_| source.asked());
    read("the example", text, asked).map_err(|problems| problems.to_string())
}

/// The same of a file with a policy.
pub fn parse_policy(file: &str, text: &str, service: &Service) -> Result<Policy, Problems> {
    read(file, text, |root, _| {
        let (policy, custom) = judging(root, &service.policy);
        root.tell_unknown();
        let policy = policy?;
        custom_limits_exist(custom.as_ref(), &policy, &service.metrics);
        Some(policy)
    })
}

fn read<T>(file: &str, text: &str, make: impl FnOnce(&Table<'_, '_>, &Source<'_>) -> Option<T>) -> Result<T, Problems> {
    // A byte order mark is what some editors leave; it is no mistake of the operator's.
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    let source = Source::new(file, text);
    let (root, errors) = DeTable::parse_recoverable(text);
    for error in &errors {
        let message = error.message().split_whitespace().collect::<Vec<_>>().join(" ");
        source.problem(error.span().unwrap_or(0..0), "", format!("not TOML: {message}"), None);
    }
    let made = make(&Table::root(&source, &root), &source);
    let mut problems = source.into_problems();
    match made {
        Some(made) if problems.is_empty() => Ok(made),
        _ => {
            problems.sort_by_key(|p| (p.line, p.column));
            problems.dedup();
            if problems.is_empty() {
                // Cannot happen: a missing part says why it is missing. Never silent all the same.
                problems.push(Problem::whole(file, "the configuration is not complete".into(), None));
            }
            Err(Problems(problems))
        }
    }
}

fn settings(root: &Table<'_, '_>, source: &Source<'_>) -> Option<Settings> {
    let state_dir = root.get("state_dir").and_then(|at| absolute_path(&at)).unwrap_or_else(|| STATE_DIR.into());
    let prometheus = root.get("prometheus").map(|at| at.table().and_then(prometheus));
    let email = root.get("email").map(|at| at.table().and_then(email));
    let heartbeat = root.get("heartbeat").map(|at| at.table().and_then(heartbeat));
    let log = root.get("log").map_or(Some(default_log()), |at| at.table().map(log));
    let brakes = root.get("brakes").map_or(Some(Brakes::default()), |at| at.table().and_then(brakes::brakes));
    let drills = root.get("drills").map_or(Some(Some(DRILLS.into())), |at| at.table().and_then(drills));
    let email = email.map_or(Some(None), |e| e.map(Some));
    let notify = notify::notify(root, email.as_ref().and_then(Option::as_ref));
    let digest = root.get("digest").map_or(Some(None), |at| at.table().and_then(digest));
    let templates = root.get("metrics").and_then(|at| at.table()).map(templates).unwrap_or_default();
    let list = root.need("service", "add a [[service]] table for each service to watch").and_then(|at| at.list());
    let (mut services, mut detectors) = (Vec::new(), Vec::new());
    let mut complete = list.is_some();
    let list = list.unwrap_or_default();
    for at in &list {
        match service::read(at, &templates, &mut detectors) {
            Some(service) => {
                if services.iter().any(|s: &Service| s.name == service.name) {
                    at.problem(
                        format!("the service {} is there twice", service.name),
                        Some("give each service one table"),
                    );
                }
                services.push(service);
            }
            None => complete = false,
        }
    }
    if complete {
        services.iter().zip(&list).for_each(|(service, at)| known_controls(service, at, &services));
    }
    let api = root.get("api").map_or(Some(default_api()), |at| at.table().and_then(|t| api(t, &services, complete)));
    let webhook_at = root.get("webhook");
    let webhooks = webhook_at.as_ref().map_or(Some(Vec::new()), |at| webhook::webhooks(at, &services));
    if let (Some(at), Some(_), Some(ApiSettings { listen: None, .. })) = (&webhook_at, &webhooks, &api) {
        at.problem(
            "is received over TCP, and [api] has no listen",
            Some("listen = \"127.0.0.1:9747\" and token_file in [api]; a TLS proxy before it for other hosts"),
        );
    }
    let asked = services.iter().any(|s: &Service| s.metrics.from.needs_prometheus())
        || detectors.iter().any(|d: &DetectorSettings| matches!(d.look, Look::Promql { .. }));
    if prometheus.is_none() && (asked || !complete) {
        root.need("prometheus", "add a [prometheus] table with url = \"http://127.0.0.1:9090\"");
    }
    finish_root(root, source);
    if !complete {
        return None;
    }
    Some(Settings {
        state_dir,
        prometheus: prometheus.map_or(Some(None), |p| p.map(Some))?,
        email: email?,
        notify: notify?,
        digest: digest?,
        api: api?,
        log: log?,
        brakes: brakes?,
        drills: drills?,
        services,
        detectors,
        webhooks: webhooks?,
        heartbeat: heartbeat.map_or(Some(None), |h| h.map(Some))?,
    })
}

/// A control is a service of the same configuration.
fn known_controls(service: &Service, at: &At<'_, '_>, all: &[Service]) {
    let names = || all.iter().map(|s| s.name.as_str());
    for strange in service.controls.iter().filter(|name| !names().any(|n| n == name.as_str())) {
        let near = super::table::nearest(strange.as_str(), names().filter(|n| *n != service.name.as_str()));
        let help = near.map_or_else(
            || format!("the services are {}", names().collect::<Vec<_>>().join(", ")),
            |n| format!("did you mean {n}?"),
        );
        at.problem(format!("the control {strange} of {} is no service here", service.name), Some(&help));
    }
}

fn finish_root(root: &Table<'_, '_>, source: &Source<'_>) {
    const KNOWN: [&str; 17] = [
        "state_dir",
        "prometheus",
        "email",
        "receiver",
        "route",
        "fallback",
        "notify",
        "links",
        "digest",
        "heartbeat",
        "api",
        "log",
        "brakes",
        "drills",
        "metrics",
        "service",
        "webhook",
    ];
    for (key, span, _) in root.entries() {
        if !KNOWN.contains(&key.as_str()) {
            let shown: String = key.chars().take(60).collect();
            let help = slip_or_all(&key, "top-level keys", KNOWN.iter().copied());
            source.problem(span, &shown, "is not a key of the configuration", Some(help));
        }
    }
}

/// A secret in the file itself would end up in backups and tickets.
pub(super) fn refuse_inline(table: &Table<'_, '_>, key: &'static str, file_key: &str) {
    if let Some(at) = table.get_refused(key) {
        at.problem(
            "is a secret in the configuration",
            Some(&format!("put it into a file that only flipback can read and name it in {file_key}")),
        );
    }
}

fn email(table: Table<'_, '_>) -> Option<EmailSettings> {
    let smarthost = table.need("smarthost", "smarthost = \"127.0.0.1:25\"").and_then(|at| host_port(&at));
    let from = table.need("from", "from = \"flipback@example.org\"").and_then(|at| address(&at));
    let to = table.get("to").map_or(Some(Vec::new()), |at| addresses(&at));
    let ca_file = table.get("ca_file").and_then(|at| absolute_path(&at));
    let tls = table.get("tls").and_then(|at| {
        at.word(&[("none", MailTls::None), ("starttls", MailTls::StartTls), ("implicit", MailTls::Implicit)])
    });
    let username = table.get("username").and_then(|at| at.string().map(str::to_owned));
    refuse_inline(&table, "password", "password_file");
    let password_file = table.get("password_file").and_then(|at| secret_path(&at));
    let timeout = table
        .get("timeout")
        .and_then(|at| {
            at.duration(SECOND..=Span::from_mins(5), "one delivery, from connecting to the server's last word")
        })
        .unwrap_or(Span::from_secs(30));
    let login = match (username, password_file) {
        (Some(username), Some(password_file)) => Some(MailLogin { username, password_file }),
        (None, None) => None,
        (Some(_), None) => {
            table.problem(
                "email.password_file",
                "is missing beside username",
                Some("name the file that holds the password".into()),
            );
            return None;
        }
        (None, Some(_)) => {
            table.problem("email.username", "is missing beside password_file", None);
            return None;
        }
    };
    table.finish();
    let (host, port) = smarthost?;
    let tls = tls.unwrap_or(if is_this_host(&host) { MailTls::None } else { MailTls::StartTls });
    Some(EmailSettings { host, port, tls, from: from?, to: to?, login, ca_file, timeout })
}

/// A name that can stand in a path and beside a slash.
pub(super) fn plain_name(at: &At<'_, '_>, otherwise: &str) -> Option<String> {
    let text = at.string()?;
    if Slot::try_new(text).is_err() || text.contains(['/', ':']) {
        at.problem(otherwise, None);
        return None;
    }
    Some(text.to_owned())
}

/// A cron text of six fields.
fn schedule(at: &At<'_, '_>, help: &str) -> Option<String> {
    let text = at.string()?;
    if !crate::edge::schedule::is_schedule(text) {
        let shown: String = text.chars().take(60).collect();
        at.problem(format!("{shown:?} is no schedule"), Some(help));
        return None;
    }
    Some(text.to_owned())
}

pub(super) fn addresses(at: &At<'_, '_>) -> Option<Vec<String>> {
    let all: Vec<String> = at.list()?.iter().filter_map(address).collect();
    if all.is_empty() {
        at.problem("names nobody", Some("name at least one address"));
    } else if all.len() > 50 {
        at.problem("has more than 50 addresses", Some("use a mailing list"));
    }
    Some(all)
}

/// `[digest]`: when the days or weeks behind are summed up.
fn digest(table: Table<'_, '_>) -> Option<Option<DigestSettings>> {
    let help = "six fields, seconds first, UTC: \"0 0 7 * * 1\" is Mondays at 07:00";
    let cron = table.need("cron", "cron = \"0 0 7 * * 1\"").and_then(|at| schedule(&at, help));
    let covers = table
        .get("covers")
        .and_then(|at| at.duration(Span::from_mins(60)..=Span::from_mins(35 * 24 * 60), "a month at most"))
        .unwrap_or(Span::from_mins(7 * 24 * 60));
    table.finish();
    Some(Some(DigestSettings { cron: cron?, covers }))
}

/// `[drills]`: when the ways back are practised without moving traffic.
fn drills(table: Table<'_, '_>) -> Option<Option<String>> {
    let cron = table.get("cron").map_or(Some(Some(DRILLS.to_owned())), |at| match at.string()? {
        "none" => Some(None),
        _ => {
            let help = "six fields, seconds first, UTC: \"0 17 9 * * *\" is every day at 09:17; or \"none\"";
            schedule(&at, help).map(Some)
        }
    });
    table.finish();
    cron
}

fn default_log() -> LogSettings {
    LogSettings { format: LogFormat::Auto, level: "info".into() }
}

fn log(table: Table<'_, '_>) -> LogSettings {
    let format = table
        .get("format")
        .and_then(|at| at.word(&[("auto", LogFormat::Auto), ("logfmt", LogFormat::Logfmt), ("json", LogFormat::Json)]))
        .unwrap_or(LogFormat::Auto);
    let level = table.get("level").and_then(|at| {
        let text = at.string()?;
        if text.parse::<tracing_subscriber::filter::Targets>().is_err() {
            at.problem(
                format!("{text:?} is not a log level"),
                Some("one of error, warn, info, debug, trace; or flipback=debug,info"),
            );
            return None;
        }
        Some(text.to_owned())
    });
    table.finish();
    LogSettings { format, level: level.unwrap_or_else(|| "info".into()) }
}

fn templates(table: Table<'_, '_>) -> BTreeMap<String, Option<Metrics>> {
    table
        .entries()
        .into_iter()
        .map(|(name, _, at)| (name.clone(), at.table().and_then(|t| super::metrics::metrics(&name, t))))
        .collect()
}

pub(super) fn absolute_path(at: &At<'_, '_>) -> Option<PathBuf> {
    let text = at.string()?;
    if !text.starts_with('/') || text.contains('\0') {
        at.problem(
            format!("{:?} is not an absolute path", text.chars().take(80).collect::<String>()),
            Some("begin it with /"),
        );
        return None;
    }
    Some(PathBuf::from(text))
}

/// Where systemd puts a unit's credentials: for a check by hand, outside the unit.
const CREDENTIALS: &str = "/run/credentials/flipback.service";

/// Where a secret is: a file, one of systemd's credentials (`credential:NAME`), or the daemon's own environment
/// (`env:NAME`, read where the file would be).
pub(super) fn secret_path(at: &At<'_, '_>) -> Option<PathBuf> {
    if let Some(name) = at.string()?.strip_prefix("env:") {
        let plain = !name.is_empty() && name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_');
        if !plain {
            at.problem("is no name of a variable", Some("env:SMTP_PASSWORD"));
        }
        return plain.then(|| PathBuf::from(format!("env:{name}")));
    }
    credential_path(at)
}

/// The same for what is read by a process of its own, which gets none of the daemon's environment.
pub(super) fn credential_path(at: &At<'_, '_>) -> Option<PathBuf> {
    let text = at.string()?;
    if text.starts_with("env:") {
        at.problem(
            "would be read by a step, which has no environment of the daemon's",
            Some("a file, or credential:NAME"),
        );
        return None;
    }
    let Some(name) = text.strip_prefix("credential:") else { return absolute_path(at) };
    let plain =
        !name.is_empty() && name.len() <= 64 && name.chars().all(|c| c.is_ascii_alphanumeric() || "._-".contains(c));
    if !plain || name.starts_with('.') {
        at.problem(
            "is no name of a credential",
            Some("credential:smtp.password, with LoadCredential= in a drop-in of the unit"),
        );
        return None;
    }
    let dir = std::env::var_os("CREDENTIALS_DIRECTORY").map_or_else(|| PathBuf::from(CREDENTIALS), PathBuf::from);
    Some(dir.join(name))
}

pub(super) fn http_url(at: &At<'_, '_>) -> Option<String> {
    Some(checked_url(at)?.trim_end_matches('/').to_owned())
}

/// The URL as it is written.
pub(super) fn checked_url<'s>(at: &At<'s, '_>) -> Option<&'s str> {
    let text = at.string()?;
    let shown: String = text.chars().take(80).collect();
    match reqwest::Url::parse(text) {
        Ok(url) if !matches!(url.scheme(), "http" | "https") => {
            at.problem(format!("{shown:?} is not an http or https URL"), None);
            None
        }
        Ok(url) if !url.username().is_empty() || url.password().is_some() => {
            at.problem(
                "has credentials in it",
                Some("URLs are shown in logs and mails: use basic_auth with a password_file"),
            );
            None
        }
        Ok(_) => Some(text),
        Err(why) => {
            at.problem(format!("{shown:?} is not a URL: {why}"), Some("like http://127.0.0.1:9090"));
            None
        }
    }
}

fn host_port(at: &At<'_, '_>) -> Option<(String, u16)> {
    let text = at.string()?;
    let parts = text.rsplit_once(':').and_then(|(host, port)| Some((host, port.parse::<u16>().ok()?)));
    match parts {
        Some((host, port)) if !host.is_empty() && port > 0 && !host.contains(['/', '@', ' ']) => {
            Some((host.trim_matches(['[', ']']).to_owned(), port))
        }
        _ => {
            at.problem(
                format!("{:?} is not host:port", text.chars().take(80).collect::<String>()),
                Some("like mail.example.org:587 or 127.0.0.1:25"),
            );
            None
        }
    }
}

fn address(at: &At<'_, '_>) -> Option<String> {
    let text = at.string()?;
    match text.parse::<lettre::message::Mailbox>() {
        Ok(_) => Some(text.to_owned()),
        Err(_) => {
            at.problem(
                format!("{:?} is not a mail address", text.chars().take(80).collect::<String>()),
                Some("like oncall@example.org or \"On call <oncall@example.org>\""),
            );
            None
        }
    }
}
