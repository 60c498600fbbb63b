//! Prometheus as it is met: behind TLS and logins, by tenants, in pairs, and with a part of its store away.

use std::fs;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use flipback::config::settings::{ClientCertificate, PrometheusAuth, PrometheusSettings};
use flipback::domain::signal::{FailureKind, ReadFailure};
use flipback::edge::sources::Prometheus;
use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair};
use tempfile::TempDir;

use crate::stack::{Options, Proc, Stack, free_port, program, wait_until};
use crate::stub::Stub;

/// bcrypt of "the-password" with its least work.
const HASH: &str = "$2b$04$w5C0f8trFB30UcJhhElmUORI6o94fry06.cqhPcxcV/uSTyjQieu.";

/// An authority of our own, and what it signed, as files.
struct Authority {
    issuer: Issuer<'static, KeyPair>,
}

impl Authority {
    fn new(dir: &Path, name: &str) -> Authority {
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.distinguished_name.push(DnType::CommonName, name);
        let key = KeyPair::generate().unwrap();
        fs::write(dir.join(format!("{name}.pem")), params.self_signed(&key).unwrap().pem()).unwrap();
        Authority { issuer: Issuer::new(params, key) }
    }

    fn signs(&self, dir: &Path, name: &str) {
        let params = CertificateParams::new(vec!["localhost".to_owned(), "127.0.0.1".to_owned()]).unwrap();
        let key = KeyPair::generate().unwrap();
        fs::write(dir.join(format!("{name}.crt")), params.signed_by(&key, &self.issuer).unwrap().pem()).unwrap();
        fs::write(dir.join(format!("{name}.key")), key.serialize_pem()).unwrap();
    }
}

