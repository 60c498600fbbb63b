//! What may become of a switch, said in a page: no phases, no ticks, only what was true of the world.

use super::world::{Facts, World};
use crate::domain::notice::NoticeReason;
use crate::domain::policy::Mode;
use crate::domain::verdict::{Outcome, Withheld};
use crate::domain::view::WatchView;

/// Even the plain rule at the coarsest tick used here has seen it by then.
const LONG_ENOUGH: u64 = 120_000;

/// Whether the outcome is one that this watch may have; `Err` says why not.
pub fn check(world: &World, view: &WatchView, facts: &Facts) -> Result<(), String> {
    let Some(outcome) = &view.outcome else { return Ok(()) };
    let site = &world.sites[facts.site];
    let bad = site.truth.ever_bad(&view.switch.new, facts.bad_from);
    let wrong = |why: &str| Err(format!("{}: {outcome}, but {why}", view.id));
    match outcome {
        Outcome::RolledBackRecovered
        | Outcome::RolledBackNotRecovered
        | Outcome::RolledBackUnseen
        | Outcome::RollbackFailed { .. }
            if !bad && !facts.ordered =>
        {
            wrong("the release was well and nobody ordered it")
        }
        Outcome::Withheld { why: Withheld::ObserveMode } if view.mode != Mode::Observe => wrong("the mode is another"),
        Outcome::Withheld { .. } if !bad && !facts.ordered => wrong("the release was well"),
        Outcome::Cancelled { .. } | Outcome::Superseded => Ok(()),
        Outcome::Unjudged { .. } | Outcome::Unconfirmed { .. } | Outcome::RollbackFailed { .. } if !facts.disturbed => {
            wrong("nothing disturbed it")
        }
        // A release that was grossly bad from early on, on a quiet day, does not pass.
        Outcome::Passed { .. } if !facts.disturbed => {
            if site.truth.grossly_bad_for(&view.switch.new, world.now) > LONG_ENOUGH {
                wrong("it was broken, for as long as it takes to see")
            } else {
                Ok(())
            }
        }
        _ => Ok(()),
    }
}

/// The notices that tell of an end; one of them must be there.
pub fn notices_of(outcome: &Outcome) -> Vec<NoticeReason> {
    vec![match outcome {
        Outcome::Passed { .. } => NoticeReason::Passed,
        Outcome::RolledBackRecovered => NoticeReason::RolledBackRecovered,
        Outcome::RolledBackNotRecovered => NoticeReason::RolledBackNotRecovered,
        Outcome::RolledBackUnseen => NoticeReason::RolledBackUnseen,
        Outcome::RollbackFailed { .. } => return vec![NoticeReason::RollbackFailed, NoticeReason::Stuck],
        Outcome::Withheld { .. } => NoticeReason::Withheld,
        Outcome::Unjudged { .. } => NoticeReason::Unjudged,
        Outcome::Unconfirmed { .. } => NoticeReason::Unconfirmed,
        Outcome::Superseded => NoticeReason::Superseded,
        Outcome::Cancelled { .. } => NoticeReason::Cancelled,
        Outcome::Healed { .. } => NoticeReason::Healed,
        Outcome::Drilled { .. } => NoticeReason::Drilled,
        Outcome::DrillFailed { .. } => NoticeReason::DrillFailed,
    }]
}
