//! Many runs of a scenario, on all cores, and what came of them.

use std::sync::Mutex;
use std::sync::atomic::{AtomicU32, Ordering};

use serde::Serialize;

use super::player::{Setup, play, trace};
use super::scenarios::{Must, Scenario};
use crate::account::rivals::Rival;

/// One line of the table.
#[derive(Debug, Clone, Serialize)]
pub struct Line {
    pub id: String,
    pub what: String,
    pub runs: u32,
    /// Rolled back at all, or (where there is a regression) before it began.
    pub false_rollbacks: u32,
    /// Wilson's interval of their share, at 95 %.
    pub false_share: (f64, f64),
    /// Of the runs with a regression: found after it began.
    pub detected: Option<u32>,
    /// Seconds from the onset to the end of the tick that decided.
    pub median_s: Option<f64>,
    pub p95_s: Option<f64>,
    /// The information-theoretic bound: ln(1/alpha) over the information per second.
    pub wald_s: Option<f64>,
    pub rivals: Vec<RivalLine>,
    /// What must hold, and whether it does.
    pub checks: Vec<(String, bool)>,
}

#[derive(Debug, Clone, Serialize)]
pub struct RivalLine {
    pub name: String,
    pub false_rollbacks: u32,
    pub detected: Option<u32>,
    pub median_s: Option<f64>,
}

impl Line {
    pub fn holds(&self) -> bool {
        self.checks.iter().all(|(_, held)| *held)
    }
}

/// What one run gave: our delay and the rivals', from the switch.
struct Run {
    ours: Option<f64>,
    theirs: [Option<f64>; 6],
}

/// Plays a scenario; `each` is called after every run.
pub fn run(scenario: &Scenario, runs: u32, seed: u64, threads: usize, each: &(dyn Fn() + Sync)) -> Line {
    let next = AtomicU32::new(0);
    let all: Mutex<Vec<(u32, Run)>> = Mutex::new(Vec::with_capacity(runs as usize));
    std::thread::scope(|scope| {
        for _ in 0..threads.max(1) {
            scope.spawn(|| {
                loop {
                    let i = next.fetch_add(1, Ordering::Relaxed);
                    if i >= runs {
                        return;
                    }
                    let done = one(&scenario.setup, mix(seed, scenario.id, i));
                    if let Ok(mut all) = all.lock() {
                        all.push((i, done));
                    }
                    each();
                }
            });
        }
    });
    let mut all = all.into_inner().unwrap_or_else(std::sync::PoisonError::into_inner);
    // In the order of their seeds, whoever was done first.
    all.sort_by_key(|(i, _)| *i);
    line(scenario, &all.into_iter().map(|(_, run)| run).collect::<Vec<_>>())
}

fn one(setup: &Setup, seed: u64) -> Run {
    let trace = trace(setup, seed);
    Run {
        ours: play(setup, &trace),
        theirs: {
            let seen = trace.seen();
            Rival::ALL.map(|rival| rival.rolls_back_s(&seen))
        },
    }
}

/// A seed for each run of each scenario: FNV over the id, so that scenarios do not share their traffic.
fn mix(seed: u64, id: &str, i: u32) -> u64 {
    let hash = id.bytes().fold(0xcbf2_9ce4_8422_2325_u64, |h, b| (h ^ u64::from(b)).wrapping_mul(0x0100_0000_01b3));
    seed ^ hash.wrapping_add(u64::from(i).wrapping_mul(0x9E37_79B9_7F4A_7C15))
}

fn line(scenario: &Scenario, runs: &[Run]) -> Line {
    let onset = scenario.onset_s;
    let early = |at: &Option<f64>| at.is_some_and(|at| onset.is_none_or(|onset| at <= onset));
    let delays = |take: &dyn Fn(&Run) -> Option<f64>| -> Vec<f64> {
        let Some(onset) = onset else { return Vec::new() };
        // Not found counts as later than everything: a median over the found alone would flatter.
        let mut all: Vec<f64> =
            runs.iter().filter(|r| !early(&take(r))).map(|r| take(r).map_or(f64::INFINITY, |at| at - onset)).collect();
        all.sort_by(f64::total_cmp);
        all
    };
    let ours = delays(&|r| r.ours);
    let false_rollbacks = runs.iter().filter(|r| early(&r.ours)).count() as u32;
    let detected = onset.map(|_| ours.iter().filter(|d| d.is_finite()).count() as u32);
    let wald_s = scenario.ratio.map(|ratio| wald_s(&scenario.setup, ratio));
    let (median_s, p95_s) = (quantile(&ours, 0.5), quantile(&ours, 0.95));
    let rivals = Rival::ALL
        .into_iter()
        .enumerate()
        .map(|(i, rival)| {
            let theirs = delays(&|r| r.theirs[i]);
            RivalLine {
                name: rival.name().into(),
                false_rollbacks: runs.iter().filter(|r| early(&r.theirs[i])).count() as u32,
                detected: onset.map(|_| theirs.iter().filter(|d| d.is_finite()).count() as u32),
                median_s: quantile(&theirs, 0.5),
            }
        })
        .collect();
    let mut line = Line {
        id: scenario.id.into(),
        what: scenario.what.clone(),
        runs: runs.len() as u32,
        false_rollbacks,
        false_share: wilson(false_rollbacks, runs.len() as u32),
        detected,
        median_s,
        p95_s,
        wald_s,
        rivals,
        checks: Vec::new(),
    };
    line.checks = scenario.must.iter().map(|must| check(must, &line)).collect();
    line
}

