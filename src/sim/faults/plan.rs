//! What happens to a world in its safety phase, drawn from the seed before it begins.

use rand::RngExt;
use rand_chacha::ChaCha8Rng;

use super::source::{Metrics, Ms, NORMAL, SlotState};
use super::steps::Does;
use super::store::Fault;

pub const SECOND: Ms = 1000;
pub const MINUTE: Ms = 60 * SECOND;
pub const HOUR: Ms = 60 * MINUTE;

/// Where a process dies.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Point {
    /// Between two turns.
    Now,
    BeforeCommit,
    AfterCommit,
    /// After so many of a turn's commands were carried out.
    MidDispatch(usize),
}

/// What happens at the very moment at which a step is begun.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Then {
    Disk(Fault),
    /// The daemon dies so long after it, and is up again soon.
    Crash {
        after: Ms,
        down: Ms,
    },
    /// The daemon dies before, in or after the turn that begins it.
    CrashIn {
        point: Point,
        down: Ms,
    },
    /// An operator stops everything, while the shim is slow to start.
    Disarm {
        after: Ms,
        shim: Ms,
    },
}

/// How the deploy tool tells of its switch.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Telling {
    /// After the traffic moved; the tool asks again until it is answered.
    pub after: Ms,
    /// The same event again, so long after that.
    pub repeats: Vec<Ms>,
    /// Once more with the same id and another version.
    pub conflict: bool,
    pub says_when: bool,
}

#[derive(Debug, Clone, PartialEq)]
pub enum Action {
    Deploy {
        service: usize,
        becomes: SlotState,
        onset: Ms,
        moves: bool,
        telling: Telling,
    },
    Metrics {
        service: usize,
        fault: Metrics,
        lasts: Ms,
    },
    /// Health checks or the probe cannot be read.
    Unreadable {
        service: usize,
        probe: bool,
        lasts: Ms,
    },
    /// A slot stops answering, whichever release is in it.
    SlotDies {
        service: usize,
        live: bool,
        lasts: Ms,
    },
    Quiet {
        service: usize,
        lasts: Ms,
    },
    Steps {
        service: usize,
        does: Vec<Does>,
    },
    /// The next shim is slow to start.
    LateShim {
        by: Ms,
    },
    Mail {
        never: bool,
        lasts: Ms,
    },
    DiskFull {
        lasts: Ms,
    },
    Disk(Fault),
    Crash {
        point: Point,
        down: Ms,
    },
    /// When the next step of that service is begun: there it hurts most.
    AtStep {
        service: usize,
        then: Then,
    },
    /// The machine: steps die with it.
    PowerCut {
        down: Ms,
    },
    WallStep {
        by_ms: i64,
        lasts: Ms,
    },
    Arm {
        service: Option<usize>,
        armed: bool,
    },
    Answer {
        service: usize,
        approve: bool,
    },
    Cancel {
        service: usize,
    },
    Order {
        service: usize,
    },
    Reload {
        soak_s: u64,
    },
    ProxyForgets {
        service: usize,
    },
}

