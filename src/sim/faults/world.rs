//! The world: its clocks, what is true in it, what happens when, and everybody but the daemon.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap, VecDeque};

use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;

use super::plan::{self, Action, HOUR, MINUTE, Point, SECOND, Telling, Then};
use super::process::{Call, Process};
use super::source::{Metrics, Ms, NORMAL, RPS, SlotState, Truth};
use super::steps::{Does, Files};
use super::store::Memory;
use super::{BEGAN, Report, Violation};
use crate::config;
use crate::domain::brakes::Brakes;
use crate::domain::notice::{NoticeKey, NoticeReason};
use crate::domain::plan::AttemptId;
use crate::domain::service::Service;
use crate::domain::switch::{Announcement, EventId, ServiceName, Slot, SwitchId, Version};
use crate::domain::time::{Span, Timestamp};
use crate::engine::message::Input;

/// How long the world goes on after it healed before what is still open counts as lost.
const LIVENESS_LIMIT: Ms = 6 * HOUR;

/// Between the healing and the last trial: every brake is free again.
const REST: Ms = 25 * HOUR;

#[allow(clippy::large_enum_variant, reason = "a made world holds some hundreds at a time")]
#[derive(Debug, Clone, PartialEq)]
pub enum Event {
    Act(Action),
    /// A fault ends.
    Mend(Mend),
    Onset {
        service: usize,
        slot: Slot,
        becomes: SlotState,
        release: u64,
    },
    Call(Call),
    Start,
    /// For the process of that generation.
    Deliver {
        generation: u64,
        input: Box<Input>,
        about: Option<Slot>,
    },
    /// The process of that generation dies.
    Dies {
        generation: u64,
        down: Ms,
    },
    Wake {
        generation: u64,
    },
    Mail {
        generation: u64,
    },
    ShimStarts {
        attempt: AttemptId,
    },
    StepMoves {
        attempt: AttemptId,
        power: u64,
    },
    StepEnds {
        attempt: AttemptId,
        does: Does,
        power: u64,
    },
    /// The daemon looks what became of an attempt.
    Look {
        generation: u64,
        attempt: AttemptId,
    },
    Inspect,
}

#[derive(Debug, Clone, PartialEq)]
pub enum Mend {
    Metrics(usize),
    Health(usize),
    Probe(usize),
    Slot(usize, Slot),
    Traffic(usize),
    Mail,
    Disk,
    Wall,
}

/// One service with its truth and what is wrong around it.
pub struct Site {
    pub service: Service,
    pub truth: Truth,
    pub metrics: Metrics,
    pub health_readable: bool,
    pub probe_readable: bool,
    pub does: VecDeque<Does>,
    /// Counts releases, so that an onset meets the release that it was meant for.
    pub release: u64,
    /// Set when flipback's own step moved the traffic last: away from here.
    pub moved_back_from: Option<Slot>,
    /// The deploy tool announced a switch that it did not make.
    pub unmoved: bool,
    /// So many slots were made to stop answering.
    pub dying: u32,
    /// What happens when its next step is begun.
    pub at_step: Option<Then>,
}

/// What the world knows of one watch besides what the store shows.
#[derive(Debug, Clone, Default)]
pub struct Facts {
    pub site: usize,
    pub opened: Ms,
    /// Time of the new slot that readings covered, and the requests in it.
    pub covered_ms: u64,
    pub requests: f64,
    pub good_checks: u32,
    pub last_sight: Ms,
    /// Something disturbed it: only what must hold in any case is asked of its outcome.
    pub disturbed: bool,
    pub ordered: bool,
    pub cancelled: bool,
    pub superseded: bool,
    /// From when on a bad release may show in its readings.
    pub bad_from: Ms,
    /// Its rollback was proven.
    pub proven: bool,
    pub soak: Span,
    pub ended: Option<Ms>,
}

