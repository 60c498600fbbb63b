//! A chain of hashes over inputs and decisions, so that an audit can trust what the journal says; what pruning
//! leaves to begin from; and one switch's part of it all, for people.
//!
//! The hash of an input covers the one before it, its instant, its text and everything decided about it. A notice
//! is kept once, in the outbox: its decision is its key and the digest of its text.

use rusqlite::{Connection, OptionalExtension, Transaction};
use serde::Serialize;
use serde_json::Value;
use sha2::{Digest, Sha256};

use super::letters;
use super::read::Reader;
use super::readings;
use super::{JournalError, record};
use crate::domain::switch::SwitchId;
use crate::domain::time::{Span, Timestamp};
use crate::engine::message::{Command, Input};

pub(super) type Hash = [u8; 32];

/// Before the first input.
const GENESIS: Hash = [0; 32];

/// Snapshots to begin an audit from are kept this far apart.
const ANCHOR_EVERY: Span = Span::from_mins(24 * 60);

/// A command as the journal keeps it, under the input that it was decided about.
pub fn decision(command: &Command) -> Result<String, JournalError> {
    match command {
        Command::Notify { notice } => {
            let text = record::encode("a notice", notice)?;
            let noted = serde_json::json!({ "notified": { "key": notice.key, "sha256": hex(&digest(&text)) } });
            Ok(noted.to_string())
        }
        _ => record::encode("a command", command),
    }
}

pub(super) fn link(head: &Hash, at: Timestamp, version: i64, input: &str, decisions: &[String]) -> Hash {
    let mut hasher = Sha256::new();
    hasher.update(head);
    hasher.update(at.as_millis().to_be_bytes());
    hasher.update(version.to_be_bytes());
    for text in std::iter::once(input).chain(decisions.iter().map(String::as_str)) {
        // With its length: no two ways to cut the same bytes.
        hasher.update((text.len() as u64).to_be_bytes());
        hasher.update(text);
    }
    hasher.finalize().into()
}

/// Where the chain stands.
pub(super) fn head(connection: &Connection) -> Result<Hash, JournalError> {
    let last: Option<Hash> =
        connection.query_row("SELECT hash FROM inputs ORDER BY seq DESC LIMIT 1", [], |row| row.get(0)).optional()?;
    if let Some(hash) = last {
        return Ok(hash);
    }
    let anchor: Option<Hash> = connection
        .query_row("SELECT hash FROM snapshots ORDER BY seq DESC LIMIT 1", [], |row| row.get(0))
        .optional()?;
    Ok(anchor.unwrap_or(GENESIS))
}

/// Which version decides from here on: another one may decide otherwise, and that is no forgery.
pub(super) fn note_build(connection: &Connection) -> Result<(), JournalError> {
    let version = env!("CARGO_PKG_VERSION");
    let last: Option<String> = connection
        .query_row("SELECT version FROM builds ORDER BY rowid DESC LIMIT 1", [], |row| row.get(0))
        .optional()?;
    if last.as_deref() != Some(version) {
        connection.execute(
            "INSERT INTO builds (after, at, version)
             SELECT coalesce(max(seq), 0), coalesce(max(at), 0), ? FROM inputs",
            [version],
        )?;
    }
    Ok(())
}

/// Inputs older than `keep` go, up to a snapshot that stays as the anchor of what is left.
pub(super) fn prune(transaction: &Transaction<'_>, now: Timestamp, keep: Span) -> Result<(), JournalError> {
    let since = (now - ANCHOR_EVERY).as_millis();
    transaction.execute(
        "UPDATE snapshots SET kept = 1
         WHERE seq = (SELECT max(seq) FROM snapshots)
           AND NOT EXISTS (SELECT 1 FROM snapshots WHERE kept = 1 AND at > ?)",
        [since],
    )?;
    let anchor: Option<i64> = transaction.query_row(
        "SELECT max(seq) FROM snapshots WHERE kept = 1 AND at < ?",
        [(now - keep).as_millis()],
        |row| row.get(0),
    )?;
    if let Some(anchor) = anchor {
        readings::keep(transaction, anchor)?;
        transaction.execute("DELETE FROM inputs WHERE seq <= ?", [anchor])?;
        transaction.execute("DELETE FROM snapshots WHERE seq < ?", [anchor])?;
    }
    Ok(())
}

/// One input with what was decided about it, as an audit reads it.
#[derive(Debug, Clone, PartialEq)]
pub struct Link {
    pub seq: i64,
    pub at: Timestamp,
    pub input: Input,
    pub decisions: Vec<String>,
    /// The version that decided.
    pub version: String,
    /// A snapshot that was taken right after it.
    pub snapshot: Option<String>,
}

/// What the chain itself shows.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Audit {
    pub inputs: u64,
    pub first: i64,
    pub last: i64,
    /// The state that the first input met, where older ones were pruned: a snapshot with its own hash.
    pub anchor: Option<i64>,
    /// Hash of the last input.
    pub head: String,
    /// Where the chain is broken, in words.
    pub broken: Vec<String>,
}

