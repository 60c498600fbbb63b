//! What a policy, and the rules of other tools, would have done with the switches of the past.

use serde::{Deserialize, Serialize};

use super::rivals::Rival;
use super::switches::Kind;
use crate::domain::account::Account;
use crate::domain::switch::{Slot, Version};
use crate::domain::time::Timestamp;
use crate::domain::verdict::Outcome;
use crate::words::numbers::duration;
use crate::words::rows::sentence;
use crate::words::safe::tame;

/// All of it.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Backtest {
    pub service: String,
    pub from: Timestamp,
    pub to: Timestamp,
    /// How the switches were found, in words.
    pub found_by: String,
    /// The names of the policies, in the order of each row's plays.
    pub policies: Vec<String>,
    pub rows: Vec<Row>,
    /// What a reader should know of how far this can be trusted.
    pub notes: Vec<String>,
    pub cost: Cost,
}

/// What it cost the server.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize)]
pub struct Cost {
    pub queries: u64,
    pub answers_bytes: u64,
    pub asked_ms: u64,
    /// Left to the server between the questions.
    pub rested_ms: u64,
}

/// What somebody says of a past switch.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Truth {
    Good,
    Bad,
}

/// What came after it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum After {
    /// It was moved back.
    Reverted {
        after_s: u64,
    },
    /// The next release came while it would still have been watched.
    Overtaken {
        after_s: u64,
    },
    Kept,
}

#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Row {
    pub at: Timestamp,
    pub kind: Kind,
    pub old: Slot,
    pub new: Slot,
    pub version: Option<Version>,
    pub truth: Option<Truth>,
    pub after: After,
    /// One for each policy.
    pub plays: Vec<Play>,
    pub rivals: Vec<RivalPlay>,
}

#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Play {
    pub would: Would,
    /// The normal it was judged by, in words; or why there was none.
    pub baseline: String,
    /// The smallest multiple of the normal error rate that this soak could show.
    pub detectable: Option<f64>,
    /// What it rests on.
    #[serde(skip)]
    pub account: Option<Box<Account>>,
}

/// What flipback would have done in mode auto.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Would {
    RollBack {
        after_s: f64,
        why: String,
    },
    /// Breached, and nothing moved: a page.
    Page {
        why: String,
    },
    Pass {
        by_checks_only: bool,
    },
    /// Neither good nor bad: a page at the soak's end.
    NoVerdict {
        why: String,
    },
    /// Healthy for as long as it was known.
    CutShort {
        after_s: f64,
    },
    NotPlayed {
        why: String,
    },
}

impl Would {
    /// It would have spoken up against the release.
    pub fn accuses(&self) -> bool {
        matches!(self, Would::RollBack { .. } | Would::Page { .. })
    }

    /// In a table's cell.
    pub fn word(&self) -> String {
        match self {
            Would::RollBack { after_s, .. } => format!("back after {}", duration(*after_s)),
            Would::Page { .. } => "page, nothing moved".into(),
            Would::Pass { by_checks_only: false } => "passed".into(),
            Would::Pass { by_checks_only: true } => "passed by checks".into(),
            Would::NoVerdict { .. } => "no verdict".into(),
            Would::CutShort { after_s } => format!("healthy for {}", duration(*after_s)),
            Would::NotPlayed { .. } => "not played".into(),
        }
    }

    pub fn why(&self) -> &str {
        match self {
            Would::RollBack { why, .. } | Would::Page { why } | Would::NoVerdict { why } | Would::NotPlayed { why } => {
                why
            }
            Would::Pass { .. } | Would::CutShort { .. } => "",
        }
    }

    /// By how a watch ended.
    pub fn of(outcome: &Outcome, account: Option<&Account>) -> Would {
        match outcome {
            Outcome::Passed { by_checks_only } => Would::Pass { by_checks_only: *by_checks_only },
            Outcome::Withheld { .. } | Outcome::RollbackFailed { .. } => {
                let broken = broken(account);
                let detail = outcome.detail().unwrap_or_default();
                Would::Page { why: if broken.is_empty() { detail } else { format!("{broken}: {detail}") } }
            }
            other => Would::NoVerdict { why: other.detail().unwrap_or_else(|| other.word().to_owned()) },
        }
    }
}

/// The signals that broke, as a sentence.
pub fn broken(account: Option<&Account>) -> String {
    use crate::domain::verdict::SignalState;
    let Some(breach) = account.and_then(|a| a.view.breach.as_ref()) else { return String::new() };
    let broken = breach.evidence.iter().filter(|e| e.state == SignalState::Breached).map(sentence);
    tame(&broken.collect::<Vec<_>>().join("; "), 300)
}

