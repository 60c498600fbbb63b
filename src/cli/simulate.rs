//! `flipback simulate`: the judgement against made traffic, beside the rules that other tools use.

use std::path::{Path, PathBuf};
use std::time::Instant;

use clap::{Args, Subcommand};
use comfy_table::Table;
use indicatif::{ProgressBar, ProgressStyle};

use super::show::new_table;
use super::{Global, Output, exit, print, print_json};
use crate::sim::scenarios::{self, Scenario};
use crate::sim::table::{self, Line, RivalLine};
use crate::sim::vectors;

/// Runs of one scenario: more would take days and say nothing new.
const RUNS_MAX: u32 = 1_000_000;

#[derive(Args)]
#[command(args_conflicts_with_subcommands = true)]
pub struct SimulateArgs {
    /// Scenarios by their ids (N3, D2); all without
    scenarios: Vec<String>,
    /// Only the rows of which something is promised
    #[arg(long)]
    quick: bool,
    /// Runs of each scenario, in place of its own number
    #[arg(long, value_parser = clap::value_parser!(u32).range(1..=i64::from(RUNS_MAX)))]
    runs: Option<u32>,
    /// The same seed gives the same table, on any number of cores
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Threads; all cores without
    #[arg(long)]
    jobs: Option<std::num::NonZeroUsize>,
    #[command(subcommand)]
    what: Option<What>,
}

#[derive(Subcommand)]
enum What {
    /// Compare the numerics with a file of test vectors and print the largest error
    Vectors { file: PathBuf },
    /// Play the whole daemon in made worlds with faults, crashes and operators, and check every promise
    Faults(super::faults::FaultsArgs),
}

pub fn run(global: &Global, args: &SimulateArgs) -> i32 {
    match &args.what {
        Some(What::Vectors { file }) => return run_vectors(global, file),
        Some(What::Faults(faults)) => return super::faults::run(global, faults),
        None => {}
    }
    let chosen = match choose(args) {
        Ok(chosen) => chosen,
        Err(why) => {
            eprintln!("flipback: {why}");
            return exit::USAGE;
        }
    };
    let threads = args.jobs.or_else(|| std::thread::available_parallelism().ok()).map_or(1, usize::from);
    let runs = |s: &Scenario| args.runs.unwrap_or(s.runs);
    let bar = ProgressBar::new(chosen.iter().map(|s| u64::from(runs(s))).sum());
    if let Ok(style) = ProgressStyle::with_template("{msg:<4} [{bar:30}] {pos}/{len} soaks, {eta} left") {
        bar.set_style(style);
    }
    let began = Instant::now();
    let lines: Vec<Line> = chosen
        .iter()
        .map(|scenario| {
            bar.set_message(scenario.id);
            table::run(scenario, runs(scenario), args.seed, threads, &|| bar.inc(1))
        })
        .collect();
    bar.finish_and_clear();
    let took = began.elapsed();
    match global.output {
        Output::Json => print_json(&lines),
        Output::Md | Output::Html => print(&markdown(&lines, &command(args))),
        Output::Table => print(&format!("{}\n", terminal(&lines))),
    }
    let failed: Vec<&Line> = lines.iter().filter(|line| !line.holds()).collect();
    eprintln!(
        "{} soaks in {:.1} s on {threads} threads, seed {}: {}",
        lines.iter().map(|line| line.runs).sum::<u32>(),
        took.as_secs_f64(),
        args.seed,
        if failed.is_empty() { "every promise held".to_owned() } else { format!("{} rows FAILED", failed.len()) },
    );
    for line in &failed {
        let broken: Vec<&str> = line.checks.iter().filter(|(_, held)| !held).map(|(what, _)| what.as_str()).collect();
        eprintln!("  {} {}: not so: {}", line.id, line.what, broken.join(", "));
    }
    if failed.is_empty() { exit::OK } else { exit::FAILED }
}

fn choose(args: &SimulateArgs) -> Result<Vec<Scenario>, String> {
    let mut all = scenarios::quick();
    if !args.quick {
        all.extend(scenarios::further());
    }
    if args.scenarios.is_empty() {
        return Ok(all);
    }
    if let Some(strange) = args.scenarios.iter().find(|id| !all.iter().any(|s| s.id == **id)) {
        let known: Vec<&str> = all.iter().map(|s| s.id).collect();
        return Err(format!("there is no scenario {strange:?}; there are {}", known.join(" ")));
    }
    all.retain(|s| args.scenarios.iter().any(|id| id == s.id));
    Ok(all)
}

