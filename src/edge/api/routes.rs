//! Every route, and how an answer of the engine becomes one over HTTP.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use axum::body::Bytes;
use axum::extract::rejection::QueryRejection;
use axum::extract::{DefaultBodyLimit, Extension, Path, Query, Request, State};
use axum::http::{HeaderMap, StatusCode, header};
use axum::middleware::{self, Next};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::{Json, Router};
use serde::{Deserialize, Serialize};
use tokio::sync::oneshot;

use super::ApiContext;
use super::auth::Caller;
use super::gate::{self, over};
use super::parse::{self, Fields, Refusal};
use super::receive;
use super::types::{Announced, Done, Envelope, Findings, LastSwitch, ServiceStatus, Status, TestNotified};
use super::{token_verbs, verbs};
use crate::account::glance;
use crate::domain::access::Reach;
use crate::domain::service::Service;
use crate::domain::switch::{Announcement, ServiceName, SwitchId};
use crate::domain::time::Timestamp;
use crate::domain::verdict::Outcome;
use crate::edge::inbox::NotTaken;
use crate::engine::message::{Answer, Input};
use crate::face::standing;
use crate::journal::{JournalError, Reader, WatchFilter};

/// Announcements are a few hundred bytes.
const BODY_MAX: usize = 64 * 1024;

/// GitHub's deliveries hold the whole repository twice: some 40 KiB; LaunchDarkly's a flag with all its rules.
const HOOK_BODY_MAX: usize = 256 * 1024;

/// A live check asks every signal of every service; all else is done in milliseconds.
const REQUEST_MAX: Duration = Duration::from_secs(60);

pub(super) type Context = State<Arc<ApiContext>>;

/// Which way a request came in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Door {
    Socket,
    Loopback,
    Network,
}

/// Every route but the health ones is behind the gate.
pub fn router(context: Arc<ApiContext>, door: Door, page: Option<Router>) -> Router {
    let api = Router::new()
        .route("/api/v1/switches", post(announce))
        .route("/api/v1/watches", get(watches))
        .route("/api/v1/watches/{id}", get(watch))
        .route("/api/v1/watches/{id}/account", get(account))
        .route("/api/v1/watches/{id}/{verb}", post(verbs::upon_watch))
        .route("/api/v1/services/{service}/drill", post(verbs::drill))
        .route("/api/v1/arm", post(verbs::arm))
        .route("/api/v1/disarm", post(verbs::disarm))
        .route("/api/v1/status", get(status))
        .route("/api/v1/baseline/{service}", get(super::baseline::show))
        .route("/api/v1/baseline/{service}/{verb}", post(super::baseline::verb))
        .route("/api/v1/check", post(check))
        .route("/api/v1/test/notify", post(test_notify))
        .route("/api/v1/tokens", get(token_verbs::list).post(token_verbs::create))
        .route("/api/v1/tokens/{which}/revoke", post(token_verbs::revoke))
        .route("/-/reload", post(reload));
    // Services' names are in the metrics: on loopback and the socket they are open, as an exporter's are.
    let closed = if door == Door::Network { api.route("/metrics", get(metrics)) } else { api };
    // Before the gate's layer, so that it is behind the gate as well.
    let closed = closed
        .method_not_allowed_fallback(wrong_method)
        .layer(middleware::from_fn_with_state(context.clone(), gate::admit));
    // A webhook proves itself by its own secret. Not on the control socket: nobody is to put a proxy before that.
    let hooks = post(receive::receive).layer(DefaultBodyLimit::max(HOOK_BODY_MAX));
    let api = if door == Door::Socket { closed } else { closed.route("/hooks/{name}", hooks) };
    let api = if door == Door::Network { api } else { api.route("/metrics", get(metrics)) };
    let api = api.route("/-/healthy", get(healthy)).route("/-/ready", get(ready)).with_state(context);
    let all = match page {
        Some(page) => api.merge(page),
        None => api,
    };
    all.fallback(|| async { failure(StatusCode::NOT_FOUND, "not_found", "there is no such path") })
        .method_not_allowed_fallback(wrong_method)
        .layer(middleware::from_fn(in_time))
        .layer(DefaultBodyLimit::max(BODY_MAX))
}

