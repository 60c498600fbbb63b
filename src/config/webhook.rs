//! `[[webhook]]`: who may announce switches in a tool's own words.

use std::collections::BTreeMap;

use super::read::{plain_name, secret_path};
use super::service::named;
use super::settings::{Proof, Sender, WebhookSettings};
use super::table::{At, Table, slip_or_all};
use crate::domain::service::Service;
use crate::domain::switch::ServiceName;
use crate::edge::hooks::{self, Encoding};

/// One for each tool, or for each team.
const WEBHOOKS_MAX: usize = 64;

const FIELDS: [&str; 16] = [
    "service",
    "kind",
    "flag",
    "old",
    "new",
    "version",
    "old_version",
    "id",
    "switched_at",
    "old_until",
    "rollback",
    "share_percent",
    "assume_old",
    "owner",
    "links",
    "changes",
];

const SENDERS: [(&str, Sender); 8] = [
    ("github", Sender::Github),
    ("gitlab", Sender::Gitlab),
    ("argocd", Sender::Argocd),
    ("jenkins", Sender::Jenkins),
    ("launchdarkly", Sender::Launchdarkly),
    ("standard", Sender::Standard),
    ("generic", Sender::Generic),
    ("alertmanager", Sender::Alertmanager),
];

pub(super) fn webhooks(at: &At<'_, '_>, services: &[Service]) -> Option<Vec<WebhookSettings>> {
    let list = at.list()?;
    if list.len() > WEBHOOKS_MAX {
        at.problem(format!("has more than {WEBHOOKS_MAX} webhooks"), None);
    }
    let mut found: Vec<WebhookSettings> = Vec::new();
    let mut complete = true;
    for at in &list {
        match at.table().and_then(|table| webhook(table, services)) {
            Some(hook) => {
                if found.iter().any(|known| known.name == hook.name) {
                    at.problem(format!("the webhook {} is there twice", hook.name), Some("its name is its path"));
                }
                found.push(hook);
            }
            None => complete = false,
        }
    }
    complete.then_some(found)
}

fn webhook(table: Table<'_, '_>, services: &[Service]) -> Option<WebhookSettings> {
    let name = table
        .need("name", "name = \"github\": it is received at /hooks/github")
        .and_then(|at| plain_name(&at, "is not a name for a path: letters, digits and . _ -"));
    let sender = table.need("from", "from = \"github\"").and_then(|at| at.word(&SENDERS));
    if let Some(at) = table.get_refused("secret") {
        at.problem("is a secret in the configuration", Some("put it into a file and name it in secret_file"));
    }
    let secret_file = table
        .need("secret_file", "put the shared secret into a file that only flipback can read, and name it")
        .and_then(|at| secret_path(&at));
    let only = table.get("services").map_or(Some(Vec::new()), |at| {
        let mut only = Vec::new();
        for (_, at) in at.strings()? {
            let name = named(&at, ServiceName::try_new)?;
            if !services.iter().any(|s| s.name == name) {
                let help = slip_or_all(name.as_str(), "services", services.iter().map(|s| s.name.as_str()));
                at.problem(format!("there is no service {name}"), Some(&help));
            }
            only.push(name);
        }
        Some(only)
    });
    let map_at = table.get("map");
    let mut templates = map_at.as_ref().map_or(Some(BTreeMap::new()), map);
    let when = table.get("when").and_then(|at| {
        let text = at.string()?;
        if let Err(why) = hooks::check(&format!("{{% if {text} %}}yes{{% endif %}}")) {
            at.problem(format!("is no expression: {why}"), Some("when = \"deployment.environment == 'production'\""));
        }
        Some(text.to_owned())
    });
    let (signature, token_header) = (table.get("signature"), table.get("token_header"));
    for at in [&signature, &token_header].into_iter().flatten() {
        if sender.is_some_and(|sender| sender != Sender::Generic) {
            at.problem("is for from = \"generic\" only: the others have their own", None);
        }
    }
    let proof = match (signature, token_header) {
        (Some(_), Some(at)) => {
            at.problem("and signature are two ways to prove the same", Some("keep one of them"));
            None
        }
        (Some(at), None) => at.table().and_then(signature_of),
        (None, Some(at)) => header(&at).map(|header| Proof::Token { header }),
        (None, None) => None,
    };
    let label = table.get("service_label").and_then(|at| at.string().map(|text| (text.to_owned(), at.clone())));
    let acts = table.get("acts");
    if sender.is_some_and(|sender| sender != Sender::Alertmanager) {
        for at in [label.as_ref().map(|(_, at)| at), acts.as_ref()].into_iter().flatten() {
            at.problem("is for from = \"alertmanager\" only", None);
        }
    }
    if let (Some((label, at)), Some(templates)) = (&label, &mut templates) {
        let plain = label.chars().all(|c| c.is_ascii_alphanumeric() || c == '_');
        if plain && !label.is_empty() {
            templates.insert("alert_service".into(), format!("{{{{ labels.{label} }}}}"));
        } else {
            at.problem("is not a label name", Some("letters, digits and _"));
        }
    }
    let acts = acts.and_then(|at| at.boolean()).unwrap_or(false);
    if let (Some(Sender::Generic), Some(templates)) = (sender, &templates) {
        let missing: Vec<&str> = ["service", "new"].into_iter().filter(|f| !templates.contains_key(*f)).collect();
        if !missing.is_empty() {
            let help = "map = { service = \"checkout\", new = \"{{ target }}\", version = \"{{ release }}\" }";
            table.problem(
                &format!("{}.map", table.path),
                format!("does not say {}", missing.join(" and ")),
                Some(help.into()),
            );
        }
    }
    table.finish();
    Some(WebhookSettings {
        name: name?,
        sender: sender?,
        secret_file: secret_file?,
        services: only?,
        templates: templates?,
        when,
        proof,
        acts,
    })
}

fn map(at: &At<'_, '_>) -> Option<BTreeMap<String, String>> {
    let mut templates = BTreeMap::new();
    for (field, span, place) in at.table()?.entries() {
        if !FIELDS.contains(&field.as_str()) {
            let help = slip_or_all(&field, "fields", FIELDS.iter().copied());
            place.source.problem(span, &place.path, "is no field of an announcement", Some(help));
            continue;
        }
        let Some(text) = place.string() else { continue };
        if let Err(why) = hooks::check(text) {
            place.problem(format!("is no template: {why}"), Some("\"checkout\", or \"{{ deployment.environment }}\""));
        }
        templates.insert(field, text.to_owned());
    }
    Some(templates)
}

fn signature_of(table: Table<'_, '_>) -> Option<Proof> {
    let name = table.need("header", "header = \"X-Signature\"").and_then(|at| header(&at));
    let prefix = table.get("prefix").and_then(|at| at.string().map(str::to_owned)).unwrap_or_default();
    let encoding = table
        .get("encoding")
        .and_then(|at| at.word(&[("hex", Encoding::Hex), ("base64", Encoding::Base64)]))
        .unwrap_or(Encoding::Hex);
    table.finish();
    Some(Proof::Signature { header: name?, prefix, encoding })
}

fn header(at: &At<'_, '_>) -> Option<String> {
    let text = at.string()?.to_ascii_lowercase();
    if text.is_empty() || !text.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-') {
        at.problem("is not a header's name", Some("like X-Signature"));
        return None;
    }
    Some(text)
}
