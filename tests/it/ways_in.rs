//! Every way in, on real parts: switches that nobody announced, ramps and supersedes by HAProxy's weights, and the
//! pipeline's side of it.

use std::collections::BTreeMap;
use std::fs;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use serde_json::Value;
use tempfile::TempDir;

use crate::stack::{Options, Proc, Stack, free_port, program, wait_until};

const SOON: Duration = Duration::from_secs(30);
const SOAK: Duration = Duration::from_secs(150);

fn up(options: &Options) -> Stack {
    let mut stack = Stack::start(options);
    stack.seed_normal();
    stack.start_daemon();
    stack
}

fn json(stack: &Stack, args: &[&str]) -> Value {
    let done = stack.flipback(&[args, &["-o", "json"]].concat());
    serde_json::from_slice(&done.stdout).unwrap_or(Value::Null)
}

/// Waits until flipback knows where the traffic is.
fn knows(stack: &Stack, slot: &str) {
    wait_until(SOON, "flipback sees where the traffic is", || {
        (json(stack, &["status"])["services"][0]["live"] == slot).then_some(())
    });
}

/// The one watch that was opened for what nobody announced, and how long after `moved` that was.
fn noticed(stack: &Stack, moved: Instant, within: Duration) -> String {
    let id = wait_until(within, "a watch that nobody announced", || {
        json(stack, &["history"])[0]["id"].as_str().map(str::to_owned)
    });
    println!("noticed {:.2} s after it moved", moved.elapsed().as_secs_f64());
    assert!(stack.kinds(&id).contains(&"detected".to_owned()), "{:?}", stack.kinds(&id));
    id
}

fn only_one(stack: &Stack) {
    let all = json(stack, &["history"]);
    assert_eq!(all.as_array().map(Vec::len), Some(1), "{all}");
}

#[test]
fn haproxys_socket_shows_a_switch_that_nobody_announced() {
    let stack = up(&Options {
        more: "\n[[service.detect]]\nhaproxy = { socket = \"@DIR@/haproxy.sock\", backend = \"app\" }\nevery = \"400ms\"\n",
        ..Options::default()
    });
    knows(&stack, "blue");
    let moved = Instant::now();
    stack.switch_to("green");
    // Printed: within a tick. The limit leaves room for a busy machine and the command line's own start.
    let id = noticed(&stack, moved, Duration::from_secs(5));
    // The pipeline tells of it a moment later: the same switch, which has a version now.
    assert_eq!(stack.announce(), id);
    assert_eq!(stack.watch(&id)["switch"]["version"], "v1.3");
    assert_eq!(stack.outcome(&id, SOAK), "passed");
    only_one(&stack);
    // Back and broken: flipback's own hand is no new switch.
    stack.fault("blue", "errors=1");
    stack.switch_to("blue");
    let next = wait_until(SOON, "the way back is a switch as well", || {
        json(&stack, &["history"])[0]["id"].as_str().filter(|next| *next != id).map(str::to_owned)
    });
    // How well green serves after it is another test's question.
    assert!(stack.outcome(&next, SOAK).starts_with("rolled_back"), "{:#}", stack.watch(&next));
    std::thread::sleep(Duration::from_secs(3));
    assert_eq!(json(&stack, &["history"]).as_array().map(Vec::len), Some(2), "our own hand opens nothing");
}

#[test]
fn prometheus_shows_a_switch_that_nobody_announced() {
    let stack = {
        let more = "\n[[service.detect]]\npromql = { query = 'sum by (env) (rate(http_requests_total{service=\"checkout\"}[3s]))', \
                    label = \"env\" }\nevery = \"500ms\"\n";
        let mut stack = Stack::start(&Options { more, ..Options::default() });
        stack.reconfigure("tick = \"1s\"", "tick = \"5s\"");
        stack.start_daemon();
        stack
    };
    knows(&stack, "blue");
    let moved = Instant::now();
    stack.switch_to("green");
    let id = noticed(&stack, moved, Duration::from_secs(8));
    std::thread::sleep(Duration::from_secs(4));
    only_one(&stack);
    assert!(stack.flipback(&["cancel", &id]).status.success());
}

