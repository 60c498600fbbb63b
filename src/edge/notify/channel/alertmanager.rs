//! Alertmanager's API v2: an alert for what stands, ended when it is settled. Routing, silences and inhibition are
//! Alertmanager's from there.

use reqwest::{Client, Url};
use serde_json::{Value, json};

use super::post::{self, post};
use super::{ChannelError, Delivery};
use crate::domain::notice::{NoticeReason, Standing};
use crate::domain::time::{Span, Timestamp};
use crate::edge::notify::message::Message;
use crate::edge::notify::page::severity_word;

/// Alertmanager ends what is not told again within minutes; flipback says by when its alerts end by themselves.
const STANDS_FOR: Span = Span::from_mins(24 * 60);

pub struct Alertmanager {
    client: Client,
    url: Url,
    host: String,
}

impl Alertmanager {
    pub fn new(url: &str, host: &str) -> Result<Alertmanager, ChannelError> {
        let whole = format!("{}/api/v2/alerts", url.trim_end_matches('/'));
        // No secret goes there: within a network it is reached without TLS more often than not.
        let url = Url::parse(&whole).map_err(|why| ChannelError(format!("{url}: {why}")))?;
        Ok(Alertmanager { client: post::client()?, url, host: host.to_owned() })
    }

    pub async fn send(&self, message: &Message, now: Timestamp) -> Result<(), Delivery> {
        let alerts = alerts(message, &self.host, now);
        if alerts.is_empty() {
            return Ok(());
        }
        post(&self.client, self.url.clone(), Value::from(alerts).to_string(), &[]).await?.understood("Alertmanager")
    }
}

pub fn alerts(message: &Message, host: &str, now: Timestamp) -> Vec<Value> {
    let page = &message.page;
    let labels = |kind: &str, severity: &str| {
        json!({
            "alertname": "Flipback",
            "kind": kind,
            // The word that most routing trees wake people by.
            "severity": if severity == "page" { "critical" } else { severity },
            "service": page.service,
            "switch": page.switch,
            "instance": host,
        })
    };
    let mut alerts = Vec::new();
    let same = |reason: NoticeReason| reason.word() == page.kind && message.standing() == Standing::Stands;
    // What this notice says takes the place of what stood before; each of those is ended.
    if message.standing() != Standing::Tells {
        let mut ended: Vec<NoticeReason> = Vec::new();
        for told in message.standing_before().filter(|told| !same(told.reason)) {
            if ended.contains(&told.reason) {
                continue;
            }
            ended.push(told.reason);
            alerts.push(json!({
                "labels": labels(told.reason.word(), severity_word(told.reason.severity())),
                "annotations": { "summary": message.subject },
                "startsAt": told.at.to_string(),
                "endsAt": now.to_string(),
            }));
        }
    }
    let told =
        message.standing() == Standing::Stands || message.standing() == Standing::Tells && page.severity != "info";
    if told {
        let mut annotations = serde_json::Map::new();
        annotations.insert("summary".into(), message.subject.as_str().into());
        annotations.insert("description".into(), page.headline.as_str().into());
        for (q, a) in &page.answers {
            annotations.insert(q.to_lowercase().replace(' ', "_"), a.as_str().into());
        }
        annotations.insert("next_command".into(), page.command.as_str().into());
        for link in &page.links {
            let name: String =
                link.name.to_lowercase().chars().map(|c| if c.is_ascii_alphanumeric() { c } else { '_' }).collect();
            annotations.insert(format!("{name}_url"), link.url.as_str().into());
        }
        let generator = page.queries.iter().find_map(|q| q.link.clone());
        alerts.push(json!({
            "labels": labels(page.kind, page.severity),
            "annotations": annotations,
            "startsAt": page.at,
            "endsAt": (now + STANDS_FOR).to_string(),
            "generatorURL": generator.unwrap_or_default(),
        }));
    }
    alerts
}
