//! Mails as people get them: the words for each reason, what a hostile value can do, a real SMTP server.

use std::fmt::Write as _;
use std::fs;
use std::net::TcpListener;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use flipback::config::settings::{EmailSettings, MailTls};
use flipback::domain::letter::Letter;
use flipback::domain::notice::{Notice, NoticeReason};
use flipback::domain::signal::{Quantile, Signal};
use flipback::domain::time::Span;
use flipback::edge::notify::templates::Templates;
use flipback::edge::notify::{Delivery, Enclosed, Mailer, Message, ShownQuery, sample};
use serde_json::Value;
use tempfile::TempDir;

use crate::stack::{Proc, free_port, program, wait_until};

fn notices() -> Vec<Notice> {
    sample::notices().to_vec()
}

fn notice(reason: NoticeReason) -> Notice {
    notices().into_iter().find(|n| n.reason == reason).unwrap()
}

fn queries() -> Vec<ShownQuery> {
    let query = |signal: Signal, query: &str| ShownQuery {
        name: signal.to_string(),
        signal,
        query: query.into(),
        link: Some("http://prometheus.example.org/graph?g0.expr=x&g0.tab=0".into()),
    };
    vec![
        query(Signal::ErrorRate, r#"sum(rate(errors{env="green"}[1m])) / sum(rate(requests{env="green"}[1m]))"#),
        query(Signal::Latency(Quantile::P99), r#"histogram_quantile(0.99, sum by (le) (rate(latency_bucket[1m])))"#),
    ]
}

fn rendered(notice: &Notice) -> Message {
    let enclosed = Enclosed { queries: queries(), ..Enclosed::default() };
    Message::new(&Letter::Notice(Box::new(notice.clone())), 0, enclosed, &Templates::ours(), "ops1")
}

/// Every kind that there is, and the other faces of some.
fn all() -> Vec<Message> {
    let others = sample::letters().into_iter().filter(|l| !matches!(l, Letter::Notice(_)));
    let made = |letter: &Letter| {
        let enclosed = sample::enclosed(letter, Vec::new());
        Message::new(letter, 0, enclosed, &Templates::ours(), "ops1")
    };
    let notices = notices().into_iter().map(|notice| Letter::Notice(Box::new(notice)));
    notices.chain(others).map(|letter| made(&letter)).collect()
}

/// `FLIPBACK_MAILS_TO=DIR` writes them as HTML besides, with their pictures, to be looked at in a browser.
#[test]
fn each_reason_has_its_own_words() {
    let to_look_at = std::env::var_os("FLIPBACK_MAILS_TO");
    let (mut text, mut html) = (String::new(), String::new());
    for mail in all() {
        let kind = mail.page.kind;
        if let Some(dir) = &to_look_at {
            fs::create_dir_all(dir).unwrap();
            let mut page = mail.html.clone();
            for picture in &mail.pictures {
                let name = format!("{kind}-{}.png", picture.cid);
                fs::write(Path::new(dir).join(&name), &picture.png).unwrap();
                page = page.replace(&format!("cid:{}", picture.cid), &name);
            }
            fs::write(Path::new(dir).join(format!("{kind}.html")), page).unwrap();
        }
        writeln!(text, "=== {kind} ===\nSubject: {}\n\n{}", mail.subject, mail.text).unwrap();
        // The style is the same in all of them, and has a picture to be looked at.
        let body = mail.html.split("<body>").nth(1).unwrap();
        writeln!(html, "=== {kind} ===\n{body}").unwrap();
    }
    insta::assert_snapshot!("mails", text);
    insta::assert_snapshot!("mails_html", html);
}

/// The words under a responder's eyes, in this order, whatever the notice is.
#[test]
fn each_notice_answers_the_five_questions_above_everything_else() {
    const FACTS: [&str; 5] = ["What broke", "How sure", "What was done", "Did it work", "What now"];
    let mut kinds: Vec<&str> = Vec::new();
    for mail in all() {
        let page = &mail.page;
        kinds.push(page.kind);
        let asked: Vec<&str> = page.answers.iter().map(|(q, _)| *q).collect();
        assert_eq!(asked, FACTS, "{}", page.kind);
        let (mut at, mut at_html) = (0, 0);
        for (question, answer) in &page.answers {
            assert!(answer.trim().len() > 2, "{}: {question}: {answer:?}", page.kind);
            let line = format!("\n{question}: {answer}\n");
            let found =
                mail.text.find(&line).unwrap_or_else(|| panic!("{}: {line} is not in\n{}", page.kind, mail.text));
            assert!(found > at || at == 0);
            at = found;
            let found = mail.html.find(&format!("<dt>{question}</dt>")).unwrap();
            assert!(found > at_html && mail.html[found..].starts_with(&format!("<dt>{question}</dt><dd>")));
            at_html = found;
        }
        // On a telephone's first screen: within so many lines of text.
        let lines = mail.text[..at].lines().count();
        assert!(lines <= 8, "{}: the last answer is in line {lines}", page.kind);
        assert!(mail.text.contains(&format!("Next command:\n    {}", page.command)));
        assert!(mail.subject.starts_with(&format!("[flipback] {}", page.status)), "{}", mail.subject);
        let waits = ["not known yet", "nothing yet"].iter().any(|w| page.answers[3].1.contains(w));
        assert!(!waits || ["breached_acting", "ordered_acting"].contains(&page.kind), "{}", page.kind);
    }
    kinds.sort_unstable();
    kinds.dedup();
    let mut wanted: Vec<&str> = flipback::edge::notify::route::kinds().collect();
    wanted.sort_unstable();
    assert_eq!(kinds, wanted, "a kind without a sample is a kind that nobody has read");
}

/// What operators may use in templates of their own is written down.
#[test]
fn every_variable_of_a_template_is_documented() {
    let text = include_str!("../../docs/TEMPLATES.md");
    let page = serde_json::to_value(&all()[0].page).unwrap();
    for name in page.as_object().unwrap().keys() {
        assert!(text.contains(&format!("`{name}`")), "docs/TEMPLATES.md says nothing of {name}");
    }
}

#[test]
fn a_mail_is_small_and_asks_nothing_of_the_network() {
    let mut with_pictures = 0;
    for mail in all() {
        let kind = mail.page.kind;
        // As it goes over the wire: three bytes become four.
        let pictures: usize = mail.pictures.iter().map(|p| p.png.len() * 4 / 3).sum();
        let size = mail.html.len() + mail.text.len() + pictures;
        assert!(size < 100_000, "{kind}: {size} bytes");
        with_pictures += usize::from(pictures > 0);
        assert_eq!(mail.html.matches("<img").count(), mail.pictures.len(), "{kind}");
        for picture in &mail.pictures {
            assert!(mail.html.contains(&format!("src=\"cid:{}\"", picture.cid)), "{kind}");
        }
        let html = mail.html.replace("src=\"cid:", "");
        for outside in ["src=", "url(", "<link", "<script", "@import"] {
            assert!(!html.contains(outside), "{kind}: {outside}");
        }
        assert!(mail.subject.chars().count() <= 180 && mail.text.lines().all(|l| l.chars().count() < 2100));
    }
    assert!(with_pictures > 8, "{with_pictures} mails have a picture");
}

/// What comes from outside (a source's name, a step's output, Prometheus's words) cannot leave its place.
#[test]
fn hostile_values_stay_text() {
    const EVIL: &str = "</pre><script>alert(1)</script>\r\nBcc: all@example.org\u{1b}[2J\u{202e} {{ 7*7 }} {% if %}";
    let mut value = serde_json::to_value(notice(NoticeReason::RollbackFailed)).unwrap();
    let watch = &mut value["watch"];
    watch["switch"]["source"] = EVIL.into();
    watch["runbook"] = "https://example.org/\"><script>alert(1)</script>".into();
    for event in watch["timeline"].as_array_mut().unwrap() {
        event["text"] = EVIL.into();
    }
    for step in watch["steps"].as_array_mut().unwrap() {
        step["name"] = EVIL.into();
        step["command"] = EVIL.into();
        step["result"]["ended"]["output"] = EVIL.repeat(2000).into();
    }
    for evidence in watch["breach"]["evidence"].as_array_mut().unwrap() {
        evidence["remark"] = EVIL.into();
        evidence["signal"] = serde_json::json!({ "custom": EVIL });
    }
    watch["outcome"] = serde_json::json!({ "rollback_failed": { "why": EVIL } });
    let notice: Notice = serde_json::from_value(value).unwrap();
    let evil_query = ShownQuery {
        signal: Signal::ErrorRate,
        name: EVIL.into(),
        query: EVIL.into(),
        link: Some("http://p/?a=\"><script>".into()),
    };
    let enclosed = Enclosed { queries: vec![evil_query], ..Enclosed::default() };
    let mail = Message::new(&Letter::Notice(Box::new(notice)), 0, enclosed, &Templates::ours(), EVIL);
    assert!(!mail.html.contains("<script>") && !mail.html.contains("</pre><s"), "{}", mail.html);
    assert!(mail.html.contains("&lt;script&gt;") && mail.html.contains("{{ 7*7 }}"));
    assert!(!mail.html.contains("alert(1)&lt;/script&gt;49"));
    for text in [&mail.subject, &mail.text, &mail.html] {
        assert!(!text.chars().any(|c| c.is_control() && c != '\n'), "{text:?}");
        assert!(!text.contains('\u{202e}'), "the order of letters is not turned round");
    }
    assert!(!mail.subject.contains('\n') && mail.html.len() < 100_000, "{} bytes", mail.html.len());
}

/// A hundred thousand values from outside, through every template and every channel's words: no header breaks, no
/// markup comes alive, nothing is executed.
#[test]
fn a_hundred_thousand_hostile_values_stay_in_their_places() {
    use rand::{RngExt, SeedableRng};
    const PIECES: [&str; 24] = [
        "<script>alert(1)</script>",
        "<img src=x onerror=alert(1)>",
        "\" onload=\"x",
        "' or 1=1",
        "</dd></dl><h1>",
        "<!--",
        "-->",
        "\r\nBcc: all@example.org",
        "\n\n",
        "\0",
        "\u{1b}[31m",
        "\u{202e}",
        "{{ 7*7 }}",
        "{% for x in y %}",
        "{#",
        "&lt;",
        "&",
        "]]>",
        "`rm -rf /`",
        "$(id)",
        "javascript:alert(1)",
        "\u{feff}é漢🦀",
        "%0d%0aX: y",
        "<a href=",
    ];
    let mut rng = rand_chacha::ChaCha8Rng::seed_from_u64(20_261_121);
    let mut values = 0u32;
    let templates = Templates::ours();
    let base: Vec<Value> = notices().iter().map(|n| serde_json::to_value(n).unwrap()).collect();
    let mut rounds = 0;
    while values < 100_000 {
        let mut value = base[rounds % base.len()].clone();
        rounds += 1;
        let mut evil = || {
            values += 1;
            let count = rng.random_range(1..6);
            (0..count).map(|_| PIECES[rng.random_range(0..PIECES.len())]).collect::<String>()
        };
        poison(&mut value["watch"], &mut evil);
        let notice: Notice = serde_json::from_value(value).unwrap();
        let query = ShownQuery {
            signal: Signal::ErrorRate,
            name: evil(),
            query: evil(),
            link: Some(format!("http://p/?a={}", evil())),
        };
        let links = vec![flipback::edge::notify::page::Link { name: evil(), url: format!("https://g/{}", evil()) }];
        let enclosed = Enclosed { queries: vec![query], links, ..Enclosed::default() };
        let host = evil();
        let mail = Message::new(&Letter::Notice(Box::new(notice)), 0, enclosed, &templates, &host);
        let html = mail.html.to_lowercase();
        // Ours are the only tags; nothing that is written comes to life.
        for tag in ["<script", "<img", "<!--", "</dd></dl><h1", "<a href=<"] {
            assert!(!html.contains(tag), "{tag} in {}", mail.html);
        }
        assert_eq!(html.matches("<h1>").count(), 1);
        assert!(!html.contains("href=\"javascript:"), "{}", mail.html);
        assert!(!mail.subject.chars().any(char::is_control) && mail.subject.chars().count() <= 200);
        for text in [&mail.text, &mail.html] {
            assert!(!text.chars().any(|c| c.is_control() && c != '\n') && !text.contains('\u{202e}'));
        }
        assert!(!mail.text.contains("\nBcc:") && mail.html.len() < 200_000, "{} bytes", mail.html.len());
        let rendered = mail.html.contains("{{ 7*7 }}") || !mail.html.contains("49");
        assert!(rendered || !mail.html.contains("7*7"), "a template in a value is text");
        // The channels' own words: what Slack takes for markup is escaped, JSON is whole.
        let slack = flipback::edge::notify::channel::chat::slack(&mail, None);
        let said = slack["attachments"][0]["fields"].to_string() + &slack["text"].to_string();
        assert!(!said.contains('<') && !said.contains('>'), "{said}");
        let teams = flipback::edge::notify::channel::chat::teams(&mail);
        assert!(teams.to_string().len() < 28_000, "{}", teams.to_string().len());
        let _ = flipback::edge::notify::channel::pagerduty::event(&mail, &host, "key");
        let _ = flipback::edge::notify::channel::alertmanager::alerts(&mail, &host, mail.letter.at());
        let _ = flipback::edge::notify::channel::webhook::body(&mail);
    }
    println!("{values} hostile values in {rounds} messages");
}

/// Puts something hostile into every text that is free.
fn poison(watch: &mut Value, evil: &mut impl FnMut() -> String) {
    watch["switch"]["source"] = evil().into();
    watch["switch"]["about"]["owner"] = evil().into();
    watch["switch"]["about"]["links"] = vec![evil(), evil()].into();
    watch["switch"]["about"]["changes"] = vec![evil(), evil(), evil()].into();
    watch["runbook"] = format!("https://example.org/{}", evil()).into();
    watch["remedies"] = if rand_bit(&evil()) { vec![evil()].into() } else { Value::Array(Vec::new()) };
    for event in watch["timeline"].as_array_mut().unwrap() {
        event["text"] = evil().into();
    }
    for step in watch["steps"].as_array_mut().unwrap() {
        step["name"] = evil().into();
        step["command"] = evil().into();
        if step["result"]["ended"].is_object() {
            step["result"]["ended"]["output"] = evil().repeat(50).into();
        }
    }
    if watch["breach"].is_object() {
        for evidence in watch["breach"]["evidence"].as_array_mut().unwrap() {
            evidence["remark"] = evil().into();
            if evidence["signal"] != "error_rate" {
                evidence["signal"] = serde_json::json!({ "custom": evil() });
            }
        }
    }
    for (word, field) in [
        ("rollback_failed", "why"),
        ("unjudged", "why"),
        ("unconfirmed", "why"),
        ("cancelled", "why"),
        ("drill_failed", "why"),
        ("healed", "by"),
    ] {
        if watch["outcome"][word].is_object() {
            watch["outcome"][word][field] = evil().into();
        }
    }
    if watch["paused"].is_object() {
        watch["paused"]["by"] = evil().into();
    }
    if watch["baseline"].is_object() {
        watch["baseline"]["provenance"]["excluded"] = vec![evil()].into();
    }
}

fn rand_bit(text: &str) -> bool {
    text.len().is_multiple_of(2)
}

struct Smtp {
    proc: Option<Proc>,
    port: u16,
    dir: TempDir,
}

impl Smtp {
    fn new() -> Smtp {
        Smtp { proc: None, port: free_port(), dir: TempDir::with_prefix("flipback-mails-").unwrap() }
    }

    fn start(&mut self) {
        let mut command = Command::new(program("aiosmtpd"));
        command.args(["-n", "-c", "aiosmtpd.handlers.Mailbox"]).arg(self.dir.path().join("mail"));
        command.args(["-l", &format!("127.0.0.1:{}", self.port)]);
        self.proc = Some(Proc::start("smtp", self.dir.path(), &mut command));
        wait_until(Duration::from_secs(20), "the SMTP server listens", || {
            std::net::TcpStream::connect(("127.0.0.1", self.port)).ok().map(drop)
        });
    }

    /// Delivered messages, oldest first, as Python's mail library reads them.
    fn mails(&self) -> Vec<Value> {
        const SCRIPT: &str = r#"
import email, email.policy, json, pathlib, sys
out = []
for f in sorted(pathlib.Path(sys.argv[1]).glob("new/*"), key=lambda f: f.stat().st_mtime_ns):
    m = email.message_from_bytes(f.read_bytes(), policy=email.policy.default)
    out.append({"headers": {k.lower(): str(v) for k, v in m.items()}, "type": m.get_content_type(),
                "defects": [str(d) for p in m.walk() for d in p.defects],
                "text": m.get_body(("plain",)).get_content(), "html": m.get_body(("html",)).get_content()})
print(json.dumps(out))
"#;
        let mut python = Command::new(program("python3"));
        let done = python.arg("-c").arg(SCRIPT).arg(self.dir.path().join("mail")).output().unwrap();
        assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
        serde_json::from_slice(&done.stdout).unwrap()
    }
}

fn settings(port: u16) -> EmailSettings {
    EmailSettings {
        host: "127.0.0.1".into(),
        port,
        tls: MailTls::None,
        login: None,
        ca_file: None,
        from: "flipback <flipback@example.org>".into(),
        to: vec!["On call <oncall@example.org>".into()],
        timeout: Span::from_secs(2),
    }
}

#[tokio::test]
async fn a_real_server_gets_both_parts_in_one_thread() {
    let _ = rustls::crypto::ring::default_provider().install_default();
    let mut smtp = Smtp::new();
    smtp.start();
    let mailer = Mailer::new(&settings(smtp.port), "ops1.example.org").unwrap();
    let (first, last) = (notice(NoticeReason::BreachedActing), notice(NoticeReason::RolledBackRecovered));
    for notice in [&first, &last, &last] {
        mailer.send(&rendered(notice)).await.unwrap();
    }
    let mails = smtp.mails();
    assert_eq!(mails.len(), 3);
    let head = |i: usize, name: &str| mails[i]["headers"][name].as_str().unwrap_or("").to_owned();
    for (mail, notice) in mails.iter().zip([&first, &last, &last]) {
        assert_eq!(mail["defects"], Value::Array(Vec::new()));
        assert_eq!(mail["type"], "multipart/alternative");
        let made = rendered(notice);
        assert_eq!(mail["headers"]["subject"], made.subject.as_str(), "non-ASCII subjects survive");
        assert_eq!(mail["text"].as_str().unwrap().replace("\r\n", "\n").trim_end(), made.text.trim_end());
        assert_eq!(mail["html"].as_str().unwrap().replace("\r\n", "\n").trim_end(), made.html.trim_end());
        assert_eq!(mail["headers"]["auto-submitted"], "auto-generated");
    }
    assert_eq!(head(0, "message-id"), "<checkout-1.n1@flipback.ops1.example.org>");
    assert_eq!((head(1, "references"), head(1, "in-reply-to")), (head(0, "message-id"), head(0, "message-id")));
    assert_eq!(head(1, "message-id"), head(2, "message-id"), "a duplicate can be known as one");
    assert_eq!(
        (head(0, "x-flipback-severity").as_str(), head(0, "x-flipback-reason").as_str()),
        ("warning", "breached_acting")
    );
}

#[tokio::test]
async fn a_server_that_is_away_or_silent_is_tried_later() {
    let _ = rustls::crypto::ring::default_provider().install_default();
    let notice = notice(NoticeReason::Blind);
    let away = Mailer::new(&settings(free_port()), "ops1").unwrap();
    assert!(matches!(away.send(&rendered(&notice)).await, Err(Delivery::Later(_))));
    let silent = TcpListener::bind("127.0.0.1:0").unwrap();
    let mailer = Mailer::new(&settings(silent.local_addr().unwrap().port()), "ops1").unwrap();
    let began = Instant::now();
    let answer = mailer.send(&rendered(&notice)).await;
    assert!(matches!(&answer, Err(Delivery::Later(why)) if why.contains("oncall@example.org")), "{answer:?}");
    assert!(began.elapsed() < Duration::from_secs(30), "every send has its own time limit");
}

/// The whole way: no SMTP server, a notice, a kill, an SMTP server: one mail.
#[test]
fn a_notice_outlives_the_servers_absence_and_a_kill() {
    let mut smtp = Smtp::new();
    let dir = TempDir::with_prefix("flipback-outbox-").unwrap();
    let d = dir.path().display();
    let config = format!(
        "state_dir = \"{d}/state\"\n[prometheus]\nurl = \"http://127.0.0.1:1\"\n[email]\nsmarthost = \"127.0.0.1:{}\"\nfrom = \"flipback@example.org\"\nto = [\"oncall@example.org\"]\n[api]\nlisten = \"none\"\nsocket = \"{d}/control.sock\"\n[metrics.web]\nrequests = 'r{{env=\"$slot\"}}'\n[[service]]\nname = \"checkout\"\nmetrics = \"web\"\nslots = [\"blue\", \"green\"]\n",
        smtp.port
    );
    fs::write(dir.path().join("flipback.toml"), config).unwrap();
    let flipback = |args: &[&str]| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_flipback"));
        command.args(args).arg("--socket").arg(dir.path().join("control.sock")).output().unwrap()
    };
    let up = |dir: &Path| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_flipback"));
        let proc = Proc::start("flipback", dir, command.arg("run").arg("--config").arg(dir.join("flipback.toml")));
        wait_until(Duration::from_secs(15), "flipback answers", || {
            flipback(&["status"]).status.success().then_some(())
        });
        proc
    };
    let undelivered = || {
        let status: Value = serde_json::from_slice(&flipback(&["status", "-o", "json"]).stdout).ok()?;
        status["undelivered_notices"].as_u64()
    };
    let first = up(dir.path());
    assert!(flipback(&["announce", "checkout", "--old", "blue", "--new", "green", "--version", "v2"]).status.success());
    wait_until(Duration::from_secs(20), "a notice waits", || undelivered().filter(|n| *n > 0));
    assert!(flipback(&["cancel", "checkout-1"]).status.success());
    first.signal("-KILL");
    drop(first);
    smtp.start();
    let second = up(dir.path());
    wait_until(Duration::from_secs(60), "the outbox is empty", || undelivered().filter(|n| *n == 0));
    let mut ids: Vec<_> =
        smtp.mails().iter().map(|m| m["headers"]["message-id"].as_str().unwrap().to_owned()).collect();
    let all = ids.len();
    ids.sort();
    ids.dedup();
    assert!(all >= 2 && ids.len() == all, "each once: {ids:?}");
    drop(second);
}
