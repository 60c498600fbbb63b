//! Where messages go. Each channel has a file; what they share is how an answer is understood.

pub mod alertmanager;
pub mod chat;
pub mod command;
pub mod email;
pub mod pagerduty;
mod post;
pub mod webhook;

use std::fmt;

use super::message::Message;
use crate::config::settings::{ChannelSettings, EmailSettings, ReceiverSettings};
use crate::domain::time::{Span, Timestamp};

pub use email::Mailer;
pub use post::safe_url;

/// Why a message did not get through.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Delivery {
    /// Try again later. Nearly everything: a full mailbox, a refused login and a wrong address are mended
    /// by people, and a page must not be lost meanwhile.
    Later(String),
    /// The same, and the other side said when.
    NotBefore(String, Span),
    /// The message itself cannot be made or sent, now or ever.
    Never(String),
}

#[derive(Debug)]
pub struct ChannelError(pub String);

impl fmt::Display for ChannelError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for ChannelError {}

pub enum Channel {
    Email(Mailer),
    Slack(chat::Chat),
    Teams(chat::Chat),
    Pagerduty(pagerduty::Pagerduty),
    Alertmanager(alertmanager::Alertmanager),
    Webhook(webhook::Webhook),
    Command(command::Exec),
}

impl Channel {
    /// The channels of a receiver, each with its name: `oncall/slack`.
    pub fn all(
        receiver: &ReceiverSettings,
        email: Option<&EmailSettings>,
        host: &str,
    ) -> Result<Vec<(String, Channel)>, ChannelError> {
        let mut found = Vec::new();
        for settings in &receiver.channels {
            let channel = match settings {
                ChannelSettings::Email { to } => {
                    let email = email.ok_or_else(|| ChannelError("email needs [email]".into()))?;
                    Channel::Email(Mailer::new(&EmailSettings { to: to.clone(), ..email.clone() }, host)?)
                }
                ChannelSettings::Slack { url_file, channel } => {
                    Channel::Slack(chat::Chat::new(url_file, channel.clone())?)
                }
                ChannelSettings::Teams { url_file } => Channel::Teams(chat::Chat::new(url_file, None)?),
                ChannelSettings::Pagerduty { routing_key_file, url } => {
                    Channel::Pagerduty(pagerduty::Pagerduty::new(routing_key_file, url, host)?)
                }
                ChannelSettings::Alertmanager { url } => {
                    Channel::Alertmanager(alertmanager::Alertmanager::new(url, host)?)
                }
                ChannelSettings::Webhook { url, secret_file } => {
                    Channel::Webhook(webhook::Webhook::new(url, secret_file)?)
                }
                ChannelSettings::Command { exec, timeout } => {
                    Channel::Command(command::Exec { exec: exec.clone(), timeout: *timeout })
                }
            };
            found.push((format!("{}/{}", receiver.name, settings.word()), channel));
        }
        Ok(found)
    }

    pub fn carries_pictures(&self) -> bool {
        matches!(self, Channel::Email(_))
    }

    pub async fn send(&self, message: &Message, now: Timestamp) -> Result<(), Delivery> {
        match self {
            Channel::Email(mailer) => mailer.send(message).await,
            Channel::Slack(chat) => chat.slack(message).await,
            Channel::Teams(chat) => chat.teams(message).await,
            Channel::Pagerduty(pagerduty) => pagerduty.send(message).await,
            Channel::Alertmanager(alertmanager) => alertmanager.send(message, now).await,
            Channel::Webhook(webhook) => webhook.send(message, now).await,
            Channel::Command(exec) => exec.send(message).await,
        }
    }
}
