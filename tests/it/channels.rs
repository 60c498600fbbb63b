//! Receivers besides plain mail: a real Alertmanager, a real SMTP server with STARTTLS and a password, and stubs of
//! what Slack, Teams and PagerDuty document; routes and the outbox over all of them.

use std::fs;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use flipback::config::settings::{ChannelSettings, EmailSettings, MailLogin, MailTls, ReceiverSettings};

use flipback::domain::notice::NoticeReason;
use flipback::domain::switch::SwitchId;
use flipback::domain::time::{Span, Timestamp};
use flipback::edge::notify::channel::Channel;
use flipback::edge::notify::message::Told;
use flipback::edge::notify::templates::Templates;
use flipback::edge::notify::{Delivery, Message, sample};
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::stack::{Proc, free_port, program, wait_until};
use crate::stub::Stub;

const SOON: Duration = Duration::from_secs(30);

fn now() -> Timestamp {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap();
    Timestamp::from_millis(i64::try_from(since.as_millis()).unwrap())
}

/// One thread of messages: each knows what was told before it.
struct Thread {
    switch: SwitchId,
    told: Vec<Told>,
}

impl Thread {
    fn new(name: &str) -> Thread {
        Thread { switch: SwitchId::try_new(name).unwrap(), told: Vec::new() }
    }

    fn next(&mut self, reason: NoticeReason) -> Message {
        let n = u32::try_from(self.told.len()).unwrap() + 1;
        let letter = sample::as_test(sample::letter(reason.word()).unwrap(), &self.switch, n, now());
        let enclosed = sample::enclosed(&letter, self.told.clone());
        self.told.push(Told { n, reason, at: now() });
        Message::new(&letter, 0, enclosed, &Templates::ours(), "ops1")
    }
}

fn channel(settings: ChannelSettings) -> Channel {
    let _ = rustls::crypto::ring::default_provider().install_default();
    let receiver = ReceiverSettings { name: "oncall".into(), channels: vec![settings], send_resolved: true };
    Channel::all(&receiver, None, "ops1").unwrap().remove(0).1
}

fn secret(dir: &TempDir, name: &str, text: &str) -> std::path::PathBuf {
    let path = dir.path().join(name);
    fs::write(&path, format!("{text}\n")).unwrap();
    path
}

fn http_get(port: u16, path: &str) -> Option<Value> {
    use std::io::{Read, Write};
    let mut stream = std::net::TcpStream::connect(("127.0.0.1", port)).ok()?;
    stream.set_read_timeout(Some(Duration::from_secs(5))).ok()?;
    write!(stream, "GET {path} HTTP/1.0\r\nHost: x\r\n\r\n").ok()?;
    let mut text = String::new();
    stream.read_to_string(&mut text).ok()?;
    serde_json::from_str(text.split_once("\r\n\r\n")?.1).ok()
}

/// Real Alertmanager from Debian.
#[tokio::test]
async fn a_real_alertmanager_opens_and_ends_alerts() {
    let dir = TempDir::with_prefix("flipback-am-").unwrap();
    let port = free_port();
    let config = "route:\n  receiver: nobody\nreceivers:\n  - name: nobody\n";
    fs::write(dir.path().join("am.yml"), config).unwrap();
    let mut command = Command::new(program("prometheus-alertmanager"));
    command.arg(format!("--config.file={}", dir.path().join("am.yml").display()));
    command.arg(format!("--storage.path={}", dir.path().join("data").display()));
    command.arg(format!("--web.listen-address=127.0.0.1:{port}")).arg("--cluster.listen-address=");
    let server = Proc::start("alertmanager", dir.path(), &mut command);
    wait_until(SOON, "Alertmanager answers", || http_get(port, "/api/v2/status"));
    let alertmanager = channel(ChannelSettings::Alertmanager { url: format!("http://127.0.0.1:{port}/") });
    let active = || http_get(port, "/api/v2/alerts?active=true").unwrap().as_array().unwrap().clone();

    let mut thread = Thread::new("checkout-7");
    let acting = thread.next(NoticeReason::BreachedActing);
    alertmanager.send(&acting, now()).await.unwrap();
    // The same once more, as after a crash: still one alert.
    alertmanager.send(&acting, now()).await.unwrap();
    let alerts = active();
    assert_eq!(alerts.len(), 1, "{alerts:?}");
    let (labels, notes) = (&alerts[0]["labels"], &alerts[0]["annotations"]);
    assert_eq!(
        (labels["alertname"].as_str(), labels["kind"].as_str(), labels["service"].as_str(), labels["switch"].as_str()),
        (Some("Flipback"), Some("breached_acting"), Some("checkout"), Some("checkout-7"))
    );
    for fact in ["summary", "what_broke", "how_sure", "what_was_done", "did_it_work", "what_now", "next_command"] {
        assert!(notes[fact].as_str().is_some_and(|text| !text.is_empty()), "{fact}: {notes}");
    }
    assert_eq!(notes["grafana_url"], "https://grafana.example.org/d/web?var-service=checkout");

    // What comes next takes its place.
    alertmanager.send(&thread.next(NoticeReason::RolledBackNotRecovered), now()).await.unwrap();
    let kinds =
        || -> Vec<String> { active().iter().map(|a| a["labels"]["kind"].as_str().unwrap().to_owned()).collect() };
    wait_until(SOON, "one alert stands, the later one", || (kinds() == ["rolled_back_not_recovered"]).then_some(()));
    alertmanager.send(&thread.next(NoticeReason::Cancelled), now()).await.unwrap();
    wait_until(SOON, "nothing stands", || active().is_empty().then_some(()));

    server.signal("-KILL");
    wait_until(SOON, "it is gone", || std::net::TcpStream::connect(("127.0.0.1", port)).err());
    let away = alertmanager.send(&acting, now()).await;
    assert!(matches!(&away, Err(Delivery::Later(_))), "{away:?}");
}

