//! What is true of a service, and what Prometheus, a health check and a probe say of it.

use std::collections::BTreeMap;

use super::BEGAN;
use crate::domain::baseline::{Baseline, Provenance, Quality, Spread};
use crate::domain::counts::Counts;
use crate::domain::plan::{HealthReading, ProbeReading};
use crate::domain::signal::{FailureKind, Observation, ReadFailure, Reading, SlotCell, SourceClock, Targets};
use crate::domain::switch::Slot;
use crate::domain::time::{Span, Timestamp};
use crate::engine::message::ObserveAsk;

/// Milliseconds of the world's own time.
pub type Ms = u64;

/// Errors of a release that is well.
pub const NORMAL: f64 = 0.0005;
pub const RPS: f64 = 100.0;
/// Samples are readable so long after their instant.
const SETTLE: Span = Span::from_millis(1500);

/// One slot from one instant on.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct SlotState {
    pub errors: f64,
    pub alive: bool,
}

/// A stretch in which nothing about a service changed.
#[derive(Debug, Clone, PartialEq)]
struct Segment {
    from: Ms,
    routed: Slot,
    slots: BTreeMap<Slot, SlotState>,
    rps: f64,
    /// What each slot's counters stood at when it began: requests and bad ones.
    counters: BTreeMap<Slot, (f64, f64)>,
}

/// The truth about one service, kept as its history.
#[derive(Debug, Clone)]
pub struct Truth {
    history: Vec<Segment>,
}

impl Truth {
    pub fn new(slots: &[Slot]) -> Truth {
        let well = SlotState { errors: NORMAL, alive: true };
        let first = Segment {
            from: 0,
            routed: slots.first().cloned().unwrap_or_else(|| unreachable!("a service has slots")),
            slots: slots.iter().map(|s| (s.clone(), well)).collect(),
            rps: RPS,
            counters: BTreeMap::new(),
        };
        Truth { history: vec![first] }
    }

    fn last(&self) -> &Segment {
        self.history.last().unwrap_or_else(|| unreachable!("a history begins with the world"))
    }

    fn change(&mut self, at: Ms, act: impl FnOnce(&mut Segment)) {
        let mut next = self.last().clone();
        for slot in self.last().slots.keys() {
            next.counters.insert(slot.clone(), self.counters(slot, at));
        }
        next.from = at;
        act(&mut next);
        // Nobody asks about what is longer ago than the longest gap between two looks.
        if self.history.len() > 400 {
            self.history.drain(..200);
        }
        self.history.push(next);
    }

    pub fn route(&mut self, at: Ms, slot: &Slot) {
        self.change(at, |s| s.routed = slot.clone());
    }

    pub fn set(&mut self, at: Ms, slot: &Slot, state: SlotState) {
        self.change(at, |s| {
            s.slots.insert(slot.clone(), state);
        });
    }

    pub fn set_rps(&mut self, at: Ms, rps: f64) {
        self.change(at, |s| s.rps = rps);
    }

    pub fn rps(&self) -> f64 {
        self.last().rps
    }

    pub fn routed(&self) -> &Slot {
        &self.last().routed
    }

    pub fn state(&self, slot: &Slot) -> SlotState {
        self.last().slots.get(slot).copied().unwrap_or(SlotState { errors: 1.0, alive: false })
    }

    /// A slot's counters at an instant, as a scrape would find them: whole requests, whole failures. A dead
    /// slot answers nothing.
    fn counters(&self, slot: &Slot, at: Ms) -> (f64, f64) {
        let n = self.history.partition_point(|segment| segment.from <= at).saturating_sub(1);
        let segment = &self.history[n];
        let (requests, bad) = segment.counters.get(slot).copied().unwrap_or_default();
        let serves = segment.slots.get(slot).filter(|s| s.alive && segment.routed == *slot);
        let more = serves.map_or(0.0, |_| segment.rps * at.saturating_sub(segment.from) as f64 / 1000.0);
        (requests + more, bad + more * serves.map_or(0.0, |s| s.errors))
    }

    /// Whether the slot was ever broken since then, badly enough to be seen.
    pub fn ever_bad(&self, slot: &Slot, since: Ms) -> bool {
        self.history.iter().enumerate().any(|(i, segment)| {
            let end = self.history.get(i + 1).map_or(Ms::MAX, |next| next.from);
            end > since && segment.slots.get(slot).is_some_and(|s| !s.alive || s.errors > 2.0 * NORMAL)
        })
    }

    /// For how long the slot has been as badly broken as can be, up to now.
    pub fn grossly_bad_for(&self, slot: &Slot, now: Ms) -> Ms {
        let bad = |s: &Segment| s.slots.get(slot).is_some_and(|s| !s.alive || s.errors > 20.0 * NORMAL);
        self.history.iter().rev().take_while(|s| bad(s)).last().map_or(0, |s| now.saturating_sub(s.from))
    }

