//! From evidence to an end: breaches and what withholds a rollback, the end of a soak, the recovery after a rollback.

use super::ladder::{self, Course};
use super::message::Command;
use super::rollback::{self, Rollback};
use super::sight::Cursor;
use super::watch::{Phase, Recovering, Turn, Watch};
use crate::domain::baseline::{Baseline, Quality};
use crate::domain::notice::NoticeReason;
use crate::domain::plan::HealthReading;
use crate::domain::policy::{AskDefault, Mode};
use crate::domain::signal::Signal;
use crate::domain::switch::RollbackSafety;
use crate::domain::time::{Span, Timestamp};
use crate::domain::verdict::{Evidence, Outcome, SignalState, Verdict, Withheld};
use crate::domain::view::{Breach, Recovery};
use crate::judge::threshold::Threshold;
use crate::planted::{self, Bug};

/// `passed` needs this share of the soak to have been seen.
const VALID_SHARE_MIN: f64 = 0.9;

/// "Passed, by checks only" rests on at least this many good health checks, and this share of them.
const GOOD_CHECKS_MIN: u32 = 20;

const GOOD_CHECKS_SHARE_MIN: f64 = 0.95;

/// So many ticks at which all was well are "recovered".
const RECOVERED_TICKS: u32 = 3;

impl Watch {
    pub(super) fn verdict(&self) -> Verdict {
        if self.breach.is_some() || self.rule.breached_since().is_some() {
            Verdict::Breached
        } else if self.sight.is_blind() {
            Verdict::Blind
        } else if self.is_thin() {
            Verdict::Thin
        } else {
            Verdict::Healthy
        }
    }

    /// At the present rate the soak will not have brought the requests it needs.
    pub(super) fn is_thin(&self) -> bool {
        let policy = &self.service.policy;
        let valid_s = self.sight.valid().as_secs_f64();
        let needed = self.rule.requests_needed();
        valid_s >= policy.warm_up.errors.as_secs_f64()
            && self.rule.requests() < needed
            && self.rule.requests() / valid_s.max(1.0) * policy.phases().whole().as_secs_f64() < needed
    }

    /// Whether anything breached is acted upon in this phase.
    pub(super) fn may_judge(&self) -> bool {
        match self.phase {
            Phase::Soaking { .. } => self.paused.is_none(),
            // Before the cut-over is confirmed only where the probe says that the new slot is active;
            // and that confirms it.
            Phase::CuttingOver { .. }
            | Phase::Asking { .. }
            | Phase::RollingBack(_)
            | Phase::Recovering(_)
            | Phase::Rehearsing { .. }
            | Phase::Ended { .. } => false,
        }
    }

    pub(super) fn judge(&mut self, turn: &mut Turn<'_>) {
        if !self.may_judge() {
            return;
        }
        let accused = self.accusation.as_ref().and_then(|e| e.since);
        if let Some(since) = self.rule.breached_since().or(accused) {
            self.on_breach(since, turn);
        }
    }

    pub(super) fn judge_alive(&mut self, turn: &mut Turn<'_>) {
        let ticks = self.service.policy.limits.ticks;
        if self.may_judge() && self.new_alive.down(ticks) {
            let since = self.new_alive.since().unwrap_or(turn.now);
            self.on_breach(since, turn);
        }
    }

