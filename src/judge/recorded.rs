//! Choosing the recorded normal: which cells a soak is judged by, and why the others are not.

use std::collections::BTreeMap;

use super::normal::{Pair, dispersion, envelope};
use super::tail::{beyond, nearest_bound};
use crate::domain::baseline::{Baseline, BaselineAsk, Provenance, Quality, Spread};
use crate::domain::counts::{Buckets, Cell, Counts};
use crate::domain::signal::Quantile;
use crate::domain::switch::{Slot, SwitchId, Version};
use crate::domain::time::{Span, Timestamp};
use crate::domain::verdict::Outcome;

/// The fast phase is judged by the last hour, and by more where the hours before agree with it.
const HOUR: Span = Span::from_mins(60);
const HOURS_MAX: u32 = 24;

/// A minute (or the whole last hour) this many times above the day's median is an incident of its own.
const INCIDENT_RATIO: f64 = 5.0;
/// ... but never on the strength of fewer bad requests than this.
const INCIDENT_EVENTS_MIN: f64 = 5.0;

/// Two hours agree while their error rates differ by less than three standard errors.
const AGREE_Z: f64 = 3.0;

/// Cells are counted in quarters of a minute: a merged minute counts as four.
const CELL: Span = Span::from_secs(15);

/// What is known besides the question.
#[derive(Debug, Clone, Default)]
pub struct Facts {
    pub cells: Vec<SlotCell>,
    pub watches: Vec<PastWatch>,
    pub invalid: Vec<(Timestamp, Timestamp)>,
    pub pin: Option<(Timestamp, Timestamp)>,
}

#[derive(Debug, Clone, PartialEq)]
pub struct SlotCell {
    pub slot: Slot,
    pub cell: Cell,
}

#[derive(Debug, Clone)]
pub struct PastWatch {
    pub id: SwitchId,
    pub old: Slot,
    pub new: Slot,
    pub version: Option<Version>,
    pub cut_over_at: Timestamp,
    pub soak: Span,
    pub ended_at: Option<Timestamp>,
    pub outcome: Option<Outcome>,
    pub breached: bool,
}

impl PastWatch {
    fn accepted(&self) -> bool {
        matches!(self.outcome, Some(Outcome::Passed { .. }))
    }

    fn cancelled(&self) -> bool {
        matches!(self.outcome, Some(Outcome::Cancelled { .. }))
    }

    fn ended_or(&self, otherwise: Timestamp) -> Timestamp {
        self.ended_at.unwrap_or(otherwise)
    }
}