/// The last good answers that the daemon got about a service.
#[derive(Debug, Clone, Default)]
pub struct Heard {
    /// When the probe last showed this slot.
    pub shown: BTreeMap<Slot, Ms>,
    /// When the slot last answered well, and the time before.
    pub well: BTreeMap<Slot, (Ms, Ms)>,
}

pub struct World {
    pub seed: u64,
    pub rng: ChaCha8Rng,
    pub now: Ms,
    /// The wall clock's error.
    pub wall_ms: i64,
    events: BinaryHeap<Reverse<(Ms, u64)>>,
    /// Boxed: a tree of large values is moved about all the time.
    what: BTreeMap<u64, Box<Event>>,
    next_event: u64,
    pub sites: Vec<Site>,
    pub mail_down: bool,
    pub files: Files,
    pub store: Memory,
    pub process: Option<Process>,
    pub generation: u64,
    pub power: u64,
    pub down_until: Ms,
    pub crash: Option<(Point, Ms)>,
    pub late_shim: Ms,
    pub calls: BTreeMap<u64, Call>,
    pub next_call: u64,
    pub answered_last: Option<u64>,
    /// The input of the turn under way, and the slot it is about.
    pub hearing: Option<(Input, Option<Slot>)>,
    /// Event ids that were acknowledged, and the switch they were given.
    pub acknowledged: BTreeMap<EventId, SwitchId>,
    pub disarmed_all: bool,
    pub disarmed: Vec<usize>,
    pub facts: BTreeMap<SwitchId, Facts>,
    pub heard: Vec<Heard>,
    pub notices_at: BTreeMap<NoticeKey, Ms>,
    pub people: BTreeMap<NoticeKey, u32>,
    /// Automatic rollbacks that ran: on the daemon's clock, by service and version.
    pub automatic: Vec<(Timestamp, usize, Option<Version>, SwitchId)>,
    pub healed: bool,
    pub crashes: u64,
    pub steps_run: u64,
    pub violation: Option<Violation>,
    story: Option<Vec<String>>,
    brakes: Brakes,
    pub stretch: Ms,
}

impl World {
    pub fn new(seed: u64, story: bool) -> World {
        let mut rng = ChaCha8Rng::seed_from_u64(seed);
        let (services, brakes) = settings(&mut rng);
        let sites: Vec<Site> = services.into_iter().map(Site::new).collect();
        let heard = vec![Heard::default(); sites.len()];
        World {
            seed,
            rng,
            now: 0,
            wall_ms: 0,
            events: BinaryHeap::new(),
            what: BTreeMap::new(),
            next_event: 0,
            sites,
            mail_down: false,
            files: Files::default(),
            store: Memory::default(),
            process: None,
            generation: 0,
            power: 0,
            down_until: 0,
            crash: None,
            late_shim: 0,
            calls: BTreeMap::new(),
            next_call: 0,
            answered_last: None,
            hearing: None,
            acknowledged: BTreeMap::new(),
            disarmed_all: false,
            disarmed: Vec::new(),
            facts: BTreeMap::new(),
            heard,
            notices_at: BTreeMap::new(),
            people: BTreeMap::new(),
            automatic: Vec::new(),
            healed: false,
            crashes: 0,
            steps_run: 0,
            violation: None,
            story: story.then(Vec::new),
            brakes,
            stretch: 0,
        }
    }

    pub fn brakes(&self) -> Brakes {
        self.brakes
    }

    pub fn services(&self) -> Vec<Service> {
        self.sites.iter().map(|s| s.service.clone()).collect()
    }

    /// The wall clock, right or wrong.
    pub fn wall(&self) -> Timestamp {
        (BEGAN + Span::from_millis(self.now)).shifted(self.wall_ms)
    }

    /// The machine's own count.
    pub fn count(&self) -> Span {
        Span::from_millis(self.now)
    }

    pub fn later(&mut self, after: Ms, event: Event) {
        self.next_event += 1;
        self.events.push(Reverse((self.now + after, self.next_event)));
        self.what.insert(self.next_event, Box::new(event));
    }

