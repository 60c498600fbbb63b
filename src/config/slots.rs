//! Slots with their health checks, and commands.

use std::collections::BTreeMap;

use super::origin::pages;
use super::read::http_url;
use super::service::named;
use super::table::{At, Table, nearest};
use crate::domain::action::Exec;
use crate::domain::plan::HealthCheck;
use crate::domain::service::{SlotSpec, Slots};
use crate::domain::switch::Slot;
use crate::domain::time::Span;

pub(super) fn slots(at: &At<'_, '_>) -> Option<Slots> {
    if let Some(text) = at.value.as_str() {
        if text == "versions" {
            return Some(Slots::Versions);
        }
        at.problem(
            format!("{:?} is not a way to name slots", text.chars().take(40).collect::<String>()),
            Some("slots = [\"blue\", \"green\"], a table of slots, or \"versions\""),
        );
        return None;
    }
    let mut named_slots = BTreeMap::new();
    if at.value.as_array().is_some() {
        for (name, place) in at.strings()? {
            if let Some(slot) = named(&place, |_| Slot::try_new(name))
                && named_slots.insert(slot, SlotSpec::default()).is_some()
            {
                place.problem("is there twice", None);
            }
        }
    } else {
        for (name, span, place) in at.table()?.entries() {
            let slot = match Slot::try_new(name) {
                Ok(slot) => slot,
                Err(why) => {
                    place.source.problem(span, &place.path, why.to_string(), None);
                    continue;
                }
            };
            let Some(table) = place.table() else { continue };
            let health = table.get("health").map(|at| at.table().and_then(health));
            let mut labels = BTreeMap::new();
            if let Some(t) = table.get("labels").and_then(|at| at.table()) {
                for (label, span, value) in t.entries() {
                    let plain = !label.is_empty()
                        && label
                            .chars()
                            .enumerate()
                            .all(|(i, c)| c == '_' || c.is_ascii_alphabetic() || (i > 0 && c.is_ascii_digit()));
                    if !plain {
                        value.source.problem(
                            span,
                            &value.path,
                            "is not a label name",
                            Some("letters, digits and _".into()),
                        );
                    } else if let Some(text) = value.string() {
                        labels.insert(label, text.to_owned());
                    }
                }
            }
            let scrape = table.get("scrape").map_or(Some(Vec::new()), |at| pages(&at));
            table.finish();
            let Some(scrape) = scrape else { continue };
            if let Some(health) = health.map_or(Some(None), |h| h.map(Some)) {
                named_slots.insert(slot, SlotSpec { health, labels, scrape });
            }
        }
    }
    if named_slots.is_empty() {
        at.problem("names no slot", Some("a blue/green service has two: slots = [\"blue\", \"green\"]"));
        return None;
    }
    Some(Slots::Named(named_slots))
}

fn health(table: Table<'_, '_>) -> Option<HealthCheck> {
    let timeout = table
        .get("timeout")
        .and_then(|at| {
            at.duration(Span::from_millis(50)..=Span::from_secs(30), "a check that takes longer is no answer")
        })
        .unwrap_or(Span::from_secs(2));
    let (http, tcp, exec) = (table.get("http"), table.get("tcp"), table.get("exec"));
    let many = [&http, &tcp, &exec].into_iter().flatten().count();
    let check = if many == 1 {
        match (http, tcp, exec) {
            (Some(at), _, _) => http_url(&at).map(|url| HealthCheck::Http { url, timeout }),
            (_, Some(at), _) => at.string().and_then(|text| {
                let good =
                    text.rsplit_once(':').is_some_and(|(host, port)| !host.is_empty() && port.parse::<u16>().is_ok());
                if !good {
                    at.problem(
                        format!("{:?} is not host:port", text.chars().take(80).collect::<String>()),
                        Some("tcp = \"127.0.0.1:9001\""),
                    );
                }
                good.then(|| HealthCheck::Tcp { address: text.to_owned(), timeout })
            }),
            (_, _, Some(at)) => argv(&at, &[]).map(|exec| HealthCheck::Exec { exec, timeout }),
            (None, None, None) => None,
        }
    } else {
        table.problem(
            &table.path,
            "needs exactly one of http, tcp and exec",
            Some("health = { http = \"http://127.0.0.1:9001/healthz\" }".into()),
        );
        None
    };
    table.finish();
    check
}

/// An absolute program and its arguments; a variable is a whole element.
pub(super) fn argv(at: &At<'_, '_>, variables: &[&str]) -> Option<Exec> {
    let elements = at.strings()?;
    let Some((program, place)) = elements.first() else {
        at.problem("is empty", Some("[\"/usr/local/bin/switch-traffic\", \"$old\"]"));
        return None;
    };
    let mut good = true;
    if !program.starts_with('/') {
        place.problem(
            format!("{:?} is not an absolute path", program.chars().take(60).collect::<String>()),
            Some("there is no shell and no search: name the program's whole path"),
        );
        good = false;
    }
    for (element, place) in &elements {
        if element.contains('\0') {
            place.problem("holds a NUL", None);
            good = false;
        }
        let Some(dollar) = element.find('$') else { continue };
        let name = &element[dollar + 1..];
        if dollar == 0 && variables.contains(&name) {
            continue;
        }
        good = false;
        let list: Vec<String> = variables.iter().map(|v| format!("${v}")).collect();
        if dollar == 0 && name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_') {
            let near = nearest(name, variables.iter().copied()).map(|v| format!("did you mean ${v}?"));
            let help = near.unwrap_or_else(|| {
                if list.is_empty() {
                    "no variables are known here".into()
                } else {
                    format!("the variables are {}", list.join(", "))
                }
            });
            place.problem(format!("${name} is not a variable"), Some(&help));
        } else {
            place.problem(
                "has a $ inside an element",
                Some("a variable is a whole element of its own: [\"--to\", \"$old\"] instead of [\"--to=$old\"]"),
            );
        }
    }
    good.then(|| Exec::new(elements.iter().map(|(e, _)| *e)))
}
