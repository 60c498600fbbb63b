//! One soak through the real engine on a virtual clock.

use std::collections::BTreeMap;

use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;

use super::stage::{self, Ending, Kept, Stage, World};
use super::traffic::{Counted, Stream, Traffic};
use crate::account::rivals::{Seen, SeenTick};
use crate::domain::account::Account;
use crate::domain::baseline::{Baseline, BaselineAsk};
use crate::domain::counts::{Cell, Counts};
use crate::domain::plan::Plan;
use crate::domain::policy::{Alpha, Limits, Mode, Policy, Ratio, RuleKind, Share, TailNull, WarmUp};
use crate::domain::service::{Metrics, Service, SlotSpec, Slots};
use crate::domain::signal::{Observation, Quantile, Reading, SlotCell, SourceClock};
use crate::domain::switch::{Announcement, ServiceName, Slot};
use crate::domain::time::{Span, Timestamp};
use crate::engine::message::ObserveAsk;
use crate::judge::recorded::{self, Facts};

/// A whole hour, so that ticks of every length lie on the grid.
const BEGAN: Timestamp = Timestamp::from_millis(1_795_269_600_000);

/// Everything that a run needs besides its seed.
#[derive(Debug, Clone, PartialEq)]
pub struct Setup {
    pub traffic: Traffic,
    pub tick_s: u64,
    pub soak_s: u64,
    pub long_s: u64,
    /// Length of what was recorded before the switch.
    pub baseline_s: u64,
    pub alpha: f64,
    pub block_s: u64,
    /// Errors that the baseline does not have, whatever the traffic's share of them is.
    pub clean_baseline: bool,
    pub rule: RuleKind,
    pub warm_up: WarmUp,
    pub tail: TailNull,
    /// Share of the scrapes after the switch that never came: the next one spans the gap.
    pub lost: f64,
}

impl Setup {
    pub fn new(traffic: Traffic) -> Setup {
        Setup {
            traffic,
            tick_s: 15,
            soak_s: 1800,
            long_s: 0,
            baseline_s: 3600,
            alpha: 0.001,
            block_s: 5,
            clean_baseline: false,
            rule: RuleKind::Evidence,
            warm_up: WarmUp { errors: Span::from_secs(30), latency: Span::from_secs(60) },
            tail: TailNull::Scaled,
            lost: 0.0,
        }
    }

    pub fn whole_s(&self) -> u64 {
        self.soak_s + self.long_s
    }
}

/// One tick of the soak.
#[derive(Debug, Clone, PartialEq)]
pub struct Tick {
    pub from_s: f64,
    pub to_s: f64,
    pub counted: Counted,
}

/// What was recorded and what happened: the same for the engine and for the rivals.
#[derive(Debug, Clone)]
pub struct Trace {
    pub baseline: Option<Baseline>,
    /// Requests and bad ones of each recorded minute, for rules that compare samples.
    pub minutes: Vec<(f64, f64)>,
    pub ticks: Vec<Tick>,
}

impl Trace {
    /// What the rules of other tools look at.
    pub fn seen(&self) -> Seen {
        let tick = |t: &Tick| SeenTick { to_s: t.to_s, requests: t.counted.requests, bad: t.counted.bad };
        Seen { minutes: self.minutes.clone(), ticks: self.ticks.iter().map(tick).collect() }
    }
}

