//! Readings straight from the slots' own metrics pages: exact counts at the pace that is asked for, without a server.

pub(crate) mod page;
mod store;
mod target;

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use tokio::runtime::Handle;
use tokio_util::sync::CancellationToken;

use super::examine::{Finding, Level, finding};
use super::observe::{Answer, buckets, failed};
use super::promql::Template;
use crate::domain::counts::{Cell, Counts};
use crate::domain::origin::{NormalFrom, Origin};
use crate::domain::service::{Metrics, Service, Slots};
use crate::domain::signal::{FailureKind, Observation, Quantile, ReadFailure, Reading, SlotCell, SourceClock, Targets};
use crate::domain::switch::{ServiceName, Slot};
use crate::domain::time::{Span, Timestamp};
use crate::engine::message::{CommandId, ObserveAsk, RecordAsk, RecordedCells};
use crate::judge::quantile::quantile;
use page::{Part, Wanted};
use store::{Delta, Sums};
use target::{Found, Target, Terms};

/// A scrape's end is not the end of its being read.
const SETTLE_MARGIN: Span = Span::from_millis(40);
const SETTLE_MIN: Span = Span::from_millis(60);

/// Without a scrape for so long a slot has none at all.
const GONE: Span = Span::from_mins(5);

/// So few can always have come.
const SMALL: f64 = 100.0;

type BySlot = BTreeMap<(ServiceName, Slot), Vec<Arc<Target>>>;

/// Reads every page that the configuration names.
#[derive(Clone)]
pub struct Scraper {
    targets: Arc<Mutex<BySlot>>,
    dir: PathBuf,
    runtime: Handle,
    stop: CancellationToken,
    now: fn() -> Timestamp,
}

impl Scraper {
    pub fn new(state_dir: &Path, runtime: Handle, stop: CancellationToken, now: fn() -> Timestamp) -> Scraper {
        Scraper { targets: Arc::default(), dir: state_dir.join("scraped"), runtime, stop, now }
    }

    /// Takes the pages of a configuration. Those that are the same as before go on; the others begin, or end.
    pub fn configure(&self, services: &[Service]) -> Result<(), String> {
        let (mut fresh, mut begun) = (BySlot::new(), Vec::new());
        let mut old = self.targets.lock().unwrap_or_else(PoisonError::into_inner);
        for service in services {
            let Origin::Scrape(scraping) = &service.metrics.from else { continue };
            let Slots::Named(named) = &service.slots else { continue };
            std::fs::create_dir_all(&self.dir).map_err(|error| format!("{}: {error}", self.dir.display()))?;
            for (slot, spec) in named {
                let key = (service.name.clone(), slot.clone());
                let mut targets = Vec::new();
                for page in &spec.scrape {
                    let terms = Terms {
                        page: page.clone(),
                        every: scraping.every,
                        always: scraping.normal == NormalFrom::Scrape,
                        selectors: format!("{:?} {slot} {:?} {:?}", service.name, service.metrics, spec.labels),
                    };
                    let same = old.get(&key).and_then(|all| all.iter().find(|t| t.terms == terms)).cloned();
                    let target = match same {
                        Some(target) => target,
                        None => {
                            let wanted = wanted(&service.metrics, &service.name, slot, service)?;
                            let stop = self.stop.child_token();
                            let target = Arc::new(Target::new(terms, wanted, &self.dir, stop, self.now)?);
                            begun.push(target.clone());
                            target
                        }
                    };
                    targets.push(target);
                }
                fresh.insert(key, targets);
            }
        }
        self.forget(&fresh);
        let stays = |target: &Arc<Target>| fresh.values().flatten().any(|t| Arc::ptr_eq(t, target));
        old.values().flatten().filter(|target| !stays(target)).for_each(|target| target.end());
        for target in begun {
            self.runtime.spawn(target.run());
        }
        *old = fresh;
        Ok(())
    }

    /// What was written of pages that are named no more.
    fn forget(&self, fresh: &BySlot) {
        let Ok(entries) = std::fs::read_dir(&self.dir) else { return };
        for path in entries.flatten().map(|entry| entry.path()) {
            if !fresh.values().flatten().any(|target| target.file() == path) {
                let _ = std::fs::remove_file(path);
            }
        }
    }

    fn of(&self, service: &ServiceName, slot: &Slot) -> Vec<Arc<Target>> {
        let all = self.targets.lock().unwrap_or_else(PoisonError::into_inner);
        all.get(&(service.clone(), slot.clone())).cloned().unwrap_or_default()
    }

