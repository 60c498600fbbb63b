//! flipback reads the slots' own metrics pages: no server, no proxy of others, a file says where the traffic is.

use std::collections::BTreeMap;
use std::fs;
use std::process::{Command, Output};
use std::time::{Duration, Instant};

use serde_json::Value;
use tempfile::TempDir;

use crate::stack::{Options, Permit, Proc, Stack, demo_app, flipback_in, free_port, http, outcome_of, wait_until};

const SOON: Duration = Duration::from_secs(30);

struct Bare {
    slots: BTreeMap<&'static str, Proc>,
    daemon: Option<Proc>,
    load: Option<Proc>,
    _front: Proc,
    ports: BTreeMap<&'static str, u16>,
    dir: TempDir,
    _permit: Permit,
}

impl Bare {
    fn start(soak: &str) -> Bare {
        let permit = Permit::take();
        let dir = TempDir::with_prefix("flipback-bare-").unwrap();
        let ports = BTreeMap::from(["blue", "green", "front"].map(|name| (name, free_port())));
        let text = include_str!("../../demo/bare.toml.in")
            .replace("@DIR@", dir.path().to_str().unwrap())
            .replace("@BLUE@", &ports["blue"].to_string())
            .replace("@GREEN@", &ports["green"].to_string())
            .replace("@SOAK@", soak);
        // One after the other is a test's haste, not a loop.
        let brakes =
            "\n[brakes]\nper_service = { most = 9, within = \"30m\" }\nfleet = { most = 9, within = \"10m\" }\n";
        fs::write(dir.path().join("flipback.toml"), text + brakes).unwrap();
        fs::write(dir.path().join("active"), "blue\n").unwrap();
        let slots = BTreeMap::from(["blue", "green"].map(|slot| (slot, app(&dir, slot, ports[slot]))));
        let mut front = Command::new(demo_app());
        front.args(["front", "--listen", &format!("127.0.0.1:{}", ports["front"]), "--active"]);
        front.arg(dir.path().join("active"));
        front.args(["blue", "green"].map(|slot| format!("{slot}=127.0.0.1:{}", ports[slot])));
        let front = Proc::start("front", dir.path(), &mut front);
        let mut bare = Bare { slots, daemon: None, load: None, _front: front, ports, dir, _permit: permit };
        bare.start_load();
        bare.start_daemon();
        bare
    }

    fn start_load(&mut self) {
        let mut load = Command::new(demo_app());
        load.args(["load", "--url", &format!("http://127.0.0.1:{}/", self.ports["front"])]);
        load.args(["--rps", "200", "--seconds", "300"]);
        self.load = Some(Proc::start("load", self.dir.path(), &mut load));
    }

    fn start_daemon(&mut self) {
        let mut command = Command::new(env!("CARGO_BIN_EXE_flipback"));
        command.arg("run").arg("--config").arg(self.dir.path().join("flipback.toml")).env("FLIPBACK_LOG", "info");
        self.daemon = Some(Proc::start("flipback", self.dir.path(), &mut command));
        wait_until(SOON, "flipback answers", || self.flipback(&["status"]).status.success().then_some(()));
    }

    fn flipback(&self, args: &[&str]) -> Output {
        flipback_in(self.dir.path(), args)
    }

    fn json(&self, args: &[&str]) -> Value {
        let done = self.flipback(&[args, &["-o", "json"]].concat());
        serde_json::from_slice(&done.stdout).unwrap_or(Value::Null)
    }

    fn record_baseline(&self) {
        wait_until(Duration::from_secs(75), "a usable baseline", || {
            self.flipback(&["baseline", "record", "checkout"]);
            (self.json(&["baseline", "show", "checkout"])["baseline"]["quality"] == "good").then_some(())
        });
    }

    fn release(&self, old: &str, new: &str, version: &str) -> String {
        let fresh = self.dir.path().join("active.new");
        fs::write(&fresh, format!("{new}\n")).unwrap();
        fs::rename(&fresh, self.dir.path().join("active")).unwrap();
        let done = self.flipback(&["announce", "checkout", "--old", old, "--new", new, "--version", version]);
        assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
        String::from_utf8_lossy(&done.stdout).trim().to_owned()
    }

    fn active(&self) -> String {
        fs::read_to_string(self.dir.path().join("active")).unwrap_or_default().trim().to_owned()
    }

    fn fault(&self, slot: &str, fault: &str) {
        http(self.ports[slot], "PUT", &format!("/fault?{fault}"));
    }

