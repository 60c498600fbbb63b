//! Breaches, and everything between a breach and its outcome.

use super::*;

fn bad_release(w: &mut World) -> String {
    w.errors.insert("green", 0.10);
    let _ = w.switch("green", "v2");
    w.run_to_end(1)
}

#[test]
fn errors_are_rolled_back_and_proven() {
    let mut w = World::new();
    bad_release(&mut w);
    w.tells(
        "
        0.00 Reply accepted checkout-1
        16.52 Notify breached_acting
        16.54 RunStep checkout-1.s0.a1 /bin/switch blue
        31.52 End checkout-1 rolled_back_recovered
        31.52 Notify rolled_back_recovered
    ",
    );
}

#[test]
fn twice_the_p99_is_rolled_back_after_the_warm_up() {
    let mut w = World::new();
    w.slowness.insert("green", 2.0);
    let _ = w.switch("green", "v2");
    w.run_to_end(1);
    w.tells(
        "
        0.00 Reply accepted checkout-1
        76.52 Notify breached_acting
        76.54 RunStep checkout-1.s0.a1 /bin/switch blue
        91.52 End checkout-1 rolled_back_recovered
        91.52 Notify rolled_back_recovered
    ",
    );
}

#[test]
fn a_dead_slot_breaches_though_no_counter_moves() {
    let mut w = World::new();
    let _ = w.switch("green", "v2");
    w.run_for(Span::from_secs(40));
    w.sick.insert("green");
    w.run_to_end(1);
    w.tells(
        "
        0.00 Reply accepted checkout-1
        51.52 Notify breached_acting
        51.54 RunStep checkout-1.s0.a1 /bin/switch blue
        66.52 End checkout-1 rolled_back_recovered
        66.52 Notify rolled_back_recovered
    ",
    );
}

#[test]
fn a_dead_slot_is_found_while_prometheus_is_away() {
    let mut w = World::new();
    let _ = w.switch("green", "v2");
    w.run_for(Span::from_secs(40));
    w.prom = Prom::Down;
    w.sick.insert("green");
    w.run_for(Span::from_secs(20));
    assert_eq!(w.routed, "blue", "{}", w.transcript());
    // Nobody can say whether users are served: that is its own word.
    assert_eq!(w.run_to_end(1), "rolled_back_unseen");
}

#[test]
fn no_flip_onto_a_dead_old_slot() {
    let mut w = World::new();
    w.sick.insert("blue");
    bad_release(&mut w);
    w.tells(
        "
        0.00 Reply accepted checkout-1
        16.52 End checkout-1 withheld (no safe target: blue does not answer either: connection refused)
        16.52 Notify withheld
    ",
    );
}

#[test]
fn both_slots_dead_is_withheld() {
    let mut w = World::new();
    let _ = w.switch("green", "v2");
    w.sick.insert("blue");
    w.sick.insert("green");
    w.run_to_end(1);
    w.tells(
        "
        0.00 Reply accepted checkout-1
        10.01 End checkout-1 withheld (no safe target: blue does not answer either: connection refused)
        10.01 Notify withheld
    ",
    );
}

#[test]
fn what_withholds_says_why() {
    for (change, said) in [
        (
            Box::new(|w: &mut World| {
                let _ = w.arm(None, false);
            }) as Box<dyn Fn(&mut World)>,
            "withheld (flipback is disarmed)",
        ),
        (
            Box::new(|w: &mut World| {
                let _ = w.arm(Some("checkout"), false);
            }),
            "withheld (flipback is disarmed)",
        ),
        (
            Box::new(|w: &mut World| {
                w.baseline.as_mut().unwrap().quality =
                    Quality::Incident { why: "the hour before had 30 % errors".into() };
            }),
            "withheld (the old release was already bad: the hour before had 30 % errors)",
        ),
    ] {
        let mut w = World::new();
        change(&mut w);
        assert_eq!(bad_release(&mut w), "withheld");
        assert!(w.transcript().contains(said), "{}", w.transcript());
        assert_eq!((w.ran.len(), w.routed, w.notices.last().copied()), (0, "green", Some("withheld")));
    }
}

