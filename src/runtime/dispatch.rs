//! Carries out commands, each by its part of the edge, and brings the answers back as inputs.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use tokio::runtime::Handle;
use tokio::sync::{Mutex, Notify};
use tokio_util::task::TaskTracker;

use super::clock;
use crate::domain::baseline::BaselineAsk;
use crate::domain::plan::{AttemptState, StepEnd};
use crate::domain::signal::{Observation, Reading};
use crate::domain::time::Span;
use crate::edge::actuators::exec::Executor;
use crate::edge::actuators::health::HealthChecker;
use crate::edge::actuators::{probe, rehearse};
use crate::edge::inbox::{Inbox, NotTaken};
use crate::edge::metrics::{Metrics, Reason, Word};
use crate::edge::sources::{Batch, Sources};
use crate::engine::message::{Command, CommandId, Input, ObserveAsk, RecordAsk};
use crate::journal::{Reader, Write};

/// Cells of the recorded baseline.
const CELL: Span = Span::from_secs(15);

/// A recording may take this long; the next minute's takes up what it left.
const RECORD_LIMIT: Duration = Duration::from_secs(50);

/// A switch must not wait long for its baseline to be brought up to now.
const CHOOSE_LIMIT: Duration = Duration::from_secs(8);

#[derive(Clone)]
pub struct Dispatch {
    pub runtime: Handle,
    pub tasks: TaskTracker,
    pub inbox: Inbox,
    pub reader: Reader,
    pub source: Arc<std::sync::RwLock<Sources>>,
    pub health: HealthChecker,
    pub executor: Executor,
    pub outbox: Arc<Notify>,
    pub metrics: Arc<Metrics>,
    /// One recording at a time: two would fetch the same cells.
    pub recording: Arc<Mutex<()>>,
}

impl Dispatch {
    pub fn carry_out(&self, commands: Vec<Command>) {
        let mut asks = Vec::new();
        for command in commands {
            match command {
                Command::Reply { request, answer } => self.inbox.answer(request, answer),
                Command::Observe { id, ask } => asks.push((id, ask)),
                Command::CheckHealth { id, slot: _, check } => {
                    let (health, inbox) = (self.health.clone(), self.inbox.clone());
                    self.spawn(async move {
                        let reading = health.ask(&check).await;
                        deliver(&inbox, Input::HealthChecked { id, reading }).await;
                    });
                }
                Command::Probe { id, probe } => {
                    let inbox = self.inbox.clone();
                    self.spawn(async move {
                        let reading = probe::ask(&probe).await;
                        deliver(&inbox, Input::Probed { id, reading }).await;
                    });
                }
                Command::ChooseBaseline { id, ask } => self.choose(id, ask),
                Command::RunStep { run } => {
                    let this = self.clone();
                    tracing::warn!(attempt = %run.attempt, command = %run.action, "step begins");
                    self.spawn(async move {
                        let state = this.executor.run(&run, clock::now, clock::wall).await;
                        this.step_ended(run.attempt, state).await;
                    });
                }
                Command::Rehearse { id, ask } => {
                    let (health, inbox) = (self.health.clone(), self.inbox.clone());
                    self.spawn(async move {
                        let tried = rehearse::rehearse(&ask, &health).await;
                        deliver(&inbox, Input::Rehearsed { id, tried }).await;
                    });
                }
                Command::MarkDisarmed { all, services } => {
                    // Before the answer, which comes after it: whoever is told "disarmed" may rely on it.
                    if let Err(error) = self.executor.mark_disarmed(all, &services) {
                        tracing::error!(%error, "the marks of what is disarmed cannot be written");
                    }
                }
                Command::RecoverStep { attempt, deadline } => {
                    let this = self.clone();
                    self.spawn(async move {
                        let state = this.executor.recover(&attempt, deadline, clock::now).await;
                        this.step_ended(attempt, state).await;
                    });
                }
                Command::Notify { notice } => {
                    self.metrics.decisions.get_or_create(&Reason { reason: notice.reason.word() }).inc();
                    self.outbox.notify_one();
                }
                Command::End { switch, outcome } => {
                    tracing::info!(%switch, outcome = outcome.word(), detail = outcome.detail(), "watch ended");
                    self.metrics.outcomes.get_or_create(&Word { outcome: outcome.word() }).inc();
                }
                Command::RecordBaseline { services } => {
                    let this = self.clone();
                    self.spawn(async move {
                        for ask in services {
                            let name = ask.service.clone();
                            if let Err(error) = this.record(&ask).await {
                                tracing::warn!(service = %name, %error, "the baseline was not recorded");
                            }
                        }
                    });
                }
                Command::Prune => {
                    if self.inbox.write(Write::Prune { now: clock::now() }).is_err() {
                        tracing::warn!("the hourly pruning was left out");
                    }
                }
            }
        }
        if !asks.is_empty() {
            self.observe(asks);
        }
    }

    fn spawn(&self, work: impl Future<Output = ()> + Send + 'static) {
        self.tasks.spawn_on(work, &self.runtime);
    }

