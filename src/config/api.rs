//! `[api]`: where flipback is asked, by whom, and what they may.

use std::collections::BTreeSet;
use std::net::SocketAddr;

use super::SOCKET;
use super::read::{absolute_path, refuse_inline, secret_path};
use super::settings::{ApiSettings, LocalRule, PageAccess, TlsSettings, Whom};
use super::table::{At, Table, slip_or_all};
use crate::domain::access::{Grant, Reach, Role};
use crate::domain::service::Service;
use crate::domain::switch::ServiceName;

/// Rules are for a handful of robots and teams.
const RULES_MAX: usize = 64;

const ROLES: [(&str, Role); 4] =
    [("read", Role::Read), ("report", Role::Report), ("operate", Role::Operate), ("admin", Role::Admin)];

pub(super) fn default_api() -> ApiSettings {
    ApiSettings {
        listen: None,
        token_file: None,
        socket: SOCKET.into(),
        socket_role: Role::Operate,
        local: Vec::new(),
        tls: None,
        page: PageAccess::Token,
    }
}

/// `complete`: all services are known, so that a name that is not among them is a slip.
pub(super) fn api(table: Table<'_, '_>, services: &[Service], complete: bool) -> Option<ApiSettings> {
    let cert = table.get("tls_cert_file").map(|at| absolute_path(&at));
    let key = table.get("tls_key_file").map(|at| absolute_path(&at));
    let ca_at = table.get("client_ca_file");
    let ca = ca_at.as_ref().map(|at| absolute_path(at));
    let tls = match (cert, key) {
        (Some(cert), Some(key)) => {
            let client_ca_file = ca.map_or(Some(None), |file| file.map(Some));
            Some(cert.zip(key).zip(client_ca_file).map(|((cert_file, key_file), client_ca_file)| TlsSettings {
                cert_file,
                key_file,
                client_ca_file,
            }))
        }
        (None, None) => {
            if let Some(at) = &ca_at {
                at.problem("is for callers over TLS", Some("tls_cert_file and tls_key_file beside it"));
            }
            None
        }
        _ => {
            table.problem("api", "has one of tls_cert_file and tls_key_file", Some("name both, or none".into()));
            Some(None)
        }
    };
    let plain = table.get("plain_text").and_then(|at| at.boolean()).unwrap_or(false);
    let listen_at = table.get("listen");
    let listen = listen_at.as_ref().and_then(|at| match at.string()? {
        "none" => None,
        text => match text.parse::<SocketAddr>() {
            Ok(address) if address.ip().is_loopback() || tls.is_some() || plain => Some(address),
            Ok(_) => {
                at.problem(
                    "is not a loopback address",
                    Some(
                        "tokens would go over the network in the clear: tls_cert_file and tls_key_file beside it; or \
                         127.0.0.1 behind a TLS proxy; or plain_text = true where the network itself is encrypted",
                    ),
                );
                None
            }
            Err(_) => {
                at.problem(
                    format!("{:?} is not an address with a port", text.chars().take(60).collect::<String>()),
                    Some("listen = \"127.0.0.1:9747\", or \"none\" for the control socket alone"),
                );
                None
            }
        },
    });
    let token_file = table.get("token_file").and_then(|at| secret_path(&at));
    refuse_inline(&table, "token", "token_file");
    let socket = table.get("socket").map_or(Some(SOCKET.into()), |at| absolute_path(&at));
    let socket_role = table.get("socket_role").and_then(|at| at.word(&ROLES)).unwrap_or(Role::Operate);
    let local = table.get("local").map_or(Some(Vec::new()), |at| local(&at, services, complete));
    let pages = [("token", PageAccess::Token), ("open", PageAccess::Open), ("off", PageAccess::Off)];
    let page_at = table.get("page");
    let page = page_at.as_ref().and_then(|at| at.word(&pages)).unwrap_or(PageAccess::Token);
    if let (Some(at), PageAccess::Open, Some(address)) = (&page_at, page, listen)
        && !address.ip().is_loopback()
    {
        at.problem("would show everything to the whole network", Some("page = \"token\""));
    }
    table.finish();
    let tls = tls.map_or(Some(None), |tls| tls.map(Some))?;
    Some(ApiSettings { listen, token_file, socket: socket?, socket_role, local: local?, tls, page })
}

fn local(at: &At<'_, '_>, services: &[Service], complete: bool) -> Option<Vec<LocalRule>> {
    let list = at.list()?;
    if list.len() > RULES_MAX {
        at.problem(format!("has {} rules; {RULES_MAX} are read by nobody already", list.len()), Some("use groups"));
        return None;
    }
    let rules: Vec<Option<LocalRule>> = list.iter().map(|at| rule(at.table()?, services, complete)).collect();
    rules.into_iter().collect()
}

fn rule(table: Table<'_, '_>, services: &[Service], complete: bool) -> Option<LocalRule> {
    let name = |at: &At<'_, '_>| {
        let text = at.string()?;
        let plain = !text.is_empty() && text.len() <= 64 && !text.contains([':', ',', '\n', ' ']);
        if !plain {
            at.problem("is no name of a user or group", Some("user = \"jenkins\", or its number: user = \"1001\""));
        }
        plain.then(|| text.to_owned())
    };
    let user = table.get("user").map(|at| name(&at));
    let group = table.get("group").map(|at| name(&at));
    let whom = match (user, group) {
        (Some(user), None) => user.map(Whom::User),
        (None, Some(group)) => group.map(Whom::Group),
        _ => {
            let path = table.path.clone();
            table.problem(
                &path,
                "needs one of user and group",
                Some("user = \"jenkins\", or group = \"deployers\"".into()),
            );
            None
        }
    };
    let role = table.need("role", "role = \"report\" (or read, operate, admin)").and_then(|at| at.word(&ROLES));
    let some = table.get("services").map_or(Some(BTreeSet::new()), |at| named(&at, services, complete));
    table.finish();
    Some(LocalRule { whom: whom?, grant: Grant { role: role?, reach: Reach::of(some?) } })
}

fn named(at: &At<'_, '_>, services: &[Service], complete: bool) -> Option<BTreeSet<ServiceName>> {
    let list = at.strings()?;
    if list.is_empty() {
        at.problem("is empty: nobody could do anything with it", Some("leave it away for all services"));
        return None;
    }
    let mut found = BTreeSet::new();
    for (text, at) in list {
        match services.iter().find(|s| s.name.as_str() == text) {
            Some(service) => {
                found.insert(service.name.clone());
            }
            None if complete => {
                let help = slip_or_all(text, "services", services.iter().map(|s| s.name.as_str()));
                at.problem("is no service here", Some(&help));
            }
            None => {}
        }
    }
    Some(found)
}
