//! A watch as others may see it, free of inner state.

use super::ladder::{self, Course};
use super::watch::{Phase, Watch};
use crate::domain::plan::{Step, When};
use crate::domain::signal::Signal;
use crate::domain::time::Timestamp;
use crate::domain::verdict::{Evidence, Outcome};
use crate::domain::view::{Asked, PhaseWord, Planned, WatchView};

impl Watch {
    pub(super) fn phase_word(&self) -> PhaseWord {
        match &self.phase {
            Phase::CuttingOver { .. } => PhaseWord::CuttingOver,
            Phase::Soaking { .. } => PhaseWord::Soaking,
            Phase::Asking { .. } => PhaseWord::Asking,
            Phase::Rehearsing { .. } => PhaseWord::Drilling,
            Phase::RollingBack(_) if self.drill.is_some() => PhaseWord::Drilling,
            Phase::RollingBack(rollback) if rollback.course == Course::After => PhaseWord::Concluding,
            Phase::RollingBack(_) => PhaseWord::RollingBack,
            Phase::Recovering(recovering) if recovering.healing.is_some() => PhaseWord::Healing,
            Phase::Recovering(_) => PhaseWord::Recovering,
            Phase::Ended { .. } => PhaseWord::Ended,
        }
    }

    pub(super) fn ended(&self) -> Option<(Timestamp, &Outcome)> {
        match &self.phase {
            Phase::Ended { at, outcome } => Some((*at, outcome)),
            Phase::CuttingOver { .. }
            | Phase::Soaking { .. }
            | Phase::Asking { .. }
            | Phase::RollingBack(_)
            | Phase::Recovering(_)
            | Phase::Rehearsing { .. } => None,
        }
    }

    /// What tells a view apart from the one before: most inputs (a good health check, a question) change
    /// nothing that anybody is shown.
    pub(super) fn shown(&self) -> impl PartialEq + use<> {
        let last = self.timeline.last().map(|e| (e.at, e.kind.clone()));
        let recovery = self.recovery.clone();
        let seen = (self.ticks, self.tick, self.new_cursor.from, self.old_cursor.from, recovery);
        // Where no readings come, the health checks are all there is to see.
        let checks = if self.ticks == 0 { self.new_alive.good_checks() } else { 0 };
        (self.timeline.len(), last, seen, self.new_alive.shown(), checks, self.notice_n, self.phase_word())
    }

    /// The rungs before the first that moves traffic.
    pub(super) fn remedies(&self) -> Vec<String> {
        self.service.plan.steps.iter().take_while(|step| step.is_remedy()).map(|step| step.name.clone()).collect()
    }

    fn planned_step(&self, step: &Step) -> Planned {
        let resolved = step.resolve(&ladder::variables(self, step));
        Planned {
            name: resolved.name,
            command: resolved.action.to_string(),
            probe: resolved.probe.map(|probe| probe.look.to_string()),
            remedy: resolved.heals_within.is_some(),
            after_failure: resolved.when == When::AfterFailure,
        }
    }

    pub fn view(&self) -> WatchView {
        let policy = &self.service.policy;
        let ended = self.ended();
        let mut evidence = self.rule.evidence();
        evidence.push(self.new_alive.evidence(policy.limits.ticks));
        evidence.extend(self.accusation.clone());
        WatchView {
            id: self.id.clone(),
            switch: self.announcement.clone(),
            share_percent: (!self.share().is_all()).then_some(self.share()),
            back_to: self.way_back().clone(),
            mode: policy.mode,
            metrics: self.service.metrics.clone(),
            phase: self.phase_word(),
            verdict: self.verdict(),
            opened_at: self.opened_at,
            cut_over_at: self.cut_over_at,
            soak_ends_at: self.soak_ends_at(),
            fast_passed: self.fast_passed,
            rule: policy.rule,
            soak: policy.soak,
            long: policy.long,
            tick: self.tick,
            ticks: self.ticks,
            ended_at: ended.map(|(at, _)| at),
            outcome: ended.map(|(_, outcome)| outcome.clone()),
            baseline: self.baseline().cloned(),
            evidence,
            one_in: self.one_in(),
            detectable: self.detectable,
            breach: self.breach.clone(),
            steps: self.steps.clone(),
            remedies: self.remedies(),
            paused: self.paused.clone(),
            asked: match &self.phase {
                Phase::Asking { deadline } => Some(Asked { until: *deadline, default: policy.ask_default }),
                _ => None,
            },
            recovery: self.recovery.clone(),
            timeline: self.timeline.clone(),
            runbook: self.service.runbook.clone(),
            plan: self.service.plan.steps.iter().map(|step| self.planned_step(step)).collect(),
            policy: Some(policy.clone()),
            clock: self.met_clock.then_some(self.clock),
        }
    }
}

/// One signal in one line, for the timeline and the log.
pub(super) fn one_line(e: &Evidence) -> String {
    let number = |v: f64| match e.signal {
        Signal::ErrorRate => format!("{:.2} %", v * 100.0),
        Signal::Latency(_) => format!("{:.0} ms", v * 1000.0),
        Signal::Traffic | Signal::Alive | Signal::Custom(_) => format!("{v}"),
    };
    if let (Signal::Custom(_), None, Some(said)) = (&e.signal, e.value, &e.remark) {
        return said.clone(); // an alert: its own words
    }
    if e.signal == Signal::Alive {
        let why = e.remark.as_deref().unwrap_or("its health check fails");
        return format!("slot down: {why} ({} answers in a row)", e.ticks_above);
    }
    let ticks = match &e.proof {
        Some(proof) => {
            format!("evidence 1 in {:.0}, {} of {} last ticks above", proof.one_in, e.ticks_above, e.ticks_needed)
        }
        None => format!("{} ticks", e.ticks_above),
    };
    let mut line = format!("{} {}", e.signal, e.value.map_or("unknown".into(), number));
    if let Some(baseline) = e.baseline {
        line.push_str(&format!(" vs {} recorded", number(baseline)));
    }
    if let Some(limit) = e.limit {
        line.push_str(&format!(" (limit {})", number(limit)));
    }
    if let Some(ratio) = e.ratio {
        line.push_str(&format!(": {ratio:.1}×"));
    }
    line.push_str(&format!(" over {:.0} requests, {ticks}", e.requests));
    line
}
