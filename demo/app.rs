//! What the demo and the real-parts tests run: a web service that can be made to misbehave, and a
//! bounded load on it. Loopback only.
#![allow(
    clippy::expect_used,
    clippy::disallowed_methods,
    reason = "a demo may end with a word, and lives in real time"
)]

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use axum::extract::{Query, State};
use axum::http::StatusCode;
use axum::routing::get;
use axum::{Json, Router};
use clap::{Parser, Subcommand};
use serde::{Deserialize, Serialize};

#[derive(Parser)]
struct Cli {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Subcommand)]
enum Verb {
    /// Serve one slot of a service
    Serve {
        #[arg(long)]
        listen: SocketAddr,
        #[arg(long)]
        service: String,
        #[arg(long)]
        slot: String,
        #[arg(long, default_value = "v1")]
        version: String,
        /// Share of requests that fail from the start
        #[arg(long, default_value_t = 0.0)]
        errors: f64,
    },
    /// Pass requests on to the slot that a file names
    Front {
        #[arg(long)]
        listen: SocketAddr,
        /// Its first line is a slot's name; it is read for every request
        #[arg(long)]
        active: std::path::PathBuf,
        /// blue=127.0.0.1:9001
        slots: Vec<String>,
    },
    /// Send requests at a steady rate and sum up what came back
    Load {
        #[arg(long)]
        url: String,
        #[arg(long, default_value_t = 80)]
        rps: u32,
        #[arg(long, default_value_t = 120)]
        seconds: u64,
        /// Rewritten twice a second with the sums so far
        #[arg(long)]
        progress_file: Option<std::path::PathBuf>,
    },
}

#[tokio::main(flavor = "multi_thread", worker_threads = 2)]
async fn main() {
    let _ = rustls::crypto::ring::default_provider().install_default();
    match Cli::parse().verb {
        Verb::Serve { listen, service, slot, version, errors } => serve(listen, service, slot, version, errors).await,
        Verb::Front { listen, active, slots } => front(listen, active, &slots).await,
        Verb::Load { url, rps, seconds, progress_file } => load(&url, rps, seconds, progress_file).await,
    }
}

// ---------------------------------------------------------------------- the service

const BOUNDS: [f64; 9] = [0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5];

#[derive(Clone, Copy, Default, Debug, Deserialize, Serialize)]
#[serde(default)]
struct Fault {
    /// Share of requests answered with 500.
    errors: f64,
    slow_ms: u64,
    metrics_delay_ms: u64,
    /// Take connections and never answer anything.
    hang: bool,
    unhealthy: bool,
}

struct App {
    service: String,
    slot: String,
    version: String,
    started_s: f64,
    fault: Mutex<Fault>,
    counted: Mutex<Counted>,
    served: AtomicU64,
}

#[derive(Default, Clone, Serialize)]
struct Counted {
    by_code: BTreeMap<u16, u64>,
    /// Cumulative, the last one is +Inf.
    buckets: [u64; 10],
    seconds: f64,
}