    pub(super) fn on_breach(&mut self, since: Timestamp, turn: &mut Turn<'_>) {
        let ticks = self.service.policy.limits.ticks;
        let mut evidence = self.rule.evidence();
        evidence.push(self.new_alive.evidence(ticks));
        evidence.extend(self.accusation.clone());
        let broken: Vec<String> =
            evidence.iter().filter(|e| e.state == SignalState::Breached).map(super::view::one_line).collect();
        let broken_signals: Vec<Evidence> =
            evidence.iter().filter(|e| e.state == SignalState::Breached).cloned().collect();
        let one_in = self.one_in();
        let to = self.new_cursor.from.max(since);
        self.breach = Some(Breach { at: turn.now, since, evidence, one_in, from: since, to });
        self.record(turn.now, "breached", broken.join("; "));
        let policy = &self.service.policy;
        let withheld = if self.announcement.rollback == RollbackSafety::Unsafe {
            Some(Withheld::RollbackUnsafe)
        } else if self.service.plan.steps.is_empty() {
            Some(Withheld::NoPlan)
        } else if let Err(why) = &self.target {
            Some(Withheld::NoSafeTarget { why: why.clone() })
        } else if let Some(Baseline { quality: Quality::Incident { why }, .. }) = self.baseline() {
            Some(Withheld::TargetWasBad { why: why.clone() })
        } else if let Some(why) = self.control_too(&broken_signals) {
            Some(Withheld::ControlToo { why })
        } else if self.old_alive.good_now() == Some(false) {
            let why = format!(
                "{} does not answer either: {}",
                self.way_back(),
                self.old_alive.last_bad().unwrap_or("its health check fails")
            );
            Some(Withheld::NoSafeTarget { why })
        } else if policy.mode == Mode::Observe {
            Some(Withheld::ObserveMode)
        } else if !turn.armed {
            Some(Withheld::Disarmed)
        } else if policy.mode == Mode::Auto {
            // What a person approves is the person's own judgement: neither counted nor held back.
            turn.brakes.refuses(turn.now, &self.announcement).map(|why| Withheld::Brake { why })
        } else {
            None
        };
        match withheld {
            Some(why) => self.withhold(why, turn),
            None if policy.mode == Mode::Ask => {
                let deadline = turn.now + policy.ask_timeout;
                self.phase = Phase::Asking { deadline };
                let asked = match policy.ask_default {
                    AskDefault::Hold => format!("waits for approve or decline until {deadline}"),
                    AskDefault::RollBack => format!("waits for a decline until {deadline}, then it is rolled back"),
                };
                self.record(turn.now, "asked", asked);
                self.notify(NoticeReason::ApprovalWanted, turn);
            }
            None => {
                turn.brakes.debit(turn.now, &self.id, &self.announcement);
                self.start_rollback(turn);
            }
        }
    }

    /// The question stood long enough: what was stated is done.
    pub(super) fn not_answered(&mut self, turn: &mut Turn<'_>) {
        if self.service.policy.ask_default == AskDefault::Hold {
            return self.withhold(Withheld::NotApproved, turn);
        }
        self.record(turn.now, "not_answered", "nobody answered in time: it is rolled back, as was stated".into());
        match turn.brakes.refuses(turn.now, &self.announcement) {
            Some(why) => self.withhold(Withheld::Brake { why }, turn),
            None => {
                turn.brakes.debit(turn.now, &self.id, &self.announcement);
                self.start_rollback(turn);
            }
        }
    }

    pub(super) fn start_rollback(&mut self, turn: &mut Turn<'_>) {
        if !turn.armed {
            return self.withhold(Withheld::Disarmed, turn);
        }
        rollback::start(self, NoticeReason::BreachedActing, turn);
    }

    pub(super) fn withhold(&mut self, why: Withheld, turn: &mut Turn<'_>) {
        self.end(Outcome::Withheld { why }, NoticeReason::Withheld, turn);
    }

    // ------------------------------------------------------------------ ends

    /// How long is watched in all, when the present stretch is to be watched for so long: what came before it
    /// in a ramp must have been seen as well.
    fn planned(&self, stretch: Span) -> Span {
        match (self.stage_at, self.cut_over_at) {
            (Some(stage), Some(cut_over)) => stage.since(cut_over) + stretch,
            _ => stretch,
        }
    }

