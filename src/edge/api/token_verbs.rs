//! Giving access and taking it back: `flipback token`.

use std::collections::BTreeSet;

use axum::body::Bytes;
use axum::extract::{Extension, Path, State};
use axum::http::StatusCode;
use axum::response::Response;
use serde::{Deserialize, Serialize};

use super::auth::Caller;
use super::parse::{self, Fields, Refusal};
use super::routes::{Context, failure, refused, success};
use super::tokens::{Kept, NotDone, Wanted};
use super::types::Done;
use crate::domain::access::Role;
use crate::domain::switch::ServiceName;
use crate::domain::time::{Span, Timestamp};

/// A quarter: long enough to be kept, short enough that a forgotten one ends.
const LASTS: Span = Span::from_mins(90 * 24 * 60);
const LONGEST: Span = Span::from_mins(2 * 366 * 24 * 60);

/// What is told of a token; never its digest.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TokenLine {
    pub id: String,
    pub name: String,
    pub role: Role,
    pub services: BTreeSet<ServiceName>,
    pub created_at: String,
    pub expires_at: Option<String>,
    pub expired: bool,
    pub by: String,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TokenList {
    pub tokens: Vec<TokenLine>,
}

/// The one answer that holds the token.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TokenMade {
    pub token: String,
    pub made: TokenLine,
}

fn line(kept: &Kept, now: Timestamp) -> TokenLine {
    TokenLine {
        id: kept.id.clone(),
        name: kept.name.clone(),
        role: kept.role,
        services: kept.services.clone(),
        created_at: kept.created_at.to_string(),
        expires_at: kept.expires_at.map(|at| at.to_string()),
        expired: !kept.is_good_at(now),
        by: kept.by.clone(),
    }
}

pub async fn list(State(c): Context) -> Response {
    let now = c.wall();
    success(
        StatusCode::OK,
        TokenList { tokens: c.authority.tokens.list().iter().map(|kept| line(kept, now)).collect() },
    )
}

pub async fn create(State(c): Context, Extension(caller): Extension<Caller>, body: Bytes) -> Response {
    let now = c.wall();
    let known: BTreeSet<ServiceName> = {
        let settings = c.settings.read().unwrap_or_else(std::sync::PoisonError::into_inner);
        settings.services.iter().map(|service| service.name.clone()).collect()
    };
    let wanted = match wanted(&body, now, &known, &caller.who) {
        Ok(wanted) => wanted,
        Err(refusal) => return refused(refusal),
    };
    let done = tokio::task::spawn_blocking(move || c.authority.tokens.create(wanted, now)).await;
    match done {
        Ok(Ok((kept, token))) => {
            tracing::warn!(by = caller.who, token = kept.name, id = kept.id, role = %kept.role, reach = %kept.grant().reach, "a token was made");
            success(StatusCode::OK, TokenMade { token, made: line(&kept, now) })
        }
        Ok(Err(why)) => not_done(why),
        Err(_) => failure(StatusCode::INTERNAL_SERVER_ERROR, "internal", "it was broken off"),
    }
}

pub async fn revoke(
    State(c): Context,
    Extension(caller): Extension<Caller>,
    Path(which): Path<String>,
    body: Bytes,
) -> Response {
    if let Err(refusal) = Fields::parse(&body).and_then(Fields::finish) {
        return refused(refusal);
    }
    let asked = which.clone();
    match tokio::task::spawn_blocking(move || c.authority.tokens.revoke(&asked)).await {
        Ok(Ok(gone)) if gone.is_empty() => {
            let shown: String = which.chars().filter(|c| !c.is_control()).take(60).collect();
            failure(StatusCode::NOT_FOUND, "not_found", &format!("there is no token {shown}: flipback token list"))
        }
        Ok(Ok(gone)) => {
            for kept in &gone {
                tracing::warn!(by = caller.who, token = kept.name, id = kept.id, "a token was revoked");
            }
            let ids: Vec<&str> = gone.iter().map(|kept| kept.id.as_str()).collect();
            let text = format!("{} revoked ({}): refused from now on", gone[0].name, ids.join(", "));
            success(StatusCode::OK, Done { text })
        }
        Ok(Err(why)) => not_done(why),
        Err(_) => failure(StatusCode::INTERNAL_SERVER_ERROR, "internal", "it was broken off"),
    }
}

fn not_done(why: NotDone) -> Response {
    match why {
        NotDone::Refused(why) => failure(StatusCode::CONFLICT, "conflict", &why),
        NotDone::Failed(why) => failure(StatusCode::INTERNAL_SERVER_ERROR, "internal", &why),
    }
}

fn wanted(body: &[u8], now: Timestamp, known: &BTreeSet<ServiceName>, by: &str) -> Result<Wanted, Refusal> {
    let refuse = |field: &str, text: String| Err(Refusal { field: Some(field.into()), text });
    let mut fields = Fields::parse(body)?;
    let (name, role) = (fields.need("name")?, fields.need("role")?);
    let named = fields.lines("services", known.len().max(1), 128)?;
    let lasts = fields.text("expires")?;
    fields.finish()?;
    let plain = |c: char| c.is_ascii_alphanumeric() || "._-".contains(c);
    if name.is_empty() || name.len() > 64 || !name.chars().all(plain) {
        return refuse("name", "may hold letters, digits and . _ -, up to 64 of them".into());
    }
    let Some(role) = Role::parse(&role) else {
        return refuse("role", "is none of read, report, operate, admin".into());
    };
    let mut services = BTreeSet::new();
    for text in named {
        let service = parse::name("services", text, ServiceName::try_new)?;
        if !known.contains(&service) {
            return refuse("services", format!("there is no service {service} in the configuration"));
        }
        services.insert(service);
    }
    if role == Role::Admin && !services.is_empty() {
        return refuse("services", "an admin gives access to everything: no services beside this role".into());
    }
    let expires_at = match lasts.as_deref() {
        None => Some(now + LASTS),
        Some("never") => None,
        Some(text) => match Span::parse(text) {
            Ok(span) if (Span::from_mins(1)..=LONGEST).contains(&span) => Some(now + span),
            Ok(span) => return refuse("expires", format!("is {span}, but must be from 1m to {LONGEST}, or never")),
            Err(why) => return refuse("expires", why.to_string()),
        },
    };
    Ok(Wanted { name, role, services, expires_at, by: by.to_owned() })
}
