//! Counts from a command or an HTTP service: one small JSON, whoever makes it.

use std::collections::BTreeMap;
use std::time::Instant;

use chrono::DateTime;
use minijinja::Value as Shown;
use reqwest::{Method, StatusCode};
use serde::Deserialize;

use super::client::cut;
use super::examine::{Finding, Level, finding};
use super::observe::{Answer, buckets};
use crate::domain::action::Variables;
use crate::domain::counts::{Buckets, Cell, Counts};
use crate::domain::origin::{CountsAsk, CountsWay};
use crate::domain::service::{ALL_SLOTS, Service};
use crate::domain::signal::{FailureKind, Observation, ReadFailure, Reading, SlotCell, SourceClock};
use crate::domain::switch::{ServiceName, Slot};
use crate::domain::time::{Span, Timestamp};
use crate::edge::actuators::command;
use crate::edge::actuators::native::http;
use crate::engine::message::{CommandId, ObserveAsk, RecordAsk, RecordedCells};
use crate::words::template::environment;

/// A day of minutes with a dozen buckets each is some 500 KiB.
const ANSWER_MAX: usize = 4 * 1024 * 1024;

/// A template over a day of minutes takes some hundred thousand.
const FUEL: u64 = 20_000_000;

/// Cells of one question: a day of minutes is asked for in pieces.
const CELLS_MAX: u64 = 360;

