//! One page that is read again and again.

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use sha2::{Digest, Sha256};
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

use super::page::{self, Known, Wanted};
use super::store::Store;
use crate::domain::action::HttpTarget;
use crate::domain::signal::{FailureKind, ReadFailure};
use crate::domain::time::{Span, Timestamp};
use crate::edge::actuators::native::http;
use crate::edge::sources::client::cut;

/// A page of ten thousand series is some 2 MiB.
const PAGE_MAX: usize = 16 * 1024 * 1024;

/// While nothing is watched: a cell of the normal is as long.
const IDLE_EVERY: Span = Span::from_secs(15);

/// A slower page is one that hangs.
const TIMEOUT_MAX: Span = Span::from_secs(10);

/// So long after the last question a page counts as watched.
const HOT_FOR: Span = Span::from_secs(90);

/// How a page was found last.
#[derive(Debug, Clone, PartialEq)]
pub enum Found {
    Up,
    /// Nobody answers: positive evidence of a dead process.
    Down(String),
    /// It answers with something that is no page.
    Unusable(ReadFailure),
}

#[derive(Default)]
struct State {
    store: Store,
    found: Option<(Timestamp, Found)>,
    /// The instant of a scrape that has not ended yet.
    in_flight: Option<Timestamp>,
    /// The longest of the last ones, falling slowly.
    took_ms: u64,
    hot_until: Option<Timestamp>,
    kept_at: Option<Timestamp>,
}

/// What is the same as long as the configuration is.
#[derive(Clone, PartialEq)]
pub struct Terms {
    pub page: HttpTarget,
    pub every: Span,
    /// Read while nothing is watched, too.
    pub always: bool,
    /// The selectors, as they are written: another text is another page.
    pub selectors: String,
}

pub struct Target {
    pub terms: Terms,
    wanted: Wanted,
    client: reqwest::Client,
    state: Mutex<State>,
    known: Mutex<Known>,
    awake: Notify,
    stop: CancellationToken,
    file: PathBuf,
    now: fn() -> Timestamp,
}