    /// Answers one question; reading goes on at its own pace.
    pub fn observe(&self, id: &CommandId, ask: &ObserveAsk) -> Answer {
        let targets = self.of(&ask.service, &ask.slot);
        if targets.is_empty() {
            let why = format!("{} {} has no page to scrape", ask.service, ask.slot);
            return failed(id, FailureKind::Rejected, why);
        }
        targets.iter().for_each(|target| target.heat());
        let took = targets.iter().map(|target| target.took()).max().unwrap_or(Span::ZERO);
        let settle = (took + SETTLE_MARGIN).max(SETTLE_MIN);
        let interval = targets.iter().map(|target| target.terms.every).max();
        let clock = SourceClock { skew_ms: 0, settle, scrape_interval: interval };
        let to = settled(&targets, (self.now)() - settle).floor_to(ask.grid);
        let up = self.up(&targets);
        if to <= ask.from {
            return (id.clone(), Observation::Empty { to, targets: up }, Some(clock));
        }
        let observation = self.read(ask, to, &targets, up);
        for target in &targets {
            if let Err(error) = target.keep() {
                // Counted all the same; only a restart would not go on from here.
                tracing::warn!(page = target.terms.page.url, %error, "what was scraped cannot be written down");
            }
        }
        (id.clone(), observation, Some(clock))
    }

    fn read(&self, ask: &ObserveAsk, to: Timestamp, targets: &[Arc<Target>], up: Reading<Targets>) -> Observation {
        let (mut sums, mut present, mut scrapes, mut left_out) = (Sums::default(), false, 0, 0.0);
        for target in targets {
            target.with_store(|store| {
                for delta in store.between(ask.from, to) {
                    scrapes += 1;
                    present |= delta.present;
                    left_out += add(&mut sums, delta, ask.plausible_rate);
                }
            });
        }
        if scrapes == 0 {
            let wrong = targets.iter().find_map(|target| match target.found()? {
                (_, Found::Unusable(failure)) => Some(failure),
                (_, Found::Up | Found::Down(_)) => None,
            });
            let lately = targets.iter().any(|t| t.with_store(|s| s.last_at()).is_some_and(|at| to.since(at) < GONE));
            return match (wrong, lately) {
                (Some(failure), _) => Observation::Failed(failure),
                (None, true) => Observation::Empty { to, targets: up },
                (None, false) => Observation::Absent { to, targets: up },
            };
        }
        if !present {
            // The page is there, and says nothing of requests yet.
            return Observation::Absent { to, targets: up };
        }
        let counts = match Counts::try_new(sums.requests, sums.bad) {
            Ok(counts) => Reading::Value(counts),
            Err(why) => Reading::Failed(ReadFailure { kind: FailureKind::Unusable, detail: why.to_string() }),
        };
        let latency = match sums.latency.is_empty() {
            true => Reading::Absent,
            false => match buckets(&sums.latency) {
                Ok(buckets) => Reading::Value(buckets),
                Err(detail) => Reading::Failed(ReadFailure { kind: FailureKind::Unusable, detail }),
            },
        };
        let remarks =
            if left_out > 0.0 { vec![format!("counter jump: {left_out:.0} not counted")] } else { Vec::new() };
        let custom = Vec::new();
        Observation::Cell(Box::new(SlotCell { from: ask.from, to, counts, latency, targets: up, custom, remarks }))
    }

    /// The slot's pages that answer, and those of everybody else.
    fn up(&self, targets: &[Arc<Target>]) -> Reading<Targets> {
        let state = |target: &Arc<Target>| target.found().map(|(_, found)| !matches!(found, Found::Down(_)));
        let mine: Vec<bool> = targets.iter().filter_map(state).collect();
        if mine.is_empty() {
            return Reading::Absent;
        }
        let all = self.targets.lock().unwrap_or_else(PoisonError::into_inner);
        let others = all.values().flatten().filter(|t| !targets.iter().any(|own| Arc::ptr_eq(own, t)));
        let count = |n: usize| u32::try_from(n).unwrap_or(u32::MAX);
        let up = count(mine.iter().filter(|up| **up).count());
        let others_up = count(others.filter(|t| state(t) == Some(true)).count());
        Reading::Value(Targets { up, down: count(mine.len()) - up, others_up })
    }