#[test]
fn observe_mode_and_no_plan_and_unsafe_only_tell() {
    let mut observe = World::with(|s| s.policy.mode = Mode::Observe);
    let mut no_plan = World::with(|s| s.plan.steps.clear());
    for (w, said) in [(&mut observe, "it would have been rolled back"), (&mut no_plan, "no rollback steps")] {
        assert_eq!(bad_release(w), "withheld");
        assert!(w.transcript().contains(said) && w.ran.is_empty(), "{}", w.transcript());
    }
    let mut w = World::new();
    w.errors.insert("green", 0.1);
    w.routed = "green";
    let mut a = announcement("blue", "green", "v2");
    a.rollback = RollbackSafety::Unsafe;
    let _ = w.announce(a);
    assert_eq!(w.run_to_end(1), "withheld");
    assert!(w.transcript().contains("unsafe to roll back") && w.ran.is_empty(), "{}", w.transcript());
}

#[test]
fn ask_mode_asks_and_waits() {
    let ask = || World::with(|s| s.policy.mode = Mode::Ask);
    let mut w = ask();
    w.errors.insert("green", 0.1);
    let _ = w.switch("green", "v2");
    w.run_for(Span::from_secs(60));
    assert_eq!((w.ran.len(), w.notices.as_slice()), (0, ["approval_wanted"].as_slice()));
    let _ = w.answer(1, true);
    w.run_to_end(1);
    w.tells(
        "
        0.00 Reply accepted checkout-1
        16.52 Notify approval_wanted
        60.00 Notify breached_acting
        60.00 Reply done: checkout-1: approved, rolling back
        60.02 RunStep checkout-1.s0.a1 /bin/switch blue
        76.52 End checkout-1 rolled_back_recovered
        76.52 Notify rolled_back_recovered
    ",
    );

    let mut w = ask();
    w.errors.insert("green", 0.1);
    let _ = w.switch("green", "v2");
    w.run_for(Span::from_secs(60));
    let _ = w.answer(1, false);
    assert_eq!((w.run_to_end(1).as_str(), w.ran.len()), ("withheld", 0));
    assert!(w.transcript().contains("declined by kim"));

    let mut w = ask();
    bad_release(&mut w);
    assert!(w.transcript().contains("withheld (nobody approved it in time)") && w.ran.is_empty());
    assert_eq!(w.notices, ["approval_wanted", "withheld"]);
}

#[test]
fn silence_means_what_was_stated() {
    let ask = || {
        World::with(|s| {
            s.policy.mode = Mode::Ask;
            s.policy.ask_default = crate::domain::policy::AskDefault::RollBack;
        })
    };
    let mut w = ask();
    bad_release(&mut w);
    assert_eq!(w.notices, ["approval_wanted", "breached_acting", "rolled_back_recovered"], "{}", w.transcript());
    assert!(w.transcript().contains("616.5") && w.ran.len() == 1, "after ten minutes: {}", w.transcript());
    // Nobody approved it: the brakes hold as they do in auto mode.
    let mut w = ask();
    bad_release(&mut w);
    let _ = w.switch("green", "v3");
    w.run_to_end(2);
    assert_eq!(w.notices.last().copied(), Some("withheld"), "{}", w.transcript());
    // And whoever disarms while the question stands has answered it.
    let mut w = ask();
    w.errors.insert("green", 0.10);
    let _ = w.switch("green", "v2");
    w.run_for(Span::from_secs(60));
    let _ = w.arm(None, false);
    w.run_to_end(1);
    assert_eq!((w.notices.last().copied(), w.ran.len()), (Some("withheld"), 0), "{}", w.transcript());
}

