//! Timelines of the pure engine: a scripted world on a virtual clock answers its commands, and the
//! transcript is what is compared. No test here waits for anything.

mod brakes;
mod drills;
mod evidence;
mod holds;
mod ladder;
mod limits;
mod meetings;
mod notices;
mod properties;
mod records;
mod restarts;
mod rollbacks;
mod soaks;
mod ways_in;

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use super::Engine;
use super::message::{Answer, Command, Hold, Input, ObserveAsk, RequestId};
use super::watch::Watch;
use crate::domain::action::{Action, Exec, Look};
use crate::domain::baseline::{Baseline, Provenance, Quality, Spread};
use crate::domain::brakes::Brakes;
use crate::domain::counts::{Buckets, Counts};
use crate::domain::drill::Tried;
use crate::domain::plan::{
    AttemptId, AttemptState, Expect, HealthCheck, HealthReading, OnFailure, Plan, Probe, ProbeReading, Step, StepEnd,
    StepResult, When,
};
use crate::domain::policy::{Alpha, Limits, Mode, Policy, Ratio, RuleKind, Share, TailNull, WarmUp};
use crate::domain::service::{Latency, Metrics, Service, SlotSpec, Slots};
use crate::domain::signal::{FailureKind, Observation, Quantile, ReadFailure, Reading, SlotCell, SourceClock, Targets};
use crate::domain::switch::{Announcement, EventId, RollbackSafety, ServiceName, Slot, SwitchId, Version};
use crate::domain::time::{Span, Timestamp};

/// 2026-11-21T14:00:00Z
const BEGAN: Timestamp = Timestamp::from_millis(1_795_269_600_000);

const BOUNDS: [f64; 8] = [0.025, 0.05, 0.1, 0.15, 0.2, 0.3, 0.6, 1.2];

/// What one attempt of the step does.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum Does {
    Works,
    /// Exit code 1, nothing moved.
    Fails,
    /// Exit code 0, nothing moved.
    Lies,
    /// Exit code 1 although the traffic moved.
    MovesAndFails,
    /// The shim died; whether the traffic moved is the flag.
    Vanishes(bool),
    /// The shim refused to start it.
    NeverStarts,
}

#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum Prom {
    Up,
    Down,
    /// Answers, but knows no series of the new slot.
    Absent,
}

/// The world around one engine.
pub(super) struct World {
    pub engine: Engine,
    pub now: Timestamp,
    pub service: Service,
    /// Requests per second on the slot that has the traffic.
    pub rps: f64,
    pub routed: &'static str,
    /// In a ramp: the part of the traffic that `routed` has; the rest is on blue.
    pub part: Option<f64>,
    pub errors: BTreeMap<&'static str, f64>,
    pub slowness: BTreeMap<&'static str, f64>,
    pub sick: BTreeSet<&'static str>,
    pub prom: Prom,
    /// The probe's line, where it is not the truth.
    pub probe_lies: Option<ProbeReading>,
    pub steps: VecDeque<Does>,
    pub baseline: Result<Baseline, String>,
    /// The old slot still serves, with this share of errors ...
    pub control: Option<f64>,
    /// ... and this many requests per second.
    pub control_rps: f64,
    /// Share of errors of the neighbour "search".
    pub neighbour: f64,
    pub settle: Span,
    pub scrape_every: Span,
    pub lines: Vec<String>,
    pub ran: Vec<AttemptId>,
    pub answers: Vec<Answer>,
    pub notices: Vec<&'static str>,
    pub told: Vec<crate::domain::notice::Notice>,
    pub outcomes: BTreeMap<SwitchId, String>,
    /// Attempts as the shim's directories would show them.
    attempts: BTreeMap<AttemptId, (Timestamp, AttemptState)>,
    queue: Vec<(Timestamp, Input)>,
    requests: u64,
    last_probed: Option<ProbeReading>,
    kinds: Option<records::Kinds>,
    /// A feature flag, and the slot whose errors end with it.
    pub flag: bool,
    pub cured_by_flag: Option<&'static str>,
    /// What a dry drill finds.
    pub tried: Vec<Tried>,
}

