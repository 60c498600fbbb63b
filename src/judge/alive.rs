//! Dead is not blind: positive evidence that a slot does not serve.

use serde::{Deserialize, Serialize};

use super::threshold::RUN_MIN;
use crate::domain::plan::HealthReading;
use crate::domain::signal::{Signal, Targets};
use crate::domain::time::Timestamp;
use crate::domain::verdict::{Evidence, SignalState};

/// A slot's life by two witnesses: our own health check and Prometheus's `up`.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub struct Alive {
    checks: Witness,
    targets: Witness,
    good_checks: u32,
    last_bad: Option<String>,
}

#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
struct Witness {
    asked: u32,
    bad: u32,
    /// The unbroken row of bad answers at the end.
    run: u32,
    since: Option<Timestamp>,
    until: Option<Timestamp>,
    last_good: Option<bool>,
}

impl Witness {
    fn hear(&mut self, at: Timestamp, good: bool) {
        self.asked += 1;
        self.last_good = Some(good);
        self.until = Some(at);
        if good {
            (self.run, self.since) = (0, None);
        } else {
            self.bad += 1;
            self.run += 1;
            self.since.get_or_insert(at);
        }
    }

    fn down(&self, ticks: u32) -> bool {
        let long = self.until.zip(self.since).is_some_and(|(to, from)| to.since(from) >= RUN_MIN);
        self.run >= ticks && long
    }
}

impl Alive {
    pub fn checked(&mut self, at: Timestamp, reading: &HealthReading) {
        match reading {
            HealthReading::Good => {
                self.good_checks += 1;
                self.checks.hear(at, true);
            }
            HealthReading::Bad(why) => {
                self.last_bad = Some(why.clone());
                self.checks.hear(at, false);
            }
            // A check that could not be made says nothing of the slot.
            HealthReading::Unreadable(_) => {}
        }
    }

    /// `up` of the slot's targets; all down counts only while the same server reaches others.
    pub fn scraped(&mut self, at: Timestamp, targets: Targets) {
        if targets.up > 0 {
            self.targets.hear(at, true);
        } else if targets.down > 0 && targets.others_up > 0 {
            self.last_bad.get_or_insert_with(|| format!("Prometheus reaches none of its {} targets", targets.down));
            self.targets.hear(at, false);
        }
    }

    /// Down by either witness, for `ticks` answers over at least ten seconds.
    pub fn down(&self, ticks: u32) -> bool {
        // A good health check at the same time contradicts `up`: the slot serves, the scrape does not.
        self.checks.down(ticks) || (self.targets.down(ticks) && self.checks.last_good != Some(true))
    }

    /// The last word on the slot, the health check's before Prometheus's; `None` while nobody knows.
    pub fn good_now(&self) -> Option<bool> {
        self.checks.last_good.or(self.targets.last_good)
    }

    /// What of it anybody is shown between two ticks.
    pub fn shown(&self) -> (u32, u32, Option<bool>) {
        (self.checks.run, self.targets.run, self.good_now())
    }

    pub fn good_checks(&self) -> u32 {
        self.good_checks
    }

    /// Share of good health checks; `None` without any.
    pub fn good_share(&self) -> Option<f64> {
        (self.checks.asked > 0).then(|| 1.0 - f64::from(self.checks.bad) / f64::from(self.checks.asked))
    }

    pub fn since(&self) -> Option<Timestamp> {
        match (self.checks.since, self.targets.since) {
            (Some(a), Some(b)) => Some(a.min(b)),
            (a, b) => a.or(b),
        }
    }

    pub fn last_bad(&self) -> Option<&str> {
        self.last_bad.as_deref()
    }

    /// `requests` are checks here, `bad` the failed ones in the present run.
    pub fn evidence(&self, ticks: u32) -> Evidence {
        let witness = if self.checks.asked > 0 { &self.checks } else { &self.targets };
        Evidence {
            signal: Signal::Alive,
            value: witness.last_good.map(|good| if good { 1.0 } else { 0.0 }),
            baseline: None,
            limit: None,
            ratio: None,
            requests: f64::from(witness.asked),
            bad: f64::from(witness.bad),
            since: self.since(),
            ticks_above: self.checks.run.max(self.targets.run),
            ticks_needed: ticks,
            state: if self.down(ticks) {
                SignalState::Breached
            } else if witness.run > 0 {
                SignalState::Above
            } else if witness.asked == 0 {
                SignalState::NotJudged
            } else {
                SignalState::Fine
            },
            remark: if witness.run > 0 { self.last_bad.clone() } else { None },
            proof: None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(s: i64) -> Timestamp {
        Timestamp::from_millis(s * 1000)
    }
    fn bad() -> HealthReading {
        HealthReading::Bad("connection refused".into())
    }

    #[test]
    fn down_takes_three_bad_answers_over_ten_seconds() {
        let mut alive = Alive::default();
        for s in [0, 1, 2, 3, 9] {
            alive.checked(at(s), &bad());
            assert!(!alive.down(3), "at {s} s");
        }
        alive.checked(at(10), &bad());
        assert!(alive.down(3));
        alive.checked(at(11), &HealthReading::Good);
        assert!(!alive.down(3), "one good answer ends the run");
    }

    #[test]
    fn a_check_that_cannot_be_made_proves_nothing() {
        let mut alive = Alive::default();
        for s in 0..60 {
            alive.checked(at(s), &HealthReading::Unreadable("no such file".into()));
        }
        assert!(!alive.down(3));
        assert_eq!(alive.good_now(), None);
    }

    #[test]
    fn up_counts_only_while_other_targets_are_reached() {
        let (mut alone, mut among) = (Alive::default(), Alive::default());
        for s in 0..30 {
            alone.scraped(at(s), Targets { up: 0, down: 2, others_up: 0 });
            among.scraped(at(s), Targets { up: 0, down: 2, others_up: 5 });
        }
        assert!(!alone.down(3), "Prometheus may have lost its own network");
        assert!(among.down(3));
        among.checked(at(31), &HealthReading::Good);
        assert!(!among.down(3), "the slot answers us");
    }
}
