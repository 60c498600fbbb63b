//! The reference of the configuration, made from the code and the commented example: the code says which keys there are,
//! the example says of each what it is. A key that the example does not speak of is an error: the reference cannot drift.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use toml::{Table, Value};

use super::read::known_keys;

/// A block of the example: comment lines and the lines of keys below them.
#[derive(Debug, Clone, Default)]
struct Block {
    table: String,
    comment: Vec<String>,
    lines: Vec<String>,
}

/// The example as a file in which every key is set.
pub fn unmarked(example: &str) -> String {
    example.lines().map(|line| line.strip_prefix("#: ").unwrap_or(line)).collect::<Vec<_>>().join("\n")
}

/// `[[service.rollback]]` → `service.rollback`; the name of a metrics table is the operator's.
fn table_of(line: &str) -> Option<String> {
    let name = line.split('#').next()?.trim().strip_prefix('[')?.trim_start_matches('[').trim_end_matches(']');
    Some(if name.starts_with("metrics.") { "metrics.NAME".into() } else { name.to_owned() })
}

fn blocks(example: &str) -> Vec<Block> {
    let (mut all, mut block): (Vec<Block>, Block) = (Vec::new(), Block::default());
    let mut done = |block: &mut Block, table: String| {
        let before = std::mem::replace(block, Block { table, ..Block::default() });
        if !before.comment.is_empty() || !before.lines.is_empty() {
            all.push(before);
        }
    };
    for raw in example.lines() {
        let line = raw.strip_prefix("#: ").unwrap_or(raw);
        if let Some(comment) = line.strip_prefix('#') {
            if !block.lines.is_empty() {
                let table = block.table.clone();
                done(&mut block, table);
            }
            block.comment.push(comment.strip_prefix(' ').unwrap_or(comment).to_owned());
        } else if let Some(table) = table_of(line) {
            // What stands above a table's head is said of the table.
            let above = if block.lines.is_empty() { std::mem::take(&mut block.comment) } else { Vec::new() };
            done(&mut block, table.clone());
            if !above.is_empty() {
                block.comment = above;
                done(&mut block, table);
            }
        } else if line.trim().is_empty() {
            let table = block.table.clone();
            done(&mut block, table);
        } else {
            block.lines.push(line.to_owned());
        }
    }
    done(&mut block, String::new());
    all
}

/// Whether a line or a comment speaks of the key: as a whole word.
fn speaks_of(text: &str, key: &str) -> bool {
    let word = |c: char| c.is_ascii_alphanumeric() || c == '_';
    text.match_indices(key).any(|(at, _)| {
        let (before, after) = (text[..at].chars().next_back(), text[at + key.len()..].chars().next());
        !before.is_some_and(word) && !after.is_some_and(word)
    })
}

/// The table's own value of a key, where the example sets it.
fn value_at(root: &Table, table: &str, key: &str) -> Option<String> {
    let mut at = root;
    for part in table.split('.').filter(|part| !part.is_empty()) {
        let next = if part == "NAME" { at.values().next()? } else { at.get(part)? };
        at = match next {
            Value::Table(table) => table,
            Value::Array(list) => list.iter().find_map(Value::as_table)?,
            _ => return None,
        };
    }
    at.get(key).filter(|value| !value.is_table() || value.to_string().len() < 100).map(ToString::to_string)
}

