//! Made traffic: requests and bad ones, tick by tick, from a seed.
//!
//! The same seed gives the same traffic on every machine: ChaCha8, and distributions that draw from it.

use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;
use rand_distr::{Binomial, Distribution, Gamma, Normal as Gauss, Poisson};

use crate::domain::counts::Buckets;

/// How bad requests scatter around their mean.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Scatter {
    Poisson,
    /// A gamma-distributed rate for each tick: the index of dispersion of 15 s ticks is `phi`.
    Gamma {
        phi: f64,
    },
    /// A rate that wanders: AR(1) of its logarithm, with this standard deviation and correlation per 15 s.
    Wandering {
        sd: f64,
        rho: f64,
    },
}

/// What happens beside the steady rate.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Event {
    /// The share of errors is multiplied from `from_s` on.
    Regression { ratio: f64, from_s: f64 },
    /// This share of all requests fails in `from_s..to_s`.
    Spike { share: f64, from_s: f64, to_s: f64 },
    /// Blips of `length_s` with this share of errors, so many an hour.
    Blips { share: f64, length_s: f64, per_hour: f64 },
    /// Latency is multiplied from the switch on.
    Slower { ratio: f64 },
    /// From the switch on this share of the requests takes so many times as long.
    Tail { share: f64, ratio: f64 },
    /// A pause of the collector: one request in fifty is slow for a second, twice a minute.
    Pauses,
    /// The first minute is slow: caches are cold.
    ColdStart { ratio: f64, length_s: f64 },
    /// The rate of requests follows the day, by this much either way, and errors with it by half of that.
    Diurnal { amplitude: f64 },
}

/// One service's traffic.
#[derive(Debug, Clone, PartialEq)]
pub struct Traffic {
    /// Requests per second.
    pub rps: f64,
    /// Share of bad ones.
    pub errors: f64,
    pub scatter: Scatter,
    pub events: Vec<Event>,
    /// Whether there is a histogram besides.
    pub latency: bool,
}

impl Traffic {
    /// Poisson traffic without events.
    pub fn steady(rps: f64, errors: f64) -> Traffic {
        Traffic { rps, errors, scatter: Scatter::Poisson, events: Vec::new(), latency: false }
    }

    pub fn with(mut self, event: Event) -> Traffic {
        self.events.push(event);
        self
    }
}

/// Counts of one tick.
#[derive(Debug, Clone, PartialEq)]
pub struct Counted {
    pub requests: f64,
    pub bad: f64,
    pub latency: Option<Buckets>,
}

impl Counted {
    pub fn plus(&self, later: &Counted) -> Counted {
        let latency = match (&self.latency, &later.latency) {
            (Some(a), Some(b)) => a.plus(b),
            (Some(_) | None, _) => None,
        };
        Counted { requests: self.requests + later.requests, bad: self.bad + later.bad, latency }
    }
}

/// Classic buckets as client libraries have them, in seconds.
const BOUNDS: [f64; 11] = [0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0];
/// Latency is lognormal: median 40 ms, p99 about 160 ms.
const LATENCY_MU: f64 = -3.2188758;
const LATENCY_SIGMA: f64 = 0.6;

/// A stream of ticks. Time runs in seconds from the switch; what was before it is negative.
pub struct Stream<'a> {
    traffic: &'a Traffic,
    rng: ChaCha8Rng,
    wander: f64,
    /// Beginnings of blips.
    blips: Vec<f64>,
    after: bool,
}

impl<'a> Stream<'a> {
    /// `after`: whether the events happen (the soak) or not (the recorded normal; a day's wave always is).
    pub fn new(traffic: &'a Traffic, seed: u64, part: u64, after: bool, horizon_s: f64) -> Self {
        let mut rng = ChaCha8Rng::seed_from_u64(seed);
        rng.set_stream(part);
        let mut blips = Vec::new();
        if after {
            for event in &traffic.events {
                if let Event::Blips { per_hour, .. } = event {
                    let n = poisson(&mut rng, per_hour * horizon_s / 3600.0);
                    for _ in 0..n as u64 {
                        blips.push(rng.random_range(0.0..horizon_s.max(1.0)));
                    }
                }
            }
        }
        let mut stream = Self { traffic, rng, wander: 0.0, blips, after };
        if let Scatter::Wandering { sd, .. } = traffic.scatter {
            stream.wander = sd * stream.gauss();
        }
        stream
    }

