//! Drills: dry ones find what has rotted, real ones go there and back, and neither is in a switch's way.

use super::*;
use crate::domain::drill::Found;
use crate::engine::message::Job;

fn lived() -> World {
    let mut w = World::new();
    let _ = w.switch("green", "v2");
    assert_eq!(w.run_to_end(1), "passed");
    w
}

fn found(found: Found, text: &str) -> Tried {
    Tried { what: "step haproxy".into(), took: Span::from_millis(12), found, text: text.into() }
}

fn outcome(w: &World, n: u32) -> Option<&String> {
    w.outcomes.get(&switch(n))
}

#[test]
fn a_dry_drill_moves_nothing_and_is_recorded() {
    let mut w = lived();
    w.tried = vec![found(Found::Good, "the socket takes orders")];
    assert!(matches!(w.drill(false), Answer::Accepted { .. }));
    w.run_for(Span::from_secs(2));
    assert_eq!(outcome(&w, 2).unwrap(), "drilled");
    assert_eq!((w.ran.len(), w.notices.last().copied()), (0, Some("drilled")));
    let told = &w.told.last().unwrap().watch;
    assert!(
        told.timeline.iter().any(|e| e.text == "step haproxy: the socket takes orders (12ms)"),
        "{:?}",
        told.timeline
    );
    // The traffic's memory knows nothing of it.
    assert_eq!(w.engine.live_slot(&w.service.name).unwrap().as_str(), "green");
    assert!(matches!(w.order(2), Answer::NotFound { .. }));
}

#[test]
fn a_way_back_that_has_rotted_is_paged_by_the_schedule() {
    let mut w = lived();
    w.tried = vec![found(Found::Good, "fine")];
    let before = w.notices.len();
    w.put(Input::Cron { job: Job::Drill });
    w.run_for(Span::from_secs(2));
    assert_eq!(
        (outcome(&w, 2).unwrap().as_str(), w.notices.len()),
        ("drilled", before),
        "a good one is in the history"
    );
    w.tried = vec![found(Found::Broken, "permission denied"), found(Found::Warning, "slow")];
    w.put(Input::Cron { job: Job::Drill });
    w.run_for(Span::from_secs(2));
    assert_eq!((outcome(&w, 3).unwrap().as_str(), w.notices.last().copied()), ("drill_failed", Some("drill_failed")));
}

#[test]
fn a_real_drill_goes_there_and_back() {
    let mut w = lived();
    let began = w.now;
    assert!(matches!(w.drill(true), Answer::Accepted { .. }));
    w.run_for(Span::from_secs(20));
    assert_eq!((outcome(&w, 2).unwrap().as_str(), w.routed), ("drilled", "green"), "{}", w.transcript());
    let text = w.transcript();
    assert!(text.contains("RunStep checkout-2.s0.a1 /bin/switch blue"), "{text}");
    assert!(text.contains("RunStep checkout-2.s64.a1 /bin/switch green"), "{text}");
    assert!(w.now.since(began) <= Span::from_secs(20));
    // It neither counts for a brake nor is it a switch.
    w.errors.insert("blue", 0.10);
    assert!(matches!(w.switch("blue", "v3"), Answer::Accepted { .. }));
    assert_eq!(w.run_to_end(3), "rolled_back_recovered");
}

#[test]
fn a_drill_goes_to_no_dead_slot() {
    let mut w = lived();
    w.sick.insert("blue");
    let _ = w.drill(true);
    w.run_for(Span::from_secs(5));
    assert_eq!((outcome(&w, 2).unwrap().as_str(), w.ran.len(), w.routed), ("drill_failed", 0, "green"));
}

#[test]
fn a_drill_that_does_not_come_home_says_so() {
    let mut w = lived();
    w.steps = [Does::Works, Does::Fails, Does::Fails, Does::Fails].into();
    let _ = w.drill(true);
    w.run_for(Span::from_secs(60));
    assert_eq!((outcome(&w, 2).unwrap().as_str(), w.routed), ("drill_failed", "blue"), "{}", w.transcript());
    assert!(w.transcript().contains("did not come home to green"), "{}", w.transcript());
    assert_eq!(w.engine.live_slot(&w.service.name), None, "nobody knows where it is now");
}

