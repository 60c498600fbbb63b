//! The arithmetic of counters that were born or reset inside a tick, from their raw samples.

use crate::domain::time::Timestamp;

/// A series that has counted this many events or fewer when it is first seen may have been born since;
/// a handful of events moves no verdict by itself.
const SMALL: f64 = 10.0;

/// A counter that fell by less than this share did not begin anew: it is an older reading of the same
/// count (a replica one scrape behind).
const DIP_SHARE: f64 = 0.9;

/// A process's own clock and Prometheus's may differ by this.
const START_SLACK_S: f64 = 2.0;

/// What is known of a series' target.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct Target {
    /// `process_start_time_seconds` at the end of the tick.
    pub started_s: Option<f64>,
    /// It had an `up` sample at the beginning of the tick.
    pub known: bool,
}

/// The bound for what a series may have brought since it was born or reset.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Plausible {
    /// Ten times the baseline's peak, requests per second; none without a baseline.
    pub rate: Option<f64>,
    pub interval_s: f64,
}

/// What a series counted in the tick, and what was not counted because nobody can know.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct Increase {
    pub counted: f64,
    pub left_out: f64,
}

/// Increments of one series after `from`, from its raw samples in time order; the last sample at or
/// before `from` is where they begin. `decisive` is the value by which plausibility is judged for a
/// whole histogram (its largest bucket), or `None` to use the series' own.
pub fn increase(
    points: &[(i64, f64)],
    from: Timestamp,
    target: Target,
    plausible: Plausible,
    decisive: Option<f64>,
) -> Increase {
    let mut sum = Increase::default();
    let begin = points.partition_point(|(at, _)| *at <= from.as_millis());
    let mut last: Option<(i64, f64)> = begin.checked_sub(1).and_then(|i| points.get(i)).copied();
    for &(at, value) in points.get(begin..).unwrap_or_default() {
        match last {
            Some((_, before)) if value >= before => sum.counted += value - before,
            Some((seen_at, before)) => {
                let restarted = target.started_s.is_some_and(|s| s > seen_at as f64 / 1000.0 - START_SLACK_S);
                let dip = !restarted && value >= before * DIP_SHARE && before > SMALL;
                if dip {
                    // The higher count stays the mark: what comes above it is new.
                    continue;
                }
                if restarted || is_plausible(decisive.unwrap_or(value), plausible, target) {
                    sum.counted += value;
                } else {
                    sum.left_out += value;
                }
            }
            None => {
                let restarted = target.started_s.is_some_and(|s| s > from.as_secs_f64());
                if restarted || is_plausible(decisive.unwrap_or(value), plausible, target) {
                    sum.counted += value;
                } else {
                    sum.left_out += value;
                }
            }
        }
        last = Some((at, value));
    }
    sum
}

pub(super) fn is_plausible(value: f64, plausible: Plausible, target: Target) -> bool {
    match plausible.rate {
        Some(rate) => value <= (rate * plausible.interval_s).max(SMALL),
        // Nothing to compare with: a new label set of a known target is most likely new.
        None => target.known || value <= SMALL,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const T0: Timestamp = Timestamp::from_millis(10_000);
    const KNOWN: Target = Target { started_s: Some(1.0), known: true };
    const RATE: Plausible = Plausible { rate: Some(100.0), interval_s: 5.0 };

    fn counted(points: &[(i64, f64)], target: Target, plausible: Plausible) -> (f64, f64) {
        let sum = increase(points, T0, target, plausible, None);
        (sum.counted, sum.left_out)
    }

    #[test]
    fn a_restart_counts_from_zero_and_nothing_is_lost_before_it() {
        let restarted = Target { started_s: Some(12.0), known: true };
        let points = [(9000, 100.0), (11_000, 130.0), (13_000, 7.0), (14_000, 9.0)];
        assert_eq!(counted(&points, restarted, RATE), (39.0, 0.0));
    }

    #[test]
    fn a_restart_that_outgrew_its_past_is_seen_in_the_samples() {
        let restarted = Target { started_s: Some(10.5), known: true };
        assert_eq!(counted(&[(9000, 10.0), (11_000, 5.0), (13_000, 50.0)], restarted, RATE), (50.0, 0.0));
    }

    #[test]
    fn an_error_series_born_at_its_first_error_counts_it() {
        assert_eq!(counted(&[(12_000, 1.0), (13_000, 4.0)], KNOWN, RATE), (4.0, 0.0));
        let no_baseline = Plausible { rate: None, interval_s: 5.0 };
        assert_eq!(counted(&[(12_000, 200.0)], KNOWN, no_baseline), (200.0, 0.0));
    }

    #[test]
    fn a_renamed_label_or_a_prometheus_back_from_an_outage_counts_no_million() {
        assert_eq!(counted(&[(12_000, 1e6), (13_000, 1e6 + 20.0)], KNOWN, RATE), (20.0, 1e6));
        let stranger = Target { started_s: None, known: false };
        let no_baseline = Plausible { rate: None, interval_s: 5.0 };
        assert_eq!(counted(&[(12_000, 1e6)], stranger, no_baseline), (0.0, 1e6));
    }

    #[test]
    fn a_replica_one_scrape_behind_is_a_dip_and_no_reset() {
        let points = [(9000, 1e6), (11_000, 1e6 - 10.0), (12_000, 1e6 + 5.0)];
        assert_eq!(counted(&points, KNOWN, RATE), (5.0, 0.0));
    }

    #[test]
    fn counters_cleared_without_a_restart_count_when_plausible() {
        assert_eq!(counted(&[(9000, 5000.0), (12_000, 40.0)], KNOWN, RATE), (40.0, 0.0));
    }

    proptest::proptest! {
        /// Cutting a tick in two changes nothing where the counter only rises.
        #[test]
        fn rising_counters_telescope(steps in proptest::collection::vec(0u32..1000, 1..40), cut in 0usize..40) {
            let mut value = 5.0;
            let mut points = vec![(9_000, value)];
            for (i, step) in steps.iter().enumerate() {
                value += f64::from(*step);
                points.push((11_000 + i as i64 * 1000, value));
            }
            let whole = increase(&points, T0, KNOWN, RATE, None).counted;
            let middle = Timestamp::from_millis(11_000 + (cut.min(steps.len()) as i64) * 1000);
            let (first, second): (Vec<_>, Vec<_>) = points.iter().partition(|(at, _)| *at <= middle.as_millis());
            let left = increase(&first, T0, KNOWN, RATE, None).counted;
            let mut with_base = vec![*first.last().unwrap()];
            with_base.extend(second);
            let right = increase(&with_base, middle, KNOWN, RATE, None).counted;
            proptest::prop_assert_eq!(whole, left + right);
        }

        /// Never negative, never NaN, never more than all the values together.
        #[test]
        fn increases_are_bounded(values in proptest::collection::vec(0.0f64..1e15, 0..30), start in proptest::option::of(0.0f64..50.0), known: bool) {
            let points: Vec<_> = values.iter().enumerate().map(|(i, v)| (8_000 + i as i64 * 1000, v.floor())).collect();
            let sum = increase(&points, T0, Target { started_s: start, known }, RATE, None);
            let all: f64 = points.iter().map(|(_, v)| v).sum();
            proptest::prop_assert!(sum.counted >= 0.0 && sum.left_out >= 0.0);
            proptest::prop_assert!(sum.counted + sum.left_out <= all);
        }
    }
}
