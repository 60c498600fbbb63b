//! Steps through the shim, and what became of them after a crash.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Stdio;

use tokio::process::Command;

use super::native::unit;
use crate::domain::action::Action;
use crate::domain::attempt::Found;
use crate::domain::plan::{AttemptId, AttemptState, StepResult};
use crate::domain::switch::ServiceName;
use crate::domain::time::{Span, Timestamp};
use crate::engine::message::StepRun;
use crate::shim::{self, Native, Spec};

/// All that a child gets of a search path.
pub const CHILD_PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// How often a running attempt of an earlier daemon is looked at.
const LOOK_EVERY: std::time::Duration = std::time::Duration::from_millis(100);

/// Directory of the marks that say what is disarmed; `all`, or a service's digest.
const DISARMED: &str = "disarmed";
const ALL: &str = "all";

/// After deadline and kill grace, the shim's report is due within this.
const REPORT_SLACK: Span = Span::from_secs(8);

/// Runs steps in directories below the state directory.
#[derive(Debug, Clone)]
pub struct Executor {
    dir: PathBuf,
    /// This program: the shim is one of its verbs.
    program: PathBuf,
}

impl Executor {
    pub fn new(state_dir: &Path, program: PathBuf) -> std::io::Result<Self> {
        let dir = state_dir.join("exec");
        fs::create_dir_all(dir.join("serial"))?;
        fs::create_dir_all(dir.join(DISARMED))?;
        Ok(Self { dir, program })
    }

    fn attempt_dir(&self, attempt: &AttemptId) -> PathBuf {
        self.dir.join(attempt.file_name())
    }

