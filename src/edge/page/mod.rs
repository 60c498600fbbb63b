//! The page: what a browser is served. Everything is read from the journal and poured into templates; orders go the way
//! of any other order. Nothing on it comes from elsewhere, and nothing is changed by a GET.

mod access;
mod live;
mod session;
mod views;

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use axum::Router;
use axum::body::to_bytes;
use axum::extract::{Form, Path, Query, State};
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::middleware;
use axum::response::sse::{Event, KeepAlive, Sse};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use futures_util::Stream;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use tokio::sync::broadcast;
use tokio_util::sync::CancellationToken;

use super::api::types::Envelope;
use super::api::{ApiContext, Caller, Limiter, verbs};
use crate::config::settings::PageAccess;
use crate::domain::access::Role;
use crate::domain::switch::{ServiceName, SwitchId};
use crate::domain::time::Timestamp;
use crate::domain::view::WatchView;
use crate::face::Frame;
use crate::face::home::Problem;
use crate::face::html::{Html, ICON, SCRIPT, STYLE};
use crate::face::watch::Beside;
use crate::words::safe::{path_part, tame};
use access::{admit, guarded, redirect, sign_in, sign_out, signed_in};
use live::{Hub, Topic};
use session::{Session, Sessions};

/// An answer of the API to an order.
const ANSWER_MAX: usize = 64 * 1024;

/// Wrong tokens that are logged: a person mistypes it some times, a program fills the log.
const SIGN_INS_PER_S: f64 = 0.5;
const SIGN_INS_BURST: f64 = 10.0;

/// A proxy ends a stream that says nothing for a minute.
const KEEP_ALIVE: Duration = Duration::from_secs(20);

/// Links and queries of a watch, as messages have them.
pub type FindBeside = Arc<dyn Fn(&WatchView, Timestamp) -> Beside + Send + Sync>;

/// The name that people know the page by, where one is configured.
pub type KnownAs = Arc<dyn Fn() -> Option<String> + Send + Sync>;

/// Which watches a turn of the loop touched; none: something over all of them (arming, a reload).
pub type Touched = Arc<[SwitchId]>;

pub struct Page {
    api: Arc<ApiContext>,
    html: Html,
    access: PageAccess,
    sessions: Sessions,
    tries: Limiter,
    hub: Hub,
    beside: FindBeside,
    known_as: KnownAs,
    host: String,
    stop: CancellationToken,
}

/// What a page is begun with.
pub struct PageParts {
    pub api: Arc<ApiContext>,
    pub access: PageAccess,
    pub touched: broadcast::Sender<Touched>,
    pub beside: FindBeside,
    pub known_as: KnownAs,
    pub host: String,
    pub stop: CancellationToken,
}

type Context = State<Arc<Page>>;

/// `None` where the configuration wants no page.
pub fn router(parts: PageParts) -> Option<Router> {
    let PageParts { api, access, touched, beside, known_as, host, stop } = parts;
    if access == PageAccess::Off {
        return None;
    }
    let html = match Html::new() {
        Ok(html) => html,
        Err(error) => {
            tracing::error!(%error, "the page's templates do not parse: there is no page");
            return None;
        }
    };
    let page = Arc::new(Page {
        api,
        html,
        access,
        sessions: Sessions::default(),
        tries: Limiter::new(SIGN_INS_PER_S, SIGN_INS_BURST),
        hub: Hub::new(touched),
        beside,
        known_as,
        host,
        stop,
    });
    let shown = Router::new()
        .route("/", get(home))
        .route("/history", get(history))
        .route("/services/{service}", get(service))
        .route("/services/{service}/{verb}", post(upon_service))
        .route("/watches/{id}", get(watch))
        .route("/watches/{id}/explain", get(explain))
        .route("/watches/{id}/report", get(report))
        .route("/watches/{id}/events", get(watch_events))
        .route("/watches/{id}/{verb}", post(upon_watch))
        .route("/events", get(home_events))
        .route("/all/{verb}", post(upon_all))
        .layer(middleware::from_fn_with_state(page.clone(), admit));
    let open = Router::new()
        .route("/sign-in", get(sign_in).post(signed_in))
        .route("/sign-out", post(sign_out))
        .route("/page.css", get(|| asset("text/css; charset=utf-8", STYLE)))
        .route("/live.js", get(|| asset("text/javascript; charset=utf-8", SCRIPT)))
        .route("/icon.svg", get(|| asset("image/svg+xml", ICON)));
    Some(shown.merge(open).layer(middleware::from_fn(guarded)).with_state(page))
}

