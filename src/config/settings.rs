//! The validated configuration: what the rest of the program sees of it.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::PathBuf;

use crate::domain::access::{Grant, Role};
use crate::domain::action::{Exec, SocketAddress};
use crate::domain::brakes::Brakes;
use crate::domain::service::Service;
use crate::domain::switch::{ServiceName, Slot};
use crate::domain::time::Span;
use crate::edge::hooks::Encoding;
use crate::edge::notify::route::Route;

#[derive(Debug, Clone, PartialEq)]
pub struct Settings {
    pub state_dir: PathBuf,
    /// `None`: nothing is read from one.
    pub prometheus: Option<PrometheusSettings>,
    pub email: Option<EmailSettings>,
    pub api: ApiSettings,
    pub log: LogSettings,
    pub brakes: Brakes,
    /// When dry drills are made (UTC, six fields); `None`: never by themselves.
    pub drills: Option<String>,
    pub notify: NotifySettings,
    pub digest: Option<DigestSettings>,
    pub services: Vec<Service>,
    /// Where switches are noticed that nobody announced.
    pub detectors: Vec<DetectorSettings>,
    pub webhooks: Vec<WebhookSettings>,
    /// Who is told again and again that flipback is well, and tells somebody when that ends.
    pub heartbeat: Option<HeartbeatSettings>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HeartbeatSettings {
    pub to: HeartbeatTo,
    pub every: Span,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum HeartbeatTo {
    Url(String),
    /// The address is a secret.
    File(PathBuf),
}

/// One thing that is looked at again and again.
#[derive(Debug, Clone, PartialEq)]
pub struct DetectorSettings {
    pub service: ServiceName,
    pub name: String,
    pub every: Span,
    pub shows: Shows,
    /// What is shown for which slot; empty where slots or versions show themselves.
    pub words: BTreeMap<Slot, Vec<String>>,
    pub look: Look,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Shows {
    Slot,
    Version,
}

#[derive(Debug, Clone, PartialEq)]
pub enum Look {
    /// A file in which a slot's word stands.
    File { path: PathBuf },
    /// A link that points to the slot.
    Symlink { path: PathBuf },
    /// Which servers of a backend take requests.
    Haproxy { address: SocketAddress, backend: String },
    /// A command that prints the slot, or slots and weights.
    Exec { exec: Exec, timeout: Span },
    /// Numbers by a label: most of them are on the slot.
    Promql { query: String, label: String },
}

/// Received at `/hooks/NAME`.
#[derive(Debug, Clone, PartialEq)]
pub struct WebhookSettings {
    pub name: String,
    pub sender: Sender,
    pub secret_file: PathBuf,
    /// The services that it may speak of; empty: all.
    pub services: Vec<ServiceName>,
    /// A template for each field of an announcement that the sender's own do not fit.
    pub templates: BTreeMap<String, String>,
    /// Deliveries for which this does not hold are ignored.
    pub when: Option<String>,
    /// How a generic sender proves itself.
    pub proof: Option<Proof>,
    /// Alerts may move traffic; otherwise they are noted.
    pub acts: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Sender {
    Github,
    Gitlab,
    Argocd,
    Jenkins,
    Launchdarkly,
    Standard,
    Generic,
    Alertmanager,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Proof {
    /// HMAC-SHA256 of the body.
    Signature { header: String, prefix: String, encoding: Encoding },
    /// The secret itself.
    Token { header: String },
}

/// How far back the first recording goes, where nothing else is said.
pub const BACKFILL: Span = Span::from_mins(24 * 60);

#[derive(Debug, Clone, PartialEq)]
pub struct PrometheusSettings {
    /// Base URL without a trailing `/`.
    pub url: String,
    /// Servers that scrape the same.
    pub replicas: Vec<String>,
    /// So many of them must say the same, at least 1.
    pub quorum: usize,
    /// Where people open Prometheus, for links; `url` where it is not set.
    pub external_url: Option<String>,
    /// Limit of one HTTP exchange.
    pub timeout: Span,
    /// Overrides the settling time that is read from Prometheus (remote write needs it).
    pub settle: Option<Span>,
    pub auth: Option<PrometheusAuth>,
    /// The one authority that its certificate must come from.
    pub ca_file: Option<PathBuf>,
    pub certificate: Option<ClientCertificate>,
    pub headers: BTreeMap<String, String>,
    /// Further parameters of every query.
    pub params: BTreeMap<&'static str, String>,
    /// How far back the first backfill of the baseline goes.
    pub backfill: Span,
}

impl PrometheusSettings {
    /// Everything by default.
    pub fn at(url: impl Into<String>) -> PrometheusSettings {
        PrometheusSettings {
            url: url.into(),
            replicas: Vec::new(),
            quorum: 1,
            external_url: None,
            timeout: Span::from_secs(5),
            settle: None,
            auth: None,
            ca_file: None,
            certificate: None,
            headers: BTreeMap::new(),
            params: BTreeMap::new(),
            backfill: BACKFILL,
        }
    }
}

/// Credentials, by file: read when the client is built, never logged.
#[derive(Debug, Clone, PartialEq)]
pub enum PrometheusAuth {
    Basic { username: String, password_file: PathBuf },
    Bearer { token_file: PathBuf },
}

/// How flipback itself is known to a server (mutual TLS). PEM.
#[derive(Debug, Clone, PartialEq)]
pub struct ClientCertificate {
    pub cert_file: PathBuf,
    pub key_file: PathBuf,
}

#[derive(Debug, Clone, PartialEq)]
pub struct EmailSettings {
    pub host: String,
    pub port: u16,
    pub tls: MailTls,
    pub from: String,
    pub to: Vec<String>,
    pub login: Option<MailLogin>,
    /// Certificates to trust beside the system's.
    pub ca_file: Option<PathBuf>,
    /// Limit of one delivery, from connecting to the server's last word.
    pub timeout: Span,
}

/// Who is told what.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct NotifySettings {
    pub receivers: Vec<ReceiverSettings>,
    /// `None`: nobody; notices are in the log.
    pub route: Option<Route>,
    /// What is run when a page does not get out.
    pub fallback: Option<FallbackSettings>,
    /// A directory of templates in place of the built-in ones.
    pub templates: Option<PathBuf>,
    pub links: LinkSettings,
}

/// Addresses with variables in them.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct LinkSettings {
    pub grafana: Option<String>,
    pub status_page: Option<String>,
}

#[derive(Debug, Clone, PartialEq)]
pub struct ReceiverSettings {
    pub name: String,
    pub channels: Vec<ChannelSettings>,
    /// Whether it hears that a trouble is over, wherever the route would send that.
    pub send_resolved: bool,
}

#[derive(Debug, Clone, PartialEq)]
pub enum ChannelSettings {
    Email {
        to: Vec<String>,
    },
    /// The address is the secret.
    Slack {
        url_file: PathBuf,
        channel: Option<String>,
    },
    Teams {
        url_file: PathBuf,
    },
    Pagerduty {
        routing_key_file: PathBuf,
        url: String,
    },
    Alertmanager {
        url: String,
    },
    Webhook {
        url: String,
        secret_file: PathBuf,
    },
    Command {
        exec: Exec,
        timeout: Span,
    },
}

impl ChannelSettings {
    pub fn word(&self) -> &'static str {
        match self {
            ChannelSettings::Email { .. } => "email",
            ChannelSettings::Slack { .. } => "slack",
            ChannelSettings::Teams { .. } => "teams",
            ChannelSettings::Pagerduty { .. } => "pagerduty",
            ChannelSettings::Alertmanager { .. } => "alertmanager",
            ChannelSettings::Webhook { .. } => "webhook",
            ChannelSettings::Command { .. } => "command",
        }
    }
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DigestSettings {
    /// UTC, six fields.
    pub cron: String,
    /// How far it looks back.
    pub covers: Span,
}

/// A command that gets the notice on its standard input.
#[derive(Debug, Clone, PartialEq)]
pub struct FallbackSettings {
    pub exec: Exec,
    /// A page that has not been delivered for so long goes this way as well.
    pub after: Span,
    pub timeout: Span,
}

#[derive(Debug, Clone, PartialEq)]
pub struct MailLogin {
    pub username: String,
    pub password_file: PathBuf,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MailTls {
    /// Plain text: only to loopback unless the configuration insists.
    None,
    StartTls,
    Implicit,
}

#[derive(Debug, Clone, PartialEq)]
pub struct ApiSettings {
    /// `None`: no TCP listener, only the control socket.
    pub listen: Option<SocketAddr>,
    /// The first line of this file is a token that may everything.
    pub token_file: Option<PathBuf>,
    pub socket: PathBuf,
    /// What those of the socket's group may who are in no rule.
    pub socket_role: Role,
    /// Who may what on the socket; the first that fits.
    pub local: Vec<LocalRule>,
    pub tls: Option<TlsSettings>,
    /// Who may read the page.
    pub page: PageAccess,
}

/// PEM files.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TlsSettings {
    pub cert_file: PathBuf,
    pub key_file: PathBuf,
    /// Whoever has no certificate of this authority is not talked to.
    pub client_ca_file: Option<PathBuf>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LocalRule {
    pub whom: Whom,
    pub grant: Grant,
}

/// By name in the local files, or by number.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Whom {
    User(String),
    Group(String),
}

/// Orders need the token, whoever may read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PageAccess {
    /// Whoever has the token.
    Token,
    /// Whoever reaches the port.
    Open,
    /// There is none.
    Off,
}

#[derive(Debug, Clone, PartialEq)]
pub struct LogSettings {
    pub format: LogFormat,
    /// A tracing filter: `info`, `flipback=debug`.
    pub level: String,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LogFormat {
    /// journald where the process runs under it, else logfmt.
    Auto,
    Logfmt,
    Json,
}
