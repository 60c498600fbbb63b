//! `flipback version`: what this binary is, for a report of a fault.

use serde::Serialize;

use super::{Global, Output, exit, print, print_json};

/// The facts of the build.
#[derive(Debug, Serialize)]
pub struct Build {
    pub version: &'static str,
    /// The commit it was made from, where the maker said so.
    pub commit: &'static str,
    pub rustc: &'static str,
    pub target: &'static str,
    /// `debug` or `release`.
    pub profile: &'static str,
    pub features: Vec<&'static str>,
    pub store: String,
    /// What it reads and writes: an older flipback does not open a newer journal.
    pub journal_schema: i64,
}

pub fn build() -> Build {
    Build {
        version: env!("CARGO_PKG_VERSION"),
        commit: option_env!("FLIPBACK_COMMIT").unwrap_or("unknown"),
        rustc: env!("FLIPBACK_RUSTC"),
        target: env!("FLIPBACK_TARGET"),
        profile: env!("FLIPBACK_PROFILE"),
        features: if cfg!(feature = "charts") { vec!["charts"] } else { Vec::new() },
        store: crate::journal::store_version(),
        journal_schema: crate::journal::SCHEMA,
    }
}

pub fn run(global: &Global) -> i32 {
    let b = build();
    if global.output == Output::Json {
        print_json(&b);
        return exit::OK;
    }
    let features = if b.features.is_empty() { "none".to_owned() } else { b.features.join(", ") };
    print(&format!(
        "flipback {}\n  commit          {}\n  made with       {}\n  for             {} ({})\n  features        {features}\n  \
         store           {}\n  journal schema  {}\n",
        b.version, b.commit, b.rustc, b.target, b.profile, b.store, b.journal_schema
    ));
    exit::OK
}
