//! What operators do: each verb is one input, recorded with who and why, and answered after its commit.

use axum::body::Bytes;
use axum::extract::{Extension, Path, State};
use axum::http::StatusCode;
use axum::response::Response;

use super::ApiContext;
use super::auth::Caller;
use super::gate::over;
use super::parse::{self, Fields, Refusal};
use super::routes::{Context, answered, failure, not_taken, refused, success, switch_id, within_reach};
use super::types::Done;
use crate::domain::switch::{ServiceName, SwitchId};
use crate::domain::time::Span;
use crate::engine::message::{Hold, Input};
use crate::journal::Write;

/// A pause without a length.
const PAUSE: Span = Span::from_mins(15);

/// The longest that is taken: the engine has its own bounds below it.
const LONGEST: Span = Span::from_mins(48 * 60);

const VERBS: &str = "the verbs are approve, decline, cancel, rollback, pause, resume, extend and ack";

enum Said {
    Answer { approve: bool },
    Cancel,
    Rollback,
    Hold(Hold),
}

pub async fn upon_watch(
    State(c): Context,
    Extension(caller): Extension<Caller>,
    Path((id, verb)): Path<(String, String)>,
    body: Bytes,
) -> Response {
    order(&c, id, &verb, &caller, &body).await
}

/// One verb upon one watch, by whomever.
pub(in crate::edge) async fn order(c: &ApiContext, id: String, verb: &str, caller: &Caller, body: &[u8]) -> Response {
    let switch = match switch_id(id) {
        Ok(id) => id,
        Err(answer) => return *answer,
    };
    if let Err(answer) = within_reach(c, caller, &switch) {
        return *answer;
    }
    let by = caller.who.clone();
    let read = Fields::parse(body).and_then(|mut fields| {
        let said = match verb {
            // Nothing for the engine: somebody looks after it.
            "ack" => {
                let why = parse::why(&mut fields)?;
                return fields.finish().map(|()| Some((None, why)));
            }
            "approve" => Said::Answer { approve: true },
            "decline" => Said::Answer { approve: false },
            "cancel" => Said::Cancel,
            "rollback" => Said::Rollback,
            "pause" => Said::Hold(Hold::Pause { lasts: length(&mut fields, "for")?.unwrap_or(PAUSE) }),
            "resume" => Said::Hold(Hold::Resume),
            "extend" => match length(&mut fields, "by")? {
                Some(longer) => Said::Hold(Hold::Extend { longer }),
                None => return Err(Refusal { field: Some("by".into()), text: "is missing: by how much?".into() }),
            },
            _ => return Ok(None),
        };
        let why = parse::why(&mut fields)?;
        fields.finish().map(|()| Some((Some(said), why)))
    });
    let (said, why) = match read {
        Ok(Some(read)) => read,
        Ok(None) => return failure(StatusCode::NOT_FOUND, "not_found", VERBS),
        Err(refusal) => return refused(refusal),
    };
    let Some(said) = said else { return acknowledged(c, switch, by, &why).await };
    let input = |request| match said {
        Said::Answer { approve } => Input::Answered { request, switch, approve, by, why },
        Said::Cancel => Input::Cancelled { request, switch, by, why },
        Said::Rollback => Input::Ordered { request, switch, by, why },
        Said::Hold(hold) => Input::Held { request, switch, hold, by, why },
    };
    answered(c.inbox.ask(input).await)
}

async fn acknowledged(c: &ApiContext, switch: SwitchId, by: String, why: &str) -> Response {
    match c.reader.watch(&switch) {
        Ok(Some(_)) => {}
        Ok(None) => return failure(StatusCode::NOT_FOUND, "not_found", &format!("there is no watch {switch}")),
        Err(error) => return failure(StatusCode::INTERNAL_SERVER_ERROR, "journal", &error.to_string()),
    }
    let write = Write::Acknowledged { switch: switch.clone() };
    match c.inbox.write_synced(write).await {
        Ok(()) => {
            tracing::info!(%switch, by, why, "acknowledged");
            success(StatusCode::OK, Done { text: format!("{switch}: no more reminders of what was told so far") })
        }
        Err(error) => not_taken(error),
    }
}

pub async fn drill(
    State(c): Context,
    Extension(caller): Extension<Caller>,
    Path(name): Path<String>,
    body: Bytes,
) -> Response {
    begin_drill(&c, name, &caller, &body).await
}

pub(in crate::edge) async fn begin_drill(c: &ApiContext, name: String, caller: &Caller, body: &[u8]) -> Response {
    let read = Fields::parse(body).and_then(|mut fields| {
        let (real, why) = (fields.flag("real")?, parse::why(&mut fields)?);
        fields.finish()?;
        Ok((parse::name("service", name, ServiceName::try_new)?, real, why))
    });
    let (service, real, why) = match read {
        Ok(read) => read,
        Err(refusal) => return refused(refusal),
    };
    if let Err(answer) = over(c, caller, Some(&service)) {
        return *answer;
    }
    let by = caller.who.clone();
    answered(c.inbox.ask(|request| Input::DrillAsked { request, service, real, by, why }).await)
}

pub async fn arm(c: Context, caller: Extension<Caller>, body: Bytes) -> Response {
    set_armed(&c.0, &caller, &body, true).await
}

pub async fn disarm(c: Context, caller: Extension<Caller>, body: Bytes) -> Response {
    set_armed(&c.0, &caller, &body, false).await
}

pub(in crate::edge) async fn set_armed(c: &ApiContext, caller: &Caller, body: &[u8], armed: bool) -> Response {
    let read = Fields::parse(body).and_then(|mut fields| {
        let (service, why) = (fields.text("service")?, parse::why(&mut fields)?);
        fields.finish()?;
        Ok((service.map(|text| parse::name("service", text, ServiceName::try_new)).transpose()?, why))
    });
    let (service, why) = match read {
        Ok(read) => read,
        Err(refusal) => return refused(refusal),
    };
    if let Err(answer) = over(c, caller, service.as_ref()) {
        return *answer;
    }
    let by = caller.who.clone();
    answered(c.inbox.ask(|request| Input::Armed { request, service, armed, by, why }).await)
}

/// A duration in Prometheus's grammar, from a second to two days.
fn length(fields: &mut Fields, key: &'static str) -> Result<Option<Span>, Refusal> {
    let Some(text) = fields.text(key)? else { return Ok(None) };
    let wrong = |text: String| Refusal { field: Some(key.into()), text };
    match Span::parse(&text) {
        Ok(span) if (Span::from_secs(1)..=LONGEST).contains(&span) => Ok(Some(span)),
        Ok(span) => Err(wrong(format!("is {span}, but must be from 1s to {LONGEST}"))),
        Err(why) => Err(wrong(why.to_string())),
    }
}
