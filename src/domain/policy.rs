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

/// The stated chance of a false rollback per soak: above 0, at most a tenth.
#[derive(Debug, Clone, Copy, PartialEq, PartialOrd, Serialize, Deserialize)]
#[serde(try_from = "f64", into = "f64")]
pub struct Alpha(f64);

impl Alpha {
    pub fn try_new(a: f64) -> Result<Self, OutOfRange> {
        if a > 0.0 && a <= 0.1 { Ok(Self(a)) } else { Err(OutOfRange("alpha must be above 0 and at most 0.1")) }
    }
    pub fn get(self) -> f64 {
        self.0
    }
}

impl TryFrom<f64> for Alpha {
    type Error = OutOfRange;
    fn try_from(a: f64) -> Result<Self, OutOfRange> {
        Self::try_new(a)
    }
}
impl From<Alpha> for f64 {
    fn from(a: Alpha) -> f64 {
        a.0
    }
}

/// How "at most `ratio` times slower" is put to coarse buckets.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum TailNull {
    /// The recorded tail beyond `bound / ratio`: finds regressions of about 1.75, and may err where latency has
    /// two modes and the buckets cannot tell.
    Scaled,
    /// `1 - q` beyond the first bound above `ratio` times the quantile: the statement itself, whatever the shape.
    Strict,
}

/// How counts become a verdict.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RuleKind {
    /// Anytime-valid evidence with a stated chance of error.
    Evidence,
    /// Above the limit for n consecutive ticks.
    Threshold,
    /// Whichever of the two speaks first.
    Either,
}

impl fmt::Display for RuleKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            RuleKind::Evidence => "evidence",
            RuleKind::Threshold => "threshold",
            RuleKind::Either => "either",
        })
    }
}

/// The fast phase and the long one after it (none: zero).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Phases {
    pub fast: Span,
    pub long: Span,
}

impl Phases {
    pub fn whole(self) -> Span {
        self.fast + self.long
    }
}

/// What silence means in `ask` mode.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum AskDefault {
    /// Nothing is moved, and people are paged.
    #[default]
    Hold,
    /// The traffic is moved back, under the same brakes as in `auto` mode.
    RollBack,
}

/// A service's policy, every default filled in.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Policy {
    pub mode: Mode,
    pub rule: RuleKind,
    /// The fast phase.
    pub soak: Span,
    pub tick: Span,
    /// The long phase after it, and its coarser ticks; zero: there is none.
    pub long: Span,
    pub long_tick: Span,
    /// How far the soak may be extended when it could not tell.
    pub extend_max: Span,
    pub warm_up: WarmUp,
    pub limits: Limits,
    /// In `ask` mode: how long the question stands before nothing is done and people are paged.
    pub ask_timeout: Span,
    /// What is done when nobody has answered by then.
    #[serde(default)]
    pub ask_default: AskDefault,
    /// How long the cut-over may stay unconfirmed.
    pub confirm_within: Span,
    /// How long the old slot has to look well again after a rollback.
    pub recover_within: Span,
    /// Enough baseline to judge ratios by.
    pub baseline_cells_min: u32,
    pub baseline_requests_min: f64,
    pub notify_passed: bool,
    /// Whether people are told that a watch began.
    #[serde(default)]
    pub notify_opened: bool,
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
    /// normal is itself above it, then `ratio` times the normal takes its place). `None`: not set; then
    /// the plain rule takes 5 %, and the evidence rule does so only without a usable baseline.
    pub error_rate: Option<Share>,
    /// Absolute latency limits in seconds, per quantile.
    pub latency_s: Vec<(Quantile, f64)>,
    /// Which quantiles are judged against the baseline.
    pub quantiles: Vec<Quantile>,
    /// What latency beyond the bound is compared with (evidence rule).
    pub tail: TailNull,
    /// Consecutive ticks above the limit, over at least ten seconds.
    pub ticks: u32,
    /// The evidence rule's chance of a false rollback per soak.
    pub alpha: Alpha,
    /// No block of this length brings more than its part of what a rollback needs.
    pub block: Span,
    /// Bad events that a breach needs at least.
    pub min_events: u32,
    /// Ratio that the soak must have been able to show before it may pass.
    pub must_detect: Ratio,
    pub custom: Vec<CustomLimit>,
}

impl Limits {
    pub fn error_rate_or_default(&self) -> Share {
        self.error_rate.unwrap_or(Share(0.05))
    }
}

impl Policy {
    pub fn phases(&self) -> Phases {
        Phases { fast: self.soak, long: self.long }
    }
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
