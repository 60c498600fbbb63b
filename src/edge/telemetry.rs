//! Logs: journald where the process runs under it, else one line per event on stderr.

use std::os::linux::fs::MetadataExt;

use tracing_subscriber::EnvFilter;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;

use super::journald::Journald;
use crate::config::settings::{LogFormat, LogSettings};

/// Starts logging for the life of the process. A level that cannot be read falls back to `info`.
pub fn start(settings: &LogSettings) {
    // The scheduler talks of its own life at `info`. What the configuration says comes later and wins.
    let quiet = |level: &str| format!("tokio_cron_scheduler=warn,{level}");
    let filter = EnvFilter::try_new(quiet(&settings.level)).unwrap_or_else(|_| EnvFilter::new(quiet("info")));
    let registry = tracing_subscriber::registry().with(filter);
    let journald = match settings.format {
        LogFormat::Auto if stderr_is_journal() => Journald::new().ok(),
        LogFormat::Auto | LogFormat::Logfmt | LogFormat::Json => None,
    };
    // A second start (in one test process) keeps the first.
    let _ = match (journald, settings.format) {
        (Some(layer), _) => registry.with(layer).try_init(),
        (None, LogFormat::Json) => registry
            .with(tracing_subscriber::fmt::layer().json().flatten_event(true).with_writer(std::io::stderr))
            .try_init(),
        (None, LogFormat::Auto | LogFormat::Logfmt) => {
            registry.with(tracing_logfmt::builder().with_target(false).layer().with_writer(std::io::stderr)).try_init()
        }
    };
}

/// systemd names the stream's device and inode; a redirected stderr is another one.
fn stderr_is_journal() -> bool {
    let Some(named) = std::env::var_os("JOURNAL_STREAM") else { return false };
    let Ok(meta) = std::fs::metadata("/proc/self/fd/2") else { return false };
    named.to_str() == Some(&format!("{}:{}", meta.st_dev(), meta.st_ino()))
}