    /// Whether a soak of this length has shown what it must (and then whether only by health checks), or
    /// why not.
    pub(super) fn has_shown(&self, planned: Span) -> Result<bool, String> {
        // What was not seen is soaked longer: the extension makes up for gaps in the planned length.
        let planned = planned.as_secs_f64();
        // The last ticks of a soak are still settling; two of them are no gap.
        let slack = (self.tick.times(2) + self.clock.settle).as_secs_f64();
        let seen = self.sight.valid().as_secs_f64();
        let checks = self.new_alive.good_checks() >= GOOD_CHECKS_MIN
            && self.new_alive.good_share().is_some_and(|share| share >= GOOD_CHECKS_SHARE_MIN);
        let (requests, needed) = (self.rule.requests(), self.rule.requests_needed());
        if planted::has(Bug::PassByTime) {
            Ok(false)
        } else if self.sight.is_blind() {
            Err(format!("readings are missing ({})", self.sight.why()))
        } else if (seen + slack) / planned.max(1.0) < VALID_SHARE_MIN {
            Err(format!("only {:.0} % of the soak was seen", 100.0 * seen / planned.max(1.0)))
        } else if self.rule.any_above() {
            Err("a signal is above its limit, not yet with enough to act on".to_owned())
        } else if self.new_alive.good_now() == Some(false) {
            Err("the last health check failed".to_owned())
        } else if requests >= needed {
            Ok(false)
        } else if checks {
            // Without traffic the checks stand for it: counts there were, but too few of them.
            Ok(true)
        } else {
            Err(format!(
                "{requests:.0} requests are too few: {needed:.0} are needed to have shown a ratio of {}",
                self.service.policy.limits.must_detect.get()
            ))
        }
    }

    pub(super) fn finish_soak(&mut self, turn: &mut Turn<'_>) {
        let Phase::Soaking { ends_at, gives_up_at, extended } = self.phase else { return };
        if self.paused.is_some() {
            return;
        }
        self.enter_long_phase(turn);
        if turn.now < ends_at {
            return;
        }
        let why = match self.has_shown(self.planned(self.service.policy.phases().whole())) {
            Ok(by_checks_only) => return self.pass(by_checks_only, turn),
            Err(why) => why,
        };
        if turn.now >= gives_up_at {
            return self.end(Outcome::Unjudged { why }, NoticeReason::Unjudged, turn);
        }
        if !extended {
            self.phase = Phase::Soaking { ends_at, gives_up_at, extended: true };
            self.record(turn.now, "extended", format!("{why}; goes on until {gives_up_at} at the latest"));
        }
    }

    /// After the fast phase: coarser ticks, and the release is one to go back to if it was good.
    pub(super) fn enter_long_phase(&mut self, turn: &mut Turn<'_>) {
        if !self.is_long(turn.now) {
            return;
        }
        let policy = &self.service.policy;
        let (soak, tick) = (policy.soak, policy.long_tick.max(self.clock.scrape_interval.unwrap_or_default()));
        if self.tick < tick {
            self.tick = tick;
            self.record(turn.now, "long_phase", format!("the fast phase of {soak} is over; ticks of {tick} from here"));
        }
        if !self.fast_passed && self.has_shown(self.planned(soak)).is_ok() {
            self.fast_passed = true;
            self.record(turn.now, "fast_passed", "the fast phase was good".into());
        }
    }

    pub(super) fn pass(&mut self, by_checks_only: bool, turn: &mut Turn<'_>) {
        if self.service.after_passed.steps.is_empty() || self.service.policy.mode == Mode::Observe {
            // Whoever only looks on takes nothing down either.
            return self.end(Outcome::Passed { by_checks_only }, NoticeReason::Passed, turn);
        }
        self.by_checks_only = by_checks_only;
        self.record(turn.now, "after_passed", "the soak was passed; its last steps begin".into());
        self.phase = Phase::RollingBack(Rollback::new(Course::After, false));
        ladder::go_on(self, 0, turn);
    }

    /// The plan is done and proven: is the old slot well?
    pub(super) fn start_recovery(&mut self, turn: &mut Turn<'_>) {
        let policy = &self.service.policy;
        let deadline = self.recover(policy.recover_within, None, turn);
        // Only what the old slot served after the proof counts.
        self.old_cursor = Cursor::at(turn.now.shifted(self.clock.skew_ms));
        self.record(turn.now, "recovering", format!("watching {} until {deadline}", self.way_back()));
        self.next_health = turn.now;
    }

