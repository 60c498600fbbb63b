//! Ordered rollback actions, their probes, and what became of them.

use std::collections::BTreeMap;
use std::fmt;

use serde::{Deserialize, Serialize};

use super::action::{Action, Exec, Look, Variables};
use super::switch::{ServiceName, Slot, SwitchId};
use super::time::{Span, Timestamp};

/// A step that failed three times will not heal by itself; call a person.
pub const STEP_ATTEMPTS_MAX: u8 = 3;

/// Steps of a drill's way home are numbered from here, and those after a passed soak from there: an attempt's id is
/// used once, over all that a watch may run.
pub const HOME_STEPS: u8 = 64;
pub const AFTER_STEPS: u8 = 128;

/// The plan of a service. Empty in services that are only watched.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Plan {
    pub steps: Vec<Step>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Step {
    pub name: String,
    pub action: Action,
    /// Kill the step's whole process group after this long.
    pub timeout: Span,
    pub probe: Option<Probe>,
    /// How long the probe may take to show the change.
    pub verify_timeout: Span,
    /// A failed or ambiguous attempt whose probe shows "not applied" may be tried again.
    pub retry_safe: bool,
    /// Steps that touch the same thing run one at a time.
    pub lock: String,
    /// `$old_word` and `$new_word`: what slots are called where their names are not used.
    pub words: BTreeMap<Slot, String>,
    /// After it is done, before the next one: connections drain, a job leader hands over.
    pub wait: Span,
    /// A remedy: the traffic stays, and the signals have so long to recover before the next rung.
    pub heals_within: Option<Span>,
    pub when: When,
    pub on_failure: OnFailure,
    /// No attempt of it begins after so long, and none runs longer.
    pub limit: Option<Span>,
}

impl Step {
    /// Whether it leaves the traffic where it is.
    pub fn is_remedy(&self) -> bool {
        self.heals_within.is_some()
    }

    /// What its variables stand for where traffic goes to `old`, as a rollback calls it.
    pub fn variables(&self, service: &ServiceName, old: &Slot, new: &Slot) -> Variables {
        let word = |slot: &Slot| self.words.get(slot).map_or(slot.as_str(), String::as_str).to_owned();
        Variables::from([
            ("old_word", word(old)),
            ("new_word", word(new)),
            ("old", old.to_string()),
            ("new", new.to_string()),
            ("service", service.to_string()),
        ])
    }

    /// With every variable in its place, in the action and in the probe.
    pub fn resolve(&self, vars: &Variables) -> Step {
        let probe = self.probe.as_ref().map(|probe| probe.resolve(vars));
        Step { action: self.action.resolve(vars), probe, ..self.clone() }
    }

    /// Its probe, where that shows which slot has the traffic.
    pub fn probe_of_slots(&self) -> Option<&Probe> {
        self.probe.as_ref().filter(|probe| !matches!(probe.expect, Expect::Fixed(_)))
    }
}

/// Which rungs of the ladder are tried.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum When {
    #[default]
    Always,
    /// Only in the place of one that failed.
    AfterFailure,
}

/// What a step that cannot be done means for those after it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum OnFailure {
    /// They rest on it.
    #[default]
    Stop,
    /// They are tried all the same.
    Next,
}

/// The read-back that shows the active slot: prints one line, which is compared with `expect`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Probe {
    pub look: Look,
    /// What the probe prints for a slot: `$old` in the configuration, so the slot's name itself, or
    /// the slot's own word where they differ.
    pub expect: Expect,
    pub timeout: Span,
}

impl Probe {
    pub fn resolve(&self, vars: &Variables) -> Probe {
        Probe { look: self.look.resolve(vars), ..self.clone() }
    }
}

/// How a probe's line names a slot.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Expect {
    /// The line is the slot's name.
    SlotName,
    /// The line is this word for each slot (an upstream's or a server's name).
    Words(BTreeMap<Slot, String>),
    /// The line is this whatever the slots are: a flag that is off.
    Fixed(String),
}

impl Expect {
    pub fn word<'a>(&'a self, slot: &'a Slot) -> &'a str {
        match self {
            Expect::SlotName => slot.as_str(),
            Expect::Words(words) => words.get(slot).map_or(slot.as_str(), String::as_str),
            Expect::Fixed(word) => word,
        }
    }
}

/// What a probe showed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ProbeReading {
    /// The trimmed line of stdout.
    Shows(String),
    /// Exit code, time limit, no line, several lines: it cannot be read.
    Unreadable(String),
}

/// How a slot is asked whether it is alive.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum HealthCheck {
    /// GET; 2xx or 3xx is good. No redirects are followed.
    Http { url: String, timeout: Span },
    /// A TCP connection can be opened.
    Tcp { address: String, timeout: Span },
    /// Exit code 0 is good.
    Exec { exec: Exec, timeout: Span },
}

impl HealthCheck {
    pub fn timeout(&self) -> Span {
        match self {
            HealthCheck::Http { timeout, .. }
            | HealthCheck::Tcp { timeout, .. }
            | HealthCheck::Exec { timeout, .. } => *timeout,
        }
    }
}

/// What a health check showed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum HealthReading {
    Good,
    /// Positive evidence that the slot does not serve.
    Bad(String),
    /// The check itself could not be made (a command is missing): says nothing of the slot.
    Unreadable(String),
}

/// One try of one step: `checkout-17.s0.a1`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct AttemptId {
    pub switch: SwitchId,
    pub step: u8,
    pub attempt: u8,
}

impl fmt::Display for AttemptId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.s{}.a{}", self.switch, self.step, self.attempt)
    }
}

impl AttemptId {
    /// A file name: names may hold `/` and `:`, file names here may not.
    pub fn file_name(&self) -> String {
        let mut name = String::new();
        for c in self.to_string().chars() {
            match c {
                '/' => name.push_str("%2F"),
                ':' => name.push_str("%3A"),
                c => name.push(c),
            }
        }
        name
    }
}

/// How an attempt ended, as the shim wrote it down.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct StepResult {
    pub ended: StepEnd,
    pub started_at: Timestamp,
    pub ended_at: Timestamp,
    /// Head and tail of what it printed, both streams, cut for people.
    pub output: String,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum StepEnd {
    Exited(i32),
    /// Ended by a signal that was not ours.
    Signalled(i32),
    /// The time limit passed; the process group was killed.
    TimedOut,
    /// The program could not be started at all.
    NotStarted(String),
}

impl fmt::Display for StepEnd {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            StepEnd::Exited(code) => write!(f, "exit code {code}"),
            StepEnd::Signalled(signal) => write!(f, "ended by signal {signal}"),
            StepEnd::TimedOut => f.write_str("killed at its time limit"),
            StepEnd::NotStarted(why) => write!(f, "not started: {why}"),
        }
    }
}

/// What is known of an attempt, from its directory, now or after a crash.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum AttemptState {
    /// The result is on disk.
    Ended(StepResult),
    /// It never started and now never can.
    Cancelled(String),
    /// It started, left no result and no longer runs: only the probe can tell.
    Ambiguous,
}

/// How a step stands, for people.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum StepOutcome {
    Done,
    Failed(String),
    Stuck(String),
}

/// A line of the record of a rollback.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct StepRecord {
    pub attempt: AttemptId,
    pub name: String,
    pub command: String,
    pub intended_at: Timestamp,
    pub result: Option<AttemptState>,
    /// When the probe had shown the target slot often enough.
    pub proven_at: Option<Timestamp>,
    pub outcome: Option<StepOutcome>,
}
