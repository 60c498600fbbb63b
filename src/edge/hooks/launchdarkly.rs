//! LaunchDarkly: a flag that is turned on or off in an environment. Its payload is an entry of the audit log.

use serde_json::{Map, Value, json};

use super::proof::{self, Encoding};
use super::{Adapter, Delivery, Read};

pub(super) const ADAPTER: Adapter = Adapter {
    admit: |delivery, hook| proof::body_signed(delivery, &hook.secret, "x-ld-signature", "", Encoding::Hex),
    read,
    templates: &[
        ("service", "{{ ld.project }}"),
        ("kind", "flag"),
        ("flag", "{{ ld.flag }}"),
        ("old", "{{ ld.old }}"),
        ("new", "{{ ld.new }}"),
        ("id", "launchdarkly:{{ _id }}"),
        ("switched_at", "{{ date | instant }}"),
        ("owner", "{{ member.email }}"),
        ("changes", "{{ comment }}"),
    ],
};

fn read(_: &Delivery<'_>, payload: &Value) -> Read {
    if payload.get("kind").and_then(Value::as_str) != Some("flag") {
        return Read::Ignored("it is about no flag".into());
    }
    let accesses = payload.get("accesses").and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default();
    let action = |access: &&Value| access.get("action").and_then(Value::as_str) == Some("updateOn");
    let Some(resource) = accesses.iter().find(action).and_then(|a| a.get("resource")?.as_str()) else {
        return Read::Ignored("no flag was turned on or off".into());
    };
    let part = |kind: &str| resource.split(':').find_map(|part| part.strip_prefix(kind)).unwrap_or("").to_owned();
    let (project, environment, flag) = (part("proj/"), part("env/"), part("flag/"));
    // The state after it, where it is told; else by the words of the log.
    let state = payload.pointer(&format!("/currentVersion/environments/{environment}/on")).and_then(Value::as_bool);
    let verb = payload.get("titleVerb").and_then(Value::as_str).unwrap_or("");
    let on = state.or(if verb.contains("turned on") {
        Some(true)
    } else if verb.contains("turned off") {
        Some(false)
    } else {
        None
    });
    let Some(on) = on else { return Read::Ignored(format!("whether it is on now is not said ({verb:?})")) };
    let (old, new) = if on { ("off", "on") } else { ("on", "off") };
    let ld = json!({"project": project, "environment": environment, "flag": flag, "old": old, "new": new});
    Read::Event { vars: Map::from_iter([("ld".to_owned(), ld)]) }
}
