//! Attribution before blame: what shows alike where nothing was switched is not the switch's doing. Looked at
//! are the old slot for as long as it serves, and the neighbours that the service names as its controls.

use serde::{Deserialize, Serialize};

use super::message::{Command, CommandId, ObserveAsk};
use super::sight::Cursor;
use super::view::one_line;
use super::watch::{Turn, Watch};
use crate::domain::baseline::{Baseline, BaselineAsk};
use crate::domain::service::{Metrics, Service, SlotSpec, Slots};
use crate::domain::signal::Observation;
use crate::domain::switch::{ServiceName, Slot};
use crate::domain::time::{Span, Timestamp};
use crate::domain::verdict::{Evidence, SignalState};
use crate::judge::{Rule, Tick};

/// The control must have evidence of its own, though not as much as a rollback needs.
const ONE_IN: f64 = 20.0;

/// ... and a regression of at least half the size.
const LIKE_SIZE: f64 = 0.5;

/// What trickles to the old slot after the cut-over is no control: connections that drain may well fail.
/// It must have at least this part of the new slot's requests.
const SERVES: f64 = 0.1;

/// Slots of a neighbour that are asked where flipback does not know which of them is live.
const SLOTS_MAX: usize = 4;

/// Another service, judged by its own normal over the same soak.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(super) struct Neighbour {
    pub service: ServiceName,
    slot: Slot,
    spec: SlotSpec,
    metrics: Metrics,
    baseline_asked: Option<CommandId>,
    baseline: Option<Box<Baseline>>,
    cursor: Cursor,
    rule: Rule,
}

/// The slots of a neighbour to look at, or why it cannot be a control.
pub(super) fn slots_of(service: &Service, live: Option<&Slot>) -> Result<Vec<Slot>, String> {
    match (live, &service.slots) {
        (Some(live), _) => Ok(vec![live.clone()]),
        (None, Slots::Named(named)) if service.metrics.by_slot() && named.len() <= SLOTS_MAX => {
            Ok(named.keys().cloned().collect())
        }
        (None, _) => Err(format!("where {} is live is not known yet: its first switch tells", service.name)),
    }
}

impl Watch {
    /// Takes a neighbour's slot as a control; it is asked for as the watch's own slots are.
    pub(super) fn add_neighbour(&mut self, service: &Service, slot: Slot, turn: &mut Turn<'_>) {
        let begins = self.announcement.switched_at.unwrap_or(self.opened_at);
        self.neighbours.push(Neighbour {
            service: service.name.clone(),
            spec: service.slots.spec(&slot).cloned().unwrap_or_default(),
            slot,
            metrics: service.metrics.clone(),
            baseline_asked: None,
            baseline: None,
            cursor: Cursor::at(begins),
            rule: Rule::new(&self.service.policy),
        });
        self.ask_neighbours_normal(turn);
    }

    /// A neighbour that is switched itself says nothing of this switch any more.
    pub(super) fn drop_neighbour(&mut self, service: &ServiceName, now: Timestamp) -> bool {
        let before = self.neighbours.len();
        self.neighbours.retain(|n| n.service != *service);
        let dropped = self.neighbours.len() < before;
        if dropped {
            self.record(now, "control", format!("{service} is no control any more: it is being switched itself"));
        }
        dropped
    }

    /// Asks for what is missing of the neighbours' normals.
    pub(super) fn ask_neighbours_normal(&mut self, turn: &mut Turn<'_>) {
        for i in 0..self.neighbours.len() {
            if self.neighbours[i].baseline.is_some() || self.neighbours[i].baseline_asked.is_some() {
                continue;
            }
            let id = self.command_id();
            let policy = &self.service.policy;
            let n = &mut self.neighbours[i];
            n.baseline_asked = Some(id.clone());
            let ask = BaselineAsk {
                service: n.service.clone(),
                slot: n.slot.clone(),
                other: n.slot.clone(),
                metrics: n.metrics.clone(),
                before: self.announcement.switched_at.unwrap_or(self.opened_at),
                soak: policy.soak,
                whole_day: !policy.long.is_zero(),
                cells_min: policy.baseline_cells_min,
                requests_min: policy.baseline_requests_min,
                slots: [(n.slot.clone(), n.spec.clone())].into(),
            };
            turn.commands.push(Command::ChooseBaseline { id, ask });
        }
    }

    /// After a restart nobody will answer what was asked before it.
    /// Prometheus's clock is known: see `Watch::take_clock`.
    pub(super) fn set_neighbours_by(&mut self, skew_ms: i64) {
        for n in &mut self.neighbours {
            n.cursor.set_by(skew_ms);
            n.cursor.forget_question();
        }
    }

    pub(super) fn forget_neighbours_questions(&mut self) {
        for n in &mut self.neighbours {
            n.cursor.forget_question();
            n.baseline_asked = None;
        }
    }

