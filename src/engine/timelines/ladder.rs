//! The ladder: remedies first, rungs that fail or wait, and what follows a passed soak.

use super::*;

fn laddered(steps: Vec<Step>) -> World {
    World::with(|s| s.plan.steps = steps)
}

fn bad(w: &mut World) -> String {
    w.errors.insert("green", 0.10);
    let _ = w.switch("green", "v2");
    w.run_to_end(1)
}

fn kinds(w: &World) -> Vec<(String, String)> {
    let view = &w.told.last().unwrap().watch;
    view.timeline.iter().map(|e| (e.kind.clone(), e.text.clone())).collect()
}

fn said(w: &World, kind: &str) -> String {
    kinds(w).into_iter().find(|(k, _)| k == kind).unwrap_or_else(|| panic!("no {kind}: {:#?}", kinds(w))).1
}

#[test]
fn the_flag_heals_it_and_the_traffic_stays() {
    let mut w = laddered(vec![remedy(60), step("haproxy")]);
    w.cured_by_flag = Some("green");
    assert_eq!(bad(&mut w), "healed");
    w.tells(
        "
        0.00 Reply accepted checkout-1
        16.52 Notify breached_acting
        16.53 RunStep checkout-1.s0.a1 /bin/set-flag off
        31.52 End checkout-1 healed (by flag off; the traffic stays)
        31.52 Notify healed
    ",
    );
    assert_eq!((w.routed, w.flag), ("green", false));
    let told = &w.told.last().unwrap().watch;
    assert_eq!(told.steps.len(), 1);
    // What was left out left nothing to look after.
    w.run_for(Span::from_secs(60));
    assert_eq!(w.notices.last().copied(), Some("healed"), "{}", w.transcript());
    // The way back is still there for a person.
    assert!(matches!(w.order(1), Answer::Done { .. }), "{:?}", w.answers.last());
    w.run_for(Span::from_secs(60));
    assert_eq!(w.routed, "blue");
    assert!(w.transcript().contains("RunStep checkout-2.s1.a1 /bin/switch blue"), "{}", w.transcript());
}

#[test]
fn the_flag_does_not_help_and_the_traffic_moves() {
    let mut w = laddered(vec![remedy(30), step("haproxy")]);
    assert_eq!(bad(&mut w), "rolled_back_recovered");
    w.tells(
        "
        0.00 Reply accepted checkout-1
        16.52 Notify breached_acting
        16.53 RunStep checkout-1.s0.a1 /bin/set-flag off
        47.98 RunStep checkout-1.s1.a1 /bin/switch blue
        61.52 End checkout-1 rolled_back_recovered
        61.52 Notify rolled_back_recovered
    ",
    );
    assert!(said(&w, "not_healed").contains("flag off did not help"));
}

#[test]
fn a_flag_that_is_off_already_is_no_cure() {
    let mut w = laddered(vec![remedy(60), step("haproxy")]);
    w.flag = false;
    assert_eq!(bad(&mut w), "rolled_back_recovered");
    assert!(said(&w, "step_left_out").contains("\"off\" already"));
    assert_eq!(w.ran.len(), 1);
}

#[test]
fn a_flag_that_cannot_be_turned_does_not_keep_the_traffic() {
    let mut w = laddered(vec![remedy(60), step("haproxy")]);
    w.steps = [Does::Fails, Does::Fails, Does::Fails, Does::Works].into();
    assert_eq!(bad(&mut w), "rolled_back_recovered");
    assert!(said(&w, "rung_failed").contains("failed 3 times"));
    assert_eq!(w.routed, "blue");
}

#[test]
fn a_rungs_own_limit_is_shorter_than_its_three_attempts() {
    let mut w = laddered(vec![Step { limit: Some(Span::from_secs(3)), ..remedy(60) }, step("haproxy")]);
    w.steps = [Does::Fails, Does::Works].into();
    assert_eq!(bad(&mut w), "rolled_back_recovered");
    assert!(said(&w, "rung_failed").contains("within its time limit"), "{}", said(&w, "rung_failed"));
}

#[test]
fn what_does_not_answer_is_not_healed_by_a_flag() {
    let mut w = laddered(vec![remedy(60), step("haproxy")]);
    let _ = w.switch("green", "v2");
    w.run_for(Span::from_secs(40));
    w.sick.insert("green");
    assert_eq!(w.run_to_end(1), "rolled_back_recovered");
    assert!(said(&w, "step_left_out").contains("does not answer"));
    assert!(w.flag, "nobody touched it");
}

#[test]
fn a_step_waits_for_the_drain_before_the_next() {
    let mut w = laddered(vec![
        Step { wait: Span::from_secs(20), ..step("haproxy") },
        Step { action: Action::Exec(Exec::new(["/bin/jobs", "$old"])), probe: None, ..step("jobs") },
    ]);
    assert_eq!(bad(&mut w), "rolled_back_recovered");
    w.tells(
        "
        0.00 Reply accepted checkout-1
        16.52 Notify breached_acting
        16.54 RunStep checkout-1.s0.a1 /bin/switch blue
        37.98 RunStep checkout-1.s1.a1 /bin/jobs blue
        51.52 End checkout-1 rolled_back_recovered
        51.52 Notify rolled_back_recovered
    ",
    );
}

