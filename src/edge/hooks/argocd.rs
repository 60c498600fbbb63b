//! Argo CD's notifications: their body is the operator's own template; ours is in `config/integrations/`.

use serde_json::{Map, Value};

use super::{Adapter, Delivery, Read, proof};

pub(super) const ADAPTER: Adapter = Adapter {
    admit: |delivery, hook| proof::token(delivery, &hook.secret, &["authorization"]),
    read,
    templates: &[
        ("service", "{{ app }}"),
        ("old", "{{ old }}"),
        ("new", "{{ new }}"),
        ("version", "{{ revision | short }}"),
        ("id", "argocd:{{ app }}:{{ revision | short }}:{{ finished_at | instant | replace('+', '.') }}"),
        ("switched_at", "{{ finished_at | instant }}"),
        ("links", "{{ url }}"),
    ],
};

fn read(_: &Delivery<'_>, payload: &Value) -> Read {
    match payload.get("phase").and_then(Value::as_str) {
        Some("Succeeded") => Read::Event { vars: Map::new() },
        phase => Read::Ignored(format!("its phase is {}", phase.unwrap_or("not said"))),
    }
}
