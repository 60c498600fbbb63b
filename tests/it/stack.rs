//! Real parts on loopback: two apps, HAProxy, Prometheus, an SMTP server, a load, and flipback itself.
//! Everything is stopped by its pid when the stack is dropped.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::{Condvar, Mutex, PoisonError};
use std::time::{Duration, Instant};

use flipback::domain::counts::{Buckets, Cell, Counts};
use flipback::domain::switch::{ServiceName, Slot};
use flipback::domain::time::{Span, Timestamp};
use flipback::engine::message::RecordedCells;
use flipback::journal::{Batch, Journal, Write};
use serde_json::Value;
use tempfile::TempDir;

/// The API's token on every stack.
pub const TOKEN: &str = "b3b1a8c2d94e5f60718293a4b5c6d7e8";

/// Stacks at once: each has half a dozen processes, and the machine may have two cores.
const AT_ONCE: usize = 2;
static RUNNING: (Mutex<usize>, Condvar) = (Mutex::new(0), Condvar::new());

pub struct Permit;

impl Permit {
    pub fn take() -> Permit {
        let mut running = RUNNING.0.lock().unwrap_or_else(PoisonError::into_inner);
        while *running >= AT_ONCE {
            running = RUNNING.1.wait(running).unwrap_or_else(PoisonError::into_inner);
        }
        *running += 1;
        Permit
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        *RUNNING.0.lock().unwrap_or_else(PoisonError::into_inner) -= 1;
        RUNNING.1.notify_one();
    }
}

/// A child that ends with its owner.
pub struct Proc {
    pub child: Child,
    name: String,
    log: PathBuf,
}

impl Proc {
    pub fn start(name: &str, dir: &Path, command: &mut Command) -> Proc {
        let log = dir.join(format!("{name}.log"));
        let file = File::options().create(true).append(true).open(&log).unwrap();
        let child = command
            .stdin(Stdio::null())
            .stdout(file.try_clone().unwrap())
            .stderr(file)
            .spawn()
            .unwrap_or_else(|e| panic!("{name} ({command:?}) does not start: {e}"));
        Proc { child, name: name.to_owned(), log }
    }

    pub fn signal(&self, signal: &str) {
        let pid = self.child.id().to_string();
        let done = Command::new("/bin/kill").args([signal, &pid]).status().unwrap();
        assert!(done.success(), "kill {signal} {} ({pid})", self.name);
    }

    pub fn log(&self) -> String {
        fs::read_to_string(&self.log).unwrap_or_default()
    }
}

impl Drop for Proc {
    fn drop(&mut self) {
        // A stopped process takes its KILL as well.
        let _ = self.child.kill();
        let _ = self.child.wait();
        if std::thread::panicking() {
            let log = self.log();
            let tail: Vec<_> = log.lines().rev().take(60).collect();
            eprintln!("--- {} (last lines)", self.name);
            tail.into_iter().rev().for_each(|line| eprintln!("{line}"));
        }
    }
}

/// Asks until the answer is there; the text says what was waited for.
pub fn wait_until<T>(limit: Duration, what: &str, mut ask: impl FnMut() -> Option<T>) -> T {
    let began = Instant::now();
    loop {
        if let Some(found) = ask() {
            return found;
        }
        assert!(began.elapsed() < limit, "within {limit:?} not seen: {what}");
        std::thread::sleep(Duration::from_millis(100));
    }
}

pub fn now() -> Timestamp {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap();
    Timestamp::from_millis(i64::try_from(since.as_millis()).unwrap())
}

pub fn free_port() -> u16 {
    // Kept apart from the ports that the kernel hands out for connections, and never given twice.
    static NEXT: Mutex<u16> = Mutex::new(0);
    let mut next = NEXT.lock().unwrap_or_else(PoisonError::into_inner);
    if *next == 0 {
        *next = 21_000 + u16::try_from(std::process::id() % 8_000).unwrap();
    }
    loop {
        *next += 1;
        if TcpListener::bind(("127.0.0.1", *next)).is_ok() {
            return *next;
        }
    }
}

