//! Every parser of bytes that others wrote, as one list: what the fuzz targets (fuzz/) feed, and what a property test
//! feeds in each run of the tests. A parser gives a value or an error; it does not panic, hang, or give a value that
//! breaks its own promise. What a value must hold is asserted here.
#![allow(clippy::panic, clippy::expect_used, reason = "a broken promise is to be found, not to be carried on with")]

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::path::PathBuf;
use std::sync::OnceLock;

use axum::http::{HeaderMap, HeaderName, HeaderValue};

use crate::config::settings::{Sender, WebhookSettings};
use crate::domain::switch::{ServiceName, Slot};
use crate::domain::time::{Span, Timestamp};
use crate::domain::view::WatchView;
use crate::edge::api::parse;
use crate::edge::hooks::{Delivery, Hooks};
use crate::edge::sources::promql::{Selector, escape_regex, labels_of, quoted};
use crate::engine::message::{Command, Input};

/// A parser, by its name.
pub type Target = (&'static str, fn(&[u8]));

pub const TARGETS: [Target; 11] = [
    ("config", config),
    ("api_json", api_json),
    ("webhook", webhook),
    ("prometheus_json", prometheus_json),
    ("metrics_page", metrics_page),
    ("counts_json", counts_json),
    ("haproxy", haproxy),
    ("journal_row", journal_row),
    ("duration", duration),
    ("selector", selector),
    ("escaping", escaping),
];

/// Feeds one of them.
pub fn run(name: &str, data: &[u8]) {
    let found = TARGETS.iter().find(|(known, _)| *known == name);
    found.expect("a target of that name").1(data);
}

const NOW: Timestamp = Timestamp::from_millis(1_795_000_000_000);

fn config(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    match crate::config::parse("flipback.toml", text) {
        Ok(settings) => assert!(!settings.services.is_empty(), "a configuration watches something"),
        Err(problems) => {
            let told = problems.to_string();
            assert!(!told.trim().is_empty(), "a refusal says why");
        }
    }
}

fn plain(name: &str) -> bool {
    let rest = |c: char| c.is_ascii_alphanumeric() || "._:/-".contains(c);
    name.len() <= 128 && name.starts_with(|c: char| c.is_ascii_alphanumeric()) && name.chars().all(rest)
}

fn api_json(data: &[u8]) {
    match parse::announcement(data, "fuzz".into(), NOW) {
        Ok(a) => {
            let names = [Some(a.service.as_str()), Some(a.old.as_str()), Some(a.new.as_str())];
            assert!(names.into_iter().flatten().all(plain), "a name goes into argv and PromQL: {a:?}");
            assert!(a.switched_at.is_none_or(|at| at <= NOW + Span::from_secs(30)), "no switch is in the future");
        }
        Err(refusal) => assert!(!refusal.text.is_empty(), "a refusal says why"),
    }
    let _ = parse::Fields::parse(data).and_then(|mut fields| {
        let _ = (fields.text("why")?, fields.number("n")?, fields.flag("real")?);
        fields.lines("links", 3, 10)?;
        fields.finish()
    });
    if let Ok(text) = std::str::from_utf8(data) {
        let _ = parse::instant("at", text);
    }
}

const SENDERS: [(&str, Sender); 8] = [
    ("github", Sender::Github),
    ("gitlab", Sender::Gitlab),
    ("argocd", Sender::Argocd),
    ("jenkins", Sender::Jenkins),
    ("launchdarkly", Sender::Launchdarkly),
    ("standard", Sender::Standard),
    ("generic", Sender::Generic),
    ("alertmanager", Sender::Alertmanager),
];

/// One hook for each sender, its secret in a file of the temporary directory.
fn hooks() -> &'static Hooks {
    static HOOKS: OnceLock<Hooks> = OnceLock::new();
    HOOKS.get_or_init(|| {
        let file: PathBuf = std::env::temp_dir().join(format!("flipback-foreign-{}", std::process::id()));
        std::fs::write(&file, "0123456789abcdef0123456789abcdef\n").expect("the temporary directory can be written");
        let all: Vec<WebhookSettings> = SENDERS
            .iter()
            .map(|(name, sender)| WebhookSettings {
                name: (*name).to_owned(),
                sender: *sender,
                secret_file: file.clone(),
                services: Vec::new(),
                templates: BTreeMap::new(),
                when: None,
                proof: None,
                acts: false,
            })
            .collect();
        let hooks = Hooks::new(&all);
        let _ = std::fs::remove_file(&file);
        hooks.expect("the built-in templates compile")
    })
}

