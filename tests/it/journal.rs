//! The store's promises: what is committed is there, bit for bit; what is not, is not at all.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::time::Duration;

use tempfile::TempDir;

use crate::stack::wait_until;

use flipback::config::{self, Overrides};
use flipback::domain::action::{Action, Exec};
use flipback::domain::baseline::BaselineAsk;
use flipback::domain::counts::{Buckets, Cell, Counts};
use flipback::domain::letter::Letter;
use flipback::domain::notice::{Notice, NoticeKey, NoticeReason};
use flipback::domain::plan::{AttemptId, AttemptState, StepEnd, StepResult};
use flipback::domain::service::{Metrics, SlotSpec};
use flipback::domain::switch::{ServiceName, Slot, SwitchId};
use flipback::domain::time::{Span, Timestamp};
use flipback::engine::Engine;
use flipback::engine::message::{Command, CommandId, Input, RecordedCells, RequestId, StepRun};
use flipback::journal::{Batch, Entry, Journal, JournalError, Reader, Recovered, RoutedTo, WatchFilter, Write};

const DATABASE: &str = "journal.db";

/// Cells stay as fine as they were recorded for so long.
const FINE_CELLS_FOR: Span = Span::from_mins(6 * 60);

const T0: Timestamp = Timestamp::from_millis(1_795_269_600_000);

fn attempt(n: u8) -> AttemptId {
    AttemptId { switch: SwitchId::try_new("checkout-1").unwrap(), step: 0, attempt: n }
}

fn run(n: u8) -> Command {
    Command::RunStep {
        run: Box::new(StepRun {
            attempt: attempt(n),
            service: ServiceName::try_new("checkout").unwrap(),
            step: "haproxy".into(),
            action: Action::Exec(Exec::new(["/bin/true"])),
            to: Slot::try_new("blue").unwrap(),
            env: BTreeMap::new(),
            start_by: T0,
            deadline: T0,
            lock: "/bin/true".into(),
        }),
    }
}

fn timer(at_s: u64, commands: Vec<Command>) -> Entry {
    Entry { at: T0 + Span::from_secs(at_s), input: Input::Timer, commands }
}

fn batch<'a>(entries: &'a [Entry], writes: &'a [Write], snapshot: Option<&'a str>) -> Batch<'a> {
    Batch { entries, views: &[], snapshot, writes, now: T0 }
}

/// A child of another test, between its fork and its exec, holds our lock for an instant.
fn open(dir: &Path) -> (Journal, Recovered) {
    wait_until(Duration::from_secs(5), "the journal opens", || match Journal::open(dir) {
        Err(JournalError::Locked { .. }) => None,
        other => Some(other.unwrap()),
    })
}

/// A watch as a real engine makes it, for notices and views.
fn engine_with_a_watch() -> (Engine, Vec<Entry>) {
    let example = concat!(env!("CARGO_MANIFEST_DIR"), "/config/minimal.toml");
    let settings = config::load(Path::new(example), &Overrides::default()).unwrap_or_else(|e| panic!("{e}"));
    let mut engine = Engine::new();
    let mut entries = Vec::new();
    let announcement = serde_json::from_value(serde_json::json!({
        "event_id": null, "service": "checkout", "old": "blue", "new": "green", "old_version": null,
        "version": "v2", "switched_at": null, "rollback": "safe", "assume_old": false, "source": "test"
    }))
    .unwrap();
    for input in [
        Input::Configured { services: settings.services, brakes: settings.brakes },
        Input::Announced { request: RequestId(1), announcement },
    ] {
        let commands = engine.handle(T0, &input);
        entries.push(Entry { at: T0, input, commands });
    }
    (engine, entries)
}

