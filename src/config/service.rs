//! One `[[service]]`: slots, metrics, policy and plan.

use std::collections::BTreeMap;

use super::detect;
use super::judging::{default_policy, judging};
use super::metrics::service_metrics;
use super::read::http_url;
use super::settings::DetectorSettings;
use super::slots::slots;
use super::step::{Purpose, flags, plan};
use super::table::At;
use crate::domain::origin::Origin;
use crate::domain::plan::{Plan, Step};
use crate::domain::policy::{AskDefault, Mode, Policy};
use crate::domain::service::{Metrics, Service, Slots};
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
    let (judged_by, limits_custom) = judging(&table, &default_policy());
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
            ask_timeout,
            ask_default,
            confirm_within,
            recover_within,
            notify_passed,
            notify_opened,
            ..judged_by?
        },
        plan: way_back?,
        after_passed: after_passed?,
        flags: flags?,
        unverified,
        controls: controls.unwrap_or_default(),
        runbook,
    };
    pages_fit(at, &service);
    if let Some(at) = detect_at {
        detectors.extend(detect::detectors(&at, &service));
    }
    custom_limits_exist(limits_custom.as_ref(), &service.policy, &service.metrics);
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

/// Pages are there where they are read, and only there.
fn pages_fit(at: &At<'_, '_>, service: &Service) {
    let scraped = matches!(service.metrics.from, Origin::Scrape(_));
    match &service.slots {
        Slots::Versions if scraped => {
            let help = "slots.blue = { scrape = \"http://127.0.0.1:9001/metrics\" }, one for each slot";
            at.problem("slots by version have no pages to scrape", Some(help));
        }
        Slots::Versions => {}
        Slots::Named(named) => {
            for (slot, spec) in named {
                if scraped && spec.scrape.is_empty() {
                    let help = format!("slots.{slot} = {{ scrape = \"http://127.0.0.1:9001/metrics\" }}");
                    at.problem(format!("slots.{slot} has no page to scrape"), Some(&help));
                } else if !scraped && !spec.scrape.is_empty() {
                    let why = format!("slots.{slot}.scrape is not read: the source is {}", service.metrics.from.word());
                    at.problem(why, Some("source = \"scrape\" in its metrics, or leave the page away"));
                }
            }
        }
    }
}

/// A limit is for a signal that is read.
pub(super) fn custom_limits_exist(at: Option<&At<'_, '_>>, policy: &Policy, metrics: &Metrics) {
    let Some(at) = at else { return };
    for limit in &policy.limits.custom {
        if !metrics.custom.iter().any(|(n, _)| *n == limit.name) {
            let known: Vec<_> = metrics.custom.iter().map(|(n, _)| n.as_str()).collect();
            at.problem(
                format!("there is a limit for {:?}, but no such custom signal", limit.name),
                Some(&format!(
                    "the custom signals of metrics {} are: {}",
                    metrics.name,
                    if known.is_empty() { "none".into() } else { known.join(", ") }
                )),
            );
        }
    }
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