    pub(super) fn ask_neighbours(&mut self, timeout: Span, turn: &mut Turn<'_>) {
        for i in 0..self.neighbours.len() {
            if self.neighbours[i].cursor.asked_within(turn.now, timeout) || self.neighbours[i].baseline.is_none() {
                continue;
            }
            let id = self.command_id();
            let grid = self.tick;
            let n = &mut self.neighbours[i];
            n.cursor.ask(id.clone(), turn.now);
            let ask = ObserveAsk {
                service: n.service.clone(),
                slot: n.slot.clone(),
                spec: n.spec.clone(),
                metrics: n.metrics.clone(),
                from: n.cursor.from,
                grid,
                plausible_rate: n.baseline.as_ref().map(|b| b.peak_rate * 10.0),
                timeout,
            };
            turn.commands.push(Command::Observe { id, ask });
        }
    }

    /// Whether this was a neighbour's normal.
    pub(super) fn on_neighbours_normal(
        &mut self,
        id: &CommandId,
        chosen: &Result<Baseline, String>,
        now: Timestamp,
    ) -> bool {
        let Some(i) = self.neighbours.iter().position(|n| n.baseline_asked.as_ref() == Some(id)) else { return false };
        let n = &mut self.neighbours[i];
        let name = format!("{} ({})", n.service, n.slot);
        match chosen {
            Ok(baseline) if baseline.usable() => {
                n.rule.with_baseline(baseline);
                n.baseline = Some(Box::new(baseline.clone()));
                self.record(now, "control", format!("{name}, by {:.0} requests recorded", baseline.counts.requests()));
            }
            // Its other slot, most likely: a slot without a normal of its own can excuse nothing.
            Ok(_) | Err(_) => {
                self.neighbours.remove(i);
                self.record(now, "control", format!("not {name}: too little of it is recorded"));
            }
        }
        true
    }

    /// Whether this was a reading of a neighbour.
    pub(super) fn on_neighbour(&mut self, id: &CommandId, observation: &Observation) -> bool {
        let Some(i) = self.neighbours.iter_mut().position(|n| n.cursor.answered(id)) else { return false };
        let begins = self.cut_over_at.unwrap_or(self.opened_at).shifted(self.clock.skew_ms);
        let n = &mut self.neighbours[i];
        if let Observation::Cell(cell) = observation
            && let Some(counts) = cell.counts.value()
        {
            n.cursor.advance(cell.to, counts.requests());
            n.rule.tick(&Tick {
                from: cell.from,
                to: cell.to,
                since_cut_over: cell.to.since(begins),
                counts: Some(*counts),
                latency: cell.latency.value(),
                custom: &[],
            });
        }
        true
    }

    pub(super) fn begin_controls(&mut self, cut_over: Timestamp) {
        self.control.begin(cut_over);
        self.neighbours.iter_mut().for_each(|n| n.rule.begin(cut_over));
    }

    /// Whether everything that broke shows alike where nothing was switched.
    pub(super) fn control_too(&self, broken: &[Evidence]) -> Option<String> {
        let events = f64::from(self.service.policy.limits.min_events);
        let old = (self.announcement.old.to_string(), &self.control, SERVES);
        let neighbours = self.neighbours.iter().map(|n| (format!("{} ({})", n.service, n.slot), &n.rule, 0.0));
        std::iter::once(old).chain(neighbours).find_map(|(name, rule, serves)| {
            let of_control = rule.evidence();
            let shown: Vec<String> =
                broken.iter().map(|e| alike(e, &of_control, events, serves)).collect::<Option<_>>()?;
            (!shown.is_empty()).then(|| format!("{name} shows the same: {}", shown.join("; ")))
        })
    }
}

/// The control's own line of a signal, if it is worse there too, by a like amount or a like multiple of what
/// is normal there, over so many bad requests and this part of the new slot's traffic at least.
fn alike(broken: &Evidence, of_control: &[Evidence], events: f64, serves: f64) -> Option<String> {
    let same = of_control.iter().find(|c| c.signal == broken.signal)?;
    let few = same.proof.is_some() && same.bad < events;
    if few || same.requests < serves * broken.requests {
        return None;
    }
    let known = same.state == SignalState::Breached || same.proof.is_some_and(|p| p.one_in >= ONE_IN);
    let (here, there) = (broken.value?, same.value?);
    let (base_here, base_there) = (broken.baseline.unwrap_or(0.0), same.baseline.unwrap_or(0.0));
    let amount = there - base_there >= LIKE_SIZE * (here - base_here);
    let multiple =
        base_here > 0.0 && base_there > 0.0 && there / base_there - 1.0 >= LIKE_SIZE * (here / base_here - 1.0);
    (known && here > base_here && there > base_there && (amount || multiple)).then(|| one_line(same))
}
