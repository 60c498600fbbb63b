//! Soaks that end without a rollback.

use super::*;

#[test]
fn a_good_release_passes_and_says_so_once() {
    let mut w = World::new();
    let _ = w.switch("green", "v2");
    w.run_to_end(1);
    w.tells(
        "
        0.00 Reply accepted checkout-1
        121.52 End checkout-1 passed
        121.52 Notify passed
    ",
    );
}

#[test]
fn blind_is_told_once_within_two_minutes_and_ends_unjudged() {
    let mut w = World::new();
    let _ = w.switch("green", "v2");
    w.prom = Prom::Down;
    w.run_to_end(1);
    w.tells(
        "
        0.00 Reply accepted checkout-1
        20.00 Notify blind
        185.00 End checkout-1 unjudged (readings are missing (unreachable: connection refused))
        185.00 Notify unjudged
    ",
    );
}

#[test]
fn absent_series_are_blindness_as_well() {
    let mut w = World::new();
    let _ = w.switch("green", "v2");
    w.prom = Prom::Absent;
    w.run_to_end(1);
    w.tells(
        "
        0.00 Reply accepted checkout-1
        20.00 Notify blind
        185.00 End checkout-1 unjudged (readings are missing (no series of the new slot))
        185.00 Notify unjudged
    ",
    );
}

#[test]
fn sight_comes_back_and_the_counts_of_the_gap_are_judged() {
    let mut w = World::with(|s| s.policy.soak = Span::from_secs(600));
    let _ = w.switch("green", "v2");
    w.run_for(Span::from_secs(60));
    w.prom = Prom::Down;
    w.run_for(Span::from_secs(40));
    w.prom = Prom::Up;
    w.run_to_end(1);
    w.tells(
        "
        0.00 Reply accepted checkout-1
        80.00 Notify blind
        101.52 Notify sees_again
        601.52 End checkout-1 passed
        601.52 Notify passed
    ",
    );
}

#[test]
fn what_was_not_seen_is_soaked_longer() {
    let mut w = World::new();
    let _ = w.switch("green", "v2");
    w.run_for(Span::from_secs(60));
    w.prom = Prom::Down;
    w.run_for(Span::from_secs(50));
    w.prom = Prom::Up;
    w.run_to_end(1);
    let ended = w.now.since(BEGAN);
    // 120 s were planned; about 45 s of them were not seen, and a tenth may be missing.
    assert!(ended >= Span::from_secs(145) && ended <= Span::from_secs(170), "{ended}\n{}", w.transcript());
    assert_eq!(w.outcomes[&switch(1)], "passed");
}

#[test]
fn at_long_ticks_blindness_is_still_told_within_two_minutes() {
    let mut w = World::with(|s| {
        s.policy.tick = Span::from_secs(60);
        s.policy.soak = Span::from_secs(1800);
    });
    let _ = w.switch("green", "v2");
    w.prom = Prom::Down;
    w.run_for(Span::from_secs(119));
    assert_eq!(w.notices, ["blind"]);
}

#[test]
fn thin_traffic_passes_by_health_checks_only() {
    let mut w = World::new();
    w.rps = 0.2;
    let _ = w.switch("green", "v2");
    w.run_to_end(1);
    w.tells(
        "
        0.00 Reply accepted checkout-1
        121.52 End checkout-1 passed (by health checks only)
        121.52 Notify passed
    ",
    );
}

#[test]
fn thin_traffic_without_health_checks_is_unjudged() {
    let mut w = World::with(|s| {
        s.slots = Slots::Named([("blue", ()), ("green", ())].map(|(n, ())| (slot(n), SlotSpec::default())).into());
        s.unverified = true;
    });
    w.rps = 0.2;
    let _ = w.switch("green", "v2");
    w.run_to_end(1);
    w.tells(
        "
        0.00 Reply accepted checkout-1
        181.52 End checkout-1 unjudged (36 requests are too few: 500 are needed to have shown a ratio of 10)
        181.52 Notify unjudged
    ",
    );
}

