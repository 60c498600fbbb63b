//! Webhooks: what other tools send about switches, in their own words. One adapter for each kind of sender says
//! who may be believed and where in its payload things are; templates make an announcement of it.

mod alertmanager;
mod argocd;
mod generic;
mod github;
mod gitlab;
mod jenkins;
mod launchdarkly;
mod proof;
mod standard;
mod template;

use std::collections::BTreeMap;

use axum::http::HeaderMap;
use serde_json::{Map, Value};

pub use proof::Encoding;
pub use template::check;

use crate::config::settings::{Sender, WebhookSettings};
use crate::domain::switch::{Alert, ServiceName};
use crate::domain::time::{Span, Timestamp};
use proof::Secret;
use template::Templates;

/// A signed instant may be off by this: clocks differ, and a delivery is tried again at once, not for hours.
const REPLAY_WINDOW: Span = Span::from_secs(300);

/// Alerts of one delivery that are looked at. Alertmanager groups them; more is another kind of trouble.
const ALERTS_MAX: usize = 100;

/// One kind of sender: the seam that each adapter file fills.
struct Adapter {
    /// Whether the sender holds the secret; over the raw bytes, before anything in them is looked at.
    admit: fn(&Delivery<'_>, &Hook) -> Result<(), String>,
    /// What is delivered. `vars` are what templates may use besides the payload.
    read: fn(&Delivery<'_>, &Value) -> Read,
    /// Where an announcement's fields are, unless the configuration says otherwise.
    templates: &'static [(&'static str, &'static str)],
}

enum Read {
    Event {
        vars: Map<String, Value>,
    },
    /// Nothing that flipback acts upon, and why.
    Ignored(String),
    Alerts,
}

fn adapter(sender: Sender) -> &'static Adapter {
    match sender {
        Sender::Github => &github::ADAPTER,
        Sender::Gitlab => &gitlab::ADAPTER,
        Sender::Argocd => &argocd::ADAPTER,
        Sender::Jenkins => &jenkins::ADAPTER,
        Sender::Launchdarkly => &launchdarkly::ADAPTER,
        Sender::Standard => &standard::ADAPTER,
        Sender::Generic => &generic::ADAPTER,
        Sender::Alertmanager => &alertmanager::ADAPTER,
    }
}

/// One request as it came.
pub struct Delivery<'a> {
    pub headers: &'a HeaderMap,
    pub body: &'a [u8],
    pub now: Timestamp,
}

impl Delivery<'_> {
    fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name).and_then(|value| value.to_str().ok())
    }
}

/// A configured webhook, its secret read and its templates compiled.
pub struct Hook {
    pub settings: WebhookSettings,
    secret: Secret,
    templates: Templates,
}

/// What becomes of a delivery.
#[derive(Debug, PartialEq)]
pub enum Outcome {
    /// The fields of an announcement, still unchecked.
    Announce(Map<String, Value>),
    Alerts(Vec<(ServiceName, Vec<Alert>)>),
    Ignored(String),
}

/// Why a delivery is refused, and with which standing.
#[derive(Debug, PartialEq, Eq)]
pub enum Refused {
    /// 401
    Stranger(String),
    /// 400
    Bad(String),
}

impl Hook {
    fn new(settings: &WebhookSettings) -> Result<Hook, String> {
        let secret = Secret::from_file(&settings.secret_file, settings.sender == Sender::Standard)?;
        let defaults = adapter(settings.sender).templates;
        let templates = Templates::new(defaults, &settings.templates, settings.when.as_deref())?;
        Ok(Hook { settings: settings.clone(), secret, templates })
    }

    /// From bytes to what they mean.
    pub fn take(&self, delivery: &Delivery<'_>) -> Result<Outcome, Refused> {
        let adapter = adapter(self.settings.sender);
        (adapter.admit)(delivery, self).map_err(Refused::Stranger)?;
        self.understand(delivery)
    }

    /// What is behind the signature.
    pub(crate) fn understand(&self, delivery: &Delivery<'_>) -> Result<Outcome, Refused> {
        let adapter = adapter(self.settings.sender);
        let payload: Value = serde_json::from_slice(delivery.body)
            .map_err(|error| Refused::Bad(format!("the body is not JSON: {error}")))?;
        if !payload.is_object() {
            return Err(Refused::Bad("the body is not a JSON object".into()));
        }
        let mut vars = match (adapter.read)(delivery, &payload) {
            Read::Ignored(why) => return Ok(Outcome::Ignored(why)),
            Read::Alerts => return alertmanager::alerts(&payload, &self.templates).map_err(Refused::Bad),
            Read::Event { vars } => vars,
        };
        if let Value::Object(payload) = payload {
            // What the adapter made of it is not overwritten by the payload.
            for (key, value) in payload {
                vars.entry(key).or_insert(value);
            }
        }
        if !self.templates.wanted(&vars).map_err(Refused::Bad)? {
            return Ok(Outcome::Ignored(format!("`when` of webhook {} does not hold", self.settings.name)));
        }
        Ok(Outcome::Announce(self.templates.announcement(&vars).map_err(Refused::Bad)?))
    }
}

/// All of them, by name.
#[derive(Default)]
pub struct Hooks(BTreeMap<String, Hook>);

impl Hooks {
    /// Reads the secrets; an error names the webhook and the file.
    pub fn new(settings: &[WebhookSettings]) -> Result<Hooks, String> {
        let hook = |s: &WebhookSettings| match Hook::new(s) {
            Ok(hook) => Ok((s.name.clone(), hook)),
            Err(why) => Err(format!("webhook {}: {why}", s.name)),
        };
        Ok(Hooks(settings.iter().map(hook).collect::<Result<_, _>>()?))
    }

    pub fn get(&self, name: &str) -> Option<&Hook> {
        self.0.get(name)
    }
}

#[cfg(test)]
mod tests;
