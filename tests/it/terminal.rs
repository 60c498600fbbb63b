//! The terminal's views, in a real terminal (tmux) and through a pipe.

use std::fs;
use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

use crate::stack::{Options, Stack, program, wait_until};

/// A terminal of its own; the server ends with it.
struct Terminal {
    socket: String,
}

impl Terminal {
    fn start(
        stack: &Stack,
        name: &str,
        columns: u32,
        rows: u32,
        environment: &[(&str, &str)],
        args: &[&str],
    ) -> Terminal {
        let terminal = Terminal { socket: stack.dir.path().join(format!("{name}.tmux")).display().to_string() };
        let mut command = Command::new(program("tmux"));
        command.args(["-f", "/dev/null", "-S", &terminal.socket, "new-session", "-d"]);
        command.args(["-x", &columns.to_string(), "-y", &rows.to_string()]);
        for (key, value) in environment {
            command.args(["-e", &format!("{key}={value}")]);
        }
        command.arg(env!("CARGO_BIN_EXE_flipback")).args(args);
        command.arg("--socket").arg(stack.dir.path().join("control.sock"));
        command.arg("--state-dir").arg(stack.dir.path().join("state"));
        // What is printed last stays to be looked at.
        command.args([";", "set-option", "-w", "remain-on-exit", "on"]);
        let done = command.env("LANG", "C.UTF-8").output().unwrap();
        assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
        terminal
    }

    fn capture(&self, with_colours: bool) -> String {
        let mut command = Command::new(program("tmux"));
        // With the lines that the end of the command may have pushed out of sight.
        command.args(["-S", &self.socket, "capture-pane", "-p", "-S", "-3"]);
        if with_colours {
            command.arg("-e");
        }
        String::from_utf8_lossy(&command.env("LANG", "C.UTF-8").output().unwrap().stdout).into_owned()
    }

    fn wait_for(&self, what: &str) -> String {
        wait_until(Duration::from_secs(60), &format!("{what:?} on the terminal: {}", self.capture(false)), || {
            Some(self.capture(false)).filter(|seen| seen.contains(what))
        })
    }
}

impl Drop for Terminal {
    fn drop(&mut self) {
        let _ = Command::new(program("tmux")).args(["-S", &self.socket, "kill-server"]).output();
    }
}

/// Keeps a capture where README wants it: `make pictures` says where.
fn keep(name: &str, text: &str) {
    let Some(place) = std::env::var_os("FLIPBACK_TERMINAL_TO") else { return };
    // Where it was captured is nobody's business.
    let elsewhere = regex::Regex::new("/tmp/flipback-i[^ …]*").unwrap();
    let text = text.replace(env!("CARGO_MANIFEST_DIR"), ".");
    let text = elsewhere.replace_all(&text, "/run/demo");
    let lines = text.lines().map(str::trim_end).filter(|line| !line.starts_with("Pane is dead"));
    let text = lines.collect::<Vec<_>>().join("\n");
    fs::write(PathBuf::from(place).join(format!("{name}.txt")), format!("{}\n", text.trim_end())).unwrap();
}

fn plain(text: &str) -> bool {
    !text.chars().any(|c| c.is_control() && c != '\n')
}

