//! What the judgement promises, on a real Prometheus that scrapes every second: a fleet of services whose
//! traffic is made (one exporter in this process plays all of them), each with its own kind of release, and
//! one flipback that watches all at once. No warm-up unless said.

use std::fmt::Write as _;
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::sync::{Arc, Mutex};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use flipback::domain::counts::Buckets;
use flipback::sim::traffic::{Counted, Event, Stream, Traffic};
use serde_json::Value;
use tempfile::TempDir;

use crate::stack::{Permit, Proc, free_port, program, wait_until};

/// Recorded normal, in samples of 15 s.
const HISTORY_S: i64 = 3600;

fn now_s() -> f64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs_f64()
}

/// One service: its traffic, what happens to it, and its counters for both slots.
struct Service {
    name: String,
    soak: &'static str,
    warm_up: &'static str,
    blue: Stream<'static>,
    green: Stream<'static>,
    /// One failure and no more, so many seconds after the switch.
    stray_s: Option<f64>,
    /// The old slot serves half of it all along, and has what the new one has.
    shared: bool,
    /// Nobody switches it: what happens to it happens on the old slot.
    unswitched: bool,
    controls: &'static str,
    switched_s: Option<f64>,
    id: String,
    rolled_back: PathBuf,
    counters: [Counters; 2],
}

#[derive(Default, Clone)]
struct Counters {
    ok: f64,
    bad: f64,
    latency: Option<Buckets>,
}

impl Counters {
    fn add(&mut self, c: &Counted) {
        self.ok += c.requests - c.bad;
        self.bad += c.bad;
        let more = c.latency.as_ref().unwrap();
        self.latency = Some(self.latency.as_ref().map_or_else(|| more.clone(), |sum| sum.plus(more).unwrap()));
    }

    fn write(&self, service: &str, slot: &str, out: &mut String, at: &str, own: &str) {
        let Some(latency) = &self.latency else { return };
        let labels = format!("{own}service=\"{service}\",env=\"{slot}\"");
        writeln!(out, "http_requests_total{{{labels},code=\"200\"}} {}{at}", self.ok).unwrap();
        writeln!(out, "http_requests_total{{{labels},code=\"500\"}} {}{at}", self.bad).unwrap();
        let name = "http_request_duration_seconds_bucket";
        for (bound, n) in latency.bounds().iter().zip(latency.cumulative()) {
            writeln!(out, "{name}{{{labels},le=\"{bound}\"}} {n}{at}").unwrap();
        }
        writeln!(out, "{name}{{{labels},le=\"+Inf\"}} {}{at}", latency.total()).unwrap();
    }
}

impl Service {
    fn new(name: &str, soak: &'static str, mut traffic: Traffic) -> Service {
        traffic.latency = true;
        let mut half = traffic.clone();
        half.rps /= 2.0;
        let traffic: &'static Traffic = Box::leak(Box::new(traffic));
        let seed = name.bytes().fold(17, |h: u64, b| h.wrapping_mul(31) + u64::from(b));
        Service {
            name: name.into(),
            soak,
            warm_up: r#"warm_up = { errors = "0s", latency = "0s" }"#,
            blue: Stream::new(traffic, seed, 0, false, 600.0),
            green: Stream::new(traffic, seed, 1, true, 600.0),
            stray_s: None,
            shared: false,
            unswitched: false,
            controls: "[]",
            switched_s: None,
            id: String::new(),
            rolled_back: PathBuf::new(),
            counters: Default::default(),
        }
    }

