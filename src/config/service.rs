//! One `[[service]]`: slots, metrics, policy and plan.

use std::collections::BTreeMap;

use super::detect;
use super::metrics::service_metrics;
use super::read::http_url;
use super::settings::DetectorSettings;
use super::slots::slots;
use super::step::{Purpose, flags, plan};
use super::table::{At, Table};
use crate::domain::plan::{Plan, Step};
use crate::domain::policy::AskDefault;
use crate::domain::policy::{
    Alpha, Bound, CustomLimit, Limits, Mode, Policy, Ratio, RuleKind, Share, TailNull, WarmUp,
};
use crate::domain::service::{Metrics, Service, Slots};
use crate::domain::signal::Quantile;
use crate::domain::switch::ServiceName;
use crate::domain::time::Span;

pub(super) const SECOND: Span = Span::from_secs(1);

/// Each control costs as much as the watch itself.
const CONTROLS_MAX: usize = 8;

/// Its detectors are put beside it: the engine has no use for them.
pub(super) fn read(
    at: &At<'_, '_>,
    templates: &BTreeMap<String, Option<Metrics>>,
    detectors: &mut Vec<DetectorSettings>,
) -> Option<Service> {
    let table = at.table()?;
    let name = table.need("name", "name = \"checkout\"").and_then(|at| named(&at, ServiceName::try_new));
    let slots = table
        .need("slots", "slots.blue = { health = { http = \"http://127.0.0.1:9001/healthz\" } }, one for each slot")
        .and_then(|at| slots(&at));
    let limits_at = table.get("limits");
    let (limits, limits_custom) = limits_at.as_ref().and_then(At::table).map_or((Some(default_limits()), None), limits);
    let metrics = table
        .need("metrics", "the name of a [metrics.NAME] table, or a table with requests, errors and latency")
        .and_then(|at| service_metrics(&at, name.as_ref(), templates));
    let mode_at = table.get("mode");
    let mode = mode_at
        .as_ref()
        .and_then(|at| at.word(&[("observe", Mode::Observe), ("ask", Mode::Ask), ("auto", Mode::Auto)]))
        .unwrap_or(Mode::Observe);
    let unverified = table.get("unverified").and_then(|at| at.boolean()).unwrap_or(false);
    let runbook = table.get("runbook").and_then(|at| http_url(&at));
    let controls = table.get("controls").and_then(|at| controls(&at, name.as_ref()));
    let rules = [("evidence", RuleKind::Evidence), ("threshold", RuleKind::Threshold), ("either", RuleKind::Either)];
    let rule = table.get("rule").and_then(|at| at.word(&rules)).unwrap_or(RuleKind::Evidence);
    let soak = table.get("soak").and_then(|at| at.table());
    let soak = soak_of(soak);
    let warm_up = table.get("warm_up").and_then(|at| at.table()).map_or(
        WarmUp { errors: Span::from_secs(30), latency: Span::from_secs(60) },
        |t| {
            let span = |key, default| {
                t.get(key)
                    .and_then(|at| {
                        at.duration(Span::ZERO..=Span::from_mins(30), "a longer warm-up is a soak without a judge")
                    })
                    .unwrap_or(default)
            };
            let warm_up =
                WarmUp { errors: span("errors", Span::from_secs(30)), latency: span("latency", Span::from_secs(60)) };
            t.finish();
            warm_up
        },
    );
    let time = |key: &'static str, default: Span, longest: Span| {
        table.get(key).and_then(|at| at.duration(SECOND..=longest, "nobody waits longer for this")).unwrap_or(default)
    };
    let ask_timeout = time("ask_timeout", Span::from_mins(10), Span::from_mins(24 * 60));
    let confirm_within = time("confirm_within", Span::from_secs(60), Span::from_mins(60));
    let recover_within = time("recover_within", Span::from_mins(3), Span::from_mins(120));
    let ask_default = table
        .get("ask_default")
        .and_then(|at| at.word(&[("hold", AskDefault::Hold), ("roll_back", AskDefault::RollBack)]))
        .unwrap_or_default();
    let notify_opened = table.get("notify_opened").and_then(|at| at.boolean()).unwrap_or(false);
    let notify_passed = table.get("notify_passed").and_then(|at| at.boolean()).unwrap_or(true);
    let (mut cells_min, mut requests_min) = (8, 1000.0);
    if let Some(t) = table.get("baseline").and_then(|at| at.table()) {
        cells_min =
            t.get("cells_min").and_then(|at| at.whole(1..=5760, "cells are 15 s; a day has 5760")).unwrap_or(cells_min);
        if let Some(at) = t.get("requests_min")
            && let Some(n) = at.number()
        {
            if (1.0..=1e12).contains(&n) {
                requests_min = n;
            } else {
                at.problem("must be at least 1", None);
            }
        }
        t.finish();
    }
    let way_back =
        table.get("rollback").map_or(Some(Plan::default()), |at| plan(&at, slots.as_ref(), Purpose::Rollback));
    let after_at = table.get("after_passed");
    let after_passed = after_at.map_or(Some(Plan::default()), |at| plan(&at, slots.as_ref(), Purpose::AfterPassed));
    let flags = table.get("flags").map_or(Some(BTreeMap::new()), |at| flags(&at));
    let detect_at = table.get("detect");
    let (span_at, table_path) = (mode_at.clone(), table.path.clone());
    table.finish();
    let service = Service {
        name: name?,
        slots: slots?,
        metrics: metrics?,
        policy: Policy {
            mode,
            rule,
            soak: soak.duration,
            tick: soak.tick,
            long: soak.long,
            long_tick: soak.long_tick,
            extend_max: soak.extend_max,
            warm_up,
            limits: limits?,
            ask_timeout,
            ask_default,
            confirm_within,
            recover_within,
            baseline_cells_min: cells_min,
            baseline_requests_min: requests_min,
            notify_passed,
            notify_opened,
        },
        plan: way_back?,
        after_passed: after_passed?,
        flags: flags?,
        unverified,
        controls: controls.unwrap_or_default(),
        runbook,
    };
    if let Some(at) = detect_at {
        detectors.extend(detect::detectors(&at, &service));
    }
    if let Some(custom_at) = limits_custom {
        for limit in &service.policy.limits.custom {
            if !service.metrics.custom.iter().any(|(n, _)| *n == limit.name) {
                let known: Vec<_> = service.metrics.custom.iter().map(|(n, _)| n.as_str()).collect();
                custom_at.problem(
                    format!("there is a limit for {:?}, but no such custom signal", limit.name),
                    Some(&format!(
                        "the custom signals of metrics {} are: {}",
                        service.metrics.name,
                        if known.is_empty() { "none".into() } else { known.join(", ") }
                    )),
                );
            }
        }
    }
    if mode == Mode::Auto && !unverified {
        let missing = missing_for_auto(&service);
        if !missing.is_empty() {
            let place = span_at.as_ref().unwrap_or(at);
            place.source.problem(
                place.span.clone(),
                &format!("{table_path}.mode"),
                format!("auto needs more: {}", missing.join("; ")),
                Some("add them, or say unverified = true to act without proof".into()),
            );
        }
    }
    Some(service)
}