    fn outcome(&self, id: &str, limit: Duration) -> String {
        wait_until(limit, "the watch's end", || outcome_of(&self.json(&["show", id])))
    }

    /// The app's own count, of all codes and of failures.
    fn counted(&self, slot: &str) -> (f64, f64) {
        let text = http(self.ports[slot], "GET", "/counts");
        let counts: Value = serde_json::from_str(&text).unwrap();
        let of = |codes: &dyn Fn(&str) -> bool| -> f64 {
            let all = counts["by_code"].as_object().unwrap().iter();
            all.filter(|(code, _)| codes(code)).map(|(_, n)| n.as_f64().unwrap()).sum()
        };
        (of(&|_| true), of(&|code| code.starts_with('5')))
    }
}

fn app(dir: &TempDir, slot: &str, port: u16) -> Proc {
    let mut command = Command::new(demo_app());
    command.args(["serve", "--service", "checkout", "--slot", slot, "--version", "v1"]);
    command.args(["--listen", &format!("127.0.0.1:{port}")]);
    Proc::start(slot, dir.path(), &mut command)
}

/// What was read of a slot in a watch.
fn read(account: &Value, slot: &str) -> (f64, f64) {
    let of = |field: &str| -> f64 {
        let all = account["readings"].as_array().unwrap().iter().filter(|r| r["slot"] == slot);
        all.filter_map(|r| r["cell"]["counts"]["value"][field].as_f64()).sum()
    };
    (of("requests"), of("bad"))
}

/// At the switch, and at any phase of a block some seconds later: back within twelve seconds, by three ticks of evidence.
#[test]
fn a_total_outage_is_back_within_twelve_seconds_of_its_beginning() {
    let bare = Bare::start("40s");
    bare.record_baseline();
    let mut slots = ("blue", "green");
    for (n, late_ms) in [0u64, 12_300, 14_100, 16_900].into_iter().enumerate() {
        let (old, new) = slots;
        if late_ms == 0 {
            bare.fault(new, "errors=1");
        }
        let mut began = Instant::now();
        let id = bare.release(old, new, &format!("v{}", n + 2));
        if late_ms > 0 {
            // The fault's own instant is what is measured against.
            while began.elapsed() < Duration::from_millis(late_ms) {
                std::thread::sleep(Duration::from_millis(10));
            }
            bare.fault(new, "errors=1");
            began = Instant::now();
        }
        wait_until(SOON, "the old slot is active again", || (bare.active() == old).then_some(()));
        let took = began.elapsed().as_secs_f64();
        println!("a total outage {late_ms} ms after the switch: back after {took:.1} s");
        // How soon is what is asked here. Whether it recovered is judged against half a minute of normal, in which a
        // latency of some milliseconds on a busy machine is a regression like any other.
        let outcome = bare.outcome(&id, Duration::from_secs(100));
        assert!(outcome.starts_with("rolled_back_"), "{outcome}");
        let view = bare.json(&["show", &id]);
        let ticks = view["breach"]["evidence"][0]["ticks_above"].as_u64().unwrap();
        assert!(ticks >= 3, "the guard against blips held: {ticks} ticks");
        assert!(took < 20.0, "{took}");
        bare.fault(new, "errors=0");
        // What was rolled back is quarantined by its version only.
        slots = (old, new);
    }
}

/// Every request once: over a restart of the app, one of the daemon under load, and births of error series.
#[test]
fn counts_are_the_apps_own_over_restarts() {
    let mut bare = Bare::start("120s");
    bare.record_baseline();
    bare.fault("green", "errors=0.0007");
    let id = bare.release("blue", "green", "v2");
    let ticks = |bare: &Bare| bare.json(&["show", &id])["ticks"].as_u64().unwrap_or(0);
    let pause = |bare: &Bare| {
        let now = ticks(bare);
        wait_until(SOON, "ticks go on", || (ticks(bare) >= now + 3).then_some(()));
    };
    wait_until(SOON, "ticks", || (ticks(&bare) >= 5).then_some(()));
    // The daemon goes and comes while requests flow.
    drop(bare.daemon.take());
    std::thread::sleep(Duration::from_secs(4));
    bare.start_daemon();
    pause(&bare);
    // The app is replaced by another process, which outgrows its past.
    drop(bare.load.take());
    pause(&bare);
    let first = bare.counted("green");
    drop(bare.slots.remove("green"));
    bare.slots.insert("green", app(&bare.dir, "green", bare.ports["green"]));
    wait_until(SOON, "the app is back", || {
        std::net::TcpStream::connect(("127.0.0.1", bare.ports["green"])).is_ok().then_some(())
    });
    bare.start_load();
    wait_until(Duration::from_secs(60), "more than before", || {
        (bare.counted("green").0 > first.0 + 200.0).then_some(())
    });
    drop(bare.load.take());
    pause(&bare);
    let second = bare.counted("green");
    let own = (first.0 + second.0, first.1 + second.1);
    // The socket is asked for the account as the command line does it.
    let account = bare.json(&["report", &id]);
    let found = read(&account, "green");
    println!("the app counted {} and {}, flipback {found:?}", first.0, second.0);
    assert_eq!(found, own);
    assert!(own.0 > 2000.0, "{own:?}");
}

