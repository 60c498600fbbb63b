//! What is kept of a watch besides its view: what was read, and what was said of it, tick by tick.

use serde::{Deserialize, Serialize};

use super::counts::{Cell, Counts};
use super::signal::{Signal, SlotCell};
use super::switch::Slot;
use super::time::{Span, Timestamp};
use super::verdict::SignalState;
use super::view::WatchView;

/// A watch with everything that it rests on. Readings are kept for a shorter time than watches are: what is gone is
/// not here, and an account that was cut says from where.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Account {
    pub view: WatchView,
    /// Oldest first, of every slot that was read.
    pub readings: Vec<ReadCell>,
    /// Oldest first.
    pub judged: Vec<Judged>,
    /// What was recorded of the old slot shortly before the cut-over.
    pub before: Vec<Cell>,
    /// The recorded normal, cell by cell.
    pub normal: Vec<Cell>,
}

/// One answer to a question for readings. `seq` is its place in the journal.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ReadCell {
    pub seq: i64,
    pub slot: Slot,
    pub cell: SlotCell,
}

/// What the rule said when a tick of the new slot was in.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Judged {
    /// The last input of the turn that judged it.
    pub seq: i64,
    pub at: Timestamp,
    #[serde(flatten)]
    pub said: Said,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Said {
    /// Counted from 1.
    pub tick: u32,
    /// ln of the evidence of all signals together; the plain rule has none.
    pub ln_e: Option<f64>,
    pub signals: Vec<SaidOf>,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct SaidOf {
    pub signal: Signal,
    pub state: SignalState,
    pub value: Option<f64>,
    pub limit: Option<f64>,
    /// Since the cut-over.
    pub requests: f64,
    pub bad: f64,
    pub ticks_above: u32,
    pub ln_e: Option<f64>,
}

impl Said {
    pub fn of(view: &WatchView) -> Said {
        let signals = view.evidence.iter().map(|e| SaidOf {
            signal: e.signal.clone(),
            state: e.state,
            value: e.value,
            limit: e.limit.filter(|limit| limit.is_finite()),
            requests: e.requests,
            bad: e.bad,
            ticks_above: e.ticks_above,
            ln_e: e.proof.map(|proof| proof.ln_e),
        });
        let ln_e = view.one_in.map(libm::log).filter(|ln_e| ln_e.is_finite());
        Said { tick: view.ticks, ln_e, signals: signals.collect() }
    }
}

/// Sums of what was recorded of one slot.
#[derive(Debug, Clone, PartialEq)]
pub struct RecordedSum {
    pub slot: Slot,
    pub from: Timestamp,
    pub to: Timestamp,
    pub covered: Span,
    pub cells: u32,
    pub counts: Counts,
}

/// A tick: what was read of the new slot, and what was said then.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct JudgedTick<'a> {
    pub cell: &'a SlotCell,
    pub judged: &'a Judged,
}

impl Account {
    pub fn of_slot<'a>(&'a self, slot: &'a Slot) -> impl Iterator<Item = &'a ReadCell> {
        self.readings.iter().filter(move |read| read.slot == *slot)
    }

    /// Every tick whose reading is still there, oldest first. A reading that was not judged (the watch was paused, the
    /// answer came late) is in none.
    pub fn ticks(&self) -> Vec<JudgedTick<'_>> {
        let read = self.of_slot(&self.view.switch.new).filter(|read| read.cell.counts.value().is_some());
        let mut read = read.peekable();
        let mut ticks = Vec::new();
        for judged in &self.judged {
            // A question is asked when the one before is answered: the last answer of a turn is the tick.
            let mut last = None;
            while let Some(cell) = read.next_if(|read| read.seq <= judged.seq) {
                last = Some(&cell.cell);
            }
            ticks.extend(last.map(|cell| JudgedTick { cell, judged }));
        }
        ticks
    }

    /// What was said when this reading was in, or soon after it.
    pub fn said_after(&self, read: &ReadCell) -> Option<&Said> {
        self.judged.get(self.judged.partition_point(|judged| judged.seq < read.seq)).map(|judged| &judged.said)
    }
}