#[test]
fn what_was_committed_comes_back_in_order_and_bit_for_bit() {
    let dir = TempDir::new().unwrap();
    let (mut journal, recovered) = open(dir.path());
    assert_eq!((recovered.snapshot, recovered.tail.len()), (None, 0));
    let (_, mut entries) = engine_with_a_watch();
    // Floats that a short printing would change.
    let counts = Counts::try_new(0.1 + 0.2, 1e-300).unwrap();
    let cell = serde_json::json!({"cell": {"from": 0, "to": 1000, "counts": {"value": counts}, "latency": "absent",
        "targets": "absent", "custom": [["cpu", {"value": 0.1 + 0.7}]], "remarks": ["é\n\u{1F600}"]}});
    let id = CommandId { switch: SwitchId::try_new("checkout-1").unwrap(), n: 7 };
    let observation = serde_json::from_value(cell).unwrap();
    entries.push(Entry { at: T0, input: Input::Observed { id, observation, clock: None }, commands: Vec::new() });
    for entry in &entries {
        journal.commit(&batch(std::slice::from_ref(entry), &[], None)).unwrap();
    }
    drop(journal);
    let (_journal, recovered) = open(dir.path());
    let inputs: Vec<_> = entries.iter().map(|e| (e.at, e.input.clone())).collect();
    assert_eq!(recovered.tail, inputs);
}

#[test]
fn a_snapshot_shortens_the_tail() {
    let dir = TempDir::new().unwrap();
    let (mut journal, _) = open(dir.path());
    journal.commit(&batch(&[timer(1, vec![]), timer(2, vec![])], &[], Some("{\"state\":1}"))).unwrap();
    journal.commit(&batch(&[timer(3, vec![])], &[], None)).unwrap();
    drop(journal);
    let (_journal, recovered) = open(dir.path());
    assert_eq!(recovered.snapshot.unwrap().state_json, "{\"state\":1}");
    assert_eq!(recovered.tail, [(T0 + Span::from_secs(3), Input::Timer)]);
}

#[test]
fn an_attempt_that_is_used_twice_takes_its_whole_batch_with_it() {
    let dir = TempDir::new().unwrap();
    let (mut journal, _) = open(dir.path());
    journal.commit(&batch(&[timer(1, vec![run(1)])], &[], None)).unwrap();
    let again = journal.commit(&batch(&[timer(2, vec![]), timer(3, vec![run(1)])], &[], Some("{}")));
    assert!(matches!(&again, Err(JournalError::UsedTwice(id)) if id == "checkout-1.s0.a1"), "{again:?}");
    journal.commit(&batch(&[timer(4, vec![run(2)])], &[], None)).unwrap();
    drop(journal);
    let (_journal, recovered) = open(dir.path());
    let at: Vec<_> = recovered.tail.iter().map(|(at, _)| at.since(T0)).collect();
    assert_eq!(at, [Span::from_secs(1), Span::from_secs(4)], "nothing of the refused batch is there");
    assert_eq!(recovered.snapshot, None);
}

#[test]
fn a_second_writer_is_refused_and_told_by_whom() {
    let dir = TempDir::new().unwrap();
    let (journal, _) = open(dir.path());
    let Err(JournalError::Locked { pid, .. }) = Journal::open(dir.path()) else { panic!("not refused") };
    assert_eq!(pid, Some(std::process::id()));
    drop(journal);
    let _ = open(dir.path());
}