    fn gauss(&mut self) -> f64 {
        Gauss::new(0.0, 1.0).map_or(0.0, |g| g.sample(&mut self.rng))
    }

    /// The counts of `from_s..to_s`.
    pub fn tick(&mut self, from_s: f64, to_s: f64) -> Counted {
        let length_s = to_s - from_s;
        let middle = 0.5 * (from_s + to_s);
        let mut wave = 1.0;
        let mut errors = self.traffic.errors;
        let mut share_of_all: f64 = 0.0;
        for event in &self.traffic.events {
            let overlap = |a: f64, b: f64| (to_s.min(b) - from_s.max(a)).max(0.0) / length_s;
            match *event {
                Event::Diurnal { amplitude } => {
                    let phase = (middle / 86_400.0 * std::f64::consts::TAU).sin();
                    wave = 1.0 + amplitude * phase;
                    errors *= 1.0 + 0.5 * amplitude * phase;
                }
                _ if !self.after => {}
                Event::Regression { ratio, from_s: begin } => {
                    errors *= 1.0 + (ratio - 1.0) * overlap(begin, f64::INFINITY);
                }
                Event::Spike { share, from_s: a, to_s: b } => {
                    share_of_all = share_of_all.max(share * overlap(a, b));
                }
                Event::Blips { share, length_s: l, .. } => {
                    let lit: f64 = self.blips.iter().map(|b| overlap(*b, b + l)).sum();
                    share_of_all = share_of_all.max(share * lit.min(1.0));
                }
                Event::Slower { .. } | Event::Tail { .. } | Event::Pauses | Event::ColdStart { .. } => {}
            }
        }
        let requests = poisson(&mut self.rng, self.traffic.rps * wave * length_s);
        let burst = match self.traffic.scatter {
            Scatter::Poisson => 1.0,
            Scatter::Gamma { phi } => {
                // Bursts of 15 s: shorter ticks share one only by chance of being cut, so they get their own.
                let shape = self.traffic.rps * errors * length_s / (phi - 1.0);
                if shape > 0.0 { gamma(&mut self.rng, shape) / shape } else { 1.0 }
            }
            Scatter::Wandering { sd, rho } => {
                let rho = rho.powf(length_s / 15.0);
                self.wander = rho * self.wander + (1.0 - rho * rho).sqrt() * sd * self.gauss();
                (self.wander - 0.5 * sd * sd).exp()
            }
        };
        let share = (errors * burst).max(share_of_all).min(1.0);
        let bad = binomial(&mut self.rng, requests, share);
        let latency = self.traffic.latency.then(|| self.histogram(requests, from_s, to_s));
        Counted { requests, bad, latency }
    }

    fn histogram(&mut self, requests: f64, from_s: f64, to_s: f64) -> Buckets {
        let mut slower = 1.0;
        let mut paused = 0.0;
        let mut tail = (0.0, 1.0);
        for event in &self.traffic.events {
            match *event {
                Event::Slower { ratio } if self.after => slower *= ratio,
                Event::Tail { share, ratio } if self.after => tail = (share, ratio),
                Event::ColdStart { ratio, length_s } if self.after && from_s < length_s => slower *= ratio,
                // Pauses are part of the normal.
                Event::Pauses => paused = (2.0 / 60.0) * (to_s - from_s).min(30.0) / (to_s - from_s) * 0.5,
                _ => {}
            }
        }
        // Most requests, the few that met a pause of about a second, and those of the tail.
        let mut cumulative = vec![0.0; BOUNDS.len()];
        let stuck = binomial(&mut self.rng, requests, paused);
        let late = binomial(&mut self.rng, requests - stuck, tail.0);
        let mu = LATENCY_MU + slower.ln();
        for (n, mu) in [(requests - stuck - late, mu), (stuck, 0.0), (late, mu + f64::ln(tail.1))] {
            let (mut left, mut below) = (n, 0.0);
            for (bound, sum) in BOUNDS.iter().zip(&mut cumulative) {
                let cdf = normal_cdf((bound.ln() - mu) / LATENCY_SIGMA);
                let p = ((cdf - below) / (1.0 - below)).clamp(0.0, 1.0);
                left -= binomial(&mut self.rng, left, p);
                below = cdf;
                *sum += n - left;
            }
        }
        Buckets::try_new(BOUNDS.to_vec(), cumulative, requests).unwrap_or_default()
    }
}

