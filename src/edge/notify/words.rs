//! What each kind of notice says: its word in the subject, its headline, what explains it, what to do next.

use crate::domain::notice::{Notice, NoticeReason};
use crate::domain::policy::AskDefault;
use crate::domain::switch::Kind;
use crate::domain::verdict::{Outcome, Withheld};
use crate::domain::view::WatchView;

/// The outcome in capitals: it sorts, and it is what the lock screen shows.
pub(super) fn status(notice: &Notice) -> &'static str {
    match notice.reason {
        NoticeReason::Opened => "WATCHING",
        NoticeReason::Withheld if notice.watch.outcome == Some(Outcome::Withheld { why: Withheld::ObserveMode }) => {
            "WOULD HAVE ROLLED BACK"
        }
        NoticeReason::Withheld if braked(&notice.watch) => "HELD BACK BY A BRAKE",
        NoticeReason::BreachedActing => "ROLLING BACK",
        NoticeReason::OrderedActing => "ROLLING BACK",
        NoticeReason::ApprovalWanted => "APPROVE?",
        NoticeReason::Withheld => "NOT ROLLED BACK",
        NoticeReason::RolledBackRecovered => "ROLLED BACK",
        NoticeReason::RolledBackNotRecovered => "ROLLED BACK, STILL BAD",
        NoticeReason::RolledBackUnseen => "ROLLED BACK, UNSEEN",
        NoticeReason::RollbackFailed => "ROLLBACK FAILED",
        NoticeReason::Healed => "HEALED",
        NoticeReason::Drilled => "DRILL PASSED",
        NoticeReason::DrillFailed => "DRILL FAILED",
        NoticeReason::AfterPassedFailed => "PASSED, NOT FINISHED",
        NoticeReason::Paused => "PAUSED",
        NoticeReason::Stuck => "STUCK",
        NoticeReason::Drift => "UNDONE",
        NoticeReason::Quarantined => "QUARANTINE",
        NoticeReason::Blind => "BLIND",
        NoticeReason::SeesAgain => "SEES AGAIN",
        NoticeReason::LittleBaseline => "LITTLE BASELINE",
        NoticeReason::Thin => "THIN TRAFFIC",
        NoticeReason::OldEndsEarly => "NO WAY BACK SOON",
        NoticeReason::TrafficLost => "TRAFFIC LOST",
        NoticeReason::Unconfirmed => "UNCONFIRMED",
        NoticeReason::Unjudged => "UNJUDGED",
        NoticeReason::Superseded => "SUPERSEDED",
        NoticeReason::Cancelled => "CANCELLED",
        NoticeReason::Passed => "PASSED",
    }
}