impl Reader {
    /// Walks the whole chain, oldest first. `begin` is told the state of the anchor (if there is one), `each` every
    /// link whose hash was checked.
    pub fn audit(
        &self,
        mut begin: impl FnMut(Option<String>) -> Result<(), JournalError>,
        mut each: impl FnMut(Link) -> Result<(), JournalError>,
    ) -> Result<Audit, JournalError> {
        /// More than some broken links say nothing new.
        const BROKEN_MAX: usize = 20;
        let connection = self.connect()?;
        // One view of the file, whatever the daemon writes meanwhile.
        connection.execute_batch("BEGIN")?;
        let first: Option<i64> = connection.query_row("SELECT min(seq) FROM inputs", [], |row| row.get(0))?;
        let first = first.unwrap_or(1);
        let anchor: Option<(i64, String, Hash)> = connection
            .query_row("SELECT seq, state, hash FROM snapshots WHERE seq = ?", [first - 1], |row| {
                Ok((row.get(0)?, row.get(1)?, row.get(2)?))
            })
            .optional()?;
        let mut audit = Audit {
            inputs: 0,
            first,
            last: first - 1,
            anchor: anchor.as_ref().map(|(seq, ..)| *seq),
            head: String::new(),
            broken: Vec::new(),
        };
        let mut head = match &anchor {
            Some((_, _, hash)) => *hash,
            None => GENESIS,
        };
        if first > 1 && anchor.is_none() {
            audit.broken.push(format!("input {first} is the first, and there is no anchor before it"));
        }
        begin(anchor.map(|(_, state, _)| state))?;
        let mut inputs = connection.prepare("SELECT seq, at, v, input, hash FROM inputs ORDER BY seq")?;
        let mut decisions = connection.prepare("SELECT command FROM decisions WHERE seq = ? ORDER BY n")?;
        let mut notice = connection.prepare("SELECT notice FROM outbox WHERE key = ?")?;
        let mut version =
            connection.prepare("SELECT version FROM builds WHERE after < ? ORDER BY rowid DESC LIMIT 1")?;
        let mut snapshot = connection.prepare("SELECT state, hash FROM snapshots WHERE seq = ?")?;
        let mut rows = inputs.query([])?;
        while let Some(row) = rows.next()? {
            let (seq, at, v): (i64, i64, i64) = (row.get(0)?, row.get(1)?, row.get(2)?);
            let (text, stored): (String, Hash) = (row.get(3)?, row.get(4)?);
            let decided: Vec<String> = decisions.query_map([seq], |row| row.get(0))?.collect::<Result<_, _>>()?;
            let mut wrong = |what: String| {
                if audit.broken.len() < BROKEN_MAX {
                    audit.broken.push(what);
                }
            };
            if seq != audit.last + 1 {
                wrong(format!("input {seq} follows {}: what was between them is gone", audit.last));
            }
            let at = Timestamp::from_millis(at);
            if link(&head, at, v, &text, &decided) != stored {
                wrong(format!("input {seq} of {at}: its hash is not that of what stands there"));
            }
            for key in decided.iter().filter_map(|d| noted(d)) {
                let kept: Option<String> = notice.query_row([&key.0], |row| row.get(0)).optional()?;
                if kept.is_some_and(|text| hex(&digest(&text)) != key.1) {
                    wrong(format!("notice {} is not the one that was decided at input {seq}", key.0));
                }
            }
            let taken: Option<(String, Hash)> =
                snapshot.query_row([seq], |row| Ok((row.get(0)?, row.get(1)?))).optional()?;
            if taken.as_ref().is_some_and(|(_, hash)| *hash != stored) {
                wrong(format!("the snapshot after input {seq} has another hash"));
            }
            // One broken link is one finding: the next is checked against what is stored.
            head = stored;
            audit.last = seq;
            audit.inputs += 1;
            each(Link {
                seq,
                at,
                input: record::decode("an input", v, &text)?,
                decisions: decided,
                version: version.query_row([seq], |row| row.get(0)).optional()?.unwrap_or_default(),
                snapshot: taken.map(|(state, _)| state),
            })?;
        }
        audit.head = hex(&head);
        Ok(audit)
    }