    fn source(&self) -> Sources {
        self.source.read().unwrap_or_else(std::sync::PoisonError::into_inner).clone()
    }

    fn observe(&self, asks: Vec<(CommandId, ObserveAsk)>) {
        for batch in Sources::batches(asks) {
            self.observe_batch(batch);
        }
    }

    fn observe_batch(&self, batch: Batch) {
        let (source, inbox, metrics) = (self.source(), self.inbox.clone(), self.metrics.clone());
        self.spawn(async move {
            for (id, observation, clock) in source.observe(clock::now, batch).await {
                match &observation {
                    Observation::Failed(failure) => {
                        tracing::warn!(switch = %id.switch, kind = failure.kind.as_str(), detail = %failure.detail, "reading failed");
                        metrics.readings_failed.get_or_create(&Reason { reason: failure.kind.as_str() }).inc();
                    }
                    Observation::Cell(cell) => {
                        metrics.ticks.inc();
                        if let Reading::Failed(failure) = &cell.counts {
                            tracing::warn!(switch = %id.switch, detail = %failure.detail, "counts unusable");
                        }
                        tracing::debug!(switch = %id.switch, from = %cell.from, to = %cell.to, counts = ?cell.counts.value(), "cell");
                    }
                    Observation::Empty { .. } | Observation::Absent { .. } => {}
                }
                if let Some(clock) = clock {
                    metrics.clock_skew_seconds.set(clock.skew_ms as f64 / 1000.0);
                }
                deliver(&inbox, Input::Observed { id, observation, clock }).await;
            }
        });
    }

    fn choose(&self, id: CommandId, ask: BaselineAsk) {
        let this = self.clone();
        self.spawn(async move {
            let record =
                RecordAsk { service: ask.service.clone(), metrics: ask.metrics.clone(), slots: ask.slots.clone() };
            match tokio::time::timeout(CHOOSE_LIMIT, this.record(&record)).await {
                Ok(Ok(_)) => {}
                Ok(Err(error)) => tracing::warn!(%error, "the baseline could not be brought up to now"),
                Err(_) => tracing::warn!("bringing the baseline up to now took too long"),
            }
            let reader = this.reader.clone();
            let chosen = tokio::task::spawn_blocking(move || reader.choose_baseline(&ask)).await;
            let baseline = match chosen {
                Ok(Ok(baseline)) => baseline,
                Ok(Err(error)) => Err(error.to_string()),
                Err(_) => Err("the choice was broken off".into()),
            };
            deliver(&this.inbox, Input::BaselineChosen { id, baseline }).await;
        });
    }

    /// Records a service's cells up to now; says how many came.
    pub async fn record(&self, ask: &RecordAsk) -> Result<usize, String> {
        let _one_at_a_time = self.recording.lock().await;
        let now = clock::now();
        let last = self.reader.last_cell_end(&ask.service, None).map_err(|error| error.to_string())?;
        let source = self.source();
        let backfill = source.backfill();
        let from = last.unwrap_or(now - backfill).max(now - backfill.max(CELL.times(40)));
        let recorded = tokio::time::timeout(RECORD_LIMIT, source.record(ask, from, CELL, clock::now));
        let recorded = recorded.await.map_err(|_| "no answer in time".to_owned())?.map_err(|f| f.to_string())?;
        let mut cells = 0;
        for slot in recorded {
            cells += slot.cells.len();
            if self.inbox.write_synced(Write::Cells(slot)).await.is_err() {
                return Err("flipback is busy or stopping".into());
            }
        }
        tracing::debug!(service = %ask.service, cells, "baseline recorded");
        Ok(cells)
    }

    async fn step_ended(&self, attempt: crate::domain::plan::AttemptId, state: AttemptState) {
        let reason = match &state {
            AttemptState::Ended(result) => match &result.ended {
                StepEnd::Exited(0) => "done",
                StepEnd::Exited(_) => "failed",
                StepEnd::Signalled(_) => "signalled",
                StepEnd::TimedOut => "timed_out",
                StepEnd::NotStarted(_) => "not_started",
            },
            AttemptState::Cancelled(_) => "cancelled",
            AttemptState::Ambiguous => "ambiguous",
        };
        tracing::warn!(%attempt, result = reason, "step ended");
        self.metrics.steps.get_or_create(&Reason { reason }).inc();
        deliver(&self.inbox, Input::StepEnded { attempt, state }).await;
    }
}

/// An answer must not be lost to a full queue: it waits for room.
async fn deliver(inbox: &Inbox, input: Input) {
    while inbox.tell(input.clone()) == Err(NotTaken::Busy) {
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// This program, for the shim.
pub fn own_program() -> std::io::Result<std::path::PathBuf> {
    // After an upgrade /proc/self/exe still is the running image; current_exe would name a deleted file.
    let own = Path::new("/proc/self/exe");
    if own.exists() { Ok(own.to_owned()) } else { std::env::current_exe() }
}