/// The baseline for the ask, or why there is none at all. `floor` is the error rate below which
/// nothing counts as an incident.
pub fn choose(ask: &BaselineAsk, facts: &Facts, floor: f64) -> Result<Baseline, String> {
    let mut excluded = Excluded::default();
    let by_slot = ask.metrics.by_slot();
    let live_since = facts
        .watches
        .iter()
        .filter(|w| w.new == ask.slot && w.cut_over_at <= ask.before && w.old != w.new)
        .map(|w| w.cut_over_at)
        .max();
    let mut cells: Vec<&SlotCell> = facts.cells.iter().filter(|c| c.cell.to <= ask.before).collect();
    cells.sort_by_key(|c| (c.cell.to, c.slot.clone()));
    if let Some((from, to)) = facts.pin {
        let pinned: Vec<_> = cells
            .iter()
            .filter(|c| (!by_slot || c.slot == ask.slot) && c.cell.from >= from && c.cell.to <= to)
            .map(|c| &c.cell)
            .collect();
        return finish(ask, &ask.slot, &pinned, excluded, Quality::Good, true, false);
    }
    // The live release is the old slot since its own cut-over; before that, and only where that is too
    // little, the release before it, which was in the other slot.
    let (live, previous): (Vec<_>, Vec<_>) = cells
        .into_iter()
        .filter(|c| keep(c, ask, facts, by_slot, live_since, &mut excluded))
        .partition(|c| !by_slot || (c.slot == ask.slot && live_since.is_none_or(|since| c.cell.from >= since)));
    let mut live: Vec<&Cell> = live.into_iter().map(|c| &c.cell).collect();
    let median = median_rate(&live);
    drop_incidents(&mut live, median, floor, &mut excluded);
    let mut used_previous = false;
    let mut of_slot = &ask.slot;
    if enough(ask, &live).is_err() && !previous.is_empty() {
        let mut older: Vec<&Cell> = previous
            .into_iter()
            .filter(|c| c.slot == ask.other && live_since.is_some_and(|since| c.cell.to <= since))
            .map(|c| &c.cell)
            .collect();
        drop_incidents(&mut older, median, floor, &mut excluded);
        used_previous = !older.is_empty();
        if live.is_empty() {
            of_slot = &ask.other;
        }
        live.extend(older);
        live.sort_by_key(|c| c.to);
    }
    if live.is_empty() {
        return Err(format!("nothing was recorded of {} before {}{}", ask.slot, ask.before, excluded.suffix()));
    }
    let incident = last_hour_incident(ask, facts, by_slot, median, floor);
    let chosen = match &incident {
        // The whole day stands for the normal.
        Some(_) => live,
        None if ask.whole_day => of_the_day(ask.before, live),
        None => agreeing_hours(ask.before, live, &mut excluded),
    };
    let quality = match incident {
        Some(why) => Quality::Incident { why },
        None => Quality::Good,
    };
    finish(ask, of_slot, &chosen, excluded, quality, false, used_previous)
}

/// What was left out, with how many cells.
#[derive(Debug, Default)]
struct Excluded(BTreeMap<String, u64>);

impl Excluded {
    fn count(&mut self, why: String) {
        *self.0.entry(why).or_default() += 1;
    }

    fn lines(&self) -> Vec<String> {
        self.0.iter().map(|(why, n)| format!("{n} cells {why}")).collect()
    }

    fn suffix(&self) -> String {
        if self.0.is_empty() { String::new() } else { format!(" (left out: {})", self.lines().join("; ")) }
    }
}

fn keep(
    c: &SlotCell,
    ask: &BaselineAsk,
    facts: &Facts,
    by_slot: bool,
    live_since: Option<Timestamp>,
    excluded: &mut Excluded,
) -> bool {
    let cell = &c.cell;
    // Idle slots tell nothing of the traffic: only the slot that was live at the time counts.
    let live_then = if !by_slot {
        true
    } else if c.slot == ask.slot {
        live_since.is_none_or(|since| cell.from >= since)
    } else {
        c.slot == ask.other && live_since.is_some_and(|since| cell.to <= since)
    };
    if !live_then {
        return false;
    }
    if facts.invalid.iter().any(|(from, to)| cell.from < *to && cell.to > *from) {
        excluded.count("in ranges marked invalid".into());
        return false;
    }
    for w in &facts.watches {
        let during = cell.to > w.cut_over_at && cell.from < w.ended_or(ask.before);
        let on_its_slot = !by_slot || c.slot == w.new;
        if !on_its_slot || w.ended_at.is_none() {
            continue;
        }
        if during && (w.breached || w.cancelled()) {
            let what = if w.breached { "breached" } else { "was cancelled" };
            excluded.count(format!("of watch {}, which {what}", w.id));
            return false;
        }
        let in_fast_phase = cell.to > w.cut_over_at && cell.from < w.cut_over_at + w.soak;
        if in_fast_phase && !w.accepted() {
            excluded.count(format!("of the soak of {}, which was not accepted", w.id));
            return false;
        }
    }
    true
}

/// Median of the cells' own error rates, weighted by requests.
fn median_rate(cells: &[&Cell]) -> f64 {
    let mut rates: Vec<(f64, f64)> =
        cells.iter().filter_map(|c| c.counts.rate().map(|rate| (rate, c.counts.requests()))).collect();
    rates.sort_by(|a, b| a.0.total_cmp(&b.0));
    let half = rates.iter().map(|(_, n)| n).sum::<f64>() / 2.0;
    let mut below = 0.0;
    for (rate, n) in rates {
        below += n;
        if below >= half {
            return rate;
        }
    }
    0.0
}

