//! Exact counts against a real Prometheus: slow scrapes, restarts, births, gaps. The app here is a
//! scripted exporter in this process, so that its own counters are known to the last request.

use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::process::Command;
use std::sync::{Arc, Mutex};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use flipback::config::settings::PrometheusSettings;
use flipback::domain::counts::Counts;
use flipback::domain::service::{Metrics, SlotSpec};
use flipback::domain::signal::Observation;
use flipback::domain::switch::{ServiceName, Slot, SwitchId};
use flipback::domain::time::{Span, Timestamp};
use flipback::edge::sources::Prometheus;
use flipback::engine::message::{CommandId, ObserveAsk, RecordAsk};
use tempfile::TempDir;

use crate::stack::{Proc, free_port, program, wait_until};

#[derive(Default)]
struct App {
    by_code: BTreeMap<&'static str, u64>,
    started_s: f64,
    delay: Duration,
    /// Scrapes are refused.
    gap: bool,
}

type Shared = Arc<Mutex<App>>;

fn now() -> Timestamp {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
    Timestamp::from_millis(i64::try_from(since.as_millis()).unwrap())
}

fn exporter(port: u16, slot: &'static str, app: Shared) {
    let listener = TcpListener::bind(("127.0.0.1", port)).unwrap();
    std::thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            let app = app.clone();
            std::thread::spawn(move || answer(stream, slot, &app));
        }
    });
}

fn answer(mut stream: TcpStream, slot: &str, app: &Shared) {
    let mut request = [0; 2048];
    let _ = stream.read(&mut request);
    let (body, delay, gap) = {
        let app = app.lock().unwrap();
        let mut body = String::new();
        for (code, count) in &app.by_code {
            body.push_str(&format!(
                "http_requests_total{{service=\"checkout\",env=\"{slot}\",code=\"{code}\"}} {count}\n"
            ));
        }
        body.push_str(&format!("process_start_time_seconds {}\n", app.started_s));
        (body, app.delay, app.gap)
    };
    std::thread::sleep(delay);
    let status = if gap { "500 Internal Server Error" } else { "200 OK" };
    let head = format!(
        "HTTP/1.1 {status}\r\nContent-Type: text/plain\r\nContent-Length: {}\r\nConnection: close\r\n\r\n",
        body.len()
    );
    let _ = stream.write_all(head.as_bytes()).and_then(|()| stream.write_all(body.as_bytes()));
}

struct Bench {
    _prometheus: Proc,
    source: Prometheus,
    app: Shared,
    port: u16,
    _dir: TempDir,
}

impl Bench {
    fn start(flags: &[&str]) -> Bench {
        Bench::of(flags, |dir, port| {
            let mut command = Command::new(program("prometheus"));
            command
                .arg(format!("--config.file={}", dir.join("prometheus.yml").display()))
                .arg(format!("--storage.tsdb.path={}", dir.join("tsdb").display()))
                .arg(format!("--web.listen-address=127.0.0.1:{port}"));
            (command, PrometheusSettings::at(format!("http://127.0.0.1:{port}")))
        })
    }

    /// VictoriaMetrics, which speaks the same API. It shows samples half a minute late unless it is told otherwise, and a
    /// new series up to eleven seconds late whatever it is told: its index is read through a cache.
    fn victoria() -> Bench {
        Bench::of(&[], |dir, port| {
            let mut command = Command::new(program("victoria-metrics"));
            command
                .arg(format!("-promscrape.config={}", dir.join("prometheus.yml").display()))
                .arg(format!("-storageDataPath={}", dir.join("vm").display()))
                .arg(format!("-httpListenAddr=127.0.0.1:{port}"))
                .args(["-loggerLevel=WARN", "-search.latencyOffset=1s", "-memory.allowedPercent=5"]);
            let mut settings = PrometheusSettings::at(format!("http://127.0.0.1:{port}"));
            settings.params.insert("nocache", "1".into());
            settings.settle = Some(Span::from_secs(12));
            (command, settings)
        })
    }

