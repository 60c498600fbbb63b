//! Exact counts between two instants of Prometheus's clock: one query per template and window.

use std::collections::{BTreeMap, BTreeSet};

use super::client::Prometheus;
use super::decode::{self, Labels, Sample, Series};
use super::exact::{self, Plausible, Target};
use super::native::{self, Histogram};
use super::promql::{GroupLabels, Selector, Template, at, bind_query, quoted};
use crate::domain::counts::{Buckets, Counts};
use crate::domain::service::{Service, SlotSpec};
use crate::domain::signal::{FailureKind, Observation, ReadFailure, Reading, SlotCell, SourceClock, Targets};
use crate::domain::switch::Slot;
use crate::domain::time::{Span, Timestamp};
use crate::engine::message::{CommandId, ObserveAsk};

/// Counters are looked for this far back: gaps are bridged by telescoping, not by the window.
pub(super) const WINDOW: Span = Span::from_mins(5);

/// Prometheus's clock may be this far from ours before its instants say nothing about our events.
const SKEW_MAX_MS: i64 = 30_000;

const SETTLE_MIN: Span = Span::from_secs(1);
/// A scrape's samples are readable a little after it has ended.
const SETTLE_MARGIN: Span = Span::from_millis(500);

/// Settling time and scrape interval change with the configuration of Prometheus, not by the tick.
const META_FOR: Span = Span::from_secs(60);

/// What was learned of a template's targets.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Meta {
    read_at: Timestamp,
    settle: Span,
    interval: Option<Span>,
}

/// The asks that one query can serve.
struct Group<'a> {
    asks: Vec<&'a (CommandId, ObserveAsk)>,
    template: Template,
    services: BTreeSet<&'a str>,
    slots: BTreeSet<&'a str>,
}

pub(super) type Answer = (CommandId, Observation, Option<SourceClock>);

impl Prometheus {
    /// All asks of one turn. Asks with the same template, window and grid share one query. Every ask is
    /// answered, in time, one way or another.
    pub async fn observe(&self, now: fn() -> Timestamp, asks: Vec<(CommandId, ObserveAsk)>) -> Vec<Answer> {
        let mut groups: BTreeMap<String, Vec<&(CommandId, ObserveAsk)>> = BTreeMap::new();
        let mut answers = Vec::new();
        for ask in &asks {
            match Template::parse(&ask.1.metrics) {
                Ok(template) => groups.entry(group_key(&ask.1, &template)).or_default().push(ask),
                Err(why) => answers.push(failed(&ask.0, FailureKind::Rejected, why)),
            }
        }
        for asks in groups.into_values() {
            let timeout = asks.iter().map(|(_, ask)| ask.timeout).min().unwrap_or(self.timeout);
            match tokio::time::timeout(timeout.to_std(), self.observe_group(now, &asks)).await {
                Ok(Ok(more)) => answers.extend(more),
                Ok(Err(failure)) => {
                    answers.extend(asks.iter().map(|(id, _)| (id.clone(), Observation::Failed(failure.clone()), None)));
                }
                Err(_) => {
                    let why = format!("no answer within {timeout}");
                    answers.extend(asks.iter().map(|(id, _)| failed(id, FailureKind::Timeout, why.clone())));
                }
            }
        }
        answers
    }

    /// What a tick of this service costs the server: one query for all of its slots.
    pub(super) async fn tick_cost(&self, service: &Service, server_now: Timestamp) -> Result<String, ReadFailure> {
        let template =
            Template::parse(&service.metrics).map_err(|detail| ReadFailure { kind: FailureKind::Rejected, detail })?;
        let tick = service.policy.tick;
        let to = (server_now - SETTLE_MIN).floor_to(tick);
        let specs = service.slots.specs();
        let slots: BTreeSet<&str> = specs.keys().map(Slot::as_str).collect();
        let one_for_all = template.groups_slots() && specs.values().all(|spec| spec.labels.is_empty());
        let queries = if one_for_all || slots.is_empty() { 1 } else { slots.len() };
        let (slot, spec) = match specs.first_key_value() {
            Some((slot, spec)) if !one_for_all => (BTreeSet::from([slot.as_str()]), spec.clone()),
            _ => (slots, SlotSpec::default()),
        };
        let group =
            Group { asks: Vec::new(), template, services: BTreeSet::from([service.name.as_str()]), slots: slot };
        let text = query(&group, &spec, to - tick, to);
        let began = std::time::Instant::now();
        let body = self.with_stats(&text).await?;
        let took = began.elapsed().as_millis();
        let samples = decode::samples_touched(&body).map_or(String::new(), |n| format!(", {n} samples"));
        let times = if queries > 1 { format!("{queries} queries, each ") } else { String::new() };
        let kib = body.len().div_ceil(1024);
        Ok(format!("{times}{took} ms{samples}, {kib} KiB of answer, every {tick}"))
    }

