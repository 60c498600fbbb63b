//! HAProxy and nginx by flipback's own hand, on real ones, and what goes wrong with them.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::process::Command;
use std::time::Duration;

use crate::bench::{Bench, NGINX_RELOAD as RELOAD, SOON, get, has, output, word};
use crate::stack::{Proc, free_port, program, wait_until};

// ---------------------------------------------------------------------- HAProxy

/// The configuration as the deploy tool left it: a restart brings green.
const HAPROXY: &str = "global\n    stats socket @D@/haproxy.sock mode 666 level LEVEL\n    server-state-file @D@/haproxy.state\n\
    defaults\n    mode http\n    timeout connect 1s\n    timeout client 5s\n    timeout server 5s\n    LOAD\n\
    frontend front\n    bind 127.0.0.1:@FRONT@\n    default_backend app\n\
    backend app\n    server b1 127.0.0.1:@BLUE@ disabled\n    server g1 127.0.0.1:@GREEN@\n    server g2 127.0.0.1:@GREEN@\n";

const STEP: &str = "[[service.rollback]]\nname = \"haproxy\"\n\
    haproxy = { socket = \"@D@/haproxy.sock\", backend = \"app\", servers = { blue = \"b1\", green = [\"g1\", \"g2\"] } }\n";

fn haproxy(bench: &Bench, level: &str, load: &str) -> Proc {
    bench.write("haproxy.cfg", &HAPROXY.replace("LEVEL", level).replace("LOAD", load));
    restart(bench)
}

fn restart(bench: &Bench) -> Proc {
    let mut command = Command::new(program("haproxy"));
    command.arg("-db").arg("-f").arg(bench.path("haproxy.cfg"));
    let proc = Proc::start("haproxy", bench.dir.path(), &mut command);
    wait_until(SOON, "HAProxy serves", || (!get(bench.front, "/").is_empty()).then_some(()));
    proc
}

#[test]
fn haproxy_is_moved_back_and_a_restart_that_forgets_it_is_noticed() {
    let mut bench = Bench::new();
    let proxy = haproxy(&bench, "admin", "");
    bench.start(STEP);
    assert_eq!(get(bench.front, "/"), "green");
    let view = bench.rolled_back();
    assert_eq!((word(&view).as_str(), get(bench.front, "/").as_str()), ("rolled_back_unseen", "blue"), "{view:#}");
    let said = output(&view);
    for line in [
        "set server app/b1 state ready",
        "set server app/g2 state maint",
        "requests go to blue",
        "not kept over a restart",
    ] {
        assert!(said.contains(line), "{line}: {said}");
    }
    let id = view["id"].as_str().unwrap().to_owned();
    drop(proxy);
    let _again = restart(&bench);
    assert_eq!(get(bench.front, "/"), "green", "it has forgotten");
    wait_until(SOON, "the drift is noticed", || has(&bench.view(&id), "drift").then_some(()));
}

#[test]
fn haproxy_keeps_what_is_written_to_its_state_file() {
    let mut bench = Bench::new();
    let proxy = haproxy(&bench, "admin", "load-server-state-from-file global");
    let kept = STEP.replace("[\"g1\", \"g2\"] }", "[\"g1\", \"g2\"] }, state_file = \"@D@/haproxy.state\"");
    bench.start(&kept);
    let view = bench.rolled_back();
    assert!(output(&view).contains("kept over a restart that loads"), "{}", output(&view));
    drop(proxy);
    let _again = restart(&bench);
    assert_eq!(get(bench.front, "/"), "blue", "{}", fs::read_to_string(bench.path("haproxy.state")).unwrap());
}

#[test]
fn haproxy_that_takes_no_orders_is_told_before_it_is_needed() {
    let mut bench = Bench::new();
    let _proxy = haproxy(&bench, "user", "");
    bench.start(STEP);
    // The drill and the check know it beforehand ...
    let (good, drill) = bench.said(&["drill", "checkout"]);
    assert!(!good && drill.contains("`level admin` is needed"), "{drill}");
    let (good, check) = bench.said(&["check", "--live", "checkout"]);
    assert!(!good && check.contains("`level admin` is needed"), "{check}");
    // ... and a rollback says what HAProxy said.
    let view = bench.rolled_back();
    assert_eq!(word(&view), "rollback_failed");
    assert!(output(&view).contains("Permission denied"), "{}", output(&view));
    assert_eq!(get(bench.front, "/"), "green");
}

