//! Native histograms: Prometheus answers with the histogram itself. They become cumulative counts on one fine
//! grid, and from there on are what classic buckets are.

use std::collections::BTreeMap;

use serde::Deserialize;

use super::decode::Labels;
use super::exact::{Plausible, Target, is_plausible};
use crate::domain::counts::Buckets;

/// Four bounds to the factor of two, from 2⁻¹⁰ s (about 1 ms) to 2⁷ s: a step of 19 %. Finer native buckets
/// nest in these exactly; coarser ones count at their upper end.
const STEPS_PER_DOUBLING: i32 = 4;
const FIRST: i32 = -10 * STEPS_PER_DOUBLING;
const LAST: i32 = 7 * STEPS_PER_DOUBLING;

/// Bounds that are the same number but for the last digits of its text.
const SAME: f64 = 1e-9;

/// One histogram as the HTTP API gives it.
#[derive(Debug, Clone, PartialEq)]
pub struct Histogram {
    pub count: f64,
    /// Counts by upper bound, ascending; those at or below zero first.
    buckets: Vec<(f64, f64)>,
}

#[derive(Deserialize)]
pub(super) struct Raw {
    count: String,
    #[serde(default)]
    buckets: Vec<(u8, String, String, String)>,
}

pub(super) fn grid() -> Vec<f64> {
    (FIRST..=LAST).map(|k| f64::from(k) / f64::from(STEPS_PER_DOUBLING)).map(f64::exp2).collect()
}

impl Histogram {
    pub(super) fn read(raw: &Raw) -> Result<Histogram, String> {
        let number = |text: &str| {
            let value = match text {
                "+Inf" => Some(f64::INFINITY),
                "-Inf" => Some(f64::NEG_INFINITY),
                text => text.parse::<f64>().ok().filter(|v| v.is_finite()),
            };
            value.ok_or_else(|| format!("{text:?} in a native histogram is not a number"))
        };
        let counted = |text: &str| match number(text)? {
            n if n.is_finite() && n >= 0.0 => Ok(n),
            n => Err(format!("a native histogram counts {n}")),
        };
        let mut buckets = Vec::with_capacity(raw.buckets.len());
        for (_, _, upper, count) in &raw.buckets {
            buckets.push((number(upper)?, counted(count)?));
        }
        buckets.sort_by(|a, b| a.0.total_cmp(&b.0));
        Ok(Histogram { count: counted(&raw.count)?, buckets })
    }

    /// How many took at most each of the grid's bounds.
    fn cumulative(&self) -> Vec<f64> {
        let (mut next, mut sum) = (self.buckets.iter().peekable(), 0.0);
        grid()
            .into_iter()
            .map(|bound| {
                while let Some((_, n)) = next.next_if(|(upper, _)| *upper <= bound * (1.0 + SAME)) {
                    sum += n;
                }
                // The count may be a scrape older than the buckets by nothing; never below them.
                sum.min(self.count)
            })
            .collect()
    }

    #[cfg(test)]
    pub(super) fn of(buckets: &[(f64, f64)]) -> Histogram {
        Histogram { count: buckets.iter().map(|(_, n)| n).sum(), buckets: buckets.to_vec() }
    }
}

/// What the histograms of one slot brought between two instants, and what was not counted because nobody can
/// know. `None` where the difference is no histogram (an app changed its resolution).
pub(super) fn increase(
    before: &BTreeMap<Labels, Histogram>,
    after: &BTreeMap<Labels, Histogram>,
    plausible: Plausible,
) -> (Option<Buckets>, f64) {
    let bounds = grid();
    let (mut sum, mut total, mut left_out) = (vec![0.0; bounds.len()], 0.0, 0.0);
    for (labels, now) in after {
        let counted = now.cumulative();
        let grown = before.get(labels).filter(|then| now.count >= then.count).map(|then| {
            let lower = then.cumulative();
            (counted.iter().zip(lower).map(|(a, b)| a - b).collect::<Vec<_>>(), now.count - then.count)
        });
        // Born or begun anew since: the whole of it, if that is what so many requests can have been.
        let born = || is_plausible(now.count, plausible, Target::default()).then(|| (counted.clone(), now.count));
        let Some((more, requests)) = grown.or_else(born) else {
            left_out += now.count;
            continue;
        };
        sum.iter_mut().zip(more).for_each(|(s, m)| *s += m);
        total += requests;
    }
    (Buckets::try_new(bounds, sum, total).ok(), left_out)
}

#[cfg(test)]
mod tests {
    use super::*;

    const RATE: Plausible = Plausible { rate: Some(100.0), interval_s: 5.0 };

    fn one(histogram: Histogram) -> BTreeMap<Labels, Histogram> {
        [([("instance".to_owned(), "a".to_owned())].into(), histogram)].into()
    }

    fn below(buckets: &Buckets, s: f64) -> f64 {
        let at = buckets.bounds().iter().position(|b| (*b / s - 1.0).abs() < 1e-9).unwrap();
        buckets.cumulative()[at]
    }

    #[test]
    fn an_answer_of_prometheus_becomes_counts_on_the_grid() {
        let raw: Raw = serde_json::from_str(
            r#"{"count":"8","sum":"3.1","buckets":[[3,"-0.001","0.001","1"],[0,"0.25","0.2726269331663144","3"],[0,"0.5","0.5946035575013605","4"]]}"#,
        )
        .unwrap();
        let h = Histogram::read(&raw).unwrap();
        let (buckets, left_out) = increase(&one(Histogram::of(&[])), &one(h), RATE);
        let buckets = buckets.unwrap();
        assert_eq!((buckets.total(), left_out), (8.0, 0.0));
        assert_eq!((below(&buckets, 0.25), below(&buckets, 0.5), below(&buckets, 0.5946035575013605)), (1.0, 4.0, 8.0));
        assert_eq!(buckets.bounds().len(), 69);
    }

    #[test]
    fn differences_telescope_and_births_and_resets_count_what_is_plausible() {
        let at = |n: f64| one(Histogram::of(&[(0.125, n), (1.0, n)]));
        let count = |a: &_, b: &_| increase(a, b, RATE);
        assert_eq!(count(&at(10.0), &at(25.0)).0.unwrap().total(), 30.0);
        assert_eq!(below(&count(&at(10.0), &at(25.0)).0.unwrap(), 0.5), 15.0);
        assert_eq!(count(&at(50.0), &at(20.0)).0.unwrap().total(), 40.0, "begun anew: the whole of it");
        assert_eq!(count(&BTreeMap::new(), &at(20.0)).0.unwrap().total(), 40.0, "born");
        let (buckets, left_out) = count(&BTreeMap::new(), &at(1e6));
        assert_eq!((buckets.unwrap().total(), left_out), (0.0, 2e6), "a million in five seconds is a label renamed");
    }

    #[test]
    fn what_is_no_histogram_is_said_or_left_out() {
        let wrong = |count: &str| Raw { count: count.into(), buckets: vec![] };
        assert!(Histogram::read(&wrong("NaN")).is_err() && Histogram::read(&wrong("-1")).is_err());
        // Half of what was below 1 s is suddenly above it: no difference of two counts.
        let (a, b) = (one(Histogram::of(&[(1.0, 10.0)])), one(Histogram::of(&[(1.0, 5.0), (8.0, 6.0)])));
        assert_eq!(increase(&a, &b, RATE).0, None);
    }
}
