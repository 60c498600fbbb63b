//! From the journal and the configuration to the models of pages.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde::Deserialize;

use super::Page;
use crate::account::explain::baseline_lines;
use crate::account::{explain as account_explain, glance};
use crate::config::Settings;
use crate::domain::access::Reach;
use crate::domain::policy::Mode;
use crate::domain::service::{Service, Slots};
use crate::domain::switch::{ServiceName, Slot, SwitchId};
use crate::domain::time::{Span, Timestamp};
use crate::edge::api::{Facts, ServiceFacts};
use crate::face::Order;
use crate::face::explained::{Explained, TICKS_SHOWN};
use crate::face::home::{Card, History, Home, LastRow, Row, ServicePage, ServiceRow, outcomes};
use crate::face::report::Report;
use crate::face::watch::{PlanRow, WatchPage};
use crate::journal::{ServiceGlance, WatchFilter};
use crate::words::numbers::counted;
use crate::words::safe::{path_part, tame};

/// Services of one page: what fits into some screens and fifty kilobytes.
const SERVICES_SHOWN: usize = 50;
const OPEN_SHOWN: usize = 12;
const RECENT_SHOWN: u32 = 10;
const HISTORY_SHOWN: u32 = 50;

#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
pub struct HomeQuery {
    #[serde(default)]
    pub q: String,
    #[serde(default)]
    pub page: Option<usize>,
}

fn settings(page: &Page) -> Arc<Settings> {
    page.api.settings.read().unwrap_or_else(std::sync::PoisonError::into_inner).clone()
}

fn facts(page: &Page) -> Facts {
    page.api.facts.lock().unwrap_or_else(std::sync::PoisonError::into_inner).clone()
}

fn said<E: ToString>(error: E) -> String {
    error.to_string()
}

// ---------------------------------------------------------------------- all services

pub fn home(page: &Page, query: &HomeQuery) -> Result<Home, String> {
    let (settings, facts, now) = (settings(page), facts(page), (page.api.now)());
    let reader = &page.api.reader;
    let wanted = query.q.trim().to_lowercase();
    let mut services: Vec<&Service> = settings
        .services
        .iter()
        .filter(|s| wanted.is_empty() || s.name.as_str().to_lowercase().contains(&wanted))
        .collect();
    services.sort_by(|a, b| a.name.cmp(&b.name));
    let pages = services.len().div_ceil(SERVICES_SHOWN).max(1);
    let at = query.page.unwrap_or(1).clamp(1, pages);
    let shown: Vec<&Service> = services.iter().copied().skip((at - 1) * SERVICES_SHOWN).take(SERVICES_SHOWN).collect();
    let names: Vec<ServiceName> = shown.iter().map(|s| s.name.clone()).collect();
    let glances = reader.glances(&names, now - glance::LATELY).map_err(said)?;
    let open_filter = WatchFilter { open_only: true, limit: OPEN_SHOWN as u32, ..WatchFilter::default() };
    let open = reader.watches(&open_filter).map_err(said)?;
    let recent_filter = WatchFilter { ended_only: true, limit: RECENT_SHOWN, ..WatchFilter::default() };
    let recent = reader.watches(&recent_filter).map_err(said)?;
    let undelivered = reader.outbox_stats(now).map_err(said)?.undelivered;
    let disarmed = facts.services.values().filter(|s| !s.armed).count();
    let (badge, tone) = match (facts.armed, disarmed) {
        (false, _) => ("DISARMED", "bad"),
        (true, 0) => ("ARMED", "good"),
        (true, _) => ("ARMED, NOT ALL", "warn"),
    };
    let mut sentence =
        format!("{}, {}", counted(facts.services.len(), "service"), counted(facts.open_watches, "open watch"));
    if facts.armed && disarmed > 0 {
        sentence.push_str(&format!(", {disarmed} disarmed"));
    }
    if undelivered > 0 {
        let undelivered = usize::try_from(undelivered).unwrap_or(0);
        sentence.push_str(&format!(", {} undelivered", counted(undelivered, "notice")));
    }
    sentence.push('.');
    Ok(Home {
        title: "Services",
        badge,
        tone,
        sentence,
        open_more: facts.open_watches.saturating_sub(open.len()),
        open: open.iter().map(|w| Card::of(w, now)).collect(),
        count: services.len(),
        query: tame(query.q.trim(), 64),
        query_part: path_part(query.q.trim()),
        page: at,
        pages,
        services: shown.iter().map(|s| service_row(s, &facts, glances.get(&s.name), now)).collect(),
        recent: recent.iter().map(Row::of).collect(),
        orders: vec![if facts.armed {
            Order::new(
                "disarm",
                "Disarm all",
                "bad",
                "all/",
                "flipback watches on, and moves no traffic at all.".into(),
            )
        } else {
            Order::new("arm", "Arm all", "busy", "all/", "flipback may move traffic again.".into())
        }],
    })
}