/// A program by name, or a failure that says how to get it.
pub fn program(name: &str) -> PathBuf {
    let path = std::env::var("PATH").unwrap_or_default();
    std::env::split_paths(&path)
        .chain([PathBuf::from("/usr/sbin"), PathBuf::from("/usr/bin")])
        .map(|dir| dir.join(name))
        .find(|file| file.is_file())
        .unwrap_or_else(|| panic!("{name} is missing: apt-get install haproxy prometheus python3-aiosmtpd"))
}

pub fn demo_app() -> PathBuf {
    let mut dir = std::env::current_exe().unwrap();
    dir.pop();
    dir.pop();
    let app = dir.join("examples/demo-app");
    assert!(app.is_file(), "{} is missing: cargo build --example demo-app", app.display());
    app
}

#[derive(Debug, Clone)]
pub struct Mail {
    pub subject: String,
    pub headers: BTreeMap<String, String>,
    pub text: String,
    /// Pictures inside.
    pub pictures: usize,
}

pub struct Options {
    pub soak: &'static str,
    pub mode: &'static str,
    pub confirm: &'static str,
    pub rps: u32,
    /// A third slot.
    pub red: bool,
    /// Further text at the end of the configuration (it continues the rollback step's table).
    pub more: &'static str,
}

impl Default for Options {
    fn default() -> Self {
        Options { soak: "25s", mode: "auto", confirm: "20s", rps: 200, red: false, more: "" }
    }
}

/// What a third slot adds to the demo's files, each behind its known text.
const THIRD: [(&str, &str); 4] = [
    ("server green 127.0.0.1:@GREEN@ disabled", "\n    server red 127.0.0.1:@RED@ disabled"),
    ("\"127.0.0.1:@BLUE@\"", ", \"127.0.0.1:@RED@\""),
    (
        "slots.blue = { health = { http = \"http://127.0.0.1:@BLUE@/healthz\", timeout = \"1s\" } }",
        "\nslots.red = { health = { http = \"http://127.0.0.1:@RED@/healthz\", timeout = \"1s\" } }",
    ),
    ("\"--log\", \"@DIR@/switches.log\"", ", \"--slots\", \"blue,green,red\""),
];

pub struct Stack {
    ports: BTreeMap<&'static str, u16>,
    pub slots: BTreeMap<&'static str, Proc>,
    pub prometheus: Option<Proc>,
    _haproxy: Proc,
    _smtp: Proc,
    _load: Proc,
    pub daemon: Option<Proc>,
    /// After the processes: their logs are in it, and dropped fields go in this order.
    pub dir: TempDir,
    _permit: Permit,
}

