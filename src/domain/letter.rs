//! What goes out to people: a watch's notice, or what the outbox itself has to say.

use std::fmt;

use serde::{Deserialize, Serialize};

use super::digest::Digest;
use super::notice::{Notice, Severity};
use super::switch::ServiceName;
use super::time::Timestamp;

/// Stable over restarts and retries: a duplicate carries the same.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct LetterKey(pub String);

impl fmt::Display for LetterKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Letter {
    Notice(Box<Notice>),
    /// A channel did not take a notice.
    Undeliverable(Box<Undeliverable>),
    Digest(Box<Digest>),
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Undeliverable {
    pub at: Timestamp,
    pub of: Notice,
    /// `receiver/kind`, like `oncall/slack`.
    pub channel: String,
    pub tries: u32,
    /// When it was first tried.
    pub since: Timestamp,
    pub error: String,
}

impl Letter {
    pub fn key(&self) -> LetterKey {
        LetterKey(match self {
            Letter::Notice(notice) => notice.key.to_string(),
            Letter::Undeliverable(u) => format!("{}.undeliverable.{}", u.of.key, u.channel),
            Letter::Digest(digest) => format!("digest.{}", digest.to),
        })
    }

    /// What routes call its kind.
    pub fn kind(&self) -> &'static str {
        match self {
            Letter::Notice(notice) => notice.reason.word(),
            Letter::Undeliverable(_) => "undeliverable",
            Letter::Digest(_) => "digest",
        }
    }

    pub fn severity(&self) -> Severity {
        match self {
            Letter::Notice(notice) => notice.reason.severity(),
            // Whoever relied on that channel knows nothing of it.
            Letter::Undeliverable(u) => u.of.reason.severity(),
            Letter::Digest(_) => Severity::Info,
        }
    }

    pub fn service(&self) -> Option<&ServiceName> {
        match self {
            Letter::Notice(notice) => Some(&notice.watch.switch.service),
            Letter::Undeliverable(u) => Some(&u.of.watch.switch.service),
            Letter::Digest(_) => None,
        }
    }

    pub fn at(&self) -> Timestamp {
        match self {
            Letter::Notice(notice) => notice.at,
            Letter::Undeliverable(u) => u.at,
            Letter::Digest(digest) => digest.to,
        }
    }

    /// The watch's notice that it is, or is about.
    pub fn notice(&self) -> Option<&Notice> {
        match self {
            Letter::Notice(notice) => Some(notice),
            Letter::Undeliverable(u) => Some(&u.of),
            Letter::Digest(_) => None,
        }
    }
}

/// One letter on its way to one channel.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct DeliveryKey {
    pub letter: LetterKey,
    pub channel: String,
    /// 0 is the letter itself; later ones remind of what still stands.
    pub nth: u32,
}

impl fmt::Display for DeliveryKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} to {}", self.letter, self.channel)?;
        if self.nth > 0 { write!(f, " (reminder {})", self.nth) } else { Ok(()) }
    }
}
