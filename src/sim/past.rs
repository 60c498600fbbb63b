//! A past switch through the real engine: its readings come from what a server remembers.

use std::collections::BTreeMap;

use super::stage::{self, Ending, Kept, Stage, World};
use crate::account::backtest::{Play, RivalPlay, Would, broken};
use crate::account::rivals::{Rival, Seen, SeenTick, by_minute};
use crate::domain::account::Account;
use crate::domain::baseline::{Baseline, BaselineAsk};
use crate::domain::counts::{Cell, Counts};
use crate::domain::plan::Plan;
use crate::domain::policy::{Mode, Policy};
use crate::domain::service::{ALL_SLOTS, Service, SlotSpec, Slots};
use crate::domain::signal::{Observation, Reading, SlotCell, SourceClock};
use crate::domain::switch::{Announcement, ServiceName, Slot};
use crate::domain::time::{Span, Timestamp};
use crate::engine::message::ObserveAsk;
use crate::judge::recorded::{self, Facts};
use crate::words::numbers::{duration, percent, thousands};

/// A slot without a sample for so long has none at all, as at a live server.
const GONE: Span = Span::from_mins(5);

/// The normal that the rules of other tools are given.
const RIVALS_NORMAL: Span = Span::from_mins(60);

/// Cells of a slot, oldest first.
pub type Cells = BTreeMap<(ServiceName, Slot), Vec<Cell>>;

/// What is remembered of a switch.
#[derive(Debug, Clone, Default)]
pub struct Remembered {
    /// Before it, of every slot, as a baseline is recorded.
    pub normal: Cells,
    /// After it, a cell for each tick.
    pub soak: Cells,
    /// Custom signals of the new slot.
    pub custom: BTreeMap<String, BTreeMap<Timestamp, f64>>,
    /// The switches before it: what is no normal.
    pub facts: Vec<recorded::PastWatch>,
    pub scrape_interval: Option<Span>,
    /// The normal as a watch was judged by it, where its cells are gone.
    pub frozen: Option<Baseline>,
}

/// The service as it is played: nothing is moved, and nobody is asked whether a slot of last week is well.
fn staged(service: &Service, policy: &Policy) -> Service {
    let slots = match &service.slots {
        Slots::Named(named) => Slots::Named(
            named.iter().map(|(slot, spec)| (slot.clone(), SlotSpec { health: None, ..spec.clone() })).collect(),
        ),
        Slots::Versions => Slots::Versions,
    };
    Service {
        slots,
        policy: Policy { mode: Mode::Auto, ..policy.clone() },
        plan: stage::way_back(),
        after_passed: Plan::default(),
        flags: BTreeMap::new(),
        unverified: true,
        ..service.clone()
    }
}

/// Plays one switch by one policy. `controls` are the services that it names. `until`: the switch that came next, or
/// the end of what is known.
pub fn play(
    service: &Service,
    controls: &[Service],
    policy: &Policy,
    announcement: Announcement,
    at: Timestamp,
    until: Timestamp,
    remembered: &Remembered,
) -> Play {
    let mut services = vec![staged(service, policy)];
    services.extend(controls.iter().map(|control| staged(control, &control.policy)));
    let (old, new) = (announcement.old.clone(), announcement.new.clone());
    let stage =
        Stage { services, announcement: Announcement { switched_at: Some(at), ..announcement }, began: at, until };
    let (mut kept, mut world) = (Kept::default(), Past { remembered, new: &new, chosen: None });
    let ending = stage::play(stage, &mut world, Some(&mut kept));
    let mut account = kept.account();
    if let Some(account) = &mut account {
        let lead = Span::from_millis(until.since(at).as_millis() / 4).clamp(Span::from_mins(2), Span::from_mins(60));
        account.before = world.normal(&service.name, &old).filter(|c| c.from >= at - lead).cloned().collect();
        let chosen = account.view.baseline.as_ref().map(|b| b.provenance.clone());
        if let Some(p) = chosen {
            let of = world.normal(&service.name, &p.slot).filter(|c| c.from >= p.from && c.to <= p.to);
            account.normal = of.cloned().collect();
        }
    }
    let seconds = |t: Timestamp| t.since(at).as_secs_f64();
    let would = match &ending {
        Ending::RolledBack(when) => Would::RollBack { after_s: seconds(*when), why: broken(account.as_ref()) },
        Ending::Ended(outcome) => Would::of(outcome, account.as_ref()),
        Ending::Open if account.as_ref().is_some_and(|a| a.view.ticks > 0) => {
            Would::CutShort { after_s: seconds(until) }
        }
        Ending::Open => Would::NotPlayed { why: "there are no readings of it".into() },
    };
    let would = match (would, &account) {
        (_, None) => Would::NotPlayed { why: "the switch was not accepted".into() },
        (would, Some(_)) => would,
    };
    let baseline = match &world.chosen {
        Some(Ok(b)) => words(b),
        Some(Err(why)) => why.clone(),
        None => String::new(),
    };
    let detectable = account.as_ref().and_then(|a| a.view.detectable);
    Play { would, baseline, detectable, account: account.map(Box::new) }
}

