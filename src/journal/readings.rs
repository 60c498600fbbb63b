//! Which inputs are readings of which switch: charts and reports show what was judged, not what is said today.

use std::collections::BTreeMap;

use rusqlite::{Transaction, params};

use super::{JournalError, Reader, record};
use crate::domain::account::{Account, Judged, ReadCell, Said};
use crate::domain::signal::Observation;
use crate::domain::switch::{ServiceName, Slot, SwitchId};
use crate::domain::time::{Span, Timestamp};
use crate::domain::view::WatchView;
use crate::engine::message::{Command, CommandId, Input};

/// Questions of one switch whose answers are still looked at: its two slots and its neighbours, twice over.
const ASKED_MAX: u64 = 12;

/// Rows of one answer: an hour in ticks of a second, of both slots.
const ROWS_MAX: u32 = 8_000;

/// Time before the cut-over that an account shows.
const LEAD_MIN: Span = Span::from_secs(60);
const LEAD_MAX: Span = Span::from_mins(60);

/// An answer names its question only; this knows of which slot that was.
#[derive(Debug, Default)]
pub(super) struct Asked(BTreeMap<CommandId, (ServiceName, Slot)>);

impl Asked {
    pub fn note(&mut self, command: &Command) {
        match command {
            Command::Observe { id, ask } => {
                let first = CommandId { switch: id.switch.clone(), n: 0 };
                let old = CommandId { switch: id.switch.clone(), n: id.n.saturating_sub(ASKED_MAX) };
                while let Some(key) = self.0.range(first.clone()..old.clone()).next().map(|(key, _)| key.clone()) {
                    self.0.remove(&key);
                }
                self.0.insert(id.clone(), (ask.service.clone(), ask.slot.clone()));
            }
            Command::End { switch, .. } => self.0.retain(|id, _| id.switch != *switch),
            _ => {}
        }
    }

    pub fn of(&self, id: &CommandId) -> Option<&(ServiceName, Slot)> {
        self.0.get(id)
    }
}

