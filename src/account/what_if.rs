//! What would have changed a verdict, and what the rules of other tools do with the same counts.

use serde::{Deserialize, Serialize};

use super::replay::Replay;
use super::rivals::{Rival, Seen, SeenTick, by_minute};
use crate::domain::account::Account;
use crate::domain::policy::{Alpha, Policy, Ratio, RuleKind};
use crate::domain::verdict::{Outcome, Withheld};
use crate::domain::view::WatchView;
use crate::words::numbers::{duration, one_in};

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct WhatIf {
    pub change: String,
    /// Seconds after the cut-over at which it would have been called a breach; absent: not within what was read.
    pub breached_s: Option<f64>,
    pub text: String,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct RivalSays {
    pub name: String,
    pub rule: String,
    /// Seconds after the cut-over; absent: never within what was read.
    pub rolls_back_s: Option<f64>,
    pub text: String,
}

/// `by_readings`: no health check and no person decided it, so another limit could have.
pub(super) fn what_if(w: &WatchView, replay: &Replay<'_>, by_readings: bool) -> Vec<WhatIf> {
    let base = replay.policy;
    let mut all = Vec::new();
    if let Some(Outcome::Withheld { why }) = &w.outcome {
        all.push(held(why));
    }
    let said = |breached_s: Option<f64>| match breached_s {
        Some(s) => format!("a breach {} after the cut-over", duration(s)),
        None => "no breach within what was read".to_owned(),
    };
    let breached = |policy: &Policy| replay.breached(policy).map(|at| replay.seconds(replay.cells[at].to));
    let ratio = |r: f64| Ratio::try_new(r).ok();
    let with = |r: Ratio| {
        let mut policy = base.clone();
        policy.limits.ratio = r;
        policy
    };
    let mut by_ratio: Vec<(Vec<String>, Option<f64>)> = Vec::new();
    for r in [1.2, 1.5, 2.0, 3.0, 5.0, 10.0].into_iter().filter(|r| *r != base.limits.ratio.get()).filter_map(ratio) {
        let (name, found) = (format!("{}×", r.get()), breached(&with(r)));
        // Limits that make no difference are told in one line.
        match by_ratio.last_mut() {
            Some((names, same)) if *same == found => names.push(name),
            _ => by_ratio.push((vec![name], found)),
        }
    }
    all.extend(by_ratio.into_iter().map(|(names, breached_s)| WhatIf {
        change: format!("a limit of {} in the place of {}×", names.join(", "), base.limits.ratio.get()),
        breached_s,
        text: said(breached_s),
    }));
    let mut try_it = |change: String, policy: &Policy| {
        let breached_s = breached(policy);
        all.push(WhatIf { change, breached_s, text: said(breached_s) });
    };
    if base.rule != RuleKind::Threshold {
        for alpha in [0.01, 0.000_1].into_iter().filter(|a| *a != base.limits.alpha.get()) {
            let Ok(a) = Alpha::try_new(alpha) else { continue };
            let mut policy = base.clone();
            policy.limits.alpha = a;
            try_it(
                format!(
                    "evidence of {} in the place of {}",
                    one_in(1.0 / alpha),
                    one_in(1.0 / base.limits.alpha.get())
                ),
                &policy,
            );
        }
        let plain = Policy { rule: RuleKind::Threshold, ..base.clone() };
        try_it(format!("the plain rule, {} ticks in a row", base.limits.ticks), &plain);
    } else {
        try_it("the evidence rule".into(), &Policy { rule: RuleKind::Evidence, ..base.clone() });
    }
    if by_readings {
        all.extend(edge(replay, &with));
    }
    all
}

/// The largest limit by which it would still have been a breach: halving finds it to two digits.
fn edge(replay: &Replay<'_>, with: &impl Fn(Ratio) -> Policy) -> Option<WhatIf> {
    let breaks = |r: f64| Ratio::try_new(r).is_ok_and(|r| replay.breached(&with(r)).is_some());
    let (mut low, mut high) = (1.01, 1000.0);
    if !breaks(low) {
        let text = "no limit above the normal itself would have made it a breach".to_owned();
        return Some(WhatIf { change: "any limit".into(), breached_s: None, text });
    }
    if breaks(high) {
        return None;
    }
    while high / low > 1.02 {
        let middle: f64 = libm::sqrt(low * high);
        if breaks(middle) { low = middle } else { high = middle }
    }
    let text = format!("up to about {low:.1}× it is a breach within what was read, beyond that it is not (yet)");
    Some(WhatIf { change: "the limit that divides".into(), breached_s: None, text })
}

/// What kept a breach from being acted on.
fn held(why: &Withheld) -> WhatIf {
    let (change, text) = match why {
        Withheld::ObserveMode => ("mode = \"auto\"", "it would have been rolled back at once"),
        Withheld::Disarmed => ("armed", "it would have been rolled back at once"),
        Withheld::RollbackUnsafe => ("announced as safe to roll back", "it would have been rolled back"),
        Withheld::NoPlan => ("a plan with steps", "there would have been something to run"),
        Withheld::Declined { .. } | Withheld::NotApproved => ("an approval", "it would have been rolled back"),
        Withheld::NoSafeTarget { .. } => ("an old slot that serves", "there would have been where to go back to"),
        Withheld::Preflight { .. } => ("a preflight that holds", "the steps would have been run"),
        Withheld::ControlToo { .. } => ("controls that stay well", "the switch would have been the cause"),
        Withheld::TargetWasBad { .. } => ("a normal that is none of an incident", "it would have been rolled back"),
        Withheld::Brake { .. } => ("brakes that are open", "it would have been rolled back at once"),
    };
    WhatIf { change: change.into(), breached_s: None, text: text.into() }
}

// ---------------------------------------------------------------------- the rules of other tools

/// `breached`: the place of the tick by which our own rule calls it a breach.
pub(super) fn rivals(account: &Account, replay: &Replay<'_>, breached: Option<usize>) -> Vec<RivalSays> {
    let ours = breached.map(|at| replay.seconds(replay.cells[at].to));
    let seen = Seen {
        minutes: minutes(account),
        ticks: replay
            .cells
            .iter()
            .filter_map(|cell| {
                let counts = cell.counts.value()?;
                Some(SeenTick { to_s: replay.seconds(cell.to), requests: counts.requests(), bad: counts.bad() })
            })
            .collect(),
    };
    let says = |rival: Rival| {
        let at = rival.rolls_back_s(&seen);
        let text = match (at, ours) {
            (Some(at), Some(ours)) if at + 0.5 < ours => {
                format!("rolls back at {}, {} before", duration(at), duration(ours - at))
            }
            (Some(at), Some(ours)) if at > ours + 0.5 => {
                format!("rolls back at {}, {} after", duration(at), duration(at - ours))
            }
            (Some(at), Some(_)) => format!("rolls back at {}, too", duration(at)),
            (Some(at), None) => format!("rolls back at {}, where flipback finds no breach", duration(at)),
            (None, Some(_)) => "does not roll back within what was read".to_owned(),
            (None, None) => "does not roll back, either".to_owned(),
        };
        RivalSays { name: rival.name().into(), rule: rival.says().into(), rolls_back_s: at, text }
    };
    Rival::ALL.map(says).into()
}

/// The recorded normal by minutes; its own sum where its cells are gone.
fn minutes(account: &Account) -> Vec<(f64, f64)> {
    let all = by_minute(&account.normal);
    if all.is_empty() {
        return account.view.baseline.iter().map(|b| (b.counts.requests(), b.counts.bad())).collect();
    }
    all
}