/// A normal in one line.
pub fn words(b: &Baseline) -> String {
    let rate = b.counts.rate().map_or("no requests".into(), percent);
    let requests = thousands(b.counts.requests());
    let quality = match &b.quality {
        crate::domain::baseline::Quality::Good => String::new(),
        crate::domain::baseline::Quality::TooLittle { why } => format!("; too little: {why}"),
        crate::domain::baseline::Quality::Incident { why } => format!("; an incident: {why}"),
    };
    format!("{rate} of {requests} requests in {}{quality}", duration(b.covered.as_secs_f64()))
}

/// What the rules of other tools would have done.
pub fn rivals(
    service: &Service,
    old: &Slot,
    new: &Slot,
    at: Timestamp,
    until: Timestamp,
    r: &Remembered,
) -> Vec<RivalPlay> {
    let world = Past { remembered: r, new, chosen: None };
    let normal: Vec<&Cell> = world.normal(&service.name, old).filter(|c| c.from >= at - RIVALS_NORMAL).collect();
    let ticks = world.cells(&r.soak, &service.name, new, service.metrics.by_slot()).iter();
    let ticks = ticks.filter(|c| c.from >= at && c.to <= until).map(|c| SeenTick {
        to_s: c.to.since(at).as_secs_f64(),
        requests: c.counts.requests(),
        bad: c.counts.bad(),
    });
    let seen = Seen { minutes: by_minute(normal), ticks: ticks.collect() };
    Rival::ALL.map(|rival| RivalPlay { rival, after_s: rival.rolls_back_s(&seen) }).into()
}

struct Past<'a> {
    remembered: &'a Remembered,
    new: &'a Slot,
    chosen: Option<Result<Baseline, String>>,
}

impl<'a> Past<'a> {
    fn cells(&self, all: &'a Cells, service: &ServiceName, slot: &Slot, by_slot: bool) -> &'a [Cell] {
        let one = Slot::try_new(ALL_SLOTS).ok();
        let slot = if by_slot { Some(slot.clone()) } else { one };
        slot.and_then(|slot| all.get(&(service.clone(), slot))).map(Vec::as_slice).unwrap_or_default()
    }

    fn normal(&self, service: &ServiceName, slot: &Slot) -> impl Iterator<Item = &'a Cell> {
        let all = &self.remembered.normal;
        let found = all.get(&(service.clone(), slot.clone())).or_else(|| {
            let one = Slot::try_new(ALL_SLOTS).ok()?;
            all.get(&(service.clone(), one))
        });
        found.map(Vec::as_slice).unwrap_or_default().iter()
    }
}

