//! The daemon and its shim killed at every syscall that makes something durable, and every kind of I/O error there:
//! what an outside counter counts is one run, and what was acknowledged is there.
//!
//! `FLIPBACK_ALL_POINTS=1` plays all points; without it a spread of them. `FLIPBACK_POINT=fsync:error=EIO:when=30`
//! plays that one forty times.

use std::collections::BTreeMap;
use std::fs;
use std::net::TcpListener;
use std::path::Path;
use std::process::Command;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use flipback::domain::action::{Action, Exec};
use flipback::domain::plan::{AttemptId, AttemptState};
use flipback::domain::switch::{ServiceName, Slot, SwitchId};
use flipback::domain::time::Span;
use flipback::edge::actuators::exec::Executor;
use flipback::engine::message::StepRun;
use flipback::journal::Reader;
use serde_json::Value;
use tempfile::TempDir;

use crate::stack::{Proc, free_port, program, wait_until};
use crate::steps::{now, script};

/// What the write-ahead protocol makes durable with.
const DURABLE: &str = "fsync,fdatasync,rename,renameat,renameat2,unlink,unlinkat";

/// One daemon without Prometheus, a step that counts its runs outside, and an operator who orders the rollback.
struct Trial {
    dir: TempDir,
    proc: Option<Proc>,
    _slots: [TcpListener; 2],
}

impl Trial {
    fn new() -> Trial {
        let dir = TempDir::with_prefix("flipback-points-").unwrap();
        let slots = [TcpListener::bind("127.0.0.1:0").unwrap(), TcpListener::bind("127.0.0.1:0").unwrap()];
        let port = |n: usize| slots[n].local_addr().unwrap().port();
        let d = dir.path().display();
        script(dir.path(), "switch", &format!("echo x >> {d}/ran; echo $1 > {d}/active-slot"));
        script(dir.path(), "active", &format!("cat {d}/active-slot"));
        fs::write(dir.path().join("active-slot"), "green\n").unwrap();
        let config = format!(
            r#"state_dir = "{d}/state"
[prometheus]
url = "http://127.0.0.1:{}"
[api]
listen = "none"
socket = "{d}/control.sock"
[metrics.web]
requests = 'r{{env="$slot"}}'
[[service]]
name = "checkout"
metrics = "web"
mode = "auto"
slots.blue = {{ health = {{ tcp = "127.0.0.1:{}" }} }}
slots.green = {{ health = {{ tcp = "127.0.0.1:{}" }} }}
soak = {{ duration = "60s", tick = "1s" }}
recover_within = "3s"
[[service.rollback]]
name = "proxy"
exec = ["{d}/switch", "$old"]
timeout = "20s"
probe = {{ exec = ["{d}/active"], expect = "$old" }}
"#,
            free_port(),
            port(0),
            port(1)
        );
        fs::write(dir.path().join("flipback.toml"), config).unwrap();
        Trial { dir, proc: None, _slots: slots }
    }

    /// With an injection of strace's, or without.
    fn up(&mut self, inject: Option<&str>) {
        let own = env!("CARGO_BIN_EXE_flipback");
        let mut command = match inject {
            None => Command::new(own),
            Some(inject) => {
                let mut strace = Command::new(program("strace"));
                let calls = inject.split(':').next().unwrap();
                // Without its seccomp filter, which loses injections.
                strace.args(["-f", "-qq", "-o", "/dev/null", "-e"]);
                strace.arg(format!("trace={calls}")).args(["-e", &format!("inject={inject}"), own]);
                strace
            }
        };
        command.arg("run").arg("--config").arg(self.dir.path().join("flipback.toml"));
        self.proc = Some(Proc::start("flipback", self.dir.path(), &mut command));
    }

    fn flipback(&self, args: &[&str]) -> std::process::Output {
        let mut command = Command::new(env!("CARGO_BIN_EXE_flipback"));
        command.args(args).arg("--socket").arg(self.dir.path().join("control.sock")).output().unwrap()
    }

    /// The tracer has ended, and with it what it traced.
    fn is_dead(&mut self) -> bool {
        self.proc.as_mut().is_none_or(|p| p.child.try_wait().unwrap().is_some())
    }