/// A stub of Slack's incoming webhooks, by its documentation: 200 `ok`; 429 with Retry-After; 400 `invalid_payload`;
/// 403, 404, 410 with a word.
#[tokio::test]
async fn slack_by_its_contract() {
    let dir = TempDir::with_prefix("flipback-slack-").unwrap();
    let next: std::sync::Arc<std::sync::Mutex<(u16, &str, &str)>> =
        std::sync::Arc::new(std::sync::Mutex::new((200, "", "ok")));
    let says = next.clone();
    let stub = Stub::with_head(move |asked| {
        assert_eq!((asked.method.as_str(), asked.header("content-type")), ("POST", "application/json"));
        let (status, head, body) = *says.lock().unwrap();
        (status, head.to_owned(), body.to_owned())
    });
    let url_file = secret(&dir, "slack.url", &format!("http://127.0.0.1:{}/services/T0/B0/s3cret", stub.port));
    let slack = channel(ChannelSettings::Slack { url_file: url_file.clone(), channel: Some("#ops".into()) });
    let mut thread = Thread::new("checkout-1");
    let message = thread.next(NoticeReason::RolledBackRecovered);
    slack.send(&message, now()).await.unwrap();
    let body = stub.last("POST").json();
    assert_eq!((stub.last("POST").path.as_str(), &body["channel"]), ("/services/T0/B0/s3cret", &json!("#ops")));
    assert_eq!(body["text"], message.subject);
    let fields = body["attachments"][0]["fields"].as_array().unwrap();
    let titles: Vec<&str> = fields.iter().map(|f| f["title"].as_str().unwrap()).collect();
    assert_eq!(titles, ["What broke", "How sure", "What was done", "Did it work", "What now"]);
    let text = body["attachments"][0]["text"].as_str().unwrap();
    assert!(text.contains("`flipback show checkout-1`") && text.contains("|Grafana>"), "{text}");

    let says = |status, head, body| *next.lock().unwrap() = (status, head, body);
    says(429, "Retry-After: 30", "rate_limited");
    let limited = slack.send(&message, now()).await;
    assert_eq!(
        limited,
        Err(Delivery::NotBefore("the chat: 429 Too Many Requests: rate_limited".into(), Span::from_secs(30)))
    );
    says(429, "Retry-After: 86400", "");
    assert!(
        matches!(slack.send(&message, now()).await, Err(Delivery::NotBefore(_, wait)) if wait == Span::from_mins(10))
    );
    says(400, "", "invalid_payload");
    assert!(matches!(slack.send(&message, now()).await, Err(Delivery::Never(why)) if why.contains("invalid_payload")));
    for (status, word) in
        [(403, "action_prohibited"), (404, "no_service"), (410, "channel_is_archived"), (500, ""), (302, "")]
    {
        says(status, "", word);
        let said = slack.send(&message, now()).await;
        assert!(matches!(&said, Err(Delivery::Later(why)) if why.contains(word)), "{status}: {said:?}");
        assert!(!format!("{said:?}").contains("s3cret"), "the address is a secret: {said:?}");
    }
    // An address over the net without TLS would tell everybody.
    fs::write(&url_file, "http://hooks.example.org/s3cret").unwrap();
    let open = slack.send(&message, now()).await;
    assert!(
        matches!(&open, Err(Delivery::Later(why)) if why.contains("not encrypted") && !why.contains("s3cret")),
        "{open:?}"
    );
}