#[test]
fn a_failed_attempt_is_tried_again_after_the_probe_showed_that_it_was_not_applied() {
    let mut w = World::new();
    w.steps = [Does::Fails].into();
    bad_release(&mut w);
    w.tells(
        "
        0.00 Reply accepted checkout-1
        16.52 Notify breached_acting
        16.54 RunStep checkout-1.s0.a1 /bin/switch blue
        19.96 RunStep checkout-1.s0.a2 /bin/switch blue
        36.52 End checkout-1 rolled_back_recovered
        36.52 Notify rolled_back_recovered
    ",
    );
}

#[test]
fn three_failures_are_a_failed_rollback() {
    for does in [Does::Fails, Does::Lies, Does::NeverStarts, Does::Vanishes(false)] {
        let mut w = World::new();
        w.steps = [does; 3].into();
        assert_eq!(bad_release(&mut w), "rollback_failed", "{does:?}");
        assert_eq!((w.ran.len(), w.notices.last().copied()), (3, Some("rollback_failed")), "{does:?}");
    }
}

#[test]
fn an_attempt_that_failed_but_moved_the_traffic_is_not_tried_again() {
    for does in [Does::MovesAndFails, Does::Vanishes(true)] {
        let mut w = World::new();
        w.steps = [does].into();
        assert_eq!(bad_release(&mut w), "rolled_back_recovered", "{does:?}");
        assert_eq!(w.ran.len(), 1, "{does:?}");
    }
}

#[test]
fn ambiguous_without_a_probe_is_stuck() {
    let mut w = World::with(|s| {
        s.plan.steps[0].probe = None;
        s.unverified = true;
    });
    w.steps = [Does::Vanishes(true)].into();
    assert_eq!(bad_release(&mut w), "rollback_failed");
    assert_eq!((w.ran.len(), w.notices.last().copied()), (1, Some("stuck")));

    // Nor is a failure without a probe tried twice.
    let mut w = World::with(|s| s.plan.steps[0].probe = None);
    w.steps = [Does::Fails].into();
    assert_eq!((bad_release(&mut w).as_str(), w.ran.len()), ("rollback_failed", 1));
}

#[test]
fn ambiguous_and_not_retry_safe_is_stuck() {
    let mut w = World::with(|s| s.plan.steps[0].retry_safe = false);
    w.steps = [Does::Vanishes(false)].into();
    assert_eq!(bad_release(&mut w), "rollback_failed");
    assert_eq!((w.ran.len(), w.notices.last().copied()), (1, Some("stuck")));
}

#[test]
fn a_preflight_that_cannot_be_read_is_a_refusal_and_a_page() {
    let mut w = World::new();
    w.errors.insert("green", 0.10);
    let _ = w.switch("green", "v2");
    w.run_for(Span::from_secs(5));
    w.probe_lies = Some(ProbeReading::Unreadable("exit code 1".into()));
    w.run_to_end(1);
    w.tells(
        "
        0.00 Reply accepted checkout-1
        16.52 Notify breached_acting
        17.55 End checkout-1 withheld (preflight refused: the probe cannot be read: exit code 1)
        17.55 Notify withheld
    ",
    );
}

#[test]
fn traffic_that_somebody_moved_elsewhere_is_not_moved_again() {
    let mut w = World::new();
    w.errors.insert("green", 0.10);
    let _ = w.switch("green", "v2");
    w.run_for(Span::from_secs(5));
    w.probe_lies = Some(ProbeReading::Shows("red".into()));
    assert_eq!(w.run_to_end(1), "withheld");
    assert!(w.transcript().contains("somebody else moved the traffic") && w.ran.is_empty(), "{}", w.transcript());
}

