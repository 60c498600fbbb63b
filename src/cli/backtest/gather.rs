//! From a server's memory, or the journal's, to played switches.

use super::list::Listed;
use crate::account::backtest::{After, Play, Row, Truth, Would};
use crate::account::switches::{Carrier, Kind, Move, kinds, moves};
use crate::domain::account::Account;
use crate::domain::counts::Cell;
use crate::domain::policy::Policy;
use crate::domain::service::{ALL_SLOTS, Service};
use crate::domain::signal::ReadFailure;
use crate::domain::switch::{Announcement, ServiceName, Slot, Version};
use crate::domain::time::{Span, Timestamp};
use crate::domain::verdict::Outcome;
use crate::edge::sources::Prometheus;
use crate::engine::message::RecordAsk;
use crate::sim::past::{self, Cells, Remembered};

/// Who has the traffic is looked at this often; a switch's instant is read from its cells afterwards.
const LOOK: Span = Span::from_secs(30);
/// A year at that is a million looks: it is looked at more coarsely.
const LOOKS_MAX: u64 = 100_000;

/// A baseline is chosen from this long before a switch.
const NORMAL: Span = Span::from_mins(25 * 60);

/// Cells of a normal, as the daemon records them.
const CELL: Span = Span::from_secs(15);

/// A move that was found between two looks is sought this long before and after.
const AROUND: Span = Span::from_mins(3);

/// A past switch that is to be played.
#[derive(Debug, Clone, PartialEq)]
pub struct Candidate {
    pub at: Timestamp,
    pub kind: Kind,
    pub old: Slot,
    pub new: Slot,
    pub old_version: Option<Version>,
    pub version: Option<Version>,
    pub truth: Option<Truth>,
    /// Known to a look only.
    pub rough: bool,
}

pub struct Gather {
    pub source: Prometheus,
    pub service: Service,
    pub controls: Vec<Service>,
    pub policies: Vec<Policy>,
    pub from: Timestamp,
    pub to: Timestamp,
}

/// How far it is: 0 to 1000, and with what.
pub type Tell<'a> = &'a mut (dyn FnMut(u64, &str) + Send);

impl Gather {
    /// The longest that any of the policies watches.
    fn whole(&self) -> Span {
        let of = |p: &Policy| p.soak + p.long + p.extend_max;
        self.policies.iter().map(of).max().unwrap_or(Span::from_mins(30))
    }

    fn soak(&self) -> Span {
        self.policies.iter().map(|p| p.soak).max().unwrap_or(Span::from_mins(30))
    }

    /// How often the slots were scraped lately: at the end of the time, or some time before it.
    async fn interval(&self) -> Result<Span, ReadFailure> {
        const TRIES: u64 = 8;
        let slots = self.service.slots.specs();
        let any = Slot::try_new(ALL_SLOTS).ok();
        for part in 0..TRIES {
            let at = self.to - Span::from_millis(self.to.since(self.from).as_millis() * part / TRIES);
            for slot in slots.keys().chain(any.as_ref().filter(|_| slots.is_empty())) {
                if let Some(found) = self.source.interval_at(&self.service, slot, at).await? {
                    return Ok(found);
                }
            }
        }
        Ok(CELL)
    }

    /// The switches that the traffic shows.
    pub async fn find(&self, version: Option<&str>, tell: Tell<'_>) -> Result<Vec<Candidate>, ReadFailure> {
        let whole_s = self.to.since(self.from).as_millis() / 1000;
        let interval = self.interval().await?;
        let least_s = LOOK.max(interval).as_millis().div_ceil(1000);
        let step = Span::from_secs((whole_s / LOOKS_MAX).max(least_s));
        // A rate wants two samples, and one more for a scrape that is late.
        let window = step.times(2).max(interval.times(3));
        let (from, span) = (self.from, self.to.since(self.from).as_secs_f64().max(1.0));
        let mut told =
            |at: Timestamp| tell((at.since(from).as_secs_f64() / span * 200.0) as u64, "looking for switches");
        let shares =
            self.source.shares(&self.service, version, (self.from, self.to), (step, window), &mut told).await?;
        let moves = moves(&shares);
        let kinds = kinds(&moves, self.soak().max(Span::from_mins(60)));
        Ok(moves
            .into_iter()
            .zip(kinds)
            .map(|(m, kind)| Candidate {
                at: m.at,
                kind,
                old: m.from.slot,
                new: m.to.slot,
                old_version: m.from.version,
                version: m.to.version,
                truth: None,
                rough: true,
            })
            .collect())
    }

