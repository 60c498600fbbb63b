//! `flipback backtest` against a real Prometheus that holds days of releases.

use std::process::{Command, Output};
use std::time::Instant;

use flipback::sim::traffic::Event;
use serde_json::Value;
use tempfile::TempDir;

use crate::past::{History, Known, Release, serve};
use crate::stack::{Permit, Proc};

struct Past {
    known: Vec<Known>,
    prometheus: Proc,
    port: u16,
    _permit: Permit,
    dir: TempDir,
}

const CONFIG: &str = r#"
state_dir = "@DIR@/state"
[prometheus]
url = "http://127.0.0.1:@PORT@"
[metrics.web]
requests = 'http_requests_total{service="$service",env="$slot"}'
errors = 'http_requests_total{service="$service",env="$slot",code=~"5.."}'
latency = 'http_request_duration_seconds_bucket{service="$service",env="$slot"}'
[[service]]
name = "checkout"
metrics = "web"
slots = ["blue", "green"]
"#;

/// A week (or what is asked for) with a release every eleven hours.
fn past() -> Past {
    let permit = Permit::take();
    let setting = |name: &str, default: u64| std::env::var(name).ok().and_then(|v| v.parse().ok()).unwrap_or(default);
    let (days, scrape_s) = (setting("FLIPBACK_PAST_DAYS", 7), setting("FLIPBACK_PAST_SCRAPE_S", 30));
    let more = |ratio| vec![Event::Regression { ratio, from_s: 0.0 }];
    // What went wrong with which: errors, a late regression, latency, an outage; put back by hand, or not noticed.
    let troubles: [(usize, Vec<Event>, Option<u64>); 6] = [
        (2, more(10.0), Some(20 * 60)),
        (4, more(3.0), None),
        (6, vec![Event::Regression { ratio: 5.0, from_s: 900.0 }], Some(3000)),
        (8, vec![Event::Slower { ratio: 2.0 }], Some(45 * 60)),
        (10, vec![Event::Spike { share: 1.0, from_s: 0.0, to_s: 240.0 }], Some(240)),
        // Good ones that look odd: cold caches, and a short blip.
        (
            11,
            vec![
                Event::ColdStart { ratio: 3.0, length_s: 45.0 },
                Event::Spike { share: 0.3, from_s: 700.0, to_s: 703.0 },
            ],
            None,
        ),
    ];
    let releases = (0..)
        .map(|i| (i, 86_400 + 11 * 3600 * i as u64 + 137 * 15 * (i as u64 % 7)))
        .take_while(|(_, at_s)| *at_s + 7200 < days * 86_400)
        .map(|(i, at_s)| {
            let trouble = troubles.iter().find(|(n, ..)| *n == i);
            let (events, reverted_s) = trouble.map_or((Vec::new(), None), |(_, e, r)| (e.clone(), *r));
            Release { at_s: at_s / 60 * 60, bad: trouble.is_some_and(|(n, ..)| *n != 11), events, reverted_s }
        })
        .collect();
    let history = History { days, scrape_s, rps: 50.0, releases };
    let dir = TempDir::with_prefix("flipback-past-").unwrap();
    let began = Instant::now();
    let known = history.write(&dir.path().join("history.om"));
    println!("{days} days written in {:.1} s", began.elapsed().as_secs_f64());
    let (prometheus, port) = serve(dir.path(), &dir.path().join("history.om"));
    println!("... and imported after {:.1} s", began.elapsed().as_secs_f64());
    std::fs::remove_file(dir.path().join("history.om")).unwrap();
    let config = CONFIG.replace("@DIR@", dir.path().to_str().unwrap()).replace("@PORT@", &port.to_string());
    std::fs::write(dir.path().join("flipback.toml"), config).unwrap();
    Past { known, prometheus, port, _permit: permit, dir }
}

impl Past {
    fn backtest(&self, args: &[&str]) -> Output {
        Command::new(env!("CARGO_BIN_EXE_flipback"))
            .args(["backtest", "checkout", "--config"])
            .arg(self.dir.path().join("flipback.toml"))
            .args(args)
            .output()
            .unwrap()
    }

    fn json(&self, args: &[&str]) -> Value {
        let done = self.backtest(&[args, &["-o", "json"]].concat());
        assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
        serde_json::from_slice(&done.stdout).unwrap()
    }
}

fn releases(answer: &Value) -> Vec<&Value> {
    answer["rows"].as_array().unwrap().iter().filter(|row| row["kind"] == "release").collect()
}

fn accused(row: &Value, policy: usize) -> bool {
    let would = &row["plays"][policy]["would"];
    would.get("roll_back").is_some() || would.get("page").is_some()
}

