//! Who may see the page, and who may order something on it.

use axum::extract::{Form, Query, Request, State};
use axum::http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use serde::Deserialize;

use super::{Context, Page, session};
use crate::config::settings::PageAccess;
use crate::face::home::SignIn;
use crate::words::safe::{path_part, tame};

/// What the browser may load and do: our own style, script and pictures, our own stream, our own forms.
const POLICY: &str = "default-src 'none'; style-src 'self'; script-src 'self'; img-src 'self'; connect-src 'self'; \
                      form-action 'self'; base-uri 'none'; frame-ancestors 'none'";

/// Headers of everything that the page serves; and a form is taken from the page itself only.
pub(super) async fn guarded(request: Request, next: Next) -> Response {
    let refused = request.method() != axum::http::Method::GET
        && request.method() != axum::http::Method::HEAD
        && !from_here(request.headers());
    let mut answer = match refused {
        true => (StatusCode::FORBIDDEN, "this form was not sent from flipback's own page\n").into_response(),
        false => next.run(request).await,
    };
    let headers = answer.headers_mut();
    let fixed = [
        (header::CONTENT_SECURITY_POLICY, POLICY),
        (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
        (header::X_FRAME_OPTIONS, "DENY"),
        (header::REFERRER_POLICY, "no-referrer"),
        (HeaderName::from_static("cross-origin-opener-policy"), "same-origin"),
    ];
    for (name, value) in fixed {
        headers.insert(name, HeaderValue::from_static(value));
    }
    headers.entry(header::CACHE_CONTROL).or_insert(HeaderValue::from_static("no-store"));
    answer
}

/// Whether a browser says that the page itself sent this. One that says nothing of it is none: programs use the API.
fn from_here(headers: &HeaderMap) -> bool {
    let text = |name: &str| headers.get(name).and_then(|value| value.to_str().ok());
    if let Some(site) = text("sec-fetch-site") {
        return site == "same-origin";
    }
    match (text("origin"), text("host")) {
        (Some(origin), Some(host)) => origin.split_once("://").is_some_and(|(_, from)| from == host),
        _ => false,
    }
}

/// Whoever is not signed in reads where reading is open, and orders nothing.
pub(super) async fn admit(State(page): Context, request: Request, next: Next) -> Response {
    let signed = page.session(request.headers()).is_some();
    let reads = request.method() == axum::http::Method::GET;
    if !signed && page.access == PageAccess::Open && !page.is_own_name(request.headers()) {
        let text = "flipback's page is not known by this name: open it by its address, or put its name into links.status_page\n";
        return (StatusCode::MISDIRECTED_REQUEST, text).into_response();
    }
    if signed || (reads && page.access == PageAccess::Open) {
        return next.run(request).await;
    }
    if request.uri().path().ends_with("/events") {
        return (StatusCode::UNAUTHORIZED, "sign in first\n").into_response();
    }
    let to = if reads { request.uri().path_and_query().map_or("/", |to| to.as_str()).to_owned() } else { "/".into() };
    redirect(&format!("/sign-in?to={}", path_part(&to)))
}

impl Page {
    /// Whether the browser came over TLS: to us, or to a proxy that says so.
    fn is_tls(&self, headers: &HeaderMap) -> bool {
        let own = self.api.settings.read().unwrap_or_else(std::sync::PoisonError::into_inner).api.tls.is_some();
        own || headers.get("x-forwarded-proto").is_some_and(|proto| proto == "https")
    }

    /// Where reading is open, a site that lets its own name point here must not read along with a visitor's browser.
    fn is_own_name(&self, headers: &HeaderMap) -> bool {
        let host = headers.get(header::HOST).and_then(|host| host.to_str().ok()).unwrap_or("");
        let Ok(authority) = host.parse::<axum::http::uri::Authority>() else { return false };
        let name = authority.host().trim_start_matches('[').trim_end_matches(']');
        name == "localhost" || name.parse::<std::net::IpAddr>().is_ok() || (self.known_as)().as_deref() == Some(name)
    }
}

/// A path of this page, and of nothing else.
fn own_path(text: &str) -> &str {
    let plain = text.starts_with('/') && !text.starts_with("//") && !text.contains(['\\', '\r', '\n']);
    if plain && text.is_ascii() { text } else { "/" }
}

pub(super) fn redirect(to: &str) -> Response {
    let to = HeaderValue::from_str(to).unwrap_or(HeaderValue::from_static("/"));
    (StatusCode::SEE_OTHER, [(header::LOCATION, to)]).into_response()
}

#[derive(Deserialize)]
pub(super) struct SignInQuery {
    to: Option<String>,
}

pub(super) async fn sign_in(State(page): Context, headers: HeaderMap, Query(query): Query<SignInQuery>) -> Response {
    let to = own_path(query.to.as_deref().unwrap_or("/")).to_owned();
    let sentence = match page.access {
        PageAccess::Open => "Reading is open here. Orders (roll back, approve, pause, disarm) need the token.",
        PageAccess::Token | PageAccess::Off => "This page shows what flipback watches, and takes orders.",
    };
    sign_in_page(&page, &headers, StatusCode::OK, sentence, to)
}

fn sign_in_page(page: &Page, headers: &HeaderMap, status: StatusCode, sentence: &str, to: String) -> Response {
    let model = SignIn { title: "Sign in", sentence: sentence.into(), to };
    page.show(status, "sign_in.html", &page.frame(headers, "", String::new()), &model)
}

#[derive(Deserialize)]
pub(super) struct SignInForm {
    token: String,
    #[serde(default)]
    name: String,
    #[serde(default)]
    to: String,
}

pub(super) async fn signed_in(State(page): Context, headers: HeaderMap, Form(form): Form<SignInForm>) -> Response {
    let to = own_path(&form.to).to_owned();
    #[allow(clippy::disallowed_methods, reason = "how often somebody tries is no matter of the engine")]
    let now = std::time::Instant::now();
    let Some(caller) = page.api.authority.by_token(&form.token, page.api.wall()) else {
        // Loopback has one address, so all who try share what is left; the right token is never kept waiting.
        let text = match page.tries.take("sign-in", now) {
            Ok(()) => {
                tracing::warn!("a sign-in with a wrong token was refused");
                "That is not a token that is known here, or it has expired or was revoked."
            }
            Err(_) => "That is not a known token either. Wait some seconds before the next try.",
        };
        return sign_in_page(&page, &headers, StatusCode::FORBIDDEN, text, to);
    };
    if !caller.over_all() {
        let text = "This token is for some services only, and the page shows all: use the command line or the API.";
        return sign_in_page(&page, &headers, StatusCode::FORBIDDEN, text, to);
    }
    let name = tame(form.name.trim(), 40);
    tracing::info!(name, who = caller.who, "signed in to the page");
    let cookie = page.sessions.begin(name, caller, now, page.is_tls(&headers));
    let mut answer = redirect(&to);
    if let Ok(cookie) = HeaderValue::from_str(&cookie) {
        answer.headers_mut().insert(header::SET_COOKIE, cookie);
    }
    answer
}

pub(super) async fn sign_out(State(page): Context, headers: HeaderMap) -> Response {
    page.sessions.end(&headers);
    let mut answer = redirect("/");
    answer.headers_mut().insert(header::SET_COOKIE, HeaderValue::from_static(session::GONE));
    answer
}
