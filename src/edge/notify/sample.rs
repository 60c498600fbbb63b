//! Samples of every kind of message, for people who try their receivers and for the pictures. They were made by the
//! engine itself, in its tests.

use std::sync::LazyLock;

use super::charts::drawn;
use super::message::{Enclosed, Told};
use super::page::{ChartRef, Link, ShownQuery};
use crate::account::charts::{drawable, framed};
use crate::chart::Band;
use crate::domain::digest::{Digest, DigestService, DigestSwitch};
use crate::domain::letter::{Letter, Undeliverable};
use crate::domain::notice::{Notice, NoticeKey, NoticeReason};
use crate::domain::policy::Mode;
use crate::domain::signal::Signal;
use crate::domain::switch::{ServiceName, SwitchId};
use crate::domain::time::{Span, Timestamp};

static NOTICES: LazyLock<Vec<Notice>> = LazyLock::new(|| {
    let snapshot = include_str!("../../../tests/vectors/notices.snap");
    let json = snapshot.splitn(3, "---\n").nth(2).unwrap_or_default();
    serde_json::from_str(json).unwrap_or_else(|error| {
        tracing::error!(%error, "the samples cannot be read");
        Vec::new()
    })
});

/// One of each kind and more where a kind has several faces; of one kind the one with the most to show is last.
pub fn notices() -> &'static [Notice] {
    &NOTICES
}

pub fn notice(reason: NoticeReason) -> Option<&'static Notice> {
    let mut of = NOTICES.iter().filter(|n| n.reason == reason);
    let first = of.clone().next();
    of.rfind(|n| n.watch.breach.as_ref().is_some_and(|b| b.one_in.is_some())).or(first)
}

/// Every kind that there is, once.
pub fn letters() -> Vec<Letter> {
    let mut all: Vec<Letter> = NoticeReason::ALL.iter().filter_map(|reason| letter(reason.word())).collect();
    all.extend(["undeliverable", "digest"].into_iter().filter_map(letter));
    all
}

pub fn letter(kind: &str) -> Option<Letter> {
    match kind {
        "undeliverable" => {
            let of = notice(NoticeReason::RolledBackNotRecovered)?.clone();
            let since = of.at;
            Some(Letter::Undeliverable(Box::new(Undeliverable {
                at: since + Span::from_mins(72 * 60),
                of,
                channel: "payments/slack".into(),
                tries: 431,
                since,
                error: "the chat: 410 Gone: channel_is_archived".into(),
            })))
        }
        "digest" => Some(Letter::Digest(Box::new(digest()?))),
        kind => {
            let reason = NoticeReason::ALL.into_iter().find(|reason| reason.word() == kind)?;
            Some(Letter::Notice(Box::new(notice(reason)?.clone())))
        }
    }
}

fn digest() -> Option<Digest> {
    let reasons = [
        NoticeReason::Passed,
        NoticeReason::RolledBackRecovered,
        NoticeReason::Withheld,
        NoticeReason::Unjudged,
        NoticeReason::Healed,
        NoticeReason::Drilled,
    ];
    let mut switches: Vec<DigestSwitch> =
        reasons.into_iter().filter_map(|reason| Some(DigestSwitch::of(&notice(reason)?.watch))).collect();
    switches[0].near_miss = Some("latency p99 1.4× the normal".into());
    let from = switches.first()?.opened_at;
    let service = |name: &str, mode, armed, too_thin: Option<&str>| {
        Some(DigestService {
            name: ServiceName::try_new(name).ok()?,
            mode,
            armed,
            too_thin: too_thin.map(str::to_owned),
        })
    };
    Some(Digest {
        from,
        to: from + Span::from_mins(7 * 24 * 60),
        switches,
        more: 0,
        services: vec![
            service("checkout", Mode::Auto, true, None)?,
            service("search", Mode::Ask, true, None)?,
            service(
                "backoffice",
                Mode::Observe,
                false,
                Some("12 requests in 30m can show 41.0× the normal, 10× is asked for"),
            )?,
        ],
    })
}

/// The same as a message of its own thread, told as the test that it is.
pub fn as_test(letter: Letter, switch: &SwitchId, n: u32, now: Timestamp) -> Letter {
    let renamed = |notice: &mut Notice| {
        notice.key = NoticeKey { switch: switch.clone(), n };
        notice.watch.id = switch.clone();
        notice.at = now;
    };
    match letter {
        Letter::Notice(mut notice) => {
            renamed(&mut notice);
            Letter::Notice(notice)
        }
        Letter::Undeliverable(mut u) => {
            renamed(&mut u.of);
            u.at = now;
            Letter::Undeliverable(u)
        }
        Letter::Digest(mut digest) => {
            digest.to = now;
            Letter::Digest(digest)
        }
    }
}

/// Queries, links and pictures as a real one would have them.
pub fn enclosed(letter: &Letter, earlier: Vec<Told>) -> Enclosed {
    let mut enclosed = Enclosed { earlier, ..Enclosed::default() };
    let Letter::Notice(notice) = letter else { return enclosed };
    if notice.watch.is_drill() {
        return enclosed;
    }
    let link = |name: &str, url: &str| Link { name: name.to_owned(), url: url.to_owned() };
    enclosed.links = vec![
        link("Grafana", "https://grafana.example.org/d/web?var-service=checkout"),
        link("Status page", "https://flipback.example.org/watch/checkout-1"),
    ];
    enclosed.queries = vec![ShownQuery {
        signal: Signal::ErrorRate,
        name: "error rate".into(),
        query: r#"sum(rate(errors{env="green"}[1m])) / sum(rate(requests{env="green"}[1m]))"#.into(),
        link: Some("https://prometheus.example.org/graph?g0.expr=x&g0.tab=0".into()),
    }];
    enclosed.charts = charts(notice);
    enclosed
}

/// Made from the evidence alone: a sample has no readings.
fn charts(notice: &Notice) -> Vec<(ChartRef, Option<Vec<u8>>)> {
    let w = &notice.watch;
    let Some(breach) = &w.breach else { return Vec::new() };
    drawable(&breach.evidence)
        .enumerate()
        .filter_map(|(i, e)| {
            let (value, normal) = (e.value?, e.baseline?);
            let cut = w.began();
            let from = cut - Span::from_secs(30);
            let end = w.recovery.as_ref().map_or(notice.at, |r| r.proven_at).max(breach.at);
            let to = (notice.at + Span::from_secs(2)).max(end + Span::from_secs(20));
            // A wobble that is the same every time.
            let wobble = |k: u64| 0.6 + 0.8 * f64::from(u32::try_from(k * 7919 % 101).unwrap_or(0)) / 101.0;
            let points = |from: Timestamp, to: Timestamp, level: f64| -> Vec<(Timestamp, f64)> {
                let count = to.since(from).as_millis() / 1500;
                (0..count)
                    .map(|k| {
                        (from + Span::from_millis(k * 1500 + 750), level * wobble(k + from.as_millis() as u64 % 97))
                    })
                    .collect()
            };
            let mut old = points(from, cut, normal);
            let mut new = points(cut, breach.since.max(cut), normal);
            new.extend(points(breach.since.max(cut), end, value));
            if w.recovery.is_some() {
                old.extend(points(end, to, normal));
            }
            let band = Band { low: normal * 0.6, high: normal * 1.4 };
            let chart = framed(w, e, (from, to), old, new, Some(band));
            Some(drawn(&chart, i, true))
        })
        .collect()
}
