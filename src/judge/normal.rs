//! The recorded normal of one signal as the evidence rule takes it: counts, how bursty they are, and
//! what the true rate may be.
//!
//! Source of the formulas: the design's chapter on judgement, §3 (*Baseline*).

use libm::{exp, sqrt};
use serde::{Deserialize, Serialize};

/// Quantiles of the baseline's own uncertainty over which the evidence is averaged (standard normal).
pub const NULLS: usize = 14;

/// The middle one (z = 0): the null that people are shown.
pub const MIDDLE: usize = 4;

pub fn z(null: usize) -> f64 {
    -2.0 + 0.5 * null as f64
}

/// Weights of the nulls: the normal density at `z`, summing to one.
pub fn weights() -> [f64; NULLS] {
    let mut w = [0.0; NULLS];
    for (i, w) in w.iter_mut().enumerate() {
        *w = exp(-0.5 * z(i) * z(i));
    }
    let sum: f64 = w.iter().sum();
    w.map(|w| w / sum)
}

/// Cells shorter than this are joined first: shorter ones see less of what comes in bursts.
const CELL_S: f64 = 15.0;
/// ... where that leaves at least so many.
const CELLS_MIN: f64 = 8.0;
/// Lengths (seconds) over which burstiness is looked for; the first is one cell.
const LENGTHS_S: [f64; 3] = [60.0, 240.0, 600.0];
/// Up to here burstiness is of the fast kind.
const FAST_BELOW_S: f64 = 120.0;
/// Six hours and more are compared with each hour's own rate: a daily wave is no burstiness.
const SEGMENTED_FROM_S: f64 = 21_600.0;
const SEGMENT_S: f64 = 3600.0;
const BLOCKS_MIN: usize = 8;
const FREEDOM_MIN: usize = 5;
/// What grows with length is taken to go on growing for one more step.
const EXTRAPOLATION: f64 = 1.0;
/// Few clusters seen: distrust.
const DISTRUST: f64 = 1.5;
/// The dispersion that is assumed before anything was seen, and as how many cells that counts.
const PRIOR: f64 = 1.5;
const PRIOR_CELLS: f64 = 5.0;
/// As how many independent bad requests "an hour like any other" counts.
const ENVELOPE_PRIOR: f64 = 20.0;

/// Requests and bad ones of one cell.
pub type Pair = (f64, f64);

fn sum(cells: &[Pair]) -> Pair {
    cells.iter().fold((0.0, 0.0), |(n, x), c| (n + c.0, x + c.1))
}

/// Index of dispersion of the bad counts, at least 1: bad requests per independent event. It has no unit
/// of time: the same value serves 1 s and 60 s ticks. `cells` are of `cell_s` seconds each, in order.
pub fn dispersion(cells: &[Pair], cell_s: f64) -> f64 {
    let joined;
    let (cells, cell_s) = if cell_s < CELL_S && cells.len() as f64 * cell_s >= CELLS_MIN * CELL_S {
        let m = (CELL_S / cell_s - 1e-9).ceil().max(1.0) as usize;
        joined = cells.chunks_exact(m).map(sum).collect::<Vec<_>>();
        (joined.as_slice(), cell_s * m as f64)
    } else {
        (cells, cell_s)
    };
    let (total_n, total_x) = sum(cells);
    if total_n <= 0.0 {
        return PRIOR;
    }
    let live = cells.iter().filter(|c| c.0 > 0.0).count() as f64;
    let segment = if cells.len() as f64 * cell_s >= SEGMENTED_FROM_S {
        ((SEGMENT_S / cell_s).round() as usize).max(1)
    } else {
        cells.len()
    };
    let (mut fast, mut slow, mut last) = (1.0_f64, 0.0_f64, 0);
    for length_s in [cell_s].into_iter().chain(LENGTHS_S) {
        let per_block = ((length_s / cell_s).round_ties_even() as usize).max(1);
        if per_block == last {
            continue;
        }
        last = per_block;
        let (chi, blocks, freedom) = scatter(cells, segment, per_block);
        if blocks < BLOCKS_MIN || freedom < FREEDOM_MIN {
            continue;
        }
        let mut phi = chi / freedom as f64;
        if per_block > 1 {
            // Not to chase noise: one standard error is taken off.
            phi *= 1.0 - sqrt(2.0 / freedom as f64);
        }
        if per_block as f64 * cell_s < FAST_BELOW_S {
            fast = fast.max(phi);
        } else if phi > fast {
            slow = slow.max(phi + EXTRAPOLATION * (phi - fast));
        }
    }
    let seen = fast.max(slow);
    let doubted = 1.0 + (seen - 1.0) * (1.0 + DISTRUST * sqrt(2.0 / (total_x / seen).min(live).max(1.0)));
    let w = total_x.min(live);
    (PRIOR_CELLS * PRIOR + w * doubted) / (PRIOR_CELLS + w)
}

