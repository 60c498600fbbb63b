//! A dry drill: everything of the way back that can be tried without moving traffic, as the daemon itself would do
//! it, its sandbox included, and how long each took.

use std::os::unix::fs::PermissionsExt;
use std::time::Instant;

use super::health::HealthChecker;
use super::native::{file, haproxy, http, nginx};
use super::probe;
use crate::domain::action::{Action, Exec};
use crate::domain::drill::{Found, Rehearsal, Tried};
use crate::domain::plan::{Expect, HealthReading, Probe, ProbeReading, Step};
use crate::domain::time::Span;

/// Tries it all, one after the other: a drill is no load test.
pub async fn rehearse(ask: &Rehearsal, health: &HealthChecker) -> Vec<Tried> {
    let mut all = Vec::new();
    for (slot, check) in &ask.health {
        let began = Instant::now();
        let reading = health.ask(check).await;
        let needed = ask.live.is_some() && *slot == ask.to;
        let (found, text) = match reading {
            HealthReading::Good => (Found::Good, "good".to_owned()),
            // There is no going back to a slot that does not answer.
            HealthReading::Bad(why) if needed => (Found::Broken, why),
            HealthReading::Bad(why) => (Found::Warning, why),
            HealthReading::Unreadable(why) => (Found::Broken, why),
        };
        all.push(tried(format!("health of {slot}"), began, found, text));
    }
    for step in &ask.steps {
        let began = Instant::now();
        let (found, text) = match able(&step.action).await {
            Ok(text) => (Found::Good, text),
            Err(why) => (Found::Broken, why),
        };
        all.push(tried(format!("step {}", step.name), began, found, text));
        if let Some(probe) = &step.probe {
            all.push(try_probe(step, probe, ask).await);
        } else {
            let text = "no probe: nothing would prove that it worked".to_owned();
            all.push(tried(format!("probe of {}", step.name), Instant::now(), Found::Warning, text));
        }
    }
    all
}

async fn try_probe(step: &Step, probe: &Probe, ask: &Rehearsal) -> Tried {
    let began = Instant::now();
    let what = format!("probe of {}", step.name);
    match probe::ask(probe).await {
        ProbeReading::Unreadable(why) => tried(what, began, Found::Broken, why),
        ProbeReading::Shows(line) => {
            let of_live = ask.live.as_ref().map(|slot| probe.expect.word(slot).to_owned());
            let (found, text) = match (&probe.expect, of_live) {
                // A flag: any readable state is one that it can be switched from.
                (Expect::Fixed(word), _) if *word == line => {
                    (Found::Good, format!("shows {line:?}: in force already, so it would be left out"))
                }
                (Expect::Fixed(_), _) => (Found::Good, format!("shows {line:?}")),
                (_, Some(live)) if live == line => (Found::Good, format!("shows {line:?}, the live slot")),
                (_, Some(live)) => (
                    Found::Broken,
                    format!("shows {line:?} where flipback knows the traffic on {live:?}: a preflight would refuse"),
                ),
                (_, None) => (Found::Good, format!("shows {line:?}")),
            };
            tried(what, began, found, text)
        }
    }
}

fn tried(what: String, began: Instant, found: Found, text: String) -> Tried {
    let took = Span::from_millis(u64::try_from(began.elapsed().as_millis()).unwrap_or(u64::MAX));
    Tried { what, took, found, text }
}

/// Whether the action could be carried out from here.
pub async fn able(action: &Action) -> Result<String, String> {
    match action {
        Action::Exec(exec) => program_of(exec),
        // It runs elsewhere: from here only what starts it can be seen.
        Action::Unit(_) => {
            runnable("/usr/bin/systemctl").map(|_| "systemctl is there; the unit itself is not tried".into())
        }
        Action::Haproxy(h) => haproxy::try_out(h).await,
        Action::File(set) => file::can_replace(&set.path).map(|()| "the file can be replaced".into()),
        Action::Nginx(n) => nginx::try_out(n).await,
        Action::Http(call) => http::try_out(call).await,
    }
}

fn program_of(exec: &Exec) -> Result<String, String> {
    runnable(&exec.argv.first().cloned().unwrap_or_default())
}

/// Whether a program could be run by whoever asks, and only by those who may change it.
pub fn runnable(program: &str) -> Result<String, String> {
    let meta = std::fs::metadata(program).map_err(|error| format!("{program}: {error}"))?;
    if !meta.is_file() {
        return Err(format!("{program} is no file"));
    }
    rustix::fs::access(program, rustix::fs::Access::EXEC_OK)
        .map_err(|_| format!("{program} is not executable for flipback's user"))?;
    if meta.permissions().mode() & 0o022 != 0 {
        return Err(format!("{program} can be written by others: whoever changes it acts as flipback"));
    }
    Ok(format!("{program} is there and executable"))
}
