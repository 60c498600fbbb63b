//! The evidence rule: one e-process for each signal, a weighted mean of them, and the absolute limits
//! beside it.
//!
//! Ticks that come before the baseline was chosen or the cut-over confirmed are kept and judged then, so
//! that nothing of the soak is lost to the order of answers.

use libm::log;
use serde::{Deserialize, Serialize};

use super::detect::{detectable, requests_to_show};
use super::eprocess::{Ceiling, Terms, combine};
use super::normal::Normal;
use super::tail::{scaled_tail, strict_tail};
use super::threshold::Threshold;
use super::weighed::{UNEASY, Weighed};
use super::{Scale, Tick};
use crate::domain::baseline::Baseline;
use crate::domain::counts::{Buckets, Counts};
use crate::domain::policy::{Limits, Phases, Share, TailNull, WarmUp};
use crate::domain::signal::Signal;
use crate::domain::time::{Span, Timestamp};
use crate::domain::verdict::{Evidence, SignalState};

/// Errors in the warm-up are judged against this share: a cold start is no outage.
const WARMUP_FLOOR: f64 = 0.25;

/// A tail at or below this part of `1 - q` is by definition no breach.
const TAIL_FLOOR: f64 = 0.1;

/// Parts of alpha; those of the signals that are there are scaled to one.
const ERRORS_WEIGHT: f64 = 0.5;
const LATENCY_WEIGHT: f64 = 0.25;

