//! Statistics: numbers in, evidence out. No clock, no I/O, no names of services.
//!
//! [`Rule`] is the seam behind which a watch is judged; today's only rule is the plain threshold.

pub mod alive;
pub mod detect;
pub mod eprocess;
pub mod normal;
pub mod quantile;
pub mod recorded;
pub mod tail;
pub mod threshold;

use serde::{Deserialize, Serialize};

use crate::domain::baseline::Baseline;
use crate::domain::counts::{Buckets, Counts};
use crate::domain::policy::{Limits, WarmUp};
use crate::domain::time::{Span, Timestamp};
use crate::domain::verdict::Evidence;

/// One slot's counts over one interval, as a rule takes them. What is absent is absent.
#[derive(Debug, Clone, Copy)]
pub struct Tick<'a> {
    pub from: Timestamp,
    pub to: Timestamp,
    /// From the cut-over to `to`.
    pub since_cut_over: Span,
    pub counts: Option<Counts>,
    pub latency: Option<&'a Buckets>,
    pub custom: &'a [(String, Option<f64>)],
}

/// How a watch is judged. State and all: it is part of the watch's snapshot.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Rule {
    Threshold(threshold::Threshold),
}

impl Rule {
    pub fn new(limits: &Limits, warm_up: WarmUp) -> Rule {
        Rule::Threshold(threshold::Threshold::new(limits.clone(), warm_up))
    }

    /// The baseline may come after the first ticks; what was judged before it stays as it was.
    pub fn with_baseline(&mut self, baseline: &Baseline) {
        match self {
            Rule::Threshold(rule) => rule.with_baseline(baseline),
        }
    }

    pub fn tick(&mut self, tick: &Tick<'_>) {
        match self {
            Rule::Threshold(rule) => rule.tick(tick),
        }
    }

    pub fn evidence(&self) -> Vec<Evidence> {
        match self {
            Rule::Threshold(rule) => rule.evidence(),
        }
    }

    /// Since when the signals that breached have been above their limit; `None` while none has.
    pub fn breached_since(&self) -> Option<Timestamp> {
        match self {
            Rule::Threshold(rule) => rule.breached_since(),
        }
    }

    /// Whether any signal stood above its limit at the last tick.
    pub fn any_above(&self) -> bool {
        match self {
            Rule::Threshold(rule) => rule.any_above(),
        }
    }

    /// Requests judged since the cut-over.
    pub fn requests(&self) -> f64 {
        match self {
            Rule::Threshold(rule) => rule.requests(),
        }
    }

    /// Requests that this soak needs before it could have shown a ratio of `must_detect`.
    pub fn requests_needed(&self) -> f64 {
        match self {
            Rule::Threshold(rule) => rule.requests_needed(),
        }
    }
}