/// A stub of a Teams workflow's address: 202 and nothing; 429; and the old connectors' 200 with an error in words.
#[tokio::test]
async fn teams_by_its_contract() {
    let dir = TempDir::with_prefix("flipback-teams-").unwrap();
    let next: std::sync::Arc<std::sync::Mutex<(u16, &str, &str)>> =
        std::sync::Arc::new(std::sync::Mutex::new((202, "", "")));
    let says = next.clone();
    let stub = Stub::with_head(move |_| {
        let (status, head, body) = *says.lock().unwrap();
        (status, head.to_owned(), body.to_owned())
    });
    let url_file = secret(&dir, "teams.url", &format!("http://127.0.0.1:{}/workflows/abc", stub.port));
    let teams = channel(ChannelSettings::Teams { url_file });
    for letter in sample::letters() {
        let message = Message::new(&letter, 0, sample::enclosed(&letter, Vec::new()), &Templates::ours(), "ops1");
        teams.send(&message, now()).await.unwrap();
        let asked = stub.last("POST");
        assert!(asked.body.len() < 28_000, "{}: {} bytes", letter.kind(), asked.body.len());
        let card = &asked.json()["attachments"][0];
        assert_eq!(card["contentType"], "application/vnd.microsoft.card.adaptive");
        assert_eq!((&card["content"]["type"], &card["content"]["version"]), (&json!("AdaptiveCard"), &json!("1.4")));
        let shown = card["content"]["body"].to_string();
        for (q, _) in &message.page.answers {
            assert!(shown.contains(&format!("**{q}**")), "{}: {q}", letter.kind());
        }
    }
    let message = Thread::new("checkout-1").next(NoticeReason::Withheld);
    let says = |status, head, body| *next.lock().unwrap() = (status, head, body);
    says(
        200,
        "",
        "Webhook message delivery failed with error: Microsoft Teams endpoint returned HTTP error 429 with ContextId x",
    );
    assert!(matches!(teams.send(&message, now()).await, Err(Delivery::NotBefore(..))), "a 200 that says no is no");
    says(429, "Retry-After: 7", "");
    assert!(
        matches!(teams.send(&message, now()).await, Err(Delivery::NotBefore(_, wait)) if wait == Span::from_secs(7))
    );
    says(413, "", "");
    assert!(matches!(teams.send(&message, now()).await, Err(Delivery::Never(_))));
    says(502, "", "");
    assert!(matches!(teams.send(&message, now()).await, Err(Delivery::Later(_))));
}

/// A stub of PagerDuty's Events API v2: 202 with the key; 400 for a bad event; 429.
#[tokio::test]
async fn pagerduty_by_its_contract() {
    let dir = TempDir::with_prefix("flipback-pd-").unwrap();
    let stub = Stub::with_head(|asked| {
        let event = asked.json();
        let good = event["routing_key"].as_str().is_some_and(|key| key.len() == 32)
            && match event["event_action"].as_str() {
                Some("trigger") => {
                    let payload = &event["payload"];
                    payload["summary"].as_str().is_some_and(|s| !s.is_empty() && s.chars().count() <= 1024)
                        && payload["source"].is_string()
                        && ["critical", "warning", "error", "info"]
                            .contains(&payload["severity"].as_str().unwrap_or(""))
                }
                Some("resolve") => event["dedup_key"].is_string(),
                _ => false,
            };
        match (good, event["payload"]["class"].as_str()) {
            (false, _) => (400, String::new(), "{\"status\":\"invalid event\"}".into()),
            (true, Some("stuck")) => (429, "Retry-After: 5".into(), String::new()),
            (true, _) => {
                (202, String::new(), json!({"status": "success", "dedup_key": event["dedup_key"]}).to_string())
            }
        }
    });
    let url = format!("http://127.0.0.1:{}/v2/enqueue", stub.port);
    let key_file = secret(&dir, "pd.key", "0123456789abcdef0123456789abcdef");
    let pagerduty = channel(ChannelSettings::Pagerduty { routing_key_file: key_file.clone(), url });
    let events = || stub.asked.lock().unwrap().iter().map(|a| a.json()).collect::<Vec<_>>();
    let mut thread = Thread::new("checkout-3");
    pagerduty.send(&thread.next(NoticeReason::Opened), now()).await.unwrap();
    assert!(events().is_empty(), "nobody is woken by a beginning");
    pagerduty.send(&thread.next(NoticeReason::ApprovalWanted), now()).await.unwrap();
    pagerduty.send(&thread.next(NoticeReason::RolledBackRecovered), now()).await.unwrap();
    pagerduty.send(&thread.next(NoticeReason::Passed), now()).await.unwrap();
    let all = events();
    let actions: Vec<_> = all.iter().map(|e| e["event_action"].as_str().unwrap()).collect();
    assert_eq!(actions, ["trigger", "resolve"], "what is settled already is not settled again");
    assert_eq!(all[0]["dedup_key"], all[1]["dedup_key"]);
    assert_eq!(
        (&all[0]["dedup_key"], &all[0]["payload"]["severity"]),
        (&json!("flipback/ops1/checkout-3"), &json!("critical"))
    );
    assert!(all[0]["payload"]["custom_details"]["What broke"].as_str().unwrap().contains("error rate"));
    // Sight that comes back ends blindness, and nothing else.
    let mut blind = Thread::new("checkout-4");
    pagerduty.send(&blind.next(NoticeReason::Blind), now()).await.unwrap();
    pagerduty.send(&blind.next(NoticeReason::SeesAgain), now()).await.unwrap();
    let mut drift = Thread::new("checkout-5");
    pagerduty.send(&drift.next(NoticeReason::Drift), now()).await.unwrap();
    pagerduty.send(&drift.next(NoticeReason::SeesAgain), now()).await.unwrap();
    let resolved: Vec<Value> =
        events().iter().filter(|e| e["event_action"] == "resolve").map(|e| e["dedup_key"].clone()).collect();
    assert_eq!(resolved, ["flipback/ops1/checkout-3", "flipback/ops1/checkout-4"]);

    let stuck = pagerduty.send(&Thread::new("checkout-6").next(NoticeReason::Stuck), now()).await;
    assert!(matches!(stuck, Err(Delivery::NotBefore(_, wait)) if wait == Span::from_secs(5)), "{stuck:?}");
    fs::write(&key_file, "short").unwrap();
    let refused = pagerduty.send(&Thread::new("checkout-7").next(NoticeReason::Withheld), now()).await;
    assert!(matches!(&refused, Err(Delivery::Never(why)) if why.contains("invalid event")), "{refused:?}");
}

