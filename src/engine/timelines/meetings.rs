//! Announcements that meet something: repeats, another switch, somebody's rollback, our own hand.

use super::*;

#[test]
fn a_repeat_is_the_same_switch() {
    let mut w = World::new();
    let first = w.switch("green", "v2");
    assert_eq!(first, Answer::Accepted { switch: switch(1) });
    assert_eq!(w.announce(announcement("blue", "green", "v2")), Answer::Known { switch: switch(1) });
    w.run_for(Span::from_mins(4));
    // The watch has passed meanwhile; within five minutes it is still the same switch.
    assert_eq!(w.outcomes[&switch(1)], "passed");
    assert_eq!(w.announce(announcement("blue", "green", "v2")), Answer::Known { switch: switch(1) });
    assert_eq!(w.engine.open_watches(), 0);
}

#[test]
fn an_event_id_is_good_for_one_switch_for_ever() {
    let mut w = World::new();
    w.routed = "green";
    let a = with_event(announcement("blue", "green", "v2"), "deploy-1");
    let _ = w.announce(a.clone());
    w.run_for(Span::from_mins(30));
    assert_eq!(w.announce(a), Answer::Known { switch: switch(1) });
    let other = with_event(announcement("green", "blue", "v3"), "deploy-1");
    assert!(matches!(w.announce(other), Answer::Conflict { .. }), "{:?}", w.answers.last());
}

#[test]
fn what_cannot_be_is_refused_by_name() {
    let mut w = World::new();
    let mut unknown = announcement("blue", "green", "v2");
    unknown.service = ServiceName::try_new("chekout").unwrap();
    let _ = w.announce(unknown);
    let _ = w.announce(announcement("blue", "grene", "v2"));
    let mut in_place = announcement("blue", "blue", "v2");
    in_place.version = None;
    let _ = w.announce(in_place);
    w.tells(
        "0.00 Reply not found: there is no service chekout in the configuration; known: checkout
         0.00 Reply refused new: checkout has no slot grene; its slots are blue, green, red
         0.00 Reply refused version: old and new are the same slot: an in-place release needs a new version",
    );
}

#[test]
fn a_wrong_old_slot_is_a_conflict_that_names_the_live_one() {
    let mut w = World::new();
    let _ = w.switch("green", "v2");
    assert!(matches!(w.announce(announcement("red", "blue", "v3")), Answer::Conflict { .. }));
    w.run_to_end(1);
    let Answer::Conflict { text } = w.announce(announcement("blue", "red", "v3")) else { panic!() };
    assert!(text.contains("checkout is on green") && text.contains("assume_old"), "{text}");
    let mut sure = announcement("blue", "red", "v3");
    sure.assume_old = true;
    assert_eq!(w.announce(sure), Answer::Accepted { switch: switch(2) });
}

#[test]
fn somebody_elses_rollback_ends_the_watch() {
    let mut w = World::new();
    let _ = w.switch("green", "v2");
    w.run_for(Span::from_secs(20));
    w.routed = "blue";
    let mut back = announcement("green", "blue", "v1");
    back.version = None;
    let _ = w.announce(back);
    w.tells(
        "
        0.00 Reply accepted checkout-1
        20.00 End checkout-1 cancelled (reverted: test announced green → blue)
        20.00 Notify cancelled
        20.00 Reply reverted checkout-1
    ",
    );
    assert_eq!(w.engine.live_slot(&w.service.name).map(Slot::as_str), Some("blue"));
}

#[test]
fn a_named_version_tells_a_way_back_from_a_new_release() {
    let mut w = World::new();
    let mut first = announcement("blue", "green", "v2");
    first.old_version = Some(Version::try_new("v1").unwrap());
    w.routed = "green";
    let _ = w.announce(first);
    assert_eq!(w.announce(announcement("green", "blue", "v1")), Answer::Reverted { switch: switch(1) });
    // Remembered from the announcement that put v3 there, where the event does not say it.
    w.routed = "green";
    let _ = w.announce(announcement("blue", "green", "v3"));
    let _ = w.run_to_end(2);
    w.routed = "blue";
    let _ = w.announce(announcement("green", "blue", "v4"));
    assert_eq!(w.announce(announcement("blue", "green", "v3")), Answer::Reverted { switch: switch(3) });
}

#[test]
fn our_own_hand_opens_no_watch() {
    let mut w = World::new();
    w.errors.insert("green", 0.10);
    let _ = w.switch("green", "v2");
    while w.ran.is_empty() {
        assert!(w.step_once(BEGAN + Span::from_secs(60)));
    }
    let hook = announcement("green", "blue", "v1");
    assert_eq!(w.announce(hook.clone()), Answer::OwnHand { switch: switch(1) }, "while it runs");
    assert_eq!(w.run_to_end(1), "rolled_back_recovered");
    assert_eq!(w.announce(hook.clone()), Answer::OwnHand { switch: switch(1) }, "after it");
    assert_eq!(w.engine.open_watches(), 0);
}

