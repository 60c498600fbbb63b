//! The test vectors of the evidence rule: `flipback simulate vectors FILE` and the tests read them here.

use serde::Deserialize;

use crate::domain::counts::Buckets;
use crate::judge::detect::ratio_interval;
use crate::judge::eprocess::{Ceiling, EProcess, Terms, combine};
use crate::judge::normal::{MIDDLE, Normal, Pair, dispersion, envelope};
use crate::judge::tail::scaled_tail;

/// Doubles and the same formulas in another order differ by less; a wrong formula by more.
pub const TOLERANCE: f64 = 1e-9;

#[derive(Debug, Deserialize)]
struct File {
    cases: Vec<Case>,
}

#[derive(Debug, Deserialize)]
struct Case {
    name: String,
    config: Config,
    #[serde(default)]
    cell_s: Option<f64>,
    #[serde(default)]
    baseline_cells: Option<Vec<Pair>>,
    #[serde(default)]
    hours: Option<Vec<Pair>>,
    baseline: Given,
    #[serde(default)]
    p0: Vec<f64>,
    rows: Vec<Row>,
    /// Absent where the case says nothing of it; `null`: never.
    #[serde(default, deserialize_with = "said")]
    rollback_at: Option<Option<f64>>,
    #[serde(default)]
    ratio_interval_95: Option<(f64, f64)>,
    #[serde(flatten)]
    latency: Option<Latency>,
}

#[derive(Debug, Deserialize)]
struct Config {
    alpha: f64,
    weight: f64,
    k: f64,
    floor: f64,
    min_ticks: f64,
    min_events: f64,
    horizon_s: f64,
    warmup_s: f64,
    warmup_floor: f64,
    block_s: f64,
    latency: bool,
    #[serde(default = "per_block")]
    ceiling: Ceiling,
}

#[derive(Debug, Deserialize)]
struct Given {
    n: f64,
    x: f64,
    phi: f64,
    rate: f64,
    #[serde(default = "one")]
    env: f64,
}

fn said<'de, D: serde::Deserializer<'de>>(deserializer: D) -> Result<Option<Option<f64>>, D::Error> {
    Option::<f64>::deserialize(deserializer).map(Some)
}

impl Config {
    fn terms(&self) -> Terms {
        Terms {
            alpha: self.alpha,
            weight: self.weight,
            k: self.k,
            floor: self.floor,
            min_ticks: self.min_ticks,
            horizon_s: self.horizon_s,
            warmup_s: self.warmup_s,
            warmup_floor: self.warmup_floor,
            block_s: self.block_s,
            ceiling: self.ceiling,
            latency: self.latency,
        }
    }
}

fn per_block() -> Ceiling {
    Ceiling::PerBlock
}

fn one() -> f64 {
    1.0
}

#[derive(Debug, Deserialize)]
struct Row {
    t: f64,
    n: f64,
    x: f64,
    log_e: f64,
    #[serde(default)]
    log_e_combined: Option<f64>,
    #[serde(default)]
    rollback: Option<bool>,
}

#[derive(Debug, Deserialize)]
struct Latency {
    le: Vec<serde_json::Value>,
    cum: Vec<f64>,
    q: f64,
    k: f64,
    phi: f64,
    bound_index: usize,
    tail: f64,
    quantile_upper: f64,
}

/// What a run over a file of vectors gave.
#[derive(Debug, Clone, PartialEq, serde::Serialize)]
pub struct Report {
    pub cases: usize,
    pub rows: usize,
    pub largest_error: f64,
    /// Where the largest error is.
    pub at: String,
    /// Decisions (or bounds) that differ.
    pub wrong: Vec<String>,
}

/// Runs a file's text; `Err` says why it is no file of vectors.
pub fn run(text: &str) -> Result<Report, String> {
    let file: File = serde_json::from_str(text).map_err(|error| error.to_string())?;
    let mut report =
        Report { cases: file.cases.len(), rows: 0, largest_error: 0.0, at: "nowhere".into(), wrong: Vec::new() };
    for case in &file.cases {
        run_case(case, &mut report)?;
    }
    Ok(report)
}

