//! One switch through the real engine on a virtual clock. What the engine asks for is answered by whoever knows it:
//! made traffic, or what a server remembers.

use crate::domain::account::{Account, Judged, ReadCell, Said};
use crate::domain::action::{Action, Exec};
use crate::domain::baseline::{Baseline, BaselineAsk};
use crate::domain::brakes::Brakes;
use crate::domain::plan::{OnFailure, Plan, Step, When};
use crate::domain::service::Service;
use crate::domain::signal::{Observation, SlotCell, SourceClock};
use crate::domain::switch::{Announcement, Slot};
use crate::domain::time::{Span, Timestamp};
use crate::domain::verdict::Outcome;
use crate::domain::view::WatchView;
use crate::engine::Engine;
use crate::engine::message::{Command, Input, ObserveAsk, RequestId};

/// Who answers what the engine asks.
pub trait World {
    fn baseline(&mut self, ask: &BaselineAsk) -> Result<Baseline, String>;
    fn observe(&mut self, ask: &ObserveAsk, now: Timestamp) -> (Observation, SourceClock);
}

/// What is played.
pub struct Stage {
    /// The service that is switched, and its controls.
    pub services: Vec<Service>,
    pub announcement: Announcement,
    pub began: Timestamp,
    /// Nothing is known after this.
    pub until: Timestamp,
}

/// How it went.
#[derive(Debug, Clone, PartialEq)]
pub enum Ending {
    /// The first step of the way back was begun.
    RolledBack(Timestamp),
    Ended(Outcome),
    /// Still open when nothing more was known.
    Open,
}

/// When, what was read, and the watch afterwards.
type KeptTurn = (Timestamp, Option<(Slot, SlotCell)>, Option<WatchView>);

/// What a journal would have kept, turn by turn.
#[derive(Default)]
pub struct Kept {
    turns: Vec<KeptTurn>,
}

impl Kept {
    fn keep(&mut self, now: Timestamp, read: Option<(Slot, SlotCell)>, engine: &mut Engine) {
        self.turns.push((now, read, engine.take_views().pop()));
    }

    /// The account that they make; `None` where no watch was opened.
    pub fn account(self) -> Option<Account> {
        let view = self.turns.iter().rev().find_map(|(_, _, view)| view.clone())?;
        let (mut readings, mut judged): (Vec<ReadCell>, Vec<Judged>) = (Vec::new(), Vec::new());
        for (seq, (at, read, view)) in (0i64..).zip(self.turns) {
            readings.extend(read.map(|(slot, cell)| ReadCell { seq, slot, cell }));
            let said = view.map(|view| Said::of(&view)).filter(|said| said.tick > judged.len() as u32);
            judged.extend(said.map(|said| Judged { seq, at, said }));
        }
        Some(Account { view, readings, judged, before: Vec::new(), normal: Vec::new() })
    }
}

/// A plan whose one step is never carried out: that it is begun is all that is asked.
pub fn way_back() -> Plan {
    let back = Step {
        name: "back".into(),
        action: Action::Exec(Exec::new(["/nothing"])),
        timeout: Span::from_secs(30),
        probe: None,
        verify_timeout: Span::from_secs(10),
        retry_safe: false,
        lock: "back".into(),
        words: Default::default(),
        wait: Span::ZERO,
        heals_within: None,
        when: When::Always,
        on_failure: OnFailure::Stop,
        limit: None,
    };
    Plan { steps: vec![back] }
}

/// Plays it to its end; `kept` gets what a journal would have got.
pub fn play(stage: Stage, world: &mut impl World, mut kept: Option<&mut Kept>) -> Ending {
    let mut engine = Engine::new();
    let mut now = stage.began;
    let mut queue = engine.handle(now, &Input::Configured { services: stage.services, brakes: Brakes::default() });
    let announced = Input::Announced { request: RequestId(1), announcement: stage.announcement };
    queue.extend(engine.handle(now, &announced));
    loop {
        while !queue.is_empty() {
            for command in std::mem::take(&mut queue) {
                let mut read = None;
                let answer = match command {
                    Command::ChooseBaseline { id, ask } => Input::BaselineChosen { id, baseline: world.baseline(&ask) },
                    Command::Observe { id, ask } => {
                        let (observation, clock) = world.observe(&ask, now);
                        if let (Some(_), Observation::Cell(cell)) = (&kept, &observation) {
                            read = Some((ask.slot, (**cell).clone()));
                        }
                        Input::Observed { id, observation, clock: Some(clock) }
                    }
                    Command::RunStep { .. } => return Ending::RolledBack(now),
                    Command::End { outcome, .. } => return Ending::Ended(outcome),
                    _ => continue,
                };
                queue.extend(engine.handle(now, &answer));
                if let Some(kept) = kept.as_deref_mut() {
                    kept.keep(now, read, &mut engine);
                }
            }
        }
        let Some(deadline) = engine.next_deadline().filter(|at| *at <= stage.until) else { return Ending::Open };
        now = now.max(deadline);
        queue.extend(engine.handle(now, &Input::Timer));
    }
}
