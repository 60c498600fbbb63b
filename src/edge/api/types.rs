//! What goes over the wire, apart from the views that the domain defines.

use serde::{Deserialize, Serialize};

use crate::domain::view::WatchView;
use crate::edge::notify::trial::TriedChannel;
use crate::edge::sources::Finding;

/// Prometheus's envelope.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Envelope<T> {
    pub status: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub data: Option<T>,
    #[serde(rename = "errorType", skip_serializing_if = "Option::is_none")]
    pub error_type: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
    /// The field of the request that is wrong.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub field: Option<String>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Announced {
    pub id: String,
    /// `accepted`, `known`, `step`, `own_hand`, `reverted`.
    pub result: String,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Done {
    pub text: String,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Status {
    pub version: String,
    pub started_at: i64,
    pub armed: bool,
    pub undelivered_notices: i64,
    pub services: Vec<ServiceStatus>,
    pub watches: Vec<WatchView>,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ServiceStatus {
    pub name: String,
    pub mode: String,
    pub armed: bool,
    pub live: Option<String>,
    /// The last switch: its id, what it was, and how it stands.
    #[serde(default)]
    pub last: Option<LastSwitch>,
    /// `good`, `old`, `too little` or `none`: what was recorded in the last hour, and how old it is.
    #[serde(default)]
    pub normal: String,
    #[serde(default)]
    pub normal_detail: String,
    /// The smallest multiple of the normal error rate that a soak can show.
    #[serde(default)]
    pub detectable: Option<f64>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LastSwitch {
    pub id: String,
    pub what: String,
    pub stands: String,
    pub opened_at: String,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct BaselineAnswer {
    pub baseline: Option<crate::domain::baseline::Baseline>,
    /// Why there is none.
    pub why: Option<String>,
    pub pin: Option<RangeAnswer>,
    pub invalid: Vec<RangeAnswer>,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct RangeAnswer {
    pub from: String,
    pub to: String,
    pub by: String,
    pub why: String,
}

/// What became of samples, channel by channel.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TestNotified {
    pub tried: Vec<TriedChannel>,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Findings {
    pub findings: Vec<Finding>,
}
