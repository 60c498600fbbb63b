//! What a page's counters brought, scrape by scrape: each request once, over births, restarts and our own restarts.

use std::collections::{BTreeMap, VecDeque};

use serde::{Deserialize, Serialize};

use super::page::{Known, Page, Part};
use crate::domain::time::{Span, Timestamp};

/// Scrapes that are kept: a minute's recording and a late tick look no further back.
const KEPT_FOR: Span = Span::from_mins(15);
const KEPT_MAX: usize = 1_000;

/// The first scrape of a watch counts from the last one before it: two of those that are made while nobody watches.
const LEAD_MAX: Span = Span::from_secs(30);

/// Two starts of a process that are closer than this are one: some libraries round to whole seconds.
const SAME_START_S: f64 = 0.5;

/// What one scrape added to the counts of a slot.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub struct Sums {
    pub requests: f64,
    pub bad: f64,
    /// By `le`, as it is written.
    pub latency: BTreeMap<String, f64>,
}

impl Sums {
    fn add(&mut self, part: Part, le: Option<&str>, n: f64) {
        match part {
            Part::Requests => self.requests += n,
            Part::Errors => self.bad += n,
            Part::Latency => *self.latency.entry(le.unwrap_or_default().to_owned()).or_default() += n,
        }
    }

    pub fn plus(&mut self, other: &Sums) {
        self.requests += other.requests;
        self.bad += other.bad;
        for (le, n) in &other.latency {
            *self.latency.entry(le.clone()).or_default() += n;
        }
    }

    /// By which it is judged whether so much can have come at all.
    pub fn largest(&self) -> f64 {
        self.latency.values().copied().fold(self.requests, f64::max)
    }
}

/// Between two scrapes of a page.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Delta {
    pub after: Timestamp,
    pub at: Timestamp,
    /// Whether the page had requests to count at all: absent is not zero.
    pub present: bool,
    pub sure: Sums,
    /// Of series that were born, or fell, in a process that is as old as before: theirs, if so much can have come.
    pub unsure: Sums,
}

impl Delta {
    fn new(after: Timestamp, at: Timestamp, page: &Page, known: &Known) -> Delta {
        let counts = |series: &String| known.get(series).is_some_and(|p| p.parts.contains(&Part::Requests));
        let present = page.values.keys().any(counts);
        Delta { after, at, present, sure: Sums::default(), unsure: Sums::default() }
    }
}

/// The last scrape.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
struct Last {
    at: Timestamp,
    values: BTreeMap<String, f64>,
    started_s: Option<f64>,
}

/// What is kept of one page; it outlives the daemon.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct Store {
    /// When it was first tried to read the page: a process that began later counts from its first request.
    tried_since: Option<Timestamp>,
    last: Option<Last>,
    deltas: VecDeque<Delta>,
}

impl Store {
    /// A scrape is about to be made.
    pub fn trying(&mut self, at: Timestamp) {
        self.tried_since.get_or_insert(at);
    }

    /// The page as it was at an instant.
    pub fn take(&mut self, at: Timestamp, page: Page, known: &Known) {
        let Some(mut last) = self.last.take() else {
            let after = self.tried_since.unwrap_or(at);
            let born_since = page.started_s.is_some_and(|s| s > after.as_secs_f64());
            // A first look that counts nothing is no reading: nothing is known of the time before it.
            if born_since && after < at {
                let mut delta = Delta::new(after, at, &page, known);
                for (series, value) in &page.values {
                    count(&mut delta.sure, series, *value, known);
                }
                self.push(delta);
            }
            self.last = Some(Last { at, values: page.values, started_s: page.started_s });
            return;
        };
        if at <= last.at {
            self.last = Some(last);
            return;
        }
        let mut delta = Delta::new(last.at, at, &page, known);
        let restarted = match (last.started_s, page.started_s) {
            (Some(before), Some(now)) => now > before + SAME_START_S,
            (None, Some(now)) => now > last.at.as_secs_f64(),
            (_, None) => false,
        };
        if restarted {
            last.values.clear();
        }
        for (series, value) in &page.values {
            match last.values.get(series) {
                Some(before) if value >= before => count(&mut delta.sure, series, value - before, known),
                _ if restarted => count(&mut delta.sure, series, *value, known),
                Some(_) | None => count(&mut delta.unsure, series, *value, known),
            }
        }
        self.push(delta);
        // A series that is not on the page now may come back, and goes on where it was.
        last.values.extend(page.values);
        self.last = Some(Last { at, values: last.values, started_s: page.started_s.or(last.started_s) });
    }

    fn push(&mut self, delta: Delta) {
        let oldest = delta.at - KEPT_FOR;
        self.deltas.push_back(delta);
        while self.deltas.len() > KEPT_MAX || self.deltas.front().is_some_and(|d| d.at < oldest) {
            self.deltas.pop_front();
        }
    }

    /// Scrapes after `from`, up to `to`. One that began to count long before (nobody watched, or we were away) says
    /// nothing of that time.
    pub fn between(&self, from: Timestamp, to: Timestamp) -> impl Iterator<Item = &Delta> {
        self.deltas.iter().filter(move |d| d.at > from && d.at <= to && d.after + LEAD_MAX >= from)
    }

    pub fn last_at(&self) -> Option<Timestamp> {
        self.last.as_ref().map(|last| last.at)
    }

    /// Requests per second of what is kept.
    pub fn rate(&self) -> f64 {
        let (Some(first), Some(last)) = (self.deltas.front(), self.deltas.back()) else { return 0.0 };
        let seconds = last.at.since(first.after).as_secs_f64();
        let requests: f64 = self.deltas.iter().map(|d| d.sure.requests).sum();
        if seconds > 0.0 { requests / seconds } else { 0.0 }
    }
}