// ---------------------------------------------------------------------- what is shown

async fn asset(kind: &'static str, text: &'static str) -> impl IntoResponse {
    // Its address has its version.
    ([(header::CONTENT_TYPE, kind), (header::CACHE_CONTROL, "public, max-age=31536000, immutable")], text)
}

/// Changes with the style and the script.
fn version() -> &'static str {
    static VERSION: OnceLock<String> = OnceLock::new();
    VERSION.get_or_init(|| hex::encode(&Sha256::digest([STYLE, SCRIPT].concat())[..6]))
}

impl Page {
    fn frame(&self, headers: &HeaderMap, here: &'static str, live: String) -> Frame {
        let session = self.session(headers);
        let said = self.sessions.said(headers);
        Frame { live, said_tone: said.as_ref().map_or("", |said| said.tone), ..self.bare_frame(here, session, said) }
    }

    /// Who is signed in, for as long as the token that it was done with is good.
    fn session(&self, headers: &HeaderMap) -> Option<Session> {
        let session = self.sessions.of(headers)?;
        let good = session.caller.token.as_ref().is_none_or(|id| self.api.authority.tokens.still(id, self.api.wall()));
        good.then_some(session)
    }

    fn bare_frame(&self, here: &'static str, session: Option<Session>, said: Option<session::Said>) -> Frame {
        Frame {
            root: "/".into(),
            version: version().into(),
            build: env!("CARGO_PKG_VERSION").into(),
            host: self.host.clone(),
            here,
            signed: session.is_some(),
            name: session.map_or(String::new(), |session| session.name),
            said: said.map_or(String::new(), |said| said.text),
            said_tone: "",
            live: String::new(),
        }
    }

    fn show<T: Serialize>(&self, status: StatusCode, template: &str, frame: &Frame, model: &T) -> Response {
        match self.html.page(template, frame, model) {
            Ok(text) => (status, [(header::CONTENT_TYPE, "text/html; charset=utf-8")], text).into_response(),
            Err(error) => {
                tracing::error!(%error, "a page was not made");
                (StatusCode::INTERNAL_SERVER_ERROR, "this page could not be made: see flipback's log\n").into_response()
            }
        }
    }

    fn problem(&self, headers: &HeaderMap, status: StatusCode, title: &str, sentence: &str) -> Response {
        let model = Problem { title: title.into(), sentence: tame(sentence, 400) };
        self.show(status, "problem.html", &self.frame(headers, "", String::new()), &model)
    }

    fn store_problem(&self, headers: &HeaderMap, error: &str) -> Response {
        tracing::error!(error, "a page could not be read from the journal");
        self.problem(headers, StatusCode::INTERNAL_SERVER_ERROR, "The journal cannot be read", error)
    }
}

/// Reads in a thread that may wait for the disk.
async fn read<T: Send + 'static>(
    page: &Arc<Page>,
    work: impl FnOnce(&Page) -> Result<T, String> + Send + 'static,
) -> Result<T, String> {
    let page = page.clone();
    match tokio::task::spawn_blocking(move || work(&page)).await {
        Ok(result) => result,
        Err(_) => Err("the read was broken off".into()),
    }
}

async fn home(State(page): Context, headers: HeaderMap, Query(query): Query<views::HomeQuery>) -> Response {
    let live = if query == views::HomeQuery::default() { "/events".to_owned() } else { String::new() };
    match read(&page, move |page| views::home(page, &query)).await {
        Ok(model) => page.show(StatusCode::OK, "home.html", &page.frame(&headers, "home", live), &model),
        Err(error) => page.store_problem(&headers, &error),
    }
}

async fn history(State(page): Context, headers: HeaderMap, Query(query): Query<BTreeMap<String, String>>) -> Response {
    match read(&page, move |page| views::history(page, &query)).await {
        Ok(model) => page.show(StatusCode::OK, "history.html", &page.frame(&headers, "history", String::new()), &model),
        Err(error) => page.store_problem(&headers, &error),
    }
}

