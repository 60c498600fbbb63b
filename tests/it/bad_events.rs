//! Bad events of each class, with what the sender is told and what the log says: the snapshot is the table.

use std::fmt::Write as _;
use std::fs;
use std::time::Duration;

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use chrono::{SecondsFormat, Utc};
use hmac::{Hmac, KeyInit, Mac};
use sha2::Sha256;

use crate::bad_requests::{Daemon, TOKEN};
use crate::stack::wait_until;

const MORE: &str = r#"
[[webhook]]
name = "github"
from = "github"
secret_file = "@DIR@/token"
map = { service = "checkout" }

[[webhook]]
name = "standard"
from = "standard"
secret_file = "@DIR@/token"

[[webhook]]
name = "ci"
from = "generic"
secret_file = "@DIR@/token"
services = ["search"]
map = { service = "{{ service }}", old = "{{ old }}", new = "{{ new }}", version = "{{ version }}", id = "{{ id }}", switched_at = "{{ at | instant }}", owner = "{{ owner }}" }

[[webhook]]
name = "alerts"
from = "alertmanager"
secret_file = "@DIR@/token"

[[service]]
name = "search"
metrics = "web"
slots = ["blue", "green"]
"#;

fn mac(parts: &[&[u8]]) -> Vec<u8> {
    let mut mac = Hmac::<Sha256>::new_from_slice(TOKEN.as_bytes()).unwrap();
    parts.iter().for_each(|part| mac.update(part));
    mac.finalize().into_bytes().to_vec()
}

fn time(shift_s: i64) -> String {
    (Utc::now() + chrono::Duration::seconds(shift_s)).to_rfc3339_opts(SecondsFormat::Secs, true)
}

/// A delivery of GitHub's: its status's id, the environment and its time.
fn github(id: u32, environment: &str, at: &str) -> String {
    format!(
        "{{\"deployment_status\":{{\"id\":{id},\"state\":\"success\",\"created_at\":\"{at}\"}},\
         \"deployment\":{{\"environment\":\"{environment}\",\"ref\":\"v1.3\",\"payload\":\"\"}},\"repository\":{{\"name\":\"checkout\"}}}}"
    )
}

