//! What a watch makes of readings: the new slot's and the old one's, lost traffic, blindness, the cut-over.

use super::watch::{Phase, Recovering, Turn, Watch};
use crate::domain::baseline::Baseline;
use crate::domain::counts::Counts;
use crate::domain::notice::NoticeReason;
use crate::domain::plan::ProbeReading;
use crate::domain::signal::{Observation, Reading, SlotCell};
use crate::domain::time::{Span, Timestamp};
use crate::domain::verdict::Outcome;
use crate::judge::Tick;
use crate::planted::{self, Bug};

/// A slot that was promised traffic and gets none for this long has lost it.
const TRAFFIC_LOST_AFTER: Span = Span::from_secs(60);

/// After a pause at least so long is looked on.
const LOOK_ON_MIN: Span = Span::from_secs(30);

/// Traffic is only missed where the baseline would have brought this many requests meanwhile.
const TRAFFIC_MISSED_MIN: f64 = 30.0;

impl Recovering {
    /// One tick of the slot that is to be well.
    fn take(&mut self, cell: &SlotCell, counts: &Counts) {
        self.rule.tick(&Tick {
            from: cell.from,
            to: cell.to,
            // The release is warm: it is judged in full from the first tick.
            since_cut_over: Span::from_millis(u64::MAX),
            counts: Some(*counts),
            latency: cell.latency.value(),
            custom: &[],
        });
        let seen = &mut self.seen;
        seen.above = self.hurt.iter().filter(|signal| self.rule.is_above(signal)).cloned().collect();
        if !seen.above.is_empty() {
            (seen.ticks_fine, seen.requests) = (0, 0.0);
            seen.error_rate = counts.rate().or(seen.error_rate);
        } else if counts.requests() > 0.0 {
            let bad_before = seen.error_rate.unwrap_or(0.0) * seen.requests;
            seen.ticks_fine += 1;
            seen.requests += counts.requests();
            seen.error_rate = Some((bad_before + counts.bad()) / seen.requests);
        }
    }
}

impl Watch {
    pub(super) fn on_new_slot(&mut self, observation: &Observation, turn: &mut Turn<'_>) {
        match observation {
            Observation::Cell(cell) => self.on_new_cell(cell, turn),
            Observation::Empty { targets, .. } => {
                self.hear_targets(targets, true, turn.now);
                self.sight.empty(turn.now, self.tick.max(self.clock.scrape_interval.unwrap_or_default()));
                self.judge_alive(turn);
            }
            Observation::Absent { targets, .. } => {
                self.hear_targets(targets, true, turn.now);
                self.new_cursor.rate = None;
                self.sight.missing("no series of the new slot");
                self.judge_alive(turn);
            }
            Observation::Failed(failure) => {
                self.sight.missing(&failure.to_string());
                if planted::has(Bug::BreachOnAbsence) && matches!(self.phase, Phase::Soaking { .. }) {
                    self.on_breach(turn.now, turn);
                }
            }
        }
    }

    pub(super) fn on_new_cell(&mut self, cell: &SlotCell, turn: &mut Turn<'_>) {
        for remark in &cell.remarks {
            self.record(turn.now, "remark", remark.clone());
        }
        self.hear_targets(&cell.targets, true, turn.now);
        let Some(counts) = cell.counts.value() else {
            let why = match &cell.counts {
                Reading::Failed(failure) => failure.to_string(),
                Reading::Absent | Reading::Value(_) => "no series of the new slot".to_owned(),
            };
            self.sight.missing(&why);
            return self.judge_alive(turn);
        };
        self.look_on_after_a_pause(cell.to.since(cell.from), turn);
        self.new_cursor.advance(cell.to, counts.requests());
        if self.paused.is_some() {
            return; // neither for nor against it
        }
        self.ticks += 1;
        let longest = self.tick.max(self.clock.scrape_interval.unwrap_or_default()).times(2);
        if self.sight.saw(turn.now, cell.to.since(cell.from).min(longest)) {
            self.record(turn.now, "sees_again", "readings are back; the counts of the gap are in".into());
            self.notify(NoticeReason::SeesAgain, turn);
        }
        if self.heal_by(cell, counts, turn) {
            return;
        }
        self.note_traffic(counts.requests(), cell, turn);
        let cut_over = self.cut_over_at.unwrap_or(self.opened_at).shifted(self.clock.skew_ms);
        let custom: Vec<_> = cell.custom.iter().map(|(name, r)| (name.clone(), r.value().copied())).collect();
        self.rule.tick(&Tick {
            from: cell.from,
            to: cell.to,
            since_cut_over: cell.to.since(cut_over),
            counts: Some(*counts),
            latency: cell.latency.value(),
            custom: &custom,
        });
        self.confirm_by_traffic(turn);
        self.judge_alive(turn);
        self.judge(turn);
        if matches!(self.phase, Phase::Soaking { .. }) {
            self.finish_soak(turn);
        }
    }

