//! What people are shown beside the evidence: how much worse it is, and how small a regression this
//! traffic could show at all.

use libm::{exp, lgamma, log};

use super::normal::Normal;

/// Bisections of a logarithm at most: enough for every double.
const STEPS: usize = 200;

/// Anytime-valid interval of the ratio to the normal, at `1 - delta`, over all that was counted: a
/// gamma-mixture confidence sequence. Display only. `n`, `x` are requests and bad ones, `limit` is the
/// middle null.
pub fn ratio_interval(normal: &Normal, k: f64, limit: f64, n: f64, x: f64, delta: f64) -> (f64, f64) {
    let phi = 1.0 + (normal.phi - 1.0) * k;
    let (x, n) = (x / phi, n / phi);
    if n <= 0.0 {
        return (0.0, f64::INFINITY);
    }
    let a = 0.5;
    let b = a / limit;
    let ln_mixture = a * log(b) - lgamma(a) + lgamma(a + x) - (a + x) * log(b + n);
    // With u = ln p: k - x u + n e^u is convex, so that Newton's steps from outside never pass a root.
    let k = ln_mixture - log(2.0 / delta);
    let excess = |u: f64| k - x * u + n * exp(u);
    let root = |mut u: f64| {
        for _ in 0..STEPS {
            let step = excess(u) / (n * exp(u) - x);
            if !step.is_finite() || (u - step - u).abs() <= 1e-15 * u.abs() {
                break;
            }
            u -= step;
        }
        exp(u)
    };
    let mut high = log((x / n).max(1e-12));
    while excess(high) <= 0.0 {
        high += core::f64::consts::LN_2;
    }
    let upper = root(high);
    let low = log(1e-15);
    let lower = if x > 0.0 && excess(low) > 0.0 { root(low) } else { 0.0 };
    // The normal's own uncertainty, at 97.5 % on either side of the 95 % left.
    (lower / normal.p_at(2.24), upper / normal.p_at(-2.24).max(1e-15))
}

/// Information that a test of level `alpha` needs per signal, in nats: half of it may have to be spent on
/// not knowing the alternative and the onset.
fn nats(signals: f64, alpha: f64) -> f64 {
    2.0 * log(signals / alpha)
}

/// Kullback–Leibler information of one expected bad request at `r` times the null.
fn information(r: f64) -> f64 {
    r * log(r) - r + 1.0
}

/// The smallest multiple of the null that `n` requests can show; `None` where not even a total outage
/// would show.
pub fn detectable(n: f64, p0: f64, phi: f64, signals: f64, alpha: f64) -> Option<f64> {
    let enough = |r: f64| nats(signals, alpha) <= n * p0 * information(r) / phi;
    let most = 1.0 / p0;
    if n <= 0.0 || p0 <= 0.0 || !enough(most) {
        return None;
    }
    let (mut low, mut high) = (0.0, log(most));
    for _ in 0..STEPS {
        let middle = 0.5 * (low + high);
        if middle <= low || middle >= high {
            break;
        }
        if enough(exp(middle)) {
            high = middle;
        } else {
            low = middle;
        }
    }
    Some(exp(high))
}

/// Requests that are needed to show `r` times the null.
pub fn requests_to_show(r: f64, p0: f64, phi: f64, signals: f64, alpha: f64) -> f64 {
    nats(signals, alpha) * phi / (p0 * information(r)).max(1e-300)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn detectability_and_its_price_are_inverse() {
        for r in [1.2_f64, 2.0, 6.7, 40.0] {
            let n = requests_to_show(r, 0.0015, 1.3, 2.0, 0.001);
            let back = detectable(n, 0.0015, 1.3, 2.0, 0.001).unwrap();
            assert!((back / r - 1.0).abs() < 1e-9, "{r} {back}");
        }
        assert_eq!(detectable(2.0, 0.0015, 1.0, 2.0, 0.001), None, "two requests show nothing");
        assert_eq!(detectable(0.0, 0.0015, 1.0, 2.0, 0.001), None);
    }

    #[test]
    fn the_interval_holds_the_truth_and_narrows() {
        let normal = Normal { n: 1e7, x: 1e4, phi: 1.0, rate: 100.0, env: 1.0 };
        let narrow = ratio_interval(&normal, 1.5, 0.0015, 100_000.0, 900.0, 0.05);
        let wide = ratio_interval(&normal, 1.5, 0.0015, 1000.0, 9.0, 0.05);
        assert!(narrow.0 < 9.0 && narrow.1 > 9.0 && narrow.1 - narrow.0 < 3.0, "{narrow:?}");
        assert!(wide.0 < narrow.0 && wide.1 > narrow.1, "{wide:?}");
        assert_eq!(ratio_interval(&normal, 1.5, 0.0015, 0.0, 0.0, 0.05), (0.0, f64::INFINITY));
        let none = ratio_interval(&normal, 1.5, 0.0015, 1000.0, 0.0, 0.05);
        assert!(none.0 == 0.0 && none.1.is_finite(), "{none:?}");
    }
}
