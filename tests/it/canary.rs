//! Canary secrets: one of each kind is given to flipback, everything is made to use and to fail with them, and then they
//! are looked for in all that came out: logs at the highest level, the journal's files, every answer, mails, pages,
//! exported evidence, arguments and environments of processes.

use std::collections::BTreeMap;
use std::fs;
use std::io::{Read, Write};
use std::net::TcpListener;
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use crate::bad_requests::{Daemon, TOKEN};
use crate::stack::{outcome_of, wait_until};

/// A server that takes anything, remembers it, and answers 401: what was sent to it is where secrets belong.
fn taker() -> (u16, Arc<Mutex<String>>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    let seen: Arc<Mutex<String>> = Arc::default();
    let into = seen.clone();
    std::thread::spawn(move || {
        for mut stream in listener.incoming().flatten() {
            let into = into.clone();
            std::thread::spawn(move || {
                let _ = stream.set_read_timeout(Some(Duration::from_millis(300)));
                // A mail server speaks first, a web server second: this one is both badly.
                let (mut all, mut part) = (Vec::new(), [0; 4096]);
                while let Ok(n) = stream.read(&mut part) {
                    all.extend_from_slice(&part[..n]);
                    if n == 0 {
                        break;
                    }
                }
                into.lock().unwrap().push_str(&String::from_utf8_lossy(&all));
                let _ =
                    stream.write_all(b"HTTP/1.1 401 Unauthorized\r\nContent-Length: 2\r\nConnection: close\r\n\r\nno");
            });
        }
    });
    (port, seen)
}

/// Everything below a directory, as it lies on disk.
fn files(dir: &Path, into: &mut BTreeMap<String, Vec<u8>>) {
    for entry in fs::read_dir(dir).into_iter().flatten().flatten() {
        let path = entry.path();
        if path.is_dir() {
            files(&path, into);
        } else if let Ok(bytes) = fs::read(&path) {
            // What was set aside on the disk is zeros.
            if !bytes.iter().all(|b| *b == 0) {
                into.insert(path.display().to_string(), bytes);
            }
        }
    }
}

/// Arguments and environment of the daemon and all that it started.
fn processes(pid: u32, into: &mut BTreeMap<String, Vec<u8>>) {
    let children = |pid: u32| -> Vec<u32> {
        // A child is listed with the thread that started it.
        let threads = fs::read_dir(format!("/proc/{pid}/task")).into_iter().flatten().flatten();
        let texts = threads.map(|thread| fs::read_to_string(thread.path().join("children")).unwrap_or_default());
        texts
            .flat_map(|text| text.split_whitespace().filter_map(|pid| pid.parse().ok()).collect::<Vec<u32>>())
            .collect()
    };
    let mut all = vec![pid];
    let mut next = 0;
    while next < all.len() {
        all.extend(children(all[next]));
        next += 1;
    }
    for one in all {
        into.insert(format!("arguments of {one}"), fs::read(format!("/proc/{one}/cmdline")).unwrap_or_default());
        if one != pid {
            into.insert(format!("environment of {one}"), fs::read(format!("/proc/{one}/environ")).unwrap_or_default());
        }
    }
}

