//! Switches that nobody announced, that come in steps, that are flags, or about which more is said later.

use super::*;
use crate::domain::notice::NoticeReason;
use crate::domain::switch::{About, Alert, FlagName, Kind, Percent, Sighting};

fn share(percent: f64) -> Option<Percent> {
    Some(Percent::try_new(percent).unwrap())
}

/// The world's traffic goes to green in part, and it is announced.
fn ramp(w: &mut World, percent: f64) -> Answer {
    w.routed = "green";
    w.part = (percent < 100.0).then_some(percent / 100.0);
    w.announce(Announcement { share_percent: share(percent), ..announcement("blue", "green", "v2") })
}

fn sees(w: &mut World, shares: &[(&str, f64)]) {
    let shares = shares.iter().map(|(name, percent)| (slot(name), share(*percent).unwrap())).collect();
    let service = w.service.name.clone();
    w.put(Input::Sighted { service, by: "haproxy".into(), seen: Sighting { shares, version: None } });
}

fn sees_version(w: &mut World, version: &str) {
    let seen = Sighting { shares: BTreeMap::new(), version: Some(Version::try_new(version).unwrap()) };
    let service = w.service.name.clone();
    w.put(Input::Sighted { service, by: "label".into(), seen });
}

fn kinds(w: &World, n: u32) -> Vec<String> {
    w.engine.watches[&switch(n)].view().timeline.into_iter().map(|e| e.kind).collect()
}

#[test]
fn each_step_of_a_ramp_extends_one_watch() {
    let mut w = World::new();
    assert_eq!(ramp(&mut w, 5.0), Answer::Accepted { switch: switch(1) });
    w.run_for(Span::from_secs(60));
    assert_eq!(ramp(&mut w, 25.0), Answer::Stepped { switch: switch(1) });
    w.run_for(Span::from_secs(100));
    assert_eq!(ramp(&mut w, 100.0), Answer::Stepped { switch: switch(1) });
    // Two minutes from the last step, not from the first.
    w.run_for(Span::from_secs(110));
    assert_eq!(w.engine.open_watches(), 1);
    assert_eq!(w.run_to_end(1), "passed");
    assert!(w.now.since(BEGAN) >= Span::from_secs(60 + 100 + 120), "{}", w.transcript());
    assert_eq!(w.engine.live_slot(&w.service.name).map(Slot::as_str), Some("green"));
    assert_eq!(w.ran, []);
}

#[test]
fn a_breach_rolls_the_whole_ramp_back() {
    let mut w = World::new();
    w.errors.insert("green", 0.2);
    let _ = ramp(&mut w, 10.0);
    assert_eq!(w.run_to_end(1), "rolled_back_recovered");
    assert_eq!((w.ran.len(), w.routed, w.part), (1, "blue", None));
    // What still comes of the ramp is the deploy tool's echo; the next step is a new switch.
    let preflight = w.told.iter().find(|n| n.reason == NoticeReason::RolledBackRecovered).unwrap();
    let how = preflight.watch.timeline.iter().find(|e| e.kind == "preflight").unwrap();
    assert!(how.text.contains("requests go to green"), "{}", how.text);
}

#[test]
fn a_ramp_is_confirmed_by_half_of_what_was_announced() {
    let mut w = World::new();
    let _ = ramp(&mut w, 10.0);
    w.run_for(Span::from_secs(10));
    assert!(kinds(&w, 1).contains(&"cut_over".to_owned()), "{}", w.transcript());
    // ... and a ramp of which nothing arrives is not.
    let mut w = World::new();
    let _ = w.announce(Announcement { share_percent: share(10.0), ..announcement("blue", "green", "v2") });
    assert_eq!(w.run_to_end(1), "unconfirmed");
}

#[test]
fn a_ramp_that_stops_half_way_leaves_the_old_slot_live() {
    let mut w = World::new();
    let _ = ramp(&mut w, 25.0);
    assert_eq!(w.run_to_end(1), "passed");
    assert_eq!(w.engine.live_slot(&w.service.name).map(Slot::as_str), Some("blue"));
    assert_eq!(ramp(&mut w, 100.0), Answer::Accepted { switch: switch(2) });
    assert_eq!(w.run_to_end(2), "passed");
    assert_eq!(w.engine.live_slot(&w.service.name).map(Slot::as_str), Some("green"));
}

