//! The process dies in every phase: the watch goes on, and no attempt runs twice.

use super::*;

/// Plays a world to its end with a restart every so often; the outcome must not change.
fn restarted_every(every: Span, make: fn() -> World, expected: &str) {
    let mut w = make();
    while w.outcomes.is_empty() {
        assert!(w.now.since(BEGAN) < Span::from_mins(120), "no end\n{}", w.transcript());
        w.run_for(every);
        if w.outcomes.is_empty() {
            // Time passes while it is down.
            w.now = w.now + Span::from_millis(700);
            w.restart();
        }
    }
    assert_eq!(w.outcomes[&switch(1)], expected, "restarted every {every}\n{}", w.transcript());
}

fn good() -> World {
    let mut w = World::new();
    let _ = w.switch("green", "v2");
    w
}

fn bad() -> World {
    let mut w = World::new();
    w.errors.insert("green", 0.10);
    let _ = w.switch("green", "v2");
    w
}

fn bad_and_stubborn() -> World {
    let mut w = bad();
    w.steps = [Does::Fails, Does::Lies].into();
    w
}

#[test]
fn outcomes_survive_restarts_at_any_time() {
    for ms in [1900, 2300, 3100, 4700, 6100, 9700, 13_300, 31_000] {
        let every = Span::from_millis(ms);
        restarted_every(every, good, "passed");
        restarted_every(every, bad, "rolled_back_recovered");
        restarted_every(every, bad_and_stubborn, "rolled_back_recovered");
    }
}

#[test]
fn a_step_under_way_is_adopted_and_not_repeated() {
    let mut w = bad();
    while w.ran.is_empty() {
        assert!(w.step_once(BEGAN + Span::from_secs(60)));
    }
    w.restart();
    w.run_to_end(1);
    assert_eq!(w.ran.len(), 1);
    assert!(w.transcript().contains("RecoverStep checkout-1.s0.a1"), "{}", w.transcript());
    assert_eq!(w.outcomes[&switch(1)], "rolled_back_recovered");
}

#[test]
fn an_intent_that_never_started_gets_a_new_attempt() {
    let mut w = bad();
    while w.ran.is_empty() {
        assert!(w.step_once(BEGAN + Span::from_secs(60)));
    }
    // The crash came between the commit and the start of the shim.
    w.routed = "green";
    w.attempts.clear();
    w.restart();
    w.run_to_end(1);
    let attempts: Vec<_> = w.ran.iter().map(ToString::to_string).collect();
    assert_eq!(attempts, ["checkout-1.s0.a1", "checkout-1.s0.a2"]);
    assert_eq!(w.outcomes[&switch(1)], "rolled_back_recovered");
}

#[test]
fn a_daemon_that_dies_again_and_again_is_not_silent_about_what_it_cannot_see() {
    let mut w = good();
    w.prom = Prom::Down;
    for _ in 0..11 {
        w.run_for(Span::from_secs(8));
        w.restart();
    }
    assert_eq!(w.notices, ["blind"]);
}

#[test]
fn counts_go_on_where_they_were() {
    let (mut through, mut stopped) = (good(), good());
    through.run_for(Span::from_secs(90));
    stopped.run_for(Span::from_secs(42));
    stopped.restart();
    stopped.run_for(Span::from_secs(48));
    let requests = |w: &World| w.engine.watches[&switch(1)].view().evidence[0].requests;
    assert_eq!(requests(&through), requests(&stopped));
}

#[test]
fn a_question_stands_over_a_restart() {
    let mut w = World::with(|s| s.policy.mode = Mode::Ask);
    w.errors.insert("green", 0.1);
    let _ = w.switch("green", "v2");
    w.run_for(Span::from_secs(60));
    w.restart();
    assert_eq!(w.notices, ["approval_wanted"], "asked once");
    let _ = w.answer(1, true);
    assert_eq!(w.run_to_end(1), "rolled_back_recovered");
}

#[test]
fn late_and_foreign_answers_change_nothing() {
    let mut w = good();
    w.run_for(Span::from_secs(20));
    // With a question of each kind on its way.
    let on_its_way = |w: &World| w.queue.iter().filter(|(_, i)| matches!(i, Input::Observed { .. })).count();
    while on_its_way(&w) < 2 {
        assert!(w.step_once(BEGAN + Span::from_secs(60)));
    }
    let before = w.engine_without_views();
    for n in [0, 1, 2, 999] {
        let id = super::super::message::CommandId { switch: switch(1), n };
        w.put(Input::Probed { id: id.clone(), reading: ProbeReading::Shows("blue".into()) });
        w.put(Input::HealthChecked { id: id.clone(), reading: HealthReading::Bad("late".into()) });
        let failure = ReadFailure { kind: FailureKind::Timeout, detail: "late".into() };
        w.put(Input::Observed { id: id.clone(), observation: Observation::Failed(failure), clock: None });
        w.put(Input::BaselineChosen { id, baseline: Err("late".into()) });
    }
    let attempt = AttemptId { switch: switch(1), step: 0, attempt: 1 };
    w.put(Input::StepEnded { attempt, state: AttemptState::Ambiguous });
    assert_eq!(w.engine_without_views(), before);
}

#[test]
fn a_timer_that_comes_hours_late_neither_passes_nor_rolls_back() {
    let mut w = good();
    w.run_for(Span::from_secs(20));
    // Suspended: no deadline was served for hours.
    w.queue.clear();
    w.now = w.now + Span::from_mins(300);
    w.put(Input::Timer);
    assert_ne!(w.outcomes.get(&switch(1)).map(String::as_str), Some("passed"), "{}", w.transcript());
    assert!(w.ran.is_empty());
}
