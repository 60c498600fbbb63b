//! `flipback backtest`: what a policy would have done with the switches of the past.

mod gather;
mod list;

use std::path::PathBuf;
use std::sync::Arc;

use clap::Args;
use indicatif::{ProgressBar, ProgressStyle};

use super::show::{instant, new_table, trimmed};
use super::wait::now;
use super::{Global, Output, exit, print, print_json};
use crate::account::backtest::{Backtest, Cost};
use crate::config::{self, Overrides, Settings};
use crate::domain::policy::Policy;
use crate::domain::service::Service;
use crate::domain::time::{Span, Timestamp};
use crate::edge::sources::{Pace, client};
use crate::face::backtest as face;
use crate::face::html::Html;
use crate::journal::{Reader, WatchFilter};
use gather::Gather;

#[derive(Args)]
pub struct BacktestArgs {
    service: String,
    /// From here on: how long ago (30d), a day or an instant
    #[arg(long, default_value = "30d", value_parser = instant)]
    since: Timestamp,
    /// Up to here; now, if left away
    #[arg(long, value_parser = instant)]
    until: Option<Timestamp>,
    /// Take the switches from a file, one in a line: TIME OLD NEW [VERSION] [good|bad]
    #[arg(long, value_name = "FILE", conflicts_with_all = ["version_label", "from_journal"])]
    switches: Option<PathBuf>,
    /// The label of the requests that tells releases apart: a release in place is found by it
    #[arg(long, value_name = "LABEL", conflicts_with = "from_journal")]
    version_label: Option<String>,
    /// Play the watches of the journal again, by the readings that are still in it
    #[arg(long)]
    from_journal: bool,
    /// A file with other rule, limits, soak, warm_up or baseline, to see beside the service's own (several times)
    #[arg(long, value_name = "FILE")]
    policy: Vec<PathBuf>,
    /// How much of its time Prometheus is asked, in percent of one query at a time
    #[arg(long, value_name = "PERCENT", default_value_t = 50, value_parser = clap::value_parser!(u8).range(1..=100))]
    load: u8,
    #[arg(long, default_value = "/etc/flipback/flipback.toml")]
    config: PathBuf,
}

/// More beside each other nobody reads.
const POLICIES_MAX: usize = 4;

/// Watches of the journal that are played again.
const WATCHES_MAX: u32 = 1_000;

pub fn run(global: &Global, args: &BacktestArgs, overrides: &Overrides) -> i32 {
    match made(global, args, overrides) {
        Ok(backtest) => told(global, &backtest),
        Err((code, why)) => {
            eprintln!("{}", why.trim_end());
            code
        }
    }
}

type Refused = (i32, String);

fn usage(why: impl Into<String>) -> Refused {
    (exit::USAGE, format!("flipback: {}", why.into()))
}

fn made(global: &Global, args: &BacktestArgs, overrides: &Overrides) -> Result<Backtest, Refused> {
    let settings = config::load(&args.config, overrides).map_err(|problems| (exit::USAGE, problems.to_string()))?;
    let service = find(&settings, &args.service)?;
    let (from, to) = (args.since, args.until.unwrap_or_else(now).min(now()));
    if from >= to {
        return Err(usage(format!("--since {from} is not before --until {to}")));
    }
    if args.policy.len() >= POLICIES_MAX {
        return Err(usage(format!("at most {} policies beside the service's own", POLICIES_MAX - 1)));
    }
    let mut policies = vec![("this policy".to_owned(), service.policy.clone())];
    for path in &args.policy {
        let policy = config::load_policy(path, &service).map_err(|problems| (exit::USAGE, problems.to_string()))?;
        let name = path.file_stem().map_or_else(|| "other".into(), |name| name.to_string_lossy().into_owned());
        policies.push((name, policy));
    }
    if args.from_journal {
        return from_journal(global, &service, policies, (from, to));
    }
    if !service.metrics.from.needs_prometheus() {
        let word = service.metrics.from.word();
        let why = format!("{} is read by {word}, which remembers no past: use --from-journal", service.name);
        return Err(usage(why));
    }
    let _ = rustls::crypto::ring::default_provider().install_default();
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|error| (exit::UNREACHABLE, format!("flipback: the runtime does not start: {error}")))?;
    let _entered = runtime.enter();
    let pace = Arc::new(Pace::new(f64::from(args.load) / 100.0));
    let source = client(&settings).map_err(|error| usage(error.to_string()))?;
    let controls = service.controls.iter().filter_map(|name| settings.services.iter().find(|s| s.name == *name));
    let gather = Gather {
        source: source.paced(pace.clone()),
        controls: controls.cloned().collect(),
        policies: policies.iter().map(|(_, policy)| policy.clone()).collect(),
        service: service.clone(),
        from,
        to,
    };
    let list = match &args.switches {
        None => None,
        Some(path) => {
            let text = std::fs::read_to_string(path).map_err(|e| usage(format!("{}: {e}", path.display())))?;
            Some(list::read(&path.display().to_string(), &text, &service).map_err(|why| (exit::USAGE, why))?)
        }
    };
    let bar = ProgressBar::new(1000);
    if let Ok(style) = ProgressStyle::with_template("[{bar:30}] {percent:>3} % {msg}") {
        bar.set_style(style);
    }
    let tell_bar = bar.clone();
    let mut tell = move |at: u64, what: &str| {
        tell_bar.set_position(at);
        tell_bar.set_message(what.to_owned());
    };
    let found = runtime.block_on(async {
        let candidates = match list {
            Some(list) => {
                let window = service.policy.soak.max(Span::from_mins(60));
                let all = gather::listed(list, window);
                all.into_iter().filter(|c| c.at >= from && c.at < to).collect()
            }
            None => gather.find(args.version_label.as_deref(), &mut tell).await?,
        };
        gather.play(&candidates, &mut tell).await
    });
    bar.finish_and_clear();
    let rows = found.map_err(|failure| {
        let code = if failure.is_lasting() { exit::FAILED } else { exit::UNREACHABLE };
        (code, format!("flipback: {failure}"))
    })?;
    let found_by = match (&args.switches, &args.version_label) {
        (Some(path), _) => format!("the list {}", path.display()),
        (None, Some(label)) => format!("who had the traffic, and the label {label}"),
        (None, None) => "who had the traffic".to_owned(),
    };
    Ok(Backtest {
        service: service.name.to_string(),
        from,
        to,
        found_by,
        notes: notes(&service),
        policies: policies.into_iter().map(|(name, _)| name).collect(),
        rows,
        cost: pace.cost(),
    })
}

