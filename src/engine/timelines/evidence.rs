//! The evidence rule in the engine: when it acts, what it says, what it survives.

use super::*;

fn world(change: impl FnOnce(&mut Service)) -> World {
    World::with(|s| {
        s.policy.rule = RuleKind::Evidence;
        s.policy.soak = Span::from_mins(30);
        s.policy.tick = Span::from_secs(15);
        change(s);
    })
}

/// Seconds from the switch until the rollback's command runs.
fn acts_after(w: &mut World) -> Option<f64> {
    let until = w.now + Span::from_mins(40);
    let began = w.now;
    while w.ran.is_empty() && w.outcomes.is_empty() && w.step_once(until) {}
    (!w.ran.is_empty()).then(|| w.now.since(began).as_secs_f64())
}

#[test]
fn a_total_outage_takes_three_ticks_or_eleven_seconds() {
    for (tick_s, at_most) in [(15, 48.0), (5, 18.0), (1, 15.0)] {
        let mut w = world(|s| s.policy.tick = Span::from_secs(tick_s));
        w.errors.insert("green", 1.0);
        let _ = w.switch("green", "v2");
        let took = acts_after(&mut w).unwrap();
        println!("ticks of {tick_s} s: {took} s");
        assert!(took <= at_most, "ticks of {tick_s} s: {took} s\n{}", w.transcript());
    }
}

#[test]
fn ten_times_the_errors_and_twice_the_latency_are_found() {
    let mut w = world(|_| {});
    w.errors.insert("green", 0.01);
    let _ = w.switch("green", "v2");
    let errors = acts_after(&mut w).unwrap();
    let mut w = world(|_| {});
    w.slowness.insert("green", 2.0);
    let _ = w.switch("green", "v2");
    let latency = acts_after(&mut w).unwrap();
    println!("10× errors after {errors} s, 2× latency after {latency} s");
    assert!(errors <= 90.0 && latency <= 180.0, "{errors} {latency}");
}

#[test]
fn what_is_not_above_one_and_a_half_passes() {
    for errors in [0.0005, 0.001, 0.0014] {
        let mut w = world(|_| {});
        w.errors.insert("green", errors);
        let _ = w.switch("green", "v2");
        assert_eq!(w.run_to_end(1), "passed", "{errors}\n{}", w.transcript());
        assert_eq!(w.notices, ["passed"]);
    }
}

#[test]
fn the_first_ticks_are_judged_when_the_baseline_and_the_cut_over_are_known() {
    // The baseline comes late, the probe cannot be read for a while: no count is lost meanwhile.
    let mut w = world(|s| s.policy.tick = Span::from_secs(1));
    w.probe_lies = Some(ProbeReading::Unreadable("exit code 1".into()));
    w.errors.insert("green", 1.0);
    let _ = w.switch("green", "v2");
    w.run_for(Span::from_secs(20));
    let view = w.engine.watches.get(&switch(1)).map(Watch::view);
    // Traffic confirmed it, and the preflight was refused because the probe stays unreadable.
    assert!(view.is_none(), "{view:?}");
    assert_eq!(w.outcomes[&switch(1)], "withheld");
    assert!(w.transcript().contains("preflight refused"), "{}", w.transcript());
}

#[test]
fn evidence_is_in_the_view_and_in_the_notice() {
    let mut w = world(|_| {});
    w.errors.insert("green", 0.02);
    let _ = w.switch("green", "v2");
    assert_eq!(w.run_to_end(1), "rolled_back_recovered");
    let breached = w.told.iter().find(|n| n.reason.word() == "breached_acting").unwrap();
    let view = &breached.watch;
    assert!(view.one_in.unwrap() >= 1000.0, "{:?}", view.one_in);
    let errors = &view.breach.as_ref().unwrap().evidence[0];
    let proof = errors.proof.unwrap();
    let (low, high) = proof.interval.unwrap();
    assert!(low > 1.5 && low < 20.0 && high > 20.0, "{proof:?}");
    assert!(errors.since.is_some() && errors.ticks_above == 3, "{errors:?}");
    assert!(view.detectable.unwrap() < 3.0, "{:?}", view.detectable);
}

#[test]
fn thin_traffic_is_said_when_the_soak_opens() {
    let mut w = world(|_| {});
    if let Ok(baseline) = &mut w.baseline {
        baseline.counts = Counts::try_new(1200.0, 1.0).unwrap();
    }
    w.rps = 0.3;
    let _ = w.switch("green", "v2");
    w.run_for(Span::from_secs(5));
    assert_eq!(w.notices, ["thin"]);
    let view = w.engine.watches[&switch(1)].view();
    assert!(view.detectable.is_none_or(|ratio| ratio > 10.0), "{:?}", view.detectable);
    assert_eq!(w.run_to_end(1), "passed");
    assert!(w.transcript().contains("by health checks only"), "{}", w.transcript());
}

#[test]
fn a_restart_does_not_restart_alpha() {
    let run = |restarts: bool| {
        let mut w = world(|s| s.policy.tick = Span::from_secs(5));
        w.errors.insert("green", 0.003);
        let _ = w.switch("green", "v2");
        for _ in 0..10 {
            w.run_for(Span::from_secs(23));
            if restarts {
                let text = serde_json::to_string(&w.engine).unwrap();
                w.engine = serde_json::from_str(&text).unwrap();
            }
        }
        w.engine.watches.get(&switch(1)).map(|watch| watch.view().one_in.unwrap().to_bits())
    };
    assert_eq!(run(false), run(true), "bit for bit");
}