    /// Plays every release among them, in the order of time.
    pub async fn play(&self, all: &[Candidate], tell: Tell<'_>) -> Result<Vec<Row>, ReadFailure> {
        let mut rows: Vec<Row> = Vec::new();
        let (mut known, mut recorded_to) = (Remembered::default(), self.from - NORMAL.times(2));
        for (i, one) in all.iter().enumerate() {
            let name = one.version.as_ref().map_or_else(|| one.new.to_string(), ToString::to_string);
            tell(200 + 800 * i as u64 / all.len().max(1) as u64, &format!("playing {} ({name})", one.at));
            let next = all.get(i + 1);
            let horizon = next.map_or(self.to, |next| next.at).min(one.at + self.whole() + AROUND);
            if one.kind == Kind::Revert {
                rows.push(row(one, one.at, next, horizon, Vec::new()));
                continue;
            }
            self.remember(one, horizon, &mut known, &mut recorded_to).await?;
            let at = if one.rough { refined(one, &self.service, &known.soak) } else { one.at };
            let controls = &self.controls;
            let mut announcement =
                Announcement::of(self.service.name.clone(), one.old.clone(), one.new.clone(), "backtest");
            announcement.version.clone_from(&one.version);
            announcement.old_version.clone_from(&one.old_version);
            let plays: Vec<Play> = self
                .policies
                .iter()
                .map(|policy| past::play(&self.service, controls, policy, announcement.clone(), at, horizon, &known))
                .collect();
            if let Some(first) = plays.first()
                && let Some(account) = &first.account
            {
                known.facts.push(past::past_watch(account, &first.would, horizon));
            }
            let mut row = row(one, at, next, horizon, plays);
            row.rivals = past::rivals(&self.service, &one.old, &one.new, at, horizon.min(at + self.soak()), &known);
            rows.push(row);
        }
        Ok(rows)
    }

    /// Brings the normal up to the switch, and fetches its soak.
    async fn remember(
        &self,
        one: &Candidate,
        horizon: Timestamp,
        known: &mut Remembered,
        recorded_to: &mut Timestamp,
    ) -> Result<(), ReadFailure> {
        let begin = one.at - NORMAL;
        known.normal.values_mut().for_each(|cells| cells.retain(|cell| cell.from >= begin));
        known.scrape_interval = self.source.interval_at(&self.service, &one.old, one.at).await?;
        let interval = known.scrape_interval.unwrap_or(CELL);
        let whole_s = |span: Span| Span::from_secs(span.as_millis().div_ceil(1000).max(1));
        let tick = self.policies.iter().map(|p| p.tick).min().unwrap_or(CELL);
        let width = whole_s(tick.max(interval));
        let of = std::iter::once(&self.service).chain(&self.controls);
        known.soak.clear();
        for service in of {
            let ask = RecordAsk {
                service: service.name.clone(),
                metrics: service.metrics.clone(),
                slots: service.slots.specs(),
            };
            let from = (*recorded_to).max(begin);
            let normal = self.source.record(&ask, from, Some(one.at), whole_s(CELL.max(interval))).await?;
            for slot in normal {
                known.normal.entry((slot.service, slot.slot)).or_default().extend(slot.cells);
            }
            let soak = self.source.record(&ask, one.at - AROUND, Some(horizon), width).await?;
            for slot in soak {
                known.soak.insert((slot.service, slot.slot), slot.cells);
            }
        }
        *recorded_to = one.at;
        known.custom.clear();
        let judged = |name: &str| self.policies.iter().any(|p| p.limits.custom.iter().any(|c| c.name == name));
        for (name, query) in self.service.metrics.custom.iter().filter(|(name, _)| judged(name)) {
            let range = (one.at - AROUND, horizon);
            let values = self.source.custom_past(&self.service, &one.new, query, range, width).await?;
            known.custom.insert(name.clone(), values);
        }
        Ok(())
    }
}

fn row(one: &Candidate, at: Timestamp, next: Option<&Candidate>, horizon: Timestamp, plays: Vec<Play>) -> Row {
    let after = match next {
        Some(next) if next.kind == Kind::Revert => After::Reverted { after_s: next.at.since(at).as_millis() / 1000 },
        Some(next) if next.at <= horizon => After::Overtaken { after_s: next.at.since(at).as_millis() / 1000 },
        Some(_) | None => After::Kept,
    };
    Row {
        at,
        kind: one.kind,
        old: one.old.clone(),
        new: one.new.clone(),
        version: one.version.clone(),
        truth: one.truth,
        after,
        plays,
        rivals: Vec::new(),
    }
}

/// The first tick at which the new slot had more than half of both slots' requests.
fn refined(one: &Candidate, service: &Service, soak: &Cells) -> Timestamp {
    let of = |slot: &Slot| soak.get(&(service.name.clone(), slot.clone())).map(Vec::as_slice).unwrap_or_default();
    let (old, new) = (of(&one.old), of(&one.new));
    // In one place nothing but the look itself tells the instant: its rate covers the two looks before it.
    if one.old == one.new || !service.metrics.by_slot() {
        return one.at - LOOK;
    }
    let at = |cells: &[Cell], to: Timestamp| {
        cells.binary_search_by_key(&to, |c| c.to).ok().and_then(|i| cells.get(i)).map_or(0.0, |c| c.counts.requests())
    };
    let moved = new.iter().find(|cell| {
        let n = cell.counts.requests();
        n > 0.0 && n > at(old, cell.to) && cell.to <= one.at + AROUND
    });
    moved.map_or(one.at, |cell| cell.from)
}