    fn advance(&mut self, from_s: f64, to_s: f64) {
        let Some(switched_s) = self.switched_s.filter(|_| !self.rolled_back.exists()) else {
            let counted = self.blue.tick(0.0, to_s - from_s);
            return self.counters[0].add(&counted);
        };
        let (from_s, to_s) = ((from_s - switched_s).max(0.0), to_s - switched_s);
        let mut counted = self.green.tick(from_s, to_s);
        if self.stray_s.is_some_and(|at| (from_s..to_s).contains(&at)) {
            counted.bad = 1.0;
            counted.requests = counted.requests.max(1.0);
        }
        if self.unswitched {
            return self.counters[0].add(&counted);
        }
        if self.shared {
            // The same trouble, drawn anew.
            let old = self.green.tick(from_s, to_s);
            self.counters[0].add(&old);
        }
        self.counters[1].add(&counted);
    }
}

struct Exporter {
    services: Vec<Service>,
    last_s: f64,
    began_s: f64,
    scrapes: u32,
}

impl Exporter {
    fn page(&mut self) -> String {
        let now = now_s();
        let mut out = format!("process_start_time_seconds {}\n", self.began_s);
        for s in &mut self.services {
            s.advance(self.last_s, now);
            for (slot, counters) in ["blue", "green"].iter().zip(&s.counters) {
                counters.write(&s.name, slot, &mut out, "", "");
            }
        }
        self.last_s = now;
        self.scrapes += 1;
        out
    }

    /// An hour of every service's normal, as a Prometheus would have stored it.
    fn history(&mut self, port: u16) -> String {
        let end = now_s() as i64 - 3;
        let (own, mut out) = (format!("job=\"app\",instance=\"127.0.0.1:{port}\""), String::new());
        for at in (end - HISTORY_S..=end).step_by(15) {
            writeln!(out, "up{{{own}}} 1 {at}").unwrap();
            writeln!(out, "process_start_time_seconds{{{own}}} {} {at}", self.began_s).unwrap();
        }
        for s in &mut self.services {
            for at in (end - HISTORY_S..=end).step_by(15) {
                let counted = s.blue.tick(0.0, 15.0);
                s.counters[0].add(&counted);
                s.counters[0].write(&s.name, "blue", &mut out, &format!(" {at}"), &format!("{own},"));
            }
        }
        self.last_s = end as f64;
        out + "# EOF\n"
    }
}

fn serve(port: u16, exporter: Arc<Mutex<Exporter>>) {
    let listener = TcpListener::bind(("127.0.0.1", port)).unwrap();
    std::thread::spawn(move || {
        for mut stream in listener.incoming().flatten() {
            let exporter = exporter.clone();
            std::thread::spawn(move || {
                let mut request = [0; 2048];
                // A health check only connects.
                if stream.read(&mut request).is_ok_and(|n| n > 0) {
                    let body = exporter.lock().unwrap().page();
                    let head = "HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nConnection: close";
                    let _ = write!(stream, "{head}\r\nContent-Length: {}\r\n\r\n{body}", body.len());
                }
            });
        }
    });
}

struct Fleet {
    exporter: Arc<Mutex<Exporter>>,
    _prometheus: Proc,
    _daemon: Proc,
    dir: TempDir,
    _permit: Permit,
}