    /// The process was away or the machine slept, and the soak's time ran out meanwhile: what the gap held
    /// came as one tick, so a breach that still holds gets the ticks to show it.
    fn look_on_after_a_pause(&mut self, covered: Span, turn: &mut Turn<'_>) {
        let ticks = u64::from(self.service.policy.limits.ticks) + 2;
        let longer = turn.now + self.tick.times(ticks).max(LOOK_ON_MIN);
        let Phase::Soaking { ends_at, gives_up_at, .. } = self.phase else { return };
        if covered > self.tick.times(ticks) && gives_up_at < longer {
            self.phase = Phase::Soaking { ends_at, gives_up_at: longer, extended: true };
            self.record(turn.now, "extended", format!("after a pause of {covered}: goes on until {longer}"));
        }
    }

    pub(super) fn on_old_slot(&mut self, observation: &Observation, turn: &mut Turn<'_>) {
        match observation {
            Observation::Cell(cell) => {
                self.hear_targets(&cell.targets, false, turn.now);
                let Some(counts) = cell.counts.value() else { return };
                self.old_cursor.advance(cell.to, counts.requests());
                if let Phase::Recovering(recovering) = &mut self.phase {
                    if recovering.healing.is_none() {
                        recovering.take(cell, counts);
                        self.recovery = Some(recovering.seen.clone());
                        self.check_recovery(turn);
                    }
                } else if self.paused.is_none() {
                    self.control.tick(&Tick {
                        from: cell.from,
                        to: cell.to,
                        since_cut_over: cell.to.since(self.cut_over_at.unwrap_or(self.opened_at)),
                        counts: Some(*counts),
                        latency: cell.latency.value(),
                        custom: &[],
                    });
                    self.confirm_by_traffic(turn);
                }
            }
            Observation::Empty { targets, .. } | Observation::Absent { targets, .. } => {
                self.hear_targets(targets, false, turn.now);
            }
            Observation::Failed(_) => {}
        }
    }

    /// True where a remedy was applied: what the new slot serves since then says whether it helped.
    fn heal_by(&mut self, cell: &SlotCell, counts: &Counts, turn: &mut Turn<'_>) -> bool {
        let Phase::Recovering(recovering) = &mut self.phase else { return false };
        if recovering.healing.is_none() {
            return false;
        }
        recovering.take(cell, counts);
        self.recovery = Some(recovering.seen.clone());
        self.check_recovery(turn);
        true
    }

    pub(super) fn hear_targets(
        &mut self,
        targets: &Reading<crate::domain::signal::Targets>,
        of_new: bool,
        now: Timestamp,
    ) {
        // A superseded switch goes back to another slot than the one it came from.
        let another =
            !of_new && !matches!(self.phase, Phase::Recovering(_)) && *self.way_back() != self.announcement.old;
        if let (Reading::Value(targets), false) = (targets, another) {
            (if of_new { &mut self.new_alive } else { &mut self.old_alive }).scraped(now, *targets);
        }
    }

