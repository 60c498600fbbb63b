//! How much the page costs: a thousand services in the history, two hundred who look on.

use std::fs;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use flipback::domain::account::Account;
use flipback::domain::notice::NoticeReason;
use flipback::domain::switch::{ServiceName, SwitchId};
use flipback::domain::time::Span;
use flipback::edge::notify::sample;
use flipback::journal::{Batch, Journal};

use crate::stack::{Options, Stack, now, wait_until};

const SERVICES: usize = 1_000;
const LOOKERS: usize = 200;
const PAGE_MAX: usize = 100 * 1024;

/// A thousand services, each with a watch that ended.
fn seed(stack: &Stack) {
    let file = stack.dir.path().join("flipback.toml");
    let mut text = fs::read_to_string(&file).unwrap();
    for n in 0..SERVICES {
        text.push_str(&format!(
            "\n[[service]]\nname = \"shop-{n:04}\"\nmetrics = \"web\"\nmode = \"observe\"\nslots.blue = {{}}\nslots.green = {{}}\n"
        ));
    }
    fs::write(&file, text).unwrap();
    let ended =
        [NoticeReason::Passed, NoticeReason::RolledBackRecovered, NoticeReason::Unjudged, NoticeReason::Withheld];
    let ended: Vec<_> = ended.into_iter().filter_map(sample::notice).map(|notice| notice.watch.clone()).collect();
    let (mut journal, _) = Journal::open(&stack.dir.path().join("state")).unwrap();
    let now = now();
    let views: Vec<_> = (0..SERVICES)
        .map(|n| {
            let mut view = ended[n % ended.len()].clone();
            view.id = SwitchId::try_new(format!("shop-{n:04}-1")).unwrap();
            view.switch.service = ServiceName::try_new(format!("shop-{n:04}")).unwrap();
            view.opened_at = now - Span::from_mins(60 + n as u64);
            view.ended_at = Some(view.opened_at + Span::from_mins(30));
            view
        })
        .collect();
    journal.commit(&Batch { entries: &[], views: &views, snapshot: None, writes: &[], now }).unwrap();
}

/// A stream of events that is read until it is told to stop.
fn look(port: u16, path: &str, stop: &AtomicBool, events: &AtomicUsize) -> bool {
    let mut stream = TcpStream::connect(("127.0.0.1", port)).unwrap();
    stream.set_read_timeout(Some(Duration::from_millis(500))).unwrap();
    write!(stream, "GET {path} HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n").unwrap();
    let (mut buffer, mut first) = ([0u8; 65_536], Vec::new());
    while !stop.load(Ordering::Relaxed) {
        match stream.read(&mut buffer) {
            Ok(0) => return false,
            Ok(n) => {
                if first.len() < 200 {
                    first.extend_from_slice(&buffer[..n.min(200)]);
                }
                events.fetch_add(buffer[..n].windows(6).filter(|w| w == b"\ndata:").count(), Ordering::Relaxed);
            }
            Err(error) if matches!(error.kind(), std::io::ErrorKind::WouldBlock | std::io::ErrorKind::TimedOut) => {}
            Err(_) => return false,
        }
    }
    String::from_utf8_lossy(&first).starts_with("HTTP/1.1 200")
}

fn get(port: u16, path: &str) -> (Duration, String) {
    let began = Instant::now();
    let mut stream = TcpStream::connect(("127.0.0.1", port)).unwrap();
    write!(stream, "GET {path} HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: close\r\n\r\n").unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    assert!(answer.starts_with("HTTP/1.1 200"), "{path}: {}", answer.lines().next().unwrap_or(""));
    (began.elapsed(), answer)
}

/// How long after its end each tick was judged, in milliseconds; and the longest stretch that one tick covers.
fn lateness(stack: &Stack, id: &str, from: usize) -> (Vec<i64>, Duration) {
    let said = stack.flipback(&["report", id, "-o", "json"]);
    let account: Account = serde_json::from_slice(&said.stdout).unwrap();
    let ticks = account.ticks();
    let mut late: Vec<i64> = ticks.iter().skip(from).map(|t| t.judged.at.as_millis() - t.cell.to.as_millis()).collect();
    late.sort_unstable();
    let longest = ticks.iter().skip(from.max(1)).map(|t| t.cell.to.since(t.cell.from)).max().unwrap_or_default();
    (late, longest.to_std())
}

