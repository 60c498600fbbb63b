//! A file that names the slot (an nginx include), or a symlink that points to it (`current`).

use std::collections::BTreeMap;
use std::path::Path;

use crate::domain::switch::Slot;

/// An include of one upstream is a few lines; a larger file is the wrong one.
const FILE_MAX: u64 = 64 * 1024;

pub async fn content(path: &Path) -> Result<String, String> {
    let wrong = |error: std::io::Error| format!("{}: {error}", path.display());
    let meta = tokio::fs::metadata(path).await.map_err(wrong)?;
    if !meta.is_file() {
        return Err(format!("{} is no file", path.display()));
    }
    if meta.len() > FILE_MAX {
        return Err(format!("{} is larger than {} KiB", path.display(), FILE_MAX / 1024));
    }
    tokio::fs::read_to_string(path).await.map_err(wrong)
}

/// The last part of what the link points to.
pub async fn target(path: &Path) -> Result<String, String> {
    let target = tokio::fs::read_link(path).await.map_err(|error| format!("{}: {error}", path.display()))?;
    let name = target.file_name().and_then(|name| name.to_str());
    name.map(str::to_owned)
        .ok_or_else(|| format!("{} points to {}, which has no name", path.display(), target.display()))
}

/// The one slot whose word stands in the text, comments aside.
pub fn named_in(text: &str, words: &BTreeMap<Slot, Vec<String>>) -> Result<String, String> {
    let code: Vec<&str> = text.lines().map(|line| line.split('#').next().unwrap_or_default()).collect();
    let stands = |word: &String| code.iter().any(|line| has_word(line, word));
    let found: Vec<&str> =
        words.iter().filter(|(_, words)| words.iter().any(stands)).map(|(slot, _)| slot.as_str()).collect();
    match found.as_slice() {
        [one] => Ok((*one).to_owned()),
        [] => Err(format!(
            "none of {} is in it",
            words.values().flatten().map(String::as_str).collect::<Vec<_>>().join(", ")
        )),
        many => Err(format!("it names {} at once", many.join(" and "))),
    }
}

/// As a word of its own: `green` is not in `evergreen`, `127.0.0.1:80` not in `127.0.0.1:8080`.
fn has_word(line: &str, word: &str) -> bool {
    let part = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '-' | '.' | ':');
    line.match_indices(word).any(|(at, _)| {
        let before = line[..at].chars().next_back();
        let after = line[at + word.len()..].chars().next();
        !before.is_some_and(part) && !after.is_some_and(part)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words() -> BTreeMap<Slot, Vec<String>> {
        let slot = |name| Slot::try_new(name).unwrap();
        [("blue", "127.0.0.1:80"), ("green", "127.0.0.1:8080")].map(|(s, w)| (slot(s), vec![w.to_owned()])).into()
    }

    #[test]
    fn one_slot_is_named_or_none() {
        let of = |text: &str| named_in(text, &words());
        assert_eq!(of("# blue was 127.0.0.1:80\nserver 127.0.0.1:8080;\n"), Ok("green".into()));
        assert_eq!(of("server 127.0.0.1:80 weight=1;"), Ok("blue".into()));
        assert!(of("server 127.0.0.1:81;").unwrap_err().contains("none of"));
        assert!(of("server 127.0.0.1:80; server 127.0.0.1:8080;").unwrap_err().contains("blue and green at once"));
    }
}
