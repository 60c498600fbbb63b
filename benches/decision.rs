//! From decision to the command's own start: engine, synced commit of the intent, directory of the attempt, shim, mark
//! before the fork, fork. The same command without any of it stands beside it.
//!
//! `cargo bench --profile dev --bench decision` prints milliseconds (the profile of the tests, so that nothing is built
//! twice); the state directory is below the working directory, so that its
//! disk is the one that is measured (DECISION_DIR chooses another).
#![allow(
    clippy::unwrap_used,
    clippy::disallowed_methods,
    reason = "a bench that cannot begin has failed, and what it measures is real time"
)]

use std::path::{Path, PathBuf};
use std::process::Command as Process;
use std::time::{SystemTime, UNIX_EPOCH};

use flipback::config;
use flipback::domain::plan::AttemptState;
use flipback::domain::switch::{Percent, ServiceName, Sighting, Slot};
use flipback::domain::time::Timestamp;
use flipback::edge::actuators::exec::Executor;
use flipback::edge::systemd::Progress;
use flipback::engine::Engine;
use flipback::engine::message::{Command, Input, RequestId, StepRun};
use flipback::journal::Journal;
use flipback::runtime::disk::Disk;
use flipback::runtime::turn::Wheel;

/// Drills of two steps each.
const DRILLS: usize = 300;

const SERVICE: &str = r#"
[prometheus]
url = "http://127.0.0.1:1"
[metrics.web]
requests = 'requests{slot="$slot"}'
[[service]]
name = "checkout"
metrics = "web"
slots = ["blue", "green"]
[[service.rollback]]
name = "now"
exec = ["/bin/date", "+%s%N"]
"#;

fn wall_ns() -> i128 {
    i128::try_from(SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_nanos()).unwrap()
}

fn wall() -> Timestamp {
    Timestamp::from_millis(i64::try_from(wall_ns() / 1_000_000).unwrap())
}

struct Bench {
    wheel: Wheel,
    disk: Disk,
    executor: Executor,
    runtime: tokio::runtime::Runtime,
    /// Milliseconds from the decision to the commit, and to the command's start.
    committed: Vec<f64>,
    started: Vec<f64>,
}

impl Bench {
    fn new(dir: &Path) -> Bench {
        let (journal, _) = Journal::open(dir).unwrap();
        let program = PathBuf::from(env!("CARGO_BIN_EXE_flipback"));
        Bench {
            wheel: Wheel::new(Engine::new()),
            disk: Disk::new(journal, dir, Progress::default()),
            executor: Executor::new(dir, program).unwrap(),
            runtime: tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap(),
            committed: Vec::new(),
            started: Vec::new(),
        }
    }

    /// One turn of the daemon's own wheel; a step that it decides is run, and its end is the next turn.
    fn take(&mut self, input: Input) {
        let mut next = Some(input);
        while let Some(input) = next.take() {
            let began = wall_ns();
            let commands =
                self.wheel.turn(wall(), vec![input], &[], false, &mut self.disk).map_err(|(e, _)| e).unwrap();
            let committed = wall_ns();
            for command in commands {
                if let Command::RunStep { run } = command {
                    let state = self.run(&run, began, committed);
                    next = Some(Input::StepEnded { attempt: run.attempt.clone(), state });
                }
            }
        }
    }

    fn run(&mut self, run: &StepRun, began: i128, committed: i128) -> AttemptState {
        let state = self.runtime.block_on(self.executor.run(run, wall, wall));
        let AttemptState::Ended(result) = &state else { panic!("{state:?}") };
        let at: i128 = result.output.trim().parse().unwrap();
        let ms = |ns: i128| ns as f64 / 1e6;
        self.committed.push(ms(committed - began));
        self.started.push(ms(at - began));
        state
    }
}

fn main() {
    // `cargo test` builds benches, and runs them with --test: nothing is measured then.
    if std::env::args().any(|a| a == "--test") {
        return;
    }
    let base = std::env::var_os("DECISION_DIR").map_or_else(|| PathBuf::from("."), PathBuf::from);
    let dir = tempfile::Builder::new().prefix(".decision-").tempdir_in(&base).unwrap();
    let settings = config::parse("bench", SERVICE).unwrap();
    let mut bench = Bench::new(dir.path());
    bench.take(Input::Configured { services: settings.services, brakes: settings.brakes });
    let service = ServiceName::try_new("checkout").unwrap();
    let seen = Sighting { shares: [(Slot::try_new("green").unwrap(), Percent::ALL)].into(), version: None };
    bench.take(Input::Sighted { service: service.clone(), by: "bench".into(), seen });
    for n in 0..DRILLS {
        let request = RequestId(u64::try_from(n).unwrap());
        let (service, by, why) = (service.clone(), "bench".to_owned(), String::new());
        bench.take(Input::DrillAsked { request, service, real: true, by, why });
    }
    let mut plain: Vec<f64> = (0..DRILLS)
        .map(|_| {
            let began = wall_ns();
            let done = Process::new("/bin/date").arg("+%s%N").output().unwrap();
            let at: i128 = String::from_utf8_lossy(&done.stdout).trim().parse().unwrap();
            (at - began) as f64 / 1e6
        })
        .collect();
    println!("milliseconds over {} steps on {}", bench.started.len(), base.display());
    println!("{:34} {:>8} {:>8} {:>8}", "", "median", "p99", "max");
    let at = |all: &mut Vec<f64>| {
        all.sort_by(f64::total_cmp);
        let of = |q: f64| all[((all.len() - 1) as f64 * q).round() as usize];
        (of(0.5), of(0.99), of(1.0))
    };
    let line = |name: &str, all: &mut Vec<f64>| {
        let (median, p99, max) = at(all);
        println!("{name:34} {median:8.2} {p99:8.2} {max:8.2}");
        p99
    };
    line("decision to synced intent", &mut bench.committed);
    let ours = line("decision to the command's start", &mut bench.started);
    let bare = line("the same command, started plainly", &mut plain);
    println!("p99: {:.1} times the bare start; {:.0} % of 20 ms", ours / bare, 100.0 * ours / 20.0);
}
