//! The demo without anything but Rust: two slots, a front that a file steers, a load, and flipback, which reads the
//! slots' metrics pages itself. Everything is on loopback, in a directory of its own, and is stopped at the end.
#![allow(
    clippy::expect_used,
    clippy::unwrap_used,
    clippy::disallowed_methods,
    reason = "a demo may end with a word, and lives in real time"
)]

use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

use serde_json::Value;

struct Demo {
    began: Instant,
    dir: PathBuf,
    programs: PathBuf,
    running: Vec<(&'static str, Child)>,
}

impl Drop for Demo {
    fn drop(&mut self) {
        for (_, child) in self.running.iter_mut().rev() {
            if let Ok(Some(_)) = child.try_wait() {
                continue;
            }
            let _ = Command::new("kill").arg(child.id().to_string()).status();
            let end = Instant::now() + Duration::from_secs(5);
            while Instant::now() < end && !matches!(child.try_wait(), Ok(Some(_))) {
                std::thread::sleep(Duration::from_millis(50));
            }
            let _ = child.kill();
            let _ = child.wait();
        }
        let _ = std::fs::remove_dir_all(&self.dir);
    }
}

impl Demo {
    fn say(&self, text: &str) {
        println!("[{:5.1} s] {text}", self.began.elapsed().as_secs_f64());
    }

    fn fail(&self, what: &str) -> ! {
        self.say(&format!("FAILED: {what}"));
        for (name, _) in &self.running {
            let log = std::fs::read_to_string(self.dir.join(format!("{name}.log"))).unwrap_or_default();
            let lines: Vec<&str> = log.lines().collect();
            println!("--- {name}\n{}", lines[lines.len().saturating_sub(15)..].join("\n"));
        }
        panic!("{what}");
    }

    fn start(&mut self, name: &'static str, program: &str, args: &[&str]) {
        let log = std::fs::File::create(self.dir.join(format!("{name}.log"))).expect("the directory can be written");
        let child = Command::new(self.programs.join(program))
            .args(args)
            .stdin(Stdio::null())
            .stdout(log.try_clone().expect("a second handle"))
            .stderr(log)
            .spawn();
        let child = child.unwrap_or_else(|error| self.fail(&format!("{program}: {error}")));
        self.running.push((name, child));
    }

    fn flipback(&self, args: &[&str]) -> Output {
        Command::new(self.programs.join("../flipback"))
            .args(args)
            .arg("--socket")
            .arg(self.dir.join("control.sock"))
            .arg("--state-dir")
            .arg(self.dir.join("state"))
            .output()
            .expect("flipback can be run")
    }

    fn json(&self, args: &[&str]) -> Value {
        let done = self.flipback(&[args, &["-o", "json"]].concat());
        serde_json::from_slice(&done.stdout).unwrap_or(Value::Null)
    }

    fn until<T>(&self, limit_s: u64, what: &str, mut ask: impl FnMut() -> Option<T>) -> T {
        let end = Instant::now() + Duration::from_secs(limit_s);
        while Instant::now() < end {
            if let Some(found) = ask() {
                return found;
            }
            std::thread::sleep(Duration::from_millis(100));
        }
        self.fail(&format!("within {limit_s} s not seen: {what}"))
    }

    fn load(&self) -> Value {
        let text = std::fs::read_to_string(self.dir.join("load.json")).unwrap_or_default();
        serde_json::from_str(&text).unwrap_or(Value::Null)
    }

    fn active(&self) -> String {
        std::fs::read_to_string(self.dir.join("active")).unwrap_or_default().trim().to_owned()
    }

    /// What a deploy tool does, and says.
    fn release(&self, old: &str, new: &str, version: &str) -> String {
        let fresh = self.dir.join("active.new");
        std::fs::write(&fresh, format!("{new}\n"))
            .and_then(|()| std::fs::rename(&fresh, self.dir.join("active")))
            .unwrap();
        let done = self.flipback(&["announce", "checkout", "--old", old, "--new", new, "--version", version]);
        if !done.status.success() {
            self.fail(&String::from_utf8_lossy(&done.stderr));
        }
        String::from_utf8_lossy(&done.stdout).trim().to_owned()
    }

