//! Steps over crashes: the executor against real programs, and the daemon killed while one runs.

use std::collections::BTreeMap;
use std::fs;
use std::net::TcpListener;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use flipback::domain::action::{Action, Exec};
use flipback::domain::plan::{AttemptId, AttemptState, StepEnd};
use flipback::domain::switch::{ServiceName, Slot, SwitchId};
use flipback::domain::time::{Span, Timestamp};
use flipback::edge::actuators::exec::Executor;
use flipback::engine::message::StepRun;
use serde_json::Value;
use tempfile::TempDir;

use crate::stack::{Proc, free_port, wait_until};

pub fn now() -> Timestamp {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
    Timestamp::from_millis(i64::try_from(since.as_millis()).unwrap())
}

pub fn script(dir: &Path, name: &str, text: &str) -> PathBuf {
    let path = dir.join(name);
    fs::write(&path, format!("#!/bin/sh\n{text}\n")).unwrap();
    fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
    path
}

struct Bench {
    executor: Executor,
    dir: TempDir,
}

impl Bench {
    fn new() -> Bench {
        let dir = TempDir::with_prefix("flipback-steps-").unwrap();
        let executor = Executor::new(dir.path(), env!("CARGO_BIN_EXE_flipback").into()).unwrap();
        Bench { executor, dir }
    }

    fn step(&self, n: u8, text: &str) -> StepRun {
        let program = script(self.dir.path(), &format!("step{n}"), text);
        StepRun {
            attempt: AttemptId { switch: SwitchId::try_new("team/checkout:eu-1").unwrap(), step: 0, attempt: n },
            service: ServiceName::try_new("team/checkout:eu").unwrap(),
            step: "haproxy".into(),
            action: Action::Exec(Exec::new([program.display().to_string(), self.dir.path().display().to_string()])),
            to: Slot::try_new("blue").unwrap(),
            env: BTreeMap::from([("FLIPBACK_OLD".to_owned(), "blue".to_owned())]),
            start_by: now() + Span::from_secs(5),
            deadline: now() + Span::from_secs(20),
            lock: "/the/proxy".into(),
        }
    }

    fn lines(&self) -> usize {
        fs::read_to_string(self.dir.path().join("ran")).map_or(0, |text| text.lines().count())
    }
}