/// Ticks kept while the baseline or the cut-over is not known: a minute of the shortest ticks. Beyond it
/// the oldest two become one, which loses nothing but the time between them.
const PENDING_MAX: usize = 64;

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Weighing {
    limits: Limits,
    warm_up: WarmUp,
    phases: Phases,
    cut_over: Option<Timestamp>,
    judged: Judged,
    /// Absolute limits: those that were set, and without a usable baseline the one on errors.
    absolute: Threshold,
    pending: Vec<Pending>,
    long: bool,
    requests: f64,
    breached_since: Option<Timestamp>,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Judged {
    /// No baseline yet.
    Waiting,
    /// There is none to judge by: only absolute limits hold.
    Absolute,
    By(Vec<Weighed>),
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
struct Pending {
    from: Timestamp,
    to: Timestamp,
    counts: Option<Counts>,
    latency: Option<Buckets>,
}

impl Weighing {
    pub fn new(limits: &Limits, warm_up: WarmUp, phases: Phases) -> Self {
        Self {
            absolute: absolute(limits, warm_up, limits.error_rate),
            limits: limits.clone(),
            warm_up,
            phases,
            cut_over: None,
            judged: Judged::Waiting,
            pending: Vec::new(),
            long: false,
            requests: 0.0,
            breached_since: None,
        }
    }

    pub fn with_baseline(&mut self, baseline: &Baseline) {
        if !baseline.usable() || baseline.counts.requests() <= 0.0 {
            return self.without_baseline();
        }
        self.judged = Judged::By(self.signals(baseline));
        self.catch_up();
    }

    /// There is no baseline, and there will be none.
    pub fn without_baseline(&mut self) {
        self.judged = Judged::Absolute;
        // What was kept is not judged twice: the absolute limits have seen every tick.
        if self.limits.error_rate.is_none() {
            self.absolute = absolute(&self.limits, self.warm_up, Some(self.limits.error_rate_or_default()));
            let kept = std::mem::take(&mut self.pending);
            for p in &kept {
                self.absolute.tick(&p.as_tick(self.cut_over));
            }
        }
        self.pending.clear();
        self.note_breach();
    }

    /// The cut-over is confirmed; on the clock of the ticks.
    pub fn begin(&mut self, cut_over: Timestamp) {
        self.cut_over = Some(cut_over);
        self.catch_up();
    }

    fn signals(&self, baseline: &Baseline) -> Vec<Weighed> {
        let limits = &self.limits;
        let (ratio, rate) = (limits.ratio.get(), baseline.rate());
        let terms = |weight: f64, k: f64, floor: f64, latency: bool| Terms {
            alpha: limits.alpha.get(),
            weight,
            k,
            floor,
            min_ticks: f64::from(limits.ticks),
            horizon_s: self.phases.whole().as_secs_f64(),
            warmup_s: if latency { self.warm_up.latency } else { self.warm_up.errors }.as_secs_f64(),
            warmup_floor: WARMUP_FLOOR,
            block_s: limits.block.as_secs_f64(),
            ceiling: Ceiling::Sliding,
            latency,
        };
        let null = match limits.tail {
            TailNull::Scaled => scaled_tail,
            TailNull::Strict => strict_tail,
        };
        let mut tails = Vec::new();
        if let Some(buckets) = baseline.latency.as_ref().filter(|b| b.total() > 0.0) {
            tails.extend(limits.quantiles.iter().filter_map(|q| {
                let phi = baseline.spread.latency(*q);
                Some((*q, buckets, null(buckets, q.q(), ratio, phi)?, phi))
            }));
        }
        let whole = ERRORS_WEIGHT + LATENCY_WEIGHT * tails.len() as f64;
        let normal = Normal {
            n: baseline.counts.requests(),
            x: baseline.counts.bad(),
            phi: baseline.spread.errors,
            rate,
            env: baseline.spread.env,
        };
        let errors = Weighed::errors(normal, terms(ERRORS_WEIGHT / whole, ratio, limits.floor.get(), false));
        let latency = tails.into_iter().map(|(q, buckets, tail, phi)| {
            let terms = terms(LATENCY_WEIGHT / whole, 1.0, TAIL_FLOOR * (1.0 - q.q()), true);
            Weighed::latency(q, buckets, tail, ratio, (phi, rate), terms)
        });
        std::iter::once(errors).chain(latency).collect()
    }

    pub fn tick(&mut self, tick: &Tick<'_>) {
        if let Some(counts) = tick.counts {
            self.requests += counts.requests();
        }
        self.absolute.tick(tick);
        if self.judged != Judged::Absolute {
            self.pending.push(Pending {
                from: tick.from,
                to: tick.to,
                counts: tick.counts,
                latency: tick.latency.cloned(),
            });
            self.catch_up();
            if self.pending.len() > PENDING_MAX {
                let second = self.pending.remove(1);
                self.pending[0].take_in(&second);
            }
        }
        self.note_breach();
    }

    /// Judges what was kept, once it is known by what and since when.
    fn catch_up(&mut self) {
        let (Some(cut_over), Judged::By(_)) = (self.cut_over, &self.judged) else { return };
        let kept = std::mem::take(&mut self.pending);
        // What came before the cut-over belongs to the first tick after it.
        let mut before: Option<Pending> = None;
        for mut p in kept {
            if let Some(mut earlier) = before.take() {
                earlier.take_in(&p);
                p = earlier;
            }
            if p.to <= cut_over {
                before = Some(p);
                continue;
            }
            self.judge(&p, cut_over);
        }
        self.pending.extend(before);
        self.note_breach();
    }

    fn judge(&mut self, p: &Pending, cut_over: Timestamp) {
        let t = p.to.since(cut_over).as_secs_f64();
        let enters_long = !self.long && t > self.phases.fast.as_secs_f64();
        self.long |= enters_long;
        let Judged::By(signals) = &mut self.judged else { return };
        for s in signals {
            if enters_long {
                s.process.enter_long_phase();
            }
            s.tick(p.from, t, p.counts, p.latency.as_ref());
        }
    }

    fn note_breach(&mut self) {
        if self.breached_since.is_some() {
            return;
        }
        let by_evidence = self.by_evidence();
        self.breached_since = match (by_evidence, self.absolute.breached_since()) {
            (Some(a), Some(b)) => Some(a.min(b)),
            (a, b) => a.or(b),
        };
    }

    /// Since when, if the evidence of all signals together is enough.
    fn by_evidence(&self) -> Option<Timestamp> {
        let Judged::By(signals) = &self.judged else { return None };
        let bad = signals.iter().map(|s| s.process.counts().1).fold(0.0, f64::max);
        let enough = self.ln_e()? >= log(1.0 / self.limits.alpha.get()) && bad >= f64::from(self.limits.min_events);
        if !enough {
            return None;
        }
        self.strongest().and_then(|s| s.since).or(self.cut_over)
    }

    fn strongest(&self) -> Option<&Weighed> {
        let Judged::By(signals) = &self.judged else { return None };
        let share = |s: &Weighed| log(s.weight) + s.process.ln_e();
        signals.iter().max_by(|a, b| share(a).total_cmp(&share(b)))
    }

    /// ln of the combined evidence; `None` while nothing is judged by a baseline.
    pub fn ln_e(&self) -> Option<f64> {
        let Judged::By(signals) = &self.judged else { return None };
        Some(combine(&signals.iter().map(|s| (s.weight, s.process.ln_e())).collect::<Vec<_>>()))
    }

    pub fn breached_since(&self) -> Option<Timestamp> {
        self.breached_since
    }

    /// Too much to pass, too little to act on.
    pub fn uneasy(&self) -> bool {
        self.absolute.any_above() || self.ln_e().is_some_and(|l| l >= log(UNEASY))
    }

    pub fn requests(&self) -> f64 {
        self.requests
    }

    /// The errors' process; `None` while nothing is judged by a baseline.
    fn errors(&self) -> Option<&Weighed> {
        let Judged::By(signals) = &self.judged else { return None };
        signals.iter().find(|s| s.signal == Signal::ErrorRate)
    }

    /// Requests that could have shown an error rate of `must_detect` times the normal.
    pub fn requests_needed(&self) -> f64 {
        let Some(errors) = self.errors() else { return self.absolute.requests_needed() };
        let (p0, normal) = (errors.process.limit(), errors.process.normal());
        let r = (self.limits.must_detect.get() * self.base(normal) / p0).max(1.07).min(1.0 / p0);
        requests_to_show(r, p0, normal.phi, 1.0 / errors.weight, self.limits.alpha.get())
    }

    /// The error rate that multiples are of: a normal below the floor is judged by the floor.
    fn base(&self, normal: &Normal) -> f64 {
        normal.p_at(0.0).max(self.limits.floor.get() / self.limits.ratio.get())
    }

    /// The smallest multiple of the normal that `requests` could show, in errors.
    pub fn detectable(&self, requests: f64) -> Option<f64> {
        let errors = self.errors()?;
        let (p0, normal) = (errors.process.limit(), errors.process.normal());
        let r = detectable(requests, p0, normal.phi, 1.0 / errors.weight, self.limits.alpha.get())?;
        Some(r * p0 / self.base(normal))
    }

    /// The error rate that such a multiple is, at most 1.
    pub fn share_at(&self, multiple: f64) -> Option<f64> {
        Some((multiple * self.base(self.errors()?.process.normal())).min(1.0))
    }

    pub fn scales(&self) -> Vec<Scale> {
        let Judged::By(signals) = &self.judged else { return Vec::new() };
        signals.iter().map(Weighed::scale).collect()
    }

    pub fn evidence(&self) -> Vec<Evidence> {
        let plain = self.absolute.evidence();
        let Judged::By(signals) = &self.judged else { return plain };
        let fired = self.by_evidence().is_some();
        let strongest = self.strongest().map(|s| s.signal.clone());
        let needed = 1.0 / self.limits.alpha.get();
        let broke = |s: &Weighed| strongest.as_ref() == Some(&s.signal) || s.process.ln_e() >= log(needed);
        let mut all: Vec<Evidence> = signals.iter().map(|s| s.evidence(fired && broke(s), needed)).collect();
        // An absolute limit that broke (or a signal that only has one) is shown in its own words.
        for e in plain {
            match all.iter_mut().find(|own| own.signal == e.signal) {
                Some(own) if e.state == SignalState::Breached && own.state != SignalState::Breached => *own = e,
                Some(_) => {}
                None => all.push(e),
            }
        }
        all
    }
}

impl Pending {
    fn take_in(&mut self, later: &Pending) {
        self.to = later.to;
        self.counts = match (self.counts, later.counts) {
            (Some(a), Some(b)) => Some(a.plus(b)),
            (a, b) => a.or(b),
        };
        self.latency = match (self.latency.take(), &later.latency) {
            (Some(a), Some(b)) => Some(a.plus(b).unwrap_or_else(|| b.clone())),
            (a, b) => a.or_else(|| b.clone()),
        };
    }

    fn as_tick(&self, cut_over: Option<Timestamp>) -> Tick<'_> {
        Tick {
            from: self.from,
            to: self.to,
            since_cut_over: cut_over.map_or(Span::ZERO, |at| self.to.since(at)),
            counts: self.counts,
            latency: self.latency.as_ref(),
            custom: &[],
        }
    }
}

/// The plain rule with nothing but absolute limits; without one on errors, none of theirs breaks.
fn absolute(limits: &Limits, warm_up: WarmUp, error_rate: Option<Share>) -> Threshold {
    let never = Share::try_new(1.0).ok();
    Threshold::new(Limits { error_rate: error_rate.or(never), quantiles: Vec::new(), ..limits.clone() }, warm_up)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::domain::baseline::{Provenance, Quality, Spread};
    use crate::domain::policy::{Alpha, Ratio};
    use crate::domain::signal::Quantile;
    use crate::domain::switch::Slot;

    const BEGAN: Timestamp = Timestamp::from_millis(1_795_269_600_000);
    const BOUNDS: [f64; 3] = [0.05, 0.1, 0.25];

    fn weighing() -> Weighing {
        let limits = Limits {
            ratio: Ratio::try_new(1.5).unwrap(),
            floor: Share::try_new(0.001).unwrap(),
            error_rate: None,
            latency_s: Vec::new(),
            quantiles: vec![Quantile::P95, Quantile::P99],
            tail: TailNull::Scaled,
            ticks: 3,
            alpha: Alpha::try_new(0.001).unwrap(),
            block: Span::from_secs(5),
            min_events: 5,
            must_detect: Ratio::try_new(10.0).unwrap(),
            custom: Vec::new(),
        };
        let warm_up = WarmUp { errors: Span::from_secs(30), latency: Span::from_secs(60) };
        let phases = Phases { fast: Span::from_mins(30), long: Span::ZERO };
        let baseline = Baseline {
            counts: Counts::try_new(360_000.0, 360.0).unwrap(),
            latency: Buckets::try_new(BOUNDS.to_vec(), vec![330_000.0, 345_000.0, 358_000.0], 360_000.0).ok(),
            covered: Span::from_mins(60),
            cells: 240,
            spread: Spread::default(),
            peak_rate: 120.0,
            provenance: Provenance {
                from: BEGAN - Span::from_mins(60),
                to: BEGAN,
                slot: Slot::try_new("blue").unwrap(),
                version: None,
                previous_release_used: false,
                pinned: false,
                excluded: Vec::new(),
            },
            quality: Quality::Good,
        };
        let mut rule = Weighing::new(&limits, warm_up, phases);
        rule.with_baseline(&baseline);
        rule.begin(BEGAN);
        rule
    }

    fn tick(rule: &mut Weighing, from_s: u64, to_s: u64, counted: Option<(f64, f64, f64)>) {
        let at = |s| BEGAN + Span::from_secs(s);
        let latency = counted
            .and_then(|(n, _, slow)| Buckets::try_new(BOUNDS.to_vec(), vec![n - slow, n - slow, n - slow], n).ok());
        rule.tick(&Tick {
            from: at(from_s),
            to: at(to_s),
            since_cut_over: Span::from_secs(to_s),
            counts: counted.and_then(|(n, x, _)| Counts::try_new(n, x).ok()),
            latency: latency.as_ref(),
            custom: &[],
        });
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 60, failure_persistence: None, ..ProptestConfig::default() })]

        /// Absent is not zero, and not evidence either: ticks without a reading between the good ones change
        /// nothing, to the last bit.
        #[test]
        fn an_absent_tick_changes_nothing(
            ticks in prop::collection::vec((1u64..40, 0u32..4000, 0.0..0.3f64, 0.0..0.5f64, any::<bool>()), 1..40),
        ) {
            let (mut with, mut without) = (weighing(), weighing());
            let mut t = 0;
            for (s, n, bad, slow, gap) in ticks {
                let n = f64::from(n);
                let counted = Some((n, (n * bad * bad).floor(), (n * slow * slow).floor()));
                if gap {
                    tick(&mut with, t, t + 1, None);
                    prop_assert_eq!(with.ln_e(), without.ln_e());
                }
                tick(&mut with, t, t + s, counted);
                tick(&mut without, t, t + s, counted);
                t += s;
                prop_assert_eq!(with.ln_e().map(f64::to_bits), without.ln_e().map(f64::to_bits));
                prop_assert_eq!(with.breached_since(), without.breached_since());
            }
        }
    }

    /// A baseline or a cut-over that comes late judges what was kept until then, as if it had been there.
    #[test]
    fn what_comes_late_judges_what_was_kept() {
        let (mut early, mut late) = (weighing(), weighing());
        late.judged = Judged::Waiting;
        let baseline = early.clone();
        for i in 0..10 {
            tick(&mut early, i * 15, (i + 1) * 15, Some((1500.0, 40.0, 3.0)));
            tick(&mut late, i * 15, (i + 1) * 15, Some((1500.0, 40.0, 3.0)));
        }
        assert_eq!((late.ln_e(), late.breached_since()), (None, None));
        late.judged = baseline.judged;
        late.catch_up();
        assert_eq!(early.ln_e(), late.ln_e());
        assert!(late.breached_since().is_some() && early.breached_since() == late.breached_since());
    }
}
