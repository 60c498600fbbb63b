//! Bad requests of each class, as the daemon answers them: the snapshot is read as an operator would.

use std::fmt::Write as _;
use std::fs;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::process::{Command, Output};
use std::time::Duration;

use serde_json::Value;
use tempfile::TempDir;

use crate::stack::{Proc, flipback_in, free_port, wait_until};

pub const TOKEN: &str = "0123456789abcdef0123456789abcdef";
const SOON: Duration = Duration::from_secs(15);

/// Class of mistake, method, path, headers in the place of the good ones, body.
type Asked<'a> = (&'a str, &'a str, &'a str, Vec<(&'a str, &'a str)>, &'a str);

/// flipback alone: its Prometheus is a closed port.
pub struct Daemon {
    pub proc: Option<Proc>,
    port: u16,
    pub dir: TempDir,
}

fn config(dir: &TempDir, port: u16, more: &str) -> String {
    let d = dir.path().display();
    format!(
        r#"state_dir = "{d}/state"

[prometheus]
url = "http://127.0.0.1:1"

[api]
listen = "127.0.0.1:{port}"
token_file = "{d}/token"
socket = "{d}/control.sock"

[metrics.web]
requests = 'http_requests_total{{service="$service",env="$slot"}}'
errors = 'http_requests_total{{service="$service",env="$slot",code=~"5.."}}'

[[service]]
name = "checkout"
metrics = "web"
slots = ["blue", "green"]
{more}"#
    )
}

impl Daemon {
    pub fn start() -> Daemon {
        Daemon::with("")
    }

    /// With more at the end of the configuration; `@DIR@` is its directory.
    pub fn with(more: &str) -> Daemon {
        Daemon::with_files(more, &[])
    }

    /// With more files in that directory.
    pub fn with_files(more: &str, files: &[(&str, &str)]) -> Daemon {
        let dir = TempDir::with_prefix("flipback-requests-").unwrap();
        let port = free_port();
        fs::write(dir.path().join("token"), format!("{TOKEN}\n")).unwrap();
        let more = more.replace("@DIR@", dir.path().to_str().unwrap());
        fs::write(dir.path().join("flipback.toml"), config(&dir, port, &more)).unwrap();
        files.iter().for_each(|(name, text)| fs::write(dir.path().join(name), text).unwrap());
        let mut daemon = Daemon { proc: None, port, dir };
        daemon.up();
        daemon
    }

    fn up(&mut self) {
        self.proc = Some(Proc::start("flipback", self.dir.path(), &mut self.command()));
        wait_until(SOON, "flipback is ready", || {
            self.http("GET", "/-/ready", &[], b"").starts_with("200").then_some(())
        });
    }

    fn command(&self) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_flipback"));
        command.arg("run").arg("--config").arg(self.path("flipback.toml"));
        command
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    pub fn port(&self) -> u16 {
        self.port
    }

    pub fn base(&self) -> String {
        format!("http://127.0.0.1:{}", self.port)
    }

    pub fn proc(&self) -> &Proc {
        self.proc.as_ref().unwrap()
    }

    /// Status and body; `head` may replace the token and the content type.
    pub fn http(&self, method: &str, path: &str, head: &[(&str, &str)], body: &[u8]) -> String {
        let Ok(mut stream) = TcpStream::connect(("127.0.0.1", self.port)) else { return "no connection".into() };
        stream.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
        let mut headers = vec![("Host", "localhost"), ("Connection", "close")];
        let bearer = format!("Bearer {TOKEN}");
        for (name, value) in [("Authorization", bearer.as_str()), ("Content-Type", "application/json")] {
            if !head.iter().any(|(n, _)| *n == name) {
                headers.push((name, value));
            }
        }
        headers.extend(head.iter().filter(|(_, value)| !value.is_empty()));
        let length = body.len().to_string();
        headers.push(("Content-Length", &length));
        let mut text = format!("{method} {path} HTTP/1.1\r\n");
        for (name, value) in headers {
            write!(text, "{name}: {value}\r\n").unwrap();
        }
        text.push_str("\r\n");
        // The server may answer (and close) before it has read a body that is too large.
        let _ = stream.write_all(text.as_bytes()).and_then(|()| stream.write_all(body));
        let mut answer = Vec::new();
        let _ = stream.read_to_end(&mut answer);
        let answer = String::from_utf8_lossy(&answer);
        let (head, body) = answer.split_once("\r\n\r\n").unwrap_or((&answer, ""));
        let status = head.split_whitespace().nth(1).unwrap_or("no status");
        format!("{status} {}", body.trim())
    }