/// The command says "try again" (sysexits).
const TEMPORARY: i32 = 75;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Told {
    cells: Vec<ToldCell>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct ToldCell {
    from: Instant1970,
    to: Option<Instant1970>,
    requests: f64,
    errors: f64,
    /// How many took at most so many seconds, by `le`; `+Inf` is all of them.
    #[serde(default)]
    latency: Option<BTreeMap<String, f64>>,
    #[serde(default)]
    custom: BTreeMap<String, f64>,
}

/// Seconds since 1970, or RFC 3339.
#[derive(Deserialize)]
#[serde(untagged)]
enum Instant1970 {
    Seconds(f64),
    Text(String),
}

impl Instant1970 {
    fn read(&self) -> Result<Timestamp, String> {
        match self {
            Instant1970::Seconds(s) if s.is_finite() && (0.0..1e11).contains(s) => {
                Ok(Timestamp::from_millis((s * 1000.0).round() as i64))
            }
            Instant1970::Seconds(s) => Err(format!("{s} is no time in seconds since 1970")),
            Instant1970::Text(text) => DateTime::parse_from_rfc3339(text)
                .map(|at| Timestamp::from_millis(at.timestamp_millis()))
                .map_err(|_| format!("{text:.40?} is no time: seconds since 1970, or 2026-11-21T14:02:00Z")),
        }
    }
}

/// One interval of an answer.
#[derive(Debug, Clone, PartialEq)]
struct Counted {
    cell: Cell,
    custom: BTreeMap<String, f64>,
}

/// Whether a text can be the template of an answer.
pub fn check_answer_template(text: &str) -> Result<(), String> {
    environment(FUEL).template_from_str(text).map(|_| ()).map_err(|error| told(&error))
}

/// Reads an answer for its own sake: the intervals lie within what was asked, and count.
pub fn read_counts(text: &str, from: Timestamp, to: Timestamp, every: Span) {
    for counted in read(text, from, to, every).unwrap_or_default() {
        let cell = counted.cell;
        assert!(from <= cell.from && cell.from < cell.to && cell.to <= to, "{cell:?}");
    }
}

fn told(error: &minijinja::Error) -> String {
    let line = error.line().map_or(String::new(), |line| format!(" (line {line})"));
    let detail = error.detail().map_or_else(|| error.kind().to_string(), str::to_owned);
    cut(&format!("{detail}{line}"))
}

fn failure(kind: FailureKind, why: impl AsRef<str>) -> ReadFailure {
    ReadFailure { kind, detail: cut(why.as_ref()) }
}

fn unusable(why: impl AsRef<str>) -> ReadFailure {
    failure(FailureKind::Unusable, why)
}

/// Answers one question of a watch.
pub async fn observe(id: &CommandId, ask: &ObserveAsk, counts: &CountsAsk, now: fn() -> Timestamp) -> Answer {
    let clock = SourceClock { skew_ms: 0, settle: counts.settle, scrape_interval: Some(counts.every) };
    let to = (now() - counts.settle).floor_to(counts.every);
    // The cell in which the traffic moved: whole where the new slot is alone in it, left out where it is not.
    let begin = ask.from.floor_to(counts.every);
    let from = if counts.by_slot() || begin == ask.from { begin } else { begin + counts.every };
    let targets = Reading::Absent;
    if to <= from || to <= ask.from {
        return (id.clone(), Observation::Empty { to, targets }, Some(clock));
    }
    let read = match cells(counts, &ask.service, &ask.slot, from, to).await {
        Ok(read) => read,
        Err(failure) => return (id.clone(), Observation::Failed(failure), Some(clock)),
    };
    let Some(last) = read.last() else {
        return (id.clone(), Observation::Absent { to, targets }, Some(clock));
    };
    let sum = read.iter().fold(Counts::default(), |sum, c| sum.plus(c.cell.counts));
    let mut latency = Reading::Absent;
    for more in read.iter().filter_map(|c| c.cell.latency.as_ref()) {
        latency = match &latency {
            Reading::Value(sum) => match Buckets::plus(sum, more) {
                Some(sum) => Reading::Value(sum),
                None => Reading::Failed(unusable("cells have different bounds of latency")),
            },
            Reading::Absent => Reading::Value(more.clone()),
            Reading::Failed(_) => break,
        };
    }
    let custom =
        ask.metrics.custom.iter().map(|(name, _)| {
            (name.clone(), last.custom.get(name).map_or(Reading::Absent, |value| Reading::Value(*value)))
        });
    let cell = SlotCell {
        from: ask.from,
        // What is not there yet is asked for again.
        to: last.cell.to,
        counts: Reading::Value(sum),
        latency,
        targets,
        custom: custom.collect(),
        remarks: Vec::new(),
    };
    (id.clone(), Observation::Cell(Box::new(cell)), Some(clock))
}

/// The recorded normal, from where it ends to now.
pub async fn record(
    ask: &RecordAsk,
    counts: &CountsAsk,
    from: Timestamp,
    now: fn() -> Timestamp,
) -> Result<Vec<RecordedCells>, ReadFailure> {
    let end = (now() - counts.settle).floor_to(counts.every);
    let all = Slot::try_new(ALL_SLOTS).map_err(|why| unusable(why.to_string()))?;
    let slots: Vec<&Slot> = if counts.by_slot() { ask.slots.keys().collect() } else { vec![&all] };
    let mut out = Vec::new();
    for slot in slots {
        let mut found = Vec::new();
        let mut start = from.floor_to(counts.every);
        if start < from {
            start = start + counts.every;
        }
        while start < end {
            let stop = (start + counts.every.times(CELLS_MAX)).min(end);
            found.extend(cells(counts, &ask.service, slot, start, stop).await?.into_iter().map(|c| c.cell));
            start = stop;
        }
        out.push(RecordedCells { service: ask.service.clone(), slot: slot.clone(), cells: found });
    }
    Ok(out)
}

/// `check --live`: what the last five cells hold.
pub async fn examine(service: &Service, counts: &CountsAsk, now: fn() -> Timestamp) -> Vec<Finding> {
    let end = (now() - counts.settle).floor_to(counts.every);
    let slots: Vec<Slot> = if counts.by_slot() {
        service.slots.specs().into_keys().collect()
    } else {
        Slot::try_new(ALL_SLOTS).into_iter().collect()
    };
    let mut findings = Vec::new();
    for slot in slots {
        let began = Instant::now();
        let read = cells(counts, &service.name, &slot, end - counts.every.times(5), end).await;
        let cost_ms = began.elapsed().as_millis();
        let (level, text) = match read {
            Err(failure) => (Level::Error, failure.to_string()),
            Ok(read) if read.is_empty() => {
                (Level::Warning, "no cells: is there traffic, is settle long enough?".into())
            }
            Ok(read) => {
                let sum = read.iter().fold(Counts::default(), |sum, c| sum.plus(c.cell.counts));
                let with = if read.iter().any(|c| c.cell.latency.is_some()) { ", with latency" } else { "" };
                let cells = read.len();
                (Level::Ok, format!("{cells} of 5 cells: {} requests, {} errors{with}", sum.requests(), sum.bad()))
            }
        };
        findings.push(finding(format!("{} {slot} counts", service.name), level, format!("{text}; {cost_ms} ms")));
    }
    findings
}

/// The cells of a range, in the order of time.
async fn cells(
    counts: &CountsAsk,
    service: &ServiceName,
    slot: &Slot,
    from: Timestamp,
    to: Timestamp,
) -> Result<Vec<Counted>, ReadFailure> {
    let seconds = |t: Timestamp| t.as_millis().div_euclid(1000).to_string();
    let vars = Variables::from([
        ("service", service.to_string()),
        ("slot", slot.to_string()),
        ("from", from.to_string()),
        ("to", to.to_string()),
        ("from_s", seconds(from)),
        ("to_s", seconds(to)),
        ("from_ms", from.as_millis().to_string()),
        ("to_ms", to.as_millis().to_string()),
        ("step_s", (counts.every.as_millis() / 1000).to_string()),
    ]);
    let asked = tokio::time::timeout(counts.timeout.to_std(), answer(counts, &vars)).await;
    let text = asked.map_err(|_| failure(FailureKind::Timeout, format!("no answer within {}", counts.timeout)))??;
    let text = match &counts.answer {
        Some(template) => filled(template, &text, &vars).map_err(|why| unusable(format!("answer: {why}")))?,
        None => text,
    };
    read(&text, from, to, counts.every).map_err(unusable)
}

async fn answer(counts: &CountsAsk, vars: &Variables) -> Result<String, ReadFailure> {
    match counts.resolve(vars) {
        CountsWay::Command(exec) => {
            let program = exec.argv.first().cloned().unwrap_or_default();
            let done = command::run_for_data(&exec, counts.timeout, ANSWER_MAX)
                .await
                .map_err(|why| failure(FailureKind::Unreachable, why))?;
            if done.status.success() {
                return Ok(done.stdout);
            }
            let kind =
                if done.status.code() == Some(TEMPORARY) { FailureKind::Unavailable } else { FailureKind::Rejected };
            Err(failure(kind, format!("{program} ended with {}: {}", done.status, done.stderr.trim())))
        }
        CountsWay::Http(call) => {
            let url = &call.target.url;
            let client = http::client(&call.target, false).map_err(|why| failure(FailureKind::Rejected, why))?;
            let method = Method::from_bytes(call.method.as_bytes())
                .map_err(|_| failure(FailureKind::Rejected, format!("{} is no method", call.method)))?;
            let mut request = http::request_with(&client, method, &call.target)
                .map_err(|why| failure(FailureKind::Rejected, why))?
                .timeout(counts.timeout.to_std());
            if let Some(body) = call.body {
                request = request.body(body);
            }
            let network = |error: reqwest::Error| {
                let kind = if error.is_timeout() { FailureKind::Timeout } else { FailureKind::Unreachable };
                failure(kind, http::root(&error))
            };
            let mut answer = request.send().await.map_err(network)?;
            let status = answer.status();
            let mut bytes = Vec::new();
            while let Some(chunk) = answer.chunk().await.map_err(network)? {
                bytes.extend_from_slice(&chunk);
                if bytes.len() > ANSWER_MAX {
                    return Err(unusable(format!("the answer is larger than {} MiB", ANSWER_MAX / 1024 / 1024)));
                }
            }
            let text = String::from_utf8(bytes).map_err(|_| unusable("the answer is not UTF-8"))?;
            if !status.is_success() {
                let busy = status == StatusCode::TOO_MANY_REQUESTS || status.is_server_error();
                let kind = if busy { FailureKind::Unavailable } else { FailureKind::Rejected };
                let host = url.split('?').next().unwrap_or_default();
                return Err(failure(kind, format!("{host} answered {status}: {text:.200}")));
            }
            Ok(text)
        }
    }
}

/// Makes of a foreign answer the one that is documented. It sees `answer` (JSON), `text`, and the variables.
fn filled(template: &str, text: &str, vars: &Variables) -> Result<String, String> {
    let env = environment(FUEL);
    let template = env.template_from_str(template).map_err(|error| told(&error))?;
    let json: serde_json::Value = serde_json::from_str(text).unwrap_or(serde_json::Value::Null);
    let mut seen: BTreeMap<&str, Shown> =
        vars.iter().map(|(name, value)| (*name, Shown::from(value.clone()))).collect();
    for name in ["from_s", "to_s", "from_ms", "to_ms", "step_s"] {
        // Numbers, to be counted with.
        let number = vars.get(name).and_then(|value| value.parse::<i64>().ok());
        seen.extend(number.map(|n| (name, Shown::from(n))));
    }
    seen.insert("answer", Shown::from(minijinja::value::Serde(json)));
    seen.insert("text", Shown::from(text));
    template.render(Shown::from(minijinja::value::Serde(seen))).map_err(|error| told(&error))
}

/// Reads the documented answer; the error says which cell is wrong, and why.
fn read(text: &str, from: Timestamp, to: Timestamp, every: Span) -> Result<Vec<Counted>, String> {
    let told: Told = serde_json::from_str(text)
        .map_err(|error| format!("not the answer that is documented: {error}; it begins with {text:.80?}"))?;
    let mut all = Vec::with_capacity(told.cells.len());
    for (n, cell) in (1usize..).zip(told.cells) {
        let wrong = |why: String| format!("cell {n}: {why}");
        let begin = cell.from.read().map_err(wrong)?;
        let end = match &cell.to {
            Some(to) => to.read().map_err(wrong)?,
            None => begin + every,
        };
        if end <= begin {
            return Err(wrong(format!("it ends at {end}, before it begins")));
        }
        if begin < from || end > to {
            // What is not asked for is not counted: a service may well answer with whole hours.
            continue;
        }
        let counts = Counts::try_new(cell.requests, cell.errors).map_err(|why| wrong(why.to_string()))?;
        let latency = match cell.latency.filter(|by_le| !by_le.is_empty()) {
            Some(by_le) => Some(buckets(&by_le).map_err(wrong)?),
            None => None,
        };
        if let Some((name, value)) = cell.custom.iter().find(|(_, value)| !value.is_finite()) {
            return Err(wrong(format!("{name} is {value}")));
        }
        all.push(Counted { cell: Cell { from: begin, to: end, counts, latency }, custom: cell.custom });
    }
    all.sort_by_key(|c| c.cell.from);
    if let Some(pair) = all.windows(2).find(|pair| pair[0].cell.to > pair[1].cell.from) {
        return Err(format!("cells overlap at {}: their requests would be counted twice", pair[1].cell.from));
    }
    Ok(all)
}

#[cfg(test)]
mod tests {
    use super::*;

    const T0: Timestamp = Timestamp::from_millis(1_732_270_800_000);
    const MINUTE: Span = Span::from_mins(1);

    fn cells(text: &str) -> Result<Vec<Counted>, String> {
        read(text, T0, T0 + Span::from_mins(5), MINUTE)
    }

    #[test]
    fn the_documented_answer_is_read() {
        let all = cells(
            r#"{"cells": [
                {"from": "2024-11-22T10:21:00Z", "requests": 10, "errors": 0},
                {"from": 1732270800, "to": 1732270860, "requests": 120.0, "errors": 3,
                 "latency": {"0.1": 100, "0.25": 118, "+Inf": 120}, "custom": {"signups": 4}},
                {"from": 1732270740, "requests": 7, "errors": 7}
            ]}"#,
        )
        .unwrap();
        assert_eq!(all.len(), 2, "what was not asked for is not counted");
        assert_eq!((all[0].cell.from, all[0].cell.counts.requests(), all[0].custom["signups"]), (T0, 120.0, 4.0));
        assert_eq!(all[0].cell.latency.as_ref().unwrap().total(), 120.0);
        assert_eq!(all[1].cell.length(), MINUTE);
        assert!(cells(r#"{"cells": []}"#).unwrap().is_empty(), "nothing is not zero");
    }

    #[test]
    fn what_is_wrong_is_named() {
        let wrong = |text: &str| cells(text).unwrap_err();
        assert!(wrong("").contains("not the answer that is documented"));
        assert!(wrong("<html>").contains("it begins with \"<html>\""));
        assert!(wrong(r#"{"cells": [{"from": 1732270800, "requests": 5}]}"#).contains("missing field `errors`"));
        assert!(wrong(r#"{"cells": [{"from": 1732270800, "requests": null, "errors": 0}]}"#).contains("invalid type"));
        assert!(wrong(r#"{"cells": [{"from": 1732270800, "request": 5, "errors": 0}]}"#).contains("unknown field"));
        let cell = |fields: &str| wrong(&format!(r#"{{"cells": [{{"from": 1732270800, {fields}}}]}}"#));
        assert!(cell(r#""requests": 5, "errors": 6"#).contains("cell 1: 6 errors in 5 requests"));
        assert!(cell(r#""requests": -5, "errors": 0"#).contains("cell 1: a count is negative"));
        assert!(cell(r#""requests": 5, "errors": 0, "latency": {"0.1": 4}"#).contains("no +Inf bucket"));
        assert!(cell(r#""requests": 5, "errors": 0, "to": 1732270700"#).contains("before it begins"));
        assert!(wrong(r#"{"cells": [{"from": "noon", "requests": 5, "errors": 0}]}"#).contains("is no time"));
        let twice = r#"{"cells": [{"from": 1732270800, "requests": 5, "errors": 0},
                                  {"from": 1732270830, "requests": 5, "errors": 0}]}"#;
        assert!(wrong(twice).contains("counted twice"));
    }

    #[test]
    fn a_template_turns_a_foreign_answer_into_ours() {
        let template = r#"{"cells": [{% for p in answer.series[0].points if p[1] is not none %}
            {"from": {{ p[0] }}, "requests": {{ p[1] }}, "errors": {{ p[2] }}}{{ "," if not loop.last }}{% endfor %}]}"#;
        let vars = Variables::from([("slot", "blue".to_owned()), ("from_s", "5".to_owned())]);
        let foreign = r#"{"series": [{"points": [[1732270800, 9, 1], [1732270860, null, null]]}]}"#;
        let all = cells(&filled(template, foreign, &vars).unwrap()).unwrap();
        assert_eq!((all.len(), all[0].cell.counts.bad()), (1, 1.0));
        assert!(filled("{{ answer.nothing.there }}", "{}", &vars).unwrap_err().contains("undefined"));
        assert!(check_answer_template("{% for %}").is_err());
    }

    proptest::proptest! {
        /// Whatever is answered, it is cells of the range or a reason.
        #[test]
        fn any_answer_is_read_or_refused(text in "\\PC{0,200}") {
            let _ = cells(&text);
        }
    }
}
