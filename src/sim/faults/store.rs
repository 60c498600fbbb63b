//! A store in memory with the real one's manners: a turn is there as a whole or not at all, an attempt's id is
//! taken once, the outbox is written with its cause. What is in it outlives the process.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::rc::Rc;

use sha2::{Digest, Sha256};

use crate::domain::letter::{DeliveryKey, Letter, LetterKey};
use crate::domain::notice::{Notice, NoticeKey};
use crate::domain::plan::AttemptId;
use crate::domain::switch::SwitchId;
use crate::domain::time::Timestamp;
use crate::domain::view::WatchView;
use crate::engine::message::{Command, Input};
use crate::journal::{Batch, JournalError, Queued, Recovered, Snapshot, Write};
use crate::runtime::turn::Store;

#[derive(Debug, Clone)]
pub struct Row {
    pub notice: Notice,
    pub first_at: Timestamp,
    /// A channel was chosen; before that, and until it is delivered, `next_at` is set.
    pub routed: bool,
    pub next_at: Option<Timestamp>,
    pub tries: u32,
    pub delivered: bool,
    pub dead_at: Option<Timestamp>,
}

/// The one channel of this world.
pub const MAIL: &str = "oncall/email";

fn mail(key: &NoticeKey) -> DeliveryKey {
    DeliveryKey { letter: LetterKey(key.to_string()), channel: MAIL.into(), nth: 0 }
}

/// How the next commit goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// No space: rolled back.
    Full,
    /// An I/O error, and what was written did not get there.
    Lost,
    /// An I/O error, though it did get there.
    Kept,
}

#[derive(Debug, Default)]
pub struct Memory {
    /// The last two snapshots, with the number of inputs before each.
    snapshots: VecDeque<(u64, Timestamp, String)>,
    /// Inputs since the older snapshot, with their numbers.
    tail: VecDeque<(u64, Timestamp, Input)>,
    pub inputs: u64,
    pub views: BTreeMap<SwitchId, Rc<WatchView>>,
    pub outbox: BTreeMap<NoticeKey, Row>,
    attempts: BTreeSet<AttemptId>,
    pub full: bool,
    pub next: Option<Fault>,
    /// The same, for the next commit that begins a step.
    pub at_step: Option<Fault>,
    chain: Sha256,
    /// Views of the last commit, for the checks.
    pub changed: Vec<SwitchId>,
    /// Notices of the last commit.
    pub noticed: Vec<NoticeKey>,
    /// A promise that the store itself saw broken.
    pub broken: Option<(u8, String)>,
}

impl Memory {
    pub fn recovered(&self) -> Recovered {
        self.since_snapshot(self.snapshots.len().checked_sub(1))
    }

    /// The same from the snapshot before the last one: a longer way to the same state.
    pub fn recovered_the_long_way(&self) -> Option<Recovered> {
        (self.snapshots.len() == 2).then(|| self.since_snapshot(Some(0)))
    }

    fn since_snapshot(&self, n: Option<usize>) -> Recovered {
        let snapshot = n.and_then(|n| self.snapshots.get(n));
        let after = snapshot.map_or(0, |(seq, ..)| *seq);
        Recovered {
            snapshot: snapshot.map(|(seq, at, state)| Snapshot {
                seq: i64::try_from(*seq).unwrap_or(i64::MAX),
                at: *at,
                state_json: state.clone(),
            }),
            tail: self.tail.iter().filter(|(seq, ..)| *seq > after).map(|(_, at, i)| (*at, i.clone())).collect(),
        }
    }

    pub fn hash(&self) -> String {
        self.chain.clone().finalize().iter().map(|b| format!("{b:02x}")).collect()
    }

    /// Notices that no channel was chosen for yet.
    pub fn unrouted(&self) -> Vec<NoticeKey> {
        self.outbox.values().filter(|r| !r.routed && r.next_at.is_some()).map(|r| r.notice.key.clone()).collect()
    }

    pub fn due(&self, now: Timestamp, limit: usize) -> Vec<Queued> {
        let is_due = |r: &&Row| r.routed && r.next_at.is_some_and(|at| at <= now);
        let mut due: Vec<&Row> = self.outbox.values().filter(is_due).collect();
        due.sort_by_key(|r| r.first_at);
        due.into_iter()
            .take(limit)
            .map(|r| Queued {
                key: mail(&r.notice.key),
                letter: Letter::Notice(Box::new(r.notice.clone())),
                tries: r.tries,
                first_at: r.first_at,
                repeat: None,
                fell_back: false,
            })
            .collect()
    }

