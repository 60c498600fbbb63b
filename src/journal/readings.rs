//! Which inputs are readings of which switch: charts and reports show what was judged, not what is said today.

use std::collections::BTreeMap;

use rusqlite::params;

use super::{JournalError, Reader, record};
use crate::domain::signal::{Observation, SlotCell};
use crate::domain::switch::{ServiceName, Slot, SwitchId};
use crate::domain::time::Timestamp;
use crate::engine::message::{Command, CommandId, Input};

/// Questions of one switch whose answers are still looked at: its two slots and its neighbours, twice over.
const ASKED_MAX: u64 = 12;

/// Rows of one answer: an hour in ticks of a second, of both slots.
const ROWS_MAX: u32 = 8_000;

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

#[derive(Debug, Clone, PartialEq)]
pub struct ReadingRow {
    pub slot: Slot,
    pub cell: SlotCell,
}

impl Reader {
    /// The readings of a switch's own service from `since` on, oldest first; the newest where there are too many.
    pub fn readings(
        &self,
        switch: &SwitchId,
        service: &ServiceName,
        since: Timestamp,
    ) -> Result<Vec<ReadingRow>, JournalError> {
        let connection = self.connect()?;
        let mut statement = connection.prepare(
            "SELECT r.slot, i.v, i.input FROM readings r JOIN inputs i USING (seq)
             WHERE r.switch = ? AND r.service = ? AND i.at >= ? ORDER BY r.seq DESC LIMIT ?",
        )?;
        let rows = statement
            .query_map(params![switch.as_str(), service.as_str(), since.as_millis(), ROWS_MAX], |row| {
                Ok((row.get::<_, String>(0)?, row.get::<_, i64>(1)?, row.get::<_, String>(2)?))
            })?;
        let mut found = Vec::new();
        for row in rows {
            let (slot, v, text) = row?;
            let slot = Slot::try_new(slot)
                .map_err(|e| JournalError::Decode { what: "a reading".into(), error: e.to_string() })?;
            if let Input::Observed { observation: Observation::Cell(cell), .. } = record::decode("an input", v, &text)?
            {
                found.push(ReadingRow { slot, cell: *cell });
            }
        }
        found.reverse();
        Ok(found)
    }
}
