//! Cells of the recorded baseline, by range query: the same differences, on a grid of their own.

use std::collections::{BTreeMap, BTreeSet};

use super::client::Prometheus;
use super::decode::{self, Labels};
use super::exact::Plausible;
use super::native::{self, Histogram};
use super::observe::{WINDOW, buckets};
use super::promql::{GroupLabels, Selector, Template};
use crate::domain::counts::{Cell, Counts};
use crate::domain::service::{ALL_SLOTS, SlotSpec};
use crate::domain::signal::{FailureKind, ReadFailure};
use crate::domain::switch::Slot;
use crate::domain::time::{Span, Timestamp};
use crate::engine::message::{RecordAsk, RecordedCells};

/// Steps of one request. Prometheus itself stops at 11,000 points per series; this keeps answers small.
const STEPS_MAX: u64 = 1000;

/// The same of native histograms: each point of theirs is some kilobytes of text.
const NATIVE_STEPS_MAX: u64 = 100;

/// Newest samples may still be on their way.
const SETTLE: Span = Span::from_secs(5);

impl Prometheus {
    /// Cells of `width` (whole seconds) after `from`, up to now. A cell exists only where its requests
    /// had a sample: absent is not zero.
    pub async fn record(
        &self,
        ask: &RecordAsk,
        from: Timestamp,
        until: Option<Timestamp>,
        width: Span,
    ) -> Result<Vec<RecordedCells>, ReadFailure> {
        let rejected = |detail: String| ReadFailure { kind: FailureKind::Rejected, detail };
        let template = Template::parse(&ask.metrics).map_err(rejected)?;
        let settled = (self.time().await? - self.settle.unwrap_or(SETTLE).max(SETTLE)).floor_to(width);
        let end = until.map_or(settled, |until| until.floor_to(width).min(settled));
        let mut out: BTreeMap<Slot, Vec<Cell>> = BTreeMap::new();
        let plain = SlotSpec::default();
        for (slots, spec) in rounds(&template, ask.metrics.by_slot(), &ask.slots, &plain) {
            let mut start = from.floor_to(width) + width;
            while start <= end {
                let stop = (start + width.times(STEPS_MAX - 1)).min(end);
                let query = query(&template, ask, &slots, spec, width);
                let series = decode::matrix(&self.range(&query, start, stop, width).await?)?;
                let mut cells = collect(&template, &slots, width, &series)?;
                if let Some(selector) = &template.native {
                    let x = selector.bind(&BTreeSet::from([ask.service.as_str()]), &slots, spec).to_string();
                    let by = GroupLabels::of(selector, false, template.groups_slots());
                    let mut first = start;
                    while first <= stop {
                        let last = (first + width.times(NATIVE_STEPS_MAX - 1)).min(stop);
                        let body = self.range(&x, first - width, last, width).await?;
                        let series = decode::histograms(&body, "matrix")?;
                        add_native(&mut cells, &series, &by, &slots, width)?;
                        first = last + width;
                    }
                }
                for (slot, more) in cells {
                    out.entry(slot).or_default().extend(more);
                }
                start = stop + width;
            }
        }
        Ok(out.into_iter().map(|(slot, cells)| RecordedCells { service: ask.service.clone(), slot, cells }).collect())
    }
}

/// The queries that it takes to see every slot: those whose series are told apart by a label come in one, the others one
/// by one. `plain`: what a query of several slots is bound with.
pub(super) fn rounds<'a>(
    template: &Template,
    by_slot: bool,
    slots: &'a BTreeMap<Slot, SlotSpec>,
    plain: &'a SlotSpec,
) -> Vec<(BTreeSet<&'a str>, &'a SlotSpec)> {
    if !by_slot {
        return vec![(BTreeSet::from([ALL_SLOTS]), plain)];
    }
    if template.groups_slots() && slots.values().all(|spec| spec.labels.is_empty()) {
        return vec![(slots.keys().map(Slot::as_str).collect(), plain)];
    }
    slots.iter().map(|(slot, spec)| (BTreeSet::from([slot.as_str()]), spec)).collect()
}

fn parts(template: &Template) -> impl Iterator<Item = (&'static str, &Selector)> {
    let all = [
        ("requests", Some(&template.requests)),
        ("errors", template.errors.as_ref()),
        ("latency", template.latency.as_ref()),
    ];
    all.into_iter().filter_map(|(part, selector)| Some((part, selector?)))
}

