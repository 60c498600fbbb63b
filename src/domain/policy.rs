//! How a service is judged. Frozen when a watch opens: a reload changes only later watches.

use std::fmt;

use serde::{Deserialize, Serialize};

use super::signal::Quantile;
use super::time::Span;

/// How far flipback may go by itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Mode {
    Observe,
    Ask,
    Auto,
}

impl fmt::Display for Mode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Mode::Observe => "observe",
            Mode::Ask => "ask",
            Mode::Auto => "auto",
        })
    }
}

/// Breaching multiple of the baseline: above 1, finite.
#[derive(Debug, Clone, Copy, PartialEq, PartialOrd, Serialize, Deserialize)]
#[serde(try_from = "f64", into = "f64")]
pub struct Ratio(f64);

/// A share in 0..=1.
#[derive(Debug, Clone, Copy, PartialEq, PartialOrd, Serialize, Deserialize)]
#[serde(try_from = "f64", into = "f64")]
pub struct Share(f64);

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OutOfRange(&'static str);

impl fmt::Display for OutOfRange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.0)
    }
}

impl std::error::Error for OutOfRange {}

impl Ratio {
    pub fn try_new(r: f64) -> Result<Self, OutOfRange> {
        // Above 1000 nothing but a total outage would breach; that is what absolute limits are for.
        if r > 1.0 && r <= 1000.0 { Ok(Self(r)) } else { Err(OutOfRange("a ratio must be above 1 and at most 1000")) }
    }
    pub fn get(self) -> f64 {
        self.0
    }
}

impl Share {
    pub fn try_new(s: f64) -> Result<Self, OutOfRange> {
        if (0.0..=1.0).contains(&s) {
            Ok(Self(s))
        } else {
            Err(OutOfRange("a share must be between 0 and 1 (5 % is 0.05)"))
        }
    }
    pub fn get(self) -> f64 {
        self.0
    }
}

impl TryFrom<f64> for Ratio {
    type Error = OutOfRange;
    fn try_from(r: f64) -> Result<Self, OutOfRange> {
        Self::try_new(r)
    }
}
impl From<Ratio> for f64 {
    fn from(r: Ratio) -> f64 {
        r.0
    }
}
impl TryFrom<f64> for Share {
    type Error = OutOfRange;
    fn try_from(s: f64) -> Result<Self, OutOfRange> {
        Self::try_new(s)
    }
}
impl From<Share> for f64 {
    fn from(s: Share) -> f64 {
        s.0
    }
}

/// A service's policy, every default filled in.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Policy {
    pub mode: Mode,
    pub soak: Span,
    pub tick: Span,
    /// How far the soak may be extended when it could not tell.
    pub extend_max: Span,
    pub warm_up: WarmUp,
    pub limits: Limits,
    /// In `ask` mode: how long the question stands before nothing is done and people are paged.
    pub ask_timeout: Span,
    /// How long the cut-over may stay unconfirmed.
    pub confirm_within: Span,
    /// How long the old slot has to look well again after a rollback.
    pub recover_within: Span,
    /// Enough baseline to judge ratios by.
    pub baseline_cells_min: u32,
    pub baseline_requests_min: f64,
    pub notify_passed: bool,
}

/// The first moments of a soak: errors are judged against the absolute limit only, latency not at all.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct WarmUp {
    pub errors: Span,
    pub latency: Span,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Limits {
    /// Breaching multiple of the baseline, for errors and latency.
    pub ratio: Ratio,
    /// Error rates at or below this are by definition not a breach.
    pub floor: Share,
    /// The absolute error limit: breached over 30 s whatever the baseline says (unless the recorded
    /// normal is itself above it, then `ratio` times the normal takes its place).
    pub error_rate: Share,
    /// Absolute latency limits in seconds, per quantile.
    pub latency_s: Vec<(Quantile, f64)>,
    /// Which quantiles are judged against the baseline.
    pub quantiles: Vec<Quantile>,
    /// Consecutive ticks above the limit, over at least ten seconds.
    pub ticks: u32,
    /// Bad events that a breach needs at least.
    pub min_events: u32,
    /// Ratio that the soak must have been able to show before it may pass.
    pub must_detect: Ratio,
    pub custom: Vec<CustomLimit>,
}

/// A custom signal's plain limit: one number per tick.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct CustomLimit {
    pub name: String,
    pub bound: Bound,
}

#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Bound {
    Above(f64),
    Below(f64),
}

impl Bound {
    pub fn breached_by(self, value: f64) -> bool {
        match self {
            Bound::Above(limit) => value > limit,
            Bound::Below(limit) => value < limit,
        }
    }
}

impl fmt::Display for Bound {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Bound::Above(limit) => write!(f, "above {limit}"),
            Bound::Below(limit) => write!(f, "below {limit}"),
        }
    }
}
