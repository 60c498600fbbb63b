//! The one writer.

use std::fs::{self, DirBuilder, File};
use std::io::Write as _;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use rusqlite::{Connection, OptionalExtension, Transaction, TransactionBehavior, params};

use super::chain::{self, Hash};
use super::letters;
use super::readings::{self, Asked};
use super::{JournalError, Write, record, schema};
use crate::domain::signal::Observation;
use crate::domain::time::{Span, Timestamp};
use crate::domain::view::WatchView;
use crate::engine::message::{Command, Input, RecordedCells};

pub(super) const DATABASE: &str = "journal.db";
const LOCK: &str = "lock";

/// Cells are 15 s wide for six hours (any tick can be judged by them), minutes after that.
const FINE_CELLS_FOR: Span = Span::from_mins(6 * 60);
/// The long phase looks back 24 h, a pinned or backtested range a week.
const CELLS_FOR: Span = Span::from_mins(8 * 24 * 60);
/// A delivered notice is of interest for as long as somebody may ask "was I told?".
const NOTICES_FOR: Span = Span::from_mins(30 * 24 * 60);
/// A year and a month of history: last year's same week is still there.
const WATCHES_FOR: Span = Span::from_mins(400 * 24 * 60);
/// Readings of a breach: a post-mortem is written within weeks; half a megabyte each.
const READINGS_FOR: Span = Span::from_mins(60 * 24 * 60);
/// Inputs behind the last snapshot are kept for a while, for `journal verify` and post-mortems.
const INPUTS_FOR: Span = Span::from_mins(48 * 60);

pub struct Journal {
    connection: Connection,
    /// Hash of the last input: the next one is chained to it.
    head: Hash,
    asked: Asked,
    /// Held for as long as the journal lives: a second daemon is refused.
    _lock: File,
}

/// One input with its instant and what was decided about it.
#[derive(Debug, Clone, PartialEq)]
pub struct Entry {
    pub at: Timestamp,
    pub input: Input,
    pub commands: Vec<Command>,
}

/// What goes to disk together.
#[derive(Debug, Clone, Copy)]
pub struct Batch<'a> {
    pub entries: &'a [Entry],
    /// Views of the watches that the entries touched.
    pub views: &'a [WatchView],
    /// The engine's state after the entries.
    pub snapshot: Option<&'a str>,
    pub writes: &'a [Write],
    pub now: Timestamp,
}

#[derive(Debug, Clone, PartialEq)]
pub struct Snapshot {
    pub seq: i64,
    pub at: Timestamp,
    pub state_json: String,
}

/// Where the last process left off.
#[derive(Debug, Clone, PartialEq)]
pub struct Recovered {
    pub snapshot: Option<Snapshot>,
    /// The inputs after it, in their order.
    pub tail: Vec<(Timestamp, Input)>,
}

impl Recovered {
    /// The last instant that was written down.
    pub fn last_at(&self) -> Option<Timestamp> {
        // The clock may have been set back in between: the last one counts, not the latest.
        self.tail.last().map(|(at, _)| *at).or(self.snapshot.as_ref().map(|s| s.at))
    }
}

impl Journal {
    pub fn open(state_dir: &Path) -> Result<(Journal, Recovered), JournalError> {
        let directory = |error| JournalError::Directory { dir: state_dir.to_owned(), error };
        if !state_dir.exists() {
            DirBuilder::new().recursive(true).mode(0o700).create(state_dir).map_err(directory)?;
        }
        let lock = take_lock(state_dir)?;
        let path = state_dir.join(DATABASE);
        let fresh = !path.exists();
        if fresh {
            // Made by us, so that nobody else may read it from its first byte on.
            fs::OpenOptions::new().create_new(true).write(true).mode(0o600).open(&path).map_err(directory)?;
            File::open(state_dir).and_then(|dir| dir.sync_all()).map_err(directory)?;
        }
        let mut connection = Connection::open(&path)?;
        connection.pragma_update(None, "journal_mode", "WAL")?;
        connection.pragma_update(None, "synchronous", "FULL")?;
        connection.pragma_update(None, "foreign_keys", "ON")?;
        if !fresh {
            let verdict: String = connection.query_row("PRAGMA quick_check(1)", [], |row| row.get(0))?;
            if verdict != "ok" {
                return Err(JournalError::Broken(verdict));
            }
        }
        schema::migrate(&mut connection)?;
        let head = chain::head(&connection)?;
        chain::note_build(&connection)?;
        let journal = Journal { connection, head, asked: Asked::default(), _lock: lock };
        let recovered = journal.recovered()?;
        Ok((journal, recovered))
    }

