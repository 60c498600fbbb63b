//! One signal's e-process for "the bad share is at most p0": a mixture over alternatives, over the onset,
//! and over what the recorded normal may truly be.
//!
//! Each bet is the likelihood ratio of two negative binomials of a common shape, so that burstiness is
//! priced in. Ticks are gathered into blocks; a ceiling lets no block bring more than its part of what a
//! rollback needs, and the winsor lets a burst inside a block prove no more than the alternative explains.
//! Both only lower the evidence, so Ville's inequality holds: the chance of ever reaching `1/alpha`
//! without a breach is at most `alpha`. Formulas: the design's chapter on judgement, §3. Sources: Lindon &
//! Malek 2022; Howard et al. 2021; Shin, Ramdas & Rinaldo 2023.

use libm::{exp, log, log1p, sqrt};
use serde::{Deserialize, Serialize};

use super::normal::{MIDDLE, NULLS, Normal, weights, z};

/// Alternatives, as multiples of the null's rate, and their prior.
const RATIOS: [f64; 7] = [1.07, 1.25, 1.6, 2.2, 4.0, 10.0, 50.0];
const PRIOR: [f64; 7] = [0.08, 0.15, 0.20, 0.20, 0.17, 0.12, 0.08];

/// Prior mass of an onset in the warm-up, at its end (or at the switch, without one), and the scale in
/// seconds of the log-uniform rest.
const ONSET_WARM: f64 = 0.1;
const ONSET_NOW: f64 = 0.6;
const ONSET_SCALE_S: f64 = 60.0;

/// A burst counts up to so many standard deviations above what the alternative explains.
const WINSOR: f64 = 2.5;
/// So many ticks fewer than `min_ticks` the ceiling takes at least.
const SLACK: f64 = 0.8;
/// No exponent of a bet beyond this, and no evidence beyond e³⁰⁰: far past every decision, far from overflow.
const BET_MAX: f64 = 60.0;
const LN_E_MAX: f64 = 300.0;
/// No null above this share.
const P0_MAX: f64 = 0.95;

/// What is asked of one signal.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Terms {
    /// Chance of a false rollback per soak, all signals together.
    pub alpha: f64,
    /// This signal's part of it.
    pub weight: f64,
    /// Breaching multiple of the normal.
    pub k: f64,
    /// A share at or below this is by definition no breach.
    pub floor: f64,
    pub min_ticks: f64,
    /// The longest possible soak.
    pub horizon_s: f64,
    pub warmup_s: f64,
    /// The null during the warm-up is at least this.
    pub warmup_floor: f64,
    pub block_s: f64,
    /// In the warm-up latency says nothing at all.
    pub latency: bool,
}

/// State and all: a restart must not restart alpha.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct EProcess {
    terms: Terms,
    normal: Normal,
    /// The nulls of the fast phase.
    p0: [f64; NULLS],
    /// ln E at which this signal alone rolls back.
    need: f64,
    /// Per null and alternative: the bets' wealth at the last closed block, and with the open one.
    closed: [[f64; 7]; NULLS],
    current: [[f64; 7]; NULLS],
    ln_closed: [f64; NULLS],
    ln_current: [f64; NULLS],
    block: Option<Block>,
    /// End of the last tick, seconds after the cut-over.
    t: f64,
    /// Onset mass that is placed already.
    used: f64,
    warm_up_over: bool,
    n: f64,
    x: f64,
    ln_e: f64,
}

/// The block that is being gathered; each tick evaluates it anew from its start.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
struct Block {
    start: f64,
    warm: bool,
    n: f64,
    x: f64,
    pi: f64,
}

impl EProcess {
    pub fn new(normal: Normal, terms: Terms) -> Self {
        let p0 = std::array::from_fn(|b| null(&normal, &terms, 1.0, b));
        Self {
            need: log(1.0 / (terms.alpha * terms.weight)),
            p0,
            terms,
            normal,
            closed: [[0.0; 7]; NULLS],
            current: [[0.0; 7]; NULLS],
            ln_closed: [0.0; NULLS],
            ln_current: [0.0; NULLS],
            block: None,
            t: 0.0,
            used: 0.0,
            warm_up_over: false,
            n: 0.0,
            x: 0.0,
            ln_e: 0.0,
        }
    }

    /// From here on the nulls are those of the long phase: the normal's worst hour.
    pub fn enter_long_phase(&mut self) {
        self.p0 = std::array::from_fn(|b| null(&self.normal, &self.terms, self.normal.env, b));
    }

    /// One tick that ends `t` seconds after the cut-over: `n` requests and `x` bad ones since the end of
    /// the last good tick. A tick without length says nothing. Returns ln E.
    pub fn tick(&mut self, t: f64, n: f64, x: f64) -> f64 {
        if t <= self.t {
            return self.ln_e;
        }
        let warm = t <= self.terms.warmup_s;
        if self.block.is_some_and(|block| block.warm) && !warm {
            self.close();
        }
        let x = x.clamp(0.0, n);
        self.n += n;
        self.x += x;
        let (n, x) = if warm && self.terms.latency { (0.0, 0.0) } else { (n, x) };
        let mut block = match self.block {
            Some(block) => block,
            None => self.open(t, warm),
        };
        self.t = t;
        block.n += n;
        block.x += x;
        self.block = Some(block);
        self.evaluate(block);
        if t - block.start >= self.terms.block_s - 1e-9 {
            self.close();
        }
        self.ln_e
    }

