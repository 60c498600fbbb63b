//! The rules that other tools use, on the same counts: what they would have done, and when.
//!
//! Each takes the recorded error rate as its normal. Their settings are the tools' defaults or their
//! documentation's examples.

use crate::domain::counts::Cell;

/// Requests and bad ones by minute, of cells in the order of time.
pub fn by_minute<'a>(cells: impl IntoIterator<Item = &'a Cell>) -> Vec<(f64, f64)> {
    let mut all: Vec<(i64, f64, f64)> = Vec::new();
    for cell in cells {
        let minute = cell.to.as_millis().saturating_sub(1).div_euclid(60_000);
        let (n, x) = (cell.counts.requests(), cell.counts.bad());
        match all.last_mut() {
            Some(last) if last.0 == minute => (last.1, last.2) = (last.1 + n, last.2 + x),
            _ => all.push((minute, n, x)),
        }
    }
    all.into_iter().map(|(_, n, x)| (n, x)).collect()
}

/// What a rule sees of a soak: counts, and when they were in.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Seen {
    /// Requests and bad ones of each recorded minute before the switch.
    pub minutes: Vec<(f64, f64)>,
    pub ticks: Vec<SeenTick>,
}

#[derive(Debug, Clone, Copy, PartialEq)]
pub struct SeenTick {
    /// Its end, in seconds after the switch.
    pub to_s: f64,
    pub requests: f64,
    pub bad: f64,
}

/// A rule of another tool.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Rival {
    /// `if error_rate > baseline * 1.5: rollback`, at every tick.
    Naive,
    /// The same for three ticks in a row.
    ThreeInARow,
    /// Flagger: one check a minute, five failed checks in total.
    Flagger,
    /// Argo Rollouts: one measurement a minute, more than three failures in total.
    Argo,
    /// Kayenta: a Mann–Whitney test every ten minutes, high if significant and a quarter above.
    Kayenta,
    /// 5 % errors over 30 s.
    Absolute,
}

impl Rival {
    pub const ALL: [Rival; 6] =
        [Rival::Naive, Rival::ThreeInARow, Rival::Flagger, Rival::Argo, Rival::Kayenta, Rival::Absolute];

    pub fn name(self) -> &'static str {
        match self {
            Rival::Naive => "naive 1.5×",
            Rival::ThreeInARow => "3 in a row",
            Rival::Flagger => "Flagger 5",
            Rival::Argo => "Argo 3",
            Rival::Kayenta => "Kayenta",
            Rival::Absolute => "abs 5 %",
        }
    }

    /// The rule in words.
    pub fn says(self) -> &'static str {
        match self {
            Rival::Naive => "one tick above 1.5 times the recorded error rate",
            Rival::ThreeInARow => "three ticks in a row above 1.5 times the recorded error rate",
            Rival::Flagger => "one check a minute, five failed ones in total",
            Rival::Argo => "one measurement a minute, more than three failed ones in total",
            Rival::Kayenta => "a Mann-Whitney test of ten minutes against the normal",
            Rival::Absolute => "5 % errors over 30 s",
        }
    }

    /// Seconds from the switch to its rollback.
    pub fn rolls_back_s(self, seen: &Seen) -> Option<f64> {
        let (n, x) = seen.minutes.iter().fold((0.0, 0.0), |s, m| (s.0 + m.0, s.1 + m.1));
        let limit = if n > 0.0 { 1.5 * x / n } else { 0.0 };
        let ticks = &seen.ticks;
        let above = |n: f64, x: f64| n > 0.0 && x / n > limit;
        match self {
            Rival::Naive => ticks.iter().find(|t| above(t.requests, t.bad)).map(|t| t.to_s),
            Rival::ThreeInARow => {
                let mut run = 0;
                ticks
                    .iter()
                    .find(|t| {
                        run = if above(t.requests, t.bad) { run + 1 } else { 0 };
                        run >= 3
                    })
                    .map(|t| t.to_s)
            }
            Rival::Flagger => nth_failure(ticks, 5, above),
            Rival::Argo => nth_failure(ticks, 4, above),
            Rival::Kayenta => kayenta(seen),
            Rival::Absolute => windows(ticks, 30.0)
                .into_iter()
                .find(|(_, n, x)| *n > 0.0 && *x >= 1.0 && x / n > 0.05)
                .map(|(t, ..)| t),
        }
    }
}