/// Whether a query is answered.
async fn asks(settings: &PrometheusSettings) -> Result<Vec<(String, f64)>, ReadFailure> {
    let _ = rustls::crypto::ring::default_provider().install_default();
    let source = Prometheus::new(settings)
        .map_err(|error| ReadFailure { kind: FailureKind::Rejected, detail: error.to_string() })?;
    source.by_label(r#"label_replace(vector(3), "slot", "blue", "", "")"#, "slot").await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_real_server_behind_tls_a_client_certificate_and_a_password() {
    let dir = TempDir::with_prefix("flipback-tls-").unwrap();
    let path = |name: &str| dir.path().join(name);
    let ours = Authority::new(dir.path(), "ca");
    ours.signs(dir.path(), "server");
    ours.signs(dir.path(), "flipback");
    Authority::new(dir.path(), "other").signs(dir.path(), "stranger");
    fs::write(path("password"), "the-password\n").unwrap();
    fs::write(path("wrong"), "another\n").unwrap();
    let web = format!(
        "tls_server_config:\n  cert_file: server.crt\n  key_file: server.key\n  client_ca_file: ca.pem\n  \
         client_auth_type: RequireAndVerifyClientCert\nbasic_auth_users:\n  flipback: {HASH}\n"
    );
    fs::write(path("web.yml"), web).unwrap();
    fs::write(path("prometheus.yml"), "global: {scrape_interval: 15s}\n").unwrap();
    let port = free_port();
    let mut command = Command::new(program("prometheus"));
    command
        .arg(format!("--config.file={}", path("prometheus.yml").display()))
        .arg(format!("--storage.tsdb.path={}", path("tsdb").display()))
        .arg(format!("--web.config.file={}", path("web.yml").display()))
        .arg(format!("--web.listen-address=127.0.0.1:{port}"))
        .arg("--log.level=error");
    let _prometheus = Proc::start("prometheus", dir.path(), &mut command);
    wait_until(Duration::from_secs(30), "Prometheus listens", || {
        std::net::TcpStream::connect(("127.0.0.1", port)).is_ok().then_some(())
    });
    let certificate = |name: &str| {
        Some(ClientCertificate { cert_file: path(&format!("{name}.crt")), key_file: path(&format!("{name}.key")) })
    };
    let auth = |file: &str| Some(PrometheusAuth::Basic { username: "flipback".into(), password_file: path(file) });
    let good = PrometheusSettings {
        ca_file: Some(path("ca.pem")),
        certificate: certificate("flipback"),
        auth: auth("password"),
        ..PrometheusSettings::at(format!("https://localhost:{port}"))
    };
    assert_eq!(asks(&good).await, Ok(vec![("blue".to_owned(), 3.0)]));
    let wrong = |settings: PrometheusSettings| async move { asks(&settings).await.unwrap_err() };
    let refused = wrong(PrometheusSettings { auth: auth("wrong"), ..good.clone() }).await;
    assert_eq!((refused.kind, refused.detail.contains("401")), (FailureKind::Rejected, true), "{refused}");
    let nobody = wrong(PrometheusSettings { certificate: None, ..good.clone() }).await;
    assert_eq!(nobody.kind, FailureKind::Unreachable, "{nobody}");
    let stranger = wrong(PrometheusSettings { certificate: certificate("stranger"), ..good.clone() }).await;
    assert_eq!(stranger.kind, FailureKind::Unreachable, "{stranger}");
    let unknown = wrong(PrometheusSettings { ca_file: Some(path("other.pem")), ..good.clone() }).await;
    assert_eq!(unknown.kind, FailureKind::Unreachable, "{unknown}");
    let mixed = ClientCertificate { cert_file: path("flipback.crt"), key_file: path("password") };
    let mixed = wrong(PrometheusSettings { certificate: Some(mixed), ..good.clone() }).await;
    assert!(mixed.detail.contains("password"), "{mixed}");
}

/// A stub of the documented HTTP API: there is no Mimir and no Thanos to be had here.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn tenants_parameters_and_partial_answers() {
    let dir = TempDir::with_prefix("flipback-tenant-").unwrap();
    fs::write(dir.path().join("token"), "the-token\n").unwrap();
    let stub = Stub::start(|asked| {
        if asked.header("authorization") != "Bearer the-token" {
            return (401, r#"{"status": "error", "errorType": "unauthorized", "error": "no token"}"#.into());
        }
        let told = |more: &str| {
            let result = r#"[{"metric": {"slot": "blue"}, "value": [1, "3"]}]"#;
            let data = format!(r#"{{"resultType": "vector", "result": {result}}}"#);
            (200, format!(r#"{{"status": "success", "data": {data}{more}}}"#))
        };
        assert!(asked.body.contains("query="), "{}", asked.body);
        match asked.header("x-scope-orgid") {
            // Mimir, with notes that are no warnings.
            "shop" => told(r#", "infos": ["PromQL info: metric might not be a counter"]"#),
            // Thanos, asked not to answer by halves, and one that does all the same.
            "strict" if asked.body.contains("partial_response=false") => told(""),
            "strict" => (400, "not asked for whole answers".into()),
            "halves" => told(r#", "warnings": ["store gateway 2 is unreachable"]"#),
            // VictoriaMetrics' cluster.
            "partial" => told(r#", "isPartial": true"#),
            _ => (401, "no org id".into()),
        }
    });
    let of = |tenant: &str| {
        let mut settings = PrometheusSettings::at(format!("http://127.0.0.1:{}", stub.port));
        settings.auth = Some(PrometheusAuth::Bearer { token_file: dir.path().join("token") });
        settings.headers.insert("X-Scope-OrgID".into(), tenant.into());
        settings
    };
    assert_eq!(asks(&of("shop")).await, Ok(vec![("blue".to_owned(), 3.0)]));
    let mut strict = of("strict");
    assert_eq!(asks(&strict).await.unwrap_err().kind, FailureKind::Rejected);
    strict.params.insert("partial_response", "false".into());
    assert!(asks(&strict).await.is_ok());
    let halves = asks(&of("halves")).await.unwrap_err();
    assert!(halves.kind == FailureKind::Unusable && halves.detail.contains("store gateway 2"), "{halves}");
    let partial = asks(&of("partial")).await.unwrap_err();
    assert!(partial.kind == FailureKind::Unusable && partial.detail.contains("partial"), "{partial}");
    assert_eq!(asks(&of("stranger")).await.unwrap_err().kind, FailureKind::Rejected);
    let open = PrometheusSettings { auth: None, ..of("shop") };
    assert!(asks(&open).await.unwrap_err().detail.contains("no token"));
}

/// Two real servers that scrape the same. With one of two wanted, one may go; with both wanted, one that is gone is
/// blindness, and nothing is moved by it.
#[test]
fn two_replicas_and_a_quorum() {
    for quorum in [1, 2] {
        let mut stack = Stack::start(&Options { soak: "300s", ..Options::default() });
        let second = free_port();
        let mut command = Command::new(program("prometheus"));
        command
            .arg(format!("--config.file={}", stack.dir.path().join("prometheus.yml").display()))
            .arg(format!("--storage.tsdb.path={}", stack.dir.path().join("tsdb2").display()))
            .arg(format!("--web.listen-address=127.0.0.1:{second}"))
            .arg("--log.level=warn");
        let replica = Proc::start("replica", stack.dir.path(), &mut command);
        stack.reconfigure(
            "[prometheus]\n",
            &format!("[prometheus]\nreplicas = [\"http://127.0.0.1:{second}\"]\nquorum = {quorum}\n"),
        );
        stack.seed_normal();
        stack.start_daemon();
        stack.switch_to("green");
        let id = stack.announce();
        let ticks = || stack.watch(&id)["ticks"].as_u64().unwrap_or(0);
        wait_until(Duration::from_secs(40), "both are read", || (ticks() >= 8).then_some(()));
        let checked = String::from_utf8(stack.flipback(&["check", "--live", "checkout"]).stdout).unwrap();
        assert!(checked.contains("(replica 1)") && checked.contains("a tick's cost"), "{checked}");
        assert!(checked.contains(" samples, "), "a real server says what a query touched: {checked}");
        let before = ticks();
        if quorum == 1 {
            // The first in the list goes: the replica takes over.
            stack.prometheus = None;
            let ticks = || stack.watch(&id)["ticks"].as_u64().unwrap_or(0);
            wait_until(Duration::from_secs(30), "the other goes on", || (ticks() >= before + 8).then_some(()));
            stack.fault("green", "errors=1");
            wait_until(Duration::from_secs(30), "blue is active again", || {
                (stack.active_slot() == "blue").then_some(())
            });
        } else {
            drop(replica);
            stack.fault("green", "errors=1");
            std::thread::sleep(Duration::from_secs(20));
            assert!(ticks() <= before + 2, "{} {before}", ticks());
            assert_eq!(stack.active_slot(), "green", "nothing is moved by one server alone");
            let log = fs::read_to_string(stack.dir.path().join("flipback.log")).unwrap();
            assert!(log.contains("1 of 2 servers answer, 2 are wanted"), "{log}");
        }
    }
}