    fn open(&mut self, t: f64, warm: bool) -> Block {
        let (start, h, warmup) = (self.t, self.terms.horizon_s, self.terms.warmup_s);
        let end = t.max(start + self.terms.block_s);
        let pi = if warm {
            let at_once = if start == 0.0 { 0.5 } else { 0.0 };
            ONSET_WARM * (0.5 * (end.min(warmup) - start) / warmup + at_once)
        } else if !self.warm_up_over {
            self.warm_up_over = true;
            ONSET_NOW + ONSET_WARM - self.used
        } else {
            let place = |s: f64| log((s.min(h) + ONSET_SCALE_S) / ONSET_SCALE_S);
            (1.0 - ONSET_NOW - ONSET_WARM) * (place(end) - place(start)) / place(h)
        };
        self.used += pi;
        Block { start, warm, n: 0.0, x: 0.0, pi }
    }

    fn close(&mut self) {
        self.closed = self.current;
        self.ln_closed = self.ln_current;
        self.block = None;
    }

    fn evaluate(&mut self, block: Block) {
        let length_s = self.t - block.start;
        let terms = &self.terms;
        // Twice the traffic may bring its bursts twice as large.
        let busier = if self.normal.rate > 0.0 { (block.n / length_s / self.normal.rate).max(1.0) } else { 1.0 };
        let g = (self.normal.phi - 1.0) * terms.k * busier;
        let f = 1.0 + g;
        let lenient = |p0: f64| if block.warm { p0.max(terms.warmup_floor) } else { p0 };
        let shown = lenient(self.p0[MIDDLE]);
        let bets: [(f64, f64); 7] = std::array::from_fn(|i| {
            let r = RATIOS[i];
            let gain = log(r * f / (1.0 + r * g));
            let price = if g > 1e-9 { log1p(g * (r - 1.0) / f) / g } else { r - 1.0 };
            let mean = r * block.n * shown;
            let counted = block.x.min(mean + WINSOR * sqrt(mean * f) + WINSOR);
            (counted * gain, block.n * price)
        });
        let step = self.need / (terms.min_ticks - SLACK) * (length_s / terms.block_s).min(1.0) + 1e-6;
        let unplaced = (1.0 - self.used).max(0.0);
        let mut inverse = 0.0;
        for (b, weight) in weights().into_iter().enumerate() {
            let p0 = lenient(self.p0[b]);
            let top = exp((self.ln_closed[b].max(0.0) + step).min(LN_E_MAX));
            let mut all = 0.0;
            for i in 0..RATIOS.len() {
                let grown = (self.closed[b][i] + block.pi) * exp((bets[i].0 - p0 * bets[i].1).min(BET_MAX));
                self.current[b][i] = grown.min(top / PRIOR[i]);
                all += PRIOR[i] * self.current[b][i];
            }
            if all > top {
                self.current[b].iter_mut().for_each(|s| *s *= top / all);
                all = top;
            }
            let e = (all + unplaced).max(1e-300);
            inverse += weight / e;
            self.ln_current[b] = log(e);
        }
        self.ln_e = -log(inverse);
    }

    /// ln E: evidence against "no breach"; 0 at the start.
    pub fn ln_e(&self) -> f64 {
        self.ln_e
    }

    /// ln E at which this signal alone would roll back.
    pub fn need(&self) -> f64 {
        self.need
    }

    /// The limit that people are shown: the middle null.
    pub fn limit(&self) -> f64 {
        self.p0[MIDDLE]
    }

    pub fn normal(&self) -> &Normal {
        &self.normal
    }

    pub fn terms(&self) -> &Terms {
        &self.terms
    }

    /// Requests and bad ones since the cut-over, the warm-up included.
    pub fn counts(&self) -> (f64, f64) {
        (self.n, self.x)
    }

    /// The nulls, for the vectors.
    pub fn nulls(&self) -> &[f64; NULLS] {
        &self.p0
    }
}

fn null(normal: &Normal, terms: &Terms, env: f64, b: usize) -> f64 {
    (terms.k * env * normal.p_at(z(b))).max(terms.floor).min(P0_MAX)
}

/// ln of the weighted mean of e-values: valid under any dependence between the signals. `(weight, ln E)`.
pub fn combine(signals: &[(f64, f64)]) -> f64 {
    let most = signals.iter().map(|(_, l)| *l).fold(f64::NEG_INFINITY, f64::max);
    if most == f64::NEG_INFINITY {
        return most;
    }
    most + log(signals.iter().map(|(w, l)| w * exp(l - most)).sum::<f64>())
}
