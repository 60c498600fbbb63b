//! `[[service.detect]]`: where a switch is noticed that nobody announced.

use std::collections::BTreeMap;

use super::action;
use super::metrics::query;
use super::read::absolute_path;
use super::settings::{DetectorSettings, Look, Shows};
use super::slots::argv;
use super::table::{At, Table};
use crate::domain::service::{Service, Slots};
use crate::domain::switch::Slot;
use crate::domain::time::Span;

/// Each looks once a second.
const DETECTORS_MAX: usize = 8;

pub(super) fn detectors(at: &At<'_, '_>, service: &Service) -> Vec<DetectorSettings> {
    let Some(list) = at.list() else { return Vec::new() };
    if list.len() > DETECTORS_MAX {
        at.problem(format!("has more than {DETECTORS_MAX} detectors"), None);
    }
    let mut found: Vec<DetectorSettings> = Vec::new();
    for at in &list {
        let Some(detector) = at.table().and_then(|table| detector(table, service)) else { continue };
        if found.iter().any(|d| d.name == detector.name) {
            at.problem(format!("the detector {} is there twice", detector.name), Some("give each a name of its own"));
        }
        found.push(detector);
    }
    found
}

fn detector(table: Table<'_, '_>, service: &Service) -> Option<DetectorSettings> {
    let name = table.get("name").and_then(|at| at.string().map(|text| (text.to_owned(), at.clone())));
    let every = table
        .get("every")
        .and_then(|at| at.duration(Span::from_millis(200)..=Span::from_mins(5), "a switch is to be seen within a tick"))
        .unwrap_or(Span::from_secs(1));
    let shows = table
        .get("shows")
        .and_then(|at| at.word(&[("slot", Shows::Slot), ("version", Shows::Version)]))
        .unwrap_or(Shows::Slot);
    let words_at = table.get("words");
    let words = words_at.as_ref().map_or(Some(BTreeMap::new()), |at| words(at, service));
    let timeout = table
        .get("timeout")
        .and_then(|at| at.duration(Span::from_millis(100)..=Span::from_secs(5), "a look is a quick one"))
        .unwrap_or(Span::from_secs(3));
    let kinds = ["file", "symlink", "haproxy", "exec", "promql"].map(|key| table.get(key).map(|at| (key, at)));
    let kinds: Vec<_> = kinds.into_iter().flatten().collect();
    let [(kind, kind_at)] = kinds.as_slice() else {
        table.problem(
            &table.path,
            "needs exactly one of file, symlink, haproxy, exec and promql",
            Some("haproxy = { socket = \"/run/haproxy/admin.sock\", backend = \"app\" }".into()),
        );
        table.finish();
        return None;
    };
    let look = match *kind {
        "file" => absolute_path(kind_at).map(|path| Look::File { path }),
        "symlink" => absolute_path(kind_at).map(|path| Look::Symlink { path }),
        "haproxy" => kind_at.table().and_then(haproxy),
        "exec" => argv(kind_at, &[]).map(|exec| Look::Exec { exec, timeout }),
        _ => kind_at.table().and_then(by_promql),
    };
    let weighed = matches!(look, Some(Look::Haproxy { .. }));
    if weighed && shows == Shows::Version {
        table.problem(&table.path, "HAProxy shows slots, not versions", None);
    }
    table.finish();
    let name = match name {
        None => (*kind).to_owned(),
        Some((text, at)) => match crate::domain::switch::Slot::try_new(text.clone()) {
            Ok(_) => text,
            Err(_) => {
                at.problem("is not a name: letters, digits and . _ : / -", None);
                return None;
            }
        },
    };
    let mut words = words?;
    if let (Slots::Named(named), Shows::Slot) = (&service.slots, shows) {
        // A slot without words of its own is shown by its name.
        for slot in named.keys() {
            words.entry(slot.clone()).or_insert_with(|| vec![slot.to_string()]);
        }
    }
    if matches!(look, Some(Look::File { .. })) && words.is_empty() {
        let help = "words = { blue = \"127.0.0.1:9001\", green = \"127.0.0.1:9002\" }";
        kind_at.problem("needs words beside it: what stands in the file for which slot", Some(help));
        return None;
    }
    Some(DetectorSettings { service: service.name.clone(), name, every, shows, words, look: look? })
}

fn words(at: &At<'_, '_>, service: &Service) -> Option<BTreeMap<Slot, Vec<String>>> {
    let mut words = BTreeMap::new();
    for (name, span, place) in at.table()?.entries() {
        let slot = match Slot::try_new(name) {
            Ok(slot) if service.slots.knows(&slot) => slot,
            Ok(_) => {
                let help = match &service.slots {
                    Slots::Named(named) => {
                        let names: Vec<&str> = named.keys().map(Slot::as_str).collect();
                        Some(format!("its slots are {}", names.join(", ")))
                    }
                    Slots::Versions => None,
                };
                place.source.problem(span, &place.path, "is not a slot of this service", help);
                continue;
            }
            Err(why) => {
                place.source.problem(span, &place.path, why.to_string(), None);
                continue;
            }
        };
        let list = match place.value.as_str() {
            Some(one) => vec![one.to_owned()],
            None => place.strings()?.into_iter().map(|(text, _)| text.to_owned()).collect(),
        };
        if list.iter().any(|word| word.trim().is_empty()) || list.is_empty() {
            place.problem("is empty: it would stand everywhere", None);
        }
        words.insert(slot, list);
    }
    Some(words)
}

fn haproxy(table: Table<'_, '_>) -> Option<Look> {
    let address = action::socket(&table);
    let backend =
        table.need("backend", "backend = \"app\"").and_then(|at| at.string().map(|text| (text.to_owned(), at.clone())));
    table.finish();
    let (backend, at) = backend?;
    if Slot::try_new(backend.clone()).is_err() {
        at.problem("is not a backend's name", None);
        return None;
    }
    Some(Look::Haproxy { address: address?, backend })
}

fn by_promql(table: Table<'_, '_>) -> Option<Look> {
    let query = table
        .need("query", "query = 'sum by (env) (rate(http_requests_total{service=\"checkout\"}[15s]))'")
        .and_then(|at| query(&at));
    let label = table.need("label", "label = \"env\"").and_then(|at| at.string().map(str::to_owned));
    table.finish();
    Some(Look::Promql { query: query?, label: label? })
}
