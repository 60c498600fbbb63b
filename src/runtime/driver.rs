//! The loop: receive → one turn of the wheel (engine, journal) → dispatch. It has a thread of its own, so
//! that nothing else that the process does can hold it up.

use std::sync::mpsc::{Receiver, RecvTimeoutError};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use tokio::sync::{broadcast, oneshot};

use super::clock;
use super::disk::Disk;
use super::turn::Wheel;
use crate::domain::time::{Span, Timestamp};
use crate::edge::api::{Facts, ServiceFacts};
use crate::edge::inbox::Message;
use crate::edge::metrics::Metrics;
use crate::edge::page::Touched;
use crate::edge::systemd::Progress;
use crate::engine::message::{Command, Input};
use crate::journal::{JournalError, Write};

/// Messages of one transaction: enough to share a sync, few enough to answer soon.
const TURN_MAX: usize = 512;

/// The loop turns at least this often, so that the watchdog sees it alive.
const TURN_AT_LEAST: Duration = Duration::from_secs(1);

/// How often the disk is looked at.
const DISK_EVERY: Duration = Duration::from_secs(5);

pub struct Driver {
    pub wheel: Wheel,
    pub disk: Disk,
    pub queue: Receiver<Message>,
    pub progress: Progress,
    pub metrics: Arc<Metrics>,
    pub facts: Arc<Mutex<Facts>>,
    /// Tells those who look on what is different now.
    pub touched: broadcast::Sender<Touched>,
    /// Carries out what was decided, after it is on disk.
    pub dispatch: Box<dyn FnMut(Vec<Command>) + Send>,
}

impl Driver {
    /// Runs until told to stop. An error means that the store is not to be trusted: the process must end
    /// and recover from disk.
    pub fn run(mut self) -> Result<(), JournalError> {
        let mut looked_at = None;
        let mut low = false;
        loop {
            self.progress.made();
            let mut turn = Turn::default();
            let due = self.wheel.engine.next_deadline().map(|at| at.since(clock::now()));
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
            let now = self.now();
            if looked_at.is_none_or(|at: Instant| at.elapsed() >= DISK_EVERY) {
                looked_at = Some(Instant::now());
                if self.disk.is_low() != low {
                    low = !low;
                    self.metrics.disk_low.set(i64::from(low));
                    turn.inputs.push(Input::Space { low });
                    if low {
                        tracing::error!("the journal's disk is nearly full: new switches are refused");
                    } else {
                        tracing::warn!("the journal's disk has room again");
                    }
                }
            }
            if let Some(due) = self.wheel.engine.next_deadline().filter(|at| *at <= now) {
                self.metrics.loop_lag_seconds.observe(now.since(due).as_secs_f64());
                turn.inputs.push(Input::Timer);
            }
            let some = !turn.inputs.is_empty();
            let began = Instant::now();
            let commands = self
                .wheel
                .turn(now, std::mem::take(&mut turn.inputs), &turn.writes, turn.stop, &mut self.disk)
                .map_err(|(error, _)| error)?;
            if some || !turn.writes.is_empty() {
                self.metrics.commit_seconds.observe(began.elapsed().as_secs_f64());
            }
            if some {
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

    /// The steady clock; while nothing waits for one of its instants it is set by the wall clock.
    fn now(&self) -> Timestamp {
        if self.wheel.engine.is_idle() && clock::stepped_ms().abs() >= 1000 {
            let moved_ms = clock::set(Timestamp::from_millis(0));
            tracing::warn!(moved_ms, "the wall clock was stepped; flipback's own follows, as nothing is watched");
        }
        clock::now()
    }

    fn show(&mut self) {
        let engine = &self.wheel.engine;
        let services = engine
            .services()
            .map(|s| {
                let live = engine.live_slot(&s.name).map(ToString::to_string);
                (s.name.clone(), ServiceFacts { armed: engine.is_armed(&s.name), live })
            })
            .collect();
        let facts = Facts { armed: engine.is_armed_at_all(), services, open_watches: engine.open_watches() };
        let mut ids = std::mem::take(&mut self.wheel.touched);
        if let Ok(mut shown) = self.facts.lock() {
            if *shown != facts {
                *shown = facts;
                // Arming, a service that came: it concerns every page.
                ids.clear();
            } else if ids.is_empty() {
                return;
            }
        }
        // Nobody looks: nobody is told.
        let _ = self.touched.send(ids.into());
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
