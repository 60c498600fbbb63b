//! The command line: stdout is data, stderr is talk.

mod announce;
mod backtest;
mod baseline;
mod check;
mod client;
mod drill;
mod explain;
mod faults;
mod follow;
mod init;
mod journal;
mod operate;
mod report;
mod show;
mod simulate;
mod token;
mod trial;
mod version;
mod wait;

use std::io::Write;
use std::path::PathBuf;

use clap::{Args, Parser, Subcommand, ValueEnum};
use serde_json::json;

use crate::config::{Overrides, SOCKET, STATE_DIR};

/// Exit codes, the same for every verb.
pub mod exit {
    /// Done; with --wait: the watch passed.
    pub const OK: i32 = 0;
    /// A check failed; with --wait: rolled back, withheld, or the rollback failed.
    pub const FAILED: i32 = 1;
    /// The command line is wrong.
    pub const USAGE: i32 = 2;
    /// With --wait: no verdict (unjudged, unconfirmed).
    pub const NO_VERDICT: i32 = 3;
    /// With --wait: a newer switch or a person ended the watch (superseded, cancelled).
    pub const OVERTAKEN: i32 = 4;
    /// flipback could not be reached: says nothing of the switch (sysexits: try again).
    pub const UNREACHABLE: i32 = 75;
    /// With --wait: the time given ran out; the watch goes on.
    pub const TIMEOUT: i32 = 124;
    /// Ctrl-C; the watch goes on.
    pub const INTERRUPTED: i32 = 130;
}

#[derive(Parser)]
#[command(
    name = "flipback",
    version,
    about = "Watches blue/green switches and moves the traffic back when a limit is truly breached",
    after_help = "Exit codes: 0 ok or passed; 1 failed check, rolled back or withheld; 2 usage; 3 no verdict \
                  (unjudged, unconfirmed); 4 superseded or cancelled; 75 flipback cannot be reached; 124 timeout."
)]
struct Cli {
    #[command(flatten)]
    global: Global,
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Args, Clone)]
pub(crate) struct Global {
    /// Control socket of the daemon
    #[arg(long, global = true, env = "FLIPBACK_SOCKET", default_value = SOCKET)]
    socket: PathBuf,
    /// Ask over HTTP instead of the socket: http://127.0.0.1:9747
    #[arg(long, global = true, requires = "token_file")]
    url: Option<String>,
    /// File with the API token, for --url
    #[arg(long, global = true)]
    token_file: Option<PathBuf>,
    /// State directory, read when the daemon is down
    #[arg(long, global = true, env = "FLIPBACK_STATE_DIR", default_value = STATE_DIR)]
    state_dir: PathBuf,
    /// How to print
    #[arg(short, long, global = true, value_enum, default_value_t = Output::Table)]
    output: Output,
}

#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Output {
    Table,
    Json,
    /// Markdown (simulate, report)
    Md,
    /// One file for a browser (report, backtest)
    Html,
}