#[test]
fn a_repeated_step_is_the_same_step() {
    let mut w = World::new();
    let _ = ramp(&mut w, 5.0);
    w.run_for(Span::from_secs(30));
    let a = Announcement { share_percent: share(25.0), ..with_event(announcement("blue", "green", "v2"), "s2") };
    (w.routed, w.part) = ("green", Some(0.25));
    assert_eq!(w.announce(a.clone()), Answer::Stepped { switch: switch(1) });
    let ends = w.engine.watches[&switch(1)].view().soak_ends_at;
    w.run_for(Span::from_secs(20));
    assert_eq!(w.announce(a.clone()), Answer::Stepped { switch: switch(1) });
    assert_eq!(w.engine.watches[&switch(1)].view().soak_ends_at, ends, "a repeat extends nothing");
    // Nor with an id of its own, or much later.
    let third = with_event(Announcement { share_percent: share(25.0), ..announcement("blue", "green", "v2") }, "s3");
    assert_eq!(w.announce(third), Answer::Known { switch: switch(1) });
    assert_eq!(w.engine.watches[&switch(1)].view().soak_ends_at, ends);
    let other = Announcement { share_percent: share(50.0), ..a };
    assert!(matches!(w.announce(other), Answer::Conflict { .. }), "the same id with another body");
}

#[test]
fn a_switch_that_nobody_announced_is_one_watch() {
    let mut w = World::new();
    sees(&mut w, &[("blue", 100.0)]);
    assert_eq!(w.engine.open_watches(), 0, "the first look is no switch");
    w.run_for(Span::from_secs(30));
    w.routed = "green";
    sees(&mut w, &[("green", 100.0)]);
    sees(&mut w, &[("green", 100.0)]);
    assert_eq!(w.engine.open_watches(), 1);
    w.run_for(Span::from_mins(1));
    // The pipeline tells afterwards: the same switch, with a version and a reason not to go back.
    let late = Announcement {
        rollback: RollbackSafety::Unsafe,
        about: About { owner: Some("team pay".into()), ..About::default() },
        ..with_event(announcement("blue", "green", "v2"), "e1")
    };
    assert_eq!(w.announce(late.clone()), Answer::Known { switch: switch(1) });
    let view = w.engine.watches[&switch(1)].view();
    assert_eq!((view.switch.version, view.switch.rollback), (late.version.clone(), RollbackSafety::Unsafe));
    assert_eq!(view.switch.about.owner.as_deref(), Some("team pay"));
    assert_eq!(w.run_to_end(1), "passed");
    assert_eq!(w.announce(late), Answer::Known { switch: switch(1) });
}

#[test]
fn an_announced_switch_that_is_seen_is_confirmed_and_stays_one() {
    let mut w = World::new();
    sees(&mut w, &[("blue", 100.0)]);
    w.probe_lies = Some(ProbeReading::Unreadable("no socket".into()));
    w.prom = Prom::Down;
    let _ = w.switch("green", "v2");
    w.run_for(Span::from_secs(1));
    sees(&mut w, &[("green", 100.0)]);
    assert!(kinds(&w, 1).contains(&"cut_over".to_owned()));
    assert_eq!((w.engine.open_watches(), w.answers.len()), (1, 1));
}

#[test]
fn our_own_hand_is_no_switch_to_a_detector() {
    let mut w = World::new();
    sees(&mut w, &[("blue", 100.0)]);
    w.errors.insert("green", 0.2);
    w.routed = "green";
    sees(&mut w, &[("green", 100.0)]);
    while w.ran.is_empty() {
        assert!(w.step_once(BEGAN + Span::from_mins(10)));
    }
    w.run_for(Span::from_secs(1));
    sees(&mut w, &[("blue", 100.0)]);
    assert_eq!(w.run_to_end(1), "rolled_back_recovered");
    sees(&mut w, &[("blue", 100.0)]);
    w.run_for(Span::from_mins(20));
    assert_eq!((w.engine.open_watches(), w.outcomes.len()), (0, 1));
    // Somebody brings the bad release back without a word: that is a switch, and watched.
    w.routed = "green";
    sees(&mut w, &[("green", 100.0)]);
    assert_eq!(w.engine.open_watches(), 1);
}

