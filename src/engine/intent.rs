//! The intent of a step: from here on it may have run.

use std::collections::BTreeMap;

use super::ladder::{self, Course};
use super::message::{Command, StepRun};
use super::rollback::{PREFLIGHT_HEALTH_GOODS, Stage, attempt_id, rollback_of};
use super::watch::{Phase, Turn, Watch};
use crate::domain::notice::NoticeReason;
use crate::domain::plan::{Expect, Step, StepRecord};
use crate::domain::time::Span;
use crate::domain::verdict::Withheld;
use crate::planted::{self, Bug};

/// A step that has not begun a second after its intent meets another world than its preflight saw.
const START_WITHIN: Span = Span::from_secs(1);

/// W4: from here on the attempt may have run.
pub(super) fn intend(watch: &mut Watch, step: &Step, turn: &mut Turn<'_>) {
    if !turn.armed && !planted::has(Bug::IgnoreDisarm) {
        return if ladder::nothing_moved(watch) {
            ladder::give_up(watch, Withheld::Disarmed, turn);
        } else {
            ladder::end_failed(watch, "disarmed between attempts".into(), NoticeReason::RollbackFailed, turn);
        };
    }
    let (mut to, from) = ladder::way(watch);
    let Some(rollback) = rollback_of(watch) else { return };
    rollback.attempt += 1;
    let (index, number) = (rollback.course.index(rollback.step), rollback.attempt);
    let deadline = rollback.give_up_at.map_or(turn.now + step.timeout, |at| at.min(turn.now + step.timeout));
    rollback.stage = Stage::Running { deadline };
    let attempt = attempt_id(watch, index, number);
    let mut names = ladder::variables(watch, step);
    if planted::has(Bug::Toggle) && number > 1 {
        names.insert("old", from.to_string());
        to = from;
    }
    let action = step.action.resolve(&names);
    let a = &watch.announcement;
    let mut env = BTreeMap::from([
        ("FLIPBACK_SERVICE".to_owned(), a.service.to_string()),
        ("FLIPBACK_OLD".to_owned(), names["old"].clone()),
        ("FLIPBACK_NEW".to_owned(), names["new"].clone()),
        ("FLIPBACK_SWITCH_ID".to_owned(), watch.id.to_string()),
        ("FLIPBACK_ATTEMPT_ID".to_owned(), attempt.to_string()),
        ("FLIPBACK_DEADLINE".to_owned(), deadline.to_string()),
    ]);
    for (name, version) in [("FLIPBACK_OLD_VERSION", &a.old_version), ("FLIPBACK_NEW_VERSION", &a.version)] {
        if let Some(version) = version {
            env.insert(name.to_owned(), version.to_string());
        }
    }
    let how = preflight_words(watch, step);
    watch.record(turn.now, "preflight", how);
    watch.record(turn.now, "step_intended", format!("{} ({attempt}): {action}", step.name));
    watch.steps.push(StepRecord {
        attempt: attempt.clone(),
        name: step.name.clone(),
        command: action.to_string(),
        intended_at: turn.now,
        result: None,
        proven_at: None,
        outcome: None,
    });
    let service = watch.service.name.clone();
    let (start_by, lock, name) = (turn.now + START_WITHIN, step.lock.clone(), step.name.clone());
    let run = StepRun { attempt, service, step: name, action, to, env, start_by, deadline, lock };
    turn.commands.push(Command::RunStep { run: Box::new(run) });
}

/// What the preflight rests on, and what it could not look at.
fn preflight_words(watch: &Watch, step: &Step) -> String {
    let (to, from) = ladder::way(watch);
    let probe = match step.probe.as_ref().map(|probe| &probe.expect) {
        Some(Expect::Fixed(word)) => format!("the probe does not show {word:?} yet"),
        Some(_) if !watch.share().is_all() => format!("requests go to {from}"),
        Some(_) => format!("the probe shows {from}"),
        None => "no probe".to_owned(),
    };
    if step.is_remedy() || matches!(&watch.phase, Phase::RollingBack(r) if r.course == Course::After) {
        return format!("{probe}; no traffic is moved");
    }
    let health = match watch.service.slots.spec(&to).and_then(|spec| spec.health.as_ref()) {
        Some(_) => format!("{to} is healthy {PREFLIGHT_HEALTH_GOODS} of {PREFLIGHT_HEALTH_GOODS}"),
        None => format!("{to} has no health check"),
    };
    format!("{probe}; {health}; version not checked")
}
