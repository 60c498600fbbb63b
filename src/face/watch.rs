//! One watch.

use serde::Serialize;

use super::standing::{self, Standing};
use super::{Meter, Order};
use crate::account::charts;
use crate::account::explain::{baseline_lines, rule_lines};
use crate::domain::account::{Account, ReadCell};
use crate::domain::plan::{AttemptState, StepOutcome};
use crate::domain::signal::Quantile;
use crate::domain::time::Timestamp;
use crate::domain::view::{PhaseWord, TimelineEvent, WatchView};
use crate::judge::quantile::quantile;
use crate::words::numbers::{number, one_in, percent, thousands};
use crate::words::rows::{SignalRow, StepRow, facts, signal_row, step_row};
use crate::words::safe::{path_part, tame};

/// Readings on the page: a quarter of an hour in quarter minutes. All of them are in the report.
const READINGS_SHOWN: usize = 60;

#[derive(Debug, Clone, Serialize)]
pub struct WatchPage {
    pub id: String,
    /// The id as a part of a path.
    pub path: String,
    pub service: String,
    pub title: String,
    pub badge: &'static str,
    pub tone: &'static str,
    pub sentence: String,
    pub meters: Vec<Meter>,
    /// What is waited for, or is to be done.
    pub next: String,
    pub charts: Vec<Picture>,
    pub signals: Vec<SignalRow>,
    pub plan: Vec<PlanRow>,
    pub attempts: Vec<StepRow>,
    pub story: Vec<StoryRow>,
    pub readings: Vec<ReadingRow>,
    pub readings_more: usize,
    pub facts: Vec<(String, String)>,
    pub baseline: Vec<String>,
    pub rule: Vec<String>,
    pub queries: Vec<Query>,
    pub links: Vec<Link>,
    pub orders: Vec<Order>,
}

#[derive(Debug, Clone, Serialize)]
pub struct Picture {
    pub svg: String,
}

#[derive(Debug, Clone, Default, Serialize)]
pub struct PlanRow {
    pub name: String,
    pub command: String,
    pub probe: String,
    pub remark: String,
    pub state: String,
    pub tone: &'static str,
}

#[derive(Debug, Clone, Serialize)]
pub struct StoryRow {
    pub at: String,
    pub clock: String,
    pub kind: String,
    pub text: String,
    pub tone: &'static str,
}