fn is_incident(counts: Counts, median: f64, floor: f64) -> bool {
    let limit = (median * INCIDENT_RATIO).max(floor * INCIDENT_RATIO);
    counts.bad() >= INCIDENT_EVENTS_MIN && counts.rate().is_some_and(|rate| rate > limit)
}

fn drop_incidents(cells: &mut Vec<&Cell>, median: f64, floor: f64, excluded: &mut Excluded) {
    let minute = |c: &Cell| c.to.shifted(-1).floor_to(Span::from_mins(1));
    let mut minutes: BTreeMap<Timestamp, Counts> = BTreeMap::new();
    for cell in cells.iter() {
        let sum = minutes.entry(minute(cell)).or_default();
        *sum = sum.plus(cell.counts);
    }
    cells.retain(|cell| {
        let bad = minutes.get(&minute(cell)).is_some_and(|counts| is_incident(*counts, median, floor));
        if bad {
            excluded.count(format!("of minutes above {INCIDENT_RATIO} × the day's median error rate"));
        }
        !bad
    });
}

/// Whether the last hour as a whole, nothing left out but what a person marked, was an incident.
fn last_hour_incident(ask: &BaselineAsk, facts: &Facts, by_slot: bool, median: f64, floor: f64) -> Option<String> {
    let sum = facts
        .cells
        .iter()
        .filter(|c| (!by_slot || c.slot == ask.slot) && c.cell.to <= ask.before && c.cell.from >= ask.before - HOUR)
        .filter(|c| !facts.invalid.iter().any(|(from, to)| c.cell.from < *to && c.cell.to > *from))
        .fold(Counts::default(), |sum, c| sum.plus(c.cell.counts));
    is_incident(sum, median, floor).then(|| {
        format!(
            "{:.2} % errors in the hour before the switch, where the day's median is {:.2} %",
            sum.rate().unwrap_or(0.0) * 100.0,
            median * 100.0
        )
    })
}

fn of_the_day(before: Timestamp, cells: Vec<&Cell>) -> Vec<&Cell> {
    cells.into_iter().filter(|c| c.from >= before - HOUR.times(u64::from(HOURS_MAX))).collect()
}

/// The last hour, and the hours before it for as long as they agree: with its error rate (a test of two
/// proportions) and its histogram's bounds.
fn agreeing_hours<'a>(before: Timestamp, cells: Vec<&'a Cell>, excluded: &mut Excluded) -> Vec<&'a Cell> {
    let hour_of = |c: &Cell| u32::try_from(before.since(c.to).as_millis() / HOUR.as_millis()).unwrap_or(u32::MAX);
    let mut hours: BTreeMap<u32, Vec<&Cell>> = BTreeMap::new();
    for cell in cells {
        hours.entry(hour_of(cell)).or_default().push(cell);
    }
    let mut chosen: Vec<&Cell> = Vec::new();
    let mut sum = Counts::default();
    let mut disagreed = false;
    for (hour, cells) in hours {
        let counts = cells.iter().fold(Counts::default(), |sum, c| sum.plus(c.counts));
        disagreed |= hour >= HOURS_MAX || !(chosen.is_empty() || agree(sum, counts));
        if disagreed {
            cells.iter().for_each(|_| excluded.count("of earlier hours that differ from the last".into()));
            continue;
        }
        sum = sum.plus(counts);
        chosen.extend(cells);
    }
    chosen.sort_by_key(|c| c.to);
    chosen
}

fn agree(a: Counts, b: Counts) -> bool {
    let (n, m) = (a.requests(), b.requests());
    if n <= 0.0 || m <= 0.0 {
        return true;
    }
    // Half an event each, so that two hours without errors are no division by zero.
    let (p, q) = ((a.bad() + 0.5) / (n + 1.0), (b.bad() + 0.5) / (m + 1.0));
    let pooled = (a.bad() + b.bad() + 1.0) / (n + m + 2.0);
    let error = (pooled * (1.0 - pooled) * (1.0 / n + 1.0 / m)).sqrt();
    (p - q).abs() <= AGREE_Z * error
}

