//! Statistics: numbers in, evidence out. No clock, no I/O, no names of services.
//!
//! [`Rule`] is the seam behind which a watch is judged: the evidence rule (`weighing` of one `eprocess`
//! per signal against the recorded `normal`), the plain `threshold`, or whichever speaks first.

pub mod alive;
pub mod detect;
pub mod eprocess;
pub mod normal;
pub mod quantile;
pub mod recorded;
pub mod tail;
pub mod threshold;
mod weighed;
pub mod weighing;

use serde::{Deserialize, Serialize};

use crate::domain::baseline::Baseline;
use crate::domain::counts::{Buckets, Counts};
use crate::domain::policy::{Policy, RuleKind};
use crate::domain::signal::Signal;
use crate::domain::time::{Span, Timestamp};
use crate::domain::verdict::{Evidence, SignalState};
use threshold::Threshold;
use weighing::Weighing;

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
    Threshold(Box<Threshold>),
    Evidence(Box<Weighing>),
    Either { evidence: Box<Weighing>, threshold: Box<Threshold> },
}

/// What the evidence of one signal is weighed by, for people.
#[derive(Debug, Clone, PartialEq)]
pub struct Scale {
    pub signal: Signal,
    /// Its part of alpha.
    pub weight: f64,
    /// Recorded requests, and how many of them were bad (or slower than `bound_s`).
    pub requests: f64,
    pub bad: f64,
    pub burstiness: f64,
    /// How much worse the worst hour of the day is.
    pub env: f64,
    /// Breaching multiple of the normal; 1 where it is in `bound_s` already.
    pub k: f64,
    pub floor: f64,
    /// The share of bad requests that is no breach yet: its middle, and how far the normal is unsure.
    pub limit: f64,
    pub limits: (f64, f64),
    /// Latency: a request beyond this is a slow one.
    pub bound_s: Option<f64>,
}

impl Rule {
    pub fn new(policy: &Policy) -> Rule {
        let threshold = || Box::new(Threshold::new(policy.limits.clone(), policy.warm_up));
        let evidence = || Box::new(Weighing::new(&policy.limits, policy.warm_up, policy.phases()));
        match policy.rule {
            RuleKind::Threshold => Rule::Threshold(threshold()),
            RuleKind::Evidence => Rule::Evidence(evidence()),
            RuleKind::Either => Rule::Either { evidence: evidence(), threshold: threshold() },
        }
    }

    fn parts(&self) -> (Option<&Weighing>, Option<&Threshold>) {
        match self {
            Rule::Threshold(threshold) => (None, Some(threshold)),
            Rule::Evidence(evidence) => (Some(evidence), None),
            Rule::Either { evidence, threshold } => (Some(evidence), Some(threshold)),
        }
    }

    fn parts_mut(&mut self) -> (Option<&mut Weighing>, Option<&mut Threshold>) {
        match self {
            Rule::Threshold(threshold) => (None, Some(threshold)),
            Rule::Evidence(evidence) => (Some(evidence), None),
            Rule::Either { evidence, threshold } => (Some(evidence), Some(threshold)),
        }
    }

    /// The baseline may come after the first ticks.
    pub fn with_baseline(&mut self, baseline: &Baseline) {
        let (evidence, threshold) = self.parts_mut();
        if let Some(rule) = evidence {
            rule.with_baseline(baseline);
        }
        if let Some(rule) = threshold {
            rule.with_baseline(baseline);
        }
    }

    /// There is none, and there will be none.
    pub fn without_baseline(&mut self) {
        if let (Some(rule), _) = self.parts_mut() {
            rule.without_baseline();
        }
    }

    /// The cut-over is confirmed, at this instant of the ticks' clock.
    pub fn begin(&mut self, cut_over: Timestamp) {
        if let (Some(rule), _) = self.parts_mut() {
            rule.begin(cut_over);
        }
    }

    pub fn tick(&mut self, tick: &Tick<'_>) {
        let (evidence, threshold) = self.parts_mut();
        if let Some(rule) = evidence {
            rule.tick(tick);
        }
        if let Some(rule) = threshold {
            rule.tick(tick);
        }
    }

    /// What people are shown of each signal; where both rules judge, the one that broke speaks.
    pub fn evidence(&self) -> Vec<Evidence> {
        match self.parts() {
            (Some(evidence), None) => evidence.evidence(),
            (None, Some(threshold)) => threshold.evidence(),
            (Some(evidence), Some(threshold)) => {
                let mut all = evidence.evidence();
                for plain in threshold.evidence() {
                    match all.iter_mut().find(|e| e.signal == plain.signal) {
                        Some(e) if plain.state == SignalState::Breached && e.state != SignalState::Breached => {
                            *e = Evidence { proof: e.proof, ..plain };
                        }
                        Some(_) => {}
                        None => all.push(plain),
                    }
                }
                all
            }
            (None, None) => Vec::new(),
        }
    }

    /// Since when the signals that breached have been above their limit; `None` while none has.
    pub fn breached_since(&self) -> Option<Timestamp> {
        let (evidence, threshold) = self.parts();
        let both = [evidence.and_then(Weighing::breached_since), threshold.and_then(Threshold::breached_since)];
        both.into_iter().flatten().min()
    }

    /// Whether something stood above its limit at the last tick: too much to pass.
    pub fn any_above(&self) -> bool {
        let (evidence, threshold) = self.parts();
        match (evidence, threshold) {
            (Some(rule), _) => rule.uneasy(),
            (None, Some(rule)) => rule.any_above(),
            (None, None) => false,
        }
    }

    /// Requests judged since the cut-over.
    pub fn requests(&self) -> f64 {
        match self.parts() {
            (Some(rule), _) => rule.requests(),
            (None, Some(rule)) => rule.requests(),
            (None, None) => 0.0,
        }
    }

    /// Requests that this soak needs before it could have shown a ratio of `must_detect`.
    pub fn requests_needed(&self) -> f64 {
        match self.parts() {
            (Some(rule), _) => rule.requests_needed(),
            (None, Some(rule)) => rule.requests_needed(),
            (None, None) => 0.0,
        }
    }

    /// ln of the evidence of all signals together; `None` for the plain rule and without a baseline.
    pub fn ln_e(&self) -> Option<f64> {
        self.parts().0.and_then(Weighing::ln_e)
    }

    /// The error rate that a multiple of the normal is.
    pub fn share_at(&self, multiple: f64) -> Option<f64> {
        self.parts().0.and_then(|rule| rule.share_at(multiple))
    }

    /// What each signal is weighed by; empty for the plain rule and without a baseline.
    pub fn scales(&self) -> Vec<Scale> {
        self.parts().0.map(Weighing::scales).unwrap_or_default()
    }

    /// The smallest multiple of the normal error rate that so many requests can show.
    pub fn detectable(&self, requests: f64) -> Option<f64> {
        self.parts().0.and_then(|rule| rule.detectable(requests))
    }
}