fn poisson(rng: &mut ChaCha8Rng, mean: f64) -> f64 {
    Poisson::new(mean).map_or(0.0, |p| p.sample(rng))
}

fn gamma(rng: &mut ChaCha8Rng, shape: f64) -> f64 {
    Gamma::new(shape, 1.0).map_or(shape, |g| g.sample(rng))
}

fn binomial(rng: &mut ChaCha8Rng, n: f64, p: f64) -> f64 {
    if n <= 0.0 || p <= 0.0 {
        return 0.0;
    }
    Binomial::new(n as u64, p.min(1.0)).map_or(0.0, |b| b.sample(rng) as f64)
}

/// The normal distribution's cumulative function.
fn normal_cdf(x: f64) -> f64 {
    0.5 * libm::erfc(-x / std::f64::consts::SQRT_2)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn traffic(scatter: Scatter) -> Traffic {
        Traffic { scatter, latency: true, ..Traffic::steady(50.0, 0.01) }
    }

    #[test]
    fn a_seed_is_its_traffic() {
        let t = traffic(Scatter::Poisson);
        let run = |seed, part| {
            let mut s = Stream::new(&t, seed, part, true, 1800.0);
            (0..50).map(|i| s.tick(i as f64 * 15.0, (i + 1) as f64 * 15.0)).collect::<Vec<_>>()
        };
        assert_eq!(run(7, 1), run(7, 1));
        assert_ne!(run(7, 1), run(8, 1));
        assert_ne!(run(7, 1), run(7, 2));
    }

    #[test]
    fn means_and_dispersions_are_as_stated() {
        for (scatter, phi) in [(Scatter::Poisson, 1.0), (Scatter::Gamma { phi: 5.0 }, 5.0)] {
            let t = traffic(scatter);
            let mut s = Stream::new(&t, 1, 1, true, 1e6);
            let cells: Vec<f64> = (0..6000).map(|i| s.tick(i as f64 * 15.0, (i + 1) as f64 * 15.0).bad).collect();
            let mean = cells.iter().sum::<f64>() / 6000.0;
            let var = cells.iter().map(|x| (x - mean) * (x - mean)).sum::<f64>() / 5999.0;
            assert!((mean / 7.5 - 1.0).abs() < 0.05, "{mean}");
            assert!((var / mean / phi - 1.0).abs() < 0.12, "{scatter:?}: {}", var / mean);
        }
    }

    #[test]
    fn events_happen_after_the_switch_only() {
        let mut t = traffic(Scatter::Poisson);
        t.events = vec![Event::Regression { ratio: 10.0, from_s: 0.0 }, Event::Slower { ratio: 2.0 }];
        let rate = |after| {
            let mut s = Stream::new(&t, 3, 1, after, 1800.0);
            let c = s.tick(0.0, 600.0);
            (c.bad / c.requests, crate::judge::quantile::quantile(&c.latency.unwrap(), 0.5).unwrap())
        };
        let (before, after) = (rate(false), rate(true));
        assert!((before.0 - 0.01).abs() < 0.003 && (after.0 - 0.1).abs() < 0.01, "{before:?} {after:?}");
        assert!(after.1 / before.1 > 1.6, "{before:?} {after:?}");
    }
}
