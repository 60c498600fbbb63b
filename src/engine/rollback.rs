//! A plan's execution: preflight → intent → act → probe until stable, step by step.
//!
//! The engine's part of the write-ahead protocol: [`Command::RunStep`] is journalled (the intent)
//! before it is dispatched, and an attempt id is used once. No second attempt without a probe that
//! shows "not applied".

use serde::{Deserialize, Serialize};

use super::intent::intend;
use super::ladder::{self, Course};
use super::message::{Command, CommandId};
use super::watch::{Phase, Turn, Watch};
use crate::domain::notice::NoticeReason;
use crate::domain::plan::{
    AttemptId, AttemptState, Expect, HealthCheck, HealthReading, Probe, ProbeReading, STEP_ATTEMPTS_MAX, Step, StepEnd,
    StepOutcome,
};
use crate::domain::time::{Span, Timestamp};
use crate::domain::verdict::Withheld;
use crate::planted::{self, Bug};

/// The change must show in three reads in a row: one good read may be of a proxy about to reload.
const PROBE_GOODS: u8 = 3;
const PROBE_EVERY: Span = Span::from_millis(500);

/// An unreadable probe in the preflight is asked again twice; a truth that cannot be had is a refusal.
const PREFLIGHT_READS_MAX: u8 = 3;

/// The old slot's health must pass twice.
pub(super) const PREFLIGHT_HEALTH_GOODS: u8 = 2;

/// A preflight that has no answers by then is a refusal (checks bound themselves well below this).
const PREFLIGHT_LIMIT: Span = Span::from_secs(30);

/// After a failed attempt, how long the probe may still find that it was applied after all.
const FAILED_VERIFY: Span = Span::from_secs(2);