#[test]
fn somebody_goes_back_without_a_word() {
    let mut w = World::new();
    sees(&mut w, &[("blue", 100.0)]);
    let _ = w.switch("green", "v2");
    w.run_for(Span::from_secs(20));
    sees(&mut w, &[("green", 100.0)]);
    w.routed = "blue";
    sees(&mut w, &[("blue", 100.0)]);
    assert_eq!(w.outcomes[&switch(1)], "cancelled");
    assert_eq!(w.engine.live_slot(&w.service.name).map(Slot::as_str), Some("blue"));
    // And a third slot supersedes.
    let _ = w.switch("green", "v3");
    w.run_for(Span::from_secs(20));
    w.routed = "red";
    sees(&mut w, &[("red", 100.0)]);
    assert_eq!(w.outcomes[&switch(2)], "superseded");
    assert_eq!(w.engine.open_watches(), 1);
}

#[test]
fn a_detector_that_lags_undoes_nothing() {
    let mut w = World::new();
    sees(&mut w, &[("blue", 100.0)]);
    let _ = w.switch("green", "v2");
    w.run_for(Span::from_secs(20));
    // A restart: it tells what it sees anew, and has not seen the switch yet.
    w.restart();
    sees(&mut w, &[("blue", 100.0)]);
    assert_eq!((w.engine.open_watches(), w.outcomes.len()), (1, 0), "{}", w.transcript());
    assert_eq!(w.run_to_end(1), "passed");
    w.restart();
    sees(&mut w, &[("blue", 100.0)]);
    assert_eq!(w.engine.open_watches(), 0, "nor does it switch back what has passed");
    sees(&mut w, &[("green", 100.0)]);
    assert_eq!(w.engine.open_watches(), 0);
}

#[test]
fn weights_that_move_are_a_ramp() {
    let mut w = World::new();
    sees(&mut w, &[("blue", 100.0)]);
    (w.routed, w.part) = ("green", Some(0.1));
    sees(&mut w, &[("blue", 90.0), ("green", 10.0)]);
    assert_eq!(w.engine.watches[&switch(1)].view().share_percent, share(10.0));
    w.run_for(Span::from_secs(60));
    w.part = Some(0.5);
    sees(&mut w, &[("blue", 50.0), ("green", 50.0)]);
    w.run_for(Span::from_secs(60));
    w.part = None;
    sees(&mut w, &[("green", 100.0)]);
    let ramps = kinds(&w, 1).iter().filter(|k| *k == "ramp").count();
    assert_eq!((ramps, w.engine.open_watches()), (2, 1), "{}", w.transcript());
    assert_eq!(w.run_to_end(1), "passed");
}

#[test]
fn what_was_switched_while_flipback_was_away_is_seen_when_it_is_back() {
    let mut w = World::new();
    sees(&mut w, &[("blue", 100.0)]);
    w.restart();
    w.routed = "green";
    sees(&mut w, &[("green", 100.0)]);
    assert_eq!(w.engine.open_watches(), 1);
}

#[test]
fn what_is_seen_while_the_disk_is_full_is_watched_when_there_is_room() {
    let mut w = World::new();
    sees(&mut w, &[("blue", 100.0)]);
    w.put(Input::Space { low: true });
    w.routed = "green";
    sees(&mut w, &[("green", 100.0)]);
    assert_eq!(w.engine.open_watches(), 0);
    w.put(Input::Space { low: false });
    assert_eq!(w.engine.open_watches(), 1);
}

#[test]
fn the_first_look_may_come_after_the_switch() {
    let mut w = World::new();
    w.routed = "green";
    sees(&mut w, &[("green", 100.0)]);
    // The pipeline switched a moment before flipback came up, and tells now.
    assert_eq!(w.announce(announcement("blue", "green", "v2")), Answer::Accepted { switch: switch(1) });
}

#[test]
fn a_failed_rollback_leaves_the_detectors_word() {
    let mut w = World::new();
    sees(&mut w, &[("blue", 100.0)]);
    w.errors.insert("green", 0.2);
    w.routed = "green";
    sees(&mut w, &[("green", 100.0)]);
    w.steps = [Does::Fails, Does::Fails, Does::Fails].into();
    assert_eq!(w.run_to_end(1), "rollback_failed");
    assert_eq!(w.engine.live_slot(&w.service.name).map(Slot::as_str), Some("green"));
}

