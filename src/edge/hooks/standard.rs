//! Standard Webhooks: id, instant and body are signed together. `data` holds an announcement as the API takes it.

use serde_json::{Map, Value};

use super::proof::Encoding;
use super::{Adapter, Delivery, Hook, REPLAY_WINDOW, Read};
use crate::domain::time::{Span, Timestamp};

pub(super) const ADAPTER: Adapter = Adapter {
    admit,
    read,
    templates: &[
        ("service", "{{ data.service }}"),
        ("kind", "{{ data.kind }}"),
        ("flag", "{{ data.flag }}"),
        ("old", "{{ data.old }}"),
        ("new", "{{ data.new }}"),
        ("version", "{{ data.version }}"),
        ("old_version", "{{ data.old_version }}"),
        ("id", "{{ webhook_id }}"),
        ("switched_at", "{{ data.switched_at or timestamp | instant }}"),
        ("old_until", "{{ data.old_until }}"),
        ("rollback", "{{ data.rollback }}"),
        ("share_percent", "{{ data.share_percent }}"),
        ("owner", "{{ data.owner }}"),
        ("links", "{{ data.links | default([]) | join('\n') }}"),
        ("changes", "{{ data.changes | default([]) | join('\n') }}"),
    ],
};

fn admit(delivery: &Delivery<'_>, hook: &Hook) -> Result<(), String> {
    let header = |name: &str| delivery.header(name).ok_or_else(|| format!("there is no {name} header"));
    let (id, at, signatures) = (header("webhook-id")?, header("webhook-timestamp")?, header("webhook-signature")?);
    let seconds: i64 = at.parse().map_err(|_| "webhook-timestamp is not a number of seconds".to_owned())?;
    let parts: [&[u8]; 5] = [id.as_bytes(), b".", at.as_bytes(), b".", delivery.body];
    // Several, while a secret is changed.
    let good = signatures
        .split(' ')
        .filter_map(|one| one.strip_prefix("v1,"))
        .any(|one| hook.secret.signed(&parts, one, Encoding::Base64));
    if !good {
        return Err("webhook-signature holds no v1 signature of this delivery by the secret of this webhook".into());
    }
    let sent = Timestamp::from_millis(seconds.saturating_mul(1000));
    let off = delivery.now.since(sent).max(sent.since(delivery.now));
    if off > REPLAY_WINDOW {
        let off = Span::from_secs(off.as_millis() / 1000);
        return Err(format!("it was signed at {sent}, {off} from now: more than {REPLAY_WINDOW}"));
    }
    Ok(())
}

fn read(delivery: &Delivery<'_>, _: &Value) -> Read {
    let id = delivery.header("webhook-id").unwrap_or("");
    Read::Event { vars: Map::from_iter([("webhook_id".to_owned(), Value::String(id.to_owned()))]) }
}
