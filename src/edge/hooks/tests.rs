use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs;

use axum::http::{HeaderName, HeaderValue};
use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use hmac::{Hmac, KeyInit, Mac};
use sha2::Sha256;

use super::*;
use crate::config::settings::Proof;

const SECRET: &str = "it-is-a-secret-of-32-characters!";
/// 2026-11-21T14:00:00Z
const NOW: Timestamp = Timestamp::from_millis(1_795_269_600_000);

fn mac(parts: &[&[u8]]) -> Vec<u8> {
    let mut mac = Hmac::<Sha256>::new_from_slice(SECRET.as_bytes()).unwrap();
    parts.iter().for_each(|part| mac.update(part));
    mac.finalize().into_bytes().to_vec()
}

fn fixture(name: &str) -> Vec<u8> {
    fs::read(format!("{}/tests/fixtures/hooks/{name}.json", env!("CARGO_MANIFEST_DIR"))).unwrap()
}

fn settings(sender: Sender) -> WebhookSettings {
    let dir = std::env::temp_dir().join(format!("flipback-hooks-{}", std::process::id()));
    fs::create_dir_all(&dir).unwrap();
    fs::write(dir.join("secret"), format!("{SECRET}\n")).unwrap();
    WebhookSettings {
        name: "ci".into(),
        sender,
        secret_file: dir.join("secret"),
        services: Vec::new(),
        templates: BTreeMap::new(),
        when: None,
        proof: None,
        acts: false,
    }
}

fn headers(all: &[(&str, String)]) -> HeaderMap {
    let name = |name: &str| HeaderName::try_from(name).unwrap();
    all.iter().map(|(n, value)| (name(n), HeaderValue::try_from(value).unwrap())).collect()
}

fn take(settings: &WebhookSettings, given: &[(&str, String)], body: &[u8]) -> Result<Outcome, Refused> {
    Hook::new(settings).unwrap().take(&Delivery { headers: &headers(given), body, now: NOW })
}

fn github(body: &[u8]) -> Vec<(&'static str, String)> {
    let signature = format!("sha256={}", hex::encode(mac(&[body])));
    vec![("x-hub-signature-256", signature), ("x-github-event", "deployment_status".into())]
}

fn standard(body: &[u8], at_s: i64) -> Vec<(&'static str, String)> {
    let at = at_s.to_string();
    let signature = BASE64_STANDARD.encode(mac(&[b"msg_1", b".", at.as_bytes(), b".", body]));
    let both = format!("v1,{} v1,{signature}", BASE64_STANDARD.encode([0; 32]));
    vec![("webhook-id", "msg_1".into()), ("webhook-timestamp", at), ("webhook-signature", both)]
}

fn bearer() -> Vec<(&'static str, String)> {
    vec![("authorization", format!("Bearer {SECRET}"))]
}

/// Each sender's documented payload, proven as that sender does it.
#[test]
fn documented_payloads_become_announcements() {
    let own = [
        ("service", "checkout"),
        ("new", "{{ target.colour }}"),
        ("version", "{{ release }}"),
        ("id", "run-{{ run }}"),
        ("switched_at", "{{ when | instant }}"),
    ];
    let templates = own.map(|(field, text)| (field.to_owned(), text.to_owned())).into();
    let proof = Proof::Signature { header: "x-signature".into(), prefix: "v0=".into(), encoding: Encoding::Base64 };
    let generic = WebhookSettings { templates, proof: Some(proof), ..settings(Sender::Generic) };
    let signed = |body: &[u8]| vec![("x-signature", format!("v0={}", BASE64_STANDARD.encode(mac(&[body]))))];
    let ld = |body: &[u8]| vec![("x-ld-signature", hex::encode(mac(&[body])))];
    let body = fixture;
    let cases = [
        ("github", settings(Sender::Github), github(&body("github"))),
        ("gitlab", settings(Sender::Gitlab), vec![("x-gitlab-token", SECRET.into())]),
        ("argocd", settings(Sender::Argocd), bearer()),
        ("jenkins", settings(Sender::Jenkins), vec![("x-flipback-token", SECRET.into())]),
        ("launchdarkly", settings(Sender::Launchdarkly), ld(&body("launchdarkly"))),
        ("standard", settings(Sender::Standard), standard(&body("standard"), NOW.as_millis() / 1000 + 100)),
        ("generic", generic, signed(&body("generic"))),
        ("alertmanager", settings(Sender::Alertmanager), bearer()),
    ];
    let mut text = String::new();
    for (name, settings, given) in &cases {
        let shown = match take(settings, given, &body(name)) {
            Ok(Outcome::Announce(map)) => serde_json::to_string_pretty(&map).unwrap(),
            other => format!("{other:#?}"),
        };
        writeln!(text, "{name}: {shown}").unwrap();
    }
    insta::assert_snapshot!(text);
    // Without the secret, with another body, or with another's signature: nobody.
    for (name, settings, given) in &cases {
        for (header, value) in given {
            if *header == "x-github-event" || header.ends_with("-id") {
                continue;
            }
            let without: Vec<_> = given.iter().filter(|(h, _)| h != header).cloned().collect();
            let wrong: Vec<_> = given
                .iter()
                .map(|(h, v)| {
                    (*h, if h == header { v.replace(|c: char| c.is_ascii_digit(), "0") + "0" } else { v.clone() })
                })
                .collect();
            for bad in [without, wrong] {
                let refused = take(settings, &bad, &body(name));
                assert!(matches!(refused, Err(Refused::Stranger(_))), "{name} {header}: {refused:?} {value}");
            }
        }
    }
}

