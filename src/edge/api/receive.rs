//! `/hooks/NAME`: a delivery of another tool, from the first byte to the answer. Every one leaves a line in the
//! log that says what became of it.

use std::sync::Arc;
use std::time::Instant;

use axum::body::Bytes;
use axum::extract::{Path, State};
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::response::Response;
use serde_json::{Map, Value};

use super::ApiContext;
use super::parse;
use super::routes::{announce_with, answered, failure, refused, success};
use super::types::Done;
use crate::domain::service::Slots;
use crate::domain::switch::{Alert, ServiceName};
use crate::edge::hooks::{Delivery, Hook, Outcome, Refused};
use crate::edge::inbox::NotTaken;
use crate::edge::metrics::OfHook;
use crate::engine::message::{Answer, Input};

pub(super) async fn receive(
    State(c): State<Arc<ApiContext>>,
    Path(name): Path<String>,
    headers: HeaderMap,
    body: Bytes,
) -> Response {
    let hooks = c.hooks.read().unwrap_or_else(std::sync::PoisonError::into_inner).clone();
    let Some(hook) = hooks.get(&name) else {
        let shown: String = name.chars().filter(|c| !c.is_control()).take(60).collect();
        tracing::warn!(webhook = shown, "a delivery to a webhook that is not configured");
        return failure(StatusCode::NOT_FOUND, "not_found", &format!("there is no webhook {shown}"));
    };
    let count = |result| {
        c.metrics.hooks.get_or_create(&OfHook { webhook: hook.settings.name.clone(), result }).inc();
    };
    if let Err(too_much) = c.hook_limit.take(&hook.settings.name, Instant::now()) {
        if too_much.first {
            tracing::warn!(webhook = hook.settings.name, "too many deliveries: they are told to come back");
        }
        count("too_many");
        return come_back();
    }
    let delivery = Delivery { headers: &headers, body: &body, now: c.wall() };
    let (result, answer) = match hook.take(&delivery) {
        Err(Refused::Stranger(why)) => {
            tracing::warn!(webhook = hook.settings.name, %why, "a delivery was not believed");
            ("unauthorized", failure(StatusCode::UNAUTHORIZED, "unauthorized", &why))
        }
        Err(Refused::Bad(why)) => {
            tracing::warn!(webhook = hook.settings.name, %why, "a delivery could not be read");
            ("bad", failure(StatusCode::BAD_REQUEST, "bad_data", &why))
        }
        Ok(Outcome::Ignored(why)) => {
            tracing::info!(webhook = hook.settings.name, %why, "a delivery was ignored");
            ("ignored", success(StatusCode::OK, Done { text: format!("ignored: {why}") }))
        }
        Ok(Outcome::Announce(map)) => announce(&c, hook, map).await,
        Ok(Outcome::Alerts(all)) => alerts(&c, hook, all).await,
    };
    count(result);
    answer
}

async fn announce(c: &ApiContext, hook: &Hook, mut map: Map<String, Value>) -> (&'static str, Response) {
    let name = &hook.settings.name;
    fill_old(c, &mut map);
    let announcement = match announce_with(c, |now| parse::from_map(map, format!("webhook {name}"), now)) {
        Ok(announcement) => announcement,
        Err(refusal) => {
            tracing::warn!(webhook = name, field = refusal.field, why = refusal.text, "a delivery announces nothing");
            return ("bad", refused(refusal));
        }
    };
    if let Err(refusal) = may_speak_of(hook, &announcement.service) {
        tracing::warn!(webhook = name, service = %announcement.service, "a delivery speaks of a service that is not its own");
        return ("forbidden", *refusal);
    }
    let (service, event) = (announcement.service.clone(), announcement.event_id.clone());
    let answer = c.inbox.ask(|request| Input::Announced { request, announcement }).await;
    let event = event.as_ref().map(|event| event.as_str());
    match told(&answer) {
        Ok(result) => tracing::info!(webhook = name, %service, event, result, "a delivery announced a switch"),
        Err(why) => tracing::warn!(webhook = name, %service, event, why, "a delivery's switch was refused"),
    }
    ("announced", answered(answer))
}

