//! Chat rooms: Slack and what speaks its incoming webhooks (Mattermost, Rocket.Chat), and Microsoft Teams.
//!
//! Slack: an attachment with a colour, fields and a fallback text, which all of them understand; at most one message
//! a second, a 429 says when. Teams: an Adaptive Card to a workflow's address, 28 KB at most; an old connector answers
//! 200 and says in words that it was throttled.

use std::path::{Path, PathBuf};

use reqwest::Client;
use serde_json::{Value, json};

use super::post::{self, post, secret_url};
use super::{ChannelError, Delivery};
use crate::domain::time::Span;
use crate::edge::notify::message::Message;
use crate::words::safe::tame;

/// A card above 28 KB is refused; so much text with its escapes stays below.
const ANSWER_CHARS: usize = 700;

const LINKS_MAX: usize = 5;

/// Throttled without a word about when.
const THROTTLED: Span = Span::from_secs(60);

pub struct Chat {
    client: Client,
    url_file: PathBuf,
    channel: Option<String>,
}

impl Chat {
    pub fn new(url_file: &Path, channel: Option<String>) -> Result<Chat, ChannelError> {
        Ok(Chat { client: post::client()?, url_file: url_file.to_owned(), channel })
    }

    pub async fn slack(&self, message: &Message) -> Result<(), Delivery> {
        let body = slack(message, self.channel.as_deref());
        post(&self.client, secret_url(&self.url_file)?, body.to_string(), &[]).await?.understood("the chat")
    }

    pub async fn teams(&self, message: &Message) -> Result<(), Delivery> {
        let answered = post(&self.client, secret_url(&self.url_file)?, teams(message).to_string(), &[]).await?;
        if answered.status.is_success() && answered.text.contains("HTTP error 429") {
            return Err(Delivery::NotBefore("Teams: throttled".into(), THROTTLED));
        }
        if answered.status.is_success() && answered.text.contains("Webhook message delivery failed") {
            return Err(Delivery::Later(format!("Teams: {}", answered.text.chars().take(200).collect::<String>())));
        }
        answered.understood("Teams")
    }
}

/// Slack's three characters that mean something.
fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;")
}

/// A command between backticks cannot hold one.
fn code(text: &str) -> String {
    format!("`{}`", escaped(&text.replace('`', "'")))
}

pub fn slack(message: &Message, channel: Option<&str>) -> Value {
    let page = &message.page;
    let fields: Vec<Value> = page
        .answers
        .iter()
        .map(|(q, a)| json!({ "title": q, "value": escaped(&tame(a, ANSWER_CHARS)), "short": false }))
        .chain(page.sections.iter().map(|s| {
            let lines: Vec<String> = s.lines.iter().take(20).map(|line| escaped(line)).collect();
            json!({ "title": s.title, "value": lines.join("\n"), "short": false })
        }))
        .collect();
    let links: Vec<String> =
        links(message).map(|(name, url)| format!("<{}|{}>", escaped(url), escaped(name))).collect();
    let mut text = format!("{}\nNext: {}", escaped(&page.headline), code(&page.command));
    if !links.is_empty() {
        text.push_str(&format!("\n{}", links.join(" · ")));
    }
    let mut body = json!({
        "text": escaped(&message.subject),
        "attachments": [{
            "fallback": escaped(&message.subject),
            "color": page.colour,
            "text": text,
            "fields": fields,
            "footer": escaped(&page.footer),
            "ts": message.letter.at().as_millis() / 1000,
            "mrkdwn_in": ["text"],
        }],
    });
    if let Some(channel) = channel {
        body["channel"] = channel.into();
    }
    body
}

/// Name and address, the first of them.
fn links(message: &Message) -> impl Iterator<Item = (&str, &str)> {
    let page = &message.page;
    let queries = page.queries.iter().filter_map(|q| Some((q.name.as_str(), q.link.as_deref()?)));
    page.links.iter().map(|l| (l.name.as_str(), l.url.as_str())).chain(queries).take(LINKS_MAX)
}

/// Characters that a card would take for Markdown.
fn plain(text: &str) -> String {
    text.chars().flat_map(|c| if "\\`*_{}[]<>#~|".contains(c) { vec!['\\', c] } else { vec![c] }).collect()
}

pub fn teams(message: &Message) -> Value {
    let page = &message.page;
    let colour = match page.severity {
        "page" => "Attention",
        "warning" => "Warning",
        _ => "Good",
    };
    let block = |text: String, more: Value| {
        let mut block = json!({ "type": "TextBlock", "text": text, "wrap": true });
        if let (Some(block), Some(more)) = (block.as_object_mut(), more.as_object()) {
            block.extend(more.clone());
        }
        block
    };
    let mut body = vec![
        block(plain(&message.subject), json!({ "weight": "Bolder", "size": "Medium", "color": colour })),
        block(plain(&page.headline), json!({})),
    ];
    for (q, a) in &page.answers {
        body.push(block(format!("**{}**", plain(q)), json!({ "spacing": "Small" })));
        body.push(block(plain(&tame(a, ANSWER_CHARS)), json!({ "spacing": "None" })));
    }
    for section in &page.sections {
        body.push(block(format!("**{}**", plain(&section.title)), json!({})));
        let lines: Vec<String> = section.lines.iter().take(20).map(|line| format!("- {}", plain(line))).collect();
        body.push(block(lines.join("\n"), json!({ "spacing": "None" })));
    }
    body.push(block(plain(&page.command), json!({ "fontType": "Monospace" })));
    body.push(block(plain(&page.footer), json!({ "isSubtle": true, "size": "Small" })));
    let actions: Vec<Value> =
        links(message).map(|(name, url)| json!({ "type": "Action.OpenUrl", "title": name, "url": url })).collect();
    json!({
        "type": "message",
        "summary": message.subject,
        "attachments": [{
            "contentType": "application/vnd.microsoft.card.adaptive",
            "contentUrl": null,
            "content": {
                "$schema": "http://adaptivecards.io/schemas/adaptive-card.json",
                "type": "AdaptiveCard",
                "version": "1.4",
                "msteams": { "width": "Full" },
                "body": body,
                "actions": actions,
            },
        }],
    })
}