    /// Tells the watch's story as it comes; gives its outcome.
    fn follow(&self, id: &str) -> String {
        let mut told = 0;
        self.until(90, &format!("the end of {id}"), || {
            let view = self.json(&["show", id]);
            for event in view["timeline"].as_array().into_iter().flatten().skip(told) {
                told += 1;
                let text = event["text"].as_str().unwrap_or_default().replace(self.dir.to_str().unwrap_or("-"), "…");
                self.say(&format!("    {:<14} {text}", event["kind"].as_str().unwrap_or_default()));
            }
            match &view["outcome"] {
                Value::String(word) => Some(word.clone()),
                Value::Object(outcome) => outcome.keys().next().cloned(),
                _ => None,
            }
        })
    }
}

fn free_ports<const N: usize>() -> [u16; N] {
    let all: Vec<TcpListener> = (0..N).map(|_| TcpListener::bind("127.0.0.1:0").expect("a free port")).collect();
    std::array::from_fn(|i| all[i].local_addr().expect("an address").port())
}

fn main() {
    let programs = std::env::current_exe().expect("our own path").parent().expect("a directory").to_owned();
    let dir = std::env::temp_dir().join(format!("flipback-bare-{}", std::process::id()));
    std::fs::create_dir_all(&dir).expect("a directory in the temporary one");
    let mut demo = Demo { began: Instant::now(), dir: dir.clone(), programs, running: Vec::new() };
    let [blue, green, front] = free_ports();
    let at = |port: u16| format!("127.0.0.1:{port}");
    write_config(&dir, blue, green);

    demo.say("Starting two app processes (blue v1.2, green v1.3), a front that a file steers, and 200 requests/s.");
    for (slot, port, version) in [("blue", blue, "v1.2"), ("green", green, "v1.3")] {
        let args = ["serve", "--service", "checkout", "--slot", slot, "--version", version, "--listen", &at(port)];
        demo.start(slot, "demo-app", &args);
    }
    let active = dir.join("active");
    let slots = [format!("blue={}", at(blue)), format!("green={}", at(green))];
    let file = active.to_str().expect("a path in UTF-8").to_owned();
    demo.start("front", "demo-app", &["front", "--listen", &at(front), "--active", &file, &slots[0], &slots[1]]);
    let (url, progress) = (format!("http://{}/", at(front)), dir.join("load.json"));
    let progress = progress.to_str().expect("a path in UTF-8").to_owned();
    demo.start(
        "load",
        "demo-app",
        &["load", "--url", &url, "--rps", "200", "--seconds", "300", "--progress-file", &progress],
    );
    demo.until(15, "traffic through the front", || (demo.load()["ok"].as_u64()? > 50).then_some(()));
    let config = dir.join("flipback.toml");
    demo.start("flipback", "../flipback", &["run", "--config", config.to_str().expect("a path in UTF-8")]);
    demo.until(15, "flipback's control socket", || demo.flipback(&["status"]).status.success().then_some(()));
    let serving = demo.load()["last_body"].as_str().unwrap_or_default().to_owned();
    demo.say(&format!("Users are served by: {serving}"));
    demo.say(
        "flipback reads both slots' pages and records what is normal (half a minute here, an hour in earnest) ...",
    );
    demo.until(90, "a recorded baseline", || {
        demo.flipback(&["baseline", "record", "checkout"]);
        (demo.json(&["baseline", "show", "checkout"])["baseline"]["quality"] == "good").then_some(())
    });

    println!();
    demo.say("A GOOD RELEASE: the deploy tool moves the traffic to green (v1.3) and announces it.");
    let id = demo.release("blue", "green", "v1.3");
    let outcome = demo.follow(&id);
    if outcome != "passed" || demo.active() != "green" {
        demo.fail(&format!("the good release ended {outcome}"));
    }

    println!();
    demo.say("A BAD RELEASE: blue gets v1.4, which answers nothing but errors; the traffic goes there.");
    put(blue, "/fault?errors=1");
    let fault_at = Instant::now();
    let id = demo.release("green", "blue", "v1.4");
    demo.until(30, "users served by green again", || (demo.active() == "green").then_some(()));
    let took = fault_at.elapsed().as_secs_f64();
    demo.say(&format!("Users are served by green again, {took:.1} s after the fault began."));
    let outcome = demo.follow(&id);
    if outcome != "rolled_back_recovered" {
        demo.fail(&format!("the bad release ended {outcome}"));
    }
    println!();
    print!("{}", String::from_utf8_lossy(&demo.flipback(&["history"]).stdout));
    demo.say(&format!("Done: one release passed, one was rolled back within {took:.1} s of its fault."));
}

fn write_config(dir: &Path, blue: u16, green: u16) {
    let text = include_str!("bare.toml.in")
        .replace("@DIR@", dir.to_str().expect("a path in UTF-8"))
        .replace("@BLUE@", &blue.to_string())
        .replace("@GREEN@", &green.to_string())
        .replace("@SOAK@", "20s");
    std::fs::write(dir.join("flipback.toml"), text).expect("the directory can be written");
    std::fs::write(dir.join("active"), "blue\n").expect("the directory can be written");
}

/// A request by hand: there is no HTTP client here.
fn put(port: u16, path: &str) {
    use std::io::{Read, Write};
    let mut stream = std::net::TcpStream::connect(("127.0.0.1", port)).expect("the app listens");
    write!(stream, "PUT {path} HTTP/1.1\r\nHost: app\r\nContent-Length: 0\r\nConnection: close\r\n\r\n").unwrap();
    let mut answer = String::new();
    let _ = stream.read_to_string(&mut answer);
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
}
