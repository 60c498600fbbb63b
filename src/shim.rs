//! Carries out one step outside the daemon, so that the step outlives it.
//!
//! The directory of the attempt is the protocol: `spec.json` (written by the daemon), `lock` (held by
//! this process and inherited by the step), `started` (on disk before the fork), `cancelled` (the
//! attempt may never start), `result.json`. No tokio, no configuration, no journal: little that can fail.

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::fs::{self, File, OpenOptions};
use std::io::{Read, Write};
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant, SystemTime};

use serde::{Deserialize, Serialize};

use crate::domain::action::Action;
use crate::domain::attempt::Marks;
use crate::domain::plan::{StepEnd, StepResult};
use crate::domain::switch::Slot;
use crate::domain::time::{Span, Timestamp};

/// Captured output, head and tail together. More helps nobody and would fill the journal.
const OUTPUT_MAX: usize = 256 * 1024;

/// Between TERM and KILL: a proxy's reload script gets the time to clean up.
pub const KILL_GRACE: Duration = Duration::from_secs(5);

/// What is still in the pipes after the step's own end. A grandchild may hold them open for ever.
const DRAIN_LIMIT: Duration = Duration::from_millis(500);

const POLL: Duration = Duration::from_millis(20);

pub const SPEC: &str = "spec.json";
pub const LOCK: &str = "lock";
pub const STARTED: &str = "started";
pub const CANCELLED: &str = "cancelled";
pub const RESULT: &str = "result.json";
/// The step's process group, for the daemon that has to end it when this process is gone.
pub const GROUP: &str = "group";

/// What the daemon writes down for one attempt.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Spec {
    pub argv: Vec<String>,
    /// For an action of flipback's own: `argv` is this program then, and reads it here.
    #[serde(default)]
    pub native: Option<Native>,
    /// The whole environment of the step.
    pub env: BTreeMap<String, String>,
    pub start_by: Timestamp,
    pub deadline: Timestamp,
    /// Files whose mere existence says that flipback was disarmed meanwhile.
    pub disarmed: Vec<String>,
    /// File whose lock serialises the steps that touch the same thing.
    pub serial: String,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Native {
    pub action: Action,
    pub to: Slot,
}

/// Runs the attempt in `dir`. Exit code 0: a result was written; 1: refused or failed, said on stderr.
pub fn run(dir: &Path) -> i32 {
    match attempt(dir) {
        Ok(()) => 0,
        Err(why) => {
            eprintln!("flipback shim: {}: {why}", dir.display());
            1
        }
    }
}

fn attempt(dir: &Path) -> Result<(), String> {
    let text = fs::read_to_string(dir.join(SPEC)).map_err(|e| format!("{SPEC}: {e}"))?;
    let spec: Spec = serde_json::from_str(&text).map_err(|e| format!("{SPEC}: {e}"))?;
    let lock = open_lock(&dir.join(LOCK)).map_err(|e| format!("{LOCK}: {e}"))?;
    lock.try_lock().map_err(|_| "another process has this attempt's lock".to_owned())?;
    let refuse = |why: String| -> Result<(), String> {
        write_durably(dir, CANCELLED, why.as_bytes()).map_err(|e| format!("{CANCELLED}: {e}"))?;
        Err(why)
    };
    let disarmed = || spec.disarmed.iter().any(|mark| Path::new(mark).exists());
    match marks(dir, false).may_start(now(), spec.start_by, disarmed()) {
        Ok(()) => {}
        Err(None) => return Err("refused: an attempt runs once".into()),
        Err(Some(why)) => return refuse(why),
    }
    let serial = open_lock(Path::new(&spec.serial)).map_err(|e| format!("{}: {e}", spec.serial))?;
    while serial.try_lock().is_err() {
        if now() >= spec.deadline {
            return refuse("another step that touches the same thing ran until the deadline".into());
        }
        thread::sleep(POLL);
    }
    if disarmed() {
        return refuse("disarmed while it waited for another step".into());
    }
    // From here on nobody may assume that the step has not run.
    let started_at = now();
    write_durably(dir, STARTED, started_at.to_string().as_bytes()).map_err(|e| format!("{STARTED}: {e}"))?;
    let (ended, output) = carry_out(dir, &spec, &lock);
    let result = StepResult { ended, started_at, ended_at: now(), output };
    let json = serde_json::to_vec(&result).map_err(|e| format!("{RESULT}: {e}"))?;
    write_durably(dir, RESULT, &json).map_err(|e| format!("{RESULT}: {e}"))
}