    async fn observe_group(
        &self,
        now: fn() -> Timestamp,
        asks: &[&(CommandId, ObserveAsk)],
    ) -> Result<Vec<Answer>, ReadFailure> {
        let Some((_, first)) = asks.first() else { return Ok(Vec::new()) };
        let template =
            Template::parse(&first.metrics).map_err(|detail| ReadFailure { kind: FailureKind::Rejected, detail })?;
        let group = Group {
            asks: asks.to_vec(),
            services: asks.iter().map(|(_, a)| a.service.as_str()).collect(),
            slots: asks.iter().map(|(_, a)| a.slot.as_str()).collect(),
            template,
        };
        let before = now();
        let server_now = self.time().await?;
        let round_trip = now().since(before).as_millis();
        let midway = before + Span::from_millis(round_trip / 2);
        let skew_ms = server_now.as_millis() - midway.as_millis();
        // Whether the two machines agree is a question to the wall clock, whatever it was stepped by.
        let apart_ms = skew_ms - (self.stepped_ms)();
        if apart_ms.abs() > SKEW_MAX_MS {
            let detail = format!("Prometheus's clock is {:.1} s from ours", apart_ms as f64 / 1000.0);
            return Err(ReadFailure { kind: FailureKind::ClockSkew, detail });
        }
        let bound = |s: &Selector| s.bind(&group.services, &group.slots, &first.spec);
        let meta = self.meta(&bound(&group.template.requests), server_now).await?;
        let clock = SourceClock { skew_ms, settle: meta.settle, scrape_interval: meta.interval };
        let to = (server_now - meta.settle).floor_to(first.grid);
        if to <= first.from {
            let targets = Reading::Absent;
            return Ok(asks
                .iter()
                .map(|(id, _)| (id.clone(), Observation::Empty { to, targets: targets.clone() }, Some(clock)))
                .collect());
        }
        let samples = decode::vector(&self.instant(&query(&group, &first.spec, first.from, to), None).await?)?;
        let special = samples.iter().filter(|s| part_of(&s.labels).ends_with("_special")).collect::<Vec<_>>();
        let specials = if special.is_empty() {
            Specials::default()
        } else {
            self.specials(&group, &special, first.from, to).await?
        };
        // A histogram that cannot be read is latency that cannot be judged: the counts go on.
        let native = self.native(&group, first.from, to).await;
        let mut answers = Vec::new();
        for (id, ask) in asks {
            let mut custom = Vec::new();
            for (name, query) in &ask.metrics.custom {
                custom.push((name.clone(), self.custom(&bind_query(query, &ask.service, &ask.slot), to).await));
            }
            answers.push((id.clone(), read(&group, ask, to, &samples, &specials, &native, custom), Some(clock)));
        }
        Ok(answers)
    }

    /// The native histograms at both ends of the tick, as they stand there.
    async fn native(&self, group: &Group<'_>, from: Timestamp, to: Timestamp) -> Result<Native, ReadFailure> {
        let (Some(selector), Some((_, first))) = (&group.template.native, group.asks.first()) else {
            return Ok(Native::default());
        };
        let x = selector.bind(&group.services, &group.slots, &first.spec);
        let mut ends = Vec::new();
        for t in [from, to] {
            let body = self.instant(&format!("{x} @ {}", at(t)), None).await?;
            let series = decode::histograms(&body, "vector")?;
            ends.push(
                series.into_iter().filter_map(|s| Some((s.labels, s.points.into_iter().next_back()?.1))).collect(),
            );
        }
        let after = ends.pop().unwrap_or_default();
        Ok(Native { before: ends.pop().unwrap_or_default(), after })
    }