#[tokio::test]
async fn a_webhook_is_signed_and_a_command_gets_the_text() {
    use base64::Engine as _;
    use hmac::{Hmac, KeyInit, Mac};
    let dir = TempDir::with_prefix("flipback-hook-").unwrap();
    let stub = Stub::start(|_| (204, String::new()));
    let secret_file = secret(&dir, "hook.secret", "whsec_MDEyMzQ1Njc4OWFiY2RlZjAxMjM0NTY3ODlhYmNkZWY=");
    let hook = channel(ChannelSettings::Webhook { url: format!("http://127.0.0.1:{}/in", stub.port), secret_file });
    let message = Thread::new("checkout-2").next(NoticeReason::RolledBackNotRecovered);
    for _ in 0..2 {
        hook.send(&message, now()).await.unwrap();
    }
    let asked = stub.last("POST");
    let mut mac = Hmac::<sha2::Sha256>::new_from_slice(b"0123456789abcdef0123456789abcdef").unwrap();
    mac.update(
        format!("{}.{}.{}", asked.header("webhook-id"), asked.header("webhook-timestamp"), asked.body).as_bytes(),
    );
    let wanted = base64::engine::general_purpose::STANDARD.encode(mac.finalize().into_bytes());
    assert_eq!(asked.header("webhook-signature"), format!("v1,{wanted}"));
    let ids: Vec<String> = stub.asked.lock().unwrap().iter().map(|a| a.header("webhook-id").to_owned()).collect();
    assert_eq!(ids, ["checkout-2.n1", "checkout-2.n1"], "a repetition can be known as one");
    let body = asked.json();
    for (field, value) in [
        ("kind", "rolled_back_not_recovered"),
        ("severity", "page"),
        ("standing", "stands"),
        ("service", "checkout"),
        ("outcome", "rolled_back_not_recovered"),
    ] {
        assert_eq!(body[field], value, "{field}");
    }
    for fact in ["broke", "sure", "done", "worked", "now", "command", "text"] {
        assert!(body[fact].as_str().is_some_and(|text| !text.is_empty()), "{fact}");
    }

    let script = dir.path().join("tell");
    fs::write(
        &script,
        format!(
            "#!/bin/sh\n(echo \"$FLIPBACK_KIND $FLIPBACK_SEVERITY $FLIPBACK_SWITCH\"; cat) > {}/told\nexit 3\n",
            dir.path().display()
        ),
    )
    .unwrap();
    Command::new("/bin/chmod").arg("755").arg(&script).status().unwrap();
    let exec = flipback::domain::action::Exec::new([script.to_str().unwrap()]);
    let command = channel(ChannelSettings::Command { exec, timeout: Span::from_secs(5) });
    let ended = command.send(&message, now()).await;
    assert!(matches!(&ended, Err(Delivery::Later(why)) if why.contains('3')), "{ended:?}");
    let told = fs::read_to_string(dir.path().join("told")).unwrap();
    assert!(
        told.starts_with("rolled_back_not_recovered page checkout-2\n[flipback] ") && told.contains("What broke:"),
        "{told}"
    );
}