fn guard(service: &Service, facts: &Facts) -> (String, &'static str) {
    let armed = facts.armed && facts.services.get(&service.name).is_none_or(|s| s.armed);
    match (armed, service.policy.mode) {
        (false, _) => ("DISARMED".into(), "bad"),
        (true, Mode::Observe) => ("observe".into(), "warn"),
        (true, mode) => (mode.to_string(), "good"),
    }
}

fn live_of<'a>(service: &Service, facts: &'a Facts) -> Option<&'a str> {
    facts.services.get(&service.name).and_then(|ServiceFacts { live, .. }| live.as_deref())
}

fn service_row(service: &Service, facts: &Facts, known: Option<&ServiceGlance>, now: Timestamp) -> ServiceRow {
    let (guard, tone) = guard(service, facts);
    let live = live_of(service, facts);
    let found = glance::of(known.and_then(|known| known.recorded_of(live)), &service.policy, now);
    ServiceRow {
        name: service.name.to_string(),
        live: live.map_or("live slot not known".into(), |live| format!("{live} is live")),
        guard,
        tone,
        last: known.and_then(|known| known.last.as_ref()).map(LastRow::of),
        normal: found.word,
        normal_tone: found.tone,
        normal_detail: found.detail,
        detectable: found.detectable.map_or("–".into(), |ratio| format!("{ratio:.1}× and more")),
    }
}

// ---------------------------------------------------------------------- one service

pub fn service(page: &Page, name: &ServiceName) -> Result<Option<ServicePage>, String> {
    let (settings, facts, now) = (settings(page), facts(page), (page.api.now)());
    let Some(service) = settings.services.iter().find(|s| s.name == *name) else { return Ok(None) };
    let reader = &page.api.reader;
    let (guard, tone) = guard(service, &facts);
    let live = live_of(service, &facts).and_then(|live| Slot::try_new(live).ok());
    let named: Vec<Slot> = match &service.slots {
        Slots::Named(named) => named.keys().cloned().collect(),
        Slots::Versions => Vec::new(),
    };
    let slot = live.clone().or_else(|| named.first().cloned());
    let baseline = match slot {
        None => vec!["none: no slot is known".to_owned()],
        Some(slot) => {
            let other = named.iter().find(|other| **other != slot).unwrap_or(&slot).clone();
            match reader.choose_baseline(&service.baseline_ask(slot, other, now)).map_err(said)? {
                Ok(baseline) => baseline_lines(&baseline),
                Err(why) => vec![format!("none: {why}")],
            }
        }
    };
    let filter = WatchFilter { service: Some(name.clone()), limit: RECENT_SHOWN, ..WatchFilter::default() };
    let recent = reader.watches(&filter).map_err(said)?;
    let policy = &service.policy;
    let armed = guard != "DISARMED";
    let below = format!("services/{}/", path_part(name.as_str()));
    let mut orders = vec![if armed {
        Order::new("disarm", "Disarm", "bad", &below, format!("flipback watches {name} on, and moves nothing of it."))
    } else {
        Order::new("arm", "Arm", "busy", &below, format!("flipback may move the traffic of {name} again."))
    }];
    if !service.plan.steps.is_empty() {
        let says = "Tries everything of the way back that moves no traffic.".to_owned();
        orders.push(Order::new("drill", "Drill", "busy", &below, says));
    }
    let soak = if policy.long.is_zero() {
        policy.soak.to_string()
    } else {
        format!("{}, then {} more", policy.soak, policy.long)
    };
    // As it is configured: what stands for a slot has no value yet, and nothing was done.
    let steps = service.plan.steps.iter().map(|step| PlanRow {
        name: step.name.clone(),
        command: tame(&step.action.to_string(), 400),
        probe: step.probe.as_ref().map_or(String::new(), |probe| tame(&probe.look.to_string(), 300)),
        ..PlanRow::default()
    });
    Ok(Some(ServicePage {
        title: name.to_string(),
        tone,
        sentence: match live {
            Some(live) => format!("{live} has the traffic."),
            None => "Which slot has the traffic is not known yet.".into(),
        },
        facts: vec![
            (
                "Slots".into(),
                if named.is_empty() {
                    "versions".into()
                } else {
                    named.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ")
                },
            ),
            ("Soak".into(), soak),
            ("Tick".into(), policy.tick.to_string()),
            ("Limit".into(), format!("{}× the recorded normal, rule {}", policy.limits.ratio.get(), policy.rule)),
            ("Runbook".into(), service.runbook.clone().unwrap_or_else(|| "none".into())),
        ],
        guard,
        baseline,
        plan: steps.collect(),
        recent: recent.iter().map(Row::of).collect(),
        orders,
    }))
}

