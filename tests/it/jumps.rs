//! What is no simple rise of a counter, written as history into a real Prometheus; and answers that no
//! real one would give, from a fake one.

use std::fmt::Write as _;
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::process::Command;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use flipback::config::settings::PrometheusSettings;
use flipback::domain::counts::Counts;
use flipback::domain::service::{Metrics, SlotSpec};
use flipback::domain::signal::{Observation, Reading, SlotCell};
use flipback::domain::switch::{ServiceName, Slot, SwitchId};
use flipback::domain::time::{Span, Timestamp};
use flipback::edge::sources::Prometheus;
use flipback::engine::message::{CommandId, ObserveAsk};
use tempfile::TempDir;

use crate::stack::{Proc, free_port, program, wait_until};

const MINUTE: i64 = 60;
const TOTAL: &str = "http_requests_total";

fn now() -> Timestamp {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
    Timestamp::from_millis(i64::try_from(since.as_millis()).unwrap())
}

/// Samples once a second up to a chosen end, as a Prometheus would have stored them.
struct History {
    text: String,
    end_s: i64,
}

impl History {
    fn new() -> History {
        History { text: String::new(), end_s: now().as_millis() / 1000 - 5 }
    }

    fn at(&self, s: i64) -> Timestamp {
        Timestamp::from_millis((self.end_s + s) * 1000)
    }

    /// A series by its samples: (seconds from the end, value).
    fn series(&mut self, name: &str, service: &str, labels: &str, samples: impl IntoIterator<Item = (f64, f64)>) {
        let own = if name == TOTAL { format!(",service=\"{service}\",env=\"blue\"{labels}") } else { String::new() };
        for (at, value) in samples {
            let at = self.end_s as f64 + at;
            writeln!(self.text, "{name}{{job=\"app\",instance=\"{service}:1\"{own}}} {value} {at:.3}").unwrap();
        }
    }

    /// The target's own series: scraped well since `from`, its process begun at `began`.
    fn target(&mut self, service: &str, from: i64, began: i64) {
        self.series("up", service, "", rising(from, 0, 1.0, 0.0));
        let began = (self.end_s + began) as f64;
        self.series("process_start_time_seconds", service, "", rising(from, 0, began, 0.0));
    }
}

/// One sample a second in `from..=to`.
fn rising(from: i64, to: i64, first: f64, per_second: f64) -> Vec<(f64, f64)> {
    (from..=to).map(|s| (s as f64, first + (s - from) as f64 * per_second)).collect()
}

/// A real Prometheus over that history.
struct Served {
    _proc: Proc,
    port: u16,
    source: Prometheus,
    _dir: TempDir,
}

fn source(port: u16) -> Prometheus {
    let _ = rustls::crypto::ring::default_provider().install_default();
    Prometheus::new(&PrometheusSettings {
        timeout: Span::from_secs(2),
        ..PrometheusSettings::at(format!("http://127.0.0.1:{port}"))
    })
    .unwrap()
}

impl Served {
    fn start(history: &str) -> Served {
        let dir = TempDir::with_prefix("flipback-history-").unwrap();
        let file = dir.path().join("history.om");
        std::fs::write(&file, format!("{history}# EOF\n")).unwrap();
        let made = Command::new(program("promtool"))
            .args(["tsdb", "create-blocks-from", "openmetrics", "--quiet"])
            .arg(&file)
            .arg(dir.path().join("tsdb"))
            .output()
            .unwrap();
        assert!(made.status.success(), "promtool: {}", String::from_utf8_lossy(&made.stderr));
        std::fs::write(dir.path().join("prometheus.yml"), "global: {}\n").unwrap();
        let port = free_port();
        let mut command = Command::new(program("prometheus"));
        command
            .arg(format!("--config.file={}", dir.path().join("prometheus.yml").display()))
            .arg(format!("--storage.tsdb.path={}", dir.path().join("tsdb").display()))
            .arg(format!("--web.listen-address=127.0.0.1:{port}"));
        let proc = Proc::start("prometheus", dir.path(), &mut command);
        wait_until(Duration::from_secs(30), "Prometheus is ready", || {
            get(port, "/-/ready").contains("200 OK").then_some(())
        });
        Served { _proc: proc, port, source: source(port), _dir: dir }
    }

    fn queries_served(&self) -> f64 {
        get(self.port, "/metrics")
            .lines()
            .filter(|l| l.starts_with("prometheus_http_requests_total") && l.contains("handler=\"/api/v1/query\""))
            .filter_map(|l| l.rsplit_once(' ')?.1.parse::<f64>().ok())
            .sum()
    }
}