/// nginx sends requests where an included file says; flipback reads the file, and is told nothing.
#[test]
fn nginxs_include_shows_a_switch_that_nobody_announced() {
    let mut stack = Stack::start(&Options {
        more: "\n[[service.detect]]\nfile = \"@DIR@/upstream.conf\"\nevery = \"400ms\"\n\
               words = { blue = \"127.0.0.1:BLUEPORT\", green = \"127.0.0.1:GREENPORT\" }\n\
               \n[[service.detect]]\nsymlink = \"@DIR@/current\"\nevery = \"400ms\"\nname = \"link\"\n",
        ..Options::default()
    });
    stack.reconfigure("BLUEPORT", &stack.port("BLUE").to_string());
    stack.reconfigure("GREENPORT", &stack.port("GREEN").to_string());
    let (dir, front) = (stack.dir.path().to_owned(), free_port());
    let (blue, green) = (stack.port("BLUE"), stack.port("GREEN"));
    let point_to = |port: u16, slot: &str| {
        fs::write(dir.join("new.conf"), format!("# {slot}\nserver 127.0.0.1:{port};\n")).unwrap();
        fs::rename(dir.join("new.conf"), dir.join("upstream.conf")).unwrap();
        let _ = fs::remove_file(dir.join("current.new"));
        std::os::unix::fs::symlink(dir.join("releases").join(slot), dir.join("current.new")).unwrap();
        fs::rename(dir.join("current.new"), dir.join("current")).unwrap();
    };
    point_to(blue, "blue");
    let d = dir.display();
    let config = format!(
        "daemon off;\nmaster_process on;\npid {d}/nginx.pid;\nevents {{}}\nhttp {{ access_log off; client_body_temp_path {d}/t1; \
         proxy_temp_path {d}/t2; fastcgi_temp_path {d}/t3; uwsgi_temp_path {d}/t4; scgi_temp_path {d}/t5;\n\
         upstream app {{ include {d}/upstream.conf; }}\n\
         server {{ listen 127.0.0.1:{front}; location / {{ proxy_pass http://app; }} }} }}\n"
    );
    fs::write(dir.join("nginx.conf"), config).unwrap();
    let mut command = Command::new(program("nginx"));
    command.arg("-e").arg(dir.join("err.log")).arg("-p").arg(&dir).arg("-c").arg(dir.join("nginx.conf"));
    let nginx = Proc::start("nginx", &dir, &mut command);
    let served = || {
        let mut body = String::new();
        let mut stream = TcpStream::connect(("127.0.0.1", front)).ok()?;
        stream.write_all(b"GET / HTTP/1.0\r\n\r\n").ok()?;
        stream.read_to_string(&mut body).ok()?;
        body.lines().last().map(str::to_owned)
    };
    wait_until(SOON, "nginx serves blue", || served().filter(|body| body.starts_with("checkout blue")));
    stack.start_daemon();
    knows(&stack, "blue");
    let moved = Instant::now();
    point_to(green, "green");
    let reload = Command::new(program("nginx"))
        .args(["-e", dir.join("err.log").to_str().unwrap(), "-p", dir.to_str().unwrap()])
        .args(["-c", dir.join("nginx.conf").to_str().unwrap(), "-s", "reload"])
        .status();
    assert!(reload.unwrap().success());
    let id = noticed(&stack, moved, Duration::from_secs(5));
    wait_until(SOON, "nginx serves green", || served().filter(|body| body.starts_with("checkout green")));
    // Two detectors and one switch.
    std::thread::sleep(Duration::from_secs(2));
    only_one(&stack);
    assert!(stack.flipback(&["cancel", &id]).status.success());
    nginx.signal("-TERM");
}

