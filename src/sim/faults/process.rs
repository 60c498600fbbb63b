//! The daemon: its wheel and its recovery are the real ones; the edge around them is the world's.

use std::fmt;

use rand::RngExt;

use super::BEGAN;
use super::plan::{Point, SECOND, Then};
use super::source::{self, Metrics, Ms};
use super::steps::{Dir, Does};
use super::store::MAIL;
use super::world::{Event, Facts, World};
use crate::domain::attempt::{Found, Marks};
use crate::domain::letter::{Letter, LetterKey};
use crate::domain::plan::{AttemptId, AttemptState, HealthReading, ProbeReading, StepEnd, StepResult};
use crate::domain::signal::Observation;
use crate::domain::switch::{Announcement, Slot, SwitchId};
use crate::domain::time::{Span, Timestamp};
use crate::edge::notify::Delivery;
use crate::edge::notify::outbox::after_try;
use crate::engine::message::{Answer, Command, Input, RequestId, StepRun};
use crate::journal::{RoutedTo, Write};
use crate::runtime::clock::Steady;
use crate::runtime::recover;
use crate::runtime::turn::Wheel;

/// The unit restarts the daemon after this.
const RESTART: Ms = 2 * SECOND;

/// How long the real store waits for room.
const FULL_PATIENCE: Ms = 10 * SECOND;

/// The comparison of two ways to a state is half the cost of a restart: not at every one.
const LONG_WAY_EVERY: u64 = 8;

/// An operator's restart is faster.
const RESTART_MIN: Ms = 100;

/// A caller that got no answer asks again, for a quarter of an hour.
const TRIES_MAX: u32 = 180;

pub struct Process {
    pub generation: u64,
    pub wheel: Wheel,
    steady: Steady,
    pub up_since: Ms,
    wake_at: Option<Ms>,
    mail_at: Option<Ms>,
}

/// What somebody asks of the daemon.
#[allow(clippy::large_enum_variant, reason = "a made world holds some hundreds at a time")]
#[derive(Debug, Clone, PartialEq)]
pub enum Call {
    Announce { announcement: Announcement, tries: u32 },
    Arm { service: Option<usize>, armed: bool },
    Answer { switch: SwitchId, approve: bool },
    Cancel { switch: SwitchId },
    Order { switch: SwitchId },
}

impl fmt::Display for Call {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Call::Announce { announcement: a, .. } => {
                let (event, version) = (a.event_id.as_ref().map_or("", |e| e.as_str()), a.version.as_ref());
                let version = version.map_or("", |v| v.as_str());
                write!(f, "announce {event}: {} {} → {}, {version}", a.service, a.old, a.new)
            }
            Call::Arm { service, armed } => {
                write!(f, "{} {service:?}", if *armed { "arm" } else { "disarm" })
            }
            Call::Answer { switch, approve } => write!(f, "{} {switch}", if *approve { "approve" } else { "decline" }),
            Call::Cancel { switch } => write!(f, "cancel {switch}"),
            Call::Order { switch } => write!(f, "rollback {switch}"),
        }
    }
}

impl World {
    // ------------------------------------------------------------------ life and death

    pub fn start(&mut self) {
        if self.process.is_some() || self.now < self.down_until {
            return;
        }
        let recovered = self.store.recovered();
        let engine = match recover::engine(&recovered) {
            Ok(engine) => engine,
            Err(error) => return self.violated(2, format!("the state cannot be recovered: {error}")),
        };
        // Promise 4: however far back one begins, the same inputs give the same state.
        if self.generation.is_multiple_of(LONG_WAY_EVERY)
            && let Some(long) = self.store.recovered_the_long_way()
            && let Ok(other) = recover::engine(&long)
            && other != engine
        {
            return self.violated(4, "the state after the last snapshot is not what the inputs before it give".into());
        }
        let last = recovered.last_at().filter(|_| !engine.is_idle()).unwrap_or(BEGAN - Span::from_mins(1));
        self.generation += 1;
        self.process = Some(Process {
            generation: self.generation,
            wheel: Wheel::new(engine),
            steady: Steady::begin(self.wall(), self.count(), last),
            up_since: self.now,
            wake_at: None,
            mail_at: None,
        });
        let off_ms = self.daemon_now().as_millis() - (BEGAN + Span::from_millis(self.now)).as_millis();
        self.tell(|| format!("the daemon starts, its clock {off_ms} ms off"));
        let (services, brakes) = (self.services(), self.brakes());
        let mut inputs = vec![Input::Configured { services, brakes }, Input::Started];
        if self.store.full {
            inputs.push(Input::Space { low: true });
        }
        self.turn(inputs, &[]);
        self.mail_soon(0);
    }

