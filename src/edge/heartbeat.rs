//! The dead man's switch: somebody outside is told again and again that flipback is well, and raises the alarm when that
//! ends. It stops when the decision loop stops, when the process or the host is gone, and when nothing gets out.

use std::time::Duration;

use tokio_util::sync::CancellationToken;

use super::authorities::of_this_machine;
use super::metrics::Metrics;
use super::secret::first_line;
use super::systemd::Progress;
use crate::config::settings::{HeartbeatSettings, HeartbeatTo};

/// One beat; a slow receiver must not make the next one late.
const LIMIT: Duration = Duration::from_secs(10);

pub struct Heartbeat {
    http: reqwest::Client,
    settings: HeartbeatSettings,
}

impl Heartbeat {
    pub fn new(settings: &HeartbeatSettings) -> Result<Heartbeat, String> {
        let http = of_this_machine(reqwest::Client::builder())
            .timeout(LIMIT)
            .redirect(reqwest::redirect::Policy::none())
            .no_proxy()
            .user_agent(concat!("flipback/", env!("CARGO_PKG_VERSION")))
            .build()
            .map_err(|error| format!("[heartbeat]: {error}"))?;
        Ok(Heartbeat { http, settings: settings.clone() })
    }

    /// Beats while the loop makes progress, until told to stop.
    pub async fn beat(self, progress: Progress, metrics: std::sync::Arc<Metrics>, stop: CancellationToken) {
        let (mut last, mut failing) = (None, false);
        loop {
            let count = progress.count();
            // A loop that stands still is not well: nobody is told that it is.
            if last != Some(count) {
                last = Some(count);
                match self.once().await {
                    Ok(()) => {
                        metrics.heartbeats.inc();
                        if std::mem::replace(&mut failing, false) {
                            tracing::info!("the heartbeat gets through again");
                        }
                    }
                    Err(why) => {
                        metrics.heartbeats_failed.inc();
                        if !std::mem::replace(&mut failing, true) {
                            tracing::warn!(why, "the heartbeat does not get through");
                        }
                    }
                }
            }
            tokio::select! {
                () = stop.cancelled() => return,
                () = tokio::time::sleep(self.settings.every.to_std()) => {}
            }
        }
    }

    async fn once(&self) -> Result<(), String> {
        let url = match &self.settings.to {
            HeartbeatTo::Url(url) => url.clone(),
            HeartbeatTo::File(file) => first_line(file)?,
        };
        // The address may be a secret: an error is told without it.
        let answer = self.http.get(url).send().await.map_err(|error| error.without_url().to_string())?;
        let status = answer.status();
        if status.is_success() { Ok(()) } else { Err(format!("it answered {status}")) }
    }
}
