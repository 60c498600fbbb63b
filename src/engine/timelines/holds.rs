//! Pause, resume, extend: each against whatever the watch does at that moment.

use super::*;

const MINUTE: u64 = 60;

fn pause(s: u64) -> Hold {
    Hold::Pause { lasts: Span::from_secs(s) }
}

#[test]
fn what_breaks_in_a_pause_is_judged_after_it() {
    let mut w = World::new();
    let _ = w.switch("green", "v2");
    w.run_for(Span::from_secs(40));
    assert!(matches!(w.hold(1, pause(10 * MINUTE)), Answer::Done { .. }));
    assert_eq!(w.notices, ["paused"]);
    w.errors.insert("green", 0.30);
    w.run_for(Span::from_secs(60));
    assert_eq!(w.routed, "green", "{}", w.transcript());
    assert!(matches!(w.hold(1, Hold::Resume), Answer::Done { .. }));
    w.run_for(Span::from_secs(30));
    assert_eq!(w.routed, "blue", "{}", w.transcript());
}

#[test]
fn what_breaks_and_heals_in_a_pause_is_nothing() {
    let mut w = World::new();
    let _ = w.switch("green", "v2");
    w.run_for(Span::from_secs(40));
    let _ = w.hold(1, pause(MINUTE));
    w.errors.insert("green", 0.30);
    w.run_for(Span::from_secs(40));
    w.errors.clear();
    assert_eq!(w.run_to_end(1), "passed");
}

#[test]
fn a_pause_ends_by_itself_and_makes_the_soak_longer() {
    let mut w = World::new();
    let _ = w.switch("green", "v2");
    w.run_for(Span::from_secs(30));
    let _ = w.hold(1, pause(MINUTE));
    w.run_for(Span::from_secs(100));
    let end = |w: &World| w.engine.watches[&switch(1)].soak_ends_at();
    // Two minutes from the cut-over, and one more.
    assert_eq!(end(&w).since(BEGAN).as_millis() / 1000, 180);
    assert!(w.engine.watches[&switch(1)].paused.is_none());
    assert_eq!(w.run_to_end(1), "passed");
    assert!(w.now >= BEGAN + Span::from_secs(180));
    // Nobody can silence it for a day.
    let mut long = World::new();
    let _ = long.switch("green", "v2");
    let _ = long.hold(1, pause(24 * 3600));
    let until = long.engine.watches[&switch(1)].paused.as_ref().unwrap().until;
    assert_eq!(until, BEGAN + Span::from_mins(240));
}

#[test]
fn a_dead_slot_in_a_pause_is_not_acted_upon_before_its_end() {
    let mut w = World::new();
    let _ = w.switch("green", "v2");
    w.run_for(Span::from_secs(30));
    let _ = w.hold(1, pause(MINUTE));
    w.sick.insert("green");
    w.run_for(Span::from_secs(55));
    assert_eq!(w.ran.len(), 0);
    w.run_for(Span::from_secs(30));
    assert_eq!(w.routed, "blue", "{}", w.transcript());
}

#[test]
fn blindness_in_a_pause_is_nobodys_trouble() {
    let mut w = World::new();
    let _ = w.switch("green", "v2");
    w.run_for(Span::from_secs(30));
    let _ = w.hold(1, pause(10 * MINUTE));
    w.prom = Prom::Down;
    w.run_for(Span::from_secs(300));
    assert_eq!(w.notices, ["paused"]);
    let _ = w.hold(1, Hold::Resume);
    w.run_for(Span::from_secs(130));
    assert!(w.notices.contains(&"blind"), "{:?}", w.notices);
}

#[test]
fn a_soak_is_extended_by_what_was_asked() {
    let mut w = World::new();
    let _ = w.switch("green", "v2");
    w.run_for(Span::from_secs(30));
    assert!(matches!(w.hold(1, Hold::Extend { longer: Span::from_secs(300) }), Answer::Done { .. }));
    w.run_for(Span::from_secs(300));
    assert!(!w.outcomes.contains_key(&switch(1)), "{}", w.transcript());
    assert_eq!(w.run_to_end(1), "passed");
    assert!(w.now >= BEGAN + Span::from_secs(420));
}