fn run_vectors(global: &Global, file: &Path) -> i32 {
    let report = std::fs::read_to_string(file).map_err(|error| error.to_string()).and_then(|text| vectors::run(&text));
    let report = match report {
        Ok(report) => report,
        Err(why) => {
            eprintln!("flipback: {}: {why}", file.display());
            return exit::USAGE;
        }
    };
    if global.output == Output::Json {
        print_json(&report);
    } else {
        print(&format!(
            "{} cases, {} rows, largest error {:.2e} ({})\n",
            report.cases, report.rows, report.largest_error, report.at
        ));
        report.wrong.iter().for_each(|wrong| print(&format!("WRONG: {wrong}\n")));
    }
    if report.wrong.is_empty() && report.largest_error <= vectors::TOLERANCE { exit::OK } else { exit::FAILED }
}

/// The command that makes this table again.
fn command(args: &SimulateArgs) -> String {
    let mut words = vec!["flipback simulate".to_owned()];
    words.extend(args.scenarios.iter().cloned());
    if args.quick {
        words.push("--quick".into());
    }
    if let Some(runs) = args.runs {
        words.push(format!("--runs {runs}"));
    }
    words.push(format!("--seed {} -o md", args.seed));
    words.join(" ")
}

const HEADER: [&str; 8] = ["id", "scenario", "runs", "false [95 %]", "found", "median, p95 s", "× Wald", "promised"];

/// The column that a terminal does without.
const PROMISED: usize = 7;

fn cells(line: &Line) -> Vec<String> {
    let seconds = |s: Option<f64>| s.map_or("never".to_owned(), |s| format!("{s:.0}"));
    let mut row = vec![
        line.id.clone(),
        line.what.clone(),
        line.runs.to_string(),
        format!("{} [{}, {}]", line.false_rollbacks, percent(line.false_share.0), percent(line.false_share.1)),
    ];
    match line.detected {
        Some(detected) => row.extend([
            percent(f64::from(detected) / f64::from(line.runs.max(1))),
            format!("{}, {}", seconds(line.median_s), seconds(line.p95_s)),
            match (line.median_s, line.wald_s) {
                (Some(median), Some(wald)) => format!("{:.2} of {wald:.0} s", median / wald),
                (None, Some(wald)) => format!("– of {wald:.0} s"),
                (_, None) => "–".into(),
            },
        ]),
        None => row.extend(["–", "–", "–"].map(str::to_owned)),
    }
    let checks: Vec<String> =
        line.checks.iter().map(|(what, held)| if *held { what.clone() } else { format!("FAILED: {what}") }).collect();
    row.push(if checks.is_empty() { "–".into() } else { checks.join(", ") });
    row.extend(line.rivals.iter().map(|rival| rival_cell(line, rival)));
    row
}

/// What the rival did: false rollbacks of the healthy, else its median and what it accused too early.
fn rival_cell(line: &Line, rival: &RivalLine) -> String {
    let of = |n: u32| percent(f64::from(n) / f64::from(line.runs.max(1)));
    match rival.detected {
        None => of(rival.false_rollbacks),
        Some(_) => {
            let median = rival.median_s.map_or("never".to_owned(), |s| format!("{s:.0} s"));
            if rival.false_rollbacks > 0 { format!("{median}; {} early", of(rival.false_rollbacks)) } else { median }
        }
    }
}

fn percent(share: f64) -> String {
    let percent = share * 100.0;
    if percent == 0.0 || percent >= 10.0 { format!("{percent:.0} %") } else { format!("{percent:.2} %") }
}

fn header(lines: &[Line]) -> Vec<String> {
    let rivals = lines.first().map(|line| line.rivals.iter().map(|r| r.name.clone()).collect()).unwrap_or_default();
    [HEADER.map(str::to_owned).to_vec(), rivals].concat()
}

/// Without what was promised: what does not hold is said below the table.
fn terminal(lines: &[Line]) -> Table {
    let shown = |mut row: Vec<String>| {
        row.remove(PROMISED);
        row
    };
    let mut table = new_table(&shown(header(lines)));
    for line in lines {
        table.add_row(shown(cells(line)));
    }
    table
}

fn markdown(lines: &[Line], command: &str) -> String {
    let row = |cells: &[String]| format!("| {} |\n", cells.join(" | "));
    let header = header(lines);
    let mut out = format!(
        "`{command}`\n\nFalse: rollbacks of a healthy release, or before the regression began, with Wilson's interval. \
         Delays are from the onset to the end of the tick that decided; a run in which nothing was found counts as later \
         than all others. Wald: the expected time of the best test that knows both rates. The columns of the rivals show \
         false rollbacks of the healthy, or the median delay.\n\n"
    );
    out.push_str(&row(&header));
    out.push_str(&row(&vec!["---".to_owned(); header.len()]));
    lines.iter().for_each(|line| out.push_str(&row(&cells(line))));
    out
}