    fn kill_all(&mut self) {
        // What strace traced is told apart by its own pid: the lock file of the state directory names it.
        if let Ok(pid) = fs::read_to_string(self.dir.path().join("state/lock")) {
            let _ = Command::new("/bin/kill").args(["-KILL", pid.trim()]).output();
        }
        self.proc = None;
    }

    fn view(&self) -> Value {
        serde_json::from_slice(&self.flipback(&["show", "checkout-1", "-o", "json"]).stdout).unwrap_or(Value::Null)
    }

    fn runs(&self) -> usize {
        fs::read_to_string(self.dir.path().join("ran")).map_or(0, |text| text.lines().count())
    }

    /// Announces and orders until both are acknowledged, restarting what dies; then waits for the proof. An error
    /// that every process of the tree meets again and again may keep the rollback from its proof: then it must
    /// not have run twice, and must have been told.
    fn play(&mut self, inject: &str) -> Result<bool, String> {
        let lasting = inject.contains(":error=");
        self.up(Some(inject));
        let (mut died, mut acknowledged, mut ordered) = (false, None::<String>, false);
        let mut said = String::new();
        // The last one that was answered: the daemon may die between its answer and the next question.
        let mut view = Value::Null;
        let began = Instant::now();
        while began.elapsed() < Duration::from_secs(60) {
            if self.is_dead() {
                died = true;
                self.up(None);
            }
            if acknowledged.is_none() {
                let done = self.flipback(&[
                    "announce",
                    "checkout",
                    "--old",
                    "blue",
                    "--new",
                    "green",
                    "--version",
                    "v2",
                    "--id",
                    "e1",
                ]);
                acknowledged = done.status.success().then(|| String::from_utf8_lossy(&done.stdout).trim().to_owned());
            } else if !ordered {
                let done = self.flipback(&["rollback", "checkout-1", "--why", "a trial"]);
                let text = String::from_utf8_lossy(&done.stderr).into_owned();
                // Told once, it may be under way although the answer was lost with the daemon.
                said.clone_from(&text);
                ordered =
                    done.status.success() || text.contains("being rolled back") || text.contains("was rolled back");
            } else {
                let answer = self.view();
                if !answer.is_null() {
                    view = answer;
                }
                let over = lasting && !view["outcome"].is_null();
                if over || view["steps"].as_array().is_some_and(|all| all.iter().any(|s| !s["proven_at"].is_null())) {
                    break;
                }
            }
            std::thread::sleep(Duration::from_millis(30));
        }
        let proven = view["steps"].as_array().is_some_and(|all| all.iter().any(|s| !s["proven_at"].is_null()));
        self.kill_all();
        if acknowledged.as_deref() != Some("checkout-1") {
            return Err(format!("{inject}: the event was acknowledged as {acknowledged:?}"));
        }
        let kept = Reader::open(&self.dir.path().join("state")).map_err(|e| e.to_string())?;
        if kept.watch(&SwitchId::try_new("checkout-1").unwrap()).map_err(|e| e.to_string())?.is_none() {
            return Err(format!("{inject}: acknowledged, and lost"));
        }
        let told = lasting && !view["outcome"].is_null() && self.runs() <= 1;
        if (self.runs() != 1 || !proven) && !told {
            return Err(format!("{inject}: {} runs, proven: {proven}, last told {said:?}\n{view:#}", self.runs()));
        }
        Ok(died)
    }
}

fn can_trace() -> bool {
    let traced = Command::new(program("strace")).args(["-qq", "-o", "/dev/null", "/bin/true"]).status();
    let can = traced.is_ok_and(|s| s.success());
    if !can {
        println!("skipped: this machine does not let strace trace");
    }
    can
}

fn all_points() -> bool {
    std::env::var_os("FLIPBACK_ALL_POINTS").is_some()
}