/// The cut-over is not given up while nothing is judged, and the loop does not spin on a deadline that waits.
#[test]
fn a_pause_before_the_cut_over_is_confirmed_holds_that_as_well() {
    let mut w = World::new();
    let _ = w.announce(announcement("blue", "green", "v2"));
    let _ = w.hold(1, pause(5 * MINUTE));
    w.run_for(Span::from_secs(120));
    assert!(!w.outcomes.contains_key(&switch(1)), "{}", w.transcript());
    let ahead = w.engine.next_deadline().unwrap();
    assert!(ahead > w.now, "{ahead} is over");
    w.routed = "green";
    assert_eq!(w.run_to_end(1), "passed");
}

#[test]
fn whoever_orders_a_rollback_ends_the_pause() {
    let mut w = World::new();
    let _ = w.switch("green", "v2");
    w.run_for(Span::from_secs(30));
    let _ = w.hold(1, pause(60 * MINUTE));
    assert!(matches!(w.order(1), Answer::Done { .. }));
    assert_eq!(w.run_to_end(1), "rolled_back_recovered");
    assert!(w.now.since(BEGAN) < Span::from_secs(90), "{}", w.transcript());
}

/// Whatever the watch does, a verb is carried out or refused with its reason: never both, never nothing.
#[test]
fn every_verb_in_every_phase_has_one_answer() {
    type Verb = fn(&mut World) -> Answer;
    let verbs: [(&str, Verb); 9] = [
        ("pause", |w| w.hold(1, Hold::Pause { lasts: Span::from_secs(30) })),
        ("resume", |w| w.hold(1, Hold::Resume)),
        ("extend", |w| w.hold(1, Hold::Extend { longer: Span::from_secs(30) })),
        ("approve", |w| w.answer(1, true)),
        ("decline", |w| w.answer(1, false)),
        ("cancel", |w| w.cancel(1)),
        ("rollback", |w| w.order(1)),
        ("drill", |w| w.drill(true)),
        ("disarm", |w| w.arm(None, false)),
    ];
    let mut table = String::new();
    for (phase, mode, bad, at) in [
        ("cutting_over", Mode::Auto, false, 0),
        ("soaking", Mode::Auto, false, 40_000),
        ("asking", Mode::Ask, true, 20_000),
        ("rolling_back", Mode::Auto, true, 16_600),
        ("recovering", Mode::Auto, true, 25_000),
        ("ended", Mode::Auto, true, 60_000),
    ] {
        for (name, verb) in verbs {
            let mut w = World::with(|s| s.policy.mode = mode);
            if bad {
                w.errors.insert("green", 0.10);
            }
            let _ = w.switch("green", "v2");
            w.run_for(Span::from_millis(at));
            let found = w.engine.watches.get(&switch(1)).map_or("ended", |watch| watch.phase_word().as_str());
            assert_eq!(found, phase, "{}", w.transcript());
            let answer = verb(&mut w);
            let (word, text) = match &answer {
                Answer::Done { text } => ("done", text.clone()),
                Answer::Accepted { switch } => ("begun", switch.to_string()),
                Answer::Conflict { text } => ("conflict", text.clone()),
                Answer::NotFound { text } => ("not found", text.clone()),
                other => panic!("{phase} {name}: {other:?}"),
            };
            assert!(!text.is_empty());
            // Only these move traffic, and only by the plan.
            w.run_for(Span::from_secs(1));
            let before = w.ran.len();
            w.run_for(Span::from_secs(3));
            assert!(w.ran.len() - before <= 1);
            table.push_str(&format!("{phase:13} {name:9} {word}: {text}\n"));
        }
    }
    insta::assert_snapshot!("verbs_by_phase", table);
}
