//! The plain rule: above the limit for n consecutive ticks over at least ten seconds.
//!
//! A signal's limit is `ratio` times the baseline (never below the floor); errors have an absolute
//! limit besides, broken by a run of ticks or by the rate over thirty seconds. During the warm-up only
//! the absolute limit counts. A tick without requests neither breaks nor extends a run.

use std::collections::VecDeque;

use serde::{Deserialize, Serialize};

use super::Tick;
use super::quantile::{quantile, slower_than};
use crate::domain::baseline::Baseline;
use crate::domain::counts::{Buckets, Counts};
use crate::domain::policy::{Limits, WarmUp};
use crate::domain::signal::{Quantile, Signal};
use crate::domain::time::{Span, Timestamp};
use crate::domain::verdict::{Evidence, SignalState};

/// A run shorter than this is one bad scrape or a blip, however short the ticks are.
pub const RUN_MIN: Span = Span::from_secs(10);

/// The window of the absolute error limit: "5 % over 30 s".
pub const ABSOLUTE_WINDOW: Span = Span::from_secs(30);

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Threshold {
    limits: Limits,
    warm_up: WarmUp,
    /// Baseline error rate, once there is a usable baseline.
    base_error_rate: Option<f64>,
    errors: Errors,
    latencies: Vec<Latency>,
    customs: Vec<Custom>,
    requests: f64,
}

/// An unbroken row of ticks above a limit.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
struct Run {
    ticks: u32,
    since: Option<Timestamp>,
    until: Option<Timestamp>,
    requests: f64,
    bad: f64,
}

impl Run {
    fn extend(&mut self, tick: &Tick<'_>, requests: f64, bad: f64) {
        self.ticks += 1;
        self.since.get_or_insert(tick.from);
        self.until = Some(tick.to);
        self.requests += requests;
        self.bad += bad;
    }

    fn long_enough(&self, ticks: u32) -> bool {
        let length = self.until.zip(self.since).map_or(Span::ZERO, |(to, from)| to.since(from));
        self.ticks >= ticks && length >= RUN_MIN
    }

    fn rate(&self) -> Option<f64> {
        (self.requests > 0.0).then(|| self.bad / self.requests)
    }
}

#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
struct Errors {
    seen: bool,
    total: Counts,
    run: Run,
    /// The ticks inside the absolute limit's window.
    recent: VecDeque<(Timestamp, Timestamp, Counts)>,
    /// The limit that the last tick was compared with.
    limit: Option<f64>,
    breached: Option<BreachedBy>,
}

#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
enum BreachedBy {
    Run,
    /// The rate over the window since then.
    Window(Timestamp, Counts),
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
struct Latency {
    quantile: Quantile,
    /// `ratio` times the baseline's quantile.
    relative_s: Option<f64>,
    absolute_s: Option<f64>,
    base_s: Option<f64>,
    total: Option<Buckets>,
    run_total: Option<Buckets>,
    run: Run,
    judged: bool,
    /// The limit lies beyond the last finite bucket: requests below and above it look alike.
    beyond_buckets: bool,
    breached: bool,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
struct Custom {
    name: String,
    last: Option<f64>,
    run: Run,
    breached: bool,
}

impl Threshold {
    pub fn new(limits: Limits, warm_up: WarmUp) -> Self {
        let mut quantiles = limits.quantiles.clone();
        quantiles.extend(limits.latency_s.iter().map(|(q, _)| *q));
        quantiles.sort();
        quantiles.dedup();
        let latencies = quantiles
            .into_iter()
            .map(|quantile| Latency {
                quantile,
                relative_s: None,
                absolute_s: limits.latency_s.iter().find(|(q, _)| *q == quantile).map(|(_, s)| *s),
                base_s: None,
                total: None,
                run_total: None,
                run: Run::default(),
                judged: false,
                beyond_buckets: false,
                breached: false,
            })
            .collect();
        let customs = limits
            .custom
            .iter()
            .map(|c| Custom { name: c.name.clone(), last: None, run: Run::default(), breached: false })
            .collect();
        Self { limits, warm_up, base_error_rate: None, errors: Errors::default(), latencies, customs, requests: 0.0 }
    }

