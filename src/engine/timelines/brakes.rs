//! Brakes, orders by hand, and what is looked after once it was rolled back.

use super::*;

/// A bad release of the version on green, played to its end.
fn bad(w: &mut World, n: u32, version: &str) -> String {
    w.errors.insert("green", 0.10);
    let _ = w.switch("green", version);
    w.run_to_end(n)
}

#[test]
fn a_second_rollback_within_half_an_hour_is_withheld_and_a_person_can_order_it() {
    let mut w = World::new();
    assert_eq!(bad(&mut w, 1, "v2"), "rolled_back_recovered");
    w.run_for(Span::from_mins(15));
    assert_eq!(bad(&mut w, 2, "v3"), "withheld");
    assert!(w.transcript().contains("the loop breaker is open: checkout was rolled back"), "{}", w.transcript());
    assert_eq!((w.ran.len(), w.routed, w.notices.last().copied()), (1, "green", Some("withheld")));
    let Answer::Done { text } = w.order(2) else { panic!("{:?}", w.answers.last()) };
    assert_eq!(text, "checkout-3: rolling back checkout to blue, over checkout-2");
    assert_eq!(w.run_to_end(3), "rolled_back_recovered");
    assert_eq!((w.ran.len(), w.routed), (2, "blue"));
    assert!(w.notices.contains(&"ordered_acting"));
}

#[test]
fn the_book_outlives_the_process() {
    let mut w = World::new();
    bad(&mut w, 1, "v2");
    w.run_for(Span::from_mins(15));
    w.restart();
    assert_eq!(bad(&mut w, 2, "v3"), "withheld");
}

#[test]
fn half_an_hour_later_it_acts_again() {
    let mut w = World::new();
    bad(&mut w, 1, "v2");
    w.run_for(Span::from_mins(31));
    assert_eq!(bad(&mut w, 2, "v3"), "rolled_back_recovered");
}

#[test]
fn a_version_that_was_rolled_back_twice_is_in_quarantine_from_its_announcement_on() {
    let mut w = World::new();
    for n in 1..=2 {
        assert_eq!(bad(&mut w, n, "v2"), "rolled_back_recovered");
        w.run_for(Span::from_mins(40));
    }
    assert!(!w.notices.contains(&"quarantined"));
    assert_eq!(bad(&mut w, 3, "v2"), "withheld");
    assert!(w.notices.contains(&"quarantined"));
    assert!(w.transcript().contains("v2 is in quarantine: rolled back at "), "{}", w.transcript());
}

#[test]
fn what_a_person_approves_is_neither_held_back_nor_counted() {
    let mut w = World::with(|s| s.policy.mode = Mode::Ask);
    for n in 1..=3 {
        w.errors.insert("green", 0.10);
        let _ = w.switch("green", "v2");
        w.run_for(Span::from_secs(60));
        let _ = w.answer(n, true);
        assert_eq!(w.run_to_end(n), "rolled_back_recovered");
        w.run_for(Span::from_mins(11));
    }
}

#[test]
fn an_open_watch_can_be_ordered_back() {
    let mut w = World::new();
    let _ = w.switch("green", "v2");
    w.run_for(Span::from_secs(30));
    assert_eq!(w.order(1), Answer::Done { text: "checkout-1: rolling back to blue".into() });
    assert!(matches!(w.order(1), Answer::Conflict { .. }), "twice is once");
    assert_eq!((w.run_to_end(1).as_str(), w.ran.len(), w.routed), ("rolled_back_recovered", 1, "blue"));
    assert!(matches!(w.order(1), Answer::Conflict { .. }), "it is back already");
}

#[test]
fn orders_that_make_no_sense_are_refused_with_the_reason() {
    let mut w = World::new();
    assert!(matches!(w.order(1), Answer::NotFound { .. }));
    let _ = w.switch("green", "v2");
    let _ = w.arm(None, false);
    let Answer::Conflict { text } = w.order(1) else { panic!() };
    assert_eq!(text, "checkout is disarmed: flipback arm checkout first");
    let _ = w.arm(None, true);
    assert_eq!(w.run_to_end(1), "passed");
    let _ = w.switch("red", "v3");
    let Answer::Conflict { text } = w.order(1) else { panic!() };
    assert!(text.contains("checkout was switched again since (checkout-2)"), "{text}");
    let mut none = World::with(|s| s.plan.steps.clear());
    let _ = none.switch("green", "v2");
    assert!(matches!(none.order(1), Answer::Conflict { .. }));
}

#[test]
fn a_proxy_that_forgets_the_change_is_noticed_and_paged_once() {
    let mut w = World::new();
    bad(&mut w, 1, "v2");
    w.run_for(Span::from_secs(20));
    assert!(!w.notices.contains(&"drift"));
    w.routed = "green";
    w.run_for(Span::from_secs(60));
    assert_eq!(w.notices.iter().filter(|n| **n == "drift").count(), 1, "{}", w.transcript());
    let drift = w.told.last().unwrap();
    let last = drift.watch.timeline.last().unwrap();
    assert_eq!(last.text, "step haproxy: the probe shows \"green\" now, flipback left \"blue\"");
    // Somebody mends it; it happens again; it is told again.
    w.routed = "blue";
    w.run_for(Span::from_secs(30));
    w.routed = "green";
    w.restart();
    w.run_for(Span::from_secs(30));
    assert_eq!(w.notices.iter().filter(|n| **n == "drift").count(), 2, "{}", w.transcript());
    w.run_for(Span::from_mins(10));
    assert!(w.engine.is_idle(), "it is looked after until the soak would have ended");
    assert_eq!(w.engine.next_deadline(), None);
}

#[test]
fn a_probe_that_can_no_longer_be_read_is_told_after_a_while() {
    let mut w = World::new();
    bad(&mut w, 1, "v2");
    w.probe_lies = Some(ProbeReading::Unreadable("no such file".into()));
    w.run_for(Span::from_secs(40));
    assert!(!w.notices.contains(&"drift"), "{}", w.transcript());
    w.run_for(Span::from_secs(60));
    assert!(w.notices.contains(&"drift"), "{}", w.transcript());
}

#[test]
fn a_newer_switch_ends_the_looking_after() {
    let mut w = World::new();
    bad(&mut w, 1, "v2");
    w.errors.clear();
    let _ = w.switch("green", "v3");
    w.run_for(Span::from_secs(60));
    assert!(!w.notices.contains(&"drift"), "{}", w.transcript());
}

#[test]
fn nothing_new_is_taken_while_the_disk_is_full_and_what_is_open_goes_on() {
    let mut w = World::new();
    w.errors.insert("green", 0.10);
    let _ = w.switch("green", "v2");
    w.put(Input::Space { low: true });
    assert_eq!(w.run_to_end(1), "rolled_back_recovered");
    assert!(matches!(w.switch("green", "v3"), Answer::NoRoom { .. }));
    w.put(Input::Space { low: false });
    assert!(matches!(w.switch("red", "v3"), Answer::Conflict { .. } | Answer::Accepted { .. }));
}

#[test]
fn after_a_long_pause_the_last_look_comes_before_the_end() {
    let mut w = World::new();
    let _ = w.switch("green", "v2");
    w.run_for(Span::from_secs(20));
    // The machine slept through the rest of the soak, and through its extension; green broke meanwhile.
    w.errors.insert("green", 0.5);
    w.now = w.now + Span::from_mins(30);
    assert_eq!(w.run_to_end(1), "rolled_back_recovered", "{}", w.transcript());
}