fn check(must: &Must, line: &Line) -> (String, bool) {
    let at_most = |got: Option<f64>, limit: f64| got.is_some_and(|got| got <= limit + 1e-9);
    match *must {
        Must::FalseAtMost(n) => (format!("false ≤ {n}"), line.false_rollbacks <= n),
        Must::FalseShareAtMost(share) => {
            let got = f64::from(line.false_rollbacks) / f64::from(line.runs.max(1));
            (format!("false ≤ {:.1} %", share * 100.0), got <= share)
        }
        Must::MedianAtMost(s) => (format!("median ≤ {s:.0} s"), at_most(line.median_s, s)),
        Must::P95AtMost(s) => (format!("p95 ≤ {s:.0} s"), at_most(line.p95_s, s)),
        Must::WaldAtMost(factor) => {
            let limit = line.wald_s.unwrap_or(f64::NAN) * factor;
            (format!("median ≤ {factor} × Wald"), at_most(line.median_s, limit))
        }
        Must::DetectedAtLeast(share) => {
            let got = f64::from(line.detected.unwrap_or(0)) / f64::from(line.runs.max(1));
            (format!("found ≥ {:.0} %", share * 100.0), got >= share)
        }
        Must::NoneEarly => ("none early".into(), line.false_rollbacks == 0),
    }
}

/// Expected time of the best test that knows the normal and the regression: Wald 1945.
fn wald_s(setup: &Setup, ratio: f64) -> f64 {
    let p0 = (1.5 * setup.traffic.errors).max(0.001);
    let p1 = (ratio * setup.traffic.errors).min(1.0);
    let per_request = p1 * (p1 / p0).ln() - p1 + p0;
    (1.0 / setup.alpha).ln() / (setup.traffic.rps * per_request)
}

/// The value below which this share lies; `None` where that is "never".
fn quantile(sorted: &[f64], q: f64) -> Option<f64> {
    let place = ((sorted.len() as f64 * q).ceil() as usize).clamp(1, sorted.len().max(1)) - 1;
    sorted.get(place).copied().filter(|v| v.is_finite())
}

/// Wilson's score interval at 95 %.
pub fn wilson(x: u32, n: u32) -> (f64, f64) {
    const Z: f64 = 1.959_964;
    if n == 0 {
        return (0.0, 1.0);
    }
    let (x, n) = (f64::from(x), f64::from(n));
    let (p, z2) = (x / n, Z * Z);
    let middle = (p + z2 / (2.0 * n)) / (1.0 + z2 / n);
    let half = Z / (1.0 + z2 / n) * (p * (1.0 - p) / n + z2 / (4.0 * n * n)).sqrt();
    // Rounding may leave a trace where the bound is an end itself.
    let low = if x == 0.0 { 0.0 } else { (middle - half).max(0.0) };
    let high = if x == n { 1.0 } else { (middle + half).min(1.0) };
    (low, high)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sim::scenarios::quick;

    #[test]
    fn intervals_and_quantiles() {
        let (low, high) = wilson(0, 5000);
        assert!(low == 0.0 && high > 0.0007 && high < 0.0008, "{low} {high}");
        assert_eq!(quantile(&[1.0, 2.0, 3.0], 0.5), Some(2.0));
        assert_eq!(quantile(&[1.0, f64::INFINITY, f64::INFINITY], 0.5), None, "most were never found");
        assert_eq!(quantile(&[], 0.5), None);
    }

    #[test]
    fn walds_bounds_are_the_designs() {
        for (id, expected) in [("D2", 13.0), ("D3", 238.0), ("D4", 24.0)] {
            let scenario = quick().into_iter().find(|s| s.id == id).unwrap();
            let got = wald_s(&scenario.setup, scenario.ratio.unwrap());
            assert!((got / expected - 1.0).abs() < 0.04, "{id}: {got}");
        }
    }

    /// A few runs of each kind; the whole table is `flipback simulate --quick`.
    #[test]
    fn a_seed_gives_the_same_line_on_any_number_of_threads() {
        for id in ["N3", "D2", "D7"] {
            let scenario = quick().into_iter().find(|s| s.id == id).unwrap();
            let line = |threads| format!("{:?}", run(&scenario, 12, 5, threads, &|| {}));
            assert_eq!(line(1), line(3), "{id}");
        }
        let outage = quick().into_iter().find(|s| s.id == "D8").unwrap();
        let line = run(&outage, 20, 1, 2, &|| {});
        assert!(line.holds() && line.detected == Some(20), "{line:?}");
        assert_eq!(line.median_s, Some(11.0), "as the design says");
    }
}