impl Stack {
    /// Everything up, traffic on blue, two recorded cells at least.
    pub fn start(options: &Options) -> Stack {
        let permit = Permit::take();
        let dir = tempfile::Builder::new().prefix("flipback-it-").tempdir().unwrap();
        let ports: BTreeMap<&'static str, u16> = ["FRONT", "BLUE", "GREEN", "RED", "PROM", "SMTP", "PAGE"]
            .into_iter()
            .map(|name| (name, free_port()))
            .collect();
        let fill = |name: &str| {
            let source = env!("CARGO_MANIFEST_DIR");
            let mut text = fs::read_to_string(format!("{source}/demo/{name}.in")).unwrap();
            if options.red {
                for (known, more) in THIRD {
                    text = text.replace(known, &format!("{known}{more}"));
                }
            }
            for (key, port) in &ports {
                text = text.replace(&format!("@{key}@"), &port.to_string());
            }
            text = text
                .replace("@DIR@", dir.path().to_str().unwrap())
                .replace("@SOURCE@", source)
                .replace("@SOAK@", options.soak)
                .replace("@MODE@", options.mode)
                .replace("@CONFIRM@", options.confirm);
            if name == "flipback.toml" {
                text.push_str(&options.more.replace("@DIR@", dir.path().to_str().unwrap()));
            }
            fs::write(dir.path().join(name), text).unwrap();
        };
        fs::write(dir.path().join("token"), format!("{TOKEN}\n")).unwrap();
        ["haproxy.cfg", "prometheus.yml", "flipback.toml"].into_iter().for_each(fill);
        let path = |name: &str| dir.path().join(name);
        let app = |slot: &'static str, port: u16, version: &str| {
            let mut command = Command::new(demo_app());
            command.args(["serve", "--service", "checkout", "--slot", slot, "--version", version]);
            command.args(["--listen", &format!("127.0.0.1:{port}")]);
            (slot, Proc::start(slot, dir.path(), &mut command))
        };
        let mut slots = BTreeMap::from([app("blue", ports["BLUE"], "v1.2"), app("green", ports["GREEN"], "v1.3")]);
        slots.extend(options.red.then(|| app("red", ports["RED"], "v1.4")));
        let haproxy = Proc::start(
            "haproxy",
            dir.path(),
            Command::new(program("haproxy")).args(["-db", "-f"]).arg(path("haproxy.cfg")),
        );
        let maildir = path("mail");
        let smtp = Proc::start(
            "smtp",
            dir.path(),
            Command::new(program("aiosmtpd"))
                .args(["-n", "-c", "aiosmtpd.handlers.Mailbox"])
                .arg(&maildir)
                .args(["-l", &format!("127.0.0.1:{}", ports["SMTP"])]),
        );
        let mut load = Command::new(demo_app());
        load.args(["load", "--url", &format!("http://127.0.0.1:{}/", ports["FRONT"])]);
        load.args(["--rps", &options.rps.to_string(), "--seconds", "300", "--progress-file"]).arg(path("load.json"));
        let mut stack = Stack {
            ports,
            slots,
            prometheus: None,
            _haproxy: haproxy,
            _smtp: smtp,
            _load: Proc::start("load", dir.path(), &mut load),
            daemon: None,
            _permit: permit,
            dir,
        };
        stack.start_prometheus();
        wait_until(Duration::from_secs(20), "Prometheus has samples of blue", || {
            (stack.query("sum(http_requests_total{env=\"blue\"})")? > 100.0).then_some(())
        });
        stack
    }

    pub fn port(&self, name: &str) -> u16 {
        self.ports[name]
    }

    /// Where the page and the API are.
    pub fn base(&self) -> String {
        format!("http://127.0.0.1:{}", self.ports["PAGE"])
    }

    /// Changes the daemon's configuration before it starts.
    pub fn reconfigure(&self, from: &str, to: &str) {
        let path = self.dir.path().join("flipback.toml");
        let text = fs::read_to_string(&path).unwrap();
        assert!(text.contains(from), "{from} is not in the configuration");
        fs::write(&path, text.replace(from, to)).unwrap();
    }

    pub fn start_prometheus(&mut self) {
        let dir = self.dir.path();
        let proc = Proc::start(
            "prometheus",
            dir,
            Command::new(program("prometheus"))
                .arg(format!("--config.file={}", dir.join("prometheus.yml").display()))
                .arg(format!("--storage.tsdb.path={}", dir.join("tsdb").display()))
                .arg(format!("--web.listen-address=127.0.0.1:{}", self.ports["PROM"]))
                .arg("--log.level=warn"),
        );
        self.prometheus = Some(proc);
    }

    pub fn start_daemon(&mut self) {
        let config = self.dir.path().join("flipback.toml");
        let mut command = Command::new(env!("CARGO_BIN_EXE_flipback"));
        command.arg("run").arg("--config").arg(config).env("FLIPBACK_LOG", "info,flipback=debug");
        self.daemon = Some(Proc::start("flipback", self.dir.path(), &mut command));
        wait_until(Duration::from_secs(15), "flipback answers", || {
            self.flipback(&["status"]).status.success().then_some(())
        });
    }

    /// Ten minutes of blue's normal as they would have been recorded, for tests that are not about recording. Before the
    /// daemon starts.
    pub fn seed_normal(&self) {
        /// As the demo's app has them.
        const BOUNDS: [f64; 9] = [0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5];
        let (mut journal, _) = Journal::open(&self.dir.path().join("state")).unwrap();
        let now = now().floor_to(Span::from_secs(15));
        let cells = (1..=40u64).rev().map(|k| {
            // A wobble that is the same every time.
            let (requests, wobble) = (3000.0, (k * 7919 % 13) as f64);
            let cumulative = [0.45, 0.98 + wobble / 1000.0, 1.0, 1.0, 1.0, 1.0, 1.0, 1.0, 1.0].map(|p| p * requests);
            Cell {
                from: now - Span::from_secs(15 * k),
                to: now - Span::from_secs(15 * (k - 1)),
                counts: Counts::try_new(requests, (wobble / 3.0).floor()).unwrap(),
                latency: Buckets::try_new(BOUNDS.to_vec(), cumulative.to_vec(), requests).ok(),
            }
        });
        let (service, slot) = (ServiceName::try_new("checkout").unwrap(), Slot::try_new("blue").unwrap());
        let writes = [Write::Cells(RecordedCells { service, slot, cells: cells.collect() })];
        journal.commit(&Batch { entries: &[], views: &[], snapshot: None, writes: &writes, now }).unwrap();
    }

    /// Waits until enough normal is recorded to judge ratios by.
    pub fn record_baseline(&self) {
        wait_until(Duration::from_secs(75), "a usable baseline", || {
            self.flipback(&["baseline", "record", "checkout"]);
            let shown = self.flipback(&["baseline", "show", "checkout", "-o", "json"]);
            let answer: Value = serde_json::from_slice(&shown.stdout).ok()?;
            if answer["baseline"]["quality"] == "good" {
                Some(())
            } else {
                std::thread::sleep(Duration::from_secs(1));
                None
            }
        });
    }

    /// The command line against this stack's daemon.
    pub fn flipback(&self, args: &[&str]) -> Output {
        flipback_in(self.dir.path(), args)
    }

    /// What a deploy tool does: moves the traffic.
    pub fn switch_to(&self, slot: &str) {
        let done = Command::new(concat!(env!("CARGO_MANIFEST_DIR"), "/demo/switch-traffic"))
            .arg("--socket")
            .arg(self.dir.path().join("haproxy.sock"))
            .arg(slot)
            .output()
            .unwrap();
        assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
    }

    /// A command to HAProxy's runtime API: what a deploy tool says to it.
    pub fn haproxy(&self, command: &str) -> String {
        use std::io::{Read, Write};
        let mut stream = std::os::unix::net::UnixStream::connect(self.dir.path().join("haproxy.sock")).unwrap();
        stream.write_all(format!("{command}\n").as_bytes()).unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        answer.trim().to_owned()
    }

    /// Weights of HAProxy's servers; 0 takes a server out.
    pub fn weigh(&self, weights: &[(&str, u32)]) {
        // The ones that get more first: at no instant is there nobody to serve.
        for (slot, weight) in weights.iter().filter(|(_, weight)| *weight > 0) {
            let said = self.haproxy(&format!("set weight app/{slot} {weight}; set server app/{slot} state ready"));
            assert_eq!(said, "", "HAProxy");
        }
        for (slot, _) in weights.iter().filter(|(_, weight)| *weight == 0) {
            let said = self.haproxy(&format!("set server app/{slot} state maint; shutdown sessions server app/{slot}"));
            assert_eq!(said, "", "HAProxy");
        }
    }

    pub fn active_slot(&self) -> String {
        let done = Command::new(concat!(env!("CARGO_MANIFEST_DIR"), "/demo/active-slot"))
            .arg("--socket")
            .arg(self.dir.path().join("haproxy.sock"))
            .output()
            .unwrap();
        String::from_utf8_lossy(&done.stdout).trim().to_owned()
    }

    /// Announces blue → green and gives the switch's id.
    pub fn announce(&self) -> String {
        let done = self.flipback(&[
            "announce",
            "checkout",
            "--old",
            "blue",
            "--new",
            "green",
            "--old-version",
            "v1.2",
            "--version",
            "v1.3",
        ]);
        assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
        String::from_utf8_lossy(&done.stdout).trim().to_owned()
    }

    pub fn watch(&self, id: &str) -> Value {
        let done = self.flipback(&["show", id, "-o", "json"]);
        serde_json::from_slice(&done.stdout).unwrap_or(Value::Null)
    }

    /// The outcome's word, once the watch has ended.
    pub fn outcome(&self, id: &str, limit: Duration) -> String {
        wait_until(limit, &format!("the end of {id}"), || outcome_of(&self.watch(id)))
    }

    pub fn kinds(&self, id: &str) -> Vec<String> {
        let view = self.watch(id);
        view["timeline"]
            .as_array()
            .map(|all| all.iter().map(|e| e["kind"].as_str().unwrap_or("").to_owned()).collect())
            .unwrap_or_default()
    }

    /// How often the rollback command ran.
    pub fn rollbacks(&self) -> usize {
        fs::read_to_string(self.dir.path().join("switches.log")).map_or(0, |text| text.lines().count())
    }

    pub fn fault(&self, slot: &str, fault: &str) {
        let port = self.ports[slot.to_uppercase().as_str()];
        http(port, "PUT", &format!("/fault?{fault}"));
    }

    pub fn query(&self, promql: &str) -> Option<f64> {
        let encoded: String = promql
            .bytes()
            .map(|b| if b.is_ascii_alphanumeric() { char::from(b).to_string() } else { format!("%{b:02X}") })
            .collect();
        let body = http(self.ports["PROM"], "GET", &format!("/api/v1/query?query={encoded}"));
        let answer: Value = serde_json::from_str(&body).ok()?;
        answer["data"]["result"][0]["value"][1].as_str()?.parse().ok()
    }

    /// Delivered mails, oldest first, decoded by Python's own mail library.
    pub fn mails(&self) -> Vec<Mail> {
        const SCRIPT: &str = r#"
import email, email.policy, json, pathlib, sys
out = []
for f in sorted(pathlib.Path(sys.argv[1]).glob("new/*"), key=lambda f: f.stat().st_mtime_ns):
    m = email.message_from_bytes(f.read_bytes(), policy=email.policy.default)
    body = m.get_body(("plain",))
    out.append({"subject": m["subject"], "headers": {k.lower(): str(v) for k, v in m.items()},
                "text": body.get_content() if body else "",
                "pictures": [len(p.get_content()) for p in m.walk() if p.get_content_type() == "image/png"]})
print(json.dumps(out))
"#;
        let done =
            Command::new("/usr/bin/python3").arg("-c").arg(SCRIPT).arg(self.dir.path().join("mail")).output().unwrap();
        let all: Vec<Value> = serde_json::from_slice(&done.stdout).unwrap_or_default();
        all.into_iter()
            .map(|m| Mail {
                subject: m["subject"].as_str().unwrap_or("").to_owned(),
                text: m["text"].as_str().unwrap_or("").to_owned(),
                pictures: m["pictures"].as_array().map_or(0, Vec::len),
                headers: m["headers"]
                    .as_object()
                    .map(|h| h.iter().map(|(k, v)| (k.clone(), v.as_str().unwrap_or("").to_owned())).collect())
                    .unwrap_or_default(),
            })
            .collect()
    }

    /// The mail with this reason, once it is delivered.
    pub fn mail(&self, reason: &str, limit: Duration) -> Mail {
        wait_until(limit, &format!("a mail with the reason {reason}"), || {
            self.mails().into_iter().find(|m| m.headers.get("x-flipback-reason").is_some_and(|r| r == reason))
        })
    }

    pub fn reasons(&self) -> Vec<String> {
        self.mails().iter().filter_map(|m| m.headers.get("x-flipback-reason").cloned()).collect()
    }
}