    fn json(&self, body: &str) -> String {
        self.http("POST", "/api/v1/switches", &[], body.as_bytes())
    }

    pub fn flipback(&self, args: &[&str]) -> Output {
        flipback_in(self.dir.path(), args)
    }

    fn over_http(&self, args: &[&str]) -> Output {
        Command::new(env!("CARGO_BIN_EXE_flipback"))
            .args(args)
            .arg("--url")
            .arg(format!("http://127.0.0.1:{}", self.port))
            .arg("--token-file")
            .arg(self.path("token"))
            .output()
            .unwrap()
    }
}

fn code(output: &Output) -> i32 {
    output.status.code().unwrap_or(-1)
}

fn out(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).trim().to_owned()
}

fn err(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).trim().to_owned()
}

/// Instants in answers change from run to run.
fn steady(text: &str) -> String {
    let mut steady = String::new();
    let mut rest = text;
    while let Some(at) = rest.find("(it is 20") {
        steady.push_str(&rest[..at]);
        steady.push_str("(it is NOW");
        rest = &rest[at + "(it is 2026-11-21T14:02:07Z".len()..];
    }
    steady + rest
}

#[test]
fn each_bad_request_is_told_what_is_wrong_with_it() {
    let daemon = Daemon::start();
    let long = "x".repeat(200);
    let fields: Vec<(&str, String)> = vec![
        ("nothing at all", String::new()),
        ("broken JSON", r#"{"service": "checkout", "old": }"#.into()),
        ("unfinished JSON", r#"{"service": "checkout""#.into()),
        ("trailing text", r#"{"service":"checkout","old":"blue","new":"green","version":"v1"} x"#.into()),
        ("a list", r#"["checkout"]"#.into()),
        ("a text", r#""checkout""#.into()),
        ("null", "null".into()),
        ("too deep", format!("{}{}", "[".repeat(400), "]".repeat(400))),
        ("no service", r#"{"old":"blue","new":"green"}"#.into()),
        ("no old", r#"{"service":"checkout","new":"green"}"#.into()),
        ("no new", r#"{"service":"checkout","old":"blue"}"#.into()),
        ("null for a name", r#"{"service":null,"old":"blue","new":"green"}"#.into()),
        ("a number for a name", r#"{"service":7,"old":"blue","new":"green"}"#.into()),
        ("a list for a slot", r#"{"service":"checkout","old":["blue"],"new":"green"}"#.into()),
        ("empty name", r#"{"service":"","old":"blue","new":"green"}"#.into()),
        ("blank in a name", r#"{"service":"check out","old":"blue","new":"green"}"#.into()),
        ("too long", format!(r#"{{"service":"checkout","old":"{long}","new":"green"}}"#)),
        ("a shell in a slot", r#"{"service":"checkout","old":"$(reboot)","new":"green"}"#.into()),
        ("PromQL in a slot", r#"{"service":"checkout","old":"blue","new":"x\"}[5s])) or vector(0)"}"#.into()),
        ("HTML in a version", r#"{"service":"checkout","old":"blue","new":"green","version":"<script>"}"#.into()),
        (
            "a line break in a version",
            r#"{"service":"checkout","old":"blue","new":"green","version":"v1\r\nBcc: x"}"#.into(),
        ),
        ("a dash first", r#"{"service":"checkout","old":"-rf","new":"green"}"#.into()),
        ("not ASCII", r#"{"service":"checkout","old":"bläu","new":"green"}"#.into()),
        ("unknown service", r#"{"service":"chekout","old":"blue","new":"green"}"#.into()),
        ("unknown slot", r#"{"service":"checkout","old":"blue","new":"gren"}"#.into()),
        ("same slot, no version", r#"{"service":"checkout","old":"blue","new":"blue"}"#.into()),
        (
            "same slot, same version",
            r#"{"service":"checkout","old":"blue","new":"blue","version":"v1","old_version":"v1"}"#.into(),
        ),
        ("misspelt field", r#"{"service":"checkout","old":"blue","new":"green","verison":"v1"}"#.into()),
        ("unknown field", r#"{"service":"checkout","old":"blue","new":"green","colour":"red"}"#.into()),
        ("bad old_version", r#"{"service":"checkout","old":"blue","new":"green","old_version":"a b"}"#.into()),
        ("bad id", r#"{"service":"checkout","old":"blue","new":"green","id":"a b"}"#.into()),
        ("a number for an id", r#"{"service":"checkout","old":"blue","new":"green","id":17}"#.into()),
        ("bad time", r#"{"service":"checkout","old":"blue","new":"green","switched_at":"yesterday"}"#.into()),
        (
            "time without a zone",
            r#"{"service":"checkout","old":"blue","new":"green","switched_at":"2026-11-21T14:02:07"}"#.into(),
        ),
        (
            "too late",
            r#"{"service":"checkout","old":"blue","new":"green","switched_at":"2020-01-01T00:00:00Z"}"#.into(),
        ),
        (
            "in the future",
            r#"{"service":"checkout","old":"blue","new":"green","switched_at":"2099-01-01T00:00:00Z"}"#.into(),
        ),
        ("bad rollback", r#"{"service":"checkout","old":"blue","new":"green","rollback":"never"}"#.into()),
        ("a flag for rollback", r#"{"service":"checkout","old":"blue","new":"green","rollback":false}"#.into()),
        ("a text for a flag", r#"{"service":"checkout","old":"blue","new":"green","assume_old":"yes"}"#.into()),
        ("a key twice", r#"{"service":"checkout","service":"other","old":"blue","new":"green"}"#.into()),
    ];
    let mut text = String::new();
    for (class, body) in fields {
        let shown: String = body.chars().take(120).collect();
        writeln!(text, "### {class}\n{shown}\n{}\n", steady(&daemon.json(&body))).unwrap();
    }
    let token = ("Authorization", "");
    let requests: Vec<Asked<'_>> = vec![
        ("not UTF-8 type", "POST", "/api/v1/switches", vec![("Content-Type", "text/plain")], "{}"),
        ("no type", "POST", "/api/v1/switches", vec![("Content-Type", "")], "{}"),
        (
            "a form",
            "POST",
            "/api/v1/switches",
            vec![("Content-Type", "application/x-www-form-urlencoded")],
            "service=checkout",
        ),
        ("no token", "POST", "/api/v1/switches", vec![token], "{}"),
        ("wrong token", "POST", "/api/v1/switches", vec![("Authorization", "Bearer nope")], "{}"),
        ("another scheme", "GET", "/api/v1/status", vec![("Authorization", "Basic YTpi")], ""),
        ("wrong method", "GET", "/api/v1/switches", vec![], ""),
        ("wrong method, no token", "DELETE", "/api/v1/status", vec![token], ""),
        ("no such path", "GET", "/api/v2/status", vec![], ""),
        ("no such watch", "GET", "/api/v1/watches/checkout-99", vec![], ""),
        ("bad id in the path", "GET", "/api/v1/watches/a%20b", vec![], ""),
        ("a path in the path", "GET", "/api/v1/watches/..%2F..%2Fetc%2Fpasswd", vec![], ""),
        ("approve what is not there", "POST", "/api/v1/watches/checkout-99/approve", vec![], "{}"),
        ("approve with a field", "POST", "/api/v1/watches/checkout-99/approve", vec![], r#"{"sure":true}"#),
        ("decline what is not there", "POST", "/api/v1/watches/checkout-99/decline", vec![], ""),
        ("cancel what is not there", "POST", "/api/v1/watches/checkout-99/cancel", vec![], ""),
        ("cancel with a number", "POST", "/api/v1/watches/checkout-99/cancel", vec![], r#"{"why":3}"#),
        ("disarm an unknown service", "POST", "/api/v1/disarm", vec![], r#"{"service":"chekout"}"#),
        ("disarm with a list", "POST", "/api/v1/disarm", vec![], r#"["checkout"]"#),
        ("a verb that is none", "POST", "/api/v1/watches/checkout-99/stop", vec![], "{}"),
        ("pause what is not there", "POST", "/api/v1/watches/checkout-99/pause", vec![], ""),
        ("pause without a unit", "POST", "/api/v1/watches/checkout-1/pause", vec![], r#"{"for":"15"}"#),
        ("pause for a week", "POST", "/api/v1/watches/checkout-1/pause", vec![], r#"{"for":"1w"}"#),
        ("pause with a number", "POST", "/api/v1/watches/checkout-1/pause", vec![], r#"{"for":900}"#),
        ("resume with a length", "POST", "/api/v1/watches/checkout-1/resume", vec![], r#"{"for":"5m"}"#),
        ("extend by nothing", "POST", "/api/v1/watches/checkout-1/extend", vec![], "{}"),
        ("drill what is not there", "POST", "/api/v1/services/search/drill", vec![], "{}"),
        ("drill with a bad name", "POST", "/api/v1/services/a%20b/drill", vec![], "{}"),
        ("drill by a word", "POST", "/api/v1/services/checkout/drill", vec![], r#"{"real":"yes"}"#),
        ("a sample to nobody", "POST", "/api/v1/test/notify", vec![], r#"{"receiver":"nobody"}"#),
        ("a sample of no kind", "POST", "/api/v1/test/notify", vec![], r#"{"kind":"broken"}"#),
        ("a sample with a strange field", "POST", "/api/v1/test/notify", vec![], r#"{"to":"me"}"#),
        ("a sample to a list", "POST", "/api/v1/test/notify", vec![], r#"{"receiver":["a"]}"#),
        ("acknowledge what is not there", "POST", "/api/v1/watches/nothing-9/ack", vec![], "{}"),
        ("acknowledge with a strange field", "POST", "/api/v1/watches/checkout-1/ack", vec![], r#"{"for":"1h"}"#),
        ("drill by GET", "GET", "/api/v1/services/checkout/drill", vec![], ""),
        ("arm with a bad name", "POST", "/api/v1/arm", vec![], r#"{"service":"a b"}"#),
        ("query: bad limit", "GET", "/api/v1/watches?limit=many", vec![], ""),
        ("query: unknown", "GET", "/api/v1/watches?colour=red", vec![], ""),
        ("query: unknown outcome", "GET", "/api/v1/watches?outcome=nice", vec![], ""),
        ("query: no instant", "GET", "/api/v1/watches?since=yesterday", vec![], ""),
        ("query: no place", "GET", "/api/v1/watches/checkout-1/account?after=then", vec![], ""),
        ("query: bad service", "GET", "/api/v1/watches?service=a%20b", vec![], ""),
        ("baseline of nothing", "GET", "/api/v1/baseline/chekout", vec![], ""),
        ("baseline: unknown verb", "POST", "/api/v1/baseline/checkout/forget", vec![], "{}"),
        ("baseline: pin nothing", "POST", "/api/v1/baseline/checkout/pin", vec![], "{}"),
        (
            "baseline: pin backwards",
            "POST",
            "/api/v1/baseline/checkout/pin",
            vec![],
            r#"{"from":"2026-11-21T14:00:00Z","to":"2026-11-21T13:00:00Z"}"#,
        ),
        ("baseline: pin a bad time", "POST", "/api/v1/baseline/checkout/pin", vec![], r#"{"from":"now","to":"later"}"#),
        (
            "baseline: invalidate half",
            "POST",
            "/api/v1/baseline/checkout/invalidate",
            vec![],
            r#"{"from":"2026-11-21T14:00:00Z"}"#,
        ),
        ("baseline: no Prometheus", "POST", "/api/v1/baseline/checkout/record", vec![], "{}"),
        ("check an unknown service", "POST", "/api/v1/check", vec![], r#"{"service":"chekout"}"#),
    ];
    for (class, method, path, head, body) in requests {
        let answer = daemon.http(method, path, &head, body.as_bytes());
        writeln!(text, "### {class}\n{method} {path} {body}\n{answer}\n").unwrap();
    }
    let flood = format!(r#"{{"service":"{}"}}"#, "x".repeat(70_000));
    writeln!(text, "### too large\nPOST /api/v1/switches (70 kB)\n{}\n", daemon.json(&flood)).unwrap();
    insta::assert_snapshot!("bad_requests", text);
    // None of them left a trace.
    let history: Value = serde_json::from_slice(&daemon.flipback(&["history", "-o", "json"]).stdout).unwrap();
    assert_eq!(history, Value::Array(Vec::new()));
}

#[test]
fn every_route_but_the_health_ones_asks_for_the_token() {
    let daemon = Daemon::start();
    for path in ["/-/healthy", "/-/ready", "/metrics"] {
        assert!(daemon.http("GET", path, &[("Authorization", "")], b"").starts_with("200"), "{path}");
    }
    // As the router has them; a new route belongs here.
    let source = include_str!("../../src/edge/api/routes.rs");
    let routes: Vec<&str> = source
        .match_indices(".route(\"")
        .map(|(at, m)| {
            let rest = &source[at + m.len()..];
            &rest[..rest.find('"').unwrap()]
        })
        .collect();
    assert!(routes.len() > 14, "{routes:?}");
    // A webhook proves itself by a secret of its own: `bad_events` has what happens without it.
    let open = ["/-/healthy", "/-/ready", "/metrics", "/hooks/{name}"];
    for path in routes.iter().filter(|p| !open.contains(*p)) {
        let path = path.replace("{id}", "checkout-1").replace("{service}", "checkout").replace("{verb}", "record");
        for method in ["GET", "POST"] {
            for header in ["", "Bearer ", "Bearer 0123456789abcdef0123456789abcdeX"] {
                let answer = daemon.http(method, &path, &[("Authorization", header)], b"{}");
                assert!(answer.starts_with("401 "), "{method} {path} {header:?}: {answer}");
            }
        }
    }
}

#[test]
fn an_announcement_is_durable_known_and_contradicted() {
    let mut daemon = Daemon::start();
    let body = r#"{"service":"checkout","old":"blue","new":"green","version":"v1","id":"deploy-1"}"#;
    assert_eq!(daemon.json(body), r#"202 {"status":"success","data":{"id":"checkout-1","result":"accepted"}}"#);
    // An answer is a promise: it holds over a kill that nobody was warned of.
    daemon.proc().signal("-KILL");
    daemon.proc = None;
    daemon.up();
    assert_eq!(daemon.json(body), r#"200 {"status":"success","data":{"id":"checkout-1","result":"known"}}"#);
    let other = body.replace("v1", "v2");
    assert!(daemon.json(&other).starts_with("409 "), "{}", daemon.json(&other));
    let wrong = daemon.json(r#"{"service":"checkout","old":"blue","new":"green","version":"v3"}"#);
    assert!(wrong.starts_with("409 ") && wrong.contains("checkout is on green"), "{wrong}");
}

#[test]
fn the_command_line_tells_by_its_exit_code() {
    let mut daemon = Daemon::start();
    let announce = ["announce", "checkout", "--old", "blue", "--new", "green", "--version", "v1"];
    let done = daemon.flipback(&announce);
    assert_eq!(
        (code(&done), out(&done).as_str(), err(&done).as_str()),
        (0, "checkout-1", "flipback: checkout-1 is watched")
    );
    let again = daemon.over_http(&announce);
    assert_eq!((code(&again), out(&again).as_str()), (0, "checkout-1"));
    assert_eq!(err(&again), "flipback: checkout-1 watches this switch already");

    for args in [vec!["status"], vec!["show", "checkout-1"], vec!["history"], vec!["baseline", "show", "checkout"]] {
        let plain = daemon.flipback(&args);
        assert_eq!(code(&plain), 0, "{args:?}: {}", err(&plain));
        assert!(!out(&plain).chars().any(|c| c.is_control() && c != '\n'), "{args:?} when piped: {:?}", out(&plain));
        for asked in [
            daemon.flipback(&[&args[..], &["-o", "json"]].concat()),
            daemon.over_http(&[&args[..], &["-o", "json"]].concat()),
        ] {
            assert_eq!(code(&asked), 0, "{args:?}: {}", err(&asked));
            let _: Value = serde_json::from_slice(&asked.stdout).unwrap_or_else(|e| panic!("{args:?}: {e}"));
        }
    }
    for (args, expected, said) in [
        (vec!["announce", "chekout", "--old", "blue", "--new", "green"], 2, "there is no service chekout"),
        (vec!["announce", "checkout", "--old", "blue"], 2, "--new"),
        (vec!["show", "checkout-99"], 2, "there is no watch checkout-99"),
        (vec!["approve", "checkout-1"], 2, "asks nothing"),
        (vec!["decline", "checkout-99"], 2, "there is no watch"),
        (vec!["arm"], 2, "--all"),
        (vec!["disarm", "chekout"], 2, "there is no service chekout"),
        (vec!["wait", "checkout-1", "--timeout", "1s"], 124, "has not ended yet"),
        (vec!["wait", "checkout-1", "--timeout", "soon"], 2, "not a duration"),
        (vec!["nonsense"], 2, "nonsense"),
    ] {
        let done = daemon.flipback(&args);
        assert_eq!(code(&done), expected, "{args:?}: {}", err(&done));
        assert!(err(&done).contains(said) && out(&done).is_empty(), "{args:?}: {} / {}", err(&done), out(&done));
    }
    for (args, said) in [
        (vec!["disarm", "checkout"], "checkout disarmed by"),
        (vec!["arm", "checkout"], "checkout armed by"),
        (vec!["disarm", "--all"], "flipback disarmed by"),
        (vec!["arm", "--all"], "flipback armed by"),
        (vec!["reload"], ""),
        (vec!["cancel", "checkout-1", "--why", "test"], "checkout-1 cancelled; no traffic was moved"),
    ] {
        let done = daemon.flipback(&args);
        assert_eq!(code(&done), 0, "{args:?}: {}", err(&done));
        assert!(out(&done).starts_with(said), "{args:?}: {}", out(&done));
    }
    assert_eq!(code(&daemon.flipback(&["wait", "checkout-1"])), 4, "cancelled is no verdict");

    // A reader that goes away is no error.
    let mut piped = Command::new("/bin/sh");
    let line = format!(
        "{} history --socket {} | head -c 0",
        env!("CARGO_BIN_EXE_flipback"),
        daemon.path("control.sock").display()
    );
    let done = piped.arg("-c").arg(line).output().unwrap();
    assert!(err(&done).is_empty(), "{}", err(&done));

    // Down: what was is read from the state directory, and said to be old.
    daemon.proc = None;
    let down = daemon.flipback(&["status"]);
    assert_eq!(code(&down), 75, "{}", out(&down));
    assert!(err(&down).contains("cannot be reached"), "{}", err(&down));
    let shown = daemon.flipback(&["show", "checkout-1", "-o", "json"]);
    let view: Value = serde_json::from_slice(&shown.stdout).unwrap();
    assert_eq!(view["id"], "checkout-1");
    assert_eq!(code(&daemon.flipback(&announce)), 75);
}

#[test]
fn disarmed_outlives_a_kill() {
    let mut daemon = Daemon::start();
    assert_eq!(code(&daemon.flipback(&["disarm", "--all"])), 0);
    daemon.proc().signal("-KILL");
    daemon.proc = None;
    daemon.up();
    let status: Value = serde_json::from_slice(&daemon.flipback(&["status", "-o", "json"]).stdout).unwrap();
    assert_eq!(status["armed"], false);
}

#[test]
fn a_second_daemon_is_refused_and_takes_nothing() {
    let daemon = Daemon::start();
    let second = daemon.command().output().unwrap();
    assert_eq!(code(&second), 73, "{}", err(&second));
    let pid = daemon.proc().child.id().to_string();
    assert!(err(&second).contains(&pid), "it names the first one: {}", err(&second));
    assert_eq!(code(&daemon.flipback(&["status"])), 0, "the first still has its socket");
}

#[test]
fn a_bad_configuration_is_78_at_start_and_changes_nothing_at_reload() {
    let daemon = Daemon::start();
    let file = daemon.path("flipback.toml");
    let good = fs::read_to_string(&file).unwrap();
    let metric = |line: &str| daemon.http("GET", "/metrics", &[], b"").lines().any(|l| l == line);
    assert!(metric("flipback_config_last_reload_successful 1"), "{}", daemon.http("GET", "/metrics", &[], b""));
    for bad in [good.replace("name = \"checkout\"", "nmae = \"checkout\""), good[..good.len() / 2].to_owned()] {
        fs::write(&file, &bad).unwrap();
        daemon.proc().signal("-HUP");
        wait_until(SOON, "the refused reload shows", || {
            metric("flipback_config_last_reload_successful 0").then_some(())
        });
        let asked = daemon.flipback(&["reload"]);
        assert_eq!(code(&asked), 2);
        assert!(err(&asked).contains("flipback.toml:"), "the place is named: {}", err(&asked));
        let status = out(&daemon.flipback(&["status"]));
        assert!(status.contains("checkout"), "the old configuration stands: {status}");
    }
    // Truncated at each byte it is refused or whole, and the daemon lives.
    for cut in (0..good.len()).step_by(97) {
        fs::write(&file, &good[..cut]).unwrap();
        let asked = daemon.flipback(&["reload"]);
        assert!([0, 2].contains(&code(&asked)), "cut at {cut}: {}", err(&asked));
    }
    fs::write(&file, &good).unwrap();
    daemon.proc().signal("-HUP");
    wait_until(SOON, "the good reload shows", || metric("flipback_config_last_reload_successful 1").then_some(()));

    fs::write(daemon.path("bad.toml"), "[prometheus]\n").unwrap();
    let done = Command::new(env!("CARGO_BIN_EXE_flipback"))
        .args(["run", "--config"])
        .arg(daemon.path("bad.toml"))
        .output()
        .unwrap();
    assert_eq!(code(&done), 78, "{}", err(&done));
    assert!(err(&done).contains("prometheus.url: is missing"), "{}", err(&done));
}

#[test]
fn manners_at_the_start_and_the_end() {
    let mut daemon = Daemon::start();
    let socket = daemon.path("control.sock");
    assert_eq!(fs::metadata(&socket).unwrap().permissions().mode() & 0o777, 0o660);
    assert_eq!(fs::metadata(daemon.path("state")).unwrap().permissions().mode() & 0o777, 0o700);
    assert_eq!(fs::metadata(daemon.path("state/journal.db")).unwrap().permissions().mode() & 0o077, 0);
    // TERM: an orderly end.
    daemon.proc().signal("-TERM");
    let status = daemon.proc.as_mut().unwrap().child.wait().unwrap();
    assert_eq!(status.code(), Some(0), "{}", daemon.proc().log());
    // A stale socket, as a power cut leaves it, is replaced.
    let _ = fs::remove_file(&socket);
    drop(std::os::unix::net::UnixListener::bind(&socket).unwrap());
    daemon.up();
    assert_eq!(code(&daemon.flipback(&["status"])), 0);
    // Something else under that name is not.
    daemon.proc = None;
    let _ = fs::remove_file(&socket);
    fs::write(&socket, "precious").unwrap();
    let done = daemon.command().output().unwrap();
    assert_ne!(code(&done), 0);
    assert!(err(&done).contains("something else"), "{}", err(&done));
    assert_eq!(fs::read_to_string(&socket).unwrap(), "precious");
}

#[test]
fn systemd_is_told_of_the_start_the_state_and_the_end() {
    let mut daemon = Daemon::start();
    let dir = TempDir::with_prefix("flipback-notify-").unwrap();
    let path = dir.path().join("notify.sock");
    let socket = std::os::unix::net::UnixDatagram::bind(&path).unwrap();
    socket.set_read_timeout(Some(SOON)).unwrap();
    daemon.proc = None;
    let mut command = daemon.command();
    command.env("NOTIFY_SOCKET", &path).env("WATCHDOG_USEC", "600000");
    daemon.proc = Some(Proc::start("flipback", daemon.dir.path(), &mut command));
    let mut heard = String::new();
    let mut hear = |what: &str, times: usize| {
        while heard.matches(what).count() < times {
            let mut buffer = [0; 1024];
            let n = socket.recv(&mut buffer).unwrap_or_else(|e| panic!("{what} not heard ({e}), but: {heard}"));
            heard.push_str(&String::from_utf8_lossy(&buffer[..n]));
            heard.push('\n');
        }
    };
    hear("READY=1", 1);
    hear("STATUS=armed; 1 services, 0 open watches", 1);
    hear("WATCHDOG=1", 4);
    assert_eq!(code(&daemon.flipback(&["disarm", "--all"])), 0);
    hear("STATUS=DISARMED", 1);
    daemon.proc().signal("-TERM");
    hear("STOPPING=1", 1);
}