/// Pearson's chi-squared of blocks against their segment's own rate; blocks; degrees of freedom.
fn scatter(cells: &[Pair], segment: usize, per_block: usize) -> (f64, usize, usize) {
    let (mut chi, mut blocks, mut freedom) = (0.0, 0, 0);
    for part in cells.chunks(segment) {
        let (n, x) = sum(part);
        if n <= 0.0 || x <= 0.0 {
            continue;
        }
        let p = x / n;
        let mut here = 0;
        for block in part.chunks_exact(per_block) {
            let (n, x) = sum(block);
            if n > 0.0 {
                chi += (x - p * n) * (x - p * n) / (p * n);
                here += 1;
            }
        }
        blocks += here;
        freedom += usize::saturating_sub(here, 1);
    }
    (chi, blocks, freedom)
}

/// How much worse than the day's mean its worst hour is, shrunk towards 1: the long phase must not blame
/// a release for the evening. `hours` are requests and bad ones of each hour.
pub fn envelope(hours: &[Pair], phi: f64) -> f64 {
    let (n, x) = sum(hours);
    if n <= 0.0 || x <= 0.0 {
        return 1.0;
    }
    let (p, c) = (x / n, ENVELOPE_PRIOR * phi);
    hours.iter().filter(|h| h.0 > 0.0).map(|(n, x)| (x + c) / (p * n + c)).fold(1.0, f64::max)
}

/// Sufficient statistics of a signal's normal.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Normal {
    /// Requests and bad ones.
    pub n: f64,
    pub x: f64,
    /// [`dispersion`]
    pub phi: f64,
    /// Requests per second.
    pub rate: f64,
    /// [`envelope`]
    pub env: f64,
}

impl Normal {
    /// The bad share at the `z`-th quantile of what is known of it: Wilson–Hilferty's approximation of
    /// the gamma posterior with half an event as its prior. 1 without requests.
    pub fn p_at(&self, z: f64) -> f64 {
        if self.n <= 0.0 {
            return 1.0;
        }
        let a = self.x / self.phi + 0.5;
        let base = (1.0 - 1.0 / (9.0 * a) + z / (3.0 * sqrt(a))).max(1e-3);
        self.phi * a / self.n * base * base * base
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn steady_counts_are_not_bursty_and_bursts_are() {
        // Poisson-like: x scatters by its own root.
        let steady: Vec<Pair> = (0..240).map(|i| (750.0, [7.0, 10.0, 13.0, 8.0, 12.0, 10.0][i % 6])).collect();
        assert!(dispersion(&steady, 15.0) < 1.4, "{}", dispersion(&steady, 15.0));
        let bursts: Vec<Pair> = (0..240).map(|i| (750.0, if i % 12 == 0 { 120.0 } else { 0.0 })).collect();
        assert!(dispersion(&bursts, 15.0) > 20.0);
        assert_eq!(dispersion(&[], 15.0), PRIOR);
        assert_eq!(dispersion(&[(0.0, 0.0); 40], 15.0), PRIOR, "nothing was seen");
    }

    #[test]
    fn one_bad_hour_lifts_the_envelope() {
        let mut hours = vec![(180_000.0, 180.0); 24];
        assert!((envelope(&hours, 1.0) - 1.0).abs() < 0.01);
        hours[19].1 = 360.0;
        assert!(envelope(&hours, 1.0) > 1.7);
        assert!(envelope(&hours, 10.0) < envelope(&hours, 1.0), "bursty counts prove less of an hour");
        assert_eq!(envelope(&[(0.0, 0.0)], 1.0), 1.0);
    }

    #[test]
    fn more_normal_is_known_better() {
        let of = |n: f64| Normal { n, x: n / 1000.0, phi: 1.0, rate: 50.0, env: 1.0 };
        let width = |b: Normal| b.p_at(2.0) / b.p_at(-2.0);
        assert!(width(of(1e4)) > width(of(1e6)));
        assert!((of(1e7).p_at(0.0) / 0.001 - 1.0).abs() < 0.01);
        assert_eq!(of(0.0).p_at(0.0), 1.0);
    }
}