    pub fn tell(&mut self, line: impl FnOnce() -> String) {
        if let Some(story) = &mut self.story {
            let (ms, text) = (self.now, line());
            story.push(format!("{:>9}.{:03} {text}", ms / 1000, ms % 1000));
        }
    }

    pub fn violated(&mut self, promise: u8, what: String) {
        self.tell(|| format!("VIOLATION of promise {promise}: {what}"));
        if self.violation.is_none() {
            self.violation = Some(Violation { promise, at_s: self.now / 1000, what });
        }
    }

    pub fn play(mut self) -> Report {
        let (plan, length) = plan::safety(&mut self.rng, self.sites.len());
        for (at, action) in plan {
            self.later(at, Event::Act(action));
        }
        self.later(0, Event::Start);
        self.later(20 * SECOND, Event::Inspect);
        self.run_until(length);
        self.heal();
        self.live();
        if self.violation.is_none() {
            self.check_end();
        }
        if self.violation.is_none() {
            self.last_trial();
        }
        let rolled = |v: &&std::rc::Rc<crate::domain::view::WatchView>| v.recovery.is_some();
        Report {
            seed: self.seed,
            hash: self.store.hash(),
            // The long rest before the last trial is no simulated work.
            virtual_s: self.stretch / 1000,
            inputs: self.store.inputs,
            watches: self.store.views.len() as u64,
            rollbacks: self.store.views.values().filter(rolled).count() as u64,
            steps_run: self.steps_run,
            crashes: self.crashes,
            notices: self.store.outbox.len() as u64,
            violation: self.violation,
            story: self.story.unwrap_or_default(),
        }
    }

    /// Events up to an instant, or to the first broken promise.
    fn run_until(&mut self, until: Ms) {
        let began = self.now;
        while self.violation.is_none() {
            let Some(Reverse((at, n))) = self.events.peek().copied() else { break };
            if at > until {
                break;
            }
            self.events.pop();
            self.now = self.now.max(at);
            if let Some(event) = self.what.remove(&n) {
                self.happen(*event);
            }
            if let Some((promise, what)) = self.store.broken.take() {
                self.violated(promise, what);
            }
        }
        self.now = self.now.max(until);
        self.stretch += self.now - began;
    }

    /// Whatever was wrong is no longer.
    fn heal(&mut self) {
        self.tell(|| "the world heals".into());
        self.healed = true;
        for i in 0..self.sites.len() {
            let now = self.now;
            let site = &mut self.sites[i];
            (site.metrics, site.health_readable, site.probe_readable) = (Metrics::Fine, true, true);
            site.does.clear();
            site.at_step = None;
            site.dying = 0;
            site.truth.set_rps(now, RPS);
            for slot in site.slots() {
                let state = site.truth.state(&slot);
                // Bad releases stay bad; what was dead for a while is back.
                let state = if state.alive { state } else { SlotState { errors: NORMAL, alive: true } };
                site.truth.set(now, &slot, state);
            }
        }
        (self.mail_down, self.store.full, self.store.next, self.crash) = (false, false, None, None);
        self.store.at_step = None;
        (self.wall_ms, self.late_shim) = (0, 0);
        for service in [None].into_iter().chain((0..self.sites.len()).map(Some)) {
            self.later(SECOND, Event::Call(Call::Arm { service, armed: true }));
        }
    }

    /// Every watch must come to its end, and every notice to its people.
    fn live(&mut self) {
        let limit = self.now + LIVENESS_LIMIT;
        while self.violation.is_none() && self.now < limit {
            self.run_until(self.now + MINUTE);
            let idle = self.process.as_ref().is_some_and(|p| p.wheel.engine.is_idle());
            let open = self.store.views.values().any(|v| v.outcome.is_none());
            if idle && !open && self.store.next_notice_at().is_none() && self.calls.is_empty() {
                return;
            }
        }
        if self.violation.is_none() {
            let open: Vec<&str> =
                self.store.views.values().filter(|v| v.outcome.is_none()).map(|v| v.id.as_str()).collect();
            let waiting = self.store.outbox.values().filter(|r| r.next_at.is_some()).count();
            self.violated(0, format!("six hours after the world healed: open {open:?}, {waiting} notices undelivered"));
        }
    }

