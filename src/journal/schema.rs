//! The tables, and the way from an older schema to this one.

use rusqlite::Connection;

use super::JournalError;

/// Each entry brings the schema one version further; entries are never edited once they are released.
const MIGRATIONS: [&str; 3] = [
    FIRST,
    // Notices go to several channels, each with a delivery of its own; and readings are found by their switch.
    SECOND,
    // What was said at each tick; and the readings of a breach outlive the inputs that they came with.
    THIRD,
];

const FIRST: &str = r"
CREATE TABLE inputs (
    seq   INTEGER PRIMARY KEY AUTOINCREMENT,
    at    INTEGER NOT NULL,
    v     INTEGER NOT NULL,
    input TEXT    NOT NULL,
    hash  BLOB    NOT NULL
) STRICT;
CREATE TABLE decisions (
    seq     INTEGER NOT NULL REFERENCES inputs (seq) ON DELETE CASCADE,
    n       INTEGER NOT NULL,
    v       INTEGER NOT NULL,
    command TEXT    NOT NULL,
    PRIMARY KEY (seq, n)
) STRICT, WITHOUT ROWID;
CREATE TABLE snapshots (
    seq   INTEGER PRIMARY KEY,
    at    INTEGER NOT NULL,
    state TEXT    NOT NULL,
    hash  BLOB    NOT NULL,
    kept  INTEGER NOT NULL DEFAULT 0
) STRICT;
CREATE TABLE builds (
    after   INTEGER NOT NULL,
    at      INTEGER NOT NULL,
    version TEXT    NOT NULL
) STRICT;
CREATE TABLE watches (
    id        TEXT    PRIMARY KEY,
    service   TEXT    NOT NULL,
    old_slot  TEXT    NOT NULL,
    new_slot  TEXT    NOT NULL,
    opened_at INTEGER NOT NULL,
    ended_at  INTEGER,
    outcome   TEXT,
    v         INTEGER NOT NULL,
    view      TEXT    NOT NULL
) STRICT;
CREATE INDEX watches_by_time ON watches (opened_at);
CREATE TABLE attempts (
    attempt TEXT    PRIMARY KEY,
    switch  TEXT    NOT NULL,
    at      INTEGER NOT NULL,
    run     TEXT    NOT NULL,
    state   TEXT
) STRICT;
CREATE TABLE outbox (
    key          TEXT    PRIMARY KEY,
    first_at     INTEGER NOT NULL,
    next_at      INTEGER,
    tries        INTEGER NOT NULL DEFAULT 0,
    delivered_at INTEGER,
    dead_at      INTEGER,
    fallback_at  INTEGER,
    error        TEXT,
    v            INTEGER NOT NULL,
    notice       TEXT    NOT NULL
) STRICT;
CREATE INDEX outbox_due ON outbox (next_at) WHERE next_at IS NOT NULL;
CREATE TABLE cells (
    service  TEXT    NOT NULL,
    slot     TEXT    NOT NULL,
    ended_at INTEGER NOT NULL,
    began_at INTEGER NOT NULL,
    requests REAL    NOT NULL,
    bad      REAL    NOT NULL,
    latency  TEXT,
    PRIMARY KEY (service, slot, ended_at)
) STRICT, WITHOUT ROWID;
CREATE TABLE marks (
    id       INTEGER PRIMARY KEY,
    service  TEXT    NOT NULL,
    kind     TEXT    NOT NULL CHECK (kind IN ('invalid', 'pin')),
    began_at INTEGER NOT NULL,
    ended_at INTEGER NOT NULL,
    by_whom  TEXT    NOT NULL,
    why      TEXT    NOT NULL
) STRICT;
";

const SECOND: &str = r"
ALTER TABLE outbox ADD COLUMN kind TEXT NOT NULL DEFAULT 'notice';
CREATE TABLE deliveries (
    letter       TEXT    NOT NULL,
    channel      TEXT    NOT NULL,
    nth          INTEGER NOT NULL,
    first_at     INTEGER NOT NULL,
    next_at      INTEGER,
    tries        INTEGER NOT NULL DEFAULT 0,
    repeat_ms    INTEGER,
    delivered_at INTEGER,
    dead_at      INTEGER,
    error        TEXT,
    PRIMARY KEY (letter, channel, nth)
) STRICT, WITHOUT ROWID;
CREATE INDEX deliveries_due ON deliveries (channel, next_at) WHERE next_at IS NOT NULL;
CREATE TABLE readings (
    seq     INTEGER PRIMARY KEY REFERENCES inputs (seq) ON DELETE CASCADE,
    switch  TEXT    NOT NULL,
    service TEXT    NOT NULL,
    slot    TEXT    NOT NULL
) STRICT;
CREATE INDEX readings_by_switch ON readings (switch);
";

