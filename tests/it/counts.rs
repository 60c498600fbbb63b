//! Counts from commands and over HTTP: the recipes under config/sources, and a whole watch by each way.

use std::fs;
use std::path::PathBuf;
use std::process::{Command, Output};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use serde_json::{Value, json};
use tempfile::TempDir;

use crate::bench::request;
use crate::stack::{Permit, Proc, flipback_in, free_port, now, outcome_of, program, wait_until};
use crate::stub::{Asked, Stub};

const SOON: Duration = Duration::from_secs(60);

/// A flipback with one service, whose counts come as the text says.
struct Counted {
    daemon: Option<Proc>,
    dir: TempDir,
    _permit: Permit,
}

impl Counted {
    fn new() -> Counted {
        let dir = TempDir::with_prefix("flipback-counts-").unwrap();
        Counted { daemon: None, dir, _permit: Permit::take() }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    fn write(&self, name: &str, text: &str) {
        fs::write(self.path(name), text.replace("@D@", self.dir.path().to_str().unwrap())).unwrap();
    }

    fn start(&mut self, metrics: &str) {
        let head = "state_dir = \"@D@/state\"\n[api]\nsocket = \"@D@/control.sock\"\n";
        let service = "\n[[service]]\nname = \"checkout\"\nmetrics = \"web\"\nmode = \"auto\"\nunverified = true\n\
                       slots = [\"blue\", \"green\"]\nsoak = { duration = \"60s\", tick = \"1s\" }\n\
                       warm_up = { errors = \"2s\", latency = \"2s\" }\nbaseline = { cells_min = 8, requests_min = 300 }\n\
                       [[service.rollback]]\nname = \"file\"\n\
                       file = { path = \"@D@/active\", content = { blue = \"blue\", green = \"green\" } }\n";
        self.write("flipback.toml", &format!("{head}{metrics}{service}"));
        self.write("active", "green");
        let mut command = Command::new(env!("CARGO_BIN_EXE_flipback"));
        command.arg("run").arg("--config").arg(self.path("flipback.toml")).env("FLIPBACK_LOG", "info,flipback=debug");
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

    fn check(&self) -> String {
        String::from_utf8(self.flipback(&["check", "--live", "checkout"]).stdout).unwrap()
    }

    /// The recorded normal of a slot, once there is one.
    fn normal(&self) -> Value {
        wait_until(SOON, "a recorded normal", || {
            self.flipback(&["baseline", "record", "checkout"]);
            let shown = self.json(&["baseline", "show", "checkout"]);
            (shown["baseline"]["quality"] == "good").then(|| shown["baseline"].clone())
        })
    }
}

fn recipe(name: &str, changes: &[(&str, String)]) -> String {
    let path = format!("{}/config/sources/{name}.toml", env!("CARGO_MANIFEST_DIR"));
    let mut text = fs::read_to_string(&path).unwrap_or_else(|e| panic!("{path}: {e}"));
    assert!(text.contains("# Shown against: ") && text.contains("# Permission: "), "{name}");
    for (from, to) in changes {
        assert!(text.contains(from), "{from} is not in the recipe {name}");
        text = text.replace(from, to);
    }
    text
}

#[test]
fn every_recipe_of_a_source_has_its_test() {
    let own = include_str!("counts.rs");
    let mut names = Vec::new();
    for entry in fs::read_dir(format!("{}/config/sources", env!("CARGO_MANIFEST_DIR"))).unwrap().flatten() {
        let name = entry.path().file_stem().unwrap().to_str().unwrap().to_owned();
        assert!(own.contains(&format!("\"{name}\"")), "the recipe {name} has no test");
        names.push(name);
    }
    assert_eq!(names.len(), 4, "{names:?}");
}

/// Twenty-five minutes of a load balancer's metrics, put and asked for by the real command line.
#[test]
fn cloudwatch_by_its_recipe_and_the_real_command_line() {
    let mut counted = Counted::new();
    counted.write("aws-config", "[default]\nregion = us-east-1\ncli_pager =\n");
    counted.write("aws-credentials", "[default]\naws_access_key_id = x\naws_secret_access_key = y\n");
    let port = free_port();
    let moto = concat!(env!("CARGO_MANIFEST_DIR"), "/target/py/bin/moto_server");
    let mut command = Command::new(moto);
    command.args(["-H", "127.0.0.1", "-p", &port.to_string()]);
    let _server = Proc::start("moto", counted.dir.path(), &mut command);
    wait_until(SOON, "moto answers", || (request(port, "GET", "/moto-api/data.json", "").0 == 200).then_some(()));
    let minute = now().as_millis() / 60_000 * 60;
    let mut data = Vec::new();
    for k in 1..=25i64 {
        let at = chrono::DateTime::from_timestamp(minute - 60 * k, 0).unwrap().to_rfc3339();
        let dimensions = json!([{"Name": "TargetGroup", "Value": "targetgroup/checkout-blue"},
                                {"Name": "LoadBalancer", "Value": "app/checkout"}]);
        let datum = |name: &str, n: f64| json!({"MetricName": name, "Dimensions": dimensions, "Timestamp": at, "Value": n, "Unit": "Count"});
        data.push(datum("RequestCount", 200.0 + k as f64));
        if k % 5 == 0 {
            data.push(datum("HTTPCode_Target_5XX_Count", 2.0));
        }
    }
    for part in data.chunks(20) {
        let done = Command::new(program("aws"))
            .args(["--endpoint-url", &format!("http://127.0.0.1:{port}"), "cloudwatch", "put-metric-data"])
            .args(["--namespace", "AWS/ApplicationELB", "--metric-data", &json!(part).to_string()])
            .env("AWS_CONFIG_FILE", counted.path("aws-config"))
            .env("AWS_SHARED_CREDENTIALS_FILE", counted.path("aws-credentials"))
            .output()
            .unwrap();
        assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
    }
    let text = recipe(
        "cloudwatch",
        &[
            ("\"/usr/bin/aws\", ", format!("\"/usr/bin/aws\", \"--endpoint-url\", \"http://127.0.0.1:{port}\", ")),
            ("/etc/flipback/aws/config", "@D@/aws-config".into()),
            ("/etc/flipback/aws/credentials", "@D@/aws-credentials".into()),
        ],
    );
    counted.start(&text);
    let said = counted.check();
    assert!(said.contains("checkout blue counts") && said.contains("5 of 5 cells"), "{said}");
    assert!(said.contains("no cells: is there traffic"), "green has none: {said}");
    let normal = counted.normal();
    let (requests, bad) = (&normal["counts"]["requests"], &normal["counts"]["bad"]);
    // Of twenty-five minutes the last two or three are not complete yet.
    let n = normal["cells"].as_u64().unwrap() / 4;
    assert!((20..=23).contains(&n), "{normal:#}");
    assert!(requests.as_f64().unwrap() > 4000.0 && (8.0..=10.0).contains(&bad.as_f64().unwrap()), "{normal:#}");
}

/// The range and the step of a question.
fn asked_for(asked: &Asked, from: &str, to: &str) -> (i64, i64) {
    let url = reqwest::Url::parse(&format!("http://stub{}", asked.path)).unwrap();
    let of = |name: &str| -> i64 {
        url.query_pairs().find(|(key, _)| key == name).unwrap_or_else(|| panic!("{name}: {url}")).1.parse().unwrap()
    };
    (of(from), of(to))
}

fn grid(from: i64, to: i64, step: i64) -> impl Iterator<Item = i64> {
    (from..to).filter(move |t| t % step == 0)
}

/// As documented: "Query timeseries points", v1. Pointlists in milliseconds, a series for each query that has data.
#[test]
fn datadog_by_its_recipe() {
    let mut counted = Counted::new();
    counted.write("api", "the-api-key\n");
    counted.write("app", "the-app-key\n");
    let stub = Stub::start(|asked| {
        if (asked.header("dd-api-key"), asked.header("dd-application-key")) != ("the-api-key", "the-app-key") {
            return (403, r#"{"errors": ["Forbidden"]}"#.into());
        }
        assert!(asked.path.contains("as_count().rollup(sum,60)"), "{}", asked.path);
        let (from, to) = asked_for(asked, "from", "to");
        let points = |n: &dyn Fn(i64) -> Value| -> Vec<Value> {
            grid(from, to + 60, 60).map(|t| json!([t as f64 * 1000.0, n(t)])).collect()
        };
        let mut series = Vec::new();
        if asked.path.contains("version:blue") {
            series.push(json!({"query_index": 0, "interval": 60, "pointlist": points(&|_| json!(600.0))}));
            let some = |t: i64| if t % 300 == 0 { json!(3.0) } else { Value::Null };
            series.push(json!({"query_index": 1, "interval": 60, "pointlist": points(&some)}));
        }
        (200, json!({"status": "ok", "series": series}).to_string())
    });
    let to = format!("http://127.0.0.1:{}/", stub.port);
    let text = recipe(
        "datadog",
        &[
            ("https://api.datadoghq.eu/", to),
            ("/etc/flipback/datadog.api-key", "@D@/api".into()),
            ("/etc/flipback/datadog.app-key", "@D@/app".into()),
        ],
    );
    counted.start(&text);
    let said = counted.check();
    assert!(said.contains("5 of 5 cells: 3000 requests, 3 errors") && said.contains("no cells"), "{said}");
    let normal = counted.normal();
    assert!(
        (normal["counts"]["bad"].as_f64().unwrap() / normal["counts"]["requests"].as_f64().unwrap() - 0.001).abs()
            < 3e-4
    );
    // Keys are read for each question: a wrong one is refused, and said so.
    counted.write("app", "another\n");
    assert!(counted.check().contains("rejected: http://127.0.0.1"), "{}", counted.check());
}

/// As documented: NerdGraph, NRQL with TIMESERIES: a result for each bucket of time.
#[test]
fn newrelic_by_its_recipe() {
    let mut counted = Counted::new();
    counted.write("key", "NRAK-1\n");
    let stub = Stub::start(|asked| {
        let query = asked.json()["query"].as_str().unwrap_or_default().to_owned();
        if asked.header("api-key") != "NRAK-1" {
            return (200, json!({"errors": [{"message": "Invalid API key"}]}).to_string());
        }
        let number = |after: &str| -> i64 {
            let rest = query.split_once(after).unwrap_or_else(|| panic!("{query}")).1.trim_start();
            rest.split(|c: char| !c.is_ascii_digit()).next().unwrap().parse().unwrap()
        };
        let (from, to, step) = (number("SINCE") / 1000, number("UNTIL") / 1000, number("TIMESERIES"));
        let requests = if query.contains("tags.slot = 'blue'") { 500 } else { 0 };
        let results: Vec<Value> = grid(from, to, step)
            .map(|t| {
                json!({"beginTimeSeconds": t, "endTimeSeconds": t + step, "requests": requests, "errors": 1.min(requests),
                       "le100": requests * 8 / 10, "le250": requests * 98 / 100, "le500": requests, "le1000": requests,
                       "le2500": requests})
            })
            .collect();
        (200, json!({"data": {"actor": {"account": {"nrql": {"results": results}}}}}).to_string())
    });
    let text = recipe(
        "newrelic",
        &[
            ("https://api.eu.newrelic.com/", format!("http://127.0.0.1:{}/", stub.port)),
            ("/etc/flipback/newrelic.key", "@D@/key".into()),
        ],
    );
    counted.start(&text);
    let said = counted.check();
    assert!(said.contains("5 of 5 cells: 2500 requests, 5 errors, with latency"), "{said}");
    let normal = counted.normal();
    assert_eq!(normal["latency"]["bounds"], json!([0.1, 0.25, 0.5, 1.0, 2.5]), "{normal:#}");
    counted.write("key", "NRAK-2\n");
    assert!(counted.check().contains("unusable: answer:"), "{}", counted.check());
}

/// As documented: render with format=json; nulls where nothing was flushed.
#[test]
fn graphite_by_its_recipe() {
    let mut counted = Counted::new();
    let stub = Stub::start(|asked| {
        let (from, to) = asked_for(asked, "from", "until");
        let blue = asked.path.contains("stats_counts.checkout.blue.requests");
        assert!(asked.path.contains("10%20seconds"), "{}", asked.path);
        let points =
            |n: &dyn Fn(i64) -> Value| -> Vec<Value> { grid(from, to, 10).map(|t| json!([n(t), t])).collect() };
        let gap = |t: i64| if t % 120 == 0 { Value::Null } else { json!(100.0) };
        let answer = if blue {
            json!([{"target": "requests", "datapoints": points(&gap)},
                   {"target": "errors", "datapoints": points(&|t| if t % 50 == 0 { json!(1.0) } else { Value::Null })}])
        } else {
            json!([])
        };
        (200, answer.to_string())
    });
    counted.start(&recipe("graphite", &[("http://127.0.0.1:8080/", format!("http://127.0.0.1:{}/", stub.port))]));
    let said = counted.check();
    assert!(said.contains(" of 5 cells: ") && said.contains("no cells"), "{said}");
    let normal = counted.normal();
    let rate = normal["counts"]["bad"].as_f64().unwrap() / normal["counts"]["requests"].as_f64().unwrap();
    assert!((0.0015..0.0025).contains(&rate), "what is absent is not zero: {normal:#}");
}

/// Counts as the documented JSON has them: 100/s, with this share of failures on green.
fn told(from: i64, to: i64, slot: &str, share: f64) -> Value {
    let requests = 100.0;
    let bad = |t: i64| if slot == "green" { (requests * share).round() } else { f64::from(u8::from(t % 10 == 0)) };
    let cells: Vec<Value> =
        (from..to).map(|t| json!({"from": t, "to": t + 1, "requests": requests, "errors": bad(t)})).collect();
    json!({ "cells": cells })
}

/// The same verdicts by an HTTP service, and by a command: a bad release goes back, a good one passes, and a source that
/// fails or says nothing moves nothing.
#[test]
fn verdicts_are_the_same_by_either_way() {
    let share = Arc::new(Mutex::new(Some(0.2)));
    let of = share.clone();
    let stub = Stub::start(move |asked| match *of.lock().unwrap() {
        Some(share) => {
            let (from, to) = asked_for(asked, "from", "to");
            let slot = if asked.path.contains("slot=green") { "green" } else { "blue" };
            (200, told(from, to, slot, share).to_string())
        }
        None => (503, "later".into()),
    });
    let url = format!("http://127.0.0.1:{}/counts?slot=$slot&from=$from_s&to=$to_s", stub.port);
    let http = format!(
        "[metrics.web]\nsource = \"http\"\nevery = \"1s\"\nsettle = \"1s\"\ntimeout = \"2s\"\nhttp = {{ url = \"{url}\" }}\n"
    );
    let command = format!(
        "[metrics.web]\nsource = \"command\"\nevery = \"1s\"\nsettle = \"1s\"\ntimeout = \"4s\"\n\
         exec = [\"/usr/bin/python3\", \"-c\", \"import sys, urllib.request as r; print(r.urlopen(sys.argv[1]).read().decode())\", \"{url}\"]\n"
    );
    for (way, metrics) in [("http", http), ("command", command)] {
        let mut counted = Counted::new();
        *share.lock().unwrap() = Some(0.2);
        counted.start(&metrics);
        counted.normal();
        let announce = |version: &str| {
            counted.write("active", "green");
            let args = ["announce", "checkout", "--old", "blue", "--new", "green", "--version", version];
            let done = counted.flipback(&args);
            assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
            String::from_utf8_lossy(&done.stdout).trim().to_owned()
        };
        let outcome = |id: &str| {
            wait_until(Duration::from_secs(150), "the watch's end", || outcome_of(&counted.json(&["show", id])))
        };
        let id = announce("v2");
        wait_until(SOON, "blue is active again", || {
            (fs::read_to_string(counted.path("active")).unwrap().trim() == "blue").then_some(())
        });
        assert!(outcome(&id).starts_with("rolled_back"), "{way}");
        let view = counted.json(&["show", &id]);
        println!("{way}: breached {}", view["breach"]["evidence"][0]["requests"]);
        // A source that is away is blindness: nothing is moved by it.
        *share.lock().unwrap() = Some(0.0);
        let id = announce("v3");
        wait_until(SOON, "it is watched", || (counted.json(&["show", &id])["ticks"].as_u64()? > 3).then_some(()));
        *share.lock().unwrap() = None;
        std::thread::sleep(Duration::from_secs(12));
        let view = counted.json(&["show", &id]);
        assert!(view["outcome"].is_null() && view["breach"].is_null(), "{view:#}");
        *share.lock().unwrap() = Some(0.0);
        assert_eq!(outcome(&id), "passed", "{way}: {:#}", counted.json(&["show", &id]));
        assert_eq!(fs::read_to_string(counted.path("active")).unwrap().trim(), "green");
    }
}
