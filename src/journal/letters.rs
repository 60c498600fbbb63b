//! The outbox on disk: letters, and the delivery of each to each of its channels.

use rusqlite::{Connection, OptionalExtension, Row, Transaction, params};

use super::chain::BundleDelivery;
use super::{JournalError, Reader, Write, record};
use crate::domain::letter::{DeliveryKey, Letter, LetterKey};
use crate::domain::notice::{Notice, NoticeReason};
use crate::domain::switch::SwitchId;
use crate::domain::time::{Span, Timestamp};

/// A letter on its way to a channel.
#[derive(Debug, Clone, PartialEq)]
pub struct Queued {
    pub key: DeliveryKey,
    pub letter: Letter,
    pub tries: u32,
    /// When it was due for the first time.
    pub first_at: Timestamp,
    /// How often this channel reminds of what stands.
    pub repeat: Option<Span>,
    /// The letter went out by the fallback already.
    pub fell_back: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct OutboxStats {
    pub undelivered: i64,
    pub oldest_at: Option<Timestamp>,
    pub dead: i64,
}

pub(super) fn put(transaction: &Transaction<'_>, write: &Write) -> Result<(), JournalError> {
    match write {
        Write::LetterPosted { letter, at } => {
            let (kind, text) = match &**letter {
                Letter::Notice(notice) => ("notice", record::encode("a notice", notice)?),
                Letter::Undeliverable(_) | Letter::Digest(_) => ("letter", record::encode("a letter", letter)?),
            };
            transaction.execute(
                "INSERT OR IGNORE INTO outbox (key, kind, first_at, next_at, v, notice) VALUES (?1, ?2, ?3, ?3, ?4, ?5)",
                params![letter.key().0, kind, at.as_millis(), record::VERSION, text],
            )?;
        }
        Write::LetterRouted { letter, to, at } => {
            let first_at: Option<i64> = transaction
                .query_row("SELECT first_at FROM outbox WHERE key = ?", [&letter.0], |row| row.get(0))
                .optional()?;
            for to in to {
                transaction.execute(
                    "INSERT OR IGNORE INTO deliveries (letter, channel, nth, first_at, next_at, repeat_ms)
                     VALUES (?, ?, 0, ?, ?, ?)",
                    params![
                        letter.0,
                        to.channel,
                        first_at.unwrap_or(at.as_millis()),
                        at.as_millis(),
                        to.repeat.map(|r| i64::try_from(r.as_millis()).unwrap_or(i64::MAX))
                    ],
                )?;
            }
            transaction.execute("UPDATE outbox SET next_at = NULL WHERE key = ?", [&letter.0])?;
        }
        Write::LetterFellBack { letter, at } => {
            transaction
                .execute("UPDATE outbox SET fallback_at = ? WHERE key = ?", params![at.as_millis(), letter.0])?;
        }
        Write::Delivered { key, at } => {
            transaction.execute(
                "UPDATE deliveries SET delivered_at = ?, next_at = NULL, tries = tries + 1
                 WHERE letter = ? AND channel = ? AND nth = ?",
                params![at.as_millis(), key.letter.0, key.channel, key.nth],
            )?;
            // The next reminder; whether it is needed is seen when its time has come.
            transaction.execute(
                "INSERT OR IGNORE INTO deliveries (letter, channel, nth, first_at, next_at, repeat_ms)
                 SELECT letter, channel, nth + 1, ?1 + repeat_ms, ?1 + repeat_ms, repeat_ms FROM deliveries
                 WHERE letter = ?2 AND channel = ?3 AND nth = ?4 AND repeat_ms IS NOT NULL",
                params![at.as_millis(), key.letter.0, key.channel, key.nth],
            )?;
        }
        Write::Delayed { key, next_at, error } => {
            transaction.execute(
                "UPDATE deliveries SET next_at = ?, tries = tries + 1, error = ?
                 WHERE letter = ? AND channel = ? AND nth = ? AND next_at IS NOT NULL",
                params![next_at.as_millis(), error, key.letter.0, key.channel, key.nth],
            )?;
        }
        Write::Dead { key, at, error } => {
            transaction.execute(
                "UPDATE deliveries SET dead_at = ?, next_at = NULL, tries = tries + 1, error = ?
                 WHERE letter = ? AND channel = ? AND nth = ?",
                params![at.as_millis(), error, key.letter.0, key.channel, key.nth],
            )?;
        }
        Write::NotNeeded { key } => {
            transaction.execute(
                "DELETE FROM deliveries WHERE letter = ? AND channel = ? AND nth = ? AND nth > 0",
                params![key.letter.0, key.channel, key.nth],
            )?;
        }
        Write::Acknowledged { switch } => {
            // Ids are of a narrow alphabet; the dot ends this one.
            let prefix = format!("{switch}.n");
            transaction.execute(
                "DELETE FROM deliveries WHERE instr(letter, ?) = 1 AND nth > 0 AND delivered_at IS NULL",
                [&prefix],
            )?;
        }
        Write::Cells(_) | Write::Invalidate { .. } | Write::Pin { .. } | Write::Unpin { .. } | Write::Prune { .. } => {}
    }
    Ok(())
}

pub(super) fn prune(transaction: &Transaction<'_>, before: i64) -> Result<(), JournalError> {
    transaction.execute(
        "DELETE FROM outbox WHERE next_at IS NULL AND first_at < ?1
         AND NOT EXISTS (SELECT 1 FROM deliveries d WHERE d.letter = outbox.key AND d.next_at IS NOT NULL)",
        [before],
    )?;
    transaction.execute("DELETE FROM deliveries WHERE letter NOT IN (SELECT key FROM outbox)", [])?;
    Ok(())
}

fn letter(row: &Row<'_>, from: usize) -> Result<Letter, JournalError> {
    let (kind, v, text): (String, i64, String) = (row.get(from)?, row.get(from + 1)?, row.get(from + 2)?);
    if kind == "notice" {
        return Ok(Letter::Notice(Box::new(record::decode("a notice", v, &text)?)));
    }
    record::decode("a letter", v, &text)
}

impl Reader {
    /// Letters that no channel was chosen for yet, oldest first.
    pub fn unrouted(&self, limit: u32) -> Result<Vec<Letter>, JournalError> {
        let connection = self.connect()?;
        let mut statement = connection
            .prepare("SELECT kind, v, notice FROM outbox WHERE next_at IS NOT NULL ORDER BY first_at, rowid LIMIT ?")?;
        let mut rows = statement.query([limit])?;
        let mut found = Vec::new();
        while let Some(row) = rows.next()? {
            found.push(letter(row, 0)?);
        }
        Ok(found)
    }

