//! What holds in every world, whatever happens in whatever order.

use proptest::prelude::*;

use super::*;
use crate::domain::view::PhaseWord;

#[derive(Debug, Clone)]
enum Happens {
    Pass(u16),
    Switch(u8, u8),
    Announce(u8, u8, u8),
    Errors(u8, u8),
    Sick(u8, bool),
    Prom(u8),
    Probe(u8),
    Does(u8),
    Arm(bool, bool),
    Answer(u32, bool),
    Cancel(u32),
    Order(u32),
    Hold(u32, u8, u16),
    Drill(bool),
    Flag(bool),
    Traffic(u8),
    Restart,
}

const SLOTS: [&str; 3] = ["blue", "green", "red"];

fn happens() -> impl Strategy<Value = Happens> {
    prop_oneof![
        8 => (1u16..400).prop_map(Happens::Pass),
        2 => (0u8..3, 1u8..4).prop_map(|(s, v)| Happens::Switch(s, v)),
        1 => (0u8..3, 0u8..3, 1u8..4).prop_map(|(a, b, v)| Happens::Announce(a, b, v)),
        2 => (0u8..3, 0u8..4).prop_map(|(s, e)| Happens::Errors(s, e)),
        2 => (0u8..3, any::<bool>()).prop_map(|(s, b)| Happens::Sick(s, b)),
        1 => (0u8..3).prop_map(Happens::Prom),
        1 => (0u8..4).prop_map(Happens::Probe),
        2 => (0u8..7).prop_map(Happens::Does),
        1 => any::<(bool, bool)>().prop_map(|(a, b)| Happens::Arm(a, b)),
        1 => (1u32..5, any::<bool>()).prop_map(|(n, b)| Happens::Answer(n, b)),
        1 => (1u32..5).prop_map(Happens::Cancel),
        1 => (1u32..5).prop_map(Happens::Order),
        1 => (1u32..5, 0u8..3, 1u16..120).prop_map(|(n, h, s)| Happens::Hold(n, h, s)),
        1 => any::<bool>().prop_map(Happens::Drill),
        1 => any::<bool>().prop_map(Happens::Flag),
        1 => (0u8..3).prop_map(Happens::Traffic),
        1 => Just(Happens::Restart),
    ]
}

/// Carries out one event, in tenths of seconds where it takes time.
fn play(w: &mut World, event: &Happens) {
    let slot_of = |s: u8| SLOTS[usize::from(s) % 3];
    match *event {
        Happens::Pass(tenths) => {
            let until = w.now + Span::from_millis(u64::from(tenths) * 100);
            while w.step_once(until) {
                check(w);
            }
            w.now = until;
        }
        Happens::Switch(s, v) => {
            let _ = w.switch(slot_of(s), &format!("v{v}"));
        }
        Happens::Announce(a, b, v) => {
            let _ = w.announce(announcement(slot_of(a), slot_of(b), &format!("v{v}")));
        }
        Happens::Errors(s, e) => {
            w.errors.insert(slot_of(s), [0.0005, 0.004, 0.1, 1.0][usize::from(e) % 4]);
        }
        Happens::Sick(s, sick) => {
            if sick {
                w.sick.insert(slot_of(s));
            } else {
                w.sick.remove(slot_of(s));
            }
        }
        Happens::Prom(p) => w.prom = [Prom::Up, Prom::Down, Prom::Absent][usize::from(p) % 3],
        Happens::Probe(p) => {
            w.probe_lies = match p {
                0 | 1 => None,
                2 => Some(ProbeReading::Unreadable("exit code 1".into())),
                _ => Some(ProbeReading::Shows("purple".into())),
            }
        }
        Happens::Does(d) => {
            let all = [
                Does::Works,
                Does::Fails,
                Does::Lies,
                Does::MovesAndFails,
                Does::Vanishes(true),
                Does::Vanishes(false),
                Does::NeverStarts,
            ];
            w.steps.push_back(all[usize::from(d) % 7]);
        }
        Happens::Arm(one, armed) => {
            let _ = w.arm(one.then_some("checkout"), armed);
        }
        Happens::Answer(n, approve) => {
            let _ = w.answer(n, approve);
        }
        Happens::Cancel(n) => {
            let _ = w.cancel(n);
        }
        // What a person orders is no matter of the mode.
        Happens::Order(_) | Happens::Drill(true) if w.service.policy.mode == Mode::Observe => {}
        Happens::Order(n) => {
            let _ = w.order(n);
        }
        Happens::Hold(n, hold, s) => {
            let span = Span::from_secs(u64::from(s));
            let holds = [Hold::Pause { lasts: span }, Hold::Resume, Hold::Extend { longer: span }];
            let _ = w.hold(n, holds[usize::from(hold) % 3]);
        }
        Happens::Drill(real) => {
            let _ = w.drill(real);
        }
        Happens::Flag(on) => w.flag = on,
        Happens::Traffic(t) => w.rps = [100.0, 0.0, 0.5][usize::from(t) % 3],
        Happens::Restart => w.restart(),
    }
    check(w);
}