    /// A day later every brake is free. A good release must pass, a bad one must be moved back, and what is
    /// undone must be told: as if nothing had ever happened.
    fn last_trial(&mut self) {
        let worked = self.stretch;
        self.run_until(self.now + REST);
        self.stretch = worked;
        for service in 0..self.sites.len() {
            self.sites[service].does.clear();
            let well = SlotState { errors: NORMAL, alive: true };
            for (becomes, wanted) in
                [(well, "passed"), (SlotState { errors: 0.5, alive: true }, "rolled_back_recovered")]
            {
                let live = self.sites[service].truth.routed().clone();
                self.sites[service].truth.set(self.now, &live, well);
                let before = self.store.views.len();
                let telling = Telling { after: 0, repeats: Vec::new(), conflict: false, says_when: false };
                self.deploy(service, becomes, 10 * SECOND, true, &telling);
                // The longest soak with its extension; after a rollback it is still looked after then.

                let ask = self.sites[service].service.policy.mode == crate::domain::policy::Mode::Ask;
                let observe = self.sites[service].service.policy.mode == crate::domain::policy::Mode::Observe;
                let wanted = if wanted != "passed" && (ask || observe) { "withheld" } else { wanted };
                self.run_until(
                    self.now
                        + if wanted == "passed" {
                            40
                        } else if wanted == "withheld" {
                            10
                        } else {
                            4
                        } * MINUTE,
                );
                let name = &self.sites[service].service.name;
                let newest =
                    self.store.views.values().filter(|v| v.switch.service == *name).max_by_key(|v| number(&v.id));
                let got = newest.and_then(|v| v.outcome.as_ref()).map_or("nothing".to_owned(), |o| o.to_string());
                if self.violation.is_none() && (self.store.views.len() == before || !got.starts_with(wanted)) {
                    let what = format!(
                        "a day after the world healed a release of {name} should have been {wanted}, it is {got}"
                    );
                    return self.violated(0, what);
                }
            }
            self.last_drift(service);
        }
        let untold = self.store.outbox.values().find(|r| !r.delivered && r.dead_at.is_none());
        if let Some(key) = untold.map(|r| r.notice.key.clone()) {
            self.violated(3, format!("{key} was not delivered, though mail goes"));
        }
    }

    /// What was moved back is undone while it is still looked after: that must be told.
    fn last_drift(&mut self, service: usize) {
        let site = &mut self.sites[service];
        let Some(slot) = site.moved_back_from.take() else { return };
        let name = site.service.name.clone();
        let now = self.now;
        self.sites[service].truth.route(now, &slot);
        let before = self.drifts(&name);
        self.run_until(self.now + 3 * MINUTE);
        // It is looked after for five minutes at least, and it ended less than four ago.
        if self.violation.is_none() && self.drifts(&name) == before {
            self.violated(10, format!("the traffic of {name} went back to {slot}, and nobody was told"));
        }
    }

    fn drifts(&self, name: &ServiceName) -> usize {
        let of = |row: &&super::store::Row| {
            row.notice.reason == NoticeReason::Drift && row.notice.watch.switch.service == *name
        };
        self.store.outbox.values().filter(of).count()
    }

    // ------------------------------------------------------------------ what happens