fn quarters(cells: &[&Cell]) -> u32 {
    let total: u64 = cells.iter().map(|c| (c.length().as_millis() / CELL.as_millis()).max(1)).sum();
    u32::try_from(total).unwrap_or(u32::MAX)
}

fn enough(ask: &BaselineAsk, cells: &[&Cell]) -> Result<(), String> {
    let have = quarters(cells);
    let requests: f64 = cells.iter().map(|c| c.counts.requests()).sum();
    if have >= ask.cells_min && requests >= ask.requests_min {
        return Ok(());
    }
    Err(format!(
        "{requests:.0} requests in {have} cells were recorded, {:.0} in {} are needed to judge ratios",
        ask.requests_min, ask.cells_min
    ))
}

fn finish(
    ask: &BaselineAsk,
    of_slot: &Slot,
    cells: &[&Cell],
    mut excluded: Excluded,
    quality: Quality,
    pinned: bool,
    previous_release_used: bool,
) -> Result<Baseline, String> {
    let (Some(first), Some(last)) = (cells.first(), cells.last()) else {
        return Err(format!("nothing was recorded of {} in the pinned range{}", ask.slot, excluded.suffix()));
    };
    // The newest histogram's bounds hold: an app that changed its buckets cannot be added up.
    let newest = cells.iter().rev().find_map(|c| c.latency.as_ref());
    let mut latency: Option<Buckets> = None;
    for cell in cells {
        let Some(buckets) = &cell.latency else { continue };
        if newest.is_some_and(|n| n.bounds() != buckets.bounds()) {
            excluded.count("whose histogram had other bounds (latency only)".into());
            continue;
        }
        latency = match latency {
            None => Some(buckets.clone()),
            Some(sum) => sum.plus(buckets).or(Some(sum)),
        };
    }
    let counts = cells.iter().fold(Counts::default(), |sum, c| sum.plus(c.counts));
    let quality = match enough(ask, cells) {
        Ok(()) => quality,
        Err(why) => Quality::TooLittle { why },
    };
    let spread = spread(cells, latency.as_ref());
    Ok(Baseline {
        counts,
        latency,
        spread,
        covered: cells.iter().fold(Span::ZERO, |sum, c| sum + c.length()),
        cells: quarters(cells),
        peak_rate: cells.iter().map(|c| c.counts.requests() / c.length().as_secs_f64().max(0.001)).fold(0.0, f64::max),
        provenance: Provenance {
            from: first.from,
            to: last.to,
            slot: of_slot.clone(),
            version: None,
            previous_release_used,
            pinned,
            excluded: excluded.lines(),
        },
        quality,
    })
}

/// An envelope over the hours needs so many of them to mean anything.
const ENVELOPE_FROM: Span = Span::from_mins(6 * 60);