fn exited(state: &AttemptState) -> i32 {
    match state {
        AttemptState::Ended(result) => match result.ended {
            StepEnd::Exited(code) => code,
            ref other => panic!("{other}"),
        },
        other => panic!("{other:?}"),
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_attempt_that_is_run_again_is_only_looked_up() {
    let bench = Bench::new();
    let run = bench.step(1, "echo $FLIPBACK_OLD >> $1/ran; exit 3");
    for _ in 0..3 {
        assert_eq!(exited(&bench.executor.run(&run, now, now).await), 3);
    }
    assert_eq!((bench.lines(), fs::read_to_string(bench.dir.path().join("ran")).unwrap().as_str()), (1, "blue\n"));
    let AttemptState::Ended(found) = bench.executor.recover(&run.attempt, run.deadline, now).await else { panic!() };
    assert_eq!(found.ended, StepEnd::Exited(3));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_intent_that_never_reached_the_shim_is_cancelled_for_good() {
    let bench = Bench::new();
    let run = bench.step(1, "echo x >> $1/ran");
    let found = bench.executor.recover(&run.attempt, run.deadline, now).await;
    assert!(matches!(found, AttemptState::Cancelled(_)), "{found:?}");
    // Whoever comes late with the same attempt finds the mark.
    let late = bench.executor.run(&run, now, now).await;
    assert!(matches!(late, AttemptState::Cancelled(_)), "{late:?}");
    assert_eq!(bench.lines(), 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_step_outlives_its_daemon_and_its_result_is_adopted() {
    let bench = Bench::new();
    let run = bench.step(1, "echo x >> $1/ran; sleep 2; echo done; exit 0");
    let (executor, first) = (bench.executor.clone(), run.clone());
    let daemon = tokio::spawn(async move { executor.run(&first, now, now).await });
    wait_until(Duration::from_secs(10), "the step runs", || (bench.lines() == 1).then_some(()));
    daemon.abort();
    let found = bench.executor.recover(&run.attempt, run.deadline, now).await;
    assert_eq!((exited(&found), bench.lines()), (0, 1));
    let AttemptState::Ended(result) = found else { panic!() };
    assert_eq!(result.output.trim(), "done", "what it printed after that is there");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_step_whose_shim_was_killed_is_waited_for_and_then_ambiguous() {
    let bench = Bench::new();
    let run = bench.step(1, "echo $PPID >> $1/ran; sleep 2; echo $$ >> $1/ended");
    let (executor, first) = (bench.executor.clone(), run.clone());
    let daemon = tokio::spawn(async move { executor.run(&first, now, now).await });
    wait_until(Duration::from_secs(10), "the step runs", || (bench.lines() == 1).then_some(()));
    let shim = fs::read_to_string(bench.dir.path().join("ran")).unwrap();
    let began = Instant::now();
    assert!(Command::new("/bin/kill").args(["-KILL", shim.trim()]).status().unwrap().success());
    // The step goes on without its shim and still has the lock: nobody may take it for ended.
    assert_eq!(daemon.await.unwrap(), AttemptState::Ambiguous);
    assert!(bench.dir.path().join("ended").exists(), "it was waited for");
    assert!(began.elapsed() < Duration::from_secs(15));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn steps_that_touch_the_same_thing_run_one_at_a_time() {
    let bench = Bench::new();
    let text = "if ! mkdir $1/busy; then echo overlap >> $1/ran; fi; sleep 0.3; rmdir $1/busy; echo x >> $1/ran";
    let runs: Vec<_> = (1..=4).map(|n| bench.step(n, text)).collect();
    let tasks: Vec<_> = runs
        .into_iter()
        .map(|run| {
            let executor = bench.executor.clone();
            tokio::spawn(async move { executor.run(&run, now, now).await })
        })
        .collect();
    for task in tasks {
        assert_eq!(exited(&task.await.unwrap()), 0);
    }
    let ran = fs::read_to_string(bench.dir.path().join("ran")).unwrap();
    assert_eq!(ran, "x\nx\nx\nx\n");
}

/// A daemon without Prometheus: health checks alone tell it that the new slot is dead.
struct Small {
    dir: TempDir,
    proc: Option<Proc>,
    _old: TcpListener,
}

impl Small {
    /// `step` is the text of the rollback script; `$1` is the slot, `$D` its directory.
    fn start(step: &str) -> Small {
        let dir = TempDir::with_prefix("flipback-small-").unwrap();
        let old = TcpListener::bind("127.0.0.1:0").unwrap();
        let (alive, dead) = (old.local_addr().unwrap().port(), free_port());
        let d = dir.path().display();
        script(dir.path(), "switch", &format!("D={d}\n{step}"));
        script(dir.path(), "active", &format!("cat {d}/active-slot"));
        fs::write(dir.path().join("active-slot"), "green\n").unwrap();
        let config = format!(
            r#"state_dir = "{d}/state"
[prometheus]
url = "http://127.0.0.1:1"
[api]
listen = "none"
socket = "{d}/control.sock"
[metrics.web]
requests = 'r{{env="$slot"}}'
[[service]]
name = "checkout"
metrics = "web"
mode = "auto"
slots.blue = {{ health = {{ tcp = "127.0.0.1:{alive}" }} }}
slots.green = {{ health = {{ tcp = "127.0.0.1:{dead}" }} }}
soak = {{ duration = "60s", tick = "1s" }}
recover_within = "3s"
[[service.rollback]]
name = "proxy"
exec = ["{d}/switch", "$old"]
timeout = "20s"
probe = {{ exec = ["{d}/active"], expect = "$old" }}
"#
        );
        fs::write(dir.path().join("flipback.toml"), config).unwrap();
        let mut small = Small { dir, proc: None, _old: old };
        small.up();
        small
    }

    fn up(&mut self) {
        let mut command = Command::new(env!("CARGO_BIN_EXE_flipback"));
        command.arg("run").arg("--config").arg(self.dir.path().join("flipback.toml"));
        self.proc = Some(Proc::start("flipback", self.dir.path(), &mut command));
        wait_until(Duration::from_secs(15), "flipback answers", || {
            self.flipback(&["status"]).status.success().then_some(())
        });
    }

    fn kill(&mut self) {
        if let Some(proc) = self.proc.take() {
            proc.signal("-KILL");
        }
    }

    fn flipback(&self, args: &[&str]) -> std::process::Output {
        let mut command = Command::new(env!("CARGO_BIN_EXE_flipback"));
        command.args(args).arg("--socket").arg(self.dir.path().join("control.sock")).output().unwrap()
    }

    fn announce(&self) {
        let done = self.flipback(&["announce", "checkout", "--old", "blue", "--new", "green", "--version", "v2"]);
        assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
    }

    fn runs(&self) -> usize {
        fs::read_to_string(self.dir.path().join("ran")).map_or(0, |text| text.lines().count())
    }

    fn view(&self) -> Value {
        serde_json::from_slice(&self.flipback(&["show", "checkout-1", "-o", "json"]).stdout).unwrap_or(Value::Null)
    }

    fn outcome(&self) -> String {
        wait_until(Duration::from_secs(60), "the end", || match &self.view()["outcome"] {
            Value::String(word) => Some(word.clone()),
            Value::Object(map) => map.keys().next().cloned(),
            _ => None,
        })
    }
}

#[test]
fn a_daemon_killed_while_its_step_runs_adopts_the_result() {
    let mut small = Small::start("echo x >> $D/ran; sleep 3; echo $1 > $D/active-slot; echo moved to $1");
    small.announce();
    wait_until(Duration::from_secs(30), "the step runs", || (small.runs() == 1).then_some(()));
    small.kill();
    small.up();
    assert_eq!(small.outcome(), "rolled_back_unseen", "{}", small.view());
    let view = small.view();
    assert_eq!((small.runs(), view["steps"].as_array().unwrap().len()), (1, 1));
    assert!(view["steps"][0]["result"]["ended"]["output"].as_str().unwrap().contains("moved to blue"), "{view}");
}

#[test]
fn killed_again_and_again_the_step_still_runs_once() {
    let mut small = Small::start("echo x >> $D/ran; sleep 2; echo $1 > $D/active-slot");
    small.announce();
    wait_until(Duration::from_secs(30), "the breach is near", || {
        (small.view()["evidence"].as_array()?.iter().find(|e| e["signal"] == "alive")?["ticks_above"].as_u64()? >= 8)
            .then_some(())
    });
    // At no chosen moment: before, in and after each stage of the rollback.
    for pause_ms in [700, 450, 900, 300, 1100, 650, 500, 800] {
        std::thread::sleep(Duration::from_millis(pause_ms));
        small.kill();
        small.up();
    }
    assert_eq!(small.outcome(), "rolled_back_unseen", "{}", small.view());
    assert_eq!(small.runs(), 1);
}

#[test]
fn a_stopped_daemon_leaves_its_step_running() {
    let mut small = Small::start("echo x >> $D/ran; sleep 3; echo $1 > $D/active-slot");
    small.announce();
    wait_until(Duration::from_secs(30), "the step runs", || (small.runs() == 1).then_some(()));
    let mut proc = small.proc.take().unwrap();
    proc.signal("-TERM");
    assert_eq!(proc.child.wait().unwrap().code(), Some(0), "{}", proc.log());
    wait_until(Duration::from_secs(10), "the step ends by itself", || {
        (fs::read_to_string(small.dir.path().join("active-slot")).unwrap().trim() == "blue").then_some(())
    });
    small.up();
    assert_eq!((small.outcome().as_str(), small.runs()), ("rolled_back_unseen", 1));
}

#[test]
fn a_step_that_says_yes_and_does_nothing_is_found_out() {
    let small = Small::start("echo x >> $D/ran; exit 0");
    small.announce();
    assert_eq!(small.outcome(), "rollback_failed");
    assert_eq!(small.runs(), 3, "three tries, each after a look");
}