    fn happen(&mut self, event: Event) {
        match event {
            Event::Act(action) => self.act(action),
            Event::Mend(mend) => self.mend(mend),
            Event::Onset { service, slot, becomes, release } => {
                let now = self.now;
                let site = &mut self.sites[service];
                if site.release == release {
                    site.truth.set(now, &slot, becomes);
                    self.tell(|| format!("{slot} of service {service} becomes {becomes:?}"));
                }
            }
            Event::Call(call) => self.call(call),
            Event::Start => self.start(),
            Event::Deliver { generation, input, about } => {
                if self.process.as_ref().is_some_and(|p| p.generation == generation) {
                    self.deliver(*input, about);
                }
            }
            Event::Dies { generation, down } => {
                if !self.healed && self.process.as_ref().is_some_and(|p| p.generation == generation) {
                    self.crash(down);
                }
            }
            Event::Wake { generation } => self.wake(generation),
            Event::Mail { generation } => self.mail(generation),
            Event::ShimStarts { attempt } => self.shim_starts(&attempt),
            Event::StepMoves { attempt, power } if power == self.power => self.step_moves(&attempt),
            Event::StepEnds { attempt, does, power } if power == self.power => self.step_ends(&attempt, does),
            Event::StepMoves { .. } | Event::StepEnds { .. } => {}
            Event::Look { generation, attempt } => self.look(generation, &attempt),
            Event::Inspect => {
                self.inspect();
                self.later(20 * SECOND, Event::Inspect);
            }
        }
    }

    fn act(&mut self, action: Action) {
        if self.healed {
            return;
        }
        self.tell(|| format!("{action:?}"));
        let now = self.now;
        match action {
            Action::Deploy { service, becomes, onset, moves, telling } => {
                self.deploy(service, becomes, onset, moves, &telling);
            }
            Action::Metrics { service, fault, lasts } => {
                self.sites[service].metrics = fault;
                self.disturb(Some(service));
                self.later(lasts, Event::Mend(Mend::Metrics(service)));
            }
            Action::Unreadable { service, probe, lasts } => {
                let site = &mut self.sites[service];
                *(if probe { &mut site.probe_readable } else { &mut site.health_readable }) = false;
                self.disturb(Some(service));
                self.later(lasts, Event::Mend(if probe { Mend::Probe(service) } else { Mend::Health(service) }));
            }
            Action::SlotDies { service, live, lasts } => {
                let site = &mut self.sites[service];
                let routed = site.truth.routed().clone();
                let slot = if live { routed } else { site.other(&routed) };
                let state = site.truth.state(&slot);
                site.truth.set(now, &slot, SlotState { alive: false, ..state });
                site.dying += 1;
                self.disturb(Some(service));
                self.later(lasts, Event::Mend(Mend::Slot(service, slot)));
            }
            Action::Quiet { service, lasts } => {
                self.sites[service].truth.set_rps(now, 0.0);
                self.disturb(Some(service));
                self.later(lasts, Event::Mend(Mend::Traffic(service)));
            }
            Action::Steps { service, does } => self.sites[service].does = does.into(),
            Action::LateShim { by } => self.late_shim = by,
            Action::Mail { never: _, lasts } => {
                self.mail_down = true;
                self.later(lasts, Event::Mend(Mend::Mail));
            }
            Action::DiskFull { lasts } => {
                self.disturb(None);
                self.deliver(Input::Space { low: true }, None);
                self.store.full = true;
                self.later(lasts, Event::Mend(Mend::Disk));
            }
            Action::Disk(fault) => {
                self.disturb(None);
                self.store.next = Some(fault);
            }
            Action::Crash { point: Point::Now, down } => self.crash(down),
            Action::Crash { point, down } => self.crash = Some((point, down)),
            Action::AtStep { service, then: Then::Disk(fault) } => {
                self.sites[service].at_step = None;
                self.store.at_step = Some(fault);
            }
            Action::AtStep { service, then } => self.sites[service].at_step = Some(then),
            Action::PowerCut { down } => self.power_cut(down),
            Action::WallStep { by_ms, lasts } => {
                self.wall_ms += by_ms;
                self.disturb(None);
                self.later(lasts, Event::Mend(Mend::Wall));
            }
            Action::Arm { service, armed } => self.call(Call::Arm { service, armed }),
            Action::Answer { service, approve } => {
                if let Some(id) = self.newest(service, true) {
                    self.call(Call::Answer { switch: id, approve });
                }
            }
            Action::Cancel { service } => {
                if let Some(id) = self.newest(service, true) {
                    self.call(Call::Cancel { switch: id });
                }
            }
            Action::Order { service } => {
                if let Some(id) = self.newest(service, false) {
                    self.call(Call::Order { switch: id });
                }
            }
            Action::Reload { soak_s } => {
                for site in &mut self.sites {
                    site.service.policy.soak = Span::from_secs(soak_s);
                }
                let (services, brakes) = (self.services(), self.brakes());
                self.deliver(Input::Configured { services, brakes }, None);
            }
            Action::ProxyForgets { service } => {
                let site = &mut self.sites[service];
                if let Some(slot) = site.moved_back_from.take() {
                    site.truth.route(now, &slot);
                    self.disturb(Some(service));
                    self.tell(|| format!("the proxy of service {service} forgets: {slot} again"));
                }
            }
        }
    }

