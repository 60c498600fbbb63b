//! The read-back that shows the active slot.

use super::command;
use super::native::{file, haproxy, http};
use crate::domain::action::{Exec, Look};
use crate::domain::plan::{Probe, ProbeReading};
use crate::domain::time::Span;

/// Asks once. One line; anything else is unreadable, with the reason.
pub async fn ask(probe: &Probe) -> ProbeReading {
    let looking = async {
        match &probe.look {
            Look::Exec(exec) => printed(exec, probe.timeout).await,
            Look::Haproxy(h) => haproxy::look(h).await,
            Look::File(set) => {
                // A file system that hangs holds up this look, and nothing else.
                let set = set.clone();
                let looking = tokio::task::spawn_blocking(move || file::look(&set));
                looking.await.unwrap_or_else(|_| Err("the look was broken off".into()))
            }
            Look::Http(look) => http::look(look, probe.timeout).await,
        }
    };
    // A command has its own limit, which ends its whole group.
    let limit = (probe.timeout + Span::from_millis(200)).to_std();
    match tokio::time::timeout(limit, looking).await {
        Ok(Ok(line)) => ProbeReading::Shows(line),
        Ok(Err(why)) => ProbeReading::Unreadable(why),
        Err(_) => ProbeReading::Unreadable(format!("{} did not answer within {}", probe.look, probe.timeout)),
    }
}

/// One line of stdout, trimmed.
async fn printed(exec: &Exec, timeout: Span) -> Result<String, String> {
    let finished = command::run(exec, timeout).await?;
    if !finished.status.success() {
        return Err(format!("{exec} ended with {}", finished.status));
    }
    only_line(&finished.stdout).map_err(|why| format!("{exec} printed {why}"))
}

/// The one line of a text, trimmed, or what there is instead.
pub fn only_line(text: &str) -> Result<String, &'static str> {
    let mut lines = text.lines().map(str::trim).filter(|line| !line.is_empty());
    match (lines.next(), lines.next()) {
        (Some(line), None) => Ok(line.to_owned()),
        (None, _) => Err("nothing"),
        (Some(_), Some(_)) => Err("more than one line"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::plan::Expect;

    async fn shows(script: &str) -> ProbeReading {
        let look = Look::Exec(Exec::new(["/bin/sh", "-c", script]));
        ask(&Probe { look, expect: Expect::SlotName, timeout: Span::from_millis(700) }).await
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