    fn of(flags: &[&str], server: impl Fn(&Path, u16) -> (Command, PrometheusSettings)) -> Bench {
        let dir = TempDir::with_prefix("flipback-counts-").unwrap();
        let (app_port, port) = (free_port(), free_port());
        let app: Shared = Arc::default();
        {
            let mut a = app.lock().unwrap();
            a.by_code.insert("200", 1000);
            a.started_s = now().as_secs_f64();
        }
        exporter(app_port, "green", app.clone());
        let config = format!(
            "global: {{scrape_interval: 1s, scrape_timeout: 1s}}\nscrape_configs:\n  - job_name: app\n    static_configs: [{{targets: ['127.0.0.1:{app_port}']}}]\n"
        );
        std::fs::write(dir.path().join("prometheus.yml"), config).unwrap();
        let (mut command, settings) = server(dir.path(), port);
        let prometheus = Proc::start("prometheus", dir.path(), command.args(flags));
        let _ = rustls::crypto::ring::default_provider().install_default();
        let source = Prometheus::new(&settings).unwrap();
        Bench { _prometheus: prometheus, source, app, port, _dir: dir }
    }

    fn count(&self, code: &'static str, n: u64) {
        *self.app.lock().unwrap().by_code.entry(code).or_default() += n;
    }

    fn restart(&self) {
        let mut app = self.app.lock().unwrap();
        app.by_code.clear();
        app.started_s = now().as_secs_f64();
    }

    /// `None` while Prometheus does not listen yet.
    fn raw(&self, query: &str) -> Option<serde_json::Value> {
        let encoded: String = query
            .bytes()
            .map(|b| if b.is_ascii_alphanumeric() { char::from(b).to_string() } else { format!("%{b:02X}") })
            .collect();
        let mut stream = TcpStream::connect(("127.0.0.1", self.port)).ok()?;
        write!(stream, "GET /api/v1/query?query={encoded} HTTP/1.0\r\n\r\n").ok()?;
        let mut text = String::new();
        stream.read_to_string(&mut text).ok()?;
        serde_json::from_str(text.split_once("\r\n\r\n")?.1).ok()
    }
}