async fn service(State(page): Context, headers: HeaderMap, Path(name): Path<String>) -> Response {
    let asked = ServiceName::try_new(name);
    let found = match asked {
        Ok(name) => read(&page, move |page| views::service(page, &name)).await,
        Err(_) => Ok(None),
    };
    match found {
        Ok(Some(model)) => page.show(StatusCode::OK, "service.html", &page.frame(&headers, "", String::new()), &model),
        Ok(None) => {
            page.problem(&headers, StatusCode::NOT_FOUND, "No such service", "The configuration has none of that name.")
        }
        Err(error) => page.store_problem(&headers, &error),
    }
}

async fn watch(State(page): Context, headers: HeaderMap, Path(id): Path<String>) -> Response {
    let Ok(id) = SwitchId::try_new(id) else { return no_watch(&page, &headers) };
    let own = id.clone();
    match read(&page, move |page| views::watch(page, &own)).await {
        Ok(Some((model, open))) => {
            let live = if open { format!("/watches/{}/events", path_part(id.as_str())) } else { String::new() };
            page.show(StatusCode::OK, "watch.html", &page.frame(&headers, "", live), &model)
        }
        Ok(None) => no_watch(&page, &headers),
        Err(error) => page.store_problem(&headers, &error),
    }
}

async fn explain(State(page): Context, headers: HeaderMap, Path(id): Path<String>) -> Response {
    let Ok(id) = SwitchId::try_new(id) else { return no_watch(&page, &headers) };
    match read(&page, move |page| views::explain(page, &id)).await {
        Ok(Some(model)) => page.show(StatusCode::OK, "explain.html", &page.frame(&headers, "", String::new()), &model),
        Ok(None) => no_watch(&page, &headers),
        Err(error) => page.store_problem(&headers, &error),
    }
}

#[derive(Deserialize)]
struct ReportQuery {
    format: Option<String>,
}

/// A file to keep; its own policy lets its style in.
async fn report(
    State(page): Context,
    headers: HeaderMap,
    Path(id): Path<String>,
    Query(query): Query<ReportQuery>,
) -> Response {
    let Ok(id) = SwitchId::try_new(id) else { return no_watch(&page, &headers) };
    let md = query.format.as_deref() == Some("md");
    let (kind, end) = if md { ("text/markdown; charset=utf-8", "md") } else { ("text/html; charset=utf-8", "html") };
    // Names may hold what a file's name may not.
    let name: String = id.as_str().chars().map(|c| if c.is_ascii_alphanumeric() { c } else { '-' }).collect();
    match read(&page, move |page| views::report(page, &id, md)).await {
        Ok(Some(text)) => {
            let disposition = format!("attachment; filename=\"flipback-{name}.{end}\"");
            let mut answer = ([(header::CONTENT_TYPE, kind)], text).into_response();
            if let Ok(value) = HeaderValue::from_str(&disposition) {
                answer.headers_mut().insert(header::CONTENT_DISPOSITION, value);
            }
            answer
        }
        Ok(None) => no_watch(&page, &headers),
        Err(error) => page.store_problem(&headers, &error),
    }
}

fn no_watch(page: &Page, headers: &HeaderMap) -> Response {
    page.problem(headers, StatusCode::NOT_FOUND, "No such watch", "It was never opened, or is kept no longer.")
}

// ---------------------------------------------------------------------- what is ordered

async fn upon_watch(
    State(page): Context,
    headers: HeaderMap,
    Path((id, verb)): Path<(String, String)>,
    Form(form): Form<BTreeMap<String, String>>,
) -> Response {
    let to = format!("/watches/{}", path_part(&id));
    let Some(caller) = page.orderer(&headers) else { return page.not_allowed(&headers, &to) };
    let answer = verbs::order(&page.api, id, &verb, &caller, &body(form)).await;
    page.ordered(&headers, answer, &to).await
}