#[test]
fn a_watch_is_followed_on_terminals_and_through_a_pipe() {
    let mut stack = Stack::start(&Options { soak: "60s", ..Options::default() });
    stack.seed_normal();
    stack.start_daemon();
    // Begun before there is anything to follow.
    let wide = Terminal::start(&stack, "wide", 110, 34, &[], &["follow"]);
    stack.switch_to("green");
    let id = stack.announce();
    let narrow = Terminal::start(&stack, "narrow", 48, 24, &[], &["follow", &id]);
    let bleak = Terminal::start(&stack, "bleak", 100, 30, &[("NO_COLOR", "1")], &["follow", &id]);
    let piped = std::thread::spawn({
        let (socket, id) = (stack.dir.path().join("control.sock"), id.clone());
        move || {
            Command::new(env!("CARGO_BIN_EXE_flipback")).args(["follow", &id, "--socket"]).arg(socket).output().unwrap()
        }
    });
    wide.wait_for("SOAKING");
    let seen = wide.wait_for("░");
    assert!(
        seen.contains("checkout blue → green (v1.3)")
            && seen.contains("Evidence")
            && seen.contains("step haproxy ready"),
        "{seen}"
    );
    wait_until(Duration::from_secs(30), "ten ticks", || (stack.watch(&id)["ticks"].as_u64()? >= 10).then_some(()));
    keep("follow", &wide.capture(false));
    assert!(wide.capture(true).contains("\u{1b}[3"), "colours: {}", wide.capture(true));
    let seen = bleak.wait_for("SOAKING");
    assert!(
        !bleak.capture(true).contains("\u{1b}[3") && !bleak.capture(true).contains("\u{1b}[1m"),
        "NO_COLOR: {seen}"
    );
    let seen = narrow.wait_for("SOAKING");
    assert!(!seen.contains('░') && seen.lines().all(|line| line.chars().count() <= 48), "no room for bars: {seen}");
    keep("follow-narrow", &seen);
    let status = Terminal::start(&stack, "status", 120, 24, &[], &["status"]);
    keep("status", &status.wait_for("SOAKING"));

    stack.fault("green", "errors=0.3");
    let seen = wide.wait_for("ROLLED BACK");
    assert!(seen.contains("step haproxy done"), "{seen}");
    keep("follow-ended", &wide.capture(false));
    narrow.wait_for("ROLLED BACK");

    let piped = piped.join().unwrap();
    let text = String::from_utf8(piped.stdout).unwrap();
    assert!(piped.status.success() && plain(&text), "{text:?}");
    for wanted in
        ["announced: checkout blue → green", "SOAKING", "breached: error rate", "ended: rolled_back_recovered"]
    {
        assert!(text.contains(wanted), "{wanted}: {text}");
    }
    for args in [
        vec!["status"],
        vec!["show", &id],
        vec!["history"],
        vec!["history", "--outcome", "rolled_back_recovered", "--since", "1h", "--ended"],
        vec!["explain", &id],
        vec!["explain", &id, "--ticks"],
        vec!["report", &id],
        vec!["report", &id, "-o", "html"],
    ] {
        let done = stack.flipback(&args);
        let text = String::from_utf8(done.stdout).unwrap();
        assert!(done.status.success() && plain(&text) && !text.is_empty(), "{args:?}: {text:?}");
        assert!(!text.contains("played again"), "played again the same tick decides: {text}");
        if args[0] == "history" {
            assert!(text.contains(&id), "{args:?}: {text}");
        }
    }
    let none = stack.flipback(&["history", "--outcome", "passed"]);
    assert_eq!(String::from_utf8_lossy(&none.stdout), "no watches\n");
    for wrong in
        [&["history", "--outcome", "nice"][..], &["history", "--since", "yesterday"], &["history", "--open", "--ended"]]
    {
        assert_eq!(stack.flipback(wrong).status.code(), Some(2), "{wrong:?}");
    }
    let explain = Terminal::start(&stack, "explain", 130, 120, &[], &["explain", &id]);
    keep("explain", &explain.wait_for("RULES OF OTHER TOOLS"));

    // A post-mortem in one file: nothing of it comes from elsewhere.
    let html = String::from_utf8(stack.flipback(&["report", &id, "-o", "html"]).stdout).unwrap();
    assert!(html.matches("<svg").count() >= 4 && html.contains("To be written by people"), "charts");
    assert!(!html.contains("src=") && !html.contains("href=") && !html.contains("@import") && !html.contains("url("));
    let md = String::from_utf8(stack.flipback(&["report", &id]).stdout).unwrap();
    for wanted in [
        "# checkout blue → green (v1.3): ROLLED BACK",
        "Onset to proof",
        "| tick | after |",
        "Flagger 5",
        "**decides**",
    ] {
        assert!(md.contains(wanted), "{wanted}: {md}");
    }
    if let Some(place) = std::env::var_os("FLIPBACK_REPORT_TO") {
        fs::write(PathBuf::from(&place).join("report.html"), html).unwrap();
        fs::write(PathBuf::from(&place).join("report.md"), md).unwrap();
    }

    // Down: the same from the state directory, with a word about it.
    stack.daemon = None;
    let again = stack.flipback(&["explain", &id]);
    assert!(again.status.success() && String::from_utf8_lossy(&again.stderr).contains("nothing is being watched now"));
    assert!(String::from_utf8_lossy(&again.stdout).contains("decided: breached"));
}
