//! Why a watch was judged as it was: the arithmetic in words and numbers, the tick that decided, what would have
//! changed it, and what the rules of other tools would have done on the same counts.

use serde::{Deserialize, Serialize};

use super::replay::Replay;
pub use super::what_if::{RivalSays, WhatIf};
use super::what_if::{rivals, what_if};
use crate::domain::account::{Account, JudgedTick};
use crate::domain::baseline::{Baseline, Quality};
use crate::domain::policy::RuleKind;
use crate::domain::signal::{Quantile, Signal};
use crate::domain::switch::SwitchId;
use crate::domain::time::Timestamp;
use crate::domain::verdict::{Evidence, Outcome, SignalState};
use crate::domain::view::{Breach, WatchView};
use crate::judge::Scale;
use crate::judge::eprocess::combine;
use crate::judge::quantile::quantile;
use crate::words::numbers::{duration, number, one_in, percent, thousands};
use crate::words::safe::tame;

/// What [`of`] makes of an account. Everything in it is text or numbers for people.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Explanation {
    pub switch: SwitchId,
    /// How it stands or ended, and what decided that.
    pub verdict: String,
    pub baseline: Vec<String>,
    pub rule: Vec<String>,
    pub signals: Vec<SignalExplained>,
    /// The signals put together.
    pub together: Vec<String>,
    pub ticks: Vec<TickRow>,
    pub what_if: Vec<WhatIf>,
    pub rivals: Vec<RivalSays>,
    /// What this explanation lacks, and why.
    pub notes: Vec<String>,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct SignalExplained {
    pub signal: String,
    pub broke: bool,
    pub lines: Vec<String>,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct TickRow {
    pub tick: u32,
    /// End of the tick on Prometheus's clock.
    pub to: Timestamp,
    pub after_cut_over_s: f64,
    /// Of this tick alone.
    pub requests: f64,
    pub bad: f64,
    /// Evidence of each signal, up to this tick: one in so many; absent where there is none.
    pub one_in: Vec<(String, Option<f64>)>,
    pub together: Option<f64>,
    /// Signals that stood above their limits in their last ticks.
    pub above: u32,
    pub decides: bool,
}

/// What decided.
enum By {
    /// A tick, by its place among those that are known.
    Tick(usize),
    Checks,
    /// A person, an alert, or an earlier tick whose reading is gone.
    Else,
}

pub fn of(account: &Account) -> Explanation {
    let w = &account.view;
    let ticks = account.ticks();
    let replay = Replay::of(account);
    let by = w.breach.as_ref().map(|breach| decided_by(breach, &ticks));
    let evidence = w.telling();
    let scales = replay.as_ref().map(Replay::scales).unwrap_or_default();
    let mut notes = Vec::new();
    if w.ticks > 0 && ticks.is_empty() {
        notes.push(
            "the readings of this watch are kept no longer: only what was written down at its end is left".into(),
        );
    } else if ticks.len() < w.ticks as usize {
        notes.push(format!("{} of {} ticks are still known", ticks.len(), w.ticks));
    }
    if w.policy.is_none() {
        notes.push("its policy was not kept: an older version watched it".into());
    }
    let again = replay.as_ref().and_then(|replay| replay.breached(replay.policy));
    let agrees = match (&by, again) {
        (Some(By::Tick(at)), again) => again == Some(*at),
        (None, again) => again.is_none(),
        (Some(By::Checks | By::Else), _) => true,
    };
    if let (Some(replay), false) = (&replay, agrees) {
        let said = again.map_or("no tick decides".to_owned(), |at| {
            format!("the tick at {} decides", duration(replay.seconds(replay.cells[at].to)))
        });
        notes.push(format!(
            "played again over the readings that are left, {said}: what follows under \"what would have changed it\" is \
             said of that"
        ));
    }
    Explanation {
        switch: w.id.clone(),
        verdict: tame(&verdict(w, by.as_ref(), &ticks), 600),
        baseline: w.baseline.as_ref().map_or_else(|| vec!["none".into()], baseline_lines),
        rule: rule_lines(w),
        signals: evidence.iter().map(|e| explained(e, scales.iter().find(|s| s.signal == e.signal), w)).collect(),
        together: together(evidence, &scales, w),
        ticks: tick_rows(w, &ticks, by.as_ref()),
        what_if: replay
            .as_ref()
            .map(|replay| what_if(w, replay, matches!(by, Some(By::Tick(_)) | None)))
            .unwrap_or_default(),
        rivals: replay.as_ref().map(|replay| rivals(account, replay, again)).unwrap_or_default(),
        notes,
    }
}

fn decided_by(breach: &Breach, ticks: &[JudgedTick<'_>]) -> By {
    let broken = || breach.evidence.iter().filter(|e| e.state == SignalState::Breached);
    if broken().any(|e| e.signal == Signal::Alive) {
        return By::Checks;
    }
    let judged_then = ticks.iter().position(|tick| tick.judged.at == breach.at);
    match judged_then {
        Some(at) if broken().any(|e| e.value.is_some() || e.proof.is_some()) => By::Tick(at),
        _ => By::Else,
    }
}

// ---------------------------------------------------------------------- in words

fn verdict(w: &WatchView, by: Option<&By>, ticks: &[JudgedTick<'_>]) -> String {
    let cut = w.began();
    let end = match &w.outcome {
        Some(outcome) => format!("It ended as {outcome}."),
        None => format!("It is {} now, and {}.", w.phase.as_str().replace('_', " "), w.verdict),
    };
    let (Some(breach), Some(by)) = (&w.breach, by) else {
        let why = match &w.outcome {
            None | Some(Outcome::Passed { .. }) => "No tick brought enough evidence of a breach.",
            Some(_) => "No breach decided it.",
        };
        return format!("{why} {end}");
    };
    let after = duration(breach.at.since(cut).as_secs_f64());
    let what = match by {
        By::Tick(at) => format!("Tick {} decided: breached, {after} after the cut-over.", ticks[*at].judged.said.tick),
        By::Checks => format!("Its health checks decided, {after} after the cut-over: the slot was down."),
        By::Else => format!("Breached {after} after the cut-over."),
    };
    format!("{what} {end}")
}

/// The recorded normal in lines, with where it came from.
pub fn baseline_lines(b: &Baseline) -> Vec<String> {
    let p = &b.provenance;
    let rate = b.counts.rate().map_or("no error rate".into(), |r| format!("{} errors", percent(r)));
    let mut lines = vec![
        format!("{} requests in {} cells of 15 s, {:.1}/s, {rate}", thousands(b.counts.requests()), b.cells, b.rate()),
        format!("recorded of {} from {} to {}", p.slot, p.from, p.to),
    ];
    if let Some(latency) = &b.latency {
        let shown: Vec<String> = Quantile::ALL
            .iter()
            .filter_map(|q| Some((q, quantile(latency, q.q())?)))
            .map(|(q, s)| format!("{q} {}", number(&Signal::Latency(*q), s)))
            .collect();
        lines.push(format!("latency {}", shown.join(", ")));
    }
    match &b.quality {
        Quality::Good => {}
        Quality::TooLittle { why } => {
            lines.push(format!("TOO LITTLE: {}; absolute limits and health checks only", tame(why, 300)));
        }
        Quality::Incident { why } => lines.push(format!("INCIDENT: {}; a rollback would be withheld", tame(why, 300))),
    }
    if p.previous_release_used {
        lines.push("the release before stands in, because the live one has too little".into());
    }
    if p.pinned {
        lines.push("pinned by a person".into());
    }
    lines.extend(p.excluded.iter().map(|why| format!("left out: {}", tame(why, 300))));
    lines
}

/// What it is judged by.
pub fn rule_lines(w: &WatchView) -> Vec<String> {
    let Some(policy) = &w.policy else { return vec![format!("rule {}", w.rule)] };
    let l = &policy.limits;
    let plain = format!(
        "the plain rule: above {}× the recorded normal (or above an absolute limit) for {} ticks in a row, 10 s at least",
        l.ratio.get(),
        l.ticks
    );
    let evidence = format!(
        "roll back when all signals together say {} (alpha {}: the stated chance of a false rollback in a soak), and at \
         least {} requests were bad",
        one_in(1.0 / l.alpha.get()),
        l.alpha.get(),
        l.min_events
    );
    let mut lines = match policy.rule {
        RuleKind::Threshold => vec![plain],
        RuleKind::Evidence => vec![evidence],
        RuleKind::Either => vec![evidence, plain],
    };
    if policy.rule != RuleKind::Threshold {
        let share = 1.0 / (f64::from(l.ticks) - 0.8);
        lines.push(format!(
            "no block of {} brings more than {:.0} % of that, so one bad scrape is never enough",
            l.block,
            share * 100.0
        ));
        lines.push(format!("an error rate at or below {} is no breach by definition", percent(l.floor.get())));
    }
    if let Some(rate) = l.error_rate {
        lines.push(format!("an error rate above {} over 30 s is one, whatever the normal", percent(rate.get())));
    }
    let lenient = if policy.rule == RuleKind::Threshold { "the absolute limit alone" } else { "25 %" };
    lines.push(format!(
        "warm-up: errors are judged against {lenient} for {}, latency not at all for {}",
        policy.warm_up.errors, policy.warm_up.latency
    ));
    lines
}

fn explained(e: &Evidence, scale: Option<&Scale>, w: &WatchView) -> SignalExplained {
    let mut lines = Vec::new();
    if let Some(s) = scale {
        lines.extend(normal_lines(s, w));
    }
    if let Some(value) = e.value.filter(|_| e.signal != Signal::Alive) {
        let of = match (&e.signal, scale.and_then(|s| s.bound_s)) {
            (Signal::ErrorRate, _) => format!("; {} bad of {} requests", thousands(e.bad), thousands(e.requests)),
            (Signal::Latency(_), Some(bound)) => format!(
                "; {} of {} requests slower than {}",
                thousands(e.bad),
                thousands(e.requests),
                number(&e.signal, bound)
            ),
            _ => String::new(),
        };
        let ratio = e.ratio.map_or(String::new(), |r| format!(", {r:.2}× the recorded normal"));
        lines.push(format!("counted since the cut-over: {}{ratio}{of}", number(&e.signal, value)));
    }
    match (&e.proof, scale) {
        (Some(proof), Some(s)) => {
            if let Some((low, high)) = proof.interval {
                let range =
                    if high > 1000.0 { format!("at least {low:.2}×") } else { format!("{low:.2}× to {high:.2}×") };
                lines.push(format!("the true ratio is {range}, at 95 %, whenever one looks"));
            }
            let expected = s.limit * e.requests;
            lines.push(format!(
                "at the limit about {} of {} would have been bad; {} were",
                if expected < 10.0 { format!("{expected:.1}") } else { thousands(expected) },
                thousands(e.requests),
                thousands(e.bad)
            ));
            lines.push(format!("evidence: ln E = {:.2}, {}", proof.ln_e, one_in(proof.one_in)));
        }
        _ if e.signal == Signal::Alive => {
            let said = if e.state == SignalState::Breached { "down" } else { "not down" };
            lines.push(format!("{said}: {} checks, {} bad, the last {} in a row", e.requests, e.bad, e.ticks_above));
        }
        _ => {
            if let Some(limit) = e.limit {
                lines.push(format!("limit {}", number(&e.signal, limit)));
            }
            lines.push(format!("{} ticks in a row above it, {} are needed", e.ticks_above, e.ticks_needed));
        }
    }
    lines.extend(e.remark.as_ref().map(|remark| tame(remark, 300)));
    SignalExplained { signal: tame(&e.signal.to_string(), 60), broke: e.state == SignalState::Breached, lines }
}

fn normal_lines(s: &Scale, w: &WatchView) -> Vec<String> {
    let recorded = if s.requests > 0.0 { s.bad / s.requests } else { 0.0 };
    let mut lines = Vec::new();
    let times = w.policy.as_ref().map_or(1.5, |policy| policy.limits.ratio.get());
    match s.bound_s {
        None => {
            lines.push(format!(
                "recorded: {} bad of {} requests, {}; burstiness {:.2}",
                thousands(s.bad),
                thousands(s.requests),
                percent(recorded),
                s.burstiness
            ));
            // The middle of what the recorded share may truly be; few bad requests leave it unsure.
            let middle = s.limit / (s.k * s.env);
            let unsure = (middle - recorded).abs() > 0.02 * recorded;
            let why = if unsure { " (the middle of what these counts leave possible)" } else { "" };
            let env = if s.env > 1.0 { format!(" × {:.2} (the day's worst hour)", s.env) } else { String::new() };
            lines.push(if s.limit > s.floor {
                format!("limit: {}{env} × {}{why} = {}", s.k, percent(middle), percent(s.limit))
            } else {
                format!(
                    "limit: {}{env} × {} is below the floor of {}, which stands in",
                    s.k,
                    percent(recorded),
                    percent(s.floor)
                )
            });
        }
        Some(bound) => {
            lines.push(format!(
                "\"{times}× slower\" is counted as requests slower than {}: {} of the recorded ones are let pass; \
                 burstiness {:.2}",
                number(&s.signal, bound),
                percent(s.limit),
                s.burstiness
            ));
        }
    }
    if percent(s.limits.0) != percent(s.limits.1) {
        lines.push(format!(
            "the normal is known only so well: weighed against 14 limits from {} to {}",
            percent(s.limits.0),
            percent(s.limits.1)
        ));
    }
    lines
}

fn together(evidence: &[Evidence], scales: &[Scale], w: &WatchView) -> Vec<String> {
    let parts: Vec<(&Scale, f64)> =
        scales.iter().filter_map(|s| Some((s, evidence.iter().find(|e| e.signal == s.signal)?.proof?.ln_e))).collect();
    let Some(needed) = evidence.iter().find_map(|e| e.proof).map(|proof| proof.needed) else { return Vec::new() };
    if parts.is_empty() {
        return Vec::new();
    }
    let all = combine(&parts.iter().map(|(s, ln_e)| (s.weight, *ln_e)).collect::<Vec<_>>());
    let sum: Vec<String> =
        parts.iter().map(|(s, ln_e)| format!("{:.2} × {} ({})", s.weight, shown(*ln_e), s.signal)).collect();
    let enough = all >= needed.ln();
    vec![
        format!("E = {} = {}", sum.join(" + "), shown(all)),
        format!(
            "needed: {}, so {}",
            thousands(needed),
            match (enough, w.breach.is_some()) {
                (true, _) => "that is enough",
                (false, true) => "that alone was not enough: another limit broke",
                (false, false) => "that is not enough",
            }
        ),
    ]
}

/// E itself, from its logarithm.
fn shown(ln_e: f64) -> String {
    let e = libm::exp(ln_e.clamp(-300.0, 300.0));
    match e {
        e if e < 0.01 => "0.00".into(),
        e if e < 100.0 => format!("{e:.2}"),
        e => crate::words::numbers::large(e),
    }
}

// ---------------------------------------------------------------------- tick by tick

fn tick_rows(w: &WatchView, ticks: &[JudgedTick<'_>], by: Option<&By>) -> Vec<TickRow> {
    let skew_ms = w.clock.map_or(0, |clock| clock.skew_ms);
    let cut = w.began().shifted(skew_ms);
    let exp = |ln_e: f64| libm::exp(ln_e.clamp(0.0, 300.0));
    let row = |(i, tick): (usize, &JudgedTick<'_>)| {
        let said = &tick.judged.said;
        let counts = tick.cell.counts.value();
        TickRow {
            tick: said.tick,
            to: tick.cell.to,
            after_cut_over_s: tick.cell.to.since(cut).as_secs_f64(),
            requests: counts.map_or(0.0, |c| c.requests()),
            bad: counts.map_or(0.0, |c| c.bad()),
            one_in: said
                .signals
                .iter()
                .filter(|s| s.signal != Signal::Alive)
                .map(|s| (s.signal.to_string(), s.ln_e.map(exp)))
                .collect(),
            together: said.ln_e.map(exp),
            above: said.signals.iter().filter(|s| s.ticks_above > 0).count().try_into().unwrap_or(u32::MAX),
            decides: matches!(by, Some(By::Tick(at)) if *at == i),
        }
    };
    ticks.iter().enumerate().map(row).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sim::player::{Setup, account, play, trace};
    use crate::sim::traffic::{Event, Traffic};

    fn soak(traffic: Traffic, rule: RuleKind, seed: u64) -> (Account, Option<f64>) {
        let setup = Setup { rule, soak_s: 600, ..Setup::new(traffic) };
        let trace = trace(&setup, seed);
        let played = play(&setup, &trace);
        (account(&setup, &trace).unwrap(), played)
    }

    fn worse(times: f64) -> Traffic {
        Traffic::steady(50.0, 0.001).with(Event::Regression { ratio: times, from_s: 0.0 })
    }

    /// Played again over what was kept, the same tick decides: by either rule, whatever the traffic.
    #[test]
    fn the_same_tick_decides_when_it_is_played_again() {
        let mut breached = 0;
        for rule in [RuleKind::Evidence, RuleKind::Threshold, RuleKind::Either] {
            for (seed, times) in [(1, 1.0), (2, 3.0), (3, 10.0), (4, 100.0), (5, 1000.0)] {
                let (account, played) = soak(worse(times), rule, seed);
                let x = of(&account);
                assert!(x.notes.is_empty(), "{rule} {times}: {:?}", x.notes);
                let decides: Vec<&TickRow> = x.ticks.iter().filter(|row| row.decides).collect();
                assert_eq!(decides.len(), usize::from(played.is_some()), "{rule} {times}");
                breached += decides.len();
                // The engine acts in the turn that decides.
                if let (Some(row), Some(at)) = (decides.first(), played) {
                    assert!((row.after_cut_over_s - at).abs() < 16.0, "{} {at}", row.after_cut_over_s);
                }
            }
        }
        assert!(breached >= 8, "{breached} of these are breaches");
    }

    #[test]
    fn it_says_what_would_have_changed_it_and_what_others_do() {
        let (account, _) = soak(worse(10.0), RuleKind::Evidence, 3);
        let x = of(&account);
        assert!(x.verdict.starts_with("Tick "), "{}", x.verdict);
        let errors = &x.signals[0];
        assert!(errors.broke && errors.lines.iter().any(|l| l.starts_with("limit: 1.5 × ")), "{:?}", errors.lines);
        assert!(
            x.together[0].starts_with("E = 1.00 × ") && x.together[1].ends_with("that is enough"),
            "{:?}",
            x.together
        );
        let edge = x.what_if.iter().find(|w| w.change == "the limit that divides").unwrap();
        let divides: f64 =
            edge.text.split(['t', '×']).find_map(|part| part.trim().rsplit(' ').next()?.parse().ok()).unwrap();
        assert!((1.5..15.0).contains(&divides), "ten times the errors: {}", edge.text);
        let naive = x.rivals.iter().find(|r| r.name == "naive 1.5×").unwrap();
        assert_eq!(naive.rolls_back_s, Some(15.0), "one tick is enough for it");

        let (healthy, _) = soak(worse(1.0), RuleKind::Evidence, 1);
        let x = of(&healthy);
        assert!(x.verdict.starts_with("No tick brought enough evidence"), "{}", x.verdict);
        assert!(x.what_if.iter().all(|w| w.breached_s.is_none()), "{:?}", x.what_if);
    }

    /// What is left when the readings are gone says so, and invents nothing.
    #[test]
    fn without_readings_there_is_no_arithmetic() {
        let (whole, _) = soak(worse(10.0), RuleKind::Evidence, 3);
        let gone = Account { readings: Vec::new(), judged: Vec::new(), ..whole };
        let x = of(&gone);
        assert!(x.ticks.is_empty() && x.what_if.is_empty() && x.rivals.is_empty());
        assert!(x.notes[0].contains("kept no longer"), "{:?}", x.notes);
    }
}