    /// Runs one attempt to its end. Its directory must be new: an id is used once.
    ///
    /// `now` is the daemon's clock. The shim has only the wall clock, so what it is told is counted from
    /// the wall clock's present.
    pub async fn run(&self, run: &StepRun, now: fn() -> Timestamp, wall: fn() -> Timestamp) -> AttemptState {
        let dir = self.attempt_dir(&run.attempt);
        let ahead_ms = wall().as_millis() - now().as_millis();
        if let Err(error) = self.prepare(&dir, run, ahead_ms) {
            if error.kind() == std::io::ErrorKind::AlreadyExists {
                return self.recover(&run.attempt, run.deadline, now).await;
            }
            return AttemptState::Cancelled(format!("{}: {error}", dir.display()));
        }
        let spawned = Command::new(&self.program)
            .arg("shim")
            .arg(&dir)
            .env_clear()
            .current_dir("/")
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::inherit())
            // Its own group: what ends the daemon must not end the step.
            .process_group(0)
            .spawn();
        match spawned {
            Ok(mut child) => {
                let _ = child.wait().await;
                self.recover(&run.attempt, run.deadline, now).await
            }
            Err(error) => self.settle(&dir, &format!("{} shim: {error}", self.program.display())),
        }
    }

    fn prepare(&self, dir: &Path, run: &StepRun, ahead_ms: i64) -> std::io::Result<()> {
        let mut env: BTreeMap<String, String> = run.env.clone();
        env.insert("PATH".into(), CHILD_PATH.into());
        let own = |dir: &Path| vec![self.program.display().to_string(), "act".into(), dir.display().to_string()];
        let (argv, native) = match &run.action {
            Action::Exec(exec) => {
                // What flipback says of the attempt counts more than what somebody configured.
                env = exec.env.clone().into_iter().chain(env).collect();
                (exec.argv.clone(), None)
            }
            Action::Unit(_) => (unit::command(&run.service, &run.env, &run.step).argv, None),
            action => (own(dir), Some(Native { action: action.clone(), to: run.to.clone() })),
        };
        let serial = self.dir.join("serial").join(lock_file_name(&run.lock));
        let spec = Spec {
            argv,
            native,
            env,
            start_by: run.start_by.shifted(ahead_ms),
            deadline: run.deadline.shifted(ahead_ms),
            disarmed: self.marks_of(&run.service),
            serial: serial.display().to_string(),
        };
        fs::create_dir(dir)?;
        let json = serde_json::to_vec(&spec)?;
        shim::write_durably(dir, shim::SPEC, &json)?;
        fs::File::open(&self.dir)?.sync_all()
    }

    /// What became of an attempt: adopts its result, waits for it while it runs, and makes sure that
    /// one which never started never will.
    pub async fn recover(&self, attempt: &AttemptId, deadline: Timestamp, now: fn() -> Timestamp) -> AttemptState {
        let dir = self.attempt_dir(attempt);
        let grace = Span::from_millis(u64::try_from(shim::KILL_GRACE.as_millis()).unwrap_or(u64::MAX));
        let patience = deadline + grace + REPORT_SLACK;
        loop {
            if let Some(result) = read_result(&dir) {
                return AttemptState::Ended(result);
            }
            if shim::marks(&dir, self.is_running(&dir)).found() != Found::Running {
                return self.settle(&dir, "the daemon ended before the step began");
            }
            if now() >= patience {
                // The shim is gone or stopped, the step holds the lock: end its group.
                if let Some(group) = fs::read_to_string(dir.join(shim::GROUP)).ok().and_then(|t| t.trim().parse().ok())
                {
                    shim::kill_group(group, rustix::process::Signal::KILL);
                }
                tokio::time::sleep(LOOK_EVERY * 5).await;
                return read_result(&dir).map_or(AttemptState::Ambiguous, AttemptState::Ended);
            }
            tokio::time::sleep(LOOK_EVERY).await;
        }
    }

    fn is_running(&self, dir: &Path) -> bool {
        shim::open_lock(&dir.join(shim::LOCK)).is_ok_and(|lock| lock.try_lock().is_err())
    }

    /// Nothing runs and there is no result: cancelled for good if it never started, else ambiguous.
    fn settle(&self, dir: &Path, why: &str) -> AttemptState {
        if fs::create_dir_all(dir).is_err() {
            return AttemptState::Ambiguous;
        }
        let Ok(lock) = shim::open_lock(&dir.join(shim::LOCK)) else { return AttemptState::Ambiguous };
        if lock.try_lock().is_err() {
            return AttemptState::Ambiguous;
        }
        // Under the lock nobody can start it between the look and the mark.
        let found = shim::marks(dir, false).found();
        match found {
            // A result that is there and cannot be read says as little as none.
            Found::Ended => read_result(dir).map_or(AttemptState::Ambiguous, AttemptState::Ended),
            Found::Running | Found::Ambiguous => AttemptState::Ambiguous,
            Found::Cancelled => {
                let why = fs::read_to_string(dir.join(shim::CANCELLED)).unwrap_or_else(|_| "cancelled".into());
                AttemptState::Cancelled(why)
            }
            Found::NeverStarted if !found.must_be_sealed() => AttemptState::Cancelled(why.to_owned()),
            Found::NeverStarted => match shim::write_durably(dir, shim::CANCELLED, why.as_bytes()) {
                Ok(()) => AttemptState::Cancelled(why.to_owned()),
                // It cannot be ruled out that it starts later.
                Err(_) => AttemptState::Ambiguous,
            },
        }
    }

    /// Makes the marks that shims look at match what is disarmed, on disk before it returns.
    pub fn mark_disarmed(&self, all: bool, services: &BTreeSet<ServiceName>) -> std::io::Result<()> {
        let dir = self.dir.join(DISARMED);
        let mut wanted: BTreeSet<String> = services.iter().map(|name| lock_file_name(name.as_str())).collect();
        if all {
            wanted.insert(ALL.into());
        }
        for entry in fs::read_dir(&dir)? {
            let entry = entry?;
            let name = entry.file_name().to_string_lossy().into_owned();
            if !wanted.remove(&name) {
                fs::remove_file(entry.path())?;
            }
        }
        for name in wanted {
            fs::File::create(dir.join(name))?.sync_all()?;
        }
        fs::File::open(&dir)?.sync_all()
    }

    fn marks_of(&self, service: &ServiceName) -> Vec<String> {
        let dir = self.dir.join(DISARMED);
        [ALL.to_owned(), lock_file_name(service.as_str())].map(|name| dir.join(name).display().to_string()).into()
    }
}

fn read_result(dir: &Path) -> Option<StepResult> {
    serde_json::from_slice(&fs::read(dir.join(shim::RESULT)).ok()?).ok()
}

/// A lock's name is free text (a path, as a rule): its digest is a file name.
fn lock_file_name(lock: &str) -> String {
    use sha2::Digest;
    sha2::Sha256::digest(lock.as_bytes()).iter().take(16).map(|b| format!("{b:02x}")).collect()
}
