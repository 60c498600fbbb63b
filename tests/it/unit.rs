//! The systemd unit, by systemd's own tools.

use std::fs;
use std::process::Command;

use crate::stack::program;

const UNIT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/systemd/flipback.service");

/// The unit with a program that is there: `verify` looks for it.
fn copy(dir: &std::path::Path) -> std::path::PathBuf {
    let text = fs::read_to_string(UNIT).unwrap();
    assert!(text.contains("ExecStart=/usr/bin/flipback run"), "the copy must replace the real line");
    let path = dir.join("flipback.service");
    fs::write(&path, text.replace("/usr/bin/flipback", env!("CARGO_BIN_EXE_flipback"))).unwrap();
    path
}

#[test]
fn systemd_finds_nothing_to_say_about_the_unit() {
    let dir = tempfile::tempdir().unwrap();
    // It exits 0 on warnings: any output is a failure.
    let done =
        Command::new(program("systemd-analyze")).args(["verify", "--man=no"]).arg(copy(dir.path())).output().unwrap();
    let said = format!("{}{}", String::from_utf8_lossy(&done.stdout), String::from_utf8_lossy(&done.stderr));
    assert!(done.status.success() && said.trim().is_empty(), "{said}");
}

#[test]
fn the_unit_is_exposed_by_at_most_two_points() {
    let dir = tempfile::tempdir().unwrap();
    let done = Command::new(program("systemd-analyze"))
        .args(["security", "--offline=true", "--no-pager", "--threshold=20"])
        .arg(copy(dir.path()))
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&done.stdout);
    let line = said.lines().find(|l| l.contains("Overall exposure level")).unwrap_or_else(|| panic!("{said}"));
    println!("{line}");
    let score: f64 = line.split_whitespace().find_map(|w| w.parse().ok()).unwrap();
    assert!(done.status.success() && score <= 2.0, "{line}");
}
