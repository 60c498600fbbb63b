//! The loop: receive → engine → journal (one transaction) → dispatch. It has a thread of its own, so
//! that nothing else that the process does can hold it up.

use std::sync::mpsc::{Receiver, RecvTimeoutError};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use super::clock;
use crate::domain::time::Span;
use crate::edge::api::{Facts, ServiceFacts};
use crate::edge::inbox::Message;
use crate::edge::metrics::Metrics;
use crate::edge::systemd::Progress;
use crate::engine::Engine;
use crate::engine::message::{Command, Input};
use crate::journal::{Batch, Entry, Journal, JournalError, Write};
use tokio::sync::oneshot;

/// Messages of one transaction: enough to share a sync, few enough to answer soon.
const TURN_MAX: usize = 512;

/// A snapshot after so many inputs bounds how much a restart replays (some milliseconds).
const SNAPSHOT_EVERY: usize = 300;

/// The loop turns at least this often, so that the watchdog sees it alive.
const TURN_AT_LEAST: Duration = Duration::from_secs(1);

pub struct Driver {
    pub engine: Engine,
    pub journal: Journal,
    pub queue: Receiver<Message>,
    pub progress: Progress,
    pub metrics: Arc<Metrics>,
    pub facts: Arc<Mutex<Facts>>,
    /// Carries out what was decided, after it is on disk.
    pub dispatch: Box<dyn FnMut(Vec<Command>) + Send>,
}

impl Driver {
    /// Runs until told to stop. An error means that the store is not to be trusted: the process must end
    /// and recover from disk.
    pub fn run(mut self) -> Result<(), JournalError> {
        let mut since_snapshot = 0;
        loop {
            self.progress.made();
            let mut turn = Turn::default();
            let due = self.engine.next_deadline().map(|at| at.since(clock::now()));
            let wait = due.map_or(TURN_AT_LEAST, |span| Span::to_std(span).min(TURN_AT_LEAST));
            match self.queue.recv_timeout(wait) {
                Ok(message) => turn.take(message),
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => turn.stop = true,
            }
            while turn.len() < TURN_MAX && !turn.stop {
                match self.queue.try_recv() {
                    Ok(message) => turn.take(message),
                    Err(_) => break,
                }
            }
            let now = clock::now();
            if self.engine.next_deadline().is_some_and(|at| at <= now) {
                turn.inputs.push(Input::Timer);
            }
            let mut commands = Vec::new();
            let mut entries = Vec::new();
            for input in turn.inputs {
                let decided = self.engine.handle(now, &input);
                commands.extend(decided.iter().cloned());
                entries.push(Entry { at: now, input, commands: decided });
            }
            since_snapshot += entries.len();
            let views = self.engine.take_views();
            let take_snapshot = turn.stop || since_snapshot >= SNAPSHOT_EVERY;
            let snapshot = if take_snapshot { snapshot(&self.engine) } else { None };
            if !entries.is_empty() || !turn.writes.is_empty() || snapshot.is_some() {
                let began = Instant::now();
                let batch = Batch {
                    entries: &entries,
                    views: &views,
                    snapshot: snapshot.as_deref(),
                    writes: &turn.writes,
                    now,
                };
                self.commit(&batch)?;
                self.metrics.commit_seconds.observe(began.elapsed().as_secs_f64());
                if snapshot.is_some() {
                    since_snapshot = 0;
                }
            }
            if !entries.is_empty() {
                self.show();
            }
            for done in turn.done {
                let _ = done.send(());
            }
            (self.dispatch)(commands);
            if turn.stop {
                return Ok(());
            }
        }
    }

    /// A full disk is waited out a little: the statement was rolled back and nothing is half there.
    fn commit(&mut self, batch: &Batch<'_>) -> Result<(), JournalError> {
        const TRIES: u32 = 20;
        const APART: Duration = Duration::from_millis(500);
        let mut tries = 0;
        loop {
            match self.journal.commit(batch) {
                Err(JournalError::Full) if tries < TRIES => {
                    tries += 1;
                    tracing::error!(tries, "no space left for the journal");
                    self.progress.made();
                    std::thread::sleep(APART);
                }
                done => return done,
            }
        }
    }

    fn show(&self) {
        let services = self
            .engine
            .services()
            .map(|s| {
                let live = self.engine.live_slot(&s.name).map(ToString::to_string);
                (s.name.clone(), ServiceFacts { armed: self.engine.is_armed(&s.name), live })
            })
            .collect();
        let facts = Facts { armed: self.engine.is_armed_at_all(), services, open_watches: self.engine.open_watches() };
        if let Ok(mut shown) = self.facts.lock() {
            *shown = facts;
        }
    }
}

#[derive(Default)]
struct Turn {
    inputs: Vec<Input>,
    writes: Vec<Write>,
    done: Vec<oneshot::Sender<()>>,
    stop: bool,
}

impl Turn {
    fn take(&mut self, message: Message) {
        match message {
            Message::Input(input) => self.inputs.push(input),
            Message::Write(write, done) => {
                self.writes.push(write);
                self.done.extend(done);
            }
            Message::Stop => self.stop = true,
        }
    }

    fn len(&self) -> usize {
        self.inputs.len() + self.writes.len()
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