fn run_case(case: &Case, report: &mut Report) -> Result<(), String> {
    let name = &case.name;
    let mut differ = |what: &str, got: f64, expected: f64| {
        let error = if got == expected { 0.0 } else { (got - expected).abs() };
        // What is no number is as wrong as can be.
        let error = if error.is_nan() { f64::INFINITY } else { error };
        if error > report.largest_error {
            report.largest_error = error;
            report.at = format!("{name}, {what}");
        }
    };
    if let Some(l) = &case.latency {
        let bounds: Vec<f64> = l.le.iter().filter_map(serde_json::Value::as_f64).collect();
        let total = l.cum.last().copied().unwrap_or(0.0);
        let buckets = Buckets::try_new(bounds.clone(), l.cum[..bounds.len()].to_vec(), total)
            .map_err(|error| format!("{name}: {error}"))?;
        let tail = scaled_tail(&buckets, l.q, l.k, l.phi).ok_or_else(|| format!("{name}: an empty histogram"))?;
        if tail.index != l.bound_index {
            report.wrong.push(format!("{name}: bound {} instead of {}", tail.index, l.bound_index));
        }
        differ("tail", tail.tail, l.tail);
        differ("quantile", tail.quantile_upper_s, l.quantile_upper);
    }
    let b = &case.baseline;
    if let Some(cells) = case.baseline_cells.as_ref().filter(|cells| !cells.is_empty()) {
        differ("phi", dispersion(cells, case.cell_s.unwrap_or(15.0)), b.phi);
    }
    if let Some(hours) = &case.hours {
        differ("env", envelope(hours, b.phi), b.env);
    }
    let c = &case.config;
    let terms = c.terms();
    let normal = Normal { n: b.n, x: b.x, phi: b.phi, rate: b.rate, env: b.env };
    let mut process = EProcess::new(normal, terms);
    if b.env > 1.0 {
        process.enter_long_phase();
    }
    for (got, expected) in process.nulls().iter().zip(&case.p0) {
        differ("p0", *got, *expected);
    }
    let mut fired = None;
    for row in &case.rows {
        report.rows += 1;
        let ln_e = process.tick(row.t, row.n, row.x);
        differ(&format!("t = {}", row.t), ln_e, row.log_e);
        let combined = combine(&[(c.weight, ln_e)]);
        if let Some(expected) = row.log_e_combined {
            differ(&format!("combined at t = {}", row.t), combined, expected);
        }
        let (_, bad) = process.counts();
        let decision = combined >= (1.0 / c.alpha).ln() && bad >= c.min_events;
        if decision && fired.is_none() {
            fired = Some(row.t);
        }
        if row.rollback.is_some_and(|expected| expected != decision) {
            report.wrong.push(format!("{name}: decision at t = {}", row.t));
        }
    }
    if let Some(expected) = case.rollback_at.filter(|expected| *expected != fired) {
        report.wrong.push(format!("{name}: rolls back at {fired:?} instead of {expected:?}"));
    }
    if let Some((low, high)) = case.ratio_interval_95 {
        let (n, x) = process.counts();
        let got = ratio_interval(&normal, c.k, process.nulls()[MIDDLE], n, x, 0.05);
        differ("interval", got.0, low);
        differ("interval", got.1, high);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_given_vectors_hold_to_a_billionth() {
        let report = run(include_str!("../../tests/vectors/judge.json")).unwrap();
        println!("{report:?}");
        assert_eq!(report.wrong, Vec::<String>::new());
        assert!(report.cases >= 20 && report.rows > 2000, "{report:?}");
        assert!(report.largest_error <= TOLERANCE, "{report:?}");
    }

    /// Made from the formulas of the sliding ceiling by another program than this one.
    #[test]
    fn the_vectors_of_the_sliding_ceiling_hold_too() {
        let report = run(include_str!("../../tests/vectors/sliding.json")).unwrap();
        println!("{report:?}");
        assert_eq!(report.wrong, Vec::<String>::new());
        assert!(report.cases >= 10 && report.largest_error <= TOLERANCE, "{report:?}");
    }

    /// The same events in ticks of 1, 5, 15 and 60 s are acted upon at nearly the same second.
    #[test]
    fn the_tick_changes_little() {
        let file: File = serde_json::from_str(include_str!("../../tests/vectors/judge.json")).unwrap();
        let case = file.cases.iter().find(|c| c.name == "reg3x_1s").unwrap();
        let (b, c) = (&case.baseline, &case.config);
        let fires = |tick: usize| {
            let normal = Normal { n: b.n, x: b.x, phi: b.phi, rate: b.rate, env: b.env };
            let terms = Terms { ceiling: Ceiling::Sliding, ..c.terms() };
            let mut process = EProcess::new(normal, terms);
            case.rows.chunks(tick).find_map(|part| {
                let (n, x) = part.iter().fold((0.0, 0.0), |sum, row| (sum.0 + row.n, sum.1 + row.x));
                let t = part.last()?.t;
                (process.tick(t, n, x) >= process.need()).then_some(t)
            })
        };
        let at = [1, 5, 15, 60].map(|tick| fires(tick).unwrap());
        println!("acts at {at:?} s");
        assert!(at.iter().all(|s| (s - 435.0).abs() <= 15.0), "{at:?}");
    }

    #[test]
    fn a_wrong_vector_is_found() {
        let text = include_str!("../../tests/vectors/judge.json");
        let wrong = text.replacen("-0.07796120924882631", "-0.07796120824882631", 1);
        assert!(run(&wrong).unwrap().largest_error > 9e-10);
        assert!(run("{}").is_err());
    }
}