/// The command line against the daemon whose socket and state are in this directory.
pub fn flipback_in(dir: &Path, args: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_flipback"))
        .args(args)
        .arg("--socket")
        .arg(dir.join("control.sock"))
        .arg("--state-dir")
        .arg(dir.join("state"))
        .output()
        .unwrap()
}

/// The word of a watch's outcome, once it has one.
pub fn outcome_of(view: &Value) -> Option<String> {
    match &view["outcome"] {
        Value::String(word) => Some(word.clone()),
        Value::Object(map) => map.keys().next().cloned(),
        _ => None,
    }
}

/// A request by hand: the tests need no client of their own.
pub fn http(port: u16, method: &str, path: &str) -> String {
    use std::io::{Read, Write};
    let Ok(mut stream) = std::net::TcpStream::connect(("127.0.0.1", port)) else { return String::new() };
    let _ = stream.set_read_timeout(Some(Duration::from_secs(3)));
    let request = format!("{method} {path} HTTP/1.0\r\nHost: localhost\r\nContent-Length: 0\r\n\r\n");
    if stream.write_all(request.as_bytes()).is_err() {
        return String::new();
    }
    let mut answer = String::new();
    let _ = stream.read_to_string(&mut answer);
    answer.split_once("\r\n\r\n").map_or(String::new(), |(_, body)| body.to_owned())
}
