//! JSON to any address, signed as Standard Webhooks has it: HMAC-SHA256 over id, time and body.

use std::path::{Path, PathBuf};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use hmac::{Hmac, KeyInit, Mac};
use reqwest::{Client, Url};
use serde_json::{Value, json};
use sha2::Sha256;

use super::post::{self, post};
use super::{ChannelError, Delivery};
use crate::domain::notice::Standing;
use crate::domain::time::Timestamp;
use crate::edge::notify::message::Message;
use crate::edge::secret;

pub struct Webhook {
    client: Client,
    url: Url,
    secret_file: PathBuf,
}

impl Webhook {
    pub fn new(url: &str, secret_file: &Path) -> Result<Webhook, ChannelError> {
        // The secret signs and is not sent.
        let url = Url::parse(url).map_err(|why| ChannelError(format!("{url}: {why}")))?;
        Ok(Webhook { client: post::client()?, url, secret_file: secret_file.to_owned() })
    }

    pub async fn send(&self, message: &Message, now: Timestamp) -> Result<(), Delivery> {
        let secret = secret::first_line(&self.secret_file).map_err(Delivery::Later)?;
        let body = body(message).to_string();
        // The same id for each try: whoever takes it twice may know that.
        let id = id(message);
        let time = (now.as_millis() / 1000).to_string();
        let signature = sign(&secret, &id, &time, &body).map_err(Delivery::Later)?;
        let headers = [("webhook-id", id), ("webhook-timestamp", time), ("webhook-signature", signature)];
        post(&self.client, self.url.clone(), body, &headers).await?.understood("the webhook")
    }
}

pub fn id(message: &Message) -> String {
    let key = message.letter.key().0;
    if message.nth == 0 { key } else { format!("{key}.r{}", message.nth) }
}

/// `v1,` and the signature; a secret that begins with `whsec_` is base64.
pub fn sign(secret: &str, id: &str, time: &str, body: &str) -> Result<String, String> {
    let key = match secret.strip_prefix("whsec_") {
        Some(text) => STANDARD.decode(text).map_err(|_| "the secret after whsec_ is not base64".to_owned())?,
        None => secret.as_bytes().to_vec(),
    };
    if key.is_empty() {
        return Err("the secret is empty".into());
    }
    let mut mac = Hmac::<Sha256>::new_from_slice(&key).map_err(|error| error.to_string())?;
    mac.update(format!("{id}.{time}.{body}").as_bytes());
    Ok(format!("v1,{}", STANDARD.encode(mac.finalize().into_bytes())))
}

/// Documented in README; fields are added, never taken away.
pub fn body(message: &Message) -> Value {
    let page = &message.page;
    let answer = |i: usize| page.answers.get(i).map_or("", |(_, a)| a.as_str());
    let watch = message.letter.notice().map(|notice| &notice.watch);
    json!({
        "format": 1,
        "key": message.letter.key().0,
        "reminder": message.nth,
        "kind": page.kind,
        "severity": page.severity,
        "standing": match message.standing() {
            Standing::Stands => "stands",
            Standing::Settles => "settles",
            Standing::Tells => "tells",
        },
        "at": page.at,
        "service": page.service,
        "switch": page.switch,
        "old": watch.map(|w| w.switch.old.to_string()),
        "new": watch.map(|w| w.switch.new.to_string()),
        "version": watch.and_then(|w| w.switch.version.as_ref().map(ToString::to_string)),
        "outcome": watch.and_then(|w| w.outcome.as_ref().map(crate::domain::verdict::Outcome::word)),
        "subject": message.subject,
        "headline": page.headline,
        "broke": answer(0),
        "sure": answer(1),
        "done": answer(2),
        "worked": answer(3),
        "now": answer(4),
        "command": page.command,
        "links": page.links,
        "text": message.text,
    })
}