/// Who sends what to whom.
enum Sent<'a> {
    Github(&'a str),
    /// With another body's signature.
    Forged(&'a str, &'a str),
    Unsigned(&'a str),
    /// Signed so many seconds ago.
    Standard(&'a str, i64),
    Ci(&'a str),
    Alerts(&'a str),
    To(&'a str, &'a str),
    Api(&'a str),
}

fn send(daemon: &Daemon, sent: &Sent<'_>) -> String {
    let token = format!("Bearer {TOKEN}");
    let signed = |body: &str, over: &str| {
        let signature = format!("sha256={}", hex::encode(mac(&[over.as_bytes()])));
        let head = [("X-Hub-Signature-256", signature.as_str()), ("X-GitHub-Event", "deployment_status")];
        daemon.http("POST", "/hooks/github", &head, body.as_bytes())
    };
    match sent {
        Sent::Github(body) => signed(body, body),
        Sent::Forged(body, over) => signed(body, over),
        Sent::Unsigned(body) => {
            daemon.http("POST", "/hooks/github", &[("X-GitHub-Event", "deployment_status")], body.as_bytes())
        }
        Sent::Standard(body, ago_s) => {
            let at = (Utc::now().timestamp() - ago_s).to_string();
            let signature = BASE64_STANDARD.encode(mac(&[b"msg_1.", at.as_bytes(), b".", body.as_bytes()]));
            let signature = format!("v1,{signature}");
            let head = [("webhook-id", "msg_1"), ("webhook-timestamp", &at), ("webhook-signature", &signature)];
            daemon.http("POST", "/hooks/standard", &head, body.as_bytes())
        }
        Sent::Ci(body) => daemon.http("POST", "/hooks/ci", &[("X-Flipback-Token", TOKEN)], body.as_bytes()),
        Sent::Alerts(body) => daemon.http("POST", "/hooks/alerts", &[("Authorization", &token)], body.as_bytes()),
        Sent::To(name, body) => {
            let head = [("Authorization", "Bearer fedcba9876543210fedcba9876543210")];
            daemon.http("POST", &format!("/hooks/{name}"), &head, body.as_bytes())
        }
        Sent::Api(body) => daemon.http("POST", "/api/v1/switches", &[], body.as_bytes()),
    }
}

/// The lines that the log got meanwhile, without their times.
fn logged(daemon: &Daemon, before: usize) -> Vec<String> {
    let read = || {
        let log = daemon.proc().log();
        let new: Vec<String> = log
            .lines()
            .skip(before)
            .filter(|line| {
                let ours =
                    ["a delivery", "an announcement", "alerts fire", "too many deliveries", "a body", "a switch was"];
                ours.iter().any(|start| line.contains(&format!("message=\"{start}")))
            })
            .map(str::to_owned)
            .collect();
        new
    };
    wait_until(Duration::from_secs(5), "a line in the log", || Some(read()).filter(|lines| !lines.is_empty()))
}

#[test]
fn each_bad_event_is_answered_and_logged() {
    let daemon = Daemon::with(MORE);
    let (now, hour, future) = (time(-5), time(-3700), time(300));
    let good = github(1, "green", &now);
    let other = github(1, "blue", &now);
    let (late, early) = (github(2, "green", &hour), github(3, "green", &future));
    let nowhere = github(4, "grene", &now);
    let shell = github(5, "green; reboot", &now);
    let promql = github(6, "green\\\"}[5s])) or vector(0)", &now);
    let lines = github(7, "green\\r\\nBcc: all@example.org", &now);
    let long = github(8, &"g".repeat(200), &now);
    let huge = format!("{{\"x\":\"{}\"}}", "x".repeat(300 * 1024));
    let deep = format!("{{\"x\":{}", "[".repeat(20_000));
    let api = |fields: &str| format!("{{\"service\":\"search\",\"old\":\"blue\",\"new\":\"green\"{fields}}}");
    let ci = |fields: &str| {
        format!("{{\"service\":\"search\",\"old\":\"blue\",\"new\":\"green\",\"version\":\"v1\"{fields}}}")
    };
    let (soon, much, negative) =
        (api(",\"share_percent\":\"5\""), api(",\"share_percent\":101"), api(",\"share_percent\":-1"));
    let (no_flag, link, kinds) = (
        api(",\"kind\":\"flag\",\"flag\":\"none\""),
        api(",\"links\":[\"javascript:alert(1)\"]"),
        api(",\"kind\":\"fleg\""),
    );
    let changes = api(&format!(",\"changes\":[{}]", vec!["\"x\""; 101].join(",")));
    let strange = ci(",\"at\":\"yesterday\"");
    let first = ci(",\"id\":\"run-1\"");
    let markup = ci(",\"id\":\"run-1\",\"owner\":\"<script>\\u0007\\r\\nX: y\"");
    let wrong_old = ci("").replace("v1", "v2");
    let cases: Vec<(&str, Sent<'_>)> = vec![
        ("a good one, to compare", Sent::Github(&good)),
        ("the same delivery again (a replay)", Sent::Github(&good)),
        ("the same id, another body", Sent::Github(&other)),
        ("another body's signature", Sent::Forged(&other, &good)),
        ("no signature", Sent::Unsigned(&good)),
        ("a secret that is not this one's", Sent::To("ci", "{}")),
        ("signed ten minutes ago", Sent::Standard("{\"data\":{}}", 600)),
        ("signed in ten minutes", Sent::Standard("{\"data\":{}}", -600)),
        ("signed, and says nothing", Sent::Standard("{\"data\":{}}", 0)),
        ("switched more than an hour ago", Sent::Github(&late)),
        ("switched in the future", Sent::Github(&early)),
        ("an unknown slot", Sent::Github(&nowhere)),
        ("a shell's command in a slot", Sent::Github(&shell)),
        ("PromQL in a slot", Sent::Github(&promql)),
        ("a header in a slot", Sent::Github(&lines)),
        ("a slot of 200 characters", Sent::Github(&long)),
        ("no JSON", Sent::Github("deployment=green")),
        ("a list", Sent::Github("[]")),
        ("20,000 deep", Sent::Github(&deep)),
        ("300 KiB", Sent::Github(&huge)),
        ("a webhook that is not there", Sent::To("nobody", "{}")),
        ("another's service", Sent::Ci("{\"service\":\"checkout\",\"old\":\"blue\",\"new\":\"green\"}")),
        ("an unknown service", Sent::Api("{\"service\":\"serch\",\"old\":\"blue\",\"new\":\"green\"}")),
        ("a time that is none", Sent::Ci(&strange)),
        ("a wrong type in the payload", Sent::Ci("{\"service\":{\"a\":1},\"new\":[\"green\"]}")),
        ("a share that is a text", Sent::Api(&soon)),
        ("a share of 101 %", Sent::Api(&much)),
        ("a share of -1 %", Sent::Api(&negative)),
        ("an unknown flag", Sent::Api(&no_flag)),
        ("an unknown kind", Sent::Api(&kinds)),
        ("a link that runs", Sent::Api(&link)),
        ("more changes than anybody reads", Sent::Api(&changes)),
        ("a first event of a run", Sent::Ci(&first)),
        ("the same with markup and control characters", Sent::Ci(&markup)),
        ("a wrong old slot", Sent::Ci(&wrong_old)),
        ("alerts of another version", Sent::Alerts("{\"version\":\"3\"}")),
        ("alerts without a list", Sent::Alerts("{\"version\":\"4\"}")),
        (
            "an alert without a service",
            Sent::Alerts("{\"version\":\"4\",\"alerts\":[{\"status\":\"firing\",\"labels\":{}}]}"),
        ),
        (
            "an alert that began never",
            Sent::Alerts(
                "{\"version\":\"4\",\"alerts\":[{\"status\":\"firing\",\"labels\":{\"service\":\"search\"},\"startsAt\":\"x\"}]}",
            ),
        ),
    ];
    let mut table = String::new();
    for (class, sent) in &cases {
        let before = daemon.proc().log().lines().count();
        let answer = send(&daemon, sent);
        let lines = logged(&daemon, before);
        writeln!(table, "{class}\n    {answer}").unwrap();
        for line in lines {
            let line = line.split_once("level=").map_or(line.as_str(), |(_, rest)| rest).to_owned();
            writeln!(table, "    {line}").unwrap();
        }
    }
    insta::with_settings!({ filters => vec![
        (r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?Z", "[time]"),
        (r", \w+ from now", ", [a while] from now"),
    ] }, { insta::assert_snapshot!(table) });
    // What was taken is there once, and nothing of it is more than text.
    let history: serde_json::Value =
        serde_json::from_slice(&daemon.flipback(&["history", "-o", "json"]).stdout).unwrap();
    assert_eq!(history.as_array().map(Vec::len), Some(2), "{history}");
    let owner = history[0]["switch"]["about"]["owner"].as_str().unwrap();
    assert!(!owner.chars().any(char::is_control), "{owner:?}");
    assert!(
        !fs::read_to_string(daemon.dir.path().join("flipback.log")).unwrap().contains(TOKEN),
        "no secret in the log"
    );
}