/// The shim kills a step at its deadline and a grace later; its report may take this much longer.
const REPORT_GRACE: Span = Span::from_secs(15);

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(super) struct Rollback {
    pub course: Course,
    /// Of the course's own steps.
    pub step: u8,
    pub attempt: u8,
    pub stage: Stage,
    /// No attempt of this step begins after.
    pub give_up_at: Option<Timestamp>,
    /// Why the last rung that was tried failed, if it did.
    pub failed: Option<String>,
    /// A person ordered the traffic back: nothing is tried before that.
    pub ordered: bool,
    /// A step that moves traffic is done.
    pub moved: bool,
    /// A step could not be done, and the others went on without it.
    pub gap: bool,
    /// A drill that failed on its way there, and goes home all the same.
    pub spoilt: Option<String>,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Stage {
    Preflight {
        deadline: Timestamp,
        probe: ProbeNeed,
        health_goods: u8,
        asked: Option<CommandId>,
        again_at: Option<Timestamp>,
    },
    Running {
        deadline: Timestamp,
    },
    Verifying {
        deadline: Timestamp,
        goods: u8,
        asked: Option<CommandId>,
        again_at: Option<Timestamp>,
        after: AfterVerify,
    },
    BackingOff {
        until: Timestamp,
    },
    /// The step is done; the next one waits.
    Waiting {
        until: Timestamp,
    },
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum ProbeNeed {
    /// Still to be read; so often already in vain.
    Reading {
        tries: u8,
    },
    Satisfied,
}

/// What "not applied" means, by how the attempt ended.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum AfterVerify {
    /// Try again, while attempts are left.
    Retry { why: String },
    /// Only a person can decide.
    Stuck { why: String },
}

impl Rollback {
    pub fn new(course: Course, ordered: bool) -> Rollback {
        let stage = Stage::Waiting { until: Timestamp::from_millis(0) };
        Rollback {
            course,
            step: 0,
            attempt: 0,
            stage,
            give_up_at: None,
            failed: None,
            ordered,
            moved: false,
            gap: false,
            spoilt: None,
        }
    }

    /// The preflight of a step begins.
    pub fn enter(&mut self, step: u8, limit: Option<Span>, now: Timestamp) {
        (self.step, self.attempt) = (step, 0);
        self.give_up_at = limit.map(|limit| now + limit);
        self.stage = preflight_stage(now);
    }

    pub fn next_deadline(&self) -> Timestamp {
        match &self.stage {
            Stage::Preflight { deadline, again_at, .. } | Stage::Verifying { deadline, again_at, .. } => {
                again_at.map_or(*deadline, |at| at.min(*deadline))
            }
            Stage::Running { deadline } => *deadline + REPORT_GRACE,
            Stage::BackingOff { until } | Stage::Waiting { until } => *until,
        }
    }
}

/// The breach is to be acted on.
pub(super) fn start(watch: &mut Watch, told: NoticeReason, turn: &mut Turn<'_>) {
    let ordered = told == NoticeReason::OrderedActing;
    // Whoever orders a rollback ends the pause with it.
    watch.paused = None;
    let remedies = watch.remedies();
    let first = if remedies.is_empty() || ordered { String::new() } else { format!(", after {}", remedies.join(", ")) };
    watch.record(turn.now, "rolling_back", format!("to {}{first}", watch.way_back()));
    watch.phase = Phase::RollingBack(Rollback::new(Course::Back, ordered));
    watch.notify(told, turn);
    ladder::go_on(watch, 0, turn);
}

pub(super) fn on_timer(watch: &mut Watch, turn: &mut Turn<'_>) {
    let Some(rollback) = rollback_of(watch) else { return };
    let (step, attempt) = (rollback.step, rollback.attempt);
    let now = turn.now;
    match &mut rollback.stage {
        Stage::Preflight { deadline, again_at, .. } => {
            if now >= *deadline {
                refuse(watch, "no answer to the preflight's questions".into(), turn);
            } else if again_at.is_some_and(|at| now >= at) {
                *again_at = None;
                ask(watch, turn);
            }
        }
        Stage::Running { deadline } => {
            if now >= *deadline + REPORT_GRACE {
                // The shim is silent: its directory tells what became of the attempt.
                let deadline = *deadline;
                rollback.stage = Stage::Running { deadline: now + REPORT_GRACE };
                turn.commands.push(Command::RecoverStep { attempt: attempt_id(watch, step, attempt), deadline });
            }
        }
        Stage::Verifying { deadline, again_at, after, .. } => {
            if now >= *deadline {
                let after = after.clone();
                not_applied(watch, after, turn);
            } else if again_at.is_some_and(|at| now >= at) {
                *again_at = None;
                ask(watch, turn);
            }
        }
        Stage::BackingOff { until } => {
            if now >= *until {
                rollback.stage = preflight_stage(now);
                ask(watch, turn);
            }
        }
        Stage::Waiting { until } => {
            if now >= *until {
                ladder::step_is_over(watch, turn);
            }
        }
    }
}

/// True when the answer was this rollback's.
pub(super) fn on_probed(watch: &mut Watch, id: &CommandId, reading: &ProbeReading, turn: &mut Turn<'_>) -> bool {
    let Some(spec) = current_step(watch).and_then(|step| step.probe.clone()) else { return false };
    let (to, from) = ladder::way(watch);
    let old_word = spec.expect.word(&to).to_owned();
    let new_word = spec.expect.word(&from).to_owned();
    let fixed = matches!(spec.expect, Expect::Fixed(_));
    let remedy = current_step(watch).is_some_and(Step::is_remedy);
    // In a ramp the probe of "the active slot" cannot show a part of the traffic: the requests themselves do.
    let serves_a_part = !watch.share().is_all() && watch.new_cursor.rate.is_some_and(|rate| rate > 0.0);
    let untouched = ladder::nothing_moved(watch);
    let Some(rollback) = rollback_of(watch) else { return false };
    let first_attempt = rollback.attempt == 0;
    match &mut rollback.stage {
        Stage::Preflight { probe, asked, again_at, .. } if asked.as_ref() == Some(id) => {
            *asked = None;
            match reading {
                _ if serves_a_part && first_attempt && !fixed => {
                    *probe = ProbeNeed::Satisfied;
                    ask(watch, turn);
                }
                ProbeReading::Shows(line) if fixed && remedy && first_attempt && *line == old_word => {
                    ladder::no_help(watch, format!("the probe shows {line:?} already"), turn);
                }
                ProbeReading::Shows(line) if fixed && *line != old_word => {
                    *probe = ProbeNeed::Satisfied;
                    ask(watch, turn);
                }
                ProbeReading::Shows(line) if *line == new_word => {
                    *probe = ProbeNeed::Satisfied;
                    ask(watch, turn);
                }
                ProbeReading::Shows(line) if *line == old_word && (fixed || !untouched) => {
                    // An earlier attempt (or an earlier step) has brought it about already.
                    let text = format!("the probe shows {line:?} already");
                    watch.record(turn.now, "step_applied", text.clone());
                    verify(watch, AfterVerify::Retry { why: text }, None, turn);
                }
                ProbeReading::Shows(line) => {
                    let why = format!("the probe shows {line:?}, not {new_word:?}: somebody else moved the traffic");
                    refuse(watch, why, turn);
                }
                ProbeReading::Unreadable(why) => {
                    let tries = match probe {
                        ProbeNeed::Reading { tries } => *tries + 1,
                        ProbeNeed::Satisfied => 1,
                    };
                    if tries >= PREFLIGHT_READS_MAX {
                        let why = format!("the probe cannot be read: {why}");
                        refuse(watch, why, turn);
                    } else {
                        *probe = ProbeNeed::Reading { tries };
                        *again_at = Some(turn.now + PROBE_EVERY);
                    }
                }
            }
            true
        }
        Stage::Verifying { goods, asked, again_at, .. } if asked.as_ref() == Some(id) => {
            *asked = None;
            *goods = match reading {
                ProbeReading::Shows(line) if *line == old_word => *goods + 1,
                ProbeReading::Shows(_) | ProbeReading::Unreadable(_) => 0,
            };
            if *goods >= PROBE_GOODS {
                step_done(watch, true, turn);
            } else {
                *again_at = Some(turn.now + PROBE_EVERY);
            }
            true
        }
        Stage::Preflight { .. }
        | Stage::Verifying { .. }
        | Stage::Running { .. }
        | Stage::BackingOff { .. }
        | Stage::Waiting { .. } => false,
    }
}

/// True when the answer was this rollback's.
pub(super) fn on_health(watch: &mut Watch, id: &CommandId, reading: &HealthReading, turn: &mut Turn<'_>) -> bool {
    let Some(rollback) = rollback_of(watch) else { return false };
    let Stage::Preflight { health_goods, asked, .. } = &mut rollback.stage else { return false };
    if asked.as_ref() != Some(id) {
        return false;
    }
    *asked = None;
    match reading {
        HealthReading::Good => {
            *health_goods += 1;
            ask(watch, turn);
        }
        HealthReading::Bad(why) | HealthReading::Unreadable(why) => {
            let why = format!("{} is not healthy: {why}", ladder::way(watch).0);
            if ladder::nothing_moved(watch) {
                ladder::refuse(watch, Withheld::NoSafeTarget { why }, turn);
            } else {
                fail(watch, format!("stopped between steps: {why}"), turn);
            }
        }
    }
    true
}

pub(super) fn on_step_ended(watch: &mut Watch, attempt: &AttemptId, state: &AttemptState, turn: &mut Turn<'_>) {
    let Some(rollback) = rollback_of(watch) else { return };
    let ours = (rollback.course.index(rollback.step), rollback.attempt) == (attempt.step, attempt.attempt);
    if !ours || !matches!(rollback.stage, Stage::Running { .. }) {
        return; // told twice, by the child's end and by the recovery of its directory
    }
    let Some(step) = current_step(watch).cloned() else { return };
    if let Some(record) = watch.steps.iter_mut().find(|r| r.attempt == *attempt) {
        record.result = Some(state.clone());
    }
    let retry_safe = step.retry_safe;
    match state {
        AttemptState::Ended(result) => {
            let took = result.ended_at.since(result.started_at);
            watch.record(turn.now, "step_ended", format!("{} ({attempt}): {} after {took}", step.name, result.ended));
            let good = result.ended == StepEnd::Exited(0);
            let why = result.ended.to_string();
            match (step.probe.is_some(), good) {
                (true, true) if planted::has(Bug::TrustExitCode) => step_done(watch, false, turn),
                (true, true) => {
                    let why = format!("{why}, but the probe does not show {}", ladder::shown_after(watch, &step));
                    verify(watch, after(retry_safe, why), None, turn);
                }
                (true, false) => verify(watch, after(retry_safe, why), Some(FAILED_VERIFY), turn),
                (false, true) => step_done(watch, false, turn),
                // Without a probe nobody can say whether a second try would be one too many.
                (false, false) => fail(watch, format!("step {}: {why}", step.name), turn),
            }
        }
        AttemptState::Cancelled(why) => {
            watch.record(turn.now, "step_cancelled", format!("{} ({attempt}) never started: {why}", step.name));
            retry(watch, why.clone(), turn);
        }
        AttemptState::Ambiguous => {
            let why = format!("{} started and left no result", step.name);
            watch.record(turn.now, "step_ambiguous", why.clone());
            if planted::has(Bug::RetryWithoutLook) {
                intend(watch, &step, turn);
            } else if step.probe.is_some() {
                verify(watch, after(retry_safe, why), Some(FAILED_VERIFY), turn);
            } else {
                stuck(watch, why, turn);
            }
        }
    }
}

/// The process came up again in the middle of a rollback.
pub(super) fn on_started(watch: &mut Watch, turn: &mut Turn<'_>) {
    let Some(rollback) = rollback_of(watch) else { return };
    let (step, attempt) = (rollback.course.index(rollback.step), rollback.attempt);
    match &mut rollback.stage {
        Stage::Preflight { .. } => {
            rollback.stage = preflight_stage(turn.now);
            ask(watch, turn);
        }
        Stage::Running { .. } if planted::has(Bug::RecoverRunsAgain) => {
            if let Some(step) = current_step(watch).cloned() {
                intend(watch, &step, turn);
            }
        }
        Stage::Running { deadline } => {
            let deadline = *deadline;
            turn.commands.push(Command::RecoverStep { attempt: attempt_id(watch, step, attempt), deadline });
        }
        Stage::Verifying { goods, asked, again_at, .. } => {
            (*goods, *asked, *again_at) = (0, None, None);
            ask(watch, turn);
        }
        Stage::BackingOff { .. } | Stage::Waiting { .. } => {}
    }
}

/// The variables of the plan put in their places.
pub(super) fn resolve_probe(watch: &Watch, step: &Step, probe: &Probe) -> Probe {
    probe.resolve(&ladder::variables(watch, step))
}

// ---------------------------------------------------------------------- helpers

fn preflight_stage(now: Timestamp) -> Stage {
    Stage::Preflight {
        deadline: now + PREFLIGHT_LIMIT,
        probe: ProbeNeed::Reading { tries: 0 },
        health_goods: 0,
        asked: None,
        again_at: None,
    }
}

fn after(retry_safe: bool, why: String) -> AfterVerify {
    if retry_safe { AfterVerify::Retry { why } } else { AfterVerify::Stuck { why } }
}

pub(super) fn rollback_of(watch: &mut Watch) -> Option<&mut Rollback> {
    match &mut watch.phase {
        Phase::RollingBack(rollback) => Some(rollback),
        Phase::CuttingOver { .. }
        | Phase::Soaking { .. }
        | Phase::Asking { .. }
        | Phase::Rehearsing { .. }
        | Phase::Recovering(_)
        | Phase::Ended { .. } => None,
    }
}

pub(super) fn current_step(watch: &Watch) -> Option<&Step> {
    let Phase::RollingBack(rollback) = &watch.phase else { return None };
    rollback.course.plan(watch).steps.get(usize::from(rollback.step))
}

pub(super) fn attempt_id(watch: &Watch, step: u8, attempt: u8) -> AttemptId {
    AttemptId { switch: watch.id.clone(), step, attempt }
}

/// Asks the next open question of the present stage, or goes on where none is left.
pub(super) fn ask(watch: &mut Watch, turn: &mut Turn<'_>) {
    let Some(step) = current_step(watch).cloned() else { return };
    let probe = step.probe.as_ref().map(|probe| resolve_probe(watch, &step, probe));
    let slot = ladder::way(watch).0;
    let check: Option<HealthCheck> = watch.service.slots.spec(&slot).and_then(|spec| spec.health.clone());
    let id = watch.command_id();
    let Some(rollback) = rollback_of(watch) else { return };
    let after = rollback.course == Course::After;
    let looks = |probe: &Probe| !after || matches!(probe.expect, Expect::Fixed(_));
    // What moves no traffic needs no target; and after a passed soak only what is done already is looked for.
    let check = check.filter(|_| !step.is_remedy() && !after);
    match &mut rollback.stage {
        Stage::Preflight { probe: need, health_goods, asked, .. } => match (need, probe, check) {
            (ProbeNeed::Reading { .. }, Some(probe), _) if looks(&probe) && !planted::has(Bug::NoPreflightProbe) => {
                *asked = Some(id.clone());
                turn.commands.push(Command::Probe { id, probe });
            }
            (_, _, Some(check)) if *health_goods < PREFLIGHT_HEALTH_GOODS && !planted::has(Bug::NoPreflightHealth) => {
                *asked = Some(id.clone());
                turn.commands.push(Command::CheckHealth { id, slot, check });
            }
            // Everything asked (or, in an `unverified` plan, nothing to ask).
            (_, _, _) => intend(watch, &step, turn),
        },
        Stage::Verifying { asked, .. } => {
            if let Some(probe) = probe {
                *asked = Some(id.clone());
                turn.commands.push(Command::Probe { id, probe });
            }
        }
        Stage::Running { .. } | Stage::BackingOff { .. } | Stage::Waiting { .. } => {}
    }
}

fn verify(watch: &mut Watch, after: AfterVerify, within: Option<Span>, turn: &mut Turn<'_>) {
    let within = within.or_else(|| current_step(watch).map(|step| step.verify_timeout)).unwrap_or(FAILED_VERIFY);
    let Some(rollback) = rollback_of(watch) else { return };
    rollback.stage = Stage::Verifying { deadline: turn.now + within, goods: 0, asked: None, again_at: None, after };
    ask(watch, turn);
}

fn not_applied(watch: &mut Watch, after: AfterVerify, turn: &mut Turn<'_>) {
    match after {
        AfterVerify::Retry { why } => retry(watch, why, turn),
        AfterVerify::Stuck { why } => stuck(watch, why, turn),
    }
}

fn retry(watch: &mut Watch, why: String, turn: &mut Turn<'_>) {
    let Some(rollback) = rollback_of(watch) else { return };
    let attempt = rollback.attempt;
    // 1 s, then 2 s.
    let until = turn.now + Span::from_secs(1 << attempt.saturating_sub(1).min(4));
    let too_late = rollback.give_up_at.is_some_and(|at| until >= at);
    if attempt >= STEP_ATTEMPTS_MAX || too_late {
        let name = current_step(watch).map_or(String::new(), |s| s.name.clone());
        let times = if attempt == 1 { "once".to_owned() } else { format!("{attempt} times") };
        let limit = if too_late { " within its time limit" } else { "" };
        return fail(watch, format!("step {name} failed {times}{limit}, last: {why}"), turn);
    }
    rollback.stage = Stage::BackingOff { until };
    settle_record(watch, StepOutcome::Failed(why.clone()));
    watch.record(turn.now, "step_again", format!("{why}; again at {until}"));
}

fn step_done(watch: &mut Watch, proven: bool, turn: &mut Turn<'_>) {
    let now = turn.now;
    let Some(step) = current_step(watch).cloned() else { return };
    if let Some(record) = watch.steps.last_mut().filter(|r| r.name == step.name) {
        record.proven_at = proven.then_some(now);
        record.outcome = Some(StepOutcome::Done);
    }
    let how = if proven { "the probe shows it" } else { "not verified: the step has no probe" };
    watch.record(now, "step_done", format!("{}: {how}", step.name));
    let Some(rollback) = rollback_of(watch) else { return };
    rollback.failed = None;
    rollback.moved |= !step.is_remedy();
    if step.wait.is_zero() {
        return ladder::step_is_over(watch, turn);
    }
    rollback.stage = Stage::Waiting { until: now + step.wait };
    watch.record(now, "waits", format!("{} after {}", step.wait, step.name));
}

/// The preflight did not hold.
fn refuse(watch: &mut Watch, why: String, turn: &mut Turn<'_>) {
    if ladder::nothing_moved(watch) {
        ladder::refuse(watch, Withheld::Preflight { why }, turn);
    } else {
        fail(watch, format!("preflight refused: {why}"), turn);
    }
}

fn fail(watch: &mut Watch, why: String, turn: &mut Turn<'_>) {
    settle_record(watch, StepOutcome::Failed(why.clone()));
    ladder::rung_failed(watch, why, turn);
}

fn stuck(watch: &mut Watch, why: String, turn: &mut Turn<'_>) {
    settle_record(watch, StepOutcome::Stuck(why.clone()));
    if current_step(watch).is_some_and(Step::is_remedy) {
        // No traffic hangs on it, and it is not tried again: the next rung.
        return ladder::rung_failed(watch, why, turn);
    }
    let why = format!("stuck: {why}; a person must look whether it was applied");
    ladder::end_failed(watch, why, NoticeReason::Stuck, turn);
}

fn settle_record(watch: &mut Watch, outcome: StepOutcome) {
    if let Some(record) = watch.steps.last_mut()
        && record.outcome.is_none()
    {
        record.outcome = Some(outcome);
    }
}
