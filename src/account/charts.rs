//! The pictures of a watch: each signal as it was judged, with its normal, its limit and what happened; and the
//! evidence on its way to the line.

use crate::chart::{Band, Chart, Line, Mark, Role, Unit};
use crate::domain::account::Account;
use crate::domain::counts::{Buckets, Cell};
use crate::domain::signal::{Reading, Signal, SlotCell};
use crate::domain::switch::Slot;
use crate::domain::time::{Span, Timestamp};
use crate::domain::verdict::{Evidence, SignalState};
use crate::domain::view::WatchView;
use crate::judge::quantile::quantile;

/// Error rate, p95 and p99, and one of the operator's own: more than that nobody reads in a mail.
const CHARTS_MAX: usize = 4;

/// A long soak is shown from this long before its trouble.
const BEFORE: Span = Span::from_mins(30);

/// So much of the time before the cut-over, as a part of the whole.
const LEAD: f64 = 0.25;
const LEAD_MIN: Span = Span::from_secs(45);

/// Points of a line; a picture is 480 wide.
const POINTS: usize = 120;

/// The band holds this part of the recorded cells.
const BAND: (f64, f64) = (0.05, 0.95);

/// Fewer recorded cells make no band.
const BAND_CELLS_MIN: usize = 8;

/// The signals that broke, around the breach, as they were known at `at`.
pub fn of_breach(account: &Account, at: Timestamp) -> Vec<Chart> {
    let w = &account.view;
    let Some(breach) = &w.breach else { return Vec::new() };
    if w.is_drill() {
        return Vec::new();
    }
    let begin = w.began().max(breach.since - BEFORE);
    let frame = (begin - lead(begin, at), at);
    let facts = Facts::of(account);
    drawable(&breach.evidence).filter_map(|e| facts.chart(w, e, frame)).collect()
}

/// Every signal over the whole watch, and the evidence.
pub fn of_watch(account: &Account) -> Vec<Chart> {
    let w = &account.view;
    if w.is_drill() {
        return Vec::new();
    }
    let Some(last) = account.readings.iter().map(|read| read.cell.to).max() else { return Vec::new() };
    // What was read is known, and decided about, some seconds later.
    let said = account.judged.last().map(|judged| judged.at);
    let to = [said, w.breach.as_ref().map(|b| b.at), w.ended_at].into_iter().flatten().fold(last, Timestamp::max);
    let first = account.readings.iter().map(|read| read.cell.from).min().unwrap_or(to);
    // What was pruned leaves no empty half of a picture.
    let begin = w.began().max(first);
    let frame = (begin - lead(begin, to), to);
    let facts = Facts::of(account);
    let mut charts: Vec<Chart> = shown(w).into_iter().filter_map(|e| facts.chart(w, e, frame)).collect();
    charts.extend(evidence(account, (begin, to)));
    charts
}

/// The evidence of all signals together and of each, up to the line where it is enough; `None` for the plain rule.
fn evidence(account: &Account, (from, to): (Timestamp, Timestamp)) -> Option<Chart> {
    let w = &account.view;
    let needed = w.evidence.iter().find_map(|e| e.proof).map(|proof| proof.needed)?;
    // Less than even says nothing against it: the axis begins there.
    let height = |ln_e: f64| ln_e.max(0.0) / std::f64::consts::LN_10;
    let every = account.judged.len().div_ceil(POINTS).max(1);
    let last = account.judged.last().map(|judged| judged.said.tick);
    let kept = || {
        let of = account.judged.iter().enumerate();
        of.filter(move |(i, j)| i % every == 0 || Some(j.said.tick) == last).map(|(_, judged)| judged)
    };
    let mut lines = Vec::new();
    let signals: Vec<&Signal> = w.evidence.iter().filter(|e| e.proof.is_some()).map(|e| &e.signal).collect();
    for (n, signal) in (0u8..).zip(signals) {
        let of = |said: &crate::domain::account::Said| said.signals.iter().find(|s| s.signal == *signal)?.ln_e;
        let points = kept().filter_map(|judged| Some((judged.at, height(of(&judged.said)?)))).collect();
        lines.push(Line { name: signal.to_string(), role: Role::Part(n), points });
    }
    let points: Vec<(Timestamp, f64)> = kept().filter_map(|j| Some((j.at, height(j.said.ln_e?)))).collect();
    if points.is_empty() {
        return None;
    }
    lines.push(Line { name: "all together".into(), role: Role::New, points });
    Some(Chart {
        title: format!("evidence against {}: one in …", w.switch.new),
        unit: Unit::OneIn,
        from,
        to,
        lines,
        band: None,
        limit: Some(needed.log10()),
        marks: marks(w),
    })
}

