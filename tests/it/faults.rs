//! The fault table on real parts: a proxy between flipback and Prometheus that breaks what goes through it, mail servers
//! that misbehave, an nginx that says yes and does nothing, a wall clock that jumps.

use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::process::Command;
use std::sync::atomic::{AtomicU8, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use serde_json::Value;
use tempfile::TempDir;

use crate::stack::{Options, Proc, Stack, free_port, program, wait_until};
use crate::steps::script;

const SOON: Duration = Duration::from_secs(60);

/// What the proxy does to a connection.
#[derive(Debug, Clone, Copy, PartialEq)]
#[repr(u8)]
enum Chaos {
    Pass,
    /// Closed before a byte is answered, with what was sent still unread: a reset.
    Reset,
    /// Taken, and never answered.
    Blackhole,
    /// Answered after nobody waits any more.
    Slow,
    /// Cut off in the middle of the answer.
    Cut,
    /// Every tenth byte is another.
    Garbage,
}

const ALL: [Chaos; 6] = [Chaos::Pass, Chaos::Reset, Chaos::Blackhole, Chaos::Slow, Chaos::Cut, Chaos::Garbage];

struct ChaosProxy {
    port: u16,
    mode: Arc<AtomicU8>,
}

impl ChaosProxy {
    fn before(target: u16) -> ChaosProxy {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let mode = Arc::new(AtomicU8::new(0));
        let of = mode.clone();
        std::thread::spawn(move || {
            for client in listener.incoming().flatten() {
                let mode = of.clone();
                std::thread::spawn(move || {
                    let _ = serve(client, target, &mode);
                });
            }
        });
        ChaosProxy { port, mode }
    }

    fn set(&self, chaos: Chaos) {
        self.mode.store(chaos as u8, Ordering::SeqCst);
    }
}

fn serve(mut client: TcpStream, target: u16, mode: &AtomicU8) -> std::io::Result<()> {
    let chaos = || ALL[usize::from(mode.load(Ordering::SeqCst))];
    let mut upstream = TcpStream::connect(("127.0.0.1", target))?;
    let (mut to, mut from) = (upstream.try_clone()?, client.try_clone()?);
    std::thread::spawn(move || {
        let _ = std::io::copy(&mut from, &mut to);
    });
    let mut buffer = [0; 8192];
    loop {
        let n = upstream.read(&mut buffer)?;
        if n == 0 {
            return Ok(());
        }
        match chaos() {
            Chaos::Pass => client.write_all(&buffer[..n])?,
            Chaos::Reset => return client.shutdown(std::net::Shutdown::Both),
            Chaos::Blackhole => std::thread::sleep(Duration::from_secs(120)),
            Chaos::Slow => {
                std::thread::sleep(Duration::from_secs(8));
                client.write_all(&buffer[..n])?;
            }
            Chaos::Cut => {
                client.write_all(&buffer[..n / 2])?;
                return client.shutdown(std::net::Shutdown::Both);
            }
            Chaos::Garbage => {
                buffer[..n].iter_mut().skip(7).step_by(10).for_each(|b| *b ^= 0x55);
                client.write_all(&buffer[..n])?;
            }
        }
    }
}

fn count(view: &Value, kind: &str) -> usize {
    view["timeline"].as_array().map_or(0, |all| all.iter().filter(|e| e["kind"] == kind).count())
}

#[test]
fn whatever_happens_to_prometheus_moves_nothing_and_is_told() {
    let mut stack = Stack::start(&Options { soak: "600s", ..Options::default() });
    let proxy = ChaosProxy::before(stack.port("PROM"));
    stack.reconfigure(&format!("127.0.0.1:{}", stack.port("PROM")), &format!("127.0.0.1:{}", proxy.port));
    stack.seed_normal();
    stack.start_daemon();
    stack.switch_to("green");
    let id = stack.announce();
    let ticks = |stack: &Stack| stack.watch(&id)["ticks"].as_u64().unwrap_or(0);
    let reads_on = |stack: &Stack| {
        let from = ticks(stack);
        wait_until(SOON, "readings go on", || (ticks(stack) >= from + 3).then_some(()));
    };
    reads_on(&stack);
    for chaos in [Chaos::Reset, Chaos::Blackhole, Chaos::Slow, Chaos::Cut, Chaos::Garbage] {
        proxy.set(chaos);
        // What is under way may still get through; then nothing does.
        let mut before = u64::MAX;
        wait_until(SOON, &format!("{chaos:?}: no reading for a while"), || {
            let now = ticks(&stack);
            std::thread::sleep(Duration::from_secs(3));
            (std::mem::replace(&mut before, now) == now).then_some(())
        });
        proxy.set(Chaos::Pass);
        reads_on(&stack);
    }
    // Held for longer it is blindness, told within two minutes, and once.
    proxy.set(Chaos::Reset);
    let blind = count(&stack.watch(&id), "blind");
    wait_until(Duration::from_secs(120), "blindness is told", || {
        (count(&stack.watch(&id), "blind") > blind).then_some(())
    });
    stack.mail("blind", SOON);
    proxy.set(Chaos::Pass);
    wait_until(SOON, "it sees again", || (count(&stack.watch(&id), "sees_again") > 0).then_some(()));
    assert_eq!((stack.rollbacks(), stack.active_slot().as_str()), (0, "green"));
}

/// How the mail server behaves. A mock: a real server cannot be made to stall after DATA.
#[derive(Clone, Copy, PartialEq)]
enum Smtp {
    /// 451 to the first three recipients, then all is well.
    Greylist,
    /// Takes the message and says nothing more.
    Stall,
    /// 550 to everybody.
    Refuse,
    Fine,
}

struct MailServer {
    port: u16,
    mode: Arc<Mutex<Smtp>>,
    messages: Arc<Mutex<Vec<String>>>,
    asked: Arc<Mutex<u32>>,
}

impl MailServer {
    fn start(mode: Smtp) -> MailServer {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let server = MailServer {
            port: listener.local_addr().unwrap().port(),
            mode: Arc::new(Mutex::new(mode)),
            messages: Arc::default(),
            asked: Arc::default(),
        };
        let (mode, messages, asked) = (server.mode.clone(), server.messages.clone(), server.asked.clone());
        std::thread::spawn(move || {
            for client in listener.incoming().flatten() {
                let (mode, messages, asked) = (mode.clone(), messages.clone(), asked.clone());
                std::thread::spawn(move || {
                    let _ = talk(client, &mode, &messages, &asked);
                });
            }
        });
        server
    }
}

fn talk(
    client: TcpStream,
    mode: &Mutex<Smtp>,
    messages: &Mutex<Vec<String>>,
    asked: &Mutex<u32>,
) -> std::io::Result<()> {
    let mut out = client.try_clone()?;
    let mut lines = BufReader::new(client).lines();
    out.write_all(b"220 mock\r\n")?;
    while let Some(line) = lines.next().transpose()? {
        let now = *mode.lock().unwrap();
        let answer = match line.split([' ', ':']).next().unwrap_or("").to_ascii_uppercase().as_str() {
            "RCPT" => {
                let mut asked = asked.lock().unwrap();
                *asked += 1;
                match now {
                    Smtp::Refuse => "550 no such user",
                    Smtp::Greylist if *asked <= 3 => "451 greylisted, come back later",
                    _ => "250 ok",
                }
            }
            "DATA" => {
                out.write_all(b"354 go on\r\n")?;
                let mut text = String::new();
                for line in lines.by_ref() {
                    let line = line?;
                    if line == "." {
                        break;
                    }
                    text.push_str(&line);
                    text.push('\n');
                }
                if now == Smtp::Stall {
                    std::thread::sleep(Duration::from_secs(120));
                }
                messages.lock().unwrap().push(text);
                "250 taken"
            }
            "QUIT" => return out.write_all(b"221 bye\r\n"),
            _ => "250 ok",
        };
        out.write_all(answer.as_bytes())?;
        out.write_all(b"\r\n")?;
    }
    Ok(())
}

/// A daemon without Prometheus whose new slot is dead.
struct Lone {
    dir: TempDir,
    _old: TcpListener,
    daemon: Option<Proc>,
}

impl Lone {
    /// `service` and `more` are text of the configuration; `@D@` is the directory.
    fn new(mode: &str, switch: &str, active: &str, more: &str) -> Lone {
        let dir = TempDir::with_prefix("flipback-lone-").unwrap();
        let old = TcpListener::bind("127.0.0.1:0").unwrap();
        let d = dir.path().display().to_string();
        script(dir.path(), "switch", &switch.replace("@D@", &d));
        script(dir.path(), "active", &active.replace("@D@", &d));
        fs::write(dir.path().join("active-slot"), "green\n").unwrap();
        let config = format!(
            r#"state_dir = "{d}/state"
[prometheus]
url = "http://127.0.0.1:{}"
[api]
socket = "{d}/control.sock"
{}
[metrics.web]
requests = 'r{{env="$slot"}}'
[[service]]
name = "checkout"
metrics = "web"
mode = "{mode}"
slots.blue = {{ health = {{ tcp = "127.0.0.1:{}" }} }}
slots.green = {{ health = {{ tcp = "127.0.0.1:{}" }} }}
soak = {{ duration = "10m", tick = "1s" }}
recover_within = "3s"
[[service.rollback]]
name = "proxy"
exec = ["{d}/switch", "$old"]
timeout = "10s"
verify_timeout = "2s"
probe = {{ exec = ["{d}/active"], expect = "$old" }}
"#,
            free_port(),
            more.replace("@D@", &d),
            old.local_addr().unwrap().port(),
            free_port()
        );
        fs::write(dir.path().join("flipback.toml"), config).unwrap();
        Lone { dir, _old: old, daemon: None }
    }

    fn start(&mut self, env: &[(&str, &str)]) {
        let mut command = Command::new(env!("CARGO_BIN_EXE_flipback"));
        command.arg("run").arg("--config").arg(self.path("flipback.toml")).envs(env.iter().copied());
        self.daemon = Some(Proc::start("flipback", self.dir.path(), &mut command));
        wait_until(Duration::from_secs(15), "flipback answers", || {
            self.flipback(&["status"]).status.success().then_some(())
        });
    }

    fn path(&self, name: &str) -> std::path::PathBuf {
        self.dir.path().join(name)
    }

    fn flipback(&self, args: &[&str]) -> std::process::Output {
        let mut command = Command::new(env!("CARGO_BIN_EXE_flipback"));
        command.args(args).arg("--socket").arg(self.path("control.sock")).output().unwrap()
    }

    fn announce(&self) {
        let done = self.flipback(&["announce", "checkout", "--old", "blue", "--new", "green", "--version", "v2"]);
        assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
    }

    fn view(&self) -> Value {
        serde_json::from_slice(&self.flipback(&["show", "checkout-1", "-o", "json"]).stdout).unwrap_or(Value::Null)
    }

    fn outcome(&self) -> String {
        wait_until(Duration::from_secs(90), "the end", || match &self.view()["outcome"] {
            Value::String(word) => Some(word.clone()),
            Value::Object(map) => map.keys().next().cloned(),
            _ => None,
        })
    }
}

fn mail_of(server: &MailServer, more: &str) -> String {
    format!(
        "[email]\nsmarthost = \"127.0.0.1:{}\"\nfrom = \"f@example.org\"\nto = [\"a@example.org\"]\ntimeout = \"3s\"\n{more}",
        server.port
    )
}

#[test]
fn greylisting_and_a_stall_delay_a_mail_and_lose_nothing() {
    for mode in [Smtp::Greylist, Smtp::Stall] {
        let server = MailServer::start(mode);
        let mut lone = Lone::new("observe", "exit 1", "cat @D@/active-slot", &mail_of(&server, ""));
        lone.start(&[]);
        lone.announce();
        assert_eq!(lone.outcome(), "withheld");
        if mode == Smtp::Stall {
            wait_until(SOON, "the server was asked", || (*server.asked.lock().unwrap() > 0).then_some(()));
            std::thread::sleep(Duration::from_secs(4));
            *server.mode.lock().unwrap() = Smtp::Fine;
        }
        wait_until(Duration::from_secs(90), "the mail arrives all the same", || {
            let all = server.messages.lock().unwrap();
            all.iter().any(|m| m.contains("X-Flipback-Reason: withheld")).then_some(())
        });
    }
}

#[test]
fn a_page_that_mail_refuses_goes_the_other_way_once() {
    let server = MailServer::start(Smtp::Refuse);
    let more = mail_of(&server, "[fallback]\nexec = [\"@D@/page\"]\nafter = \"10s\"\n");
    let mut lone = Lone::new("observe", "exit 1", "cat @D@/active-slot", &more);
    let pages = lone.path("pages");
    script(lone.dir.path(), "page", &format!("cat >> {}; echo ==== >> {}", pages.display(), pages.display()));
    lone.start(&[]);
    lone.announce();
    assert_eq!(lone.outcome(), "withheld");
    let read = || fs::read_to_string(&pages).unwrap_or_default();
    let told = wait_until(Duration::from_secs(90), "the page is told by the fallback", || {
        let text = read();
        text.contains("WOULD HAVE ROLLED BACK").then_some(text)
    });
    assert!(told.contains("checkout blue → green"), "{told}");
    // The server comes to its senses: the mail goes out as well, and the fallback does not speak again.
    *server.mode.lock().unwrap() = Smtp::Fine;
    wait_until(Duration::from_secs(120), "the mail arrives in the end", || {
        server.messages.lock().unwrap().iter().any(|m| m.contains("X-Flipback-Reason: withheld")).then_some(())
    });
    assert_eq!(read().matches("WOULD HAVE ROLLED BACK").count(), 1, "{}", read());
}

/// nginx reloads a broken file with exit code 0 and goes on serving the old one.
#[test]
fn an_nginx_that_says_yes_and_serves_the_old_file_is_found_out() {
    let port = free_port();
    let switch = "cd @D@; echo \"this is no nginx configuration\" > slot.conf; echo x >> ran; \
                  NGINX -e @D@/err.log -p @D@ -c @D@/nginx.conf -s reload 2>/dev/null; exit 0"
        .replace("NGINX", program("nginx").to_str().unwrap());
    let active = format!(
        "exec /usr/bin/python3 -c 'import urllib.request; print(urllib.request.urlopen(\"http://127.0.0.1:{port}/\").read().decode())'"
    );
    let mut lone = Lone::new("auto", &switch, &active, "");
    let d = lone.dir.path().display().to_string();
    fs::write(lone.path("slot.conf"), "return 200 'green';\n").unwrap();
    let config = format!(
        "daemon off;\nmaster_process on;\npid {d}/nginx.pid;\nevents {{}}\nhttp {{ access_log off; client_body_temp_path {d}/t1; \
         proxy_temp_path {d}/t2; fastcgi_temp_path {d}/t3; uwsgi_temp_path {d}/t4; scgi_temp_path {d}/t5;\n\
         server {{ listen 127.0.0.1:{port}; location / {{ include {d}/slot.conf; }} }} }}\n"
    );
    fs::write(lone.path("nginx.conf"), config).unwrap();
    let mut command = Command::new(program("nginx"));
    command.arg("-e").arg(lone.path("err.log")).arg("-p").arg(lone.dir.path()).arg("-c").arg(lone.path("nginx.conf"));
    let nginx = Proc::start("nginx", lone.dir.path(), &mut command);
    wait_until(SOON, "nginx serves", || TcpStream::connect(("127.0.0.1", port)).ok().map(|_| ()));
    lone.start(&[]);
    lone.announce();
    assert_eq!(lone.outcome(), "rollback_failed", "{}", lone.view());
    let tries = fs::read_to_string(lone.path("ran")).unwrap().lines().count();
    assert_eq!(tries, 3, "each after a look that showed green still");
    nginx.signal("-TERM");
}

/// The wall clock is set back by an hour and forth again in the middle of a soak: nothing waits for it.
#[test]
fn a_wall_clock_that_jumps_stops_nothing() {
    let library = [
        "/usr/lib/x86_64-linux-gnu/faketime/libfaketimeMT.so.1",
        "/usr/lib/aarch64-linux-gnu/faketime/libfaketimeMT.so.1",
    ]
    .into_iter()
    .find(|path| Path::new(path).exists())
    .expect("libfaketime is missing: apt-get install libfaketime");
    let mut lone = Lone::new("auto", "echo x >> @D@/ran; echo $1 > @D@/active-slot", "cat @D@/active-slot", "");
    let clock = lone.path("clock");
    fs::write(&clock, "+0").unwrap();
    let green = free_port();
    let config = lone.path("flipback.toml");
    let text = fs::read_to_string(&config).unwrap();
    // A green that lives, so that it is the jump and not its death that is seen first.
    let line = text.lines().find(|l| l.starts_with("slots.green")).unwrap().to_owned();
    fs::write(&config, text.replace(&line, &format!("slots.green = {{ health = {{ tcp = \"127.0.0.1:{green}\" }} }}")))
        .unwrap();
    let alive = TcpListener::bind(("127.0.0.1", green)).unwrap();
    lone.start(&[
        ("LD_PRELOAD", library),
        ("FAKETIME_TIMESTAMP_FILE", clock.to_str().unwrap()),
        ("FAKETIME_NO_CACHE", "1"),
        ("FAKETIME_DONT_FAKE_MONOTONIC", "1"),
    ]);
    lone.announce();
    let checks = |lone: &Lone| -> f64 {
        let view = lone.view();
        let all = view["evidence"].as_array().cloned().unwrap_or_default();
        all.iter().find(|e| e["signal"] == "alive").and_then(|e| e["requests"].as_f64()).unwrap_or(0.0)
    };
    let goes_on = |lone: &Lone, what: &str| {
        let from = checks(lone);
        wait_until(Duration::from_secs(20), what, || (checks(lone) >= from + 3.0).then_some(()));
    };
    goes_on(&lone, "health is asked");
    for jump in ["-3600", "+7200", "+0"] {
        fs::write(&clock, jump).unwrap();
        goes_on(&lone, &format!("health is asked after a jump to {jump}"));
    }
    let view = lone.view();
    assert!(view["outcome"].is_null(), "the soak did not end by a jump: {view}");
    // And a slot that dies after all that is found as ever.
    drop(alive);
    wait_until(SOON, "the traffic is moved back", || {
        (fs::read_to_string(lone.path("active-slot")).unwrap().trim() == "blue").then_some(())
    });
    assert_eq!(fs::read_to_string(lone.path("ran")).unwrap().lines().count(), 1);
}