    pub fn with_baseline(&mut self, baseline: &Baseline) {
        if !baseline.usable() {
            return;
        }
        self.base_error_rate = baseline.counts.rate();
        let Some(buckets) = &baseline.latency else { return };
        for latency in &mut self.latencies {
            latency.base_s = quantile(buckets, latency.quantile.q());
            if self.limits.quantiles.contains(&latency.quantile) {
                latency.relative_s = latency.base_s.map(|s| s * self.limits.ratio.get());
            }
        }
    }

    pub fn tick(&mut self, tick: &Tick<'_>) {
        if let Some(counts) = tick.counts {
            self.requests += counts.requests();
            self.tick_errors(tick, counts);
        }
        if let Some(buckets) = tick.latency {
            let warm = tick.since_cut_over <= self.warm_up.latency;
            for latency in &mut self.latencies {
                latency.tick(tick, buckets, warm, &self.limits);
            }
        }
        for custom in &mut self.customs {
            let value = tick.custom.iter().find(|(name, _)| *name == custom.name).and_then(|(_, value)| *value);
            let Some(limit) = self.limits.custom.iter().find(|limit| limit.name == custom.name) else { continue };
            custom.tick(tick, value, limit.bound, self.limits.ticks);
        }
    }

    /// The absolute limit; a recorded normal above it takes its place, or a service whose normal is
    /// 6 % could never pass.
    fn absolute_limit(&self) -> f64 {
        let absolute = self.limits.error_rate_or_default().get();
        match self.base_error_rate {
            Some(base) if base >= absolute => (base * self.limits.ratio.get()).min(1.0),
            _ => absolute,
        }
    }

    fn error_limit(&self, warm: bool) -> f64 {
        let absolute = self.absolute_limit();
        match self.base_error_rate {
            Some(base) if !warm => (base * self.limits.ratio.get()).max(self.limits.floor.get()).min(absolute),
            _ => absolute,
        }
    }

    fn tick_errors(&mut self, tick: &Tick<'_>, counts: Counts) {
        let warm = tick.since_cut_over <= self.warm_up.errors;
        let (limit, absolute) = (self.error_limit(warm), self.absolute_limit());
        let min_events = f64::from(self.limits.min_events);
        let errors = &mut self.errors;
        errors.seen = true;
        errors.limit = Some(limit);
        errors.total = errors.total.plus(counts);
        if let Some(rate) = counts.rate() {
            if rate > limit {
                errors.run.extend(tick, counts.requests(), counts.bad());
            } else {
                errors.run = Run::default();
            }
        }
        errors.recent.push_back((tick.from, tick.to, counts));
        while errors.recent.front().is_some_and(|(_, to, _)| tick.to.since(*to) >= ABSOLUTE_WINDOW) {
            errors.recent.pop_front();
        }
        if errors.breached.is_some() {
            return;
        }
        if errors.run.long_enough(self.limits.ticks) && errors.run.bad >= min_events {
            errors.breached = Some(BreachedBy::Run);
            return;
        }
        let Some(begin) = errors.recent.front().map(|(from, _, _)| *from) else { return };
        let window = errors.recent.iter().fold(Counts::default(), |sum, (_, _, c)| sum.plus(*c));
        let over_long_enough = tick.to.since(begin) >= ABSOLUTE_WINDOW && errors.recent.len() >= 2;
        if over_long_enough && window.bad() >= min_events && window.rate().is_some_and(|rate| rate > absolute) {
            errors.breached = Some(BreachedBy::Window(begin, window));
        }
    }

    pub fn requests(&self) -> f64 {
        self.requests
    }

    /// `min_events` bad ones must be expected at `must_detect` times the baseline (or the floor, where
    /// the baseline is below it): five at 10 × 0.1 % take 500 requests.
    pub fn requests_needed(&self) -> f64 {
        let base = self.base_error_rate.unwrap_or(0.0).max(self.limits.floor.get());
        let shown = (base * self.limits.must_detect.get()).clamp(f64::MIN_POSITIVE, 1.0);
        f64::from(self.limits.min_events) / shown
    }