pub(super) fn slot(name: &str) -> Slot {
    Slot::try_new(name).unwrap()
}

pub(super) fn switch(n: u32) -> SwitchId {
    SwitchId::try_new(format!("checkout-{n}")).unwrap()
}

fn buckets(requests: f64, mean_s: f64) -> Buckets {
    let cumulative = BOUNDS.iter().map(|b| (requests * (1.0 - (-b / mean_s).exp())).round()).collect();
    Buckets::try_new(BOUNDS.to_vec(), cumulative, requests).unwrap()
}

/// An hour at 100 requests per second, 0.1 % errors, mean latency 30 ms (p99 about 140 ms).
pub(super) fn good_baseline() -> Baseline {
    Baseline {
        counts: Counts::try_new(360_000.0, 360.0).unwrap(),
        latency: Some(buckets(360_000.0, 0.03)),
        covered: Span::from_mins(60),
        cells: 240,
        spread: Spread { errors: 1.1, latency: Vec::new(), env: 1.0 },
        peak_rate: 120.0,
        provenance: Provenance {
            from: BEGAN - Span::from_mins(60),
            to: BEGAN,
            slot: slot("blue"),
            version: None,
            previous_release_used: false,
            pinned: false,
            excluded: Vec::new(),
        },
        quality: Quality::Good,
    }
}

pub(super) fn step(name: &str) -> Step {
    Step {
        name: name.into(),
        action: Action::Exec(Exec::new(["/bin/switch", "$old"])),
        timeout: Span::from_secs(30),
        probe: Some(Probe {
            look: Look::Exec(Exec::new(["/bin/active"])),
            expect: Expect::SlotName,
            timeout: Span::from_secs(2),
        }),
        verify_timeout: Span::from_secs(5),
        retry_safe: true,
        lock: "/bin/switch".into(),
        words: BTreeMap::new(),
        wait: Span::ZERO,
        heals_within: None,
        when: When::Always,
        on_failure: OnFailure::Stop,
        limit: None,
    }
}

/// The first rung: a flag is turned off, and the traffic stays.
pub(super) fn remedy(heals_within: u64) -> Step {
    let look = Look::Exec(Exec::new(["/bin/flag"]));
    let expect = Expect::Fixed("off".into());
    Step {
        action: Action::Exec(Exec::new(["/bin/set-flag", "off"])),
        probe: Some(Probe { look, expect, timeout: Span::from_secs(2) }),
        heals_within: Some(Span::from_secs(heals_within)),
        on_failure: OnFailure::Next,
        ..step("flag off")
    }
}

pub(super) fn limits_default() -> Limits {
    Limits {
        ratio: Ratio::try_new(1.5).unwrap(),
        floor: Share::try_new(0.001).unwrap(),
        error_rate: None,
        alpha: Alpha::try_new(0.001).unwrap(),
        block: Span::from_secs(5),
        latency_s: Vec::new(),
        quantiles: vec![Quantile::P95, Quantile::P99],
        tail: TailNull::Scaled,
        ticks: 3,
        min_events: 5,
        must_detect: Ratio::try_new(10.0).unwrap(),
        custom: Vec::new(),
    }
}

fn service() -> Service {
    let health = |port: u16| SlotSpec {
        scrape: Vec::new(),
        health: Some(HealthCheck::Tcp { address: format!("127.0.0.1:{port}"), timeout: Span::from_secs(1) }),
        labels: BTreeMap::new(),
    };
    let slots = [("blue", 1), ("green", 2), ("red", 3)].map(|(name, port)| (slot(name), health(port)));
    Service {
        name: ServiceName::try_new("checkout").unwrap(),
        slots: Slots::Named(slots.into_iter().collect()),
        metrics: Metrics {
            name: "web".into(),
            from: Default::default(),
            requests: "requests{env=\"$slot\"}".into(),
            errors: Some("errors{env=\"$slot\"}".into()),
            latency: Some(Latency::Classic("latency_bucket{env=\"$slot\"}".into())),
            custom: Vec::new(),
        },
        policy: Policy {
            mode: Mode::Auto,
            // The plain rule is the one that a timeline can be written down for.
            rule: RuleKind::Threshold,
            long: Span::ZERO,
            long_tick: Span::from_secs(60),
            soak: Span::from_secs(120),
            tick: Span::from_secs(5),
            extend_max: Span::from_secs(60),
            warm_up: WarmUp { errors: Span::from_secs(30), latency: Span::from_secs(60) },
            limits: limits_default(),
            ask_timeout: Span::from_mins(10),
            ask_default: Default::default(),
            confirm_within: Span::from_secs(60),
            recover_within: Span::from_mins(3),
            baseline_cells_min: 8,
            baseline_requests_min: 1000.0,
            notify_passed: true,
            notify_opened: false,
        },
        plan: Plan { steps: vec![step("haproxy")] },
        after_passed: Plan::default(),
        flags: BTreeMap::new(),
        unverified: false,
        controls: Vec::new(),
        runbook: None,
    }
}