fn carry_out(dir: &Path, spec: &Spec, lock: &File) -> (StepEnd, String) {
    let Some((program, arguments)) = spec.argv.split_first() else {
        return (StepEnd::NotStarted("the command is empty".into()), String::new());
    };
    // The step inherits the lock: whoever finds it free knows that the step has ended too.
    let inherited = rustix::io::fcntl_setfd(lock, rustix::io::FdFlags::empty());
    if let Err(error) = inherited {
        return (StepEnd::NotStarted(format!("the lock cannot be handed on: {error}")), String::new());
    }
    let spawned = Command::new(program)
        .args(arguments)
        .env_clear()
        .envs(&spec.env)
        .current_dir("/")
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .process_group(0)
        .spawn();
    let mut child = match spawned {
        Ok(child) => child,
        Err(error) => return (StepEnd::NotStarted(format!("{program}: {error}")), String::new()),
    };
    // Only a help for a daemon that finds us gone; without it it waits longer.
    let _ = fs::write(dir.join(GROUP), child.id().to_string());
    let capture = Arc::new(Mutex::new(Capture::default()));
    let readers = [
        child.stdout.take().map(|pipe| drain(pipe, capture.clone())),
        child.stderr.take().map(|pipe| drain(pipe, capture.clone())),
    ];
    let ended = wait(&mut child, spec.deadline);
    let until = Instant::now() + DRAIN_LIMIT;
    for reader in readers.into_iter().flatten() {
        while !reader.is_finished() && Instant::now() < until {
            thread::sleep(POLL);
        }
    }
    let output = capture.lock().unwrap_or_else(PoisonError::into_inner).text();
    (ended, output)
}

fn wait(child: &mut Child, deadline: Timestamp) -> StepEnd {
    let left = Duration::from_millis(deadline.since(now()).as_millis());
    if let Some(status) = wait_until(child, Instant::now() + left) {
        return end_of(status);
    }
    kill_group(child.id(), rustix::process::Signal::TERM);
    let in_grace = wait_until(child, Instant::now() + KILL_GRACE);
    // Whether or not the step itself obeyed: what it left in its group must not go on.
    kill_group(child.id(), rustix::process::Signal::KILL);
    if in_grace.is_none() {
        let _ = child.wait();
    }
    StepEnd::TimedOut
}

fn wait_until(child: &mut Child, until: Instant) -> Option<ExitStatus> {
    loop {
        if let Ok(Some(status)) = child.try_wait() {
            return Some(status);
        }
        if Instant::now() >= until {
            return None;
        }
        thread::sleep(POLL);
    }
}

fn end_of(status: ExitStatus) -> StepEnd {
    match (status.code(), status.signal()) {
        (Some(code), _) => StepEnd::Exited(code),
        (None, Some(signal)) => StepEnd::Signalled(signal),
        (None, None) => StepEnd::Signalled(0),
    }
}

/// What an attempt's directory shows; whether the lock is held is the caller's to say.
pub fn marks(dir: &Path, locked: bool) -> Marks {
    let is = |name: &str| dir.join(name).exists();
    Marks { locked, started: is(STARTED), cancelled: is(CANCELLED), result: is(RESULT) }
}

/// Ends every process of a group; a group that is gone already is fine.
pub fn kill_group(group: u32, signal: rustix::process::Signal) {
    if let Some(pid) = i32::try_from(group).ok().and_then(rustix::process::Pid::from_raw) {
        let _ = rustix::process::kill_process_group(pid, signal);
    }
}

/// The first and the last half of what was printed.
#[derive(Default)]
struct Capture {
    head: Vec<u8>,
    tail: std::collections::VecDeque<u8>,
    dropped: usize,
}

impl Capture {
    fn take(&mut self, bytes: &[u8]) {
        let room = (OUTPUT_MAX / 2).saturating_sub(self.head.len()).min(bytes.len());
        self.head.extend_from_slice(&bytes[..room]);
        self.tail.extend(&bytes[room..]);
        while self.tail.len() > OUTPUT_MAX / 2 {
            self.tail.pop_front();
            self.dropped += 1;
        }
    }

    fn text(&self) -> String {
        let mut bytes = self.head.clone();
        if self.dropped > 0 {
            bytes.extend_from_slice(format!("\n[… {} bytes left out …]\n", self.dropped).as_bytes());
        }
        bytes.extend(&self.tail);
        String::from_utf8_lossy(&bytes).into_owned()
    }
}

fn drain(mut pipe: impl Read + Send + 'static, capture: Arc<Mutex<Capture>>) -> thread::JoinHandle<()> {
    thread::spawn(move || {
        let mut buffer = [0; 8192];
        while let Ok(n) = pipe.read(&mut buffer) {
            if n == 0 {
                break;
            }
            capture.lock().unwrap_or_else(PoisonError::into_inner).take(&buffer[..n]);
        }
    })
}

/// Opens (or makes) a file to lock.
pub fn open_lock(path: &Path) -> std::io::Result<File> {
    OpenOptions::new().create(true).truncate(false).read(true).write(true).open(path)
}

/// On disk under its name, or not at all: file synced, renamed, directory synced.
pub fn write_durably(dir: &Path, name: &str, bytes: &[u8]) -> std::io::Result<()> {
    let mut partial = OsStr::new(name).to_owned();
    partial.push(".partial");
    let partial = dir.join(partial);
    let mut file = File::create(&partial)?;
    file.write_all(bytes)?;
    file.sync_all()?;
    fs::rename(&partial, dir.join(name))?;
    File::open(dir)?.sync_all()
}