#[test]
fn a_signature_is_of_this_body() {
    let body = fixture("github");
    let other = [body.as_slice(), b" "].concat();
    assert!(matches!(take(&settings(Sender::Github), &github(&body), &other), Err(Refused::Stranger(_))));
    // Not even looked at: what is not proven is not parsed.
    assert!(matches!(take(&settings(Sender::Github), &github(&body), b"{"), Err(Refused::Stranger(_))));
    assert!(matches!(take(&settings(Sender::Github), &github(b"{"), b"{"), Err(Refused::Bad(_))));
    let deep = "[".repeat(50_000);
    let refused = take(&settings(Sender::Github), &github(deep.as_bytes()), deep.as_bytes());
    assert!(matches!(refused, Err(Refused::Bad(why)) if why.contains("recursion")));
}

#[test]
fn a_signed_instant_is_good_for_five_minutes() {
    let body = fixture("standard");
    for (off_s, good) in [(0, true), (-290, true), (290, true), (-310, false), (310, false), (-4_000_000_000, false)] {
        let taken = take(&settings(Sender::Standard), &standard(&body, NOW.as_millis() / 1000 + off_s), &body);
        assert_eq!(taken.is_ok(), good, "{off_s}: {taken:?}");
    }
}

#[test]
fn what_is_no_switch_is_ignored_with_its_reason() {
    let as_text = String::from_utf8(fixture("github")).unwrap();
    let pending = as_text.replace("\"state\": \"success\"", "\"state\": \"in_progress\"");
    let ignored = |outcome: Result<Outcome, Refused>, why: &str| match outcome {
        Ok(Outcome::Ignored(text)) => assert!(text.contains(why), "{text}"),
        other => panic!("{other:?}"),
    };
    ignored(take(&settings(Sender::Github), &github(pending.as_bytes()), pending.as_bytes()), "in_progress");
    let mut ping = github(b"{\"zen\":\"x\"}");
    ping[1].1 = "ping".into();
    ignored(take(&settings(Sender::Github), &ping, b"{\"zen\":\"x\"}"), "pong");
    let only =
        WebhookSettings { when: Some("deployment.environment == 'production'".into()), ..settings(Sender::Github) };
    ignored(take(&only, &github(as_text.as_bytes()), as_text.as_bytes()), "does not hold");
    let renamed = String::from_utf8(fixture("launchdarkly")).unwrap().replace("updateOn", "updateName");
    let signed = vec![("x-ld-signature", hex::encode(mac(&[renamed.as_bytes()])))];
    ignored(take(&settings(Sender::Launchdarkly), &signed, renamed.as_bytes()), "no flag was turned");
}

#[test]
fn a_template_that_never_ends_does() {
    let templates = BTreeMap::from([
        (
            "service".to_owned(),
            "{% for a in range(9999) %}{% for b in range(9999) %}x{% endfor %}{% endfor %}".to_owned(),
        ),
        ("new".to_owned(), "green".to_owned()),
    ]);
    let hook = WebhookSettings { templates, ..settings(Sender::Generic) };
    assert!(matches!(take(&hook, &bearer(), b"{}"), Err(Refused::Bad(_))));
}

#[test]
fn instants_as_tools_write_them() {
    let vars = |value: Value| Map::from_iter([("at".to_owned(), value)]);
    let own = BTreeMap::from([("switched_at".to_owned(), "{{ at | instant }}".to_owned())]);
    let templates = Templates::new(&[], &own, None).unwrap();
    for value in [
        Value::from(1_795_269_600),
        Value::from(1_795_269_600_000_i64),
        Value::from("1795269600"),
        Value::from("2026-11-21T14:00:00Z"),
        Value::from("2026-11-21 15:00:00 +0100"),
        Value::from("2026-11-21 14:00:00 UTC"),
    ] {
        let shown = templates.one("switched_at", &vars(value.clone())).unwrap();
        let at = chrono::DateTime::parse_from_rfc3339(&shown).unwrap();
        assert_eq!(at.timestamp_millis(), NOW.as_millis(), "{value}");
    }
    assert!(templates.one("switched_at", &vars(Value::from("yesterday"))).is_err());
    assert_eq!(templates.one("switched_at", &Map::new()).unwrap(), "");
}
