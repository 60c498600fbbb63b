//! What Prometheus remembers: who had the traffic, and the cells of a past switch. Asked one question at a time, with
//! rests between them: the server has other things to do.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use super::client::Prometheus;
use super::decode::{self, Labels};
use super::observe::{WINDOW, spacing};
use super::promql::{Selector, Template, at, bind_query};
use super::record::rounds;
use crate::account::backtest::Cost;
use crate::account::switches::{Carrier, Shares};
use crate::domain::service::{Service, SlotSpec};
use crate::domain::signal::{FailureKind, ReadFailure};
use crate::domain::switch::{Slot, Version};
use crate::domain::time::{Span, Timestamp};

/// Prometheus stops at 11,000 points of a series.
const POINTS_MAX: u64 = 10_000;

/// More carriers than this are no slots and versions: the label holds something else.
const CARRIERS_MAX: usize = 200;

/// How much of its time a server is asked, and what it came to.
#[derive(Debug)]
pub struct Pace {
    /// Above 0, at most 1: the part of the time in which a question is under way.
    share: f64,
    queries: AtomicU64,
    bytes: AtomicU64,
    asked_ms: AtomicU64,
    rested_ms: AtomicU64,
}

impl Pace {
    pub fn new(share: f64) -> Pace {
        let zero = AtomicU64::default;
        Pace { share: share.clamp(0.01, 1.0), queries: zero(), bytes: zero(), asked_ms: zero(), rested_ms: zero() }
    }

    /// Counts a question, and rests after it.
    pub(super) async fn after(&self, began: Instant, bytes: usize) {
        let took = began.elapsed();
        let ms = |d: Duration| u64::try_from(d.as_millis()).unwrap_or(u64::MAX);
        let rest = took.mul_f64(1.0 / self.share - 1.0);
        self.queries.fetch_add(1, Ordering::Relaxed);
        self.bytes.fetch_add(u64::try_from(bytes).unwrap_or(u64::MAX), Ordering::Relaxed);
        self.asked_ms.fetch_add(ms(took), Ordering::Relaxed);
        self.rested_ms.fetch_add(ms(rest), Ordering::Relaxed);
        tokio::time::sleep(rest).await;
    }

    pub fn cost(&self) -> Cost {
        let get = |n: &AtomicU64| n.load(Ordering::Relaxed);
        Cost {
            queries: get(&self.queries),
            answers_bytes: get(&self.bytes),
            asked_ms: get(&self.asked_ms),
            rested_ms: get(&self.rested_ms),
        }
    }
}

impl Prometheus {
    /// Requests per second of every carrier over `window`, at each `step`. `version`: the label that tells releases apart.
    pub async fn shares(
        &self,
        service: &Service,
        version: Option<&str>,
        (from, to): (Timestamp, Timestamp),
        (step, window): (Span, Span),
        told: &mut (dyn FnMut(Timestamp) + Send),
    ) -> Result<Shares, ReadFailure> {
        let template =
            Template::parse(&service.metrics).map_err(|detail| ReadFailure { kind: FailureKind::Rejected, detail })?;
        let slots = service.slots.specs();
        let plain = SlotSpec::default();
        let by_slot = service.metrics.by_slot();
        let label = if by_slot && template.groups_slots() { template.slot_label() } else { None };
        let mut shares = Shares::new();
        for (names, spec) in rounds(&template, by_slot, &slots, &plain) {
            let x = template.requests.bind(&BTreeSet::from([service.name.as_str()]), &names, spec);
            let by: Vec<&str> = label.as_deref().into_iter().chain(version).collect();
            let query = format!("sum by ({}) (rate({x}[{}ms]))", by.join(", "), window.as_millis());
            let mut start = from.floor_to(step);
            while start <= to {
                let stop = (start + step.times(POINTS_MAX - 1)).min(to);
                for series in decode::matrix(&self.range(&query, start, stop, step).await?)? {
                    let Some(carrier) = carrier(&series.labels, label.as_deref(), version, &names) else { continue };
                    let points = series.points.iter().map(|(at, rate)| (Timestamp::from_millis(*at), *rate));
                    shares.entry(carrier).or_default().extend(points);
                }
                if shares.len() > CARRIERS_MAX {
                    let detail = format!("more than {CARRIERS_MAX} slots and versions: is the label the right one?");
                    return Err(ReadFailure { kind: FailureKind::Unusable, detail });
                }
                told(stop);
                start = stop + step;
            }
        }
        Ok(shares)
    }

    /// The spacing of the slot's samples at that time.
    pub async fn interval_at(
        &self,
        service: &Service,
        slot: &Slot,
        when: Timestamp,
    ) -> Result<Option<Span>, ReadFailure> {
        let template =
            Template::parse(&service.metrics).map_err(|detail| ReadFailure { kind: FailureKind::Rejected, detail })?;
        let spec = service.slots.spec(slot).cloned().unwrap_or_default();
        let x: Selector =
            template.requests.bind(&BTreeSet::from([service.name.as_str()]), &BTreeSet::from([slot.as_str()]), &spec);
        let body = self.instant(&format!("{x}[{WINDOW}] @ {}", at(when)), None).await?;
        Ok(spacing(&decode::raw_samples(&body)?))
    }

    /// A custom signal at each tick's end.
    pub async fn custom_past(
        &self,
        service: &Service,
        slot: &Slot,
        query: &str,
        (from, to): (Timestamp, Timestamp),
        step: Span,
    ) -> Result<BTreeMap<Timestamp, f64>, ReadFailure> {
        let query = bind_query(query, &service.name, slot);
        let mut all = BTreeMap::new();
        let mut start = from.floor_to(step);
        while start <= to {
            let stop = (start + step.times(POINTS_MAX - 1)).min(to);
            let series = decode::matrix(&self.range(&query, start, stop, step).await?)?;
            if let [one] = series.as_slice() {
                all.extend(one.points.iter().map(|(at, value)| (Timestamp::from_millis(*at), *value)));
            }
            start = stop + step;
        }
        Ok(all)
    }
}

fn carrier(labels: &Labels, slot: Option<&str>, version: Option<&str>, names: &BTreeSet<&str>) -> Option<Carrier> {
    let slot = match slot {
        Some(label) => labels.get(label)?.clone(),
        None => (*names.iter().next()?).to_owned(),
    };
    // A series without a version (from before the label was there) is a carrier of its own.
    let version = version.and_then(|label| labels.get(label)).and_then(|v| Version::try_new(v.clone()).ok());
    Some(Carrier { slot: Slot::try_new(slot).ok()?, version })
}
