//! A small real world for what moves traffic: two apps that say their slot, and a flipback without readings, whose
//! rollbacks a person orders.

use std::fs;
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::PathBuf;
use std::process::{Command, Output};
use std::time::Duration;

use serde_json::Value;
use tempfile::TempDir;

use crate::stack::{Proc, flipback_in, free_port, outcome_of, program, wait_until};

pub const SOON: Duration = Duration::from_secs(60);

/// An app that answers every request with its slot's name.
pub fn app(slot: &'static str) -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    std::thread::spawn(move || {
        for mut stream in listener.incoming().flatten() {
            std::thread::spawn(move || {
                let _ = stream.set_read_timeout(Some(Duration::from_secs(5)));
                let _ = stream.read(&mut [0; 4096]);
                let length = slot.len();
                let _ =
                    write!(stream, "HTTP/1.1 200 OK\r\nContent-Length: {length}\r\nConnection: close\r\n\r\n{slot}");
            });
        }
    });
    port
}

/// The body of a GET, or nothing.
pub fn get(port: u16, path: &str) -> String {
    request(port, "GET", path, "").1
}

/// Status and body.
pub fn request(port: u16, method: &str, path: &str, body: &str) -> (u16, String) {
    let Ok(mut stream) = TcpStream::connect(("127.0.0.1", port)) else { return (0, String::new()) };
    let _ = stream.set_read_timeout(Some(Duration::from_secs(3)));
    let length = body.len();
    let head = format!(
        "{method} {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\nContent-Type: application/json\r\nContent-Length: {length}\r\n\r\n"
    );
    if stream.write_all(format!("{head}{body}").as_bytes()).is_err() {
        return (0, String::new());
    }
    let mut answer = String::new();
    let _ = stream.read_to_string(&mut answer);
    let status = answer.split(' ').nth(1).and_then(|code| code.parse().ok()).unwrap_or(0);
    (status, answer.split_once("\r\n\r\n").map_or(String::new(), |(_, body)| body.trim().to_owned()))
}

pub struct Bench {
    pub blue: u16,
    pub green: u16,
    pub front: u16,
    pub daemon: Option<Proc>,
    /// The service's slots in the configuration.
    pub slots: String,
    pub dir: TempDir,
}

const SLOTS: &str = "slots.blue = { health = { http = \"http://127.0.0.1:@BLUE@/\", timeout = \"2s\" } }\n\
    slots.green = { health = { http = \"http://127.0.0.1:@GREEN@/\", timeout = \"2s\" } }\n";

/// A front, the slots' file, and a place that says which slot is served.
const NGINX: &str = "daemon off;\nmaster_process on;\npid @D@/nginx.pid;\nevents {}\nhttp { access_log off; client_body_temp_path @D@/t1; \
    proxy_temp_path @D@/t2; fastcgi_temp_path @D@/t3; uwsgi_temp_path @D@/t4; scgi_temp_path @D@/t5;\n\
    include @D@/up/*.conf;\nserver { listen 127.0.0.1:@FRONT@; location / { proxy_pass http://checkout; }\n\
    location = /flipback-slot { allow 127.0.0.1; deny all; return 200 \"$checkout_slot\\n\"; } } }\n";

/// nginx's own way to be reloaded, as the configuration writes a command.
pub const NGINX_RELOAD: &str =
    "[\"@NGINX@\", \"-e\", \"@D@/err.log\", \"-p\", \"@D@\", \"-c\", \"@D@/nginx.conf\", \"-s\", \"reload\"]";

impl Bench {
    /// A real nginx that serves green, with this text in the slots' file.
    pub fn nginx(&self, held: &str) -> Proc {
        fs::create_dir_all(self.path("up")).unwrap();
        self.write("up/checkout.conf", held);
        self.write("nginx.conf", NGINX);
        let mut command = Command::new(program("nginx"));
        command
            .arg("-e")
            .arg(self.path("err.log"))
            .arg("-p")
            .arg(self.dir.path())
            .arg("-c")
            .arg(self.path("nginx.conf"));
        let proc = Proc::start("nginx", self.dir.path(), &mut command);
        wait_until(SOON, "nginx serves green", || (get(self.front, "/") == "green").then_some(()));
        proc
    }

