//! One signal under the evidence rule: its e-process, and what people are shown of it.

use libm::{exp, log};
use serde::{Deserialize, Serialize};

use super::Scale;
use super::detect::ratio_interval;
use super::eprocess::{EProcess, Terms};
use super::normal::{NULLS, Normal};
use super::quantile::quantile;
use super::tail::{ScaledTail, beyond};
use crate::domain::counts::{Buckets, Counts};
use crate::domain::signal::{Quantile, Signal};
use crate::domain::time::Timestamp;
use crate::domain::verdict::{Evidence, Proof, SignalState};

/// At the end of a soak evidence of 1 in 10 is too much to pass and too little to act on.
pub(super) const UNEASY: f64 = 10.0;

/// So many last ticks are shown as above or below the limit.
const ABOVE_SHOWN: usize = 3;

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(super) struct Weighed {
    pub signal: Signal,
    /// This signal's part of alpha.
    pub weight: f64,
    pub process: EProcess,
    /// Breaching multiple of the normal.
    ratio: f64,
    /// What is counted over, for latency.
    slow: Option<Slow>,
    /// Latency as it was, for people.
    seen: Option<Buckets>,
    /// The last ticks, newest last: whether each stood above the limit.
    above: Vec<bool>,
    /// Since when the evidence has stood above even.
    pub since: Option<Timestamp>,
    said: bool,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
struct Slow {
    tail: ScaledTail,
    bounds: Vec<f64>,
    base_s: Option<f64>,
}

impl Weighed {
    pub fn errors(normal: Normal, terms: Terms) -> Self {
        Self::new(Signal::ErrorRate, None, terms.k, normal, terms)
    }

    /// `normal` is the recorded histogram, `k` the breaching multiple: it is in the bound already, so the
    /// terms have none.
    pub fn latency(q: Quantile, normal: &Buckets, tail: ScaledTail, k: f64, spread: (f64, f64), terms: Terms) -> Self {
        let (phi, rate) = spread;
        let n = normal.total();
        let slow = Slow { tail, bounds: normal.bounds().to_vec(), base_s: quantile(normal, q.q()) };
        let counts = Normal { n, x: n * tail.tail, phi, rate, env: 1.0 };
        Self::new(Signal::Latency(q), Some(slow), k, counts, terms)
    }

    fn new(signal: Signal, slow: Option<Slow>, ratio: f64, normal: Normal, terms: Terms) -> Self {
        Self {
            signal,
            weight: terms.weight,
            process: EProcess::new(normal, terms),
            ratio,
            slow,
            seen: None,
            above: Vec::new(),
            since: None,
            said: false,
        }
    }

    /// Requests and bad ones of a tick; `None` where it says nothing of this signal.
    fn counted(&self, counts: Option<Counts>, latency: Option<&Buckets>) -> Option<(f64, f64)> {
        let Some(slow) = &self.slow else { return counts.map(|c| (c.requests(), c.bad())) };
        // An app that changed its buckets cannot be compared with what was.
        let buckets = latency.filter(|b| b.bounds() == slow.bounds.as_slice())?;
        Some((buckets.total(), beyond(buckets, slow.tail.index)))
    }

    /// One tick from `from`, ending `t` seconds after the cut-over.
    pub fn tick(&mut self, from: Timestamp, t: f64, counts: Option<Counts>, latency: Option<&Buckets>) {
        let Some((n, x)) = self.counted(counts, latency) else { return };
        self.said = true;
        if let Some(buckets) = latency {
            self.seen = Some(match self.seen.take() {
                Some(sum) => sum.plus(buckets).unwrap_or_else(|| buckets.clone()),
                None => buckets.clone(),
            });
        }
        let was = self.process.ln_e();
        let now = self.process.tick(t, n, x);
        if n > 0.0 {
            self.above.push(x / n > self.process.limit());
            if self.above.len() > ABOVE_SHOWN {
                self.above.remove(0);
            }
        }
        if now <= 0.0 {
            self.since = None;
        } else if was <= 0.0 || self.since.is_none() {
            self.since = Some(from);
        }
    }

    pub fn scale(&self) -> Scale {
        let (normal, terms, nulls) = (self.process.normal(), self.process.terms(), self.process.nulls());
        Scale {
            signal: self.signal.clone(),
            weight: self.weight,
            requests: normal.n,
            bad: normal.x,
            burstiness: normal.phi,
            env: normal.env,
            k: terms.k,
            floor: terms.floor,
            limit: self.process.limit(),
            limits: (nulls[0], nulls[NULLS - 1]),
            bound_s: self.slow.as_ref().map(|slow| slow.tail.bound_s),
        }
    }

    /// `needed`: a rollback needs evidence of one in so many.
    pub fn evidence(&self, breached: bool, needed: f64) -> Evidence {
        let (n, x) = self.process.counts();
        let normal = self.process.normal();
        let (value, baseline, limit) = match (&self.signal, &self.slow) {
            (Signal::Latency(q), Some(slow)) => (
                self.seen.as_ref().and_then(|b| quantile(b, q.q())),
                slow.base_s,
                slow.tail.quantile_upper_s * self.ratio,
            ),
            _ => ((n > 0.0).then(|| x / n), (normal.n > 0.0).then(|| normal.x / normal.n), self.process.limit()),
        };
        let interval = (self.slow.is_none() && n > 0.0)
            .then(|| ratio_interval(normal, self.ratio, self.process.limit(), n, x, 0.05))
            .filter(|(low, high)| low.is_finite() && high.is_finite());
        let ln_e = self.process.ln_e();
        Evidence {
            signal: self.signal.clone(),
            value,
            baseline,
            limit: Some(limit),
            ratio: match (value, baseline) {
                (Some(v), Some(b)) if b > 0.0 => Some(v / b),
                _ => None,
            },
            requests: n,
            bad: x,
            since: self.since,
            ticks_above: u32::try_from(self.above.iter().filter(|a| **a).count()).unwrap_or(0),
            ticks_needed: u32::try_from(ABOVE_SHOWN).unwrap_or(0),
            state: if breached {
                SignalState::Breached
            } else if !self.said {
                SignalState::Blind
            } else if ln_e >= log(UNEASY) {
                SignalState::Above
            } else if n * self.process.limit() < 1.0 {
                SignalState::Thin
            } else {
                SignalState::Fine
            },
            remark: self
                .slow
                .as_ref()
                .filter(|slow| slow.tail.beyond)
                .map(|_| "the limit is beyond the last bucket: only larger regressions can be seen".to_owned()),
            proof: Some(Proof { one_in: exp(ln_e.clamp(0.0, 300.0)), needed, ln_e, interval, burstiness: normal.phi }),
        }
    }
}