#[test]
fn traffic_that_never_moves_is_unconfirmed() {
    let mut w = World::new();
    let _ = w.announce(announcement("blue", "green", "v2"));
    w.run_to_end(1);
    w.tells(
        "
        0.00 Reply accepted checkout-1
        60.00 End checkout-1 unconfirmed (the probe still shows \"blue\" after 1m, not green)
        60.00 Notify unconfirmed
    ",
    );
}

#[test]
fn without_a_probe_the_old_slot_that_keeps_the_traffic_is_unconfirmed() {
    let mut w = World::with(|s| s.plan.steps[0].probe = None);
    let _ = w.announce(announcement("blue", "green", "v2"));
    w.run_to_end(1);
    w.tells(
        "
        0.00 Reply accepted checkout-1
        60.00 End checkout-1 unconfirmed (blue still has the traffic after 1m)
        60.00 Notify unconfirmed
    ",
    );
}

#[test]
fn without_a_probe_the_share_of_traffic_confirms() {
    let mut w = World::with(|s| s.plan.steps[0].probe = None);
    let _ = w.switch("green", "v2");
    w.run_for(Span::from_secs(15));
    let view = w.engine.watches[&switch(1)].view();
    let confirmed = view.timeline.iter().find(|e| e.kind == "cut_over").unwrap();
    assert!(confirmed.text.contains("100 % of the requests go to green"), "{}", confirmed.text);
    assert!(confirmed.at.since(BEGAN) >= Span::from_secs(2), "seen a tick and the settling time later: {confirmed:?}");
    assert!(view.cut_over_at.unwrap().since(BEGAN) <= Span::from_secs(1), "but then it moved: {:?}", view.cut_over_at);
}

#[test]
fn a_stated_cut_over_is_the_cut_over() {
    let mut w = World::new();
    let mut a = announcement("blue", "green", "v2");
    a.switched_at = Some(BEGAN - Span::from_secs(40));
    w.routed = "green";
    let _ = w.announce(a);
    w.run_to_end(1);
    let ended = w.now.since(BEGAN);
    assert_eq!(w.outcomes[&switch(1)], "passed");
    // 40 s of it were over; what came before the first tick is one reading, so a little is added.
    assert!(ended < Span::from_secs(95), "{ended}");
}

#[test]
fn a_soak_without_a_baseline_says_so_and_judges_absolute_limits() {
    let mut w = World::new();
    w.baseline = Err("nothing was recorded".into());
    w.errors.insert("green", 0.04);
    let _ = w.switch("green", "v2");
    w.run_for(Span::from_secs(100));
    assert_eq!(
        (w.notices.as_slice(), w.ran.len()),
        (["little_baseline"].as_slice(), 0),
        "4 % is below the absolute limit"
    );
    w.errors.insert("green", 0.06);
    assert_eq!(w.run_to_end(1), "rolled_back_recovered");
}

#[test]
fn lost_traffic_is_a_page_and_no_rollback() {
    let mut w = World::with(|s| s.policy.soak = Span::from_secs(600));
    let _ = w.switch("green", "v2");
    w.run_for(Span::from_secs(60));
    w.rps = 0.0;
    w.run_for(Span::from_secs(120));
    assert_eq!((w.notices.as_slice(), w.ran.len()), (["traffic_lost"].as_slice(), 0));
}

#[test]
fn a_scrape_interval_above_the_tick_raises_the_tick() {
    let mut w = World::with(|s| s.policy.tick = Span::from_secs(1));
    w.scrape_every = Span::from_secs(15);
    let _ = w.switch("green", "v2");
    w.run_for(Span::from_secs(5));
    let view = w.engine.watches[&switch(1)].view();
    assert_eq!(view.tick, Span::from_secs(15));
    assert!(view.timeline.iter().any(|e| e.text == "tick raised from 1s to the scrape interval of 15s"), "{view:?}");
    w.scrape_every = Span::from_secs(2);
    w.run_for(Span::from_secs(20));
    assert_eq!(w.engine.watches[&switch(1)].view().tick, Span::from_secs(2), "and down again, not below the scrapes");
}
