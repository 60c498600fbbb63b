//! Numbers for people.

use crate::domain::signal::Signal;

pub fn number(signal: &Signal, v: f64) -> String {
    match signal {
        Signal::ErrorRate => percent(v),
        Signal::Latency(_) if v < 0.01 => format!("{:.1} ms", v * 1000.0),
        Signal::Latency(_) => format!("{} ms", thousands(v * 1000.0)),
        Signal::Alive => if v > 0.0 { "alive" } else { "down" }.into(),
        Signal::Traffic => format!("{v:.1}/s"),
        Signal::Custom(_) => format!("{v}"),
    }
}

pub fn percent(rate: f64) -> String {
    let p = rate * 100.0;
    if p == 0.0 {
        "0 %".into()
    } else if p < 0.01 {
        format!("{p:.4} %")
    } else if p < 10.0 {
        format!("{p:.2} %")
    } else {
        format!("{p:.1} %")
    }
}

pub fn thousands(n: f64) -> String {
    let digits = format!("{:.0}", n.abs());
    let mut out = String::new();
    for (i, c) in digits.chars().enumerate() {
        if i > 0 && (digits.len() - i) % 3 == 0 {
            out.push(',');
        }
        out.push(c);
    }
    out
}

/// A number of any size, in as many digits as it deserves.
pub fn large(n: f64) -> String {
    if n >= 1e7 { format!("10^{:.0}", n.log10().floor()) } else { thousands(n) }
}

/// `none`, `1 in 4,200`, `1 in 10^9`.
pub fn one_in(n: f64) -> String {
    if n < 1.5 { "none".into() } else { format!("1 in {}", large(n)) }
}

/// `1 watch`, `2 watches`.
pub fn counted(n: usize, what: &str) -> String {
    let end = match (n, what.ends_with("ch")) {
        (1, _) => "",
        (_, true) => "es",
        (_, false) => "s",
    };
    format!("{n} {what}{end}")
}

/// Minutes and seconds of a number of seconds, as people say it: `1m 15s`.
pub fn duration(seconds: f64) -> String {
    let s = seconds.round().max(0.0) as u64;
    match (s / 3600, s / 60 % 60, s % 60) {
        (0, 0, s) => format!("{s}s"),
        (0, m, 0) => format!("{m}m"),
        (0, m, s) => format!("{m}m {s}s"),
        (h, 0, _) => format!("{h}h"),
        (h, m, _) => format!("{h}h {m}m"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_for_people() {
        assert_eq!(
            (counted(1, "watch"), counted(0, "watch"), counted(2, "notice")),
            ("1 watch".into(), "0 watches".into(), "2 notices".into())
        );
        let said = [0.4, 59.6, 75.0, 3600.0, 5400.0].map(duration);
        assert_eq!(said, ["0s", "1m", "1m 15s", "1h", "1h 30m"]);
        assert_eq!((one_in(1.0), one_in(4200.0)), ("none".into(), "1 in 4,200".into()));
        assert_eq!(thousands(1_234_567.0), "1,234,567");
        assert_eq!((percent(0.0), percent(0.0093), percent(0.5)), ("0 %".into(), "0.93 %".into(), "50.0 %".into()));
    }
}
