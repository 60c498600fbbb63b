//! The plain rule by itself: runs of ticks, floors, windows, the warm-up.

use crate::domain::policy::{Bound, CustomLimit};
use crate::domain::verdict::SignalState;
use crate::judge::Tick;
use crate::judge::threshold::Threshold;

use super::*;

/// One rule and its clock: ticks of `tick_s` seconds since the cut-over.
struct Table {
    rule: Threshold,
    at_s: u64,
    tick_s: u64,
}

fn table(tick_s: u64, base: Option<f64>, change: impl FnOnce(&mut Limits)) -> Table {
    let mut limits = limits_default();
    change(&mut limits);
    let warm_up = WarmUp { errors: Span::from_secs(30), latency: Span::from_secs(60) };
    let mut rule = Threshold::new(limits, warm_up);
    if let Some(rate) = base {
        let mut baseline = good_baseline();
        baseline.counts = Counts::try_new(1_000_000.0, (1_000_000.0 * rate).round()).unwrap();
        rule.with_baseline(&baseline);
    }
    Table { rule, at_s: 0, tick_s }
}

impl Table {
    fn tick(&mut self, requests: f64, bad: f64) -> bool {
        self.full_tick(Some((requests, bad)), None, &[])
    }

    fn full_tick(
        &mut self,
        counts: Option<(f64, f64)>,
        latency: Option<&Buckets>,
        custom: &[(String, Option<f64>)],
    ) -> bool {
        let from = BEGAN + Span::from_secs(self.at_s);
        self.at_s += self.tick_s;
        let to = BEGAN + Span::from_secs(self.at_s);
        let counts = counts.map(|(n, x)| Counts::try_new(n, x).unwrap());
        self.rule.tick(&Tick { from, to, since_cut_over: to.since(BEGAN), counts, latency, custom });
        self.rule.breached_since().is_some()
    }

    /// Ticks until the breach; the second at which it came, of at most `limit_s`.
    fn until_breach(&mut self, requests: f64, bad: f64, limit_s: u64) -> Option<u64> {
        while self.at_s < limit_s {
            if self.tick(requests, bad) {
                return Some(self.at_s);
            }
        }
        None
    }

    fn warm(mut self) -> Table {
        while self.at_s < 30 {
            self.tick(100.0, 0.0);
        }
        self
    }
}

#[test]
fn three_ticks_over_ten_seconds_break_a_limit() {
    for (tick_s, at) in [(1, 40), (2, 40), (5, 45), (15, 75)] {
        let mut t = table(tick_s, Some(0.001), |_| {}).warm();
        assert_eq!(t.until_breach(1000.0, 4.0, 300), Some(at), "ticks of {tick_s} s");
    }
    let mut t = table(5, Some(0.001), |l| l.ticks = 5).warm();
    assert_eq!(t.until_breach(1000.0, 4.0, 300), Some(55), "five ticks where five are asked for");
}

#[test]
fn a_tick_below_the_limit_ends_the_run_and_an_empty_one_does_not() {
    let mut t = table(5, Some(0.001), |_| {}).warm();
    assert!(![4.0, 4.0, 1.0, 4.0, 4.0].into_iter().any(|bad| t.tick(1000.0, bad)));
    assert!(!t.tick(0.0, 0.0), "no requests: neither breaks nor extends");
    assert!(t.tick(1000.0, 4.0));
}

#[test]
fn ratio_floor_and_events_bound_what_counts() {
    // 1.5 × 1 % is the limit; exactly on it is not above it.
    let mut t = table(5, Some(0.01), |_| {}).warm();
    assert_eq!(t.until_breach(1000.0, 15.0, 300), None);
    assert_eq!(t.until_breach(1000.0, 16.0, 600), Some(315));
    // Ten times a normal of 0.001 % is still below the floor of 0.1 %.
    let mut t = table(5, Some(0.00001), |_| {}).warm();
    assert_eq!(t.until_breach(10_000.0, 9.0, 300), None);
    assert_eq!(t.until_breach(10_000.0, 11.0, 600), Some(315));
    // One error in ten requests is 10 %, but five bad ones are needed.
    let mut t = table(5, Some(0.001), |_| {}).warm();
    assert_eq!(t.until_breach(10.0, 1.0, 300), Some(55));
}

#[test]
fn the_warm_up_knows_the_absolute_limit_only() {
    let mut t = table(5, Some(0.001), |_| {});
    assert_eq!(t.until_breach(1000.0, 40.0, 120), Some(45), "4 % waits for the warm-up's end");
    let mut t = table(5, Some(0.001), |_| {});
    assert_eq!(t.until_breach(1000.0, 60.0, 120), Some(15), "6 % does not");
}