/// Real SMTP: STARTTLS that is required, a certificate of an authority of our own, a password.
#[tokio::test]
async fn a_real_server_with_starttls_and_a_password() {
    let _ = rustls::crypto::ring::default_provider().install_default();
    let dir = TempDir::with_prefix("flipback-tls-").unwrap();
    let d = dir.path();
    let made = rcgen::generate_simple_self_signed(vec!["localhost".to_owned()]).unwrap();
    fs::write(d.join("cert.pem"), made.cert.pem()).unwrap();
    fs::write(d.join("key.pem"), made.signing_key.serialize_pem()).unwrap();
    const SERVER: &str = r#"
import asyncio, ssl, sys
from aiosmtpd.controller import Controller
from aiosmtpd.handlers import Mailbox
from aiosmtpd.smtp import AuthResult, LoginPassword
place, port = sys.argv[1], int(sys.argv[2])
tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
tls.load_cert_chain(place + "/cert.pem", place + "/key.pem")
def who(server, session, envelope, mechanism, data):
    good = isinstance(data, LoginPassword) and (data.login, data.password) == (b"flipback", b"open sesame")
    open(place + "/logins", "a").write(f"{mechanism} {good} {session.ssl is not None}\n")
    return AuthResult(success=good, handled=False)
c = Controller(Mailbox(place + "/mail"), hostname="127.0.0.1", port=port, tls_context=tls, require_starttls=True,
               authenticator=who, auth_required=True, auth_require_tls=True)
c.start()
import signal
signal.pause()
"#;
    let port = free_port();
    let mut command = Command::new("/usr/bin/python3");
    command.arg("-c").arg(SERVER).arg(d).arg(port.to_string());
    let _server = Proc::start("smtp", d, &mut command);
    wait_until(SOON, "the SMTP server listens", || std::net::TcpStream::connect(("127.0.0.1", port)).ok().map(drop));
    let settings = |password: &str, ca: bool| EmailSettings {
        host: "localhost".into(),
        port,
        tls: MailTls::StartTls,
        from: "flipback@example.org".into(),
        to: vec!["oncall@example.org".into()],
        login: Some(MailLogin { username: "flipback".into(), password_file: secret(&dir, "password", password) }),
        ca_file: ca.then(|| d.join("cert.pem")),
        timeout: Span::from_secs(10),
    };
    let message = Thread::new("checkout-1").next(NoticeReason::RolledBackRecovered);
    let send = async |settings: EmailSettings| {
        flipback::edge::notify::Mailer::new(&settings, "ops1").unwrap().send(&message).await
    };
    let wrong = send(settings("guessed", true)).await;
    assert!(matches!(&wrong, Err(Delivery::Later(why)) if why.contains("535")), "{wrong:?}");
    let strange = send(settings("open sesame", false)).await;
    assert!(matches!(&strange, Err(Delivery::Later(why)) if why.to_lowercase().contains("cert")), "{strange:?}");
    send(settings("open sesame", true)).await.unwrap();
    let logins = fs::read_to_string(d.join("logins")).unwrap();
    assert!(logins.lines().all(|l| l.ends_with("True")) && logins.contains("True True"), "only over TLS: {logins}");
    assert_eq!(fs::read_dir(d.join("mail/new")).unwrap().count(), 1);
}

const DAEMON: &str = r#"state_dir = "@D@/state"
[prometheus]
url = "http://127.0.0.1:1"
[api]
listen = "none"
socket = "@D@/control.sock"
[metrics.web]
requests = 'r{env="$slot"}'
[[service]]
name = "checkout"
metrics = "web"
slots = ["blue", "green"]
notify_opened = true
[email]
smarthost = "127.0.0.1:@SMTP@"
from = "flipback@example.org"
[fallback]
exec = ["@D@/fallback"]
after = "1h"
[links]
grafana = "https://grafana.example.org/d/web?var-service={{ service }}&from={{ from_ms }}&to={{ to_ms }}"
[[receiver]]
name = "team"
email = { to = ["team@example.org"] }
slack = { url_file = "@D@/slack.url" }
[[receiver]]
name = "pager"
pagerduty = { routing_key_file = "@D@/pd.key", url = "http://127.0.0.1:@PD@/v2/enqueue" }
[[receiver]]
name = "stuck"
webhook = { url = "http://127.0.0.1:@HANG@/in", secret_file = "@D@/pd.key" }
[route]
receiver = "team"
repeat_interval = "none"
[[route.routes]]
receiver = "stuck"
continue = true
[[route.routes]]
receiver = "team"
continue = true
[[route.routes]]
matchers = ['severity="page"', 'service=~"check.*"']
receiver = "pager"
"#;