pub(super) fn announcement(old: &str, new: &str, version: &str) -> Announcement {
    let service = ServiceName::try_new("checkout").unwrap();
    let version = Some(Version::try_new(version).unwrap());
    Announcement { version, ..Announcement::of(service, slot(old), slot(new), "test") }
}

pub(super) fn with_event(mut a: Announcement, id: &str) -> Announcement {
    a.event_id = Some(EventId::try_new(id).unwrap());
    a
}

impl World {
    pub fn new() -> World {
        World::with(|_| {})
    }

    pub fn with(change: impl FnOnce(&mut Service)) -> World {
        let mut service = service();
        change(&mut service);
        let mut world = World {
            engine: Engine::new(),
            now: BEGAN,
            service: service.clone(),
            rps: 100.0,
            routed: "blue",
            part: None,
            errors: BTreeMap::new(),
            slowness: BTreeMap::new(),
            sick: BTreeSet::new(),
            prom: Prom::Up,
            probe_lies: None,
            steps: VecDeque::new(),
            baseline: Ok(good_baseline()),
            control: None,
            control_rps: 100.0,
            neighbour: 0.001,
            settle: Span::from_millis(1500),
            scrape_every: Span::from_secs(1),
            lines: Vec::new(),
            ran: Vec::new(),
            answers: Vec::new(),
            notices: Vec::new(),
            told: Vec::new(),
            outcomes: BTreeMap::new(),
            attempts: BTreeMap::new(),
            queue: Vec::new(),
            requests: 0,
            last_probed: None,
            kinds: None,
            flag: true,
            cured_by_flag: None,
            tried: Vec::new(),
        };
        let neighbour = |name: &ServiceName| Service { name: name.clone(), controls: Vec::new(), ..service.clone() };
        let neighbours: Vec<Service> = service.controls.iter().map(neighbour).collect();
        world.put(Input::Configured { services: [vec![service], neighbours].concat(), brakes: Brakes::default() });
        world.put(Input::Started);
        world
    }

    // ------------------------------------------------------------------ what happens

    /// The deploy tool moves the traffic and announces it.
    pub fn switch(&mut self, new: &'static str, version: &str) -> Answer {
        let old = self.routed;
        self.routed = new;
        self.announce(announcement(old, new, version))
    }

    pub fn announce(&mut self, announcement: Announcement) -> Answer {
        let request = self.request();
        self.put(Input::Announced { request, announcement });
        self.answers.last().unwrap().clone()
    }

    pub fn answer(&mut self, n: u32, approve: bool) -> Answer {
        let request = self.request();
        self.put(Input::Answered { request, switch: switch(n), approve, by: "kim".into(), why: String::new() });
        self.answers.last().unwrap().clone()
    }

    pub fn arm(&mut self, service: Option<&str>, armed: bool) -> Answer {
        let request = self.request();
        let service = service.map(|name| ServiceName::try_new(name).unwrap());
        self.put(Input::Armed { request, service, armed, by: "kim".into(), why: String::new() });
        self.answers.last().unwrap().clone()
    }

    pub fn order(&mut self, n: u32) -> Answer {
        let request = self.request();
        self.put(Input::Ordered { request, switch: switch(n), by: "kim".into(), why: "now".into() });
        self.answers.last().unwrap().clone()
    }