/// The first byte chooses the sender; up to the first empty line there are headers, then the body.
fn webhook(data: &[u8]) {
    let Some((which, rest)) = data.split_first() else { return };
    let (name, _) = SENDERS[usize::from(*which) % SENDERS.len()];
    let (head, body) = match rest.windows(2).position(|two| two == b"\n\n") {
        Some(at) => (&rest[..at], &rest[at + 2..]),
        None => (&[][..], rest),
    };
    let mut headers = HeaderMap::new();
    for line in head.split(|b| *b == b'\n').take(32) {
        let Some(colon) = line.iter().position(|b| *b == b':') else { continue };
        let (name, value) = (HeaderName::from_bytes(&line[..colon]), HeaderValue::from_bytes(&line[colon + 1..]));
        if let (Ok(name), Ok(value)) = (name, value) {
            headers.append(name, value);
        }
    }
    let delivery = Delivery { headers: &headers, body, now: NOW };
    let hook = hooks().get(name).expect("one for each sender");
    // What is behind the signature, and the signature's own check.
    let _ = hook.understand(&delivery);
    let _ = hook.take(&delivery);
}

fn prometheus_json(data: &[u8]) {
    use crate::edge::sources::decode;
    if let Ok(samples) = decode::vector(data) {
        assert!(samples.iter().all(|s| s.value.is_finite()), "NaN and infinity are no data: {samples:?}");
    }
    let _ = decode::matrix(data);
    let _ = decode::raw_samples(data);
    let _ = (decode::histograms(data, "vector"), decode::histograms(data, "matrix"));
    if let Ok(value) = decode::scalar(data) {
        assert!(value.is_finite(), "{value} is no number");
    }
    let _ = (decode::refusal(data), decode::samples_touched(data));
}