fn step(stack: &Stack, old: &str, new: &str, percent: &str) -> String {
    let (share, version) = (format!("--share={percent}"), format!("v-{new}"));
    let args = ["announce", "checkout", "--old", old, "--new", new, "--version", &version, &share];
    let done = stack.flipback(&args);
    assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
    String::from_utf8_lossy(&done.stdout).trim().to_owned()
}

#[test]
fn a_ramp_by_weights_is_one_watch_and_a_breach_rolls_all_of_it_back() {
    let stack = up(&Options::default());
    stack.weigh(&[("blue", 90), ("green", 10)]);
    let id = step(&stack, "blue", "green", "10%");
    std::thread::sleep(Duration::from_secs(10));
    stack.weigh(&[("blue", 50), ("green", 50)]);
    assert_eq!(step(&stack, "blue", "green", "50%"), id);
    std::thread::sleep(Duration::from_secs(10));
    stack.weigh(&[("green", 100), ("blue", 0)]);
    assert_eq!(step(&stack, "blue", "green", "100%"), id);
    let last = Instant::now();
    assert_eq!(stack.outcome(&id, SOAK), "passed");
    // The demo's soak is 25 s: the last step has all of it.
    assert!(last.elapsed() >= Duration::from_secs(20), "{:?}", last.elapsed());
    assert_eq!(stack.kinds(&id).iter().filter(|kind| *kind == "ramp").count(), 2);
    stack.mail("passed", SOON);
    assert_eq!((stack.rollbacks(), stack.reasons()), (0, vec!["passed".to_owned()]));

    // The other way round, and at a quarter of the traffic it breaks.
    stack.weigh(&[("green", 95), ("blue", 5)]);
    let id = step(&stack, "green", "blue", "5%");
    std::thread::sleep(Duration::from_secs(8));
    stack.fault("blue", "errors=0.3");
    stack.weigh(&[("green", 75), ("blue", 25)]);
    assert_eq!(step(&stack, "green", "blue", "25%"), id);
    assert_eq!(stack.outcome(&id, SOAK), "rolled_back_recovered");
    assert_eq!((stack.rollbacks(), stack.active_slot().as_str()), (1, "green"));
    let view = stack.watch(&id);
    let timeline = view["timeline"].as_array().unwrap();
    let preflight = timeline.iter().find(|e| e["kind"] == "preflight").unwrap();
    assert!(preflight["text"].as_str().unwrap().contains("requests go to blue"), "{preflight}");
}

/// A → B → C with B's soak open: C goes back to A, where A still is.
#[test]
fn a_superseded_switch_goes_back_to_what_was_good() {
    let stack = up(&Options { red: true, ..Options::default() });
    stack.weigh(&[("green", 100), ("blue", 0)]);
    let first = stack.announce();
    std::thread::sleep(Duration::from_secs(8));
    stack.fault("red", "errors=0.5");
    stack.weigh(&[("red", 100), ("green", 0)]);
    let done = stack.flipback(&["announce", "checkout", "--old", "green", "--new", "red", "--version", "v1.4"]);
    let second = String::from_utf8_lossy(&done.stdout).trim().to_owned();
    assert_eq!(stack.outcome(&first, SOON), "superseded");
    assert_eq!(stack.watch(&second)["back_to"], "blue");
    assert_eq!(stack.outcome(&second, SOAK), "rolled_back_recovered");
    assert_eq!((stack.rollbacks(), stack.active_slot().as_str()), (1, "blue"));
    assert!(stack.mail("rolled_back_recovered", SOON).subject.contains("red → blue (v1.4)"));
}

// ---------------------------------------------------------------------- the pipeline's side

