//! Counts over an interval. Finite and never negative by construction: no NaN passes the edge.

use std::fmt;

use serde::{Deserialize, Serialize};

use super::time::{Span, Timestamp};

/// Why numbers cannot be counts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum BadCounts {
    NotFinite,
    Negative,
    /// More bad requests than requests: two selectors that do not speak of the same thing.
    BadAboveRequests {
        requests: String,
        bad: String,
    },
    /// Bucket bounds must rise, and cumulative counts must not fall.
    NotCumulative,
}

impl fmt::Display for BadCounts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotFinite => f.write_str("a count is NaN or infinite"),
            Self::Negative => f.write_str("a count is negative"),
            Self::BadAboveRequests { requests, bad } => write!(
                f,
                "{bad} errors in {requests} requests: the errors selector counts what the requests selector does not"
            ),
            Self::NotCumulative => f.write_str("histogram buckets are not cumulative"),
        }
    }
}

impl std::error::Error for BadCounts {}

fn checked(n: f64) -> Result<f64, BadCounts> {
    if !n.is_finite() {
        Err(BadCounts::NotFinite)
    } else if n < 0.0 {
        Err(BadCounts::Negative)
    } else {
        // An empty sum of floats is -0.0, which would be shown as such.
        Ok(n + 0.0)
    }
}

/// Requests and the bad ones among them. Counters are floats in Prometheus; whole up to 2⁵³.
#[derive(Debug, Clone, Copy, PartialEq, Default, Serialize, Deserialize)]
pub struct Counts {
    requests: f64,
    bad: f64,
}

impl Counts {
    pub fn try_new(requests: f64, bad: f64) -> Result<Self, BadCounts> {
        let (requests, bad) = (checked(requests)?, checked(bad)?);
        if bad > requests {
            return Err(BadCounts::BadAboveRequests { requests: requests.to_string(), bad: bad.to_string() });
        }
        Ok(Self { requests, bad })
    }

    pub fn requests(self) -> f64 {
        self.requests
    }

    pub fn bad(self) -> f64 {
        self.bad
    }

    /// Share of bad requests, none without requests.
    pub fn rate(self) -> Option<f64> {
        (self.requests > 0.0).then(|| self.bad / self.requests)
    }

    pub fn plus(self, other: Counts) -> Counts {
        Counts { requests: self.requests + other.requests, bad: self.bad + other.bad }
    }
}

/// A classic histogram over an interval: `cumulative[i]` requests took at most `bounds[i]` seconds,
/// `total` took any time (the `+Inf` bucket).
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub struct Buckets {
    bounds: Vec<f64>,
    cumulative: Vec<f64>,
    total: f64,
}

impl Buckets {
    /// `bounds` finite and rising, `cumulative` of the same length and not falling, `total` last.
    pub fn try_new(bounds: Vec<f64>, cumulative: Vec<f64>, total: f64) -> Result<Self, BadCounts> {
        checked(total)?;
        if bounds.len() != cumulative.len()
            || bounds.iter().any(|b| !b.is_finite())
            || bounds.windows(2).any(|w| w[0] >= w[1])
        {
            return Err(BadCounts::NotCumulative);
        }
        let mut last = 0.0;
        for &c in cumulative.iter().chain([&total]) {
            if checked(c)? < last {
                return Err(BadCounts::NotCumulative);
            }
            last = c;
        }
        Ok(Self { bounds, cumulative, total })
    }

    pub fn bounds(&self) -> &[f64] {
        &self.bounds
    }

    pub fn cumulative(&self) -> &[f64] {
        &self.cumulative
    }

    pub fn total(&self) -> f64 {
        self.total
    }

    /// Adds another interval's histogram; `None` where the bounds differ (an app changed its buckets).
    pub fn plus(&self, other: &Buckets) -> Option<Buckets> {
        if self.bounds.is_empty() && self.total == 0.0 {
            return Some(other.clone());
        }
        if other.bounds.is_empty() && other.total == 0.0 {
            return Some(self.clone());
        }
        (self.bounds == other.bounds).then(|| Buckets {
            bounds: self.bounds.clone(),
            cumulative: self.cumulative.iter().zip(&other.cumulative).map(|(a, b)| a + b).collect(),
            total: self.total + other.total,
        })
    }
}

/// Counts over one interval of one slot: the unit of the recorded baseline.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Cell {
    pub from: Timestamp,
    pub to: Timestamp,
    pub counts: Counts,
    pub latency: Option<Buckets>,
}

impl Cell {
    pub fn length(&self) -> Span {
        self.to.since(self.from)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn impossible_counts_are_refused() {
        assert_eq!(Counts::try_new(f64::NAN, 0.0), Err(BadCounts::NotFinite));
        assert_eq!(Counts::try_new(1.0, f64::INFINITY), Err(BadCounts::NotFinite));
        assert_eq!(Counts::try_new(-1.0, 0.0), Err(BadCounts::Negative));
        assert!(matches!(Counts::try_new(1.0, 2.0), Err(BadCounts::BadAboveRequests { .. })));
        assert_eq!(Counts::try_new(0.0, 0.0).unwrap().rate(), None);
        assert!(Counts::try_new(1.0, -0.0).unwrap().bad().is_sign_positive());
    }

    #[test]
    fn buckets_rise_and_never_fall() {
        assert!(Buckets::try_new(vec![0.1, 0.2], vec![1.0, 2.0], 3.0).is_ok());
        assert!(Buckets::try_new(vec![0.2, 0.1], vec![1.0, 2.0], 3.0).is_err());
        assert!(Buckets::try_new(vec![0.1, 0.2], vec![2.0, 1.0], 3.0).is_err());
        assert!(Buckets::try_new(vec![0.1], vec![2.0], 1.0).is_err());
        assert!(Buckets::try_new(vec![f64::INFINITY], vec![2.0], 2.0).is_err());
    }

    #[test]
    fn histograms_of_other_bounds_do_not_add() {
        let a = Buckets::try_new(vec![0.1], vec![1.0], 2.0).unwrap();
        let b = Buckets::try_new(vec![0.2], vec![1.0], 2.0).unwrap();
        assert_eq!(a.plus(&b), None);
        assert_eq!(a.plus(&a).unwrap().total(), 4.0);
        assert_eq!(Buckets::default().plus(&a).unwrap(), a);
    }
}