struct Daemon {
    proc: Option<Proc>,
    /// After the process: its log is in it.
    dir: TempDir,
}

impl Daemon {
    fn start(&mut self) {
        let mut command = Command::new(env!("CARGO_BIN_EXE_flipback"));
        command.arg("run").arg("--config").arg(self.dir.path().join("flipback.toml"));
        self.proc = Some(Proc::start("flipback", self.dir.path(), &mut command));
        wait_until(SOON, "flipback answers", || self.flipback(&["status"]).status.success().then_some(()));
    }

    fn flipback(&self, args: &[&str]) -> std::process::Output {
        let mut command = Command::new(env!("CARGO_BIN_EXE_flipback"));
        command.args(args).arg("--socket").arg(self.dir.path().join("control.sock")).output().unwrap()
    }

    fn said(&self, args: &[&str]) -> String {
        let done = self.flipback(args);
        format!("{}{}", String::from_utf8_lossy(&done.stdout), String::from_utf8_lossy(&done.stderr))
    }

    fn mails(&self) -> Vec<String> {
        let Ok(dir) = fs::read_dir(self.dir.path().join("mail/new")) else { return Vec::new() };
        let mut files: Vec<_> = dir.flatten().map(|f| f.path()).collect();
        files.sort_by_key(|f| fs::metadata(f).unwrap().modified().unwrap());
        files.iter().map(|f| fs::read_to_string(f).unwrap()).collect()
    }
}

fn smtp(dir: &Path, port: u16) -> Proc {
    let mut command = Command::new(program("aiosmtpd"));
    command.args(["-n", "-c", "aiosmtpd.handlers.Mailbox"]).arg(dir.join("mail"));
    command.args(["-l", &format!("127.0.0.1:{port}")]);
    let proc = Proc::start("smtp", dir, &mut command);
    wait_until(SOON, "the SMTP server listens", || std::net::TcpStream::connect(("127.0.0.1", port)).ok().map(drop));
    proc
}

/// A header of a raw mail, unfolded.
fn header(mail: &str, name: &str) -> String {
    let head = mail.replace("\r\n", "\n");
    let head = head.split("\n\n").next().unwrap().replace("\n ", " ").replace("\n\t", " ");
    let prefix = format!("{}:", name.to_lowercase());
    let line = head.lines().find(|line| line.to_lowercase().starts_with(&prefix));
    line.map_or(String::new(), |line| line[prefix.len()..].trim().to_owned())
}