fn query(template: &Template, ask: &RecordAsk, slots: &BTreeSet<&str>, spec: &SlotSpec, width: Span) -> String {
    let services = BTreeSet::from([ask.service.as_str()]);
    let tag = |expr: String, part: &str| format!("label_replace({expr}, \"flipback_part\", \"{part}\", \"\", \"\")");
    let w = format!("{}ms", width.as_millis());
    let mut branches = Vec::new();
    for (part, selector) in parts(template) {
        let by = GroupLabels::of(selector, false, template.groups_slots());
        let x = selector.bind(&services, slots, spec);
        let (last, before) =
            (format!("last_over_time({x}[{WINDOW}])"), format!("last_over_time({x}[{WINDOW}] offset {w})"));
        // A series born or reset inside the cell counts whole where its target was scraped before: an
        // error series is born with its first error. The first cell of a new target is left out.
        let known = format!("max by (instance, job) (last_over_time(up[{WINDOW}] offset {w}))");
        let grown = format!("((({last} - {before}) >= 0) or ({last} and on (instance, job) {known}))");
        let by = by.list(if part == "latency" { &["le"] } else { &[] });
        branches.push(tag(format!("sum by ({by}) ({grown})"), part));
    }
    let by = GroupLabels::of(&template.requests, false, template.groups_slots());
    let x = template.requests.bind(&services, slots, spec);
    let fresh = format!("sum by ({}) (count_over_time({x}[{}ms]))", by.list(&[]), width.as_millis() - 1);
    branches.push(tag(fresh, "fresh"));
    branches.join(" or ")
}

#[derive(Default)]
struct Draft {
    fresh: bool,
    requests: Option<f64>,
    errors: f64,
    latency: BTreeMap<String, f64>,
}

fn collect(
    template: &Template,
    slots: &BTreeSet<&str>,
    width: Span,
    series: &[decode::Series],
) -> Result<BTreeMap<Slot, Vec<Cell>>, ReadFailure> {
    let mut out: BTreeMap<Slot, Vec<Cell>> = BTreeMap::new();
    let mut drafts: BTreeMap<(Slot, i64), Draft> = BTreeMap::new();
    for one in series {
        let part = one.labels.get("flipback_part").map_or("", String::as_str);
        let selector = parts(template).find(|(p, _)| *p == part).map_or(&template.requests, |(_, s)| s);
        let slot = slot_of(&one.labels, &GroupLabels::of(selector, false, template.groups_slots()), slots)
            .map_err(unusable)?;
        for &(at, value) in &one.points {
            let draft = drafts.entry((slot.clone(), at)).or_default();
            match part {
                "fresh" => draft.fresh = true,
                "requests" => draft.requests = Some(value),
                "errors" => draft.errors = value,
                _ => *draft.latency.entry(one.labels.get("le").cloned().unwrap_or_default()).or_default() += value,
            }
        }
    }
    for ((slot, at), draft) in drafts {
        let (true, Some(requests)) = (draft.fresh, draft.requests) else { continue };
        let to = Timestamp::from_millis(at);
        // A cell whose two counters were scraped across a birth may not fit together: it is no cell.
        let Ok(counts) = Counts::try_new(requests, draft.errors) else { continue };
        let latency = if draft.latency.is_empty() { None } else { buckets(&draft.latency).ok() };
        out.entry(slot).or_default().push(Cell { from: to - width, to, counts, latency });
    }
    Ok(out)
}

fn unusable(detail: String) -> ReadFailure {
    ReadFailure { kind: FailureKind::Unusable, detail }
}

/// Native histograms of a cell: what its series grew by. A series' first cell has no beginning, and is left out.
fn add_native(
    cells: &mut BTreeMap<Slot, Vec<Cell>>,
    series: &[decode::HistogramSeries],
    by: &GroupLabels,
    slots: &BTreeSet<&str>,
    width: Span,
) -> Result<(), ReadFailure> {
    // Nothing is plausible without a baseline: what was born or begun anew inside a cell is not in it, but for
    // a handful.
    let plausible = Plausible { rate: Some(0.0), interval_s: width.as_secs_f64() };
    for (slot, cells) in cells {
        let mut own = Vec::new();
        for s in series {
            if slot_of(&s.labels, by, slots).map_err(unusable)? == *slot {
                own.push(s);
            }
        }
        let at = |ms: i64| -> BTreeMap<Labels, Histogram> {
            let point = |s: &&decode::HistogramSeries| {
                let i = s.points.binary_search_by_key(&ms, |(at, _)| *at).ok()?;
                Some((s.labels.clone(), s.points.get(i)?.1.clone()))
            };
            own.iter().filter_map(point).collect()
        };
        for cell in cells {
            let (before, after) = (at(cell.from.as_millis()), at(cell.to.as_millis()));
            if !after.is_empty() {
                cell.latency = native::increase(&before, &after, plausible).0.filter(|b| b.total() > 0.0);
            }
        }
    }
    Ok(())
}

fn slot_of(labels: &Labels, by: &GroupLabels, slots: &BTreeSet<&str>) -> Result<Slot, String> {
    let name = match &by.slot {
        Some(label) => labels.get(label).cloned().ok_or_else(|| format!("a series has no label {label}"))?,
        None => slots.iter().next().map(|s| (*s).to_owned()).unwrap_or_default(),
    };
    Slot::try_new(name).map_err(|why| why.to_string())
}