/// A directory with `flipback` (and a `switch-traffic`) in it, as a pipeline's PATH has it.
fn tools(dir: &Path) -> PathBuf {
    let bin = dir.join("bin");
    fs::create_dir_all(&bin).unwrap();
    let own = env!("CARGO_BIN_EXE_flipback");
    let socket = dir.join("control.sock");
    for (name, text) in [
        ("flipback", format!("#!/bin/sh\nFLIPBACK_SOCKET={} exec {own} \"$@\"\n", socket.display())),
        ("switch-traffic", "#!/bin/sh\nexit 0\n".to_owned()),
    ] {
        fs::write(bin.join(name), text).unwrap();
        fs::set_permissions(bin.join(name), fs::Permissions::from_mode(0o755)).unwrap();
    }
    bin
}

fn integration(name: &str) -> String {
    format!("{}/config/integrations/{name}", env!("CARGO_MANIFEST_DIR"))
}

/// `./monitor.sh green SECONDS`, as a pipeline's step.
fn monitor(stack: &Stack, slot: &str, log: &Path) -> Child {
    let bin = tools(stack.dir.path());
    let out = fs::File::create(log).unwrap();
    Command::new("/bin/sh")
        .args([&integration("monitor.sh"), slot, "60"])
        .env("PATH", format!("{}:/usr/bin:/bin", bin.display()))
        .env("VERSION", "v1.3")
        .env("GITHUB_ACTIONS", "true")
        .stdin(Stdio::null())
        .stdout(out.try_clone().unwrap())
        .stderr(out)
        .spawn()
        .unwrap()
}

fn ended(child: &mut Child, limit: Duration, log: &Path) -> i32 {
    let status = wait_until(limit, "the pipeline's step ends", || child.try_wait().unwrap());
    println!("{}", fs::read_to_string(log).unwrap());
    status.code().unwrap_or(-1)
}

/// And meanwhile somebody floods a webhook: each soak has all of its ticks, and the flood is told to come back.
#[test]
fn monitor_sh_passes_a_good_release_and_fails_a_bad_one_in_a_flood() {
    let more = "\n[[webhook]]\nname = \"ci\"\nfrom = \"generic\"\nsecret_file = \"@DIR@/secret\"\n\
                map = { service = \"checkout\", new = \"{{ to }}\", version = \"{{ v }}\" }\n";
    let mut stack = Stack::start(&Options { more, ..Options::default() });
    fs::write(stack.dir.path().join("secret"), "0123456789abcdef0123456789abcdef\n").unwrap();
    let port = stack.port("PAGE");
    stack.seed_normal();
    stack.start_daemon();
    let log = stack.dir.path().join("step.log");
    stack.switch_to("green");
    let mut good = monitor(&stack, "green", &log);
    wait_until(SOON, "the step waits", || fs::read_to_string(&log).ok().filter(|said| said.contains("soaking")));
    let answers = flood(port, Duration::from_secs(12));
    assert_eq!(ended(&mut good, SOAK, &log), 0);
    println!("answers to the flood: {answers:?}");
    assert!(answers.get(&429).is_some_and(|n| *n > 500), "{answers:?}");
    assert!(answers.keys().all(|code| [200, 401, 429].contains(code)), "{answers:?}");
    let (ticks, kinds) = (stack.watch("checkout-1")["ticks"].as_u64().unwrap(), stack.kinds("checkout-1"));
    println!("{ticks} ticks of 1 s in a soak of 25 s");
    // On time: neither extended nor blind, whatever a busy machine did to single ticks.
    assert!(ticks >= 18 && !kinds.iter().any(|kind| kind == "extended" || kind == "blind"), "{ticks} {kinds:?}");
    let said = fs::read_to_string(&log).unwrap();
    for part in ["checkout-1 is watched", "::group::flipback watches checkout-1", "::endgroup::", "checkout-1 passed"] {
        assert!(said.contains(part), "{part:?} is not in\n{said}");
    }
    let told = stack.daemon.as_ref().unwrap().log();
    let lines = told.lines().filter(|line| line.contains("told to come back")).count();
    assert!((1..=20).contains(&lines), "a flood is told of, and not line by line: {lines}");

    stack.fault("blue", "errors=0.2");
    stack.switch_to("blue");
    assert_eq!(ended(&mut monitor(&stack, "blue", &log), SOAK, &log), 1);
    assert_eq!(stack.active_slot(), "green");
    let said = fs::read_to_string(&log).unwrap();
    assert!(said.contains("rolled_back_recovered") && said.contains("::error title=flipback::"), "{said}");
    assert!(said.contains("error rate") && said.contains("flipback show checkout-2"), "{said}");
}