    async fn meta(&self, requests: &Selector, server_now: Timestamp) -> Result<Meta, ReadFailure> {
        let key = requests.to_string();
        let known = self.meta.lock().ok().and_then(|meta| meta.get(&key).copied());
        if let Some(meta) = known
            && server_now.since(meta.read_at) < META_FOR
        {
            return Ok(meta);
        }
        let targets = format!("group by (instance, job) (last_over_time({requests}[{WINDOW}]))");
        let durations = format!(
            "label_replace(max(max_over_time(scrape_duration_seconds[{WINDOW}]) and on (instance, job) {targets}), \"flipback_part\", \"settle\", \"\", \"\") or label_replace({targets}, \"flipback_part\", \"target\", \"\", \"\")"
        );
        let samples = decode::vector(&self.instant(&durations, None).await?)?;
        let longest = samples.iter().find(|s| part_of(&s.labels) == "settle").map(|s| s.value);
        let found = longest.map(|s| Span::from_millis((s * 1000.0).ceil() as u64) + SETTLE_MARGIN);
        let target = samples.iter().find(|s| part_of(&s.labels) == "target");
        let mut interval = None;
        if let Some(instance) = target.and_then(|t| t.labels.get("instance")) {
            let job = target.and_then(|t| t.labels.get("job")).map_or("", String::as_str);
            let ups = format!("up{{instance={},job={}}}[{WINDOW}]", quoted(instance), quoted(job));
            interval = spacing(&decode::raw_samples(&self.instant(&ups, None).await?)?);
        }
        let settle = self.settle.unwrap_or_else(|| found.unwrap_or(SETTLE_MIN).max(SETTLE_MIN));
        let meta = Meta { read_at: server_now, settle, interval };
        // While the targets are unknown they are asked for again each time.
        if interval.is_some()
            && let Ok(mut all) = self.meta.lock()
        {
            all.insert(key, meta);
        }
        Ok(meta)
    }

    async fn custom(&self, query: &str, time: Timestamp) -> Reading<f64> {
        let read = async {
            let body = self.instant(query, Some(time)).await?;
            if let Ok(value) = decode::scalar(&body) {
                return Ok(Some(value));
            }
            let samples = decode::vector(&body)?;
            if samples.len() > 1 {
                let detail =
                    format!("the query gives {} series where one number is wanted: aggregate it", samples.len());
                return Err(ReadFailure { kind: FailureKind::Unusable, detail });
            }
            Ok(samples.first().map(|s| s.value))
        };
        match read.await {
            Ok(Some(value)) => Reading::Value(value),
            Ok(None) => Reading::Absent,
            Err(failure) => Reading::Failed(failure),
        }
    }

    /// Raw samples of the series that were born or reset, and what is known of their targets.
    async fn specials(
        &self,
        group: &Group<'_>,
        special: &[&Sample],
        from: Timestamp,
        to: Timestamp,
    ) -> Result<Specials, ReadFailure> {
        let Some((_, first)) = group.asks.first() else { return Ok(Specials::default()) };
        let instances: BTreeSet<&str> =
            special.iter().filter_map(|s| s.labels.get("instance")).map(String::as_str).collect();
        let everywhere = special.iter().any(|s| !s.labels.contains_key("instance"));
        let range = to.since(from) + WINDOW;
        let mut out = Specials::default();
        for (part, selector) in parts(&group.template) {
            if !special.iter().any(|s| part_of(&s.labels) == format!("{part}_special")) {
                continue;
            }
            let mut bound = selector.bind(&group.services, &group.slots, &first.spec);
            if !everywhere {
                bound = bound.of_instances(&instances);
            }
            let raw = format!("{bound}[{}ms] @ {}", range.as_millis(), at(to));
            let mut series = decode::raw_samples(&self.instant(&raw, None).await?)?;
            // VictoriaMetrics does not hear the @ of a bare range: its samples go on to now.
            series.iter_mut().for_each(|s| s.points.retain(|(at, _)| *at <= to.as_millis()));
            out.raw.insert(part, series);
        }
        let which = if everywhere {
            String::new()
        } else {
            let all: Vec<String> = instances.iter().map(|i| super::promql::escape_regex(i)).collect();
            format!("{{instance=~{}}}", quoted(&all.join("|")))
        };
        let known = format!(
            "label_replace(max by (instance, job) (last_over_time(process_start_time_seconds{which}[{WINDOW}] @ {t1})), \"flipback_part\", \"start\", \"\", \"\") or label_replace(max by (instance, job) (last_over_time(up{which}[{WINDOW}] @ {t0})), \"flipback_part\", \"up\", \"\", \"\")",
            t1 = at(to),
            t0 = at(from)
        );
        for sample in decode::vector(&self.instant(&known, None).await?)? {
            let target = out.targets.entry(target_of(&sample.labels)).or_default();
            match part_of(&sample.labels) {
                "start" => target.started_s = Some(sample.value),
                _ => target.known = true,
            }
        }
        Ok(out)
    }
}

