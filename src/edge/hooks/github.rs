//! GitHub's `deployment_status`: the signature covers the body alone, so the delivery's own id says nothing, and
//! a repeat is known by the status's id within the body.

use serde_json::{Map, Value};

use super::proof::{self, Encoding};
use super::{Adapter, Delivery, Read};

pub(super) const ADAPTER: Adapter = Adapter {
    admit: |delivery, hook| proof::body_signed(delivery, &hook.secret, "x-hub-signature-256", "sha256=", Encoding::Hex),
    read,
    templates: &[
        ("service", "{{ deployment.payload.service or repository.name }}"),
        ("old", "{{ deployment.payload.old }}"),
        ("new", "{{ deployment.payload.new or deployment.environment }}"),
        ("version", "{{ deployment.payload.version or deployment.ref }}"),
        ("id", "github:{{ deployment_status.id }}"),
        ("switched_at", "{{ deployment_status.created_at | instant }}"),
        ("owner", "{{ deployment.creator.login }}"),
        ("links", "{{ deployment_status.log_url or deployment_status.target_url }}"),
        ("changes", "{{ deployment.description }}"),
    ],
};

fn read(delivery: &Delivery<'_>, payload: &Value) -> Read {
    let event = delivery.header("x-github-event").unwrap_or("");
    match (event, payload.pointer("/deployment_status/state").and_then(Value::as_str)) {
        ("ping", _) => Read::Ignored("pong".into()),
        ("deployment_status", Some("success")) => Read::Event { vars: Map::new() },
        ("deployment_status", state) => Read::Ignored(format!("its state is {}", state.unwrap_or("not said"))),
        (other, _) => Read::Ignored(format!("{other:?} is no deployment_status event")),
    }
}
