//! Loop breaker, quarantine and fleet brake: what was moved automatically, and whether more may be.

use std::collections::VecDeque;

use serde::{Deserialize, Serialize};

use crate::domain::brakes::{Brake, Brakes};
use crate::domain::switch::{Announcement, ServiceName, SwitchId, Version};
use crate::domain::time::{Span, Timestamp};
use crate::planted::{self, Bug};

/// Debits that are kept at most. The fleet brake lets through far fewer in any of its spans; more than this
/// is a configuration that does not want brakes.
const DEBITS_MAX: usize = 10_000;

/// The book of automatic rollbacks: part of the engine's state, so it outlives the process.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub(super) struct Book {
    limits: Brakes,
    debits: VecDeque<Debit>,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
struct Debit {
    at: Timestamp,
    switch: SwitchId,
    service: ServiceName,
    version: Option<Version>,
}

impl Book {
    pub fn set_limits(&mut self, limits: Brakes) {
        self.limits = limits;
    }

    /// Why another automatic rollback must not begin now; `None`: it may.
    pub fn refuses(&self, now: Timestamp, a: &Announcement) -> Option<String> {
        if let Some(why) = self.quarantine(now, a).filter(|_| !planted::has(Bug::NoQuarantine)) {
            return Some(why);
        }
        let of_service: Vec<&Debit> =
            self.recent(now, self.limits.per_service).filter(|d| d.service == a.service).collect();
        if of_service.len() >= self.limits.per_service.most as usize && !planted::has(Bug::NoLoopBreaker) {
            return Some(format!(
                "the loop breaker is open: {} was rolled back {} (at most {})",
                a.service,
                list(&of_service),
                self.limits.per_service
            ));
        }
        let all: Vec<&Debit> = self.recent(now, self.limits.fleet).collect();
        if all.len() >= self.limits.fleet.most as usize && !planted::has(Bug::NoFleetBrake) {
            return Some(format!(
                "the fleet brake is closed: {} rollbacks already, {} (at most {} over all services); look for a common cause",
                all.len(),
                list(&all),
                self.limits.fleet
            ));
        }
        None
    }

    /// Why this version needs a person, whatever the soak shows.
    pub fn quarantine(&self, now: Timestamp, a: &Announcement) -> Option<String> {
        let version = a.version.as_ref()?;
        let same = |d: &&Debit| d.service == a.service && d.version.as_ref() == Some(version);
        let found: Vec<&Debit> = self.recent(now, self.limits.per_version).filter(same).collect();
        (found.len() >= self.limits.per_version.most as usize).then(|| {
            format!("{version} is in quarantine: rolled back {} (at most {})", list(&found), self.limits.per_version)
        })
    }

    /// An automatic rollback begins; in the same transaction as its cause.
    pub fn debit(&mut self, now: Timestamp, switch: &SwitchId, a: &Announcement) {
        if planted::has(Bug::NoDebit) {
            return;
        }
        let longest = [self.limits.per_service, self.limits.fleet, self.limits.per_version].map(|b| b.within);
        let longest = longest.into_iter().fold(Span::ZERO, Span::max);
        self.debits.retain(|d| now.since(d.at) < longest);
        if self.debits.len() >= DEBITS_MAX {
            self.debits.pop_front();
        }
        self.debits.push_back(Debit {
            at: now,
            switch: switch.clone(),
            service: a.service.clone(),
            version: a.version.clone(),
        });
    }

    fn recent(&self, now: Timestamp, brake: Brake) -> impl Iterator<Item = &Debit> {
        self.debits.iter().filter(move |d| now.since(d.at) < brake.within)
    }

    #[cfg(test)]
    pub fn forget(&mut self) {
        self.debits.clear();
    }
}

/// `at 03:12:05 (checkout-4), at …`, the last three.
fn list(debits: &[&Debit]) -> String {
    let shown = &debits[debits.len().saturating_sub(3)..];
    let all: Vec<String> = shown.iter().map(|d| format!("at {} ({})", d.at, d.switch)).collect();
    all.join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::timelines::announcement;

    fn at(s: u64) -> Timestamp {
        Timestamp::from_millis(1_800_000_000_000) + Span::from_secs(s)
    }

    fn of(service: &str, version: &str) -> Announcement {
        Announcement { service: ServiceName::try_new(service).unwrap(), ..announcement("blue", "green", version) }
    }

    fn id(n: u32) -> SwitchId {
        SwitchId::try_new(format!("checkout-{n}")).unwrap()
    }

    #[test]
    fn one_per_service_within_half_an_hour() {
        let mut book = Book::default();
        let a = of("checkout", "v2");
        assert_eq!(book.refuses(at(0), &a), None);
        book.debit(at(0), &id(1), &a);
        let why = book.refuses(at(1799), &of("checkout", "v3")).unwrap();
        assert!(why.contains("loop breaker") && why.contains("checkout-1"), "{why}");
        assert_eq!(book.refuses(at(1799), &of("search", "v3")), None);
        assert_eq!(book.refuses(at(1800), &of("checkout", "v3")), None);
    }

    #[test]
    fn three_over_all_services_within_ten_minutes() {
        let mut book = Book::default();
        for (n, service) in [(1, "a"), (2, "b"), (3, "c")] {
            assert_eq!(book.refuses(at(u64::from(n)), &of(service, "v2")), None);
            book.debit(at(u64::from(n)), &id(n), &of(service, "v2"));
        }
        assert!(book.refuses(at(600), &of("d", "v2")).unwrap().contains("fleet brake"));
        assert_eq!(book.refuses(at(601), &of("d", "v2")), None);
    }

    #[test]
    fn a_version_is_in_quarantine_after_two_in_a_day() {
        let mut book = Book::default();
        let a = of("checkout", "v2");
        book.debit(at(0), &id(1), &a);
        book.debit(at(7200), &id(2), &a);
        assert!(book.refuses(at(80_000), &a).unwrap().contains("quarantine"));
        assert_eq!(book.refuses(at(80_000), &of("checkout", "v3")), None, "another version is another matter");
        assert_eq!(book.refuses(at(86_400), &a), None);
        let unnamed = Announcement { version: None, ..a };
        assert_eq!(book.quarantine(at(8000), &unnamed), None, "what has no name cannot be known again");
    }

    #[test]
    fn a_clock_that_goes_back_frees_nobody() {
        let mut book = Book::default();
        let a = of("checkout", "v2");
        book.debit(at(5000), &id(1), &a);
        assert!(book.refuses(at(0), &a).is_some());
    }
}