    /// Whether the slot answered at any instant since then.
    pub fn ever_alive(&self, slot: &Slot, since: Ms) -> bool {
        self.history.iter().enumerate().any(|(i, segment)| {
            let end = self.history.get(i + 1).map_or(Ms::MAX, |next| next.from);
            end > since && segment.slots.get(slot).is_some_and(|s| s.alive)
        })
    }

    /// Whether the traffic was on the slot at any instant since then.
    pub fn ever_routed(&self, slot: &Slot, since: Ms) -> bool {
        self.history.iter().enumerate().any(|(i, segment)| {
            let end = self.history.get(i + 1).map_or(Ms::MAX, |next| next.from);
            end > since && segment.routed == *slot
        })
    }
}

/// What is wrong with Prometheus.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Metrics {
    Fine,
    Refused,
    /// Answers when nobody waits any more.
    Slow,
    /// Its samples stand still.
    Stale,
    /// Some of what was asked for is missing: not data.
    Partial,
    Nan,
    /// The series are of another slot: none of ours.
    WrongSlot,
}

/// One slot's question, answered. `prom_ms` is Prometheus's clock as world time; `skew_ms` is what flipback
/// measures of it.
pub fn observe(
    truth: &Truth,
    ask: &ObserveAsk,
    metrics: Metrics,
    prom_ms: Ms,
    skew_ms: i64,
) -> (Observation, Option<SourceClock>) {
    let failed = |kind, detail: &str| (Observation::Failed(ReadFailure { kind, detail: detail.into() }), None);
    let clock = SourceClock { skew_ms, settle: SETTLE, scrape_interval: Some(Span::from_secs(1)) };
    let to = (BEGAN + Span::from_millis(prom_ms) - SETTLE).floor_to(ask.grid);
    let state = truth.state(&ask.slot);
    let targets = Reading::Value(Targets { up: u32::from(state.alive), down: u32::from(!state.alive), others_up: 3 });
    match metrics {
        Metrics::Refused => return failed(FailureKind::Unreachable, "connection refused"),
        Metrics::Slow => return failed(FailureKind::Timeout, "no answer in time"),
        Metrics::Partial => return failed(FailureKind::Unusable, "the answer has warnings"),
        Metrics::Nan => return failed(FailureKind::Unusable, "NaN"),
        Metrics::Stale => return (Observation::Empty { to, targets: Reading::Absent }, Some(clock)),
        Metrics::WrongSlot => return (Observation::Absent { to, targets: Reading::Absent }, Some(clock)),
        Metrics::Fine => {}
    }
    if to <= ask.from {
        return (Observation::Empty { to, targets }, Some(clock));
    }
    let world = |t: Timestamp| t.since(BEGAN).as_millis();
    let (before, after) = (truth.counters(&ask.slot, world(ask.from)), truth.counters(&ask.slot, world(to)));
    let requests = after.0.floor() - before.0.floor();
    let bad = (after.1.floor() - before.1.floor()).min(requests);
    let cell = SlotCell {
        from: ask.from,
        to,
        counts: Counts::try_new(requests, bad).map_or(Reading::Absent, Reading::Value),
        latency: Reading::Absent,
        targets,
        custom: Vec::new(),
        remarks: Vec::new(),
    };
    (Observation::Cell(Box::new(cell)), Some(clock))
}

pub fn health(truth: &Truth, slot: &Slot, readable: bool) -> HealthReading {
    match (readable, truth.state(slot).alive) {
        (false, _) => HealthReading::Unreadable("the check itself failed".into()),
        (true, true) => HealthReading::Good,
        (true, false) => HealthReading::Bad("connection refused".into()),
    }
}

pub fn probe(truth: &Truth, readable: bool) -> ProbeReading {
    if readable {
        ProbeReading::Shows(truth.routed().to_string())
    } else {
        ProbeReading::Unreadable("exit code 1".into())
    }
}

/// An hour of a service that is well.
pub fn baseline(slot: &Slot, before: Timestamp) -> Baseline {
    let requests = RPS * 3600.0;
    Baseline {
        counts: Counts::try_new(requests, (requests * NORMAL).round())
            .unwrap_or_else(|why| unreachable!("counts of a normal hour: {why}")),
        latency: None,
        covered: Span::from_mins(60),
        cells: 240,
        spread: Spread { errors: 1.1, latency: Vec::new(), env: 1.0 },
        peak_rate: RPS * 1.2,
        provenance: Provenance {
            from: before - Span::from_mins(60),
            to: before,
            slot: slot.clone(),
            version: None,
            previous_release_used: false,
            pinned: false,
            excluded: Vec::new(),
        },
        quality: Quality::Good,
    }
}