    /// What is due for a channel, oldest first.
    pub fn due(&self, channel: &str, now: Timestamp, limit: u32) -> Result<Vec<Queued>, JournalError> {
        let connection = self.connect()?;
        let mut statement = connection.prepare(
            "SELECT o.kind, o.v, o.notice, d.letter, d.nth, d.tries, d.first_at, d.repeat_ms, o.fallback_at IS NOT NULL
             FROM deliveries d JOIN outbox o ON o.key = d.letter
             WHERE d.channel = ? AND d.next_at IS NOT NULL AND d.next_at <= ?
             ORDER BY d.first_at, o.rowid LIMIT ?",
        )?;
        let mut rows = statement.query(params![channel, now.as_millis(), limit])?;
        let mut found = Vec::new();
        while let Some(row) = rows.next()? {
            found.push(Queued {
                letter: letter(row, 0)?,
                key: DeliveryKey { letter: LetterKey(row.get(3)?), channel: channel.to_owned(), nth: row.get(4)? },
                tries: row.get(5)?,
                first_at: Timestamp::from_millis(row.get(6)?),
                repeat: row
                    .get::<_, Option<i64>>(7)?
                    .map(|ms| Span::from_millis(u64::try_from(ms).unwrap_or_default())),
                fell_back: row.get(8)?,
            });
        }
        Ok(found)
    }

    /// When something is due for a channel next.
    pub fn next_due(&self, channel: &str) -> Result<Option<Timestamp>, JournalError> {
        let at: Option<i64> = self.connect()?.query_row(
            "SELECT min(next_at) FROM deliveries WHERE channel = ? AND next_at IS NOT NULL",
            [channel],
            |row| row.get(0),
        )?;
        Ok(at.map(Timestamp::from_millis))
    }