impl Fleet {
    fn start(services: Vec<Service>) -> Fleet {
        let permit = Permit::take();
        let dir = TempDir::with_prefix("flipback-fleet-").unwrap();
        let (app, port) = (free_port(), free_port());
        let mut exporter = Exporter { services, last_s: 0.0, began_s: now_s() - 2.0 * HISTORY_S as f64, scrapes: 0 };
        for s in &mut exporter.services {
            s.rolled_back = dir.path().join(format!("rolled-back-{}", s.name));
        }
        std::fs::write(dir.path().join("history.om"), exporter.history(app)).unwrap();
        let made = Command::new(program("promtool"))
            .args(["tsdb", "create-blocks-from", "openmetrics", "--quiet"])
            .args([dir.path().join("history.om"), dir.path().join("tsdb")])
            .output()
            .unwrap();
        assert!(made.status.success(), "promtool: {}", String::from_utf8_lossy(&made.stderr));
        std::fs::write(dir.path().join("flipback.toml"), config(dir.path(), port, app, &exporter.services)).unwrap();
        let scrape = format!(
            "global: {{scrape_interval: 1s, scrape_timeout: 1s}}\nscrape_configs:\n  - job_name: app\n    static_configs: [{{targets: ['127.0.0.1:{app}']}}]\n"
        );
        std::fs::write(dir.path().join("prometheus.yml"), scrape).unwrap();
        let exporter = Arc::new(Mutex::new(exporter));
        serve(app, exporter.clone());
        let mut command = Command::new(program("prometheus"));
        command
            .arg(format!("--config.file={}", dir.path().join("prometheus.yml").display()))
            .arg(format!("--storage.tsdb.path={}", dir.path().join("tsdb").display()))
            .arg(format!("--web.listen-address=127.0.0.1:{port}"))
            .arg("--log.level=warn");
        let prometheus = Proc::start("prometheus", dir.path(), &mut command);
        wait_until(Duration::from_secs(30), "Prometheus listens", || {
            TcpStream::connect(("127.0.0.1", port)).is_ok().then_some(())
        });
        let mut command = Command::new(env!("CARGO_BIN_EXE_flipback"));
        command.arg("run").arg("--config").arg(dir.path().join("flipback.toml")).env("FLIPBACK_LOG", "warn");
        let daemon = Proc::start("flipback", dir.path(), &mut command);
        let fleet = Fleet { exporter, _prometheus: prometheus, _daemon: daemon, dir, _permit: permit };
        wait_until(Duration::from_secs(30), "flipback answers", || {
            fleet.flipback(&["status"]).status.success().then_some(())
        });
        // The history's samples lie 15 s apart: that they now come every second must be seen first.
        wait_until(Duration::from_secs(30), "eight scrapes", || {
            (fleet.exporter.lock().unwrap().scrapes >= 8).then_some(())
        });
        for name in fleet.names() {
            wait_until(Duration::from_secs(60), &format!("a usable baseline of {name}"), || {
                let shown = fleet.flipback(&["baseline", "show", &name, "-o", "json"]);
                let answer: Value = serde_json::from_slice(&shown.stdout).ok()?;
                (answer["baseline"]["quality"] == "good" && answer["baseline"]["cells"].as_u64()? > 200).then_some(())
            });
        }
        fleet
    }

    fn names(&self) -> Vec<String> {
        self.exporter.lock().unwrap().services.iter().map(|s| s.name.clone()).collect()
    }

    fn flipback(&self, args: &[&str]) -> Output {
        Command::new(env!("CARGO_BIN_EXE_flipback"))
            .args(args)
            .arg("--socket")
            .arg(self.dir.path().join("control.sock"))
            .output()
            .unwrap()
    }

    /// Moves the traffic of every service and says so.
    fn switch_all(&self) {
        for (i, name) in self.names().into_iter().enumerate() {
            {
                let mut exporter = self.exporter.lock().unwrap();
                exporter.services[i].switched_s = Some(now_s());
                if exporter.services[i].unswitched {
                    continue;
                }
            }
            let done = self.flipback(&["announce", &name, "--old", "blue", "--new", "green", "--version", "v2"]);
            assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
            self.exporter.lock().unwrap().services[i].id = String::from_utf8_lossy(&done.stdout).trim().to_owned();
        }
    }

    fn view(&self, name: &str) -> Value {
        let id = self.exporter.lock().unwrap().services.iter().find(|s| s.name == name).unwrap().id.clone();
        let done = self.flipback(&["show", &id, "-o", "json"]);
        serde_json::from_slice(&done.stdout).unwrap_or(Value::Null)
    }

    fn outcome(&self, name: &str, limit: Duration) -> String {
        wait_until(limit, &format!("the end of {name}"), || match &self.view(name)["outcome"] {
            Value::String(word) => Some(word.clone()),
            Value::Object(map) => map.keys().next().cloned(),
            _ => None,
        })
    }

