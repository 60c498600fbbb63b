//! flipback as it is watched by others: alert rules by promtool, names of metrics, the heartbeat.

use std::collections::BTreeSet;
use std::fs;
use std::io::{Read, Write};
use std::net::TcpListener;
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use regex::Regex;

use crate::bad_requests::Daemon;
use crate::stack::{program, wait_until};

fn monitoring(name: &str) -> String {
    format!("{}/config/monitoring/{name}", env!("CARGO_MANIFEST_DIR"))
}

fn metrics_of(daemon: &Daemon) -> String {
    daemon.http("GET", "/metrics", &[], b"").split_once(' ').unwrap().1.to_owned()
}

#[test]
fn alerts_fire_on_their_troubles_and_on_nothing_else() {
    for args in [["check", "rules", "alerts.yml"], ["test", "rules", "alerts.test.yml"]] {
        let done = Command::new(program("promtool"))
            .args(args)
            .current_dir(Path::new(&monitoring("")).canonicalize().unwrap())
            .output()
            .unwrap();
        let said = format!("{}{}", String::from_utf8_lossy(&done.stdout), String::from_utf8_lossy(&done.stderr));
        assert!(done.status.success(), "{said}");
    }
    // Each of them: one that is tested by nobody is not known to fire.
    let tests = fs::read_to_string(monitoring("alerts.test.yml")).unwrap();
    for line in fs::read_to_string(monitoring("alerts.yml")).unwrap().lines() {
        if let Some(name) = line.trim().strip_prefix("- alert: ") {
            assert!(tests.contains(&format!("  - name: {name}\n")), "{name} has no test");
        }
    }
}

/// What dashboards and alerts ask for is there, and what is there is well formed.
#[test]
fn every_metric_that_is_asked_for_is_exposed() {
    let daemon = Daemon::start();
    // One of each that has labels.
    let _ = daemon.http("GET", "/api/v1/status", &[("Authorization", "Bearer x")], b"");
    let announced = daemon.flipback(&["announce", "checkout", "--old", "blue", "--new", "green"]);
    assert!(announced.status.success());
    let text = metrics_of(&daemon);
    let family = Regex::new(r"(?m)^# TYPE (\S+) (\S+)$").unwrap();
    let mut exposed = BTreeSet::new();
    for found in family.captures_iter(&text) {
        let (name, kind) = (&found[1], &found[2]);
        exposed.extend(match kind {
            "counter" => vec![format!("{name}_total")],
            "histogram" => ["_bucket", "_sum", "_count"].iter().map(|end| format!("{name}{end}")).collect(),
            "info" => vec![format!("{name}_info")],
            _ => vec![name.to_owned()],
        });
    }
    let wanted = Regex::new(r"\b(flipback|process)_[a-z_]+").unwrap();
    let mut asked = 0;
    for file in ["alerts.yml", "grafana.json"] {
        let queries: Vec<String> = fs::read_to_string(monitoring(file))
            .unwrap()
            .lines()
            .filter(|line| !line.contains("description:") && !line.trim_start().starts_with('#'))
            .map(str::to_owned)
            .collect();
        for found in wanted.find_iter(&queries.join("\n")) {
            asked += 1;
            // These come with the first evidence, detector, delivery or answer of a Prometheus.
            let later = [
                "flipback_evidence_ratios",
                "flipback_detectable",
                "flipback_detector_up",
                "flipback_webhook_deliveries_total",
            ];
            if later.contains(&found.as_str()) {
                continue;
            }
            assert!(exposed.contains(found.as_str()), "{file}: {} is not exposed: {exposed:?}", found.as_str());
        }
    }
    assert!(asked >= 30, "{asked}");
    println!("{} families, {asked} uses of them", family.captures_iter(&text).count());
    // Base units and conventional endings, by Prometheus's own linter.
    let mut lint = Command::new(program("promtool"))
        .args(["check", "metrics"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    lint.stdin.take().unwrap().write_all(text.as_bytes()).unwrap();
    let done = lint.wait_with_output().unwrap();
    println!("{}{}", String::from_utf8_lossy(&done.stdout), String::from_utf8_lossy(&done.stderr));
    for name in [
        "flipback_build_info",
        "process_resident_memory_bytes",
        "flipback_watches{",
        "flipback_loop_lag_seconds_bucket",
    ] {
        assert!(text.contains(name), "{name} is missing:\n{text}");
    }
}

/// Counts the requests to it, and the path of the last.
fn receiver() -> (u16, Arc<AtomicUsize>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    let beats = Arc::new(AtomicUsize::new(0));
    let counted = beats.clone();
    std::thread::spawn(move || {
        for mut stream in listener.incoming().flatten() {
            let mut text = [0; 2048];
            let n = stream.read(&mut text).unwrap_or(0);
            if String::from_utf8_lossy(&text[..n]).starts_with("GET /ping/5ecret-uuid ") {
                counted.fetch_add(1, Ordering::Relaxed);
            }
            let _ = stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\nConnection: close\r\n\r\n");
        }
    });
    (port, beats)
}

#[test]
fn the_heartbeat_ends_with_the_loop() {
    let (port, beats) = receiver();
    let more = "\n[heartbeat]\nurl_file = \"@DIR@/heartbeat.url\"\nevery = \"1s\"\n";
    let daemon = Daemon::with_files(more, &[("heartbeat.url", &format!("http://127.0.0.1:{port}/ping/5ecret-uuid\n"))]);
    let soon = Duration::from_secs(20);
    let at_least = |n: usize| wait_until(soon, "beats", || (beats.load(Ordering::Relaxed) >= n).then_some(()));
    at_least(3);
    daemon.proc().signal("-STOP");
    // What was under way may still arrive.
    std::thread::sleep(Duration::from_millis(500));
    let stopped_at = beats.load(Ordering::Relaxed);
    std::thread::sleep(Duration::from_secs(4));
    assert_eq!(beats.load(Ordering::Relaxed), stopped_at, "a process that stands still is not well");
    daemon.proc().signal("-CONT");
    at_least(stopped_at + 2);
    assert!(metrics_of(&daemon).contains("flipback_heartbeats_total"));
    assert!(!daemon.proc().log().contains("5ecret-uuid"), "the address is a secret");
}