/// The safety phase: when what happens, and how long it is.
pub fn safety(rng: &mut ChaCha8Rng, services: usize) -> (Vec<(Ms, Action)>, Ms) {
    let length = rng.random_range(2 * HOUR..5 * HOUR);
    let mut plan = Vec::new();
    for service in 0..services {
        let mut at = rng.random_range(0..20 * MINUTE);
        // Some deploy tools try the same bad release again and again.
        let stubborn = rng.random_bool(0.3);
        let every = if stubborn { 8 * MINUTE..20 * MINUTE } else { 5 * MINUTE..60 * MINUTE };
        while at < length {
            let deploy = deploy(rng, service, stubborn);
            around(rng, service, at, &deploy, &mut plan);
            plan.push((at, deploy));
            at += rng.random_range(every.clone());
        }
    }
    // All at once now and then: one cause, many services.
    if rng.random_bool(0.4) {
        let at = rng.random_range(0..length);
        for service in 0..services {
            let becomes = SlotState { errors: 0.8, alive: true };
            let telling = Telling { after: 1000, repeats: Vec::new(), conflict: false, says_when: false };
            plan.push((at, Action::Deploy { service, becomes, onset: 5 * SECOND, moves: true, telling }));
        }
    }
    let some = |rng: &mut ChaCha8Rng, most: u32| rng.random_range(0..=most);
    for _ in 0..some(rng, 8) {
        let at = rng.random_range(0..length);
        let down = *pick(rng, &[2 * SECOND, 2 * SECOND, 5 * SECOND, MINUTE, 12 * MINUTE]);
        let action = if rng.random_bool(0.2) {
            Action::PowerCut { down: down + 20 * SECOND }
        } else {
            Action::Crash { point: point(rng), down }
        };
        plan.push((at, action));
    }
    for _ in 0..some(rng, 3) {
        plan.push((rng.random_range(0..length), Action::Mail { never: false, lasts: rng.random_range(MINUTE..HOUR) }));
    }
    for _ in 0..some(rng, 2) {
        let fault = *pick(rng, &[Fault::Full, Fault::Lost, Fault::Kept]);
        plan.push((rng.random_range(0..length), Action::Disk(fault)));
    }
    if rng.random_bool(0.2) {
        plan.push((rng.random_range(0..length), Action::DiskFull { lasts: rng.random_range(MINUTE..10 * MINUTE) }));
    }
    for _ in 0..some(rng, 2) {
        let size = *pick(rng, &[3_000i64, 20_000, 100_000, 3_600_000, 7_200_000]);
        let by_ms = if rng.random_bool(0.5) { size } else { -size };
        plan.push((
            rng.random_range(0..length),
            Action::WallStep { by_ms, lasts: rng.random_range(MINUTE..20 * MINUTE) },
        ));
    }
    for _ in 0..some(rng, 2) {
        let at = rng.random_range(0..length);
        let service = if rng.random_bool(0.4) { None } else { Some(rng.random_range(0..services)) };
        plan.push((at, Action::Arm { service, armed: false }));
        plan.push((at + rng.random_range(10 * SECOND..30 * MINUTE), Action::Arm { service, armed: true }));
    }
    for _ in 0..some(rng, 2) {
        plan.push((rng.random_range(0..length), Action::Reload { soak_s: rng.random_range(120..900) }));
    }
    (plan, length)
}

