//! A day or a week at a glance: what was switched, how it ended, and what is not guarded.

use serde::{Deserialize, Serialize};

use super::policy::Mode;
use super::switch::{ServiceName, SwitchId};
use super::time::Timestamp;
use super::verdict::{Outcome, SignalState, Withheld};
use super::view::WatchView;

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Digest {
    pub from: Timestamp,
    pub to: Timestamp,
    /// Oldest first.
    pub switches: Vec<DigestSwitch>,
    /// Switches that are not listed: a digest is read over coffee.
    pub more: u32,
    pub services: Vec<DigestService>,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct DigestSwitch {
    pub id: SwitchId,
    pub service: ServiceName,
    pub what: String,
    pub opened_at: Timestamp,
    /// The outcome's word, or `open`.
    pub word: String,
    pub detail: Option<String>,
    /// Passed, and why that was close.
    pub near_miss: Option<String>,
    /// Would have been rolled back if flipback were allowed to.
    pub would_have: bool,
    pub drill: bool,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct DigestService {
    pub name: ServiceName,
    pub mode: Mode,
    pub armed: bool,
    /// Why its traffic cannot show the ratio that was asked for.
    pub too_thin: Option<String>,
}

/// Evidence of so much against a release that passed is worth a look.
const NEAR_ONE_IN: f64 = 20.0;

impl DigestSwitch {
    pub fn of(w: &WatchView) -> DigestSwitch {
        let drill = w.is_drill();
        let version = w.switch.version.as_ref().map_or(String::new(), |v| format!(" ({v})"));
        let what = match drill {
            true => format!("drill {} → {} and home", w.switch.new, w.switch.old),
            false => format!("{} → {}{version}", w.switch.old, w.switch.new),
        };
        DigestSwitch {
            id: w.id.clone(),
            service: w.switch.service.clone(),
            what,
            opened_at: w.opened_at,
            word: w.outcome.as_ref().map_or("open", Outcome::word).to_owned(),
            detail: w.outcome.as_ref().and_then(Outcome::detail),
            near_miss: near_miss(w),
            would_have: w.outcome == Some(Outcome::Withheld { why: Withheld::ObserveMode }),
            drill,
        }
    }
}

fn near_miss(w: &WatchView) -> Option<String> {
    if !matches!(w.outcome, Some(Outcome::Passed { .. })) {
        return None;
    }
    let near: Vec<String> = w
        .evidence
        .iter()
        .filter(|e| {
            let above = e.value.zip(e.limit).is_some_and(|(value, limit)| value > limit);
            e.state == SignalState::Above || above || e.proof.is_some_and(|p| p.one_in >= NEAR_ONE_IN)
        })
        .map(|e| match e.ratio {
            Some(ratio) => format!("{} {ratio:.1}× the normal", e.signal),
            None => e.signal.to_string(),
        })
        .collect();
    (!near.is_empty()).then(|| near.join(", "))
}