/// Neighbours' names; that the services are there is known once all are read.
fn controls(at: &At<'_, '_>, own: Option<&ServiceName>) -> Option<Vec<ServiceName>> {
    let mut all: Vec<ServiceName> = Vec::new();
    for (_, at) in at.strings()? {
        let name = named(&at, ServiceName::try_new)?;
        if own == Some(&name) {
            at.problem("a service cannot be its own control: its old slot is one already", None);
        } else if all.contains(&name) {
            at.problem(format!("{name} is there twice"), None);
        }
        all.push(name);
    }
    if all.len() > CONTROLS_MAX {
        at.problem(format!("at most {CONTROLS_MAX} controls: each is read at every tick"), None);
    }
    Some(all)
}

/// What a rollback without a person needs and the service lacks.
pub fn missing_for_auto(service: &Service) -> Vec<String> {
    let mut missing = Vec::new();
    match &service.slots {
        Slots::Named(named) => {
            for (slot, spec) in named {
                if spec.health.is_none() {
                    missing.push(format!("slots.{slot} has no health check"));
                }
            }
        }
        Slots::Versions => missing.push("slots by version have no health checks".into()),
    }
    if service.plan.steps.is_empty() {
        missing.push("there is no [[service.rollback]] step".into());
    }
    for step in &service.plan.steps {
        if step.probe.is_none() {
            missing.push(format!("rollback step {} has no probe", step.name));
        }
    }
    if !service.plan.steps.is_empty() && service.plan.steps.iter().all(|step| step.is_remedy()) {
        missing.push("no step moves the traffic: every one is a remedy (heals_within)".into());
    }
    let proves_slot = |step: &Step| step.probe.is_none() || step.probe_of_slots().is_some();
    if !service.plan.steps.is_empty() && !service.plan.steps.iter().any(proves_slot) {
        missing.push("no probe of a rollback step shows which slot has the traffic".into());
    }
    for (flag, plan) in &service.flags {
        for step in plan.steps.iter().filter(|step| step.probe.is_none()) {
            missing.push(format!("step {} of flag {flag} has no probe", step.name));
        }
    }
    missing
}

