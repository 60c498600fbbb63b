//! flipback's own metrics, in base units and with bounded labels.

use std::fmt::Write as _;
use std::sync::atomic::{AtomicI64, AtomicU64};

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::encoding::text::encode;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::{Histogram, exponential_buckets};
use prometheus_client::metrics::info::Info;
use prometheus_client::registry::{Registry, Unit};

use crate::domain::notice::NoticeReason;
use crate::domain::signal::FailureKind;
use crate::domain::verdict::Outcome;
use crate::domain::view::WatchView;

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct Reason {
    pub reason: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct Word {
    pub outcome: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct OfService {
    service: String,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct OfSignal {
    service: String,
    signal: String,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct OfState {
    pub phase: &'static str,
    pub verdict: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct OfResult {
    pub result: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct OfDetector {
    pub service: String,
    pub detector: String,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct OfHook {
    pub webhook: String,
    pub result: &'static str,
}

/// How an attempt of a step ends.
const STEP_ENDS: [&str; 7] = ["done", "failed", "signalled", "timed_out", "not_started", "cancelled", "ambiguous"];

/// Why a request is not let in.
const REFUSALS: [&str; 3] = ["unauthorized", "forbidden", "too_many"];

type Float = Gauge<f64, AtomicU64>;

pub struct Metrics {
    registry: Registry,
    pub ticks: Counter,
    pub readings_failed: Family<Reason, Counter>,
    pub outcomes: Family<Word, Counter>,
    pub steps: Family<Reason, Counter>,
    /// Decisions that people were told of.
    pub decisions: Family<Reason, Counter>,
    pub reload_good: Gauge,
    pub reloads: Family<OfResult, Counter>,
    pub reloaded_at_seconds: Float,
    /// How late the loop came to what was due.
    pub loop_lag_seconds: Histogram,
    pub heartbeats: Counter,
    pub heartbeats_failed: Counter,
    /// Requests that were not answered: who was not known, not allowed, too many.
    pub refused: Family<Reason, Counter>,
    /// 1 while new switches are refused for want of room.
    pub disk_low: Gauge,
    pub commit_seconds: Histogram,
    pub clock_skew_seconds: Float,
    pub detector_up: Family<OfDetector, Gauge>,
    pub hooks: Family<OfHook, Counter>,
    open_watches: Gauge,
    by_state: Family<OfState, Gauge>,
    armed: Gauge,
    undelivered: Gauge<i64, AtomicI64>,
    oldest_age_seconds: Float,
    evidence: Family<OfSignal, Float>,
    detectable: Family<OfService, Float>,
}

impl Default for Metrics {
    fn default() -> Self {
        let registry = Registry::default();
        let metrics = Metrics {
            ticks: Counter::default(),
            readings_failed: Family::default(),
            outcomes: Family::default(),
            steps: Family::default(),
            decisions: Family::default(),
            reload_good: Gauge::default(),
            reloads: Family::default(),
            reloaded_at_seconds: Gauge::default(),
            loop_lag_seconds: Histogram::new(exponential_buckets(0.001, 2.0, 14)),
            heartbeats: Counter::default(),
            heartbeats_failed: Counter::default(),
            refused: Family::default(),
            disk_low: Gauge::default(),
            commit_seconds: Histogram::new(exponential_buckets(0.000_5, 2.0, 14)),
            clock_skew_seconds: Gauge::default(),
            detector_up: Family::default(),
            hooks: Family::default(),
            open_watches: Gauge::default(),
            by_state: Family::default(),
            armed: Gauge::default(),
            undelivered: Gauge::default(),
            oldest_age_seconds: Gauge::default(),
            evidence: Family::default(),
            detectable: Family::default(),
            registry: Registry::default(),
        };
        let mut root = registry;
        super::process::register(&mut root);
        let registry = root.sub_registry_with_prefix("flipback");
        registry.register("build", "Version of this flipback", Info::new(vec![("version", env!("CARGO_PKG_VERSION"))]));
        registry.register("ticks", "Readings of new slots that were judged", metrics.ticks.clone());
        registry.register("readings_failed", "Readings that failed, by reason", metrics.readings_failed.clone());
        registry.register("outcomes", "Ended watches by outcome", metrics.outcomes.clone());
        registry.register("steps", "Rollback attempts by how they ended", metrics.steps.clone());
        registry.register("decisions", "Decisions that people were told of, by reason", metrics.decisions.clone());
        registry.register("config_reloads", "Reloads of the configuration", metrics.reloads.clone());
        registry.register_with_unit(
            "config_last_reload_success_timestamp",
            "When a configuration was taken last",
            Unit::Seconds,
            metrics.reloaded_at_seconds.clone(),
        );
        registry.register_with_unit(
            "loop_lag",
            "How late the decision loop came to what was due",
            Unit::Seconds,
            metrics.loop_lag_seconds.clone(),
        );
        registry.register("heartbeats", "Heartbeats that got through", metrics.heartbeats.clone());
        registry.register("heartbeats_failed", "Heartbeats that did not", metrics.heartbeats_failed.clone());
        registry.register("requests_refused", "Requests that were not let in, by reason", metrics.refused.clone());
        registry.register(
            "config_last_reload_successful",
            "Whether the last load of the configuration was taken",
            metrics.reload_good.clone(),
        );
        registry.register(
            "disk_low",
            "Whether new switches are refused because the journal's disk is nearly full",
            metrics.disk_low.clone(),
        );
        registry.register_with_unit(
            "commit",
            "Time of a journal commit",
            Unit::Seconds,
            metrics.commit_seconds.clone(),
        );
        registry.register_with_unit(
            "prometheus_clock_skew",
            "Prometheus's clock minus ours",
            Unit::Seconds,
            metrics.clock_skew_seconds.clone(),
        );
        registry.register("detector_up", "Whether a detector's last look was good", metrics.detector_up.clone());
        registry.register(
            "webhook_deliveries",
            "Deliveries of webhooks, by what became of them",
            metrics.hooks.clone(),
        );
        registry.register("watches_open", "Open watches", metrics.open_watches.clone());
        registry.register("watches", "Open watches, by phase and verdict", metrics.by_state.clone());

        registry.register("armed", "Whether flipback as a whole is armed", metrics.armed.clone());
        registry.register("notices_undelivered", "Notices waiting for delivery", metrics.undelivered.clone());
        registry.register_with_unit(
            "outbox_oldest_age",
            "Age of the oldest undelivered notice",
            Unit::Seconds,
            metrics.oldest_age_seconds.clone(),
        );
        registry.register_with_unit(
            "evidence",
            "Logarithm of the evidence of an open watch over what a rollback needs, by signal and for all together: \
             at 1 it is rolled back",
            Unit::Ratios,
            metrics.evidence.clone(),
        );
        registry.register(
            "detectable",
            "Smallest multiple of the normal error rate that an open watch's traffic can show within its soak",
            metrics.detectable.clone(),
        );
        let metrics = Metrics { registry: root, ..metrics };
        metrics.begin_at_zero();
        metrics
    }
}

impl Metrics {
    /// What counts from the first time on begins at zero: an increase from nothing is none to Prometheus, and the first
    /// failed rollback is the one that must not be missed.
    fn begin_at_zero(&self) {
        Outcome::WORDS.iter().for_each(|outcome| drop(self.outcomes.get_or_create(&Word { outcome })));
        let decisions = NoticeReason::ALL.iter().map(|reason| reason.word());
        let failures = FailureKind::ALL.iter().map(|kind| kind.as_str());
        let counted: [(&Family<Reason, Counter>, Vec<&'static str>); 4] = [
            (&self.decisions, decisions.collect()),
            (&self.readings_failed, failures.collect()),
            (&self.steps, STEP_ENDS.to_vec()),
            (&self.refused, REFUSALS.to_vec()),
        ];
        for (family, reasons) in counted {
            reasons.into_iter().for_each(|reason| drop(family.get_or_create(&Reason { reason })));
        }
        ["taken", "refused"].iter().for_each(|result| drop(self.reloads.get_or_create(&OfResult { result })));
    }

    /// Values that are read rather than counted.
    pub fn gauges(&self, open: usize, armed: bool, undelivered: i64, oldest_age_s: f64) {
        self.open_watches.set(i64::try_from(open).unwrap_or(i64::MAX));
        self.armed.set(i64::from(armed));
        self.undelivered.set(undelivered);
        self.oldest_age_seconds.set(oldest_age_s);
    }

    /// What open watches show. Services are as many as are configured, signals as many as they have.
    pub fn watches(&self, open: &[WatchView]) {
        self.evidence.clear();
        self.detectable.clear();
        self.by_state.clear();
        for w in open {
            let state = OfState { phase: w.phase.as_str(), verdict: w.verdict.as_str() };
            self.by_state.get_or_create(&state).inc();
            let service = w.switch.service.to_string();
            let set = |signal: String, ln_e: f64, needed: f64| {
                let of = OfSignal { service: service.clone(), signal };
                self.evidence.get_or_create(&of).set(ln_e / needed.ln());
            };
            let proofs: Vec<_> = w.evidence.iter().filter_map(|e| Some((e.signal.to_string(), e.proof?))).collect();
            if let (Some(one_in), Some((_, proof))) = (w.one_in, proofs.first()) {
                set("all".into(), one_in.ln(), proof.needed);
            }
            for (signal, proof) in proofs {
                set(signal, proof.ln_e, proof.needed);
            }
            if let Some(detectable) = w.detectable {
                self.detectable.get_or_create(&OfService { service: service.clone() }).set(detectable);
            }
        }
    }

    pub fn text(&self) -> String {
        let mut text = String::new();
        if encode(&mut text, &self.registry).is_err() {
            // Writing into a string does not fail; should it, the scrape shows where it broke off.
            let _ = writeln!(text, "# broken off");
        }
        text
    }
}