#[test]
fn the_spare_way_is_taken_only_when_the_first_failed() {
    let spare = || Step { when: When::AfterFailure, ..step("dns") };
    let first = || Step { on_failure: OnFailure::Next, ..step("haproxy") };
    let mut well = laddered(vec![first(), spare()]);
    assert_eq!(bad(&mut well), "rolled_back_recovered");
    assert_eq!(well.ran.len(), 1);
    assert!(said(&well, "step_left_out").contains("nothing failed before it"));
    let mut ill = laddered(vec![first(), spare()]);
    ill.steps = [Does::Fails, Does::Fails, Does::Fails, Does::Works].into();
    assert_eq!(bad(&mut ill), "rolled_back_recovered");
    assert_eq!((ill.ran.len(), ill.routed), (4, "blue"));
    let mut dead = laddered(vec![first(), spare()]);
    dead.steps = [Does::Fails; 6].into();
    assert_eq!(bad(&mut dead), "rollback_failed");
}

#[test]
fn remedies_alone_that_do_not_help_are_a_failure() {
    let mut w = laddered(vec![remedy(30)]);
    assert_eq!(bad(&mut w), "rollback_failed");
    assert!(w.transcript().contains("none moved the traffic"), "{}", w.transcript());
}

#[test]
fn no_safe_target_after_the_flag_leaves_the_traffic() {
    let mut w = laddered(vec![remedy(30), step("haproxy")]);
    w.errors.insert("green", 0.10);
    let _ = w.switch("green", "v2");
    w.run_for(Span::from_secs(25));
    w.sick.insert("blue");
    assert_eq!(w.run_to_end(1), "withheld");
    assert!(w.transcript().contains("no safe target"), "{}", w.transcript());
    assert_eq!(w.routed, "green");
}

#[test]
fn an_order_during_the_healing_moves_the_traffic_at_once() {
    let mut w = laddered(vec![remedy(600), step("haproxy")]);
    w.errors.insert("green", 0.10);
    let _ = w.switch("green", "v2");
    w.run_for(Span::from_secs(25));
    assert!(matches!(w.order(1), Answer::Done { .. }), "{:?}", w.answers.last());
    w.run_for(Span::from_secs(3));
    assert_eq!(w.routed, "blue", "{}", w.transcript());
}

#[test]
fn a_slot_that_dies_during_the_healing_is_not_waited_for() {
    let mut w = laddered(vec![remedy(600), step("haproxy")]);
    w.errors.insert("green", 0.10);
    let _ = w.switch("green", "v2");
    w.run_for(Span::from_secs(25));
    w.sick.insert("green");
    w.run_for(Span::from_secs(20));
    assert_eq!(w.routed, "blue", "{}", w.transcript());
}

#[test]
fn a_crash_in_the_middle_of_the_healing_goes_on_with_it() {
    let mut w = laddered(vec![remedy(60), step("haproxy")]);
    w.cured_by_flag = Some("green");
    w.errors.insert("green", 0.10);
    let _ = w.switch("green", "v2");
    w.run_for(Span::from_secs(20));
    w.restart();
    assert_eq!(w.run_to_end(1), "healed");
    assert_eq!(w.ran.len(), 1);
}

#[test]
fn what_was_turned_off_is_looked_after() {
    let mut w = laddered(vec![remedy(60), step("haproxy")]);
    w.cured_by_flag = Some("green");
    assert_eq!(bad(&mut w), "healed");
    w.run_for(Span::from_secs(20));
    w.flag = true;
    w.run_for(Span::from_secs(30));
    assert_eq!(w.notices.last().copied(), Some("drift"), "{}", w.transcript());
}

/// The shim of the flag's attempt died, and the flag is not off: no traffic hangs on it.
#[test]
fn a_remedy_that_left_no_result_does_not_keep_the_traffic() {
    let mut w = laddered(vec![Step { probe: None, retry_safe: false, ..remedy(30) }, step("haproxy")]);
    w.steps = [Does::Vanishes(false), Does::Works].into();
    w.errors.insert("green", 0.10);
    let _ = w.switch("green", "v2");
    while w.ran.is_empty() {
        assert!(w.step_once(BEGAN + Span::from_secs(60)));
    }
    w.restart();
    assert_eq!(w.run_to_end(1), "rolled_back_recovered");
    assert_eq!((w.ran.len(), w.routed), (2, "blue"), "{}", w.transcript());
}

