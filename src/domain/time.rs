//! Instants and lengths of time in whole milliseconds, and Prometheus's duration grammar.

use std::fmt;
use std::ops::{Add, Sub};

use serde::{Deserialize, Serialize};

/// An instant: milliseconds since 1970-01-01T00:00:00Z.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Timestamp(i64);

/// A length of time in milliseconds, never negative.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Span(u64);

impl Timestamp {
    pub const fn from_millis(ms: i64) -> Self {
        Self(ms)
    }

    pub const fn as_millis(self) -> i64 {
        self.0
    }

    /// Seconds since the epoch, as Prometheus writes instants (`@ 1700000000.500`).
    pub fn as_secs_f64(self) -> f64 {
        self.0 as f64 / 1000.0
    }

    /// How long after `earlier` this is; zero when it is not after it.
    pub fn since(self, earlier: Timestamp) -> Span {
        Span(u64::try_from(self.0.saturating_sub(earlier.0)).unwrap_or(0))
    }

    /// Moves by a signed number of milliseconds (a clock's skew, for example).
    pub const fn shifted(self, ms: i64) -> Self {
        Self(self.0.saturating_add(ms))
    }

    /// The last multiple of `grid` at or before this instant; a zero grid is one millisecond.
    pub fn floor_to(self, grid: Span) -> Self {
        let step = i64::try_from(grid.0.max(1)).unwrap_or(i64::MAX);
        Self(self.0.div_euclid(step) * step)
    }
}

impl Span {
    pub const ZERO: Span = Span(0);

    pub const fn from_millis(ms: u64) -> Self {
        Self(ms)
    }

    pub const fn from_secs(s: u64) -> Self {
        Self(s * 1000)
    }

    pub const fn from_mins(m: u64) -> Self {
        Self(m * 60_000)
    }

    pub const fn as_millis(self) -> u64 {
        self.0
    }

    pub fn as_secs_f64(self) -> f64 {
        self.0 as f64 / 1000.0
    }

    pub const fn is_zero(self) -> bool {
        self.0 == 0
    }

    pub const fn saturating_sub(self, other: Span) -> Span {
        Span(self.0.saturating_sub(other.0))
    }

    pub const fn times(self, n: u64) -> Span {
        Span(self.0.saturating_mul(n))
    }

    pub fn to_std(self) -> std::time::Duration {
        std::time::Duration::from_millis(self.0)
    }

    /// Reads Prometheus's grammar: `1h30m`, `15s`, `250ms`, units in falling order, each once.
    ///
    /// ```
    /// use flipback::domain::time::Span;
    /// assert_eq!(Span::parse("1h30m").unwrap(), Span::from_secs(5400));
    /// assert!(Span::parse("30").is_err(), "a bare number has no unit");
    /// ```
    pub fn parse(text: &str) -> Result<Span, BadSpan> {
        const UNITS: [(&str, u64); 7] = [
            ("y", 31_536_000_000),
            ("w", 604_800_000),
            ("d", 86_400_000),
            ("h", 3_600_000),
            ("m", 60_000),
            ("s", 1000),
            ("ms", 1),
        ];
        let bad = |why: &'static str| BadSpan { text: text.to_owned(), why };
        if text.is_empty() {
            return Err(bad("it is empty"));
        }
        if text == "0" {
            return Ok(Span::ZERO);
        }
        let (mut rest, mut total, mut next_unit) = (text, 0u64, 0usize);
        while !rest.is_empty() {
            let digits = rest.bytes().take_while(u8::is_ascii_digit).count();
            if digits == 0 {
                return Err(bad("a number is missing before a unit"));
            }
            let value: u64 = rest[..digits].parse().map_err(|_| bad("a number is too large"))?;
            rest = &rest[digits..];
            let letters = rest.bytes().take_while(u8::is_ascii_alphabetic).count();
            let unit = &rest[..letters];
            rest = &rest[letters..];
            if unit.is_empty() {
                return Err(bad("a number has no unit (ms, s, m, h, d, w, y)"));
            }
            let place = UNITS
                .iter()
                .position(|(name, _)| *name == unit)
                .ok_or_else(|| bad("the units are ms, s, m, h, d, w, y"))?;
            if place < next_unit {
                return Err(bad("units go from large to small, each once"));
            }
            next_unit = place + 1;
            total = value
                .checked_mul(UNITS[place].1)
                .and_then(|ms| total.checked_add(ms))
                .ok_or_else(|| bad("it is too long"))?;
        }
        Ok(Span(total))
    }
}