    pub fn next_notice_at(&self) -> Option<Timestamp> {
        self.outbox.values().filter_map(|r| r.next_at).min()
    }

    fn keep(&mut self, batch: &Batch<'_>) -> Result<(), JournalError> {
        // Nothing is touched before everything is known to be right.
        for command in batch.entries.iter().flat_map(|e| &e.commands) {
            if let Command::RunStep { run } = command
                && self.attempts.contains(&run.attempt)
            {
                return Err(JournalError::UsedTwice(run.attempt.to_string()));
            }
        }
        self.changed.clear();
        self.noticed.clear();
        for entry in batch.entries {
            self.inputs += 1;
            for json in [serde_json::to_vec(&entry.input), serde_json::to_vec(&entry.commands)] {
                let json = json.map_err(|e| JournalError::Other(e.to_string()))?;
                self.chain.update(entry.at.as_millis().to_le_bytes());
                self.chain.update(&json);
            }
            self.tail.push_back((self.inputs, entry.at, entry.input.clone()));
            for command in &entry.commands {
                match command {
                    Command::RunStep { run } => {
                        self.attempts.insert(run.attempt.clone());
                    }
                    Command::Notify { notice } => {
                        let row = Row {
                            notice: (**notice).clone(),
                            first_at: entry.at,
                            routed: false,
                            next_at: Some(entry.at),
                            tries: 0,
                            delivered: false,
                            dead_at: None,
                        };
                        self.noticed.push(notice.key.clone());
                        self.outbox.entry(notice.key.clone()).or_insert(row);
                    }
                    _ => {}
                }
            }
        }
        for view in batch.views {
            self.changed.push(view.id.clone());
            self.views.insert(view.id.clone(), Rc::new(view.clone()));
        }
        batch.writes.iter().for_each(|write| self.write(write));
        if let Some(state) = batch.snapshot {
            self.snapshots.push_back((self.inputs, batch.now, state.to_owned()));
            if self.snapshots.len() > 2 {
                self.snapshots.pop_front();
            }
            let oldest = if self.snapshots.len() == 2 { self.snapshots.front().map_or(0, |(seq, ..)| *seq) } else { 0 };
            while self.tail.front().is_some_and(|(seq, ..)| *seq <= oldest) {
                self.tail.pop_front();
            }
        }
        Ok(())
    }

    fn row(&mut self, key: &LetterKey) -> Option<&mut Row> {
        let (switch, n) = key.0.rsplit_once(".n")?;
        let key = NoticeKey { switch: SwitchId::try_new(switch).ok()?, n: n.parse().ok()? };
        self.outbox.get_mut(&key)
    }

    fn write(&mut self, write: &Write) {
        match write {
            Write::LetterRouted { letter, to, .. } => {
                if let Some(row) = self.row(letter) {
                    row.routed = true;
                    if to.is_empty() {
                        row.next_at = None;
                    }
                }
            }
            Write::Delivered { key, .. } => {
                if let Some(row) = self.row(&key.letter) {
                    (row.delivered, row.next_at, row.tries) = (true, None, row.tries + 1);
                }
            }
            Write::Delayed { key, next_at, .. } => {
                if let Some(row) = self.row(&key.letter).filter(|r| r.next_at.is_some()) {
                    (row.next_at, row.tries) = (Some(*next_at), row.tries + 1);
                }
            }
            Write::Dead { key, at, error } => {
                if let Some(row) = self.row(&key.letter) {
                    (row.dead_at, row.next_at) = (Some(*at), None);
                    let first_at = row.first_at;
                    if at.since(first_at).as_millis() < 72 * 3_600_000 {
                        self.broken = Some((3, format!("{key} was given up early: {error}")));
                    }
                }
            }
            _ => {}
        }
    }
}

impl Store for Memory {
    fn commit(&mut self, batch: &Batch<'_>) -> Result<(), JournalError> {
        if self.full {
            return Err(JournalError::Full);
        }
        let begins =
            batch.entries.iter().flat_map(|e| &e.commands).any(|command| matches!(command, Command::RunStep { .. }));
        let at_step = if begins { self.at_step.take() } else { None };
        match self.next.take().or(at_step) {
            None => self.keep(batch),
            Some(Fault::Full) => Err(JournalError::Full),
            Some(Fault::Lost) => Err(JournalError::Broken("disk I/O error".into())),
            Some(Fault::Kept) => {
                self.keep(batch)?;
                Err(JournalError::Broken("disk I/O error".into()))
            }
        }
    }
}