/// Deliveries without end on two connections at a time, good secrets and bad ones: how often each answer came.
fn flood(port: u16, lasts: Duration) -> BTreeMap<u16, u32> {
    let until = Instant::now() + lasts;
    let one = move |secret: &str| {
        // The switch that is watched already, told again and again.
        let body = "{\"to\":\"green\",\"v\":\"v1.3\"}";
        let mut stream = TcpStream::connect(("127.0.0.1", port)).ok()?;
        stream.set_read_timeout(Some(Duration::from_secs(5))).ok()?;
        let head = format!(
            "POST /hooks/ci HTTP/1.1\r\nHost: x\r\nX-Flipback-Token: {secret}\r\nConnection: close\r\nContent-Length: {}\r\n\r\n{body}",
            body.len()
        );
        stream.write_all(head.as_bytes()).ok()?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer).ok()?;
        answer.split(' ').nth(1)?.parse::<u16>().ok()
    };
    let threads: Vec<_> = ["0123456789abcdef0123456789abcdef", "not-the-secret"]
        .map(|secret| {
            std::thread::spawn(move || {
                let mut all = Vec::new();
                while Instant::now() < until && all.len() < 20_000 {
                    all.extend(one(secret));
                }
                all
            })
        })
        .into();
    let mut counts = BTreeMap::new();
    for code in threads.into_iter().flat_map(|thread| thread.join().unwrap()) {
        *counts.entry(code).or_default() += 1;
    }
    counts
}

#[test]
fn monitor_sh_waits_over_a_restart_of_the_daemon() {
    let mut stack = up(&Options::default());
    let log = stack.dir.path().join("step.log");
    stack.switch_to("green");
    let mut step = monitor(&stack, "green", &log);
    wait_until(SOON, "the step waits", || fs::read_to_string(&log).ok().filter(|said| said.contains("soaking")));
    stack.daemon.as_ref().unwrap().signal("-KILL");
    wait_until(SOON, "it says so", || fs::read_to_string(&log).ok().filter(|said| said.contains("waiting for it")));
    stack.daemon = None;
    stack.start_daemon();
    assert_eq!(ended(&mut step, SOAK, &log), 0);
    let said = fs::read_to_string(&log).unwrap();
    assert!(said.contains("flipback is back") && said.contains("passed"), "{said}");
}

/// flipback alone, its Prometheus a closed port: what is announced is watched until somebody ends it.
struct Lone {
    dir: TempDir,
    _proc: Proc,
}

impl Lone {
    fn start() -> Lone {
        let dir = TempDir::with_prefix("flipback-ways-").unwrap();
        let d = dir.path().display().to_string();
        let config = format!(
            "state_dir = \"{d}/state\"\n[prometheus]\nurl = \"http://127.0.0.1:1\"\n[api]\nsocket = \"{d}/control.sock\"\n\
             [metrics.web]\nrequests = 'r{{version=\"$slot\"}}'\n\
             [[service]]\nname = \"checkout\"\nmetrics = \"web\"\nslots = \"versions\"\n"
        );
        fs::write(dir.path().join("flipback.toml"), config).unwrap();
        let mut command = Command::new(env!("CARGO_BIN_EXE_flipback"));
        command.arg("run").arg("--config").arg(dir.path().join("flipback.toml"));
        let proc = Proc::start("flipback", dir.path(), &mut command);
        let lone = Lone { dir, _proc: proc };
        wait_until(SOON, "flipback answers", || lone.flipback(&["status"]).status.success().then_some(()));
        lone
    }