/// Why a text is not a duration.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BadSpan {
    text: String,
    why: &'static str,
}

impl fmt::Display for BadSpan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?} is not a duration: {}; write it like \"30m\" or \"1h30m\"", self.text, self.why)
    }
}

impl std::error::Error for BadSpan {}

impl Add<Span> for Timestamp {
    type Output = Timestamp;
    fn add(self, span: Span) -> Timestamp {
        Timestamp(self.0.saturating_add(i64::try_from(span.0).unwrap_or(i64::MAX)))
    }
}

impl Sub<Span> for Timestamp {
    type Output = Timestamp;
    fn sub(self, span: Span) -> Timestamp {
        Timestamp(self.0.saturating_sub(i64::try_from(span.0).unwrap_or(i64::MAX)))
    }
}

impl Add for Span {
    type Output = Span;
    fn add(self, other: Span) -> Span {
        Span(self.0.saturating_add(other.0))
    }
}

impl fmt::Display for Span {
    /// The grammar that [`Span::parse`] reads: `1h30m`, `15s`, `0s`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.0 == 0 {
            return f.write_str("0s");
        }
        let mut left = self.0;
        for (unit, ms) in [("d", 86_400_000), ("h", 3_600_000), ("m", 60_000), ("s", 1000), ("ms", 1)] {
            if left >= ms {
                write!(f, "{}{unit}", left / ms)?;
                left %= ms;
            }
        }
        Ok(())
    }
}

impl fmt::Display for Timestamp {
    /// RFC 3339 in UTC with seconds: `2026-11-21T14:02:07Z`. Days to a civil date as in the
    /// proleptic Gregorian calendar counted in 400-year eras that begin on 1 March.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let secs = self.0.div_euclid(1000);
        let (days, of_day) = (secs.div_euclid(86_400), secs.rem_euclid(86_400));
        let z = days + 719_468;
        let (era, doe) = (z.div_euclid(146_097), z.rem_euclid(146_097));
        let yoe = (doe - doe / 1460 + doe / 36_524 - doe / 146_096) / 365;
        let doy = doe - (365 * yoe + yoe / 4 - yoe / 100);
        let mp = (5 * doy + 2) / 153;
        let day = doy - (153 * mp + 2) / 5 + 1;
        let month = if mp < 10 { mp + 3 } else { mp - 9 };
        let year = yoe + era * 400 + i64::from(month <= 2);
        let (h, m, s) = (of_day / 3600, of_day / 60 % 60, of_day % 60);
        write!(f, "{year:04}-{month:02}-{day:02}T{h:02}:{m:02}:{s:02}Z")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_read_and_print_alike() {
        for text in ["15s", "1h30m", "250ms", "1d", "2m5s10ms"] {
            assert_eq!(Span::parse(text).unwrap().to_string(), text);
        }
        for (text, why) in [
            ("", "empty"),
            ("30", "no unit"),
            ("s", "number is missing"),
            ("1m1h", "large to small"),
            ("1m1m", "each once"),
            ("5 m", "units are"),
            ("-5s", "number is missing"),
            ("1.5h", "no unit"),
            ("99999999999y", "too long"),
        ] {
            let err = Span::parse(text).unwrap_err().to_string();
            assert!(err.contains(why) || err.contains("units are") || err.contains("no unit"), "{text}: {err}");
        }
    }

    #[test]
    fn instants_print_as_civil_time() {
        for (ms, text) in [
            (0, "1970-01-01T00:00:00Z"),
            (951_782_400_000, "2000-02-29T00:00:00Z"),
            (1_795_269_727_999, "2026-11-21T14:02:07Z"),
            (-1, "1969-12-31T23:59:59Z"),
        ] {
            assert_eq!(Timestamp::from_millis(ms).to_string(), text);
        }
    }

    #[test]
    fn the_grid_is_a_floor() {
        let t = Timestamp::from_millis(14_999);
        assert_eq!(t.floor_to(Span::from_secs(5)), Timestamp::from_millis(10_000));
        assert_eq!(Timestamp::from_millis(-1).floor_to(Span::from_secs(5)), Timestamp::from_millis(-5000));
    }
}
