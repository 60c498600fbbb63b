//! Where a service's counts come from.

use std::fmt;

use serde::{Deserialize, Serialize};

use super::action::{Exec, HttpCall, Variables, fill};
use super::time::Span;

#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Origin {
    /// Range and instant queries to the configured server.
    #[default]
    Prometheus,
    /// flipback reads the slots' own metrics pages.
    Scrape(Scraping),
    /// A command, or an HTTP service, that answers with counts.
    Counts(Box<CountsAsk>),
}

impl Origin {
    pub fn is_prometheus(&self) -> bool {
        *self == Origin::Prometheus
    }

    /// Whether Prometheus is asked for anything at all.
    pub fn needs_prometheus(&self) -> bool {
        match self {
            Origin::Prometheus => true,
            Origin::Scrape(scraping) => scraping.normal == NormalFrom::Prometheus,
            Origin::Counts(_) => false,
        }
    }

    /// Longer than a tick's answer may take otherwise.
    pub fn answers_within(&self) -> Option<Span> {
        match self {
            Origin::Prometheus | Origin::Scrape(_) => None,
            Origin::Counts(ask) => Some(ask.timeout),
        }
    }

    pub fn word(&self) -> &'static str {
        match self {
            Origin::Prometheus => "prometheus",
            Origin::Scrape(_) => "scrape",
            Origin::Counts(ask) => match ask.way {
                CountsWay::Command(_) => "command",
                CountsWay::Http(_) => "http",
            },
        }
    }
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Scraping {
    /// While a switch is watched. Otherwise every 15 s is enough for the normal.
    pub every: Span,
    pub normal: NormalFrom,
}

/// Who remembers the normal of what is scraped.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum NormalFrom {
    Scrape,
    /// The pages are read only while a switch is watched: a fast lane beside the server.
    Prometheus,
}

/// A question for counts.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CountsAsk {
    pub way: CountsWay,
    /// The length of its cells: ticks are raised to it.
    pub every: Span,
    /// How late a cell is complete.
    pub settle: Span,
    pub timeout: Span,
    /// A template that makes of an answer the one that is documented.
    pub answer: Option<String>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum CountsWay {
    Command(Exec),
    Http(HttpCall),
}

impl CountsAsk {
    /// Whether the slots are told apart.
    pub fn by_slot(&self) -> bool {
        const SLOT: &str = "$slot";
        match &self.way {
            CountsWay::Command(exec) => exec.argv.iter().any(|element| element.contains(SLOT)),
            CountsWay::Http(call) => {
                let body = call.body.as_deref().unwrap_or_default();
                let mut headers = call.target.headers.values();
                call.target.url.contains(SLOT) || body.contains(SLOT) || headers.any(|value| value.contains(SLOT))
            }
        }
    }

    /// The question with everything in its place.
    pub fn resolve(&self, vars: &Variables) -> CountsWay {
        match &self.way {
            CountsWay::Command(exec) => {
                let argv = exec.argv.iter().map(|element| fill(element, vars, str::to_owned));
                CountsWay::Command(Exec { argv: argv.collect(), env: exec.env.clone() })
            }
            CountsWay::Http(call) => CountsWay::Http(call.resolve(vars)),
        }
    }
}

impl fmt::Display for CountsWay {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            CountsWay::Command(exec) => exec.fmt(f),
            CountsWay::Http(call) => write!(f, "{} {}", call.method, call.target.url),
        }
    }
}