/// Plays injections on as many threads as there are cores; how many there were, and how many struck.
fn play_all(injections: &[String]) -> (usize, usize) {
    let (next, died) = (AtomicUsize::new(0), AtomicUsize::new(0));
    let wrong = Mutex::new(Vec::new());
    std::thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| {
                while let Some(inject) = injections.get(next.fetch_add(1, Ordering::Relaxed)) {
                    match Trial::new().play(inject) {
                        Ok(struck) => died.fetch_add(usize::from(struck), Ordering::Relaxed),
                        Err(what) => {
                            wrong.lock().unwrap().push(what);
                            0
                        }
                    };
                }
            });
        }
    });
    let wrong = wrong.into_inner().unwrap();
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    (injections.len(), died.into_inner())
}

#[test]
fn killed_at_every_durable_syscall_the_step_runs_once_and_nothing_acknowledged_is_lost() {
    if !can_trace() {
        return;
    }
    let points: Vec<usize> = if all_points() { (1..=80).collect() } else { (1..=40).collect() };
    let injections: Vec<String> = points.iter().map(|n| format!("{DURABLE}:signal=KILL:when={n}")).collect();
    let (played, died) = play_all(&injections);
    println!("{played} crash points of the daemon, {died} struck: 0 double runs, 0 lost acknowledgements");
    // A run makes some thirty such calls; later points are of a daemon that has nothing more to keep.
    assert!(died >= 20, "only {died} of {played} injections struck");
}

#[test]
fn io_errors_cost_a_restart_at_most() {
    if !can_trace() {
        return;
    }
    let points: &[usize] = if all_points() {
        &[1, 2, 3, 4, 5, 6, 7, 8, 10, 12, 14, 17, 20, 24, 28, 34, 40, 50, 60, 80, 100, 140, 200]
    } else {
        &[3, 9, 17, 30]
    };
    let mut injections = Vec::new();
    if let Ok(one) = std::env::var("FLIPBACK_POINT") {
        // One point, again and again: to chase what fails now and then.
        play_all(&vec![one; 40]);
        return;
    }
    for n in points {
        for (calls, error) in [
            ("fsync,fdatasync", "EIO"),
            ("pwrite64", "ENOSPC"),
            ("pwrite64", "EIO"),
            ("openat", "EMFILE"),
            ("openat", "EROFS"),
        ] {
            // The first files that a process opens are its loader's: without them there is no process.
            let n = if calls == "openat" { n + 20 } else { *n };
            injections.push(format!("{calls}:error={error}:when={n}"));
        }
    }
    let (played, died) = play_all(&injections);
    println!("{played} I/O errors, {died} of them ended the process: 0 double runs, 0 lost acknowledgements");
}

/// The shim alone, killed before each of its durable syscalls: whoever comes after it finds out what became of the
/// attempt, and it does not run twice.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_shim_killed_at_any_syscall_never_runs_its_step_twice() {
    if !can_trace() {
        return;
    }
    let (mut points, mut ran, mut ambiguous) = (0, 0, 0);
    for calls in ["fsync", "rename", "openat", "write", "clone3,vfork,clone", "exit_group"] {
        for n in 1..=if calls == "openat" || calls == "write" { 14 } else { 6 } {
            let bench = TempDir::with_prefix("flipback-shim-").unwrap();
            let d = bench.path();
            let executor = Executor::new(d, "/bin/false".into()).unwrap();
            let step = script(d, "step", "echo x >> $1/ran");
            let run = StepRun {
                attempt: AttemptId { switch: SwitchId::try_new("checkout-1").unwrap(), step: 0, attempt: 1 },
                service: ServiceName::try_new("checkout").unwrap(),
                step: "haproxy".into(),
                action: Action::Exec(Exec::new([step.display().to_string(), d.display().to_string()])),
                to: Slot::try_new("blue").unwrap(),
                env: BTreeMap::new(),
                start_by: now() + Span::from_secs(10),
                deadline: now() + Span::from_secs(10),
                lock: "/the/proxy".into(),
            };
            // The daemon made the directory and died before it could start the shim (its program is no shim here);
            // whoever comes next starts it by hand, under the tracer.
            let state = executor.run(&run, now, now).await;
            assert!(matches!(state, AttemptState::Cancelled(_)), "{state:?}");
            let dir = d.join("exec").join(run.attempt.file_name());
            fs::remove_file(dir.join("cancelled")).unwrap();
            let traced = Command::new(program("strace"))
                .args(["-qq", "-o", "/dev/null", "-e", &format!("trace={calls}"), "-e"])
                .args([&format!("inject={calls}:signal=KILL:when={n}"), env!("CARGO_BIN_EXE_flipback"), "shim"])
                .arg(&dir)
                .output()
                .unwrap();
            let _ = traced;
            points += 1;
            let lines = || fs::read_to_string(d.join("ran")).map_or(0, |text| text.lines().count());
            let found = executor.recover(&run.attempt, run.deadline, now).await;
            match &found {
                AttemptState::Cancelled(_) => assert_eq!(lines(), 0, "{calls} {n}: it never started"),
                AttemptState::Ended(_) => assert_eq!(lines(), 1, "{calls} {n}: it ended"),
                AttemptState::Ambiguous => ambiguous += 1,
            }
            ran += lines();
            assert!(lines() <= 1, "{calls} {n}");
            // And once more, as a daemon that forgot would.
            let again = Command::new(env!("CARGO_BIN_EXE_flipback")).arg("shim").arg(&dir).output().unwrap();
            assert!(!again.status.success() && lines() <= 1, "{calls} {n}: run twice");
        }
    }
    println!("{points} crash points of the shim: {ran} runs, {ambiguous} left to the probe, none twice");
}