    pub fn crash(&mut self, down: Ms) {
        if self.process.take().is_none() {
            return;
        }
        let down = down.max(RESTART_MIN);
        self.crashes += 1;
        self.crash = None;
        self.disturb(None);
        self.calls.clear();
        self.tell(|| format!("the daemon dies, down for {down} ms"));
        self.down_until = self.now + down;
        self.later(down, Event::Start);
    }

    /// The machine loses power: the steps that run are gone, what was synced is there.
    pub fn power_cut(&mut self, down: Ms) {
        self.power += 1;
        for dir in self.files.dirs.values_mut() {
            dir.marks.locked = false;
        }
        self.crash(down);
    }

    /// The daemon's own clock.
    pub fn daemon_now(&mut self) -> Timestamp {
        let (wall, count) = (self.wall(), self.count());
        let Some(process) = &mut self.process else { return wall };
        if process.wheel.engine.is_idle() && process.steady.stepped_ms(wall, count).abs() >= 1000 {
            process.steady = Steady::begin(wall, count, Timestamp::from_millis(0));
        }
        process.steady.now(wall, count)
    }

    // ------------------------------------------------------------------ turns

    pub fn deliver(&mut self, input: Input, about: Option<Slot>) {
        if self.process.is_none() {
            return;
        }
        self.hearing = Some((input.clone(), about));
        self.turn(vec![input], &[]);
        self.hearing = None;
    }

    fn turn(&mut self, inputs: Vec<Input>, writes: &[Write]) {
        let now = self.daemon_now();
        if let Some((Point::BeforeCommit, down)) = self.crash {
            return self.crash(down);
        }
        let before = self.store.inputs;
        let Some(process) = &mut self.process else { return };
        match process.wheel.turn(now, inputs, writes, false, &mut self.store) {
            Ok(commands) => {
                self.durable();
                match self.crash {
                    Some((Point::AfterCommit, down)) => return self.crash(down),
                    Some((Point::MidDispatch(n), down)) if commands.len() > n => {
                        self.carry_out(commands.into_iter().take(n).collect());
                        return self.crash(down);
                    }
                    _ => self.carry_out(commands),
                }
                self.wake_soon();
            }
            Err((error, early)) => {
                self.tell(|| format!("commit failed: {error}"));
                if self.store.inputs > before {
                    // It got there all the same.
                    self.durable();
                }
                self.carry_out(early);
                // A full disk is waited out a little before the process gives up.
                self.crash(if self.store.full { RESTART + FULL_PATIENCE } else { RESTART });
            }
        }
    }

    /// A turn is on disk: only what was committed was heard.
    fn durable(&mut self) {
        if let Some((input, about)) = self.hearing.take() {
            self.heard(&input, about.as_ref());
        }
        self.committed();
    }

    pub fn wake(&mut self, generation: u64) {
        let now = self.daemon_now();
        let Some(process) = self.process.as_mut().filter(|p| p.generation == generation) else { return };
        process.wake_at = None;
        if process.wheel.engine.next_deadline().is_some_and(|at| at <= now) {
            self.turn(vec![Input::Timer], &[]);
        } else {
            self.wake_soon();
        }
    }

    fn wake_soon(&mut self) {
        /// The loop turns at least so often (the real one every second).
        const AT_LEAST: Ms = 30 * SECOND;
        let (now, world) = (self.daemon_now(), self.now);
        let Some(process) = &mut self.process else { return };
        let due = process.wheel.engine.next_deadline().map(|at| at.since(now).as_millis());
        let Some(due) = due else { return };
        let at = world + due.clamp(1, AT_LEAST);
        if process.wake_at.is_none_or(|wake| wake > at || wake <= world) {
            process.wake_at = Some(at);
            let generation = process.generation;
            self.later(at - world, Event::Wake { generation });
        }
    }