fn get(port: u16, path: &str) -> String {
    let Ok(mut stream) = TcpStream::connect(("127.0.0.1", port)) else { return String::new() };
    let _ = write!(stream, "GET {path} HTTP/1.0\r\n\r\n");
    let mut text = String::new();
    let _ = stream.read_to_string(&mut text);
    text
}

fn web() -> Metrics {
    Metrics {
        from: Default::default(),
        name: "web".into(),
        requests: r#"http_requests_total{service="$service",env="$slot"}"#.into(),
        errors: Some(r#"http_requests_total{service="$service",env="$slot",code=~"5.."}"#.into()),
        latency: None,
        custom: Vec::new(),
    }
}

fn ask(service: &str, slot: &str, from: Timestamp) -> ObserveAsk {
    ObserveAsk {
        service: ServiceName::try_new(service).unwrap(),
        slot: Slot::try_new(slot).unwrap(),
        spec: SlotSpec::default(),
        metrics: web(),
        from,
        grid: Span::from_secs(1),
        plausible_rate: None,
        timeout: Span::from_secs(3),
    }
}

fn id(n: u64) -> CommandId {
    CommandId { switch: SwitchId::try_new("checkout-1").unwrap(), n }
}

async fn observe(source: &Prometheus, ask: ObserveAsk) -> Observation {
    source.observe(now, vec![(id(1), ask)]).await.remove(0).1
}

async fn cell(source: &Prometheus, ask: ObserveAsk) -> SlotCell {
    match observe(source, ask).await {
        Observation::Cell(cell) => *cell,
        other => panic!("{other:?}"),
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn jumps_are_told_from_traffic() {
    let mut history = History::new();
    let (ok, bad) = (",code=\"200\"", ",code=\"500\"");
    // Errors are born with the first error.
    history.target("born", -5 * MINUTE, -3600);
    history.series(TOTAL, "born", ok, rising(-5 * MINUTE, 0, 5000.0, 10.0));
    history.series(TOTAL, "born", bad, rising(-4, 0, 2.0, 3.0));
    // An outage: every request fails from here on, more than a handful at once.
    history.target("outage", -5 * MINUTE, -3600);
    history.series(TOTAL, "outage", ok, rising(-5 * MINUTE, 0, 5000.0, 0.0));
    history.series(TOTAL, "outage", bad, rising(-4, 0, 50.0, 50.0));
    // A restart that the process tells of.
    history.series("up", "restart", "", rising(-5 * MINUTE, 0, 1.0, 0.0));
    let began = (history.end_s - 5) as f64;
    history.series("process_start_time_seconds", "restart", "", rising(-5 * MINUTE, -6, began - 9000.0, 0.0));
    history.series("process_start_time_seconds", "restart", "", rising(-5, 0, began, 0.0));
    let fallen = rising(-5 * MINUTE, -6, 50_000.0, 10.0).into_iter().chain(rising(-5, 0, 7000.0, 10.0));
    history.series(TOTAL, "restart", ok, fallen);
    // A renamed label: the same counter under another name.
    history.target("renamed", -5 * MINUTE, -3600);
    history.series(TOTAL, "renamed", ",code=\"200\",pod=\"a\"", rising(-5 * MINUTE, -6, 1e6, 10.0));
    history.series(TOTAL, "renamed", ",code=\"200\",pod=\"b\"", rising(-5, 0, 1_002_950.0, 10.0));
    // A replica one scrape behind: twenty less at a million.
    history.target("dip", -5 * MINUTE, -3600);
    let mut dip = rising(-5 * MINUTE, 0, 1e6, 10.0);
    let at = dip.len() - 4;
    dip[at].1 -= 20.0;
    history.series(TOTAL, "dip", ok, dip);
    // One sample exactly at the tick's start, one a millisecond later, none after.
    history.target("edge", -5 * MINUTE, -3600);
    history.series(TOTAL, "edge", ok, [(-11.0, 5.0), (-10.0, 7.0), (-9.999, 12.0)]);
    history.target("still", -5 * MINUTE, -3600);
    history.series(TOTAL, "still", ok, [(-11.0, 5.0), (-10.0, 7.0)]);
    // Errors that are no part of the requests.
    history.target("odd", -5 * MINUTE, -3600);
    history.series(TOTAL, "odd", ",code=\"200\"", rising(-5 * MINUTE, 0, 10.0, 1.0));

    let tick = history.at(-10);
    let served = Served::start(&history.text);
    for (service, plausible, requests, bad, refused) in [
        ("born", Some(100.0), 114.0, 14.0, None),
        ("born", None, 114.0, 14.0, None),
        ("outage", Some(100.0), 250.0, 250.0, None),
        ("outage", None, 250.0, 250.0, None),
        ("restart", Some(1.0), 40.0 + 7050.0, 0.0, None),
        ("restart", None, 40.0 + 7050.0, 0.0, None),
        ("renamed", Some(100.0), 40.0 + 50.0, 0.0, Some("1002950")),
        ("dip", Some(100.0), 100.0, 0.0, None),
        ("dip", None, 100.0, 0.0, None),
        ("edge", None, 5.0, 0.0, None),
    ] {
        let ask = ObserveAsk { plausible_rate: plausible, ..ask(service, "blue", tick) };
        let cell = cell(&served.source, ask).await;
        let expected = Reading::Value(Counts::try_new(requests, bad).unwrap());
        assert_eq!(cell.counts, expected, "{service} {plausible:?} {:?}", cell.remarks);
        let remark = cell.remarks.iter().find(|remark| remark.contains("counter jump"));
        assert_eq!(remark.is_some(), refused.is_some(), "{service}: {:?}", cell.remarks);
        if let (Some(remark), Some(refused)) = (remark, refused) {
            assert!(remark.contains(&format!("{refused} not counted")), "{service}: {remark}");
        }
    }
    let empty = observe(&served.source, ask("still", "blue", tick)).await;
    assert!(matches!(empty, Observation::Empty { .. }), "{empty:?}");
    let absent = observe(&served.source, ask("born", "green", tick)).await;
    assert!(matches!(absent, Observation::Absent { .. }), "{absent:?}");

    // One query of each kind serves all watches of a template, however many there are.
    let mut cost = Vec::new();
    for services in [vec!["born"], vec!["born", "outage", "restart", "renamed", "dip"]] {
        let asks = |_| services.iter().map(|s| (id(0), ask(s, "blue", tick))).collect::<Vec<_>>();
        let _ = served.source.observe(now, asks(())).await;
        let before = served.queries_served();
        let answers = served.source.observe(now, asks(())).await;
        assert_eq!(answers.len(), services.len());
        assert!(answers.iter().all(|(_, o, _)| matches!(o, Observation::Cell(_))));
        cost.push(served.queries_served() - before);
    }
    println!("queries per tick: {cost:?}");
    // The restart among them costs its raw samples.
    assert!(cost[1] <= cost[0] + 2.0, "{cost:?}");
}

/// A server that says what it is told to, to every request.
fn fake(answer: impl Fn(&str) -> String + Send + Sync + 'static) -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    std::thread::spawn(move || {
        for mut stream in listener.incoming().flatten() {
            let _ = stream.set_read_timeout(Some(Duration::from_secs(2)));
            let mut request = Vec::new();
            let mut chunk = [0; 4096];
            while let Ok(n) = stream.read(&mut chunk) {
                request.extend_from_slice(&chunk[..n]);
                let text = String::from_utf8_lossy(&request);
                let whole = text.split_once("\r\n\r\n").is_some_and(|(head, body)| {
                    let length =
                        head.lines().find_map(|l| l.to_lowercase().strip_prefix("content-length: ")?.parse().ok());
                    body.len() >= length.unwrap_or(0)
                });
                if n == 0 || whole {
                    break;
                }
            }
            let _ = stream.write_all(answer(&String::from_utf8_lossy(&request)).as_bytes());
        }
    });
    port
}

fn http(status: &str, more: &str, body: &str) -> String {
    format!(
        "HTTP/1.1 {status}\r\nContent-Type: application/json\r\n{more}Connection: close\r\nContent-Length: {}\r\n\r\n{body}",
        body.len()
    )
}

/// Every answer that is no data must be a failure that says what it was: never a zero, never a panic.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_answer_that_is_no_data_is_a_failure_that_says_so() {
    let vector = |value: &str| {
        format!(
            r#"{{"status":"success","data":{{"resultType":"vector","result":[{{"metric":{{"service":"checkout","env":"blue"}},"value":[{},"{value}"]}}]}}}}"#,
            now().as_secs_f64()
        )
    };
    let deep = format!("{}{}", "[".repeat(100_000), "]".repeat(100_000));
    let huge =
        format!(r#"{{"status":"success","data":{{"resultType":"vector","result":["{}"]}}}}"#, "x".repeat(40_000_000));
    let cases: Vec<(&str, String, &str)> = vec![
        ("nothing", String::new(), "unreachable"),
        ("not HTTP", "hello\r\n".into(), "unreachable"),
        ("HTML", http("200 OK", "", "<html>login</html>"), "unusable"),
        ("truncated", http("200 OK", "", r#"{"status":"success","data":{"resultType":"vec"#), "unusable"),
        ("too deep", http("200 OK", "", &deep), "unusable"),
        ("too large", http("200 OK", "", &huge), "unusable"),
        (
            "a matrix",
            http("200 OK", "", r#"{"status":"success","data":{"resultType":"matrix","result":[]}}"#),
            "unusable",
        ),
        (
            "a string",
            http("200 OK", "", r#"{"status":"success","data":{"resultType":"string","result":[1,"x"]}}"#),
            "unusable",
        ),
        (
            "a clock in words",
            http("200 OK", "", r#"{"status":"success","data":{"resultType":"scalar","result":[1,"soon"]}}"#),
            "unusable",
        ),
        ("NaN", http("200 OK", "", &vector("NaN")), "unusable"),
        ("+Inf", http("200 OK", "", &vector("+Inf")), "unusable"),
        (
            "its own error",
            http(
                "422 Unprocessable Entity",
                "",
                r#"{"status":"error","errorType":"execution","error":"too many samples"}"#,
            ),
            "rejected",
        ),
        (
            "a bad query",
            http("400 Bad Request", "", r#"{"status":"error","errorType":"bad_data","error":"parse error"}"#),
            "rejected",
        ),
        ("429 for ever", http("429 Too Many Requests", "Retry-After: 1\r\n", ""), "unavailable"),
        ("503 for ever", http("503 Service Unavailable", "", ""), "unavailable"),
        ("a redirect", http("302 Found", "Location: http://127.0.0.1:1/\r\n", ""), "rejected"),
        ("a login", http("401 Unauthorized", "", ""), "rejected"),
    ];
    let mut said = String::new();
    for (class, answer, kind) in cases {
        let port = fake(move |_| answer.clone());
        let began = Instant::now();
        let observed = observe(&source(port), ask("checkout", "blue", now() - Span::from_secs(10))).await;
        let Observation::Failed(failure) = observed else { panic!("{class}: {observed:?}") };
        writeln!(said, "{class}: {failure}").unwrap();
        assert_eq!(failure.kind.as_str(), kind, "{class}: {failure}");
        assert!(failure.detail.chars().count() < 500 && !failure.detail.contains('\n'), "{class}: {failure}");
        assert!(began.elapsed() < Duration::from_secs(8), "{class} took {:?}", began.elapsed());
    }
    println!("{said}");
    // A server that accepts and says nothing is given up within the limit.
    let silent = TcpListener::bind("127.0.0.1:0").unwrap();
    let began = Instant::now();
    let observed = observe(&source(silent.local_addr().unwrap().port()), ask("checkout", "blue", now())).await;
    assert!(matches!(&observed, Observation::Failed(f) if f.kind.as_str() == "timeout"), "{observed:?}");
    assert!(began.elapsed() < Duration::from_secs(8));
}

/// A good clock and bad samples: whatever the counts turn into, it is no number.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn samples_that_are_no_counts_never_become_any() {
    let sample = |labels: &str, value: &str| format!(r#"{{"metric":{{{labels}}},"value":[1,"{value}"]}}"#);
    let vector = |more: &str, samples: &[String]| {
        format!(r#"{{"status":"success"{more},"data":{{"resultType":"vector","result":[{}]}}}}"#, samples.join(","))
    };
    let own = r#""service":"checkout","env":"blue""#;
    let cases: Vec<(&str, String)> = vec![
        ("NaN", vector("", &[sample(own, "NaN")])),
        ("+Inf", vector("", &[sample(own, "+Inf")])),
        ("negative", vector("", &[sample(own, "-5")])),
        ("words", vector("", &[sample(own, "many")])),
        ("warnings", vector(r#","warnings":["the store is partial"]"#, &[sample(own, "5")])),
        ("another slot's", vector("", &[sample(r#""service":"checkout","env":"green""#, "5")])),
        ("without labels", vector("", &[sample("", "5")])),
        ("the same twice", vector("", &[sample(own, "5"), sample(own, "6")])),
        ("nothing", vector("", &[])),
    ];
    let mut said = String::new();
    for (class, answer) in cases {
        let port = fake(move |request| {
            // The clock is asked for first: without it nothing else is.
            let clock = request.contains("time%28%29") || request.contains("time()");
            let scalar = format!(
                r#"{{"status":"success","data":{{"resultType":"scalar","result":[1,"{}"]}}}}"#,
                now().as_secs_f64()
            );
            http("200 OK", "", if clock && !request.contains("http_requests") { &scalar } else { &answer })
        });
        let observed = observe(&source(port), ask("checkout", "blue", now() - Span::from_secs(10))).await;
        writeln!(said, "{class}: {observed:?}").unwrap();
        if let Observation::Cell(cell) = &observed {
            assert!(cell.counts.value().is_none(), "{class}: {cell:?}");
        }
        if class == "warnings" {
            assert!(matches!(&observed, Observation::Failed(f) if f.detail.contains("partial")), "{observed:?}");
        }
    }
    println!("{said}");
}