/// A disk of its own that is full: nothing is half there, nothing is acknowledged that is not kept.
#[test]
fn a_full_disk_refuses_new_switches_and_goes_on_with_what_is_open() {
    let mount = TempDir::with_prefix("flipback-full-").unwrap();
    let mounted = Command::new("/bin/mount")
        .args(["-t", "tmpfs", "-o", "size=220m", "tmpfs"])
        .arg(mount.path())
        .status()
        .is_ok_and(|s| s.success());
    if !mounted {
        println!("skipped: this machine does not let a tmpfs be mounted");
        return;
    }
    struct Unmount<'a>(&'a Path);
    impl Drop for Unmount<'_> {
        fn drop(&mut self) {
            let _ = Command::new("/bin/umount").args(["-l"]).arg(self.0).status();
        }
    }
    let _unmount = Unmount(mount.path());
    let mut trial = Trial::new();
    let config = trial.dir.path().join("flipback.toml");
    let text = fs::read_to_string(&config).unwrap();
    let d = trial.dir.path().display().to_string();
    fs::write(&config, text.replace(&format!("{d}/state"), &format!("{}/state", mount.path().display()))).unwrap();
    trial.up(None);
    let announce = |trial: &Trial, event: &str, version: &str| {
        trial.flipback(&[
            "announce",
            "checkout",
            "--old",
            "blue",
            "--new",
            "green",
            "--version",
            version,
            "--id",
            event,
        ])
    };
    wait_until(Duration::from_secs(15), "the first switch is taken", || {
        announce(&trial, "e1", "v2").status.success().then_some(())
    });
    assert!(mount.path().join("state/reserve").metadata().unwrap().len() >= 64 * 1024 * 1024, "a reserve is set aside");
    // Somebody else fills the disk to its last byte.
    let filled = Command::new("/bin/dd")
        .args(["if=/dev/zero", "bs=1M"])
        .arg(format!("of={}", mount.path().join("ballast").display()))
        .output()
        .unwrap();
    assert!(!filled.status.success(), "the disk is full now");
    // What is open is brought to its end on the reserve: the rollback is ordered, run and proven.
    let done = trial.flipback(&["rollback", "checkout-1", "--why", "a trial"]);
    assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
    wait_until(Duration::from_secs(30), "the rollback is proven", || {
        let view = trial.view();
        view["steps"].as_array().is_some_and(|all| all.iter().any(|s| !s["proven_at"].is_null())).then_some(())
    });
    assert_eq!(trial.runs(), 1);
    // The reserve is used up: new switches are refused, with the reason.
    let refused = wait_until(Duration::from_secs(60), "a new switch is refused for want of room", || {
        let done = announce(&trial, "e2", "v3");
        let text = String::from_utf8_lossy(&done.stderr).into_owned();
        text.contains("nearly full").then_some(text)
    });
    assert!(!refused.is_empty());
    fs::remove_file(mount.path().join("ballast")).unwrap();
    wait_until(Duration::from_secs(60), "with room again the switch is taken", || {
        announce(&trial, "e3", "v4").status.success().then_some(())
    });
    trial.kill_all();
}