#[derive(Debug, Clone, Serialize)]
pub struct ReadingRow {
    pub to: String,
    pub slot: String,
    pub requests: String,
    pub bad: String,
    pub rate: String,
    pub p95: String,
    pub p99: String,
    pub evidence: String,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Query {
    pub name: String,
    pub query: String,
    pub link: Option<String>,
}

impl Query {
    fn tame(&self) -> Query {
        let link = self.link.as_ref().map(|link| tame(link, 4000));
        Query { name: tame(&self.name, 80), query: tame(&self.query, 2000), link }
    }
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Link {
    pub name: String,
    pub url: String,
}

/// What the edge knows besides.
#[derive(Debug, Clone, Default)]
pub struct Beside {
    pub queries: Vec<Query>,
    pub links: Vec<Link>,
}

impl WatchPage {
    pub fn new(account: &Account, beside: Beside, now: Timestamp) -> WatchPage {
        let w = &account.view;
        let Standing { badge, tone, sentence } = standing::of(w);
        let evidence = w.telling();
        let (readings, readings_more) = readings(account, READINGS_SHOWN);
        let mut links = beside.links;
        let runbook = w.runbook.iter().map(|url| Link { name: "Runbook".into(), url: tame(url, 500) });
        links.extend(runbook);
        WatchPage {
            id: w.id.to_string(),
            path: path_part(w.id.as_str()),
            service: w.switch.service.to_string(),
            title: standing::title(w),
            badge,
            tone,
            sentence: tame(&sentence, 500),
            meters: standing::meters(w, now),
            next: next(w),
            // What they show in words is in them.
            charts: charts::of_watch(account).iter().map(|chart| Picture { svg: chart.svg() }).collect(),
            // A drill reads nothing.
            signals: if w.is_drill() { Vec::new() } else { evidence.iter().map(|e| signal_row(e, w)).collect() },
            plan: plan(w),
            attempts: w.steps.iter().map(step_row).collect(),
            story: w.timeline.iter().map(story).collect(),
            readings,
            readings_more,
            facts: facts(w),
            baseline: w.baseline.as_ref().map_or_else(|| vec!["none".into()], baseline_lines),
            rule: rule_lines(w),
            queries: beside.queries.iter().map(Query::tame).collect(),
            links,
            orders: orders(w),
        }
    }
}

fn next(w: &WatchView) -> String {
    if let Some(pause) = &w.paused {
        return format!("paused {} until {}: nothing is judged", tame(&pause.by, 80), pause.until);
    }
    if let Some(asked) = &w.asked {
        let without = match asked.default {
            crate::domain::policy::AskDefault::Hold => "nothing is moved",
            crate::domain::policy::AskDefault::RollBack => "it is rolled back",
        };
        return format!("Approve or decline until {}; without an answer {without}.", asked.until);
    }
    let too_little = w
        .detectable
        .map(|ratio| format!("This traffic can show an error rate of {ratio:.1}× the normal or more within the soak."));
    if w.outcome.is_none() { too_little.unwrap_or_default() } else { String::new() }
}

/// The plan with what became of each step.
pub(super) fn plan(w: &WatchView) -> Vec<PlanRow> {
    let row = |(i, step): (usize, &crate::domain::view::Planned)| {
        // Steps of the way home and after a passed soak have other numbers.
        let last = w.steps.iter().rev().find(|record| usize::from(record.attempt.step) == i);
        let (state, tone) = match last.map(|record| (&record.outcome, &record.result)) {
            None => ("ready", "quiet"),
            Some((Some(StepOutcome::Done), _)) => ("done", "good"),
            Some((Some(StepOutcome::Failed(_)), _)) => ("failed", "bad"),
            Some((Some(StepOutcome::Stuck(_)), _)) => ("stuck", "bad"),
            Some((None, None)) => ("running", "busy"),
            Some((None, Some(AttemptState::Ended(_)))) => ("verifying", "busy"),
            Some((None, Some(_))) => ("not known", "warn"),
        };
        let remark = match (step.remedy, step.after_failure) {
            (true, _) => "a remedy: the traffic stays",
            (false, true) => "only if a step before it failed",
            (false, false) => "",
        };
        PlanRow {
            name: tame(&step.name, 60),
            command: tame(&step.command, 400),
            probe: step.probe.as_ref().map_or(String::new(), |probe| tame(probe, 300)),
            remark: remark.into(),
            state: state.into(),
            tone,
        }
    };
    w.plan.iter().enumerate().map(row).collect()
}

pub(super) fn story(e: &TimelineEvent) -> StoryRow {
    let at = e.at.to_string();
    let tone = match e.kind.as_str() {
        "breached" | "step_failed" | "stuck" | "drift" | "blind" => "bad",
        "step_done" | "fast_passed" | "sees_again" => "good",
        _ => "",
    };
    let clock = at.chars().skip(11).take(8).chain(['Z']).collect();
    StoryRow { clock, at, kind: tame(&e.kind.replace('_', " "), 40), text: tame(&e.text, 600), tone }
}

/// The newest readings with what was said then, and how many there are before them.
pub fn readings(account: &Account, max: usize) -> (Vec<ReadingRow>, usize) {
    let shown = account.readings.iter().rev().take(max).map(|read| reading(account, read)).collect();
    (shown, account.readings.len().saturating_sub(max))
}

fn reading(account: &Account, read: &ReadCell) -> ReadingRow {
    let counts = read.cell.counts.value();
    let none = || "–".to_owned();
    let of = |q: Quantile| {
        let found = read.cell.latency.value().and_then(|buckets| quantile(buckets, q.q()));
        found.map_or_else(none, |s| number(&crate::domain::signal::Signal::Latency(q), s))
    };
    let said = if read.slot == account.view.switch.new { account.said_after(read) } else { None };
    let said = said.and_then(|said| said.ln_e);
    ReadingRow {
        to: read.cell.to.to_string(),
        slot: read.slot.to_string(),
        requests: counts.map_or_else(none, |c| thousands(c.requests())),
        bad: counts.map_or_else(none, |c| thousands(c.bad())),
        rate: counts.and_then(|c| c.rate()).map_or_else(none, percent),
        p95: of(Quantile::P95),
        p99: of(Quantile::P99),
        evidence: said.map_or_else(none, |ln_e| one_in(libm::exp(ln_e.clamp(0.0, 300.0)))),
    }
}

/// What makes sense now; the engine has the last word.
fn orders(w: &WatchView) -> Vec<Order> {
    let below = format!("watches/{}/", path_part(w.id.as_str()));
    let order = |verb, label, tone, says: String| Order::new(verb, label, tone, &below, says);
    let back = &w.back_to;
    let rollback = |says: &str| order("rollback", "Roll back", "bad", format!("{says} {back}."));
    let ack = || order("ack", "I look after it", "quiet", "No more reminders of what was told so far.".into());
    if let Some(outcome) = &w.outcome {
        let moved = w.recovery.is_some() || w.is_drill();
        let mut all = Vec::new();
        if !moved && !w.plan.is_empty() {
            all.push(rollback("Moves the traffic, which was left where it is, back to"));
        }
        if outcome.word() != "passed" && !w.is_drill() {
            all.push(ack());
        }
        return all;
    }
    let cancel = || order("cancel", "End the watch", "bad", "Nobody judges this switch any more.".into());
    match w.phase {
        PhaseWord::Asking => vec![
            order("approve", "Approve", "bad", format!("Moves the traffic back to {back} now.")),
            order("decline", "Decline", "quiet", "Leaves the traffic where it is, and ends the watch.".into()),
            ack(),
        ],
        PhaseWord::CuttingOver | PhaseWord::Soaking => {
            let mut all = Vec::new();
            if !w.plan.is_empty() {
                all.push(rollback("Moves the traffic back now to"));
            }
            all.push(match w.paused {
                Some(_) => order("resume", "Resume", "busy", "Judges again.".into()),
                None => {
                    order("pause", "Pause", "quiet", "Judges nothing for a while; the soak is longer by that.".into())
                        .asks("for", "For how long", "15m")
                }
            });
            let extend = order("extend", "Extend", "quiet", "Makes the soak longer.".into());
            all.push(extend.asks("by", "By how much", "15m"));
            all.push(cancel());
            all
        }
        PhaseWord::RollingBack | PhaseWord::Recovering | PhaseWord::Healing => vec![ack()],
        PhaseWord::Concluding | PhaseWord::Drilling | PhaseWord::Ended => Vec::new(),
    }
}