#[test]
fn haproxys_socket_that_is_gone_is_a_refusal_with_its_reason() {
    let mut bench = Bench::new();
    let _proxy = haproxy(&bench, "admin", "");
    bench.start(STEP);
    let id = bench.announced();
    fs::remove_file(bench.path("haproxy.sock")).unwrap();
    let view = bench.ordered(&id);
    assert_eq!(word(&view), "withheld");
    assert!(view["outcome"].to_string().contains("haproxy.sock: No such file"), "{}", view["outcome"]);
    assert_eq!(get(bench.front, "/"), "green");
}

#[test]
fn haproxy_takes_nothing_out_before_the_target_is_up() {
    let mut bench = Bench::new();
    let _proxy = haproxy(&bench, "admin", "");
    // By HAProxy's own checks blue is down, whatever flipback's health check says.
    let checked = fs::read_to_string(bench.path("haproxy.cfg")).unwrap();
    drop(_proxy);
    let dead = free_port();
    let checked = checked.replace(
        &format!("server b1 127.0.0.1:{} disabled", bench.blue),
        &format!("server b1 127.0.0.1:{dead} disabled check inter 200ms rise 2 fall 1"),
    );
    fs::write(bench.path("haproxy.cfg"), checked).unwrap();
    let _proxy = restart(&bench);
    bench.start(&format!("{STEP}timeout = \"10s\"\nlimit = \"12s\"\n"));
    let view = bench.rolled_back();
    assert_eq!((word(&view).as_str(), get(bench.front, "/").as_str()), ("rollback_failed", "green"), "{view:#}");
    assert!(output(&view).contains("no server of blue is up by HAProxy's own checks"), "{}", output(&view));
}

#[test]
fn haproxy_drains_or_weighs_out_and_a_part_is_no_slot() {
    use flipback::domain::action::{Haproxy, SocketAddress, TakenOut};
    use flipback::domain::switch::Slot;
    use flipback::edge::actuators::native::haproxy as native;
    let bench = Bench::new();
    let _proxy = haproxy(&bench, "admin", "");
    let slot = |name: &str| Slot::try_new(name).unwrap();
    let of = |others| Haproxy {
        address: SocketAddress::Unix(bench.path("haproxy.sock")),
        backend: "app".into(),
        servers: [(slot("blue"), vec!["b1".to_owned()]), (slot("green"), vec!["g1".into(), "g2".into()])].into(),
        others,
        end_sessions_after: Some(flipback::domain::time::Span::from_millis(50)),
        state_file: None,
    };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let limit = Duration::from_secs(10);
    for (others, to) in [
        (TakenOut::Drain, "blue"),
        (TakenOut::Weight, "green"),
        (TakenOut::Maint, "blue"),
        (TakenOut::Weight, "green"),
        (TakenOut::Drain, "blue"),
    ] {
        runtime.block_on(native::act(&of(others), &slot(to), limit)).unwrap();
        assert_eq!(runtime.block_on(native::look(&of(others))).unwrap(), to);
        assert_eq!(get(bench.front, "/"), to, "{others:?}");
    }
    // One of three servers of a ramp: neither slot has the traffic.
    runtime
        .block_on(flipback::edge::haproxy::order(&of(TakenOut::Maint).address, "set server app/g1 state ready"))
        .unwrap();
    assert_eq!(runtime.block_on(native::look(&of(TakenOut::Maint))).unwrap(), "blue 50 %, green 50 %");
    let strange = Haproxy { servers: [(slot("blue"), vec!["b9".to_owned()])].into(), ..of(TakenOut::Maint) };
    let why = runtime.block_on(native::act(&strange, &slot("blue"), limit)).unwrap_err();
    assert!(why.contains("has no server b9; it has b1, g1, g2"), "{why}");
}