fn find(settings: &Settings, name: &str) -> Result<Service, Refused> {
    settings.services.iter().find(|s| s.name.as_str() == name).cloned().ok_or_else(|| {
        let known: Vec<&str> = settings.services.iter().map(|s| s.name.as_str()).collect();
        usage(format!("there is no service {name:?}; there are {}", known.join(", ")))
    })
}

fn notes(service: &Service) -> Vec<String> {
    let mut notes = vec![
        "Health checks are not in the past: only counts and latency are judged.".to_owned(),
        "What came before a switch is judged as it was recorded at the time; nothing after a rollback is known."
            .to_owned(),
    ];
    if !service.metrics.by_slot() {
        notes.push("Slots are told apart by time alone: an instant is known to half a minute.".into());
    }
    notes
}

fn from_journal(
    global: &Global,
    service: &Service,
    policies: Vec<(String, Policy)>,
    (from, to): (Timestamp, Timestamp),
) -> Result<Backtest, Refused> {
    let refused = |error: crate::journal::JournalError| (exit::FAILED, format!("flipback: {error}"));
    let reader = Reader::open(&global.state_dir).map_err(refused)?;
    let filter = WatchFilter {
        service: Some(service.name.clone()),
        ended_only: true,
        since: Some(from),
        until: Some(to),
        limit: WATCHES_MAX,
        ..WatchFilter::default()
    };
    let mut watches = reader.watches(&filter).map_err(refused)?;
    watches.sort_by_key(|w| w.opened_at);
    let bare: Vec<Policy> = policies.iter().map(|(_, policy)| policy.clone()).collect();
    let (mut rows, mut gone) = (Vec::new(), 0);
    for w in watches.iter().filter(|w| !w.is_drill()) {
        let account = reader.account(&w.id).map_err(refused)?;
        let readable = account.filter(|a| a.of_slot(&a.view.switch.new).next().is_some());
        match readable.and_then(|account| gather::replayed(&account, service, &bare)) {
            Some(row) => rows.push(row),
            None => gone += 1,
        }
    }
    let mut notes = vec![
        "Each watch is judged by the normal that was frozen when it opened.".to_owned(),
        "Readings end where the traffic was moved: a milder policy can at most have been healthy until then."
            .to_owned(),
    ];
    if gone > 0 {
        notes.push(format!("{gone} more have no readings left, or never had any."));
    }
    let names = std::iter::once("as it was".to_owned()).chain(policies.into_iter().map(|(name, _)| name));
    Ok(Backtest {
        service: service.name.to_string(),
        from,
        to,
        found_by: "the journal".into(),
        policies: names.collect(),
        rows,
        notes,
        cost: Cost::default(),
    })
}

fn told(global: &Global, backtest: &Backtest) -> i32 {
    match global.output {
        Output::Json => print_json(&face::whole(backtest)),
        Output::Html => {
            let page = face::Page::new(backtest, now());
            match Html::new().and_then(|html| html.backtest(&page)) {
                Ok(text) => print(&text),
                Err(error) => {
                    eprintln!("flipback: the report was not made: {error}");
                    return exit::FAILED;
                }
            }
        }
        Output::Table | Output::Md => print(&text(backtest)),
    }
    exit::OK
}

fn text(b: &Backtest) -> String {
    let mut out = format!("{}: {} to {}, switches by {}\n", b.service, b.from, b.to, b.found_by);
    if b.rows.is_empty() {
        out.push_str(
            "\nno switch was found; name them in a file with --switches, or reach back further with --since\n",
        );
        return out;
    }
    let mut table = new_table(&face::header(b));
    b.rows.iter().for_each(|row| {
        table.add_row(face::cells(b, row));
    });
    out.push_str(&format!("\n{}\n\n", trimmed(&table)));
    let mut table = new_table(&face::TALLY_HEADER);
    b.tallies().iter().for_each(|tally| {
        table.add_row(face::tally(tally));
    });
    out.push_str(&trimmed(&table));
    out.push('\n');
    let reasons = face::reasons(b);
    if !reasons.is_empty() {
        out.push_str("\nWHY\n");
        reasons.iter().for_each(|line| out.push_str(&format!("  {line}\n")));
    }
    out.push_str("\nNOTES\n");
    b.notes.iter().chain(face::cost(&b.cost).iter()).for_each(|line| out.push_str(&format!("  {line}\n")));
    out
}
