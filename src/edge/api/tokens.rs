//! Tokens that flipback made: their digests, in one file of the state directory. A token itself is shown once and kept
//! nowhere.

use std::collections::BTreeSet;
use std::fs::{File, OpenOptions};
use std::io::{ErrorKind, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use rand::RngExt as _;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use subtle::ConstantTimeEq;

use crate::domain::access::{Grant, Reach, Role};
use crate::domain::switch::ServiceName;
use crate::domain::time::Timestamp;

/// Pipelines and people of one host; the file is read at each start.
const TOKENS_MAX: usize = 256;

/// Of one name: the old one and its successor, while it is changed everywhere.
const OF_ONE_NAME: usize = 2;

/// Finds the token in a secret scan, and tells it from other tools'.
const PREFIX: &str = "flb_";

/// A token as it is kept.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Kept {
    pub id: String,
    pub name: String,
    pub role: Role,
    /// Empty: all.
    pub services: BTreeSet<ServiceName>,
    sha256: String,
    pub created_at: Timestamp,
    /// `None`: it does not expire.
    pub expires_at: Option<Timestamp>,
    /// Who made it.
    pub by: String,
}

impl Kept {
    pub fn is_good_at(&self, now: Timestamp) -> bool {
        self.expires_at.is_none_or(|at| now < at)
    }

    pub fn grant(&self) -> Grant {
        Grant { role: self.role, reach: Reach::of(self.services.clone()) }
    }
}

/// What a token is asked for.
#[derive(Debug, Clone)]
pub struct Wanted {
    pub name: String,
    pub role: Role,
    pub services: BTreeSet<ServiceName>,
    pub expires_at: Option<Timestamp>,
    pub by: String,
}

/// Why a token is not made or not taken back.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum NotDone {
    /// The caller asked for what cannot be.
    Refused(String),
    /// The state directory cannot be written.
    Failed(String),
}

pub struct Tokens {
    file: PathBuf,
    held: Mutex<Vec<Kept>>,
}

impl Tokens {
    /// A file that cannot be read is an error: starting without it would lock people out, or let revoked tokens back in
    /// once it is written anew.
    pub fn open(state_dir: &Path) -> Result<Tokens, String> {
        let file = state_dir.join("tokens.json");
        let wrong = |why: String| format!("{}: {why}", file.display());
        let held = match std::fs::read(&file) {
            Ok(bytes) => serde_json::from_slice(&bytes).map_err(|error| wrong(error.to_string()))?,
            Err(error) if error.kind() == ErrorKind::NotFound => Vec::new(),
            Err(error) => return Err(wrong(error.to_string())),
        };
        Ok(Tokens { file, held: Mutex::new(held) })
    }

    /// The one that was given, if it is known and has not expired.
    pub fn find(&self, given: &str, now: Timestamp) -> Option<Kept> {
        let id = given.strip_prefix(PREFIX)?.split('_').next()?;
        let digest = hex::encode(Sha256::digest(given.as_bytes()));
        let held = self.held.lock().unwrap_or_else(PoisonError::into_inner);
        let kept = held.iter().find(|kept| kept.id == id)?;
        let same: bool = digest.as_bytes().ct_eq(kept.sha256.as_bytes()).into();
        (same && kept.is_good_at(now)).then(|| kept.clone())
    }

    /// Whether a token of this id is still good.
    pub fn still(&self, id: &str, now: Timestamp) -> bool {
        let held = self.held.lock().unwrap_or_else(PoisonError::into_inner);
        held.iter().any(|kept| kept.id == id && kept.is_good_at(now))
    }

