//! Quantiles and tails of classic histograms, linear inside a bucket as `histogram_quantile` has it.

use crate::domain::counts::Buckets;

/// The `q`-quantile in the buckets' unit (seconds). `None` without requests or finite bounds. A
/// quantile in the `+Inf` bucket is answered with the last finite bound: it is at least that.
pub fn quantile(buckets: &Buckets, q: f64) -> Option<f64> {
    let total = buckets.total();
    let last = *buckets.bounds().last()?;
    if total <= 0.0 {
        return None;
    }
    let rank = q * total;
    let (mut low, mut below) = (0.0, 0.0);
    for (&bound, &cumulative) in buckets.bounds().iter().zip(buckets.cumulative()) {
        if cumulative >= rank {
            let inside = cumulative - below;
            let share = if inside > 0.0 { (rank - below) / inside } else { 1.0 };
            return Some(low + (bound - low) * share);
        }
        (low, below) = (bound, cumulative);
    }
    Some(last)
}

/// How many requests took longer than `limit_s`; exact on a bound, interpolated between two. `None`
/// beyond the last finite bound: there nothing can be told apart.
pub fn slower_than(buckets: &Buckets, limit_s: f64) -> Option<f64> {
    let (mut low, mut below) = (0.0, 0.0);
    for (&bound, &cumulative) in buckets.bounds().iter().zip(buckets.cumulative()) {
        if limit_s <= bound {
            let width = bound - low;
            let share = if width > 0.0 { ((limit_s - low) / width).clamp(0.0, 1.0) } else { 1.0 };
            return Some(buckets.total() - (below + (cumulative - below) * share));
        }
        (low, below) = (bound, cumulative);
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    fn buckets() -> Buckets {
        Buckets::try_new(vec![0.1, 0.2, 0.5], vec![50.0, 90.0, 98.0], 100.0).unwrap()
    }

    #[test]
    fn linear_inside_a_bucket() {
        assert_eq!(quantile(&buckets(), 0.5), Some(0.1));
        assert!((quantile(&buckets(), 0.7).unwrap() - 0.15).abs() < 1e-12);
        assert_eq!(quantile(&buckets(), 0.99), Some(0.5), "beyond the last bound: at least that");
        assert_eq!(quantile(&Buckets::default(), 0.5), None);
        assert_eq!(quantile(&Buckets::try_new(vec![0.1], vec![0.0], 0.0).unwrap(), 0.5), None);
    }

    #[test]
    fn tails_mirror_quantiles() {
        assert_eq!(slower_than(&buckets(), 0.1), Some(50.0));
        assert!((slower_than(&buckets(), 0.15).unwrap() - 30.0).abs() < 1e-9);
        assert_eq!(slower_than(&buckets(), 0.5), Some(2.0));
        assert_eq!(slower_than(&buckets(), 0.51), None, "the +Inf bucket cannot be split");
        assert_eq!(slower_than(&buckets(), 0.0), Some(100.0));
    }
}