/// A drill for real: there and back on a real proxy, timed, with nobody asked.
#[test]
fn a_drill_goes_there_and_back_and_is_recorded() {
    let mut bench = Bench::new();
    let _proxy = haproxy(&bench, "admin", "");
    bench.start(&format!(
        "{STEP}\n[[service.detect]]\nhaproxy = {{ socket = \"@D@/haproxy.sock\", backend = \"app\" }}\n\
        words = {{ blue = [\"b1\"], green = [\"g1\", \"g2\"] }}\nevery = \"300ms\"\n"
    ));
    wait_until(SOON, "flipback knows where the traffic is", || {
        bench.said(&["status"]).1.contains("green").then_some(())
    });
    let (good, dry) = bench.said(&["drill", "checkout"]);
    assert!(good && dry.contains("takes orders (level admin)") && dry.contains("the live slot"), "{dry}");
    assert_eq!(get(bench.front, "/"), "green", "a dry one moves nothing");
    let (good, asked) = bench.said(&["drill", "checkout", "--for-real"]);
    assert!(!good && asked.contains("--yes") && asked.contains("nothing was moved"), "{asked}");
    let (good, real) = bench.said(&["drill", "checkout", "--for-real", "--yes", "--why", "practice"]);
    println!("{dry}{real}");
    assert!(good && real.contains("drilled (there and back)"), "{real}");
    assert_eq!(real.matches("proven").count(), 2, "{real}");
    assert_eq!(get(bench.front, "/"), "green", "home again");
    std::thread::sleep(Duration::from_secs(1));
    let (_, history) = bench.said(&["history"]);
    assert_eq!(history.matches("Drill of checkout, green → blue and home").count(), 2, "{history}");
    assert_eq!(history.lines().count(), 3, "its own detector has opened no watch: {history}");
    // What has rotted meanwhile is found.
    fs::remove_file(bench.path("haproxy.sock")).unwrap();
    let (good, rotten) = bench.said(&["drill", "checkout"]);
    assert!(!good && rotten.contains("BROKEN") && rotten.contains("haproxy.sock: No such file"), "{rotten}");
}

// ---------------------------------------------------------------------- nginx

fn held(slot: &str, port: &str) -> String {
    format!("upstream checkout {{ server 127.0.0.1:{port}; }}\\nmap $host $checkout_slot {{ default {slot}; }}")
}

fn nginx_step(blue: &str, test: &str, reload: &str) -> String {
    let green = held("green", "@GREEN@");
    format!(
        "[[service.rollback]]\nname = \"nginx\"\nlimit = \"20s\"\n[service.rollback.nginx]\npath = \"@D@/up/checkout.conf\"\n\
         content = {{ blue = \"{blue}\", green = \"{green}\" }}\ntest = {test}\nreload = {reload}\nlive_within = \"2s\"\n\
         served = {{ url = \"http://127.0.0.1:@FRONT@/flipback-slot\" }}\n"
    )
}

const TEST: &str = "[\"@NGINX@\", \"-e\", \"@D@/err.log\", \"-p\", \"@D@\", \"-c\", \"@D@/nginx.conf\", \"-t\"]";
fn nginx(bench: &Bench) -> Proc {
    bench.nginx(&held("green", "@GREEN@").replace("\\n", "\n"))
}

/// What is on disk is what is served, and nothing lies about.
fn agrees(bench: &Bench, slot: &str) {
    assert_eq!((get(bench.front, "/").as_str(), get(bench.front, "/flipback-slot").as_str()), (slot, slot));
    let text = fs::read_to_string(bench.path("up/checkout.conf")).unwrap();
    assert!(text.contains(&format!("default {slot};")), "{text}");
    let left: Vec<_> = fs::read_dir(bench.path("up")).unwrap().flatten().map(|e| e.file_name()).collect();
    assert_eq!(left, ["checkout.conf"]);
}

#[test]
fn nginx_is_moved_back_by_a_file_a_test_a_reload_and_a_look() {
    let mut bench = Bench::new();
    let nginx = nginx(&bench);
    bench.start(&nginx_step(&held("blue", "@BLUE@"), TEST, RELOAD));
    let (good, drill) = bench.said(&["drill", "checkout"]);
    assert!(good && drill.contains("the present configuration passes its test"), "{drill}");
    let view = bench.rolled_back();
    assert_eq!(word(&view), "rolled_back_unseen", "{view:#}");
    agrees(&bench, "blue");
    nginx.signal("-TERM");
}