    fn mend(&mut self, mend: Mend) {
        self.tell(|| format!("mended: {mend:?}"));
        let now = self.now;
        match mend {
            Mend::Metrics(service) => self.sites[service].metrics = Metrics::Fine,
            Mend::Health(service) => self.sites[service].health_readable = true,
            Mend::Probe(service) => self.sites[service].probe_readable = true,
            Mend::Slot(service, slot) => {
                self.sites[service].dying = self.sites[service].dying.saturating_sub(1);
                let truth = &mut self.sites[service].truth;
                let state = truth.state(&slot);
                truth.set(now, &slot, SlotState { alive: true, ..state });
            }
            Mend::Traffic(service) => self.sites[service].truth.set_rps(now, RPS),
            Mend::Mail => self.mail_down = false,
            Mend::Disk => {
                self.store.full = false;
                self.deliver(Input::Space { low: false }, None);
            }
            Mend::Wall => self.wall_ms = 0,
        }
    }

    /// The deploy tool: a new release into the idle slot, the traffic over to it, and the word of it.
    fn deploy(&mut self, service: usize, becomes: SlotState, onset: Ms, moves: bool, telling: &Telling) {
        let now = self.now;
        let site = &mut self.sites[service];
        let old = site.truth.routed().clone();
        let new = site.other(&old);
        site.release += 1;
        site.moved_back_from = None;
        site.unmoved = !moves;
        let release = site.release;
        site.truth.set(now, &new, SlotState { errors: NORMAL, alive: true });
        if moves {
            site.truth.route(now, &new);
        }
        // Stubborn tools deploy the same version again: a few names are enough for quarantine to show.
        let version = format!("v{}", if becomes.errors > NORMAL { 1 + release % 2 } else { 10 + release });
        let site_name = site.service.name.clone();
        let announcement = Announcement {
            event_id: EventId::try_new(format!("e{service}-{release}")).ok(),
            version: Version::try_new(&version).ok(),
            // By the clock on the wall, right or wrong.
            switched_at: telling.says_when.then(|| self.wall()),
            // The tool knows where the traffic is; flipback may remember otherwise.
            assume_old: true,
            ..Announcement::of(site_name, old, new.clone(), "tool")
        };
        // A new release under a watch that is open disturbs that one.
        self.disturb(Some(service));
        self.later(onset, Event::Onset { service, slot: new, becomes, release });
        let call = |announcement: Announcement| Event::Call(Call::Announce { announcement, tries: 0 });
        for after in &telling.repeats {
            self.later(telling.after + after, call(announcement.clone()));
        }
        if telling.conflict {
            let other = Announcement { version: Version::try_new("v99").ok(), ..announcement.clone() };
            self.later(telling.after + 7 * SECOND, call(other));
        }
        self.later(telling.after, call(announcement));
    }

