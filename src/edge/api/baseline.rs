//! The recorded normal of a service: shown, and changed by hand.

use axum::body::Bytes;
use axum::extract::{Extension, Path, State};
use axum::http::StatusCode;
use axum::response::Response;

use super::auth::Caller;
use super::gate::over;
use super::parse::{self, Fields, Refusal};
use super::routes::{Context, failure, from_store, not_taken, refused, settings, success, unknown_service};
use super::types::{BaselineAnswer, Done, RangeAnswer};
use crate::domain::service::Slots;
use crate::domain::switch::Slot;
use crate::domain::time::{Span, Timestamp};
use crate::journal::{Range, Write};

pub async fn show(State(c): Context, Extension(caller): Extension<Caller>, Path(name): Path<String>) -> Response {
    let settings = settings(&c);
    let Some(service) = settings.services.iter().find(|s| s.name.as_str() == name).cloned() else {
        return unknown_service(&name);
    };
    if let Err(answer) = over(&c, &caller, Some(&service.name)) {
        return *answer;
    }
    let facts = c.facts.lock().map(|facts| facts.clone()).unwrap_or_default();
    let now = (c.now)();
    from_store(c, move |c| {
        let named: Vec<Slot> = match &service.slots {
            Slots::Named(named) => named.keys().cloned().collect(),
            Slots::Versions => Vec::new(),
        };
        // The live slot where it is known, else the one that served, or was recorded, last.
        let live = facts.services.get(&service.name).and_then(|f| f.live.clone()).and_then(|l| Slot::try_new(l).ok());
        let slot = match live {
            Some(slot) => Some(slot),
            None => {
                let glances = c.reader.glances(std::slice::from_ref(&service.name), now - Span::from_mins(60))?;
                let served = glances.get(&service.name).and_then(|g| g.recorded_of(None)).map(|sum| sum.slot.clone());
                let mut newest = None;
                for slot in &named {
                    newest =
                        newest.max(c.reader.last_cell_end(&service.name, Some(slot))?.map(|at| (at, slot.clone())));
                }
                served.or_else(|| newest.map(|(_, slot)| slot)).or_else(|| named.first().cloned())
            }
        };
        let marks = c.reader.marks(&service.name)?;
        let (mut baseline, mut why) = (None, Some("no slot is known".to_owned()));
        if let Some(slot) = slot {
            let other = named.iter().find(|s| **s != slot).unwrap_or(&slot).clone();
            (baseline, why) = match c.reader.choose_baseline(&service.baseline_ask(slot, other, now))? {
                Ok(baseline) => (Some(baseline), None),
                Err(why) => (None, Some(why)),
            };
        }
        Ok(BaselineAnswer {
            baseline,
            why,
            pin: marks.pin.map(range_answer),
            invalid: marks.invalid.into_iter().map(range_answer).collect(),
        })
    })
    .await
}

fn range_answer(range: Range) -> RangeAnswer {
    RangeAnswer { from: range.from.to_string(), to: range.to.to_string(), by: range.by, why: range.why }
}

pub async fn verb(
    State(c): Context,
    Extension(caller): Extension<Caller>,
    Path((name, verb)): Path<(String, String)>,
    body: Bytes,
) -> Response {
    let settings = settings(&c);
    let Some(service) = settings.services.iter().find(|s| s.name.as_str() == name).map(|s| s.name.clone()) else {
        return unknown_service(&name);
    };
    if let Err(answer) = over(&c, &caller, Some(&service)) {
        return *answer;
    }
    let by = caller.who.clone();
    let write = match verb.as_str() {
        "record" => {
            return match (c.record_baseline)(service).await {
                Ok(cells) => success(StatusCode::OK, Done { text: format!("{cells} cells recorded") }),
                Err(why) => failure(StatusCode::BAD_GATEWAY, "unavailable", &format!("nothing was read: {why}")),
            };
        }
        "unpin" => Fields::parse(&body).and_then(Fields::finish).map(|()| Write::Unpin { service, by }),
        "pin" => range(&body).map(|(from, to, why)| Write::Pin { service, from, to, by, why }),
        "invalidate" => range(&body).map(|(from, to, why)| Write::Invalidate { service, from, to, by, why }),
        _ => return failure(StatusCode::NOT_FOUND, "not_found", "the verbs are record, invalidate, pin and unpin"),
    };
    let write = match write {
        Ok(write) => write,
        Err(refusal) => return refused(refusal),
    };
    match c.inbox.write_synced(write).await {
        Ok(()) => {
            tracing::info!(service = %name, verb, by = caller.who, "the baseline was changed by hand");
            success(StatusCode::OK, Done { text: format!("baseline of {name}: {verb} done") })
        }
        Err(error) => not_taken(error),
    }
}

fn range(body: &[u8]) -> Result<(Timestamp, Timestamp, String), Refusal> {
    let mut fields = Fields::parse(body)?;
    let from = parse::instant("from", &fields.need("from")?)?;
    let to = parse::instant("to", &fields.need("to")?)?;
    let why = parse::why(&mut fields)?;
    fields.finish()?;
    if from >= to {
        return Err(Refusal { field: Some("to".into()), text: "is not after from".into() });
    }
    Ok((from, to, why))
}
