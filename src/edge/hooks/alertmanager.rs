//! Alertmanager's webhook, version 4: an outside judge of what is open.

use std::collections::BTreeMap;

use serde_json::Value;

use super::template::Templates;
use super::{ALERTS_MAX, Adapter, Outcome, Read, proof};
use crate::domain::switch::{Alert, ServiceName};
use crate::domain::time::Timestamp;

pub(super) const ADAPTER: Adapter = Adapter {
    admit: |delivery, hook| proof::token(delivery, &hook.secret, &["authorization"]),
    read: |_, payload| match payload.get("version").and_then(Value::as_str) {
        Some("4") => Read::Alerts,
        other => Read::Ignored(format!("version {} is not 4", other.unwrap_or("(none)"))),
    },
    templates: &[("alert_service", "{{ labels.service }}")],
};

/// Firing alerts by the service that they are about; what names none is not about a switch.
pub fn alerts(payload: &Value, templates: &Templates) -> Result<Outcome, String> {
    let list = payload.get("alerts").and_then(Value::as_array).ok_or("there is no list of alerts")?;
    if list.len() > ALERTS_MAX {
        return Err(format!("it holds {} alerts, more than {ALERTS_MAX}", list.len()));
    }
    let mut found: BTreeMap<ServiceName, Vec<Alert>> = BTreeMap::new();
    for alert in list.iter().filter(|alert| alert.get("status").and_then(Value::as_str) == Some("firing")) {
        let Some(vars) = alert.as_object() else { continue };
        let service = templates.one("alert_service", vars)?;
        if service.is_empty() {
            continue;
        }
        let service = ServiceName::try_new(service).map_err(|why| why.to_string())?;
        let text = |path: &str| {
            let text = alert.pointer(path).and_then(Value::as_str)?;
            Some(text.chars().filter(|c| !c.is_control()).take(200).collect::<String>())
        };
        let began = text("/startsAt").unwrap_or_default();
        let began =
            chrono::DateTime::parse_from_rfc3339(&began).map_err(|_| format!("startsAt {began:?} is no time"))?;
        found.entry(service).or_default().push(Alert {
            name: text("/labels/alertname").unwrap_or_else(|| "(no name)".into()),
            summary: text("/annotations/summary").or_else(|| text("/annotations/description")),
            began_at: Timestamp::from_millis(began.timestamp_millis()),
        });
    }
    if found.is_empty() {
        return Ok(Outcome::Ignored("no alert fires that names a service".into()));
    }
    Ok(Outcome::Alerts(found.into_iter().collect()))
}
