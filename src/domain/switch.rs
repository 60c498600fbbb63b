//! What a deploy tool tells flipback, and the names in it.

use std::collections::BTreeMap;
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

name!(
    /// A feature flag of a service.
    FlagName, "flag"
);

/// A part of the traffic: above 0 and at most 100 %, to a hundredth of a percent.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "f64", into = "f64")]
pub struct Percent(u16);

impl Percent {
    pub const ALL: Percent = Percent(10_000);

    /// `percent` is 5 for 5 %.
    pub fn try_new(percent: f64) -> Result<Self, BadName> {
        let hundredths = (percent * 100.0).round();
        if (1.0..=10_000.0).contains(&hundredths) {
            return Ok(Percent(hundredths as u16));
        }
        let why = "is no part of the traffic: more than 0 and at most 100, in percent";
        Err(BadName { what: "share", text: percent.to_string(), why })
    }

    /// As a fraction of 1.
    pub fn fraction(self) -> f64 {
        f64::from(self.0) / 10_000.0
    }

    pub fn is_all(self) -> bool {
        self == Percent::ALL
    }
}

impl TryFrom<f64> for Percent {
    type Error = BadName;
    fn try_from(percent: f64) -> Result<Self, BadName> {
        Self::try_new(percent)
    }
}

impl From<Percent> for f64 {
    fn from(p: Percent) -> f64 {
        f64::from(p.0) / 100.0
    }
}

impl fmt::Display for Percent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} %", f64::from(*self))
    }
}

/// What is switched.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Kind {
    /// Traffic, from slot to slot.
    #[default]
    Traffic,
    /// A flag, from variation to variation; the traffic stays where it is.
    Flag(FlagName),
}

/// What can be under way once at a time: a service's traffic, or one of its flags.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Lane(String);

impl Lane {
    pub fn of(service: &ServiceName, kind: &Kind) -> Lane {
        match kind {
            Kind::Traffic => Lane(service.to_string()),
            // No name holds a '#': no service can be taken for a flag.
            Kind::Flag(flag) => Lane(format!("{service}#{flag}")),
        }
    }

    pub fn traffic(service: &ServiceName) -> Lane {
        Lane::of(service, &Kind::Traffic)
    }
}

impl fmt::Display for Lane {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// What an announcer says about a switch for the people who may have to deal with it: carried into every notice.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct About {
    pub owner: Option<String>,
    /// http and https only.
    pub links: Vec<String>,
    /// One line for each change.
    pub changes: Vec<String>,
}

impl About {
    /// Takes what this one does not say from the other.
    pub fn fill_from(&mut self, other: &About) {
        self.owner = self.owner.take().or_else(|| other.owner.clone());
        for (mine, theirs) in [(&mut self.links, &other.links), (&mut self.changes, &other.changes)] {
            if mine.is_empty() {
                mine.clone_from(theirs);
            }
        }
    }
}

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
    #[serde(default)]
    pub kind: Kind,
    pub old: Slot,
    pub new: Slot,
    /// The part of the traffic that the new slot is meant to get: a step of a ramp. `None`: all of it.
    #[serde(default)]
    pub share_percent: Option<Percent>,
    pub old_version: Option<Version>,
    /// What runs in the new slot.
    pub version: Option<Version>,
    pub switched_at: Option<Timestamp>,
    pub rollback: RollbackSafety,
    /// The announcer vouches for `old` although flipback remembers another live slot.
    pub assume_old: bool,
    /// When the old slot will be torn down.
    #[serde(default)]
    pub old_until: Option<Timestamp>,
    #[serde(default)]
    pub about: About,
    /// Nobody announced it: a detector saw it.
    #[serde(default)]
    pub detected: bool,
    /// Who said it: `http`, `socket (uid 0)`, a webhook's or a detector's name.
    pub source: String,
}

impl Announcement {
    /// All of the traffic, and nothing said besides.
    pub fn of(service: ServiceName, old: Slot, new: Slot, source: impl Into<String>) -> Announcement {
        Announcement {
            event_id: None,
            service,
            kind: Kind::Traffic,
            old,
            new,
            share_percent: None,
            old_version: None,
            version: None,
            switched_at: None,
            rollback: RollbackSafety::Safe,
            assume_old: false,
            old_until: None,
            about: About::default(),
            detected: false,
            source: source.into(),
        }
    }

    pub fn lane(&self) -> Lane {
        Lane::of(&self.service, &self.kind)
    }

    pub fn share(&self) -> Percent {
        self.share_percent.unwrap_or(Percent::ALL)
    }
}

/// What a detector saw at one look: a state, not an event.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Sighting {
    /// Slots with traffic and their parts of it; empty where only a version can be seen.
    pub shares: BTreeMap<Slot, Percent>,
    pub version: Option<Version>,
}

impl Sighting {
    /// The slot with most of the traffic.
    pub fn most(&self) -> Option<&Slot> {
        self.shares.iter().max_by_key(|(_, share)| **share).map(|(slot, _)| slot)
    }
}

impl fmt::Display for Sighting {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut parts: Vec<String> = Vec::new();
        for (slot, share) in &self.shares {
            parts.push(if share.is_all() { slot.to_string() } else { format!("{slot} {share}") });
        }
        parts.extend(self.version.iter().map(|v| format!("version {v}")));
        f.write_str(&parts.join(", "))
    }
}

/// An outside judge's word on a service: an alert that fires.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Alert {
    pub name: String,
    pub summary: Option<String>,
    pub began_at: Timestamp,
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