    pub fn new() -> Bench {
        let dir = tempfile::Builder::new().prefix("flipback-act-").tempdir().unwrap();
        Bench { blue: app("blue"), green: app("green"), front: free_port(), daemon: None, slots: SLOTS.into(), dir }
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// Fills in the places of a text.
    pub fn fill(&self, text: &str) -> String {
        text.replace("@D@", self.dir.path().to_str().unwrap())
            .replace("@BLUE@", &self.blue.to_string())
            .replace("@GREEN@", &self.green.to_string())
            .replace("@FRONT@", &self.front.to_string())
            .replace("@NGINX@", program("nginx").to_str().unwrap())
    }

    pub fn write(&self, name: &str, text: &str) {
        fs::write(self.path(name), self.fill(text)).unwrap();
    }

    /// The daemon, with these steps (and whatever follows them) at the end of its service.
    pub fn start(&mut self, steps: &str) {
        // A service without readings: selectors that name no slot, and a Prometheus that is not there.
        let head = "state_dir = \"@D@/state\"\n[api]\nsocket = \"@D@/control.sock\"\n[prometheus]\nurl = \"http://127.0.0.1:1\"\n\
            [metrics.web]\nrequests = 'requests_total{service=\"$service\"}'\nerrors = 'requests_total{service=\"$service\",code=\"500\"}'\n\
            [[service]]\nname = \"checkout\"\nmetrics = \"web\"\nmode = \"ask\"\n\
            SLOTS\
            soak = { duration = \"60s\", tick = \"1s\" }\nrecover_within = \"1s\"\n\n";
        self.write("flipback.toml", &format!("{}{steps}\n", head.replace("SLOTS", &self.slots)));
        let mut command = Command::new(env!("CARGO_BIN_EXE_flipback"));
        command.arg("run").arg("--config").arg(self.path("flipback.toml")).env("FLIPBACK_LOG", "info");
        self.daemon = Some(Proc::start("flipback", self.dir.path(), &mut command));
        let log = self.path("flipback.log");
        wait_until(SOON, "flipback answers", || {
            let log = fs::read_to_string(&log).unwrap_or_default();
            assert!(!log.contains("flipback ends") && !log.contains("error:"), "{log}");
            self.flipback(&["status"]).status.success().then_some(())
        });
    }

    pub fn flipback(&self, args: &[&str]) -> Output {
        flipback_in(self.dir.path(), args)
    }

    /// Standard output and error, and whether it went well.
    pub fn said(&self, args: &[&str]) -> (bool, String) {
        let done = self.flipback(args);
        let text = format!("{}{}", String::from_utf8_lossy(&done.stdout), String::from_utf8_lossy(&done.stderr));
        (done.status.success(), text)
    }

    /// blue → green is announced (the traffic is on green already) and ordered back; the watch at its end.
    pub fn rolled_back(&self) -> Value {
        self.rolled_back_from("blue", "green")
    }

    pub fn rolled_back_from(&self, old: &str, new: &str) -> Value {
        let id = self.announced_as(old, new);
        self.ordered(&id)
    }

    pub fn announced(&self) -> String {
        self.announced_as("blue", "green")
    }

    fn announced_as(&self, old: &str, new: &str) -> String {
        let done = self.flipback(&["announce", "checkout", "--old", old, "--new", new, "--version", "v2"]);
        assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
        String::from_utf8_lossy(&done.stdout).trim().to_owned()
    }

    pub fn ordered(&self, id: &str) -> Value {
        let (good, said) = self.said(&["rollback", id, "--why", "a test"]);
        assert!(good, "{said}");
        self.ended(id)
    }

    pub fn ended(&self, id: &str) -> Value {
        wait_until(Duration::from_secs(120), &format!("the end of {id}"), || {
            let view = self.view(id);
            (!view["outcome"].is_null()).then_some(view)
        })
    }

    pub fn view(&self, id: &str) -> Value {
        serde_json::from_slice(&self.flipback(&["show", id, "-o", "json"]).stdout).unwrap_or(Value::Null)
    }
}

/// The outcome's word.
pub fn word(view: &Value) -> String {
    outcome_of(view).unwrap_or_default()
}

/// What the steps printed, all together.
pub fn output(view: &Value) -> String {
    let steps = view["steps"].as_array().cloned().unwrap_or_default();
    steps.iter().filter_map(|step| step["result"]["ended"]["output"].as_str()).collect::<Vec<_>>().join("\n")
}

pub fn has(view: &Value, kind: &str) -> bool {
    view["timeline"].as_array().is_some_and(|all| all.iter().any(|e| e["kind"] == kind))
}
