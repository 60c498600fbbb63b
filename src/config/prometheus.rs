//! `[prometheus]`: a server, its replicas, and how one is let in.

use std::collections::BTreeMap;
use std::path::PathBuf;

use super::action::is_header;
use super::read::{absolute_path, http_url, refuse_inline, secret_path};
use super::service::SECOND;
use super::settings::{ClientCertificate, PrometheusAuth, PrometheusSettings};
use super::table::{Table, slip_or_all};
use crate::domain::time::Span;

/// More servers than that are asked by nobody at every tick.
const REPLICAS_MAX: usize = 4;

pub(super) fn prometheus(table: Table<'_, '_>) -> Option<PrometheusSettings> {
    let url = table.need("url", "url = \"http://127.0.0.1:9090\"").and_then(|at| http_url(&at));
    let external_url = table.get("external_url").and_then(|at| http_url(&at));
    let defaults = PrometheusSettings::at(url.clone().unwrap_or_default());
    let timeout = table
        .get("timeout")
        .and_then(|at| at.duration(SECOND..=Span::from_secs(60), "a tick waits for the answer"))
        .unwrap_or(defaults.timeout);
    let settle = table.get("settle").and_then(|at| {
        at.duration(SECOND..=Span::from_mins(10), "samples that arrive later than this are lost to the soak")
    });
    let backfill = table
        .get("backfill")
        .and_then(|at| at.duration(Span::ZERO..=Span::from_mins(7 * 24 * 60), "the store keeps cells for eight days"))
        .unwrap_or(defaults.backfill);
    let auth = auth(&table);
    let ca_file = table.get("ca_file").map(|at| absolute_path(&at));
    let certificate = client_certificate(&table);
    let mut headers = texts(&table, "headers", |name| {
        if name.eq_ignore_ascii_case("authorization") {
            Err("is a secret in the configuration: use bearer_token_file or basic_auth")
        } else if is_header(name) {
            Ok(())
        } else {
            Err("is no header's name")
        }
    });
    // What Mimir, Cortex and Loki call an organisation.
    if let Some(tenant) = table.get("tenant").and_then(|at| at.string().map(str::to_owned)) {
        headers.insert("X-Scope-OrgID".into(), tenant);
    }
    let params = params(&table);
    let (replicas, quorum) = replicas(&table, url.as_deref());
    table.finish();
    url?;
    Some(PrometheusSettings {
        replicas,
        quorum,
        external_url,
        timeout,
        settle,
        auth: auth?,
        ca_file: ca_file.map_or(Some(None), |file| file.map(Some))?,
        certificate: certificate?,
        headers,
        params,
        backfill,
        ..defaults
    })
}

fn auth(table: &Table<'_, '_>) -> Option<Option<PrometheusAuth>> {
    let bearer = table.get("bearer_token_file").and_then(|at| secret_path(&at));
    let basic = table.get("basic_auth").and_then(|at| at.table()).and_then(|t| {
        let username = t.need("username", "username = \"flipback\"").and_then(|at| at.string().map(str::to_owned));
        refuse_inline(&t, "password", "password_file");
        let file =
            t.need("password_file", "put the password into a file and name it here").and_then(|at| secret_path(&at));
        t.finish();
        Some((username?, file?))
    });
    refuse_inline(table, "bearer_token", "bearer_token_file");
    match (bearer, basic) {
        (Some(_), Some(_)) => {
            table.problem("prometheus", "has both bearer_token_file and basic_auth", Some("keep one of them".into()));
            None
        }
        (Some(token_file), None) => Some(Some(PrometheusAuth::Bearer { token_file })),
        (None, Some((username, password_file))) => Some(Some(PrometheusAuth::Basic { username, password_file })),
        (None, None) => Some(None),
    }
}

fn client_certificate(table: &Table<'_, '_>) -> Option<Option<ClientCertificate>> {
    let path = |key: &'static str| table.get(key).map(|at| (absolute_path(&at), at));
    let (certificate, key): (Option<(Option<PathBuf>, _)>, _) = (path("client_cert_file"), path("client_key_file"));
    match (certificate, key) {
        (None, None) => Some(None),
        (Some((certificate, _)), Some((key, _))) => {
            Some(Some(ClientCertificate { cert_file: certificate?, key_file: key? }))
        }
        (Some((_, at)), None) => {
            at.problem("has no key beside it", Some("client_key_file = \"/etc/flipback/prometheus.key\""));
            None
        }
        (None, Some((_, at))) => {
            at.problem("has no certificate beside it", Some("client_cert_file = \"/etc/flipback/prometheus.crt\""));
            None
        }
    }
}

/// A table of texts.
fn texts(
    table: &Table<'_, '_>,
    key: &'static str,
    good: impl Fn(&str) -> Result<(), &'static str>,
) -> BTreeMap<String, String> {
    let mut all = BTreeMap::new();
    if let Some(t) = table.get(key).and_then(|at| at.table()) {
        for (name, span, place) in t.entries() {
            if let Err(why) = good(&name) {
                place.source.problem(span, &place.path, why.to_owned(), None);
            } else if let Some(value) = place.string() {
                if value.chars().any(char::is_control) {
                    place.problem("holds a control character", None);
                }
                all.insert(name, value.to_owned());
            }
        }
    }
    all
}

/// Parameters of Thanos, VictoriaMetrics and newer Prometheus that change which samples are answered with.
const PARAMS: [&str; 10] = [
    "dedup",
    "partial_response",
    "max_source_resolution",
    "replicaLabels[]",
    "storeMatch[]",
    "engine",
    "nocache",
    "extra_label",
    "latency_offset",
    "lookback_delta",
];

fn params(table: &Table<'_, '_>) -> BTreeMap<&'static str, String> {
    let mut all = BTreeMap::new();
    if let Some(t) = table.get("params").and_then(|at| at.table()) {
        for (name, span, place) in t.entries() {
            match PARAMS.iter().find(|known| **known == name) {
                Some(known) => {
                    all.extend(place.string().map(|value| (*known, value.to_owned())));
                }
                None => {
                    let help = slip_or_all(&name, "parameters", PARAMS.into_iter());
                    place.source.problem(
                        span,
                        &place.path,
                        "is no parameter that is known here".to_owned(),
                        Some(help),
                    );
                }
            }
        }
    }
    all
}

fn replicas(table: &Table<'_, '_>, url: Option<&str>) -> (Vec<String>, usize) {
    let mut replicas: Vec<String> = Vec::new();
    let list_at = table.get("replicas");
    for at in list_at.as_ref().and_then(|at| at.list()).unwrap_or_default() {
        let Some(one) = http_url(&at) else { continue };
        if url == Some(one.as_str()) || replicas.contains(&one) {
            at.problem("is there twice", Some("a server cannot be its own replica"));
        }
        replicas.push(one);
    }
    if let Some(at) = &list_at
        && replicas.len() > REPLICAS_MAX
    {
        at.problem(format!("more than {REPLICAS_MAX} replicas"), Some("each is asked at every tick"));
    }
    let servers = replicas.len() + 1;
    let quorum = table.get("quorum").and_then(|at| {
        let n = at.whole(1..=8, "how many servers must say the same")?;
        if n as usize > servers {
            let word = if servers == 1 { "server" } else { "servers" };
            at.problem(format!("{n} of {servers} {word} can never agree"), Some("name more in replicas"));
        }
        Some(n as usize)
    });
    (replicas, quorum.unwrap_or(1))
}