#[test]
fn a_version_that_changes_in_place_is_a_switch() {
    let mut w = World::new();
    sees(&mut w, &[("blue", 100.0)]);
    sees_version(&mut w, "v1");
    w.run_for(Span::from_secs(10));
    assert_eq!(w.engine.open_watches(), 0);
    sees_version(&mut w, "v2");
    let view = w.engine.watches[&switch(1)].view();
    assert_eq!((view.switch.old.as_str(), view.switch.new.as_str()), ("blue", "blue"));
    assert_eq!(view.switch.old_version, Version::try_new("v1").ok());
    assert_eq!(w.run_to_end(1), "passed");
    // And a bad one is paged: there is no other slot to go back to.
    w.errors.insert("blue", 0.2);
    sees_version(&mut w, "v3");
    assert_eq!(w.run_to_end(2), "withheld");
    assert_eq!(w.ran, []);
}

fn with_flag() -> World {
    World::with(|service| {
        let mut kill = step("flag");
        kill.lock = "flags".into();
        service.flags = [(FlagName::try_new("new-flow").unwrap(), Plan { steps: vec![kill] })].into();
    })
}

fn flip() -> Announcement {
    let kind = Kind::Flag(FlagName::try_new("new-flow").unwrap());
    Announcement { kind, version: None, ..announcement("off", "on", "v1") }
}

#[test]
fn a_flag_has_its_own_kill_switch() {
    let mut w = with_flag();
    sees(&mut w, &[("blue", 100.0)]);
    let before = w.now;
    // The probe of this world shows the flag; the requests stay on blue.
    w.probe_lies = Some(ProbeReading::Shows("on".into()));
    assert_eq!(w.announce(flip()), Answer::Accepted { switch: switch(1) });
    w.errors.insert("blue", 0.2);
    while w.ran.is_empty() {
        assert!(w.step_once(before + Span::from_mins(10)), "{}", w.transcript());
    }
    w.probe_lies = Some(ProbeReading::Shows("off".into()));
    (w.routed, w.errors) = ("blue", BTreeMap::new());
    assert_eq!(w.run_to_end(1), "rolled_back_recovered");
    assert!(w.transcript().contains("RunStep checkout-1.s0.a1 /bin/switch off"), "{}", w.transcript());
    assert_eq!(w.engine.live_slot(&w.service.name).map(Slot::as_str), Some("blue"), "the traffic never moved");
    let mut unknown = flip();
    unknown.kind = Kind::Flag(FlagName::try_new("old-flow").unwrap());
    let Answer::Refused { field, text } = w.announce(unknown) else { panic!() };
    assert!(field == "flag" && text.contains("known: new-flow"), "{text}");
}

#[test]
fn a_flag_and_a_switch_are_watched_side_by_side() {
    let mut w = with_flag();
    let _ = w.switch("green", "v2");
    w.run_for(Span::from_secs(10));
    assert_eq!(w.announce(flip()), Answer::Accepted { switch: switch(2) });
    assert_eq!(w.engine.open_watches(), 2);
    assert_eq!(w.run_to_end(1), "passed");
}

#[test]
fn an_old_slot_that_ends_before_the_soak_is_told_at_once() {
    let mut w = World::new();
    let soon = Announcement { old_until: Some(BEGAN + Span::from_secs(60)), ..announcement("blue", "green", "v2") };
    w.routed = "green";
    let _ = w.announce(soon);
    assert_eq!(w.notices, ["old_ends_early"]);
    let mut w = World::new();
    let late = Announcement { old_until: Some(BEGAN + Span::from_mins(10)), ..announcement("blue", "green", "v2") };
    w.routed = "green";
    let _ = w.announce(late);
    assert_eq!(w.run_to_end(1), "passed");
    assert_eq!(w.notices, ["passed"]);
}

/// Both break: the second one to act is held by the loop breaker, not let loose on the same trouble.
#[test]
fn a_flag_and_a_switch_do_not_both_act() {
    let mut w = with_flag();
    let _ = w.switch("green", "v2");
    w.run_for(Span::from_secs(10));
    let _ = w.announce(flip());
    w.run_for(Span::from_secs(1));
    w.errors.insert("green", 0.3);
    w.run_for(Span::from_mins(30));
    let ends: Vec<&str> = w.outcomes.values().map(String::as_str).collect();
    let moved: std::collections::BTreeSet<_> = w.ran.iter().map(|attempt| &attempt.switch).collect();
    assert!(moved.len() <= 1, "{ends:?} {}", w.transcript());
}

