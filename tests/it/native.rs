//! Native histograms of a real Prometheus: an exporter in this process speaks the protobuf exposition that they
//! need, so that what Prometheus stores of them is known to the last request.

use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::net::TcpListener;
use std::process::Command;
use std::sync::{Arc, Mutex};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use flipback::config::settings::PrometheusSettings;
use flipback::domain::counts::Buckets;
use flipback::domain::service::{Latency, Metrics, SlotSpec};
use flipback::domain::signal::{Observation, Quantile};
use flipback::domain::switch::{ServiceName, Slot, SwitchId};
use flipback::domain::time::{Span, Timestamp};
use flipback::edge::sources::Prometheus;
use flipback::engine::message::{CommandId, ObserveAsk, RecordAsk};
use flipback::judge::quantile::quantile;
use tempfile::TempDir;

use crate::stack::{Proc, free_port, program};

fn now() -> Timestamp {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
    Timestamp::from_millis(i64::try_from(since.as_millis()).unwrap())
}

/// Requests by the index of their bucket in schema 3: index `i` ends at 2^(i/8) seconds.
type Counted = BTreeMap<i32, u64>;

// ---------------------------------------------------------------------- protobuf, by hand

fn varint(mut v: u64, out: &mut Vec<u8>) {
    while v >= 0x80 {
        out.push((v as u8) | 0x80);
        v >>= 7;
    }
    out.push(v as u8);
}

fn number(tag: u64, v: u64, out: &mut Vec<u8>) {
    varint(tag << 3, out);
    varint(v, out);
}

fn double(tag: u64, v: f64, out: &mut Vec<u8>) {
    varint(tag << 3 | 1, out);
    out.extend(v.to_le_bytes());
}

fn bytes(tag: u64, v: &[u8], out: &mut Vec<u8>) {
    varint(tag << 3 | 2, out);
    varint(v.len() as u64, out);
    out.extend(v);
}

fn zigzag(v: i64) -> u64 {
    ((v << 1) ^ (v >> 63)) as u64
}

fn family(name: &str, kind: u64, labels: &[(&str, &str)], value: (u64, Vec<u8>), out: &mut Vec<u8>) {
    let mut metric = Vec::new();
    for (name, value) in labels {
        let mut pair = Vec::new();
        bytes(1, name.as_bytes(), &mut pair);
        bytes(2, value.as_bytes(), &mut pair);
        bytes(1, &pair, &mut metric);
    }
    bytes(value.0, &value.1, &mut metric);
    let mut message = Vec::new();
    bytes(1, name.as_bytes(), &mut message);
    number(3, kind, &mut message);
    bytes(4, &metric, &mut message);
    varint(message.len() as u64, out);
    out.extend(message);
}

fn page(counted: &Counted, started_s: f64) -> Vec<u8> {
    let labels = [("service", "checkout"), ("env", "green")];
    let total: u64 = counted.values().sum();
    let mut out = Vec::new();
    let plain = |v: f64| {
        let mut value = Vec::new();
        double(1, v, &mut value);
        value
    };
    let with_code = [labels[0], labels[1], ("code", "200")];
    family("http_requests_total", 0, &with_code, (3, plain(total as f64)), &mut out);
    family("process_start_time_seconds", 1, &[], (2, plain(started_s)), &mut out);
    let mut h = Vec::new();
    number(1, total, &mut h);
    double(2, 0.0, &mut h);
    number(5, zigzag(3), &mut h);
    double(6, 1e-6, &mut h);
    number(7, 0, &mut h);
    if let (Some(first), Some(last)) = (counted.keys().next(), counted.keys().next_back()) {
        let mut span = Vec::new();
        number(1, zigzag(i64::from(*first)), &mut span);
        number(2, (last - first + 1) as u64, &mut span);
        bytes(12, &span, &mut h);
        let (mut deltas, mut before) = (Vec::new(), 0);
        for i in *first..=*last {
            let n = counted.get(&i).copied().unwrap_or(0) as i64;
            varint(zigzag(n - before), &mut deltas);
            before = n;
        }
        bytes(13, &deltas, &mut h);
    }
    family("http_request_duration_seconds", 4, &labels, (7, h), &mut out);
    out
}