const THIRD: &str = r"
CREATE TABLE judged (
    switch TEXT    NOT NULL,
    tick   INTEGER NOT NULL,
    seq    INTEGER NOT NULL,
    at     INTEGER NOT NULL,
    v      INTEGER NOT NULL,
    said   TEXT    NOT NULL,
    PRIMARY KEY (switch, tick)
) STRICT, WITHOUT ROWID;
CREATE INDEX judged_by_seq ON judged (seq);
CREATE TABLE kept_readings (
    seq     INTEGER PRIMARY KEY,
    switch  TEXT    NOT NULL,
    service TEXT    NOT NULL,
    slot    TEXT    NOT NULL,
    at      INTEGER NOT NULL,
    v       INTEGER NOT NULL,
    input   TEXT    NOT NULL
) STRICT;
CREATE INDEX kept_readings_by_switch ON kept_readings (switch);
CREATE INDEX watches_by_service ON watches (service, opened_at);
";

pub(super) const VERSION: i64 = MIGRATIONS.len() as i64;

/// Brings the database to the present schema, each step in its own transaction.
pub(super) fn migrate(connection: &mut Connection) -> Result<(), JournalError> {
    let found: i64 = connection.pragma_query_value(None, "user_version", |row| row.get(0))?;
    if found > VERSION {
        return Err(JournalError::NewerSchema { found, known: VERSION });
    }
    for (version, sql) in (1i64..).zip(MIGRATIONS).skip(usize::try_from(found).unwrap_or(0)) {
        let transaction = connection.transaction()?;
        transaction.execute_batch(sql)?;
        transaction.pragma_update(None, "user_version", version)?;
        transaction.commit()?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(version: usize) -> Connection {
        let mut connection = Connection::open_in_memory().unwrap();
        let transaction = connection.transaction().unwrap();
        for sql in &MIGRATIONS[..version] {
            transaction.execute_batch(sql).unwrap();
        }
        transaction.pragma_update(None, "user_version", version as i64).unwrap();
        transaction.commit().unwrap();
        connection
    }

    fn shape(connection: &Connection) -> Vec<(String, String)> {
        let mut statement =
            connection.prepare("SELECT name, sql FROM sqlite_master WHERE sql IS NOT NULL ORDER BY name").unwrap();
        let rows = statement.query_map([], |row| Ok((row.get(0)?, row.get(1)?))).unwrap();
        rows.collect::<Result<_, _>>().unwrap()
    }

    /// Whoever comes from any schema that there was arrives at this one, with all that was recorded.
    #[test]
    fn every_older_schema_comes_forward_with_its_rows() {
        let mut fresh = Connection::open_in_memory().unwrap();
        migrate(&mut fresh).unwrap();
        for version in 1..=MIGRATIONS.len() {
            let mut old = at(version);
            let rows = "INSERT INTO inputs (at, v, input, hash) VALUES (1, 1, '\"started\"', x'00');
                INSERT INTO decisions VALUES (1, 0, 1, '{}');
                INSERT INTO snapshots (seq, at, state, hash) VALUES (1, 1, '{}', x'00');
                INSERT INTO watches VALUES ('checkout-1', 'checkout', 'blue', 'green', 1, 2, 'passed', 1, '{}');
                INSERT INTO outbox (key, first_at, v, notice) VALUES ('k', 1, 1, '{}');
                INSERT INTO cells VALUES ('checkout', 'blue', 2, 1, 100.0, 1.0, NULL);
                INSERT INTO marks VALUES (1, 'checkout', 'pin', 1, 2, 'ann', 'good');";
            old.execute_batch(rows).unwrap();
            migrate(&mut old).unwrap();
            assert_eq!(shape(&old), shape(&fresh), "from schema {version}");
            let found: i64 = old.pragma_query_value(None, "user_version", |row| row.get(0)).unwrap();
            assert_eq!(found, VERSION);
            for table in ["inputs", "decisions", "snapshots", "watches", "outbox", "cells", "marks"] {
                let count: i64 = old.query_row(&format!("SELECT count(*) FROM {table}"), [], |row| row.get(0)).unwrap();
                assert_eq!(count, 1, "{table} from schema {version}");
            }
            // A second time is none.
            migrate(&mut old).unwrap();
        }
    }
}