fn metrics() -> Metrics {
    Metrics {
        from: Default::default(),
        name: "web".into(),
        requests: r#"http_requests_total{service="$service",env="$slot"}"#.into(),
        errors: Some(r#"http_requests_total{service="$service",env="$slot",code=~"5.."}"#.into()),
        latency: None,
        custom: Vec::new(),
    }
}

fn ask(from: Timestamp, slot: &str) -> (CommandId, ObserveAsk) {
    let id = CommandId { switch: SwitchId::try_new("checkout-1").unwrap(), n: 1 };
    let ask = ObserveAsk {
        service: ServiceName::try_new("checkout").unwrap(),
        slot: Slot::try_new(slot).unwrap(),
        spec: SlotSpec::default(),
        metrics: metrics(),
        from,
        grid: Span::from_secs(1),
        plausible_rate: Some(10_000.0),
        timeout: Span::from_secs(5),
    };
    (id, ask)
}

/// Telescoping ticks, as the engine makes them.
struct Ticker {
    from: Timestamp,
    sum: Counts,
    remarks: Vec<String>,
}

impl Ticker {
    async fn tick(&mut self, bench: &Bench) {
        tokio::time::sleep(Duration::from_millis(500)).await;
        for (_, observation, _) in bench.source.observe(now, vec![ask(self.from, "green")]).await {
            match observation {
                Observation::Cell(cell) => {
                    self.sum = self.sum.plus(*cell.counts.value().unwrap());
                    self.from = cell.to;
                    self.remarks.extend(cell.remarks.clone());
                }
                Observation::Empty { .. } | Observation::Absent { .. } => {}
                Observation::Failed(failure) => panic!("{failure}"),
            }
        }
    }

    /// Ticks until everything up to `until` was read.
    async fn up_to(&mut self, bench: &Bench, until: Timestamp) {
        let limit = now() + Span::from_secs(30);
        while self.from < until {
            assert!(now() < limit, "ticks stand still at {} before {until}", self.from);
            self.tick(bench).await;
        }
    }
}

fn ready(bench: &Bench) {
    wait_until(Duration::from_secs(20), "five samples in Prometheus", || {
        let answer = bench.raw("count_over_time(http_requests_total{code=\"200\"}[1m])")?;
        let n: f64 = answer["data"]["result"][0]["value"][1].as_str()?.parse().ok()?;
        (n >= 5.0).then_some(())
    });
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn slow_scrapes_births_gaps_and_a_restart_after_a_quiet_scrape_lose_nothing() {
    let bench = Bench::start(&["--log.level=warn"]);
    bench.app.lock().unwrap().delay = Duration::from_millis(800);
    ready(&bench);
    // The app has been quiet since it began, so the cut is between two equal samples.
    let mut ticker = Ticker { from: now(), sum: Counts::default(), remarks: Vec::new() };
    let (mut requests, mut errors) = (0u64, 0u64);
    // Each round counts something, and ticks go on beside it.
    for round in 0u64..12 {
        let n = 37 + round * 11 % 29;
        bench.count("200", n);
        requests += n;
        if round >= 4 {
            // A new series is born at its first error.
            bench.count("500", 3);
            requests += 3;
            errors += 3;
        }
        if round == 6 {
            bench.app.lock().unwrap().gap = true;
        }
        if round == 10 {
            bench.app.lock().unwrap().gap = false;
        }
        ticker.tick(&bench).await;
    }
    // Quiet for a scrape and a half, then the app is restarted and counts anew.
    tokio::time::sleep(Duration::from_millis(3200)).await;
    bench.restart();
    bench.count("200", 11);
    bench.count("503", 2);
    requests += 13;
    errors += 2;
    for _ in 0..4 {
        bench.count("200", 5);
        requests += 5;
        ticker.tick(&bench).await;
    }
    tokio::time::sleep(Duration::from_millis(2200)).await;
    let until = now();
    ticker.up_to(&bench, until).await;
    println!("{requests} requests, {errors} errors; flipback counted {:?}", ticker.sum);
    assert_eq!((ticker.sum.requests(), ticker.sum.bad()), (requests as f64, errors as f64), "{:?}", ticker.remarks);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_restart_in_the_middle_counts_what_prometheus_scraped() {
    let bench = Bench::start(&["--log.level=warn"]);
    ready(&bench);
    let from = now();
    let mut ticker = Ticker { from, sum: Counts::default(), remarks: Vec::new() };
    for round in 0..10 {
        bench.count("200", 53);
        bench.count("500", 1);
        if round == 5 {
            // Not quiet: what was counted since the last scrape was never recorded anywhere.
            bench.restart();
            bench.count("200", 400);
        }
        ticker.tick(&bench).await;
    }
    tokio::time::sleep(Duration::from_millis(2500)).await;
    let until = now();
    ticker.up_to(&bench, until).await;
    let (begin, end) = (from.as_secs_f64(), ticker.from.as_secs_f64());
    let answer = bench.raw("http_requests_total[2m]").unwrap();
    let mut scraped = 0.0;
    for series in answer["data"]["result"].as_array().unwrap() {
        let mut last: Option<f64> = None;
        for point in series["values"].as_array().unwrap() {
            let (at, value) = (point[0].as_f64().unwrap(), point[1].as_str().unwrap().parse::<f64>().unwrap());
            if at > end {
                break;
            }
            if at > begin {
                scraped += match last {
                    Some(before) if value >= before => value - before,
                    Some(_) | None => value,
                };
            }
            last = Some(value);
        }
    }
    println!("Prometheus scraped {scraped}; flipback counted {:?}", ticker.sum);
    assert_eq!(ticker.sum.requests(), scraped);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn absent_is_not_zero_and_a_label_cannot_inject() {
    let bench = Bench::start(&["--log.level=warn"]);
    ready(&bench);
    let from = now() - Span::from_secs(3);
    let (_, observation, _) = bench.source.observe(now, vec![ask(from, "blue")]).await.remove(0);
    assert!(matches!(observation, Observation::Absent { .. }), "{observation:?}");
    // Names cannot hold quotes at all; labels from the configuration can, and stay inside their string.
    let (id, mut hostile) = ask(from, "green");
    hostile.spec.labels.insert("pod".into(), r#"x"}[5s])) or vector(0) or vector("#.into());
    let (_, observation, _) = bench.source.observe(now, vec![(id, hostile)]).await.remove(0);
    assert!(matches!(observation, Observation::Absent { .. }), "{observation:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_query_that_prometheus_refuses_is_said_in_its_words() {
    let bench = Bench::start(&["--log.level=warn", "--query.max-samples=1"]);
    wait_until(Duration::from_secs(20), "Prometheus answers", || {
        TcpStream::connect(("127.0.0.1", bench.port)).ok().map(drop)
    });
    // Until a target has two samples there is nothing to refuse.
    let limit = now() + Span::from_secs(20);
    let failure = loop {
        let observed = bench.source.observe(now, vec![ask(now() - Span::from_secs(2), "green")]).await.remove(0).1;
        if let Observation::Failed(failure) = observed
            && failure.kind.as_str() == "rejected"
        {
            break failure;
        }
        assert!(now() < limit, "Prometheus never refused");
        tokio::time::sleep(Duration::from_millis(200)).await;
    };
    assert!(failure.detail.contains("too many samples"), "{failure}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn recorded_cells_hold_the_same_counts() {
    let bench = Bench::start(&["--log.level=warn"]);
    ready(&bench);
    // A quiet cell's edge on both sides of what is counted.
    bench.count("200", 100);
    bench.count("500", 7);
    tokio::time::sleep(Duration::from_secs(8)).await;
    let ask = RecordAsk {
        service: ServiceName::try_new("checkout").unwrap(),
        metrics: metrics(),
        slots: BTreeMap::from([(Slot::try_new("green").unwrap(), SlotSpec::default())]),
    };
    let from = now() - Span::from_mins(2);
    let recorded = bench.source.record(&ask, from, None, Span::from_secs(1)).await.unwrap();
    let sum = recorded[0].cells.iter().fold(Counts::default(), |sum, c| sum.plus(c.counts));
    assert_eq!(
        (sum.requests(), sum.bad()),
        (107.0, 7.0),
        "the first interval of a new target is left out, the error series is born with its first error"
    );
}

/// The same queries, the same counts: births, a gap and a restart.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn victoria_metrics_counts_the_same() {
    let bench = Bench::victoria();
    ready(&bench);
    let mut ticker = Ticker { from: now(), sum: Counts::default(), remarks: Vec::new() };
    let (mut requests, mut errors) = (0u64, 0u64);
    for round in 0u64..24 {
        let n = 37 + round * 11 % 29;
        bench.count("200", n);
        requests += n;
        if round >= 8 {
            bench.count("500", 3);
            requests += 3;
            errors += 3;
        }
        bench.app.lock().unwrap().gap = (12..16).contains(&round);
        ticker.tick(&bench).await;
    }
    // The last scrape before a restart must have come, or what came after it was never recorded anywhere.
    tokio::time::sleep(Duration::from_millis(2500)).await;
    bench.restart();
    bench.count("200", 11);
    bench.count("503", 2);
    requests += 13;
    errors += 2;
    ticker.up_to(&bench, now() + Span::from_secs(2)).await;
    let counted = ticker.sum;
    println!(
        "VictoriaMetrics: {requests} requests, {errors} errors; flipback counted {counted:?} {:?}",
        ticker.remarks
    );
    assert_eq!((counted.requests(), counted.bad()), (requests as f64, errors as f64));
}