/// The state directory on an ext4 of its own, whose device loses power: what was not synced is gone.
#[test]
fn power_cuts_lose_nothing_that_was_acknowledged_and_run_nothing_twice() {
    const CUT: &str = "import fcntl, os, struct, sys\n\
        fcntl.ioctl(os.open(sys.argv[1], os.O_RDONLY), 0x8004587D, struct.pack('I', 2))";
    let sh = |program: &str, args: &[&str]| Command::new(program).args(args).output().is_ok_and(|o| o.status.success());
    let cuts = if all_points() { 40 } else { 8 };
    let (mut cut, mut before) = (0, 0);
    for n in 0..cuts {
        let mut trial = Trial::new();
        let (image, mount) = (trial.dir.path().join("disk.img"), trial.dir.path().join("disk"));
        let (image, mount) = (image.to_str().unwrap().to_owned(), mount.to_str().unwrap().to_owned());
        fs::create_dir(&mount).unwrap();
        // Room for the journal and its reserve.
        let made = sh("/bin/dd", &["if=/dev/zero", &format!("of={image}"), "bs=1M", "count=0", "seek=300"])
            && sh("/sbin/mkfs.ext4", &["-q", "-F", &image])
            && sh("/bin/mount", &["-o", "loop", &image, &mount]);
        if !made {
            println!("skipped: this machine does not let an ext4 be mounted from a file");
            return;
        }
        let config = trial.dir.path().join("flipback.toml");
        let own = format!("{}/state", trial.dir.path().display());
        let text = fs::read_to_string(&config).unwrap().replace(&own, &format!("{mount}/state"));
        fs::write(&config, text).unwrap();
        trial.up(None);
        let announce = ["announce", "checkout", "--old", "blue", "--new", "green", "--version", "v2", "--id", "e1"];
        wait_until(Duration::from_secs(20), "the switch is taken", || {
            trial.flipback(&announce).status.success().then_some(())
        });
        let order = ["rollback", "checkout-1", "--why", "a trial"];
        let child = Command::new(env!("CARGO_BIN_EXE_flipback"))
            .args(order)
            .arg("--socket")
            .arg(trial.dir.path().join("control.sock"))
            .stdout(std::process::Stdio::null())
            .stderr(std::process::Stdio::null())
            .spawn();
        // At no chosen moment: before, in and after each stage.
        std::thread::sleep(Duration::from_millis(15 + 25 * n));
        assert!(sh("/usr/bin/python3", &["-c", CUT, &mount]), "the device is cut off");
        before += trial.runs();
        cut += 1;
        if let Some(mut proc) = trial.proc.take() {
            let _ = proc.child.kill();
            let _ = proc.child.wait();
        }
        let _ = child.unwrap().wait();
        wait_until(Duration::from_secs(20), "nothing uses the dead disk", || {
            sh("/bin/umount", &[&mount]).then_some(())
        });
        assert!(sh("/bin/mount", &["-o", "loop", &image, &mount]), "the disk comes back");
        trial.up(None);
        wait_until(Duration::from_secs(20), "flipback is up again", || {
            trial.flipback(&["status"]).status.success().then_some(())
        });
        let view = trial.view();
        assert_eq!(view["id"], "checkout-1", "cut {n}: acknowledged, and lost");
        wait_until(Duration::from_secs(40), "the rollback is proven", || {
            let view = trial.view();
            let proven = view["steps"].as_array().is_some_and(|all| all.iter().any(|s| !s["proven_at"].is_null()));
            if !proven {
                trial.flipback(&order);
            }
            proven.then_some(())
        });
        assert_eq!(trial.runs(), 1, "cut {n}");
        if let Some(mut proc) = trial.proc.take() {
            let _ = proc.child.kill();
            let _ = proc.child.wait();
        }
        wait_until(Duration::from_secs(20), "the disk is let go", || sh("/bin/umount", &[&mount]).then_some(()));
    }
    println!("{cut} power cuts, {before} of them after the step had run: 0 double runs, 0 lost acknowledgements");
}