#[derive(Default)]
struct Specials {
    raw: BTreeMap<&'static str, Vec<Series>>,
    targets: BTreeMap<(String, String), Target>,
}

#[derive(Default)]
struct Native {
    before: BTreeMap<Labels, Histogram>,
    after: BTreeMap<Labels, Histogram>,
}

pub(super) fn failed(id: &CommandId, kind: FailureKind, detail: String) -> Answer {
    (id.clone(), Observation::Failed(ReadFailure { kind, detail }), None)
}

/// Asks with the same key fit into one query.
fn group_key(ask: &ObserveAsk, template: &Template) -> String {
    let service = if template.groups_services() { "*" } else { ask.service.as_str() };
    let grouped = template.groups_slots() && ask.spec.labels.is_empty();
    let slot = if grouped { "*" } else { ask.slot.as_str() };
    format!(
        "{:?}|{service}|{slot}|{:?}|{}|{}",
        (&ask.metrics.requests, &ask.metrics.errors, &ask.metrics.latency),
        ask.spec.labels,
        ask.from.as_millis(),
        ask.grid.as_millis()
    )
}

fn parts(template: &Template) -> impl Iterator<Item = (&'static str, &Selector)> {
    [
        ("requests", Some(&template.requests)),
        ("errors", template.errors.as_ref()),
        ("latency", template.latency.as_ref()),
    ]
    .into_iter()
    .filter_map(|(part, selector)| Some((part, selector?)))
}

fn group_labels(group: &Group<'_>, selector: &Selector) -> GroupLabels {
    GroupLabels::of(selector, group.template.groups_services(), group.template.groups_slots())
}

/// The one query of a group; its parts are told apart by the label `flipback_part`.
fn query(group: &Group<'_>, spec: &SlotSpec, from: Timestamp, to: Timestamp) -> String {
    let (t0, t1) = (at(from), at(to));
    let length = to.since(from).as_millis();
    let tag = |expr: String, part: &str| format!("label_replace({expr}, \"flipback_part\", \"{part}\", \"\", \"\")");
    let mut branches = Vec::new();
    for (part, selector) in parts(&group.template) {
        let labels = group_labels(group, selector);
        let by = labels.list(if part == "latency" { &["le"] } else { &[] });
        let x = selector.bind(&group.services, &group.slots, spec);
        let last = |t: &str| format!("last_over_time({x}[{WINDOW}] @ {t})");
        // A reset between the sample before t0 and the first one after it must be seen as well, so the
        // range reaches back over it; a false alarm costs one query of raw samples.
        let resets = format!("resets({x}[{}ms] @ {t1}) > 0", length + WINDOW.as_millis());
        let ordinary = format!("((({} - {}) >= 0) unless ({resets}))", last(&t1), last(&t0));
        branches.push(tag(format!("sum by ({by}) ({ordinary})"), part));
        branches.push(tag(format!("({} unless {ordinary})", last(&t1)), &format!("{part}_special")));
    }
    let labels = group_labels(group, &group.template.requests);
    let x = group.template.requests.bind(&group.services, &group.slots, spec);
    // Ranges are closed at both ends in Prometheus 2 and open at the left in 3: a millisecond less is
    // right in both.
    let fresh = format!("sum by ({}) (count_over_time({x}[{}ms] @ {t1}))", labels.list(&[]), (length - 1).max(1));
    branches.push(tag(fresh, "fresh"));
    let targets = format!(
        "(group by ({}) (last_over_time({x}[{WINDOW}] @ {t1})) * on (instance, job) group_left () max by (instance, job) (up @ {t1}))",
        labels.list(&["instance", "job"])
    );
    branches.push(tag(targets, "target"));
    branches.push(tag(format!("count(up @ {t1} == 1)"), "all_up"));
    branches.join(" or ")
}

fn part_of(labels: &Labels) -> &str {
    labels.get("flipback_part").map_or("", String::as_str)
}

fn target_of(labels: &Labels) -> (String, String) {
    let label = |name: &str| labels.get(name).cloned().unwrap_or_default();
    (label("instance"), label("job"))
}