impl Target {
    pub fn new(
        terms: Terms,
        wanted: Wanted,
        dir: &Path,
        stop: CancellationToken,
        now: fn() -> Timestamp,
    ) -> Result<Target, String> {
        let client = http::client(&terms.page, true)?;
        let name = hex::encode(Sha256::digest(format!("{}\n{}", terms.page.url, terms.selectors)));
        let file = dir.join(format!("{}.json", name.get(..24).unwrap_or(&name)));
        // A file that cannot be read is one that was never written: counting begins anew.
        let store = std::fs::read(&file).ok().and_then(|bytes| serde_json::from_slice(&bytes).ok()).unwrap_or_default();
        let state = Mutex::new(State { store, ..State::default() });
        let (known, awake) = (Mutex::default(), Notify::new());
        Ok(Target { terms, wanted, client, state, known, awake, stop, file, now })
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Somebody watches: read it as often as is asked for.
    pub fn heat(&self) {
        let now = (self.now)();
        let cold = self.state().hot_until.replace(now + HOT_FOR).is_none_or(|until| until < now);
        if cold {
            self.awake.notify_one();
        }
    }

    /// The configuration names it no more.
    pub fn end(&self) {
        self.stop.cancel();
    }

    pub async fn run(self: Arc<Self>) {
        loop {
            let now = (self.now)();
            let hot = self.state().hot_until.is_some_and(|until| now < until);
            let every = match (hot, self.terms.always) {
                (true, _) => Some(self.terms.every),
                (false, true) => Some(IDLE_EVERY.max(self.terms.every)),
                (false, false) => None,
            };
            let never_read = self.state().store.last_at().is_none_or(|at| now.since(at) > HOT_FOR);
            let next = match every {
                // Counting begins at once, not at the next mark.
                Some(_) if never_read && self.state().found.is_none() => Some(now),
                Some(every) => Some(now.floor_to(every) + every),
                None => None,
            };
            let wait = async {
                match next {
                    Some(next) => tokio::time::sleep(next.since(now).to_std()).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                () = self.stop.cancelled() => return,
                () = self.awake.notified() => {}
                () = wait => if let Some(next) = next { self.scrape(next).await },
            }
        }
    }

    async fn scrape(&self, at: Timestamp) {
        // A machine that was busy (or asleep) is late: then the page is of now.
        let now = (self.now)();
        let at = if now.since(at) < Span::from_millis(self.terms.every.as_millis() / 4) { at } else { now };
        {
            let mut state = self.state();
            state.store.trying(at);
            state.in_flight = Some(at);
        }
        let timeout = self.terms.every.clamp(Span::from_secs(1), TIMEOUT_MAX);
        let fetched = self.fetch(timeout).await;
        let took_ms = (self.now)().since(now).as_millis();
        let read = fetched.and_then(|(text, openmetrics)| {
            let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
            let page = page::read(&text, openmetrics, &self.wanted, &mut known).map_err(|why| {
                let detail = cut(&format!("{}: {why}", self.terms.page.url));
                Found::Unusable(ReadFailure { kind: FailureKind::Unusable, detail })
            })?;
            Ok((page, known))
        });
        let mut state = self.state();
        state.in_flight = None;
        let found = match read {
            Ok((page, known)) => {
                state.took_ms = took_ms.max(state.took_ms.saturating_sub(state.took_ms / 8));
                state.store.take(at, page, &known);
                Found::Up
            }
            Err(found) => found,
        };
        let news = state
            .found
            .as_ref()
            .is_none_or(|(_, before)| std::mem::discriminant(before) != std::mem::discriminant(&found));
        if news {
            let url = &self.terms.page.url;
            match &found {
                Found::Up => tracing::info!(page = url, "a metrics page is read"),
                Found::Down(why) | Found::Unusable(ReadFailure { detail: why, .. }) => {
                    tracing::warn!(page = url, %why, "a metrics page cannot be read");
                }
            }
        }
        state.found = Some((at, found));
    }

    /// The page's text, and whether it is OpenMetrics.
    async fn fetch(&self, timeout: Span) -> Result<(String, bool), Found> {
        let url = &self.terms.page.url;
        let unusable = |kind, why: String| Found::Unusable(ReadFailure { kind, detail: cut(&format!("{url}: {why}")) });
        let request = http::request_with(&self.client, reqwest::Method::GET, &self.terms.page)
            .map_err(|why| unusable(FailureKind::Rejected, why))?;
        // What it speaks, and that it may take as long as we wait.
        let request = request
            .header("Accept", "application/openmetrics-text;version=1.0.0,text/plain;version=0.0.4;q=0.5,*/*;q=0.1")
            .timeout(timeout.to_std());
        let mut answer = request.send().await.map_err(|error| Found::Down(http::root(&error)))?;
        let status = answer.status();
        if !status.is_success() {
            return Err(unusable(FailureKind::Rejected, format!("answered {status}")));
        }
        let kind = answer.headers().get("content-type").and_then(|v| v.to_str().ok()).unwrap_or_default();
        let openmetrics = kind.starts_with("application/openmetrics-text");
        let mut bytes = Vec::new();
        while let Some(chunk) = answer.chunk().await.map_err(|error| Found::Down(http::root(&error)))? {
            bytes.extend_from_slice(&chunk);
            if bytes.len() > PAGE_MAX {
                let why = format!("the page is larger than {} MiB", PAGE_MAX / 1024 / 1024);
                return Err(unusable(FailureKind::Unusable, why));
            }
        }
        let text = String::from_utf8(bytes).map_err(|_| unusable(FailureKind::Unusable, "is not UTF-8".into()))?;
        Ok((text, openmetrics))
    }

    /// Reads it once, now, and beside everything else.
    pub async fn look(&self) -> Result<(page::Page, Known, usize, Duration), Found> {
        let began = std::time::Instant::now();
        let (text, openmetrics) = self.fetch(TIMEOUT_MAX).await?;
        let mut known = Known::new();
        let page = page::read(&text, openmetrics, &self.wanted, &mut known).map_err(|why| {
            let detail = cut(&format!("{}: {why}", self.terms.page.url));
            Found::Unusable(ReadFailure { kind: FailureKind::Unusable, detail })
        })?;
        Ok((page, known, text.len(), began.elapsed()))
    }

    /// Up to here everything is in: an instant whose scrape is under way is not.
    pub fn settled(&self, to: Timestamp) -> Timestamp {
        match self.state().in_flight {
            Some(at) if at <= to => at.shifted(-1),
            Some(_) | None => to,
        }
    }

    pub fn file(&self) -> &Path {
        &self.file
    }

    pub fn found(&self) -> Option<(Timestamp, Found)> {
        self.state().found.clone()
    }

    /// How long a scrape takes.
    pub fn took(&self) -> Span {
        Span::from_millis(self.state().took_ms)
    }

    pub fn with_store<T>(&self, look: impl FnOnce(&Store) -> T) -> T {
        look(&self.state().store)
    }

    /// Writes down what was counted, before anybody is told of it: after a restart it goes on from there.
    pub fn keep(&self) -> std::io::Result<()> {
        let (text, last) = {
            let state = self.state();
            let last = state.store.last_at();
            if last.is_none() || last == state.kept_at {
                return Ok(());
            }
            (serde_json::to_vec(&state.store).map_err(std::io::Error::other)?, last)
        };
        let fresh = self.file.with_extension("new");
        // Not synced: after a power cut counting begins anew, and nothing is counted twice.
        std::fs::write(&fresh, text)?;
        std::fs::rename(&fresh, &self.file)?;
        self.state().kept_at = last;
        Ok(())
    }
}
