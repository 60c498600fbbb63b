//! Jenkins: the Notification plugin's payload, sent with a token in a header (`httpRequest`, `curl`).

use serde_json::{Map, Value};

use super::{Adapter, Delivery, Read, proof};

pub(super) const ADAPTER: Adapter = Adapter {
    admit: |delivery, hook| proof::token(delivery, &hook.secret, &["authorization", "x-flipback-token"]),
    read,
    templates: &[
        ("service", "{{ build.parameters.SERVICE or name }}"),
        ("old", "{{ build.parameters.OLD }}"),
        ("new", "{{ build.parameters.NEW or build.parameters.SLOT }}"),
        ("version", "{{ build.parameters.VERSION or (build.scm.commit | default('') | short) }}"),
        ("id", "jenkins:{{ name | replace(' ', '_') }}:{{ build.number }}"),
        ("links", "{{ build.full_url }}"),
    ],
};

fn read(_: &Delivery<'_>, payload: &Value) -> Read {
    let text = |key: &str| payload.pointer(key).and_then(Value::as_str).unwrap_or("");
    match (text("/build/phase"), text("/build/status")) {
        // FINALIZED follows COMPLETED for the same build: its id makes them one.
        ("COMPLETED" | "FINALIZED", "SUCCESS") => Read::Event { vars: Map::new() },
        (phase, status) => Read::Ignored(format!("its phase is {phase:?}, its status {status:?}")),
    }
}