/// The reference in markdown, or the keys that the example says nothing of.
pub fn reference(example: &str) -> Result<String, String> {
    let text = unmarked(example);
    let root: Table = toml::from_str(&text).map_err(|error| error.to_string())?;
    let blocks = blocks(example);
    let mut tables: BTreeMap<String, Vec<&'static str>> = BTreeMap::new();
    for (table, key) in known_keys(&text)? {
        tables.entry(table).or_default().push(key);
    }
    let mut out = String::from(
        "# Every key of the configuration\n\nMade from the code and from `config/flipback.toml` (`make docs`); a test \
         fails when the two differ. Files are read as `flipback.toml` and then `conf.d/*.toml` beside it; a flag goes \
         before the environment, that before conf.d, that before the main file. Durations are Prometheus's (`15s`, \
         `1h30m`). Wherever a file with a secret is named, `credential:NAME` is a credential of the systemd unit and \
         `env:NAME` a variable of the daemon's environment. `NAME` in a table's name is yours.\n",
    );
    let mut missing = Vec::new();
    for (table, keys) in &tables {
        let title = if table.is_empty() { "At the top".to_owned() } else { format!("`{table}`") };
        let _ = write!(out, "\n## {title}\n\n");
        let head = blocks.iter().find(|b| b.table == *table && b.lines.is_empty() && !b.comment.is_empty());
        if let Some(head) = head.filter(|_| !table.is_empty()) {
            let _ = write!(out, "{}\n\n", head.comment.join(" "));
        }
        out.push_str("| key | in the example | |\n| --- | --- | --- |\n");
        for key in keys {
            // Of its own table first; a table inside a line is told of where that line stands.
            let near =
                |b: &&Block| b.table == *table || table.starts_with(&format!("{}.", b.table)) || b.table.is_empty();
            let own = |b: &Block| b.lines.iter().any(|line| speaks_of(line, key));
            let told = |b: &Block| b.comment.iter().any(|line| speaks_of(line, key));
            // A key that is a table with a head of its own is told of there.
            let below = if table.is_empty() { (*key).to_owned() } else { format!("{table}.{key}") };
            if blocks.iter().any(|b| b.table == below || b.table.starts_with(&format!("{below}."))) {
                let named = [below.clone(), format!("{below}.NAME")].into_iter().find(|name| tables.contains_key(name));
                let link = named.map_or(format!("`{below}`"), |name| {
                    format!("[`{name}`](#{})", name.to_lowercase().replace('.', ""))
                });
                let _ = writeln!(out, "| `{key}` | | a table: {link} |");
                continue;
            }
            // A table in one line, `local = [{ user = … }]`, is told of with that line.
            let last = table.rsplit('.').find(|part| *part != "NAME").unwrap_or_default();
            let inline = |b: &&Block| b.lines.iter().any(|line| speaks_of(line, last) && speaks_of(line, key));
            let found = (blocks.iter().filter(|b| b.table == *table).find(|b| own(b)))
                .or_else(|| blocks.iter().filter(near).find(inline))
                .or_else(|| blocks.iter().filter(|b| b.table == *table).find(|b| told(b)))
                .or_else(|| blocks.iter().filter(near).find(|b| own(b) || told(b)))
                .or_else(|| blocks.iter().find(|b| own(b) || told(b)));
            let Some(block) = found else {
                missing.push(format!("{table}.{key}"));
                continue;
            };
            let value = value_at(&root, table, key).map_or(String::new(), |v| format!("`{}`", v.replace('|', "\\|")));
            let text = block.comment.join(" ").replace('|', "\\|").replace('<', "&lt;");
            let _ = writeln!(out, "| `{key}` | {value} | {text} |");
        }
    }
    if missing.is_empty() { Ok(out) } else { Err(format!("nothing is said of: {}", missing.join(", "))) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_key_of_the_code_is_in_the_reference_as_it_is_committed() {
        let root = env!("CARGO_MANIFEST_DIR");
        let example = std::fs::read_to_string(format!("{root}/config/flipback.toml")).unwrap();
        let made = reference(&example).unwrap_or_else(|why| panic!("{why}"));
        let path = format!("{root}/docs/CONFIGURATION.md");
        if std::env::var_os("FLIPBACK_DOCS").is_some() {
            std::fs::write(&path, &made).unwrap();
        }
        let kept = std::fs::read_to_string(&path).unwrap_or_default();
        assert!(kept == made, "docs/CONFIGURATION.md is not what the code makes: make docs");
        // A key that the code asks for and nobody speaks of is found.
        let less = example.replace("settle", "settel");
        assert!(reference(&less).is_err());
    }
}