#[test]
fn no_secret_comes_out_anywhere() {
    let (port, seen) = taker();
    let canary = |name: &str| format!("canary-{name}-5f3a9c1e7d2b4860");
    let names = [
        "prometheus",
        "smtp",
        "slack",
        "teams",
        "pagerduty",
        "webhook-out",
        "webhook-in",
        "step",
        "header",
        "heartbeat",
        "alertmanager",
    ];
    let url = |name: &str| format!("http://127.0.0.1:{port}/{}", canary(name));
    let mut held: Vec<(String, String)> = names.iter().map(|n| ((*n).to_owned(), canary(n))).collect();
    for name in ["slack", "teams", "heartbeat", "alertmanager"] {
        held.iter_mut().find(|(n, _)| n == name).unwrap().1 = url(name);
    }
    let held: Vec<(String, String)> = held.into_iter().map(|(n, t)| (format!("{n}.secret"), t)).collect();
    let files_of: Vec<(&str, &str)> = held.iter().map(|(n, t)| (n.as_str(), t.as_str())).collect();
    let more = format!(
        r#"
mode = "auto"
unverified = true
soak = {{ duration = "30m", tick = "1s" }}
[[service.rollback]]
name = "http step"
on_failure = "next"
limit = "8s"
verify_timeout = "1s"
probe = {{ exec = ["/bin/echo", "green"], expect = "$old" }}
http = {{ method = "POST", url = "http://127.0.0.1:{port}/step", bearer_token_file = "@DIR@/step.secret", secret_headers = [{{ name = "X-Key", file = "@DIR@/header.secret" }}] }}
[[service.rollback]]
name = "what a step sees"
limit = "8s"
verify_timeout = "1s"
exec = ["/usr/bin/python3", "-c", "import os, time; print(dict(os.environ)); time.sleep(2)"]
probe = {{ exec = ["/bin/echo", "green"], expect = "$old" }}
[prometheus.basic_auth]
username = "flipback"
password_file = "@DIR@/prometheus.secret"
[email]
smarthost = "127.0.0.1:{port}"
tls = "none"
from = "flipback@example.org"
to = ["oncall@example.org"]
username = "flipback"
password_file = "@DIR@/smtp.secret"
[[receiver]]
name = "chat"
slack = {{ url_file = "@DIR@/slack.secret" }}
teams = {{ url_file = "@DIR@/teams.secret" }}
[[receiver]]
name = "pager"
pagerduty = {{ routing_key_file = "@DIR@/pagerduty.secret", url = "http://127.0.0.1:{port}/pd" }}
webhook = {{ url = "http://127.0.0.1:{port}/out", secret_file = "@DIR@/webhook-out.secret" }}
[route]
receiver = "chat"
[[route.routes]]
receiver = "pager"
continue = true
[[route.routes]]
receiver = "email"
continue = true
[[route.routes]]
receiver = "chat"
[heartbeat]
url_file = "@DIR@/heartbeat.secret"
every = "1s"
[log]
level = "trace"
[[webhook]]
name = "ours"
from = "standard"
secret_file = "@DIR@/webhook-in.secret"
"#
    );
    let daemon = Daemon::with_files(&more, &files_of);
    let mut out: BTreeMap<String, Vec<u8>> = BTreeMap::new();
    let run = |args: &[&str]| {
        let done = daemon.flipback(args);
        [done.stdout, done.stderr].concat()
    };
    let made = daemon.flipback(&["token", "create", "ci", "--role", "admin", "-o", "json"]).stdout;
    let made: serde_json::Value = serde_json::from_slice(&made).unwrap();
    let made = made["token"].as_str().unwrap().to_owned();

    let announced = daemon.flipback(&["announce", "checkout", "--old", "blue", "--new", "green"]);
    assert!(announced.status.success(), "{announced:?}");
    let id = String::from_utf8_lossy(&announced.stdout).trim().to_owned();
    out.insert("a rollback by hand".into(), run(&["rollback", &id, "--why", "canary"]));
    wait_until(Duration::from_secs(60), "the rollback has ended", || {
        processes(daemon.proc().child.id(), &mut out);
        let view: serde_json::Value =
            serde_json::from_slice(&daemon.flipback(&["show", &id, "-o", "json"]).stdout).ok()?;
        outcome_of(&view)
    });
    let settings = daemon.dir.path().join("flipback.toml");
    for args in [
        &["status", "-o", "json"][..],
        &["status"],
        &["show", &id, "-o", "json"],
        &["show", &id],
        &["history", "-o", "json"],
        &["explain", &id, "--ticks"],
        &["report", &id, "-o", "md"],
        &["report", &id, "-o", "html"],
        &["check", "--live"],
        &["check", settings.to_str().unwrap()],
        &["test", "notify"],
        &["token", "list", "-o", "json"],
        &["journal", "export", &id],
        &["journal", "verify"],
        &["reload"],
    ] {
        out.insert(args.join(" "), run(args));
    }
    for (path, body) in [
        ("/metrics", ""),
        ("/api/v1/status", ""),
        ("/", ""),
        ("/hooks/ours", "{}"),
        ("/api/v1/switches", r#"{"service":"checkout","old":"blue","new":"green","version":"v9"}"#),
    ] {
        let method = if body.is_empty() { "GET" } else { "POST" };
        out.insert(format!("{method} {path}"), daemon.http(method, path, &[], body.as_bytes()).into_bytes());
        // Who sends a wrong token does not read it in the answer.
        let wrong = [("Authorization", "Bearer canary-mistyped-5f3a9c1e7d2b4860")];
        let answer = daemon.http(method, path, &wrong, body.as_bytes());
        assert!(!answer.contains("canary-mistyped"), "{answer}");
    }
    // Every kind of secret was used: it reached the one that it is for.
    let wanted = ["slack", "teams", "pagerduty", "step", "header", "heartbeat"];
    wait_until(Duration::from_secs(60), "each secret is sent where it belongs", || {
        let seen = seen.lock().unwrap();
        wanted.iter().all(|name| seen.contains(&canary(name))).then_some(())
    });
    processes(daemon.proc().child.id(), &mut out);
    out.insert("the log".into(), daemon.proc().log().into_bytes());
    files(&daemon.dir.path().join("state"), &mut out);
    let log = daemon.proc().log();
    assert!(log.contains("level=trace") || log.contains("level=debug"), "the log is not at its highest level");
    assert!(out.keys().any(|k| k.ends_with("-wal") || k.ends_with(".db")), "the journal's files: {:?}", out.keys());
    assert!(out.keys().any(|k| k.starts_with("environment of")), "no child was seen");

    let digits = made.rsplit('_').next().unwrap();
    let mut secrets: Vec<String> = names.iter().map(|name| canary(name)).collect();
    secrets.extend([TOKEN.to_owned(), digits.to_owned(), "canary-mistyped".to_owned()]);
    // As they stand in a header.
    let pair = format!("flipback:{}", canary("prometheus"));
    secrets.push(base64(&pair));
    let mut found = Vec::new();
    for (place, bytes) in &out {
        for secret in secrets.iter().filter(|s| bytes.windows(s.len()).any(|w| w == s.as_bytes())) {
            found.push(format!("{secret} in {place}"));
        }
    }
    println!(
        "{} secrets looked for in {} outputs, {} bytes",
        secrets.len(),
        out.len(),
        out.values().map(Vec::len).sum::<usize>()
    );
    assert!(found.is_empty(), "{found:#?}");
}

fn base64(text: &str) -> String {
    const WORDS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut out = String::new();
    for three in text.as_bytes().chunks(3) {
        let n = three.iter().fold(0u32, |n, b| n << 8 | u32::from(*b)) << (8 * (3 - three.len()));
        for i in 0..=three.len() {
            out.push(WORDS[(n >> (18 - 6 * i) & 63) as usize] as char);
        }
    }
    out.trim_end_matches('=').to_owned()
}