    fn flipback(&self, args: &[&str]) -> std::process::Output {
        let socket = self.dir.path().join("control.sock");
        Command::new(env!("CARGO_BIN_EXE_flipback")).args(args).arg("--socket").arg(socket).output().unwrap()
    }

    /// Runs a script as a pipeline would, ends its watch as a person would, and gives its exit code.
    fn runs(&self, script: &Path, env: &[(&str, &str)]) -> (Option<i32>, String) {
        let bin = tools(self.dir.path());
        let log = self.dir.path().join("script.log");
        let out = fs::File::create(&log).unwrap();
        let mut child = Command::new("/bin/sh")
            .arg(script)
            .env_clear()
            .env("PATH", format!("{}:/usr/bin:/bin", bin.display()))
            .envs(env.iter().copied())
            .current_dir(self.dir.path())
            .stdin(Stdio::null())
            .stdout(out.try_clone().unwrap())
            .stderr(out)
            .spawn()
            .unwrap();
        let read = || fs::read_to_string(&log).unwrap_or_default();
        wait_until(SOON, &format!("{} waits or ends", script.display()), || {
            (read().contains("soaking") || read().contains("cutting_over") || child.try_wait().unwrap().is_some())
                .then_some(())
        });
        let open: Value = serde_json::from_slice(&self.flipback(&["status", "-o", "json"]).stdout).unwrap();
        for watch in open["watches"].as_array().unwrap() {
            assert!(self.flipback(&["cancel", watch["id"].as_str().unwrap()]).status.success());
        }
        let status = wait_until(SOON, "the script ends", || child.try_wait().unwrap());
        (status.code(), read())
    }
}

/// The lines of a file between its marks, as a shell reads them: YAML's list marks and folds taken away.
fn shell_of(name: &str) -> String {
    let text = fs::read_to_string(integration(name)).unwrap();
    let begun = text.split_once("# flipback:begin").unwrap().1;
    let block = begun.split_once("# flipback:end").unwrap().0;
    let folded = name.ends_with("gitlab-ci.yml");
    let mut lines: Vec<String> = Vec::new();
    for line in block.lines().map(str::trim).filter(|line| !line.is_empty()) {
        match (line.strip_prefix("- "), lines.last_mut()) {
            (None, Some(last)) if folded => *last = format!("{last} {line}"),
            (item, _) => lines.push(item.unwrap_or(line).to_owned()),
        }
    }
    format!("set -eu\n{}\n", lines.join("\n"))
}

