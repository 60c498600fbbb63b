//! The pictures of a notice: each breaching signal as it was judged, with its normal, its limit and what happened.

use crate::chart::{Band, Chart, Line, Mark, Role, Unit};
use crate::domain::counts::{Buckets, Cell};
use crate::domain::notice::Notice;
use crate::domain::signal::{Reading, Signal, SlotCell};
use crate::domain::switch::Slot;
use crate::domain::time::{Span, Timestamp};
use crate::domain::verdict::{Evidence, SignalState};
use crate::domain::view::WatchView;
use crate::journal::{JournalError, Reader, ReadingRow};
use crate::judge::quantile::quantile;

use super::page::ChartRef;

/// Error rate, p95 and p99, and one of the operator's own: more than that nobody reads in a mail.
const CHARTS_MAX: usize = 4;

/// A long soak is shown from this long before its trouble.
const BEFORE: Span = Span::from_mins(30);

/// So much of the time before the cut-over, as a part of the whole.
const LEAD: f64 = 0.25;

/// Points of a line; a mail's picture is 480 wide.
const POINTS: usize = 120;

/// The band holds this part of the recorded cells.
const BAND: (f64, f64) = (0.05, 0.95);

/// Fewer recorded cells make no band.
const BAND_CELLS_MIN: usize = 8;

/// `pictures`: mails carry them; everywhere else their words will do.
pub fn of(reader: &Reader, notice: &Notice, pictures: bool) -> Vec<(ChartRef, Option<Vec<u8>>)> {
    let w = &notice.watch;
    if w.is_drill() {
        return Vec::new();
    }
    let Some(breach) = &w.breach else { return Vec::new() };
    let shown: Vec<&Evidence> = drawable(&breach.evidence).collect();
    if shown.is_empty() {
        return Vec::new();
    }
    let facts = match Facts::read(reader, notice) {
        Ok(facts) => facts,
        Err(error) => {
            tracing::warn!(%error, notice = %notice.key, "the readings of a chart cannot be read");
            return Vec::new();
        }
    };
    shown.iter().enumerate().filter_map(|(i, e)| Some(drawn(&facts.chart(notice, e)?, i, pictures))).collect()
}

/// A chart as a message carries it.
pub fn drawn(chart: &Chart, i: usize, picture: bool) -> (ChartRef, Option<Vec<u8>>) {
    let png = if picture { chart.png() } else { None };
    let (width, height) = (crate::chart::WIDTH, crate::chart::HEIGHT);
    let picture = png.is_some();
    let reference =
        ChartRef { cid: format!("chart{i}"), alt: chart.words(), sparkline: chart.sparkline(), width, height, picture };
    (reference, png)
}

/// What all charts of a notice are drawn from.
struct Facts {
    from: Timestamp,
    to: Timestamp,
    /// Before the cut-over, of the slot that served then.
    before: Vec<SlotCell>,
    readings: Vec<ReadingRow>,
    /// The recorded normal, cell by cell.
    normal: Vec<SlotCell>,
}

impl Facts {
    fn read(reader: &Reader, notice: &Notice) -> Result<Facts, JournalError> {
        let w = &notice.watch;
        let cut = w.cut_over_at.unwrap_or(w.opened_at);
        let since = w.breach.as_ref().map_or(cut, |b| b.since);
        let begin = cut.max(since - BEFORE);
        let lead = Span::from_millis(((notice.at.since(begin).as_millis() as f64) * LEAD) as u64);
        let from = begin - lead.max(Span::from_secs(20));
        let service = &w.switch.service;
        let recorded = |slot: &Slot, from, to| -> Result<Vec<SlotCell>, JournalError> {
            Ok(reader.recorded(service, slot, from, to)?.iter().map(slot_cell).collect())
        };
        let before = if from < cut { recorded(&w.switch.old, from, cut)? } else { Vec::new() };
        let normal = match w.baseline.as_ref().map(|b| &b.provenance) {
            Some(p) => recorded(&p.slot, p.from, p.to)?,
            None => Vec::new(),
        };
        let readings = reader.readings(&w.id, service, from)?;
        Ok(Facts { from, to: notice.at, before, readings, normal })
    }

    /// `None` where nothing was read of the signal.
    fn chart(&self, notice: &Notice, e: &Evidence) -> Option<Chart> {
        let w = &notice.watch;
        let width = Span::from_millis(self.to.since(self.from).as_millis() / POINTS as u64);
        let of = |slot: &Slot| -> Vec<&SlotCell> {
            self.readings.iter().filter(|row| row.slot == *slot).map(|row| &row.cell).collect()
        };
        let new = points(&of(&w.switch.new), &e.signal, width);
        if new.is_empty() {
            return None;
        }
        let mut old: Vec<&SlotCell> = self.before.iter().collect();
        // The recorder's cells may reach into what was read besides.
        let recorded_to = old.last().map(|cell| cell.to);
        old.extend(of(&w.back_to).into_iter().filter(|cell| recorded_to.is_none_or(|to| cell.from >= to)));
        let old = points(&old, &e.signal, width);
        Some(framed(w, e, (self.from, self.to), old, new, band(&self.normal, &e.signal)))
    }
}

/// A signal's chart from its lines: what a watch adds to them is the same for readings and for samples.
pub(super) fn framed(
    w: &WatchView,
    e: &Evidence,
    (from, to): (Timestamp, Timestamp),
    old: Vec<(Timestamp, f64)>,
    new: Vec<(Timestamp, f64)>,
    band: Option<Band>,
) -> Chart {
    Chart {
        title: format!("{} of {}", e.signal, w.switch.service),
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
pub(super) fn drawable(evidence: &[Evidence]) -> impl Iterator<Item = &Evidence> {
    let drawable = |e: &&Evidence| !matches!(e.signal, Signal::Alive | Signal::Traffic);
    evidence.iter().filter(|e| e.state == SignalState::Breached).filter(drawable).take(CHARTS_MAX)
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