    // ------------------------------------------------------------------ the edge

    fn carry_out(&mut self, commands: Vec<Command>) {
        for command in commands {
            match command {
                Command::Reply { request, answer } => self.answered(request, &answer),
                Command::Observe { id, ask } => {
                    let Some(i) = self.site_of(&ask.service) else { continue };
                    let delay = match self.sites[i].metrics {
                        Metrics::Slow => 5_000,
                        _ => self.rng.random_range(10..250),
                    };
                    let prom = self.now;
                    let apart = self.wall_ms.abs() > 30_000;
                    let skew_ms = (BEGAN + Span::from_millis(prom)).as_millis() - self.daemon_now().as_millis();
                    let fault = if apart { Metrics::Refused } else { self.sites[i].metrics };
                    let (observation, clock) = source::observe(&self.sites[i].truth, &ask, fault, prom, skew_ms);
                    let input = Input::Observed { id, observation, clock };
                    self.answer_later(delay, input, Some(ask.slot));
                }
                Command::CheckHealth { id, slot, .. } => {
                    let Some(i) = self.site_of_switch(&id.switch) else { continue };
                    let reading = source::health(&self.sites[i].truth, &slot, self.sites[i].health_readable);
                    let delay = self.rng.random_range(2..60);
                    self.answer_later(delay, Input::HealthChecked { id, reading }, Some(slot));
                }
                Command::Probe { id, .. } => {
                    let Some(i) = self.site_of_switch(&id.switch) else { continue };
                    let reading = source::probe(&self.sites[i].truth, self.sites[i].probe_readable);
                    let delay = self.rng.random_range(5..80);
                    self.answer_later(delay, Input::Probed { id, reading }, None);
                }
                Command::Rehearse { id, ask: _ } => {
                    let input = Input::Rehearsed { id, tried: Vec::new() };
                    self.answer_later(SECOND, input, None);
                }
                Command::ChooseBaseline { id, ask } => {
                    let baseline = Ok(source::baseline(&ask.slot, ask.before));
                    self.answer_later(30, Input::BaselineChosen { id, baseline }, None);
                }
                Command::RunStep { run } => self.run_step(&run),
                Command::RecoverStep { attempt, .. } => {
                    let generation = self.generation;
                    self.later(5, Event::Look { generation, attempt });
                }
                Command::MarkDisarmed { all, services } => {
                    self.files.all_disarmed = all;
                    self.files.disarmed = services.into_iter().collect();
                }
                Command::Notify { .. } => self.mail_soon(10),
                Command::End { switch, outcome } => self.tell(|| format!("{switch} ends: {outcome}")),
                Command::RecordBaseline { .. } | Command::Prune => {}
            }
        }
    }

    fn answer_later(&mut self, delay: Ms, input: Input, about: Option<Slot>) {
        let generation = self.generation;
        self.later(delay, Event::Deliver { generation, input: Box::new(input), about });
    }

    pub fn site_of(&self, service: &crate::domain::switch::ServiceName) -> Option<usize> {
        self.sites.iter().position(|s| s.service.name == *service)
    }

    pub fn site_of_switch(&self, switch: &SwitchId) -> Option<usize> {
        self.site_of(&self.store.views.get(switch)?.switch.service)
    }

    /// What the daemon learned, for the checks.
    fn heard(&mut self, input: &Input, about: Option<&Slot>) {
        let now = self.now;
        match input {
            Input::Observed { id, observation: Observation::Cell(cell), .. } => {
                let Some(view) = self.store.views.get(&id.switch) else { return };
                if about != Some(&view.switch.new) {
                    return;
                }
                let Some(facts) = self.facts.get_mut(&id.switch) else { return };
                if let Some(counts) = cell.counts.value() {
                    let covered = cell.to.since(cell.from);
                    // A gap that one reading bridges was not watched.
                    facts.covered_ms += cell.to.since(cell.from).as_millis().min(2 * view.tick.as_millis());
                    facts.requests += counts.requests();
                    facts.last_sight = now;
                    let line = format!("{} sees {covered} from {}, {} in all", id.switch, cell.from, facts.covered_ms);
                    self.tell(|| line);
                }
            }
            Input::HealthChecked { id, reading: HealthReading::Good } => {
                let (Some(i), Some(slot)) = (self.site_of_switch(&id.switch), about) else { return };
                let entry = self.heard[i].well.entry(slot.clone()).or_default();
                *entry = (now, entry.0);
                if self.store.views.get(&id.switch).is_some_and(|v| v.switch.new == *slot)
                    && let Some(facts) = self.facts.get_mut(&id.switch)
                {
                    facts.good_checks += 1;
                }
            }
            Input::HealthChecked { id, .. } => {
                let (Some(i), Some(slot)) = (self.site_of_switch(&id.switch), about) else { return };
                self.heard[i].well.remove(slot);
            }
            Input::Probed { id, reading: ProbeReading::Shows(line) } => {
                let Some(i) = self.site_of_switch(&id.switch) else { return };
                if let Ok(slot) = Slot::try_new(line.clone()) {
                    self.heard[i].shown.insert(slot, now);
                }
            }
            _ => {}
        }
    }