// ---------------------------------------------------------------------- the bench

#[derive(Default)]
struct App {
    counted: Counted,
    started_s: f64,
}

fn exporter(port: u16, app: Arc<Mutex<App>>) {
    let listener = TcpListener::bind(("127.0.0.1", port)).unwrap();
    std::thread::spawn(move || {
        for mut stream in listener.incoming().flatten() {
            let _ = stream.read(&mut [0; 2048]);
            let body = {
                let app = app.lock().unwrap();
                page(&app.counted, app.started_s)
            };
            let kind = "application/vnd.google.protobuf; proto=io.prometheus.client.MetricFamily; encoding=delimited";
            let head = format!("HTTP/1.1 200 OK\r\nContent-Type: {kind}\r\nContent-Length: {}", body.len());
            let _ = write!(stream, "{head}\r\nConnection: close\r\n\r\n");
            let _ = stream.write_all(&body);
        }
    });
}

fn metrics() -> Metrics {
    Metrics {
        from: Default::default(),
        name: "web".into(),
        requests: r#"http_requests_total{service="$service",env="$slot"}"#.into(),
        errors: None,
        latency: Some(Latency::Native(r#"http_request_duration_seconds{service="$service",env="$slot"}"#.into())),
        custom: Vec::new(),
    }
}

fn ask(from: Timestamp) -> (CommandId, ObserveAsk) {
    let id = CommandId { switch: SwitchId::try_new("checkout-1").unwrap(), n: 1 };
    let ask = ObserveAsk {
        service: ServiceName::try_new("checkout").unwrap(),
        slot: Slot::try_new("green").unwrap(),
        spec: SlotSpec::default(),
        metrics: metrics(),
        from,
        grid: Span::from_secs(1),
        plausible_rate: Some(10_000.0),
        timeout: Span::from_secs(5),
    };
    (id, ask)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn native_histograms_are_counted_exactly_and_finely() {
    let dir = TempDir::with_prefix("flipback-native-").unwrap();
    let (app_port, port) = (free_port(), free_port());
    let app: Arc<Mutex<App>> = Arc::default();
    {
        // Before the tick: it must not be counted.
        let mut app = app.lock().unwrap();
        app.counted.insert(-20, 1000);
        app.started_s = now().as_secs_f64();
    }
    exporter(app_port, app.clone());
    let config = format!(
        "global: {{scrape_interval: 1s, scrape_timeout: 1s}}\nscrape_configs:\n  - job_name: app\n    static_configs: [{{targets: ['127.0.0.1:{app_port}']}}]\n"
    );
    std::fs::write(dir.path().join("prometheus.yml"), config).unwrap();
    let mut command = Command::new(program("prometheus"));
    command
        .arg(format!("--config.file={}", dir.path().join("prometheus.yml").display()))
        .arg(format!("--storage.tsdb.path={}", dir.path().join("tsdb").display()))
        .arg(format!("--web.listen-address=127.0.0.1:{port}"))
        .args(["--enable-feature=native-histograms", "--log.level=warn"]);
    let _prometheus = Proc::start("prometheus", dir.path(), &mut command);
    let _ = rustls::crypto::ring::default_provider().install_default();
    let source = Prometheus::new(&PrometheusSettings {
        timeout: Span::from_secs(5),
        ..PrometheusSettings::at(format!("http://127.0.0.1:{port}"))
    })
    .unwrap();
    // Until the series has been there for a while. The tick is long: a busy machine's scrapes make the source wait
    // for them (`settle`), and what is left of a short one may hold no sample, however often it is asked for.
    let limit = now() + Span::from_secs(60);
    loop {
        let observed = source.observe(now, vec![ask(now() - Span::from_secs(10))]).await.remove(0).1;
        if matches!(&observed, Observation::Cell(_)) {
            break;
        }
        assert!(now() < limit, "no cell: {observed:?}");
        tokio::time::sleep(Duration::from_millis(300)).await;
    }
    tokio::time::sleep(Duration::from_millis(1500)).await;

    let began = now();
    let (mut from, mut sum, mut requests) = (began, Buckets::default(), 0.0);
    let mut expected = Counted::new();
    for round in 0i32..10 {
        if round == 5 {
            // Quiet for a scrape and a half, then the app begins anew.
            tokio::time::sleep(Duration::from_millis(2200)).await;
        }
        {
            // At once: no scrape sees half of a round.
            let mut app = app.lock().unwrap();
            if round == 5 {
                app.counted.clear();
                app.started_s = now().as_secs_f64();
            }
            for (i, n) in [(-30, 70), (-20 + round % 3, 25), (-8, 5)] {
                *app.counted.entry(i).or_default() += n;
                *expected.entry(i).or_default() += n;
            }
        }
        // Ticks until the round is surely scraped and read, however busy the machine is.
        let until = now() + Span::from_millis(1200);
        let limit = until + Span::from_secs(30);
        while from < until {
            assert!(now() < limit, "ticks stand still at {from} before {until}");
            tokio::time::sleep(Duration::from_millis(700)).await;
            for (_, observation, _) in source.observe(now, vec![ask(from)]).await {
                let Observation::Cell(cell) = observation else { continue };
                from = cell.to;
                requests += cell.counts.value().unwrap().requests();
                if let Some(latency) = cell.latency.value() {
                    sum = sum.plus(latency).unwrap();
                }
            }
        }
    }
    let total: u64 = expected.values().sum();
    println!("{total} requests; flipback counted {requests} and {} in histograms", sum.total());
    assert_eq!((requests, sum.total()), (total as f64, total as f64));
    // Bounds of the grid are bounds of the histogram: 2^(-20/8), 2^(-18/8), 2^(-8/8).
    for (bound_s, below) in [(2f64.powf(-2.5), -20), (2f64.powf(-2.25), -18), (0.5, -8), (0.01, -60)] {
        let want: u64 = expected.iter().filter(|(i, _)| **i <= below).map(|(_, n)| n).sum();
        let at = sum.bounds().iter().position(|b| (*b / bound_s - 1.0).abs() < 1e-9);
        let Some(at) = at else { continue };
        assert_eq!(sum.cumulative()[at], want as f64, "at most {bound_s} s");
    }
    let p99_s = quantile(&sum, Quantile::P99.q()).unwrap();
    assert!((0.42..=0.5).contains(&p99_s), "5 % take between 0.46 and 0.5 s: {p99_s}");

    // A counter named as a histogram costs the latency, with a word, and not the counts.
    let (id, mut wrong) = ask(now() - Span::from_secs(10));
    wrong.metrics.latency = Some(Latency::Native(metrics().requests));
    match source.observe(now, vec![(id, wrong)]).await.remove(0).1 {
        Observation::Cell(cell) => {
            assert!(cell.counts.value().is_some(), "{cell:?}");
            assert!(format!("{:?}", cell.latency).contains("is no native histogram"), "{cell:?}");
        }
        other => panic!("{other:?}"),
    }

    // The recorded normal has them as well, once they have settled; what was restarted inside a cell is not in it.
    let ask = RecordAsk {
        service: ServiceName::try_new("checkout").unwrap(),
        metrics: metrics(),
        slots: BTreeMap::from([(Slot::try_new("green").unwrap(), SlotSpec::default())]),
    };
    tokio::time::sleep(Duration::from_secs(7)).await;
    let recorded = source.record(&ask, began - Span::from_secs(1), None, Span::from_secs(1)).await.unwrap();
    let cells = recorded[0].cells.iter().filter_map(|c| c.latency.as_ref());
    let recorded = cells.fold(Buckets::default(), |sum, b| sum.plus(b).unwrap());
    println!("recorded {} of {total} in histograms", recorded.total());
    assert_eq!(recorded.total(), total as f64 - 100.0, "all but the hundred of the restarted scrape");
}
