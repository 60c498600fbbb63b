//! The recorded normal that a soak is judged by, frozen when the watch opens.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::counts::{Buckets, Counts};
use super::service::{Metrics, SlotSpec};
use super::signal::Quantile;
use super::switch::{ServiceName, Slot, Version};
use super::time::{Span, Timestamp};

/// Sufficient statistics with their provenance.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Baseline {
    pub counts: Counts,
    pub latency: Option<Buckets>,
    /// Time covered by the chosen cells (gaps and exclusions left out).
    pub covered: Span,
    pub cells: u32,
    pub spread: Spread,
    /// Highest request rate of one cell, requests per second: the bound for plausible births.
    pub peak_rate: f64,
    pub provenance: Provenance,
    pub quality: Quality,
}

/// How bursty the bad requests are, and how much worse the day's worst hour is.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Spread {
    /// Index of dispersion of the errors, at least 1.
    pub errors: f64,
    /// The same of slow requests, per judged quantile.
    pub latency: Vec<(Quantile, f64)>,
    /// At least 1; 1 below six hours of baseline.
    pub env: f64,
}

impl Default for Spread {
    fn default() -> Self {
        // What the rule assumes before anything was seen.
        Self { errors: 1.5, latency: Vec::new(), env: 1.0 }
    }
}

impl Spread {
    pub fn latency(&self, quantile: Quantile) -> f64 {
        self.latency.iter().find(|(q, _)| *q == quantile).map_or(1.5, |(_, phi)| *phi)
    }
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Provenance {
    pub from: Timestamp,
    pub to: Timestamp,
    pub slot: Slot,
    pub version: Option<Version>,
    /// Whether cells of the release before the live one had to be used.
    pub previous_release_used: bool,
    /// A person pinned this range.
    pub pinned: bool,
    /// What was left out, in words with counts: "4 cells of watch checkout-12 (rolled back)".
    pub excluded: Vec<String>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Quality {
    Good,
    /// Below the configured number of cells or requests: only absolute limits and `alive` judge.
    TooLittle {
        why: String,
    },
    /// The hour before the switch was itself an incident: the numbers are the 24 h median's, and a
    /// rollback is withheld, because its target was bad.
    Incident {
        why: String,
    },
}

impl Baseline {
    /// Whether ratios to this baseline may be judged.
    pub fn usable(&self) -> bool {
        match self.quality {
            Quality::Good | Quality::Incident { .. } => true,
            Quality::TooLittle { .. } => false,
        }
    }

    /// Requests per second over the covered time.
    pub fn rate(&self) -> f64 {
        let s = self.covered.as_secs_f64();
        if s > 0.0 { self.counts.requests() / s } else { 0.0 }
    }
}

/// The question for a baseline, as a watch puts it when it opens.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct BaselineAsk {
    pub service: ServiceName,
    pub slot: Slot,
    pub other: Slot,
    pub metrics: Metrics,
    /// The cut-over (or the announcement, while the cut-over is not known).
    pub before: Timestamp,
    pub soak: Span,
    /// A long phase is judged by the whole day before, not by the hours that agree with the last.
    pub whole_day: bool,
    pub cells_min: u32,
    pub requests_min: f64,
    pub slots: BTreeMap<Slot, SlotSpec>,
}