#[test]
fn a_control_that_shows_the_same_takes_the_blame_from_the_switch() {
    let degraded_alike = |control: f64| {
        let mut w = world(|s| s.policy.tick = Span::from_secs(5));
        w.control = Some(control);
        w.errors.insert("green", 0.05);
        let _ = w.switch("green", "v2");
        (w.run_to_end(1), w)
    };
    let (outcome, w) = degraded_alike(0.05);
    assert_eq!((outcome.as_str(), w.ran.len()), ("withheld", 0), "{}", w.transcript());
    assert!(w.transcript().contains("the switch is not the cause: blue shows the same"), "{}", w.transcript());
    let (outcome, w) = degraded_alike(0.001);
    assert_eq!((outcome.as_str(), w.ran.len()), ("rolled_back_recovered", 1), "{}", w.transcript());
    // A trickle of draining connections that all fail is no control.
    let mut w = world(|s| s.policy.tick = Span::from_secs(5));
    (w.control, w.control_rps) = (Some(1.0), 2.0);
    w.errors.insert("green", 0.05);
    let _ = w.switch("green", "v2");
    assert_eq!(w.run_to_end(1), "rolled_back_recovered", "{}", w.transcript());
    // Ten times its normal is bad there too, but nothing like fifty times.
    let (outcome, w) = degraded_alike(0.01);
    assert_eq!((outcome.as_str(), w.ran.len()), ("rolled_back_recovered", 1), "{}", w.transcript());
}

#[test]
fn a_neighbour_that_shows_the_same_takes_the_blame_from_the_switch() {
    let with_neighbour = |share: f64| {
        let mut w = world(|s| {
            s.policy.tick = Span::from_secs(5);
            s.controls = vec![ServiceName::try_new("search").unwrap()];
        });
        w.neighbour = share;
        w.errors.insert("green", 0.05);
        let _ = w.switch("green", "v2");
        w
    };
    let mut w = with_neighbour(0.05);
    assert_eq!(w.run_to_end(1), "withheld", "{}", w.transcript());
    let why = "the switch is not the cause: search (blue) shows the same: error rate 5.00 % vs 0.10 % recorded";
    assert!(w.ran.is_empty() && w.transcript().contains(why), "{}", w.transcript());
    let mut w = with_neighbour(0.001);
    assert_eq!(w.run_to_end(1), "rolled_back_recovered", "a well neighbour excuses nothing: {}", w.transcript());
    // Over a restart of the daemon as well: what was asked before it is asked again.
    let mut w = with_neighbour(0.05);
    w.run_for(Span::from_millis(1));
    w.restart();
    assert_eq!(w.run_to_end(1), "withheld", "{}", w.transcript());
    // A neighbour that is switched itself says nothing of this switch.
    let mut w = with_neighbour(0.05);
    w.run_for(Span::from_secs(2));
    let mut own = announcement("blue", "green", "v9");
    own.service = ServiceName::try_new("search").unwrap();
    let _ = w.announce(own);
    let view = w.engine.watches[&switch(1)].view();
    let said = |text: &str| view.timeline.iter().any(|e| e.kind == "control" && e.text.contains(text));
    assert!(said("search (blue), by 360000 requests"), "{:?}", view.timeline);
    assert!(said("search is no control any more: it is being switched itself"), "{:?}", view.timeline);
    assert_eq!(w.run_to_end(1), "rolled_back_recovered", "{}", w.transcript());
}

#[test]
fn the_long_phase_goes_on_with_coarser_ticks_and_the_same_alpha() {
    let long = || {
        world(|s| {
            s.policy.long = Span::from_mins(24 * 60);
            s.policy.long_tick = Span::from_secs(60);
        })
    };
    let mut w = long();
    let _ = w.switch("green", "v2");
    w.run_for(Span::from_mins(35));
    let view = w.engine.watches[&switch(1)].view();
    assert_eq!(view.tick, Span::from_secs(60));
    assert!(view.timeline.iter().any(|e| e.kind == "fast_passed"), "{:?}", view.timeline);
    // A release that goes bad at night is still found, and quickly.
    w.run_for(Span::from_mins(8 * 60));
    w.errors.insert("green", 0.05);
    let began = w.now;
    let until = w.now + Span::from_mins(60);
    while w.ran.is_empty() && w.step_once(until) {}
    assert!(w.now.since(began) <= Span::from_mins(6), "{}", w.now.since(began));
    // And a good one passes at the end of both.
    let mut w = long();
    let _ = w.switch("green", "v2");
    let until = w.now + Span::from_mins(26 * 60);
    while w.outcomes.is_empty() && w.step_once(until) {}
    assert_eq!(w.outcomes[&switch(1)], "passed");
    assert!(w.now.since(BEGAN) >= Span::from_mins(24 * 60 + 30));
}

#[test]
fn after_a_good_fast_phase_the_release_is_one_to_go_back_to() {
    let mut w = world(|s| {
        s.policy.soak = Span::from_mins(10);
        s.policy.long = Span::from_mins(24 * 60);
    });
    let _ = w.switch("green", "v2");
    w.run_for(Span::from_mins(15));
    w.errors.insert("red", 0.10);
    let _ = w.switch("red", "v3");
    let view = w.engine.watches[&switch(2)].view();
    assert_eq!(view.back_to, slot("green"));
    assert_eq!(w.run_to_end(2), "rolled_back_recovered");
    assert_eq!(w.routed, "green");
}

#[test]
fn either_takes_the_rule_that_speaks_first() {
    let after = |rule| {
        let mut w = world(|s| {
            s.policy.rule = rule;
            s.policy.tick = Span::from_secs(5);
        });
        w.errors.insert("green", 0.004);
        let _ = w.switch("green", "v2");
        acts_after(&mut w).unwrap()
    };
    let (evidence, threshold, either) =
        (after(RuleKind::Evidence), after(RuleKind::Threshold), after(RuleKind::Either));
    assert_eq!(either, evidence.min(threshold), "{evidence} {threshold}");
}
