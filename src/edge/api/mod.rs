//! The control interface: HTTP on the control socket and, where configured, on loopback TCP.

pub mod auth;
mod baseline;
mod gate;
pub mod limit;
pub(crate) mod parse;
mod receive;
mod routes;
mod serve;
pub mod tls;
pub mod token_verbs;
pub mod tokens;
pub mod types;
pub(in crate::edge) mod verbs;

use std::collections::BTreeMap;
use std::pin::Pin;
use std::sync::atomic::AtomicBool;
use std::sync::{Arc, Mutex, RwLock};

use tokio::sync::{mpsc, oneshot};

use super::hooks::Hooks;
use super::inbox::Inbox;
use super::metrics::Metrics;
use super::notify::trial::TriedChannel;
use super::sources::Finding;
use crate::config::Settings;
use crate::domain::switch::ServiceName;
use crate::domain::time::Timestamp;
use crate::journal::Reader;

pub use auth::{Authority, Caller};
pub use gate::{About, RULES};
pub use limit::Limiter;
pub use serve::{Remote, bind_socket, serve};
pub use tls::Tls;

/// What the driver lets others see of the engine, renewed after each turn.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Facts {
    pub armed: bool,
    pub services: BTreeMap<ServiceName, ServiceFacts>,
    pub open_watches: usize,
}

#[derive(Debug, Clone, Default, PartialEq)]
pub struct ServiceFacts {
    pub armed: bool,
    pub live: Option<String>,
}

/// Receiver and kind, each of them all where it is left away.
pub type TestNotify =
    Box<dyn Fn(Option<String>, Option<String>) -> Async<Result<Vec<TriedChannel>, String>> + Send + Sync>;
pub type Async<T> = Pin<Box<dyn Future<Output = T> + Send>>;
/// A reload of the configuration: the answer says what was taken or why not.
pub type ReloadRequest = oneshot::Sender<Result<String, String>>;

/// What the routes work with. The runtime fills it in.
pub struct ApiContext {
    pub inbox: Inbox,
    pub reader: Reader,
    pub settings: Arc<RwLock<Arc<Settings>>>,
    pub facts: Arc<Mutex<Facts>>,
    pub reload: mpsc::Sender<ReloadRequest>,
    /// Runs every signal, health check and probe of the services asked for.
    pub live_check: Box<dyn Fn(Option<ServiceName>) -> Async<Vec<Finding>> + Send + Sync>,
    /// Brings the recorded baseline up to now; says how many cells came.
    pub record_baseline: Box<dyn Fn(ServiceName) -> Async<Result<usize, String>> + Send + Sync>,
    /// Sends samples by receiver and kind; says what became of each.
    pub test_notify: TestNotify,
    pub hooks: Arc<RwLock<Arc<Hooks>>>,
    /// Deliveries of one webhook.
    pub hook_limit: Limiter,
    /// Announcements of one caller.
    pub announce_limit: Limiter,
    /// Everything else of one caller.
    pub request_limit: Limiter,
    /// Wrong tokens, whoever sends them.
    pub guess_limit: Limiter,
    pub authority: Authority,
    pub metrics: Arc<Metrics>,
    pub ready: Arc<AtomicBool>,
    pub started_at: Timestamp,
    pub now: fn() -> Timestamp,
    /// How far the wall clock is ahead of it.
    pub stepped_ms: fn() -> i64,
}

impl ApiContext {
    /// The clock that senders speak of: the daemon's own may have been left behind.
    pub(in crate::edge) fn wall(&self) -> Timestamp {
        (self.now)().shifted((self.stepped_ms)())
    }
}
