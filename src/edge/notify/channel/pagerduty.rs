//! PagerDuty's Events API v2: one incident for each trouble, opened and resolved by its key.

use std::path::{Path, PathBuf};

use reqwest::{Client, Url};
use serde_json::{Value, json};

use super::post::{self, post, safe_url};
use super::{ChannelError, Delivery};
use crate::domain::notice::Standing;
use crate::edge::notify::message::Message;
use crate::edge::secret;
use crate::words::safe::tame;

/// The API's own limits.
const SUMMARY_CHARS: usize = 1024;
const KEY_CHARS: usize = 255;

pub struct Pagerduty {
    client: Client,
    key_file: PathBuf,
    url: Url,
    host: String,
}

impl Pagerduty {
    pub fn new(key_file: &Path, url: &str, host: &str) -> Result<Pagerduty, ChannelError> {
        let url = safe_url(url).map_err(|why| ChannelError(format!("{url} {why}")))?;
        Ok(Pagerduty { client: post::client()?, key_file: key_file.to_owned(), url, host: host.to_owned() })
    }

    pub async fn send(&self, message: &Message) -> Result<(), Delivery> {
        let key = secret::first_line(&self.key_file).map_err(Delivery::Later)?;
        let Some(event) = event(message, &self.host, &key) else { return Ok(()) };
        post(&self.client, self.url.clone(), event.to_string(), &[]).await?.understood("PagerDuty")
    }
}

/// `None`: nobody is to be woken by it, and nothing is to be resolved.
pub fn event(message: &Message, host: &str, routing_key: &str) -> Option<Value> {
    let page = &message.page;
    let dedup_key = tame(&format!("flipback/{host}/{}", message.trouble()), KEY_CHARS);
    match message.standing() {
        Standing::Settles => {
            message.standing_before().next()?;
            return Some(json!({ "routing_key": routing_key, "event_action": "resolve", "dedup_key": dedup_key }));
        }
        Standing::Tells if page.severity == "info" => return None,
        Standing::Stands | Standing::Tells => {}
    }
    let severity = match page.severity {
        "page" => "critical",
        "warning" => "warning",
        _ => "info",
    };
    let mut details = serde_json::Map::new();
    for (q, a) in &page.answers {
        details.insert((*q).to_owned(), a.as_str().into());
    }
    details.insert("Next command".into(), page.command.as_str().into());
    details.insert("Notice".into(), message.letter.key().0.into());
    let links: Vec<Value> = page.links.iter().map(|l| json!({ "href": l.url, "text": l.name })).collect();
    Some(json!({
        "routing_key": routing_key,
        "event_action": "trigger",
        "dedup_key": dedup_key,
        "client": "flipback",
        "payload": {
            "summary": tame(&message.subject, SUMMARY_CHARS),
            "source": host,
            "severity": severity,
            "timestamp": page.at,
            "component": page.service,
            "group": page.switch,
            "class": page.kind,
            "custom_details": details,
        },
        "links": links,
    }))
}