    /// Everything that the journal has of one switch.
    pub fn bundle(&self, id: &SwitchId) -> Result<Option<Bundle>, JournalError> {
        let connection = self.connect()?;
        connection.execute_batch("BEGIN")?;
        let watch: Option<String> = connection
            .query_row("SELECT view FROM watches WHERE id = ?", [id.as_str()], |row| row.get(0))
            .optional()?;
        let Some(watch) = watch else { return Ok(None) };
        // Ids are names of a narrow alphabet: nothing in them is a wildcard but the underscore, which the
        // exact comparison below sorts out.
        let named = format!("\"switch\":\"{id}\"");
        let like = format!("%{named}%");
        let mut statement = connection.prepare(
            "SELECT i.seq, i.at, i.input, i.hash FROM inputs i WHERE i.input LIKE ?1
             OR EXISTS (SELECT 1 FROM decisions d WHERE d.seq = i.seq AND d.command LIKE ?1) ORDER BY i.seq",
        )?;
        let mut decisions = connection.prepare("SELECT command FROM decisions WHERE seq = ? ORDER BY n")?;
        let mut entries = Vec::new();
        let mut rows = statement.query([&like])?;
        while let Some(row) = rows.next()? {
            let seq: i64 = row.get(0)?;
            let (input, hash): (String, Hash) = (row.get(2)?, row.get(3)?);
            let all: Vec<String> = decisions.query_map([seq], |row| row.get(0))?.collect::<Result<_, _>>()?;
            let of_it: Vec<Value> = all.iter().filter(|d| d.contains(&named)).map(|d| json(d)).collect();
            if input.contains(&named) || !of_it.is_empty() {
                let at = Timestamp::from_millis(row.get(1)?);
                entries.push(BundleEntry {
                    seq,
                    at: at.to_string(),
                    input: json(&input),
                    decisions: of_it,
                    hash: hex(&hash),
                });
            }
        }
        let mut statement =
            connection.prepare("SELECT attempt, at, run, state FROM attempts WHERE switch = ? ORDER BY at, attempt")?;
        let attempts = statement
            .query_map([id.as_str()], |row| {
                let (run, state): (String, Option<String>) = (row.get(2)?, row.get(3)?);
                Ok(BundleAttempt {
                    attempt: row.get(0)?,
                    intended_at: Timestamp::from_millis(row.get(1)?).to_string(),
                    run: json(&run),
                    state: state.map(|s| json(&s)),
                })
            })?
            .collect::<Result<_, _>>()?;
        let mut statement = connection.prepare(
            "SELECT key, first_at, fallback_at, notice FROM outbox
             WHERE kind = 'notice' AND key LIKE ? ORDER BY first_at, rowid",
        )?;
        let prefix = format!("{id}.n");
        let notices: Vec<BundleNotice> = statement
            .query_map([format!("{prefix}%")], |row| {
                let when = |at: Option<i64>| at.map(|ms| Timestamp::from_millis(ms).to_string());
                let notice: String = row.get(3)?;
                let key: String = row.get(0)?;
                Ok(BundleNotice {
                    deliveries: letters::bundled(&connection, &key)?,
                    key,
                    decided_at: Timestamp::from_millis(row.get(1)?).to_string(),
                    fallback_at: when(row.get(2)?),
                    reason: json(&notice)["reason"].clone(),
                })
            })?
            .filter(|row| row.as_ref().map_or(true, |n| n.key.starts_with(&prefix)))
            .collect::<Result<_, _>>()?;
        Ok(Some(Bundle { switch: id.to_string(), watch: json(&watch), entries, attempts, notices }))
    }
}

/// One switch's evidence: readings, queries, decisions, outputs, notices.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Bundle {
    pub switch: String,
    pub watch: Value,
    /// Inputs that concern it, with what was decided about it; those behind the last anchor are pruned.
    pub entries: Vec<BundleEntry>,
    pub attempts: Vec<BundleAttempt>,
    pub notices: Vec<BundleNotice>,
}

#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct BundleEntry {
    pub seq: i64,
    pub at: String,
    pub input: Value,
    pub decisions: Vec<Value>,
    pub hash: String,
}

#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct BundleAttempt {
    pub attempt: String,
    pub intended_at: String,
    pub run: Value,
    pub state: Option<Value>,
}

#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct BundleNotice {
    pub key: String,
    pub reason: Value,
    pub decided_at: String,
    pub fallback_at: Option<String>,
    pub deliveries: Vec<BundleDelivery>,
}

#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct BundleDelivery {
    /// `receiver/kind`.
    pub channel: String,
    pub nth: u32,
    pub delivered_at: Option<String>,
    pub given_up_at: Option<String>,
    pub tries: u32,
    pub error: Option<String>,
}

/// Key (as text) and digest of a decision that is a notice.
fn noted(decision: &str) -> Option<(String, String)> {
    let value = decision.starts_with("{\"notified\"").then(|| json(decision))?;
    let key = &value["notified"]["key"];
    let text = format!("{}.n{}", key["switch"].as_str()?, key["n"].as_u64()?);
    Some((text, value["notified"]["sha256"].as_str()?.to_owned()))
}

/// Our own JSON; should a row be damaged, its text is shown as it is.
fn json(text: &str) -> Value {
    serde_json::from_str(text).unwrap_or_else(|_| Value::String(text.to_owned()))
}

fn digest(text: &str) -> Hash {
    Sha256::digest(text).into()
}

fn hex(hash: &Hash) -> String {
    hash.iter().map(|b| format!("{b:02x}")).collect()
}