    pub fn hold(&mut self, n: u32, hold: Hold) -> Answer {
        let request = self.request();
        self.put(Input::Held { request, switch: switch(n), hold, by: "kim".into(), why: "maintenance".into() });
        self.answers.last().unwrap().clone()
    }

    pub fn drill(&mut self, real: bool) -> Answer {
        let (request, service) = (self.request(), self.service.name.clone());
        self.put(Input::DrillAsked { request, service, real, by: "kim".into(), why: "practice".into() });
        self.answers.last().unwrap().clone()
    }

    pub fn cancel(&mut self, n: u32) -> Answer {
        let request = self.request();
        self.put(Input::Cancelled { request, switch: switch(n), by: "kim".into(), why: "enough".into() });
        self.answers.last().unwrap().clone()
    }

    /// The process dies and comes up again: answers on their way are lost, steps run on.
    pub fn restart(&mut self) {
        let text = serde_json::to_string(&self.engine).unwrap();
        let back: Engine = serde_json::from_str(&text).unwrap();
        assert_eq!(back, self.engine_without_views(), "a snapshot is the whole state, bit by bit");
        self.engine = back;
        self.queue.clear();
        self.say("restart".into());
        self.put(Input::Started);
    }

    fn engine_without_views(&mut self) -> Engine {
        let _ = self.engine.take_views();
        self.engine.clone()
    }

    pub fn request(&mut self) -> RequestId {
        self.requests += 1;
        RequestId(self.requests)
    }

    pub fn put(&mut self, input: Input) {
        if let Input::Probed { reading, .. } = &input {
            self.last_probed = Some(reading.clone());
        }
        let commands = self.engine.handle(self.now, &input);
        if let Some(kinds) = &mut self.kinds {
            kinds.take(&input, &commands);
        }
        for command in commands {
            self.carry_out(command);
        }
        let _ = self.engine.take_views();
    }

    /// Goes from deadline to deadline for so long.
    pub fn run_for(&mut self, span: Span) {
        let until = self.now + span;
        while self.step_once(until) {}
        self.now = until;
    }

    /// Runs until the watch has ended, at most six hours.
    pub fn run_to_end(&mut self, n: u32) -> String {
        let until = self.now + Span::from_mins(360);
        while !self.outcomes.contains_key(&switch(n)) {
            assert!(self.step_once(until), "checkout-{n} does not end\n{}", self.transcript());
        }
        self.outcomes[&switch(n)].clone()
    }

    /// The next answer or deadline, if it is not after `until`.
    pub fn step_once(&mut self, until: Timestamp) -> bool {
        let answer = self.queue.iter().map(|(at, _)| *at).min();
        let deadline = self.engine.next_deadline();
        let Some(next) = answer.into_iter().chain(deadline).min() else { return false };
        if next > until {
            return false;
        }
        self.now = self.now.max(next);
        match answer.filter(|at| deadline.is_none_or(|d| *at <= d)) {
            Some(at) => {
                let place = self.queue.iter().position(|(t, _)| *t == at).unwrap();
                let (_, input) = self.queue.remove(place);
                self.put(input);
            }
            None => self.put(Input::Timer),
        }
        true
    }

    // ------------------------------------------------------------------ how the world answers

    fn later(&mut self, ms: u64, input: Input) {
        self.queue.push((self.now + Span::from_millis(ms), input));
    }

    fn say(&mut self, line: String) {
        self.lines.push(format!("{:>8.2} {line}", self.now.since(BEGAN).as_secs_f64()));
    }

    pub fn shown(&self) -> ProbeReading {
        let mixed = || ProbeReading::Unreadable("active servers: blue, green".into());
        let seen = if self.part.is_some() { mixed() } else { ProbeReading::Shows(self.routed.into()) };
        self.probe_lies.clone().unwrap_or(seen)
    }