#[test]
fn every_bad_release_of_a_week_is_found_and_no_good_one_accused() {
    let past = past();
    let began = Instant::now();
    let found = past.json(&["--since", "30d"]);
    println!("backtest: {:.1} s", began.elapsed().as_secs_f64());
    println!("{}", String::from_utf8_lossy(&past.backtest(&["--since", "30d"]).stdout));
    let rows = releases(&found);
    assert_eq!(rows.len(), past.known.len(), "{found:#}");
    for (row, known) in rows.iter().zip(&past.known) {
        let at = row["at"].as_i64().unwrap() / 1000;
        assert!((at - known.at_s).abs() <= 15, "{} s off: {row:#}", at - known.at_s);
        assert_eq!((row["old"].as_str(), row["new"].as_str()), (Some(known.old), Some(known.new)));
        assert_eq!(accused(row, 0), known.bad, "{}: {row:#}", known.version);
    }
    // Those that people put back are told apart from releases.
    let reverts = found["rows"].as_array().unwrap().iter().filter(|row| row["kind"] == "revert").count();
    assert_eq!(reverts, 4.min(past.known.iter().filter(|k| k.bad).count()));
    // The plain rules cry at almost everything.
    let tally = |rule: &str| found["tallies"].as_array().unwrap().iter().find(|t| t["rule"] == rule).cloned().unwrap();
    assert_eq!(tally("this policy")["wrongly"], 1, "the one that nobody noticed");
    assert!(tally("naive 1.5×")["wrongly"].as_u64().unwrap() > 3, "{found:#}");
    by_a_list(&past);
    by_versions(&past);
    beside_another_policy(&past);
    as_a_page(&past);
    mistakes_are_named(past);
}

/// The same, as somebody wrote it down.
fn by_a_list(past: &Past) {
    let mut list = String::from("# what the deploy tool's log says\n");
    for k in &past.known {
        let at = chrono::DateTime::from_timestamp(k.at_s, 0).unwrap().to_rfc3339();
        list.push_str(&format!("{at}, {}, {}, {} {}\n", k.old, k.new, k.version, if k.bad { "bad" } else { "good" }));
    }
    let file = past.dir.path().join("releases");
    std::fs::write(&file, list).unwrap();
    let found = past.json(&["--switches", file.to_str().unwrap()]);
    let ours = &found["tallies"][0];
    let bad = past.known.iter().filter(|k| k.bad).count();
    assert_eq!((&ours["found"], &ours["bad"], &ours["wrongly"]), (&bad.into(), &bad.into(), &0.into()), "{ours}");
    assert_eq!(releases(&found).len(), past.known.len());
}

fn by_versions(past: &Past) {
    let found = past.json(&["--version-label", "version"]);
    let versions: Vec<&str> = releases(&found).iter().filter_map(|row| row["version"].as_str()).collect();
    assert_eq!(versions, past.known.iter().map(|k| k.version.as_str()).collect::<Vec<_>>());
}

/// A milder one lets the threefold errors pass, and is no slower with an outage.
fn beside_another_policy(past: &Past) {
    let file = past.dir.path().join("mild.toml");
    std::fs::write(&file, "limits = { ratio = 4.0 }\nsoak = { duration = \"20m\" }\n").unwrap();
    let found = past.json(&["--policy", file.to_str().unwrap()]);
    assert_eq!(found["policies"], serde_json::json!(["this policy", "mild"]));
    let rows = releases(&found);
    let by = |policy: usize| rows.iter().map(|row| accused(row, policy)).collect::<Vec<_>>();
    assert!(by(0)[4] && !by(1)[4], "{:?} {:?}", by(0), by(1));
    assert!(by(0)[2] && by(1)[2]);
}

fn as_a_page(past: &Past) {
    let done = past.backtest(&["-o", "html"]);
    let page = String::from_utf8(done.stdout).unwrap();
    assert!(page.matches("<svg").count() >= past.known.len(), "{}", page.len());
    assert!(!page.contains("http://") || !page.contains("src="), "nothing from elsewhere");
    assert!(page.contains("What a rule of another tool is") && page.contains("of the bad ones"));
    if let Ok(to) = std::env::var("FLIPBACK_BACKTEST_TO") {
        std::fs::write(to, page).unwrap();
    }
}

fn mistakes_are_named(past: Past) {
    let file = past.dir.path().join("wrong");
    let file = file.to_str().unwrap();
    let says = |args: &[&str], text: &str, code: i32, what: &str| {
        std::fs::write(file, text).unwrap();
        let done = past.backtest(args);
        let said = String::from_utf8_lossy(&done.stderr).into_owned();
        assert!(done.status.code() == Some(code) && said.contains(what), "{:?} {said}", done.status);
        assert!(done.stdout.is_empty());
    };
    let list = ["--switches", file];
    says(&list, "2026-11-15T10:00:00Z blue gren v1\n", 2, "wrong:1: checkout has no slot \"gren\"; it has blue, green");
    says(&list, "# none\n\n2026-11-15 blue green\n", 2, "wrong:3: \"2026-11-15\" is no time");
    says(&list, "2026-11-15T10:00:00Z blue blue\n", 2, "it needs a version");
    says(&list, "2026-11-15T10:00:00Z blue green v1 fine\n", 2, "one word too many");
    says(&list, "", 2, "it names no switch");
    says(&["--policy", file], "limits = { ratio = 0.5 }\n", 2, "limits.ratio");
    says(&["--policy", file], "slots = [\"a\"]\n", 2, "is not a key of this table");
    says(&["--since", "1s", "--until", "2d"], "", 2, "is not before");
    let port = past.port;
    drop(past.prometheus);
    let done = Command::new(env!("CARGO_BIN_EXE_flipback"))
        .args(["backtest", "checkout", "--config"])
        .arg(past.dir.path().join("flipback.toml"))
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&done.stderr).into_owned();
    assert!(done.status.code() == Some(75) && said.contains("unreachable"), "{port}: {said}");
}
