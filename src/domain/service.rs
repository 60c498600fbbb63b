//! A service as the configuration defines it, validated.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::action::HttpTarget;
use super::baseline::BaselineAsk;
use super::origin::Origin;
use super::plan::{HealthCheck, Plan};
use super::policy::Policy;
use super::switch::{FlagName, ServiceName, Slot};
use super::time::Timestamp;

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Service {
    pub name: ServiceName,
    pub slots: Slots,
    pub metrics: Metrics,
    pub policy: Policy,
    pub plan: Plan,
    /// What follows a passed soak: the old slot is torn down, a release is promoted.
    pub after_passed: Plan,
    /// Feature flags that are watched when they change, each with its own kill switch.
    #[serde(default)]
    pub flags: BTreeMap<FlagName, Plan>,
    /// The operator accepts acting without health check or probe.
    pub unverified: bool,
    /// Neighbours: what shows alike there is not the switch's doing.
    pub controls: Vec<ServiceName>,
    /// Link shown in notices.
    pub runbook: Option<String>,
}

/// Where traffic can be.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Slots {
    /// Fixed places with their own health checks and selector labels.
    Named(BTreeMap<Slot, SlotSpec>),
    /// `$old` and `$new` are what the event says (versions, aliases).
    Versions,
}

#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub struct SlotSpec {
    pub health: Option<HealthCheck>,
    /// Further label matchers of this slot's series.
    pub labels: BTreeMap<String, String>,
    /// The metrics pages of its processes, for those who read them without a server.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub scrape: Vec<HttpTarget>,
}

impl Service {
    /// The question for a slot's normal, by this service's policy.
    pub fn baseline_ask(&self, slot: Slot, other: Slot, before: Timestamp) -> BaselineAsk {
        let policy = &self.policy;
        BaselineAsk {
            service: self.name.clone(),
            slot,
            other,
            metrics: self.metrics.clone(),
            before,
            soak: policy.soak,
            whole_day: !policy.long.is_zero(),
            cells_min: policy.baseline_cells_min,
            requests_min: policy.baseline_requests_min,
            slots: self.slots.specs(),
        }
    }
}

impl Slots {
    /// The slots that are named beforehand; none where they are versions.
    pub fn specs(&self) -> BTreeMap<Slot, SlotSpec> {
        match self {
            Slots::Named(named) => named.clone(),
            Slots::Versions => BTreeMap::new(),
        }
    }

    pub fn spec(&self, slot: &Slot) -> Option<&SlotSpec> {
        match self {
            Slots::Named(named) => named.get(slot),
            Slots::Versions => None,
        }
    }

    pub fn knows(&self, slot: &Slot) -> bool {
        match self {
            Slots::Named(named) => named.contains_key(slot),
            Slots::Versions => true,
        }
    }
}

/// Where counts do not tell slots apart, they are kept under this name.
pub const ALL_SLOTS: &str = "all";

/// Where a service's counts come from, and selectors of its series: text that the configuration has parsed as PromQL
/// and found to be plain vector selectors. `$service` and `$slot` stand in matcher values.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Metrics {
    /// Name of the template, or of the service where it has its own.
    pub name: String,
    #[serde(default, skip_serializing_if = "Origin::is_prometheus")]
    pub from: Origin,
    /// Empty where there are no series.
    pub requests: String,
    pub errors: Option<String>,
    pub latency: Option<Latency>,
    /// Any PromQL giving one number: (name, query).
    pub custom: Vec<(String, String)>,
}

/// A latency histogram, in seconds.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Latency {
    /// A `_bucket` metric with `le`.
    Classic(String),
    /// A native histogram.
    Native(String),
}

impl Metrics {
    /// Whether the series tell the slots apart. Without that, before and after are told apart by time.
    pub fn by_slot(&self) -> bool {
        match &self.from {
            Origin::Prometheus => self.requests.contains("$slot"),
            // Each slot has its own pages.
            Origin::Scrape(_) => true,
            Origin::Counts(ask) => ask.by_slot(),
        }
    }
}