#[test]
fn traffic_that_somebody_else_moved_is_not_claimed() {
    let mut w = laddered(vec![remedy(30), step("haproxy")]);
    w.errors.insert("green", 0.10);
    let _ = w.switch("green", "v2");
    w.run_for(Span::from_secs(25));
    // In the middle of the healing, by hand, and without a word.
    w.probe_lies = Some(ProbeReading::Shows("blue".into()));
    assert_eq!(w.run_to_end(1), "withheld");
    assert!(w.transcript().contains("somebody else moved the traffic"), "{}", w.transcript());
}

#[test]
fn what_is_left_undone_after_the_traffic_is_back_is_told_with_it() {
    let jobs = || Step {
        action: Action::Exec(Exec::new(["/bin/jobs", "$old"])),
        probe: None,
        retry_safe: false,
        ..step("jobs")
    };
    let mut w = laddered(vec![step("haproxy"), Step { on_failure: OnFailure::Next, ..jobs() }]);
    w.steps = [Does::Works, Does::Fails].into();
    assert_eq!(bad(&mut w), "rolled_back_recovered");
    assert!(said(&w, "rung_failed").contains("jobs"));
    // Without that word it is a failure.
    let mut w = laddered(vec![step("haproxy"), jobs()]);
    w.steps = [Does::Works, Does::Fails].into();
    assert_eq!(bad(&mut w), "rollback_failed");
}

// ---------------------------------------------------------------------- after a passed soak

fn tear_down() -> Step {
    Step {
        action: Action::Exec(Exec::new(["/bin/tear-down", "$old"])),
        probe: None,
        retry_safe: false,
        ..step("tear down")
    }
}

#[test]
fn the_old_slot_is_torn_down_when_the_soak_is_over_and_not_before() {
    let mut w = World::with(|s| s.after_passed.steps = vec![tear_down()]);
    let _ = w.switch("green", "v2");
    w.run_for(Span::from_secs(115));
    assert_eq!(w.ran.len(), 0);
    assert_eq!(w.run_to_end(1), "passed");
    w.tells(
        "
        0.00 Reply accepted checkout-1
        121.52 RunStep checkout-1.s128.a1 /bin/tear-down blue
        121.92 End checkout-1 passed
        121.92 Notify passed
    ",
    );
}

#[test]
fn what_follows_a_bad_soak_is_nothing() {
    let mut w = World::with(|s| s.after_passed.steps = vec![tear_down()]);
    assert_eq!(bad(&mut w), "rolled_back_recovered");
    assert!(!w.transcript().contains("tear-down"), "{}", w.transcript());
}

#[test]
fn a_passed_release_stays_passed_when_its_last_step_fails() {
    let mut w = World::with(|s| s.after_passed.steps = vec![tear_down()]);
    w.steps = [Does::Fails].into();
    let _ = w.switch("green", "v2");
    assert_eq!(w.run_to_end(1), "passed");
    assert_eq!(w.notices, ["after_passed_failed", "passed"]);
}

#[test]
fn nothing_follows_while_disarmed() {
    let mut w = World::with(|s| s.after_passed.steps = vec![tear_down()]);
    let _ = w.arm(None, false);
    let _ = w.switch("green", "v2");
    assert_eq!(w.run_to_end(1), "passed");
    assert_eq!((w.ran.len(), w.notices.first().copied()), (0, Some("after_passed_failed")));
}

#[test]
fn a_switch_that_comes_while_the_last_steps_run_is_told_to_come_back() {
    let slow = Step { wait: Span::from_secs(30), ..tear_down() };
    let mut w = World::with(|s| s.after_passed.steps = vec![slow]);
    let _ = w.switch("green", "v2");
    w.run_for(Span::from_secs(130));
    let answer = w.switch("red", "v3");
    assert!(matches!(&answer, Answer::Conflict { text } if text.contains("its last steps run")), "{answer:?}");
    assert_eq!(w.run_to_end(1), "passed");
    let again = w.announce(announcement("green", "red", "v3"));
    assert!(matches!(again, Answer::Accepted { .. }), "{again:?}");
}

#[test]
fn whoever_only_looks_on_takes_nothing_down() {
    let mut w = World::with(|s| {
        s.after_passed.steps = vec![tear_down()];
        s.policy.mode = Mode::Observe;
    });
    let _ = w.switch("green", "v2");
    assert_eq!(w.run_to_end(1), "passed");
    assert_eq!(w.ran.len(), 0);
}

#[test]
fn what_could_not_be_done_after_a_passed_soak_is_told_though_the_rest_was() {
    let first = Step { on_failure: OnFailure::Next, ..tear_down() };
    let mut w = World::with(|s| s.after_passed.steps = vec![Step { name: "annotation".into(), ..first }, tear_down()]);
    w.steps = [Does::Fails, Does::Works].into();
    let _ = w.switch("green", "v2");
    assert_eq!(w.run_to_end(1), "passed");
    assert_eq!((w.ran.len(), w.notices.clone()), (2, vec!["after_passed_failed", "passed"]));
}