/// A step behind the one that moved the traffic fails: the traffic comes home, and the drill has failed.
#[test]
fn a_drill_that_fails_half_way_comes_home_first() {
    let jobs = |on_failure| Step {
        action: Action::Exec(Exec::new(["/bin/jobs", "$old"])),
        probe: None,
        retry_safe: false,
        on_failure,
        ..step("jobs")
    };
    for on_failure in [OnFailure::Stop, OnFailure::Next] {
        let mut w = World::with(|s| s.plan.steps = vec![step("haproxy"), jobs(on_failure)]);
        let _ = w.switch("green", "v2");
        assert_eq!(w.run_to_end(1), "passed");
        w.steps = [Does::Works, Does::Fails].into();
        let _ = w.drill(true);
        w.run_for(Span::from_secs(60));
        assert_eq!((outcome(&w, 2).unwrap().as_str(), w.routed), ("drill_failed", "green"), "{}", w.transcript());
        assert!(w.transcript().contains("step jobs: exit code 1"), "{}", w.transcript());
    }
}

#[test]
fn a_crash_in_a_real_drill_brings_the_traffic_home() {
    let mut w = lived();
    let _ = w.drill(true);
    w.run_for(Span::from_millis(1200));
    assert_eq!(w.routed, "blue", "{}", w.transcript());
    w.restart();
    w.run_for(Span::from_secs(60));
    assert_eq!((outcome(&w, 2).unwrap().as_str(), w.routed), ("drilled", "green"), "{}", w.transcript());
}

#[test]
fn a_switch_goes_before_a_dry_drill_and_is_refused_in_a_real_one() {
    let mut w = lived();
    let _ = w.drill(false);
    assert!(matches!(w.switch("red", "v3"), Answer::Accepted { .. }));
    assert_eq!(outcome(&w, 2).unwrap(), "cancelled");
    assert!(matches!(w.drill(true), Answer::Conflict { .. }), "a watch is open");
    assert_eq!(w.run_to_end(3), "passed");
    let _ = w.drill(true);
    w.run_for(Span::from_millis(300));
    // The deploy tool's own hook tells of what the drill does.
    let told = w.announce(announcement("red", "green", "v2"));
    assert!(matches!(told, Answer::OwnHand { .. }), "{told:?}");
    let other = w.announce(announcement("red", "blue", "v4"));
    assert!(matches!(&other, Answer::Conflict { text } if text.contains("drill")), "{other:?}");
    w.run_for(Span::from_secs(30));
    assert_eq!(w.routed, "red");
}

#[test]
fn a_detector_that_sees_a_drill_opens_no_watch() {
    let mut w = lived();
    let _ = w.drill(true);
    w.run_for(Span::from_secs(1));
    let service = w.service.name.clone();
    let sees = |name: &str| crate::domain::switch::Sighting {
        shares: [(slot(name), crate::domain::switch::Percent::ALL)].into(),
        version: None,
    };
    for name in ["blue", "green"] {
        w.put(Input::Sighted { service: service.clone(), by: "haproxy".into(), seen: sees(name) });
    }
    w.run_for(Span::from_secs(30));
    // One that looks rarely tells of it when the traffic is home again.
    for name in ["blue", "green"] {
        w.put(Input::Sighted { service: service.clone(), by: "file".into(), seen: sees(name) });
    }
    assert_eq!(w.engine.open_watches(), 0, "{}", w.transcript());
}

#[test]
fn why_there_can_be_no_drill() {
    let mut fresh = World::new();
    let refused = |w: &mut World, why: &str| {
        let answer = w.drill(true);
        assert!(matches!(&answer, Answer::Conflict { text } if text.contains(why)), "{answer:?}");
    };
    refused(&mut fresh, "not known yet");
    let mut w = lived();
    let _ = w.arm(None, false);
    refused(&mut w, "disarmed");
    let mut none = World::with(|s| s.plan.steps.clear());
    refused(&mut none, "nothing to practise");
    let mut twice = lived();
    let _ = twice.drill(true);
    refused(&mut twice, "under way already");
}

#[test]
fn disarm_stops_a_real_drill_where_it_is() {
    let mut w = lived();
    let _ = w.drill(true);
    w.run_for(Span::from_millis(500));
    let _ = w.arm(None, false);
    w.run_for(Span::from_secs(30));
    assert_eq!(outcome(&w, 2).unwrap(), "drill_failed");
    assert!(w.ran.len() == 1 && w.transcript().contains("disarmed"), "{}", w.transcript());
}