/// However the words and the looks of one switch follow each other, it is one watch, with all that was said.
#[test]
fn words_and_looks_of_one_switch_are_one_watch() {
    #[derive(Clone, Copy, Debug)]
    enum What {
        Sight,
        Announce,
        Repeat,
        Bare,
        Restart,
    }
    use What::*;
    let all = [Sight, Announce, Repeat, Bare, Restart];
    for code in 0..3125_u32 {
        let order: Vec<What> = (0..5).map(|n| all[(code / 5_u32.pow(n) % 5) as usize]).collect();
        let mut w = World::new();
        sees(&mut w, &[("blue", 100.0)]);
        w.routed = "green";
        let mut version = false;
        for (n, what) in order.iter().enumerate() {
            match what {
                Sight => sees(&mut w, &[("green", 100.0)]),
                Announce => drop(w.announce(announcement("blue", "green", "v2"))),
                Repeat => drop(w.announce(with_event(announcement("blue", "green", "v2"), "e1"))),
                Bare => drop(w.announce(Announcement { version: None, ..announcement("blue", "green", "v2") })),
                Restart => w.restart(),
            }
            // A word without a version and one with it are told apart, unless a detector saw the switch.
            version |= matches!(what, Announce | Repeat);
            let bare_first = order[..=n].iter().any(|w| matches!(w, Bare)) && version;
            let told = order[..=n].iter().any(|w| !matches!(w, Restart));
            if !bare_first {
                assert_eq!(
                    (w.engine.open_watches(), w.outcomes.len()),
                    (usize::from(told), 0),
                    "{order:?}\n{}",
                    w.transcript()
                );
            }
            w.run_for(Span::from_secs(7));
        }
        assert!(w.engine.open_watches() <= 1, "{order:?}");
        if version && w.outcomes.is_empty() && !order.iter().any(|w| matches!(w, Bare)) {
            let view = w.engine.watches.values().next().unwrap().view();
            assert_eq!(view.switch.version, Version::try_new("v2").ok(), "{order:?}");
        }
    }
}

fn accuse(w: &mut World, began_at: Timestamp, acts: bool) {
    let alert = Alert { name: "CheckoutErrors".into(), summary: Some("too many".into()), began_at };
    let (request, service) = (w.request(), w.service.name.clone());
    w.put(Input::Accused { request, service, by: "alertmanager".into(), alerts: vec![alert], acts });
}

#[test]
fn an_alert_that_may_act_is_a_breach_and_one_that_may_not_is_noted() {
    let mut w = World::new();
    let _ = w.switch("green", "v2");
    w.run_for(Span::from_secs(40));
    let now = w.now;
    accuse(&mut w, now, false);
    accuse(&mut w, BEGAN - Span::from_secs(60), true);
    assert_eq!(kinds(&w, 1).iter().filter(|k| *k == "alert").count(), 2);
    assert_eq!(w.notices, Vec::<&str>::new(), "one is noted, one fired before the switch");
    accuse(&mut w, now + Span::from_secs(1), true);
    assert_eq!(w.run_to_end(1), "rolled_back_recovered");
    let first = &w.told[0];
    assert!(
        first.watch.breach.as_ref().unwrap().evidence.iter().any(|e| e.signal.to_string().contains("CheckoutErrors"))
    );
    accuse(&mut w, now, true);
    assert!(matches!(w.answers.last(), Some(Answer::Done { text }) if text.contains("no watch")));
}

#[test]
fn series_without_slots_are_no_control_of_themselves() {
    let mut w = World::with(|service| {
        // A control needs less evidence than a breach: by this rule it would take the blame.
        service.policy.rule = RuleKind::Evidence;
        service.metrics.requests = "requests".into();
        service.metrics.errors = Some("errors".into());
        service.metrics.latency = None;
    });
    w.errors.insert("green", 0.2);
    let _ = w.switch("green", "v2");
    assert_eq!(w.run_to_end(1), "rolled_back_recovered", "{}", w.transcript());
}
