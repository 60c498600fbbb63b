//! The rungs of a plan in their order: which is tried next, and what the end of one means.
//!
//! A plan serves four courses: the way back after a breach, a drill there and back, and what follows a passed soak.

use serde::{Deserialize, Serialize};

use super::rollback::{Rollback, ask, current_step, rollback_of};
use super::watch::{Phase, Turn, Watch};
use crate::domain::action::Variables;
use crate::domain::notice::NoticeReason;
use crate::domain::plan::{AFTER_STEPS, Expect, HOME_STEPS, OnFailure, Plan, Step, When};
use crate::domain::switch::Slot;
use crate::domain::verdict::{Outcome, Withheld};

/// What a plan is run for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Course {
    /// The traffic of a bad release goes back.
    Back,
    /// A drill moves it to the other slot ...
    DrillThere,
    /// ... and home again.
    DrillBack,
    /// The soak was passed.
    After,
}

impl Course {
    /// Attempts are numbered over all courses of a watch: an id is used once.
    pub fn index(self, step: u8) -> u8 {
        step + match self {
            Course::Back | Course::DrillThere => 0,
            Course::DrillBack => HOME_STEPS,
            Course::After => AFTER_STEPS,
        }
    }

    pub fn plan(self, watch: &Watch) -> &Plan {
        match self {
            Course::Back | Course::DrillThere | Course::DrillBack => &watch.service.plan,
            Course::After => &watch.service.after_passed,
        }
    }

    fn is_drill(self) -> bool {
        matches!(self, Course::DrillThere | Course::DrillBack)
    }
}

/// Where the traffic goes, and where it comes from.
pub(super) fn way(watch: &Watch) -> (Slot, Slot) {
    let course = match &watch.phase {
        Phase::RollingBack(rollback) => rollback.course,
        _ => Course::Back,
    };
    let (back, new) = (watch.way_back().clone(), watch.announcement.new.clone());
    match course {
        Course::Back | Course::DrillThere => (back, new),
        Course::DrillBack => (new, back),
        // Nothing is moved: the accepted release keeps the traffic.
        Course::After => (new, watch.announcement.old.clone()),
    }
}

/// `$old` is where the traffic goes in a rollback; after a passed soak it is the slot that has none any more.
pub(super) fn variables(watch: &Watch, step: &Step) -> Variables {
    let (to, from) = way(watch);
    let after = matches!(&watch.phase, Phase::RollingBack(r) if r.course == Course::After);
    let (old, new) = if after { (from, to) } else { (to, from) };
    step.variables(&watch.announcement.service, &old, &new)
}

/// What the probe is to show once the step is done.
pub(super) fn shown_after(watch: &Watch, step: &Step) -> String {
    match step.probe.as_ref().map(|probe| &probe.expect) {
        Some(Expect::Fixed(word)) => format!("{word:?}"),
        _ => way(watch).0.to_string(),
    }
}

/// Begins the next rung from `step` on that applies, or ends the course.
pub(super) fn go_on(watch: &mut Watch, step: u8, turn: &mut Turn<'_>) {
    let Phase::RollingBack(Rollback { course, failed, ordered, .. }) = &watch.phase else { return };
    let (course, failed, ordered) = (*course, failed.clone(), *ordered);
    let mut index = step;
    let limit = loop {
        let Some(next) = course.plan(watch).steps.get(usize::from(index)).cloned() else {
            return end_of_plan(watch, course, failed, turn);
        };
        let left_out = match next.heals_within {
            Some(_) if course.is_drill() => Some("a remedy is no part of a drill"),
            Some(_) if ordered => Some("the traffic was ordered back"),
            Some(_) if watch.new_alive.good_now() == Some(false) => Some("what does not answer is not healed by it"),
            _ if next.when == When::AfterFailure && failed.is_none() => Some("nothing failed before it"),
            _ => None,
        };
        let Some(why) = left_out else { break next.limit };
        watch.record(turn.now, "step_left_out", format!("{}: {why}", next.name));
        index += 1;
    };
    let Some(rollback) = rollback_of(watch) else { return };
    rollback.enter(index, limit, turn.now);
    ask(watch, turn);
}

/// It is done and its wait is over.
pub(super) fn step_is_over(watch: &mut Watch, turn: &mut Turn<'_>) {
    let Phase::RollingBack(rollback) = &watch.phase else { return };
    let rollback = rollback.clone();
    match current_step(watch).and_then(|step| step.heals_within) {
        Some(within) => watch.start_healing(rollback, within, turn),
        None => go_on(watch, rollback.step + 1, turn),
    }
}

/// The remedy did not help in its time: the next rung.
pub(super) fn not_healed(watch: &mut Watch, rollback: Rollback, turn: &mut Turn<'_>) {
    let next = rollback.step + 1;
    watch.phase = Phase::RollingBack(rollback);
    let name = current_step(watch).map_or(String::new(), |step| step.name.clone());
    watch.record(turn.now, "not_healed", format!("{name} did not help: the signals are as bad"));
    go_on(watch, next, turn);
}

/// A remedy that is in force already cannot be the cure.
pub(super) fn no_help(watch: &mut Watch, why: String, turn: &mut Turn<'_>) {
    let Phase::RollingBack(rollback) = &watch.phase else { return };
    let next = rollback.step + 1;
    let name = current_step(watch).map_or(String::new(), |step| step.name.clone());
    watch.record(turn.now, "step_left_out", format!("{name}: {why}"));
    go_on(watch, next, turn);
}

