//! What a service could be judged by if it were switched now, from sums alone: a look, not a choice. The choice is made
//! when a watch opens, and leaves out what must not serve.

use crate::domain::account::RecordedSum;
use crate::domain::baseline::{Baseline, Provenance, Quality, Spread};
use crate::domain::policy::Policy;
use crate::domain::time::{Span, Timestamp};
use crate::judge::Rule;
use crate::words::numbers::{duration, percent, thousands};

/// What was recorded this long ago is looked at.
pub const LATELY: Span = Span::from_mins(60);

/// Recorded so long ago, it is told.
const OLD: Span = Span::from_mins(5);

#[derive(Debug, Clone, PartialEq)]
pub struct Glance {
    /// `good`, `old`, `too little` or `none`.
    pub word: &'static str,
    pub tone: &'static str,
    pub detail: String,
    /// The smallest multiple of the normal error rate that a soak can show; `None`: not even a total outage, or the
    /// plain rule, which states no chance of error.
    pub detectable: Option<f64>,
}

pub fn of(recorded: Option<&RecordedSum>, policy: &Policy, now: Timestamp) -> Glance {
    let Some(r) = recorded.filter(|r| r.counts.requests() > 0.0) else {
        let detail = "nothing was recorded in the last hour".to_owned();
        return Glance { word: "none", tone: "warn", detail, detectable: None };
    };
    let age = now.since(r.to);
    let rate = percent(r.counts.rate().unwrap_or(0.0));
    let aged = duration(age.as_secs_f64());
    let detail = format!("{} errors in {} requests of {}, {aged} old", rate, thousands(r.counts.requests()), r.slot);
    let little = r.cells < policy.baseline_cells_min || r.counts.requests() < policy.baseline_requests_min;
    let (word, tone) = match (little, age > OLD) {
        (true, _) => ("too little", "warn"),
        (false, true) => ("old", "warn"),
        (false, false) => ("good", "good"),
    };
    let baseline = Baseline {
        counts: r.counts,
        latency: None,
        covered: r.covered,
        cells: r.cells,
        spread: Spread::default(),
        peak_rate: 0.0,
        provenance: Provenance {
            from: r.from,
            to: r.to,
            slot: r.slot.clone(),
            version: None,
            previous_release_used: false,
            pinned: false,
            excluded: Vec::new(),
        },
        quality: Quality::Good,
    };
    let mut rule = Rule::new(policy);
    rule.with_baseline(&baseline);
    let expected = baseline.rate() * policy.phases().whole().as_secs_f64();
    let detectable = if little { None } else { rule.detectable(expected) };
    Glance { word, tone, detail, detectable }
}