#[derive(Subcommand)]
enum Verb {
    /// Run the daemon
    Run {
        /// Configuration file; conf.d/*.toml beside it is read too
        #[arg(long, default_value = "/etc/flipback/flipback.toml")]
        config: PathBuf,
    },
    /// Make a first configuration; never over another
    Init(Box<init::InitArgs>),
    /// What this binary is
    Version,
    /// Check a configuration file; with --live, what the running daemon sees of a service
    Check(check::CheckArgs),
    /// Tell flipback of a switch (it moves nothing)
    Announce(Box<announce::AnnounceArgs>),
    /// Wait for a watch's fast phase (--soak: its end); the exit code is its outcome
    Wait {
        id: String,
        #[command(flatten)]
        args: wait::WaitArgs,
    },
    /// Open watches and services at a glance
    Status,
    /// Everything about one watch
    Show { id: String },
    /// A watch as it goes on: live on a terminal, lines when piped; the newest open one without an ID
    Follow { id: Option<String> },
    /// Why a watch was judged as it was: the arithmetic, the tick that decided, what would have changed it
    Explain {
        id: String,
        /// List every tick
        #[arg(long)]
        ticks: bool,
    },
    /// A post-mortem's draft in one file: -o md (as it is) or -o html; -o json is all that it is made of
    Report { id: String },
    /// Past and open watches, newest first
    History(show::HistoryArgs),
    /// Let a waiting rollback go ahead
    Approve {
        id: String,
        #[arg(long, default_value = "")]
        why: String,
    },
    /// Leave the traffic where it is
    Decline {
        id: String,
        #[arg(long, default_value = "")]
        why: String,
    },
    /// Judge nothing for a while; the soak is longer by that
    Pause {
        id: String,
        /// Goes on by itself after this (four hours at most)
        #[arg(long = "for", value_name = "TIME", default_value = "15m", value_parser = span)]
        lasts: crate::domain::time::Span,
        #[arg(long, default_value = "")]
        why: String,
    },
    /// End a pause
    Resume {
        id: String,
        #[arg(long, default_value = "")]
        why: String,
    },
    /// Make a soak longer
    Extend {
        id: String,
        #[arg(long, value_name = "TIME", value_parser = span)]
        by: crate::domain::time::Span,
        #[arg(long, default_value = "")]
        why: String,
    },
    /// Practise the way back: dry, or with --for-real there and back
    Drill(drill::DrillArgs),
    /// Move the traffic back now: of an open watch, or over one that ended without moving it
    Rollback {
        id: String,
        #[arg(long, default_value = "")]
        why: String,
    },
    /// You look after it: no more reminders of what a watch has told
    Ack {
        id: String,
        #[arg(long, default_value = "")]
        why: String,
    },
    /// Try what is configured
    #[command(subcommand)]
    Test(trial::Verb),
    /// End a watch without a verdict
    Cancel {
        id: String,
        #[arg(long, default_value = "")]
        why: String,
    },
    /// Allow rollbacks again
    Arm(operate::Which),
    /// Stop flipback from moving traffic, durably
    Disarm(operate::Which),
    /// The recorded normal of a service
    #[command(subcommand)]
    Baseline(baseline::Verb),
    /// Access for pipelines and people over TCP
    #[command(subcommand)]
    Token(token::Verb),
    /// Audit the journal, or take one switch's evidence out of it
    #[command(subcommand)]
    Journal(journal::Verb),
    /// Read the configuration again; refused whole if anything is wrong
    Reload,
    /// What this policy, others, and the rules of other tools would have done with the switches of the past
    Backtest(Box<backtest::BacktestArgs>),
    /// Play the judgement against made traffic, beside the rules of other tools; exit code 1 if a promise fails
    Simulate(simulate::SimulateArgs),
    /// Carry out one step (used by the daemon)
    #[command(hide = true)]
    Shim { dir: PathBuf },
    /// Carry out an action of flipback's own (used by the shim)
    #[command(hide = true)]
    Act { dir: PathBuf },
    /// Carry out a step outside the daemon's sandbox (used by flipback-rollback@.service)
    #[command(hide = true)]
    UnitStep {
        instance: String,
        #[arg(long, default_value = "/etc/flipback/flipback.toml")]
        config: PathBuf,
    },
}

fn span(text: &str) -> Result<crate::domain::time::Span, String> {
    crate::domain::time::Span::parse(text).map_err(|why| why.to_string())
}

/// The command line itself, for man pages and completions.
pub fn command() -> clap::Command {
    <Cli as clap::CommandFactory>::command()
}

