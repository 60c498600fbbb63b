//! Many services at once, for a page: the last watch of each, and the sums of what was recorded lately.

use std::collections::BTreeMap;

use rusqlite::{OptionalExtension, params};

use super::{JournalError, Reader, record};
use crate::domain::account::RecordedSum;
use crate::domain::counts::Counts;
use crate::domain::switch::{ServiceName, Slot};
use crate::domain::time::{Span, Timestamp};
use crate::domain::view::WatchView;

#[derive(Debug, Clone, Default, PartialEq)]
pub struct ServiceGlance {
    pub last: Option<WatchView>,
    /// Of each slot with anything recorded since then.
    pub recorded: Vec<RecordedSum>,
}

impl ServiceGlance {
    /// Of the slot that has the traffic; where that is not known, of the one that was recorded last, or
    /// has the most requests where they all were.
    pub fn recorded_of(&self, live: Option<&str>) -> Option<&RecordedSum> {
        let own = live.and_then(|live| self.recorded.iter().find(|sum| sum.slot.as_str() == live));
        let served = self.recorded.iter().filter(|sum| sum.counts.requests() > 0.0);
        own.or_else(|| {
            served.max_by(|a, b| {
                (a.to, a.counts.requests())
                    .partial_cmp(&(b.to, b.counts.requests()))
                    .unwrap_or(std::cmp::Ordering::Equal)
            })
        })
    }
}

impl Reader {
    pub fn glances(
        &self,
        services: &[ServiceName],
        since: Timestamp,
    ) -> Result<BTreeMap<ServiceName, ServiceGlance>, JournalError> {
        let connection = self.connect()?;
        let mut last = connection
            .prepare("SELECT v, view FROM watches WHERE service = ? ORDER BY opened_at DESC, rowid DESC LIMIT 1")?;
        let mut sums = connection.prepare(
            "SELECT slot, min(began_at), max(ended_at), sum(ended_at - began_at), count(*), sum(requests), sum(bad)
             FROM cells WHERE service = ? AND ended_at > ? GROUP BY slot",
        )?;
        let mut found = BTreeMap::new();
        for service in services {
            let newest: Option<(i64, String)> =
                last.query_row([service.as_str()], |row| Ok((row.get(0)?, row.get(1)?))).optional()?;
            let newest = newest.map(|(v, text)| record::decode("a watch", v, &text)).transpose()?;
            let rows = sums.query_map(params![service.as_str(), since.as_millis()], |row| {
                Ok((
                    row.get::<_, String>(0)?,
                    row.get::<_, i64>(1)?,
                    row.get::<_, i64>(2)?,
                    row.get::<_, i64>(3)?,
                    row.get::<_, u32>(4)?,
                    row.get::<_, f64>(5)?,
                    row.get::<_, f64>(6)?,
                ))
            })?;
            let mut recorded = Vec::new();
            for row in rows {
                let (slot, from, to, covered, cells, requests, bad) = row?;
                let wrong = |error: String| JournalError::Decode { what: "a cell".into(), error };
                recorded.push(RecordedSum {
                    slot: Slot::try_new(slot).map_err(|e| wrong(e.to_string()))?,
                    from: Timestamp::from_millis(from),
                    to: Timestamp::from_millis(to),
                    covered: Span::from_millis(covered.unsigned_abs()),
                    cells,
                    counts: Counts::try_new(requests, bad).map_err(|e| wrong(e.to_string()))?,
                });
            }
            found.insert(service.clone(), ServiceGlance { last: newest, recorded });
        }
        Ok(found)
    }
}