    pub(super) fn note_traffic(&mut self, requests: f64, cell: &SlotCell, turn: &mut Turn<'_>) {
        if requests > 0.0 || !matches!(self.phase, Phase::Soaking { .. }) {
            self.idle = Span::ZERO;
            if requests > 0.0 {
                self.idle_told = false;
            }
            return;
        }
        self.idle = self.idle + cell.to.since(cell.from);
        let missed = self.baseline().map_or(0.0, Baseline::rate) * self.share().fraction() * self.idle.as_secs_f64();
        if self.idle >= TRAFFIC_LOST_AFTER && missed >= TRAFFIC_MISSED_MIN && !self.idle_told {
            self.idle_told = true;
            let text = format!(
                "{} has had no request for {} where about {missed:.0} were to be expected",
                self.announcement.new, self.idle
            );
            self.record(turn.now, "traffic_lost", text);
            self.notify(NoticeReason::TrafficLost, turn);
        }
    }

    pub(super) fn check_sight(&mut self, turn: &mut Turn<'_>) {
        let step = self.tick.max(self.clock.scrape_interval.unwrap_or_default());
        if self.paused.is_none()
            && matches!(self.phase, Phase::CuttingOver { .. } | Phase::Soaking { .. } | Phase::Asking { .. })
            && let Some(why) = self.sight.goes_blind(turn.now, step)
        {
            self.record(turn.now, "blind", why);
            self.notify(NoticeReason::Blind, turn);
        }
    }

    // ------------------------------------------------------------------ cut-over

    pub(super) fn confirm_by_traffic(&mut self, turn: &mut Turn<'_>) {
        if !matches!(self.phase, Phase::CuttingOver { .. }) || !self.tells_slots_apart() {
            return;
        }
        let (Some(new), Some(old)) = (self.new_cursor.rate, self.old_cursor.rate) else { return };
        if new > 0.0 && new / (new + old) > self.share().fraction() / 2.0 {
            let share = 100.0 * new / (new + old);
            let text = format!("{share:.0} % of the requests go to {}", self.announcement.new);
            // It moved within the tick that shows it, not when the answer came; no earlier than was told.
            let tick_began = (self.new_cursor.from - self.tick).shifted(-self.clock.skew_ms);
            self.confirm(tick_began.max(self.opened_at).min(turn.now), &text, turn);
        }
    }

    pub(super) fn confirm(&mut self, at: Timestamp, how: &str, turn: &mut Turn<'_>) {
        let cut_over = *self.cut_over_at.get_or_insert(at);
        let policy = &self.service.policy;
        let whole = policy.phases().whole();
        let ends_at = cut_over + whole + self.longer;
        // A switch announced late has been seen only since then: its soak may take as long as any.
        let gives_up_at = ends_at.max(self.opened_at + whole + self.longer) + policy.extend_max;
        self.phase = Phase::Soaking { ends_at, gives_up_at, extended: false };
        self.record(turn.now, "cut_over", format!("confirmed: {how}; the soak ends at {ends_at}"));
        let on_their_clock = cut_over.shifted(self.clock.skew_ms);
        self.rule.begin(on_their_clock);
        self.begin_controls(on_their_clock);
    }

    /// The time to confirm is over.
    pub(super) fn settle_cut_over(&mut self, turn: &mut Turn<'_>) {
        let within = self.service.policy.confirm_within;
        let new = self.new_cursor.rate.unwrap_or(0.0);
        let half = self.share().fraction() / 2.0;
        let old_keeps = self.old_cursor.rate.is_some_and(|old| old > 0.0 && new / (new + old) < half);
        // What shows the active slot says nothing of a part of the traffic.
        let probe = self.last_probe.as_ref().filter(|_| self.share().is_all());
        match probe {
            Some(ProbeReading::Shows(line)) => {
                let why = format!("the probe still shows {line:?} after {within}, not {}", self.announcement.new);
                self.end(Outcome::Unconfirmed { why }, NoticeReason::Unconfirmed, turn);
            }
            Some(ProbeReading::Unreadable(_)) | None if old_keeps && self.tells_slots_apart() => {
                let why = format!("{} still has the traffic after {within}", self.announcement.old);
                self.end(Outcome::Unconfirmed { why }, NoticeReason::Unconfirmed, turn);
            }
            Some(ProbeReading::Unreadable(why)) => {
                let text = format!("not seen (probe unreadable: {why}); taken from the announcement");
                self.confirm(self.opened_at, &text, turn);
            }
            None => self.confirm(self.opened_at, "not seen, no traffic to tell; taken from the announcement", turn),
        }
    }
}
