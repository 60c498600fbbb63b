//! A list of past switches in a file: one in a line.

use crate::account::backtest::Truth;
use crate::domain::service::Service;
use crate::domain::switch::{Slot, Version};
use crate::domain::time::Timestamp;

/// A line of the list.
#[derive(Debug, Clone, PartialEq)]
pub struct Listed {
    pub at: Timestamp,
    pub old: Slot,
    pub new: Slot,
    pub version: Option<Version>,
    pub truth: Option<Truth>,
}

/// Ten releases a day for a year, and some.
const LINES_MAX: usize = 5_000;

/// `TIME OLD NEW [VERSION] [good|bad]`, apart by blanks or commas; `#` begins a remark. Ordered by time.
pub fn read(file: &str, text: &str, service: &Service) -> Result<Vec<Listed>, String> {
    let mut all = Vec::new();
    let mut wrong = Vec::new();
    for (n, line) in (1..).zip(text.lines()) {
        let line = line.split('#').next().unwrap_or_default();
        let words: Vec<&str> = line.split(|c: char| c == ',' || c.is_whitespace()).filter(|w| !w.is_empty()).collect();
        if words.is_empty() {
            continue;
        }
        match one(&words, service) {
            Ok(listed) => all.push(listed),
            Err(why) => wrong.push(format!("{file}:{n}: {why}")),
        }
        if all.len() > LINES_MAX {
            wrong.push(format!("{file}:{n}: more than {LINES_MAX} switches: take a part of them"));
            break;
        }
    }
    if !wrong.is_empty() {
        return Err(wrong.join("\n"));
    }
    if all.is_empty() {
        return Err(format!(
            "{file}: it names no switch: write one in a line, like 2026-11-15T10:00:00Z blue green v1.3"
        ));
    }
    all.sort_by_key(|l| l.at);
    Ok(all)
}

fn one(words: &[&str], service: &Service) -> Result<Listed, String> {
    let (&[at, old, new], more) = words.split_first_chunk::<3>().ok_or("needs a time, the old slot and the new one")?;
    let time = chrono::DateTime::parse_from_rfc3339(at)
        .map_err(|_| format!("{at:?} is no time: write it like 2026-11-15T10:00:00Z"))?;
    let slot = |name: &str| -> Result<Slot, String> {
        let slot = Slot::try_new(name).map_err(|why| format!("{name:?}: {why}"))?;
        if !service.slots.knows(&slot) {
            let known: Vec<String> = service.slots.specs().keys().map(ToString::to_string).collect();
            return Err(format!("{} has no slot {name:?}; it has {}", service.name, known.join(", ")));
        }
        Ok(slot)
    };
    let (old, new) = (slot(old)?, slot(new)?);
    let (mut version, mut truth) = (None, None);
    for word in more {
        match *word {
            "good" if truth.is_none() => truth = Some(Truth::Good),
            "bad" if truth.is_none() => truth = Some(Truth::Bad),
            word if version.is_none() && truth.is_none() => {
                version = Some(Version::try_new(word).map_err(|why| format!("{word:?}: {why}"))?);
            }
            word => return Err(format!("{word:?} is one word too many: a version, then good or bad")),
        }
    }
    if old == new && version.is_none() {
        return Err(format!("{old} to {new} is a release in place: it needs a version"));
    }
    Ok(Listed { at: Timestamp::from_millis(time.timestamp_millis()), old, new, version, truth })
}
