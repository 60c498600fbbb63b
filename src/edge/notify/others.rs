//! Messages that are no watch's notice: what could not be delivered, and the digest.

use super::page::{Link, Page, Section, colour, page, severity_word};
use crate::domain::digest::{Digest, DigestSwitch};
use crate::domain::letter::Undeliverable;
use crate::domain::notice::Severity;
use crate::words::safe::tame;

pub fn undeliverable(u: &Undeliverable, links: &[Link], host: &str) -> Page {
    let of = page(&u.of, &[], links, host);
    let error = tame(&u.error, 400);
    let channel = tame(&u.channel, 80);
    let tries = if u.tries == 1 { "one try".to_owned() } else { format!("{} tries", u.tries) };
    let inner = of.subject.strip_prefix("[flipback] ").unwrap_or(&of.subject).to_owned();
    let answer = |i: usize| of.answers.get(i).map_or(String::new(), |(_, a)| a.clone());
    Page {
        subject: tame(&format!("[flipback] UNDELIVERABLE to {channel}: {inner}"), 180),
        kind: "undeliverable",
        status: "UNDELIVERABLE".into(),
        headline: format!("{channel} did not get this notice: {}", of.headline),
        answers: vec![
            ("What broke", format!("{channel}, since {}: {error}. The notice said: {}", u.since, answer(0))),
            ("How sure", format!("{tries} failed, and the notice was given up there. The notice said: {}", answer(1))),
            ("What was done", answer(2)),
            ("Did it work", answer(3)),
            ("What now", format!("mend {channel}, and tell those who rely on it. The notice said: {}", answer(4))),
        ],
        footer: format!("flipback on {}, notice {} of {}, {}", tame(host, 100), u.of.key.n, u.of.key.switch, u.at),
        at: u.at.to_string(),
        ..of
    }
}

