//! "p99 is at most k times slower" as a statement about a tail, so that latency is judged like errors.
//!
//! With coarse buckets the first bound above `k · p99` may lie far beyond it. So the null is scaled:
//! P(latency > bound) ≤ S(bound / k), where S is the recorded normal's own tail. Source: the design's
//! chapter on judgement, §3 (*Latency*).

use libm::{exp, log, sqrt};
use serde::{Deserialize, Serialize};

use super::quantile::quantile;
use crate::domain::counts::Buckets;

/// Between two bounds the tail is taken to be this much fatter, half-way, than a straight line would say.
const SHAPE: f64 = 0.1;
/// The quantile is taken a little above the wanted one, by twice its own uncertainty; never beyond this.
const Q_MAX: f64 = 0.9999;

/// Which bound is counted over, and what share of the normal lies beyond `bound / k`.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct ScaledTail {
    /// Index into the finite bounds.
    pub index: usize,
    pub bound_s: f64,
    pub tail: f64,
    /// The normal's quantile, at the upper end of its uncertainty, in seconds.
    pub quantile_upper_s: f64,
    /// `k` times the quantile is beyond the last finite bound: only larger regressions can be seen.
    pub beyond: bool,
}

/// `phi` is the dispersion of the counts beyond the bound whose tail is nearest `1 - q`. `None` for a
/// histogram without requests or without finite bounds.
pub fn scaled_tail(normal: &Buckets, q: f64, k: f64, phi: f64) -> Option<ScaledTail> {
    let n = normal.total();
    let bounds = normal.bounds();
    let upper = quantile(normal, (q + 2.0 * sqrt(phi * q * (1.0 - q) / n.max(1.0))).min(Q_MAX))?;
    let wanted = k * upper;
    let last = bounds.len() - 1;
    let found = bounds.iter().position(|b| *b >= wanted * (1.0 - 1e-9));
    let index = found.unwrap_or(last);
    // A tail of nothing is a tail that was not seen yet.
    let share = |i: usize| (1.0 - normal.cumulative()[i] / n).max(0.25 / n);
    let scaled = bounds[index] / k;
    let below = bounds.iter().rposition(|b| *b <= scaled);
    let (low, s_low) = below.map_or((0.0, 1.0), |i| (bounds[i], share(i)));
    let next = below.map_or(0, |i| i + 1);
    let w = (scaled - low) / (bounds[next] - low);
    Some(ScaledTail {
        index,
        bound_s: bounds[index],
        tail: between(s_low, share(next), w),
        quantile_upper_s: upper,
        beyond: found.is_none(),
    })
}

/// The statement itself: at most `1 - q` of the requests take longer than the first bound above `k` times the
/// quantile. True of any shape of latency; with coarse buckets it sees large regressions only.
pub fn strict_tail(normal: &Buckets, q: f64, k: f64, phi: f64) -> Option<ScaledTail> {
    scaled_tail(normal, q, k, phi).map(|tail| ScaledTail { tail: 1.0 - q, ..tail })
}

/// ln of the tail is nearly linear in the latency between two bounds.
fn between(s_low: f64, s_high: f64, w: f64) -> f64 {
    let (a, b) = (log(s_low), log(s_high));
    exp((1.0 - w) * a + w * b + SHAPE * (a - b) * w * (1.0 - w))
}

/// The bound whose tail is nearest `1 - q`: its counts tell how bursty slowness is.
pub fn nearest_bound(normal: &Buckets, q: f64) -> Option<usize> {
    let n = normal.total();
    if n <= 0.0 {
        return None;
    }
    let off = |i: usize| ((1.0 - normal.cumulative()[i] / n) - (1.0 - q)).abs();
    (0..normal.bounds().len()).min_by(|a, b| off(*a).total_cmp(&off(*b)))
}

/// Requests beyond the `index`-th bound.
pub fn beyond(buckets: &Buckets, index: usize) -> f64 {
    buckets.cumulative().get(index).map_or(0.0, |c| (buckets.total() - c).max(0.0))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn exponential(mean_s: f64, n: f64) -> Buckets {
        let bounds: Vec<f64> = vec![0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5];
        let cumulative = bounds.iter().map(|b| (n * (1.0 - (-b / mean_s).exp())).round()).collect();
        Buckets::try_new(bounds, cumulative, n).unwrap()
    }

    #[test]
    fn the_bound_is_the_first_beyond_k_times_the_quantile() {
        let normal = exponential(0.03, 100_000.0);
        let p99 = scaled_tail(&normal, 0.99, 1.5, 1.0).unwrap();
        // Coarse buckets put the quantile of 138 ms at 211 ms, and 1.5 × that into the next bucket but one.
        assert_eq!((p99.bound_s, p99.beyond), (0.5, false), "{p99:?}");
        // The null is near the truth of an exponential of 30 ms, and above it.
        let truth = (-0.5 / 1.5 / 0.03_f64).exp();
        assert!(p99.tail > truth && p99.tail < 5.0 * truth, "{} {truth}", p99.tail);
    }

    #[test]
    fn a_quantile_beyond_the_buckets_is_said_and_still_judged() {
        let normal = Buckets::try_new(vec![0.1, 0.2], vec![500.0, 900.0], 1000.0).unwrap();
        let p99 = scaled_tail(&normal, 0.99, 1.5, 1.0).unwrap();
        assert!(p99.beyond && p99.bound_s == 0.2, "{p99:?}");
        assert!(p99.tail > 0.1, "the null is above what always was beyond the last bound: {}", p99.tail);
        assert_eq!(scaled_tail(&Buckets::default(), 0.99, 1.5, 1.0), None);
    }

    #[test]
    fn the_strict_null_is_the_statement_itself() {
        let normal = exponential(0.03, 100_000.0);
        let (scaled, strict) = (scaled_tail(&normal, 0.95, 1.5, 1.0), strict_tail(&normal, 0.95, 1.5, 1.0));
        let (scaled, strict) = (scaled.unwrap(), strict.unwrap());
        assert_eq!((strict.index, strict.bound_s, strict.tail), (scaled.index, scaled.bound_s, 1.0 - 0.95));
        assert!(scaled.tail < strict.tail / 3.0, "what coarse buckets cost: {} {}", scaled.tail, strict.tail);
    }

    #[test]
    fn the_nearest_bound_and_what_is_beyond_it() {
        let normal = exponential(0.03, 100_000.0);
        let i = nearest_bound(&normal, 0.95).unwrap();
        assert_eq!(normal.bounds()[i], 0.1);
        assert_eq!(beyond(&normal, i), normal.total() - normal.cumulative()[i]);
    }
}
