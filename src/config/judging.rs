//! How a service is judged: rule, soak, warm-up, limits and what is enough of a baseline. The same keys in a `[[service]]`
//! and in a file of their own, which a backtest tries out.

use super::service::SECOND;
use super::table::{At, Table};
use crate::domain::policy::{
    Alpha, AskDefault, Bound, CustomLimit, Limits, Mode, Policy, Ratio, RuleKind, Share, TailNull, WarmUp,
};
use crate::domain::signal::Quantile;
use crate::domain::time::Span;

/// The keys of the table that say how a service is judged, over `base` where they are not there. And where custom
/// limits stand: whether there are such signals is known later.
pub(super) fn judging<'s, 't>(table: &Table<'s, 't>, base: &Policy) -> (Option<Policy>, Option<At<'s, 't>>) {
    let limits_at = table.get("limits");
    let (limits, limits_custom) = match limits_at.as_ref().and_then(At::table) {
        Some(t) => limits(t, &base.limits),
        None => (Some(base.limits.clone()), None),
    };
    let rules = [("evidence", RuleKind::Evidence), ("threshold", RuleKind::Threshold), ("either", RuleKind::Either)];
    let rule = table.get("rule").and_then(|at| at.word(&rules)).unwrap_or(base.rule);
    let mut policy = Policy { rule, ..base.clone() };
    if let Some(t) = table.get("soak").and_then(|at| at.table()) {
        soak(t, &mut policy);
    }
    if let Some(t) = table.get("warm_up").and_then(|at| at.table()) {
        let longest = Span::from_mins(30);
        let why = "a longer warm-up is a soak without a judge";
        let span = |key, default| t.get(key).and_then(|at| at.duration(Span::ZERO..=longest, why)).unwrap_or(default);
        policy.warm_up =
            WarmUp { errors: span("errors", base.warm_up.errors), latency: span("latency", base.warm_up.latency) };
        t.finish();
    }
    if let Some(t) = table.get("baseline").and_then(|at| at.table()) {
        if let Some(n) = t.get("cells_min").and_then(|at| at.whole(1..=5760, "cells are 15 s; a day has 5760")) {
            policy.baseline_cells_min = n;
        }
        if let Some(at) = t.get("requests_min")
            && let Some(n) = at.number()
        {
            if (1.0..=1e12).contains(&n) {
                policy.baseline_requests_min = n;
            } else {
                at.problem("must be at least 1", None);
            }
        }
        t.finish();
    }
    (limits.map(|limits| Policy { limits, ..policy }), limits_custom)
}

fn soak(t: Table<'_, '_>, policy: &mut Policy) {
    let two_days = Span::from_mins(48 * 60);
    if let Some(found) = t.get("tick").and_then(|at| {
        at.duration(SECOND..=Span::from_secs(60), "shorter is beyond what scrapes bring, longer is too late")
    }) {
        policy.tick = found;
    }
    if let Some(at) = t.get("duration")
        && let Some(found) = at.duration(SECOND.times(10)..=two_days, "a soak takes ten seconds to two days")
    {
        // The extension is as long as the soak, unless something else is said.
        (policy.soak, policy.extend_max) = (found, found);
        if found < policy.tick.times(3) {
            at.problem(
                format!("{found} is shorter than three ticks of {}", policy.tick),
                Some("make the soak longer or the tick shorter"),
            );
        }
    }
    if let Some(found) =
        t.get("long").and_then(|at| at.duration(Span::ZERO..=two_days, "a long phase takes two days at most"))
    {
        policy.long = found;
    }
    if let Some(found) = t.get("long_tick").and_then(|at| {
        at.duration(SECOND..=Span::from_mins(5), "a breach must be found within minutes in the long phase too")
    }) {
        policy.long_tick = found;
    }
    if let Some(found) =
        t.get("extend_max").and_then(|at| at.duration(Span::ZERO..=two_days, "an extension is no second soak"))
    {
        policy.extend_max = found;
    }
    t.finish();
    policy.long_tick = policy.long_tick.max(policy.tick);
}

/// What holds where nothing is said.
pub(super) fn default_policy() -> Policy {
    Policy {
        mode: Mode::Observe,
        rule: RuleKind::Evidence,
        soak: Span::from_mins(30),
        tick: Span::from_secs(15),
        long: Span::ZERO,
        long_tick: Span::from_secs(60),
        extend_max: Span::from_mins(30),
        warm_up: WarmUp { errors: Span::from_secs(30), latency: Span::from_secs(60) },
        limits: default_limits(),
        ask_timeout: Span::from_mins(10),
        ask_default: AskDefault::default(),
        confirm_within: Span::from_secs(60),
        recover_within: Span::from_mins(3),
        baseline_cells_min: 8,
        baseline_requests_min: 1000.0,
        notify_passed: true,
        notify_opened: false,
    }
}

fn default_limits() -> Limits {
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

fn limits<'s, 't>(table: Table<'s, 't>, base: &Limits) -> (Option<Limits>, Option<At<'s, 't>>) {
    let mut limits = base.clone();
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