    /// Cells of `width` after `from`, of what is still kept.
    pub fn record(&self, ask: &RecordAsk, from: Timestamp, width: Span) -> Vec<RecordedCells> {
        let mut out = Vec::new();
        for slot in ask.slots.keys() {
            let targets = self.of(&ask.service, slot);
            let took = targets.iter().map(|target| target.took()).max().unwrap_or(Span::ZERO);
            let end = settled(&targets, (self.now)() - took - SETTLE_MARGIN).floor_to(width);
            let mut cells: BTreeMap<Timestamp, Sums> = BTreeMap::new();
            for target in &targets {
                target.with_store(|store| {
                    // Ten times as much as usual can have come; nobody has asked by a baseline yet.
                    let rate = Some(10.0 * store.rate());
                    for delta in store.between(from, end) {
                        // What was gathered over a gap belongs to no cell, and a first look counts nothing.
                        if delta.present && delta.at.since(delta.after) <= width.times(2) {
                            let to = (delta.at.shifted(-1)).floor_to(width) + width;
                            add(cells.entry(to).or_default(), delta, rate);
                        }
                    }
                });
                if let Err(error) = target.keep() {
                    tracing::warn!(page = target.terms.page.url, %error, "what was scraped cannot be written down");
                }
            }
            let cells =
                cells.into_iter().filter(|(to, _)| *to - width >= from && *to <= end).filter_map(|(to, sums)| {
                    let counts = Counts::try_new(sums.requests, sums.bad).ok()?;
                    let latency = if sums.latency.is_empty() { None } else { buckets(&sums.latency).ok() };
                    Some(Cell { from: to - width, to, counts, latency })
                });
            let (service, slot) = (ask.service.clone(), slot.clone());
            out.push(RecordedCells { service, slot, cells: cells.collect() });
        }
        out
    }

    /// `check --live`.
    pub async fn examine(&self, service: &Service) -> Vec<Finding> {
        let mut findings = Vec::new();
        let Slots::Named(named) = &service.slots else { return findings };
        for slot in named.keys() {
            for target in self.of(&service.name, slot) {
                let subject = format!("{} {slot} page {}", service.name, target.terms.page.url);
                let (level, text) = match target.look().await {
                    Err(Found::Down(why)) => (Level::Warning, format!("nobody answers: {why}")),
                    Err(Found::Unusable(failure)) => (Level::Error, failure.to_string()),
                    Err(Found::Up) => continue,
                    Ok((page, known, bytes, took)) => shown(&page, &known, bytes, took),
                };
                findings.push(finding(&subject, level, text));
            }
        }
        findings
    }
}

fn shown(page: &page::Page, known: &page::Known, bytes: usize, took: std::time::Duration) -> (Level, String) {
    let of =
        |part: Part| page.values.iter().filter(move |(s, _)| known.get(*s).is_some_and(|p| p.parts.contains(&part)));
    let (requests, errors) = (of(Part::Requests).count(), of(Part::Errors).count());
    let cost = format!("{} KiB in {} ms", bytes.div_ceil(1024), took.as_millis());
    if requests == 0 {
        return (Level::Error, format!("no series of the requests selector; {cost}"));
    }
    let mut by_le: BTreeMap<String, f64> = BTreeMap::new();
    for (series, value) in of(Part::Latency) {
        let le = known.get(series).and_then(|p| p.le.clone()).unwrap_or_default();
        *by_le.entry(le).or_default() += value;
    }
    let mut text = format!("{requests} series of requests, {errors} of errors");
    let mut level = Level::Ok;
    if !by_le.is_empty() {
        match buckets(&by_le) {
            Ok(buckets) => {
                for q in Quantile::ALL {
                    text.extend(quantile(&buckets, q.q()).map(|s| format!(", {q} {:.0} ms", s * 1000.0)));
                }
            }
            Err(why) => (level, text) = (Level::Warning, format!("{text}; latency: {why}")),
        }
    }
    if page.started_s.is_none() {
        level = Level::Warning;
        text.push_str("; no process_start_time_seconds: a restart is guessed from counters that fall");
    }
    (level, format!("{text}; {cost}"))
}

/// Adds what a scrape brought; gives what cannot be counted because nobody can know.
fn add(sums: &mut Sums, delta: &Delta, plausible_rate: Option<f64>) -> f64 {
    sums.plus(&delta.sure);
    let seconds = delta.at.since(delta.after).as_secs_f64();
    let unsure = delta.unsure.largest();
    let plausible = plausible_rate.is_none_or(|rate| unsure <= (rate * seconds).max(SMALL));
    if plausible {
        sums.plus(&delta.unsure);
        return 0.0;
    }
    unsure
}

fn settled(targets: &[Arc<Target>], to: Timestamp) -> Timestamp {
    targets.iter().map(|target| target.settled(to)).min().unwrap_or(to)
}

fn wanted(metrics: &Metrics, name: &ServiceName, slot: &Slot, service: &Service) -> Result<Wanted, String> {
    let template = Template::parse(metrics)?;
    let (services, slots) = (BTreeSet::from([name.as_str()]), BTreeSet::from([slot.as_str()]));
    let spec = service.slots.spec(slot).cloned().unwrap_or_default();
    let named = [
        (Part::Requests, Some(&template.requests)),
        (Part::Errors, template.errors.as_ref()),
        (Part::Latency, template.latency.as_ref()),
    ];
    let parts = named.into_iter().filter_map(|(part, selector)| Some((part, selector?)));
    let parts = parts.map(|(part, selector)| Ok((part, selector.matching(&services, &slots, &spec)?)));
    Ok(Wanted { parts: parts.collect::<Result<_, String>>()? })
}
