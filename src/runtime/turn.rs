//! One turn of the loop, apart from clocks, queues and disks: inputs in, what is decided to the store, and
//! only then the commands out. The daemon and the fault simulator turn the same wheel.

use crate::domain::switch::SwitchId;
use crate::domain::time::Timestamp;
use crate::engine::Engine;
use crate::engine::message::{Command, Input};
use crate::journal::{Batch, Entry, JournalError, Write};
use crate::planted::{self, Bug};

/// A snapshot after so many inputs bounds how much a restart replays (some milliseconds).
const SNAPSHOT_EVERY: usize = 300;

/// Where a turn goes to disk: all of it, or nothing.
pub trait Store {
    fn commit(&mut self, batch: &Batch<'_>) -> Result<(), JournalError>;
}

/// The engine and what the loop knows about its store.
#[derive(Debug)]
pub struct Wheel {
    pub engine: Engine,
    since_snapshot: usize,
    /// Watches whose views the last turn renewed.
    pub touched: Vec<SwitchId>,
    /// Only for a planted bug: notices that were kept back.
    late: Vec<Command>,
}

impl Wheel {
    pub fn new(engine: Engine) -> Wheel {
        Wheel { engine, since_snapshot: 0, touched: Vec::new(), late: Vec::new() }
    }

    /// Takes one turn. On an error nothing of it is on disk and nothing may be carried out: the engine is
    /// ahead of the store, so the process must end and recover from disk. On success the commands are durable
    /// and are to be carried out now.
    ///
    /// `last`: the process ends after this turn and leaves a snapshot.
    pub fn turn(
        &mut self,
        now: Timestamp,
        inputs: Vec<Input>,
        writes: &[Write],
        last: bool,
        store: &mut impl Store,
    ) -> Result<Vec<Command>, (JournalError, Vec<Command>)> {
        let mut entries = Vec::with_capacity(inputs.len());
        let mut early = None;
        for input in inputs {
            if planted::has(Bug::SnapshotEarly) {
                early = snapshot(&self.engine);
            }
            let commands = self.engine.handle(now, &input);
            entries.push(Entry { at: now, input, commands });
        }
        if planted::has(Bug::NoticeLater)
            && let Some(first) = entries.first_mut()
        {
            first.commands.splice(0..0, std::mem::take(&mut self.late));
            for entry in &mut entries {
                let (late, kept) =
                    entry.commands.drain(..).partition(|command| matches!(command, Command::Notify { .. }));
                self.late.extend::<Vec<Command>>(late);
                entry.commands = kept;
            }
        }
        self.since_snapshot += entries.len();
        let views = self.engine.take_views();
        self.touched = views.iter().map(|view| view.id.clone()).collect();
        let take_snapshot = last || self.since_snapshot >= SNAPSHOT_EVERY;
        let snapshot = if take_snapshot { early.or_else(|| snapshot(&self.engine)) } else { None };
        if entries.is_empty() && writes.is_empty() && snapshot.is_none() {
            return Ok(Vec::new());
        }
        let batch = Batch { entries: &entries, views: &views, snapshot: snapshot.as_deref(), writes, now };
        let committed = store.commit(&batch);
        let mut commands: Vec<Command> = entries.into_iter().flat_map(|entry| entry.commands).collect();
        if let Err(error) = committed {
            let before = |command: &Command| match command {
                Command::RunStep { .. } => planted::has(Bug::ActBeforeCommit),
                Command::Reply { .. } => planted::has(Bug::AnswerBeforeCommit),
                _ => false,
            };
            commands.retain(before);
            return Err((error, commands));
        }
        if snapshot.is_some() {
            self.since_snapshot = 0;
        }
        Ok(commands)
    }
}

fn snapshot(engine: &Engine) -> Option<String> {
    match serde_json::to_string(engine) {
        Ok(json) => Some(json),
        Err(error) => {
            // The tail is still there: a restart takes longer, and loses nothing.
            tracing::error!(%error, "the engine's state cannot be written down");
            None
        }
    }
}