    // ------------------------------------------------------------------ steps

    fn run_step(&mut self, run: &StepRun) {
        self.tell(|| format!("step {} begins", run.attempt));
        let generation = self.generation;
        let site = self.site_of(&run.service);
        if self.disarmed_all || site.is_some_and(|i| self.disarmed.contains(&i)) {
            self.violated(14, format!("{} is intended though an operator was told that it is disarmed", run.attempt));
        }
        match site.and_then(|i| self.sites[i].at_step.take()) {
            Some(Then::Crash { after, down }) => self.later(after, Event::Dies { generation, down }),
            Some(Then::CrashIn { point, down }) => self.crash = Some((point, down)),
            Some(Then::Disarm { after, shim }) => {
                self.late_shim = shim;
                self.later(after, Event::Call(Call::Arm { service: site, armed: false }));
                self.later(after + 5 * SECOND, Event::Call(Call::Arm { service: site, armed: true }));
            }
            Some(Then::Disk(_)) | None => {}
        }
        if !self.files.dirs.contains_key(&run.attempt) {
            let ahead_ms = self.wall().as_millis() - self.daemon_now().as_millis();
            let dir = Dir {
                service: run.service.clone(),
                to: run.to.clone(),
                marks: Marks::default(),
                start_by: run.start_by.shifted(ahead_ms),
                deadline: run.deadline.shifted(ahead_ms),
                lock: run.lock.clone(),
                started_at: None,
                ended_at: None,
                end: None,
                runs: 0,
            };
            self.files.dirs.insert(run.attempt.clone(), dir);
            let after = self.rng.random_range(2..30) + std::mem::take(&mut self.late_shim);
            self.later(after, Event::ShimStarts { attempt: run.attempt.clone() });
            // The daemon waits for the shim's own end.
            self.later(after + 20, Event::Look { generation, attempt: run.attempt.clone() });
        } else {
            self.later(5, Event::Look { generation, attempt: run.attempt.clone() });
        }
    }

    pub fn shim_starts(&mut self, attempt: &AttemptId) {
        let wall = self.wall();
        let Some(dir) = self.files.dirs.get(attempt).cloned() else { return };
        let disarmed = self.files.is_disarmed(&dir.service);
        if let Err(refusal) = dir.marks.may_start(wall, dir.start_by, disarmed) {
            if let Some(dir) = self.files.dirs.get_mut(attempt) {
                dir.marks.cancelled |= refusal.is_some();
            }
            self.tell(|| format!("shim of {attempt} refuses: {refusal:?}"));
            return;
        }
        if self.files.is_busy(&dir.lock, attempt) {
            // It holds its own lock while it waits for the other step.
            let over = wall >= dir.deadline;
            if let Some(dir) = self.files.dirs.get_mut(attempt) {
                dir.marks.locked = !over;
                dir.marks.cancelled |= over;
            }
            if !over {
                // Its preflight was in time when it began to wait.
                let again = Timestamp::from_millis(i64::MAX / 2);
                if let Some(dir) = self.files.dirs.get_mut(attempt) {
                    dir.start_by = again;
                }
                self.later(100, Event::ShimStarts { attempt: attempt.clone() });
            }
            return;
        }
        let limit = dir.deadline.since(wall).as_millis();
        let i = self.site_of(&dir.service);
        let does = i.and_then(|i| self.sites[i].does.pop_front()).unwrap_or(Does::Works);
        if i.is_some() && does != Does::Works {
            self.disturb(i);
        }
        let (moves, ends) = does.times(limit);
        let now = self.now;
        if let Some(dir) = self.files.dirs.get_mut(attempt) {
            (dir.marks.locked, dir.marks.started, dir.started_at) = (true, true, Some(now));
            dir.runs += 1;
        }
        self.steps_run += 1;
        self.tell(|| format!("step {attempt} runs: {does:?}"));
        self.check_run(attempt);
        let power = self.power;
        if does.moves() {
            self.later(moves, Event::StepMoves { attempt: attempt.clone(), power });
        }
        self.later(ends, Event::StepEnds { attempt: attempt.clone(), does, power });
    }