    fn carry_out(&mut self, command: Command) {
        match command {
            Command::Reply { answer, .. } => {
                self.say(format!("Reply {}", short_answer(&answer)));
                self.answers.push(answer);
            }
            Command::Observe { id, ask } => {
                let (observation, clock) = self.observe(&ask);
                self.later(20, Input::Observed { id, observation, clock });
            }
            Command::CheckHealth { id, slot, .. } => {
                let reading = if self.sick.contains(slot.as_str()) {
                    HealthReading::Bad("connection refused".into())
                } else {
                    HealthReading::Good
                };
                self.later(5, Input::HealthChecked { id, reading });
            }
            Command::Rehearse { id, ask } => {
                self.say(format!("Rehearse {} to {}", ask.service, ask.to));
                let tried = self.tried.clone();
                self.later(700, Input::Rehearsed { id, tried });
            }
            Command::Probe { id, probe } if probe.look == Look::Exec(Exec::new(["/bin/flag"])) => {
                let reading = ProbeReading::Shows(if self.flag { "on" } else { "off" }.into());
                self.later(10, Input::Probed { id, reading });
            }
            Command::Probe { id, .. } => {
                let reading = self.shown();
                self.later(10, Input::Probed { id, reading });
            }
            Command::ChooseBaseline { id, .. } => {
                let baseline = self.baseline.clone();
                self.later(3, Input::BaselineChosen { id, baseline });
            }
            Command::RunStep { run } => {
                self.say(format!("RunStep {} {}", run.attempt, run.action));
                let Action::Exec(exec) = &run.action else { panic!("{} is no command", run.action) };
                self.run_step(run.attempt, exec.argv[0].clone(), exec.argv[1].clone());
            }
            Command::RecoverStep { attempt, .. } => {
                self.say(format!("RecoverStep {attempt}"));
                let found = self.attempts.get(&attempt).cloned();
                // An intent that never reached the shim can be cancelled for good.
                let (ends_at, state) = found.unwrap_or((self.now, AttemptState::Cancelled("never started".into())));
                let at = ends_at.max(self.now + Span::from_millis(5));
                self.queue.push((at, Input::StepEnded { attempt, state }));
            }
            Command::Notify { notice } => {
                self.say(format!("Notify {}", notice.reason.word()));
                self.notices.push(notice.reason.word());
                self.told.push(*notice);
            }
            Command::End { switch, outcome } => {
                self.say(format!("End {switch} {outcome}"));
                let before = self.outcomes.insert(switch, outcome.word().to_owned());
                assert_eq!(before, None, "a watch ends once\n{}", self.transcript());
            }
            Command::RecordBaseline { .. } | Command::Prune | Command::MarkDisarmed { .. } => {}
        }
    }

    fn run_step(&mut self, attempt: AttemptId, program: String, to: String) {
        assert!(!self.ran.contains(&attempt), "{attempt} runs twice\n{}", self.transcript());
        let way_back = program == "/bin/switch" && attempt.step < 64;
        if way_back && self.part.is_none() && self.service.plan.steps[usize::from(attempt.step)].probe.is_some() {
            let watch = self.engine.watches.get(&attempt.switch).or_else(|| self.engine.drills.get(&attempt.switch));
            let new = &watch.unwrap().announcement.new;
            let shown = Some(ProbeReading::Shows(new.to_string()));
            assert_eq!(self.last_probed, shown, "{attempt} without a look\n{}", self.transcript());
        }
        self.ran.push(attempt.clone());
        let does = self.steps.pop_front().unwrap_or(Does::Works);
        let moves = matches!(does, Does::Works | Does::MovesAndFails | Does::Vanishes(true));
        if moves && program == "/bin/set-flag" {
            self.flag = to == "on";
            if let Some(slot) = self.cured_by_flag.take() {
                self.errors.remove(slot);
            }
        } else if moves && program == "/bin/switch" {
            self.routed = ["blue", "green", "red", "on", "off"].into_iter().find(|s| *s == to).unwrap();
            self.part = None;
        }
        let ended_at = self.now + Span::from_millis(400);
        let ended = |code| {
            AttemptState::Ended(StepResult {
                ended: StepEnd::Exited(code),
                started_at: self.now,
                ended_at,
                output: format!("switch-traffic: exit {code}\n"),
            })
        };
        let state = match does {
            Does::Works | Does::Lies => ended(0),
            Does::Fails | Does::MovesAndFails => ended(1),
            Does::Vanishes(_) => AttemptState::Ambiguous,
            Does::NeverStarts => AttemptState::Cancelled("past its start_by".into()),
        };
        self.attempts.insert(attempt.clone(), (ended_at, state.clone()));
        self.queue.push((ended_at, Input::StepEnded { attempt, state }));
    }