#[test]
fn a_notice_is_in_the_outbox_with_its_cause_and_once() {
    let dir = TempDir::new().unwrap();
    let (mut journal, _) = open(dir.path());
    let (mut engine, entries) = engine_with_a_watch();
    let view = engine.take_views().remove(0);
    let key = NoticeKey { switch: view.id.clone(), n: 1 };
    let notice = Notice { key: key.clone(), at: T0, reason: NoticeReason::Blind, watch: view.clone() };
    let told = |at_s| timer(at_s, vec![Command::Notify { notice: Box::new(notice.clone()) }]);
    let views = [view];
    journal.commit(&Batch { views: &views, ..batch(&entries, &[], None) }).unwrap();
    journal.commit(&batch(&[told(1)], &[], None)).unwrap();
    journal.commit(&batch(&[told(2)], &[], None)).unwrap();
    let reader = Reader::open(dir.path()).unwrap();
    let letter = Letter::Notice(Box::new(notice.clone()));
    assert_eq!(reader.unrouted(10).unwrap(), std::slice::from_ref(&letter));
    assert_eq!(reader.outbox_stats(T0).unwrap().undelivered, 1, "before a channel is known, too");

    let to = |channel: &str, repeat| RoutedTo { channel: channel.into(), repeat };
    let hours = Span::from_mins(240);
    let routed = Write::LetterRouted {
        letter: letter.key(),
        to: vec![to("oncall/email", Some(hours)), to("oncall/slack", None)],
        at: T0 + Span::from_secs(3),
    };
    journal.commit(&batch(&[], &[routed.clone(), routed], None)).unwrap();
    assert!(reader.unrouted(10).unwrap().is_empty());
    let due = |channel: &str, at: Timestamp| reader.due(channel, at, 10).unwrap();
    let mail = due("oncall/email", T0 + Span::from_secs(5));
    assert_eq!((mail.len(), &mail[0].letter, mail[0].tries), (1, &letter, 0));
    assert_eq!(mail[0].first_at, T0 + Span::from_secs(1), "late is counted from the cause on");

    let (key, later) = (mail[0].key.clone(), T0 + Span::from_mins(2));
    let delayed = Write::Delayed { key: key.clone(), next_at: later, error: "refused".into() };
    journal.commit(&batch(&[], std::slice::from_ref(&delayed), None)).unwrap();
    assert!(due("oncall/email", T0 + Span::from_secs(60)).is_empty());
    assert_eq!(due("oncall/slack", T0 + Span::from_secs(60)).len(), 1, "a channel in trouble holds up no other");
    let chat = due("oncall/slack", T0 + Span::from_secs(60)).remove(0).key;
    journal.commit(&batch(&[], &[Write::Delivered { key: chat, at: later }], None)).unwrap();
    assert_eq!(reader.outbox_stats(later).unwrap().undelivered, 1);
    assert_eq!(reader.next_due("oncall/email").unwrap(), Some(later));
    // A delay that was decided before the delivery does not bring it back.
    journal.commit(&batch(&[], &[Write::Delivered { key: key.clone(), at: later }, delayed], None)).unwrap();
    assert_eq!(reader.outbox_stats(later).unwrap().undelivered, 0, "a reminder whose time has not come is no arrear");

    // The reminder, and its end by a person's word.
    assert_eq!(reader.next_due("oncall/email").unwrap(), Some(later + hours));
    let reminder = due("oncall/email", later + hours).remove(0).key;
    assert_eq!((reminder.nth, &reminder.letter), (1, &key.letter));
    assert_eq!(reader.next_due("oncall/slack").unwrap(), None);
    let acknowledged = Write::Acknowledged { switch: notice.key.switch.clone() };
    journal.commit(&batch(&[], &[acknowledged], None)).unwrap();
    assert_eq!(reader.next_due("oncall/email").unwrap(), None);
}

#[test]
fn a_reader_reads_while_the_writer_writes() {
    let dir = TempDir::new().unwrap();
    let (mut journal, _) = open(dir.path());
    let reader = Reader::open(dir.path()).unwrap();
    let (mut engine, entries) = engine_with_a_watch();
    let views = engine.take_views();
    journal.commit(&Batch { views: &views, ..batch(&entries, &[], None) }).unwrap();
    let id = SwitchId::try_new("checkout-1").unwrap();
    assert_eq!(reader.watch(&id).unwrap().as_ref(), views.first());
    assert_eq!(reader.watches(&WatchFilter::default()).unwrap(), views);
    assert!(reader.watches(&WatchFilter { ended_only: true, ..WatchFilter::default() }).unwrap().is_empty());
    let other = Some(ServiceName::try_new("other").unwrap());
    assert!(reader.watches(&WatchFilter { service: other, ..WatchFilter::default() }).unwrap().is_empty());
}

#[test]
fn a_broken_file_is_refused_and_left_as_it_is() {
    let dir = TempDir::new().unwrap();
    let (mut journal, _) = open(dir.path());
    let many: Vec<_> = (0..500).map(|n| timer(n, vec![])).collect();
    journal.commit(&batch(&many, &[], None)).unwrap();
    drop(journal);
    let path = dir.path().join(DATABASE);
    let mut bytes = fs::read(&path).unwrap();
    assert!(bytes.len() > 20_000);
    for b in &mut bytes[8192..16_384] {
        *b = 0xA5;
    }
    fs::write(&path, &bytes).unwrap();
    assert!(Journal::open(dir.path()).is_err());
    assert_eq!(fs::read(&path).unwrap(), bytes, "never mended by guessing, never made anew");
}

#[test]
fn a_newer_schema_is_refused() {
    let dir = TempDir::new().unwrap();
    drop(open(dir.path()));
    let connection = rusqlite::Connection::open(dir.path().join(DATABASE)).unwrap();
    connection.pragma_update(None, "user_version", 999).unwrap();
    drop(connection);
    let refused = Journal::open(dir.path()).map(|_| ());
    assert!(matches!(&refused, Err(JournalError::NewerSchema { found: 999, .. })), "{refused:?}");
    assert!(Reader::open(dir.path()).is_err());
}