    pub fn any_above(&self) -> bool {
        self.errors.run.ticks > 0
            || self.latencies.iter().any(|l| l.run.ticks > 0)
            || self.customs.iter().any(|c| c.run.ticks > 0)
    }

    /// Whether this signal stood above its limit at the last tick.
    pub fn is_above(&self, signal: &Signal) -> bool {
        match signal {
            Signal::ErrorRate => self.errors.run.ticks > 0,
            Signal::Latency(q) => self.latencies.iter().any(|l| l.quantile == *q && l.run.ticks > 0),
            Signal::Custom(name) => self.customs.iter().any(|c| c.name == *name && c.run.ticks > 0),
            Signal::Traffic | Signal::Alive => false, // no limits of their own
        }
    }

    pub fn breached_since(&self) -> Option<Timestamp> {
        let errors = match self.errors.breached {
            Some(BreachedBy::Run) => self.errors.run.since,
            Some(BreachedBy::Window(since, _)) => Some(since),
            None => None,
        };
        let latencies = self.latencies.iter().filter(|l| l.breached).filter_map(|l| l.run.since);
        let customs = self.customs.iter().filter(|c| c.breached).filter_map(|c| c.run.since);
        errors.into_iter().chain(latencies).chain(customs).min()
    }

    pub fn evidence(&self) -> Vec<Evidence> {
        let mut all = vec![self.error_evidence()];
        all.extend(self.latencies.iter().map(|l| l.evidence(&self.limits)));
        for custom in &self.customs {
            let bound = self.limits.custom.iter().find(|l| l.name == custom.name).map(|l| l.bound);
            all.push(custom.evidence(bound, self.limits.ticks));
        }
        all
    }

    fn error_evidence(&self) -> Evidence {
        let e = &self.errors;
        let (value, requests, bad, since, remark) = match e.breached {
            Some(BreachedBy::Window(since, window)) => (
                window.rate(),
                window.requests(),
                window.bad(),
                Some(since),
                Some(format!("absolute limit over {ABSOLUTE_WINDOW}")),
            ),
            Some(BreachedBy::Run) => (e.run.rate(), e.run.requests, e.run.bad, e.run.since, None),
            None if e.run.ticks > 0 => (e.run.rate(), e.run.requests, e.run.bad, e.run.since, None),
            None => (e.total.rate(), e.total.requests(), e.total.bad(), None, None),
        };
        let limit = match e.breached {
            Some(BreachedBy::Window(..)) => Some(self.absolute_limit()),
            _ => e.limit,
        };
        let no_baseline = self.base_error_rate.is_none() && e.seen;
        Evidence {
            signal: Signal::ErrorRate,
            value,
            baseline: self.base_error_rate,
            limit,
            ratio: ratio(value, self.base_error_rate),
            requests,
            bad,
            since,
            ticks_above: e.run.ticks,
            ticks_needed: self.limits.ticks,
            state: match (e.breached, e.seen) {
                (Some(_), _) => SignalState::Breached,
                (None, false) => SignalState::Blind,
                (None, true) if e.run.ticks > 0 => SignalState::Above,
                (None, true) if e.total.requests() < self.requests_needed() => SignalState::Thin,
                (None, true) => SignalState::Fine,
            },
            remark: remark.or_else(|| no_baseline.then(|| "absolute limit only, no baseline".to_owned())),
            proof: None,
        }
    }
}

impl Latency {
    /// The lower of the limits that apply, in seconds.
    fn limit_s(&self) -> Option<f64> {
        match (self.relative_s, self.absolute_s) {
            (Some(a), Some(b)) => Some(a.min(b)),
            (a, b) => a.or(b),
        }
    }

