//! The scenarios, and what must hold of them: the design's scoreboard as code.

use super::player::Setup;
use super::traffic::{Event, Scatter, Traffic};
use crate::domain::policy::{TailNull, WarmUp};
use crate::domain::time::Span;

/// What a scenario must show.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Must {
    /// At most so many of the runs are rolled back.
    FalseAtMost(u32),
    /// At most this share of them.
    FalseShareAtMost(f64),
    /// The median delay, in seconds from the onset.
    MedianAtMost(f64),
    P95AtMost(f64),
    /// The median as a multiple of Wald's bound.
    WaldAtMost(f64),
    DetectedAtLeast(f64),
    /// Nothing before the onset.
    NoneEarly,
}

#[derive(Debug, Clone)]
pub struct Scenario {
    pub id: &'static str,
    pub what: String,
    pub setup: Setup,
    pub runs: u32,
    /// When the regression begins, in seconds after the switch; `None`: there is none.
    pub onset_s: Option<f64>,
    /// Errors after the onset, as a multiple of the normal: for Wald's bound.
    pub ratio: Option<f64>,
    pub must: Vec<Must>,
}

fn steady(rps: f64) -> Traffic {
    Traffic::steady(rps, 0.001)
}

fn worse(rps: f64, ratio: f64, from_s: f64) -> Traffic {
    steady(rps).with(Event::Regression { ratio, from_s })
}

fn healthy(id: &'static str, what: &str, setup: Setup, runs: u32, must: Must) -> Scenario {
    Scenario { id, what: what.into(), setup, runs, onset_s: None, ratio: None, must: vec![must] }
}

fn bad(id: &'static str, what: &str, setup: Setup, runs: u32, ratio: Option<f64>, must: &[Must]) -> Scenario {
    Scenario { id, what: what.into(), setup, runs, onset_s: Some(0.0), ratio, must: must.to_vec() }
}

fn at_1s(traffic: Traffic) -> Setup {
    Setup { tick_s: 1, ..Setup::new(traffic) }
}