fn count(sums: &mut Sums, series: &str, n: f64, known: &Known) {
    let Some(place) = known.get(series) else { return };
    for part in &place.parts {
        sums.add(*part, place.le.as_deref(), n);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::edge::sources::scrape::page::Place;

    const T0: Timestamp = Timestamp::from_millis(1_000_000);

    fn at(s: u64) -> Timestamp {
        T0 + Span::from_secs(s)
    }

    fn known() -> Known {
        let place = |parts: &[Part]| Place { parts: parts.to_vec(), ..Place::default() };
        [("ok", place(&[Part::Requests])), ("bad", place(&[Part::Requests, Part::Errors]))]
            .into_iter()
            .map(|(k, v)| (k.to_owned(), v))
            .collect()
    }

    fn page(ok: f64, bad: Option<f64>, started_s: Option<f64>) -> Page {
        let mut values = BTreeMap::from([("ok".to_owned(), ok)]);
        values.extend(bad.map(|bad| ("bad".to_owned(), bad)));
        Page { values, started_s }
    }

    /// (requests, bad) that are sure, and requests that are not.
    fn all(store: &Store) -> (f64, f64, f64) {
        store
            .deltas
            .iter()
            .fold((0.0, 0.0, 0.0), |s, d| (s.0 + d.sure.requests, s.1 + d.sure.bad, s.2 + d.unsure.requests))
    }

    fn played(pages: &[(u64, Page)]) -> Store {
        let mut store = Store::default();
        store.trying(at(0));
        for (s, page) in pages {
            store.take(at(*s), page.clone(), &known());
        }
        store
    }

    #[test]
    fn what_was_there_before_the_first_look_is_nobodys() {
        let old = Some(900.0);
        assert_eq!(all(&played(&[(1, page(500.0, None, old)), (2, page(510.0, None, old))])), (10.0, 0.0, 0.0));
        // A process that began while we were already trying has no past that we missed.
        let young = Some(at(3).as_secs_f64());
        assert_eq!(all(&played(&[(5, page(20.0, Some(2.0), young))])), (22.0, 2.0, 0.0));
    }

    #[test]
    fn a_restart_is_seen_by_its_start_even_where_it_outgrew_its_past() {
        let (a, b) = (Some(900.0), Some(at(2).as_secs_f64()));
        let store = played(&[(1, page(50.0, Some(1.0), a)), (3, page(80.0, None, b)), (4, page(85.0, Some(3.0), b))]);
        assert_eq!(all(&store), (85.0, 0.0, 3.0), "30 more of the same process would have been 30");
    }

    #[test]
    fn without_a_start_a_fall_or_a_birth_is_not_sure() {
        let store = played(&[(1, page(50.0, None, None)), (2, page(7.0, None, None)), (3, page(9.0, Some(1.0), None))]);
        assert_eq!(all(&store), (2.0, 0.0, 8.0));
    }

    #[test]
    fn a_series_that_comes_back_goes_on() {
        let gone = Page { values: BTreeMap::new(), started_s: None };
        let store = played(&[(1, page(50.0, None, None)), (2, gone), (3, page(60.0, None, None))]);
        assert_eq!(all(&store), (10.0, 0.0, 0.0));
    }

    #[test]
    fn it_outlives_the_daemon() {
        let a = Some(900.0);
        let before = played(&[(1, page(50.0, None, a)), (2, page(60.0, None, a))]);
        let text = serde_json::to_string(&before).unwrap();
        let mut after: Store = serde_json::from_str(&text).unwrap();
        after.trying(at(40));
        after.take(at(41), page(100.0, None, a), &known());
        assert_eq!(all(&after), (50.0, 0.0, 0.0), "what came while we were away is in the next scrape");
        assert_eq!(after.between(at(2), at(41)).map(|d| d.sure.requests).sum::<f64>(), 40.0);
    }

    #[test]
    fn what_was_gathered_long_before_a_watch_is_none_of_its_counts() {
        let a = Some(900.0);
        // Read during a watch, and not again until the next one, an hour later.
        let store =
            played(&[(1, page(50.0, None, a)), (3600, page(90_000.0, None, a)), (3601, page(90_009.0, None, a))]);
        let counted = |from: u64| store.between(at(from), at(4000)).map(|d| d.sure.requests).sum::<f64>();
        assert_eq!(counted(3599), 9.0);
        assert_eq!(counted(1), 89_959.0, "a watch that was open all the while has lost nothing");
    }

    #[test]
    fn it_keeps_a_bound() {
        let mut store = Store::default();
        for s in 0..3000 {
            store.take(at(s), page(s as f64, None, None), &known());
        }
        assert!(store.deltas.len() <= KEPT_MAX && store.deltas.front().unwrap().at >= at(2999) - KEPT_FOR);
    }

    proptest::proptest! {
        /// Cut into ticks anywhere, the scrapes are each in one tick.
        #[test]
        fn ticks_telescope(steps in proptest::collection::vec(0u32..100, 2..60), cut in 0u64..60) {
            let mut n = 0.0;
            let pages: Vec<(u64, Page)> = steps.iter().zip(1u64..).map(|(step, s)| {
                n += f64::from(*step);
                (s, page(n, None, Some(1.0)))
            }).collect();
            let store = played(&pages);
            let sum = |from, to| store.between(from, to).map(|d: &Delta| d.sure.requests).sum::<f64>();
            let end = at(1000);
            proptest::prop_assert_eq!(sum(at(0), at(cut)) + sum(at(cut), end), sum(at(0), end));
            proptest::prop_assert_eq!(sum(at(0), end), n - f64::from(steps[0]));
        }
    }
}