/// (end, requests, bad) of consecutive windows of this length.
fn windows(ticks: &[SeenTick], length_s: f64) -> Vec<(f64, f64, f64)> {
    let mut all: Vec<(f64, f64, f64)> = Vec::new();
    let (mut n, mut x, mut began) = (0.0, 0.0, 0.0);
    for t in ticks {
        n += t.requests;
        x += t.bad;
        if t.to_s - began >= length_s - 1e-9 {
            all.push((t.to_s, n, x));
            (n, x, began) = (0.0, 0.0, t.to_s);
        }
    }
    all
}

fn nth_failure(ticks: &[SeenTick], nth: usize, above: impl Fn(f64, f64) -> bool) -> Option<f64> {
    windows(ticks, 60.0).into_iter().filter(|(_, n, x)| above(*n, *x)).nth(nth - 1).map(|(t, ..)| t)
}

/// Rates of the last ten minutes against those of the normal. The judge calls a metric high if the lower end
/// of the rank test's 98 % interval for the shift is above a quarter of the shift's estimate (Hodges–Lehmann).
fn kayenta(seen: &Seen) -> Option<f64> {
    const EVERY_S: f64 = 600.0;
    const Z: f64 = 2.326;
    const TOLERANCE: f64 = 0.25;
    let rate = |n: f64, x: f64| if n > 0.0 { x / n } else { 0.0 };
    let normal: Vec<f64> = seen.minutes.iter().map(|(n, x)| rate(*n, *x)).collect();
    let soak = windows(&seen.ticks, 60.0);
    let per_check = (EVERY_S / 60.0) as usize;
    soak.chunks_exact(per_check).find_map(|part| {
        let rates: Vec<f64> = part.iter().map(|(_, n, x)| rate(*n, *x)).collect();
        let (low, estimate) = shift(&rates, &normal, Z)?;
        let high = low > TOLERANCE * estimate.abs();
        high.then(|| part.last().map(|(t, ..)| *t)).flatten()
    })
}

/// How much larger `a` is than `b`: the lower end of the interval of this many standard errors, and the estimate.
fn shift(a: &[f64], b: &[f64], z: f64) -> Option<(f64, f64)> {
    let mut pairs: Vec<f64> = a.iter().flat_map(|x| b.iter().map(move |y| x - y)).collect();
    let (n, m) = (a.len() as f64, b.len() as f64);
    let place = (n * m / 2.0 - z * (n * m * (n + m + 1.0) / 12.0).sqrt()).floor().max(0.0) as usize;
    let middle = pairs.len() / 2;
    if pairs.is_empty() {
        return None;
    }
    let estimate = *pairs.select_nth_unstable_by(middle, f64::total_cmp).1;
    let low = *pairs.select_nth_unstable_by(place.min(middle), f64::total_cmp).1;
    Some((low, estimate))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn trace(bad: impl Fn(usize) -> f64) -> Seen {
        let ticks = (0..120).map(|i| SeenTick { to_s: (i + 1) as f64 * 15.0, requests: 1000.0, bad: bad(i) }).collect();
        Seen { minutes: [(4000.0, 4.0), (4000.0, 5.0), (4000.0, 3.0)].repeat(20), ticks }
    }

    #[test]
    fn each_rule_acts_when_its_tool_would() {
        let outage = trace(|_| 1000.0);
        let at: Vec<_> = Rival::ALL.iter().map(|r| r.rolls_back_s(&outage)).collect();
        assert_eq!(at, [Some(15.0), Some(45.0), Some(300.0), Some(240.0), Some(600.0), Some(30.0)]);
        let healthy = trace(|_| 1.0);
        assert!(Rival::ALL.iter().all(|r| r.rolls_back_s(&healthy).is_none()));
        let one = trace(|i| if i == 7 { 2.0 } else { 1.0 });
        assert_eq!(Rival::Naive.rolls_back_s(&one), Some(120.0), "one bad tick is enough");
        assert_eq!(Rival::ThreeInARow.rolls_back_s(&one), None);
    }

    #[test]
    fn the_rank_test_knows_larger_from_equal() {
        let a: Vec<f64> = (0..20).map(f64::from).collect();
        let b: Vec<f64> = (10..30).map(f64::from).collect();
        let (low, estimate) = shift(&b, &a, 2.326).unwrap();
        assert_eq!(estimate, 10.0, "they are shifted by ten");
        assert!((4.0..=6.0).contains(&low), "20 and 20 ranks: 2.3 standard errors are about 5: {low}");
        assert!(shift(&a, &b, 2.326).unwrap().0 < 0.0 && shift(&a, &a, 2.326).unwrap().0 < 0.0);
        assert_eq!(shift(&[1.0; 5], &[1.0; 9], 2.326), Some((0.0, 0.0)), "all alike");
        assert_eq!(shift(&[], &a, 2.326), None);
    }
}
