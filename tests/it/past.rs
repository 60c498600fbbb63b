//! Days of history of one service, as a Prometheus would have stored them: releases come and go in two slots, some of
//! them bad.

use std::fmt::Write as _;
use std::net::TcpStream;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use flipback::sim::traffic::{Counted, Event, Stream, Traffic};

use crate::stack::{Proc, free_port, now, program, wait_until};

/// A release of the past.
#[derive(Clone)]
pub struct Release {
    /// Seconds after the history's begin.
    pub at_s: u64,
    pub bad: bool,
    /// What it does to its traffic.
    pub events: Vec<Event>,
    /// Somebody moved the traffic back after so long.
    pub reverted_s: Option<u64>,
}

pub struct History {
    pub days: u64,
    pub scrape_s: u64,
    pub rps: f64,
    pub releases: Vec<Release>,
}

/// What is known of a release besides.
pub struct Known {
    pub at_s: i64,
    pub old: &'static str,
    pub new: &'static str,
    pub version: String,
    pub bad: bool,
}

const ERRORS: f64 = 0.002;

/// Counters of what runs in a slot now.
#[derive(Default)]
struct Running {
    version: String,
    began_s: i64,
    ok: f64,
    bad: f64,
    below: Vec<f64>,
    all: f64,
    bounds: Vec<f64>,
}

impl Running {
    fn add(&mut self, c: &Counted) {
        let latency = c.latency.as_ref().unwrap();
        self.ok += c.requests - c.bad;
        self.bad += c.bad;
        self.all += latency.total();
        if self.below.is_empty() {
            (self.below, self.bounds) = (vec![0.0; latency.bounds().len()], latency.bounds().to_vec());
        }
        for (sum, n) in self.below.iter_mut().zip(latency.cumulative()) {
            *sum += n;
        }
    }
}

impl History {
    /// Writes it as OpenMetrics, and says what happened when.
    pub fn write(&self, file: &Path) -> Vec<Known> {
        let end = now().as_millis() / 1000 / 60 * 60 - 120;
        let begin = end - i64::try_from(self.days * 86_400).unwrap();
        let mut known: Vec<Known> = Vec::new();
        let slots = ["blue", "green"];
        let mut running = [Running::default(), Running::default()];
        for r in &mut running {
            (r.version, r.began_s) = ("v1".into(), begin);
        }
        // Families stand together in this format.
        let (mut up, mut requests, mut latency) = (String::new(), String::new(), String::new());
        let (mut live, mut next) = (0usize, 0usize);
        let mut current: Option<(usize, i64)> = None;
        let mut seed = 1;
        let mut at = begin;
        let normal = |at: i64| {
            let day = (at.rem_euclid(86_400)) as f64 / 86_400.0;
            let rps = self.rps * (1.0 + 0.3 * (day * std::f64::consts::TAU).sin());
            let mut traffic = Traffic::steady(rps, ERRORS);
            traffic.latency = true;
            traffic
        };
        while at < end {
            let upcoming = self.releases.get(next).map(|r| begin + i64::try_from(r.at_s).unwrap());
            // A new process two minutes before the switch: its counters begin at nothing.
            if upcoming.is_some_and(|t| at == t - 120) {
                running[1 - live] = Running { version: format!("v{}", next + 2), began_s: at, ..Running::default() };
                running[1 - live].add(&Stream::new(&normal(at), 1, 0, false, 1.0).tick(0.0, 0.0));
            }
            if upcoming.is_some_and(|t| at == t) {
                let release = &self.releases[next];
                known.push(Known {
                    at_s: at,
                    old: slots[live],
                    new: slots[1 - live],
                    version: format!("v{}", next + 2),
                    bad: release.bad,
                });
                live = 1 - live;
                current = Some((next, at));
                next += 1;
            }
            if let Some((i, since)) = current
                && let Some(back) = self.releases[i].reverted_s
                && at == since + i64::try_from(back).unwrap()
            {
                live = 1 - live;
                current = None;
            }
            let step = i64::try_from(self.scrape_s).unwrap();
            let mut traffic = normal(at);
            let from_s = match current {
                Some((i, since)) => {
                    traffic.events.clone_from(&self.releases[i].events);
                    (at - since) as f64
                }
                None => 0.0,
            };
            seed += 1;
            let counted =
                Stream::new(&traffic, seed, 1, current.is_some(), 86_400.0).tick(from_s, from_s + step as f64);
            running[live].add(&counted);
            at += step;
            for (slot, r) in slots.iter().zip(&running) {
                let own = format!("job=\"app\",instance=\"{slot}:80\"");
                writeln!(up, "up{{{own}}} 1 {at}").unwrap();
                let labels = format!("{own},service=\"checkout\",env=\"{slot}\",version=\"{}\"", r.version);
                writeln!(requests, "http_requests_total{{{labels},code=\"200\"}} {} {at}", r.ok).unwrap();
                if r.bad > 0.0 {
                    writeln!(requests, "http_requests_total{{{labels},code=\"500\"}} {} {at}", r.bad).unwrap();
                }
                for (bound, n) in r.bounds.iter().zip(&r.below) {
                    writeln!(latency, "http_request_duration_seconds_bucket{{{labels},le=\"{bound}\"}} {n} {at}")
                        .unwrap();
                }
                if !r.bounds.is_empty() {
                    writeln!(latency, "http_request_duration_seconds_bucket{{{labels},le=\"+Inf\"}} {} {at}", r.all)
                        .unwrap();
                }
            }
        }
        let text = format!(
            "# TYPE up gauge\n{up}# TYPE http_requests counter\n{requests}# TYPE http_request_duration_seconds histogram\n{latency}# EOF\n"
        );
        std::fs::write(file, text).unwrap();
        known
    }
}

/// A Prometheus that holds it, and scrapes nothing.
pub fn serve(dir: &Path, history: &Path) -> (Proc, u16) {
    let made = Command::new(program("promtool"))
        .args(["tsdb", "create-blocks-from", "openmetrics", "--quiet"])
        .args([history, &dir.join("tsdb")])
        .output()
        .unwrap();
    assert!(made.status.success(), "promtool: {}", String::from_utf8_lossy(&made.stderr));
    std::fs::write(dir.join("prometheus.yml"), "global: {scrape_interval: 15s}\n").unwrap();
    let port = free_port();
    let mut command = Command::new(program("prometheus"));
    command
        .arg(format!("--config.file={}", dir.join("prometheus.yml").display()))
        .arg(format!("--storage.tsdb.path={}", dir.join("tsdb").display()))
        .arg("--storage.tsdb.retention.time=90d")
        .arg(format!("--web.listen-address=127.0.0.1:{port}"))
        .arg("--log.level=warn");
    let prometheus = Proc::start("prometheus", dir, &mut command);
    wait_until(Duration::from_secs(60), "Prometheus listens", || {
        TcpStream::connect(("127.0.0.1", port)).is_ok().then_some(())
    });
    (prometheus, port)
}