#[test]
fn an_nginx_that_refuses_or_ignores_the_new_file_gets_the_old_one_back() {
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let port = taken.local_addr().unwrap().port();
    let blue = held("blue", "@BLUE@");
    let busy = format!("{blue}\\nserver {{ listen 127.0.0.1:{port}; }}");
    let cases = [
        // A file that is no configuration, found by the test.
        (nginx_step("upstream checkout { server", TEST, RELOAD), "the test ("),
        // The same without a test: the reload itself refuses it.
        (nginx_step("upstream checkout { server", "\"none\"", RELOAD), "the reload ("),
        // A reload that says yes and does nothing.
        (nginx_step(&blue, TEST, "[\"/bin/true\"]"), "still shows \"green\""),
        // A port that is taken: the test and the reload are content, and nginx goes on with what it had.
        (nginx_step(&busy, TEST, RELOAD), "still shows \"green\""),
        // A reload that is not allowed.
        (nginx_step(&blue, TEST, "[\"/bin/false\"]"), "the reload (/bin/false) ended with exit status: 1"),
    ];
    // Side by side: each waits for three attempts.
    std::thread::scope(|scope| {
        for (step, why) in &cases {
            scope.spawn(move || {
                let mut bench = Bench::new();
                let nginx = nginx(&bench);
                bench.start(step);
                let view = bench.rolled_back();
                assert_eq!(word(&view), "rollback_failed", "{view:#}");
                let said = output(&view);
                assert!(said.contains(why) && said.contains("is back"), "{why}: {said}");
                agrees(&bench, "green");
                nginx.signal("-TERM");
            });
        }
    });
    drop(taken);
}

/// An attempt that was killed between the file and the reload has left the old file beside it.
#[test]
fn what_a_killed_attempt_left_is_what_is_put_back() {
    let mut bench = Bench::new();
    let nginx = nginx(&bench);
    let old = fs::read(bench.path("up/checkout.conf")).unwrap();
    fs::write(bench.path("up/.checkout.conf.flipback-old"), old).unwrap();
    bench.write("up/checkout.conf", &held("blue", "@BLUE@").replace("\\n", "\n"));
    bench.start(&nginx_step(&held("blue", "@BLUE@"), TEST, "[\"/bin/false\"]"));
    let view = bench.rolled_back();
    assert_eq!(word(&view), "rollback_failed", "{view:#}");
    agrees(&bench, "green");
    nginx.signal("-TERM");
}

// ---------------------------------------------------------------------- permissions

/// As another user, who may neither write the file nor speak to the socket.
#[test]
fn what_is_not_permitted_is_named() {
    let mut bench = Bench::new();
    let _nginx = nginx(&bench);
    let _proxy = {
        let other = free_port();
        let front = std::mem::replace(&mut bench.front, other);
        let proxy = haproxy(&bench, "admin", "");
        bench.front = front;
        proxy
    };
    fs::set_permissions(bench.path("haproxy.sock"), fs::Permissions::from_mode(0o600)).unwrap();
    fs::set_permissions(bench.dir.path(), fs::Permissions::from_mode(0o755)).unwrap();
    let program = bench.path("flipback");
    fs::copy(env!("CARGO_BIN_EXE_flipback"), &program).unwrap();
    for (action, why) in [
        (
            serde_json::json!({ "haproxy": { "address": { "unix": bench.path("haproxy.sock") }, "backend": "app",
                "servers": { "blue": ["b1"] }, "others": "maint", "end_sessions_after": null, "state_file": null } }),
            "haproxy.sock: Permission denied",
        ),
        (
            serde_json::json!({ "file": { "path": bench.path("up/checkout.conf"), "holds": { "blue": "x" }, "link": false } }),
            "up/checkout.conf: Permission denied",
        ),
    ] {
        let attempt = bench.path("attempt");
        fs::create_dir_all(&attempt).unwrap();
        let spec = serde_json::json!({ "argv": [], "native": { "action": action, "to": "blue" }, "env": {}, "start_by": 0,
            "deadline": 4_000_000_000_000_i64, "disarmed": [], "serial": "" });
        fs::write(attempt.join("spec.json"), spec.to_string()).unwrap();
        let done = Command::new("/usr/bin/setpriv")
            .args(["--reuid=65534", "--regid=65534", "--clear-groups"])
            .arg(&program)
            .arg("act")
            .arg(&attempt)
            .output()
            .unwrap();
        let said = String::from_utf8_lossy(&done.stdout);
        assert!(!done.status.success() && said.contains(why), "{said} {}", String::from_utf8_lossy(&done.stderr));
    }
    _nginx.signal("-TERM");
}