#[test]
fn five_percent_over_thirty_seconds_breaks_without_a_run() {
    let mut t = table(5, Some(0.001), |l| l.ratio = Ratio::try_new(1000.0).unwrap());
    // Alternating, so that no run is ever three ticks long: 6 % on average.
    let at = (0..12).find(|i| t.tick(1000.0, if i % 2 == 0 { 110.0 } else { 10.0 })).map(|_| t.at_s);
    assert_eq!(at, Some(30));
    assert!(t.rule.evidence()[0].remark.as_deref().unwrap().contains("over 30s"));
    let mut t = table(5, Some(0.001), |l| l.ratio = Ratio::try_new(1000.0).unwrap());
    assert!(!(0..60).any(|i| t.tick(1000.0, if i % 2 == 0 { 90.0 } else { 0.0 })), "4.5 % is below it");
}

#[test]
fn a_normal_above_the_absolute_limit_takes_its_place() {
    let mut t = table(5, Some(0.08), |_| {});
    assert_eq!(t.until_breach(1000.0, 90.0, 600), None, "9 % where 8 % is normal");
    assert!(t.until_breach(1000.0, 130.0, 900).is_some());
}

#[test]
fn without_a_baseline_only_the_absolute_limit_judges() {
    let mut t = table(5, None, |_| {});
    assert_eq!(t.until_breach(1000.0, 49.0, 600), None);
    assert_eq!(t.until_breach(1000.0, 51.0, 900), Some(615));
    assert_eq!(t.rule.evidence()[0].remark.as_deref(), Some("absolute limit only, no baseline"));
}

#[test]
fn a_quantile_breaches_by_the_share_beyond_its_limit() {
    let slow = |mean| buckets(1000.0, mean);
    let mut t = table(5, Some(0.001), |_| {});
    let at = (0..60).find(|_| t.full_tick(None, Some(&slow(0.06)), &[])).map(|_| t.at_s);
    assert_eq!(at, Some(75), "three ticks after the latency warm-up of a minute");
    let p99 = t.rule.evidence().into_iter().find(|e| e.signal.to_string() == "latency p99").unwrap();
    assert_eq!(p99.state, SignalState::Breached);
    assert!(p99.ratio.unwrap() > 1.5, "{p99:?}");
    let mut t = table(5, Some(0.001), |_| {});
    assert!(!(0..60).any(|_| t.full_tick(None, Some(&slow(0.033)), &[])), "10 % slower");
}

#[test]
fn a_limit_beyond_the_last_bucket_is_not_judged() {
    // A tenth of everything has always been beyond the last bucket: nobody can see 1.5 × of that.
    let mut rule = table(5, None, |_| {});
    let mut baseline = good_baseline();
    baseline.latency = Some(Buckets::try_new(vec![0.1, 0.2], vec![500.0, 900.0], 1000.0).unwrap());
    rule.rule.with_baseline(&baseline);
    let same = Buckets::try_new(vec![0.1, 0.2], vec![500.0, 900.0], 1000.0).unwrap();
    assert!(!(0..60).any(|_| rule.full_tick(None, Some(&same), &[])), "a healthy release stays");
    let p99 = rule.rule.evidence().into_iter().find(|e| e.signal.to_string() == "latency p99").unwrap();
    assert_eq!(p99.state, SignalState::NotJudged);
    assert_eq!(p99.remark.as_deref(), Some("not judged: the limit is beyond the last bucket"));
}

#[test]
fn an_absolute_latency_limit_needs_no_baseline() {
    let mut t = table(5, None, |l| l.latency_s = vec![(Quantile::P99, 0.25)]);
    let at = (0..60).find(|_| t.full_tick(None, Some(&buckets(1000.0, 0.08)), &[])).map(|_| t.at_s);
    assert_eq!(at, Some(75));
}

#[test]
fn a_custom_signal_has_a_plain_limit() {
    let limit = |l: &mut Limits| l.custom = vec![CustomLimit { name: "signups".into(), bound: Bound::Below(3.0) }];
    let mut t = table(5, None, limit);
    let of = |v: Option<f64>| [("signups".to_owned(), v)];
    assert!(!t.full_tick(None, None, &of(Some(9.0))));
    assert!(!t.full_tick(None, None, &of(Some(1.0))));
    assert!(!t.full_tick(None, None, &of(None)), "absent is not zero");
    assert!(!t.full_tick(None, None, &of(Some(1.0))));
    assert!(t.full_tick(None, None, &of(Some(1.0))));
}