async fn upon_service(
    State(page): Context,
    headers: HeaderMap,
    Path((name, verb)): Path<(String, String)>,
    Form(mut form): Form<BTreeMap<String, String>>,
) -> Response {
    let to = format!("/services/{}", path_part(&name));
    let Some(caller) = page.orderer(&headers) else { return page.not_allowed(&headers, &to) };
    let answer = match verb.as_str() {
        "drill" => verbs::begin_drill(&page.api, name, &caller, &body(form)).await,
        "arm" | "disarm" => {
            form.insert("service".into(), name);
            verbs::set_armed(&page.api, &caller, &body(form), verb == "arm").await
        }
        _ => StatusCode::NOT_FOUND.into_response(),
    };
    page.ordered(&headers, answer, &to).await
}

async fn upon_all(
    State(page): Context,
    headers: HeaderMap,
    Path(verb): Path<String>,
    Form(form): Form<BTreeMap<String, String>>,
) -> Response {
    let Some(caller) = page.orderer(&headers) else { return page.not_allowed(&headers, "/") };
    let answer = match verb.as_str() {
        "arm" | "disarm" => verbs::set_armed(&page.api, &caller, &body(form), verb == "arm").await,
        _ => StatusCode::NOT_FOUND.into_response(),
    };
    page.ordered(&headers, answer, "/").await
}

/// A form as the API's routes read it. What was left empty was not said.
fn body(form: BTreeMap<String, String>) -> Vec<u8> {
    let fields: serde_json::Map<String, Value> =
        form.into_iter().filter(|(_, text)| !text.trim().is_empty()).map(|(name, text)| (name, json!(text))).collect();
    Value::Object(fields).to_string().into_bytes()
}

impl Page {
    /// Who orders it, as it is recorded: the name is what was written at the sign-in, the token is who it was.
    fn orderer(&self, headers: &HeaderMap) -> Option<Caller> {
        let Session { name, caller } = self.session(headers)?;
        if caller.grant.role < Role::Operate {
            return None;
        }
        let who = match (name.is_empty(), &caller.token) {
            (true, _) => format!("{} (page)", caller.who),
            (false, None) => format!("{name} (page)"),
            (false, Some(_)) => format!("{name} (page, {})", caller.who),
        };
        Some(Caller { who, ..caller })
    }

    fn not_allowed(&self, headers: &HeaderMap, to: &str) -> Response {
        let text = "this token may read and not order: sign in with one that has the role operate".to_owned();
        self.sessions.say(headers, session::Said { text, tone: "bad" });
        redirect(to)
    }

    /// Back to where it came from, with what became of it.
    async fn ordered(&self, headers: &HeaderMap, answer: Response, to: &str) -> Response {
        let good = answer.status().is_success();
        let bytes = to_bytes(answer.into_body(), ANSWER_MAX).await.unwrap_or_default();
        let envelope: Option<Envelope<Value>> = serde_json::from_slice(&bytes).ok();
        let text = envelope.and_then(|envelope| {
            let data = envelope.data.and_then(|data| data.get("text").and_then(Value::as_str).map(str::to_owned));
            data.or(envelope.error)
        });
        let text =
            tame(&text.unwrap_or_else(|| if good { "done".into() } else { "there is no such order".into() }), 300);
        self.sessions.say(headers, session::Said { text, tone: if good { "good" } else { "bad" } });
        redirect(to)
    }
}

// ---------------------------------------------------------------------- what changes

async fn home_events(State(page): Context) -> Response {
    events(page, Topic::Home).await
}

async fn watch_events(State(page): Context, Path(id): Path<String>) -> Response {
    match SwitchId::try_new(id) {
        Ok(id) => events(page, Topic::Watch(id)).await,
        Err(_) => StatusCode::NOT_FOUND.into_response(),
    }
}

async fn events(page: Arc<Page>, topic: Topic) -> Response {
    match live::follow(page, topic).await {
        Ok(stream) => sse(stream).into_response(),
        Err(status) => (status, "no more streams now: reload the page later\n").into_response(),
    }
}

fn sse(news: impl Stream<Item = Arc<str>> + Send + 'static) -> Sse<impl Stream<Item = Result<Event, Infallible>>> {
    use futures_util::StreamExt as _;
    let events = news.map(|text| Ok(Event::default().data(&*text)));
    Sse::new(events).keep_alive(KeepAlive::new().interval(KEEP_ALIVE))
}
