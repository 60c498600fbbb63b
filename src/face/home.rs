//! All services at a glance, one service, and the history.

use serde::Serialize;

use super::standing::{self, Standing};
use super::watch::PlanRow;
use super::{Meter, Order};
use crate::domain::time::Timestamp;
use crate::domain::verdict::Outcome;
use crate::domain::view::WatchView;
use crate::words::safe::{path_part, tame};

/// An open watch.
#[derive(Debug, Clone, Serialize)]
pub struct Card {
    pub path: String,
    pub title: String,
    pub badge: &'static str,
    pub tone: &'static str,
    pub sentence: String,
    pub meters: Vec<Meter>,
}

impl Card {
    pub fn of(w: &WatchView, now: Timestamp) -> Card {
        let Standing { badge, tone, sentence } = standing::of(w);
        Card {
            path: path_part(w.id.as_str()),
            title: standing::title(w),
            badge,
            tone,
            sentence: tame(&sentence, 300),
            meters: standing::meters(w, now),
        }
    }
}

/// A watch as a line of a list.
#[derive(Debug, Clone, Serialize)]
pub struct Row {
    pub path: String,
    pub id: String,
    /// With its service.
    pub what: String,
    pub badge: &'static str,
    pub tone: &'static str,
    pub detail: String,
    pub at: String,
}

impl Row {
    pub fn of(w: &WatchView) -> Row {
        let Standing { badge, tone, .. } = standing::of(w);
        let detail = w.outcome.as_ref().and_then(Outcome::detail).unwrap_or_default();
        Row {
            path: path_part(w.id.as_str()),
            id: w.id.to_string(),
            what: standing::title(w),
            badge,
            tone,
            detail: tame(&detail, 160),
            at: w.opened_at.to_string(),
        }
    }
}

#[derive(Debug, Clone, Serialize)]
pub struct Home {
    pub title: &'static str,
    pub badge: &'static str,
    pub tone: &'static str,
    pub sentence: String,
    pub open: Vec<Card>,
    pub open_more: usize,
    pub count: usize,
    pub query: String,
    pub query_part: String,
    pub page: usize,
    pub pages: usize,
    pub services: Vec<ServiceRow>,
    pub recent: Vec<Row>,
    pub orders: Vec<Order>,
}

#[derive(Debug, Clone, Serialize)]
pub struct ServiceRow {
    pub name: String,
    /// Which slot has the traffic.
    pub live: String,
    /// `auto`, `ask`, `observe` or `DISARMED`.
    pub guard: String,
    pub tone: &'static str,
    pub last: Option<LastRow>,
    /// The recorded normal: how good, and what it is.
    pub normal: &'static str,
    pub normal_tone: &'static str,
    pub normal_detail: String,
    /// The smallest multiple of the normal error rate that a soak can show.
    pub detectable: String,
}

#[derive(Debug, Clone, Serialize)]
pub struct LastRow {
    pub path: String,
    pub what: String,
    pub badge: &'static str,
    pub tone: &'static str,
    pub at: String,
}

impl LastRow {
    pub fn of(w: &WatchView) -> LastRow {
        let Standing { badge, tone, .. } = standing::of(w);
        let path = path_part(w.id.as_str());
        LastRow { path, what: standing::what(w), badge, tone, at: w.opened_at.to_string() }
    }
}

#[derive(Debug, Clone, Serialize)]
pub struct ServicePage {
    pub title: String,
    pub guard: String,
    pub tone: &'static str,
    pub sentence: String,
    pub facts: Vec<(String, String)>,
    pub baseline: Vec<String>,
    pub plan: Vec<PlanRow>,
    pub recent: Vec<Row>,
    pub orders: Vec<Order>,
}

#[derive(Debug, Clone, Default, Serialize)]
pub struct History {
    pub title: &'static str,
    pub services: Vec<String>,
    pub outcomes: Vec<OutcomeChoice>,
    pub service: String,
    pub outcome: String,
    pub state: String,
    pub since: String,
    pub until: String,
    pub filtered: bool,
    pub wrong: String,
    pub watches: Vec<Row>,
    /// The query of the page of older ones.
    pub more: String,
}

#[derive(Debug, Clone, Serialize)]
pub struct OutcomeChoice {
    pub word: &'static str,
    pub name: String,
}

/// Outcomes that the history can be narrowed to.
pub fn outcomes() -> Vec<OutcomeChoice> {
    Outcome::WORDS.iter().map(|word| OutcomeChoice { word, name: word.replace('_', " ") }).collect()
}

/// A page that says what is wrong.
#[derive(Debug, Clone, Serialize)]
pub struct Problem {
    pub title: String,
    pub sentence: String,
}

#[derive(Debug, Clone, Serialize)]
pub struct SignIn {
    pub title: &'static str,
    pub sentence: String,
    /// Where to go after it.
    pub to: String,
}