/// The switches that somebody wrote down.
pub fn listed(list: Vec<Listed>, window: Span) -> Vec<Candidate> {
    // The version that a list names is the new slot's alone: whether a move goes back is told by the slots.
    let carrier = |slot: &Slot| Carrier { slot: slot.clone(), version: None };
    let all: Vec<Move> = list.iter().map(|l| Move { at: l.at, from: carrier(&l.old), to: carrier(&l.new) }).collect();
    // What is called good or bad is a release, whatever it looks like.
    let kinds = kinds(&all, window);
    list.into_iter()
        .zip(kinds)
        .map(|(l, kind)| Candidate {
            at: l.at,
            kind: if l.truth.is_some() { Kind::Release } else { kind },
            old: l.old,
            new: l.new,
            old_version: None,
            version: l.version,
            truth: l.truth,
            rough: false,
        })
        .collect()
}

/// A watch of the journal once more: by what it was judged by then, and by each policy.
pub fn replayed(account: &Account, service: &Service, policies: &[Policy]) -> Option<Row> {
    let w = &account.view;
    let skew_ms = w.clock.map_or(0, |clock| clock.skew_ms);
    let at = w.cut_over_at?.shifted(skew_ms);
    let mut soak = Cells::new();
    for read in &account.readings {
        let Some(counts) = read.cell.counts.value() else { continue };
        let cell = Cell {
            from: read.cell.from,
            to: read.cell.to,
            counts: *counts,
            latency: read.cell.latency.value().cloned(),
        };
        let slot = if service.metrics.by_slot() { read.slot.clone() } else { Slot::try_new(ALL_SLOTS).ok()? };
        soak.entry((w.switch.service.clone(), slot)).or_default().push(cell);
    }
    let key = |slot: &Slot| -> (ServiceName, Slot) { (w.switch.service.clone(), slot.clone()) };
    let normal_of = w.baseline.as_ref().map_or(&w.switch.old, |b| &b.provenance.slot);
    let mut normal = Cells::from([(key(normal_of), account.normal.clone())]);
    normal.entry(key(&w.switch.old)).or_insert_with(|| account.before.clone());
    let mut custom = std::collections::BTreeMap::new();
    for read in account.of_slot(&w.switch.new) {
        for (name, value) in &read.cell.custom {
            let all: &mut std::collections::BTreeMap<_, _> = custom.entry(name.clone()).or_default();
            all.extend(value.value().map(|v| (read.cell.to, *v)));
        }
    }
    let known = Remembered {
        normal,
        soak,
        custom,
        facts: Vec::new(),
        scrape_interval: w.clock.and_then(|clock| clock.scrape_interval),
        frozen: w.baseline.clone(),
    };
    let moved = w.steps.first().map(|step| step.intended_at);
    let until = moved.or(w.ended_at).unwrap_or(w.soak_ends_at + w.long).shifted(skew_ms);
    let outcome = w.outcome.as_ref()?;
    let seconds = |t: Timestamp| t.shifted(skew_ms).since(at).as_secs_f64();
    let then = match (outcome, moved) {
        (Outcome::RolledBackRecovered | Outcome::RolledBackNotRecovered | Outcome::RolledBackUnseen, Some(moved)) => {
            Would::RollBack { after_s: seconds(moved), why: crate::account::backtest::broken(Some(account)) }
        }
        (outcome, _) => Would::of(outcome, Some(account)),
    };
    let baseline = w.baseline.as_ref().map_or_else(|| "none".into(), past::words);
    let mut plays =
        vec![Play { would: then, baseline, detectable: w.detectable, account: Some(Box::new(account.clone())) }];
    let announcement = Announcement { event_id: None, detected: false, ..w.switch.clone() };
    plays.extend(
        policies.iter().map(|policy| past::play(service, &[], policy, announcement.clone(), at, until, &known)),
    );
    let reverted = matches!(outcome, Outcome::Cancelled { why } if why.contains("revert"));
    let after = if moved.is_some() || reverted {
        After::Reverted { after_s: until.since(at).as_millis() / 1000 }
    } else {
        After::Kept
    };
    let rivals = past::rivals(service, &w.switch.old, &w.switch.new, at, until, &known);
    Some(Row {
        at: w.began(),
        kind: Kind::Release,
        old: w.switch.old.clone(),
        new: w.switch.new.clone(),
        version: w.switch.version.clone(),
        truth: None,
        after,
        plays,
        rivals,
    })
}