/// The shim is a process of its own, outside the daemon's one clock.
#[allow(clippy::disallowed_methods, reason = "no runtime here whose clock could be asked")]
fn now() -> Timestamp {
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    Timestamp::from_millis(0) + Span::from_millis(u64::try_from(since.as_millis()).unwrap_or(u64::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn spec(dir: &Path, argv: &[&str], seconds: u64) -> Spec {
        Spec {
            argv: argv.iter().map(|s| (*s).to_owned()).collect(),
            native: None,
            env: BTreeMap::from([("PATH".into(), "/usr/bin:/bin".into()), ("FLIPBACK_OLD".into(), "blue".into())]),
            start_by: now() + Span::from_secs(5),
            deadline: now() + Span::from_secs(seconds),
            disarmed: vec![dir.join("disarmed").display().to_string()],
            serial: dir.join("serial").display().to_string(),
        }
    }

    fn play(argv: &[&str], seconds: u64) -> (tempfile::TempDir, i32, Option<StepResult>) {
        let dir = tempfile::tempdir().unwrap();
        let spec = spec(dir.path(), argv, seconds);
        fs::write(dir.path().join(SPEC), serde_json::to_vec(&spec).unwrap()).unwrap();
        let code = run(dir.path());
        let result = fs::read(dir.path().join(RESULT)).ok().map(|b| serde_json::from_slice(&b).unwrap());
        (dir, code, result)
    }

    #[test]
    fn a_step_runs_with_a_scrubbed_environment_and_leaves_its_output() {
        let (_dir, code, result) = play(&["/usr/bin/env"], 5);
        let result = result.unwrap();
        assert_eq!((code, &result.ended), (0, &StepEnd::Exited(0)));
        let mut lines: Vec<_> = result.output.lines().collect();
        lines.sort_unstable();
        assert_eq!(lines, ["FLIPBACK_OLD=blue", "PATH=/usr/bin:/bin"]);
    }

    #[test]
    fn an_attempt_runs_once() {
        let (dir, _, first) = play(&["/bin/true"], 5);
        assert_eq!(first.unwrap().ended, StepEnd::Exited(0));
        fs::remove_file(dir.path().join(RESULT)).unwrap();
        assert_eq!(run(dir.path()), 1, "started exists");
        assert!(!dir.path().join(RESULT).exists());
    }

    #[test]
    fn a_late_attempt_never_starts() {
        let dir = tempfile::tempdir().unwrap();
        let late = Spec { start_by: now() - Span::from_secs(1), ..spec(dir.path(), &["/bin/true"], 5) };
        fs::write(dir.path().join(SPEC), serde_json::to_vec(&late).unwrap()).unwrap();
        assert_eq!(run(dir.path()), 1);
        assert!(dir.path().join(CANCELLED).exists() && !dir.path().join(STARTED).exists());
    }

    #[test]
    fn what_was_disarmed_meanwhile_never_starts() {
        let dir = tempfile::tempdir().unwrap();
        let spec = spec(dir.path(), &["/bin/true"], 5);
        fs::write(dir.path().join(SPEC), serde_json::to_vec(&spec).unwrap()).unwrap();
        fs::write(dir.path().join("disarmed"), "").unwrap();
        assert_eq!(run(dir.path()), 1);
        assert!(fs::read_to_string(dir.path().join(CANCELLED)).unwrap().contains("disarmed"));
        assert!(!dir.path().join(STARTED).exists());
    }

    #[test]
    fn what_hangs_is_killed_with_all_its_children() {
        let began = Instant::now();
        let (dir, _, result) = play(&["/bin/sh", "-c", "trap '' TERM; sleep 600 & echo $!; wait; wait"], 1);
        assert_eq!(result.as_ref().unwrap().ended, StepEnd::TimedOut);
        assert!(began.elapsed() < Duration::from_secs(60));
        let child: u32 = result.unwrap().output.trim().parse().unwrap();
        let gone = (0..100).any(|_| {
            thread::sleep(Duration::from_millis(20));
            fs::read_to_string(format!("/proc/{child}/stat")).map_or(true, |s| s.contains(") Z "))
        });
        assert!(gone, "grandchild {child} lives on");
        drop(dir);
    }

    #[test]
    fn floods_are_cut_in_the_middle() {
        let (_dir, _, result) = play(&["/usr/bin/head", "-c", "3000000", "/dev/zero"], 20);
        let result = result.unwrap();
        assert_eq!(result.ended, StepEnd::Exited(0));
        assert!(result.output.len() < OUTPUT_MAX + 100 && result.output.contains("bytes left out"));
    }

    #[test]
    fn a_missing_program_is_named() {
        let (_dir, code, result) = play(&["/nowhere/switch"], 5);
        let StepEnd::NotStarted(why) = result.unwrap().ended else { panic!("it cannot have started") };
        assert!(code == 0 && why.contains("/nowhere/switch"), "{why}");
    }
}