impl Reader {
    /// The readings of a switch's own service after a place in the journal, oldest first; the newest where there are too many.
    pub fn readings(
        &self,
        switch: &SwitchId,
        service: &ServiceName,
        after: i64,
    ) -> Result<Vec<ReadCell>, JournalError> {
        let connection = self.connect()?;
        let mut statement = connection.prepare_cached(
            "SELECT seq, slot, v, input FROM (
                 SELECT r.seq, r.slot, i.v, i.input FROM readings r JOIN inputs i USING (seq)
                     WHERE r.switch = ?1 AND r.service = ?2
                 UNION ALL
                 SELECT seq, slot, v, input FROM kept_readings WHERE switch = ?1 AND service = ?2)
             WHERE seq > ?3 ORDER BY seq DESC LIMIT ?4",
        )?;
        let rows = statement.query_map(params![switch.as_str(), service.as_str(), after, ROWS_MAX], |row| {
            Ok((row.get::<_, i64>(0)?, row.get::<_, String>(1)?, row.get::<_, i64>(2)?, row.get::<_, String>(3)?))
        })?;
        let mut found = Vec::new();
        for row in rows {
            let (seq, slot, v, text) = row?;
            let slot = Slot::try_new(slot)
                .map_err(|e| JournalError::Decode { what: "a reading".into(), error: e.to_string() })?;
            if let Input::Observed { observation: Observation::Cell(cell), .. } = record::decode("an input", v, &text)?
            {
                found.push(ReadCell { seq, slot, cell: *cell });
            }
        }
        found.reverse();
        Ok(found)
    }

    /// What was said at each tick of a switch, oldest first; the newest where there are too many.
    pub fn judged(&self, switch: &SwitchId, after: i64) -> Result<Vec<Judged>, JournalError> {
        let connection = self.connect()?;
        let mut statement = connection.prepare_cached(
            "SELECT seq, at, v, said FROM judged WHERE switch = ? AND seq > ? ORDER BY tick DESC LIMIT ?",
        )?;
        let rows = statement.query_map(params![switch.as_str(), after, ROWS_MAX], |row| {
            Ok((row.get::<_, i64>(0)?, row.get::<_, i64>(1)?, row.get::<_, i64>(2)?, row.get::<_, String>(3)?))
        })?;
        let mut found = Vec::new();
        for row in rows {
            let (seq, at, v, text) = row?;
            let said = record::decode("what was said at a tick", v, &text)?;
            found.push(Judged { seq, at: Timestamp::from_millis(at), said });
        }
        found.reverse();
        Ok(found)
    }

    /// What came of a watch after a place in the journal, without what does not change.
    pub fn news(&self, id: &SwitchId, after: i64) -> Result<Option<Account>, JournalError> {
        let Some(view) = self.watch(id)? else { return Ok(None) };
        let readings = self.readings(id, &view.switch.service, after)?;
        let judged = self.judged(id, after)?;
        Ok(Some(Account { view, readings, judged, before: Vec::new(), normal: Vec::new() }))
    }

    /// Everything about one watch; `None` where there is no such watch.
    pub fn account(&self, id: &SwitchId) -> Result<Option<Account>, JournalError> {
        let Some(view) = self.watch(id)? else { return Ok(None) };
        let service = &view.switch.service;
        let cut = view.began();
        let until = view.ended_at.unwrap_or(cut + view.soak + view.long);
        // A quarter of the whole shows how it was before.
        let lead = Span::from_millis(until.since(cut).as_millis() / 4).clamp(LEAD_MIN, LEAD_MAX);
        let before = self.recorded(service, &view.switch.old, cut - lead, cut)?;
        let normal = match view.baseline.as_ref().map(|b| &b.provenance) {
            Some(p) => self.recorded(service, &p.slot, p.from, p.to)?,
            None => Vec::new(),
        };
        let readings = self.readings(id, service, 0)?;
        let judged = self.judged(id, 0)?;
        Ok(Some(Account { view, readings, judged, before, normal }))
    }
}

/// A tick is written once: a view that is shown again has nothing new to say of it.
pub(super) fn put_judged(transaction: &Transaction<'_>, view: &WatchView, now: Timestamp) -> Result<(), JournalError> {
    if view.ticks == 0 {
        return Ok(());
    }
    transaction
        .prepare_cached(
            "INSERT OR IGNORE INTO judged (switch, tick, seq, at, v, said)
             VALUES (?, ?, (SELECT coalesce(max(seq), 0) FROM inputs), ?, ?, ?)",
        )?
        .execute(params![
            view.id.as_str(),
            view.ticks,
            now.as_millis(),
            record::VERSION,
            record::encode("what was said at a tick", &Said::of(view))?
        ])?;
    Ok(())
}

/// Inputs up to `anchor` are about to go. What was read of a switch that broke is wanted for longer.
pub(super) fn keep(transaction: &Transaction<'_>, anchor: i64) -> Result<(), JournalError> {
    transaction.execute(
        "INSERT OR IGNORE INTO kept_readings (seq, switch, service, slot, at, v, input)
         SELECT r.seq, r.switch, r.service, r.slot, i.at, i.v, i.input FROM readings r JOIN inputs i USING (seq)
         WHERE r.seq <= ?1 AND r.switch IN (SELECT id FROM watches WHERE json_extract(view, '$.breach') IS NOT NULL)",
        [anchor],
    )?;
    transaction.execute(
        "DELETE FROM judged WHERE seq <= ?1
             AND switch IN (SELECT id FROM watches WHERE ended_at IS NOT NULL AND json_extract(view, '$.breach') IS NULL)",
        [anchor],
    )?;
    Ok(())
}

pub(super) fn prune(transaction: &Transaction<'_>, before: i64) -> Result<(), JournalError> {
    transaction.execute("DELETE FROM kept_readings WHERE at < ?", [before])?;
    transaction.execute("DELETE FROM judged WHERE at < ?", [before])?;
    Ok(())
}