pub fn trace(setup: &Setup, seed: u64) -> Trace {
    // Minutes for a long normal: a day of quarter minutes is what the store does not keep either.
    let cell_s: u64 = if setup.baseline_s > 6 * 3600 { 60 } else { 15 };
    let traffic =
        if setup.clean_baseline { Traffic { errors: 0.0, ..setup.traffic.clone() } } else { setup.traffic.clone() };
    let mut before = Stream::new(&traffic, seed, 0, false, setup.whole_s() as f64);
    let (mut cells, mut minutes) = (Vec::new(), vec![(0.0, 0.0); (setup.baseline_s / 60) as usize]);
    let began = -(setup.baseline_s as f64);
    for i in 0..setup.baseline_s / cell_s {
        let from_s = began + (i * cell_s) as f64;
        let c = before.tick(from_s, from_s + cell_s as f64);
        if let Some(minute) = minutes.get_mut((i * cell_s / 60) as usize) {
            *minute = (minute.0 + c.requests, minute.1 + c.bad);
        }
        let Ok(counts) = Counts::try_new(c.requests, c.bad) else { continue };
        cells.push(recorded::SlotCell {
            slot: slot("blue"),
            cell: Cell { from: at(from_s), to: at(from_s + cell_s as f64), counts, latency: c.latency },
        });
    }
    let facts = Facts { cells, ..Facts::default() };
    let baseline = recorded::choose(&ask(setup), &facts, 0.001).ok();
    let mut after = Stream::new(&setup.traffic, seed, 1, true, setup.whole_s() as f64);
    // The long phase has its own, coarser ticks.
    let (mut from, mut ticks) = (0, Vec::new());
    while from < setup.whole_s() {
        let length = if from >= setup.soak_s { setup.tick_s.max(60) } else { setup.tick_s };
        let (from_s, to_s) = (from as f64, (from + length) as f64);
        ticks.push(Tick { from_s, to_s, counted: after.tick(from_s, to_s) });
        from += length;
    }
    Trace { baseline, minutes, ticks: lose(ticks, setup.lost, seed) }
}

/// Joins each lost tick to the one after it.
fn lose(ticks: Vec<Tick>, share: f64, seed: u64) -> Vec<Tick> {
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    rng.set_stream(2);
    let mut all: Vec<Tick> = Vec::with_capacity(ticks.len());
    let mut gap: Option<Tick> = None;
    for tick in ticks {
        let tick = match gap.take() {
            Some(lost) => Tick { from_s: lost.from_s, to_s: tick.to_s, counted: lost.counted.plus(&tick.counted) },
            None => tick,
        };
        if share > 0.0 && rng.random_bool(share) {
            gap = Some(tick);
        } else {
            all.push(tick);
        }
    }
    all
}

/// Plays a trace through the engine, as a daemon with a perfect Prometheus would. Seconds from the switch to
/// the rollback; `None`: there was none.
pub fn play(setup: &Setup, trace: &Trace) -> Option<f64> {
    run(setup, trace, None)
}

/// The same with what a journal would keep of it.
pub fn account(setup: &Setup, trace: &Trace) -> Option<Account> {
    let mut kept = Kept::default();
    run(setup, trace, Some(&mut kept));
    kept.account()
}

fn run(setup: &Setup, trace: &Trace, kept: Option<&mut Kept>) -> Option<f64> {
    let stage = Stage {
        services: vec![service(setup)],
        announcement: announcement(),
        began: BEGAN,
        until: BEGAN + Span::from_secs(2 * setup.whole_s() + 3600),
    };
    match stage::play(stage, &mut Traced { trace, clock: clock(setup), next: 0 }, kept) {
        Ending::RolledBack(at) => Some(at.since(BEGAN).as_secs_f64()),
        Ending::Ended(_) | Ending::Open => None,
    }
}

/// A trace as a perfect Prometheus would tell of it.
struct Traced<'a> {
    trace: &'a Trace,
    clock: SourceClock,
    next: usize,
}

impl World for Traced<'_> {
    fn baseline(&mut self, _: &BaselineAsk) -> Result<Baseline, String> {
        self.trace.baseline.clone().ok_or_else(|| "nothing was recorded".to_owned())
    }

    fn observe(&mut self, ask: &ObserveAsk, now: Timestamp) -> (Observation, SourceClock) {
        let seen = if ask.slot == slot("green") {
            observe(self.trace, &mut self.next, ask.from, now)
        } else {
            idle(ask.from, now)
        };
        (seen, self.clock)
    }
}

/// All ticks that have ended since `from`, as one cell: the engine asks once a tick.
fn observe(trace: &Trace, next: &mut usize, from: Timestamp, now: Timestamp) -> Observation {
    let mut sum: Option<(Timestamp, Counted)> = None;
    while let Some(tick) = trace.ticks.get(*next).filter(|tick| at(tick.to_s) <= now) {
        *next += 1;
        sum = Some(match sum {
            None => (at(tick.to_s), tick.counted.clone()),
            Some((_, earlier)) => (at(tick.to_s), earlier.plus(&tick.counted)),
        });
    }
    match sum {
        None => Observation::Empty { to: now, targets: Reading::Absent },
        Some((to, counted)) => cell(from, to, counted),
    }
}

