//! What a drill's notice says: which checks were made, or where the traffic went and how long that took.

use crate::domain::plan::{HOME_STEPS, StepOutcome, StepRecord};
use crate::domain::time::Span;
use crate::domain::view::WatchView;

pub fn done(w: &WatchView) -> String {
    if w.steps.is_empty() {
        let tried: Vec<&str> =
            w.timeline.iter().filter(|e| e.kind.starts_with("tried")).map(|e| e.text.as_str()).collect();
        let checks = if tried.len() == 1 { "one check".to_owned() } else { format!("{} checks", tried.len()) };
        return format!("{checks}, nothing was moved: {}", tried.join("; "));
    }
    let (home, there): (Vec<&StepRecord>, Vec<&StepRecord>) =
        w.steps.iter().partition(|s| s.attempt.step >= HOME_STEPS);
    let there = format!("{} → {}: {}", w.switch.new, w.switch.old, told(&there));
    if home.is_empty() { there } else { format!("{there}; and home: {}", told(&home)) }
}

fn told(steps: &[&StepRecord]) -> String {
    let one = |s: &&StepRecord| match (&s.outcome, s.proven_at) {
        (Some(StepOutcome::Done), Some(at)) => format!("{} proven in {}", s.name, tenths(at.since(s.intended_at))),
        (Some(StepOutcome::Done), None) => format!("{} done", s.name),
        (Some(StepOutcome::Failed(_)), _) => format!("{} failed (try {})", s.name, s.attempt.attempt),
        (Some(StepOutcome::Stuck(_)), _) => format!("{} stuck", s.name),
        (None, _) => format!("{} begun", s.name),
    };
    steps.iter().map(one).collect::<Vec<_>>().join(", ")
}

fn tenths(span: Span) -> String {
    format!("{:.1} s", span.as_secs_f64())
}
