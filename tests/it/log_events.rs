//! The table of log events is complete and says what the code says.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;

use flipback::domain::notice::NoticeReason;
use flipback::edge::journald::message_id;

type Events = BTreeMap<String, (BTreeSet<String>, BTreeSet<String>)>;

/// What lies between a macro's brackets.
fn inside(text: &str) -> &str {
    let (mut depth, mut quoted, mut escaped) = (1, false, false);
    for (i, c) in text.char_indices() {
        match (quoted, c) {
            _ if escaped => escaped = false,
            (true, '\\') => escaped = true,
            (_, '"') => quoted = !quoted,
            (false, '(' | '[' | '{') => depth += 1,
            (false, ')' | ']' | '}') => depth -= 1,
            _ => {}
        }
        if depth == 0 {
            return &text[..i];
        }
    }
    panic!("a macro without an end");
}

/// Its arguments.
fn arguments(text: &str) -> Vec<String> {
    let (mut depth, mut quoted) = (0, false);
    let mut all = vec![String::new()];
    for c in text.chars() {
        match (quoted, c) {
            (_, '"') => quoted = !quoted,
            (false, '(' | '[' | '{') => depth += 1,
            (false, ')' | ']' | '}') => depth -= 1,
            _ => {}
        }
        if c == ',' && depth == 0 && !quoted {
            all.push(String::new());
        } else {
            all.last_mut().unwrap().push(c);
        }
    }
    all.iter().map(|a| a.split_whitespace().collect::<Vec<_>>().join(" ")).filter(|a| !a.is_empty()).collect()
}

fn walk(dir: &Path, events: &mut Events) {
    for entry in fs::read_dir(dir).unwrap().flatten() {
        let path = entry.path();
        if path.is_dir() {
            walk(&path, events);
            continue;
        }
        let text = fs::read_to_string(&path).unwrap_or_default();
        for level in ["info", "warn", "error"] {
            for (at, found) in text.match_indices(&format!("tracing::{level}!(")) {
                let mut all = arguments(inside(&text[at + found.len()..]));
                let message = all.pop().unwrap();
                let message = message.strip_prefix('"').and_then(|m| m.strip_suffix('"'));
                let message = message.unwrap_or_else(|| panic!("{}: an event without a name", path.display()));
                let (levels, fields) = events.entry(message.to_owned()).or_default();
                levels.insert(level.to_owned());
                fields.extend(
                    all.iter().map(|a| a.split(" = ").next().unwrap().trim_start_matches(['%', '?']).to_owned()),
                );
            }
        }
    }
}

#[test]
fn every_event_is_in_the_table_with_its_level_and_fields() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut events = Events::new();
    walk(&root.join("src"), &mut events);
    assert!(events.len() > 50, "{}", events.len());
    let mut table = Events::new();
    let text = fs::read_to_string(root.join("docs/LOGS.md")).unwrap();
    let (text, notices) = text.split_once("## Notices in journald").unwrap();
    for line in text.lines().filter(|l| l.starts_with("| ") && !l.starts_with("| message") && !l.starts_with("| ---")) {
        let cells: Vec<&str> = line.trim_matches('|').split(" | ").map(str::trim).collect();
        let [message, levels, fields, meaning, id] = cells.as_slice() else { panic!("five cells: {line}") };
        assert_eq!(id.trim_matches('`'), message_id(message, None), "{line}");
        assert!(meaning.len() > 10, "{line}");
        let list = |text: &str| {
            text.split(',').map(|w| w.trim().trim_matches('`').to_owned()).filter(|w| !w.is_empty()).collect()
        };
        assert!(table.insert((*message).to_owned(), (list(levels), list(fields))).is_none(), "twice: {line}");
    }
    for (message, (levels, fields)) in &events {
        let row = table
            .get(message)
            .unwrap_or_else(|| panic!("docs/LOGS.md has no row for {message:?}: {levels:?} {fields:?}"));
        assert_eq!(
            row,
            &(levels.clone(), fields.clone()),
            "{message}: levels and fields (left: the table, right: the code)"
        );
    }
    let stale: Vec<_> = table.keys().filter(|m| !events.contains_key(*m)).collect();
    assert!(stale.is_empty(), "docs/LOGS.md tells of what is not there: {stale:?}");
    let rows = notices.lines().filter(|l| l.starts_with("| ") && !l.starts_with("| reason") && !l.starts_with("| ---"));
    let mut listed = BTreeSet::new();
    for line in rows {
        let (reason, id) = line.trim_matches(['|', ' ']).split_once(" | ").unwrap();
        assert_eq!(id.trim_matches('`'), message_id("notice", Some(reason)), "{line}");
        listed.insert(reason.to_owned());
    }
    let reasons: BTreeSet<String> = NoticeReason::ALL.iter().map(|reason| reason.word().to_owned()).collect();
    assert_eq!(listed, reasons, "the notices of the table and those of the code");
}