#[test]
fn pruning_merges_to_minutes_and_changes_no_sum() {
    let dir = TempDir::new().unwrap();
    let (mut journal, _) = open(dir.path());
    let service = ServiceName::try_new("checkout").unwrap();
    let slot = Slot::try_new("blue").unwrap();
    let now = T0 + FINE_CELLS_FOR + Span::from_mins(60);
    let bounds = vec![0.1, 0.2];
    let cells: Vec<Cell> = (0..4 * 90u64)
        .map(|i| Cell {
            from: T0 + Span::from_secs(15 * i),
            to: T0 + Span::from_secs(15 * (i + 1)),
            counts: Counts::try_new(100.0 + i as f64, 1.0).unwrap(),
            latency: Some(Buckets::try_new(bounds.clone(), vec![50.0, 90.0], 100.0 + i as f64).unwrap()),
        })
        .collect();
    let requests: f64 = cells.iter().map(|c| c.counts.requests()).sum();
    let write = Write::Cells(RecordedCells { service: service.clone(), slot: slot.clone(), cells });
    journal.commit(&batch(&[], &[write.clone(), write], None)).unwrap();
    // As time goes by, and not on the minute: a pass ends inside a minute, another finds minutes already.
    for seconds in [0, 7, 22, 60] {
        let now = now - Span::from_secs(60 - seconds);
        journal.commit(&batch(&[], &[Write::Prune { now }], None)).unwrap();
    }
    let reader = Reader::open(dir.path()).unwrap();
    let ask = BaselineAsk {
        service: service.clone(),
        slot,
        other: Slot::try_new("green").unwrap(),
        metrics: Metrics {
            name: "web".into(),
            from: Default::default(),
            requests: "$slot".into(),
            errors: None,
            latency: None,
            custom: vec![],
        },
        before: T0 + Span::from_mins(90),
        soak: Span::from_mins(30),
        whole_day: false,
        cells_min: 8,
        requests_min: 1000.0,
        slots: BTreeMap::new(),
    };
    let connection = rusqlite::Connection::open(dir.path().join(DATABASE)).unwrap();
    let (n, sum, bad, widest): (i64, f64, f64, i64) = connection
        .query_row("SELECT count(*), sum(requests), sum(bad), max(ended_at - began_at) FROM cells", [], |r| {
            Ok((r.get(0)?, r.get(1)?, r.get(2)?, r.get(3)?))
        })
        .unwrap();
    // The first hour is older than six hours and is minutes now; the half hour after it is not.
    assert_eq!((n, sum, bad, widest), (60 + 4 * 30, requests, 360.0, 60_000));
    let chosen = reader.choose_baseline(&ask).unwrap().unwrap();
    assert_eq!(chosen.latency.unwrap().total(), chosen.counts.requests(), "histograms were merged with their counts");
    // And in the end they go.
    let much_later = now + Span::from_mins(9 * 24 * 60);
    journal.commit(&batch(&[], &[Write::Prune { now: much_later }], None)).unwrap();
    assert_eq!(reader.last_cell_end(&service, None).unwrap(), None);
}

#[test]
fn pruning_keeps_the_inputs_that_a_restart_needs() {
    let dir = TempDir::new().unwrap();
    let (mut journal, _) = open(dir.path());
    journal.commit(&batch(&[timer(1, vec![])], &[], None)).unwrap();
    let later = T0 + Span::from_mins(30 * 24 * 60);
    journal.commit(&batch(&[], &[Write::Prune { now: later }], None)).unwrap();
    drop(journal);
    assert_eq!(open(dir.path()).1.tail.len(), 1, "without a snapshot every input is needed");
}

