//! Any other sender: the header and its form are configured, and so is every field.

use serde_json::Map;

use super::{Adapter, Read, proof};
use crate::config::settings::Proof;

pub(super) const ADAPTER: Adapter = Adapter {
    admit: |delivery, hook| match &hook.settings.proof {
        Some(Proof::Signature { header, prefix, encoding }) => {
            proof::body_signed(delivery, &hook.secret, header, prefix, *encoding)
        }
        Some(Proof::Token { header }) => proof::token(delivery, &hook.secret, &[header]),
        None => proof::token(delivery, &hook.secret, &["authorization", "x-flipback-token"]),
    },
    read: |_, _| Read::Event { vars: Map::new() },
    templates: &[],
};