    pub fn list(&self) -> Vec<Kept> {
        self.held.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Makes one; the second part of the answer is the token, for its owner alone.
    pub fn create(&self, wanted: Wanted, now: Timestamp) -> Result<(Kept, String), NotDone> {
        let mut held = self.held.lock().unwrap_or_else(PoisonError::into_inner);
        // What has expired makes room.
        let mut after: Vec<Kept> = held.iter().filter(|kept| kept.is_good_at(now)).cloned().collect();
        let refuse = |why: String| Err(NotDone::Refused(why));
        if after.iter().filter(|kept| kept.name == wanted.name).count() >= OF_ONE_NAME {
            return refuse(format!("there are {OF_ONE_NAME} tokens called {} already: revoke one", wanted.name));
        }
        if after.len() >= TOKENS_MAX {
            return refuse(format!("there are {TOKENS_MAX} tokens already: revoke some"));
        }
        let (id, secret): ([u8; 4], [u8; 32]) = (rand::rng().random(), rand::rng().random());
        let id = hex::encode(id);
        if after.iter().any(|kept| kept.id == id) {
            return refuse("the new token's id is taken: try again".into());
        }
        let token = format!("{PREFIX}{id}_{}", hex::encode(secret));
        let Wanted { name, role, services, expires_at, by } = wanted;
        let sha256 = hex::encode(Sha256::digest(token.as_bytes()));
        let kept = Kept { id, name, role, services, sha256, created_at: now, expires_at, by };
        after.push(kept.clone());
        self.write(&after)?;
        *held = after;
        Ok((kept, token))
    }

    /// Takes back the token of this id, or all of this name; says which.
    pub fn revoke(&self, which: &str) -> Result<Vec<Kept>, NotDone> {
        let mut held = self.held.lock().unwrap_or_else(PoisonError::into_inner);
        let (gone, rest): (Vec<Kept>, Vec<Kept>) =
            held.iter().cloned().partition(|kept| kept.id == which || kept.name == which);
        if gone.is_empty() {
            return Ok(gone);
        }
        self.write(&rest)?;
        *held = rest;
        Ok(gone)
    }

    /// On disk before anybody is told: a revoked token does not come back with a power cut.
    fn write(&self, all: &[Kept]) -> Result<(), NotDone> {
        let fresh = self.file.with_extension("new");
        let write = || -> std::io::Result<()> {
            let text = serde_json::to_vec_pretty(all).map_err(std::io::Error::other)?;
            let mut file = OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&fresh)?;
            file.write_all(&text)?;
            file.sync_all()?;
            std::fs::rename(&fresh, &self.file)?;
            self.file.parent().map_or(Ok(()), |dir| File::open(dir)?.sync_all())
        };
        write().map_err(|error| NotDone::Failed(format!("{}: {error}", self.file.display())))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::time::Span;

    fn wanted(name: &str, expires_at: Option<Timestamp>) -> Wanted {
        let services = BTreeSet::from([ServiceName::try_new("checkout").unwrap()]);
        Wanted { name: name.into(), role: Role::Report, services, expires_at, by: "uid 0".into() }
    }

    #[test]
    fn a_token_is_known_again_until_it_expires_or_is_revoked() {
        let dir = tempfile::tempdir().unwrap();
        let tokens = Tokens::open(dir.path()).unwrap();
        let now = Timestamp::from_millis(1_000_000);
        let (kept, token) = tokens.create(wanted("ci", Some(now + Span::from_secs(60))), now).unwrap();
        assert_eq!(tokens.find(&token, now).map(|kept| kept.id), Some(kept.id.clone()));
        assert!(tokens.find(&token, now + Span::from_secs(60)).is_none(), "expired");
        assert!(tokens.find(&format!("{}0", &token[..token.len() - 1]), now).is_none_or(|_| token.ends_with('0')));
        // After a restart; and the token itself is nowhere on disk.
        let again = Tokens::open(dir.path()).unwrap();
        assert!(again.find(&token, now).is_some());
        let text = std::fs::read_to_string(dir.path().join("tokens.json")).unwrap();
        assert!(!text.contains(&token) && !text.contains(token.rsplit('_').next().unwrap()));
        assert_eq!(again.revoke("ci").unwrap().len(), 1);
        assert!(again.find(&token, now).is_none() && !again.still(&kept.id, now));
        assert!(Tokens::open(dir.path()).unwrap().find(&token, now).is_none());
    }

    #[test]
    fn two_of_one_name_and_a_bound_over_all() {
        let dir = tempfile::tempdir().unwrap();
        let tokens = Tokens::open(dir.path()).unwrap();
        let now = Timestamp::from_millis(1_000_000);
        assert!(tokens.create(wanted("ci", None), now).is_ok());
        assert!(tokens.create(wanted("ci", None), now).is_ok());
        assert!(matches!(tokens.create(wanted("ci", None), now), Err(NotDone::Refused(_))));
        std::fs::write(dir.path().join("tokens.json"), "[{").unwrap();
        assert!(Tokens::open(dir.path()).is_err());
    }
}
