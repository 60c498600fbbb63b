//! Past switches, found in who had the traffic.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

use crate::domain::switch::{Slot, Version};
use crate::domain::time::{Span, Timestamp};

/// Who carries traffic: a slot, and what runs in it where the series say so.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Carrier {
    pub slot: Slot,
    pub version: Option<Version>,
}

/// Requests per second by carrier, on one grid of instants.
pub type Shares = BTreeMap<Carrier, Vec<(Timestamp, f64)>>;

/// Most of the traffic went from one carrier to another.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Move {
    /// The first instant at which the other had more than half.
    pub at: Timestamp,
    pub from: Carrier,
    pub to: Carrier,
}

/// For so many instants the new one must have the most: one look at a moment without traffic is no switch.
const HOLDS: usize = 2;

/// The moves in the order of time. An instant at which nobody has more than half says nothing.
pub fn moves(shares: &Shares) -> Vec<Move> {
    let instants: BTreeSet<Timestamp> = shares.values().flatten().map(|(at, _)| *at).collect();
    let by_time: Vec<(&Carrier, BTreeMap<Timestamp, f64>)> =
        shares.iter().map(|(carrier, points)| (carrier, points.iter().copied().collect())).collect();
    let (mut live, mut next): (Option<&Carrier>, Option<(&Carrier, Timestamp, usize)>) = (None, None);
    let mut found = Vec::new();
    for at in instants {
        let rates: Vec<(&Carrier, f64)> =
            by_time.iter().map(|(c, points)| (*c, points.get(&at).copied().unwrap_or(0.0))).collect();
        let all: f64 = rates.iter().map(|(_, rate)| rate).sum();
        let Some((leader, _)) = rates.into_iter().find(|(_, rate)| *rate > all / 2.0) else { continue };
        if live == Some(leader) {
            next = None;
            continue;
        }
        let (since, times) = match next {
            Some((who, since, times)) if who == leader => (since, times + 1),
            _ => (at, 1),
        };
        next = Some((leader, since, times));
        if times < HOLDS {
            continue;
        }
        if let Some(before) = live {
            found.push(Move { at: since, from: before.clone(), to: leader.clone() });
        }
        (live, next) = (Some(leader), None);
    }
    found
}

/// What a past switch was.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Kind {
    Release,
    /// Somebody moved the traffic back soon after a release.
    Revert,
}

/// A move back to where the traffic came from, within `window` of the move before it, is a rollback by hand: nothing
/// that flipback would watch.
pub fn kinds(moves: &[Move], window: Span) -> Vec<Kind> {
    let mut kinds: Vec<Kind> = Vec::with_capacity(moves.len());
    for (i, this) in moves.iter().enumerate() {
        let back = i.checked_sub(1).and_then(|i| moves.get(i)).is_some_and(|before| {
            // The release that came after a revert may well go to the same slot again.
            before.from == this.to && before.to == this.from && this.at.since(before.at) <= window
        });
        let after_release = i.checked_sub(1).and_then(|i| kinds.get(i)) == Some(&Kind::Release);
        kinds.push(if back && after_release { Kind::Revert } else { Kind::Release });
    }
    kinds
}

#[cfg(test)]
mod tests {
    use super::*;

    fn carrier(name: &str) -> Carrier {
        Carrier { slot: Slot::try_new(name).unwrap(), version: None }
    }

    fn at(minute: u64) -> Timestamp {
        Timestamp::from_millis(0) + Span::from_mins(minute)
    }

    /// A letter for each minute: who has the traffic; `.` is nobody, `x` is half and half.
    fn shares(timeline: &str) -> Shares {
        let mut shares = Shares::new();
        for (minute, who) in (0..).zip(timeline.chars()) {
            for name in ["blue", "green"] {
                let rate = match who {
                    'x' => 50.0,
                    c if name.starts_with(c) => 99.0,
                    '.' => 0.0,
                    _ => 1.0,
                };
                shares.entry(carrier(name)).or_default().push((at(minute), rate));
            }
        }
        shares
    }

    fn found(timeline: &str) -> Vec<(u64, String)> {
        let minute = |m: &Move| m.at.since(at(0)).as_millis() / 60_000;
        moves(&shares(timeline)).iter().map(|m| (minute(m), format!("{}→{}", m.from.slot, m.to.slot))).collect()
    }

    #[test]
    fn the_traffic_shows_its_moves() {
        assert_eq!(found("bbbbggggg"), [(4, "blue→green".to_owned())]);
        assert_eq!(found("bbbxxgggbbb"), [(5, "blue→green".to_owned()), (8, "green→blue".to_owned())]);
        assert_eq!(found("bbbb"), []);
        assert_eq!(found(""), []);
    }

    #[test]
    fn one_odd_look_or_a_time_without_traffic_is_no_switch() {
        assert_eq!(found("bbbgbbbb"), []);
        assert_eq!(found("bbb....bbb"), []);
        assert_eq!(found("bbb....ggg"), [(7, "blue→green".to_owned())], "it moved while nobody came");
        assert_eq!(found("..gg"), [], "what the first one came from is not known");
    }

    #[test]
    fn soon_back_is_a_rollback_by_hand_and_a_day_later_a_release() {
        let all = moves(&shares(&format!("bbbbgggggbbb{}gggg", "b".repeat(100))));
        assert_eq!(kinds(&all, Span::from_mins(30)), [Kind::Release, Kind::Revert, Kind::Release]);
        let slow = moves(&shares(&format!("bbbb{}bbbb", "g".repeat(100))));
        assert_eq!(kinds(&slow, Span::from_mins(30)), [Kind::Release, Kind::Release]);
        let thrice = moves(&shares("bbbbggggbbbbgggg"));
        assert_eq!(kinds(&thrice, Span::from_mins(30)), [Kind::Release, Kind::Revert, Kind::Release], "tried again");
    }

    #[test]
    fn versions_in_one_place_are_carriers_too() {
        let of = |version: &str| Carrier {
            slot: Slot::try_new("all").unwrap(),
            version: Some(Version::try_new(version).unwrap()),
        };
        let rate =
            |from: u64, to: u64| (0..10).map(|m| (at(m), if (from..to).contains(&m) { 9.0 } else { 0.0 })).collect();
        let shares = Shares::from([(of("v1"), rate(0, 5)), (of("v2"), rate(5, 10))]);
        let all = moves(&shares);
        assert_eq!((all.len(), all[0].at, all[0].to.version.as_ref().map(|v| v.as_str())), (1, at(5), Some("v2")));
    }
}