#[test]
fn a_second_try_after_a_rollback_is_a_new_switch() {
    let mut w = World::new();
    w.errors.insert("green", 0.10);
    let _ = w.switch("green", "v2");
    w.run_to_end(1);
    w.errors.clear();
    assert_eq!(w.switch("green", "v2"), Answer::Accepted { switch: switch(2) });
    assert_eq!(w.run_to_end(2), "passed");
}

#[test]
fn nothing_is_announced_into_a_rollback() {
    let mut w = World::new();
    w.errors.insert("green", 0.10);
    let _ = w.switch("green", "v2");
    while w.ran.is_empty() {
        assert!(w.step_once(BEGAN + Span::from_secs(60)));
    }
    assert!(matches!(w.announce(announcement("green", "red", "v3")), Answer::Conflict { .. }));
}

#[test]
fn a_newer_switch_supersedes_and_goes_back_to_the_first() {
    let mut w = World::new();
    let _ = w.switch("green", "v2");
    w.run_for(Span::from_secs(20));
    w.errors.insert("red", 0.10);
    let _ = w.switch("red", "v3");
    let view = w.engine.watches[&switch(2)].view();
    assert_eq!(view.baseline.unwrap(), good_baseline(), "judged by the first one's frozen baseline");
    w.run_to_end(2);
    w.tells(
        "
        0.00 Reply accepted checkout-1
        20.00 End checkout-1 superseded
        20.00 Notify superseded
        20.00 Reply accepted checkout-2
        36.52 Notify breached_acting
        36.54 RunStep checkout-2.s0.a1 /bin/switch blue
        51.52 End checkout-2 rolled_back_recovered
        51.52 Notify rolled_back_recovered
    ",
    );
}

#[test]
fn an_overwritten_target_is_no_target() {
    let mut w = World::new();
    let _ = w.switch("green", "v2");
    w.run_for(Span::from_secs(20));
    w.errors.insert("blue", 0.10);
    // v3 went into blue, over what watch 1 would have gone back to.
    let _ = w.switch("blue", "v3");
    assert_eq!(w.run_to_end(2), "withheld");
    assert!(w.transcript().contains("blue was overwritten by this release"), "{}", w.transcript());
    assert!(w.ran.is_empty());
}

#[test]
fn after_a_pass_the_rollback_goes_to_the_accepted_release() {
    let mut w = World::new();
    let _ = w.switch("green", "v2");
    w.run_to_end(1);
    w.errors.insert("red", 0.10);
    let _ = w.switch("red", "v3");
    assert_eq!(w.run_to_end(2), "rolled_back_recovered");
    assert_eq!(w.routed, "green");
}

#[test]
fn a_cancelled_watch_moves_nothing() {
    let mut w = World::new();
    let _ = w.switch("green", "v2");
    w.run_for(Span::from_secs(20));
    let _ = w.cancel(1);
    let _ = w.cancel(1);
    w.tells(
        "
        0.00 Reply accepted checkout-1
        20.00 End checkout-1 cancelled (by kim: enough)
        20.00 Notify cancelled
        20.00 Reply done: checkout-1 cancelled; no traffic was moved
        20.00 Reply not found: checkout-1 has ended: cancelled (by kim: enough)
    ",
    );
}

#[test]
fn arming_is_remembered_and_said() {
    let mut w = World::new();
    let _ = w.arm(None, false);
    let _ = w.arm(Some("checkout"), false);
    let _ = w.arm(Some("checkout"), true);
    assert!(!w.engine.is_armed(&w.service.name), "the whole is still disarmed");
    let _ = w.arm(Some("chekout"), true);
    let _ = w.arm(None, true);
    assert!(w.engine.is_armed(&w.service.name));
    w.tells(
        "
        0.00 Reply done: flipback disarmed by kim
        0.00 Reply done: checkout disarmed by kim
        0.00 Reply done: checkout armed by kim; flipback as a whole is still disarmed (flipback arm --all)
        0.00 Reply not found: there is no service chekout in the configuration; known: checkout
        0.00 Reply done: flipback armed by kim
    ",
    );
}

#[test]
fn an_open_watch_keeps_its_policy_over_a_reload() {
    let mut w = World::new();
    w.errors.insert("green", 0.10);
    let _ = w.switch("green", "v2");
    let mut changed = w.service.clone();
    changed.policy.mode = Mode::Observe;
    changed.plan.steps.clear();
    w.put(Input::Configured { services: vec![changed], brakes: Brakes::default() });
    assert_eq!(w.run_to_end(1), "rolled_back_recovered");
    // Even one that takes the service out of the configuration.
    let mut w = World::new();
    w.errors.insert("green", 0.10);
    let _ = w.switch("green", "v2");
    w.put(Input::Configured { services: Vec::new(), brakes: Brakes::default() });
    assert_eq!(w.run_to_end(1), "rolled_back_recovered");
}