/// The old slot after the switch: its series are there and stand still.
fn idle(from: Timestamp, now: Timestamp) -> Observation {
    if now <= from {
        return Observation::Empty { to: now, targets: Reading::Absent };
    }
    cell(from, now, Counted { requests: 0.0, bad: 0.0, latency: None })
}

fn cell(from: Timestamp, to: Timestamp, counted: Counted) -> Observation {
    Observation::Cell(Box::new(SlotCell {
        from,
        to,
        counts: Counts::try_new(counted.requests, counted.bad).map_or(Reading::Absent, Reading::Value),
        latency: counted.latency.map_or(Reading::Absent, Reading::Value),
        targets: Reading::Absent,
        custom: Vec::new(),
        remarks: Vec::new(),
    }))
}

fn clock(setup: &Setup) -> SourceClock {
    // Read at once: the settling time is the same for every rule, and left out for all.
    SourceClock { skew_ms: 0, settle: Span::ZERO, scrape_interval: Some(Span::from_secs(setup.tick_s)) }
}

fn at(s: f64) -> Timestamp {
    BEGAN.shifted((s * 1000.0).round() as i64)
}

/// The names used here are letters only.
fn slot(name: &str) -> Slot {
    Slot::try_new(name).unwrap_or_else(|why| unreachable!("{why}"))
}

fn name() -> ServiceName {
    ServiceName::try_new("checkout").unwrap_or_else(|why| unreachable!("{why}"))
}

fn metrics() -> Metrics {
    Metrics {
        name: "web".into(),
        from: Default::default(),
        requests: "requests{env=\"$slot\"}".into(),
        errors: None,
        latency: None,
        custom: Vec::new(),
    }
}

fn announcement() -> Announcement {
    let known = Announcement::of(name(), slot("blue"), slot("green"), "simulate");
    Announcement { switched_at: Some(BEGAN), ..known }
}

fn ask(setup: &Setup) -> BaselineAsk {
    BaselineAsk {
        service: name(),
        slot: slot("blue"),
        other: slot("green"),
        metrics: metrics(),
        before: BEGAN,
        soak: Span::from_secs(setup.soak_s),
        whole_day: setup.long_s > 0,
        cells_min: 8,
        // Thin baselines are part of what is played.
        requests_min: 1.0,
        slots: BTreeMap::new(),
    }
}

fn service(setup: &Setup) -> Service {
    let in_range = "the scenarios' settings are in range";
    let share = |s| Share::try_new(s).unwrap_or_else(|_| unreachable!("{in_range}"));
    let ratio = |r| Ratio::try_new(r).unwrap_or_else(|_| unreachable!("{in_range}"));
    let quantiles = if setup.traffic.latency { vec![Quantile::P95, Quantile::P99] } else { Vec::new() };
    let limits = Limits {
        ratio: ratio(1.5),
        floor: share(0.001),
        error_rate: None,
        latency_s: Vec::new(),
        quantiles,
        tail: setup.tail,
        ticks: 3,
        alpha: Alpha::try_new(setup.alpha).unwrap_or_else(|_| unreachable!("{in_range}")),
        block: Span::from_secs(setup.block_s),
        min_events: 5,
        must_detect: ratio(10.0),
        custom: Vec::new(),
    };
    Service {
        name: name(),
        slots: Slots::Named(["blue", "green"].map(|n| (slot(n), SlotSpec::default())).into()),
        metrics: metrics(),
        policy: Policy {
            mode: Mode::Auto,
            rule: setup.rule,
            soak: Span::from_secs(setup.soak_s),
            tick: Span::from_secs(setup.tick_s),
            long: Span::from_secs(setup.long_s),
            long_tick: Span::from_secs(60),
            extend_max: Span::ZERO,
            warm_up: setup.warm_up,
            limits,
            ask_timeout: Span::from_mins(10),
            ask_default: Default::default(),
            confirm_within: Span::from_secs(60),
            recover_within: Span::from_mins(3),
            baseline_cells_min: 8,
            baseline_requests_min: 1.0,
            notify_passed: false,
            notify_opened: false,
        },
        plan: stage::way_back(),
        after_passed: Plan::default(),
        flags: Default::default(),
        unverified: true,
        controls: Vec::new(),
        runbook: None,
    }
}