    fn recovered(&self) -> Result<Recovered, JournalError> {
        let snapshot = self
            .connection
            .query_row("SELECT seq, at, state FROM snapshots ORDER BY seq DESC LIMIT 1", [], |row| {
                Ok(Snapshot { seq: row.get(0)?, at: Timestamp::from_millis(row.get(1)?), state_json: row.get(2)? })
            })
            .optional()?;
        let after = snapshot.as_ref().map_or(0, |s| s.seq);
        let mut statement = self.connection.prepare("SELECT at, v, input FROM inputs WHERE seq > ? ORDER BY seq")?;
        let rows = statement.query_map([after], |row| {
            Ok((Timestamp::from_millis(row.get(0)?), row.get::<_, i64>(1)?, row.get::<_, String>(2)?))
        })?;
        let mut tail = Vec::new();
        for row in rows {
            let (at, version, text) = row?;
            tail.push((at, record::decode("an input", version, &text)?));
        }
        Ok(Recovered { snapshot, tail })
    }

    /// One transaction, one sync. On an error nothing of the batch is there; after
    /// [`JournalError::Broken`] the process must end.
    pub fn commit(&mut self, batch: &Batch<'_>) -> Result<(), JournalError> {
        let transaction = self.connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
        let mut head = self.head;
        for entry in batch.entries {
            head = append(&transaction, entry, head, &mut self.asked)?;
        }
        for view in batch.views {
            put_view(&transaction, view)?;
            readings::put_judged(&transaction, view, batch.now)?;
        }
        for write in batch.writes {
            put(&transaction, write)?;
        }
        if let Some(state) = batch.snapshot {
            transaction.execute(
                "INSERT OR REPLACE INTO snapshots (seq, at, state, hash)
                 VALUES ((SELECT coalesce(max(seq), (SELECT coalesce(max(seq), 0) FROM snapshots)) FROM inputs), ?, ?, ?)",
                params![batch.now.as_millis(), state, head],
            )?;
            // The one before stays until the next: a snapshot that cannot be read is not the end.
            transaction.execute(
                "DELETE FROM snapshots WHERE kept = 0
                     AND seq NOT IN (SELECT seq FROM snapshots ORDER BY seq DESC LIMIT 2)",
                [],
            )?;
        }
        transaction.commit()?;
        self.head = head;
        Ok(())
    }
}

fn take_lock(dir: &Path) -> Result<File, JournalError> {
    let path: PathBuf = dir.join(LOCK);
    let directory = |error| JournalError::Directory { dir: dir.to_owned(), error };
    let mut lock = fs::OpenOptions::new()
        .create(true)
        .truncate(false)
        .read(true)
        .write(true)
        .mode(0o600)
        .open(&path)
        .map_err(directory)?;
    if lock.try_lock().is_err() {
        let pid = fs::read_to_string(&path).ok().and_then(|text| text.trim().parse().ok());
        return Err(JournalError::Locked { dir: dir.to_owned(), pid });
    }
    lock.set_len(0).and_then(|()| writeln!(lock, "{}", std::process::id())).map_err(directory)?;
    Ok(lock)
}

fn append(transaction: &Transaction<'_>, entry: &Entry, head: Hash, asked: &mut Asked) -> Result<Hash, JournalError> {
    let input = record::encode("an input", &entry.input)?;
    let decisions = entry.commands.iter().map(chain::decision).collect::<Result<Vec<_>, _>>()?;
    let hash = chain::link(&head, entry.at, record::VERSION, &input, &decisions);
    transaction.prepare_cached("INSERT INTO inputs (at, v, input, hash) VALUES (?, ?, ?, ?)")?.execute(params![
        entry.at.as_millis(),
        record::VERSION,
        input,
        hash
    ])?;
    let seq = transaction.last_insert_rowid();
    if let Input::StepEnded { attempt, state } = &entry.input {
        transaction
            .prepare_cached("UPDATE attempts SET state = ? WHERE attempt = ?")?
            .execute(params![record::encode("an attempt", state)?, attempt.to_string()])?;
    }
    if let Input::Observed { id, observation: Observation::Cell(_), .. } = &entry.input
        && let Some((service, slot)) = asked.of(id)
    {
        transaction
            .prepare_cached("INSERT INTO readings (seq, switch, service, slot) VALUES (?, ?, ?, ?)")?
            .execute(params![seq, id.switch.as_str(), service.as_str(), slot.as_str()])?;
    }
    for ((n, command), decision) in (0i64..).zip(&entry.commands).zip(&decisions) {
        if let Command::Notify { notice } = command {
            transaction
                .prepare_cached(
                    "INSERT OR IGNORE INTO outbox (key, first_at, next_at, v, notice) VALUES (?, ?, ?, ?, ?)",
                )?
                .execute(params![
                    notice.key.to_string(),
                    entry.at.as_millis(),
                    entry.at.as_millis(),
                    record::VERSION,
                    record::encode("a notice", notice)?
                ])?;
        }
        asked.note(command);
        if let Command::RunStep { run } = command {
            let done = transaction
                .prepare_cached("INSERT OR IGNORE INTO attempts (attempt, switch, at, run) VALUES (?, ?, ?, ?)")?
                .execute(params![
                    run.attempt.to_string(),
                    run.attempt.switch.as_str(),
                    entry.at.as_millis(),
                    record::encode("a step", run)?
                ])?;
            if done != 1 {
                return Err(JournalError::UsedTwice(run.attempt.to_string()));
            }
        }
        transaction
            .prepare_cached("INSERT INTO decisions (seq, n, v, command) VALUES (?, ?, ?, ?)")?
            .execute(params![seq, n, record::VERSION, decision])?;
    }
    Ok(hash)
}