#[test]
fn a_thousand_services_and_two_hundred_lookers_cost_no_tick_its_time() {
    let mut stack = Stack::start(&Options { soak: "120s", ..Options::default() });
    seed(&stack);
    stack.start_daemon();
    let port = stack.port("PAGE");
    for path in ["/", "/?page=20", "/?q=shop-07", "/history", "/history?service=shop-0500", "/services/shop-0001"] {
        let mut took: Vec<Duration> = (0..15).map(|_| get(port, path).0).collect();
        took.sort();
        let (_, answer) = get(port, path);
        eprintln!("{path}: {} bytes, median {:?}, longest {:?}", answer.len(), took[7], took[14]);
        assert!(answer.len() < PAGE_MAX, "{path}: {} bytes", answer.len());
    }
    let (_, home) = get(port, "/");
    let (_, history) = get(port, "/history");
    assert!(home.contains("page 1 of 21") && history.contains("rel=\"next\""), "{home}");

    stack.switch_to("green");
    let id = stack.announce();
    let ticks = |n: u64| {
        wait_until(Duration::from_secs(60), &format!("{n} ticks"), || {
            (stack.watch(&id)["ticks"].as_u64()? >= n).then_some(())
        });
    };
    ticks(15);
    let (alone, _) = lateness(&stack, &id, 3);
    let (stop, events) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicUsize::new(0)));
    let lookers: Vec<_> = (0..LOOKERS)
        .map(|n| {
            let (stop, events) = (stop.clone(), events.clone());
            let path = if n % 2 == 0 { "/events".to_owned() } else { format!("/watches/{id}/events") };
            std::thread::spawn(move || look(port, &path, &stop, &events))
        })
        .collect();
    wait_until(Duration::from_secs(30), "all of them look", || {
        (events.load(Ordering::Relaxed) >= LOOKERS).then_some(())
    });
    let begun = stack.watch(&id)["ticks"].as_u64().unwrap();
    ticks(begun + 25);
    let (looked_at, longest) = lateness(&stack, &id, usize::try_from(begun).unwrap() + 1);
    stop.store(true, Ordering::Relaxed);
    let stayed = lookers.into_iter().map(|looker| looker.join().unwrap()).filter(|stayed| *stayed).count();
    let median = |all: &[i64]| all[all.len() / 2];
    eprintln!(
        "a tick is judged {} ms after its end (longest {}) with nobody looking, {} ms (longest {}) with {LOOKERS}; {} events",
        median(&alone),
        alone.last().unwrap(),
        median(&looked_at),
        looked_at.last().unwrap(),
        events.load(Ordering::Relaxed)
    );
    assert_eq!(stayed, LOOKERS, "every stream is open to the end");
    assert!(events.load(Ordering::Relaxed) > LOOKERS * 5, "they are told of what changes");
    assert!(longest <= Duration::from_secs(2), "no tick was left out: {longest:?}");

    // Reading is open here: to those who know the page by its address, and orders are not.
    let answered = |request: &str| {
        let mut stream = TcpStream::connect(("127.0.0.1", port)).unwrap();
        write!(stream, "{request}Connection: close\r\n\r\n").unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        answer.lines().next().unwrap_or("").to_owned()
    };
    assert!(answered("GET / HTTP/1.1\r\nHost: rebound.example\r\n").contains("421"), "another site's name");
    assert!(answered("GET / HTTP/1.1\r\nHost: localhost:1\r\n").contains("200"));
    let order = format!(
        "POST /watches/{id}/cancel HTTP/1.1\r\nHost: 127.0.0.1\r\nOrigin: http://127.0.0.1\r\nContent-Type: \
         application/x-www-form-urlencoded\r\nContent-Length: 0\r\n"
    );
    assert!(answered(&order).contains("303"), "sign in first");
    assert!(stack.watch(&id)["outcome"].is_null(), "nothing was ordered");

    // Whoever looks on keeps nobody from stopping.
    let still_stop = Arc::new(AtomicBool::new(false));
    let looker = std::thread::spawn({
        let (stop, events) = (still_stop.clone(), Arc::new(AtomicUsize::new(0)));
        move || look(port, "/events", &stop, &events)
    });
    std::thread::sleep(Duration::from_millis(500));
    let daemon = stack.daemon.as_mut().unwrap();
    daemon.signal("-TERM");
    let ended = wait_until(Duration::from_secs(10), "its end with a stream open", || daemon.child.try_wait().unwrap());
    assert!(ended.success(), "{ended}");
    still_stop.store(true, Ordering::Relaxed);
    looker.join().unwrap();
}