/// What all charts of a watch are drawn from.
struct Facts<'a> {
    account: &'a Account,
    /// Before the cut-over, of the slot that served then.
    before: Vec<SlotCell>,
    /// The recorded normal, cell by cell.
    normal: Vec<SlotCell>,
}

impl<'a> Facts<'a> {
    fn of(account: &'a Account) -> Facts<'a> {
        let cells = |all: &[Cell]| all.iter().map(slot_cell).collect();
        Facts { account, before: cells(&account.before), normal: cells(&account.normal) }
    }

    fn read_of<'b>(&'b self, slot: &'b Slot, (from, to): (Timestamp, Timestamp)) -> Vec<&'b SlotCell> {
        self.account.of_slot(slot).map(|read| &read.cell).filter(|c| c.to > from && c.from < to).collect()
    }

    /// `None` where nothing was read of the signal.
    fn chart(&self, w: &WatchView, e: &Evidence, (from, to): (Timestamp, Timestamp)) -> Option<Chart> {
        let width = Span::from_millis(to.since(from).as_millis() / POINTS as u64);
        let new = points(&self.read_of(&w.switch.new, (from, to)), &e.signal, width);
        if new.is_empty() {
            return None;
        }
        let mut old: Vec<&SlotCell> = self.before.iter().filter(|cell| cell.to > from).collect();
        // The recorder's cells may reach into what was read besides.
        let recorded_to = old.last().map(|cell| cell.to);
        let after = self.read_of(&w.back_to, (from, to));
        old.extend(after.into_iter().filter(|cell| recorded_to.is_none_or(|to| cell.from >= to)));
        let old = points(&old, &e.signal, width);
        Some(framed(w, e, (from, to), old, new, band(&self.normal, &e.signal)))
    }
}

fn lead(begin: Timestamp, to: Timestamp) -> Span {
    Span::from_millis(((to.since(begin).as_millis() as f64) * LEAD) as u64).max(LEAD_MIN)
}

/// Signals with a line of their own: as they broke, where they did.
fn shown(w: &WatchView) -> Vec<&Evidence> {
    w.telling().iter().filter(has_a_line).take(CHARTS_MAX).collect()
}

/// What the chart of a signal is called.
pub fn title(w: &WatchView, signal: &Signal) -> String {
    format!("{signal} of {}", w.switch.service)
}

/// A signal's chart from its lines: what a watch adds to them is the same for readings and for samples.
pub fn framed(
    w: &WatchView,
    e: &Evidence,
    (from, to): (Timestamp, Timestamp),
    old: Vec<(Timestamp, f64)>,
    new: Vec<(Timestamp, f64)>,
    band: Option<Band>,
) -> Chart {
    Chart {
        title: title(w, &e.signal),
        unit: match e.signal {
            Signal::ErrorRate => Unit::Percent,
            Signal::Latency(_) => Unit::Milliseconds,
            Signal::Traffic | Signal::Alive | Signal::Custom(_) => Unit::Plain,
        },
        from,
        to,
        lines: vec![
            Line { name: w.back_to.to_string(), role: Role::Old, points: old },
            Line { name: w.switch.new.to_string(), role: Role::New, points: new },
        ],
        band,
        limit: e.limit.filter(|l| l.is_finite()),
        marks: marks(w),
    }
}

/// The signals of a breach that can be drawn.
pub fn drawable(evidence: &[Evidence]) -> impl Iterator<Item = &Evidence> {
    evidence.iter().filter(|e| e.state == SignalState::Breached).filter(has_a_line).take(CHARTS_MAX)
}

fn has_a_line(e: &&Evidence) -> bool {
    !matches!(e.signal, Signal::Alive | Signal::Traffic)
}

/// A recorded cell as a reading.
fn slot_cell(cell: &Cell) -> SlotCell {
    SlotCell {
        from: cell.from,
        to: cell.to,
        counts: Reading::Value(cell.counts),
        latency: cell.latency.clone().map_or(Reading::Absent, Reading::Value),
        targets: Reading::Absent,
        custom: Vec::new(),
        remarks: Vec::new(),
    }
}

fn marks(w: &WatchView) -> Vec<Mark> {
    let mut marks = Vec::new();
    let mut mark = |at: Option<Timestamp>, name: &str| {
        marks.extend(at.map(|at| Mark { at, name: name.to_owned() }));
    };
    mark(w.cut_over_at, "cut-over");
    mark(w.breach.as_ref().map(|b| b.since), "onset");
    mark(w.breach.as_ref().map(|b| b.at), "decision");
    mark(w.recovery.as_ref().map(|r| r.proven_at), "rolled back");
    marks
}

/// The signal's value over cells joined to at least this width; a gap stays a gap.
fn points(cells: &[&SlotCell], signal: &Signal, width: Span) -> Vec<(Timestamp, f64)> {
    let mut points = Vec::new();
    let mut at = 0;
    while at < cells.len() {
        let first = cells[at];
        let mut end = at + 1;
        while end < cells.len() && cells[end - 1].to.since(first.from) < width && cells[end].from == cells[end - 1].to {
            end += 1;
        }
        if let Some(value) = value(&cells[at..end], signal) {
            let last = cells[end - 1];
            let middle = Span::from_millis(last.to.since(first.from).as_millis() / 2);
            points.push((first.from + middle, value));
        }
        at = end;
    }
    points
}

fn value(cells: &[&SlotCell], signal: &Signal) -> Option<f64> {
    match signal {
        Signal::ErrorRate => {
            let (mut requests, mut bad) = (0.0, 0.0);
            for counts in cells.iter().filter_map(|cell| cell.counts.value()) {
                requests += counts.requests();
                bad += counts.bad();
            }
            (requests > 0.0).then(|| bad / requests)
        }
        Signal::Latency(q) => {
            let mut sum: Option<Buckets> = None;
            for buckets in cells.iter().filter_map(|cell| cell.latency.value()) {
                sum = Some(match sum {
                    None => buckets.clone(),
                    Some(sum) => sum.plus(buckets).unwrap_or_else(|| buckets.clone()),
                });
            }
            quantile(&sum?, q.q())
        }
        Signal::Custom(name) => {
            let found = cells.iter().rev().flat_map(|cell| &cell.custom).find(|(known, _)| known == name);
            found.and_then(|(_, reading)| reading.value().copied())
        }
        Signal::Traffic | Signal::Alive => None,
    }
}

fn band(normal: &[SlotCell], signal: &Signal) -> Option<Band> {
    let mut values: Vec<f64> = normal.iter().filter_map(|cell| value(&[cell], signal)).collect();
    if values.len() < BAND_CELLS_MIN {
        return None;
    }
    values.sort_by(f64::total_cmp);
    let at = |share: f64| values[((values.len() - 1) as f64 * share).round() as usize];
    Some(Band { low: at(BAND.0), high: at(BAND.1) })
}