/// Whether a series belongs to the ask, by the labels that the query was grouped by.
fn belongs(labels: &Labels, by: &GroupLabels, ask: &ObserveAsk) -> bool {
    let is = |label: &Option<String>, value: &str| {
        label.as_ref().is_none_or(|label| labels.get(label).is_some_and(|found| found == value))
    };
    is(&by.service, ask.service.as_str()) && is(&by.slot, ask.slot.as_str())
}

fn read(
    group: &Group<'_>,
    ask: &ObserveAsk,
    to: Timestamp,
    samples: &[Sample],
    specials: &Specials,
    native: &Result<Native, ReadFailure>,
    custom: Vec<(String, Reading<f64>)>,
) -> Observation {
    let mine = |part: &str, selector: &Selector| {
        let by = group_labels(group, selector);
        let part = part.to_owned();
        samples.iter().filter(move |s| part_of(&s.labels) == part && belongs(&s.labels, &by, ask)).collect::<Vec<_>>()
    };
    let template = &group.template;
    let targets = targets(&mine("target", &template.requests), samples);
    let present =
        !mine("requests", &template.requests).is_empty() || !mine("requests_special", &template.requests).is_empty();
    if mine("fresh", &template.requests).is_empty() {
        return if present { Observation::Empty { to, targets } } else { Observation::Absent { to, targets } };
    }
    let plausible = Plausible { rate: ask.plausible_rate, interval_s: to.since(ask.from).as_secs_f64() };
    let mut remarks = Vec::new();
    let mut sum = |part: &'static str, selector: &Selector| -> BTreeMap<String, f64> {
        let mut by_le: BTreeMap<String, f64> = BTreeMap::new();
        for sample in mine(part, selector) {
            *by_le.entry(sample.labels.get("le").cloned().unwrap_or_default()).or_default() += sample.value;
        }
        let special = mine(&format!("{part}_special"), selector);
        let left_out = add_specials(&mut by_le, part, &special, specials, ask.from, plausible);
        if left_out > 0.0 {
            remarks.push(format!("counter jump in {part}: {left_out:.0} not counted"));
        }
        by_le
    };
    let requests: f64 = sum("requests", &template.requests).values().sum();
    let errors: f64 = template.errors.as_ref().map_or(0.0, |s| sum("errors", s).values().sum());
    let latency = template.latency.as_ref().map(|s| sum("latency", s));
    let counts = match Counts::try_new(requests, errors) {
        Ok(counts) => Reading::Value(counts),
        Err(why) => Reading::Failed(ReadFailure { kind: FailureKind::Unusable, detail: why.to_string() }),
    };
    let latency = match latency {
        None => template.native.as_ref().map_or(Reading::Absent, |selector| {
            let native = match native {
                Ok(native) => native,
                Err(failure) => return Reading::Failed(failure.clone()),
            };
            let by = group_labels(group, selector);
            let of = |all: &BTreeMap<Labels, Histogram>| -> BTreeMap<Labels, Histogram> {
                all.iter().filter(|(l, _)| belongs(l, &by, ask)).map(|(l, h)| (l.clone(), h.clone())).collect()
            };
            let (buckets, left_out) = native::increase(&of(&native.before), &of(&native.after), plausible);
            if left_out > 0.0 {
                remarks.push(format!("counter jump in latency: {left_out:.0} not counted"));
            }
            // A change of the app's resolution is one tick without latency, not a failure.
            buckets.filter(|b| b.total() > 0.0).map_or(Reading::Absent, Reading::Value)
        }),
        Some(by_le) if by_le.is_empty() => Reading::Absent,
        Some(by_le) => match buckets(&by_le) {
            Ok(buckets) => Reading::Value(buckets),
            Err(detail) => Reading::Failed(ReadFailure { kind: FailureKind::Unusable, detail }),
        },
    };
    Observation::Cell(Box::new(SlotCell { from: ask.from, to, counts, latency, targets, custom, remarks }))
}