    /// A remedy is applied, and the traffic stays: is the new slot well now?
    pub(super) fn start_healing(&mut self, next: Rollback, within: Span, turn: &mut Turn<'_>) {
        let deadline = self.recover(within, Some(next), turn);
        self.new_cursor = Cursor::at(turn.now.shifted(self.clock.skew_ms));
        self.record(turn.now, "healing", format!("watching {} until {deadline}", self.announcement.new));
        self.next_health = turn.now;
    }

    /// Until when a slot has time to look well.
    fn recover(&mut self, within: Span, healing: Option<Rollback>, turn: &Turn<'_>) -> Timestamp {
        let policy = &self.service.policy;
        // Whether users are served again is no question of evidence: the plain rule, from fresh counts.
        let mut rule = Threshold::new(policy.limits.clone(), policy.warm_up);
        if let Some(baseline) = self.baseline() {
            rule.with_baseline(baseline);
        }
        let seen = Recovery { proven_at: turn.now, ticks_fine: 0, requests: 0.0, error_rate: None, above: Vec::new() };
        // Three good ticks must fit in, whatever was configured: time that is too short proves nothing.
        let least = self.tick.times(u64::from(RECOVERED_TICKS) + 2) + self.clock.settle;
        let deadline = turn.now + within.max(least);
        self.recovery = Some(seen.clone());
        let mut hurt = vec![Signal::ErrorRate];
        let broken = self.breach.iter().flat_map(|breach| &breach.evidence);
        hurt.extend(broken.filter(|e| e.state == SignalState::Breached).map(|e| e.signal.clone()));
        self.phase = Phase::Recovering(Box::new(Recovering { deadline, healing, rule, hurt, seen, last_health: None }));
        deadline
    }

    pub(super) fn check_recovery(&mut self, turn: &mut Turn<'_>) {
        /// "Recovered" rests on at least this much traffic.
        const REQUESTS_MIN: f64 = 20.0;
        let Phase::Recovering(recovering) = &self.phase else { return };
        let spec = match &recovering.healing {
            None => self.target_spec(),
            Some(_) => self.service.slots.spec(&self.announcement.new),
        };
        let has_check = spec.is_some_and(|spec| spec.health.is_some());
        let healthy = !has_check || recovering.last_health == Some(HealthReading::Good);
        if healthy && recovering.seen.ticks_fine >= RECOVERED_TICKS && recovering.seen.requests >= REQUESTS_MIN {
            match &recovering.healing {
                None => self.end(Outcome::RolledBackRecovered, NoticeReason::RolledBackRecovered, turn),
                Some(rollback) => {
                    let step = self.service.plan.steps.get(usize::from(rollback.step));
                    let by = step.map_or(String::new(), |step| step.name.clone());
                    self.end(Outcome::Healed { by }, NoticeReason::Healed, turn);
                }
            }
        }
    }

    pub(super) fn finish_recovery(&mut self, turn: &mut Turn<'_>) {
        let Phase::Recovering(recovering) = &self.phase else { return };
        if let Some(rollback) = recovering.healing.clone() {
            return ladder::not_healed(self, rollback, turn);
        }
        let sick = matches!(recovering.last_health, Some(HealthReading::Bad(_)));
        if recovering.rule.requests() < 20.0 && !sick {
            self.end(Outcome::RolledBackUnseen, NoticeReason::RolledBackUnseen, turn);
        } else {
            self.end(Outcome::RolledBackNotRecovered, NoticeReason::RolledBackNotRecovered, turn);
        }
    }

    pub(super) fn end(&mut self, outcome: Outcome, reason: NoticeReason, turn: &mut Turn<'_>) {
        self.record(turn.now, "ended", outcome.to_string());
        let told = match reason {
            NoticeReason::Passed => self.service.policy.notify_passed,
            NoticeReason::DrillFailed => true,
            // A scheduled drill that went well is in the history.
            _ => self.drill.is_none_or(|drill| !drill.scheduled),
        };
        self.phase = Phase::Ended { at: turn.now, outcome: outcome.clone() };
        turn.commands.push(Command::End { switch: self.id.clone(), outcome });
        if told {
            self.notify(reason, turn);
        }
    }
}
