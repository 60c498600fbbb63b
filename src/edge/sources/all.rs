//! Every way in which counts come, behind one door.

use super::client::{Prometheus, SourceError};
use super::examine::{Finding, Level, finding};
use super::observe::Answer;
use super::scrape::Scraper;
use super::{counts, replicas::Replicas};
use crate::config::settings::{BACKFILL, PrometheusSettings, Settings};
use crate::domain::origin::{NormalFrom, Origin};
use crate::domain::service::Service;
use crate::domain::signal::{FailureKind, Observation, ReadFailure};
use crate::domain::time::{Span, Timestamp};
use crate::engine::message::{CommandId, ObserveAsk, RecordAsk, RecordedCells};

#[derive(Clone)]
pub struct Sources {
    prometheus: Option<Replicas>,
    scraper: Scraper,
    backfill: Span,
}

/// Questions that are answered together.
pub enum Batch {
    Prometheus(Vec<(CommandId, ObserveAsk)>),
    Scrape(CommandId, Box<ObserveAsk>),
    Counts(CommandId, Box<ObserveAsk>),
}

impl Sources {
    pub fn new(settings: &Settings, scraper: Scraper, stepped_ms: fn() -> i64) -> Result<Sources, SourceError> {
        let of = |settings: &PrometheusSettings| Replicas::new(settings, stepped_ms);
        let prometheus = settings.prometheus.as_ref().map(of).transpose()?;
        let backfill = settings.prometheus.as_ref().map_or(BACKFILL, |p| p.backfill);
        Ok(Sources { prometheus, scraper, backfill })
    }

    /// How far back the first recording goes.
    pub fn backfill(&self) -> Span {
        self.backfill
    }

    /// The pages of a configuration, from now on.
    pub fn configure(&self, services: &[Service]) -> Result<(), String> {
        self.scraper.configure(services)
    }

    /// The same pages, with another configuration's servers.
    pub fn scraper(&self) -> Scraper {
        self.scraper.clone()
    }

    /// A slow source keeps nobody else waiting.
    pub fn batches(asks: Vec<(CommandId, ObserveAsk)>) -> Vec<Batch> {
        let (mut batches, mut together) = (Vec::new(), Vec::new());
        for (id, ask) in asks {
            match ask.metrics.from {
                Origin::Prometheus => together.push((id, ask)),
                Origin::Scrape(_) => batches.push(Batch::Scrape(id, Box::new(ask))),
                Origin::Counts(_) => batches.push(Batch::Counts(id, Box::new(ask))),
            }
        }
        if !together.is_empty() {
            batches.push(Batch::Prometheus(together));
        }
        batches
    }

    /// Every question is answered, in time, one way or another.
    pub async fn observe(&self, now: fn() -> Timestamp, batch: Batch) -> Vec<Answer> {
        match batch {
            Batch::Prometheus(asks) => match &self.prometheus {
                Some(prometheus) => prometheus.observe(now, asks).await,
                None => asks.into_iter().map(|(id, _)| (id, Observation::Failed(no_server()), None)).collect(),
            },
            Batch::Scrape(id, ask) => vec![self.scraper.observe(&id, &ask)],
            Batch::Counts(id, ask) => match &ask.metrics.from {
                Origin::Counts(of) => vec![counts::observe(&id, &ask, of, now).await],
                Origin::Prometheus | Origin::Scrape(_) => Vec::new(),
            },
        }
    }

    /// Cells after `from`, up to now.
    pub async fn record(
        &self,
        ask: &RecordAsk,
        from: Timestamp,
        width: Span,
        now: fn() -> Timestamp,
    ) -> Result<Vec<RecordedCells>, ReadFailure> {
        match &ask.metrics.from {
            Origin::Counts(of) => counts::record(ask, of, from, now).await,
            Origin::Scrape(scraping) if scraping.normal == NormalFrom::Scrape => {
                Ok(self.scraper.record(ask, from, width))
            }
            Origin::Prometheus | Origin::Scrape(_) => match &self.prometheus {
                Some(prometheus) => prometheus.record(ask, from, width).await,
                None => Err(no_server()),
            },
        }
    }

    /// `check --live`.
    pub async fn examine(&self, service: &Service, now: fn() -> Timestamp) -> Vec<Finding> {
        let mut findings = match &service.metrics.from {
            Origin::Counts(of) => counts::examine(service, of, now).await,
            Origin::Scrape(_) => self.scraper.examine(service).await,
            Origin::Prometheus => Vec::new(),
        };
        if service.metrics.from.needs_prometheus() {
            match &self.prometheus {
                Some(prometheus) => findings.extend(prometheus.examine(service).await),
                None => findings.push(finding("prometheus", Level::Error, no_server().to_string())),
            }
        }
        findings
    }

    /// The values of an instant query by one of its labels: for detectors.
    pub async fn by_label(&self, query: &str, label: &str) -> Result<Vec<(String, f64)>, ReadFailure> {
        match &self.prometheus {
            Some(prometheus) => prometheus.first().by_label(query, label).await,
            None => Err(no_server()),
        }
    }
}

/// The client of the first server, for what looks back.
pub fn client(settings: &Settings) -> Result<Prometheus, SourceError> {
    match &settings.prometheus {
        Some(prometheus) => Prometheus::new(prometheus),
        None => Err(SourceError::new("there is no [prometheus] that remembers the past")),
    }
}

fn no_server() -> ReadFailure {
    ReadFailure { kind: FailureKind::Rejected, detail: "there is no [prometheus] in the configuration".into() }
}
