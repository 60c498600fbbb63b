//! Reading what was committed, beside a running daemon or without one.

use std::path::{Path, PathBuf};

use rusqlite::{Connection, OpenFlags, OptionalExtension, params};

use super::append::DATABASE;
use super::{JournalError, record, schema};
use crate::domain::access::Reach;
use crate::domain::baseline::{Baseline, BaselineAsk};
use crate::domain::counts::{Cell, Counts};
use crate::domain::policy::Share;
use crate::domain::switch::{ServiceName, Slot, SwitchId, Version};
use crate::domain::time::{Span, Timestamp};
use crate::domain::view::WatchView;
use crate::judge::recorded::{self, Facts, PastWatch, SlotCell};

/// Rows of one answer at most.
const LIMIT_MAX: u32 = 1000;

/// How far back a baseline looks.
const LOOK_BACK: Span = Span::from_mins(24 * 60);

/// A reader waits this long for a writer's checkpoint; commits take milliseconds.
const BUSY: std::time::Duration = std::time::Duration::from_secs(2);

#[derive(Debug, Clone)]
pub struct Reader {
    path: PathBuf,
}

#[derive(Debug, Clone, Default)]
pub struct WatchFilter {
    pub service: Option<ServiceName>,
    pub open_only: bool,
    pub ended_only: bool,
    /// The outcome's word.
    pub outcome: Option<String>,
    /// Opened from here on, and before that.
    pub since: Option<Timestamp>,
    pub until: Option<Timestamp>,
    pub limit: u32,
    /// Only watches opened before this one.
    pub before: Option<SwitchId>,
    /// Only of these services.
    pub reach: Reach,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Range {
    pub from: Timestamp,
    pub to: Timestamp,
    pub by: String,
    pub why: String,
}

#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Marks {
    pub invalid: Vec<Range>,
    pub pin: Option<Range>,
}

impl Reader {
    pub fn open(state_dir: &Path) -> Result<Reader, JournalError> {
        let reader = Reader { path: state_dir.join(DATABASE) };
        if !reader.path.exists() {
            let error = std::io::Error::new(std::io::ErrorKind::NotFound, format!("there is no {DATABASE} in it"));
            return Err(JournalError::Directory { dir: state_dir.to_owned(), error });
        }
        let connection = reader.connect()?;
        let found: i64 = connection.pragma_query_value(None, "user_version", |row| row.get(0))?;
        if found > schema::VERSION {
            return Err(JournalError::NewerSchema { found, known: schema::VERSION });
        }
        Ok(reader)
    }

    pub(super) fn connect(&self) -> Result<Connection, JournalError> {
        let open = |flags| -> Result<Connection, rusqlite::Error> {
            let connection = Connection::open_with_flags(&self.path, flags | OpenFlags::SQLITE_OPEN_NO_MUTEX)?;
            connection.busy_timeout(BUSY)?;
            // The first look into the file shows whether it can be read as it stands.
            connection.query_row("SELECT count(*) FROM sqlite_master", [], |row| row.get::<_, i64>(0))?;
            Ok(connection)
        };
        match open(OpenFlags::SQLITE_OPEN_READ_ONLY) {
            // A daemon that was killed left a log that must be recovered first, which a reader may not do.
            Err(error) if error.sqlite_error_code() == Some(rusqlite::ErrorCode::ReadOnly) => {
                let connection = open(OpenFlags::SQLITE_OPEN_READ_WRITE)?;
                connection.pragma_update(None, "query_only", true)?;
                Ok(connection)
            }
            other => Ok(other?),
        }
    }

    /// Newest first.
    pub fn watches(&self, filter: &WatchFilter) -> Result<Vec<WatchView>, JournalError> {
        let connection = self.connect()?;
        let mut statement = connection.prepare(
            "SELECT v, view FROM watches
             WHERE (?1 IS NULL OR service = ?1)
               AND (NOT ?2 OR ended_at IS NULL) AND (NOT ?3 OR ended_at IS NOT NULL)
               AND (?4 IS NULL OR opened_at < (SELECT opened_at FROM watches WHERE id = ?4))
               AND (?6 IS NULL OR outcome = ?6) AND (?7 IS NULL OR opened_at >= ?7) AND (?8 IS NULL OR opened_at < ?8)
               AND (?9 IS NULL OR service IN (SELECT value FROM json_each(?9)))
             ORDER BY opened_at DESC, rowid DESC LIMIT ?5",
        )?;
        let some = match &filter.reach {
            Reach::All => None,
            Reach::Only(services) => serde_json::to_string(services).ok(),
        };
        let limit = if filter.limit == 0 { LIMIT_MAX } else { filter.limit.min(LIMIT_MAX) };
        let rows = statement.query_map(
            params![
                filter.service.as_ref().map(ServiceName::as_str),
                filter.open_only,
                filter.ended_only,
                filter.before.as_ref().map(SwitchId::as_str),
                limit,
                filter.outcome,
                filter.since.map(Timestamp::as_millis),
                filter.until.map(Timestamp::as_millis),
                some,
            ],
            |row| Ok((row.get::<_, i64>(0)?, row.get::<_, String>(1)?)),
        )?;
        rows.map(|row| row.map_err(JournalError::from).and_then(|(v, text)| record::decode("a watch", v, &text)))
            .collect()
    }

    pub fn watch(&self, id: &SwitchId) -> Result<Option<WatchView>, JournalError> {
        let connection = self.connect()?;
        let row: Option<(i64, String)> = connection
            .query_row("SELECT v, view FROM watches WHERE id = ?", [id.as_str()], |row| Ok((row.get(0)?, row.get(1)?)))
            .optional()?;
        row.map(|(v, text)| record::decode("a watch", v, &text)).transpose()
    }