// ---------------------------------------------------------------------- one watch

/// With whether it is open: what has ended changes no more.
pub fn watch(page: &Page, id: &SwitchId) -> Result<Option<(WatchPage, bool)>, String> {
    let Some(account) = page.api.reader.account(id).map_err(said)? else { return Ok(None) };
    let now = (page.api.now)();
    let beside = (page.beside)(&account.view, now);
    Ok(Some((WatchPage::new(&account, beside, now), account.view.outcome.is_none())))
}

/// An explanation with the watch it is of.
#[derive(serde::Serialize)]
pub struct ExplainPage {
    title: String,
    id: String,
    path: String,
    x: Explained,
}

pub fn explain(page: &Page, id: &SwitchId) -> Result<Option<ExplainPage>, String> {
    let Some(account) = page.api.reader.account(id).map_err(said)? else { return Ok(None) };
    let x = Explained::new(account_explain::of(&account), TICKS_SHOWN);
    Ok(Some(ExplainPage { title: format!("Why {id}"), id: id.to_string(), path: path_part(id.as_str()), x }))
}

pub fn report(page: &Page, id: &SwitchId, md: bool) -> Result<Option<String>, String> {
    let Some(account) = page.api.reader.account(id).map_err(said)? else { return Ok(None) };
    let report = Report::new(&account, (page.api.now)());
    let made = if md { page.html.report_md(&report) } else { page.html.report_html(&report) };
    made.map(Some)
}

// ---------------------------------------------------------------------- history

pub fn history(page: &Page, query: &BTreeMap<String, String>) -> Result<History, String> {
    let settings = settings(page);
    let of = |name: &str| query.get(name).map(|text| text.trim().to_owned()).unwrap_or_default();
    let mut model = History {
        title: "History",
        services: settings.services.iter().take(200).map(|s| s.name.to_string()).collect(),
        outcomes: outcomes(),
        service: of("service"),
        outcome: of("outcome"),
        state: of("state"),
        since: of("since"),
        until: of("until"),
        ..History::default()
    };
    let all = [&model.service, &model.outcome, &model.state, &model.since, &model.until];
    model.filtered = all.iter().any(|text| !text.is_empty());
    let filter = match filter(&model, query.get("before")) {
        Ok(filter) => filter,
        Err(wrong) => {
            model.wrong = wrong;
            return Ok(model);
        }
    };
    let watches = page.api.reader.watches(&filter).map_err(said)?;
    if watches.len() == HISTORY_SHOWN as usize
        && let Some(last) = watches.last()
    {
        let kept = [
            ("service", &model.service),
            ("outcome", &model.outcome),
            ("state", &model.state),
            ("since", &model.since),
            ("until", &model.until),
        ];
        let kept =
            kept.iter().filter(|(_, text)| !text.is_empty()).map(|(name, text)| format!("{name}={}", path_part(text)));
        model.more = kept.chain([format!("before={}", path_part(last.id.as_str()))]).collect::<Vec<_>>().join("&");
    }
    model.watches = watches.iter().map(Row::of).collect();
    Ok(model)
}

fn filter(model: &History, before: Option<&String>) -> Result<WatchFilter, String> {
    let some = |text: &str| (!text.is_empty()).then(|| text.to_owned());
    let day = |text: &str, name: &str| -> Result<Option<Timestamp>, String> {
        let Some(text) = some(text) else { return Ok(None) };
        let at = crate::edge::api::parse::instant(name, &format!("{text}T00:00:00Z"));
        at.map(Some).map_err(|_| format!("{name}: {:?} is no day like 2026-11-21", tame(&text, 20)))
    };
    if !model.outcome.is_empty() && !model.outcomes.iter().any(|known| known.word == model.outcome) {
        return Err(format!("{:?} is no outcome", tame(&model.outcome, 40)));
    }
    let service =
        some(&model.service).map(ServiceName::try_new).transpose().map_err(|why| format!("Service: {why}"))?;
    let before = before.map(|id| SwitchId::try_new(id.clone())).transpose().map_err(|why| format!("before: {why}"))?;
    Ok(WatchFilter {
        service,
        open_only: model.state == "open",
        ended_only: model.state == "ended",
        outcome: some(&model.outcome),
        since: day(&model.since, "From")?,
        // The whole of the last day.
        until: day(&model.until, "To")?.map(|at| at + Span::from_mins(24 * 60)),
        limit: HISTORY_SHOWN,
        before,
        reach: Reach::All,
    })
}