/// What must hold after every event. That no attempt runs twice and no watch ends twice is checked by
/// the world itself, and that a snapshot is the whole state at each restart.
fn check(w: &World) {
    for (id, watch) in &w.engine.watches {
        let deadline = watch.next_deadline();
        assert!(deadline.is_some(), "{id} is open and has no deadline\n{}", w.transcript());
        let ahead = deadline.unwrap().since(w.now);
        assert!(ahead <= Span::from_secs(60), "{id} sleeps for {ahead}\n{}", w.transcript());
        assert!(watch.timeline.len() <= 400);
    }
    assert!(w.engine.watches.len() <= 1, "one open watch of one service");
    assert!(w.engine.drills.len() <= 1, "one drill of one service");
    let moves = |watch: &Watch| matches!(watch.phase_word(), PhaseWord::RollingBack | PhaseWord::Drilling);
    let moving = w.engine.watches.values().chain(w.engine.drills.values()).filter(|watch| moves(watch)).count();
    assert!(moving <= 1, "two hands on one service's traffic\n{}", w.transcript());
}

/// Looks at each commanded step against the world at that moment.
fn may_run(w: &World, runs_before: usize) {
    if w.ran.len() > runs_before {
        assert!(w.engine.is_armed(&w.service.name), "a step while disarmed\n{}", w.transcript());
        assert_ne!(w.service.policy.mode, Mode::Observe, "a step in observe mode");
    }
}

fn settings() -> ProptestConfig {
    // Bounded in time: the whole suite runs on two cores.
    ProptestConfig { cases: 512, failure_persistence: None, ..ProptestConfig::default() }
}

proptest! {
    #![proptest_config(settings())]

    /// Safety while anything happens; then the world heals and every watch ends.
    #[test]
    fn nothing_runs_that_must_not_and_everything_ends(
        mode in 0u8..3,
        ladder in any::<bool>(),
        events in prop::collection::vec(happens(), 1..120),
    ) {
        let mode = [Mode::Auto, Mode::Ask, Mode::Observe][usize::from(mode)];
        let mut w = World::with(|s| {
            s.policy.mode = mode;
            if ladder {
                s.plan.steps = vec![remedy(20), Step { wait: Span::from_secs(2), ..step("haproxy") }];
                s.after_passed.steps = vec![Step { probe: None, action: Action::Exec(Exec::new(["/bin/tell", "$old"])), ..step("tell") }];
            }
        });
        for event in &events {
            let before = w.ran.len();
            play(&mut w, event);
            if matches!(event, Happens::Pass(_)) {
                may_run(&w, before);
            }
        }
        if mode == Mode::Observe {
            prop_assert!(w.ran.is_empty());
        }
        w.prom = Prom::Up;
        w.probe_lies = None;
        w.sick.clear();
        w.errors.clear();
        w.steps.clear();
        w.rps = 100.0;
        let until = w.now + Span::from_mins(60);
        while w.step_once(until) {
            check(&w);
        }
        prop_assert_eq!(w.engine.open_watches(), 0, "{}", w.transcript());
        prop_assert_eq!(w.engine.next_deadline(), None);
        // Whoever announced got an answer, and each accepted switch an outcome.
        // An order over an ended watch opens one as well.
        let opens = |a: &&Answer| match a {
            Answer::Accepted { .. } => true,
            Answer::Done { text } => text.contains(", over checkout-"),
            _ => false,
        };
        let accepted = w.answers.iter().filter(opens).count();
        prop_assert_eq!(accepted, w.outcomes.len());
    }

    /// Without a reading nothing passes and no limit is broken; only our own health checks may act.
    #[test]
    fn no_data_never_rolls_back_and_never_passes(
        prom in 1u8..3,
        tick_s in 1u64..60,
        events in prop::collection::vec((0u8..3, 0u8..4), 0..20),
    ) {
        let mut w = World::with(|s| s.policy.tick = Span::from_secs(tick_s));
        w.prom = [Prom::Up, Prom::Down, Prom::Absent][usize::from(prom)];
        let _ = w.switch("green", "v2");
        for (s, e) in events {
            play(&mut w, &Happens::Errors(s, e));
            play(&mut w, &Happens::Pass(100));
        }
        let outcome = w.run_to_end(1);
        prop_assert_eq!(outcome, "unjudged");
        prop_assert!(w.ran.is_empty());
        prop_assert_eq!(w.notices.iter().filter(|n| **n == "blind").count(), 1, "{:?}", w.notices);
    }

    /// The same inputs give the same commands, over a snapshot at any point.
    #[test]
    fn a_snapshot_continues_bit_for_bit(
        events in prop::collection::vec(happens(), 1..40),
        cut in 0usize..40,
    ) {
        let (mut through, mut back) = (World::new(), World::new());
        for (i, event) in events.iter().enumerate() {
            if matches!(event, Happens::Restart) {
                continue;
            }
            play(&mut through, event);
            play(&mut back, event);
            if i == cut {
                let text = serde_json::to_string(&back.engine).unwrap();
                back.engine = serde_json::from_str(&text).unwrap();
            }
        }
        prop_assert_eq!(&through.lines, &back.lines);
        prop_assert!(through.engine_without_views() == back.engine_without_views());
    }
}