/// Routes, channels that do not wait for one another, what is settled, what is given up, and threads in a real mailbox.
#[test]
fn a_daemon_tells_each_receiver_what_is_for_it() {
    let dir = TempDir::with_prefix("flipback-routes-").unwrap();
    let d = dir.path().to_owned();
    let pagerduty = Stub::start(|asked| (202, json!({ "dedup_key": asked.json()["dedup_key"] }).to_string()));
    // Takes connections, and says nothing: a whole notice's worth of waiting each time.
    let hanging = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let slack =
        Stub::start(
            |asked| {
                if asked.body.contains("BLIND") { (400, "invalid_payload".into()) } else { (200, "ok".into()) }
            },
        );
    let port = free_port();
    let _smtp = smtp(&d, port);
    fs::write(d.join("slack.url"), format!("http://127.0.0.1:{}/services/x", slack.port)).unwrap();
    fs::write(d.join("pd.key"), "0123456789abcdef0123456789abcdef\n").unwrap();
    fs::write(d.join("fallback"), format!("#!/bin/sh\ncat >> {}/fell-back\n", d.display())).unwrap();
    Command::new("/bin/chmod").arg("755").arg(d.join("fallback")).status().unwrap();
    let config = DAEMON
        .replace("@D@", d.to_str().unwrap())
        .replace("@SMTP@", &port.to_string())
        .replace("@PD@", &pagerduty.port.to_string())
        .replace("@HANG@", &hanging.local_addr().unwrap().port().to_string());
    fs::write(d.join("flipback.toml"), &config).unwrap();
    let mut daemon = Daemon { proc: None, dir };
    daemon.start();

    let began = Instant::now();
    let announced = daemon.flipback(&["announce", "checkout", "--old", "blue", "--new", "green", "--version", "v2"]);
    assert!(announced.status.success());
    let subjects =
        |daemon: &Daemon| -> Vec<String> { daemon.mails().iter().map(|m| header(m, "X-Flipback-Reason")).collect() };
    // The next one may be there before anybody has looked.
    wait_until(SOON, "the beginning is told by mail", || {
        subjects(&daemon).contains(&"opened".to_owned()).then_some(())
    });
    println!("mail after {:.1} s, while another channel hangs for 15 s", began.elapsed().as_secs_f64());
    assert!(began.elapsed() < Duration::from_secs(12), "a channel that hangs holds up no other");
    let actions = || -> Vec<String> {
        let asked = pagerduty.asked.lock().unwrap();
        asked.iter().map(|a| a.json()["event_action"].as_str().unwrap().to_owned()).collect()
    };
    // Prometheus is a closed port: blind, which is a page.
    let kinds = || {
        slack.asked.lock().unwrap().iter().map(|a| a.json()["text"].as_str().unwrap().to_owned()).collect::<Vec<_>>()
    };
    wait_until(Duration::from_secs(60), "the pager is woken", || {
        actions().contains(&"trigger".to_owned()).then_some(())
    });
    // Slack cannot read that one: given up there, and told where it can be, once.
    wait_until(SOON, "what Slack refused is told by mail", || {
        let told = subjects(&daemon);
        (told.iter().filter(|kind| *kind == "blind").count() == 1
            && told.iter().filter(|kind| *kind == "undeliverable").count() == 1)
            .then_some(())
    });
    assert!(
        !kinds().iter().any(|text| text.contains("UNDELIVERABLE")),
        "not by the channel that failed: {:?}",
        kinds()
    );
    let fell = wait_until(SOON, "the fallback", || fs::read_to_string(d.join("fell-back")).ok());
    assert!(fell.contains("BLIND") && fell.contains("What broke"), "{fell}");

    // The route of an end is the team's alone: the pager hears of it because it was woken.
    assert!(daemon.flipback(&["cancel", "checkout-1", "--why", "enough"]).status.success());
    wait_until(SOON, "the pager is told that it is over", || {
        (actions() == ["trigger", "trigger", "resolve"]).then_some(())
    });
    let keys: Vec<Value> = pagerduty.asked.lock().unwrap().iter().map(|a| a.json()["dedup_key"].clone()).collect();
    assert!(keys.iter().all(|key| *key == keys[0]), "one incident: {keys:?}");
    wait_until(SOON, "the end by mail", || subjects(&daemon).contains(&"cancelled".to_owned()).then_some(()));

    // One thread, whichever of its mails somebody has.
    let mails = daemon.mails();
    let root = "<checkout-1.n1@flipback.";
    let first = mails.iter().find(|m| header(m, "X-Flipback-Reason") == "opened").unwrap();
    assert!(header(first, "Message-ID").starts_with(root) && header(first, "References").is_empty());
    for mail in mails.iter().filter(|m| header(m, "X-Flipback-Reason") != "opened") {
        assert!(header(mail, "References").starts_with(root), "{}", header(mail, "References"));
        assert!(header(mail, "In-Reply-To").starts_with("<checkout-1.n"), "{mail}");
    }
    let mut ids: Vec<String> = mails.iter().map(|m| header(m, "Message-ID")).collect();
    ids.sort();
    ids.dedup();
    assert_eq!(ids.len(), mails.len(), "each its own");

    // Samples for people who try it, and the log that answers the five questions.
    let said = daemon.said(&["test", "notify", "pager"]);
    assert!(said.contains("pager/pagerduty") && said.matches("taken").count() == 2, "{said}");
    assert_eq!(actions()[3..], ["trigger", "resolve"], "nothing of a test stays open");
    let said = daemon.said(&["test", "notify", "team", "--kind", "digest"]);
    assert!(said.contains("team/email") && said.contains("team/slack"), "{said}");
    let last = daemon.mails().into_iter().find(|m| header(m, "X-Flipback-Reason") == "digest").unwrap();
    assert!(header(&last, "Subject").contains("TEST") || last.contains("TEST"), "{last}");
    let said = daemon.said(&["test", "notify", "nobody"]);
    assert!(said.contains("there is no receiver") && said.contains("team"), "{said}");
    let said = daemon.said(&["test", "notify", "team", "--kind", "broken"]);
    assert!(said.contains("is no kind of notice") && said.contains("rolled_back_recovered"), "{said}");
    let said = daemon.said(&["ack", "checkout-1"]);
    assert!(said.contains("no more reminders"), "{said}");
    let log = daemon.proc.as_ref().unwrap().log();
    let line =
        log.lines().find(|l| l.contains("reason=blind") && l.contains("broke=")).unwrap_or_else(|| panic!("{log}"));
    for part in ["level=error", "switch=checkout-1", "sure=", "done=", "worked=", "now=", "next="] {
        assert!(line.contains(part), "{part}: {line}");
    }

    // A reload takes other receivers; what waits for one that is gone is given up aloud.
    let waits = || {
        let text = daemon.flipback(&["status", "-o", "json"]).stdout;
        serde_json::from_slice::<Value>(&text).ok()?["undelivered_notices"].as_u64()
    };
    assert!(waits().is_some_and(|n| n > 0), "the hanging one");
    let without = config.replace("[[route.routes]]\nreceiver = \"stuck\"\ncontinue = true\n", "");
    let (head, tail) = without.split_once("[[receiver]]\nname = \"stuck\"").unwrap();
    let tail = &tail[tail.find("[route]").unwrap()..];
    fs::write(d.join("flipback.toml"), format!("{head}{tail}")).unwrap();
    let said = daemon.said(&["reload"]);
    assert!(said.contains("configuration taken"), "{said}");
    wait_until(SOON, "nothing waits any more", || (waits() == Some(0)).then_some(()));
    let log = daemon.proc.as_ref().unwrap().log();
    assert!(log.contains("has no stuck/webhook any more"), "{log}");
}