    /// How often each attempt of a watch's steps was intended: the protocol says once.
    pub fn attempts(&self, id: &SwitchId) -> Result<Vec<String>, JournalError> {
        let connection = self.connect()?;
        let mut statement = connection.prepare("SELECT attempt FROM attempts WHERE switch = ? ORDER BY at")?;
        let rows = statement.query_map([id.as_str()], |row| row.get(0))?;
        Ok(rows.collect::<Result<_, _>>()?)
    }

    /// End of the newest recorded cell of a slot, or of any slot.
    pub fn last_cell_end(&self, service: &ServiceName, slot: Option<&Slot>) -> Result<Option<Timestamp>, JournalError> {
        let at: Option<i64> = self.connect()?.query_row(
            "SELECT max(ended_at) FROM cells WHERE service = ?1 AND (?2 IS NULL OR slot = ?2)",
            params![service.as_str(), slot.map(Slot::as_str)],
            |row| row.get(0),
        )?;
        Ok(at.map(Timestamp::from_millis))
    }

    pub fn marks(&self, service: &ServiceName) -> Result<Marks, JournalError> {
        let connection = self.connect()?;
        let mut statement = connection
            .prepare("SELECT kind, began_at, ended_at, by_whom, why FROM marks WHERE service = ? ORDER BY id")?;
        let rows = statement.query_map([service.as_str()], |row| {
            let range = Range {
                from: Timestamp::from_millis(row.get(1)?),
                to: Timestamp::from_millis(row.get(2)?),
                by: row.get(3)?,
                why: row.get(4)?,
            };
            Ok((row.get::<_, String>(0)?, range))
        })?;
        let mut marks = Marks::default();
        for row in rows {
            let (kind, range) = row?;
            if kind == "pin" {
                marks.pin = Some(range);
            } else {
                marks.invalid.push(range);
            }
        }
        Ok(marks)
    }

    /// The recorded normal for a switch, chosen by the stated exclusions; `Err` inside says why there is none.
    pub fn choose_baseline(&self, ask: &BaselineAsk) -> Result<Result<Baseline, String>, JournalError> {
        let marks = self.marks(&ask.service)?;
        let from = marks.pin.as_ref().map_or(ask.before - LOOK_BACK, |pin| pin.from.min(ask.before - LOOK_BACK));
        let facts = Facts {
            cells: self.cells(&ask.service, from, ask.before)?,
            watches: self.past_watches(&ask.service)?,
            invalid: marks.invalid.iter().map(|r| (r.from, r.to)).collect(),
            pin: marks.pin.map(|r| (r.from, r.to)),
        };
        // Floor of "its own error rate is high": the policy's floor is the service's; 0.1 % is the design's.
        let floor = Share::try_new(0.001).map_or(0.001, Share::get);
        Ok(recorded::choose(ask, &facts, floor))
    }

    /// Recorded cells of one slot, oldest first.
    pub fn recorded(
        &self,
        service: &ServiceName,
        slot: &Slot,
        from: Timestamp,
        to: Timestamp,
    ) -> Result<Vec<Cell>, JournalError> {
        Ok(self.cells(service, from, to)?.into_iter().filter(|c| c.slot == *slot).map(|c| c.cell).collect())
    }

    fn cells(&self, service: &ServiceName, from: Timestamp, to: Timestamp) -> Result<Vec<SlotCell>, JournalError> {
        let connection = self.connect()?;
        let mut statement = connection.prepare(
            "SELECT slot, began_at, ended_at, requests, bad, latency FROM cells
             WHERE service = ? AND ended_at > ? AND ended_at <= ? ORDER BY ended_at, slot",
        )?;
        let rows = statement.query_map(params![service.as_str(), from.as_millis(), to.as_millis()], |row| {
            Ok((
                row.get::<_, String>(0)?,
                row.get::<_, i64>(1)?,
                row.get::<_, i64>(2)?,
                row.get::<_, f64>(3)?,
                row.get::<_, f64>(4)?,
                row.get::<_, Option<String>>(5)?,
            ))
        })?;
        let mut cells = Vec::new();
        for row in rows {
            let (slot, began, ended, requests, bad, latency) = row?;
            let wrong = |error: String| JournalError::Decode { what: "a cell".into(), error };
            cells.push(SlotCell {
                slot: Slot::try_new(slot).map_err(|e| wrong(e.to_string()))?,
                cell: Cell {
                    from: Timestamp::from_millis(began),
                    to: Timestamp::from_millis(ended),
                    counts: Counts::try_new(requests, bad).map_err(|e| wrong(e.to_string()))?,
                    latency: latency.map(|t| record::decode("a histogram", record::VERSION, &t)).transpose()?,
                },
            });
        }
        Ok(cells)
    }

    fn past_watches(&self, service: &ServiceName) -> Result<Vec<PastWatch>, JournalError> {
        let filter = WatchFilter { service: Some(service.clone()), limit: 200, ..WatchFilter::default() };
        let views = self.watches(&filter)?;
        Ok(views
            .into_iter()
            .map(|view| PastWatch {
                id: view.id,
                old: view.switch.old,
                new: view.switch.new,
                version: view.switch.version as Option<Version>,
                cut_over_at: view.cut_over_at.unwrap_or(view.opened_at),
                soak: view.soak,
                ended_at: view.ended_at,
                outcome: view.outcome,
                breached: view.breach.is_some(),
            })
            .collect())
    }
}