    /// Channels that something waits for.
    pub fn waiting_channels(&self) -> Result<Vec<String>, JournalError> {
        let connection = self.connect()?;
        let mut statement = connection.prepare("SELECT DISTINCT channel FROM deliveries WHERE next_at IS NOT NULL")?;
        let rows = statement.query_map([], |row| row.get(0))?;
        Ok(rows.collect::<Result<_, _>>()?)
    }

    /// Channels that a notice of this switch went to, or is on its way to.
    pub fn channels_told(&self, switch: &SwitchId) -> Result<Vec<String>, JournalError> {
        let connection = self.connect()?;
        let prefix = format!("{switch}.n");
        let mut statement = connection.prepare(
            "SELECT DISTINCT d.channel FROM deliveries d JOIN outbox o ON o.key = d.letter
             WHERE instr(d.letter, ?) = 1 AND o.kind = 'notice' AND d.dead_at IS NULL",
        )?;
        let rows = statement.query_map([&prefix], |row| row.get(0))?;
        Ok(rows.collect::<Result<_, _>>()?)
    }

    /// What was told of this switch before its notice `n`, oldest first.
    pub fn told_before(&self, notice: &Notice) -> Result<Vec<(u32, NoticeReason, Timestamp)>, JournalError> {
        Ok(self.told_of(&notice.key.switch)?.into_iter().filter(|(n, ..)| *n < notice.key.n).collect())
    }

    /// All notices of a switch.
    pub fn told_of(&self, switch: &SwitchId) -> Result<Vec<(u32, NoticeReason, Timestamp)>, JournalError> {
        let connection = self.connect()?;
        let prefix = format!("{switch}.n");
        let mut statement = connection.prepare(
            "SELECT key, first_at, json_extract(notice, '$.reason') FROM outbox
             WHERE kind = 'notice' AND instr(key, ?) = 1 ORDER BY first_at, rowid",
        )?;
        let mut rows = statement.query([&prefix])?;
        let mut found = Vec::new();
        while let Some(row) = rows.next()? {
            let (key, at, word): (String, i64, String) = (row.get(0)?, row.get(1)?, row.get(2)?);
            let reason = serde_json::from_value(serde_json::Value::String(word));
            if let (Ok(n), Ok(reason)) = (key[prefix.len()..].parse(), reason) {
                found.push((n, reason, Timestamp::from_millis(at)));
            }
        }
        Ok(found)
    }

    pub fn outbox_stats(&self, now: Timestamp) -> Result<OutboxStats, JournalError> {
        // A reminder whose time has not come is no arrear.
        let stats = self.connect()?.query_row(
            "SELECT count(*), min(first_at),
                    (SELECT count(DISTINCT letter) FROM deliveries WHERE dead_at IS NOT NULL)
             FROM (SELECT key, first_at FROM outbox WHERE next_at IS NOT NULL
                   UNION ALL
                   SELECT letter, min(first_at) FROM deliveries
                   WHERE next_at IS NOT NULL AND (nth = 0 OR first_at <= ?) GROUP BY letter)",
            [now.as_millis()],
            |row| {
                Ok(OutboxStats {
                    undelivered: row.get(0)?,
                    oldest_at: row.get::<_, Option<i64>>(1)?.map(Timestamp::from_millis),
                    dead: row.get(2)?,
                })
            },
        )?;
        Ok(stats)
    }
}

/// The deliveries of one letter, for a switch's bundle.
pub(super) fn bundled(connection: &Connection, letter: &str) -> rusqlite::Result<Vec<BundleDelivery>> {
    let mut statement = connection.prepare_cached(
        "SELECT channel, nth, delivered_at, dead_at, tries, error FROM deliveries WHERE letter = ? ORDER BY channel, nth",
    )?;
    let when = |at: Option<i64>| at.map(|ms| Timestamp::from_millis(ms).to_string());
    statement
        .query_map([letter], |row| {
            Ok(BundleDelivery {
                channel: row.get(0)?,
                nth: row.get(1)?,
                delivered_at: when(row.get(2)?),
                given_up_at: when(row.get(3)?),
                tries: row.get(4)?,
                error: row.get(5)?,
            })
        })?
        .collect()
}
