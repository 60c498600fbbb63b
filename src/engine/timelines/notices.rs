//! One notice of each reason, as the engine makes it: what the mails are tested with.

use super::*;
use crate::domain::drill::Found;
use crate::domain::notice::Notice;

impl World {
    /// Plays on until a notice with this reason comes.
    fn notice(mut self, reason: &str) -> Notice {
        let until = self.now + Span::from_mins(360);
        while !self.notices.contains(&reason) {
            assert!(self.step_once(until), "no {reason}\n{}", self.transcript());
        }
        self.told.into_iter().find(|n| n.reason.word() == reason).unwrap()
    }
}

fn bad(change: impl FnOnce(&mut World)) -> World {
    let mut w = World::new();
    w.errors.insert("green", 0.10);
    change(&mut w);
    let _ = w.switch("green", "v2");
    w
}

fn good(change: impl FnOnce(&mut World)) -> World {
    let mut w = World::new();
    let _ = w.switch("green", "v2");
    change(&mut w);
    w
}

fn laddered(change: impl FnOnce(&mut World)) -> World {
    let mut w = World::with(|s| s.plan.steps = vec![remedy(60), step("haproxy")]);
    w.errors.insert("green", 0.10);
    change(&mut w);
    let _ = w.switch("green", "v2");
    w
}

fn tried(found: Found, text: &str) -> Tried {
    Tried { what: "step haproxy".into(), took: Span::from_millis(12), found, text: text.into() }
}

fn practised(change: impl FnOnce(&mut World), real: bool) -> World {
    let mut w = good(|_| {});
    w.run_to_end(1);
    change(&mut w);
    let _ = w.drill(real);
    w
}

fn after(change: impl FnOnce(&mut World)) -> World {
    let tear_down =
        || Step { action: Action::Exec(Exec::new(["/bin/tear-down", "$old"])), probe: None, ..step("tear down") };
    let mut w = World::with(|s| s.after_passed.steps = vec![tear_down()]);
    change(&mut w);
    let _ = w.switch("green", "v2");
    w
}

fn all() -> Vec<Notice> {
    let ask = || {
        let mut w = World::with(|s| s.policy.mode = Mode::Ask);
        w.errors.insert("green", 0.10);
        let _ = w.switch("green", "v2");
        w
    };
    let away = || {
        let mut w = World::with(|s| s.policy.soak = Span::from_secs(600));
        let _ = w.switch("green", "v2");
        w.run_for(Span::from_secs(60));
        w
    };
    let mut seen_again = away();
    seen_again.prom = Prom::Down;
    seen_again.run_for(Span::from_secs(40));
    seen_again.prom = Prom::Up;
    let mut lost = away();
    lost.rps = 0.0;
    let mut down = away();
    down.sick.insert("green");
    down.rps = 0.0;
    let mut superseded = away();
    let _ = superseded.switch("red", "v3");
    let mut cancelled = away();
    let _ = cancelled.cancel(1);
    let mut stuck = World::with(|s| s.plan.steps[0].retry_safe = false);
    stuck.steps = [Does::Vanishes(false)].into();
    stuck.errors.insert("green", 0.10);
    let _ = stuck.switch("green", "v2");
    let mut unconfirmed = World::new();
    let _ = unconfirmed.announce(announcement("blue", "green", "v2"));
    // The same by the evidence rule, whose notices say how sure it is.
    let evidence = |rps: f64| {
        let mut w = World::with(|s| s.policy.rule = RuleKind::Evidence);
        w.rps = rps;
        if let (true, Ok(baseline)) = (rps < 1.0, &mut w.baseline) {
            baseline.counts = Counts::try_new(1200.0, 1.0).unwrap();
        }
        w.errors.insert("green", 0.02);
        let _ = w.switch("green", "v2");
        w
    };
    let mut drift = bad(|_| {});
    drift.run_to_end(1);
    drift.routed = "green";
    let mut ordered = away();
    let _ = ordered.order(1);
    let mut again = World::new();
    for n in 1..=3 {
        again.errors.insert("green", 0.10);
        let _ = again.switch("green", "v2");
        if n < 3 {
            again.run_to_end(n);
            again.run_for(Span::from_mins(40));
        }
    }
    let mut held_back = bad(|_| {});
    held_back.run_to_end(1);
    held_back.run_for(Span::from_mins(15));
    let _ = held_back.switch("green", "v3");
    let mut paused = away();
    let _ = paused.hold(1, Hold::Pause { lasts: Span::from_secs(600) });
    let mut ends_early = World::new();
    ends_early.routed = "green";
    let old_until = Some(BEGAN + Span::from_secs(60));
    let _ = ends_early.announce(Announcement { old_until, ..announcement("blue", "green", "v2") });
    let observed = || {
        let mut w = World::with(|s| (s.policy.mode, s.policy.rule) = (Mode::Observe, RuleKind::Evidence));
        w.errors.insert("green", 0.02);
        let _ = w.switch("green", "v2");
        w
    };
    let opened = || {
        let mut w = World::with(|s| s.policy.notify_opened = true);
        let _ = w.switch("green", "v2");
        w
    };
    vec![
        opened().notice("opened"),
        drift.notice("drift"),
        ordered.notice("ordered_acting"),
        again.notice("quarantined"),
        held_back.notice("withheld"),
        bad(|_| {}).notice("breached_acting"),
        ask().notice("approval_wanted"),
        bad(|w| {
            w.sick.insert("blue");
        })
        .notice("withheld"),
        bad(|_| {}).notice("rolled_back_recovered"),
        bad(|w| {
            w.errors.insert("blue", 0.10);
        })
        .notice("rolled_back_not_recovered"),
        down.notice("rolled_back_unseen"),
        bad(|w| w.steps = [Does::Fails; 3].into()).notice("rollback_failed"),
        stuck.notice("stuck"),
        good(|w| w.prom = Prom::Down).notice("blind"),
        seen_again.notice("sees_again"),
        good(|w| w.baseline = Err("nothing was recorded".into())).notice("passed"),
        bad(|w| w.baseline = Err("nothing was recorded".into())).notice("little_baseline"),
        lost.notice("traffic_lost"),
        unconfirmed.notice("unconfirmed"),
        good(|w| w.prom = Prom::Absent).notice("unjudged"),
        superseded.notice("superseded"),
        cancelled.notice("cancelled"),
        laddered(|w| w.cured_by_flag = Some("green")).notice("healed"),
        laddered(|_| {}).notice("breached_acting"),
        practised(|w| w.tried = vec![tried(Found::Good, "the socket takes orders")], false).notice("drilled"),
        practised(|w| w.tried = vec![tried(Found::Broken, "permission denied")], false).notice("drill_failed"),
        practised(|_| {}, true).notice("drilled"),
        practised(|w| w.steps = [Does::Works, Does::Fails, Does::Fails, Does::Fails].into(), true)
            .notice("drill_failed"),
        after(|w| w.steps = [Does::Fails].into()).notice("after_passed_failed"),
        paused.notice("paused"),
        ends_early.notice("old_ends_early"),
        evidence(0.3).notice("thin"),
        evidence(100.0).notice("rolled_back_recovered"),
        observed().notice("withheld"),
    ]
}

/// The mails' tests read this snapshot.
#[test]
fn notices_of_each_reason_are_those_of_the_vectors() {
    let made = serde_json::to_string_pretty(&all()).unwrap();
    insta::with_settings!({ snapshot_path => "../../../tests/vectors", prepend_module_to_snapshot => false }, {
        insta::assert_snapshot!("notices", made);
    });
}
