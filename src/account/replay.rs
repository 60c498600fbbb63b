//! The rule once more over what was read: as it was, or as it would have been.

use crate::domain::account::Account;
use crate::domain::policy::Policy;
use crate::domain::signal::SlotCell;
use crate::domain::time::Timestamp;
use crate::judge::{Rule, Scale, Tick};

/// Ticks that are played again: a day of quarter minutes. What a longer soak shows after that changes no limit by which
/// it would have been caught earlier.
const TICKS_MAX: usize = 6_000;

/// What a watch was judged by, and every tick of it that is still known.
pub struct Replay<'a> {
    account: &'a Account,
    pub policy: &'a Policy,
    pub cells: Vec<&'a SlotCell>,
    /// On the ticks' clock.
    cut_over: Timestamp,
}

impl<'a> Replay<'a> {
    /// `None` where the policy was not kept, or no reading is left.
    pub fn of(account: &'a Account) -> Option<Replay<'a>> {
        let w = &account.view;
        let policy = w.policy.as_ref()?;
        let cells: Vec<&SlotCell> = account.ticks().iter().take(TICKS_MAX).map(|tick| tick.cell).collect();
        let cut_over = w.cut_over_at?.shifted(w.clock.map_or(0, |clock| clock.skew_ms));
        (!cells.is_empty()).then_some(Replay { account, policy, cells, cut_over })
    }

    pub fn seconds(&self, at: Timestamp) -> f64 {
        at.since(self.cut_over).as_secs_f64()
    }

    fn rule(&self, policy: &Policy) -> Rule {
        let mut rule = Rule::new(policy);
        match &self.account.view.baseline {
            Some(baseline) => rule.with_baseline(baseline),
            None => rule.without_baseline(),
        }
        rule.begin(self.cut_over);
        rule
    }

    fn take(&self, rule: &mut Rule, cell: &SlotCell) {
        let custom: Vec<_> = cell.custom.iter().map(|(name, r)| (name.clone(), r.value().copied())).collect();
        rule.tick(&Tick {
            from: cell.from,
            to: cell.to,
            since_cut_over: cell.to.since(self.cut_over),
            counts: cell.counts.value().copied(),
            latency: cell.latency.value(),
            custom: &custom,
        });
    }

    /// The first tick that would have been enough by this policy, as its place in `cells`.
    pub fn breached(&self, policy: &Policy) -> Option<usize> {
        let mut rule = self.rule(policy);
        self.cells.iter().position(|cell| {
            self.take(&mut rule, cell);
            rule.breached_since().is_some()
        })
    }

    /// What each signal was weighed by.
    pub fn scales(&self) -> Vec<Scale> {
        self.rule(self.policy).scales()
    }
}
