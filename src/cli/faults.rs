//! `flipback simulate faults`: the whole daemon against a made world in which everything fails.

use std::num::NonZeroUsize;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Instant;

use clap::Args;
use indicatif::{ProgressBar, ProgressStyle};
use serde::Serialize;

use super::{Global, Output, exit, print, print_json};
use crate::sim::faults::{self, Report};

#[derive(Args)]
pub struct FaultsArgs {
    /// How many seeds to play
    #[arg(long, default_value_t = 200, value_parser = clap::value_parser!(u64).range(1..=10_000_000))]
    seeds: u64,
    /// The first of them
    #[arg(long, default_value_t = 0)]
    from: u64,
    /// Play this one again and tell everything that happens
    #[arg(long, conflicts_with_all = ["seeds", "from"])]
    seed: Option<u64>,
    /// Threads; all cores without
    #[arg(long)]
    jobs: Option<NonZeroUsize>,
}

#[derive(Serialize)]
struct Summary {
    seeds: u64,
    virtual_hours: f64,
    seconds: f64,
    virtual_hours_per_core_second: f64,
    watches: u64,
    rollbacks: u64,
    steps_run: u64,
    crashes: u64,
    notices: u64,
    inputs: u64,
    failed: Vec<Report>,
}

pub fn run(global: &Global, args: &FaultsArgs) -> i32 {
    match args.seed {
        Some(seed) => replay(global, seed),
        None => many(global, args),
    }
}

fn replay(global: &Global, seed: u64) -> i32 {
    let report = faults::run(seed, true);
    if global.output == Output::Json {
        print_json(&report);
    } else {
        let mut text = report.story.join("\n");
        text.push_str(&format!("\nseed {seed}: journal {}, {} watches, ", report.hash, report.watches));
        match &report.violation {
            None => text.push_str("every promise held\n"),
            Some(v) => text.push_str(&format!("promise {} BROKEN at {} s: {}\n", v.promise, v.at_s, v.what)),
        }
        print(&text);
    }
    if report.violation.is_none() { exit::OK } else { exit::FAILED }
}

fn many(global: &Global, args: &FaultsArgs) -> i32 {
    let threads = args.jobs.or_else(|| std::thread::available_parallelism().ok()).map_or(1, usize::from);
    let bar = ProgressBar::new(args.seeds);
    if let Ok(style) = ProgressStyle::with_template("faults [{bar:30}] {pos}/{len} seeds, {eta} left{msg}") {
        bar.set_style(style);
    }
    let began = Instant::now();
    let next = AtomicU64::new(args.from);
    let end = args.from.saturating_add(args.seeds);
    let stop = AtomicBool::new(false);
    let total = Mutex::new(Summary {
        seeds: 0,
        virtual_hours: 0.0,
        seconds: 0.0,
        virtual_hours_per_core_second: 0.0,
        watches: 0,
        rollbacks: 0,
        steps_run: 0,
        crashes: 0,
        notices: 0,
        inputs: 0,
        failed: Vec::new(),
    });
    std::thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(|| {
                loop {
                    let seed = next.fetch_add(1, Ordering::Relaxed);
                    if seed >= end || stop.load(Ordering::Relaxed) {
                        return;
                    }
                    let report = faults::run(seed, false);
                    bar.inc(1);
                    let mut total = total.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
                    total.take(report);
                    if !total.failed.is_empty() {
                        bar.set_message(format!(", {} FAILED", total.failed.len()));
                    }
                    // Some failures are enough to begin with.
                    stop.store(total.failed.len() >= 20, Ordering::Relaxed);
                }
            });
        }
    });
    bar.finish_and_clear();
    let mut total = total.into_inner().unwrap_or_else(std::sync::PoisonError::into_inner);
    total.failed.sort_by_key(|r| r.seed);
    total.seconds = began.elapsed().as_secs_f64();
    total.virtual_hours_per_core_second = total.virtual_hours / total.seconds.max(1e-9) / threads as f64;
    if global.output == Output::Json {
        print_json(&total);
    } else {
        print(&format!(
            "{} seeds, {:.0} virtual hours in {:.1} s on {threads} threads: {:.0} virtual hours per second and core\n\
             {} watches, {} rollbacks, {} steps run, {} crashes, {} notices, {} inputs\n",
            total.seeds,
            total.virtual_hours,
            total.seconds,
            total.virtual_hours_per_core_second,
            total.watches,
            total.rollbacks,
            total.steps_run,
            total.crashes,
            total.notices,
            total.inputs,
        ));
        for report in &total.failed {
            if let Some(v) = &report.violation {
                print(&format!(
                    "seed {}: promise {} BROKEN at {} s: {}\n  again: flipback simulate faults --seed {}\n",
                    report.seed, v.promise, v.at_s, v.what, report.seed
                ));
            }
        }
        if total.failed.is_empty() {
            print("every promise held\n");
        }
    }
    if total.failed.is_empty() { exit::OK } else { exit::FAILED }
}

impl Summary {
    fn take(&mut self, report: Report) {
        self.seeds += 1;
        self.virtual_hours += report.virtual_s as f64 / 3600.0;
        self.watches += report.watches;
        self.rollbacks += report.rollbacks;
        self.steps_run += report.steps_run;
        self.crashes += report.crashes;
        self.notices += report.notices;
        self.inputs += report.inputs;
        if report.violation.is_some() {
            self.failed.push(report);
        }
    }
}