    fn tick(&mut self, tick: &Tick<'_>, buckets: &Buckets, warm: bool, limits: &Limits) {
        // An app that changed its buckets starts the sum anew: two kinds of bounds cannot be added.
        self.total = Some(add(self.total.take(), buckets));
        let slow = self.limit_s().and_then(|limit_s| slower_than(buckets, limit_s));
        self.beyond_buckets = self.limit_s().is_some() && slow.is_none() && !buckets.bounds().is_empty();
        self.judged = !warm && slow.is_some();
        let Some(slow) = slow.filter(|_| !warm) else { return };
        if self.breached || buckets.total() <= 0.0 {
            return;
        }
        // "The quantile is above the limit" and "more than 1 - q are slower than the limit" are the same.
        if slow > (1.0 - self.quantile.q()) * buckets.total() {
            self.run.extend(tick, buckets.total(), slow);
            self.run_total = Some(add(self.run_total.take(), buckets));
            self.breached = self.run.long_enough(limits.ticks) && self.run.bad >= f64::from(limits.min_events);
        } else {
            self.run = Run::default();
            self.run_total = None;
        }
    }

    fn evidence(&self, limits: &Limits) -> Evidence {
        let shown = self.run_total.as_ref().or(self.total.as_ref());
        let value = shown.and_then(|b| quantile(b, self.quantile.q()));
        let requests = shown.map_or(0.0, Buckets::total);
        let beyond = value.is_some() && shown.is_some_and(|b| b.bounds().last().copied() == value);
        let remark = if self.beyond_buckets {
            Some("not judged: the limit is beyond the last bucket".to_owned())
        } else if beyond {
            Some("at least: beyond the last bucket".to_owned())
        } else if self.limit_s().is_none() && self.total.is_some() {
            Some("not judged, no baseline".to_owned())
        } else {
            None
        };
        Evidence {
            signal: Signal::Latency(self.quantile),
            value,
            baseline: self.base_s,
            limit: self.limit_s(),
            ratio: ratio(value, self.base_s),
            requests,
            bad: self.run.bad,
            since: self.run.since,
            ticks_above: self.run.ticks,
            ticks_needed: limits.ticks,
            state: if self.breached {
                SignalState::Breached
            } else if self.run.ticks > 0 {
                SignalState::Above
            } else if self.total.is_none() {
                SignalState::Blind
            } else if !self.judged {
                SignalState::NotJudged
            } else if requests * (1.0 - self.quantile.q()) < 1.0 {
                SignalState::Thin
            } else {
                SignalState::Fine
            },
            remark,
            proof: None,
        }
    }
}

impl Custom {
    fn tick(&mut self, tick: &Tick<'_>, value: Option<f64>, bound: crate::domain::policy::Bound, ticks: u32) {
        self.last = value;
        let Some(value) = value else { return };
        if bound.breached_by(value) {
            self.run.extend(tick, 1.0, 1.0);
            self.breached |= self.run.long_enough(ticks);
        } else if !self.breached {
            self.run = Run::default();
        }
    }

    fn evidence(&self, bound: Option<crate::domain::policy::Bound>, ticks: u32) -> Evidence {
        use crate::domain::policy::Bound;
        Evidence {
            signal: Signal::Custom(self.name.clone()),
            value: self.last,
            baseline: None,
            limit: bound.map(|b| match b {
                Bound::Above(limit) | Bound::Below(limit) => limit,
            }),
            ratio: None,
            requests: 0.0,
            bad: 0.0,
            since: self.run.since,
            ticks_above: self.run.ticks,
            ticks_needed: ticks,
            state: if self.breached {
                SignalState::Breached
            } else if self.run.ticks > 0 {
                SignalState::Above
            } else if self.last.is_none() {
                SignalState::Blind
            } else {
                SignalState::Fine
            },
            remark: bound.map(|b| format!("breached {b}")),
            proof: None,
        }
    }
}

fn add(sum: Option<Buckets>, more: &Buckets) -> Buckets {
    sum.and_then(|sum| sum.plus(more)).unwrap_or_else(|| more.clone())
}

fn ratio(value: Option<f64>, baseline: Option<f64>) -> Option<f64> {
    let (value, baseline) = value.zip(baseline)?;
    (baseline > 0.0).then(|| value / baseline)
}
