//! A post-mortem's draft: what happened, what it cost, why it was decided so, and everything that it rests on, in one
//! file that needs nothing else.

use serde::Serialize;

use super::explained::Explained;
use super::standing::{self, Standing};
use super::watch::{PlanRow, ReadingRow, StoryRow, plan, readings, story};
use crate::account::{charts, explain};
use crate::chart::Chart;
use crate::domain::account::Account;
use crate::domain::plan::AttemptState;
use crate::domain::time::Timestamp;
use crate::domain::view::WatchView;
use crate::words::numbers::{counted, duration, percent, thousands};
use crate::words::rows::{SignalRow, StepRow, facts, sentence, signal_row, step_row};
use crate::words::safe::{clean, tame};

#[derive(Debug, Clone, Serialize)]
pub struct Report {
    pub title: String,
    pub id: String,
    pub badge: &'static str,
    pub tone: &'static str,
    pub sentence: String,
    pub made_at: String,
    pub build: &'static str,
    /// Sentences to begin from.
    pub draft: Vec<String>,
    /// Times and costs.
    pub figures: Vec<(String, String)>,
    pub charts: Vec<Drawn>,
    pub signals: Vec<SignalRow>,
    pub story: Vec<StoryRow>,
    pub plan: Vec<PlanRow>,
    pub attempts: Vec<StepRow>,
    pub x: Explained,
    pub facts: Vec<(String, String)>,
    pub readings: Vec<ReadingRow>,
    pub readings_more: usize,
    pub style: &'static str,
}

#[derive(Debug, Clone, Serialize)]
pub struct Drawn {
    pub title: String,
    pub svg: String,
    pub words: String,
    pub sparkline: String,
}

impl Drawn {
    pub fn all_of(account: &Account) -> Vec<Drawn> {
        let draw = |chart: &Chart| Drawn {
            title: chart.title.clone(),
            svg: chart.svg(),
            words: chart.words(),
            sparkline: chart.sparkline(),
        };
        charts::of_watch(account).iter().map(draw).collect()
    }
}

/// Rows of one appendix: an hour in ticks of a second, of both slots. More is for `-o json`.
const ROWS_MAX: usize = 8_000;

impl Report {
    pub fn new(account: &Account, made_at: Timestamp) -> Report {
        let w = &account.view;
        let Standing { badge, tone, sentence } = standing::of(w);
        let evidence = w.telling();
        let (readings, readings_more) = readings(account, ROWS_MAX);
        Report {
            title: standing::title(w),
            id: w.id.to_string(),
            badge,
            tone,
            sentence: tame(&sentence, 500),
            made_at: made_at.to_string(),
            build: env!("CARGO_PKG_VERSION"),
            draft: draft(account),
            figures: figures(account),
            charts: Drawn::all_of(account),
            signals: if w.is_drill() { Vec::new() } else { evidence.iter().map(|e| signal_row(e, w)).collect() },
            story: w.timeline.iter().map(story).collect(),
            plan: plan(w),
            attempts: attempts(w),
            x: Explained::new(explain::of(account), ROWS_MAX),
            facts: facts(w),
            readings,
            readings_more,
            style: super::html::STYLE,
        }
    }
}

/// With all of their output.
fn attempts(w: &WatchView) -> Vec<StepRow> {
    w.steps
        .iter()
        .map(|step| {
            let output = match &step.result {
                Some(AttemptState::Ended(result)) => Some(clean(&result.output)).filter(|text| !text.is_empty()),
                _ => None,
            };
            StepRow { output, ..step_row(step) }
        })
        .collect()
}

fn draft(account: &Account) -> Vec<String> {
    let w = &account.view;
    let (old, new) = (&w.switch.old, &w.switch.new);
    let version = w.switch.version.as_ref().map_or(String::new(), |v| format!(" ({v})"));
    let source = tame(&w.switch.source, 80);
    let verb = if w.switch.detected { "was seen" } else { "was announced" };
    if w.is_drill() {
        return vec![format!("At {} a drill of {} began.", w.opened_at, w.switch.service)];
    }
    let mut all = vec![format!(
        "At {} the switch of {} from {old} to {new}{version} {verb} by {source}.",
        w.opened_at, w.switch.service
    )];
    if let Some(breach) = &w.breach {
        let broken: Vec<String> = breach
            .evidence
            .iter()
            .filter(|e| e.state == crate::domain::verdict::SignalState::Breached)
            .map(|e| tame(&sentence(e), 300))
            .collect();
        all.push(format!("From {} on, {}.", breach.since, broken.join("; ")));
        all.push(format!("flipback called it a breach at {}.", breach.at));
    }
    if let Some(recovery) = &w.recovery {
        all.push(format!("{} was proven to have the traffic at {}.", w.back_to, recovery.proven_at));
    }
    all.push(standing::of(w).sentence);
    all.into_iter().map(|line| tame(&line, 1200)).collect()
}

fn figures(account: &Account) -> Vec<(String, String)> {
    let w = &account.view;
    let between = |from: Timestamp, to: Timestamp| duration(to.since(from).as_secs_f64());
    let mut rows: Vec<(String, String)> = Vec::new();
    let mut row = |name: &str, text: String| rows.push((name.to_owned(), text));
    if let Some(breach) = &w.breach {
        row("Onset to decision", between(breach.since, breach.at));
        if let Some(recovery) = &w.recovery {
            row("Decision to proof", between(breach.at, recovery.proven_at));
            row("Onset to proof", between(breach.since, recovery.proven_at));
        }
    }
    let (mut requests, mut bad) = (0.0, 0.0);
    for counts in account.of_slot(&w.switch.new).filter_map(|read| read.cell.counts.value()) {
        requests += counts.requests();
        bad += counts.bad();
    }
    if requests > 0.0 {
        let what = format!("{} of {}, {}", thousands(bad), thousands(requests), percent(bad / requests));
        row("Bad requests on the new slot", what);
        if let Some(normal) = w.baseline.as_ref().and_then(|b| b.counts.rate()) {
            let more = (bad - normal * requests).max(0.0);
            row("More than the recorded normal", format!("about {}", thousands(more)));
        }
    }
    row("Ticks", counted(w.ticks as usize, "tick"));
    row("Steps run", counted(w.steps.len(), "step"));
    rows
}