#[test]
fn the_snippets_announce_and_wait() {
    let lone = Lone::start();
    let env: &[(&str, &str)] = &[
        ("CI_COMMIT_SHORT_SHA", "279484c0"),
        ("CI_JOB_ID", "796"),
        ("GITLAB_USER_LOGIN", "kim"),
        ("CI_JOB_URL", "https://gitlab.example.org/acme/checkout/-/jobs/796"),
        ("CI_COMMIT_TITLE", "Round prices; $(the other way) \"up\""),
        ("SHA", "f95f852bd8fc"),
        ("RUN", "7"),
        ("ACTOR", "kim"),
        ("LINK", "https://github.com/acme/checkout/actions/runs/7"),
        ("GIT_COMMIT", "c6d86dc654b1"),
        ("BUILD_TAG", "jenkins-checkout-18"),
        ("BUILD_URL", "https://jenkins.example.org/job/checkout/18/"),
        ("GITLAB_CI", "true"),
    ];
    for (name, version) in
        [("gitlab-ci.yml", "279484c0"), ("github-actions.yml", "f95f852bd8fc"), ("Jenkinsfile", "c6d86dc654b1")]
    {
        let script = lone.dir.path().join("snippet.sh");
        // Each is a switch of its own: from where the last one is thought to be.
        let text = shell_of(name).replace("announce checkout", "announce checkout --assume-old");
        fs::write(&script, text).unwrap();
        let (code, said) = lone.runs(&script, env);
        assert_eq!(code, Some(4), "{name}: cancelled\n{said}");
        let last: Value = serde_json::from_slice(&lone.flipback(&["history", "-o", "json"]).stdout).unwrap();
        assert_eq!(last[0]["switch"]["version"], version, "{name}: {last}");
        assert!(!last[0]["switch"]["about"]["links"].as_array().unwrap().is_empty(), "{name}");
        assert!(said.contains("section_start:"), "{name}: GitLab's folds\n{said}");
    }
    // Kamal: the first version has nothing before it, the second is a switch, the same once more is none.
    let hook = PathBuf::from(integration("kamal/post-deploy"));
    let kamal = |version: &str| {
        lone.runs(&hook, &[("KAMAL_SERVICE", "checkout"), ("KAMAL_VERSION", version), ("KAMAL_PERFORMER", "kim")])
    };
    assert_eq!(kamal("v1").0, Some(0));
    let (code, said) = kamal("v2");
    assert_eq!(code, Some(4), "{said}");
    assert_eq!(kamal("v2").0, Some(0));
    let last: Value = serde_json::from_slice(&lone.flipback(&["history", "-o", "json"]).stdout).unwrap();
    assert_eq!((&last[0]["switch"]["old"], &last[0]["switch"]["new"]), (&Value::from("v1"), &Value::from("v2")));
    assert_eq!(last[0]["switch"]["about"]["owner"], "kim");
    // Ansible's arguments are the command line's.
    let text = fs::read_to_string(integration("ansible.yml")).unwrap();
    let argv = text.split_once("argv: [flipback, ").unwrap().1.split_once(']').unwrap().0;
    let args: Vec<String> = argv
        .split(',')
        .map(|word| word.trim().trim_matches('"'))
        .map(|word| match word {
            "{{ old }}" => "v2".to_owned(),
            "{{ new }}" => "v3".to_owned(),
            "{{ version }}" => "v3".to_owned(),
            "45m" => "1s".to_owned(),
            other => other.to_owned(),
        })
        .collect();
    let done = lone.flipback(&args.iter().map(String::as_str).collect::<Vec<_>>());
    assert_eq!(done.status.code(), Some(124), "{}", String::from_utf8_lossy(&done.stderr));
}

#[test]
fn ctrl_c_leaves_the_watch_alone_and_the_daemon_away_is_75() {
    let lone = Lone::start();
    let done = lone.flipback(&["announce", "checkout", "--old", "v1", "--new", "v2"]);
    assert!(done.status.success());
    let socket = lone.dir.path().join("control.sock");
    let mut waiting = Command::new(env!("CARGO_BIN_EXE_flipback"));
    waiting.args(["wait", "checkout-1", "--socket"]).arg(&socket);
    let mut waiting = Proc::start("wait", lone.dir.path(), &mut waiting);
    wait_until(SOON, "it waits", || Some(waiting.log()).filter(|said| said.contains("cutting_over")));
    waiting.signal("-INT");
    let status = wait_until(SOON, "it ends", || waiting.child.try_wait().unwrap());
    assert_eq!(status.code(), Some(130));
    assert!(waiting.log().contains("checkout-1 is watched on"), "{}", waiting.log());
    let shown: Value = serde_json::from_slice(&lone.flipback(&["show", "checkout-1", "-o", "json"]).stdout).unwrap();
    assert!(shown["outcome"].is_null());
    lone._proc.signal("-KILL");
    let done = lone.flipback(&["wait", "checkout-1", "--patience", "1s"]);
    assert_eq!(done.status.code(), Some(75), "{}", String::from_utf8_lossy(&done.stderr));
}