    fn observe(&self, ask: &ObserveAsk) -> (Observation, Option<SourceClock>) {
        if self.prom == Prom::Down {
            let failure = ReadFailure { kind: FailureKind::Unreachable, detail: "connection refused".into() };
            return (Observation::Failed(failure), None);
        }
        let clock = SourceClock { skew_ms: 0, settle: self.settle, scrape_interval: Some(self.scrape_every) };
        let to = (self.now - self.settle).floor_to(ask.grid);
        let name = ask.slot.as_str();
        let targets = Reading::Value(Targets {
            up: u32::from(!self.sick.contains(name)),
            down: u32::from(self.sick.contains(name)),
            others_up: 3,
        });
        if self.prom == Prom::Absent && name != "blue" {
            return (Observation::Absent { to, targets }, Some(clock));
        }
        if to <= ask.from {
            return (Observation::Empty { to, targets }, Some(clock));
        }
        let by_slot = ask.metrics.by_slot();
        let served = (name == self.routed || !by_slot) && !self.sick.contains(self.routed);
        let seconds = to.since(ask.from).as_secs_f64();
        let requests = if served { (self.rps * seconds).round() } else { 0.0 };
        let requests = match self.part {
            Some(part) if name == self.routed => (requests * part).round(),
            Some(part) if name == "blue" => (self.rps * seconds * (1.0 - part)).round(),
            _ => requests,
        };
        let mut share = self.errors.get(self.routed).copied().unwrap_or(0.0005);
        if self.part.is_some() && name == "blue" {
            share = 0.0005;
        }
        let mut requests = requests;
        if let Some(control) = self.control.filter(|_| name == "blue" && self.routed != "blue") {
            (requests, share) = ((self.control_rps * seconds).round(), control);
        }
        if ask.service.as_str() == "search" {
            // Always on blue.
            requests = if name == "blue" { (self.rps * seconds).round() } else { 0.0 };
            share = self.neighbour;
        }
        let mean_s = 0.03 * self.slowness.get(self.routed).copied().unwrap_or(1.0);
        let cell = SlotCell {
            from: ask.from,
            to,
            counts: Reading::Value(Counts::try_new(requests, (requests * share).round()).unwrap()),
            latency: Reading::Value(buckets(requests, mean_s)),
            targets,
            custom: Vec::new(),
            remarks: Vec::new(),
        };
        (Observation::Cell(Box::new(cell)), Some(clock))
    }

    pub fn transcript(&self) -> String {
        let mut text = self.lines.join("\n");
        text.push('\n');
        text
    }

    /// Compares the transcript with what is expected, line by line, indentation aside.
    #[track_caller]
    pub fn tells(&self, expected: &str) {
        let tidy = |text: &str| text.lines().map(str::trim).filter(|l| !l.is_empty()).collect::<Vec<_>>().join("\n");
        let (got, expected) = (tidy(&self.transcript()), tidy(expected));
        assert!(got == expected, "--- got\n{got}\n--- expected\n{expected}");
    }
}

fn short_answer(answer: &Answer) -> String {
    match answer {
        Answer::Accepted { switch } => format!("accepted {switch}"),
        Answer::Known { switch } => format!("known {switch}"),
        Answer::OwnHand { switch } => format!("own hand {switch}"),
        Answer::Reverted { switch } => format!("reverted {switch}"),
        Answer::Stepped { switch } => format!("stepped {switch}"),
        Answer::Done { text } => format!("done: {text}"),
        Answer::NotFound { text } => format!("not found: {text}"),
        Answer::Conflict { text } => format!("conflict: {text}"),
        Answer::NoRoom { text } => format!("no room: {text}"),
        Answer::Refused { field, text } => format!("refused {field}: {text}"),
    }
}
