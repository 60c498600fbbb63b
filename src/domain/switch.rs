//! What a deploy tool tells flipback, and the names in it.

use std::fmt;

use serde::{Deserialize, Serialize};

use super::time::Timestamp;

/// Why a text cannot be a name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BadName {
    what: &'static str,
    text: String,
    why: &'static str,
}

impl BadName {
    /// Without the kind of name, for where a field's name says it already.
    pub fn bare(&self) -> String {
        // The text comes from outside: shown quoted, and cut so that a flood stays one line.
        let shown: String = self.text.chars().take(40).collect();
        format!("{shown:?} {}", self.why)
    }
}

impl fmt::Display for BadName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.what, self.bare())
    }
}

impl std::error::Error for BadName {}

/// Longest name accepted; names end in file names, labels and environment variables.
pub const NAME_CHARS_MAX: usize = 128;

fn check_name(what: &'static str, text: &str) -> Result<(), BadName> {
    let bad = |why| Err(BadName { what, text: text.to_owned(), why });
    let Some(first) = text.bytes().next() else {
        return bad("is empty");
    };
    if !first.is_ascii_alphanumeric() {
        return bad("must begin with a letter or a digit");
    }
    if text.len() > NAME_CHARS_MAX {
        return bad("is longer than 128 characters");
    }
    if !text.bytes().all(|b| b.is_ascii_alphanumeric() || b"._:/-".contains(&b)) {
        return bad("may hold only letters, digits and . _ : / -");
    }
    Ok(())
}

macro_rules! name {
    ($(#[$doc:meta])* $type:ident, $what:literal) => {
        $(#[$doc])*
        #[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[serde(try_from = "String", into = "String")]
        pub struct $type(String);

        impl $type {
            /// Accepts `^[A-Za-z0-9][A-Za-z0-9._:/-]{0,127}$`, which is safe in an argv element,
            /// an environment variable, a file name after escaping `/`, and an HAProxy line.
            pub fn try_new(text: impl Into<String>) -> Result<Self, BadName> {
                let text = text.into();
                check_name($what, &text)?;
                Ok(Self(text))
            }

            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl fmt::Display for $type {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }

        impl TryFrom<String> for $type {
            type Error = BadName;
            fn try_from(text: String) -> Result<Self, BadName> {
                Self::try_new(text)
            }
        }

        impl From<$type> for String {
            fn from(name: $type) -> String {
                name.0
            }
        }
    };
}

name!(
    /// What is switched and watched.
    ServiceName, "service"
);
name!(
    /// One of the places traffic can be on: `blue`, `green`, a version, an alias.
    Slot, "slot"
);
name!(
    /// The label of what runs in a slot.
    Version, "version"
);
name!(
    /// One switch's name in flipback: `checkout-17`, the service and a number that only grows.
    SwitchId, "switch id"
);
name!(
    /// The announcer's own id of an event; a repeat with the same id gets the original answer.
    EventId, "event id"
);

/// Whether moving the traffic back is safe for this release (a schema change may forbid it).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RollbackSafety {
    Safe,
    /// flipback only alerts.
    Unsafe,
}

/// A switch as somebody announced it, already checked for form.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Announcement {
    pub event_id: Option<EventId>,
    pub service: ServiceName,
    pub old: Slot,
    pub new: Slot,
    pub old_version: Option<Version>,
    /// What runs in the new slot.
    pub version: Option<Version>,
    pub switched_at: Option<Timestamp>,
    pub rollback: RollbackSafety,
    /// The announcer vouches for `old` although flipback remembers another live slot.
    pub assume_old: bool,
    /// Who said it: `http`, `socket`, later the adapter's name.
    pub source: String,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_keep_out_what_could_break_a_boundary() {
        for good in ["a", "checkout", "v1.3", "team/app:2-x_y"] {
            assert!(Slot::try_new(good).is_ok(), "{good}");
        }
        for bad in ["", "-x", ".hidden", "a b", "a\"b", "a\nb", "$(x)", "é"] {
            assert!(Slot::try_new(bad).is_err(), "{bad:?}");
        }
        assert!(Slot::try_new("a".repeat(128)).is_ok());
        assert!(Slot::try_new("a".repeat(129)).is_err());
    }

    #[test]
    fn a_flood_in_a_name_stays_one_short_line() {
        let err = Slot::try_new("\n".repeat(5000)).unwrap_err().to_string();
        assert!(err.len() < 200 && !err.contains('\n'), "{err}");
    }
}