pub(super) fn headline(notice: &Notice) -> String {
    let w = &notice.watch;
    let old = &w.back_to;
    // A slot that has traffic, or a flag's variation.
    let (new, back, it, on) = match &w.switch.kind {
        Kind::Traffic => (w.switch.new.to_string(), "the traffic back".to_owned(), "traffic", "on"),
        Kind::Flag(flag) => (format!("{flag} = {}", w.switch.new), format!("flag {flag} back"), "flag", "at"),
    };
    match notice.reason {
        NoticeReason::BreachedActing if !w.remedies.is_empty() => {
            let first = w.remedies.join(", then ");
            format!("{new} is broken; flipback tries {first} now, and moves {back} to {old} if that does not help.")
        }
        NoticeReason::BreachedActing => format!("{new} is broken; flipback is moving {back} to {old} now."),
        NoticeReason::Opened => format!("flipback watches {new} for {}.", w.soak + w.long),
        NoticeReason::OrderedActing => {
            format!("A person ordered it: flipback is moving {back} to {old} now.")
        }
        NoticeReason::ApprovalWanted => format!("{new} is broken. May flipback move {back} to {old}?"),
        NoticeReason::Withheld if w.breach.is_none() => {
            format!("Moving {back} to {old} was ordered, and flipback did NOT do it.")
        }
        NoticeReason::Withheld if w.outcome == Some(Outcome::Withheld { why: Withheld::ObserveMode }) => {
            format!("{new} is broken; flipback would have moved {back} to {old}, and only observes.")
        }
        NoticeReason::Withheld if braked(w) => {
            format!("{new} is broken, and a brake kept flipback from moving {back} to {old} by itself.")
        }
        NoticeReason::Withheld => format!("{new} is broken, and flipback did NOT move {back}."),
        NoticeReason::RolledBackRecovered if w.breach.is_none() => {
            format!("The {it} is back {on} {old} as ordered, which serves well.")
        }
        NoticeReason::RolledBackRecovered => {
            format!("{new} was broken; the {it} is back {on} {old}, which serves well.")
        }
        NoticeReason::RolledBackNotRecovered => {
            format!("The {it} is back {on} {old}, but it is not well there either.")
        }
        NoticeReason::RolledBackUnseen => {
            format!("The {it} was moved back to {old}, but no requests came that could show it.")
        }
        NoticeReason::RollbackFailed if w.breach.is_none() => {
            format!("Moving {back} to {old} was ordered, and it FAILED.")
        }
        NoticeReason::RollbackFailed => format!("{new} is broken, and moving {back} to {old} FAILED."),
        NoticeReason::Healed => {
            format!("{new} was broken; a remedy made it well, and the {it} stays {on} {new}.")
        }
        NoticeReason::Drilled => format!("The drill of {} went well.", w.switch.service),
        NoticeReason::DrillFailed if w.steps.is_empty() => {
            format!("The way back of {} does not work: a rollback now would FAIL.", w.switch.service)
        }
        NoticeReason::DrillFailed => format!("The drill of {} moved traffic and FAILED.", w.switch.service),
        NoticeReason::AfterPassedFailed => format!("{new} passed its soak, but what was to follow FAILED."),
        NoticeReason::Paused => format!("A person paused the watch: nobody judges {new} for now."),
        NoticeReason::Stuck => "A rollback step may or may not have been applied; a person must look.".into(),
        NoticeReason::Drift => {
            format!("flipback had moved {back} to {old}; the probe says that this was undone.")
        }
        NoticeReason::Quarantined => {
            "This version was rolled back too often already: flipback will watch it, and not move it again.".into()
        }
        NoticeReason::Blind => format!("flipback cannot see {new}: it will neither pass it nor roll it back."),
        NoticeReason::SeesAgain => format!("flipback sees {new} again."),
        NoticeReason::LittleBaseline => {
            "There is too little recorded normal: only absolute limits and health checks judge this switch.".into()
        }
        NoticeReason::Thin => "There is too little traffic to show a small regression within the soak.".into(),
        NoticeReason::OldEndsEarly => {
            format!("{old} will be gone before the soak of {new} is over: from then on nothing can be moved back.")
        }
        NoticeReason::TrafficLost => format!("{new} is alive but gets no requests."),
        NoticeReason::Unconfirmed => format!("The switch to {new} was announced, but the traffic did not move."),
        NoticeReason::Unjudged => format!("The soak of {new} ended without a verdict."),
        NoticeReason::Superseded => "A newer switch took this one's place before its soak was over.".into(),
        NoticeReason::Cancelled => "The watch was ended before its verdict.".into(),
        NoticeReason::Passed => format!("{new} passed its soak."),
    }
}

/// Which line of the story says why the notice came.
pub(super) fn explains(reason: NoticeReason, kind: &str) -> bool {
    match reason {
        NoticeReason::OrderedActing
        | NoticeReason::RolledBackRecovered
        | NoticeReason::RolledBackNotRecovered
        | NoticeReason::RolledBackUnseen
        | NoticeReason::RollbackFailed
        | NoticeReason::Stuck
        | NoticeReason::Withheld => kind == "ordered",
        NoticeReason::Healed => kind == "step_done",
        NoticeReason::Drilled | NoticeReason::DrillFailed => kind == "drill",
        NoticeReason::AfterPassedFailed => kind == "after_passed_failed",
        NoticeReason::Paused => kind == "paused",
        NoticeReason::Drift => kind == "drift",
        NoticeReason::Quarantined => kind == "quarantined",
        NoticeReason::Blind => kind == "blind",
        NoticeReason::SeesAgain => kind == "sees_again",
        NoticeReason::LittleBaseline => matches!(kind, "little_baseline" | "baseline"),
        NoticeReason::Thin => kind == "detectable",
        NoticeReason::OldEndsEarly => kind == "old_ends_early",
        NoticeReason::TrafficLost => kind == "traffic_lost",
        NoticeReason::Superseded => kind == "superseded",
        _ => false,
    }
}