    /// What is open (of one service, or of all) is no longer a clear case.
    pub fn disturb(&mut self, service: Option<usize>) {
        for facts in self.facts.values_mut().filter(|f| f.ended.is_none() && service.is_none_or(|s| s == f.site)) {
            facts.disturbed = true;
        }
    }

    fn newest(&self, service: usize, open: bool) -> Option<SwitchId> {
        let name = &self.sites[service].service.name;
        let of = self.store.views.values().filter(|v| v.switch.service == *name);
        let newest = of.max_by_key(|v| number(&v.id))?;
        (!open || newest.outcome.is_none()).then(|| newest.id.clone())
    }
}

impl Site {
    fn new(service: Service) -> Site {
        let slots = slots_of(&service);
        Site {
            truth: Truth::new(&slots),
            service,
            metrics: Metrics::Fine,
            health_readable: true,
            probe_readable: true,
            does: VecDeque::new(),
            release: 0,
            moved_back_from: None,
            unmoved: false,
            dying: 0,
            at_step: None,
        }
    }

    /// Something is wrong around it right now.
    pub fn is_disturbed(&self) -> bool {
        self.metrics != Metrics::Fine
            || !self.health_readable
            || !self.probe_readable
            || self.unmoved
            || self.dying > 0
            || self.truth.rps() <= 0.0
    }

    pub fn slots(&self) -> Vec<Slot> {
        slots_of(&self.service)
    }

    pub fn other(&self, slot: &Slot) -> Slot {
        self.slots().into_iter().find(|s| s != slot).unwrap_or_else(|| slot.clone())
    }
}

/// `checkout-17` is the seventeenth: the clock may have been set back between two of them.
fn number(id: &SwitchId) -> u64 {
    id.as_str().rsplit('-').next().and_then(|n| n.parse().ok()).unwrap_or(0)
}

fn slots_of(service: &Service) -> Vec<Slot> {
    match &service.slots {
        crate::domain::service::Slots::Named(named) => named.keys().cloned().collect(),
        crate::domain::service::Slots::Versions => Vec::new(),
    }
}

/// Two to five services, read from a configuration as any other.
fn settings(rng: &mut ChaCha8Rng) -> (Vec<Service>, Brakes) {
    let mut text = String::from(
        "[prometheus]\nurl = \"http://127.0.0.1:9090\"\n[metrics.web]\nrequests = 'r{env=\"$slot\"}'\nerrors = 'e{env=\"$slot\"}'\n",
    );
    let services = rng.random_range(2..6);
    for i in 0..services {
        let mode = *plan::pick(rng, &["auto", "auto", "auto", "auto", "ask", "observe"]);
        let rule = *plan::pick(rng, &["evidence", "threshold", "either"]);
        let tick = *plan::pick(rng, &["5s", "10s", "15s"]);
        let soak = *plan::pick(rng, &["3m", "5m", "10m"]);
        // Some touch the same proxy.
        let lock = if rng.random_bool(0.5) { "/etc/proxy".to_owned() } else { format!("/etc/proxy{i}") };
        text.push_str(&format!(
            r#"
[[service]]
name = "s{i}"
metrics = "web"
mode = "{mode}"
slots.blue = {{ health = {{ tcp = "127.0.0.1:1" }} }}
slots.green = {{ health = {{ tcp = "127.0.0.1:2" }} }}
soak = {{ duration = "{soak}", tick = "{tick}", extend_max = "5m" }}
warm_up = {{ errors = "10s", latency = "10s" }}
rule = "{rule}"
ask_timeout = "5m"
[[service.rollback]]
name = "proxy"
exec = ["/bin/switch", "$old"]
timeout = "20s"
verify_timeout = "5s"
lock = "{lock}"
probe = {{ exec = ["/bin/active"], expect = "$old", timeout = "2s" }}
"#
        ));
    }
    match config::parse("simulated", &text) {
        Ok(settings) => (settings.services, settings.brakes),
        Err(problems) => unreachable!("the simulated configuration: {problems}"),
    }
}