fn put_view(transaction: &Transaction<'_>, view: &WatchView) -> Result<(), JournalError> {
    transaction
        .prepare_cached(
            "INSERT INTO watches (id, service, old_slot, new_slot, opened_at, ended_at, outcome, v, view)
             VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)
             ON CONFLICT (id) DO UPDATE SET ended_at = excluded.ended_at, outcome = excluded.outcome,
                 v = excluded.v, view = excluded.view",
        )?
        .execute(params![
            view.id.as_str(),
            view.switch.service.as_str(),
            view.switch.old.as_str(),
            view.switch.new.as_str(),
            view.opened_at.as_millis(),
            view.ended_at.map(Timestamp::as_millis),
            view.outcome.as_ref().map(crate::domain::verdict::Outcome::word),
            record::VERSION,
            record::encode("a watch", view)?
        ])?;
    Ok(())
}

fn put(transaction: &Transaction<'_>, write: &Write) -> Result<(), JournalError> {
    match write {
        Write::Cells(cells) => put_cells(transaction, cells)?,
        Write::LetterPosted { .. }
        | Write::LetterRouted { .. }
        | Write::LetterFellBack { .. }
        | Write::Delivered { .. }
        | Write::Delayed { .. }
        | Write::Dead { .. }
        | Write::NotNeeded { .. }
        | Write::Acknowledged { .. } => letters::put(transaction, write)?,
        Write::Invalidate { service, from, to, by, why } => {
            transaction.execute(
                "INSERT INTO marks (service, kind, began_at, ended_at, by_whom, why) VALUES (?, 'invalid', ?, ?, ?, ?)",
                params![service.as_str(), from.as_millis(), to.as_millis(), by, why],
            )?;
        }
        Write::Pin { service, from, to, by, why } => {
            transaction.execute("DELETE FROM marks WHERE service = ? AND kind = 'pin'", [service.as_str()])?;
            transaction.execute(
                "INSERT INTO marks (service, kind, began_at, ended_at, by_whom, why) VALUES (?, 'pin', ?, ?, ?, ?)",
                params![service.as_str(), from.as_millis(), to.as_millis(), by, why],
            )?;
        }
        Write::Unpin { service, by: _ } => {
            transaction.execute("DELETE FROM marks WHERE service = ? AND kind = 'pin'", [service.as_str()])?;
        }
        Write::Prune { now } => prune(transaction, *now)?,
    }
    Ok(())
}

fn put_cells(transaction: &Transaction<'_>, recorded: &RecordedCells) -> Result<(), JournalError> {
    let mut insert = transaction.prepare_cached(
        "INSERT OR IGNORE INTO cells (service, slot, ended_at, began_at, requests, bad, latency)
         VALUES (?, ?, ?, ?, ?, ?, ?)",
    )?;
    for cell in &recorded.cells {
        let latency = cell.latency.as_ref().map(|buckets| record::encode("a histogram", buckets)).transpose()?;
        insert.execute(params![
            recorded.service.as_str(),
            recorded.slot.as_str(),
            cell.to.as_millis(),
            cell.from.as_millis(),
            cell.counts.requests(),
            cell.counts.bad(),
            latency
        ])?;
    }
    Ok(())
}

