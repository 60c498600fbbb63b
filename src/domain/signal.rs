//! Signals and what was read of them.

use std::fmt;

use serde::{Deserialize, Serialize};

use super::counts::{Buckets, Counts};
use super::time::{Span, Timestamp};

/// A quantile that people name: p50, p95, p99.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Quantile {
    P50,
    P95,
    P99,
}

impl Quantile {
    pub const ALL: [Quantile; 3] = [Quantile::P50, Quantile::P95, Quantile::P99];

    pub fn q(self) -> f64 {
        match self {
            Quantile::P50 => 0.50,
            Quantile::P95 => 0.95,
            Quantile::P99 => 0.99,
        }
    }
}

impl fmt::Display for Quantile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Quantile::P50 => "p50",
            Quantile::P95 => "p95",
            Quantile::P99 => "p99",
        })
    }
}

/// What is judged.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Signal {
    ErrorRate,
    Latency(Quantile),
    Traffic,
    Alive,
    Custom(String),
}

impl fmt::Display for Signal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Signal::ErrorRate => f.write_str("error rate"),
            Signal::Latency(q) => write!(f, "latency {q}"),
            Signal::Traffic => f.write_str("traffic"),
            Signal::Alive => f.write_str("alive"),
            Signal::Custom(name) => f.write_str(name),
        }
    }
}

/// Why nothing could be read. The kind labels a metric; the text is for people.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ReadFailure {
    pub kind: FailureKind,
    /// One line, already free of credentials and cut to a readable length.
    pub detail: String,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum FailureKind {
    /// Refused, reset, no route, TLS.
    Unreachable,
    Timeout,
    /// 429 or 5xx after the retries inside the tick.
    Unavailable,
    /// 400 or 422: the query is wrong and will stay wrong.
    Rejected,
    /// Warnings, NaN, a wrong type, too large, several series where one is expected.
    Unusable,
    /// Prometheus's clock is more than 30 s from ours.
    ClockSkew,
}

impl FailureKind {
    pub const ALL: [FailureKind; 6] =
        [Self::Unreachable, Self::Timeout, Self::Unavailable, Self::Rejected, Self::Unusable, Self::ClockSkew];

    pub fn as_str(self) -> &'static str {
        match self {
            Self::Unreachable => "unreachable",
            Self::Timeout => "timeout",
            Self::Unavailable => "unavailable",
            Self::Rejected => "rejected",
            Self::Unusable => "unusable",
            Self::ClockSkew => "clock_skew",
        }
    }
}

impl ReadFailure {
    /// It will stay so until somebody changes the question.
    pub fn is_lasting(&self) -> bool {
        matches!(self.kind, FailureKind::Rejected | FailureKind::Unusable)
    }
}

impl fmt::Display for ReadFailure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.kind.as_str(), self.detail)
    }
}

/// One reading. Absent is not zero, and neither is a failure.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Reading<T> {
    Value(T),
    Absent,
    Failed(ReadFailure),
}

impl<T> Reading<T> {
    pub fn value(&self) -> Option<&T> {
        match self {
            Reading::Value(v) => Some(v),
            Reading::Absent | Reading::Failed(_) => None,
        }
    }
}

/// The slot's scrape targets by Prometheus's own `up`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Targets {
    pub up: u32,
    pub down: u32,
    /// Other targets that this Prometheus scrapes well at the same instant: while there are none, the
    /// fault may be the server's own.
    pub others_up: u32,
}

/// What one slot showed between two instants of Prometheus's clock.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct SlotCell {
    /// The end of the last good tick, and of this one: ticks telescope.
    pub from: Timestamp,
    pub to: Timestamp,
    pub counts: Reading<Counts>,
    /// `Absent` also where no latency selector is configured.
    pub latency: Reading<Buckets>,
    pub targets: Reading<Targets>,
    /// Custom signals by name, in the order of the policy.
    pub custom: Vec<(String, Reading<f64>)>,
    /// What a person should know of how the counts came about: "counter jump, N not counted".
    pub remarks: Vec<String>,
}

/// The answer to one [`crate::engine::message::Command::Observe`].
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Observation {
    Cell(Box<SlotCell>),
    /// No scrape of the slot ended since `from`: neither good nor bad news. `targets` is still read
    /// (an `up` of 0 is a sample, too).
    Empty {
        to: Timestamp,
        targets: Reading<Targets>,
    },
    /// The slot has no series at all in the window before `to`.
    Absent {
        to: Timestamp,
        targets: Reading<Targets>,
    },
    Failed(ReadFailure),
}

/// What a source knows of itself; it comes with each answer and steers the next tick.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct SourceClock {
    /// Prometheus's clock minus ours, in milliseconds.
    pub skew_ms: i64,
    /// How long a scrape may be on its way before it can be read.
    pub settle: Span,
    /// Spacing of the slot's scrapes, where it could be read.
    pub scrape_interval: Option<Span>,
}
