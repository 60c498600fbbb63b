//! What systemd is told: ready, status, and a watchdog fed only by the decision loop's own progress.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use sd_notify::NotifyState;
use tokio_util::sync::CancellationToken;

/// Counts the decision loop's turns.
#[derive(Debug, Clone, Default)]
pub struct Progress(Arc<AtomicU64>);

impl Progress {
    pub fn made(&self) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }

    pub(super) fn count(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

pub fn ready() {
    tell(&[NotifyState::Ready]);
}

fn status(status: &str) {
    tell(&[NotifyState::Status(status)]);
}

pub fn stopping() {
    tell(&[NotifyState::Stopping]);
}

fn tell(states: &[NotifyState<'_>]) {
    // Outside systemd there is nobody to tell.
    let _ = sd_notify::notify(states);
}

/// Keeps the status line of `systemctl status` up to date.
pub async fn keep_status(line: impl Fn() -> String, stop: CancellationToken) {
    let mut last = String::new();
    loop {
        let now = line();
        if now != last {
            status(&now);
            last = now;
        }
        tokio::select! {
            () = stop.cancelled() => return,
            () = tokio::time::sleep(Duration::from_secs(2)) => {}
        }
    }
}

/// Pets the watchdog while the loop goes on; a loop that stands still is restarted.
pub async fn watchdog(progress: Progress, stop: CancellationToken) {
    let Some(limit) = sd_notify::watchdog_enabled() else { return };
    let every = (limit / 2).max(Duration::from_millis(100));
    let mut last = None;
    loop {
        let count = progress.count();
        if last != Some(count) {
            tell(&[NotifyState::Watchdog]);
            last = Some(count);
        }
        tokio::select! {
            () = stop.cancelled() => return,
            () = tokio::time::sleep(every) => {}
        }
    }
}