pub(super) async fn wrong_method() -> Response {
    failure(StatusCode::METHOD_NOT_ALLOWED, "method_not_allowed", "this path takes another method")
}

async fn in_time(request: Request, next: Next) -> Response {
    let path: String = request.uri().path().chars().filter(|c| !c.is_control()).take(80).collect();
    match tokio::time::timeout(REQUEST_MAX, next.run(request)).await {
        Ok(answer) if answer.status() == StatusCode::PAYLOAD_TOO_LARGE => {
            tracing::warn!(path, "a body was too large");
            failure(StatusCode::PAYLOAD_TOO_LARGE, "too_large", "the body is larger than 64 KiB (a webhook's: 256 KiB)")
        }
        Ok(answer) => answer,
        Err(_) => failure(StatusCode::GATEWAY_TIMEOUT, "timeout", "not answered within a minute"),
    }
}

// ---------------------------------------------------------------------- switches and watches

async fn announce(
    State(c): Context,
    Extension(caller): Extension<Caller>,
    headers: HeaderMap,
    body: Bytes,
) -> Response {
    if let Err(refused) = json_type(&headers) {
        return *refused;
    }
    let source = caller.source.clone();
    if let Err(too_much) = c.announce_limit.take(&source, std::time::Instant::now()) {
        if too_much.first {
            tracing::warn!(source, "too many announcements: they are told to come back");
        }
        return receive::come_back();
    }
    let announcement = match announce_with(&c, |now| parse::announcement(&body, source, now)) {
        Ok(announcement) => announcement,
        Err(refusal) => {
            tracing::warn!(field = refusal.field, why = refusal.text, "an announcement was refused");
            return refused(refusal);
        }
    };
    if let Err(answer) = over(&c, &caller, Some(&announcement.service)) {
        return *answer;
    }
    let (service, source) = (announcement.service.clone(), announcement.source.clone());
    let answer = c.inbox.ask(|request| Input::Announced { request, announcement }).await;
    match receive::told(&answer) {
        Ok(result) => tracing::info!(%service, source, result, "a switch was announced"),
        Err(why) => tracing::warn!(%service, source, why, "an announcement was refused"),
    }
    answered(answer)
}