    pub fn step_moves(&mut self, attempt: &AttemptId) {
        let now = self.now;
        let Some(dir) = self.files.dirs.get(attempt).cloned() else { return };
        let Some(i) = self.site_of(&dir.service) else { return };
        let site = &mut self.sites[i];
        let before = site.truth.routed().clone();
        site.truth.route(now, &dir.to);
        site.moved_back_from = (before != dir.to).then_some(before);
        self.tell(|| format!("step {attempt} moves the traffic to {}", dir.to));
    }

    pub fn step_ends(&mut self, attempt: &AttemptId, does: Does) {
        let now = self.now;
        if let Some(dir) = self.files.dirs.get_mut(attempt) {
            dir.marks.locked = false;
            dir.ended_at = Some(now);
            dir.end = does.end();
            dir.marks.result = dir.end.is_some();
        }
    }

    pub fn look(&mut self, generation: u64, attempt: &AttemptId) {
        if self.process.as_ref().is_none_or(|p| p.generation != generation) {
            return;
        }
        let now = self.daemon_now();
        let Some(dir) = self.files.dirs.get_mut(attempt) else {
            // The crash came before the directory was made: it is made now, and sealed.
            let state = AttemptState::Cancelled("the daemon ended before the step began".into());
            return self.deliver(Input::StepEnded { attempt: attempt.clone(), state }, None);
        };
        let found = dir.marks.found();
        let state = match found {
            Found::Running => return self.later(200, Event::Look { generation, attempt: attempt.clone() }),
            Found::Ended => AttemptState::Ended(StepResult {
                ended: dir.end.clone().unwrap_or(StepEnd::Exited(0)),
                started_at: now,
                ended_at: now,
                output: "switched".into(),
            }),
            Found::Ambiguous => AttemptState::Ambiguous,
            Found::Cancelled => AttemptState::Cancelled("it was cancelled".into()),
            Found::NeverStarted => {
                dir.marks.cancelled |= found.must_be_sealed();
                AttemptState::Cancelled("the daemon ended before the step began".into())
            }
        };
        self.deliver(Input::StepEnded { attempt: attempt.clone(), state }, None);
    }

    // ------------------------------------------------------------------ mail

    fn mail_soon(&mut self, after: Ms) {
        let at = self.now + after;
        let Some(process) = &mut self.process else { return };
        if process.mail_at.is_none_or(|mail| mail > at || mail < self.now) {
            process.mail_at = Some(at);
            let generation = process.generation;
            self.later(after, Event::Mail { generation });
        }
    }

    pub fn mail(&mut self, generation: u64) {
        let now = self.daemon_now();
        let Some(process) = self.process.as_mut().filter(|p| p.generation == generation) else { return };
        process.mail_at = None;
        for key in self.store.unrouted() {
            let to = RoutedTo { channel: MAIL.into(), repeat: None };
            let letter = LetterKey(key.to_string());
            self.turn(Vec::new(), &[Write::LetterRouted { letter, to: vec![to], at: now }]);
            if self.process.as_ref().is_none_or(|p| p.generation != generation) {
                return;
            }
        }
        for queued in self.store.due(now, 20) {
            let tried = if self.mail_down {
                Err(Delivery::Later("connection refused".into()))
            } else {
                if let Letter::Notice(notice) = &queued.letter {
                    *self.people.entry(notice.key.clone()).or_default() += 1;
                }
                Ok(())
            };
            let write = after_try(&queued, tried, now);
            self.turn(Vec::new(), &[write]);
            if self.process.as_ref().is_none_or(|p| p.generation != generation) {
                return;
            }
        }
        if let Some(next) = self.store.next_notice_at() {
            self.mail_soon(next.since(now).as_millis().max(50));
        }
    }