pub fn digest(d: &Digest, links: &[Link], host: &str) -> Page {
    let real: Vec<&DigestSwitch> = d.switches.iter().filter(|s| !s.drill).collect();
    let count = |word: &str| real.iter().filter(|s| s.word == word).count();
    let rolled: usize = real.iter().filter(|s| s.word.starts_with("rolled_back") || s.word == "healed").count();
    let failed = count("rollback_failed") + count("unjudged") + count("unconfirmed");
    let would: Vec<&&DigestSwitch> = real.iter().filter(|s| s.would_have).collect();
    let near: Vec<&&DigestSwitch> = real.iter().filter(|s| s.near_miss.is_some()).collect();
    let withheld = count("withheld") - would.len();
    let drills: Vec<&DigestSwitch> = d.switches.iter().filter(|s| s.drill).collect();
    let thin: Vec<String> =
        d.services.iter().filter_map(|s| s.too_thin.as_ref().map(|why| format!("{}: {why}", s.name))).collect();
    let unarmed: Vec<String> = d
        .services
        .iter()
        .filter(|s| !s.armed || s.mode != crate::domain::policy::Mode::Auto)
        .map(|s| if s.armed { format!("{}: mode {}", s.name, s.mode) } else { format!("{}: DISARMED", s.name) })
        .collect();
    let switches = real.len() + usize::try_from(d.more).unwrap_or_default();
    let headline = format!(
        "{} watched, {} passed, {rolled} rolled back or healed, {} would have been, {withheld} withheld, {failed} without a verdict or failed.",
        plural(switches, "switch", "switches"),
        count("passed"),
        would.len()
    );
    let line = |s: &DigestSwitch| {
        let detail = s.detail.as_ref().map_or(String::new(), |detail| format!(" ({detail})"));
        tame(&format!("{} {} {}: {}{detail}", s.opened_at, s.service, s.what, s.word.replace('_', " ")), 300)
    };
    let mut sections = Vec::new();
    let mut section = |title: &str, lines: Vec<String>| {
        if !lines.is_empty() {
            sections.push(Section { title: title.to_owned(), lines });
        }
    };
    section("Would have been rolled back (mode observe)", would.iter().map(|s| line(s)).collect());
    section(
        "Near misses: passed, and close to a limit",
        near.iter()
            .map(|s| tame(&format!("{}: {}", line(s), s.near_miss.as_deref().unwrap_or_default()), 300))
            .collect(),
    );
    let mut all: Vec<String> = real.iter().map(|s| line(s)).collect();
    if d.more > 0 {
        all.push(format!("… and {} more: flipback history", d.more));
    }
    section("Switches", all);
    section("Drills", drills.iter().map(|s| line(s)).collect());
    let all_seen = thin.is_empty();
    section("Traffic that cannot show the ratio asked for", thin);
    section("Not rolled back by flipback itself", unarmed);
    let now = match (would.is_empty(), near.is_empty(), all_seen) {
        (false, ..) => "look whether flipback was right about what it would have done; then mode = \"ask\" or \"auto\"",
        (true, false, _) => "look at the near misses before the next release",
        (true, true, false) => "give the services with too little traffic a longer soak",
        (true, true, true) => "nothing",
    };
    let broke = if rolled + failed + withheld + would.len() == 0 {
        "nothing".to_owned()
    } else {
        let bad = real.iter().filter(|s| s.word != "passed" && s.word != "open" && s.word != "superseded");
        bad.map(|s| format!("{} {}", s.service, s.what)).collect::<Vec<_>>().join("; ")
    };
    Page {
        subject: tame(
            &format!(
                "[flipback] DIGEST {}, {rolled} rolled back, {} to look at",
                plural(switches, "switch", "switches"),
                would.len() + near.len() + withheld + failed
            ),
            180,
        ),
        kind: "digest",
        severity: severity_word(Severity::Info),
        colour: colour(Severity::Info),
        status: "DIGEST".into(),
        headline,
        answers: vec![
            ("What broke", tame(&broke, 600)),
            ("How sure", "each verdict has its own evidence: flipback show ID".into()),
            (
                "What was done",
                format!("{rolled} rolled back or healed, {withheld} withheld, {} only observed", would.len()),
            ),
            (
                "Did it work",
                match real
                    .iter()
                    .filter(|s| s.word == "rolled_back_not_recovered" || s.word == "rollback_failed")
                    .count()
                {
                    0 => "nothing that was tried failed".into(),
                    n => format!("{n} did not: see below"),
                },
            ),
            ("What now", now.into()),
        ],
        charts: Vec::new(),
        signals: Vec::new(),
        facts: Vec::new(),
        steps_title: "Steps",
        steps: Vec::new(),
        timeline: Vec::new(),
        queries: Vec::new(),
        links: links.to_vec(),
        sections,
        command: "flipback history".into(),
        footer: format!("flipback on {}, {} to {}", tame(host, 100), d.from, d.to),
        service: String::new(),
        switch: String::new(),
        at: d.to.to_string(),
    }
}

fn plural(n: usize, one: &str, many: &str) -> String {
    format!("{n} {}", if n == 1 { one } else { many })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::notice::NoticeReason;
    use crate::edge::notify::sample;

    #[test]
    fn a_near_miss_is_what_passed_close_to_a_limit() {
        let mut watch = sample::notice(NoticeReason::Passed).unwrap().watch.clone();
        assert_eq!(DigestSwitch::of(&watch).near_miss, None);
        let limit = watch.evidence[0].limit.unwrap();
        watch.evidence[0].value = Some(limit * 1.01);
        watch.evidence[0].ratio = Some(1.5);
        assert_eq!(DigestSwitch::of(&watch).near_miss.as_deref(), Some("error rate 1.5× the normal"));
        // What was rolled back, or would have been, is no near miss: it has a section of its own.
        watch.outcome = sample::notice(NoticeReason::Withheld).unwrap().watch.outcome.clone();
        let observed = DigestSwitch::of(&watch);
        assert_eq!((observed.near_miss, observed.would_have), (None, true));
    }
}