#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct RivalPlay {
    #[serde(serialize_with = "as_name")]
    pub rival: Rival,
    pub after_s: Option<f64>,
}

fn as_name<S: serde::Serializer>(rival: &Rival, s: S) -> Result<S::Ok, S::Error> {
    s.serialize_str(rival.name())
}

/// How a rule did over all that was played.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Tally {
    pub rule: String,
    pub played: usize,
    pub accused: usize,
    /// Of those that were bad: by what was said of them, or because they were moved back by hand.
    pub bad: usize,
    pub found: usize,
    /// Of the others.
    pub good: usize,
    pub wrongly: usize,
}

impl Row {
    /// By what was said, else by what people did with it.
    pub fn was_bad(&self) -> bool {
        match self.truth {
            Some(truth) => truth == Truth::Bad,
            None => matches!(self.after, After::Reverted { .. }),
        }
    }

    fn played(&self) -> bool {
        self.kind == Kind::Release && !self.plays.iter().all(|p| matches!(p.would, Would::NotPlayed { .. }))
    }
}

impl Backtest {
    /// Each policy, then each rival.
    pub fn tallies(&self) -> Vec<Tally> {
        let played: Vec<&Row> = self.rows.iter().filter(|row| row.played()).collect();
        let tally = |rule: String, accuses: &dyn Fn(&Row) -> bool| {
            let (bad, good): (Vec<&&Row>, Vec<&&Row>) = played.iter().partition(|row| row.was_bad());
            let (found, wrongly) =
                (bad.iter().filter(|row| accuses(row)).count(), good.iter().filter(|row| accuses(row)).count());
            let (played, bad, good) = (played.len(), bad.len(), good.len());
            Tally { rule, played, accused: found + wrongly, bad, found, good, wrongly }
        };
        let policies = self.policies.iter().enumerate().map(|(i, name)| {
            tally(name.clone(), &|row: &Row| row.plays.get(i).is_some_and(|play| play.would.accuses()))
        });
        let rivals = Rival::ALL.into_iter().map(|rival| {
            tally(rival.name().to_owned(), &|row: &Row| {
                row.rivals.iter().any(|r| r.rival == rival && r.after_s.is_some())
            })
        });
        policies.chain(rivals).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(kind: Kind, truth: Option<Truth>, after: After, would: Would, naive: Option<f64>) -> Row {
        let slot = |name: &str| Slot::try_new(name).unwrap();
        Row {
            at: Timestamp::from_millis(0),
            kind,
            old: slot("blue"),
            new: slot("green"),
            version: None,
            truth,
            after,
            plays: vec![Play { would, baseline: String::new(), detectable: None, account: None }],
            rivals: vec![RivalPlay { rival: Rival::Naive, after_s: naive }],
        }
    }

    #[test]
    fn each_rule_is_counted_against_what_is_known_of_the_releases() {
        let back = || Would::RollBack { after_s: 75.0, why: "errors".into() };
        let pass = || Would::Pass { by_checks_only: false };
        let reverted = After::Reverted { after_s: 600 };
        let not_played = Would::NotPlayed { why: "no readings".into() };
        let b = Backtest {
            service: "checkout".into(),
            from: Timestamp::from_millis(0),
            to: Timestamp::from_millis(1),
            found_by: "a list".into(),
            policies: vec!["this policy".into()],
            rows: vec![
                row(Kind::Release, None, reverted, back(), Some(15.0)),
                row(Kind::Revert, None, After::Kept, back(), Some(15.0)),
                row(Kind::Release, None, After::Kept, pass(), Some(30.0)),
                row(Kind::Release, Some(Truth::Bad), After::Kept, Would::Page { why: "both".into() }, None),
                // What is called good is good, whatever was done with it.
                row(Kind::Release, Some(Truth::Good), reverted, pass(), None),
                row(Kind::Release, None, After::Kept, not_played, Some(15.0)),
            ],
            notes: Vec::new(),
            cost: Cost::default(),
        };
        let tallies = b.tallies();
        let of = |i: usize| (tallies[i].played, tallies[i].found, tallies[i].bad, tallies[i].wrongly, tallies[i].good);
        assert_eq!(of(0), (4, 2, 2, 0, 2), "reverts and what was not played count for nobody");
        assert_eq!((tallies[1].rule.as_str(), of(1)), ("naive 1.5×", (4, 1, 2, 1, 2)));
        assert_eq!(back().word(), "back after 1m 15s");
    }
}
