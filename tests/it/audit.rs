//! The journal's chain: what stands there is what was decided, and whoever changes it is found out.

use std::path::Path;

use flipback::config::{self, Overrides};
use flipback::domain::switch::SwitchId;
use flipback::domain::time::{Span, Timestamp};
use flipback::engine::Engine;
use flipback::engine::message::{Input, RequestId};
use flipback::journal::{Batch, Entry, Journal, Reader, Write};
use flipback::runtime::replay::{Verified, verify};
use rusqlite::Connection;
use tempfile::TempDir;

const T0: Timestamp = Timestamp::from_millis(1_795_269_600_000);

/// An engine whose every turn goes to a journal, as the daemon's does.
struct Daemon {
    engine: Engine,
    journal: Journal,
    now: Timestamp,
}

impl Daemon {
    fn new(dir: &Path) -> Daemon {
        let (journal, _) = Journal::open(dir).unwrap();
        let mut daemon = Daemon { engine: Engine::new(), journal, now: T0 };
        let example = concat!(env!("CARGO_MANIFEST_DIR"), "/config/minimal.toml");
        let settings = config::load(Path::new(example), &Overrides::default()).unwrap_or_else(|e| panic!("{e}"));
        daemon.put(Input::Configured { services: settings.services, brakes: settings.brakes }, false);
        daemon
    }

    fn put(&mut self, input: Input, snapshot: bool) {
        let commands = self.engine.handle(self.now, &input);
        let views = self.engine.take_views();
        let state = snapshot.then(|| serde_json::to_string(&self.engine).unwrap());
        let entries = [Entry { at: self.now, input, commands }];
        let batch = Batch { entries: &entries, views: &views, snapshot: state.as_deref(), writes: &[], now: self.now };
        self.journal.commit(&batch).unwrap();
    }

    fn announce(&mut self, version: &str) {
        let announcement = serde_json::from_value(serde_json::json!({
            "event_id": null, "service": "checkout", "old": "blue", "new": "green", "old_version": null,
            "version": version, "switched_at": null, "rollback": "safe", "assume_old": true, "source": "test"
        }))
        .unwrap();
        self.put(Input::Announced { request: RequestId(1), announcement }, false);
    }

    /// Timers until the watch gives up: it is blind, which is told.
    fn live(&mut self, span: Span) {
        let until = self.now + span;
        let mut n = 0;
        while self.now < until {
            let soon = self.now + Span::from_millis(100);
            self.now = self.engine.next_deadline().unwrap_or(until).max(soon).min(until);
            n += 1;
            self.put(Input::Timer, n % 50 == 0);
        }
    }

    fn prune(&mut self) {
        let writes = [Write::Prune { now: self.now }];
        let state = serde_json::to_string(&self.engine).unwrap();
        let batch = Batch { entries: &[], views: &[], snapshot: Some(&state), writes: &[], now: self.now };
        self.journal.commit(&batch).unwrap();
        let batch = Batch { entries: &[], views: &[], snapshot: None, writes: &writes, now: self.now };
        self.journal.commit(&batch).unwrap();
    }
}

fn audit(dir: &Path) -> Verified {
    verify(&Reader::open(dir).unwrap()).unwrap()
}

fn lived() -> (TempDir, Verified) {
    let dir = TempDir::new().unwrap();
    let mut daemon = Daemon::new(dir.path());
    daemon.announce("v2");
    daemon.live(Span::from_mins(20));
    drop(daemon);
    let verified = audit(dir.path());
    (dir, verified)
}

#[test]
fn what_was_decided_is_decided_again() {
    let (_dir, verified) = lived();
    assert!(verified.holds(), "{verified:?}");
    assert!(verified.replayed > 100 && verified.replayed == verified.audit.inputs && verified.snapshots >= 1);
}

#[test]
fn whoever_changes_anything_is_found_out() {
    for (sql, said) in [
        ("UPDATE inputs SET at = at + 1 WHERE seq = 40", "its hash is not that of what stands there"),
        ("UPDATE inputs SET input = '\"started\"' WHERE seq = 40", "its hash is not that of what stands there"),
        ("DELETE FROM inputs WHERE seq = 40", "what was between them is gone"),
        ("DELETE FROM inputs WHERE seq < 5", "there is no anchor before it"),
        (
            "UPDATE decisions SET command = replace(command, 'checkout-1', 'checkout-2') WHERE seq = 2 AND n = 0",
            "its hash is not that of what stands there",
        ),
        (
            "UPDATE outbox SET notice = replace(notice, 'blind', 'passed') WHERE key LIKE 'checkout-1.n%'",
            "is not the one",
        ),
        (
            "UPDATE snapshots SET state = replace(state, '\"disarmed_all\":false', '\"disarmed_all\":true')",
            "the snapshot",
        ),
    ] {
        let (dir, before) = lived();
        let connection = Connection::open(dir.path().join("journal.db")).unwrap();
        connection.execute_batch("PRAGMA foreign_keys = OFF").unwrap();
        assert!(connection.execute(sql, []).unwrap() > 0, "{sql}");
        let verified = audit(dir.path());
        let all = [verified.audit.broken.clone(), verified.differ.clone()].concat().join("\n");
        assert!(!verified.holds() && all.contains(said), "{sql}: {all}");
        assert!(before.holds());
    }
}

/// A whole chain forged anew has other hashes than the one that was written down elsewhere.
#[test]
fn the_head_names_the_whole_past() {
    let (_one, a) = lived();
    let dir = TempDir::new().unwrap();
    let mut daemon = Daemon::new(dir.path());
    daemon.announce("v3");
    daemon.live(Span::from_mins(20));
    let b = audit(dir.path());
    assert!(b.holds() && a.audit.head != b.audit.head);
    assert_eq!(audit(dir.path()).audit.head, b.audit.head);
}

#[test]
fn pruning_leaves_an_anchor_to_begin_from() {
    let dir = TempDir::new().unwrap();
    let mut daemon = Daemon::new(dir.path());
    for day in 0..6 {
        daemon.announce(&format!("v{day}"));
        daemon.live(Span::from_mins(20));
        for _ in 0..24 {
            daemon.now = daemon.now + Span::from_mins(59);
            daemon.prune();
        }
    }
    drop(daemon);
    let verified = audit(dir.path());
    assert!(verified.holds(), "{verified:?}");
    assert!(verified.audit.first > 100 && verified.audit.anchor == Some(verified.audit.first - 1), "{verified:?}");
    // What is left begins at least two days back.
    let (_journal, recovered) = Journal::open(dir.path()).unwrap();
    assert!(recovered.snapshot.is_some());
}

#[test]
fn one_switchs_evidence_is_in_one_file() {
    let (dir, _) = lived();
    let reader = Reader::open(dir.path()).unwrap();
    let bundle = reader.bundle(&SwitchId::try_new("checkout-1").unwrap()).unwrap().unwrap();
    assert!(bundle.entries.len() > 20 && bundle.notices.iter().any(|n| n.reason == "blind"), "{bundle:?}");
    assert_eq!(bundle.watch["switch"]["version"], "v2");
    let all = serde_json::to_string(&bundle).unwrap();
    assert!(all.contains("observe") && all.contains("http_requests_total"), "the questions are in it");
    assert_eq!(reader.bundle(&SwitchId::try_new("checkout-9").unwrap()).unwrap(), None);
}
