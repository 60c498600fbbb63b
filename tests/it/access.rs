//! Who may do what: the whole matrix of roles and routes over HTTP, users on the control socket, TLS with and without
//! certificates of callers, and what strangers get.

use std::collections::BTreeMap;
use std::fs;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::os::unix::fs::PermissionsExt;
use std::process::{Command, Output};
use std::time::Duration;

use flipback::domain::access::Role;
use flipback::edge::api::{About, RULES};
use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair};
use serde_json::Value;
use tempfile::TempDir;

use crate::bad_requests::{Daemon, TOKEN};
use crate::stack::{Proc, flipback_in, free_port, program, wait_until};

const CART: &str = r#"
[[service]]
name = "cart"
metrics = "web"
slots = ["blue", "green"]
"#;

fn out(done: &Output) -> String {
    String::from_utf8_lossy(&done.stdout).trim().to_owned()
}

fn said(done: &Output) -> String {
    format!("{}{}", String::from_utf8_lossy(&done.stdout), String::from_utf8_lossy(&done.stderr))
}

fn token(daemon: &Daemon, name: &str, role: Role, services: &[&str]) -> String {
    let mut args = vec!["token", "create", name, "--role", role.as_str()];
    services.iter().for_each(|service| args.extend(["--service", service]));
    let made = daemon.flipback(&args);
    assert!(made.status.success(), "{}", said(&made));
    out(&made)
}

fn ask(daemon: &Daemon, method: &str, path: &str, token: &str, body: &str) -> (u16, String) {
    let bearer = if token.is_empty() { String::new() } else { format!("Bearer {token}") };
    let answer = daemon.http(method, path, &[("Authorization", &bearer)], body.as_bytes());
    let (status, text) = answer.split_once(' ').unwrap_or((&answer, ""));
    (status.parse().unwrap_or_else(|_| panic!("{method} {path}: {answer}")), text.to_owned())
}

fn announce(daemon: &Daemon, service: &str) -> String {
    let done = daemon.flipback(&["announce", service, "--old", "blue", "--new", "green", "--version", "v2"]);
    assert!(done.status.success(), "{}", said(&done));
    out(&done)
}

