//! A digest is put together from the journal and from what is configured.

use crate::domain::digest::{Digest, DigestService, DigestSwitch};
use crate::domain::service::Service;
use crate::domain::switch::Slot;
use crate::domain::time::{Span, Timestamp};
use crate::edge::api::Facts;
use crate::journal::{JournalError, Reader, WatchFilter};
use crate::judge::Rule;

/// A digest is read over coffee.
const SWITCHES_MAX: usize = 200;

pub fn digest(
    reader: &Reader,
    services: &[Service],
    facts: &Facts,
    at: Timestamp,
    covers: Span,
) -> Result<Digest, JournalError> {
    let from = at - covers;
    let filter = WatchFilter { limit: 1000, ..WatchFilter::default() };
    let mut watches = reader.watches(&filter)?;
    watches.retain(|w| w.opened_at >= from || w.ended_at.is_some_and(|ended| ended >= from));
    watches.reverse();
    let more = watches.len().saturating_sub(SWITCHES_MAX);
    let switches = watches.iter().skip(more).map(DigestSwitch::of).collect();
    let services = services
        .iter()
        .map(|service| {
            let now = facts.services.get(&service.name).cloned().unwrap_or_default();
            DigestService {
                name: service.name.clone(),
                mode: service.policy.mode,
                armed: now.armed && facts.armed,
                too_thin: too_thin(reader, service, now.live.as_deref(), at),
            }
        })
        .collect();
    Ok(Digest { from, to: at, switches, more: u32::try_from(more).unwrap_or(u32::MAX), services })
}

/// Whether a soak that began now could show the ratio that was asked for.
fn too_thin(reader: &Reader, service: &Service, live: Option<&str>, at: Timestamp) -> Option<String> {
    let slots = service.slots.specs();
    let slot = live.and_then(|live| Slot::try_new(live).ok()).or_else(|| slots.keys().next().cloned())?;
    let other = slots.keys().find(|other| **other != slot).unwrap_or(&slot).clone();
    let policy = &service.policy;
    let ask = service.baseline_ask(slot, other, at);
    let baseline = match reader.choose_baseline(&ask) {
        Ok(Ok(baseline)) if baseline.usable() => baseline,
        Ok(Ok(_)) => return Some("too little normal is recorded".into()),
        Ok(Err(why)) => return Some(why),
        Err(error) => return Some(error.to_string()),
    };
    let mut rule = Rule::new(policy);
    rule.with_baseline(&baseline);
    rule.ln_e()?; // the plain rule states no chance of error
    let whole = policy.phases().whole();
    let expected = baseline.rate() * whole.as_secs_f64();
    let wanted = policy.limits.must_detect.get();
    match rule.detectable(expected) {
        Some(ratio) if ratio <= wanted => None,
        Some(ratio) => Some(format!(
            "about {expected:.0} requests in {whole} can show {ratio:.1}× the normal, {wanted}× is asked for"
        )),
        None => Some(format!("about {expected:.0} requests in {whole} cannot even show a total outage")),
    }
}