    /// Seconds from the fault (so long after the switch) to the rollback command; `None`: it never ran.
    fn delay_s(&self, name: &str, fault_s: f64) -> Option<f64> {
        let all = self.exporter.lock().unwrap();
        let service = all.services.iter().find(|s| s.name == name).unwrap();
        let ran = std::fs::metadata(&service.rolled_back).ok()?.modified().unwrap();
        Some(ran.duration_since(UNIX_EPOCH).unwrap().as_secs_f64() - service.switched_s? - fault_s)
    }
}

fn config(dir: &Path, prometheus: u16, app: u16, services: &[Service]) -> String {
    let dir = dir.display();
    let mut out = format!(
        r#"state_dir = "{dir}/state"
[prometheus]
url = "http://127.0.0.1:{prometheus}"
[api]
socket = "{dir}/control.sock"
# Many break at once here, and each must be judged by itself.
[brakes]
fleet = {{ most = 100, within = "1m" }}
[metrics.web]
requests = 'http_requests_total{{service="$service",env="$slot"}}'
errors = 'http_requests_total{{service="$service",env="$slot",code=~"5.."}}'
latency = 'http_request_duration_seconds_bucket{{service="$service",env="$slot"}}'
"#
    );
    for s in services {
        let (name, soak, warm_up, controls) = (&s.name, s.soak, s.warm_up, s.controls);
        let back = s.rolled_back.display();
        write!(
            out,
            r#"
[[service]]
name = "{name}"
metrics = "web"
mode = "auto"
slots.blue = {{ health = {{ tcp = "127.0.0.1:{app}" }} }}
slots.green = {{ health = {{ tcp = "127.0.0.1:{app}" }} }}
soak = {{ duration = "{soak}", tick = "1s", extend_max = "0s" }}
{warm_up}
controls = {controls}
unverified = true
recover_within = "30s"
[[service.rollback]]
name = "back"
exec = ["/bin/touch", "{back}"]
timeout = "10s"
"#
        )
        .unwrap();
    }
    out
}

/// The delays of the services whose names begin so, in order; all were rolled back.
fn delays(fleet: &Fleet, prefix: &str, fault_s: impl Fn(usize) -> f64) -> Vec<f64> {
    let names: Vec<String> = fleet.names().into_iter().filter(|n| n.starts_with(prefix)).collect();
    let mut all: Vec<f64> = names
        .iter()
        .enumerate()
        .map(|(i, name)| {
            fleet
                .delay_s(name, fault_s(i))
                .unwrap_or_else(|| panic!("{name} was not rolled back: {}", fleet.view(name)))
        })
        .collect();
    all.sort_by(f64::total_cmp);
    println!("{prefix}: back after {all:.1?} s");
    assert!(all.iter().all(|s| *s > 0.0), "none before its fault");
    all
}

/// Outages, tenfold errors and doubled latency, some at the switch and some later.
const FAULTS_S: [f64; 4] = [0.0, 0.0, 12.3, 21.8];

