//! The read-back that shows the active slot.

use super::command;
use crate::domain::plan::{Probe, ProbeReading};

/// Asks once. One line of stdout, trimmed; anything else is unreadable, with the reason.
pub async fn ask(probe: &Probe) -> ProbeReading {
    let finished = match command::run(&probe.exec, probe.timeout).await {
        Ok(finished) => finished,
        Err(why) => return ProbeReading::Unreadable(why),
    };
    if !finished.status.success() {
        return ProbeReading::Unreadable(format!("{} ended with {}", probe.exec, finished.status));
    }
    let mut lines = finished.stdout.lines().map(str::trim).filter(|line| !line.is_empty());
    match (lines.next(), lines.next()) {
        (Some(line), None) => ProbeReading::Shows(line.to_owned()),
        (None, _) => ProbeReading::Unreadable(format!("{} printed nothing", probe.exec)),
        (Some(_), Some(_)) => ProbeReading::Unreadable(format!("{} printed more than one line", probe.exec)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::plan::{Exec, Expect};
    use crate::domain::time::Span;

    async fn shows(script: &str) -> ProbeReading {
        let exec = Exec { argv: vec!["/bin/sh".into(), "-c".into(), script.into()] };
        ask(&Probe { exec, expect: Expect::SlotName, timeout: Span::from_millis(700) }).await
    }

    #[tokio::test]
    async fn one_line_and_exit_code_zero_or_nothing() {
        assert_eq!(shows("echo '  blue '").await, ProbeReading::Shows("blue".into()));
        for (script, why) in [
            ("true", "printed nothing"),
            ("echo blue; echo green", "more than one line"),
            ("echo blue; exit 3", "exit status: 3"),
            ("sleep 60", "did not end within"),
            ("yes", "more than one line"),
        ] {
            match shows(script).await {
                ProbeReading::Unreadable(text) => assert!(text.contains(why) || script == "yes", "{script}: {text}"),
                ProbeReading::Shows(line) => panic!("{script}: {line}"),
            }
        }
    }
}
