//! Imports run one way: main → cli → runtime → {edge, journal, config} → engine → judge → domain.

use std::fs;
use std::path::Path;

/// What a layer may import of this crate, itself besides.
const ALLOWED: [(&str, &[&str]); 16] = [
    // Names of guards that the simulator's tests remove: `false` everywhere else.
    ("planted", &[]),
    ("domain", &["planted"]),
    ("judge", &["domain"]),
    ("chart", &["domain"]),
    // Text for people, whatever they read it on.
    ("words", &["domain"]),
    ("account", &["domain", "judge", "chart", "words"]),
    ("face", &["domain", "judge", "chart", "words", "account"]),
    ("engine", &["domain", "judge", "planted"]),
    ("config", &["domain", "engine::message", "judge", "edge"]),
    ("journal", &["domain", "engine::message", "judge"]),
    // Edge never imports engine internals.
    (
        "edge",
        &[
            "domain",
            "engine::message",
            "judge",
            "chart",
            "words",
            "account",
            "face",
            "config",
            "journal",
            "shim",
            "planted",
        ],
    ),
    ("shim", &["domain"]),
    // Every parser of foreign bytes, for the fuzzer.
    ("foreign", &["domain", "engine::message", "config", "journal", "edge"]),
    ("runtime", &["domain", "engine", "judge", "face", "config", "journal", "edge", "shim", "planted"]),
    // The fault simulator turns the daemon's own wheel.
    (
        "sim",
        &["domain", "engine", "judge", "config", "journal", "edge::notify", "runtime", "account", "words", "planted"],
    ),
    (
        "cli",
        &[
            "domain", "engine", "judge", "config", "journal", "edge", "shim", "runtime", "sim", "words", "account",
            "face",
        ],
    ),
];

/// Words that have no place in the pure layers: a clock, a file, a socket, a process, a random number.
const IMPURE: [&str; 10] = [
    "SystemTime",
    "Instant::",
    "std::fs",
    "std::net",
    "std::process",
    "std::env",
    "tokio",
    "rand::",
    "chrono",
    "tracing",
];

fn files(dir: &Path, out: &mut Vec<String>) {
    for entry in fs::read_dir(dir).unwrap().flatten() {
        let path = entry.path();
        if path.is_dir() {
            files(&path, out);
        } else if path.extension().is_some_and(|e| e == "rs") {
            out.push(path.to_str().unwrap().to_owned());
        }
    }
}

/// Uses of `crate::…` in a text: the path behind it.
fn imports(text: &str) -> Vec<String> {
    let mut found = Vec::new();
    for (at, _) in text.match_indices("crate::") {
        let rest = &text[at + 7..];
        if let Some(list) = rest.strip_prefix('{') {
            let inner = list.split('}').next().unwrap_or_default();
            found.extend(inner.split(',').map(|p| p.trim().to_owned()).filter(|p| !p.is_empty()));
        } else {
            found.push(rest.chars().take_while(|c| c.is_alphanumeric() || "_:".contains(*c)).collect());
        }
    }
    found
}

fn violations(layer: &str, file: &str, text: &str) -> Vec<String> {
    let Some((_, allowed)) = ALLOWED.iter().find(|(name, _)| *name == layer) else {
        return vec![format!("{file}: {layer} is no layer of the map")];
    };
    let code: String = text.lines().filter(|l| !l.trim_start().starts_with("//")).collect::<Vec<_>>().join("\n");
    // A module's own unit tests may reach further.
    let code = code.split("#[cfg(test)]\nmod tests").next().unwrap_or_default();
    let mut wrong: Vec<String> = imports(code)
        .into_iter()
        .filter(|path| {
            let in_list = |p: &str| path == p || path.starts_with(&format!("{p}::"));
            path.split("::").next() != Some(layer) && !allowed.iter().any(|p| in_list(p))
        })
        .map(|path| format!("{file}: {layer} imports crate::{path}"))
        .collect();
    if matches!(layer, "domain" | "judge" | "engine" | "chart" | "words" | "account" | "face") {
        wrong.extend(
            IMPURE.iter().filter(|w| code.contains(**w)).map(|w| format!("{file}: {layer} is pure, but says {w}")),
        );
    }
    wrong
}

#[test]
fn imports_run_one_way() {
    let src = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut all = Vec::new();
    files(&src, &mut all);
    assert!(all.len() > 40, "the walk must find the sources");
    let mut wrong = Vec::new();
    for file in all {
        let relative = Path::new(&file).strip_prefix(&src).unwrap().to_str().unwrap().to_owned();
        let layer = relative.split('/').next().unwrap().trim_end_matches(".rs").to_owned();
        if matches!(layer.as_str(), "main" | "lib") {
            continue;
        }
        wrong.extend(violations(&layer, &relative, &fs::read_to_string(&file).unwrap()));
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn the_walk_sees_a_wrong_import() {
    assert_eq!(violations("engine", "x", "use crate::journal::Reader;").len(), 1);
    assert_eq!(violations("edge", "x", "use crate::engine::Engine;").len(), 1);
    assert_eq!(violations("edge", "x", "use crate::engine::message::Input;").len(), 0);
    assert_eq!(violations("domain", "x", "use crate::{judge::Rule, domain::time};").len(), 1);
    assert_eq!(violations("judge", "x", "let t = std::time::SystemTime::now();").len(), 1);
}