#[test]
fn steps_run_in_order_and_a_failed_one_stops_the_plan() {
    // The second step's probe sees the world after the first: its own words tell the slots apart.
    let two = |s: &mut Service| {
        s.plan.steps = vec![step("cache"), step("haproxy")];
        s.plan.steps[0].probe = None;
        s.unverified = true;
    };
    let mut w = World::with(two);
    w.steps = [Does::Lies, Does::Works].into();
    bad_release(&mut w);
    w.tells(
        "
        0.00 Reply accepted checkout-1
        16.52 Notify breached_acting
        16.53 RunStep checkout-1.s0.a1 /bin/switch blue
        16.95 RunStep checkout-1.s1.a1 /bin/switch blue
        31.52 End checkout-1 rolled_back_recovered
        31.52 Notify rolled_back_recovered
    ",
    );
    let mut w = World::with(two);
    w.steps = [Does::Fails].into();
    assert_eq!((bad_release(&mut w).as_str(), w.ran.len(), w.routed), ("rollback_failed", 1, "green"));
}

#[test]
fn disarmed_between_attempts_stops_the_next_one() {
    let mut w = World::new();
    w.steps = [Does::Fails].into();
    w.errors.insert("green", 0.10);
    let _ = w.switch("green", "v2");
    while w.ran.is_empty() {
        assert!(w.step_once(BEGAN + Span::from_secs(60)));
    }
    let _ = w.arm(None, false);
    assert_eq!((w.run_to_end(1).as_str(), w.ran.len()), ("rollback_failed", 1));
    assert!(w.transcript().contains("disarmed between attempts"), "{}", w.transcript());
}

#[test]
fn moved_back_but_still_bad_is_not_recovered() {
    let mut w = World::new();
    w.errors.insert("blue", 0.10);
    bad_release(&mut w);
    w.tells(
        "
        0.00 Reply accepted checkout-1
        16.52 Notify breached_acting
        16.54 RunStep checkout-1.s0.a1 /bin/switch blue
        197.97 End checkout-1 rolled_back_not_recovered
        197.97 Notify rolled_back_not_recovered
    ",
    );
}

/// Cold caches: users have no errors any more, and "still bad" would send people after the wrong thing.
#[test]
fn a_slot_that_is_slow_after_its_rest_has_recovered_from_errors() {
    let mut w = World::new();
    w.slowness.insert("blue", 3.0);
    bad_release(&mut w);
    assert_eq!(w.notices.last().copied(), Some("rolled_back_recovered"), "{}", w.transcript());
    // What the rollback was for must be below its limit again.
    let mut w = World::new();
    w.slowness.extend([("blue", 3.0), ("green", 3.0)]);
    let _ = w.switch("green", "v2");
    assert_eq!(w.run_to_end(1), "rolled_back_not_recovered", "{}", w.transcript());
}

/// Three good ticks of 15 s do not fit into 30 s: that is no sign of a sick slot.
#[test]
fn a_recovery_has_time_for_its_ticks_however_little_was_configured() {
    let mut w = World::with(|s| {
        s.policy.tick = Span::from_secs(15);
        s.policy.recover_within = Span::from_secs(30);
    });
    w.errors.insert("green", 0.5);
    let _ = w.switch("green", "v2");
    assert_eq!(w.run_to_end(1), "rolled_back_recovered", "{}", w.transcript());
}

#[test]
fn moved_back_without_traffic_is_unseen() {
    let mut w = World::new();
    let _ = w.switch("green", "v2");
    w.run_for(Span::from_secs(40));
    w.sick.insert("green");
    w.rps = 0.0;
    assert_eq!(w.run_to_end(1), "rolled_back_unseen");
    assert_eq!(w.notices.last().copied(), Some("rolled_back_unseen"));
}

#[test]
fn a_breach_before_the_cut_over_is_seen_acts_when_the_probe_says_new() {
    let mut w = World::new();
    w.rps = 0.0;
    w.sick.insert("green");
    w.probe_lies = Some(ProbeReading::Unreadable("exit code 1".into()));
    let _ = w.switch("green", "v2");
    w.run_for(Span::from_secs(40));
    assert_eq!(w.ran.len(), 0, "nobody knows where the traffic is\n{}", w.transcript());
    w.probe_lies = None;
    w.run_for(Span::from_secs(10));
    assert_eq!((w.ran.len(), w.routed), (1, "blue"), "{}", w.transcript());
}