#[test]
fn what_is_broken_goes_back_within_seconds_and_what_is_well_stays() {
    let mut services = Vec::new();
    for (i, from_s) in FAULTS_S.into_iter().enumerate() {
        let outage = Event::Spike { share: 1.0, from_s, to_s: 1e9 };
        services.push(Service::new(&format!("outage-{i}"), "60s", Traffic::steady(50.0, 0.001).with(outage)));
        let tenfold = Event::Regression { ratio: 10.0, from_s };
        services.push(Service::new(&format!("tenfold-{i}"), "90s", Traffic::steady(200.0, 0.005).with(tenfold)));
        let slower = Event::Slower { ratio: 2.0 };
        services.push(Service::new(&format!("slower-{i}"), "60s", Traffic::steady(200.0, 0.001).with(slower)));
    }
    for i in 0..30 {
        services.push(Service::new(&format!("well-{i}"), "60s", Traffic::steady(100.0, 0.002)));
    }
    let mut stray = Service::new("stray", "60s", Traffic::steady(2.0, 0.0));
    stray.stray_s = Some(20.0);
    services.push(stray);
    let blip = Event::Spike { share: 0.2, from_s: 0.0, to_s: 10.0 };
    let mut blip = Service::new("blip", "90s", Traffic::steady(100.0, 0.002).with(blip));
    blip.warm_up = "";
    services.push(blip);
    let worse = Event::Regression { ratio: 10.0, from_s: 10.0 };
    let mut both = Service::new("both", "90s", Traffic::steady(100.0, 0.005).with(worse));
    both.shared = true;
    services.push(both);
    // What all of them stand on fails: the neighbour that nobody switched shows it too.
    let mut near = Service::new("near", "90s", Traffic::steady(100.0, 0.005).with(worse));
    near.controls = "[\"far\"]";
    services.push(near);
    let mut far = Service::new("far", "90s", Traffic::steady(100.0, 0.005).with(worse));
    far.unswitched = true;
    services.push(far);

    let fleet = Fleet::start(services);
    fleet.switch_all();
    let limit = Duration::from_secs(150);
    for name in fleet.names().into_iter().filter(|name| name != "far") {
        let outcome = fleet.outcome(&name, limit);
        let expected = match name.split('-').next().unwrap() {
            "outage" | "tenfold" | "slower" => "rolled_back_recovered",
            "well" | "blip" => "passed",
            // Two requests a second cannot show a tenfold rise in a minute: health checks can.
            "stray" => "passed",
            "both" | "near" => "withheld",
            other => panic!("{other}"),
        };
        assert_eq!(outcome, expected, "{name}: {}", fleet.view(&name));
    }
    let outage = delays(&fleet, "outage", |i| FAULTS_S[i]);
    let tenfold = delays(&fleet, "tenfold", |i| FAULTS_S[i]);
    let slower = delays(&fleet, "slower", |_| 0.0);
    let worst = |all: &[f64]| *all.last().unwrap();
    assert!(worst(&outage) <= 15.0, "{outage:?}");
    assert!(worst(&tenfold) <= 20.0, "{tenfold:?}");
    assert!(worst(&slower) <= 30.0, "{slower:?}");
    for (name, control) in
        [("both", "blue shows the same: error rate"), ("near", "far (blue) shows the same: error rate")]
    {
        let outcome = fleet.view(name)["outcome"].to_string();
        println!("{name}: {outcome}");
        assert!(outcome.contains(control), "why nothing was moved: {outcome}");
        assert_eq!(fleet.delay_s(name, 0.0), None);
    }
}

#[test]
fn a_doubled_error_rate_is_found_near_walds_bound() {
    let doubled = Event::Regression { ratio: 2.0, from_s: 0.0 };
    let services = (0..15)
        .map(|i| Service::new(&format!("double-{i}"), "400s", Traffic::steady(200.0, 0.005).with(doubled)))
        .collect();
    let fleet = Fleet::start(services);
    fleet.switch_all();
    for name in fleet.names() {
        fleet.outcome(&name, Duration::from_secs(500));
    }
    let mut all: Vec<f64> =
        fleet.names().iter().map(|name| fleet.delay_s(name, 0.0).unwrap_or(f64::INFINITY)).collect();
    all.sort_by(f64::total_cmp);
    // ln(1/alpha) over the information per second: 1 % against a limit of 0.75 %, at 200 requests a second.
    let (p0, p1) = (0.0075_f64, 0.01_f64);
    let wald_s = 1000_f64.ln() / (200.0 * (p1 * (p1 / p0).ln() - p1 + p0));
    println!("doubled: {all:.0?} s; the median is {:.2} of Wald's {wald_s:.0} s", all[7] / wald_s);
    assert!(all[7] <= 2.2 * wald_s, "{all:?}");
}
