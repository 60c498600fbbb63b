//! The documents tell the truth: links lead somewhere, examples parse, verbs exist, each notice and alert has its page.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use flipback::domain::notice::NoticeReason;
use regex::Regex;

fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

/// Every document that people read.
fn documents() -> Vec<PathBuf> {
    let mut all: Vec<PathBuf> = ["README.md", "ARCHITECTURE.md", "CONTRIBUTING.md", "CHANGELOG.md"]
        .iter()
        .map(|name| root().join(name))
        .collect();
    let docs = fs::read_dir(root().join("docs")).unwrap().flatten().map(|entry| entry.path());
    all.extend(docs.filter(|path| path.extension().is_some_and(|end| end == "md")));
    assert!(all.len() > 14, "{all:?}");
    all
}

fn text(path: &Path) -> String {
    fs::read_to_string(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// Without code, in which brackets are not links.
fn prose(text: &str) -> String {
    let fences = Regex::new(r"(?s)```.*?```").unwrap();
    let code = Regex::new(r"`[^`\n]*`").unwrap();
    code.replace_all(&fences.replace_all(text, ""), "x").into_owned()
}

/// As the forges make them of headings.
fn anchors(text: &str) -> BTreeSet<String> {
    let headings = text.lines().filter_map(|line| line.strip_prefix('#')).map(|rest| rest.trim_start_matches('#'));
    headings
        .map(|heading| {
            let plain = heading.trim().to_lowercase();
            plain.chars().filter(|c| c.is_alphanumeric() || " -_".contains(*c)).collect::<String>().replace(' ', "-")
        })
        .collect()
}

#[test]
fn every_link_leads_somewhere() {
    let link = Regex::new(r"\]\(([^)\s]+)\)").unwrap();
    let mut followed = 0;
    for path in documents() {
        for found in link.captures_iter(&prose(&text(&path))) {
            let to = &found[1];
            if to.starts_with("http") {
                continue;
            }
            let (file, anchor) = to.split_once('#').unwrap_or((to, ""));
            let target = if file.is_empty() { path.clone() } else { path.parent().unwrap().join(file) };
            assert!(target.exists(), "{}: {to} is not there", path.display());
            if !anchor.is_empty() {
                assert!(anchors(&text(&target)).contains(anchor), "{}: {to} has no such heading", path.display());
            }
            followed += 1;
        }
    }
    println!("{followed} links");
    assert!(followed > 60);
}

#[test]
fn every_example_is_what_it_says() {
    let fence = Regex::new(r"(?s)```(\w+)\n(.*?)```").unwrap();
    let (mut tomls, mut jsons) = (0, 0);
    for path in documents() {
        for found in fence.captures_iter(&text(&path)) {
            match &found[1] {
                "toml" => {
                    toml::from_str::<toml::Table>(&found[2])
                        .unwrap_or_else(|error| panic!("{}: {error}\n{}", path.display(), &found[2]));
                    tomls += 1;
                }
                "json" => {
                    serde_json::from_str::<serde_json::Value>(&found[2])
                        .unwrap_or_else(|error| panic!("{}: {error}\n{}", path.display(), &found[2]));
                    jsons += 1;
                }
                _ => {}
            }
        }
    }
    println!("{tomls} examples in TOML, {jsons} in JSON");
    assert!(tomls >= 5 && jsons >= 1);
}

/// `flipback VERB --flag` as the documents write it is what the command line takes.
#[test]
fn every_verb_and_flag_exists() {
    let command = flipback::cli::command();
    let call = Regex::new(r"(?:^|[`\s])flipback ((?:[a-z]+)(?: [^`\n]*)?)").unwrap();
    let code = Regex::new(r"(?s)```(?:sh|bash)\n(.*?)```|`([^`\n]*)`").unwrap();
    let verbs: BTreeSet<String> = command.get_subcommands().map(|verb| verb.get_name().to_owned()).collect();
    let mut seen = BTreeSet::new();
    for path in documents() {
        for found in code.captures_iter(&text(&path)) {
            let part = found.get(1).or_else(|| found.get(2)).map_or("", |m| m.as_str());
            for one in call.captures_iter(part) {
                let line = one[1].split('#').next().unwrap_or_default();
                // A list of verbs (approve|decline) stands for each of them.
                for verb in line.split_whitespace().next().unwrap_or_default().split(['|', ',']) {
                    assert!(verbs.contains(verb), "{}: there is no verb {verb:?} in {line:?}", path.display());
                    let sub = command.find_subcommand(verb).unwrap();
                    for flag in line.split_whitespace().filter(|word| word.starts_with("--")) {
                        let name = flag.trim_start_matches('-').split(['=', ']', ')', ',', '|']).next().unwrap();
                        let known = |c: &clap::Command| c.get_arguments().any(|a| a.get_long() == Some(name));
                        let below = sub.get_subcommands().any(known);
                        let global = known(&command) || name == "help" || name.is_empty();
                        assert!(known(sub) || below || global, "{}: {verb} has no {flag} ({line})", path.display());
                    }
                    seen.insert(verb.to_owned());
                }
            }
        }
    }
    println!("{} of {} verbs are spoken of", seen.len(), verbs.len());
    let hidden: BTreeSet<&str> = command.get_subcommands().filter(|v| v.is_hide_set()).map(|v| v.get_name()).collect();
    let silent: Vec<&String> = verbs.iter().filter(|v| !seen.contains(*v) && !hidden.contains(v.as_str())).collect();
    assert!(silent.is_empty(), "no document speaks of {silent:?}");
}

#[test]
fn each_notice_and_each_alert_has_a_runbook() {
    let runbooks = text(&root().join("docs/RUNBOOKS.md"));
    let sections = anchors(&runbooks);
    for reason in NoticeReason::ALL {
        assert!(sections.contains(reason.word()), "{} has no runbook", reason.word());
    }
    for line in text(&root().join("config/monitoring/alerts.yml")).lines() {
        if let Some(name) = line.trim().strip_prefix("- alert: ") {
            assert!(sections.contains(&name.to_lowercase()), "{name} has no runbook");
        }
    }
}