    // ------------------------------------------------------------------ callers

    pub fn call(&mut self, call: Call) {
        if self.healed && matches!(call, Call::Arm { armed: false, .. }) {
            return;
        }
        if self.process.is_none() {
            return self.call_again(call);
        }
        self.next_call += 1;
        let (n, by) = (self.next_call, "kim".to_owned());
        let request = RequestId(n);
        self.calls.insert(n, call.clone());
        let input = match &call {
            Call::Announce { announcement, .. } => {
                let ahead_ms = self.wall().as_millis() - self.daemon_now().as_millis();
                let switched_at = announcement.switched_at.map(|at| at.shifted(-ahead_ms));
                Input::Announced { request, announcement: Announcement { switched_at, ..announcement.clone() } }
            }
            Call::Arm { service, armed } => {
                let service = service.map(|i| self.sites[i].service.name.clone());
                Input::Armed { request, service, armed: *armed, by, why: String::new() }
            }
            Call::Answer { switch, approve } => {
                Input::Answered { request, switch: switch.clone(), approve: *approve, by, why: String::new() }
            }
            Call::Cancel { switch } => Input::Cancelled { request, switch: switch.clone(), by, why: "enough".into() },
            Call::Order { switch } => Input::Ordered { request, switch: switch.clone(), by, why: "now".into() },
        };
        self.deliver(input, None);
        if self.calls.remove(&n).is_some() {
            // No answer: the daemon died over it.
            self.call_again(call);
        }
        // A crash clears the calls of the dead process.
        else if self.process.is_none() && !self.was_answered(n) {
            self.call_again(call);
        }
    }

    fn was_answered(&self, n: u64) -> bool {
        self.answered_last == Some(n)
    }

    fn call_again(&mut self, call: Call) {
        let call = match call {
            Call::Announce { announcement, tries } if tries < TRIES_MAX => {
                Call::Announce { announcement, tries: tries + 1 }
            }
            // What an operator says is said until it is heard.
            Call::Arm { .. } => call,
            _ => return,
        };
        self.later(5 * SECOND, Event::Call(call));
    }

    fn answered(&mut self, request: RequestId, answer: &Answer) {
        let Some(call) = self.calls.remove(&request.0) else { return };
        self.answered_last = Some(request.0);
        self.tell(|| format!("{call} is answered {answer:?}"));
        match (&call, answer) {
            (
                Call::Announce { announcement, .. },
                Answer::Accepted { switch }
                | Answer::Known { switch }
                | Answer::OwnHand { switch }
                | Answer::Reverted { switch }
                | Answer::Stepped { switch },
            ) => {
                self.acknowledge(announcement, switch, matches!(answer, Answer::Accepted { .. }));
            }
            (Call::Announce { announcement, tries }, Answer::Conflict { .. } | Answer::NoRoom { .. }) => {
                // The tool tries once more a little later, as a pipeline does.
                let again = Call::Announce { announcement: announcement.clone(), tries: (*tries).max(150) + 1 };
                if *tries < TRIES_MAX {
                    self.later(30 * SECOND, Event::Call(again));
                }
            }
            (Call::Arm { service, armed }, Answer::Done { .. }) => match service {
                None => self.disarmed_all = !armed,
                Some(i) => {
                    self.disarmed.retain(|other| other != i);
                    if !armed {
                        self.disarmed.push(*i);
                    }
                }
            },
            (Call::Cancel { switch }, Answer::Done { .. }) => {
                self.facts.entry(switch.clone()).or_default().cancelled = true;
            }
            (Call::Order { switch }, Answer::Done { .. }) => {
                self.facts.entry(switch.clone()).or_default().ordered = true;
            }
            _ => {}
        }
        if matches!(call, Call::Arm { .. }) {
            self.disturb(None);
        }
    }

    pub fn facts_of(&mut self, id: &SwitchId) -> &mut Facts {
        self.facts.entry(id.clone()).or_default()
    }
}
