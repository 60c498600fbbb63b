//! Round numbers for axes.

use crate::domain::time::{Span, Timestamp};

/// `HH:MM:SS` of an instant, UTC.
pub fn clock(at: Timestamp) -> String {
    at.to_string().chars().skip(11).take(8).collect()
}

/// Steps of 1, 2 or 5 times a power of ten, about `count` of them up to `top`.
pub fn steps(top: f64, count: f64) -> Vec<f64> {
    let rough = top / count;
    let power = 10f64.powf(rough.log10().floor());
    let step = [1.0, 2.0, 5.0, 10.0].into_iter().map(|m| m * power).find(|step| *step >= rough).unwrap_or(rough);
    (0..=20).map(|i| f64::from(i) * step).take_while(|value| *value <= top * 1.0001).collect()
}

/// Instants on whole seconds, minutes or hours, at most five of them.
pub fn instants(from: Timestamp, to: Timestamp) -> Vec<Timestamp> {
    const STEPS_S: [u64; 16] = [1, 2, 5, 10, 15, 30, 60, 120, 300, 600, 900, 1800, 3600, 7200, 14_400, 43_200];
    let length = to.since(from).as_secs_f64();
    let step = STEPS_S.into_iter().find(|step| length / *step as f64 <= 5.0).unwrap_or(86_400);
    let step = Span::from_secs(step);
    let mut found = Vec::new();
    let mut at = from.floor_to(step) + step;
    while at < to && found.len() < 8 {
        found.push(at);
        at = at + step;
    }
    found
}
