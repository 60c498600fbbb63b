//! Metrics: a `[metrics.NAME]` table, or a service's own.

use std::collections::BTreeMap;

use super::origin::{KINDS, Kind, origin};
use super::table::{At, Table, nearest};
use crate::domain::origin::Origin;
use crate::domain::service::{Latency, Metrics};
use crate::domain::switch::ServiceName;
use crate::edge::sources::promql;

pub(super) fn service_metrics(
    at: &At<'_, '_>,
    service: Option<&ServiceName>,
    templates: &BTreeMap<String, Option<Metrics>>,
) -> Option<Metrics> {
    if at.value.as_table().is_some() {
        let name = service.map_or("service", ServiceName::as_str).to_owned();
        return metrics(&name, at.table()?);
    }
    let name = at.string()?;
    match templates.get(name) {
        Some(found) => found.clone(),
        None => {
            let near = nearest(name, templates.keys().map(String::as_str));
            let list: Vec<_> = templates.keys().map(String::as_str).collect();
            let help = near.map_or_else(
                || format!("the templates are: {}", if list.is_empty() { "none".into() } else { list.join(", ") }),
                |n| format!("did you mean {n:?}?"),
            );
            at.problem(format!("there is no [metrics.{}]", name.chars().take(60).collect::<String>()), Some(&help));
            None
        }
    }
}

/// Any PromQL.
pub(super) fn query(at: &At<'_, '_>) -> Option<String> {
    let text = at.string()?;
    match promql::check_query(text) {
        Ok(()) => Some(text.to_owned()),
        Err(why) => {
            at.problem(why, None);
            None
        }
    }
}

pub(super) fn metrics(name: &str, table: Table<'_, '_>) -> Option<Metrics> {
    let kind = table.get("source").and_then(|at| at.word(&KINDS)).unwrap_or(Kind::Prometheus);
    let from = origin(&table, kind);
    match kind {
        Kind::Prometheus | Kind::Scrape => series(name, table, from, kind),
        Kind::Command | Kind::Http => {
            let mut custom = Vec::new();
            if let Some(at) = table.get("custom") {
                custom = at.strings()?.into_iter().map(|(name, _)| (name.to_owned(), String::new())).collect();
            }
            table.finish();
            let requests = String::new();
            Some(Metrics { name: name.to_owned(), from: from?, requests, errors: None, latency: None, custom })
        }
    }
}

/// What is read from series, whoever keeps them.
fn series(name: &str, table: Table<'_, '_>, from: Option<Origin>, kind: Kind) -> Option<Metrics> {
    let selector = |at: At<'_, '_>| -> Option<String> {
        let text = at.string()?;
        match promql::check_selector(text) {
            Ok(()) => Some(text.to_owned()),
            Err(why) => {
                at.problem(why, None);
                None
            }
        }
    };
    let requests = table
        .need("requests", "requests = 'http_requests_total{service=\"$service\",env=\"$slot\"}'")
        .and_then(selector);
    let errors = table.get("errors").map(selector);
    let latency = table.get("latency").map(|at| {
        let place = at.clone();
        if at.is_table() {
            let t = at.table()?;
            if kind == Kind::Scrape {
                place.problem("is for Prometheus: a page shows classic buckets", Some("latency = '..._bucket{...}'"));
            }
            let text =
                t.need("native", "latency = { native = 'http_request_duration_seconds{...}' }").and_then(selector);
            t.finish();
            return text.map(Latency::Native);
        }
        let text = selector(at)?;
        let metric = promql::Selector::parse(&text).ok()?.metric().to_owned();
        if !metric.ends_with("_bucket") {
            place.problem(
                format!("{metric} is not a histogram's buckets"),
                Some(&format!(
                    "name the buckets: {metric}_bucket; a native histogram is latency = {{ native = '...' }}"
                )),
            );
            return None;
        }
        Some(Latency::Classic(text))
    });
    let mut custom = Vec::new();
    let custom_at = table.get("custom");
    if let (Some(at), Kind::Scrape) = (&custom_at, kind) {
        at.problem(
            "is PromQL, which no page can answer",
            Some("leave it away, or let source = \"prometheus\" read it"),
        );
    }
    if let Some(t) = custom_at.and_then(|at| at.table()) {
        for (name, _, at) in t.entries() {
            custom.extend(query(&at).map(|query| (name, query)));
        }
    }
    let by_slot = requests.as_ref().is_some_and(|r| r.contains("$slot"));
    let latency_text = latency.clone().flatten().map(|l| match l {
        Latency::Classic(text) | Latency::Native(text) => text,
    });
    for (what, text) in [("errors", errors.clone().flatten()), ("latency", latency_text)] {
        if let Some(text) = text
            && text.contains("$slot") != by_slot
            && requests.is_some()
            && kind == Kind::Prometheus
        {
            table.problem(
                &format!("{}.{what}", table.path),
                "and requests do not agree on $slot: one tells slots apart, the other does not",
                Some(
                    "put $slot into all selectors, or into none (then before and after are told apart by time)".into(),
                ),
            );
        }
    }
    table.finish();
    Some(Metrics {
        name: name.to_owned(),
        from: from?,
        requests: requests?,
        errors: errors.map_or(Some(None), |e| e.map(Some))?,
        latency: latency.map_or(Some(None), |l| l.map(Some))?,
        custom,
    })
}