/// The rows that CI holds the judgement to.
pub fn quick() -> Vec<Scenario> {
    let total = |from_s, to_s| Event::Spike { share: 1.0, from_s, to_s };
    let mut all = Vec::new();
    for (id, rps) in [("N1", 0.5), ("N2", 5.0), ("N3", 50.0), ("N4", 5000.0)] {
        let what = format!("healthy 0.1 % @{rps}/s");
        all.push(healthy(id, &what, Setup::new(steady(rps)), 5000, Must::FalseAtMost(5)));
    }
    let bursty = Traffic { scatter: Scatter::Gamma { phi: 5.0 }, ..steady(50.0) };
    all.push(healthy("N5", "healthy, bursty, phi 5 @50/s", Setup::new(bursty), 2000, Must::FalseAtMost(2)));
    let clean = Setup { clean_baseline: true, baseline_s: 600, ..Setup::new(steady(0.5)) };
    all.push(healthy("N6", "no errors in 10 min of baseline @0.5/s", clean, 2000, Must::FalseAtMost(0)));
    let spike = steady(5000.0).with(Event::Spike { share: 0.2, from_s: 0.0, to_s: 30.0 });
    let what = "20 % errors for 30 s at the switch @5000/s";
    all.push(healthy("N7", what, Setup { soak_s: 600, ..Setup::new(spike.clone()) }, 1000, Must::FalseAtMost(1)));
    let what = "the same at 1 s ticks";
    all.push(healthy("N7b", what, Setup { soak_s: 600, ..at_1s(spike) }, 1000, Must::FalseAtMost(1)));
    let boundary = Setup {
        alpha: 0.01,
        baseline_s: 6000,
        warm_up: WarmUp { errors: Span::ZERO, latency: Span::ZERO },
        ..Setup::new(worse(50.0, 1.5, 0.0))
    };
    all.push(healthy("N8", "exactly 1.5×, ~300 baseline errors, alpha 0.01", boundary, 3000, Must::FalseAtMost(30)));
    let day = steady(500.0).with(Event::Diurnal { amplitude: 0.3 });
    let day = Setup { baseline_s: 86_400, long_s: 86_400 - 1800, ..Setup::new(day) };
    all.push(healthy("N9", "24 h, diurnal ±30 %, 24 h baseline @500/s", day, 100, Must::FalseAtMost(0)));
    let warm = Traffic { latency: true, ..steady(5.0) };
    let warm = warm.with(Event::Pauses).with(Event::ColdStart { ratio: 3.0, length_s: 45.0 });
    all.push(healthy("N10", "latency with pauses and a cold start @5/s", Setup::new(warm), 300, Must::FalseAtMost(1)));
    let blips = steady(50.0).with(Event::Blips { share: 0.5, length_s: 3.0, per_hour: 2.0 });
    let must = Must::FalseShareAtMost(0.015);
    all.push(healthy("N11", "blips the baseline never saw @50/s", Setup::new(blips.clone()), 1000, must));
    let must = Must::FalseShareAtMost(0.005);
    all.push(healthy("N11b", "the same at 1 s ticks", at_1s(blips), 1000, must));
    let one = at_1s(steady(200.0).with(total(600.0, 603.0)));
    all.push(healthy("N12", "one total 3 s outage at 1 s ticks @200/s", one, 400, Must::FalseAtMost(0)));

    use Must::{DetectedAtLeast, MedianAtMost, NoneEarly, P95AtMost, WaldAtMost};
    let outage = |rps| steady(rps).with(total(0.0, 1e9));
    all.push(bad("D1", "100 % errors @5/s", Setup::new(outage(5.0)), 500, None, &[P95AtMost(45.0)]));
    let must = [MedianAtMost(75.0), P95AtMost(105.0)];
    all.push(bad("D2", "10× @50/s", Setup::new(worse(50.0, 10.0, 0.0)), 500, Some(10.0), &must));
    let must = [WaldAtMost(2.2), DetectedAtLeast(0.98)];
    all.push(bad("D3", "3× @50/s", Setup::new(worse(50.0, 3.0, 0.0)), 500, Some(3.0), &must));
    let what = "3× @500/s";
    all.push(bad("D4", what, Setup::new(worse(500.0, 3.0, 0.0)), 500, Some(3.0), &[MedianAtMost(90.0)]));
    let what = "2× @5000/s";
    all.push(bad("D4b", what, Setup::new(worse(5000.0, 2.0, 0.0)), 500, Some(2.0), &[MedianAtMost(90.0)]));
    let day = Setup { baseline_s: 86_400, ..Setup::new(worse(50.0, 3.0, 0.0)) };
    all.push(bad("D5", "3× @50/s, 24 h baseline", day, 200, Some(3.0), &[WaldAtMost(1.8)]));
    let late = Setup { soak_s: 3600, ..Setup::new(worse(500.0, 3.0, 1800.0)) };
    let mut late = bad("D6", "3× @500/s from minute 30 of 60", late, 500, Some(3.0), &[MedianAtMost(90.0), NoneEarly]);
    late.onset_s = Some(1800.0);
    all.push(late);
    let slow = (Traffic { latency: true, ..steady(50.0) }).with(Event::Slower { ratio: 2.0 });
    all.push(bad("D7", "latency 2×, classic buckets @50/s", Setup::new(slow), 300, None, &[MedianAtMost(150.0)]));
    let what = "100 % errors @200/s at 1 s ticks";
    all.push(bad("D8", what, at_1s(outage(200.0)), 300, None, &[P95AtMost(12.0)]));
    all
}

