//! What each route needs. A route that is not in the table is closed to everybody: deny by default.

use std::sync::Arc;

use axum::extract::{ConnectInfo, MatchedPath, Request, State};
use axum::http::{Method, StatusCode, header};
use axum::middleware::Next;
use axum::response::Response;

use super::ApiContext;
use super::auth::{Caller, Peer};
use super::routes::failure;
use crate::domain::access::Role;
use crate::domain::switch::ServiceName;
use crate::edge::metrics::Reason;

/// Which services a route is about: what a token of some services may ask there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum About {
    /// One service, which the path or the body names (for a watch: the watch's own).
    One,
    /// All that the caller reaches: others are left out of the answer.
    Reached,
    /// flipback as a whole.
    All,
}

pub struct Rule {
    pub method: Method,
    pub path: &'static str,
    pub role: Role,
    pub about: About,
}

const fn rule(method: Method, path: &'static str, role: Role, about: About) -> Rule {
    Rule { method, path, role, about }
}

/// The whole of it; `/-/healthy`, `/-/ready` and `/hooks/NAME` (which have secrets of their own) are outside.
pub static RULES: [Rule; 18] = [
    rule(Method::GET, "/api/v1/status", Role::Read, About::Reached),
    rule(Method::GET, "/api/v1/watches", Role::Read, About::Reached),
    rule(Method::GET, "/api/v1/watches/{id}", Role::Read, About::One),
    rule(Method::GET, "/api/v1/watches/{id}/account", Role::Read, About::One),
    rule(Method::GET, "/api/v1/baseline/{service}", Role::Read, About::One),
    rule(Method::GET, "/metrics", Role::Read, About::All),
    rule(Method::POST, "/api/v1/switches", Role::Report, About::One),
    rule(Method::POST, "/api/v1/watches/{id}/{verb}", Role::Operate, About::One),
    rule(Method::POST, "/api/v1/services/{service}/drill", Role::Operate, About::One),
    // Without a service: everything, and only by whom everything is reached.
    rule(Method::POST, "/api/v1/arm", Role::Operate, About::One),
    rule(Method::POST, "/api/v1/disarm", Role::Operate, About::One),
    rule(Method::POST, "/api/v1/check", Role::Operate, About::One),
    rule(Method::POST, "/api/v1/baseline/{service}/{verb}", Role::Operate, About::One),
    rule(Method::POST, "/api/v1/test/notify", Role::Operate, About::All),
    rule(Method::POST, "/-/reload", Role::Operate, About::All),
    rule(Method::GET, "/api/v1/tokens", Role::Admin, About::All),
    rule(Method::POST, "/api/v1/tokens", Role::Admin, About::All),
    rule(Method::POST, "/api/v1/tokens/{which}/revoke", Role::Admin, About::All),
];

fn rule_of(method: &Method, path: &str) -> Option<&'static Rule> {
    // HEAD is a GET whose body is left away.
    let method = if *method == Method::HEAD { &Method::GET } else { method };
    RULES.iter().find(|rule| rule.method == *method && rule.path == path)
}

/// Says who asks, or refuses. What a route is about beyond this (`About::One`) its handler asks with [`over`].
pub async fn admit(State(c): State<Arc<ApiContext>>, mut request: Request, next: Next) -> Response {
    let now = c.wall();
    let peer = request.extensions().get::<ConnectInfo<Peer>>().map(|info| info.0.clone());
    let caller = match peer {
        Some(Peer::Local { uid, gid }) => Ok(c.authority.by_peer(uid, gid)),
        Some(Peer::Remote) => {
            let given = request.headers().get(header::AUTHORIZATION).and_then(|value| value.to_str().ok());
            c.authority.by_header(given, now).ok_or_else(|| given.is_some_and(|given| given.starts_with("Bearer ")))
        }
        None => Err(false),
    };
    let caller = match caller {
        Ok(caller) => caller,
        Err(some_token) => {
            c.metrics.refused.get_or_create(&Reason { reason: "unauthorized" }).inc();
            return unknown(&c, some_token);
        }
    };
    let path = request.extensions().get::<MatchedPath>().map(|path| path.as_str().to_owned()).unwrap_or_default();
    let method = request.method().clone();
    // Before it is looked at what they may: refusals fill a log as well. Announcements have a bucket of their own: a deploy tool's queue comes at once.
    if path != "/api/v1/switches" {
        #[allow(clippy::disallowed_methods, reason = "how often somebody asks is no matter of the engine")]
        let at = std::time::Instant::now();
        if let Err(too_much) = c.request_limit.take(&caller.who, at) {
            c.metrics.refused.get_or_create(&Reason { reason: "too_many" }).inc();
            if too_much.first {
                tracing::warn!(who = caller.who, "too many requests: they are told to come back");
            }
            return super::receive::come_back();
        }
    }
    if let Some(rule) = rule_of(&method, &path) {
        if caller.grant.role < rule.role {
            return forbidden(&c, &caller, &format!("{method} {path} needs the role {}", rule.role));
        }
        if rule.about == About::All && !caller.over_all() {
            return forbidden(&c, &caller, &format!("{method} {path} is about all services"));
        }
    } else if RULES.iter().any(|rule| rule.path == path) {
        return super::routes::wrong_method().await;
    } else {
        return forbidden(&c, &caller, "this path is open to nobody");
    }
    request.extensions_mut().insert(caller);
    next.run(request).await
}

/// A token that is not known is not told why. Guesses are slowed down together; a good token never waits for them.
fn unknown(c: &ApiContext, some_token: bool) -> Response {
    #[allow(clippy::disallowed_methods, reason = "how often somebody tries is no matter of the engine")]
    let at = std::time::Instant::now();
    if let Err(too_much) = c.guess_limit.take("unknown", at) {
        if too_much.first {
            tracing::warn!("many requests with wrong tokens: they are told to come back");
        }
        return super::receive::come_back();
    }
    let text = if some_token {
        "the token is not known, has expired or was revoked"
    } else {
        "send the token: Authorization: Bearer …"
    };
    let mut answer = failure(StatusCode::UNAUTHORIZED, "unauthorized", text);
    answer.headers_mut().insert(header::WWW_AUTHENTICATE, header::HeaderValue::from_static("Bearer"));
    answer
}

pub(super) fn forbidden(c: &ApiContext, caller: &Caller, why: &str) -> Response {
    c.metrics.refused.get_or_create(&Reason { reason: "forbidden" }).inc();
    tracing::warn!(who = caller.who, why, "a request was not allowed");
    let text = format!("{why}; {} has the role {} over {}", caller.who, caller.grant.role, caller.grant.reach);
    failure(StatusCode::FORBIDDEN, "forbidden", &text)
}

/// Whether the caller may ask about this service, or (none named) about all of them.
pub(super) fn over(c: &ApiContext, caller: &Caller, service: Option<&ServiceName>) -> Result<(), Box<Response>> {
    match service {
        Some(service) if caller.reaches(service) => Ok(()),
        None if caller.over_all() => Ok(()),
        Some(service) => Err(Box::new(forbidden(c, caller, &format!("{service} is out of reach")))),
        None => Err(Box::new(forbidden(c, caller, "without a service it is about all of them: name one"))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_keeps_traffic_where_it_is_needs_what_moves_it() {
        let role = |path| rule_of(&Method::POST, path).unwrap().role;
        assert_eq!(role("/api/v1/disarm"), role("/api/v1/watches/{id}/{verb}"));
        assert!(rule_of(&Method::DELETE, "/api/v1/tokens").is_none());
        assert!(rule_of(&Method::GET, "/api/v1/nothing").is_none());
    }
}