/// Adds what born and reset series counted; gives what was not counted.
fn add_specials(
    by_le: &mut BTreeMap<String, f64>,
    part: &'static str,
    special: &[&Sample],
    specials: &Specials,
    from: Timestamp,
    plausible: Plausible,
) -> f64 {
    // A histogram's buckets are judged together by the largest: half a histogram is no histogram.
    let without = |labels: &Labels| -> Labels {
        labels
            .iter()
            .filter(|(k, _)| !matches!(k.as_str(), "le" | "flipback_part" | "__name__"))
            .map(|(k, v)| (k.clone(), v.clone()))
            .collect()
    };
    let mut largest: BTreeMap<Labels, f64> = BTreeMap::new();
    for sample in special {
        let top = largest.entry(without(&sample.labels)).or_default();
        *top = top.max(sample.value);
    }
    let raw = specials.raw.get(part).map(Vec::as_slice).unwrap_or_default();
    let mut left_out: f64 = 0.0;
    for sample in special {
        let (key, le) = (without(&sample.labels), sample.labels.get("le").cloned().unwrap_or_default());
        let series =
            raw.iter().find(|s| without(&s.labels) == key && s.labels.get("le").cloned().unwrap_or_default() == le);
        let Some(series) = series else { continue };
        let target = specials.targets.get(&target_of(&sample.labels)).copied().unwrap_or_default();
        let decisive = (part == "latency").then(|| largest.get(&key).copied()).flatten();
        let increase = exact::increase(&series.points, from, target, plausible, decisive);
        *by_le.entry(le).or_default() += increase.counted;
        // Buckets are cumulative: the largest stands for its histogram.
        left_out = if part == "latency" { left_out.max(increase.left_out) } else { left_out + increase.left_out };
    }
    left_out
}

pub(super) fn buckets(by_le: &BTreeMap<String, f64>) -> Result<Buckets, String> {
    let mut finite: Vec<(f64, f64)> = Vec::new();
    let mut total = None;
    for (le, count) in by_le {
        match le.as_str() {
            "+Inf" => total = Some(*count),
            le => finite.push((le.parse().map_err(|_| format!("le={le:?} is not a number"))?, *count)),
        }
    }
    let total = total.ok_or("the histogram has no +Inf bucket: is the latency selector a _bucket metric?")?;
    finite.sort_by(|a, b| a.0.total_cmp(&b.0));
    let (bounds, cumulative) = finite.into_iter().unzip();
    Buckets::try_new(bounds, cumulative, total).map_err(|why| why.to_string())
}

fn targets(mine: &[&Sample], all: &[Sample]) -> Reading<Targets> {
    if mine.is_empty() {
        return Reading::Absent;
    }
    let up = u32::try_from(mine.iter().filter(|s| s.value > 0.0).count()).unwrap_or(u32::MAX);
    let down = u32::try_from(mine.len()).unwrap_or(u32::MAX) - up;
    let all_up = all.iter().find(|s| part_of(&s.labels) == "all_up").map_or(0.0, |s| s.value);
    Reading::Value(Targets { up, down, others_up: (all_up as u32).saturating_sub(up) })
}

/// The usual distance of the last samples, rounded to what people configure. A few of them outvote one
/// late scrape, and more would go on believing in an interval that was changed minutes ago.
pub(super) fn spacing(series: &[Series]) -> Option<Span> {
    const LAST: usize = 6;
    let points = &series.first()?.points;
    let points = &points[points.len().saturating_sub(LAST)..];
    let mut gaps: Vec<i64> = points.windows(2).map(|w| w[1].0 - w[0].0).collect();
    gaps.sort_unstable();
    let median = u64::try_from(*gaps.get(gaps.len() / 2)?).ok()?;
    let unit = if median >= 900 { 1000 } else { 100 };
    Some(Span::from_millis(((median + unit / 2) / unit * unit).max(100)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_scrape_interval_is_that_of_the_last_scrapes() {
        let spacing_of = |gaps_ms: &[i64]| {
            let mut at = 0;
            let mut points = vec![(0, 1.0)];
            for gap in gaps_ms {
                at += gap;
                points.push((at, 1.0));
            }
            spacing(&[Series { labels: Labels::new(), points }])
        };
        assert_eq!(spacing_of(&[15_000; 20]), Some(Span::from_secs(15)));
        assert_eq!(spacing_of(&[15_000, 15_001, 14_998, 31_000, 15_002]), Some(Span::from_secs(15)), "one was late");
        let changed = [&[15_000; 20][..], &[1000; 4]].concat();
        assert_eq!(spacing_of(&changed), Some(Span::from_secs(1)), "twenty old ones do not outvote four new ones");
        assert_eq!(spacing_of(&[]), None);
    }
}
