//! GitLab's deployment events. GitLab sends the secret itself.

use serde_json::{Map, Value};

use super::{Adapter, Delivery, Read, proof};

pub(super) const ADAPTER: Adapter = Adapter {
    admit: |delivery, hook| proof::token(delivery, &hook.secret, &["x-gitlab-token"]),
    read,
    templates: &[
        ("service", "{{ project.name }}"),
        ("new", "{{ environment }}"),
        ("version", "{{ short_sha }}"),
        ("id", "gitlab:{{ deployment_id }}"),
        ("switched_at", "{{ status_changed_at | instant }}"),
        ("owner", "{{ user.username }}"),
        ("links", "{{ deployable_url }}\n{{ commit_url }}"),
        ("changes", "{{ commit_title }}"),
    ],
};

fn read(_: &Delivery<'_>, payload: &Value) -> Read {
    let text = |key: &str| payload.get(key).and_then(Value::as_str).unwrap_or("");
    match (text("object_kind"), text("status")) {
        ("deployment", "success") => Read::Event { vars: Map::new() },
        ("deployment", status) => Read::Ignored(format!("its status is {status:?}")),
        (other, _) => Read::Ignored(format!("{other:?} is no deployment event")),
    }
}