/// Parses the command line and carries it out; the result is the exit code.
pub fn main() -> i32 {
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => {
            let _ = error.print();
            return if error.use_stderr() { exit::USAGE } else { exit::OK };
        }
    };
    let overrides = || Overrides {
        state_dir: std::env::var_os("FLIPBACK_STATE_DIR").map(PathBuf::from),
        socket: std::env::var_os("FLIPBACK_SOCKET").map(PathBuf::from),
        log_level: std::env::var("FLIPBACK_LOG").ok(),
    };
    let global = cli.global;
    let wrong = match global.output {
        Output::Md if !matches!(cli.verb, Verb::Simulate(_) | Verb::Report { .. }) => {
            Some("simulate and report print markdown")
        }
        Output::Html if !matches!(cli.verb, Verb::Report { .. } | Verb::Backtest(_)) => {
            Some("report and backtest print html")
        }
        _ => None,
    };
    if let Some(wrong) = wrong {
        eprintln!("flipback: only {wrong}; use -o table or -o json");
        return exit::USAGE;
    }
    match cli.verb {
        Verb::Run { config } => crate::runtime::run(&config, &overrides()),
        Verb::Init(args) => init::run(&args, &overrides()),
        Verb::Version => version::run(&global),
        Verb::Shim { dir } => crate::shim::run(&dir),
        Verb::Check(args) => check::run(&global, &args, &overrides()),
        Verb::Announce(args) => announce::run(&global, &args),
        Verb::Wait { id, args } => wait::run(&global, &id, &args),
        Verb::Status => show::status(&global),
        Verb::Show { id } => show::one(&global, &id),
        Verb::Explain { id, ticks } => explain::run(&global, &id, ticks),
        Verb::Follow { id } => follow::run(&global, id.as_deref()),
        Verb::Report { id } => report::run(&global, &id),
        Verb::History(args) => show::history(&global, &args),
        Verb::Approve { id, why } => operate::upon(&global, &id, "approve", json!({ "why": why })),
        Verb::Decline { id, why } => operate::upon(&global, &id, "decline", json!({ "why": why })),
        Verb::Rollback { id, why } => operate::upon(&global, &id, "rollback", json!({ "why": why })),
        Verb::Ack { id, why } => operate::upon(&global, &id, "ack", json!({ "why": why })),
        Verb::Test(verb) => trial::run(&global, &verb),
        Verb::Cancel { id, why } => operate::upon(&global, &id, "cancel", json!({ "why": why })),
        Verb::Pause { id, lasts, why } => {
            operate::upon(&global, &id, "pause", json!({ "for": lasts.to_string(), "why": why }))
        }
        Verb::Resume { id, why } => operate::upon(&global, &id, "resume", json!({ "why": why })),
        Verb::Extend { id, by, why } => {
            operate::upon(&global, &id, "extend", json!({ "by": by.to_string(), "why": why }))
        }
        Verb::Drill(args) => drill::run(&global, &args),
        Verb::Act { dir } => crate::edge::actuators::native::act(&dir),
        Verb::UnitStep { instance, config } => crate::edge::actuators::native::unit::run(&instance, &config),
        Verb::Arm(which) => operate::arm(&global, &which, true),
        Verb::Disarm(which) => operate::arm(&global, &which, false),
        Verb::Baseline(verb) => baseline::run(&global, &verb),
        Verb::Token(verb) => token::run(&global, &verb),
        Verb::Journal(verb) => journal::run(&global, &verb),
        Verb::Backtest(args) => backtest::run(&global, &args, &overrides()),
        Verb::Simulate(args) => simulate::run(&global, &args),
        Verb::Reload => operate::post(&global, "/-/reload", None),
    }
}

/// Whether what is printed goes to a terminal that can be drawn on.
pub(crate) fn on_screen() -> bool {
    use std::io::IsTerminal as _;
    std::io::stdout().is_terminal() && std::env::var_os("TERM").is_some_and(|term| term != "dumb")
}

/// Whether colours are wanted at all: not where NO_COLOR says no.
pub(crate) fn colours() -> bool {
    on_screen() && std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty())
}

/// Writes data; a reader that went away (a pipe to head) is no error.
pub(crate) fn print(text: &str) {
    let mut out = std::io::stdout().lock();
    let _ = out.write_all(text.as_bytes()).and_then(|()| out.flush());
}

pub(crate) fn print_json<T: serde::Serialize>(value: &T) {
    match serde_json::to_string_pretty(value) {
        Ok(text) => print(&format!("{text}\n")),
        Err(error) => eprintln!("flipback: {error}"),
    }
}