fn metrics_page(data: &[u8]) {
    use crate::edge::sources::scrape::page::{Part, Wanted, read};
    static WANTED: OnceLock<Wanted> = OnceLock::new();
    let wanted = WANTED.get_or_init(|| {
        let matching = |text: &str| {
            let selector = Selector::parse(text).expect("a good selector");
            let slots = BTreeSet::from(["blue"]);
            selector.matching(&BTreeSet::new(), &slots, &Default::default()).expect("its names are bound")
        };
        Wanted {
            parts: vec![
                (Part::Requests, matching(r#"http_requests_total{env="$slot"}"#)),
                (Part::Errors, matching(r#"http_requests_total{env="$slot",code=~"5.."}"#)),
                (Part::Latency, matching(r#"latency_bucket{env="$slot"}"#)),
            ],
        }
    });
    let text = String::from_utf8_lossy(data);
    for openmetrics in [false, true] {
        if let Ok(page) = read(&text, openmetrics, wanted, &mut HashMap::new()) {
            assert!(page.values.values().all(|v| v.is_finite() && *v >= 0.0), "a counter counts: {page:?}");
        }
    }
}

fn counts_json(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    crate::edge::sources::read_counts(text, NOW - Span::from_mins(10), NOW, Span::from_mins(1));
}

fn haproxy(data: &[u8]) {
    let text = String::from_utf8_lossy(data);
    let _ = crate::edge::haproxy::read(&text, "checkout");
    if let Ok(weights) = crate::edge::detectors::output::weights(&text) {
        assert!(weights.iter().all(|(_, w)| w.is_finite() && *w >= 0.0), "{weights:?}");
    }
}

/// A row that can be read is written and read again the same.
fn journal_row(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    crate::journal::reread::<Input>(text);
    crate::journal::reread::<Command>(text);
    crate::journal::reread::<WatchView>(text);
}

fn duration(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    if let Ok(span) = Span::parse(text) {
        assert_eq!(Span::parse(&span.to_string()), Ok(span), "what is shown can be written: {text:?}");
    }
}

fn selector(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    if let Ok(selector) = Selector::parse(text) {
        let shown = selector.to_string();
        let again = Selector::parse(&shown).unwrap_or_else(|why| panic!("{shown:?} is not read again: {why}"));
        assert_eq!(again.to_string(), shown, "{text:?}");
    }
    let _ = labels_of(text);
}

/// Whatever stands in a label's value stays in it.
fn escaping(data: &[u8]) {
    let Ok(value) = std::str::from_utf8(data) else { return };
    let inside = format!("up{{a={}}}", quoted(value));
    let labels = labels_of(&inside).unwrap_or_else(|why| panic!("{inside:?} is no series: {why}"));
    assert_eq!(labels.len(), 1, "a value made labels: {inside:?}");
    assert_eq!(labels.get("a").map(String::as_str), Some(value), "{inside:?}");
    let pattern = regex::Regex::new(&format!("^(?:{})$", escape_regex(value)));
    // A pattern may be too long for the library; where it is one, it is the value's own.
    if let Ok(pattern) = pattern {
        assert!(pattern.is_match(value), "{value:?} is not matched by its own pattern");
    }
    let name = (ServiceName::try_new(value), Slot::try_new(value));
    assert!(name.0.is_err() || plain(value), "{value:?} was taken for a name");
    assert!(name.1.is_err() || plain(value), "{value:?} was taken for a slot");
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Seeds of a target: real messages, beside the fuzzer's own corpus.
    fn seeds(name: &str) -> Vec<Vec<u8>> {
        let dir = format!("{}/fuzz/seeds/{name}", env!("CARGO_MANIFEST_DIR"));
        let files = std::fs::read_dir(&dir).unwrap_or_else(|error| panic!("{dir}: {error}"));
        let all: Vec<Vec<u8>> = files.flatten().map(|file| std::fs::read(file.path()).unwrap()).collect();
        assert!(!all.is_empty(), "{dir} is empty");
        all
    }

    #[test]
    fn every_seed_is_taken_or_refused() {
        for (name, target) in TARGETS {
            seeds(name).iter().for_each(|seed| target(seed));
        }
    }

    /// A seed with some of its bytes changed, taken out, doubled or cut off.
    fn mutated(seed: &[u8], changes: &[(u8, usize, u8)]) -> Vec<u8> {
        let mut bytes = seed.to_vec();
        for (kind, at, byte) in changes {
            if bytes.is_empty() {
                bytes.push(*byte);
                continue;
            }
            let at = at % bytes.len();
            match kind % 5 {
                0 => bytes[at] = *byte,
                1 => drop(bytes.remove(at)),
                2 => bytes.insert(at, *byte),
                3 => {
                    let end = (at + usize::from(*byte)).min(bytes.len());
                    let part = bytes[at..end].to_vec();
                    bytes.splice(at..at, part);
                }
                _ => bytes.truncate(at),
            }
        }
        bytes
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 4000, failure_persistence: None, ..ProptestConfig::default() })]
        #[test]
        fn no_parser_breaks_on_what_was_changed(
            which in 0..TARGETS.len(),
            seed in any::<prop::sample::Index>(),
            changes in prop::collection::vec((any::<u8>(), any::<usize>(), any::<u8>()), 1..12),
            noise in prop::collection::vec(any::<u8>(), 0..200),
        ) {
            let (name, target) = TARGETS[which];
            let seeds = seeds(name);
            let seed: &Vec<u8> = seed.get(&seeds);
            target(&mutated(seed, &changes));
            target(&noise);
            target(String::from_utf8_lossy(&noise).as_bytes());
        }
    }
}
