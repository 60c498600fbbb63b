//! Where a service's counts come from, when it is not Prometheus's queries.

use super::action::{call, target};
use super::service::SECOND;
use super::step::{env, known_variables};
use super::table::{At, Table};
use crate::domain::action::{Exec, HttpCall, HttpTarget};
use crate::domain::origin::{CountsAsk, CountsWay, NormalFrom, Origin, Scraping};
use crate::domain::time::Span;
use crate::edge::sources::check_answer_template;

/// What a command's arguments and a request's address and body may name.
pub(super) const COUNTS_VARIABLES: [&str; 9] =
    ["service", "slot", "from", "to", "from_s", "to_s", "from_ms", "to_ms", "step_s"];

#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    Prometheus,
    Scrape,
    Command,
    Http,
}

pub(super) const KINDS: [(&str, Kind); 4] =
    [("prometheus", Kind::Prometheus), ("scrape", Kind::Scrape), ("command", Kind::Command), ("http", Kind::Http)];

/// Keys of the table besides the selectors.
pub(super) fn origin(table: &Table<'_, '_>, kind: Kind) -> Option<Origin> {
    match kind {
        Kind::Prometheus => Some(Origin::Prometheus),
        Kind::Scrape => {
            let every = table
                .get("every")
                .and_then(|at| at.duration(SECOND..=Span::from_secs(60), "shorter costs more than it shows"))
                .unwrap_or(Span::from_secs(1));
            let normals = [("scrape", NormalFrom::Scrape), ("prometheus", NormalFrom::Prometheus)];
            let normal = table.get("normal").and_then(|at| at.word(&normals)).unwrap_or(NormalFrom::Scrape);
            Some(Origin::Scrape(Scraping { every, normal }))
        }
        Kind::Command | Kind::Http => counts(table, kind).map(|ask| Origin::Counts(Box::new(ask))),
    }
}

fn counts(table: &Table<'_, '_>, kind: Kind) -> Option<CountsAsk> {
    let way = if kind == Kind::Command {
        let exec = table.need("exec", "exec = [\"/usr/local/lib/flipback/counts\", \"$slot\", \"$from\", \"$to\"]");
        let exec = exec.and_then(|at| arguments(&at));
        let env = table.get("env").map_or(Some(Default::default()), |at| env(&at));
        exec.and_then(|exec| Some(CountsWay::Command(Exec { env: env?, ..exec })))
    } else {
        let help = "http = { url = \"http://127.0.0.1:8080/counts?slot=$slot&from=$from&to=$to\" }";
        table.need("http", help).and_then(|at| http(&at)).map(CountsWay::Http)
    };
    let span = |key: &'static str, default: Span, range: std::ops::RangeInclusive<Span>, why: &str| {
        table.get(key).and_then(|at| at.duration(range, why)).unwrap_or(default)
    };
    let (minute, quarter) = (Span::from_mins(1), Span::from_mins(15));
    let every = span("every", minute, SECOND..=Span::from_mins(5), "a breach must be found within minutes");
    let settle =
        span("settle", Span::from_secs(5), Span::ZERO..=quarter, "counts that come later are lost to the soak");
    let timeout = span("timeout", Span::from_secs(10), SECOND..=minute, "the next tick is due by then");
    let answer = table.get("answer").map(|at| {
        let text = at.string()?;
        match check_answer_template(text) {
            Ok(()) => Some(text.to_owned()),
            Err(why) => {
                at.problem(format!("is no template: {why}"), None);
                None
            }
        }
    });
    let whole = |span: Span| span.as_millis().is_multiple_of(1000);
    if !whole(every) {
        table.problem(&format!("{}.every", table.path), "must be whole seconds", None);
    }
    Some(CountsAsk { way: way?, every, settle, timeout, answer: answer.map_or(Some(None), |a| a.map(Some))? })
}

/// An absolute program and its arguments. Variables may stand anywhere in them: their values are times, numbers and
/// names of a plain alphabet, and there is no shell.
fn arguments(at: &At<'_, '_>) -> Option<Exec> {
    let elements = at.strings()?;
    let program: Vec<_> = elements.iter().take(1).map(|(element, _)| *element).collect();
    let [program] = program.as_slice() else {
        at.problem("is empty", Some("[\"/usr/local/lib/flipback/counts\", \"$slot\", \"$from\", \"$to\"]"));
        return None;
    };
    if !program.starts_with('/') {
        at.problem(
            format!("{:?} is not an absolute path", program.chars().take(60).collect::<String>()),
            Some("there is no shell and no search: name the program's whole path"),
        );
    }
    for (element, place) in &elements {
        if element.contains('\0') {
            place.problem("holds a NUL", None);
        }
        known_variables(place, element, &COUNTS_VARIABLES);
    }
    Some(Exec::new(elements.iter().map(|(element, _)| *element)))
}

fn http(at: &At<'_, '_>) -> Option<HttpCall> {
    let methods = ["GET", "POST"].map(|m| (m, m));
    let table = at.table()?;
    let method = table.get("method").map_or(Some("GET"), |at| at.word(&methods));
    call(table, method, &COUNTS_VARIABLES)
}

/// A metrics page, or several: an address, or a table with what it takes to be let in.
pub(super) fn pages(at: &At<'_, '_>) -> Option<Vec<HttpTarget>> {
    /// A slot of more processes than that has a server that scrapes them.
    const PAGES_MAX: usize = 64;
    let list = if at.value.as_array().is_some() { at.list()? } else { vec![at.clone()] };
    let mut all: Vec<HttpTarget> = Vec::new();
    for at in &list {
        let page = if at.is_table() {
            let t = at.table()?;
            let page = target(&t, &[]);
            t.finish();
            page?
        } else {
            let url = super::read::checked_url(at)?.to_owned();
            HttpTarget { url, headers: Default::default(), secret: None, more_secrets: Vec::new(), ca_file: None }
        };
        if all.iter().any(|known| known.url == page.url) {
            at.problem("is there twice", Some("its requests would be counted twice"));
        }
        all.push(page);
    }
    if all.is_empty() {
        at.problem("names no page", Some("scrape = \"http://127.0.0.1:9001/metrics\""));
        return None;
    }
    if all.len() > PAGES_MAX {
        at.problem(format!("more than {PAGES_MAX} pages of one slot"), Some("let Prometheus scrape them"));
    }
    Some(all)
}