pub(super) fn named<T, E: std::fmt::Display>(at: &At<'_, '_>, make: impl Fn(String) -> Result<T, E>) -> Option<T> {
    match make(at.string()?.to_owned()) {
        Ok(name) => Some(name),
        Err(why) => {
            at.problem(why.to_string(), None);
            None
        }
    }
}

struct Soak {
    duration: Span,
    tick: Span,
    long: Span,
    long_tick: Span,
    extend_max: Span,
}

fn soak_of(table: Option<Table<'_, '_>>) -> Soak {
    let two_days = Span::from_mins(48 * 60);
    let mut soak = Soak {
        duration: Span::from_mins(30),
        tick: Span::from_secs(15),
        long: Span::ZERO,
        long_tick: Span::from_secs(60),
        extend_max: Span::ZERO,
    };
    let mut extend = None;
    if let Some(t) = table {
        if let Some(found) = t.get("tick").and_then(|at| {
            at.duration(SECOND..=Span::from_secs(60), "shorter is beyond what scrapes bring, longer is too late")
        }) {
            soak.tick = found;
        }
        if let Some(at) = t.get("duration")
            && let Some(found) = at.duration(SECOND.times(10)..=two_days, "a soak takes ten seconds to two days")
        {
            soak.duration = found;
            if found < soak.tick.times(3) {
                at.problem(
                    format!("{found} is shorter than three ticks of {}", soak.tick),
                    Some("make the soak longer or the tick shorter"),
                );
            }
        }
        if let Some(found) =
            t.get("long").and_then(|at| at.duration(Span::ZERO..=two_days, "a long phase takes two days at most"))
        {
            soak.long = found;
        }
        if let Some(found) = t.get("long_tick").and_then(|at| {
            at.duration(SECOND..=Span::from_mins(5), "a breach must be found within minutes in the long phase too")
        }) {
            soak.long_tick = found;
        }
        extend =
            t.get("extend_max").and_then(|at| at.duration(Span::ZERO..=two_days, "an extension is no second soak"));
        t.finish();
    }
    soak.long_tick = soak.long_tick.max(soak.tick);
    soak.extend_max = extend.unwrap_or(soak.duration);
    soak
}