/// A digest by cron, an operator's own templates, and a command as the only receiver.
#[test]
fn a_digest_by_cron_through_an_operators_templates() {
    let dir = TempDir::with_prefix("flipback-digest-").unwrap();
    let d = dir.path().to_owned();
    fs::create_dir(d.join("templates")).unwrap();
    fs::write(d.join("templates/subject.txt"), "ACME {{ status }}: {{ service or 'all' }}\n").unwrap();
    fs::write(d.join("tell"), format!("#!/bin/sh\ncat > {}/told.$FLIPBACK_KIND\n", d.display())).unwrap();
    Command::new("/bin/chmod").arg("755").arg(d.join("tell")).status().unwrap();
    let config = format!(
        "state_dir = \"{0}/state\"\n[prometheus]\nurl = \"http://127.0.0.1:1\"\n[api]\nlisten = \"none\"\nsocket = \"{0}/control.sock\"\n\
         [metrics.web]\nrequests = 'r{{env=\"$slot\"}}'\n[[service]]\nname = \"checkout\"\nmetrics = \"web\"\nslots = [\"blue\", \"green\"]\n\
         [notify]\ntemplates = \"{0}/templates\"\n[digest]\ncron = \"*/2 * * * * *\"\ncovers = \"1h\"\n\
         [[receiver]]\nname = \"log\"\ncommand = {{ exec = [\"{0}/tell\"] }}\n[route]\nreceiver = \"log\"\n",
        d.display()
    );
    fs::write(d.join("flipback.toml"), &config).unwrap();
    let check = |daemon: &Daemon| daemon.said(&["check", d.join("flipback.toml").to_str().unwrap()]);
    let mut daemon = Daemon { proc: None, dir };
    assert!(check(&daemon).contains("log: command"), "{}", check(&daemon));
    daemon.start();
    let announced = daemon.flipback(&["announce", "checkout", "--old", "blue", "--new", "green", "--version", "v2"]);
    assert!(announced.status.success() && daemon.flipback(&["cancel", "checkout-1"]).status.success());
    let told = wait_until(Duration::from_secs(130), "a digest that knows of the switch", || {
        fs::read_to_string(d.join("told.digest")).ok().filter(|text| text.contains("checkout blue → green"))
    });
    assert!(told.starts_with("ACME DIGEST: all\n"), "{told}");
    for part in ["1 switch watched", "cancelled", "mode observe", "nothing was recorded", "What now:"] {
        assert!(told.to_lowercase().contains(&part.to_lowercase()), "{part} is not in\n{told}");
    }
    let ended = wait_until(SOON, "the end", || fs::read_to_string(d.join("told.cancelled")).ok());
    assert!(ended.starts_with("ACME CANCELLED: checkout\n") && ended.contains("How sure:"), "{ended}");
    // A template that cannot be filled is told by check, and costs no notice.
    fs::write(d.join("templates/notice.txt"), "{{ headline }} {{ nothing.at.all }}").unwrap();
    assert!(check(&daemon).contains("notice.txt: undefined value"), "{}", check(&daemon));
    let _ = fs::remove_file(d.join("told.cancelled"));
    assert!(daemon.said(&["reload"]).contains("configuration taken"));
    let said = daemon.said(&["test", "notify", "--kind", "cancelled"]);
    assert!(said.contains("log/command") && said.contains("taken"), "{said}");
    assert!(fs::read_to_string(d.join("told.cancelled")).unwrap().contains("How sure:"), "the built-in one stands in");
    fs::write(d.join("templates/notice.txt"), "{% for x in %}").unwrap();
    assert!(check(&daemon).contains("templates/notice.txt: syntax error"), "{}", check(&daemon));
    assert!(!daemon.flipback(&["reload"]).status.success(), "refused whole");
}