/// A request of each route, about checkout where it can be.
fn request(path: &str, watch: &str, n: usize) -> (String, String) {
    let filled = path
        .replace("{id}", watch)
        .replace("{service}", "checkout")
        .replace("{which}", "nobody")
        .replace("{verb}", if path.contains("baseline") { "unpin" } else { "ack" });
    let body = match path {
        "/api/v1/switches" => {
            format!(r#"{{"service":"checkout","old":"blue","new":"green","version":"v2","id":"matrix-{n}"}}"#)
        }
        "/api/v1/arm" | "/api/v1/disarm" | "/api/v1/check" => r#"{"service":"checkout"}"#.to_owned(),
        "/api/v1/tokens" => format!(r#"{{"name":"made-{n}","role":"read","expires":"1m"}}"#),
        "/api/v1/test/notify" => r#"{"kind":"passed"}"#.to_owned(),
        _ => "{}".to_owned(),
    };
    (filled, body)
}

#[test]
fn each_role_may_what_it_may_on_each_route_and_nothing_else() {
    let daemon = Daemon::with(CART);
    let watch = announce(&daemon, "checkout");
    let mut callers = Vec::new();
    for role in Role::ALL {
        for (word, reach) in [("all", &[][..]), ("own", &["checkout"]), ("other", &["cart"])] {
            // An admin is one over everything.
            if role < Role::Admin || word == "all" {
                callers.push((role, word, token(&daemon, &format!("{role}-{word}"), role, reach)));
            }
        }
    }
    let revoked = token(&daemon, "revoked", Role::Admin, &[]);
    assert!(daemon.flipback(&["token", "revoke", "revoked"]).status.success());
    let (mut asked, mut n) = (0, 0);
    for rule in &RULES {
        let method = rule.method.as_str();
        for (role, reach, token) in &callers {
            n += 1;
            let (path, body) = request(rule.path, &watch, n);
            let (status, text) = ask(&daemon, method, &path, token, &body);
            let reached = match rule.about {
                About::Reached => true,
                About::One => *reach != "other",
                About::All => *reach == "all",
            };
            // On loopback the metrics are open, as an exporter's are.
            let open = rule.path == "/metrics";
            let may = open || (*role >= rule.role && reached);
            let what = format!("{role} over {reach}: {method} {} -> {status} {text}", rule.path);
            if may {
                assert!(
                    !matches!(status, 401 | 403)
                        && (status != 404 || path.contains("nobody") || path.contains("notify")),
                    "{what}"
                );
            } else if *role >= rule.role && path.contains("/watches/") {
                // Who may not see a watch does not learn that it exists.
                assert_eq!(status, 404, "{what}");
            } else {
                assert_eq!(status, 403, "{what}");
                assert!(text.contains("forbidden") && text.contains(role.as_str()), "{what}");
            }
            asked += 1;
        }
        for stranger in ["", "flb_00000000_00", &revoked, "0123456789abcdef0123456789abcdee"] {
            let (path, body) = request(rule.path, &watch, 0);
            let (status, _) = ask(&daemon, method, &path, stranger, &body);
            let wanted = if rule.path == "/metrics" { 200 } else { 401 };
            assert_eq!(status, wanted, "{method} {path} for a stranger");
            asked += 1;
        }
    }
    println!("{} routes × {} callers and 4 strangers: {asked} answers", RULES.len(), callers.len());
}

/// A route that is added without a rule is closed; one without a rule must be one of the few that are open.
#[test]
fn every_route_has_a_rule() {
    let text = fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/src/edge/api/routes.rs")).unwrap();
    let open = ["/-/healthy", "/-/ready", "/hooks/{name}"];
    let mut found = 0;
    for part in text.split(".route(\"").skip(1) {
        let (path, rest) = part.split_once('"').unwrap();
        let methods: Vec<&str> = ["get(", "post(", "put(", "delete(", "patch("]
            .into_iter()
            .filter(|m| rest.split(".route(").next().unwrap().lines().next().unwrap().contains(m))
            .collect();
        found += 1;
        if open.contains(&path) {
            continue;
        }
        for method in methods {
            let method = method.trim_end_matches('(').to_uppercase();
            assert!(
                RULES.iter().any(|rule| rule.path == path && rule.method.as_str() == method),
                "{method} {path} has no rule in gate.rs"
            );
        }
    }
    assert!(found >= RULES.len(), "{found} routes read");
}

#[test]
fn a_token_of_some_services_sees_and_does_only_those() {
    let daemon = Daemon::with(CART);
    announce(&daemon, "checkout");
    announce(&daemon, "cart");
    let own = token(&daemon, "team", Role::Operate, &["checkout"]);
    let json = |path: &str| -> Value { serde_json::from_str(&ask(&daemon, "GET", path, &own, "").1).unwrap() };
    let status = json("/api/v1/status");
    let names: Vec<&str> =
        status["data"]["services"].as_array().unwrap().iter().filter_map(|s| s["name"].as_str()).collect();
    assert_eq!(names, ["checkout"]);
    let watches = status["data"]["watches"].as_array().unwrap();
    assert!(watches.len() == 1 && watches[0]["id"] == "checkout-1", "{watches:?}");
    let watches = json("/api/v1/watches");
    assert_eq!(watches["data"].as_array().unwrap().len(), 1, "{watches}");
    assert_eq!(json("/api/v1/watches?service=cart")["data"].as_array().unwrap().len(), 0);
    let body = r#"{"service":"cart","old":"green","new":"blue","version":"v3"}"#;
    assert_eq!(ask(&daemon, "POST", "/api/v1/switches", &own, body).0, 403);
    // flipback as a whole is nobody's who has a part of it.
    for path in ["/api/v1/disarm", "/api/v1/arm", "/api/v1/check"] {
        let (status, text) = ask(&daemon, "POST", path, &own, "{}");
        assert!(status == 403 && text.contains("name one"), "{path}: {status} {text}");
    }
    let (status, _) = ask(&daemon, "POST", "/api/v1/disarm", &own, r#"{"service":"checkout","why":"ours"}"#);
    assert_eq!(status, 200);
    assert!(daemon.proc().log().contains("token team"), "the log says whose token it was");
}

#[test]
fn tokens_are_made_listed_and_taken_back() {
    let daemon = Daemon::start();
    let made = token(&daemon, "ci", Role::Report, &["checkout"]);
    assert!(made.starts_with("flb_") && made.len() > 64, "{made}");
    let listed = daemon.flipback(&["token", "list"]);
    println!("{}", out(&listed));
    assert!(out(&listed).contains("ci") && out(&listed).contains("report") && !out(&listed).contains(&made));
    // Nobody finds it on disk or in the log, and the file is the daemon's alone.
    let file = daemon.dir.path().join("state/tokens.json");
    let kept = fs::read_to_string(&file).unwrap();
    assert!(!kept.contains(&made) && !kept.contains(made.rsplit('_').next().unwrap()));
    assert_eq!(fs::metadata(&file).unwrap().permissions().mode() & 0o777, 0o600);
    assert!(!daemon.proc().log().contains(&made));
    // A pipeline's way: the command line over HTTP.
    let place = daemon.dir.path().join("ci.token");
    fs::write(&place, &made).unwrap();
    let done = Command::new(env!("CARGO_BIN_EXE_flipback"))
        .args(["announce", "checkout", "--old", "blue", "--new", "green", "--url", &daemon.base()])
        .arg("--token-file")
        .arg(&place)
        .output()
        .unwrap();
    assert!(done.status.success(), "{}", said(&done));
    for (args, wanted) in [
        (&["token", "create", "ci", "--role", "report", "--service", "chekout"][..], "there is no service chekout"),
        (&["token", "create", "c i", "--role", "report"], "may hold letters"),
        (&["token", "create", "ci", "--role", "report", "--expires", "10s"], "must be from 1m"),
        (&["token", "create", "root", "--role", "admin", "--service", "checkout"], "no services beside this role"),
        (&["token", "revoke", "nobody"], "there is no token nobody"),
    ] {
        let done = daemon.flipback(args);
        assert!(!done.status.success() && said(&done).contains(wanted), "{args:?}: {}", said(&done));
    }
    // Two of a name, so that one can follow the other everywhere before it goes.
    let second = token(&daemon, "ci", Role::Report, &["checkout"]);
    assert!(!daemon.flipback(&["token", "create", "ci", "--role", "report"]).status.success());
    let id = made.split('_').nth(1).unwrap();
    assert!(daemon.flipback(&["token", "revoke", id]).status.success());
    assert_eq!(ask(&daemon, "GET", "/api/v1/status", &made, "").0, 401);
    assert_eq!(ask(&daemon, "GET", "/api/v1/status", &second, "").0, 200);
}

/// Real users, by the kernel's word.
#[test]
fn the_control_socket_knows_its_users() {
    let rules = "\n[[api.local]]\nuser = \"nobody\"\nrole = \"report\"\nservices = [\"checkout\"]\n\
                 [[api.local]]\ngroup = \"daemon\"\nrole = \"read\"\n";
    let daemon = Daemon::with(&format!("{rules}{CART}"));
    // The socket is root's here; its group is who may connect at all.
    fs::set_permissions(daemon.dir.path(), fs::Permissions::from_mode(0o755)).unwrap();
    let as_user = |uid: &str, gid: &str, args: &[&str]| {
        let mut command = Command::new(program("setpriv"));
        command.args(["--reuid", uid, "--regid", gid, "--groups", "0", "--"]).arg(env!("CARGO_BIN_EXE_flipback"));
        command.args(args).arg("--socket").arg(daemon.dir.path().join("control.sock"));
        let done = command.output().unwrap();
        (done.status.success(), said(&done))
    };
    let announce = |service| ["announce", service, "--old", "blue", "--new", "green", "--version", "v2"];
    let (good, text) = as_user("nobody", "nogroup", &announce("checkout"));
    assert!(good, "{text}");
    let (good, text) = as_user("nobody", "nogroup", &announce("cart"));
    assert!(!good && text.contains("cart is out of reach"), "{text}");
    let (good, text) = as_user("nobody", "nogroup", &["disarm", "checkout", "--why", "x"]);
    assert!(!good && text.contains("needs the role operate"), "{text}");
    let (good, text) = as_user("bin", "daemon", &["status"]);
    assert!(good, "a group's rule: {text}");
    let (good, text) = as_user("bin", "daemon", &announce("checkout"));
    assert!(!good && text.contains("needs the role report"), "{text}");
    // All others of the socket's group operate, and make no tokens.
    let (good, text) = as_user("games", "games", &["disarm", "cart", "--why", "x"]);
    assert!(good, "{text}");
    let (good, text) = as_user("games", "games", &["token", "create", "mine", "--role", "admin"]);
    assert!(!good && text.contains("needs the role admin"), "{text}");
}

// ---------------------------------------------------------------------- TLS

struct Authority {
    issuer: Issuer<'static, KeyPair>,
    pem: String,
}

impl Authority {
    fn new(name: &str) -> Authority {
        let mut params = CertificateParams::new(Vec::<String>::new()).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.distinguished_name.push(DnType::CommonName, name);
        let key = KeyPair::generate().unwrap();
        let pem = params.self_signed(&key).unwrap().pem();
        Authority { issuer: Issuer::new(params, key), pem }
    }

    /// Certificate and key.
    fn issue(&self, name: &str) -> (String, String) {
        let mut params = CertificateParams::new(vec![name.to_owned()]).unwrap();
        params.distinguished_name.push(DnType::CommonName, name);
        let key = KeyPair::generate().unwrap();
        (params.signed_by(&key, &self.issuer).unwrap().pem(), key.serialize_pem())
    }
}

#[test]
fn tls_with_and_without_a_certificate_of_the_caller() {
    let dir = TempDir::with_prefix("flipback-tls-").unwrap();
    let path = |name: &str| dir.path().join(name).display().to_string();
    let (servers, callers) = (Authority::new("servers"), Authority::new("callers"));
    let put = |name: &str, text: &str| fs::write(dir.path().join(name), text).unwrap();
    let issue = |name: &str| {
        let (cert, key) = servers.issue(name);
        put("server.crt", &cert);
        put("server.key", &key);
    };
    issue("localhost");
    let (cert, key) = callers.issue("ci");
    put("ci.pem", &format!("{cert}{key}"));
    put("servers.pem", &servers.pem);
    put("callers.pem", &callers.pem);
    put("token", TOKEN);
    let port = free_port();
    let config = format!(
        "state_dir = \"{0}/state\"\n[prometheus]\nurl = \"http://127.0.0.1:1\"\n[api]\nlisten = \"127.0.0.1:{port}\"\n\
         token_file = \"{0}/token\"\nsocket = \"{0}/control.sock\"\ntls_cert_file = \"{0}/server.crt\"\n\
         tls_key_file = \"{0}/server.key\"\nclient_ca_file = \"{0}/callers.pem\"\n[metrics.web]\n\
         requests = 'http_requests_total{{env=\"$slot\"}}'\n[[service]]\nname = \"checkout\"\nmetrics = \"web\"\n\
         slots = [\"blue\", \"green\"]\n",
        dir.path().display()
    );
    put("flipback.toml", &config);
    let mut command = Command::new(env!("CARGO_BIN_EXE_flipback"));
    command.arg("run").arg("--config").arg(path("flipback.toml"));
    let daemon = Proc::start("flipback", dir.path(), &mut command);
    wait_until(Duration::from_secs(15), "flipback answers on its socket", || {
        flipback_in(dir.path(), &["status"]).status.success().then_some(())
    });
    let curl = |host: &str, more: &[&str]| {
        let done = Command::new(program("curl"))
            .args(["-sS", "--max-time", "10", "--cacert", &path("servers.pem")])
            .args(["--resolve", &format!("{host}:{port}:127.0.0.1"), "-H", &format!("Authorization: Bearer {TOKEN}")])
            .args(more)
            .arg(format!("https://{host}:{port}/api/v1/status"))
            .output()
            .unwrap();
        (done.status.success(), said(&done))
    };
    let (good, text) = curl("localhost", &["--cert", &path("ci.pem")]);
    assert!(good && text.contains("checkout"), "{text}");
    let (good, text) = curl("localhost", &[]);
    assert!(!good && !text.contains("checkout"), "without a certificate: {text}");
    let plain = Command::new(program("curl"))
        .args(["-sS", "--max-time", "5", &format!("http://127.0.0.1:{port}/-/healthy")])
        .output()
        .unwrap();
    assert!(!plain.status.success(), "plain text: {}", said(&plain));
    // A renewed certificate is taken by a reload; a broken one is refused, and the old one stays.
    issue("renewed.example");
    let reload = flipback_in(dir.path(), &["reload"]);
    assert!(reload.status.success(), "{}", said(&reload));
    let (good, text) = curl("renewed.example", &["--cert", &path("ci.pem")]);
    assert!(good && text.contains("checkout"), "{text}");
    put("server.crt", "no certificate");
    let reload = flipback_in(dir.path(), &["reload"]);
    assert!(!reload.status.success() && said(&reload).contains("server.crt"), "{}", said(&reload));
    assert!(curl("renewed.example", &["--cert", &path("ci.pem")]).0);
    drop(daemon);
}

/// Off loopback (an address of a network of its own): metrics are behind the token, without TLS it does not start.
#[test]
fn off_loopback_tls_is_required_and_metrics_are_closed() {
    let dir = TempDir::with_prefix("flipback-net-").unwrap();
    let servers = Authority::new("servers");
    let (cert, key) = servers.issue("10.9.8.7");
    let put = |name: &str, text: &str| fs::write(dir.path().join(name), text).unwrap();
    put("server.crt", &cert);
    put("server.key", &key);
    put("servers.pem", &servers.pem);
    put("token", TOKEN);
    let d = dir.path().display();
    let config = |tls: &str| {
        format!(
            "state_dir = \"{d}/state\"\n[prometheus]\nurl = \"http://127.0.0.1:1\"\n[api]\nlisten = \"10.9.8.7:9747\"\n\
             token_file = \"{d}/token\"\nsocket = \"{d}/control.sock\"\n{tls}\n[metrics.web]\n\
             requests = 'http_requests_total{{env=\"$slot\"}}'\n[[service]]\nname = \"checkout\"\nmetrics = \"web\"\n\
             slots = [\"blue\", \"green\"]\n"
        )
    };
    put("plain.toml", &config(""));
    put("flipback.toml", &config(&format!("tls_cert_file = \"{d}/server.crt\"\ntls_key_file = \"{d}/server.key\"")));
    let check =
        Command::new(env!("CARGO_BIN_EXE_flipback")).args(["check", &format!("{d}/plain.toml")]).output().unwrap();
    assert!(!check.status.success() && said(&check).contains("in the clear"), "{}", said(&check));
    let script = r#"
ip link set lo up && ip addr add 10.9.8.7/32 dev lo
"$1" run --config "$2/flipback.toml" 2>"$2/log" & daemon=$!
for i in $(seq 150); do "$1" status --socket "$2/control.sock" >/dev/null 2>&1 && break; sleep 0.1; done
ask() { curl -s -o /dev/null -w '%{http_code} ' --max-time 5 --cacert "$2/servers.pem" "$@"; }
ask https://10.9.8.7:9747/-/healthy --cacert "$2/servers.pem"
ask https://10.9.8.7:9747/metrics --cacert "$2/servers.pem"
ask https://10.9.8.7:9747/metrics --cacert "$2/servers.pem" -H "Authorization: Bearer $(cat "$2/token")"
kill $daemon; wait $daemon
"#;
    put("script", script);
    let done = Command::new(program("unshare"))
        .args(["--net", "bash"])
        .arg(dir.path().join("script"))
        .arg(env!("CARGO_BIN_EXE_flipback"))
        .arg(dir.path())
        .output()
        .unwrap();
    let log = fs::read_to_string(dir.path().join("log")).unwrap_or_default();
    assert_eq!(out(&done).split_whitespace().collect::<Vec<_>>(), ["200", "401", "200"], "{}{log}", said(&done));
}

#[test]
fn headers_and_connections_are_bounded() {
    let daemon = Daemon::start();
    let answer = |head: &str| {
        let mut stream = TcpStream::connect(("127.0.0.1", daemon.port())).unwrap();
        stream.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
        stream.write_all(head.as_bytes()).unwrap();
        let mut text = String::new();
        let _ = stream.read_to_string(&mut text);
        text.lines().next().unwrap_or_default().to_owned()
    };
    let large = format!("GET /-/healthy HTTP/1.1\r\nHost: x\r\nX-Large: {}\r\n\r\n", "a".repeat(20_000));
    assert!(answer(&large).contains("431"), "{}", answer(&large));
    let many: String = (0..200).map(|n| format!("X-{n}: 1\r\n")).collect();
    assert!(answer(&format!("GET /-/healthy HTTP/1.1\r\nHost: x\r\n{many}\r\n")).contains("431"));
    // Hundreds that connect and say nothing keep nobody out.
    let silent: Vec<TcpStream> =
        (0..300).filter_map(|_| TcpStream::connect(("127.0.0.1", daemon.port())).ok()).collect();
    assert_eq!(silent.len(), 300);
    assert!(answer("GET /-/healthy HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n").contains("200"));
}

#[test]
fn guesses_are_slowed_down_and_a_good_token_is_not() {
    let daemon = Daemon::start();
    let mut seen: BTreeMap<u16, usize> = BTreeMap::new();
    for n in 0..400 {
        let (status, _) = ask(&daemon, "GET", "/api/v1/status", &format!("flb_{n:08x}_{n}"), "");
        *seen.entry(status).or_default() += 1;
    }
    println!("{seen:?}");
    assert!(seen[&401] >= 200 && seen.get(&429).is_some_and(|n| *n >= 20), "{seen:?}");
    assert_eq!(ask(&daemon, "GET", "/api/v1/status", TOKEN, "").0, 200);
}