pub(super) fn default_limits() -> Limits {
    // The literals are in range; a default that were not would be seen by every test of this module.
    let (ratio, detect) = (Ratio::try_new(1.5), Ratio::try_new(10.0));
    let (floor, alpha) = (Share::try_new(0.001), Alpha::try_new(0.001));
    match (ratio, detect, floor, alpha) {
        (Ok(ratio), Ok(must_detect), Ok(floor), Ok(alpha)) => Limits {
            ratio,
            floor,
            error_rate: None,
            alpha,
            block: Span::from_secs(5),
            latency_s: Vec::new(),
            quantiles: vec![Quantile::P95, Quantile::P99],
            tail: TailNull::Scaled,
            ticks: 3,
            min_events: 5,
            must_detect,
            custom: Vec::new(),
        },
        _ => unreachable!("the defaults are in range"),
    }
}

fn limits<'s, 't>(table: Table<'s, 't>) -> (Option<Limits>, Option<At<'s, 't>>) {
    let mut limits = default_limits();
    let mut good = true;
    let mut number = |key: &'static str, take: &mut dyn FnMut(f64) -> Result<(), String>| {
        if let Some(at) = table.get(key)
            && let Some(n) = at.number()
            && let Err(why) = take(n)
        {
            at.problem(format!("is {n}, but {why}"), None);
            good = false;
        }
    };
    number("ratio", &mut |n| Ratio::try_new(n).map(|r| limits.ratio = r).map_err(|e| e.to_string()));
    number("must_detect", &mut |n| Ratio::try_new(n).map(|r| limits.must_detect = r).map_err(|e| e.to_string()));
    number("floor", &mut |n| Share::try_new(n).map(|s| limits.floor = s).map_err(|e| e.to_string()));
    number("error_rate", &mut |n| Share::try_new(n).map(|s| limits.error_rate = Some(s)).map_err(|e| e.to_string()));
    number("alpha", &mut |n| Alpha::try_new(n).map(|a| limits.alpha = a).map_err(|e| e.to_string()));
    let nulls = [("scaled", TailNull::Scaled), ("strict", TailNull::Strict)];
    if let Some(tail) = table.get("tail").and_then(|at| at.word(&nulls)) {
        limits.tail = tail;
    }
    if let Some(span) =
        table.get("block").and_then(|at| at.duration(SECOND..=Span::from_mins(5), "a blip is shorter than that"))
    {
        limits.block = span;
    }
    if let Some(n) = table.get("ticks").and_then(|at| at.whole(1..=20, "consecutive ticks above the limit")) {
        limits.ticks = n;
    }
    if let Some(n) = table.get("min_events").and_then(|at| at.whole(1..=100_000, "bad requests that a breach needs")) {
        limits.min_events = n;
    }
    if let Some(all) = table.get("quantiles").and_then(|at| at.list()) {
        limits.quantiles = all.iter().filter_map(|at| at.word(&QUANTILES)).collect();
    }
    for (key, quantile) in QUANTILE_KEYS {
        let longest = Span::from_mins(10);
        if let Some(span) =
            table.get(key).and_then(|at| at.duration(Span::from_millis(1)..=longest, "requests do not take longer"))
        {
            limits.latency_s.push((quantile, span.as_secs_f64()));
        }
    }
    let custom_at = table.get("custom");
    if let Some(custom) = custom_at.as_ref().and_then(At::table) {
        for (name, _, at) in custom.entries() {
            let Some(t) = at.table() else { continue };
            let above = t.get("above").and_then(|at| at.number());
            let below = t.get("below").and_then(|at| at.number());
            t.finish();
            match (above, below) {
                (Some(limit), None) => limits.custom.push(CustomLimit { name, bound: Bound::Above(limit) }),
                (None, Some(limit)) => limits.custom.push(CustomLimit { name, bound: Bound::Below(limit) }),
                _ => at.problem("needs exactly one of above and below", Some("cpu = { above = 0.9 }")),
            }
        }
    }
    table.finish();
    (good.then_some(limits), custom_at)
}

const QUANTILES: [(&str, Quantile); 3] = [("p50", Quantile::P50), ("p95", Quantile::P95), ("p99", Quantile::P99)];
const QUANTILE_KEYS: [(&str, Quantile); 3] =
    [("latency_p50", Quantile::P50), ("latency_p95", Quantile::P95), ("latency_p99", Quantile::P99)];