/// What goes wrong around one deployment: near it, where it hurts.
fn around(rng: &mut ChaCha8Rng, service: usize, at: Ms, deploy: &Action, plan: &mut Vec<(Ms, Action)>) {
    let near = |rng: &mut ChaCha8Rng| at + rng.random_range(0..6 * MINUTE);
    let bad = matches!(deploy, Action::Deploy { becomes, .. } if !becomes.alive || becomes.errors > NORMAL);
    if rng.random_bool(0.25) {
        let faults =
            [Metrics::Refused, Metrics::Slow, Metrics::Stale, Metrics::Partial, Metrics::Nan, Metrics::WrongSlot];
        let fault = *pick(rng, &faults);
        plan.push((near(rng), Action::Metrics { service, fault, lasts: rng.random_range(5 * SECOND..20 * MINUTE) }));
    }
    if rng.random_bool(0.1) {
        let probe = rng.random_bool(0.5);
        plan.push((near(rng), Action::Unreadable { service, probe, lasts: rng.random_range(SECOND..5 * MINUTE) }));
    }
    if rng.random_bool(0.1) {
        let live = rng.random_bool(0.4);
        plan.push((near(rng), Action::SlotDies { service, live, lasts: rng.random_range(SECOND..10 * MINUTE) }));
    }
    if rng.random_bool(0.05) {
        plan.push((near(rng), Action::Quiet { service, lasts: rng.random_range(MINUTE..20 * MINUTE) }));
    }
    if rng.random_bool(0.4) {
        let does = (0..rng.random_range(1..4)).map(|_| *pick(rng, &Does::ALL)).collect();
        plan.push((at, Action::Steps { service, does }));
    }
    if rng.random_bool(0.1) {
        plan.push((near(rng), Action::LateShim { by: rng.random_range(200..4 * SECOND) }));
    }
    if rng.random_bool(0.15) {
        plan.push((near(rng), Action::ProxyForgets { service }));
    }
    if rng.random_bool(0.4) {
        plan.push((near(rng), Action::Answer { service, approve: rng.random_bool(0.7) }));
    }
    if rng.random_bool(0.05) {
        plan.push((near(rng), Action::Cancel { service }));
    }
    if rng.random_bool(0.12) {
        plan.push((near(rng), Action::Order { service }));
    }
    if bad && rng.random_bool(0.5) {
        // Where a rollback is likely to be under way: crashes, and operators at the same moment.
        let soon = at + rng.random_range(0..90 * SECOND);
        plan.push((at, Action::AtStep { service, then: then(rng) }));
        let action = match rng.random_range(0..10) {
            0..=5 => {
                Action::Crash { point: point(rng), down: *pick(rng, &[2 * SECOND, 2 * SECOND, 8 * SECOND, MINUTE]) }
            }
            6 => Action::PowerCut { down: 30 * SECOND },
            7 => Action::Arm { service: Some(service), armed: false },
            8 => Action::Disk(*pick(rng, &[Fault::Full, Fault::Lost, Fault::Kept])),
            _ => Action::LateShim { by: rng.random_range(200..4 * SECOND) },
        };
        if let Action::Arm { service, .. } = action {
            plan.push((soon + rng.random_range(SECOND..10 * MINUTE), Action::Arm { service, armed: true }));
        }
        plan.push((soon, action));
    }
}

fn then(rng: &mut ChaCha8Rng) -> Then {
    match rng.random_range(0..8) {
        0 => Then::Disk(*pick(rng, &[Fault::Full, Fault::Lost, Fault::Kept])),
        1 | 2 => Then::CrashIn { point: point(rng), down: 200 },
        3..=5 => Then::Crash { after: rng.random_range(0..3 * SECOND), down: rng.random_range(100..2 * SECOND) },
        _ => Then::Disarm { after: rng.random_range(1..300), shim: rng.random_range(100..900) },
    }
}

fn deploy(rng: &mut ChaCha8Rng, service: usize, stubborn: bool) -> Action {
    let kind = if stubborn { rng.random_range(4..10) } else { rng.random_range(0..10) };
    let becomes = match kind {
        0..=4 => SlotState { errors: NORMAL, alive: true },
        5..=8 => SlotState { errors: rng.random_range(0.03..1.0), alive: true },
        _ => SlotState { errors: 1.0, alive: false },
    };
    let repeats = (0..rng.random_range(0..3u32)).map(|_| rng.random_range(SECOND..40 * MINUTE)).collect();
    let telling = Telling {
        after: *pick(rng, &[0, 500, 3 * SECOND, 20 * SECOND, 5 * MINUTE]),
        repeats,
        conflict: rng.random_bool(0.08),
        says_when: rng.random_bool(0.4),
    };
    Action::Deploy { service, becomes, onset: rng.random_range(0..3 * MINUTE), moves: !rng.random_bool(0.04), telling }
}

fn point(rng: &mut ChaCha8Rng) -> Point {
    match rng.random_range(0..6) {
        0 => Point::Now,
        1 => Point::BeforeCommit,
        2 | 3 => Point::AfterCommit,
        _ => Point::MidDispatch(rng.random_range(0..3)),
    }
}

pub fn pick<'a, T>(rng: &mut ChaCha8Rng, all: &'a [T]) -> &'a T {
    &all[rng.random_range(0..all.len())]
}