/// How bursty errors and slow requests are, and the worst hour.
fn spread(cells: &[&Cell], latency: Option<&Buckets>) -> Spread {
    // Cells of unequal length (fine ones and merged minutes) are brought to the longest.
    let width = cells.iter().map(|c| c.length()).max().unwrap_or(CELL).max(Span::from_secs(1));
    let cell_s = width.as_secs_f64();
    let along = |count: &dyn Fn(&Cell) -> Option<Pair>, width: Span| -> Vec<Pair> {
        let mut joined: BTreeMap<Timestamp, Pair> = BTreeMap::new();
        for cell in cells {
            let Some((n, x)) = count(cell) else { continue };
            let sum = joined.entry(cell.to.shifted(-1).floor_to(width)).or_default();
            *sum = (sum.0 + n, sum.1 + x);
        }
        joined.into_values().collect()
    };
    let errors_of = |c: &Cell| Some((c.counts.requests(), c.counts.bad()));
    let errors = dispersion(&along(&errors_of, width), cell_s);
    let hours = along(&errors_of, HOUR);
    let covered = cells.iter().fold(Span::ZERO, |sum, c| sum + c.length());
    let env = if covered >= ENVELOPE_FROM { envelope(&hours, errors) } else { 1.0 };
    let latency = latency.map_or_else(Vec::new, |all| {
        let of = |quantile: Quantile| {
            let index = nearest_bound(all, quantile.q())?;
            let slow = |c: &Cell| {
                let buckets = c.latency.as_ref().filter(|b| b.bounds() == all.bounds())?;
                Some((buckets.total(), beyond(buckets, index)))
            };
            Some((quantile, dispersion(&along(&slow, width), cell_s)))
        };
        Quantile::ALL.into_iter().filter_map(of).collect()
    });
    Spread { errors, latency, env }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::service::Metrics;

    const MINUTE: i64 = 60_000;

    fn at(minute: i64) -> Timestamp {
        Timestamp::from_millis(minute * MINUTE)
    }
    fn slot(name: &str) -> Slot {
        Slot::try_new(name).unwrap()
    }
    fn ask(before: i64) -> BaselineAsk {
        BaselineAsk {
            service: crate::domain::switch::ServiceName::try_new("checkout").unwrap(),
            slot: slot("blue"),
            other: slot("green"),
            metrics: Metrics {
                name: "web".into(),
                from: Default::default(),
                requests: r#"r{slot="$slot"}"#.into(),
                errors: None,
                latency: None,
                custom: vec![],
            },
            before: at(before),
            soak: Span::from_mins(30),
            whole_day: false,
            cells_min: 8,
            requests_min: 1000.0,
            slots: BTreeMap::new(),
        }
    }
    /// A minute of `n` requests, `x` of them bad, ending at `minute`.
    fn cell(name: &str, minute: i64, n: f64, x: f64) -> SlotCell {
        let cell = Cell { from: at(minute - 1), to: at(minute), counts: Counts::try_new(n, x).unwrap(), latency: None };
        SlotCell { slot: slot(name), cell }
    }
    fn watch(id: &str, old: &str, new: &str, from: i64, to: i64, outcome: Outcome, breached: bool) -> PastWatch {
        PastWatch {
            id: SwitchId::try_new(id).unwrap(),
            old: slot(old),
            new: slot(new),
            version: None,
            cut_over_at: at(from),
            soak: Span::from_mins(30),
            ended_at: Some(at(to)),
            outcome: Some(outcome),
            breached,
        }
    }
    fn quiet(from: i64, to: i64) -> Vec<SlotCell> {
        (from..=to).map(|m| cell("blue", m, 1000.0, 1.0)).collect()
    }

    #[test]
    fn the_last_hour_and_the_hours_that_agree() {
        let mut cells: Vec<_> = (1..=120).map(|m| cell("blue", m, 1000.0, 30.0)).collect();
        cells.extend(quiet(121, 300));
        let b = choose(&ask(300), &Facts { cells, ..Facts::default() }, 0.001).unwrap();
        assert_eq!((b.provenance.from, b.provenance.to), (at(120), at(300)));
        assert_eq!(b.counts.requests(), 180_000.0);
        assert_eq!(b.quality, Quality::Good);
        assert!(!b.provenance.excluded.is_empty(), "what was left out is named");
    }

    #[test]
    fn a_breached_watch_and_a_soak_not_accepted_are_no_normal() {
        let watches = vec![watch("checkout-1", "green", "blue", 100, 120, Outcome::RolledBackRecovered, true)];
        let b = choose(&ask(200), &Facts { cells: quiet(1, 200), watches, ..Facts::default() }, 0.001).unwrap();
        assert_eq!(b.provenance.from, at(130), "its soak of 30 minutes is left out, and all before it was live");
        let watches =
            vec![watch("checkout-1", "green", "blue", 100, 130, Outcome::Passed { by_checks_only: false }, false)];
        let b = choose(&ask(200), &Facts { cells: quiet(1, 200), watches, ..Facts::default() }, 0.001).unwrap();
        assert_eq!(b.provenance.from, at(100), "an accepted release counts from its cut-over");
    }

    #[test]
    fn a_bad_minute_is_left_out_and_a_bad_hour_is_an_incident() {
        let mut cells = quiet(1, 200);
        cells[149] = cell("blue", 150, 1000.0, 400.0);
        let b = choose(&ask(200), &Facts { cells, ..Facts::default() }, 0.001).unwrap();
        assert_eq!(b.counts.requests(), 199_000.0);
        assert!(b.provenance.excluded[0].contains("median"), "{:?}", b.provenance.excluded);
        let mut cells = quiet(1, 200);
        for m in 141..=200 {
            cells[m - 1] = cell("blue", m as i64, 1000.0, 200.0);
        }
        let b = choose(&ask(200), &Facts { cells, ..Facts::default() }, 0.001).unwrap();
        assert!(matches!(b.quality, Quality::Incident { .. }), "{:?}", b.quality);
        assert!(b.counts.rate().unwrap() < 0.002, "the day's normal, not the incident's");
    }

    #[test]
    fn too_little_is_said_in_numbers() {
        let b = choose(&ask(200), &Facts { cells: quiet(200, 200), ..Facts::default() }, 0.001).unwrap();
        assert!(matches!(&b.quality, Quality::TooLittle { why } if why.contains("in 4 cells")), "{:?}", b.quality);
        assert!(!b.usable());
        let none = choose(&ask(200), &Facts::default(), 0.001).unwrap_err();
        assert!(none.contains("nothing was recorded of blue"), "{none}");
    }

    #[test]
    fn the_previous_release_stands_in_and_is_marked() {
        let mut cells: Vec<_> = (1..=100).map(|m| cell("green", m, 1000.0, 1.0)).collect();
        cells.push(cell("blue", 101, 1000.0, 1.0));
        let watches =
            vec![watch("checkout-1", "green", "blue", 100, 101, Outcome::Passed { by_checks_only: false }, false)];
        let b = choose(&ask(101), &Facts { cells, watches, ..Facts::default() }, 0.001).unwrap();
        assert!(b.provenance.previous_release_used && b.usable());
    }

    #[test]
    fn a_pin_overrides_and_invalid_ranges_do_not_count() {
        let facts = Facts { cells: quiet(1, 200), pin: Some((at(10), at(20))), ..Facts::default() };
        let b = choose(&ask(200), &facts, 0.001).unwrap();
        assert_eq!((b.counts.requests(), b.provenance.pinned), (10_000.0, true));
        let facts = Facts { cells: quiet(1, 200), invalid: vec![(at(190), at(195))], ..Facts::default() };
        assert_eq!(choose(&ask(200), &facts, 0.001).unwrap().counts.requests(), 195_000.0);
    }

    proptest::proptest! {
        #[test]
        fn invalidating_never_adds_and_order_never_matters(
            counts in proptest::collection::vec((0u32..5000, 0u32..50), 1..200),
            from in 0i64..200, length in 0i64..100, seed in 0usize..1000,
        ) {
            let mut cells: Vec<_> = counts
                .iter()
                .enumerate()
                .map(|(i, (n, x))| cell("blue", i as i64 + 1, f64::from(*n), f64::from((*x).min(*n))))
                .collect();
            let whole = Facts { cells: cells.clone(), ..Facts::default() };
            let marked = Facts { invalid: vec![(at(from), at(from + length))], ..whole.clone() };
            let before = ask(counts.len() as i64);
            let all = choose(&before, &whole, 0.001);
            let total: f64 = cells.iter().map(|c| c.cell.counts.requests()).sum();
            if let Ok(fewer) = choose(&before, &marked, 0.001) {
                proptest::prop_assert!(fewer.counts.requests() <= total);
            }
            let pivot = seed % cells.len();
            cells.rotate_left(pivot);
            proptest::prop_assert_eq!(choose(&before, &Facts { cells, ..Facts::default() }, 0.001), all);
        }
    }
}