/// Inputs go after two days; what was read and said of a switch that broke stays for its post-mortem.
#[test]
fn the_readings_of_a_breach_outlive_their_inputs() {
    let dir = TempDir::new().unwrap();
    let (mut journal, _) = open(dir.path());
    let notice = |reason| flipback::edge::notify::sample::notice(reason).unwrap().watch.clone();
    let kinds = [("broke-1", NoticeReason::RolledBackRecovered), ("fine-1", NoticeReason::Passed)];
    for (n, (id, reason)) in kinds.into_iter().enumerate() {
        let switch = SwitchId::try_new(id).unwrap();
        let mut view = notice(reason);
        (view.id, view.ended_at, view.ticks) = (switch.clone(), Some(T0), 3);
        let command = CommandId { switch, n: 1 };
        let ask = serde_json::json!({"service": view.switch.service, "slot": view.switch.new, "spec": SlotSpec::default(),
            "metrics": view.metrics, "from": 0, "grid": 1000, "plausible_rate": null, "timeout": 1000});
        let asked = Command::Observe { id: command.clone(), ask: serde_json::from_value(ask).unwrap() };
        let cell = serde_json::json!({"cell": {"from": 0, "to": 1000, "counts": {"value": Counts::try_new(100.0, 7.0).unwrap()},
            "latency": "absent", "targets": "absent", "custom": [], "remarks": []}});
        let observation = serde_json::from_value(cell).unwrap();
        let answer =
            Entry { at: T0, input: Input::Observed { id: command, observation, clock: None }, commands: vec![] };
        let entries = [timer(n as u64, vec![asked]), answer];
        journal.commit(&Batch { entries: &entries, views: &[view], snapshot: None, writes: &[], now: T0 }).unwrap();
    }
    let reader = Reader::open(dir.path()).unwrap();
    let left = |id: &str| {
        let account = reader.account(&SwitchId::try_new(id).unwrap()).unwrap().unwrap();
        (account.readings.len(), account.judged.len(), account.ticks().len())
    };
    assert_eq!((left("broke-1"), left("fine-1")), ((1, 1, 1), (1, 1, 1)));
    // A snapshot to begin from, and time.
    journal.commit(&batch(&[timer(5, vec![])], &[], Some("{}"))).unwrap();
    for days in [1, 3, 5] {
        let now = T0 + Span::from_mins(days * 24 * 60);
        journal
            .commit(&Batch { now, ..batch(&[timer(days * 86_400, vec![])], &[Write::Prune { now }], Some("{}")) })
            .unwrap();
    }
    assert_eq!((left("broke-1"), left("fine-1")), ((1, 1, 1), (0, 0, 0)), "after days");
    let now = T0 + Span::from_mins(61 * 24 * 60);
    journal.commit(&batch(&[], &[Write::Prune { now }], None)).unwrap();
    assert_eq!(left("broke-1"), (0, 0, 0), "after two months");
}

#[test]
fn marks_are_set_shown_and_taken_away() {
    let dir = TempDir::new().unwrap();
    let (mut journal, _) = open(dir.path());
    let reader = Reader::open(dir.path()).unwrap();
    let service = ServiceName::try_new("checkout").unwrap();
    let (from, to) = (T0, T0 + Span::from_mins(60));
    let pin = |to| Write::Pin { service: service.clone(), from, to, by: "kim".into(), why: String::new() };
    let invalid = Write::Invalidate { service: service.clone(), from, to, by: "kim".into(), why: "load test".into() };
    journal.commit(&batch(&[], &[pin(T0 + Span::from_mins(1)), pin(to), invalid], None)).unwrap();
    let marks = reader.marks(&service).unwrap();
    assert_eq!((marks.pin.unwrap().to, marks.invalid[0].why.as_str()), (to, "load test"), "one pin: the last");
    journal.commit(&batch(&[], &[Write::Unpin { service: service.clone(), by: "kim".into() }], None)).unwrap();
    assert_eq!(reader.marks(&service).unwrap().pin, None);
}

#[test]
fn the_end_of_a_step_is_with_its_attempt() {
    let dir = TempDir::new().unwrap();
    let (mut journal, _) = open(dir.path());
    let state = AttemptState::Ended(StepResult {
        ended: StepEnd::Exited(0),
        started_at: T0,
        ended_at: T0,
        output: "moved\n".into(),
    });
    let ended = Entry { at: T0, input: Input::StepEnded { attempt: attempt(1), state }, commands: vec![] };
    journal.commit(&batch(&[timer(1, vec![run(1)]), ended], &[], None)).unwrap();
    let connection = rusqlite::Connection::open(dir.path().join(DATABASE)).unwrap();
    let stored: String = connection.query_row("SELECT state FROM attempts", [], |r| r.get(0)).unwrap();
    assert!(stored.contains("moved"), "{stored}");
}