pub(super) fn advice(notice: &Notice) -> String {
    let w = &notice.watch;
    let (old, new) = (&w.back_to, &w.switch.new);
    match notice.reason {
        NoticeReason::BreachedActing | NoticeReason::OrderedActing => {
            "nothing yet; if no result follows within minutes, look at it".into()
        }
        NoticeReason::ApprovalWanted => {
            let (until, without) = match &w.asked {
                Some(asked) => (
                    format!(" until {}", asked.until),
                    match asked.default {
                        AskDefault::Hold => "nothing is moved",
                        AskDefault::RollBack => "it is rolled back",
                    },
                ),
                None => (String::new(), "nothing is moved"),
            };
            format!("approve, or decline with flipback decline {}{until}; without an answer {without}", w.id)
        }
        NoticeReason::Withheld => withheld_advice(w),
        NoticeReason::Drift => {
            format!(
                "users may be on {new} again: look where the traffic is; a proxy that restarted has forgotten the change"
            )
        }
        NoticeReason::Quarantined => {
            "stop the deploys of this version, or order a rollback yourself when it breaks".into()
        }
        NoticeReason::RolledBackRecovered => format!("users are served by {old}; mend {new} before the next try"),
        NoticeReason::RolledBackNotRecovered => {
            format!("look at {old} and what both releases depend on: the switch may not be the cause")
        }
        NoticeReason::RolledBackUnseen => format!("check by hand that users reach {old}"),
        NoticeReason::RollbackFailed | NoticeReason::Stuck => {
            format!("users may still be on {new}: look where the traffic is and move it by hand")
        }
        NoticeReason::Healed => {
            format!("users are served by {new}; mend what the remedy took away before it is given back")
        }
        NoticeReason::Drilled => "nothing".into(),
        NoticeReason::DrillFailed if w.steps.is_empty() => {
            "mend it before the next release: until then nothing can be moved back".into()
        }
        NoticeReason::DrillFailed => {
            format!("look where the traffic is now, and move it to {new} by hand if it is not there")
        }
        NoticeReason::AfterPassedFailed => "do by hand what was left undone; the release itself is good".into(),
        NoticeReason::Paused => format!("nothing, if it was meant; otherwise: flipback resume {}", w.id),
        NoticeReason::Blind => {
            "see why there are no readings (Prometheus, the scrape, the selectors); health checks go on".into()
        }
        NoticeReason::OldEndsEarly => format!("keep {old} until the soak has ended, or take a shorter soak"),
        NoticeReason::SeesAgain => "nothing; the soak goes on, and what was missed is extended".into(),
        NoticeReason::LittleBaseline => "nothing, if the service is new; otherwise see what was recorded".into(),
        NoticeReason::Thin => {
            "nothing; health checks and larger regressions are watched, a longer soak shows smaller ones".into()
        }
        NoticeReason::TrafficLost => "see whether the proxy still sends requests there".into(),
        NoticeReason::Unconfirmed => "see whether the deploy really switched; announce again when it has".into(),
        NoticeReason::Unjudged => format!("judge {new} yourself: flipback could not, and says neither yes nor no"),
        NoticeReason::Opened | NoticeReason::Superseded | NoticeReason::Cancelled | NoticeReason::Passed => {
            "nothing".into()
        }
    }
}

/// The one command to run next.
pub(super) fn command(notice: &Notice) -> String {
    let w = &notice.watch;
    match notice.reason {
        NoticeReason::ApprovalWanted => format!("flipback approve {}", w.id),
        NoticeReason::Withheld => override_command(w).unwrap_or_else(|| format!("flipback show {}", w.id)),
        NoticeReason::Quarantined => format!("flipback rollback {} --why '...'", w.id),
        NoticeReason::LittleBaseline => format!("flipback baseline show {}", w.switch.service),
        NoticeReason::Blind => format!("flipback check --live {}", w.switch.service),
        NoticeReason::Paused => format!("flipback resume {}", w.id),
        NoticeReason::DrillFailed if w.steps.is_empty() => format!("flipback drill {}", w.switch.service),
        _ => format!("flipback show {}", w.id),
    }
}

/// Too many automatic rollbacks already: a person must look.
fn braked(w: &WatchView) -> bool {
    matches!(w.outcome, Some(Outcome::Withheld { why: Withheld::Brake { .. } }))
}

fn withheld_advice(w: &WatchView) -> String {
    let (old, new) = (&w.back_to, &w.switch.new);
    match (&w.outcome, override_command(w)) {
        (Some(Outcome::Withheld { why: Withheld::NoSafeTarget { .. } }), Some(command)) => {
            format!("make {old} serve again or mend {new}; when {old} is well: {command}")
        }
        (_, Some(command)) => {
            format!("decide now whether {new} stays; to move the traffic back all the same: {command}")
        }
        (_, None) => {
            format!("decide now whether {new} stays; flipback has no way back for it, it must be done by hand")
        }
    }
}

/// What moves the traffic back over a withheld rollback.
fn override_command(w: &WatchView) -> Option<String> {
    let order = format!("flipback rollback {} --why '...'", w.id);
    match &w.outcome {
        Some(Outcome::Withheld { why: Withheld::NoPlan }) => None,
        Some(Outcome::Withheld { why: Withheld::Disarmed }) => {
            Some(format!("flipback arm {}, then {order}", w.switch.service))
        }
        _ => Some(order),
    }
}