/// What an announcer says of time is said by the wall clock; the daemon's own may have been left behind.
pub(super) fn announce_with(
    c: &ApiContext,
    read: impl FnOnce(Timestamp) -> Result<Announcement, Refusal>,
) -> Result<Announcement, Refusal> {
    let stepped_ms = (c.stepped_ms)();
    let a = read(c.wall())?;
    let ours = |at: Option<Timestamp>| at.map(|at| at.shifted(-stepped_ms));
    Ok(Announcement { switched_at: ours(a.switched_at), old_until: ours(a.old_until), ..a })
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct WatchesQuery {
    service: Option<String>,
    open: Option<bool>,
    ended: Option<bool>,
    outcome: Option<String>,
    since: Option<String>,
    until: Option<String>,
    limit: Option<u32>,
    before: Option<String>,
}

async fn watches(
    State(c): Context,
    Extension(caller): Extension<Caller>,
    query: Result<Query<WatchesQuery>, QueryRejection>,
) -> Response {
    let query = match query {
        Ok(Query(query)) => query,
        Err(error) => return wrong_query(&error),
    };
    let filter = match filter(query) {
        Ok(filter) => WatchFilter { reach: caller.grant.reach, ..filter },
        Err(refusal) => return refused(refusal),
    };
    from_store(c.clone(), move |c| c.reader.watches(&filter)).await
}

fn wrong_query(error: &QueryRejection) -> Response {
    let text = error.body_text();
    let text = text.strip_prefix("Failed to deserialize query string: ").unwrap_or(&text);
    failure(StatusCode::BAD_REQUEST, "bad_data", text)
}

fn filter(query: WatchesQuery) -> Result<WatchFilter, Refusal> {
    let instant = |field: &str, text: Option<String>| text.map(|text| parse::instant(field, &text)).transpose();
    if let Some(outcome) = query.outcome.as_deref().filter(|word| !Outcome::WORDS.contains(word)) {
        let shown: String = outcome.chars().filter(|c| !c.is_control()).take(40).collect();
        let text = format!("{shown:?} is none of {}", Outcome::WORDS.join(", "));
        return Err(Refusal { field: Some("outcome".into()), text });
    }
    Ok(WatchFilter {
        service: query.service.map(|text| parse::name("service", text, ServiceName::try_new)).transpose()?,
        open_only: query.open.unwrap_or(false),
        ended_only: query.ended.unwrap_or(false),
        outcome: query.outcome,
        since: instant("since", query.since)?,
        until: instant("until", query.until)?,
        limit: query.limit.unwrap_or(100),
        before: query.before.map(|text| parse::name("before", text, SwitchId::try_new)).transpose()?,
        reach: Reach::All,
    })
}

async fn watch(State(c): Context, Extension(caller): Extension<Caller>, Path(id): Path<String>) -> Response {
    one_watch(c, &caller, id, |reader, id| reader.watch(id)).await
}

/// The watch with what was read and said of it, tick by tick.
async fn account(
    State(c): Context,
    Extension(caller): Extension<Caller>,
    Path(id): Path<String>,
    query: Result<Query<AccountQuery>, QueryRejection>,
) -> Response {
    let after = match query {
        Ok(Query(query)) => query.after,
        Err(error) => return wrong_query(&error),
    };
    one_watch(c, &caller, id, move |reader, id| match after {
        Some(after) => reader.news(id, after),
        None => reader.account(id),
    })
    .await
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct AccountQuery {
    /// Only what came after this place in the journal; what does not change is left away.
    after: Option<i64>,
}

async fn one_watch<T, F>(c: Arc<ApiContext>, caller: &Caller, id: String, read: F) -> Response
where
    T: Serialize + Send + 'static,
    F: FnOnce(&Reader, &SwitchId) -> Result<Option<T>, JournalError> + Send + 'static,
{
    let id = match switch_id(id) {
        Ok(id) => id,
        Err(answer) => return *answer,
    };
    if let Err(answer) = within_reach(&c, caller, &id) {
        return *answer;
    }
    let found = tokio::task::spawn_blocking(move || (read(&c.reader, &id), id)).await;
    match found {
        Ok((Ok(Some(found)), _)) => success(StatusCode::OK, found),
        Ok((Ok(None), id)) => failure(StatusCode::NOT_FOUND, "not_found", &format!("there is no watch {id}")),
        Ok((Err(error), _)) => store_failure(&error),
        Err(_) => failure(StatusCode::INTERNAL_SERVER_ERROR, "internal", "the read was broken off"),
    }
}

/// A watch of a service out of reach is not there: who may not see it does not learn that it exists.
pub(super) fn within_reach(c: &ApiContext, caller: &Caller, id: &SwitchId) -> Result<(), Box<Response>> {
    if caller.over_all() {
        return Ok(());
    }
    match c.reader.watch(id) {
        Ok(Some(watch)) if caller.reaches(&watch.switch.service) => Ok(()),
        Ok(_) => Err(Box::new(failure(StatusCode::NOT_FOUND, "not_found", &format!("there is no watch {id}")))),
        Err(error) => Err(Box::new(store_failure(&error))),
    }
}

// ---------------------------------------------------------------------- status, check

async fn status(State(c): Context, Extension(caller): Extension<Caller>) -> Response {
    let settings = settings(&c);
    let facts = c.facts.lock().map(|facts| facts.clone()).unwrap_or_default();
    from_store(c.clone(), move |c| {
        let reach = caller.grant.reach.clone();
        let filter = WatchFilter { open_only: true, limit: 1000, reach, ..WatchFilter::default() };
        let now = (c.now)();
        let reached: Vec<&Service> = settings.services.iter().filter(|s| caller.reaches(&s.name)).collect();
        let names: Vec<ServiceName> = reached.iter().map(|s| s.name.clone()).collect();
        let glances = c.reader.glances(&names, now - glance::LATELY)?;
        Ok(Status {
            version: env!("CARGO_PKG_VERSION").into(),
            started_at: c.started_at.as_millis(),
            armed: facts.armed,
            undelivered_notices: c.reader.outbox_stats((c.now)())?.undelivered,
            services: reached
                .into_iter()
                .map(|s| {
                    let fact = facts.services.get(&s.name);
                    let known = glances.get(&s.name);
                    let live = fact.and_then(|f| f.live.clone());
                    let seen = glance::of(known.and_then(|k| k.recorded_of(live.as_deref())), &s.policy, now);
                    ServiceStatus {
                        name: s.name.to_string(),
                        mode: s.policy.mode.to_string(),
                        armed: fact.is_none_or(|f| f.armed),
                        live,
                        last: known.and_then(|known| known.last.as_ref()).map(|w| LastSwitch {
                            id: w.id.to_string(),
                            what: standing::what(w),
                            stands: standing::of(w).badge.to_owned(),
                            opened_at: w.opened_at.to_string(),
                        }),
                        normal: seen.word.to_owned(),
                        normal_detail: seen.detail,
                        detectable: seen.detectable,
                    }
                })
                .collect(),
            watches: c.reader.watches(&filter)?,
        })
    })
    .await
}

async fn check(State(c): Context, Extension(caller): Extension<Caller>, body: Bytes) -> Response {
    let service = Fields::parse(&body).and_then(|mut fields| {
        let service = fields.text("service")?;
        fields.finish()?;
        Ok(service)
    });
    let service = match service {
        Ok(None) => None,
        Ok(Some(name)) => match settings(&c).services.iter().find(|s| s.name.as_str() == name) {
            Some(service) => Some(service.name.clone()),
            None => return unknown_service(&name),
        },
        Err(refusal) => return refused(refusal),
    };
    if let Err(answer) = over(&c, &caller, service.as_ref()) {
        return *answer;
    }
    success(StatusCode::OK, Findings { findings: (c.live_check)(service).await })
}

async fn test_notify(State(c): Context, body: Bytes) -> Response {
    let read = Fields::parse(&body).and_then(|mut fields| {
        let (receiver, kind) = (fields.text("receiver")?, fields.text("kind")?);
        fields.finish()?;
        Ok((receiver, kind))
    });
    match read {
        Ok((receiver, kind)) => match (c.test_notify)(receiver, kind).await {
            Ok(tried) => success(StatusCode::OK, TestNotified { tried }),
            Err(why) => failure(StatusCode::NOT_FOUND, "not_found", &why),
        },
        Err(refusal) => refused(refusal),
    }
}

async fn reload(State(c): Context) -> Response {
    let (sender, answer) = oneshot::channel();
    if c.reload.send(sender).await.is_err() {
        return not_taken(NotTaken::Stopping);
    }
    match answer.await {
        Ok(Ok(text)) => success(StatusCode::OK, Done { text }),
        Ok(Err(why)) => failure(StatusCode::BAD_REQUEST, "bad_config", &why),
        Err(_) => not_taken(NotTaken::Stopping),
    }
}

async fn healthy() -> &'static str {
    "flipback is healthy\n"
}

async fn ready(State(c): Context) -> Response {
    if c.ready.load(Ordering::Relaxed) {
        "flipback is ready\n".into_response()
    } else {
        (StatusCode::SERVICE_UNAVAILABLE, "flipback is starting or stopping\n").into_response()
    }
}

/// Open watches with series of their own in one answer.
const WATCHES_SHOWN: u32 = 500;

async fn metrics(State(c): Context) -> Response {
    let stats = c.reader.outbox_stats((c.now)()).unwrap_or_default();
    let oldest = stats.oldest_at.map_or(0.0, |at| (c.now)().since(at).as_secs_f64());
    let facts = c.facts.lock().map(|facts| facts.clone()).unwrap_or_default();
    c.metrics.gauges(facts.open_watches, facts.armed, stats.undelivered, oldest);
    let open = WatchFilter { open_only: true, limit: WATCHES_SHOWN, ..WatchFilter::default() };
    c.metrics.watches(&c.reader.watches(&open).unwrap_or_default());
    let kind = [(header::CONTENT_TYPE, "application/openmetrics-text; version=1.0.0; charset=utf-8")];
    (kind, c.metrics.text()).into_response()
}

// ---------------------------------------------------------------------- answers

pub(super) fn settings(c: &ApiContext) -> Arc<crate::config::Settings> {
    c.settings.read().unwrap_or_else(std::sync::PoisonError::into_inner).clone()
}

pub(super) fn switch_id(text: String) -> Result<SwitchId, Box<Response>> {
    parse::name("id", text, SwitchId::try_new).map_err(|refusal| Box::new(refused(refusal)))
}

fn json_type(headers: &HeaderMap) -> Result<(), Box<Response>> {
    let kind = headers.get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or("");
    if kind.split(';').next().is_some_and(|k| k.trim().eq_ignore_ascii_case("application/json")) {
        return Ok(());
    }
    let text = "send JSON, and say so: Content-Type: application/json";
    Err(Box::new(failure(StatusCode::UNSUPPORTED_MEDIA_TYPE, "unsupported_media_type", text)))
}

pub(super) fn answered(answer: Result<Answer, NotTaken>) -> Response {
    let announced = |status, id: SwitchId, result: &str| {
        success(status, Announced { id: id.to_string(), result: result.to_owned() })
    };
    match answer {
        Ok(Answer::Accepted { switch }) => announced(StatusCode::ACCEPTED, switch, "accepted"),
        Ok(Answer::Known { switch }) => announced(StatusCode::OK, switch, "known"),
        Ok(Answer::OwnHand { switch }) => announced(StatusCode::OK, switch, "own_hand"),
        Ok(Answer::Reverted { switch }) => announced(StatusCode::OK, switch, "reverted"),
        Ok(Answer::Stepped { switch }) => announced(StatusCode::OK, switch, "step"),
        Ok(Answer::Done { text }) => success(StatusCode::OK, Done { text }),
        Ok(Answer::NotFound { text }) => failure(StatusCode::NOT_FOUND, "not_found", &text),
        Ok(Answer::Conflict { text }) => failure(StatusCode::CONFLICT, "conflict", &text),
        Ok(Answer::NoRoom { text }) => failure(StatusCode::INSUFFICIENT_STORAGE, "no_room", &text),
        Ok(Answer::Refused { field, text }) => refused(Refusal { field: Some(field), text }),
        Err(error) => not_taken(error),
    }
}

pub(super) fn not_taken(error: NotTaken) -> Response {
    let text = match error {
        NotTaken::Busy => "flipback is busy: try again in a second",
        NotTaken::Stopping => "flipback is stopping: try again when it is up",
    };
    let mut answer = failure(StatusCode::SERVICE_UNAVAILABLE, "unavailable", text);
    answer.headers_mut().insert(header::RETRY_AFTER, header::HeaderValue::from_static("1"));
    answer
}

pub(super) fn unknown_service(name: &str) -> Response {
    let shown: String = name.chars().filter(|c| !c.is_control()).take(60).collect();
    failure(StatusCode::NOT_FOUND, "not_found", &format!("there is no service {shown} in the configuration"))
}

pub(super) async fn from_store<T, F>(c: Arc<ApiContext>, read: F) -> Response
where
    T: Serialize + Send + 'static,
    F: FnOnce(&ApiContext) -> Result<T, JournalError> + Send + 'static,
{
    match tokio::task::spawn_blocking(move || read(&c)).await {
        Ok(Ok(data)) => success(StatusCode::OK, data),
        Ok(Err(error)) => store_failure(&error),
        Err(_) => failure(StatusCode::INTERNAL_SERVER_ERROR, "internal", "the read was broken off"),
    }
}

fn store_failure(error: &JournalError) -> Response {
    failure(StatusCode::INTERNAL_SERVER_ERROR, "internal", &error.to_string())
}

pub(super) fn success<T: Serialize>(status: StatusCode, data: T) -> Response {
    let envelope = Envelope { status: "success".into(), data: Some(data), error_type: None, error: None, field: None };
    (status, Json(envelope)).into_response()
}

pub(super) fn failure(status: StatusCode, kind: &str, text: &str) -> Response {
    let envelope = Envelope::<()> {
        status: "error".into(),
        data: None,
        error_type: Some(kind.to_owned()),
        error: Some(text.to_owned()),
        field: None,
    };
    (status, Json(envelope)).into_response()
}

pub(super) fn refused(refusal: Refusal) -> Response {
    let text = match &refusal.field {
        Some(field) => format!("{field}: {}", refusal.text),
        None => refusal.text,
    };
    let envelope = Envelope::<()> {
        status: "error".into(),
        data: None,
        error_type: Some("bad_data".into()),
        error: Some(text),
        field: refusal.field,
    };
    (StatusCode::BAD_REQUEST, Json(envelope)).into_response()
}
