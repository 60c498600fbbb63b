//! `flipback journal`: is what stands in it true, and one switch's part of it as evidence.

use clap::Subcommand;
use serde_json::Value;

use super::{Global, Output, exit, print, print_json};
use crate::domain::switch::SwitchId;
use crate::journal::{Bundle, JournalError, Reader};
use crate::runtime::replay;

#[derive(Subcommand)]
pub enum Verb {
    /// Check the chain of hashes and decide everything once more; exit code 1 if anything differs
    Verify,
    /// Everything about one switch: readings, queries, decisions, outputs, notices
    Export { id: String },
}

pub fn run(global: &Global, verb: &Verb) -> i32 {
    let done = Reader::open(&global.state_dir).and_then(|reader| match verb {
        Verb::Verify => verify(global, &reader),
        Verb::Export { id } => export(global, &reader, id),
    });
    done.unwrap_or_else(|error| {
        eprintln!("flipback: {error}");
        exit::FAILED
    })
}

fn verify(global: &Global, reader: &Reader) -> Result<i32, JournalError> {
    let verified = replay::verify(reader)?;
    if global.output == Output::Json {
        print_json(&verified);
    } else {
        let audit = &verified.audit;
        let from = match audit.anchor {
            Some(seq) => format!("from the snapshot after input {seq}"),
            None => "from the beginning".into(),
        };
        print(&format!(
            "{} inputs ({} to {}) {from}\n{} decided once more, {} by another version, {} snapshots compared\nhead {}\n",
            audit.inputs,
            audit.first,
            audit.last,
            verified.replayed,
            verified.by_other_versions,
            verified.snapshots,
            audit.head
        ));
        audit.broken.iter().for_each(|what| print(&format!("BROKEN: {what}\n")));
        verified.differ.iter().for_each(|what| print(&format!("DIFFERS: {what}\n")));
        if verified.holds() {
            print("the journal holds\n");
        }
    }
    Ok(if verified.holds() { exit::OK } else { exit::FAILED })
}

fn export(global: &Global, reader: &Reader, id: &str) -> Result<i32, JournalError> {
    let Ok(id) = SwitchId::try_new(id) else {
        eprintln!("flipback: {id:?} is not the id of a switch");
        return Ok(exit::USAGE);
    };
    let Some(bundle) = reader.bundle(&id)? else {
        eprintln!("flipback: there is no watch {id} in the journal");
        return Ok(exit::FAILED);
    };
    if global.output == Output::Json {
        print_json(&bundle)
    } else {
        print(&text(&bundle))
    }
    Ok(exit::OK)
}

/// The same for people: what happened, what ran, who was told, and the raw entries in one line each.
fn text(bundle: &Bundle) -> String {
    let w = &bundle.watch;
    let word = |v: &Value| v.as_str().map_or_else(|| v.to_string(), str::to_owned);
    let mut out = format!(
        "{}: {} {} → {}, outcome {}\n\nStory\n",
        bundle.switch,
        word(&w["switch"]["service"]),
        word(&w["switch"]["old"]),
        word(&w["switch"]["new"]),
        if w["outcome"].is_null() { "none yet".to_owned() } else { word(&w["outcome"]) }
    );
    for event in w["timeline"].as_array().into_iter().flatten() {
        let at = event["at"]
            .as_i64()
            .map_or(String::new(), |ms| crate::domain::time::Timestamp::from_millis(ms).to_string());
        out.push_str(&format!("  {at} {}: {}\n", word(&event["kind"]), word(&event["text"])));
    }
    out.push_str("\nSteps\n");
    for a in &bundle.attempts {
        let argv: Vec<String> = a.run["action"]["argv"].as_array().into_iter().flatten().map(word).collect();
        out.push_str(&format!("  {} intended at {}: {}\n", a.attempt, a.intended_at, argv.join(" ")));
        if let Some(state) = &a.state {
            let output = state["ended"]["output"].as_str().unwrap_or_default();
            let ended = if state["ended"].is_object() { &state["ended"]["ended"] } else { state };
            out.push_str(&format!("    ended: {ended}\n"));
            output.lines().for_each(|line| out.push_str(&format!("    | {line}\n")));
        }
    }
    out.push_str("\nNotices\n");
    for n in &bundle.notices {
        out.push_str(&format!("  {} {} decided at {}\n", n.key, word(&n.reason), n.decided_at));
        for d in &n.deliveries {
            let fate = match (&d.delivered_at, &d.given_up_at, &d.error) {
                (Some(at), ..) => format!("delivered at {at}"),
                (None, Some(at), error) => format!("given up at {at}: {}", error.clone().unwrap_or_default()),
                (None, None, Some(error)) => format!("not delivered yet after {} tries: {error}", d.tries),
                (None, None, None) => "not delivered yet".into(),
            };
            let nth = if d.nth > 0 { format!(" (reminder {})", d.nth) } else { String::new() };
            out.push_str(&format!("    {}{nth}: {fate}\n", d.channel));
        }
    }
    out.push_str("\nJournal (input ⇒ decisions; older ones may be pruned)\n");
    for e in &bundle.entries {
        out.push_str(&format!("  {} {} {}\n", e.seq, e.at, e.input));
        e.decisions.iter().for_each(|d| out.push_str(&format!("      ⇒ {d}\n")));
    }
    out
}
