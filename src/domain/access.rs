//! Who may do what: four roles, each of which may what the ones before it may, over all services or some.

use std::collections::BTreeSet;
use std::fmt;

use serde::{Deserialize, Serialize};

use super::switch::ServiceName;

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Role {
    /// Looks.
    Read,
    /// Announces switches: what a pipeline needs.
    Report,
    /// Orders: rollback, approve, decline, cancel, pause, arm, disarm, drill, reload. What keeps traffic from being
    /// moved back needs the same role as what moves it.
    Operate,
    /// Gives access to others.
    Admin,
}

impl Role {
    pub const ALL: [Role; 4] = [Role::Read, Role::Report, Role::Operate, Role::Admin];

    pub fn as_str(self) -> &'static str {
        match self {
            Role::Read => "read",
            Role::Report => "report",
            Role::Operate => "operate",
            Role::Admin => "admin",
        }
    }

    pub fn parse(word: &str) -> Option<Role> {
        Role::ALL.into_iter().find(|role| role.as_str() == word)
    }
}

impl fmt::Display for Role {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// Which services a role holds for.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum Reach {
    #[default]
    All,
    Only(BTreeSet<ServiceName>),
}

impl Reach {
    /// None named: all.
    pub fn of(services: BTreeSet<ServiceName>) -> Reach {
        if services.is_empty() { Reach::All } else { Reach::Only(services) }
    }

    pub fn holds(&self, service: &ServiceName) -> bool {
        match self {
            Reach::All => true,
            Reach::Only(some) => some.contains(service),
        }
    }
}

impl fmt::Display for Reach {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Reach::All => f.write_str("all services"),
            Reach::Only(some) => f.write_str(&some.iter().map(ServiceName::as_str).collect::<Vec<_>>().join(", ")),
        }
    }
}

/// What somebody may.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Grant {
    pub role: Role,
    pub reach: Reach,
}

impl Grant {
    pub const EVERYTHING: Grant = Grant { role: Role::Admin, reach: Reach::All };
}