impl World for Past<'_> {
    fn baseline(&mut self, ask: &BaselineAsk) -> Result<Baseline, String> {
        if let Some(frozen) = &self.remembered.frozen {
            self.chosen.get_or_insert_with(|| Ok(frozen.clone()));
            return Ok(frozen.clone());
        }
        let of = self.remembered.normal.iter().filter(|((service, _), _)| *service == ask.service);
        let cells = of.flat_map(|((_, slot), cells)| {
            cells.iter().map(|cell| recorded::SlotCell { slot: slot.clone(), cell: cell.clone() })
        });
        let facts = Facts { cells: cells.collect(), watches: self.remembered.facts.clone(), ..Facts::default() };
        let chosen = recorded::choose(ask, &facts, 0.001);
        // The service's own comes first, its controls' after it.
        self.chosen.get_or_insert_with(|| chosen.clone());
        chosen
    }

    fn observe(&mut self, ask: &ObserveAsk, now: Timestamp) -> (Observation, SourceClock) {
        let clock = SourceClock { skew_ms: 0, settle: Span::ZERO, scrape_interval: self.remembered.scrape_interval };
        let all = self.cells(&self.remembered.soak, &ask.service, &ask.slot, ask.metrics.by_slot());
        let to = now.floor_to(ask.grid);
        let begin = all.partition_point(|cell| cell.to <= ask.from);
        let end = all.partition_point(|cell| cell.to <= to);
        let ticks = all.get(begin..end).unwrap_or_default();
        let targets = Reading::Absent;
        let Some(last) = ticks.last() else {
            let lately = begin.checked_sub(1).and_then(|i| all.get(i)).is_some_and(|c| to.since(c.to) < GONE);
            let none = if lately { Observation::Empty { to, targets } } else { Observation::Absent { to, targets } };
            return (none, clock);
        };
        let counts = ticks.iter().fold(Counts::default(), |sum, cell| sum.plus(cell.counts));
        let mut latency = Reading::Absent;
        let mut remarks = Vec::new();
        for more in ticks.iter().filter_map(|cell| cell.latency.as_ref()) {
            latency = match &latency {
                Reading::Value(sum) => match crate::domain::counts::Buckets::plus(sum, more) {
                    Some(sum) => Reading::Value(sum),
                    None => {
                        remarks.push("the histogram's bounds changed".to_owned());
                        break;
                    }
                },
                Reading::Absent | Reading::Failed(_) => Reading::Value(more.clone()),
            };
        }
        let of_new = ask.slot == *self.new;
        let custom = ask.metrics.custom.iter().map(|(name, _)| {
            let value = self.remembered.custom.get(name).filter(|_| of_new).and_then(|all| all.get(&last.to));
            (name.clone(), value.map_or(Reading::Absent, |v| Reading::Value(*v)))
        });
        let cell = SlotCell {
            from: ask.from,
            to: last.to,
            counts: Reading::Value(counts),
            latency,
            targets,
            custom: custom.collect(),
            remarks,
        };
        (Observation::Cell(Box::new(cell)), clock)
    }
}

/// A played switch as one that is past, for the normals of those after it.
pub fn past_watch(account: &Account, would: &Would, ended_at: Timestamp) -> recorded::PastWatch {
    use crate::domain::verdict::Outcome;
    let w = &account.view;
    let outcome = match would {
        Would::RollBack { .. } | Would::Page { .. } => Outcome::RolledBackRecovered,
        Would::Pass { by_checks_only } => Outcome::Passed { by_checks_only: *by_checks_only },
        // It stayed, and became the normal of what came after it.
        Would::NoVerdict { .. } | Would::CutShort { .. } | Would::NotPlayed { .. } => {
            Outcome::Passed { by_checks_only: false }
        }
    };
    recorded::PastWatch {
        id: w.id.clone(),
        old: w.switch.old.clone(),
        new: w.switch.new.clone(),
        version: w.switch.version.clone(),
        cut_over_at: w.began(),
        soak: w.soak,
        ended_at: Some(ended_at),
        outcome: Some(outcome),
        breached: would.accuses(),
    }
}