#[test]
fn a_dead_process_is_rolled_back_and_a_page_that_is_none_is_not() {
    let mut bare = Bare::start("60s");
    bare.record_baseline();
    let id = bare.release("blue", "green", "v2");
    bare.slots["green"].signal("-KILL");
    wait_until(SOON, "blue is active again", || (bare.active() == "blue").then_some(()));
    assert_eq!(bare.outcome(&id, Duration::from_secs(100)), "rolled_back_recovered");
    assert!(bare.json(&["show", &id])["breach"]["evidence"].to_string().contains("alive"));
    // A reload keeps what is the same, and takes nothing that is not good.
    let config = bare.dir.path().join("flipback.toml");
    let good = fs::read_to_string(&config).unwrap();
    fs::write(&config, good.replace("/metrics\", health", "/metrics\", helth")).unwrap();
    assert!(!bare.flipback(&["reload"]).status.success());
    fs::write(&config, good.replace("duration = \"60s\"", "duration = \"61s\"")).unwrap();
    assert!(bare.flipback(&["reload"]).status.success());
    // The page is cut off (it takes longer than flipback waits): not seen is not bad.
    bare.slots.insert("green", app(&bare.dir, "green", bare.ports["green"]));
    let id = bare.release("blue", "green", "v3");
    wait_until(SOON, "it is watched", || (bare.json(&["show", &id])["ticks"].as_u64()? > 2).then_some(()));
    bare.fault("green", "metrics_delay_ms=5000");
    std::thread::sleep(Duration::from_secs(15));
    let view = bare.json(&["show", &id]);
    assert!(view["outcome"].is_null() && view["breach"].is_null(), "{view:#}");
    assert_eq!(bare.active(), "green");
    bare.fault("green", "metrics_delay_ms=0");
    let outcome = bare.outcome(&id, Duration::from_secs(150));
    assert!(["passed", "unjudged"].contains(&outcome.as_str()), "{outcome}");
}

/// Beside Prometheus: the normal is what the server remembers, the soak is read at its own pace.
#[test]
fn a_fast_lane_beside_prometheus() {
    let mut stack = Stack::start(&Options::default());
    let page = |slot: &str| stack.port(slot).to_string();
    for slot in ["BLUE", "GREEN"] {
        let health = format!("health = {{ http = \"http://127.0.0.1:{}/healthz\"", page(slot));
        let scrape = format!("scrape = \"http://127.0.0.1:{}/metrics\", {health}", page(slot));
        stack.reconfigure(&health, &scrape);
    }
    stack.reconfigure(
        "[metrics.web]\n",
        "[metrics.web]\nsource = \"scrape\"\nnormal = \"prometheus\"\nevery = \"1s\"\n",
    );
    stack.start_daemon();
    stack.record_baseline();
    let log = fs::read_to_string(stack.dir.path().join("flipback.log")).unwrap();
    assert!(!log.contains("a metrics page is read"), "while nothing is watched nothing is read");
    stack.fault("green", "errors=1");
    stack.switch_to("green");
    let began = Instant::now();
    let id = stack.announce();
    wait_until(SOON, "blue is active again", || (stack.active_slot() == "blue").then_some(()));
    println!("by the fast lane: back after {:.1} s", began.elapsed().as_secs_f64());
    assert_eq!(stack.outcome(&id, Duration::from_secs(100)), "rolled_back_recovered");
    let checked = stack.flipback(&["check", "--live", "checkout"]);
    let said = String::from_utf8_lossy(&checked.stdout).into_owned();
    assert!(said.contains("series of requests") && said.contains("scraped every"), "{said}");
}