async fn serve(listen: SocketAddr, service: String, slot: String, version: String, errors: f64) {
    assert!(listen.ip().is_loopback(), "the demo listens on loopback only");
    let started = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs_f64();
    let app = Arc::new(App {
        service,
        slot,
        version,
        started_s: started,
        fault: Mutex::new(Fault { errors, ..Fault::default() }),
        counted: Mutex::default(),
        served: AtomicU64::new(0),
    });
    let router = Router::new()
        .route("/", get(work))
        .route("/healthz", get(healthz))
        .route("/metrics", get(metrics))
        .route("/counts", get(|State(app): State<Arc<App>>| async move { Json(lock(&app.counted).clone()) }))
        .route(
            "/fault",
            get(|State(app): State<Arc<App>>| async move { Json(*lock(&app.fault)) })
                .put(set_fault)
                .delete(clear_fault),
        )
        .with_state(app);
    let listener = tokio::net::TcpListener::bind(listen).await.expect("the port is free");
    axum::serve(listener, router).await.expect("serving goes on until killed");
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

async fn hang_if_told(fault: Fault) {
    if fault.hang {
        std::future::pending::<()>().await;
    }
}

async fn work(State(app): State<Arc<App>>) -> (StatusCode, String) {
    let began = Instant::now();
    let fault = *lock(&app.fault);
    hang_if_told(fault).await;
    let n = app.served.fetch_add(1, Ordering::Relaxed);
    // Between 1 and 7 ms, spread without chance so that two runs are alike.
    let jitter = n.wrapping_mul(2_654_435_761) >> 7 & 1023;
    tokio::time::sleep(Duration::from_micros(1000 + jitter * 6) + Duration::from_millis(fault.slow_ms)).await;
    let bad = ((n.wrapping_mul(0x9E37_79B9_7F4A_7C15) >> 40) as f64 / (1u64 << 24) as f64) < fault.errors;
    let code = if bad { StatusCode::INTERNAL_SERVER_ERROR } else { StatusCode::OK };
    let seconds = began.elapsed().as_secs_f64();
    let mut counted = lock(&app.counted);
    *counted.by_code.entry(code.as_u16()).or_default() += 1;
    counted.seconds += seconds;
    for (i, bound) in BOUNDS.iter().enumerate() {
        if seconds <= *bound {
            counted.buckets[i] += 1;
        }
    }
    counted.buckets[9] += 1;
    (code, format!("{} {} {}\n", app.service, app.slot, app.version))
}

async fn healthz(State(app): State<Arc<App>>) -> (StatusCode, &'static str) {
    let fault = *lock(&app.fault);
    hang_if_told(fault).await;
    if fault.unhealthy { (StatusCode::SERVICE_UNAVAILABLE, "unhealthy\n") } else { (StatusCode::OK, "ok\n") }
}

async fn metrics(State(app): State<Arc<App>>) -> String {
    let fault = *lock(&app.fault);
    hang_if_told(fault).await;
    let counted = lock(&app.counted).clone();
    tokio::time::sleep(Duration::from_millis(fault.metrics_delay_ms)).await;
    let labels = format!("service=\"{}\",env=\"{}\"", app.service, app.slot);
    let mut out = String::from("# TYPE http_requests_total counter\n");
    for (code, count) in &counted.by_code {
        let _ = writeln!(out, "http_requests_total{{{labels},code=\"{code}\"}} {count}");
    }
    out.push_str("# TYPE http_request_duration_seconds histogram\n");
    for (i, bound) in BOUNDS.iter().enumerate() {
        let _ = writeln!(out, "http_request_duration_seconds_bucket{{{labels},le=\"{bound}\"}} {}", counted.buckets[i]);
    }
    let total = counted.buckets[9];
    let _ = writeln!(out, "http_request_duration_seconds_bucket{{{labels},le=\"+Inf\"}} {total}");
    let _ = writeln!(out, "http_request_duration_seconds_sum{{{labels}}} {}", counted.seconds);
    let _ = writeln!(out, "http_request_duration_seconds_count{{{labels}}} {total}");
    let _ = writeln!(out, "# TYPE process_start_time_seconds gauge\nprocess_start_time_seconds {}", app.started_s);
    out
}

async fn set_fault(State(app): State<Arc<App>>, Query(fault): Query<Fault>) -> Json<Fault> {
    *lock(&app.fault) = fault;
    Json(fault)
}

async fn clear_fault(State(app): State<Arc<App>>) -> Json<Fault> {
    *lock(&app.fault) = Fault::default();
    Json(Fault::default())
}

// ---------------------------------------------------------------------- the front

struct Front {
    active: std::path::PathBuf,
    slots: BTreeMap<String, String>,
    client: reqwest::Client,
}

async fn front(listen: SocketAddr, active: std::path::PathBuf, slots: &[String]) {
    assert!(listen.ip().is_loopback(), "the demo listens on loopback only");
    let slots = slots.iter().filter_map(|slot| slot.split_once('=')).map(|(a, b)| (a.to_owned(), b.to_owned()));
    let client = plain_client();
    let front = Arc::new(Front { active, slots: slots.collect(), client });
    let router = Router::new().route("/", get(pass_on)).with_state(front);
    let listener = tokio::net::TcpListener::bind(listen).await.expect("the port is free");
    axum::serve(listener, router).await.expect("serving goes on until killed");
}

/// For this machine alone, which may have no certificate authorities.
fn plain_client() -> reqwest::Client {
    let builder = reqwest::Client::builder().timeout(Duration::from_secs(1)).no_proxy();
    builder.tls_certs_only([]).build().expect("a client")
}

async fn pass_on(State(front): State<Arc<Front>>) -> (StatusCode, String) {
    let gone = |why: String| (StatusCode::BAD_GATEWAY, why);
    let text = std::fs::read_to_string(&front.active).unwrap_or_default();
    let Some(address) = front.slots.get(text.lines().next().unwrap_or_default().trim()) else {
        return gone(format!("no slot {text:?}\n"));
    };
    match front.client.get(format!("http://{address}/")).send().await {
        Ok(answer) => (answer.status(), answer.text().await.unwrap_or_default()),
        Err(error) => gone(format!("{error}\n")),
    }
}

// ---------------------------------------------------------------------- the load

/// A load is a test's, never an attack: bounded in time and rate whatever is asked.
const SECONDS_MAX: u64 = 1800;
const RPS_MAX: u32 = 500;

#[derive(Default, Serialize, Clone)]
struct Sums {
    sent: u64,
    ok: u64,
    failed: u64,
    /// Milliseconds since 1970.
    first_failure_ms: Option<u128>,
    last_failure_ms: Option<u128>,
    last_ok_ms: Option<u128>,
    /// Good answers by their body: which slot served.
    bodies: BTreeMap<String, u64>,
    last_body: String,
}

async fn load(url: &str, rps: u32, seconds: u64, progress: Option<std::path::PathBuf>) {
    let parsed = reqwest::Url::parse(url).expect("--url is a URL");
    assert!(
        matches!(parsed.host_str(), Some("127.0.0.1" | "localhost" | "[::1]")),
        "the load goes to this machine only"
    );
    let client = plain_client();
    let sums = Arc::new(Mutex::new(Sums::default()));
    let mut ticks = tokio::time::interval(Duration::from_secs(1) / rps.clamp(1, RPS_MAX));
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Burst);
    let end = tokio::time::sleep(Duration::from_secs(seconds.min(SECONDS_MAX)));
    tokio::pin!(end);
    let mut term =
        tokio::signal::unix::signal(tokio::signal::unix::SignalKind::terminate()).expect("signals can be caught");
    let mut report = tokio::time::interval(Duration::from_millis(500));
    loop {
        tokio::select! {
            () = &mut end => break,
            _ = term.recv() => break,
            _ = report.tick() => {
                if let Some(path) = &progress {
                    let text = serde_json::to_string(&*lock(&sums)).unwrap_or_default();
                    let partial = path.with_extension("partial");
                    if std::fs::write(&partial, text).is_ok() {
                        let _ = std::fs::rename(&partial, path);
                    }
                }
            }
            _ = ticks.tick() => {
                let (client, url, sums) = (client.clone(), parsed.clone(), sums.clone());
                lock(&sums).sent += 1;
                tokio::spawn(async move { note(ask(client, url).await, &sums) });
            }
        }
    }
    tokio::time::sleep(Duration::from_millis(300)).await;
    println!("{}", serde_json::to_string(&*lock(&sums)).unwrap_or_default());
}

async fn ask(client: reqwest::Client, url: reqwest::Url) -> Option<String> {
    let answer = client.get(url).send().await.ok()?;
    if !answer.status().is_success() {
        return None;
    }
    Some(answer.text().await.ok()?.trim().to_owned())
}

fn note(answer: Option<String>, sums: &Mutex<Sums>) {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_millis();
    let mut sums = lock(sums);
    match answer {
        Some(body) => {
            sums.ok += 1;
            sums.last_ok_ms = Some(now);
            *sums.bodies.entry(body.clone()).or_default() += 1;
            sums.last_body = body;
        }
        None => {
            sums.failed += 1;
            sums.first_failure_ms.get_or_insert(now);
            sums.last_failure_ms = Some(now);
        }
    }
}