/// The rung cannot be climbed: the next one, or the end.
pub(super) fn rung_failed(watch: &mut Watch, why: String, turn: &mut Turn<'_>) {
    let Phase::RollingBack(rollback) = &watch.phase else { return };
    let next = rollback.step + 1;
    let goes_on = current_step(watch).is_some_and(|step| step.on_failure == OnFailure::Next);
    let is_last = usize::from(next) >= rollback.course.plan(watch).steps.len();
    // The traffic is back; what is left undone is told with it.
    let enough = rollback.course != Course::After && rollback.moved;
    if !goes_on || (is_last && !enough) {
        return end_failed(watch, why, NoticeReason::RollbackFailed, turn);
    }
    watch.record(turn.now, "rung_failed", why.clone());
    if let Some(rollback) = rollback_of(watch) {
        (rollback.failed, rollback.gap) = (Some(why), true);
    }
    go_on(watch, next, turn);
}

/// A preflight that does not hold while all traffic is where it was.
pub(super) fn refuse(watch: &mut Watch, why: Withheld, turn: &mut Turn<'_>) {
    let goes_on = current_step(watch).is_some_and(|step| step.on_failure == OnFailure::Next);
    if goes_on { rung_failed(watch, why.to_string(), turn) } else { give_up(watch, why, turn) }
}

/// Nothing was moved, and nothing will be.
pub(super) fn give_up(watch: &mut Watch, why: Withheld, turn: &mut Turn<'_>) {
    match &watch.phase {
        Phase::RollingBack(Rollback { course: Course::Back, .. }) => watch.withhold(why, turn),
        _ => end_failed(watch, why.to_string(), NoticeReason::RollbackFailed, turn),
    }
}

/// Whether no step that moves traffic has begun in this course.
pub(super) fn nothing_moved(watch: &Watch) -> bool {
    let Phase::RollingBack(Rollback { course, .. }) = &watch.phase else { return false };
    let begun = |step: u8| watch.steps.iter().any(|record| record.attempt.step == course.index(step));
    !course.plan(watch).steps.iter().zip(0..).any(|(step, i)| !step.is_remedy() && begun(i))
}

/// The last word of a course that failed.
pub(super) fn end_failed(watch: &mut Watch, why: String, told: NoticeReason, turn: &mut Turn<'_>) {
    let Phase::RollingBack(rollback) = &watch.phase else { return };
    match rollback.course {
        Course::Back => watch.end(Outcome::RollbackFailed { why }, told, turn),
        // Whatever failed: the traffic must not stay where it was only taken to practise.
        Course::DrillThere if !nothing_moved(watch) => go_home(watch, Some(why), turn),
        Course::DrillThere => watch.end(Outcome::DrillFailed { why }, NoticeReason::DrillFailed, turn),
        Course::DrillBack => {
            let before = rollback.spoilt.as_ref().map_or(String::new(), |why| format!("; and before that: {why}"));
            let why = format!("the traffic did not come home to {}: {why}{before}", watch.announcement.new);
            watch.end(Outcome::DrillFailed { why }, NoticeReason::DrillFailed, turn);
        }
        Course::After => {
            watch.record(turn.now, "after_passed_failed", why);
            watch.notify(NoticeReason::AfterPassedFailed, turn);
            watch.end(Outcome::Passed { by_checks_only: watch.by_checks_only }, NoticeReason::Passed, turn);
        }
    }
}

/// The second half of a drill.
fn go_home(watch: &mut Watch, spoilt: Option<String>, turn: &mut Turn<'_>) {
    let why = spoilt.as_ref().map_or(String::new(), |why| format!(", though {why}"));
    watch.record(turn.now, "drill_back", format!("to {}{why}", watch.announcement.new));
    watch.phase = Phase::RollingBack(Rollback { spoilt, ..Rollback::new(Course::DrillBack, false) });
    go_on(watch, 0, turn);
}

fn end_of_plan(watch: &mut Watch, course: Course, failed: Option<String>, turn: &mut Turn<'_>) {
    let Some(rollback) = rollback_of(watch) else { return };
    let (moved, gap, spoilt) = (rollback.moved, rollback.gap, rollback.spoilt.clone());
    match course {
        Course::Back if moved => watch.start_recovery(turn),
        Course::Back => {
            let why = failed.unwrap_or_else(|| "no rung of the ladder is left, and none moved the traffic".into());
            end_failed(watch, why, NoticeReason::RollbackFailed, turn);
        }
        Course::DrillThere => {
            let spoilt = gap.then(|| failed.unwrap_or_else(|| "not all of its steps could be done".into()));
            go_home(watch, spoilt, turn);
        }
        Course::DrillBack => match spoilt.or(gap.then(|| "not all of the steps home could be done".into())) {
            Some(why) => watch.end(Outcome::DrillFailed { why }, NoticeReason::DrillFailed, turn),
            None => watch.end(Outcome::Drilled { dry: false }, NoticeReason::Drilled, turn),
        },
        Course::After => {
            if gap {
                watch.record(turn.now, "after_passed_failed", "not all of it could be done".into());
                watch.notify(NoticeReason::AfterPassedFailed, turn);
            }
            watch.end(Outcome::Passed { by_checks_only: watch.by_checks_only }, NoticeReason::Passed, turn);
        }
    }
}