fn prune(transaction: &Transaction<'_>, now: Timestamp) -> Result<(), JournalError> {
    let before = |span: Span| (now - span).as_millis();
    transaction.execute("DELETE FROM cells WHERE ended_at < ?", [before(CELLS_FOR)])?;
    // Minutes after six hours. Histograms cannot be added in SQL.
    merge_to_minutes(transaction, before(FINE_CELLS_FOR))?;
    chain::prune(transaction, now, INPUTS_FOR)?;
    readings::prune(transaction, before(READINGS_FOR))?;
    letters::prune(transaction, before(NOTICES_FOR))?;
    transaction.execute("DELETE FROM watches WHERE ended_at < ?", [before(WATCHES_FOR)])?;
    transaction.execute("DELETE FROM attempts WHERE switch NOT IN (SELECT id FROM watches)", [])?;
    transaction.execute("DELETE FROM marks WHERE ended_at < ? AND kind = 'invalid'", [before(CELLS_FOR)])?;
    Ok(())
}

/// service, slot, end, begin, requests, bad, latency
type Row = (String, String, i64, i64, f64, f64, Option<String>);

const MINUTE_MS: i64 = 60_000;

/// Cells shorter than a minute become minutes, in whole minutes up to `before`.
fn merge_to_minutes(transaction: &Transaction<'_>, before: i64) -> Result<(), JournalError> {
    /// One pass does so many: a prune must not hold the writer for long; the next hour goes on.
    const PASS_MAX: i64 = 20_000;
    let before = before.div_euclid(MINUTE_MS) * MINUTE_MS;
    let mut rows: Vec<Row> = Vec::new();
    {
        let mut select = transaction.prepare(
            "SELECT service, slot, ended_at, began_at, requests, bad, latency FROM cells
             WHERE ended_at <= ? AND ended_at - began_at < ? ORDER BY service, slot, ended_at LIMIT ?",
        )?;
        let found = select.query_map(params![before, MINUTE_MS, PASS_MAX], read_row)?;
        for row in found {
            rows.push(row?);
        }
    }
    for group in rows.chunk_by(|a, b| a.0 == b.0 && a.1 == b.1 && minute(a.2) == minute(b.2)) {
        merge_minute(transaction, group)?;
    }
    Ok(())
}

/// The minute that an instant ends in: cells end at its end at the latest.
fn minute(ended_at: i64) -> i64 {
    (ended_at - 1).div_euclid(MINUTE_MS)
}

fn read_row(row: &rusqlite::Row<'_>) -> rusqlite::Result<Row> {
    Ok((row.get(0)?, row.get(1)?, row.get(2)?, row.get(3)?, row.get(4)?, row.get(5)?, row.get(6)?))
}

/// Fine cells of one slot and one minute become one; a part of the minute that was merged before (an
/// earlier pass ended inside it, or its cells came late) is in it too.
fn merge_minute(transaction: &Transaction<'_>, fine: &[Row]) -> Result<(), JournalError> {
    let Some(first) = fine.first() else { return Ok(()) };
    let ended_at = (minute(first.2) + 1) * MINUTE_MS;
    let key = params![first.0, first.1, ended_at];
    let merged_before = transaction
        .prepare_cached(
            "SELECT service, slot, ended_at, began_at, requests, bad, latency FROM cells
             WHERE service = ? AND slot = ? AND ended_at = ?",
        )?
        .query_row(key, read_row)
        .optional()?
        .filter(|row| row.2 - row.3 >= MINUTE_MS);
    let (mut requests, mut bad, mut began_at) = (0.0, 0.0, ended_at - MINUTE_MS);
    let (mut latency, mut whole) = (crate::domain::counts::Buckets::default(), true);
    for row in fine.iter().chain(&merged_before) {
        requests += row.4;
        bad += row.5;
        began_at = began_at.min(row.3);
        let Some(text) = &row.6 else { continue };
        // Histograms of other bounds cannot be added: better none than half of one.
        match latency.plus(&record::decode("a histogram", record::VERSION, text)?) {
            Some(sum) => latency = sum,
            None => whole = false,
        }
    }
    for row in fine {
        transaction
            .prepare_cached("DELETE FROM cells WHERE service = ? AND slot = ? AND ended_at = ?")?
            .execute(params![row.0, row.1, row.2])?;
    }
    let latency = (whole && latency.total() > 0.0).then(|| record::encode("a histogram", &latency)).transpose()?;
    // A merged cell is a minute wide on the clock even where a quarter of it had no sample, so that it
    // is not merged again; its counts are what was there.
    transaction
        .prepare_cached(
            "INSERT OR REPLACE INTO cells (service, slot, ended_at, began_at, requests, bad, latency)
             VALUES (?, ?, ?, ?, ?, ?, ?)",
        )?
        .execute(params![first.0, first.1, ended_at, began_at, requests, bad, latency])?;
    Ok(())
}