/// What the quick table leaves out because nothing is promised of it: known weak spots and limits.
pub fn further() -> Vec<Scenario> {
    let known = |id, what: &str, setup, runs| Scenario {
        id,
        what: what.into(),
        setup,
        runs,
        onset_s: None,
        ratio: None,
        must: Vec::new(),
    };
    let wander = |ratio: f64| {
        let wandering = Traffic { scatter: Scatter::Wandering { sd: 0.5, rho: 0.9 }, ..steady(500.0) };
        Setup::new(wandering.with(Event::Regression { ratio, from_s: 0.0 }))
    };
    let bursty = |ratio: f64| {
        let bursty = Traffic { scatter: Scatter::Gamma { phi: 5.0 }, ..steady(50.0) };
        Setup::new(bursty.with(Event::Regression { ratio, from_s: 0.0 }))
    };
    let latency = |event| Setup::new((Traffic { latency: true, ..steady(50.0) }).with(event));
    let day = steady(500.0).with(Event::Diurnal { amplitude: 0.5 });
    let mut all = vec![
        known("W1", "wandering rate (AR(1), sd 0.5) @500/s", wander(1.0), 2000),
        known("W2", "wandering, exactly 1.5×", wander(1.5), 2000),
        known("W3", "healthy, bursty at exactly 1.5×", bursty(1.5), 2000),
        known(
            "W4",
            "24 h, diurnal ±50 %, 24 h baseline @500/s",
            Setup { baseline_s: 86_400, long_s: 84_600, ..Setup::new(day) },
            100,
        ),
        known("W5", "latency at exactly 1.5× @50/s", latency(Event::Slower { ratio: 1.5 }), 300),
        known(
            "W6",
            "healthy, a fifth of the scrapes lost @50/s",
            Setup { lost: 0.2, ..Setup::new(steady(50.0)) },
            2000,
        ),
    ];
    for (id, what, ratio) in
        [("W7", "wandering, 4 h recorded", 1.0), ("W8", "wandering, exactly 1.5×, 4 h recorded", 1.5)]
    {
        all.push(known(id, what, Setup { baseline_s: 14_400, ..wander(ratio) }, 2000));
    }
    let mut regression = |id, what: &str, setup: Setup, ratio: Option<f64>| {
        all.push(bad(id, what, setup, 500, ratio, &[]));
    };
    regression("L1", "2× @50/s", Setup::new(worse(50.0, 2.0, 0.0)), Some(2.0));
    regression("L2", "2× @500/s", Setup::new(worse(500.0, 2.0, 0.0)), Some(2.0));
    regression("L3", "10× @5/s", Setup::new(worse(5.0, 10.0, 0.0)), Some(10.0));
    regression("L4", "10× @50/s at 1 s ticks", at_1s(worse(50.0, 10.0, 0.0)), Some(10.0));
    regression("L5", "3× @50/s at 1 s ticks", at_1s(worse(50.0, 3.0, 0.0)), Some(3.0));
    regression("L6", "3× @500/s at 1 s ticks", at_1s(worse(500.0, 3.0, 0.0)), Some(3.0));
    let thin = Setup { baseline_s: 600, ..Setup::new(worse(50.0, 3.0, 0.0)) };
    regression("L7", "3× @50/s, 10 min of baseline", thin, Some(3.0));
    regression("L8", "3×, wandering rate @500/s", wander(3.0), Some(3.0));
    let four = Setup { baseline_s: 14_400, ..wander(3.0) };
    regression("L8b", "the same, 4 h recorded", four, Some(3.0));
    regression("L9", "3×, bursty, phi 5 @50/s", bursty(3.0), Some(3.0));
    let lost = Setup { lost: 0.2, ..Setup::new(worse(50.0, 3.0, 0.0)) };
    regression("L10", "3× @50/s, a fifth of the scrapes lost", lost, Some(3.0));
    regression(
        "L11",
        "latency: 3 % of the requests 10× slower @50/s",
        latency(Event::Tail { share: 0.03, ratio: 10.0 }),
        None,
    );
    regression("L12", "latency 1.75× @50/s", latency(Event::Slower { ratio: 1.75 }), None);
    let strict = Setup { tail: TailNull::Strict, ..latency(Event::Slower { ratio: 2.0 }) };
    regression("L13", "latency 2× @50/s, the strict null", strict, None);
    all
}