/// What became of an announcement, for the log.
pub(super) fn told(answer: &Result<Answer, NotTaken>) -> Result<String, String> {
    match answer {
        Ok(Answer::Accepted { switch }) => Ok(format!("accepted as {switch}")),
        Ok(Answer::Known { switch }) => Ok(format!("known as {switch}")),
        Ok(Answer::Stepped { switch }) => Ok(format!("a step of {switch}")),
        Ok(Answer::OwnHand { switch }) => Ok(format!("flipback's own hand ({switch})")),
        Ok(Answer::Reverted { switch }) => Ok(format!("{switch} was reverted")),
        Ok(Answer::Done { text }) => Ok(text.clone()),
        Ok(Answer::NotFound { text } | Answer::Conflict { text } | Answer::NoRoom { text }) => Err(text.clone()),
        Ok(Answer::Refused { field, text }) => Err(format!("{field}: {text}")),
        Err(NotTaken::Busy) => Err("flipback is busy".into()),
        Err(NotTaken::Stopping) => Err("flipback is stopping".into()),
    }
}

/// Most tools say where they deployed to, not where the traffic came from.
fn fill_old(c: &ApiContext, map: &mut Map<String, Value>) {
    let text = |key: &str| map.get(key).and_then(Value::as_str).map(str::to_owned);
    if map.contains_key("old") || map.contains_key("flag") {
        return;
    }
    let (Some(service), Some(new)) = (text("service"), text("new")) else { return };
    let settings = c.settings.read().unwrap_or_else(std::sync::PoisonError::into_inner).clone();
    let Some(known) = settings.services.iter().find(|s| s.name.as_str() == service) else {
        // Refused by its name, which says more than a missing slot.
        map.insert("old".into(), Value::String(new));
        return;
    };
    let other = match &known.slots {
        Slots::Named(named) if named.len() == 2 => {
            named.keys().find(|slot| slot.as_str() != new).map(|slot| slot.to_string())
        }
        Slots::Named(_) | Slots::Versions => None,
    };
    let live = c.facts.lock().ok().and_then(|facts| facts.services.get(&known.name)?.live.clone());
    if let Some(old) = other.or(live) {
        map.insert("old".into(), Value::String(old));
    }
}

async fn alerts(c: &ApiContext, hook: &Hook, all: Vec<(ServiceName, Vec<Alert>)>) -> (&'static str, Response) {
    let mut told = Vec::new();
    for (service, alerts) in all {
        if let Err(refusal) = may_speak_of(hook, &service) {
            tracing::warn!(webhook = hook.settings.name, %service, "an alert speaks of a service that is not its own");
            return ("forbidden", *refusal);
        }
        let (by, acts) = (format!("webhook {}", hook.settings.name), hook.settings.acts);
        let names: Vec<&str> = alerts.iter().map(|alert| alert.name.as_str()).collect();
        tracing::info!(webhook = hook.settings.name, %service, alerts = names.join(", "), acts, "alerts fire");
        let answer = c.inbox.ask(|request| Input::Accused { request, service, by, alerts, acts }).await;
        match answer {
            // Alertmanager speaks of more services than are watched: no failure, or it would send it again.
            Ok(Answer::Done { text } | Answer::NotFound { text }) => {
                told.push(text);
            }
            other => return ("failed", answered(other)),
        }
    }
    ("alerts", success(StatusCode::OK, Done { text: told.join("; ") }))
}

fn may_speak_of(hook: &Hook, service: &ServiceName) -> Result<(), Box<Response>> {
    let only = &hook.settings.services;
    if only.is_empty() || only.contains(service) {
        return Ok(());
    }
    let text = format!("webhook {} may not speak of {service}", hook.settings.name);
    Err(Box::new(failure(StatusCode::FORBIDDEN, "forbidden", &text)))
}

/// 429 with the time to wait.
pub(super) fn come_back() -> Response {
    let mut answer = failure(StatusCode::TOO_MANY_REQUESTS, "too_many", "too many requests: try again in a second");
    answer.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from_static("1"));
    answer
}
